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
//! Large lists begin with a root: a few trees behind direct tables, split by which fields their
//! rules are narrow in.
//!
//! | module | does |
//! |---|---|
//! | [`boxes`] | boxes, regions, windows of the key |
//! | `budget` | which regions are built how small |
//! | `root` | trees, their cells, what each becomes |
//! | `index` | which trees, which bits choose their cells |
//! | `filter` | which bits of a key its gates look at |
//! | `cut` | where a node cuts: expected visits against copies |
//! | `build` | the recursion: prune, stop at a leaf, or cut |
//! | `leaf` | which windows a leaf still has to compare |
//! | `emit` | the bytes, parents before children |

pub mod boxes;
pub mod budget;
mod build;
mod cut;
mod emit;
mod filter;
mod index;
mod leaf;
mod root;

pub use boxes::{Axis, Boxes};
pub use build::Shape;
pub use emit::Arena;
pub use root::{Forest, Measure, Sketch};
