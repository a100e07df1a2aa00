//! What a live table is told, what it takes, and why it refuses.

use std::time::Duration;

use hipac_rules::Fault;
use hipac_rules::edit::EditError;

use crate::compile::CompileError;
use crate::options::Counting;

/// Options of a [`LiveTable`](crate::LiveTable).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveOptions {
    /// Bytes that the structure may take at any moment: forests, tables, programs, what waits for
    /// readers, and a generation that is built beside the one in use. [`LiveTable::BYTES_MAX`](crate::LiveTable::BYTES_MAX) at
    /// most.
    pub memory_bytes_max: usize,
    /// Which rules are flat rules, and so can be counted.
    pub counting: Counting,
    /// Build a table that has drifted anew, on a thread of its own, and exchange it: lookups are then
    /// as fast as on a table that was never changed. Takes the room of a second one for a while.
    pub background: bool,
    /// Boxes put in or taken out before that is done, in percent of those that the table had when it
    /// was built.
    pub drift_percent: u32,
    /// And so many at least.
    pub drift_min: usize,
    /// Time between two such builds, at least; twice as much after one that could not keep up with the
    /// writer, and so on up to 32 times.
    pub pause: Duration,
}

impl Default for LiveOptions {
    /// 64 MiB, every rule that matches, building anew in the background when as many boxes have
    /// changed as there were, and 256, every 2 seconds at most.
    fn default() -> LiveOptions {
        LiveOptions {
            memory_bytes_max: 64 << 20,
            counting: Counting::Exact,
            background: true,
            drift_percent: 100,
            drift_min: 256,
            pause: Duration::from_secs(2),
        }
    }
}

/// Why a live table cannot be opened or changed. Nothing is changed then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LiveError {
    /// An edit cannot be made, as iptables could not.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// The text of edits has faults.
    #[error("{} of the commands cannot be read: {}", .0.len(), .0.first().map_or("", |f| &f.message))]
    Text(Vec<Fault>),
    /// The rules cannot be compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// They do not fit.
    #[error("{}the structure needs {needed} bytes, {limit} are allowed: allow at least {needed}", place(*line))]
    Memory {
        /// Line of the edit that went over; 0 when it stands in no text, or none did alone.
        line: u32,
        /// Bytes that would do for this edit.
        needed: usize,
        /// The limit given.
        limit: usize,
    },
}

fn place(line: u32) -> String {
    if line > 0 { format!("line {line}: ") } else { String::new() }
}

/// What a live table takes and has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Rules.
    pub rules: usize,
    /// Boxes that they became.
    pub boxes: usize,
    /// Bytes that readers walk, and those that wait for them.
    pub structure_bytes: usize,
    /// Of these, bytes that wait until no reader can be on them.
    pub waiting_bytes: usize,
    /// Bytes that the writer keeps to make changes; the rules themselves are not counted.
    pub bookkeeping_bytes: usize,
    /// The limit on `structure_bytes`.
    pub memory_bytes_max: usize,
    /// Generations so far: builds of all of it.
    pub generations: u64,
    /// Of these, those built in the background.
    pub compactions: u64,
    /// Transactions so far.
    pub transactions: u64,
    /// Rules whose label was changed to make room.
    pub relabelled: u64,
}
