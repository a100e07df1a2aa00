//! Generations built in the background: whatever happens while one is built, the table means what its
//! rules say, and no more memory is used than it may.

mod common;

use std::time::{Duration, Instant};

use common::twins::Twins;
use hipac_bench_data::edits::{EditMaker, Options as EditOptions};
use hipac_bench_data::{FilterFamily, Share, classbench_gen, iptables_gen, ruleset_of};
use hipac_classifier::forest::LINE;
use hipac_compiler::{LiveError, LiveOptions, LiveTable};
use hipac_rules::{Edit, Family, ParseOptions, Ruleset, parse_edits};

/// Builds anew all the time.
fn restless() -> LiveOptions {
    LiveOptions { drift_percent: 0, drift_min: 0, pause: Duration::ZERO, ..LiveOptions::default() }
}

/// Nothing is built any more, and all of the budget is the table's again.
#[track_caller]
fn come_to_rest(twins: &mut Twins) {
    let begin = Instant::now();
    while twins.live.limit_now() != twins.live.stats().memory_bytes_max / LINE * LINE {
        assert!(begin.elapsed() < Duration::from_secs(60), "it goes on: {:?}", twins.live.stats());
        std::thread::sleep(Duration::from_millis(1));
        twins.are_within_budget();
    }
}

/// Changes of every kind while generations are built, until some have been exchanged.
#[track_caller]
fn change_while_building(ruleset: &Ruleset, seed: u64, options: &LiveOptions, wanted: u64) {
    let mut twins = Twins::new(ruleset, options);
    let begin = Instant::now();
    for step in 0.. {
        let stats = twins.live.stats();
        if stats.compactions >= wanted || begin.elapsed() > Duration::from_secs(60) {
            break;
        }
        let edit_options = EditOptions {
            invalid: Share::percent(5),
            loops: Share::percent(2),
            chains: Share::percent(30),
            ..EditOptions::new(seed.wrapping_add(1000 * step))
        };
        let mut maker = EditMaker::new(&twins.plain, &edit_options);
        for _ in 0..20 {
            let edits: Vec<Edit> = (0..1 + step % 4).map(|_| maker.next_edit().0).collect();
            if !twins.apply(&edits) {
                maker = EditMaker::new(&twins.plain, &edit_options);
            }
            twins.are_within_budget();
        }
        twins.have_the_same_rules();
        twins.prove();
        if step % 8 == 0 {
            twins.agree_on(16);
        }
    }
    come_to_rest(&mut twins);
    twins.have_the_same_rules();
    twins.prove();
    twins.agree_on(128);
    let stats = twins.live.stats();
    assert!(stats.compactions >= wanted, "{stats:?}");
}

#[test]
fn changes_during_a_compaction_are_in_what_it_built() {
    for (family, seed) in [(Family::V4, 1), (Family::V6, 2)] {
        let text = iptables_gen::generate(&iptables_gen::Options::new(family, 200, seed)).unwrap();
        change_while_building(&common::read(&text), seed, &restless(), 8);
    }
    let options = classbench_gen::Options::new(1500, 1);
    let filters = classbench_gen::generate(&FilterFamily::Access.parameters(), &options).unwrap();
    change_while_building(&ruleset_of(&filters).unwrap(), 3, &restless(), 5);
}

#[test]
fn no_more_than_the_budget_is_used_while_one_is_built() {
    let options = classbench_gen::Options::new(600, 1);
    for family in FilterFamily::ALL {
        let filters = classbench_gen::generate(&family.parameters(), &options).unwrap();
        let ruleset = ruleset_of(&filters).unwrap();
        let LiveError::Memory { needed, .. } =
            LiveTable::open(&ruleset, &LiveOptions { memory_bytes_max: 4096, ..restless() })
                .expect_err("4096 bytes are not enough")
        else {
            panic!("it is memory that lacks")
        };
        // Barely enough for one, for two, and for three of them.
        for budget in [needed, 2 * needed + 100_000, 4 * needed] {
            let wanted = u64::from(budget > 3 * needed);
            change_while_building(
                &ruleset,
                5,
                &LiveOptions { memory_bytes_max: budget, ..restless() },
                wanted,
            );
        }
    }
}

/// Two chains exchange their names by way of a third, and rules that led to one lead to the same one
/// under its new name, in whatever generation.
#[test]
fn names_that_change_while_one_is_built_lead_to_the_same_chains() {
    let mut text = String::from("*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n");
    text += ":a - [0:0]\n:b - [0:0]\n-A a -p tcp -j DROP\n-A b -p udp -j DROP\n";
    for i in 0..600 {
        let to = ["a", "b"][i % 2];
        text += &format!("-A INPUT -s 10.{}.{}.0/24 -j {to}\n", i / 200, i % 200);
    }
    let mut twins = Twins::new(&common::read(&(text + "COMMIT\n")), &restless());
    let begin = Instant::now();
    for step in 0u32.. {
        if step >= 200 && twins.live.stats().compactions > 2 || begin.elapsed() > Duration::from_secs(60) {
            break;
        }
        let (x, y) = if step % 2 == 0 { ("a", "b") } else { ("b", "a") };
        let mut change = format!("*filter\n-I INPUT 1 -s 10.9.0.{} -j {x}\n", step % 256);
        if step % 4 == 0 {
            change += &format!("-E {x} t\n-E {y} {x}\n-E t {y}\n");
        }
        let (at, last) = (1 + step * 3 % 500, step % 256);
        change += &format!("-I INPUT {at} -s 10.8.0.{last} -g {x}\n-D INPUT 2\n-D INPUT 7\nCOMMIT\n");
        let groups = parse_edits(&change, &ParseOptions::default()).into_result().unwrap();
        let edits: Vec<Edit> = groups.into_iter().flat_map(|group| group.edits).collect();
        assert!(twins.apply(&edits));
        if step % 10 == 0 {
            twins.have_the_same_rules();
            twins.prove();
        }
        if step % 16 == 0 {
            // So that some are finished whatever the names do.
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    come_to_rest(&mut twins);
    twins.prove();
    twins.agree_on(256);
    assert!(twins.live.stats().compactions > 2, "{:?}", twins.live.stats());
}
