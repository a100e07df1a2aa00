//! What the rules say of a packet, beside what the kernel did with it.

use std::collections::HashMap;

use hipac_classifier::wire::WireError;
use hipac_classifier::{Answer, CtState, InterfaceName, Packet};
use hipac_rules::{Hook, Residual, Ruleset, TableKind};

use super::host::Host;
use super::observe::{Line, LineKind};
use super::session::Traversal;
use crate::explain::{kernel, trace, way};
use crate::oracle::Target;
use crate::outcomes::Outcomes;
use crate::subject::{By, Evaluation, Event, Subject};
use crate::{Oracle, RuleId, fields};

/// Ways to answer residual matches that are tried before an evaluation counts as different.
const TRIES: usize = 256;

/// How a packet was sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) mac: Option<[u8; 6]>,
    pub(super) packet_type: u8,
}

/// What a comparison of one chain found.
#[derive(Debug)]
pub(super) struct Judged {
    /// The packet that both sides saw.
    pub(super) packet: Packet,
    /// What the oracle says.
    pub(super) evaluation: Evaluation,
    /// The packet as the chain has left it, by the oracle.
    pub(super) after: Packet,
    /// The kernel ended it without a rule or a policy.
    pub(super) kernel_dropped: bool,
    /// Residual matches were asked, and taken to come out so that the sides agree, if that is possible.
    pub(super) hangs: bool,
    /// What differs, with the lines of both sides; `None` when nothing does.
    pub(super) difference: Option<Differing>,
}

/// How two sides differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Differing {
    pub(super) kernel: Vec<String>,
    pub(super) ours: Vec<String>,
}

/// The packet of rules that the kernel had at this point.
pub(super) fn packet_of(of: &Traversal, host: &Host, sent: &Sent) -> Result<Packet, WireError> {
    let seen = &of.entry;
    let mut packet = Packet::from_ip_bytes(&seen.bytes)?;
    let name = |index| match index {
        0 => InterfaceName::NONE,
        index => InterfaceName::new(host.name_of(index)).unwrap_or(InterfaceName::NONE),
    };
    packet.in_interface = name(seen.in_index);
    packet.out_interface = name(seen.out_index);
    packet.mark = seen.mark;
    // Where nothing was asked, no rule looks at it.
    packet.ct_state = CtState::Invalid;
    of.probed.iter().for_each(|probe| probe.apply(&mut packet));
    packet.mac = sent.mac;
    packet.packet_type = sent.packet_type;
    packet.source_type = address_type(packet.is_v6, packet.source, host);
    packet.destination_type = address_type(packet.is_v6, packet.destination, host);
    Ok(packet)
}

/// The route type of this host's own addresses.
pub(super) const LOCAL: u8 = 2;

/// The route type of an address on this host.
fn address_type(is_v6: bool, address: u128, host: &Host) -> u8 {
    const UNSPEC: u8 = 0;
    const UNICAST: u8 = 1;
    const BROADCAST: u8 = 3;
    const MULTICAST: u8 = 5;
    if is_v6 {
        return match address {
            0 => UNSPEC,
            _ if address >> 120 == 0xff => MULTICAST,
            1 => LOCAL,
            _ if host.is_local(address) || host.is_all_local() => LOCAL,
            _ => UNICAST,
        };
    }
    match address {
        0 | 0x7fff_ffff | 0xffff_ffff => BROADCAST,
        _ if address >> 28 == 0xe => MULTICAST,
        _ if address >> 24 == 127 || host.is_local(address) || host.is_all_local() => LOCAL,
        _ => UNICAST,
    }
}

/// Holds one chain's lines against the oracle, and the oracle against `subject`.
pub(super) fn judge(
    oracle: &Oracle<'_>,
    subject: Option<&dyn Subject>,
    traversal: &Traversal,
    packet: Packet,
    in_full: bool,
) -> Judged {
    let (table, hook) = (traversal.table, traversal.hook);
    let ruleset = oracle.ruleset();
    let expected = matched(&traversal.lines, ruleset);
    let kernel_end = end(&traversal.lines, oracle, table, hook);
    let mut answers = Answers::guided_by(&expected);
    let mut first = None;
    let mut is_same = false;
    let mut evaluation = oracle.evaluate(table, hook, &packet, &mut answers.play());
    for _ in 0..TRIES {
        is_same = agrees(&evaluation, &expected, kernel_end);
        if is_same {
            break;
        }
        first.get_or_insert_with(|| (evaluation.clone(), answers.clone()));
        if !answers.next() {
            break;
        }
        evaluation = oracle.evaluate(table, hook, &packet, &mut answers.play());
    }
    if !is_same && let Some((of_first, of_guide)) = first {
        (evaluation, answers) = (of_first, of_guide);
        oracle.evaluate(table, hook, &packet, &mut answers.play());
    }
    let hangs = !answers.given.is_empty();
    let mut difference = (!is_same).then(|| full(oracle, traversal, &packet, &answers)).flatten();
    if !is_same && difference.is_none() {
        // The ends differ where the lines do not: a drop without a line.
        let kernel = traversal.lines.iter().map(show_line).collect();
        difference = Some(Differing { kernel, ours: vec![evaluation.verdict.show(ruleset).to_string()] });
    }
    if is_same && in_full {
        difference = full(oracle, traversal, &packet, &answers);
    }
    if difference.is_none()
        && let Some(subject) = subject
        && ruleset.table(table).is_some()
    {
        let theirs = subject.evaluate(table, hook, &packet, &mut answers.replay());
        if theirs != evaluation {
            let words = |e: &Evaluation| {
                let events = e.events.iter().map(|e| e.show(ruleset).to_string());
                events.chain([e.verdict.show(ruleset).to_string()]).collect()
            };
            difference = Some(Differing { kernel: words(&theirs), ours: words(&evaluation) });
        }
    }
    let after = after(oracle, &packet, &evaluation);
    Judged { packet, evaluation, after, kernel_dropped: kernel_end == End::Dropped, hangs, difference }
}

/// Compares the lines themselves, ends of chains included.
fn full(oracle: &Oracle<'_>, traversal: &Traversal, packet: &Packet, answers: &Answers) -> Option<Differing> {
    let ruleset = oracle.ruleset();
    let Some(table) = ruleset.table(traversal.table) else {
        // A table of ours: one line, its policy.
        return None;
    };
    let chain = table.chain_index(traversal.hook.name())?;
    let entry = RuleId::new(traversal.table, chain, 0)?;
    let found = trace(oracle, traversal.table, traversal.hook, packet, &mut answers.replay());
    let ours = kernel::lines(&found, ruleset, entry);
    let kernel: Vec<String> = traversal.lines.iter().map(show_line).collect();
    (ours != kernel).then_some(Differing { kernel, ours })
}

fn show_line(line: &Line) -> String {
    format!("TRACE: {}:{}:{}:{}", line.table.name(), line.chain, line.kind.word(), line.number)
}

/// The rules of the ruleset that lines are about, in order.
fn matched(lines: &[Line], ruleset: &Ruleset) -> Vec<RuleId> {
    lines.iter().filter_map(|line| RuleId::find(ruleset, line.table, &line.chain, line.number)).collect()
}

/// How the kernel ended a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Rule(RuleId),
    Policy,
    /// Without a line that says so.
    Dropped,
}

fn end(lines: &[Line], oracle: &Oracle<'_>, table: TableKind, hook: Hook) -> End {
    let Some(last) = lines.last() else { return End::Dropped };
    match RuleId::find(oracle.ruleset(), table, &last.chain, last.number) {
        Some(rule) => match oracle.target(rule) {
            Some(Target::Verdict(_)) => End::Rule(rule),
            _ => End::Dropped,
        },
        None if last.kind == LineKind::Policy && last.chain == hook.name() => End::Policy,
        None => End::Dropped,
    }
}

fn agrees(evaluation: &Evaluation, expected: &[RuleId], end: End) -> bool {
    let ours = evaluation.events.iter().filter_map(|event| match event {
        Event::Matched(rule) => Some(rule),
        Event::Residual { .. } => None,
    });
    let our_end = match evaluation.verdict.by {
        By::Rule(rule) => End::Rule(rule),
        By::Policy => End::Policy,
        By::Malformed(_) | By::GivenUp => End::Dropped,
    };
    our_end == end && ours.eq(expected)
}

/// The packet as the rules that matched have left it.
fn after(oracle: &Oracle<'_>, packet: &Packet, evaluation: &Evaluation) -> Packet {
    let mut packet = *packet;
    for event in &evaluation.events {
        if let Event::Matched(rule) = event
            && let Some(Target::Continue(effect)) = oracle.target(*rule)
        {
            fields::apply(effect, &mut packet);
        }
    }
    packet
}

/// Whether a verdict lets the packet go on to the next chain.
pub(super) fn goes_on(evaluation: &Evaluation) -> bool {
    way::goes_on(&evaluation.verdict.name)
}

/// Answers to residual matches: guided by what the kernel matched, then others, the last ones changed first.
#[derive(Debug, Clone)]
struct Answers {
    /// How often the kernel matched each rule.
    guide: HashMap<RuleId, usize>,
    /// Answers that are settled, in the order of questions.
    settled: Vec<bool>,
    /// The answers of the last run, whose question they answer, and whether the other one was tried.
    given: Vec<Given>,
}

#[derive(Debug, Clone, Copy)]
struct Given {
    rule: RuleId,
    match_index: usize,
    held: bool,
    is_pure: bool,
    is_turned: bool,
}

impl Answers {
    fn guided_by(expected: &[RuleId]) -> Answers {
        let mut guide = HashMap::new();
        for rule in expected {
            *guide.entry(*rule).or_insert(0) += 1;
        }
        Answers { guide, settled: Vec::new(), given: Vec::new() }
    }

    fn play(&mut self) -> Play<'_> {
        let turned = std::mem::take(&mut self.given);
        Play { answers: self, turned }
    }

    /// Another set of answers; `false` when all were tried.
    fn next(&mut self) -> bool {
        while let Some(last) = self.given.pop() {
            if !last.is_turned {
                self.settled = self.given.iter().map(|g| g.held).collect();
                self.settled.push(!last.held);
                self.given.push(Given { held: !last.held, is_turned: true, ..last });
                return true;
            }
        }
        false
    }

    /// The same answers once more, for another side that asks the same questions.
    fn replay(&self) -> Replay<'_> {
        Replay { given: &self.given, asked: HashMap::new() }
    }
}

struct Play<'a> {
    answers: &'a mut Answers,
    /// What the run before gave: which answers were turned already.
    turned: Vec<Given>,
}

impl Outcomes for Play<'_> {
    fn residual(&mut self, rule: RuleId, match_index: usize, kind: Residual, _: &Packet) -> Answer {
        let answers = &mut *self.answers;
        let place = answers.given.len();
        let is_pure = kind == Residual::Pure;
        // A pure match is a function of the packet.
        let before = answers.given.iter().find(|g| is_pure && (g.rule, g.match_index) == (rule, match_index));
        let (held, is_turned) = match (before, answers.settled.get(place)) {
            (Some(before), _) => (before.held, true),
            (None, Some(&held)) => (held, self.turned.get(place).is_some_and(|g| g.is_turned)),
            (None, None) => {
                let asked =
                    answers.given.iter().filter(|g| (g.rule, g.match_index) == (rule, match_index)).count();
                (asked < answers.guide.get(&rule).copied().unwrap_or(0), false)
            }
        };
        answers.given.push(Given { rule, match_index, held, is_pure, is_turned });
        held.into()
    }
}

struct Replay<'a> {
    given: &'a [Given],
    asked: HashMap<(RuleId, usize), usize>,
}

impl Outcomes for Replay<'_> {
    fn residual(&mut self, rule: RuleId, match_index: usize, _: Residual, _: &Packet) -> Answer {
        let asked = self.asked.entry((rule, match_index)).or_insert(0);
        let mut of_question = self.given.iter().filter(|g| (g.rule, g.match_index) == (rule, match_index));
        let found = of_question.clone().next().filter(|g| g.is_pure).or_else(|| of_question.nth(*asked));
        *asked += 1;
        found.is_some_and(|g| g.held).into()
    }
}
