//! Packets drawn where mistakes show.
//!
//! Uniform packets hardly ever come near a rule: they match the default and prove little. A [`Drawer`] knows
//! the rules, and draws in five ways:
//!
//! | cases | way | finds |
//! |---|---|---|
//! | 40% | **inside**: a random rule, a random path of jumps to it, a packet for which all of their tests hold, at their ends as often as between; then steered past the rules before it | rules lost, shadowed or out of order |
//! | 25% | **beside**: the same, then one field moved to a neighbour of a bound, mostly one that the path tests | bounds off by one, negations |
//! | 15% | **changed**: the packet before, one field changed | answers that stick |
//! | 10% | **on bounds**: every field on or beside a bound of any rule | fields mixed up, combinations |
//! | 10% | **uniform**: every field uniform | the default, and what nobody thought of |
//!
//! A field that no test of the path decides keeps its default in half of these packets; in a quarter each,
//! one field in ten or every other one is on a bound or uniform. Where the state of the transport header is
//! drawn, it is whole in 85 of 100 cases. Values need not be consistent with each other (a UDP packet may
//! have TCP flags): an evaluation is defined for all of them.
//!
//! Nine in ten are evaluated at the built-in chain that the path begins with, the others at any.
//! Every case also has a seed for the outcomes of its residual matches.
//!
//! # Cost
//!
//! A drawer keeps four numbers for each range of values in the ruleset, six for each mask. A case costs
//! microseconds, and up to 12 evaluations where earlier rules are in its way. Cases come in [`BLOCK_CASES`],
//! each block from a random stream of its own, so that threads can draw blocks in any order.

mod bounds;
mod path;
mod random;
mod steer;
#[cfg(test)]
mod tests;

use hipac_classifier::{InterfaceName, L4, Packet};
use hipac_rules::ipset::Column;
use hipac_rules::{Family, Field, Hook, TableKind, Test, ValueSet};

use crate::Oracle;
use crate::fields::{self, COMMON_NAMES, INTERFACES, NUMBERS};
use crate::members;
use crate::outcomes::Script;
use bounds::Bounds;
use path::Paths;
#[cfg(all(feature = "kernel", target_os = "linux"))]
pub(crate) use path::all_rules;
pub(crate) use path::{clauses, satisfy};
pub(crate) use random::Random;

/// Cases of one block.
pub const BLOCK_CASES: u64 = 256;

/// One question to the oracle and its subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Case {
    /// The table.
    pub table: TableKind,
    /// The built-in chain.
    pub hook: Hook,
    /// The packet.
    pub packet: Packet,
    /// What residual matches come out as.
    pub outcomes: Script,
}

/// Draws cases for a ruleset. See [the module](self).
#[derive(Debug)]
pub struct Drawer<'o> {
    oracle: &'o Oracle<'o>,
    seed: u64,
    bounds: Bounds,
    paths: Paths,
    /// What is drawn: common numbers, interfaces, then what else rules test.
    fields: Vec<Field>,
    /// Those of them that hold names.
    names: Vec<Field>,
}

impl<'o> Drawer<'o> {
    /// A drawer for the oracle's rules. The same rules and seed give the same cases, forever.
    pub fn new(oracle: &'o Oracle<'_>, seed: u64) -> Drawer<'o> {
        let tests = path::all_rules(oracle.ruleset()).flat_map(|id| path::clauses(oracle, id)).flatten();
        let bounds = Bounds::collect(oracle.family(), tests);
        let (common, rare) = NUMBERS.split_at(fields::COMMON);
        let (interfaces, rare_names) = INTERFACES.split_at(COMMON_NAMES);
        let rare = rare.iter().chain(rare_names).filter(|&&field| bounds.has(field));
        let fields: Vec<Field> = common.iter().chain(interfaces).chain(rare).copied().collect();
        let names = fields.iter().copied().filter(|field| INTERFACES.contains(field)).collect();
        Drawer { oracle, seed, bounds, paths: Paths::new(oracle.ruleset()), fields, names }
    }

    /// The cases of a block; none when the ruleset has no table.
    pub fn block(&self, number: u64) -> Vec<Case> {
        let mut random = Random::new(self.seed, number);
        let mut cases: Vec<Case> = Vec::with_capacity(BLOCK_CASES as usize);
        while (cases.len() as u64) < BLOCK_CASES {
            match self.case(&mut random, cases.last()) {
                Some(case) => cases.push(case),
                None => break,
            }
        }
        cases
    }

    fn case(&self, random: &mut Random, before: Option<&Case>) -> Option<Case> {
        let &(table, hook) = random.pick(&self.paths.entries)?;
        let outcomes = Script::Drawn(random.word());
        let packet = fields::default_packet(self.oracle.family());
        let mut case = Case { table, hook, packet, outcomes };
        match (random.below(100), before) {
            (0..15, Some(before)) => {
                case = Case { outcomes, ..*before };
                self.change(&mut case.packet, *random.pick(&self.fields)?, random);
            }
            (15..25, _) => self.on_bounds(&mut case.packet, random),
            (25..35, _) => self.uniform(&mut case.packet, random),
            (way, _) => self.inside(&mut case, way < 60, random),
        }
        Some(case)
    }

    /// A packet inside of a rule, or beside it.
    fn inside(&self, case: &mut Case, is_beside: bool, random: &mut Random) {
        // Every further field that is changed is one more for an earlier rule to catch the packet by.
        let noise = [0, 0, 10, 50][random.below(4)];
        for &field in &self.fields {
            if random.percent(noise) {
                self.change(&mut case.packet, field, random);
            }
        }
        let Some(path) = self.paths.draw(random) else { return };
        if random.percent(90) {
            (case.table, case.hook) = path.entry;
        }
        let tests = path.tests(self.oracle, random);
        satisfy(&mut case.packet, &tests, random);
        steer::steer(self.oracle, case, &path, &tests, random);
        if is_beside {
            match random.pick(&tests) {
                Some(test) if random.percent(80) => beside(&mut case.packet, test, random),
                _ => self.change(&mut case.packet, self.fields[random.below(self.fields.len())], random),
            }
        }
    }

    fn on_bounds(&self, packet: &mut Packet, random: &mut Random) {
        for field in NUMBERS {
            if let Some(number) = self.bounds.number(field, random) {
                fields::write_number(packet, field, number);
            }
        }
        for &field in &self.names {
            fields::write_interface(packet, field, self.bounds.name(random));
        }
        packet.l4 = l4(random);
    }

    fn uniform(&self, packet: &mut Packet, random: &mut Random) {
        let family = if packet.is_v6 { Family::V6 } else { Family::V4 };
        let (common, rare) = NUMBERS.split_at(fields::COMMON);
        let rare = rare.iter().filter(|&&field| self.bounds.has(field));
        for &field in common.iter().chain(rare) {
            fields::write_number(packet, field, uniform_number(family, field, random));
        }
        packet.l4 = l4(random);
        for &field in &self.names {
            let letters: String =
                (0..random.below(4)).map(|_| char::from(b'a' + random.below(26) as u8)).collect();
            fields::write_interface(
                packet,
                field,
                InterfaceName::new(&letters).unwrap_or(InterfaceName::NONE),
            );
        }
    }

    /// Gives a field another value, of any kind.
    fn change(&self, packet: &mut Packet, field: Field, random: &mut Random) {
        if field == Field::L4 {
            packet.l4 = l4(random);
        } else if INTERFACES.contains(&field) {
            fields::write_interface(packet, field, self.bounds.name(random));
        } else {
            let on_bound = self.bounds.number(field, random).filter(|_| random.percent(75));
            let number = on_bound.unwrap_or_else(|| uniform_number(self.oracle.family(), field, random));
            fields::write_number(packet, field, number);
        }
    }
}

/// A number that a packet can hold in the field; each as likely as the others, but for numbers that few
/// fields can hold.
fn uniform_number(family: Family, field: Field, random: &mut Random) -> u128 {
    let number = random.between(0, fields::number_max(family, field));
    // What cannot be (a connection state of 7) becomes 0, which every field can hold.
    if fields::is_possible(family, field, number) { number } else { 0 }
}

/// Mostly a whole header; broken ones are rare, since they end many evaluations early.
fn l4(random: &mut Random) -> L4 {
    match random.below(100) {
        0..85 => L4::Whole,
        85..91 => L4::Fragment,
        91..94 => L4::FragmentAt8,
        _ => L4::ALL[3 + random.below(4)],
    }
}

/// Moves the field of a test to a value on or beside its bounds.
fn beside(packet: &mut Packet, test: &Test, random: &mut Random) {
    match &test.set {
        ValueSet::Interface { name, prefix } => {
            if let Some(&name) = random.pick(&bounds::names_beside(name, *prefix)) {
                fields::write_interface(packet, test.field, name);
            }
        }
        ValueSet::Member(membership) => {
            // Into the set, and then one step in one of its columns.
            members::enter(membership, packet, random);
            let column = membership.columns.get(random.below(membership.columns.len()));
            if let Some(Column::Address(field) | Column::Port(field) | Column::BarePort(field)) = column {
                let number = fields::number(packet, *field);
                let step = if random.percent(50) { number.wrapping_add(1) } else { number.wrapping_sub(1) };
                fields::write_number(packet, *field, step);
            }
        }
        set => {
            if let Some(&number) = random.pick(&bounds::numbers_beside(set)) {
                fields::write_number(packet, test.field, number);
            }
        }
    }
}
