//! Which steps of two lists do not stand in the same order.
//!
//! Steps with the same content are paired, the first with the first, the second with the second. The longest
//! rising run of pairs is what both lists have in common; everything else is *loose*. A packet that meets no
//! loose step is treated alike by both: they show it the same steps in the same order.

use std::collections::HashMap;

use crate::space::Region;
use crate::unfold::{Action, Course, Step, World};

/// Loose steps of both lists, by position in their course, rising.
#[derive(Debug, Clone, Default)]
pub(super) struct Loose {
    pub(super) a: Vec<u32>,
    pub(super) b: Vec<u32>,
}

impl Loose {
    pub(super) fn len(&self) -> usize {
        self.a.len() + self.b.len()
    }
}

/// How many steps both lists begin with.
pub(super) fn common_prefix(a: (&Course, &[u32]), b: (&Course, &[u32])) -> usize {
    let content = |(course, list): (&Course, &[u32]), i: usize| course.steps[list[i] as usize].content;
    let len = a.1.len().min(b.1.len());
    (0..len).find(|&i| content(a, i) != content(b, i)).unwrap_or(len)
}

/// The pairs of steps with the same content, by position in `b`, for each step of `a`.
fn pairs(a: (&Course, &[u32]), b: (&Course, &[u32])) -> Vec<Option<usize>> {
    let mut places: HashMap<u32, Vec<usize>> = HashMap::with_capacity(b.1.len());
    for (i, &at) in b.1.iter().enumerate().rev() {
        places.entry(b.0.steps[at as usize].content).or_default().push(i);
    }
    a.1.iter().map(|&at| places.get_mut(&a.0.steps[at as usize].content).and_then(Vec::pop)).collect()
}

/// The loose steps of two lists. Costs n log n.
pub(super) fn loose(a: (&Course, &[u32]), b: (&Course, &[u32])) -> Loose {
    let skip = common_prefix(a, b);
    let (a, b) = ((a.0, &a.1[skip..]), (b.0, &b.1[skip..]));
    let pairs = pairs(a, b);
    let mut is_common_a = vec![false; a.1.len()];
    let mut is_common_b = vec![false; b.1.len()];
    for i in rising(&pairs) {
        is_common_a[i] = true;
        if let Some(j) = pairs[i] {
            is_common_b[j] = true;
        }
    }
    let pick = |list: &[u32], common: &[bool]| {
        list.iter().zip(common).filter(|(_, common)| !**common).map(|(&at, _)| at).collect()
    };
    Loose { a: pick(a.1, &is_common_a), b: pick(b.1, &is_common_b) }
}

/// The positions of a longest run of rising values.
fn rising(values: &[Option<usize>]) -> Vec<usize> {
    // tails[n]: the position that ends a run of n + 1 values with the smallest last one.
    let mut tails: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = vec![None; values.len()];
    for (i, value) in values.iter().enumerate().filter(|(_, v)| v.is_some()) {
        let at = tails.partition_point(|&t| values[t] < *value);
        before[i] = at.checked_sub(1).map(|n| tails[n]);
        if at == tails.len() { tails.push(i) } else { tails[at] = i }
    }
    let mut run = Vec::with_capacity(tails.len());
    let mut next = tails.last().copied();
    while let Some(i) = next {
        run.push(i);
        next = before[i];
    }
    run.reverse();
    run
}

/// Of the loose steps of two plain lists, those whose order matters: that have no pair, or stand in the other
/// order to a step with which they share a packet of the region and which ends otherwise. Costs loose × steps.
pub(super) fn that_matter(
    world: &World,
    region: &Region,
    a: (&Course, &[u32]),
    b: (&Course, &[u32]),
    loose: &Loose,
) -> Loose {
    let pairs = pairs(a, b);
    let mut kept = Loose::default();
    let mut has_pair = vec![false; b.1.len()];
    for j in pairs.iter().flatten() {
        has_pair[*j] = true;
    }
    // A list ends at a step that covers the region: what had a pair may have lost it.
    kept.b.extend(b.1.iter().zip(&has_pair).filter(|(_, has)| !**has).map(|(&at, _)| at));
    // In lists that were narrowed further, a step may be loose whose pair was common: look at both ends.
    let mut is_loose_b: Vec<bool> = vec![false; b.1.len()];
    for &at in &loose.b {
        if let Ok(j) = b.1.binary_search(&at) {
            is_loose_b[j] = true;
        }
    }
    for (i, &at) in a.1.iter().enumerate() {
        let Some(own) = pairs[i] else {
            kept.a.push(at);
            continue;
        };
        if !is_loose_b[own] && loose.a.binary_search(&at).is_err() {
            continue;
        }
        let step = &a.0.steps[at as usize];
        let matters = a.1.iter().enumerate().any(|(k, &other)| {
            pairs[k].is_some_and(|pair| (k < i) != (pair < own) && k != i) && {
                let other = &a.0.steps[other as usize];
                !end_alike(step, other) && may_share(world, region, step, other)
            }
        });
        if matters {
            kept.a.push(at);
            kept.b.push(b.1[own]);
        }
    }
    kept.b.sort_unstable();
    kept
}

fn end_alike(a: &Step, b: &Step) -> bool {
    matches!((a.action, b.action), (Action::End(x), Action::End(y)) if x == y)
}

/// Whether two steps may both hold for a packet of the region.
fn may_share(world: &World, region: &Region, a: &Step, b: &Step) -> bool {
    a.condition.units.iter().all(|&(axis, x)| {
        let Some(&(_, y)) = b.condition.units.iter().find(|unit| unit.0 == axis) else { return true };
        let (lo, hi) = region[usize::from(axis)];
        match (world.set(x).intervals(), world.set(y).intervals()) {
            ([one], [other]) => one.0.max(other.0).max(lo) <= one.1.min(other.1).min(hi),
            _ => world.set(x).intersect(world.set(y)).meets((lo, hi)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longest_rising_run_is_found() {
        let check = |values: &[i32], expected: &[usize]| {
            let values: Vec<Option<usize>> = values.iter().map(|&v| usize::try_from(v).ok()).collect();
            assert_eq!(rising(&values), expected);
        };
        check(&[], &[]);
        check(&[0, 1, 2], &[0, 1, 2]);
        check(&[2, 0, -1, 1, 3], &[1, 3, 4]);
        check(&[3, 2, 1], &[2]);
    }
}
