//! Freezing: an image of a live table as it is.
//!
//! The forests are read back from memory as trees, with positions for labels, and laid out as the
//! compiler lays out its own: the same cuts, the same leaves, the same gates but for their scale.
//! Nothing is built anew, so what is proved of the image is proved of the live structure.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use hipac_classifier::forest::fat::{self, FatLeaf};
use hipac_classifier::forest::leaf::Leaf;
use hipac_classifier::forest::node::{self, NODE_BYTES};
use hipac_classifier::forest::root::{Cell, Scale};
use hipac_classifier::forest::{Kind, Ref, UNIT};
use hipac_classifier::image::{EntryRecord, Flat, Origin, Parts};
use hipac_classifier::live::RuleId;
use hipac_classifier::program::{BACK_BEHIND, BACK_TO_END, Op, Reader, encode};
use hipac_rules::{Family, TableKind};

use super::list::List;
use super::model::{ChainId, Model};
use super::writer::Writer;
use crate::compile::CompileError;
use crate::forest::boxes::Cuts;
use crate::forest::build::{Node, Tree};
use crate::forest::root::{RootPlan, RootTree};
use crate::forest::{Arena, Forest};

/// The image of what the writer has published; `None`: chains that packets do not get into lead in a
/// circle, which no image holds as it is.
pub(super) fn freeze(
    model: &Model,
    writer: &Writer,
    tables: &[TableKind],
) -> Result<Option<Vec<u8>>, CompileError> {
    let Some(chains) = reachable(model, tables) else { return Ok(None) };
    let (plan, ranks, sets) = writer.plan();
    let (slots, recodes) = plan.slots();
    let is_v6 = model.family == Family::V6;
    let mut parts = Parts { is_v6, slots, recodes, ranks: ranks.to_vec(), ..Parts::default() };
    let mut names = Names::default();
    parts.verdicts = writer.verdicts().iter().map(|v| names.index(v)).collect();
    let mut origins: HashMap<RuleId, u32, RandomState> = HashMap::default();
    for &kind in tables {
        for (_, chain) in model.in_order(kind) {
            let list = names.index(&format!("{}/{}", kind.name(), chain.name));
            for (id, number) in chain.rules.iter().zip(1..) {
                origins.insert(id, parts.origins.len() as u32);
                parts.origins.push(Origin { list, number, line: model.rule(id).line });
            }
        }
    }
    let entries: HashMap<ChainId, u32, RandomState> = chains.iter().copied().zip(0..).collect();
    let mut arena = Arena::default();
    let mut programs = Programs { entries: &entries, words: Vec::new(), index: HashMap::default() };
    for &id in &chains {
        let chain = model.chain(id);
        let first = parts.flats.len() as u32;
        // Labels in order, with their positions.
        let mut labels: Vec<(u32, u32)> = Vec::new();
        let mut flats = Vec::new();
        for rule in chain.rules.iter() {
            for (label, flat) in writer.flats(id, rule) {
                labels.push((label, first + flats.len() as u32));
                flats.push((flat, origins[&rule]));
            }
        }
        let count = flats.len() as u32;
        for (i, (flat, origin)) in flats.into_iter().enumerate() {
            let flat = programs.flat(flat, first + i as u32, first + count, writer)?;
            parts.flats.push((flat.encode(), origin));
        }
        let scale = Scale::of(first, count);
        let mut root = |kind: usize| -> Result<Option<Ref>, CompileError> {
            let Some(list) = writer.list(id, kind) else { return Ok(None) };
            let forest = Thaw { bytes: writer.ground.bytes(), labels: &labels, scale }.forest(list, writer);
            let too_large = |_| {
                let (count, limit) = (Ref::UNITS_MAX, Ref::UNITS_MAX);
                CompileError::TooLarge { what: "units of 16 bytes", count, limit }
            };
            arena.add(&forest).map_err(too_large).map(Some)
        };
        let sound = root(0)?.unwrap_or(Ref::EMPTY);
        let broken = root(1)?.unwrap_or(sound);
        parts.entries.push(EntryRecord {
            root: sound.0,
            broken_root: broken.0,
            default_verdict: chain
                .policy
                .map_or(0, |p| writer.verdicts().iter().position(|v| *v == p.name()).unwrap_or(0) as u8),
            called: chain.hook.is_none(),
            first,
            count,
            name: names.index(&format!("{}/{}", chain.table.name(), chain.name)),
        });
    }
    parts.sets = sets.encode(model.family, |name| names.index(name))?;
    parts.programs = programs.words;
    parts.names = names.names;
    parts.arena = arena.finish();
    Ok(Some(parts.encode()))
}

/// Built-in chains, then what they lead to, in order; `None`: some lead in a circle.
fn reachable(model: &Model, tables: &[TableKind]) -> Option<Vec<ChainId>> {
    let mut found: Vec<ChainId> = Vec::new();
    for &kind in tables {
        found.extend(model.in_order(kind).filter(|(_, c)| c.hook.is_some()).map(|(id, _)| id));
    }
    let mut at = 0;
    while at < found.len() {
        let chain = model.chain(found[at]);
        let mut targets: Vec<ChainId> =
            chain.rules.iter().filter_map(|r| model.target(chain.table, model.rule(r))).collect();
        targets.sort_unstable();
        targets.dedup();
        for target in targets {
            if !found.contains(&target) {
                found.push(target);
            }
        }
        at += 1;
    }
    let is_circle = |&id: &ChainId| {
        let chain = model.chain(id);
        let mut targets = chain.rules.iter().filter_map(|r| model.target(chain.table, model.rule(r)));
        targets.any(|target| model.leads_to(target, id))
    };
    let users = found.iter().filter(|&&id| model.chain(id).hook.is_none());
    (!users.into_iter().any(is_circle)).then_some(found)
}

#[derive(Default)]
struct Names {
    names: Vec<String>,
    index: HashMap<String, u32, RandomState>,
}

impl Names {
    fn index(&mut self, name: &str) -> u32 {
        let next = self.names.len() as u32;
        *self.index.entry(name.to_owned()).or_insert_with(|| {
            self.names.push(name.to_owned());
            next
        })
    }
}

/// Programs, with positions for where calls come back to.
struct Programs<'a> {
    entries: &'a HashMap<ChainId, u32, RandomState>,
    words: Vec<u32>,
    index: HashMap<Vec<u32>, u32, RandomState>,
}

impl Programs<'_> {
    fn flat(&mut self, flat: Flat, position: u32, end: u32, writer: &Writer) -> Result<Flat, CompileError> {
        let Flat::Program(at) = flat else { return Ok(flat) };
        let mut reader = Reader::new(writer.ground.bytes(), at as usize);
        let mut words = Vec::new();
        while let Some(op) = reader.op() {
            let op = match op {
                Op::Call { entry, back } => Op::Call {
                    // What packets do not get to has no entry: neither has who calls it.
                    entry: self.entries.get(&entry).copied().unwrap_or(0),
                    back: match back {
                        BACK_BEHIND => position + 1,
                        BACK_TO_END => end,
                        other => other,
                    },
                },
                other => other,
            };
            let is_end = op.is_end();
            encode(&op, &mut words);
            if is_end {
                break;
            }
        }
        if let Some(&at) = self.index.get(&words) {
            return Ok(Flat::Program(at));
        }
        let at = self.words.len();
        if at + words.len() > Flat::PROGRAM_WORDS_MAX {
            let limit = Flat::PROGRAM_WORDS_MAX;
            return Err(CompileError::TooLarge { what: "program words", count: at + words.len(), limit });
        }
        self.words.extend_from_slice(&words);
        self.index.insert(words, at as u32);
        Ok(Flat::Program(at as u32))
    }
}

/// A list read back from memory.
struct Thaw<'a> {
    bytes: &'a [u8],
    /// Labels and positions, rising.
    labels: &'a [(u32, u32)],
    scale: Scale,
}

impl Thaw<'_> {
    fn forest(&self, list: &List, writer: &Writer) -> Forest {
        let Some(trees) = list.tables(&writer.ground) else {
            return Forest::Tree(self.tree(list.start(&writer.ground)).0);
        };
        let trees = trees.into_iter().map(|(record, cells)| RootTree {
            record,
            cells: cells.into_iter().map(|cell| self.cell(cell)).collect(),
        });
        Forest::Root(RootPlan { scale: self.scale, trees: trees.collect() })
    }

    fn cell(&self, cell: Cell) -> (Tree, u32) {
        let (tree, smallest) = self.tree(cell.reference);
        (tree, self.scale.scaled(smallest) << 24 | cell.gate & 0xff_ffff)
    }

    /// A subtree, and the smallest position in it.
    fn tree(&self, at: Ref) -> (Tree, u32) {
        if at.is_empty() {
            return (Tree::Empty, u32::MAX);
        }
        match at.kind() {
            Kind::Node => self.node(at),
            Kind::Lean | Kind::Lean2 => self.lean(at),
            Kind::Fat => self.fat(at),
        }
    }

    fn node(&self, at: Ref) -> (Tree, u32) {
        let Some(bytes) = self.bytes[at.offset()..].first_chunk::<NODE_BYTES>() else {
            return (Tree::Empty, u32::MAX);
        };
        let decoded = node::Node::decode(bytes);
        let mut cuts = Cuts::NONE;
        decoded.bounds.iter().for_each(|&b| cuts.push(b));
        let mut smallest = u32::MAX;
        let children = (0..decoded.children.len()).map(|slot| {
            let (tree, least) = self.tree(decoded.child(slot));
            smallest = smallest.min(least);
            tree
        });
        let children = children.collect();
        let deferred = decoded.has_deferred.then(|| {
            let unit = &self.bytes[(decoded.base as usize - 1) * UNIT..][..UNIT];
            self.tree(Ref(u32::from_le_bytes([unit[0], unit[1], unit[2], unit[3]])))
        });
        smallest = smallest.min(deferred.as_ref().map_or(u32::MAX, |d| d.1));
        let node = Node { window: decoded.window, cuts, children, deferred };
        (Tree::Node(Box::new(node)), smallest)
    }

    fn lean(&self, at: Ref) -> (Tree, u32) {
        let Some(leaf) = Leaf::view(self.bytes, at.offset()) else { return (Tree::Empty, u32::MAX) };
        let layout = leaf.layout;
        let mut bytes = leaf.bytes[..layout.bytes()].to_vec();
        let labels: Vec<u32> = (0..layout.rules).map(|rule| leaf.position(rule)).collect();
        let smallest = self.relabel(&mut bytes, layout.positions_at(), &labels);
        (Tree::Leaf { kind: at.kind(), bytes, continuations: vec![] }, smallest)
    }

    fn fat(&self, mut at: Ref) -> (Tree, u32) {
        let mut pieces = Vec::new();
        let mut smallest = u32::MAX;
        while !at.is_empty() {
            let Some(leaf) = FatLeaf::view(self.bytes, at.offset()) else { break };
            at = leaf.next();
            let layout = leaf.layout;
            if layout.rules == 0 {
                continue; // a stub: it only leads on
            }
            let mut bytes = leaf.bytes[..layout.bytes()].to_vec();
            if layout.chained {
                bytes[fat::HEADER_BYTES..][..4].copy_from_slice(&Ref::EMPTY.0.to_le_bytes());
            }
            let labels: Vec<u32> = (0..layout.rules).map(|rule| leaf.position(rule)).collect();
            smallest = smallest.min(self.relabel(&mut bytes, layout.positions_at(), &labels));
            pieces.push(bytes);
        }
        if pieces.is_empty() {
            return (Tree::Empty, u32::MAX);
        }
        let continuations = pieces.split_off(1);
        (Tree::Leaf { kind: Kind::Fat, bytes: pieces.swap_remove(0), continuations }, smallest)
    }

    /// Writes positions over labels; the smallest of them.
    fn relabel(&self, bytes: &mut [u8], at: usize, labels: &[u32]) -> u32 {
        let position = |label: &u32| {
            let found = self.labels.binary_search_by_key(label, |(l, _)| *l);
            found.map_or(u32::MAX, |i| self.labels[i].1)
        };
        let positions = labels.iter().map(position);
        let mut smallest = u32::MAX;
        for (i, position) in positions.enumerate() {
            bytes[at + 4 * i..][..4].copy_from_slice(&position.to_le_bytes());
            smallest = smallest.min(position);
        }
        smallest
    }
}
