//! Roots: the trees of an entry, laid out in cells, each of which becomes a subtree.
//!
//! A [`Sketch`] knows which boxes every cell has. From it a forest is built, each *region* (a
//! cell, or the whole of an entry without a root) in the shape that the budget allows it.

use std::ops::Range;

use hipac_classifier::Key;
use hipac_classifier::forest::root::{Bits, FILTER_ALL, Scale, TreeRecord};
use rayon::prelude::*;

use super::boxes::Boxes;
use super::build::{Builder, Shape, Tree, memory_price};
use super::filter::Filter;
use super::index::{Index, each_cell, split};

/// What an entry's boxes become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forest {
    /// One tree.
    Tree(Tree),
    /// A root of several trees.
    Root(RootPlan),
}

/// A root before it has an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootPlan {
    pub(crate) scale: Scale,
    pub(crate) trees: Vec<RootTree>,
}

/// A tree of a root before it has an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RootTree {
    /// Its record but for the place of the cells.
    pub(crate) record: TreeRecord,
    /// What each cell leads to, and its gate.
    pub(crate) cells: Vec<(Tree, u32)>,
}

/// Fewer boxes than this have no root.
const ROOT_BOXES_MIN: usize = 48;

/// Cells of a table that are more than half of the boxes only up to here: 512 KiB.
const CELLS_MANY: usize = 1 << 16;

/// The trees of an entry with the boxes of each cell.
#[derive(Debug)]
pub struct Sketch<'a> {
    boxes: &'a Boxes,
    /// What memory is worth: see [`memory_price`].
    price: f64,
    scale: Scale,
    /// None: one tree without a root, its boxes all of them.
    trees: Vec<TreeSketch>,
}

#[derive(Debug)]
struct TreeSketch {
    index: Index,
    record: TreeRecord,
    filter: Filter,
    /// Where the boxes of each cell begin in `sorted`, and the end of the last.
    starts: Vec<u32>,
    sorted: Vec<u32>,
}

/// A region of an entry in one shape: what it would take and cost. Small: there is one for each
/// cell and shape.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Measure {
    /// Bytes of its nodes and leaves, which are below 4 GiB.
    pub bytes: u32,
    /// Nodes and leaves that a lookup is expected to visit in it.
    pub visits: f32,
}

impl<'a> Sketch<'a> {
    /// The trees of an entry whose positions are `first` and the `count` − 1 behind it, in an image
    /// of so many boxes. Same boxes, same sketch, whatever the number of threads.
    pub fn new(
        boxes: &'a Boxes,
        cells_per_box: f64,
        (first, count): (u32, u32),
        image_boxes: usize,
    ) -> Sketch<'a> {
        let cells_max = (boxes.len() as f64 * cells_per_box) as usize;
        // A large forest is not to be mostly cells.
        let cells_max = cells_max.min(CELLS_MANY.max(boxes.len() / 2));
        let mut sketch =
            Sketch { boxes, price: memory_price(image_boxes), scale: Scale::of(first, count), trees: vec![] };
        // Rules that test nothing leave nothing to index by.
        if boxes.len() >= ROOT_BOXES_MIN && cells_max >= 2 && !boxes.axes.is_empty() {
            let all = (0..boxes.len() as u32).collect();
            let trees = split(boxes, all, cells_max, sketch.price);
            sketch.trees =
                trees.into_par_iter().map(|(list, index)| TreeSketch::new(boxes, &list, index)).collect();
        }
        sketch
    }

    /// It has tables, and not one tree alone.
    pub fn has_root(&self) -> bool {
        !self.trees.is_empty()
    }

    /// How many regions it has.
    pub fn region_count(&self) -> usize {
        if self.trees.is_empty() { 1 } else { self.trees.iter().map(TreeSketch::cell_count).sum() }
    }

    /// Bytes that its root and tables take.
    pub fn table_bytes(&self) -> usize {
        if self.trees.is_empty() { 0 } else { 192 + 8 * self.region_count() }
    }

    /// The boxes of a region: how many lookups are expected to come there, relative to others.
    pub fn box_count(&self, region: u32) -> usize {
        if self.trees.is_empty() {
            return self.boxes.len();
        }
        let (tree, cell) = self.place(region);
        self.trees[tree].list(cell).len()
    }

    /// The tree of a region, and its cell there.
    fn place(&self, region: u32) -> (usize, usize) {
        let mut cell = region as usize;
        for (t, tree) in self.trees.iter().enumerate() {
            if cell < tree.cell_count() {
                return (t, cell);
            }
            cell -= tree.cell_count();
        }
        unreachable!("regions are the cells of all trees")
    }

    /// Some regions in one shape.
    pub fn measure(&self, shape: &Shape, regions: &[u32]) -> Vec<Measure> {
        let builder = Builder { boxes: self.boxes, shape: shape.at_price(self.price) };
        let measure = |tree: &Tree| Measure {
            bytes: u32::try_from(tree.bytes()).unwrap_or(u32::MAX),
            visits: tree.visits() as f32,
        };
        if self.trees.is_empty() {
            return regions.iter().map(|_| measure(&self.whole(shape))).collect();
        }
        let of_region = |&region: &u32| {
            let (tree, cell) = self.place(region);
            measure(&self.trees[tree].cell(&builder, cell, self.scale).0)
        };
        regions.par_iter().with_min_len(64).map(of_region).collect()
    }

    /// How positions are scaled for the gates.
    pub(super) fn scale(&self) -> Scale {
        self.scale
    }

    /// The records of its trees but for the places of their cells.
    pub(super) fn records(&self) -> impl Iterator<Item = TreeRecord> {
        self.trees.iter().map(|tree| tree.record)
    }

    /// What some cells of a tree lead to, and their gates; the cell counts from 0 in its tree.
    pub(super) fn cells<'s>(
        &self,
        tree: usize,
        cells: Range<usize>,
        shape_of: impl Fn(usize) -> &'s Shape + Sync,
    ) -> Vec<(Tree, u32)> {
        let cells = cells.into_par_iter().with_min_len(64).map(|cell| {
            let builder = Builder { boxes: self.boxes, shape: shape_of(cell).at_price(self.price) };
            self.trees[tree].cell(&builder, cell, self.scale)
        });
        cells.collect()
    }

    /// The tree of all boxes.
    pub(super) fn whole(&self, shape: &Shape) -> Tree {
        let builder = Builder { boxes: self.boxes, shape: shape.at_price(self.price) };
        builder.tree((0..self.boxes.len() as u32).collect(), &full_region(self.boxes), 0, 0)
    }
}

fn full_region(boxes: &Boxes) -> Vec<(u32, u32)> {
    boxes.axes.iter().map(|a| (0, a.max)).collect()
}

impl TreeSketch {
    /// Hands the boxes of a tree out to its cells.
    fn new(boxes: &Boxes, list: &[u32], index: Index) -> TreeSketch {
        let cells = 1usize << (index[0].count + index[1].count);
        // A counting sort.
        let mut starts = vec![0u32; cells + 1];
        for &i in list {
            each_cell(boxes, i, &index, |cell| starts[cell + 1] += 1);
        }
        for cell in 0..cells {
            starts[cell + 1] += starts[cell];
        }
        let mut places = starts.clone();
        let mut sorted = vec![0u32; starts[cells] as usize];
        for &i in list {
            each_cell(boxes, i, &index, |cell| {
                sorted[places[cell] as usize] = i;
                places[cell] += 1;
            });
        }
        let index_bits = index.map(|h| h.bits(&boxes.axes));
        let mut record = TreeRecord { cells: 0, index: index_bits, filter: [Bits::default(); 2] };
        let list_of = |key: &Key| {
            let cell = record.cell(key);
            &sorted[starts[cell] as usize..starts[cell + 1] as usize]
        };
        let filter = Filter::choose(boxes, list, list_of);
        record.filter = filter.bits();
        TreeSketch { index, record, filter, starts, sorted }
    }

    fn cell_count(&self) -> usize {
        self.starts.len() - 1
    }

    /// The boxes of a cell.
    fn list(&self, cell: usize) -> &[u32] {
        &self.sorted[self.starts[cell] as usize..self.starts[cell + 1] as usize]
    }

    fn region(&self, boxes: &Boxes, cell: usize) -> Vec<(u32, u32)> {
        let mut region = full_region(boxes);
        let values = [cell as u32 >> self.index[1].count, cell as u32 & ((1 << self.index[1].count) - 1)];
        for (half, value) in self.index.iter().zip(values) {
            if half.count > 0 {
                half.narrow(&boxes.axes, value, &mut region[half.axis]);
            }
        }
        region
    }

    /// What a cell leads to, and its gate.
    fn cell(&self, builder: &Builder<'_>, cell: usize, scale: Scale) -> (Tree, u32) {
        let mut list = self.list(cell).to_vec();
        if list.is_empty() {
            return (Tree::Empty, 0);
        }
        let boxes = builder.boxes;
        let region = self.region(boxes, cell);
        builder.prune(&mut list, &region);
        let smallest = boxes.position(list[0]);
        let passes = list.iter().fold(0, |bits, &i| bits | self.filter.bits_of_box(boxes, i));
        let gate = scale.scaled(smallest) << 24 | passes & FILTER_ALL;
        (builder.tree(list, &region, 0, 0), gate)
    }
}
