//! Where keys of a region go in a forest: cells of trees, children and deferred parts of nodes.

use hipac_classifier::Image;
use hipac_classifier::forest::node::Node;
use hipac_classifier::forest::root::{Bits, Root, TreeRecord, cell_at, fold};
use hipac_classifier::forest::{Ref, lane::Want};

use super::region::{Region, Space};

/// A place in a forest, and the tree and gate of the cell through which one came there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) at: Ref,
    pub(crate) gate: Option<(TreeRecord, u32)>,
}

/// Some bits of what keys hold on an axis; without one, of bytes that are not one axis' alone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    pub(crate) axis: Option<usize>,
    pub(crate) shift: u32,
    pub(crate) count: u32,
}

/// What all of a check looks at.
pub(crate) struct Shared<'a, B> {
    pub(crate) image: &'a Image<B>,
    pub(crate) space: Space,
    pub(crate) arena: &'a [u8],
}

impl<B: AsRef<[u8]>> Shared<'_, B> {
    fn part(&self, window: u8, shift: u32, count: u32) -> Part {
        let byte = |i: u32| self.space.bytes.get(&(usize::from(window) + i as usize)).copied();
        let (first, bytes) = (byte(0).filter(|_| count > 0), (shift + count).div_ceil(8));
        let follows = |i: u32| byte(i).zip(first).is_some_and(|(b, first)| b == (first.0, first.1 + i));
        let axis = first.filter(|_| (0..bytes).all(follows));
        Part { axis: axis.map(|(axis, _)| axis), shift: shift + axis.map_or(0, |(_, low)| 8 * low), count }
    }

    pub(crate) fn of_bits(&self, bits: Bits) -> Part {
        self.part(bits.window, bits.shift.into(), bits.count())
    }

    pub(crate) fn of_lane(&self, want: &Want) -> Part {
        self.part(want.window, 0, 8 * want.bytes)
    }

    /// Lowest and highest value of a part in a region, or more than that.
    pub(crate) fn values(&self, region: &Region, part: Part) -> (u32, u32) {
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
    pub(crate) fn narrow(&self, region: &Region, part: Part, (lo, hi): (u32, u32)) -> Option<Region> {
        let (first, last) = self.values(region, part);
        let (lo, hi) = (lo.max(first), hi.min(last));
        let mut out = (lo <= hi).then(|| region.clone())?;
        let Some(piece) = part.axis.map(|axis| &mut out[axis]) else { return Some(out) };
        let above = |x: u32| u64::from(x) >> part.shift >> part.count;
        if above(piece.lo) == above(piece.hi) {
            let at = |x: u32| (above(piece.lo) << part.count | u64::from(x)) << part.shift;
            let (lo, hi) = (at(lo) as u32, (at(hi) | ((1 << part.shift) - 1)) as u32);
            (piece.lo, piece.hi) = (piece.lo.max(lo), piece.hi.min(hi));
        } else if lo == hi {
            piece.mask |= (((1u64 << part.count) - 1) << part.shift) as u32;
            piece.bits |= lo << part.shift;
        }
        Some(out)
    }

    /// Where keys of a region go from a place, each with its part of the region, the first on top: `which`
    /// is a tree of a root; of a node 0 are the children, 1 is the deferred part. `None` when there is none.
    pub(crate) fn below(
        &self,
        region: &Region,
        place: Place,
        which: u32,
        out: &mut Vec<(Region, Place)>,
    ) -> Option<()> {
        if place.at.is_root() {
            let root = Root::view(self.arena, place.at.offset())?;
            let tree = ((which as usize) < root.tree_count()).then(|| root.tree(which as usize))?;
            let [a, b] = tree.index.map(|bits| self.of_bits(bits));
            let each = |region: Region, part: Part| {
                let (first, last) = self.values(&region, part);
                (first..=last).rev().filter_map(move |x| Some((x, self.narrow(&region, part, (x, x))?)))
            };
            for (high, region) in each(region.clone(), a) {
                for (low, region) in each(region, b) {
                    let cell = cell_at(self.arena, tree.cells, (high << b.count | low) as usize);
                    out.push((region, Place { at: cell.reference, gate: Some((tree, cell.gate)) }));
                }
            }
            return Some(());
        }
        let node = Node::view(self.arena, place.at)?;
        if which > 0 {
            let (at, _) = node.deferred(self.arena).filter(|_| which == 1)?;
            out.push((region.clone(), Place { at, ..place }));
            return Some(());
        }
        for (slot, _) in node.children.iter().enumerate().rev() {
            let lo = slot.checked_sub(1).map_or(0, |before| u32::from(node.bounds[before]) + 1);
            let hi = node.bounds.get(slot).map_or(0xffff, |&bound| bound.into());
            let inner = self.narrow(region, self.part(node.window, 0, 16), (lo, hi));
            out.extend(inner.map(|inner| (inner, Place { at: node.child(slot), ..place })));
        }
        Some(())
    }

    /// Bits that keys of a region have in a tree's filter.
    pub(crate) fn filter(&self, tree: &TreeRecord, region: &Region) -> u32 {
        let [a, b] = tree.filter.map(|bits| self.values(region, self.of_bits(bits)));
        let low = tree.filter[1].count();
        let values = (a.0..=a.1).flat_map(|x| (b.0..=b.1).map(move |y| x << low | y));
        values.fold(0, |bits, value| bits | 1 << fold(value))
    }
}
