//! Inputs to test and measure with: filter sets, rulesets and traces, read or made from a seed.
//!
//! ```text
//!   seed file ─┐                                   ┌▶ ClassBench files
//!   family    ─┴▶ classbench_gen ─┐                │
//!                 hostile ────────┴▶ filters ──────┼▶ trace
//!   ClassBench files ────────────────▶             └▶ Ruleset
//!
//!                 iptables_gen ────▶ text of iptables-save
//! ```
//!
//! **Same seed, same bytes**, on every machine and in every version: the stream of random bytes
//! is ChaCha's, everything drawn from it is integer arithmetic written here, and no result hangs
//! on the order of a hash table. Tests pin digests of what is made.
//!
//! ```
//! use hipac_bench_data::{FilterFamily, classbench_gen, trace};
//!
//! let options = classbench_gen::Options::new(1000, 42);
//! let filters = classbench_gen::generate(&FilterFamily::Access.parameters(), &options)?;
//! let packets = trace::generate(&filters, &trace::Options::new(5000, 42))?;
//! assert_eq!((filters.len(), packets.len()), (1000, 5000));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod classbench;
pub mod classbench_gen;
pub mod edits;
pub mod families;
pub mod filter;
pub mod hostile;
pub mod iptables_gen;
pub mod parameters;
pub mod random;
pub mod ruleset;
pub mod seed_file;
pub mod statistics;
mod text;
pub mod trace;

pub use edits::EditMaker;
pub use families::FilterFamily;
pub use filter::{Filter, Flags, PortClass, PortRange, Prefix, TracePacket};
pub use parameters::Parameters;
pub use random::{Draw, Share, Weighted};
pub use ruleset::{ruleset_of, ruleset_of_family};
pub use seed_file::read_seed_file;
pub use text::{Fault, LINES_MAX, ReadError};
