//! The rules of a live table as iptables knows them: tables, chains, rules by number.
//!
//! It answers the questions of [`hipac_rules::edit`], whose `apply` on plain vectors is its slow twin,
//! with lists whose middle is cheap to change.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use foldhash::fast::RandomState;
use hipac_classifier::live::{Counted, RuleId};
use hipac_rules::edit::{At, Edit, EditError, ErrorKind};
use hipac_rules::ipset::{Sets, changed_by, names_set};
use hipac_rules::{Chain, Counters, Family, Hook, Name, Policy, Rule, Ruleset, Table, TableKind, Target};

use super::chunks::Chunks;
use super::seq::Seq;

/// Identifies a chain, and its entry.
pub(super) type ChainId = u32;

/// A chain.
#[derive(Debug, Clone)]
pub(super) struct LiveChain {
    pub(super) table: TableKind,
    pub(super) name: Name,
    pub(super) hook: Option<Hook>,
    pub(super) policy: Option<Policy>,
    pub(super) rules: Seq<RuleId>,
    /// Rules that lead here.
    pub(super) references: usize,
    pub(super) line: u32,
    /// Counters of the policy, less what readers had counted for it then.
    start: Counted,
}

impl LiveChain {
    fn new(table: TableKind, name: Name, line: u32) -> LiveChain {
        LiveChain {
            table,
            name,
            hook: None,
            policy: None,
            rules: Seq::default(),
            references: 0,
            line,
            start: Counted::default(),
        }
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Model {
    pub(super) family: Family,
    /// Tables in their order.
    tables: Vec<TableKind>,
    chains: Vec<Option<LiveChain>>,
    names: HashMap<(TableKind, Name), ChainId, RandomState>,
    rules: Chunks<Option<Arc<Rule>>>,
    free_rules: Vec<RuleId>,
    free_chains: Vec<ChainId>,
    /// How often rules of a chain lead to another.
    leads: BTreeMap<(ChainId, ChainId), usize>,
    /// Counters of rules, less what readers had counted for their numbers then; where not zero.
    starts: HashMap<RuleId, Counted, RandomState>,
    /// Tables in which rules lead in a circle, or did.
    circles: Vec<TableKind>,
    /// Rules in chains.
    pub(super) count: usize,
    /// IP sets, for rules that name some.
    pub(super) sets: Sets,
    /// Numbers of rules that name some.
    set_rules: BTreeSet<RuleId>,
    /// How many rules' targets change each set.
    changed_sets: BTreeMap<Name, usize>,
}

/// What readers have counted.
pub(super) trait Counts {
    fn rule(&self, id: RuleId) -> Counted;
    fn policy(&self, chain: ChainId) -> Counted;
}

impl Model {
    /// Of a ruleset whose rules mean these sets.
    pub(super) fn with_sets(ruleset: &Ruleset, sets: Sets, counts: &dyn Counts) -> Model {
        let mut model = Model::new(ruleset, counts);
        let mut binder = sets.binder(model.family, model.changed_sets()).keeping_empty();
        for id in model.set_rules() {
            let mut rule = Rule::clone(model.rule(id));
            binder.bind_rule_again(&mut rule);
            model.set_rule(id, Arc::new(rule));
        }
        model.sets = sets;
        model
    }

    /// Of a ruleset.
    pub(super) fn new(ruleset: &Ruleset, counts: &dyn Counts) -> Model {
        let mut model = Model {
            family: ruleset.family,
            tables: Vec::new(),
            chains: Vec::new(),
            names: HashMap::default(),
            rules: Chunks::default(),
            free_rules: Vec::new(),
            free_chains: Vec::new(),
            leads: BTreeMap::new(),
            starts: HashMap::default(),
            circles: Vec::new(),
            count: 0,
            sets: Sets::default(),
            set_rules: BTreeSet::new(),
            changed_sets: BTreeMap::new(),
        };
        for table in &ruleset.tables {
            model.tables.push(table.kind);
            for chain in &table.chains {
                let id = model.add_chain(table.kind, chain.name.clone(), chain.line);
                if let Some(live) = &mut model.chains[id as usize] {
                    (live.hook, live.policy) = (chain.hook, chain.policy);
                }
                model.set_policy_counters(id, chain.counters, counts);
            }
            for chain in &table.chains {
                let Some(id) = model.find(table.kind, &chain.name) else { continue };
                for rule in &chain.rules {
                    let rule_id = model.add_rule(Arc::new(rule.clone()), counts);
                    let at = model.chain(id).rules.len();
                    model.put(id, at, rule_id);
                }
            }
            if model.has_circle(table.kind) {
                model.note_circle(table.kind);
            }
        }
        model
    }

    /// A chain that is there.
    pub(super) fn chain(&self, id: ChainId) -> &LiveChain {
        self.chains[id as usize].as_ref().expect("a chain that a name or a reference leads to is there")
    }

    /// A chain, when it is there.
    pub(super) fn find_chain(&self, id: ChainId) -> Option<&LiveChain> {
        self.chains.get(id as usize)?.as_ref()
    }

    /// A chain under a number that it has elsewhere.
    pub(super) fn add_chain_as(&mut self, id: ChainId, table: TableKind, name: Name) {
        while self.chains.len() <= id as usize {
            self.chains.push(None);
        }
        let chain = LiveChain::new(table, name.clone(), 0);
        self.chains[id as usize] = Some(chain);
        self.names.insert((table, name), id);
    }

    /// A rule under a number that it has elsewhere.
    pub(super) fn add_rule_as(&mut self, id: RuleId, rule: Arc<Rule>) {
        while self.rules.len() <= id as usize {
            self.rules.push(None);
        }
        self.set_rule(id, rule);
    }

    /// Makes a number that of a rule.
    pub(super) fn set_rule(&mut self, id: RuleId, rule: Arc<Rule>) {
        if names_set(&rule) {
            self.set_rules.insert(id);
        }
        self.put_rule(id, Some(rule));
    }

    fn put_rule(&mut self, id: RuleId, rule: Option<Arc<Rule>>) {
        if let Some(place) = self.rules.get_mut(id as usize) {
            *place = rule;
        }
    }

    /// Numbers of rules that name an IP set.
    pub(super) fn set_rules(&self) -> Vec<RuleId> {
        self.set_rules.iter().copied().collect()
    }

    /// Sets that targets of rules change.
    pub(super) fn changed_sets(&self) -> BTreeSet<Name> {
        self.changed_sets.keys().cloned().collect()
    }

    /// Lets a rule that is to come mean the sets that it names.
    pub(super) fn bind(&self, rule: &mut Rule) {
        if names_set(rule) {
            self.sets.binder(self.family, self.changed_sets()).keeping_empty().bind_rule(rule);
        }
    }

    pub(super) fn chain_mut(&mut self, id: ChainId) -> &mut LiveChain {
        self.chains[id as usize].as_mut().expect("a chain that a name or a reference leads to is there")
    }

    /// All chains.
    pub(super) fn chains(&self) -> impl Iterator<Item = (ChainId, &LiveChain)> {
        self.chains.iter().enumerate().filter_map(|(i, c)| Some((i as ChainId, c.as_ref()?)))
    }

    /// The chain of a name.
    pub(super) fn find(&self, table: TableKind, name: &Name) -> Option<ChainId> {
        self.names.get(&(table, name.clone())).copied()
    }

    /// The rule of a number.
    pub(super) fn rule(&self, id: RuleId) -> &Arc<Rule> {
        let rule = self.rules.get(id as usize).and_then(Option::as_ref);
        rule.expect("a rule in a chain is there")
    }

    /// The chain that a rule of a table leads to.
    pub(super) fn target(&self, table: TableKind, rule: &Rule) -> Option<ChainId> {
        match &rule.target {
            Target::Jump(name) | Target::Goto(name) => self.find(table, name),
            _ => None,
        }
    }

    /// Its tables, in their order.
    pub(super) fn tables(&self) -> &[TableKind] {
        &self.tables
    }

    pub(super) fn has_table(&self, kind: TableKind) -> bool {
        self.tables.contains(&kind)
    }

    /// A table as the kernel makes it: with empty chains that accept.
    pub(super) fn add_table(&mut self, kind: TableKind) -> Vec<ChainId> {
        self.tables.push(kind);
        let hooks = kind.hooks().iter();
        let chains = hooks.map(|hook| {
            let id = self.add_chain(kind, hook.name().into(), 0);
            let chain = self.chain_mut(id);
            (chain.hook, chain.policy) = (Some(*hook), Some(Policy::Accept));
            id
        });
        chains.collect()
    }

    /// Takes a table out that was just made, and its chains.
    pub(super) fn remove_table(&mut self, kind: TableKind) {
        self.tables.retain(|k| *k != kind);
        let chains: Vec<ChainId> = self.chains().filter(|(_, c)| c.table == kind).map(|(id, _)| id).collect();
        for id in chains {
            self.remove_chain(id);
            self.free_chain(id);
        }
    }

    /// An empty chain.
    pub(super) fn add_chain(&mut self, table: TableKind, name: Name, line: u32) -> ChainId {
        let chain = LiveChain::new(table, name.clone(), line);
        let id = self.free_chains.pop().unwrap_or(self.chains.len() as ChainId);
        if id as usize == self.chains.len() {
            self.chains.push(None);
        }
        self.chains[id as usize] = Some(chain);
        self.names.insert((table, name), id);
        id
    }

    /// Takes a chain out. Its number is not given away before [`Model::free_chain`].
    pub(super) fn remove_chain(&mut self, id: ChainId) -> Option<LiveChain> {
        let chain = self.chains[id as usize].take()?;
        self.names.remove(&(chain.table, chain.name.clone()));
        Some(chain)
    }

    /// Puts a chain back that was taken out.
    pub(super) fn restore_chain(&mut self, id: ChainId, chain: LiveChain) {
        self.names.insert((chain.table, chain.name.clone()), id);
        self.chains[id as usize] = Some(chain);
    }

    pub(super) fn free_chain(&mut self, id: ChainId) {
        self.free_chains.push(id);
    }

    /// Gives a chain another name; the rules that lead to it, too: they are other rules then, with
    /// the same numbers.
    pub(super) fn rename(&mut self, id: ChainId, to: &Name) {
        let chain = self.chain_mut(id);
        let (table, old) = (chain.table, std::mem::replace(&mut chain.name, to.clone()));
        self.names.remove(&(table, old.clone()));
        self.names.insert((table, to.clone()), id);
        let all = self.chains.iter().flatten().filter(|c| c.table == table).flat_map(|c| c.rules.iter());
        for rule in all {
            let leads_there = self.rules.get(rule as usize).and_then(Option::as_ref).is_some_and(
                |rule| matches!(&rule.target, Target::Jump(name) | Target::Goto(name) if *name == old),
            );
            if leads_there
                && let Some(Some(rule)) = self.rules.get_mut(rule as usize)
                && let Target::Jump(name) | Target::Goto(name) = &mut Arc::make_mut(rule).target
            {
                *name = to.clone();
            }
        }
    }

    /// Gives a rule a number. It is in no chain yet.
    pub(super) fn add_rule(&mut self, rule: Arc<Rule>, counts: &dyn Counts) -> RuleId {
        let counters = rule.counters;
        let id = self.free_rules.pop().unwrap_or(self.rules.len() as RuleId);
        if id as usize == self.rules.len() {
            self.rules.push(None);
        }
        self.set_rule(id, rule);
        self.set_rule_counters(id, counters, counts);
        id
    }

    /// The number of a rule may be given away.
    pub(super) fn free_rule(&mut self, id: RuleId) {
        self.put_rule(id, None);
        self.set_rules.remove(&id);
        self.starts.remove(&id);
        self.free_rules.push(id);
    }

    /// Numbers of rules that there can be, from 0 on.
    pub(super) fn rule_numbers(&self) -> usize {
        self.rules.len()
    }

    /// Puts a rule into a chain.
    pub(super) fn put(&mut self, chain: ChainId, at: usize, id: RuleId) {
        let target = self.target(self.chain(chain).table, &Arc::clone(self.rule(id)));
        self.chain_mut(chain).rules.insert(at, id);
        self.count += 1;
        for name in changed_by(self.rule(id)).collect::<Vec<_>>() {
            *self.changed_sets.entry(name).or_default() += 1;
        }
        if let Some(target) = target {
            self.chain_mut(target).references += 1;
            *self.leads.entry((chain, target)).or_default() += 1;
        }
    }

    /// Takes a rule out of a chain; it keeps its number.
    pub(super) fn take(&mut self, chain: ChainId, at: usize) -> Option<RuleId> {
        let id = self.chain_mut(chain).rules.remove(at)?;
        self.count -= 1;
        for name in changed_by(self.rule(id)).collect::<Vec<_>>() {
            if let Some(count) = self.changed_sets.get_mut(&name) {
                *count -= 1;
                if *count == 0 {
                    self.changed_sets.remove(&name);
                }
            }
        }
        let target = self.target(self.chain(chain).table, &Arc::clone(self.rule(id)));
        if let Some(target) = target {
            self.chain_mut(target).references -= 1;
            if let Some(count) = self.leads.get_mut(&(chain, target)) {
                *count -= 1;
                if *count == 0 {
                    self.leads.remove(&(chain, target));
                }
            }
        }
        Some(id)
    }

    /// Chains that a chain's rules lead to.
    fn targets(&self, chain: ChainId) -> impl Iterator<Item = ChainId> {
        self.leads.range((chain, 0)..=(chain, ChainId::MAX)).map(|((_, to), _)| *to)
    }

    /// Rules of a table lead in a circle: taking away whoever leads nowhere leaves some.
    fn has_circle(&self, table: TableKind) -> bool {
        let chains: Vec<ChainId> =
            self.chains().filter(|(_, c)| c.table == table).map(|(id, _)| id).collect();
        let mut left = vec![0usize; self.chains.len()];
        let mut callers: Vec<Vec<ChainId>> = vec![Vec::new(); self.chains.len()];
        for &chain in &chains {
            for target in self.targets(chain) {
                left[chain as usize] += 1;
                callers[target as usize].push(chain);
            }
        }
        let mut open: Vec<ChainId> = chains.iter().copied().filter(|&c| left[c as usize] == 0).collect();
        let mut gone = 0;
        while let Some(chain) = open.pop() {
            gone += 1;
            for &caller in &callers[chain as usize] {
                left[caller as usize] -= 1;
                if left[caller as usize] == 0 {
                    open.push(caller);
                }
            }
        }
        gone < chains.len()
    }

    /// A way leads from one chain to another, or they are the same.
    pub(super) fn leads_to(&self, from: ChainId, to: ChainId) -> bool {
        let mut seen = vec![false; self.chains.len()];
        let mut open = vec![from];
        while let Some(chain) = open.pop() {
            if chain == to {
                return true;
            }
            if std::mem::replace(&mut seen[chain as usize], true) {
                continue;
            }
            open.extend(self.targets(chain));
        }
        false
    }

    /// Which of some chains the first rule of the table leads to that leads to any.
    pub(super) fn first_led_to(&self, table: TableKind, chains: &[ChainId]) -> Option<ChainId> {
        if chains.iter().all(|&id| self.chain(id).references == 0) {
            return None;
        }
        let mut rules = self.in_order(table).flat_map(|(_, chain)| chain.rules.iter());
        rules.find_map(|id| self.target(table, self.rule(id)).filter(|to| chains.contains(to)))
    }

    /// Rules of a table lead in a circle now.
    pub(super) fn note_circle(&mut self, table: TableKind) {
        if !self.circles.contains(&table) {
            self.circles.push(table);
        }
    }

    /// Rules of a table lead in a circle, or did.
    pub(super) fn has_circles(&self, table: TableKind) -> bool {
        self.circles.contains(&table)
    }

    /// The first rule that leads to a chain: its chain and position.
    pub(super) fn first_reference(&self, to: ChainId) -> Option<(Name, usize)> {
        let table = self.chain(to).table;
        self.in_order(table).find_map(|(_, chain)| {
            let mut rules = chain.rules.iter();
            let at = rules.position(|id| self.target(table, self.rule(id)) == Some(to))?;
            Some((chain.name.clone(), at))
        })
    }

    /// Chains of a table as they are listed: built-in ones by hook, then the user's by name.
    pub(super) fn in_order(&self, table: TableKind) -> impl Iterator<Item = (ChainId, &LiveChain)> {
        let mut chains: Vec<(ChainId, &LiveChain)> =
            self.chains().filter(|(_, c)| c.table == table).collect();
        let hook_of = |chain: &LiveChain| table.hooks().iter().position(|h| Some(*h) == chain.hook);
        chains.sort_by(|(_, a), (_, b)| {
            let place = |c: &LiveChain| hook_of(c).unwrap_or(usize::MAX);
            place(a).cmp(&place(b)).then_with(|| a.name.cmp(&b.name))
        });
        chains.into_iter()
    }

    /// Counters of a rule.
    pub(super) fn rule_counters(&self, id: RuleId, counts: &dyn Counts) -> Counters {
        counters(self.starts.get(&id).copied().unwrap_or_default() + counts.rule(id))
    }

    pub(super) fn set_rule_counters(&mut self, id: RuleId, to: Counters, counts: &dyn Counts) {
        let start = Counted { packets: to.packets, bytes: to.bytes } - counts.rule(id);
        if start == Counted::default() {
            self.starts.remove(&id);
        } else {
            self.starts.insert(id, start);
        }
    }

    /// Counters of a chain's policy.
    pub(super) fn policy_counters(&self, id: ChainId, counts: &dyn Counts) -> Counters {
        counters(self.chain(id).start + counts.policy(id))
    }

    pub(super) fn set_policy_counters(&mut self, id: ChainId, to: Counters, counts: &dyn Counts) {
        let start = Counted { packets: to.packets, bytes: to.bytes } - counts.policy(id);
        self.chain_mut(id).start = start;
    }

    /// A table as plain vectors.
    pub(super) fn table(&self, kind: TableKind, counts: &dyn Counts) -> Table {
        let chains = self.in_order(kind).map(|(id, chain)| {
            let rule = |rule: RuleId| Rule {
                counters: self.rule_counters(rule, counts),
                ..Rule::clone(self.rule(rule))
            };
            Chain {
                name: chain.name.clone(),
                hook: chain.hook,
                policy: chain.policy,
                counters: self.policy_counters(id, counts),
                rules: chain.rules.iter().map(rule).collect(),
                line: chain.line,
            }
        });
        Table { kind, chains: chains.collect() }
    }

    /// All of it as plain vectors.
    pub(super) fn ruleset(&self, counts: &dyn Counts) -> Ruleset {
        let tables = self.tables.iter().map(|&kind| self.table(kind, counts));
        Ruleset { family: self.family, tables: tables.collect() }
    }

    /// The chain that an edit names.
    pub(super) fn named(&self, edit: &Edit, name: &Name) -> Result<ChainId, EditError> {
        let missing = || edit.error(ErrorKind::NoChain { chain: name.clone() }, At::Chain);
        self.find(edit.table, name).ok_or_else(missing)
    }

    /// Bytes of what keeps rules in order, the rules themselves not counted.
    pub(super) fn order_bytes(&self) -> usize {
        self.chains.iter().flatten().map(|c| c.rules.bytes()).sum()
    }
}

fn counters(counted: Counted) -> Counters {
    Counters { packets: counted.packets, bytes: counted.bytes }
}
