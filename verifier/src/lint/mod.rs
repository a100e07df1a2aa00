//! Rules that do nothing: exactly, for every packet.
//!
//! | finding | means |
//! |---|---|
//! | `contradictory-rule` | its own tests hold for no packet |
//! | `dead-rule` | no packet reaches and matches it: other rules take all of its packets |
//! | `redundant-rule` | without it (and it alone) every packet is treated alike |
//! | `unreachable-chain` | no rule that packets match leads to the chain |
//! | `no-return` | a jump to a chain from which no packet comes back |
//! | `unused-policy` | no packet gets as far as the policy |
//!
//! The space is cut until few steps meet a region; there each rule that is not known to matter is looked at:
//!
//! ```text
//!   is there a packet in the region that gets past the steps before it?     no, anywhere ▶ dead
//!   is there one that is treated otherwise when the rule is taken out?      no, anywhere ▶ redundant
//! ```
//!
//! One packet is enough to know that a rule matters, and then it is looked at no more; so the work is mostly
//! for the rules that do nothing. Regions are looked at on all cores, a few side by side, and then share what they
//! found: always the same few, so that findings do not depend on the number of threads. Residual matches may come out either way, independently of each other, except
//! that one which depends on the packet alone comes out the same wherever it is written the same.

mod chains;
mod reach;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::{BTreeMap, BTreeSet};

use hipac_rules::{Hook, TableKind};

use crate::space::Space;
use crate::unfold::{Detail, World};
use crate::{Oracle, RuleId};
use reach::Survey;
pub use watch::{Progress, Watch};

/// What was found, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The rule's own tests contradict each other.
    ContradictoryRule,
    /// No packet reaches and matches the rule.
    DeadRule,
    /// Removing the rule changes nothing.
    RedundantRule,
    /// No packet gets into the chain.
    UnreachableChain,
    /// The jump never comes back.
    NoReturn,
    /// No packet gets as far as the policy.
    UnusedPolicy,
    /// It was too much work to say.
    Undecided,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 7] = [
        Kind::ContradictoryRule,
        Kind::DeadRule,
        Kind::RedundantRule,
        Kind::UnreachableChain,
        Kind::NoReturn,
        Kind::UnusedPolicy,
        Kind::Undecided,
    ];

    /// Its name: `dead-rule`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::ContradictoryRule => "contradictory-rule",
            Kind::DeadRule => "dead-rule",
            Kind::RedundantRule => "redundant-rule",
            Kind::UnreachableChain => "unreachable-chain",
            Kind::NoReturn => "no-return",
            Kind::UnusedPolicy => "unused-policy",
            Kind::Undecided => "undecided",
        }
    }

    /// Whether it is worth no more than a note: common in sound rulesets.
    pub fn is_note(self) -> bool {
        matches!(self, Kind::NoReturn | Kind::UnusedPolicy | Kind::Undecided)
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub kind: Kind,
    /// The rule; for a chain or a policy, none.
    pub rule: Option<RuleId>,
    /// The chain, by table and position.
    pub chain: (TableKind, usize),
    /// The rules that take its packets, or decide as it does.
    pub by: Vec<RuleId>,
}

/// How much is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Steps looked at for one rule in one region before it is left undecided.
    pub work_max: u64,
    /// Look for redundant rules too: about twice the work.
    pub redundant: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { work_max: 20_000_000, redundant: true }
    }
}

/// What is known of a rule, over all ways that lead to it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Status {
    /// Some packet matches it.
    pub(crate) is_alive: bool,
    /// Some packet is treated otherwise without it.
    pub(crate) is_needed: bool,
    /// A limit was met.
    pub(crate) is_undecided: bool,
    /// Rules that take its packets.
    pub(crate) blockers: BTreeSet<RuleId>,
    /// It has a step whose removal can be asked about.
    pub(crate) is_removable: bool,
}

/// Everything that does nothing, by place.
///
/// # Errors
///
/// Chains that unfold into too many steps.
pub fn lint(
    oracle: &Oracle<'_>,
    options: &Options,
    watch: Watch<'_>,
) -> Result<Vec<Finding>, crate::unfold::TooManySteps> {
    let mut findings = Vec::new();
    for table in oracle.ruleset().tables.iter().map(|t| t.kind) {
        let space = Space::new(oracle.family(), &[(oracle, table)], &[]);
        let mut world = World::new(space);
        let mut statuses: BTreeMap<RuleId, Status> = BTreeMap::new();
        let mut contradictory = BTreeSet::new();
        let mut policies = Vec::new();
        for &hook in table.hooks() {
            let course = world.unfold(oracle, table, hook, Detail::Rules)?;
            contradictory.extend(course.contradictory.iter().copied());
            let is_policy_used = Survey::new(&world, &course, options, &mut statuses).run(watch);
            policies.push((hook, is_policy_used, course.steps.len()));
        }
        findings.extend(of_rules(oracle, table, &statuses, &contradictory));
        findings.extend(policies_unused(oracle, table, &policies));
        findings.extend(chains::without_return(oracle, table, &statuses));
    }
    findings.sort_by_key(|f| (f.chain, f.rule, f.kind));
    Ok(findings)
}

/// Findings about the rules and user chains of a table.
fn of_rules(
    oracle: &Oracle<'_>,
    table: TableKind,
    statuses: &BTreeMap<RuleId, Status>,
    contradictory: &BTreeSet<RuleId>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let entered = chains::entered(oracle, table, statuses);
    let chains = oracle.ruleset().table(table).map_or(&[][..], |t| &t.chains);
    for (index, chain) in chains.iter().enumerate() {
        let at = (table, index);
        if chain.hook.is_none() && !entered.contains(&index) {
            findings.push(Finding { kind: Kind::UnreachableChain, rule: None, chain: at, by: vec![] });
            continue;
        }
        for rule in (0..chain.rules.len()).filter_map(|rule| RuleId::new(table, index, rule)) {
            let status = statuses.get(&rule).cloned().unwrap_or_default();
            let kind = if contradictory.contains(&rule) {
                Kind::ContradictoryRule
            } else if !status.is_alive {
                if status.is_undecided { Kind::Undecided } else { Kind::DeadRule }
            } else if status.is_removable && !status.is_needed {
                if status.is_undecided { Kind::Undecided } else { Kind::RedundantRule }
            } else {
                continue;
            };
            let by = if kind == Kind::DeadRule { status.blockers.into_iter().collect() } else { Vec::new() };
            findings.push(Finding { kind, rule: Some(rule), chain: at, by });
        }
    }
    findings
}

fn policies_unused(
    oracle: &Oracle<'_>,
    table: TableKind,
    policies: &[(Hook, Option<bool>, usize)],
) -> Vec<Finding> {
    let unused = policies.iter().filter(|(_, used, steps)| *used == Some(false) && *steps > 0);
    let findings = unused.filter_map(|&(hook, ..)| {
        let (chain, _) = oracle.entry(table, hook)?;
        Some(Finding { kind: Kind::UnusedPolicy, rule: None, chain: (table, chain), by: vec![] })
    });
    findings.collect()
}
