//! Lookup: the smallest position at or after `from` of a rule whose box holds the key.
//!
//! One walk serves every machine; a `Kernel` supplies its steps, the interval of a node and
//! the matches of a leaf. `Scalar` is the definition, the others are held to it by property
//! tests. The machine is chosen once, when an image is opened.
//!
//! A walk over bytes that nobody audited may answer nonsense, but ends (visits are counted) and
//! stays inside the bytes.
#![allow(unsafe_code)] // kernels need the right machine: stated and kept here

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod batch;
mod gates;
#[cfg(target_arch = "x86_64")]
mod lanes;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
#[cfg(test)]
mod tests;

use std::hint::select_unpredictable;
use std::ops::Range;

use super::fat::FatLeaf;
use super::leaf::{Leaf, Lean};
use super::node::{self, NODE_BYTES, NodeBytes};
use super::root::{Cell, Root, Scale, TREES_MAX};
use super::{DEPTH_MAX, Kind, PENDING_MAX, Ref, UNIT, switch, u32_at};
use crate::key::{Key, Keys};
use batch::{BLOCK, KeyBlock, Kinds};
use gates::Trees;
use scalar::Scalar;

/// No rule matches.
pub const NO_MATCH: u32 = u32::MAX;

/// Nodes and leaves visited in one lookup, at most; audited forests stay far below.
const VISITS_MAX: u32 = 1 << 20;

/// Steps of a walk, at most: a node each, a switch in front of them, the leaf.
const STEPS_MAX: u32 = DEPTH_MAX + 2;

/// A key's cell in each tree, as words. Aligned: one is read from what was stored as a vector, and
/// a vector that crosses a line would have to reach the cache first.
#[derive(Clone, Copy)]
#[repr(align(32))]
struct Cells([u64; TREES_MAX]);

/// The steps of a walk, as one machine does them.
trait Kernel {
    /// Compares lean leaves in vectors. Else, and near the end of an arena, the definition does.
    const VECTORS: bool = true;

    /// For keys of 16 bytes: no leaf has a long header.
    const SHORT: bool = false;

    /// What the gates of a root say, made ready for many keys.
    type Gates;

    /// Makes them ready.
    ///
    /// # Safety
    /// The machine must be the one that runs.
    unsafe fn gates(trees: Trees) -> Self::Gates;

    /// How positions are scaled for the gates.
    fn scale(gates: &Self::Gates) -> Scale;

    /// A key's cell in each tree (what is left in `out` for trees that there are not means
    /// nothing), and a bit for each tree whose filter lets the key in:
    /// [`cell_at`](super::root::cell_at) and
    /// [`TreeRecord::filter_bit`](super::root::TreeRecord::filter_bit).
    ///
    /// # Safety
    /// The machine must be the one that runs, and the gates those of a root of `arena`.
    unsafe fn cells(gates: &Self::Gates, arena: &[u8], key: &Key, out: &mut Cells) -> u32;

    /// A bit for each cell whose smallest position, scaled, is not after `best`.
    ///
    /// # Safety
    /// The machine must be the one that runs.
    #[inline(always)]
    unsafe fn before(cells: &Cells, best: u32) -> u32 {
        (0..TREES_MAX).map(|t| u32::from((cells.0[t] >> 56) as u32 <= best) << t).sum()
    }

    /// For each key of a block where it enters a tree, or nowhere: [`Cell::lets_in`].
    ///
    /// # Safety
    /// The machine must be the one that runs, and the gates those of a root of `arena`.
    unsafe fn enter(
        gates: &Self::Gates,
        tree: usize,
        arena: &[u8],
        keys: KeyBlock<'_>,
        best: &[u32; BLOCK],
        here: &mut [u32; BLOCK],
    );

    /// The keys whose references are of each kind.
    ///
    /// # Safety
    /// The machine must be the one that runs.
    unsafe fn kinds(references: &[u32; BLOCK]) -> Kinds;

    /// The interval of `value` in a node: [`node::slot`].
    ///
    /// # Safety
    /// The machine must be the one that runs.
    unsafe fn slot(node: &NodeBytes, value: u16) -> usize;

    /// The rules of a lean leaf that hold the key: [`Leaf::matches`]. `wide`: its lanes may be
    /// more than one vector's.
    ///
    /// # Safety
    /// The machine must be the one that runs.
    unsafe fn lean(leaf: &Lean<'_>, key: &Key, wide: bool) -> u32;

    /// The rules of a fat leaf that hold the key: [`FatLeaf::matches`].
    ///
    /// # Safety
    /// The machine must be the one that runs.
    unsafe fn fat(leaf: &FatLeaf<'_>, key: &Key) -> u64;

    /// Asks the processor to fetch a line. A hint, of any address: does nothing where there is
    /// none.
    fn prefetch(byte: *const u8);
}

/// What the processor offers. Values come from [`Machine::detect`], [`Machine::available`] and
/// [`Machine::SCALAR`] alone, so that having one proves that its instructions run here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine(Which);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Machine {
    /// Plain code, everywhere.
    pub const SCALAR: Machine = Machine(Which::Scalar);

    /// The best machine of this processor. Costs a look at cached flags.
    pub fn detect() -> Machine {
        Machine::available().pop().unwrap_or(Machine::SCALAR)
    }

    /// All that run here, the best last.
    pub fn available() -> Vec<Machine> {
        #[allow(unused_mut)]
        let mut all = vec![Machine::SCALAR];
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            if has!("avx2") && has!("bmi1") && has!("bmi2") && has!("popcnt") {
                all.push(Machine(Which::Avx2));
                if has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512vbmi") {
                    all.push(Machine(Which::Avx512));
                }
            }
        }
        // Where bytes are in the other order, the lanes of a load are not the values of a leaf.
        #[cfg(target_arch = "aarch64")]
        if cfg!(target_endian = "little") && std::arch::is_aarch64_feature_detected!("neon") {
            all.push(Machine(Which::Neon));
        }
        all
    }

    /// The machine for keys of so many bytes: AVX-512 holds a key in one register.
    pub fn for_keys(
        self,
        #[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables))] key_bytes: usize,
    ) -> Machine {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Which::Avx512 if key_bytes > 64 => Machine(Which::Avx2),
            _ => self,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self.0 {
            Which::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Which::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Which::Avx512 => "avx512",
            #[cfg(target_arch = "aarch64")]
            Which::Neon => "neon",
        }
    }
}

/// What a lookup cost, counted by [`Forest::first_match_counted`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Visits {
    /// Trees of a root that were entered.
    pub trees: u32,
    /// Nodes visited.
    pub nodes: u32,
    /// Leaves visited.
    pub leaves: u32,
}

/// Counts visits, or does not.
trait Tally: Default {
    fn tree(&mut self) {}
    fn node(&mut self) {}
    fn leaf(&mut self) {}
}

/// Nobody counts.
impl Tally for () {}

impl Tally for Visits {
    fn tree(&mut self) {
        self.trees += 1;
    }

    fn node(&mut self) {
        self.nodes += 1;
    }

    fn leaf(&mut self) {
        self.leaves += 1;
    }
}

/// Where lookups of one entry begin.
enum Start<'g, K: Kernel> {
    /// At the gates of a root.
    Root {
        /// Its gates.
        gates: &'g K::Gates,
        /// Its trees.
        trees: usize,
    },
    /// At a node or a leaf.
    Below(Ref),
}

/// The bytes that a forest lies in, and what a live one is read as of.
#[derive(Debug, Clone, Copy)]
struct Arena<'a> {
    bytes: &'a [u8],
    /// Switches show what they lead to since this version, or did before it. Images have none.
    version: u32,
}

impl std::ops::Deref for Arena<'_> {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        self.bytes
    }
}

impl Arena<'_> {
    /// Where a reference to a switch leads as of this version. A chain of switches has a step for
    /// each change since the version.
    #[cold]
    #[inline(never)]
    fn resolve(&self, mut here: Ref) -> Ref {
        for _ in 0..VISITS_MAX {
            let Some(unit) = self.bytes.get(here.offset()..here.offset() + UNIT) else { break };
            let is_new = switch::shows(u32_at(unit, switch::SINCE), self.version);
            here = Ref(u32_at(unit, if is_new { switch::NEW } else { switch::OLD }));
            if !here.is_switch() {
                return here;
            }
        }
        Ref::EMPTY
    }
}

/// One entry's forest, ready to be looked up in: what its root says is read once, not for each
/// key. Costs some hundred instructions to make, half a kilobyte to keep.
#[derive(Clone, Copy)]
pub struct Forest<'a> {
    arena: Arena<'a>,
    reference: Ref,
    trees: Trees,
    gates: Gates,
}

#[derive(Clone, Copy)]
enum Gates {
    Scalar(Trees),
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Gates),
    #[cfg(target_arch = "x86_64")]
    Avx2Short(avx2::Gates),
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Gates),
    #[cfg(target_arch = "x86_64")]
    Avx512Short(avx512::Gates),
    #[cfg(target_arch = "aarch64")]
    Neon(Trees),
}

impl std::fmt::Debug for Forest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forest").field("reference", &self.reference).field("trees", &self.trees).finish()
    }
}

impl<'a> Forest<'a> {
    /// The forest at `reference`, looked up in by `machine`, whose windows lie in the first
    /// `key_bytes` of keys.
    #[inline]
    pub fn new(machine: Machine, arena: &'a [u8], reference: Ref, key_bytes: usize) -> Forest<'a> {
        let root = Root::view(arena, reference.offset()).filter(|_| reference.is_root());
        let trees = root.map_or(Trees::NONE, |root| Trees::of(arena, &root));
        // Kernels may count on a root with a tree, and so on an arena that is not empty.
        let reference = if reference.is_root() && trees.count == 0 { Ref::EMPTY } else { reference };
        let gates = match machine.for_keys(key_bytes).0 {
            // SAFETY: the scalar kernel runs everywhere.
            Which::Scalar => Gates::Scalar(unsafe { Scalar::gates(trees) }),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a `Machine` of this kind comes from `available` alone, which saw the features.
            Which::Avx2 if key_bytes <= 16 => {
                // SAFETY: as above.
                Gates::Avx2Short(unsafe { avx2::Avx2::<true>::gates(trees) })
            }
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Which::Avx2 => Gates::Avx2(unsafe { avx2::Avx2::<false>::gates(trees) }),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Which::Avx512 if key_bytes <= 16 => {
                // SAFETY: as above.
                Gates::Avx512Short(unsafe { avx512::Avx512::<true>::gates(trees) })
            }
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Which::Avx512 => Gates::Avx512(unsafe { avx512::Avx512::<false>::gates(trees) }),
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            Which::Neon => Gates::Neon(unsafe { neon::Neon::gates(trees) }),
        };
        Forest { arena: Arena { bytes: arena, version: 0 }, reference, trees, gates }
    }

    /// The same forest in the same bytes, read as of a version. What its root says must not have
    /// changed since it was made ready.
    pub(crate) fn at<'b>(&self, bytes: &'b [u8], version: u32) -> Forest<'b> {
        Forest { arena: Arena { bytes, version }, ..*self }
    }

    /// Where it begins.
    pub(crate) fn reference(&self) -> Ref {
        self.reference
    }

    /// The smallest position at or after `from` whose rule holds the key, or [`NO_MATCH`].
    #[inline]
    pub fn first_match(&self, key: &Key, from: u32) -> u32 {
        match &self.gates {
            // SAFETY: the scalar kernel runs everywhere.
            Gates::Scalar(gates) => unsafe {
                lookup::<Scalar>(self.arena, self.start(gates), key, from, &mut ())
            },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: gates of this kind are made for a machine that has the features.
            Gates::Avx2Short(gates) => unsafe {
                avx2::first_match::<true>(self.arena, self.start(gates), key, from)
            },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Gates::Avx2(gates) => unsafe {
                avx2::first_match::<false>(self.arena, self.start(gates), key, from)
            },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Gates::Avx512Short(gates) => unsafe {
                avx512::first_match::<true>(self.arena, self.start(gates), key, from)
            },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Gates::Avx512(gates) => unsafe {
                avx512::first_match::<false>(self.arena, self.start(gates), key, from)
            },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: gates of this kind are made for a machine that has the feature.
            Gates::Neon(gates) => unsafe { neon::first_match(self.arena, self.start(gates), key, from) },
        }
    }

    /// [`Forest::first_match`] from position 0 for the keys of `range`, into `out` of the same
    /// length.
    pub fn first_match_batch(&self, keys: &Keys, range: Range<usize>, out: &mut [u32]) {
        assert_eq!(range.len(), out.len(), "one answer a key");
        assert!(range.end <= keys.len(), "the range ends behind the last key");
        let arena = self.arena;
        for (block, out) in out.chunks_mut(BLOCK).enumerate() {
            let first = range.start + block * BLOCK;
            match &self.gates {
                // SAFETY: the scalar kernel runs everywhere.
                Gates::Scalar(gates) => unsafe {
                    batch::block::<Scalar>(arena, self.start(gates), keys, first, out)
                },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: gates of this kind are made for a machine that has the features.
                Gates::Avx2Short(gates) => unsafe {
                    avx2::block::<true>(arena, self.start(gates), keys, first, out)
                },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                Gates::Avx2(gates) => unsafe {
                    avx2::block::<false>(arena, self.start(gates), keys, first, out)
                },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                Gates::Avx512Short(gates) => unsafe {
                    avx512::block::<true>(arena, self.start(gates), keys, first, out)
                },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                Gates::Avx512(gates) => unsafe {
                    avx512::block::<false>(arena, self.start(gates), keys, first, out)
                },
                #[cfg(target_arch = "aarch64")]
                // SAFETY: gates of this kind are made for a machine that has the feature.
                Gates::Neon(gates) => unsafe { neon::block(arena, self.start(gates), keys, first, out) },
            }
        }
    }

    /// [`Forest::first_match`] by the definition, counting its visits.
    pub fn first_match_counted(&self, key: &Key, from: u32) -> (u32, Visits) {
        let mut visits = Visits::default();
        let start = self.start::<Scalar>(&self.trees);
        // SAFETY: the scalar kernel runs everywhere.
        let found = unsafe { lookup(self.arena, start, key, from, &mut visits) };
        (found, visits)
    }

    #[inline(always)]
    fn start<'g, K: Kernel>(&self, gates: &'g K::Gates) -> Start<'g, K> {
        if self.reference.is_root() {
            Start::Root { gates, trees: self.trees.count }
        } else {
            Start::Below(self.reference)
        }
    }
}

/// A lookup, from the root.
///
/// # Safety
/// `K` must be a kernel of the machine that runs, and the gates those of a root of `arena`.
#[inline(always)]
unsafe fn lookup<K: Kernel>(
    arena: Arena<'_>,
    start: Start<'_, K>,
    key: &Key,
    from: u32,
    tally: &mut impl Tally,
) -> u32 {
    let gates = match start {
        Start::Root { gates, .. } => gates,
        Start::Below(reference) => {
            // SAFETY: passed on from the caller.
            return unsafe { walk::<K>(arena, reference, key, from, NO_MATCH, tally) };
        }
    };
    // All cells are loaded before the first is entered: their misses overlap, and which tree it
    // is, nearly always one, costs no branch.
    let mut cells = Cells([0; TREES_MAX]);
    // SAFETY: passed on from the caller.
    let mut open = unsafe { K::cells(gates, &arena, key, &mut cells) };
    let mut best = NO_MATCH;
    while open != 0 {
        let cell = Cell::from_word(cells.0[open.trailing_zeros() as usize % TREES_MAX]);
        tally.tree();
        // SAFETY: passed on from the caller.
        best = unsafe { walk::<K>(arena, cell.reference, key, from, best, tally) };
        // Nearly always none of the others can hold an earlier rule: asked of all at once.
        // SAFETY: passed on from the caller.
        open &= (open - 1) & unsafe { K::before(&cells, K::scale(gates).scaled(best)) };
    }
    best
}

/// A deferred reference that waits, and the smallest position behind it.
#[derive(Clone, Copy)]
struct Pending {
    reference: Ref,
    smallest: u32,
}

/// The walk below a root: the smallest of `best` and what is found from `here` on.
///
/// # Safety
/// `K` must be a kernel of the machine that runs.
#[inline(always)]
unsafe fn walk<K: Kernel>(
    arena: Arena<'_>,
    mut here: Ref,
    key: &Key,
    from: u32,
    best: u32,
    tally: &mut impl Tally,
) -> u32 {
    for _ in 0..STEPS_MAX {
        if here.is_leaf() {
            // SAFETY: passed on from the caller.
            return best.min(unsafe { leaf::<K>(&arena, here, key, from, tally) });
        }
        if here.is_switch() {
            here = arena.resolve(here);
            continue;
        }
        let Some(bytes) = node_at(arena.bytes, here) else { return best };
        if node::has_deferred(bytes) {
            // SAFETY: passed on from the caller.
            return unsafe { walk_deferring::<K>(arena, here, key, from, best, tally) };
        }
        tally.node();
        // SAFETY: passed on from the caller.
        here = node::child(bytes, unsafe { K::slot(bytes, key.window(node::window(bytes))) });
    }
    best
}

/// [`walk`] with deferred parts: kept out of the way of the others, which are most.
///
/// # Safety
/// `K` must be a kernel of the machine that runs.
#[cold]
#[inline(never)]
unsafe fn walk_deferring<K: Kernel>(
    arena: Arena<'_>,
    mut here: Ref,
    key: &Key,
    from: u32,
    mut best: u32,
    tally: &mut impl Tally,
) -> u32 {
    let mut pending = [Pending { reference: Ref::EMPTY, smallest: 0 }; PENDING_MAX];
    let mut waiting = 0;
    let mut left = VISITS_MAX;
    loop {
        // Down to a leaf, or to where no rule is.
        while !here.is_leaf() {
            tally.node();
            left = left.saturating_sub(1);
            if here.is_switch() && left > 0 {
                here = arena.resolve(here);
                continue;
            }
            let bytes = node_at(arena.bytes, here).filter(|_| left > 0);
            let Some(bytes) = bytes else {
                here = Ref::EMPTY;
                break;
            };
            if let Some(part) = deferred(&arena, bytes)
                && part.smallest < best
                && waiting < PENDING_MAX
            {
                pending[waiting] = part;
                waiting += 1;
            }
            // SAFETY: passed on from the caller.
            here = node::child(bytes, unsafe { K::slot(bytes, key.window(node::window(bytes))) });
        }
        // SAFETY: passed on from the caller.
        best = best.min(unsafe { leaf::<K>(&arena, here, key, from, tally) });
        // On to a deferred part that may hold an earlier rule.
        loop {
            if waiting == 0 || left == 0 {
                return best;
            }
            waiting -= 1;
            if pending[waiting].smallest < best {
                here = pending[waiting].reference;
                break;
            }
        }
    }
}

#[inline(always)]
fn node_at(arena: &[u8], here: Ref) -> Option<&NodeBytes> {
    arena.get(here.offset()..here.offset() + NODE_BYTES)?.first_chunk()
}

/// The first rule at or after `from` in a leaf and its continuations.
///
/// # Safety
/// `K` must be a kernel of the machine that runs.
#[inline(always)]
unsafe fn leaf<K: Kernel>(arena: &[u8], here: Ref, key: &Key, from: u32, tally: &mut impl Tally) -> u32 {
    match here.kind() {
        Kind::Lean | Kind::Lean2 => {
            tally.leaf();
            // One lookup alone cannot foretell which of the two it is, and learns it only when the
            // cell has arrived: a second vector for all costs less than the wrong branch for half.
            // SAFETY: passed on from the caller.
            unsafe { lean_leaf::<K>(arena, here, key, from, true) }
        }
        Kind::Fat if !here.is_empty() => {
            // SAFETY: passed on from the caller.
            unsafe { fat_leaf::<K>(arena, here, key, from, tally) }
        }
        _ => NO_MATCH,
    }
}

/// The first rule at or after `from` in a lean leaf.
///
/// # Safety
/// `K` must be a kernel of the machine that runs.
#[inline(always)]
unsafe fn lean_leaf<K: Kernel>(arena: &[u8], here: Ref, key: &Key, from: u32, wide: bool) -> u32 {
    let leaf = match K::VECTORS {
        true if K::SHORT => Lean::view::<false>(arena, here.offset()),
        true => Lean::view::<true>(arena, here.offset()),
        false => None,
    };
    match leaf {
        Some(leaf) => {
            // SAFETY: passed on from the caller.
            let mask = unsafe { K::lean(&leaf, key, wide) };
            first_from(mask.into(), from, |rule| leaf.position(rule))
        }
        None => lean_by_definition(arena, here, key, from),
    }
}

#[cold]
#[inline(never)]
fn lean_by_definition(arena: &[u8], here: Ref, key: &Key, from: u32) -> u32 {
    match Leaf::view(arena, here.offset()) {
        Some(leaf) => first_from(leaf.matches(key), from, |rule| leaf.position(rule as usize)),
        None => NO_MATCH,
    }
}

/// A fat leaf and its continuations. Rare: kept out of the way of the others.
///
/// # Safety
/// `K` must be a kernel of the machine that runs.
#[cold]
#[inline(never)]
unsafe fn fat_leaf<K: Kernel>(
    arena: &[u8],
    mut here: Ref,
    key: &Key,
    from: u32,
    tally: &mut impl Tally,
) -> u32 {
    for _ in 0..VISITS_MAX {
        if here.kind() != Kind::Fat || here.is_empty() {
            break;
        }
        tally.leaf();
        let Some(leaf) = FatLeaf::view(arena, here.offset()) else { break };
        // SAFETY: passed on from the caller.
        let mask = unsafe { K::fat(&leaf, key) };
        let found = first_from(mask, from, |rule| leaf.position(rule as usize));
        if found != NO_MATCH {
            return found;
        }
        here = leaf.next();
    }
    NO_MATCH
}

/// The deferred reference in the unit before a node's children.
#[inline(always)]
fn deferred(arena: &[u8], node: &NodeBytes) -> Option<Pending> {
    if !node::has_deferred(node) {
        return None;
    }
    let at = (node::base(node) as usize & Ref::UNITS_MAX).checked_sub(1)? * UNIT;
    let unit = arena.get(at..at + UNIT)?;
    Some(Pending { reference: Ref(u32_at(unit, 0)), smallest: u32_at(unit, 4) })
}

/// The first rule of `mask` whose position is at or after `from`.
#[inline(always)]
fn first_from(mut mask: u64, from: u32, position: impl Fn(u32) -> u32) -> u32 {
    loop {
        // Whether there is any rule costs no branch: often nobody could foretell it.
        let position = position(mask.trailing_zeros() & 63);
        let found = select_unpredictable(mask == 0, NO_MATCH, position);
        if found >= from {
            return found;
        }
        mask &= mask.wrapping_sub(1);
    }
}
