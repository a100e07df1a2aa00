//! Finds the steps of a certificate. Nobody trusts it: the checker follows each step as it is found.

use std::rc::Rc;

use hipac_classifier::forest::root::Root;
use hipac_classifier::forest::{Kind, Ref};
use hipac_rules::{Clause, Field, Test, ValueSet};

use super::check::{Asked, Guide, List, Must, Question};
use super::meaning::{self, Region};
use super::place::{Shared, Spot};
use super::{Refused, Step};

/// Free bits above fixed ones, at most, that make ranges of a mask.
const HOLES_MAX: u32 = 8;

#[derive(Debug, Default)]
pub(super) struct Finder {
    pub(super) steps: Vec<u8>,
    /// A rule that nothing satisfies has no flat rule, although the next one is its. (Jumps have flat
    /// rules of their own between two visits of a chain, unless they are left out: then the next
    /// visit may be meant. Of what drops cut headers a rule may have several.)
    pub(super) skips_void: bool,
}

impl Guide for Finder {
    fn next<B: AsRef<[u8]>>(&mut self, on: &Shared<'_, B>, asked: &Asked<'_>) -> Result<Step, Refused> {
        let step = match asked {
            Asked::Rule { fits, drops, clauses, may_be_left_out } => {
                let about_header = |clause: &&Rc<Clause>| clause.iter().all(|test| test.field == Field::L4);
                let skips = match drops {
                    true => is_void(on, clauses.iter().filter(about_header)),
                    false => self.skips_void && is_void(on, clauses.iter()),
                };
                if *fits && !skips {
                    Step::Present
                } else if *may_be_left_out && !is_void(on, clauses.iter()) {
                    Step::Unfold
                } else {
                    Step::Absent
                }
            }
            Asked::Region(question) => of_region(on, question).ok_or_else(|| {
                let at = question.position;
                let region: Vec<String> = on
                    .space
                    .axes
                    .iter()
                    .zip(question.region)
                    .filter(|(a, r)| **r != a.range)
                    .map(|(a, (lo, hi))| format!("{} {lo:#x}–{hi:#x}", a.dim.name()))
                    .collect();
                Refused::Wrong(format!(
                    "position {at}: no step leads on ({:?}) {}",
                    question.must,
                    region.join(", ")
                ))
            })?,
        };
        step.encode(&mut self.steps);
        Ok(step)
    }
}

/// No key satisfies the clauses, as far as single ones say.
fn is_void<'c, B: AsRef<[u8]>>(
    on: &Shared<'_, B>,
    mut clauses: impl Iterator<Item = &'c Rc<Clause>>,
) -> bool {
    let mut region: Region = on.space.axes.iter().map(|axis| axis.range).collect();
    clauses.any(|clause| {
        while let Some((axis, lo, hi)) = trimmed(on, clause, &region) {
            region[axis] = (lo, hi);
        }
        on.space.is_outside(clause, &region)
    })
}

fn of_region<B: AsRef<[u8]>>(on: &Shared<'_, B>, q: &Question<'_>) -> Option<Step> {
    let clauses = || (0u32..).zip(q.clauses.iter().zip(q.checked));
    if q.must != Must::Hold {
        for (number, (clause, _)) in clauses() {
            if on.space.is_inside(clause, q.region) {
                continue;
            }
            if on.space.fails(clause, q.clauses, q.region) {
                return Some(Step::Outside { clause: number });
            }
            if let Some((axis, lo, hi)) = trimmed(on, clause, q.region) {
                return Some(Step::Keep { axis: axis as u32, lo, hi, clause: number });
            }
        }
    }
    let open = |clause: &Clause, checked: bool| !checked && !on.space.is_inside(clause, q.region);
    let undecided = || clauses().filter(|&(_, (clause, &checked))| open(clause, checked));
    match q.must {
        Must::Hold if undecided().next().is_none() => return Some(Step::Inside),
        Must::Hold => {}
        _ => {
            if let Some(step) = undecided().find_map(|(_, (clause, _))| split(on, clause, q.region)) {
                return Some(step);
            }
        }
    }
    if q.must == Must::BeStored
        && let Some(step) = on_the_way(on, q)
    {
        return Some(step);
    }
    hidden(on, q).or_else(|| match q.must {
        Must::Hold => {
            undecided().find_map(|(_, (clause, _))| split(on, clause, q.region)).or(Some(Step::Shut))
        }
        _ => None,
    })
}

/// Where pieces of an axis begin on which a clause may change.
fn turns<B: AsRef<[u8]>>(on: &Shared<'_, B>, clause: &Clause, axis: usize, (lo, hi): (u32, u32)) -> Vec<u32> {
    let dim = on.space.axes[axis].dim;
    let mut out = Vec::new();
    for test in clause {
        let words = meaning::words(test.field, on.space.family);
        if !words.contains(&dim) {
            continue;
        }
        if dim.max() <= 0xff || meaning::is_name(dim) {
            out.extend(lo..=hi);
            continue;
        }
        let mut shift = 0;
        for &word in words.iter().rev() {
            let at = shift;
            shift += 32 - word.max().leading_zeros();
            if word == dim {
                out.extend(turns_of(test, at, dim.max()));
            }
        }
    }
    out.retain(|&x| lo < x && x <= hi);
    out.sort_unstable();
    out.dedup();
    out
}

fn turns_of(test: &Test, shift: u32, max: u32) -> Vec<u32> {
    let cut = |x: u128| (x >> shift) as u32 & max;
    let mut out = Vec::new();
    match &test.set {
        ValueSet::Ranges(ranges) => {
            for x in ranges.iter().flat_map(|r| [r.0, r.1]).map(cut) {
                out.extend([x, x.saturating_add(1)]);
            }
        }
        ValueSet::Masked { value, mask } => {
            let (value, mask) = (cut(*value), cut(*mask));
            let tail = if mask == 0 { max } else { (mask & mask.wrapping_neg()) - 1 };
            let holes = !mask & !tail & max;
            if holes.count_ones() <= HOLES_MAX {
                let mut hole = 0u32;
                loop {
                    out.extend([value | hole, (value | hole | tail).saturating_add(1)]);
                    hole = hole.wrapping_sub(holes) & holes;
                    if hole == 0 {
                        break;
                    }
                }
            }
        }
        ValueSet::Interface { .. } | ValueSet::Member(_) => {}
    }
    out
}

fn axes_of<B: AsRef<[u8]>>(on: &Shared<'_, B>, clause: &Clause) -> Vec<usize> {
    let words = clause.iter().flat_map(|test| meaning::words(test.field, on.space.family));
    words.filter_map(|&dim| on.space.axis(dim)).collect()
}

/// An axis on which both ends of a region or one fail a clause: what is left there.
fn trimmed<B: AsRef<[u8]>>(
    on: &Shared<'_, B>,
    clause: &Clause,
    region: &Region,
) -> Option<(usize, u32, u32)> {
    let mut inner = region.clone();
    for axis in axes_of(on, clause) {
        let (lo, hi) = region[axis];
        let turns = turns(on, clause, axis, (lo, hi));
        let mut fails = |from: u32, to: u32| {
            inner[axis] = (from, to);
            on.space.is_outside(clause, &inner)
        };
        let (mut first, mut last) = (lo, hi);
        for &turn in &turns {
            if !fails(first, turn - 1) {
                break;
            }
            first = turn;
        }
        for &turn in turns.iter().rev() {
            if turn <= first || !fails(turn, last) {
                break;
            }
            last = turn - 1;
        }
        inner[axis] = (lo, hi);
        if (first, last) != (lo, hi) {
            return Some((axis, first, last));
        }
    }
    None
}

/// A region cut where a clause changes.
fn split<B: AsRef<[u8]>>(on: &Shared<'_, B>, clause: &Clause, region: &Region) -> Option<Step> {
    axes_of(on, clause).into_iter().find_map(|axis| {
        let turns = turns(on, clause, axis, region[axis]);
        let at = turns.get(turns.len() / 2).map(|turn| turn - 1)?;
        Some(Step::Split { axis: axis as u32, at })
    })
}

fn corner(region: &Region) -> Region {
    region.iter().map(|interval| (interval.0, interval.0)).collect()
}

/// Towards where the rule is stored around the lowest key of a region.
fn on_the_way<B: AsRef<[u8]>>(on: &Shared<'_, B>, q: &Question<'_>) -> Option<Step> {
    let point = corner(q.region);
    let mut below = Vec::new();
    if q.spot.at == q.root && q.root.is_root() {
        let view = Root::view(on.arena, q.root.offset())?;
        return (0..view.tree_count()).find_map(|t| {
            below.clear();
            on.cells(&point, q.spot, view.tree(t), &mut below).ok()?;
            let is_here = below.iter().any(|(point, spot)| has(on, *spot, point, q.position));
            is_here.then_some(Step::Tree { tree: t as u32 })
        });
    }
    if q.spot.at.is_empty() {
        return None;
    }
    if q.spot.at.kind() == Kind::Node {
        let node = on.node(q.spot)?;
        on.children(&node, &point, q.spot, &mut below);
        if below.iter().any(|(point, spot)| has(on, *spot, point, q.position)) {
            return Some(Step::Down);
        }
        return on.part(&node, q.spot).filter(|&spot| has(on, spot, &point, q.position)).map(|_| Step::Part);
    }
    let lane = lanes_at(on, q.spot.at, &point).into_iter().find(|&(_, position)| position == q.position)?.0;
    let (leaf, rule) = on.lane(q.spot.at, lane)?;
    for column in 0..leaf.columns() {
        let (at, bytes, (lo, hi)) = leaf.column(column, rule);
        let (first, last) = on.space.values(q.region, at, bytes);
        if lo <= first && last <= hi {
            continue;
        }
        let (axis, shift) = on.space.place(at, bytes)??;
        let above = u64::from(q.region[axis].0) >> shift >> (8 * bytes) << (8 * bytes);
        let end = (above | u64::from(hi)) << shift | ((1 << shift) - 1);
        let at = u32::try_from(end).ok().filter(|&end| end < q.region[axis].1)?;
        return Some(Step::Split { axis: axis as u32, at });
    }
    Some(Step::Lane { lane: lane as u32 })
}

/// Lanes of a leaf that hold a point, and their positions.
fn lanes_at<B: AsRef<[u8]>>(on: &Shared<'_, B>, at: Ref, point: &Region) -> Vec<(usize, u32)> {
    let mut out = Vec::new();
    for lane in 0.. {
        let Some((leaf, rule)) = on.lane(at, lane) else { break };
        let holds = (0..leaf.columns()).map(|c| leaf.column(c, rule)).all(|(at, bytes, (lo, hi))| {
            let (x, _) = on.space.values(point, at, bytes);
            lo <= x && x <= hi
        });
        if holds {
            out.push((lane, leaf.position(rule)));
        }
    }
    out
}

/// All positions stored at a point below a place.
fn each<B: AsRef<[u8]>>(on: &Shared<'_, B>, spot: Spot, point: &Region, visit: &mut dyn FnMut(u32)) {
    if spot.at.is_empty() {
        return;
    }
    if spot.at.kind() != Kind::Node {
        return lanes_at(on, spot.at, point).into_iter().for_each(|(_, position)| visit(position));
    }
    let Some(node) = on.node(spot) else { return };
    let mut below = Vec::new();
    on.children(&node, point, spot, &mut below);
    below.iter().for_each(|(point, spot)| each(on, *spot, point, visit));
    if let Some(part) = on.part(&node, spot) {
        each(on, part, point, visit);
    }
}

fn has<B: AsRef<[u8]>>(on: &Shared<'_, B>, spot: Spot, point: &Region, wanted: u32) -> bool {
    let mut found = false;
    each(on, spot, point, &mut |position| found |= position == wanted);
    found
}

/// An earlier rule that hides all of a region, or where to cut it so that one does.
fn hidden<B: AsRef<[u8]>>(on: &Shared<'_, B>, q: &Question<'_>) -> Option<Step> {
    let point = corner(q.region);
    let mut candidates: Vec<u32> = Vec::new();
    let spot = q.spot.back_at(q.root);
    let mut starts = vec![(point.clone(), spot)];
    if let Some(view) = q.root.is_root().then(|| Root::view(on.arena, q.root.offset())).flatten() {
        starts.clear();
        for tree in (0..view.tree_count()).map(|t| view.tree(t)) {
            on.cells(&point, spot, tree, &mut starts).ok()?;
        }
    }
    for (point, spot) in &starts {
        each(on, *spot, point, &mut |position| candidates.push(position));
    }
    let list: &List = q.list;
    candidates.retain(|&by| by < q.position && q.position < list.until(by));
    let fully = |region: &Region, by: u32| {
        list.flat(by).is_some_and(|flat| flat.clauses.iter().all(|c| on.space.is_inside(c, region)))
    };
    candidates.retain(|&by| fully(&point, by));
    candidates.sort_unstable();
    if let Some(&by) = candidates.iter().find(|&&by| fully(q.region, by)) {
        return Some(Step::Hidden { position: by });
    }
    let open = |by: u32| {
        list.flat(by).map_or(0, |f| f.clauses.iter().filter(|c| !on.space.is_inside(c, q.region)).count())
    };
    let by = candidates.into_iter().min_by_key(|&by| open(by))?;
    let flat = list.flat(by)?;
    flat.clauses.iter().filter(|c| !on.space.is_inside(c, q.region)).find_map(|c| near(on, c, q.region))
}

/// A region cut at the end of the piece around its lowest key on which a clause is alike.
fn near<B: AsRef<[u8]>>(on: &Shared<'_, B>, clause: &Clause, region: &Region) -> Option<Step> {
    axes_of(on, clause).into_iter().find_map(|axis| {
        let turns = turns(on, clause, axis, region[axis]);
        let at = turns.first()?.checked_sub(1)?;
        Some(Step::Split { axis: axis as u32, at })
    })
}
