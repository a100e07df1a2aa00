//! Which packets end so: exactly, as boxes.
//!
//! A question is a set of packets and a verdict. Each step that gives the verdict stands for its box within
//! the question, without what steps before it take that end otherwise:
//!
//! ```text
//!   question ∩ box of a rule that accepts  −  boxes of rules before it that do not
//! ```
//!
//! Few exceptions are cut out; many are named, and one packet shows that they leave something. Boxes of two
//! rules may overlap; together they are the answer. [`holds`] asks less: whether *every* packet of the question
//! ends so, with a packet that does not where there is one.
//!
//! Where steps skip, change the packet or ask residual matches, the question is cut until the walk is plain.

pub mod question;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use hipac_classifier::Packet;
use hipac_rules::{Field, Test, ValueSet};

use crate::diff::Entry;
use crate::diff::report::{Assumed, condition};
use crate::partition::cut::{StepOf, best, sample};
use crate::partition::hunt::{Gap, gap};
use crate::partition::{Head, Known, List, Side, halves, narrow};
use crate::space::{AxisId, Change, Pieces, Region, Set, Shape, Space};
use crate::subject::By;
use crate::unfold::{Action, Course, Detail, TextId, TooManySteps, World};
use crate::{Oracle, RuleId};

/// What is asked.
#[derive(Debug, Clone)]
pub struct Question {
    /// Where packets enter.
    pub entry: Entry,
    /// All of these hold for the packets asked about.
    pub packets: Vec<Test>,
    /// Names of verdicts: `ACCEPT`.
    pub verdicts: Vec<String>,
    /// Steps looked at before the rest is left undecided.
    pub work_max: u64,
}

/// The packets that end so.
#[derive(Debug)]
pub struct Answer {
    /// Largest first. Together they are the answer; two of them may overlap.
    pub parts: Vec<Part>,
    /// Why some packets were not looked at.
    pub undecided: Option<&'static str>,
}

/// Packets that one rule, or the policy, treats so.
#[derive(Debug)]
pub struct Part {
    /// The packets in words.
    pub words: String,
    /// From whom, to whom, what, and what else there is to say.
    pub columns: [String; 4],
    /// How many, as a power of two.
    pub bits: f64,
    /// One of them.
    pub packet: Packet,
    /// The verdict with its options.
    pub verdict: String,
    /// What gives it. (Another rule before may give it already for some of the packets.)
    pub by: By,
    /// Residual matches on which it hangs.
    pub conditions: Vec<String>,
    /// Rules before that take some of the packets and end otherwise.
    pub except: Vec<RuleId>,
    /// The oracle says the same of `packet`.
    pub is_confirmed: bool,
}

/// Pieces that the packets asked about are given as; more is a question that nobody asks.
const BEGINNINGS_MAX: usize = 4096;
/// Exceptions that are cut out of a box; more are named.
const CUT_OUT_MAX: usize = 3;
/// Pieces kept before the rest is left undecided.
const FOUND_MAX: usize = 100_000;

/// Packets with all of their headers: what one usually asks about.
pub fn whole() -> Test {
    Test { field: Field::L4, negated: false, set: ValueSet::Ranges(vec![(0, 0)]) }
}

/// The answer to a question.
///
/// # Errors
///
/// Chains that unfold into too many steps.
pub fn query(oracle: &Oracle<'_>, question: &Question) -> Result<Answer, TooManySteps> {
    let (world, course) = begin(oracle, question)?;
    let mut search = Search::new(&world, &course, question, true);
    search.run(question, usize::MAX);
    Ok(search.answer(oracle, question.entry))
}

/// Whether every packet of the question ends as it says; else some that do not.
///
/// # Errors
///
/// Chains that unfold into too many steps.
pub fn holds(oracle: &Oracle<'_>, question: &Question) -> Result<Answer, TooManySteps> {
    let (world, course) = begin(oracle, question)?;
    let mut search = Search::new(&world, &course, question, false);
    search.run(question, 0);
    Ok(search.answer(oracle, question.entry))
}

/// Whether no packet of the question ends as it says; else some that do.
///
/// # Errors
///
/// Chains that unfold into too many steps.
pub fn none(oracle: &Oracle<'_>, question: &Question) -> Result<Answer, TooManySteps> {
    let (world, course) = begin(oracle, question)?;
    let mut search = Search::new(&world, &course, question, true);
    search.run(question, 0);
    Ok(search.answer(oracle, question.entry))
}

/// A part of a region that does not end as the question says.
pub(crate) fn first_other(
    world: &World,
    course: &Course,
    question: &Question,
    region: &Region,
) -> Option<(Region, Known)> {
    let mut search = Search::new(world, course, question, false);
    let side = Side::new(world, course, region);
    search.walk(vec![(region.clone(), side, Known::new())], 0);
    let (key, found) = search.found.into_iter().next()?;
    Some((found.into_iter().next()?.witness, key.3))
}

fn begin(oracle: &Oracle<'_>, question: &Question) -> Result<(World, Course), TooManySteps> {
    let (table, hook) = question.entry;
    let space = Space::new(oracle.family(), &[(oracle, table)], &question.packets);
    let mut world = World::new(space);
    world.text_id(hipac_rules::Policy::Drop.name());
    let course = world.unfold(oracle, table, hook, Detail::Differences)?;
    Ok((world, course))
}

/// A region that ends as wanted.
struct Found {
    region: Region,
    witness: Region,
    except: Vec<u32>,
}

/// What makes two pieces one part: the step, whether its header is cut off, the verdict, residual matches.
type Key = (Option<u32>, bool, TextId, Known);

struct Search<'w> {
    world: &'w World,
    course: &'w Course,
    verdicts: &'w [String],
    /// Wanted: the verdicts, or all others.
    is_wanted: bool,
    work: u64,
    found: BTreeMap<Key, Vec<Found>>,
    found_count: usize,
    undecided: Option<&'static str>,
    /// The axis of the transport header, when the question is about whole ones.
    whole_axis: Option<AxisId>,
}

impl<'w> Search<'w> {
    fn new(world: &'w World, course: &'w Course, question: &'w Question, is_wanted: bool) -> Search<'w> {
        Search {
            world,
            course,
            verdicts: &question.verdicts,
            is_wanted,
            work: question.work_max,
            found: BTreeMap::new(),
            found_count: 0,
            undecided: None,
            whole_axis: world
                .space
                .field_axis(Field::L4)
                .filter(|_| question.packets.iter().any(|t| t.field == Field::L4)),
        }
    }

    fn is_wanted(&self, text: TextId) -> bool {
        let name = self.world.text(text).split(' ').next().unwrap_or_default();
        self.verdicts.iter().any(|v| v == name) == self.is_wanted
    }

    fn end(&self, at: u32) -> Option<TextId> {
        match self.course.steps[at as usize].action {
            Action::End(text) => Some(text),
            _ => None,
        }
    }

    /// Looks at all regions of the question, until more than `enough` pieces are found.
    fn run(&mut self, question: &Question, enough: usize) {
        let mut open: Vec<(Region, Side, Known)> = Vec::new();
        for region in self.beginnings(question) {
            let side = Side::new(self.world, self.course, &region);
            open.push((region, side, Known::new()));
        }
        self.walk(open, enough);
    }

    fn walk(&mut self, mut open: Vec<(Region, Side, Known)>, enough: usize) {
        while let Some((region, mut side, known)) = open.pop() {
            self.work = self.work.saturating_sub(side.rest().len() as u64 + 4);
            if self.work == 0 || self.found_count > FOUND_MAX {
                self.undecided = Some("more steps than the work allowed (--work)");
                return;
            }
            if self.found_count > enough {
                return;
            }
            if side.is_plain(self.course) {
                self.plain(&region, side.rest(), &known, enough);
                continue;
            }
            match side.settle(self.world, self.course, &region, &known) {
                Head::End(end) => {
                    if self.is_wanted(end.text) {
                        let found = Found { witness: region.clone(), region, except: Vec::new() };
                        self.push((end.step, end.is_malformed, end.text, known), found);
                    }
                }
                Head::Ask(asked) => {
                    for held in [true, false] {
                        let mut known = known.clone();
                        known.push((asked, held));
                        open.push((region.clone(), side.clone(), known));
                    }
                }
                Head::Cut(axis, at) => self.cut(&mut open, (region, side, known), (axis, at)),
                Head::Partial(step) => {
                    let others = sample(self.course, side.rest());
                    match best(self.world, &region, &[(self.course, step)], &others) {
                        Some(cut) => self.cut(&mut open, (region, side, known), cut),
                        None => self.undecided = Some("a region that cannot be cut"),
                    }
                }
                Head::Goal | Head::Inexpressible => {
                    self.undecided = Some("a test that adds up bits of two marks");
                }
            }
        }
    }

    fn cut(
        &self,
        open: &mut Vec<(Region, Side, Known)>,
        (region, side, known): (Region, Side, Known),
        (axis, at): (u8, u32),
    ) {
        let (below, above) = halves(&region, axis, at);
        for half in [above, below] {
            let side = side.narrowed(self.world, self.course, &half, axis);
            open.push((half, side, known.clone()));
        }
    }

    fn push(&mut self, key: Key, found: Found) {
        self.found_count += 1;
        self.found.entry(key).or_default().push(found);
    }

    /// The packets asked about, as regions.
    fn beginnings(&mut self, question: &Question) -> Vec<Region> {
        let mut regions = vec![self.world.space.all()];
        for test in &question.packets {
            // A field that nobody looks at, asked about as a whole.
            let Ok(all) = self.world.space.clause(&vec![test.clone()], &Change::NONE) else {
                if test.field != Field::L4 {
                    self.undecided = Some("a test that no region expresses");
                }
                continue;
            };
            for alternatives in all {
                let mut cut = Vec::new();
                for region in &regions {
                    for (axis, set) in &alternatives {
                        cut.extend(set.intervals().iter().filter_map(|i| {
                            let mut region = region.clone();
                            let own = &mut region[usize::from(*axis)];
                            *own = (own.0.max(i.0), own.1.min(i.1));
                            (own.0 <= own.1).then_some(region)
                        }));
                    }
                }
                regions = cut;
                if regions.len() > BEGINNINGS_MAX {
                    self.undecided = Some("packets asked about in more than 4096 pieces");
                    return Vec::new();
                }
            }
        }
        regions
    }

    /// The pieces of a region where all steps are plain.
    fn plain(&mut self, region: &Region, list: &[u32], known: &Known, enough: usize) {
        let is_closed = list.last().is_some_and(|&at| {
            self.world.condition_covers(&self.course.steps[at as usize].condition, region)
        });
        let mut before: Vec<u32> = Vec::new();
        for &at in list {
            let Some(text) = self.end(at) else { continue };
            if !self.is_wanted(text) {
                before.push(at);
                continue;
            }
            let is_malformed = self.course.steps[at as usize].is_malformed;
            let key = (Some(at), is_malformed, text, known.clone());
            self.piece(key, Some(at), region, &before);
            if self.found_count > enough || self.work == 0 {
                return;
            }
        }
        if !is_closed && self.is_wanted(self.course.policy) {
            self.piece((None, false, self.course.policy, known.clone()), None, region, &before);
        }
    }

    /// The part of a region that meets a step and none before it that ends otherwise.
    fn piece(&mut self, key: Key, step: Option<u32>, region: &Region, before: &[u32]) {
        let all = narrow(self.world, self.course, before.iter().copied(), region, None);
        let mut open: Vec<(Region, List)> = vec![(region.clone(), all)];
        while let Some((region, list)) = open.pop() {
            self.work = self.work.saturating_sub(list.len() as u64 + 4);
            if self.work == 0 {
                return;
            }
            let condition = step.map(|at| &self.course.steps[at as usize].condition);
            if condition.is_some_and(|c| !self.world.condition_meets(c, &region)) {
                continue;
            }
            let partial = condition.is_some_and(|c| !self.world.condition_covers(c, &region));
            let pivots: Vec<StepOf<'_>> = match step {
                Some(at) if partial => vec![(self.course, at)],
                _ => list.iter().map(|&at| (self.course, at)).collect(),
            };
            if !partial && (list.is_empty() || list.len() > CUT_OUT_MAX) {
                match gap(self.world, self.course, &region, list.iter().copied(), &mut self.work) {
                    Gap::Here(witness) => {
                        let found = Found { region, witness, except: list.to_vec() };
                        self.push(key.clone(), found);
                    }
                    Gap::None(_) => {}
                    Gap::Unknown => self.undecided = Some("more steps than the work allowed (--work)"),
                }
                continue;
            }
            // One that covers the region takes all of it.
            let Some((axis, at)) = best(self.world, &region, &pivots, &[]) else { continue };
            let (below, above) = halves(&region, axis, at);
            for half in [above, below] {
                let list = narrow(self.world, self.course, list.iter().copied(), &half, Some(axis));
                open.push((half, list));
            }
        }
    }

    fn answer(self, oracle: &Oracle<'_>, entry: Entry) -> Answer {
        let world = self.world;
        let mut parts = Vec::new();
        for ((step, is_malformed, text, known), found) in &self.found {
            let pieces = Pieces { regions: found.iter().map(|f| f.region.clone()).collect() };
            let by = match step.map(|at| self.course.steps[at as usize].rule) {
                None => By::Policy,
                Some(rule) if *is_malformed => By::Malformed(rule),
                Some(rule) => By::Rule(rule),
            };
            for (shape, _) in pieces.shapes(&world.space) {
                let inside =
                    found.iter().filter(|f| f.region.iter().zip(&shape).all(|(&i, set)| set.covers(i)));
                let inside: Vec<&Found> = inside.collect();
                let Some(packet) = world.space.simplest(inside.iter().map(|f| &f.witness)) else { continue };
                let mut except: Vec<RuleId> = inside
                    .iter()
                    .flat_map(|f| &f.except)
                    .map(|&at| self.course.steps[at as usize].rule)
                    .collect();
                except.sort_unstable();
                except.dedup();
                let mut outcomes = Assumed { world, oracle, known, asked: Vec::new() };
                let said = oracle.evaluate(entry.0, entry.1, &packet, &mut outcomes).verdict;
                let is_listed = self.verdicts.iter().any(|v| *v == said.name);
                // Of whole packets, when asked about those: no need to say so with each.
                let mut shown = shape.clone();
                if let Some(axis) = self.whole_axis {
                    shown[usize::from(axis)] = Set::new(vec![world.space.all()[usize::from(axis)]]);
                }
                parts.push(Part {
                    words: world.space.words(&shown),
                    columns: columns(&world.space, &shown),
                    bits: world.space.bits(&shape),
                    packet,
                    verdict: world.text(*text).to_owned(),
                    by,
                    conditions: known.iter().map(|k| condition(world, k)).collect(),
                    except,
                    is_confirmed: is_listed == self.is_wanted,
                });
            }
        }
        parts.sort_by(|a, b| b.bits.total_cmp(&a.bits));
        Answer { parts, undecided: self.undecided }
    }
}

/// From whom, to whom, which service, and the rest.
fn columns(space: &Space, shape: &Shape) -> [String; 4] {
    let of = |wanted: &dyn Fn(Field) -> bool| {
        let full = space.all();
        let shape: Shape = space
            .axes
            .iter()
            .zip(shape)
            .zip(full.iter())
            .map(|((axis, set), &all)| if wanted(axis.field()) { set.clone() } else { Set::new(vec![all]) })
            .collect();
        match space.words(&shape).as_str() {
            "everything" => "any".to_owned(),
            words => words.to_owned(),
        }
    };
    let from = of(&|f| matches!(f, Field::Source | Field::InInterface));
    let to = of(&|f| matches!(f, Field::Destination | Field::OutInterface));
    let service = of(&|f| matches!(f, Field::Protocol | Field::SourcePort | Field::DestinationPort));
    let rest = of(&|f| {
        !matches!(
            f,
            Field::Source
                | Field::InInterface
                | Field::Destination
                | Field::OutInterface
                | Field::Protocol
                | Field::SourcePort
                | Field::DestinationPort
                | Field::L4
        )
    });
    [
        from.replace(" → any", ""),
        to.replace("any → ", ""),
        service.replace("any → any", "").replace(" :", ":"),
        rest,
    ]
}
