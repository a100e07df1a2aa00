//! `hipac plan`: what a memory budget buys.
//!
//! ```text
//!   refused ◀──────┬───────────────────────────────────┬──────▶ nothing changes any more
//!             the smallest                        what the fastest
//!             that compiles                          form takes
//!                  ●────●────●────●────●────●────●────●    budgets, each a constant factor on
//! ```
//!
//! Every budget is compiled and measured on the same trace; those that give the same image are
//! one line.

mod curve;
mod dearest;
mod report;

use std::path::Path;

use hipac_classifier::Image;
use hipac_compiler::{CompileError, Compiled, Counting, Options};

use super::bench;
use crate::args::{Drawn, Format, Place, RulesFile};
use crate::exit::{Exit, Failure};
use crate::input::{self, OpenImage, Rules};
use crate::measure::{Lookups, Rates, Visited};
use crate::traffic::Trace;
use crate::{file, mapped, progress};

/// What is swept, and how.
pub(crate) struct Plan<'a> {
    pub(crate) place: &'a Place,
    pub(crate) drawn: &'a Drawn,
    pub(crate) packets: usize,
    /// Budgets tried.
    pub(crate) points: usize,
    pub(crate) svg: Option<&'a Path>,
    pub(crate) counting: Counting,
}

/// One budget, and what it buys.
struct Point {
    /// The smallest budget tried that gives this image.
    memory: usize,
    compiled: Compiled,
    rates: Rates,
    visited: Visited,
    /// Keys whose answers differ between lookups and their definition.
    differing: usize,
}

pub(crate) fn run(of: &RulesFile, plan: &Plan<'_>, format: Format) -> Result<Exit, Failure> {
    let rules = input::rules(of)?;
    rules.report();
    let busy = progress::bar(plan.points as u64, "compiling and measuring");
    let compile = |memory| {
        let options = Options { memory_bytes_max: memory, counting: plan.counting };
        hipac_compiler::compile(&rules.ruleset, &options)
    };
    let fastest = compile(usize::MAX).map_err(|e| Failure::at(&rules.name, e))?;
    let smallest = smallest(fastest.cost.image_bytes, |memory| compile(memory).map(drop))
        .map_err(|e| Failure::at(&rules.name, e))?;
    let mut points: Vec<Point> = Vec::new();
    for memory in budgets(smallest, fastest.cost.image_bytes, plan.points) {
        busy.inc(1);
        let compiled = compile(memory).map_err(|e| Failure::at(&rules.name, e))?;
        if points.last().is_none_or(|last| last.compiled.image != compiled.image) {
            points.push(point(&rules, plan, memory, compiled)?);
        }
    }
    busy.finish_and_clear();
    let dearest = dearest::rules(&open(&rules, fastest.image)?, &rules)?;
    if let Some(path) = plan.svg {
        let title = of.file.file_name().map_or(rules.name.clone(), |name| name.display().to_string());
        file::replace(path, curve::svg(&points, &title)?.as_bytes())?;
    }
    let is_clean = points.iter().all(|point| point.differing == 0);
    report::print(&points, &dearest, plan.svg, format)?;
    Ok(if is_clean { Exit::Clean } else { Exit::Findings })
}

fn open(rules: &Rules, image: Vec<u8>) -> Result<OpenImage, Failure> {
    Image::open(mapped::Bytes::from(image)).map_err(|e| Failure::at(&rules.name, e))
}

/// Seconds that one walk over the trace may take: the smallest forms are a thousand times slower
/// than the fastest.
const WALK_S: f64 = 0.1;

/// Measures what a budget gave. The trace is the same for every budget.
fn point(rules: &Rules, plan: &Plan<'_>, memory: usize, compiled: Compiled) -> Result<Point, Failure> {
    let image = bench::with_machine(open(rules, compiled.image.clone())?, plan.drawn.machine)?;
    let (table, chain, entry) = bench::entry(&image, plan.place)?;
    let traffic = (plan.drawn.traffic, plan.drawn.seed);
    // Keys are made anew: what a key holds, and where, is the image's own affair.
    let trace = Trace::draw(&rules.ruleset, (table, &chain), &image.key_maker(), plan.packets, traffic);
    let lookups = Lookups::new(image.forest(&entry, true), &trace.keys, WALK_S);
    let (differing, visited) = lookups.compare_with_definition(&lookups.batch_answers());
    Ok(Point { memory, rates: lookups.rates(), compiled, visited, differing })
}

/// Budgets compiled in search of the smallest, at most.
const TRIES_MAX: usize = 16;

/// The smallest budget that compiles, to 1/32: by bisection, led by what refusals say is needed.
/// `fits` compiles.
fn smallest(
    fits: usize,
    mut compile: impl FnMut(usize) -> Result<(), CompileError>,
) -> Result<usize, CompileError> {
    let (mut refused, mut fits) = (0, fits);
    // A refusal names what would do. That is tried, then what is just below it; and a middle
    // after each name that was wrong, so that the search ends whatever refusals say.
    let mut hint = Some(1);
    let mut just_below = false;
    for _ in 0..TRIES_MAX {
        if fits - refused <= fits / 32 {
            break;
        }
        let hinted = hint.take().filter(|&hint| refused < hint && hint < fits);
        let middle = refused + (fits - refused) / 2;
        let tried = hinted.unwrap_or(if just_below { fits - fits / 32 } else { middle }).max(refused + 1);
        just_below = false;
        match compile(tried) {
            Ok(()) => {
                fits = tried;
                just_below = hinted.is_some();
            }
            Err(CompileError::Memory { needed, .. }) => {
                let is_first = refused == 0;
                refused = tried;
                hint = (is_first || hinted.is_none()).then_some(needed);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(fits)
}

/// `count` budgets from `low` to `high`, each the same factor on.
fn budgets(low: usize, high: usize, count: usize) -> Vec<usize> {
    let (low, high) = (low.max(1), high.max(low).max(1));
    let factor = (high as f64 / low as f64).powf(1.0 / (count.max(2) - 1) as f64);
    let mut budgets: Vec<usize> = (0..count).map(|i| (low as f64 * factor.powi(i as i32)) as usize).collect();
    // Rounding must not lose either end: one might be refused, the other not the fastest.
    if let (Some(first), Some(_)) = (budgets.first_mut(), count.checked_sub(1)) {
        *first = low;
    }
    if let Some(last) = budgets.last_mut() {
        *last = high;
    }
    budgets.iter_mut().for_each(|budget| *budget = (*budget).clamp(low, high));
    budgets.dedup();
    budgets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_hold_both_ends_and_rise() {
        assert_eq!(budgets(100, 1600, 5), [100, 200, 400, 800, 1600]);
        assert_eq!(budgets(100, 100, 10), [100]);
        assert_eq!(budgets(100, 101, 10), [100, 101]);
        let all = budgets(12_345, 99_999_999, 10);
        assert!(all.len() == 10 && all.is_sorted() && all[9] == 99_999_999 && all[0] == 12_345);
    }

    /// Finds the least budget of a compiler that says `hint` is needed.
    #[track_caller]
    fn check(least: usize, fits: usize, hint: impl Fn(usize) -> usize) {
        let mut tries = 0;
        let found = smallest(fits, |memory| {
            tries += 1;
            let refusal =
                CompileError::Memory { needed: hint(memory), limit: memory, per_entry: String::new() };
            if memory < least { Err(refusal) } else { Ok(()) }
        });
        let found = found.unwrap();
        assert!(least <= found && found <= least + least / 16 + 1, "{found}, least {least}, {tries} tries");
    }

    #[test]
    fn the_smallest_budget_is_found_whatever_refusals_say() {
        check(1000, 1_000_000, |_| 1000); // the truth
        check(1000, 1_000_000, |_| 50_000); // more than is needed
        check(90_000, 1_000_000, |tried| tried + 1000); // too little
        check(1_000_000, 1_000_000, |_| 1_000_000); // nothing can be saved
        check(1000, 100_000, |_| 0); // nonsense
    }
}
