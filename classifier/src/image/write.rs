//! Writing an image from its parts.

use super::format::{self, EntryRecord, Section};
use crate::dim::Dim;
use crate::key::{SLOT_BYTES, Slot};
use crate::program;

/// Where a source rule stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Index of the name of the list (the chain) that holds it.
    pub list: u32,
    /// Its number in the list, from 1.
    pub number: u32,
    /// Its line in the source text, from 1; 0 when there is none.
    pub line: u32,
}

/// The parts of an image. Everything is stored in the order given: same parts, same bytes.
#[derive(Debug, Clone, Default)]
pub struct Parts {
    /// The rules are IPv6 rules.
    pub is_v6: bool,
    /// The key.
    pub slots: Vec<Slot>,
    /// Recoding tables.
    pub recodes: Vec<[u8; 256]>,
    /// Bounds of interface names, rising.
    pub ranks: Vec<u128>,
    /// Entries.
    pub entries: Vec<EntryRecord>,
    /// Encoded [`Flat`](super::Flat) and origin of each position.
    pub flats: Vec<(u32, u32)>,
    /// Program words.
    pub programs: Vec<u32>,
    /// Origins of source rules.
    pub origins: Vec<Origin>,
    /// Name index of each verdict.
    pub verdicts: Vec<u32>,
    /// Names.
    pub names: Vec<String>,
    /// The forest, slack included.
    pub arena: Vec<u8>,
    /// IP sets, see [`crate::sets`]; nothing when there are none.
    pub sets: Vec<u8>,
}

impl Parts {
    /// Bytes of the image that [`Parts::encode`] makes, were its arena of `arena_bytes`.
    pub fn image_bytes(&self, arena_bytes: usize) -> usize {
        let count = Section::count_in(self.version());
        Section::ALL[..count].iter().fold(format::HEADER_BYTES + 16 * count, |at, &section| {
            at.next_multiple_of(format::ALIGNMENT) + self.section_bytes(section, arena_bytes)
        })
    }

    /// The first version that can say all of it.
    fn version(&self) -> u32 {
        let in_key = self.slots.iter().map(|slot| slot.dim).max();
        let last = in_key.max(program::dim_max(&self.programs)).map_or(0, Dim::number);
        let knows = |version| last < format::dims_in(version);
        match self.sets.is_empty() && knows(format::VERSION_1) {
            true => format::VERSION_1,
            false if knows(format::VERSION_2) => format::VERSION_2,
            false => format::VERSION,
        }
    }

    fn section_bytes(&self, section: Section, arena_bytes: usize) -> usize {
        let records = match section {
            Section::Slots => self.slots.len(),
            Section::Recodes => self.recodes.len(),
            Section::Ranks => self.ranks.len(),
            Section::Entries => self.entries.len(),
            Section::Flats => self.flats.len(),
            Section::Programs => self.programs.len(),
            Section::Origins => self.origins.len(),
            Section::Verdicts => self.verdicts.len(),
            Section::Names => 4 + self.names.iter().map(|n| 4 + n.len()).sum::<usize>(),
            Section::Arena => return arena_bytes,
            Section::Sets => self.sets.len(),
        };
        records * section.record_bytes()
    }

    /// The bytes of the image.
    pub fn encode(&self) -> Vec<u8> {
        let total = self.image_bytes(self.arena.len());
        let mut out = Vec::with_capacity(total);
        let count = Section::count_in(self.version());
        out.resize(format::HEADER_BYTES + 16 * count, 0);
        for (i, section) in Section::ALL.into_iter().take(count).enumerate() {
            out.resize(out.len().next_multiple_of(format::ALIGNMENT), 0);
            let start = out.len();
            self.put(section, &mut out);
            debug_assert_eq!(out.len() - start, self.section_bytes(section, self.arena.len()));
            let at = format::HEADER_BYTES + 16 * i;
            let bytes = (out.len() - start) as u64;
            out[at..at + 8].copy_from_slice(&(start as u64).to_le_bytes());
            out[at + 8..at + 16].copy_from_slice(&bytes.to_le_bytes());
        }
        out[..8].copy_from_slice(&format::MAGIC);
        out[8..12].copy_from_slice(&self.version().to_le_bytes());
        out[12..16].copy_from_slice(&(if self.is_v6 { 6u32 } else { 4 }).to_le_bytes());
        let bytes = out.len() as u64;
        out[16..24].copy_from_slice(&bytes.to_le_bytes());
        let body = crc32fast::hash(&out[format::HEADER_BYTES..]);
        out[24..28].copy_from_slice(&body.to_le_bytes());
        let head = crc32fast::hash(&out[..28]);
        out[28..32].copy_from_slice(&head.to_le_bytes());
        out
    }

    fn put(&self, section: Section, out: &mut Vec<u8>) {
        match section {
            Section::Slots => self.slots.iter().for_each(|s| {
                let record: [u8; SLOT_BYTES] = [s.dim.number(), s.offset, s.recode.unwrap_or(255), 0];
                out.extend(record);
            }),
            Section::Recodes => self.recodes.iter().for_each(|r| out.extend(r)),
            Section::Ranks => self.ranks.iter().for_each(|r| out.extend(r.to_be_bytes())),
            Section::Entries => self.entries.iter().for_each(|e| out.extend(e.encode())),
            Section::Flats => self.flats.iter().for_each(|(word, origin)| {
                out.extend(word.to_le_bytes());
                out.extend(origin.to_le_bytes());
            }),
            Section::Programs => self.programs.iter().for_each(|w| out.extend(w.to_le_bytes())),
            Section::Origins => self.origins.iter().for_each(|o| {
                [o.list, o.number, o.line].iter().for_each(|w| out.extend(w.to_le_bytes()));
            }),
            Section::Verdicts => self.verdicts.iter().for_each(|v| out.extend(v.to_le_bytes())),
            Section::Names => {
                out.extend((self.names.len() as u32).to_le_bytes());
                let mut end = 0u32;
                for name in &self.names {
                    end += name.len() as u32;
                    out.extend(end.to_le_bytes());
                }
                self.names.iter().for_each(|n| out.extend(n.as_bytes()));
            }
            Section::Arena => out.extend(&self.arena),
            Section::Sets => out.extend(&self.sets),
        }
    }
}
