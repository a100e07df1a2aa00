//! One live list of flat rules: a root of trees, each with the mirrors of its cells.
//!
//! Which trees there are, what chooses their cells and what their gates look at is decided once, as
//! for an image. The last tree has one cell: whatever would come to many cells of the others goes
//! there, so that no change touches more than a few of them.

use hipac_classifier::forest::root::{
    CELL_BYTES, Cell, FILTER_ALL, HEADER_BYTES, Root, Scale, TREE_BYTES, TREES_MAX, TreeRecord,
};
use hipac_classifier::forest::{Ref, UNIT};

use smallvec::SmallVec;

use super::ground::{Ground, Slot};
use super::space::{Align, Block, Full};
use super::store::{BoxId, Store};
use super::tree::{Deed, Hand, Sub};
use crate::forest::build::memory_price;
use crate::forest::filter::Filter;
use crate::forest::index::{Half, Index, cells_of, each_cell, split};
use crate::forest::{Boxes, Shape};

/// Lists with fewer boxes have no tables.
const ROOT_BOXES_MIN: usize = 48;

/// Cells that a box may come to; with more it goes to the last tree.
const CELLS_MAX: usize = 16;

/// Cells of a table that are more than half of the boxes only up to here.
const CELLS_MANY: usize = 1 << 16;

/// Gates of cells with more boxes are not made exact again whenever one is taken out.
const EXACT_MAX: u32 = 32;

/// See the module.
#[derive(Debug)]
pub(super) struct List {
    /// Where readers begin.
    slot: Slot,
    scale: Scale,
    shape: Shape,
    trees: Vec<Tree>,
    /// The tree that took most of the boxes that fit several.
    preferred: usize,
}

/// A tree: a table of cells, or the whole of a small list.
#[derive(Debug)]
struct Tree {
    index: Index,
    /// The widest interval that one of its boxes had on each axis, less one, when it was built.
    widths: SmallVec<[u32; 8]>,
    /// `None`: the list's slot leads to the tree itself.
    table: Option<Table>,
    cells: Vec<Sub>,
}

#[derive(Debug)]
struct Table {
    /// Byte offset of the cells.
    at: u32,
    record: TreeRecord,
    filter: Filter,
}

/// What changes to a list work with.
pub(super) struct Tools<'a> {
    pub(super) ground: &'a mut Ground,
    pub(super) store: &'a mut Store,
    /// Room for the boxes of a leaf.
    pub(super) boxes: &'a mut Boxes,
    /// Room for the box that is changed.
    pub(super) single: &'a mut Boxes,
}

impl Tools<'_> {
    fn hand(&mut self, shape: Shape) -> Hand<'_> {
        Hand { ground: self.ground, store: self.store, shape, boxes: self.boxes }
    }
}

impl List {
    /// A list of these boxes, which are in order. What leads to it is set, too.
    pub(super) fn build(
        slot: Slot,
        ids: &[BoxId],
        shape: &Shape,
        cells_per_box: f64,
        tools: &mut Tools<'_>,
    ) -> Result<List, Full> {
        // Labels take all numbers: a gate sees their upper eight bits.
        let scale = Scale { first: 0, shift: 24 };
        let shape = shape.at_price(memory_price(ids.len()));
        let mut list = List { slot, scale, shape, trees: vec![], preferred: 0 };
        let mut all = Boxes::new(tools.store.axes().to_vec());
        tools.store.unpack(ids, &mut all);
        let cells_max = ((ids.len() as f64 * cells_per_box) as usize).min(CELLS_MANY.max(ids.len() / 2));
        if ids.len() < ROOT_BOXES_MIN || cells_max < 2 || all.axes.is_empty() {
            let mut region = full(&all);
            let (sub, at) = tools.hand(shape).grow_alone(ids, &mut region)?;
            ids.iter().for_each(|&id| tools.store.set_tree(id, 0));
            list.trees.push(Tree {
                index: [Half::NONE; 2],
                widths: SmallVec::new(),
                table: None,
                cells: vec![sub],
            });
            tools.ground.set(slot, Cell { reference: at, gate: 0 })?;
            return Ok(list);
        }
        let lists = list.hand_out(&all, cells_max);
        list.preferred = preferred(&all, &lists);
        let mut records = Vec::new();
        for (number, (index, members)) in lists.into_iter().enumerate() {
            let (tree, record) = list.tree(&all, ids, index, &members, number, tools)?;
            list.trees.push(tree);
            records.push(record);
        }
        let mut root = Root::encode_header(records.len(), list.scale.first, list.scale.shift).to_vec();
        records.iter().for_each(|r| root.extend(r.encode()));
        debug_assert_eq!(root.len(), HEADER_BYTES + TREE_BYTES * records.len());
        // Never given back while the generation lives: readers know a root by its place.
        let block = tools.ground.write(&root, Align::Line)?;
        tools.ground.set(slot, Cell { reference: Ref::root(block.offset()), gate: 0 })?;
        Ok(list)
    }

    /// Which boxes go to which tree, with its index: the last one has a single cell.
    fn hand_out(&self, all: &Boxes, cells_max: usize) -> Vec<(Index, Vec<u32>)> {
        let everyone = (0..all.len() as u32).collect();
        let mut trees: Vec<(Index, Vec<u32>)> = split(all, everyone, cells_max, memory_price(all.len()))
            .into_iter()
            .map(|(l, i)| (i, l))
            .collect();
        trees.truncate(TREES_MAX - 1);
        if trees.last().is_none_or(|(index, _)| *index != [Half::NONE; 2]) {
            trees.push(([Half::NONE; 2], Vec::new()));
        }
        let last = trees.len() - 1;
        let mut wide = Vec::new();
        for (index, members) in &mut trees[..last] {
            members.retain(|&i| {
                let fits = cells_of(all, i, index) <= CELLS_MAX;
                if !fits {
                    wide.push(i);
                }
                fits
            });
        }
        // A tree that lost its boxes would cost every lookup a cell.
        let mut kept: Vec<(Index, Vec<u32>)> = Vec::new();
        for (i, tree) in trees.into_iter().enumerate() {
            if i == last || !tree.1.is_empty() {
                kept.push(tree);
            }
        }
        if let Some((_, members)) = kept.last_mut() {
            members.extend(wide);
            members.sort_unstable();
        }
        kept
    }

    fn tree(
        &self,
        all: &Boxes,
        ids: &[BoxId],
        index: Index,
        members: &[u32],
        number: usize,
        tools: &mut Tools<'_>,
    ) -> Result<(Tree, TreeRecord), Full> {
        let cells = 1usize << (index[0].count + index[1].count);
        let mut lists: Vec<Vec<BoxId>> = vec![Vec::new(); cells];
        let mut indices: Vec<Vec<u32>> = vec![Vec::new(); cells];
        for &i in members {
            tools.store.set_tree(ids[i as usize], number);
            each_cell(all, i, &index, |cell| {
                lists[cell].push(ids[i as usize]);
                indices[cell].push(i);
            });
        }
        let mut record =
            TreeRecord { cells: 0, index: index.map(|h| h.bits(&all.axes)), ..TreeRecord::default() };
        let filter = Filter::choose(all, members, |key| &indices[record.cell(key)]);
        drop(indices);
        record.filter = filter.bits();
        let table = tools.ground.write(&vec![0; CELL_BYTES * cells], Align::Line)?;
        record.cells = (table.offset() / UNIT) as u32;
        let at = table.offset() as u32;
        let widths = widths(all, members);
        let mut tree = Tree {
            index,
            widths,
            table: Some(Table { at, record, filter }),
            cells: Vec::with_capacity(cells),
        };
        for (cell, list) in lists.iter().enumerate() {
            let mut region = tree.region(tools.store, cell);
            let (sub, reference) = tools.hand(self.shape).grow_alone(list, &mut region)?;
            tree.cells.push(sub);
            let gate = tree.gate(cell, self.scale, tools);
            let word = if reference.is_empty() { Cell::EMPTY } else { Cell { reference, gate } };
            tools.ground.set(tree.slot(cell, self.slot), word)?;
        }
        Ok((tree, record))
    }

    /// Puts a box in.
    pub(super) fn insert(&mut self, id: BoxId, tools: &mut Tools<'_>) -> Result<(), Full> {
        tools.single.clear();
        tools.store.unpack(&[id], tools.single);
        let last = self.trees.len() - 1;
        // As boxes were handed out when it was built: to the tree of those that are no wider, to the
        // preferred one of several.
        let fits = |t: &usize| {
            let tree = &self.trees[*t];
            tree.takes(tools.single, 0) && cells_of(tools.single, 0, &tree.index) <= CELLS_MAX
        };
        let tree = (0..last).filter(fits).min_by_key(|t| *t != self.preferred).unwrap_or(last);
        tools.store.set_tree(id, tree);
        self.each_cell(id, Deed::Insert, tools)
    }

    /// Takes a box out.
    pub(super) fn remove(&mut self, id: BoxId, tools: &mut Tools<'_>) -> Result<(), Full> {
        self.deed(id, Deed::Remove, tools)
    }

    /// A box's label is another one, in the same order.
    pub(super) fn relabel(&mut self, id: BoxId, tools: &mut Tools<'_>) -> Result<(), Full> {
        self.deed(id, Deed::Relabel, tools)
    }

    fn deed(&mut self, id: BoxId, deed: Deed, tools: &mut Tools<'_>) -> Result<(), Full> {
        tools.single.clear();
        tools.store.unpack(&[id], tools.single);
        self.each_cell(id, deed, tools)
    }

    /// Does something in each cell of a box, which lies in `tools.single`.
    fn each_cell(&mut self, id: BoxId, deed: Deed, tools: &mut Tools<'_>) -> Result<(), Full> {
        let number = tools.store.tree(id);
        let tree = &mut self.trees[number];
        let mut cells: SmallVec<[usize; CELLS_MAX]> = SmallVec::new();
        match tree.table {
            None => cells.push(0),
            Some(_) => each_cell(tools.single, 0, &tree.index, |cell| {
                tools.ground.prefetch_slot(tree.slot(cell, self.slot));
                cells.push(cell);
            }),
        }
        for cell in cells {
            let slot = tree.slot(cell, self.slot);
            let now = tools.ground.get(slot);
            tools.ground.prefetch(now);
            let mut region = tree.region(tools.store, cell);
            let mut sub = std::mem::take(&mut tree.cells[cell]);
            let mut hand = Hand {
                ground: &mut *tools.ground,
                store: &*tools.store,
                shape: self.shape,
                boxes: &mut *tools.boxes,
            };
            let changed = hand.change(&mut sub, now.reference, (id, tools.single), deed, &mut region);
            tree.cells[cell] = sub;
            let Some(reference) = changed? else { continue };
            let gate = match &tree.table {
                None => 0,
                Some(_) if reference.is_empty() => Cell::EMPTY.gate,
                Some(_) if deed == Deed::Remove && tree.cells[cell].count() <= EXACT_MAX => {
                    tree.gate(cell, self.scale, tools)
                }
                // Of many boxes only who is the first now, when the first may have gone.
                Some(_)
                    if deed == Deed::Remove && self.scale.scaled(tools.store.label(id)) <= now.gate >> 24 =>
                {
                    let mut smallest = u32::MAX;
                    tree.cells[cell].each(&mut |id| smallest = smallest.min(tools.store.label(id)));
                    self.scale.scaled(smallest) << 24 | now.gate & FILTER_ALL
                }
                Some(_) if deed == Deed::Remove => now.gate,
                Some(table) => {
                    let bits = table.filter.bits_of_box(tools.single, 0);
                    let smallest = self.scale.scaled(tools.store.label(id)).min(now.gate >> 24);
                    smallest << 24 | (now.gate | bits) & FILTER_ALL
                }
            };
            tools.ground.set(slot, Cell { reference, gate })?;
        }
        Ok(())
    }

    /// Where its only tree begins.
    pub(super) fn start(&self, ground: &Ground) -> Ref {
        ground.get(self.slot).reference
    }

    /// The records and cells of its trees; `None`: it has no tables.
    pub(super) fn tables(&self, ground: &Ground) -> Option<Vec<(TreeRecord, Vec<Cell>)>> {
        let tree = |tree: &Tree| {
            let table = tree.table.as_ref()?;
            let cells = (0..tree.cells.len()).map(|cell| ground.get(tree.slot(cell, self.slot)));
            Some((table.record, cells.collect()))
        };
        self.trees.iter().map(tree).collect()
    }

    /// The end of a list without boxes. Who comes for it finds `nothing`.
    pub(super) fn dismiss(self, nothing: Ref, tools: &mut Tools<'_>) -> Result<(), Full> {
        tools.ground.set(self.slot, Cell { reference: nothing, gate: 0 })?;
        for tree in self.trees {
            if let Some(table) = tree.table {
                let bytes = CELL_BYTES * tree.cells.len();
                tools.ground.drop_block(Block::of(table.at as usize, bytes, Align::Line));
            }
        }
        Ok(())
    }

    /// Bytes of the mirrors.
    pub(super) fn bytes(&self) -> usize {
        let cells = self.trees.iter().flat_map(|t| &t.cells);
        cells.map(|sub| size_of::<Sub>() + sub.bytes()).sum()
    }
}

impl Tree {
    /// A box is nowhere wider than those that it was made for.
    fn takes(&self, boxes: &Boxes, i: u32) -> bool {
        self.widths.iter().zip(boxes.bounds(i)).all(|(width, (lo, hi))| hi - lo <= *width)
    }

    /// Where a cell of it changes.
    fn slot(&self, cell: usize, root: Slot) -> Slot {
        match &self.table {
            None => root,
            Some(table) => Slot::Cell(table.at + (CELL_BYTES * cell) as u32),
        }
    }

    /// What comes to a cell.
    fn region(&self, store: &Store, cell: usize) -> SmallVec<[(u32, u32); 8]> {
        let mut region: SmallVec<[(u32, u32); 8]> = store.axes().iter().map(|a| (0, a.max)).collect();
        let low = (1 << self.index[1].count) - 1;
        let values = [cell as u32 >> self.index[1].count, cell as u32 & low];
        for (half, value) in self.index.iter().zip(values) {
            if half.count > 0 {
                half.narrow(store.axes(), value, &mut region[half.axis]);
            }
        }
        region
    }

    /// The exact gate of a cell, of all its boxes.
    fn gate(&self, cell: usize, scale: Scale, tools: &mut Tools<'_>) -> u32 {
        let Some(table) = &self.table else { return 0 };
        let (mut smallest, mut bits) = (255, 0);
        let mut ids: SmallVec<[BoxId; EXACT_MAX as usize]> = SmallVec::new();
        self.cells[cell].each(&mut |id| ids.push(id));
        for id in ids {
            tools.boxes.clear();
            tools.store.unpack(&[id], tools.boxes);
            smallest = smallest.min(scale.scaled(tools.store.label(id)));
            bits |= table.filter.bits_of_box(tools.boxes, 0);
        }
        smallest << 24 | bits & FILTER_ALL
    }
}

/// The widest interval of these boxes on each axis, less one.
fn widths(all: &Boxes, members: &[u32]) -> SmallVec<[u32; 8]> {
    let widest =
        |axis: usize| members.iter().map(move |&i| all.interval(i, axis)).map(|(lo, hi)| hi - lo).max();
    (0..all.axes.len()).map(|axis| widest(axis).unwrap_or(0)).collect()
}

/// The tree that has most of the boxes that another narrow one would have taken as well.
fn preferred(all: &Boxes, lists: &[(Index, Vec<u32>)]) -> usize {
    // The last one has a single cell, and the one before may be for boxes that are wide everywhere.
    let widths: Vec<SmallVec<[u32; 8]>> = lists.iter().map(|(_, members)| widths(all, members)).collect();
    let is_narrow = |t: usize| widths[t].iter().zip(&all.axes).any(|(w, axis)| *w < axis.max / 2);
    let fits = |t: usize, i: u32| widths[t].iter().zip(all.bounds(i)).all(|(w, (lo, hi))| hi - lo <= *w);
    let votes = |t: usize| {
        let others = || (0..lists.len() - 1).filter(|&o| o != t && is_narrow(o));
        lists[t].1.iter().filter(|&&i| others().any(|o| fits(o, i))).count()
    };
    let narrow = (0..lists.len() - 1).filter(|&t| is_narrow(t));
    narrow.max_by_key(|&t| (votes(t), std::cmp::Reverse(t))).unwrap_or(0)
}

fn full(boxes: &Boxes) -> Vec<(u32, u32)> {
    boxes.axes.iter().map(|a| (0, a.max)).collect()
}
