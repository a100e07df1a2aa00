//! Families of filter sets of our own: tables of round numbers in the spirit of the three kinds
//! of sets that the literature measures with.
//!
//! | family | kind | what marks it |
//! |---|---|---|
//! | `access` | access list | hosts to hosts, single destination ports, TCP |
//! | `transit` | access list | networks of many lengths on both sides, correlated |
//! | `firewall` | firewall | the whole world to a host, or back; ports on both sides |
//! | `perimeter` | firewall | nearly all source wildcards, port ranges |
//! | `chain` | chains of a host firewall | every length, UDP, source or destination ports |
//! | `links` | chains of a host firewall | pairs of networks, no ports |
//!
//! Two of a kind differ in what is hard about them. How near the numbers of a family come to
//! the literature's sets is printed by the test that compares them.

use crate::filter::{Flags, PortClass, PortRange};
use crate::parameters::{
    Correlation, Lengths, Level, Parameters, PortPair, PortTable, ProtocolShape, TreeShape,
};
use crate::random::{Share, Weighted};

use PortClass::{Any, Exact, Range};

/// A family of filter sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FilterFamily {
    /// Access list: hosts to hosts.
    Access,
    /// Access list: networks to networks.
    Transit,
    /// Firewall: the world to a host.
    Firewall,
    /// Firewall: wildcards and port ranges.
    Perimeter,
    /// Chains: every prefix length, ports on either side.
    Chain,
    /// Chains: pairs of networks.
    Links,
}

impl FilterFamily {
    /// All families.
    pub const ALL: [FilterFamily; 6] = [
        FilterFamily::Access,
        FilterFamily::Transit,
        FilterFamily::Firewall,
        FilterFamily::Perimeter,
        FilterFamily::Chain,
        FilterFamily::Links,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            FilterFamily::Access => "access",
            FilterFamily::Transit => "transit",
            FilterFamily::Firewall => "firewall",
            FilterFamily::Perimeter => "perimeter",
            FilterFamily::Chain => "chain",
            FilterFamily::Links => "links",
        }
    }

    /// The family of that name.
    pub fn from_name(name: &str) -> Option<FilterFamily> {
        FilterFamily::ALL.into_iter().find(|family| family.name() == name)
    }

    /// The numbers that its sets are drawn from.
    pub fn parameters(self) -> Parameters {
        let table = match self {
            FilterFamily::Access => &ACCESS,
            FilterFamily::Transit => &TRANSIT,
            FilterFamily::Firewall => &FIREWALL,
            FilterFamily::Perimeter => &PERIMETER,
            FilterFamily::Chain => &CHAIN,
            FilterFamily::Links => &LINKS,
        };
        table.parameters()
    }
}

/// Weights of the classes of both port ranges.
type Pairs = &'static [(PortClass, PortClass, u32)];

/// A family as a table. All weights are relative.
struct Table {
    /// Protocol (0: all), weight, classes of ports.
    protocols: &'static [(u8, u32, Pairs)],
    /// First and last port, weight.
    source_ports: &'static [(u16, u16, u32)],
    destination_ports: &'static [(u16, u16, u32)],
    /// Source length, destination length, weight: where neither side has ports.
    lengths_plain: &'static [(u8, u8, u32)],
    /// The same where only the source has ports.
    lengths_source_ports: &'static [(u8, u8, u32)],
    /// The same where the destination has ports, or both have.
    lengths_destination_ports: &'static [(u8, u8, u32)],
    source: Shape,
    destination: Shape,
    /// Up to which level, percent.
    correlation: &'static [(u8, u32)],
}

/// A tree's shape in bands of levels.
struct Shape {
    nesting: u8,
    /// Up to and without which level: percent of nodes with two children, skew in percent.
    bands: &'static [(u8, u32, u32)],
}

impl Table {
    fn parameters(&self) -> Parameters {
        let protocols = self.protocols.iter().map(|&(protocol, weight, pairs)| {
            let ports =
                pairs.iter().map(|&(source, destination, weight)| (PortPair { source, destination }, weight));
            let shape = ProtocolShape {
                protocol: (protocol != 0).then_some(protocol),
                ports: Weighted::new(ports),
                flags: Weighted::new([(Flags::default(), 1)]),
            };
            (shape, weight)
        });
        let mut correlation = [Share::NONE; 33];
        fill(&mut correlation, self.correlation.iter().map(|&(end, percent)| (end, Share::percent(percent))));
        Parameters {
            protocols: Weighted::new(protocols),
            source_ports: port_table(self.source_ports),
            destination_ports: port_table(self.destination_ports),
            lengths: PortPair::ALL.map(|pair| self.lengths(pair)),
            source: self.source.tree(),
            destination: self.destination.tree(),
            correlation: Correlation(correlation),
        }
    }

    fn lengths(&self, pair: PortPair) -> Weighted<Lengths> {
        let list = match (pair.source, pair.destination) {
            (Any, Any) => self.lengths_plain,
            (_, Any) => self.lengths_source_ports,
            _ => self.lengths_destination_ports,
        };
        Weighted::new(
            list.iter().map(|&(source, destination, weight)| (Lengths { source, destination }, weight)),
        )
    }
}

impl Shape {
    fn tree(&self) -> TreeShape {
        let mut levels = [Level::default(); 33];
        let bands = self.bands.iter().map(|&(end, two_children, skew)| {
            (end, Level { two_children: Share::percent(two_children), skew: Share::percent(skew) })
        });
        fill(&mut levels, bands);
        TreeShape { nesting: self.nesting, levels }
    }
}

/// Fills levels from bands; each ends before its number.
fn fill<T: Copy>(levels: &mut [T; 33], bands: impl Iterator<Item = (u8, T)>) {
    let mut start = 0;
    for (end, value) in bands {
        let end = usize::from(end).min(levels.len());
        levels[start.min(end)..end].fill(value);
        start = end;
    }
}

fn port_table(ports: &[(u16, u16, u32)]) -> PortTable {
    let of_class = |class: PortClass| {
        let ranges =
            ports.iter().filter_map(|&(low, high, weight)| Some((PortRange::new(low, high)?, weight)));
        Weighted::new(ranges.filter(|(range, _)| range.class() == class))
    };
    PortTable { ranges: of_class(Range), exact: of_class(Exact) }
}

mod tables;
use tables::{ACCESS, CHAIN, FIREWALL, LINKS, PERIMETER, TRANSIT};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_can_be_drawn_from() {
        for family in FilterFamily::ALL {
            assert_eq!(family.parameters().validate(), Ok(()), "{}", family.name());
            assert_eq!(FilterFamily::from_name(family.name()), Some(family));
        }
    }

    #[test]
    fn tables_hold_only_ranges_and_single_ports() {
        for table in [&ACCESS, &TRANSIT, &FIREWALL, &PERIMETER, &CHAIN, &LINKS] {
            for &(low, high, _) in table.source_ports.iter().chain(table.destination_ports) {
                let class = PortRange::new(low, high).map(PortRange::class);
                assert!(matches!(class, Some(Range | Exact)), "{low}-{high}");
            }
        }
    }
}
