//! Where to cut a region.
//!
//! The cut that is wanted separates the steps that matter from each other and copies few. Candidates are
//! bounds of the steps that matter; each is judged by how many steps of a sample would be carried to either
//! half: `below² + above²`, which is small when the halves are small and even.

use crate::space::{AxisId, Region, Relation};
use crate::unfold::{Course, Step, World};

/// Steps whose bounds are tried.
const PIVOTS_MAX: usize = 12;
/// Steps by which a cut is judged.
const SAMPLE_MAX: usize = 48;

/// A step with its course.
pub(crate) type StepOf<'a> = (&'a Course, u32);

fn step<'a>((course, at): StepOf<'a>) -> &'a Step {
    &course.steps[at as usize]
}

/// The best cut at a bound of `pivots`, judged by what it does to them and to `others`. `None` when none of
/// them has a bound in the region.
pub(crate) fn best(
    world: &World,
    region: &Region,
    pivots: &[StepOf<'_>],
    others: &[StepOf<'_>],
) -> Option<(AxisId, u32)> {
    let mut candidates: Vec<(AxisId, u32)> = Vec::new();
    for pivot in spread(pivots, PIVOTS_MAX) {
        bounds(world, step(pivot), region, &mut candidates);
    }
    if candidates.is_empty() {
        // The few that were looked at cover the region: look at all.
        let found = pivots.iter().find_map(|&pivot| {
            bounds(world, step(pivot), region, &mut candidates);
            candidates.first().copied()
        });
        found?;
    }
    candidates.sort_unstable();
    candidates.dedup();
    if candidates.len() == 1 {
        return candidates.first().copied();
    }
    let sample: Vec<StepOf<'_>> = spread(pivots, SAMPLE_MAX).chain(spread(others, SAMPLE_MAX)).collect();
    let cost = |&(axis, at): &(AxisId, u32)| {
        let own = region[usize::from(axis)];
        let (mut below, mut above) = (1u64, 1u64);
        for &of in &sample {
            let set = step(of).condition.units.iter().find(|unit| unit.0 == axis);
            let Some(&(_, set)) = set else {
                below += 1;
                above += 1;
                continue;
            };
            below += u64::from(world.set(set).meets((own.0, at - 1)));
            above += u64::from(world.set(set).meets((at, own.1)));
        }
        below * below + above * above
    };
    candidates.into_iter().min_by_key(cost)
}

/// Some steps of a list, evenly spread: enough to judge a cut by.
pub(crate) fn sample<'a>(course: &'a Course, list: &[u32]) -> Vec<StepOf<'a>> {
    let stride = list.len().div_ceil(SAMPLE_MAX).max(1);
    list.iter().step_by(stride).map(|&at| (course, at)).collect()
}

/// At most `max` of them, evenly spread.
fn spread<'a, 's>(steps: &'s [StepOf<'a>], max: usize) -> impl Iterator<Item = StepOf<'a>> + use<'a, 's> {
    let stride = steps.len().div_ceil(max).max(1);
    steps.iter().copied().step_by(stride)
}

/// The bounds of a step inside of the region: the first on each axis, and the last.
fn bounds(world: &World, step: &Step, region: &Region, out: &mut Vec<(AxisId, u32)>) {
    let literals = step.condition.units.iter().chain(step.condition.choices.iter().flat_map(|c| c.iter()));
    for &(axis, set) in literals {
        let own = region[usize::from(axis)];
        if let Relation::Cut(at) = world.set(set).relation(own) {
            out.push((axis, at));
            // Behind its last interval, where it ends inside.
            let intervals = world.set(set).intervals();
            let behind = intervals.partition_point(|i| i.0 <= own.1);
            if let Some(&(_, hi)) = behind.checked_sub(1).and_then(|i| intervals.get(i))
                && hi < own.1
                && hi >= own.0
            {
                out.push((axis, hi + 1));
            }
        }
    }
}
