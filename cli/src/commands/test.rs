//! `hipac test`: statements about packets, proved or refuted.

use std::io::Write;
use std::path::Path;

use hipac_rules::{Family, Ruleset};
use hipac_verifier::query::{self, Answer, Question, question};
use hipac_verifier::{Oracle, packet_text};
use serde::{Deserialize, Serialize};

use super::{diff, query as asking};
use crate::args::{Format, RulesFile};
use crate::exit::{Exit, Failure};
use crate::{file, input, output, progress};

/// Steps looked at for one statement before it is left undecided.
const WORK_MAX: u64 = 2_000_000_000;

/// A file of statements.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Policy {
    #[serde(default)]
    never: Vec<Statement>,
    #[serde(default)]
    must: Vec<Statement>,
}

/// A set of packets, and what is said of them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Statement {
    name: Option<String>,
    /// `filter/FORWARD`
    chain: Option<String>,
    verdict: Option<String>,
    from: Option<String>,
    to: Option<String>,
    proto: Option<String>,
    sport: Option<String>,
    dport: Option<String>,
    #[serde(rename = "in")]
    in_interface: Option<String>,
    #[serde(rename = "out")]
    out_interface: Option<String>,
    state: Option<String>,
    /// Packets without whole headers too.
    #[serde(default)]
    all: bool,
}

/// What came of a statement.
#[derive(Debug, Serialize)]
struct Outcome {
    name: String,
    /// never or must
    kind: &'static str,
    /// proved, refuted or undecided
    outcome: &'static str,
    /// Why it is refuted or undecided.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    /// A packet that refutes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    witness: Option<String>,
}

pub(crate) fn run(of: &RulesFile, policy: &Path, junit: bool, format: Format) -> Result<Exit, Failure> {
    let rules = input::rules(of)?;
    rules.report();
    let name = file::name(policy);
    let text = String::from_utf8(file::read(policy)?).map_err(|e| Failure::at(&name, e))?;
    let policy: Policy = toml::from_str(&text).map_err(|e| Failure::at(&name, e))?;
    let oracle = Oracle::new(&rules.ruleset).map_err(|e| Failure::at(&rules.name, e))?;
    let statements = policy.never.iter().map(|s| ("never", s)).chain(policy.must.iter().map(|s| ("must", s)));
    let bar = progress::bar((policy.never.len() + policy.must.len()) as u64, "proving");
    let mut outcomes = Vec::new();
    for (i, (kind, statement)) in statements.enumerate() {
        let title = statement.name.clone().unwrap_or_else(|| format!("{kind} {}", i + 1));
        let question = statement.question(rules.ruleset.family).map_err(|problem| match problem {
            Failure::Message(text) => Failure::at(&format!("{name}: {title}"), text),
            other => other,
        })?;
        let answer =
            if kind == "never" { query::none(&oracle, &question) } else { query::holds(&oracle, &question) };
        let answer = answer.map_err(|e| Failure::at(&rules.name, e))?;
        outcomes.push(outcome(title, kind, &answer, &rules.ruleset));
        bar.inc(1);
    }
    bar.finish_and_clear();
    let mut out = output::stdout();
    match format {
        _ if junit => write!(out, "{}", junit_xml(&rules.name, &outcomes))?,
        Format::Json => {
            let json = Json { schema: "hipac.test/1", file: &rules.name, statements: &outcomes };
            output::json_line(&mut out, &json)?;
        }
        Format::Text => print(&mut out, &outcomes)?,
    }
    out.flush()?;
    let is = |wanted| outcomes.iter().any(|o| o.outcome == wanted);
    Ok(match (is("refuted"), is("undecided")) {
        (true, _) => Exit::Findings,
        (false, true) => Exit::Failed,
        (false, false) => Exit::Clean,
    })
}

impl Statement {
    fn question(&self, family: Family) -> Result<Question, Failure> {
        let said = [
            ("from", &self.from),
            ("to", &self.to),
            ("proto", &self.proto),
            ("sport", &self.sport),
            ("dport", &self.dport),
            ("in", &self.in_interface),
            ("out", &self.out_interface),
            ("state", &self.state),
        ];
        let said: Vec<(&str, &str)> =
            said.into_iter().filter_map(|(key, value)| Some((key, value.as_deref()?))).collect();
        let mut packets = question::tests(family, &said).map_err(Failure::new)?;
        if !self.all {
            packets.push(query::whole());
        }
        Ok(Question {
            entry: diff::parse_entry(self.chain.as_deref().unwrap_or("filter/FORWARD"))?,
            packets,
            verdicts: asking::verdicts(self.verdict.as_deref().unwrap_or("ACCEPT")),
            work_max: WORK_MAX,
        })
    }
}

fn outcome(name: String, kind: &'static str, answer: &Answer, ruleset: &Ruleset) -> Outcome {
    if let Some(part) = answer.parts.first() {
        let conditions: String = part.conditions.iter().map(|c| format!(", where {c}")).collect();
        let why = format!("{}: {} by {}{conditions}", part.words, part.verdict, asking::by(part.by, ruleset));
        let witness = Some(packet_text::show(&part.packet).to_string());
        return Outcome { name, kind, outcome: "refuted", why: Some(why), witness };
    }
    match answer.undecided {
        Some(why) => Outcome { name, kind, outcome: "undecided", why: Some(why.to_owned()), witness: None },
        None => Outcome { name, kind, outcome: "proved", why: None, witness: None },
    }
}

fn print(out: &mut impl Write, outcomes: &[Outcome]) -> Result<(), Failure> {
    for o in outcomes {
        writeln!(out, "{:<9} {}", o.outcome, o.name)?;
        if let Some(why) = &o.why {
            writeln!(out, "          {why}")?;
        }
        if let Some(witness) = &o.witness {
            writeln!(out, "          as in --packet \"{witness}\"")?;
        }
    }
    let proved = outcomes.iter().filter(|o| o.outcome == "proved").count();
    writeln!(out, "{proved} of {} proved", output::counted(outcomes.len(), "statement"))?;
    Ok(())
}

#[derive(Serialize)]
struct Json<'a> {
    schema: &'static str,
    file: &'a str,
    statements: &'a [Outcome],
}

/// The form that CI systems read.
fn junit_xml(suite: &str, outcomes: &[Outcome]) -> String {
    let failures = outcomes.iter().filter(|o| o.outcome != "proved").count();
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let (suite, count) = (escaped(suite), outcomes.len());
    xml += &format!(
        "<testsuite name=\"{suite}\" tests=\"{count}\" failures=\"{failures}\" errors=\"0\" skipped=\"0\">\n"
    );
    for o in outcomes {
        let (name, kind) = (escaped(&o.name), o.kind);
        if o.outcome == "proved" {
            xml += &format!("  <testcase classname=\"{kind}\" name=\"{name}\"/>\n");
            continue;
        }
        let why = escaped(o.why.as_deref().unwrap_or_default());
        let witness = escaped(o.witness.as_deref().unwrap_or_default());
        xml += &format!(
            "  <testcase classname=\"{kind}\" name=\"{name}\">\n    <failure type=\"{0}\" message=\"{0}: {why}\">{witness}</failure>\n  </testcase>\n",
            o.outcome
        );
    }
    xml + "</testsuite>\n"
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
