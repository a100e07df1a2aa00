//! Gates' filters: which five bits of a key tell best that a cell holds nothing for it.

use hipac_classifier::Key;
use hipac_classifier::forest::root::{Bits, FILTER_ALL, fold};

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
        let values = 1u32 << self.count;
        let all = ((1u64 << values) - 1) as u32;
        let (lo, hi) = (interval.0 >> self.shift, interval.1 >> self.shift);
        if self.count == 0 {
            return 1;
        }
        if hi - lo >= values - 1 {
            return all;
        }
        (lo..=hi).fold(0, |bits, v| bits | 1 << (v & (values - 1)))
    }
}

/// The filter of a tree: five bits of a key, from one or two fields.
#[derive(Debug, Clone)]
pub(crate) struct Filter {
    halves: [Half; 2],
    bits: [Bits; 2],
}

/// Keys that candidates are judged by.
const KEYS: usize = 384;

/// Rules of a cell that are looked at for each key.
const RULES: usize = 16;

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
        let [a, b] = self.halves.map(|h| h.values(boxes.interval(i, h.axis)));
        let mut bits = 0;
        for x in (0..1 << self.halves[0].count).filter(|x| a >> x & 1 != 0) {
            for y in (0..1 << self.halves[1].count).filter(|y| b >> y & 1 != 0) {
                bits |= 1 << fold(x << self.halves[1].count | y);
            }
        }
        bits & FILTER_ALL
    }

    /// The filter that turns away most keys that match nothing in their cell.
    pub(crate) fn choose<'c>(boxes: &Boxes, list: &[u32], cell_of: impl Fn(&Key) -> &'c [u32]) -> Filter {
        // Keys that find rules in their cell, none of which holds them.
        let misses: Vec<(Key, &[u32])> = sample_keys(boxes, list)
            .filter_map(|(point, key)| {
                let rules = cell_of(&key);
                let rules = &rules[..rules.len().min(RULES)];
                let holds =
                    |&i: &u32| boxes.bounds(i).iter().zip(&point).all(|(b, x)| b.0 <= *x && *x <= b.1);
                (!rules.is_empty() && !rules.iter().any(holds)).then_some((key, rules))
            })
            .take(KEYS)
            .collect();
        let judge = |halves: [Half; 2]| {
            let filter = Filter::new(&boxes.axes, halves);
            let passes = misses.iter().filter(|(key, rules)| {
                let value = filter.bits[0].of(key) << filter.bits[1].count() | filter.bits[1].of(key);
                let bit = 1 << fold(value);
                rules.iter().any(|&i| filter.bits_of_box(boxes, i) & bit != 0)
            });
            passes.count()
        };
        // Halves of two and three bits are judged alone first; only the best are paired.
        let mut best = ([Half::NONE; 2], misses.len());
        let mut alone: Vec<(usize, Half)> = Vec::new();
        for axis in 0..boxes.axes.len() {
            for shift in shifts(&boxes.axes[axis]) {
                let passes = judge([Half { axis, shift, count: 5 }, Half::NONE]);
                if passes < best.1 {
                    best = ([Half { axis, shift, count: 5 }, Half::NONE], passes);
                }
                alone.push((passes, Half { axis, shift, count: 0 }));
            }
        }
        alone.sort_by_key(|(passes, half)| (*passes, half.axis, half.shift));
        alone.truncate(8);
        for (_, a) in &alone {
            for (_, b) in alone.iter().filter(|(_, b)| b.axis != a.axis) {
                let halves = [Half { count: 3, ..*a }, Half { count: 2, ..*b }];
                let passes = judge(halves);
                if passes < best.1 {
                    best = (halves, passes);
                }
            }
        }
        Filter::new(&boxes.axes, best.0)
    }
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

/// Points on the bounds of boxes: fields of one box, or of a different one each.
fn sample_keys<'b>(boxes: &'b Boxes, list: &'b [u32]) -> impl Iterator<Item = (Vec<u32>, Key)> + 'b {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |n: usize| {
        // A fixed sequence: same boxes, same filter.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) as usize) % n.max(1)
    };
    let all = boxes.len();
    (0..8 * KEYS).filter(move |_| !list.is_empty()).map(move |k| {
        let one = random(all) as u32;
        let point: Vec<u32> = (0..boxes.axes.len())
            .map(|axis| {
                let i = if k % 4 == 0 { random(all) as u32 } else { one };
                let (lo, hi) = boxes.interval(i, axis);
                match random(4) {
                    0 => lo,
                    1 => hi,
                    _ => lo + (random(usize::MAX >> 1) as u64 % (u64::from(hi - lo) + 1)) as u32,
                }
            })
            .collect();
        let mut key = Key::ZERO;
        for (axis, x) in boxes.axes.iter().zip(&point) {
            let bytes = if axis.is_wide { 4 } else { 2 };
            key.0[usize::from(axis.offset)..][..bytes].copy_from_slice(&x.to_le_bytes()[..bytes]);
        }
        (point, key)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
