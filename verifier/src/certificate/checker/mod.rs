//! The checker: all that is trusted when a certificate is checked. [`walk`] goes through the rules beside the
//! flat rules, [`forest`] and [`region`] say where keys go and what tests say; here the steps are followed.

pub(super) mod forest;
pub(super) mod region;
mod walk;

use std::collections::BTreeMap;
use std::rc::Rc;

use hipac_classifier::forest::lane::{Lane, Want, lane};
use hipac_classifier::forest::{Ref, UNIT};
use hipac_classifier::image::Section;
use hipac_classifier::program::{DimTest, Op};
use hipac_classifier::{Dim, Image};
use hipac_rules::{Clause, Family, Ruleset};

use super::{Refused, wrong};
use crate::agree::Compared;
use forest::{Place, Shared};
use region::{Piece, Region, Space};
pub(crate) use walk::List;

/// Bytes of regions that wait, at most: a certificate of a few lines may ask for all cells of a large image.
const WAITING_BYTES_MAX: usize = 1 << 30;
/// Bytes of a step: kind, then its two numbers.
const STEP_BYTES: usize = 9;

/// One sentence about a rule or a region, with its two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The next flat rule is this rule's. Its program looks at so many clauses, which follow.
    Present,
    /// No flat rule is: nothing that comes here satisfies it.
    Absent,
    /// None is, for it only counts; the chain that it jumps to follows.
    Unfold,
    /// The program looks at this clause.
    Checks,
    /// Two regions: up to a value of an axis, and above.
    Split,
    /// Two regions: those values of an axis that have a bit, and the others.
    Bit,
    /// All of the region fails a clause.
    Outside,
    /// All of it satisfies a flat rule that lets no packet come to this one.
    Hidden,
    /// All of it satisfies what the index must decide. Of a program: it says the same as the rule.
    Inside,
    /// On in a tree of the root, in the children of the node (0), or in its deferred part (1).
    Down,
    /// This lane of the leaf holds all of it.
    Lane,
    /// The gate of the cell turns all of it away.
    Shut,
}

pub(crate) const KINDS: [Kind; 12] = {
    use Kind::*;
    [Present, Absent, Unfold, Checks, Split, Bit, Outside, Hidden, Inside, Down, Lane, Shut]
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step(pub(crate) Kind, pub(crate) u32, pub(crate) u32);

/// Says the next step.
pub(crate) trait Guide {
    fn next<B: AsRef<[u8]>>(&mut self, on: &Shared<'_, B>, asked: &Asked<'_>) -> Result<Step, Refused>;
}

/// Reads the steps of a certificate.
pub(crate) struct Reading<'c>(pub(crate) &'c [u8]);

impl Guide for Reading<'_> {
    fn next<B: AsRef<[u8]>>(&mut self, _: &Shared<'_, B>, _: &Asked<'_>) -> Result<Step, Refused> {
        let broken = Refused::Damaged("its steps end too early, or make no sense");
        let (step, rest) = self.0.split_first_chunk::<STEP_BYTES>().ok_or(broken.clone())?;
        self.0 = rest;
        let number = |at: usize| u32::from_le_bytes([step[at], step[at + 1], step[at + 2], step[at + 3]]);
        Ok(Step(*KINDS.get(usize::from(step[0])).ok_or(broken)?, number(1), number(5)))
    }
}

/// What the next step is about.
pub(crate) enum Asked<'q> {
    /// A rule, or a match of it that drops cut headers, and what the next flat rule does when it is its.
    Rule { ops: &'q [Op], drops: bool, clauses: &'q Clauses, may_be_left_out: bool },
    /// A region at a place.
    Region(&'q Question<'q>, &'q Region, Place),
}

pub(crate) type Clauses = Vec<Rc<Clause>>;
/// A program's clause.
pub(crate) type Alternatives = Vec<Vec<DimTest>>;

/// What must be so in every part of a region.
#[derive(Clone, Copy)]
pub(crate) struct Question<'q> {
    pub(crate) list: &'q List,
    pub(crate) root: Ref,
    pub(crate) position: u32,
    pub(crate) clauses: &'q Clauses,
    /// Clauses that the program looks at.
    pub(crate) checked: &'q [u32],
    pub(crate) must: Must<'q>,
}

#[derive(Clone, Copy)]
pub(crate) enum Must<'q> {
    /// Wherever the clauses hold, the position is stored, or hidden.
    BeStored,
    /// They do not hold, or it is hidden.
    BeHidden,
    /// A lane holds the region: they hold there, or it is hidden.
    Hold,
    /// They hold where all of a program's do.
    Be(&'q [Alternatives]),
}

impl Question<'_> {
    /// What the index must decide holds; or of rule and program all clauses hold, or of both one fails.
    pub(crate) fn is_inside<B: AsRef<[u8]>>(&self, on: &Shared<'_, B>, region: &Region) -> bool {
        let inside = |clause: &Rc<Clause>| on.space.is_inside(clause, region);
        let Must::Be(program) = self.must else {
            return (0..).zip(self.clauses).all(|(n, clause)| self.checked.contains(&n) || inside(clause));
        };
        let test = |t: &DimTest| on.space.of_program(t, region);
        let all = |clause: &Alternatives| clause.iter().any(|tests| tests.iter().all(|t| test(t).0));
        let none = |clause: &Alternatives| clause.iter().all(|tests| tests.iter().any(|t| test(t).1));
        program.iter().all(all) && self.clauses.iter().all(inside)
            || program.iter().any(none) && self.clauses.iter().any(|c| on.space.is_outside(c, region))
    }
}

/// What was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Checked {
    /// The rules that match on both sides, as the certificate says.
    pub compared: Compared,
    /// Lists of flat rules.
    pub lists: usize,
    /// Flat rules.
    pub flat_rules: usize,
    /// Boxes in leaves.
    pub stored: u64,
    /// Steps followed.
    pub steps: u64,
}

pub(crate) struct Checker<'a, B, G> {
    ruleset: &'a Ruleset,
    on: Shared<'a, B>,
    guide: &'a mut G,
    /// The chain of each entry that packets come to.
    meant: BTreeMap<u32, (usize, usize)>,
    waiting: Vec<u32>,
    checked: Checked,
}

impl<'a, B: AsRef<[u8]>, G: Guide> Checker<'a, B, G> {
    pub(crate) fn check(
        ruleset: &'a Ruleset,
        image: &'a Image<B>,
        compared: Compared,
        guide: &'a mut G,
    ) -> Result<Checked, Refused> {
        image.audit().map_err(|e| Refused::Wrong(e.to_string()))?;
        if image.is_v6() != (ruleset.family == Family::V6) {
            return wrong("the families differ");
        }
        let on =
            Shared { image, space: Space::new(image, ruleset.family), arena: image.section(Section::Arena) };
        let checked = Checked { compared, ..Checked::default() };
        let mut checker = Checker { ruleset, on, guide, meant: BTreeMap::new(), waiting: vec![], checked };
        let lists = checker.lists()?;
        for list in &lists {
            checker.checked.lists += 1;
            checker.checked.flat_rules += list.flats.len();
            let (root, broken) = (Ref(list.record.root), Ref(list.record.broken_root));
            checker.forest(list, root, if root == broken { (0, 6) } else { (0, 1) })?;
            if root != broken {
                checker.forest(list, broken, (2, 6))?;
            }
        }
        Ok(checker.checked)
    }

    fn step(&mut self, asked: &Asked<'_>) -> Result<Step, Refused> {
        self.checked.steps += 1;
        self.guide.next(&self.on, asked)
    }

    /// One root of a list, for some states of the header: what is stored holds, and what holds is stored.
    fn forest(&mut self, list: &List, root: Ref, (lo, hi): (u32, u32)) -> Result<(), Refused> {
        let mut everything: Region = self.on.space.axes.iter().map(|axis| axis.all).collect();
        (everything[Dim::L4.index()].lo, everything[Dim::L4.index()].hi) = (lo, hi);
        let start = Place { at: root, gate: None };
        let mut waiting = vec![(everything.clone(), start)];
        let mut visits = 64 + 64 * (self.on.arena.len() / UNIT);
        while let Some((region, place)) = waiting.pop() {
            visits = visits.saturating_sub(1);
            if visits == 0 || waiting.len() > self.waiting_max() {
                return wrong("the forest leads to the same places over and over");
            }
            (0..).find(|&which| self.on.below(&region, place, which, &mut waiting).is_none());
            for number in 0.. {
                let Some(Lane { position, wants }) = lane(self.on.arena, place.at, number) else { break };
                // Twice: what a window says of an axis may hang on one that is looked at later.
                let mut wants = wants.iter().chain(&wants);
                let narrow = |held: Region, w: &Want| self.on.narrow(&held, self.on.of_lane(w), w.range);
                let held = wants.try_fold(region.clone(), narrow);
                let (Some(held), Some(flat)) = (held, list.flat(position)) else { continue };
                self.checked.stored += 1;
                let (clauses, checked, must) = (&flat.clauses, &*flat.checked, Must::Hold);
                self.derive(&Question { list, root, position, clauses, checked, must }, held, place)?;
            }
        }
        let stored = (list.record.first..).zip(&list.flats);
        let stored = stored.map(|(at, flat)| (at, &flat.clauses, &*flat.checked, Must::BeStored));
        let absent = list.absent.iter().map(|(at, clauses)| (*at, clauses, &[][..], Must::BeHidden));
        for (position, clauses, checked, must) in stored.chain(absent) {
            let question = Question { list, root, position, clauses, checked, must };
            self.derive(&question, everything.clone(), start)?;
        }
        Ok(())
    }

    /// Follows steps until nothing is left of a region.
    fn derive(&mut self, q: &Question<'_>, region: Region, place: Place) -> Result<(), Refused> {
        let mut waiting = vec![(region, place)];
        while let Some((region, place)) = waiting.pop() {
            if region.iter().any(|piece| piece.is_empty()) {
                continue;
            }
            let step = self.step(&Asked::Region(q, &region, place))?;
            let (Step(kind, a, b), on) = (step, &self.on);
            let gate =
                |turned: u32| place.gate.map(|(tree, gate)| on.filter(&tree, &region) & (gate ^ turned));
            let is_true = match (kind, q.must) {
                (Kind::Split | Kind::Bit, _) if (a as usize) < region.len() => {
                    let (mut low, mut high) = (region.clone(), region);
                    let (l, h) = (&mut low[a as usize], &mut high[a as usize]);
                    let is_so = match kind {
                        // Within: nothing else keeps a range to the numbers that its axis has.
                        Kind::Split => l.lo <= b && b < l.hi,
                        // Two bits would have four sides. One that is known leaves a side as it was.
                        _ => b.is_power_of_two(),
                    };
                    match kind {
                        Kind::Split => (l.hi, h.lo) = (b, b.saturating_add(1)),
                        _ => (l.mask, h.mask, h.bits) = (l.mask | b, h.mask | b, h.bits | b),
                    }
                    waiting.extend([(high, place), (low, place)]);
                    is_so
                }
                (Kind::Outside, Must::BeStored | Must::BeHidden) => {
                    q.clauses.get(a as usize).is_some_and(|clause| on.space.is_outside(clause, &region))
                }
                (Kind::Hidden, Must::BeStored | Must::BeHidden | Must::Hold) => {
                    let by = q.list.flat(a).filter(|by| a < q.position && q.position < by.until);
                    by.is_some_and(|by| by.clauses.iter().all(|c| on.space.is_inside(c, &region)))
                }
                (Kind::Inside, Must::Hold | Must::Be(_)) => q.is_inside(on, &region),
                (Kind::Shut, Must::Hold) => gate(0) == Some(0),
                (Kind::Down, Must::BeStored) => on.below(&region, place, a, &mut waiting).is_some(),
                (Kind::Lane, Must::BeStored) if gate(u32::MAX).is_none_or(|closed| closed == 0) => {
                    let holds = |want: &Want| {
                        let (first, last) = on.values(&region, on.of_lane(want));
                        want.range.0 <= first && last <= want.range.1
                    };
                    lane(on.arena, place.at, a as usize)
                        .is_some_and(|lane| lane.position == q.position && lane.wants.iter().all(holds))
                }
                _ => false,
            };
            if !is_true {
                let (number, at) = (self.checked.steps, q.position);
                return wrong(format!("step {number}: position {at}: it is not so that {step:?}"));
            }
            if waiting.len() > self.waiting_max() {
                return wrong("too many regions wait");
            }
        }
        Ok(())
    }

    fn waiting_max(&self) -> usize {
        WAITING_BYTES_MAX / (64 + self.on.space.axes.len() * size_of::<Piece>())
    }
}
