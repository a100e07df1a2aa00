//! The walk over all of a forest.

use hipac_classifier::forest::fat::FatLeaf;
use hipac_classifier::forest::leaf::Leaf;
use hipac_classifier::forest::node::NODE_BYTES;
use hipac_classifier::forest::{DEPTH_MAX, Kind, PENDING_MAX, Ref};

use super::super::boxes::Boxes;
use super::{Columns, Damage, Forest, LeafSeen, Left, Seen, Spot};

/// How deep a walk is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Depth {
    pub(super) nodes: u32,
    /// Deferred parts that wait.
    pub(super) waiting: usize,
}

pub(super) struct Walk<'f, 'v> {
    pub(super) forest: &'f Forest<'f>,
    pub(super) visit: &'v mut dyn FnMut(&LeafSeen<'_>),
    pub(super) seen: Seen,
    pub(super) damage: Option<Damage>,
    pub(super) visits_left: u64,
    pub(super) positions: Vec<u32>,
    pub(super) boxes: Boxes,
}

impl Walk<'_, '_> {
    pub(super) fn damaged(&mut self, what: impl FnOnce() -> String) {
        self.damage.get_or_insert_with(|| Damage(what()));
    }

    /// All below a reference. `is_loose`: not all keys of the region come here.
    pub(super) fn tree(
        &mut self,
        here: Ref,
        region: &mut Vec<(u32, u32)>,
        spot: Spot,
        depth: Depth,
        is_loose: bool,
    ) {
        if here.is_empty() {
            self.seen.regions += 1;
            return;
        }
        let Some(left) = self.visits_left.checked_sub(1) else {
            return self.damaged(|| "the forest leads to the same places over and over".into());
        };
        self.visits_left = left;
        match here.kind() {
            Kind::Node => self.node(here, region, spot, depth, is_loose),
            _ => self.leaf(here, region, spot, is_loose),
        }
    }

    fn node(&mut self, here: Ref, region: &mut Vec<(u32, u32)>, spot: Spot, depth: Depth, is_loose: bool) {
        let offset = here.offset();
        let forest = self.forest;
        // What lies outside holds nothing: so a lookup takes it.
        let Some(node) = forest.node(here) else { return };
        // A lookup takes so many steps, the one into the leaf among them.
        if depth.nodes + 1 >= DEPTH_MAX {
            return self.damaged(|| format!("the node at {offset} is deeper than lookups go"));
        }
        let bytes = forest.arena.get(offset..offset + NODE_BYTES);
        if bytes.is_none_or(|bytes| node.encode() != *bytes) || !node.bounds.is_sorted_by(|a, b| a < b) {
            return self.damaged(|| format!("the bounds of the node at {offset} do not rise to their end"));
        }
        let deferred = forest.deferred(&node);
        if deferred.is_some() && depth.waiting >= PENDING_MAX {
            self.damaged(|| format!("the deferred part of the node at {offset} is never looked at"));
        }
        let below =
            Depth { nodes: depth.nodes + 1, waiting: depth.waiting + usize::from(deferred.is_some()) };
        let mut lo = 0u32;
        for slot in 0..node.children.len() {
            let hi = node.bounds.get(slot).copied().unwrap_or(u16::MAX);
            let mut inner = region.clone();
            let range = (lo as u16, hi);
            lo = u32::from(hi) + 1;
            match forest.narrow(&mut inner, node.window, range, None, &mut vec![]) {
                Left::Nothing => {}
                left => {
                    let child = node.child(slot);
                    self.tree(child, &mut inner, spot, below, is_loose || left == Left::Loose);
                }
            }
        }
        if let Some((part, smallest)) = deferred {
            let spot = Spot { smallest: spot.smallest.max(smallest), ..spot };
            let below = Depth { nodes: depth.nodes + 1, ..depth };
            self.tree(part, region, spot, below, is_loose);
        }
    }

    fn leaf(&mut self, mut here: Ref, region: &[(u32, u32)], spot: Spot, mut is_loose: bool) {
        self.seen.regions += 1;
        self.positions.clear();
        self.boxes.clear();
        let spot = Spot { offset: here.offset(), ..spot };
        let forest = self.forest;
        let mut inner = region.to_vec();
        let mut cuts = Vec::new();
        loop {
            let view = match here.kind() {
                Kind::Fat => FatLeaf::view(forest.arena, here.offset()).map(Columns::Fat),
                _ => Leaf::view(forest.arena, here.offset()).map(Columns::Lean),
            };
            let Some(columns) = view else { break };
            for rule in 0..columns.rules() {
                inner.copy_from_slice(region);
                cuts.clear();
                match forest.lane(&mut inner, &columns, rule, None, &mut cuts) {
                    Left::Nothing => continue, // no key of the region
                    Left::Loose => is_loose = true,
                    Left::Exact => {}
                }
                self.positions.push(columns.position(rule));
                self.boxes.push(&inner);
            }
            let next = match &columns {
                Columns::Fat(leaf) => leaf.next(),
                Columns::Lean(_) => Ref::EMPTY,
            };
            let Some(left) = self.visits_left.checked_sub(1).filter(|_| !next.is_empty()) else { break };
            self.visits_left = left;
            if next.kind() != Kind::Fat {
                break;
            }
            here = next;
        }
        self.seen.stored += self.positions.len() as u64;
        let seen = LeafSeen { positions: &self.positions, boxes: &self.boxes, is_loose, at: spot };
        (self.visit)(&seen);
    }
}
