//! 256-bit vectors: 16 lanes of 16 bits.
//!
//! There is no unsigned comparison; `lo <= x <= hi` is `sat(lo - x) | sat(x - hi) == 0` with
//! saturating subtraction, one instruction each.

use std::arch::x86_64::*;

use super::batch::{self, BLOCK, KeyBlock, Kinds};
use super::gates::Trees;
use super::lanes::PATTERNS;
use super::{Arena, Cells, Kernel, Start, lookup};
use crate::forest::fat::FatLeaf;
use crate::forest::leaf::{LONG_HEADER_BYTES, Lean, REACH, RULES_MAX, VECTOR_LANES, WINDOWS_AT};
use crate::forest::node::{BOUNDS_OFFSET, NodeBytes};
use crate::forest::root::{Bits, Scale, TREES_MAX};
use crate::forest::{ARENA_SLACK, Ref, UNIT};
use crate::key::{KEY_BYTES, Key, Keys};

/// `SHORT`: keys take 16 bytes, as an IPv4 five-tuple does, and their windows are shuffled to lanes.
pub(super) struct Avx2<const SHORT: bool>;

/// Lanes of one vector.
const LANES: usize = 16;

// A chunk's loads end at most one vector past the leaf's last byte.
const _: () = assert!(LANES * 2 <= ARENA_SLACK);

// The farthest load from a lean leaf's beginning, whatever its header says: 63 lower ends, then
// 135 upper ends (guards and 15 columns of 8).
const _: () = assert!(LONG_HEADER_BYTES + 4 * RULES_MAX + 2 * 63 + 2 * 63 + 16 <= REACH);

/// # Safety
/// 16 bytes lie at the offset.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
unsafe fn at(bytes: *const u8, offset: usize) -> __m128i {
    // SAFETY: passed on from the caller.
    unsafe { _mm_loadu_si128(bytes.add(offset).cast()) }
}

/// The gates of up to four trees.
#[derive(Clone, Copy)]
pub(super) struct Gates {
    trees: Trees,
    index: Halves,
    filter: Halves,
    /// Byte offset of each table.
    tables: __m256i,
    /// All ones for trees that have a table.
    sound: __m256i,
}

/// In lanes of 32 bits, two for each tree.
#[derive(Clone, Copy)]
struct Halves {
    windows: __m256i,
    /// For a shuffle of the key's first 16 bytes: the window in the lower half of each lane.
    shuffle: __m256i,
    shifts: __m256i,
    masks: __m256i,
    /// Lanes of 64 bits: what the first half is multiplied by before the second is added.
    factors: __m256i,
}

impl Halves {
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    fn of(halves: [Bits; 2 * TREES_MAX]) -> Halves {
        // SAFETY: eight words.
        let load = |words: [u32; 8]| unsafe { _mm256_loadu_si256(words.as_ptr().cast()) };
        let windows = load(halves.map(|h| h.window.into()));
        let next = _mm256_slli_epi32::<8>(_mm256_add_epi32(windows, _mm256_set1_epi32(1)));
        let masks = load(halves.map(|h| h.mask.into()));
        // A byte above 127 shuffles a zero in.
        let zeros = _mm256_set1_epi32(0x8080_0000_u32 as i32);
        Halves {
            windows,
            shuffle: _mm256_or_si256(_mm256_or_si256(windows, next), zeros),
            shifts: load(halves.map(|h| (h.shift & 15).into())),
            masks,
            factors: _mm256_add_epi64(_mm256_srli_epi64::<32>(masks), _mm256_set1_epi64x(1)),
        }
    }

    /// The two halves of each tree as one number.
    #[inline]
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    fn of_key<const SHORT: bool>(&self, key: &Key) -> __m256i {
        let windows = if SHORT {
            // SAFETY: a key has 128 bytes.
            let key = unsafe { _mm_loadu_si128(key.0.as_ptr().cast()) };
            _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(key), self.shuffle)
        } else {
            // Whatever the record says, four bytes inside the key.
            let at = _mm256_min_epu32(self.windows, _mm256_set1_epi32(KEY_BYTES as i32 - 4));
            // SAFETY: the offsets were just cut.
            unsafe { _mm256_i32gather_epi32::<1>(key.0.as_ptr().cast(), at) }
        };
        let bits = _mm256_and_si256(_mm256_srlv_epi32(windows, self.shifts), self.masks);
        _mm256_add_epi64(_mm256_mul_epu32(bits, self.factors), _mm256_srli_epi64::<32>(bits))
    }
}

impl<const SHORT: bool> Kernel for Avx2<SHORT> {
    const SHORT: bool = SHORT;

    type Gates = Gates;

    #[inline]
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    unsafe fn gates(trees: Trees) -> Gates {
        let (mut index, mut filter) = ([Bits::NONE; 8], [Bits::NONE; 8]);
        let (mut tables, mut sound) = ([0; TREES_MAX], [0; TREES_MAX]);
        for t in 0..TREES_MAX {
            let Some(tree) = trees.get(t) else { continue };
            index[2 * t..][..2].copy_from_slice(&tree.index);
            filter[2 * t..][..2].copy_from_slice(&tree.filter);
            tables[t] = u64::from(tree.cells) * UNIT as u64;
            sound[t] = u64::MAX;
        }
        // SAFETY: four long words.
        let load = |words: [u64; TREES_MAX]| unsafe { _mm256_loadu_si256(words.as_ptr().cast()) };
        Gates {
            index: Halves::of(index),
            filter: Halves::of(filter),
            tables: load(tables),
            sound: load(sound),
            trees,
        }
    }

    #[inline(always)]
    fn scale(gates: &Gates) -> Scale {
        gates.trees.scale
    }

    #[inline]
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    unsafe fn cells(gates: &Gates, arena: &[u8], key: &Key, out: &mut Cells) -> u32 {
        let index = gates.index.of_key::<SHORT>(key);
        let at = _mm256_add_epi64(gates.tables, _mm256_slli_epi64::<3>(index));
        // SAFETY: the table of a sound tree lies in the arena, and no index leads out of it.
        let cells = unsafe {
            _mm256_mask_i64gather_epi64::<1>(_mm256_setzero_si256(), arena.as_ptr().cast(), at, gates.sound)
        };
        // The filter's bit among the upper 32 of a cell: see `root::fold`.
        let value = gates.filter.of_key::<SHORT>(key);
        let three = _mm256_add_epi64(value, _mm256_add_epi64(value, value));
        let bit = _mm256_sllv_epi64(_mm256_set1_epi64x(1 << 32), _mm256_srli_epi64::<2>(three));
        let shut = _mm256_cmpeq_epi64(_mm256_and_si256(cells, bit), _mm256_setzero_si256());
        // SAFETY: four words are 32 bytes.
        unsafe { _mm256_storeu_si256(out.0.as_mut_ptr().cast(), cells) };
        !_mm256_movemask_pd(_mm256_castsi256_pd(shut)) as u32 & 15
    }

    #[inline]
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
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
        for first in (0..keys.count()).step_by(8) {
            // SAFETY: passed on from the caller; `first` is below the number of keys.
            let keys = unsafe { KeyGroup::new(keys, first, SHORT) };
            let index = keys.join(tree.index);
            let value = keys.join(tree.filter);
            let three = _mm256_add_epi32(value, _mm256_add_epi32(value, value));
            let bit = _mm256_sllv_epi32(_mm256_set1_epi32(1), _mm256_srli_epi32::<2>(three));
            let nowhere = _mm256_set1_epi32(Ref::EMPTY.0 as i32);
            // SAFETY: the table lies in the arena, and no index leads out of it; the second word
            // of a cell is inside of it.
            let gate =
                unsafe { _mm256_mask_i32gather_epi32::<8>(nowhere, table.add(4).cast(), index, keys.live) };
            // SAFETY: a block has 64 best positions.
            let best = unsafe { _mm256_loadu_si256(best.as_ptr().add(first).cast()) };
            let best = _mm256_sub_epi32(best, _mm256_set1_epi32(scale.first as i32));
            let best = _mm256_srl_epi32(best, _mm_cvtsi32_si128(scale.shift as i32));
            let shut = _mm256_cmpeq_epi32(_mm256_and_si256(gate, bit), _mm256_setzero_si256());
            // A scaled best above 255 is never below a gate's 8 bits.
            let early = _mm256_srli_epi32::<24>(gate);
            let early = _mm256_cmpeq_epi32(_mm256_min_epu32(early, best), early);
            let open = _mm256_and_si256(_mm256_andnot_si256(shut, early), keys.live);
            // SAFETY: as above, the first word of each cell; a block has 64 references.
            unsafe {
                let refs = _mm256_mask_i32gather_epi32::<8>(nowhere, table.cast(), index, open);
                _mm256_storeu_si256(here.as_mut_ptr().add(first).cast(), refs);
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    unsafe fn kinds(references: &[u32; BLOCK]) -> Kinds {
        let (mut there, mut high, mut low) = (0, 0, 0);
        for (group, words) in references.chunks_exact(8).enumerate() {
            // SAFETY: eight words.
            let words = unsafe { _mm256_loadu_si256(words.as_ptr().cast()) };
            let bits = |words| u64::from(_mm256_movemask_ps(_mm256_castsi256_ps(words)) as u8) << (8 * group);
            there |= bits(_mm256_cmpeq_epi32(words, _mm256_set1_epi32(Ref::EMPTY.0 as i32)));
            high |= bits(words);
            low |= bits(_mm256_slli_epi32::<1>(words));
        }
        let there = !there;
        [!high & !low & there, !high & low & there, high & !low & there, high & low & there]
    }

    #[inline]
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
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
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    unsafe fn lean(leaf: &Lean<'_>, key: &Key, wide: bool) -> u32 {
        if SHORT { lean_by_lanes(leaf, key, wide) } else { lean_by_columns(leaf, key) }
    }

    #[inline(always)]
    fn prefetch(byte: *const u8) {
        // SAFETY: a prefetch of any address has no effect that a program can see.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(byte.cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
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

/// A leaf whose keys are short: all lanes at once, 16 a vector. A loop over columns would end at
/// another one each time.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
fn lean_by_lanes(leaf: &Lean<'_>, key: &Key, wide: bool) -> u32 {
    let mut off = u64::from(outside::<0>(leaf, key));
    if wide {
        off |= u64::from(outside::<1>(leaf, key)) << VECTOR_LANES;
    }
    super::lanes::rules_of::<false>(_bzhi_u64(off, leaf.lanes), leaf.guards(), leaf.rules())
}

/// The lanes of part `PART` of a leaf, two vectors, that do not hold the key; those behind the last
/// say anything.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
fn outside<const PART: usize>(leaf: &Lean<'_>, key: &Key) -> u32 {
    let bytes = leaf.bytes.as_ptr();
    let pattern = PATTERNS.of(PART, leaf.shape).as_ptr();
    // SAFETY: a key has 128 bytes, a leaf's header 16 of REACH.
    let (key, header) = unsafe { (at(key.0.as_ptr(), 0), at(bytes, 0)) };
    let (key, header) = (_mm256_broadcastsi128_si256(key), _mm256_broadcastsi128_si256(header));
    let ranged = _mm256_set1_epi16(leaf.spans as i16);
    let lanes = _mm256_setr_epi16(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let inside = |half: usize| {
        let first = VECTOR_LANES * PART + LANES * half;
        // SAFETY: 32 bytes each of a pattern, of the lower ends and of the spans: see REACH.
        let (pattern, lo, spans) = unsafe {
            (
                _mm256_loadu_si256(pattern.add(2 * LANES * half).cast()),
                _mm256_loadu_si256(bytes.add(leaf.lo_at() + 2 * first).cast()),
                _mm256_loadu_si256(bytes.add(leaf.spans_at() + 2 * first).cast()),
            )
        };
        // Window offsets, the second byte of each lane one more.
        let offsets = _mm256_shuffle_epi8(header, pattern);
        let x = _mm256_shuffle_epi8(key, _mm256_add_epi8(offsets, _mm256_set1_epi16(0x0100)));
        // Single values have no spans.
        let lanes = _mm256_add_epi16(lanes, _mm256_set1_epi16(first as i16));
        let spans = _mm256_and_si256(spans, _mm256_cmpgt_epi16(ranged, lanes));
        let off = _mm256_subs_epu16(_mm256_sub_epi16(x, lo), spans);
        _mm256_cmpeq_epi16(off, _mm256_setzero_si256())
    };
    // A byte a lane; packing works within halves of vectors.
    let packed = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi16(inside(0), inside(1)));
    !_mm256_movemask_epi8(packed) as u32
}

/// A leaf whose keys are long: one column after the other.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
fn lean_by_columns(leaf: &Lean<'_>, key: &Key) -> u32 {
    let (n, g) = (leaf.rules() as usize, leaf.guards() as usize);
    let (lanes, ranged) = (leaf.lanes as usize, leaf.spans as usize);
    let (lo_at, spans_at) = (leaf.lo_at(), leaf.spans_at());
    let bytes = leaf.bytes.as_ptr();
    let window = |column: usize| key.window(leaf.bytes[(WINDOWS_AT + column) % REACH]);
    let mut outside = _mm_setzero_si128();
    let mut column = 0;
    while column < g {
        let x = _mm_set1_epi16(window(column) as i16);
        // SAFETY: see REACH: at most 16 guards, then 16 bytes, of lower ends and of spans.
        let (lo, spans) = unsafe { (at(bytes, lo_at + 2 * column), at(bytes, spans_at + 2 * column)) };
        let off = _mm_subs_epu16(_mm_sub_epi16(x, lo), spans);
        outside = _mm_or_si128(outside, _mm_broadcastw_epi16(off));
        column += 1;
    }
    let mut lane = g;
    while lane < lanes {
        let x = _mm_set1_epi16(window(column) as i16);
        // SAFETY: see REACH: at most 63 lanes, then 16 bytes, of lower ends and of spans.
        let lo = unsafe { at(bytes, lo_at + 2 * lane) };
        let above = _mm_sub_epi16(x, lo);
        let off = if lane < ranged {
            // SAFETY: as above.
            _mm_subs_epu16(above, unsafe { at(bytes, spans_at + 2 * lane) })
        } else {
            above
        };
        outside = _mm_or_si128(outside, off);
        lane += n;
        column += 1;
    }
    let holds = _mm_cmpeq_epi16(outside, _mm_setzero_si128());
    let bits = _mm_movemask_epi8(_mm_packs_epi16(holds, _mm_setzero_si128())) as u32;
    bits & ((1 << n) - 1)
}

/// Up to eight keys of a block, taken apart.
struct KeyGroup {
    start: *const u8,
    /// Byte offsets of the keys.
    steps: __m256i,
    /// All ones in lanes that have a key.
    live: __m256i,
    /// Their first four words, one vector each.
    words: Option<[__m256i; 4]>,
}

impl KeyGroup {
    /// # Safety
    /// The machine has this function's features, and `first` is below the number of keys.
    #[inline]
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    unsafe fn new(keys: KeyBlock<'_>, first: usize, is_short: bool) -> KeyGroup {
        let stride = keys.stride();
        // SAFETY: passed on from the caller.
        let start = unsafe { keys.get(first) }.0.as_ptr();
        let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        let left = keys.count() - first;
        KeyGroup {
            start,
            steps: _mm256_mullo_epi32(lanes, _mm256_set1_epi32(stride as i32)),
            live: _mm256_cmpgt_epi32(_mm256_set1_epi32(left as i32), lanes),
            // SAFETY: eight keys are there.
            words: if is_short && left >= 8 { Some(unsafe { transposed(start, stride) }) } else { None },
        }
    }

    /// Some bits of each key.
    #[inline]
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    fn bits(&self, half: Bits) -> __m256i {
        let mask = _mm256_set1_epi32(half.mask.into());
        let shift = u32::from(half.shift & 15);
        let count = |bits: u32| _mm_cvtsi32_si128(bits as i32);
        let Some(words) = &self.words else {
            // SAFETY: lanes that have a key, behind whose beginning are 128 bytes.
            let windows = unsafe {
                let start = self.start.add(usize::from(half.window).min(KEY_BYTES - 4));
                _mm256_mask_i32gather_epi32::<1>(_mm256_setzero_si256(), start.cast(), self.steps, self.live)
            };
            return _mm256_and_si256(_mm256_srl_epi32(windows, count(shift)), mask);
        };
        let (word, shift) = (usize::from((half.window / 4) & 3), u32::from(half.window % 4) * 8 + shift);
        let low = _mm256_srl_epi32(words[word], count(shift));
        // What the next word has of it: nothing, when that is shifted by 32 or more.
        let high = _mm256_sll_epi32(words[(word + 1) & 3], count(32_u32.wrapping_sub(shift)));
        let high = if shift < 32 { high } else { _mm256_srl_epi32(words[(word + 1) & 3], count(shift - 32)) };
        _mm256_and_si256(_mm256_or_si256(low, high), mask)
    }

    /// Two halves of each key as one number.
    #[inline]
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    fn join(&self, halves: [Bits; 2]) -> __m256i {
        let high = _mm256_sll_epi32(self.bits(halves[0]), _mm_cvtsi32_si128(halves[1].count() as i32));
        _mm256_or_si256(high, self.bits(halves[1]))
    }
}

/// The first four words of eight keys as four vectors: the first words of all, the second words
/// of all, …
///
/// # Safety
/// Eight keys of at least 16 bytes lie `stride` bytes apart.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
unsafe fn transposed(start: *const u8, stride: usize) -> [__m256i; 4] {
    // SAFETY: passed on from the caller.
    let key = |i: usize| unsafe { _mm_loadu_si128(start.add(stride * i).cast()) };
    let pair = |i: usize| _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(key(i)), key(i + 4));
    let (a, b, c, d) = (pair(0), pair(1), pair(2), pair(3));
    let (ab01, ab23) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    let (cd01, cd23) = (_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
    [
        _mm256_unpacklo_epi64(ab01, cd01),
        _mm256_unpackhi_epi64(ab01, cd01),
        _mm256_unpacklo_epi64(ab23, cd23),
        _mm256_unpackhi_epi64(ab23, cd23),
    ]
}

/// Which of the rules `first .. first + 16` hold the key, guards aside.
///
/// # Safety
/// `first` is below the leaf's number of rules, and the leaf's bytes have [`ARENA_SLACK`] more
/// behind them.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
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

#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
pub(super) fn first_match<const SHORT: bool>(
    arena: Arena<'_>,
    start: Start<'_, Avx2<SHORT>>,
    key: &Key,
    from: u32,
) -> u32 {
    // SAFETY: this function runs only where its features are.
    unsafe { lookup(arena, start, key, from, &mut ()) }
}

#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
pub(super) fn block<const SHORT: bool>(
    arena: Arena<'_>,
    start: Start<'_, Avx2<SHORT>>,
    keys: &Keys,
    first: usize,
    out: &mut [u32],
) {
    // SAFETY: this function runs only where its features are.
    unsafe { batch::block(arena, start, keys, first, out) }
}
