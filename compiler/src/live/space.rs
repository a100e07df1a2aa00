//! The memory of a generation: what is free, and what waits until no reader can be on it.
//!
//! ```text
//!   0 │ blocks in use │ free blocks, by size │ … ▲ top      never used yet │ limit
//! ```
//!
//! Freed blocks are kept by size and given out again; larger ones are split when nothing else is
//! left. A block that readers may be on is *retired* first: it waits in a queue until the epoch says
//! that they have gone, together with other things that have to wait for the same moment.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_epoch::Guard;
use hipac_classifier::forest::{LINE, UNIT};

/// Where blocks begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    /// At any unit.
    Unit,
    /// At a cache line.
    Line,
}

/// A block of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    /// Where, in units.
    at: u32,
    /// Units of 16 bytes.
    units: u32,
    align: Align,
}

impl Block {
    /// No block.
    pub(super) const NONE: Block = Block { at: 0, units: 0, align: Align::Unit };

    /// A block of `bytes` that [`Space::take`] gave at `at`.
    pub(super) fn of(at: usize, bytes: usize, align: Align) -> Block {
        Block { at: (at / UNIT) as u32, units: rounded(bytes, align) as u32, align }
    }

    /// Byte offset.
    pub(super) fn offset(self) -> usize {
        self.at as usize * UNIT
    }

    /// Bytes.
    pub(super) fn bytes(self) -> usize {
        self.units as usize * UNIT
    }
}

/// Memory that a transaction wants and cannot have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full {
    /// Bytes that would have been enough for this step.
    pub needed: usize,
}

/// Units that a request takes: exact for small ones, an eighth more at most for large ones.
fn rounded(bytes: usize, align: Align) -> usize {
    let units = bytes.div_ceil(UNIT).max(1);
    let step = match units {
        0..=32 => 1,
        _ => (units.next_power_of_two() / 16).max(1),
    };
    let units = units.next_multiple_of(step);
    if align == Align::Line { units.next_multiple_of(LINE / UNIT) } else { units }
}

/// What waits for readers to go.
#[derive(Debug)]
pub(super) enum Retired<T> {
    /// A block that is free then.
    Block(Block),
    /// Something that the owner of the space does then.
    Other(T),
}

/// Free blocks by size in units.
#[derive(Debug, Default)]
struct FreeBlocks {
    /// Up to [`SMALL`] units.
    small: Vec<Vec<u32>>,
    large: BTreeMap<usize, Vec<u32>>,
}

/// Sizes that have a list each.
const SMALL: usize = 512;

impl FreeBlocks {
    fn push(&mut self, units: usize, at: u32) {
        if units > SMALL {
            return self.large.entry(units).or_default().push(at);
        }
        if self.small.len() <= units {
            self.small.resize_with(units + 1, Vec::new);
        }
        self.small[units].push(at);
    }

    fn pop(&mut self, units: usize) -> Option<u32> {
        if units <= SMALL {
            return self.small.get_mut(units)?.pop();
        }
        let list = self.large.get_mut(&units)?;
        let at = list.pop();
        if list.is_empty() {
            self.large.remove(&units);
        }
        at
    }

    /// The smallest size of at least so many units that there is.
    fn at_least(&self, units: usize) -> Option<usize> {
        let small = (units..self.small.len()).find(|&size| !self.small[size].is_empty());
        small.or_else(|| self.large.range(units..).next().map(|(size, _)| *size))
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Space<T> {
    /// Bytes that may be used.
    limit: usize,
    /// Bytes from here on were never used.
    top: usize,
    /// Blocks that begin at any unit.
    free: FreeBlocks,
    /// Blocks that begin at a line.
    free_lines: FreeBlocks,
    /// Bytes in free blocks.
    free_bytes: usize,
    /// Bytes retired.
    waiting_bytes: usize,
    queue: VecDeque<(u64, Retired<T>)>,
    /// What is retired now belongs to this era.
    era: u64,
    retired_in_era: usize,
    /// The last era whose readers have gone.
    safe: Arc<AtomicU64>,
    /// Bytes given out since the beginning.
    taken: u64,
    /// The most that the change of one box has taken; what is long ago counts less.
    most: usize,
    /// Changes may use what is kept free for them: a transaction is undone.
    is_lent: bool,
    /// Nothing is given out any more once so much was: for tests of what happens then.
    taken_max: u64,
}

/// Bytes that one change finds free, at least.
const RESERVE_MIN: usize = 64 << 10;

/// Bytes of a limit that are kept free for a change.
pub(super) fn reserve(limit: usize) -> usize {
    RESERVE_MIN.max(limit / 32)
}

/// Bytes that may wait for readers, besides an eighth of the limit.
const WAITING_MIN: usize = 1 << 20;

impl<T> Space<T> {
    /// A space of `limit` bytes. The first cache line is never given out: offset 0 means nothing.
    pub(super) fn new(limit: usize) -> Space<T> {
        Space {
            limit: limit / LINE * LINE,
            top: LINE,
            free: FreeBlocks::default(),
            free_lines: FreeBlocks::default(),
            free_bytes: 0,
            waiting_bytes: 0,
            queue: VecDeque::new(),
            era: 1,
            retired_in_era: 0,
            safe: Arc::new(AtomicU64::new(0)),
            taken: 0,
            most: 0,
            is_lent: false,
            taken_max: u64::MAX,
        }
    }

    /// Another limit, within the memory that there is.
    pub(super) fn set_limit(&mut self, limit: usize) {
        self.limit = limit / LINE * LINE;
    }

    /// Bytes in use, those that wait included.
    pub(super) fn used(&self) -> usize {
        self.top - self.free_bytes
    }

    /// Bytes that wait for readers.
    pub(super) fn waiting(&self) -> usize {
        self.waiting_bytes
    }

    /// More waits than may.
    pub(super) fn waits_too_much(&self) -> bool {
        self.waiting_bytes > WAITING_MIN + self.limit / 8
    }

    /// There is room for a change of so many boxes, and for undoing it: asked before each, so that
    /// none is left half done.
    pub(super) fn check(&self, boxes: usize) -> Result<(), Full> {
        let reserve = reserve(self.limit).max(2 * self.most * boxes);
        let needed = self.used() + reserve;
        if needed > self.limit && !self.is_lent { Err(Full { needed }) } else { Ok(()) }
    }

    /// Lets changes use what is kept free for them, or not any more.
    pub(super) fn lend_reserve(&mut self, is_lent: bool) {
        self.is_lent = is_lent;
    }

    /// Gives nothing out any more after so many bytes: for tests.
    pub(super) fn run_out_after(&mut self, bytes: u64) {
        self.taken_max = self.taken.saturating_add(bytes);
    }

    /// The limit that holds now.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Bytes given out since the beginning.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Puts down what a change of some boxes took, which began at [`Space::taken`].
    pub(super) fn note_change(&mut self, before: u64, boxes: usize) {
        let took = (self.taken - before) as usize / boxes.max(1);
        self.most = (self.most - self.most / 256).max(took);
    }

    /// Takes a block of at least `bytes`.
    pub(super) fn take(&mut self, bytes: usize, align: Align) -> Result<Block, Full> {
        if self.taken >= self.taken_max {
            return Err(Full { needed: self.limit + 1 });
        }
        let block = self.find(rounded(bytes, align), align)?;
        self.taken += block.bytes() as u64;
        Ok(block)
    }

    fn find(&mut self, units: usize, align: Align) -> Result<Block, Full> {
        let lists = if align == Align::Line { &mut self.free_lines } else { &mut self.free };
        if let Some(at) = lists.pop(units) {
            self.free_bytes -= units * UNIT;
            return Ok(Block { at, units: units as u32, align });
        }
        let start = if align == Align::Line { self.top.next_multiple_of(LINE) } else { self.top };
        let end = start + units * UNIT;
        if end <= self.limit {
            if start > self.top {
                let gap = Block {
                    at: (self.top / UNIT) as u32,
                    units: ((start - self.top) / UNIT) as u32,
                    align: Align::Unit,
                };
                self.top = end;
                self.give(gap);
            }
            self.top = end;
            return Ok(Block { at: (start / UNIT) as u32, units: units as u32, align });
        }
        self.split(units, align).ok_or(Full { needed: end })
    }

    /// Takes a block from a larger free one: lines serve for units, too.
    #[cold]
    fn split(&mut self, units: usize, align: Align) -> Option<Block> {
        let own = if align == Align::Unit { self.free.at_least(units) } else { None };
        let (size, is_line) = match own {
            Some(size) => (size, false),
            None => (self.free_lines.at_least(units)?, true),
        };
        let at = if is_line { self.free_lines.pop(size)? } else { self.free.pop(size)? };
        self.free_bytes -= size * UNIT;
        if size > units {
            let keeps_lines = is_line && units.is_multiple_of(LINE / UNIT);
            let align = if keeps_lines { Align::Line } else { Align::Unit };
            self.give(Block { at: at + units as u32, units: (size - units) as u32, align });
        }
        Some(Block { at, units: units as u32, align })
    }

    /// Gives a block back that no reader can be on.
    pub(super) fn give(&mut self, block: Block) {
        if block.units == 0 {
            return;
        }
        let lists = if block.align == Align::Line { &mut self.free_lines } else { &mut self.free };
        lists.push(block.units as usize, block.at);
        self.free_bytes += block.bytes();
    }

    /// Gives a block back when the readers of now have gone.
    pub(super) fn retire(&mut self, block: Block) {
        if block.units > 0 {
            self.waiting_bytes += block.bytes();
            self.retired_in_era += block.bytes();
            self.queue.push_back((self.era, Retired::Block(block)));
        }
    }

    /// Does something else then.
    pub(super) fn retire_other(&mut self, what: T) {
        self.queue.push_back((self.era, Retired::Other(what)));
    }

    /// Ends an era: what was retired in it is safe when the readers of now are gone. Not in the middle
    /// of a transaction: readers who come before it is published still need what it gives up.
    pub(super) fn end_era(&mut self, guard: &Guard) {
        // Small, and so cheap for whichever thread comes to run it: readers do now and then.
        guard.defer(self.era_over());
    }

    /// Begins another era. What is given back is to be called when the readers of now are gone.
    pub(super) fn era_over(&mut self) -> impl FnOnce() + Send + 'static {
        let (era, safe) = (self.era, Arc::clone(&self.safe));
        self.era += 1;
        self.retired_in_era = 0;
        move || {
            safe.fetch_max(era, Ordering::Release);
        }
    }

    /// Bytes retired since the last era ended.
    pub(super) fn retired_in_era(&self) -> usize {
        self.retired_in_era
    }

    /// The last era that has ended.
    pub(super) fn ended(&self) -> u64 {
        self.era - 1
    }

    /// The readers of an era that has ended have gone.
    pub(super) fn is_over(&self, era: u64) -> bool {
        self.safe.load(Ordering::Acquire) >= era
    }

    /// The next thing whose time has come; blocks are given back on the way.
    pub(super) fn next_safe(&mut self) -> Option<T> {
        let safe = self.safe.load(Ordering::Acquire);
        while self.queue.front().is_some_and(|(era, _)| *era <= safe) {
            match self.queue.pop_front()?.1 {
                Retired::Block(block) => {
                    self.waiting_bytes -= block.bytes();
                    self.give(block);
                }
                Retired::Other(what) => return Some(what),
            }
        }
        None
    }

    /// What else was to be done, of a space whose blocks nobody will ask for again.
    pub(super) fn take_others(&mut self) -> impl Iterator<Item = T> {
        let all = std::mem::take(&mut self.queue).into_iter();
        all.filter_map(|(_, what)| if let Retired::Other(what) = what { Some(what) } else { None })
    }

    /// Things that wait for readers.
    pub(super) fn pending(&self) -> usize {
        self.queue.len()
    }

    /// Nothing waits.
    pub(super) fn is_quiet(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_never_overlap_and_come_back() {
        let mut space: Space<()> = Space::new(1 << 16);
        let mut taken: Vec<Block> = Vec::new();
        let mut state = 7u64;
        let mut random = move |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % n
        };
        for _ in 0..20_000 {
            if random(2) == 0 && !taken.is_empty() {
                let i = random(taken.len() as u64) as usize;
                space.give(taken.swap_remove(i));
            } else {
                let align = if random(3) == 0 { Align::Line } else { Align::Unit };
                let bytes = 1 + random(900) as usize;
                let Ok(block) = space.take(bytes, align) else { continue };
                assert!(block.bytes() >= bytes && block.offset() + block.bytes() <= 1 << 16);
                assert!(align == Align::Unit || block.offset() % LINE == 0);
                let apart = |b: &Block| {
                    b.offset() + b.bytes() <= block.offset() || block.offset() + block.bytes() <= b.offset()
                };
                assert!(block.offset() >= LINE && taken.iter().all(apart), "{block:?}");
                taken.push(block);
            }
            let in_use: usize = taken.iter().map(|b| b.bytes()).sum();
            assert_eq!(space.used(), in_use + LINE);
        }
        assert!(space.take(1 << 17, Align::Unit).is_err());
    }

    #[test]
    fn retired_blocks_wait_for_readers() {
        let collector = crossbeam_epoch::Collector::new();
        let (reader, writer) = (collector.register(), collector.register());
        let mut space: Space<&str> = Space::new(1 << 12);
        let block = space.take(64, Align::Unit).unwrap();
        let pinned = reader.pin();
        space.retire(block);
        space.retire_other("then");
        let turn = |space: &mut Space<&'static str>| {
            for _ in 0..10 {
                let guard = writer.pin();
                space.end_era(&guard);
                guard.flush();
            }
            space.next_safe()
        };
        assert_eq!(turn(&mut space), None);
        assert_eq!(space.waiting(), 64);
        drop(pinned);
        assert_eq!(turn(&mut space), Some("then"));
        assert_eq!((space.waiting(), space.is_quiet()), (0, true));
    }
}
