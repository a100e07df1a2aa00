//! Counters of a live table move as iptables' do, and are kept over updates, generations and readers
//! that come and go.

mod common;

use common::live_subject::LiveSubject;
use common::twins::Twins;
use hipac_bench_data::edits::{EditMaker, Options as EditOptions};
use hipac_bench_data::{Share, iptables_gen};
use hipac_classifier::live::{CountWhat, Reader};
use hipac_compiler::{LiveOptions, LiveTable};
use hipac_rules::{Counters, Edit, Family, Ruleset};
use hipac_verifier::draw::BLOCK_CASES;
use hipac_verifier::{By, Case, Drawer, Event, Oracle, RuleId};
use proptest::prelude::*;

/// The counters of a rule.
fn of_rule(plain: &mut Ruleset, id: RuleId) -> &mut Counters {
    let table = plain.tables.iter_mut().find(|t| t.kind == id.table()).expect("its table is there");
    &mut table.chains[id.chain()].rules[id.rule()].counters
}

/// Some packets go through the live table, each by another of these readers, and through the oracle,
/// whose counts the plain rules keep. Then all counters are the same.
#[track_caller]
fn count(twins: &mut Twins, readers: &mut [Reader], seed: u64, what: CountWhat) {
    let before = twins.plain.clone();
    let oracle = Oracle::new(&before).expect("rules that were taken have an oracle");
    let subject = LiveSubject::new(&twins.live, &before);
    let drawer = Drawer::new(&oracle, seed);
    let cases: Vec<Case> = drawer.block(0).into_iter().take(BLOCK_CASES.min(24) as usize).collect();
    for (i, case) in cases.iter().enumerate() {
        let mut packet = case.packet;
        packet.length = packet.length.max(20) + i as u32;
        let expected = hipac_verifier::Subject::evaluate(
            &oracle,
            case.table,
            case.hook,
            &packet,
            &mut case.outcomes.play(),
        );
        if expected.verdict.by == By::GivenUp {
            continue;
        }
        let place = (case.table, case.hook);
        let reader = i % readers.len();
        let found =
            subject.evaluate_by(&mut readers[reader], place, &packet, &mut case.outcomes.play(), what);
        assert_eq!(found, expected);
        let add = |counters: &mut Counters| {
            counters.packets += 1;
            counters.bytes += u64::from(packet.length);
        };
        let matched = expected.events.iter().filter_map(|event| match event {
            Event::Matched(id) => Some(*id),
            _ => None,
        });
        match (what, expected.verdict.by) {
            (CountWhat::Exact, _) => matched.for_each(|id| add(of_rule(&mut twins.plain, id))),
            (CountWhat::Deciding, By::Rule(id)) => add(of_rule(&mut twins.plain, id)),
            _ => {}
        }
        if what != CountWhat::Nothing && expected.verdict.by == By::Policy {
            let table = twins.plain.tables.iter_mut().find(|t| t.kind == case.table);
            let chain = table.and_then(|t| t.chains.iter_mut().find(|c| c.hook == Some(case.hook)));
            chain.into_iter().for_each(|chain| add(&mut chain.counters));
        }
    }
    twins.have_the_same_rules();
}

/// Packets and changes in turn; readers come and go, generations too.
#[track_caller]
fn count_and_change(ruleset: &Ruleset, seed: u64, what: CountWhat, steps: u64) {
    let options = LiveOptions { drift_percent: 0, drift_min: 5, ..LiveOptions::default() };
    let mut twins = Twins::new(ruleset, &options);
    let mut readers: Vec<Reader> = (0..3).map(|_| twins.live.reader()).collect();
    let mut maker =
        EditMaker::new(ruleset, &EditOptions { chains: Share::percent(20), ..EditOptions::new(seed) });
    for step in 0..steps {
        count(&mut twins, &mut readers, seed.wrapping_add(step), what);
        let edits: Vec<Edit> = (0..1 + step % 4).map(|_| maker.next_edit().0).collect();
        assert!(twins.apply(&edits));
        twins.have_the_same_rules();
        match step % 5 {
            1 => readers.push(twins.live.reader()),
            2 => drop(readers.remove(0)),
            3 => twins.live.compact().expect("it fits"),
            4 => {
                // As it is, with its counters: all other rules, as far as numbers go.
                let plain = twins.plain.clone();
                twins.live.restore(&plain).expect("it fits");
            }
            _ => {}
        }
        twins.have_the_same_rules();
    }
    count(&mut twins, &mut readers, seed, what);
    drop(readers);
    twins.have_the_same_rules();
    // And what is saved with counters begins with them.
    let again = LiveTable::open(&twins.live.ruleset(), &LiveOptions::default()).expect("it fits");
    assert_eq!(common::twins::counted(&again.ruleset()), common::twins::counted(&twins.plain));
}

proptest! {
    #![proptest_config(common::cases(24))]
    #[test]
    fn counters_of_small_rules_are_those_of_iptables(nasty in common::any_nasty(), seed: u64) {
        let ruleset = common::read_as(&nasty.text, Some(nasty.family));
        for what in [CountWhat::Exact, CountWhat::Deciding, CountWhat::Nothing] {
            count_and_change(&ruleset, seed, what, 6);
        }
    }
}

#[test]
fn counters_are_kept_over_updates_and_generations() {
    for (family, seed) in [(Family::V4, 1), (Family::V6, 2)] {
        let text = iptables_gen::generate(&iptables_gen::Options::new(family, 120, seed)).unwrap();
        for what in [CountWhat::Exact, CountWhat::Deciding, CountWhat::Nothing] {
            count_and_change(&common::read(&text), seed, what, 25);
        }
    }
}
