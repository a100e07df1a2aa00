//! Areas: the packets for which a rule holds, on the way on which they first reach it.
//!
//! ```text
//!   FORWARD  -s 10.0.0.0/8 -j web          area of the call:  source 10.0.0.0/8
//!   web      -p tcp --dport 80 -j ACCEPT   area of the rule:  source 10.0.0.0/8, tcp, port 80
//! ```
//!
//! An area is a guess at what a rule is for, good enough to draw packets from. It is no proof
//! that they reach the rule: rules before it may take them, residual matches and effects are
//! passed over, and of a set with holes only the first run is kept. Each chain is entered by the
//! first call whose area is not empty, so that areas are as many as rules at most.

use std::collections::HashSet;

use hipac_classifier::InterfaceName;
use hipac_rules::{
    Chain, Family, Field, FragmentTest, InterfaceTest, Rule, Ruleset, Table, TableKind, Target, Test,
    ValueSet,
};
use hipac_verifier::fields;

/// Inclusive ranges, rising and disjoint.
pub(super) type Ranges = Vec<(u128, u128)>;

/// Values for some fields; any value for the others.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Area {
    pub(super) numbers: Vec<(Field, Ranges)>,
    pub(super) names: Vec<(Field, InterfaceName)>,
}

impl Area {
    /// The values of a field; `None` when it may have any.
    pub(super) fn ranges(&self, field: Field) -> Option<&Ranges> {
        self.numbers.iter().find(|(f, _)| *f == field).map(|(_, ranges)| ranges)
    }

    /// The part of it for which a test holds too; `None` when there is none.
    fn within(mut self, family: Family, test: &Test) -> Option<Area> {
        if let ValueSet::Member(_) = &test.set {
            return Some(self); // as good as any guess
        }
        if let ValueSet::Interface { name, prefix } = &test.set {
            self.names.push((test.field, interface(name, *prefix, test.negated)));
            return Some(self);
        }
        let max = fields::number_max(family, test.field);
        let wanted = ranges_of(test, max);
        match self.numbers.iter_mut().find(|(field, _)| *field == test.field) {
            Some((_, ranges)) => {
                *ranges = intersection(ranges, &wanted);
                (!ranges.is_empty()).then_some(self)
            }
            None => {
                let is_empty = wanted.is_empty();
                self.numbers.push((test.field, wanted));
                (!is_empty).then_some(self)
            }
        }
    }
}

/// The areas of all rules that packets of a built-in chain get to.
pub(super) fn areas(ruleset: &Ruleset, table: TableKind, chain: &str) -> Vec<Area> {
    let mut areas = Vec::new();
    let Some(table) = ruleset.table(table) else { return areas };
    let Some(entry) = table.chain(chain) else { return areas };
    let mut entered = HashSet::from([&*entry.name]);
    let mut open = vec![(entry, Area::default())];
    while let Some((chain, area)) = open.pop() {
        for rule in &chain.rules {
            let Some(area) = rule_area(ruleset.family, rule, &area) else { continue };
            match called(table, rule) {
                Some(chain) if entered.insert(&chain.name) => open.push((chain, area)),
                Some(_) => {}
                None => areas.push(area),
            }
        }
    }
    areas
}

fn called<'r>(table: &'r Table, rule: &Rule) -> Option<&'r Chain> {
    match &rule.target {
        Target::Jump(name) | Target::Goto(name) => table.chain(name),
        _ => None,
    }
}

/// The part of `area` for which the rule holds.
fn rule_area(family: Family, rule: &Rule, area: &Area) -> Option<Area> {
    let mut area = area.clone();
    for test in ip_tests(family, rule) {
        area = area.within(family, &test)?;
    }
    for meaning in rule.matches.iter().map(|m| m.match_meaning(family)) {
        if meaning.l4.bytes > 0 {
            area = area.within(family, &numbers(Field::L4, false, (0, 0)))?;
        }
        // Of alternatives the first will do.
        for test in meaning.clauses.iter().filter_map(|clause| clause.first()) {
            area = area.within(family, test)?;
        }
    }
    Some(area)
}

fn numbers(field: Field, negated: bool, range: (u128, u128)) -> Test {
    Test { field, negated, set: ValueSet::Ranges(vec![range]) }
}

/// The IP part as tests.
fn ip_tests(family: Family, rule: &Rule) -> Vec<Test> {
    let ip = &rule.ip;
    let mut tests = Vec::new();
    for (field, address) in [(Field::Source, ip.source), (Field::Destination, ip.destination)] {
        let mask = address.mask & family.full_mask();
        if mask != 0 || address.negated {
            let set = ValueSet::Masked { value: address.address & mask, mask };
            tests.push(Test { field, negated: address.negated, set });
        }
    }
    for (field, test) in [(Field::InInterface, &ip.in_interface), (Field::OutInterface, &ip.out_interface)] {
        if let InterfaceTest { name: Some(name), prefix, negated } = test {
            let set = ValueSet::Interface { name: name.clone(), prefix: *prefix };
            tests.push(Test { field, negated: *negated, set });
        }
    }
    if ip.protocol.number != 0 {
        let number = ip.protocol.number.into();
        tests.push(numbers(Field::Protocol, ip.protocol.negated, (number, number)));
    }
    match ip.fragment {
        FragmentTest::Any => {}
        FragmentTest::Later => tests.push(numbers(Field::L4, false, (1, 1))),
        FragmentTest::NotLater => tests.push(numbers(Field::L4, false, (0, 0))),
    }
    tests
}

/// The values for which a test of numbers holds, up to `max`.
fn ranges_of(test: &Test, max: u128) -> Ranges {
    let ranges = match &test.set {
        ValueSet::Ranges(ranges) => ranges.clone(),
        ValueSet::Masked { value, mask } if value & !mask == 0 => {
            let run = (mask & mask.wrapping_neg()).wrapping_sub(1) & max;
            vec![(*value, value | run)]
        }
        _ => Ranges::new(),
    };
    if test.negated { complement(&ranges, max) } else { intersection(&ranges, &[(0, max)]) }
}

fn complement(ranges: &[(u128, u128)], max: u128) -> Ranges {
    let mut out = Ranges::new();
    let mut next = Some(0);
    for &(low, high) in ranges {
        if let Some(from) = next.filter(|&from| from < low) {
            out.push((from, low - 1));
        }
        next = high.checked_add(1);
    }
    out.extend(next.filter(|&from| from <= max).map(|from| (from, max)));
    out
}

fn intersection(a: &[(u128, u128)], b: &[(u128, u128)]) -> Ranges {
    let both = |x: &(u128, u128), y: &(u128, u128)| (x.0.max(y.0), x.1.min(y.1));
    let all = a.iter().flat_map(|x| b.iter().map(move |y| both(x, y)));
    all.filter(|(low, high)| low <= high).collect()
}

/// A name for which a test holds.
fn interface(name: &str, prefix: bool, negated: bool) -> InterfaceName {
    let wanted = match (negated, prefix) {
        (true, _) => "other0".to_owned(),
        (false, true) => format!("{name}0"),
        (false, false) => name.to_owned(),
    };
    // A prefix of 15 letters has no room for more: it is a name itself.
    InterfaceName::new(&wanted).or_else(|| InterfaceName::new(name)).unwrap_or(InterfaceName::NONE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hipac_rules::{ParseOptions, parse};

    /// The areas of a filter table's FORWARD, in words.
    #[track_caller]
    fn check(rules: &str, expected: &[&str]) {
        let text = format!("*filter\n:FORWARD ACCEPT\n:web -\n{rules}\nCOMMIT\n");
        let parsed = parse(text.as_bytes(), &ParseOptions::default());
        assert!(parsed.faults.is_empty(), "{:?}", parsed.faults);
        let areas = areas(&parsed.ruleset, TableKind::Filter, "FORWARD");
        let words: Vec<String> = areas
            .iter()
            .map(|area| {
                let numbers = area.numbers.iter().map(|(f, r)| format!("{} {r:?}", f.name()));
                let names = area.names.iter().map(|(f, n)| format!("{} {n}", f.name()));
                numbers.chain(names).collect::<Vec<_>>().join(", ")
            })
            .collect();
        assert_eq!(words, expected);
    }

    #[test]
    fn a_called_rule_holds_within_its_call() {
        check(
            "-A FORWARD -s 10.0.0.0/8 -j web\n-A web -s 10.1.0.0/16 -p tcp -j ACCEPT\n-A web -s 11.0.0.0/8 -j DROP",
            &["source [(167837696, 167903231)], protocol [(6, 6)]"],
        );
    }

    #[test]
    fn negations_and_names_are_taken_into_account() {
        check("-A FORWARD ! -p tcp -j DROP", &["protocol [(0, 5), (7, 255)]"]);
        check("-A FORWARD -i eth+ ! -o lo -j DROP", &["in-interface eth0, out-interface other0"]);
        check(
            "-A FORWARD ! -f -p udp -m udp --dport 53 -j DROP",
            &["protocol [(17, 17)], fragment [(0, 0)], destination port [(53, 53)]"],
        );
        check("-A FORWARD -f -p udp -m udp --dport 53 -j DROP", &[]);
    }

    #[test]
    fn a_chain_is_entered_once() {
        check("-A FORWARD -p tcp -j web\n-A FORWARD -p udp -j web\n-A web -j ACCEPT", &["protocol [(6, 6)]"]);
    }
}
