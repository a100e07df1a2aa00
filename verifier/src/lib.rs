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
//! ```
//! use hipac_rules::{Hook, ParseOptions, TableKind, parse};
//! use hipac_verifier::{Options, Oracle, Script, check, packet_text};
//!
//! let text = |port: u16| format!("*filter\n:FORWARD DROP\n-A FORWARD -p tcp --dport {port}: -j ACCEPT\nCOMMIT\n");
//! let right = parse(text(1024), &ParseOptions::default()).ruleset;
//! let oracle = Oracle::new(&right)?;
//!
//! // One packet.
//! let packet = packet_text::parse("-p tcp --dport 1024", right.family)?;
//! let evaluation =
//!     oracle.evaluate(TableKind::Filter, Hook::Forward, &packet, &mut Script::AllHold.play());
//! assert_eq!(evaluation.verdict.show(&right).to_string(), "ACCEPT by filter/FORWARD rule 1 (line 3)");
//!
//! // Many, against something that is wrong in one place.
//! let wrong = parse(text(1025), &ParseOptions::default()).ruleset;
//! let report = check(&oracle, &Oracle::new(&wrong)?, &Options::default(), &mut |_| {});
//! assert_eq!(
//!     report.mismatches[0].show(&right).to_string(),
//!     "\
//! filter/FORWARD: -p tcp --dport 1024
//!   ▶ oracle   matched filter/FORWARD rule 1 (line 3)
//!     oracle   … ACCEPT by filter/FORWARD rule 1 (line 3)
//!   ▶ subject  DROP by policy"
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! This crate shares no code with the compiler and does not depend on it, so that no mistake
//! can be on both sides. It does no I/O.

pub mod agree;
pub mod certificate;
pub mod diff;
pub mod draw;
pub mod explain;
pub mod field_text;
pub mod fields;
pub mod image_subject;
#[cfg(all(feature = "kernel", target_os = "linux"))]
pub mod kernel;
pub mod lint;
mod members;
pub mod oracle;
pub mod outcomes;
pub mod packet_text;
mod partition;
pub mod proof;
pub mod query;
pub mod rule_id;
mod shrink;
mod space;
pub mod subject;
#[cfg(test)]
mod testing;
mod unfold;

pub use agree::{Compared, Mismatch, Options, Progress, Report, check};
pub use draw::{Case, Drawer};
pub use image_subject::{ImageSubject, Stranger};
pub use oracle::{Oracle, OracleError};
pub use outcomes::{Exact, Outcomes, Script};
pub use rule_id::{Place, RuleId};
pub use subject::{By, Evaluation, Event, Subject, Verdict};
