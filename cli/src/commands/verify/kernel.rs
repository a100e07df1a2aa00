//! `hipac verify --kernel`: the rules in a real kernel, beside the oracle and an image.

use std::io::Write;

use hipac_classifier::Image;
use hipac_verifier::kernel::{self, Report};
use hipac_verifier::{ImageSubject, Oracle, Subject, packet_text};
use serde::Serialize;

use super::Plan;
use crate::args::{Format, InputFormat, RulesFile};
use crate::commands::compile;
use crate::exit::{Exit, Failure};
use crate::{input, output, progress};

pub(super) fn run(of: &RulesFile, plan: &Plan<'_>, format: Format) -> Result<Exit, Failure> {
    let rules = input::rules(of)?;
    rules.accept(false)?;
    if of.input_format == InputFormat::Classbench {
        let why = "--kernel wants iptables rules: no match of the kernel's tests ports of any protocol";
        return Err(Failure::at(&rules.name, why));
    }
    let oracle = Oracle::new(&rules.ruleset).map_err(|e| Failure::at(&rules.name, e))?;
    let compiled = hipac_compiler::compile(&rules.ruleset, &plan.options);
    let compiled = compiled.map_err(|e| compile::failure(&rules.name, &e))?;
    let image = Image::open(compiled.image).map_err(|e| Failure::at(&rules.name, e))?;
    let subject = ImageSubject::new(image, &rules.ruleset).map_err(|e| Failure::at(&rules.name, e))?;
    // An image that leaves out what only counts is not the same event for event.
    let subject: Option<&dyn Subject> = match plan.options.counting {
        hipac_compiler::Counting::Exact => Some(&subject),
        hipac_compiler::Counting::Deciding => None,
    };
    let defaults = kernel::Options::default();
    let options =
        kernel::Options { packets: plan.packets.unwrap_or(defaults.packets), seed: plan.seed, ..defaults };
    let bar = progress::bar(options.packets, "asking the kernel");
    let report = kernel::check(&rules.text, &oracle, subject, &options, &|packets| bar.set_position(packets));
    bar.finish_and_clear();
    let report = report.map_err(|e| Failure::at(&rules.name, e))?;
    let mut out = output::stdout();
    match format {
        Format::Json => output::json_line(&mut out, &Line::of(&report))?,
        Format::Text => text_of(&mut out, &report)?,
    }
    out.flush()?;
    Ok(if report.is_agreement() { Exit::Clean } else { Exit::Findings })
}

fn text_of(out: &mut impl Write, report: &Report) -> Result<(), Failure> {
    let count = |n: u64| output::grouped(usize::try_from(n).unwrap_or(usize::MAX));
    let counted = |n: u64, noun| output::counted(usize::try_from(n).unwrap_or(usize::MAX), noun);
    let rows: Vec<Vec<String>> = report
        .chains
        .iter()
        .map(|(&(table, hook), chain)| {
            let name = format!("{}/{}", table.name(), hook.name());
            vec![name, count(chain.packets), count(chain.hang), count(chain.differing)]
        })
        .collect();
    if !rows.is_empty() {
        let header = ["chain", "packets compared", "hang on residual matches", "differ"];
        writeln!(out, "{}", output::table(&header, &rows))?;
    }
    for (cause, &packets) in &report.causes {
        writeln!(
            out,
            "dropped by the stack, no rule asked: {} ({})",
            counted(packets, "packet"),
            cause.name()
        )?;
    }
    if report.packets_unread > 0 {
        writeln!(
            out,
            "not compared: {} (extension headers cut short)",
            counted(report.packets_unread, "packet")
        )?;
    }
    for words in &report.not_driven {
        writeln!(out, "not driven: {words}")?;
    }
    if report.packets < report.packets_all {
        writeln!(out, "ended after {}: the time is over", counted(report.packets, "packet"))?;
    }
    let verdict = match report.differing {
        0 => "the kernel agrees".to_owned(),
        n => counted(n, "difference"),
    };
    writeln!(
        out,
        "{verdict}: {}, {} at chains, {} of {} rules matched, {} packets/s",
        counted(report.packets, "packet"),
        counted(report.compared(), "comparison"),
        output::grouped(report.rules_matched),
        output::grouped(report.rules),
        output::grouped(report.packets_per_second() as usize),
    )?;
    for difference in &report.differences {
        writeln!(out, "\n{difference}")?;
    }
    Ok(())
}

#[derive(Serialize)]
struct Line {
    schema: &'static str,
    packets: u64,
    packets_asked: u64,
    comparisons: u64,
    hanging: u64,
    differing: u64,
    unread: u64,
    rules: usize,
    rules_matched: usize,
    seconds: f64,
    chains: Vec<ChainLine>,
    /// Packets that the stack dropped, by cause.
    causes: Vec<CauseLine>,
    not_driven: Vec<String>,
    differences: Vec<DifferenceLine>,
}

#[derive(Serialize)]
struct ChainLine {
    table: &'static str,
    chain: &'static str,
    packets: u64,
    hanging: u64,
    differing: u64,
}

#[derive(Serialize)]
struct CauseLine {
    cause: &'static str,
    packets: u64,
}

#[derive(Serialize)]
struct DifferenceLine {
    table: &'static str,
    chain: &'static str,
    what: String,
    packet: String,
    bytes: String,
    kernel: Vec<String>,
    ours: Vec<String>,
}

impl Line {
    fn of(report: &Report) -> Line {
        let chains = report.chains.iter().map(|(&(table, hook), chain)| ChainLine {
            table: table.name(),
            chain: hook.name(),
            packets: chain.packets,
            hanging: chain.hang,
            differing: chain.differing,
        });
        let differences = report.differences.iter().map(|d| DifferenceLine {
            table: d.table.name(),
            chain: d.hook.name(),
            what: d.what.clone(),
            packet: packet_text::show(&d.packet).to_string(),
            bytes: d.bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
            kernel: d.kernel.clone(),
            ours: d.ours.clone(),
        });
        Line {
            schema: "hipac.kernel/1",
            packets: report.packets,
            packets_asked: report.packets_all,
            comparisons: report.compared(),
            hanging: report.hanging(),
            differing: report.differing,
            unread: report.packets_unread,
            rules: report.rules,
            rules_matched: report.rules_matched,
            seconds: report.time.as_secs_f64(),
            chains: chains.collect(),
            causes: report
                .causes
                .iter()
                .map(|(cause, &packets)| CauseLine { cause: cause.name(), packets })
                .collect(),
            not_driven: report.not_driven.clone(),
            differences: differences.collect(),
        }
    }
}
