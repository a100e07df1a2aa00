//! The oracle and an image, each with a state of its own, agree step by step over whole sequences of packets: both
//! ask the same residual matches in the same order, or their buckets and lists would drift apart.

mod common;

use std::fmt::Write as _;

use common::{cases, compile_roomy, images_of_all_sizes, read, subject_of};
use hipac_classifier::{InterfaceName, Packet};
use hipac_compiler::Counting;
use hipac_host::{Arrival, ImageHost, Options, Origins, State, Time};
use hipac_rules::{Hook, Ruleset, TableKind};
use hipac_verifier::{Exact, Oracle, Script, Subject};
use proptest::prelude::*;
use proptest::sample::select;

const MATCHES: &[&str] = &[
    "",
    "-m limit --limit 5/second --limit-burst 2",
    "-m limit --limit 1/hour",
    "-m recent --set --name a",
    "-m recent --update --seconds 1 --hitcount 3 --name a",
    "-m recent ! --rcheck --rttl --name a --rdest",
    "-m recent --remove --name b",
    "-m recent --set --name b",
    "-m hashlimit --hashlimit-upto 3/sec --hashlimit-mode srcip,dstport --hashlimit-name h",
    "-m hashlimit --hashlimit-above 1kb/s --hashlimit-mode srcip --hashlimit-srcmask 31 --hashlimit-name k",
    "-m hashlimit --hashlimit-upto 1/hour --hashlimit-mode srcip,srcport --hashlimit-name full --hashlimit-htable-size 2 --hashlimit-htable-max 2",
    "-m statistic --mode nth --every 3 --packet 1",
    "-m statistic --mode random --probability 0.4",
    "-m quota --quota 2000",
    "-m string --algo bm --string ab",
    "-m u32 --u32 0>>22&0x3C@0>>16=1000:1001",
    "-m bpf --bytecode \"4,48 0 0 8,53 0 1 64,6 0 0 1,6 0 0 0\"",
    "-m time --timestart 0:00 --timestop 0:00:09",
    "-m rateest --rateest e --rateest-gt --rateest-pps 3",
    "-m connlimit --connlimit-above 3",
];

const CONDITIONS: &[&str] =
    &["", "-s 10.0.0.0/31", "-p udp -m udp --dport 53", "! -p udp", "-m ttl --ttl-lt 64", "-m mark --mark 1"];

const TARGETS: &[&str] = &[
    "",
    "-j ACCEPT",
    "-j DROP",
    "-j RETURN",
    "-j LOG",
    "-j MARK --set-mark 1",
    "-j RATEEST --rateest-name e --rateest-interval 250ms --rateest-ewmalog 0.5s",
    "-j one",
    "-g two",
];

/// A rule: condition, up to two matches, target; user chains do not jump.
fn rule(in_user_chain: bool) -> impl Strategy<Value = String> {
    let targets = if in_user_chain { &TARGETS[..TARGETS.len() - 2] } else { TARGETS };
    (select(CONDITIONS), select(MATCHES), select(MATCHES), select(targets))
        .prop_map(|(condition, one, other, target)| format!("{condition} {one} {other} {target}"))
}

fn rules() -> impl Strategy<Value = String> {
    let chain = |in_user_chain, most| proptest::collection::vec(rule(in_user_chain), 1..most);
    (chain(false, 12), chain(true, 6), chain(true, 6)).prop_map(|(forward, one, two)| {
        let mut text = "*mangle\n:one - [0:0]\n:two - [0:0]\n".to_owned();
        // The estimator is made before a rule compares with it.
        let maker = "-d 10.0.0.9 -j RATEEST --rateest-name e --rateest-interval 250ms --rateest-ewmalog 0.5s";
        writeln!(text, "-A PREROUTING {maker}").unwrap();
        for (name, rules) in [("FORWARD", forward), ("one", one), ("two", two)] {
            rules.iter().for_each(|rule| writeln!(text, "-A {name} {rule}").unwrap());
        }
        text + "COMMIT\n"
    })
}

/// Milliseconds since the packet before, and a packet's bytes.
fn packets() -> impl Strategy<Value = Vec<(u64, Vec<u8>)>> {
    let gap = select(vec![0u64, 0, 1, 4, 50, 200, 999, 1000, 60_000]);
    let fields = (0u8..3, 60u8..66, select(vec![17u8, 6, 1]), 999u16..1003, select(vec![53u16, 80]));
    let packet = (gap, fields, select(vec!["", "ab", "aab", "ba"])).prop_map(|(gap, fields, payload)| {
        let (source, ttl, protocol, from, to) = fields;
        let mut bytes =
            vec![0x45, 0, 0, 0, 0, 0, 0, 0, ttl, protocol, 0, 0, 10, 0, 0, source, 10, 0, 0, 9 - source];
        bytes.extend(from.to_be_bytes());
        bytes.extend(to.to_be_bytes());
        bytes.extend([0; 16]);
        bytes.extend(payload.as_bytes());
        bytes[3] = bytes.len() as u8;
        (gap, bytes)
    });
    proptest::collection::vec(packet, 1..120)
}

fn state(ruleset: &Ruleset) -> State {
    let options = Options { seed: Some(5), ..Options::default() };
    State::new(ruleset, options, Time::default()).expect("the kernel would load these rules")
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn oracle_and_image_agree_with_states_of_their_own(text in rules(), packets in packets()) {
        let ruleset = read(&text);
        let oracle = Oracle::new(&ruleset).unwrap();
        let (table, hook) = (TableKind::Mangle, Hook::Forward);
        let images = images_of_all_sizes(&ruleset, Counting::Exact);
        let mut sides: Vec<_> = images
            .into_iter()
            .map(|compiled| (subject_of(compiled.image, &ruleset), state(&ruleset)))
            .collect();
        // And once more without the verifier between, as a library's user asks.
        let plain = subject_of(compile_roomy(&ruleset, Counting::Exact).image, &ruleset);
        let origins = Origins::new(plain.image(), &ruleset).unwrap();
        let entry = plain.image().find_entry("mangle/FORWARD").unwrap();
        let mut plain_state = state(&ruleset);
        let mut oracle_state = state(&ruleset);
        let mut now = 0;
        for (gap, bytes) in packets {
            now += gap * 1_000_000;
            let eth = InterfaceName::new("eth0").unwrap();
            let packet = Packet::from_ip_bytes(&bytes).unwrap();
            let packet = Packet { in_interface: eth, out_interface: eth, ..packet };
            let arrival = Arrival { wire: Some(&bytes), ..Arrival::at(Time::from_nanos(now)) };
            let mut exact = Exact::new(&mut oracle_state, arrival, Script::NoneHolds);
            let expected = oracle.evaluate(table, hook, &packet, &mut exact);
            for (image, state) in &mut sides {
                let mut exact = Exact::new(state, arrival, Script::NoneHolds);
                let found = image.evaluate(table, hook, &packet, &mut exact);
                prop_assert_eq!(&found, &expected, "{}", text);
            }
            let mut host = ImageHost { state: &mut plain_state, origins: &origins, arrival, otherwise: false };
            let decision = plain.image().evaluate(entry, &mut packet.clone(), &mut host).unwrap();
            let is_ended_by_rule = !matches!(decision, hipac_classifier::Decision::Default { .. });
            prop_assert_eq!(is_ended_by_rule, expected.verdict.by != hipac_verifier::By::Policy, "{}", text);
        }
        // What is kept in the end is the same, to the last bucket.
        for (_, state) in &sides {
            prop_assert!(*state == oracle_state, "{}", text);
        }
        prop_assert!(plain_state == oracle_state, "{}", text);
    }
}
