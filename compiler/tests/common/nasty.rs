//! Small rulesets in which everything that is hard stands close together.
//!
//! Values come from small pools, so that rules overlap, shadow each other and meet on bounds.
//! A chain leads only to chains behind it, so there are no loops.
//!
//! A list of bytes makes all choices, and 0 chooses what is least: so property tests shrink what
//! fails, and fuzzing mutates it, without knowing the grammar.

use std::fmt;
use std::ops::Range;

use hipac_rules::{Family, TableKind};

/// A ruleset as `iptables-save` would print it.
#[derive(Clone)]
pub(crate) struct Nasty {
    pub(crate) family: Family,
    pub(crate) text: String,
}

impl fmt::Debug for Nasty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The ruleset that these bytes choose. Behind the last, zeros follow.
pub(crate) fn nasty(choices: &[u8]) -> Nasty {
    let mut choices = Choices(choices.iter());
    let family = choices.pick(&[Family::V4, Family::V6]);
    let mut text = match family {
        Family::V4 => String::from("# iptables-save\n"),
        Family::V6 => String::from("# ip6tables-save\n"),
    };
    for &kind in choices.pick(TABLES) {
        table(kind, family, &mut choices, &mut text);
    }
    Nasty { family, text }
}

/// Bytes that choose.
struct Choices<'a>(std::slice::Iter<'a, u8>);

impl Choices<'_> {
    fn below(&mut self, end: usize) -> usize {
        self.0.next().map_or(0, |&byte| usize::from(byte) % end)
    }

    fn pick<T: Copy>(&mut self, pool: &[T]) -> T {
        pool[self.below(pool.len())]
    }

    /// One of the pool in a third of all cases, else nothing.
    fn maybe(&mut self, pool: &[&'static str]) -> &'static str {
        if self.below(3) == 2 { self.pick(pool) } else { "" }
    }
}

/// Tables of one ruleset: mostly one, since a packet sees one at a time.
const TABLES: &[&[TableKind]] = &[
    &[TableKind::Filter],
    &[TableKind::Mangle],
    &[TableKind::Raw],
    &[TableKind::Raw, TableKind::Mangle, TableKind::Filter],
];

fn table(kind: TableKind, family: Family, choices: &mut Choices<'_>, text: &mut String) {
    let built_in = if kind == TableKind::Raw { "PREROUTING" } else { "FORWARD" };
    let policy = choices.pick(&["ACCEPT", "DROP"]);
    *text += &format!("*{}\n:{built_in} {policy} [0:0]\n", kind.name());
    let chains = 1 + choices.below(5);
    (1..chains).for_each(|i| *text += &format!(":u{i} - [0:0]\n"));
    for chain in 0..chains {
        for _ in 0..choices.below(8) {
            *text += &match chain {
                0 => format!("-A {built_in}"),
                user => format!("-A u{user}"),
            };
            for word in rule(kind, family, choices) {
                *text += &format!(" {word}");
            }
            *text += &target(kind, family, chain + 1..chains, choices);
            text.push('\n');
        }
    }
    *text += "COMMIT\n";
}

/// A rule without its target.
fn rule(kind: TableKind, family: Family, choices: &mut Choices<'_>) -> Vec<&'static str> {
    let mut words = ip_part(kind, family, choices).to_vec();
    let (protocol, own) = choices.pick(&protocols(family));
    words.push(protocol);
    let general = general(family);
    for _ in 0..choices.pick(&[0, 1, 1, 2, 1, 3, 4, 0]) {
        let is_own = !own.is_empty() && choices.below(2) == 0;
        words.push(choices.pick(if is_own { own } else { &general }));
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Addresses, interfaces, fragments: each in a third of the rules.
fn ip_part(kind: TableKind, family: Family, choices: &mut Choices<'_>) -> [&'static str; 5] {
    let (sources, destinations) = match family {
        Family::V4 => (V4_SOURCES, V4_DESTINATIONS),
        Family::V6 => (V6_SOURCES, V6_DESTINATIONS),
    };
    let out = if kind == TableKind::Raw { &[""][..] } else { OUT_INTERFACES };
    let fragment = if family == Family::V4 { &["-f", "! -f"][..] } else { &[""] };
    [sources, destinations, IN_INTERFACES, out, fragment].map(|pool| choices.maybe(pool))
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
            "-m ah ! --ahspi 5:9",
            "-m ah --ahspi 7 --ahres",
            "-m ah ! --ahlen 16",
            "-m frag ! --fragid 7",
            "-m frag --fragmore --fragres",
            "-m rt --rt-type 0 --rt-segsleft 0:3",
            "-m rt ! --rt-type 4 ! --rt-len 16",
            "-m rt --rt-type 0 --rt-0-res",
            "-m hbh ! --hbh-len 8",
            "-m dst --dst-len 8",
            "-m dst --dst-len 16 --dst-opts 1:4",
            "-m ipv6header --header dst,none",
            "-m ipv6header ! --header route,frag --soft",
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
    "-m cpu ! --cpu 1",
    "-m helper --helper ftp-2121",
    "-m helper ! --helper sip",
    "-m nosuchmatch --of-mine 3",
];

/// ` -j …`; `behind`: numbers of the chains that it may lead to.
fn target(kind: TableKind, family: Family, behind: Range<usize>, choices: &mut Choices<'_>) -> String {
    let acts: &[&str] = match (kind, family) {
        (TableKind::Raw, _) => &["-j CT --notrack", "-j MARK --set-xmark 0x1/0x3"],
        (TableKind::Mangle, Family::V4) => {
            &[MARK, OR, XOR, SAVE, RESTORE, CONNMARK, TOS, "-j TTL --ttl-inc 1", "-j TTL --ttl-set 1"]
        }
        (TableKind::Mangle, Family::V6) => &[MARK, OR, XOR, SAVE, RESTORE, CONNMARK, TOS, "-j HL --hl-dec 1"],
        _ => &[MARK, XOR, SAVE, RESTORE],
    };
    let ends: &[&str] = match kind {
        TableKind::Filter => &["-j ACCEPT", "-j DROP", "-j REJECT"],
        _ => &["-j ACCEPT", "-j DROP"],
    };
    match choices.below(12) {
        0..4 => format!(" {}", choices.pick(ends)),
        4..6 => format!(" {}", choices.pick(acts)),
        6..8 => choices.pick(&["", " -j RETURN", " -j LOG"]).to_owned(),
        _ if behind.is_empty() => String::new(),
        _ => {
            let how = choices.pick(&["-j", "-j", "-g"]);
            format!(" {how} u{}", behind.start + choices.below(behind.len()))
        }
    }
}

const MARK: &str = "-j MARK --set-xmark 0x1/0xffffffff";
const OR: &str = "-j MARK --or-mark 0x2";
const XOR: &str = "-j MARK --xor-mark 0x3";
const SAVE: &str = "-j CONNMARK --save-mark";
const RESTORE: &str = "-j CONNMARK --restore-mark";
const CONNMARK: &str = "-j CONNMARK --set-xmark 0x3/0x1";
const TOS: &str = "-j TOS --set-tos 0x10/0x3f";
