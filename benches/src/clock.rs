//! Processor time, and walks that take turns.

use std::hint::black_box;

use rustix::time::{ClockId, clock_gettime};

/// Seconds of processor time of this thread.
pub fn cpu_s() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Passes of each walk; odd, so that there is a median.
const PASSES: usize = 5;

/// A pass takes this long at least.
const PASS_S: f64 = 0.02;

/// The median nanoseconds a lookup of each walk over `lookups` lookups. They take turns, so that
/// a machine that slows down slows all of them, and one may be divided by another.
pub fn take_turns(lookups: usize, walks: &mut [Box<dyn FnMut() -> u64 + '_>]) -> Vec<f64> {
    let times: Vec<usize> = walks
        .iter_mut()
        .map(|walk| {
            let begin = cpu_s();
            black_box(walk());
            (PASS_S / (cpu_s() - begin).max(1e-6)).ceil() as usize
        })
        .collect();
    let mut passes = vec![Vec::with_capacity(PASSES); walks.len()];
    for _ in 0..PASSES {
        for ((walk, &times), passes) in walks.iter_mut().zip(&times).zip(&mut passes) {
            let begin = cpu_s();
            for _ in 0..times {
                black_box(walk());
            }
            passes.push((cpu_s() - begin) * 1e9 / (times * lookups.max(1)) as f64);
        }
    }
    let median = |mut passes: Vec<f64>| {
        passes.sort_by(f64::total_cmp);
        passes[PASSES / 2]
    };
    passes.into_iter().map(median).collect()
}
