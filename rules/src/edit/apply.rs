//! Edits made on the vectors of a [`Ruleset`], one after the other.
//!
//! An edit looks first and changes then, so that one which fails changes nothing. Costs a search
//! of the chain, or of the table where references count, and what moving rules costs.

use crate::model::{Chain, Counters, Family, Name, Policy, Rule, Ruleset, Table, TableKind, Target};
use crate::parse::build::{CHAIN_NAME_BYTES_MAX, leads_to};
use crate::parse::{ParseOptions, loops};
use crate::registry::{self, Kind};

use super::{Change, Edit, EditError, ErrorKind, ParsedEdits, Place};

/// What an edit did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Applied {
    /// Rules that are new, those that replace others included.
    pub rules_added: usize,
    /// Rules that are gone.
    pub rules_removed: usize,
    /// Chains that are new.
    pub chains_added: usize,
    /// Chains that are gone.
    pub chains_removed: usize,
}

impl std::ops::AddAssign for Applied {
    fn add_assign(&mut self, other: Applied) {
        self.rules_added += other.rules_added;
        self.rules_removed += other.rules_removed;
        self.chains_added += other.chains_added;
        self.chains_removed += other.chains_removed;
    }
}

/// Makes one edit, or changes nothing. Loops, which a later edit may undo, are not looked for:
/// [`apply_all`] does at the end.
///
/// A table that the ruleset does not have is made, as the kernel makes it: with empty chains that
/// accept.
pub fn apply(ruleset: &mut Ruleset, edit: &Edit) -> Result<Applied, EditError> {
    apply_within(ruleset, edit, &mut Work { steps: 0, steps_max: u64::MAX })
}

/// The ruleset with all edits made, in their order, within the default limits. The first that
/// fails is the error, and a loop that remains at the end.
pub fn apply_all<'e>(
    ruleset: &Ruleset,
    edits: impl IntoIterator<Item = &'e Edit>,
) -> Result<Ruleset, EditError> {
    let options = ParseOptions::default();
    let mut transaction = Transaction::new(ruleset, &options);
    transaction.apply(&edits.into_iter().collect::<Vec<_>>(), None)?;
    Ok(transaction.ruleset)
}

impl ParsedEdits {
    /// The ruleset with all groups applied, one after the other, within the limits of `options`,
    /// and what was done. A loop is an error where COMMIT stands.
    pub fn apply(&self, ruleset: &Ruleset, options: &ParseOptions) -> Result<(Ruleset, Applied), EditError> {
        let mut transaction = Transaction::new(ruleset, options);
        for group in &self.groups {
            transaction.apply(&group.edits.iter().collect::<Vec<_>>(), Some((group.table, &group.commit)))?;
        }
        Ok((transaction.ruleset, transaction.done))
    }
}

/// A ruleset while edits are made on a copy of it.
struct Transaction<'o> {
    ruleset: Ruleset,
    options: &'o ParseOptions,
    rules: usize,
    chains: usize,
    done: Applied,
    work: Work,
}

impl<'o> Transaction<'o> {
    fn new(ruleset: &Ruleset, options: &'o ParseOptions) -> Transaction<'o> {
        let user_chains = |table: &Table| table.chains.iter().filter(|c| c.hook.is_none()).count();
        Transaction {
            ruleset: ruleset.clone(),
            options,
            rules: ruleset.rule_count(),
            chains: ruleset.tables.iter().map(user_chains).sum(),
            done: Applied::default(),
            work: Work { steps: 0, steps_max: options.edit_steps_max },
        }
    }

    /// Makes edits, of which `commit` is the end.
    fn apply(&mut self, edits: &[&Edit], commit: Option<(TableKind, &Place)>) -> Result<(), EditError> {
        for edit in edits {
            let applied = apply_within(&mut self.ruleset, edit, &mut self.work)?;
            self.done += applied;
            self.rules = self.rules + applied.rules_added - applied.rules_removed;
            self.chains = self.chains + applied.chains_added - applied.chains_removed;
            if applied.rules_added > 0 && self.rules > self.options.rule_count_max {
                let max = self.options.rule_count_max as u64;
                let kind = ErrorKind::Limit { of: "rules", max, option: "rule_count_max" };
                return Err(error(edit, kind, At::Whole));
            }
            if applied.chains_added > 0 && self.chains > self.options.chain_count_max {
                let max = self.options.chain_count_max as u64;
                let kind = ErrorKind::Limit { of: "chains", max, option: "chain_count_max" };
                return Err(error(edit, kind, At::Chain));
            }
        }
        self.check_loops(edits, commit)
    }

    fn check_loops(&mut self, edits: &[&Edit], commit: Option<(TableKind, &Place)>) -> Result<(), EditError> {
        for table in &self.ruleset.tables {
            // A group of edits costs a walk over its table, however short it is.
            if let Some(edit) = edits.iter().rfind(|edit| edit.table == table.kind) {
                let rules: usize = table.chains.iter().map(|chain| 1 + chain.rules.len()).sum();
                self.work.spend(rules / 16).map_err(|(kind, at)| error(edit, kind, at))?;
            }
            check_loops(table, edits, commit)?;
        }
        Ok(())
    }
}

/// A loop of a table that packets can reach is an error of the edit that closes it, else of the end,
/// where `commit` stands.
///
/// # Errors
/// There is such a loop.
pub fn check_loops(
    table: &Table,
    edits: &[&Edit],
    commit: Option<(TableKind, &Place)>,
) -> Result<(), EditError> {
    if !edits.iter().any(|edit| edit.table == table.kind && may_close_loop(&edit.change)) {
        return Ok(());
    }
    let found = loops::find(table);
    let Some(closing) = found.into_iter().find(|closing| closing.reachable) else { return Ok(()) };
    let chain = &table.chains[closing.chain];
    let rule = &chain.rules[closing.at];
    let brings = |edit: &&&Edit| {
        edit.table == table.kind
            && edit.change.chain() == Some(&chain.name)
            && edit.change.rules().iter().any(|new| new.is_same(rule))
    };
    let kind = ErrorKind::Loop { chains: closing.chains, at: closing.at };
    Err(match (edits.iter().rev().find(brings), commit) {
        (Some(edit), _) => error(edit, kind, At::Target),
        (None, Some((table, place))) => {
            EditError { table, kind, line: place.line, span: place.whole.clone() }
        }
        (None, None) => EditError {
            table: table.kind,
            kind,
            line: edits.last().map_or(0, |e| e.place.line),
            span: edits.last().map_or(0..0, |e| e.place.whole.clone()),
        },
    })
}

/// Whether rules may lead in a loop that did not before: a rule that is taken away may have kept
/// packets from others.
fn may_close_loop(change: &Change) -> bool {
    !matches!(change, Change::Check { .. } | Change::Zero { .. } | Change::SetPolicy { .. })
}

/// What edits have cost so far, and may.
struct Work {
    steps: u64,
    steps_max: u64,
}

impl Work {
    fn spend(&mut self, steps: usize) -> Result<(), Failed> {
        self.steps = self.steps.saturating_add(steps as u64);
        if self.steps <= self.steps_max {
            return Ok(());
        }
        let kind = ErrorKind::Limit { of: "steps", max: self.steps_max, option: "edit_steps_max" };
        Err((kind, At::Whole))
    }

    /// Pays for moving rules from a position on, of which a rule compared is worth sixteen.
    fn move_rules(&mut self, rules: &[Rule], at: usize) -> Result<(), Failed> {
        self.spend(rules.len().saturating_sub(at) / 16)
    }
}

/// What of an edit's text an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// All of it.
    Whole,
    /// The chain's name.
    Chain,
    /// What follows it: a number, a policy, a new name.
    Argument,
    /// The chain that the rule leads to.
    Target,
}

impl Edit {
    /// The error that this edit cannot be made.
    pub fn error(&self, kind: ErrorKind, at: At) -> EditError {
        error(self, kind, at)
    }
}

/// What is wrong with an edit, and what of its text that is about.
pub type Failed = (ErrorKind, At);

fn error(edit: &Edit, kind: ErrorKind, at: At) -> EditError {
    let span = match at {
        At::Whole => &edit.place.whole,
        At::Chain => &edit.place.chain,
        At::Argument => &edit.place.argument,
        At::Target => &edit.place.target,
    };
    EditError { table: edit.table, kind, line: edit.place.line, span: span.clone() }
}

fn apply_within(ruleset: &mut Ruleset, edit: &Edit, work: &mut Work) -> Result<Applied, EditError> {
    let family = ruleset.family;
    if let Some(table) = ruleset.tables.iter_mut().find(|t| t.kind == edit.table) {
        return make(table, family, edit, work).map_err(|(kind, at)| error(edit, kind, at));
    }
    let mut table = empty_table(edit.table);
    let applied = make(&mut table, family, edit, work).map_err(|(kind, at)| error(edit, kind, at))?;
    ruleset.tables.push(table);
    Ok(applied)
}

/// A table as the kernel makes it.
fn empty_table(kind: TableKind) -> Table {
    let chain =
        |hook| Chain { hook: Some(hook), policy: Some(Policy::Accept), ..user_chain(hook.name().into(), 0) };
    Table { kind, chains: kind.hooks().iter().copied().map(chain).collect() }
}

fn user_chain(name: Name, line: u32) -> Chain {
    Chain { name, hook: None, policy: None, counters: Counters::default(), rules: Vec::new(), line }
}

fn make(table: &mut Table, family: Family, edit: &Edit, work: &mut Work) -> Result<Applied, Failed> {
    let mut done = Applied::default();
    match &edit.change {
        Change::Append { chain, rules } => {
            let index = find(table, chain)?;
            check_targets(table, family, rules)?;
            table.chains[index].rules.extend_from_slice(rules);
            done.rules_added = rules.len();
        }
        Change::Insert { chain, at, rules } => {
            let index = find(table, chain)?;
            let at = *at;
            check_position(&table.chains[index], "insertion", at, at <= table.chains[index].rules.len())?;
            check_targets(table, family, rules)?;
            let list = &mut table.chains[index].rules;
            work.move_rules(list, at)?;
            list.splice(at..at, rules.iter().rev().cloned());
            done.rules_added = rules.len();
        }
        Change::Replace { chain, at, rule } => {
            let index = find(table, chain)?;
            let at = *at;
            check_position(&table.chains[index], "replacement", at, at < table.chains[index].rules.len())?;
            check_targets(table, family, std::slice::from_ref(&**rule))?;
            table.chains[index].rules[at] = Rule::clone(rule);
            (done.rules_added, done.rules_removed) = (1, 1);
        }
        Change::Delete { chain, at } => {
            let index = find(table, chain)?;
            let at = *at;
            check_position(&table.chains[index], "deletion", at, at < table.chains[index].rules.len())?;
            work.move_rules(&table.chains[index].rules, at)?;
            table.chains[index].rules.remove(at);
            done.rules_removed = 1;
        }
        Change::DeleteRules { chain, rules } => {
            let index = find(table, chain)?;
            check_targets(table, family, rules)?;
            delete_rules(&mut table.chains[index], rules, work)?;
            done.rules_removed = rules.len();
        }
        Change::Check { chain, rules } => {
            let index = find(table, chain)?;
            check_targets(table, family, rules)?;
            for rule in rules {
                position_of(&table.chains[index], rule, work)?;
            }
        }
        Change::Flush { chain } => {
            for index in find_all(table, chain.as_ref())? {
                done.rules_removed += std::mem::take(&mut table.chains[index].rules).len();
            }
        }
        Change::Zero { chain, at } => {
            let all: usize = table.chains.iter().map(|chain| 1 + chain.rules.len()).sum();
            work.spend(if at.is_some() { 1 } else { all / 16 })?;
            zero(table, chain.as_ref(), *at)?;
        }
        Change::Declare { chain, policy, counters } => {
            work.spend(table.chains.len() / 16)?;
            done = declare(table, chain, *policy, *counters, edit.place.line)?;
        }
        Change::NewChain { chain } => {
            check_name(chain, family)?;
            if table.chain_index(chain).is_some() {
                return Err((ErrorKind::ChainExists { chain: chain.clone() }, At::Chain));
            }
            work.spend(table.chains.len() / 16)?;
            put_chain(table, user_chain(chain.clone(), edit.place.line));
            done.chains_added = 1;
        }
        Change::DeleteChain { chain } => done.chains_removed = delete_chains(table, chain.as_ref(), work)?,
        Change::RenameChain { chain, to } => rename(table, family, chain, to, work)?,
        Change::SetPolicy { chain, policy, counters } => {
            let index = table.chain_index(chain);
            let Some(found) = index.map(|i| &mut table.chains[i]).filter(|c| c.hook.is_some()) else {
                return Err((ErrorKind::NoPolicy { chain: chain.clone() }, At::Chain));
            };
            (found.policy, found.counters) = (Some(*policy), counters.unwrap_or_default());
        }
    }
    Ok(done)
}

fn find(table: &Table, chain: &Name) -> Result<usize, Failed> {
    table.chain_index(chain).ok_or_else(|| (ErrorKind::NoChain { chain: chain.clone() }, At::Chain))
}

/// The chain of that name, or all.
fn find_all(table: &Table, chain: Option<&Name>) -> Result<std::ops::Range<usize>, Failed> {
    match chain {
        Some(chain) => find(table, chain).map(|index| index..index + 1),
        None => Ok(0..table.chains.len()),
    }
}

fn check_position(chain: &Chain, of: &'static str, at: usize, is_there: bool) -> Result<(), Failed> {
    if is_there {
        return Ok(());
    }
    let (chain, length) = (chain.name.clone(), chain.rules.len());
    Err((ErrorKind::Index { of, chain, at, length }, At::Argument))
}

/// Whether rules lead to chains of the table that they may lead to.
fn check_targets(table: &Table, family: Family, rules: &[Rule]) -> Result<(), Failed> {
    for name in rules.iter().filter_map(|rule| match &rule.target {
        Target::Jump(name) | Target::Goto(name) => Some(name),
        _ => None,
    }) {
        match table.chain(name) {
            Some(chain) if chain.hook.is_none() => {}
            Some(_) => return Err((ErrorKind::LeadsToBuiltIn { chain: name.clone() }, At::Target)),
            None => {
                let near = registry::nearest(Kind::Target, name, family);
                return Err((ErrorKind::NoTarget { name: name.clone(), near }, At::Target));
            }
        }
    }
    Ok(())
}

/// The position of the first rule of a chain that equals `rule`.
fn position_of(chain: &Chain, rule: &Rule, work: &mut Work) -> Result<usize, Failed> {
    let found = chain.rules.iter().position(|r| r.is_same(rule));
    work.spend(found.unwrap_or(chain.rules.len()))?;
    found.ok_or_else(|| (ErrorKind::NoSuchRule { chain: chain.name.clone() }, At::Whole))
}

/// Deletes the first equal of each rule, or, when one has none, nothing.
fn delete_rules(chain: &mut Chain, rules: &[Rule], work: &mut Work) -> Result<(), Failed> {
    // What is gone so far, to be put back: no copy of the chain is made, however long it is.
    let mut gone: Vec<(usize, Rule)> = Vec::with_capacity(rules.len());
    for rule in rules {
        let found = position_of(chain, rule, work).and_then(|at| {
            work.move_rules(&chain.rules, at)?;
            Ok(at)
        });
        match found {
            Ok(at) => gone.push((at, chain.rules.remove(at))),
            Err(failed) => {
                // The last one that went first, so that each finds its place.
                for (at, rule) in gone.into_iter().rev() {
                    chain.rules.insert(at, rule);
                }
                return Err(failed);
            }
        }
    }
    Ok(())
}

fn zero(table: &mut Table, chain: Option<&Name>, at: Option<usize>) -> Result<(), Failed> {
    for index in find_all(table, chain)? {
        let chain = &mut table.chains[index];
        let Some(at) = at else {
            chain.counters = Counters::default();
            chain.rules.iter_mut().for_each(|rule| rule.counters = Counters::default());
            continue;
        };
        check_position(chain, "counter", at, at < chain.rules.len())?;
        chain.rules[at].counters = Counters::default();
    }
    Ok(())
}

fn declare(
    table: &mut Table,
    name: &Name,
    policy: Option<Policy>,
    counters: Counters,
    line: u32,
) -> Result<Applied, Failed> {
    let mut done = Applied::default();
    let index = table.chain_index(name);
    if let Some(chain) = index.map(|i| &mut table.chains[i])
        && chain.hook.is_some()
    {
        if let Some(policy) = policy {
            (chain.policy, chain.counters) = (Some(policy), counters);
        }
        return Ok(done);
    }
    if policy.is_some() {
        return Err((ErrorKind::NoPolicy { chain: name.clone() }, At::Chain));
    }
    match index {
        Some(index) => done.rules_removed = std::mem::take(&mut table.chains[index].rules).len(),
        None => {
            check_length(name)?;
            put_chain(table, user_chain(name.clone(), line));
            done.chains_added = 1;
        }
    }
    Ok(done)
}

/// Puts a user chain where its name belongs.
fn put_chain(table: &mut Table, chain: Chain) {
    let built_in = table.chains.iter().take_while(|c| c.hook.is_some()).count();
    let at = built_in + table.chains[built_in..].partition_point(|c| c.name < chain.name);
    table.chains.insert(at, chain);
}

/// Deletes one user chain, or all of them, and says how many.
fn delete_chains(table: &mut Table, chain: Option<&Name>, work: &mut Work) -> Result<usize, Failed> {
    let doomed = match chain {
        Some(chain) => find_all(table, Some(chain))?,
        None => table.chains.iter().take_while(|c| c.hook.is_some()).count()..table.chains.len(),
    };
    for chain in &table.chains[doomed.clone()] {
        if chain.hook.is_some() {
            let kind = ErrorKind::BuiltIn { chain: chain.name.clone(), cannot_be: "deleted" };
            return Err((kind, At::Chain));
        }
    }
    work.spend(table.chains.iter().map(|c| 1 + c.rules.len()).sum())?;
    let mut in_use: Option<(usize, ErrorKind)> = None;
    for by in &table.chains {
        for (at, rule) in by.rules.iter().enumerate() {
            let Some(led_to) = leads_to(rule).and_then(|name| table.chain_index(name)) else { continue };
            if !doomed.contains(&led_to) {
                continue;
            }
            match &mut in_use {
                None => {
                    let (chain, by) = (table.chains[led_to].name.clone(), by.name.clone());
                    in_use = Some((led_to, ErrorKind::ChainInUse { chain, by, at, references: 1 }));
                }
                Some((first, ErrorKind::ChainInUse { references, .. })) if *first == led_to => {
                    *references += 1
                }
                Some(_) => {}
            }
        }
    }
    if let Some((_, kind)) = in_use {
        return Err((kind, At::Chain));
    }
    if let Some(full) = table.chains[doomed.clone()].iter().find(|chain| !chain.rules.is_empty()) {
        let kind = ErrorKind::ChainNotEmpty { chain: full.name.clone(), rules: full.rules.len() };
        return Err((kind, At::Chain));
    }
    Ok(table.chains.drain(doomed).count())
}

fn rename(table: &mut Table, family: Family, old: &Name, new: &Name, work: &mut Work) -> Result<(), Failed> {
    let index = find(table, old)?;
    if table.chains[index].hook.is_some() {
        return Err((ErrorKind::BuiltIn { chain: old.clone(), cannot_be: "renamed" }, At::Chain));
    }
    if table.chain_index(new).is_some() {
        return Err((ErrorKind::ChainExists { chain: new.clone() }, At::Argument));
    }
    check_name(new, family).map_err(|(kind, _)| (kind, At::Argument))?;
    work.spend(table.chains.iter().map(|c| 1 + c.rules.len()).sum())?;
    for rule in table.chains.iter_mut().flat_map(|c| &mut c.rules) {
        match &mut rule.target {
            Target::Jump(name) | Target::Goto(name) if name == old => *name = new.clone(),
            _ => {}
        }
    }
    let chain = table.chains.remove(index);
    put_chain(table, Chain { name: new.clone(), ..chain });
    Ok(())
}

/// Whether `:NAME` takes the name.
///
/// # Errors
/// What is wrong with it.
pub fn check_length(name: &Name) -> Result<(), Failed> {
    let why = match name.len() {
        0 => "it is empty",
        length if length > CHAIN_NAME_BYTES_MAX => "it has more than 28 bytes",
        _ => return Ok(()),
    };
    Err((ErrorKind::ChainName { chain: name.clone(), why }, At::Chain))
}

/// Whether `-N` takes the name. `-E` of iptables would take more: names that `-A` and a saved text
/// could not say.
///
/// # Errors
/// What is wrong with it.
pub fn check_name(name: &Name, family: Family) -> Result<(), Failed> {
    check_length(name)?;
    let why = if name.starts_with(['-', '!']) {
        "it begins as an option does"
    } else if name.chars().any(|c| c.is_whitespace()) {
        "it has a blank"
    } else if registry::find(Kind::Target, name, family).is_some() {
        "it is a target's name"
    } else {
        return Ok(());
    };
    Err((ErrorKind::ChainName { chain: name.clone(), why }, At::Chain))
}
