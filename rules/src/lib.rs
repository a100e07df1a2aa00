//! The language of iptables rulesets: text to [`Ruleset`] and back.
//!
//! ```text
//!   text ──parse──▶ Ruleset (tables ▸ chains ▸ rules ▸ matches, target) ──print──▶ text
//!                      │
//!                      └──meaning──▶ tests on packet fields, residual matches, effects
//! ```
//!
//! Nothing here knows how rules are searched. The compiler and the verifier both start from
//! a [`Ruleset`] and share no code beyond it.

pub mod edit;
pub mod fault;
pub mod ipset;
pub mod meaning;
pub mod model;
pub mod names;
pub mod parse;
pub mod print;
pub mod registry;
pub mod value;

pub use edit::{Change, Edit, EditError, ParsedEdits, apply, apply_all, parse_edits};
pub use fault::{Fault, Severity, render, render_all};
pub use meaning::{Clause, Effect, Field, L4Need, MatchMeaning, Residual, TargetMeaning, Test, ValueSet};
pub use model::{
    AddressTest, Chain, Counters, Extension, ExtensionRef, Family, FragmentTest, Hook, InterfaceTest, IpPart,
    Name, Policy, ProtocolTest, Rule, Ruleset, Setting, Table, TableKind, Target,
};
pub use parse::{ParseOptions, Parsed, parse};
pub use print::{PrintOptions, print, print_rule};
pub use value::Value;
