//! The difference of two large filter sets that differ in ten rules is exactly where they differ: on
//! the bounds of these rules, beside them, and anywhere else.
//!
//! `HIPAC_DIFF_RULES` says how many rules: a hundred thousand in a release build, some thousands otherwise.

mod common;

use std::time::Instant;

use hipac_bench_data::{FilterFamily, classbench_gen, ruleset_of};
use hipac_rules::{Hook, Ruleset, TableKind, Target};
use hipac_verifier::diff::{Options, diff};
use hipac_verifier::{Case, Drawer, Oracle, Script};

/// Random numbers that are the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

const FORWARD: (TableKind, Hook) = (TableKind::Filter, Hook::Forward);

/// The rules of `filter/FORWARD`.
fn forward(ruleset: &mut Ruleset) -> &mut Vec<hipac_rules::Rule> {
    let table = ruleset.tables.iter_mut().find(|t| t.kind == TableKind::Filter).expect("a filter set has it");
    let chain = table.chains.iter_mut().find(|c| c.hook == Some(Hook::Forward)).expect("and its chain");
    &mut chain.rules
}

/// One target for another.
fn with_target(rule: &mut hipac_rules::Rule, name: &str) {
    let other = common::read(&format!("*filter\n:FORWARD ACCEPT\n-A FORWARD -j {name}\nCOMMIT\n"));
    rule.target = other.tables[0].chains.iter().find_map(|c| c.rules.first()).expect("a rule").target.clone();
    assert!(matches!(rule.target, Target::Extension(_)));
}

#[test]
fn ten_rules_of_many_make_exactly_the_difference() {
    let wanted = std::env::var("HIPAC_DIFF_RULES").ok().and_then(|n| n.parse().ok());
    let rules: u32 = wanted.unwrap_or(3_000);
    let families = if wanted.is_some() { &FilterFamily::ALL[..] } else { &FilterFamily::ALL[..2] };
    for (seed, family) in families.iter().enumerate() {
        let options = classbench_gen::Options::new(rules, 1);
        let mut old = ruleset_of(&classbench_gen::generate(&family.parameters(), &options).unwrap()).unwrap();
        // Filters of a set all accept: here every third one drops.
        forward(&mut old).iter_mut().step_by(3).for_each(|rule| with_target(rule, "DROP"));
        let mut new = old.clone();
        let mut focus = old.clone();
        forward(&mut focus).clear();
        let mut random = Random(seed as u64);
        for change in 0..10 {
            let list = forward(&mut new);
            // Anywhere, and at the end, where rules are wide: there a hundred thousand before them would cut the
            // difference into more pieces than are kept.
            let at = if change < 6 || wanted.is_some() {
                random.below(list.len())
            } else {
                list.len() - 1 - random.below(40)
            };
            forward(&mut focus).push(list[at].clone());
            match change % 3 {
                0 => drop(list.remove(at)),
                1 => with_target(&mut list[at], "REJECT"),
                _ => {
                    let (to, rule) = (random.below(at + 1), list.remove(at));
                    list.insert(to, rule);
                }
            }
        }
        let begin = Instant::now();
        let (of_old, of_new) = (Oracle::new(&old).unwrap(), Oracle::new(&new).unwrap());
        let options = Options { verdicts_only: true, ..Options::default() };
        let report = diff(&of_old, &of_new, &[(FORWARD, FORWARD)], &options, &mut |_| true).unwrap();
        let took = begin.elapsed();
        let place = &report.places[0];
        assert!(place.undecided.is_none(), "{:?}", place.undecided);
        let of_focus = Oracle::new(&focus).unwrap();
        let near = |drawer: Drawer<'_>, blocks: u64| -> Vec<Case> {
            (0..blocks)
                .flat_map(|block| drawer.block(block))
                .filter(|c| (c.table, c.hook) == FORWARD)
                .collect()
        };
        let mut packets: Vec<_> = near(Drawer::new(&of_focus, 1), 6).into_iter().map(|c| c.packet).collect();
        packets.extend(near(Drawer::new(&of_old, 2), 1).into_iter().map(|c| c.packet));
        packets.extend(place.differences.iter().map(|d| d.packet));
        let verdict = |oracle: &Oracle<'_>, packet| {
            oracle.evaluate(FORWARD.0, FORWARD.1, packet, &mut Script::AllHold.play()).verdict.name
        };
        let mut inside = 0;
        for packet in &packets {
            let differs = verdict(&of_old, packet) != verdict(&of_new, packet);
            assert_eq!(!place.of_packet(packet).is_empty(), differs, "{family:?}: {packet:?}");
            inside += usize::from(differs);
        }
        println!(
            "{family:?}: {} rules, {} differences in {took:?}; {} packets, {inside} inside",
            old.rule_count(),
            place.differences.len(),
            packets.len()
        );
        assert!(inside > 0 && inside < packets.len(), "{inside} of {} packets", packets.len());
    }
}
