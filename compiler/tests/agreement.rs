//! Compiled rulesets mean what their rules say: every image of every size, against the oracle.
//!
//! ```text
//!   generators ─▶ text ─parse▶ Ruleset ─compile (each size, each counting)▶ image ─audit▶ check
//! ```

mod common;

use common::{agree_at_every_size, read, read_as};
use hipac_bench_data::hostile::Hostile;
use hipac_bench_data::{FilterFamily, classbench_gen, iptables_gen, ruleset_of};
use hipac_compiler::{Counting, Options, compile};
use hipac_rules::{Family, Ruleset};
use proptest::prelude::*;

proptest! {
    #![proptest_config(common::cases(400))]
    #[test]
    fn small_nasty_rulesets_mean_what_they_say(nasty in common::any_nasty()) {
        agree_at_every_size(&read_as(&nasty.text, Some(nasty.family)), 512);
    }

    #[test]
    fn the_same_rules_and_options_give_the_same_bytes(nasty in common::any_nasty()) {
        let ruleset = read_as(&nasty.text, Some(nasty.family));
        for counting in [Counting::Exact, Counting::Deciding] {
            let options = Options { counting, ..Options::default() };
            let (one, other) = (compile(&ruleset, &options).unwrap(), compile(&ruleset, &options).unwrap());
            prop_assert!(one.image == other.image);
            prop_assert_eq!(one.cost, other.cost);
            prop_assert_eq!(one.cost.image_bytes, one.image.len());
        }
    }
}

fn generated(family: Family, rules: u32, seed: u64) -> Ruleset {
    read(&iptables_gen::generate(&iptables_gen::Options::new(family, rules, seed)).unwrap())
}

#[test]
fn generated_rulesets_mean_what_they_say() {
    for family in [Family::V4, Family::V6] {
        for (rules, seed) in [(0, 1), (1, 2), (20, 3), (150, 4), (300, 5)] {
            agree_at_every_size(&generated(family, rules, seed), 2_000);
        }
    }
}

#[test]
fn large_generated_rulesets_mean_what_they_say() {
    agree_at_every_size(&generated(Family::V4, 2_000, 7), 2_000);
    agree_at_every_size(&generated(Family::V6, 1_000, 8), 2_000);
}

#[test]
fn hostile_filter_sets_mean_what_they_say() {
    for kind in Hostile::ALL {
        agree_at_every_size(&ruleset_of(&kind.generate(1_000, 1).unwrap()).unwrap(), 1_000);
    }
}

#[test]
fn filter_sets_of_every_family_mean_what_they_say() {
    for (family, filters) in FilterFamily::ALL.into_iter().zip([1_000, 1_500, 2_000, 3_000, 4_000, 5_000]) {
        let options = classbench_gen::Options::new(filters, 1);
        let filters = classbench_gen::generate(&family.parameters(), &options).unwrap();
        agree_at_every_size(&ruleset_of(&filters).unwrap(), 1_000);
    }
}
