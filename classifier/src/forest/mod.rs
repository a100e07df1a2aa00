//! The forest: direct roots, nodes that cut, leaves that compare, in one array of 16-byte units.
//!
//! ```text
//!   root   ┌ tree 0: table of cells over some bits of the key ─┐   cell = gate + reference
//!          ├ tree 1: table over other bits                     │
//!          └ tree 2: …                                         ▼
//!            node  cuts one window of the key at up to 14 bounds
//!          /  |  \          \ deferred: rules that would have been copied
//!       leaf node empty      node …          into too many children
//! ```
//!
//! A lookup visits the trees whose gates let the key in; in each it descends to one leaf, and
//! through every deferred reference that it passed and that may still hold an earlier rule. What
//! it returns is the smallest rule position at or after a given one whose box holds the key.
//! Small entries have no root table: their root is a node or a leaf.
//!
//! | | invariant (`audit` checks each) |
//! |---|---|
//! | order | a reference leads to a higher address: no walk can loop |
//! | depth | at most [`DEPTH_MAX`] nodes from a root to a leaf, deferred parts included |
//! | pending | at most [`PENDING_MAX`] deferred references wait at any moment |
//! | leaf | positions do not fall (a rule may have several boxes); long lists are chained |
//! | bounds | rise strictly; slots past the last child are 0xffff |
//! | gate | says no later smallest position than there is, and turns no key away that a rule holds |

pub mod fat;
pub mod lane;
pub mod leaf;
pub mod lookup;
pub mod node;
pub mod root;
pub mod switch;

/// Bytes of an address unit.
pub const UNIT: usize = 16;

/// Bytes of a cache line.
pub const LINE: usize = 64;

/// Nodes from a root to a leaf, at most.
pub const DEPTH_MAX: u32 = 32;

/// Deferred references that wait at any moment, at most.
pub const PENDING_MAX: usize = 16;

/// Rules of one fat leaf, at most.
pub const LEAF_RULES_MAX: usize = 64;

/// Zero bytes at the end of an arena, so that vector loads may run past the last leaf.
pub const ARENA_SLACK: usize = 128;

/// What a reference leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A node, or (with the lines of two) a root, or (of three) a switch.
    Node,
    /// A lean leaf of one vector.
    Lean,
    /// A lean leaf of two vectors.
    Lean2,
    /// A fat leaf.
    Fat,
}

/// Where something lies, what it is, and how many cache lines to fetch.
///
/// ```text
///  31 30   29 28   27 … 0
///  kind    lines   unit
///          − 1
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ref(pub u32);

impl Ref {
    /// Leads nowhere: no rule.
    pub const EMPTY: Ref = Ref(u32::MAX);

    /// Units that an arena may have: 2^28 − 1 of 16 bytes, 4 GiB.
    pub const UNITS_MAX: usize = (1 << 28) - 1;

    /// The root of malformed packets of an entry that has none for them: they are looked for in the
    /// other one. In live entries only, never in an image.
    pub const SAME: Ref = Ref(3 << 28);

    const ROOT: u32 = 1 << 28;
    const SWITCH: u32 = 2 << 28;

    fn unit_of(offset: usize) -> u32 {
        debug_assert!(offset.is_multiple_of(UNIT) && offset / UNIT < Ref::UNITS_MAX);
        (offset / UNIT) as u32
    }

    /// A node at a byte offset, which is a multiple of 16 below 4 GiB.
    pub fn node(offset: usize) -> Ref {
        Ref(Ref::unit_of(offset))
    }

    /// A root at a byte offset.
    pub fn root(offset: usize) -> Ref {
        Ref(Ref::unit_of(offset) | Ref::ROOT)
    }

    /// A [switch](crate::live) at a byte offset: in live forests only, never in an image.
    pub fn switch(offset: usize) -> Ref {
        Ref(Ref::unit_of(offset) | Ref::SWITCH)
    }

    /// A leaf of `bytes` bytes at a byte offset.
    pub fn leaf(kind: Kind, offset: usize, bytes: usize) -> Ref {
        Ref(leaf_bits(kind, offset % LINE, bytes) << 28 | Ref::unit_of(offset))
    }

    /// From the bits of kind and lines, and a unit.
    #[inline(always)]
    pub fn from_bits(bits: u32, unit: u32) -> Ref {
        Ref(bits << 28 | unit & Ref::UNITS_MAX as u32)
    }

    /// What it leads to. (An empty reference says `Fat`.)
    #[inline(always)]
    pub fn kind(self) -> Kind {
        match self.0 >> 30 {
            0 => Kind::Node,
            1 => Kind::Lean,
            2 => Kind::Lean2,
            _ => Kind::Fat,
        }
    }

    /// Leads to a leaf, or nowhere.
    #[inline(always)]
    pub fn is_leaf(self) -> bool {
        self.0 >> 30 != 0
    }

    /// Leads to a root.
    #[inline(always)]
    pub fn is_root(self) -> bool {
        self.0 >> 28 == Ref::ROOT >> 28
    }

    /// Leads to a switch.
    #[inline(always)]
    pub fn is_switch(self) -> bool {
        self.0 >> 28 == Ref::SWITCH >> 28
    }

    /// Leads nowhere.
    #[inline(always)]
    pub fn is_empty(self) -> bool {
        self == Ref::EMPTY
    }

    /// The byte offset.
    #[inline(always)]
    pub fn offset(self) -> usize {
        (self.0 & Ref::UNITS_MAX as u32) as usize * UNIT
    }

    /// Cache lines of what it leads to, 1 to 4.
    #[inline(always)]
    pub fn lines(self) -> usize {
        (self.0 >> 28 & 3) as usize + 1
    }
}

/// Kind and lines of a leaf as the top four bits of a reference.
pub fn leaf_bits(kind: Kind, offset_in_line: usize, bytes: usize) -> u32 {
    let kind = match kind {
        Kind::Node => 0,
        Kind::Lean => 1,
        Kind::Lean2 => 2,
        Kind::Fat => 3,
    };
    let lines = (offset_in_line + bytes).div_ceil(LINE).clamp(1, 4);
    kind << 2 | (lines as u32 - 1)
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
