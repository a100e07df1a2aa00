//! The writer's side of one generation: `build` makes it from rules, this file changes its rules,
//! `flats` keeps what they do, `sets` the IP sets that they name, `publish` shows the changes to
//! readers.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use hipac_classifier::forest::Ref;
use hipac_classifier::image::Flat;
use hipac_classifier::live::{FlatTable, RuleId, flat_key};
use hipac_classifier::program::Op;
use hipac_rules::{Family, Policy, Rule, TableKind};

use super::ground::{Ground, Slot};
use super::labels::{BESIDES_MAX, END, FIRST};
use super::list::{List, Tools};
use super::lower::{Lowering, changes_packet, needs_header, needs_header_match};
use super::space::{Block, Full};
use super::store::{BoxId, Store};
use crate::compile::{BOXES_MAX, CompileError, each_interface_bound};
use crate::condition::Space;
use crate::expand::{BROKEN, KeyPlan, SOUND, narrowed};
use crate::forest::{Boxes, Shape};
use crate::lower::{FlatRule, LowerError, verdict_id};
use crate::options::Counting;
use crate::sets::SetPlan;

mod build;
mod flats;
mod publish;
mod sets;

pub(super) use build::{ChainSource, Source};
pub(super) use publish::Freed;

/// Why a generation cannot take a change.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It does not fit into its memory; nothing was changed.
    Full(Full),
    /// Memory went out in the middle: mirrors and memory are not of the same rules any more. What
    /// readers see is as it was, and stays so as long as nothing is published.
    Torn,
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

/// Rules of a chunk.
const PLACES: usize = 1024;

const NOWHERE: Placed = Placed { label: 0, boxes: [NONE; 2] };

/// The lists of an entry.
#[derive(Debug)]
struct Lists {
    /// For sound packets, and for malformed ones when these have one of their own.
    lists: [Option<List>; 2],
    kind: EntryKind,
}

/// What was decided for an entry when it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EntryKind {
    /// Malformed packets have a list of their own.
    has_broken: bool,
    /// Rules hide later ones: none behind them ever sees a changed packet.
    hides: bool,
}

impl EntryKind {
    /// The entry of a new chain.
    pub(super) const NEW: EntryKind = EntryKind { has_broken: false, hides: true };
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
    /// Where they lie.
    sets_block: Block,
    store: Store,
    entries: Vec<Option<Lists>>,
    /// By number, in chunks: one list would be copied as a whole whenever it grows.
    rules: Vec<Box<[Placed; PLACES]>>,
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
    /// No key is more buckets behind its own.
    reach: usize,
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

impl Writer {
    fn place(&mut self, id: RuleId) -> &mut Placed {
        let index = id as usize;
        while self.rules.len() <= index / PLACES {
            self.rules.push(Box::new([NOWHERE; PLACES]));
        }
        &mut self.rules[index / PLACES][index % PLACES]
    }

    /// Where a rule is; a rule that was refused has no place.
    fn placed(&self, id: RuleId) -> &Placed {
        self.rules.get(id as usize / PLACES).map_or(&NOWHERE, |places| &places[id as usize % PLACES])
    }

    /// The label of a rule.
    pub(super) fn label(&self, id: RuleId) -> u32 {
        self.placed(id).label
    }

    fn verdict(&mut self, name: &'static str) -> Result<u8, Refusal> {
        let id = verdict_id(&mut self.verdicts, name, 0).map_err(CompileError::from)?;
        self.ground.generation.name_verdict(id, name);
        Ok(id)
    }

    /// Memory that a change of so many boxes must find free before it begins.
    pub(super) fn headroom(&self, boxes: usize) -> Result<(), Full> {
        self.ground.space.check(boxes)
    }

    /// There is room to take a rule out.
    pub(super) fn can_remove(&self, id: RuleId) -> bool {
        let boxes = self.boxes_of(id, 0).len() + self.boxes_of(id, 1).len();
        self.headroom(boxes).is_ok()
    }

    /// A label means nothing in an entry, not even to a reader of an earlier version.
    pub(super) fn is_unused(&self, entry: u32, label: u32) -> bool {
        let memory = self.ground.generation.memory();
        !self.table.has(memory, flat_key(entry, label), self.reach)
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
        self.headroom(1)?;
        let flats = self.lower(rule, entry, table, target)?;
        *self.place(id) = Placed { label, ..NOWHERE };
        let boxes = self.add_flats(entry, id, &flats)?;
        if let Err(full) = self.headroom(boxes[0].len() + boxes[1].len()) {
            self.drop_flats(entry, id);
            return Err(full.into());
        }
        for (kind, boxes) in boxes.iter().enumerate() {
            self.change_list(entry, kind, boxes, List::insert)?;
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
        match self.placed(id).boxes[1] {
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
                self.entries.get(t as usize).and_then(Option::as_ref).is_some_and(|lists| !lists.kind.hides)
            });
        let needs_header = needs_header(rule, self.family);
        if !is_known || (changes && lists.kind.hides) || (needs_header && !lists.kind.has_broken) {
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
    /// in no forest yet. All of it, or nothing.
    fn add_flats(&mut self, entry: u32, id: RuleId, flats: &[FlatRule]) -> Result<[Vec<BoxId>; 2], Refusal> {
        let mut boxes = [Vec::new(), Vec::new()];
        let added = self.add_boxes(entry, id, flats, &mut boxes);
        for (kind, found) in boxes.iter().enumerate() {
            let boxes = match **found {
                [] => continue,
                [only] => only,
                _ => self.keep_many(found.clone()),
            };
            self.place(id).boxes[kind] = boxes;
        }
        if added.is_err() {
            self.drop_flats(entry, id);
        }
        added.map(|()| boxes)
    }

    /// Boxes are in the store, and what leads to them is in the table: both come back by
    /// [`Writer::drop_flats`], also when something is refused in the middle.
    fn add_boxes(
        &mut self,
        entry: u32,
        id: RuleId,
        flats: &[FlatRule],
        boxes: &mut [Vec<BoxId>; 2],
    ) -> Result<(), Refusal> {
        let label = self.label(id);
        let lists = self.entries[entry as usize].as_ref().ok_or(Refusal::Replan)?;
        let EntryKind { has_broken, hides: may_hide } = lists.kind;
        for (i, flat) in flats.iter().enumerate() {
            let label = label - (flats.len() - 1 - i) as u32;
            let is_end = matches!(flat.end, Op::Verdict(_) | Op::Return | Op::Malformed);
            let hides = may_hide && is_end && flat.is_plain();
            let before = boxes[0].len() + boxes[1].len();
            let kinds: &[Option<(u32, u32)>] =
                if has_broken { &[Some(SOUND), Some(BROKEN)] } else { &[None] };
            for (within, found) in kinds.iter().zip(&mut *boxes) {
                let Some(states) = narrowed(&flat.condition, *within) else { continue };
                let mut bounds: Vec<(u32, u32)> = self.store.axes().iter().map(|a| (0, a.max)).collect();
                let store = &mut self.store;
                self.plan.product(&flat.condition, states.as_deref(), &mut bounds, &mut |bounds| {
                    found.push(store.add(bounds, label, id, hides));
                });
            }
            if boxes[0].len() + boxes[1].len() > before {
                let does = self.does(flat)?;
                if let Err(refusal) = self.put_key(flat_key(entry, label), does, id) {
                    self.retire_program(does);
                    return Err(refusal);
                }
            }
        }
        Ok(())
    }

    /// The opposite of [`Writer::add_flats`], once no forest leads to its boxes.
    fn drop_flats(&mut self, entry: u32, id: RuleId) {
        for label in self.labels_of(id) {
            self.retire_key(flat_key(entry, label), true);
        }
        for kind in 0..2 {
            self.boxes_of(id, kind).iter().for_each(|&b| self.store.remove(b));
            let many = self.placed(id).boxes[kind];
            if many != NONE && many & MANY != 0 {
                self.many[(many & !MANY) as usize] = Vec::new();
                self.many_free.push(many & !MANY);
            }
        }
        *self.place(id) = NOWHERE;
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

    fn tools(&mut self) -> Tools<'_> {
        Tools {
            ground: &mut self.ground,
            store: &mut self.store,
            boxes: &mut self.boxes,
            single: &mut self.single,
        }
    }

    /// Does something with some boxes in a list.
    fn change_list(
        &mut self,
        entry: u32,
        kind: usize,
        boxes: &[BoxId],
        deed: impl Fn(&mut List, BoxId, &mut Tools<'_>) -> Result<(), Full>,
    ) -> Result<(), Refusal> {
        if boxes.is_empty() {
            return Ok(());
        }
        let before = self.ground.space.taken();
        let lists = self.entries.get_mut(entry as usize).and_then(Option::as_mut);
        let list = lists.and_then(|lists| lists.lists[kind].as_mut()).ok_or(Refusal::Torn)?;
        let mut tools = Tools {
            ground: &mut self.ground,
            store: &mut self.store,
            boxes: &mut self.boxes,
            single: &mut self.single,
        };
        let done = boxes.iter().try_for_each(|&b| deed(list, b, &mut tools));
        self.ground.space.note_change(before, boxes.len());
        self.drift += boxes.len();
        done.map_err(|_| Refusal::Torn)
    }

    fn boxes_of(&self, id: RuleId, kind: usize) -> smallvec::SmallVec<[BoxId; 2]> {
        match self.placed(id).boxes[kind] {
            NONE => smallvec::SmallVec::new(),
            many if many & MANY != 0 => self.many[(many & !MANY) as usize].as_slice().into(),
            only => smallvec::smallvec![only],
        }
    }

    /// Takes a rule out of its chain. Its number may be given away when readers have gone.
    pub(super) fn remove(&mut self, id: RuleId, entry: u32) -> Result<(), Refusal> {
        let boxes = [self.boxes_of(id, 0), self.boxes_of(id, 1)];
        self.headroom(boxes[0].len() + boxes[1].len())?;
        for (kind, boxes) in boxes.iter().enumerate() {
            self.change_list(entry, kind, boxes, List::remove)?;
        }
        self.drop_flats(entry, id);
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

    /// Gives a rule another label, which is on the same side of all others.
    pub(super) fn relabel(&mut self, id: RuleId, entry: u32, label: u32) -> Result<(), Refusal> {
        let boxes = [self.boxes_of(id, 0), self.boxes_of(id, 1)];
        self.headroom(boxes[0].len() + boxes[1].len())?;
        let old = self.label(id);
        let moved = |l: u32| label - (old - l);
        let labels = self.labels_of(id);
        for (i, &l) in labels.iter().enumerate() {
            let found = self.table.get(self.ground.generation.memory(), flat_key(entry, l));
            let put = match found {
                Some((does, _)) => self.put_key(flat_key(entry, moved(l)), does, id),
                None => Err(Refusal::Replan),
            };
            if put.is_err() {
                labels[..i].iter().for_each(|&l| self.retire_key(flat_key(entry, moved(l)), false));
                return put;
            }
        }
        for (kind, boxes) in boxes.iter().enumerate() {
            boxes.iter().for_each(|&b| self.store.set_label(b, moved(self.store.label(b))));
            self.change_list(entry, kind, boxes, List::relabel)?;
        }
        for l in labels {
            self.retire_key(flat_key(entry, l), false);
        }
        self.place(id).label = label;
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
    pub(super) fn add_entry(&mut self, entry: u32, kind: EntryKind) -> Result<(), Refusal> {
        if entry as usize >= self.entries.len() {
            return Err(Refusal::Replan);
        }
        let mut lists = [None, None];
        let slots = [Slot::Root(entry), Slot::BrokenRoot(entry)];
        for (list, slot) in lists.iter_mut().zip(slots).take(1 + usize::from(kind.has_broken)) {
            *list = Some(List::build(slot, &[], &Shape::LADDER[0], 4.0, &mut self.tools())?);
        }
        self.entries[entry as usize] = Some(Lists { lists, kind });
        Ok(())
    }

    /// A chain is gone: no rule leads to it, and it has none. Of which kind its entry was, if it had
    /// one.
    pub(super) fn remove_entry(&mut self, entry: u32) -> Result<Option<EntryKind>, Refusal> {
        if self.headroom(1).is_err() {
            return Err(Refusal::Replan);
        }
        let Some(lists) = self.entries.get_mut(entry as usize).and_then(Option::take) else {
            return Ok(None);
        };
        let mut tools = self.tools();
        for (list, nothing) in lists.lists.into_iter().zip([Ref::EMPTY, Ref::SAME]) {
            if let Some(list) = list {
                list.dismiss(nothing, &mut tools).map_err(|_| Refusal::Torn)?;
            }
        }
        Ok(Some(lists.kind))
    }

    /// Bytes of structure in use: forests, tables, programs, and what waits for readers.
    pub(super) fn structure_bytes(&self) -> usize {
        self.ground.space.used()
    }

    /// Bytes that the writer keeps besides: boxes, mirrors, where rules are.
    pub(super) fn bookkeeping_bytes(&self) -> usize {
        let lists = self.entries.iter().flatten().flat_map(|lists| lists.lists.iter().flatten());
        let mirrors: usize = lists.map(List::bytes).sum();
        let rules = self.rules.len() * PLACES * size_of::<Placed>();
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

/// A rule takes no more labels than there is room for.
fn check_besides(flats: &[FlatRule], rule: &Rule) -> Result<(), Refusal> {
    if flats.len() <= BESIDES_MAX + 1 {
        return Ok(());
    }
    let error = LowerError::TooManyMatches { line: rule.line, count: rule.matches.len() };
    Err(CompileError::from(error).into())
}
