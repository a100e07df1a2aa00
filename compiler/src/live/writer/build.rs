//! A generation built from rules: lowered all at once, so that its key, its lists and its tables
//! are planned for all of them.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hipac_classifier::EntryId;
use hipac_classifier::live::{Generation, Layout, Memory, RuleId};
use hipac_rules::{Family, Policy, Rule, TableKind};

use super::flats::new_table;
use super::{EntryKind, Lists, Refusal, Writer, check_besides};
use crate::compile::{BOXES_MAX, CompileError, ranks_of};
use crate::condition::Space;
use crate::expand::KeyPlan;
use crate::forest::{Boxes, Shape};
use crate::live::ground::{Ground, Slot};
use crate::live::labels::spread;
use crate::live::list::List;
use crate::live::lower::{Lowering, changes_packet, needs_header};
use crate::live::space::Block;
use crate::live::store::{BoxId, Store};
use crate::lower::{FlatList, FlatRule, Lowered};
use crate::options::Counting;
use crate::sets::SetPlan;

/// Room for entries besides those that there are.
const ENTRIES_SPARE: usize = 64;

/// A chain as a generation is built from it.
pub(in crate::live) struct ChainSource {
    /// Its entry.
    pub(in crate::live) entry: u32,
    pub(in crate::live) table: TableKind,
    /// `filter/FORWARD`, when packets begin there.
    pub(in crate::live) name: Option<String>,
    pub(in crate::live) policy: Option<Policy>,
    /// Its rules in their order.
    pub(in crate::live) rules: Vec<RuleId>,
}

/// What a generation is built from.
pub(in crate::live) struct Source<'a> {
    pub(in crate::live) family: Family,
    pub(in crate::live) counting: Counting,
    pub(in crate::live) chains: Vec<ChainSource>,
    /// The rule of a number.
    pub(in crate::live) rule: &'a (dyn Fn(RuleId) -> &'a Rule + Sync),
    /// The entry of the chain that a rule leads to.
    pub(in crate::live) target: &'a dyn Fn(u32, &Rule) -> Option<u32>,
}

impl Writer {
    /// A generation of a source, within `limit` bytes. `number` counts generations.
    pub(in crate::live) fn build(
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
        let mut lowered =
            Lowered { lists: (0..entry_count).map(|_| FlatList::called()).collect(), verdicts: vec![] };
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
            Layout::new(&slots, &recodes, &ranks),
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
            sets_block: Block::NONE,
            entries: Vec::new(),
            rules: Vec::new(),
            many: vec![],
            many_free: vec![],
            verdicts,
            programs: HashMap::default(),
            program_uses: HashMap::default(),
            table,
            keys: 0,
            reach: 0,
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
        writer.write_sets()?;
        writer.store.reserve(rule_count);
        for chain in &source.chains {
            let labels: HashMap<RuleId, u32, RandomState> =
                chain.rules.iter().copied().zip(spread(chain.rules.len())).collect();
            for (&id, &label) in &labels {
                writer.place(id).label = label;
            }
            let entry = chain.entry;
            let lists = Lists {
                lists: [None, None],
                kind: EntryKind { has_broken: has_broken[entry as usize], hides: !changes[entry as usize] },
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
                let list = List::build(slot, ids, shape, cells_per_box, &mut writer.tools())?;
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
