//! Real rulesets: what no field of a packet decides is evaluated as the kernel does, rule by rule.
//!
//! The folder is named by `HIPAC_CORPUS`; without it this test says so and passes.

use std::path::{Path, PathBuf};

use hipac_host::{Options, State, Time};
use hipac_rules::{ParseOptions, Severity, parse};

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder of the corpus");
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    found.sort();
    found
}

/// Of the rulesets that the tools load. Sets lie beside them: given, they are bits of a key.
#[test]
fn every_rule_of_real_rulesets_is_decided_by_fields_or_evaluated() {
    let Some(corpus) = std::env::var_os("HIPAC_CORPUS").map(PathBuf::from) else {
        println!("skipped: HIPAC_CORPUS is not set");
        return;
    };
    let (mut all, mut whole, mut rules, mut residual) = (0, 0, 0, 0);
    let mut left = Vec::new();
    for twin in files(&corpus.join("kernel-resaved")) {
        let name = twin.file_name().expect("a name").to_owned();
        let fixed = corpus.join("rulesets-fixed").join(&name);
        let input = if fixed.exists() { fixed } else { corpus.join("rulesets").join(&name) };
        let saved = std::fs::read_to_string(&twin).expect("the file that was saved");
        let family = saved.contains("ip6tables-save").then_some(hipac_rules::Family::V6);
        let text = std::fs::read(&input).expect("the file that was loaded");
        let parsed = parse(&text, &ParseOptions { family, ..ParseOptions::default() });
        // A range that runs backwards, which later tools refuse.
        if parsed.faults.iter().any(|fault| fault.severity == Severity::Error) {
            println!("{}: {}", name.display(), parsed.faults[0]);
        }
        let ruleset = parsed.ruleset;
        let state = State::new(&ruleset, Options::default(), Time::default());
        let state = state.unwrap_or_else(|refused| panic!("{}: {refused}", name.display()));
        let left_before = left.len();
        for table in &ruleset.tables {
            for (c, chain) in table.chains.iter().enumerate() {
                for (r, rule) in chain.rules.iter().enumerate() {
                    rules += 1;
                    for (m, extension) in rule.matches.iter().enumerate() {
                        if extension.match_meaning(ruleset.family).residual.is_none() {
                            continue;
                        }
                        residual += 1;
                        if extension.name() != "set" && !state.evaluates((table.kind, c, r), m) {
                            let (name, line) = (name.display(), rule.line);
                            left.push(format!("{name} line {line}: {}", extension.name()));
                        }
                    }
                }
            }
        }
        all += 1;
        whole += usize::from(left.len() == left_before);
    }
    println!(
        "{whole} of {all} files: {rules} rules, {residual} residual matches, all evaluated but {left:#?}"
    );
    assert_eq!(left, [""; 0]);
    assert!(all > 100);
}
