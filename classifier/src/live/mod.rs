//! The live form: a forest that one writer changes while any number of readers look up in it.
//!
//! ```text
//!            Live ──▶ Generation ── one key layout, one block of memory
//!                       │ version ●──────── the last transaction that is to be seen
//!                       │ entries  root of each chain ─┐
//!                       │ flats    label ▶ what to do  │
//!                       ▼                              ▼
//!            memory    [ tables of cells │ nodes, leaves, switches, programs … ]
//!                             cell ──▶ switch ──▶ subtree before version 7
//!                                         └─────▶ subtree since version 7
//! ```
//!
//! A reader **pins** once per batch and reads as of the version that it found: a snapshot, whatever
//! the writer does meanwhile. Nodes and leaves never change while they can be reached. What changes
//! in place is a *slot*, one aligned word of eight bytes: a cell of a table, or an entry's root. The
//! writer puts a [switch](crate::forest::switch) there; all switches of a transaction turn at once,
//! when its version is published. What is no longer reached is used again when the last reader that
//! could be on it has gone, which [`crossbeam_epoch`] tells the writer: readers take no lock, wait for
//! nobody and write to nothing that another thread reads, but for the epoch's own pin.
//!
//! What does not fit into a generation (a new dimension, a larger table) is a new generation: built
//! beside the old one, and exchanged by one store of a pointer.
//!
//! Positions of rules are **labels** here: numbers that rise with the rules' order and leave room in
//! between, so that an insert renumbers nobody. What a label means is in a hash table of its own,
//! asked once a packet has found its rule.

mod counters;
mod flats;
mod generation;
mod memory;
mod reader;

pub use counters::{Counted, Counters};
pub use flats::{FlatTable, flat_key};
pub use generation::{Entry, Generation, Layout, SETS_HEAD_BYTES};
pub use memory::Memory;
pub use reader::{CountWhat, Live, Pinned, Reader, WriterHandle};

/// Identifies a source rule of a live table, whatever chain it stands in: the number that
/// [`Host`](crate::Host) and counters are told as [`OriginId`](crate::OriginId).
pub type RuleId = u32;
