//! What `lint` finds in real rulesets, confirmed: each rule is taken out, and the two are compared.
//!
//! Reads the folder that `HIPAC_CORPUS` names; skipped, saying so, without one.

use hipac_rules::{Hook, ParseOptions, Ruleset, TableKind, parse};
use hipac_verifier::diff::{self, Entry};
use hipac_verifier::lint::{self, Kind};
use hipac_verifier::{By, Oracle, RuleId};

/// Longer files take long, two walks a finding: `HIPAC_FINDINGS_RULES` says how long they may be.
fn rules_max() -> usize {
    std::env::var("HIPAC_FINDINGS_RULES").ok().and_then(|n| n.parse().ok()).unwrap_or(120)
}

fn rulesets() -> Vec<(String, Ruleset)> {
    let Some(corpus) = std::env::var_os("HIPAC_CORPUS") else {
        println!("skipped: HIPAC_CORPUS names no folder of rulesets");
        return Vec::new();
    };
    let folder = std::path::Path::new(&corpus).join("rulesets");
    let files = std::fs::read_dir(folder).expect("the folder of rulesets");
    let mut rulesets: Vec<(String, Ruleset)> = files
        .map(|file| {
            let path = file.expect("an entry").path();
            let text = std::fs::read(&path).expect("a ruleset");
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (name, parse(&text, &ParseOptions::default()).ruleset)
        })
        .filter(|(_, ruleset)| ruleset.rule_count() <= rules_max())
        .collect();
    rulesets.sort_by(|a, b| a.0.cmp(&b.0));
    rulesets
}

fn entries(table: TableKind) -> Vec<(Entry, Entry)> {
    table.hooks().iter().map(|&hook: &Hook| ((table, hook), (table, hook))).collect()
}

fn without(ruleset: &Ruleset, rule: RuleId) -> Ruleset {
    let mut fewer = ruleset.clone();
    for table in fewer.tables.iter_mut().filter(|t| t.kind == rule.table()) {
        table.chains[rule.chain()].rules.remove(rule.rule());
    }
    fewer
}

#[test]
fn findings_in_real_rulesets_change_nothing_when_removed() {
    let mut confirmed = 0;
    for (name, ruleset) in rulesets() {
        let Ok(oracle) = Oracle::new(&ruleset) else { continue };
        let findings = lint::lint(&oracle, &lint::Options::default(), &mut |_| true).unwrap();
        for finding in findings {
            let wanted =
                matches!(finding.kind, Kind::DeadRule | Kind::RedundantRule | Kind::ContradictoryRule);
            let Some(rule) = finding.rule.filter(|_| wanted) else { continue };
            let fewer = without(&ruleset, rule);
            let other = Oracle::new(&fewer).unwrap();
            let entries = entries(rule.table());
            let report =
                diff::diff(&oracle, &other, &entries, &diff::Options::default(), &mut |_| true).unwrap();
            for place in &report.places {
                assert_eq!(place.undecided, None, "{name}");
                for difference in &place.differences {
                    // No packet matches a dead rule; one whose header is cut off may still end there.
                    let cut_off = matches!(difference.old.by, By::Malformed(by) if by == rule);
                    assert!(
                        cut_off && finding.kind != Kind::RedundantRule,
                        "{name}: {} {}: {}",
                        finding.kind.name(),
                        rule.place(&ruleset),
                        difference.words
                    );
                }
            }
            confirmed += 1;
        }
    }
    println!("{confirmed} findings confirmed");
}

#[test]
fn real_rulesets_equal_their_canonical_form() {
    for (name, ruleset) in rulesets() {
        let options = ParseOptions { family: Some(ruleset.family), ..ParseOptions::default() };
        let again = parse(ruleset.to_string().as_bytes(), &options).ruleset;
        let (Ok(old), Ok(new)) = (Oracle::new(&ruleset), Oracle::new(&again)) else { continue };
        let entries = diff::entries(&old, &new);
        let report = diff::diff(&old, &new, &entries, &diff::Options::default(), &mut |_| true).unwrap();
        assert!(report.is_equal(), "{name}");
    }
}
