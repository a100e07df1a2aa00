//! Building a forest: boxes in, nodes and leaves out.
//!
//! One tree in which every rule is copied into each interval that it spans takes gigabytes
//! where wide rules overlap: nf-HiPAC's disease. So at each node a rule that would go into many
//! children may be *deferred* to one further subtree of that node, which is searched as well:
//!
//! ```text
//!                 node: source ≤ 9 │ 10–19 │ 20–
//!                      /     │     \       \  deferred
//!   rule 0: 3–5   ──▶ leaf   leaf   leaf    leaf ◀── rule 2: 0–25
//!   rule 1: 8–12  ──▶  ×      ×  (copied)
//! ```
//!
//! [`cut`] weighs expected visits against copies; [`build`] recurses; [`emit`] lays out the
//! bytes, parents before children.

pub mod boxes;
mod build;
mod cut;
mod emit;
mod leaf;

pub use boxes::{Axis, Boxes};
pub use build::{Shape, build};
pub use emit::Arena;
