//! What is drawn: always possible, always the same, and near the rules.

use std::collections::{BTreeMap, HashSet};

use hipac_classifier::L4;
use hipac_rules::{Family, Hook, TableKind};

use super::{BLOCK_CASES, Case, Drawer};
use crate::fields::{self, NUMBERS};
use crate::packet_text;
use crate::subject::Event;
use crate::testing::{filter, oracle, ruleset};

const RULES: &str = "FORWARD DROP
    -p 6 -s 10.0.0.0/8 -j lan
    -i eth+ -d 192.0.2.128/25 -m dport22 -j ACCEPT
    lan
    -s 10.1.0.0/255.255.0.15 -j deep
    -f -j DROP
    deep
    ! -o ppp0 -m tcp-dport22 -m mark1 -g deeper
    deeper
    -i wlan0 -m ports -j ACCEPT
    -m tcp -j DROP
    INPUT
    -m ttl9 -m untracked -m tos8 -j DROP
    -m physdev-eth -j DROP
    lost
    -s 9.9.9.9 -j DROP";

fn draw(text: &str, seed: u64, blocks: u64) -> Vec<Case> {
    let rules = filter(text);
    let oracle = oracle(&rules).unwrap();
    let drawer = Drawer::new(&oracle, seed);
    (0..blocks).flat_map(|block| drawer.block(block)).collect()
}

#[test]
fn a_seed_means_the_same_packets_forever() {
    let shown: Vec<String> = draw(RULES, 1, 1)
        .iter()
        .take(4)
        .map(|case| format!("{} {}", case.hook.name(), packet_text::show(&case.packet)))
        .collect();
    assert_eq!(
        shown,
        [
            "FORWARD -i wlan0 -s 10.1.255.240 -d 67.230.158.8 -p tcp --dport 14878 --mark 0xb85d755d --connmark 0xa9430709 --ttl 231 --pkt-type 4 --src-type UNREACHABLE --physdev-in eth~",
            "OUTPUT -s 52.18.177.161 -d 62.225.160.80 -p 246 --sport 45421 --dport 1466 --tcp-flags FIN,SYN,PSH,URG,ECE --ctstate INVALID --mark 0x8bc88f6f --connmark 0x83bcec75 --ttl 240 --tos 0xa2 --length 63456 --mac 54:f9:b6:52:49:be --pkt-type 7 --src-type ANYCAST --dst-type UNREACHABLE --physdev-out m --bridged",
            "INPUT -i eth~ -o eth~ -s 9.255.255.255 -d 192.0.2.0 -p tcp --sport 1023 --dport 1023 --ctstate UNTRACKED,DNAT --mark 0x1 --ttl 9 --tos 0x09 --physdev-in ppp --physdev-out wlan00",
            "FORWARD -i wlan0 -s 10.1.255.240 -p tcp --sport 1024 --dport 22 --mark 0xffffffff"
        ]
    );
}

#[test]
fn blocks_and_seeds_differ() {
    let cases: HashSet<Case> = draw(RULES, 1, 8).into_iter().chain(draw(RULES, 2, 8)).collect();
    assert!(cases.len() as u64 > 16 * BLOCK_CASES * 9 / 10, "{}", cases.len());
}

#[test]
fn every_value_is_possible() {
    for family in [Family::V4, Family::V6] {
        let rules =
            ruleset(family, TableKind::Filter, "FORWARD\n-m ports -m mark1 -m ttl9 -j DROP\n! -p 6 -i a+");
        let oracle = oracle(&rules).unwrap();
        for case in Drawer::new(&oracle, 3).block(0) {
            for field in NUMBERS {
                let number = fields::number(&case.packet, field);
                assert!(fields::is_possible(family, field, number), "{field:?} {number}");
            }
            assert_eq!(case.packet.is_v6, family == Family::V6);
        }
    }
}

#[test]
fn every_rule_that_can_match_is_reached_and_missed() {
    let rules = filter(RULES);
    let oracle = oracle(&rules).unwrap();
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    let cases = draw(RULES, 1, 16);
    for case in &cases {
        let evaluation = oracle.evaluate(case.table, case.hook, &case.packet, &mut case.outcomes.play());
        for event in evaluation.events {
            if let Event::Matched(id) = event {
                *times.entry(id.place(&rules).to_string()).or_default() += 1;
            }
        }
    }
    assert_eq!(times.len(), 9, "{times:#?}");
    for (rule, times) in times {
        assert!((20..cases.len() - 20).contains(&times), "{rule}: {times} of {}", cases.len());
    }
}

#[test]
fn every_built_in_chain_and_state_of_the_header_occurs() {
    let cases = draw(RULES, 1, 8);
    let hooks: HashSet<Hook> = cases.iter().map(|c| c.hook).collect();
    assert_eq!(hooks.len(), 3);
    let whole = cases.iter().filter(|c| c.packet.l4 == L4::Whole).count();
    assert!((50..95).contains(&(100 * whole / cases.len())), "{whole} of {}", cases.len());
    for l4 in L4::ALL {
        assert!(cases.iter().any(|c| c.packet.l4 == l4), "{l4:?}");
    }
}

#[test]
fn both_sides_of_every_bound_are_drawn() {
    let cases = draw("FORWARD\n-s 10.0.0.0/8 -m ports -m ttl9", 1, 16);
    let has = |test: &dyn Fn(&Case) -> bool| assert!(cases.iter().filter(|c| test(c)).count() > 10);
    for source in [0x09ff_ffff, 0x0a00_0000, 0x0aff_ffff, 0x0b00_0000] {
        has(&|c| c.packet.source == source);
    }
    for port in [52, 53, 54, 1023, 1024, 2047, 2048] {
        has(&|c| c.packet.source_port == port);
        has(&|c| c.packet.destination_port == port);
    }
    for ttl in [8, 9, 10] {
        has(&|c| c.packet.ttl == ttl);
    }
}

#[test]
fn a_way_of_ten_thousand_jumps_is_gone() {
    let mut text = String::from("FORWARD\n-s 10.0.0.0/8 -j c0");
    for i in 0..10_000 {
        text += &format!("\nc{i}\n-j c{}", i + 1);
    }
    text += "\nc10000\n-d 192.0.2.1 -j DROP";
    let cases = draw(&text, 1, 1);
    assert!(cases.iter().any(|c| c.packet.source >> 24 == 10 && c.packet.destination == 0xc000_0201));
}
