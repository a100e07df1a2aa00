//! Transactions: edits made one after the other, all of them undone when one fails.
//!
//! An edit becomes *steps*, each of which changes the model and the writer. Steps are remembered;
//! undoing one makes its opposite. What the writer has changed is not to be seen before the commit,
//! so an undone transaction, whose commit changes nothing, is never seen at all.

use std::sync::Arc;

use hipac_classifier::live::RuleId;
use hipac_rules::edit::{
    Applied, At, Change, Edit, EditError, ErrorKind, check_length, check_loops, check_name,
};
use hipac_rules::ipset::Sets;
use hipac_rules::registry::{self, Kind};
use hipac_rules::{Counters, Name, Policy, Rule, TableKind, Target};

use super::compact::Logged;
use super::ground::Later;
use super::inner::Inner;
use super::model::{ChainId, LiveChain};
use super::options::LiveError;
use super::sets::Before;
use super::store::RULES_MAX;
use super::writer::{EntryKind, Refusal};
use crate::compile::CompileError;

/// A step that was made, as far as undoing it needs to know.
pub(super) enum Step {
    /// `is_placed`: in the writer too, not only in the model.
    Put {
        chain: ChainId,
        at: usize,
        rule: RuleId,
        is_placed: bool,
    },
    Taken {
        chain: ChainId,
        at: usize,
        rule: RuleId,
        is_placed: bool,
    },
    ChainAdded(ChainId),
    /// With the kind of its entry, when the writer took it out as well.
    ChainRemoved(ChainId, Box<LiveChain>, Option<EntryKind>),
    Renamed {
        chain: ChainId,
        from: Name,
    },
    PolicySet {
        chain: ChainId,
        from: Option<Policy>,
        to: Policy,
    },
    RuleCounters {
        rule: RuleId,
        from: Counters,
    },
    PolicyCounters {
        chain: ChainId,
        from: Counters,
    },
    TableAdded(TableKind),
    SetsChanged(Box<Before>),
}

/// The transaction at hand.
#[derive(Default)]
pub(super) struct Transaction {
    pub(super) steps: Vec<Step>,
    done: Applied,
}

impl Inner {
    /// Makes edits, or none of them; IP sets hold something else before, if they are given.
    pub(super) fn transaction(&mut self, edits: &[Edit], sets: Option<&Sets>) -> Result<Applied, LiveError> {
        let was_torn = self.side.is_torn;
        if was_torn {
            // Whatever the edits are, a generation has to be made that has them.
            self.side.must_replan = true;
        } else {
            self.wait_for_room();
        }
        let mut t = Transaction::default();
        let line = edits.last().map_or(0, |e| e.place.line);
        let made = sets.map_or(Ok(()), |sets| self.change_sets(sets, 0, &mut t));
        let changed = self.side.model.changed_sets();
        let made = made.and_then(|()| edits.iter().try_for_each(|edit| self.edit(edit, &mut t)));
        let made = made.and_then(|()| {
            if self.side.model.changed_sets() == changed {
                return Ok(());
            }
            // Rules change other sets now: what these hold is not known any more, or is again.
            let sets = self.side.model.sets.clone();
            self.change_sets(&sets, line, &mut t)
        });
        let made = made.and_then(|()| self.check_loops(edits));
        let made = made.and_then(|()| if self.side.must_replan { self.rebuild(line) } else { Ok(()) });
        if let Err(mut error) = made {
            if let LiveError::Memory { needed, .. } = &mut error {
                *needed = self.size_that_does(edits).max(*needed);
            }
            self.undo(t, was_torn);
            return Err(error);
        }
        self.log(&t.steps);
        for step in t.steps {
            match step {
                Step::Taken { rule, .. } => self.side.writer.ground.space.retire_other(Later::FreeRule(rule)),
                Step::ChainRemoved(id, ..) => {
                    self.side.writer.ground.space.retire_other(Later::FreeEntry(id))
                }
                _ => {}
            }
        }
        self.commit();
        Ok(t.done)
    }

    /// A limit under which edits that went over this one fit, whatever comes of them: three times what
    /// as many rules of the kind take, for the generation, for what waits for readers, and for another
    /// generation beside it.
    fn size_that_does(&self, edits: &[Edit]) -> usize {
        const FREE_MIN: usize = 4 << 20;
        const RULE_BYTES: usize = 200;
        let more: usize = edits.iter().map(|edit| edit.change.rules().len()).sum();
        let rules = self.side.model.count;
        let used = self.side.writer.structure_bytes();
        let grown = (used as f64 * (rules + more) as f64 / rules.max(1) as f64) as usize;
        3 * grown.clamp(RULE_BYTES * (rules + more), usize::MAX / 4) + FREE_MIN
    }

    /// Writes steps down for whoever builds a generation of the rules before them.
    fn log(&mut self, steps: &[Step]) {
        let Some(log) = &mut self.log else { return };
        if steps.iter().any(|step| matches!(step, Step::Renamed { .. } | Step::SetsChanged(_))) {
            // Rules have the new name by now, also those that were put in before the chain had it; and what
            // sets hold is known to the model alone.
            return log.push(Logged::Lost);
        }
        let model = &self.side.model;
        for step in steps {
            log.push(match *step {
                Step::Put { chain, at, rule, .. } => {
                    Logged::Put { chain, at, id: rule, rule: Arc::clone(model.rule(rule)) }
                }
                Step::Taken { chain, at, .. } => Logged::Take { chain, at },
                Step::ChainAdded(chain) => match model.find_chain(chain) {
                    Some(c) => Logged::AddChain { chain, table: c.table, name: c.name.clone() },
                    // It came and went in one transaction.
                    None => Logged::Lost,
                },
                Step::ChainRemoved(chain, ..) => Logged::RemoveChain { chain },
                Step::PolicySet { chain, to, .. } => Logged::Policy { chain, policy: to },
                Step::TableAdded(_) | Step::Renamed { .. } | Step::SetsChanged(_) => Logged::Lost,
                Step::RuleCounters { .. } | Step::PolicyCounters { .. } => continue,
            });
        }
    }

    fn check_loops(&self, edits: &[Edit]) -> Result<(), LiveError> {
        let edits: Vec<&Edit> = edits.iter().collect();
        // Rare: circles that no packet can get into are allowed, and only the slow twin knows. Any
        // change of the table may open the way.
        let model = &self.side.model;
        for &kind in model.tables().iter().filter(|kind| model.has_circles(**kind)) {
            if edits.iter().any(|edit| edit.table == kind) {
                check_loops(&self.plain_table(kind), &edits, None)?;
            }
        }
        Ok(())
    }

    /// Undoes all steps, the last one first: what was kept free is there for it. When that is not
    /// enough the model alone goes back, and readers keep what they have: nothing of this generation
    /// is published, settled or given back any more. Another one, beside it or with the next
    /// transaction that has the room, has the rules of the model.
    fn undo(&mut self, t: Transaction, was_torn: bool) {
        // A generation that was to be made is not, and the one that is there knows what comes back.
        self.side.must_replan = self.side.is_torn;
        self.side.writer.ground.space.lend_reserve(true);
        for step in t.steps.into_iter().rev() {
            if self.undo_step(step).is_err() {
                (self.side.is_torn, self.side.must_replan) = (true, true);
            }
        }
        self.side.writer.ground.space.lend_reserve(false);
        self.side.writer.forget_defaults();
        if !self.side.is_torn {
            return self.commit();
        }
        if !was_torn && self.rebuild(0).is_ok() {
            self.after_commit();
        }
    }

    fn undo_step(&mut self, step: Step) -> Result<(), Refusal> {
        match step {
            Step::Put { chain, at, is_placed, .. } => {
                let id = self.side.model.chain(chain).rules.get(at);
                let outcome = if is_placed {
                    self.side.take(chain, at)
                } else {
                    self.side.model.take(chain, at);
                    Ok(())
                };
                if let Some(id) = id {
                    self.side.writer.ground.space.retire_other(Later::FreeRule(id));
                }
                outcome
            }
            Step::Taken { chain, at, rule, is_placed } => {
                if !is_placed {
                    // Its taking came after a new generation was found to be needed.
                    self.side.model.put(chain, at, rule);
                    return Ok(());
                }
                self.side.put(chain, at, rule)
            }
            Step::ChainAdded(id) => {
                let outcome = self.side.follow(|side| side.writer.remove_entry(id)).map(drop);
                self.side.model.remove_chain(id);
                self.side.writer.ground.space.retire_other(Later::FreeEntry(id));
                outcome
            }
            Step::ChainRemoved(id, chain, kind) => {
                self.side.model.restore_chain(id, *chain);
                let Some(kind) = kind else { return Ok(()) };
                self.side.follow(|side| side.writer.add_entry(id, kind))
            }
            Step::Renamed { chain, from } => {
                self.side.model.rename(chain, &from);
                Ok(())
            }
            Step::PolicySet { chain, from, .. } => {
                self.side.model.chain_mut(chain).policy = from;
                Ok(())
            }
            Step::RuleCounters { rule, from } => {
                self.with_counts(|model, counts| model.set_rule_counters(rule, from, counts));
                Ok(())
            }
            Step::PolicyCounters { chain, from } => {
                self.with_counts(|model, counts| model.set_policy_counters(chain, from, counts));
                Ok(())
            }
            Step::TableAdded(kind) => {
                self.side.model.remove_table(kind);
                Ok(())
            }
            Step::SetsChanged(before) => self.undo_sets(*before),
        }
    }

    fn edit(&mut self, edit: &Edit, t: &mut Transaction) -> Result<(), LiveError> {
        if !self.side.model.has_table(edit.table) {
            self.side.model.add_table(edit.table);
            t.steps.push(Step::TableAdded(edit.table));
            // Packets begin at its chains: these have names that a generation knows.
            self.side.must_replan = true;
        }
        match &edit.change {
            Change::Append { chain, rules } => {
                let chain = self.side.model.named(edit, chain)?;
                self.check_targets(edit, rules)?;
                for rule in rules {
                    let at = self.side.model.chain(chain).rules.len();
                    self.put_new(edit, chain, at, rule, t)?;
                }
            }
            Change::Insert { chain, at, rules } => {
                let chain = self.side.model.named(edit, chain)?;
                self.check_position(
                    edit,
                    chain,
                    "insertion",
                    *at,
                    *at <= self.side.model.chain(chain).rules.len(),
                )?;
                self.check_targets(edit, rules)?;
                for rule in rules {
                    self.put_new(edit, chain, *at, rule, t)?;
                }
            }
            Change::Replace { chain, at, rule } => {
                let chain = self.side.model.named(edit, chain)?;
                self.check_position(
                    edit,
                    chain,
                    "replacement",
                    *at,
                    *at < self.side.model.chain(chain).rules.len(),
                )?;
                self.check_targets(edit, std::slice::from_ref(&**rule))?;
                self.take_old(edit, chain, *at, t)?;
                self.put_new(edit, chain, *at, rule, t)?;
            }
            Change::Delete { chain, at } => {
                let chain = self.side.model.named(edit, chain)?;
                self.check_position(
                    edit,
                    chain,
                    "deletion",
                    *at,
                    *at < self.side.model.chain(chain).rules.len(),
                )?;
                self.take_old(edit, chain, *at, t)?;
            }
            Change::DeleteRules { chain, rules } => {
                let chain = self.side.model.named(edit, chain)?;
                self.check_targets(edit, rules)?;
                for rule in rules {
                    let at = self.position_of(edit, chain, rule)?;
                    self.take_old(edit, chain, at, t)?;
                }
            }
            Change::Check { chain, rules } => {
                let chain = self.side.model.named(edit, chain)?;
                self.check_targets(edit, rules)?;
                for rule in rules {
                    self.position_of(edit, chain, rule)?;
                }
            }
            Change::Flush { chain } => {
                for id in self.chains_of(edit, chain.as_ref())? {
                    self.flush(edit, id, t)?;
                }
            }
            Change::Zero { chain, at } => self.zero(edit, chain.as_ref(), *at, t)?,
            Change::Declare { chain, policy, counters } => {
                self.declare(edit, chain, *policy, *counters, t)?;
            }
            Change::NewChain { chain } => {
                check_name(chain, self.side.model.family).map_err(|(kind, at)| edit.error(kind, at))?;
                if self.side.model.find(edit.table, chain).is_some() {
                    return Err(edit
                        .error(ErrorKind::ChainExists { chain: chain.clone() }, At::Chain)
                        .into());
                }
                self.new_chain(edit, chain, t)?;
            }
            Change::DeleteChain { chain } => self.delete_chains(edit, chain.as_ref(), t)?,
            Change::RenameChain { chain, to } => self.rename(edit, chain, to, t)?,
            Change::SetPolicy { chain, policy, counters } => {
                let id = self.side.model.find(edit.table, chain);
                let Some(id) = id.filter(|id| self.side.model.chain(*id).hook.is_some()) else {
                    return Err(edit.error(ErrorKind::NoPolicy { chain: chain.clone() }, At::Chain).into());
                };
                self.set_policy(edit, id, *policy, counters.unwrap_or_default(), t)?;
            }
        }
        Ok(())
    }

    /// What the writer refuses becomes a new generation, or an error.
    fn allow(&mut self, edit: &Edit, outcome: Result<(), Refusal>) -> Result<(), LiveError> {
        self.allow_at(edit.place.line, outcome)
    }

    pub(super) fn allow_at(&mut self, line: u32, outcome: Result<(), Refusal>) -> Result<(), LiveError> {
        match outcome {
            Ok(()) => Ok(()),
            Err(Refusal::Replan | Refusal::Torn) => {
                self.side.must_replan = true;
                Ok(())
            }
            Err(Refusal::Compile(error)) => Err(error.into()),
            Err(Refusal::Full(full)) => {
                let limit = self.options.memory_bytes_max;
                // What is refused before it begins keeps a part of the limit free.
                let needed = (full.needed + full.needed / 31).max(limit + 1);
                Err(LiveError::Memory { line, needed, limit })
            }
        }
    }

    fn put_new(
        &mut self,
        edit: &Edit,
        chain: ChainId,
        at: usize,
        rule: &Rule,
        t: &mut Transaction,
    ) -> Result<(), LiveError> {
        if self.side.model.rule_numbers() >= RULES_MAX as usize {
            let (count, limit) = (RULES_MAX as usize + 1, RULES_MAX as usize);
            return Err(CompileError::TooLarge { what: "rules", count, limit }.into());
        }
        let mut rule = rule.clone();
        self.side.model.bind(&mut rule);
        let rule = Arc::new(rule);
        let target = self.side.model.target(edit.table, &rule);
        if let Some(target) = target
            && self.side.model.leads_to(target, chain)
        {
            self.side.model.note_circle(edit.table);
        }
        let id = self.with_counts(|model, counts| model.add_rule(rule, counts));
        let is_followed = !self.side.must_replan;
        let outcome = self.side.put(chain, at, id);
        t.steps.push(Step::Put { chain, at, rule: id, is_placed: is_followed && outcome.is_ok() });
        t.done.rules_added += 1;
        self.allow(edit, outcome)
    }

    fn take_old(
        &mut self,
        edit: &Edit,
        chain: ChainId,
        at: usize,
        t: &mut Transaction,
    ) -> Result<(), LiveError> {
        let Some(rule) = self.side.model.chain(chain).rules.get(at) else { return Ok(()) };
        // Without room for it, a generation of what is left may have it.
        self.side.must_replan |= !self.side.writer.can_remove(rule);
        let is_followed = !self.side.must_replan;
        let outcome = self.side.take(chain, at);
        t.steps.push(Step::Taken { chain, at, rule, is_placed: is_followed && outcome.is_ok() });
        t.done.rules_removed += 1;
        self.allow(edit, outcome)
    }

    fn flush(&mut self, edit: &Edit, chain: ChainId, t: &mut Transaction) -> Result<(), LiveError> {
        // From the end: nothing has to move up.
        for at in (0..self.side.model.chain(chain).rules.len()).rev() {
            self.take_old(edit, chain, at, t)?;
        }
        Ok(())
    }

    fn new_chain(&mut self, edit: &Edit, name: &Name, t: &mut Transaction) -> Result<ChainId, LiveError> {
        let id = self.side.model.add_chain(edit.table, name.clone(), edit.place.line);
        t.steps.push(Step::ChainAdded(id));
        t.done.chains_added += 1;
        self.with_counts(|model, counts| model.set_policy_counters(id, Counters::default(), counts));
        let outcome = self.side.follow(|side| side.writer.add_entry(id, EntryKind::NEW));
        self.allow(edit, outcome)?;
        Ok(id)
    }

    fn declare(
        &mut self,
        edit: &Edit,
        name: &Name,
        policy: Option<Policy>,
        counters: Counters,
        t: &mut Transaction,
    ) -> Result<(), LiveError> {
        let found = self.side.model.find(edit.table, name);
        if let Some(id) = found
            && self.side.model.chain(id).hook.is_some()
        {
            if let Some(policy) = policy {
                self.set_policy(edit, id, policy, counters, t)?;
            }
            return Ok(());
        }
        if policy.is_some() {
            return Err(edit.error(ErrorKind::NoPolicy { chain: name.clone() }, At::Chain).into());
        }
        match found {
            Some(id) => self.flush(edit, id, t),
            None => {
                check_length(name).map_err(|(kind, at)| edit.error(kind, at))?;
                self.new_chain(edit, name, t).map(drop)
            }
        }
    }

    fn set_policy(
        &mut self,
        edit: &Edit,
        id: ChainId,
        policy: Policy,
        counters: Counters,
        t: &mut Transaction,
    ) -> Result<(), LiveError> {
        let from = self.side.model.chain_mut(id).policy.replace(policy);
        t.steps.push(Step::PolicySet { chain: id, from, to: policy });
        let old = self.with_counts(|model, counts| {
            let old = model.policy_counters(id, counts);
            model.set_policy_counters(id, counters, counts);
            old
        });
        t.steps.push(Step::PolicyCounters { chain: id, from: old });
        let outcome = self.side.follow(|side| side.writer.set_policy(id, policy));
        self.allow(edit, outcome)
    }

    fn zero(
        &mut self,
        edit: &Edit,
        chain: Option<&Name>,
        at: Option<usize>,
        t: &mut Transaction,
    ) -> Result<(), LiveError> {
        for id in self.chains_of(edit, chain)? {
            let rules: Vec<RuleId> = match at {
                Some(at) => {
                    self.check_position(edit, id, "counter", at, at < self.side.model.chain(id).rules.len())?;
                    self.side.model.chain(id).rules.get(at).into_iter().collect()
                }
                None => self.side.model.chain(id).rules.iter().collect(),
            };
            self.with_counts(|model, counts| {
                for rule in rules {
                    t.steps.push(Step::RuleCounters { rule, from: model.rule_counters(rule, counts) });
                    model.set_rule_counters(rule, Counters::default(), counts);
                }
                if at.is_none() {
                    t.steps.push(Step::PolicyCounters { chain: id, from: model.policy_counters(id, counts) });
                    model.set_policy_counters(id, Counters::default(), counts);
                }
            });
        }
        Ok(())
    }

    fn delete_chains(
        &mut self,
        edit: &Edit,
        chain: Option<&Name>,
        t: &mut Transaction,
    ) -> Result<(), LiveError> {
        let doomed: Vec<ChainId> = match chain {
            Some(name) => vec![self.side.model.named(edit, name)?],
            None => {
                let all = self.side.model.in_order(edit.table);
                all.filter(|(_, c)| c.hook.is_none()).map(|(id, _)| id).collect()
            }
        };
        for &id in &doomed {
            let chain = self.side.model.chain(id);
            let name = chain.name.clone();
            if chain.hook.is_some() {
                let kind = ErrorKind::BuiltIn { chain: name, cannot_be: "deleted" };
                return Err(edit.error(kind, At::Chain).into());
            }
        }
        if let Some(id) = self.side.model.first_led_to(edit.table, &doomed)
            && let Some((by, at)) = self.side.model.first_reference(id)
        {
            let chain = self.side.model.chain(id);
            let (chain, references) = (chain.name.clone(), chain.references);
            return Err(edit.error(ErrorKind::ChainInUse { chain, by, at, references }, At::Chain).into());
        }
        if let Some(chain) =
            doomed.iter().map(|&id| self.side.model.chain(id)).find(|chain| chain.rules.len() > 0)
        {
            let kind = ErrorKind::ChainNotEmpty { chain: chain.name.clone(), rules: chain.rules.len() };
            return Err(edit.error(kind, At::Chain).into());
        }
        for id in doomed {
            if let Some(chain) = self.side.model.remove_chain(id) {
                let outcome = self.side.follow(|side| side.writer.remove_entry(id));
                let (kind, outcome) = match outcome {
                    Ok(kind) => (kind, Ok(())),
                    Err(refusal) => (None, Err(refusal)),
                };
                t.steps.push(Step::ChainRemoved(id, Box::new(chain), kind));
                t.done.chains_removed += 1;
                self.allow(edit, outcome)?;
            }
        }
        Ok(())
    }

    fn rename(&mut self, edit: &Edit, old: &Name, new: &Name, t: &mut Transaction) -> Result<(), LiveError> {
        let id = self.side.model.named(edit, old)?;
        if self.side.model.chain(id).hook.is_some() {
            let kind = ErrorKind::BuiltIn { chain: old.clone(), cannot_be: "renamed" };
            return Err(edit.error(kind, At::Chain).into());
        }
        if self.side.model.find(edit.table, new).is_some() {
            return Err(edit.error(ErrorKind::ChainExists { chain: new.clone() }, At::Argument).into());
        }
        check_name(new, self.side.model.family).map_err(|(kind, _)| edit.error(kind, At::Argument))?;
        self.side.model.rename(id, new);
        t.steps.push(Step::Renamed { chain: id, from: old.clone() });
        Ok(())
    }

    /// The chain of that name, or all of the table.
    fn chains_of(&self, edit: &Edit, chain: Option<&Name>) -> Result<Vec<ChainId>, EditError> {
        match chain {
            Some(name) => Ok(vec![self.side.model.named(edit, name)?]),
            None => Ok(self.side.model.in_order(edit.table).map(|(id, _)| id).collect()),
        }
    }

    fn check_position(
        &self,
        edit: &Edit,
        chain: ChainId,
        of: &'static str,
        at: usize,
        is_there: bool,
    ) -> Result<(), EditError> {
        if is_there {
            return Ok(());
        }
        let chain = self.side.model.chain(chain);
        let (chain, length) = (chain.name.clone(), chain.rules.len());
        Err(edit.error(ErrorKind::Index { of, chain, at, length }, At::Argument))
    }

    /// Rules lead to chains of the table that they may lead to.
    fn check_targets(&self, edit: &Edit, rules: &[Rule]) -> Result<(), EditError> {
        for rule in rules {
            let (Target::Jump(name) | Target::Goto(name)) = &rule.target else { continue };
            match self.side.model.find(edit.table, name).map(|id| self.side.model.chain(id)) {
                Some(chain) if chain.hook.is_none() => {}
                Some(_) => {
                    return Err(edit.error(ErrorKind::LeadsToBuiltIn { chain: name.clone() }, At::Target));
                }
                None => {
                    let near = registry::nearest(Kind::Target, name, self.side.model.family);
                    return Err(edit.error(ErrorKind::NoTarget { name: name.clone(), near }, At::Target));
                }
            }
        }
        Ok(())
    }

    /// The position of the first rule of a chain that equals `rule`.
    fn position_of(&self, edit: &Edit, chain: ChainId, rule: &Rule) -> Result<usize, EditError> {
        let mut rules = self.side.model.chain(chain).rules.iter();
        let found = rules.position(|id| self.side.model.rule(id).is_same(rule));
        let name = || self.side.model.chain(chain).name.clone();
        found.ok_or_else(|| edit.error(ErrorKind::NoSuchRule { chain: name() }, At::Whole))
    }
}
