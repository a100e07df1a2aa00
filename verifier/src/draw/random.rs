//! A seeded stream of random numbers.
//!
//! Only the ChaCha stream itself comes from a library: it is specified, so it never changes. How its words
//! become choices is written here, since a library may change that between releases and a seed would then
//! mean other packets.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A stream of choices; the same for the same seed and stream number, on every machine.
#[derive(Debug, Clone)]
pub(crate) struct Random(ChaCha8Rng);

impl Random {
    pub(crate) fn new(seed: u64, stream: u64) -> Random {
        // The seed is the key's first bytes: how a library spreads one over the key is its own affair.
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        let mut rng = ChaCha8Rng::from_seed(key);
        rng.set_stream(stream);
        Random(rng)
    }

    pub(crate) fn word(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// 128 random bits.
    pub(crate) fn wide(&mut self) -> u128 {
        u128::from(self.word()) << 64 | u128::from(self.word())
    }

    /// A number below `n`; 0 when `n` is 0. Its bias is below 2^-32 for every list that fits memory.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.word()) * n as u128) >> 64) as usize
    }

    /// A number in `lo..=hi`; `lo` when there is none.
    pub(crate) fn between(&mut self, lo: u128, hi: u128) -> u128 {
        match hi.saturating_sub(lo).checked_add(1) {
            Some(count) => lo + self.wide() % count,
            None => self.wide(),
        }
    }

    /// True in `percent` of 100 cases.
    pub(crate) fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of them; `None` when there are none.
    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len()))
    }
}
