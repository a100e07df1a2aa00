//! The oracle on rules as people write them: the parser, the registry's meanings and the evaluation
//! together, against what the kernel does.

use hipac_rules::{Family, Hook, ParseOptions, Ruleset, TableKind, parse};
use hipac_verifier::{By, Evaluation, Event, Oracle, RuleId, Script, packet_text};

fn read(family: Family, text: &str) -> Ruleset {
    let parsed = parse(text, &ParseOptions { family: Some(family), ..ParseOptions::default() });
    let faults: Vec<String> = parsed.faults.iter().map(ToString::to_string).collect();
    assert!(!parsed.has_errors(), "{faults:#?}");
    parsed.ruleset
}

/// `1 2?1 DROP`: the rules of the chain that matched, by number; residual matches evaluated with their outcome;
/// the verdict, in brackets when it is the policy's, with `!` when the packet was malformed.
fn describe(evaluation: &Evaluation) -> String {
    let number = |id: RuleId| id.rule() + 1;
    let mut words: Vec<String> = evaluation
        .events
        .iter()
        .map(|event| match *event {
            Event::Matched(id) => number(id).to_string(),
            Event::Residual { rule, held, .. } => format!("{}?{}", number(rule), u8::from(held)),
        })
        .collect();
    let name = &evaluation.verdict.name;
    words.push(match evaluation.verdict.by {
        By::Rule(_) => name.to_string(),
        By::Policy => format!("[{name}]"),
        By::Malformed(id) => format!("{}!{name}", number(id)),
        By::GivenUp => "given up".to_owned(),
    });
    words.join(" ")
}

#[track_caller]
fn check_at(family: Family, table: &str, hook: Hook, rules: &str, script: Script, cases: &[(&str, &str)]) {
    let rules: String = rules.lines().map(|rule| format!("-A {} {}\n", hook.name(), rule.trim())).collect();
    let ruleset = read(family, &format!("*{table}\n{rules}COMMIT\n"));
    let oracle = Oracle::new(&ruleset).unwrap();
    let table = TableKind::from_name(table).unwrap();
    for &(packet, expected) in cases {
        let fields = packet_text::parse(packet, family).unwrap();
        let evaluation = oracle.evaluate(table, hook, &fields, &mut script.play());
        assert_eq!(describe(&evaluation), expected, "{packet}");
    }
}

/// Rules of filter/FORWARD, every residual match holding.
#[track_caller]
fn check(rules: &str, cases: &[(&str, &str)]) {
    check_at(Family::V4, "filter", Hook::Forward, rules, Script::AllHold, cases);
}

#[track_caller]
fn check_v6(rules: &str, cases: &[(&str, &str)]) {
    check_at(Family::V6, "filter", Hook::Forward, rules, Script::AllHold, cases);
}

/// Rules of mangle/PREROUTING.
#[track_caller]
fn check_mangle(rules: &str, cases: &[(&str, &str)]) {
    check_at(Family::V4, "mangle", Hook::Prerouting, rules, Script::AllHold, cases);
}

#[test]
fn ports_of_tcp_are_ranges_and_can_be_negated() {
    check(
        "-p tcp --dport 22 -j ACCEPT
         -p tcp -m tcp --sport 1024:2047 ! --dport :79 -j DROP
         -p tcp -m multiport --ports 53,8000:8080 -j REJECT",
        &[
            ("-p tcp --dport 22", "1 ACCEPT"),
            ("-p udp --dport 22", "[ACCEPT]"),
            ("-p tcp --sport 1024 --dport 80", "2 DROP"),
            ("-p tcp --sport 2047 --dport 79", "[ACCEPT]"),
            ("-p tcp --sport 2048 --dport 80", "[ACCEPT]"),
            ("-p tcp --sport 8080", "3 REJECT"),
            ("-p tcp --dport 53", "3 REJECT"),
            ("-p tcp --sport 54 --dport 7999", "[ACCEPT]"),
        ],
    );
}

#[test]
fn the_negation_of_all_ports_never_matches() {
    check(
        "-p tcp -m tcp ! --sport 0:65535 -j DROP",
        &[("-p tcp", "[ACCEPT]"), ("-p tcp --sport 65535", "[ACCEPT]")],
    );
}

#[test]
fn a_header_cut_off_drops_the_packet_when_a_match_reads_it() {
    check(
        "-p tcp -m tcp --dport 22 -j ACCEPT
         -p udp -m udp --dport 53 -j ACCEPT
         -p sctp -m multiport --dports 9 -j ACCEPT
         -p icmp -m icmp --icmp-type 8 -j ACCEPT
         -j LOG",
        &[
            ("-p tcp --dport 22 --l4 under20", "1!DROP"),
            ("-p tcp --dport 22 --l4 fragment8", "1!DROP"),
            ("-p tcp --dport 22 -f", "5 [ACCEPT]"),
            ("-p udp --dport 53 --l4 under8", "2!DROP"),
            ("-p udp --dport 53 --l4 fragment8", "5 [ACCEPT]"),
            ("-p sctp --dport 9 --l4 under4", "3!DROP"),
            ("-p sctp --dport 9 --l4 under8", "3 ACCEPT"),
            ("-p icmp --icmp-type 8 --l4 under4", "4!DROP"),
            ("-p gre --l4 under4", "5 [ACCEPT]"),
        ],
    );
}

#[test]
fn tcp_flags_are_compared_under_their_mask() {
    check(
        "-p tcp --syn -j LOG
         -p tcp ! --syn -j LOG
         -p tcp --tcp-flags ALL FIN,PSH,URG -j DROP
         -p tcp --tcp-flags SYN,RST SYN,RST -j REJECT",
        &[
            ("-p tcp --tcp-flags SYN", "1 [ACCEPT]"),
            ("-p tcp --tcp-flags SYN,ECE,URG", "1 [ACCEPT]"),
            ("-p tcp --tcp-flags SYN,ACK", "2 [ACCEPT]"),
            ("-p tcp --tcp-flags FIN,PSH,URG,CWR", "2 3 DROP"),
            ("-p tcp --tcp-flags SYN,RST", "2 4 REJECT"),
            ("-p udp --tcp-flags SYN", "[ACCEPT]"),
        ],
    );
}

#[test]
fn icmp_types_have_codes_or_not() {
    check(
        "-p icmp --icmp-type 3/4 -j ACCEPT
         -p icmp --icmp-type destination-unreachable -j DROP
         -p icmp ! --icmp-type echo-request -j REJECT
         -p icmp --icmp-type any -j LOG",
        &[
            ("-p icmp --icmp-type 3/4", "1 ACCEPT"),
            ("-p icmp --icmp-type 3/5", "2 DROP"),
            ("-p icmp --icmp-type 8/7", "4 [ACCEPT]"),
            ("-p icmp --icmp-type 0", "3 REJECT"),
            ("-p icmp --icmp-type 8 -f", "[ACCEPT]"),
        ],
    );
    check_v6(
        "-p ipv6-icmp -m icmp6 --icmpv6-type 128 -j ACCEPT\n-p icmpv6 --icmpv6-type 1/3 -j DROP",
        &[
            ("-p icmpv6 --icmp-type 128/9", "1 ACCEPT"),
            ("-p icmpv6 --icmp-type 1/3", "2 DROP"),
            ("-p icmpv6 --icmp-type 1/2", "[ACCEPT]"),
        ],
    );
}

#[test]
fn connection_states_are_one_of_five_and_nat_is_a_bit() {
    check(
        "-m state --state NEW,INVALID -j LOG
         -m conntrack ! --ctstate ESTABLISHED,RELATED -j LOG
         -m conntrack --ctstate DNAT -j LOG
         -m conntrack --ctstate SNAT,UNTRACKED -j LOG",
        &[
            ("--ctstate NEW", "1 2 [ACCEPT]"),
            ("--ctstate INVALID", "1 2 [ACCEPT]"),
            ("--ctstate RELATED", "[ACCEPT]"),
            ("--ctstate ESTABLISHED,DNAT", "3 [ACCEPT]"),
            ("--ctstate UNTRACKED", "2 4 [ACCEPT]"),
            ("--ctstate ESTABLISHED,SNAT,DNAT", "3 4 [ACCEPT]"),
        ],
    );
}

#[test]
fn marks_that_rules_set_are_seen_by_later_ones() {
    check_mangle(
        "-s 10.0.0.1 -j MARK --set-xmark 0x10/0xf0
         -m mark --mark 0x10/0xf0 -j CONNMARK --save-mark
         -m connmark --mark 0x1f -j ACCEPT
         -s 10.0.0.2 -j CONNMARK --restore-mark
         -m mark ! --mark 0 -j DROP",
        &[
            ("-s 10.0.0.1 --mark 0xff", "1 2 3 ACCEPT"),
            ("-s 10.0.0.1 --mark 0xf0", "1 2 5 DROP"),
            ("-s 10.0.0.2 --connmark 7", "4 5 DROP"),
            ("-s 10.0.0.2 --mark 7", "4 [ACCEPT]"),
        ],
    );
}

#[test]
fn other_changes_are_seen_as_well() {
    check_mangle(
        "-p tcp -j DSCP --set-dscp 0x2e
         -m dscp --dscp 46 -j TTL --ttl-dec 1
         -m ttl --ttl-lt 2 -j DROP
         -m tos --tos 0xb8/0xfc -j ACCEPT",
        &[
            ("-p tcp --ttl 3 --tos 1", "1 2 4 ACCEPT"),
            ("-p tcp --ttl 2", "1 2 3 DROP"),
            ("--tos 0xbb", "2 4 ACCEPT"),
            ("--ttl 1", "3 DROP"),
        ],
    );
    let rules = "-s 10.0.0.1 -j NOTRACK\n-m conntrack --ctstate UNTRACKED -j DROP";
    let cases = [("-s 10.0.0.1", "1 2 DROP"), ("-s 10.0.0.2", "[ACCEPT]")];
    check_at(Family::V4, "raw", Hook::Prerouting, rules, Script::AllHold, &cases);
}

#[test]
fn stateful_matches_are_evaluated_when_all_before_them_holds() {
    let rules = "-p tcp -m tcp --dport 22 -m recent --set --name ssh --rsource
         -p tcp -m tcp --dport 22 -m recent --update --seconds 60 --name ssh --rsource -m limit --limit 3/min -j DROP
         -m statistic --mode random --probability 0.5 -m mark --mark 1 -j DROP
         -m comment --comment \"just words\" -j ACCEPT";
    let cases = [
        ("-p tcp --dport 22", "1?1 1 2?1 2?1 2 DROP"),
        ("-p tcp --dport 23", "3?1 4 ACCEPT"),
        ("--mark 1", "3?1 3 DROP"),
    ];
    check(rules, &cases);
    let cases = [("-p tcp --dport 22", "1?0 2?0 3?0 4 ACCEPT")];
    check_at(Family::V4, "filter", Hook::Forward, rules, Script::NoneHolds, &cases);
}

#[test]
fn interfaces_lengths_and_macs_are_tested() {
    check(
        "-i eth+ -o ppp0 -m length --length 1281: -j REJECT
         -m mac --mac-source 00:11:22:33:44:55 -j ACCEPT
         -m mac ! --mac-source 00:11:22:33:44:55 -i wlan0 -j DROP
         -m pkttype --pkt-type multicast -j DROP
         -m addrtype --dst-type LOCAL -j DROP",
        &[
            ("-i eth1 -o ppp0 --length 1281", "1 REJECT"),
            ("-i eth1 -o ppp0 --length 1280", "[ACCEPT]"),
            ("--mac 00:11:22:33:44:55", "2 ACCEPT"),
            ("-i wlan0 --mac 00:11:22:33:44:56", "3 DROP"),
            ("--pkt-type multicast", "4 DROP"),
            ("--dst-type LOCAL", "5 DROP"),
        ],
    );
}

#[test]
fn addresses_that_are_lists_are_several_rules() {
    check(
        "-s 10.0.0.1,10.0.0.2 -d 192.0.2.0/255.255.255.240,198.51.100.7 -j DROP",
        &[
            ("-s 10.0.0.1 -d 192.0.2.15", "1 DROP"),
            ("-s 10.0.0.2 -d 198.51.100.7", "4 DROP"),
            ("-s 10.0.0.2 -d 192.0.2.16", "[ACCEPT]"),
        ],
    );
}

#[test]
fn chains_are_called_left_and_gone_to() {
    let ruleset = read(
        Family::V4,
        "*filter
:FORWARD DROP [0:0]
:outer - [0:0]
:inner - [0:0]
-A FORWARD -j outer
-A FORWARD -j ACCEPT
-A outer -s 10.0.0.1 -g inner
-A outer -s 10.0.0.2 -j RETURN
-A outer -j REJECT
-A inner -p tcp -j RETURN
-A inner -p udp -j DROP
COMMIT
",
    );
    let oracle = Oracle::new(&ruleset).unwrap();
    let ask = |packet: &str| {
        let packet = packet_text::parse(packet, Family::V4).unwrap();
        let evaluation =
            oracle.evaluate(TableKind::Filter, Hook::Forward, &packet, &mut Script::AllHold.play());
        let events: Vec<String> =
            evaluation.events.iter().map(|e| e.rule().place(&ruleset).to_string()).collect();
        format!("{} → {}", events.join(", "), evaluation.verdict.show(&ruleset))
    };
    assert_eq!(
        ask("-s 10.0.0.1 -p tcp"),
        "filter/FORWARD rule 1 (line 5), filter/outer rule 1 (line 7), filter/inner rule 1 (line 10), \
         filter/FORWARD rule 2 (line 6) → ACCEPT by filter/FORWARD rule 2 (line 6)"
    );
    assert_eq!(
        ask("-s 10.0.0.1 -p udp"),
        "filter/FORWARD rule 1 (line 5), filter/outer rule 1 (line 7), filter/inner rule 2 (line 11) \
         → DROP by filter/inner rule 2 (line 11)"
    );
    assert_eq!(
        ask("-s 10.0.0.3"),
        "filter/FORWARD rule 1 (line 5), filter/outer rule 3 (line 9) → REJECT by filter/outer rule 3 (line 9)"
    );
}
