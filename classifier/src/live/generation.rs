//! A generation: what readers see of a live table as long as its key layout and memory last.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::flats::FlatTable;
use super::memory::Memory;
use crate::dim::Ranks;
use crate::forest::lookup::Machine;
use crate::forest::{Ref, UNIT, switch, u32_at};
use crate::image::EntryId;
use crate::key::{KeyMaker, SLOT_BYTES, Slot};
use crate::sets::Sets;

/// How packets become keys: the sections of an image that say so, but for IP sets, which change under
/// readers as nodes and leaves do.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    slots: Vec<u8>,
    recodes: Vec<u8>,
    ranks: Vec<u8>,
}

impl Layout {
    /// From what an image would be made of: where dimensions lie, classes of small ones, bounds of
    /// interface names.
    pub fn new(slots: &[Slot], recodes: &[[u8; 256]], ranks: &[u128]) -> Layout {
        let record =
            |s: &Slot| -> [u8; SLOT_BYTES] { [s.dim.number(), s.offset, s.recode.unwrap_or(255), 0] };
        Layout {
            slots: slots.iter().flat_map(record).collect(),
            recodes: recodes.concat(),
            ranks: ranks.iter().flat_map(|r| r.to_be_bytes()).collect(),
        }
    }

    /// Makes keys of packets, with these sets.
    fn key_maker<'a>(&'a self, sets: Sets<'a>) -> KeyMaker<'a> {
        KeyMaker::new(&self.slots, &self.recodes, Ranks::new(&self.ranks), sets)
    }
}

/// A chain as readers come to it.
#[derive(Debug)]
pub struct Entry {
    /// Slot of the root for packets whose transport header is sound: a reference in the lower half.
    pub root: AtomicU64,
    /// Slot of the root for the others; [`Ref::SAME`] when they share one.
    pub broken_root: AtomicU64,
    /// Verdict at the end: new │ old ≪ 8 │ version since which it is the new one ≪ 32.
    default: AtomicU64,
}

impl Entry {
    /// No rules.
    fn empty() -> Entry {
        Entry {
            root: AtomicU64::new(Ref::EMPTY.0.into()),
            broken_root: AtomicU64::new(Ref::SAME.0.into()),
            default: AtomicU64::new(0),
        }
    }

    /// The verdict at its end as of a version.
    #[inline]
    pub fn default_verdict(&self, version: u32) -> u8 {
        let word = self.default.load(Ordering::Acquire);
        let shift = if switch::shows((word >> 32) as u32, version) { 0 } else { 8 };
        (word >> shift) as u8
    }

    /// Makes the verdict another one from a version on. For the writer; the change before this one
    /// must be seen by all readers.
    pub fn set_default(&self, old: u8, new: u8, since: u32) {
        self.default.store(u64::from(new) | u64::from(old) << 8 | u64::from(since) << 32, Ordering::Release);
    }
}

impl Entry {
    /// The verdict that is new since a version is the only one from here on: versions count around,
    /// and after half of all numbers the one before would be the newer. For the writer, once no
    /// reader of an earlier version is left.
    pub fn settle_default(&self, since: u32) {
        let word = self.default.load(Ordering::Acquire);
        if (word >> 32) as u32 == since {
            self.set_default(word as u8, word as u8, since);
        }
    }
}

/// Bytes before the section of IP sets: its length, then zeros.
pub const SETS_HEAD_BYTES: usize = 16;

/// See the module.
#[derive(Debug)]
pub struct Generation {
    /// Counts generations of a live table.
    pub number: u64,
    layout: Layout,
    key_bytes: usize,
    machine: Machine,
    memory: Memory,
    entries: Box<[Entry]>,
    /// Names of entries that packets begin at.
    named: Vec<(String, EntryId)>,
    /// Names of verdicts: set before the first rule that gives one is to be seen.
    verdicts: Box<[OnceLock<String>]>,
    flats: AtomicU64,
    /// Slot of the IP sets: a reference in the lower half, to the bytes of their section with the
    /// length before them.
    sets: AtomicU64,
    /// On a line of its own: the writer stores, all readers load.
    version: Line<AtomicU32>,
}

#[derive(Debug)]
#[repr(align(128))]
struct Line<T>(T);

impl Generation {
    /// A generation of `entries` chains without rules, in `memory`.
    pub fn new(
        number: u64,
        layout: Layout,
        memory: Memory,
        entries: usize,
        named: Vec<(String, EntryId)>,
    ) -> Generation {
        let key_bytes = layout.key_maker(Sets::default()).key_bytes();
        Generation {
            number,
            layout,
            key_bytes,
            machine: Machine::detect().for_keys(key_bytes),
            memory,
            entries: (0..entries).map(|_| Entry::empty()).collect(),
            named,
            verdicts: (0..256).map(|_| OnceLock::new()).collect(),
            flats: AtomicU64::new(FlatTable::default().word()),
            sets: AtomicU64::new(Ref::EMPTY.0.into()),
            version: Line(AtomicU32::new(0)),
        }
    }

    /// Looks up by another machine: for tests and comparisons, before it is shared.
    pub fn set_machine(&mut self, machine: Machine) {
        self.machine = machine.for_keys(self.key_bytes);
    }

    /// The machine that looks up.
    pub fn machine(&self) -> Machine {
        self.machine
    }

    /// Makes keys of packets as of a version.
    pub fn key_maker(&self, version: u32) -> KeyMaker<'_> {
        self.layout.key_maker(self.sets(version))
    }

    /// The IP sets as of a version.
    fn sets(&self, version: u32) -> Sets<'_> {
        let here = Ref(self.sets.load(Ordering::Acquire) as u32);
        if here.is_empty() {
            return Sets::default();
        }
        let at = self.resolved(here, version);
        Sets::new(self.set_bytes(at).unwrap_or_default())
    }

    /// The section of IP sets at a reference.
    fn set_bytes(&self, at: Ref) -> Option<&[u8]> {
        let bytes = self.memory.bytes().get(at.offset()..).filter(|_| !at.is_empty())?;
        let (len, rest) = bytes.split_first_chunk::<SETS_HEAD_BYTES>()?;
        rest.get(..u32_at(len, 0) as usize)
    }

    /// The slot of the IP sets. For the writer.
    pub fn sets_slot(&self) -> &AtomicU64 {
        &self.sets
    }

    /// Where a reference leads as of a version, switches passed.
    pub(super) fn resolved(&self, mut here: Ref, version: u32) -> Ref {
        let bytes = self.memory.bytes();
        while here.is_switch() {
            let Some(unit) = bytes.get(here.offset()..here.offset() + UNIT) else { return Ref::EMPTY };
            let is_new = switch::shows(u32_at(unit, switch::SINCE), version);
            here = Ref(u32_at(unit, if is_new { switch::NEW } else { switch::OLD }));
        }
        here
    }

    /// Bytes of its keys.
    pub fn key_bytes(&self) -> usize {
        self.key_bytes
    }

    /// Nodes, leaves, tables, programs.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Its entries; those that no chain has are empty.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Names of the entries that packets begin at: `filter/FORWARD`.
    pub fn named(&self) -> &[(String, EntryId)] {
        &self.named
    }

    /// The name of a verdict.
    pub fn verdict_name(&self, id: u8) -> &str {
        self.verdicts[usize::from(id)].get().map_or("", |name| name)
    }

    /// Gives a verdict its name, once. For the writer.
    pub fn name_verdict(&self, id: u8, name: &str) {
        self.verdicts[usize::from(id)].get_or_init(|| name.to_owned());
    }

    /// Where flat rules are found by label.
    #[inline]
    pub fn flats(&self) -> FlatTable {
        FlatTable::from_word(self.flats.load(Ordering::Acquire))
    }

    /// Another table for them, which holds everything that a reader may still ask for. For the
    /// writer.
    pub fn set_flats(&self, table: FlatTable) {
        self.flats.store(table.word(), Ordering::Release);
    }

    /// The last transaction that is to be seen.
    #[inline]
    pub fn version(&self) -> u32 {
        self.version.0.load(Ordering::SeqCst)
    }

    /// Publishes a transaction. For the writer.
    pub fn publish(&self, version: u32) {
        self.version.0.store(version, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_settled_policy_stays_when_versions_have_counted_around() {
        let entry = Entry::empty();
        entry.set_default(1, 2, 7);
        assert_eq!((entry.default_verdict(6), entry.default_verdict(7)), (1, 2));
        entry.settle_default(6);
        assert_eq!(entry.default_verdict(6), 1);
        entry.settle_default(7);
        for later in [0, 1, 1 << 31, (1 << 31) + 1, u32::MAX] {
            assert_eq!(entry.default_verdict(7u32.wrapping_add(later)), 2);
        }
    }
}
