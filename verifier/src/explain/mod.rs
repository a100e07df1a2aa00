//! Why a packet ends as it does, and what would have to differ.
//!
//! - [`trace`](trace()) walks the chains like the oracle, and keeps for each rule *why*: the first test that
//!   failed and the value it failed on, or what the rule did.
//! - [`why_not`](why_not()) says what would have to differ for a rule to match, and for another verdict.
//! - [`Way`] strings chains of several tables together in the order in which a packet meets them.

pub mod kernel;
pub mod trace;
pub mod way;
pub mod why_not;

pub use trace::{Does, Step, Trace, trace};
pub use way::Way;
pub use why_not::{WhyNot, why_not};
