//! Shapes that break what is careless: nothing, very deep, very many, reached from very many
//! places, exponential. And the budget, which is a contract.

mod common;

use std::fmt::Write as _;

use common::exam::Exam;
use common::{agree, agree_at_every_size, bytes_needed, compile_roomy, read, read_as, subject_of};
use hipac_bench_data::iptables_gen;
use hipac_classifier::Packet;
use hipac_compiler::{CompileError, Counting, Options, compile};
use hipac_rules::{Family, Hook, Ruleset, TableKind};
use hipac_verifier::{By, Evaluation, Oracle, Script, Subject};
use proptest::prelude::*;

/// A filter table, FORWARD's policy DROP. Declarations may stand among the rules.
#[track_caller]
fn filter(lines: &str) -> Ruleset {
    let (declarations, rules): (Vec<&str>, Vec<&str>) = lines.lines().partition(|l| l.starts_with(':'));
    let (declarations, rules) = (declarations.join("\n"), rules.join("\n"));
    read(&format!("*filter\n:FORWARD DROP [0:0]\n{declarations}\n{rules}\nCOMMIT\n"))
}

/// What oracle and image say of one packet at FORWARD; they must agree.
#[track_caller]
fn forward(ruleset: &Ruleset, packet: Packet) -> Evaluation {
    let oracle = Oracle::new(ruleset).unwrap();
    let subject = subject_of(compile_roomy(ruleset, Counting::Exact).image, ruleset);
    let ask = |of: &dyn Subject| {
        of.evaluate(TableKind::Filter, Hook::Forward, &packet, &mut Script::AllHold.play())
    };
    let (expected, found) = (ask(&oracle), ask(&subject));
    assert_eq!((expected.events.len(), &expected.verdict), (found.events.len(), &found.verdict));
    assert!(expected == found, "the same number of events, but others");
    found
}

fn tcp_to(port: u16) -> Packet {
    Packet { protocol: 6, destination_port: port, ..Packet::default() }
}

#[test]
fn rulesets_with_no_rules_are_rulesets() {
    for text in [
        "",
        "# nothing\n",
        "*filter\nCOMMIT\n",
        "*filter\n:INPUT DROP [1:2]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n",
        "*raw\nCOMMIT\n*mangle\n:FORWARD DROP [0:0]\nCOMMIT\n",
        "*filter\n:lonely - [0:0]\n:FORWARD DROP [0:0]\nCOMMIT\n",
    ] {
        for family in [Family::V4, Family::V6] {
            agree_at_every_size(&read_as(text, Some(family)), 300);
        }
    }
}

#[test]
fn chains_that_no_packet_reaches_cost_nothing_and_may_even_loop() {
    let reached = ":used - [0:0]\n-A FORWARD -p tcp -j used\n-A used -j ACCEPT\n";
    let alone = filter(reached);
    let both = filter(&format!(
        "{reached}:lost - [0:0]\n:found - [0:0]\n-A lost -j LOG\n-A lost -p udp -j found\n-A found -j DROP\n"
    ));
    agree_at_every_size(&both, 500);
    let flat_rules = |ruleset: &Ruleset| compile_roomy(ruleset, Counting::Exact).cost.flat_rules;
    assert_eq!(flat_rules(&alone), flat_rules(&both));
}

#[test]
fn loops_that_the_kernel_loads_are_compiled() {
    for (what, rules) in [
        ("nothing leads to it", "-A FORWARD -j LOG\n-A a -p tcp -j b\n-A b -p udp -g a\n"),
        ("a verdict stands before it", "-A FORWARD -j a\n-A a -j DROP\n-A a -j b\n-A b -j a\n"),
        ("a RETURN stands before it", "-A FORWARD -g a\n-A a -p tcp\n-A a -j RETURN\n-A a -g a\n"),
    ] {
        println!("{what}");
        let text = format!("*filter\n:FORWARD DROP [0:0]\n:a - [0:0]\n:b - [0:0]\n{rules}COMMIT\n");
        // The text's reader may warn about them, or more.
        let ruleset = hipac_rules::parse(&text, &hipac_rules::ParseOptions::default()).ruleset;
        agree_at_every_size(&ruleset, 500);
    }
    let rules = "-A FORWARD -j a\n-A a -p tcp -j DROP\n-A a -j b\n-A b -j a\n";
    let text = format!("*filter\n:a - [0:0]\n:b - [0:0]\n{rules}COMMIT\n");
    let ruleset = hipac_rules::parse(&text, &hipac_rules::ParseOptions::default()).ruleset;
    let error = compile(&ruleset, &Options::default()).unwrap_err().to_string();
    assert_eq!(error, "table filter: chain `a` can come back to itself");
}

#[test]
fn a_rule_may_have_as_many_matches_as_a_byte_counts() {
    // A reader with the limit raised: the compiler refuses on its own.
    let rule = |matches: usize| {
        let limits = "-m limit --limit 1/s ".repeat(matches);
        let text = format!(
            "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -j LOG\n-A FORWARD {limits}-j ACCEPT\nCOMMIT\n"
        );
        let options = hipac_rules::ParseOptions { matches_of_rule_max: 300, ..Default::default() };
        hipac_rules::parse(text, &options).into_result().unwrap()
    };
    agree_at_every_size(&rule(256), 300);
    let error = compile(&rule(257), &Options::default()).unwrap_err().to_string();
    assert_eq!(error, "line 4: the rule has 257 matches; at most 256 fit: split it by a jump");
}

#[test]
fn the_size_that_a_refusal_names_is_enough_and_the_least() {
    for (family, rules) in [(Family::V4, 0), (Family::V4, 400), (Family::V6, 30)] {
        let options = iptables_gen::Options::new(family, rules, 11);
        let ruleset = read(&iptables_gen::generate(&options).unwrap());
        for counting in [Counting::Exact, Counting::Deciding] {
            let at = |memory_bytes_max| compile(&ruleset, &Options { counting, memory_bytes_max });
            let needed = bytes_needed(&ruleset, counting);
            assert!(at(needed).unwrap().image.len() <= needed);
            match at(needed - 1) {
                Err(CompileError::Memory { needed: again, limit, .. }) => {
                    assert_eq!((again, limit), (needed, needed - 1));
                }
                other => panic!("the size named is not the least: {:?}", other.map(|c| c.cost)),
            }
        }
    }
}

#[test]
fn a_refusal_says_what_to_do() {
    let ruleset = filter("-A FORWARD -p tcp -j ACCEPT\n");
    let error = compile(&ruleset, &Options { memory_bytes_max: 100, ..Options::default() }).unwrap_err();
    let CompileError::Memory { needed, .. } = error else { panic!("{error}") };
    let shown = error.to_string();
    for part in [&needed.to_string(), "100", "filter/FORWARD"] {
        assert!(shown.contains(part), "{part} is not in: {shown}");
    }
}

/// Chains `c0 … c(n-1)`, each leading to the next; the last accepts port 80.
fn ladder(how: &str, depth: usize) -> Ruleset {
    let mut text = format!("-A FORWARD -p tcp {how} c0\n");
    for i in 0..depth - 1 {
        let _ = writeln!(text, ":c{i} - [0:0]\n-A c{i} {how} c{}\n-A c{i} -j LOG", i + 1);
    }
    let last = depth - 1;
    let _ =
        writeln!(text, ":c{last} - [0:0]\n-A c{last} -p tcp -m tcp --dport 80 -j ACCEPT\n-A c{last} -j LOG");
    filter(&text)
}

#[test]
fn ten_thousand_chains_deep_is_deep_but_no_problem() {
    const DEPTH: usize = 10_000;
    for (how, events_after) in [("-j", DEPTH), ("-g", 1)] {
        let ruleset = ladder(how, DEPTH);
        let there = forward(&ruleset, tcp_to(80));
        assert_eq!((there.events.len(), &*there.verdict.name), (DEPTH + 1, "ACCEPT"));
        let back = forward(&ruleset, tcp_to(81));
        assert_eq!((back.events.len(), back.verdict.by), (DEPTH + events_after, By::Policy));
        assert_eq!(forward(&ruleset, Packet::default()).events.len(), 0);
    }
}

#[test]
fn a_hundred_thousand_chains_are_compiled() {
    const CHAINS: usize = 100_000;
    for how in ["-j", "-g"] {
        let mut text = String::new();
        for i in 0..CHAINS {
            let (high, low) = (i >> 8, i & 255);
            let _ = write!(
                text,
                ":c{i} - [0:0]\n-A FORWARD -s 10.{}.{}.{low} {how} c{i}\n-A c{i} -p tcp -j ACCEPT\n",
                high >> 8,
                high & 255
            );
        }
        let ruleset = filter(&text);
        let from = |i: u32| Packet { source: (0x0a00_0000 + i).into(), ..tcp_to(1) };
        for i in [0, 77_777, CHAINS as u32 - 1] {
            assert_eq!(forward(&ruleset, from(i)).events.len(), 2);
        }
        assert_eq!(forward(&ruleset, from(CHAINS as u32)).verdict.by, By::Policy);
    }
}

/// The bound that lowering promises.
#[track_caller]
fn check_bounded(ruleset: &Ruleset) {
    let cost = compile_roomy(ruleset, Counting::Exact).cost;
    let limit = flat_rules_max(ruleset);
    assert!(cost.flat_rules <= limit, "{} rules became {}: above {limit}", cost.rules, cost.flat_rules);
}

/// See the invariant in `lower`.
fn flat_rules_max(ruleset: &Ruleset) -> usize {
    let rules = ruleset.tables.iter().flat_map(|t| &t.chains).flat_map(|c| &c.rules);
    let wants_header =
        rules.flat_map(|r| &r.matches).filter(|m| m.match_meaning(ruleset.family).l4.bytes > 0);
    5 * ruleset.rule_count() + ruleset.rule_count() / 2 + wants_header.count()
}

#[test]
fn a_chain_reached_from_a_thousand_places_stays_within_the_bound() {
    let bodies = ["-j LOG\n", "-s 10.0.0.1 -j ACCEPT\n", "-p tcp -m tcp --dport 80 -j ACCEPT\n"];
    for (length, body) in [1, 4, 5, 60].into_iter().flat_map(|l| bodies.map(|b| (l, b))) {
        let mut text = String::from(":shared - [0:0]\n");
        (0..1_000).for_each(|i| {
            let _ = writeln!(text, "-A FORWARD -s 10.0.{}.{} -j shared", i / 250, i % 250);
        });
        (0..length).for_each(|_| {
            let _ = write!(text, "-A shared {body}");
        });
        let ruleset = filter(&text);
        check_bounded(&ruleset);
        let oracle = Oracle::new(&ruleset).unwrap();
        let image = compile_roomy(&ruleset, Counting::Exact).image;
        agree(&Exam::drawn(&oracle, 500), &ruleset, image, Counting::Exact);
    }
}

proptest! {
    #![proptest_config(common::cases(400))]
    #[test]
    fn nasty_rulesets_stay_within_the_bound(nasty in common::any_nasty()) {
        check_bounded(&read_as(&nasty.text, Some(nasty.family)));
    }
}

#[test]
fn chains_that_call_each_other_exponentially_are_given_up_by_both_and_hang_neither() {
    const DEPTH: usize = 30;
    for body in ["-j", "-p tcp -m limit --limit 1/s -j"] {
        let mut text = String::from("-A FORWARD -j c0\n");
        for i in 0..DEPTH {
            let _ = writeln!(text, ":c{i} - [0:0]");
            (0..2).for_each(|_| {
                let _ = writeln!(text, "-A c{i} {body} c{}", i + 1);
            });
        }
        let _ = writeln!(text, ":c{DEPTH} - [0:0]\n-A c{DEPTH} -j LOG");
        let ruleset = filter(&text);
        check_bounded(&ruleset);
        let oracle = Oracle::new(&ruleset).unwrap();
        let subject = subject_of(compile_roomy(&ruleset, Counting::Exact).image, &ruleset);
        for of in [&oracle as &dyn Subject, &subject] {
            let mut outcomes = Script::AllHold.play();
            let evaluation = of.evaluate(TableKind::Filter, Hook::Forward, &tcp_to(80), &mut outcomes);
            assert_eq!(evaluation.verdict.by, By::GivenUp);
        }
    }
}
