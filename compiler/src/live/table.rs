//! The face of live rules.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hipac_classifier::EntryId;
use hipac_classifier::forest::{LINE, Ref, UNIT};
use hipac_classifier::live::{Counted, Generation, Live, Reader, RuleId, WriterHandle};
use hipac_rules::edit::{Applied, Edit, EditError, parse_edits};
use hipac_rules::ipset::Sets;
use hipac_rules::{Fault, Name, ParseOptions, Rule, Ruleset, Table, TableKind};

use super::compact::{self, Logged};
use super::ground::Later;
use super::labels::Trend;
use super::model::{ChainId, Counts, Model};
use super::sets::{names_empty, without_empty};
use super::space::reserve;
use super::writer::{ChainSource, Freed, Refusal, Source, Writer};
use crate::compile::CompileError;
use crate::forest::Shape;
use crate::options::Counting;

/// Options of a [`LiveTable`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveOptions {
    /// Bytes that the structure may take at any moment: forests, tables, programs, what waits for
    /// readers, and a generation that is built beside the one in use. [`LiveTable::BYTES_MAX`] at
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

/// The pause between two builds in the background is doubled so often, at most.
const PAUSES_MAX: u32 = 5;

/// Switches, blocks and labels of one transaction and those before it that may wait until the next.
const PENDING_MANY: usize = 2048;

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

/// Rules that change while packets are classified by them. See the module.
#[derive(Debug)]
pub struct LiveTable {
    live: Arc<Live>,
    inner: Arc<Mutex<Inner>>,
}

/// Rules, and the generation that is made of them.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) model: Model,
    pub(super) writer: Writer,
    pub(super) trends: Vec<Trend>,
    /// The generation cannot take what the model has: a new one is to be made.
    pub(super) must_replan: bool,
    /// Neither can it go back to what readers see, see [`Refusal::Torn`].
    pub(super) is_torn: bool,
    /// Rules whose label was changed to make room.
    pub(super) relabelled: u64,
}

impl Side {
    pub(super) fn new(model: Model, writer: Writer) -> Side {
        Side { model, writer, trends: Vec::new(), must_replan: false, is_torn: false, relabelled: 0 }
    }
}

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
    compacted: Instant,
    /// How many have been given up since one was not.
    pub(super) given_up: u32,
    freed: Vec<Freed>,
    /// The generation before, while readers may be on it.
    pub(super) old: Option<Arc<Generation>>,
    old_bytes: usize,
}

/// Counts of a table's readers.
struct ReaderCounts<'a>(&'a Live);

impl Counts for ReaderCounts<'_> {
    fn rule(&self, id: RuleId) -> Counted {
        self.0.counted(id)
    }

    fn policy(&self, chain: ChainId) -> Counted {
        self.0.counted_by_policy(EntryId(chain))
    }
}

/// Nobody has counted yet.
struct Zero;

impl Counts for Zero {
    fn rule(&self, _: RuleId) -> Counted {
        Counted::default()
    }

    fn policy(&self, _: ChainId) -> Counted {
        Counted::default()
    }
}

impl LiveTable {
    /// The most that [`LiveOptions::memory_bytes_max`] can be, 4 GiB less a cache line: references
    /// have 28 bits, for 16 bytes each.
    pub const BYTES_MAX: usize = Ref::UNITS_MAX * UNIT / LINE * LINE;

    /// A live table of a ruleset.
    ///
    /// # Cost
    /// As [`compile`](crate::compile()): microseconds a rule.
    ///
    /// # Errors
    /// The rules cannot be compiled, or do not fit.
    pub fn open(ruleset: &Ruleset, options: &LiveOptions) -> Result<LiveTable, LiveError> {
        LiveTable::open_model(Model::new(ruleset, &Zero), options)
    }

    /// The same with IP sets, which the rules and those that come later mean.
    ///
    /// # Errors
    /// As [`LiveTable::open`].
    pub fn open_with_sets(
        ruleset: &Ruleset,
        sets: &Sets,
        options: &LiveOptions,
    ) -> Result<LiveTable, LiveError> {
        LiveTable::open_model(Model::with_sets(ruleset, sets.clone(), &Zero), options)
    }

    fn open_model(model: Model, options: &LiveOptions) -> Result<LiveTable, LiveError> {
        let mut options = *options;
        options.memory_bytes_max = options.memory_bytes_max.min(LiveTable::BYTES_MAX);
        let options = &options;
        let mut writer = build(&model, 0, options.memory_bytes_max, options)?;
        let live = Live::new(Arc::clone(&writer.ground.generation));
        writer.ground.open();
        let inner = Inner {
            handle: live.writer(),
            live: Arc::clone(&live),
            side: Side::new(model, writer),
            options: *options,
            log: None,
            reserved: 0,
            compacted: Instant::now(),
            given_up: 0,
            stats: Stats { generations: 1, ..Stats::default() },
            freed: Vec::new(),
            old: None,
            old_bytes: 0,
        };
        Ok(LiveTable { live, inner: Arc::new(Mutex::new(inner)) })
    }

    /// A reader for the calling thread.
    pub fn reader(&self) -> Reader {
        self.live.reader()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a generation in the background when the table has drifted from what it was when it was
    /// built.
    fn compact_if_drifted(&self, inner: &mut Inner) {
        // A third generation would have no room.
        if !inner.options.background || inner.log.is_some() || inner.reserved > 0 || inner.old.is_some() {
            return;
        }
        let (drift, built, now) = inner.side.writer.drift();
        let LiveOptions { drift_percent, drift_min, .. } = inner.options;
        let drift_max = (built * drift_percent as usize / 100).max(drift_min);
        let has_drifted = drift > drift_max || now > built + drift_max;
        let pause = inner.options.pause.saturating_mul(1 << inner.given_up.min(PAUSES_MAX));
        if has_drifted && inner.compacted.elapsed() >= pause {
            inner.compacted = Instant::now();
            compact::begin(inner, Arc::downgrade(&self.inner));
        }
    }

    /// Makes edits as one transaction: readers see all of them at one instant, or, when one fails, none
    /// ever.
    ///
    /// # Cost
    /// A few microseconds an insert or delete. What needs a new key layout (the first rule that tests
    /// a field, a new interface name), or a list of its own for malformed packets, builds all of it
    /// anew, and so does what finds no room between its neighbours' labels.
    ///
    /// It may have to wait for readers that are pinned, when much memory waits for them or a policy is
    /// changed twice: do not call it while the same thread holds a pin.
    ///
    /// # Errors
    /// See [`LiveError`].
    pub fn apply(&self, edits: &[Edit]) -> Result<Applied, LiveError> {
        self.transaction(edits, None)
    }

    /// The same, and IP sets hold this from the same instant on. Rules that name sets mean those of the
    /// table: the rules that there are, and those that come. (Those that the table was opened with mean
    /// what they were bound to, until the first call.)
    ///
    /// # Cost
    /// Linear in the entries of the sets that rules name, some tens of nanoseconds each, whichever of
    /// them have changed; and a new generation when a set that rules name has come or gone, or is of another
    /// type.
    ///
    /// # Errors
    /// See [`LiveError`].
    pub fn apply_with_sets(&self, edits: &[Edit], sets: &Sets) -> Result<Applied, LiveError> {
        self.transaction(edits, Some(sets))
    }

    /// Changes IP sets by commands, as `ipset restore` takes them, in one transaction: what the text
    /// says happens to the sets of the table, or nothing does.
    ///
    /// ```
    /// use hipac_compiler::{LiveOptions, LiveTable};
    /// use hipac_rules::{ParseOptions, ipset::Sets, parse};
    ///
    /// let rules = parse(
    ///     "*filter\n:FORWARD ACCEPT\n-A FORWARD -m set --match-set bad src -j DROP\nCOMMIT\n",
    ///     &ParseOptions::default(),
    /// );
    /// let (sets, _) = Sets::read("create bad hash:ip\n");
    /// let table = LiveTable::open_with_sets(&rules.ruleset, &sets, &LiveOptions::default())?;
    /// table.change_sets("add bad 192.0.2.7\nadd bad 192.0.2.9\n")?;
    /// table.change_sets("del bad 192.0.2.7\n")?;
    /// assert_eq!(table.sets().get("bad").unwrap().len(), 1);
    /// # Ok::<(), hipac_compiler::LiveError>(())
    /// ```
    ///
    /// # Cost
    /// As [`LiveTable::apply_with_sets`].
    ///
    /// # Errors
    /// The text has faults; see [`LiveError`].
    pub fn change_sets(&self, text: &str) -> Result<(), LiveError> {
        let mut inner = self.lock();
        let (sets, faults) = inner.side.model.sets.changed(text);
        if !faults.is_empty() {
            return Err(LiveError::Text(faults));
        }
        inner.transaction(&[], Some(&sets)).map(drop)
    }

    fn transaction(&self, edits: &[Edit], sets: Option<&Sets>) -> Result<Applied, LiveError> {
        let mut inner = self.lock();
        let applied = inner.transaction(edits, sets)?;
        self.compact_if_drifted(&mut inner);
        Ok(applied)
    }

    /// The IP sets that rules mean.
    pub fn sets(&self) -> Sets {
        self.lock().side.model.sets.clone()
    }

    /// The same for edits in a text: what `iptables-restore --noflush` takes.
    ///
    /// # Errors
    /// See [`LiveError`].
    pub fn apply_text(&self, text: &str) -> Result<Applied, LiveError> {
        let family = self.lock().side.model.family;
        let options = ParseOptions { family: Some(family), ..ParseOptions::default() };
        let groups = parse_edits(text, &options).into_result().map_err(LiveError::Text)?;
        let edits: Vec<Edit> = groups.into_iter().flat_map(|group| group.edits).collect();
        self.apply(&edits)
    }

    /// Replaces all rules, as `iptables-restore` does, in one transaction.
    ///
    /// # Errors
    /// The new rules cannot be compiled, or do not fit beside the old ones.
    pub fn restore(&self, ruleset: &Ruleset) -> Result<(), LiveError> {
        let mut inner = self.lock();
        let sets = inner.side.model.sets.clone();
        let model = Model::with_sets(ruleset, sets, &ReaderCounts(&inner.live));
        inner.exchange(model)
    }

    /// Builds all of it anew, as it would be from scratch.
    ///
    /// # Errors
    /// There is no room beside the generation in use.
    pub fn compact(&self) -> Result<(), LiveError> {
        let mut inner = self.lock();
        inner.rebuild(0)?;
        inner.after_commit();
        Ok(())
    }

    /// The rules as they are now, with their counters.
    pub fn ruleset(&self) -> Ruleset {
        let inner = self.lock();
        inner.side.model.ruleset(&ReaderCounts(&inner.live))
    }

    /// The rules of a chain, as `iptables -S` lists them; `None`: no such chain.
    pub fn rules(&self, table: TableKind, chain: &str) -> Option<Vec<Rule>> {
        let inner = self.lock();
        let id = inner.side.model.find(table, &chain.into())?;
        let rules = inner.side.model.chain(id).rules.iter();
        let counts = ReaderCounts(&inner.live);
        let rule = |id: RuleId| Rule {
            counters: inner.side.model.rule_counters(id, &counts),
            ..Rule::clone(inner.side.model.rule(id))
        };
        Some(rules.map(rule).collect())
    }

    /// The rule at a position of a chain, from 0; its counters are those that it came with.
    pub fn rule(&self, table: TableKind, chain: &Name, at: usize) -> Option<Arc<Rule>> {
        let inner = self.lock();
        let id = inner.side.model.find(table, chain)?;
        inner.side.model.chain(id).rules.get(at).map(|id| Arc::clone(inner.side.model.rule(id)))
    }

    /// How many rules a chain has; none when there is no such chain.
    pub fn rule_count(&self, table: TableKind, chain: &Name) -> usize {
        let inner = self.lock();
        inner.side.model.find(table, chain).map_or(0, |id| inner.side.model.chain(id).rules.len())
    }

    /// What it takes and has done.
    pub fn stats(&self) -> Stats {
        let mut inner = self.lock();
        // What waits for nobody any more is not to be counted.
        (0..8).for_each(|_| inner.wait());
        Stats {
            rules: inner.side.model.count,
            boxes: inner.side.writer.box_count(),
            structure_bytes: inner.side.writer.structure_bytes() + inner.old_bytes(),
            waiting_bytes: inner.side.writer.ground.space.waiting(),
            bookkeeping_bytes: inner.side.writer.bookkeeping_bytes() + inner.side.model.order_bytes(),
            memory_bytes_max: inner.options.memory_bytes_max,
            relabelled: inner.side.relabelled,
            ..inner.stats
        }
    }

    /// An image of the rules as they are now: the same bytes of nodes and leaves, with positions for
    /// labels. Neither readers nor the writer wait longer than a transaction takes.
    ///
    /// # Errors
    /// They are too many for an image.
    pub fn freeze(&self) -> Result<Vec<u8>, LiveError> {
        let inner = self.lock();
        let tables = inner.side.model.tables().to_vec();
        // An image knows no empty sets: rules that ask for one match nothing there.
        let has_empty = inner.side.model.set_rules().iter().any(|id| names_empty(inner.side.model.rule(*id)));
        if !inner.side.is_torn
            && !has_empty
            && let Some(image) = super::freeze::freeze(&inner.side.model, &inner.side.writer, &tables)?
        {
            return Ok(image);
        }
        // Chains that lead in a circle behind a rule that lets nobody pass: only the compiler knows.
        let mut ruleset = inner.side.model.ruleset(&ReaderCounts(&inner.live));
        let chains = ruleset.tables.iter_mut().flat_map(|t| &mut t.chains);
        chains.flat_map(|c| &mut c.rules).for_each(without_empty);
        let options = crate::Options {
            memory_bytes_max: inner.options.memory_bytes_max,
            counting: inner.options.counting,
        };
        Ok(crate::compile(&ruleset, &options)?.image)
    }

    /// For tests: the memory in use gives nothing out any more after so many bytes, whatever the
    /// budget; `u64::MAX` ends that.
    #[doc(hidden)]
    pub fn run_out_after(&self, bytes: u64) {
        self.lock().side.writer.ground.space.run_out_after(bytes);
    }

    /// For tests: bytes that the generation in use may take now. All of the budget, when no other one is
    /// built or left.
    #[doc(hidden)]
    pub fn limit_now(&self) -> usize {
        self.lock().side.writer.ground.space.limit()
    }

    /// The numbers of a chain's rules, in their order: what readers and counters know them by.
    pub fn rule_ids(&self, table: TableKind, chain: &str) -> Vec<RuleId> {
        let inner = self.lock();
        let id = inner.side.model.find(table, &chain.into());
        id.map_or_else(Vec::new, |id| inner.side.model.chain(id).rules.iter().collect())
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
    fn exchange(&mut self, model: Model) -> Result<(), LiveError> {
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
    fn old_bytes(&self) -> usize {
        self.old.as_ref().filter(|old| Arc::strong_count(old) > 1).map_or(0, |_| self.old_bytes)
    }

    /// Calls `f` with the counts of readers.
    pub(super) fn with_counts<T>(&mut self, f: impl FnOnce(&mut Model, &dyn Counts) -> T) -> T {
        f(&mut self.side.model, &ReaderCounts(&self.live))
    }
}
