//! The ground a live forest stands on: memory, the version in the making, and slots.
//!
//! A *slot* is a word that changes in place: a cell of a table, or the root of an entry. A change of a
//! transaction never overwrites what readers of earlier versions still need: the slot is made to
//! lead to a switch, with a gate that lets in whatever either side may hold. Any mixture of the
//! halves of a slot's words, before and after, leads every reader to what its version shows:
//!
//! ```text
//!   (old, gate)          before
//!   (switch, both)       while a reader of an earlier version may be left
//!   (new, gate)          settled
//! ```

use std::sync::Arc;
use std::sync::atomic::Ordering;

use hipac_classifier::forest::root::{Cell, FILTER_ALL};
use hipac_classifier::forest::{Ref, UNIT, switch};
use hipac_classifier::live::{Generation, RuleId};

use super::space::{Align, Block, Full, Space};

/// A place that changes under readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Slot {
    /// A cell of a table, at a byte offset.
    Cell(u32),
    /// The root of an entry.
    Root(u32),
    /// The root of an entry for malformed packets.
    BrokenRoot(u32),
    /// The IP sets.
    Sets,
}

/// What is done once the readers of earlier versions have gone.
#[derive(Debug)]
pub(super) enum Later {
    /// A slot leads to what is new.
    Settle { slot: Slot, switch: Block, new: Cell },
    /// The policy of an entry is what it is since a version, for all.
    SettlePolicy { entry: u32, since: u32 },
    /// A label means nothing any more.
    Forget(u64),
    /// The number of a rule may be given to another.
    FreeRule(RuleId),
    /// An entry may be another chain's.
    FreeEntry(u32),
    /// A program is used by one flat rule less.
    FreeProgram(u32),
}

/// What a ground stores into, and readers load from: a generation, or a model of one that a test
/// walks all interleavings of.
pub(super) trait Shared {
    /// The words of a slot.
    fn slot(&self, slot: Slot) -> u64;
    /// Stores the words of a slot: everything stored before is seen by who reads them.
    fn set_slot(&self, slot: Slot, word: u64);
    /// The word at a byte of the memory.
    fn word(&self, at: usize) -> u64;
    /// Stores a word of the memory.
    fn set_word(&self, at: usize, word: u64);
    /// Writes bytes where no reader looks yet.
    fn write(&self, at: usize, bytes: &[u8]);
    /// Lets readers see a version.
    fn publish(&self, version: u32);
}

impl Shared for Generation {
    fn slot(&self, slot: Slot) -> u64 {
        let entry = |entry: u32| &self.entries()[entry as usize];
        match slot {
            Slot::Cell(at) => self.memory().load(at as usize),
            Slot::Root(e) => entry(e).root.load(Ordering::Acquire),
            Slot::BrokenRoot(e) => entry(e).broken_root.load(Ordering::Acquire),
            Slot::Sets => self.sets_slot().load(Ordering::Acquire),
        }
    }

    fn set_slot(&self, slot: Slot, word: u64) {
        let entry = |entry: u32| &self.entries()[entry as usize];
        match slot {
            Slot::Cell(at) => self.memory().store(at as usize, word),
            Slot::Root(e) => entry(e).root.store(word, Ordering::Release),
            Slot::BrokenRoot(e) => entry(e).broken_root.store(word, Ordering::Release),
            Slot::Sets => self.sets_slot().store(word, Ordering::Release),
        }
    }

    fn word(&self, at: usize) -> u64 {
        self.memory().load(at)
    }

    fn set_word(&self, at: usize, word: u64) {
        self.memory().store(at, word);
    }

    fn write(&self, at: usize, bytes: &[u8]) {
        self.memory().write(at, bytes);
    }

    fn publish(&self, version: u32) {
        Generation::publish(self, version);
    }
}

/// A slot that the transaction in the making changes.
#[derive(Debug, Clone, Copy)]
struct Touched {
    slot: Slot,
    old: Cell,
    new: Cell,
    switch: Block,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Ground<S = Generation> {
    pub(super) generation: Arc<S>,
    pub(super) space: Space<Later>,
    touched: Vec<Touched>,
    /// Nobody reads yet: slots are simply set.
    is_private: bool,
    /// The last transaction that was published.
    version: u32,
}

impl Ground {
    /// Has what a slot leads to brought near.
    pub(super) fn prefetch(&self, cell: Cell) {
        if !cell.reference.is_empty() {
            self.generation.memory().prefetch(cell.reference.offset());
        }
    }

    /// Has a slot brought near.
    pub(super) fn prefetch_slot(&self, slot: Slot) {
        if let Slot::Cell(at) = slot {
            self.generation.memory().prefetch(at as usize);
        }
    }

    /// The bytes of the memory from an offset on.
    pub(super) fn bytes(&self) -> &[u8] {
        self.generation.memory().bytes()
    }
}

impl<S: Shared> Ground<S> {
    /// The ground of a generation that nobody reads yet.
    pub(super) fn new(generation: Arc<S>, limit: usize) -> Ground<S> {
        Ground { generation, space: Space::new(limit), touched: vec![], is_private: true, version: 0 }
    }

    /// From here on there are readers.
    pub(super) fn open(&mut self) {
        self.is_private = false;
    }

    /// The version in the making.
    pub(super) fn next_version(&self) -> u32 {
        self.version.wrapping_add(1)
    }

    /// Nobody reads yet.
    pub(super) fn is_private(&self) -> bool {
        self.is_private
    }

    /// Writes a block.
    pub(super) fn write(&mut self, bytes: &[u8], align: Align) -> Result<Block, Full> {
        let block = self.space.take(bytes.len(), align)?;
        self.generation.write(block.offset(), bytes);
        Ok(block)
    }

    /// Gives a block back, when nobody can be on it.
    pub(super) fn drop_block(&mut self, block: Block) {
        if self.is_private { self.space.give(block) } else { self.space.retire(block) }
    }

    fn load(&self, slot: Slot) -> Cell {
        Cell::from_word(self.generation.slot(slot))
    }

    fn store(&self, slot: Slot, cell: Cell) {
        self.generation.set_slot(slot, cell.word());
    }

    /// What a slot leads to in the version in the making.
    pub(super) fn get(&self, slot: Slot) -> Cell {
        let cell = self.load(slot);
        if !cell.reference.is_switch() {
            return cell;
        }
        // The newest switch, whether published or not: what comes after it.
        match self.touched_by(cell.reference) {
            Some(i) => self.touched[i].new,
            None => Cell { reference: self.switch_new(cell.reference), gate: cell.gate },
        }
    }

    fn switch_new(&self, reference: Ref) -> Ref {
        Ref((self.generation.word(reference.offset()) >> 32) as u32)
    }

    /// Which of the transaction's slots a switch belongs to.
    fn touched_by(&self, reference: Ref) -> Option<usize> {
        let word = self.generation.word(reference.offset() + switch::SINCE);
        (word as u32 == self.next_version()).then_some((word >> 32) as usize)
    }

    /// Makes a slot lead to something else from the next version on.
    pub(super) fn set(&mut self, slot: Slot, new: Cell) -> Result<(), Full> {
        if self.is_private {
            self.store(slot, new);
            return Ok(());
        }
        let now = self.load(slot);
        let mine = if now.reference.is_switch() { self.touched_by(now.reference) } else { None };
        let at = match mine {
            Some(i) => {
                let Touched { old, switch, .. } = self.touched[i];
                let word = u64::from(old.reference.0) | u64::from(new.reference.0) << 32;
                self.generation.set_word(switch.offset(), word);
                self.touched[i].new = new;
                i
            }
            None => {
                let mut bytes = switch::encode(now.reference.0, new.reference.0, self.next_version());
                bytes[UNIT - 4..].copy_from_slice(&(self.touched.len() as u32).to_le_bytes());
                let switch = self.write(&bytes, Align::Unit)?;
                self.touched.push(Touched { slot, old: now, new, switch });
                self.touched.len() - 1
            }
        };
        let Touched { old, switch, .. } = self.touched[at];
        let smallest = (old.gate >> 24).min(new.gate >> 24);
        let gate = smallest << 24 | (old.gate | new.gate) & FILTER_ALL;
        self.store(slot, Cell { reference: Ref::switch(switch.offset()), gate });
        Ok(())
    }

    /// Publishes the transaction: one store, and all of it is to be seen.
    pub(super) fn commit(&mut self) {
        self.version = self.next_version();
        self.generation.publish(self.version);
        for t in std::mem::take(&mut self.touched) {
            self.space.retire_other(Later::Settle { slot: t.slot, switch: t.switch, new: t.new });
        }
    }

    /// A slot whose switch no reader of an earlier version needs any more.
    pub(super) fn settle(&mut self, slot: Slot, switch: Block, new: Cell) {
        if self.load(slot).reference == Ref::switch(switch.offset()) {
            self.store(slot, new);
        }
        // Whoever read the slot before may be on the switch. (And where a later switch stands in the
        // slot, whoever comes through that one: it is settled before this block is given back.)
        self.space.retire(switch);
    }
}

#[cfg(test)]
#[path = "ground_model.rs"]
mod model;
