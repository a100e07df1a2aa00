//! Whether a packet of a region gets to a step, or past all of them.
//!
//! Like [`gap`](super::hunt::gap), for lists in which steps skip, change the packet or ask: those are walked,
//! the region cut and forked, until what is left is plain.

use std::collections::BTreeSet;

use super::cut::{best, sample};
use super::hunt::{Gap, gap};
use super::{AskedKind, Head, Known, Side, halves, narrow};
use crate::space::Region;
use crate::unfold::{Course, World};

/// Whether a step can be reached.
pub(crate) enum Reach {
    /// By every packet of this region, when residual matches come out so.
    Yes(Region, Known),
    /// By none: these steps take all of them.
    No(BTreeSet<u32>),
    /// The work allowed is done.
    Unknown,
}

/// Whether some packet of the region gets past `before` to the goal, or to the policy.
pub(crate) fn hunt(
    world: &World,
    course: &Course,
    goal: Option<u32>,
    region: &Region,
    before: &[u32],
    mut work: u64,
) -> Reach {
    let step = |at: u32| &course.steps[at as usize];
    let mut blockers = BTreeSet::new();
    let steps = before.iter().copied().chain(goal);
    let mut side = Side::of_list(narrow(world, course, steps, region, None));
    side.goal = goal;
    let mut open: Vec<(Region, Side, Known)> = vec![(region.clone(), side, Known::new())];
    while let Some((region, mut side, known)) = open.pop() {
        work = work.saturating_sub(side.rest().len() as u64 + 4);
        if work == 0 {
            return Reach::Unknown;
        }
        if let Some(goal) = goal
            && side.guards == 0
            && !world.condition_meets(&step(goal).condition, &region)
        {
            continue;
        }
        if let Some(goal) = goal {
            match side.rest().last() {
                // The list was closed in front of it.
                Some(&last) if last != goal => {
                    blockers.insert(last);
                    continue;
                }
                None => continue,
                _ => {}
            }
            if side.guards == 0 && !world.condition_covers(&step(goal).condition, &region) {
                if world.condition_meets(&step(goal).condition, &region) {
                    let Some((axis, at)) = best(world, &region, &[(course, goal)], &[]) else {
                        return Reach::Unknown;
                    };
                    cut(world, course, &mut open, (region, side, known), axis, at);
                }
                continue;
            }
        }
        let in_front = goal.map_or(side.rest().len(), |_| side.rest().len() - 1);
        let plain = side.guards == 0 && side.rest()[..in_front].iter().all(|&s| step(s).is_plain());
        if plain && goal.is_none_or(|g| step(g).guards.is_empty()) {
            let steps = side.rest()[..in_front].iter().copied();
            match gap(world, course, &region, steps, &mut work) {
                Gap::Here(region) => return Reach::Yes(region, known),
                Gap::None(by) => blockers.extend(by),
                Gap::Unknown => return Reach::Unknown,
            }
            continue;
        }
        match side.settle(world, course, &region, &known) {
            Head::Goal => return Reach::Yes(region, known),
            Head::End(end) => match end.step {
                None if goal.is_none() => return Reach::Yes(region, known),
                None => {}
                Some(at) => drop(blockers.insert(at)),
            },
            Head::Inexpressible => return Reach::Unknown,
            Head::Cut(axis, at) => cut(world, course, &mut open, (region, side, known), axis, at),
            Head::Partial(partial) => {
                let others = sample(course, side.rest());
                let Some((axis, at)) = best(world, &region, &[(course, partial)], &others) else {
                    return Reach::Unknown;
                };
                cut(world, course, &mut open, (region, side, known), axis, at);
            }
            Head::Ask(asked) => {
                // What counts comes out as it likes, each time.
                debug_assert!(asked.time == 0 || asked.kind != AskedKind::Pure);
                for held in [true, false] {
                    let mut known = known.clone();
                    known.push((asked, held));
                    open.push((region.clone(), side.clone(), known));
                }
            }
        }
    }
    Reach::No(blockers)
}

fn cut(
    world: &World,
    course: &Course,
    open: &mut Vec<(Region, Side, Known)>,
    (region, side, known): (Region, Side, Known),
    axis: u8,
    at: u32,
) {
    let (below, above) = halves(&region, axis, at);
    for half in [below, above] {
        let side = side.narrowed(world, course, &half, axis);
        open.push((half, side, known.clone()));
    }
}
