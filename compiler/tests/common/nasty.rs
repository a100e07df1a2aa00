//! Small rulesets in which everything that is hard stands close together.
//!
//! Values come from small pools, so that rules overlap, shadow each other and meet on bounds.
//! A chain leads only to chains behind it, so there are no loops.

use std::fmt;

use hipac_rules::{Family, TableKind};
use proptest::prelude::*;
use proptest::sample::select;

/// A ruleset in pieces: a failing one shrinks to few rules with few matches.
#[derive(Clone)]
pub(crate) struct Nasty {
    pub(crate) family: Family,
    tables: Vec<NastyTable>,
}

#[derive(Debug, Clone)]
struct NastyTable {
    kind: TableKind,
    is_drop: bool,
    /// The built-in chain first.
    chains: Vec<Vec<NastyRule>>,
}

#[derive(Debug, Clone)]
struct NastyRule {
    words: Vec<&'static str>,
    target: NastyTarget,
}

#[derive(Debug, Clone)]
enum NastyTarget {
    Words(&'static str),
    /// `-j` or `-g` to one of the chains behind this one; none when it is the last.
    Chain(&'static str, prop::sample::Index),
}

impl Nasty {
    /// As `iptables-save` would print it.
    pub(crate) fn text(&self) -> String {
        let mut out = match self.family {
            Family::V4 => String::from("# iptables-save\n"),
            Family::V6 => String::from("# ip6tables-save\n"),
        };
        for table in &self.tables {
            let built_in = if table.kind == TableKind::Raw { "PREROUTING" } else { "FORWARD" };
            let policy = if table.is_drop { "DROP" } else { "ACCEPT" };
            out += &format!("*{}\n:{built_in} {policy} [0:0]\n", table.kind.name());
            (1..table.chains.len()).for_each(|i| out += &format!(":u{i} - [0:0]\n"));
            for (i, chain) in table.chains.iter().enumerate() {
                let name = if i == 0 { built_in.to_owned() } else { format!("u{i}") };
                for rule in chain {
                    out += &format!("-A {name}");
                    rule.words.iter().filter(|w| !w.is_empty()).for_each(|w| out += &format!(" {w}"));
                    match &rule.target {
                        NastyTarget::Words("") => {}
                        NastyTarget::Words(words) => out += &format!(" {words}"),
                        NastyTarget::Chain(how, which) => {
                            let behind = table.chains.len() - 1 - i;
                            if behind > 0 {
                                out += &format!(" {how} u{}", i + 1 + which.index(behind));
                            }
                        }
                    }
                    out.push('\n');
                }
            }
            out += "COMMIT\n";
        }
        out
    }
}

impl fmt::Debug for Nasty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

/// Tables of one ruleset: mostly one, since a packet sees one at a time.
const TABLES: &[&[TableKind]] = &[
    &[TableKind::Filter],
    &[TableKind::Mangle],
    &[TableKind::Raw],
    &[TableKind::Raw, TableKind::Mangle, TableKind::Filter],
];

/// Any nasty ruleset.
pub(crate) fn nasty() -> impl Strategy<Value = Nasty> {
    select(&[Family::V4, Family::V6][..]).prop_flat_map(|family| {
        let kinds = select(TABLES);
        let tables =
            kinds.prop_flat_map(move |kinds| kinds.iter().map(|&k| table(k, family)).collect::<Vec<_>>());
        tables.prop_map(move |tables| Nasty { family, tables })
    })
}

fn table(kind: TableKind, family: Family) -> BoxedStrategy<NastyTable> {
    let chain = prop::collection::vec(rule(kind, family), 0..8);
    (any::<bool>(), prop::collection::vec(chain, 1..6))
        .prop_map(move |(is_drop, chains)| NastyTable { kind, is_drop, chains })
        .boxed()
}

fn rule(kind: TableKind, family: Family) -> BoxedStrategy<NastyRule> {
    let protocol = select(protocols(family));
    (ip_part(kind, family), protocol, target(kind, family))
        .prop_flat_map(move |(ip, (protocol, own), target)| {
            let general = select(general(family));
            let m = if own.is_empty() { general.boxed() } else { prop_oneof![select(own), general].boxed() };
            let matches = prop_oneof![
                2 => Just(vec![]),
                4 => prop::collection::vec(m.clone(), 1..=1),
                3 => prop::collection::vec(m, 2..=4),
            ];
            (Just(ip), Just(protocol), matches, Just(target)).prop_map(|(ip, protocol, matches, target)| {
                let words = ip.into_iter().chain([protocol]).chain(matches).collect();
                NastyRule { words, target }
            })
        })
        .boxed()
}

/// Addresses, interfaces, fragments: each in a third of the rules.
fn ip_part(kind: TableKind, family: Family) -> impl Strategy<Value = Vec<&'static str>> {
    let pool = |pool: &'static [&'static str]| prop_oneof![2 => Just(""), 1 => select(pool)];
    let (sources, destinations) = match family {
        Family::V4 => (V4_SOURCES, V4_DESTINATIONS),
        Family::V6 => (V6_SOURCES, V6_DESTINATIONS),
    };
    let out = if kind == TableKind::Raw { &[""][..] } else { OUT_INTERFACES };
    let fragment = if family == Family::V4 { &["-f", "! -f"][..] } else { &[""] };
    [pool(sources), pool(destinations), pool(IN_INTERFACES), pool(out), pool(fragment)]
        .prop_map(|parts| parts.to_vec())
}

const V4_SOURCES: &[&str] = &[
    "-s 10.0.0.0/8",
    "-s 10.0.0.0/30",
    "-s 10.0.0.1/32",
    "! -s 10.0.0.0/9",
    "! -s 10.0.0.1/32",
    "-s 10.0.3.0/255.0.255.0",
    "! -s 0.0.0.1/0.0.0.1",
    "-s 10.0.0.1,10.0.0.3",
    "! -s 0.0.0.0/0",
];

const V4_DESTINATIONS: &[&str] = &[
    "-d 10.0.0.0/8",
    "-d 10.0.0.2/31",
    "-d 10.0.0.255/32",
    "! -d 10.0.0.0/24",
    "-d 10.0.3.0/255.255.3.255",
    "! -d 10.0.0.0/255.0.0.255",
];

const V6_SOURCES: &[&str] = &[
    "-s 2001:db8::/32",
    "-s 2001:db8::/65",
    "-s 2001:db8::1/128",
    "! -s 2001:db8::/33",
    "! -s 2001:db8::1/128",
    "-s 2001:db8::1/ffff:ffff::ffff",
    "! -s ::1/::1",
    "-s 2001:db8::1,2001:db8::3",
    "! -s ::/0",
];

const V6_DESTINATIONS: &[&str] = &[
    "-d 2001:db8::/32",
    "-d 2001:db8::2/127",
    "-d ::1/128",
    "! -d 2001:db8::/64",
    "! -d 2001:db8:0:1::/ffff:ffff:0:ffff::",
];

const IN_INTERFACES: &[&str] = &["-i eth0", "-i eth+", "! -i eth+", "! -i eth0", "-i e+", "-i +", "! -i +"];

const OUT_INTERFACES: &[&str] = &["-o ppp0", "-o ppp+", "! -o p+", "-o eth0"];

/// A protocol and the matches that want it.
type Protocol = (&'static str, &'static [&'static str]);

fn protocols(family: Family) -> Vec<Protocol> {
    let icmp: Protocol = match family {
        Family::V4 => (
            "-p icmp",
            &[
                "-m icmp --icmp-type 8",
                "-m icmp --icmp-type 3/1",
                "-m icmp ! --icmp-type 3",
                "-m icmp --icmp-type any",
            ],
        ),
        Family::V6 => ("-p icmpv6", &["-m icmp6 --icmpv6-type 128", "-m icmp6 ! --icmpv6-type 1/4"]),
    };
    let mut all = vec![("", &[][..]), ("! -p tcp", &[]), ("-p esp", ESP), ("-p sctp", SCTP), icmp];
    // As often as all others.
    all.extend([("-p tcp", TCP); 4]);
    all.extend([("-p udp", UDP); 2]);
    all
}

const TCP: &[&str] = &[
    "-m tcp --dport 80",
    "-m tcp --dport 22:80",
    "-m tcp ! --dport 22:80",
    "-m tcp --sport :1023 ! --dport 0",
    "-m tcp --sport 65535",
    "-m tcp --tcp-flags FIN,SYN,RST,ACK SYN",
    "-m tcp ! --tcp-flags SYN,ACK SYN",
    "-m tcp --tcp-flags ALL NONE",
    "-m tcp --tcp-option 2",
    "-m multiport --dports 22,79:81,443",
    "-m multiport ! --dports 22,80",
    "-m multiport --ports 53,80",
    "-m multiport ! --ports 22,1024:65535",
    "-m multiport --sports 0,80:90",
];

const UDP: &[&str] = &[
    "-m udp --dport 53",
    "-m udp ! --sport 53 --dport 53:80",
    "-m udp ! --sport 0:65535",
    "-m multiport --ports 53,80",
    "-m multiport ! --sports 53",
];

const SCTP: &[&str] = &["-m sctp --dport 80", "-m multiport --dports 80", "-m sctp ! --sport 22:80"];

const ESP: &[&str] = &["-m esp --espspi 1:500"];

/// Matches for any protocol; those with effects on the world as often as the others.
fn general(family: Family) -> Vec<&'static str> {
    let own: &[&str] = match family {
        Family::V4 => &[
            "-m ttl --ttl-eq 64",
            "-m ttl --ttl-gt 63",
            "-m ttl ! --ttl-eq 1",
            "-m iprange --src-range 10.0.0.3-10.0.1.7",
            "-m iprange ! --dst-range 10.0.0.0-10.0.0.254",
        ],
        Family::V6 => &[
            "-m hl --hl-eq 64",
            "-m hl --hl-lt 65",
            "-m iprange --src-range 2001:db8::3-2001:db8:0:1::7",
            "-m iprange ! --dst-range 2001:db8::ffff:ffff-2001:db8:1::",
            "-m iprange --dst-range ::-2001:db8::",
        ],
    };
    GENERAL.iter().chain(own).copied().collect()
}

const GENERAL: &[&str] = &[
    "-m mark --mark 0x1/0x3",
    "-m mark ! --mark 0x2",
    "-m mark --mark 0x10/0x50",
    "-m mark ! --mark 0x10/0x50",
    "-m connmark --mark 0x1/0x1",
    "-m connmark ! --mark 0x2",
    "-m limit --limit 5/sec",
    "-m recent --set --name a",
    "-m recent --update --seconds 60 --name a",
    "-m recent ! --rcheck --name a",
    "-m statistic --mode random --probability 0.5",
    "-m conntrack --ctstate NEW,RELATED",
    "-m conntrack ! --ctstate ESTABLISHED",
    "-m conntrack --ctstate DNAT",
    "-m state --state ESTABLISHED",
    "-m mac --mac-source 00:11:22:33:44:55",
    "-m mac ! --mac-source 00:11:22:33:44:55",
    "-m length --length 40:100",
    "-m length ! --length 40",
    "-m pkttype --pkt-type broadcast",
    "-m addrtype --dst-type LOCAL",
    "-m addrtype ! --src-type UNICAST",
    "-m tos --tos 0x10/0x3f",
    "-m dscp --dscp 0x0a",
    "-m dscp ! --dscp 0x00",
    "-m string --string abc --algo bm",
    "-m physdev --physdev-in eth+",
    "-m comment --comment here",
    "-m nosuchmatch --of-mine 3",
];

fn target(kind: TableKind, family: Family) -> impl Strategy<Value = NastyTarget> {
    let acts: &'static [&'static str] = match (kind, family) {
        (TableKind::Raw, _) => &["-j CT --notrack", "-j MARK --set-xmark 0x1/0x3"],
        (TableKind::Mangle, Family::V4) => {
            &[MARK, OR, XOR, SAVE, RESTORE, CONNMARK, TOS, "-j TTL --ttl-inc 1", "-j TTL --ttl-set 1"]
        }
        (TableKind::Mangle, Family::V6) => &[MARK, OR, XOR, SAVE, RESTORE, CONNMARK, TOS, "-j HL --hl-dec 1"],
        _ => &[MARK, XOR, SAVE, RESTORE],
    };
    let ends: &'static [&'static str] = match kind {
        TableKind::Filter => &["-j ACCEPT", "-j DROP", "-j REJECT"],
        _ => &["-j ACCEPT", "-j DROP"],
    };
    prop_oneof![
        4 => select(ends).prop_map(NastyTarget::Words),
        2 => select(acts).prop_map(NastyTarget::Words),
        2 => select(&["-j RETURN", "-j LOG", ""][..]).prop_map(NastyTarget::Words),
        4 => (select(&["-j", "-j", "-g"][..]), any::<prop::sample::Index>())
            .prop_map(|(how, which)| NastyTarget::Chain(how, which)),
    ]
}

const MARK: &str = "-j MARK --set-xmark 0x1/0xffffffff";
const OR: &str = "-j MARK --or-mark 0x2";
const XOR: &str = "-j MARK --xor-mark 0x3";
const SAVE: &str = "-j CONNMARK --save-mark";
const RESTORE: &str = "-j CONNMARK --restore-mark";
const CONNMARK: &str = "-j CONNMARK --set-xmark 0x3/0x1";
const TOS: &str = "-j TOS --set-tos 0x10/0x3f";
