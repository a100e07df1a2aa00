//! Batches: 64 keys at a time, so that their cache misses overlap.
//!
//! ```text
//!   keys ─gates of a tree▶ a reference for each key, its lines asked for
//!        nodes: step all until none is left ▶ lean leaves ▶ wide lean leaves ▶ fat leaves
//!   the next tree, whose gates let in few: what is found mostly is earlier
//! ```
//!
//! Work of one kind is done together: a branch that goes the same way 64 times costs nothing.
//! Who is at work is a set of keys, one bit each, in a register: lists in memory would make each
//! key wait for the one before.

use super::{Arena, Kernel, NO_MATCH, STEPS_MAX, Start, deferred, fat_leaf, lean_leaf, node_at, walk};
use crate::forest::node;
use crate::forest::{Kind, LINE, Ref, UNIT};
use crate::key::{KEY_BYTES, Key, Keys};

/// An arena of fewer bytes is in a near cache, or soon will be: asking for its lines costs more
/// than it saves.
const SMALL: usize = 256 << 10;

/// Keys of a block.
pub(super) const BLOCK: usize = 64;

/// Keys of a block, the bit of each.
#[derive(Clone, Copy)]
struct Set(u64);

impl Iterator for Set {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        let first = self.0.trailing_zeros() as usize;
        self.0 &= self.0.wrapping_sub(1);
        (first < BLOCK).then_some(first)
    }
}

/// The keys whose reference is of each [`Kind`] and leads somewhere, one bit each.
pub(super) type Kinds = [u64; 4];

/// The keys of a block, in place.
#[derive(Clone, Copy)]
pub(super) struct KeyBlock<'a> {
    bytes: &'a [u8],
    stride: usize,
    count: usize,
}

impl<'a> KeyBlock<'a> {
    /// How many, 64 at most.
    #[inline(always)]
    pub(super) fn count(self) -> usize {
        self.count
    }

    /// Bytes from one to the next.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub(super) fn stride(self) -> usize {
        self.stride
    }

    fn new(keys: &'a Keys, first: usize, count: usize) -> KeyBlock<'a> {
        let stride = keys.stride();
        let bytes = &keys.as_bytes()[first * stride..];
        assert!(
            count <= BLOCK && count * stride + KEY_BYTES <= bytes.len(),
            "the block ends behind the last key"
        );
        KeyBlock { bytes, stride, count }
    }

    /// # Safety
    /// `key` is below `count`.
    #[inline(always)]
    pub(super) unsafe fn get(self, key: usize) -> &'a Key {
        debug_assert!(key < self.count);
        // SAFETY: `new` saw that a whole `Key`, which is bytes, begins at each key of the block.
        unsafe { &*self.bytes.as_ptr().add(key * self.stride).cast::<Key>() }
    }
}

/// Byte offsets of the lines to ask for, of each key the first, the second, …
#[repr(align(64))]
struct Lines([[u32; BLOCK]; 4]);

/// A block's keys, and what is known of them. Keys past the last are nowhere: only the others
/// are in the sets.
/// Aligned, so that no vector stored here crosses a line: what is read of it at once can be passed
/// on before it reaches the cache.
#[repr(C, align(64))]
struct Block<'a> {
    best: [u32; BLOCK],
    /// Where each key goes on.
    here: [u32; BLOCK],
    arena: Arena<'a>,
    keys: KeyBlock<'a>,
}

/// The answers for the keys from `first` on, as many as `out` has room for, 64 at most.
///
/// # Safety
/// `K` must be a kernel of the machine that runs, and the gates those of a root of `arena`.
#[inline(always)]
pub(super) unsafe fn block<K: Kernel>(
    arena: Arena<'_>,
    start: Start<'_, K>,
    keys: &Keys,
    first: usize,
    out: &mut [u32],
) {
    let keys = KeyBlock::new(keys, first, out.len());
    let mut block = Block { arena, keys, best: [NO_MATCH; BLOCK], here: [Ref::EMPTY.0; BLOCK] };
    match start {
        Start::Root { gates, trees } => {
            for tree in 0..trees {
                // SAFETY: passed on from the caller.
                unsafe {
                    K::enter(gates, tree, &arena, keys, &block.best, &mut block.here);
                    block.run::<K>();
                }
            }
        }
        Start::Below(reference) => {
            block.here[..keys.count].fill(reference.0);
            // SAFETY: passed on from the caller.
            unsafe { block.run::<K>() }
        }
    }
    out.copy_from_slice(&block.best[..keys.count]);
}

impl Block<'_> {
    /// Asks for the first lines of where keys are.
    #[inline(always)]
    fn fetch_nodes<K: Kernel>(&self, keys: u64) {
        let arena = self.arena;
        if arena.len() >= SMALL {
            Set(keys).for_each(|key| K::prefetch(arena.as_ptr().wrapping_add(Ref(self.here[key]).offset())));
        }
    }

    /// Asks for all lines of where keys are, up to four each. A loop over the lines that there are would end at
    /// another one each time; the last line asked for again costs less.
    #[inline(always)]
    fn fetch_leaves<K: Kernel>(&self, keys: u64) {
        let arena = self.arena;
        if arena.len() < SMALL {
            return;
        }
        let start = arena.as_ptr();
        if keys.count_ones() < BLOCK as u32 / 2 {
            for key in Set(keys) {
                let here = Ref(self.here[key]);
                let start = start.wrapping_add(here.offset());
                let last = here.lines() - 1;
                (0..4).for_each(|line| K::prefetch(start.wrapping_add(LINE * last.min(line))));
            }
            return;
        }
        // Where most keys are in a leaf, the lines of all are worked out in vectors, and asked for without a
        // look at who is: of keys that are elsewhere, a line that does no harm.
        let mut lines = Lines([[0; BLOCK]; 4]);
        for (key, &here) in self.here.iter().enumerate() {
            let here = if here == Ref::EMPTY.0 { 0 } else { here };
            let (at, last) = (here << UNIT.trailing_zeros(), (here >> 28 & 3) * LINE as u32);
            for (line, out) in lines.0.iter_mut().enumerate() {
                out[key] = at.wrapping_add(last.min((LINE * line) as u32));
            }
        }
        for key in 0..BLOCK {
            lines.0.iter().for_each(|line| K::prefetch(start.wrapping_add(line[key] as usize)));
        }
    }

    /// Asks for the first lines of fat leaves: what follows, the processor foretells.
    #[inline(always)]
    fn fetch_fat<K: Kernel>(&self, keys: u64) {
        let arena = self.arena;
        for key in Set(keys) {
            let start = arena.as_ptr().wrapping_add(Ref(self.here[key]).offset());
            (0..4).for_each(|line| K::prefetch(start.wrapping_add(LINE * line)));
        }
    }

    /// From where the keys are to the ends of their ways.
    ///
    /// # Safety
    /// `K` must be a kernel of the machine that runs.
    #[inline(always)]
    unsafe fn run<K: Kernel>(&mut self) {
        // SAFETY: passed on from the caller.
        let mut kinds = unsafe { K::kinds(&self.here) };
        for _ in 0..STEPS_MAX {
            let nodes = kinds[Kind::Node as usize];
            if nodes == 0 {
                break;
            }
            self.fetch_nodes::<K>(nodes);
            for key in Set(nodes) {
                // SAFETY: passed on from the caller.
                unsafe { self.step::<K>(key) };
            }
            // SAFETY: passed on from the caller.
            kinds = unsafe { K::kinds(&self.here) };
        }
        self.fetch_leaves::<K>(kinds[Kind::Lean as usize] | kinds[Kind::Lean2 as usize]);
        // In registers: `self` is written to below.
        let (arena, keys) = (self.arena, self.keys);
        for (kind, wide) in [(Kind::Lean, false), (Kind::Lean2, true)] {
            for key in Set(kinds[kind as usize]) {
                // SAFETY: passed on from the caller.
                let found = unsafe { lean_leaf::<K>(&arena, Ref(self.here[key]), keys.get(key), 0, wide) };
                self.best[key] = found.min(self.best[key]);
            }
        }
        self.fetch_fat::<K>(kinds[Kind::Fat as usize]);
        for key in Set(kinds[Kind::Fat as usize]) {
            // SAFETY: passed on from the caller.
            let found =
                unsafe { fat_leaf::<K>(&self.arena, Ref(self.here[key]), self.keys.get(key), 0, &mut ()) };
            self.best[key] = found.min(self.best[key]);
        }
    }

    /// One node for one key of the block. A deferred part is walked at once: that is rare, and its answer may
    /// spare the child.
    ///
    /// # Safety
    /// `K` must be a kernel of the machine that runs.
    #[inline(always)]
    unsafe fn step<K: Kernel>(&mut self, key: usize) {
        // SAFETY: passed on from the caller.
        let (arena, packet) = (self.arena, unsafe { self.keys.get(key) });
        if Ref(self.here[key]).is_switch() {
            self.here[key] = arena.resolve(Ref(self.here[key])).0;
            return;
        }
        let Some(bytes) = node_at(arena.bytes, Ref(self.here[key])) else {
            self.here[key] = Ref::EMPTY.0;
            return;
        };
        if let Some(part) = deferred(&arena, bytes)
            && part.smallest < self.best[key]
        {
            let best = self.best[key];
            // SAFETY: passed on from the caller.
            self.best[key] = unsafe { walk::<K>(arena, part.reference, packet, 0, best, &mut ()) };
        }
        // SAFETY: passed on from the caller.
        let slot = unsafe { K::slot(bytes, packet.window(node::window(bytes))) };
        self.here[key] = node::child(bytes, slot).0;
    }
}
