//! The trees of a root, taken apart once for many keys.

use crate::forest::UNIT;
use crate::forest::root::{CELL_BYTES, Root, Scale, TREES_MAX, TreeRecord};

/// What a root's records say, ready for kernels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trees {
    records: [TreeRecord; TREES_MAX],
    /// Trees that there are.
    pub(super) count: usize,
    /// How positions are scaled to 8 bits.
    pub(super) scale: Scale,
}

impl Trees {
    /// No trees.
    pub(super) const NONE: Trees =
        Trees { records: [TreeRecord::NONE; TREES_MAX], count: 0, scale: Scale { first: 0, shift: 0 } };

    /// Reads a root. A tree whose table does not lie in the arena, whatever the key, has none:
    /// no kernel needs to look again.
    pub(super) fn of(arena: &[u8], root: &Root<'_>) -> Trees {
        let mut trees = Trees { count: root.tree_count(), scale: root.scale(), ..Trees::NONE };
        for (t, tree) in trees.records.iter_mut().enumerate().take(root.tree_count()) {
            let record = root.tree(t);
            let end = record.cells as usize * UNIT + record.cell_count() * CELL_BYTES;
            if record.is_sound() && end <= arena.len() {
                *tree = record;
            }
        }
        trees
    }

    /// A tree; `None` when it has no table.
    #[inline(always)]
    pub(super) fn get(&self, tree: usize) -> Option<&TreeRecord> {
        self.records.get(tree).filter(|r| r.cells != TreeRecord::NONE.cells)
    }
}
