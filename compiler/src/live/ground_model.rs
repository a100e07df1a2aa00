//! A ground under loom: every interleaving of a writer that publishes, settles and uses memory
//! again, and of readers who pin, walk and go.
//!
//! Grounds and spaces are the real ones. What stands in for the rest: atomics that loom knows; for
//! kernels, a reader that loads a slot twice, so that the halves of its words are of different
//! moments, and acquires where the machine orders loads by their addresses; for `crossbeam-epoch`,
//! one flag for each reader. It promises what the epochs promise: what is given to [`Epochs::defer`]
//! is called when nobody who was pinned then is left.

use hipac_classifier::forest::root::Cell;
use hipac_classifier::forest::{Kind, LINE, Ref, UNIT, switch};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};

use super::{Ground, Later, Shared, Slot};
use crate::live::space::{Align, Block};

const SLOTS: usize = 2;
const READERS: usize = 2;

/// Units besides the first line: as few as make the writer use them again.
const UNITS: usize = 24;

/// What a writer and readers share.
struct Model {
    words: Vec<AtomicU64>,
    slots: Vec<AtomicU64>,
    version: AtomicU32,
    pinned: Vec<AtomicBool>,
}

impl Model {
    fn new() -> Model {
        Model {
            words: (0..(LINE + UNITS * UNIT) / 8).map(|_| AtomicU64::new(0)).collect(),
            slots: (0..SLOTS).map(|_| AtomicU64::new(Cell::EMPTY.word())).collect(),
            version: AtomicU32::new(0),
            pinned: (0..READERS).map(|_| AtomicBool::new(false)).collect(),
        }
    }
}

fn number(slot: Slot) -> usize {
    match slot {
        Slot::Root(i) | Slot::Cell(i) | Slot::BrokenRoot(i) => i as usize,
        Slot::Sets => 0,
    }
}

impl Shared for Model {
    fn slot(&self, slot: Slot) -> u64 {
        self.slots[number(slot)].load(Ordering::Acquire)
    }

    fn set_slot(&self, slot: Slot, word: u64) {
        self.slots[number(slot)].store(word, Ordering::Release);
    }

    fn word(&self, at: usize) -> u64 {
        self.words[at / 8].load(Ordering::Acquire)
    }

    fn set_word(&self, at: usize, word: u64) {
        self.words[at / 8].store(word, Ordering::Release);
    }

    fn write(&self, at: usize, bytes: &[u8]) {
        for (i, bytes) in bytes.as_chunks::<8>().0.iter().enumerate() {
            self.words[at / 8 + i].store(u64::from_le_bytes(*bytes), Ordering::Relaxed);
        }
    }

    fn publish(&self, version: u32) {
        self.version.store(version, Ordering::Release);
    }
}

/// What waits for readers to go.
#[derive(Default)]
struct Epochs {
    waiting: Vec<Waiting>,
}

struct Waiting {
    then: Box<dyn FnOnce()>,
    /// Readers who may have been pinned all the time since.
    on: [bool; READERS],
}

impl Epochs {
    fn defer(&mut self, f: impl FnOnce() + 'static) {
        self.waiting.push(Waiting { then: Box::new(f), on: [true; READERS] });
    }

    /// Calls what nobody stands in the way of any more.
    fn turn(&mut self, model: &Model) {
        fence(Ordering::SeqCst);
        for (reader, pinned) in model.pinned.iter().enumerate() {
            if !pinned.load(Ordering::Acquire) {
                self.waiting.iter_mut().for_each(|waiting| waiting.on[reader] = false);
            }
        }
        while self.waiting.first().is_some_and(|waiting| !waiting.on.contains(&true)) {
            (self.waiting.remove(0).then)();
        }
    }
}

/// The cell of a version, at a leaf: each version is let in by a filter bit of its own and a scaled
/// label of its own, both first and last ones being the smallest.
fn cell(version: u32, at: usize) -> Cell {
    let reference = Ref::leaf(Kind::Lean, at, UNIT);
    Cell { reference, gate: scaled(version) << 24 | 1 << version }
}

fn scaled(version: u32) -> u32 {
    [10, 5, 20, 1][version as usize % 4]
}

/// Makes a slot lead to a leaf that holds its version, as a change of a tree does.
fn put(ground: &mut Ground<Model>, slot: Slot, version: u32) {
    let old = ground.get(slot).reference;
    let mut leaf = [0; UNIT];
    leaf[..4].copy_from_slice(&version.to_le_bytes());
    let block = ground.write(&leaf, Align::Unit).expect("there is room for all versions");
    ground.set(slot, cell(version, block.offset())).expect("and for their switches");
    if !old.is_empty() {
        ground.drop_block(Block::of(old.offset(), UNIT, Align::Unit));
    }
}

/// The writer: versions 1 and on, in both slots at once.
fn write(mut ground: Ground<Model>, versions: u32) {
    let mut epochs = Epochs::default();
    for version in 1..=versions {
        for slot in 0..SLOTS as u32 {
            put(&mut ground, Slot::Root(slot), version);
        }
        ground.commit();
        epochs.defer(ground.space.era_over());
        epochs.turn(&ground.generation.clone());
        while let Some(later) = ground.space.next_safe() {
            if let Later::Settle { slot, switch, new } = later {
                ground.settle(slot, switch, new);
            }
        }
    }
}

/// A reader: whatever version it is pinned at is in both slots.
fn read(model: &Model, reader: usize) {
    model.pinned[reader].store(true, Ordering::Relaxed);
    fence(Ordering::SeqCst);
    let version = model.version.load(Ordering::Acquire);
    for slot in (0..SLOTS as u32).map(Slot::Root) {
        let gate = Cell::from_word(model.slot(slot)).gate;
        let mut here = Cell::from_word(model.slot(slot)).reference;
        let lets_in = Cell { reference: here, gate }.lets_in(1 << version, scaled(version));
        assert!(lets_in, "version {version} is not let into {slot:?}: {gate:#x}");
        while here.is_switch() {
            let since = model.word(here.offset() + switch::SINCE) as u32;
            let ways = model.word(here.offset());
            here = Ref(if switch::shows(since, version) { ways >> 32 } else { ways } as u32);
        }
        let found = model.word(here.offset()) as u32;
        assert_eq!(found, version, "{slot:?} leads to another version");
    }
    model.pinned[reader].store(false, Ordering::Release);
}

/// One writer of so many versions, readers who pin so often each.
fn explore(versions: u32, readers: usize, pins: usize, preemptions: usize) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(builder.preemption_bound.unwrap_or(preemptions));
    builder.max_branches = 100_000;
    builder.check(move || {
        // The ground wants an `Arc` of the standard library; loom's keeps it among the threads.
        let model = std::sync::Arc::new(Model::new());
        let mut ground = Ground::new(model.clone(), LINE + UNITS * UNIT);
        (0..SLOTS as u32).for_each(|slot| put(&mut ground, Slot::Root(slot), 0));
        ground.open();
        let shared = Arc::new(model);
        let threads: Vec<_> = (0..readers)
            .map(|reader| {
                let shared = shared.clone();
                loom::thread::spawn(move || (0..pins).for_each(|_| read(&shared, reader)))
            })
            .collect();
        write(ground, versions);
        threads.into_iter().for_each(|t| t.join().expect("a reader is content"));
    });
}

#[test]
fn a_reader_sees_one_version_whenever_it_comes() {
    explore(3, 1, 1, 3);
}

#[test]
fn a_reader_that_comes_again_sees_one_version_each_time() {
    explore(3, 1, 2, 2);
}

#[test]
fn two_readers_of_different_versions_see_theirs() {
    explore(2, 2, 1, 2);
}
