//! The search for one position around one key.

use hipac_classifier::forest::fat::FatLeaf;
use hipac_classifier::forest::leaf::Leaf;
use hipac_classifier::forest::root;
use hipac_classifier::forest::{DEPTH_MAX, Kind, Ref};

use super::{Columns, Cut, Forest, Half, Left, top};

/// A search for one position around a point.
pub(super) struct Search<'s> {
    pub(super) forest: &'s Forest<'s>,
    pub(super) point: &'s [u32],
    pub(super) wanted: u32,
    pub(super) everywhere: bool,
    pub(super) cuts: &'s mut Vec<Cut>,
    pub(super) visits_left: u64,
}

impl Search<'_> {
    pub(super) fn run(&mut self) -> bool {
        self.cuts.clear();
        let forest = self.forest;
        if !forest.root.is_root() {
            let mut region = forest.region.clone();
            return self.below(forest.root, &mut region, 0);
        }
        for (record, halves) in &forest.trees {
            let index = forest.cell(record, halves, self.point);
            let cell = root::cell_at(forest.arena, record.cells, index);
            let is_late = forest.scale.is_some_and(|s| cell.gate >> 24 > s.scaled(self.wanted));
            if cell.reference.is_empty() || is_late && !self.everywhere {
                continue;
            }
            self.cuts.clear();
            let mut region = forest.region.clone();
            for half in halves {
                let axis = match *half {
                    Half::None => continue,
                    Half::Top { axis, shift, bits } => {
                        top(&mut region[axis], shift, bits, self.point[axis] >> shift & ((1 << bits) - 1));
                        axis
                    }
                    Half::Apart { own, .. } => {
                        region[own] = (self.point[own], self.point[own]);
                        own
                    }
                };
                self.cuts.push((axis, region[axis]));
            }
            if self.below(cell.reference, &mut region, 0) {
                return true;
            }
        }
        false
    }

    fn below(&mut self, here: Ref, region: &mut Vec<(u32, u32)>, depth: u32) -> bool {
        let Some(left) = self.visits_left.checked_sub(1) else { return false };
        self.visits_left = left;
        if here.is_empty() || depth > DEPTH_MAX {
            return false;
        }
        if here.kind() != Kind::Node {
            return self.leaf(here, region);
        }
        let Some(node) = self.forest.node(here) else { return false };
        let value = self.forest.value(self.point, node.window);
        let slot = node.bounds.partition_point(|&b| b < value);
        let lo = if slot == 0 { 0 } else { node.bounds[slot - 1] + 1 };
        let hi = node.bounds.get(slot).copied().unwrap_or(u16::MAX);
        let (cuts, saved) = (self.cuts.len(), node.has_deferred.then(|| region.clone()));
        let around = Some(self.point);
        if self.forest.narrow(region, node.window, (lo, hi), around, self.cuts) != Left::Nothing
            && self.below(node.child(slot), region, depth + 1)
        {
            return true;
        }
        self.cuts.truncate(cuts);
        let (Some((part, smallest)), Some(saved)) = (self.forest.deferred(&node), saved) else {
            return false;
        };
        *region = saved;
        (self.everywhere || smallest <= self.wanted) && self.below(part, region, depth + 1)
    }

    fn leaf(&mut self, mut here: Ref, region: &[(u32, u32)]) -> bool {
        let forest = self.forest;
        let cuts = self.cuts.len();
        let mut inner = region.to_vec();
        loop {
            let view = match here.kind() {
                Kind::Fat => FatLeaf::view(forest.arena, here.offset()).map(Columns::Fat),
                _ => Leaf::view(forest.arena, here.offset()).map(Columns::Lean),
            };
            let Some(columns) = view else { return false };
            for rule in (0..columns.rules()).filter(|&rule| columns.position(rule) == self.wanted) {
                inner.copy_from_slice(region);
                self.cuts.truncate(cuts);
                let left = forest.lane(&mut inner, &columns, rule, Some(self.point), self.cuts);
                let holds = inner.iter().zip(self.point).all(|(b, &x)| b.0 <= x && x <= b.1);
                if left == Left::Exact && holds {
                    return true;
                }
            }
            let next = match &columns {
                Columns::Fat(leaf) => leaf.next(),
                Columns::Lean(_) => Ref::EMPTY,
            };
            if next.is_empty() || next.kind() != Kind::Fat || self.visits_left == 0 {
                self.cuts.truncate(cuts);
                return false;
            }
            self.visits_left -= 1;
            here = next;
        }
    }
}
