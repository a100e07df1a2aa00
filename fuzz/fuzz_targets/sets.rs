//! Any bytes are read as IP sets without a panic, and rules over what was read mean the same compiled.
#![no_main]

use hipac_fuzz::{hold, small};
use hipac_rules::ipset::Sets;
use hipac_rules::{Family, ParseOptions, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let (sets, _) = Sets::read(text);
    if sets.iter().map(|s| s.len()).sum::<usize>() > 2_000 {
        return; // a range of ports with a range of addresses: the oracle walks them all
    }
    for family in [Family::V4, Family::V6] {
        let mut rules = String::from("*filter\n:FORWARD DROP\n");
        for (set, flags) in
            sets.iter().take(6).zip(["src", "dst,dst,dst", "src,src", "src,dst,src"].iter().cycle())
        {
            rules.push_str(&format!("-A FORWARD -m set --match-set \"{}\" {flags} -j ACCEPT\n", set.name));
        }
        rules.push_str("COMMIT\n");
        let mut ruleset = parse(&rules, &ParseOptions { family: Some(family), ..small() }).ruleset;
        sets.bind(&mut ruleset);
        hold(&ruleset, 200);
    }
});
