//! A fat leaf: any number of rules and columns, compared column by column.
//!
//! What does not fit a [lean leaf](super::leaf) goes here: more than 8 rules that no cut
//! separates, many columns, 32-bit ranges. Long lists are chained.
//!
//! ```text
//!  0      1    2    3    4    5      6  8
//!  rules  r32  r16  e16  g16  flags  0  [next u32]  window u8 × columns, to a multiple of 4
//!  u8     u8   u8   u8   u8   u8        │
//!                                       └ when flags & 1: where the list goes on
//!  r32 columns   lo u32 × rules, hi u32 × rules      32-bit ranges (rare)
//!  positions     u32 × rules, not falling
//!  r16 columns   lo u16 × rules, hi u16 × rules      ranges
//!  e16 columns   value u16 × rules                   one value a rule
//!  g16 columns   lo u16, hi u16                      one range for all rules: a guard
//!  zeros to a multiple of 16
//! ```
//!
//! A column is a window of the key that some rule does not already cover in the leaf's region;
//! the path has decided the others. Nothing is padded to a vector's length: kernels load past
//! the end and mask.

use super::leaf::Column;
use super::{LEAF_RULES_MAX, Ref, u16_at, u32_at};
use crate::key::Key;

/// Bytes before the optional `next`.
pub const HEADER_BYTES: usize = 8;

/// Set in the flags of a leaf whose list goes on.
pub const CHAINED: u8 = 1;

/// Where everything lies in a leaf: computed from its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Rules.
    pub rules: usize,
    /// Columns by kind.
    pub r32: usize,
    /// 16-bit ranges.
    pub r16: usize,
    /// 16-bit values.
    pub e16: usize,
    /// Guards.
    pub g16: usize,
    /// The list goes on elsewhere.
    pub chained: bool,
}

impl Layout {
    /// Reads the first [`HEADER_BYTES`].
    #[inline(always)]
    pub fn read(header: &[u8; HEADER_BYTES]) -> Layout {
        Layout {
            rules: header[0].into(),
            r32: header[1].into(),
            r16: header[2].into(),
            e16: header[3].into(),
            g16: header[4].into(),
            chained: header[5] & CHAINED != 0,
        }
    }

    /// Columns.
    #[inline(always)]
    pub fn columns(&self) -> usize {
        self.r32 + self.r16 + self.e16 + self.g16
    }

    /// Offset of the window list.
    #[inline(always)]
    pub fn windows_at(&self) -> usize {
        HEADER_BYTES + if self.chained { 4 } else { 0 }
    }

    /// Offset of the 32-bit columns.
    #[inline(always)]
    pub fn r32_at(&self) -> usize {
        self.windows_at() + self.columns().next_multiple_of(4)
    }

    /// Offset of the positions.
    #[inline(always)]
    pub fn positions_at(&self) -> usize {
        self.r32_at() + self.r32 * self.rules * 8
    }

    /// Offset of the 16-bit range columns.
    #[inline(always)]
    pub fn r16_at(&self) -> usize {
        self.positions_at() + self.rules * 4
    }

    /// Offset of the value columns.
    #[inline(always)]
    pub fn e16_at(&self) -> usize {
        self.r16_at() + self.r16 * self.rules * 4
    }

    /// Offset of the guards.
    #[inline(always)]
    pub fn g16_at(&self) -> usize {
        self.e16_at() + self.e16 * self.rules * 2
    }

    /// Bytes up to the padding.
    #[inline(always)]
    pub fn bytes(&self) -> usize {
        self.g16_at() + self.g16 * 4
    }
}

/// A leaf seen in place: its layout and its bytes, at least [`Layout::bytes`] and a vector's
/// length of slack.
#[derive(Debug, Clone, Copy)]
pub struct FatLeaf<'a> {
    /// Where things are.
    pub layout: Layout,
    /// The bytes, from the header on.
    pub bytes: &'a [u8],
}

impl<'a> FatLeaf<'a> {
    /// Views the leaf at `offset` of an arena; `None` when it does not fit.
    #[inline(always)]
    pub fn view(arena: &'a [u8], offset: usize) -> Option<FatLeaf<'a>> {
        let header = arena.get(offset..)?.first_chunk::<HEADER_BYTES>()?;
        let layout = Layout::read(header);
        let bytes = &arena[offset..];
        // One test covers every later access, kernels' loads past the end included.
        (layout.rules <= LEAF_RULES_MAX && layout.bytes() + super::ARENA_SLACK <= bytes.len())
            .then_some(FatLeaf { layout, bytes })
    }

    /// Where the list goes on.
    #[inline(always)]
    pub fn next(&self) -> Ref {
        if self.layout.chained { Ref(u32_at(self.bytes, HEADER_BYTES)) } else { Ref::EMPTY }
    }

    /// The key offset of column `column`, counted over r32, r16, e16, g16.
    #[inline(always)]
    pub fn window(&self, column: usize) -> u8 {
        self.bytes[self.layout.windows_at() + column]
    }

    /// The position of rule `rule`.
    #[inline(always)]
    pub fn position(&self, rule: usize) -> u32 {
        u32_at(self.bytes, self.layout.positions_at() + 4 * rule)
    }

    /// A column compares 32 bits, not 16.
    pub fn is_wide(&self, column: usize) -> bool {
        column < self.layout.r32
    }

    /// What a rule wants of a column: an inclusive range, for who reads leaves and does not look
    /// up in them.
    pub fn range(&self, column: usize, rule: usize) -> (u32, u32) {
        let l = &self.layout;
        let n = l.rules;
        let narrow = |lo: usize, hi: usize| (u16_at(self.bytes, lo).into(), u16_at(self.bytes, hi).into());
        let (r16, e16) = (l.r32 + l.r16, l.r32 + l.r16 + l.e16);
        if column < l.r32 {
            let at = l.r32_at() + 8 * column * n;
            (u32_at(self.bytes, at + 4 * rule), u32_at(self.bytes, at + 4 * (n + rule)))
        } else if column < r16 {
            let at = l.r16_at() + 4 * (column - l.r32) * n;
            narrow(at + 2 * rule, at + 2 * (n + rule))
        } else if column < e16 {
            let at = l.e16_at() + 2 * ((column - r16) * n + rule);
            narrow(at, at)
        } else {
            let at = l.g16_at() + 4 * (column - e16);
            narrow(at, at + 2)
        }
    }

    /// The definition of a leaf's answer: a bit for each rule that holds the key.
    pub fn matches(&self, key: &Key) -> u64 {
        let l = &self.layout;
        let n = l.rules;
        let mut column = 0;
        let mut mask = if n == 64 { u64::MAX } else { (1 << n) - 1 };
        for i in 0..l.r32 {
            let x = key.wide(self.window(column));
            let at = l.r32_at() + i * n * 8;
            mask &=
                bits(n, |r| u32_at(self.bytes, at + 4 * r) <= x && x <= u32_at(self.bytes, at + 4 * (n + r)));
            column += 1;
        }
        for i in 0..l.r16 {
            let x = key.window(self.window(column));
            let at = l.r16_at() + i * n * 4;
            mask &=
                bits(n, |r| u16_at(self.bytes, at + 2 * r) <= x && x <= u16_at(self.bytes, at + 2 * (n + r)));
            column += 1;
        }
        for i in 0..l.e16 {
            let x = key.window(self.window(column));
            let at = l.e16_at() + i * n * 2;
            mask &= bits(n, |r| u16_at(self.bytes, at + 2 * r) == x);
            column += 1;
        }
        for i in 0..l.g16 {
            let x = key.window(self.window(column));
            let at = l.g16_at() + i * 4;
            if !(u16_at(self.bytes, at) <= x && x <= u16_at(self.bytes, at + 2)) {
                return 0;
            }
            column += 1;
        }
        mask
    }
}

fn bits(n: usize, holds: impl Fn(usize) -> bool) -> u64 {
    (0..n).fold(0, |mask, r| mask | u64::from(holds(r)) << r)
}

/// The bytes of a fat leaf without its padding: at most [`LEAF_RULES_MAX`] rules, at most 255
/// columns of a kind. `next` is the continuation; patch it at [`HEADER_BYTES`] when it is not
/// known yet.
pub fn encode(positions: &[u32], columns: &[Column], next: Option<Ref>) -> Vec<u8> {
    let n = positions.len();
    assert!(n <= LEAF_RULES_MAX, "a leaf holds at most {LEAF_RULES_MAX} rules, not {n}");
    debug_assert!(positions.is_sorted());
    let (mut r32, mut r16, mut e16, mut g16) = (vec![], vec![], vec![], vec![]);
    for c in columns.iter().filter(|_| n > 0) {
        debug_assert_eq!(c.ranges.len(), n);
        match c {
            c if c.is_wide => r32.push(c),
            c if c.is_guard() => g16.push(c),
            c if c.is_exact() => e16.push(c),
            c => r16.push(c),
        }
    }
    let flags = if next.is_some() { CHAINED } else { 0 };
    // Room for all of it: leaves are many, and what they leave unused would be much.
    let lanes_bytes = n * (4 + 8 * r32.len() + 4 * r16.len() + 2 * e16.len()) + 4 * g16.len();
    let mut out = Vec::with_capacity(HEADER_BYTES + 4 + (columns.len() + 3) + lanes_bytes);
    let counts = [n, r32.len(), r16.len(), e16.len(), g16.len()];
    out.extend(counts.map(|count| count as u8));
    out.extend([flags, 0, 0]);
    if let Some(next) = next {
        out.extend(next.0.to_le_bytes());
    }
    let windows = [&r32, &r16, &e16, &g16].into_iter().flatten().map(|c| c.window);
    out.extend(windows);
    out.resize(out.len().next_multiple_of(4), 0);
    for c in r32 {
        c.ranges.iter().for_each(|r| out.extend(r.0.to_le_bytes()));
        c.ranges.iter().for_each(|r| out.extend(r.1.to_le_bytes()));
    }
    positions.iter().for_each(|p| out.extend(p.to_le_bytes()));
    for c in r16 {
        c.ranges.iter().for_each(|r| out.extend((r.0 as u16).to_le_bytes()));
        c.ranges.iter().for_each(|r| out.extend((r.1 as u16).to_le_bytes()));
    }
    for c in e16 {
        c.ranges.iter().for_each(|r| out.extend((r.0 as u16).to_le_bytes()));
    }
    for c in g16 {
        out.extend((c.ranges[0].0 as u16).to_le_bytes());
        out.extend((c.ranges[0].1 as u16).to_le_bytes());
    }
    out
}
