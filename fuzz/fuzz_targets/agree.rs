//! Small nasty rulesets, chosen by the input, mean the same compiled.
#![no_main]

use hipac_fuzz::{hold, nasty_text, small};
use hipac_rules::{ParseOptions, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&seed, choices)) = input.split_first() else { return };
    let (text, family) = nasty_text(choices);
    let parsed = parse(&text, &ParseOptions { family: Some(family), ..small() });
    assert!(!parsed.has_errors(), "{}\n{text}", parsed.faults[0]);
    hold(&parsed.ruleset, seed.into());
});
