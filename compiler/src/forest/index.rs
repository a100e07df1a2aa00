//! Which trees a root has, and which bits of the key choose their cells.
//!
//! One table over some bits of a field serves rules that are narrow in that field; a rule that
//! is wide in it would be copied into most cells. So rules are split: those narrow in field A,
//! those narrow in field B only, and those wide in both. Which fields, and which bits of them,
//! is decided by cost: nodes visited below a cell, and for each doubling of the bytes what that
//! means for the caches. Rules that stand together in a few networks are told apart by lower bits than the
//! first ones.

use hipac_classifier::forest::root::{Bits, INDEX_BITS_MAX};
use rayon::prelude::*;

use super::boxes::{Axis, Boxes};

/// A tree with less than one in so many of the boxes joins the last one.
const TREE_SHARE_MIN: usize = 50;

/// Some bits of an axis: `count` of them below bit `top`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Half {
    pub(crate) axis: usize,
    top: u32,
    pub(crate) count: u32,
}

impl Half {
    pub(crate) const NONE: Half = Half { axis: 0, top: 0, count: 0 };

    /// Values of the half within an interval of the axis: first and how many; they wrap around.
    fn values(&self, interval: (u32, u32)) -> (u32, u32) {
        let cells = 1u32 << self.count;
        if self.count == 0 {
            return (0, 1);
        }
        let shift = self.top - self.count;
        let (lo, hi) = (interval.0 >> shift, interval.1 >> shift);
        let many = (hi - lo).saturating_add(1).min(cells);
        (if many == cells { 0 } else { lo & (cells - 1) }, many)
    }

    /// The bits in a key.
    pub(crate) fn bits(&self, axes: &[Axis]) -> Bits {
        if self.count == 0 {
            return Bits::default();
        }
        let axis = axes[self.axis];
        let low = self.top - self.count;
        let byte = if axis.is_wide { (low / 8).min(2) } else { 0 };
        let mask = ((1u32 << self.count) - 1) as u16;
        Bits { window: axis.offset + byte as u8, shift: (low - 8 * byte) as u8, mask }
    }

    /// The half can be read from one window.
    fn fits(&self, axes: &[Axis]) -> bool {
        u32::from(self.bits(axes).shift) + self.count <= 16
    }

    /// The region of one value, when the bits are the topmost ones.
    pub(crate) fn narrow(&self, axes: &[Axis], value: u32, region: &mut (u32, u32)) {
        let shift = self.top - self.count;
        if self.count > 0 && self.top == bits_of(&axes[self.axis]) {
            let last = (((u64::from(value) + 1) << shift) - 1).min(u64::from(axes[self.axis].max));
            *region = (value << shift, last as u32);
        }
    }
}

/// Bits that values of an axis take.
fn bits_of(axis: &Axis) -> u32 {
    32 - axis.max.leading_zeros()
}

/// The bits that choose a cell.
pub(crate) type Index = [Half; 2];

/// The boxes of each tree, and its index.
pub(crate) type Trees = Vec<(Vec<u32>, Index)>;

/// The boxes as lists for trees, the largest first, the widest rules last, each with its index.
pub(crate) fn split(boxes: &Boxes, all: Vec<u32>, cells_max: usize, memory_price: f64) -> Trees {
    let best_index =
        |list: &[u32], fields: &[Field]| best_index(boxes, list, fields, cells_max, memory_price);
    let axes: Vec<Field> = (0..boxes.axes.len()).map(|a| Field::of(boxes, a, &all)).collect();
    let most = |list: &[u32], but: Option<usize>| {
        let others = axes.iter().filter(|f| Some(f.axis) != but).map(|f| (f.use_for(boxes, list), f.axis));
        let best = others.max_by(|x, y| x.0.total_cmp(&y.0).then(y.1.cmp(&x.1)));
        best.filter(|(bits, _)| *bits > 0.0).map(|(_, axis)| axis)
    };
    let enough = |list: &[u32]| list.len() * TREE_SHARE_MIN > all.len();
    let Some(a) = most(&all, None) else { return vec![(all, [Half::NONE; 2])] };
    let (in_a, not_a): (Vec<u32>, Vec<u32>) = all.iter().partition(|&&i| axes[a].is_narrow(boxes, i));
    let Some(b) = most(&not_a, Some(a)).filter(|_| !not_a.is_empty()) else {
        let index = best_index(&all, &axes).0;
        return vec![(all, index)];
    };
    let (in_b, mut wide): (Vec<u32>, Vec<u32>) =
        not_a.into_iter().partition(|&i| axes[b].is_narrow(boxes, i));
    let (in_both, only_a): (Vec<u32>, Vec<u32>) = in_a.iter().partition(|&&i| axes[b].is_narrow(boxes, i));
    let with_both = merged(&in_both, &in_b);
    // Rules narrow in both fields go where they cost less.
    let lists = [in_a, in_b, only_a, with_both];
    let indices: Vec<Option<(Index, f64)>> =
        lists.par_iter().map(|list| enough(list).then(|| best_index(list, &axes))).collect();
    let mut ways = lists.into_iter().zip(indices);
    let mut best: Option<(f64, Trees)> = None;
    for _ in 0..2 {
        let mut trees = Vec::new();
        let mut cost = 0.0;
        let mut rest = Vec::new();
        for (list, index) in ways.by_ref().take(2) {
            match index {
                Some((index, price)) => {
                    cost += price * list.len() as f64;
                    trees.push((list, index));
                }
                None => {
                    cost += 2.0 * list.len() as f64;
                    rest = merged(&rest, &list);
                }
            }
        }
        trees.sort_by_key(|(list, _)| std::cmp::Reverse(list.len()));
        // What is in no tree yet is a last list without an index.
        trees.push((rest, [Half::NONE; 2]));
        if best.as_ref().is_none_or(|(c, _)| cost < *c) {
            best = Some((cost, trees));
        }
    }
    let Some((_, mut trees)) = best else { return vec![(all, [Half::NONE; 2])] };
    if let Some((rest, _)) = trees.pop() {
        wide = merged(&wide, &rest);
    }
    if !wide.is_empty() {
        let (index, _) = best_index(&wide, &axes);
        trees.push((wide, index));
    }
    trees
}

/// Two rising lists as one.
fn merged(a: &[u32], b: &[u32]) -> Vec<u32> {
    let mut all = [a, b].concat();
    all.sort_unstable();
    all
}

/// What is known of an axis as a field to index by.
struct Field {
    axis: usize,
    /// Bits above are the same in every box that is narrow at all.
    top: u32,
    /// Largest interval of a narrow box, less one.
    narrow: u32,
}

impl Field {
    fn of(boxes: &Boxes, axis: usize, all: &[u32]) -> Field {
        let bits = bits_of(&boxes.axes[axis]);
        let max = boxes.axes[axis].max;
        let mut differ = 0;
        let mut first = None;
        for &i in all {
            let (lo, hi) = boxes.interval(i, axis);
            if hi - lo < max / 2 {
                let first = *first.get_or_insert(lo);
                differ |= (lo ^ first) | (hi ^ first);
            }
        }
        let top = (32 - differ.leading_zeros()).clamp(1, bits);
        // One in 4096 of what differs, at least 8 values: 2^20 IPv4 addresses.
        let narrow = if top > 12 { (1u32 << (top - 12)) - 1 } else { 0 };
        Field { axis, top, narrow }
    }

    fn is_narrow(&self, boxes: &Boxes, i: u32) -> bool {
        let (lo, hi) = boxes.interval(i, self.axis);
        hi - lo <= self.narrow
    }

    /// Bits that an index by this field tells a list's boxes apart by: how many of them are
    /// narrow, times the logarithm of how many different places they have.
    fn use_for(&self, boxes: &Boxes, list: &[u32]) -> f64 {
        let stride = list.len().div_ceil(4096).max(1);
        let narrow = list.iter().step_by(stride).filter(|&&i| self.is_narrow(boxes, i));
        let mut places: Vec<u32> = narrow.map(|&i| boxes.interval(i, self.axis).0).collect();
        let count = places.len();
        places.sort_unstable();
        places.dedup();
        count as f64 / list.len().div_ceil(stride).max(1) as f64 * (places.len() as f64).max(1.0).log2()
    }

    /// `count` bits, the topmost that differ or `down` below them; `None` when there are not so
    /// many.
    fn half(&self, count: u32, down: u32) -> Option<Half> {
        let top = self.top.checked_sub(down)?;
        (count <= top).then_some(Half { axis: self.axis, top, count })
    }
}

/// Boxes looked at when indices by two fields are compared.
const SAMPLE: usize = 16_384;

/// Boxes looked at to find out which of these are worth it.
const FEW: usize = 1024;

/// Indices of one size that are.
const FINALISTS: usize = 4;

/// How far below the topmost bits that differ an index may begin.
const DOWN: [u32; 4] = [0, 6, 12, 18];

/// An index that costs less than this is good enough: no pairs are tried.
const GOOD: f64 = 0.25;

/// The index that costs a list least, and its cost a box.
fn best_index(
    boxes: &Boxes,
    list: &[u32],
    fields: &[Field],
    cells_max: usize,
    memory_price: f64,
) -> (Index, f64) {
    let judge = Judge { boxes, list, memory_price };
    // A tree of few rules in a large entry gets a table for few.
    let bits_max = INDEX_BITS_MAX.min(cells_max.min(4 * list.len()).max(1).ilog2());
    let mut by_use: Vec<(f64, &Field)> = fields.iter().map(|f| (f.use_for(boxes, list), f)).collect();
    by_use.sort_by(|x, y| y.0.total_cmp(&x.0).then(x.1.axis.cmp(&y.1.axis)));
    let used: Vec<&Field> = by_use.iter().filter(|u| u.0 > 0.0).take(3).map(|u| u.1).collect();

    // One field, by all boxes; for each remember how far down it is best.
    let ways: Vec<(usize, u32)> = (0..used.len()).flat_map(|i| DOWN.map(|down| (i, down))).collect();
    let singles: Vec<Option<(Index, f64)>> =
        ways.par_iter().map(|&(i, down)| judge.best_single(used[i], down, bits_max)).collect();
    let mut best = ([Half::NONE; 2], judge.price(0, list.len() as f64, 1.0, 1.0, &[Half::NONE; 2]));
    best.1 += (list.len() as f64 / 8.0).max(1.0).log2();
    let mut downs = vec![(0, f64::INFINITY); used.len()];
    for (&(i, down), single) in ways.iter().zip(singles) {
        let Some((index, cost)) = single else { continue };
        if cost < downs[i].1 {
            downs[i] = (down, cost);
        }
        if cost < best.1 {
            best = (index, cost);
        }
    }
    if best.1 < GOOD {
        return best;
    }
    let mut pairs: Vec<Index> = Vec::new();
    for i in 0..used.len() {
        for j in i + 1..used.len() {
            let downs = [downs[i].0, downs[j].0];
            let mut ways = vec![(0, 0), (downs[0], downs[1]), (downs[0], 0), (0, downs[1])];
            ways.sort_unstable();
            ways.dedup();
            for (down_a, down_b) in ways {
                for total in [bits_max, bits_max.saturating_sub(2)] {
                    pairs.extend(
                        (1..total).step_by(2).filter_map(|x| {
                            Some([used[i].half(x, down_a)?, used[j].half(total - x, down_b)?])
                        }),
                    );
                }
            }
        }
    }
    let Some((pair, cost)) = judge.best_pair(pairs) else { return best };
    // What samples say is compared with what samples say.
    let single = judge.costs(vec![best.0], SAMPLE);
    if cost < single[0].1 { (pair, best.1 + cost - single[0].1) } else { best }
}

/// Judges indices for a list.
struct Judge<'a> {
    boxes: &'a Boxes,
    list: &'a [u32],
    /// Visits that a doubling of the bytes must save.
    memory_price: f64,
}

impl Judge<'_> {
    /// The best index by one field, from so far down, of up to `bits_max` bits and not many less, and
    /// its cost. Boxes that begin and end in each of the finest cells say how many boxes these
    /// have, and, summed up by pairs, coarser ones.
    fn best_single(&self, field: &Field, down: u32, bits_max: u32) -> Option<(Index, f64)> {
        let finest = field.half(bits_max.min(field.top.checked_sub(down)?), down)?;
        if finest.count == 0 {
            return None;
        }
        let mut cells = 1usize << finest.count;
        let (mut begins, mut ends) = (vec![0u32; cells], vec![0u32; cells]);
        for &i in self.list {
            let (first, many) = finest.values(self.boxes.interval(i, field.axis));
            let last = (first + many - 1) as usize;
            begins[first as usize] += 1;
            if last >= cells {
                // It wraps around.
                ends[cells - 1] += 1;
                begins[0] += 1;
            }
            ends[last & (cells - 1)] += 1;
        }
        let mut best: Option<(Index, f64)> = None;
        for count in (bits_max.saturating_sub(6).max(1)..=finest.count).rev() {
            let half = Half { count, ..finest };
            if half.fits(&self.boxes.axes) {
                let index = [half, Half::NONE];
                let cost = self.cost_of_cells(&begins, &ends, &index);
                if best.is_none_or(|(_, least)| cost < least) {
                    best = Some((index, cost));
                }
            }
            cells /= 2;
            for sums in [&mut begins, &mut ends] {
                for cell in 0..cells {
                    sums[cell] = sums[2 * cell] + sums[2 * cell + 1];
                }
                sums.truncate(cells);
            }
        }
        best
    }

    /// The cost of an index whose cells so many boxes begin and end in.
    fn cost_of_cells(&self, begins: &[u32], ends: &[u32], index: &Index) -> f64 {
        let (mut copies, mut leaves, mut here) = (0u64, 0u32, 0u32);
        let mut visits = 0.0;
        for (begin, end) in begins.iter().zip(ends) {
            here += begin;
            copies += u64::from(here);
            leaves += u32::from(here > 0);
            if here > 8 {
                visits += f64::from(here) * (f64::from(here) / 8.0).log2();
            }
            here -= end;
        }
        if copies > (8 * self.list.len() + begins.len()) as u64 {
            return f64::INFINITY;
        }
        let copies = copies as f64;
        visits / copies + self.price(begins.len(), copies, f64::from(leaves), 1.0, index)
    }

    /// The best of indices by two fields and what it costs, by samples.
    fn best_pair(&self, pairs: Vec<Index>) -> Option<(Index, f64)> {
        let fits = |index: &Index| index.iter().all(|h| h.fits(&self.boxes.axes));
        let pairs: Vec<Index> = pairs.into_iter().filter(fits).collect();
        let mut ranked = self.costs(pairs, FEW);
        ranked.sort_by(|x, y| x.1.total_cmp(&y.1));
        if self.list.len() > FEW {
            // Few boxes are no judges of larger tables against smaller ones.
            let bits = |index: &Index| index[0].count + index[1].count;
            let mut taken = [0; INDEX_BITS_MAX as usize + 1];
            ranked.retain(|(index, _)| {
                taken[bits(index) as usize] += 1;
                taken[bits(index) as usize] <= FINALISTS
            });
            ranked = self.costs(ranked.into_iter().map(|(index, _)| index).collect(), SAMPLE);
        }
        ranked.into_iter().min_by(|x, y| x.1.total_cmp(&y.1))
    }

    /// Each with its cost by so many boxes.
    fn costs(&self, candidates: Vec<Index>, boxes: usize) -> Vec<(Index, f64)> {
        let stride = self.list.len().div_ceil(boxes.max(self.list.len() / 16)).max(1);
        let sample: Vec<u32> = self.list.iter().copied().step_by(stride).collect();
        let all = candidates
            .into_par_iter()
            .map_init(Scratch::default, |scratch, index| (index, self.cost(&index, &sample, scratch)));
        all.collect()
    }

    /// Nodes visited below a cell, and the price of the bytes.
    fn cost(&self, index: &Index, sample: &[u32], scratch: &mut Scratch) -> f64 {
        let (boxes, scale) = (self.boxes, self.list.len() as f64 / sample.len() as f64);
        let cells = 1usize << (index[0].count + index[1].count);
        let Scratch { counts, met } = scratch;
        let met_max = 8 * sample.len() + cells;
        counts.resize(counts.len().max(cells), 0);
        met.resize(met.len().max(met_max), 0);
        let mut copies = 0;
        let mut is_too_much = false;
        for &i in sample {
            if copies + cells_of(boxes, i, index) > met_max {
                is_too_much = true;
                break;
            }
            each_cell(boxes, i, index, |cell| {
                counts[cell] += 1;
                met[copies] = cell as u32;
                copies += 1;
            });
        }
        let met = &met[..copies];
        if is_too_much {
            met.iter().for_each(|&cell| counts[cell as usize] = 0);
            return f64::INFINITY;
        }
        // A cell with one box of the sample has one box, and its share of the others.
        let full = |c: u32| 1.0 + f64::from(c - 1) * scale;
        // Cells are come to by the boxes in them, the last of which leaves none.
        let (mut visits, mut leaves) = (0.0, 0.0);
        for &cell in met {
            let count = std::mem::take(&mut counts[cell as usize]);
            if count == 1 {
                leaves += scale.max(1.0);
            } else if count > 1 {
                visits += f64::from(count) * (full(count) / 8.0).max(1.0).log2();
                leaves += (f64::from(count) * scale / full(count)).max(1.0);
            }
        }
        let copies = copies as f64;
        visits / copies + self.price(cells, copies, leaves, scale, index)
    }

    /// The price of the bytes of an index: so many cells, copies (of which each stands for `scale`) and leaves.
    fn price(&self, cells: usize, copies: f64, leaves: f64, scale: f64, index: &Index) -> f64 {
        // A leaf takes 20 bytes besides its rules, a rule 16, and bits that are not the topmost
        // ones have to be compared in the leaf again.
        let again = index.iter().filter(|h| h.count > 0 && h.top < bits_of(&self.boxes.axes[h.axis])).count();
        let bytes = 8.0 * cells as f64 + 20.0 * leaves + (16.0 + 2.0 * again as f64) * copies * scale;
        (bytes / (18.0 * self.list.len() as f64)).log2() * self.memory_price
    }
}

/// Memory that costs are counted in, used again and again.
#[derive(Default)]
struct Scratch {
    /// Boxes by cell; all zero between two counts.
    counts: Vec<u32>,
    /// Cells that boxes are in.
    met: Vec<u32>,
}

pub(crate) fn cells_of(boxes: &Boxes, i: u32, index: &Index) -> usize {
    index.iter().map(|h| h.values(boxes.interval(i, h.axis)).1 as usize).product()
}

/// Calls `f` with each cell that a box meets.
#[inline]
pub(crate) fn each_cell(boxes: &Boxes, i: u32, index: &Index, mut f: impl FnMut(usize)) {
    let [(first_a, many_a), (first_b, many_b)] = index.map(|h| h.values(boxes.interval(i, h.axis)));
    let (mask_a, mask_b) = ((1u32 << index[0].count) - 1, (1u32 << index[1].count) - 1);
    for a in 0..many_a {
        let row = ((first_a + a) & mask_a) << index[1].count;
        for b in 0..many_b {
            f((row | (first_b + b) & mask_b) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: Axis = Axis { offset: 0, is_wide: true, max: u32::MAX };

    #[test]
    fn values_of_a_half_wrap_around() {
        let half = Half { axis: 0, top: 16, count: 4 };
        assert_eq!(half.values((0x1234_f000, 0x1235_1fff)), (15, 3));
        assert_eq!(half.values((0x1234_f000, 0x1235_efff)), (0, 16));
        assert_eq!(half.values((0, u32::MAX)), (0, 16));
        assert_eq!(half.values((0x5000, 0x5000)), (5, 1));
    }

    #[test]
    fn a_half_reads_its_bits_from_one_window() {
        let axes = [ADDRESS, Axis { offset: 4, is_wide: false, max: 0xffff }];
        let key = |address: u32, port: u16| {
            let mut key = hipac_classifier::Key::ZERO;
            key.0[..4].copy_from_slice(&address.to_le_bytes());
            key.0[4..6].copy_from_slice(&port.to_le_bytes());
            key
        };
        for top in 1..=32 {
            for count in 1..=top.min(16) {
                let half = Half { axis: 0, top, count };
                if half.fits(&axes) {
                    let wanted = (0xdead_beef_u32 >> (top - count)) & ((1u64 << count) - 1) as u32;
                    assert_eq!(half.bits(&axes).of(&key(0xdead_beef, 0)), wanted, "{half:?}");
                }
            }
        }
        let half = Half { axis: 1, top: 16, count: 5 };
        assert_eq!(half.bits(&axes).of(&key(0, 0xabcd)), 0xabcd >> 11);
    }
}
