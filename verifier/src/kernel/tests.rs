//! Every test here asks the kernel, and says `skipped: …` where that cannot be.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::SystemTime;

use super::host::{ETHERNET, Route};
use super::judge::{Sent, judge, packet_of};
use super::probe::Looks;
use super::session::{Session, Traversal};
use super::*;
use crate::{Event, Exact, Oracle, RuleId, Script, packet_text};
use hipac_classifier::{CtState, Fact, Packet};
use hipac_host::{Arrival, State, Time};
use hipac_rules::registry::{self, KernelCheck, Kind};
use hipac_rules::{Family, Hook, ParseOptions, Residual, Ruleset, TableKind, parse};

fn read(text: &str, family: Family) -> Ruleset {
    let parsed = parse(text, &ParseOptions { family: Some(family), ..ParseOptions::default() });
    assert_eq!(parsed.faults, [], "{text}");
    parsed.ruleset
}

/// Sends packets through rules and wants agreement.
#[track_caller]
fn check_agreement(family: Family, text: &str, seeds: &[u64]) {
    let ruleset = read(text, family);
    let oracle = Oracle::new(&ruleset).expect("rules");
    for &seed in seeds {
        let options = Options { packets: 1500, seed, ..Options::default() };
        match check(text.as_bytes(), &oracle, None, &options, &|_| {}) {
            Ok(report) => {
                let shown: Vec<String> = report.differences.iter().map(ToString::to_string).collect();
                assert!(report.is_agreement(), "{} differ\n{}", report.differing, shown.join("\n"));
                assert!(report.compared() > 500, "{report:?}");
                assert!(20 * report.packets_unread <= report.packets, "{report:?}");
            }
            Err(error) if error.is_unavailable() => return println!("skipped: {error}"),
            Err(error) => panic!("{error}"),
        }
    }
}

const GATEWAY: &str = "\
*raw
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A PREROUTING -p udp --dport 123 -j NOTRACK
COMMIT
*mangle
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -m mark --mark 0x4 -j MARK --set-xmark 0x10/0xf0
-A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
-A FORWARD -m mark --mark 0x10/0xf0 -j TOS --set-tos 0x10
-A POSTROUTING -m tos --tos 0x10 -m mark ! --mark 0 -j CONNMARK --save-mark
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -i eth0 -p tcp --dport 8080 -j DNAT --to-destination 10.0.0.5:80
-A POSTROUTING -o eth0 -j MASQUERADE
COMMIT
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:web - [0:0]
:log - [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -m conntrack --ctstate INVALID -j log
-A INPUT -p icmp --icmp-type 8 -m limit --limit 2/sec -j ACCEPT
-A INPUT -p tcp -m multiport --dports 22,80:443 -j web
-A FORWARD -i eth0 -o eth1 -p tcp -g web
-A FORWARD -m conntrack --ctstate NEW -s 10.0.0.0/8 ! -d 10.0.0.0/8 -j ACCEPT
-A FORWARD -p udp -m length --length 100:200 -j REJECT
-A web -m mac --mac-source 02:00:00:00:00:01 -j RETURN
-A web -p tcp --syn -j log
-A web -p tcp --dport 80 -j ACCEPT
-A log -j LOG --log-prefix \"seen \"
-A log -j DROP
COMMIT
";

#[test]
fn a_gateway_agrees_in_every_table() {
    check_agreement(Family::V4, GATEWAY, &[1, 2]);
}

#[test]
fn ipv6_and_its_extension_headers_agree() {
    let text = "*filter\n:INPUT ACCEPT\n:FORWARD DROP\n:OUTPUT ACCEPT\n:l4 -\n-A FORWARD -p tcp -j l4\n-A FORWARD -p udp \
                -j l4\n-A FORWARD -p icmpv6 -m icmp6 --icmpv6-type 128 -j ACCEPT\n-A FORWARD -p 59 -j DROP\n-A INPUT ! -p \
                tcp -m hl --hl-lt 9 -j DROP\n-A INPUT -p tcp --dport 22 -j REJECT\n-A l4 -p tcp --tcp-flags SYN,ACK SYN \
                --dport 80 -j ACCEPT\n-A l4 -p udp -m multiport --ports 53,547 -j ACCEPT\nCOMMIT\n";
    check_agreement(Family::V6, text, &[1, 2]);
}

#[test]
fn fragments_and_headers_cut_short_agree_without_connection_tracking() {
    let text = "*mangle\n:PREROUTING ACCEPT\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\n:POSTROUTING ACCEPT\n-A \
                PREROUTING -f -j MARK --set-mark 1\n-A PREROUTING -p udp -m udp --dport 53\n-A PREROUTING -p tcp -m \
                multiport --sports 20,21\n-A PREROUTING -p tcp -m tcp --dport 80 -j TTL --ttl-set 9\n-A PREROUTING -p \
                sctp -m sctp --sport 7\n-A PREROUTING -p icmp -m icmp --icmp-type 3\n-A FORWARD ! -f -p 47 -j DROP\nCOMMIT\n";
    check_agreement(Family::V4, text, &[1, 2, 3]);
}

#[test]
fn a_wrong_reading_of_the_rules_is_found() {
    let right = GATEWAY;
    let wrong = right.replace("--dports 22,80:443", "--dports 22,80:442");
    let ruleset = read(&wrong, Family::V4);
    let oracle = Oracle::new(&ruleset).expect("rules");
    match check(right.as_bytes(), &oracle, None, &Options { packets: 4000, ..Options::default() }, &|_| {}) {
        Ok(report) => assert!(report.differing > 0, "nothing was found: {report:?}"),
        Err(error) if error.is_unavailable() => println!("skipped: {error}"),
        Err(error) => panic!("{error}"),
    }
}

/// A line of the table of cases.
struct Case<'a> {
    line: &'a str,
    number: usize,
    family: Family,
    name: &'a str,
    /// The chain that the rule stands in, and the rule; `None` when the match is not checked.
    rule: Option<(Hook, &'a str)>,
    packets: [&'a str; 2],
}

const CASES: &str = include_str!("../../tests/data/kernel-cases.txt");

fn cases() -> Vec<Case<'static>> {
    let lines = CASES.lines().enumerate().filter(|(_, line)| !line.starts_with('#') && !line.is_empty());
    let cases = lines.map(|(number, line)| {
        let mut words = line.split(" | ");
        let (head, rule) = (words.next().unwrap(), words.next().expect(line));
        let (family, name) = head.split_once(' ').expect(line);
        let rule = (rule != "-").then(|| match rule.strip_prefix("FORWARD ") {
            Some(rest) => (Hook::Forward, rest),
            None => (Hook::Prerouting, rule),
        });
        let packets = [(); 2].map(|()| words.next().unwrap_or("-"));
        let family = if family == "6" { Family::V6 } else { Family::V4 };
        Case { line, number: number + 1, family, name: name.trim(), rule, packets }
    });
    cases.collect()
}

impl Case<'_> {
    /// The address that its packets come from, when they do not say.
    fn source(&self) -> String {
        match self.family {
            Family::V4 => format!("10.9.{}.{}", self.number / 250, self.number % 250 + 1),
            Family::V6 => format!("2001:db8:9::{:x}", self.number),
        }
    }

    fn has_source(&self) -> bool {
        self.packets.iter().any(|p| p.contains("-s "))
    }

    fn looks_at_connections(&self) -> bool {
        const NAMES: &[&str] =
            &["cluster", "connbytes", "connlimit", "connmark", "conntrack", "helper", "state"];
        NAMES.contains(&self.name)
    }

    /// The packet in flags, and its payload.
    fn packet(&self, text: &str) -> (Packet, Vec<u8>) {
        let (flags, payload) = match text.split_once("payload=") {
            Some((flags, hex)) => (flags, Some(hex)),
            None => (text, None),
        };
        let source = if self.has_source() { String::new() } else { format!("-s {} ", self.source()) };
        let destination = match (text.contains("-d "), self.family) {
            (true, _) => "",
            (_, Family::V4) => "-d 198.51.100.1 ",
            (_, Family::V6) => "-d 2001:db8:1::1 ",
        };
        let packet =
            packet_text::parse(&format!("{source}{destination}{flags}"), self.family).expect(self.line);
        let payload = match payload {
            None => craft::plain_payload(&packet),
            Some(hex) => (0..hex.trim().len() / 2)
                .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).expect(self.line))
                .collect(),
        };
        (packet, payload)
    }
}

#[test]
fn every_match_has_a_case_that_matches_and_one_that_does_not_or_a_reason() {
    let mut kinds: BTreeMap<&str, (bool, bool, bool)> = BTreeMap::new();
    for case in cases() {
        let found = kinds.entry(case.name).or_default();
        match case.rule {
            None => found.2 |= !case.packets[0].is_empty(),
            Some(_) => {
                found.0 |= case.packets[0] != "-";
                found.1 |= case.packets[1] != "-";
            }
        }
    }
    let missing: Vec<&str> = registry::all()
        .filter(|spec| spec.kind == Kind::Match)
        .filter(|spec| !kinds.get(spec.name).is_some_and(|&(yes, no, reason)| reason || yes && no))
        .map(|spec| spec.name)
        .collect();
    assert_eq!(missing, Vec::<&str>::new(), "matches without a case in kernel-cases.txt");
}

#[test]
fn the_registry_says_which_matches_were_asked_about() {
    let asked: BTreeMap<&str, bool> = cases().iter().fold(BTreeMap::new(), |mut all, case| {
        *all.entry(case.name).or_default() |= case.rule.is_some();
        all
    });
    for spec in registry::all().filter(|spec| spec.kind == Kind::Match) {
        let says = registry::kernel_check(spec).map(|check| check == KernelCheck::Checked);
        assert_eq!(says, asked.get(spec.name).copied(), "{}", spec.name);
    }
}

#[test]
fn the_kernel_matches_what_the_cases_say_and_so_do_we() {
    for family in [Family::V4, Family::V6] {
        for tracked in [false, true] {
            let cases: Vec<Case<'_>> = cases()
                .into_iter()
                .filter(|c| c.rule.is_some() && c.family == family && c.looks_at_connections() == tracked)
                .collect();
            if let Err(error) = in_own_thread(|| run_cases(family, &cases)) {
                assert!(error.is_unavailable(), "{error}");
                return println!("skipped: {error}");
            }
        }
    }
}

fn run_cases(family: Family, cases: &[Case<'_>]) -> Result<(), KernelError> {
    let mut text =
        "*mangle\n:PREROUTING ACCEPT\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\n:POSTROUTING ACCEPT\n\
                    -A OUTPUT -i eth0\n-A OUTPUT -i eth1\n"
            .replace("-A OUTPUT -i eth0\n-A OUTPUT -i eth1\n", "-A FORWARD -i eth0\n-A FORWARD -i eth1\n");
    for case in cases {
        let (hook, rule) = case.rule.expect(case.line);
        let source = if case.has_source() { String::new() } else { format!("-s {} ", case.source()) };
        let _ = writeln!(text, "-A {} {source}{rule}", hook.name());
    }
    text.push_str("COMMIT\n");
    let ruleset = read(&text, family);
    let oracle = Oracle::new(&ruleset).expect("rules");
    let mut session = Session::open(text.as_bytes(), &ruleset, Looks::of(&oracle), vec![1, 2])?;
    // Rules of ours at the head of FORWARD name the devices.
    let mut next = BTreeMap::from([(Hook::Prerouting, 1), (Hook::Forward, 3)]);
    let mut wrong = String::new();
    for case in cases {
        let (hook, _) = case.rule.expect(case.line);
        let number = next[&hook];
        next.insert(hook, number + 1);
        let id = RuleId::find(&ruleset, TableKind::Mangle, hook.name(), number).expect(case.line);
        for (text, wanted) in case.packets.into_iter().zip([true, false]).filter(|(text, _)| *text != "-") {
            let (packet, payload) = case.packet(text);
            if let Err(said) = send(&mut session, &oracle, &packet, &payload, (hook, id, wanted))? {
                let _ = writeln!(wrong, "line {}: {}\n    packet {text}: {said}", case.number, case.line);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    Ok(())
}

/// Whether the rule matches when its residual matches are evaluated over the packet's bytes and over what the case
/// says of the host; `None` when their answers hang on what came before, or are not known.
fn evaluated(
    oracle: &Oracle<'_>,
    of: &Traversal,
    packet: &Packet,
    seen: &Packet,
    (hook, rule): (Hook, RuleId),
) -> Option<bool> {
    let mut seen = *seen;
    for fact in [Fact::WayBack, Fact::Receiver, Fact::Ipsec, Fact::OwnInterfaces] {
        seen.facts.set(fact, packet.facts.get(fact));
    }
    let now = Time::from(SystemTime::now());
    let mut state = State::new(oracle.ruleset(), hipac_host::Options::default(), now).expect("rules");
    let arrival = Arrival { wire: Some(&of.entry.bytes), ..Arrival::at(now) };
    let mut exact = Exact::new(&mut state, arrival, Script::AllHold);
    let evaluation = oracle.evaluate(TableKind::Mangle, hook, &seen, &mut exact);
    let is_pure = oracle.meanings(rule).iter().all(|m| matches!(m.residual, None | Some(Residual::Pure)));
    (is_pure && exact.assumed() == 0).then(|| evaluation.events.contains(&Event::Matched(rule)))
}

/// Sends one packet, and looks whether the rule matched in the kernel as wanted, and at the oracle.
fn send(
    session: &mut Session,
    oracle: &Oracle<'_>,
    packet: &Packet,
    payload: &[u8],
    (hook, rule, wanted): (Hook, RuleId, bool),
) -> Result<Result<(), String>, KernelError> {
    let index = |name: hipac_classifier::InterfaceName| session.host.device_named(name.as_bytes());
    let (device, out) = (index(packet.in_interface).unwrap_or(0), index(packet.out_interface).unwrap_or(0));
    session.host.route(Route::Out(out))?;
    match packet.ct_state {
        CtState::Established => session.connections.make(packet, false).expect("a connection"),
        CtState::Related => session.connections.make(packet, true).expect("a connection"),
        _ => {}
    }
    let id = session.id_for_mark(packet.mark).unwrap_or(7);
    let bytes = craft::with_payload(packet, id, payload);
    let ethernet = session.host.devices[device].has_ethernet;
    let sent = Sent {
        mac: ethernet.then(|| packet.mac.unwrap_or([2, 0, 0, 0, 0, 1])),
        packet_type: if ethernet { packet.packet_type } else { 0 },
    };
    let frame = match sent.mac {
        None => bytes,
        Some(mac) => {
            let to = if sent.packet_type == 1 { [0xff; 6] } else { ETHERNET };
            let kind = if packet.is_v6 { [0x86, 0xdd] } else { [8, 0] };
            [&to[..], &mac, &kind, &bytes].concat()
        }
    };
    let traversals = session.send(device, &frame)?;
    let Some(of) = traversals.iter().find(|t| (t.table, t.hook) == (TableKind::Mangle, hook)) else {
        return Ok(Err(format!("did not reach {}", hook.name())));
    };
    let found = of
        .lines
        .iter()
        .any(|line| RuleId::find(oracle.ruleset(), line.table, &line.chain, line.number) == Some(rule));
    if found != wanted {
        return Ok(Err(format!("matched: {found}")));
    }
    let Ok(mut seen) = packet_of(of, &session.host, &sent) else {
        return Ok(Err("is no packet to us".into()));
    };
    // The kernel tells nobody; the connection was made so.
    seen.helper = packet.helper;
    let judged = judge(oracle, None, of, seen, true);
    let by_us = evaluated(oracle, of, packet, &seen, (hook, rule));
    Ok(match judged.difference {
        None if by_us.is_some_and(|found| found != wanted) => Err(format!("evaluated: {}", !wanted)),
        Some(difference) => Err(format!("{difference:?} on {}", packet_text::show(&seen))),
        None => Ok(()),
    })
}
