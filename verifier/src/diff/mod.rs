//! The packets that two rulesets treat differently, exactly.
//!
//! Both courses are walked in step over the same regions, from the whole space down:
//!
//! ```text
//!   region, what is left of OLD there, what is left of NEW there
//!       the same steps in the same order            ▶ equal, whatever they are
//!       the same, but for the order of steps that   ▶ equal
//!         share no packet or end alike
//!       all that is left ends alike                 ▶ equal
//!       both end                                    ▶ equal, or a difference: this region
//!       else cut in two, at a bound of a step that stands in one list only, or elsewhere
//! ```
//!
//! The first three lines are what makes it fast: two files of 100,000 rules that share nearly all of them are
//! equal nearly everywhere after a few cuts around those that they do not share.
//!
//! *Treated* means: the verdict with its options, targets that do something on the way (LOG, MARK, …) in
//! order, and residual matches that count (limit, recent, …) in the order in which they are asked. A residual
//! match says the same in both rulesets when it is written the same. Counters of rules are no difference.
//!
//! # Cost
//!
//! Steps looked at, summed over all regions; [`Options::work_max`] ends it, and what is left is reported as
//! undecided. Memory is the lists of the regions that wait: no more than depth × steps for each thread, and
//! shared. Regions are spread over all cores; what is found does not depend on how many there are.

mod align;
pub(crate) mod report;
mod spread;
#[cfg(test)]
mod tests;
pub(crate) mod walk;

use std::sync::Arc;

use hipac_classifier::Packet;
use hipac_rules::{Family, Hook, TableKind};

use crate::subject::By;
use crate::unfold::{Course, TooManySteps, World};
use crate::{Oracle, RuleId, space};

/// A table and a hook of it: a built-in chain.
pub type Entry = (TableKind, Hook);

/// How differences are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Steps looked at before the rest is left undecided. A billion takes some seconds.
    pub work_max: u64,
    /// Regions kept before the rest is left undecided.
    pub regions_max: usize,
    /// Compare verdicts only: neither what is done on the way nor which residual matches are asked.
    pub verdicts_only: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { work_max: 4_000_000_000, regions_max: 200_000, verdicts_only: false }
    }
}

/// How far a comparison is; it goes on while the answer is true.
pub type Watch<'a> = &'a mut (dyn FnMut(Progress) -> bool + Send);

/// How far a comparison is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// The part of the space that is decided, from 0 to 1.
    pub decided: f64,
    /// Regions that differ so far.
    pub regions: usize,
}

/// What a comparison found.
#[derive(Debug)]
pub struct Report {
    /// One for each pair of built-in chains.
    pub places: Vec<PlaceReport>,
}

/// What was found for a pair of built-in chains.
#[derive(Debug)]
pub struct PlaceReport {
    /// Of the old ruleset.
    pub old: Entry,
    /// Of the new one.
    pub new: Entry,
    /// What differs, largest first; no two of them hold a packet in common under the same residual matches.
    pub differences: Vec<Difference>,
    /// What was not looked at.
    pub undecided: Option<Undecided>,
    /// Regions that were looked at.
    pub regions: u64,
    /// Steps on both sides.
    pub steps: (usize, usize),
    world: Arc<World>,
    /// The old ruleset's.
    course: Course,
}

/// What is left when the work allowed is done.
#[derive(Debug, Clone, PartialEq)]
pub struct Undecided {
    /// Why it ended.
    pub why: &'static str,
    /// Regions that wait.
    pub regions: usize,
    /// Some of them in words, largest first.
    pub examples: Vec<String>,
}

/// Packets that are treated differently, in one way.
#[derive(Debug)]
pub struct Difference {
    /// The packets: `tcp 10.0.0.0/8 → 192.168.5.0/24:5000-5010`.
    pub words: String,
    /// How many there are, as a power of two.
    pub bits: f64,
    /// One of them.
    pub packet: Packet,
    /// Residual matches on which it hangs: `-m limit … holds`.
    pub conditions: Vec<String>,
    /// What the old ruleset does.
    pub old: Treatment,
    /// What the new one does.
    pub new: Treatment,
    /// The oracle, asked about `packet` on both sides, says the same.
    pub is_confirmed: bool,
    /// Rules before that decide alike in both: packets that they take are no part of the difference.
    pub except: Vec<RuleId>,
    /// Their steps.
    holes: Vec<u32>,
    shape: space::Shape,
}

/// What happens to a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Treatment {
    /// The target with its options, or the policy.
    pub verdict: String,
    /// What gave it.
    pub by: By,
    /// What was done on the way.
    pub notes: Vec<String>,
    /// Residual matches that were asked and count.
    pub asked: Vec<String>,
}

impl Report {
    /// Both are proved to treat every packet alike.
    pub fn is_equal(&self) -> bool {
        self.places.iter().all(|p| p.differences.is_empty() && p.undecided.is_none())
    }
}

impl PlaceReport {
    /// The differences that hold this packet.
    pub fn of_packet(&self, packet: &Packet) -> Vec<&Difference> {
        let Some(point) = self.world.space.point(packet) else { return Vec::new() };
        let here: Vec<space::Interval> = point.iter().map(|&atom| (atom, atom)).collect();
        let takes = |&at: &u32| {
            let condition = &self.course.steps[at as usize].condition;
            self.world.condition_covers(condition, &here)
        };
        let holds = |d: &&Difference| {
            d.shape.iter().zip(&point).all(|(set, &atom)| set.contains(atom)) && !d.holes.iter().any(takes)
        };
        self.differences.iter().filter(holds).collect()
    }
}

/// Why nothing could be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiffError {
    /// One is for IPv4, the other for IPv6.
    Families(Family, Family),
    /// Too many steps.
    TooManySteps(TooManySteps),
}

impl std::error::Error for DiffError {}

impl std::fmt::Display for DiffError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DiffError::Families(old, new) => {
                write!(f, "the old rules are for {}, the new ones for {}", old.name(), new.name())
            }
            DiffError::TooManySteps(error) => error.fmt(f),
        }
    }
}

/// The built-in chains of both rulesets, in pairs; one that a ruleset lacks lets everything pass.
pub fn entries(old: &Oracle<'_>, new: &Oracle<'_>) -> Vec<(Entry, Entry)> {
    let has = |kind| old.ruleset().table(kind).is_some() || new.ruleset().table(kind).is_some();
    let tables = TableKind::ALL.into_iter().filter(|&kind| has(kind));
    let entries = tables.flat_map(|kind| kind.hooks().iter().map(move |&hook| (kind, hook)));
    entries.map(|entry| (entry, entry)).collect()
}

/// Compares pairs of built-in chains.
///
/// # Errors
///
/// Different families, or chains that unfold into too many steps.
pub fn diff(
    old: &Oracle<'_>,
    new: &Oracle<'_>,
    entries: &[(Entry, Entry)],
    options: &Options,
    watch: Watch<'_>,
) -> Result<Report, DiffError> {
    if old.family() != new.family() {
        return Err(DiffError::Families(old.family(), new.family()));
    }
    let places = report::places(old, new, entries, options, watch).map_err(DiffError::TooManySteps)?;
    Ok(Report { places })
}
