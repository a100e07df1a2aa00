//! `hipac verify`: an image against its rules: proved for every packet, or compared on drawn ones; and
//! certificates of what was proved.

#[cfg(target_os = "linux")]
mod kernel;

use std::io::Write;
use std::path::Path;

use hipac_classifier::Image;
use hipac_compiler::{Counting, Options};
use hipac_rules::Ruleset;
use hipac_verifier::certificate::{self, Refused};
use hipac_verifier::proof::{self, Proof, Refutation, prove};
use hipac_verifier::{Compared, ImageSubject, Oracle, Report, agree};
use serde::Serialize;

use super::compile;
use crate::args::{Format, RulesFile};
use crate::exit::{Exit, Failure};
use crate::{file, input, output, progress};

/// How it is verified.
pub(crate) struct Plan<'a> {
    /// Compared on so many packets; proved when there is none.
    pub(crate) packets: Option<u64>,
    /// The kernel is asked, and nothing proved.
    pub(crate) asks_kernel: bool,
    pub(crate) seed: u64,
    /// Where a certificate goes.
    pub(crate) certificate: Option<&'a Path>,
    /// A certificate to be checked.
    pub(crate) check: Option<&'a Path>,
    pub(crate) options: Options,
}

pub(crate) fn run(
    of: &RulesFile,
    image: Option<&Path>,
    plan: &Plan<'_>,
    format: Format,
) -> Result<Exit, Failure> {
    if plan.asks_kernel {
        #[cfg(target_os = "linux")]
        return kernel::run(of, plan, format);
        #[cfg(not(target_os = "linux"))]
        return Err(Failure::new("--kernel asks a Linux kernel: there is none here"));
    }
    let rules = input::rules(of)?;
    // What could be read is verified, whatever else the text holds; check is for its faults.
    rules.report();
    let (image, name) = match image {
        Some(path) => (input::image(path)?, file::name(path)),
        None => {
            let compiled = hipac_compiler::compile(&rules.ruleset, &plan.options);
            let compiled = compiled.map_err(|e| compile::failure(&rules.name, &e))?;
            let image = Image::open(compiled.image.into()).map_err(|e| Failure::at(&rules.name, e))?;
            image.audit().map_err(|e| Failure::at(&rules.name, e))?;
            (image, rules.name.clone())
        }
    };
    let compared = match plan.options.counting {
        Counting::Exact => Compared::All,
        Counting::Deciding => Compared::Deciding,
    };
    if let Some(path) = plan.check {
        return checked(&rules, &image, path, format);
    }
    let Some(packets) = plan.packets else {
        let exit = proved(&rules, &image, &name, compared, format)?;
        if let (Some(path), Exit::Clean) = (plan.certificate, exit) {
            write(&rules, &image, compared, path)?;
        }
        return Ok(exit);
    };
    let subject = ImageSubject::new(image, &rules.ruleset).map_err(|e| Failure::at(&name, e))?;
    let options = agree::Options { packets, seed: plan.seed, compared, ..Default::default() };
    let report = compare(&rules.ruleset, &subject, &options).map_err(|e| Failure::at(&rules.name, e))?;
    let mut out = output::stdout();
    match format {
        Format::Json => output::json_line(&mut out, &Line::of(&report, &rules.ruleset))?,
        Format::Text => writeln!(out, "{}", report.show(&rules.ruleset))?,
    }
    out.flush()?;
    Ok(if report.is_agreement() { Exit::Clean } else { Exit::Findings })
}

/// Proves, and says what was proved or what refutes it.
fn proved<B: AsRef<[u8]>>(
    rules: &input::Rules,
    image: &Image<B>,
    name: &str,
    compared: Compared,
    format: Format,
) -> Result<Exit, Failure> {
    let busy = progress::spinner("proving");
    // Whoever reads or builds an image here audits it.
    let options = proof::Options { compared, is_audited: true, ..proof::Options::default() };
    let answer = prove(&rules.ruleset, image, &options);
    busy.finish_and_clear();
    match &answer {
        Err(Refutation::Rules(error)) => return Err(Failure::at(&rules.name, error)),
        Err(stranger @ Refutation::Stranger(_)) => {
            return Err(Failure::at(name, stranger.show(&rules.ruleset)));
        }
        _ => {}
    }
    let mut out = output::stdout();
    match (format, &answer) {
        (Format::Json, answer) => output::json_line(&mut out, &ProofLine::of(answer, &rules.ruleset))?,
        (Format::Text, Ok(proof)) => {
            writeln!(out, "{proof}, {}", output::seconds(proof.time.as_secs_f64()))?;
        }
        (Format::Text, Err(refutation)) => writeln!(out, "{}", refutation.show(&rules.ruleset))?,
    }
    out.flush()?;
    Ok(if answer.is_ok() { Exit::Clean } else { Exit::Findings })
}

/// Writes the certificate of a proof, and has it checked before it is put in its place.
fn write<B: AsRef<[u8]>>(
    rules: &input::Rules,
    image: &Image<B>,
    compared: Compared,
    path: &Path,
) -> Result<(), Failure> {
    let busy = progress::spinner("writing the certificate");
    let bytes = certificate::write(&rules.ruleset, &rules.text, image, compared)
        .and_then(|bytes| certificate::check(&rules.ruleset, &rules.text, image, &bytes).map(|_| bytes));
    busy.finish_and_clear();
    let refused = |e| Failure::new(format_args!("proved, but there is no certificate of it: {e}"));
    file::replace(path, &bytes.map_err(refused)?)
}

#[derive(Serialize)]
struct CheckedLine {
    schema: &'static str,
    accepted: bool,
    /// The rules that match alike: all, or those that decide.
    compared: Option<&'static str>,
    lists: usize,
    flat_rules: usize,
    stored: u64,
    steps: u64,
    refused: Option<String>,
}

/// Checks a certificate.
fn checked<B: AsRef<[u8]>>(
    rules: &input::Rules,
    image: &Image<B>,
    path: &Path,
    format: Format,
) -> Result<Exit, Failure> {
    let bytes = file::read(path)?;
    let answer = certificate::check(&rules.ruleset, &rules.text, image, &bytes);
    if let Err(e @ (Refused::Damaged(_) | Refused::Other(_))) = &answer {
        return Err(Failure::at(&file::name(path), e));
    }
    let facts = answer.as_ref().copied().unwrap_or_default();
    let (word, of) = match facts.compared {
        Compared::All => ("all", "every rule"),
        Compared::Deciding => ("deciding", "every rule but jumps, gotos and those without a target"),
    };
    let mut out = output::stdout();
    match (format, &answer) {
        (Format::Json, answer) => output::json_line(
            &mut out,
            &CheckedLine {
                schema: "hipac.certificate/1",
                accepted: answer.is_ok(),
                compared: answer.is_ok().then_some(word),
                lists: facts.lists,
                flat_rules: facts.flat_rules,
                stored: facts.stored,
                steps: facts.steps,
                refused: answer.as_ref().err().map(ToString::to_string),
            },
        )?,
        (Format::Text, Ok(facts)) => writeln!(
            out,
            "accepted: {}, {} boxes in leaves, {} followed; compared: {of}",
            output::counted(facts.flat_rules, "flat rule"),
            output::grouped(usize::try_from(facts.stored).unwrap_or(usize::MAX)),
            output::counted(usize::try_from(facts.steps).unwrap_or(usize::MAX), "step"),
        )?,
        (Format::Text, Err(refused)) => writeln!(out, "not accepted: {refused}")?,
    }
    out.flush()?;
    Ok(if answer.is_ok() { Exit::Clean } else { Exit::Findings })
}

/// Draws packets and compares, with a progress bar.
pub(crate) fn compare<B: AsRef<[u8]> + Sync>(
    ruleset: &Ruleset,
    subject: &ImageSubject<B>,
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

#[derive(Serialize)]
struct ProofLine {
    schema: &'static str,
    proved: bool,
    rules: usize,
    #[serde(flatten)]
    facts: Option<ProofFacts>,
    /// What is wrong, and where in the image.
    place: Option<String>,
    /// A packet that shows it.
    witness: Option<String>,
}

#[derive(Serialize)]
struct ProofFacts {
    chains: usize,
    called: usize,
    flat_rules: usize,
    boxes: usize,
    regions: u64,
    stored: u64,
    probes: u64,
    header_bits: u32,
    seconds: f64,
}

impl ProofLine {
    fn of(answer: &Result<Proof, Refutation>, ruleset: &Ruleset) -> ProofLine {
        let (place, witness) = match answer {
            Err(Refutation::Differs { place, witness }) => {
                (Some(place.clone()), Some(witness.show(ruleset).to_string()))
            }
            Err(other) => (Some(other.show(ruleset).to_string()), None),
            Ok(_) => (None, None),
        };
        let facts = answer.as_ref().ok().map(|p| ProofFacts {
            chains: p.chains,
            called: p.called,
            flat_rules: p.flat_rules,
            boxes: p.boxes,
            regions: p.regions,
            stored: p.stored,
            probes: p.probes,
            header_bits: p.header_bits,
            seconds: p.time.as_secs_f64(),
        });
        let (proved, rules) = (answer.is_ok(), ruleset.rule_count());
        ProofLine { schema: "hipac.proof/1", proved, rules, facts, place, witness }
    }
}
