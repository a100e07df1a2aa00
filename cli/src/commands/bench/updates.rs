//! `hipac bench --updates`: the same rules as a live table.

use std::io::Write;

use hipac_classifier::live::Reader;
use hipac_compiler::{LiveOptions, LiveTable, Options};
use hipac_rules::{Ruleset, TableKind};
use serde::Serialize;

use crate::args::Drawn;
use crate::exit::Failure;
use crate::measure::updates::{Changed, Measured, Updates};
use crate::measure::{BATCH, Spread, take_turns};
use crate::output::{self, bytes, grouped};
use crate::traffic::Trace;

/// What changes cost, and what is left behind them.
pub(super) struct Report {
    count: usize,
    readers: usize,
    measured: Measured,
    /// Bytes of the structure before, after, and built anew of the same rules.
    structure: [usize; 3],
    /// Nanoseconds a lookup in batches after, and built anew.
    lookup_ns: [f64; 2],
    bookkeeping_per_rule: f64,
    relabelled: u64,
    generations: u64,
}

#[derive(Serialize)]
pub(super) struct Line {
    updates_per_s: f64,
    update_p50_ns: u64,
    update_p99_ns: u64,
    update_max_ns: u64,
    /// In transactions of 1,000.
    changes_per_s: f64,
    same_place: Changed,
    reader_alone_ns: f64,
    reader_beside_another_ns: f64,
    reader_beside_ns: f64,
    /// Of the last to the one before, less 1.
    reader_slowdown: f64,
    reader_alone_p999_ns: u64,
    reader_beside_another_p999_ns: u64,
    reader_beside_p999_ns: u64,
    live_structure_bytes: usize,
    /// After all updates, of what the same rules take built anew.
    memory_ratio: f64,
    lookup_ratio: f64,
    bookkeeping_bytes_per_rule: f64,
    rules_relabelled: u64,
    generations: u64,
}

/// Measures changes of a chain.
pub(super) fn measure(
    ruleset: &Ruleset,
    (table, chain): (TableKind, &str),
    (count, readers): (usize, usize),
    (packets, drawn): (usize, &Drawn),
    options: &Options,
) -> Result<Report, Failure> {
    let options = LiveOptions {
        memory_bytes_max: options.memory_bytes_max,
        counting: options.counting,
        ..LiveOptions::default()
    };
    let live = LiveTable::open(ruleset, &options).map_err(Failure::new)?;
    let other = LiveTable::open(ruleset, &options).map_err(Failure::new)?;
    let before = live.stats().structure_bytes;
    let traffic = (drawn.traffic, drawn.seed);
    let mut reader = live.reader();
    let trace = Trace::draw(ruleset, (table, chain), &reader.pin().key_maker(), packets, traffic);
    let updates =
        Updates { live: &live, other: &other, table, chain: chain.into(), keys: &trace.keys, count, readers };
    let measured = updates.measure().map_err(Failure::new)?;
    let stats = live.stats();
    // The same rules, as they stand now, built anew.
    let fresh = LiveTable::open(&live.ruleset(), &options).map_err(Failure::new)?;
    let mut fresh_reader = fresh.reader();
    let name = format!("{}/{chain}", table.name());
    let blocks = (trace.keys.len() / BATCH).min(1000);
    let walk = |reader: &mut Reader| {
        let mut out = [0; BATCH];
        let mut pinned = reader.pin();
        let Some(entry) = pinned.find_entry(&name) else { return 0 };
        (0..blocks).fold(0u64, |sum, block| {
            pinned.first_match_batch(entry, &trace.keys, block * BATCH..(block + 1) * BATCH, &mut out);
            sum + u64::from(out[0])
        })
    };
    let [after_ns, fresh_ns]: [Spread; 2] =
        take_turns(blocks * BATCH, [&mut || walk(&mut reader), &mut || walk(&mut fresh_reader)]);
    Ok(Report {
        count,
        readers,
        measured,
        structure: [before, stats.structure_bytes, fresh.stats().structure_bytes],
        lookup_ns: [after_ns.median, fresh_ns.median],
        bookkeeping_per_rule: stats.bookkeeping_bytes as f64 / stats.rules.max(1) as f64,
        relabelled: stats.relabelled,
        generations: stats.generations,
    })
}

impl Report {
    fn slowdown(&self) -> f64 {
        self.measured.beside_ns / self.measured.neighbour_ns.max(1e-9) - 1.0
    }

    fn ratios(&self) -> (f64, f64) {
        let [_, after, fresh] = self.structure;
        (after as f64 / fresh.max(1) as f64, self.lookup_ns[0] / self.lookup_ns[1].max(1e-9))
    }

    pub(super) fn line(&self) -> Line {
        let Measured { single, in_transactions_per_s, same_place, .. } = self.measured;
        let (memory_ratio, lookup_ratio) = self.ratios();
        Line {
            updates_per_s: single.per_s,
            update_p50_ns: single.p50_ns,
            update_p99_ns: single.p99_ns,
            update_max_ns: single.max_ns,
            changes_per_s: in_transactions_per_s,
            same_place,
            reader_alone_ns: self.measured.alone_ns,
            reader_beside_another_ns: self.measured.neighbour_ns,
            reader_beside_ns: self.measured.beside_ns,
            reader_slowdown: self.slowdown(),
            reader_alone_p999_ns: self.measured.alone_p999_ns,
            reader_beside_another_p999_ns: self.measured.neighbour_p999_ns,
            reader_beside_p999_ns: self.measured.beside_p999_ns,
            live_structure_bytes: self.structure[1],
            memory_ratio,
            lookup_ratio,
            bookkeeping_bytes_per_rule: self.bookkeeping_per_rule,
            rules_relabelled: self.relabelled,
            generations: self.generations,
        }
    }

    pub(super) fn text(&self, out: &mut impl Write) -> Result<(), Failure> {
        let micro = |ns: u64| format!("{:.1}", ns as f64 / 1e3);
        let row = |what: &str, c: &Changed| {
            let rate = format!("{:.0}", c.per_s / 1e3);
            vec![what.to_owned(), rate, micro(c.p50_ns), micro(c.p99_ns), micro(c.max_ns)]
        };
        let rows = [row("anywhere", &self.measured.single), row("at one place", &self.measured.same_place)];
        let header = ["changes", "thousand/s", "p50 µs", "p99 µs", "max µs"];
        write!(out, "\n{}", output::table(&header, &rows))?;
        let Measured { in_transactions_per_s, alone_ns, neighbour_ns, beside_ns, .. } = self.measured;
        let plural = if self.readers == 1 { "reader" } else { "readers" };
        writeln!(
            out,
            "({} changes, one a transaction, beside {} {plural}; in transactions of 1,000: {:.0} thousand/s)",
            grouped(self.count),
            self.readers,
            in_transactions_per_s / 1e3
        )?;
        writeln!(
            out,
            "a reader: {alone_ns:.1} ns a lookup in batches alone, {neighbour_ns:.1} beside a writer of another table, \
             {beside_ns:.1} beside this one's ({:+.0} %)\n\
             one by one p99.9: {} ns, {} ns, {} ns",
            100.0 * self.slowdown(),
            grouped(self.measured.alone_p999_ns as usize),
            grouped(self.measured.neighbour_p999_ns as usize),
            grouped(self.measured.beside_p999_ns as usize)
        )?;
        let (memory, lookup) = self.ratios();
        writeln!(
            out,
            "afterwards: {} ({memory:.2} × what the same rules take built anew), lookups {lookup:.2} ×; \
             the writer keeps {:.0} bytes a rule",
            bytes(self.structure[1]),
            self.bookkeeping_per_rule
        )?;
        Ok(())
    }
}
