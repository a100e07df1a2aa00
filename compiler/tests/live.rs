//! A live table means what its rules say, after every change: held against the plain vectors of
//! `hipac_rules::edit`, the linear oracle, and the proof.

mod common;

use common::twins::Twins;
use hipac_bench_data::edits::{EditMaker, Options as EditOptions, Outcome};
use hipac_bench_data::{FilterFamily, classbench_gen, iptables_gen, ruleset_of};
use hipac_compiler::LiveOptions;
use hipac_rules::{Edit, Family, Ruleset};
use proptest::prelude::*;

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
