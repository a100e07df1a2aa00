//! The image file, byte by byte.
//!
//! ```text
//!  offset  size
//!  0       8     "hipacimg"
//!  8       4     format version: 1, 2 or 3
//!  12      4     family: 4 or 6
//!  16      8     bytes of the whole image
//!  24      4     CRC-32 of all bytes from 64 on
//!  28      4     CRC-32 of bytes 0–27
//!  32      32    zero
//!  64      16×S  section table: offset u64, bytes u64; sections begin at multiples of 64
//!
//!  section    record
//!  slots      4   dimension u8, key offset u8, recoding table u8 or 255, zero
//!  recodes    256 class of each raw value
//!  ranks      16  bound of interface names, big-endian, rising
//!  entries    32  root u32, root of malformed packets u32, default verdict u8,
//!                 called u8, zero u16, first position u32, positions u32,
//!                 name u32, zero u64
//!  flats      8   tag ≪ 29 | payload u32, origin u32: one a position
//!  programs   4   words, see `program`
//!  origins    12  list name u32, number u32, line u32: one a source rule
//!  verdicts   4   name u32
//!  names      –   count u32, end of each u32, then the bytes
//!  arena      16  the forest, see `forest`; ends with 64 zero bytes
//!  sets       –   from version 2 on: IP sets, see `sets`
//! ```
//!
//! Version 2 is version 1 with one section more and dimensions from 29 on. Version 3 has dimensions from 55
//! on, and lean leaves of the [new form](crate::forest::leaf::Form) in place of old ones. Version 3 is what is
//! written; images of all versions are read, those of the first two without vectors: compiled again they are
//! faster.
//!
//! All numbers are little-endian; all references are offsets: the file is position independent
//! and can be mapped. What a version means never changes; a change makes a new version.

/// The first bytes.
pub const MAGIC: [u8; 8] = *b"hipacimg";

/// The latest version, which this build reads as well as those before it.
pub const VERSION: u32 = 3;

/// The first version.
pub const VERSION_1: u32 = 1;

/// The second version.
pub const VERSION_2: u32 = 2;

/// Dimensions that a version knows: those with smaller numbers.
pub fn dims_in(version: u32) -> u8 {
    match version {
        VERSION_1 => 29,
        VERSION_2 => 55,
        _ => crate::dim::Dim::COUNT as u8,
    }
}

/// Bytes before the section table.
pub const HEADER_BYTES: usize = 64;

/// Where the header's unused bytes begin.
pub const HEADER_SPARE_AT: usize = 32;

/// Sections, in the order of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the module's table says what they hold
pub enum Section {
    Slots,
    Recodes,
    Ranks,
    Entries,
    Flats,
    Programs,
    Origins,
    Verdicts,
    Names,
    Arena,
    Sets,
}

impl Section {
    /// How many.
    pub const COUNT: usize = 11;

    /// How many an image of a version has: the first so many.
    pub fn count_in(version: u32) -> usize {
        if version == VERSION_1 { 10 } else { Section::COUNT }
    }

    /// All, in order.
    pub const ALL: [Section; Section::COUNT] = {
        use Section::*;
        [Slots, Recodes, Ranks, Entries, Flats, Programs, Origins, Verdicts, Names, Arena, Sets]
    };

    /// Bytes of a record; a section holds a whole number of them.
    pub fn record_bytes(self) -> usize {
        match self {
            Section::Slots | Section::Programs | Section::Verdicts => 4,
            Section::Recodes => 256,
            Section::Ranks | Section::Arena => 16,
            Section::Entries => 32,
            Section::Flats => 8,
            Section::Origins => 12,
            Section::Names | Section::Sets => 1,
        }
    }

    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Section::Slots => "slots",
            Section::Recodes => "recodes",
            Section::Ranks => "ranks",
            Section::Entries => "entries",
            Section::Flats => "flats",
            Section::Programs => "programs",
            Section::Origins => "origins",
            Section::Verdicts => "verdicts",
            Section::Names => "names",
            Section::Arena => "arena",
            Section::Sets => "sets",
        }
    }
}

// A change of what the bytes hold needs a new version: this line makes whoever adds a dimension
// or a section think of it.
const _: () = assert!(crate::dim::Dim::COUNT == 67 && Section::COUNT == 11 && VERSION == 3);

/// Sections begin at multiples of this.
pub const ALIGNMENT: usize = 64;

/// What a flat rule does when its box holds the packet: the tag of its first word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flat {
    /// A verdict, without further questions.
    Verdict(u8),
    /// Ends the entry.
    Return,
    /// Counts, and goes on.
    Continue,
    /// Runs the program that begins at this word.
    Program(u32),
}

impl Flat {
    const SHIFT: u32 = 29;

    /// Words that the programs section may have.
    pub const PROGRAM_WORDS_MAX: usize = (1 << Flat::SHIFT) - 1;

    /// The word.
    pub fn encode(self) -> u32 {
        match self {
            Flat::Verdict(id) => id.into(),
            Flat::Return => 1 << Flat::SHIFT,
            Flat::Continue => 2 << Flat::SHIFT,
            Flat::Program(at) => 3 << Flat::SHIFT | at,
        }
    }

    /// What a word says; `None` when it says nothing.
    #[inline]
    pub fn decode(word: u32) -> Option<Flat> {
        let payload = word & Flat::PROGRAM_WORDS_MAX as u32;
        match word >> Flat::SHIFT {
            0 => Some(Flat::Verdict(payload as u8)),
            1 => Some(Flat::Return),
            2 => Some(Flat::Continue),
            3 => Some(Flat::Program(payload)),
            _ => None,
        }
    }
}

/// An entry record, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EntryRecord {
    /// Root for packets whose transport header is sound.
    pub root: u32,
    /// Root for the others.
    pub broken_root: u32,
    /// Verdict at the end.
    pub default_verdict: u8,
    /// Reached by calls only: its end goes back to the caller.
    pub called: bool,
    /// First position of its flat rules.
    pub first: u32,
    /// How many it has.
    pub count: u32,
    /// Index of its name.
    pub name: u32,
}

impl EntryRecord {
    /// The 32 bytes.
    pub fn encode(&self) -> [u8; 32] {
        let mut out = [0; 32];
        out[0..4].copy_from_slice(&self.root.to_le_bytes());
        out[4..8].copy_from_slice(&self.broken_root.to_le_bytes());
        out[8] = self.default_verdict;
        out[9] = self.called.into();
        out[12..16].copy_from_slice(&self.first.to_le_bytes());
        out[16..20].copy_from_slice(&self.count.to_le_bytes());
        out[20..24].copy_from_slice(&self.name.to_le_bytes());
        out
    }

    /// Reads the 32 bytes.
    #[inline]
    pub fn decode(bytes: &[u8; 32]) -> EntryRecord {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        EntryRecord {
            root: word(0),
            broken_root: word(4),
            default_verdict: bytes[8],
            called: bytes[9] != 0,
            first: word(12),
            count: word(16),
            name: word(20),
        }
    }
}
