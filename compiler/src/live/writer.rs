//! The writer's side of one generation: rules in, flat rules, boxes and forests changed, versions
//! published.

use std::collections::HashMap;
use std::sync::Arc;

use crossbeam_epoch::Guard;
use foldhash::fast::RandomState;
use hipac_classifier::EntryId;
use hipac_classifier::forest::Ref;
use hipac_classifier::image::Flat;
use hipac_classifier::live::{FlatTable, Generation, Layout, Memory, RuleId, flat_key};
use hipac_classifier::program::Op;
use hipac_rules::{Family, Policy, Rule, TableKind};

use super::ground::{Ground, Later, Slot};
use super::labels::{BESIDES_MAX, END, FIRST};
use super::list::{List, Tools};
use super::lower::{Lowering, changes_packet, needs_header, needs_header_match};
use super::space::{Align, Block, Full};
use super::store::{BoxId, Store};
use crate::compile::{BOXES_MAX, CompileError, each_interface_bound, ranks_of};
use crate::condition::Space;
use crate::expand::{BROKEN, KeyPlan, SOUND, narrowed};
use crate::forest::{Boxes, Shape};
use crate::lower::{FlatList, FlatRule, LowerError, Lowered, verdict_id};
use crate::options::Counting;
use crate::sets::SetPlan;
use crate::tables::program;

/// Why a generation cannot take a change.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It does not fit into its memory.
    Full(Full),
    /// A new generation can: its key, its entries or what its lists hide are another matter.
    Replan,
    /// No generation can.
    Compile(CompileError),
}

impl From<Full> for Refusal {
    fn from(full: Full) -> Refusal {
        Refusal::Full(full)
    }
}

impl From<CompileError> for Refusal {
    fn from(error: CompileError) -> Refusal {
        Refusal::Compile(error)
    }
}

/// A chain as a generation is built from it.
pub(super) struct ChainSource {
    /// Its entry.
    pub(super) entry: u32,
    pub(super) table: TableKind,
    /// `filter/FORWARD`, when packets begin there.
    pub(super) name: Option<String>,
    pub(super) policy: Option<Policy>,
    /// Its rules in their order.
    pub(super) rules: Vec<RuleId>,
}

/// What a generation is built from.
pub(super) struct Source<'a> {
    pub(super) family: Family,
    pub(super) counting: Counting,
    pub(super) chains: Vec<ChainSource>,
    /// The rule of a number.
    pub(super) rule: &'a (dyn Fn(RuleId) -> &'a Rule + Sync),
    /// The entry of the chain that a rule leads to.
    pub(super) target: &'a dyn Fn(u32, &Rule) -> Option<u32>,
}

/// A rule of the generation.
#[derive(Debug, Clone, Copy)]
struct Placed {
    /// 0: no such rule.
    label: u32,
    /// Its box for sound packets, and for malformed ones: [`NONE`], a box, or [`MANY`] and an index.
    boxes: [u32; 2],
}

const NONE: u32 = u32::MAX;
const MANY: u32 = 1 << 31;

const NOWHERE: Placed = Placed { label: 0, boxes: [NONE; 2] };

/// The lists of an entry.
#[derive(Debug)]
struct Lists {
    /// For sound packets, and for malformed ones when these have one of their own.
    lists: [Option<List>; 2],
    /// Malformed packets have a list of their own.
    has_broken: bool,
    /// Rules hide later ones: none behind them ever sees a changed packet.
    hides: bool,
}

#[derive(Debug)]
struct Program {
    words: Box<[u32]>,
    block: Block,
    uses: u32,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) ground: Ground,
    family: Family,
    counting: Counting,
    plan: KeyPlan,
    ranks: Vec<u128>,
    sets: SetPlan,
    store: Store,
    entries: Vec<Option<Lists>>,
    rules: Vec<Placed>,
    /// Boxes of rules that have several.
    many: Vec<Vec<BoxId>>,
    many_free: Vec<u32>,
    verdicts: Vec<&'static str>,
    programs: HashMap<Box<[u32]>, u32, RandomState>,
    /// By first word.
    program_uses: HashMap<u32, Program, RandomState>,
    table: FlatTable,
    /// Keys in the table, those that wait included.
    keys: usize,
    boxes: Boxes,
    single: Boxes,
    words: Vec<u32>,
    /// Defaults of entries that this transaction changed.
    defaults: Vec<(u32, u8)>,
    /// The era in which defaults were changed last.
    policy_era: u64,
    commits: u64,
    /// Boxes put in or taken out since it was built.
    drift: usize,
    /// Boxes when it was built.
    built: usize,
}

/// Transactions after which the epoch is told what they have given up, at most.
const ERA_COMMITS: u64 = 64;

/// Bytes given up after which it is told.
const ERA_BYTES: usize = 256 << 10;

/// Room for entries besides those that there are.
const ENTRIES_SPARE: usize = 64;

impl Writer {
    /// A generation of a source, within `limit` bytes. `number` counts generations.
    pub(super) fn build(
        source: &Source<'_>,
        number: u64,
        memory: usize,
        limit: usize,
        shape: &Shape,
        cells_per_box: f64,
    ) -> Result<Writer, Refusal> {
        let family = source.family;
        let all = || source.chains.iter().flat_map(|c| &c.rules).map(|&id| (source.rule)(id));
        let ranks = ranks_of(all(), family)?;
        let sets = SetPlan::of_rules(all(), family)?;
        let mut verdicts = Vec::new();
        let entry_count = source.chains.iter().map(|c| c.entry as usize + 1).max().unwrap_or(0);
        let changes = changing_chains(source, entry_count);
        let mut has_broken = vec![false; entry_count];

        // Flat rules of all chains; their origins are rules, and their order is that of labels.
        let empty = || FlatList {
            name: String::new(),
            called: true,
            default_verdict: 0,
            chain_rules: 0,
            rules: vec![],
            changes_packet: false,
        };
        let mut lowered = Lowered { lists: (0..entry_count).map(|_| empty()).collect(), verdicts: vec![] };
        for chain in &source.chains {
            let entry = chain.entry as usize;
            for &id in &chain.rules {
                let rule = (source.rule)(id);
                let space = Space { family, ranks: &ranks, sets: &sets };
                let target = (source.target)(chain.entry, rule);
                let (counting, table) = (source.counting, chain.table);
                let lowering = Lowering { space, counting, table, entry: target };
                let flats = lowering.rule(rule, &mut verdicts).map_err(CompileError::from)?;
                check_besides(&flats, rule)?;
                lowered.lists[entry].rules.extend(flats.into_iter().map(|f| FlatRule { origin: id, ..f }));
                has_broken[entry] |= needs_header(rule, family);
            }
        }
        let plan = KeyPlan::of(&lowered)?;
        for rule in lowered.lists.iter_mut().flat_map(|list| &mut list.rules) {
            rule.condition.limit_boxes(BOXES_MAX, &|dim, set| plan.width(dim, set));
        }
        let (slots, recodes) = plan.slots();
        let named = source.chains.iter().filter_map(|c| Some((c.name.clone()?, EntryId(c.entry)))).collect();
        let generation = Arc::new(Generation::new(
            number,
            Layout::new(&slots, &recodes, &ranks, sets.encode(family, |_| 0)?),
            Memory::new(memory),
            entry_count.next_power_of_two() + ENTRIES_SPARE,
            named,
        ));
        let rule_count = all().count();
        let mut ground = Ground::new(generation, limit);
        let flat_count: usize = lowered.lists.iter().map(|l| l.rules.len()).sum();
        let table = new_table(&mut ground, flat_count + flat_count / 3)?;
        ground.generation.set_flats(table);
        let axes = plan.axes();
        let mut writer = Writer {
            ground,
            family,
            counting: source.counting,
            store: Store::new(axes.clone()),
            plan,
            ranks,
            sets,
            entries: Vec::new(),
            rules: Vec::new(),
            many: vec![],
            many_free: vec![],
            verdicts,
            programs: HashMap::default(),
            program_uses: HashMap::default(),
            table,
            keys: 0,
            boxes: Boxes::new(axes.clone()),
            single: Boxes::new(axes),
            words: vec![],
            defaults: vec![],
            policy_era: 0,
            commits: 0,
            drift: 0,
            built: 0,
        };
        writer.entries.resize_with(writer.ground.generation.entries().len(), || None);
        writer.rules.reserve_exact(rule_count);
        writer.store.reserve(rule_count);
        for chain in &source.chains {
            let labels: HashMap<RuleId, u32, RandomState> =
                chain.rules.iter().copied().zip(super::labels::spread(chain.rules.len())).collect();
            for (&id, &label) in &labels {
                writer.place(id).label = label;
            }
            let entry = chain.entry;
            let lists = Lists {
                lists: [None, None],
                has_broken: has_broken[entry as usize],
                hides: !changes[entry as usize],
            };
            writer.entries[entry as usize] = Some(lists);
            let flats = std::mem::take(&mut lowered.lists[entry as usize].rules);
            let mut ids: [Vec<BoxId>; 2] = [Vec::new(), Vec::new()];
            for flats in flats.chunk_by(|a, b| a.origin == b.origin) {
                let boxes = writer.add_flats(entry, flats[0].origin, flats)?;
                ids.iter_mut().zip(boxes).for_each(|(ids, boxes)| ids.extend(boxes));
            }
            drop(flats);
            for (kind, ids) in ids.iter().enumerate() {
                if kind == 1 && !has_broken[entry as usize] {
                    continue;
                }
                let slot = if kind == 0 { Slot::Root(entry) } else { Slot::BrokenRoot(entry) };
                let mut tools = Tools {
                    ground: &mut writer.ground,
                    store: &mut writer.store,
                    boxes: &mut writer.boxes,
                    single: &mut writer.single,
                };
                let list = List::build(slot, ids, shape, cells_per_box, &mut tools)?;
                if let Some(lists) = &mut writer.entries[entry as usize] {
                    lists.lists[kind] = Some(list);
                }
            }
            if let Some(policy) = chain.policy {
                let verdict = writer.verdict(policy.name())?;
                writer.ground.generation.entries()[entry as usize].set_default(verdict, verdict, 0);
            }
        }
        for (id, name) in writer.verdicts.iter().enumerate() {
            writer.ground.generation.name_verdict(id as u8, name);
        }
        writer.built = writer.store.len();
        Ok(writer)
    }

    fn place(&mut self, id: RuleId) -> &mut Placed {
        let index = id as usize;
        if self.rules.len() <= index {
            self.rules.resize(index + 1, NOWHERE);
        }
        &mut self.rules[index]
    }

    /// A rule is in one of its chains.
    pub(super) fn has(&self, id: RuleId) -> bool {
        self.rules.get(id as usize).is_some_and(|placed| placed.label > 0)
    }

    /// A chain has an entry.
    pub(super) fn has_entry(&self, entry: u32) -> bool {
        self.entries.get(entry as usize).is_some_and(Option::is_some)
    }

    /// The label of a rule.
    pub(super) fn label(&self, id: RuleId) -> u32 {
        self.rules[id as usize].label
    }

    fn verdict(&mut self, name: &'static str) -> Result<u8, Refusal> {
        let id = verdict_id(&mut self.verdicts, name, 0).map_err(CompileError::from)?;
        self.ground.generation.name_verdict(id, name);
        Ok(id)
    }

    /// Memory that a change must find free before it begins: more than any takes.
    pub(super) fn headroom(&self) -> Result<(), Full> {
        self.ground.space.check()
    }

    /// A label means nothing in an entry, not even to a reader of an earlier version.
    pub(super) fn is_unused(&self, entry: u32, label: u32) -> bool {
        let memory = self.ground.generation.memory();
        self.table.get(memory, flat_key(entry, label)).is_none()
    }

    /// Puts a rule into a chain. Its label is between those of its neighbours.
    pub(super) fn insert(
        &mut self,
        id: RuleId,
        entry: u32,
        table: TableKind,
        rule: &Rule,
        target: Option<u32>,
        label: u32,
    ) -> Result<(), Refusal> {
        debug_assert!(FIRST < label && label < END);
        self.headroom()?;
        let flats = self.lower(rule, entry, table, target)?;
        *self.place(id) = Placed { label, ..NOWHERE };
        let boxes = self.add_flats(entry, id, &flats)?;
        for (kind, boxes) in boxes.iter().enumerate() {
            if !boxes.is_empty() {
                self.with_list(entry, kind, |list, tools| {
                    boxes.iter().try_for_each(|&b| list.insert(b, tools))
                })?;
                self.drift += boxes.len();
            }
        }
        Ok(())
    }

    /// Labels that a rule would take besides its own.
    pub(super) fn besides(&self, rule: &Rule) -> u32 {
        let needs = rule.matches.iter().filter(|m| needs_header_match(m, self.family));
        needs.count().min(BESIDES_MAX) as u32
    }

    /// The first label that a rule takes.
    pub(super) fn first_label(&self, id: RuleId) -> u32 {
        let label = self.label(id);
        match self.rules[id as usize].boxes[1] {
            NONE => label,
            _ => self.boxes_of(id, 1).iter().map(|&b| self.store.label(b)).min().unwrap_or(label).min(label),
        }
    }

    /// Flat rules of a rule, if this generation can take them.
    fn lower(
        &mut self,
        rule: &Rule,
        entry: u32,
        table: TableKind,
        target: Option<u32>,
    ) -> Result<Vec<FlatRule>, Refusal> {
        let mut is_known = self.sets.knows(rule, self.family);
        each_interface_bound(rule, self.family, &mut |bound| {
            is_known &= self.ranks.binary_search(&bound).is_ok();
        });
        let Some(lists) = self.entries.get(entry as usize).and_then(Option::as_ref) else {
            return Err(Refusal::Replan);
        };
        let changes = changes_packet(rule, self.family)
            || target.is_some_and(|t| {
                self.entries.get(t as usize).and_then(Option::as_ref).is_some_and(|lists| !lists.hides)
            });
        let needs_header = needs_header(rule, self.family);
        if !is_known || (changes && lists.hides) || (needs_header && !lists.has_broken) {
            return Err(Refusal::Replan);
        }
        let space = Space { family: self.family, ranks: &self.ranks, sets: &self.sets };
        let lowering = Lowering { space, counting: self.counting, table, entry: target };
        let mut flats = lowering.rule(rule, &mut self.verdicts).map_err(CompileError::from)?;
        check_besides(&flats, rule)?;
        for flat in &mut flats {
            if !self.plan.suffices_for(&flat.condition) {
                return Err(Refusal::Replan);
            }
            let plan = &self.plan;
            flat.condition.limit_boxes(BOXES_MAX, &|dim, set| plan.width(dim, set));
            if let Op::Verdict(id) = flat.end {
                self.ground.generation.name_verdict(id, self.verdicts[usize::from(id)]);
            }
        }
        Ok(flats)
    }

    /// What the flat rules of a rule do, and their boxes in the lists of its chain, in order. They are
    /// in no forest yet.
    fn add_flats(&mut self, entry: u32, id: RuleId, flats: &[FlatRule]) -> Result<[Vec<BoxId>; 2], Refusal> {
        let mut boxes = [Vec::new(), Vec::new()];
        let label = self.label(id);
        let lists = self.entries[entry as usize].as_ref().ok_or(Refusal::Replan)?;
        let (has_broken, may_hide) = (lists.has_broken, lists.hides);
        for (i, flat) in flats.iter().enumerate() {
            let label = label - (flats.len() - 1 - i) as u32;
            let is_end = matches!(flat.end, Op::Verdict(_) | Op::Return | Op::Malformed);
            let hides = may_hide && is_end && flat.is_plain();
            let before = boxes[0].len() + boxes[1].len();
            let kinds: &[Option<(u32, u32)>] =
                if has_broken { &[Some(SOUND), Some(BROKEN)] } else { &[None] };
            for (within, found) in kinds.iter().zip(&mut boxes) {
                let Some(states) = narrowed(&flat.condition, *within) else { continue };
                let mut bounds: Vec<(u32, u32)> = self.store.axes().iter().map(|a| (0, a.max)).collect();
                let store = &mut self.store;
                self.plan.product(&flat.condition, states.as_deref(), &mut bounds, &mut |bounds| {
                    found.push(store.add(bounds, label, id, hides));
                });
            }
            if boxes[0].len() + boxes[1].len() > before {
                let does = self.does(flat)?;
                self.put_key(flat_key(entry, label), does, id)?;
            }
        }
        for (kind, found) in boxes.iter().enumerate() {
            let boxes = match **found {
                [] => continue,
                [only] => only,
                _ => self.keep_many(found.clone()),
            };
            self.place(id).boxes[kind] = boxes;
        }
        Ok(boxes)
    }

    fn keep_many(&mut self, boxes: Vec<BoxId>) -> u32 {
        match self.many_free.pop() {
            Some(at) => {
                self.many[at as usize] = boxes;
                MANY | at
            }
            None => {
                self.many.push(boxes);
                MANY | (self.many.len() as u32 - 1)
            }
        }
    }

    /// The word of a flat rule; its program is stored, or used once more.
    fn does(&mut self, flat: &FlatRule) -> Result<Flat, Refusal> {
        match flat.end {
            Op::Verdict(id) if flat.is_plain() => return Ok(Flat::Verdict(id)),
            Op::Return if flat.is_plain() => return Ok(Flat::Return),
            Op::Continue if flat.is_plain() => return Ok(Flat::Continue),
            _ => {}
        }
        self.words.clear();
        program(flat, &flat.end, &mut self.words);
        if let Some(&at) = self.programs.get(self.words.as_slice()) {
            if let Some(program) = self.program_uses.get_mut(&at) {
                program.uses += 1;
            }
            return Ok(Flat::Program(at));
        }
        let bytes: Vec<u8> = self.words.iter().flat_map(|w| w.to_le_bytes()).collect();
        let block = self.ground.write(&bytes, Align::Unit)?;
        let at = (block.offset() / 4) as u32;
        if at as usize > Flat::PROGRAM_WORDS_MAX {
            let limit = Flat::PROGRAM_WORDS_MAX;
            return Err(CompileError::TooLarge { what: "program words", count: at as usize, limit }.into());
        }
        let words: Box<[u32]> = self.words.as_slice().into();
        self.programs.insert(words.clone(), at);
        self.program_uses.insert(at, Program { words, block, uses: 1 });
        Ok(Flat::Program(at))
    }

    /// A flat rule under a key; the table grows when it is full.
    fn put_key(&mut self, key: u64, does: Flat, id: RuleId) -> Result<(), Refusal> {
        let is_full = self.keys + 1 > self.table.places() / 8 * 7;
        if is_full || !self.table.insert(self.ground.generation.memory(), key, does, id) {
            self.grow_table()?;
            if !self.table.insert(self.ground.generation.memory(), key, does, id) {
                return Err(Refusal::Replan);
            }
        }
        self.keys += 1;
        Ok(())
    }

    /// A larger table with all that is in this one.
    fn grow_table(&mut self) -> Result<(), Refusal> {
        let mut keys = self.keys + self.keys / 4 + 64;
        loop {
            let table = new_table(&mut self.ground, keys)?;
            let memory = self.ground.generation.memory();
            let fits = self.table.entries(memory).all(|(key, value)| table.insert_word(memory, key, value));
            let old = if fits { std::mem::replace(&mut self.table, table) } else { table };
            if fits {
                self.ground.generation.set_flats(self.table);
            }
            self.ground.drop_block(Block::of(old.at(), old.bytes(), Align::Line));
            if fits {
                return Ok(());
            }
            keys += keys / 4;
        }
    }

    fn with_list(
        &mut self,
        entry: u32,
        kind: usize,
        f: impl FnOnce(&mut List, &mut Tools<'_>) -> Result<(), Full>,
    ) -> Result<(), Refusal> {
        let lists = self.entries[entry as usize].as_mut();
        let Some(list) = lists.and_then(|lists| lists.lists[kind].as_mut()) else {
            return Err(Refusal::Replan);
        };
        let mut tools = Tools {
            ground: &mut self.ground,
            store: &mut self.store,
            boxes: &mut self.boxes,
            single: &mut self.single,
        };
        Ok(f(list, &mut tools)?)
    }

    fn boxes_of(&self, id: RuleId, kind: usize) -> smallvec::SmallVec<[BoxId; 2]> {
        // A rule that was refused has no place yet.
        let placed = self.rules.get(id as usize).unwrap_or(&NOWHERE);
        match placed.boxes[kind] {
            NONE => smallvec::SmallVec::new(),
            many if many & MANY != 0 => self.many[(many & !MANY) as usize].as_slice().into(),
            only => smallvec::smallvec![only],
        }
    }

    /// Takes a rule out of its chain. Its number may be given away when readers have gone.
    pub(super) fn remove(&mut self, id: RuleId, entry: u32) -> Result<(), Refusal> {
        let labels = self.labels_of(id);
        for kind in 0..2 {
            let boxes = self.boxes_of(id, kind);
            if boxes.is_empty() {
                continue;
            }
            self.with_list(entry, kind, |list, tools| boxes.iter().try_for_each(|&b| list.remove(b, tools)))?;
            boxes.iter().for_each(|&b| self.store.remove(b));
            self.drift += boxes.len();
            let many = self.rules[id as usize].boxes[kind];
            if many & MANY != 0 {
                self.many[(many & !MANY) as usize] = Vec::new();
                self.many_free.push(many & !MANY);
            }
        }
        for label in labels {
            self.retire_key(flat_key(entry, label), true);
        }
        *self.place(id) = NOWHERE;
        Ok(())
    }

    /// Labels of the flat rules of a rule.
    fn labels_of(&self, id: RuleId) -> smallvec::SmallVec<[u32; 2]> {
        let all = (0..2).flat_map(|kind| self.boxes_of(id, kind)).map(|b| self.store.label(b));
        let mut labels: smallvec::SmallVec<[u32; 2]> = all.collect();
        labels.sort_unstable();
        labels.dedup();
        labels
    }

    fn retire_key(&mut self, key: u64, with_program: bool) {
        let found = self.table.get(self.ground.generation.memory(), key);
        if self.ground.is_private() {
            if self.table.remove(self.ground.generation.memory(), key) {
                self.keys -= 1;
            }
        } else {
            self.ground.space.retire_other(Later::Forget(key));
        }
        if with_program && let Some((Flat::Program(at), _)) = found {
            if self.ground.is_private() {
                self.free_program(at);
            } else {
                self.ground.space.retire_other(Later::FreeProgram(at));
            }
        }
    }

    fn free_program(&mut self, at: u32) {
        let Some(program) = self.program_uses.get_mut(&at) else { return };
        program.uses -= 1;
        if program.uses == 0
            && let Some(program) = self.program_uses.remove(&at)
        {
            self.programs.remove(&program.words);
            self.ground.space.give(program.block);
        }
    }

    /// Gives a rule another label, which is on the same side of all others.
    pub(super) fn relabel(&mut self, id: RuleId, entry: u32, label: u32) -> Result<(), Refusal> {
        self.headroom()?;
        let old = self.label(id);
        let moved = |l: u32| label - (old - l);
        let labels = self.labels_of(id);
        for &l in &labels {
            let key = flat_key(entry, l);
            let Some((does, _)) = self.table.get(self.ground.generation.memory(), key) else {
                return Err(Refusal::Replan);
            };
            self.put_key(flat_key(entry, moved(l)), does, id)?;
        }
        for kind in 0..2 {
            let boxes = self.boxes_of(id, kind);
            for &b in &boxes {
                self.store.set_label(b, moved(self.store.label(b)));
            }
            if !boxes.is_empty() {
                self.with_list(entry, kind, |list, tools| {
                    boxes.iter().try_for_each(|&b| list.relabel(b, tools))
                })?;
            }
        }
        for l in labels {
            self.retire_key(flat_key(entry, l), false);
        }
        self.rules[id as usize].label = label;
        Ok(())
    }

    /// Makes the policy of a chain another one.
    pub(super) fn set_policy(&mut self, entry: u32, policy: Policy) -> Result<(), Refusal> {
        let verdict = self.verdict(policy.name())?;
        self.defaults.retain(|(e, _)| *e != entry);
        self.defaults.push((entry, verdict));
        Ok(())
    }

    /// The same where nobody reads yet.
    pub(super) fn set_policy_now(&mut self, entry: u32, policy: Policy) -> Result<(), Refusal> {
        let verdict = self.verdict(policy.name())?;
        self.ground.generation.entries()[entry as usize].set_default(verdict, verdict, 0);
        Ok(())
    }

    /// A chain without rules gets an entry; `Err`: there is no room for one.
    pub(super) fn add_entry(&mut self, entry: u32) -> Result<(), Refusal> {
        let Some(place) = self.entries.get_mut(entry as usize) else { return Err(Refusal::Replan) };
        let slot = Slot::Root(entry);
        let mut tools = Tools {
            ground: &mut self.ground,
            store: &mut self.store,
            boxes: &mut self.boxes,
            single: &mut self.single,
        };
        let list = List::build(slot, &[], &Shape::LADDER[0], 4.0, &mut tools)?;
        *place = Some(Lists { lists: [Some(list), None], has_broken: false, hides: true });
        Ok(())
    }

    /// A chain is gone: no rule leads to it, and it has none.
    pub(super) fn remove_entry(&mut self, entry: u32) -> Result<(), Refusal> {
        let Some(lists) = self.entries[entry as usize].take() else { return Ok(()) };
        let mut tools = Tools {
            ground: &mut self.ground,
            store: &mut self.store,
            boxes: &mut self.boxes,
            single: &mut self.single,
        };
        for (list, nothing) in lists.lists.into_iter().zip([Ref::EMPTY, Ref::SAME]) {
            if let Some(list) = list {
                list.dismiss(nothing, &mut tools)?;
            }
        }
        Ok(())
    }

    /// Publishes what was changed since the last time, all at once.
    pub(super) fn commit(&mut self, guard: &Guard) {
        let since = self.ground.next_version();
        let version = self.ground.generation.version();
        let sets_policies = !self.defaults.is_empty();
        for (entry, verdict) in std::mem::take(&mut self.defaults) {
            let place = &self.ground.generation.entries()[entry as usize];
            let old = place.default_verdict(version);
            place.set_default(old, verdict, since);
            self.ground.space.retire_other(Later::SettlePolicy { entry, since });
        }
        self.ground.commit();
        self.commits += 1;
        // Telling the epoch costs more than a change: many are told of at once.
        let space = &mut self.ground.space;
        if sets_policies || self.commits.is_multiple_of(ERA_COMMITS) || space.retired_in_era() > ERA_BYTES {
            space.end_era(guard);
            guard.flush();
        }
        if sets_policies {
            self.policy_era = self.ground.space.ended();
        }
    }

    /// Undoes what a failed transaction has put down for its commit, once its changes are undone.
    pub(super) fn forget_defaults(&mut self) {
        self.defaults.clear();
    }

    /// Does what readers no longer stand in the way of. Gives out the numbers of rules and entries
    /// that are free now.
    pub(super) fn tidy(&mut self, freed: &mut Vec<Freed>) {
        while let Some(later) = self.ground.space.next_safe() {
            match later {
                Later::Settle { slot, switch, new } => self.ground.settle(slot, switch, new),
                Later::SettlePolicy { entry, since } => {
                    self.ground.generation.entries()[entry as usize].settle_default(since);
                }
                Later::Forget(key) => {
                    if self.table.remove(self.ground.generation.memory(), key) {
                        self.keys -= 1;
                    }
                }
                Later::FreeRule(id) => freed.push(Freed::Rule(id)),
                Later::FreeEntry(entry) => freed.push(Freed::Entry(entry)),
                Later::FreeProgram(at) => self.free_program(at),
            }
        }
    }

    /// Another version of a policy must not be made before readers of the one before have gone.
    pub(super) fn must_wait_for_policies(&self) -> bool {
        !self.defaults.is_empty() && !self.ground.space.is_over(self.policy_era)
    }

    /// Bytes of structure in use: forests, tables, programs, and what waits for readers.
    pub(super) fn structure_bytes(&self) -> usize {
        self.ground.space.used()
    }

    /// Bytes that the writer keeps besides: boxes, mirrors, where rules are.
    pub(super) fn bookkeeping_bytes(&self) -> usize {
        let lists = self.entries.iter().flatten().flat_map(|lists| lists.lists.iter().flatten());
        let mirrors: usize = lists.map(List::bytes).sum();
        let rules = self.rules.capacity() * size_of::<Placed>();
        let many: usize = self.many.iter().map(|m| 4 * m.capacity() + size_of::<Vec<BoxId>>()).sum();
        self.store.bytes() + mirrors + rules + many
    }

    /// Boxes put in or taken out since it was built; boxes then, and now.
    pub(super) fn drift(&self) -> (usize, usize, usize) {
        (self.drift, self.built, self.store.len())
    }

    /// Boxes of all lists.
    pub(super) fn box_count(&self) -> usize {
        self.store.len()
    }

    /// The flat rules of a rule: labels, rising, and what they do.
    pub(super) fn flats(&self, entry: u32, id: RuleId) -> Vec<(u32, Flat)> {
        let memory = self.ground.generation.memory();
        let labels = self.labels_of(id).into_iter();
        labels.filter_map(|l| Some((l, self.table.get(memory, flat_key(entry, l))?.0))).collect()
    }

    /// A list of an entry.
    pub(super) fn list(&self, entry: u32, kind: usize) -> Option<&List> {
        self.entries.get(entry as usize)?.as_ref()?.lists[kind].as_ref()
    }

    /// Which verdict has a name, for a frozen image.
    pub(super) fn verdicts(&self) -> &[&'static str] {
        &self.verdicts
    }

    /// The key plan, the bounds of interface names and the sets, for a frozen image.
    pub(super) fn plan(&self) -> (&KeyPlan, &[u128], &SetPlan) {
        (&self.plan, &self.ranks, &self.sets)
    }
}

/// A number that may be given away again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freed {
    Rule(RuleId),
    Entry(u32),
}

/// A rule takes no more labels than there is room for.
fn check_besides(flats: &[FlatRule], rule: &Rule) -> Result<(), Refusal> {
    if flats.len() <= BESIDES_MAX + 1 {
        return Ok(());
    }
    let error = LowerError::TooManyMatches { line: rule.line, count: rule.matches.len() };
    Err(CompileError::from(error).into())
}

fn new_table(ground: &mut Ground, keys: usize) -> Result<FlatTable, Refusal> {
    let buckets = (keys.max(16) as f64 / 0.8 / 4.0).ceil() as u32;
    let block = ground.space.take(FlatTable::new(0, buckets).bytes(), Align::Line)?;
    ground.generation.memory().write(block.offset(), &vec![0; block.bytes()]);
    Ok(FlatTable::new(block.offset(), buckets))
}

/// Chains in which, or in what they lead to, something changes packets.
fn changing_chains(source: &Source<'_>, entry_count: usize) -> Vec<bool> {
    let mut changes = vec![false; entry_count];
    let mut callers: Vec<Vec<u32>> = vec![Vec::new(); entry_count];
    let mut open = Vec::new();
    for chain in &source.chains {
        for &id in &chain.rules {
            let rule = (source.rule)(id);
            if changes_packet(rule, source.family) && !changes[chain.entry as usize] {
                changes[chain.entry as usize] = true;
                open.push(chain.entry);
            }
            if let Some(target) = (source.target)(chain.entry, rule) {
                callers[target as usize].push(chain.entry);
            }
        }
    }
    while let Some(entry) = open.pop() {
        for &caller in &callers[entry as usize] {
            if !std::mem::replace(&mut changes[caller as usize], true) {
                open.push(caller);
            }
        }
    }
    changes
}
