//! Which rules of the other file the rules of a chain of an image are.
//!
//! Both are walked in step while rules fit. Where they do not, a few rules of either are passed over, as few as
//! it takes until they fit again. A wrong pair costs another proof, never a wrong answer.

use hipac_classifier::program::{Change, ResidualKind};
use hipac_classifier::{Dim, Image};
use hipac_rules::{Family, Field, L4Need, Name, Residual, Rule, Target, TargetMeaning};

use super::stored::{StoredRule, chain_of};
use crate::proof::condition::Condition;
use crate::proof::program::{End, Mark, Program, change_of, kind_of};
use crate::proof::ranges::Ranges;
use crate::proof::space::Space;

/// Rules passed over before two lists are held to have nothing more in common.
const WINDOW: usize = 48;

/// A rule of the image, and its place in the other file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Pair {
    /// The rule that fits.
    pub(super) taken: Option<usize>,
    /// It fits in all that it says.
    pub(super) is_whole: bool,
    /// The rule that stands there and does not fit.
    pub(super) beside: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    No,
    /// As far as is stored: earlier rules may hide the rest.
    Partly,
    Wholly,
}

/// What a rule of a file would be in an image.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Values of the key for which it may hold, where its tests say something.
    /// Of keys: what must be stored and what may be, see [`Space::keys_of`].
    sets: Vec<(usize, (Ranges, Ranges))>,
    residuals: Vec<(u8, ResidualKind)>,
    ends: Ends,
    /// It tests a set that the image does not have.
    is_foreign: bool,
}

#[derive(Debug)]
enum Ends {
    Verdict(&'static str),
    Goes(Option<Change>),
    Returns,
    Calls(Name),
}

impl Wanted {
    pub(super) fn of(rule: &Rule, space: &Space, family: Family) -> Wanted {
        let raw = space.raw();
        let mut condition = Condition::default();
        for test in rule.ip.tests(family) {
            condition.and_tests(&[test], raw);
        }
        let mut residuals = Vec::new();
        let (mut is_behind, mut is_foreign) = (false, false);
        for (number, extension) in (0..=u8::MAX).zip(&rule.matches) {
            let meaning = extension.match_meaning(family);
            let mut members = meaning.clauses.iter().flatten().filter(|t| t.field == Field::Membership);
            is_foreign |= members.any(|test| match &test.set {
                hipac_rules::ValueSet::Member(membership) => raw.members.place(membership).is_none(),
                _ => false,
            });
            // What stands behind a match that counts is no part of the box.
            if !is_behind && !is_foreign {
                meaning.clauses.iter().for_each(|clause| condition.and_tests(clause, raw));
            }
            residuals.extend(meaning.residual.map(|kind| (number, kind_of(kind))));
            is_behind |= meaning.residual.is_some_and(|kind| kind != Residual::Pure);
            is_behind |= meaning.l4 != L4Need::default() && is_behind;
        }
        let on_axis = |(dim, set): &(Dim, Ranges)| {
            let axis = space.axis_of(*dim).filter(|_| *dim != Dim::L4)?;
            Some((axis, space.keys_of(&space.axes[axis], set)))
        };
        let sets = condition.sets().iter().filter_map(on_axis).collect();
        let ends = match &rule.target {
            Target::None => Ends::Goes(None),
            Target::Jump(name) | Target::Goto(name) => Ends::Calls(name.clone()),
            Target::Extension(extension) => match extension.target_meaning(family) {
                TargetMeaning::Verdict(name) => Ends::Verdict(name),
                TargetMeaning::Continue(effect) => Ends::Goes(change_of(effect)),
                TargetMeaning::Return => Ends::Returns,
            },
        };
        Wanted { sets, residuals, ends, is_foreign }
    }

    pub(super) fn fits<B: AsRef<[u8]>>(&self, image: &Image<B>, stored: &StoredRule) -> Fit {
        let Some(shape) = &stored.shape else { return Fit::Partly };
        let program = &shape.program;
        let ends = match (program.end, &self.ends) {
            (End::Verdict(id), Ends::Verdict(name)) => image.verdict_name(id) == *name,
            (End::Resume(to), Ends::Goes(change)) => {
                program.effect == *change && to == shape.position + 1 && stored.leads_to.is_none()
            }
            (End::Resume(_), Ends::Returns) => program.effect.is_none(),
            (End::Resume(to), Ends::Calls(name)) => {
                to == shape.position + 1 && stored.leads_to.as_ref().is_none_or(|to| to == name)
            }
            (End::Call { entry, .. }, Ends::Calls(name)) => {
                chain_of(image, hipac_classifier::EntryId(entry)).is_some_and(|(_, chain)| chain == *name)
            }
            _ => false,
        };
        if !ends || self.is_foreign || residuals(program) != self.residuals {
            return Fit::No;
        }
        if stored.sets.is_empty() {
            return Fit::Partly;
        }
        let within = self.sets.iter().all(|(axis, (_, may))| stored.sets[*axis].is_within(may));
        let is_whole = self.sets.iter().all(|(axis, (must, _))| must.is_within(&stored.sets[*axis]));
        match (within, is_whole) {
            (false, _) => Fit::No,
            (true, false) => Fit::Partly,
            (true, true) => Fit::Wholly,
        }
    }
}

/// The residual matches that a flat rule asks, by number.
pub(super) fn residuals(program: &Program) -> Vec<(u8, ResidualKind)> {
    let pure = |pure: &Vec<u8>| pure.iter().map(|&n| (n, ResidualKind::Pure)).collect::<Vec<_>>();
    let mut all = pure(&program.first.pure);
    for (mark, segment) in &program.rest {
        if let Mark::Asks(number, kind) = *mark {
            all.push((number, kind));
        }
        all.extend(pure(&segment.pure));
    }
    all.sort_unstable_by_key(|r| r.0);
    all
}

/// Pairs two lists of these lengths: one for each rule of the first.
pub(super) fn pairs(a: usize, b: usize, fits: &mut dyn FnMut(usize, usize) -> Fit) -> Vec<Pair> {
    let mut out = vec![Pair::default(); a];
    let (mut i, mut j) = (0, 0);
    while i < a && j < b {
        let fit = fits(i, j);
        let mut goes_on = |i: usize, j: usize| i >= a || j >= b || fits(i, j) != Fit::No;
        if fit == Fit::Wholly || fit == Fit::Partly && goes_on(i + 1, j + 1) {
            out[i] = Pair { taken: Some(j), is_whole: fit == Fit::Wholly, beside: None };
            (i, j) = (i + 1, j + 1);
            continue;
        }
        // So many of the one list and of the other are passed over.
        let mut steps = (1..=WINDOW).flat_map(|sum| (0..=sum).map(move |di| (di, sum - di)));
        let next = steps.find(|&(di, dj)| {
            let (i, j) = (i + di, j + dj);
            (i, j) == (a, b)
                || i < a
                    && j < b
                    && fits(i, j) == Fit::Wholly
                    && (i + 1 >= a || j + 1 >= b || fits(i + 1, j + 1) != Fit::No)
        });
        let (di, dj) = next.unwrap_or((1, 1));
        for k in 0..di.min(dj) {
            out[i + k].beside = Some(j + k);
        }
        (i, j) = (i + di, j + dj);
    }
    out
}
