//! Real rulesets and the literature's filter sets, compiled and held against the oracle.
//!
//! The folder is named by `HIPAC_CORPUS`; without it these tests say so and pass. `HIPAC_PACKETS`
//! says how many packets are asked of each ruleset (2,000).

mod common;

use common::exam::Exam;
use common::{agree, compile_roomy, corpus, files};
use hipac_bench_data::classbench::read_filters;
use hipac_bench_data::ruleset_of;
use hipac_compiler::{Counting, Options, compile};
use hipac_rules::{ParseOptions, parse};
use hipac_verifier::{Oracle, OracleError};

fn packets() -> u64 {
    std::env::var("HIPAC_PACKETS").ok().and_then(|n| n.parse().ok()).unwrap_or(2_000)
}

#[test]
fn every_real_ruleset_means_what_it_says() {
    let Some(corpus) = corpus() else { return };
    let (mut rulesets, mut rules, mut flat_rules, mut bytes, mut refused) = (0, 0, 0, 0, 0);
    for path in ["rulesets", "rulesets-fixed"].iter().flat_map(|f| files(&corpus.join(f))) {
        let text = std::fs::read(&path).expect("a readable file");
        let parsed = parse(&text, &ParseOptions::default());
        let name = path.file_name().unwrap_or_default().display();
        let oracle = match Oracle::new(&parsed.ruleset) {
            Ok(oracle) => oracle,
            Err(error) => {
                check_refused(&parsed, &error);
                println!("{name}: {error}");
                refused += 1;
                continue;
            }
        };
        println!("{name}: {} rules", parsed.ruleset.rule_count());
        let exam = Exam::drawn(&oracle, packets());
        for counting in [Counting::Exact, Counting::Deciding] {
            let compiled = compile_roomy(&parsed.ruleset, counting);
            if counting == Counting::Exact {
                rulesets += 1;
                rules += compiled.cost.rules;
                flat_rules += compiled.cost.flat_rules;
                bytes += compiled.cost.image_bytes;
            }
            agree(&exam, &parsed.ruleset, compiled.image, counting);
        }
    }
    println!(
        "{rulesets} rulesets of {rules} rules became {flat_rules} flat rules in {bytes} bytes and agree on {} \
         packets each; {refused} were refused by both sides",
        packets()
    );
    assert!(rulesets > 0, "the corpus has no rulesets");
}

/// What has no oracle has no image either, and the reader has found an error in it.
#[track_caller]
fn check_refused(parsed: &hipac_rules::Parsed, error: &OracleError) {
    assert!(parsed.has_errors(), "the reader found no error, yet: {error}");
    assert!(compile(&parsed.ruleset, &Options::default()).is_err(), "the compiler takes it, yet: {error}");
}

/// Bytes that the forest of 100,000 filters may take.
const STRUCTURE_BYTES_MAX: usize = 16 << 20;

#[test]
fn the_literatures_filter_sets_stay_small_and_mean_what_they_say() {
    let Some(corpus) = corpus() else { return };
    for set in ["acl1_10k", "fw1_10k", "ipc1_10k", "acl1_100k", "fw1_100k", "ipc1_100k"] {
        let file = std::fs::File::open(corpus.join(format!("classbench/{set}.rules"))).expect("a filter set");
        let filters = read_filters(std::io::BufReader::new(file)).expect("filters");
        let ruleset = ruleset_of(&filters).expect("rules");
        let compiled = compile_roomy(&ruleset, Counting::Exact);
        let bytes = compiled.cost.structure_bytes;
        println!("{set}: {} filters in {bytes} bytes, {}", filters.len(), compiled.cost.image_bytes);
        assert!(bytes <= STRUCTURE_BYTES_MAX, "{set} takes {bytes} bytes, {STRUCTURE_BYTES_MAX} are allowed");
        let oracle = Oracle::new(&ruleset).expect("an oracle");
        agree(&Exam::drawn(&oracle, packets() / 10), &ruleset, compiled.image, Counting::Exact);
    }
}
