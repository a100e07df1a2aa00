//! Which rule: a table, a chain of it, a position in the chain.

use std::fmt;

use hipac_rules::{Rule, Ruleset, TableKind};

/// A rule of a ruleset, by position. Twelve bytes, so that a log of events stays small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId {
    table: TableKind,
    chain: u32,
    rule: u32,
}

const _: () = assert!(size_of::<RuleId>() == 12);

impl RuleId {
    /// The rule at position `rule` of the chain at position `chain` of [`Table::chains`]; `None` when a
    /// position does not fit 32 bits.
    ///
    /// [`Table::chains`]: hipac_rules::Table::chains
    pub fn new(table: TableKind, chain: usize, rule: usize) -> Option<RuleId> {
        Some(RuleId { table, chain: u32::try_from(chain).ok()?, rule: u32::try_from(rule).ok()? })
    }

    /// The rule of that number, from 1, in the chain of that name; `None` when `ruleset` has none. Undoes
    /// what [`RuleId::place`] shows.
    pub fn find(ruleset: &Ruleset, table: TableKind, chain: &str, number: usize) -> Option<RuleId> {
        let index = ruleset.table(table)?.chain_index(chain)?;
        let id = RuleId::new(table, index, number.checked_sub(1)?)?;
        id.of(ruleset).map(|_| id)
    }

    /// Its table.
    pub fn table(self) -> TableKind {
        self.table
    }

    /// Position of its chain in the table, from 0.
    pub fn chain(self) -> usize {
        self.chain as usize
    }

    /// Position in the chain, from 0. (People count from 1: see [`RuleId::place`].)
    pub fn rule(self) -> usize {
        self.rule as usize
    }

    /// The rule itself, when `ruleset` has it.
    pub fn of(self, ruleset: &Ruleset) -> Option<&Rule> {
        ruleset.table(self.table)?.chains.get(self.chain())?.rules.get(self.rule())
    }

    /// The rule with chain name and line, for people: `filter/FORWARD rule 17 (line 41)`.
    pub fn place(self, ruleset: &Ruleset) -> Place<'_> {
        Place { id: self, ruleset }
    }
}

/// Shows a [`RuleId`] the way `iptables -L --line-numbers` counts: `filter/FORWARD rule 17 (line 41)`.
#[derive(Debug, Clone, Copy)]
pub struct Place<'r> {
    id: RuleId,
    ruleset: &'r Ruleset,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RuleId { table, chain, rule } = self.id;
        let number = u64::from(rule) + 1;
        match self.ruleset.table(table).and_then(|t| t.chains.get(self.id.chain())) {
            Some(c) => write!(f, "{}/{} rule {number}", table.name(), c.name)?,
            None => write!(f, "{}/(chain #{chain}) rule {number}", table.name())?,
        }
        match self.id.of(self.ruleset) {
            Some(r) if r.line > 0 => write!(f, " (line {})", r.line),
            Some(_) => Ok(()),
            None => f.write_str(" (the ruleset has no such rule)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::filter;

    #[test]
    fn places_are_shown_as_people_count_and_found_again() {
        let rules = filter("INPUT\n\n-j DROP\nzone\n-j DROP\n-j LOG");
        let check = |chain, number, shown: Option<&str>| {
            let found = RuleId::find(&rules, TableKind::Filter, chain, number);
            assert_eq!(found.map(|id| id.place(&rules).to_string()).as_deref(), shown);
        };
        check("INPUT", 1, Some("filter/INPUT rule 1 (line 3)"));
        check("zone", 2, Some("filter/zone rule 2 (line 6)"));
        for (chain, number) in [("zone", 0), ("zone", 3), ("FORWARD", 1), ("gone", 1)] {
            check(chain, number, None);
        }
    }

    #[test]
    fn a_rule_that_is_not_there_is_shown_as_such() {
        let rules = filter("INPUT\n-j DROP");
        let show =
            |chain, rule| RuleId::new(TableKind::Filter, chain, rule).unwrap().place(&rules).to_string();
        assert_eq!(show(0, 9), "filter/INPUT rule 10 (the ruleset has no such rule)");
        assert_eq!(show(9, 0), "filter/(chain #9) rule 1 (the ruleset has no such rule)");
    }
}
