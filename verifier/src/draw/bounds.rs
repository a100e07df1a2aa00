//! Values on and beside the bounds of all tests of a ruleset.
//!
//! A mistake in a bound shows only on a value next to it. So each field has a pool: for every set of values
//! that some rule tests, its first and last member, and the neighbours outside of it.

use std::collections::{BTreeMap, BTreeSet};

use hipac_classifier::InterfaceName;
use hipac_rules::{Family, Field, Test, ValueSet};

use super::random::Random;
use crate::{fields, members};

/// Entries of an IP set whose bounds are taken.
const MEMBERS_MAX: usize = 4096;

/// For each field, the values on and beside bounds, in rising order, each once.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    numbers: BTreeMap<Field, Vec<u128>>,
    names: Vec<InterfaceName>,
    /// Fields of names that rules test.
    named: BTreeSet<Field>,
}

impl Bounds {
    /// Collects from all tests. Costs memory in proportion to them.
    pub(super) fn collect(family: Family, tests: impl Iterator<Item = Test>) -> Bounds {
        let mut numbers: BTreeMap<Field, Vec<u128>> = BTreeMap::new();
        let (mut names, mut named) = (BTreeSet::new(), BTreeSet::new());
        for test in tests {
            match &test.set {
                ValueSet::Interface { name, prefix } => {
                    named.insert(test.field);
                    names.extend(names_beside(name, *prefix));
                }
                ValueSet::Member(membership) => {
                    for (field, number) in members::bounds(membership, MEMBERS_MAX) {
                        numbers.entry(field).or_default().push(number);
                    }
                }
                set => numbers.entry(test.field).or_default().extend(numbers_beside(set)),
            }
        }
        for (field, pool) in &mut numbers {
            pool.retain(|&x| fields::is_possible(family, *field, x));
            pool.sort_unstable();
            pool.dedup();
        }
        names.insert(InterfaceName::NONE);
        names.extend(InterfaceName::new("unknown0"));
        Bounds { numbers, names: names.into_iter().collect(), named }
    }

    /// Some rule tests the field.
    pub(super) fn has(&self, field: Field) -> bool {
        self.numbers.contains_key(&field) || self.named.contains(&field)
    }

    /// A number on or beside a bound of the field; `None` when no rule tests it.
    pub(super) fn number(&self, field: Field, random: &mut Random) -> Option<u128> {
        random.pick(self.numbers.get(&field)?).copied()
    }

    /// A name that some rule tests, or one close to it.
    pub(super) fn name(&self, random: &mut Random) -> InterfaceName {
        random.pick(&self.names).copied().unwrap_or(InterfaceName::NONE)
    }
}

/// The first and last numbers of a set and their neighbours.
pub(super) fn numbers_beside(set: &ValueSet) -> Vec<u128> {
    let around = |lo: u128, hi: u128| [lo.wrapping_sub(1), lo, hi, hi.wrapping_add(1)];
    match set {
        ValueSet::Ranges(ranges) => ranges.iter().flat_map(|&(lo, hi)| around(lo, hi)).collect(),
        ValueSet::Masked { value, mask } => {
            let lowest = mask & mask.wrapping_neg();
            let highest = if *mask == 0 { 0 } else { 1 << mask.ilog2() };
            // The run of members that begins with `value`: all of them, where the mask has no holes.
            let mut all = around(*value, value | lowest.saturating_sub(1)).to_vec();
            // Outside by one bit: the neighbours that matter where it has some.
            all.extend([value ^ lowest, value ^ highest]);
            all
        }
        ValueSet::Interface { .. } | ValueSet::Member(_) => Vec::new(),
    }
}

/// Names for which a test of `name` holds and close ones for which it does not.
pub(super) fn names_beside(name: &str, prefix: bool) -> Vec<InterfaceName> {
    let shorter: String = name.chars().take(name.chars().count().saturating_sub(1)).collect();
    let mut names = vec![name.to_owned(), format!("{name}0"), shorter];
    if prefix {
        names.extend([format!("{name}12"), format!("{name}~")]);
    }
    // One that is too long to exist is no name.
    names.iter().filter_map(|n| InterfaceName::new(n)).collect()
}
