//! Where keys of a region go in a forest: cells of trees, children and deferred parts of nodes, lanes of leaves.

use hipac_classifier::Image;
use hipac_classifier::forest::fat::FatLeaf;
use hipac_classifier::forest::leaf::Leaf;
use hipac_classifier::forest::node::{NODE_BYTES, Node};
use hipac_classifier::forest::root::{Bits, Root, TreeRecord, cell_at, fold};
use hipac_classifier::forest::{Kind, Ref, UNIT};

use super::region::{Region, Space};

/// A place in a forest, and the tree and gate of the cell through which one came there.
#[derive(Debug, Clone, Copy)]
pub(in crate::certificate) struct Place {
    pub(in crate::certificate) at: Ref,
    pub(in crate::certificate) gate: Option<(TreeRecord, u32)>,
}

/// Some bits of what keys hold on an axis; without one, of bytes that are not one axis' alone.
#[derive(Debug, Clone, Copy)]
pub(in crate::certificate) struct Part {
    pub(in crate::certificate) axis: Option<usize>,
    pub(in crate::certificate) shift: u32,
    pub(in crate::certificate) count: u32,
}

/// A range of a part.
type Column = (Part, (u32, u32));

/// What all of a check looks at.
pub(in crate::certificate) struct Shared<'a, B> {
    pub(in crate::certificate) image: &'a Image<B>,
    pub(in crate::certificate) space: Space,
    pub(in crate::certificate) arena: &'a [u8],
}

impl<B: AsRef<[u8]>> Shared<'_, B> {
    fn part(&self, window: u8, shift: u32, count: u32) -> Part {
        let byte = |i: u32| self.space.bytes.get(&(usize::from(window) + i as usize)).copied();
        let (first, bytes) = (byte(0), (shift + count).div_ceil(8));
        let follows = |i: u32| byte(i).zip(first).is_some_and(|(b, first)| b == (first.0, first.1 + i));
        let axis = first.filter(|_| count > 0 && (0..bytes).all(follows));
        Part { axis: axis.map(|(axis, _)| axis), shift: shift + axis.map_or(0, |(_, low)| 8 * low), count }
    }

    pub(in crate::certificate) fn of_bits(&self, bits: Bits) -> Part {
        self.part(bits.window, bits.shift.into(), bits.count())
    }

    /// Lowest and highest value of a part in a region, or more than that.
    pub(in crate::certificate) fn values(&self, region: &Region, part: Part) -> (u32, u32) {
        let ones = ((1u64 << part.count) - 1) as u32;
        let Some(piece) = part.axis.map(|axis| region[axis]) else { return (0, ones) };
        let (known, bits) = piece.known();
        let above = |x: u32| u64::from(x) >> part.shift >> part.count;
        match known >> part.shift & ones == ones {
            true => (bits >> part.shift & ones, bits >> part.shift & ones),
            false if above(piece.lo) != above(piece.hi) => (0, ones),
            false => (piece.lo >> part.shift & ones, piece.hi >> part.shift & ones),
        }
    }

    /// The keys of a region that have a part in a range, and maybe others; none when it has none.
    pub(in crate::certificate) fn narrow(&self, region: &Region, (part, (lo, hi)): Column) -> Option<Region> {
        let (first, last) = self.values(region, part);
        let (lo, hi) = (lo.max(first), hi.min(last));
        let mut out = (lo <= hi).then(|| region.clone())?;
        let Some(piece) = part.axis.map(|axis| &mut out[axis]) else { return Some(out) };
        let (ones, above) = ((1u64 << part.count) - 1, u64::from(piece.lo) >> part.shift >> part.count);
        if above == u64::from(piece.hi) >> part.shift >> part.count {
            let at = |x: u32| (above << part.count | u64::from(x)) << part.shift;
            piece.lo = piece.lo.max(at(lo) as u32);
            piece.hi = piece.hi.min((at(hi) | ((1 << part.shift) - 1)) as u32);
        } else if lo == hi {
            piece.mask |= (ones << part.shift) as u32;
            piece.bits |= lo << part.shift;
        }
        Some(out)
    }

    /// Where keys of a region go from a place, each with its part of the region, the first on top: `which`
    /// is a tree of a root; of a node 0 are the children, 1 is the deferred part. False when there is none.
    pub(in crate::certificate) fn below(
        &self,
        (region, place): (&Region, Place),
        which: u32,
        out: &mut Vec<(Region, Place)>,
    ) -> bool {
        let before = out.len();
        if place.at.is_root() {
            let root = Root::view(self.arena, place.at.offset());
            let Some(root) = root.filter(|root| (which as usize) < root.tree_count()) else { return false };
            let tree = root.tree(which as usize);
            let [a, b] = tree.index.map(|bits| self.of_bits(bits));
            let each = |region: Region, part: Part| {
                let (first, last) = self.values(&region, part);
                (first..=last).filter_map(move |x| Some((x, self.narrow(&region, (part, (x, x)))?)))
            };
            for (high, region) in each(region.clone(), a) {
                for (low, region) in each(region, b) {
                    let cell = cell_at(self.arena, tree.cells, (high << b.count | low) as usize);
                    out.push((region, Place { at: cell.reference, gate: Some((tree, cell.gate)) }));
                }
            }
            out[before..].reverse();
            return true;
        }
        let bytes = self.arena.get(place.at.offset()..).and_then(|bytes| bytes.first_chunk::<NODE_BYTES>());
        let Some(bytes) = bytes.filter(|_| place.at.kind() == Kind::Node) else { return false };
        let node = Node::decode(bytes);
        let mut push = |region, at: Ref| out.push((region, Place { at, ..place }));
        match which {
            0 => {
                let part = self.part(node.window, 0, 16);
                for slot in (0..node.children.len()).rev() {
                    let lo = slot.checked_sub(1).map_or(0, |before| u32::from(node.bounds[before]) + 1);
                    let hi = node.bounds.get(slot).map_or(0xffff, |&bound| bound.into());
                    self.narrow(region, (part, (lo, hi))).into_iter().for_each(|r| push(r, node.child(slot)));
                }
                true
            }
            1 if node.has_deferred => {
                let unit = (node.base as usize).wrapping_sub(1).wrapping_mul(UNIT);
                let word = self.arena.get(unit..).and_then(|bytes| bytes.first_chunk::<4>());
                word.into_iter().for_each(|&word| push(region.clone(), Ref(u32::from_le_bytes(word))));
                true
            }
            _ => false,
        }
    }

    /// A lane of a leaf or of those in which it goes on: its position, and what it wants of keys.
    pub(in crate::certificate) fn lane(&self, mut at: Ref, mut lane: usize) -> Option<(u32, Vec<Column>)> {
        while at.kind() == Kind::Fat && !at.is_empty() {
            let leaf = FatLeaf::view(self.arena, at.offset())?;
            if lane < leaf.layout.rules {
                let part = |c| self.part(leaf.window(c), 0, if leaf.is_wide(c) { 32 } else { 16 });
                let columns = (0..leaf.layout.columns()).map(|c| (part(c), leaf.range(c, lane)));
                return Some((leaf.position(lane), columns.collect()));
            }
            (at, lane) = (leaf.next(), lane - leaf.layout.rules);
        }
        let leaf = Leaf::view(self.arena, Some(at).filter(|at| at.is_leaf() && !at.is_empty())?.offset())?;
        let range = |c| Some(leaf.range(c, lane)).map_or((1, 0), |(lo, hi)| (lo.into(), hi.into()));
        let columns = (0..leaf.layout.columns()).map(|c| (self.part(leaf.window(c), 0, 16), range(c)));
        (lane < leaf.layout.rules).then(|| (leaf.position(lane), columns.collect()))
    }

    /// Bits that keys of a region have in a tree's filter.
    pub(in crate::certificate) fn filter(&self, tree: &TreeRecord, region: &Region) -> u32 {
        let [a, b] = tree.filter.map(|bits| self.values(region, self.of_bits(bits)));
        let low = tree.filter[1].count();
        let values = (a.0..=a.1).flat_map(|x| (b.0..=b.1).map(move |y| x << low | y));
        values.fold(0, |bits, value| bits | 1 << fold(value))
    }
}
