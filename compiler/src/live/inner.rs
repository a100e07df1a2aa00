//! What one writer at a time has: the rules, the generation in use, and the ones before and after it.

use std::sync::Arc;
use std::time::Instant;

use hipac_classifier::EntryId;
use hipac_classifier::live::{Counted, Generation, Live, RuleId, WriterHandle};
use hipac_rules::{Rule, Table, TableKind};

use super::compact::Logged;
use super::ground::Later;
use super::model::{ChainId, Counts, Model};
use super::options::{LiveError, LiveOptions, Stats};
use super::side::Side;
use super::space::reserve;
use super::table::LiveTable;
use super::writer::{ChainSource, Freed, Refusal, Source, Writer};
use crate::forest::Shape;

/// Switches, blocks and labels of one transaction and those before it that may wait until the next.
const PENDING_MANY: usize = 2048;

/// What one writer at a time has.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) live: Arc<Live>,
    handle: WriterHandle,
    pub(super) side: Side,
    pub(super) options: LiveOptions,
    pub(super) stats: Stats,
    /// What has changed since a generation was begun in the background.
    pub(super) log: Option<Vec<Logged>>,
    /// Bytes that it may take until it is exchanged or given up.
    pub(super) reserved: usize,
    /// When the last one was begun.
    pub(super) compacted: Instant,
    /// How many have been given up since one was not.
    pub(super) given_up: u32,
    freed: Vec<Freed>,
    /// The generation before, while readers may be on it.
    pub(super) old: Option<Arc<Generation>>,
    old_bytes: usize,
}

/// Counts of a table's readers.
pub(super) struct ReaderCounts<'a>(pub(super) &'a Live);

impl Counts for ReaderCounts<'_> {
    fn rule(&self, id: RuleId) -> Counted {
        self.0.counted(id)
    }

    fn policy(&self, chain: ChainId) -> Counted {
        self.0.counted_by_policy(EntryId(chain))
    }
}

/// Nobody has counted yet.
pub(super) struct Zero;

impl Counts for Zero {
    fn rule(&self, _: RuleId) -> Counted {
        Counted::default()
    }

    fn policy(&self, _: ChainId) -> Counted {
        Counted::default()
    }
}

/// A generation of a model.
pub(super) fn build(
    model: &Model,
    number: u64,
    limit: usize,
    options: &LiveOptions,
) -> Result<Writer, LiveError> {
    let chains = model.chains().map(|(id, chain)| ChainSource {
        entry: id,
        table: chain.table,
        name: chain.hook.map(|_| format!("{}/{}", chain.table.name(), chain.name)),
        policy: chain.policy,
        rules: chain.rules.iter().collect(),
    });
    let target = |entry: u32, rule: &Rule| model.target(model.chain(entry).table, rule);
    let rule = |id: RuleId| -> &Rule { model.rule(id) };
    let source = Source {
        family: model.family,
        counting: options.counting,
        chains: chains.collect(),
        rule: &rule,
        target: &target,
    };
    let memory = options.memory_bytes_max;
    // The fastest form that fits and leaves room for changes; smaller ones have fewer copies and
    // smaller tables. The smallest may take all.
    let mut needed = 0;
    let free = limit.saturating_sub(reserve(limit));
    for (shape, cells_per_box, limit_now) in
        [(0, 4.0, free), (1, 0.5, free), (1, 0.1, free), (2, 0.0, free), (2, 0.0, limit)]
    {
        match Writer::build(&source, number, memory, limit_now, &Shape::LADDER[shape], cells_per_box) {
            Ok(mut writer) => {
                writer.ground.space.set_limit(limit);
                return Ok(writer);
            }
            Err(Refusal::Compile(error)) => return Err(error.into()),
            Err(Refusal::Replan | Refusal::Torn) => needed = limit + 1,
            Err(Refusal::Full(full)) => needed = full.needed,
        }
    }
    // How much would do: built with more, and more.
    let mut most = needed.max(limit);
    while most < LiveTable::BYTES_MAX {
        most = most.saturating_mul(2).min(LiveTable::BYTES_MAX);
        match Writer::build(&source, number, most, most, &Shape::LADDER[2], 0.0) {
            Ok(w) => {
                let needed = w.structure_bytes() + w.structure_bytes() / 16 + (1 << 17);
                return Err(LiveError::Memory { line: 0, needed: needed.max(limit + 1), limit });
            }
            Err(Refusal::Full(full)) => needed = full.needed,
            Err(_) => break,
        }
    }
    Err(LiveError::Memory { line: 0, needed, limit })
}

impl Inner {
    pub(super) fn new(live: Arc<Live>, side: Side, options: &LiveOptions) -> Inner {
        Inner {
            handle: live.writer(),
            live,
            side,
            options: *options,
            log: None,
            reserved: 0,
            compacted: Instant::now(),
            given_up: 0,
            stats: Stats { generations: 1, ..Stats::default() },
            freed: Vec::new(),
            old: None,
            old_bytes: 0,
        }
    }

    /// Builds a generation of the model as it is now, and lets readers see it.
    pub(super) fn rebuild(&mut self, line: u32) -> Result<(), LiveError> {
        while self.old.is_some() {
            self.wait();
        }
        let used = self.side.writer.structure_bytes();
        let limit = self.options.memory_bytes_max.saturating_sub(used + self.reserved);
        let number = self.side.writer.ground.generation.number + 1;
        let built = build(&self.side.model, number, limit, &self.options);
        let writer = built.map_err(|error| match error {
            LiveError::Memory { needed, .. } => {
                LiveError::Memory { line, needed: needed + used, limit: self.options.memory_bytes_max }
            }
            other => other,
        })?;
        self.replace(writer);
        Ok(())
    }

    /// Another model, with a generation of its own.
    pub(super) fn exchange(&mut self, model: Model) -> Result<(), LiveError> {
        // What waits for readers now is of the model that goes.
        while self.old.is_some() {
            self.wait();
        }
        let old = std::mem::replace(&mut self.side.model, model);
        match self.rebuild(0) {
            Ok(()) => {
                drop(self.side.writer.ground.space.take_others());
                self.side.trends.clear();
                self.after_commit();
                Ok(())
            }
            Err(error) => {
                self.side.model = old;
                Err(error)
            }
        }
    }

    /// Lets readers see another generation of the model as it is. What was in use is given back, to be
    /// dropped where nobody waits for it.
    pub(super) fn replace(&mut self, mut writer: Writer) -> Writer {
        // What was begun in the background is of another generation.
        self.log = None;
        writer.ground.open();
        let live = &self.live;
        let generation = Arc::clone(&writer.ground.generation);
        live.replace(generation, &mut self.handle);
        let mut old = std::mem::replace(&mut self.side.writer, writer);
        // Numbers of rules and chains are the table's, whatever generation gave them up last.
        for what in old.ground.space.take_others() {
            if matches!(what, Later::FreeRule(_) | Later::FreeEntry(_)) {
                self.side.writer.ground.space.retire_other(what);
            }
        }
        self.old = Some(Arc::clone(&old.ground.generation));
        self.old_bytes = old.structure_bytes();
        self.stats.generations += 1;
        (self.side.must_replan, self.side.is_torn) = (false, false);
        old
    }

    /// What was built in the background has been exchanged, or given up: its part of the memory is the
    /// table's again, as soon as no reader is on the generation before.
    pub(super) fn end_compaction(&mut self) {
        self.reserved = 0;
        if self.old.is_none() {
            self.side.writer.ground.space.set_limit(self.options.memory_bytes_max);
        }
    }

    /// The generation before is gone when its readers are: its memory is this one's then.
    fn inherit(&mut self) {
        // Who lets go of the last reference gives pages back, which takes its time: no reader, and the writer
        // only where threads are not wanted.
        if self.old.as_ref().is_some_and(|old| Arc::strong_count(old) == 1) {
            let old = self.old.take();
            if self.options.background {
                let dropping = std::thread::Builder::new().name("hipac-drop".into());
                drop(dropping.spawn(move || drop(old)));
            }
            self.side.writer.ground.space.set_limit(self.options.memory_bytes_max - self.reserved);
        }
    }

    /// Publishes what the writer has changed.
    pub(super) fn commit(&mut self) {
        debug_assert!(!self.side.is_torn, "what is torn is never published");
        while self.side.writer.must_wait_for_policies() {
            self.wait();
        }
        let writer = &mut self.side.writer;
        self.handle.with(|guard| writer.commit(guard));
        self.after_commit();
    }

    /// Once readers cannot be in the way any more.
    pub(super) fn after_commit(&mut self) {
        self.stats.transactions += 1;
        self.tidy();
        while self.side.writer.ground.space.waits_too_much() {
            let space = &mut self.side.writer.ground.space;
            self.handle.with(|guard| space.end_era(guard));
            self.wait();
        }
        // What a large transaction leaves behind is told of at once: nobody knows when the next one comes,
        // and readers go through its switches until then.
        let space = &mut self.side.writer.ground.space;
        if space.pending() > PENDING_MANY {
            self.handle.with(|guard| {
                space.end_era(guard);
                guard.flush();
            });
            self.tidy();
        }
    }

    /// Waits for memory that is only waiting for readers, when there is little without it: a while,
    /// since one of them may be the caller.
    pub(super) fn wait_for_room(&mut self) {
        for _ in 0..1 << 14 {
            let is_quiet = self.old.is_none() && self.side.writer.ground.space.is_quiet();
            if is_quiet || self.side.writer.headroom(1).is_ok() {
                return;
            }
            let space = &mut self.side.writer.ground.space;
            self.handle.with(|guard| space.end_era(guard));
            self.wait();
        }
    }

    /// Waits for readers: a little.
    pub(super) fn wait(&mut self) {
        self.handle.with(|guard| guard.flush());
        self.tidy();
        std::thread::yield_now();
    }

    fn tidy(&mut self) {
        self.inherit();
        self.side.writer.tidy(&mut self.freed);
        for freed in self.freed.drain(..) {
            match freed {
                Freed::Rule(id) => self.side.model.free_rule(id),
                Freed::Entry(id) => self.side.model.free_chain(id),
            }
        }
    }

    /// A table as plain vectors.
    pub(super) fn plain_table(&self, kind: TableKind) -> Table {
        self.side.model.table(kind, &ReaderCounts(&self.live))
    }

    /// Bytes of the generation before, while readers may be on it.
    pub(super) fn old_bytes(&self) -> usize {
        self.old.as_ref().filter(|old| Arc::strong_count(old) > 1).map_or(0, |_| self.old_bytes)
    }

    /// Calls `f` with the counts of readers.
    pub(super) fn with_counts<T>(&mut self, f: impl FnOnce(&mut Model, &dyn Counts) -> T) -> T {
        f(&mut self.side.model, &ReaderCounts(&self.live))
    }
}
