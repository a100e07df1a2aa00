//! A node cuts one 16-bit window of the key into elementary intervals.
//!
//! ```text
//!  0     4      5      6                        34                            64
//!  base  window flags  bound[0] … bound[13]     child[0] … child[14]
//!  u32   u8     u8     14 × u16, last value     15 × u16: kind and lines in the top four
//!                      of each interval         bits, units from base below; 0xffff: no rule
//! ```
//!
//! The interval of a value is the number of bounds below it. Children lie side by side from
//! `base` on: nodes first, then leaves; equal leaves are stored once. When `flags` is 1, the
//! unit before `base` holds the deferred reference and the smallest rule position behind it.

use super::{Kind, Ref, UNIT, u16_at, u32_at};

/// Bytes of a node: one cache line.
pub const NODE_BYTES: usize = 64;

/// Children, at most.
pub const FAN_MAX: usize = 15;

/// A child that holds no rule.
pub const NO_CHILD: u16 = 0xffff;

/// Units that a child may lie behind `base`.
pub const CHILD_UNITS_MAX: usize = (1 << 12) - 2;

/// Flags of a node that defers.
pub const HAS_DEFERRED: u8 = 1;

const BOUNDS: usize = 6;
const CHILDREN: usize = BOUNDS + 2 * (FAN_MAX - 1);

const _: () = assert!(CHILDREN + 2 * FAN_MAX == NODE_BYTES);

/// The bytes of one node.
pub type NodeBytes = [u8; NODE_BYTES];

/// What a node says, taken apart: for building and checking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Unit at which the children begin.
    pub base: u32,
    /// Byte offset of the window in the key.
    pub window: u8,
    /// A deferred reference lies before `base`.
    pub has_deferred: bool,
    /// Last value of each interval but the last, rising.
    pub bounds: Vec<u16>,
    /// Each interval's child, kind and units from `base`: one more than bounds.
    pub children: Vec<u16>,
}

impl Node {
    /// The bytes of this node.
    pub fn encode(&self) -> NodeBytes {
        let mut bytes = [0xff; NODE_BYTES];
        bytes[..4].copy_from_slice(&self.base.to_le_bytes());
        bytes[4] = self.window;
        bytes[5] = if self.has_deferred { HAS_DEFERRED } else { 0 };
        for (i, bound) in self.bounds.iter().enumerate() {
            bytes[BOUNDS + 2 * i..][..2].copy_from_slice(&bound.to_le_bytes());
        }
        for (i, child) in self.children.iter().enumerate() {
            bytes[CHILDREN + 2 * i..][..2].copy_from_slice(&child.to_le_bytes());
        }
        bytes
    }

    /// Takes a node apart. Slots whose bound is 0xffff are the last or padding.
    pub fn decode(bytes: &NodeBytes) -> Node {
        let bounds: Vec<u16> =
            (0..FAN_MAX - 1).map(|i| u16_at(bytes, BOUNDS + 2 * i)).take_while(|&b| b != 0xffff).collect();
        let children = (0..=bounds.len()).map(|i| u16_at(bytes, CHILDREN + 2 * i)).collect();
        Node {
            base: u32_at(bytes, 0),
            window: bytes[4],
            has_deferred: bytes[5] & HAS_DEFERRED != 0,
            bounds,
            children,
        }
    }

    /// Takes apart the node that a reference leads to.
    pub fn view(arena: &[u8], at: Ref) -> Option<Node> {
        let bytes = arena.get(at.offset()..)?.first_chunk::<NODE_BYTES>()?;
        (at.kind() == Kind::Node).then(|| Node::decode(bytes))
    }

    /// What it defers, and the smallest rule position behind that.
    pub fn deferred(&self, arena: &[u8]) -> Option<(Ref, u32)> {
        let unit = (self.base as usize).checked_sub(1).filter(|_| self.has_deferred)?;
        let bytes = arena.get(unit.checked_mul(UNIT)?..)?.first_chunk::<8>()?;
        Some((Ref(u32_at(bytes, 0)), u32_at(bytes, 4)))
    }

    /// Where the child of interval `slot` lies.
    pub fn child(&self, slot: usize) -> Ref {
        child_ref(self.base, self.children[slot])
    }
}

#[inline(always)]
fn child_ref(base: u32, child: u16) -> Ref {
    if child == NO_CHILD {
        return Ref::EMPTY;
    }
    Ref::from_bits(u32::from(child >> 12), base.wrapping_add(u32::from(child & 0xfff)))
}

/// The window of a node's bytes.
#[inline(always)]
pub fn window(bytes: &NodeBytes) -> u8 {
    bytes[4]
}

/// The child of interval `slot` of a node's bytes.
#[inline(always)]
pub fn child(bytes: &NodeBytes, slot: usize) -> Ref {
    // Children are the last u16s of the bytes.
    let (children, _) = bytes[CHILDREN..].as_chunks::<2>();
    child_ref(base(bytes), u16::from_le_bytes(children[slot.min(FAN_MAX - 1)]))
}

/// The unit at which the children of a node's bytes begin.
#[inline(always)]
pub fn base(bytes: &NodeBytes) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// A node's bytes say that it defers.
#[inline(always)]
pub fn has_deferred(bytes: &NodeBytes) -> bool {
    bytes[5] & HAS_DEFERRED != 0
}

/// The definition of the interval of a value: how many bounds are below it.
#[inline(always)]
pub fn slot(bytes: &NodeBytes, value: u16) -> usize {
    (0..FAN_MAX - 1).filter(|&i| u16_at(bytes, BOUNDS + 2 * i) < value).count()
}

/// Byte offset of the bounds, for kernels that load them as a vector.
pub(crate) const BOUNDS_OFFSET: usize = BOUNDS;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_survives_its_bytes() {
        let node = Node {
            base: 77,
            window: 3,
            has_deferred: true,
            bounds: vec![0, 9, 80],
            children: vec![5 << 12 | 4, 0, NO_CHILD, 12 << 12 | 6],
        };
        let bytes = node.encode();
        assert_eq!(Node::decode(&bytes), node);
        assert_eq!([0, 1, 9, 10, 80, 81, 0xffff].map(|v| slot(&bytes, v)), [0, 1, 1, 2, 2, 3, 3]);
        let kinds: Vec<Kind> = (0..4).map(|i| child(&bytes, i).kind()).collect();
        assert_eq!(kinds, [Kind::Lean, Kind::Node, Kind::Fat, Kind::Fat]);
        assert_eq!(child(&bytes, 0).offset(), 81 * UNIT);
        assert_eq!(child(&bytes, 0).lines(), 2);
        assert_eq!(child(&bytes, 1), Ref::node(77 * UNIT));
        assert_eq!(child(&bytes, 2), Ref::EMPTY);
    }

    #[test]
    fn a_node_may_have_fifteen_children() {
        let bounds: Vec<u16> = (1..15).map(|i| i * 1000).collect();
        let node = Node { base: 1, window: 0, has_deferred: false, bounds, children: (0..15).collect() };
        let bytes = node.encode();
        assert_eq!(Node::decode(&bytes), node);
        assert_eq!(slot(&bytes, 0xffff), 14);
    }
}
