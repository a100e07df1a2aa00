//! Random changes of a ruleset, one after the other, each of which fits what the ones before it
//! left.
//!
//! ```text
//!   ruleset ─▶ EditMaker { chains: positions of rules in a list of all rules ever seen }
//!                 │ next_edit
//!                 ▼
//!              insert · append · delete · replace · policy · chains made, emptied, renamed, … ─▶ Edit
//!              and a share of edits that must fail
//! ```
//!
//! A rule is a copy of one that its chain has with other addresses, one of a few simple ones, or
//! one that takes every packet. Chains have levels and rules lead to higher ones only, so that
//! there are no loops unless they are asked for. The number of rules stays near what it was.
//!
//! Nothing is searched: an edit costs what moving four bytes a rule of its chain costs.

use hipac_rules::edit::{Change, Edit};
use hipac_rules::{
    AddressTest, Chain, Counters, Family, Hook, Name, ParseOptions, Policy, Rule, Ruleset, TableKind, Target,
    parse,
};

use crate::random::{Draw, Share};

/// What to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Decides all that is left to chance.
    pub seed: u64,
    /// Edits that fail.
    pub invalid: Share,
    /// New rules that take every packet.
    pub wide: Share,
    /// New rules that lead to a chain whatever the levels, so that they may close a loop.
    pub loops: Share,
    /// Edits other than of rules: of chains, policies, counters.
    pub chains: Share,
}

impl Options {
    /// A mixture without edits that fail.
    pub fn new(seed: u64) -> Options {
        Options {
            seed,
            invalid: Share::NONE,
            wide: Share::percent(5),
            loops: Share::NONE,
            chains: Share::percent(15),
        }
    }
}

/// Whether an edit can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It can.
    Works,
    /// It cannot.
    Fails,
    /// It may close a loop. The maker goes on as if it did: when it does not, begin anew from what
    /// the ruleset is then.
    MayLoop,
}

/// A rule of a chain: where in [`EditMaker::rules`] it is.
type RuleIndex = u32;

#[derive(Debug)]
struct ChainState {
    name: Name,
    hook: Option<Hook>,
    /// Rules lead to chains of higher levels only.
    level: u32,
    rules: Vec<RuleIndex>,
    /// How many rules lead to it.
    references: usize,
}

#[derive(Debug)]
struct TableState {
    kind: TableKind,
    /// Built-in ones first; those that are deleted are `None`.
    chains: Vec<Option<ChainState>>,
    /// Simple rules to make others of.
    simple: Vec<Rule>,
}

/// A rule, and the chain it leads to, by its number.
#[derive(Debug)]
struct RuleState {
    rule: Rule,
    leads_to: Option<usize>,
}

/// Makes edits.
#[derive(Debug)]
pub struct EditMaker {
    draw: Draw,
    options: Options,
    family: Family,
    tables: Vec<TableState>,
    rules: Vec<RuleState>,
    rule_count: usize,
    rule_count_aim: usize,
    names_made: u32,
}

impl EditMaker {
    /// Edits of this ruleset; of an empty filter table when it has none.
    ///
    /// # Cost
    ///
    /// A copy of all rules.
    pub fn new(ruleset: &Ruleset, options: &Options) -> EditMaker {
        let mut maker = EditMaker {
            draw: Draw::new(options.seed, "edits"),
            options: *options,
            family: ruleset.family,
            tables: Vec::new(),
            rules: Vec::new(),
            rule_count: 0,
            rule_count_aim: ruleset.rule_count(),
            names_made: 0,
        };
        for table in &ruleset.tables {
            maker.add_table(table.kind, &table.chains);
        }
        if maker.tables.is_empty() {
            let text = "*filter\nCOMMIT\n";
            let empty =
                parse(text, &ParseOptions { family: Some(ruleset.family), ..ParseOptions::default() });
            maker.add_table(TableKind::Filter, &empty.ruleset.tables[0].chains);
        }
        maker
    }

    fn add_table(&mut self, kind: TableKind, chains: &[Chain]) {
        let index = |name: &str| chains.iter().position(|c| &*c.name == name);
        let levels = levels(chains, index);
        let mut states: Vec<ChainState> = chains
            .iter()
            .zip(levels)
            .map(|(chain, level)| ChainState {
                name: chain.name.clone(),
                hook: chain.hook,
                level,
                rules: Vec::with_capacity(chain.rules.len()),
                references: 0,
            })
            .collect();
        for (at, chain) in chains.iter().enumerate() {
            for rule in &chain.rules {
                let leads_to = led_to(rule).and_then(index);
                if let Some(next) = leads_to {
                    states[next].references += 1;
                }
                states[at].rules.push(self.rules.len() as RuleIndex);
                self.rules.push(RuleState { rule: rule.clone(), leads_to });
                self.rule_count += 1;
            }
        }
        let simple = simple_rules(kind, self.family);
        self.tables.push(TableState { kind, chains: states.into_iter().map(Some).collect(), simple });
    }

    /// How many rules there are after the edits so far.
    pub fn rule_count(&self) -> usize {
        self.rule_count
    }

    /// The next edit, and whether it can be made.
    pub fn next_edit(&mut self) -> (Edit, Outcome) {
        // Most rules are in one table, mostly the last.
        let weight = |t: &TableState| t.chains.iter().flatten().map(|c| c.rules.len()).max().unwrap_or(0);
        let largest = (0..self.tables.len()).max_by_key(|&t| weight(&self.tables[t])).unwrap_or(0);
        let table = if self.draw.percent(80) { largest } else { self.draw.index(self.tables.len()) };
        let kind = self.tables[table].kind;
        if self.draw.chance(self.options.invalid)
            && let Some(change) = self.invalid_change(table)
        {
            return (Edit::new(kind, change), Outcome::Fails);
        }
        if self.draw.chance(self.options.loops)
            && let Some(change) = self.loop_change(table)
        {
            return (Edit::new(kind, change), Outcome::MayLoop);
        }
        let of_chains = self.draw.chance(self.options.chains).then(|| self.chain_change(table)).flatten();
        let change = match of_chains {
            Some(change) => change,
            None => self.rule_change(table),
        };
        (Edit::new(kind, change), Outcome::Works)
    }

    /// So many edits in a row.
    pub fn sequence(&mut self, count: usize) -> Vec<(Edit, Outcome)> {
        (0..count).map(|_| self.next_edit()).collect()
    }

    /// A chain: of several drawn the longest, so that most edits are where most rules are.
    fn any_chain(&mut self, table: usize) -> usize {
        let chains = &self.tables[table].chains;
        let mut best: Option<usize> = None;
        for _ in 0..8 {
            let at = self.draw.index(chains.len());
            let Some(chain) = &chains[at] else { continue };
            let is_longer = |b: usize| chains[b].as_ref().is_none_or(|b| b.rules.len() < chain.rules.len());
            if best.is_none_or(is_longer) {
                best = Some(at);
            }
            if self.draw.percent(25) {
                break;
            }
        }
        best.unwrap_or(0)
    }

    fn chain(&self, table: usize, chain: usize) -> &ChainState {
        match &self.tables[table].chains[chain] {
            Some(chain) => chain,
            None => unreachable!("chains are drawn from those that are there"),
        }
    }

    fn chain_mut(&mut self, table: usize, chain: usize) -> &mut ChainState {
        match &mut self.tables[table].chains[chain] {
            Some(chain) => chain,
            None => unreachable!("chains are drawn from those that are there"),
        }
    }

    /// A user chain that is there and that `wants` takes, if a few draws find one.
    fn user_chain(&mut self, table: usize, wants: impl Fn(&ChainState) -> bool) -> Option<usize> {
        let chains = &self.tables[table].chains;
        (0..8).find_map(|_| {
            let at = self.draw.index(chains.len());
            let chain = chains[at].as_ref()?;
            (chain.hook.is_none() && wants(chain)).then_some(at)
        })
    }

    fn rule_change(&mut self, table: usize) -> Change {
        let index = self.any_chain(table);
        let length = self.chain(table, index).rules.len();
        let chain = self.chain(table, index).name.clone();
        let shrink = if self.rule_count > self.rule_count_aim { 50 } else { 25 };
        if length > 0 && self.draw.percent(shrink) {
            let at = self.draw.index(length);
            return if self.draw.percent(25) && length <= 1000 {
                self.delete_equal(table, index, at)
            } else {
                self.take(table, index, at);
                Change::Delete { chain, at }
            };
        }
        let (rule, leads_to) = self.new_rule(table, index);
        if length > 0 && self.draw.percent(15) {
            let at = self.draw.index(length);
            self.take(table, index, at);
            self.put(table, index, at, &rule, leads_to);
            return Change::Replace { chain, at, rule: Box::new(rule) };
        }
        let (at, change) = if self.draw.percent(20) {
            (length, Change::Append { chain, rules: vec![rule.clone()] })
        } else {
            let at = self.draw.index(length + 1);
            (at, Change::Insert { chain, at, rules: vec![rule.clone()] })
        };
        self.put(table, index, at, &rule, leads_to);
        change
    }

    /// Deletes the first rule that equals the one at a position.
    fn delete_equal(&mut self, table: usize, index: usize, at: usize) -> Change {
        let rule = self.current_rule(table, index, at);
        let length = self.chain(table, index).rules.len();
        let first = (0..length).find(|&i| {
            // Most differ here, and making the rule as it is now costs more.
            let other = &self.rules[self.chain(table, index).rules[i] as usize].rule;
            (other.ip.source, other.ip.destination) == (rule.ip.source, rule.ip.destination)
                && self.current_rule(table, index, i).is_same(&rule)
        });
        let first = first.unwrap_or(at);
        self.take(table, index, first);
        Change::DeleteRules { chain: self.chain(table, index).name.clone(), rules: vec![rule] }
    }

    /// The rule at a position, with the name that the chain it leads to has now.
    fn current_rule(&self, table: usize, index: usize, at: usize) -> Rule {
        let state = &self.rules[self.chain(table, index).rules[at] as usize];
        let mut rule = state.rule.clone();
        if let Some(next) = state.leads_to {
            let name = self.chain(table, next).name.clone();
            match &mut rule.target {
                Target::Jump(target) | Target::Goto(target) => *target = name,
                _ => {}
            }
        }
        rule
    }

    fn take(&mut self, table: usize, index: usize, at: usize) {
        let rule = self.chain_mut(table, index).rules.remove(at);
        if let Some(next) = self.rules[rule as usize].leads_to {
            self.chain_mut(table, next).references -= 1;
        }
        self.rule_count -= 1;
    }

    fn put(&mut self, table: usize, index: usize, at: usize, rule: &Rule, leads_to: Option<usize>) {
        let number = self.rules.len() as RuleIndex;
        self.rules.push(RuleState { rule: rule.clone(), leads_to });
        self.chain_mut(table, index).rules.insert(at, number);
        if let Some(next) = leads_to {
            self.chain_mut(table, next).references += 1;
        }
        self.rule_count += 1;
    }

    fn empty(&mut self, table: usize, index: usize) {
        for at in (0..self.chain(table, index).rules.len()).rev() {
            self.take(table, index, at);
        }
    }

    /// A rule for a chain, and the chain it leads to.
    fn new_rule(&mut self, table: usize, index: usize) -> (Rule, Option<usize>) {
        let length = self.chain(table, index).rules.len();
        let (mut rule, mut leads_to) = if length > 0 && self.draw.percent(30) {
            let at = self.draw.index(length);
            let leads_to = self.rules[self.chain(table, index).rules[at] as usize].leads_to;
            (self.current_rule(table, index, at), leads_to)
        } else {
            let simple = &self.tables[table].simple;
            (self.draw.pick(simple).clone(), None)
        };
        if self.draw.chance(self.options.wide) {
            rule.ip = Default::default();
            rule.matches.clear();
            // A target with options may need what was taken away.
            if matches!(&rule.target, Target::Extension(target) if !target.settings.is_empty()) {
                rule.target = Target::None;
            }
        } else {
            rule.ip.source = self.address();
            rule.ip.destination = self.address();
        }
        if self.draw.percent(15) {
            let level = self.chain(table, index).level;
            if let Some(next) = self.user_chain(table, |c| c.level > level) {
                let name = self.chain(table, next).name.clone();
                rule.target = if self.draw.percent(70) { Target::Jump(name) } else { Target::Goto(name) };
                leads_to = Some(next);
            }
        }
        rule.line = 0;
        rule.counters = Counters::default();
        if self.draw.percent(20) {
            let packets = self.draw.below(1000);
            rule.counters = Counters { packets, bytes: packets * 40 };
        }
        (rule, leads_to)
    }

    /// A network out of few, so that rules overlap; often none.
    fn address(&mut self) -> AddressTest {
        let bits = self.family.address_bits();
        let length = *self.draw.pick(&[0, 0, 8, 16, 20, 24, 31, 32, 32, bits, bits]);
        if length == 0 {
            return AddressTest::default();
        }
        let full = self.family.full_mask();
        let mask = full & (full << (bits - length));
        let first = (10 + u128::from(self.draw.below(2))) << (bits - 8);
        let second = u128::from(self.draw.below(4)) << (bits - 16);
        let rest = u128::from(self.draw.bits()) & (full >> 16);
        let negated = self.draw.percent(3);
        AddressTest { address: (first | second | rest) & mask, mask, negated }
    }

    fn new_name(&mut self) -> Name {
        self.names_made += 1;
        format!("n{}-{}", self.names_made, self.draw.below(1000)).into()
    }

    /// A change of chains, policies or counters; `None`: there is nothing to change that way.
    fn chain_change(&mut self, table: usize) -> Option<Change> {
        match self.draw.below(10) {
            0..=2 => {
                let name = self.new_name();
                let level = 1 + self.draw.below(6) as u32;
                self.tables[table].chains.push(Some(ChainState {
                    name: name.clone(),
                    hook: None,
                    level,
                    rules: Vec::new(),
                    references: 0,
                }));
                Some(if self.draw.percent(70) {
                    Change::NewChain { chain: name }
                } else {
                    Change::Declare { chain: name, policy: None, counters: Counters::default() }
                })
            }
            3 | 4 => {
                let unused = self.user_chain(table, |c| c.references == 0 && c.rules.is_empty())?;
                let chain = self.tables[table].chains[unused].take()?;
                Some(Change::DeleteChain { chain: Some(chain.name) })
            }
            5 => {
                let index = self.user_chain(table, |_| true)?;
                let to = self.new_name();
                let chain = std::mem::replace(&mut self.chain_mut(table, index).name, to.clone());
                Some(Change::RenameChain { chain, to })
            }
            6 => {
                // Never most of the rules.
                let most = 16 + self.rule_count / 50;
                let index = self.user_chain(table, |c| c.rules.len() <= most)?;
                self.empty(table, index);
                let chain = self.chain(table, index).name.clone();
                Some(if self.draw.percent(50) {
                    Change::Flush { chain: Some(chain) }
                } else {
                    Change::Declare { chain, policy: None, counters: Counters::default() }
                })
            }
            7 | 8 => {
                let hooks = self.tables[table].kind.hooks();
                let chain: Name = self.draw.pick(hooks).name().into();
                // The nat table takes DROP as a policy no more than as a target.
                let drops = self.tables[table].kind != TableKind::Nat && self.draw.percent(50);
                let policy = if drops { Policy::Drop } else { Policy::Accept };
                let counters = Counters { packets: self.draw.below(9), bytes: self.draw.below(9000) };
                let counters = self.draw.percent(50).then_some(counters);
                Some(Change::SetPolicy { chain, policy, counters })
            }
            _ => {
                let index = self.any_chain(table);
                let (chain, length) =
                    (self.chain(table, index).name.clone(), self.chain(table, index).rules.len());
                if length > 0 && self.draw.percent(40) {
                    let at = self.draw.index(length);
                    return Some(Change::Check { chain, rules: vec![self.current_rule(table, index, at)] });
                }
                let at = (length > 0 && self.draw.percent(70)).then(|| self.draw.index(length));
                Some(Change::Zero { chain: Some(chain), at })
            }
        }
    }

    /// A rule that leads to any chain, its own included.
    fn loop_change(&mut self, table: usize) -> Option<Change> {
        let index = self.user_chain(table, |_| true)?;
        let next = self.user_chain(table, |_| true)?;
        let (mut rule, _) = self.new_rule(table, index);
        rule.target = Target::Jump(self.chain(table, next).name.clone());
        let at = self.draw.index(self.chain(table, index).rules.len() + 1);
        Some(Change::Insert { chain: self.chain(table, index).name.clone(), at, rules: vec![rule] })
    }

    /// A change that cannot be made; `None`: none of the kind drawn.
    fn invalid_change(&mut self, table: usize) -> Option<Change> {
        let index = self.any_chain(table);
        let length = self.chain(table, index).rules.len();
        let chain = self.chain(table, index).name.clone();
        let (mut rule, _) = self.new_rule(table, index);
        let beyond = length + *self.draw.pick(&[0, 1, 2, 1000]);
        let nobody: Name = "nobody".into();
        let other = self.user_chain(table, |_| true).map(|c| self.chain(table, c).name.clone());
        Some(match self.draw.below(16) {
            0 => Change::Insert { chain, at: beyond + 1, rules: vec![rule] },
            1 => Change::Delete { chain, at: beyond },
            2 => Change::Replace { chain, at: beyond, rule: Box::new(rule) },
            3 => Change::Zero { chain: Some(chain), at: Some(beyond) },
            4 => Change::Append { chain: nobody, rules: vec![rule] },
            5 => {
                rule.target = Target::Jump(nobody);
                Change::Append { chain, rules: vec![rule] }
            }
            6 => {
                rule.target = Target::Goto("INPUT".into());
                Change::Append { chain, rules: vec![rule] }
            }
            7 => {
                // No other rule has this address.
                rule.ip.source = AddressTest { address: 1, mask: self.family.full_mask(), negated: false };
                Change::DeleteRules { chain, rules: vec![rule] }
            }
            8 => {
                rule.ip.source = AddressTest { address: 1, mask: self.family.full_mask(), negated: false };
                Change::Check { chain, rules: vec![rule] }
            }
            9 => Change::NewChain { chain },
            10 => Change::DeleteChain { chain: Some(self.tables[table].kind.hooks()[0].name().into()) },
            11 => {
                let used = self.user_chain(table, |c| c.references > 0 || !c.rules.is_empty())?;
                Change::DeleteChain { chain: Some(self.chain(table, used).name.clone()) }
            }
            12 => Change::RenameChain { chain: other?, to: chain },
            13 => Change::SetPolicy { chain: other?, policy: Policy::Accept, counters: None },
            14 => Change::Flush { chain: Some(nobody) },
            _ => Change::NewChain { chain: "LOG".into() },
        })
    }
}

fn led_to(rule: &Rule) -> Option<&str> {
    match &rule.target {
        Target::Jump(name) | Target::Goto(name) => Some(name),
        _ => None,
    }
}

/// A level for each chain, above those of all chains with rules that lead to it.
fn levels<'c>(chains: &'c [Chain], index: impl Fn(&'c str) -> Option<usize>) -> Vec<u32> {
    let next = |c: &'c Chain| c.rules.iter().filter_map(led_to).filter_map(&index).collect::<Vec<usize>>();
    let nexts: Vec<Vec<usize>> = chains.iter().map(next).collect();
    let mut open = vec![0usize; chains.len()];
    nexts.iter().flatten().for_each(|&next| open[next] += 1);
    let mut levels = vec![0; chains.len()];
    let mut ready: Vec<usize> = (0..chains.len()).filter(|&c| open[c] == 0).collect();
    while let Some(chain) = ready.pop() {
        for &next in &nexts[chain] {
            levels[next] = levels[next].max(levels[chain] + 1);
            open[next] -= 1;
            if open[next] == 0 {
                ready.push(next);
            }
        }
    }
    // A user chain that nothing leads to is above the built-in ones as well.
    chains.iter().zip(levels).map(|(c, level)| if c.hook.is_none() { level.max(1) } else { 0 }).collect()
}

/// Simple rules that may stand in every chain of a table.
fn simple_rules(kind: TableKind, family: Family) -> Vec<Rule> {
    let end = if kind == TableKind::Nat { "RETURN" } else { "DROP" };
    let text = format!(
        "*{}\n:any - [0:0]\n\
         -A any -p tcp --dport 22 -j ACCEPT\n\
         -A any -p tcp --dport 80:443 -j {end}\n\
         -A any -p udp --sport 53 -j ACCEPT\n\
         -A any -p udp --dport 1024: -j {end}\n\
         -A any -p tcp --syn -j ACCEPT\n\
         -A any -p tcp ! --dport 25\n\
         -A any -p tcp -j {end}\n\
         -A any -j ACCEPT\n\
         -A any -j {end}\n\
         -A any -j RETURN\n\
         -A any -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n\
         -A any -m comment --comment \"a b\"\n\
         COMMIT\n",
        kind.name()
    );
    let options = ParseOptions { family: Some(family), ..ParseOptions::default() };
    let parsed = parse(text, &options).ruleset;
    parsed.tables.into_iter().flat_map(|t| t.chains).flat_map(|c| c.rules).collect()
}
