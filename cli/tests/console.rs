//! Console blocks do what they show: those of the README, and those of `tests/cmd`.
//!
//! They run in a folder that holds the example rulesets and nothing else. After a wanted change
//! of the output, `TRYCMD=overwrite cargo test --test console` writes the blocks anew.

use std::path::Path;

#[test]
fn console_blocks_do_what_they_show() {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let here = tempfile::tempdir().expect("a folder for the examples");
    for example in std::fs::read_dir(crate_folder.join("examples")).expect("examples") {
        let example = example.expect("an example");
        std::fs::copy(example.path(), here.path().join(example.file_name())).expect("a copy");
    }
    // The only test of its process: nobody else minds where it stands.
    std::env::set_current_dir(here.path()).expect("the folder made above");
    trycmd::TestCases::new()
        .env("COLUMNS", "80")
        .case(crate_folder.join("../README.md"))
        .case(crate_folder.join("tests/cmd/*.trycmd"))
        .run();
}
