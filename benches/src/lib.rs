//! What the benches share: sets of rules with traces, and a clock.
//!
//! | sets | sizes | where from |
//! |---|---|---|
//! | `access` `transit` `firewall` `perimeter` `chain` `links` | 1k, 10k, 100k | generated, seed 1 |
//! | `boxes` `cross` `ports` `nested` `only-…` | 1k, 10k | generated to hurt, seed 1 |
//! | `acl1_10k` … | as the file says | `classbench/` of the folder that `HIPAC_CORPUS` names |
//!
//! `cargo bench -p hipac-benches` runs everything in some minutes; `… --bench batch -- 'fw|acl'`
//! picks a bench and sets. Without `--bench`, as under `cargo test --benches`, each bench runs
//! once over the smallest sets: that shows that it works and takes no time.

mod clock;
mod ready;
mod sets;

pub use clock::{cpu_s, take_turns};
pub use ready::Ready;
pub use sets::{Set, Source, corpus};

/// The run is a measurement, not a test of the bench.
pub fn is_measurement() -> bool {
    std::env::args().any(|arg| arg == "--bench")
}
