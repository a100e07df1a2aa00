//! What was measured, as text and as JSON.

use std::io::Write;

use hipac_classifier::image::Facts;
use serde::Serialize;

use super::check::Checked;
use super::{Build, Plan};
use crate::args::Format;
use crate::exit::Failure;
use crate::measure::{BATCH, Latency, PASSES, Rates, Spread};
use crate::output::{self, bytes, grouped};
use crate::traffic::Trace;

pub(super) struct Report {
    pub(super) schema: &'static str,
    pub(super) entry: String,
    pub(super) machine: &'static str,
    pub(super) rules: usize,
    pub(super) facts: Facts,
    pub(super) image_bytes: usize,
    pub(super) structure_bytes: usize,
    pub(super) build: Option<Build>,
    pub(super) open_s: Spread,
    pub(super) audit_s: f64,
    pub(super) trace: TraceFacts,
    pub(super) checked: Checked,
    pub(super) measured: Measured,
    pub(super) updates: Option<super::updates::Report>,
}

/// The figures that a clock gave.
pub(super) struct Measured {
    pub(super) rates: Rates,
    pub(super) latency: Latency,
    pub(super) evaluate: Spread,
    /// Threads, and the millions of lookups that they do together in a second.
    pub(super) threads: Option<(usize, Spread)>,
}

#[derive(Serialize)]
pub(super) struct TraceFacts {
    /// `corners`, `inside`, `random`, or the file.
    traffic: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    packets: usize,
    /// As many as there was time for.
    walked: usize,
    repeats_left_out: usize,
    broken_left_out: usize,
}

impl TraceFacts {
    pub(super) fn of(trace: &Trace, plan: &Plan<'_>, walked: usize) -> TraceFacts {
        let (traffic, seed) = match plan.trace {
            Some(path) => (path.display().to_string(), None),
            None => (format!("{:?}", plan.drawn.traffic).to_lowercase(), Some(plan.drawn.seed)),
        };
        TraceFacts {
            traffic,
            seed,
            packets: trace.keys.len(),
            walked,
            repeats_left_out: trace.repeats,
            broken_left_out: trace.broken,
        }
    }

    fn text(&self) -> String {
        let mut text = format!("{} packets ({}", grouped(self.packets), self.traffic);
        if let Some(seed) = self.seed {
            text += &format!(", seed {seed}");
        }
        for (count, why) in [
            (self.repeats_left_out, "repeats of the one before"),
            (self.broken_left_out, "with a transport header cut off"),
        ] {
            if count > 0 {
                text += &format!("; left out: {} {why}", grouped(count));
            }
        }
        if self.walked < self.packets {
            text += &format!("; slow: the first {} are measured", grouped(self.walked));
        }
        text + ")"
    }
}

/// The JSON object: flat, so that `jq .single_ns` does what it says.
#[derive(Serialize)]
struct Line<'a> {
    schema: &'a str,
    entry: &'a str,
    machine: &'a str,
    rules: usize,
    build_s: Option<f64>,
    build_s_range: Option<[f64; 2]>,
    build_wall_s: Option<f64>,
    /// By shape, the fastest first.
    regions: Option<[usize; 4]>,
    open_s: f64,
    audit_s: f64,
    image_bytes: usize,
    structure_bytes: usize,
    bytes_per_rule: f64,
    copies_per_rule: f64,
    nodes: usize,
    leaves: usize,
    depth: u32,
    nodes_per_lookup: f64,
    leaves_per_lookup: f64,
    single_ns: f64,
    single_ns_range: [f64; 2],
    dependent_ns: f64,
    dependent_ns_range: [f64; 2],
    batch_ns: f64,
    batch_ns_range: [f64; 2],
    batch_keys: usize,
    stream_ns: f64,
    stream_ns_range: [f64; 2],
    evaluate_ns: f64,
    evaluate_ns_range: [f64; 2],
    passes: usize,
    latency: &'a Latency,
    #[serde(skip_serializing_if = "Option::is_none")]
    threads: Option<Threads>,
    #[serde(flatten)]
    updates: Option<super::updates::Line>,
    trace: &'a TraceFacts,
    checked: CheckedLine,
}

#[derive(Serialize)]
struct Threads {
    count: usize,
    million_lookups_per_s: f64,
    million_lookups_per_s_range: [f64; 2],
}

#[derive(Serialize)]
struct CheckedLine {
    keys: usize,
    keys_differing: usize,
    linear: usize,
    linear_differing: usize,
}

impl Report {
    pub(super) fn print(&self, format: Format) -> Result<(), Failure> {
        let mut out = output::stdout();
        match format {
            Format::Json => output::json_line(&mut out, &self.line())?,
            Format::Text => self.text(&mut out)?,
        }
        out.flush()?;
        Ok(())
    }

    fn per_rule(&self, count: usize) -> f64 {
        count as f64 / self.rules.max(1) as f64
    }

    fn line(&self) -> Line<'_> {
        let Rates { single, dependent, batch, stream } = self.measured.rates;
        let build = self.build.as_ref();
        let threads = self.measured.threads.map(|(count, rate)| Threads {
            count,
            million_lookups_per_s: rate.median,
            million_lookups_per_s_range: rate.range(),
        });
        let checked = CheckedLine {
            keys: self.checked.keys,
            keys_differing: self.checked.keys_differing,
            linear: self.checked.linear,
            linear_differing: self.checked.linear_differing,
        };
        Line {
            schema: self.schema,
            entry: &self.entry,
            machine: self.machine,
            rules: self.rules,
            build_s: build.map(|b| b.cpu_s.median),
            build_s_range: build.map(|b| b.cpu_s.range()),
            build_wall_s: build.map(|b| b.wall_s.median),
            regions: build.map(|b| b.cost.regions),
            open_s: self.open_s.median,
            audit_s: self.audit_s,
            image_bytes: self.image_bytes,
            structure_bytes: self.structure_bytes,
            bytes_per_rule: self.per_rule(self.structure_bytes),
            copies_per_rule: self.per_rule(self.facts.entries),
            nodes: self.facts.nodes,
            leaves: self.facts.leaves,
            depth: self.facts.depth,
            nodes_per_lookup: self.checked.visited.nodes,
            leaves_per_lookup: self.checked.visited.leaves,
            single_ns: single.median,
            single_ns_range: single.range(),
            dependent_ns: dependent.median,
            dependent_ns_range: dependent.range(),
            batch_ns: batch.median,
            batch_ns_range: batch.range(),
            batch_keys: BATCH,
            stream_ns: stream.median,
            stream_ns_range: stream.range(),
            evaluate_ns: self.measured.evaluate.median,
            evaluate_ns_range: self.measured.evaluate.range(),
            passes: PASSES,
            latency: &self.measured.latency,
            threads,
            updates: self.updates.as_ref().map(|updates| updates.line()),
            trace: &self.trace,
            checked,
        }
    }

    fn text(&self, out: &mut impl Write) -> Result<(), Failure> {
        writeln!(out, "{}: {}", self.entry, self.trace.text())?;
        self.text_of_image(out)?;
        self.text_of_lookups(out)?;
        if let Some(updates) = &self.updates {
            updates.text(out)?;
        }
        self.text_of_checks(out)
    }

    fn text_of_image(&self, out: &mut impl Write) -> Result<(), Failure> {
        let mut row = |what: &str, value: String, note: String| {
            writeln!(out, "  {what:<12}{value:>14}   {note}").map_err(Failure::from)
        };
        row("rules", grouped(self.rules), String::new())?;
        if let Some(Build { cost, cpu_s, wall_s }) = &self.build {
            let degraded = match cost.regions_shrunk() {
                0 => String::new(),
                shrunk => format!(", {} built smaller to fit --memory", output::counted(shrunk, "region")),
            };
            let note =
                format!("{:.3} – {:.3}; {:.3} on the wall{degraded}", cpu_s.min, cpu_s.max, wall_s.median);
            row("build", format!("{:.3} s", cpu_s.median), note)?;
        }
        let audit = format!("checks its header; the audit of every byte {:.1} ms", self.audit_s * 1e3);
        row("open", format!("{:.2} µs", self.open_s.median * 1e6), audit)?;
        row("image", bytes(self.image_bytes), "everything a lookup and its answer need".to_owned())?;
        let copies = format!(
            "{:.1} bytes and {:.2} copies a rule",
            self.per_rule(self.structure_bytes),
            self.per_rule(self.facts.entries)
        );
        row("structure", bytes(self.structure_bytes), copies)?;
        let visited = format!(
            "a lookup visits {:.2} nodes and {:.2} leaves",
            self.checked.visited.nodes, self.checked.visited.leaves
        );
        row("forest", format!("{} nodes", grouped(self.facts.nodes)), visited)
    }

    fn text_of_lookups(&self, out: &mut impl Write) -> Result<(), Failure> {
        let Measured { rates, latency, evaluate, threads } = &self.measured;
        let rows = [
            ("single", rates.single, "each key known at once"),
            ("dependent", rates.dependent, "the next key chosen by the last answer"),
            ("batch", rates.batch, "256 keys a call"),
            ("stream", rates.stream, "reading the keys only"),
            ("evaluate", *evaluate, "packet to verdict: key, every lookup, every rule on the way"),
        ];
        const _: () = assert!(BATCH == 256);
        let rows = rows.map(|(kind, spread, note)| {
            let Spread { median, min, max } = spread;
            vec![
                kind.to_owned(),
                format!("{median:.1}"),
                format!("{min:.1} – {max:.1}"),
                format!("{:.1}", 1e3 / median.max(1e-3)),
                note.to_owned(),
            ]
        });
        let header = ["lookup", "ns", "min – max", "M/s", ""];
        write!(out, "\n{}", output::table_with_notes(&header, &rows))?;
        writeln!(out, "({}, processor time of one thread, medians of {PASSES} passes)", self.machine)?;
        let Latency { p50_ns, p99_ns, p999_ns, timer_ns, samples } = latency;
        writeln!(
            out,
            "one by one: p50 {p50_ns:.0} ns, p99 {p99_ns:.0} ns, p99.9 {p999_ns:.0} ns \
             ({} lookups; the clock's own {timer_ns:.0} ns taken off)",
            grouped(*samples)
        )?;
        if let Some((count, rate)) = threads {
            let Spread { median, min, max } = rate;
            writeln!(
                out,
                "{count} threads: {median:.1} M lookups/s together in batches ({min:.1} – {max:.1}, on the wall)"
            )?;
        }
        Ok(())
    }

    fn text_of_checks(&self, out: &mut impl Write) -> Result<(), Failure> {
        let Checked { keys, keys_differing, linear, linear_differing, .. } = &self.checked;
        let against = match linear {
            0 => "not held against rules: an image has none".to_owned(),
            _ => format!("{} packets held against a walk of the rules", grouped(*linear)),
        };
        writeln!(out, "checked: {} keys three ways, {against}", grouped(*keys))?;
        if !self.checked.is_clean() {
            writeln!(
                out,
                "WRONG ANSWERS: {} keys and {} packets differ: see hipac verify",
                grouped(*keys_differing),
                grouped(*linear_differing)
            )?;
        }
        Ok(())
    }
}
