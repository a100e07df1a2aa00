//! What a rule tests, in the order in which it is tested, as sets on axes.

use std::sync::Arc;

use hipac_rules::{Clause, Extension, Family, L4Need, Residual, Target as RuleTarget, print};

use super::{Choice, Literal, TextId, World};
use crate::field_text::{self, Ports};
use crate::space::{Alternatives, Change};
use crate::{Oracle, RuleId};

/// One thing that is tested.
#[derive(Debug)]
pub(super) enum Part {
    /// One of these holds.
    Choice(Choice),
    /// The transport header: where the match goes on, and where it drops the packet.
    Header { goes_on: Literal, malformed: Literal },
    /// A test of what rules may have changed.
    Changed(Clause),
    /// What no field decides.
    Residual { text: TextId, kind: Residual, match_index: u8 },
}

/// A rule taken apart, the path to it left aside.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) list: Vec<Part>,
    /// The target with its options.
    pub(super) target: TextId,
    /// The same, when it does something that someone may see.
    pub(super) note: Option<TextId>,
    /// No packet meets it, whatever the path.
    pub(super) is_contradictory: bool,
}

impl Parts {
    pub(super) fn of(world: &mut World, oracle: &Oracle<'_>, id: RuleId) -> Parts {
        let mut parts =
            Parts { list: Vec::new(), target: world.text_id(""), note: None, is_contradictory: false };
        let Some(rule) = id.of(oracle.ruleset()) else { return parts };
        let family = oracle.family();
        for test in rule.ip.tests(family) {
            parts.clause(world, &vec![test], 0);
        }
        for (match_index, meaning) in oracle.meanings(id).iter().enumerate() {
            let match_index = u8::try_from(match_index).unwrap_or(u8::MAX);
            if meaning.l4 != L4Need::default()
                && let Some((axis, goes_on, malformed)) = world.space.header_sets(meaning.l4)
            {
                let goes_on = (axis, world.set_id(goes_on));
                let malformed = (axis, world.set_id(malformed));
                parts.list.push(Part::Header { goes_on, malformed });
            }
            for clause in &meaning.clauses {
                parts.clause(world, clause, match_index);
            }
            if let Some(kind) = meaning.residual {
                let text = rule.matches.get(usize::from(match_index)).map(|m| words(m, family));
                let text = world.text_id(format!("-m {}", text.unwrap_or_default()));
                parts.list.push(Part::Residual { text, kind, match_index });
            }
        }
        if let RuleTarget::Extension(extension) = &rule.target {
            parts.target = world.text_id(words(extension, family));
            parts.note = Some(parts.target);
        }
        parts.is_contradictory = parts.contradicts(world);
        parts
    }

    fn clause(&mut self, world: &mut World, clause: &Clause, match_index: u8) {
        if world.space.is_changed(clause) {
            self.list.push(Part::Changed(clause.clone()));
            return;
        }
        match world.space.clause(clause, &Change::NONE) {
            Ok(all) => {
                for alternatives in all {
                    let choice = literals(world, alternatives);
                    self.list.push(Part::Choice(choice));
                }
            }
            // Nothing is known of it but that it is a function of the packet.
            Err(_) => {
                let text = world.text_id(clause_words(clause, world.space.family));
                self.list.push(Part::Residual { text, kind: Residual::Pure, match_index });
            }
        }
    }

    /// Whether the tests on one axis leave nothing, or one test alone.
    fn contradicts(&self, world: &World) -> bool {
        let mut units: Vec<(u8, crate::space::Set)> = Vec::new();
        for part in &self.list {
            let choice: &[Literal] = match part {
                Part::Choice(choice) => choice,
                Part::Header { goes_on, .. } => std::slice::from_ref(goes_on),
                _ => continue,
            };
            match choice {
                [] => return true,
                &[(axis, set)] => {
                    let set = world.set(set);
                    match units.iter_mut().find(|u| u.0 == axis) {
                        Some(unit) => unit.1 = unit.1.intersect(set),
                        None => units.push((axis, set.clone())),
                    }
                }
                _ => {}
            }
        }
        units.iter().any(|u| u.1.is_empty())
    }
}

/// Alternatives by number. One that holds always makes the choice trivial; it stays, and costs little.
pub(super) fn literals(world: &mut World, alternatives: Alternatives) -> Choice {
    let literals: Vec<Literal> = alternatives
        .into_iter()
        .filter(|a| !a.1.is_empty())
        .map(|(axis, set)| (axis, world.set_id(set)))
        .collect();
    Arc::from(literals)
}

/// `destination 10.0.0.1/255.0.0.255`, for a clause that no region expresses.
fn clause_words(clause: &Clause, family: Family) -> String {
    let words = clause.iter().map(|test| {
        let set = field_text::set(family, test.field, Ports::Ports, &test.set);
        let not = if test.negated { "!" } else { "" };
        format!("{} {not}{set}", field_text::label(test.field, Ports::Ports))
    });
    words.collect::<Vec<_>>().join(" or ")
}

/// A match or a target with its options, as it is printed.
fn words(extension: &Extension, family: Family) -> String {
    let mut text = String::new();
    print::print_extension(extension, family, &mut text);
    text
}
