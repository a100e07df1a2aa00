//! The recursion: prune what cannot matter, stop at a leaf, or cut.

use hipac_classifier::forest::leaf::{Layout, RULES_MAX};
use hipac_classifier::forest::node::NODE_BYTES;
use hipac_classifier::forest::{DEPTH_MAX, Kind, PENDING_MAX, UNIT};
use rayon::prelude::*;

use super::boxes::{Bounds, Boxes, Cuts, Window};
use super::cut::{Cut, candidates, span};
use super::leaf;

/// How much memory to trade for speed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Rules of a leaf; more are cut.
    pub leaf_rules: usize,
    /// Rules of a leaf that no cut improves.
    pub fat_leaf_rules: usize,
    /// Stored copies a rule that one cut may make.
    pub copies_max: f64,
    /// What a doubling of copies must save, in visits.
    pub copy_price: f64,
}

impl Shape {
    /// From the fastest to the smallest. The last one is a plain list.
    pub const LADDER: [Shape; 4] = [
        Shape { leaf_rules: 8, fat_leaf_rules: 32, copies_max: 1.5, copy_price: 1.0 },
        Shape { leaf_rules: 8, fat_leaf_rules: 64, copies_max: 1.05, copy_price: 4.0 },
        Shape { leaf_rules: 32, fat_leaf_rules: 64, copies_max: 1.0, copy_price: 4.0 },
        Shape { leaf_rules: usize::MAX, fat_leaf_rules: usize::MAX, copies_max: 1.0, copy_price: 4.0 },
    ];
}

impl Shape {
    /// The same shape in a forest where memory has another price: see [`memory_price`]. What is
    /// shaped to be small stays small.
    pub(crate) fn at_price(&self, price: f64) -> Shape {
        if self.copies_max <= Shape::LADDER[1].copies_max {
            return *self;
        }
        let cheap = 1.0 - price / MEMORY_PRICE;
        Shape {
            // More would compound from node to node: with 3 in place of 1.5 hostile boxes take three
            // times the bytes, and ordinary sets of 1,000 rules a twentieth less time.
            copies_max: self.copies_max + 0.5 * cheap,
            copy_price: self.copy_price * price / MEMORY_PRICE,
            ..*self
        }
    }
}

/// What a doubling of the bytes must save in a large forest, in visits.
const MEMORY_PRICE: f64 = 0.5;

/// What a doubling of the bytes must save, in visits, when an image has so many boxes: what larger
/// means for the caches. Next to nothing in the first level (32 KiB), half a visit from about the
/// end of the second one on (1 MiB).
pub(crate) fn memory_price(boxes: usize) -> f64 {
    let bytes = 25.0 * boxes.max(1) as f64;
    let levels = (bytes / f64::from(1 << 15)).log2() / 5.0;
    MEMORY_PRICE * levels.clamp(0.1, 1.0)
}

/// A tree before it has an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tree {
    /// No rule.
    Empty,
    /// A leaf. What has continuations, and all of these but the last, lacks its `next`.
    Leaf {
        /// What kind of leaf.
        kind: Kind,
        /// Its bytes.
        bytes: Vec<u8>,
        /// Leaves in which the list goes on.
        continuations: Vec<Vec<u8>>,
    },
    /// A node.
    Node(Box<Node>),
}

impl Tree {
    /// Bytes it takes, but for what alignment adds.
    pub fn bytes(&self) -> usize {
        let padded = |bytes: &Vec<u8>| bytes.len().next_multiple_of(UNIT);
        match self {
            Tree::Empty => 0,
            Tree::Leaf { bytes, continuations, .. } => {
                padded(bytes) + continuations.iter().map(padded).sum::<usize>()
            }
            Tree::Node(node) => {
                let deferred = node.deferred.as_ref().map_or(0, |(tree, _)| UNIT + tree.bytes());
                NODE_BYTES + deferred + node.children.iter().map(Tree::bytes).sum::<usize>()
            }
        }
    }

    /// Rule entries in its leaves.
    fn entries(&self) -> usize {
        match self {
            Tree::Empty => 0,
            Tree::Leaf { kind: Kind::Lean | Kind::Lean2, bytes, .. } => {
                bytes.first_chunk().map_or(0, |head| Layout::read(head).rules)
            }
            Tree::Leaf { bytes, continuations, .. } => {
                usize::from(bytes[0]) + continuations.iter().map(|c| usize::from(c[0])).sum::<usize>()
            }
            Tree::Node(node) => {
                let deferred = node.deferred.as_ref().map_or(0, |(tree, _)| tree.entries());
                deferred + node.children.iter().map(Tree::entries).sum::<usize>()
            }
        }
    }

    /// Nodes and lean leaves' worth of work that a lookup is expected to do in it, were children
    /// met as their entries are many.
    pub fn visits(&self) -> f64 {
        match self {
            Tree::Empty => 0.0,
            Tree::Leaf { kind: Kind::Fat, .. } => fat_visits(self.entries()),
            Tree::Leaf { .. } => 1.0,
            Tree::Node(node) => {
                let entries: usize = node.children.iter().map(Tree::entries).sum();
                let share = |child: &Tree| child.entries() as f64 / entries.max(1) as f64 * child.visits();
                let below: f64 = node.children.iter().map(share).sum();
                1.0 + below + node.deferred.as_ref().map_or(0.0, |(tree, _)| tree.visits())
            }
        }
    }
}

/// A node before it has an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Key offset of its window.
    pub window: u8,
    /// Its bounds.
    pub cuts: Cuts,
    /// A child an interval.
    pub children: Vec<Tree>,
    /// Boxes that met too many intervals, and the smallest position of them.
    pub deferred: Option<(Tree, u32)>,
}

pub(crate) struct Builder<'a> {
    pub(crate) boxes: &'a Boxes,
    pub(crate) shape: Shape,
}

/// Children that have so many boxes together are built by all cores.
const PARALLEL_BOXES: usize = 512;

/// Lists up to this long are searched for boxes hidden by a single earlier one.
const SHADOW_LIST_MAX: usize = 64;

impl Builder<'_> {
    /// `list`: boxes that meet `region`, by rising index. `pending`: deferred parts that may
    /// wait when a lookup comes here.
    pub(crate) fn tree(&self, mut list: Vec<u32>, region: &Bounds, depth: u32, pending: usize) -> Tree {
        self.prune(&mut list, region);
        if list.is_empty() {
            return Tree::Empty;
        }
        if list.len() <= self.shape.leaf_rules || depth + 1 >= DEPTH_MAX {
            return self.leaf(&list, region);
        }
        let may_defer = pending + 1 < PENDING_MAX;
        for cut in candidates(self.boxes, &list, region, &self.shape, may_defer) {
            if list.len() <= self.shape.fat_leaf_rules && cut.score >= fat_visits(list.len()) {
                break;
            }
            if let Some(parts) = self.partition(&list, region, &cut) {
                return self.node(parts, region, &cut, depth, pending);
            }
        }
        self.leaf(&list, region)
    }

    fn leaf(&self, list: &[u32], region: &Bounds) -> Tree {
        leaf::encode(self.boxes, list, region)
    }

    fn node(&self, parts: Parts, region: &Bounds, cut: &Cut, depth: u32, pending: usize) -> Tree {
        let waits = usize::from(!parts.deferred.is_empty());
        let child = |(slot, list): (usize, Vec<u32>)| {
            let mut inner = region.to_vec();
            inner[cut.axis] = interval_of(&parts.cuts, slot, cut.window, region[cut.axis]);
            self.tree(list, &inner, depth + 1, pending + waits)
        };
        let is_large = parts.children.iter().map(Vec::len).sum::<usize>() >= PARALLEL_BOXES;
        let children: Vec<Tree> = if is_large {
            parts.children.into_par_iter().enumerate().map(child).collect()
        } else {
            parts.children.into_iter().enumerate().map(child).collect()
        };
        let deferred = parts.deferred.first().copied().map(|first| {
            let smallest = self.boxes.position(first);
            (self.tree(parts.deferred, region, depth + 1, pending), smallest)
        });
        let window = cut.window.offset(&self.boxes.axes[cut.axis]);
        Tree::Node(Box::new(Node { window, cuts: parts.cuts, children, deferred }))
    }

    /// Drops boxes that no packet of the region can reach first.
    pub(crate) fn prune(&self, list: &mut Vec<u32>, region: &Bounds) {
        let boxes = self.boxes;
        // Behind the first box that covers the region and ends the search.
        if let Some(at) = list.iter().position(|&i| boxes.hides(i) && boxes.covers(i, region)) {
            let until = boxes.hides_until(list[at]);
            let position = boxes.position(list[at]);
            let mut index = 0;
            list.retain(|&i| {
                index += 1;
                let p = boxes.position(i);
                index <= at + 1 || p == position || p >= until
            });
        }
        if list.len() <= SHADOW_LIST_MAX {
            let mut kept = 0;
            for at in 0..list.len() {
                let i = list[at];
                let p = boxes.position(i);
                let is_hidden = list[..kept].iter().any(|&q| {
                    // A box of the same rule, or an earlier rule that ends the search here.
                    let ends = boxes.position(q) == p || (boxes.hides(q) && p < boxes.hides_until(q));
                    ends && boxes.covers_box(q, i, region)
                });
                if !is_hidden {
                    list[kept] = i;
                    kept += 1;
                }
            }
            list.truncate(kept);
        }
    }

    /// Hands the boxes out to intervals; `None` when that is no progress.
    pub(crate) fn partition(&self, list: &[u32], region: &Bounds, cut: &Cut) -> Option<Parts> {
        let mut lists = vec![Vec::new(); cut.cuts.fan()];
        let mut deferred = Vec::new();
        for &i in list {
            let (first, last) =
                span(self.boxes.interval(i, cut.axis), region[cut.axis], cut.window, &cut.cuts);
            if last - first + 1 > cut.span_max {
                deferred.push(i);
            } else {
                lists[first..=last].iter_mut().for_each(|l| l.push(i));
            }
        }
        // Neighbours never lead to the same place.
        let mut children: Vec<Vec<u32>> = Vec::with_capacity(lists.len());
        let mut cuts = Cuts::NONE;
        for (slot, list) in lists.into_iter().enumerate() {
            if children.last() == Some(&list) {
                continue;
            }
            if slot > 0 {
                cuts.push(cut.cuts.as_slice()[slot - 1]);
            }
            children.push(list);
        }
        let most = children.iter().map(Vec::len).max().unwrap_or(0).max(deferred.len());
        let stored: usize = children.iter().map(Vec::len).sum::<usize>() + deferred.len();
        let is_progress = children.len() > 1 && most < list.len();
        // The sample may have promised fewer copies than there are.
        let limit = (list.len() as f64 * self.shape.copies_max * 1.5) as usize;
        (is_progress && stored <= limit.max(list.len())).then_some(Parts { cuts, children, deferred })
    }
}

/// A list handed out.
pub(crate) struct Parts {
    pub(crate) cuts: Cuts,
    pub(crate) children: Vec<Vec<u32>>,
    pub(crate) deferred: Vec<u32>,
}

/// What a fat leaf of so many rules costs, in visits of a lean one: its columns are compared one by one, 16 rules at
/// a time, and no reference says how many lines it has.
pub(crate) fn fat_visits(count: usize) -> f64 {
    2.0 + count.saturating_sub(RULES_MAX) as f64 / 12.0
}

/// The values of interval `slot` within `range`.
pub(crate) fn interval_of(cuts: &Cuts, slot: usize, window: Window, range: (u32, u32)) -> (u32, u32) {
    let bounds = cuts.as_slice();
    let lo = if slot == 0 { range.0 } else { window.first_value(bounds[slot - 1] + 1) };
    let hi = bounds.get(slot).map_or(range.1, |&b| window.last_value(b));
    (lo.max(range.0), hi.min(range.1))
}
