//! What an image stores for each of its rules.

use std::collections::HashMap;

use hipac_classifier::forest::Ref;
use hipac_classifier::image::{EntryRecord, Section};
use hipac_classifier::{EntryId, Image, OriginId};
use hipac_rules::{Name, TableKind};

use super::Chains;
use crate::proof::forest::Forest;
use crate::proof::program::{End, Program};
use crate::proof::ranges::Ranges;
use crate::proof::space::Space;

/// Numbers of rules of the image, by number in their chain.
pub(super) type Origins = Vec<usize>;

/// All rules.
#[derive(Debug)]
pub(super) struct Stored {
    /// By number of the image's.
    pub(super) rules: Vec<StoredRule>,
    pub(super) chains: Chains,
    /// Chains that are entries of their own.
    pub(super) called: Vec<(TableKind, Name)>,
}

/// One rule.
#[derive(Debug, Default)]
pub(super) struct StoredRule {
    pub(super) number: u32,
    pub(super) line: u32,
    /// The first of its flat rules that is no drop of cut-off headers.
    pub(super) shape: Option<Shape>,
    /// Values of each axis that some box of it holds; none when nothing is stored.
    pub(super) sets: Vec<Ranges>,
    /// It drops what has its header cut off.
    pub(super) is_malformed: bool,
    /// The chain whose rules follow it in the list.
    pub(super) leads_to: Option<Name>,
}

#[derive(Debug)]
pub(super) struct Shape {
    pub(super) position: u32,
    pub(super) program: Program,
}

/// Table and chain that an entry stands for.
pub(super) fn chain_of<B: AsRef<[u8]>>(image: &Image<B>, entry: EntryId) -> Option<(TableKind, Name)> {
    let (.., name) = image.entries().nth(entry.0 as usize)?;
    split(name)
}

fn split(name: &str) -> Option<(TableKind, Name)> {
    let (table, chain) = name.split_once('/')?;
    Some((TableKind::from_name(table)?, chain.into()))
}

impl Stored {
    pub(super) fn new<B: AsRef<[u8]>>(image: &Image<B>, space: &Space) -> Stored {
        let mut out = Stored { rules: vec![], chains: Chains::new(), called: vec![] };
        let mut lists: HashMap<u32, Option<(TableKind, Name)>> = HashMap::new();
        while let Some(origin) = image.origin(OriginId(out.rules.len() as u32)) {
            let list = lists.entry(origin.list).or_insert_with(|| split(image.name(origin.list)));
            if let Some(list) = list {
                out.chains.entry(list.clone()).or_default().push(out.rules.len());
            }
            out.rules.push(StoredRule { number: origin.number, line: origin.line, ..StoredRule::default() });
        }
        let rules = &out.rules;
        out.chains.values_mut().for_each(|origins| origins.sort_by_key(|&o| rules[o].number));
        let entries: Vec<_> = image.entries().map(|(id, record, name)| (id, record, split(name))).collect();
        for (_, record, name) in &entries {
            out.called.extend(name.clone().filter(|_| record.called));
            out.programs(image, space, record.first, record.count, &lists);
            out.boxes(image, space, record);
        }
        out
    }

    /// Reads the flat rules of a list: what each rule does, and which jump.
    fn programs<B: AsRef<[u8]>>(
        &mut self,
        image: &Image<B>,
        space: &Space,
        first: u32,
        count: u32,
        lists: &HashMap<u32, Option<(TableKind, Name)>>,
    ) {
        let end = first.saturating_add(count).min(image.flat_count() as u32);
        // Chains that the list is in: the last rule of each, by number of its name.
        let mut open: Vec<(u32, usize)> = Vec::new();
        for position in first..end {
            let Some((flat, origin)) = image.flat(position) else { continue };
            let Some(list) = image.origin(origin).map(|o| o.list) else { continue };
            let number = origin.0 as usize;
            match open.iter().position(|o| o.0 == list) {
                Some(at) => open.truncate(at + 1),
                None => {
                    let name = lists.get(&list).cloned().flatten().map(|(_, name)| name);
                    if let Some(&(_, jump)) = open.last() {
                        self.rules[jump].leads_to = name;
                    }
                    open.push((list, number));
                }
            }
            if let Some(last) = open.last_mut() {
                last.1 = number;
            }
            let Some(program) = Program::read(image, flat, position, end, space.raw()) else { continue };
            let Some(rule) = self.rules.get_mut(number) else { continue };
            if program.end == End::Malformed {
                rule.is_malformed = true;
            } else if rule.shape.is_none() {
                rule.shape = Some(Shape { position, program });
            }
        }
    }

    /// Adds up the boxes of both forests of an entry.
    fn boxes<B: AsRef<[u8]>>(&mut self, image: &Image<B>, space: &Space, record: &EntryRecord) {
        let arena = image.section(Section::Arena);
        // What the other forest is for differs in the state of the header only, which is not looked at here.
        let both = [record.root, record.broken_root];
        for &root in &both[..1 + usize::from(both[0] != both[1])] {
            let forest = Forest::new(arena, Ref(root), space, space.everything());
            forest.walk(&mut |leaf| {
                for (lane, &position) in leaf.positions.iter().enumerate() {
                    let Some((flat, origin)) = image.flat(position) else { continue };
                    let Some(rule) = self.rules.get_mut(origin.0 as usize) else { continue };
                    let is_main = Program::read(image, flat, position, u32::MAX, space.raw())
                        .is_some_and(|program| program.end != End::Malformed);
                    if !is_main {
                        continue;
                    }
                    if rule.sets.is_empty() {
                        rule.sets = vec![Ranges::none(); space.axes.len()];
                    }
                    for (set, &(lo, hi)) in rule.sets.iter_mut().zip(leaf.boxes.get(lane)) {
                        if !set.as_slice().iter().any(|r| r.0 <= lo && hi <= r.1) {
                            *set = set.or(&Ranges::one(lo, hi));
                        }
                    }
                }
            });
        }
    }
}
