//! Boxes of a live table, packed: what the writer keeps of each.
//!
//! ```text
//!   box    bounds: lo, hi of each axis, 2 × u32 or 2 × u16     label u32    mark u32
//!          by axis, 28 bytes for an IPv4 five-tuple                         rule │ tree ≪ 28 │ hides ≪ 31
//! ```

use hipac_classifier::live::RuleId;

use crate::forest::boxes::Bounds;
use crate::forest::{Axis, Boxes};

/// Identifies a box of a store.
pub(super) type BoxId = u32;

/// Rules that a table may have: their numbers take 28 bits.
pub(super) const RULES_MAX: u32 = 1 << 22;

const HIDES: u32 = 1 << 31;
const TREE_SHIFT: u32 = 28;

/// See the module.
#[derive(Debug)]
pub(super) struct Store {
    axes: Vec<Axis>,
    /// 16-bit words of a box's bounds.
    stride: usize,
    bounds: Vec<u16>,
    labels: Vec<u32>,
    marks: Vec<u32>,
    free: Vec<BoxId>,
}

impl Store {
    /// No boxes over these axes.
    pub(super) fn new(axes: Vec<Axis>) -> Store {
        let stride = axes.iter().map(|a| if a.is_wide { 4 } else { 2 }).sum();
        Store { axes, stride, bounds: vec![], labels: vec![], marks: vec![], free: vec![] }
    }

    /// The axes.
    pub(super) fn axes(&self) -> &[Axis] {
        &self.axes
    }

    /// Boxes in it.
    pub(super) fn len(&self) -> usize {
        self.labels.len() - self.free.len()
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        2 * self.bounds.capacity()
            + 4 * (self.labels.capacity() + self.marks.capacity() + self.free.capacity())
    }

    /// Adds a box. It is in no tree yet.
    pub(super) fn add(&mut self, bounds: &Bounds, label: u32, rule: RuleId, hides: bool) -> BoxId {
        let mark = rule | if hides { HIDES } else { 0 };
        let words = bounds.iter().zip(&self.axes).flat_map(|(&(lo, hi), axis)| {
            let wide = [lo as u16, (lo >> 16) as u16, hi as u16, (hi >> 16) as u16];
            let narrow = [lo as u16, hi as u16, 0, 0];
            if axis.is_wide { wide.into_iter().take(4) } else { narrow.into_iter().take(2) }
        });
        match self.free.pop() {
            Some(id) => {
                let at = id as usize * self.stride;
                self.bounds[at..at + self.stride].iter_mut().zip(words).for_each(|(w, new)| *w = new);
                self.labels[id as usize] = label;
                self.marks[id as usize] = mark;
                id
            }
            None => {
                self.bounds.extend(words);
                self.labels.push(label);
                self.marks.push(mark);
                self.labels.len() as BoxId - 1
            }
        }
    }

    /// Takes a box out.
    pub(super) fn remove(&mut self, id: BoxId) {
        self.free.push(id);
    }

    /// The interval of a box on one axis, which begins at 16-bit word `at`.
    #[inline]
    fn interval(&self, id: BoxId, at: usize, is_wide: bool) -> (u32, u32) {
        let words = &self.bounds[id as usize * self.stride + at..];
        if is_wide {
            let wide = |i: usize| u32::from(words[i]) | u32::from(words[i + 1]) << 16;
            (wide(0), wide(2))
        } else {
            (words[0].into(), words[1].into())
        }
    }

    /// Label of a box's rule.
    #[inline]
    pub(super) fn label(&self, id: BoxId) -> u32 {
        self.labels[id as usize]
    }

    /// Gives a box another label.
    pub(super) fn set_label(&mut self, id: BoxId, label: u32) {
        self.labels[id as usize] = label;
    }

    /// Rule of a box.
    pub(super) fn rule(&self, id: BoxId) -> RuleId {
        self.marks[id as usize] & ((1 << TREE_SHIFT) - 1)
    }

    /// Tree of a box.
    pub(super) fn tree(&self, id: BoxId) -> usize {
        (self.marks[id as usize] >> TREE_SHIFT & 7) as usize
    }

    /// Puts a box down as one of a tree.
    pub(super) fn set_tree(&mut self, id: BoxId, tree: usize) {
        let mark = &mut self.marks[id as usize];
        *mark = *mark & !(7 << TREE_SHIFT) | (tree as u32) << TREE_SHIFT;
    }

    /// Unpacks boxes, which must be in order, behind those that are in `out`.
    pub(super) fn unpack(&self, ids: &[BoxId], out: &mut Boxes) {
        let mut bounds = Vec::with_capacity(self.axes.len());
        for &id in ids {
            bounds.clear();
            let mut at = 0;
            for axis in &self.axes {
                bounds.push(self.interval(id, at, axis.is_wide));
                at += if axis.is_wide { 4 } else { 2 };
            }
            let label = self.label(id);
            let hides = self.marks[id as usize] & HIDES != 0;
            out.push(&bounds, label, if hides { u32::MAX } else { label + 1 });
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
        assert_eq!((store.rule(ids[1]), store.tree(ids[1]), store.label(ids[1])), (72, 3, 20));
        store.remove(ids[0]);
        assert_eq!((store.add(&all[1], 5, 1, false), store.len()), (ids[0], 2));
    }
}
