//! What matches and targets mean, as data.

use hipac_rules::{Effect, Family, Field, ParseOptions, Residual, Target, TargetMeaning, ValueSet, parse};

/// The first rule of a text in that table.
#[track_caller]
fn rule(table: &str, chain: &str, text: &str, family: Family) -> hipac_rules::Rule {
    let options = ParseOptions { family: Some(family), ..ParseOptions::default() };
    let parsed = parse(format!("*{table}\n-A {chain} {text}\nCOMMIT\n"), &options);
    assert!(!parsed.has_errors(), "{:?}", parsed.faults);
    let chain = parsed.ruleset.tables[0].chain(chain).expect("the chain");
    chain.rules[0].clone()
}

/// The clauses of all matches of a rule, as text, with the residual part at the end.
#[track_caller]
fn check(text: &str, expected: &str) {
    check_family(text, Family::V4, expected);
}

#[track_caller]
fn check_family(text: &str, family: Family, expected: &str) {
    let mut parts = Vec::new();
    for extension in &rule("filter", "FORWARD", text, family).matches {
        let meaning = extension.match_meaning(family);
        if meaning.l4.bytes > 0 {
            let at_8 = if meaning.l4.drops_fragment_at_8 { "!" } else { "" };
            parts.push(format!("L4>={}{at_8}", meaning.l4.bytes));
        }
        for clause in &meaning.clauses {
            let tests: Vec<String> = clause.iter().map(test).collect();
            parts.push(tests.join(" or "));
        }
        match meaning.residual {
            Some(Residual::Pure) => parts.push("pure".into()),
            Some(Residual::Stateful) => parts.push("stateful".into()),
            Some(Residual::Unknown) => parts.push("unknown".into()),
            None => {}
        }
    }
    assert_eq!(parts.join("; "), expected);
}

fn test(test: &hipac_rules::Test) -> String {
    let not = if test.negated { "not " } else { "" };
    let set = match &test.set {
        ValueSet::Ranges(ranges) => {
            let shown: Vec<String> = ranges
                .iter()
                .map(|(lo, hi)| if lo == hi { format!("{lo}") } else { format!("{lo}-{hi}") })
                .collect();
            format!("{{{}}}", shown.join(" "))
        }
        ValueSet::Masked { value, mask } => format!("{value:#x}/{mask:#x}"),
        ValueSet::Member(membership) => membership.to_string(),
        ValueSet::Interface { name, prefix } => format!("{name:?}{}", if *prefix { "+" } else { "" }),
    };
    format!("{:?} {not}{set}", test.field)
}

#[test]
fn ports_need_their_header() {
    check("-p tcp --dport 80:90 ! --sport 5", "L4>=20!; SourcePort not {5}; DestinationPort {80-90}");
    check("-p tcp -m tcp", "L4>=20!");
    check("-p udp --dport 53", "L4>=8; DestinationPort {53}");
    check("-p sctp --dport 53", "L4>=12; DestinationPort {53}");
    check("-p tcp ! --sport :", "L4>=20!; SourcePort not {0-65535}");
    check("-p udp -m multiport --dports 80,1:3,2:9", "L4>=4; DestinationPort {1-9 80}");
    check("-p udp -m multiport --ports 5", "L4>=4; SourcePort {5} or DestinationPort {5}");
    check("-p udp -m multiport ! --ports 5", "L4>=4; SourcePort not {5}; DestinationPort not {5}");
    check("-m ports --sport 1 --dport 2", "SourcePort {1}; DestinationPort {2}");
}

#[test]
fn flags_and_types_are_values_of_fields() {
    check("-p tcp --syn", "L4>=20!; TcpFlags 0x2/0x17");
    check("-p tcp ! --tcp-flags ALL NONE", "L4>=20!; TcpFlags not 0x0/0x3f");
    check("-p tcp --tcp-option 5", "L4>=20!; pure");
    check("-p icmp --icmp-type 3/1", "L4>=8; DestinationPort {769}");
    check("-p icmp ! --icmp-type 8", "L4>=8; DestinationPort not {2048-2303}");
    check("-p icmp --icmp-type any", "L4>=8");
    check("-p icmp ! --icmp-type any", "L4>=8; DestinationPort {}");
    check_family("-p icmpv6 --icmpv6-type 255", Family::V6, "L4>=8; DestinationPort {65280-65535}");
}

#[test]
fn connection_states_are_one_set() {
    check("-m state --state NEW", "CtState {1 9 17 25}");
    check("-m conntrack --ctstate ESTABLISHED,RELATED", "CtState {2-3 10-11 18-19 26-27}");
    check("-m conntrack ! --ctstate DNAT", "CtState not {16-20 24-28}");
    check("-m conntrack --ctstate SNAT,NEW", "CtState {1 8-12 17 24-28}");
    check("-m conntrack --ctstate NEW --ctorigdst 1.1.1.1", "CtState {1 9 17 25}; pure");
    check("-m connmark --mark 1/3", "CtState {1-3 9-11 17-19 25-27}; ConnMark 0x1/0x3");
}

#[test]
fn the_rest_of_the_fields() {
    check("-m mark ! --mark 0x10/0xff", "Mark not 0x10/0xff");
    check("-m mac --mac-source 00:00:00:00:00:05", "Mac {281474976710661}");
    check(
        "-m mac ! --mac-source 00:00:00:00:00:05",
        "Mac {281474976710656-562949953421311}; Mac not {281474976710661}",
    );
    check("-m ttl --ttl-lt 5", "Ttl {0-4}");
    check("-m ttl --ttl-gt 255", "Ttl {}");
    check("-m ttl --ttl-lt 0", "Ttl {}");
    check("-m length --length 5:", "Length {5-65535}");
    check("-m dscp --dscp 1", "Tos 0x4/0xfc");
    check("-m tos --tos 0x10", "Tos 0x10/0xff");
    check("-m pkttype --pkt-type mcast", "PacketType {2}");
    check(
        "-m addrtype --dst-type LOCAL,BROADCAST ! --src-type UNICAST",
        "SourceType not {1}; DestinationType {2-3}",
    );
    check("-m addrtype --dst-type LOCAL --limit-iface-in", "pure");
    check("-m iprange --src-range 0.0.0.1-0.0.0.3", "Source {1-3}");
    check("-m physdev --physdev-in eth+", "PhysIn not \"\"; PhysIn \"eth\"+");
    check("-m comment --comment x", "");
    check("-p tcp -m ecn --ecn-ip-ect 1", "Tos 0x1/0x3");
}

#[test]
fn extension_headers_are_looked_for_and_then_at() {
    let v6 = |text, expected| check_family(text, Family::V6, expected);
    v6("-m ah", "AhLength {8-1028}");
    v6("-m ah ! --ahspi 5:6", "AhLength {8-1028}; AhSpi not {5-6}");
    v6("-m ah --ahlen 16 --ahres", "AhLength {8-1028}; AhLength {16}; AhReserved {0}");
    v6("-m ah ! --ahlen 16", "AhLength {8-1028}; AhLength {8-15 17-1028}");
    v6("-m ah ! --ahlen 0", "AhLength {8-1028}");
    v6("-m frag --fragid 7", "FragFlags 0x8/0x8; FragId {7}");
    v6("-m frag ! --fragid 7 --fraglen 5", "FragFlags 0x8/0x8; FragId not {7}");
    v6("-m frag --fragres --fragfirst --fragmore", "FragFlags 0xa/0xf");
    v6("-m frag --fraglast", "FragFlags 0x8/0xa");
    v6("-m rt --rt-type 0 --rt-segsleft 0", "RtType {0-255}; RtType {0}; RtSegments {0}");
    v6("-m rt ! --rt-type 0 ! --rt-segsleft 3:", "RtType {0-255}; RtType {1-255}; RtSegments {0-2}");
    v6("-m rt --rt-type 256", "RtType {0-255}; RtType {}");
    v6("-m rt ! --rt-len 16", "RtType {0-255}; RtLength {8-15 17-2048}");
    v6("-m rt --rt-type 0 --rt-0-res", "RtType {0-255}; RtType {0}; pure");
    v6("-m hbh --hbh-len 8", "HbhLength {8-2048}; HbhLength {8}");
    v6("-m hbh ! --hbh-len 0", "HbhLength {8-2048}; HbhLength {8-2048}");
    v6("-m dst --dst-opts 1:4", "DstLength {8-2048}; pure");
    v6("-m ipv6header --header dst,none", "ExtHeaders {66}");
    v6("-m ipv6header ! --header dst,none", "ExtHeaders {1-65 67-255}");
    v6("-m ipv6header --header hop,dst --soft", "ExtHeaders {192-255}");
    v6("-m ipv6header ! --header dst,hop --soft", "ExtHeaders {1-63}");
    check("-p ah -m ah --ahspi 5", "L4>=12; Spi {5}");
}

#[test]
fn a_helper_is_a_name_of_which_the_kernel_compares_the_first_bytes() {
    check("-m helper --helper sip", "Helper \"s\" or Helper \"si\" or Helper \"sip\"");
    check("-m helper ! --helper ab", "Helper not \"a\"; Helper not \"ab\"");
    check("-m helper --helper \"\"", "Helper not \"\"");
    check("-m helper ! --helper \"\"", "Helper \"\"");
}

#[test]
fn what_no_field_decides_is_residual() {
    check("-m limit", "stateful");
    check("-m recent --set", "stateful");
    check("-m statistic --mode random --probability 0.5", "stateful");
    check("-m string --string x --algo bm", "pure");
    check("-m set --match-set x src", "pure");
    check("-m geoip --src-cc DE", "unknown");
}

#[track_caller]
fn check_target(table: &str, chain: &str, text: &str, expected: TargetMeaning) {
    let Target::Extension(target) = rule(table, chain, text, Family::V4).target else { panic!("a target") };
    assert_eq!(target.target_meaning(Family::V4), expected);
}

#[test]
fn targets_decide_return_or_go_on_with_an_effect() {
    use TargetMeaning::{Continue, Return, Verdict};
    let mangle = |text, effect| check_target("mangle", "PREROUTING", text, Continue(effect));
    check_target("filter", "INPUT", "-j ACCEPT", Verdict("ACCEPT"));
    check_target("filter", "INPUT", "-j REJECT", Verdict("REJECT"));
    check_target("nat", "PREROUTING", "-j DNAT --to-destination 1.1.1.1", Verdict("DNAT"));
    check_target("filter", "INPUT", "-j RETURN", Return);
    check_target("filter", "INPUT", "-j LOG", Continue(Effect::None));
    check_target("raw", "PREROUTING", "-j NOTRACK", Continue(Effect::Untrack));
    check_target("raw", "PREROUTING", "-j CT --notrack", Continue(Effect::Untrack));
    check_target("raw", "PREROUTING", "-j CT --zone 5", Continue(Effect::None));
    mangle("-j MARK --set-mark 3/1", Effect::Mark { clear: 3, flip: 3 });
    mangle("-j MARK --and-mark 3", Effect::Mark { clear: 0xffff_fffc, flip: 0 });
    mangle("-j MARK --xor-mark 3", Effect::Mark { clear: 0, flip: 3 });
    mangle("-j CONNMARK --set-mark 3/16", Effect::ConnMark { clear: 19, flip: 3 });
    mangle("-j CONNMARK --save-mark --mask 5", Effect::SaveMark { ctmask: 5, nfmask: 5 });
    mangle("-j CONNMARK --restore-mark", Effect::RestoreMark { ctmask: u32::MAX, nfmask: u32::MAX });
    mangle("-j DSCP --set-dscp 1", Effect::Tos { clear: 0xfc, flip: 4 });
    mangle("-j TOS --set-tos 0x10/0x3f", Effect::Tos { clear: 0x3f, flip: 0x10 });
    mangle("-j TTL --ttl-dec 3", Effect::TtlSub(3));
}

#[test]
fn an_empty_port_range_holds_for_no_packet() {
    let parsed = parse("*filter\n-A INPUT -p udp --dport 5:3\nCOMMIT\n", &ParseOptions::default());
    let rule = &parsed.ruleset.tables[0].chains[0].rules[0];
    let meaning = rule.matches[0].match_meaning(Family::V4);
    assert_eq!(meaning.clauses[0][0].field, Field::DestinationPort);
    assert_eq!(meaning.clauses[0][0].set, ValueSet::Ranges(Vec::new()));
}
