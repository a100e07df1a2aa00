//! `hipac query`: which packets end so.

use std::collections::BTreeSet;
use std::io::Write;

use hipac_rules::Ruleset;
use hipac_verifier::query::{self, Answer, Part, Question, question};
use hipac_verifier::{By, Oracle, packet_text};
use serde::Serialize;

use crate::args::answers::QueryOptions;
use crate::args::{Format, RulesFile};
use crate::exit::{Exit, Failure};
use crate::output::{self, counted};
use crate::{input, progress};

pub(crate) fn run(of: &RulesFile, options: &QueryOptions, format: Format) -> Result<Exit, Failure> {
    let rules = input::rules(of)?;
    rules.report();
    let oracle = Oracle::new(&rules.ruleset).map_err(|e| Failure::at(&rules.name, e))?;
    let entry = input::built_in_chain(&rules.ruleset, &options.table, options.chain.as_deref())?;
    let said = said(options);
    let mut packets = question::tests(rules.ruleset.family, &said).map_err(Failure::new)?;
    if !options.all {
        packets.push(query::whole());
    }
    let question = Question {
        entry,
        packets,
        verdicts: verdicts(&options.verdict),
        work_max: options.work.saturating_mul(1_000_000),
    };
    let busy = progress::spinner("asking");
    let answer = query::query(&oracle, &question).map_err(|e| Failure::at(&rules.name, e));
    busy.finish_and_clear();
    let answer = answer?;
    let mut out = output::stdout();
    match format {
        Format::Json => output::json_line(&mut out, &Json::of(&answer, &rules.ruleset))?,
        Format::Text if options.services => services(&mut out, &answer)?,
        Format::Text => text(&mut out, &answer, &rules.ruleset)?,
    }
    if let Some(why) = answer.undecided {
        writeln!(out, "undecided beyond these: {why}")?;
    }
    out.flush()?;
    Ok(if answer.undecided.is_some() { Exit::Failed } else { Exit::Clean })
}

fn said(options: &QueryOptions) -> Vec<(&'static str, &str)> {
    let new = options.services.then_some("NEW");
    let state = options.state.as_deref().or(new);
    let all = [
        ("from", options.from.as_deref()),
        ("to", options.to.as_deref()),
        ("proto", options.proto.as_deref()),
        ("sport", options.sport.as_deref()),
        ("dport", options.dport.as_deref()),
        ("in", options.in_interface.as_deref()),
        ("out", options.out_interface.as_deref()),
        ("state", state),
    ];
    all.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

/// The verdicts that a word stands for.
pub(super) fn verdicts(word: &str) -> Vec<String> {
    match word.to_ascii_uppercase().as_str() {
        "DROP" => vec!["DROP".to_owned(), "REJECT".to_owned()],
        name => vec![name.to_owned()],
    }
}

/// `FORWARD rule 3 (line 14)`, or the policy.
pub(super) fn by(by: By, ruleset: &Ruleset) -> String {
    match by {
        By::Rule(rule) => rule.place(ruleset).to_string(),
        By::Malformed(rule) => format!("{}, header cut off", rule.place(ruleset)),
        By::Policy => "the policy".to_owned(),
        By::GivenUp => "nothing: given up".to_owned(),
    }
}

fn text(out: &mut impl Write, answer: &Answer, ruleset: &Ruleset) -> Result<(), Failure> {
    for part in &answer.parts {
        writeln!(out, "{}: {} by {}", part.words, part.verdict, by(part.by, ruleset))?;
        details(out, part)?;
    }
    if answer.parts.is_empty() && answer.undecided.is_none() {
        writeln!(out, "no packet: proved")?;
    }
    Ok(())
}

/// Conditions, exceptions and a packet, each on a line.
fn details(out: &mut impl Write, part: &Part) -> Result<(), Failure> {
    for condition in &part.conditions {
        writeln!(out, "    where {condition}")?;
    }
    if !part.except.is_empty() {
        writeln!(out, "    except what {} before take", counted(part.except.len(), "rule"))?;
    }
    let doubt = if part.is_confirmed { "" } else { " (not confirmed by the linear walk)" };
    writeln!(out, "    as in --packet \"{}\"{doubt}", packet_text::show(&part.packet))?;
    Ok(())
}

fn services(out: &mut impl Write, answer: &Answer) -> Result<(), Failure> {
    let mut rows: BTreeSet<Vec<String>> = BTreeSet::new();
    for part in &answer.parts {
        let [from, to, service, rest] = &part.columns;
        let mut notes: Vec<String> = part.conditions.clone();
        if rest != "any" && rest != "ctstate NEW" {
            notes.insert(0, rest.clone());
        }
        if !part.except.is_empty() {
            notes.push(format!("except {}", counted(part.except.len(), "rule")));
        }
        rows.insert(vec![from.clone(), to.clone(), service.clone(), notes.join("; ")]);
    }
    let rows: Vec<Vec<String>> = rows.into_iter().collect();
    write!(out, "{}", output::columns(&["from", "to", "service", "where"], &rows))?;
    Ok(())
}

#[derive(Serialize)]
struct Json {
    schema: &'static str,
    /// The parts are all of the answer.
    complete: bool,
    parts: Vec<PartJson>,
}

#[derive(Serialize)]
struct PartJson {
    packets: String,
    from: String,
    to: String,
    service: String,
    rest: String,
    packets_log2: f64,
    verdict: String,
    /// The line of the rule; null: the policy.
    line: Option<u32>,
    conditions: Vec<String>,
    /// Lines of rules before that take some of the packets.
    except_lines: Vec<u32>,
    witness: String,
    confirmed: bool,
}

impl Json {
    fn of(answer: &Answer, ruleset: &Ruleset) -> Json {
        let line = |rule: hipac_verifier::RuleId| rule.of(ruleset).map_or(0, |r| r.line);
        let parts = answer.parts.iter().map(|part| {
            let [from, to, service, rest] = part.columns.clone();
            PartJson {
                packets: part.words.clone(),
                from,
                to,
                service,
                rest,
                packets_log2: (part.bits.max(0.0) * 10.0).round() / 10.0,
                verdict: part.verdict.clone(),
                line: match part.by {
                    By::Rule(rule) | By::Malformed(rule) => Some(line(rule)),
                    By::Policy | By::GivenUp => None,
                },
                conditions: part.conditions.clone(),
                except_lines: part.except.iter().map(|&r| line(r)).collect(),
                witness: packet_text::show(&part.packet).to_string(),
                confirmed: part.is_confirmed,
            }
        });
        Json { schema: "hipac.query/1", complete: answer.undecided.is_none(), parts: parts.collect() }
    }
}
