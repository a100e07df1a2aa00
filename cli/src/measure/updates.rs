//! Measuring a live table: what changes cost, and what readers notice of them.
//!
//! One thread changes rules, the others look up in batches, pinned once a batch. The rules that are
//! taken out are put in again elsewhere, so that their number stays. What a reader loses is measured
//! on the clock of its thread, beside a writer that changes another table of the same rules: cores
//! share caches, and often more, so that any busy neighbour costs something. What is left is what
//! the changes themselves cost.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hipac_classifier::Keys;
use hipac_compiler::{LiveError, LiveTable};
use hipac_rules::edit::{Change, Edit};
use hipac_rules::{Name, Rule, TableKind};
use serde::Serialize;

use super::clock::cpu_s;
use super::latency::quantile;
use super::{BATCH, Spread};

/// What is measured: a chain of a live table.
#[derive(Clone)]
pub(crate) struct Updates<'a> {
    pub(crate) live: &'a LiveTable,
    /// The same rules once more: changed in its place where readers are to notice nothing but a busy
    /// neighbour.
    pub(crate) other: &'a LiveTable,
    pub(crate) table: TableKind,
    pub(crate) chain: Name,
    pub(crate) keys: &'a Keys,
    /// Transactions of one change each.
    pub(crate) count: usize,
    pub(crate) readers: usize,
}

/// Changes of one transaction, where they are many.
const MANY: usize = 1000;

/// How long readers are measured alone.
const ALONE: Duration = Duration::from_millis(400);

/// What changes took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Changed {
    pub(crate) per_s: f64,
    pub(crate) p50_ns: u64,
    pub(crate) p99_ns: u64,
    pub(crate) max_ns: u64,
}

/// What a reader did.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Reading {
    lookups: u64,
    cpu_s: f64,
    /// Single lookups, pinned each: 99.9 % are faster.
    p999_ns: u64,
}

/// All figures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Measured {
    pub(crate) single: Changed,
    /// Changes a second in transactions of [`MANY`].
    pub(crate) in_transactions_per_s: f64,
    /// Inserts at one place, deletes there again.
    pub(crate) same_place: Changed,
    /// Nanoseconds a lookup in batches: with nobody else, while another table is changed, while this
    /// one is.
    pub(crate) alone_ns: f64,
    pub(crate) neighbour_ns: f64,
    pub(crate) beside_ns: f64,
    pub(crate) alone_p999_ns: u64,
    pub(crate) neighbour_p999_ns: u64,
    pub(crate) beside_p999_ns: u64,
}

/// A fixed sequence of numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % n.max(1)
    }
}

impl Updates<'_> {
    /// Everything. The table has the same rules behind it, in another order.
    pub(crate) fn measure(&self) -> Result<Measured, LiveError> {
        let ((), alone) = self.beside_readers(|| {
            std::thread::sleep(ALONE);
            Ok(())
        })?;
        let other = Updates { live: self.other, ..self.clone() };
        let (_, neighbour) = self.beside_readers(|| other.single())?;
        let (single, beside) = self.beside_readers(|| self.single())?;
        let (in_transactions_per_s, _) = self.beside_readers(|| self.in_transactions())?;
        let (same_place, _) = self.beside_readers(|| self.same_place())?;
        let ns = |readings: &[Reading]| {
            let each = readings.iter().map(|r| r.cpu_s * 1e9 / r.lookups.max(1) as f64);
            Spread::of(each.collect()).median
        };
        let p999 = |readings: &[Reading]| readings.iter().map(|r| r.p999_ns).max().unwrap_or(0);
        Ok(Measured {
            single,
            in_transactions_per_s,
            same_place,
            alone_ns: ns(&alone),
            neighbour_ns: ns(&neighbour),
            neighbour_p999_ns: p999(&neighbour),
            beside_ns: ns(&beside),
            alone_p999_ns: p999(&alone),
            beside_p999_ns: p999(&beside),
        })
    }

    /// Does work while readers read.
    fn beside_readers<T>(
        &self,
        work: impl FnOnce() -> Result<T, LiveError>,
    ) -> Result<(T, Vec<Reading>), LiveError> {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let readers: Vec<_> = (0..self.readers)
                .map(|number| {
                    let stop = &stop;
                    scope.spawn(move || self.read(number, stop))
                })
                .collect();
            let done = work();
            stop.store(true, Ordering::Relaxed);
            let readings = readers.into_iter().map(|r| r.join().unwrap_or_default()).collect();
            Ok((done?, readings))
        })
    }

    /// Looks up until told to stop.
    fn read(&self, number: usize, stop: &AtomicBool) -> Reading {
        let mut reader = self.live.reader();
        let name = format!("{}/{}", self.table.name(), self.chain);
        let Some(entry) = reader.pin().find_entry(&name) else { return Reading::default() };
        let blocks = self.keys.len() / BATCH;
        if blocks == 0 {
            return Reading::default();
        }
        let mut out = [0; BATCH];
        let mut reading = Reading::default();
        let mut singles = Vec::new();
        let mut block = number * blocks / self.readers.max(1);
        while !stop.load(Ordering::Relaxed) {
            let begin = cpu_s();
            for _ in 0..64 {
                block = (block + 1) % blocks;
                let mut pinned = reader.pin();
                let range = block * BATCH..(block + 1) * BATCH;
                pinned.first_match_batch(entry, self.keys, range, &mut out);
                black_box(&out);
            }
            reading.cpu_s += cpu_s() - begin;
            reading.lookups += 64 * BATCH as u64;
            if singles.len() < 1 << 20 {
                for i in 0..64 {
                    let key = self.keys.get(block * BATCH + i);
                    let begin = Instant::now();
                    black_box(reader.pin().first_match(entry, key, true));
                    singles.push(begin.elapsed().as_nanos() as u64);
                }
            }
        }
        reading.p999_ns = quantile(&mut singles, 999);
        reading
    }

    fn edit(&self, change: Change) -> [Edit; 1] {
        [Edit::new(self.table, change)]
    }

    fn rule(&self, at: usize) -> Option<Arc<Rule>> {
        self.live.rule(self.table, &self.chain, at)
    }

    fn len(&self) -> usize {
        self.live.rule_count(self.table, &self.chain)
    }

    /// One change a transaction, at random places: a rule out, the same rule in elsewhere.
    fn single(&self) -> Result<Changed, LiveError> {
        let mut random = Random(1);
        let len = self.len();
        let mut times = Vec::with_capacity(self.count);
        for _ in 0..self.count / 2 {
            let at = random.below(len);
            let Some(rule) = self.rule(at) else { break };
            let delete = self.edit(Change::Delete { chain: self.chain.clone(), at });
            let to = random.below(len);
            let rules = vec![Rule::clone(&rule)];
            let insert = self.edit(Change::Insert { chain: self.chain.clone(), at: to, rules });
            for edit in [delete, insert] {
                let begin = Instant::now();
                self.live.apply(&edit)?;
                times.push(begin.elapsed().as_nanos() as u64);
            }
        }
        Ok(Changed::of(times))
    }

    /// Changes a second in transactions of many.
    fn in_transactions(&self) -> Result<f64, LiveError> {
        let mut random = Random(2);
        let len = self.len();
        let (mut seconds, mut changes) = (0.0, 0);
        for _ in 0..(self.count / MANY).max(1) {
            let mut edits = Vec::with_capacity(MANY);
            for _ in 0..MANY / 2 {
                let at = random.below(len);
                // Deletes before it have moved it by one or two at most: any rule will do.
                let Some(rule) = self.rule(at) else { break };
                edits.extend(self.edit(Change::Delete { chain: self.chain.clone(), at }));
                let rules = vec![Rule::clone(&rule)];
                let at = random.below(len);
                edits.extend(self.edit(Change::Insert { chain: self.chain.clone(), at, rules }));
            }
            let begin = Instant::now();
            self.live.apply(&edits)?;
            seconds += begin.elapsed().as_secs_f64();
            changes += edits.len();
        }
        Ok(changes as f64 / seconds.max(1e-9))
    }

    /// Inserts at one place, as many as a tenth of the updates, and deletes there.
    fn same_place(&self) -> Result<Changed, LiveError> {
        let at = self.len() / 2;
        let mut times = Vec::new();
        let mut random = Random(3);
        let few = self.count / 20;
        for _ in 0..few {
            let Some(rule) = self.rule(random.below(self.len())) else { break };
            let rules = vec![Rule::clone(&rule)];
            let edit = self.edit(Change::Insert { chain: self.chain.clone(), at, rules });
            let begin = Instant::now();
            self.live.apply(&edit)?;
            times.push(begin.elapsed().as_nanos() as u64);
        }
        for _ in 0..times.len() {
            let edit = self.edit(Change::Delete { chain: self.chain.clone(), at });
            let begin = Instant::now();
            self.live.apply(&edit)?;
            times.push(begin.elapsed().as_nanos() as u64);
        }
        Ok(Changed::of(times))
    }
}

impl Changed {
    fn of(mut times: Vec<u64>) -> Changed {
        let seconds = times.iter().sum::<u64>() as f64 * 1e-9;
        Changed {
            per_s: times.len() as f64 / seconds.max(1e-9),
            p50_ns: quantile(&mut times, 500),
            p99_ns: quantile(&mut times, 990),
            max_ns: quantile(&mut times, 1000),
        }
    }
}
