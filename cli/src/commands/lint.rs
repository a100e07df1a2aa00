//! `hipac lint`: rules that do nothing.

use std::io::Write;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use hipac_rules::{Ruleset, print};
use hipac_verifier::lint::{self, Finding, Kind, Options};
use hipac_verifier::{Oracle, RuleId};
use serde::Serialize;

use crate::args::answers::LintOptions;
use crate::args::{Format, RulesFile};
use crate::exit::{Exit, Failure};
use crate::input::{self, Rules};
use crate::output::{self, counted};
use crate::{progress, sarif};

/// Parts of a whole that a progress bar counts.
const BAR_STEPS: u64 = 1000;
/// Other rules that a finding shows.
const BY_MAX: usize = 4;

pub(crate) fn run(of: &RulesFile, options: &LintOptions, format: Format) -> Result<Exit, Failure> {
    let denied = kinds(&options.deny)?;
    let allowed = kinds(&options.allow)?;
    let rules = input::rules(of)?;
    rules.report();
    let oracle = Oracle::new(&rules.ruleset).map_err(|e| Failure::at(&rules.name, e))?;
    let bar = progress::bar(BAR_STEPS, "looking");
    let limits = Options { work_max: options.work.saturating_mul(1_000_000), redundant: !options.quick };
    let findings = lint::lint(&oracle, &limits, &mut |p| {
        bar.set_position((p.decided * BAR_STEPS as f64) as u64);
        true
    });
    bar.finish_and_clear();
    let mut findings = findings.map_err(|e| Failure::at(&rules.name, e))?;
    findings.retain(|f| !allowed.contains(&f.kind));
    let shown = Shown { rules: &rules, denied: &denied };
    let mut out = output::stdout();
    match format {
        _ if options.sarif => {
            let findings: Vec<_> = findings.iter().map(|f| shown.sarif(f)).collect();
            output::json_line(&mut out, &sarif::log(&findings))?;
        }
        Format::Json => output::json_line(&mut out, &shown.json(&findings))?,
        Format::Text => shown.text(&mut out, &findings)?,
    }
    out.flush()?;
    let counts = |f: &Finding| !f.kind.is_note() || denied.contains(&f.kind);
    Ok(if findings.iter().any(counts) { Exit::Findings } else { Exit::Clean })
}

fn kinds(names: &[String]) -> Result<Vec<Kind>, Failure> {
    let kind = |name: &String| {
        Kind::ALL.into_iter().find(|k| k.name() == name).ok_or_else(|| {
            let known: Vec<&str> = Kind::ALL.iter().map(|k| k.name()).collect();
            Failure::new(format_args!("there is no finding `{name}`; there are {}", known.join(", ")))
        })
    };
    names.iter().map(kind).collect()
}

struct Shown<'a> {
    rules: &'a Rules,
    denied: &'a [Kind],
}

impl Shown<'_> {
    fn ruleset(&self) -> &Ruleset {
        &self.rules.ruleset
    }

    fn level(&self, kind: Kind) -> &'static str {
        if self.denied.contains(&kind) {
            "error"
        } else if kind.is_note() {
            "note"
        } else {
            "warning"
        }
    }

    /// `filter/web`.
    fn chain(&self, finding: &Finding) -> String {
        let (table, chain) = finding.chain;
        let name = self.ruleset().table(table).and_then(|t| t.chains.get(chain)).map_or("?", |c| &c.name);
        format!("{}/{name}", table.name())
    }

    fn message(&self, finding: &Finding) -> String {
        let chain = self.chain(finding);
        match finding.kind {
            Kind::ContradictoryRule => "the tests of this rule hold for no packet together".to_owned(),
            Kind::DeadRule => match finding.by.len() {
                0 => "no packet gets to this rule".to_owned(),
                1 => "no packet gets to this rule: one before it takes them all".to_owned(),
                n => format!("no packet gets to this rule: {n} before it take them all together"),
            },
            Kind::RedundantRule => "without this rule every packet would be treated alike".to_owned(),
            Kind::UnreachableChain => format!("no packet gets into the chain {chain}"),
            Kind::NoReturn => "no packet comes back from this jump".to_owned(),
            Kind::UnusedPolicy => format!("no packet gets to the policy of {chain}"),
            Kind::Undecided => "too much work to say whether this rule does anything (--work)".to_owned(),
        }
    }

    fn help(&self, kind: Kind) -> Option<&'static str> {
        Some(match kind {
            Kind::DeadRule | Kind::ContradictoryRule => "remove it, or move it to where packets get",
            Kind::RedundantRule => "remove it, unless its counters are wanted",
            Kind::UnreachableChain => "remove it, or jump there",
            Kind::NoReturn => "-g says so, and leaves nothing to come back to",
            Kind::UnusedPolicy | Kind::Undecided => return None,
        })
    }

    /// The line that a finding is about; 0 when the text has none.
    fn line(&self, finding: &Finding) -> u32 {
        match finding.rule {
            Some(rule) => self.line_of(rule),
            None => {
                let (table, chain) = finding.chain;
                self.ruleset().table(table).and_then(|t| t.chains.get(chain)).map_or(0, |c| c.line)
            }
        }
    }

    fn line_of(&self, rule: RuleId) -> u32 {
        rule.of(self.ruleset()).map_or(0, |r| r.line)
    }

    /// What the rule says, canonically: its line may hold several rules, or none.
    fn words(&self, rule: RuleId) -> String {
        let chain = self.ruleset().table(rule.table()).and_then(|t| t.chains.get(rule.chain()));
        let mut text = String::new();
        if let (Some(rule), Some(chain)) = (rule.of(self.ruleset()), chain) {
            print::print_rule(rule, chain, self.ruleset().family, &mut text);
        }
        text
    }

    /// How the text declares the chain that a finding is about.
    fn declaration(&self, finding: &Finding) -> String {
        let number = (self.line(finding) as usize).checked_sub(1);
        let line = number.and_then(|number| self.rules.text.split(|&b| b == b'\n').nth(number));
        let line = String::from_utf8_lossy(line.unwrap_or_default()).trim_end().to_owned();
        if line.is_empty() { self.chain(finding) } else { line }
    }

    fn text(&self, out: &mut impl Write, findings: &[Finding]) -> Result<(), Failure> {
        for finding in findings {
            writeln!(out, "{}\n", self.snippet(finding))?;
        }
        let counts: Vec<String> = Kind::ALL
            .into_iter()
            .map(|kind| (kind, findings.iter().filter(|f| f.kind == kind).count()))
            .filter(|(_, count)| *count > 0)
            .map(|(kind, count)| format!("{count} {}", kind.name()))
            .collect();
        let rules = counted(self.ruleset().rule_count(), "rule");
        let counts = if counts.is_empty() { "nothing found".to_owned() } else { counts.join(", ") };
        writeln!(out, "{}: {rules}, {counts}", self.rules.name)?;
        Ok(())
    }

    fn snippet(&self, finding: &Finding) -> String {
        let level = match self.level(finding.kind) {
            "error" => Level::ERROR,
            "warning" => Level::WARNING,
            _ => Level::NOTE,
        };
        let message = format!("{} [{}]", self.message(finding), finding.kind.name());
        let own = finding.rule.map_or_else(|| self.declaration(finding), |rule| self.words(rule));
        let others: Vec<(u32, String)> =
            finding.by.iter().take(BY_MAX).map(|&rule| (self.line_of(rule), self.words(rule))).collect();
        let mut group: Group<'_> =
            level.primary_title(message.as_str()).element(self.source(&own, self.line(finding), ""));
        let more = finding.by.len().saturating_sub(BY_MAX);
        for (line, words) in &others {
            group = group.element(self.source(words, *line, "takes packets of it"));
        }
        let more = format!("and {}", counted(more, "more rule"));
        if finding.by.len() > BY_MAX {
            group = group.element(Level::NOTE.message(more.as_str()));
        }
        if let Some(help) = self.help(finding.kind) {
            group = group.element(Level::HELP.message(help));
        }
        Renderer::plain().render(&[group])
    }

    fn source<'t>(
        &'t self,
        text: &'t str,
        line: u32,
        label: &'static str,
    ) -> Snippet<'t, annotate_snippets::Annotation<'t>> {
        let kind = if label.is_empty() { AnnotationKind::Primary } else { AnnotationKind::Context };
        let mark = kind.span(0..text.len());
        let mark = if label.is_empty() { mark } else { mark.label(label) };
        Snippet::source(text).path(self.rules.name.as_str()).line_start(line as usize).annotation(mark)
    }

    fn sarif(&self, finding: &Finding) -> sarif::Finding {
        let related = finding
            .by
            .iter()
            .map(|&rule| (self.rules.name.clone(), self.line_of(rule), "takes packets of it".to_owned()));
        sarif::Finding {
            rule: finding.kind.name(),
            level: self.level(finding.kind),
            message: self.message(finding),
            place: (self.rules.name.clone(), self.line(finding)),
            related: related.collect(),
        }
    }

    fn json(&self, findings: &[Finding]) -> Json<'_> {
        let findings = findings.iter().map(|finding| FindingJson {
            kind: finding.kind.name(),
            level: self.level(finding.kind),
            chain: self.chain(finding),
            rule: finding.rule.map(|rule| rule.rule() + 1),
            line: self.line(finding),
            by_lines: finding.by.iter().map(|&rule| self.line_of(rule)).collect(),
            message: self.message(finding),
        });
        Json {
            schema: "hipac.lint/1",
            file: &self.rules.name,
            rules: self.ruleset().rule_count(),
            findings: findings.collect(),
        }
    }
}

#[derive(Serialize)]
struct Json<'a> {
    schema: &'static str,
    file: &'a str,
    rules: usize,
    findings: Vec<FindingJson>,
}

#[derive(Serialize)]
struct FindingJson {
    kind: &'static str,
    level: &'static str,
    chain: String,
    /// Number in the chain, from 1; null: it is about the chain.
    rule: Option<usize>,
    line: u32,
    /// Rules that take its packets.
    by_lines: Vec<u32>,
    message: String,
}
