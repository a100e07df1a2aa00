//! From chains to one list of steps, in the order in which a packet would meet them.
//!
//! ```text
//!   -A FORWARD -d 192.0.2.0/28 -j web        FORWARD 1   dst 192.0.2.0/28               (counts; left out)
//!   -A web -s 203.0.113.0/24 -j RETURN       web 1       dst …  src 203.0.113.0/24      skip to ▼
//!   -A web -p tcp --dport 80 -j ACCEPT       web 2       dst …  tcp  header cut off     DROP
//!                                            web 2       dst …  tcp  dport 80           ACCEPT
//!   -A FORWARD -j LOG                      ▶ FORWARD 2   everything                     LOG, go on
//! ```
//!
//! A step is a *condition* (a product of sets and some alternatives, in the space of incoming packets), then
//! *guards* that no region decides in advance (residual matches, tests of what rules have changed), then an
//! action. A chain's rules stand where the jump stands, narrowed to what the jump lets through; those that
//! nothing reaches are left out. Where a jump has guards, a step in front of the chain says whether it is
//! entered.
//!
//! Steps that say the same have the same `content`, in all courses of one [`World`]: comparing two rulesets
//! begins with comparing these numbers.
//!
//! # Cost
//!
//! One step or two for each rule, for each way that leads to it; [`STEPS_MAX`] ends it.

mod parts;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use hipac_rules::{Clause, Effect, Hook, Policy, Residual, TableKind};

use crate::oracle::Target;
use crate::space::{AxisId, Interval, Set, Space};
use crate::{Oracle, RuleId};
use parts::{Part, Parts};

/// Steps of one course at most: under a gigabyte.
pub(crate) const STEPS_MAX: usize = 1 << 22;

/// A set, by number.
pub(crate) type SetId = u32;
/// A text, by number.
pub(crate) type TextId = u32;
/// A set on an axis.
pub(crate) type Literal = (AxisId, SetId);
/// Literals of which one must hold.
pub(crate) type Choice = Arc<[Literal]>;

/// What courses that are compared have in common: the space, and each set and text once.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) space: Space,
    sets: Interned<Set>,
    texts: Interned<String>,
    contents: Interned<Content>,
    both: HashMap<(SetId, SetId), SetId>,
}

/// A step's meaning without its place.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Content {
    condition: Condition,
    guards: Arc<[Guard]>,
    action: Action,
}

/// What a packet must be.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Condition {
    /// A set on each of these axes, in their order.
    pub(crate) units: Vec<Literal>,
    /// Of each, one must hold.
    pub(crate) choices: Vec<Choice>,
}

/// What is looked at when a packet has met the condition, in order, up to the first that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Guard {
    /// A test of what rules may have changed.
    Test(Clause),
    /// A test behind a residual match.
    Choice(Choice),
    /// A residual match: what it says, and what it depends on.
    Residual { text: TextId, kind: Residual, match_index: u8 },
    /// In these states of the transport header the packet is dropped at once.
    Malformed(Literal),
}

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// It ends; the text says how.
    End(TextId),
    /// A change, and what else is done.
    Effect(Effect, Option<TextId>),
    /// On at this step.
    Skip(u32),
    /// When condition and guards hold, on with the next step; else at this one.
    Enter(u32),
}

/// One step.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) rule: RuleId,
    pub(crate) condition: Condition,
    pub(crate) guards: Arc<[Guard]>,
    pub(crate) action: Action,
    /// Equal for steps that say the same.
    pub(crate) content: u32,
    /// A packet that meets it is one that the rule matches.
    pub(crate) is_match: bool,
    /// Drops what has its header cut off.
    pub(crate) is_malformed: bool,
}

impl Step {
    /// Ends, and only the packet decides.
    pub(crate) fn is_plain(&self) -> bool {
        self.guards.is_empty() && matches!(self.action, Action::End(_))
    }
}

/// The steps of one built-in chain.
#[derive(Debug)]
pub(crate) struct Course {
    pub(crate) steps: Vec<Step>,
    /// What the policy says.
    pub(crate) policy: TextId,
    /// Rules whose own condition no packet meets.
    pub(crate) contradictory: Vec<RuleId>,
}

/// Too many steps to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TooManySteps {
    place: String,
}

impl std::error::Error for TooManySteps {}

impl fmt::Display for TooManySteps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: chains that call each other give more than {STEPS_MAX} steps here", self.place)
    }
}

/// What is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    /// What can make a difference to a packet.
    Differences,
    /// Every rule: those that only count as well.
    Rules,
}

/// Values by number, each once.
#[derive(Debug)]
struct Interned<T> {
    values: Vec<T>,
    numbers: HashMap<T, u32>,
}

impl<T: Clone + Eq + Hash> Interned<T> {
    fn new() -> Interned<T> {
        Interned { values: Vec::new(), numbers: HashMap::new() }
    }

    fn number(&mut self, value: T) -> u32 {
        if let Some(&number) = self.numbers.get(&value) {
            return number;
        }
        // Fewer than steps, of which there are at most `STEPS_MAX`, times the fields of a rule.
        let number = self.values.len() as u32;
        self.values.push(value.clone());
        self.numbers.insert(value, number);
        number
    }
}

impl World {
    pub(crate) fn new(space: Space) -> World {
        World {
            space,
            sets: Interned::new(),
            texts: Interned::new(),
            contents: Interned::new(),
            both: HashMap::new(),
        }
    }

    #[inline]
    pub(crate) fn set(&self, id: SetId) -> &Set {
        &self.sets.values[id as usize]
    }

    pub(crate) fn set_id(&mut self, set: Set) -> SetId {
        self.sets.number(set)
    }

    pub(crate) fn text(&self, id: TextId) -> &str {
        &self.texts.values[id as usize]
    }

    pub(crate) fn text_id(&mut self, text: impl Into<String>) -> TextId {
        self.texts.number(text.into())
    }

    fn intersect(&mut self, a: SetId, b: SetId) -> SetId {
        if a == b {
            return a;
        }
        let key = (a.min(b), a.max(b));
        if let Some(&id) = self.both.get(&key) {
            return id;
        }
        let set = self.set(a).intersect(self.set(b));
        let id = self.set_id(set);
        self.both.insert(key, id);
        id
    }

    #[inline]
    pub(crate) fn meets(&self, literal: Literal, region: &[Interval]) -> bool {
        self.set(literal.1).meets(region[usize::from(literal.0)])
    }

    #[inline]
    pub(crate) fn covers(&self, literal: Literal, region: &[Interval]) -> bool {
        self.set(literal.1).covers(region[usize::from(literal.0)])
    }

    /// Whether some packet of the region may meet the condition. (With alternatives it may say yes too often,
    /// but not for a region that they all miss.)
    pub(crate) fn condition_meets(&self, condition: &Condition, region: &[Interval]) -> bool {
        condition.units.iter().all(|&l| self.meets(l, region))
            && condition.choices.iter().all(|choice| choice.iter().any(|&l| self.meets(l, region)))
    }

    /// Whether every packet of the region meets the condition. (With alternatives it may say no too often, but
    /// not where one of them covers the region.)
    pub(crate) fn condition_covers(&self, condition: &Condition, region: &[Interval]) -> bool {
        condition.units.iter().all(|&l| self.covers(l, region))
            && condition.choices.iter().all(|choice| choice.iter().any(|&l| self.covers(l, region)))
    }

    /// Unfolds a built-in chain. Nothing for a table that is not there: the packet passes.
    ///
    /// # Errors
    ///
    /// Over [`STEPS_MAX`].
    pub(crate) fn unfold(
        &mut self,
        oracle: &Oracle<'_>,
        table: TableKind,
        hook: Hook,
        detail: Detail,
    ) -> Result<Course, TooManySteps> {
        let entry = oracle.entry(table, hook);
        let policy = entry.map_or(Policy::Accept, |e| e.1).name();
        let course = Course { steps: Vec::new(), policy: self.text_id(policy), contradictory: Vec::new() };
        let mut unfolding = Unfolding { world: self, oracle, table, detail, course, parts: HashMap::new() };
        if let Some((chain, _)) = entry {
            unfolding.run(chain)?;
        }
        Ok(unfolding.course)
    }
}

/// A chain that is being unfolded.
struct Frame {
    chain: usize,
    next: usize,
    /// What lets a packet get here.
    path: Condition,
    /// Steps that lead behind the chain.
    exits: Vec<usize>,
    /// The step that says whether the chain is entered.
    enter: Option<usize>,
    /// For a goto: the rule, and the end of the caller is the end of this chain.
    goto: Option<RuleId>,
}

struct Unfolding<'w, 'o> {
    world: &'w mut World,
    oracle: &'o Oracle<'o>,
    table: TableKind,
    detail: Detail,
    course: Course,
    parts: HashMap<RuleId, Arc<Parts>>,
}

impl Unfolding<'_, '_> {
    fn run(&mut self, entry: usize) -> Result<(), TooManySteps> {
        let first = Frame {
            chain: entry,
            next: 0,
            path: Condition::default(),
            exits: Vec::new(),
            enter: None,
            goto: None,
        };
        let mut frames = vec![first];
        while let Some(frame) = frames.last_mut() {
            let (chain, next) = (frame.chain, frame.next);
            frame.next += 1;
            if next >= self.oracle.rule_count(self.table, chain) {
                if let Some(frame) = frames.pop() {
                    self.leave(frame, frames.last_mut());
                }
                continue;
            }
            let Some(rule) = RuleId::new(self.table, chain, next) else { continue };
            if self.course.steps.len() > STEPS_MAX {
                return Err(TooManySteps { place: rule.place(self.oracle.ruleset()).to_string() });
            }
            if let Some(callee) = self.rule(rule, frame) {
                frames.push(callee);
            }
        }
        Ok(())
    }

    fn here(&self) -> u32 {
        // At most `STEPS_MAX` and a few.
        self.course.steps.len() as u32
    }

    /// Ends a chain: whatever leads behind it is known now.
    fn leave(&mut self, frame: Frame, caller: Option<&mut Frame>) {
        let end = self.here();
        for exit in frame.exits {
            self.course.steps[exit].action = Action::Skip(end);
        }
        if let (Some(rule), Some(caller)) = (frame.goto, caller) {
            caller.exits.push(self.course.steps.len());
            self.push(rule, frame.path, Arc::default(), Action::Skip(0), false);
        }
        if let Some(enter) = frame.enter {
            self.course.steps[enter].action = Action::Enter(self.here());
        }
    }

    fn push(
        &mut self,
        rule: RuleId,
        condition: Condition,
        guards: Arc<[Guard]>,
        action: Action,
        is_match: bool,
    ) {
        // Where a skip leads is no part of what it says: see `partition`.
        let said = match action {
            Action::Skip(_) => Action::Skip(0),
            Action::Enter(_) => Action::Enter(0),
            other => other,
        };
        let content = Content { condition: condition.clone(), guards: Arc::clone(&guards), action: said };
        let content = self.world.contents.number(content);
        let step = Step { rule, condition, guards, action, content, is_match, is_malformed: false };
        self.course.steps.push(step);
    }

    /// Emits the steps of a rule; gives the chain that it leads to.
    fn rule(&mut self, rule: RuleId, frame: &mut Frame) -> Option<Frame> {
        let parts = match self.parts.get(&rule) {
            Some(parts) => Arc::clone(parts),
            None => {
                let parts = Arc::new(Parts::of(self.world, self.oracle, rule));
                if parts.is_contradictory {
                    self.course.contradictory.push(rule);
                }
                self.parts.insert(rule, Arc::clone(&parts));
                parts
            }
        };
        let (condition, guards) = self.condition(rule, &parts, &frame.path)?;
        let guards: Arc<[Guard]> = guards.into();
        match self.oracle.target(rule)? {
            Target::Verdict(_) => self.push(rule, condition, guards, Action::End(parts.target), true),
            Target::Continue(effect) => {
                let note = parts.note;
                let asks = guards.iter().any(|g| {
                    matches!(g, Guard::Residual { kind, .. } if *kind != Residual::Pure)
                        || matches!(g, Guard::Malformed(_))
                });
                if note.is_some() || asks || self.detail == Detail::Rules {
                    self.push(rule, condition, guards, Action::Effect(effect, note), true);
                }
            }
            Target::Return => {
                frame.exits.push(self.course.steps.len());
                self.push(rule, condition, guards, Action::Skip(0), true);
            }
            target @ (Target::Jump(chain) | Target::Goto(chain)) => {
                let enter = (!guards.is_empty()).then_some(self.course.steps.len());
                if enter.is_some() {
                    self.push(rule, condition.clone(), guards, Action::Enter(0), true);
                } else if self.detail == Detail::Rules {
                    self.push(rule, condition.clone(), guards, Action::Effect(Effect::None, None), true);
                }
                let goto = matches!(target, Target::Goto(_)).then_some(rule);
                return Some(Frame { chain, next: 0, path: condition, exits: Vec::new(), enter, goto });
            }
        }
        None
    }

    /// The condition and guards of a rule on this path; steps for cut-off headers are emitted on the way.
    /// `None` when no packet on this path meets the rule.
    fn condition(
        &mut self,
        rule: RuleId,
        parts: &Parts,
        path: &Condition,
    ) -> Option<(Condition, Vec<Guard>)> {
        let mut condition = path.clone();
        let mut guards: Vec<Guard> = Vec::new();
        // Behind a residual match that counts, a test decides no longer whether the match is asked.
        let mut is_bound = false;
        for part in &parts.list {
            match part {
                Part::Choice(choice) if is_bound => guards.push(Guard::Choice(Arc::clone(choice))),
                Part::Choice(choice) => {
                    if !self.add(&mut condition, choice) {
                        return None;
                    }
                }
                Part::Header { goes_on, malformed } => {
                    if is_bound {
                        guards.push(Guard::Malformed(*malformed));
                        guards.push(Guard::Choice(Arc::new([*goes_on])));
                        continue;
                    }
                    let mut cut_off = condition.clone();
                    if self.add(&mut cut_off, &(Arc::new([*malformed]) as Choice)) {
                        let drop = self.world.text_id(Policy::Drop.name());
                        let guards: Arc<[Guard]> = guards.clone().into();
                        self.push(rule, cut_off, guards, Action::End(drop), false);
                        if let Some(step) = self.course.steps.last_mut() {
                            step.is_malformed = true;
                        }
                    }
                    if !self.add(&mut condition, &(Arc::new([*goes_on]) as Choice)) {
                        return None;
                    }
                }
                Part::Changed(clause) => guards.push(Guard::Test(clause.clone())),
                Part::Residual { text, kind, match_index } => {
                    is_bound |= *kind != Residual::Pure;
                    guards.push(Guard::Residual { text: *text, kind: *kind, match_index: *match_index });
                }
            }
        }
        Some((condition, guards))
    }

    /// Narrows a condition. False when nothing is left.
    fn add(&mut self, condition: &mut Condition, choice: &Choice) -> bool {
        let [(axis, set)] = choice[..] else {
            if choice.is_empty() {
                return false;
            }
            if !condition.choices.contains(choice) {
                condition.choices.push(Arc::clone(choice));
            }
            return true;
        };
        match condition.units.binary_search_by_key(&axis, |unit| unit.0) {
            Ok(at) => {
                let both = self.world.intersect(condition.units[at].1, set);
                condition.units[at].1 = both;
                !self.world.set(both).is_empty()
            }
            Err(at) => {
                condition.units.insert(at, (axis, set));
                !self.world.set(set).is_empty()
            }
        }
    }
}

impl World {
    /// The text of a plain DROP, when some step has it.
    pub(crate) fn drop_text(&self) -> Option<TextId> {
        self.texts.numbers.get(Policy::Drop.name()).copied()
    }
}
