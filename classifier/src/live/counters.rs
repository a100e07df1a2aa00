//! Counters of packets and bytes: each reader has its own, the writer adds them up.
//!
//! A reader's counters lie in pages that come when they are first needed; only the reader stores to
//! them, without a locked instruction, and whoever adds up loads them: a sum may miss packets of this
//! very moment, and never loses one.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Packets and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counted {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl std::ops::Add for Counted {
    type Output = Counted;

    fn add(self, other: Counted) -> Counted {
        Counted {
            packets: self.packets.wrapping_add(other.packets),
            bytes: self.bytes.wrapping_add(other.bytes),
        }
    }
}

impl std::ops::Sub for Counted {
    type Output = Counted;

    fn sub(self, other: Counted) -> Counted {
        Counted {
            packets: self.packets.wrapping_sub(other.packets),
            bytes: self.bytes.wrapping_sub(other.bytes),
        }
    }
}

/// Counters of a page.
const PAGE: usize = 8192;

/// Pages: 4 million counters.
const PAGES: usize = 512;

type Page = Box<[[AtomicU64; 2]]>;

/// One reader's counters, by number of a rule or of a policy.
#[derive(Debug)]
pub struct Counters {
    pages: Box<[OnceLock<Page>]>,
}

impl Default for Counters {
    fn default() -> Counters {
        Counters { pages: (0..PAGES).map(|_| OnceLock::new()).collect() }
    }
}

impl Counters {
    /// Numbers that can be counted: others are not.
    pub const COUNT_MAX: usize = PAGE * PAGES;

    /// Adds what another one counted. For whoever owns this one.
    pub fn add(&self, other: &Counters) {
        for (mine, theirs) in self.pages.iter().zip(&other.pages) {
            let Some(theirs) = theirs.get() else { continue };
            for (mine, theirs) in Counters::page(mine).iter().zip(theirs) {
                for (mine, theirs) in mine.iter().zip(theirs) {
                    let sum = mine.load(Ordering::Relaxed).wrapping_add(theirs.load(Ordering::Relaxed));
                    mine.store(sum, Ordering::Relaxed);
                }
            }
        }
    }

    fn page(page: &OnceLock<Page>) -> &Page {
        page.get_or_init(|| (0..PAGE).map(|_| [AtomicU64::new(0), AtomicU64::new(0)]).collect())
    }

    /// Counts a packet. For the one thread whose counters they are.
    #[inline]
    pub fn count(&self, number: u32, bytes: u32) {
        let Some(page) = self.pages.get(number as usize / PAGE) else { return };
        let [packets, sum] = &Counters::page(page)[number as usize % PAGE];
        packets.store(packets.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        sum.store(sum.load(Ordering::Relaxed).wrapping_add(bytes.into()), Ordering::Relaxed);
    }

    /// What was counted under a number.
    pub fn get(&self, number: u32) -> Counted {
        let page = self.pages.get(number as usize / PAGE).and_then(OnceLock::get);
        let Some([packets, bytes]) = page.map(|page| &page[number as usize % PAGE]) else {
            return Counted::default();
        };
        Counted { packets: packets.load(Ordering::Relaxed), bytes: bytes.load(Ordering::Relaxed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_counted_is_one_sum() {
        let (one, other) = (Counters::default(), Counters::default());
        for number in [0, 7, 8191, 8192, 4_194_303] {
            one.count(number, 100);
            other.count(number, 20);
            other.count(number, 20);
        }
        other.count(5, 1);
        other.count(u32::MAX, 1); // no such number: not counted, no harm
        one.add(&other);
        assert_eq!(one.get(8192), Counted { packets: 3, bytes: 140 });
        assert_eq!(one.get(5), Counted { packets: 1, bytes: 1 });
        assert_eq!((one.get(6), one.get(u32::MAX)), (Counted::default(), Counted::default()));
    }
}
