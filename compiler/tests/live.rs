//! A live table means what its rules say, after every change: held against the plain vectors of
//! `hipac_rules::edit`, the linear oracle, and the proof.

mod common;

use common::exam::Exam;
use common::live_subject::LiveSubject;
use hipac_bench_data::edits::{EditMaker, Options as EditOptions, Outcome};
use hipac_bench_data::{FilterFamily, classbench_gen, iptables_gen, ruleset_of};
use hipac_classifier::Image;
use hipac_compiler::{Counting, LiveOptions, LiveTable};
use hipac_rules::{Edit, Family, PrintOptions, Ruleset, print};
use hipac_verifier::{Oracle, proof};
use proptest::prelude::*;

/// What a table and its slow twin are compared by.
struct Twins {
    live: LiveTable,
    plain: Ruleset,
    /// The last changes, for whoever has to find out.
    log: Vec<String>,
}

impl Twins {
    fn new(ruleset: &Ruleset, options: &LiveOptions) -> Twins {
        Twins {
            live: LiveTable::open(ruleset, options).expect("it fits"),
            plain: ruleset.clone(),
            log: vec![],
        }
    }

    /// One transaction of both.
    #[track_caller]
    fn apply(&mut self, edits: &[Edit]) {
        let expected = hipac_rules::apply_all(&self.plain, edits);
        self.log.drain(..self.log.len().saturating_sub(20));
        for edit in edits {
            let mut text = String::new();
            hipac_rules::edit::print_edit(edit, self.plain.family, &mut text);
            self.log.push(text);
        }
        match (self.live.apply(edits), expected) {
            (Ok(_), Ok(plain)) => self.plain = plain,
            (Err(live), Err(plain)) => {
                assert_eq!(live.to_string(), plain.to_string());
            }
            (live, plain) => panic!("live {live:?}, plain {:?}: {edits:?}", plain.map(|_| ())),
        }
    }

    #[track_caller]
    fn have_the_same_rules(&self) {
        let options = PrintOptions::default();
        assert_eq!(print(&self.live.ruleset(), &options), print(&self.plain, &options));
    }

    /// The frozen table is proved equal to the rules.
    #[track_caller]
    fn prove(&self) {
        let image = Image::open(self.live.freeze().expect("it freezes")).expect("it opens");
        image.audit().unwrap_or_else(|e| panic!("{e}\n{}", print(&self.plain, &PrintOptions::default())));
        if let Err(refutation) = proof::prove(&self.plain, &image, &proof::Options::default()) {
            let rules = print(&self.plain, &PrintOptions::default());
            panic!("{}\n{rules}\nlast changes:\n{}", refutation.show(&self.plain), self.log.join(""));
        }
    }

    /// Readers see what the oracle says, on packets drawn from the bounds of the rules.
    #[track_caller]
    fn agree_on(&self, packets: u64) {
        let oracle = Oracle::new(&self.plain).expect("rules that were taken have an oracle");
        let subject = LiveSubject::new(&self.live, &self.plain);
        if let Some(d) = Exam::drawn(&oracle, packets).first_difference(&subject, Counting::Exact) {
            panic!(
                "{}: {:?}\noracle {:?}\nlive {:?}\n{}",
                d.what,
                d.case,
                d.expected,
                d.found,
                print(&self.plain, &PrintOptions::default())
            );
        }
    }
}

fn maker(ruleset: &Ruleset, seed: u64) -> EditMaker {
    EditMaker::new(ruleset, &EditOptions::new(seed))
}

proptest! {
    #![proptest_config(common::cases(60))]
    #[test]
    fn every_change_of_small_rules_is_proved(nasty in common::any_nasty(), seed: u64) {
        let ruleset = common::read_as(&nasty.text, Some(nasty.family));
        let mut twins = Twins::new(&ruleset, &LiveOptions::default());
        twins.prove();
        let mut maker = maker(&ruleset, seed);
        for step in 0..12 {
            let (edit, outcome) = maker.next_edit();
            prop_assert!(outcome != Outcome::MayLoop);
            twins.apply(&[edit]);
            twins.have_the_same_rules();
            twins.prove();
            if step % 4 == 0 {
                twins.agree_on(64);
            }
        }
    }
}

fn filters(family: FilterFamily, rules: u32) -> Ruleset {
    let options = classbench_gen::Options::new(rules, 1);
    ruleset_of(&classbench_gen::generate(&family.parameters(), &options).unwrap()).unwrap()
}

/// So many changes of a ruleset, one or a few at a time, proved every so often.
#[track_caller]
fn change_and_prove(ruleset: &Ruleset, seed: u64, changes: usize, every: usize) {
    let mut twins = Twins::new(ruleset, &LiveOptions::default());
    let mut maker = maker(ruleset, seed);
    for step in 1..=changes {
        let edits: Vec<Edit> = (0..1 + step % 3).map(|_| maker.next_edit().0).collect();
        twins.apply(&edits);
        if step % every == 0 {
            twins.prove();
        }
    }
    twins.have_the_same_rules();
    twins.agree_on(512);
}

#[test]
fn changed_filter_sets_are_proved() {
    for (i, family) in FilterFamily::ALL.into_iter().enumerate() {
        change_and_prove(&filters(family, 400 + 300 * i as u32), i as u64, 200, 40);
    }
}

#[test]
fn changed_rulesets_with_chains_are_proved() {
    for (family, seed) in [(Family::V4, 1), (Family::V6, 2)] {
        let text = iptables_gen::generate(&iptables_gen::Options::new(family, 300, seed)).unwrap();
        change_and_prove(&common::read(&text), seed, 150, 30);
    }
}
