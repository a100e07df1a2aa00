//! What a filter set looks like, as numbers that a generator can draw from.
//!
//! The model is ClassBench's (Taylor and Turner, 2007), since its numbers were read off real
//! filter sets:
//!
//! - a **protocol**, and by protocol the **classes of both port ranges**: any, high, low, a
//!   range, one port;
//! - by classes, the **lengths of both prefixes**;
//! - the **ports and ranges** themselves;
//! - the **shape of the trees** that addresses come from: how often a node has two children, how
//!   unequal they are, how many prefixes lie within each other;
//! - **correlation**: how long a destination's bits go with the source's.

use std::fmt;

use crate::filter::{Flags, PortClass, PortRange};
use crate::random::{Share, Weighted};

/// The classes of a filter's two port ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortPair {
    /// Of the source ports.
    pub source: PortClass,
    /// Of the destination ports.
    pub destination: PortClass,
}

impl PortPair {
    /// Number of pairs.
    pub const COUNT: usize = 25;

    /// All pairs, in the order of the columns and sections of ClassBench's parameter files.
    pub const ALL: [PortPair; PortPair::COUNT] = {
        use PortClass::{Any, Exact, High, Low, Range};
        let columns = [
            (Any, Any),
            (Any, High),
            (High, Any),
            (High, High),
            (Any, Low),
            (Low, Any),
            (High, Low),
            (Low, High),
            (Low, Low),
            (Any, Range),
            (Range, Any),
            (High, Range),
            (Range, High),
            (Any, Exact),
            (Exact, Any),
            (High, Exact),
            (Exact, High),
            (Low, Range),
            (Range, Low),
            (Low, Exact),
            (Exact, Low),
            (Range, Range),
            (Range, Exact),
            (Exact, Range),
            (Exact, Exact),
        ];
        let mut all = [PortPair { source: Any, destination: Any }; PortPair::COUNT];
        let mut i = 0;
        while i < all.len() {
            all[i] = PortPair { source: columns[i].0, destination: columns[i].1 };
            i += 1;
        }
        all
    };

    /// Its place in [`PortPair::ALL`].
    pub fn index(self) -> usize {
        PortPair::ALL.iter().position(|&pair| pair == self).unwrap_or(0)
    }
}

impl fmt::Display for PortPair {
    /// `wc_em`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.source.name(), self.destination.name())
    }
}

/// The ports that a protocol's filters ask for, as classes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProtocolShape {
    /// The protocol; `None`: all.
    pub protocol: Option<u8>,
    /// Classes of the port ranges.
    pub ports: Weighted<PortPair>,
    /// Header flags; none when empty.
    pub flags: Weighted<Flags>,
}

/// The lengths of a filter's two prefixes, 0 to 32 each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lengths {
    /// Of the source.
    pub source: u8,
    /// Of the destination.
    pub destination: u8,
}

/// The ports of one side.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PortTable {
    /// Ranges of class [`PortClass::Range`].
    pub ranges: Weighted<PortRange>,
    /// Ranges of class [`PortClass::Exact`].
    pub exact: Weighted<PortRange>,
}

/// How a tree of addresses grows below its nodes of one level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Level {
    /// Nodes with two children; the others have one.
    pub two_children: Share,
    /// How unequal two children are: 1 − lighter / heavier.
    pub skew: Share,
}

/// The shape of a tree of addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeShape {
    /// Prefixes that lie within each other, at most (as near as the rest allows).
    pub nesting: u8,
    /// By the length of a node's prefix.
    pub levels: [Level; 33],
}

impl Default for TreeShape {
    /// Every address alike.
    fn default() -> Self {
        TreeShape { nesting: 33, levels: [Level { two_children: Share::ALL, skew: Share::NONE }; 33] }
    }
}

/// By level: of the destinations that agree with their source up to the bit before, those that
/// agree in the bit of this level too. Entry 0 is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Correlation(pub [Share; 33]);

impl Default for Correlation {
    /// None.
    fn default() -> Self {
        Correlation([Share::NONE; 33])
    }
}

/// All that a generator draws filters from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parameters {
    /// Protocols with their ports and flags.
    pub protocols: Weighted<ProtocolShape>,
    /// Source ports.
    pub source_ports: PortTable,
    /// Destination ports.
    pub destination_ports: PortTable,
    /// Prefix lengths by [`PortPair::index`].
    pub lengths: [Weighted<Lengths>; PortPair::COUNT],
    /// Tree of source addresses.
    pub source: TreeShape,
    /// Tree of destination addresses.
    pub destination: TreeShape,
    /// How long a destination goes with its source.
    pub correlation: Correlation,
}

/// Why nothing can be drawn from parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Incomplete {
    /// There is no protocol.
    Protocols,
    /// A protocol has no classes of ports.
    PortPairs(Option<u8>),
    /// A pair of port classes occurs, but has no prefix lengths.
    Lengths(PortPair),
    /// A class of ports occurs on a side, but has no ports.
    Ports {
        /// `source` or `destination`.
        side: &'static str,
        /// The class.
        class: PortClass,
    },
    /// A length is over 32.
    Length(PortPair),
}

impl fmt::Display for Incomplete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Incomplete::Protocols => write!(f, "no protocol has a weight"),
            Incomplete::PortPairs(Some(protocol)) => {
                write!(f, "protocol {protocol} has no classes of ports")
            }
            Incomplete::PortPairs(None) => write!(f, "filters of any protocol have no classes of ports"),
            Incomplete::Lengths(pair) => write!(f, "{pair} has a weight, but no prefix lengths"),
            Incomplete::Ports { side, class } => {
                write!(f, "{side} ports of class {} have a weight, but none is given", class.name())
            }
            Incomplete::Length(pair) => write!(f, "{pair} has a prefix length over 32"),
        }
    }
}

impl std::error::Error for Incomplete {}

impl Parameters {
    /// Checks that whatever is drawn leads to something that can be drawn.
    ///
    /// # Errors
    ///
    /// The first gap.
    pub fn validate(&self) -> Result<(), Incomplete> {
        if self.protocols.is_empty() {
            return Err(Incomplete::Protocols);
        }
        for protocol in self.protocols.values() {
            if protocol.ports.is_empty() {
                return Err(Incomplete::PortPairs(protocol.protocol));
            }
            for &pair in protocol.ports.values() {
                self.validate_pair(pair)?;
            }
        }
        Ok(())
    }

    fn validate_pair(&self, pair: PortPair) -> Result<(), Incomplete> {
        let lengths = &self.lengths[pair.index()];
        if lengths.is_empty() {
            return Err(Incomplete::Lengths(pair));
        }
        if lengths.values().iter().any(|l| l.source > 32 || l.destination > 32) {
            return Err(Incomplete::Length(pair));
        }
        self.source_ports.validate("source", pair.source)?;
        self.destination_ports.validate("destination", pair.destination)
    }
}

impl PortTable {
    fn validate(&self, side: &'static str, class: PortClass) -> Result<(), Incomplete> {
        let table = match class {
            PortClass::Range => &self.ranges,
            PortClass::Exact => &self.exact,
            PortClass::Any | PortClass::High | PortClass::Low => return Ok(()),
        };
        if table.is_empty() { Err(Incomplete::Ports { side, class }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_classes_has_one_column() {
        for (i, pair) in PortPair::ALL.iter().enumerate() {
            assert_eq!(pair.index(), i, "{pair} stands twice");
        }
    }
}
