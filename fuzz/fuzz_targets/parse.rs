//! Any bytes are read without a panic; what is read without a fault prints to a text that reads
//! the same.
#![no_main]

use hipac_fuzz::small;
use hipac_rules::{PrintOptions, Ruleset, parse, print, render_all};
use libfuzzer_sys::fuzz_target;

/// Without lines, which a print does not keep.
fn without_lines(mut ruleset: Ruleset) -> Ruleset {
    for chain in ruleset.tables.iter_mut().flat_map(|t| &mut t.chains) {
        chain.line = 0;
        chain.rules.iter_mut().for_each(|rule| rule.line = 0);
    }
    ruleset
}

fuzz_target!(|text: &[u8]| {
    let parsed = parse(text, &small());
    let shown = render_all(&parsed.faults, "rules", text);
    assert_eq!(shown.is_empty(), parsed.faults.is_empty());
    let printed = print(&parsed.ruleset, &PrintOptions { counters: true, header: true });
    let again = parse(&printed, &small());
    if parsed.faults.is_empty() {
        assert!(again.faults.is_empty(), "{}\n{printed}", again.faults[0]);
        assert!(without_lines(parsed.ruleset) == without_lines(again.ruleset), "{printed}");
    }
});
