//! Measuring lookups so that a figure means something on another day.
//!
//! - **Processor time of the thread**, the median of [`PASSES`] passes with the lowest and the
//!   highest: a neighbour's work does not count, and what noise is left shows.
//! - The kinds of lookup take turns, a pass each, so that a machine that slows down slows all
//!   of them down, and one may be divided by another.
//! - No two consecutive keys of a trace are equal: the second would be free.
//!
//! | kind | what it costs |
//! |---|---|
//! | single | each lookup knows its key at once: the processor overlaps them as far as it can |
//! | dependent | the next key is chosen by the last answer: the whole latency, one after the other |
//! | batch | [`BATCH`] keys a call: misses of the cache overlap by design |
//! | stream | reading the keys and no more: the floor under the other three |

mod clock;
mod latency;
pub(crate) mod updates;

use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;

use hipac_classifier::Keys;
use hipac_classifier::forest::lookup::Forest;
use serde::Serialize;

pub(crate) use clock::{timed, timed_on_all_threads};
pub(crate) use latency::Latency;

/// Passes of each kind. Odd, so that there is a median.
pub(crate) const PASSES: usize = 7;

/// Keys of one call of a batch.
pub(crate) const BATCH: usize = 256;

/// A pass takes this long at least: a short trace is walked several times.
const PASS_S: f64 = 0.02;

/// A median, and the lowest and highest measurement around it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of measurements, at least one.
    pub(crate) fn of(mut values: Vec<f64>) -> Spread {
        values.sort_by(f64::total_cmp);
        let (first, last) = (values.first().copied(), values.last().copied());
        Spread {
            median: values.get(values.len() / 2).copied().unwrap_or(0.0),
            min: first.unwrap_or(0.0),
            max: last.unwrap_or(0.0),
        }
    }

    /// The lowest and the highest.
    pub(crate) fn range(&self) -> [f64; 2] {
        [self.min, self.max]
    }
}

/// What is looked up where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lookups<'a> {
    pub(crate) forest: Forest<'a>,
    keys: &'a Keys,
    /// The first so many keys are walked.
    pub(crate) count: usize,
}

/// Nanoseconds a lookup, by kind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rates {
    pub(crate) single: Spread,
    pub(crate) dependent: Spread,
    pub(crate) batch: Spread,
    pub(crate) stream: Spread,
}

/// Nodes and leaves that the average lookup visits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Visited {
    pub(crate) nodes: f64,
    pub(crate) leaves: f64,
}

impl<'a> Lookups<'a> {
    /// Lookups of as many of the keys as can be walked in about `walk_s` seconds.
    pub(crate) fn new(forest: Forest<'a>, keys: &'a Keys, walk_s: f64) -> Lookups<'a> {
        let few = Lookups { forest, keys, count: keys.len().min(BATCH) };
        let each_s = timed(|| black_box(few.walk_single())).0 / few.count.max(1) as f64;
        let count = (walk_s / each_s.max(1e-9)) as usize;
        Lookups { count: count.clamp(few.count, keys.len()), ..few }
    }

    /// The answers, one lookup after the other.
    pub(crate) fn answers(&self) -> Vec<u32> {
        (0..self.count).map(|i| self.single(i)).collect()
    }

    /// The answers by batches.
    pub(crate) fn batch_answers(&self) -> Vec<u32> {
        let mut out = vec![0; self.count];
        for (i, out) in out.chunks_mut(BATCH).enumerate() {
            let first = i * BATCH;
            self.forest.first_match_batch(self.keys, first..first + out.len(), out);
        }
        out
    }

    /// Keys for which the definition, which is slow and plain, says something else than
    /// `answers`; and what it visits on the way.
    pub(crate) fn compare_with_definition(&self, answers: &[u32]) -> (usize, Visited) {
        let (mut differing, mut nodes, mut leaves) = (0, 0u64, 0u64);
        for (i, answer) in answers.iter().enumerate() {
            let (defined, visits) = self.forest.first_match_counted(self.keys.get(i), 0);
            differing += usize::from(defined != *answer);
            nodes += u64::from(visits.nodes);
            leaves += u64::from(visits.leaves);
        }
        let average = |sum: u64| sum as f64 / answers.len().max(1) as f64;
        (differing, Visited { nodes: average(nodes), leaves: average(leaves) })
    }

    /// All kinds, taking turns.
    pub(crate) fn rates(&self) -> Rates {
        let [single, dependent, batch, stream] = take_turns(
            self.count,
            [
                &mut || self.walk_single(),
                &mut || self.walk_dependent(),
                &mut || self.walk_batch(0),
                &mut || self.walk_stream(),
            ],
        );
        Rates { single, dependent, batch, stream }
    }

    /// The distribution of single lookups.
    pub(crate) fn latency(&self) -> Latency {
        latency::measure(self.count, |i| self.single(i))
    }

    /// Lookups a second, in millions on the wall's clock, of so many threads that share the
    /// image: each walks the whole trace in batches, from a place of its own on.
    pub(crate) fn threaded_mps(&self, threads: usize) -> Spread {
        let walks = walks_for(self.walk_time());
        let passes = (0..PASSES.min(3)).map(|_| {
            let start = Barrier::new(threads + 1);
            let begin = std::thread::scope(|scope| {
                for thread in 0..threads {
                    let first = self.count * thread / threads;
                    let start = &start;
                    scope.spawn(move || {
                        start.wait();
                        for _ in 0..walks {
                            black_box(self.walk_batch(first));
                        }
                    });
                }
                start.wait();
                Instant::now() // the scope ends when the last thread does
            });
            (threads * walks * self.count) as f64 / begin.elapsed().as_secs_f64() / 1e6
        });
        Spread::of(passes.collect())
    }

    fn walk_time(&self) -> f64 {
        timed(|| black_box(self.walk_batch(0))).0
    }

    #[inline(always)]
    fn single(&self, index: usize) -> u32 {
        self.forest.first_match(self.keys.get(index), 0)
    }

    fn walk_single(&self) -> u64 {
        (0..self.count).fold(0, |sum, i| sum + u64::from(self.single(i)))
    }

    /// As many lookups as there are keys, each one or two keys on from the last: which one is
    /// known when its answer is.
    fn walk_dependent(&self) -> u64 {
        let (mut at, mut sum) = (0, 0);
        for _ in 0..self.count {
            let answer = self.single(at);
            sum += u64::from(answer);
            at += 1 + (answer & 1) as usize;
            if at >= self.count {
                at -= self.count;
            }
            at = at.min(self.count - 1);
        }
        sum
    }

    /// From key `first` on to the end, then from the beginning.
    fn walk_batch(&self, first: usize) -> u64 {
        let mut out = [0; BATCH];
        let mut sum = 0;
        for whole in [first..self.count, 0..first] {
            for from in whole.clone().step_by(BATCH) {
                let range = from..(from + BATCH).min(whole.end);
                let out = &mut out[..range.len()];
                self.forest.first_match_batch(self.keys, range, out);
                sum += out.iter().copied().map(u64::from).sum::<u64>();
            }
        }
        sum
    }

    fn walk_stream(&self) -> u64 {
        let bytes = &self.keys.as_bytes()[..self.count * self.keys.stride()];
        let words = bytes.as_chunks::<8>().0;
        words.iter().fold(0, |sum, word| sum ^ u64::from_le_bytes(*word))
    }
}

/// Nanoseconds a lookup of each of several walks over `lookups` lookups, which take turns.
pub(crate) fn take_turns<const KINDS: usize>(
    lookups: usize,
    mut walks: [&mut dyn FnMut() -> u64; KINDS],
) -> [Spread; KINDS] {
    // The first walk warms the caches, and tells how many make a pass.
    let times = walks.each_mut().map(|walk| walks_for(timed(|| black_box(walk())).0));
    let mut measured: [Vec<f64>; KINDS] = std::array::from_fn(|_| Vec::with_capacity(PASSES));
    for _ in 0..PASSES {
        for ((walk, &times), measured) in walks.iter_mut().zip(&times).zip(&mut measured) {
            let (seconds, ()) = timed(|| {
                for _ in 0..times {
                    black_box(walk());
                }
            });
            measured.push(seconds * 1e9 / (times * lookups.max(1)) as f64);
        }
    }
    measured.map(Spread::of)
}

/// Walks that fill a pass, when one takes `seconds`.
fn walks_for(seconds: f64) -> usize {
    (PASS_S / seconds.max(1e-7)).ceil().clamp(1.0, 1e6) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_holds_its_median() {
        let spread = Spread::of(vec![3.0, 1.0, 9.0, 2.0, 5.0]);
        assert_eq!((spread.median, spread.range()), (3.0, [1.0, 9.0]));
    }

    #[test]
    fn more_work_takes_more_time() {
        let work = |rounds: u64| (0..rounds).fold(1u64, |x, i| black_box(x.wrapping_mul(i | 1)));
        let [less, more] = take_turns(1, [&mut || work(20_000), &mut || work(200_000)]);
        assert!(more.median > 3.0 * less.median, "{less:?} {more:?}");
    }
}
