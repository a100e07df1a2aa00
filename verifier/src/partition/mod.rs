//! Walking a course for all packets of a region at once.
//!
//! ```text
//!   region + the steps that meet it, in order
//!        │ the first step …
//!        ├─ covers the region, no guards:  it ends · it changes the state, next · it skips
//!        ├─ covers it, a guard asks:       fork: it holds, it does not
//!        └─ covers a part of it:           cut the region in two, carry to each half what meets it
//! ```
//!
//! Every answer of this crate about *all* packets is this walk with other questions: a difference walks two
//! courses in step, a dead rule is one that no region reaches, a policy holds when no region breaks it. What
//! makes it fast is where it stops: each question says for which regions the answer is known already.
//!
//! Invariants: a list holds, in order, every step that some packet of the region may meet, up to a plain one
//! that covers the region and that nothing skips. Cuts are at bounds of steps, so a region is cut no finer
//! than the rules tell packets apart, and the walk ends.

pub(crate) mod cut;
pub(crate) mod hunt;
pub(crate) mod reach;

use std::sync::Arc;

use hipac_rules::{Effect, Residual};

use crate::space::{AxisId, Change, Region, Relation, needs_connection};
use crate::unfold::{Action, Choice, Course, Guard, Literal, Step, TextId, World};

/// Steps that meet a region, by position in their course.
pub(crate) type List = Arc<[u32]>;

/// A residual match as a variable: what it says, and for one that counts, the how many-th time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Asked {
    pub(crate) text: TextId,
    pub(crate) time: u32,
    pub(crate) kind: AskedKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum AskedKind {
    Pure,
    Stateful,
    Unknown,
}

/// What residual matches are taken to do.
pub(crate) type Known = Vec<(Asked, bool)>;

/// What a walk has done to the packet and to the world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) change: Change,
    /// Targets that do something and go on, in order.
    pub(crate) notes: Vec<TextId>,
    /// Residual matches that count, in the order in which they were asked.
    pub(crate) asked: Vec<Asked>,
}

/// One course's part of a walk.
#[derive(Debug, Clone)]
pub(crate) struct Side {
    pub(crate) list: List,
    /// The next step, as a position in the list.
    pub(crate) next: usize,
    /// Guards of it that hold.
    pub(crate) guards: usize,
    pub(crate) state: Arc<State>,
    /// Stop when this step is met and its guards hold.
    pub(crate) goal: Option<u32>,
}

/// How a course ends for a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct End {
    /// How.
    pub(crate) text: TextId,
    /// By which step; `None`: the policy.
    pub(crate) step: Option<u32>,
    /// A guard of the step found the header cut off.
    pub(crate) is_malformed: bool,
}

/// What a walk needs to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Head {
    /// Nothing: it has ended.
    End(End),
    /// Nothing: the goal is met.
    Goal,
    /// The next step covers a part of the region only.
    Partial(u32),
    /// The region must be cut here: a guard holds for a part of it.
    Cut(AxisId, u32),
    /// To know what this comes out as.
    Ask(Asked),
    /// A test that regions cannot express.
    Inexpressible,
}

impl Side {
    /// The beginning: all steps that meet the region.
    pub(crate) fn new(world: &World, course: &Course, region: &Region) -> Side {
        let all = (0..).take(course.steps.len());
        Side::of_list(narrow(world, course, all, region, None))
    }

    /// At the beginning of a list, with nothing done yet.
    pub(crate) fn of_list(list: List) -> Side {
        let state = Arc::new(State { change: Change::NONE, notes: Vec::new(), asked: Vec::new() });
        Side { list, next: 0, guards: 0, state, goal: None }
    }

    /// The steps that are left.
    pub(crate) fn rest(&self) -> &[u32] {
        self.list.get(self.next..).unwrap_or(&[])
    }

    /// Carried into a part of the region that was cut on `axis`.
    pub(crate) fn narrowed(&self, world: &World, course: &Course, region: &Region, axis: AxisId) -> Side {
        let list = narrow(world, course, self.rest().iter().copied(), region, Some(axis));
        // The guards that hold are those of the first step, which is still there: it covered the region.
        Side { list, next: 0, guards: self.guards, state: Arc::clone(&self.state), goal: self.goal }
    }

    /// Goes on while nothing is in the way.
    pub(crate) fn settle(&mut self, world: &World, course: &Course, region: &Region, known: &Known) -> Head {
        loop {
            let Some(&at) = self.list.get(self.next) else {
                return Head::End(End { text: course.policy, step: None, is_malformed: false });
            };
            let step = &course.steps[at as usize];
            if self.guards == 0 && !world.condition_covers(&step.condition, region) {
                // With alternatives it may be that none is left: then the step is passed.
                if world.condition_meets(&step.condition, region) {
                    return Head::Partial(at);
                }
                self.next += 1;
                continue;
            }
            match self.guards(world, step, region, known) {
                Guarded::Hold => {}
                Guarded::Fail => {
                    self.guards = 0;
                    match step.action {
                        Action::Enter(to) => self.skip_to(to),
                        _ => self.next += 1,
                    }
                    continue;
                }
                Guarded::Malformed(text) => {
                    return Head::End(End { text, step: Some(at), is_malformed: true });
                }
                Guarded::Needs(head) => return head,
            }
            if self.goal == Some(at) {
                return Head::Goal;
            }
            match step.action {
                Action::End(text) => {
                    return Head::End(End { text, step: Some(at), is_malformed: step.is_malformed });
                }
                Action::Effect(effect, note) => {
                    if let Some(head) = self.effect(world, effect, note, region) {
                        return head;
                    }
                    self.guards = 0;
                    self.next += 1;
                }
                Action::Skip(to) => {
                    self.guards = 0;
                    self.skip_to(to);
                }
                Action::Enter(_) => {
                    self.guards = 0;
                    self.next += 1;
                }
            }
        }
    }

    pub(crate) fn skip_to(&mut self, to: u32) {
        self.next += self.rest().partition_point(|&s| s < to);
    }

    /// The guards of the next step, from the first that was not looked at.
    fn guards(&mut self, world: &World, step: &Step, region: &Region, known: &Known) -> Guarded {
        while let Some(guard) = step.guards.get(self.guards) {
            let guarded = match guard {
                Guard::Choice(choice) => choice_holds(world, choice, region),
                Guard::Test(clause) => match world.space.clause(clause, &self.state.change) {
                    Err(_) => return Guarded::Needs(Head::Inexpressible),
                    Ok(all) => {
                        let mut guarded = Guarded::Hold;
                        for alternatives in all {
                            let relations = alternatives
                                .iter()
                                .map(|(axis, set)| (*axis, set.relation(region[usize::from(*axis)])));
                            guarded = any_holds(relations);
                            if !matches!(guarded, Guarded::Hold) {
                                break;
                            }
                        }
                        guarded
                    }
                },
                Guard::Malformed(literal) => match choice_holds(world, &[*literal], region) {
                    Guarded::Hold => match world.drop_text() {
                        Some(text) => Guarded::Malformed(text),
                        None => Guarded::Needs(Head::Inexpressible),
                    },
                    Guarded::Fail => Guarded::Hold,
                    other => other,
                },
                Guard::Residual { text, kind, .. } => self.residual(*text, *kind, known),
            };
            match guarded {
                Guarded::Hold => self.guards += 1,
                other => return other,
            }
        }
        Guarded::Hold
    }

    fn residual(&mut self, text: TextId, kind: Residual, known: &Known) -> Guarded {
        let kind = match kind {
            Residual::Pure => AskedKind::Pure,
            Residual::Stateful => AskedKind::Stateful,
            Residual::Unknown => AskedKind::Unknown,
        };
        let time = match kind {
            // A function of the packet: see `Residual::Pure`.
            AskedKind::Pure => 0,
            _ => self.state.asked.iter().filter(|a| a.text == text).count() as u32,
        };
        let asked = Asked { text, time, kind };
        let Some(&(_, held)) = known.iter().find(|k| k.0 == asked) else {
            return Guarded::Needs(Head::Ask(asked));
        };
        if kind != AskedKind::Pure {
            Arc::make_mut(&mut self.state).asked.push(asked);
        }
        if held { Guarded::Hold } else { Guarded::Fail }
    }

    /// Makes a change; a head when the region must be cut first.
    fn effect(
        &mut self,
        world: &World,
        effect: Effect,
        note: Option<TextId>,
        region: &Region,
    ) -> Option<Head> {
        let mut is_made = effect != Effect::None;
        if needs_connection(effect) {
            is_made = !self.state.change.is_untracked;
            if is_made && let Some((axis, tracked)) = world.space.tracked() {
                match tracked.relation(region[usize::from(axis)]) {
                    Relation::Covers => {}
                    Relation::Apart => is_made = false,
                    Relation::Cut(at) => return Some(Head::Cut(axis, at)),
                }
            }
        }
        if is_made || note.is_some() {
            let state = Arc::make_mut(&mut self.state);
            state.notes.extend(note);
            if is_made {
                state.change.apply(effect);
            }
        }
        None
    }

    /// Whether everything that is left is plain.
    pub(crate) fn is_plain(&self, course: &Course) -> bool {
        self.guards == 0 && self.rest().iter().all(|&s| course.steps[s as usize].is_plain())
    }
}

enum Guarded {
    Hold,
    Fail,
    Malformed(TextId),
    Needs(Head),
}

fn choice_holds(world: &World, choice: &[Literal], region: &Region) -> Guarded {
    any_holds(choice.iter().map(|&(axis, set)| (axis, world.set(set).relation(region[usize::from(axis)]))))
}

fn any_holds(relations: impl Iterator<Item = (AxisId, Relation)>) -> Guarded {
    let mut cut = None;
    for (axis, relation) in relations {
        match relation {
            Relation::Covers => return Guarded::Hold,
            Relation::Apart => {}
            Relation::Cut(at) => cut = cut.or(Some(Head::Cut(axis, at))),
        }
    }
    cut.map_or(Guarded::Fail, Guarded::Needs)
}

/// The steps of `from` that meet the region, up to one that ends it for all of its packets. `axis`: the steps
/// met the region before it was cut there.
pub(crate) fn narrow(
    world: &World,
    course: &Course,
    from: impl Iterator<Item = u32>,
    region: &Region,
    axis: Option<AxisId>,
) -> List {
    let mut list = Vec::new();
    let mut skipped_to = 0;
    for at in from {
        let step = &course.steps[at as usize];
        let meets = match axis {
            Some(axis) => meets_on(world, step, region, axis),
            None => world.condition_meets(&step.condition, region),
        };
        if !meets {
            continue;
        }
        list.push(at);
        match step.action {
            Action::Skip(to) | Action::Enter(to) => skipped_to = skipped_to.max(to),
            Action::End(_)
                if step.guards.is_empty()
                    && at >= skipped_to
                    && world.condition_covers(&step.condition, region) =>
            {
                break;
            }
            _ => {}
        }
    }
    list.into()
}

/// Whether a step that met a region meets the part of it that was cut off on `axis`.
#[inline]
fn meets_on(world: &World, step: &Step, region: &Region, axis: AxisId) -> bool {
    let units = &step.condition.units;
    let unit = units.iter().find(|unit| unit.0 == axis);
    unit.is_none_or(|&unit| world.meets(unit, region))
        && step.condition.choices.iter().all(|c: &Choice| c.iter().any(|&l| world.meets(l, region)))
}

/// The part of a region below a cut, and the part from it on.
pub(crate) fn halves(region: &Region, axis: AxisId, at: u32) -> (Region, Region) {
    let (mut below, mut above) = (region.clone(), region.clone());
    let i = usize::from(axis);
    below[i].1 = at - 1;
    above[i].0 = at;
    (below, above)
}
