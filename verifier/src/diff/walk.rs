//! The walk over regions: see [the module above](super).

use std::sync::Arc;

use super::align::{Loose, common_prefix, loose, that_matter};
use super::{Options, Progress, Watch};
use crate::partition::cut::{StepOf, best, sample};
use crate::partition::hunt::{Gap, gap};
use crate::partition::{Asked, End, Head, Known, Side, State, halves};
use crate::space::{AxisId, Interval, Region};
use crate::unfold::{Action, Course, TextId, World};

/// A region that differs.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) region: Region,
    pub(crate) known: Known,
    /// Steps that both sides have in front: what meets one of them does not differ. Positions in the old
    /// course.
    pub(crate) except: Vec<u32>,
    /// A part of the region that meets none of them.
    pub(crate) witness: Region,
    pub(crate) a: Ended,
    pub(crate) b: Ended,
    cut: Option<Arc<Cut>>,
}

/// Where a region was cut, into the one below and the one above.
#[derive(Debug)]
struct Cut {
    axis: usize,
    whole: Interval,
    /// How that region came to be.
    before: Option<Arc<Cut>>,
}

/// How one side ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) end: End,
    pub(crate) state: Arc<State>,
}

/// A region that waits.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) region: Region,
    pub(super) a: Side,
    pub(super) b: Side,
    known: Known,
    /// Loose steps, when they were looked for.
    loose: Option<Arc<Loose>>,
    /// Its part of the space, for progress.
    share: f64,
    /// The last cut that led to it.
    cut: Option<Arc<Cut>>,
}

pub(crate) struct Walk<'w> {
    pub(crate) world: &'w World,
    pub(crate) a: &'w Course,
    pub(crate) b: &'w Course,
    pub(crate) options: Options,
    pub(crate) found: Vec<Found>,
    pub(crate) open: Vec<Node>,
    pub(crate) regions: u64,
    /// Why it ended early.
    pub(crate) stopped: Option<&'static str>,
    pub(super) work: u64,
    pub(super) decided: f64,
}

/// Loose steps × steps that are compared in pairs before a cut seems cheaper.
const PAIRS_MAX: usize = 1 << 20;
/// Common steps in front of a difference that are cut out of it; more are named as exceptions.
const CUT_OUT_MAX: usize = 4;
/// Regions between two looks at the clock and the keyboard.
pub(super) const WATCH_REGIONS: u64 = 256;

impl<'w> Walk<'w> {
    pub(crate) fn new(world: &'w World, a: &'w Course, b: &'w Course, options: Options) -> Walk<'w> {
        let region = world.space.all();
        let sides = (Side::new(world, a, &region), Side::new(world, b, &region));
        Walk::of_region(world, (a, b), region, sides, options)
    }

    /// A walk over a part of the space; the sides hold what meets it.
    pub(crate) fn of_region(
        world: &'w World,
        (a, b): (&'w Course, &'w Course),
        region: Region,
        sides: (Side, Side),
        options: Options,
    ) -> Walk<'w> {
        let (known, share) = (Known::new(), 1.0);
        let root = Node { a: sides.0, b: sides.1, region, known, loose: None, share, cut: None };
        Walk::of_node(world, (a, b), root, options)
    }

    /// A walk that begins with a region that waits.
    pub(super) fn of_node(
        world: &'w World,
        (a, b): (&'w Course, &'w Course),
        node: Node,
        options: Options,
    ) -> Walk<'w> {
        Walk {
            world,
            a,
            b,
            options,
            found: Vec::new(),
            open: vec![node],
            regions: 0,
            stopped: None,
            work: 0,
            decided: 0.0,
        }
    }

    /// Whether anything differs: looks no further than the first region. `None`: undecided.
    pub(crate) fn differs(&mut self) -> Option<bool> {
        self.options.regions_max = 0;
        self.run(&mut |_| true);
        match (self.found.is_empty(), self.stopped) {
            (false, _) => Some(true),
            (true, None) => Some(false),
            (true, Some(_)) => None,
        }
    }

    pub(crate) fn run(&mut self, watch: Watch<'_>) {
        while let Some(node) = self.open.pop() {
            self.count(&node);
            let stopped = if self.work > self.options.work_max {
                Some("more steps than the work allowed (--work)")
            } else if self.found.len() > self.options.regions_max {
                Some("more regions that differ than are kept (--regions)")
            } else if self.regions.is_multiple_of(WATCH_REGIONS) {
                let progress = Progress { decided: self.decided, regions: self.found.len() };
                (!watch(progress)).then_some("interrupted")
            } else {
                None
            };
            if stopped.is_some() {
                self.stopped = stopped;
                self.open.push(node);
                return;
            }
            self.node(node);
        }
    }

    pub(super) fn count(&mut self, node: &Node) {
        self.regions += 1;
        self.work += (node.a.rest().len() + node.b.rest().len() + self.world.space.axes.len()) as u64;
    }

    pub(super) fn node(&mut self, mut node: Node) {
        if self.is_same(&node) {
            self.decided += node.share;
            return;
        }
        if node.a.state == node.b.state && node.a.is_plain(self.a) && node.b.is_plain(self.b) {
            return self.plain(node);
        }
        let a = node.a.settle(self.world, self.a, &node.region, &node.known);
        let b = node.b.settle(self.world, self.b, &node.region, &node.known);
        if self.is_same(&node) {
            self.decided += node.share;
            return;
        }
        match (a, b) {
            // (Nobody sets a goal here.)
            (Head::Inexpressible | Head::Goal, _) | (_, Head::Inexpressible | Head::Goal) => {
                self.stopped = Some("a test that adds up bits of two marks");
                self.found_inexpressible(node);
            }
            (Head::End(a), Head::End(b)) => self.ended(node, a, b),
            (Head::Cut(axis, at), _) | (_, Head::Cut(axis, at)) => self.cut(node, axis, at),
            (Head::Partial(_), _) | (_, Head::Partial(_)) => self.cut_at_heads(node, a, b),
            (Head::Ask(asked), _) | (_, Head::Ask(asked)) => self.fork(node, a, b, asked),
        }
    }

    /// Left as it is, to be reported.
    fn found_inexpressible(&mut self, node: Node) {
        self.open.insert(0, node);
        self.open.truncate(1);
    }

    /// Whether both sides have the same way before them, and the same behind them.
    fn is_same(&self, Node { region, a, b, .. }: &Node) -> bool {
        let (x, y) = (a.rest(), b.rest());
        if x.len() != y.len() || a.guards != b.guards || a.state != b.state {
            return false;
        }
        let is_same_step = |(i, (&x_at, &y_at)): (usize, (&u32, &u32))| {
            let (s, t) = (&self.a.steps[x_at as usize], &self.b.steps[y_at as usize]);
            s.content == t.content
                && match (s.action, t.action) {
                    (Action::Skip(m), Action::Skip(n)) | (Action::Enter(m), Action::Enter(n)) => {
                        x[i..].partition_point(|&s| s < m) == y[i..].partition_point(|&s| s < n)
                    }
                    _ => true,
                }
        };
        (self.a.policy == self.b.policy || self.is_closed(self.a, x, region))
            && x.iter().zip(y).enumerate().all(is_same_step)
    }

    /// Whether the last step ends it for the whole region, so that the policy is not reached.
    fn is_closed(&self, course: &Course, list: &[u32], region: &Region) -> bool {
        list.last().is_some_and(|&at| {
            let step = &course.steps[at as usize];
            let is_skipped = list.iter().any(|&s| match course.steps[s as usize].action {
                Action::Skip(to) | Action::Enter(to) => to > at,
                _ => false,
            });
            step.is_plain() && !is_skipped && self.world.condition_covers(&step.condition, region)
        })
    }

    fn ended(&mut self, node: Node, a: End, b: End) {
        self.decided += node.share;
        let (x, y) = (&node.a.state, &node.b.state);
        let is_alike = a.text == b.text
            && (self.options.verdicts_only
                || x.notes == y.notes && x.asked == y.asked && x.change == y.change);
        if !is_alike {
            let a = Ended { end: a, state: Arc::clone(x) };
            let b = Ended { end: b, state: Arc::clone(y) };
            let witness = node.region.clone();
            let (region, known, except, cut) = (node.region, node.known, Vec::new(), node.cut);
            join(&mut self.found, Found { region, known, except, witness, a, b, cut });
        }
    }

    /// Steps of a list that cover a part of the region only.
    fn partial<'s>(&self, course: &'s Course, list: &[u32], region: &Region) -> Vec<StepOf<'s>> {
        let partial =
            |&&at: &&u32| !self.world.condition_covers(&course.steps[at as usize].condition, region);
        list.iter().filter(partial).map(|&at| (course, at)).collect()
    }

    fn loose_pivots(&self, node: &Node) -> Vec<StepOf<'w>> {
        let Some(loose) = &node.loose else { return Vec::new() };
        let mut pivots = self.partial(self.a, &loose.a, &node.region);
        pivots.extend(self.partial(self.b, &loose.b, &node.region));
        pivots
    }

    fn cut_at_heads(&mut self, mut node: Node, a: Head, b: Head) {
        self.look_for_loose(&mut node);
        let mut pivots = self.loose_pivots(&node);
        if pivots.is_empty() {
            pivots.extend(if let Head::Partial(at) = a { Some((self.a, at)) } else { None });
            pivots.extend(if let Head::Partial(at) = b { Some((self.b, at)) } else { None });
        }
        self.cut_at(node, &pivots);
    }

    fn look_for_loose(&self, node: &mut Node) {
        let many = node.a.rest().len() + node.b.rest().len();
        // Steps may have stopped being loose, their rivals elsewhere: look again when most of them are.
        if node.loose.as_ref().is_none_or(|l| l.len() > 16 && l.len() * 4 > many) {
            let found = loose((self.a, node.a.rest()), (self.b, node.b.rest()));
            node.loose = Some(Arc::new(found));
        }
    }

    /// Both lists are plain, and both sides have done the same so far.
    fn plain(&mut self, mut node: Node) {
        let (a, b) = (node.a.rest(), node.b.rest());
        let prefix = common_prefix((self.a, a), (self.b, b));
        let (rest_a, rest_b) = (&a[prefix..], &b[prefix..]);
        let (ends_a, last_a) = self.texts(self.a, rest_a, &node.region);
        let (ends_b, last_b) = self.texts(self.b, rest_b, &node.region);
        if ends_a && ends_b && last_a == last_b {
            self.decided += node.share;
            return;
        }
        let head_a = self.head(self.a, rest_a, &node.region);
        let head_b = self.head(self.b, rest_b, &node.region);
        if let (Some(x), Some(y)) = (head_a, head_b) {
            if prefix == 0 {
                return self.ended(node, x, y);
            }
            return self.behind_common(node, prefix, x, y);
        }
        self.look_for_loose(&mut node);
        if let Some(all) = node.loose.clone()
            && all.len() * (node.a.rest().len() + 1) <= PAIRS_MAX
        {
            let kept =
                that_matter(self.world, &node.region, (self.a, node.a.rest()), (self.b, node.b.rest()), &all);
            self.work += (all.len() * node.a.rest().len()) as u64 / 8;
            if kept.len() == 0 && self.a.policy == self.b.policy {
                self.decided += node.share;
                return;
            }
            if kept.len() > 0 {
                node.loose = Some(Arc::new(kept));
            }
        }
        let pivots = self.plain_pivots(&node, prefix, head_a, head_b);
        self.cut_at(node, &pivots);
    }

    /// Both sides end differently for what gets past the steps that both have in front.
    fn behind_common(&mut self, node: Node, prefix: usize, a: End, b: End) {
        let common = &node.a.rest()[..prefix];
        if prefix <= CUT_OUT_MAX {
            let pivots: Vec<StepOf<'w>> = common.iter().map(|&at| (self.a, at)).collect();
            return self.cut_at(node, &pivots);
        }
        // Many holes in one region are said as such: `except` keeps them, one packet shows that they leave
        // something.
        let mut left = self.options.work_max.saturating_sub(self.work);
        let before = left;
        let found = gap(self.world, self.a, &node.region, common.iter().copied(), &mut left);
        self.work += before - left;
        match found {
            Gap::Here(witness) => {
                self.decided += node.share;
                let a = Ended { end: a, state: Arc::clone(&node.a.state) };
                let b = Ended { end: b, state: Arc::clone(&node.b.state) };
                let except = common.to_vec();
                let (region, known, cut) = (node.region, node.known, node.cut);
                join(&mut self.found, Found { region, known, except, witness, a, b, cut });
            }
            Gap::None(_) => self.decided += node.share,
            Gap::Unknown => self.open.push(node),
        }
    }

    fn plain_pivots(&self, node: &Node, prefix: usize, a: Option<End>, b: Option<End>) -> Vec<StepOf<'w>> {
        let pivots = self.loose_pivots(node);
        if !pivots.is_empty() {
            return pivots;
        }
        let mut pivots = self.partial(self.a, &node.a.rest()[prefix..], &node.region);
        pivots.extend(self.partial(self.b, &node.b.rest()[prefix..], &node.region));
        // One side ends here: only what ends otherwise on the other side makes a difference.
        if let Some(end) = a.or(b) {
            let differs = |&(course, at): &StepOf<'w>| !matches!(course.steps[at as usize].action, Action::End(text) if text == end.text);
            if pivots.iter().any(differs) {
                pivots.retain(differs);
                return pivots;
            }
        }
        pivots
    }

    /// Whether all steps of a plain list end alike, and how the first ends.
    fn texts(&self, course: &Course, list: &[u32], region: &Region) -> (bool, TextId) {
        let text = |at: u32| match course.steps[at as usize].action {
            Action::End(text) => text,
            _ => course.policy,
        };
        let first = list.first().map_or(course.policy, |&at| text(at));
        let is_closed = self.is_closed(course, list, region);
        let is_one = list.iter().all(|&at| text(at) == first) && (is_closed || course.policy == first);
        (is_one, first)
    }

    /// How a plain list ends, when its first step covers the region or there is none.
    fn head(&self, course: &Course, list: &[u32], region: &Region) -> Option<End> {
        let Some(&at) = list.first() else {
            return Some(End { text: course.policy, step: None, is_malformed: false });
        };
        let step = &course.steps[at as usize];
        match step.action {
            Action::End(text) if self.world.condition_covers(&step.condition, region) => {
                Some(End { text, step: Some(at), is_malformed: step.is_malformed })
            }
            _ => None,
        }
    }

    fn cut_at(&mut self, node: Node, pivots: &[StepOf<'_>]) {
        let mut others = sample(self.a, node.a.rest());
        others.extend(sample(self.b, node.b.rest()));
        let cut = best(self.world, &node.region, pivots, &others).or_else(|| {
            let mut all = self.partial(self.a, node.a.rest(), &node.region);
            all.extend(self.partial(self.b, node.b.rest(), &node.region));
            best(self.world, &node.region, &all, &[])
        });
        match cut {
            Some((axis, at)) => self.cut(node, axis, at),
            // No step has a bound in the region: none can be partial. Not reached; never guess.
            None => {
                self.stopped = Some("a region that cannot be cut");
                self.found_inexpressible(node);
            }
        }
    }

    fn cut(&mut self, node: Node, axis: AxisId, at: u32) {
        let (below, above) = halves(&node.region, axis, at);
        let axis_at = usize::from(axis);
        let cut = Cut { axis: axis_at, whole: node.region[axis_at], before: node.cut.clone() };
        let cut = Some(Arc::new(cut));
        for region in [above, below] {
            let a = node.a.narrowed(self.world, self.a, &region, axis);
            let b = node.b.narrowed(self.world, self.b, &region, axis);
            let loose = node.loose.as_ref().map(|loose| {
                let here = |side: &Side, loose: &[u32]| -> Vec<u32> {
                    loose.iter().copied().filter(|at| side.list.binary_search(at).is_ok()).collect()
                };
                Arc::new(Loose { a: here(&a, &loose.a), b: here(&b, &loose.b) })
            });
            let known = node.known.clone();
            let (share, cut) = (node.share / 2.0, cut.clone());
            self.open.push(Node { region, a, b, known, loose, share, cut });
        }
    }

    fn fork(&mut self, node: Node, a: Head, b: Head, asked: Asked) {
        let both_ask = a == b && node.a.guards == node.b.guards && node.a.state == node.b.state;
        let next =
            |side: &Side, course: &Course| side.rest().first().map(|&at| course.steps[at as usize].clone());
        let outcomes: &[bool] = match (next(&node.a, self.a), next(&node.b, self.b)) {
            // Both do the same and go on: what comes behind is the same either way.
            (Some(x), Some(y))
                if both_ask
                    && x.content == y.content
                    && asked.kind != crate::partition::AskedKind::Pure
                    && matches!(x.action, Action::Effect(hipac_rules::Effect::None, _)) =>
            {
                &[false]
            }
            _ => &[false, true],
        };
        let share = node.share / outcomes.len() as f64;
        for &held in outcomes {
            let mut known = node.known.clone();
            known.push((asked, held));
            self.open.push(Node {
                region: node.region.clone(),
                a: node.a.clone(),
                b: node.b.clone(),
                known,
                loose: node.loose.clone(),
                share,
                cut: node.cut.clone(),
            });
        }
    }
}

/// Adds a region that differs. The halves of a cut that differ in the same way throughout are one again, and
/// maybe with them the halves of the cut before: what does not matter to a difference does not multiply it.
/// Only halves are joined, so the order in which they are found does not matter.
pub(super) fn join(all: &mut Vec<Found>, mut found: Found) {
    while let (Some(last), Some(cut)) = (all.last(), &found.cut) {
        let is_half = last.cut.as_ref().is_some_and(|other| Arc::ptr_eq(other, cut));
        let (below, above) = (last.region[cut.axis], found.region[cut.axis]);
        let is_whole = (below.0, above.1) == cut.whole && below.1 < above.0 && above.0 - below.1 == 1;
        let is_alike = (&last.a, &last.b, &last.known, &last.except)
            == (&found.a, &found.b, &found.known, &found.except)
            && (0..found.region.len()).all(|i| i == cut.axis || last.region[i] == found.region[i]);
        if !(is_half && is_whole && is_alike) {
            break;
        }
        let cut = Arc::clone(cut);
        found.region[cut.axis] = cut.whole;
        found.cut.clone_from(&cut.before);
        all.pop();
    }
    all.push(found);
}
