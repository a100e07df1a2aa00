//! Encoding leaves: which windows of the key still have to be compared in a region.

use hipac_classifier::forest::leaf::{
    COLUMNS_MAX, Column, Form, Layout, RULES_MAX, SHORT_COLUMNS_MAX, VECTOR_LANES,
};
use hipac_classifier::forest::{Kind, LEAF_RULES_MAX, Ref, fat};

use super::boxes::{Axis, Bounds, Boxes};
use super::build::Tree;

/// The leaf of a list: lean when it fits, else fat leaves, chained when the list is long.
pub(crate) fn encode(boxes: &Boxes, list: &[u32], region: &Bounds) -> Tree {
    if let Some((kind, bytes)) = lean(boxes, list, region) {
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

/// A column of a lean leaf.
#[derive(Clone, Copy)]
struct Lanes {
    window: u8,
    lo: [u16; RULES_MAX],
    hi: [u16; RULES_MAX],
}

/// The columns of a lean leaf, on the stack: live tables make one for each change.
struct Lean {
    columns: [Lanes; COLUMNS_MAX],
    sorts: [Sort; COLUMNS_MAX],
    count: usize,
    rules: usize,
}

impl Lean {
    /// Adds a column; `None`: there are too many.
    fn push(&mut self, window: u8, range: impl Fn(usize) -> (u32, u32)) -> Option<()> {
        let lanes = self.columns.get_mut(self.count)?;
        lanes.window = window;
        for rule in 0..self.rules {
            let (lo, hi) = range(rule);
            (lanes.lo[rule], lanes.hi[rule]) = (lo as u16, hi as u16);
        }
        self.sorts[self.count] = lanes.sort(self.rules);
        self.count += 1;
        Some(())
    }

    /// Columns of a sort, in their order: guards, ranges, single values.
    fn of(&self, sort: Sort) -> impl Iterator<Item = &Lanes> {
        let columns = self.columns[..self.count].iter().zip(&self.sorts);
        columns.filter(move |(_, is)| **is == sort).map(|(column, _)| column)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    Guard,
    Range,
    Exact,
}

impl Lanes {
    fn sort(&self, rules: usize) -> Sort {
        let (lo, hi) = (&self.lo[..rules], &self.hi[..rules]);
        if lo.iter().all(|x| *x == lo[0]) && hi.iter().all(|x| *x == hi[0]) {
            Sort::Guard
        } else if lo == hi {
            Sort::Exact
        } else {
            Sort::Range
        }
    }
}

/// The lean leaf of a list, and its kind, when there is one: what `classifier`'s `leaf::encode` makes of the same
/// columns, without a list for each.
pub(crate) fn lean(boxes: &Boxes, list: &[u32], region: &Bounds) -> Option<(Kind, Vec<u8>)> {
    let rules = list.len();
    if !(1..=RULES_MAX).contains(&rules) {
        return None;
    }
    let none = Lanes { window: 0, lo: [0; RULES_MAX], hi: [0; RULES_MAX] };
    let mut lean = Lean { columns: [none; COLUMNS_MAX], sorts: [Sort::Exact; COLUMNS_MAX], count: 0, rules };
    let mut ranges = [(0, 0); RULES_MAX];
    for (axis, &within) in region.iter().enumerate() {
        let ranges = &mut ranges[..rules];
        let mut is_free = true;
        for (range, &i) in ranges.iter_mut().zip(list) {
            let interval = boxes.interval(i, axis);
            is_free &= covers(interval, within);
            *range = clip(interval, within);
        }
        if is_free {
            continue;
        }
        let Axis { offset, is_wide, .. } = boxes.axes[axis];
        let differs = within.0 ^ within.1;
        let aligned = |shift: u32| ranges.iter().all(|&r| is_aligned(r, within, shift));
        let window = |shift: u32| offset + (shift / 8) as u8;
        let part = |shift: u32| move |r: (u32, u32)| (r.0 >> shift & 0xffff, r.1 >> shift & 0xffff);
        if !is_wide || differs <= 0xffff {
            lean.push(window(0), |i| part(0)(ranges[i]))?;
        } else if aligned(16) {
            lean.push(window(16), |i| part(16)(ranges[i]))?;
        } else if differs <= 0xff_ffff && aligned(8) {
            lean.push(window(8), |i| part(8)(ranges[i]))?;
        } else if ranges.iter().all(|&r| is_aligned(r, within, 16) || r.0 >> 16 == r.1 >> 16) {
            lean.push(window(16), |i| part(16)(ranges[i]))?;
            let lower = |r: (u32, u32)| if is_aligned(r, within, 16) { (0, 0xffff) } else { part(0)(r) };
            lean.push(window(0), |i| lower(ranges[i]))?;
        } else {
            return None;
        }
    }
    let count = |sort| lean.sorts[..lean.count].iter().filter(|is| **is == sort).count();
    let layout = Layout {
        form: Form::New,
        rules,
        guards: count(Sort::Guard),
        ranges: count(Sort::Range),
        exact: count(Sort::Exact),
        is_long: lean.count > SHORT_COLUMNS_MAX,
    };
    if !layout.is_sound() {
        return None;
    }
    let mut out = vec![0; layout.bytes()];
    let header = layout.header();
    out[..header.len()].copy_from_slice(&header);
    let windows = [Sort::Guard, Sort::Range, Sort::Exact].into_iter().flat_map(|s| lean.of(s));
    out[header.len()..].iter_mut().zip(windows).for_each(|(byte, column)| *byte = column.window);
    let places = out[layout.positions_at()..].as_chunks_mut::<4>().0;
    places.iter_mut().zip(list).for_each(|(place, &i)| *place = boxes.position(i).to_le_bytes());
    let mut places = out[layout.spans_at()..].as_chunks_mut::<2>().0.iter_mut();
    let mut put = |x: u16| {
        if let Some(place) = places.next() {
            *place = x.to_le_bytes();
        }
    };
    let mut put_span = |(lo, hi): (&u16, &u16)| put(hi - lo);
    lean.of(Sort::Guard).for_each(|c| put_span((&c.lo[0], &c.hi[0])));
    lean.of(Sort::Range).for_each(|c| c.lo[..rules].iter().zip(&c.hi).for_each(&mut put_span));
    lean.of(Sort::Guard).for_each(|c| put(c.lo[0]));
    let columns = lean.of(Sort::Range).chain(lean.of(Sort::Exact));
    columns.for_each(|c| c.lo[..rules].iter().for_each(|&x| put(x)));
    let kind = if layout.lanes() <= VECTOR_LANES { Kind::Lean } else { Kind::Lean2 };
    Some((kind, out))
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

#[cfg(test)]
mod tests {
    use super::*;
    use hipac_classifier::forest::leaf;
    use proptest::prelude::*;

    /// Values from the edges of windows, and a region around them.
    fn interval(max: u32) -> impl Strategy<Value = (u32, u32)> {
        let edge = prop_oneof![
            Just(0),
            Just(1),
            Just(0xff),
            Just(0x100),
            Just(0xffff),
            Just(0x1_0000),
            Just(0x1_ffff),
            Just(0x2_0000),
            Just(0xff_ffff),
            Just(0x100_0000),
            Just(0x0a00_0000),
            Just(0x0aff_ffff),
            any::<u32>(),
        ];
        (edge.clone(), edge).prop_map(move |(a, b)| ((a & max).min(b & max), (a & max).max(b & max)))
    }

    /// Intervals, one an axis.
    type Sides = Vec<(u32, u32)>;

    fn sides() -> impl Strategy<Value = (Vec<bool>, Vec<Sides>, Sides)> {
        (1..14usize).prop_flat_map(|axes| {
            prop::collection::vec(any::<bool>(), axes).prop_flat_map(|wide| {
                let max = |w: bool| if w { u32::MAX } else { 0xffff };
                let bounds: Vec<_> = wide.iter().map(|&w| interval(max(w))).collect();
                let region: Vec<_> = wide.iter().map(|&w| interval(max(w))).collect();
                (Just(wide), prop::collection::vec(bounds, 1..10), region)
            })
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn leaves_are_what_their_definition_says((wide, all, region) in sides()) {
            let mut offset = 0;
            let axes = wide.iter().map(|&is_wide| {
                let axis = Axis { offset, is_wide, max: if is_wide { u32::MAX } else { 0xffff } };
                offset += if is_wide { 4 } else { 2 };
                axis
            });
            let mut boxes = Boxes::new(axes.collect());
            // Only boxes that meet the region come to its leaf.
            let meets = |b: &&Vec<(u32, u32)>| b.iter().zip(&region).all(|(b, r)| b.0 <= r.1 && r.0 <= b.1);
            for (i, b) in all.iter().filter(meets).enumerate() {
                boxes.push(b, i as u32 * 3, u32::MAX);
            }
            let list: Vec<u32> = (0..boxes.len() as u32).collect();
            let slow = (!list.is_empty() && list.len() <= RULES_MAX)
                .then(|| leaf::encode(&positions(&boxes, &list), &columns(&boxes, &list, &region)))
                .flatten();
            prop_assert_eq!(lean(&boxes, &list, &region).map(|(_, bytes)| bytes), slow);
        }
    }
}
