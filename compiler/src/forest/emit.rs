//! Laying out: trees become bytes, parents before children, children side by side.

use hipac_classifier::forest::leaf::HEADER_BYTES;
use hipac_classifier::forest::node::{self, NO_CHILD, NODE_BYTES};
use hipac_classifier::forest::{ARENA_SLACK, Ref, UNIT};

use super::build::{Node, Tree};

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

    /// Lays out a tree and says where its root is.
    ///
    /// # Errors
    /// The arena would have more than 2^31 units.
    pub fn add(&mut self, tree: &Tree) -> Result<Ref, ArenaFull> {
        self.tree(tree, 0)
    }

    fn tree(&mut self, tree: &Tree, depth: u32) -> Result<Ref, ArenaFull> {
        match tree {
            Tree::Empty => Ok(Ref::EMPTY),
            Tree::Leaf(chunks) => {
                let offset = self.leaf(&chunks[0])?;
                self.continuations(offset, chunks)?;
                Ok(Ref::leaf(offset))
            }
            Tree::Node(node) => {
                let offset = self.reserve(NODE_BYTES, NODE_BYTES)?;
                self.node(offset, node, depth + 1)?;
                Ok(Ref::node(offset))
            }
        }
    }

    /// Room for `bytes`, aligned.
    fn reserve(&mut self, bytes: usize, alignment: usize) -> Result<usize, ArenaFull> {
        let offset = self.bytes.len().next_multiple_of(alignment);
        if (offset + bytes) / UNIT >= Ref::UNITS_MAX {
            return Err(ArenaFull);
        }
        self.bytes.resize(offset + bytes, 0);
        Ok(offset)
    }

    fn leaf(&mut self, leaf: &[u8]) -> Result<usize, ArenaFull> {
        self.leaves += 1;
        let offset = self.reserve(leaf.len().next_multiple_of(UNIT), UNIT)?;
        self.bytes[offset..offset + leaf.len()].copy_from_slice(leaf);
        Ok(offset)
    }

    /// Lays out what follows the first leaf of a long list, and links it.
    fn continuations(&mut self, first: usize, chunks: &[Vec<u8>]) -> Result<(), ArenaFull> {
        let mut before = first;
        for chunk in &chunks[1..] {
            let offset = self.leaf(chunk)?;
            self.bytes[before + HEADER_BYTES..][..4].copy_from_slice(&Ref::leaf(offset).0.to_le_bytes());
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
        let alignment = if node_children > 0 { NODE_BYTES } else { UNIT };
        let base = (self.bytes.len() + before).next_multiple_of(alignment);
        self.reserve(base - self.bytes.len() + node_children * NODE_BYTES, 1)?;

        let mut deltas = Vec::with_capacity(node.children.len());
        let mut stored: Vec<(&Vec<Vec<u8>>, u16)> = Vec::new();
        let mut chains = Vec::new();
        let mut nodes = 0;
        for child in &node.children {
            deltas.push(match child {
                Tree::Empty => NO_CHILD,
                Tree::Node(_) => {
                    nodes += 1;
                    ((nodes - 1) * NODE_BYTES / UNIT) as u16
                }
                Tree::Leaf(chunks) => match stored.iter().find(|(other, _)| *other == chunks) {
                    Some((_, delta)) => *delta,
                    None => {
                        let offset = self.leaf(&chunks[0])?;
                        chains.push((offset, chunks));
                        // 15 leaves of at most 64 rules stay far below 2^16 units.
                        let delta = ((offset - base) / UNIT) as u16;
                        stored.push((chunks, delta));
                        delta
                    }
                },
            });
        }
        let encoded = node::Node {
            base: (base / UNIT) as u32,
            window: node.window,
            node_children: node_children as u8,
            has_deferred: node.deferred.is_some(),
            bounds: node.cuts.as_slice().to_vec(),
            deltas,
        };
        self.bytes[offset..offset + NODE_BYTES].copy_from_slice(&encoded.encode());

        for (offset, chunks) in chains {
            self.continuations(offset, chunks)?;
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
