//! The definition: plain code.

use super::batch::{BLOCK, KeyBlock, Kinds};
use super::gates::Trees;
use super::{Cells, Kernel};
use crate::forest::Ref;
use crate::forest::fat::FatLeaf;
use crate::forest::leaf::Lean;
use crate::forest::node::{self, NodeBytes};
use crate::forest::root::{Scale, cell_at};
use crate::key::Key;

/// Plain code, everywhere.
#[derive(Debug)]
pub(super) struct Scalar;

impl Kernel for Scalar {
    const VECTORS: bool = false;

    type Gates = Trees;

    #[inline(always)]
    unsafe fn gates(trees: Trees) -> Trees {
        trees
    }

    #[inline(always)]
    fn scale(trees: &Trees) -> Scale {
        trees.scale
    }

    #[inline(always)]
    unsafe fn cells(trees: &Trees, arena: &[u8], key: &Key, out: &mut Cells) -> u32 {
        let mut open = 0;
        for (t, out) in out.0.iter_mut().enumerate().take(trees.count) {
            let Some(tree) = trees.get(t) else { continue };
            let cell = cell_at(arena, tree.cells, tree.cell(key));
            *out = cell.word();
            open |= u32::from(cell.gate & tree.filter_bit(key) != 0) << t;
        }
        open
    }

    #[inline(always)]
    unsafe fn enter(
        trees: &Trees,
        t: usize,
        arena: &[u8],
        keys: KeyBlock<'_>,
        best: &[u32; BLOCK],
        here: &mut [u32; BLOCK],
    ) {
        let Some(tree) = trees.get(t) else { return here.fill(Ref::EMPTY.0) };
        for (key, here) in here.iter_mut().enumerate().take(keys.count()) {
            // SAFETY: a key of the block.
            let bytes = unsafe { keys.get(key) };
            let cell = cell_at(arena, tree.cells, tree.cell(bytes));
            let is_open = cell.lets_in(tree.filter_bit(bytes), trees.scale.scaled(best[key]));
            *here = if is_open { cell.reference.0 } else { Ref::EMPTY.0 };
        }
    }

    #[inline(always)]
    unsafe fn kinds(references: &[u32; BLOCK]) -> Kinds {
        let mut kinds = [0; 4];
        for (key, &word) in references.iter().enumerate().filter(|(_, word)| **word != Ref::EMPTY.0) {
            kinds[Ref(word).kind() as usize] |= 1 << key;
        }
        kinds
    }

    #[inline(always)]
    unsafe fn slot(node: &NodeBytes, value: u16) -> usize {
        node::slot(node, value)
    }

    #[inline(always)]
    unsafe fn lean(_: &Lean<'_>, _: &Key, _: bool) -> u32 {
        unreachable!("without vectors, leaves are compared as they are defined")
    }

    #[inline(always)]
    unsafe fn fat(leaf: &FatLeaf<'_>, key: &Key) -> u64 {
        leaf.matches(key)
    }

    #[inline(always)]
    fn prefetch(_: *const u8) {}
}
