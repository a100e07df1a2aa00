//! `hipac verify`: an image against its rules.

use std::io::Write;
use std::path::Path;

use hipac_classifier::Image;
use hipac_compiler::{Counting, Options};
use hipac_rules::Ruleset;
use hipac_verifier::{Compared, ImageSubject, Oracle, Report, agree};
use serde::Serialize;

use super::compile;
use crate::args::{Format, RulesFile};
use crate::exit::{Exit, Failure};
use crate::{file, input, output, progress};

/// How it is verified.
pub(crate) struct Plan {
    pub(crate) packets: u64,
    pub(crate) seed: u64,
    pub(crate) options: Options,
}

pub(crate) fn run(
    of: &RulesFile,
    image: Option<&Path>,
    plan: &Plan,
    format: Format,
) -> Result<Exit, Failure> {
    let rules = input::rules(of)?;
    // What could be read is verified, whatever else the text holds; check is for its faults.
    rules.report();
    let (image, name) = match image {
        Some(path) => (input::image(path)?, file::name(path)),
        None => {
            let compiled = hipac_compiler::compile(&rules.ruleset, &plan.options);
            let compiled = compiled.map_err(|e| compile::failure(&rules.name, &e))?;
            let image = Image::open(compiled.image).map_err(|e| Failure::at(&rules.name, e))?;
            image.audit().map_err(|e| Failure::at(&rules.name, e))?;
            (image, rules.name.clone())
        }
    };
    let subject = ImageSubject::new(image, &rules.ruleset).map_err(|e| Failure::at(&name, e))?;
    let compared = match plan.options.counting {
        Counting::Exact => Compared::All,
        Counting::Deciding => Compared::Deciding,
    };
    let options = agree::Options { packets: plan.packets, seed: plan.seed, compared, ..Default::default() };
    let report = compare(&rules.ruleset, &subject, &options).map_err(|e| Failure::at(&rules.name, e))?;
    let mut out = output::stdout();
    match format {
        Format::Json => output::json_line(&mut out, &Line::of(&report, &rules.ruleset))?,
        Format::Text => writeln!(out, "{}", report.show(&rules.ruleset))?,
    }
    out.flush()?;
    Ok(if report.is_agreement() { Exit::Clean } else { Exit::Findings })
}

/// Draws packets and compares, with a progress bar.
pub(crate) fn compare(
    ruleset: &Ruleset,
    subject: &ImageSubject<Vec<u8>>,
    options: &agree::Options,
) -> Result<Report, hipac_verifier::OracleError> {
    let oracle = Oracle::new(ruleset)?;
    let bar = progress::bar(options.packets, "verifying");
    let report = agree::check(&oracle, subject, options, &mut |p| bar.set_position(p.packets));
    bar.finish_and_clear();
    Ok(report)
}

#[derive(Serialize)]
struct Line {
    schema: &'static str,
    packets: u64,
    mismatches: u64,
    proved: bool,
    rules: usize,
    rules_matched: usize,
    given_up: u64,
    witnesses: Vec<String>,
}

impl Line {
    fn of(report: &Report, ruleset: &Ruleset) -> Line {
        Line {
            schema: "hipac.verify/1",
            packets: report.packets,
            mismatches: report.differing,
            // Packets are drawn: that is evidence, no proof.
            proved: false,
            rules: report.rules,
            rules_matched: report.rules_matched,
            given_up: report.given_up,
            witnesses: report.mismatches.iter().map(|m| m.show(ruleset).to_string()).collect(),
        }
    }
}
