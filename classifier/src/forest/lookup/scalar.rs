//! The definition: plain code.

use super::{Kernel, walk};
use crate::forest::Ref;
use crate::forest::leaf::Leaf;
use crate::forest::node::{self, NodeBytes};
use crate::key::Key;

/// Plain code, everywhere.
#[derive(Debug)]
pub struct Scalar;

impl Kernel for Scalar {
    #[inline(always)]
    unsafe fn slot(node: &NodeBytes, value: u16) -> usize {
        node::slot(node, value)
    }

    #[inline(always)]
    unsafe fn matches(leaf: &Leaf<'_>, key: &Key) -> u64 {
        leaf.matches(key)
    }
}

pub(super) fn first_match(arena: &[u8], root: Ref, key: &Key, from: u32) -> u32 {
    // SAFETY: plain code runs on every machine.
    unsafe { walk::<Scalar>(arena, root, key, from).0 }
}
