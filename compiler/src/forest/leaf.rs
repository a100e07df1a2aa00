//! Encoding leaves: which windows of the key still have to be compared in a region.

use hipac_classifier::forest::leaf::{self, Column, Layout, RULES_MAX, VECTOR_LANES};
use hipac_classifier::forest::{Kind, LEAF_RULES_MAX, Ref, fat};

use super::boxes::{Axis, Bounds, Boxes};
use super::build::Tree;

/// The leaf of a list: lean when it fits, else fat leaves, chained when the list is long.
pub(crate) fn encode(boxes: &Boxes, list: &[u32], region: &Bounds) -> Tree {
    if list.len() <= RULES_MAX
        && let Some(bytes) = leaf::encode(&positions(boxes, list), &columns(boxes, list, region))
    {
        let lanes = bytes.first_chunk().map_or(0, |head| Layout::read(head).lanes());
        let kind = if lanes <= VECTOR_LANES { Kind::Lean } else { Kind::Lean2 };
        return Tree::Leaf { kind, bytes, continuations: vec![] };
    }
    let mut chunks = list.chunks(LEAF_RULES_MAX).peekable();
    let mut encoded = Vec::new();
    while let Some(chunk) = chunks.next() {
        let next = chunks.peek().map(|_| Ref::EMPTY);
        encoded.push(fat::encode(&positions(boxes, chunk), &columns(boxes, chunk, region), next));
    }
    let continuations = encoded.split_off(1);
    Tree::Leaf { kind: Kind::Fat, bytes: encoded.swap_remove(0), continuations }
}

fn positions(boxes: &Boxes, list: &[u32]) -> Vec<u32> {
    list.iter().map(|&i| boxes.position(i)).collect()
}

fn columns(boxes: &Boxes, list: &[u32], region: &Bounds) -> Vec<Column> {
    let mut columns = Vec::new();
    for (axis, interval) in region.iter().enumerate() {
        columns_of(boxes, list, axis, *interval, &mut columns);
    }
    columns
}

/// The columns that one axis needs: none when the path has decided it.
fn columns_of(boxes: &Boxes, list: &[u32], axis: usize, region: (u32, u32), out: &mut Vec<Column>) {
    if list.iter().all(|&i| covers(boxes.interval(i, axis), region)) {
        return;
    }
    let Axis { offset, is_wide, .. } = boxes.axes[axis];
    let ranges: Vec<(u32, u32)> = list.iter().map(|&i| clip(boxes.interval(i, axis), region)).collect();
    let narrow = |shift: u32| Column {
        window: offset + (shift / 8) as u8,
        is_wide: false,
        ranges: ranges.iter().map(|r| (r.0 >> shift & 0xffff, r.1 >> shift & 0xffff)).collect(),
    };
    let differs = region.0 ^ region.1;
    let aligned = |shift: u32| ranges.iter().all(|&r| is_aligned(r, region, shift));
    if !is_wide || differs <= 0xffff {
        out.push(narrow(0));
    } else if aligned(16) {
        out.push(narrow(16));
    } else if differs <= 0xff_ffff && aligned(8) {
        out.push(narrow(8));
    } else if ranges.iter().all(|&r| is_aligned(r, region, 16) || r.0 >> 16 == r.1 >> 16) {
        // Prefixes: the upper half is a range, the lower one is free, or the upper half is one
        // value.
        out.push(narrow(16));
        let lower = |r: &(u32, u32)| {
            if is_aligned(*r, region, 16) { (0, 0xffff) } else { (r.0 & 0xffff, r.1 & 0xffff) }
        };
        out.push(Column { window: offset, is_wide: false, ranges: ranges.iter().map(lower).collect() });
    } else {
        out.push(Column { window: offset, is_wide: true, ranges });
    }
}

fn covers(interval: (u32, u32), region: (u32, u32)) -> bool {
    interval.0 <= region.0 && region.1 <= interval.1
}

fn clip(interval: (u32, u32), region: (u32, u32)) -> (u32, u32) {
    (interval.0.max(region.0), interval.1.min(region.1))
}

/// Within the region, the bits below `shift` do not matter to the clipped range.
fn is_aligned(range: (u32, u32), region: (u32, u32), shift: u32) -> bool {
    let low = (1u32 << shift) - 1;
    (range.0 == region.0 || range.0 & low == 0) && (range.1 == region.1 || range.1 & low == low)
}
