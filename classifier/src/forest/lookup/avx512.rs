//! 512-bit vectors: a whole lean leaf in one or two of them, the cells of all trees at once.
//!
//! A key is one register, and a byte permutation brings any of its windows to any lane.
//!
//! - **Cells**: 16 lanes of 32 bits are the halves of the indices and filter values of four
//!   trees. One permutation fetches all windows, one shift and one mask take their bits, one
//!   multiplication joins the halves.
//! - **Leaf**: each lane needs the key's window of its column. Two permutations: lane numbers
//!   into window offsets (by a pattern that the numbers of rules and guards decide), offsets into
//!   the key's bytes.

use std::arch::x86_64::*;

use super::batch::{self, BLOCK, KeyBlock, Kinds};
use super::gates::Trees;
use super::lanes::PATTERNS;
use super::{Arena, Cells, Kernel, Start, lookup};
use crate::forest::fat::FatLeaf;
use crate::forest::leaf::{LONG_HEADER_BYTES, Lean, REACH, RULES_MAX, VECTOR_LANES};
use crate::forest::node::{BOUNDS_OFFSET, NodeBytes};
use crate::forest::root::{Bits, Scale, TREES_MAX};
use crate::forest::{Ref, UNIT};
use crate::key::{KEY_BYTES, Key, Keys};

/// `SHORT`: keys take 16 bytes, as an IPv4 five-tuple does. They are one narrow load, and their
/// windows are shuffled to lanes, which takes a third of the time of a permutation.
pub(super) struct Avx512<const SHORT: bool>;

// The farthest load from a leaf's beginning, whatever its header says: 63 lower ends, then a
// second vector of spans.
const _: () = assert!(LONG_HEADER_BYTES + 4 * RULES_MAX + 2 * 63 + 2 * 64 <= REACH && KEY_BYTES >= 64);

/// The gates of up to four trees. In vectors of 16 lanes of 32 bits: the two halves of each
/// index, then those of each filter value.
#[derive(Clone, Copy)]
pub(super) struct Gates {
    trees: Trees,
    /// For a byte permutation of the key: the window in the lower half of each lane.
    windows: __m512i,
    shifts: __m512i,
    masks: __m512i,
    /// Lanes of 64 bits: what the first half is multiplied by before the second is added.
    factors: __m512i,
    /// Byte offset of each table.
    tables: __m256i,
    /// Trees that have a table.
    sound: __mmask8,
}

impl<const SHORT: bool> Kernel for Avx512<SHORT> {
    const SHORT: bool = SHORT;

    type Gates = Gates;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2,bmi1,bmi2,popcnt")]
    unsafe fn gates(trees: Trees) -> Gates {
        let (mut windows, mut shifts, mut masks) = ([0; 16], [0; 16], [0; 16]);
        let mut tables = [0; TREES_MAX];
        let mut sound = 0;
        for (t, table) in tables.iter_mut().enumerate() {
            let Some(tree) = trees.get(t) else { continue };
            sound |= 1 << t;
            *table = u64::from(tree.cells) * UNIT as u64;
            let halves = [tree.index[0], tree.index[1], tree.filter[0], tree.filter[1]];
            for (half, lane) in halves.into_iter().zip([2 * t, 2 * t + 1, 2 * t + 8, 2 * t + 9]) {
                let window = u32::from(half.window);
                windows[lane] = window | (window + 1) << 8;
                shifts[lane] = u32::from(half.shift & 15);
                masks[lane] = u32::from(half.mask);
            }
        }
        // SAFETY: 16 words each.
        let load = |words: &[u32; 16]| unsafe { _mm512_loadu_si512(words.as_ptr().cast()) };
        let masks = load(&masks);
        Gates {
            windows: load(&windows),
            shifts: load(&shifts),
            masks,
            factors: _mm512_add_epi64(_mm512_srli_epi64::<32>(masks), _mm512_set1_epi64(1)),
            // SAFETY: four words of twice the length.
            tables: unsafe { _mm256_loadu_si256(tables.as_ptr().cast()) },
            sound,
            trees,
        }
    }

    #[inline(always)]
    fn scale(gates: &Gates) -> Scale {
        gates.trees.scale
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2,bmi1,bmi2,popcnt")]
    unsafe fn cells(gates: &Gates, arena: &[u8], key: &Key, out: &mut Cells) -> u32 {
        let windows = _mm512_maskz_mov_epi8(0x3333_3333_3333_3333, spread::<SHORT>(key, gates.windows));
        let bits = _mm512_and_si512(_mm512_srlv_epi32(windows, gates.shifts), gates.masks);
        let joined = _mm512_mul_epu32(bits, gates.factors);
        let joined = _mm512_add_epi64(joined, _mm512_srli_epi64::<32>(bits));
        let index = _mm512_castsi512_si256(joined);
        let at = _mm256_add_epi64(gates.tables, _mm256_slli_epi64::<3>(index));
        // Four loads by hand take a third of the instructions of a gather.
        // SAFETY: the table of a sound tree lies in the arena, and no index leads out of it; other
        // trees have index 0 of a table at 0, and an arena that has a root has eight bytes.
        let cells = unsafe {
            let cell = |at: i64| arena.as_ptr().add(at as usize).cast::<i64>().read_unaligned();
            let (low, high) = (_mm256_castsi256_si128(at), _mm256_extracti128_si256::<1>(at));
            _mm256_setr_epi64x(
                cell(_mm_cvtsi128_si64(low)),
                cell(_mm_extract_epi64::<1>(low)),
                cell(_mm_cvtsi128_si64(high)),
                cell(_mm_extract_epi64::<1>(high)),
            )
        };
        // The filter's bit among the upper 32 of a cell: see `root::fold`.
        let value = _mm512_extracti64x4_epi64::<1>(joined);
        let three = _mm256_add_epi64(value, _mm256_add_epi64(value, value));
        let bit = _mm256_rolv_epi64(_mm256_set1_epi64x(1 << 32), _mm256_srli_epi64::<2>(three));
        let open = _mm256_test_epi64_mask(cells, bit);
        // SAFETY: four words are 32 bytes.
        unsafe { _mm256_storeu_si256(out.0.as_mut_ptr().cast(), cells) };
        (open & gates.sound).into()
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2,bmi1,bmi2,popcnt")]
    unsafe fn before(cells: &Cells, best: u32) -> u32 {
        // SAFETY: four words are 32 bytes.
        let smallest = _mm256_srli_epi64::<56>(unsafe { _mm256_loadu_si256(cells.0.as_ptr().cast()) });
        _mm256_cmple_epu64_mask(smallest, _mm256_set1_epi64x(best.into())).into()
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2,bmi1,bmi2,popcnt")]
    unsafe fn enter(
        gates: &Gates,
        t: usize,
        arena: &[u8],
        keys: KeyBlock<'_>,
        best: &[u32; BLOCK],
        here: &mut [u32; BLOCK],
    ) {
        let Some(tree) = gates.trees.get(t) else { return here.fill(Ref::EMPTY.0) };
        let table = arena[tree.cells as usize * UNIT..].as_ptr();
        let scale = gates.trees.scale;
        for first in (0..keys.count()).step_by(16) {
            // SAFETY: passed on from the caller; `first` is below the number of keys.
            let keys = unsafe { KeyGroup::new(keys, first, SHORT) };
            let index = keys.join(tree.index);
            let value = keys.join(tree.filter);
            let three = _mm512_add_epi32(value, _mm512_add_epi32(value, value));
            let bit = _mm512_sllv_epi32(_mm512_set1_epi32(1), _mm512_srli_epi32::<2>(three));
            let nowhere = _mm512_set1_epi32(Ref::EMPTY.0 as i32);
            // A whole cell for each key, eight at a time.
            // SAFETY: the table lies in the arena, and no index leads out of it.
            let (a, b) = unsafe {
                let (low, high) = (_mm512_castsi512_si256(index), _mm512_extracti64x4_epi64::<1>(index));
                let live = [keys.live as u8, (keys.live >> 8) as u8];
                (
                    _mm512_mask_i32gather_epi64::<8>(nowhere, live[0], low, table.cast()),
                    _mm512_mask_i32gather_epi64::<8>(nowhere, live[1], high, table.cast()),
                )
            };
            let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
            let refs = _mm512_permutex2var_epi32(a, even, b);
            let gate = _mm512_permutex2var_epi32(a, _mm512_add_epi32(even, _mm512_set1_epi32(1)), b);
            // SAFETY: a block has 64 best positions.
            let best = unsafe { _mm512_loadu_si512(best.as_ptr().add(first).cast()) };
            let best = _mm512_sub_epi32(best, _mm512_set1_epi32(scale.first as i32));
            let best = _mm512_srl_epi32(best, _mm_cvtsi32_si128(scale.shift as i32));
            let open = _mm512_mask_test_epi32_mask(keys.live, gate, bit);
            // A scaled best above 255 is never below a gate's 8 bits.
            let open = _mm512_mask_cmple_epu32_mask(open, _mm512_srli_epi32::<24>(gate), best);
            let refs = _mm512_mask_mov_epi32(nowhere, open, refs);
            // SAFETY: a block has 64 references.
            unsafe { _mm512_storeu_si512(here.as_mut_ptr().add(first).cast(), refs) };
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2,bmi1,bmi2,popcnt")]
    unsafe fn kinds(references: &[u32; BLOCK]) -> Kinds {
        let mut kinds = [0; 4];
        for (group, words) in references.chunks_exact(16).enumerate() {
            // SAFETY: 16 words.
            let words = unsafe { _mm512_loadu_si512(words.as_ptr().cast()) };
            let there = _mm512_cmpneq_epi32_mask(words, _mm512_set1_epi32(Ref::EMPTY.0 as i32));
            let kind = _mm512_srli_epi32::<30>(words);
            for (number, set) in kinds.iter_mut().enumerate() {
                let these = _mm512_mask_cmpeq_epi32_mask(there, kind, _mm512_set1_epi32(number as i32));
                *set |= u64::from(these) << (16 * group);
            }
        }
        kinds
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2,bmi1,bmi2,popcnt")]
    unsafe fn slot(node: &NodeBytes, value: u16) -> usize {
        // SAFETY: 32 bytes from two before the bounds lie inside the node's 64.
        let lanes = unsafe { _mm256_loadu_si256(node.as_ptr().add(BOUNDS_OFFSET - 2).cast()) };
        // Lanes 1 to 14 are bounds.
        let below = _mm256_mask_cmplt_epu16_mask(0x7ffe, lanes, _mm256_set1_epi16(value as i16));
        below.count_ones() as usize
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2,bmi1,bmi2,popcnt")]
    unsafe fn lean(leaf: &Lean<'_>, key: &Key, wide: bool) -> u32 {
        // SAFETY: this function has the features.
        let mut off = u64::from(unsafe { outside::<0, SHORT>(leaf, key) });
        if wide {
            // SAFETY: as above.
            off |= u64::from(unsafe { outside::<1, SHORT>(leaf, key) }) << VECTOR_LANES;
        }
        let off = _bzhi_u64(off, leaf.lanes);
        if SHORT {
            super::lanes::rules_of::<false>(off, leaf.guards(), leaf.rules())
        } else {
            super::lanes::rules_of::<true>(off, leaf.guards(), leaf.rules())
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2,bmi1,bmi2,popcnt")]
    unsafe fn fat(leaf: &FatLeaf<'_>, key: &Key) -> u64 {
        // SAFETY: AVX2 is part of this machine.
        unsafe { super::avx2::Avx2::<SHORT>::fat(leaf, key) }
    }

    #[inline(always)]
    fn prefetch(byte: *const u8) {
        super::avx2::Avx2::<SHORT>::prefetch(byte);
    }
}

/// Up to 16 keys of a block, taken apart.
struct KeyGroup {
    start: *const u8,
    /// Byte offsets of the keys.
    steps: __m512i,
    /// Lanes that have a key.
    live: __mmask16,
    /// Their first four words, one vector each: loading 16 keys and turning them around costs
    /// less than gathering the words of each.
    words: Option<[__m512i; 4]>,
}

impl KeyGroup {
    /// # Safety
    /// The machine has this function's features, and `first` is below the number of keys.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2,bmi1,bmi2,popcnt")]
    unsafe fn new(keys: KeyBlock<'_>, first: usize, is_short: bool) -> KeyGroup {
        let stride = keys.stride();
        // SAFETY: passed on from the caller.
        let start = unsafe { keys.get(first) }.0.as_ptr();
        let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        let left = keys.count() - first;
        let whole = is_short && stride == 16 && left >= 16;
        KeyGroup {
            start,
            steps: _mm512_mullo_epi32(lanes, _mm512_set1_epi32(stride as i32)),
            live: if left >= 16 { u16::MAX } else { (1 << left) - 1 },
            // SAFETY: 16 keys of 16 bytes are there.
            words: if whole { Some(unsafe { transposed(start) }) } else { None },
        }
    }

    /// Some bits of each key.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2,bmi1,bmi2,popcnt")]
    fn bits(&self, half: Bits) -> __m512i {
        let mask = _mm512_set1_epi32(half.mask.into());
        let shift = u32::from(half.shift & 15);
        let count = |bits: u32| _mm_cvtsi32_si128(bits as i32);
        let Some(words) = &self.words else {
            // SAFETY: lanes that have a key, behind whose beginning are 128 bytes.
            let windows = unsafe {
                let start = self.start.add(usize::from(half.window).min(KEY_BYTES - 4));
                _mm512_mask_i32gather_epi32::<1>(_mm512_setzero_si512(), self.live, self.steps, start.cast())
            };
            return _mm512_and_si512(_mm512_srl_epi32(windows, count(shift)), mask);
        };
        let (word, shift) = (usize::from((half.window / 4) & 3), u32::from(half.window % 4) * 8 + shift);
        let low = _mm512_srl_epi32(words[word], count(shift));
        // What the next word has of it: nothing, when that is shifted by 32 or more.
        let high = _mm512_sll_epi32(words[(word + 1) & 3], count(32_u32.wrapping_sub(shift)));
        let high = if shift < 32 { high } else { _mm512_srl_epi32(words[(word + 1) & 3], count(shift - 32)) };
        _mm512_and_si512(_mm512_or_si512(low, high), mask)
    }

    /// Two halves of each key as one number.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2,bmi1,bmi2,popcnt")]
    fn join(&self, halves: [Bits; 2]) -> __m512i {
        let high = _mm512_sll_epi32(self.bits(halves[0]), _mm_cvtsi32_si128(halves[1].count() as i32));
        _mm512_or_si512(high, self.bits(halves[1]))
    }
}

/// 16 keys of four words as four vectors: the first words of all, the second words of all, …
///
/// # Safety
/// 256 bytes are there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2,bmi1,bmi2,popcnt")]
unsafe fn transposed(start: *const u8) -> [__m512i; 4] {
    // SAFETY: passed on from the caller.
    let four = |i: usize| unsafe { _mm512_loadu_si512(start.add(64 * i).cast()) };
    let (a, b, c, d) = (four(0), four(1), four(2), four(3));
    // Words 0 and 1 of eight keys, and words 2 and 3.
    let low = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 1, 5, 9, 13, 17, 21, 25, 29);
    let high = _mm512_add_epi32(low, _mm512_set1_epi32(2));
    let (ab01, ab23) = (_mm512_permutex2var_epi32(a, low, b), _mm512_permutex2var_epi32(a, high, b));
    let (cd01, cd23) = (_mm512_permutex2var_epi32(c, low, d), _mm512_permutex2var_epi32(c, high, d));
    [
        _mm512_shuffle_i64x2::<0x44>(ab01, cd01),
        _mm512_shuffle_i64x2::<0xee>(ab01, cd01),
        _mm512_shuffle_i64x2::<0x44>(ab23, cd23),
        _mm512_shuffle_i64x2::<0xee>(ab23, cd23),
    ]
}

/// The bytes of a key at some offsets: below 16 when it is short, below 64 when not.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2,bmi1,bmi2,popcnt")]
fn spread<const SHORT: bool>(key: &Key, offsets: __m512i) -> __m512i {
    // SAFETY: a key has 128 bytes.
    unsafe {
        if SHORT {
            let key = _mm512_broadcast_i32x4(_mm_loadu_si128(key.0.as_ptr().cast()));
            _mm512_shuffle_epi8(key, offsets)
        } else {
            _mm512_permutexvar_epi8(offsets, _mm512_loadu_si512(key.0.as_ptr().cast()))
        }
    }
}

/// The lanes of vector `PART` of a leaf that do not hold the key; those behind the last say anything.
///
/// # Safety
/// The machine has this function's features.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2,bmi1,bmi2,popcnt")]
unsafe fn outside<const PART: usize, const SHORT: bool>(leaf: &Lean<'_>, key: &Key) -> u32 {
    let bytes = leaf.bytes.as_ptr();
    let pattern = PATTERNS.of(PART, leaf.shape);
    let ranged = _bzhi_u64(u64::MAX, leaf.spans.saturating_sub((VECTOR_LANES * PART) as u32)) as u32;
    // SAFETY: 64 bytes each of a pattern, of the lower ends and of the spans, and 16 of the header: see REACH.
    let (pattern, header, lo, spans) = unsafe {
        (
            _mm512_loadu_si512(pattern.as_ptr().cast()),
            _mm512_broadcast_i32x4(_mm_loadu_si128(bytes.cast())),
            _mm512_loadu_si512(bytes.add(leaf.lo_at() + 64 * PART).cast()),
            // Single values have none.
            _mm512_maskz_loadu_epi16(ranged, bytes.add(leaf.spans_at() + 64 * PART).cast()),
        )
    };
    // Window offsets, the second byte of each lane one more.
    let offsets = _mm512_shuffle_epi8(header, pattern);
    let offsets = _mm512_add_epi8(offsets, _mm512_set1_epi16(0x0100));
    let x = spread::<SHORT>(key, offsets);
    _mm512_cmpgt_epu16_mask(_mm512_sub_epi16(x, lo), spans)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2,bmi1,bmi2,popcnt")]
pub(super) fn first_match<const SHORT: bool>(
    arena: Arena<'_>,
    start: Start<'_, Avx512<SHORT>>,
    key: &Key,
    from: u32,
) -> u32 {
    // SAFETY: this function runs only where its features are.
    unsafe { lookup(arena, start, key, from, &mut ()) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2,bmi1,bmi2,popcnt")]
pub(super) fn block<const SHORT: bool>(
    arena: Arena<'_>,
    start: Start<'_, Avx512<SHORT>>,
    keys: &Keys,
    first: usize,
    out: &mut [u32],
) {
    // SAFETY: this function runs only where its features are.
    unsafe { batch::block(arena, start, keys, first, out) }
}
