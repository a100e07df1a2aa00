//! Inputs to test and measure with: filter sets, rulesets and traces, read or made from a seed.
//!
//! ```text
//!   seed file ─┐
//!   family    ─┴▶ filters ─┬─▶ trace
//!   hostile   ────▶        └─▶ Ruleset, ClassBench files
//!   iptables  ────▶ text of iptables-save
//! ```
//!
//! **Same seed, same bytes**, on every machine and in every version: the stream of random bytes
//! is ChaCha's, everything drawn from it is integer arithmetic written here, and no result hangs
//! on the order of a hash table. Tests pin digests of what is made.

pub mod classbench;
pub mod classbench_gen;
pub mod families;
pub mod filter;
pub mod hostile;
pub mod iptables_gen;
pub mod parameters;
pub mod random;
pub mod seed_file;
pub mod statistics;
mod text;
pub mod trace;

pub use families::Family;
pub use filter::{Filter, Flags, PortClass, PortRange, Prefix, TracePacket};
pub use parameters::Parameters;
pub use random::{Draw, Share, Weighted};
pub use seed_file::read_seed_file;
pub use text::{Fault, LINES_MAX, ReadError};
