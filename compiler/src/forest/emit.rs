//! Laying out: trees become bytes, parents before children, children side by side.

use std::collections::HashMap;
use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hipac_classifier::forest::node::{self, NO_CHILD, NODE_BYTES};
use hipac_classifier::forest::root::{CELL_BYTES, Cell, HEADER_BYTES, Root, Scale, TREE_BYTES, TreeRecord};
use hipac_classifier::forest::{ARENA_SLACK, Kind, LINE, Ref, UNIT, fat, leaf_bits};

use super::build::{Node, Shape, Tree};
use super::root::{Forest, Sketch};

/// Cells that are built at a time: enough for all cores, few enough to weigh little.
const GROUP: usize = 512;

/// The leaves of cells that were laid out, by the hash of their bytes: of several with one hash,
/// the last.
#[derive(Default)]
struct Shared {
    hasher: FixedState,
    leaves: HashMap<u64, Ref, FixedState>,
}

/// The bytes of a forest in the making.
#[derive(Debug, Clone, Default)]
pub struct Arena {
    bytes: Vec<u8>,
    /// Nodes laid out.
    pub nodes: usize,
    /// Leaves laid out; equal neighbours count once.
    pub leaves: usize,
    /// Depth of the deepest tree in nodes.
    pub depth: u32,
    /// Cells of root tables.
    pub cells: usize,
}

/// The forest does not fit into an arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArenaFull;

impl Arena {
    /// Bytes so far, slack included.
    pub fn len(&self) -> usize {
        self.bytes.len() + ARENA_SLACK
    }

    /// Nothing is laid out.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The bytes, with their slack.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len().next_multiple_of(UNIT) + ARENA_SLACK, 0);
        self.bytes
    }

    /// Lays out an entry's forest and says where its root is.
    ///
    /// # Errors
    /// The arena would have more than 2^28 units.
    pub fn add(&mut self, forest: &Forest) -> Result<Ref, ArenaFull> {
        let plan = match forest {
            Forest::Tree(tree) => return self.tree(tree, 0),
            Forest::Root(plan) => plan,
        };
        let root = self.root(plan.scale, plan.trees.len())?;
        let mut shared = Shared::default();
        for (t, tree) in plan.trees.iter().enumerate() {
            let table = self.table(root, t, &tree.record)?;
            self.cells(table, &tree.cells, &mut shared)?;
        }
        Ok(Ref::root(root))
    }

    /// The same of a sketch, each region in the shape that `shape_of` gives it. What one group of
    /// cells became is laid out while the next one is built, and then forgotten: trees take little
    /// memory besides their bytes.
    ///
    /// # Errors
    /// The arena would have more than 2^28 units.
    pub fn add_sketch<'s>(
        &mut self,
        sketch: &Sketch<'_>,
        shape_of: impl Fn(usize) -> &'s Shape + Sync,
    ) -> Result<Ref, ArenaFull> {
        if !sketch.has_root() {
            return self.tree(&sketch.whole(shape_of(0)), 0);
        }
        let root = self.root(sketch.scale(), sketch.records().count())?;
        let mut shared = Shared::default();
        let mut first = 0;
        for (t, record) in sketch.records().enumerate() {
            let table = self.table(root, t, &record)?;
            let cells = record.cell_count();
            let group = |start: usize| {
                let group = start..cells.min(start + GROUP);
                sketch.cells(t, group, |cell| shape_of(first + cell))
            };
            let mut built = group(0);
            for start in (0..cells).step_by(GROUP) {
                let lay_out = || self.cells(table + CELL_BYTES * start, &built, &mut shared);
                let (laid_out, next) = rayon::join(lay_out, || group(start + GROUP));
                laid_out?;
                built = next;
            }
            first += cells;
        }
        Ok(Ref::root(root))
    }

    /// A root whose records are still empty.
    fn root(&mut self, scale: Scale, trees: usize) -> Result<usize, ArenaFull> {
        let offset = self.reserve(HEADER_BYTES + TREE_BYTES * trees, LINE)?;
        let header = Root::encode_header(trees, scale.first, scale.shift);
        self.bytes[offset..offset + HEADER_BYTES].copy_from_slice(&header);
        Ok(offset)
    }

    /// The table of a root's tree, its cells still empty, and the record that leads to it.
    fn table(&mut self, root: usize, tree: usize, record: &TreeRecord) -> Result<usize, ArenaFull> {
        let table = self.reserve(CELL_BYTES * record.cell_count(), LINE)?;
        let record = TreeRecord { cells: (table / UNIT) as u32, ..*record };
        self.bytes[root + HEADER_BYTES + TREE_BYTES * tree..][..TREE_BYTES].copy_from_slice(&record.encode());
        self.cells += record.cell_count();
        Ok(table)
    }

    /// Lays out what some cells lead to, and fills in the cells, which begin at offset `table`.
    fn cells(&mut self, table: usize, cells: &[(Tree, u32)], shared: &mut Shared) -> Result<(), ArenaFull> {
        for (i, (below, gate)) in cells.iter().enumerate() {
            let reference = match below {
                Tree::Empty => Ref::EMPTY,
                // Equal leaves of different cells are stored once.
                Tree::Leaf { kind, bytes, continuations } if continuations.is_empty() => {
                    let hash = shared.hasher.hash_one(bytes);
                    let earlier = shared.leaves.get(&hash).copied().filter(|leaf| leaf.kind() == *kind);
                    match earlier.filter(|leaf| self.bytes[leaf.offset()..].starts_with(bytes)) {
                        Some(leaf) => leaf,
                        None => {
                            let leaf = self.tree(below, 0)?;
                            shared.leaves.insert(hash, leaf);
                            leaf
                        }
                    }
                }
                _ => self.tree(below, 0)?,
            };
            let cell = if reference.is_empty() { Cell::EMPTY } else { Cell { reference, gate: *gate } };
            self.bytes[table + CELL_BYTES * i..][..CELL_BYTES].copy_from_slice(&cell.encode());
        }
        Ok(())
    }

    fn tree(&mut self, tree: &Tree, depth: u32) -> Result<Ref, ArenaFull> {
        match tree {
            Tree::Empty => Ok(Ref::EMPTY),
            Tree::Leaf { kind, bytes, continuations } => {
                let offset = self.leaf(bytes)?;
                self.continue_list(offset, continuations)?;
                Ok(Ref::leaf(*kind, offset, bytes.len()))
            }
            Tree::Node(node) => {
                let offset = self.reserve(NODE_BYTES, LINE)?;
                self.node(offset, node, depth + 1)?;
                Ok(Ref::node(offset))
            }
        }
    }

    /// Room for `bytes`, aligned.
    fn reserve(&mut self, bytes: usize, alignment: usize) -> Result<usize, ArenaFull> {
        let offset = self.bytes.len().next_multiple_of(alignment);
        let end = (offset + bytes).next_multiple_of(UNIT);
        if end / UNIT >= Ref::UNITS_MAX {
            return Err(ArenaFull);
        }
        if end > self.bytes.capacity() {
            // A quarter more, where a vector would take as much again: what compiling may take at
            // its peak is promised.
            let more = end.max(self.bytes.capacity() + self.bytes.capacity() / 4) - self.bytes.len();
            self.bytes.reserve_exact(more);
        }
        self.bytes.resize(end, 0);
        Ok(offset)
    }

    fn leaf(&mut self, leaf: &[u8]) -> Result<usize, ArenaFull> {
        self.leaves += 1;
        let offset = self.reserve(leaf.len(), UNIT)?;
        self.bytes[offset..offset + leaf.len()].copy_from_slice(leaf);
        Ok(offset)
    }

    /// Lays out what follows the first leaf of a long list, and links it.
    fn continue_list(&mut self, first: usize, continuations: &[Vec<u8>]) -> Result<(), ArenaFull> {
        let mut before = first;
        for leaf in continuations {
            let offset = self.leaf(leaf)?;
            let next = Ref::leaf(Kind::Fat, offset, leaf.len());
            self.bytes[before + fat::HEADER_BYTES..][..4].copy_from_slice(&next.0.to_le_bytes());
            before = offset;
        }
        Ok(())
    }

    /// Fills in the node at `offset` and lays out everything below it.
    fn node(&mut self, offset: usize, node: &Node, depth: u32) -> Result<(), ArenaFull> {
        self.nodes += 1;
        self.depth = self.depth.max(depth);
        let node_children = node.children.iter().filter(|c| matches!(c, Tree::Node(_))).count();
        let before = if node.deferred.is_some() { UNIT } else { 0 };
        let alignment = if node_children > 0 { LINE } else { UNIT };
        let base = (self.bytes.len() + before).next_multiple_of(alignment);
        self.reserve(base - self.bytes.len() + node_children * NODE_BYTES, 1)?;

        let mut children = Vec::with_capacity(node.children.len());
        let mut late = Vec::new();
        let mut nodes = 0;
        for (i, child) in node.children.iter().enumerate() {
            let equal = (0..i).find(|&j| matches!(child, Tree::Leaf { .. }) && node.children[j] == *child);
            children.push(match (child, equal) {
                (_, Some(earlier)) => children[earlier],
                (Tree::Empty, _) => NO_CHILD,
                (Tree::Node(_), _) => {
                    nodes += 1;
                    ((nodes - 1) * NODE_BYTES / UNIT) as u16
                }
                (Tree::Leaf { kind, bytes, continuations }, _) => {
                    // A long fat leaf would push its neighbours out of reach: a stub leads on.
                    let is_far = *kind == Kind::Fat;
                    let stub = fat::encode(&[], &[], Some(Ref::EMPTY));
                    let here: &[u8] = if is_far { &stub } else { bytes };
                    let at = self.leaf(here)?;
                    if is_far {
                        late.push((at, bytes, continuations));
                    }
                    // 15 lean leaves of at most 300 bytes stay below the 4,094 units of a child.
                    (leaf_bits(*kind, at % LINE, here.len()) << 12) as u16 | ((at - base) / UNIT) as u16
                }
            });
        }
        let encoded = node::Node {
            base: (base / UNIT) as u32,
            window: node.window,
            has_deferred: node.deferred.is_some(),
            bounds: node.cuts.as_slice().to_vec(),
            children,
        };
        self.bytes[offset..offset + NODE_BYTES].copy_from_slice(&encoded.encode());

        for (stub, first, continuations) in late {
            self.leaves -= 1; // the stub holds no rule
            let at = self.leaf(first)?;
            let next = Ref::leaf(Kind::Fat, at, first.len());
            self.bytes[stub + fat::HEADER_BYTES..][..4].copy_from_slice(&next.0.to_le_bytes());
            self.continue_list(at, continuations)?;
        }
        let mut next = base;
        for child in &node.children {
            if let Tree::Node(child) = child {
                self.node(next, child, depth + 1)?;
                next += NODE_BYTES;
            }
        }
        if let Some((tree, smallest)) = &node.deferred {
            let reference = self.tree(tree, depth)?;
            self.bytes[base - UNIT..][..4].copy_from_slice(&reference.0.to_le_bytes());
            self.bytes[base - UNIT + 4..][..4].copy_from_slice(&smallest.to_le_bytes());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::boxes::{Axis, Boxes};
    use super::super::root::{RootPlan, RootTree};
    use super::*;

    #[test]
    fn a_sketch_is_laid_out_as_its_forest_would_be() {
        let axes = [(0, true, u32::MAX), (4, false, 0xffff)];
        let axes = axes.map(|(offset, is_wide, max)| Axis { offset, is_wide, max });
        let mut boxes = Boxes::new(axes.to_vec());
        for i in 0..12_000u32 {
            let (address, port) = (i.wrapping_mul(0x9e37_79b9) & !0xff, i.wrapping_mul(i) % 60_000);
            let address = if i % 10 == 0 { (0, u32::MAX) } else { (address, address | 0xff) };
            boxes.push(&[address, (port, port + i % 900)], i, i + 1);
        }
        let sketch = Sketch::new(&boxes, 4.0, (0, 12_000), 12_000);
        assert!(sketch.region_count() > 2 * GROUP);
        let shape = &Shape::LADDER[0];
        let tree = |(t, record): (usize, TreeRecord)| {
            let cells = sketch.cells(t, 0..record.cell_count(), |_| shape);
            RootTree { record, cells }
        };
        let trees = sketch.records().enumerate().map(tree).collect();
        let forest = Forest::Root(RootPlan { scale: sketch.scale(), trees });
        let (mut at_once, mut by_groups) = (Arena::default(), Arena::default());
        assert_eq!(at_once.add(&forest), by_groups.add_sketch(&sketch, |_| shape));
        assert_eq!(at_once.finish(), by_groups.finish());
    }
}
