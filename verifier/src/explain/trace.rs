//! The way of one packet through one chain and those that it leads to.
//!
//! ```text
//!   filter/FORWARD rule 1 (line 12)   passed over: ctstate NEW is not INVALID
//!   filter/FORWARD rule 4 (line 15)   matched: jump to ssh
//!     filter/ssh rule 1 (line 19)     passed over: source 8.8.8.8 is not 10.0.0.0/8
//!     end of ssh
//!   filter/FORWARD rule 7 (line 18)   matched: REJECT
//! ```
//!
//! The walk is the oracle's, written a second time because the oracle forgets what this one keeps. That they
//! agree — same rules matched, same residual matches asked, same verdict — is held by a property.
//!
//! # Cost
//!
//! One step for each rule tried, some 100 bytes each; [`STEPS_MAX`] ends it.

use std::fmt;

use hipac_classifier::{Answer, Packet};
use hipac_rules::{Clause, Effect, Family, Hook, L4Need, Policy, Residual, Ruleset, TableKind, Test};

use crate::field_text::{self, Ports};
use crate::fields::{self, Value};
use crate::oracle::{Outcome, Target, clause_holds, header, test_holds};
use crate::outcomes::Outcomes;
use crate::subject::Verdict;
use crate::{Oracle, RuleId, packet_text};

/// Steps kept at most: 100 MB.
pub const STEPS_MAX: usize = 1 << 20;

/// What a packet met.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// In the order in which it happened.
    pub steps: Vec<Step>,
    /// The end.
    pub verdict: Verdict,
    /// The packet as the rules have left it.
    pub packet: Packet,
}

/// One thing on the way.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// A rule was tried and did not hold.
    Passed {
        /// The rule.
        rule: RuleId,
        /// Jumps that led here.
        depth: usize,
        /// The first test that failed, in words: `dport 8443 is not 80,443`.
        why: String,
    },
    /// A rule matched: its counters move.
    Matched {
        /// The rule.
        rule: RuleId,
        /// Jumps that led here.
        depth: usize,
        /// What it does.
        does: Does,
    },
    /// A residual match was evaluated, and came out so or was taken to.
    Asked {
        /// The rule.
        rule: RuleId,
        /// Which of its matches, from 0.
        match_index: usize,
        /// What it depends on.
        kind: Residual,
        /// What came out.
        held: bool,
        /// It was worked out, and not taken for granted.
        is_known: bool,
    },
    /// A residual match drops the packet at once.
    Dropped {
        /// The rule.
        rule: RuleId,
        /// Which of its matches, from 0.
        match_index: usize,
    },
    /// A user chain has ended: back to its caller.
    ChainEnd {
        /// The table.
        table: TableKind,
        /// Position of the chain in the table.
        chain: usize,
        /// Jumps that led there.
        depth: usize,
    },
    /// The header is cut off where this rule wants to read it: the packet is dropped at once.
    Malformed {
        /// The rule.
        rule: RuleId,
    },
}

/// What a rule that matched does.
#[derive(Debug, Clone, PartialEq)]
pub enum Does {
    /// Decides.
    Verdict(&'static str),
    /// Goes on; the effect, and what it changed of the packet: `mark 0x0 is now 0x1`.
    Effect(Effect, Option<String>),
    /// Goes back to the caller, or to the policy.
    Return,
    /// Calls the chain at this position of the table.
    Jump(usize),
    /// Goes to the chain at this position of the table, for good.
    Goto(usize),
}

/// The way of a packet through a built-in chain.
///
/// Where the table is not there or not attached to the hook, nothing happens and the packet passes.
pub fn trace(
    oracle: &Oracle<'_>,
    table: TableKind,
    hook: Hook,
    packet: &Packet,
    outcomes: &mut dyn Outcomes,
) -> Trace {
    let Some((chain, policy)) = oracle.entry(table, hook) else {
        let verdict = Verdict::policy(Policy::Accept.name());
        return Trace { steps: Vec::new(), verdict, packet: *packet };
    };
    let mut walk = Walk { oracle, table, packet: *packet, outcomes, steps: Vec::new() };
    let verdict = walk.run(chain, policy);
    Trace { steps: walk.steps, verdict, packet: walk.packet }
}

struct Walk<'a> {
    oracle: &'a Oracle<'a>,
    table: TableKind,
    packet: Packet,
    outcomes: &'a mut dyn Outcomes,
    steps: Vec<Step>,
}

/// The next rule to look at.
#[derive(Clone, Copy)]
struct Place {
    chain: usize,
    rule: usize,
}

/// What came of trying a rule.
enum Tried {
    Held,
    Failed(String),
    Malformed,
    Dropped(usize),
}

impl Walk<'_> {
    fn run(&mut self, entry: usize, policy: Policy) -> Verdict {
        let mut callers: Vec<Place> = Vec::new();
        let mut at = Place { chain: entry, rule: 0 };
        // RETURN leaves a chain before its end.
        let mut has_returned = false;
        loop {
            if self.steps.len() >= STEPS_MAX {
                return Verdict::given_up();
            }
            if at.rule >= self.oracle.rule_count(self.table, at.chain) {
                if at.chain != entry && !has_returned {
                    let (table, chain) = (self.table, at.chain);
                    self.steps.push(Step::ChainEnd { table, chain, depth: callers.len() });
                }
                has_returned = false;
                match callers.pop() {
                    Some(caller) => at = caller,
                    None => return Verdict::policy(policy.name()),
                }
                continue;
            }
            let depth = callers.len();
            let Some(rule) = RuleId::new(self.table, at.chain, at.rule) else { return Verdict::given_up() };
            at.rule += 1;
            match self.matches(rule) {
                Tried::Held => {}
                Tried::Failed(why) => {
                    self.steps.push(Step::Passed { rule, depth, why });
                    continue;
                }
                Tried::Malformed => {
                    self.steps.push(Step::Malformed { rule });
                    return Verdict::malformed(rule);
                }
                Tried::Dropped(match_index) => {
                    self.steps.push(Step::Dropped { rule, match_index });
                    return Verdict::malformed(rule);
                }
            }
            self.outcomes.matched(rule, &self.packet);
            // A rule that was counted above has a target.
            let Some(target) = self.oracle.target(rule) else { return Verdict::given_up() };
            let does = self.does(target);
            self.steps.push(Step::Matched { rule, depth, does });
            match target {
                Target::Verdict(name) => return Verdict::rule(name, rule),
                Target::Continue(_) => {}
                Target::Return => {
                    at.rule = self.oracle.rule_count(self.table, at.chain);
                    has_returned = true;
                }
                Target::Jump(chain) => {
                    callers.push(at);
                    at = Place { chain, rule: 0 };
                }
                Target::Goto(chain) => at = Place { chain, rule: 0 },
            }
        }
    }

    /// Runs a target's effect, and says what the rule does.
    fn does(&mut self, target: Target) -> Does {
        match target {
            Target::Verdict(name) => Does::Verdict(name),
            Target::Return => Does::Return,
            Target::Jump(chain) => Does::Jump(chain),
            Target::Goto(chain) => Does::Goto(chain),
            Target::Continue(effect) => {
                let before = self.packet;
                fields::apply(effect, &mut self.packet);
                Does::Effect(effect, change(&before, &self.packet))
            }
        }
    }

    fn matches(&mut self, rule: RuleId) -> Tried {
        let Some(ip) = rule.of(self.oracle.ruleset()).map(|r| &r.ip) else {
            return Tried::Failed("there is no such rule".to_owned());
        };
        let family = self.oracle.family();
        for test in ip.tests(family) {
            if !test_holds(&test, &self.packet) {
                return Tried::Failed(failure(&vec![test], &self.packet));
            }
        }
        let oracle = self.oracle;
        for (match_index, meaning) in oracle.meanings(rule).iter().enumerate() {
            match header(meaning.l4, self.packet.l4) {
                Outcome::Held => {}
                Outcome::NotHeld => return Tried::Failed(no_header(meaning.l4)),
                Outcome::HeaderCutOff => return Tried::Malformed,
            }
            if let Some(clause) = meaning.clauses.iter().find(|c| !clause_holds(c, &self.packet)) {
                return Tried::Failed(failure(clause, &self.packet));
            }
            if let Some(kind) = meaning.residual {
                let answer = self.outcomes.residual(rule, match_index, kind, &self.packet);
                let (held, is_known) = (answer == Answer::Holds, self.outcomes.is_known());
                self.steps.push(Step::Asked { rule, match_index, kind, held, is_known });
                if answer == Answer::Drops {
                    return Tried::Dropped(match_index);
                }
                if !held {
                    let name = rule.of(oracle.ruleset()).and_then(|r| r.matches.get(match_index));
                    let name = name.map_or("?", |m| m.name());
                    let how = if is_known { "does not hold" } else { "is taken not to hold" };
                    return Tried::Failed(format!("{name} {how}"));
                }
            }
        }
        Tried::Held
    }
}

fn no_header(need: L4Need) -> String {
    let bytes = need.bytes;
    format!("a later fragment has no transport header, and {bytes} bytes of it are read")
}

/// Why a clause does not hold for a packet: `dport 8443 is not 80,443`.
pub(crate) fn failure(clause: &Clause, packet: &Packet) -> String {
    let family = if packet.is_v6 { Family::V6 } else { Family::V4 };
    let ports = Ports::of_protocol(family, packet.protocol);
    let words = clause.iter().map(|test| {
        let value = match fields::read(packet, test.field) {
            Some(Value::Number(x)) => field_text::number(family, test.field, ports, x),
            Some(Value::Interface(name)) if name.is_none() => "none".to_owned(),
            Some(Value::Interface(name)) => name.to_string(),
            None => "?".to_owned(),
        };
        let label = field_text::label(test.field, ports);
        format!(
            "{label} {value} is {}{}",
            if test.negated { "" } else { "not " },
            wanted(test, family, ports)
        )
    });
    words.collect::<Vec<_>>().join(" and ")
}

/// What a test wants. A masked value says so only where the mask leaves something out.
fn wanted(test: &Test, family: Family, ports: Ports) -> String {
    field_text::set(family, test.field, ports, &test.set)
}

/// What differs between two states of a packet: `mark 0x0 is now 0x1`.
fn change(before: &Packet, after: &Packet) -> Option<String> {
    if before == after {
        return None;
    }
    let family = if before.is_v6 { Family::V6 } else { Family::V4 };
    let changes = fields::NUMBERS.iter().filter_map(|&field| {
        let (old, new) = (fields::number(before, field), fields::number(after, field));
        let show = |x| field_text::number(family, field, Ports::Ports, x);
        (old != new)
            .then(|| format!("{} {} is now {}", field_text::label(field, Ports::Ports), show(old), show(new)))
    });
    Some(changes.collect::<Vec<_>>().join(", "))
}

impl Trace {
    /// The trace in lines, from the packet to the verdict. Runs of rules that were passed over are cut in
    /// their middle when they are longer than `run_max`.
    pub fn show<'a>(&'a self, ruleset: &'a Ruleset, run_max: usize) -> impl fmt::Display + 'a {
        fmt::from_fn(move |f| {
            let mut at = 0;
            while let Some(step) = self.steps.get(at) {
                let run = self.steps[at..].iter().take_while(|s| matches!(s, Step::Passed { .. })).count();
                if run > run_max.max(1) {
                    let kept = run_max.max(1) / 2;
                    for step in &self.steps[at..at + kept] {
                        writeln!(f, "  {}", step.show(ruleset))?;
                    }
                    writeln!(f, "    … {} more rules were passed over", run - 2 * kept)?;
                    for step in &self.steps[at + run - kept..at + run] {
                        writeln!(f, "  {}", step.show(ruleset))?;
                    }
                    at += run;
                    continue;
                }
                writeln!(f, "  {}", step.show(ruleset))?;
                at += 1;
            }
            write!(f, "{}", self.verdict.show(ruleset))
        })
    }
}

impl Step {
    /// The step in words.
    pub fn show<'a>(&'a self, ruleset: &'a Ruleset) -> impl fmt::Display + 'a {
        fmt::from_fn(move |f| match self {
            Step::Passed { rule, depth, why } => {
                write!(f, "{:1$}{2}: passed over, {why}", "", 2 * depth, rule.place(ruleset))
            }
            Step::Matched { rule, depth, does } => {
                write!(f, "{:1$}{2}: matched, ", "", 2 * depth, rule.place(ruleset))?;
                write!(f, "{}", does.show(*rule, ruleset))
            }
            Step::Asked { rule, match_index, held, is_known: true, .. } => {
                let name = match_name(ruleset, *rule, *match_index);
                let outcome = if *held { "holds" } else { "does not hold" };
                write!(f, "    {name} of {} {outcome}", rule.place(ruleset))
            }
            Step::Dropped { rule, match_index } => {
                let name = match_name(ruleset, *rule, *match_index);
                write!(f, "{}: {name} drops the packet at once", rule.place(ruleset))
            }
            Step::Asked { rule, match_index, kind, held, is_known: false } => {
                let name = match_name(ruleset, *rule, *match_index);
                let outcome = if *held { "holds" } else { "does not hold" };
                let why = match kind {
                    Residual::Unknown => " (an extension that hipac does not know)",
                    _ => "",
                };
                write!(f, "    if {name} of {} {outcome}{why}:", rule.place(ruleset))
            }
            Step::ChainEnd { table, chain, depth } => {
                write!(f, "{:1$}end of {2}", "", 2 * depth, chain_name(ruleset, *table, *chain))
            }
            Step::Malformed { rule } => {
                write!(f, "{}: the transport header is cut off where it reads", rule.place(ruleset))
            }
        })
    }
}

impl Does {
    /// What is done, in words.
    pub fn show<'a>(&'a self, rule: RuleId, ruleset: &'a Ruleset) -> impl fmt::Display + 'a {
        fmt::from_fn(move |f| match self {
            Does::Verdict(name) => f.write_str(name),
            Does::Return => f.write_str("RETURN"),
            Does::Jump(chain) => write!(f, "jump to {}", chain_name(ruleset, rule.table(), *chain)),
            Does::Goto(chain) => write!(f, "goto {}", chain_name(ruleset, rule.table(), *chain)),
            Does::Effect(_, change) => {
                let target = rule.of(ruleset).map(|r| &r.target);
                match target {
                    Some(hipac_rules::Target::Extension(e)) => f.write_str(e.name())?,
                    _ => f.write_str("counts")?,
                }
                match change {
                    Some(change) => write!(f, ": {change}"),
                    None => Ok(()),
                }
            }
        })
    }
}

fn match_name(ruleset: &Ruleset, rule: RuleId, match_index: usize) -> &str {
    rule.of(ruleset).and_then(|r| r.matches.get(match_index)).map_or("?", |m| m.name())
}

fn chain_name(ruleset: &Ruleset, table: TableKind, chain: usize) -> String {
    let chain = ruleset.table(table).and_then(|t| t.chains.get(chain));
    format!("{}/{}", table.name(), chain.map_or("?", |c| &c.name))
}

/// The packet in the flags of [`packet_text`], or a word for the packet without any.
pub fn packet_words(packet: &Packet) -> String {
    let words = packet_text::show(packet).to_string();
    if words.is_empty() { "(all fields at their defaults)".to_owned() } else { words }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::Drawer;
    use crate::subject::Event;
    use crate::testing::{filter, oracle};
    use crate::{Evaluation, Script};

    /// The events of a trace, as the oracle records them.
    fn events(trace: &Trace) -> Vec<Event> {
        let events = trace.steps.iter().filter_map(|step| match *step {
            Step::Matched { rule, .. } => Some(Event::Matched(rule)),
            Step::Asked { rule, match_index, kind, held, .. } if kind != Residual::Pure => {
                Some(Event::Residual { rule, match_index, held })
            }
            _ => None,
        });
        events.collect()
    }

    const RULES: &str = "\
FORWARD DROP
-p 6 -m tcp -j work
-m multiport -i eth+ -m dport22 -j ACCEPT
-m limit -j LOG
-m string -j MARK1
-m mark1 -g away
! -s 10.0.0.0/8 -m ports -j REJECT
work
-m tcp-dport22 -m limit -j RETURN
-s 10.0.0.0/9 -g away
-j TTL9
away
-m ttl9 -j DROP
-d 10.0.0.0/8 -j RETURN
-m strange -j ACCEPT";

    #[test]
    fn a_trace_tells_what_the_oracle_does() {
        let rules = filter(RULES);
        let oracle = oracle(&rules).unwrap();
        let drawer = Drawer::new(&oracle, 11);
        for case in (0..40).flat_map(|block| drawer.block(block)) {
            let Evaluation { events: expected, verdict } =
                oracle.evaluate(case.table, case.hook, &case.packet, &mut case.outcomes.play());
            let found = trace(&oracle, case.table, case.hook, &case.packet, &mut case.outcomes.play());
            assert_eq!((events(&found), &found.verdict), (expected, &verdict), "{case:?}");
        }
    }

    #[test]
    fn each_step_says_why() {
        let rules = filter(
            "FORWARD DROP\n-m dport22 -j ACCEPT\n-s 10.0.0.0/8 -j work\n-j MARK1\n! -i eth+ -m string -j DROP\nwork\n-p 17 -j DROP",
        );
        let oracle = oracle(&rules).unwrap();
        let packet = packet_text::parse("-s 10.1.2.3 -p tcp --dport 8443", rules.family).unwrap();
        let found = trace(&oracle, TableKind::Filter, Hook::Forward, &packet, &mut Script::AllHold.play());
        let expected = "
  filter/FORWARD rule 1 (line 2): passed over, dport 8443 is not 22
  filter/FORWARD rule 2 (line 3): matched, jump to filter/work
    filter/work rule 1 (line 7): passed over, protocol tcp is not udp
    end of filter/work
  filter/FORWARD rule 3 (line 4): matched, MARK1: mark 0x0 is now 0x1
      if string of filter/FORWARD rule 4 (line 5) holds:
  filter/FORWARD rule 4 (line 5): matched, DROP
DROP by filter/FORWARD rule 4 (line 5)";
        assert_eq!(found.show(&rules, 8).to_string(), expected.trim_start_matches('\n'));
    }

    #[test]
    fn long_runs_are_cut_in_their_middle() {
        let rules = filter(&format!("FORWARD\n{}-j DROP", "-m dport22 -j ACCEPT\n".repeat(9)));
        let oracle = oracle(&rules).unwrap();
        let packet = fields::default_packet(rules.family);
        let found = trace(&oracle, TableKind::Filter, Hook::Forward, &packet, &mut Script::AllHold.play());
        let shown = found.show(&rules, 4).to_string();
        assert!(shown.contains("… 5 more rules were passed over"), "{shown}");
        assert_eq!(shown.lines().count(), 2 + 1 + 2 + 1 + 1, "{shown}");
    }
}
