//! A course means what the oracle does: asked at points of the space.

use hipac_rules::{Hook, Ruleset, TableKind};

use super::{Detail, World};
use crate::draw::Drawer;
use crate::partition::{Head, Known, Side};
use crate::space::{Region, Space};
use crate::testing::{filter, oracle};
use crate::{By, Script};

/// Walks the point of each drawn packet, residual matches as scripted, and compares with the oracle.
#[track_caller]
fn check(rules: &Ruleset) {
    let oracle = oracle(rules).unwrap();
    let space = Space::new(rules.family, &[(&oracle, TableKind::Filter)], &[]);
    let mut world = World::new(space);
    let courses: Vec<_> = [Hook::Input, Hook::Forward, Hook::Output]
        .map(|hook| (hook, world.unfold(&oracle, TableKind::Filter, hook, Detail::Rules).unwrap()))
        .into();
    world.text_id("DROP");
    let drawer = Drawer::new(&oracle, 5);
    for case in (0..8).flat_map(|block| drawer.block(block)) {
        let (_, course) = courses.iter().find(|c| c.0 == case.hook).unwrap();
        let point = world.space.point(&case.packet).expect("every packet has a place");
        let region: Region = point.into_iter().map(|atom| (atom, atom)).collect();
        for (script, holds) in [(Script::AllHold, true), (Script::NoneHolds, false)] {
            let mut side = Side::new(&world, course, &region);
            let mut known = Known::new();
            let end = loop {
                match side.settle(&world, course, &region, &known) {
                    Head::End(end) => break end,
                    Head::Ask(asked) => known.push((asked, holds)),
                    other => panic!("{other:?} at a point"),
                }
            };
            let by = match end.step.map(|s| course.steps[s as usize].rule) {
                None => By::Policy,
                Some(rule) if end.is_malformed => By::Malformed(rule),
                Some(rule) => By::Rule(rule),
            };
            let expected = oracle.evaluate(case.table, case.hook, &case.packet, &mut script.play());
            assert_eq!(
                (world.text(end.text), by),
                (&*expected.verdict.name, expected.verdict.by),
                "{case:?}"
            );
            let witness = world.space.witness(&region);
            let again = oracle.evaluate(case.table, case.hook, &witness, &mut script.play());
            assert_eq!(again, expected, "the witness of a point is treated like the packet");
        }
    }
}

#[test]
fn a_course_does_what_the_oracle_does() {
    check(&filter(
        "FORWARD DROP\n-s 10.0.0.0/8 -p 6 -m tcp-dport22 -j ACCEPT\n! -i eth+ -j REJECT\n-m ports -o eth0 -j ACCEPT",
    ));
    check(&filter(
        "INPUT DROP\n-j a\n-m limit -j b\n-g a\n-j ACCEPT\na\n-m udp -m dport22 -j RETURN\n-m string -g b\n-s 10.0.0.0/9 -j DROP\nb\n! -f -m tcp -j RETURN\n-m limit -m multiport -m dport22 -j REJECT",
    ));
}

#[test]
fn changes_are_seen_by_later_rules() {
    check(&filter(
        "FORWARD DROP\n-m mark1 -j FLIP1\n-m not-mark1 -m string -j ACCEPT\n-j SAVE\n-m connmark1 -j DROP\n-s 10.0.0.0/8 -j NOTRACK\n-j RESTORE\n-m untracked -j ACCEPT\n-j CONNMARK1\n-m connmark1 -j TTL+1\n-m ttl9 -j ACCEPT\n-j TTL-1\n-m ttl9 -j DROP\n-j TOS8\n-m tos8 -m mark1 -j ACCEPT",
    ));
    check(&filter(
        "OUTPUT\n-m string -g a\n-j TTL9\n-m ttl9 -m connmark1 -j a\n-j DROP\na\n-m untracked -j DROP\n-j MARK1\n-m limit -j NOTRACK\n-m mark1 -m untracked -j ACCEPT",
    ));
}

#[test]
fn a_chain_that_a_guard_leads_to_is_passed_when_it_fails() {
    check(&filter(
        "FORWARD\n-j MARK1\n-m mark1 -m string -g a\n-j REJECT\na\n-p 6 -j DROP\n-m strange -j a2\na2\n-j ACCEPT",
    ));
}
