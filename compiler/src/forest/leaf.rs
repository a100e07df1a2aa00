//! Encoding leaves: which windows of the key still have to be compared in a region.

use hipac_classifier::forest::LEAF_RULES_MAX;
use hipac_classifier::forest::Ref;
use hipac_classifier::forest::leaf::{self, Column};

use super::boxes::{Axis, Bounds, Boxes};

/// The leaves of a list, chained when it is long; each `next` is still to be filled in.
pub(super) fn encode(boxes: &Boxes, list: &[u32], region: &Bounds) -> Vec<Vec<u8>> {
    let chunks = list.chunks(LEAF_RULES_MAX);
    let last = chunks.len() - 1;
    chunks
        .enumerate()
        .map(|(i, chunk)| {
            let positions: Vec<u32> = chunk.iter().map(|&b| boxes.position(b)).collect();
            let mut columns = Vec::new();
            for (axis, interval) in region.iter().enumerate() {
                columns_of(boxes, chunk, axis, *interval, &mut columns);
            }
            leaf::encode(&positions, &columns, (i < last).then_some(Ref::EMPTY))
        })
        .collect()
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
