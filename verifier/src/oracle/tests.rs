//! What the kernel does, point by point. An expectation lists what matched as `chain:number`, what was
//! evaluated as `chain:number?1` (held) or `?0`, and the verdict.

use hipac_rules::{Family, Hook, Policy, Ruleset, TableKind};

use crate::outcomes::Script;
use crate::packet_text;
use crate::subject::{By, Evaluation, Event};
use crate::testing::{filter, oracle, ruleset};
use crate::{RuleId, Subject};

/// `FORWARD:1 sub:2?1 sub:2 DROP`; hotdrop is `DROP!`, a policy's verdict is in brackets.
fn describe(ruleset: &Ruleset, evaluation: &Evaluation) -> String {
    let short = |id: RuleId| {
        let table = ruleset.table(id.table()).unwrap();
        format!("{}:{}", table.chains[id.chain()].name, id.rule() + 1)
    };
    let mut words: Vec<String> = evaluation
        .events
        .iter()
        .map(|event| match *event {
            Event::Matched(id) => short(id),
            Event::Residual { rule, held, .. } => format!("{}?{}", short(rule), u8::from(held)),
        })
        .collect();
    let name = &evaluation.verdict.name;
    words.push(match evaluation.verdict.by {
        By::Rule(id) => {
            assert_eq!(
                evaluation.events.last(),
                Some(&Event::Matched(id)),
                "the rule that decides matched last"
            );
            name.to_string()
        }
        By::Policy => format!("[{name}]"),
        By::Malformed(id) => format!("{}!{name}", short(id)),
        By::GivenUp => "given up".to_owned(),
    });
    words.join(" ")
}

#[track_caller]
fn check_all(ruleset: &Ruleset, hook: Hook, script: Script, cases: &[(&str, &str)]) {
    let oracle = oracle(ruleset).unwrap();
    for &(packet, expected) in cases {
        let packet = packet_text::parse(packet, ruleset.family).unwrap();
        let evaluation = oracle.evaluate(ruleset.tables[0].kind, hook, &packet, &mut script.play());
        assert_eq!(describe(ruleset, &evaluation), expected, "{}", packet_text::show(&packet));
    }
}

/// Packets at FORWARD of the filter table, with every residual match holding.
#[track_caller]
fn check(rules: &str, cases: &[(&str, &str)]) {
    check_all(&filter(rules), Hook::Forward, Script::AllHold, cases);
}

#[track_caller]
fn check_error(rules: &str, expected: &str) {
    assert_eq!(oracle(&filter(rules)).map(|_| ()).unwrap_err().to_string(), expected);
}

#[test]
fn the_first_rule_that_matches_with_a_verdict_decides() {
    check(
        "FORWARD DROP
         -s 10.0.0.1 -j ACCEPT
         -s 10.0.0.0/8 -j REJECT
         -s 10.0.0.2 -j ACCEPT",
        &[
            ("-s 10.0.0.1", "FORWARD:1 ACCEPT"),
            ("-s 10.0.0.2", "FORWARD:2 REJECT"),
            ("-s 11.0.0.1", "[DROP]"),
        ],
    );
}

#[test]
fn rules_without_a_verdict_count_and_let_the_packet_go_on() {
    check(
        "FORWARD\n-s 10.0.0.1\n-j LOG\n-j DROP",
        &[("-s 10.0.0.1", "FORWARD:1 FORWARD:2 FORWARD:3 DROP"), ("", "FORWARD:2 FORWARD:3 DROP")],
    );
}

#[test]
fn return_and_the_end_of_a_called_chain_lead_behind_the_call() {
    check(
        "FORWARD DROP
         -j sub
         -s 10.0.0.1 -j ACCEPT
         sub
         -d 10.0.0.9 -j RETURN
         -d 10.0.0.8 -j REJECT",
        &[
            ("-d 10.0.0.9", "FORWARD:1 sub:1 [DROP]"),
            ("-d 10.0.0.9 -s 10.0.0.1", "FORWARD:1 sub:1 FORWARD:2 ACCEPT"),
            ("-d 10.0.0.8 -s 10.0.0.1", "FORWARD:1 sub:2 REJECT"),
            ("-d 10.0.0.7 -s 10.0.0.1", "FORWARD:1 FORWARD:2 ACCEPT"),
        ],
    );
}

#[test]
fn return_in_a_built_in_chain_applies_the_policy() {
    check(
        "FORWARD DROP\n-s 10.0.0.1 -j RETURN\n-j ACCEPT",
        &[("-s 10.0.0.1", "FORWARD:1 [DROP]"), ("", "FORWARD:2 ACCEPT")],
    );
}

#[test]
fn a_goto_returns_to_the_caller_of_the_chain_that_did_it() {
    let rules = "FORWARD DROP
         -j outer
         -j ACCEPT
         outer
         -g inner
         -j REJECT
         inner
         -s 10.0.0.1 -j RETURN
         -s 10.0.0.2 -g last
         last
         -j LOG";
    check(
        rules,
        &[
            ("-s 10.0.0.1", "FORWARD:1 outer:1 inner:1 FORWARD:2 ACCEPT"),
            ("-s 10.0.0.2", "FORWARD:1 outer:1 inner:2 last:1 FORWARD:2 ACCEPT"),
            ("-s 10.0.0.3", "FORWARD:1 outer:1 FORWARD:2 ACCEPT"),
        ],
    );
}

#[test]
fn a_goto_from_a_built_in_chain_ends_in_its_policy() {
    check(
        "FORWARD DROP
         -g sub
         -j ACCEPT
         sub
         -s 10.0.0.1 -j ACCEPT
         -s 10.0.0.2 -j RETURN",
        &[
            ("-s 10.0.0.1", "FORWARD:1 sub:1 ACCEPT"),
            ("-s 10.0.0.2", "FORWARD:1 sub:2 [DROP]"),
            ("", "FORWARD:1 [DROP]"),
        ],
    );
}

#[test]
fn a_chain_called_from_two_places_returns_to_each() {
    check(
        "FORWARD\n-j a\n-j b\n-j DROP\na\n-j log\nb\n-j log\nlog\n-j LOG",
        &[("", "FORWARD:1 a:1 log:1 FORWARD:2 b:1 log:1 FORWARD:3 DROP")],
    );
}

#[test]
fn an_empty_chain_and_an_unreachable_one_are_normal() {
    check("FORWARD\n-j empty\n-j DROP\nempty\nlost\n-j lost", &[("", "FORWARD:1 FORWARD:2 DROP")]);
}

#[test]
fn later_fragments_match_f_and_no_match_that_reads_a_header() {
    check(
        "FORWARD
         -f -s 10.0.0.1 -j LOG
         ! -f -j LOG
         -m multiport -j ACCEPT
         -m udp -j ACCEPT
         -j DROP",
        &[
            ("-s 10.0.0.1 -f", "FORWARD:1 FORWARD:5 DROP"),
            ("-s 10.0.0.1 --l4 fragment8", "FORWARD:1 FORWARD:5 DROP"),
            ("-s 10.0.0.1", "FORWARD:2 FORWARD:3 ACCEPT"),
        ],
    );
}

#[test]
fn a_match_that_wants_more_header_than_there_is_drops_the_packet_and_nothing_counts() {
    let rule = |m: &str| format!("FORWARD\n-m {m}\n-j ACCEPT");
    let table: &[(&str, [&str; 4])] = &[
        // 4 bytes, 8, 20
        ("under4", ["", "!", "!", "!"]),
        ("under8", ["", "FORWARD:1", "!", "!"]),
        ("under12", ["", "FORWARD:1", "FORWARD:1", "!"]),
        ("under20", ["", "FORWARD:1", "FORWARD:1", "!"]),
        ("whole", ["", "FORWARD:1", "FORWARD:1", "FORWARD:1"]),
        ("fragment", ["", "", "", ""]),
        ("fragment8", ["", "", "", "!"]),
    ];
    for (l4, expected) in table {
        for (m, expected) in ["never", "multiport", "udp", "tcp"].into_iter().zip(expected) {
            let expected = match *expected {
                "!" => "FORWARD:1!DROP".to_owned(),
                "" => "FORWARD:2 ACCEPT".to_owned(),
                first => format!("{first} FORWARD:2 ACCEPT"),
            };
            check(&rule(m), &[(&format!("--l4 {l4}"), &expected)]);
        }
    }
}

#[test]
fn a_cut_off_header_matters_only_when_evaluation_gets_there() {
    let rules = "FORWARD
         -s 10.0.0.1 -m tcp -j ACCEPT
         -m mark1 -m tcp -j ACCEPT
         -m limit -m tcp -j ACCEPT
         -j ACCEPT";
    let cases = [
        ("--l4 under4 -s 10.0.0.1", "FORWARD:1!DROP"),
        ("--l4 under4 --mark 1", "FORWARD:2!DROP"),
        ("--l4 under4", "FORWARD:3?1 FORWARD:3!DROP"),
        ("-s 10.0.0.1", "FORWARD:1 ACCEPT"),
    ];
    check(rules, &cases);
    let cases = [("--l4 under4", "FORWARD:3?0 FORWARD:4 ACCEPT")];
    check_all(&filter(rules), Hook::Forward, Script::NoneHolds, &cases);
}

#[test]
fn rules_that_matched_before_a_cut_off_header_have_counted() {
    check(
        "FORWARD\n-j sub\nsub\n-j LOG\n-m tcp\n-j ACCEPT",
        &[("--l4 under8", "FORWARD:1 sub:1 sub:2!DROP")],
    );
}

#[test]
fn residual_matches_are_evaluated_when_all_before_them_holds() {
    let rules = "FORWARD
         -s 10.0.0.1 -m dport22 -m limit -j LOG
         -m limit -m mark1 -j LOG
         -m strange -m limit -j DROP
         -m string -j ACCEPT";
    let cases = [
        (
            "-s 10.0.0.1 --dport 22",
            "FORWARD:1?1 FORWARD:1 FORWARD:2?1 FORWARD:3?1 FORWARD:3?1 FORWARD:3 DROP",
        ),
        ("-s 10.0.0.1 --dport 23", "FORWARD:2?1 FORWARD:3?1 FORWARD:3?1 FORWARD:3 DROP"),
        ("--mark 1", "FORWARD:2?1 FORWARD:2 FORWARD:3?1 FORWARD:3?1 FORWARD:3 DROP"),
    ];
    check(rules, &cases);
    let cases = [("--mark 1", "FORWARD:2?0 FORWARD:3?0 [ACCEPT]")];
    check_all(&filter(rules), Hook::Forward, Script::NoneHolds, &cases);
}

#[test]
fn later_rules_see_what_earlier_ones_changed() {
    let cases: &[(&str, &str, &str, &str)] = &[
        ("MARK1", "mark1", "--mark 0xfe", "FORWARD:1 FORWARD:2 DROP"),
        ("MARK1", "mark1", "--mark 0xff", "FORWARD:1 FORWARD:2 DROP"),
        ("FLIP1", "mark1", "--mark 0xff", "FORWARD:1 [ACCEPT]"),
        ("FLIP1", "not-mark1", "--mark 0xff", "FORWARD:1 FORWARD:2 DROP"),
        ("CONNMARK1", "connmark1", "", "FORWARD:1 FORWARD:2 DROP"),
        ("SAVE", "connmark1", "--mark 1", "FORWARD:1 FORWARD:2 DROP"),
        ("SAVE", "connmark1", "--mark 2 --connmark 1", "FORWARD:1 [ACCEPT]"),
        ("RESTORE", "mark1", "--connmark 1", "FORWARD:1 FORWARD:2 DROP"),
        ("RESTORE", "mark1", "--connmark 0x100 --mark 1", "FORWARD:1 [ACCEPT]"),
        ("NOTRACK", "untracked", "--ctstate ESTABLISHED,DNAT", "FORWARD:1 FORWARD:2 DROP"),
        ("TTL9", "ttl9", "", "FORWARD:1 FORWARD:2 DROP"),
        ("TTL+1", "ttl9", "--ttl 8", "FORWARD:1 FORWARD:2 DROP"),
        ("TTL-1", "ttl9", "--ttl 10", "FORWARD:1 FORWARD:2 DROP"),
        ("TTL-1", "ttl9", "--ttl 9", "FORWARD:1 [ACCEPT]"),
        ("TOS8", "tos8", "--tos 3", "FORWARD:1 FORWARD:2 DROP"),
    ];
    for (target, m, packet, expected) in cases {
        check(&format!("FORWARD\n-j {target}\n-m {m} -j DROP"), &[(packet, expected)]);
    }
    // A change within a called chain outlives it, and one by a rule that did not match never happens.
    check(
        "FORWARD\n-j sub\n-m mark1 -j DROP\nsub\n-p 6 -j MARK1",
        &[("-p tcp", "FORWARD:1 sub:1 FORWARD:2 DROP"), ("", "FORWARD:1 [ACCEPT]")],
    );
}

#[test]
fn addresses_are_tested_under_any_mask() {
    check(
        "FORWARD
         -s 10.0.3.0/255.0.255.0 -j LOG
         ! -d 192.0.2.0/24 -j LOG
         -s 0.0.0.0/0 -j DROP",
        &[
            ("-s 10.99.3.7 -d 192.0.2.1", "FORWARD:1 FORWARD:3 DROP"),
            ("-s 10.99.4.7 -d 192.0.2.255", "FORWARD:3 DROP"),
            ("-s 11.99.3.7 -d 192.0.3.0", "FORWARD:2 FORWARD:3 DROP"),
        ],
    );
}

#[test]
fn the_negation_of_a_test_of_nothing_never_holds() {
    for rule in ["! -s 0.0.0.0/0", "! -d 0.0.0.0/0", "! -i +", "! -o +"] {
        check(
            &format!("FORWARD\n{rule} -j DROP"),
            &[("", "[ACCEPT]"), ("-s 1.2.3.4 -d 1.2.3.4 -i a -o b", "[ACCEPT]")],
        );
    }
    check("FORWARD\n! -p 0 -j DROP", &[("-p tcp", "FORWARD:1 DROP"), ("", "FORWARD:1 DROP")]);
}

#[test]
fn interfaces_match_whole_names_or_prefixes() {
    check(
        "FORWARD
         -i eth0 -j LOG
         -i eth+ -j LOG
         ! -o ppp+ -j LOG
         ! -o ppp0 -j LOG
         -i + -j DROP",
        &[
            ("-i eth0 -o ppp0", "FORWARD:1 FORWARD:2 FORWARD:5 DROP"),
            ("-i eth00 -o ppp", "FORWARD:2 FORWARD:4 FORWARD:5 DROP"),
            ("-i eth -o pp", "FORWARD:2 FORWARD:3 FORWARD:4 FORWARD:5 DROP"),
            ("-i et -o ppp0", "FORWARD:5 DROP"),
            ("-o ppp0", "FORWARD:5 DROP"),
        ],
    );
    // 15 bytes are all that a name has; a longer one is no interface's.
    check(
        "FORWARD\n-i abcdefghijklmno -j LOG\n-i abcdefghijklmnop -j DROP\n! -i abcdefghijklmnop -j LOG",
        &[("-i abcdefghijklmno", "FORWARD:1 FORWARD:3 [ACCEPT]")],
    );
    check(
        "FORWARD\n-m physdev-eth -j DROP",
        &[("--physdev-in eth7", "FORWARD:1 DROP"), ("--physdev-in et -i eth7", "[ACCEPT]")],
    );
}

#[test]
fn protocols_and_clauses_are_tested() {
    check(
        "FORWARD\n-p 6 -j LOG\n! -p 17 -j LOG",
        &[
            ("-p tcp", "FORWARD:1 FORWARD:2 [ACCEPT]"),
            ("-p udp", "[ACCEPT]"),
            ("-p gre", "FORWARD:2 [ACCEPT]"),
        ],
    );
    check(
        "FORWARD\n-m ports -j DROP",
        &[
            ("--sport 53", "FORWARD:1 DROP"),
            ("--dport 2047", "FORWARD:1 DROP"),
            ("--dport 2048 --sport 1023", "[ACCEPT]"),
            ("--sport 1024", "FORWARD:1 DROP"),
        ],
    );
    check(
        "FORWARD\n-m never -j DROP\n-m dport22 -m ports -j DROP",
        &[("--dport 22", "[ACCEPT]"), ("--dport 22 --sport 53", "FORWARD:2 DROP")],
    );
}

#[test]
fn ipv6_addresses_have_128_bits() {
    let rules = ruleset(
        Family::V6,
        TableKind::Mangle,
        "PREROUTING DROP
         -s 2001:db8::/33 -j ACCEPT
         ! -d ::1 -j REJECT",
    );
    let cases = [
        ("-s 2001:db8:7fff:ffff:ffff:ffff:ffff:ffff", "PREROUTING:1 ACCEPT"),
        ("-s 2001:db8:8000:: -d ::2", "PREROUTING:2 REJECT"),
        ("-s 2001:db8:8000:: -d ::1", "[DROP]"),
    ];
    check_all(&rules, Hook::Prerouting, Script::AllHold, &cases);
}

#[test]
fn a_table_that_is_not_there_lets_every_packet_pass() {
    let rules = filter("FORWARD\n-j DROP");
    let oracle = oracle(&rules).unwrap();
    for (table, hook) in [(TableKind::Raw, Hook::Output), (TableKind::Filter, Hook::Prerouting)] {
        let evaluation =
            Subject::evaluate(&oracle, table, hook, &Default::default(), &mut Script::AllHold.play());
        assert_eq!(describe(&rules, &evaluation), "[ACCEPT]");
    }
}

#[test]
fn chains_call_each_other_as_deep_as_there_are_chains() {
    const DEPTH: usize = 10_000;
    for (jump, events_after) in [("-j", DEPTH), ("-g", 0)] {
        let mut text = format!("FORWARD DROP\n{jump} c0\n-j LOG");
        for i in 0..DEPTH {
            text += &format!("\nc{i}\n{jump} c{}\n-j LOG", i + 1);
        }
        text += &format!("\nc{DEPTH}\n-s 10.0.0.1 -j ACCEPT\n-j LOG");
        let rules = filter(&text);
        let oracle = oracle(&rules).unwrap();
        let run = |packet: &str| {
            let packet = packet_text::parse(packet, Family::V4).unwrap();
            oracle.evaluate(TableKind::Filter, Hook::Forward, &packet, &mut Script::AllHold.play())
        };
        let evaluation = run("-s 10.0.0.1");
        assert_eq!(evaluation.verdict.name, "ACCEPT");
        assert_eq!(evaluation.events.len(), DEPTH + 2);
        let evaluation = run("");
        assert_eq!(evaluation.verdict.by, By::Policy);
        assert_eq!(evaluation.events.len(), DEPTH + 2 + events_after + usize::from(jump == "-j"));
    }
}

#[test]
fn an_evaluation_that_explodes_is_given_up() {
    let mut text = String::from("FORWARD\n-j c00\n-j DROP");
    for i in 0..40 {
        text += &format!("\nc{i:02}\n-j c{:02}\n-j c{:02}", i + 1, i + 1);
    }
    text += "\nc40";
    let rules = filter(&text);
    let evaluation = oracle(&rules).unwrap().evaluate(
        TableKind::Filter,
        Hook::Forward,
        &Default::default(),
        &mut Script::AllHold.play(),
    );
    assert_eq!(evaluation.verdict.by, By::GivenUp);
    assert_eq!(evaluation.events.len(), super::EVENTS_MAX);
}

#[test]
fn what_no_kernel_would_load_is_refused_with_its_place() {
    check_error(
        "FORWARD\n-j ACCEPT\n-j gone",
        "filter/FORWARD rule 2 (line 3): table filter has no chain gone: declare it with `:gone - [0:0]`",
    );
    check_error(
        "FORWARD\nsub\n-j INPUT",
        "filter/sub rule 1 (line 3): INPUT is a built-in chain: only the kernel enters it, rules cannot jump there",
    );
    check_error(
        "FORWARD\n-j a\na\n-j LOG\n-j b\nb\n-g c\nc\n-j b",
        "filter/c rule 1 (line 9): chains call each other in a loop: b → c → b",
    );
    check_error(
        "FORWARD\n-j a\na\n-j a",
        "filter/a rule 1 (line 4): chains call each other in a loop: a → a",
    );
    check_error(
        "FORWARD\n-m port-of-interface",
        "filter/FORWARD rule 1 (line 2): the verifier cannot evaluate `-m port-of-interface`: it tests a field this version does not know",
    );
}

#[test]
fn a_loop_that_no_packet_can_enter_is_loaded() {
    check("FORWARD\n-j LOG\na\n-j b\nb\n-j a", &[("", "FORWARD:1 [ACCEPT]")]);
    check("FORWARD\n-j a\na\n-j DROP\n-j a", &[("", "FORWARD:1 a:1 DROP")]);
    check_error(
        "FORWARD\n-j a\na\n-s 10.0.0.1 -j DROP\n-j a",
        "filter/a rule 2 (line 5): chains call each other in a loop: a → a",
    );
}

#[test]
fn built_in_chains_have_their_own_policies() {
    let mut rules = filter("FORWARD DROP\nINPUT\n-j RETURN");
    rules.tables[0].chains[2].policy = Some(Policy::Drop);
    for (hook, expected) in
        [(Hook::Input, "INPUT:1 [ACCEPT]"), (Hook::Forward, "[DROP]"), (Hook::Output, "[DROP]")]
    {
        check_all(&rules, hook, Script::AllHold, &[("", expected)]);
    }
}
