//! Finds the steps of a certificate. Nobody trusts it: the checker follows each step as it is found.

use std::rc::Rc;

use hipac_classifier::Dim;
use hipac_classifier::forest::lane::lane;
use hipac_classifier::forest::{Kind as RefKind, Ref};
use hipac_classifier::program::{DimTest, Op};
use hipac_rules::{Clause, Field, Test, ValueSet};

use super::Refused;
use super::checker::forest::{Part, Place, Shared};
use super::checker::region::{Piece, Region, is_name, set_of};
use super::checker::{Alternatives, Asked, Clauses, Guide, Kind, List, Must, Question, Step};

/// Regions looked at, at most, to see whether a clause of a program says what a rule does.
const SAME_REGIONS_MAX: usize = 1 << 16;
/// The same, to see whether any key satisfies the clauses of a rule.
const VOID_REGIONS_MAX: usize = 256;

/// Certificates that are begun, at most, until one is whole.
const TRIES_MAX: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Finder {
    pub(super) steps: Vec<u8>,
    /// A rule that nothing satisfies has no flat rule, although the next one fits it, or it has that one: what is
    /// right shows later. (Jumps have flat rules of their own between two visits of a chain, unless they are
    /// left out: then the next visit may be meant.) And the chain that such a jump leads to may be unfolded or
    /// absent. What was taken each time; without a list, that rules are there and chains are not.
    skips: Option<Vec<bool>>,
    /// How many times that was asked.
    asked: usize,
    /// Clauses that the program looks at, still to be said.
    checks: Vec<u32>,
}

impl Finder {
    /// Begins certificates, each with another choice where there was one, the last first, until `check` finds
    /// one whole. What the first one failed at is the error.
    pub(super) fn search(
        mut check: impl FnMut(&mut Finder) -> Result<(), Refused>,
    ) -> Result<Finder, Refused> {
        let mut finder = Finder::default();
        let Err(refused) = check(&mut finder) else { return Ok(finder) };
        let mut skips = Vec::new();
        for _ in 0..TRIES_MAX {
            let mut finder = Finder { skips: Some(skips), ..Finder::default() };
            if check(&mut finder).is_ok() {
                return Ok(finder);
            }
            skips = finder.skips.unwrap_or_default();
            skips.truncate(finder.asked);
            while skips.last() == Some(&false) {
                skips.pop();
            }
            let Some(last) = skips.last_mut() else { break };
            *last = false;
        }
        Err(refused)
    }

    /// Whether a rule that nothing satisfies is passed over; `default` while there is no choice.
    fn skips(&mut self, default: bool, is_void: impl FnOnce() -> bool) -> bool {
        let Some(skips) = self.skips.as_mut().filter(|_| is_void()) else { return default };
        let number = self.asked;
        self.asked += 1;
        if number == skips.len() {
            skips.push(true);
        }
        skips[number]
    }
}

impl Guide for Finder {
    fn next<B: AsRef<[u8]>>(&mut self, on: &Shared<'_, B>, asked: &Asked<'_>) -> Result<Step, Refused> {
        let step = match asked {
            Asked::Rule { .. } if !self.checks.is_empty() => {
                Step(Kind::Checks, self.checks.pop().unwrap_or(0), 0)
            }
            Asked::Rule { ops, drops, clauses, may_be_left_out } => {
                let fits = !ops.is_empty() && (ops.last() == Some(&Op::Malformed)) == *drops;
                let about_header = |clause: &&Rc<Clause>| clause.iter().all(|test| test.field == Field::L4);
                let skips = match drops {
                    true => is_void(on, clauses.iter().filter(about_header)),
                    false => self.skips(false, || is_void(on, clauses.iter())),
                };
                if fits && !skips {
                    self.checks = checked(on, clauses, ops);
                    Step(Kind::Present, self.checks.len() as u32, 0)
                } else if *may_be_left_out && (!is_void(on, clauses.iter()) || !self.skips(true, || true)) {
                    Step(Kind::Unfold, 0, 0)
                } else {
                    Step(Kind::Absent, 0, 0)
                }
            }
            Asked::Region(question, region, place) => of_region(on, question, region, *place)
                .ok_or_else(|| Refused::Wrong(stuck(on, question, region)))?,
        };
        let Step(kind, a, b) = step;
        self.steps.push(super::checker::KINDS.iter().position(|&k| k == kind).unwrap_or(0) as u8);
        self.steps.extend([a, b].into_iter().flat_map(u32::to_le_bytes));
        Ok(step)
    }
}

/// Where no step leads on.
fn stuck<B: AsRef<[u8]>>(on: &Shared<'_, B>, q: &Question<'_>, region: &Region) -> String {
    let must = match q.must {
        Must::BeStored => "stored",
        Must::BeHidden => "hidden",
        Must::Hold => "what is stored holds",
        Must::Be(_) => "its program is the same",
    };
    let narrowed = on.space.axes.iter().zip(region).filter(|(axis, piece)| **piece != axis.all);
    let pieces: Vec<String> = narrowed
        .map(|(axis, p)| {
            format!("{} {:#x}–{:#x} & {:#x} = {:#x}", axis.dim.name(), p.lo, p.hi, p.mask, p.bits)
        })
        .collect();
    format!("position {}: no step shows that {must}: {}", q.position, pieces.join(", "))
}

/// Where a region is cut so that more is known of a test: at the first place where it changes, or in the
/// middle of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    First,
    Middle,
}

/// A test of a rule or of a program.
enum Tested<'t> {
    Rule(&'t Test),
    Program(&'t DimTest),
}

impl Tested<'_> {
    fn axes<B: AsRef<[u8]>>(&self, on: &Shared<'_, B>) -> Vec<usize> {
        match self {
            Tested::Rule(test) => on.space.axes_of(test.field).to_vec(),
            Tested::Program(test) => vec![test.dim.index()],
        }
    }

    fn set(&self) -> ValueSet {
        match self {
            Tested::Rule(test) => test.set.clone(),
            Tested::Program(test) => set_of(test),
        }
    }

    /// A cut of a region in which it is not decided.
    fn cut<B: AsRef<[u8]>>(&self, on: &Shared<'_, B>, region: &Region, at: At) -> Option<Step> {
        let (axes, set) = (self.axes(on), self.set());
        if on.space.test(&axes, &set, false, region) != (false, false) {
            return None;
        }
        let split = |axis: usize, turn: u32| Some(Step(Kind::Split, axis as u32, turn.checked_sub(1)?));
        if let [axis] = *axes
            && let known = &on.space.axes[axis]
            && (!known.few.is_empty() || is_name(known.dim))
        {
            // By class first, then by value.
            return [known.key, axis].into_iter().find_map(|axis| {
                let Piece { lo, hi, .. } = region[axis];
                let says = |x: u32| {
                    let mut one = region.clone();
                    (one[axis].lo, one[axis].hi) = (x, x);
                    on.space.test(&axes, &set, false, &one)
                };
                let mut values = (lo..=hi).filter(|&x| says(x) != (true, true));
                let first = says(values.next()?);
                split(axis, values.find(|&x| says(x) != first)?)
            });
        }
        let mut shift = 0;
        let mut words: Vec<(usize, u32)> = Vec::new();
        for &axis in axes.iter().rev() {
            words.push((axis, shift));
            shift += 32 - on.space.axes[axis].dim.max().leading_zeros();
        }
        let full = if shift == 128 { u128::MAX } else { (1 << shift) - 1 };
        words.into_iter().rev().find_map(|(axis, shift)| {
            let Piece { lo, hi, .. } = region[axis];
            let (known, _) = region[axis].known();
            let ones = u32::MAX >> on.space.axes[axis].dim.max().leading_zeros();
            let word = |x: u128| (x >> shift) as u32 & ones;
            let mut turns: Vec<u32> = Vec::new();
            let mut range = |lo: u128, hi: u128| {
                let (lo, hi) = (word(lo), word(hi));
                turns.extend([lo, lo.saturating_add(1), hi, hi.saturating_add(1)]);
            };
            match &set {
                ValueSet::Ranges(ranges) => ranges.iter().for_each(|r| range(r.0, r.1)),
                &ValueSet::Masked { value, mask } => {
                    let free = !mask & full;
                    if free & free.wrapping_add(1) != 0 {
                        let open = word(mask) & !known;
                        let bit = 1u32.checked_shl(31u32.wrapping_sub(open.leading_zeros()))?;
                        return (open != 0).then_some(Step(Kind::Bit, axis as u32, bit));
                    }
                    range(value, value | free);
                }
                ValueSet::Interface { .. } | ValueSet::Member(_) => {}
            }
            turns.retain(|&x| lo < x && x <= hi);
            turns.sort_unstable();
            turns.dedup();
            split(axis, *turns.get(if at == At::First { 0 } else { turns.len() / 2 })?)
        })
    }
}

fn cut<B: AsRef<[u8]>>(on: &Shared<'_, B>, clause: &Clause, region: &Region, at: At) -> Option<Step> {
    clause.iter().find_map(|test| Tested::Rule(test).cut(on, region, at))
}

/// Both halves of a region.
fn halves(region: &Region, Step(kind, axis, at): Step) -> [Region; 2] {
    let mut halves = [region.clone(), region.clone()];
    let [low, high] = &mut halves;
    let (low, high) = (&mut low[axis as usize], &mut high[axis as usize]);
    match kind {
        Kind::Bit => {
            (low.mask, high.mask) = (low.mask | at, high.mask | at);
            high.bits |= at;
        }
        _ => (low.hi, high.lo) = (at, at + 1),
    }
    halves
}

fn everything<B: AsRef<[u8]>>(on: &Shared<'_, B>) -> Region {
    on.space.axes.iter().map(|axis| axis.all).collect()
}

/// No key satisfies the clauses, as far as a few cuts say.
fn is_void<'c, B: AsRef<[u8]>>(on: &Shared<'_, B>, clauses: impl Iterator<Item = &'c Rc<Clause>>) -> bool {
    let clauses: Vec<&Rc<Clause>> = clauses.collect();
    let mut waiting = vec![everything(on)];
    let mut left = VOID_REGIONS_MAX;
    while let Some(region) = waiting.pop() {
        if clauses.iter().any(|clause| on.space.is_outside(clause, &region)) {
            continue;
        }
        left -= 1;
        match clauses.iter().find_map(|clause| cut(on, clause, &region, At::Middle)) {
            Some(step) if left > 0 => waiting.extend(halves(&region, step)),
            _ => return false,
        }
    }
    true
}

/// The clauses of a rule that its program looks at.
fn checked<B: AsRef<[u8]>>(on: &Shared<'_, B>, clauses: &Clauses, ops: &[Op]) -> Vec<u32> {
    let mut out = Vec::new();
    for op in ops {
        let Op::Clause(said) = op else { break };
        let dims: Vec<usize> = said.iter().flatten().map(|test| test.dim.index()).collect();
        let is_of = |test: &Test| on.space.axes_of(test.field).iter().any(|axis| dims.contains(axis));
        let is_about = |clause: &Clause| clause.iter().all(is_of);
        let all: Vec<u32> =
            (0..).zip(clauses).filter(|(_, clause)| is_about(clause)).map(|(n, _)| n).collect();
        // A clause of the rules (or several that say the same), or all that are about these fields.
        let one = |&n: &u32| is_same(on, &vec![clauses[n as usize].clone()], std::slice::from_ref(said));
        let alone: Vec<u32> = all.iter().copied().filter(one).collect();
        out.extend(if alone.is_empty() { all } else { alone });
    }
    out.sort_unstable();
    out.dedup();
    out
}

fn is_same<B: AsRef<[u8]>>(on: &Shared<'_, B>, clauses: &Clauses, program: &[Alternatives]) -> bool {
    let mut waiting = vec![everything(on)];
    let mut left = SAME_REGIONS_MAX;
    while let Some(region) = waiting.pop() {
        left -= 1;
        if region.iter().any(|piece| piece.is_empty()) || says_the_same(on, clauses, program, &region) {
            continue;
        }
        let cut = || of_program(on, clauses, program, &region);
        match cut_of_nothing(&region).or_else(cut) {
            Some(step) if left > 0 => waiting.extend(halves(&region, step)),
            _ => return false,
        }
    }
    true
}

fn says_the_same<B: AsRef<[u8]>>(
    on: &Shared<'_, B>,
    clauses: &Clauses,
    program: &[Alternatives],
    region: &Region,
) -> bool {
    let list = List::default();
    let (root, position, checked, must) = (Ref::EMPTY, 0, &[][..], Must::Be(program));
    Question { list: &list, root, position, clauses, checked, must }.is_inside(on, region)
}

/// A cut of a region in which a program is not known to say what the rule does.
fn of_program<B: AsRef<[u8]>>(
    on: &Shared<'_, B>,
    clauses: &Clauses,
    program: &[Alternatives],
    region: &Region,
) -> Option<Step> {
    let by_rule = clauses.iter().flat_map(|clause| clause.iter()).map(Tested::Rule);
    let by_program = program.iter().flatten().flatten().map(Tested::Program);
    by_rule.chain(by_program).find_map(|test| test.cut(on, region, At::Middle))
}

fn of_region<B: AsRef<[u8]>>(
    on: &Shared<'_, B>,
    q: &Question<'_>,
    region: &Region,
    place: Place,
) -> Option<Step> {
    if let Must::Hold | Must::Be(_) = q.must
        && q.is_inside(on, region)
    {
        return Some(Step(Kind::Inside, 0, 0));
    }
    if let Some(step) = cut_of_nothing(region) {
        return Some(step);
    }
    if let Must::Be(program) = q.must {
        return of_program(on, q.clauses, program, region);
    }
    let undecided = || {
        let open = (0..).zip(q.clauses).filter(|(n, _)| !q.checked.contains(n));
        open.filter(|(_, clause)| !on.space.is_inside(clause, region))
    };
    let cut_open = || undecided().find_map(|(_, clause)| cut(on, clause, region, At::Middle));
    match q.must {
        Must::Hold => hidden(on, q, region, place).or_else(cut_open).or_else(|| shut(on, region, place)),
        _ => {
            if let Some(n) = (0..).zip(q.clauses).find(|(_, c)| on.space.is_outside(c, region)) {
                return Some(Step(Kind::Outside, n.0, 0));
            }
            let seeks = matches!(q.must, Must::BeStored);
            cut_open()
                .or_else(|| on_the_way(on, q, region, place).filter(|_| seeks))
                .or_else(|| hidden(on, q, region, place))
                // Two clauses about one small field may fail together for every value of a class.
                .or_else(|| q.clauses.iter().find_map(|c| cut(on, c, region, At::Middle)))
        }
    }
}

/// The gate turns a region away, or where to cut it so that it does, or does not.
fn shut<B: AsRef<[u8]>>(on: &Shared<'_, B>, region: &Region, place: Place) -> Option<Step> {
    let (tree, gate) = place.gate?;
    let bits = on.filter(&tree, region);
    if bits & gate == 0 {
        return Some(Step(Kind::Shut, 0, 0));
    }
    let parts = tree.filter.map(|bits| on.of_bits(bits));
    parts.into_iter().filter(|_| bits & !gate != 0).find_map(|part| cut_part(on, region, part, u32::MAX))
}

/// A region cut behind a value of a part, or in the middle of its values.
fn cut_part<B: AsRef<[u8]>>(on: &Shared<'_, B>, region: &Region, part: Part, behind: u32) -> Option<Step> {
    let axis = part.axis?;
    let (first, last) = on.values(region, part);
    let Piece { lo, hi, .. } = region[axis];
    let above = |x: u32| u64::from(x) >> part.shift >> part.count;
    let value = if behind == u32::MAX { first + (last - first) / 2 } else { behind };
    let value = if above(lo) == above(hi) { value } else { ((1u64 << part.count) - 1) as u32 };
    let end = (above(lo) << part.count | u64::from(value)) << part.shift | ((1 << part.shift) - 1);
    let at = u32::try_from(end).ok().filter(|&end| lo <= end && end < hi && first < last)?;
    Some(Step(Kind::Split, axis as u32, at))
}

/// A key of a region.
fn corner<B: AsRef<[u8]>>(on: &Shared<'_, B>, region: &Region) -> Option<Region> {
    let mut out = region.clone();
    for (axis, piece) in region.iter().enumerate() {
        let known = &on.space.axes[axis];
        if known.few.is_empty() {
            if axis < Dim::COUNT {
                let x = first_masked(piece.lo, piece.bits, piece.mask).filter(|x| *x <= piece.hi)?;
                (out[axis].lo, out[axis].hi) = (x, x);
            }
            continue;
        }
        let is_there = |(x, k): &&(u32, u32)| piece.has(*x) && region[known.key].has(*k);
        let &(x, k) = known.few.iter().find(is_there)?;
        (out[known.key].lo, out[known.key].hi) = (k, k);
        (out[axis].lo, out[axis].hi) = (x, x);
    }
    Some(out)
}

/// Where nothing is in a region for the bits that are known of an axis: that is seen when it is cut small enough.
fn cut_of_nothing(region: &Region) -> Option<Step> {
    let is_nothing =
        |p: &Piece| p.mask != 0 && first_masked(p.lo, p.bits, p.mask).is_none_or(|x| p.hi < x) && p.lo < p.hi;
    let axis = region.iter().position(is_nothing)?;
    let Piece { lo, hi, .. } = region[axis];
    Some(Step(Kind::Split, axis as u32, lo + (hi - lo) / 2))
}

/// The first number at or above `lo` whose bits under a mask are these.
fn first_masked(lo: u32, bits: u32, mask: u32) -> Option<u32> {
    let x = lo & !mask | bits;
    let Some(highest) = (x ^ lo).checked_ilog2() else { return Some(x) };
    let below = (1u32 << highest) - 1;
    if x > lo {
        return Some(x & (mask | !below));
    }
    // The lowest free bit above that can still be raised.
    let free = !mask & !lo & !below & !(1 << highest);
    let bit = free & free.wrapping_neg();
    (bit != 0).then(|| lo & !mask & !(bit | (bit - 1)) | bit | bits)
}

/// Towards where the rule is stored around a key of a region.
fn on_the_way<B: AsRef<[u8]>>(
    on: &Shared<'_, B>,
    q: &Question<'_>,
    region: &Region,
    place: Place,
) -> Option<Step> {
    let point = corner(on, region)?;
    if place.at.is_empty() {
        return None;
    }
    if place.at.kind() == RefKind::Node {
        let mut below = Vec::new();
        for which in 0.. {
            on.below(&point, place, which, &mut below)?;
            if below.drain(..).any(|(point, place)| has(on, place, &point, q.position)) {
                return Some(Step(Kind::Down, which, 0));
            }
        }
    }
    let number = lanes_at(on, place.at, &point).into_iter().find(|&(_, position)| position == q.position)?.0;
    for want in lane(on.arena, place.at, number)?.wants {
        let (part, (lo, hi)) = (on.of_lane(&want), want.range);
        let (first, last) = on.values(region, part);
        if lo <= first && last <= hi {
            continue;
        }
        // The key is in the range: what is before it, or behind it, is elsewhere.
        let (x, _) = on.values(&point, part);
        let inside = on.values(region, part).0.max(lo);
        let before = (lo > first && x >= inside).then(|| inside.checked_sub(1)).flatten();
        return before
            .and_then(|before| cut_part(on, region, part, before))
            .or_else(|| cut_part(on, region, part, hi));
    }
    if let Some((tree, gate)) = place.gate
        && on.filter(&tree, region) & !gate != 0
    {
        return shut(on, region, place).filter(|step| step.0 != Kind::Shut);
    }
    Some(Step(Kind::Lane, number as u32, 0))
}

/// Lanes of a leaf that hold a point, and their positions.
fn lanes_at<B: AsRef<[u8]>>(on: &Shared<'_, B>, at: Ref, point: &Region) -> Vec<(usize, u32)> {
    let mut out = Vec::new();
    for number in 0.. {
        let Some(lane) = lane(on.arena, at, number) else { break };
        let holds = lane.wants.iter().all(|want| {
            let (x, _) = on.values(point, on.of_lane(want));
            want.range.0 <= x && x <= want.range.1
        });
        if holds {
            out.push((number, lane.position));
        }
    }
    out
}

/// All positions stored at a point below a place.
fn each<B: AsRef<[u8]>>(on: &Shared<'_, B>, place: Place, point: &Region, visit: &mut dyn FnMut(u32)) {
    if place.at.is_empty() {
        return;
    }
    if place.at.kind() != RefKind::Node {
        return lanes_at(on, place.at, point).into_iter().for_each(|(_, position)| visit(position));
    }
    let mut below = Vec::new();
    (0..).find(|&which| on.below(point, place, which, &mut below).is_none());
    below.iter().for_each(|(point, place)| each(on, *place, point, visit));
}

fn has<B: AsRef<[u8]>>(on: &Shared<'_, B>, place: Place, point: &Region, wanted: u32) -> bool {
    let mut found = false;
    each(on, place, point, &mut |position| found |= position == wanted);
    found
}

/// An earlier rule that hides all of a region, or where to cut it so that one does.
fn hidden<B: AsRef<[u8]>>(
    on: &Shared<'_, B>,
    q: &Question<'_>,
    region: &Region,
    place: Place,
) -> Option<Step> {
    let point = corner(on, region)?;
    let mut candidates: Vec<u32> = Vec::new();
    each(on, Place { at: q.root, ..place }, &point, &mut |position| candidates.push(position));
    let list: &List = q.list;
    candidates.retain(|&by| by < q.position && list.flat(by).is_some_and(|flat| q.position < flat.until));
    let open = |region: &Region, by: u32| {
        list.flat(by).map_or(1, |f| f.clauses.iter().filter(|c| !on.space.is_inside(c, region)).count())
    };
    candidates.retain(|&by| open(&point, by) == 0);
    candidates.sort_unstable();
    if let Some(&by) = candidates.iter().find(|&&by| open(region, by) == 0) {
        return Some(Step(Kind::Hidden, by, 0));
    }
    let by = candidates.into_iter().min_by_key(|&by| open(region, by))?;
    let clauses = &list.flat(by)?.clauses;
    clauses.iter().filter(|c| !on.space.is_inside(c, region)).find_map(|c| cut(on, c, region, At::First))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_first_number_under_a_mask_is_the_first(lo in 0u32..300, bits in 0u32..300, mask in 0u32..300) {
            let bits = bits & mask;
            let slow = (lo..2048).find(|x| x & mask == bits);
            prop_assert_eq!(first_masked(lo, bits, mask), slow);
        }
    }
}
