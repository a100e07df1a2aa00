//! Buckets by the tick. The kernel itself is asked in the verifier's `tests/residual_kernel.rs`.

use hipac_classifier::L4;

use super::*;
use crate::Time;
use crate::testing::{outcomes, rule_of, udp};

/// Packets `tick source[:port][/length]` to one rule.
#[track_caller]
fn check(options: &str, packets: &str, expected: &str) {
    let rule = rule_of(&format!("-m hashlimit --hashlimit-name h {options}"));
    let (rule, mut table) = HashLimit::new(Settings(&rule.matches[0]), Family::V4, Hz::DEFAULT, 0).unwrap();
    let answers = packets.split(',').map(|text| {
        let (tick, source) = text.trim().split_once(' ').unwrap();
        let (source, length) = source.split_once('/').unwrap_or((source, "40"));
        let (source, port) = source.split_once(':').unwrap_or((source, "0"));
        let packet = Packet {
            source: source.parse().unwrap(),
            source_port: port.parse().unwrap(),
            length: length.parse().unwrap(),
            protocol: 17,
            ..Packet::default()
        };
        let arrival = Arrival::at(Time::default());
        match rule.ask(&mut table, &packet, &arrival, Hz::DEFAULT, tick.parse().unwrap()) {
            Some(Answer::Drops) => 'x',
            Some(answer) => outcomes([answer == Answer::Holds].into_iter()).remove(0),
            None => '?',
        }
    });
    assert_eq!(answers.collect::<String>(), expected, "{options}");
}

#[test]
fn each_host_has_a_bucket_of_its_own() {
    let options = "--hashlimit-upto 1/sec --hashlimit-burst 2 --hashlimit-mode srcip";
    check(options, "0 7, 0 7, 0 7, 0 8, 0 8, 0 8", "++-++-");
    check("--hashlimit-above 1/sec --hashlimit-burst 2 --hashlimit-mode srcip", "0 7, 0 7, 0 7, 0 8", "--+-");
    check("--hashlimit-upto 1/sec --hashlimit-burst 2", "0 7, 0 8, 0 9", "++-");
    check(&format!("{options} --hashlimit-srcmask 30"), "0 4, 0 7, 0 5, 0 8", "++-+");
    check(&format!("{options} --hashlimit-srcmask 0"), "0 4, 0 99, 0 5, 0 8", "++--");
    let ports = "--hashlimit-upto 1/sec --hashlimit-burst 1 --hashlimit-mode srcip,srcport";
    check(ports, "0 7:1, 0 7:1, 0 7:2, 0 8:1", "+-++");
}

#[test]
fn credit_comes_back_to_the_tick() {
    // Entries live as long as the unit of the rate, here a second, unless it is said: 2 seconds.
    let second =
        "--hashlimit-upto 1/sec --hashlimit-burst 1 --hashlimit-htable-expire 2000 --hashlimit-mode srcip";
    check(second, "0 7, 249 7, 250 7, 499 7, 500 7", "+-+-+");
    let ten = "--hashlimit-upto 10/sec --hashlimit-burst 1 --hashlimit-mode srcip";
    check(ten, "0 7, 24 7, 25 7, 49 7, 50 7", "+-+-+");
}

#[test]
fn an_idle_entry_goes_with_the_next_cleaning() {
    // Cleanings run at ticks 250, 500, …; an entry of tick 10 that lives a second expires at 260.
    let options =
        "--hashlimit-upto 1/hour --hashlimit-burst 1 --hashlimit-htable-expire 1000 --hashlimit-mode srcip";
    check(options, "10 7, 10 7, 259 7", "+--");
    check(options, "10 7, 499 7", "+-");
    check(options, "10 7, 500 7", "++");
    // It expires with the cleaning itself.
    check(options, "0 7, 250 7", "++");
    check(options, "0 7, 249 7, 499 7, 500 7, 749 7, 750 7", "+-----");
    let often = format!("{options} --hashlimit-htable-gcinterval 40");
    check(&often, "10 7, 259 7", "+-");
    check(&often, "10 7, 260 7", "++");
}

#[test]
fn a_full_table_drops_packets() {
    let options =
        "--hashlimit-upto 1/sec --hashlimit-mode srcip --hashlimit-htable-size 2 --hashlimit-htable-max 2";
    check(options, "0 1, 0 2, 0 3, 0 1, 0 2", "++x++");
    // What has expired makes room, once it is cleaned away.
    check(options, "0 1, 1 2, 249 3, 250 3, 250 4", "++x+x");
    // And with the next cleaning again, also when the last one was for somebody who found none.
    check(options, "0 1, 1 2, 250 3, 250 4, 500 5, 500 6", "+++x++");
    // No fewer than buckets.
    check(&options.replace("-max 2", "-max 1"), "0 1, 0 2, 0 3", "++x");
    // Eight times as many when nothing is said.
    let default = options.replace(" --hashlimit-htable-max 2", "");
    let packets: Vec<String> = (0..17).map(|i| format!("0 {i}")).collect();
    check(&default, &packets.join(","), &format!("{}x", "+".repeat(16)));
}

#[test]
fn bytes_are_paid_in_pieces_of_16() {
    // 16 bytes a second: two pieces of cost half a bucket each.
    let slow = "--hashlimit-upto 16b/s --hashlimit-mode srcip --hashlimit-htable-expire 60000";
    check(slow, "0 7/15, 0 7/15, 0 7/15", "++-");
    check(slow, "0 7/16, 0 7/15", "+-");
    check(slow, "0 7/15, 0 7/16", "+-");
    // What costs more than a bucket costs a bucket.
    check(slow, "0 7/1500, 249 7/1500, 250 7/1500", "+-+");
    // A burst fills the bucket at once, so many times: 100 bytes are 7 of 16.
    let burst = format!("{slow} --hashlimit-burst 100b");
    check(&burst, &["0 7/1500"; 10].join(","), "++++++++--");
}

#[test]
fn a_measured_rate_is_that_of_the_last_interval() {
    // A second holds 5 + 3 packets; after a second that had more than 3, none passes.
    let options = "--hashlimit-upto 3/sec --hashlimit-rate-match --hashlimit-mode srcip --hashlimit-htable-expire 60000";
    check(options, &["0 7"; 10].join(","), "++++++++--");
    check(options, "0 7, 1 7, 2 7, 3 7, 250 7, 251 7, 500 7", "++++--+");
    check(options, "0 7, 1 7, 2 7, 250 7", "++++");
    let bytes = "--hashlimit-above 512b/s --hashlimit-rate-match --hashlimit-mode srcip --hashlimit-htable-expire 60000";
    check(bytes, "0 7/400, 1 7/112, 2 7/1", "--+");
}

#[test]
fn ports_that_are_not_known_are_not_guessed() {
    let rule = rule_of(
        "-m hashlimit --hashlimit-name h --hashlimit-upto 1/sec --hashlimit-burst 1 --hashlimit-mode srcport",
    );
    let (rule, mut table) = HashLimit::new(Settings(&rule.matches[0]), Family::V4, Hz::DEFAULT, 0).unwrap();
    let mut ask = |packet: &Packet, wire: Option<&[u8]>| {
        let arrival = Arrival { wire, ..Arrival::at(Time::default()) };
        rule.ask(&mut table, packet, &arrival, Hz::DEFAULT, 0)
    };
    let wire = udp(b"text");
    let packet = Packet::from_ip_bytes(&wire).unwrap();
    assert_eq!(ask(&packet, None), Some(Answer::Holds));
    // ESP: the first bytes of its header stand where ports would.
    let esp = Packet { protocol: 50, ..packet };
    assert_eq!(ask(&esp, None), None);
    assert_eq!(ask(&esp, Some(&wire)), Some(Answer::Fails), "port 1024 again");
    assert_eq!(ask(&Packet { l4: L4::Fragment, ..packet }, None), None);
    // A protocol without ports has port 0.
    assert_eq!(ask(&Packet { protocol: 1, ..packet }, None), Some(Answer::Holds));
    assert_eq!(ask(&Packet { l4: L4::Under4, ..packet }, None), Some(Answer::Drops));
}

#[test]
fn what_the_kernel_refuses_is_refused() {
    for options in ["1/day --hashlimit-burst 5", "1/day --hashlimit-burst 11"] {
        let rule = rule_of(&format!("-m hashlimit --hashlimit-name h --hashlimit-upto {options}"));
        let found = HashLimit::new(Settings(&rule.matches[0]), Family::V4, Hz::DEFAULT, 0);
        assert!(found.is_err(), "{options}");
    }
}
