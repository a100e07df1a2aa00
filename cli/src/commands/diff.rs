//! `hipac diff`: the packets that two rulesets treat differently. Either may be an image.

use std::io::Write;
use std::path::Path;

use hipac_rules::{Family, Hook, Ruleset, TableKind};
use hipac_verifier::diff::{self, Difference, Entry, Options, PlaceReport, Report, Treatment};
use hipac_verifier::{By, Oracle, packet_text, proof};
use serde::Serialize;

use crate::args::answers::DiffOptions;
use crate::args::{Format, RulesFile};
use crate::exit::{Exit, Failure};
use crate::input::{self, Input, OpenImage, Rules};
use crate::output::{self, counted, grouped};
use crate::sarif::{self, Finding};
use crate::{file, progress};

/// Parts of a whole that a progress bar counts.
const BAR_STEPS: u64 = 1000;

pub(crate) fn run(options: &DiffOptions, format: Format) -> Result<Exit, Failure> {
    let (old, new, notes) = read_both(options)?;
    let sides = Sides { old: &old, new: &new, notes: &notes };
    let from = Oracle::new(&old.ruleset).map_err(|e| Failure::at(&old.name, e))?;
    let to = Oracle::new(&new.ruleset).map_err(|e| Failure::at(&new.name, e))?;
    let entries = entries(options, &from, &to)?;
    let limits = Options {
        work_max: options.work.saturating_mul(1_000_000),
        regions_max: options.regions,
        verdicts_only: options.verdicts,
    };
    let bar = progress::bar(BAR_STEPS, "comparing");
    let report = diff::diff(&from, &to, &entries, &limits, &mut |p| {
        bar.set_position((p.decided * BAR_STEPS as f64) as u64);
        true
    });
    bar.finish_and_clear();
    let report = report.map_err(Failure::new)?;
    let mut out = output::stdout();
    match format {
        _ if options.sarif => output::json_line(&mut out, &sarif::log(&sides.findings(&report)))?,
        _ if options.markdown => sides.markdown(&mut out, &report, options.max)?,
        Format::Json => output::json_line(&mut out, &sides.json(&report))?,
        Format::Text => sides.text(&mut out, &report, options.max, "--max")?,
    }
    out.flush()?;
    let mut differences = report.places.iter().flat_map(|p| &p.differences);
    Ok(if differences.any(|d| !hangs_on_lost(d)) {
        Exit::Findings
    } else if report.is_equal() {
        Exit::Clean
    } else {
        Exit::Failed
    })
}

/// Whether it is one hangs on a match of which an image keeps no more than that it is asked.
fn hangs_on_lost(difference: &Difference) -> bool {
    let asked = difference.old.asked.iter().chain(&difference.new.asked);
    difference.conditions.iter().chain(asked).any(|words| words.contains(proof::NOT_KEPT))
}

/// How two rulesets differ, in every built-in chain, within so many steps.
pub(super) fn between(old: &Rules, new: &Rules, work_max: u64) -> Result<Report, Failure> {
    let from = Oracle::new(&old.ruleset).map_err(|e| Failure::at(&old.name, e))?;
    let to = Oracle::new(&new.ruleset).map_err(|e| Failure::at(&new.name, e))?;
    let limits = Options { work_max, ..Options::default() };
    diff::diff(&from, &to, &diff::entries(&from, &to), &limits, &mut |_| true).map_err(Failure::new)
}

/// Prints differences, at most so many a chain.
pub(super) fn print_text(
    out: &mut impl Write,
    old: &Rules,
    new: &Rules,
    report: &Report,
    max: usize,
) -> Result<(), Failure> {
    Sides { old, new, notes: &[] }.text(out, report, max, "hipac diff shows all")
}

/// Differences as JSON.
pub(super) fn as_json(old: &Rules, new: &Rules, report: &Report) -> Result<serde_json::Value, Failure> {
    serde_json::to_value(Sides { old, new, notes: &[] }.json(report)).map_err(Failure::new)
}

/// Both sides as rules. Those of an image are read back and proved to be its: `notes` says so.
fn read_both(options: &DiffOptions) -> Result<(Rules, Rules, Vec<String>), Failure> {
    let (old, new) = rayon::join(|| read(options, &options.old, false), || read(options, &options.new, true));
    let (old, new) = (old?, new?);
    for input in [&old, &new] {
        if let Input::Rules(rules) = input {
            rules.report();
        }
    }
    let mut notes = Vec::new();
    let (old, new) = match (old, new) {
        (Input::Rules(old), Input::Rules(new)) => (old, new),
        (Input::Image(old), Input::Rules(new)) => {
            (read_back(&old, &options.old, Some(&new), &mut notes)?, new)
        }
        (Input::Rules(old), Input::Image(new)) => {
            let new = read_back(&new, &options.new, Some(&old), &mut notes)?;
            (old, new)
        }
        (Input::Image(old), Input::Image(new)) => {
            let old = read_back(&old, &options.old, None, &mut notes)?;
            let new = read_back(&new, &options.new, Some(&old), &mut notes)?;
            (old, new)
        }
    };
    Ok((old, new, notes))
}

/// The rules that an image holds; those that an image does not say in full are looked up in the other file.
fn read_back(
    image: &OpenImage,
    path: &Path,
    other: Option<&Rules>,
    notes: &mut Vec<String>,
) -> Result<Rules, Failure> {
    let name = file::name(path);
    let family = if image.is_v6() { Family::V6 } else { Family::V4 };
    let none = Ruleset { family, tables: vec![] };
    if let Some(other) = other.filter(|other| other.ruleset.family != family) {
        let (ours, theirs) = (family.name(), other.ruleset.family.name());
        return Err(Failure::at(&name, format_args!("the image is for {ours}, the rules are for {theirs}")));
    }
    let options = proof::Options { is_audited: true, ..proof::Options::default() };
    let spinner = progress::spinner("reading the image back");
    let found = proof::read_back(image, other.map_or(&none, |other| &other.ruleset), &options);
    spinner.finish_and_clear();
    let found = found.map_err(|e| Failure::at(&name, format_args!("undecided: {e}")))?;
    let count = found.ruleset.rule_count();
    let shared = match (other, count - found.own) {
        (Some(other), shared) if shared == count => format!(", all of them as in {}", other.name),
        (Some(other), shared) if shared > 0 => format!(", {} of them as in {}", grouped(shared), other.name),
        _ => String::new(),
    };
    notes.push(format!(
        "{name} is an image: {}{shared}, proved to do for every packet what it does",
        counted(count, "rule")
    ));
    Ok(Rules { name, text: vec![], ruleset: found.ruleset, faults: vec![], unbound: vec![] })
}

fn read(options: &DiffOptions, path: &Path, is_new: bool) -> Result<Input, Failure> {
    let mut outside = options.outside.clone();
    if is_new && !options.new_ipset.is_empty() {
        outside.ipset.clone_from(&options.new_ipset);
    }
    let of = RulesFile {
        file: path.to_owned(),
        ipv4: options.ipv4,
        ipv6: options.ipv6,
        input_format: options.input_format,
        outside,
    };
    input::rules_or_image(&of)
}

fn entries(
    options: &DiffOptions,
    old: &Oracle<'_>,
    new: &Oracle<'_>,
) -> Result<Vec<(Entry, Entry)>, Failure> {
    let Some(entry) = &options.entry else { return Ok(diff::entries(old, new)) };
    let from = parse_entry(entry)?;
    let to = options.with.as_deref().map_or(Ok(from), parse_entry)?;
    Ok(vec![(from, to)])
}

/// `filter/FORWARD`.
pub(super) fn parse_entry(text: &str) -> Result<Entry, Failure> {
    let entry = text.split_once('/').and_then(|(table, chain)| {
        let table = TableKind::from_name(table)?;
        Hook::from_name(chain).filter(|hook| table.hooks().contains(hook)).map(|hook| (table, hook))
    });
    entry.ok_or_else(|| {
        Failure::new(format_args!(
            "`{text}` is no built-in chain: write it as in filter/FORWARD or nat/POSTROUTING"
        ))
    })
}

struct Sides<'a> {
    old: &'a Rules,
    new: &'a Rules,
    /// What was an image.
    notes: &'a [String],
}

fn entry_name(place: &PlaceReport) -> String {
    let name = |(table, hook): Entry| format!("{}/{}", table.name(), hook.name());
    if place.old == place.new {
        name(place.old)
    } else {
        format!("{} → {}", name(place.old), name(place.new))
    }
}

/// `ACCEPT (new:38)`, with what is done on the way.
fn treated(treatment: &Treatment, side: &str, ruleset: &Ruleset) -> String {
    let place = match treatment.by {
        By::Rule(rule) => format!("{side}:{}", line(rule, ruleset)),
        By::Malformed(rule) => format!("{side}:{}, header cut off", line(rule, ruleset)),
        By::Policy => format!("{side} policy"),
        By::GivenUp => format!("{side}, given up"),
    };
    let mut words = format!("{} ({place})", treatment.verdict);
    if !treatment.notes.is_empty() {
        words += &format!(" after {}", treatment.notes.join(", "));
    }
    if !treatment.asked.is_empty() {
        words += &format!(" asking {}", treatment.asked.join(", "));
    }
    words
}

fn line(rule: hipac_verifier::RuleId, ruleset: &Ruleset) -> u32 {
    rule.of(ruleset).map_or(0, |r| r.line)
}

/// The first lines of some rules, and that there are more.
fn lines(rules: &[hipac_verifier::RuleId], ruleset: &Ruleset) -> String {
    const SHOWN: usize = 6;
    let mut words: Vec<String> =
        rules.iter().take(SHOWN).map(|&rule| line(rule, ruleset).to_string()).collect();
    if rules.len() > SHOWN {
        words.push("…".to_owned());
    }
    words.join(",")
}

impl Sides<'_> {
    fn change(&self, d: &Difference) -> String {
        let old = treated(&d.old, "old", &self.old.ruleset);
        let new = treated(&d.new, "new", &self.new.ruleset);
        format!("was {old} now {new}")
    }

    fn text(
        &self,
        out: &mut impl Write,
        report: &Report,
        max: usize,
        how_to_see_more: &str,
    ) -> Result<(), Failure> {
        for note in self.notes {
            writeln!(out, "{note}")?;
        }
        for place in report.places.iter().filter(|p| !p.differences.is_empty()) {
            let count = counted(place.differences.len(), "difference");
            writeln!(out, "{}: {count}", entry_name(place))?;
            for d in place.differences.iter().take(max) {
                writeln!(out, "  {} {}", d.words, self.change(d))?;
                for condition in &d.conditions {
                    writeln!(out, "      where {condition}")?;
                }
                if !d.except.is_empty() {
                    let rules = counted(d.except.len(), "rule");
                    let lines = lines(&d.except, &self.old.ruleset);
                    writeln!(out, "      except what {rules} before decide as ever (old:{lines})")?;
                }
                let packet = packet_text::show(&d.packet).to_string();
                let doubt = if d.is_confirmed { "" } else { " (not confirmed by the linear walk)" };
                writeln!(out, "      as in --packet \"{packet}\"{doubt}")?;
            }
            if place.differences.len() > max {
                let more = grouped(place.differences.len() - max);
                writeln!(out, "  … and {more} more ({how_to_see_more})")?;
            }
        }
        let all = report.places.iter().flat_map(|p| &p.differences);
        let lost = all.filter(|d| hangs_on_lost(d)).count();
        if lost > 0 {
            writeln!(
                out,
                "undecided: {} {} on what a match asks, which an image does not keep ({}-…): compare with the rules",
                counted(lost, "difference"),
                if lost == 1 { "hangs" } else { "hang" },
                proof::NOT_KEPT
            )?;
        }
        for (place, undecided) in report.places.iter().filter_map(|p| Some((p, p.undecided.as_ref()?))) {
            let regions = counted(undecided.regions, "region");
            writeln!(
                out,
                "{}: undecided beyond these: {regions} left, {}",
                entry_name(place),
                undecided.why
            )?;
            for example in &undecided.examples {
                writeln!(out, "  {example}")?;
            }
        }
        let equal = report.places.iter().filter(|p| p.differences.is_empty() && p.undecided.is_none());
        let names: Vec<String> = equal.clone().map(entry_name).collect();
        let regions: u64 = equal.map(|p| p.regions).sum();
        if !names.is_empty() {
            let all = if report.is_equal() { "every packet is treated alike" } else { "proved equal" };
            let regions = counted(usize::try_from(regions).unwrap_or(usize::MAX), "region");
            writeln!(out, "{all}: {} ({regions})", names.join(", "))?;
        }
        Ok(())
    }

    fn markdown(&self, out: &mut impl Write, report: &Report, max: usize) -> Result<(), Failure> {
        writeln!(out, "### `{}` → `{}`\n", self.old.name, self.new.name)?;
        for note in self.notes {
            writeln!(out, "{note}.\n")?;
        }
        if report.is_equal() {
            writeln!(out, "Every packet is treated alike (proved).")?;
        }
        let has_words = |p: &&PlaceReport| !p.differences.is_empty() || p.undecided.is_some();
        for (number, place) in report.places.iter().filter(has_words).enumerate() {
            if number > 0 {
                // What follows a table without a gap is a row of it.
                writeln!(out)?;
            }
            if !place.differences.is_empty() {
                writeln!(out, "**{}**\n\n| packets | was | now |\n|---|---|---|", entry_name(place))?;
            }
            for d in place.differences.iter().take(max) {
                let old = treated(&d.old, "old", &self.old.ruleset);
                let new = treated(&d.new, "new", &self.new.ruleset);
                let where_ = d.conditions.iter().map(|c| format!("<br>where {c}")).collect::<String>();
                let except = match d.except.len() {
                    0 => String::new(),
                    count => format!("<br>except what {} before decide as ever", counted(count, "rule")),
                };
                // A bar would end the cell.
                let cell = |text: &str| text.replace('|', "\\|");
                let packets = cell(&(d.words.clone() + &where_)) + &except;
                writeln!(out, "| {packets} | {} | {} |", cell(&old), cell(&new))?;
            }
            if place.differences.len() > max {
                writeln!(out, "\n… and {} more.", grouped(place.differences.len() - max))?;
            }
            if let Some(undecided) = &place.undecided {
                writeln!(out, "\nUndecided beyond these: {}.", undecided.why)?;
            }
        }
        Ok(())
    }

    fn findings(&self, report: &Report) -> Vec<Finding> {
        let differences = report.places.iter().flat_map(|p| p.differences.iter().map(move |d| (p, d)));
        let line_of = |by: By, ruleset: &Ruleset, (table, hook): Entry| match by {
            By::Rule(rule) | By::Malformed(rule) => line(rule, ruleset),
            // Where the chain is declared.
            By::Policy | By::GivenUp => {
                ruleset.table(table).and_then(|t| t.chain(hook.name())).map_or(0, |chain| chain.line)
            }
        };
        let finding = |(place, d): (&PlaceReport, &Difference)| Finding {
            rule: "difference",
            level: "warning",
            message: format!("{}: {} {}", entry_name(place), d.words, self.change(d)),
            place: (self.new.name.clone(), line_of(d.new.by, &self.new.ruleset, place.new)),
            related: vec![(
                self.old.name.clone(),
                line_of(d.old.by, &self.old.ruleset, place.old),
                "decided here before".to_owned(),
            )],
        };
        differences.map(finding).collect()
    }

    fn json<'r>(&'r self, report: &'r Report) -> Json<'r> {
        let places = report.places.iter().map(|place| PlaceJson {
            entry: entry_name(place),
            equal: place.differences.is_empty() && place.undecided.is_none(),
            regions: place.regions,
            undecided: place.undecided.as_ref().map(|u| u.why),
            differences: place.differences.iter().map(|d| self.difference(d)).collect(),
        });
        Json {
            schema: "hipac.diff/1",
            equal: report.is_equal(),
            images: self.notes,
            places: places.collect(),
        }
    }

    fn difference<'r>(&self, d: &'r Difference) -> DifferenceJson<'r> {
        DifferenceJson {
            packets: &d.words,
            packets_log2: (d.bits.max(0.0) * 10.0).round() / 10.0,
            conditions: &d.conditions,
            except_old_lines: d.except.iter().map(|&rule| line(rule, &self.old.ruleset)).collect(),
            old: TreatmentJson::of(&d.old, &self.old.ruleset),
            new: TreatmentJson::of(&d.new, &self.new.ruleset),
            witness: packet_text::show(&d.packet).to_string(),
            confirmed: d.is_confirmed,
        }
    }
}

#[derive(Serialize)]
struct Json<'a> {
    schema: &'static str,
    equal: bool,
    /// What was read back from an image, in words.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    images: &'a [String],
    places: Vec<PlaceJson<'a>>,
}

#[derive(Serialize)]
struct PlaceJson<'a> {
    entry: String,
    equal: bool,
    regions: u64,
    undecided: Option<&'static str>,
    differences: Vec<DifferenceJson<'a>>,
}

#[derive(Serialize)]
struct DifferenceJson<'a> {
    packets: &'a str,
    packets_log2: f64,
    conditions: &'a [String],
    /// Lines of rules before that decide alike in both: their packets are no part of the difference.
    except_old_lines: Vec<u32>,
    old: TreatmentJson<'a>,
    new: TreatmentJson<'a>,
    witness: String,
    confirmed: bool,
}

#[derive(Serialize)]
struct TreatmentJson<'a> {
    verdict: &'a str,
    /// The line of the rule; null: the policy.
    line: Option<u32>,
    malformed: bool,
    on_the_way: &'a [String],
    asked: &'a [String],
}

impl<'a> TreatmentJson<'a> {
    fn of(treatment: &'a Treatment, ruleset: &Ruleset) -> TreatmentJson<'a> {
        TreatmentJson {
            verdict: &treatment.verdict,
            line: match treatment.by {
                By::Rule(rule) | By::Malformed(rule) => Some(line(rule, ruleset)),
                By::Policy | By::GivenUp => None,
            },
            malformed: matches!(treatment.by, By::Malformed(_)),
            on_the_way: &treatment.notes,
            asked: &treatment.asked,
        }
    }
}
