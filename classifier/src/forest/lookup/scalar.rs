//! The definition: plain code.

use super::Kernel;
use crate::forest::fat::FatLeaf;
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
    unsafe fn lean(leaf: &Leaf<'_>, key: &Key) -> u64 {
        leaf.matches(key)
    }

    #[inline(always)]
    unsafe fn fat(leaf: &FatLeaf<'_>, key: &Key) -> u64 {
        leaf.matches(key)
    }

    #[inline(always)]
    fn prefetch(_: &u8) {}
}
