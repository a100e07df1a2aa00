//! Ways from a built-in chain to a rule, and packets that go them.

use std::collections::BTreeMap;

use hipac_classifier::{InterfaceName, Packet};
use hipac_rules::{Chain, Clause, Family, Field, Hook, L4Need, Ruleset, TableKind, Target, Test, ValueSet};

use super::bounds;
use super::random::Random;
use crate::fields::{self, INTERFACES};
use crate::members;
use crate::oracle::test_holds;
use crate::{Oracle, RuleId};

/// Values tried for a field before it is left as it is.
const TRIES: usize = 24;

/// Who leads where, for drawing ways backwards.
#[derive(Debug, Default)]
pub(super) struct Paths {
    /// Every built-in chain.
    pub(super) entries: Vec<(TableKind, Hook)>,
    /// The hook of a built-in chain, by its position.
    hooks: BTreeMap<(TableKind, usize), Hook>,
    /// Chains that packets reach and that have rules.
    chains: Vec<Reached>,
    /// For each of `chains`, how many rules it and the chains before it have.
    rules_up_to: Vec<usize>,
    /// Jumps and gotos to a user chain, from chains that packets reach.
    callers: BTreeMap<(TableKind, usize), Vec<RuleId>>,
}

#[derive(Debug)]
struct Reached {
    table: TableKind,
    chain: usize,
    rule_count: usize,
}

/// A rule with jumps that lead to it.
#[derive(Debug)]
pub(super) struct Path {
    pub(super) entry: (TableKind, Hook),
    /// The jumps, and last the rule: there is one.
    rules: Vec<RuleId>,
}

impl Paths {
    pub(super) fn new(ruleset: &Ruleset) -> Paths {
        let mut paths = Paths::default();
        let mut rule_count = 0;
        for table in &ruleset.tables {
            for (i, hook) in table.chains.iter().enumerate().filter_map(|(i, c)| Some((i, c.hook?))) {
                paths.entries.push((table.kind, hook));
                paths.hooks.insert((table.kind, i), hook);
            }
            for chain in reached(table) {
                let rules = &table.chains[chain].rules;
                for (number, rule) in rules.iter().enumerate() {
                    if let Target::Jump(name) | Target::Goto(name) = &rule.target
                        && let Some(callee) = table.chain_index(name)
                        && let Some(id) = RuleId::new(table.kind, chain, number)
                    {
                        paths.callers.entry((table.kind, callee)).or_default().push(id);
                    }
                }
                if !rules.is_empty() {
                    rule_count += rules.len();
                    paths.rules_up_to.push(rule_count);
                    paths.chains.push(Reached { table: table.kind, chain, rule_count: rules.len() });
                }
            }
        }
        paths
    }

    /// A random rule that packets can reach, with a random way to it. In half of the cases every rule is as
    /// likely, in half every chain, so that a long chain does not starve the others.
    pub(super) fn draw(&self, random: &mut Random) -> Option<Path> {
        let index = if random.percent(50) {
            random.below(self.chains.len())
        } else {
            let rule = random.below(*self.rules_up_to.last()?);
            self.rules_up_to.partition_point(|&up_to| up_to <= rule)
        };
        let Reached { table, chain, rule_count } = *self.chains.get(index)?;
        let mut rules = vec![RuleId::new(table, chain, random.below(rule_count))?];
        let mut first = chain;
        while let Some(callers) = self.callers.get(&(table, first)) {
            // Only behind a rule that lets nothing through can chains loop. Such a way leads nowhere.
            if rules.len() > self.chains.len() {
                return None;
            }
            let &caller = random.pick(callers)?;
            rules.push(caller);
            first = caller.chain();
        }
        rules.reverse();
        Some(Path { entry: (table, *self.hooks.get(&(table, first))?), rules })
    }
}

/// The chains that packets reach, without regard to what the rules test.
fn reached(table: &hipac_rules::Table) -> Vec<usize> {
    let mut is_reached: Vec<bool> = table.chains.iter().map(|c| c.hook.is_some()).collect();
    let mut reached: Vec<usize> = (0..table.chains.len()).filter(|&c| is_reached[c]).collect();
    let mut next = 0;
    while let Some(&chain) = reached.get(next) {
        next += 1;
        for rule in &table.chains[chain].rules {
            if let Target::Jump(name) | Target::Goto(name) = &rule.target
                && let Some(callee) = table.chain_index(name)
                && !is_reached[callee]
            {
                is_reached[callee] = true;
                reached.push(callee);
            }
        }
    }
    reached
}

impl Path {
    /// The rule it leads to.
    pub(super) fn target(&self) -> RuleId {
        self.rules[self.rules.len() - 1]
    }

    pub(super) fn contains(&self, rule: RuleId) -> bool {
        self.rules.contains(&rule)
    }

    /// What must hold for a packet to go this way, where it depends on fields. Of alternatives, one is
    /// chosen.
    pub(super) fn tests(&self, oracle: &Oracle<'_>, random: &mut Random) -> Vec<Test> {
        let clauses = self.rules.iter().flat_map(|&id| clauses(oracle, id));
        clauses.filter_map(|clause| random.pick(&clause).cloned()).collect()
    }
}

/// All rules of a ruleset.
pub(crate) fn all_rules(ruleset: &Ruleset) -> impl Iterator<Item = RuleId> {
    let chains = ruleset.tables.iter().flat_map(|t| t.chains.iter().enumerate().map(|(i, c)| (t.kind, i, c)));
    chains.flat_map(|(table, i, chain): (_, _, &Chain)| {
        (0..chain.rules.len()).filter_map(move |rule| RuleId::new(table, i, rule))
    })
}

/// What a rule tests of fields: its IP part, the headers that its matches want, and their clauses.
pub(crate) fn clauses(oracle: &Oracle<'_>, id: RuleId) -> Vec<Clause> {
    let Some(rule) = id.of(oracle.ruleset()) else { return Vec::new() };
    let ip = rule.ip.tests(oracle.family()).into_iter().map(|test| vec![test]);
    let matches =
        oracle.meanings(id).iter().flat_map(|m| header(m.l4).into_iter().chain(m.clauses.iter().cloned()));
    ip.chain(matches).collect()
}

/// The headers with which a match can hold: the whole one, for simplicity.
fn header(need: L4Need) -> Option<Clause> {
    let whole = ValueSet::Ranges(vec![(0, 0)]);
    (need.bytes > 0).then(|| vec![Test { field: Field::L4, negated: false, set: whole }])
}

/// Gives the packet values for which the tests hold, as far as some are found. A field stays as it is when
/// all tests hold for it already, and when no value was found for which they do.
pub(crate) fn satisfy(packet: &mut Packet, tests: &[Test], random: &mut Random) {
    let mut by_field: BTreeMap<Field, Vec<&Test>> = BTreeMap::new();
    for test in tests {
        by_field.entry(test.field).or_default().push(test);
    }
    for tests in by_field.into_values() {
        let before = *packet;
        let hold = |packet: &Packet| tests.iter().all(|test| test_holds(test, packet));
        let found = hold(packet)
            || (0..TRIES).any(|_| {
                if let Some(test) = random.pick(&tests) {
                    write_for(packet, test, random);
                }
                hold(packet)
            });
        if !found {
            *packet = before;
        }
    }
}

/// Gives the field of a test a value for which it probably holds.
fn write_for(packet: &mut Packet, test: &Test, random: &mut Random) {
    if let ValueSet::Member(membership) = &test.set {
        return members::enter(membership, packet, random);
    }
    if INTERFACES.contains(&test.field) {
        fields::write_interface(packet, test.field, name_for(test, random));
    } else {
        let family = if packet.is_v6 { Family::V6 } else { Family::V4 };
        let max = fields::number_max(family, test.field);
        fields::write_number(packet, test.field, number_for(test, max, random));
    }
}

/// A number for which the test probably holds: at the ends of its set in half of the cases.
fn number_for(test: &Test, max: u128, random: &mut Random) -> u128 {
    if test.negated {
        let beside = bounds::numbers_beside(&test.set);
        return match random.pick(&beside) {
            Some(&number) if random.percent(50) => number,
            _ => random.between(0, max),
        };
    }
    match &test.set {
        ValueSet::Ranges(ranges) => {
            let &(lo, hi) = random.pick(ranges).unwrap_or(&(0, max));
            match random.below(4) {
                0 => lo,
                1 => hi,
                _ => random.between(lo, hi),
            }
        }
        ValueSet::Masked { value, mask } => {
            let free = !mask & max;
            match random.below(4) {
                0 => *value,
                1 => value | free,
                _ => value | (random.wide() & free),
            }
        }
        ValueSet::Interface { .. } | ValueSet::Member(_) => 0,
    }
}

fn name_for(test: &Test, random: &mut Random) -> InterfaceName {
    let ValueSet::Interface { name, prefix } = &test.set else { return InterfaceName::NONE };
    random.pick(&bounds::names_beside(name, *prefix)).copied().unwrap_or(InterfaceName::NONE)
}
