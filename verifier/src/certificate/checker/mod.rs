//! The checker: all that is trusted when a certificate is checked. [`walk`] goes through the rules beside the
//! flat rules, [`forest`] and [`region`] say where keys go and what tests say; here the steps are followed.

pub(super) mod forest;
pub(super) mod region;
mod walk;

use std::collections::BTreeMap;
use std::rc::Rc;

use hipac_classifier::forest::{Kind as RefKind, Ref, UNIT};
use hipac_classifier::image::Section;
use hipac_classifier::program::DimTest;
use hipac_classifier::{Dim, Image};
use hipac_rules::{Clause, Family, Ruleset};

use super::{Refused, wrong};
use crate::agree::Compared;
use forest::{Place, Shared};
use region::{Region, Space};
pub(super) use walk::List;

/// Regions that wait, at most.
const WAITING_MAX: usize = 1 << 22;
/// Bytes of a step: kind, then its two numbers.
pub(super) const STEP_BYTES: usize = 9;

/// One sentence about a rule or a region, with its two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
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

pub(super) const KINDS: [Kind; 12] = {
    use Kind::*;
    [Present, Absent, Unfold, Checks, Split, Bit, Outside, Hidden, Inside, Down, Lane, Shut]
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step(pub(super) Kind, pub(super) u32, pub(super) u32);

/// Says the next step.
pub(super) trait Guide {
    fn next<B: AsRef<[u8]>>(&mut self, on: &Shared<'_, B>, asked: &Asked<'_>) -> Result<Step, Refused>;
}

/// Reads the steps of a certificate.
pub(super) struct Reading<'c>(pub(super) &'c [u8]);

impl Guide for Reading<'_> {
    fn next<B: AsRef<[u8]>>(&mut self, _: &Shared<'_, B>, _: &Asked<'_>) -> Result<Step, Refused> {
        let broken = Refused::Damaged("its steps end too early, or make no sense");
        let Some((&[kind, a0, a1, a2, a3, b0, b1, b2, b3], rest)) = self.0.split_first_chunk::<STEP_BYTES>()
        else {
            return Err(broken);
        };
        self.0 = rest;
        let kind = *KINDS.get(usize::from(kind)).ok_or(broken)?;
        Ok(Step(kind, u32::from_le_bytes([a0, a1, a2, a3]), u32::from_le_bytes([b0, b1, b2, b3])))
    }
}

/// What the next step is about.
pub(super) enum Asked<'q> {
    /// A rule, or a match of it that drops cut headers; whether the next flat rule can be its, and what its
    /// program says first.
    Rule { fits: bool, drops: bool, clauses: &'q Clauses, may_be_left_out: bool, program: &'q [Alternatives] },
    /// A region at a place.
    Region(&'q Question<'q>, &'q Region, Place),
}

pub(super) type Clauses = Vec<Rc<Clause>>;
/// A program's clause.
pub(super) type Alternatives = Vec<Vec<DimTest>>;

/// What must be so in every part of a region.
#[derive(Clone, Copy)]
pub(super) struct Question<'q> {
    pub(super) list: &'q List,
    pub(super) root: Ref,
    pub(super) position: u32,
    pub(super) clauses: &'q Clauses,
    /// Clauses that the program looks at.
    pub(super) checked: &'q [u32],
    pub(super) must: Must<'q>,
}

#[derive(Clone, Copy)]
pub(super) enum Must<'q> {
    /// Wherever the clauses hold, the position is stored, or hidden.
    BeStored,
    /// They do not hold, or it is hidden.
    BeHidden,
    /// A lane holds the region: they hold there, or it is hidden.
    Hold,
    /// The checked ones hold where all of a program's do.
    Be(&'q [Alternatives]),
}

impl Question<'_> {
    /// What the index must decide holds, or what the program must.
    pub(super) fn is_inside<B: AsRef<[u8]>>(&self, on: &Shared<'_, B>, region: &Region) -> bool {
        if let Must::Be(program) = self.must {
            return Question::says_the_same(on, self.clauses, self.checked, program, region);
        }
        let mut open = (0..).zip(self.clauses).filter(|(n, _)| !self.checked.contains(n));
        open.all(|(_, clause)| on.space.is_inside(clause, region))
    }

    /// All clauses of a program hold in a region, and all that it looks at; or of both one fails.
    pub(super) fn says_the_same<B: AsRef<[u8]>>(
        on: &Shared<'_, B>,
        clauses: &Clauses,
        checked: &[u32],
        program: &[Alternatives],
        region: &Region,
    ) -> bool {
        let test = |t: &DimTest| on.space.of_program(t, region);
        let all = |clause: &Alternatives| clause.iter().any(|tests| tests.iter().all(|t| test(t).0));
        let none = |clause: &Alternatives| clause.iter().all(|tests| tests.iter().any(|t| test(t).1));
        let mut rules = checked.iter().filter_map(|&n| clauses.get(n as usize));
        program.iter().all(all) && rules.clone().all(|c| on.space.is_inside(c, region))
            || program.iter().any(none) && rules.any(|c| on.space.is_outside(c, region))
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

pub(super) struct Checker<'a, B, G> {
    ruleset: &'a Ruleset,
    on: Shared<'a, B>,
    guide: &'a mut G,
    /// The chain of each entry that packets come to.
    meant: BTreeMap<u32, (usize, usize)>,
    waiting: Vec<u32>,
    checked: Checked,
}

impl<'a, B: AsRef<[u8]>, G: Guide> Checker<'a, B, G> {
    pub(super) fn check(
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
            if visits == 0 || waiting.len() > WAITING_MAX {
                return wrong("the forest leads to the same places over and over");
            }
            (0..).find(|&which| !self.on.below((&region, place), which, &mut waiting));
            for lane in 0.. {
                let Some((position, columns)) = self.on.lane(place.at, lane) else { break };
                // Twice: what a window says of an axis may hang on one that is looked at later.
                let mut columns = columns.iter().chain(&columns);
                let held = columns.try_fold(region.clone(), |held, &column| self.on.narrow(&held, column));
                let (Some(held), Some(flat)) = (held, list.flat(position)) else { continue };
                self.checked.stored += 1;
                let (clauses, checked, must) = (&flat.clauses, &*flat.checked, Must::Hold);
                self.derive(&Question { list, root, position, clauses, checked, must }, held, place)?;
            }
        }
        for (position, flat) in (list.record.first..).zip(&list.flats) {
            let (clauses, checked, must) = (&flat.clauses, &*flat.checked, Must::BeStored);
            let question = Question { list, root, position, clauses, checked, must };
            self.derive(&question, everything.clone(), start)?;
        }
        for (position, clauses) in &list.absent {
            let (&position, checked, must) = (position, &[][..], Must::BeHidden);
            let question = Question { list, root, position, clauses, checked, must };
            self.derive(&question, everything.clone(), start)?;
        }
        Ok(())
    }

    /// Follows steps until nothing is left of a region.
    fn derive(&mut self, q: &Question<'_>, region: Region, place: Place) -> Result<(), Refused> {
        let mut waiting = vec![(region, place)];
        while let Some((mut region, place)) = waiting.pop() {
            if region.iter().any(|piece| piece.is_empty()) {
                continue;
            }
            let step = self.step(&Asked::Region(q, &region, place))?;
            let (Step(kind, a, b), on) = (step, &self.on);
            let gate =
                |turned: u32| place.gate.map(|(tree, gate)| on.filter(&tree, &region) & (gate ^ turned));
            let is_true = match (kind, q.must) {
                (Kind::Split | Kind::Bit, _) if (a as usize) < region.len() && b < u32::MAX => {
                    let (axis, old) = (a as usize, region[a as usize]);
                    let mut halves = [old; 2];
                    if kind == Kind::Split {
                        (halves[0].hi, halves[1].lo) = (b.min(old.hi), (b + 1).max(old.lo));
                    } else {
                        (halves[0].mask, halves[1].mask) = (old.mask | b, old.mask | b);
                        (halves[0].bits, halves[1].bits) = (old.bits & !b, old.bits | b);
                    }
                    // One bit, whose value was open.
                    let is_bit = b.is_power_of_two() && old.mask & b == 0;
                    for half in halves.into_iter().rev() {
                        region[axis] = half;
                        waiting.push((region.clone(), place));
                    }
                    kind == Kind::Split && old.lo <= b && b < old.hi || kind == Kind::Bit && is_bit
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
                (Kind::Down, Must::BeStored) => on.below((&region, place), a, &mut waiting),
                (Kind::Lane, Must::BeStored) if place.at.kind() != RefKind::Node => {
                    let within = |(first, last): (u32, u32), (lo, hi)| lo <= first && last <= hi;
                    gate(u32::MAX).is_none_or(|closed| closed == 0)
                        && on.lane(place.at, a as usize).is_some_and(|(position, columns)| {
                            let holds = |&(part, range): &_| within(on.values(&region, part), range);
                            position == q.position && columns.iter().all(holds)
                        })
                }
                _ => false,
            };
            if !is_true {
                return wrong(format!("position {}: it is not so that {step:?}", q.position));
            }
            if waiting.len() > WAITING_MAX {
                return wrong("too many regions wait");
            }
        }
        Ok(())
    }
}
