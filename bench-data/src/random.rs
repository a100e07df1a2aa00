//! The source of everything drawn: a seed, a purpose, and integers.
//!
//! The stream is ChaCha with 8 rounds, keyed by the seed and the purpose, so two purposes never
//! share a stream and a new one does not disturb the others. What is made of the stream is
//! integer arithmetic of this file: no float, no distribution of another crate whose next
//! version could draw differently.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Billionths in a whole.
const BILLION: u32 = 1_000_000_000;

/// A share of a whole, in billionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Share(u32);

impl Share {
    /// Nothing of it.
    pub const NONE: Share = Share(0);
    /// All of it.
    pub const ALL: Share = Share(BILLION);

    /// So many billionths; `None` when they are more than a whole.
    pub fn from_billionths(billionths: u32) -> Option<Share> {
        (billionths <= BILLION).then_some(Share(billionths))
    }

    /// So many hundredths; all when they are more.
    pub const fn percent(hundredths: u32) -> Share {
        if hundredths >= 100 { Share::ALL } else { Share(hundredths * (BILLION / 100)) }
    }

    /// The share in billionths.
    pub fn billionths(self) -> u32 {
        self.0
    }

    /// What is left of the whole.
    pub fn rest(self) -> Share {
        Share(BILLION - self.0)
    }

    /// This share, and that share of its rest.
    pub fn or_else(self, other: Share) -> Share {
        Share(self.0 + other.of(self.rest()).0)
    }

    /// This share of that share.
    pub fn of(self, other: Share) -> Share {
        Share((u64::from(self.0) * u64::from(other.0) / u64::from(BILLION)) as u32)
    }
}

/// A stream of draws.
#[derive(Debug, Clone)]
pub struct Draw(ChaCha8Rng);

impl Draw {
    /// The stream of `seed` for `purpose`, of which the first 24 bytes count.
    pub fn new(seed: u64, purpose: &str) -> Draw {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        let name = purpose.as_bytes();
        let len = name.len().min(24);
        key[8..8 + len].copy_from_slice(&name[..len]);
        Draw(ChaCha8Rng::from_seed(key))
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `end`, all equally likely; 0 when `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        // Scaling 64 bits to `end` favours some numbers by one draw in 2^64 / end: the low half
        // of the product tells those draws, and they are drawn again.
        let unfair = end.wrapping_neg().checked_rem(end).unwrap_or(0);
        loop {
            let product = u128::from(self.bits()) * u128::from(end);
            if product as u64 >= unfair {
                return (product >> 64) as u64;
            }
        }
    }

    /// An index below `len`; 0 when `len` is 0.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u32, high: u32) -> u32 {
        let width = u64::from(high.saturating_sub(low)) + 1;
        low + self.below(width) as u32
    }

    /// A port from `low` to `high`, both included.
    pub fn port(&mut self, low: u16, high: u16) -> u16 {
        self.between(low.into(), high.into()) as u16
    }

    /// True in `share` of the draws.
    pub fn chance(&mut self, share: Share) -> bool {
        self.below(BILLION.into()) < u64::from(share.0)
    }

    /// True in `hundredths` of 100 draws.
    pub fn percent(&mut self, hundredths: u32) -> bool {
        self.below(100) < u64::from(hundredths)
    }

    /// One of `values`, all equally likely.
    ///
    /// # Panics
    ///
    /// When there is none: callers pass tables of their own.
    pub fn pick<'a, T>(&mut self, values: &'a [T]) -> &'a T {
        &values[self.index(values.len())]
    }

    /// Puts `values` in random order.
    pub fn shuffle<T>(&mut self, values: &mut [T]) {
        for i in (1..values.len()).rev() {
            values.swap(i, self.index(i + 1));
        }
    }
}

/// Values with weights, to draw from. A draw costs a binary search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weighted<T> {
    values: Vec<T>,
    /// `ends[i]` is the sum of the weights up to and with value `i`; rises strictly.
    ends: Vec<u64>,
}

impl<T> Weighted<T> {
    /// Values with their weights. Those of weight 0 are left out, since they are never drawn.
    pub fn new(values: impl IntoIterator<Item = (T, u32)>) -> Weighted<T> {
        let mut weighted = Weighted { values: Vec::new(), ends: Vec::new() };
        let mut end: u64 = 0;
        for (value, weight) in values {
            if weight > 0 {
                end += u64::from(weight);
                weighted.values.push(value);
                weighted.ends.push(end);
            }
        }
        weighted
    }

    /// Nothing can be drawn.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The values that can be drawn.
    pub fn values(&self) -> &[T] {
        &self.values
    }

    /// A value, each as often as its weight says; `None` when there is none.
    pub fn draw(&self, draw: &mut Draw) -> Option<&T> {
        let ticket = draw.below(*self.ends.last()?);
        let index = self.ends.partition_point(|&end| end <= ticket);
        self.values.get(index)
    }
}

impl<T> Default for Weighted<T> {
    fn default() -> Self {
        Weighted { values: Vec::new(), ends: Vec::new() }
    }
}

/// Ranks from 0 drawn by Zipf's law: rank `k` has weight `1 / (k + 1)`, in integers.
pub fn zipf(ranks: u32) -> Weighted<u32> {
    // Ranks beyond the numerator would get no weight; there are at most 2^24 of them.
    const NUMERATOR: u32 = u32::MAX;
    Weighted::new((0..ranks).map(|rank| (rank, (NUMERATOR / (rank + 1)).max(1))))
}

/// 64 bits that look random, a function of `x` (the finishing steps of SplitMix64).
pub fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A digest of bytes for tests that pin what is made (64-bit FNV-1a).
pub fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If this fails, every seed makes other inputs than before and no measurement compares.
    #[test]
    fn the_stream_never_changes() {
        let mut draw = Draw::new(1, "test");
        // As another implementation of ChaCha with 8 rounds computes them.
        assert_eq!([draw.bits(), draw.bits()], [16001276356796049181, 15365679993241207966]);
        assert_eq!([draw.below(10), draw.below(1 << 40)], [1, 25778720267]);
    }

    #[test]
    fn draws_stay_within_their_bounds_and_reach_both_ends() {
        let mut draw = Draw::new(7, "bounds");
        let seen: Vec<u32> = (0..200).map(|_| draw.between(3, 6)).collect();
        assert!((3..=6).all(|x| seen.contains(&x)) && seen.iter().all(|x| (3..=6).contains(x)));
        assert_eq!((draw.below(0), draw.below(1), draw.index(0)), (0, 0, 0));
        assert_eq!(draw.between(9, 2), 9);
        assert!(!draw.chance(Share::NONE) && draw.chance(Share::ALL));
        draw.between(0, u32::MAX);
    }

    #[test]
    fn weights_decide_how_often_a_value_is_drawn() {
        let mut draw = Draw::new(7, "weights");
        let coin = Weighted::new([('a', 3), ('b', 1), ('c', 0)]);
        let a = (0..4000).filter(|_| coin.draw(&mut draw) == Some(&'a')).count();
        assert!((2900..3100).contains(&a), "{a}");
        assert_eq!(coin.values(), ['a', 'b']);
        assert_eq!(Weighted::<u8>::default().draw(&mut draw), None);
    }

    #[test]
    fn shares_multiply() {
        assert_eq!(Share::percent(50).of(Share::percent(50)), Share::percent(25));
        assert_eq!(Share::percent(30).rest(), Share::percent(70));
        assert_eq!(Share::from_billionths(1_000_000_001), None);
    }
}
