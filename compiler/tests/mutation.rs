//! The proof can fail: images with one value changed, and rules with one thing changed.
//!
//! ```text
//!   mutant ─▶ prove ─refuted     a packet shows it: put to both, they differ
//!                   ─stranger    its rules, chains or keys are others altogether
//!                   ─proved      it must answer drawn packets (and where rules look at few small
//!                   │            fields, all packets) as before: the change means nothing
//!                   ─not proved  something is out of form, and no packet was found that shows it
//! ```
//!
//! A mutant that is proved and answers a packet otherwise fails the test. One that is not proved and
//! does so is refused as it must be, but without its witness: there may be hardly any.

mod common;

use std::collections::BTreeMap;

use common::exam::Exam;
use common::nasty::nasty;
use common::{Numbers, changed_rules, compile_roomy, images_of_all_sizes, read, read_as, seal};
use hipac_bench_data::{FilterFamily, classbench_gen, ruleset_of};
use hipac_classifier::image::Section;
use hipac_classifier::{Image, Packet};
use hipac_compiler::Counting;
use hipac_rules::{Hook, Ruleset, TableKind};
use hipac_verifier::certificate;
use hipac_verifier::proof::{Options, Refutation, prove};
use hipac_verifier::{Case, Compared, ImageSubject, Oracle, Script};

#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    refuted: usize,
    stranger: usize,
    /// Proved, and no packet known that tells otherwise.
    same: usize,
    /// Not proved, and no packet known that shows why.
    unclear: usize,
    /// Not proved, and a packet shows why that the proof did not find.
    unwitnessed: usize,
    /// Proved, and wrong.
    missed: usize,
}

impl Tally {
    fn all(&self) -> usize {
        self.refuted + self.stranger + self.same + self.unclear + self.unwitnessed + self.missed
    }
}

struct Campaign<'r> {
    ruleset: &'r Ruleset,
    image: Vec<u8>,
    exams: Vec<Exam<'r>>,
    tallies: BTreeMap<&'static str, Tally>,
    numbers: Numbers,
    label: String,
}

impl<'r> Campaign<'r> {
    fn new(label: impl ToString, ruleset: &'r Ruleset, image: Vec<u8>, exams: Vec<Exam<'r>>) -> Campaign<'r> {
        let numbers = Numbers(0x9e37_79b9);
        Campaign { ruleset, image, exams, tallies: BTreeMap::new(), numbers, label: label.to_string() }
    }

    /// Changes `count` values of a section, one at a time.
    fn run(&mut self, section: Section, count: usize) {
        let bytes = seal::section(&self.image, section);
        let slots = bytes.len() / 2;
        if slots == 0 {
            return;
        }
        for _ in 0..count {
            let at = bytes.start + 2 * self.numbers.below(slots);
            let other = bytes.start + 2 * self.numbers.below(slots);
            let word = |at: usize| u16::from_le_bytes([self.image[at], self.image[at + 1]]);
            let old = word(at);
            let new = self.numbers.beside(old, word(other));
            if new == old {
                continue;
            }
            let mut mutant = self.image.clone();
            mutant[at..at + 2].copy_from_slice(&new.to_le_bytes());
            seal::seal(&mut mutant);
            let what = format!("{}: {old:#06x} became {new:#06x} at byte {at}", self.label);
            self.examine(section.name(), &mutant, &what);
        }
    }

    fn examine(&mut self, name: &'static str, mutant: &[u8], what: &str) {
        let tally = self.tallies.entry(name).or_default();
        let Ok(image) = Image::open(mutant) else {
            tally.stranger += 1;
            return;
        };
        let proved = prove(self.ruleset, &image, &Options::default());
        let differs = |exams: &[Exam<'_>]| {
            let subject = ImageSubject::new(image.clone(), self.ruleset).ok()?;
            exams.iter().find_map(|exam| exam.first_difference(&subject, Counting::Exact)).map(|d| *d.case)
        };
        match proved {
            Err(Refutation::Differs { .. }) => tally.refuted += 1,
            Err(Refutation::Stranger(_) | Refutation::Rules(_)) => tally.stranger += 1,
            Ok(_) => match differs(&self.exams) {
                None => tally.same += 1,
                Some(case) => {
                    tally.missed += 1;
                    println!(
                        "MISSED {name}: {what}: {case:?}\n{}",
                        hipac_rules::print(self.ruleset, &Default::default())
                    );
                }
            },
            Err(Refutation::NotProved { place }) => match differs(&self.exams) {
                // Its form is wrong, whatever it means.
                None if image.audit().is_err() => tally.stranger += 1,
                None => {
                    tally.unclear += 1;
                    println!("unclear {name}: {what}: {place}");
                }
                Some(_) => {
                    tally.unwitnessed += 1;
                    println!("unwitnessed {name}: {what}: {place}");
                }
            },
        }
    }

    fn run_all(&mut self, count: usize) {
        self.run(Section::Arena, count);
        for section in [Section::Flats, Section::Programs, Section::Entries] {
            self.run(section, count / 4);
        }
        for section in [Section::Ranks, Section::Slots, Section::Recodes, Section::Origins] {
            self.run(section, count / 16);
        }
    }
}

fn add(all: &mut BTreeMap<&'static str, Tally>, more: &BTreeMap<&'static str, Tally>) {
    for (name, t) in more {
        let sum = all.entry(name).or_default();
        sum.refuted += t.refuted;
        sum.stranger += t.stranger;
        sum.same += t.same;
        sum.unclear += t.unclear;
        sum.unwitnessed += t.unwitnessed;
        sum.missed += t.missed;
    }
}

#[track_caller]
fn check(tallies: &BTreeMap<&'static str, Tally>) {
    println!("section    mutants  refuted stranger     same  unclear  unwitn.   missed");
    for (name, t) in tallies {
        println!(
            "{name:9} {:8} {:8} {:8} {:8} {:8} {:8} {:8}",
            t.all(),
            t.refuted,
            t.stranger,
            t.same,
            t.unclear,
            t.unwitnessed,
            t.missed
        );
    }
    let all = |of: fn(&Tally) -> usize| tallies.values().map(of).sum::<usize>();
    let count = all(Tally::all);
    assert_eq!(all(|t| t.missed), 0, "mutants that differ were proved equal");
    assert!(all(|t| t.unwitnessed) * 300 <= count, "too many refused without their witness");
    // A check can be stricter than what packets can show: a bound of a node that nobody comes to.
    assert!(all(|t| t.unclear) * 10 <= count, "too many refused that mean the same");
}

/// `HIPAC_MUTANTS` says how many mutants of each image (200).
fn mutants() -> usize {
    std::env::var("HIPAC_MUTANTS").ok().and_then(|n| n.parse().ok()).unwrap_or(200)
}

#[test]
fn changed_images_of_generated_filters_are_refused() {
    let mut tallies = BTreeMap::new();
    for (seed, family) in [(1, FilterFamily::Access), (2, FilterFamily::Firewall), (3, FilterFamily::Chain)] {
        let options = classbench_gen::Options::new(250, seed);
        let filters = classbench_gen::generate(&family.parameters(), &options).expect("filters");
        let ruleset = ruleset_of(&filters).expect("filters are rules");
        let oracle = Oracle::new(&ruleset).expect("an oracle");
        for compiled in images_of_all_sizes(&ruleset, Counting::Exact) {
            let exams = vec![Exam::drawn(&oracle, 3000)];
            let mut campaign = Campaign::new(format!("family {seed}"), &ruleset, compiled.image, exams);
            campaign.run_all(mutants());
            add(&mut tallies, &campaign.tallies);
        }
    }
    check(&tallies);
}

#[test]
fn changed_images_of_nasty_rulesets_are_refused() {
    let mut tallies = BTreeMap::new();
    for seed in 1..=24 {
        let mut numbers = Numbers(seed * 7919);
        let choices: Vec<u8> = (0..400).map(|_| numbers.below(256) as u8).collect();
        let nasty = nasty(&choices);
        let ruleset = read_as(&nasty.text, Some(nasty.family));
        let Ok(oracle) = Oracle::new(&ruleset) else { continue };
        let compiled = compile_roomy(&ruleset, Counting::Exact);
        let mut campaign =
            Campaign::new(format!("seed {seed}"), &ruleset, compiled.image, vec![Exam::drawn(&oracle, 3000)]);
        campaign.run_all(mutants());
        add(&mut tallies, &campaign.tallies);
    }
    check(&tallies);
}

/// Rules on the time to live and the protocol: 65,536 packets are all there are.
const ON_TTL_AND_PROTOCOL: &str = "\
*filter
:FORWARD DROP [0:0]
:sub - [0:0]
-A FORWARD -m ttl --ttl-lt 3 -j DROP
-A FORWARD -p 6 -j sub
-A FORWARD ! -p 17 -m ttl --ttl-gt 200 -j ACCEPT
-A FORWARD -p 47 -g sub
-A FORWARD -m ttl --ttl-eq 100 -j REJECT
-A sub -m ttl --ttl-gt 63 -j RETURN
-A sub -m ttl ! --ttl-eq 10 -j ACCEPT
COMMIT
";

#[test]
fn what_is_proved_of_a_changed_image_holds_for_every_packet() {
    let many: String = (0..30)
        .map(|i| {
            format!(
                "-A FORWARD -p {} -m ttl --ttl-eq {} -j {}\n",
                1 + i % 5,
                i * 8,
                ["ACCEPT", "DROP"][i % 2]
            )
        })
        .collect();
    let many = format!(
        "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -m ttl --ttl-gt 50 -j LOG\n\
         -A FORWARD ! -p 3 -m ttl --ttl-lt 60 -j ACCEPT\n{many}COMMIT\n"
    );
    let mut tallies = BTreeMap::new();
    for text in [ON_TTL_AND_PROTOCOL, &many] {
        let ruleset = read(text);
        let oracle = Oracle::new(&ruleset).expect("an oracle");
        let every = (0..=255u8).flat_map(|ttl| (0..=255u8).map(move |protocol| (ttl, protocol)));
        let every = every.map(|(ttl, protocol)| Case {
            table: TableKind::Filter,
            hook: Hook::Forward,
            packet: Packet { ttl, protocol, ..Packet::default() },
            outcomes: Script::AllHold,
        });
        let exams = vec![Exam::drawn(&oracle, 1000), Exam::new(&oracle, every)];
        let image = compile_roomy(&ruleset, Counting::Exact).image;
        let mut campaign = Campaign::new("ttl", &ruleset, image, exams);
        campaign.run_all(2 * mutants());
        add(&mut tallies, &campaign.tallies);
    }
    check(&tallies);
}

#[test]
fn changed_rules_are_refuted_against_an_unchanged_image() {
    let mut numbers = Numbers(42);
    let mut texts: Vec<Ruleset> = Vec::new();
    for seed in 1..=24 {
        let mut numbers = Numbers(seed * 104_729);
        let choices: Vec<u8> = (0..400).map(|_| numbers.below(256) as u8).collect();
        let nasty = nasty(&choices);
        texts.push(read_as(&nasty.text, Some(nasty.family)));
    }
    let options = classbench_gen::Options::new(250, 9);
    let filters = classbench_gen::generate(&FilterFamily::Access.parameters(), &options).expect("filters");
    texts.push(ruleset_of(&filters).expect("filters are rules"));
    let mut tally = Tally::default();
    for ruleset in &texts {
        let image = compile_roomy(ruleset, Counting::Exact).image;
        for _ in 0..mutants() / 2 {
            let Some(changed) = changed_rules(ruleset, &mut numbers) else { continue };
            let Ok(oracle) = Oracle::new(&changed) else { continue };
            let image = Image::open(&image).expect("an image");
            match prove(&changed, &image, &Options::default()) {
                Err(Refutation::Differs { .. }) => tally.refuted += 1,
                Err(Refutation::Stranger(_) | Refutation::Rules(_)) => tally.stranger += 1,
                answer => {
                    let subject = ImageSubject::new(image, &changed).expect("a subject");
                    let difference = Exam::drawn(&oracle, 3000)
                        .first_difference(&subject, Counting::Exact)
                        .map(|d| *d.case);
                    match (answer, difference) {
                        (Ok(_), None) => tally.same += 1,
                        (Ok(_), Some(case)) => {
                            tally.missed += 1;
                            println!("MISSED: {case:?}");
                        }
                        (Err(r), None) => {
                            tally.unclear += 1;
                            println!("unclear: {}", r.show(&changed));
                        }
                        (Err(r), Some(_)) => {
                            tally.unwitnessed += 1;
                            println!("unwitnessed: {}", r.show(&changed));
                        }
                    }
                }
            }
        }
    }
    check(&BTreeMap::from([("rules", tally)]));
}

/// A jump that has become a return leads over rules that have no flat rule where it stands: those of the chain that is
/// no longer called. That it leads there must not be what hides them.
#[test]
fn a_call_that_returns_does_not_hide_the_chain_it_called() {
    let text = "*filter\n:FORWARD DROP [0:0]\n:sub - [0:0]\n\
        -A FORWARD -p tcp -j sub\n\
        -A FORWARD -p icmp -j ACCEPT\n\
        -A sub -p icmp -m statistic --mode random --probability 0.5 -j MARK --set-mark 1\n\
        -A sub -p tcp\nCOMMIT\n";
    let ruleset = read_as(text, Some(hipac_rules::Family::V4));
    let image = compile_roomy(&ruleset, Counting::Exact).image;
    let programs = seal::section(&image, Section::Programs);
    let mut refused = 0;
    for at in programs.step_by(4) {
        // A call; the words of other operations that look like one are refused all the same.
        if image[at..at + 4] != 11u32.to_le_bytes() {
            continue;
        }
        let mut mutant = image.clone();
        mutant[at] = 12;
        seal::seal(&mut mutant);
        let mutant = Image::open(mutant).expect("the header is whole");
        let proved = prove(&ruleset, &mutant, &Options::default());
        assert!(proved.is_err(), "the call at byte {at} is a return, and the image is proved");
        let written = certificate::write(&ruleset, text.as_bytes(), &mutant, Compared::All);
        assert!(written.is_err(), "the call at byte {at} is a return, and there is a certificate");
        refused += 1;
    }
    assert!(refused > 0, "nothing calls");
}
