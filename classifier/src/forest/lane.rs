//! Lanes of leaves of every kind, for who reads leaves and does not look up in them.

use super::fat::FatLeaf;
use super::leaf::Leaf;
use super::{Kind, Ref};

/// One rule of a leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lane {
    /// Its position.
    pub position: u32,
    /// What it wants of the key.
    pub wants: Vec<Want>,
}

/// A range that some bytes of the key must be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// Key offset.
    pub window: u8,
    /// Two or four.
    pub bytes: u32,
    /// First and last value.
    pub range: (u32, u32),
}

/// The lane at `index` of a leaf and of those in which it goes on; `None` behind the last, and where there is
/// no leaf.
pub fn lane(arena: &[u8], mut at: Ref, mut index: usize) -> Option<Lane> {
    while at.kind() == Kind::Fat && !at.is_empty() {
        let leaf = FatLeaf::view(arena, at.offset())?;
        if index < leaf.layout.rules {
            let wants = (0..leaf.layout.columns()).map(|column| Want {
                window: leaf.window(column),
                bytes: if leaf.is_wide(column) { 4 } else { 2 },
                range: leaf.range(column, index),
            });
            return Some(Lane { position: leaf.position(index), wants: wants.collect() });
        }
        // References lead upward: see the audit.
        let next = Some(leaf.next()).filter(|next| next.offset() > at.offset())?;
        (at, index) = (next, index - leaf.layout.rules);
    }
    let leaf = Leaf::view(arena, Some(at).filter(|at| at.is_leaf() && !at.is_empty())?.offset())?;
    let range = |(lo, hi): (u16, u16)| (lo.into(), hi.into());
    (index < leaf.layout.rules).then(|| Lane {
        position: leaf.position(index),
        wants: (0..leaf.layout.columns())
            .map(|column| Want {
                window: leaf.window(column),
                bytes: 2,
                range: range(leaf.range(column, index)),
            })
            .collect(),
    })
}
