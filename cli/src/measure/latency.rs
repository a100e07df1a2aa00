//! How long single lookups take: not the average, but the slowest of a hundred and of a
//! thousand.
//!
//! Each lookup is timed by itself, between two readings of the wall's clock (a thread's own
//! clock is too slow to ask). A reading waits until all loads before it are done, so that what
//! is measured is a lookup's whole latency. The readings cost something themselves: the median
//! of two with nothing between them, which is taken off every figure and stated.

use std::hint::black_box;
use std::time::Instant;

use serde::Serialize;

/// Lookups timed, at most.
const SAMPLES_MAX: usize = 1 << 20;

/// Nanoseconds below which so many of the lookups are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50_ns: f64,
    pub(crate) p99_ns: f64,
    pub(crate) p999_ns: f64,
    /// What the clock costs: taken off the three above.
    pub(crate) timer_ns: f64,
    /// Lookups timed.
    pub(crate) samples: usize,
}

pub(super) fn measure(count: usize, mut lookup: impl FnMut(usize) -> u32) -> Latency {
    let count = count.min(SAMPLES_MAX);
    let mut empty: Vec<u64> = (0..count.clamp(1, 10_000)).map(|_| clocked(|| 0)).collect();
    let timer_ns = quantile(&mut empty, 500) as f64;
    (0..count).for_each(|i| {
        black_box(lookup(i)); // warm, like the passes that the medians come from
    });
    let mut samples: Vec<u64> = (0..count).map(|i| clocked(|| lookup(i))).collect();
    let mut less_timer = |per_mille| (quantile(&mut samples, per_mille) as f64 - timer_ns).max(0.0);
    Latency {
        p50_ns: less_timer(500),
        p99_ns: less_timer(990),
        p999_ns: less_timer(999),
        timer_ns,
        samples: count,
    }
}

#[inline(always)]
fn clocked(work: impl FnOnce() -> u32) -> u64 {
    let begin = Instant::now();
    black_box(work());
    begin.elapsed().as_nanos() as u64
}

/// The value below or at which so many of 1,000 are; 0 when there are none.
pub(super) fn quantile(values: &mut [u64], per_mille: usize) -> u64 {
    if values.is_empty() {
        return 0;
    }
    let at = (values.len() * per_mille).div_ceil(1000).clamp(1, values.len()) - 1;
    *values.select_nth_unstable(at).1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_count_from_below() {
        let mut values: Vec<u64> = (1..=1000).rev().collect();
        assert_eq!([500, 990, 999, 1000].map(|q| quantile(&mut values, q)), [500, 990, 999, 1000]);
        assert_eq!((quantile(&mut [7], 1), quantile(&mut [7], 999), quantile(&mut [], 500)), (7, 7, 0));
    }

    #[test]
    fn slow_lookups_show_in_the_tail() {
        let spin = |rounds: u32| (0..rounds).fold(1u32, |x, i| black_box(x.wrapping_mul(i | 1)));
        let latency = measure(2000, |i| spin(if i % 50 == 0 { 20_000 } else { 10 }));
        assert!(latency.p99_ns > 10.0 * latency.p50_ns.max(1.0), "{latency:?}");
        assert!(latency.p50_ns <= latency.p99_ns && latency.p99_ns <= latency.p999_ns);
    }
}
