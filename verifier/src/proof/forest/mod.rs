//! The forest of one entry as boxes: every region, what is stored there, and where a packet finds it.
//!
//! A walk goes down every root cell, node and deferred part and keeps the *region* of keys that come
//! there: bounds of nodes are cuts of an axis, columns of a leaf are cuts for one of its rules. What a
//! rule's lane in a leaf stores is a box.
//!
//! ```text
//!   cell 17 of tree 0       source 10.16.0.0 – 10.31.255.255
//!     node, window source ≫ 8, interval 3     …  source 10.17.0.0 – 10.17.63.255
//!       leaf, rule 2: column destination port 80–90      a box of position 4711
//! ```
//!
//! A window of 16 bits is an interval of its axis where the bits above it are the same in all of the
//! region. The compiler takes care of that; where it does not hold the walk keeps the larger region
//! (*loose*), which is safe when asking what is stored too much, and the search for what is stored
//! around one key the smaller one, which is safe when asking what is stored at all.
//!
//! Cells of a table that is indexed by other bits than the topmost ones are no intervals. For them the
//! index is an axis of its own, behind those of the key: a packet has one value there, and all are
//! looked at. Again that asks for more than there is, never less.

mod descent;
mod search;

use hipac_classifier::forest::fat::FatLeaf;
use hipac_classifier::forest::leaf::Leaf;
use hipac_classifier::forest::node::{NODE_BYTES, Node};
use hipac_classifier::forest::root::{self, Bits, Root, Scale, TREES_MAX, TreeRecord, fold};
use hipac_classifier::forest::{DEPTH_MAX, Kind, Ref, UNIT};

use super::boxes::{self, Bounds, Boxes};
use super::space::Space;
use descent::{Depth, Walk};
use search::Search;

/// Nodes and leaves that one key comes to, at most: a compiled forest has some hundreds at the very worst.
const VISITS_MAX: u64 = 1 << 13;

/// A cut: an axis, and what is left of it.
pub(super) type Cut = (usize, (u32, u32));

/// What a narrowing leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Nothing,
    /// An interval: all keys of the region that hold the values.
    Exact,
    /// The region is as it was: only some of its keys hold the values.
    Loose,
}

/// Where a window of the key lies.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// In one axis, so many bits up.
    On(usize, u32),
    /// Behind all axes, where keys are zero.
    Zero,
    /// Bytes of different axes, the lower one first.
    Across(Option<(usize, usize)>, Option<(usize, usize)>),
}

/// A half of a table's index.
#[derive(Debug, Clone, Copy)]
enum Half {
    /// No bits.
    None,
    /// The topmost bits of an axis: a cell is an interval.
    Top { axis: usize, shift: u32, bits: u32 },
    /// An axis of its own; of the bits of this axis, when they are one's.
    Apart { own: usize, of: Option<(usize, u32)>, mask: u32 },
}

/// One root of an entry.
pub(super) struct Forest<'a> {
    arena: &'a [u8],
    space: &'a Space,
    root: Ref,
    places: Vec<Place>,
    trees: Vec<(TreeRecord, [Half; 2])>,
    pub(super) scale: Option<Scale>,
    /// All keys that come here, and the axes of indices.
    pub(super) region: Vec<(u32, u32)>,
}

/// A leaf, with its continuations, as a walk meets it.
#[derive(Debug)]
pub(super) struct LeafSeen<'s> {
    /// Positions, in the order in which they are looked at.
    pub(super) positions: &'s [u32],
    /// What each stores, within the region.
    pub(super) boxes: &'s Boxes,
    /// Some stored box holds keys that do not come here, or not by this lane.
    pub(super) is_loose: bool,
    pub(super) at: Spot,
}

/// Where a walk is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spot {
    /// Tree of the root and cell of its table.
    pub(super) cell: Option<(usize, usize)>,
    /// The gate of that cell.
    pub(super) gate: u32,
    /// The largest position that a deferred part on the way says is its smallest.
    pub(super) smallest: u32,
    /// Byte offset of the leaf in the forest.
    pub(super) offset: usize,
}

/// Something that no compiler writes. It may mean nothing, but is not proved to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Damage(pub(super) String);

/// What a walk counted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    /// Leaves, and places without one.
    pub(super) regions: u64,
    /// Boxes in leaves.
    pub(super) stored: u64,
}

impl<'a> Forest<'a> {
    /// `region`: the keys that come to this root.
    pub(super) fn new(
        arena: &'a [u8],
        root: Ref,
        space: &'a Space,
        mut region: Vec<(u32, u32)>,
    ) -> Forest<'a> {
        let places = (0..=255).map(|window| place(space, window)).collect();
        let mut forest = Forest { arena, space, root, places, trees: vec![], scale: None, region: vec![] };
        if let Some(view) = root.is_root().then(|| Root::view(arena, root.offset())).flatten() {
            forest.scale = Some(view.scale());
            for tree in 0..view.tree_count().min(TREES_MAX) {
                let record = view.tree(tree);
                let halves = record.index.map(|bits| forest.half(bits, &mut region));
                forest.trees.push((record, halves));
            }
        }
        forest.region = region;
        forest
    }

    fn half(&self, bits: Bits, region: &mut Vec<(u32, u32)>) -> Half {
        let (mask, count) = (u32::from(bits.mask), bits.count());
        if mask == 0 {
            return Half::None;
        }
        let of = match self.places[usize::from(bits.window)] {
            Place::On(axis, shift) => Some((axis, shift + u32::from(bits.shift & 15))),
            _ => None,
        };
        if let Some((axis, shift)) = of {
            let top = |x: u32| u64::from(x) >> (shift + count);
            // Bits beyond the window are not there.
            let fits = u32::from(bits.shift & 15) + count <= 16 && mask == (1 << count) - 1;
            if fits && top(region[axis].0) == top(region[axis].1) {
                return Half::Top { axis, shift, bits: count };
            }
            if !fits {
                region.push((0, mask));
                return Half::Apart { own: region.len() - 1, of: None, mask };
            }
        }
        region.push((0, mask));
        Half::Apart { own: region.len() - 1, of, mask }
    }

    /// Shows every leaf to `visit`.
    pub(super) fn walk(&self, visit: &mut dyn FnMut(&LeafSeen<'_>)) -> (Seen, Option<Damage>) {
        let mut walk = Walk {
            forest: self,
            visit,
            seen: Seen::default(),
            damage: None,
            // Equal leaves are stored once: a walk may meet them more often, but not without end.
            visits_left: 64 + 64 * (self.arena.len() / UNIT) as u64,
            positions: vec![],
            boxes: Boxes::new(self.space.axes.len()),
        };
        let mut region = self.region[..self.space.axes.len()].to_vec();
        let spot = Spot { cell: None, gate: 0, smallest: 0, offset: 0 };
        if !self.root.is_root() {
            walk.tree(self.root, &mut region, spot, Depth::default(), false);
            return (walk.seen, walk.damage);
        }
        if self.trees.is_empty() {
            walk.damaged(|| format!("the root at {} has no trees", self.root.offset()));
        }
        for (t, (record, halves)) in self.trees.iter().enumerate() {
            if !record.is_sound() {
                walk.damaged(|| {
                    format!("tree {t} of the root at {} has bits that are no run", self.root.offset())
                });
            }
            let cells = record.cell_count().min(1 << 20);
            for index in 0..cells {
                let cell = root::cell_at(self.arena, record.cells, index);
                if cell.reference.is_empty() {
                    walk.seen.regions += 1;
                    continue;
                }
                let shift = halves_count(record);
                let values = [index as u32 >> shift, index as u32 & ((1 << shift) - 1)];
                let mut inner = region.clone();
                let mut is_empty = false;
                for (half, value) in halves.iter().zip(values) {
                    if let Half::Top { axis, shift, bits } = *half {
                        is_empty |= !top(&mut inner[axis], shift, bits, value);
                    }
                }
                if is_empty {
                    walk.seen.regions += 1;
                    continue; // no key comes here
                }
                let spot = Spot { cell: Some((t, index)), gate: cell.gate, ..spot };
                walk.tree(cell.reference, &mut inner, spot, Depth::default(), false);
            }
        }
        (walk.seen, walk.damage)
    }

    /// The filter bits that keys of a box have in a tree.
    pub(super) fn filter_bits(&self, tree: usize, bounds: &Bounds) -> u32 {
        let filter = self.trees[tree].0.filter;
        let [a, b] = filter.map(|bits| self.values(bits, bounds));
        let shift = filter[1].count();
        let mut out = 0;
        for x in bits_of(a) {
            for y in bits_of(b) {
                out |= 1 << fold(x << shift | y);
            }
        }
        out
    }

    /// The axes that a tree's filter looks at.
    pub(super) fn filter_axes(&self, tree: usize) -> impl Iterator<Item = usize> {
        self.trees[tree].0.filter.into_iter().filter(|bits| bits.mask != 0).filter_map(|bits| {
            match self.places[usize::from(bits.window)] {
                Place::On(axis, _) => Some(axis),
                _ => None,
            }
        })
    }

    /// The values below 32 that some bits of the key take within a box, a bit each.
    fn values(&self, bits: Bits, bounds: &Bounds) -> u32 {
        let mask = u32::from(bits.mask);
        let all = if mask >= 31 { u32::MAX } else { (1 << (mask + 1)) - 1 };
        if mask == 0 {
            return 1;
        }
        let shift = u32::from(bits.shift & 15);
        match self.places[usize::from(bits.window)] {
            Place::Zero => 1,
            Place::On(axis, low) if shift + bits.count() <= 16 => {
                let (lo, hi) = (bounds[axis].0 >> (low + shift), bounds[axis].1 >> (low + shift));
                if hi - lo >= mask { all } else { (lo..=hi).fold(0, |set, x| set | 1 << (x & mask & 31)) }
            }
            _ => all,
        }
    }

    /// Every key of a box has the same index in the tree, or an index by intervals.
    pub(super) fn is_in_one_cell(&self, tree: usize, bounds: &Bounds) -> bool {
        self.trees[tree].1.iter().all(|half| match *half {
            Half::None | Half::Top { .. } => true,
            Half::Apart { of: Some((axis, shift)), .. } => bounds[axis].0 >> shift == bounds[axis].1 >> shift,
            Half::Apart { of: None, .. } => false,
        })
    }

    /// Leaves of a piece only those values of the axes of indices that its keys can have; false when
    /// there are none.
    pub(super) fn tighten(&self, piece: &mut Bounds) -> bool {
        for (_, halves) in &self.trees {
            for half in halves {
                let Half::Apart { own, of: Some((axis, shift)), mask } = *half else { continue };
                let (lo, hi) = (piece[axis].0 >> shift, piece[axis].1 >> shift);
                // Values that wrap around stay as they are.
                if hi - lo < mask && lo & mask <= hi & mask {
                    piece[own] = (piece[own].0.max(lo & mask), piece[own].1.min(hi & mask));
                    if piece[own].0 > piece[own].1 {
                        return false;
                    }
                }
            }
        }
        true
    }

    /// Leaves of a piece what comes to one cell.
    pub(super) fn within_cell(&self, (tree, cell): (usize, usize), piece: &mut Bounds) {
        let (record, halves) = &self.trees[tree];
        let shift = halves_count(record);
        let values = [cell as u32 >> shift, cell as u32 & ((1 << shift) - 1)];
        for (half, value) in halves.iter().zip(values) {
            if let Half::Apart { own, .. } = *half {
                piece[own] = (piece[own].0.max(value), piece[own].1.min(value));
            }
        }
    }

    /// Makes the low corner of a piece a key with its own indices, where that takes some away or apart:
    /// what is split off goes to `rest`. `None` when nothing is left.
    pub(super) fn reconcile(&self, piece: &mut Bounds, rest: &mut Boxes) -> Option<bool> {
        let mut is_changed = false;
        for half in self.trees.iter().flat_map(|(_, halves)| halves) {
            let Half::Apart { own, of: Some((axis, shift)), mask } = *half else { continue };
            let index = piece[axis].0 >> shift & mask;
            if piece[own].0 == index {
                continue;
            }
            is_changed = true;
            if piece[own].0 < index && index <= piece[own].1 {
                boxes::cut(piece, own, (index, index), rest);
                continue;
            }
            let first = piece[own].0;
            boxes::cut(piece, own, (first, first), rest);
            let high = u64::from(piece[axis].0 >> shift);
            let mut wanted = high & !u64::from(mask) | u64::from(first);
            if wanted < high {
                wanted += u64::from(mask) + 1;
            }
            let lowest = wanted << shift;
            if lowest > piece[axis].1.into() {
                return None;
            }
            piece[axis].0 = lowest as u32;
        }
        Some(is_changed)
    }

    /// Moves the low corner of a piece to a key that has the indices which the piece says.
    pub(super) fn settle(&self, point: &mut [u32], piece: &Bounds) -> bool {
        self.trees.iter().flat_map(|(_, halves)| halves).all(|half| {
            let Half::Apart { own, of: Some((axis, shift)), mask } = *half else { return true };
            let lo = point[axis];
            let high = u64::from(lo >> shift);
            let mut wanted = high & !u64::from(mask) | u64::from(point[own]);
            if wanted < high {
                wanted += u64::from(mask) + 1;
            }
            let x = (wanted << shift).max(lo.into());
            point[axis] = x.min(u32::MAX.into()) as u32;
            x <= piece[axis].1.into()
        })
    }

    /// Finds where `wanted` is stored around a point: the cuts on the way there, in order.
    pub(super) fn find(&self, point: &[u32], wanted: u32, cuts: &mut Vec<Cut>) -> bool {
        // First where smallest positions say that it can be, then everywhere.
        [false, true].into_iter().any(|everywhere| {
            let mut search =
                Search { forest: self, point, wanted, everywhere, cuts, visits_left: VISITS_MAX };
            search.run()
        })
    }

    /// Shows every position that is stored at a point, in no order.
    pub(super) fn each_at(&self, point: &[u32], visit: &mut dyn FnMut(u32)) {
        self.each_cell(point, &mut |reference| {
            self.each_lane(reference, point, 0, &mut { VISITS_MAX }, visit)
        });
    }

    fn each_cell(&self, point: &[u32], visit: &mut dyn FnMut(Ref)) {
        if !self.root.is_root() {
            return visit(self.root);
        }
        for (record, halves) in &self.trees {
            let cell = self.cell(record, halves, point);
            visit(root::cell_at(self.arena, record.cells, cell).reference);
        }
    }

    /// The index of a point, whose indices are axes of their own where cells are no intervals.
    fn cell(&self, record: &TreeRecord, halves: &[Half; 2], point: &[u32]) -> usize {
        let [a, b] = halves.map(|half| match half {
            Half::None => 0,
            Half::Top { axis, shift, bits } => point[axis] >> shift & ((1 << bits) - 1),
            Half::Apart { own, .. } => point[own],
        });
        (a << halves_count(record) | b) as usize
    }

    fn each_lane(&self, here: Ref, point: &[u32], depth: u32, left: &mut u64, visit: &mut dyn FnMut(u32)) {
        if here.is_empty() || depth > DEPTH_MAX || *left == 0 {
            return;
        }
        *left -= 1;
        match here.kind() {
            Kind::Node => {
                let Some(node) = self.node(here) else { return };
                let value = self.value(point, node.window);
                let slot = node.bounds.partition_point(|&b| b < value);
                self.each_lane(node.child(slot), point, depth + 1, left, visit);
                if let Some((deferred, _)) = self.deferred(&node) {
                    self.each_lane(deferred, point, depth + 1, left, visit);
                }
            }
            Kind::Lean | Kind::Lean2 => {
                let Some(leaf) = Leaf::view(self.arena, here.offset()) else { return };
                for rule in 0..leaf.layout.rules {
                    let holds = (0..leaf.layout.columns()).all(|column| {
                        let (lo, hi) = leaf.range(column, rule);
                        let x = self.value(point, leaf.window(column));
                        lo <= x && x <= hi
                    });
                    if holds {
                        visit(leaf.position(rule));
                    }
                }
            }
            Kind::Fat => {
                let mut here = here;
                while here.kind() == Kind::Fat && !here.is_empty() && *left > 0 {
                    *left -= 1;
                    let Some(leaf) = FatLeaf::view(self.arena, here.offset()) else { return };
                    for rule in 0..leaf.layout.rules {
                        let holds = (0..leaf.layout.columns()).all(|column| {
                            let (lo, hi) = leaf.range(column, rule);
                            let x = self.wide_value(point, leaf.window(column), leaf.is_wide(column));
                            lo <= x && x <= hi
                        });
                        if holds {
                            visit(leaf.position(rule));
                        }
                    }
                    here = leaf.next();
                }
            }
        }
    }

    fn node(&self, here: Ref) -> Option<Node> {
        let bytes = self.arena.get(here.offset()..)?.first_chunk::<NODE_BYTES>()?;
        Some(Node::decode(bytes))
    }

    /// The deferred part of a node, and the smallest position that it is said to hold.
    fn deferred(&self, node: &Node) -> Option<(Ref, u32)> {
        if !node.has_deferred {
            return None;
        }
        let unit = (node.base as usize & Ref::UNITS_MAX).checked_sub(1)? * UNIT;
        let bytes = self.arena.get(unit..unit + UNIT)?;
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Some((Ref(word(0)), word(4)))
    }

    fn byte(&self, point: &[u32], offset: usize) -> u32 {
        self.space.key_byte(offset).map_or(0, |(axis, byte)| point[axis] >> (8 * byte) & 0xff)
    }

    fn value(&self, point: &[u32], window: u8) -> u16 {
        match self.places[usize::from(window)] {
            Place::On(axis, shift) => (point[axis] >> shift) as u16,
            Place::Zero => 0,
            Place::Across(..) => {
                let at = usize::from(window);
                (self.byte(point, at) | self.byte(point, at + 1) << 8) as u16
            }
        }
    }

    fn wide_value(&self, point: &[u32], window: u8, is_wide: bool) -> u32 {
        let low = u32::from(self.value(point, window));
        if is_wide { low | u32::from(self.value(point, window.wrapping_add(2))) << 16 } else { low }
    }

    /// Cuts a region to the keys whose window is within a range: around a point when there is one.
    fn narrow(
        &self,
        region: &mut Bounds,
        window: u8,
        (lo, hi): (u16, u16),
        around: Option<&[u32]>,
        cuts: &mut Vec<Cut>,
    ) -> Left {
        if lo > hi {
            return Left::Nothing;
        }
        match self.places[usize::from(window)] {
            Place::Zero => {
                if lo == 0 {
                    Left::Exact
                } else {
                    Left::Nothing
                }
            }
            Place::On(axis, shift) => {
                let mut r = region[axis];
                let high = |x: u32| u64::from(x) >> shift >> 16;
                if high(r.0) != high(r.1) {
                    match around {
                        _ if (lo, hi) == (0, u16::MAX) => return Left::Exact,
                        Some(point) => {
                            let above = (u64::from(point[axis]) >> shift >> 16 << 16) << shift;
                            let last = above | (0xffff << shift) | ((1 << shift) - 1);
                            r = (r.0.max(above as u32), r.1.min(last as u32));
                        }
                        None => return Left::Loose,
                    }
                }
                let above = (high(r.0) as u32) << 16;
                let low_ones = (1u32 << shift) - 1;
                let first = (above | u32::from(lo)) << shift;
                let last = (above | u32::from(hi)) << shift | low_ones;
                r = (r.0.max(first), r.1.min(last));
                if r.0 > r.1 {
                    return Left::Nothing;
                }
                if r != region[axis] {
                    region[axis] = r;
                    cuts.push((axis, r));
                }
                Left::Exact
            }
            Place::Across(a, b) => {
                if (lo, hi) == (0, u16::MAX) {
                    return Left::Exact;
                }
                let Some(point) = around else { return Left::Loose };
                if !(lo..=hi).contains(&self.value(point, window)) {
                    return Left::Nothing;
                }
                for (axis, _) in a.into_iter().chain(b) {
                    region[axis] = (point[axis], point[axis]);
                    cuts.push((axis, region[axis]));
                }
                Left::Exact
            }
        }
    }

    /// [`Forest::narrow`] to what a rule of a fat leaf wants of a column.
    fn narrow_wide(
        &self,
        region: &mut Bounds,
        window: u8,
        (lo, hi): (u32, u32),
        around: Option<&[u32]>,
        cuts: &mut Vec<Cut>,
    ) -> Left {
        if lo > hi {
            return Left::Nothing;
        }
        match self.places[usize::from(window)] {
            Place::On(axis, 0) if self.space.axes[axis].bytes == 4 => {
                let r = (region[axis].0.max(lo), region[axis].1.min(hi));
                if r.0 > r.1 {
                    return Left::Nothing;
                }
                if r != region[axis] {
                    region[axis] = r;
                    cuts.push((axis, r));
                }
                Left::Exact
            }
            _ => {
                let Some(point) = around else { return Left::Loose };
                if !(lo..=hi).contains(&self.wide_value(point, window, true)) {
                    return Left::Nothing;
                }
                for offset in 0..4 {
                    if let Some((axis, _)) = self.space.key_byte(usize::from(window) + offset) {
                        region[axis] = (point[axis], point[axis]);
                        cuts.push((axis, region[axis]));
                    }
                }
                Left::Exact
            }
        }
    }

    /// Cuts a region by the columns of a rule. Higher windows of an axis first: a lower one is an
    /// interval only below one value of the higher.
    fn lane(
        &self,
        region: &mut Bounds,
        columns: &Columns<'_>,
        rule: usize,
        around: Option<&[u32]>,
        cuts: &mut Vec<Cut>,
    ) -> Left {
        let mut left = Left::Exact;
        let mut again = 0u64;
        for round in 0..2 {
            for column in 0..columns.count() {
                if round == 1 && again >> column.min(63) & 1 == 0 {
                    continue;
                }
                match columns.narrow(self, region, column, rule, if round == 1 { around } else { None }, cuts)
                {
                    Left::Nothing => return Left::Nothing,
                    Left::Loose if round == 0 => again |= 1 << column.min(63),
                    Left::Loose => left = Left::Loose,
                    Left::Exact => {}
                }
            }
        }
        left
    }
}

/// The columns of either kind of leaf.
enum Columns<'l> {
    Lean(Leaf<'l>),
    Fat(FatLeaf<'l>),
}

impl Columns<'_> {
    fn count(&self) -> usize {
        match self {
            Columns::Lean(leaf) => leaf.layout.columns(),
            Columns::Fat(leaf) => leaf.layout.columns(),
        }
    }

    fn rules(&self) -> usize {
        match self {
            Columns::Lean(leaf) => leaf.layout.rules,
            Columns::Fat(leaf) => leaf.layout.rules,
        }
    }

    fn position(&self, rule: usize) -> u32 {
        match self {
            Columns::Lean(leaf) => leaf.position(rule),
            Columns::Fat(leaf) => leaf.position(rule),
        }
    }

    fn narrow(
        &self,
        forest: &Forest<'_>,
        region: &mut Bounds,
        column: usize,
        rule: usize,
        around: Option<&[u32]>,
        cuts: &mut Vec<Cut>,
    ) -> Left {
        match self {
            Columns::Lean(leaf) => {
                forest.narrow(region, leaf.window(column), leaf.range(column, rule), around, cuts)
            }
            Columns::Fat(leaf) if leaf.is_wide(column) => {
                forest.narrow_wide(region, leaf.window(column), leaf.range(column, rule), around, cuts)
            }
            Columns::Fat(leaf) => {
                let (lo, hi) = leaf.range(column, rule);
                forest.narrow(region, leaf.window(column), (lo as u16, hi as u16), around, cuts)
            }
        }
    }
}

fn halves_count(record: &TreeRecord) -> u32 {
    record.index[1].count()
}

/// Cuts an interval to the values whose top bits are `value`.
fn top(interval: &mut (u32, u32), shift: u32, bits: u32, value: u32) -> bool {
    let above = u64::from(interval.0) >> (shift + bits) << (shift + bits);
    let first = above | u64::from(value) << shift;
    let last = first | ((1 << shift) - 1);
    *interval = (interval.0.max(first as u32), interval.1.min(last.min(u32::MAX.into()) as u32));
    interval.0 <= interval.1 && first <= u32::MAX.into()
}

fn bits_of(set: u32) -> impl Iterator<Item = u32> {
    (0..32).filter(move |bit| set >> bit & 1 == 1)
}

fn place(space: &Space, window: usize) -> Place {
    match (space.key_byte(window), space.key_byte(window + 1)) {
        (None, None) => Place::Zero,
        (Some((a, low)), Some((b, _))) if a == b => Place::On(a, 8 * low as u32),
        (a, b) => Place::Across(a, b),
    }
}
