//! Two clocks: what a thread has computed, and what has passed.

use rustix::time::{ClockId, clock_gettime};

/// Seconds of processor time of this thread. Unlike the time on the wall it stands still while
/// other programs have the core. Asking costs some 200 ns: for passes, not for single lookups.
pub(crate) fn cpu_s() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Processor seconds that `work` takes, and what it gives.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let begin = cpu_s();
    let made = work();
    (cpu_s() - begin, made)
}

/// Processor seconds that `work` takes on all threads of this program, and what it gives: for work
/// that is handed out to a pool.
pub(crate) fn timed_on_all_threads<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let now = || {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
    };
    let begin = now();
    let made = work();
    (now() - begin, made)
}
