//! Certificates: written for what the compiler makes, accepted by the second checker, and refused where
//! anything is not so.

mod common;

use std::path::{Path, PathBuf};

use common::{compile_roomy, images_of_all_sizes, read, read_as};
use hipac_classifier::Image;
use hipac_compiler::Counting;
use hipac_rules::{ParseOptions, parse};
use hipac_verifier::certificate::{check, write};
use hipac_verifier::{Compared, Oracle};

fn compared(counting: Counting) -> Compared {
    match counting {
        Counting::Exact => Compared::All,
        Counting::Deciding => Compared::Deciding,
    }
}

fn corpus() -> Option<PathBuf> {
    let folder = std::env::var_os("HIPAC_CORPUS").map(PathBuf::from);
    if folder.is_none() {
        println!("skipped: HIPAC_CORPUS is not set");
    }
    folder
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the corpus has this folder");
    let mut found: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    found.sort();
    found
}

#[test]
fn every_real_ruleset_has_a_certificate_that_is_accepted() {
    let Some(corpus) = corpus() else { return };
    let mut failed = Vec::new();
    let mut count = 0;
    let only = std::env::var("HIPAC_ONLY").unwrap_or_default();
    for path in ["rulesets", "rulesets-fixed"].iter().flat_map(|f| files(&corpus.join(f))) {
        let text = std::fs::read(&path).expect("a readable file");
        let ruleset = parse(&text, &ParseOptions::default()).ruleset;
        let name = path.file_name().unwrap_or_default().display().to_string();
        if Oracle::new(&ruleset).is_err() || !name.contains(&only) {
            continue;
        }
        for counting in [Counting::Exact, Counting::Deciding] {
            let compiled = compile_roomy(&ruleset, counting);
            let image = Image::open(compiled.image).expect("the compiler writes images that open");
            count += 1;
            let certificate = match write(&ruleset, &text, &image, compared(counting)) {
                Ok(certificate) => certificate,
                Err(refused) => {
                    failed.push(format!("{name}, {counting:?}: {refused}"));
                    continue;
                }
            };
            if let Err(refused) = check(&ruleset, &text, &image, &certificate) {
                failed.push(format!("{name}, {counting:?}: not accepted: {refused}"));
            }
        }
    }
    println!("{count} images");
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}
