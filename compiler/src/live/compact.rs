//! Building a generation in the background.
//!
//! ```text
//!   table    ──edits──▶ ──edits──▶ ──edits──▶ ▲ exchanged
//!              │ rules of now   log ▶ ▶ ▶ ▶   │
//!   thread     └──── build ─────── catch up ──┘
//! ```
//!
//! A table whose rules have been exchanged one by one keeps the cuts that were right for others. A
//! thread copies the rules (references to them), builds a generation that nobody reads, makes the
//! changes that came meanwhile, and exchanges it when it has caught up: the table is locked for the
//! copy, and for the last few changes.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use hipac_classifier::live::RuleId;
use hipac_rules::{Name, Policy, Rule, TableKind};

use super::inner::{Inner, build};
use super::model::ChainId;
use super::options::LiveOptions;
use super::side::Side;
use super::writer::{EntryKind, Refusal};

/// A step of a transaction, as another generation has to make it.
#[derive(Debug)]
pub(super) enum Logged {
    Put {
        chain: ChainId,
        at: usize,
        id: RuleId,
        rule: Arc<Rule>,
    },
    Take {
        chain: ChainId,
        at: usize,
    },
    AddChain {
        chain: ChainId,
        table: TableKind,
        name: Name,
    },
    RemoveChain {
        chain: ChainId,
    },
    Policy {
        chain: ChainId,
        policy: Policy,
    },
    /// What no other generation can follow.
    Lost,
}

/// Changes that are caught up with while the table is locked, at most: whoever has the lock may be made
/// to wait by the system, and the writer with it.
const LAST_MAX: usize = 8;

/// Rounds of catching up that leave more than three quarters of what the round before left: the writer
/// is faster than that.
const SLOW_ROUNDS_MAX: u32 = 2;

/// How much less of a processor the thread gets than the table's writer and readers, when there are
/// not enough for all: a tenth.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// Lets others go first. Where it cannot be, it is only slower for them.
fn be_nice() {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, NICE);
}

/// The pause between two is doubled so often, at most.
const PAUSES_MAX: u32 = 5;

/// The table has drifted from what it was when it was built, and has been left alone for long enough.
pub(super) fn is_due(inner: &Inner) -> bool {
    let LiveOptions { background, drift_percent, drift_min, pause, .. } = inner.options;
    // A third generation would have no room.
    if !background || inner.log.is_some() || inner.reserved > 0 || inner.old.is_some() {
        return false;
    }
    let (drift, built, now) = inner.side.writer.drift();
    let drift_max = (built * drift_percent as usize / 100).max(drift_min);
    let has_drifted = drift > drift_max || now > built + drift_max;
    has_drifted && inner.compacted.elapsed() >= pause.saturating_mul(1 << inner.given_up.min(PAUSES_MAX))
}

/// Begins: the rest happens on a thread, which gives up when it cannot keep up, and is begun less often
/// then.
pub(super) fn begin(inner: &mut Inner, table: Weak<Mutex<Inner>>) {
    debug_assert!(inner.old.is_none() && inner.reserved == 0, "two generations at a time");
    inner.compacted = Instant::now();
    let used = inner.side.writer.structure_bytes();
    let room = inner.options.memory_bytes_max.saturating_sub(used);
    // The table goes on growing meanwhile: each gets half of what is left.
    let limit = room / 2;
    inner.side.writer.ground.space.set_limit(used + room - limit);
    inner.log = Some(Vec::new());
    inner.reserved = limit;
    let number = inner.side.writer.ground.generation.number + 1;
    let (model, options) = (inner.side.model.clone(), inner.options);
    let work = move || {
        be_nice();
        let built = build(&model, number, limit, &options);
        let side = built.ok().map(|writer| Side::new(model, writer));
        let has_followed = side.is_some_and(|side| follow(side, &table));
        end(&table, number, has_followed);
    };
    if std::thread::Builder::new().name("hipac-compact".into()).spawn(work).is_err() {
        inner.log = None;
        inner.end_compaction();
    }
}

/// Makes the changes since, and exchanges; `false`: it cannot.
fn follow(mut side: Side, table: &Weak<Mutex<Inner>>) -> bool {
    let (mut before, mut slow_rounds) = (usize::MAX, 0);
    while slow_rounds <= SLOW_ROUNDS_MAX {
        let Some(table) = table.upgrade() else { return true };
        let mut inner = table.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.side.writer.ground.generation.number + 1 != side.writer.ground.generation.number {
            return true; // somebody has built another one
        }
        let Some(log) = &mut inner.log else { return true };
        let rest = std::mem::take(log);
        slow_rounds += u32::from(rest.len() > before / 4 * 3);
        before = rest.len();
        if rest.len() <= LAST_MAX {
            if !rest.into_iter().all(|step| make(&mut side, step).is_ok()) || side.must_replan {
                return false;
            }
            inner.log = None;
            inner.given_up = 0;
            inner.stats.compactions += 1;
            let old = inner.replace(side.writer);
            inner.side.trends.clear();
            drop(inner);
            drop(old);
            return true;
        }
        drop(inner);
        drop(table);
        if !rest.into_iter().all(|step| make(&mut side, step).is_ok()) || side.must_replan {
            return false;
        }
    }
    false
}

/// The memory of what was built is the table's, or free.
fn end(table: &Weak<Mutex<Inner>>, number: u64, has_followed: bool) {
    let Some(table) = table.upgrade() else { return };
    let mut inner = table.lock().unwrap_or_else(PoisonError::into_inner);
    if !has_followed && inner.side.writer.ground.generation.number + 1 == number {
        // The table goes on as it is, and is left alone for longer each time.
        inner.log = None;
        inner.given_up += 1;
    }
    inner.end_compaction();
}

/// One step on a side that nobody reads.
fn make(side: &mut Side, step: Logged) -> Result<(), Refusal> {
    match step {
        Logged::Put { chain, at, id, rule } => {
            side.model.add_rule_as(id, rule);
            side.put(chain, at, id)
        }
        Logged::Take { chain, at } => side.take(chain, at),
        Logged::AddChain { chain, table, name } => {
            side.model.add_chain_as(chain, table, name);
            side.writer.add_entry(chain, EntryKind::NEW)
        }
        Logged::RemoveChain { chain } => {
            side.model.remove_chain(chain);
            side.writer.remove_entry(chain).map(drop)
        }
        Logged::Policy { chain, policy } => {
            side.model.chain_mut(chain).policy = Some(policy);
            side.writer.set_policy_now(chain, policy)
        }
        Logged::Lost => Err(Refusal::Replan),
    }
}
