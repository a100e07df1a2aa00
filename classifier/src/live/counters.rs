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
const PAGE: usize = 1024;

/// Pages: 4 million counters.
const PAGES: usize = 4096;

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

    /// Counts a packet. For the one thread whose counters they are.
    #[inline]
    pub fn count(&self, number: u32, bytes: u32) {
        let Some(page) = self.pages.get(number as usize / PAGE) else { return };
        let page = page.get_or_init(|| (0..PAGE).map(|_| [AtomicU64::new(0), AtomicU64::new(0)]).collect());
        let [packets, sum] = &page[number as usize % PAGE];
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
