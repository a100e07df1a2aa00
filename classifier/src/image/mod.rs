//! An image: a compiled ruleset as one block of bytes, in memory or mapped from a file.
//!
//! [`Image::open`] looks at the header only, O(1); [`Image::audit`] reads everything once and
//! is for bytes from outside. A lookup on bytes that nobody audited stays inside them and ends,
//! whatever they hold; on audited bytes its answers are what the compiler meant.

mod audit;
mod audit_forest;
pub mod format;
mod write;

use std::ops::Range;

pub use audit::{AuditError, Facts, LeafSeen};
pub use format::{EntryRecord, Flat, Section};
pub use write::{Origin, Parts};

use crate::dim::Ranks;
use crate::forest::Ref;
use crate::forest::leaf::Form;
use crate::forest::lookup::{Forest, Machine};
use crate::key::{Key, KeyMaker};
use crate::packet::Packet;
use crate::program::{Op, Reader};
use crate::sets::Sets;

/// Why bytes are no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The first bytes are others.
    #[error("not a hipac image: it does not begin with \"hipacimg\"")]
    NotAnImage,
    /// Made by another version.
    #[error(
        "image has format version {found}, this build reads {}: compile the rules again",
        format::VERSION
    )]
    Version {
        /// The version in the image.
        found: u32,
    },
    /// Cut short, or with bytes behind its end.
    #[error("image says it has {stated} bytes, but {found} are there: copy it again")]
    Length {
        /// What the header says.
        stated: u64,
        /// What there is.
        found: u64,
    },
    /// The header's checksum is wrong.
    #[error("image header is damaged (checksum differs): compile the rules again")]
    Header,
    /// A section is not where it can be.
    #[error(
        "image section `{section}` is damaged (it lies outside of the file or is cut): compile the rules again"
    )]
    Section {
        /// Which.
        section: &'static str,
    },
}

/// Identifies an entry point of an image: a built-in chain, or a chain that is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId(pub u32);

/// Identifies a source rule of an image; see [`Image::origin`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OriginId(pub u32);

/// A compiled ruleset over any bytes: `Vec<u8>`, `&[u8]`, a mapped file.
#[derive(Debug, Clone)]
pub struct Image<B> {
    bytes: B,
    sections: [Range<usize>; Section::COUNT],
    version: u32,
    is_v6: bool,
    machine: Machine,
    /// Bytes of a key.
    key_bytes: usize,
}

impl<B: AsRef<[u8]>> Image<B> {
    /// Opens an image: checks its header and where its sections lie. Costs O(1).
    ///
    /// # Errors
    /// The bytes are no image of this version, or are not whole.
    pub fn open(bytes: B) -> Result<Image<B>, OpenError> {
        let b = bytes.as_ref();
        if !b.starts_with(&format::MAGIC) {
            return Err(OpenError::NotAnImage);
        }
        let smallest = format::HEADER_BYTES + 16 * Section::count_in(format::VERSION_1);
        if b.len() < smallest {
            return Err(OpenError::Length { stated: smallest as u64, found: b.len() as u64 });
        }
        let version = crate::forest::u32_at(b, 8);
        if !(format::VERSION_1..=format::VERSION).contains(&version) {
            return Err(OpenError::Version { found: version });
        }
        let table_end = format::HEADER_BYTES + 16 * Section::count_in(version);
        if crc32fast::hash(&b[..28]) != crate::forest::u32_at(b, 28) {
            return Err(OpenError::Header);
        }
        let stated = u64_at(b, 16);
        if stated != b.len() as u64 || b.len() < table_end {
            return Err(OpenError::Length { stated, found: b.len() as u64 });
        }
        let is_v6 = match crate::forest::u32_at(b, 12) {
            4 => false,
            6 => true,
            _ => return Err(OpenError::Header),
        };
        let mut sections = [const { 0..0 }; Section::COUNT];
        for (i, section) in Section::ALL.into_iter().take(Section::count_in(version)).enumerate() {
            let damaged = OpenError::Section { section: section.name() };
            let at = format::HEADER_BYTES + 16 * i;
            let range = (|| {
                let start = usize::try_from(u64_at(b, at)).ok()?;
                let end = start.checked_add(usize::try_from(u64_at(b, at + 8)).ok()?)?;
                let whole = (end - start).is_multiple_of(section.record_bytes());
                (whole && start >= table_end && end <= b.len()).then_some(start..end)
            })();
            sections[i] = range.ok_or(damaged)?;
        }
        let mut image = Image { bytes, version, sections, is_v6, machine: Machine::SCALAR, key_bytes: 0 };
        image.key_bytes = image.key_maker().key_bytes();
        Ok(image.with_machine(Machine::detect()))
    }

    /// The same image, looked up by another machine: for tests and comparisons. Leaves of the old form
    /// are read by [`Machine::SCALAR`] whatever is asked for.
    pub fn with_machine(mut self, machine: Machine) -> Self {
        self.machine = match self.leaf_form() {
            Form::Old => Machine::SCALAR,
            Form::New => machine.for_keys(self.key_bytes),
        };
        self
    }

    /// The version of its format.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The form of its lean leaves.
    pub(crate) fn leaf_form(&self) -> Form {
        if self.version < 3 { Form::Old } else { Form::New }
    }

    /// The machine that looks up.
    pub fn machine(&self) -> Machine {
        self.machine
    }

    /// All its bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_ref()
    }

    /// Its rules are IPv6 rules.
    pub fn is_v6(&self) -> bool {
        self.is_v6
    }

    /// The bytes of one section.
    #[inline]
    pub fn section(&self, section: Section) -> &[u8] {
        &self.bytes.as_ref()[self.sections[section as usize].clone()]
    }

    /// Makes keys of packets.
    pub fn key_maker(&self) -> KeyMaker<'_> {
        let ranks = Ranks::new(self.section(Section::Ranks));
        let sets = Sets::new(self.section(Section::Sets));
        KeyMaker::new(self.section(Section::Slots), self.section(Section::Recodes), ranks, sets)
    }

    /// The key of a packet.
    pub fn key(&self, packet: &Packet) -> Key {
        self.key_maker().key(packet)
    }

    /// How many entries there are.
    pub fn entry_count(&self) -> usize {
        self.section(Section::Entries).len() / Section::Entries.record_bytes()
    }

    /// An entry's record.
    #[inline]
    pub fn entry(&self, id: EntryId) -> Option<EntryRecord> {
        let at = (id.0 as usize).checked_mul(Section::Entries.record_bytes())?;
        let bytes = self.section(Section::Entries).get(at..)?.first_chunk::<32>()?;
        Some(EntryRecord::decode(bytes))
    }

    /// All entries with their names: `filter/FORWARD`.
    pub fn entries(&self) -> impl Iterator<Item = (EntryId, EntryRecord, &str)> {
        (0..self.entry_count() as u32).filter_map(|i| {
            let record = self.entry(EntryId(i))?;
            Some((EntryId(i), record, self.name(record.name)))
        })
    }

    /// The entry point of that name that is no called chain.
    pub fn find_entry(&self, name: &str) -> Option<EntryId> {
        self.entries().find(|(_, record, n)| !record.called && *n == name).map(|(id, ..)| id)
    }

    /// What the flat rule at a position does, and the rule it comes from.
    #[inline]
    pub fn flat(&self, position: u32) -> Option<(Flat, OriginId)> {
        let at = (position as usize).checked_mul(8)?;
        let bytes = self.section(Section::Flats).get(at..)?.first_chunk::<8>()?;
        let flat = Flat::decode(crate::forest::u32_at(bytes, 0))?;
        Some((flat, OriginId(crate::forest::u32_at(bytes, 4))))
    }

    /// What the flat rule at a position does, as operations: for showing and checking. `None` on damage.
    pub fn operations(&self, position: u32) -> Option<Vec<Op>> {
        let mut reader = match self.flat(position)?.0 {
            Flat::Verdict(id) => return Some(vec![Op::Verdict(id)]),
            Flat::Return => return Some(vec![Op::Return]),
            Flat::Continue => return Some(vec![Op::Continue]),
            Flat::Program(word) => Reader::new(self.section(Section::Programs), word as usize),
        };
        let mut ops: Vec<Op> = Vec::new();
        while !ops.last().is_some_and(Op::is_end) {
            ops.push(reader.op()?);
        }
        Some(ops)
    }

    /// How many flat rules there are.
    pub fn flat_count(&self) -> usize {
        self.section(Section::Flats).len() / Section::Flats.record_bytes()
    }

    /// Where a source rule stands: list, number, line.
    pub fn origin(&self, id: OriginId) -> Option<Origin> {
        let at = (id.0 as usize).checked_mul(12)?;
        let bytes = self.section(Section::Origins).get(at..)?.first_chunk::<12>()?;
        let word = |at| crate::forest::u32_at(bytes, at);
        Some(Origin { list: word(0), number: word(4), line: word(8) })
    }

    /// The name of a verdict.
    pub fn verdict_name(&self, id: u8) -> &str {
        let at = usize::from(id) * 4;
        match self.section(Section::Verdicts).get(at..).and_then(|b| b.first_chunk::<4>()) {
            Some(index) => self.name(u32::from_le_bytes(*index)),
            None => "",
        }
    }

    /// A name of the image; empty when there is none of that index.
    pub fn name(&self, index: u32) -> &str {
        self.name_checked(index).unwrap_or("")
    }

    fn name_checked(&self, index: u32) -> Option<&str> {
        let bytes = self.section(Section::Names);
        let count = u32::from_le_bytes(*bytes.first_chunk()?);
        if index >= count {
            return None;
        }
        let end_of = |i: u32| {
            let at = 4 + 4 * i as usize;
            bytes.get(at..)?.first_chunk::<4>().map(|b| u32::from_le_bytes(*b) as usize)
        };
        let text = 4 + 4 * count as usize;
        let start = if index == 0 { 0 } else { end_of(index - 1)? };
        std::str::from_utf8(bytes.get(text.checked_add(start)?..text.checked_add(end_of(index)?)?)?).ok()
    }

    /// The forest of an entry, ready to be looked up in: for more than a few lookups, keep it.
    /// `is_sound`: the packets' transport headers are ([`L4::is_sound`](crate::L4::is_sound));
    /// those whose are not have a forest of their own.
    ///
    /// Its answers are positions of flat rules, [`NO_MATCH`](crate::forest::lookup::NO_MATCH) when no box holds
    /// the key.
    #[inline]
    pub fn forest(&self, entry: &EntryRecord, is_sound: bool) -> Forest<'_> {
        let root = Ref(if is_sound { entry.root } else { entry.broken_root });
        Forest::new(self.machine, self.section(Section::Arena), root, self.key_bytes)
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut array = [0; 8];
    array.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(array)
}
