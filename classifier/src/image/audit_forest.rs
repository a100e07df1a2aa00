//! The audit of roots, nodes and leaves.

use std::collections::HashMap;
use std::ops::Range;

use super::audit::{AuditError, Facts, LeafSeen, ensure};
use crate::forest::fat::FatLeaf;
use crate::forest::leaf::{Form, Leaf, VECTOR_LANES};
use crate::forest::node::{NO_CHILD, NODE_BYTES, Node};
use crate::forest::root::{self, CELL_BYTES, FILTER_ALL, Root, TreeRecord};
use crate::forest::{DEPTH_MAX, Kind, PENDING_MAX, Ref, UNIT, u32_at};

/// What is known of a subtree.
#[derive(Debug, Clone, Copy)]
struct Shape {
    /// Nodes on its longest way.
    depth: u32,
    /// Deferred references that may wait at once.
    pending: usize,
    /// Smallest position in it.
    smallest: u32,
}

impl Shape {
    const EMPTY: Shape = Shape { depth: 0, pending: 0, smallest: u32::MAX };
}

/// A walk over everything that an entry's roots lead to.
pub(super) struct ForestAudit<'a> {
    arena: &'a [u8],
    key_end: usize,
    form: Form,
    positions: Range<u32>,
    seen: HashMap<u32, Shape>,
    pub(super) facts: Facts,
    /// Is shown each leaf.
    visit: &'a mut dyn FnMut(LeafSeen<'_>),
}

impl<'a> ForestAudit<'a> {
    /// `key_end`: bytes that the image's dimensions take in a key. `form`: how its lean leaves are arranged.
    pub(super) fn new(
        arena: &'a [u8],
        key_end: usize,
        form: Form,
        visit: &'a mut dyn FnMut(LeafSeen<'_>),
    ) -> ForestAudit<'a> {
        ForestAudit {
            arena,
            key_end,
            form,
            positions: 0..0,
            seen: HashMap::new(),
            facts: Facts::default(),
            visit,
        }
    }

    /// What follows belongs to an entry with these positions.
    pub(super) fn begin_entry(&mut self, positions: Range<u32>) {
        self.positions = positions;
        self.seen.clear();
    }

    /// Everything below a root.
    pub(super) fn root(&mut self, reference: Ref) -> Result<(), AuditError> {
        if !reference.is_root() {
            return self.start(reference, None).map(|_| ());
        }
        let offset = reference.offset();
        let Some(root) = Root::view(self.arena, offset) else {
            ensure!(false, "the root at {offset} lies outside");
            return Ok(());
        };
        ensure!(root.tree_count() > 0, "the root at {offset} has no trees");
        // Positions before it would be scaled as the last of all.
        ensure!(
            root.scale().first <= self.positions.start,
            "the root at {offset} counts from behind its first position"
        );
        for t in 0..root.tree_count() {
            self.table(&root, &root.tree(t), offset)?;
        }
        Ok(())
    }

    fn table(&mut self, root: &Root<'_>, tree: &TreeRecord, offset: usize) -> Result<(), AuditError> {
        ensure!(tree.is_sound(), "a tree of the root at {offset} has bits that are no run of ones");
        for bits in tree.index.into_iter().chain(tree.filter).filter(|b| b.mask != 0) {
            ensure!(
                usize::from(bits.window) + 2 <= self.key_end,
                "the root at {offset} looks behind the key"
            );
            let end = u32::from(bits.shift) + bits.count();
            ensure!(end <= 16, "the root at {offset} looks past the end of a window");
        }
        let start = tree.cells as usize * UNIT;
        let end = start + tree.cell_count() * CELL_BYTES;
        ensure!(start > offset && end <= self.arena.len(), "a table of the root at {offset} lies outside");
        self.facts.cells += tree.cell_count();
        for index in 0..tree.cell_count() {
            let cell = root::cell_at(self.arena, tree.cells, index);
            if cell.reference.is_empty() {
                ensure!(cell.gate & FILTER_ALL == 0, "an empty cell of the table at {start} lets keys in");
                continue;
            }
            let shape = self.start(cell.reference, Some(start))?;
            ensure!(
                cell.gate >> 24 <= root.scale().scaled(shape.smallest),
                "cell {index} of the table at {start} hides an earlier position"
            );
        }
        Ok(())
    }

    /// The beginning of a walk: limits hold from here on.
    fn start(&mut self, here: Ref, from: Option<usize>) -> Result<Shape, AuditError> {
        let shape = self.tree(here, from, 0)?;
        ensure!(
            shape.depth <= DEPTH_MAX && shape.pending <= PENDING_MAX,
            "a tree is {} nodes deep with {} deferred parts waiting",
            shape.depth,
            shape.pending
        );
        self.facts.depth = self.facts.depth.max(shape.depth);
        self.facts.pending = self.facts.pending.max(shape.pending);
        Ok(shape)
    }

    /// `from`: offset of what refers here.
    fn tree(&mut self, here: Ref, from: Option<usize>, depth: u32) -> Result<Shape, AuditError> {
        if here.is_empty() {
            return Ok(Shape::EMPTY);
        }
        let offset = here.offset();
        ensure!(from.is_none_or(|f| f < offset), "the reference at {from:?} does not lead upward");
        if let Some(shape) = self.seen.get(&here.0) {
            return Ok(*shape);
        }
        ensure!(depth <= DEPTH_MAX, "the forest is deeper than {DEPTH_MAX} nodes");
        ensure!(!here.is_root(), "a root lies below another, at {offset}");
        ensure!(!here.is_switch(), "a switch, which only live forests have, lies at {offset}");
        let shape = match here.kind() {
            Kind::Node => self.node(offset, depth)?,
            Kind::Lean | Kind::Lean2 => self.lean(here)?,
            Kind::Fat => self.fat(offset)?,
        };
        self.seen.insert(here.0, shape);
        Ok(shape)
    }

    fn node(&mut self, offset: usize, depth: u32) -> Result<Shape, AuditError> {
        self.facts.nodes += 1;
        let Some(bytes) = self.arena.get(offset..).and_then(|a| a.first_chunk::<NODE_BYTES>()) else {
            ensure!(false, "the node at {offset} lies outside");
            return Ok(Shape::EMPTY);
        };
        let node = Node::decode(bytes);
        ensure!(node.encode() == *bytes, "the node at {offset} has bytes that say nothing");
        ensure!(!node.bounds.is_empty(), "the node at {offset} cuts nothing");
        ensure!(usize::from(node.window) + 2 <= self.key_end, "the node at {offset} looks behind the key");
        ensure!(node.bounds.is_sorted_by(|a, b| a < b), "the bounds of the node at {offset} do not rise");
        let mut shape = Shape::EMPTY;
        for slot in (0..node.children.len()).filter(|&slot| node.children[slot] != NO_CHILD) {
            let child = self.tree(node.child(slot), Some(offset), depth + 1)?;
            shape.depth = shape.depth.max(child.depth);
            shape.pending = shape.pending.max(child.pending + usize::from(node.has_deferred));
            shape.smallest = shape.smallest.min(child.smallest);
        }
        if node.has_deferred {
            let at = (node.base as usize).checked_sub(1).map(|unit| unit * UNIT);
            let Some(unit) = at.and_then(|at| self.arena.get(at..at + UNIT)) else {
                ensure!(false, "the deferred part of the node at {offset} lies outside");
                return Ok(shape);
            };
            let part = self.tree(Ref(u32_at(unit, 0)), Some(offset), depth + 1)?;
            ensure!(
                part.smallest == u32_at(unit, 4),
                "the node at {offset} gives a wrong smallest position of its deferred part"
            );
            shape.depth = shape.depth.max(part.depth);
            shape.pending = shape.pending.max(part.pending).max(1);
            shape.smallest = shape.smallest.min(part.smallest);
        }
        shape.depth += 1;
        Ok(shape)
    }

    fn lean(&mut self, here: Ref) -> Result<Shape, AuditError> {
        self.facts.leaves += 1;
        let offset = here.offset();
        let Some(leaf) = Leaf::view(self.arena, offset) else {
            ensure!(false, "the leaf at {offset} cannot be one");
            return Ok(Shape::EMPTY);
        };
        let l = leaf.layout;
        ensure!(l.form == self.form, "the leaf at {offset} has the form of another version");
        // Kernels for such keys read no other.
        ensure!(self.key_end > 16 || !l.is_long, "the leaf at {offset} has a longer header than keys");
        ensure!(leaf.has_whole_ranges(), "the leaf at {offset} has a range that ends before it begins");
        self.facts.entries += l.rules;
        let fits = l.lanes() <= VECTOR_LANES || here.kind() == Kind::Lean2;
        ensure!(fits, "the leaf at {offset} has more lanes than its reference says");
        for column in 0..l.columns() {
            let end = usize::from(leaf.window(column)) + 2;
            ensure!(end <= self.key_end, "the leaf at {offset} looks behind the key");
        }
        self.positions_of(offset, None, l.rules, l.bytes(), |rule| leaf.position(rule))?;
        Ok(Shape { smallest: leaf.position(0), ..Shape::EMPTY })
    }

    fn fat(&mut self, mut offset: usize) -> Result<Shape, AuditError> {
        let mut last = None;
        let mut smallest = u32::MAX;
        loop {
            self.facts.leaves += 1;
            let Some(leaf) = FatLeaf::view(self.arena, offset) else {
                ensure!(false, "the leaf at {offset} lies outside");
                break;
            };
            let l = leaf.layout;
            self.facts.entries += l.rules;
            for column in 0..l.columns() {
                let bytes = if column < l.r32 { 4 } else { 2 };
                let end = usize::from(leaf.window(column)) + bytes;
                ensure!(end <= self.key_end, "the leaf at {offset} looks behind the key");
            }
            self.positions_of(offset, last, l.rules, l.bytes(), |rule| leaf.position(rule))?;
            if l.rules > 0 {
                smallest = smallest.min(leaf.position(0));
                last = Some(leaf.position(l.rules - 1));
            }
            if !l.chained {
                break;
            }
            let next = leaf.next();
            ensure!(
                next.kind() == Kind::Fat && !next.is_empty() && next.offset() > offset,
                "the leaf at {offset} does not go on upward"
            );
            offset = next.offset();
        }
        Ok(Shape { smallest, ..Shape::EMPTY })
    }

    /// Positions do not fall and are the entry's.
    fn positions_of(
        &mut self,
        offset: usize,
        mut last: Option<u32>,
        rules: usize,
        bytes: usize,
        position: impl Fn(usize) -> u32,
    ) -> Result<(), AuditError> {
        let positions: Vec<u32> = (0..rules).map(position).collect();
        (self.visit)(LeafSeen { bytes: bytes.next_multiple_of(UNIT), positions: &positions });
        for position in positions {
            ensure!(last.is_none_or(|l| l <= position), "the positions of the leaf at {offset} fall");
            ensure!(
                self.positions.contains(&position),
                "the leaf at {offset} holds position {position} of another entry"
            );
            last = Some(position);
        }
        Ok(())
    }
}
