//! The compiler: a ruleset becomes an image.
//!
//! ```text
//!   Ruleset ─lower▶ flat rules ─recode, expand▶ boxes ─forest▶ tree ─emit▶ arena ─▶ image
//! ```
//!
//! | module | does |
//! |---|---|
//! | [`condition`] | native tests as sets of intervals |
//! | [`lower`] | chains to flat lists: unfold, call, residual matches, effects |
//! | [`recode`], [`expand`] | flat rules to boxes on the key's axes |
//! | [`forest`] | boxes to nodes and leaves, within a memory budget |
//! | [`tables`], [`compile()`] | everything into one image |
//! | [`live`] | rules that change while packets are classified |

pub mod compile;
pub mod condition;
pub mod expand;
pub mod forest;
pub mod interval;
pub mod live;
pub mod lower;
pub mod options;
pub mod recode;
pub mod sets;
pub mod tables;

pub use compile::{CompileError, Compiled, Cost, EntryCost, compile};
pub use live::{LiveError, LiveOptions, LiveTable};
pub use options::{Counting, Options};

/// The README's program is compiled and run like any other example.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
