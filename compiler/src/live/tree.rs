//! The writer's mirror of a subtree, and changes to it.
//!
//! ```text
//!   mirror (writer)                          memory (readers)
//!   Node  window, bounds, children  ──────▶  node 64 bytes ─▶ block of its children
//!    ├ Many [3, 17, 40]  full list  ──────▶   leaf: only what is not hidden
//!    └ deferred ─ One 5             ──────▶   before the block
//! ```
//!
//! Lists are *full*: a leaf in memory leaves out what an earlier rule hides there, the mirror does
//! not, so that a rule whose cover is deleted comes back by itself. A change copies the block of
//! children that it touches, and those above, up to the slot; siblings are copied as bytes.

use hipac_classifier::forest::leaf::Layout;
use hipac_classifier::forest::node::{self, FAN_MAX, NO_CHILD, NODE_BYTES};
use hipac_classifier::forest::{DEPTH_MAX, Kind, LINE, PENDING_MAX, Ref, UNIT, fat, leaf_bits};
use smallvec::SmallVec;

use super::ground::Ground;
use super::space::{Align, Block, Full};
use super::store::{BoxId, Store};
use crate::forest::boxes::{Bounds, Cuts, Window};
use crate::forest::build::{Builder, Tree, fat_visits, interval_of};
use crate::forest::cut::{Cut, candidates, span};
use crate::forest::{Boxes, Shape, leaf};

/// The mirror of a subtree.
#[derive(Debug, Default)]
pub(super) enum Sub {
    /// No box.
    #[default]
    Empty,
    /// A leaf of one box, and so on: most are.
    One(BoxId),
    Two([BoxId; 2]),
    Three([BoxId; 3]),
    /// A leaf of more. (There are some ten thousand mirrors: they are kept at 16 bytes.)
    #[allow(clippy::box_collection)]
    Many(Box<Vec<BoxId>>),
    /// A node.
    Node(Box<Node>),
}

const _: () = assert!(size_of::<Sub>() == 16);

/// The mirror of a node.
#[derive(Debug)]
pub(super) struct Node {
    window: Window,
    axis: u8,
    /// A box that meets more children than this is deferred.
    span_max: u8,
    cuts: Cuts,
    children: Vec<Child>,
    deferred: Option<Child>,
    /// Smallest label that the deferred part may hold.
    smallest: u32,
    /// Block of the children.
    block: Block,
    /// Boxes in all of its lists, copies counted.
    entries: u32,
}

/// A child, and where its bytes are.
#[derive(Debug, Default)]
struct Child {
    sub: Sub,
    at: At,
}

/// Where a subtree begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct At(Ref);

impl Default for At {
    fn default() -> At {
        At(Ref::EMPTY)
    }
}

/// The bytes with which a subtree begins: its parent, or a slot, gives them a place.
enum Head {
    /// As before.
    Same,
    /// Nothing.
    Empty,
    /// A lean leaf.
    Lean(Kind, Vec<u8>),
    /// A fat leaf, which has its place already.
    Fat(Ref),
    /// A node, whose children have their places already.
    Node([u8; NODE_BYTES]),
}

/// Of a node's children.
type Heads = SmallVec<[Head; FAN_MAX]>;

/// What to do with a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    /// Put it in.
    Insert,
    /// Take it out.
    Remove,
    /// Its label is another one, but not its place in the order.
    Relabel,
}

impl Sub {
    /// The list of a leaf; `None` for a node.
    fn list(&self) -> Option<&[BoxId]> {
        Some(match self {
            Sub::Empty => &[],
            Sub::One(id) => std::slice::from_ref(id),
            Sub::Two(ids) => ids,
            Sub::Three(ids) => ids,
            Sub::Many(ids) => ids,
            Sub::Node(_) => return None,
        })
    }

    fn of(list: &[BoxId]) -> Sub {
        match *list {
            [] => Sub::Empty,
            [a] => Sub::One(a),
            [a, b] => Sub::Two([a, b]),
            [a, b, c] => Sub::Three([a, b, c]),
            _ => Sub::Many(Box::new(list.to_vec())),
        }
    }

    fn entries(&self) -> u32 {
        self.count()
    }

    /// Boxes in all of its lists, copies counted.
    pub(super) fn count(&self) -> u32 {
        match self {
            Sub::Node(node) => node.entries,
            leaf => leaf.list().map_or(0, |l| l.len() as u32),
        }
    }

    /// Calls `f` with every box of every list.
    pub(super) fn each(&self, f: &mut impl FnMut(BoxId)) {
        match self {
            Sub::Node(node) => {
                node.children.iter().chain(&node.deferred).for_each(|child| child.sub.each(f));
            }
            leaf => leaf.list().unwrap_or_default().iter().copied().for_each(f),
        }
    }

    /// Bytes of the mirror besides its own 16.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Sub::Many(list) => size_of::<Vec<BoxId>>() + 4 * list.capacity(),
            Sub::Node(node) => {
                let children = node.children.iter().chain(&node.deferred);
                size_of::<Node>() + children.map(|c| size_of::<Child>() + c.sub.bytes()).sum::<usize>()
            }
            _ => 0,
        }
    }
}

/// What a change to trees works with.
pub(super) struct Hand<'a> {
    pub(super) ground: &'a mut Ground,
    pub(super) store: &'a Store,
    pub(super) shape: Shape,
    /// Boxes of the leaf at hand.
    pub(super) boxes: &'a mut Boxes,
}

/// Leaves that one box may be put into below a slot before it is deferred instead. A deferred part
/// costs every lookup that passes: a few slow inserts are cheaper.
const LEAVES_MAX: u32 = 160;

/// A node with fewer boxes than this in all becomes a leaf again.
const COLLAPSE: u32 = 6;

impl Hand<'_> {
    /// Does something with a box in a whole subtree of a slot. `region` is what comes to the slot.
    /// Says where the subtree begins now; `None` when nothing is to be changed in memory.
    ///
    /// When memory does not suffice, mirror and memory are not the same thing any more: neither is to
    /// be used again.
    pub(super) fn change(
        &mut self,
        sub: &mut Sub,
        at: Ref,
        (id, single): (BoxId, &Boxes),
        deed: Deed,
        region: &mut [(u32, u32)],
    ) -> Result<Option<Ref>, Full> {
        let place = Place { depth: 0, pending: 0, leaves: LEAVES_MAX };
        let (head, _) = self.descend(sub, at, &Item { id, deed, single }, region, place)?;
        self.put_alone(head, at)
    }

    /// A subtree of a list, in order, and where it begins.
    pub(super) fn grow_alone(
        &mut self,
        list: &[BoxId],
        region: &mut [(u32, u32)],
    ) -> Result<(Sub, Ref), Full> {
        let (sub, head) = self.grow(list, region, Place { depth: 0, pending: 0, leaves: 0 })?;
        let at = self.put_alone(head, Ref::EMPTY)?.unwrap_or(Ref::EMPTY);
        Ok((sub, at))
    }

    /// Gives a head a place of its own, and the old one's back.
    fn put_alone(&mut self, head: Head, old: Ref) -> Result<Option<Ref>, Full> {
        let new = match head {
            Head::Same => return Ok(None),
            Head::Empty => Ref::EMPTY,
            Head::Fat(at) => at,
            Head::Lean(kind, bytes) => {
                let offset = self.ground.write(&bytes, Align::Unit)?.offset();
                Ref::leaf(kind, offset, bytes.len())
            }
            Head::Node(bytes) => Ref::node(self.ground.write(&bytes, Align::Line)?.offset()),
        };
        match old.kind() {
            _ if old.is_empty() => {}
            Kind::Node => self.ground.drop_block(Block::of(old.offset(), NODE_BYTES, Align::Line)),
            Kind::Lean | Kind::Lean2 => {
                let bytes = lean_bytes(self.ground.bytes(), old.offset());
                self.ground.drop_block(Block::of(old.offset(), bytes, Align::Unit));
            }
            Kind::Fat => self.drop_fat(old),
        }
        Ok(Some(new))
    }

    /// Gives the blocks of a fat leaf and its continuations back.
    fn drop_fat(&mut self, mut at: Ref) {
        while !at.is_empty() {
            let Some(leaf) = fat::FatLeaf::view(self.ground.bytes(), at.offset()) else { return };
            let (bytes, next) = (leaf.layout.bytes(), leaf.next());
            self.ground.drop_block(Block::of(at.offset(), bytes, Align::Unit));
            at = next;
        }
    }

    /// Gives everything below a subtree back; not what its parent keeps of it.
    fn drop_below(&mut self, sub: &Sub) {
        let Sub::Node(node) = sub else { return };
        for child in &node.children {
            self.drop_below(&child.sub);
            if child.at.0.kind() == Kind::Fat && !child.at.0.is_empty() {
                self.drop_stub(child.at.0);
            }
        }
        if let Some(child) = &node.deferred {
            self.drop_whole(&child.sub, child.at.0);
        }
        self.ground.drop_block(node.block);
    }

    /// The leaf behind a stub, which lies among its siblings.
    fn drop_stub(&mut self, stub: Ref) {
        let next = fat::FatLeaf::view(self.ground.bytes(), stub.offset()).map(|leaf| leaf.next());
        self.drop_fat(next.unwrap_or(Ref::EMPTY));
    }

    /// Gives a subtree back that has a place of its own.
    pub(super) fn drop_whole(&mut self, sub: &Sub, at: Ref) {
        self.drop_below(sub);
        // With nothing in its place.
        let _ = self.put_alone(Head::Empty, at);
    }

    fn descend(
        &mut self,
        sub: &mut Sub,
        at: Ref,
        item: &Item<'_>,
        region: &mut [(u32, u32)],
        place: Place,
    ) -> Result<(Head, bool), Full> {
        if let Sub::Node(node) = sub {
            let (head, found) = self.descend_node(node, item, region, place)?;
            if item.deed == Deed::Remove && node.entries < COLLAPSE && found {
                return Ok((self.collapse(sub, region)?, true));
            }
            return Ok((head, found));
        }
        let mut list: SmallVec<[BoxId; 16]> = SmallVec::from_slice(sub.list().unwrap_or_default());
        let found = list.iter().position(|&i| i == item.id);
        match item.deed {
            Deed::Insert => {
                // Counted, not searched: no box waits for another one to come from memory.
                let key = |i: BoxId| (self.store.label(i), i);
                let own = key(item.id);
                let before = list.iter().filter(|&&i| key(i) < own).count();
                list.insert(before, item.id);
            }
            Deed::Remove => match found {
                Some(i) => drop(list.remove(i)),
                None => return Ok((Head::Same, false)),
            },
            Deed::Relabel if found.is_none() => return Ok((Head::Same, false)),
            Deed::Relabel => {}
        }
        if item.deed != Deed::Relabel {
            *sub = Sub::of(&list);
        }
        Ok((self.leaf(sub, &list, Some(at), region, place)?, true))
    }

    /// The bytes of a leaf, or of the node that it has become.
    fn leaf(
        &mut self,
        sub: &mut Sub,
        list: &[BoxId],
        old: Option<Ref>,
        region: &mut [(u32, u32)],
        place: Place,
    ) -> Result<Head, Full> {
        let visible = self.visible(list, region);
        // Whether a cut helps is asked when a leaf grows past its size, and now and then behind that.
        let is_time =
            old.is_none() || visible.len() == self.shape.leaf_rules + 1 || visible.len().is_multiple_of(4);
        if visible.len() > self.shape.leaf_rules
            && is_time
            && place.depth + 1 < DEPTH_MAX
            && let Some((grown, head)) = self.cut(list, &visible, region, place)?
        {
            *sub = grown;
            return Ok(head);
        }
        let head = self.encode(&visible, region)?;
        if let (Head::Lean(kind, bytes), Some(old)) = (&head, old)
            && old.kind() == *kind
            && self.ground.bytes()[old.offset()..].starts_with(bytes)
        {
            return Ok(Head::Same); // what changed is hidden here
        }
        Ok(head)
    }

    /// What of a list is not hidden in a region, as indices of `boxes`.
    fn visible(&mut self, list: &[BoxId], region: &Bounds) -> Vec<u32> {
        self.boxes.clear();
        self.store.unpack(list, self.boxes);
        let mut visible = (0..list.len() as u32).collect();
        Builder { boxes: self.boxes, shape: self.shape }.prune(&mut visible, region);
        visible
    }

    /// The leaf of some of `boxes`.
    fn encode(&mut self, visible: &[u32], region: &Bounds) -> Result<Head, Full> {
        if visible.is_empty() {
            return Ok(Head::Empty);
        }
        let Tree::Leaf { kind, bytes, continuations } = leaf::encode(self.boxes, visible, region) else {
            return Ok(Head::Empty);
        };
        if kind != Kind::Fat {
            return Ok(Head::Lean(kind, bytes));
        }
        // Back to front: each says where the next one lies.
        let mut next = Ref::EMPTY;
        for mut bytes in continuations.into_iter().rev().chain([bytes]) {
            if !next.is_empty() {
                bytes[fat::HEADER_BYTES..][..4].copy_from_slice(&next.0.to_le_bytes());
            }
            next = Ref::leaf(Kind::Fat, self.ground.write(&bytes, Align::Unit)?.offset(), bytes.len());
        }
        Ok(Head::Fat(next))
    }

    /// A subtree of a list.
    fn grow(&mut self, list: &[BoxId], region: &mut [(u32, u32)], place: Place) -> Result<(Sub, Head), Full> {
        let mut sub = Sub::of(list);
        let head = self.leaf(&mut sub, list, None, region, place)?;
        Ok((sub, head))
    }

    /// A node of a list, when a cut helps.
    fn cut(
        &mut self,
        list: &[BoxId],
        visible: &[u32],
        region: &mut [(u32, u32)],
        place: Place,
    ) -> Result<Option<(Sub, Head)>, Full> {
        let may_defer = place.pending + 1 < PENDING_MAX;
        let limit = fat_visits(visible.len());
        let all: Vec<u32> = (0..list.len() as u32).collect();
        let mut chosen = None;
        for cut in candidates(self.boxes, visible, region, &self.shape, may_defer) {
            if visible.len() <= self.shape.fat_leaf_rules && cut.score >= limit {
                break;
            }
            let builder = Builder { boxes: self.boxes, shape: self.shape };
            // Of what is visible it must be progress; of the hidden it may make copies.
            if builder.partition(visible, region, &cut).is_some() {
                chosen = builder.partition(&all, region, &cut).map(|parts| (cut, parts));
                if chosen.is_some() {
                    break;
                }
            }
        }
        let Some((cut, parts)) = chosen else { return Ok(None) };
        let ids = |indices: &[u32]| -> Vec<BoxId> { indices.iter().map(|&i| list[i as usize]).collect() };
        let lists: Vec<Vec<BoxId>> = parts.children.iter().map(|part| ids(part)).collect();
        let deferred = ids(&parts.deferred);
        self.node(&cut, parts.cuts, &lists, &deferred, region, place).map(Some)
    }

    fn node(
        &mut self,
        cut: &Cut,
        cuts: Cuts,
        lists: &[Vec<BoxId>],
        deferred: &[BoxId],
        region: &mut [(u32, u32)],
        place: Place,
    ) -> Result<(Sub, Head), Full> {
        let whole = region[cut.axis];
        let waits = usize::from(!deferred.is_empty());
        let below = Place { depth: place.depth + 1, pending: place.pending + waits, ..place };
        let mut node = Node {
            window: cut.window,
            axis: cut.axis as u8,
            span_max: cut.span_max as u8,
            cuts,
            children: Vec::with_capacity(lists.len()),
            deferred: None,
            smallest: u32::MAX,
            block: Block::NONE,
            entries: 0,
        };
        let mut heads = Heads::new();
        for (slot, list) in lists.iter().enumerate() {
            region[cut.axis] = interval_of(&cuts, slot, cut.window, whole);
            let grown = self.grow(list, region, below);
            region[cut.axis] = whole;
            let (sub, head) = grown?;
            node.entries += sub.entries();
            node.children.push(Child { sub, at: At::default() });
            heads.push(head);
        }
        if let Some(&first) = deferred.first() {
            let below = Place { depth: place.depth + 1, ..place };
            let (sub, head) = self.grow(deferred, region, below)?;
            let at = self.put_alone(head, Ref::EMPTY)?.unwrap_or(Ref::EMPTY);
            node.entries += sub.entries();
            node.smallest = self.store.label(first);
            node.deferred = Some(Child { sub, at: At(at) });
        }
        let head = self.lay_out(&mut node, heads)?;
        Ok((Sub::Node(Box::new(node)), head))
    }

    /// Does the deed in a node; the head of the node, if it changed.
    fn descend_node(
        &mut self,
        node: &mut Node,
        item: &Item<'_>,
        region: &mut [(u32, u32)],
        place: Place,
    ) -> Result<(Head, bool), Full> {
        let axis = usize::from(node.axis);
        let whole = region[axis];
        let (first, last) = span(item.single.interval(0, axis), whole, node.window, &node.cuts);
        let met = (last - first + 1) as u32;
        let defers = met > u32::from(node.span_max) || met > place.leaves.max(1);
        let before = node.entries;
        // A box is either in the deferred part or in the children.
        let in_deferred = match item.deed {
            // Whether it can wait is a walk over all that is below: asked last.
            Deed::Insert => {
                defers
                    && met > 1
                    && (node.deferred.is_some()
                        || place.pending + 1 < PENDING_MAX && self.can_wait(node, place))
            }
            // It may meet one child only: those that lead to the same place became one after it
            // was deferred.
            _ => self.is_deferred(node, item),
        };
        if in_deferred {
            let below = Place { depth: place.depth + 1, pending: place.pending, leaves: place.leaves };
            let mut child = node.deferred.take().unwrap_or_default();
            let (count, at) = (child.sub.entries(), child.at.0);
            let (head, _) = self.descend(&mut child.sub, at, item, region, below)?;
            node.entries = before - count + child.sub.entries();
            let label = self.store.label(item.id);
            if item.deed != Deed::Remove {
                node.smallest = node.smallest.min(label);
            }
            if let Some(new) = self.put_alone(head, at)? {
                child.at = At(new);
            }
            if child.sub.entries() > 0 {
                node.deferred = Some(child);
            } else {
                node.smallest = u32::MAX;
            }
            let heads: Heads = node.children.iter().map(|_| Head::Same).collect();
            return Ok((self.lay_out(node, heads)?, true));
        }
        let waits = usize::from(node.deferred.is_some());
        let below = Place {
            depth: place.depth + 1,
            pending: place.pending + waits,
            leaves: (place.leaves / met).max(1),
        };
        let mut heads: Heads = node.children.iter().map(|_| Head::Same).collect();
        let (mut changed, mut found) = (false, false);
        for (slot, head_of_child) in heads.iter_mut().enumerate().take(last + 1).skip(first) {
            let child = &mut node.children[slot];
            region[axis] = interval_of(&node.cuts, slot, node.window, whole);
            let count = child.sub.entries();
            let (head, here) = self.descend(&mut child.sub, child.at.0, item, region, below)?;
            region[axis] = whole;
            node.entries = node.entries - count + child.sub.entries();
            changed |= !matches!(head, Head::Same);
            found |= here;
            *head_of_child = head;
        }
        let head = if changed { self.lay_out(node, heads)? } else { Head::Same };
        Ok((head, found))
    }

    /// A first deferred part keeps what waits on the ways through a node within its limit.
    fn can_wait(&self, node: &Node, place: Place) -> bool {
        let deepest = node.children.iter().map(|c| pending_below(&c.sub)).max().unwrap_or(0);
        place.pending + deepest + 2 < PENDING_MAX
    }

    /// A box is in the deferred part of a node.
    fn is_deferred(&self, node: &Node, item: &Item<'_>) -> bool {
        node.deferred.as_ref().is_some_and(|child| self.holds(&child.sub, item))
    }

    fn holds(&self, sub: &Sub, item: &Item<'_>) -> bool {
        let Sub::Node(node) = sub else {
            return sub.list().unwrap_or_default().contains(&item.id);
        };
        // Any one of the children that it would be in has it, when they have it.
        let axis = usize::from(node.axis);
        let first = node.window.of_value(item.single.interval(0, axis).0.max(node_first(node)));
        let slot = node.cuts.slot(first);
        self.is_deferred(node, item) || self.holds(&node.children[slot].sub, item)
    }

    /// A node with few boxes as a leaf.
    fn collapse(&mut self, sub: &mut Sub, region: &mut [(u32, u32)]) -> Result<Head, Full> {
        let mut list = Vec::new();
        sub.each(&mut |id| list.push(id));
        list.sort_unstable_by_key(|&id| (self.store.label(id), id));
        list.dedup();
        let visible = self.visible(&list, region);
        let head = self.encode(&visible, region)?;
        let old = std::mem::replace(sub, Sub::of(&list));
        self.drop_below(&old);
        Ok(head)
    }

    /// Lays the children of a node out in a new block, and gives the old one back. The head of the
    /// node.
    fn lay_out(&mut self, node: &mut Node, heads: Heads) -> Result<Head, Full> {
        let old_block = node.block;
        // What is kept is copied; equal places stay equal.
        let mut pieces: SmallVec<[Piece; FAN_MAX]> = SmallVec::new();
        for (child, head) in node.children.iter().zip(heads) {
            let bytes = self.ground.bytes();
            pieces.push(match head {
                Head::Same => match child.at.0 {
                    at if at.is_empty() => Piece::Empty,
                    at => Piece::Kept(at, kept_bytes(bytes, at)),
                },
                Head::Empty => Piece::Empty,
                Head::Lean(kind, bytes) => Piece::New(kind, bytes),
                Head::Fat(at) => Piece::New(Kind::Fat, fat::encode(&[], &[], Some(at))),
                Head::Node(bytes) => Piece::New(Kind::Node, bytes.to_vec()),
            });
        }
        let has_nodes = pieces.iter().any(|p| p.kind() == Some(Kind::Node));
        let before = match (&node.deferred, has_nodes) {
            (None, _) => 0,
            (Some(_), false) => UNIT,
            (Some(_), true) => LINE,
        };
        let most: usize = pieces.iter().map(|piece| piece.len().next_multiple_of(UNIT)).sum();
        let mut bytes = Vec::with_capacity(before + most);
        bytes.resize(before, 0);
        let mut places: [Option<usize>; FAN_MAX] = [None; FAN_MAX];
        for wants_nodes in [true, false] {
            for (i, piece) in pieces.iter().enumerate() {
                let Some(kind) = piece.kind() else { continue };
                if (kind == Kind::Node) != wants_nodes {
                    continue;
                }
                let same = |j: usize| matches!((&pieces[j], piece), (Piece::Kept(a, _), Piece::Kept(b, _)) if a == b);
                if let Some(j) = (0..i).find(|&j| same(j)) {
                    places[i] = places[j];
                    continue;
                }
                places[i] = Some(bytes.len());
                match piece {
                    Piece::Kept(at, len) => {
                        bytes.extend_from_slice(&self.ground.bytes()[at.offset()..at.offset() + len]);
                    }
                    Piece::New(_, new) => bytes.extend_from_slice(new),
                    Piece::Empty => {}
                }
                bytes.resize(bytes.len().next_multiple_of(UNIT), 0);
            }
        }
        if let Some(deferred) = &node.deferred {
            bytes[before - UNIT..][..4].copy_from_slice(&deferred.at.0.0.to_le_bytes());
            bytes[before - UNIT + 4..][..4].copy_from_slice(&node.smallest.to_le_bytes());
        }
        let align = if has_nodes { Align::Line } else { Align::Unit };
        let block = if bytes.is_empty() { Block::NONE } else { self.ground.write(&bytes, align)? };
        // Stubs of leaves that are replaced lead to blocks of their own.
        for (child, piece) in node.children.iter().zip(&pieces) {
            let is_replaced = !matches!(piece, Piece::Kept(..)) && !child.at.0.is_empty();
            if is_replaced && child.at.0.kind() == Kind::Fat {
                self.drop_stub(child.at.0);
            }
        }
        let start = block.offset();
        let mut children = Vec::with_capacity(pieces.len());
        for ((child, piece), place) in node.children.iter_mut().zip(&pieces).zip(&places) {
            let (Some(kind), Some(at)) = (piece.kind(), *place) else {
                child.at = At::default();
                children.push(NO_CHILD);
                continue;
            };
            let units = ((at - before) / UNIT) as u16;
            let offset = start + at;
            if kind == Kind::Node {
                child.at = At(Ref::node(offset));
                children.push(units);
            } else {
                let len = piece.len();
                child.at = At(Ref::leaf(kind, offset, len));
                children.push((leaf_bits(kind, offset % LINE, len) << 12) as u16 | units);
            }
        }
        let encoded = node::Node {
            base: ((start + before) / UNIT) as u32,
            window: node.window.offset(&self.store.axes()[usize::from(node.axis)]),
            has_deferred: node.deferred.is_some(),
            bounds: node.cuts.as_slice().to_vec(),
            children,
        };
        node.block = block;
        self.ground.drop_block(old_block);
        Ok(Head::Node(encoded.encode()))
    }
}

/// A box on its way down, and what is to be done with it.
struct Item<'a> {
    id: BoxId,
    deed: Deed,
    single: &'a Boxes,
}

/// How deep a walk is, and what it may still do.
#[derive(Debug, Clone, Copy)]
struct Place {
    depth: u32,
    /// Deferred parts that may wait when a lookup comes here.
    pending: usize,
    /// Leaves that a box may be put into from here on.
    leaves: u32,
}

/// A child about to be laid out.
enum Piece {
    Empty,
    /// As it was: where, and how many bytes.
    Kept(Ref, usize),
    New(Kind, Vec<u8>),
}

impl Piece {
    fn kind(&self) -> Option<Kind> {
        match self {
            Piece::Empty => None,
            Piece::Kept(at, _) => Some(at.kind()),
            Piece::New(kind, _) => Some(*kind),
        }
    }

    fn len(&self) -> usize {
        match self {
            Piece::Empty => 0,
            Piece::Kept(_, len) => *len,
            Piece::New(_, bytes) => bytes.len(),
        }
    }
}

/// Deferred parts that may wait at once below a subtree.
fn pending_below(sub: &Sub) -> usize {
    let Sub::Node(node) = sub else { return 0 };
    let children = node.children.iter().map(|c| pending_below(&c.sub)).max().unwrap_or(0);
    let deferred = node.deferred.as_ref().map_or(0, |c| pending_below(&c.sub));
    (children + usize::from(node.deferred.is_some())).max(deferred)
}

/// The least value that comes to a node on its axis.
fn node_first(node: &Node) -> u32 {
    node.window.first_value(0)
}

fn lean_bytes(bytes: &[u8], at: usize) -> usize {
    bytes[at..].first_chunk().map_or(0, |head| Layout::read(head).bytes())
}

/// Bytes of what lies among siblings.
fn kept_bytes(bytes: &[u8], at: Ref) -> usize {
    match at.kind() {
        Kind::Node => NODE_BYTES,
        Kind::Lean | Kind::Lean2 => lean_bytes(bytes, at.offset()),
        // A stub: a fat leaf without rules.
        Kind::Fat => fat::encode(&[], &[], Some(Ref::EMPTY)).len(),
    }
}
