//! A filter set as a [`Ruleset`], so that everything that takes rules takes filter sets.
//!
//! ```text
//!   filter on line 7   ▶   -A FORWARD -s … -d … -p 6 -m ports --dport 80:443 -j ACCEPT
//!   no filter holds    ▶   policy DROP
//! ```
//!
//! Table `filter`, chain `FORWARD`, a rule for each filter in their order; the rule's line is the
//! filter's. Ports are tested by `ports`, a match of hipac's own: the literature's filters look
//! at two numbers of 16 bits whatever the protocol, and no match of iptables does.

use std::fmt;

use hipac_rules::registry::{self, ExtensionSpec, Kind};
use hipac_rules::value::Value;
use hipac_rules::{
    AddressTest, Chain, Counters, Extension, ExtensionRef, Family, Hook, IpPart, Policy, ProtocolTest, Rule,
    Ruleset, Setting, Table, TableKind, Target,
};

use crate::filter::{Filter, PortRange, Prefix};
use crate::text::LINES_MAX;

/// Why a filter set is no ruleset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConvertError {
    /// A filter wants protocol 0, which for a rule is any protocol.
    ProtocolZero {
        /// Its line, from 1.
        line: u32,
    },
    /// More filters than a file may have lines.
    TooMany(usize),
}

impl fmt::Display for ConvertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConvertError::ProtocolZero { line } => write!(
                f,
                "line {line}: the filter wants protocol 0 and no other, but to a rule 0 is any protocol"
            ),
            ConvertError::TooMany(filters) => {
                write!(f, "{filters} filters: {LINES_MAX} at most become a ruleset")
            }
        }
    }
}

impl std::error::Error for ConvertError {}

/// The ruleset that accepts what a filter holds and drops the rest.
///
/// # Errors
///
/// When a filter says what no rule can.
pub fn ruleset_of(filters: &[Filter]) -> Result<Ruleset, ConvertError> {
    ruleset_of_family(filters, Family::V4)
}

/// [`ruleset_of`] for either family. For IPv6 an address becomes the second 32 bits of one in
/// `2001:db8::/32`, so that a host is a `/64`, as networks are in practice.
///
/// # Errors
///
/// When a filter says what no rule can.
pub fn ruleset_of_family(filters: &[Filter], family: Family) -> Result<Ruleset, ConvertError> {
    if filters.len() > LINES_MAX as usize {
        return Err(ConvertError::TooMany(filters.len()));
    }
    let words = Words::new(family);
    let rules = filters.iter().zip(1..).map(|(filter, line)| words.rule(filter, line));
    let mut rules = Some(rules.collect::<Result<Vec<Rule>, ConvertError>>()?);
    let chains = TableKind::Filter.hooks().iter().map(|&hook| Chain {
        name: hook.name().into(),
        hook: Some(hook),
        policy: Some(if hook == Hook::Forward { Policy::Drop } else { Policy::Accept }),
        counters: Counters::default(),
        rules: if hook == Hook::Forward { rules.take().unwrap_or_default() } else { Vec::new() },
        line: 0,
    });
    let table = Table { kind: TableKind::Filter, chains: chains.collect() };
    Ok(Ruleset { family, tables: vec![table] })
}

/// The registry's entries that rules are made of.
struct Words {
    family: Family,
    ports: &'static ExtensionSpec,
    accept: &'static ExtensionSpec,
}

impl Words {
    fn new(family: Family) -> Words {
        let entry = |kind, name| registry::find(kind, name, family).expect("a test finds it in the registry");
        Words { family, ports: entry(Kind::Match, "ports"), accept: entry(Kind::Target, "ACCEPT") }
    }

    fn rule(&self, filter: &Filter, line: u32) -> Result<Rule, ConvertError> {
        if filter.protocol == Some(0) {
            return Err(ConvertError::ProtocolZero { line });
        }
        let ip = IpPart {
            source: self.address(filter.source),
            destination: self.address(filter.destination),
            protocol: ProtocolTest { number: filter.protocol.unwrap_or(0), negated: false },
            ..IpPart::default()
        };
        let settings = [("sport", filter.source_ports), ("dport", filter.destination_ports)]
            .into_iter()
            .filter(|(_, range)| *range != PortRange::ANY)
            .map(|(name, range)| self.port_setting(name, range))
            .collect::<Vec<Setting>>();
        let matches = if settings.is_empty() { Vec::new() } else { vec![extension(self.ports, settings)] };
        let target = Target::Extension(extension(self.accept, Vec::new()));
        Ok(Rule { counters: Counters::default(), ip, matches, target, line })
    }

    fn address(&self, prefix: Prefix) -> AddressTest {
        let (low, mask) = (u128::from(prefix.low()), u128::from(prefix.mask()));
        let (address, mask) = match self.family {
            Family::V4 => (low, mask),
            Family::V6 if prefix.len() == 0 => (0, 0),
            Family::V6 => (0x2001_0db8 << 96 | low << 64, u128::from(u32::MAX) << 96 | mask << 64),
        };
        AddressTest { address, mask, negated: false }
    }

    fn port_setting(&self, name: &str, range: PortRange) -> Setting {
        Setting {
            option: self.ports.option(name).expect("a test finds it in the registry"),
            negated: false,
            value: Value::Range(range.low().into(), range.high().into()),
        }
    }
}

fn extension(spec: &'static ExtensionSpec, settings: Vec<Setting>) -> Extension {
    Extension { spec: ExtensionRef::Known(spec), settings, words: Vec::new() }
}

#[cfg(test)]
mod tests {
    use hipac_classifier::Packet;
    use hipac_rules::{Field, Test, ValueSet};

    use super::*;
    use crate::filter::TracePacket;
    use crate::trace::{self, Mixture};
    use crate::{FilterFamily, classbench_gen};

    /// The first rule that holds, looked for as simply as can be.
    fn first_rule(ruleset: &Ruleset, packet: &Packet) -> Option<u32> {
        let chain = ruleset.table(TableKind::Filter).unwrap().chain("FORWARD").unwrap();
        chain.rules.iter().find(|rule| holds(rule, packet)).map(|rule| rule.line)
    }

    fn holds(rule: &Rule, packet: &Packet) -> bool {
        let clauses = rule.matches.iter().flat_map(|m| m.match_meaning(Family::V4).clauses);
        packet.source & rule.ip.source.mask == rule.ip.source.address
            && packet.destination & rule.ip.destination.mask == rule.ip.destination.address
            && (rule.ip.protocol.number == 0 || rule.ip.protocol.number == packet.protocol)
            && clauses.into_iter().all(|clause| clause.iter().any(|test| test_holds(test, packet)))
    }

    fn test_holds(test: &Test, packet: &Packet) -> bool {
        let value = match test.field {
            Field::SourcePort => packet.source_port,
            Field::DestinationPort => packet.destination_port,
            other => panic!("{other:?}"),
        };
        let ValueSet::Ranges(ranges) = &test.set else { panic!("{test:?}") };
        ranges.iter().any(|&(low, high)| low <= value.into() && u128::from(value) <= high) != test.negated
    }

    #[test]
    fn a_ruleset_accepts_by_the_first_filter_that_holds() {
        for family in FilterFamily::ALL {
            let options = classbench_gen::Options::new(200, 1);
            let filters = classbench_gen::generate(&family.parameters(), &options).unwrap();
            let ruleset = ruleset_of(&filters).unwrap();
            let options = trace::Options { mixture: Mixture::EDGES, ..trace::Options::new(1000, 1) };
            for packet in trace::generate(&filters, &options).unwrap() {
                let first = filters.iter().position(|filter| filter.contains(&packet));
                let line = first_rule(&ruleset, &Packet::from(packet));
                assert_eq!(line, first.map(|i| i as u32 + 1), "{packet:?}");
            }
        }
    }

    #[test]
    fn matches_need_no_transport_header() {
        let filter = Filter { destination_ports: PortRange::exact(80), ..Filter::ANY };
        let ruleset = ruleset_of(&[filter]).unwrap();
        let rule = &ruleset.table(TableKind::Filter).unwrap().chain("FORWARD").unwrap().rules[0];
        assert_eq!(rule.matches[0].match_meaning(Family::V4).l4.bytes, 0);
        assert_eq!(rule.matches[0].settings.len(), 1);
        let packet = TracePacket {
            source: 1,
            destination: 2,
            source_port: 3,
            destination_port: 80,
            protocol: 47,
            filter: None,
        };
        assert!(holds(rule, &packet.into()));
    }

    #[test]
    fn an_address_of_ipv6_stands_in_the_documentation_prefix() {
        let source = Prefix::new(0x0a01_0000, 16).unwrap();
        let ruleset = ruleset_of_family(&[Filter { source, ..Filter::ANY }], Family::V6).unwrap();
        let text = hipac_rules::print(&ruleset, &hipac_rules::PrintOptions::default());
        assert!(text.contains("-A FORWARD -s 2001:db8:a01::/48 -j ACCEPT"), "{text}");
    }

    #[test]
    fn a_set_becomes_a_whole_table() {
        let ruleset = ruleset_of(&[Filter::ANY, Filter::ANY]).unwrap();
        let table = ruleset.table(TableKind::Filter).unwrap();
        let names: Vec<&str> = table.chains.iter().map(|chain| &*chain.name).collect();
        assert_eq!(names, ["INPUT", "FORWARD", "OUTPUT"]);
        assert_eq!(table.chains[1].policy, Some(Policy::Drop));
        assert_eq!(ruleset.rule_count(), 2);
        assert!(table.chains[1].rules[0].matches.is_empty());
    }

    #[test]
    fn protocol_zero_is_refused_with_its_line() {
        let error = ruleset_of(&[Filter::ANY, Filter { protocol: Some(0), ..Filter::ANY }]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "line 2: the filter wants protocol 0 and no other, but to a rule 0 is any protocol"
        );
    }
}
