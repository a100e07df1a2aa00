//! Lookup: the smallest position at or after `from` of a rule whose box holds the key.
//!
//! One walk serves every machine; a [`Kernel`] supplies its steps, the interval of a node and
//! the matches of a leaf. [`Scalar`] is the definition, the others are held to it by property
//! tests. The machine is chosen once, when an image is opened.
//!
//! A walk over bytes that nobody audited may answer nonsense, but ends (references lead
//! upward, and visits are counted) and stays inside the bytes.
#![allow(unsafe_code)] // kernels need the right machine: stated and kept here

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod batch;
mod scalar;
#[cfg(test)]
mod tests;

use std::ops::Range;

use super::fat::FatLeaf;
use super::leaf::Leaf;
use super::node::{self, NODE_BYTES, NodeBytes};
use super::root::{self, Root};
use super::{Kind, PENDING_MAX, Ref, UNIT, u32_at};
use crate::key::{Key, Keys};
pub use scalar::Scalar;

/// No rule matches.
pub const NO_MATCH: u32 = u32::MAX;

/// Nodes and leaves visited in one lookup, at most; audited forests stay far below.
const VISITS_MAX: u32 = 1 << 20;

/// The steps of a walk, as one machine does them.
pub trait Kernel {
    /// The interval of `value` in a node: [`node::slot`].
    ///
    /// # Safety
    /// The machine must be the one that runs.
    unsafe fn slot(node: &NodeBytes, value: u16) -> usize;

    /// The rules of a lean leaf that hold the key: [`Leaf::matches`].
    ///
    /// # Safety
    /// The machine must be the one that runs.
    unsafe fn lean(leaf: &Leaf<'_>, key: &Key) -> u64;

    /// The rules of a fat leaf that hold the key: [`FatLeaf::matches`].
    ///
    /// # Safety
    /// The machine must be the one that runs.
    unsafe fn fat(leaf: &FatLeaf<'_>, key: &Key) -> u64;

    /// Asks the processor to fetch the line of `byte`. A hint: does nothing where there is none.
    fn prefetch(byte: &u8);
}

/// What the processor offers. Values come from [`Machine::detect`], [`Machine::available`] and
/// [`Machine::SCALAR`] alone, so that having one proves that its instructions run here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine(Which);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Machine {
    /// Plain code, everywhere.
    pub const SCALAR: Machine = Machine(Which::Scalar);

    /// The best machine of this processor. Costs a look at cached flags.
    pub fn detect() -> Machine {
        Machine::available().pop().unwrap_or(Machine::SCALAR)
    }

    /// All that run here, the best last.
    pub fn available() -> Vec<Machine> {
        #[allow(unused_mut)]
        let mut all = vec![Machine::SCALAR];
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            if has!("avx2") && has!("bmi1") && has!("popcnt") {
                all.push(Machine(Which::Avx2));
                if has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512vbmi") {
                    all.push(Machine(Which::Avx512));
                }
            }
        }
        all
    }

    /// The machine for keys of so many bytes: AVX-512 holds a key in one register.
    pub fn for_keys(self, key_bytes: usize) -> Machine {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Which::Avx512 if key_bytes > 64 => Machine(Which::Avx2),
            _ => self,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self.0 {
            Which::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Which::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Which::Avx512 => "avx512",
        }
    }
}

/// What a lookup cost, counted by [`first_match_counted`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Visits {
    /// Trees of a root that were entered.
    pub trees: u32,
    /// Nodes visited.
    pub nodes: u32,
    /// Leaves visited.
    pub leaves: u32,
}

/// The smallest position at or after `from` whose rule holds the key, or [`NO_MATCH`].
#[inline]
pub fn first_match(machine: Machine, arena: &[u8], root: Ref, key: &Key, from: u32) -> u32 {
    match machine.0 {
        // SAFETY: the scalar kernel runs everywhere.
        Which::Scalar => unsafe { lookup::<Scalar>(arena, root, key, from).0 },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a `Machine` of this kind comes from `available` alone, which saw the features.
        Which::Avx2 => unsafe { avx2::first_match(arena, root, key, from) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Which::Avx512 => unsafe { avx512::first_match(arena, root, key, from) },
    }
}

/// [`first_match`] from position 0 for the keys of `range`, into `out` of the same length.
pub fn first_match_batch(
    machine: Machine,
    arena: &[u8],
    root: Ref,
    keys: &Keys,
    range: Range<usize>,
    out: &mut [u32],
) {
    assert_eq!(range.len(), out.len(), "one answer a key");
    assert!(range.end <= keys.len(), "the range ends behind the last key");
    for (block, out) in out.chunks_mut(batch::BLOCK).enumerate() {
        let first = range.start + block * batch::BLOCK;
        match machine.0 {
            // SAFETY: the scalar kernel runs everywhere.
            Which::Scalar => unsafe { batch::block::<Scalar>(arena, root, keys, first, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a `Machine` of this kind comes from `available` alone, which saw the features.
            Which::Avx2 => unsafe { avx2::block(arena, root, keys, first, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Which::Avx512 => unsafe { avx512::block(arena, root, keys, first, out) },
        }
    }
}

/// [`first_match`] by the definition, counting its visits.
pub fn first_match_counted(arena: &[u8], root: Ref, key: &Key, from: u32) -> (u32, Visits) {
    // SAFETY: the scalar kernel runs everywhere.
    unsafe { lookup::<Scalar>(arena, root, key, from) }
}

/// A lookup, from the root.
///
/// # Safety
/// `K` must be a kernel of the machine that runs.
#[inline(always)]
unsafe fn lookup<K: Kernel>(arena: &[u8], reference: Ref, key: &Key, from: u32) -> (u32, Visits) {
    let mut visits = Visits::default();
    if !reference.is_root() {
        // SAFETY: passed on from the caller.
        let best = unsafe { walk::<K>(arena, reference, key, from, NO_MATCH, &mut visits) };
        return (best, visits);
    }
    let Some(root) = Root::view(arena, reference.offset()) else { return (NO_MATCH, visits) };
    let scale = root.scale();
    // All cells are loaded before the first is judged: their misses overlap.
    let mut cells = [(root::Cell::EMPTY, 0); root::TREES_MAX];
    for (t, cell) in cells.iter_mut().enumerate().take(root.tree_count()) {
        let tree = root.tree(t);
        *cell = (root::cell_at(arena, tree.cells, tree.cell(key)), tree.filter_bit(key));
    }
    let mut best = NO_MATCH;
    for &(cell, filter_bit) in &cells[..root.tree_count()] {
        if cell.lets_in(filter_bit, scale.scaled(best)) {
            visits.trees += 1;
            // SAFETY: passed on from the caller.
            best = unsafe { walk::<K>(arena, cell.reference, key, from, best, &mut visits) };
        }
    }
    (best, visits)
}

/// A reference that does not lead upward is damage: without this a walk could loop.
#[inline(always)]
fn upward(to: Ref, from: usize) -> Ref {
    if to.offset() > from { to } else { Ref::EMPTY }
}

/// A deferred reference that waits, and the smallest position behind it.
#[derive(Clone, Copy)]
struct Pending {
    reference: Ref,
    smallest: u32,
}

/// The walk below a root: the smallest of `best` and what is found from `here` on.
///
/// # Safety
/// `K` must be a kernel of the machine that runs.
#[inline(always)]
unsafe fn walk<K: Kernel>(
    arena: &[u8],
    mut here: Ref,
    key: &Key,
    from: u32,
    mut best: u32,
    visits: &mut Visits,
) -> u32 {
    let mut pending = [Pending { reference: Ref::EMPTY, smallest: 0 }; PENDING_MAX];
    let mut waiting = 0;
    loop {
        // Down to a leaf, or to where no rule is.
        while !here.is_leaf() {
            visits.nodes += 1;
            let offset = here.offset();
            let Some(bytes) = arena.get(offset..).and_then(|a| a.first_chunk::<NODE_BYTES>()) else {
                here = Ref::EMPTY;
                break;
            };
            if let Some(part) = deferred(arena, bytes, offset)
                && part.smallest < best
                && waiting < PENDING_MAX
            {
                pending[waiting] = part;
                waiting += 1;
            }
            // SAFETY: passed on from the caller.
            let slot = unsafe { K::slot(bytes, key.window(node::window(bytes))) };
            here =
                if visits.nodes < VISITS_MAX { upward(node::child(bytes, slot), offset) } else { Ref::EMPTY };
        }
        // SAFETY: passed on from the caller.
        best = best.min(unsafe { leaf::<K>(arena, here, key, from, visits) });
        // On to a deferred part that may hold an earlier rule.
        loop {
            if waiting == 0 {
                return best;
            }
            waiting -= 1;
            if pending[waiting].smallest < best {
                here = pending[waiting].reference;
                break;
            }
        }
    }
}

/// The first rule at or after `from` in a leaf and its continuations.
///
/// # Safety
/// `K` must be a kernel of the machine that runs.
#[inline(always)]
unsafe fn leaf<K: Kernel>(arena: &[u8], here: Ref, key: &Key, from: u32, visits: &mut Visits) -> u32 {
    match here.kind() {
        Kind::Lean | Kind::Lean2 => {
            visits.leaves += 1;
            let Some(leaf) = Leaf::view(arena, here.offset()) else { return NO_MATCH };
            // SAFETY: passed on from the caller.
            let mask = unsafe { K::lean(&leaf, key) };
            first_from(mask, from, |rule| leaf.position(rule))
        }
        Kind::Fat if !here.is_empty() => {
            // SAFETY: passed on from the caller.
            unsafe { fat_leaf::<K>(arena, here, key, from, visits) }
        }
        _ => NO_MATCH,
    }
}

/// A fat leaf and its continuations. Rare: kept out of the way of the others.
///
/// # Safety
/// `K` must be a kernel of the machine that runs.
unsafe fn fat_leaf<K: Kernel>(arena: &[u8], mut here: Ref, key: &Key, from: u32, visits: &mut Visits) -> u32 {
    while here.kind() == Kind::Fat && !here.is_empty() && visits.leaves < VISITS_MAX {
        visits.leaves += 1;
        let Some(leaf) = FatLeaf::view(arena, here.offset()) else { break };
        // SAFETY: passed on from the caller.
        let mask = unsafe { K::fat(&leaf, key) };
        let found = first_from(mask, from, |rule| leaf.position(rule));
        if found != NO_MATCH {
            return found;
        }
        here = upward(leaf.next(), here.offset());
    }
    NO_MATCH
}

/// The deferred reference in the unit before a node's children.
#[inline(always)]
fn deferred(arena: &[u8], node: &NodeBytes, offset: usize) -> Option<Pending> {
    if !node::has_deferred(node) {
        return None;
    }
    let at = (node::base(node) as usize & Ref::UNITS_MAX).checked_sub(1)? * UNIT;
    let unit = arena.get(at..at + UNIT)?;
    Some(Pending { reference: upward(Ref(u32_at(unit, 0)), offset), smallest: u32_at(unit, 4) })
}

/// The first rule of `mask` whose position is at or after `from`.
#[inline(always)]
fn first_from(mut mask: u64, from: u32, position: impl Fn(usize) -> u32) -> u32 {
    while mask != 0 {
        let position = position(mask.trailing_zeros() as usize);
        if position >= from {
            return position;
        }
        mask &= mask - 1;
    }
    NO_MATCH
}
