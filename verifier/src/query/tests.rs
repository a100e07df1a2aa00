use hipac_rules::{Hook, TableKind};
use proptest::prelude::*;
use proptest::sample::select;

use super::question::tests as packets;
use super::{Question, holds, none, query, whole};
use crate::draw::Drawer;
use crate::oracle::test_holds;
use crate::testing::{filter, oracle};
use crate::{Script, fields};

fn question(said: &[(&str, &str)], verdict: &str) -> Question {
    let mut packets = packets(hipac_rules::Family::V4, said).unwrap();
    packets.push(whole());
    Question {
        entry: (TableKind::Filter, Hook::Forward),
        packets,
        verdicts: vec![verdict.to_owned()],
        work_max: 1 << 30,
    }
}

#[track_caller]
fn check(rules: &str, said: &[(&str, &str)], expected: &[&str]) {
    let rules = filter(rules);
    let oracle = oracle(&rules).unwrap();
    let answer = query(&oracle, &question(said, "ACCEPT")).unwrap();
    assert_eq!(answer.undecided, None);
    let shown: Vec<&str> = answer.parts.iter().map(|p| p.words.as_str()).collect();
    assert_eq!(shown, expected);
    assert!(answer.parts.iter().all(|p| p.is_confirmed));
}

#[test]
fn an_answer_is_what_ends_so_of_what_was_asked() {
    let rules =
        "FORWARD DROP\n-s 10.1.0.0/16 -j DROP\n-s 10.0.0.0/8 -p 6 -m dport22 -j ACCEPT\n-p 17 -j ACCEPT";
    check(rules, &[("dport", "22"), ("from", "10.1.2.3")], &[]);
    check(
        rules,
        &[("dport", "22"), ("from", "10.2.0.0/16"), ("proto", "tcp")],
        &["tcp 10.2.0.0/16 → any:22"],
    );
    check(
        rules,
        &[("from", "10.0.0.0/8"), ("proto", "tcp")],
        &["tcp 10.0.0.0/16,10.2.0.0-10.255.255.255 → any:22"],
    );
}

#[test]
fn statements_hold_or_have_a_witness() {
    let rules = filter("FORWARD DROP\n-s 10.0.0.0/8 -p 6 -j ACCEPT\n-m limit -p 17 -j ACCEPT");
    let oracle = oracle(&rules).unwrap();
    let every = |said: &[(&str, &str)]| holds(&oracle, &question(said, "ACCEPT")).unwrap().parts.is_empty();
    let no = |said: &[(&str, &str)]| none(&oracle, &question(said, "ACCEPT")).unwrap().parts.is_empty();
    assert!(every(&[("from", "10.1.0.0/16"), ("proto", "tcp")]));
    assert!(!every(&[("from", "11.1.0.0/16"), ("proto", "tcp")]));
    assert!(no(&[("from", "11.1.0.0/16"), ("proto", "tcp")]));
    // It hangs on a residual match: neither is proved.
    assert!(!every(&[("proto", "udp")]));
    assert!(!no(&[("proto", "udp")]));
}

fn rule_lines() -> impl Strategy<Value = String> {
    let ip = select(vec!["", "-s 10.0.0.0/8", "-s 10.0.0.0/9", "! -s 10.0.0.0/9", "-d 10.0.0.1"]);
    let matches = select(vec!["", "", "-p 6 -m dport22", "-m ports", "-m mark1", "-m string", "-i eth+"]);
    let target = select(vec!["-j ACCEPT", "-j DROP", "-j LOG", "-j MARK1", "-j RETURN", "-j REJECT"]);
    (ip, matches, target).prop_map(|(a, b, c)| format!("{a} {b} {c}").trim().to_owned())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn answers_are_what_the_oracle_says(lines in prop::collection::vec(rule_lines(), 0..8), accept: bool, seed: u64) {
        let policy = if accept { "ACCEPT" } else { "DROP" };
        let rules = filter(&format!("FORWARD {policy}\n{}", lines.join("\n")));
        let oracle = oracle(&rules).unwrap();
        let question = question(&[("from", "10.0.0.0/7"), ("dport", "20:60000")], "ACCEPT");
        let answer = query(&oracle, &question).unwrap();
        prop_assert!(answer.parts.iter().all(|p| p.is_confirmed), "{:#?}", answer.parts);
        let any = |script: Script| {
            Drawer::new(&oracle, seed).block(0).into_iter().map(|c| c.packet).any(|mut packet| {
                fields::write_number(&mut packet, hipac_rules::Field::L4, 0);
                question.packets.iter().all(|t| test_holds(t, &packet))
                    && oracle.evaluate(TableKind::Filter, Hook::Forward, &packet, &mut script.play()).verdict.name == "ACCEPT"
            })
        };
        if any(Script::AllHold) || any(Script::NoneHolds) {
            prop_assert!(!answer.parts.is_empty());
            prop_assert!(!none(&oracle, &question).unwrap().parts.is_empty());
        }
    }
}
