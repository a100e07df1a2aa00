//! `hipac classify`: what happens to a packet, and why.

use std::collections::BTreeMap;
use std::io::Write;

use hipac_classifier::evaluate::EvaluateError;
use hipac_classifier::program::ResidualKind;
use hipac_classifier::{Answer as Outcome, Decision, EntryId, Host, Image, OriginId, Packet};
use hipac_compiler::Options;
use hipac_host::{Arrival, Origins, State};
use hipac_rules::{Family, Ruleset, TableKind};
use serde::Serialize;

use crate::args::{Assume, Format, Replay, RulesFile};
use crate::exit::{Exit, Failure};
use crate::input::{self, Input, OpenImage};
use crate::output;
use crate::packets::Source;
use crate::replay::Clock;

/// What is asked.
pub(crate) struct Question<'a> {
    pub(crate) source: Source<'a>,
    pub(crate) table: &'a str,
    pub(crate) chain: Option<&'a str>,
    pub(crate) assume: Assume,
    pub(crate) replay: &'a Replay,
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
            let image = Image::open(compiled.image.into()).map_err(|e| Failure::at(&rules.name, e))?;
            (image, Some((rules.ruleset, rules.name)))
        }
    };
    let family = if image.is_v6() { Family::V6 } else { Family::V4 };
    let packets = question.source.read(family)?;
    let place = find_entry(&image, question.table, question.chain)?;
    let mut replay = match &ruleset {
        Some((rules, name)) => Clock::new(question.replay, rules, name, &packets)?
            .zip(Origins::new(&image, rules))
            .map(|(clock, origins)| Replayed::new(clock, origins)),
        None if question.replay.is_asked_for() => {
            return Err(Failure::new(
                "an image does not hold what its residual matches compare with: give the rules to --clock and --at",
            ));
        }
        None => None,
    };
    let mut out = output::stdout();
    for (number, arrived) in (1..).zip(&packets) {
        let default = question.assume == Assume::Hold;
        let asking = Asking { image: &image, entry: place, packet: &arrived.packet, default };
        let (answer, given) = match &mut replay {
            None => (asking.answer(&mut None)?, None),
            Some(replayed) => {
                let arrival = replayed.clock.arrival(arrived);
                let (state, origins) = (&mut replayed.clock.state, &replayed.origins);
                let behind = replayed.behind.as_mut();
                let answer = asking.answer(&mut Some(Known { state, behind, origins, arrival }))?;
                if let Some(behind) = &mut replayed.behind {
                    behind.missed.push((&arrived.packet, arrival));
                }
                // What was assumed of one packet has left its traces for those that follow.
                let given = replayed.assumed_of.filter(|_| answer.is_stateful);
                if replayed.assumed_of.is_none() && answer.leaves_traces {
                    replayed.assumed_of = Some(number);
                }
                (answer, given)
            }
        };
        let show = Show { image: &image, ruleset: ruleset.as_ref().map(|(rules, _)| rules), entry: place };
        let line = show.line(&answer, given);
        match format {
            Format::Json => output::json_line(&mut out, &line)?,
            Format::Text => line.text(&mut out)?,
        }
    }
    out.flush()?;
    Ok(Exit::Clean)
}

/// A replay under way.
struct Replayed<'p> {
    clock: Clock,
    origins: Origins,
    /// When other ends may be asked for.
    behind: Option<Behind<'p>>,
    /// The first packet, from 1, of which something was assumed.
    assumed_of: Option<usize>,
}

impl Replayed<'_> {
    fn new(clock: Clock, origins: Origins) -> Self {
        let behind = clock.may_not_know.then(|| Behind { state: clock.state.clone(), missed: Vec::new() });
        Replayed { clock, origins, behind, assumed_of: None }
    }
}

/// The state before a packet came: as it was some packets ago, and these. It catches up when a packet has
/// other ends to look for. Most have none, and a copy for each would cost what all flows so far take.
struct Behind<'p> {
    state: State,
    missed: Vec<(&'p Packet, Arrival<'p>)>,
}

impl Behind<'_> {
    /// Lets the packets come that the state has missed, once more as they came.
    fn catch_up(&mut self, asking: &Asking<'_>, origins: &Origins) -> Result<(), Failure> {
        let &Asking { image, entry, default, .. } = asking;
        for (packet, arrival) in self.missed.drain(..) {
            let known = Known { state: &mut self.state, behind: None, origins, arrival };
            Asking { image, entry, packet, default }.evaluate(&mut Some(known), &BTreeMap::new())?;
        }
        Ok(())
    }
}

/// The entry that is meant: its id, with the names for messages.
pub(super) fn find_entry(image: &OpenImage, table: &str, chain: Option<&str>) -> Result<EntryId, Failure> {
    let kind = TableKind::from_name(table).ok_or_else(|| {
        Failure::new(format_args!("there is no table `{table}`: give filter, nat, mangle, raw or security"))
    })?;
    let default = if kind.hooks().contains(&hipac_rules::Hook::Forward) { "FORWARD" } else { "PREROUTING" };
    let chain = chain.unwrap_or(default);
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
    /// The residual matches that were evaluated and are known, with what came out.
    known: Vec<(Asked, Outcome)>,
    /// One of them counts or remembers.
    is_stateful: bool,
    /// What the rules keep from here on hangs on what was assumed.
    leaves_traces: bool,
    /// Those that are not known, with what they were taken to do.
    assumed: Vec<(Asked, bool)>,
    /// Other ends, were some residual matches to come out differently.
    otherwise: Vec<Decision>,
    /// There may be more of them.
    has_more: bool,
}

/// Evaluations tried to find out what an answer hangs on.
const TRIES_MAX: usize = 256;

/// One packet that is asked about.
struct Asking<'a> {
    image: &'a OpenImage,
    entry: EntryId,
    packet: &'a Packet,
    /// What residual matches that are not known are taken to do.
    default: bool,
}

/// What a clock lets one know.
struct Known<'a, 'p> {
    state: &'a mut State,
    /// What leads to the state before the packet came, when other ends may be asked for.
    behind: Option<&'a mut Behind<'p>>,
    origins: &'a Origins,
    arrival: Arrival<'p>,
}

/// What came of one evaluation.
struct Came {
    decision: Decision,
    known: Vec<(Asked, Outcome)>,
    /// Those of them that count or remember, in order, with the one field that rules change and they look at.
    counted: Vec<(Asked, u8)>,
    assumed: Vec<(Asked, bool)>,
}

impl Asking<'_> {
    fn answer(&self, known: &mut Option<Known<'_, '_>>) -> Result<Answer, Failure> {
        let came = self.evaluate(known, &BTreeMap::new())?;
        let Came { decision, known: holding, counted, assumed } = came;
        let counts_targets = known.as_ref().is_some_and(|known| known.state.counts_targets());
        let mut answer = Answer {
            decision,
            known: holding,
            is_stateful: !counted.is_empty(),
            leaves_traces: counts_targets && !assumed.is_empty(),
            assumed,
            otherwise: Vec::new(),
            has_more: false,
        };
        if !answer.assumed.is_empty()
            && let Some(Known { behind: Some(behind), origins, .. }) = known
        {
            behind.catch_up(self, origins)?;
        }
        // Every way the residual matches can come out: flip one at a time, depth first.
        let mut open = vec![(BTreeMap::new(), answer.assumed.clone(), 0)];
        let mut tries = 0;
        while let Some((fixed, asked, from)) = open.pop() {
            for at in from..asked.len() {
                tries += 1;
                if tries > TRIES_MAX {
                    (answer.has_more, answer.leaves_traces) = (true, true);
                    return Ok(answer);
                }
                let mut fixed: BTreeMap<Asked, bool> = fixed.clone();
                fixed.extend(asked[..at].iter().copied());
                fixed.insert(asked[at].0, !asked[at].1);
                let came = self.evaluate_aside(known, &fixed)?;
                // The same questions leave the same state behind.
                answer.leaves_traces |= came.counted != counted;
                if came.decision != decision && !answer.otherwise.contains(&came.decision) {
                    answer.otherwise.push(came.decision);
                }
                open.push((fixed, came.assumed, at + 1));
            }
        }
        Ok(answer)
    }

    /// Evaluates the packet from the state before it, and leaves the state as it is.
    fn evaluate_aside(
        &self,
        known: &Option<Known<'_, '_>>,
        fixed: &BTreeMap<Asked, bool>,
    ) -> Result<Came, Failure> {
        let Some(Known { behind, origins, arrival, .. }) = known else {
            return self.evaluate(&mut None, fixed);
        };
        let before = behind.as_ref().map(|behind| behind.state.clone());
        let mut state = before.ok_or_else(|| Failure::new("an answer that should be known is not"))?;
        let known = Known { state: &mut state, behind: None, origins, arrival: *arrival };
        self.evaluate(&mut Some(known), fixed)
    }

    fn evaluate(
        &self,
        known: &mut Option<Known<'_, '_>>,
        fixed: &BTreeMap<Asked, bool>,
    ) -> Result<Came, Failure> {
        let arrival = known.as_ref().map(|known| known.arrival);
        let mut host = Recorder {
            default: self.default,
            fixed,
            known: known.as_mut(),
            arrival,
            assumed: Vec::new(),
            answered: Vec::new(),
            counted: Vec::new(),
        };
        let decision = self.image.evaluate(self.entry, &mut self.packet.clone(), &mut host);
        let decision = decision.map_err(|e: EvaluateError| Failure::new(e))?;
        let Recorder { assumed, answered, counted, .. } = host;
        Ok(Came { decision, known: answered, counted, assumed })
    }
}

struct Recorder<'a, 'k, 'p> {
    default: bool,
    fixed: &'a BTreeMap<Asked, bool>,
    known: Option<&'a mut Known<'k, 'p>>,
    /// Rules change what is known of the packet; the next evaluation begins anew.
    arrival: Option<Arrival<'p>>,
    assumed: Vec<(Asked, bool)>,
    answered: Vec<(Asked, Outcome)>,
    counted: Vec<(Asked, u8)>,
}

impl Host for Recorder<'_, '_, '_> {
    fn residual(&mut self, rule: OriginId, match_index: u8, kind: ResidualKind, packet: &Packet) -> Outcome {
        let asked = Asked { rule, match_index };
        if let (Some(known), Some(arrival)) = (&mut self.known, &self.arrival)
            && let Some(place) = known.origins.place(rule)
            && let Some(outcome) = known.state.ask(place, match_index.into(), packet, arrival)
        {
            self.answered.push((asked, outcome));
            if kind != ResidualKind::Pure {
                self.counted.push((asked, packet.ttl));
            }
            return outcome;
        }
        let held = self.fixed.get(&asked).copied().unwrap_or(self.default);
        if !self.assumed.iter().any(|(a, _)| *a == asked) {
            self.assumed.push((asked, held));
        }
        Outcome::from(held)
    }

    fn matched(&mut self, rule: OriginId, packet: &Packet) {
        if let (Some(known), Some(arrival)) = (&mut self.known, &mut self.arrival)
            && let Some(place) = known.origins.place(rule)
        {
            known.state.matched(place, packet, arrival);
        }
    }
}

/// One line of JSON, and what the text is made of.
#[derive(Serialize)]
struct Line {
    schema: &'static str,
    #[serde(flatten)]
    end: End,
    /// The answer does not hang on any residual match.
    certain: bool,
    /// Residual matches that were evaluated and worked out, and what came out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    evaluated: Vec<AssumedLine>,
    /// Residual matches that were evaluated, and what they were taken to do.
    assumed: Vec<AssumedLine>,
    /// The first packet of the replay, from 1, of which something was assumed: what the rules keep since hangs
    /// on that, and this answer on what they keep.
    #[serde(skip_serializing_if = "Option::is_none")]
    given_assumed_of: Option<usize>,
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
    /// The residual match that dropped the packet at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped_by: Option<String>,
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
    image: &'a OpenImage,
    ruleset: Option<&'a Ruleset>,
    entry: EntryId,
}

impl Show<'_> {
    fn line(&self, answer: &Answer, given_assumed_of: Option<usize>) -> Line {
        let assumed = answer.assumed.iter().map(|&(asked, holds)| self.assumed(asked, holds));
        let known = answer.known.iter().map(|&(asked, came)| self.assumed(asked, came == Outcome::Holds));
        let mut end = self.end(answer.decision);
        if let (Decision::Malformed { .. }, Some(&(asked, Outcome::Drops))) =
            (answer.decision, answer.known.last())
        {
            end.malformed = false;
            end.dropped_by = Some(self.assumed(asked, false).name);
        }
        Line {
            schema: "hipac.classify/1",
            end,
            certain: answer.otherwise.is_empty() && !answer.has_more && given_assumed_of.is_none(),
            evaluated: known.collect(),
            assumed: assumed.collect(),
            given_assumed_of,
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
            dropped_by: None,
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
            (Some(rule), Some(line)) => match &self.dropped_by {
                Some(name) => {
                    format!("{verdict} at once by {name} of {table}/{chain} rule {rule} (line {line})")
                }
                None => format!("{verdict} by {table}/{chain} rule {rule} (line {line})"),
            },
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
        if let Some(number) = self.given_assumed_of {
            writeln!(out, "  given what was assumed of packet {number} and those after it")?;
        }
        for a in self.assumed.iter().filter(|_| !self.otherwise.is_empty() || self.otherwise_incomplete) {
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
