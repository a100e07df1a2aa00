//! A difference is exactly where two oracles differ: inside of every box, and nowhere else.

use hipac_rules::{Hook, Ruleset, TableKind};
use proptest::prelude::*;
use proptest::sample::select;

use super::{Options, Report, diff};
use crate::draw::Drawer;
use crate::subject::Event;
use crate::testing::{filter, oracle};
use crate::{Evaluation, Oracle, Script};

const FORWARD: [(super::Entry, super::Entry); 1] =
    [((TableKind::Filter, Hook::Forward), (TableKind::Filter, Hook::Forward))];

fn compare(old: &Ruleset, new: &Ruleset) -> Report {
    let (old, new) = (oracle(old).unwrap(), oracle(new).unwrap());
    let report = diff(&old, &new, &FORWARD, &Options::default(), &mut |_| true).unwrap();
    for place in &report.places {
        assert!(place.undecided.is_none(), "{:?}", place.undecided);
        for difference in &place.differences {
            assert!(difference.is_confirmed, "{difference:#?}");
        }
    }
    report
}

/// The differences as lines.
fn shown(report: &Report) -> Vec<String> {
    let lines = report.places.iter().flat_map(|p| &p.differences).map(|d| {
        let conditions: String = d.conditions.iter().map(|c| format!(" if {c}")).collect();
        format!("{}{conditions}: {} → {}", d.words, d.old.verdict, d.new.verdict)
    });
    lines.collect()
}

#[track_caller]
fn check(old: &str, new: &str, expected: &[&str]) {
    let rules = |text: &str| filter(&format!("FORWARD DROP\n{text}"));
    assert_eq!(shown(&compare(&rules(old), &rules(new))), expected);
}

#[test]
fn what_differs_is_shown_in_few_boxes() {
    check("-s 10.0.0.0/8 -j ACCEPT", "-s 10.0.0.0/8 -j ACCEPT", &[]);
    check("-s 10.0.0.0/8 -j ACCEPT", "-s 10.0.0.0/9 -j ACCEPT", &["10.128.0.0/9 → any: ACCEPT → DROP"]);
    check(
        "-p 6 -m dport22 -j ACCEPT\n-j REJECT",
        "-p 6 -j ACCEPT\n-j REJECT",
        &["tcp any → any:!22: REJECT → ACCEPT"],
    );
    check("-i eth+ -j ACCEPT", "! -i eth+ -j ACCEPT", &["in !eth+: DROP → ACCEPT", "in eth+: ACCEPT → DROP"]);
}

#[test]
fn order_matters_only_where_rules_share_packets_and_end_otherwise() {
    let a = "-s 10.0.0.0/8 -j ACCEPT\n-s 11.0.0.0/8 -j REJECT\n-d 10.0.0.0/8 -j ACCEPT";
    check(a, "-s 11.0.0.0/8 -j REJECT\n-s 10.0.0.0/8 -j ACCEPT\n-d 10.0.0.0/8 -j ACCEPT", &[]);
    check(
        a,
        "-s 10.0.0.0/8 -j ACCEPT\n-d 10.0.0.0/8 -j ACCEPT\n-s 11.0.0.0/8 -j REJECT",
        &["11.0.0.0/8 → 10.0.0.0/8: REJECT → ACCEPT"],
    );
}

#[test]
fn rules_may_move_into_a_chain() {
    check(
        "-s 10.0.0.0/8 -p 6 -j ACCEPT\n-s 10.0.0.0/8 -p 17 -j REJECT\n-s 10.0.0.0/8 -j DROP\n-j ACCEPT",
        "-s 10.0.0.0/8 -j lan\n-j ACCEPT\nlan\n-p 6 -j ACCEPT\n-p 17 -j REJECT\n-j DROP",
        &[],
    );
}

#[test]
fn residual_matches_are_conditions() {
    check("-m string -j ACCEPT", "-m string -p 6 -j ACCEPT", &["!tcp if -m string holds: ACCEPT → DROP"]);
    // Asking more packets is a difference of its own: the match counts.
    let asked = "-p 6 -m limit -j LOG";
    check(asked, asked, &[]);
    let report = compare(&filter("FORWARD\n-p 6 -m limit -j LOG"), &filter("FORWARD\n-p 6 -j LOG"));
    assert_eq!(report.places[0].differences.len(), 2);
}

#[test]
fn marks_are_followed() {
    check(
        "-s 10.0.0.0/8 -j MARK1\n-m mark1 -j ACCEPT",
        "-s 10.0.0.0/8 -j MARK1\n-m mark1 -s 10.0.0.0/8 -j ACCEPT",
        &["!10.0.0.0/8 → any mark 0x1/0x1: ACCEPT → DROP"],
    );
}

#[test]
fn many_holes_are_exceptions() {
    let holes: String = (0..9).map(|i| format!("-s 10.0.0.{i} -d 10.0.0.{i} -j REJECT\n")).collect();
    let rules = |end: &str| filter(&format!("FORWARD DROP\n{holes}-s 10.0.0.0/24 -j {end}"));
    let report = compare(&rules("ACCEPT"), &rules("DROP"));
    assert_eq!(shown(&report), ["10.0.0.0/24 → any: ACCEPT → DROP"]);
    assert_eq!(report.places[0].differences[0].except.len(), 9);
}

/// What one evaluation does that counts: verdict, notes, residual matches that count; by name.
fn treatment(oracle: &Oracle<'_>, evaluation: &Evaluation) -> (String, Vec<String>, Vec<String>) {
    let rules = oracle.ruleset();
    let mut notes = Vec::new();
    let mut asked = Vec::new();
    for event in &evaluation.events {
        let Some(rule) = event.rule().of(rules) else { continue };
        match event {
            Event::Matched(_) => {
                if let hipac_rules::Target::Extension(e) = &rule.target
                    && !matches!(e.name(), "ACCEPT" | "DROP" | "REJECT" | "RETURN")
                {
                    notes.push(e.name().to_owned());
                }
            }
            Event::Residual { match_index, .. } => asked.push(rule.matches[*match_index].name().to_owned()),
        }
    }
    (evaluation.verdict.name.to_string(), notes, asked)
}

fn rule_lines() -> impl Strategy<Value = String> {
    let ip =
        select(vec!["", "-s 10.0.0.0/8", "-s 10.0.0.0/9", "! -s 10.0.0.0/9", "-d 10.0.0.1/255.255.255.249"]);
    let more = select(vec!["", "", "-p 6", "! -p 17", "-i eth+", "! -i eth0", "-f"]);
    let matches = select(vec![
        "",
        "",
        "-m dport22",
        "-m ports",
        "-m tcp",
        "-m tcp-dport22",
        "-m mark1",
        "-m not-mark1",
        "-m ttl9",
        "-m limit",
        "-m string",
        "-m limit -m udp",
        "-m untracked",
        "-m connmark1",
    ]);
    let target = select(vec![
        "-j ACCEPT",
        "-j DROP",
        "-j REJECT",
        "-j LOG",
        "-j MARK1",
        "-j FLIP1",
        "-j TTL9",
        "-j a",
        "-g a",
        "-j b",
        "-j RETURN",
        "-j SAVE",
        "-j NOTRACK",
        "",
    ]);
    (ip, more, matches, target).prop_map(|(a, b, c, d)| format!("{a} {b} {c} {d}"))
}

/// A ruleset, and a changed one.
fn pairs() -> impl Strategy<Value = (String, String)> {
    let lines = || prop::collection::vec(rule_lines(), 0..5);
    let chains = |rule: &str, ends: &str| {
        // Chain b leads nowhere, a leads to b: no loops.
        let refused: &[&str] = if ends == "b" { &["-j a", "-g a", "-j b"] } else { &["-j a", "-g a"] };
        refused.iter().any(|r| rule.contains(r))
    };
    (lines(), lines(), lines(), 0..3usize, rule_lines(), any::<prop::sample::Index>(), any::<bool>())
        .prop_map(move |(forward, mut a, mut b, change, line, index, policy)| {
            a.retain(|r| !chains(r, "a"));
            b.retain(|r| !chains(r, "b"));
            let text = |forward: &[String], policy: bool| {
                let policy = if policy { "DROP" } else { "ACCEPT" };
                let rules = |rules: &[String]| {
                    rules
                        .iter()
                        .map(|r| if r.trim().is_empty() { "-j LOG" } else { r.trim() }.to_owned() + "\n")
                        .collect::<String>()
                };
                format!("FORWARD {policy}\n{}a\n{}b\n{}", rules(forward), rules(&a), rules(&b))
            };
            let mut changed = forward.clone();
            match change {
                0 => changed.insert(index.index(forward.len() + 1), line),
                1 if !forward.is_empty() => drop(changed.remove(index.index(forward.len()))),
                2 if forward.len() > 1 => changed.swap(0, index.index(forward.len())),
                _ => {}
            }
            (text(&forward, policy), text(&changed, policy || change == 2))
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn differences_are_exactly_where_the_oracles_differ((old, new) in pairs(), seed: u64) {
        let (old, new) = (filter(&old), filter(&new));
        let report = compare(&old, &new);
        let (old, new) = (oracle(&old).unwrap(), oracle(&new).unwrap());
        for drawer in [Drawer::new(&old, seed), Drawer::new(&new, seed)] {
            for case in drawer.block(0) {
                for script in [Script::AllHold, Script::NoneHolds] {
                    let of = |o: &Oracle<'_>| {
                        treatment(o, &o.evaluate(TableKind::Filter, Hook::Forward, &case.packet, &mut script.play()))
                    };
                    let (x, y) = (of(&old), of(&new));
                    let found = report.places[0].of_packet(&case.packet);
                    let holds = |d: &&&super::Difference| d.conditions.iter().all(|c| {
                        c.ends_with("does not hold") == (script == Script::NoneHolds)
                    });
                    // Where a residual match was left out of the conditions, both ways must agree.
                    let found = found.iter().filter(holds).count();
                    if found > 0 {
                        prop_assert_ne!(&x, &y, "{:?} {:#?}", case.packet, report.places[0].of_packet(&case.packet));
                    } else if script == Script::NoneHolds {
                        prop_assert_eq!(&x, &y, "{:?}", case.packet);
                    }
                }
            }
        }
    }
}

/// So many rules whose addresses meet each other here and there.
fn many_rules(changed: bool) -> Ruleset {
    let line = |i: u32| {
        let end = ["ACCEPT", "DROP", "REJECT"][((i / 7) % 3) as usize];
        let guard = if i.is_multiple_of(11) { "-m string " } else { "" };
        format!(
            "-s 10.{}.{}.0/{} -d 10.{}.0.0/16 {guard}-j {end}\n",
            i % 13,
            i * 7 % 256,
            20 + i % 9,
            i * 3 % 5
        )
    };
    let kept = |i: &u32| !changed || i % 97 != 5;
    let text: String = (0..900).filter(kept).map(line).collect();
    filter(&format!("FORWARD DROP\n{text}"))
}

#[test]
fn differences_and_limits_do_not_depend_on_the_number_of_threads() {
    let (old, new) = (many_rules(false), many_rules(true));
    let (old, new) = (oracle(&old).unwrap(), oracle(&new).unwrap());
    let with = |threads: usize, options: Options| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let report = pool.install(|| diff(&old, &new, &FORWARD, &options, &mut |_| true)).unwrap();
        let place = &report.places[0];
        format!("{:?} {:?} {}", place.differences, place.undecided, place.regions)
    };
    let all = Options::default();
    let alone = with(1, all);
    assert!(alone.matches("words").count() > 5 && alone.contains("None"), "{alone}");
    assert_eq!(with(2, all), alone);
    assert_eq!(with(5, all), alone);
    // What is left undecided is the same, too.
    for limited in [Options { work_max: 5_000, ..all }, Options { regions_max: 3, ..all }] {
        let alone = with(1, limited);
        assert!(alone.contains("Undecided"), "{alone}");
        assert_eq!(with(3, limited), alone);
    }
}
