//! Rules, and transactions one after the other, each a text that `iptables-restore --noflush` would
//! take: a live table does what the plain vectors do, whatever it runs out of, and is proved equal.
//!
//! ```text
//!   byte 0: bit 0 a small budget │ bit 1 built anew each time │ the rest: memory that the last
//!           transaction finds, in 256 bytes, if it is not 0
//!   text of rules --- edits --- edits …
//! ```
#![no_main]

use hipac_classifier::Image;
use hipac_compiler::{LiveError, LiveOptions, LiveTable};
use hipac_fuzz::small;
use hipac_rules::edit::{Edit, apply_all, parse_edits};
use hipac_rules::{ParseOptions, PrintOptions, Ruleset, parse, print};
use hipac_verifier::Oracle;
use hipac_verifier::proof::{Refutation, prove};
use libfuzzer_sys::fuzz_target;

/// Transactions of one input.
const TRANSACTIONS_MAX: usize = 8;

fuzz_target!(|input: &[u8]| {
    let Some((&flags, text)) = input.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let mut parts = text.split("---");
    let parsed = parse(parts.next().unwrap_or_default(), &small());
    if parsed.has_errors() || Oracle::new(&parsed.ruleset).is_err() {
        return;
    }
    let mut plain = parsed.ruleset;
    let memory_bytes_max = if flags & 1 == 0 { 16 << 20 } else { 300 << 10 };
    let options = LiveOptions { memory_bytes_max, background: false, ..LiveOptions::default() };
    let Ok(live) = LiveTable::open(&plain, &options) else { return };
    hold(&live, &plain);
    let texts: Vec<&str> = parts.take(TRANSACTIONS_MAX).collect();
    for (i, text) in texts.iter().enumerate() {
        let options = ParseOptions { family: Some(plain.family), ..small() };
        let Ok(groups) = parse_edits(text, &options).into_result() else { continue };
        let edits: Vec<Edit> = groups.into_iter().flat_map(|group| group.edits).collect();
        if i + 1 == texts.len() && flags >> 2 > 0 {
            live.run_out_after(u64::from(flags >> 2) << 8);
        }
        let next = apply_all(&plain, &edits);
        match (live.apply(&edits), next) {
            // What goes over a limit changes nothing.
            (Err(LiveError::Memory { .. } | LiveError::Compile(_)), _) => {}
            (Ok(_), Ok(next)) => plain = next,
            (Err(live), Err(plain)) => assert_eq!(live.to_string(), plain.to_string()),
            (live, plain) => panic!("live {live:?}, plain {plain:?}"),
        }
        if flags & 2 != 0 {
            let _ = live.compact();
        }
        hold(&live, &plain);
    }
});

/// The table has these rules, within its budget, and is proved to mean what they say.
fn hold(live: &LiveTable, plain: &Ruleset) {
    let options = PrintOptions { counters: true, ..PrintOptions::default() };
    assert_eq!(print(&live.ruleset(), &options), print(plain, &options));
    let stats = live.stats();
    assert!(stats.structure_bytes <= stats.memory_bytes_max, "{stats:?}");
    let Ok(frozen) = live.freeze() else { return };
    let image = Image::open(frozen).expect("what is frozen opens");
    image.audit().expect("what is frozen passes the audit");
    match prove(plain, &image, &Default::default()) {
        Ok(_) | Err(Refutation::Rules(_)) => {}
        Err(refutation) => panic!("{}\n{}", refutation.show(plain), print(plain, &options)),
    }
}
