//! Where to cut: the axis, the bounds, and from which span on a box is deferred.
//!
//! A cut is scored by what a lookup behind it is expected to cost, in visits of a leaf's price,
//! plus half the logarithm of the copies it makes: twice the memory must save half a visit.
//! Packets are taken to fall where rules are.

use super::boxes::{Bounds, Boxes, Cuts, Window};
use super::build::Shape;
use hipac_classifier::forest::node::FAN_MAX;

/// A way to cut a region.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cut {
    /// The axis.
    pub axis: usize,
    /// Its window in this region.
    pub window: Window,
    /// The bounds.
    pub cuts: Cuts,
    /// A box that meets more intervals than this is deferred.
    pub span_max: usize,
    /// Expected visits plus the price of copies; less is better.
    pub score: f64,
}

/// Boxes looked at when a cut is chosen: more do not change the choice.
const SAMPLE: usize = 1024;

/// Visits that searching a deferred part costs on top of its own.
const DEFERRED_PRICE: f64 = 2.0;

/// Expected visits below a subtree of `count` rules.
fn visits(count: f64, shape: &Shape) -> f64 {
    let leaf = shape.leaf_rules as f64;
    if count <= 0.0 {
        0.0
    } else if count <= leaf {
        1.0
    } else {
        1.0 + (count / leaf).log2() / 3.0
    }
}

/// All cuts worth a try for these boxes, the best first.
pub(crate) fn candidates(
    boxes: &Boxes,
    list: &[u32],
    region: &Bounds,
    shape: &Shape,
    may_defer: bool,
) -> Vec<Cut> {
    let stride = list.len().div_ceil(SAMPLE);
    let sample: Vec<u32> = list.iter().copied().step_by(stride).collect();
    let scale = list.len() as f64 / sample.len() as f64;
    let fan = (2 * list.len()).div_ceil(shape.leaf_rules).clamp(2, FAN_MAX);
    let mut out = Vec::new();
    let mut ends = Vec::new();
    let mut spans = Vec::new();
    for axis in 0..boxes.axes.len() {
        if region[axis].0 == region[axis].1 {
            continue;
        }
        let window = Window::of(&boxes.axes[axis], region[axis]);
        let Some(cuts) = quantiles(boxes, &sample, region, axis, window, fan, &mut ends) else { continue };
        spans.clear();
        spans.extend(sample.iter().map(|&i| span(boxes.interval(i, axis), region[axis], window, &cuts)));
        let mut tried = 0;
        for span_max in [FAN_MAX, cuts.fan() - 1, cuts.fan() / 2, 1] {
            if tried == span_max || span_max == 0 || (span_max < FAN_MAX && !may_defer) {
                continue;
            }
            tried = span_max;
            if let Some(score) = score(&spans, cuts.fan(), span_max, scale, shape) {
                out.push(Cut { axis, window, cuts, span_max, score });
            }
        }
    }
    out.sort_by(|a, b| a.score.total_cmp(&b.score));
    out
}

/// The intervals that a box meets: first and last.
#[inline]
pub(crate) fn span(interval: (u32, u32), region: (u32, u32), window: Window, cuts: &Cuts) -> (usize, usize) {
    let lo = window.of_value(interval.0.max(region.0));
    let hi = window.of_value(interval.1.min(region.1));
    (cuts.slot(lo), cuts.slot(hi))
}

/// Bounds at quantiles of the boxes' ends; `None` when no box ends inside the region.
fn quantiles(
    boxes: &Boxes,
    sample: &[u32],
    region: &Bounds,
    axis: usize,
    window: Window,
    fan: usize,
    ends: &mut Vec<u16>,
) -> Option<Cuts> {
    let (first, last) = (window.of_value(region[axis].0), window.of_value(region[axis].1));
    ends.clear();
    for &i in sample {
        let (lo, hi) = boxes.interval(i, axis);
        if lo > region[axis].0 {
            let lo = window.of_value(lo);
            if lo > first {
                ends.push(lo - 1);
            }
        }
        if hi < region[axis].1 {
            let hi = window.of_value(hi);
            if hi < last {
                ends.push(hi);
            }
        }
    }
    if ends.is_empty() {
        return None;
    }
    ends.sort_unstable();
    let mut cuts = Cuts::NONE;
    for k in 1..fan {
        let end = ends[(k * ends.len() / fan).min(ends.len() - 1)];
        if cuts.as_slice().last().is_none_or(|&l| l < end) {
            cuts.push(end);
        }
    }
    Some(cuts)
}

/// The score of deferring what meets more than `span_max` intervals; `None` when it is no
/// progress.
fn score(spans: &[(usize, usize)], fan: usize, span_max: usize, scale: f64, shape: &Shape) -> Option<f64> {
    // Differences: +1 where a box begins, −1 behind its end.
    let mut change = [0i32; FAN_MAX + 1];
    let mut deferred = 0u32;
    for &(first, last) in spans {
        if last - first + 1 > span_max {
            deferred += 1;
        } else {
            change[first] += 1;
            change[last + 1] -= 1;
        }
    }
    let n = spans.len() as f64;
    if span_max < FAN_MAX && deferred == 0 {
        return None; // the same as without deferring
    }
    let mut counts = [0f64; FAN_MAX];
    let mut count = 0;
    for slot in 0..fan {
        count += change[slot];
        counts[slot] = f64::from(count);
    }
    let copies: f64 = counts.iter().sum();
    let most = counts.iter().copied().fold(0.0, f64::max);
    if most >= n || f64::from(deferred) >= n || copies == 0.0 {
        return None;
    }
    let stored = (copies + f64::from(deferred)) / n;
    if stored > shape.copies_max {
        return None;
    }
    let mut time: f64 = counts[..fan].iter().map(|&c| c / copies * visits(c * scale, shape)).sum();
    if deferred > 0 {
        time += visits(f64::from(deferred) * scale, shape) + DEFERRED_PRICE;
    }
    Some(time + shape.copy_price * stored.log2())
}
