//! What an evaluation is, and what can be asked for one.

use std::borrow::Cow;
use std::fmt;

use hipac_classifier::Packet;
use hipac_rules::{Hook, Ruleset, TableKind};

use crate::outcomes::Outcomes;
use crate::rule_id::RuleId;

/// Something that evaluates packets by a ruleset: the oracle, a compiled image, the kernel.
///
/// # Contract
///
/// - Pairs of table and hook are total: where the ruleset has no such table, or the table is not attached
///   to the hook, the packet passes (`ACCEPT`, by policy, no events).
/// - `packet` is of the ruleset's family.
/// - `outcomes` is asked exactly when the kernel would evaluate a residual match whose evaluation changes
///   something; see [`Event::Residual`].
pub trait Subject: Sync {
    /// Evaluates one packet at one built-in chain.
    fn evaluate(
        &self,
        table: TableKind,
        hook: Hook,
        packet: &Packet,
        outcomes: &mut dyn Outcomes,
    ) -> Evaluation;
}

/// All that an evaluation does: what moved on the way, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evaluation {
    /// In the order in which they happened.
    pub events: Vec<Event>,
    /// The end.
    pub verdict: Verdict,
}

/// One thing that happened to the state of the world on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// The rule matched: its counters moved and its target ran. Jumps, gotos, RETURNs and rules
    /// without a target match like any other.
    Matched(RuleId),
    /// A residual match was evaluated that is stateful or unknown. Those that are pure are asked for but are
    /// no event: evaluating one changes nothing, so when and how often is nobody's business.
    Residual {
        /// The rule.
        rule: RuleId,
        /// Which of its matches, from 0.
        match_index: usize,
        /// What came out.
        held: bool,
    },
}

/// How an evaluation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The target's name: `ACCEPT`, `DROP`, `REJECT`, `DNAT`, ….
    pub name: Cow<'static, str>,
    /// What gave it.
    pub by: By,
}

/// What gave a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum By {
    /// This rule, which matched.
    Rule(RuleId),
    /// The policy of the built-in chain.
    Policy,
    /// A match of this rule found the transport header cut off, or has no room to remember the packet, and
    /// dropped it ("hotdrop"): no counter moved, not even this rule's.
    Malformed(RuleId),
    /// Nothing: the evaluation was given up at [`STEPS_MAX`] or [`EVENTS_MAX`], and what the kernel would say
    /// is not known.
    ///
    /// [`STEPS_MAX`]: crate::oracle::STEPS_MAX
    /// [`EVENTS_MAX`]: crate::oracle::EVENTS_MAX
    GivenUp,
}

impl Verdict {
    /// A verdict given by a rule.
    pub fn rule(name: impl Into<Cow<'static, str>>, rule: RuleId) -> Verdict {
        Verdict { name: name.into(), by: By::Rule(rule) }
    }

    /// A policy's verdict.
    pub fn policy(name: impl Into<Cow<'static, str>>) -> Verdict {
        Verdict { name: name.into(), by: By::Policy }
    }

    /// The drop of a packet with a header cut off.
    pub fn malformed(rule: RuleId) -> Verdict {
        Verdict { name: "DROP".into(), by: By::Malformed(rule) }
    }

    /// No verdict, after too many steps.
    pub fn given_up() -> Verdict {
        Verdict { name: "unknown".into(), by: By::GivenUp }
    }

    /// The verdict in words: `DROP by filter/FORWARD rule 17 (line 41)`.
    pub fn show<'a>(&'a self, ruleset: &'a Ruleset) -> impl fmt::Display + 'a {
        fmt::from_fn(move |f| match self.by {
            By::Rule(rule) => write!(f, "{} by {}", self.name, rule.place(ruleset)),
            By::Policy => write!(f, "{} by policy", self.name),
            By::Malformed(rule) => {
                write!(f, "{} of a malformed packet at {}", self.name, rule.place(ruleset))
            }
            By::GivenUp => write!(f, "{} (given up after too many steps)", self.name),
        })
    }
}

impl Event {
    /// The rule it is about.
    pub fn rule(&self) -> RuleId {
        match *self {
            Event::Matched(rule) | Event::Residual { rule, .. } => rule,
        }
    }

    /// The event in words: `matched filter/FORWARD rule 17 (line 41)`.
    pub fn show<'a>(&'a self, ruleset: &'a Ruleset) -> impl fmt::Display + 'a {
        fmt::from_fn(move |f| match *self {
            Event::Matched(rule) => write!(f, "matched {}", rule.place(ruleset)),
            Event::Residual { rule, match_index, held } => {
                let name =
                    rule.of(ruleset).and_then(|r| r.matches.get(match_index)).map_or("?", |m| m.name());
                let outcome = if held { "holds" } else { "does not hold" };
                write!(
                    f,
                    "evaluated match {} ({name}) of {}: {outcome}",
                    match_index + 1,
                    rule.place(ruleset)
                )
            }
        })
    }
}
