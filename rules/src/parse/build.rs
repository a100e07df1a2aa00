//! Tables while they are read: chains by name, rules in order, and the commands that edit them.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use foldhash::fast::RandomState;

use crate::fault::Severity;
use crate::model::{Chain, Counters, Hook, Name, Policy, Rule, Table, TableKind, Target};
use crate::registry::{self, Kind};

use super::loops::Graph;
use super::rule_list::RuleList;
use super::scan::Parser;
use super::{Tables, built_in};

/// The longest name of a chain.
pub(crate) const CHAIN_NAME_BYTES_MAX: usize = 28;

/// A chain while its table is read.
#[derive(Debug)]
pub(crate) struct ChainDraft {
    pub(crate) name: Name,
    pub(crate) hook: Option<Hook>,
    policy: Option<Policy>,
    counters: Counters,
    line: u32,
    pub(crate) rules: RuleList,
    /// Deleted by `-X`.
    gone: bool,
}

/// A `-j NAME` or `-g NAME` whose name is, so far, neither a target nor a chain.
#[derive(Debug, Clone)]
pub(crate) struct UnknownTarget {
    pub(crate) name: Name,
    pub(crate) goto: bool,
    pub(crate) span: Range<usize>,
}

/// A rule with such a target.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) chain: u32,
    /// Its number in [`ChainDraft::rules`].
    pub(crate) rule: u32,
    pub(crate) target: UnknownTarget,
    pub(crate) place: (u32, usize),
}

/// A table while it is read.
#[derive(Debug)]
pub(crate) struct TableBuilder {
    pub(crate) kind: TableKind,
    pub(crate) line: u32,
    pub(crate) offset: usize,
    pub(crate) chains: Vec<ChainDraft>,
    by_name: HashMap<Name, u32, RandomState>,
    /// Chains that have, or had, rules.
    used: Vec<u32>,
    pub(crate) pending: Vec<Pending>,
}

impl TableBuilder {
    pub(crate) fn new(kind: TableKind, line: u32, offset: usize) -> TableBuilder {
        let mut builder = TableBuilder {
            kind,
            line,
            offset,
            chains: Vec::new(),
            by_name: HashMap::default(),
            used: Vec::new(),
            pending: Vec::new(),
        };
        for hook in kind.hooks() {
            let index = builder.add(hook.name().into(), Some(*hook), 0);
            builder.chains[index as usize].policy = Some(Policy::Accept);
        }
        builder
    }

    fn add(&mut self, name: Name, hook: Option<Hook>, line: u32) -> u32 {
        let index = u32::try_from(self.chains.len()).unwrap_or(u32::MAX);
        self.by_name.insert(name.clone(), index);
        self.chains.push(ChainDraft {
            name,
            hook,
            policy: None,
            counters: Counters::default(),
            line,
            rules: RuleList::default(),
            gone: false,
        });
        index
    }

    pub(crate) fn index(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn chain(&self, name: &str) -> Option<&ChainDraft> {
        self.index(name).map(|i| &self.chains[i as usize])
    }

    pub(crate) fn chain_mut(&mut self, name: &str) -> Option<&mut ChainDraft> {
        self.index(name).map(|i| &mut self.chains[i as usize])
    }

    /// Puts rules at the end of a chain, where `more` are expected; `false`: they are too many.
    pub(crate) fn append(
        &mut self,
        chain: u32,
        rules: impl ExactSizeIterator<Item = Rule>,
        more: usize,
    ) -> bool {
        let list = &mut self.chains[chain as usize].rules;
        if list.numbered_count() == 0 && rules.len() > 0 {
            self.used.push(chain);
        }
        list.append(rules, more)
    }

    /// How many rules were put into the table, those taken out again included.
    fn rules_put(&self) -> u64 {
        self.used.iter().map(|&c| self.chains[c as usize].rules.numbered_count() as u64).sum()
    }

    /// The chains that rules which are in a chain lead to. Costs a pass over the rules.
    fn led_to(&self) -> impl Iterator<Item = &str> {
        self.used.iter().flat_map(|&c| self.chains[c as usize].rules.iter()).filter_map(leads_to)
    }
}

/// What an edit at a place costs: it moves four bytes for each rule up to the nearer end, of
/// which a step (a rule compared) is worth sixteen.
fn moved(at: usize, length: usize) -> u64 {
    (at.min(length.saturating_sub(at)) / 16) as u64
}

/// The chain that a rule leads to.
pub(crate) fn leads_to(rule: &Rule) -> Option<&str> {
    match &rule.target {
        Target::Jump(name) | Target::Goto(name) => Some(name),
        _ => None,
    }
}

impl Parser<'_, Tables> {
    /// `:CHAIN POLICY [counters]`
    pub(crate) fn declare_chain(
        &mut self,
        name: &str,
        span: Range<usize>,
        policy: Option<Policy>,
        counters: Counters,
    ) {
        let line = self.reader.line;
        let Some(table) = &mut self.to.current else { return };
        if built_in(table.kind, name).is_some() {
            if let Some(chain) = table.chain_mut(name) {
                chain.policy = policy.or(chain.policy);
                (chain.counters, chain.line) = (counters, line);
            }
            return;
        }
        if let Some(policy) = policy {
            let message = format!("`{name}` is no built-in chain and has no policy");
            let help = format!("write `:{name} - [0:0]` instead of {}", policy.name());
            self.error(span.clone(), message, Some(help));
        }
        self.new_chain(name, span);
    }

    /// Makes a user chain.
    pub(crate) fn new_chain(&mut self, name: &str, span: Range<usize>) {
        let line = self.reader.line;
        if name.is_empty() || name.len() > CHAIN_NAME_BYTES_MAX {
            let message =
                format!("chain name of {} bytes is not within 1 to {CHAIN_NAME_BYTES_MAX}", name.len());
            self.error(span.clone(), message, None);
        } else if name.starts_with(['-', '!']) {
            self.warn(span.clone(), format!("chain name `{name}` begins as an option does"), None);
        }
        let max = self.reader.options.chain_count_max;
        if self.to.counts.chains >= max {
            let message = format!("chain {name} is above the limit of {max} chains");
            self.error(span, message, Some("raise chain_count_max".into()));
            return;
        }
        let Some(table) = &mut self.to.current else { return };
        if let Some(earlier) = table.chain(name) {
            let line = earlier.line;
            self.error(span, format!("chain {name} is declared again, after line {line}"), None);
            return;
        }
        table.add(name.into(), None, line);
        self.to.counts.chains += 1;
    }

    /// The chain that a command names; when there is none, that is a fault and it is made.
    pub(crate) fn chain_of_command(&mut self, name: &str, span: &Range<usize>) -> Option<u32> {
        let table = self.to.current.as_ref()?;
        if let Some(index) = table.index(name) {
            return Some(index);
        }
        let kind = table.kind;
        let message = match Hook::from_name(name) {
            Some(_) => format!("table {} has no chain {name}", kind.name()),
            None => format!("chain {name} is not declared"),
        };
        self.error(
            span.clone(),
            message,
            Some(format!("put a line `:{name} - [0:0]` after *{}", kind.name())),
        );
        self.new_chain(name, span.clone());
        self.to.current.as_ref()?.index(name)
    }

    /// Puts a rule at a position (from 0) of a chain, or at its end, and says its number there.
    pub(crate) fn put(
        &mut self,
        chain: u32,
        at: Option<usize>,
        rule: Rule,
        span: &Range<usize>,
    ) -> Option<u32> {
        let max = self.reader.options.rule_count_max;
        if self.to.counts.rules >= max {
            let message = format!("the rule is above the limit of {max} rules");
            self.error(span.clone(), message, Some("raise rule_count_max".into()));
            return None;
        }
        let table = self.to.current.as_mut()?;
        let rules = &mut table.chains[chain as usize].rules;
        if let Some(at) = at
            && !self.to.counts.spend(moved(at, rules.len()), self.reader.options.edit_steps_max)
        {
            self.too_many_edits(span);
            return None;
        }
        let number = rules.insert(at, rule)?;
        if number == 0 {
            table.used.push(chain);
        }
        self.to.counts.rules += 1;
        Some(number)
    }

    fn too_many_edits(&mut self, span: &Range<usize>) {
        let max = self.reader.options.edit_steps_max;
        let message = format!("the edits of this text take more than {max} steps");
        self.error(span.clone(), message, Some("write the rules in their final order with -A".into()));
    }

    /// Takes the rule at a position (from 0) out of a chain.
    pub(crate) fn remove_at(&mut self, chain: u32, at: usize, span: &Range<usize>) {
        let Some(table) = self.to.current.as_mut() else { return };
        let rules = &mut table.chains[chain as usize].rules;
        if !self.to.counts.spend(moved(at, rules.len()), self.reader.options.edit_steps_max) {
            self.too_many_edits(span);
            return;
        }
        if rules.remove(at) {
            self.to.counts.rules -= 1;
        }
    }

    /// The position of the first rule of a chain that equals `rule`, counters and line aside.
    pub(crate) fn find_equal(&mut self, chain: u32, rule: &Rule, span: &Range<usize>) -> Option<usize> {
        let max = self.reader.options.edit_steps_max;
        if self.to.counts.edit_steps > max {
            self.too_many_edits(span);
            return None;
        }
        let rules = &self.to.current.as_ref()?.chains[chain as usize].rules;
        let found = rules.iter().position(|r| r.is_same(rule));
        let looked_at = found.unwrap_or(rules.len()) as u64;
        if !self.to.counts.spend(looked_at, max) {
            self.too_many_edits(span);
            return None;
        }
        if found.is_none() {
            self.error(span.clone(), "no rule of the chain equals this one", None);
        }
        found
    }

    /// `-F`: takes all rules out of a chain.
    pub(crate) fn flush(&mut self, chain: u32) {
        let Some(table) = self.to.current.as_mut() else { return };
        self.to.counts.rules -= table.chains[chain as usize].rules.clear();
    }

    /// `-X NAME`
    pub(crate) fn delete_chain(&mut self, name: &str, span: Range<usize>) {
        let Some(table) = self.to.current.as_mut() else { return };
        let Some(index) = table.index(name) else {
            self.error(span, format!("chain {name} is not declared"), None);
            return;
        };
        let chain = &table.chains[index as usize];
        let all = table.rules_put();
        if chain.hook.is_some() {
            self.error(span, format!("the built-in chain {name} cannot be deleted"), None);
        } else if !chain.rules.is_empty() {
            self.error(
                span,
                format!("chain {name} still has rules"),
                Some(format!("put `-F {name}` before")),
            );
        } else if !self.to.counts.spend(all, self.reader.options.edit_steps_max) {
            self.too_many_edits(&span);
        } else if self.to.current.as_ref().is_some_and(|t| t.led_to().any(|n| n == name)) {
            self.error(span, format!("rules still lead to chain {name}"), None);
        } else if let Some(table) = self.to.current.as_mut() {
            table.chains[index as usize].gone = true;
            table.by_name.remove(name);
            self.to.counts.chains -= 1;
        }
    }

    /// `-X` without a name: every user chain that no rule uses.
    pub(crate) fn delete_all_chains(&mut self, span: Range<usize>) {
        let Some(table) = self.to.current.as_ref() else { return };
        let user = table.chains.iter().filter(|c| c.hook.is_none() && !c.gone);
        let (empty, full): (Vec<_>, Vec<_>) = user.partition(|c| c.rules.is_empty());
        if let Some(chain) = full.first() {
            let message = format!("chain {} still has rules", chain.name);
            self.error(span, message, Some("put `-F` before".into()));
            return;
        }
        let names: Vec<Name> = empty.iter().map(|c| c.name.clone()).collect();
        let led_to: HashSet<&str, RandomState> = table.led_to().collect();
        if let Some(name) = names.iter().find(|n| led_to.contains(&***n)) {
            let message = format!("rules still lead to chain {name}");
            self.error(span, message, None);
            return;
        }
        let Some(table) = self.to.current.as_mut() else { return };
        for name in names {
            if let Some(index) = table.by_name.remove(&name) {
                table.chains[index as usize].gone = true;
                self.to.counts.chains -= 1;
            }
        }
    }

    /// `-E OLD NEW`
    pub(crate) fn rename_chain(&mut self, old: &str, new: &str, span: Range<usize>) {
        let Some(table) = self.to.current.as_mut() else { return };
        let Some(index) = table.index(old) else {
            self.error(span, format!("chain {old} is not declared"), None);
            return;
        };
        if table.by_name.contains_key(new) || table.chains[index as usize].hook.is_some() {
            self.error(span, format!("chain {old} cannot be called {new}"), None);
            return;
        }
        let name: Name = new.into();
        table.by_name.remove(old);
        table.by_name.insert(name.clone(), index);
        table.chains[index as usize].name = name.clone();
        for rule in table.chains.iter_mut().flat_map(|c| c.rules.each_mut()) {
            match &mut rule.target {
                Target::Jump(target) | Target::Goto(target) if &**target == old => *target = name.clone(),
                _ => {}
            }
        }
    }

    /// `-P CHAIN POLICY`
    pub(crate) fn set_policy(
        &mut self,
        name: &str,
        policy: Policy,
        counters: Option<Counters>,
        span: Range<usize>,
    ) {
        let Some(table) = self.to.current.as_mut() else { return };
        match table.chain_mut(name) {
            Some(chain) if chain.hook.is_some() => {
                (chain.policy, chain.counters) = (Some(policy), counters.unwrap_or_default());
            }
            _ => self.error(span, format!("`{name}` is no built-in chain and has no policy"), None),
        }
    }

    /// `-Z`: takes the counters of a chain, or of one rule (from 0) of it, back to zero.
    pub(crate) fn zero(&mut self, chain: u32, at: Option<usize>) {
        let Some(table) = self.to.current.as_mut() else { return };
        let draft = &mut table.chains[chain as usize];
        match at {
            Some(at) => {
                if let Some(rule) = draft.rules.get_mut(at) {
                    rule.counters = Counters::default();
                }
            }
            None => {
                draft.counters = Counters::default();
                draft.rules.each_mut().for_each(|rule| rule.counters = Counters::default());
            }
        }
    }

    /// The table in its final form: names that waited for their chain resolved, loops reported,
    /// chains in order.
    pub(crate) fn finish_table(&mut self, mut builder: TableBuilder) -> Table {
        for pending in std::mem::take(&mut builder.pending) {
            self.resolve(&mut builder, pending);
        }
        self.report_loops(&builder);
        self.report_unsettled(&builder);
        let TableBuilder { kind, chains, .. } = builder;
        let mut finished: Vec<Chain> = chains
            .into_iter()
            .filter(|c| !c.gone)
            .map(|c| Chain {
                rules: c.rules.into_rules(),
                name: c.name,
                hook: c.hook,
                policy: c.policy,
                counters: c.counters,
                line: c.line,
            })
            .collect();
        let built_in_count = kind.hooks().len();
        finished[built_in_count..].sort_by(|a, b| a.name.cmp(&b.name));
        Table { kind, chains: finished }
    }

    /// Why a name is no target, and what would mend it.
    fn why_no_target(&self, name: &str) -> (String, String) {
        let declare = format!("declare it: `:{name} - [0:0]`");
        let other = self.reader.family.other();
        if registry::find(Kind::Target, name, other).is_some() {
            return (format!("target {name} is for {} only", other.name()), declare);
        }
        let help = match registry::nearest(Kind::Target, name, self.reader.family) {
            Some(near) => format!("{near} is a target of a similar name"),
            None => declare,
        };
        (format!("`{name}` is neither a target nor a chain of this table"), help)
    }

    /// A name that no line had declared where it was used: a fault at that line, also when a later
    /// one took the rule away. What the rule may have meant decides how it is kept.
    fn resolve(&mut self, builder: &mut TableBuilder, pending: Pending) {
        let Pending { chain: of, rule: number, target: UnknownTarget { name, goto, span }, place } = pending;
        let chain = builder.chain(&name).map(|c| (c.name.clone(), c.line));
        let target = match chain {
            Some((name, line)) => {
                let message = format!("chain {name} is declared only on line {line}, after this use of it");
                self.reader.fault(
                    Severity::Error,
                    place,
                    span,
                    message,
                    Some("declare chains at the head of their table".into()),
                );
                if goto { Target::Goto(name) } else { Target::Jump(name) }
            }
            None if goto => {
                let help = format!("declare it: `:{name} - [0:0]`; an empty chain is assumed");
                self.reader.fault(
                    Severity::Error,
                    place,
                    span,
                    format!("`{name}` is no chain of this table"),
                    Some(help),
                );
                builder.add(name.clone(), None, 0);
                self.to.counts.chains += 1;
                Target::Goto(name)
            }
            None => {
                let (message, help) = self.why_no_target(&name);
                self.reader.fault(Severity::Error, place, span, message, Some(help));
                return;
            }
        };
        if let Some(rule) = builder.chains[of as usize].rules.numbered(number) {
            rule.target = target;
        }
    }
}

impl Graph for TableBuilder {
    fn chain_count(&self) -> usize {
        self.chains.len()
    }

    fn built_in_count(&self) -> usize {
        self.kind.hooks().len()
    }

    fn index(&self, name: &str) -> Option<usize> {
        TableBuilder::index(self, name).map(|index| index as usize)
    }

    fn name(&self, chain: usize) -> &Name {
        &self.chains[chain].name
    }

    fn rule(&self, chain: usize, at: usize) -> Option<&Rule> {
        self.chains[chain].rules.get(at)
    }
}

impl super::Counts {
    /// Counts steps of editing; `false`: the limit is reached.
    fn spend(&mut self, steps: u64, max: u64) -> bool {
        self.edit_steps = self.edit_steps.saturating_add(steps);
        self.edit_steps <= max
    }
}
