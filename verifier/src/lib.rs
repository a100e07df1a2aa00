//! The checks that a compiled ruleset means what its rules say.
//!
//! ```text
//!                    ┌──────── oracle: walks the chains, rule by rule ───────┐
//!   Ruleset ─────────┤                                                       ├─ the same events,
//!                    └─ (compiler) ─▶ image ─▶ subject: looks the packet up ─┘  the same verdict?
//!                                                ▲
//!                        packets drawn from the bounds of the rules
//! ```
//!
//! The [`Oracle`] is the meaning of a ruleset: it reads like the description of what the kernel does, and
//! knows nothing of flat rules, boxes or trees. Whatever answers faster is a [`Subject`], and [`check`] holds
//! the two against each other, on packets from a [`Drawer`], until they differ; a difference is shrunk to the
//! smallest packet that shows it and printed in the flags that `iptables` users know.
//!
//! What is compared is the whole evaluation, since a verdict alone hides mistakes: which rules matched, in
//! order (their counters move and their targets run), which residual matches were evaluated, in order
//! (`limit` and `recent` change state when they are), and the verdict with the rule that gave it.
//!
//! This crate shares no code with the compiler and does not depend on it, so that no mistake
//! can be on both sides. It does no I/O.

pub mod agree;
pub mod draw;
pub mod fields;
pub mod image_subject;
pub mod oracle;
pub mod outcomes;
pub mod packet_text;
pub mod rule_id;
mod shrink;
pub mod subject;
#[cfg(test)]
mod testing;

pub use agree::{Compared, Mismatch, Options, Progress, Report, check};
pub use draw::{Case, Drawer};
pub use image_subject::{ImageSubject, Stranger};
pub use oracle::{Oracle, OracleError};
pub use outcomes::{Outcomes, Script};
pub use rule_id::{Place, RuleId};
pub use subject::{By, Evaluation, Event, Subject, Verdict};
