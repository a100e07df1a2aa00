//! The language as data: what a text prints as, and which faults it has, where.

use hipac_rules::{Family, ParseOptions, PrintOptions, Severity, TableKind, Target, parse, print};

/// The rules of `text`, put into `*filter`, as they print.
#[track_caller]
fn check(text: &str, expected: &str) {
    check_in("filter", text, expected);
}

#[track_caller]
fn check_in(table: &str, text: &str, expected: &str) {
    let parsed = parse(format!("*{table}\n{text}\nCOMMIT\n"), &ParseOptions::default());
    let errors: Vec<String> = parsed.faults.iter().map(|f| f.to_string()).collect();
    assert!(!parsed.has_errors(), "{errors:#?}");
    assert_eq!(rules(&parsed), expected);
}

fn rules(parsed: &hipac_rules::Parsed) -> String {
    let text = print(&parsed.ruleset, &PrintOptions { counters: false, header: false });
    let lines: Vec<&str> = text.lines().filter(|l| l.starts_with("-A")).collect();
    lines.join("\n")
}

/// The faults of a text, one a line.
#[track_caller]
fn check_faults(text: &str, expected: &[&str]) {
    let parsed = parse(text, &ParseOptions::default());
    let faults: Vec<String> = parsed.faults.iter().map(|f| f.to_string()).collect();
    assert_eq!(faults, expected);
}

/// A line of `*filter` has this one fault, and its rule is nevertheless kept as printed.
#[track_caller]
fn check_kept(line: &str, fault: &str, expected: &str) {
    let parsed = parse(format!("*filter\n{line}\nCOMMIT\n"), &ParseOptions::default());
    let faults: Vec<&str> = parsed.faults.iter().map(|f| &*f.message).collect();
    assert_eq!(faults, [fault]);
    assert_eq!(rules(&parsed), expected);
}

#[test]
fn addresses_are_masked_and_have_a_length() {
    check("-A INPUT -s 10.11.12.13/9 -d 1.2.3.4", "-A INPUT -s 10.0.0.0/9 -d 1.2.3.4/32");
    check("-A INPUT --src 1.2.3.4/255.0.255.0", "-A INPUT -s 1.0.3.0/255.0.255.0");
    check("-A INPUT -s 0.0.0.0/0", "-A INPUT");
    check("-A INPUT ! -s 0.0.0.0/0", "-A INPUT ! -s 0.0.0.0/0");
    check("-A INPUT -s fe80::1/64", "-A INPUT -s fe80::/64");
}

#[test]
fn lists_of_addresses_are_every_pair_of_them() {
    check(
        "-A INPUT -s 1.1.1.1,2.2.2.2 -d 3.3.3.3,4.4.4.4",
        "-A INPUT -s 1.1.1.1/32 -d 3.3.3.3/32\n-A INPUT -s 1.1.1.1/32 -d 4.4.4.4/32\n\
         -A INPUT -s 2.2.2.2/32 -d 3.3.3.3/32\n-A INPUT -s 2.2.2.2/32 -d 4.4.4.4/32",
    );
}

#[test]
fn options_of_a_protocol_need_no_match() {
    check("-A INPUT -p tcp --dport ssh -j ACCEPT", "-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT");
    check("-A INPUT -p tcp -j ACCEPT --dport 22", "-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT");
    check(
        "-A INPUT -p tcp -m state --state NEW --syn",
        "-A INPUT -p tcp -m state --state NEW -m tcp --tcp-flags FIN,SYN,RST,ACK SYN",
    );
    check("-A INPUT -m tcp --dport 1 -p 6", "-A INPUT -p tcp -m tcp --dport 1");
    check("-A INPUT -p icmp --icmp-type ping", "-A INPUT -p icmp -m icmp --icmp-type 8");
}

#[test]
fn options_may_be_long_glued_or_cut_short() {
    check("-A INPUT --proto tcp --dp 22 --ju ACCEPT", "-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT");
    check("-A INPUT -ptcp -s1.2.3.4 -jDROP", "-A INPUT -s 1.2.3.4/32 -p tcp -j DROP");
    check("--append INPUT --jump=DROP --source=1.2.3.4", "-A INPUT -s 1.2.3.4/32 -j DROP");
}

#[test]
fn one_match_may_stand_twice() {
    check(
        "-A INPUT -p tcp -m multiport --sports 1,2 -m multiport --dports 3:4",
        "-A INPUT -p tcp -m multiport --sports 1,2 -m multiport --dports 3:4",
    );
    check(
        "-A INPUT -p tcp -m tcp --sport 1 -m tcp --dport 2",
        "-A INPUT -p tcp -m tcp --sport 1 -m tcp --dport 2",
    );
}

#[test]
fn commands_edit_chains_as_they_come() {
    check("-A INPUT -j DROP\n-I INPUT -j ACCEPT", "-A INPUT -j ACCEPT\n-A INPUT -j DROP");
    check("-I INPUT -s 1.1.1.1,2.2.2.2", "-A INPUT -s 2.2.2.2/32\n-A INPUT -s 1.1.1.1/32");
    check("-A INPUT -j DROP\n-I INPUT 2 -j ACCEPT", "-A INPUT -j DROP\n-A INPUT -j ACCEPT");
    check("-A INPUT -p tcp\n-A INPUT -p udp\n-D INPUT 1", "-A INPUT -p udp");
    check("-A INPUT -p tcp --dport ssh\n-D INPUT -p tcp -m tcp --dport 22:22", "");
    check("-A INPUT -p tcp\n-R INPUT 1 -p udp", "-A INPUT -p udp");
    check("-N X\n-A X -j DROP\n-A INPUT -j X\n-E X Y", "-A INPUT -j Y\n-A Y -j DROP");
    check("-A INPUT -p tcp\n-F INPUT", "");
    check("-N X\n-X X", "");
}

#[test]
fn quotes_hold_words_together() {
    check(r#"-A INPUT -m comment --comment "a \"b\" \\c""#, r#"-A INPUT -m comment --comment "a \"b\" \\c""#);
    check("-A INPUT -m comment --comment 'a'", r#"-A INPUT -m comment --comment "\'a\'""#);
    check(r#"-A INPUT -j LOG --log-prefix "x""#, "-A INPUT -j LOG --log-prefix x");
    check("-A INPUT -m comment --comment ! -j DROP", r#"-A INPUT -m comment --comment "!" -j DROP"#);
    check(r#"-A INPUT -m comment --comment """#, r#"-A INPUT -m comment --comment """#);
}

#[test]
fn what_holds_anyway_is_not_printed() {
    check("-A INPUT -i + -p all", "-A INPUT");
    check("-A INPUT -p tcp --sport 0:65535", "-A INPUT -p tcp -m tcp");
    check("-A INPUT -p tcp ! --sport :", "-A INPUT -p tcp -m tcp ! --sport 0:65535");
    check("-A INPUT -m limit --limit 60/min --limit-burst 5", "-A INPUT -m limit --limit 1/sec");
    check("-A INPUT -m limit", "-A INPUT -m limit --limit 3/hour");
    check("-A INPUT -j REJECT", "-A INPUT -j REJECT --reject-with icmp-port-unreachable");
    check("-A INPUT -j LOG --log-level warning", "-A INPUT -j LOG");
}

#[test]
fn a_second_table_of_a_kind_replaces_the_first() {
    let text = "*filter\n-A INPUT -p tcp\nCOMMIT\n*nat\nCOMMIT\n*filter\n-A INPUT -p udp\nCOMMIT\n";
    let parsed = parse(text, &ParseOptions::default());
    assert!(parsed.faults.is_empty());
    assert_eq!(rules(&parsed), "-A INPUT -p udp");
    let kinds: Vec<TableKind> = parsed.ruleset.tables.iter().map(|t| t.kind).collect();
    assert_eq!(kinds, [TableKind::Filter, TableKind::Nat]);
}

#[test]
fn chains_are_sorted_and_keep_policy_and_counters() {
    let text = "*filter\n:z - [0:0]\n:a - [0:0]\n:INPUT DROP [5:6]\n[7:8] -A a -j z\n-A z -c 1 2\nCOMMIT\n";
    let parsed = parse(text, &ParseOptions::default());
    assert!(parsed.faults.is_empty(), "{:?}", parsed.faults);
    let printed = print(&parsed.ruleset, &PrintOptions { counters: true, header: false });
    let expected = "*filter\n:INPUT DROP [5:6]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:a - [0:0]\n:z - [0:0]\n\
                    [7:8] -A a -j z\n[1:2] -A z\nCOMMIT\n";
    assert_eq!(printed, expected);
}

#[test]
fn every_fault_of_a_text_is_found_at_its_place() {
    check_faults(
        "*filter\n-A INPUT -p tcp --dport 70000 -j ACEPT\n-A INPUT -s 1.2.3.300 -d ::1\n-A NOPE -p tpc\n",
        &[
            "1:1: error: table filter is never committed (end it with a line COMMIT)",
            "2:25: error: port 70000 is above 65535",
            "2:34: error: `ACEPT` is neither a target nor a chain of this table (ACCEPT is a target of a similar name)",
            "3:13: error: `1.2.3.300` is no IPv4 address",
            "3:26: error: `::1` is an IPv6 address in an IPv4 ruleset (put IPv6 rules in a file of their own)",
            "4:4: error: chain NOPE is not declared (put a line `:NOPE - [0:0]` after *filter)",
            "4:12: error: `tpc` is no known protocol (write its number, or a name such as tcp)",
        ],
    );
}

#[test]
fn a_faulty_rule_keeps_what_is_clear() {
    let old = "`!` after its option, a form that the kernel's tools no longer take";
    check_kept("-A INPUT -s ! 1.2.3.4 -j DROP", old, "-A INPUT ! -s 1.2.3.4/32 -j DROP");
    check_kept("-A INPUT -p tcp --dport ! 22", old, "-A INPUT -p tcp -m tcp ! --dport 22");
    check_kept(
        "-A INPUT -s ntp.example.net -j DROP",
        "`ntp.example.net` is a host name, which hipac does not resolve",
        "-A INPUT -j DROP",
    );
    check_kept("-A INPUT -j ACCEPT foo", "`foo` belongs to no option", "-A INPUT -j ACCEPT");
    check_kept(
        "-A INPUT -m limit --dport 3",
        "there is no option --dport here",
        "-A INPUT -m limit --limit 3/hour",
    );
    check_kept("-A INPUT -o eth0", "-o cannot stand in INPUT", "-A INPUT -o eth0");
    check_kept(
        "-A INPUT -j REJECT --reject-with tcp-reset",
        "REJECT: tcp-reset answers TCP only: the rule needs `-p tcp`",
        "-A INPUT -j REJECT --reject-with tcp-reset",
    );
    check_kept(
        "-A INPUT -p udp --dport 60000:29",
        "the range 60000 to 29 holds nothing",
        "-A INPUT -p udp -m udp --dport 60000:29",
    );
}

#[test]
fn what_is_unknown_is_kept_word_by_word() {
    let parsed = parse(
        "*filter\n-A INPUT -m geoip ! --src-cc \"A B\",C --x -p tcp -m tcp --dport 22 -j FROB --a b\nCOMMIT\n",
        &ParseOptions::default(),
    );
    let found: Vec<(Severity, &str)> = parsed.faults.iter().map(|f| (f.severity, &*f.message)).collect();
    assert_eq!(
        found,
        [
            (Severity::Warning, "hipac does not know the match geoip"),
            (Severity::Error, "`FROB` is neither a target nor a chain of this table"),
        ]
    );
    assert_eq!(
        rules(&parsed),
        "-A INPUT -p tcp -m geoip ! --src-cc \"A B\" ,C --x -m tcp --dport 22 -j FROB --a b"
    );
}

#[test]
fn a_chain_may_be_used_before_it_is_declared_at_the_price_of_a_fault() {
    let parsed = parse("*filter\n-A INPUT -j later\n:later - [0:0]\nCOMMIT\n", &ParseOptions::default());
    assert_eq!(
        parsed.faults[0].to_string(),
        "2:13: error: chain later is declared only on line 3, after this use of it \
         (declare chains at the head of their table)"
    );
    assert_eq!(parsed.ruleset.tables[0].chains[0].rules[0].target, Target::Jump("later".into()));
}

#[test]
fn a_goto_to_nowhere_leads_to_an_empty_chain() {
    let text = "*filter\n-A INPUT -g NETMAP\nCOMMIT\n";
    let fault = "2:13: error: `NETMAP` is no chain of this table \
                 (declare it: `:NETMAP - [0:0]`; an empty chain is assumed)";
    check_faults(text, &[fault]);
    let parsed = parse(text, &ParseOptions::default());
    assert_eq!(rules(&parsed), "-A INPUT -g NETMAP");
    assert!(parsed.ruleset.tables[0].chain("NETMAP").is_some());
}

#[test]
fn loops_are_errors_where_packets_reach_them() {
    let text = "*filter\n:a - [0:0]\n:b - [0:0]\n-A a -j b\n-A b -g a\nCOMMIT\n";
    check_faults(text, &["5:1: warning: the rule closes a loop: a → b → a (no packet reaches these chains)"]);
    let text = text.replace("-A a", "-A INPUT -j a\n-A a");
    check_faults(&text, &["6:1: error: the rule closes a loop: a → b → a"]);
}

#[test]
fn lines_of_other_systems_and_broken_bytes_are_placed() {
    check_faults(
        "*filter\r\nCOMMIT\r\n",
        &["1:8: error: a carriage return ends the line, which the kernel's tools take for a part of it \
           (convert the file to Unix line ends)"],
    );
    let parsed =
        parse(b"*filter\n-A INPUT -m comment --comment \xff\xfe\0x\nCOMMIT\n", &ParseOptions::default());
    let places: Vec<(u32, u32)> = parsed.faults.iter().map(|f| (f.line, f.column)).collect();
    assert_eq!(places.first().map(|p| p.0), Some(2));
    assert_eq!(parsed.ruleset.rule_count(), 1);
    check_faults(
        "*filter\nCOMMIT",
        &[
            "2:1: error: COMMIT without an end of line, which the kernel's tools do not take (end the file with a newline)",
        ],
    );
}

#[test]
fn rules_know_their_lines() {
    let parsed =
        parse("# one\n*filter\n\n-A INPUT -s 1.1.1.1,2.2.2.2\n-A INPUT\nCOMMIT\n", &ParseOptions::default());
    let lines: Vec<u32> = parsed.ruleset.tables[0].chains[0].rules.iter().map(|r| r.line).collect();
    assert_eq!(lines, [4, 4, 5]);
}

#[test]
fn limits_are_faults_that_name_their_place() {
    let many = "1.1.1.1,".repeat(300) + "2.2.2.2";
    let text = format!("*filter\n-A INPUT -s {many} -d {many}\nCOMMIT\n");
    let parsed = parse(text, &ParseOptions::default());
    assert_eq!(parsed.faults[0].message, "the line stands for 90601 rules, which is above 65536");
    assert_eq!(parsed.ruleset.rule_count(), 0);

    let options = ParseOptions { rule_count_max: 2, chain_count_max: 1, ..ParseOptions::default() };
    let parsed = parse("*filter\n:a - [0:0]\n:b - [0:0]\n-A a\n-A a\n-A a\nCOMMIT\n", &options);
    let places: Vec<(u32, &str)> = parsed.faults.iter().map(|f| (f.line, &*f.message)).collect();
    assert_eq!(
        places,
        [(3, "chain b is above the limit of 1 chains"), (6, "the rule is above the limit of 2 rules")]
    );

    let text = format!("*filter\n{}COMMIT\n", "-A INPUT --zzz\n".repeat(3000));
    let parsed = parse(text, &ParseOptions::default());
    assert_eq!(parsed.faults.len(), 1001);
    assert_eq!(parsed.faults[1000].message, "and 2000 more faults");
}

#[test]
fn size_alone_is_no_danger() {
    let mut deep = String::from("*filter\n");
    for i in 0..100_000 {
        deep += &format!(":c{i} - [0:0]\n");
    }
    deep += "-A INPUT -j c0\n";
    for i in 0..99_999 {
        deep += &format!("-A c{i} -j c{}\n", i + 1);
    }
    deep += "-A c99999 -j c7\nCOMMIT\n";
    let parsed = parse(&deep, &ParseOptions::default());
    assert_eq!(parsed.faults.len(), 1);
    assert_eq!(parsed.ruleset.rule_count(), 100_001);

    let options = ParseOptions { line_bytes_max: 1 << 21, ..ParseOptions::default() };
    for word in
        ["-m tcp ", "-m comment --comment x ", "-m nope ", "--zzz ", "\" ", "! ", "-p tcp --dp ", "-j X "]
    {
        let line = format!("*filter\n-A INPUT {}\nCOMMIT\n", word.repeat((1 << 20) / word.len()));
        let _ = parse(&line, &options);
    }
}

/// The warnings of a text, as line and first words.
#[track_caller]
fn warnings(text: &str) -> Vec<String> {
    let parsed = parse(text, &ParseOptions::default());
    assert!(!parsed.has_errors(), "{}", parsed.faults[0]);
    parsed.faults.iter().map(ToString::to_string).collect()
}

#[test]
fn a_test_of_what_a_target_changes_in_its_own_way_is_warned_of() {
    const HMARK: &str = "-A PREROUTING -p tcp -j HMARK --hmark-tuple src,dst --hmark-mod 4 --hmark-rnd 0x1\n";
    let found = warnings(&format!("*mangle\n{HMARK}-A FORWARD -m mark --mark 2 -j DROP\n{HMARK}COMMIT\n"));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found[0].starts_with("2:1: warning: HMARK changes the mark") && found[0].contains("line 3"),
        "{found:?}"
    );
    // Nobody asks, or in another table.
    for rest in [
        "-A FORWARD -m ttl --ttl-eq 4 -j DROP\nCOMMIT\n",
        "COMMIT\n*filter\n-A FORWARD -m mark --mark 2\nCOMMIT\n",
    ] {
        assert_eq!(warnings(&format!("*mangle\n{HMARK}{rest}")), [""; 0]);
    }
    let prefix = "# Generated by ip6tables-save v1.8\n*mangle\n-A FORWARD -s fd00::/64 -j SNPT --src-pfx fd00::/64 --dst-pfx 2001:db8::/64\n";
    let found = warnings(&format!("{prefix}COMMIT\n"));
    assert!(found[0].contains("SNPT changes the source"), "{found:?}");
}

#[test]
fn what_is_said_of_routing_type_0_needs_that_type_and_no_other() {
    for (options, is_taken) in [
        ("--rt-type 0 --rt-0-res", true),
        ("! --rt-type 0 --rt-0-res", false),
        ("! --rt-type 0 --rt-0-addrs ::1", false),
        ("--rt-type 1 --rt-0-res", false),
        ("--rt-0-res", false),
    ] {
        let text = format!("*filter\n-A INPUT -m rt {options} -j DROP\nCOMMIT\n");
        let parsed = parse(text, &ParseOptions { family: Some(Family::V6), ..ParseOptions::default() });
        assert_eq!(!parsed.has_errors(), is_taken, "{options}: {:?}", parsed.faults);
    }
}
