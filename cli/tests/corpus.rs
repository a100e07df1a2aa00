//! Real rulesets through the commands: `HIPAC_CORPUS` names their folder.

mod common;

use std::path::{Path, PathBuf};

use common::hipac;

/// Packets drawn for each file: enough to meet the rules of most, few enough for every run.
const PACKETS: &str = "2000";

fn rulesets() -> Vec<PathBuf> {
    let Some(corpus) = std::env::var_os("HIPAC_CORPUS") else {
        println!("skipped: HIPAC_CORPUS is not set");
        return vec![];
    };
    let folder = |name: &str| {
        let entries = std::fs::read_dir(Path::new(&corpus).join(name)).expect("a folder of the corpus");
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
        paths.sort();
        paths
    };
    [folder("rulesets"), folder("rulesets-fixed"), folder("kernel-resaved")].concat()
}

#[test]
fn real_rulesets_are_checked_and_their_images_do_what_they_say() {
    let rulesets = rulesets();
    for path in &rulesets {
        let path = path.to_str().expect("a name in UTF-8");
        let check = hipac(&["check", path]);
        assert!(matches!(check.code, Some(0 | 1)), "{path}: {}", check.stderr);
        let verify = hipac(&["verify", path, "--packets", PACKETS]);
        assert_eq!(verify.code, Some(0), "{path}: {}{}", verify.stdout, verify.stderr);
    }
    println!("{} rulesets", rulesets.len());
}
