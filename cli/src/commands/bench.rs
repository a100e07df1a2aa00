//! `hipac bench`: what a build and a lookup cost.

mod check;
mod report;
mod updates;

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use hipac_classifier::forest::lookup::Machine;
use hipac_classifier::image::{EntryRecord, Facts, Section};
use hipac_classifier::{Image, NoHost, Packet};
use hipac_compiler::{Cost, Options};
use hipac_rules::{Family, Ruleset, TableKind};

use crate::args::{Drawn, Format, MachineName, Place, RulesFile};
use crate::exit::{Exit, Failure};
use crate::input::{self, Input, OpenImage};
use crate::measure::{self, Lookups, Spread};
use crate::traffic::Trace;
use crate::{mapped, packets, progress};

/// What is measured, and how.
pub(crate) struct Plan<'a> {
    pub(crate) place: &'a Place,
    pub(crate) trace: Option<&'a Path>,
    pub(crate) drawn: &'a Drawn,
    pub(crate) packets: usize,
    pub(crate) threads: Option<usize>,
    /// Changes of the rules, and readers beside them.
    pub(crate) updates: Option<(usize, usize)>,
    pub(crate) options: Options,
}

/// What was built, and in which time.
struct Built {
    image: OpenImage,
    ruleset: Option<Ruleset>,
    /// Nothing for an image from a file.
    build: Option<Build>,
}

/// A build: its cost, and its seconds of processor and of wall.
struct Build {
    cost: Cost,
    cpu_s: Spread,
    wall_s: Spread,
}

/// Builds until there are so many, or they have taken so long.
const BUILDS_MAX: usize = 5;
const BUILDS_S: f64 = 4.0;

/// Seconds that one walk over the trace may take; of a longer trace only a beginning is walked.
const WALK_S: f64 = 1.0;

pub(crate) fn run(of: &RulesFile, plan: &Plan<'_>, format: Format) -> Result<Exit, Failure> {
    let busy = progress::spinner("building");
    let mut built = built(of, plan)?;
    let (open_s, audit_s, facts) = opening(&built, &of.file)?;
    built.image = with_machine(built.image, plan.drawn.machine)?;
    let image = &built.image;
    let (table, chain, entry) = entry(image, plan.place)?;
    busy.set_message("drawing packets");
    let trace = match plan.trace {
        Some(path) => {
            let family = if image.is_v6() { Family::V6 } else { Family::V4 };
            {
                let arrived = packets::of_trace(path, family)?;
                let packets: Vec<Packet> = arrived.into_iter().map(|a| a.packet).collect();
                Trace::of_packets(&packets, &image.key_maker())
            }
        }
        None => {
            let ruleset = built.ruleset.as_ref().ok_or_else(|| {
                Failure::new("an image has no rules to draw packets from: name a --trace, or its ruleset")
            })?;
            let traffic = (plan.drawn.traffic, plan.drawn.seed);
            Trace::draw(ruleset, (table, &chain), &image.key_maker(), plan.packets, traffic)
        }
    };
    if trace.keys.is_empty() {
        return Err(Failure::new(
            "the trace holds no packet with a whole transport header: nothing to measure",
        ));
    }
    busy.set_message("checking answers");
    let lookups = Lookups::new(image.forest(&entry, true), &trace.keys, WALK_S);
    let checked = check::check(&lookups, image, built.ruleset.as_ref(), (table, &chain), &trace)?;
    busy.set_message("measuring");
    let measured = report::Measured {
        rates: lookups.rates(),
        latency: lookups.latency(),
        evaluate: evaluate(image, (table, &chain), &trace.sample),
        threads: plan.threads.map(|threads| (threads, lookups.threaded_mps(threads))),
    };
    let updates = match (plan.updates, &built.ruleset) {
        (Some(counts), Some(ruleset)) => {
            busy.set_message("changing rules");
            let packets = (plan.packets.min(1 << 18), plan.drawn);
            Some(updates::measure(ruleset, (table, &chain), counts, packets, &plan.options)?)
        }
        (Some(_), None) => return Err(Failure::new("an image has no rules to change: name its ruleset")),
        (None, _) => None,
    };
    busy.finish_and_clear();
    let rules = image.section(Section::Origins).len() / Section::Origins.record_bytes();
    let is_clean = checked.is_clean();
    report::Report {
        schema: "hipac.bench/1",
        entry: format!("{}/{chain}", table.name()),
        machine: image.machine().name(),
        rules,
        facts,
        image_bytes: image.bytes().len(),
        structure_bytes: image.section(Section::Arena).len(),
        build: built.build,
        open_s,
        audit_s,
        trace: report::TraceFacts::of(&trace, plan, lookups.count),
        checked,
        measured,
        updates,
    }
    .print(format)?;
    Ok(if is_clean { Exit::Clean } else { Exit::Findings })
}

/// Opens the image, or builds it several times.
fn built(of: &RulesFile, plan: &Plan<'_>) -> Result<Built, Failure> {
    let rules = match input::rules_or_image(of)? {
        Input::Image(image) => return Ok(Built { image: *image, ruleset: None, build: None }),
        Input::Rules(rules) => rules,
    };
    rules.report();
    let (mut cpu_s, mut wall_s) = (Vec::new(), Vec::new());
    let compiled = loop {
        let begin = Instant::now();
        let compile = || hipac_compiler::compile(&rules.ruleset, &plan.options);
        let (seconds, compiled) = measure::timed_on_all_threads(compile);
        wall_s.push(begin.elapsed().as_secs_f64());
        cpu_s.push(seconds);
        let compiled = compiled.map_err(|e| Failure::at(&rules.name, e))?;
        if wall_s.len() == BUILDS_MAX || wall_s.iter().sum::<f64>() > BUILDS_S {
            break compiled;
        }
    };
    let build = Build { cost: compiled.cost, cpu_s: Spread::of(cpu_s), wall_s: Spread::of(wall_s) };
    let image = Image::open(mapped::Bytes::from(compiled.image)).map_err(|e| Failure::at(&rules.name, e))?;
    Ok(Built { image, ruleset: Some(rules.ruleset), build: Some(build) })
}

/// Seconds to open the image once more and to audit it, and what the audit counted. An image
/// file is mapped anew each time: that is what a program that starts does.
fn opening(built: &Built, path: &Path) -> Result<(Spread, f64, Facts), Failure> {
    let mut opened = Vec::new();
    for _ in 0..101 {
        let begin = Instant::now();
        if built.build.is_none() && path != Path::new("-") {
            black_box(Image::open(mapped::open(path)?).map_err(Failure::new)?);
        } else {
            black_box(Image::open(built.image.bytes()).map_err(Failure::new)?);
        }
        opened.push(begin.elapsed().as_secs_f64());
    }
    let (audit_s, facts) = measure::timed(|| built.image.audit());
    Ok((Spread::of(opened), audit_s, facts.map_err(Failure::new)?))
}

/// The image, looked up by the machine of that name.
pub(super) fn with_machine(image: OpenImage, name: MachineName) -> Result<OpenImage, Failure> {
    let wanted = match name {
        MachineName::Best => return Ok(image),
        MachineName::Scalar => "scalar",
        MachineName::Avx2 => "avx2",
        MachineName::Avx512 => "avx512",
        MachineName::Neon => "neon",
    };
    let all = Machine::available();
    match all.iter().find(|machine| machine.name().eq_ignore_ascii_case(wanted)) {
        Some(&machine) => Ok(image.with_machine(machine)),
        None => {
            let names: Vec<&str> = all.iter().map(|machine| machine.name()).collect();
            Err(Failure::new(format_args!("this processor has no {wanted}: it has {}", names.join(", "))))
        }
    }
}

/// The entry that is meant, with its table and chain: without a chain, the built-in one of the
/// table with the most flat rules.
pub(super) fn entry(image: &OpenImage, place: &Place) -> Result<(TableKind, String, EntryRecord), Failure> {
    let prefix = format!("{}/", place.table);
    let largest = || {
        let built_in = image.entries().filter(|(_, e, name)| !e.called && name.starts_with(&prefix));
        // Of equals the first.
        let (_, _, name) = built_in.reduce(|a, b| if b.1.count > a.1.count { b } else { a })?;
        Some(name[prefix.len()..].to_owned())
    };
    let chain = place.chain.clone().or_else(largest);
    let id = super::classify::find_entry(image, &place.table, chain.as_deref())?;
    let (record, table) = (image.entry(id), TableKind::from_name(&place.table));
    record
        .zip(table)
        .map(|(record, table)| (table, chain.unwrap_or_default(), record))
        .ok_or_else(|| Failure::new("the image is damaged: compile the rules again"))
}

/// Nanoseconds from a packet to its verdict: key, every lookup, every rule on the way. Residual
/// matches hold, at no cost.
fn evaluate(image: &OpenImage, (table, chain): (TableKind, &str), sample: &[Packet]) -> Spread {
    let Some(entry) = image.find_entry(&format!("{}/{chain}", table.name())) else {
        return Spread::of(vec![]);
    };
    let mut walk = || {
        let ends = sample.iter().filter(|packet| {
            let decision = image.evaluate(entry, &mut (**packet).clone(), &mut NoHost);
            black_box(&decision);
            decision.is_ok()
        });
        ends.count() as u64
    };
    let [spread] = measure::take_turns(sample.len(), [&mut walk]);
    spread
}
