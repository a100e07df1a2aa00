//! Live rules: a ruleset that is changed while packets are classified by it.
//!
//! ```text
//!   Edit ─▶ Model (chains, rules by number) ─▶ Writer (labels, boxes, mirrors) ─▶ Generation
//!                                                                                  ▲ readers
//! ```
//!
//! A [`LiveTable`] takes iptables' commands, [`hipac_rules::edit`], as transactions: all edits of one
//! are seen by readers at the same instant, or none. An insert or a delete lowers one rule, changes
//! the few leaves that its boxes meet, and publishes; everything else stays where it is.
//!
//! | module | does |
//! |---|---|
//! | `table`, `options` | the face: options, errors, statistics |
//! | `transaction` | edits made one after the other, or all undone |
//! | `inner`, `side` | what one writer at a time has: rules, generations, memory that waits |
//! | `model`, `seq`, `chunks` | chains and rules as iptables knows them, cheap to change in the middle and to copy |
//! | `sets` | IP sets that change |
//! | `labels` | order without numbering |
//! | `lower` | one rule as a flat rule a list |
//! | `writer` | one generation: keys, programs, entries |
//! | `list`, `tree` | a root of trees, the mirrors of their cells, changes to them |
//! | `ground`, `space`, `store` | slots and versions; memory; boxes, packed |
//! | `compact` | a generation built in the background |
//! | `freeze` | an image of what is there |

mod chunks;
mod compact;
mod freeze;
mod ground;
mod inner;
mod labels;
mod list;
mod lower;
mod model;
mod options;
mod seq;
mod sets;
mod side;
mod space;
mod store;
mod table;
mod transaction;
mod tree;
mod writer;

pub use options::{LiveError, LiveOptions, Stats};
pub use table::LiveTable;
