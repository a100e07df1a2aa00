//! The audit: reads a whole image once and checks every invariant that lookups rely on.

use super::audit_forest::ForestAudit;
use super::format::{self, EntryRecord, Flat, Section};
use super::{EntryId, Image};
use crate::dim::Dim;
use crate::forest::{ARENA_SLACK, Ref, u32_at};
use crate::key::{KEY_BYTES_MAX, SLOT_BYTES};
use crate::program::{Op, Reader, encode};
use crate::sets::{HEAD_BYTES, USE_BYTES};

/// What is wrong with an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("image is damaged: {what}: compile the rules again")]
pub struct AuditError {
    pub(super) what: String,
}

macro_rules! ensure {
    ($holds:expr, $($what:tt)*) => {
        if !$holds {
            return Err($crate::image::AuditError { what: format!($($what)*) });
        }
    };
}
pub(super) use ensure;

/// What an audit counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Facts {
    /// Nodes of the forest.
    pub nodes: usize,
    /// Leaves of the forest.
    pub leaves: usize,
    /// Rule entries in leaves: copies.
    pub entries: usize,
    /// Cells of root tables.
    pub cells: usize,
    /// Nodes on the longest way from a root to a leaf.
    pub depth: u32,
    /// Deferred references that may wait at once.
    pub pending: usize,
}

/// A leaf as an audit meets it, once each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeafSeen<'a> {
    /// Bytes that it takes in the forest.
    pub bytes: usize,
    /// Positions of its rules.
    pub positions: &'a [u32],
}

impl<B: AsRef<[u8]>> Image<B> {
    /// Reads the whole image once: checksum, every record, every node and leaf. An image that
    /// passes is safe to look up in: no walk leaves it, loops, or forgets a deferred part.
    ///
    /// # Cost
    /// Linear in the image, 16 bytes of memory a node.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn audit(&self) -> Result<Facts, AuditError> {
        self.audit_leaves(&mut |_| {})
    }

    /// [`Image::audit`], which shows each leaf to `visit`: what the rules' copies cost.
    ///
    /// # Errors
    /// As for an audit; leaves before the damage have been shown.
    pub fn audit_leaves(&self, visit: &mut dyn FnMut(LeafSeen<'_>)) -> Result<Facts, AuditError> {
        let stated = u32_at(self.bytes(), 24);
        ensure!(crc32fast::hash(&self.bytes()[format::HEADER_BYTES..]) == stated, "checksum differs");
        // No checksum covers these: that of the header ends before its own place.
        let spare = &self.bytes()[format::HEADER_SPARE_AT..format::HEADER_BYTES];
        ensure!(spare.iter().all(|&b| b == 0), "the unused bytes of the header are not zero");
        self.audit_keys()?;
        self.audit_sets()?;
        self.audit_names()?;
        self.audit_flats()?;
        self.audit_calls()?;
        self.audit_forest(visit)
    }

    /// The audit of the forest alone, for every entry.
    fn audit_forest(&self, visit: &mut dyn FnMut(LeafSeen<'_>)) -> Result<Facts, AuditError> {
        let arena = self.section(Section::Arena);
        ensure!(
            arena.len() >= ARENA_SLACK && arena[arena.len() - ARENA_SLACK..].iter().all(|&b| b == 0),
            "the forest does not end with {ARENA_SLACK} zero bytes"
        );
        let key_end =
            self.key_maker().slots().map(|s| usize::from(s.offset) + s.dim.key_bytes()).max().unwrap_or(0);
        let mut walk = ForestAudit::new(arena, key_end, self.leaf_form(), visit);
        for (id, entry, _) in self.entries() {
            walk.begin_entry(entry.first..entry.first + entry.count);
            let roots = [entry.root, entry.broken_root];
            let different = if roots[0] == roots[1] { 1 } else { 2 };
            for root in &roots[..different] {
                walk.root(Ref(*root))
                    .map_err(|e| AuditError { what: format!("entry {}: {}", id.0, e.what) })?;
            }
        }
        Ok(walk.facts)
    }

    fn audit_keys(&self) -> Result<(), AuditError> {
        let records = self.section(Section::Slots).len() / SLOT_BYTES;
        let tables = self.section(Section::Recodes).len() / 256;
        let mut used = [false; KEY_BYTES_MAX];
        let mut count = 0;
        for slot in self.key_maker().slots() {
            count += 1;
            self.audit_dim(slot.dim)?;
            for byte in &mut used[slot.offset.into()..][..slot.dim.key_bytes()] {
                ensure!(!*byte, "two dimensions share a byte of the key");
                *byte = true;
            }
            if let Some(table) = slot.recode {
                ensure!(
                    slot.dim.is_small() && usize::from(table) < tables,
                    "recoding table {table} does not exist"
                );
                // Which root is asked hangs on the state itself.
                ensure!(slot.dim != Dim::L4, "states of the transport header are recoded");
            }
        }
        let makes_sense = |record: &[u8]| record[3] == 0;
        let mut slots = self.section(Section::Slots).chunks_exact(SLOT_BYTES);
        ensure!(count == records && slots.all(makes_sense), "a key slot makes no sense");
        let ranks = self.key_maker().ranks();
        ensure!(
            (1..ranks.count()).all(|i| ranks.bound(i - 1) < ranks.bound(i)),
            "interface bounds do not rise"
        );
        Ok(())
    }

    /// The version has the dimension.
    fn audit_dim(&self, dim: Dim) -> Result<(), AuditError> {
        let version = self.version();
        ensure!(
            dim.number() < format::dims_in(version),
            "format version {version} has no dimension for {}",
            dim.name()
        );
        Ok(())
    }

    fn audit_sets(&self) -> Result<(), AuditError> {
        let section = self.section(Section::Sets);
        ensure!(section.is_empty() || section.len() >= HEAD_BYTES, "the sets break off");
        let sets = self.key_maker().sets();
        ensure!(
            sets.count() <= 8 * Dim::SETS
                && section[HEAD_BYTES.min(section.len())..].len() / USE_BYTES >= sets.count(),
            "there are more uses of sets than can be"
        );
        ensure!(
            section.len() < HEAD_BYTES || section[4..HEAD_BYTES].iter().all(|&b| b == 0),
            "the sets' head has bits that say nothing"
        );
        let mut taken = Vec::new();
        let mut extents = Vec::new();
        for i in 0..sets.count() {
            let Some(one) = sets.get(i) else {
                ensure!(false, "use {i} of a set makes no sense");
                continue;
            };
            let record = &section[HEAD_BYTES + i * USE_BYTES..][..USE_BYTES];
            ensure!(
                record[5] < 8 && record[7] == 0 && u32_at(record, 28) == 0,
                "use {i} of a set has bits that say nothing"
            );
            ensure!(!taken.contains(&(one.dim, one.bit)), "two uses of sets share a bit");
            taken.push((one.dim, one.bit));
            ensure!(self.name_checked(one.name).is_some(), "use {i} of a set has no name");
            one.audit(self.is_v6())
                .map_err(|what| AuditError { what: format!("use {i} of a set {what}") })?;
            extents.extend(one.extents());
        }
        // Every byte belongs to one of them, but for zeros up to the next word.
        let mut next = section.len().min(HEAD_BYTES + USE_BYTES * sets.count());
        extents.retain(|e| !e.is_empty());
        extents.sort_by_key(|e| e.start);
        for extent in extents.into_iter().chain(std::iter::once(section.len()..section.len())) {
            let gap = section.get(next..extent.start).filter(|gap| gap.len() < 4);
            ensure!(
                gap.is_some_and(|gap| gap.iter().all(|&b| b == 0)),
                "the sets have bytes that say nothing"
            );
            next = extent.end;
        }
        Ok(())
    }

    fn audit_names(&self) -> Result<(), AuditError> {
        let names = |index: u32| self.name_checked(index).is_some();
        let records = self.section(Section::Entries).chunks_exact(Section::Entries.record_bytes());
        for ((id, entry, _), record) in self.entries().zip(records) {
            ensure!(entry.encode() == *record, "entry {} has bytes that say nothing", id.0);
            ensure!(names(entry.name), "entry {} has no name", id.0);
            let verdicts = self.section(Section::Verdicts).len() / 4;
            ensure!(usize::from(entry.default_verdict) < verdicts, "entry {} has no default verdict", id.0);
        }
        for verdict in self.section(Section::Verdicts).chunks_exact(4) {
            ensure!(names(u32_at(verdict, 0)), "a verdict has no name");
        }
        for origin in self.section(Section::Origins).chunks_exact(12) {
            ensure!(names(u32_at(origin, 0)), "a rule's list has no name");
        }
        Ok(())
    }

    /// Entries share out the positions; every flat rule does something that makes sense.
    fn audit_flats(&self) -> Result<(), AuditError> {
        let origins = self.section(Section::Origins).len() / 12;
        let mut next = 0;
        for (id, entry, _) in self.entries() {
            ensure!(entry.first == next, "entry {} does not begin where the one before ends", id.0);
            ensure!(
                entry.first.checked_add(entry.count).is_some_and(|end| end as usize <= self.flat_count()),
                "entry {} has more positions than there are",
                id.0
            );
            next += entry.count;
            for position in entry.first..next {
                let Some((flat, origin)) = self.flat(position) else {
                    ensure!(false, "position {position} does nothing");
                    continue;
                };
                ensure!((origin.0 as usize) < origins, "position {position} comes from no rule");
                let word = u32_at(self.section(Section::Flats), position as usize * 8);
                ensure!(flat.encode() == word, "position {position} has bits that say nothing");
                match flat {
                    Flat::Verdict(id) => self.audit_verdict(id, position)?,
                    Flat::Program(at) => self.audit_program(at, position, &entry)?,
                    Flat::Return | Flat::Continue => {}
                }
            }
        }
        ensure!(next as usize == self.flat_count(), "some positions belong to no entry");
        Ok(())
    }

    fn audit_verdict(&self, id: u8, position: u32) -> Result<(), AuditError> {
        let verdicts = self.section(Section::Verdicts).len() / 4;
        ensure!(usize::from(id) < verdicts, "position {position} gives verdict {id}, which does not exist");
        Ok(())
    }

    fn audit_program(&self, at: u32, position: u32, entry: &EntryRecord) -> Result<(), AuditError> {
        let programs = self.section(Section::Programs);
        let mut reader = Reader::new(programs, at as usize);
        let mut has_effect = false;
        let mut words = Vec::new();
        loop {
            let Some(op) = reader.op() else {
                ensure!(false, "the program of position {position} breaks off");
                continue;
            };
            ensure!(!has_effect || op.is_end(), "position {position} goes on after its effect");
            words.clear();
            encode(&op, &mut words);
            let stored = programs[..reader.position() * 4].rchunks_exact(4).map(|word| u32_at(word, 0));
            ensure!(
                words.iter().rev().copied().eq(stored.take(words.len())),
                "the program of position {position} has bits that say nothing"
            );
            let inside = |to: u32| position < to && to <= entry.first + entry.count;
            match &op {
                Op::Clause(alternatives) => {
                    alternatives.iter().flatten().try_for_each(|test| self.audit_dim(test.dim))?;
                }
                Op::Effect(_) => has_effect = true,
                Op::Verdict(id) => self.audit_verdict(*id, position)?,
                Op::Skip(to) => {
                    ensure!(inside(*to), "position {position} skips to {to}, outside of its entry")
                }
                Op::Call { entry: called, back } => {
                    ensure!(inside(*back), "position {position} comes back to {back}, outside of its entry");
                    ensure!(
                        self.entry(EntryId(*called)).is_some_and(|e| e.called),
                        "position {position} calls entry {called}, which cannot be called"
                    );
                }
                _ => {}
            }
            if op.is_end() {
                return Ok(());
            }
        }
    }

    /// The called entries of one entry.
    fn calls_of(&self, entry: &EntryRecord) -> impl Iterator<Item = u32> + '_ {
        (entry.first..entry.first + entry.count).filter_map(|position| {
            let Some((Flat::Program(at), _)) = self.flat(position) else { return None };
            let mut reader = Reader::new(self.section(Section::Programs), at as usize);
            loop {
                match reader.op()? {
                    Op::Call { entry, .. } => return Some(entry),
                    op if op.is_end() => return None,
                    _ => {}
                }
            }
        })
    }

    /// Calls form no cycle: repeatedly takes away entries that nobody left calls.
    fn audit_calls(&self) -> Result<(), AuditError> {
        let count = self.entry_count();
        let mut callers = vec![0usize; count];
        for (_, entry, _) in self.entries() {
            self.calls_of(&entry).for_each(|called| callers[called as usize] += 1);
        }
        let mut free: Vec<u32> = (0..count as u32).filter(|&i| callers[i as usize] == 0).collect();
        let mut taken = 0;
        while let Some(i) = free.pop() {
            taken += 1;
            let Some(entry) = self.entry(EntryId(i)) else { continue };
            for called in self.calls_of(&entry) {
                callers[called as usize] -= 1;
                if callers[called as usize] == 0 {
                    free.push(called);
                }
            }
        }
        ensure!(taken == count, "entries call each other in a circle");
        Ok(())
    }
}
