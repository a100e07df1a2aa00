//! `hipac classify`: what happens to a packet, and why.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use hipac_classifier::evaluate::EvaluateError;
use hipac_classifier::program::ResidualKind;
use hipac_classifier::{Decision, EntryId, Host, Image, OriginId, Packet};
use hipac_compiler::Options;
use hipac_rules::{Family, Ruleset, TableKind};
use serde::Serialize;

use crate::args::{Assume, Format, RulesFile};
use crate::exit::{Exit, Failure};
use crate::input::{self, Input};
use crate::{output, packets};

/// What is asked.
pub(crate) struct Question<'a> {
    pub(crate) packet: Option<&'a str>,
    pub(crate) trace: Option<&'a Path>,
    pub(crate) table: &'a str,
    pub(crate) chain: Option<&'a str>,
    pub(crate) assume: Assume,
}

pub(crate) fn run(of: &RulesFile, question: &Question<'_>, format: Format) -> Result<Exit, Failure> {
    let (image, ruleset) = match input::rules_or_image(of)? {
        Input::Image(image) => (*image, None),
        Input::Rules(rules) => {
            rules.report();
            // Nothing is deployed: the largest image will do.
            let options = Options { memory_bytes_max: usize::MAX, ..Options::default() };
            let compiled = hipac_compiler::compile(&rules.ruleset, &options);
            let compiled = compiled.map_err(|e| Failure::at(&rules.name, e))?;
            let image = Image::open(compiled.image).map_err(|e| Failure::at(&rules.name, e))?;
            (image, Some(rules.ruleset))
        }
    };
    let family = if image.is_v6() { Family::V6 } else { Family::V4 };
    let packets = match (question.packet, question.trace) {
        (Some(text), _) => vec![packets::of_flags(text, family)?],
        (None, Some(path)) => packets::of_trace(path, family)?,
        (None, None) => return Err(Failure::new("name a packet (--packet) or a trace (--trace)")),
    };
    let place = find_entry(&image, question)?;
    let mut out = output::stdout();
    for packet in &packets {
        let answer = answer(&image, place, packet, question.assume)?;
        let show = Show { image: &image, ruleset: ruleset.as_ref(), entry: place };
        let line = show.line(&answer);
        match format {
            Format::Json => output::json_line(&mut out, &line)?,
            Format::Text => line.text(&mut out)?,
        }
    }
    out.flush()?;
    Ok(Exit::Clean)
}

/// The entry that is meant: its id, with the names for messages.
fn find_entry(image: &Image<Vec<u8>>, question: &Question<'_>) -> Result<EntryId, Failure> {
    let table = question.table;
    let kind = TableKind::from_name(table).ok_or_else(|| {
        Failure::new(format_args!("there is no table `{table}`: give filter, nat, mangle, raw or security"))
    })?;
    let default = if kind.hooks().contains(&hipac_rules::Hook::Forward) { "FORWARD" } else { "PREROUTING" };
    let chain = question.chain.unwrap_or(default);
    image.find_entry(&format!("{table}/{chain}")).ok_or_else(|| {
        let known: Vec<&str> = image.entries().filter(|(_, e, _)| !e.called).map(|(.., name)| name).collect();
        let known = if known.is_empty() { "none at all".to_owned() } else { known.join(", ") };
        Failure::new(format_args!("these rules have no built-in chain {table}/{chain}; they have {known}"))
    })
}

/// A residual match that was evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Asked {
    rule: OriginId,
    match_index: u8,
}

/// What happens to a packet, given what residual matches are taken to do.
struct Answer {
    decision: Decision,
    /// The residual matches evaluated, with what they were taken to do.
    assumed: Vec<(Asked, bool)>,
    /// Other ends, were some residual matches to come out differently.
    otherwise: Vec<Decision>,
    /// There may be more of them.
    has_more: bool,
}

/// Evaluations tried to find out what an answer hangs on.
const TRIES_MAX: usize = 256;

fn answer(
    image: &Image<Vec<u8>>,
    entry: EntryId,
    packet: &Packet,
    assume: Assume,
) -> Result<Answer, Failure> {
    let default = assume == Assume::Hold;
    let (decision, assumed) = evaluate(image, entry, packet, default, &BTreeMap::new())?;
    // Every way the residual matches can come out: flip one at a time, depth first.
    let mut otherwise = Vec::new();
    let mut open = vec![(BTreeMap::new(), assumed.clone(), 0)];
    let mut tries = 0;
    while let Some((fixed, asked, from)) = open.pop() {
        for at in from..asked.len() {
            tries += 1;
            if tries > TRIES_MAX {
                return Ok(Answer { decision, assumed, otherwise, has_more: true });
            }
            let mut fixed: BTreeMap<Asked, bool> = fixed.clone();
            fixed.extend(asked[..at].iter().copied());
            fixed.insert(asked[at].0, !asked[at].1);
            let (other, asked) = evaluate(image, entry, packet, default, &fixed)?;
            if other != decision && !otherwise.contains(&other) {
                otherwise.push(other);
            }
            open.push((fixed, asked, at + 1));
        }
    }
    Ok(Answer { decision, assumed, otherwise, has_more: false })
}

struct Recorder<'a> {
    default: bool,
    fixed: &'a BTreeMap<Asked, bool>,
    asked: Vec<(Asked, bool)>,
}

impl Host for Recorder<'_> {
    fn residual(&mut self, rule: OriginId, match_index: u8, _: ResidualKind, _: &Packet) -> bool {
        let asked = Asked { rule, match_index };
        let held = self.fixed.get(&asked).copied().unwrap_or(self.default);
        if !self.asked.iter().any(|(a, _)| *a == asked) {
            self.asked.push((asked, held));
        }
        held
    }
}

fn evaluate(
    image: &Image<Vec<u8>>,
    entry: EntryId,
    packet: &Packet,
    default: bool,
    fixed: &BTreeMap<Asked, bool>,
) -> Result<(Decision, Vec<(Asked, bool)>), Failure> {
    let mut host = Recorder { default, fixed, asked: Vec::new() };
    let decision = image.evaluate(entry, &mut packet.clone(), &mut host);
    let decision = decision.map_err(|e: EvaluateError| Failure::new(e))?;
    Ok((decision, host.asked))
}

/// One line of JSON, and what the text is made of.
#[derive(Serialize)]
struct Line {
    schema: &'static str,
    #[serde(flatten)]
    end: End,
    /// The answer does not hang on any residual match.
    certain: bool,
    /// Residual matches that were evaluated, and what they were taken to do.
    assumed: Vec<AssumedLine>,
    /// How it would end, were some of them to come out differently.
    otherwise: Vec<End>,
    /// There may be more ends than `otherwise` holds.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    otherwise_incomplete: bool,
}

/// A verdict and who gave it.
#[derive(Serialize)]
struct End {
    verdict: String,
    table: String,
    chain: String,
    /// Number in the chain, from 1; null: the policy.
    rule: Option<u32>,
    line: Option<u32>,
    /// The packet's transport header is cut off, and a match dropped it for that.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    malformed: bool,
}

#[derive(Serialize)]
struct AssumedLine {
    table: String,
    chain: String,
    rule: u32,
    line: u32,
    #[serde(rename = "match")]
    name: String,
    holds: bool,
}

struct Show<'a> {
    image: &'a Image<Vec<u8>>,
    ruleset: Option<&'a Ruleset>,
    entry: EntryId,
}

impl Show<'_> {
    fn line(&self, answer: &Answer) -> Line {
        let assumed = answer.assumed.iter().map(|&(asked, holds)| self.assumed(asked, holds));
        Line {
            schema: "hipac.classify/1",
            end: self.end(answer.decision),
            certain: answer.otherwise.is_empty() && !answer.has_more,
            assumed: assumed.collect(),
            otherwise: answer.otherwise.iter().map(|&d| self.end(d)).collect(),
            otherwise_incomplete: answer.has_more,
        }
    }

    fn end(&self, decision: Decision) -> End {
        let (verdict, rule, malformed) = match decision {
            Decision::Rule { verdict, rule } => (self.image.verdict_name(verdict), Some(rule), false),
            Decision::Default { verdict } => (self.image.verdict_name(verdict), None, false),
            Decision::Malformed { rule } => ("DROP", Some(rule), true),
        };
        let origin = rule.and_then(|rule| self.image.origin(rule));
        let list = match origin {
            Some(origin) => self.image.name(origin.list),
            None => self.image.entry(self.entry).map_or("", |e| self.image.name(e.name)),
        };
        let (table, chain) = list.split_once('/').unwrap_or(("", list));
        End {
            verdict: verdict.to_owned(),
            table: table.to_owned(),
            chain: chain.to_owned(),
            rule: origin.map(|o| o.number),
            line: origin.map(|o| o.line),
            malformed,
        }
    }

    fn assumed(&self, asked: Asked, holds: bool) -> AssumedLine {
        let origin = self.image.origin(asked.rule);
        let list = origin.map_or("", |o| self.image.name(o.list));
        let (table, chain) = list.split_once('/').unwrap_or(("", list));
        let (number, line) = origin.map_or((0, 0), |o| (o.number, o.line));
        // An image does not know the names of matches, the rules do.
        let name = self.ruleset.and_then(|ruleset| {
            let chain = ruleset.table(TableKind::from_name(table)?)?.chain(chain)?;
            let rule = chain.rules.get(number.checked_sub(1)? as usize)?;
            Some(rule.matches.get(usize::from(asked.match_index))?.name().to_owned())
        });
        AssumedLine {
            table: table.to_owned(),
            chain: chain.to_owned(),
            rule: number,
            line,
            name: name.unwrap_or_else(|| format!("match {}", asked.match_index + 1)),
            holds,
        }
    }
}

impl End {
    fn text(&self) -> String {
        let Self { verdict, table, chain, .. } = self;
        match (self.rule, self.line) {
            (Some(rule), Some(line)) if self.malformed => {
                format!("{verdict} at {table}/{chain} rule {rule} (line {line}): transport header cut off")
            }
            (Some(rule), Some(line)) => format!("{verdict} by {table}/{chain} rule {rule} (line {line})"),
            _ => format!("{verdict} by the policy of {table}/{chain}"),
        }
    }
}

impl Line {
    fn text(&self, out: &mut impl Write) -> Result<(), Failure> {
        writeln!(out, "{}", self.end.text())?;
        if self.certain {
            return Ok(());
        }
        for a in &self.assumed {
            let (name, holds) = (&a.name, if a.holds { "holds" } else { "does not hold" });
            writeln!(
                out,
                "  if {name} of {}/{} rule {} (line {}) {holds}",
                a.table, a.chain, a.rule, a.line
            )?;
        }
        for end in &self.otherwise {
            writeln!(out, "  otherwise {}", end.text())?;
        }
        if self.otherwise_incomplete {
            writeln!(out, "  … and maybe other ends: {TRIES_MAX} ways were tried")?;
        }
        Ok(())
    }
}
