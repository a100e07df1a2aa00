//! A live table means what its rules say, after every change: held against the plain vectors of
//! `hipac_rules::edit`, the linear oracle, and the proof.

mod common;

use common::twins::Twins;
use hipac_bench_data::edits::{EditMaker, Options as EditOptions, Outcome};
use hipac_bench_data::{FilterFamily, classbench_gen, iptables_gen, ruleset_of};
use hipac_classifier::Image;
use hipac_compiler::{LiveOptions, LiveTable};
use hipac_rules::{Change, Edit, Family, Name, Ruleset, TableKind};
use hipac_verifier::proof;
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

/// `HIPAC_LIVE_UPDATES` random updates of small sets, each proved: a hundred thousand and more where
/// there is time for it, a few hundred otherwise.
#[test]
fn random_updates_of_small_sets_are_each_proved() {
    let wanted = std::env::var("HIPAC_LIVE_UPDATES").ok().and_then(|n| n.parse().ok());
    let updates: u64 = wanted.unwrap_or(300);
    let mut done = 0;
    for seed in 0.. {
        if done >= updates {
            break;
        }
        let family = if seed % 2 == 0 { Family::V4 } else { Family::V6 };
        let text = iptables_gen::generate(&iptables_gen::Options::new(family, 25, seed)).unwrap();
        let ruleset = common::read(&text);
        let mut twins = Twins::new(&ruleset, &LiveOptions::default());
        let mut maker = maker(&ruleset, seed);
        for _ in 0..100.min(updates - done) {
            assert!(twins.apply(&[maker.next_edit().0]));
            twins.prove();
            done += 1;
        }
        twins.have_the_same_rules();
        twins.agree_on(64);
    }
}

/// Inserts at the front, in the middle and at the end, and all of them out again.
#[test]
fn the_same_position_again_and_again() {
    for place in 0..3 {
        let ruleset = filters(FilterFamily::Access, 100);
        let mut twins = Twins::new(&ruleset, &LiveOptions::default());
        let chain = "FORWARD".into();
        let kind = hipac_rules::TableKind::Filter;
        let at = [0, 50, 100][place];
        let rule = twins.live.rule(kind, &chain, 7).expect("there are a hundred");
        for step in 1..=1500 {
            let mut rule = (*rule).clone();
            rule.ip.source.address = (rule.ip.source.address ^ step) & rule.ip.source.mask;
            let at = if place == 2 { 99 + step as usize } else { at };
            let change = hipac_rules::edit::Change::Insert { chain: chain.clone(), at, rules: vec![rule] };
            assert!(twins.apply(&[Edit::new(kind, change)]));
            if step % 500 == 0 {
                twins.prove();
            }
        }
        for step in 1..=1500 {
            let at = if place == 2 { 1600 - step } else { at };
            let change = hipac_rules::edit::Change::Delete { chain: chain.clone(), at };
            assert!(twins.apply(&[Edit::new(kind, change)]));
            if step % 500 == 0 {
                twins.prove();
            }
        }
        twins.have_the_same_rules();
        twins.are_within_budget();
    }
}

/// Large sets and real rulesets with chains: `HIPAC_LIVE_LARGE` says how many updates each, proved after
/// every thousandth.
#[test]
fn large_sets_are_proved_after_every_thousandth_update() {
    let Some(updates) = std::env::var("HIPAC_LIVE_LARGE").ok().and_then(|n| n.parse::<usize>().ok()) else {
        return println!("skipped: HIPAC_LIVE_LARGE is not set");
    };
    let Some(corpus) = std::env::var_os("HIPAC_CORPUS").map(std::path::PathBuf::from) else {
        return println!("skipped: HIPAC_CORPUS is not set");
    };
    let mut sets = Vec::new();
    for name in ["acl1", "fw1", "ipc1"] {
        let bytes = std::fs::read(corpus.join(format!("classbench/{name}_100k.rules"))).unwrap();
        let filters = hipac_bench_data::classbench::read_filters(bytes.as_slice()).unwrap();
        sets.push((name.to_owned(), ruleset_of(&filters).unwrap()));
    }
    // The five largest dumps that read without an error.
    let mut dumps: Vec<_> = std::fs::read_dir(corpus.join("rulesets"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter_map(|path| Some((path.metadata().ok()?.len(), path)))
        .collect();
    dumps.sort();
    let readable = dumps.into_iter().rev().filter_map(|(_, path)| {
        let parsed = hipac_rules::parse(std::fs::read(&path).ok()?, &hipac_rules::ParseOptions::default());
        (!parsed.has_errors())
            .then(|| (path.file_name().unwrap().to_string_lossy().into_owned(), parsed.ruleset))
    });
    sets.extend(readable.take(5));
    for (seed, (name, ruleset)) in sets.into_iter().enumerate() {
        let begin = std::time::Instant::now();
        let options = LiveOptions { memory_bytes_max: 256 << 20, ..LiveOptions::default() };
        let live = LiveTable::open(&ruleset, &options).expect("it fits");
        let mut maker = maker(&ruleset, seed as u64);
        for step in 1..=updates {
            let (edit, _) = maker.next_edit();
            live.apply(&[edit]).unwrap_or_else(|e| panic!("{name}, update {step}: {e}"));
            if step % 1000 == 0 {
                let plain = live.ruleset();
                let image = Image::open(live.freeze().expect("it freezes")).expect("it opens");
                image.audit().expect("it passes the audit");
                if let Err(refutation) = proof::prove(&plain, &image, &proof::Options::default()) {
                    panic!("{name}, update {step}: {}", refutation.show(&plain));
                }
            }
        }
        println!("{name}: {} rules, {updates} updates, {:?}", ruleset.rule_count(), begin.elapsed());
    }
}

/// A chain grows from nothing by single inserts, and shrinks to nothing.
#[test]
fn growth_and_shrinking_are_proved() {
    let most = std::env::var("HIPAC_LIVE_LARGE").ok().and_then(|n| n.parse().ok()).unwrap_or(1500);
    let whole = filters(FilterFamily::Firewall, most);
    let rules = &whole.table(TableKind::Filter).unwrap().chain("FORWARD").unwrap().rules;
    let mut empty = whole.clone();
    empty.tables[0].chains.iter_mut().for_each(|c| c.rules.clear());
    let live = LiveTable::open(&empty, &LiveOptions::default()).unwrap();
    let chain: Name = "FORWARD".into();
    let prove = |what: &str| {
        let plain = live.ruleset();
        let image = Image::open(live.freeze().unwrap()).unwrap();
        image.audit().unwrap_or_else(|e| panic!("{what}: {e}"));
        if let Err(refutation) = proof::prove(&plain, &image, &proof::Options::default()) {
            panic!("{what}: {}", refutation.show(&plain));
        }
    };
    let edit = |change| [Edit::new(TableKind::Filter, change)];
    let every = (rules.len() / 6).max(1);
    let mut state = 5usize;
    for (i, rule) in rules.iter().enumerate() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let at = (state >> 33) % (i + 1);
        live.apply(&edit(Change::Insert { chain: chain.clone(), at, rules: vec![rule.clone()] })).unwrap();
        if i % every == 0 {
            prove("growing");
        }
    }
    prove("grown");
    let fresh = LiveTable::open(&live.ruleset(), &LiveOptions::default()).unwrap();
    let (grown, fresh) = (live.stats(), fresh.stats());
    println!("{} rules: {} bytes grown, {} fresh", grown.rules, grown.structure_bytes, fresh.structure_bytes);
    for left in (0..rules.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let at = (state >> 33) % (left + 1);
        live.apply(&edit(Change::Delete { chain: chain.clone(), at })).unwrap();
        if left % every == 0 {
            prove("shrinking");
        }
    }
    assert_eq!(live.stats().boxes, 0);
}
