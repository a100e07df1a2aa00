//! What compiling takes at its peak, in bytes asked of the allocator.
//!
//! A binary of its own: the allocator counts for the whole process, so there is one test.
#![allow(unsafe_code)] // an allocator is unsafe by its signature; it hands all through

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use common::{bytes_needed, compile_roomy};
use hipac_bench_data::hostile::Hostile;
use hipac_bench_data::{FilterFamily, classbench_gen, iptables_gen, ruleset_of};
use hipac_compiler::{Counting, Options, compile};
use hipac_rules::{Family, Ruleset};

/// The system's allocator, with a count of what it has given out.
struct Counted;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator with the arguments it came with, and its
// answer goes back: what holds for it holds here. Counting touches no memory that it hands out.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(now, Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`, and `at` came from `System`.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTED: Counted = Counted;

/// What `make` gives, the bytes that it left behind, and those that it took at its peak.
fn measured<T>(make: impl FnOnce() -> T) -> (T, usize, usize) {
    let before = NOW.load(Relaxed);
    PEAK.store(before, Relaxed);
    let made = make();
    (made, NOW.load(Relaxed) - before, PEAK.load(Relaxed) - before)
}

/// Compiles with much memory, with as little as will do, and with something between; the bound is
/// the one that `Options` documents.
fn check(name: &str, ruleset: impl FnOnce() -> Ruleset) {
    let (ruleset, rules_bytes, _) = measured(ruleset);
    let fastest = compile_roomy(&ruleset, Counting::Exact).image.len();
    let needed = bytes_needed(&ruleset, Counting::Exact);
    for memory_bytes_max in [fastest, needed, needed.midpoint(fastest)] {
        let options = Options { memory_bytes_max, ..Options::default() };
        let (_, _, peak) = measured(|| compile(&ruleset, &options).expect("it fits"));
        let bound = 4 * memory_bytes_max + rules_bytes;
        println!(
            "{name}: the rules take {rules_bytes} bytes; allowed {memory_bytes_max}: \
             peak {peak}, {:.0} % of the bound",
            100.0 * peak as f64 / bound as f64
        );
        assert!(peak <= bound, "{name}: {peak} bytes at the peak, {bound} are documented");
    }
}

#[test]
fn compiling_takes_at_most_four_times_the_memory_allowed_and_the_rules() {
    for family in [FilterFamily::Transit, FilterFamily::Firewall] {
        let options = classbench_gen::Options::new(4000, 1);
        let filters = classbench_gen::generate(&family.parameters(), &options).expect("a sound family");
        check(family.name(), || ruleset_of(&filters).expect("filters are rules"));
    }
    for kind in [Hostile::Boxes, Hostile::Nested] {
        let filters = kind.generate(2000, 1).expect("few enough");
        check(kind.name(), || ruleset_of(&filters).expect("filters are rules"));
    }
    for family in [Family::V4, Family::V6] {
        let options = iptables_gen::Options::new(family, 2000, 1);
        let text = iptables_gen::generate(&options).expect("few enough");
        check(family.name(), || common::read(&text));
    }
}
