//! 256-bit vectors: 16 lanes of 16 bits.
//!
//! There is no unsigned comparison; `lo <= x <= hi` is `sat(lo - x) | sat(x - hi) == 0` with
//! saturating subtraction, one instruction each.

use std::arch::x86_64::*;

use super::{Kernel, batch, lookup};
use crate::forest::fat::FatLeaf;
use crate::forest::leaf::{LO_AT, Leaf};
use crate::forest::node::{BOUNDS_OFFSET, NodeBytes};
use crate::forest::{ARENA_SLACK, Ref};
use crate::key::{Key, Keys};

pub(super) struct Avx2;

/// Lanes of one vector.
const LANES: usize = 16;

// A chunk's loads end at most one vector past the leaf's last byte.
const _: () = assert!(LANES * 2 <= ARENA_SLACK);

impl Kernel for Avx2 {
    #[inline]
    #[target_feature(enable = "avx2,bmi1,popcnt")]
    unsafe fn slot(node: &NodeBytes, value: u16) -> usize {
        // Lanes: the two bytes before the bounds, 14 bounds, the first delta.
        // SAFETY: 32 bytes from offset 4 lie inside the node's 64.
        let lanes = unsafe { _mm256_loadu_si256(node.as_ptr().add(BOUNDS_OFFSET - 2).cast()) };
        let x = _mm256_set1_epi16(value as i16);
        // bound < value: its saturating difference is not zero.
        let not_below = _mm256_cmpeq_epi16(_mm256_subs_epu16(x, lanes), _mm256_setzero_si256());
        // Two bits a lane; lanes 1 to 14 are bounds.
        let below = !(_mm256_movemask_epi8(not_below) as u32) & 0x3fff_fffc;
        below.count_ones() as usize / 2
    }

    #[inline]
    #[target_feature(enable = "avx2,bmi1,popcnt")]
    unsafe fn lean(leaf: &Leaf<'_>, key: &Key) -> u64 {
        let l = &leaf.layout;
        let (n, bytes) = (l.rules, leaf.bytes.as_ptr());
        let mut guards_hold = true;
        for guard in 0..l.guards {
            let x = key.window(leaf.window(guard));
            let at = |offset: usize| u16::from_le_bytes([leaf.bytes[offset], leaf.bytes[offset + 1]]);
            guards_hold &= at(LO_AT + 2 * guard) <= x && x <= at(l.hi_at() + 2 * guard);
        }
        let mut outside = _mm_setzero_si128();
        for column in 0..l.ranges + l.exact {
            let x = _mm_set1_epi16(key.window(leaf.window(l.guards + column)) as i16);
            let lane = l.guards + column * n;
            // SAFETY: `Leaf::view` saw that the leaf and ARENA_SLACK more bytes are there; a
            // column's lanes begin inside the leaf, and a load is 16 bytes.
            let lo = unsafe { _mm_loadu_si128(bytes.add(LO_AT + 2 * lane).cast()) };
            let off = if column < l.ranges {
                // SAFETY: as above; upper ends of range columns are stored.
                let hi = unsafe { _mm_loadu_si128(bytes.add(l.hi_at() + 2 * lane).cast()) };
                _mm_or_si128(_mm_subs_epu16(lo, x), _mm_subs_epu16(x, hi))
            } else {
                _mm_xor_si128(lo, x)
            };
            outside = _mm_or_si128(outside, off);
        }
        let holds = _mm_cmpeq_epi16(outside, _mm_setzero_si128());
        let bits = _mm_movemask_epi8(_mm_packs_epi16(holds, _mm_setzero_si128())) as u64;
        bits & ((1 << n) - 1) & (guards_hold as u64).wrapping_neg()
    }

    #[inline(always)]
    fn prefetch(byte: &u8) {
        // SAFETY: a prefetch of a valid address has no effect that a program can see.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(byte).cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx2,bmi1,popcnt")]
    unsafe fn fat(leaf: &FatLeaf<'_>, key: &Key) -> u64 {
        let l = &leaf.layout;
        let n = l.rules;
        let first_guard = l.r32 + l.r16 + l.e16;
        for i in 0..l.g16 {
            let x = key.window(leaf.window(first_guard + i));
            let at = l.g16_at() + 4 * i;
            let lo = u16::from_le_bytes([leaf.bytes[at], leaf.bytes[at + 1]]);
            let hi = u16::from_le_bytes([leaf.bytes[at + 2], leaf.bytes[at + 3]]);
            if x < lo || x > hi {
                return 0;
            }
        }
        let mut mask = 0;
        let mut first = 0;
        while first < n {
            // SAFETY: `FatLeaf::view` saw that the leaf and ARENA_SLACK more bytes are there,
            // and a chunk that begins inside a column reads at most one vector past its end.
            let bits = unsafe { chunk(leaf, key, first) };
            mask |= u64::from(bits) << first;
            first += LANES;
        }
        mask
    }
}

/// Which of the rules `first .. first + 16` hold the key, guards aside.
///
/// # Safety
/// `first` is below the leaf's number of rules, and the leaf's bytes have [`ARENA_SLACK`] more
/// behind them.
#[inline]
#[target_feature(enable = "avx2,bmi1,popcnt")]
pub(super) unsafe fn chunk(leaf: &FatLeaf<'_>, key: &Key, first: usize) -> u16 {
    let l = &leaf.layout;
    let n = l.rules;
    let bytes = leaf.bytes.as_ptr();
    let mut outside = _mm256_setzero_si256();
    let mut column = l.r32;
    let mut at = l.r16_at() + 2 * first;
    for _ in 0..l.r16 {
        let x = _mm256_set1_epi16(key.window(leaf.window(column)) as i16);
        // SAFETY: lanes from rule `first` of this column; see above.
        let (lo, hi) = unsafe {
            (_mm256_loadu_si256(bytes.add(at).cast()), _mm256_loadu_si256(bytes.add(at + 2 * n).cast()))
        };
        let off = _mm256_or_si256(_mm256_subs_epu16(lo, x), _mm256_subs_epu16(x, hi));
        outside = _mm256_or_si256(outside, off);
        at += 4 * n;
        column += 1;
    }
    let mut at = l.e16_at() + 2 * first;
    for _ in 0..l.e16 {
        let x = _mm256_set1_epi16(key.window(leaf.window(column)) as i16);
        // SAFETY: lanes from rule `first` of this column; see above.
        let value = unsafe { _mm256_loadu_si256(bytes.add(at).cast()) };
        outside = _mm256_or_si256(outside, _mm256_xor_si256(value, x));
        at += 2 * n;
        column += 1;
    }
    let holds = _mm256_cmpeq_epi16(outside, _mm256_setzero_si256());
    // Two equal bytes a lane: pack them to one bit a lane.
    let packed = _mm_packs_epi16(_mm256_castsi256_si128(holds), _mm256_extracti128_si256::<1>(holds));
    let mut bits = _mm_movemask_epi8(packed) as u16;
    if n - first < LANES {
        bits &= (1 << (n - first)) - 1;
    }
    // 32-bit ranges are rare: only for the rules that are left.
    let mut left = if l.r32 == 0 { 0 } else { bits };
    while left != 0 {
        let rule = first + left.trailing_zeros() as usize;
        if !wide_columns_hold(leaf, key, rule) {
            bits &= !(left & left.wrapping_neg());
        }
        left &= left - 1;
    }
    bits
}

fn wide_columns_hold(leaf: &FatLeaf<'_>, key: &Key, rule: usize) -> bool {
    let n = leaf.layout.rules;
    (0..leaf.layout.r32).all(|i| {
        let x = key.wide(leaf.window(i));
        let at = leaf.layout.r32_at() + 8 * n * i + 4 * rule;
        let lo = crate::forest::u32_at(leaf.bytes, at);
        let hi = crate::forest::u32_at(leaf.bytes, at + 4 * n);
        lo <= x && x <= hi
    })
}

#[target_feature(enable = "avx2,bmi1,popcnt")]
pub(super) fn first_match(arena: &[u8], root: Ref, key: &Key, from: u32) -> u32 {
    // SAFETY: this function runs only where its features are.
    unsafe { lookup::<Avx2>(arena, root, key, from).0 }
}

#[target_feature(enable = "avx2,bmi1,popcnt")]
pub(super) fn block(arena: &[u8], root: Ref, keys: &Keys, first: usize, out: &mut [u32]) {
    // SAFETY: this function runs only where its features are.
    unsafe { batch::block::<Avx2>(arena, root, keys, first, out) }
}
