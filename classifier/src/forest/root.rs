//! A root: up to four trees, each behind a direct table of gated cells.
//!
//! ```text
//!  root     0      4      8      12    16 + 32·t
//!           trees  first  shift  0     tree t
//!           u32    u32    u32
//!
//!  tree     0        4       8 …            16 …            24       28
//!           cells    bits    window, shift, window, shift,  0        0
//!           u32 unit u32     mask u16 of    mask u16 of
//!                            index half A   index half B …   see `TreeRecord`
//!
//!  cell     ref u32, gate u32     gate: smallest position ≫ 24, filter below
//! ```
//!
//! The **index** of a key's cell is made of some bits of two windows. Each **cell** refers to
//! what its rules became, a node or a leaf, and its **gate** says whether that can matter to
//! this key: 8 bits are the smallest position in the cell (less `first`, over 2^`shift`),
//! compared with the best match so far; 24 bits are a filter: five bits of the key, again from
//! two windows, folded to 24 values. A value's bit is set when some rule of the cell may hold a
//! key with it. A bit too many is slow, a bit too few is wrong.

use super::{Ref, u32_at};
use crate::key::Key;

/// Trees, at most.
pub const TREES_MAX: usize = 4;

/// Bytes before the tree records.
pub const HEADER_BYTES: usize = 16;

/// Bytes of a tree record.
pub const TREE_BYTES: usize = 32;

/// Bytes of a cell.
pub const CELL_BYTES: usize = 8;

/// Bits of a cell's index, at most.
pub const INDEX_BITS_MAX: u32 = 20;

/// Filter values.
pub const FILTER_VALUES: u32 = 24;

/// All filter bits.
pub const FILTER_ALL: u32 = (1 << FILTER_VALUES) - 1;

/// Some bits of a window of the key: `(window >> shift) & mask`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bits {
    /// Key offset.
    pub window: u8,
    /// Bits below.
    pub shift: u8,
    /// As many ones as there are bits.
    pub mask: u16,
}

impl Bits {
    /// No bits: always 0.
    pub const NONE: Bits = Bits { window: 0, shift: 0, mask: 0 };

    /// How many bits.
    pub fn count(self) -> u32 {
        self.mask.count_ones()
    }

    /// Their value in a key.
    #[inline(always)]
    pub fn of(self, key: &Key) -> u32 {
        u32::from(key.window(self.window) >> (self.shift & 15)) & u32::from(self.mask)
    }

    fn encode(self) -> u32 {
        u32::from(self.window) | u32::from(self.shift) << 8 | u32::from(self.mask) << 16
    }

    #[inline(always)]
    fn decode(word: u32) -> Bits {
        Bits { window: word as u8, shift: (word >> 8) as u8, mask: (word >> 16) as u16 }
    }
}

/// One tree's record, taken apart.
///
/// Words: unit of the cells, index half A, index half B, filter half A, filter half B, three
/// zeros. The index is `A << bits of B | B`; the filter's value `A << bits of B | B` has five
/// bits at most and is folded by `· 3 / 4`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TreeRecord {
    /// Unit at which the cells begin.
    pub cells: u32,
    /// The index.
    pub index: [Bits; 2],
    /// The filter's value.
    pub filter: [Bits; 2],
}

impl TreeRecord {
    /// A tree that has no table.
    pub const NONE: TreeRecord =
        TreeRecord { cells: u32::MAX, index: [Bits::NONE; 2], filter: [Bits::NONE; 2] };

    /// The 32 bytes.
    pub fn encode(&self) -> [u8; TREE_BYTES] {
        let words = [
            self.cells,
            self.index[0].encode(),
            self.index[1].encode(),
            self.filter[0].encode(),
            self.filter[1].encode(),
        ];
        let mut out = [0; TREE_BYTES];
        for (i, word) in words.into_iter().enumerate() {
            out[4 * i..][..4].copy_from_slice(&word.to_le_bytes());
        }
        out
    }

    /// Reads the 32 bytes.
    #[inline(always)]
    pub fn decode(bytes: &[u8; TREE_BYTES]) -> TreeRecord {
        let bits = |at| Bits::decode(u32_at(bytes, at));
        TreeRecord { cells: u32_at(bytes, 0), index: [bits(4), bits(8)], filter: [bits(12), bits(16)] }
    }

    /// Its masks are plain ones and its index is no longer than it may be: the index of any key
    /// is below [`TreeRecord::cell_count`].
    #[inline(always)]
    pub fn is_sound(&self) -> bool {
        let plain = |bits: Bits| bits.mask & bits.mask.wrapping_add(1) == 0;
        self.index.into_iter().chain(self.filter).all(plain)
            && self.index[0].count() + self.index[1].count() <= INDEX_BITS_MAX
            && self.filter[0].count() + self.filter[1].count() <= 5
    }

    /// Cells: two to the power of the index bits.
    pub fn cell_count(&self) -> usize {
        1 << (self.index[0].count() + self.index[1].count())
    }

    /// The cell of a key.
    #[inline(always)]
    pub fn cell(&self, key: &Key) -> usize {
        (self.index[0].of(key) << self.index[1].count() | self.index[1].of(key)) as usize
    }

    /// The bit of a key in the filters of this tree.
    #[inline(always)]
    pub fn filter_bit(&self, key: &Key) -> u32 {
        1 << fold(self.filter[0].of(key) << self.filter[1].count() | self.filter[1].of(key))
    }
}

/// A five-bit filter value as one of 24.
#[inline(always)]
pub fn fold(value: u32) -> u32 {
    ((value & 31) * 3) >> 2
}

/// What a cell holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    /// A node, a leaf, or nothing.
    pub reference: Ref,
    /// Smallest position and filter.
    pub gate: u32,
}

impl Cell {
    /// No rule.
    pub const EMPTY: Cell = Cell { reference: Ref::EMPTY, gate: 255 << 24 };

    /// From its 8 bytes as one little-endian word.
    #[inline(always)]
    pub fn from_word(word: u64) -> Cell {
        Cell { reference: Ref(word as u32), gate: (word >> 32) as u32 }
    }

    /// Its 8 bytes as one word.
    #[inline(always)]
    pub fn word(self) -> u64 {
        u64::from(self.gate) << 32 | u64::from(self.reference.0)
    }

    /// The 8 bytes.
    pub fn encode(self) -> [u8; CELL_BYTES] {
        self.word().to_le_bytes()
    }

    /// The gate lets a key with this filter bit in, when the best match so far is `best`
    /// (scaled).
    #[inline(always)]
    pub fn lets_in(self, filter_bit: u32, best: u32) -> bool {
        self.gate & filter_bit != 0 && self.gate >> 24 <= best
    }
}

/// A root in place.
#[derive(Debug, Clone, Copy)]
pub struct Root<'a> {
    header: &'a [u8; HEADER_BYTES],
    trees: &'a [u8],
}

impl<'a> Root<'a> {
    /// Views the root at `offset` of an arena; `None` when there cannot be one.
    #[inline(always)]
    pub fn view(arena: &'a [u8], offset: usize) -> Option<Root<'a>> {
        let bytes = arena.get(offset..)?;
        let header = bytes.first_chunk()?;
        let trees = u32_at(header, 0) as usize;
        if trees > TREES_MAX {
            return None;
        }
        Some(Root { header, trees: bytes.get(HEADER_BYTES..HEADER_BYTES + trees * TREE_BYTES)? })
    }

    /// The bytes of a root's header.
    pub fn encode_header(trees: usize, first: u32, shift: u32) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        for (i, word) in [trees as u32, first, shift].into_iter().enumerate() {
            out[4 * i..][..4].copy_from_slice(&word.to_le_bytes());
        }
        out
    }

    /// How many trees.
    #[inline(always)]
    pub fn tree_count(&self) -> usize {
        self.trees.len() / TREE_BYTES
    }

    /// A tree's record.
    #[inline(always)]
    pub fn tree(&self, index: usize) -> TreeRecord {
        let bytes = self.trees[index * TREE_BYTES..].first_chunk();
        bytes.map_or(TreeRecord::default(), TreeRecord::decode)
    }

    /// First position of the entry, and the shift that scales positions to 8 bits.
    #[inline(always)]
    pub fn scale(&self) -> Scale {
        Scale { first: u32_at(self.header, 4), shift: u32_at(self.header, 8) & 31 }
    }
}

/// Scales positions to the 8 bits of a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    /// First position of the entry.
    pub first: u32,
    /// Bits dropped.
    pub shift: u32,
}

impl Scale {
    /// The scale for `count` positions from `first` on.
    pub fn of(first: u32, count: u32) -> Scale {
        Scale { first, shift: (32 - count.leading_zeros()).saturating_sub(8) }
    }

    /// A position, scaled; no match is 255.
    #[inline(always)]
    pub fn scaled(self, position: u32) -> u32 {
        (position.wrapping_sub(self.first) >> self.shift).min(255)
    }
}

/// The cell at `index` of a table at unit `cells`; empty when it lies outside.
#[inline(always)]
pub fn cell_at(arena: &[u8], cells: u32, index: usize) -> Cell {
    let at = cells as usize * super::UNIT + index * CELL_BYTES;
    match arena.get(at..).and_then(|a| a.first_chunk::<CELL_BYTES>()) {
        Some(bytes) => Cell::from_word(u64::from_le_bytes(*bytes)),
        None => Cell::EMPTY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_their_bytes() {
        let bits = |window, shift, mask| Bits { window, shift, mask };
        let tree = TreeRecord {
            cells: 99,
            index: [bits(2, 4, 0xfff), bits(6, 12, 0xf)],
            filter: [bits(10, 0, 7), bits(12, 0, 3)],
        };
        assert_eq!(TreeRecord::decode(&tree.encode()), tree);
        assert_eq!(tree.cell_count(), 1 << 16);
        let mut key = Key::ZERO;
        key.0[2..4].copy_from_slice(&0xabcd_u16.to_le_bytes());
        key.0[6..8].copy_from_slice(&0x5123_u16.to_le_bytes());
        assert_eq!(tree.cell(&key), 0xabc5);
    }

    #[test]
    fn folding_covers_24_values_and_no_more() {
        let folded: std::collections::BTreeSet<u32> = (0..32).map(fold).collect();
        assert_eq!(folded.into_iter().collect::<Vec<_>>(), (0..24).collect::<Vec<_>>());
    }

    #[test]
    fn scaled_positions_never_pass_a_gate_too_early() {
        let scale = Scale::of(1000, 100_000);
        for (smallest, best) in [(1000, 1000), (5000, 4999), (5000, 5000), (101_000, 100_999)] {
            // Whatever may be earlier than the best is let in.
            if smallest < best {
                assert!(scale.scaled(smallest) <= scale.scaled(best));
            }
        }
        assert_eq!(scale.scaled(u32::MAX), 255);
        assert!(scale.scaled(100_999) < 255);
    }
}
