//! Readers: pin, look up, go.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_epoch::{Atomic, Collector, Guard, LocalHandle, Owned};

use super::counters::{Counted, Counters};
use super::flats::flat_key;
use super::generation::Generation;
use crate::evaluate::{Answer, Decision, EvaluateError, Host, Rules, evaluate};
use crate::forest::Ref;
use crate::forest::lookup::{Forest, NO_MATCH};
use crate::image::{EntryId, Flat, OriginId};
use crate::key::{Key, KeyMaker, Keys};
use crate::packet::Packet;
use crate::program::ResidualKind;

/// A live table as readers know it. The writer's side is the compiler's `live` module.
#[derive(Debug)]
pub struct Live {
    collector: Collector,
    generation: Atomic<Arc<Generation>>,
    counters: Mutex<AllCounters>,
}

/// Counters of readers: those of rules, and those of policies.
#[derive(Debug, Default)]
struct AllCounters {
    /// Of readers that there are.
    live: Vec<Arc<[Counters; 2]>>,
    /// Of those that there were.
    gone: [Counters; 2],
}

impl Live {
    /// A table that begins with a generation.
    pub fn new(first: Arc<Generation>) -> Arc<Live> {
        Arc::new(Live {
            collector: Collector::new(),
            generation: Atomic::new(first),
            counters: Mutex::default(),
        })
    }

    /// A reader for this thread.
    pub fn reader(self: &Arc<Live>) -> Reader {
        let counters = Arc::new([Counters::default(), Counters::default()]);
        self.all_counters().live.push(Arc::clone(&counters));
        Reader { handle: self.collector.register(), live: Arc::clone(self), ready: Vec::new(), counters }
    }

    /// Takes part in the epochs: for the writer, who retires memory.
    pub fn writer(&self) -> WriterHandle {
        WriterHandle(self.collector.register())
    }

    /// Exchanges the generation, and drops the old one when its last reader has gone. For the writer.
    ///
    /// # Panics
    /// The writer's handle is of another table, whose epochs know nothing of these readers.
    pub fn replace(&self, next: Arc<Generation>, writer: &mut WriterHandle) {
        assert_eq!(writer.0.collector(), &self.collector, "a handle of this table");
        writer.with(|guard| {
            let old = self.generation.swap(Owned::new(next), Ordering::SeqCst, guard);
            // SAFETY: nobody who pins in this table's collector from now on finds the old generation,
            // the guard is of that collector, and what was swapped out is destroyed once.
            #[allow(unsafe_code)]
            unsafe {
                guard.defer_destroy(old);
            }
        });
    }

    /// What all readers have counted for a rule.
    pub fn counted(&self, rule: u32) -> Counted {
        self.sum(0, rule)
    }

    /// What all readers have counted for the policy of an entry.
    pub fn counted_by_policy(&self, entry: EntryId) -> Counted {
        self.sum(1, entry.0)
    }

    fn sum(&self, kind: usize, number: u32) -> Counted {
        let all = self.all_counters();
        all.live.iter().fold(all.gone[kind].get(number), |sum, c| sum + c[kind].get(number))
    }

    fn all_counters(&self) -> MutexGuard<'_, AllCounters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let last = std::mem::replace(&mut self.generation, Atomic::null());
        // SAFETY: whoever drops is alone: readers hold the table by an `Arc`.
        #[allow(unsafe_code)]
        unsafe {
            drop(last.try_into_owned());
        }
    }
}

/// What is counted while packets are evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CountWhat {
    /// Nothing.
    #[default]
    Nothing,
    /// The rule that decides, or the policy.
    Deciding,
    /// Every rule that matches, and the policy, as iptables does.
    Exact,
}

/// A thread's way into a live table. Make one for each thread, on it.
#[derive(Debug)]
pub struct Reader {
    handle: LocalHandle,
    live: Arc<Live>,
    /// Forests made ready. A root is known by its place: within a generation no other one ever comes
    /// to lie there.
    ready: Vec<Ready>,
    counters: Arc<[Counters; 2]>,
}

impl Drop for Reader {
    /// What it has counted stays counted.
    fn drop(&mut self) {
        let mut all = self.live.all_counters();
        all.live.retain(|counters| !Arc::ptr_eq(counters, &self.counters));
        for (gone, mine) in all.gone.iter().zip(self.counters.iter()) {
            gone.add(mine);
        }
    }
}

/// A forest without the bytes that it lies in.
#[derive(Debug, Clone, Copy)]
struct Ready {
    generation: u64,
    forest: Forest<'static>,
}

impl Reader {
    /// The table as it is now, and stays until the pin is dropped: a batch, not a day. Memory that
    /// is given up meanwhile waits for it.
    ///
    /// # Cost
    /// Some tens of nanoseconds.
    #[inline]
    pub fn pin(&mut self) -> Pinned<'_> {
        let guard = self.handle.pin();
        let generation = self.live.generation.load(Ordering::SeqCst, &guard).as_raw();
        // SAFETY: it is never null, and what was loaded under a guard of the table's collector lives
        // as long as the guard, which lies beside the reference in `Pinned` and is dropped last.
        #[allow(unsafe_code)]
        let generation: &Generation = unsafe { &*generation };
        let version = generation.version();
        Pinned { generation, version, ready: &mut self.ready, counters: &self.counters, _guard: guard }
    }
}

/// A live table as of one version.
pub struct Pinned<'r> {
    generation: &'r Generation,
    version: u32,
    ready: &'r mut Vec<Ready>,
    counters: &'r [Counters; 2],
    // Last: dropped after everything that it keeps alive.
    _guard: Guard,
}

impl std::fmt::Debug for Pinned<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Pinned { generation, version, .. } = self;
        f.debug_struct("Pinned").field("generation", &generation.number).field("version", version).finish()
    }
}

impl Pinned<'_> {
    /// Which generation: keys that were made under one mean nothing in another.
    pub fn generation(&self) -> u64 {
        self.generation.number
    }

    /// Which transaction of the generation is the last to be seen.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Makes keys of packets, for this generation and with the IP sets of this version.
    pub fn key_maker(&self) -> KeyMaker<'_> {
        self.generation.key_maker(self.version)
    }

    /// The entry of a built-in chain, as `filter/FORWARD`.
    pub fn find_entry(&self, name: &str) -> Option<EntryId> {
        self.generation.named().iter().find(|(n, _)| n == name).map(|(_, id)| *id)
    }

    /// The name of a verdict.
    pub fn verdict_name(&self, id: u8) -> &str {
        self.generation.verdict_name(id)
    }

    /// The forest of an entry, ready to be looked up in; its answers are labels.
    ///
    /// # Cost
    /// A hundred nanoseconds or so when the entry's root is another than at the last call.
    pub fn forest(&mut self, entry: EntryId, is_sound: bool) -> Option<Forest<'_>> {
        let root = self.root(entry, is_sound)?;
        let number = self.generation.number;
        let bytes = self.generation.memory().bytes();
        let found = self.ready.iter().position(|r| r.generation == number && r.forest.reference() == root);
        if let Some(at) = found {
            return Some(self.ready[at].forest.at(bytes, self.version));
        }
        let forest = self.make_ready(root);
        // A handful of chains are looked up in all the time; the others come and go.
        if self.ready.len() >= 8 {
            self.ready.remove(0);
        }
        self.ready.push(Ready { generation: number, forest });
        Some(forest.at(bytes, self.version))
    }

    fn make_ready(&self, root: Ref) -> Forest<'static> {
        let bytes = self.generation.memory().bytes();
        Forest::new(self.generation.machine(), bytes, root, self.generation.key_bytes()).at(&[], 0)
    }

    /// Where an entry's forest begins as of this version.
    fn root(&self, entry: EntryId, is_sound: bool) -> Option<Ref> {
        let entry = self.generation.entries().get(entry.0 as usize)?;
        if !is_sound {
            let root = self.resolved(Ref(entry.broken_root.load(Ordering::Acquire) as u32));
            if root != Ref::SAME {
                return Some(root);
            }
        }
        Some(self.resolved(Ref(entry.root.load(Ordering::Acquire) as u32)))
    }

    fn resolved(&self, here: Ref) -> Ref {
        self.generation.resolved(here, self.version)
    }

    /// The label of the first rule that holds a key, or [`NO_MATCH`].
    pub fn first_match(&mut self, entry: EntryId, key: &Key, is_sound: bool) -> u32 {
        self.forest(entry, is_sound).map_or(NO_MATCH, |forest| forest.first_match(key, 0))
    }

    /// The labels for many keys of packets whose transport headers are sound: the fast way.
    pub fn first_match_batch(&mut self, entry: EntryId, keys: &Keys, range: Range<usize>, out: &mut [u32]) {
        match self.forest(entry, true) {
            Some(forest) => forest.first_match_batch(keys, range, out),
            None => out.fill(NO_MATCH),
        }
    }

    /// What the rule with a label does in an entry, and which rule it is.
    pub fn flat(&self, entry: EntryId, label: u32) -> Option<(Flat, OriginId)> {
        let key = flat_key(entry.0, label);
        let (flat, rule) = self.generation.flats().get(self.generation.memory(), key)?;
        Some((flat, OriginId(rule)))
    }

    /// Evaluates a packet from the beginning of an entry: [`Image::evaluate`](crate::Image::evaluate).
    /// Rules are told to the host by their numbers in the live table.
    ///
    /// # Errors
    /// As for an image; chains that call each other too often.
    pub fn evaluate(
        &self,
        entry: EntryId,
        packet: &mut Packet,
        host: &mut impl Host,
    ) -> Result<Decision, EvaluateError> {
        evaluate(self, entry, packet, host)
    }

    /// Evaluates and counts.
    ///
    /// # Errors
    /// As [`Pinned::evaluate`].
    pub fn evaluate_counting(
        &self,
        entry: EntryId,
        packet: &mut Packet,
        host: &mut impl Host,
        what: CountWhat,
    ) -> Result<Decision, EvaluateError> {
        let bytes = packet.length;
        let mut counting =
            Counting { host, counters: self.counters, is_exact: what == CountWhat::Exact, bytes };
        let decision = evaluate(self, entry, packet, &mut counting)?;
        match (what, decision) {
            (CountWhat::Nothing, _) => {}
            (_, Decision::Default { .. }) => self.counters[1].count(entry.0, bytes),
            (CountWhat::Deciding, Decision::Rule { rule, .. }) => self.counters[0].count(rule.0, bytes),
            _ => {}
        }
        Ok(decision)
    }
}

/// A host that counts every rule that matches.
struct Counting<'a, H> {
    host: &'a mut H,
    counters: &'a [Counters; 2],
    is_exact: bool,
    bytes: u32,
}

impl<H: Host> Host for Counting<'_, H> {
    fn residual(&mut self, rule: OriginId, match_index: u8, kind: ResidualKind, packet: &Packet) -> Answer {
        self.host.residual(rule, match_index, kind, packet)
    }

    fn matched(&mut self, rule: OriginId, packet: &Packet) {
        if self.is_exact {
            self.counters[0].count(rule.0, self.bytes);
        }
        self.host.matched(rule, packet);
    }
}

impl Rules for Pinned<'_> {
    fn keys(&self) -> KeyMaker<'_> {
        self.key_maker()
    }

    fn entry_count(&self) -> usize {
        self.generation.entries().len()
    }

    fn ends(&self, entry: EntryId) -> Option<(u8, u32)> {
        let entry = self.generation.entries().get(entry.0 as usize)?;
        Some((entry.default_verdict(self.version), 0))
    }

    fn forest_of(&self, entry: EntryId, is_sound: bool) -> Option<Forest<'_>> {
        let root = self.root(entry, is_sound)?;
        let number = self.generation.number;
        let ready = self.ready.iter().find(|r| r.generation == number && r.forest.reference() == root);
        let bytes = self.generation.memory().bytes();
        Some(match ready {
            Some(ready) => ready.forest.at(bytes, self.version),
            None => self.make_ready(root).at(bytes, self.version),
        })
    }

    fn flat_at(&self, entry: EntryId, position: u32) -> Option<(Flat, OriginId)> {
        self.flat(entry, position)
    }

    fn programs(&self) -> &[u8] {
        self.generation.memory().bytes()
    }
}

/// The writer's part in the epochs. It may be handed from thread to thread, which a lock around the
/// writer does.
#[derive(Debug)]
pub struct WriterHandle(LocalHandle);

// SAFETY: a `LocalHandle` is not `Send` because its counts are plain cells. They are touched by the
// handle and by guards made from it alone; guards borrow nothing here, but `with` drops its guard
// before it returns, so that whoever owns the handle is the only one who touches them.
#[allow(unsafe_code)]
unsafe impl Send for WriterHandle {}

impl WriterHandle {
    /// Calls `f` pinned.
    pub fn with<T>(&mut self, f: impl FnOnce(&Guard) -> T) -> T {
        let guard = self.0.pin();
        f(&guard)
    }
}
