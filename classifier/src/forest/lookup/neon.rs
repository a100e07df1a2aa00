//! 128-bit vectors of AArch64: 8 lanes of 16 bits, which is one column of a lean leaf.
//!
//! Unsigned values are compared as they are, but the answer stays in lanes: there is no
//! instruction that makes a bit of each. Lanes are cut to a bit each, all different, and summed
//! ([`bits`]), once a leaf. There is no gather either: gates and cells are the definition's, one
//! load after the other.

use std::arch::aarch64::*;
use std::arch::asm;

use super::batch::{self, BLOCK, KeyBlock, Kinds};
use super::gates::Trees;
use super::scalar::Scalar;
use super::{Arena, Cells, Kernel, Start, lookup};
use crate::forest::fat::FatLeaf;
use crate::forest::leaf::{LONG_HEADER_BYTES, Lean, REACH, RULES_MAX, WINDOWS_AT};
use crate::forest::node::{BOUNDS_OFFSET, FAN_MAX, NODE_BYTES, NodeBytes};
use crate::forest::root::Scale;
use crate::forest::{ARENA_SLACK, u16_at};
use crate::key::{Key, Keys};

pub(super) struct Neon;

/// Lanes of one vector.
const LANES: usize = 8;

/// Bytes of one vector.
const VECTOR: usize = 16;

// A column of a lean leaf is one vector. The farthest load from the leaf's beginning, whatever
// its header says: 63 lower ends, then 135 upper ends (guards and 15 columns of 8).
const _: () =
    assert!(RULES_MAX == LANES && LONG_HEADER_BYTES + 4 * RULES_MAX + 2 * 63 + 2 * 63 + VECTOR <= REACH);

// A chunk of a fat leaf, of 32-bit lanes too, ends less than two vectors behind its column.
const _: () = assert!(LANES * 4 <= ARENA_SLACK);

/// The bounds that lie in a second vector and not in the first already.
const SECOND_BOUNDS: usize = FAN_MAX - 1 - LANES;

const _: () = assert!(SECOND_BOUNDS <= LANES && BOUNDS_OFFSET + 2 * VECTOR <= NODE_BYTES);

/// Eight lanes of 16 bits, from wherever they lie.
///
/// # Safety
/// 16 bytes lie at the offset.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn at(bytes: *const u8, offset: usize) -> uint16x8_t {
    // Bytes, not words: those would have to be aligned.
    // SAFETY: passed on from the caller.
    vreinterpretq_u16_u8(unsafe { vld1q_u8(bytes.add(offset)) })
}

/// Eight lanes of 32 bits, four in each half.
///
/// # Safety
/// 32 bytes lie at the offset.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn wide_at(bytes: *const u8, offset: usize) -> [uint32x4_t; 2] {
    // SAFETY: passed on from the caller.
    let half = |i: usize| vreinterpretq_u32_u8(unsafe { vld1q_u8(bytes.add(offset + VECTOR * i)) });
    [half(0), half(1)]
}

/// All ones in lanes where `lo <= x <= hi`.
#[inline]
#[target_feature(enable = "neon")]
fn inside(lo: uint16x8_t, x: uint16x8_t, hi: uint16x8_t) -> uint16x8_t {
    vandq_u16(vcleq_u16(lo, x), vcleq_u16(x, hi))
}

/// A bit for each lane that is all ones; the others are zero.
#[inline]
#[target_feature(enable = "neon")]
fn bits(lanes: uint16x8_t) -> u32 {
    const BITS: [u16; LANES] = [1, 2, 4, 8, 16, 32, 64, 128];
    // SAFETY: eight words.
    let bits = unsafe { vld1q_u16(BITS.as_ptr()) };
    vaddvq_u16(vandq_u16(lanes, bits)).into()
}

impl Kernel for Neon {
    type Gates = Trees;

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn gates(trees: Trees) -> Trees {
        trees
    }

    #[inline(always)]
    fn scale(trees: &Trees) -> Scale {
        trees.scale
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn cells(trees: &Trees, arena: &[u8], key: &Key, out: &mut Cells) -> u32 {
        // SAFETY: plain code runs everywhere; the gates are passed on from the caller.
        unsafe { Scalar::cells(trees, arena, key, out) }
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn enter(
        trees: &Trees,
        tree: usize,
        arena: &[u8],
        keys: KeyBlock<'_>,
        best: &[u32; BLOCK],
        here: &mut [u32; BLOCK],
    ) {
        // SAFETY: plain code runs everywhere; the gates are passed on from the caller.
        unsafe { Scalar::enter(trees, tree, arena, keys, best, here) }
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn kinds(references: &[u32; BLOCK]) -> Kinds {
        // A byte for each reference: its kind, or 255 when it leads nowhere.
        let mut codes = [vdupq_n_u8(0); BLOCK / VECTOR];
        let (groups, _) = references.as_chunks::<VECTOR>();
        for (codes, words) in codes.iter_mut().zip(groups) {
            let code = |i: usize| {
                // SAFETY: the last of the 16 words is number 4 · 3 + 3.
                let words = unsafe { vld1q_u32(words.as_ptr().add(4 * i)) };
                let nowhere = vceqq_u32(words, vdupq_n_u32(u32::MAX));
                vreinterpretq_u16_u32(vorrq_u32(vshrq_n_u32::<30>(words), nowhere))
            };
            // The even halves of words, then the even bytes of these: their lowest.
            let (low, high) = (vuzp1q_u16(code(0), code(1)), vuzp1q_u16(code(2), code(3)));
            *codes = vuzp1q_u8(vreinterpretq_u8_u16(low), vreinterpretq_u8_u16(high));
        }
        const BITS: [u8; VECTOR] = [1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128];
        // SAFETY: 16 bytes.
        let bits = unsafe { vld1q_u8(BITS.as_ptr()) };
        [0, 1, 2, 3].map(|kind| {
            let of = |i: usize| vandq_u8(vceqq_u8(codes[i], vdupq_n_u8(kind)), bits);
            // Sums of neighbours, three times: eight lanes become one byte, in their order.
            let (low, high) = (vpaddq_u8(of(0), of(1)), vpaddq_u8(of(2), of(3)));
            let quarters = vpaddq_u8(low, high);
            vgetq_lane_u64::<0>(vreinterpretq_u64_u8(vpaddq_u8(quarters, quarters)))
        })
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn slot(node: &NodeBytes, value: u16) -> usize {
        let x = vdupq_n_u16(value);
        // Whatever follows the bounds in the second vector does not count.
        const BOUNDS: [u16; LANES] = {
            let mut lanes = [0; LANES];
            let mut lane = 0;
            while lane < SECOND_BOUNDS {
                lanes[lane] = u16::MAX;
                lane += 1;
            }
            lanes
        };
        // SAFETY: both vectors end inside the node, see above; eight words.
        let (first, second, bounds) = unsafe {
            let node = node.as_ptr();
            (at(node, BOUNDS_OFFSET), at(node, BOUNDS_OFFSET + VECTOR), vld1q_u16(BOUNDS.as_ptr()))
        };
        // Minus one in lanes below.
        let below = vaddq_u16(vcltq_u16(first, x), vandq_u16(vcltq_u16(second, x), bounds));
        vaddvq_u16(below).wrapping_neg().into()
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn lean(leaf: &Lean<'_>, key: &Key, _: bool) -> u32 {
        let (n, g) = (leaf.rules() as usize, leaf.guards() as usize);
        let (lanes, ranged) = (leaf.lanes as usize, leaf.spans as usize);
        let (lo_at, spans_at) = (leaf.lo_at(), leaf.spans_at());
        let bytes = leaf.bytes.as_ptr();
        let window = |column: usize| vdupq_n_u16(key.window(leaf.bytes[(WINDOWS_AT + column) % REACH]));
        let mut holds = vdupq_n_u16(u16::MAX);
        let mut column = 0;
        while column < g {
            let lane = |at: usize| vdupq_n_u16(u16_at(leaf.bytes, at + 2 * column));
            holds = vandq_u16(holds, vcleq_u16(vsubq_u16(window(column), lane(lo_at)), lane(spans_at)));
            column += 1;
        }
        let mut lane = g;
        while lane < lanes {
            // SAFETY: see REACH: at most 63 lanes, then 16 bytes, of lower ends and of spans.
            let above = vsubq_u16(window(column), unsafe { at(bytes, lo_at + 2 * lane) });
            let these = if lane < ranged {
                // SAFETY: as above.
                vcleq_u16(above, unsafe { at(bytes, spans_at + 2 * lane) })
            } else {
                vceqzq_u16(above)
            };
            holds = vandq_u16(holds, these);
            lane += n;
            column += 1;
        }
        bits(holds) & ((1 << n) - 1)
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn fat(leaf: &FatLeaf<'_>, key: &Key) -> u64 {
        let l = &leaf.layout;
        let first_guard = l.r32 + l.r16 + l.e16;
        for i in 0..l.g16 {
            let x = key.window(leaf.window(first_guard + i));
            let at = l.g16_at() + 4 * i;
            if x < u16_at(leaf.bytes, at) || u16_at(leaf.bytes, at + 2) < x {
                return 0;
            }
        }
        let mut mask = 0;
        for first in (0..l.rules).step_by(LANES) {
            // SAFETY: `FatLeaf::view` saw that the leaf and ARENA_SLACK more bytes are there.
            mask |= unsafe { chunk(leaf, key, first) } << first;
        }
        mask
    }

    #[inline(always)]
    fn prefetch(byte: *const u8) {
        // SAFETY: a prefetch of any address has no effect that a program can see: it writes no
        // memory, takes no stack and leaves the flags.
        unsafe { asm!("prfm pldl1keep, [{}]", in(reg) byte, options(readonly, nostack, preserves_flags)) }
    }
}

/// Which of the rules `first .. first + 8` hold the key, guards aside.
///
/// # Safety
/// `first` is below the leaf's number of rules, and the leaf's bytes have [`ARENA_SLACK`] more
/// behind them.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn chunk(leaf: &FatLeaf<'_>, key: &Key, first: usize) -> u64 {
    let l = &leaf.layout;
    let n = l.rules;
    let bytes = leaf.bytes.as_ptr();
    let mut holds = vdupq_n_u16(u16::MAX);
    for i in 0..l.r32 {
        let x = vdupq_n_u32(key.wide(leaf.window(i)));
        let at = l.r32_at() + 8 * n * i + 4 * first;
        // SAFETY: lanes from rule `first` of this column on, eight: less than two vectors reach
        // past its end.
        let (lo, hi) = unsafe { (wide_at(bytes, at), wide_at(bytes, at + 4 * n)) };
        let these = |i: usize| vmovn_u32(vandq_u32(vcleq_u32(lo[i], x), vcleq_u32(x, hi[i])));
        holds = vandq_u16(holds, vcombine_u16(these(0), these(1)));
    }
    for i in 0..l.r16 {
        let x = vdupq_n_u16(key.window(leaf.window(l.r32 + i)));
        let from = l.r16_at() + 4 * n * i + 2 * first;
        // SAFETY: as above, one vector each.
        let (lo, hi) = unsafe { (at(bytes, from), at(bytes, from + 2 * n)) };
        holds = vandq_u16(holds, inside(lo, x, hi));
    }
    for i in 0..l.e16 {
        let x = vdupq_n_u16(key.window(leaf.window(l.r32 + l.r16 + i)));
        // SAFETY: as above.
        let values = unsafe { at(bytes, l.e16_at() + 2 * n * i + 2 * first) };
        holds = vandq_u16(holds, vceqq_u16(values, x));
    }
    let rules = (n - first).min(LANES);
    u64::from(bits(holds) & ((1 << rules) - 1))
}

#[target_feature(enable = "neon")]
pub(super) fn first_match(arena: Arena<'_>, start: Start<'_, Neon>, key: &Key, from: u32) -> u32 {
    // SAFETY: this function runs only where its features are.
    unsafe { lookup(arena, start, key, from, &mut ()) }
}

#[target_feature(enable = "neon")]
pub(super) fn block(arena: Arena<'_>, start: Start<'_, Neon>, keys: &Keys, first: usize, out: &mut [u32]) {
    // SAFETY: this function runs only where its features are.
    unsafe { batch::block(arena, start, keys, first, out) }
}
