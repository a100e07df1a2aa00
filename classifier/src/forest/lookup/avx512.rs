//! 512-bit vectors: a whole lean leaf in one or two of them, the gates of 16 keys at once.
//!
//! A key is one register. The lanes of a leaf need, each, the key's window of their column; two
//! byte permutations bring them there: the first turns lane numbers into window offsets (by a
//! pattern that n and g decide), the second offsets into the key's bytes.

use std::arch::x86_64::*;

use super::batch::{self, Block, Lists};
use super::{Kernel, lookup};
use crate::forest::fat::FatLeaf;
use crate::forest::leaf::{LO_AT, Leaf, RULES_MAX, VECTOR_LANES, WINDOWS_AT};
use crate::forest::node::{BOUNDS_OFFSET, NodeBytes};
use crate::forest::root::{Bits, CELL_BYTES, FILTER_ALL, Scale, TreeRecord};
use crate::forest::{ARENA_SLACK, Ref, UNIT};
use crate::key::{KEY_BYTES, Key, Keys};

pub(super) struct Avx512;

// The second vector of upper ends begins at most 64 bytes behind the leaf's end.
const _: () = assert!(ARENA_SLACK >= 2 * 64 && KEY_BYTES >= 64);

/// For each number of guards and rules and each of two vectors, the byte of the leaf's header
/// that holds the window of each lane (twice: a lane has two bytes).
static PATTERNS: [[[[u8; 64]; 2]; RULES_MAX + 1]; 9] = patterns();

const fn patterns() -> [[[[u8; 64]; 2]; RULES_MAX + 1]; 9] {
    let mut all = [[[[0; 64]; 2]; RULES_MAX + 1]; 9];
    let mut guards = 0;
    while guards <= 8 {
        let mut rules = 1;
        while rules <= RULES_MAX {
            let mut lane = 0;
            while lane < 2 * VECTOR_LANES {
                let column = if lane < guards { lane } else { guards + (lane - guards) / rules };
                // Lanes past the last column are masked away; they only have to stay inside.
                let byte = WINDOWS_AT + if column < 8 { column } else { 7 };
                let place = &mut all[guards][rules][lane / VECTOR_LANES];
                place[2 * (lane % VECTOR_LANES)] = byte as u8;
                place[2 * (lane % VECTOR_LANES) + 1] = byte as u8;
                lane += 1;
            }
            rules += 1;
        }
        guards += 1;
    }
    all
}

impl Kernel for Avx512 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2,bmi1,popcnt")]
    unsafe fn slot(node: &NodeBytes, value: u16) -> usize {
        // SAFETY: 32 bytes from two before the bounds lie inside the node's 64.
        let lanes = unsafe { _mm256_loadu_si256(node.as_ptr().add(BOUNDS_OFFSET - 2).cast()) };
        // Lanes 1 to 14 are bounds.
        let below = _mm256_mask_cmplt_epu16_mask(0x7ffe, lanes, _mm256_set1_epi16(value as i16));
        below.count_ones() as usize
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2,bmi1,popcnt")]
    unsafe fn lean(leaf: &Leaf<'_>, key: &Key) -> u64 {
        let l = &leaf.layout;
        let (n, g, lanes) = (l.rules, l.guards, l.lanes());
        // SAFETY: `Leaf::view` saw that guards are 0–8 and rules 1–8, that the leaf and
        // ARENA_SLACK more bytes are there, and a key has 128 bytes.
        let mut mask = unsafe { vector(leaf, key, 0) };
        if lanes > VECTOR_LANES {
            // SAFETY: as above.
            mask |= unsafe { vector(leaf, key, 1) } << VECTOR_LANES;
        }
        // Lanes behind the last count as holding, so that every fold has eight columns.
        let columns = ((mask >> g) | (u64::MAX << (lanes - g))) as i64;
        let two = columns & (columns >> n);
        let four = two & (two >> (2 * n));
        let eight = (four & (four >> (4 * n))) as u64;
        let guards = (1 << g) - 1;
        let hold = u64::from(mask & guards == guards);
        eight & ((1 << n) - 1) & hold.wrapping_neg()
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2,bmi1,popcnt")]
    unsafe fn fat(leaf: &FatLeaf<'_>, key: &Key) -> u64 {
        // SAFETY: AVX2 is part of this machine.
        unsafe { super::avx2::Avx2::fat(leaf, key) }
    }

    #[inline(always)]
    fn prefetch(byte: &u8) {
        super::avx2::Avx2::prefetch(byte);
    }
}

/// The lanes of vector `part` of a leaf that hold the key.
///
/// # Safety
/// The leaf's layout is sound and ARENA_SLACK bytes lie behind it.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2,bmi1,popcnt")]
unsafe fn vector(leaf: &Leaf<'_>, key: &Key, part: usize) -> u64 {
    let l = &leaf.layout;
    let bytes = leaf.bytes.as_ptr();
    let pattern = &PATTERNS[l.guards][l.rules][part];
    // SAFETY: 64 bytes each of a pattern, of the leaf's beginning (it and its slack have more),
    // of the key's 128, and of the lanes: the last vector begins inside the leaf or at its end,
    // and at most 64 bytes on comes the second part.
    let (pattern, header, key, lo, hi) = unsafe {
        (
            _mm512_loadu_si512(pattern.as_ptr().cast()),
            _mm512_castsi128_si512(_mm_loadu_si128(bytes.cast())),
            _mm512_loadu_si512(key.0.as_ptr().cast()),
            _mm512_loadu_si512(bytes.add(LO_AT + 64 * part).cast()),
            _mm512_loadu_si512(bytes.add(l.hi_at() + 64 * part).cast()),
        )
    };
    // Window offsets, the second byte of each lane one more.
    let offsets = _mm512_permutexvar_epi8(pattern, header);
    let offsets = _mm512_add_epi8(offsets, _mm512_set1_epi16(0x0100));
    let x = _mm512_permutexvar_epi8(offsets, key);
    let first = VECTOR_LANES * part;
    let ones = |lanes: usize| {
        let lanes = lanes.saturating_sub(first).min(VECTOR_LANES);
        ((1u64 << lanes) - 1) as u32
    };
    let (stored, ranged) = (ones(l.lanes()), ones(l.hi_lanes()));
    let inside = _mm512_mask_cmple_epu16_mask(_mm512_mask_cmpge_epu16_mask(ranged, x, lo), x, hi);
    let equal = _mm512_mask_cmpeq_epu16_mask(stored & !ranged, x, lo);
    u64::from(inside | equal)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2,bmi1,popcnt")]
pub(super) fn first_match(arena: &[u8], root: Ref, key: &Key, from: u32) -> u32 {
    // SAFETY: this function runs only where its features are.
    unsafe { lookup::<Avx512>(arena, root, key, from).0 }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2,bmi1,popcnt")]
pub(super) fn block(arena: &[u8], root: Ref, keys: &Keys, first: usize, out: &mut [u32]) {
    // SAFETY: this function runs only where its features are.
    unsafe { batch::block_with::<Avx512>(arena, root, keys, first, out, gates) }
}

/// The gates of a tree for a block, 16 keys at a time.
///
/// # Safety
/// The machine has this function's features.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2,bmi1,popcnt")]
unsafe fn gates(arena: &[u8], tree: &TreeRecord, scale: Scale, block: &Block<'_>, lists: &mut Lists) {
    let cells_at = tree.cells as usize * UNIT;
    let table = arena.get(cells_at..).and_then(|a| a.get(..tree.cell_count() * CELL_BYTES));
    let Some(table) = table else { return };
    // Else an index might leave the table.
    if !tree.is_sound() {
        return;
    }
    let stride = block.keys.stride();
    let bytes = block.keys.as_bytes();
    let steps = _mm512_mullo_epi32(
        _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
        _mm512_set1_epi32(stride as i32),
    );
    for group in 0..block.count.div_ceil(16) {
        let live: u16 = if block.count - 16 * group >= 16 { u16::MAX } else { (1 << (block.count % 16)) - 1 };
        let start = (block.first + 16 * group) * stride;
        let bits = |half: Bits| {
            if half.mask == 0 {
                return _mm512_setzero_si512();
            }
            // SAFETY: only live lanes are read; each is a key of `block.keys` (the range was
            // checked), behind whose beginning are 128 bytes.
            let words = unsafe {
                _mm512_mask_i32gather_epi32::<1>(
                    _mm512_setzero_si512(),
                    live,
                    steps,
                    bytes.as_ptr().add(start + usize::from(half.window.min(124))).cast(),
                )
            };
            let words = _mm512_and_si512(words, _mm512_set1_epi32(0xffff));
            let shifted = _mm512_srl_epi32(words, _mm_cvtsi32_si128(i32::from(half.shift & 15)));
            _mm512_and_si512(shifted, _mm512_set1_epi32(i32::from(half.mask)))
        };
        let join = |halves: [Bits; 2]| {
            let shift = _mm_cvtsi32_si128(halves[1].count() as i32);
            _mm512_or_si512(_mm512_sll_epi32(bits(halves[0]), shift), bits(halves[1]))
        };
        let index = join(tree.index);
        let value = _mm512_and_si512(join(tree.filter), _mm512_set1_epi32(31));
        let three = _mm512_add_epi32(value, _mm512_add_epi32(value, value));
        let filter_bit = _mm512_sllv_epi32(_mm512_set1_epi32(1), _mm512_srli_epi32::<2>(three));
        // SAFETY: a sound tree's index is below its number of cells, all of which are in the
        // table; the second word of a cell is inside of it.
        let gate = unsafe {
            _mm512_mask_i32gather_epi32::<8>(
                _mm512_setzero_si512(),
                live,
                index,
                table.as_ptr().add(4).cast(),
            )
        };
        // SAFETY: a block has 64 best positions.
        let best = unsafe { _mm512_loadu_si512(block.best.as_ptr().add(16 * group).cast()) };
        let best = _mm512_sub_epi32(best, _mm512_set1_epi32(scale.first as i32));
        let best = _mm512_srl_epi32(best, _mm_cvtsi32_si128(scale.shift as i32));
        let filter_bit = _mm512_and_si512(filter_bit, _mm512_set1_epi32(FILTER_ALL as i32));
        let open = _mm512_test_epi32_mask(gate, filter_bit) & live;
        // A scaled best above 255 is never below a gate's 8 bits.
        let open = _mm512_mask_cmple_epu32_mask(open, _mm512_srli_epi32::<24>(gate), best);
        // SAFETY: as above, the first word of each cell.
        let refs = unsafe {
            _mm512_mask_i32gather_epi32::<8>(_mm512_setzero_si512(), open, index, table.as_ptr().cast())
        };
        let numbers = _mm512_add_epi32(
            _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
            _mm512_set1_epi32(16 * group as i32),
        );
        let kinds = _mm512_srli_epi32::<30>(refs);
        for (kind, list) in lists.by_kind.iter_mut().enumerate() {
            let these = _mm512_mask_cmpeq_epi32_mask(open, kinds, _mm512_set1_epi32(kind as i32));
            // SAFETY: a list has room for 16 entries behind the 64 that it can have.
            unsafe {
                let at = list.len;
                _mm512_storeu_si512(
                    list.refs.as_mut_ptr().add(at).cast(),
                    _mm512_maskz_compress_epi32(these, refs),
                );
                _mm512_storeu_si512(
                    list.keys.as_mut_ptr().add(at).cast(),
                    _mm512_maskz_compress_epi32(these, numbers),
                );
            }
            list.len += these.count_ones() as usize;
        }
    }
}
