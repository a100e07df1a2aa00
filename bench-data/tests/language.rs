//! What is made here is read by the rules' language, and printed again the same.

use hipac_bench_data::classbench_gen;
use hipac_bench_data::hostile::Hostile;
use hipac_bench_data::iptables_gen::{Options, generate};
use hipac_bench_data::{Filter, FilterFamily, ruleset_of};
use hipac_rules::{Family, ParseOptions, PrintOptions, Ruleset, parse, print};

/// Reads `text`, which must have no fault.
#[track_caller]
fn read(text: &str) -> Ruleset {
    let parsed = parse(text, &ParseOptions::default());
    assert!(parsed.faults.is_empty(), "{}", parsed.faults[0]);
    parsed.ruleset
}

/// The rules of a text, chain by chain: only declarations may change their order.
fn rules(text: &str) -> Vec<&str> {
    let mut rules: Vec<&str> = text.lines().filter(|line| line.contains("-A ")).collect();
    rules.sort_by_key(|rule| rule.split_once("-A ").and_then(|(_, rest)| rest.split(' ').next()));
    rules
}

#[test]
fn generated_rulesets_are_read_without_a_fault_and_printed_the_same() {
    for family in [Family::V4, Family::V6] {
        for (size, seed) in [(0, 1), (1, 1), (100, 1), (2000, 2), (20_000, 3)] {
            let text = generate(&Options { counters: true, ..Options::new(family, size, seed) }).unwrap();
            let ruleset = read(&text);
            assert_eq!((ruleset.family, ruleset.rule_count()), (family, size as usize));
            let printed = print(&ruleset, &PrintOptions { counters: true, header: true });
            let (ours, theirs) = (rules(&text), rules(&printed));
            for (one, other) in ours.iter().zip(&theirs) {
                assert_eq!(one, other, "{family:?}, {size} rules");
            }
            assert_eq!(ours.len(), theirs.len());
        }
    }
}

#[track_caller]
fn check_filters(filters: &[Filter]) {
    let ruleset = ruleset_of(filters).unwrap();
    let printed = print(&ruleset, &PrintOptions::default());
    let again = read(&printed);
    assert_eq!(again.rule_count(), filters.len());
    assert_eq!(print(&again, &PrintOptions::default()), printed);
}

#[test]
fn filter_sets_are_rulesets_that_can_be_printed_and_read() {
    for family in FilterFamily::ALL {
        let options = classbench_gen::Options::new(1000, 1);
        check_filters(&classbench_gen::generate(&family.parameters(), &options).unwrap());
    }
    for kind in Hostile::ALL {
        check_filters(&kind.generate(1000, 1).unwrap());
    }
}
