//! Readers beside a writer: within one pin there is one version of everything.

mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hipac_classifier::program::ResidualKind;
use hipac_classifier::{Answer, Decision, Host, OriginId, Packet};
use hipac_compiler::{LiveOptions, LiveTable};
use hipac_rules::ipset::Sets;
use hipac_rules::{Edit, ParseOptions, parse_edits};

struct Nobody;

impl Host for Nobody {
    fn residual(&mut self, _: OriginId, _: u8, _: ResidualKind, _: &Packet) -> Answer {
        Answer::Fails
    }

    fn matched(&mut self, _: OriginId, _: &Packet) {}
}

/// Two flags of one transaction: each is a rule or a policy of its own, far from the others.
const FLAGS: [(&str, &str, u32); 4] = [
    ("INPUT", "10.0.0.1", 80),
    ("FORWARD", "10.200.3.4", 443),
    ("OUTPUT", "172.16.0.9", 53),
    ("INPUT", "192.168.7.7", 8080),
];

/// All flags on, or all off, with a rule that has many boxes and policies that move with them.
fn transaction(on: bool, step: u64) -> String {
    let deed = |on: bool| if on { "-I" } else { "-D" };
    let mut text = String::from("*filter\n");
    for (chain, source, port) in FLAGS {
        let at = if on { " 1" } else { "" };
        text += &format!("{} {chain}{at} -s {source} -p tcp --dport {port} -j DROP\n", deed(on));
    }
    text += &format!("{} deep{} -s 10.99.0.0/16 -j DROP\n", deed(on), if on { " 1" } else { "" });
    text += &format!("-P OUTPUT {}\n", if on { "DROP" } else { "ACCEPT" });
    // What changes besides: rules of every size, some of them wide.
    text += &format!("-I FORWARD 2 -d 10.{}.0.0/16 -p udp -j ACCEPT\n-D FORWARD 3\n", step % 200);
    if step.is_multiple_of(7) {
        text += "-I FORWARD 2\n-D FORWARD 2\n";
    }
    text + "COMMIT\n"
}

/// A set that holds another flag, or not, and what changes besides.
fn bad(on: bool, step: u64) -> Sets {
    let mut text = String::from("create bad hash:ip\n");
    (0..50).for_each(|i| text += &format!("add bad 10.55.{}.{i}\n", step % 250));
    if on {
        text += "add bad 10.77.0.1\n";
    }
    let (sets, faults) = Sets::read(text);
    assert!(faults.is_empty(), "{}", faults[0]);
    sets
}

fn rules() -> String {
    let mut text = String::from(
        "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:deep - [0:0]\n",
    );
    for chain in ["INPUT", "FORWARD", "OUTPUT"] {
        for i in 0..150 {
            text += &format!("-A {chain} -s 10.{}.{}.0/24 -p tcp --dport {} -j ACCEPT\n", i, i / 3, 1000 + i);
        }
        text += &format!("-A {chain} -j deep\n");
    }
    text += "-A INPUT -m set --match-set bad src -j DROP\n";
    text + "COMMIT\n"
}

fn packet(source: [u8; 4], port: u16) -> Packet {
    Packet {
        source: u128::from(u32::from_be_bytes(source)),
        protocol: 6,
        source_port: 1,
        destination_port: port,
        ..Packet::default()
    }
}

/// One writer, several readers, one of which keeps its pins for long, for so long.
fn stress(time: Duration, readers: usize) {
    let live =
        LiveTable::open_with_sets(&common::read(&rules()), &bad(false, 0), &LiveOptions::default()).unwrap();
    let (stop, asked, on_seen) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let packets: Vec<(&str, Packet)> = vec![
        ("filter/INPUT", packet([10, 0, 0, 1], 80)),
        ("filter/FORWARD", packet([10, 200, 3, 4], 443)),
        ("filter/OUTPUT", packet([172, 16, 0, 9], 53)),
        ("filter/INPUT", packet([192, 168, 7, 7], 8080)),
        ("filter/INPUT", packet([10, 99, 1, 1], 7)),
        ("filter/FORWARD", packet([10, 99, 200, 1], 7)),
        ("filter/OUTPUT", packet([1, 2, 3, 4], 7)),
        ("filter/INPUT", packet([10, 77, 0, 1], 7)),
    ];
    std::thread::scope(|scope| {
        for number in 0..readers {
            let (live, stop, asked, on_seen, packets) = (&live, &stop, &asked, &on_seen, &packets);
            scope.spawn(move || {
                let mut reader = live.reader();
                while !stop.load(Ordering::Relaxed) {
                    let pinned = reader.pin();
                    let ask = || -> Vec<bool> {
                        let drops = packets.iter().map(|(entry, packet)| {
                            let entry = pinned.find_entry(entry).expect("built-in");
                            let verdict = match pinned.evaluate(entry, &mut packet.clone(), &mut Nobody) {
                                Ok(Decision::Rule { verdict, .. } | Decision::Default { verdict }) => verdict,
                                other => panic!("{other:?}"),
                            };
                            pinned.verdict_name(verdict) == "DROP"
                        });
                        drops.collect()
                    };
                    let first = ask();
                    assert!(first.iter().all(|&d| d == first[0]), "torn: {first:?} in {pinned:?}");
                    if number == 0 {
                        std::thread::sleep(Duration::from_millis(3));
                    }
                    assert_eq!(first, ask(), "one pin is one version: {pinned:?}");
                    asked.fetch_add(1, Ordering::Relaxed);
                    on_seen.fetch_add(u64::from(first[0]), Ordering::Relaxed);
                }
            });
        }
        let stopper = Stop(&stop);
        let begin = Instant::now();
        let mut step = 0;
        while begin.elapsed() < time {
            let on = step % 2 == 0;
            let groups = parse_edits(transaction(on, step), &ParseOptions::default()).into_result();
            let edits: Vec<Edit> = groups.expect("edits").into_iter().flat_map(|group| group.edits).collect();
            live.apply_with_sets(&edits, &bad(on, step)).expect("it fits");
            if step % 50 == 49 {
                live.compact().expect("it fits");
            }
            step += 1;
        }
        drop(stopper);
        assert!(step > 20, "{step} transactions");
    });
    let (asked, on) = (asked.into_inner(), on_seen.into_inner());
    assert!(asked > 100 && on > 0 && on < asked, "{on} of {asked} pins saw the flags on");
}

/// Stops the readers, also when the writer panics.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn no_reader_sees_a_part_of_a_transaction() {
    let seconds = std::env::var("HIPAC_LIVE_STRESS_SECONDS").ok().and_then(|s| s.parse().ok());
    stress(Duration::from_secs(seconds.unwrap_or(2)), 3);
}
