//! A walk on all cores.
//!
//! The halves of a cut have nothing to do with each other: while they are large, each is walked by whoever is free.
//! What they found is put together in the order in which one thread would have found it, so it is the same
//! whatever the number of threads.
//!
//! Limits are the exception: where one is met depends on who got there first. Then what was found is thrown
//! away and one thread walks alone, up to the same place every time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::walk::{Found, Node, WATCH_REGIONS, Walk, join};
use super::{Options, Progress, Watch};
use crate::unfold::{Course, World};

/// Steps of a region that are too few to be worth another thread.
const STEPS_MIN: usize = 512;
/// Cuts above each other that are spread; a thread's stack holds so many.
const DEPTH_MAX: u32 = 48;
/// Halves that one thread alone has kept at most while it had not found the others: where so few regions are
/// left to the limit it is asked.
const BEFORE_JOINED_MAX: usize = 4096;

/// What all threads know.
struct Shared<'s> {
    world: &'s World,
    courses: (&'s Course, &'s Course),
    options: Options,
    watch: Mutex<Watch<'s>>,
    work: AtomicU64,
    found: AtomicU64,
    /// A limit was met.
    is_over: AtomicBool,
    decided: Mutex<f64>,
}

/// What a part of the walk found.
#[derive(Default)]
struct Part {
    found: Vec<Found>,
    regions: u64,
}

/// Walks to the end, on all cores.
pub(super) fn run(walk: &mut Walk<'_>, watch: Watch<'_>) {
    if rayon::current_num_threads() > 1
        && let [root] = &walk.open[..]
    {
        let shared = Shared {
            world: walk.world,
            courses: (walk.a, walk.b),
            options: walk.options,
            watch: Mutex::new(&mut *watch),
            work: AtomicU64::new(0),
            found: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            decided: Mutex::new(0.0),
        };
        let whole = part(root.clone(), 0, &shared);
        if !shared.is_over.load(Ordering::Relaxed)
            && whole.found.len() + BEFORE_JOINED_MAX <= walk.options.regions_max
        {
            walk.open.clear();
            walk.found = whole.found;
            walk.regions = whole.regions;
            return;
        }
    }
    walk.run(watch);
}

fn part(node: Node, depth: u32, shared: &Shared<'_>) -> Part {
    let left = shared.options.work_max.saturating_sub(shared.work.load(Ordering::Relaxed));
    let options = Options { work_max: left, ..shared.options };
    let mut walk = Walk::of_node(shared.world, shared.courses, node, options);
    let (mut told, mut known, mut halves) = (0, 0, None);
    while let Some(node) = walk.open.pop() {
        let is_large = depth < DEPTH_MAX && node.a.rest().len() + node.b.rest().len() >= STEPS_MIN;
        let behind = walk.open.len();
        walk.count(&node);
        walk.node(node);
        // A walk that stopped, or could not tell, has left its region where it was.
        let is_stuck = walk.stopped.is_some() || walk.work > left;
        if is_stuck || shared.is_over.load(Ordering::Relaxed) {
            shared.is_over.store(true, Ordering::Relaxed);
            return Part::default();
        }
        let is_split = is_large && behind == 0 && walk.open.len() == 2;
        if is_split || walk.regions.is_multiple_of(WATCH_REGIONS) || walk.open.is_empty() {
            let work = shared.work.fetch_add(walk.work - told, Ordering::Relaxed) + walk.work - told;
            // Regions that became one were counted apart: that is too many at most.
            let new = walk.found.len().saturating_sub(known) as u64;
            let found = shared.found.fetch_add(new, Ordering::Relaxed) + new;
            (told, known) = (walk.work, walk.found.len());
            let is_over = work > shared.options.work_max
                || found > shared.options.regions_max as u64
                || !shared.tell(&mut walk.decided, found);
            if is_over {
                shared.is_over.store(true, Ordering::Relaxed);
                return Part::default();
            }
        }
        if is_split {
            halves = walk.open.pop().zip(walk.open.pop());
            break;
        }
    }
    let mut part = Part { found: walk.found, regions: walk.regions };
    if let Some((first, second)) = halves {
        let (a, b) =
            rayon::join(|| self::part(first, depth + 1, shared), || self::part(second, depth + 1, shared));
        for half in [a, b] {
            half.found.into_iter().for_each(|found| join(&mut part.found, found));
            part.regions += half.regions;
        }
    }
    part
}

impl Shared<'_> {
    /// Says how far it is; false when it is to end.
    fn tell(&self, decided: &mut f64, regions: u64) -> bool {
        let all = {
            let mut all = self.decided.lock().unwrap_or_else(PoisonError::into_inner);
            *all += std::mem::take(decided);
            *all
        };
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        // As many as regions kept: fits.
        watch(Progress { decided: all, regions: regions as usize })
    }
}
