//! IP sets of a live table: what they hold changes like rules do, in a transaction.
//!
//! A use of a set is a bit of the key ([`crate::sets`]): what the set holds decides the bit, and no
//! box depends on it. So entries that come and go exchange one block of memory, and the forest stays as
//! it is. Only when a rule means other uses than before (a set has come or gone, or is of another type, a
//! list has other members, `-j SET` changes it now) must a new generation be made.

use std::collections::HashMap;
use std::sync::Arc;

use hipac_classifier::live::RuleId;
use hipac_rules::Rule;
use hipac_rules::ipset::{MatchSet, Membership, Sets};
use hipac_rules::value::Value;

use super::inner::Inner;
use super::options::LiveError;
use super::transaction::{Step, Transaction};
use super::writer::Refusal;

/// What the rules that name sets meant before.
pub(super) struct Before {
    sets: Sets,
    rules: Vec<(RuleId, Arc<Rule>)>,
    /// The writer has followed.
    is_placed: bool,
}

/// The sets that a rule's matches mean; `None`: a match means none that is known.
fn bound(rule: &Rule) -> impl Iterator<Item = Option<&MatchSet>> {
    let settings = rule.matches.iter().flat_map(|e| &e.settings);
    settings.filter(|s| s.option.name == "match-set").map(|setting| match &setting.value {
        Value::MatchSet(bound) => Some(&**bound),
        _ => None,
    })
}

/// A match of a rule means a set that has no entries.
pub(super) fn names_empty(rule: &Rule) -> bool {
    bound(rule).flatten().flat_map(|set| &set.any_of).any(|membership| membership.set.is_empty())
}

/// The same rule, with no sets that have no entries: no packet is in them.
pub(super) fn without_empty(rule: &mut Rule) {
    if !names_empty(rule) {
        return;
    }
    for setting in rule.matches.iter_mut().flat_map(|e| &mut e.settings) {
        if let Value::MatchSet(bound) = &mut setting.value {
            Arc::make_mut(bound).any_of.retain(|membership| !membership.set.is_empty());
        }
    }
}

/// Two uses differ in no more than the entries of their sets.
fn are_alike(a: &Membership, b: &Membership) -> bool {
    a.set.name == b.set.name
        && std::ptr::eq(a.set.kind, b.set.kind)
        && a.set.family == b.set.family
        && a.columns == b.columns
        && a.wants_nomatch == b.wants_nomatch
}

/// What two forms of a rule mean differs in no more than the entries of sets.
fn have_the_same_uses(a: &Rule, b: &Rule) -> bool {
    bound(a).zip(bound(b)).all(|(a, b)| match (a, b) {
        (Some(a), Some(b)) => {
            a.any_of.len() == b.any_of.len() && a.any_of.iter().zip(&b.any_of).all(|(a, b)| are_alike(a, b))
        }
        (None, None) => true,
        _ => false,
    })
}

/// Uses by what they are called, as rules mean them.
fn uses_of<'r>(rules: impl Iterator<Item = &'r Arc<Rule>>) -> HashMap<String, Arc<Membership>> {
    let mut uses = HashMap::new();
    for rule in rules {
        for membership in bound(rule).flatten().flat_map(|set| &set.any_of) {
            uses.entry(membership.to_string()).or_insert_with(|| Arc::clone(membership));
        }
    }
    uses
}

impl Inner {
    /// Sets hold this from here on.
    pub(super) fn change_sets(
        &mut self,
        sets: &Sets,
        line: u32,
        t: &mut Transaction,
    ) -> Result<(), LiveError> {
        let model = &mut self.side.model;
        let before = std::mem::replace(&mut model.sets, sets.clone());
        let mut binder = sets.binder(model.family, model.changed_sets()).keeping_empty();
        let mut rules = Vec::new();
        let mut only_entries = true;
        for id in model.set_rules() {
            let old = Arc::clone(model.rule(id));
            let mut new = Rule::clone(&old);
            binder.bind_rule_again(&mut new);
            only_entries &= have_the_same_uses(&old, &new);
            model.set_rule(id, Arc::new(new));
            rules.push((id, old));
        }
        let model = &self.side.model;
        let uses = uses_of(rules.iter().map(|(id, _)| model.rule(*id)));
        let is_followed = !self.side.must_replan;
        let outcome = if only_entries { self.exchange_uses(&uses) } else { Err(Refusal::Replan) };
        let is_placed = is_followed && outcome.is_ok();
        t.steps.push(Step::SetsChanged(Box::new(Before { sets: before, rules, is_placed })));
        self.allow_at(line, outcome)
    }

    /// Sets hold what they held.
    pub(super) fn undo_sets(&mut self, before: Before) -> Result<(), Refusal> {
        let uses = uses_of(before.rules.iter().map(|(_, rule)| rule));
        self.side.model.sets = before.sets;
        for (id, rule) in before.rules {
            self.side.model.set_rule(id, rule);
        }
        if before.is_placed { self.exchange_uses(&uses) } else { Ok(()) }
    }

    fn exchange_uses(&mut self, uses: &HashMap<String, Arc<Membership>>) -> Result<(), Refusal> {
        let now = |old: &Arc<Membership>| Arc::clone(uses.get(&old.to_string()).unwrap_or(old));
        self.side.follow(|side| side.writer.change_sets(&now))
    }
}
