//! Findings against a second decision: every packet of a small universe, asked one by one.

use std::collections::{BTreeMap, BTreeSet};

use hipac_classifier::{Answer, Packet};
use hipac_rules::{Hook, Residual, Ruleset, TableKind};
use proptest::prelude::*;
use proptest::sample::select;

use super::{Kind, Options, lint};
use crate::outcomes::Outcomes;
use crate::subject::Event;
use crate::testing::{filter, oracle};
use crate::{Oracle, RuleId, packet_text};

/// `dead-rule FORWARD 2 by FORWARD 1`, the findings in order.
fn findings(rules: &Ruleset) -> Vec<String> {
    let oracle = oracle(rules).unwrap();
    let chains = &rules.tables[0].chains;
    let name = |rule: &RuleId| format!("{} {}", chains[rule.chain()].name, rule.rule() + 1);
    let found = lint(&oracle, &Options::default(), &mut |_| true).unwrap();
    let lines = found.iter().map(|f| {
        let place = f.rule.as_ref().map_or_else(|| chains[f.chain.1].name.to_string(), name);
        let by: Vec<String> = f.by.iter().map(name).collect();
        let by = if by.is_empty() { String::new() } else { format!(" by {}", by.join(", ")) };
        format!("{} {place}{by}", f.kind.name())
    });
    lines.collect()
}

#[track_caller]
fn check(rules: &str, expected: &[&str]) {
    assert_eq!(findings(&filter(rules)), expected);
}

#[test]
fn dead_rules_are_found_with_those_that_take_their_packets() {
    check(
        "FORWARD DROP\n-s 10.0.0.0/8 -j ACCEPT\n-s 10.1.0.0/16 -p 6 -j DROP\n-j LOG",
        &["dead-rule FORWARD 2 by FORWARD 1"],
    );
    check(
        "FORWARD\n-s 10.0.0.0/9 -j ACCEPT\n-s 10.128.0.0/9 -j DROP\n-s 10.0.0.0/8 -j REJECT",
        &["dead-rule FORWARD 3 by FORWARD 1, FORWARD 2"],
    );
}

#[test]
fn what_no_packet_meets_contradicts_itself() {
    check("FORWARD DROP\n-p 6 -m never -j ACCEPT", &["contradictory-rule FORWARD 1"]);
}

#[test]
fn chains_that_nothing_leads_to_are_found() {
    check(
        "FORWARD DROP\n-s 10.0.0.0/8 -j ACCEPT\n-s 10.0.0.1 -j a\na\n-j ACCEPT\nb\n-j DROP",
        &["dead-rule FORWARD 2 by FORWARD 1", "unreachable-chain a", "unreachable-chain b"],
    );
    check("FORWARD DROP\n-p 6 -j a\n-j LOG\na\n-s 10.0.0.0/8 -j ACCEPT\n-j REJECT", &["no-return FORWARD 1"]);
}

#[test]
fn a_policy_that_no_packet_reaches_is_told() {
    check("FORWARD DROP\n-p 6 -j ACCEPT\n! -p 6 -j REJECT", &["unused-policy FORWARD"]);
}

#[test]
fn residual_matches_may_let_packets_past() {
    check("FORWARD DROP\n-m limit -j ACCEPT\n-p 6 -j ACCEPT", &[]);
    check(
        "FORWARD DROP\n-m string -j ACCEPT\n-p 6 -m string -j REJECT",
        &["dead-rule FORWARD 2 by FORWARD 1"],
    );
}

#[test]
fn redundant_rules_change_nothing_when_removed() {
    check("FORWARD DROP\n-s 10.0.0.0/8 -j DROP\n-p 6 -j ACCEPT", &[]);
    check("FORWARD DROP\n-p 6 -j ACCEPT\n-s 10.0.0.0/8 -j DROP", &["redundant-rule FORWARD 2"]);
}

/// Every packet that these rules could tell apart.
fn universe() -> Vec<Packet> {
    let mut packets = Vec::new();
    for source in ["9.0.0.1", "10.0.0.1", "10.128.0.1"] {
        for protocol in ["tcp", "udp", "gre"] {
            for ports in ["", "--dport 22", "--sport 53", "--sport 53 --dport 22"] {
                for more in ["", "-i eth0", "--mark 1", "-i eth0 --mark 1"] {
                    for l4 in ["whole", "fragment", "fragment8", "under4", "under12"] {
                        let text = format!("-s {source} -p {protocol} {ports} {more} --l4 {l4}");
                        packets.push(packet_text::parse(&text, hipac_rules::Family::V4).unwrap());
                    }
                }
            }
        }
    }
    packets
}

/// Stateful matches that an evaluation may ask for.
const STATEFUL_MAX: usize = 3;

/// Residual matches by the bits of a number: `string` by the first, others by one bit each time.
struct Bits(u32, u32);

impl Outcomes for Bits {
    fn residual(&mut self, _: RuleId, _: usize, kind: Residual, _: &Packet) -> Answer {
        if kind == Residual::Pure {
            return Answer::from(self.0 & 1 == 1);
        }
        self.1 += 1;
        Answer::from(self.0 >> self.1 & 1 == 1)
    }
}

/// What an evaluation does that counts, without numbers of rules.
fn treatment(oracle: &Oracle<'_>, packet: &Packet, bits: u32) -> (Vec<RuleId>, String) {
    let evaluation = oracle.evaluate(TableKind::Filter, Hook::Forward, packet, &mut Bits(bits, 0));
    let mut said = String::new();
    let mut matched = Vec::new();
    for event in &evaluation.events {
        let rule = event.rule().of(oracle.ruleset()).unwrap();
        match event {
            Event::Matched(id) => {
                matched.push(*id);
                if let hipac_rules::Target::Extension(e) = &rule.target
                    && !matches!(e.name(), "ACCEPT" | "DROP" | "REJECT" | "RETURN")
                {
                    said += e.name();
                }
            }
            Event::Residual { match_index, .. } => said += rule.matches[*match_index].name(),
        }
    }
    (matched, said + &evaluation.verdict.name)
}

fn rule_lines() -> impl Strategy<Value = String> {
    let ip = select(vec!["", "", "-s 10.0.0.0/8", "-s 10.0.0.0/9", "! -s 10.0.0.0/9"]);
    let more = select(vec!["", "-p 6", "! -p 17", "-i eth+"]);
    let matches = select(vec![
        "",
        "",
        "-m dport22",
        "-m tcp",
        "-m udp -m dport22",
        "-m mark1",
        "-m limit",
        "-m string",
    ]);
    let target = select(vec![
        "-j ACCEPT",
        "-j ACCEPT",
        "-j DROP",
        "-j DROP",
        "-j LOG",
        "-j MARK1",
        "-j a",
        "-g a",
        "-j RETURN",
        "",
    ]);
    (ip, more, matches, target).prop_map(|(a, b, c, d)| {
        let line = format!("{a} {b} {c} {d}");
        if line.trim().is_empty() { "-j LOG".to_owned() } else { line.trim().to_owned() }
    })
}

fn rulesets() -> impl Strategy<Value = String> {
    let lines = |max| prop::collection::vec(rule_lines(), 0..max);
    (lines(7), lines(4)).prop_map(|(forward, mut a)| {
        a.retain(|r| !r.contains("-j a") && !r.contains("-g a"));
        let count = |lines: &[String], what: &str| lines.iter().filter(|line| line.contains(what)).count();
        let calls = count(&forward, "-j a") + count(&forward, "-g a");
        let asked = count(&forward, "-m limit") + calls * count(&a, "-m limit");
        let text = format!("FORWARD DROP\n{}\na\n{}", forward.join("\n"), a.join("\n"));
        // Whoever asks for all outcomes must have a bit for each.
        if asked > STATEFUL_MAX { text.replace("-m limit", "-m string") } else { text }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]
    #[test]
    fn findings_are_those_of_every_packet_asked_one_by_one(text in rulesets()) {
        let rules = filter(&text);
        let oracle = oracle(&rules).unwrap();
        let universe = universe();
        let found = lint(&oracle, &Options::default(), &mut |_| true).unwrap();
        let is = |kinds: &[Kind], rule: RuleId| found.iter().any(|f| {
            kinds.contains(&f.kind) && (f.rule == Some(rule) || f.rule.is_none() && f.kind == Kind::UnreachableChain && f.chain.1 == rule.chain())
        });
        let mut matched = BTreeSet::new();
        let mut treatments = BTreeMap::new();
        for (i, packet) in universe.iter().enumerate() {
            for bits in 0..1 << (1 + STATEFUL_MAX) {
                let (rules, said) = treatment(&oracle, packet, bits);
                matched.extend(rules);
                treatments.insert((i, bits), said);
            }
        }
        for (chain, c) in rules.tables[0].chains.iter().enumerate() {
            for rule in (0..c.rules.len()).filter_map(|r| RuleId::new(TableKind::Filter, chain, r)) {
                let dead = is(&[Kind::DeadRule, Kind::ContradictoryRule, Kind::UnreachableChain], rule);
                prop_assert_eq!(dead, !matched.contains(&rule), "dead: {} in {:?}", rule.place(&rules), found);
                let target = &rule.of(&rules).unwrap().target;
                if dead || !matches!(target, hipac_rules::Target::Extension(_)) {
                    continue;
                }
                let mut fewer = rules.clone();
                fewer.tables[0].chains[chain].rules.remove(rule.rule());
                let fewer = self::oracle(&fewer).unwrap();
                let changes = treatments.iter().any(|(&(i, bits), said)| treatment(&fewer, &universe[i], bits).1 != *said);
                prop_assert_eq!(is(&[Kind::RedundantRule], rule), !changes, "redundant: {} in {:?}", rule.place(&rules), found);
            }
        }
    }
}

#[test]
fn findings_do_not_depend_on_the_number_of_threads() {
    let line = |i: u32| {
        let end = ["ACCEPT", "DROP", "REJECT"][((i / 7) % 3) as usize];
        format!("-s 10.{}.{}.0/{} -d 10.{}.0.0/16 -j {end}\n", i % 13, i * 7 % 256, 14 + i % 15, i * 3 % 5)
    };
    let text: String = (0..700).map(line).collect();
    let rules = filter(&format!("FORWARD DROP\n{text}"));
    let oracle = oracle(&rules).unwrap();
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| lint(&oracle, &Options::default(), &mut |_| true)).unwrap()
    };
    let alone = with(1);
    for kind in [Kind::DeadRule, Kind::RedundantRule] {
        assert!(alone.iter().any(|f| f.kind == kind), "{kind:?}");
    }
    assert_eq!(with(2), alone);
    assert_eq!(with(5), alone);
}
