//! `hipac update`: commands carried out on a ruleset and its image, both or neither.
//!
//! ```text
//!   RULES ─parse─▶ ruleset ─commands─▶ new ruleset ─print─▶ new RULES ─compile─▶ new IMAGE
//!     └── is IMAGE of it? ──┘
//! ```

mod pair;
mod seal;

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use hipac_classifier::Image;
use hipac_compiler::{Compiled, Options, compile};
use hipac_rules::edit::{Applied, EditError, ParsedEdits};
use hipac_rules::fault::render_all;
use hipac_rules::{Counters, Family, Fault, ParseOptions, PrintOptions, Ruleset, parse, parse_edits, print};
use serde::Serialize;

use crate::args::update::UpdateOptions;
use crate::args::{Format, InputFormat, RulesFile};
use crate::commands::{compile as compile_command, diff};
use crate::exit::{Exit, Failure};
use crate::input::{self, FaultLine, Rules, diagnose};
use crate::output::{self, bytes, counted, grouped, seconds};
use crate::{file, mapped, progress};

use pair::Pair;
use seal::{Mark, Seal};

/// Differences that a dry run shows.
const DIFFERENCES_SHOWN: usize = 8;

/// Steps of comparing that a dry run takes at most: some seconds.
const DIFF_WORK_MAX: u64 = 400_000_000;

pub(crate) fn run(of: &UpdateOptions, format: Format) -> Result<Exit, Failure> {
    if of.rules == Path::new("-") || of.image == Path::new("-") {
        return Err(Failure::new("image and rules are files that are replaced: neither can be `-`"));
    }
    let commands = file::read(&of.commands)?;
    let begin = Instant::now();
    let pair = Pair::lock(&of.image, &of.rules)?;
    let old = read_rules(of)?;
    let image = mapped::open(&of.image)?;
    let holds_sets = Image::open(image.as_ref()).is_ok_and(|image| image.key_maker().sets().count() > 0);
    if of.outside.ipset.is_empty() && holds_sets {
        return Err(Failure::at(
            &file::name(&of.image),
            "it holds IP sets, and the new one would not: give what `ipset save` prints by --ipset FILE",
        ));
    }
    let before = Mark::of(image.as_ref());
    let image_bytes = image.as_ref().len();
    let mut update = Update {
        of,
        format,
        pair,
        commands: &commands,
        before,
        options: of.options(Seal::of(&old.text)),
        report: Report::new(&old.ruleset, image_bytes),
        begin,
    };
    let state = update.state(&old, image.as_ref())?;
    drop(image);
    if let State::Interrupted(seal) = state {
        update.finish_interrupted(&old, &seal)?;
        if seal.commands == Mark::of(&commands) {
            return update.print(None);
        }
    }
    update.run(&old)
}

impl UpdateOptions {
    /// How the image is built: as said, as it was, or by default.
    fn options(&self, seal: Option<Seal>) -> Options {
        let was = seal.map_or_else(Options::default, |seal| seal.options);
        Options {
            memory_bytes_max: self.memory.unwrap_or(was.memory_bytes_max),
            counting: self.counting.map_or(was.counting, Into::into),
        }
    }
}

fn read_rules(of: &UpdateOptions) -> Result<Rules, Failure> {
    let rules = input::rules(&RulesFile {
        file: of.rules.clone(),
        ipv4: of.ipv4,
        ipv6: of.ipv6,
        input_format: InputFormat::Iptables,
        outside: of.outside.clone(),
    })?;
    rules.accept_whole()?;
    Ok(rules)
}

/// How the two files stand to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The image is that of the rules.
    Whole,
    /// The image is that of the rules as they were before the last update.
    Interrupted(Seal),
}

/// One run.
struct Update<'a> {
    of: &'a UpdateOptions,
    format: Format,
    pair: Pair,
    commands: &'a [u8],
    /// The image that is there.
    before: Mark,
    options: Options,
    report: Report,
    begin: Instant,
}

impl Update<'_> {
    fn image_name(&self) -> String {
        file::name(&self.of.image)
    }

    fn rules_name(&self) -> String {
        file::name(&self.of.rules)
    }

    fn commands_name(&self) -> String {
        file::name(&self.of.commands)
    }

    /// By the seal of the rules where it holds, else by compiling them.
    fn state(&self, old: &Rules, image: &[u8]) -> Result<State, Failure> {
        let seal = Seal::of(&old.text);
        if let Some(seal) = seal {
            if seal.image == self.before {
                return Ok(State::Whole);
            }
            if seal.before == self.before {
                return Ok(State::Interrupted(seal));
            }
        }
        let compiled = self.compile(&old.ruleset, &self.options)?;
        if compiled.image == image {
            return Ok(State::Whole);
        }
        let (image, rules) = (self.image_name(), self.rules_name());
        Err(Failure::at(
            &image,
            format_args!(
                "it was not compiled from {rules} as that is now, with --memory {} --counting {}: give the \
                 options (and IP sets) that it was compiled with, or compile it again with `hipac compile {rules} -o {image}`",
                self.options.memory_bytes_max,
                counting_name(&self.options),
            ),
        ))
    }

    fn compile(&self, ruleset: &Ruleset, options: &Options) -> Result<Compiled, Failure> {
        let busy = progress::spinner("compiling");
        let compiled = compile(ruleset, options);
        busy.finish_and_clear();
        compiled.map_err(|e| compile_command::failure(&self.rules_name(), &e))
    }

    /// Makes the image of the rules that an interrupted update left.
    fn finish_interrupted(&mut self, old: &Rules, seal: &Seal) -> Result<(), Failure> {
        let compiled = self.compile(&old.ruleset, &seal.options)?;
        if !self.of.dry_run {
            self.pair.replace_image(&compiled.image)?;
        }
        self.before = Mark::of(&compiled.image);
        self.report.finished_interrupted = true;
        self.report.image_bytes_after = compiled.image.len();
        Ok(())
    }

    /// Carries out the commands.
    fn run(mut self, old: &Rules) -> Result<Exit, Failure> {
        let family = old.ruleset.family;
        let hosts = self.of.outside.hosts.as_deref().map(input::hosts).transpose()?;
        let parse_options = ParseOptions { family: Some(family), hosts, ..ParseOptions::default() };
        let edits = parse_edits(self.commands, &parse_options);
        diagnose(&render_all(&edits.faults, &self.commands_name(), self.commands));
        if edits.has_errors() {
            return self.refuse(edits.faults, None);
        }
        let (changed, done) = match edits.apply(&old.ruleset, &parse_options) {
            Ok(changed) => changed,
            Err(error) => {
                let fault = error.fault(self.commands);
                diagnose(&render_all(std::slice::from_ref(&fault), &self.commands_name(), self.commands));
                return self.refuse(vec![fault], Some(&error));
            }
        };
        let new = self.new_rules(&changed, family)?;
        drop(changed);
        self.report.note(&edits, done, &new.ruleset);
        let compiled = self.compile(&new.ruleset, &self.options)?;
        self.report.image_bytes_after = compiled.image.len();
        if self.of.dry_run {
            return self.print(Some((old, &new)));
        }
        let seal = Seal {
            image: Mark::of(&compiled.image),
            before: self.before,
            commands: Mark::of(self.commands),
            options: self.options,
        };
        let text = seal.put_on(&without_second_line(&new.text));
        self.pair.replace(&compiled.image, text.as_bytes())?;
        self.print(None)
    }

    /// The new rules as they will be read: lines counted in the text that is written, of which the
    /// second is the seal's.
    fn new_rules(&self, changed: &Ruleset, family: Family) -> Result<Rules, Failure> {
        let has_counters = changed
            .tables
            .iter()
            .flat_map(|t| &t.chains)
            .flat_map(|c| &c.rules)
            .any(|r| r.counters != Counters::default());
        let text = print(changed, &PrintOptions { counters: has_counters, header: true });
        let text = text.replacen('\n', "\n#\n", 1);
        let parsed = parse(&text, &ParseOptions { family: Some(family), ..ParseOptions::default() });
        let mut ruleset = parsed.ruleset;
        let unbound = input::sets(&self.of.outside.ipset)?.bind(&mut ruleset).unbound;
        let rules = Rules {
            name: self.rules_name(),
            text: text.into_bytes(),
            ruleset,
            faults: parsed.faults,
            unbound,
        };
        if rules.faults.iter().any(|f| f.severity == hipac_rules::Severity::Error) {
            rules.accept_whole()?;
        }
        Ok(rules)
    }

    /// Says that the commands cannot be carried out.
    fn refuse(self, faults: Vec<Fault>, error: Option<&EditError>) -> Result<Exit, Failure> {
        let (image, rules) = (self.image_name(), self.rules_name());
        if self.format == Format::Json {
            let report = Refusal {
                schema: "hipac.update/1",
                updated: false,
                finished_interrupted: self.report.finished_interrupted && !self.of.dry_run,
                faults: faults.iter().map(FaultLine::of).collect(),
                iptables: error.and_then(|e| e.kind.iptables_message()),
                iptables_exit: error.map_or(2, |e| e.kind.exit_class().code()),
            };
            let mut out = output::stdout();
            output::json_line(&mut out, &report)?;
            out.flush()?;
        }
        if self.report.finished_interrupted && !self.of.dry_run {
            diagnose(&format!(
                "hipac: the last update was interrupted: it is finished, {image} made of {rules}; these commands change nothing\n"
            ));
        } else {
            diagnose(&format!("hipac: nothing is changed: {image} and {rules} are as they were\n"));
        }
        Ok(Exit::Findings)
    }

    /// Prints what was done, or, with rules to compare, what would be.
    fn print(mut self, compared: Option<(&Rules, &Rules)>) -> Result<Exit, Failure> {
        self.report.seconds = self.begin.elapsed().as_secs_f64();
        self.report.updated = !self.of.dry_run;
        let differences = match compared {
            Some((old, new)) => Some(diff::between(old, new, DIFF_WORK_MAX)?),
            None => None,
        };
        let mut out = output::stdout();
        match self.format {
            Format::Json => {
                let json = match (&differences, compared) {
                    (Some(report), Some((old, new))) => Some(diff::as_json(old, new, report)?),
                    _ => None,
                };
                output::json_line(&mut out, &Json { report: &self.report, differences: json })?;
            }
            Format::Text => {
                self.report.text(&mut out, &self.rules_name(), &self.image_name())?;
                if let (Some(report), Some((old, new))) = (&differences, compared) {
                    writeln!(out)?;
                    diff::print_text(&mut out, old, new, report, DIFFERENCES_SHOWN)?;
                }
            }
        }
        out.flush()?;
        Ok(Exit::Clean)
    }
}

fn counting_name(options: &Options) -> &'static str {
    match options.counting {
        hipac_compiler::Counting::Exact => "exact",
        hipac_compiler::Counting::Deciding => "deciding",
    }
}

/// The text without the line that stands for the seal.
fn without_second_line(text: &[u8]) -> String {
    String::from_utf8_lossy(text).replacen("\n#\n", "\n", 1)
}

/// What an update did.
#[derive(Debug, Serialize)]
struct Report {
    schema: &'static str,
    /// The files were written.
    updated: bool,
    /// An update that was interrupted between the two files was finished.
    finished_interrupted: bool,
    commands: usize,
    rules_before: usize,
    rules_after: usize,
    rules_added: usize,
    rules_removed: usize,
    chains_added: usize,
    chains_removed: usize,
    image_bytes_before: usize,
    image_bytes_after: usize,
    seconds: f64,
}

#[derive(Serialize)]
struct Json<'a> {
    #[serde(flatten)]
    report: &'a Report,
    #[serde(skip_serializing_if = "Option::is_none")]
    differences: Option<serde_json::Value>,
}

#[derive(Serialize)]
struct Refusal<'a> {
    schema: &'static str,
    updated: bool,
    /// An update that was interrupted before was finished.
    finished_interrupted: bool,
    faults: Vec<FaultLine<'a>>,
    /// What iptables says, where it has words for it.
    iptables: Option<&'static str>,
    iptables_exit: u8,
}

impl Report {
    fn new(old: &Ruleset, image_bytes: usize) -> Report {
        Report {
            schema: "hipac.update/1",
            updated: false,
            finished_interrupted: false,
            commands: 0,
            rules_before: old.rule_count(),
            rules_after: old.rule_count(),
            rules_added: 0,
            rules_removed: 0,
            chains_added: 0,
            chains_removed: 0,
            image_bytes_before: image_bytes,
            image_bytes_after: image_bytes,
            seconds: 0.0,
        }
    }

    fn note(&mut self, edits: &ParsedEdits, done: Applied, new: &Ruleset) {
        self.commands = edits.edits().count();
        self.rules_after = new.rule_count();
        (self.rules_added, self.rules_removed) = (done.rules_added, done.rules_removed);
        (self.chains_added, self.chains_removed) = (done.chains_added, done.chains_removed);
    }

    fn text(&self, out: &mut impl Write, rules: &str, image: &str) -> Result<(), Failure> {
        if self.finished_interrupted {
            let comes = if self.updated { "is" } else { "would be" };
            writeln!(out, "the last update was interrupted: it {comes} finished, {image} made of {rules}")?;
        }
        if self.commands == 0 && self.finished_interrupted {
            writeln!(out, "its commands were these: they are not carried out again")?;
        }
        let mut changes: Vec<String> = Vec::new();
        for (count, noun, what) in [
            (self.rules_added, "rule", "added"),
            (self.rules_removed, "rule", "removed"),
            (self.chains_added, "chain", "added"),
            (self.chains_removed, "chain", "removed"),
        ] {
            if count > 0 {
                changes.push(format!("{} {what}", counted(count, noun)));
            }
        }
        let changes = if changes.is_empty() { String::new() } else { format!(" ({})", changes.join(", ")) };
        let (from, to) = (grouped(self.rules_before), grouped(self.rules_after));
        writeln!(out, "{}: {from} → {to} rules{changes}", rules)?;
        let (from, to) = (bytes(self.image_bytes_before), bytes(self.image_bytes_after));
        writeln!(out, "{}: {from} → {to}", image)?;
        let time = seconds(self.seconds);
        match self.updated {
            true => writeln!(out, "{} in {time}", counted(self.commands, "command"))?,
            false => writeln!(out, "{}, in {time}; nothing is written", counted(self.commands, "command"))?,
        }
        Ok(())
    }
}
