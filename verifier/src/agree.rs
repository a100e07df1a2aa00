//! Holding a subject against the oracle.
//!
//! ```text
//!   blocks of cases ──▶ threads: oracle and subject evaluate each
//!                   ──▶ in the order of blocks: count, keep one case of each difference
//!                   ──▶ shrink ──▶ report
//! ```
//!
//! Threads take blocks as they come, but results are folded in the order of their numbers, and folding ends
//! at the block that brings the last difference asked for. So a report depends on the rules, the subject and
//! the seed, never on how many threads made it.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;

use hipac_rules::{Hook, Ruleset, TableKind, Target};

use crate::draw::{BLOCK_CASES, Case, Drawer};
use crate::outcomes::Script;
use crate::packet_text;
use crate::rule_id::RuleId;
use crate::shrink::shrink;
use crate::subject::{By, Evaluation, Event, Subject};
use crate::{Oracle, fields};

/// What [`check`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// How many packets to draw.
    pub packets: u64,
    /// What they are drawn from.
    pub seed: u64,
    /// Threads; `None`: one for each processor.
    pub threads: Option<NonZeroUsize>,
    /// It ends early after this many different mismatches.
    pub mismatches_max: usize,
    /// The matches that are compared.
    pub compared: Compared,
}

/// Which rules must match on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compared {
    /// Every rule.
    #[default]
    All,
    /// All but jumps, gotos and rules without a target: for a subject that leaves out what only counts.
    Deciding,
}

impl Default for Options {
    fn default() -> Self {
        Options { packets: 100_000, seed: 1, threads: None, mismatches_max: 5, compared: Compared::All }
    }
}

/// How far a [`check`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Packets compared.
    pub packets: u64,
    /// Packets to compare.
    pub packets_all: u64,
    /// Packets on which the two differ.
    pub differing: u64,
}

/// What a [`check`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Packets compared.
    pub packets: u64,
    /// Packets on which the two differ.
    pub differing: u64,
    /// Packets among `packets` whose evaluation one of them gave up ([`By::GivenUp`]): they say nothing.
    pub given_up: u64,
    /// Rules that matched a packet at the oracle.
    pub rules_matched: usize,
    /// Rules of the ruleset.
    pub rules: usize,
    /// One for each difference: the smallest packet found that shows it.
    pub mismatches: Vec<Mismatch>,
}

/// A packet on which oracle and subject differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// The smallest case found.
    pub case: Case,
    /// The case that was drawn.
    pub drawn: Case,
    /// What the oracle says of the smallest case.
    pub expected: Evaluation,
    /// What the subject says of it.
    pub found: Evaluation,
}

/// One step of an evaluation: an event, and last the verdict.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Step {
    Event(Event),
    Verdict(String, By),
}

/// Where two evaluations part.
type Parting = (TableKind, Hook, Step, Step);

/// What a thread found in one block.
struct Block {
    packets: u64,
    differing: u64,
    given_up: u64,
    matched: HashSet<RuleId>,
    /// The first case of each difference, in order.
    cases: Vec<(Parting, Case)>,
}

/// Compares whole evaluations on packets drawn for the oracle's rules, and shrinks what differs.
///
/// `progress` is called after every block of [`BLOCK_CASES`] packets, from the calling thread.
///
/// # Cost
///
/// Two evaluations a packet, up to 12 more by the oracle to draw it (where earlier rules are in the way), and
/// up to 4,000 for each mismatch reported.
pub fn check(
    oracle: &Oracle<'_>,
    subject: &dyn Subject,
    options: &Options,
    progress: &mut dyn FnMut(Progress),
) -> Report {
    let drawer = Drawer::new(oracle, options.seed);
    let sides = Sides { oracle, subject, compared: options.compared };
    let mut found = Found::default();
    let threads = options.threads.or_else(|| thread::available_parallelism().ok()).map_or(1, usize::from);
    let (next, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        // Bounded: threads wait when folding is slower than they are.
        let (sender, receiver) = mpsc::sync_channel(threads);
        for _ in 0..threads {
            let (sender, drawer, sides, next, is_over) = (sender.clone(), &drawer, &sides, &next, &is_over);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(cases) = cases_of(drawer, number, options.packets) else { break };
                    if sender.send((number, compare(sides, &cases))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let mut waiting = BTreeMap::new();
        'fold: for (number, block) in receiver {
            waiting.insert(number, block);
            while let Some(block) = waiting.remove(&found.blocks) {
                found.fold(block);
                progress(Progress {
                    packets: found.packets,
                    packets_all: options.packets,
                    differing: found.differing,
                });
                if found.cases.len() >= options.mismatches_max.max(1) {
                    is_over.store(true, Ordering::Relaxed);
                    break 'fold;
                }
            }
        }
    });
    found.report(&sides, options)
}

/// The cases of a block; `None` past the last.
fn cases_of(drawer: &Drawer<'_>, number: u64, packets: u64) -> Option<Vec<Case>> {
    let left = packets.checked_sub(number.checked_mul(BLOCK_CASES)?).filter(|&left| left > 0)?;
    let mut cases = drawer.block(number);
    cases.truncate(usize::try_from(left).unwrap_or(usize::MAX));
    (!cases.is_empty()).then_some(cases)
}

fn compare(sides: &Sides<'_>, cases: &[Case]) -> Block {
    let mut block = Block {
        packets: cases.len() as u64,
        differing: 0,
        given_up: 0,
        matched: HashSet::new(),
        cases: Vec::new(),
    };
    let mut seen = HashSet::new();
    for case in cases {
        let (expected, found) = sides.evaluate(case);
        block.given_up += u64::from(is_given_up(&expected, &found));
        block.matched.extend(expected.events.iter().filter_map(|event| match event {
            Event::Matched(rule) => Some(*rule),
            Event::Residual { .. } => None,
        }));
        if let Some((_, ours, theirs)) = parting(&expected, &found) {
            block.differing += 1;
            let key = (case.table, case.hook, ours, theirs);
            if seen.insert(key.clone()) {
                block.cases.push((key, *case));
            }
        }
    }
    block
}

/// The two that are held against each other.
struct Sides<'a> {
    oracle: &'a Oracle<'a>,
    subject: &'a dyn Subject,
    compared: Compared,
}

impl Sides<'_> {
    /// What the oracle says of a case, and what the subject says.
    fn evaluate(&self, case: &Case) -> (Evaluation, Evaluation) {
        let ask = |of: &dyn Subject| {
            let mut evaluation = of.evaluate(case.table, case.hook, &case.packet, &mut case.outcomes.play());
            if self.compared == Compared::Deciding {
                evaluation.events.retain(|event| !self.only_counts(event));
            }
            evaluation
        };
        (ask(self.oracle), ask(self.subject))
    }

    /// The event is the match of a rule that decides nothing and acts on nothing.
    fn only_counts(&self, event: &Event) -> bool {
        let Event::Matched(rule) = event else { return false };
        let target = rule.of(self.oracle.ruleset()).map(|rule| &rule.target);
        matches!(target, Some(Target::Jump(_) | Target::Goto(_) | Target::None))
    }
}

fn is_given_up(expected: &Evaluation, found: &Evaluation) -> bool {
    expected.verdict.by == By::GivenUp || found.verdict.by == By::GivenUp
}

/// The first step that is not the same, with its position; `None` when all are, or one side gave up.
fn parting(expected: &Evaluation, found: &Evaluation) -> Option<(usize, Step, Step)> {
    if expected == found || is_given_up(expected, found) {
        return None;
    }
    let alike = expected.events.iter().zip(&found.events).take_while(|(a, b)| a == b).count();
    Some((alike, step(expected, alike), step(found, alike)))
}

fn step(evaluation: &Evaluation, position: usize) -> Step {
    match evaluation.events.get(position) {
        Some(event) => Step::Event(*event),
        None => Step::Verdict(evaluation.verdict.name.to_string(), evaluation.verdict.by),
    }
}

/// Blocks folded so far.
#[derive(Default)]
struct Found {
    blocks: u64,
    packets: u64,
    differing: u64,
    given_up: u64,
    matched: HashSet<RuleId>,
    seen: HashSet<Parting>,
    cases: Vec<Case>,
}

impl Found {
    fn fold(&mut self, block: Block) {
        self.blocks += 1;
        self.packets += block.packets;
        self.differing += block.differing;
        self.given_up += block.given_up;
        self.matched.extend(block.matched);
        for (key, case) in block.cases {
            if self.seen.insert(key) {
                self.cases.push(case);
            }
        }
    }

    fn report(self, sides: &Sides<'_>, options: &Options) -> Report {
        let mut mismatches: Vec<Mismatch> = Vec::new();
        for drawn in self.cases.into_iter().take(options.mismatches_max) {
            let case = shrink(drawn, |case| {
                let (expected, found) = sides.evaluate(case);
                parting(&expected, &found).is_some()
            });
            let (expected, found) = sides.evaluate(&case);
            // Different cases can shrink to one.
            if !mismatches.iter().any(|m| m.case == case) {
                mismatches.push(Mismatch { case, drawn, expected, found });
            }
        }
        Report {
            packets: self.packets,
            differing: self.differing,
            given_up: self.given_up,
            rules_matched: self.matched.len(),
            rules: sides.oracle.ruleset().rule_count(),
            mismatches,
        }
    }
}

impl Report {
    /// Whether nothing differs. (Whether enough was compared is for the reader of the counts to say.)
    pub fn is_agreement(&self) -> bool {
        self.differing == 0
    }

    /// The report in words, with every mismatch.
    pub fn show<'a>(&'a self, ruleset: &'a Ruleset) -> impl fmt::Display + 'a {
        fmt::from_fn(move |f| {
            write!(f, "{} packets, {} of {} rules matched", self.packets, self.rules_matched, self.rules)?;
            if self.given_up > 0 {
                write!(f, ", {} given up after too many steps", self.given_up)?;
            }
            match self.differing {
                0 => f.write_str(": no difference"),
                n => write!(f, ": {n} differ"),
            }?;
            self.mismatches.iter().try_for_each(|m| write!(f, "\n\n{}", m.show(ruleset)))
        })
    }
}

/// Steps alike that are printed before the one that differs.
const STEPS_BEFORE: usize = 3;

impl Mismatch {
    /// The packet in `iptables`' own flags, and where the evaluations part:
    ///
    /// ```text
    /// filter/FORWARD: -i eth0 -p tcp --dport 22
    ///     both     matched filter/FORWARD rule 1 (line 4)
    ///   ▶ oracle   DROP by filter/FORWARD rule 2 (line 5)
    ///   ▶ subject  ACCEPT by policy
    /// ```
    pub fn show<'a>(&'a self, ruleset: &'a Ruleset) -> impl fmt::Display + 'a {
        fmt::from_fn(move |f| {
            let Case { table, hook, packet, outcomes } = &self.case;
            write!(f, "{}/{}: ", table.name(), hook.name())?;
            if *packet == fields::default_packet(ruleset.family) {
                f.write_str("(every field at its default)")?;
            }
            write!(f, "{}", packet_text::show(packet))?;
            let evaluations = [("oracle ", &self.expected), ("subject", &self.found)];
            if evaluations.iter().any(|(_, e)| e.events.iter().any(|e| matches!(e, Event::Residual { .. }))) {
                match outcomes {
                    Script::AllHold => f.write_str("\n    when every residual match holds")?,
                    Script::NoneHolds => f.write_str("\n    when no residual match holds")?,
                    Script::Drawn(seed) => write!(f, "\n    with residual matches drawn from seed {seed}")?,
                }
            }
            let position = parting(&self.expected, &self.found).map_or(0, |p| p.0);
            let hidden = position.saturating_sub(STEPS_BEFORE);
            if hidden > 0 {
                write!(f, "\n    both     … {hidden} events alike")?;
            }
            for event in &self.expected.events[hidden..position] {
                write!(f, "\n    both     {}", event.show(ruleset))?;
            }
            for (name, evaluation) in evaluations {
                match evaluation.events.get(position) {
                    Some(event) => {
                        let verdict = evaluation.verdict.show(ruleset);
                        write!(f, "\n  ▶ {name}  {}\n    {name}  … {verdict}", event.show(ruleset))?;
                    }
                    None => write!(f, "\n  ▶ {name}  {}", evaluation.verdict.show(ruleset))?,
                }
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests;
