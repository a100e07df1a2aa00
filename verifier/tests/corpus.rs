//! Real rulesets: every one that the parser takes has an oracle, and most of its rules are reached by the
//! packets that are drawn for it. Reads the folder that `HIPAC_CORPUS` names; skipped when it is not set.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use hipac_rules::{ParseOptions, parse};
use hipac_verifier::{Options, Oracle, check};

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<PathBuf> =
        entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| p.is_file()).collect();
    files.sort();
    files
}

#[test]
fn real_rulesets_have_an_oracle_and_their_rules_are_reached() {
    let Some(corpus) = env::var_os("HIPAC_CORPUS").map(PathBuf::from) else {
        println!("skipped: HIPAC_CORPUS names no folder");
        return;
    };
    let (mut files_checked, mut rules, mut matched) = (0, 0, 0);
    for file in ["rulesets", "rulesets-fixed"].iter().flat_map(|folder| files(&corpus.join(folder))) {
        let parsed = parse(fs::read(&file).unwrap(), &ParseOptions::default());
        if parsed.has_errors() {
            continue;
        }
        let name = file.file_name().unwrap_or_default().display();
        let oracle = Oracle::new(&parsed.ruleset).unwrap_or_else(|e| panic!("{name}: {e}"));
        let options = Options { packets: 4_096, ..Options::default() };
        let report = check(&oracle, &oracle, &options, &mut |_| {});
        assert!(report.is_agreement(), "{name}: {}", report.show(&parsed.ruleset));
        assert_eq!(report.given_up, 0, "{name}");
        println!("{:6} of {:6} rules matched: {name}", report.rules_matched, report.rules);
        files_checked += 1;
        // In larger ones, most rules cannot be reached by so few packets.
        if report.rules < 512 {
            rules += report.rules;
            matched += report.rules_matched;
        }
    }
    println!("{files_checked} rulesets; in the smaller ones, {matched} of {rules} rules matched");
    assert!(files_checked > 100, "only {files_checked} rulesets were read without a fault");
    // The others are dead: behind a rule that catches all that they could match.
    assert!(100 * matched > 85 * rules, "{matched} of {rules} rules matched");
}

/// Matches that a state of the host answers, and those that it does not, by name.
fn residual_matches(ruleset: &hipac_rules::Ruleset, counts: &mut std::collections::BTreeMap<String, usize>) {
    let chains = ruleset.tables.iter().flat_map(|t| &t.chains);
    for extension in chains.flat_map(|c| &c.rules).flat_map(|r| &r.matches) {
        if extension.match_meaning(ruleset.family).residual.is_some() {
            *counts.entry(extension.name().to_owned()).or_insert(0) += 1;
        }
    }
}

#[test]
fn what_the_kernel_has_loaded_has_a_state() {
    use hipac_host::{Options as HostOptions, State, Time};
    let Some(corpus) = env::var_os("HIPAC_CORPUS").map(PathBuf::from) else {
        println!("skipped: HIPAC_CORPUS names no folder");
        return;
    };
    let mut counts = std::collections::BTreeMap::new();
    let mut loaded = 0;
    for file in files(&corpus.join("kernel-resaved")) {
        let parsed = parse(fs::read(&file).unwrap(), &ParseOptions::default());
        let name = file.file_name().unwrap_or_default().display();
        residual_matches(&parsed.ruleset, &mut counts);
        if let Err(refused) = State::new(&parsed.ruleset, HostOptions::default(), Time::default()) {
            panic!("{name}: {refused}");
        }
        loaded += 1;
    }
    println!("{loaded} rulesets; residual matches: {counts:?}");
    assert!(loaded > 0);
}
