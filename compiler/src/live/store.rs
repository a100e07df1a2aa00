//! Boxes of a live table, packed: what the writer keeps of each.
//!
//! ```text
//!   box    label u32    mark u32                         bounds: lo, hi of each axis, 2 × u32 or 2 × u16,
//!                       rule │ tree ≪ 28 │ hides ≪ 31   28 bytes for an IPv4 five-tuple
//! ```

use hipac_classifier::live::RuleId;

use crate::forest::boxes::Bounds;
use crate::forest::{Axis, Boxes};

/// Identifies a box of a store.
pub(super) type BoxId = u32;

/// Rules that a table may have: their numbers take 28 bits.
pub(super) const RULES_MAX: u32 = 1 << 22;

/// Boxes of a chunk.
const CHUNK: usize = 1024;

const HIDES: u32 = 1 << 31;
const TREE_SHIFT: u32 = 28;

/// Words of a box before its bounds.
const HEAD: usize = 2;

/// See the module. A box is looked at as a whole: all of it lies together.
#[derive(Debug)]
pub(super) struct Store {
    axes: Vec<Axis>,
    /// Words of a box.
    stride: usize,
    /// Chunks of [`CHUNK`] boxes: one that grew as a whole would be copied as a whole, now and then.
    chunks: Vec<Box<[u32]>>,
    /// Numbers given out so far.
    numbers: usize,
    count: usize,
    free: Vec<BoxId>,
}

impl Store {
    /// No boxes over these axes.
    pub(super) fn new(axes: Vec<Axis>) -> Store {
        let stride = HEAD + axes.iter().map(|a| if a.is_wide { 2 } else { 1 }).sum::<usize>();
        Store { axes, stride, chunks: vec![], numbers: 0, count: 0, free: vec![] }
    }

    /// Makes room for so many boxes.
    pub(super) fn reserve(&mut self, boxes: usize) {
        self.chunks.reserve_exact(boxes.div_ceil(CHUNK));
    }

    /// The axes.
    pub(super) fn axes(&self) -> &[Axis] {
        &self.axes
    }

    /// Boxes in it.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        4 * (self.chunks.len() * CHUNK * self.stride + self.free.capacity())
    }

    /// Adds a box. It is in no tree yet.
    pub(super) fn add(&mut self, bounds: &Bounds, label: u32, rule: RuleId, hides: bool) -> BoxId {
        self.count += 1;
        let id = self.free.pop().unwrap_or_else(|| {
            let id = self.numbers;
            if id.is_multiple_of(CHUNK) {
                self.chunks.push(vec![0; CHUNK * self.stride].into_boxed_slice());
            }
            self.numbers += 1;
            id as BoxId
        });
        let words = &mut self.chunks[id as usize / CHUNK][id as usize % CHUNK * self.stride..][..self.stride];
        (words[0], words[1]) = (label, rule | if hides { HIDES } else { 0 });
        let mut at = HEAD;
        for (&(lo, hi), axis) in bounds.iter().zip(&self.axes) {
            if axis.is_wide {
                (words[at], words[at + 1]) = (lo, hi);
                at += 2;
            } else {
                words[at] = lo | hi << 16;
                at += 1;
            }
        }
        id
    }

    /// Takes a box out.
    pub(super) fn remove(&mut self, id: BoxId) {
        self.count -= 1;
        self.free.push(id);
    }

    /// Label of a box's rule.
    #[inline]
    pub(super) fn label(&self, id: BoxId) -> u32 {
        self.of(id)[0]
    }

    /// The words of a box.
    #[inline]
    fn of(&self, id: BoxId) -> &[u32] {
        &self.chunks[id as usize / CHUNK][id as usize % CHUNK * self.stride..][..self.stride]
    }

    fn of_mut(&mut self, id: BoxId) -> &mut [u32] {
        &mut self.chunks[id as usize / CHUNK][id as usize % CHUNK * self.stride..][..self.stride]
    }

    /// Gives a box another label.
    pub(super) fn set_label(&mut self, id: BoxId, label: u32) {
        self.of_mut(id)[0] = label;
    }

    fn mark(&self, id: BoxId) -> u32 {
        self.of(id)[1]
    }

    /// Tree of a box.
    pub(super) fn tree(&self, id: BoxId) -> usize {
        (self.mark(id) >> TREE_SHIFT & 7) as usize
    }

    /// Puts a box down as one of a tree.
    pub(super) fn set_tree(&mut self, id: BoxId, tree: usize) {
        let mark = &mut self.of_mut(id)[1];
        *mark = *mark & !(7 << TREE_SHIFT) | (tree as u32) << TREE_SHIFT;
    }

    /// Unpacks boxes, which must be in order, behind those that are in `out`.
    pub(super) fn unpack(&self, ids: &[BoxId], out: &mut Boxes) {
        for &id in ids {
            let words = self.of(id);
            let hides = words[1] & HIDES != 0;
            let mut at = HEAD;
            let bounds = self.axes.iter().map(|axis| {
                let word = words[at];
                if axis.is_wide {
                    at += 2;
                    (word, words[at - 1])
                } else {
                    at += 1;
                    (word & 0xffff, word >> 16)
                }
            });
            out.push_all(bounds, words[0], if hides { u32::MAX } else { words[0] + 1 });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_come_back_as_they_were() {
        let axes = vec![
            Axis { offset: 0, is_wide: true, max: u32::MAX },
            Axis { offset: 4, is_wide: false, max: 0xffff },
            Axis { offset: 6, is_wide: false, max: 6 },
        ];
        let mut store = Store::new(axes.clone());
        let all = [[(1, u32::MAX), (7, 0xffff), (0, 6)], [(0x8000_1234, 0x8000_1234), (0, 0), (2, 3)]];
        let ids: Vec<BoxId> =
            all.iter().zip(1..).map(|(b, i)| store.add(b, 10 * i, 70 + i, i == 1)).collect();
        store.set_tree(ids[1], 3);
        let mut boxes = Boxes::new(axes);
        store.unpack(&ids, &mut boxes);
        for (i, bounds) in all.iter().enumerate() {
            assert_eq!(boxes.bounds(i as u32), bounds);
        }
        assert_eq!((boxes.hides_until(0), boxes.hides_until(1)), (u32::MAX, 21));
        assert_eq!((store.tree(ids[1]), store.label(ids[1])), (3, 20));
        store.remove(ids[0]);
        assert_eq!((store.add(&all[1], 5, 1, false), store.len()), (ids[0], 2));
    }
}
