//! Following steps over a forest: every stored box holds what its rule says, every rule is stored
//! wherever it holds, or what is not so is hidden.

use hipac_classifier::Dim;
use hipac_classifier::forest::root::Root;
use hipac_classifier::forest::{Kind, Ref, UNIT};

use super::check::{Asked, Checker, Guide, List, Must, Question};
use super::meaning::Region;
use super::place::Spot;
use super::{Refused, Step, wrong};

/// Regions that wait, at most.
const WAITING_MAX: usize = 1 << 22;

impl<B: AsRef<[u8]>, G: Guide> Checker<'_, B, G> {
    /// One root of a list: what is stored holds, and what holds is stored.
    pub(super) fn forest(&mut self, list: &List, root: Ref, states: (u32, u32)) -> Result<(), Refused> {
        let mut everything: Region = self.on.space.axes.iter().map(|axis| axis.range).collect();
        if let Some(axis) = self.on.space.axis(Dim::L4) {
            // Which root is asked hangs on the state itself.
            if self.on.space.axes[axis].is_recoded() {
                return wrong("states of the transport header are recoded");
            }
            everything[axis] = states;
        }
        let spot = Spot { at: root, tree: None, gate: u32::MAX >> 8, smallest: 0, waiting: 0, depth: 0 };
        let mut waiting = vec![(everything.clone(), spot)];
        if root.is_root() {
            waiting.clear();
            let Some(view) = Root::view(self.on.arena, root.offset()) else {
                return wrong("a root is not there");
            };
            if view.scale().first > list.record.first {
                return wrong("a root counts from behind its first position");
            }
            for tree in (0..view.tree_count()).map(|t| view.tree(t)) {
                self.on.cells(&everything, spot, tree, &mut waiting)?;
            }
        }
        let mut visits = 64 + 64 * (self.on.arena.len() / UNIT) as u64;
        while let Some((region, spot)) = waiting.pop() {
            visits = visits.saturating_sub(1);
            if visits == 0 || waiting.len() > WAITING_MAX {
                return wrong("the forest leads to the same places over and over");
            }
            if spot.at.is_empty() {
                continue;
            }
            if spot.at.kind() == Kind::Node {
                let Some(node) = self.on.node(spot) else { return wrong("a node makes no sense") };
                self.on.children(&node, &region, spot, &mut waiting);
                waiting.extend(self.on.part(&node, spot).map(|spot| (region, spot)));
            } else {
                self.leaf(list, root, &region, spot)?;
            }
        }
        for (position, flat) in (list.record.first..).zip(&list.flats) {
            let (clauses, checked, region, must) =
                (&*flat.clauses, &*flat.checked, &everything, Must::BeStored);
            self.derive(Question { list, root, position, clauses, checked, region, spot, must })?;
        }
        for (position, clauses) in &list.absent {
            let checked = &*vec![false; clauses.len()];
            let (&position, region, must) = (position, &everything, Must::BeHidden);
            self.derive(Question { list, root, position, clauses, checked, region, spot, must })?;
        }
        Ok(())
    }

    /// All lanes of a leaf, in order.
    fn leaf(&mut self, list: &List, root: Ref, region: &Region, spot: Spot) -> Result<(), Refused> {
        let mut last = 0;
        for lane in 0.. {
            let Some((leaf, rule)) = self.on.lane(spot.at, lane) else { return Ok(()) };
            let position = leaf.position(rule);
            let Some(flat) = list.flat(position).filter(|_| last <= position) else {
                return wrong(format!("the leaf at {} is not in order", spot.at.offset()));
            };
            last = position;
            let mut held = region.clone();
            // Twice: what a window says of an axis may hang on one that is looked at later.
            let space = &self.on.space;
            let narrow =
                |(at, bytes, range): (usize, usize, (u32, u32))| space.narrow(&mut held, at, bytes, range);
            if !(0..leaf.columns()).chain(0..leaf.columns()).map(|c| leaf.column(c, rule)).all(narrow) {
                continue;
            }
            self.checked.stored += 1;
            let mut clauses = flat.clauses.iter().zip(&flat.checked);
            if !clauses.all(|(clause, &checked)| checked || space.is_inside(clause, &held)) {
                let (clauses, checked, region, must) = (&*flat.clauses, &*flat.checked, &held, Must::Hold);
                self.derive(Question { list, root, position, clauses, checked, region, spot, must })?;
            }
        }
        Ok(())
    }

    /// Follows steps until nothing is left of a region.
    fn derive(&mut self, first: Question<'_>) -> Result<(), Refused> {
        let Question { list, root, position, clauses, checked, must, .. } = first;
        let mut waiting = vec![(first.region.clone(), first.spot)];
        while let Some((mut region, spot)) = waiting.pop() {
            let question = Question { region: &region, spot, ..first };
            let step = self.step(&Asked::Region(question))?;
            let (space, seeks) = (&self.on.space, must == Must::BeStored);
            let fails = |clause: u32, region: &Region| {
                must != Must::Hold
                    && clauses.get(clause as usize).is_some_and(|c| space.fails(c, clauses, region))
            };
            let is_true = match step {
                Step::Keep { axis, lo, hi, clause } if (axis as usize) < region.len() => {
                    let axis = axis as usize;
                    let (first, last) = region[axis];
                    let mut cut = |from: u32, to: u32| {
                        region[axis] = (from, to);
                        fails(clause, &region)
                    };
                    let is_so = first <= lo
                        && lo <= hi
                        && hi <= last
                        && (first == lo || cut(first, lo - 1))
                        && (hi == last || cut(hi + 1, last));
                    region[axis] = (lo, hi);
                    waiting.push((region, spot));
                    is_so
                }
                Step::Split { axis, at } if (axis as usize) < region.len() => {
                    let (first, last) = region[axis as usize];
                    let is_so = first <= at && at < last;
                    region[axis as usize] = (at.saturating_add(1), last);
                    waiting.push((region.clone(), spot));
                    region[axis as usize] = (first, at);
                    waiting.push((region, spot));
                    is_so
                }
                Step::Outside { clause } => fails(clause, &region),
                Step::Hidden { position: by } => {
                    let hides = by < position && position < list.until(by);
                    hides
                        && list
                            .flat(by)
                            .is_some_and(|flat| flat.clauses.iter().all(|c| space.is_inside(c, &region)))
                }
                Step::Inside => {
                    let mut clauses = clauses.iter().zip(checked);
                    must == Must::Hold && clauses.all(|(c, &checked)| checked || space.is_inside(c, &region))
                }
                Step::Shut => {
                    must == Must::Hold
                        && spot.tree.is_some_and(|t| self.on.filter(&t, &region) & spot.gate == 0)
                }
                Step::Tree { tree } if seeks && spot.at == root && root.is_root() => {
                    let view = Root::view(self.on.arena, root.offset());
                    let tree =
                        view.filter(|v| (tree as usize) < v.tree_count()).map(|v| v.tree(tree as usize));
                    match tree {
                        Some(tree) => {
                            self.on.cells(&region, spot, tree, &mut waiting)?;
                            true
                        }
                        None => false,
                    }
                }
                Step::Down if seeks && spot.at.kind() == Kind::Node && !spot.at.is_root() => {
                    let node = self.on.node(spot);
                    node.is_some_and(|node| {
                        self.on.children(&node, &region, spot, &mut waiting);
                        true
                    })
                }
                Step::Part if seeks && spot.at.kind() == Kind::Node && !spot.at.is_root() => {
                    let part = self.on.node(spot).and_then(|node| self.on.part(&node, spot));
                    waiting.extend(part.map(|spot| (region, spot)));
                    part.is_some()
                }
                Step::Lane { lane } if seeks => {
                    let scale = Root::view(self.on.arena, root.offset())
                        .filter(|_| root.is_root())
                        .map(|v| v.scale());
                    let is_open =
                        spot.tree.is_none_or(|tree| self.on.filter(&tree, &region) & !spot.gate == 0);
                    let in_time = scale.is_none_or(|scale| spot.gate >> 24 <= scale.scaled(position));
                    let holds = self.on.lane(spot.at, lane as usize).is_some_and(|(leaf, rule)| {
                        leaf.position(rule) == position
                            && (0..leaf.columns()).all(|c| {
                                let (at, bytes, (lo, hi)) = leaf.column(c, rule);
                                let (first, last) = space.values(&region, at, bytes);
                                lo <= first && last <= hi
                            })
                    });
                    holds && is_open && in_time && spot.smallest <= position
                }
                _ => false,
            };
            if !is_true {
                return wrong(format!("position {position}: it is not so that {step:?}"));
            }
            if waiting.len() > WAITING_MAX {
                return wrong("too many regions wait");
            }
        }
        Ok(())
    }
}
