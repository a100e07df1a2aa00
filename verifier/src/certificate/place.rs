//! Places of a forest, and the keys that come there: cells of trees, children of nodes, lanes of leaves.

use hipac_classifier::Image;
use hipac_classifier::forest::fat::FatLeaf;
use hipac_classifier::forest::leaf::Leaf;
use hipac_classifier::forest::node::{NODE_BYTES, Node};
use hipac_classifier::forest::root::{Bits, TreeRecord, cell_at, fold};
use hipac_classifier::forest::{DEPTH_MAX, Kind, PENDING_MAX, Ref, UNIT};

use super::meaning::{Region, Space};
use super::{Refused, wrong};

/// A place in a forest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spot {
    pub(super) at: Ref,
    pub(super) tree: Option<TreeRecord>,
    pub(super) gate: u32,
    pub(super) smallest: u32,
    pub(super) waiting: usize,
    pub(super) depth: u32,
}

impl Spot {
    /// Where lookups begin.
    pub(super) fn back_at(self, root: Ref) -> Spot {
        Spot { at: root, waiting: 0, depth: 0, smallest: 0, ..self }
    }
}

/// What all of a check looks at.
pub(super) struct Shared<'a, B> {
    pub(super) image: &'a Image<B>,
    pub(super) space: Space,
    pub(super) arena: &'a [u8],
}

/// A leaf of either kind.
pub(super) enum Lanes<'a> {
    Lean(Leaf<'a>),
    Fat(FatLeaf<'a>),
}

impl Lanes<'_> {
    fn rules(&self) -> usize {
        match self {
            Lanes::Lean(leaf) => leaf.layout.rules,
            Lanes::Fat(leaf) => leaf.layout.rules,
        }
    }

    pub(super) fn columns(&self) -> usize {
        match self {
            Lanes::Lean(leaf) => leaf.layout.columns(),
            Lanes::Fat(leaf) => leaf.layout.columns(),
        }
    }

    pub(super) fn position(&self, rule: usize) -> u32 {
        match self {
            Lanes::Lean(leaf) => leaf.position(rule),
            Lanes::Fat(leaf) => leaf.position(rule),
        }
    }

    /// Where in the key a column looks, at how many bytes, and what a rule wants of it.
    pub(super) fn column(&self, column: usize, rule: usize) -> (usize, usize, (u32, u32)) {
        match self {
            Lanes::Lean(leaf) => {
                let (lo, hi) = leaf.range(column, rule);
                (leaf.window(column).into(), 2, (lo.into(), hi.into()))
            }
            Lanes::Fat(leaf) => {
                let bytes = if leaf.is_wide(column) { 4 } else { 2 };
                (leaf.window(column).into(), bytes, leaf.range(column, rule))
            }
        }
    }
}

impl<B: AsRef<[u8]>> Shared<'_, B> {
    /// A lane of a leaf and its continuations.
    pub(super) fn lane(&self, mut at: Ref, mut lane: usize) -> Option<(Lanes<'_>, usize)> {
        for _ in 0..1 << 20 {
            let leaf = match at.kind() {
                _ if at.is_empty() => return None,
                Kind::Node => return None,
                Kind::Fat => Lanes::Fat(FatLeaf::view(self.arena, at.offset())?),
                _ => Lanes::Lean(Leaf::view(self.arena, at.offset())?),
            };
            if lane < leaf.rules() {
                return Some((leaf, lane));
            }
            lane -= leaf.rules();
            let Lanes::Fat(leaf) = leaf else { return None };
            at = Some(leaf.next()).filter(|next| next.kind() == Kind::Fat)?;
        }
        None
    }

    pub(super) fn node(&self, spot: Spot) -> Option<Node> {
        let bytes = self.arena.get(spot.at.offset()..)?.first_chunk::<NODE_BYTES>()?;
        let node = Node::decode(bytes);
        let is_sound = spot.depth + 1 < DEPTH_MAX && node.encode() == *bytes;
        (is_sound && node.bounds.is_sorted_by(|a, b| a < b)).then_some(node)
    }

    /// The deferred part of a node.
    pub(super) fn part(&self, node: &Node, spot: Spot) -> Option<Spot> {
        let unit = (node.base as usize & Ref::UNITS_MAX).checked_sub(1).filter(|_| node.has_deferred)? * UNIT;
        let bytes = self.arena.get(unit..unit + 8)?;
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let smallest = spot.smallest.max(word(4));
        // What would be one too many to wait is never looked at.
        let at = if spot.waiting < PENDING_MAX { Ref(word(0)) } else { Ref::EMPTY };
        Some(Spot { at, smallest, depth: spot.depth + 1, ..spot })
    }

    /// The children of a node that keys of a region come to, the first on top.
    pub(super) fn children(&self, node: &Node, region: &Region, spot: Spot, out: &mut Vec<(Region, Spot)>) {
        let waiting = spot.waiting + usize::from(node.has_deferred);
        for slot in (0..node.children.len()).rev() {
            let lo = slot.checked_sub(1).map_or(0, |before| u32::from(node.bounds[before]) + 1);
            let hi = node.bounds.get(slot).map_or(0xffff, |&bound| u32::from(bound));
            let mut inner = region.clone();
            if self.space.narrow(&mut inner, node.window.into(), 2, (lo, hi)) {
                out.push((inner, Spot { at: node.child(slot), waiting, depth: spot.depth + 1, ..spot }));
            }
        }
    }

    /// The cells of a tree that keys of a region come to, the first on top.
    pub(super) fn cells(
        &self,
        region: &Region,
        spot: Spot,
        tree: TreeRecord,
        out: &mut Vec<(Region, Spot)>,
    ) -> Result<(), Refused> {
        if !tree.is_sound() {
            return wrong("a tree has bits that are no run");
        }
        let [a, b] = tree.index;
        let before = out.len();
        for (high, region) in self.each_value(a, region) {
            for (low, region) in self.each_value(b, &region) {
                let cell = cell_at(self.arena, tree.cells, (high << b.count() | low) as usize);
                out.push((region, Spot { at: cell.reference, gate: cell.gate, tree: Some(tree), ..spot }));
            }
        }
        out[before..].reverse();
        Ok(())
    }

    /// Values that some bits have in a region, each with its part of the region where that is one.
    fn each_value(&self, bits: Bits, region: &Region) -> Vec<(u32, Region)> {
        let (mask, count) = (u32::from(bits.mask), bits.count());
        let all = || (0..=mask).map(|value| (value, region.clone())).collect();
        let Some((axis, low)) = self.place_of(bits) else { return all() };
        let shift = low + u32::from(bits.shift);
        let (first, last) = (u64::from(region[axis].0) >> shift, u64::from(region[axis].1) >> shift);
        if mask == 0 || (last - first) >> count != 0 {
            return all();
        }
        let part = |value: u64| {
            let mut region = region.clone();
            let (lo, hi) = ((value << shift) as u32, (value << shift | ((1 << shift) - 1)) as u32);
            region[axis] = (region[axis].0.max(lo), region[axis].1.min(hi));
            (value as u32 & mask, region)
        };
        (first..=last).map(part).collect()
    }

    /// The axis that bits lie in.
    fn place_of(&self, bits: Bits) -> Option<(usize, u32)> {
        let fits = u32::from(bits.shift & 15) + bits.count() <= 16 && bits.shift < 16;
        self.space.place(bits.window.into(), 2).flatten().filter(|_| fits)
    }

    /// Filter bits that keys of a region have.
    pub(super) fn filter(&self, tree: &TreeRecord, region: &Region) -> u32 {
        let values = |bits: Bits| -> Vec<u32> {
            let mask = u32::from(bits.mask);
            let Some((axis, low)) = self.place_of(bits) else { return (0..=mask).collect() };
            let shift = low + u32::from(bits.shift);
            let (first, last) = (u64::from(region[axis].0) >> shift, u64::from(region[axis].1) >> shift);
            match last - first >= mask.into() {
                true => (0..=mask).collect(),
                false => (first..=last).map(|value| value as u32 & mask).collect(),
            }
        };
        let [a, b] = tree.filter.map(values);
        let count = tree.filter[1].count();
        a.iter()
            .flat_map(|&x| b.iter().map(move |&y| 1 << fold(x << count | y)))
            .fold(0, |all, bit| all | bit)
    }
}
