//! The forest: nodes that cut, leaves that compare, in one array of 16-byte units.
//!
//! ```text
//!            node  cuts one window of the key at up to 14 bounds
//!          /  |  \          \ deferred: rules that would have been copied
//!       leaf node empty      node …          into too many children
//! ```
//!
//! A lookup descends from a root to one leaf, and from every deferred reference that it passed
//! and that may still hold an earlier rule. What it returns is the smallest rule position at or
//! after a given one whose box holds the key.
//!
//! | | invariant (`audit` checks each) |
//! |---|---|
//! | order | a reference leads to a higher address: no walk can loop |
//! | depth | at most [`DEPTH_MAX`] nodes from a root to a leaf, deferred parts included |
//! | pending | at most [`PENDING_MAX`] deferred references wait at any moment |
//! | leaf | 1 to [`LEAF_RULES_MAX`] rules, by rising position (a rule may have several boxes); longer lists are chained |
//! | bounds | rise strictly; slots past the last child are 0xffff |

pub mod leaf;
pub mod lookup;
pub mod node;

/// Bytes of an address unit.
pub const UNIT: usize = 16;

/// Nodes from a root to a leaf, at most.
pub const DEPTH_MAX: u32 = 32;

/// Deferred references that wait at any moment, at most.
pub const PENDING_MAX: usize = 16;

/// Rules of one leaf, at most.
pub const LEAF_RULES_MAX: usize = 64;

/// Zero bytes at the end of an arena, so that vector loads may run past the last leaf.
pub const ARENA_SLACK: usize = 64;

/// Where a node or leaf lies: the unit number, with the top bit set for a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ref(pub u32);

impl Ref {
    /// Leads nowhere: no rule.
    pub const EMPTY: Ref = Ref(u32::MAX);

    const LEAF: u32 = 1 << 31;

    /// Units that an arena may have: 2^31 − 1 of 16 bytes.
    pub const UNITS_MAX: usize = (Ref::LEAF - 1) as usize;

    /// A node at a byte offset, which is a multiple of 16 below 32 GiB.
    pub fn node(offset: usize) -> Ref {
        debug_assert!(offset.is_multiple_of(UNIT) && offset / UNIT < Ref::UNITS_MAX);
        Ref((offset / UNIT) as u32)
    }

    /// A leaf at a byte offset, which is a multiple of 16 below 32 GiB.
    pub fn leaf(offset: usize) -> Ref {
        Ref(Ref::node(offset).0 | Ref::LEAF)
    }

    /// Leads to a leaf (and is not empty).
    #[inline(always)]
    pub fn is_leaf(self) -> bool {
        self.0 & Ref::LEAF != 0
    }

    /// Leads nowhere.
    #[inline(always)]
    pub fn is_empty(self) -> bool {
        self == Ref::EMPTY
    }

    /// The byte offset.
    #[inline(always)]
    pub fn offset(self) -> usize {
        (self.0 & !Ref::LEAF) as usize * UNIT
    }
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
