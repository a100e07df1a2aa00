//! A lean leaf: up to 8 rules, compared with the key in one or two vectors.
//!
//! ```text
//!  0      1       2       3      4                12
//!  rules  guards  ranges  exact  window u8 × 8    lo u16 × lanes    hi u16 × hi lanes
//!  u8 n   u8 g    u8 r    u8 e   g, then r, e     g + (r + e)·n     g + r·n
//!
//!  with more than 8 columns, as IPv6 may need: n + 128, 12 windows, lo from 16 on
//!
//!  then, at a multiple of 4:   positions  u32 × n, not falling
//! ```
//!
//! A *column* is a window of the key that some rule does not already cover in the leaf's
//! region; the path has decided the others. Its lanes are the ranges of the n rules. A column in
//! which all rules have the same range is a *guard*, one lane; one in which every range is a
//! single value stores no upper ends. Lane `g + c·n + i` is rule `i` in column `c`, so the
//! rules that hold are the AND of the lane mask shifted by multiples of n. Nothing is padded:
//! kernels load past the end and mask; the column of a lane follows from n and g alone.

use super::{ARENA_SLACK, UNIT, u16_at, u32_at};
use crate::key::Key;

/// Rules, at most.
pub const RULES_MAX: usize = 8;

/// Columns, at most.
pub const COLUMNS_MAX: usize = 12;

/// Columns of a leaf whose header is not long, at most.
pub const SHORT_COLUMNS_MAX: usize = 8;

/// Bit of the first byte: the header is long.
const LONG: u8 = 0x80;

/// Lanes, at most: two vectors, less one so that a shift by all of them is one.
pub const LANES_MAX: usize = 63;

/// Lanes of one vector.
pub const VECTOR_LANES: usize = 32;

/// Offset of the windows.
pub const WINDOWS_AT: usize = 4;

/// Offset of the lower ends behind a header that is not long.
pub const LO_AT: usize = 12;

/// Offset of the lower ends behind a long header.
pub const LONG_LO_AT: usize = 16;

/// Where everything lies in a lean leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Rules.
    pub rules: usize,
    /// Guard columns.
    pub guards: usize,
    /// Range columns.
    pub ranges: usize,
    /// Columns of single values.
    pub exact: usize,
    /// The header has room for 12 windows.
    pub is_long: bool,
}

impl Layout {
    /// Reads the first four bytes.
    #[inline(always)]
    pub fn read(bytes: &[u8; LO_AT]) -> Layout {
        Layout {
            rules: (bytes[0] & !LONG).into(),
            is_long: bytes[0] & LONG != 0,
            guards: bytes[1].into(),
            ranges: bytes[2].into(),
            exact: bytes[3].into(),
        }
    }

    /// The first four bytes.
    pub fn header(&self) -> [u8; 4] {
        let rules = self.rules as u8 | if self.is_long { LONG } else { 0 };
        [rules, self.guards as u8, self.ranges as u8, self.exact as u8]
    }

    /// Lower ends.
    #[inline(always)]
    pub fn lanes(&self) -> usize {
        self.guards + (self.ranges + self.exact) * self.rules
    }

    /// Upper ends: lanes of guards and ranges, which come first.
    #[inline(always)]
    pub fn hi_lanes(&self) -> usize {
        self.guards + self.ranges * self.rules
    }

    /// Columns.
    #[inline(always)]
    pub fn columns(&self) -> usize {
        self.guards + self.ranges + self.exact
    }

    /// Offset of the lower ends.
    #[inline(always)]
    pub fn lo_at(&self) -> usize {
        if self.is_long { LONG_LO_AT } else { LO_AT }
    }

    /// Offset of the upper ends.
    #[inline(always)]
    pub fn hi_at(&self) -> usize {
        self.lo_at() + 2 * self.lanes()
    }

    /// Offset of the positions.
    #[inline(always)]
    pub fn positions_at(&self) -> usize {
        (self.hi_at() + 2 * self.hi_lanes() + 3) & !3
    }

    /// Bytes up to the padding.
    #[inline(always)]
    pub fn bytes(&self) -> usize {
        self.positions_at() + 4 * self.rules
    }

    /// A leaf of this layout can be.
    #[inline(always)]
    pub fn is_sound(&self) -> bool {
        let columns_max = if self.is_long { COLUMNS_MAX } else { SHORT_COLUMNS_MAX };
        self.rules.wrapping_sub(1) < RULES_MAX && self.columns() <= columns_max && self.lanes() <= LANES_MAX
    }
}

/// A lean leaf in place.
#[derive(Debug, Clone, Copy)]
pub struct Leaf<'a> {
    /// Where things are.
    pub layout: Layout,
    /// The bytes from its beginning, with [`ARENA_SLACK`] more behind its end at least.
    pub bytes: &'a [u8],
}

impl<'a> Leaf<'a> {
    /// Views the leaf at `offset` of an arena; `None` when there cannot be one.
    #[inline(always)]
    pub fn view(arena: &'a [u8], offset: usize) -> Option<Leaf<'a>> {
        let bytes = arena.get(offset..)?;
        let layout = Layout::read(bytes.first_chunk()?);
        // One test covers every later access, kernels' loads past the end included.
        (layout.is_sound() && layout.bytes() + ARENA_SLACK <= bytes.len()).then_some(Leaf { layout, bytes })
    }

    /// The key offset of a column.
    #[inline(always)]
    pub fn window(&self, column: usize) -> u8 {
        self.bytes[WINDOWS_AT + column]
    }

    /// The position of a rule.
    #[inline(always)]
    pub fn position(&self, rule: usize) -> u32 {
        u32_at(self.bytes, self.layout.positions_at() + 4 * rule)
    }

    /// What a rule wants of a column: an inclusive range, for who reads leaves and does not look
    /// up in them.
    pub fn range(&self, column: usize, rule: usize) -> (u16, u16) {
        let l = &self.layout;
        let lane = if column < l.guards { column } else { l.guards + (column - l.guards) * l.rules + rule };
        let lo = u16_at(self.bytes, l.lo_at() + 2 * lane);
        let is_exact = column >= l.guards + l.ranges;
        (lo, if is_exact { lo } else { u16_at(self.bytes, l.hi_at() + 2 * lane) })
    }

    /// The definition of a leaf's answer: a bit for each rule that holds the key.
    #[inline(always)]
    pub fn matches(&self, key: &Key) -> u64 {
        let l = &self.layout;
        let lo = |lane: usize| u16_at(self.bytes, l.lo_at() + 2 * lane);
        let hi = |lane: usize| u16_at(self.bytes, l.hi_at() + 2 * lane);
        for guard in 0..l.guards {
            let x = key.window(self.window(guard));
            if x < lo(guard) || hi(guard) < x {
                return 0;
            }
        }
        let mut mask = (1 << l.rules) - 1;
        for column in 0..l.ranges + l.exact {
            let x = key.window(self.window(l.guards + column));
            let first = l.guards + column * l.rules;
            for rule in 0..l.rules {
                let lane = first + rule;
                let holds = if column < l.ranges { lo(lane) <= x && x <= hi(lane) } else { lo(lane) == x };
                mask &= !(u64::from(!holds) << rule);
            }
        }
        mask
    }
}

/// One column to be stored: the ranges of all rules on one window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Key offset.
    pub window: u8,
    /// Compare 32 bits, not 16: for fat leaves only.
    pub is_wide: bool,
    /// One inclusive range a rule.
    pub ranges: Vec<(u32, u32)>,
}

impl Column {
    /// All rules have the same range.
    pub fn is_guard(&self) -> bool {
        !self.is_wide && self.ranges.iter().all(|r| *r == self.ranges[0])
    }

    /// Every range is one value.
    pub fn is_exact(&self) -> bool {
        self.ranges.iter().all(|r| r.0 == r.1)
    }
}

/// The bytes of a lean leaf without its padding; `None` when these rules do not fit one.
pub fn encode(positions: &[u32], columns: &[Column]) -> Option<Vec<u8>> {
    let n = positions.len();
    let (guards, rest): (Vec<&Column>, Vec<&Column>) = columns.iter().partition(|c| c.is_guard());
    let (exact, ranges): (Vec<&Column>, Vec<&Column>) = rest.into_iter().partition(|c| c.is_exact());
    let is_long = columns.len() > SHORT_COLUMNS_MAX;
    let layout = Layout { rules: n, guards: guards.len(), ranges: ranges.len(), exact: exact.len(), is_long };
    if !layout.is_sound() || columns.iter().any(|c| c.is_wide) {
        return None;
    }
    debug_assert!(positions.is_sorted());
    // Room for all of it and no more: there are many leaves.
    let mut out = Vec::with_capacity(layout.bytes());
    out.extend(layout.header());
    out.extend([&guards, &ranges, &exact].into_iter().flatten().map(|c| c.window));
    out.resize(layout.lo_at(), 0);
    let put = |out: &mut Vec<u8>, value: u32| out.extend((value as u16).to_le_bytes());
    guards.iter().for_each(|c| put(&mut out, c.ranges[0].0));
    ranges.iter().chain(&exact).flat_map(|c| &c.ranges).for_each(|r| put(&mut out, r.0));
    guards.iter().for_each(|c| put(&mut out, c.ranges[0].1));
    ranges.iter().flat_map(|c| &c.ranges).for_each(|r| put(&mut out, r.1));
    out.resize(layout.positions_at(), 0);
    positions.iter().for_each(|p| out.extend(p.to_le_bytes()));
    Some(out)
}

/// Bytes behind a leaf's beginning beyond which no header, whatever it says, leads a kernel that
/// reads it as [`Lean`].
pub const REACH: usize = 1024;

/// A lean leaf as vector kernels read it: without a test of its numbers. Each is cut to four bits
/// (rules to 1–8), so that everything derived from them lies within [`REACH`] bytes; on a sound
/// leaf that changes nothing.
#[derive(Debug, Clone, Copy)]
pub struct Lean<'a> {
    /// The bytes from its beginning; what lies behind it is others'.
    pub bytes: &'a [u8; REACH],
    /// Rules, 1 to 8.
    pub rules: u32,
    /// Guard columns, up to 15.
    pub guards: u32,
    /// Lower ends, up to 255.
    pub lanes: u32,
    /// Upper ends, up to 135.
    pub hi_lanes: u32,
    /// Offset of the lower ends: 12 or 16.
    pub lo_at: u32,
}

impl<'a> Lean<'a> {
    /// Views the leaf at `offset` of an arena; `None` when it lies within the last [`REACH`]
    /// bytes: then [`Leaf::view`] is asked.
    #[inline(always)]
    pub fn view(arena: &'a [u8], offset: usize) -> Option<Lean<'a>> {
        let bytes: &[u8; REACH] = arena.get(offset..offset.checked_add(REACH)?)?.first_chunk()?;
        let header = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let rules = (header.wrapping_sub(1) & 7) + 1;
        let (guards, ranges, exact) = (header >> 8 & 15, header >> 16 & 15, header >> 24 & 15);
        let hi_lanes = guards + ranges * rules;
        let lo_at = LO_AT as u32 + (header >> 5 & 4);
        Some(Lean { bytes, rules, guards, lanes: hi_lanes + exact * rules, hi_lanes, lo_at })
    }

    /// Offset of the upper ends.
    #[inline(always)]
    pub fn hi_at(&self) -> usize {
        (self.lo_at + 2 * self.lanes) as usize
    }

    /// The position of a rule, whose number is cut to three bits: [`Leaf::position`].
    #[inline(always)]
    pub fn position(&self, rule: u32) -> u32 {
        let pairs = (self.lanes + self.hi_lanes).div_ceil(2);
        let at = self.lo_at + 4 * (pairs + (rule & 7));
        // Stays as it is; tells the compiler that it stays inside.
        u32_at(self.bytes, at as usize & (REACH - 4))
    }
}

/// Units that a leaf of so many bytes takes.
pub fn units(bytes: usize) -> usize {
    bytes.div_ceil(UNIT)
}
