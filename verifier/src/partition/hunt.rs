//! Looking for a packet that none of many conditions holds for.
//!
//! ```text
//!   region, conditions that meet it:   none     ▶ here
//!                                      one covers it ▶ not here
//!                                      else     ▶ cut it in two, look first where fewer meet
//! ```
//!
//! Finding a packet costs about the depth of the cuts; that there is none costs looking everywhere, and says
//! which conditions it takes to cover the region.

use std::collections::BTreeSet;

use super::cut::{best, sample};
use super::{halves, narrow};
use crate::space::Region;
use crate::unfold::{Course, World};

/// What was found.
#[derive(Debug)]
pub(crate) enum Gap {
    /// A region that none of the steps meets.
    Here(Region),
    /// None: these steps cover all of it together.
    None(BTreeSet<u32>),
    /// The work allowed is done.
    Unknown,
}

/// Looks for a part of `region` that none of the plain steps of `list` meets. Costs at most `work`, in steps
/// looked at; what is used is taken off.
pub(crate) fn gap(
    world: &World,
    course: &Course,
    region: &Region,
    list: impl Iterator<Item = u32>,
    work: &mut u64,
) -> Gap {
    let list = narrow(world, course, list, region, None);
    let mut open = vec![(region.clone(), list)];
    let mut covering = BTreeSet::new();
    while let Some((region, list)) = open.pop() {
        let Some(&last) = list.last() else { return Gap::Here(region) };
        *work = work.saturating_sub(list.len() as u64 + 4);
        if *work == 0 {
            return Gap::Unknown;
        }
        // A list ends at the first step that covers the region.
        if world.condition_covers(&course.steps[last as usize].condition, &region) {
            covering.insert(last);
            continue;
        }
        // None of them covers the region, so each has a bound in it.
        let pivots = sample(course, &list);
        let Some((axis, at)) = best(world, &region, &pivots, &[]) else { return Gap::Unknown };
        let (below, above) = halves(&region, axis, at);
        let mut halves = [below, above].map(|half| {
            let list = narrow(world, course, list.iter().copied(), &half, Some(axis));
            (half, list)
        });
        let is_covered = |(half, list): &(Region, super::List)| {
            list.last().is_some_and(|&at| world.condition_covers(&course.steps[at as usize].condition, half))
        };
        halves.sort_by_key(|half| std::cmp::Reverse((is_covered(half), half.1.len())));
        open.extend(halves);
    }
    Gap::None(covering)
}
