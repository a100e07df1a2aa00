//! `hipac trace`: the way of packets through tables and chains.

mod why_not;

use std::io::Write;

use hipac_classifier::Packet;
use hipac_rules::{Hook, Residual, Ruleset, TableKind};
use hipac_verifier::explain::{self, Step, Way, kernel, trace, way};
use hipac_verifier::{By, Exact, Oracle, Outcomes, RuleId, Script, packet_text};
use serde::Serialize;

use crate::args::answers::{TraceOptions, WayName};
use crate::args::{Assume, Format, RulesFile};
use crate::exit::{Exit, Failure};
use crate::packets::{Arrived, Source};
use crate::replay::Clock;
use crate::{input, output};

/// Rules passed over one after the other that are shown in full.
const RUN_MAX: usize = 8;

pub(crate) fn run(of: &RulesFile, options: &TraceOptions, format: Format) -> Result<Exit, Failure> {
    let rules = input::rules(of)?;
    rules.report();
    let oracle = Oracle::new(&rules.ruleset).map_err(|e| Failure::at(&rules.name, e))?;
    let packets = packets_of(options, &rules.ruleset)?;
    let mut out = output::stdout();
    if let Some(rule) = &options.why_not {
        for packet in &packets {
            why_not::answer(&mut out, &oracle, options, &packet.packet, rule, format)?;
        }
        out.flush()?;
        return Ok(Exit::Clean);
    }
    let mut clock = Clock::new(&options.replay, &rules.ruleset, &rules.name, &packets)?;
    for (i, arrived) in packets.iter().enumerate() {
        let packet = &arrived.packet;
        let met = match &mut clock {
            None => walk(&oracle, options, packet, &mut script(options).play())?,
            Some(clock) => {
                let arrival = clock.arrival(arrived);
                walk(&oracle, options, packet, &mut Exact::new(&mut clock.state, arrival, script(options)))?
            }
        };
        match format {
            Format::Json => output::json_line(&mut out, &Line::of(packet, &met, &rules.ruleset))?,
            Format::Text if options.kernel => kernel_lines(&mut out, &met, &rules.ruleset)?,
            Format::Text => {
                if i > 0 {
                    writeln!(out)?;
                }
                text(&mut out, packet, &met, &rules.ruleset, options)?;
            }
        }
    }
    out.flush()?;
    Ok(Exit::Clean)
}

fn packets_of(options: &TraceOptions, ruleset: &Ruleset) -> Result<Vec<Arrived>, Failure> {
    let source = Source {
        flags: options.packet.as_deref(),
        trace: options.trace.as_deref(),
        pcap: options.pcap.as_deref(),
    };
    source.read(ruleset.family)
}

/// What a packet met at one built-in chain.
struct Met {
    table: TableKind,
    hook: Hook,
    trace: explain::Trace,
}

fn walk(
    oracle: &Oracle<'_>,
    options: &TraceOptions,
    packet: &Packet,
    outcomes: &mut dyn Outcomes,
) -> Result<Vec<Met>, Failure> {
    let chains = match options.way {
        Some(name) => {
            let way = match name {
                WayName::Forward => Way::Forward,
                WayName::Input => Way::Input,
                WayName::Output => Way::Output,
            };
            let has = |table| oracle.ruleset().table(table).is_some();
            way.chains(packet).into_iter().filter(|&(table, _)| has(table)).collect()
        }
        None => vec![input::built_in_chain(oracle.ruleset(), &options.table, options.chain.as_deref())?],
    };
    let mut met = Vec::new();
    let mut packet = *packet;
    for (table, hook) in chains {
        let trace = trace(oracle, table, hook, &packet, outcomes);
        let goes_on = way::goes_on(&trace.verdict.name);
        packet = trace.packet;
        met.push(Met { table, hook, trace });
        if !goes_on {
            break;
        }
    }
    Ok(met)
}

fn script(options: &TraceOptions) -> Script {
    match options.assume {
        Assume::Hold => Script::AllHold,
        Assume::Fail => Script::NoneHolds,
    }
}

fn text(
    out: &mut impl Write,
    packet: &Packet,
    met: &[Met],
    ruleset: &Ruleset,
    options: &TraceOptions,
) -> Result<(), Failure> {
    let run_max = if options.every { usize::MAX } else { RUN_MAX };
    writeln!(out, "{}", explain::trace::packet_words(packet))?;
    for Met { table, hook, trace } in met {
        if options.way.is_some() {
            writeln!(out, "{}/{}", table.name(), hook.name())?;
        }
        writeln!(out, "{}", trace.show(ruleset, run_max))?;
    }
    if met.is_empty() {
        writeln!(out, "no chain of these rules is on the way")?;
    }
    Ok(())
}

fn kernel_lines(out: &mut impl Write, met: &[Met], ruleset: &Ruleset) -> Result<(), Failure> {
    for Met { table, hook, trace } in met {
        let chain = ruleset.table(*table).and_then(|t| t.chain_index(hook.name())).unwrap_or(0);
        let Some(entry) = RuleId::new(*table, chain, 0) else { continue };
        for line in kernel::lines(trace, ruleset, entry) {
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}

#[derive(Serialize)]
struct Line {
    schema: &'static str,
    packet: String,
    /// How the last chain ended.
    verdict: String,
    chains: Vec<ChainLine>,
}

#[derive(Serialize)]
struct ChainLine {
    table: &'static str,
    chain: &'static str,
    steps: Vec<StepLine>,
    verdict: String,
    /// The rule that gave the verdict; null: the policy.
    decided_by: Option<Place>,
    malformed: bool,
}

#[derive(Serialize)]
struct Place {
    table: &'static str,
    chain: String,
    /// Number in the chain, from 1.
    rule: usize,
    line: u32,
}

#[derive(Serialize)]
struct StepLine {
    /// passed, matched, asked, dropped, chain-end or malformed
    step: &'static str,
    #[serde(flatten)]
    place: Option<Place>,
    /// What failed, what the rule does, what came out.
    text: String,
}

impl Line {
    fn of(packet: &Packet, met: &[Met], ruleset: &Ruleset) -> Line {
        Line {
            schema: "hipac.trace/1",
            packet: packet_text::show(packet).to_string(),
            verdict: met.last().map_or("ACCEPT".to_owned(), |m| m.trace.verdict.name.to_string()),
            chains: met.iter().map(|m| ChainLine::of(m, ruleset)).collect(),
        }
    }
}

impl ChainLine {
    fn of(met: &Met, ruleset: &Ruleset) -> ChainLine {
        let verdict = &met.trace.verdict;
        let decided_by = match verdict.by {
            By::Rule(rule) | By::Malformed(rule) => Some(place(rule, ruleset)),
            By::Policy | By::GivenUp => None,
        };
        ChainLine {
            table: met.table.name(),
            chain: met.hook.name(),
            steps: met.trace.steps.iter().map(|s| step_line(s, ruleset)).collect(),
            verdict: verdict.name.to_string(),
            decided_by,
            malformed: matches!(verdict.by, By::Malformed(_)),
        }
    }
}

fn place(rule: RuleId, ruleset: &Ruleset) -> Place {
    let chain = ruleset.table(rule.table()).and_then(|t| t.chains.get(rule.chain()));
    Place {
        table: rule.table().name(),
        chain: chain.map_or_else(String::new, |c| c.name.to_string()),
        rule: rule.rule() + 1,
        line: rule.of(ruleset).map_or(0, |r| r.line),
    }
}

fn step_line(step: &Step, ruleset: &Ruleset) -> StepLine {
    let at = |rule: &RuleId| Some(place(*rule, ruleset));
    match step {
        Step::Passed { rule, why, .. } => StepLine { step: "passed", place: at(rule), text: why.clone() },
        Step::Matched { rule, does, .. } => {
            StepLine { step: "matched", place: at(rule), text: does.show(*rule, ruleset).to_string() }
        }
        Step::Asked { rule, match_index, kind, held, is_known } => {
            let name = match_name(*rule, *match_index, ruleset);
            let outcome = match (is_known, held) {
                (true, true) => "holds",
                (true, false) => "does not hold",
                (false, true) => "taken to hold",
                (false, false) => "taken not to hold",
            };
            let known = if *kind == Residual::Unknown { ", unknown to hipac" } else { "" };
            StepLine { step: "asked", place: at(rule), text: format!("{name}: {outcome}{known}") }
        }
        Step::ChainEnd { .. } => StepLine {
            step: "chain-end",
            place: None,
            text: step.show(ruleset).to_string().trim().to_owned(),
        },
        Step::Dropped { rule, match_index } => {
            let name = match_name(*rule, *match_index, ruleset);
            StepLine { step: "dropped", place: at(rule), text: format!("{name} drops the packet at once") }
        }
        Step::Malformed { rule } => {
            StepLine { step: "malformed", place: at(rule), text: "transport header cut off".to_owned() }
        }
    }
}

fn match_name(rule: RuleId, match_index: usize, ruleset: &Ruleset) -> &str {
    rule.of(ruleset).and_then(|r| r.matches.get(match_index)).map_or("?", |m| m.name())
}
