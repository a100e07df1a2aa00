//! Batches: 64 keys at a time, so that their cache misses overlap.
//!
//! ```text
//!   keys ─gates of tree t▶ (reference, key) in lists by kind ─fetch▶
//!        nodes: step all until none is left ─fetch▶ lean leaves ▶ wide lean leaves ▶ fat leaves
//!        deferred parts that can still win: into the lists again
//! ```
//!
//! Work of one kind is done together: a branch that goes the same way 64 times costs nothing.

use super::{Kernel, NO_MATCH, Visits, deferred, fat_leaf, first_from, upward, walk};
use crate::forest::leaf::Leaf;
use crate::forest::node::{self, NODE_BYTES};
use crate::forest::root::{Root, Scale, TreeRecord, cell_at};
use crate::forest::{Kind, LINE, Ref};
use crate::key::Keys;

/// Keys of a block.
pub(super) const BLOCK: usize = 64;

/// References that wait for their line, with the key (its number in the block) they are for.
#[derive(Clone, Copy)]
pub(super) struct List {
    pub(super) refs: [u32; List::ROOM],
    pub(super) keys: [u32; List::ROOM],
    pub(super) len: usize,
}

impl List {
    /// Each key is in at most one list once, and a vector's store may run past the last entry.
    pub(super) const ROOM: usize = BLOCK + 16;

    pub(super) const EMPTY: List = List { refs: [0; List::ROOM], keys: [0; List::ROOM], len: 0 };

    #[inline(always)]
    pub(super) fn push(&mut self, reference: Ref, key: u32) {
        self.refs[self.len] = reference.0;
        self.keys[self.len] = key;
        self.len += 1;
    }

    #[inline(always)]
    fn iter(&self) -> impl Iterator<Item = (Ref, u32)> + '_ {
        self.refs[..self.len].iter().zip(&self.keys[..self.len]).map(|(&r, &k)| (Ref(r), k))
    }
}

/// Lists by kind, indexed by [`Kind`].
pub(super) struct Lists {
    pub(super) by_kind: [List; 4],
}

impl Lists {
    #[inline(always)]
    pub(super) fn push(&mut self, reference: Ref, key: u32) {
        self.by_kind[reference.kind() as usize].push(reference, key);
    }
}

/// What is known of a block's keys.
pub(super) struct Block<'a> {
    pub(super) keys: &'a Keys,
    pub(super) first: usize,
    pub(super) best: [u32; BLOCK],
    pub(super) count: usize,
}

/// The answers for the keys from `first` on, as many as `out` has room for, 64 at most.
///
/// # Safety
/// `K` must be a kernel of the machine that runs.
#[inline(always)]
pub(super) unsafe fn block<K: Kernel>(arena: &[u8], root: Ref, keys: &Keys, first: usize, out: &mut [u32]) {
    // SAFETY: passed on from the caller.
    unsafe { block_with::<K>(arena, root, keys, first, out, gates) }
}

/// How one machine passes a block's keys through the gates of one tree.
pub(super) type Gates = unsafe fn(&[u8], &TreeRecord, Scale, &Block<'_>, &mut Lists);

/// [`block`] with a machine's own gates.
///
/// # Safety
/// `K` and `gates` must be of the machine that runs.
#[inline(always)]
pub(super) unsafe fn block_with<K: Kernel>(
    arena: &[u8],
    reference: Ref,
    keys: &Keys,
    first: usize,
    out: &mut [u32],
    gates: Gates,
) {
    let mut block = Block { keys, first, best: [NO_MATCH; BLOCK], count: out.len().min(BLOCK) };
    let mut lists = Lists { by_kind: [List::EMPTY; 4] };
    match Root::view(arena, reference.offset()).filter(|_| reference.is_root()) {
        Some(root) => {
            for t in 0..root.tree_count() {
                // SAFETY: passed on from the caller.
                unsafe {
                    gates(arena, &root.tree(t), root.scale(), &block, &mut lists);
                    run::<K>(arena, &mut lists, &mut block);
                }
            }
        }
        None if reference.is_root() => {}
        None => {
            (0..block.count as u32).for_each(|key| lists.push(reference, key));
            // SAFETY: passed on from the caller.
            unsafe { run::<K>(arena, &mut lists, &mut block) }
        }
    }
    out.copy_from_slice(&block.best[..out.len()]);
}

/// The definition of the gates of a tree.
///
/// # Safety
/// None: the type wants it.
#[inline(always)]
unsafe fn gates(arena: &[u8], tree: &TreeRecord, scale: Scale, block: &Block<'_>, lists: &mut Lists) {
    let mut index = [0; BLOCK];
    let mut filter_bit = [0; BLOCK];
    for i in 0..block.count {
        let key = block.keys.get(block.first + i);
        index[i] = tree.cell(key);
        filter_bit[i] = tree.filter_bit(key);
    }
    for i in 0..block.count {
        let cell = cell_at(arena, tree.cells, index[i]);
        if cell.lets_in(filter_bit[i], scale.scaled(block.best[i])) {
            lists.push(cell.reference, i as u32);
        }
    }
}

/// Works off all lists.
///
/// # Safety
/// `K` must be a kernel of the machine that runs.
#[inline(always)]
unsafe fn run<K: Kernel>(arena: &[u8], lists: &mut Lists, block: &mut Block<'_>) {
    let [nodes, leaves @ ..] = &mut lists.by_kind;
    for list in [&*nodes, &leaves[0], &leaves[1]] {
        fetch::<K>(arena, list);
    }
    while nodes.len > 0 {
        let round = *nodes;
        nodes.len = 0;
        for (here, key) in round.iter() {
            // SAFETY: passed on from the caller.
            let child = unsafe { step::<K>(arena, here, key, block) };
            match child.kind() {
                Kind::Node => {
                    fetch_one::<K>(arena, child);
                    nodes.push(child, key);
                }
                kind => {
                    fetch_one::<K>(arena, child);
                    leaves[kind as usize - 1].push(child, key);
                }
            }
        }
    }
    for list in &mut leaves[..2] {
        for (here, key) in list.iter() {
            let Some(leaf) = Leaf::view(arena, here.offset()) else { continue };
            // SAFETY: passed on from the caller.
            let mask = unsafe { K::lean(&leaf, block.keys.get(block.first + key as usize)) };
            let found = first_from(mask, 0, |rule| leaf.position(rule));
            let best = &mut block.best[key as usize];
            *best = found.min(*best);
        }
        list.len = 0;
    }
    for (here, key) in leaves[2].iter().filter(|(here, _)| !here.is_empty()) {
        let bytes = block.keys.get(block.first + key as usize);
        // SAFETY: passed on from the caller.
        let found = unsafe { fat_leaf::<K>(arena, here, bytes, 0, &mut Visits::default()) };
        let best = &mut block.best[key as usize];
        *best = found.min(*best);
    }
    leaves[2].len = 0;
}

/// One node for one key: the child. A deferred part is walked at once: that is rare, and its
/// answer may spare the child.
///
/// # Safety
/// `K` must be a kernel of the machine that runs.
#[inline(always)]
unsafe fn step<K: Kernel>(arena: &[u8], here: Ref, key: u32, block: &mut Block<'_>) -> Ref {
    let offset = here.offset();
    let Some(bytes) = arena.get(offset..).and_then(|a| a.first_chunk::<NODE_BYTES>()) else {
        return Ref::EMPTY;
    };
    let packet = block.keys.get(block.first + key as usize);
    if let Some(part) = deferred(arena, bytes, offset) {
        let best = &mut block.best[key as usize];
        if part.smallest < *best {
            // SAFETY: passed on from the caller.
            *best = unsafe { walk::<K>(arena, part.reference, packet, 0, *best, &mut Visits::default()) };
        }
    }
    // SAFETY: passed on from the caller.
    let slot = unsafe { K::slot(bytes, packet.window(node::window(bytes))) };
    upward(node::child(bytes, slot), offset)
}

/// Asks for the lines of all entries of a list.
#[inline(always)]
fn fetch<K: Kernel>(arena: &[u8], list: &List) {
    for (here, _) in list.iter() {
        fetch_one::<K>(arena, here);
    }
}

#[inline(always)]
fn fetch_one<K: Kernel>(arena: &[u8], here: Ref) {
    let offset = here.offset();
    for line in 0..here.lines() {
        if let Some(byte) = arena.get(offset + line * LINE) {
            K::prefetch(byte);
        }
    }
}
