//! A trace as the kernel's own TRACE target prints it: `TRACE: filter:FORWARD:rule:17`.
//!
//! The kernel prints one line for each rule that *matches*, before its target runs; the end of a user chain
//! is one more rule behind its last (`return`), and so is the policy of a built-in one. Two things follow
//! from how it finds the kind of a line and are kept here, so that the lines can be compared with a log:
//!
//! - a rule without any test whose target is ACCEPT, DROP or RETURN is printed as `policy` in a built-in
//!   chain and as `return` in a user's;
//! - a packet that a match drops at once, for its cut-off header above all, leaves no line at that rule.

use hipac_rules::{IpPart, Ruleset, Target};

use super::trace::{Step, Trace};
use crate::RuleId;
use crate::subject::By;

/// The lines that the kernel would print, without what it says of the packet.
pub fn lines(trace: &Trace, ruleset: &Ruleset, entry: RuleId) -> Vec<String> {
    let mut lines: Vec<String> = trace
        .steps
        .iter()
        .filter_map(|step| match *step {
            Step::Matched { rule, .. } => {
                let kind = match (is_tail(rule, ruleset), is_built_in(rule, ruleset)) {
                    (false, _) => "rule",
                    (true, true) => "policy",
                    (true, false) => "return",
                };
                Some(line(rule, kind, ruleset))
            }
            Step::ChainEnd { table, chain, .. } => {
                let behind_last = RuleId::new(table, chain, rule_count(ruleset, table, chain))?;
                Some(line(behind_last, "return", ruleset))
            }
            Step::Passed { .. } | Step::Asked { .. } | Step::Malformed { .. } | Step::Dropped { .. } => None,
        })
        .collect();
    if trace.verdict.by == By::Policy {
        let (table, chain) = (entry.table(), entry.chain());
        if let Some(policy) = RuleId::new(table, chain, rule_count(ruleset, table, chain)) {
            lines.push(line(policy, "policy", ruleset));
        }
    }
    lines
}

fn line(rule: RuleId, kind: &str, ruleset: &Ruleset) -> String {
    let chain = ruleset.table(rule.table()).and_then(|t| t.chains.get(rule.chain()));
    let chain = chain.map_or("?", |c| &c.name);
    format!("TRACE: {}:{chain}:{kind}:{}", rule.table().name(), rule.rule() + 1)
}

fn rule_count(ruleset: &Ruleset, table: hipac_rules::TableKind, chain: usize) -> usize {
    ruleset.table(table).and_then(|t| t.chains.get(chain)).map_or(0, |c| c.rules.len())
}

fn is_built_in(rule: RuleId, ruleset: &Ruleset) -> bool {
    let chain = ruleset.table(rule.table()).and_then(|t| t.chains.get(rule.chain()));
    chain.is_some_and(|c| c.hook.is_some())
}

/// A rule that the kernel takes for the tail of its chain.
fn is_tail(rule: RuleId, ruleset: &Ruleset) -> bool {
    let Some(rule) = rule.of(ruleset) else { return false };
    let is_standard = match &rule.target {
        Target::Extension(e) => matches!(e.name(), "ACCEPT" | "DROP" | "RETURN" | "QUEUE"),
        _ => false,
    };
    is_standard && rule.matches.is_empty() && rule.ip == IpPart::default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::trace;
    use crate::testing::{filter, oracle};
    use crate::{Script, packet_text};
    use hipac_rules::{Hook, TableKind};

    #[track_caller]
    fn check(rules: &str, packet: &str, expected: &str) {
        let rules = filter(rules);
        let oracle = oracle(&rules).unwrap();
        let packet = packet_text::parse(packet, rules.family).unwrap();
        let found = trace(&oracle, TableKind::Filter, Hook::Forward, &packet, &mut Script::AllHold.play());
        let entry = RuleId::new(TableKind::Filter, 1, 0).unwrap();
        let lines: Vec<String> =
            lines(&found, &rules, entry).iter().map(|l| l.replace("TRACE: filter:", "")).collect();
        assert_eq!(lines.join(" "), expected);
    }

    #[test]
    fn matched_rules_ends_of_chains_and_the_policy_are_lines() {
        let rules = "FORWARD DROP\n-m dport22 -j ACCEPT\n-s 10.0.0.0/8 -j work\n-j LOG\nwork\n-p 17 -j DROP";
        check(rules, "--dport 22", "FORWARD:rule:1");
        check(rules, "-s 10.0.0.1", "FORWARD:rule:2 work:return:2 FORWARD:rule:3 FORWARD:policy:4");
        check(rules, "-s 10.0.0.1 -p udp", "FORWARD:rule:2 work:rule:1");
    }

    #[test]
    fn a_rule_without_tests_is_taken_for_the_tail() {
        check("FORWARD\n-j DROP", "", "FORWARD:policy:1");
        check("FORWARD\n-j REJECT", "", "FORWARD:rule:1");
        check(
            "FORWARD\n-j work\n-j ACCEPT\nwork\n-j RETURN",
            "",
            "FORWARD:rule:1 work:return:1 FORWARD:policy:2",
        );
        check(
            "FORWARD\n-s 10.0.0.1 -j work\n-j DROP\nwork\n-j ACCEPT",
            "-s 10.0.0.1",
            "FORWARD:rule:1 work:return:1",
        );
    }
}
