//! A lean leaf: up to 8 rules, compared with the key in one or two vectors.
//!
//! ```text
//!  0              1      2      3      4                12
//!  shape          lanes  spans  marks  window u8 × 8    position u32 × n    span u16 × spans    lo u16 × lanes
//!  n − 1 + 8 g    u8     u8     u8     g, then r, e     not falling         g + r·n             g + (r + e)·n
//!
//!  with more than 8 columns, as IPv6 may need: 12 windows, positions from 16 on
//! ```
//!
//! A *column* is a window of the key that some rule does not already cover in the leaf's
//! region; the path has decided the others. Its lanes are the ranges of the n rules, each a lower
//! end and a *span*, how far the upper end is above it: x is inside when x − lo ≤ span. A column in
//! which all rules have the same range is a *guard*, one lane; one in which every range is a
//! single value stores no spans. Lane `g + c·n + i` is rule `i` in column `c`, so the
//! rules that hold are the AND of the lane mask shifted by multiples of n. Nothing is padded:
//! kernels load past the end and mask; the column of a lane follows from g and n alone, and these
//! are one number, as all that a kernel wants to know at first stands in the header.
//!
//! Images of formats 1 and 2 have leaves of another form, [`Form::Old`], which the definition reads and vector
//! kernels do not:
//!
//! ```text
//!  0      1       2       3      4                12
//!  rules  guards  ranges  exact  window u8 × 8    lo u16 × lanes    hi u16 × spans    position u32 × n
//!  u8 n   u8 g    u8 r    u8 e   g, then r, e     16 on, when n has bit 7 set           at a multiple of 4
//! ```

use super::{ARENA_SLACK, UNIT, u16_at, u32_at};
use crate::key::Key;

/// Rules, at most.
pub const RULES_MAX: usize = 8;

/// Columns, at most.
pub const COLUMNS_MAX: usize = 12;

/// Columns of a leaf whose header is not long, at most.
pub const SHORT_COLUMNS_MAX: usize = 8;

/// Bit of the first byte of an old leaf: the header is long.
const OLD_LONG: u8 = 0x80;

/// Bit of the fourth byte: the leaf is not of the old form, where that byte is a small number.
const NEW: u8 = 0x80;

/// Bit of the fourth byte: the header is long, by as many bytes.
const LONG: u8 = 4;

/// Guards, at most: what the first byte has room for.
pub const GUARDS_MAX: usize = 15;

/// Lanes, at most: two vectors, less one so that a shift by all of them is one.
pub const LANES_MAX: usize = 63;

/// Lanes of one vector.
pub const VECTOR_LANES: usize = 32;

/// Offset of the windows.
pub const WINDOWS_AT: usize = 4;

/// Bytes of a header that is not long.
pub const HEADER_BYTES: usize = 12;

/// Bytes of a long header.
pub const LONG_HEADER_BYTES: usize = HEADER_BYTES + LONG as usize;

/// How the bytes of a leaf are arranged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Positions behind all ends, upper ends as they are: formats 1 and 2.
    Old,
    /// Positions in front, spans.
    New,
}

/// Where everything lies in a lean leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// How it is arranged.
    pub form: Form,
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
    /// Reads the first four bytes. Numbers that do not go together give a layout that is not
    /// [sound](Layout::is_sound).
    #[inline(always)]
    pub fn read(bytes: &[u8; HEADER_BYTES]) -> Layout {
        let [shape, lanes, spans, marks] = [bytes[0], bytes[1], bytes[2], bytes[3]];
        if marks & NEW == 0 {
            return Layout {
                form: Form::Old,
                rules: (shape & !OLD_LONG).into(),
                is_long: shape & OLD_LONG != 0,
                guards: lanes.into(),
                ranges: spans.into(),
                exact: marks.into(),
            };
        }
        let (rules, guards) = (usize::from(shape & 7) + 1, usize::from(shape >> 3));
        let (lanes, spans) = (usize::from(lanes), usize::from(spans));
        let ranges = spans.wrapping_sub(guards) / rules;
        let layout = Layout {
            form: Form::New,
            rules,
            guards,
            ranges,
            exact: lanes.wrapping_sub(spans) / rules,
            is_long: marks & LONG != 0,
        };
        let is_whole =
            layout.columns() <= COLUMNS_MAX && layout.header() == [bytes[0], bytes[1], bytes[2], marks];
        if is_whole { layout } else { Layout { rules: 0, ..layout } }
    }

    /// The first four bytes, in the new form.
    pub fn header(&self) -> [u8; 4] {
        let shape = self.rules.wrapping_sub(1) as u8 & 7 | (self.guards << 3) as u8;
        [shape, self.lanes() as u8, self.spans() as u8, NEW | if self.is_long { LONG } else { 0 }]
    }

    /// Lower ends.
    #[inline(always)]
    pub fn lanes(&self) -> usize {
        self.guards + (self.ranges + self.exact) * self.rules
    }

    /// Upper ends or spans: lanes of guards and ranges, which come first.
    #[inline(always)]
    pub fn spans(&self) -> usize {
        self.guards + self.ranges * self.rules
    }

    /// Columns.
    #[inline(always)]
    pub fn columns(&self) -> usize {
        self.guards.saturating_add(self.ranges).saturating_add(self.exact)
    }

    /// Bytes of the header.
    #[inline(always)]
    pub fn header_bytes(&self) -> usize {
        if self.is_long { LONG_HEADER_BYTES } else { HEADER_BYTES }
    }

    /// Offset of the lower ends.
    #[inline(always)]
    pub fn lo_at(&self) -> usize {
        match self.form {
            Form::New => self.spans_at() + 2 * self.spans(),
            Form::Old => self.header_bytes(),
        }
    }

    /// Offset of the spans, of the upper ends in the old form.
    #[inline(always)]
    pub fn spans_at(&self) -> usize {
        match self.form {
            Form::New => self.header_bytes() + 4 * self.rules,
            Form::Old => self.lo_at() + 2 * self.lanes(),
        }
    }

    /// Offset of the positions.
    #[inline(always)]
    pub fn positions_at(&self) -> usize {
        match self.form {
            Form::New => self.header_bytes(),
            Form::Old => (self.spans_at() + 2 * self.spans() + 3) & !3,
        }
    }

    /// Bytes up to the padding.
    #[inline(always)]
    pub fn bytes(&self) -> usize {
        match self.form {
            Form::New => self.lo_at() + 2 * self.lanes(),
            Form::Old => self.positions_at() + 4 * self.rules,
        }
    }

    /// A leaf of this layout can be.
    #[inline(always)]
    pub fn is_sound(&self) -> bool {
        let columns_max = if self.is_long { COLUMNS_MAX } else { SHORT_COLUMNS_MAX };
        self.rules.wrapping_sub(1) < RULES_MAX
            && self.columns() <= columns_max
            && self.guards <= GUARDS_MAX
            && self.lanes() <= LANES_MAX
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
        let (lo, span) = self.lane(lane);
        // An audit sees that no range goes beyond the last value.
        (lo, lo.saturating_add(span))
    }

    /// Lower end and span of a lane.
    #[inline(always)]
    fn lane(&self, lane: usize) -> (u16, u16) {
        let l = &self.layout;
        let lo = u16_at(self.bytes, l.lo_at() + 2 * lane);
        let upper = if lane < l.spans() { u16_at(self.bytes, l.spans_at() + 2 * lane) } else { 0 };
        match l.form {
            Form::New => (lo, upper),
            Form::Old if lane < l.spans() => (lo, upper.saturating_sub(lo)),
            Form::Old => (lo, 0),
        }
    }

    /// No range ends before it begins, or beyond the last value.
    pub fn has_whole_ranges(&self) -> bool {
        let l = &self.layout;
        (0..l.spans()).all(|lane| match l.form {
            Form::New => {
                let (lo, span) = self.lane(lane);
                lo.checked_add(span).is_some()
            }
            Form::Old => {
                u16_at(self.bytes, l.lo_at() + 2 * lane) <= u16_at(self.bytes, l.spans_at() + 2 * lane)
            }
        })
    }

    /// The definition of a leaf's answer: a bit for each rule that holds the key.
    #[inline(always)]
    pub fn matches(&self, key: &Key) -> u64 {
        let l = &self.layout;
        let holds = |lane: usize, column: usize| {
            let (lo, span) = self.lane(lane);
            key.window(self.window(column)).wrapping_sub(lo) <= span
        };
        if !(0..l.guards).all(|guard| holds(guard, guard)) {
            return 0;
        }
        let mut mask = (1 << l.rules) - 1;
        for column in 0..l.ranges + l.exact {
            let first = l.guards + column * l.rules;
            for rule in 0..l.rules {
                mask &= !(u64::from(!holds(first + rule, l.guards + column)) << rule);
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
    let layout = Layout {
        form: Form::New,
        rules: n,
        guards: guards.len(),
        ranges: ranges.len(),
        exact: exact.len(),
        is_long,
    };
    if !layout.is_sound() || columns.iter().any(|c| c.is_wide) {
        return None;
    }
    debug_assert!(positions.is_sorted());
    // Room for all of it and no more: there are many leaves.
    let mut out = Vec::with_capacity(layout.bytes());
    out.extend(layout.header());
    out.extend([&guards, &ranges, &exact].into_iter().flatten().map(|c| c.window));
    out.resize(layout.header_bytes(), 0);
    positions.iter().for_each(|p| out.extend(p.to_le_bytes()));
    let put = |out: &mut Vec<u8>, value: u32| out.extend((value as u16).to_le_bytes());
    let span = |r: &(u32, u32)| r.1 - r.0;
    guards.iter().for_each(|c| put(&mut out, span(&c.ranges[0])));
    ranges.iter().flat_map(|c| &c.ranges).for_each(|r| put(&mut out, span(r)));
    guards.iter().for_each(|c| put(&mut out, c.ranges[0].0));
    ranges.iter().chain(&exact).flat_map(|c| &c.ranges).for_each(|r| put(&mut out, r.0));
    Some(out)
}

/// Bytes behind a leaf's beginning beyond which no header, whatever it says, leads a kernel that
/// reads it as [`Lean`].
pub const REACH: usize = 512;

/// A lean leaf of the new form as vector kernels read it: without a test of its numbers. None of them leads
/// out of [`REACH`] bytes, whatever they are.
#[derive(Debug, Clone, Copy)]
pub struct Lean<'a> {
    /// The bytes from its beginning; what lies behind it is others'.
    pub bytes: &'a [u8; REACH],
    /// Rules less one and 8 × guards, up to 127.
    pub shape: u32,
    /// Lower ends, up to 63.
    pub lanes: u32,
    /// Spans, up to 63.
    pub spans: u32,
    /// Offset of the positions: 12 or 16.
    pub positions_at: u32,
}

impl<'a> Lean<'a> {
    /// Views the leaf at `offset` of an arena; `None` when it lies within the last [`REACH`]
    /// bytes: then [`Leaf::view`] is asked. `LONG`: its header may be long.
    #[inline(always)]
    pub fn view<const LONG: bool>(arena: &'a [u8], offset: usize) -> Option<Lean<'a>> {
        let bytes: &[u8; REACH] = arena.get(offset..offset.checked_add(REACH)?)?.first_chunk()?;
        let header = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let more = if LONG { header >> 24 & u32::from(self::LONG) } else { 0 };
        Some(Lean {
            bytes,
            shape: header & 127,
            lanes: header >> 8 & 63,
            spans: header >> 16 & 63,
            positions_at: HEADER_BYTES as u32 + more,
        })
    }

    /// Rules, 1 to 8.
    #[inline(always)]
    pub fn rules(&self) -> u32 {
        (self.shape & 7) + 1
    }

    /// Guard columns, up to 15.
    #[inline(always)]
    pub fn guards(&self) -> u32 {
        self.shape >> 3
    }

    /// Offset of the spans: up to 48.
    #[inline(always)]
    pub fn spans_at(&self) -> usize {
        (self.positions_at + 4 * self.rules()) as usize
    }

    /// Offset of the lower ends: up to 174.
    #[inline(always)]
    pub fn lo_at(&self) -> usize {
        self.spans_at() + 2 * self.spans as usize
    }

    /// The position of a rule, whose number is cut to six bits: [`Leaf::position`].
    #[inline(always)]
    pub fn position(&self, rule: u32) -> u32 {
        u32_at(self.bytes, (self.positions_at & 31) as usize + 4 * (rule & 63) as usize)
    }
}

/// Units that a leaf of so many bytes takes.
pub fn units(bytes: usize) -> usize {
    bytes.div_ceil(UNIT)
}
