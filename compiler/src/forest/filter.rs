//! Gates' filters: which five bits of a key tell best that a cell holds nothing for it.

use hipac_classifier::Key;
use hipac_classifier::forest::root::{Bits, FILTER_ALL};

use super::boxes::{Axis, Boxes};

/// Some bits of an axis: `count` of them from bit `shift` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Half {
    axis: usize,
    shift: u32,
    count: u32,
}

impl Half {
    const NONE: Half = Half { axis: 0, shift: 0, count: 0 };

    fn bits(&self, axes: &[Axis]) -> Bits {
        if self.count == 0 {
            return Bits::default();
        }
        let axis = axes[self.axis];
        let byte = if axis.is_wide { (self.shift / 8).min(2) } else { 0 };
        Bits {
            window: axis.offset + byte as u8,
            shift: (self.shift - 8 * byte) as u8,
            mask: ((1u32 << self.count) - 1) as u16,
        }
    }

    /// A bit for each value that the half takes within an interval.
    fn values(&self, interval: (u32, u32)) -> u32 {
        if self.count == 0 {
            return 1;
        }
        let values = 1u32 << self.count;
        let all = ((1u64 << values) - 1) as u32;
        let (lo, hi) = (interval.0 >> self.shift, interval.1 >> self.shift);
        if hi - lo >= values - 1 {
            return all;
        }
        // A run of ones from the first value on; what runs past the last value begins anew.
        let run = ((2u64 << (hi - lo)) - 1) << (lo & (values - 1));
        (run | run >> values) as u32 & all
    }
}

/// The filter of a tree: five bits of a key, from one or two fields.
#[derive(Debug, Clone)]
pub(crate) struct Filter {
    halves: [Half; 2],
    bits: [Bits; 2],
}

/// Keys that candidates are judged by.
const KEYS: usize = 256;

/// Rules of a cell that are looked at for each key: the bits of a `u8`.
const RULES: usize = u8::BITS as usize;

impl Filter {
    fn new(axes: &[Axis], halves: [Half; 2]) -> Filter {
        Filter { halves, bits: halves.map(|h| h.bits(axes)) }
    }

    /// The bits in a key.
    pub(crate) fn bits(&self) -> [Bits; 2] {
        self.bits
    }

    /// The filter bits under which a box may hold a key.
    pub(crate) fn bits_of_box(&self, boxes: &Boxes, i: u32) -> u32 {
        let [mut a, b] = self.halves.map(|h| h.values(boxes.interval(i, h.axis)));
        if self.halves[1].count == 0 {
            return folded(a);
        }
        let mut values = 0;
        while a != 0 {
            values |= b << (a.trailing_zeros() << self.halves[1].count);
            a &= a - 1;
        }
        folded(values)
    }

    /// The filter that turns away most keys that match nothing in their cell.
    pub(crate) fn choose<'c>(boxes: &Boxes, list: &[u32], cell_of: impl Fn(&Key) -> &'c [u32]) -> Filter {
        let misses = Misses::sample(boxes, list, cell_of);
        // Five bits of one field are judged first; then the best fields give three bits, or two,
        // to pairs. A half is judged once: a pair lets a rule through that both halves do.
        let mut best = ([Half::NONE; 2], misses.count());
        let mut alone: Vec<(usize, Half)> = Vec::new();
        for axis in 0..boxes.axes.len() {
            let Some(intervals) = misses.intervals(boxes, axis) else { continue };
            for shift in shifts(&boxes.axes[axis]) {
                let half = Half { axis, shift, count: 5 };
                let passing = misses.passing(&intervals, half, true);
                let passes = passing.iter().filter(|&&rules| rules != 0).count();
                if passes < best.1 {
                    best = ([half, Half::NONE], passes);
                }
                alone.push((passes, half));
            }
        }
        alone.sort_by_key(|(passes, half)| (*passes, half.axis, half.shift));
        alone.truncate(8);
        let pairs = alone.iter().filter_map(|(_, half)| {
            let (three, two) = (Half { count: 3, ..*half }, Half { count: 2, ..*half });
            let intervals = misses.intervals(boxes, half.axis)?;
            let passing = [(three, false), (two, true)].map(|(h, last)| misses.passing(&intervals, h, last));
            Some(([three, two], passing))
        });
        let pairs: Vec<_> = pairs.collect();
        for ([three, _], [passing_three, _]) in &pairs {
            for ([_, two], [_, passing_two]) in
                pairs.iter().filter(|(halves, _)| halves[1].axis != three.axis)
            {
                let both = passing_three.iter().zip(passing_two).filter(|(a, b)| **a & **b != 0);
                let passes = both.count();
                if passes < best.1 {
                    best = ([*three, *two], passes);
                }
            }
        }
        Filter::new(&boxes.axes, best.0)
    }
}

/// Five-bit values, a bit each, as filter bits: what [`fold`] makes of each. Of four values the
/// first two become one.
fn folded(values: u32) -> u32 {
    let threes = (values | values >> 1) & 0x1111_1111 | values >> 1 & 0x6666_6666;
    let sixes = threes & 0x0707_0707 | (threes & 0x7070_7070) >> 1;
    let twelves = sixes & 0x003f_003f | (sixes & 0x3f00_3f00) >> 2;
    (twelves & 0xfff | twelves >> 16 << 12) & FILTER_ALL
}

/// Keys that find rules in their cell, none of which holds them.
struct Misses<'c> {
    /// For each of them its value on every axis.
    points: Vec<u32>,
    /// And the first rules of its cell.
    rules: Vec<&'c [u32]>,
}

impl<'c> Misses<'c> {
    fn sample(boxes: &Boxes, list: &[u32], cell_of: impl Fn(&Key) -> &'c [u32]) -> Misses<'c> {
        let mut misses = Misses { points: Vec::new(), rules: Vec::new() };
        let mut random = random();
        let mut point = vec![0; boxes.axes.len()];
        for k in 0..4 * KEYS {
            if misses.count() == KEYS || list.is_empty() {
                break;
            }
            let key = sample_key(boxes, k, &mut random, &mut point);
            let rules = cell_of(&key);
            let rules = &rules[..rules.len().min(RULES)];
            let holds = |&i: &u32| boxes.bounds(i).iter().zip(&point).all(|(b, x)| b.0 <= *x && *x <= b.1);
            if !rules.is_empty() && !rules.iter().any(holds) {
                misses.points.extend_from_slice(&point);
                misses.rules.push(rules);
            }
        }
        misses
    }

    fn count(&self) -> usize {
        self.rules.len()
    }

    /// The intervals of the keys' rules on an axis; `None` when so few of them are less than all of
    /// it that no filter by this axis turns keys away.
    fn intervals(&self, boxes: &Boxes, axis: usize) -> Option<Vec<Intervals>> {
        let mut all = vec![Intervals { lo: [0; RULES], hi: [0; RULES] }; self.count()];
        let (mut narrow, mut count) = (0, 0);
        for (of_key, rules) in all.iter_mut().zip(&self.rules) {
            count += rules.len();
            for (n, &i) in rules.iter().enumerate() {
                let (lo, hi) = boxes.interval(i, axis);
                (of_key.lo[n], of_key.hi[n]) = (lo, hi);
                narrow += usize::from(hi - lo < boxes.axes[axis].max);
            }
        }
        (8 * narrow > count).then_some(all)
    }

    /// For each key the rules that a half lets through, a bit each. `is_last`: its lowest two bits
    /// are folded.
    fn passing(&self, intervals: &[Intervals], half: Half, is_last: bool) -> Vec<u8> {
        let axes = self.points.len() / self.count().max(1);
        let of_key = |(key, of_key): (usize, &Intervals)| {
            let mut value = self.points[key * axes + half.axis] >> half.shift;
            let (mut shift, mut count) = (half.shift, half.count);
            // The filter takes the first two of four values for the same.
            if is_last && value & 2 == 0 && count > 0 {
                (value, shift, count) = (value >> 1, shift + 1, count - 1);
            }
            let mask = (1u32 << count) - 1;
            // The first value that is the key's but for the bits above, if it is not too far.
            let passes = |n: usize| {
                let (lo, hi) = (of_key.lo[n] >> shift, of_key.hi[n] >> shift);
                value.wrapping_sub(lo) & mask <= hi - lo
            };
            let bits: u8 = (0..RULES).map(|n| u8::from(passes(n)) << n).sum();
            bits & ((1u32 << self.rules[key].len()) - 1) as u8
        };
        intervals.iter().enumerate().map(of_key).collect()
    }
}

/// The intervals of a key's rules on one axis; zeros where there are no more rules.
#[derive(Clone)]
struct Intervals {
    lo: [u32; RULES],
    hi: [u32; RULES],
}

/// Where halves begin on an axis.
fn shifts(axis: &Axis) -> Vec<u32> {
    let bits = 32 - axis.max.leading_zeros();
    if bits <= 5 {
        return vec![0];
    }
    let step = if bits > 16 { 3 } else { 4 };
    let top = bits - 5;
    // Every half lies in one window: shift within it and count stay below 16.
    (0..=top).filter(|s| *s == top || s % step == 0).collect()
}

/// Numbers below what is asked: a fixed sequence, so that the same boxes have the same filter.
fn random() -> impl FnMut(usize) -> usize {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move |n| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) as usize) % n.max(1)
    }
}

/// A point on the bounds of boxes: each value of one box, or of a different one each.
fn sample_key(boxes: &Boxes, k: usize, random: &mut impl FnMut(usize) -> usize, point: &mut [u32]) -> Key {
    let all = boxes.len();
    let one = random(all) as u32;
    let mut key = Key::ZERO;
    for (axis, (of, x)) in boxes.axes.iter().zip(point).enumerate() {
        let i = if k.is_multiple_of(4) { random(all) as u32 } else { one };
        let (lo, hi) = boxes.interval(i, axis);
        *x = match random(4) {
            0 => lo,
            1 => hi,
            _ => lo + (random(usize::MAX >> 1) as u64 % (u64::from(hi - lo) + 1)) as u32,
        };
        let bytes = if of.is_wide { 4 } else { 2 };
        key.0[usize::from(of.offset)..][..bytes].copy_from_slice(&x.to_le_bytes()[..bytes]);
    }
    key
}

#[cfg(test)]
mod tests {
    use hipac_classifier::forest::root::fold;

    use super::*;

    #[test]
    fn sets_of_values_fold_as_values_do() {
        let mut random = random();
        for _ in 0..1000 {
            let values = (random(1 << 16) << 16 | random(1 << 16)) as u32;
            let one_by_one = (0..32).filter(|v| values >> v & 1 != 0).fold(0, |bits, v| bits | 1 << fold(v));
            assert_eq!(folded(values), one_by_one, "{values:x}");
        }
    }

    #[test]
    fn what_halves_let_through_is_what_the_filter_does() {
        let axes = vec![
            Axis { offset: 0, is_wide: true, max: u32::MAX },
            Axis { offset: 4, is_wide: false, max: 0xffff },
        ];
        let mut boxes = Boxes::new(axes.clone());
        let mut random = random();
        for i in 0..200 {
            let (address, port) = (random(1 << 16) as u32, random(1 << 8) as u32);
            let bounds = [(address << 12, address + random(3) as u32), (port, port + random(9) as u32)];
            boxes.push(&bounds.map(|(lo, hi)| (lo, hi.max(lo))), i, i + 1);
        }
        let list: Vec<u32> = (0..200).collect();
        let misses = Misses::sample(&boxes, &list, |_| &list[..RULES]);
        assert!(misses.count() > 100);
        let address = |shift, count| Half { axis: 0, shift, count };
        let port = |shift, count| Half { axis: 1, shift, count };
        let pairs =
            [[address(13, 3), port(2, 2)], [port(0, 3), address(16, 2)], [address(15, 5), Half::NONE]];
        for halves in pairs {
            let filter = Filter::new(&axes, halves);
            let passing = |half: Half, is_last| {
                misses.passing(&misses.intervals(&boxes, half.axis).unwrap(), half, is_last)
            };
            let one = passing(halves[0], halves[1].count == 0);
            let other = passing(halves[1], true);
            for key in 0..misses.count() {
                let mut bytes = Key::ZERO;
                bytes.0[..4].copy_from_slice(&misses.points[2 * key].to_le_bytes());
                bytes.0[4..6].copy_from_slice(&misses.points[2 * key + 1].to_le_bytes()[..2]);
                let bits = filter.bits();
                let bit = 1 << fold(bits[0].of(&bytes) << bits[1].count() | bits[1].of(&bytes));
                for (n, &i) in misses.rules[key].iter().enumerate() {
                    let passes = one[key] & other[key] & 1 << n != 0;
                    assert_eq!(passes, filter.bits_of_box(&boxes, i) & bit != 0, "{halves:?} {key} {i}");
                }
            }
        }
    }

    #[test]
    fn a_box_passes_every_key_that_it_holds() {
        let axes = vec![
            Axis { offset: 0, is_wide: true, max: u32::MAX },
            Axis { offset: 4, is_wide: false, max: 0xffff },
        ];
        let mut boxes = Boxes::new(axes.clone());
        let bounds = [(0x0a00_0000, 0x0a00_12ff), (1000, 1003)];
        boxes.push(&bounds, 0, u32::MAX);
        for (shift, port_shift) in [(0, 0), (8, 3), (11, 11), (27, 6)] {
            for counts in [(5, 0), (3, 2), (0, 5), (2, 3)] {
                let filter = Filter::new(
                    &axes,
                    [
                        Half { axis: 0, shift, count: counts.0 },
                        Half { axis: 1, shift: port_shift, count: counts.1 },
                    ],
                );
                let passes = filter.bits_of_box(&boxes, 0);
                for address in (bounds[0].0..=bounds[0].1).step_by(37) {
                    for port in bounds[1].0..=bounds[1].1 {
                        let mut key = Key::ZERO;
                        key.0[..4].copy_from_slice(&address.to_le_bytes());
                        key.0[4..6].copy_from_slice(&(port as u16).to_le_bytes());
                        let bits = filter.bits();
                        let value = bits[0].of(&key) << bits[1].count() | bits[1].of(&key);
                        assert_ne!(passes & 1 << fold(value), 0, "{filter:?} {address:x} {port}");
                    }
                }
            }
        }
    }
}
