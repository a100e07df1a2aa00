//! The face of live rules.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hipac_classifier::forest::{LINE, Ref, UNIT};
use hipac_classifier::live::{Live, Reader, RuleId};
use hipac_rules::edit::{Applied, Edit, parse_edits};
use hipac_rules::ipset::Sets;
use hipac_rules::{Name, ParseOptions, Rule, Ruleset, TableKind};

use super::compact;
use super::inner::{Inner, ReaderCounts, Zero, build};
use super::model::Model;
use super::options::{LiveError, LiveOptions, Stats};
use super::sets::{names_empty, without_empty};
use super::side::Side;

/// Rules that change while packets are classified by them. See the module.
#[derive(Debug)]
pub struct LiveTable {
    live: Arc<Live>,
    inner: Arc<Mutex<Inner>>,
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
        let inner = Inner::new(Arc::clone(&live), Side::new(model, writer), options);
        Ok(LiveTable { live, inner: Arc::new(Mutex::new(inner)) })
    }

    /// A reader for the calling thread.
    pub fn reader(&self) -> Reader {
        self.live.reader()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a generation in the background when it is time for one.
    fn compact_if_due(&self, inner: &mut Inner) {
        if compact::is_due(inner) {
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
        self.compact_if_due(&mut inner);
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
