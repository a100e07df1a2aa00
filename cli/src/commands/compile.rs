//! `hipac compile`: an image, and what it costs.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use hipac_compiler::{CompileError, Compiled, Cost};
use serde::Serialize;

use crate::args::{Build, Format, RulesFile};
use crate::exit::{Exit, Failure};
use crate::output::{self, bytes, counted, grouped, seconds};
use crate::{file, input, progress};

pub(crate) fn run(
    of: &RulesFile,
    target: Option<&Path>,
    build: &Build,
    keep_going: bool,
    format: Format,
) -> Result<Exit, Failure> {
    let rules = input::rules(of)?;
    rules.accept(keep_going)?;
    let input::Rules { name, text: source, ruleset, .. } = rules;
    drop(source); // before memory is needed for other things
    let busy = progress::spinner("compiling");
    let begin = Instant::now();
    let compiled = hipac_compiler::compile(&ruleset, &build.options());
    let time = begin.elapsed().as_secs_f64();
    busy.finish_and_clear();
    let compiled = compiled.map_err(|e| failure(&name, &e))?;
    if let Some(target) = target {
        file::replace(target, &compiled.image)?;
    }
    let mut out = output::stdout();
    match format {
        Format::Json => output::json_line(&mut out, &Report::of(&compiled, time))?,
        Format::Text => {
            text(&mut out, &compiled, time, target)?;
        }
    }
    out.flush()?;
    Ok(Exit::Clean)
}

/// Why rules could not be compiled, with what would help in the words of the command line.
pub(crate) fn failure(name: &str, error: &CompileError) -> Failure {
    match error {
        CompileError::Memory { needed, limit, .. } => {
            let (least, limit) = (bytes(*needed), bytes(*limit));
            let kib = needed.div_ceil(1024);
            Failure::at(
                name,
                format_args!(
                    "the smallest image takes {least}, {limit} are allowed: --memory {kib}K would do"
                ),
            )
        }
        other => Failure::at(name, other),
    }
}

#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    entries: Vec<EntryReport<'a>>,
    total: CostReport,
}

#[derive(Serialize)]
struct EntryReport<'a> {
    entry: &'a str,
    called: bool,
    #[serde(flatten)]
    cost: CostReport,
}

#[derive(Serialize)]
struct CostReport {
    rules: usize,
    flat_rules: usize,
    boxes: usize,
    nodes: usize,
    leaves: usize,
    structure_bytes: usize,
    image_bytes: usize,
    bytes_per_rule: f64,
    depth: u32,
    /// By shape, the fastest first.
    regions: [usize; 4],
    seconds: f64,
}

impl CostReport {
    fn of(cost: &Cost, seconds: f64) -> CostReport {
        CostReport {
            rules: cost.rules,
            flat_rules: cost.flat_rules,
            boxes: cost.boxes,
            nodes: cost.nodes,
            leaves: cost.leaves,
            structure_bytes: cost.structure_bytes,
            image_bytes: cost.image_bytes,
            bytes_per_rule: per_rule(cost),
            depth: cost.depth,
            regions: cost.regions,
            seconds,
        }
    }
}

fn per_rule(cost: &Cost) -> f64 {
    if cost.rules == 0 { 0.0 } else { cost.structure_bytes as f64 / cost.rules as f64 }
}

impl<'a> Report<'a> {
    fn of(compiled: &'a Compiled, seconds: f64) -> Report<'a> {
        let entries = compiled.entries.iter().map(|e| EntryReport {
            entry: &e.name,
            called: e.called,
            cost: CostReport::of(&e.cost, e.seconds),
        });
        Report {
            schema: "hipac.compile/1",
            entries: entries.collect(),
            total: CostReport::of(&compiled.cost, seconds),
        }
    }
}

/// Called chains shown by name; the others are counted.
const CALLED_SHOWN: usize = 8;

fn text(out: &mut impl Write, compiled: &Compiled, time: f64, target: Option<&Path>) -> Result<(), Failure> {
    let header = ["entry", "rules", "flat rules", "nodes", "leaves", "depth", "structure", "time"];
    let row = |name: String, cost: &Cost, time: f64| {
        vec![
            name,
            grouped(cost.rules),
            grouped(cost.flat_rules),
            grouped(cost.nodes),
            grouped(cost.leaves),
            cost.depth.to_string(),
            bytes(cost.structure_bytes),
            seconds(time),
        ]
    };
    let (mut rows, mut called, mut empty) = (Vec::new(), 0, 0);
    for entry in &compiled.entries {
        if entry.called {
            called += 1;
            if called <= CALLED_SHOWN {
                rows.push(row(format!("{} (called)", entry.name), &entry.cost, entry.seconds));
            }
        } else if entry.cost.rules == 0 {
            empty += 1;
        } else {
            rows.push(row(entry.name.clone(), &entry.cost, entry.seconds));
        }
    }
    rows.push(row("all".to_owned(), &compiled.cost, time));
    write!(out, "{}", output::table(&header, &rows))?;
    if called > CALLED_SHOWN {
        writeln!(out, "not shown: {}", counted(called - CALLED_SHOWN, "more called chain"))?;
    }
    if empty > 0 {
        writeln!(out, "not shown: {} without rules", counted(empty, "built-in chain"))?;
    }
    let cost = &compiled.cost;
    let image = match cost.rules {
        0 => bytes(cost.image_bytes),
        _ => format!("{} (structure: {:.1} bytes a rule)", bytes(cost.image_bytes), per_rule(cost)),
    };
    match target {
        Some(target) => writeln!(out, "\nimage {}: {image}", target.display())?,
        None => writeln!(out, "\nimage: {image}, not written: name a file with -o")?,
    }
    if let Some((fastest, now)) = compiled.visits {
        let all: usize = cost.regions.iter().sum();
        let smaller = grouped(all - cost.regions[0]);
        writeln!(
            out,
            "the fastest form did not fit into --memory: {smaller} of {} regions are built smaller;\n\
             a lookup visits about {now:.1} nodes and leaves below its roots, {fastest:.1} in the fastest form",
            grouped(all)
        )?;
        for entry in compiled.entries.iter().filter(|e| e.cost.regions[1..].iter().any(|&n| n > 0)).take(8) {
            let [_, lean, large, lists] = entry.cost.regions.map(grouped);
            writeln!(
                out,
                "  {}: {lean} with fewer copies, {large} with large leaves, {lists} as lists",
                entry.name
            )?;
        }
    }
    Ok(())
}
