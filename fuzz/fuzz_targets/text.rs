//! Any text that reads without an error means the same compiled: every match and target of the
//! registry, however unusual its values.
#![no_main]

use hipac_fuzz::{hold, small};
use hipac_rules::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let parsed = parse(text, &small());
    if !parsed.has_errors() {
        hold(&parsed.ruleset, text.len() as u64);
    }
});
