//! The commands, one a file.

mod bench;
mod check;
mod classify;
mod compile;
mod demo;
mod diff;
mod fmt;
mod generate;
mod lint;
mod plan;
mod query;
mod registry;
mod test;
mod trace;
mod update;
mod verify;

use std::io::Write;

use clap::CommandFactory;
use hipac_rules::Family;
use hipac_rules::registry::Kind;

use crate::args::{Args, Command, Named};
use crate::exit::{Exit, Failure};
use crate::output;
use crate::packets::Source;

/// Runs the command that was given.
pub(crate) fn run(args: &Args) -> Result<Exit, Failure> {
    let format = args.format;
    match &args.command {
        Command::Check { rules } => check::run(rules, format),
        Command::Fmt { rules, counters, keep_going } => fmt::run(rules, *counters, *keep_going),
        Command::Compile { rules, output, build, keep_going } => {
            compile::run(rules, output.as_deref(), build, *keep_going, format)
        }
        Command::Update { options } => update::run(options, format),
        Command::Classify { rules, packet, trace, pcap, table, chain, assume, replay } => {
            let question = classify::Question {
                source: Source { flags: packet.as_deref(), trace: trace.as_deref(), pcap: pcap.as_deref() },
                table,
                chain: chain.as_deref(),
                assume: *assume,
                replay,
            };
            classify::run(rules, &question, format)
        }
        Command::Verify { rules, image, packets, kernel, seed, certificate, check_certificate, build } => {
            let plan = verify::Plan {
                packets: *packets,
                asks_kernel: *kernel,
                seed: *seed,
                certificate: certificate.as_deref(),
                check: check_certificate.as_deref(),
                options: build.options(),
            };
            verify::run(rules, image.as_deref(), &plan, format)
        }
        Command::Trace { rules, trace } => trace::run(rules, trace, format),
        Command::Diff { options } => diff::run(options, format),
        Command::Lint { rules, options } => lint::run(rules, options, format),
        Command::Query { rules, options } => query::run(rules, options, format),
        Command::Test { rules, policy, junit } => test::run(rules, policy, *junit, format),
        Command::Bench { rules, place, trace, drawn, packets, threads, updates, readers, build } => {
            let plan = bench::Plan {
                place,
                trace: trace.as_deref(),
                drawn,
                packets: *packets as usize,
                threads: threads.map(usize::from),
                updates: updates.map(|count| (count as usize, usize::from(*readers))),
                options: build.options(),
            };
            bench::run(rules, &plan, format)
        }
        Command::Plan { rules, place, drawn, packets, points, output, counting } => {
            let plan = plan::Plan {
                place,
                drawn,
                packets: *packets as usize,
                points: (*points).into(),
                svg: output.as_deref(),
                counting: (*counting).into(),
            };
            plan::run(rules, &plan, format)
        }
        Command::Generate { kind, rules, seed, ipv6, filters } => {
            generate::run(*kind, (*rules, *seed), *ipv6, *filters)
        }
        Command::Matches { of } => registry::run(named(Kind::Match, of), format),
        Command::Targets { of } => registry::run(named(Kind::Target, of), format),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Args::command(), "hipac", &mut script);
            output::stdout().write_all(&script)?;
            Ok(Exit::Clean)
        }
        Command::Demo { seed, rules } => demo::run(*seed, *rules, format),
    }
}

fn named(kind: Kind, of: &Named) -> registry::Question<'_> {
    let family = match (of.ipv4, of.ipv6) {
        (true, _) => Some(Family::V4),
        (_, true) => Some(Family::V6),
        _ => None,
    };
    registry::Question { kind, name: of.name.as_deref(), option: of.option.as_deref(), family }
}
