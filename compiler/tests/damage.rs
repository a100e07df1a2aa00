//! Wrong bytes are found: one value of an image is changed, its checksums are made right again,
//! and the image is opened, audited and asked.
//!
//! ```text
//!   mutant ─▶ open, audit, origins ─refused
//!               │
//!               ▶ drawn packets ────caught: it answers one otherwise than the rules
//!                   │
//!                   ▶ every packet ─same: it answers each as before (a bound moved to where no
//!                       │                  rule tells the sides apart, bytes that nothing reads)
//!                       ▶ missed
//! ```
//!
//! Every packet can be asked where rules look at few small fields. No mutant may panic or run on,
//! audited or not.

mod common;

use std::collections::BTreeMap;
use std::ops::Range;

use common::exam::Exam;
use common::{read, seal};
use hipac_classifier::image::Section;
use hipac_classifier::image::format::HEADER_BYTES;
use hipac_classifier::{CtState, EntryId, Image, L4, NoHost, Packet};
use hipac_compiler::{Counting, Options, compile};
use hipac_rules::{Hook, Ruleset, TableKind};
use hipac_verifier::{Case, ImageSubject, Oracle, Script, packet_text};

#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    refused: usize,
    caught: usize,
    same: usize,
    missed: usize,
}

impl Tally {
    fn all(&self) -> usize {
        self.refused + self.caught + self.same + self.missed
    }
}

/// Mutates an image and counts what becomes of the mutants, section by section.
struct Experiment<'r> {
    ruleset: &'r Ruleset,
    image: Vec<u8>,
    counting: Counting,
    drawn: Exam<'r>,
    /// Every packet there is, as far as the rules look.
    every: Exam<'r>,
    tallies: BTreeMap<&'static str, Tally>,
}

impl Experiment<'_> {
    /// Changes each 16-bit value of a range to its neighbours, to the ends and by its bits.
    fn run(&mut self, name: &'static str, bytes: Range<usize>) {
        for at in bytes.step_by(2) {
            let old = u16::from_le_bytes([self.image[at], self.image[at + 1]]);
            let mut values: Vec<u16> = vec![old ^ 1, old.wrapping_add(1), old.wrapping_sub(1), 0, u16::MAX];
            values.extend([4, 13].map(|bit| old ^ 1 << bit));
            values.sort_unstable();
            values.dedup();
            for value in values.into_iter().filter(|&v| v != old) {
                let mut mutant = self.image.clone();
                mutant[at..at + 2].copy_from_slice(&value.to_le_bytes());
                seal::seal(&mut mutant);
                self.examine(name, &mutant, || {
                    format!("{name}: {old:#06x} became {value:#06x} at byte {at}")
                });
            }
        }
    }

    fn examine(&mut self, name: &'static str, mutant: &[u8], what: impl Fn() -> String) {
        let tally = self.tallies.entry(name).or_default();
        let Ok(image) = Image::open(mutant) else {
            tally.refused += 1;
            return;
        };
        ask_anything(&image);
        if image.audit().is_err() {
            tally.refused += 1;
            return;
        }
        let Ok(subject) = ImageSubject::new(image, self.ruleset) else {
            tally.refused += 1;
            return;
        };
        if self.drawn.first_difference(&subject, self.counting).is_some() {
            tally.caught += 1;
        } else if let Some(difference) = self.every.first_difference(&subject, self.counting) {
            tally.missed += 1;
            println!("missed: {}: {}", what(), packet_text::show(&difference.case.packet));
        } else {
            tally.same += 1;
        }
    }

    fn run_all(&mut self) {
        // Without the checksums, which are made right again.
        self.run("header", 0..24);
        self.run("header", 32..HEADER_BYTES + 16 * Section::COUNT);
        for section in Section::ALL {
            let bytes = seal::section(&self.image, section);
            // Names end at any byte.
            self.run(section.name(), bytes.start..bytes.end & !1);
        }
        println!("section    mutants  refused   caught     same   missed");
        for (name, t) in &self.tallies {
            println!("{name:9} {:8} {:8} {:8} {:8} {:8}", t.all(), t.refused, t.caught, t.same, t.missed);
        }
    }

    fn total(&self) -> Tally {
        self.tallies.values().fold(Tally::default(), |a, b| Tally {
            refused: a.refused + b.refused,
            caught: a.caught + b.caught,
            same: a.same + b.same,
            missed: a.missed + b.missed,
        })
    }
}

/// A few packets at every entry, whatever the bytes say: to see that it ends.
fn ask_anything(image: &Image<&[u8]>) {
    let packets = [
        Packet::default(),
        Packet { protocol: 6, l4: L4::Under4, ttl: 0, ct_state: CtState::Invalid, ..Packet::default() },
    ];
    for entry in (0..image.entry_count().min(8)).map(|i| EntryId(i as u32)) {
        for mut packet in packets {
            let _ = image.evaluate(entry, &mut packet, &mut NoHost);
        }
    }
}

fn forward(packet: Packet, outcomes: Script) -> Case {
    Case { table: TableKind::Filter, hook: Hook::Forward, packet, outcomes }
}

/// Rules on the time to live and the protocol: 65,536 packets are all there are.
const ON_TTL_AND_PROTOCOL: &str = "\
*filter
:FORWARD DROP [0:0]
:sub - [0:0]
:asked - [0:0]
-A FORWARD -m ttl --ttl-lt 3 -j DROP
-A FORWARD -p 6 -j sub
-A FORWARD ! -p 17 -m ttl --ttl-gt 200 -j ACCEPT
-A FORWARD -p 17 -m limit --limit 1/sec -j asked
-A FORWARD -p 47 -g sub
-A FORWARD -m ttl --ttl-eq 100 -j REJECT
-A sub -m ttl --ttl-gt 63 -j RETURN
-A sub -m ttl ! --ttl-eq 10 -j ACCEPT
-A asked -m ttl --ttl-lt 128 -m recent --set --name a -m ttl ! --ttl-eq 64 -j ACCEPT
COMMIT
";

/// Many rules on one field: nodes as well as leaves.
fn many_on_ttl() -> String {
    let rule = |i: usize| {
        let target = ["ACCEPT", "DROP", "REJECT"][i % 3];
        format!("-A FORWARD -p {} -m ttl --ttl-eq {} -j {target}\n", 1 + i % 5, i * 8)
    };
    let wide = "-A FORWARD -m ttl --ttl-gt 50 -j LOG\n-A FORWARD ! -p 3 -m ttl --ttl-lt 60 -j ACCEPT\n";
    let rules: String = (0..30).map(rule).collect();
    format!("*filter\n:FORWARD DROP [0:0]\n{wide}{rules}COMMIT\n")
}

/// Rules on headers cut off and on the time to live.
const ON_HEADERS: &str = "\
*filter
:FORWARD ACCEPT [0:0]
-A FORWARD -f -m ttl --ttl-gt 10 -j DROP
-A FORWARD -p 6 -m tcp ! --dport 0 -j DROP
-A FORWARD -p 6 -m ttl --ttl-eq 9 -m limit --limit 1/sec -m tcp --syn -j ACCEPT
-A FORWARD -p 6 -m multiport --dports 0 -m ttl --ttl-lt 5 -j REJECT
COMMIT
";

fn every_ttl_and_protocol() -> impl Iterator<Item = Case> {
    (0..=255u8).flat_map(|ttl| (0..=255u8).map(move |protocol| (ttl, protocol))).flat_map(
        |(ttl, protocol)| {
            let packet = Packet { ttl, protocol, ..Packet::default() };
            let scripts: &[Script] = if protocol == 17 {
                &[Script::AllHold, Script::NoneHolds, Script::Drawn(2), Script::Drawn(3)]
            } else {
                &[Script::AllHold]
            };
            scripts.iter().map(move |&s| forward(packet, s))
        },
    )
}

/// Ports 0 and 1 and flags SYN and none stand for all: the rules look at no more of them, and a
/// mutant that does differs on these or is one of those that the last column counts.
fn every_header() -> impl Iterator<Item = Case> {
    let packet = |ttl, l4, protocol, variant: u8| Packet {
        ttl,
        l4,
        protocol,
        destination_port: (variant & 1).into(),
        tcp_flags: variant & 2,
        ..Packet::default()
    };
    (0..=255u8).flat_map(move |ttl| {
        L4::ALL.into_iter().flat_map(move |l4| {
            [0, 5, 6, 7, 17].into_iter().flat_map(move |protocol| {
                (0..4).flat_map(move |variant| {
                    let scripts = [Script::AllHold, Script::NoneHolds];
                    scripts.map(|s| forward(packet(ttl, l4, protocol, variant), s))
                })
            })
        })
    })
}

/// Runs an experiment in which every packet can be asked: none of the mutants may be missed.
#[track_caller]
fn check_every(text: &str, cases: impl Iterator<Item = Case>, counting: Counting, memory: Option<usize>) {
    let ruleset = read(text);
    let oracle = Oracle::new(&ruleset).unwrap();
    let memory_bytes_max = memory.unwrap_or(1 << 30);
    let image = compile(&ruleset, &Options { counting, memory_bytes_max }).unwrap().image;
    let (drawn, every) = (Exam::drawn(&oracle, 12_000), Exam::new(&oracle, cases));
    let tallies = BTreeMap::new();
    let mut experiment = Experiment { ruleset: &ruleset, image, counting, drawn, every, tallies };
    experiment.run_all();
    let t = experiment.total();
    println!("{t:?}: {} mutants", t.all());
    // Drawn packets find nearly all that can be found at all.
    assert!(t.missed * 200 <= t.all(), "{} of {} mutants missed", t.missed, t.all());
    assert!(t.same * 4 <= t.all(), "{} of {} mutants change nothing", t.same, t.all());
}

#[test]
fn a_small_image_with_one_value_changed_is_refused_or_caught_or_the_same() {
    check_every(ON_TTL_AND_PROTOCOL, every_ttl_and_protocol(), Counting::Exact, None);
}

#[test]
fn an_image_with_nodes_with_one_value_changed_is_refused_or_caught_or_the_same() {
    check_every(&many_on_ttl(), every_ttl_and_protocol(), Counting::Exact, None);
}

#[test]
fn an_image_for_cut_off_headers_with_one_value_changed_is_refused_or_caught_or_the_same() {
    check_every(ON_HEADERS, every_header(), Counting::Exact, None);
}
