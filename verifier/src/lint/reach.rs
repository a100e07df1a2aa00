//! Which steps some packet reaches, and which some packet needs.

use std::collections::{BTreeMap, BTreeSet};

use hipac_rules::Effect;
use rayon::prelude::*;

use super::watch::{Progress, Watch};
use super::{Options, Status};
use crate::RuleId;
use crate::diff;
use crate::diff::walk::Walk;
use crate::partition::cut::{best, sample};
use crate::partition::reach::{Reach, hunt};
use crate::partition::{List, Side, halves, narrow};
use crate::space::Region;
use crate::unfold::{Action, Course, Guard, Step, TextId, World};

/// Steps that meet a region in which rules are looked at one by one.
const FEW: usize = 48;
/// A cut that carries more than this many times the steps to both halves together does not pay.
const COPIES_MAX: f64 = 1.6;
/// Regions that are looked at side by side. What one of them finds the others do not know, so that findings are
/// the same whatever the number of threads.
const BESIDE: usize = 16;
/// Rules of a region that one thread looks at.
const OPEN_MAX: usize = 32;
/// Rules named as those that take all packets of another.
const BLOCKERS_MAX: usize = 24;

/// One course, looked at everywhere.
pub(super) struct Survey<'s> {
    world: &'s World,
    course: &'s Course,
    options: &'s Options,
    statuses: &'s mut BTreeMap<RuleId, Status>,
    /// Residual matches that stand in several steps and come out alike in all of them.
    shared: BTreeSet<TextId>,
}

/// One region, looked at beside others.
struct Look<'s> {
    world: &'s World,
    course: &'s Course,
    options: &'s Options,
    shared: &'s BTreeSet<TextId>,
    /// What was known before.
    before: &'s BTreeMap<RuleId, Status>,
    /// What is known of the rules of this region.
    now: BTreeMap<RuleId, Status>,
}

/// What a look at a region leaves to do.
enum Left {
    Nodes(Vec<Node>),
    Nothing(f64),
}

/// A region that waits, with the steps that are not known to matter.
struct Node {
    region: Region,
    list: List,
    open: Vec<u32>,
    share: f64,
    /// It is not cut any more.
    is_whole: bool,
}

impl<'s> Survey<'s> {
    pub(super) fn new(
        world: &'s World,
        course: &'s Course,
        options: &'s Options,
        statuses: &'s mut BTreeMap<RuleId, Status>,
    ) -> Survey<'s> {
        let mut seen = BTreeSet::new();
        let mut shared = BTreeSet::new();
        for guard in course.steps.iter().flat_map(|s| s.guards.iter()) {
            if let Guard::Residual { text, kind: hipac_rules::Residual::Pure, .. } = guard
                && !seen.insert(*text)
            {
                shared.insert(*text);
            }
        }
        Survey { world, course, options, statuses, shared }
    }

    /// Looks at every rule; tells whether some packet gets to the policy.
    pub(super) fn run(self, watch: Watch<'_>) -> Option<bool> {
        for step in self.course.steps.iter().filter(|s| s.is_match) {
            let status = self.statuses.entry(step.rule).or_default();
            // A jump cannot be taken out of a course: its chain would stay.
            status.is_removable |= self.options.redundant && is_removable(step);
        }
        let region = self.world.space.all();
        // What only counts is in nobody's way: it is a question, no answer.
        let acting = (0..).zip(&self.course.steps).filter(|(_, s)| !only_counts(s)).map(|(at, _)| at);
        let list = narrow(self.world, self.course, acting, &region, None);
        let policy = self.look().policy(&region, &list);
        let open = (0..)
            .zip(&self.course.steps)
            .filter(|(_, s)| s.is_match || s.is_malformed)
            .map(|(at, _)| at)
            .collect();
        let mut nodes = vec![Node { region, list, open, share: 1.0, is_whole: false }];
        let mut decided = 0.0;
        while !nodes.is_empty() {
            if !watch(Progress { decided }) {
                for at in nodes.into_iter().flat_map(|node| node.open) {
                    self.statuses.entry(self.course.steps[at as usize].rule).or_default().is_undecided = true;
                }
                break;
            }
            let beside = nodes.split_off(nodes.len().saturating_sub(BESIDE));
            let looked: Vec<(Left, BTreeMap<RuleId, Status>)> =
                beside.into_par_iter().map(|node| self.look().at(node)).collect();
            for (left, known) in looked {
                match left {
                    Left::Nodes(more) => nodes.extend(more),
                    Left::Nothing(share) => decided += share,
                }
                for (rule, known) in known {
                    self.statuses.entry(rule).or_default().learn(known);
                }
            }
        }
        policy
    }

    fn look(&self) -> Look<'_> {
        Look {
            world: self.world,
            course: self.course,
            options: self.options,
            shared: &self.shared,
            before: self.statuses,
            now: BTreeMap::new(),
        }
    }
}

impl Status {
    /// Adds what was found elsewhere.
    fn learn(&mut self, other: Status) {
        self.is_alive |= other.is_alive;
        self.is_needed |= other.is_needed;
        self.is_undecided |= other.is_undecided;
        self.is_removable |= other.is_removable;
        let room = BLOCKERS_MAX.saturating_sub(self.blockers.len());
        let new: Vec<RuleId> = other.blockers.difference(&self.blockers).copied().take(room).collect();
        self.blockers.extend(new);
    }
}

impl<'s> Look<'s> {
    fn step(&self, at: u32) -> &'s Step {
        &self.course.steps[at as usize]
    }

    /// Cuts a region, or looks at its rules.
    fn at(mut self, mut node: Node) -> (Left, BTreeMap<RuleId, Status>) {
        self.retain_open(&mut node);
        let share = node.share;
        let halves = if node.is_whole || node.open.is_empty() { None } else { self.split(&node) };
        let left = match halves {
            Some(halves) => Left::Nodes(halves.into()),
            None if node.open.len() > OPEN_MAX => Left::Nodes(in_parts(&node)),
            None => {
                self.few(node);
                Left::Nothing(share)
            }
        };
        (left, self.now)
    }

    fn status(&mut self, at: u32) -> &mut Status {
        let rule = self.step(at).rule;
        self.now.entry(rule).or_insert_with(|| self.before.get(&rule).cloned().unwrap_or_default())
    }

    fn is_settled(&self, at: u32) -> bool {
        let step = self.step(at);
        let status = self.now.get(&step.rule).or_else(|| self.before.get(&step.rule));
        // What a rule drops for a cut-off header may be needed; it is no match of the rule.
        status.is_some_and(|s| (s.is_alive || step.is_malformed) && (s.is_needed || !s.is_removable))
    }

    /// Forgets steps that are known to matter, and those behind the end of the list.
    fn retain_open(&mut self, node: &mut Node) {
        let end = node.list.last().copied().filter(|&at| {
            let step = self.step(at);
            step.is_plain() && self.world.condition_covers(&step.condition, &node.region)
        });
        let mut open = std::mem::take(&mut node.open);
        open.retain(|&at| !self.is_settled(at));
        if let Some(end) = end {
            // The list was closed there, so nothing skips it.
            let rule = self.step(end).rule;
            let steps = &self.course.steps;
            for &at in open.iter().filter(|&&at| at > end && !steps[at as usize].is_malformed) {
                let blockers = &mut self.status(at).blockers;
                if blockers.len() < BLOCKERS_MAX {
                    blockers.insert(rule);
                }
            }
            open.retain(|&at| at <= end);
        }
        node.open = open;
    }

    /// The halves of a region that too many steps meet.
    fn split(&self, node: &Node) -> Option<[Node; 2]> {
        if node.list.len() <= FEW {
            return None;
        }
        let (pivots, others) = (sample(self.course, &node.open), sample(self.course, &node.list));
        let (axis, at) = best(self.world, &node.region, &others, &pivots)?;
        let (below, above) = halves(&node.region, axis, at);
        let half = |region: Region| {
            let list = narrow(self.world, self.course, node.list.iter().copied(), &region, Some(axis));
            let meets = |at: &u32| {
                let unit = self.step(*at).condition.units.iter().find(|u| u.0 == axis);
                unit.is_none_or(|&unit| self.world.meets(unit, &region))
            };
            let open = node.open.iter().copied().filter(meets).collect();
            Node { region, list, open, share: node.share / 2.0, is_whole: false }
        };
        let halves = [half(above), half(below)];
        let carried = (halves[0].list.len() + halves[1].list.len()) as f64;
        (carried <= node.list.len() as f64 * COPIES_MAX).then_some(halves)
    }

    /// Looks at the open steps of a region one by one.
    fn few(&mut self, node: Node) {
        for at in node.open {
            if self.is_settled(at) {
                continue;
            }
            let step = self.step(at);
            let Some(region) = self.clip(step, &node.region) else { continue };
            if self.status(at).is_removable && !self.status(at).is_needed {
                match self.is_needed(at, &region, &node.list) {
                    Some(true) => {
                        let status = self.status(at);
                        status.is_needed = true;
                        // A packet that is treated otherwise is one that it took.
                        status.is_alive |= step.is_match;
                        continue;
                    }
                    Some(false) => {}
                    None => self.status(at).is_undecided = true,
                }
            }
            if self.status(at).is_alive || step.is_malformed {
                continue;
            }
            match self.reach(at, &region, &node.list) {
                Reach::Yes(..) => self.status(at).is_alive = true,
                Reach::Unknown => self.status(at).is_undecided = true,
                Reach::No(blockers) => {
                    let rules: Vec<RuleId> = blockers.iter().map(|&b| self.step(b).rule).collect();
                    let known = &mut self.status(at).blockers;
                    let room = BLOCKERS_MAX.saturating_sub(known.len());
                    known.extend(rules.into_iter().take(room));
                }
            }
        }
    }

    /// The smallest region that holds all of a step within another.
    fn clip(&self, step: &Step, region: &Region) -> Option<Region> {
        let mut clipped = region.clone();
        for &(axis, set) in &step.condition.units {
            let own = &mut clipped[usize::from(axis)];
            let mut inside = self.world.set(set).intervals().iter().filter(|i| i.0 <= own.1 && own.0 <= i.1);
            let first = inside.next()?;
            let last = inside.next_back().unwrap_or(first);
            *own = (own.0.max(first.0), own.1.min(last.1));
        }
        Some(clipped)
    }

    /// Whether taking out the rule of a step changes anything in the region.
    fn is_needed(&self, at: u32, region: &Region, list: &[u32]) -> Option<bool> {
        let rule = self.step(at).rule;
        let with = narrow(self.world, self.course, list.iter().copied(), region, None);
        let others = list.iter().copied().filter(|&s| self.step(s).rule != rule);
        let without = narrow(self.world, self.course, others, region, None);
        // What came behind a step that covers the region was dropped from the list; without that step it is
        // in sight again.
        let was_closed_by_it = list.last().is_some_and(|&last| self.step(last).rule == rule);
        let without = if was_closed_by_it {
            let all = (0..).take(self.course.steps.len());
            let others = all.filter(|&s| self.step(s).rule != rule && !only_counts(self.step(s)));
            narrow(self.world, self.course, others, region, None)
        } else {
            without
        };
        let options = diff::Options { work_max: self.options.work_max, ..diff::Options::default() };
        let sides = (Side::of_list(with), Side::of_list(without));
        let courses = (self.course, self.course);
        Walk::of_region(self.world, courses, region.clone(), sides, options).differs()
    }

    /// Whether a step may be in the way of another: not when it only does something and goes on, and not when
    /// a residual match may let everything past it.
    fn is_in_the_way(&self, at: u32) -> bool {
        let step = self.step(at);
        let is_free = |guard: &Guard| match guard {
            Guard::Residual { text, .. } => !self.shared.contains(text),
            _ => false,
        };
        match step.action {
            Action::Effect(Effect::None, _) => false,
            Action::End(_) => !step.guards.iter().any(is_free),
            _ => true,
        }
    }

    fn reach(&self, goal: u32, region: &Region, list: &[u32]) -> Reach {
        let before = list.iter().copied().filter(|&at| at < goal && self.is_in_the_way(at));
        let before: Vec<u32> = before.collect();
        hunt(self.world, self.course, Some(goal), region, &before, self.options.work_max)
    }

    /// Whether some packet gets to the end of the course.
    fn policy(&self, region: &Region, list: &[u32]) -> Option<bool> {
        let before: Vec<u32> = list.iter().copied().filter(|&at| self.is_in_the_way(at)).collect();
        match hunt(self.world, self.course, None, region, &before, self.options.work_max) {
            Reach::Yes(..) => Some(true),
            Reach::No(_) => Some(false),
            Reach::Unknown => None,
        }
    }
}

/// A region as often as its rules need it to be looked at a few at a time.
fn in_parts(node: &Node) -> Vec<Node> {
    let parts = node.open.chunks(OPEN_MAX);
    let share = node.share / parts.len() as f64;
    let part = |open: &[u32]| Node {
        region: node.region.clone(),
        list: node.list.clone(),
        open: open.to_vec(),
        share,
        is_whole: true,
    };
    parts.map(part).collect()
}

/// A step that no packet notices.
fn only_counts(step: &Step) -> bool {
    step.guards.is_empty() && matches!(step.action, Action::Effect(Effect::None, None))
}

/// Whether a rule can be taken out by taking out its steps: it ends, returns, or does something.
fn is_removable(step: &Step) -> bool {
    match step.action {
        Action::End(_) => true,
        Action::Effect(effect, note) => effect != Effect::None || note.is_some(),
        Action::Skip(_) => step.is_match,
        Action::Enter(_) => false,
    }
}
