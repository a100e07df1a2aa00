//! The five-tuple filter of the classification literature, and a packet of its traces.
//!
//! ```text
//!   source prefix × destination prefix × source ports × destination ports × protocol
//! ```
//!
//! A filter is a box: an interval in each dimension. In a set the first that holds wins.
//! Everything is IPv4; the literature's inputs are.

use std::fmt;
use std::net::Ipv4Addr;

use hipac_classifier::Packet;

/// An IPv4 prefix. No bit of the address is set behind the prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    address: u32,
    len: u8,
}

impl Prefix {
    /// All addresses.
    pub const ANY: Prefix = Prefix { address: 0, len: 0 };

    /// The prefix of `len` bits that holds `address`; `None` when `len` is over 32.
    pub fn new(address: u32, len: u8) -> Option<Prefix> {
        (len <= 32).then(|| Prefix { address: address & mask(len), len })
    }

    /// The single address.
    pub fn host(address: u32) -> Prefix {
        Prefix { address, len: 32 }
    }

    /// Its number of bits, 0 to 32.
    #[allow(clippy::len_without_is_empty)] // a prefix is never empty
    pub fn len(self) -> u8 {
        self.len
    }

    /// Its bits that are looked at, set.
    pub fn mask(self) -> u32 {
        mask(self.len)
    }

    /// Its lowest address.
    pub fn low(self) -> u32 {
        self.address
    }

    /// Its highest address.
    pub fn high(self) -> u32 {
        self.address | !mask(self.len)
    }

    /// Whether it holds the address.
    pub fn contains(self, address: u32) -> bool {
        address & self.mask() == self.address
    }

    /// The prefix of `len` bits that holds this one; `None` when `len` is over this one's.
    pub fn parent(self, len: u8) -> Option<Prefix> {
        if len <= self.len { Prefix::new(self.address, len) } else { None }
    }
}

/// A mask of `len` leading bits; `len` is at most 32.
fn mask(len: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0)
}

impl fmt::Display for Prefix {
    /// `10.0.0.0/8`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.address), self.len)
    }
}

/// An inclusive range of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortRange {
    low: u16,
    high: u16,
}

impl PortRange {
    /// All ports.
    pub const ANY: PortRange = PortRange { low: 0, high: u16::MAX };
    /// The ephemeral ports, 1024 and up.
    pub const HIGH: PortRange = PortRange { low: 1024, high: u16::MAX };
    /// The system's ports, up to 1023.
    pub const LOW: PortRange = PortRange { low: 0, high: 1023 };

    /// The range; `None` when `low` is over `high`.
    pub fn new(low: u16, high: u16) -> Option<PortRange> {
        (low <= high).then_some(PortRange { low, high })
    }

    /// A single port.
    pub fn exact(port: u16) -> PortRange {
        PortRange { low: port, high: port }
    }

    /// Its lowest port.
    pub fn low(self) -> u16 {
        self.low
    }

    /// Its highest port.
    pub fn high(self) -> u16 {
        self.high
    }

    /// Whether it holds the port.
    pub fn contains(self, port: u16) -> bool {
        self.low <= port && port <= self.high
    }

    /// Its class.
    pub fn class(self) -> PortClass {
        match self {
            PortRange::ANY => PortClass::Any,
            PortRange::HIGH => PortClass::High,
            PortRange::LOW => PortClass::Low,
            PortRange { low, high } if low == high => PortClass::Exact,
            _ => PortClass::Range,
        }
    }
}

impl fmt::Display for PortRange {
    /// `80`, `80-443`, `*`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.class() {
            PortClass::Any => f.write_str("*"),
            PortClass::Exact => write!(f, "{}", self.low),
            _ => write!(f, "{}-{}", self.low, self.high),
        }
    }
}

/// The kinds of port ranges that real filter sets are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PortClass {
    /// All ports; `WC` in the literature.
    Any,
    /// 1024 and up; `HI`.
    High,
    /// Up to 1023; `LO`.
    Low,
    /// Any other range; `AR`.
    Range,
    /// One port; `EM`.
    Exact,
}

impl PortClass {
    /// All classes.
    pub const ALL: [PortClass; 5] =
        [PortClass::Any, PortClass::High, PortClass::Low, PortClass::Range, PortClass::Exact];

    /// The literature's name: `wc`, `hi`, `lo`, `ar`, `em`.
    pub fn name(self) -> &'static str {
        match self {
            PortClass::Any => "wc",
            PortClass::High => "hi",
            PortClass::Low => "lo",
            PortClass::Range => "ar",
            PortClass::Exact => "em",
        }
    }
}

/// Bits of header flags that a filter file asks for. hipac keeps them, so that a file is
/// written as it was read, and tests none: traces have no flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Flags {
    /// Bits wanted.
    pub value: u16,
    /// Bits looked at.
    pub mask: u16,
}

/// A filter: a packet is in it when each of its fields is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Filter {
    /// Source addresses.
    pub source: Prefix,
    /// Destination addresses.
    pub destination: Prefix,
    /// Source ports.
    pub source_ports: PortRange,
    /// Destination ports.
    pub destination_ports: PortRange,
    /// The protocol; `None`: all.
    pub protocol: Option<u8>,
    /// Header flags, kept but not tested.
    pub flags: Flags,
}

impl Filter {
    /// The filter that holds every packet.
    pub const ANY: Filter = Filter {
        source: Prefix::ANY,
        destination: Prefix::ANY,
        source_ports: PortRange::ANY,
        destination_ports: PortRange::ANY,
        protocol: None,
        flags: Flags { value: 0, mask: 0 },
    };

    /// Whether the packet is in it.
    pub fn contains(&self, packet: &TracePacket) -> bool {
        self.source.contains(packet.source)
            && self.destination.contains(packet.destination)
            && self.source_ports.contains(packet.source_port)
            && self.destination_ports.contains(packet.destination_port)
            && self.protocol.is_none_or(|p| p == packet.protocol)
    }

    /// Whether every packet of `other` is in it.
    pub fn holds(&self, other: &Filter) -> bool {
        let prefixes = |wide: Prefix, narrow: Prefix| wide.len <= narrow.len && wide.contains(narrow.low());
        let ports = |wide: PortRange, narrow: PortRange| wide.low <= narrow.low && narrow.high <= wide.high;
        prefixes(self.source, other.source)
            && prefixes(self.destination, other.destination)
            && ports(self.source_ports, other.source_ports)
            && ports(self.destination_ports, other.destination_ports)
            && (self.protocol.is_none() || self.protocol == other.protocol)
    }

    /// Grows strictly from a filter to any other that it holds.
    fn narrowness(&self) -> u64 {
        // A port range counts for up to 16 bits in proportion to what it leaves out. That is
        // coarse, but each term grows in the right direction, and this is all that is needed.
        let ports = |range: PortRange| u64::from(u16::MAX - (range.high - range.low));
        let prefixes = u64::from(self.source.len) + u64::from(self.destination.len);
        (prefixes << 12)
            + ports(self.source_ports)
            + ports(self.destination_ports)
            + (u64::from(self.protocol.is_some()) << 15)
    }

    /// Whether some packet is in both.
    pub fn overlaps(&self, other: &Filter) -> bool {
        let prefixes = |a: Prefix, b: Prefix| a.low() <= b.high() && b.low() <= a.high();
        let ports = |a: PortRange, b: PortRange| a.low <= b.high && b.low <= a.high;
        prefixes(self.source, other.source)
            && prefixes(self.destination, other.destination)
            && ports(self.source_ports, other.source_ports)
            && ports(self.destination_ports, other.destination_ports)
            && (self.protocol.is_none() || other.protocol.is_none() || self.protocol == other.protocol)
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {} ", self.source, self.destination, self.source_ports, self.destination_ports)?;
        match self.protocol {
            Some(protocol) => write!(f, "{protocol}"),
            None => f.write_str("*"),
        }
    }
}

/// Puts narrow filters before wide ones, so that none stands behind one that holds it. Filters
/// that look at as much keep their order.
pub(crate) fn narrow_first(filters: &mut [Filter]) {
    filters.sort_by_key(|filter| std::cmp::Reverse(filter.narrowness()));
}

/// A packet of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TracePacket {
    /// Source address.
    pub source: u32,
    /// Destination address.
    pub destination: u32,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Protocol.
    pub protocol: u8,
    /// The filter that the packet was made from, counted from 0; an earlier one may hold it as
    /// well. `None` when it was made from none.
    pub filter: Option<u32>,
}

impl From<TracePacket> for Packet {
    /// A whole packet with these fields and all others at their default. Every protocol has
    /// the two ports, as in the literature, whether it really does or not.
    fn from(packet: TracePacket) -> Packet {
        Packet {
            source: packet.source.into(),
            destination: packet.destination.into(),
            source_port: packet.source_port,
            destination_port: packet.destination_port,
            protocol: packet.protocol,
            ..Packet::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_drops_host_bits_and_knows_its_ends() {
        let prefix = Prefix::new(0x0a01_0203, 8).unwrap();
        assert_eq!(prefix.to_string(), "10.0.0.0/8");
        assert_eq!((prefix.low(), prefix.high()), (0x0a00_0000, 0x0aff_ffff));
        assert!(prefix.contains(0x0aff_ffff) && !prefix.contains(0x0b00_0000));
        assert_eq!(Prefix::new(7, 0), Some(Prefix::ANY));
        assert_eq!((Prefix::ANY.low(), Prefix::ANY.high()), (0, u32::MAX));
        assert_eq!(Prefix::new(7, 32), Some(Prefix::host(7)));
        assert_eq!(Prefix::new(0, 33), None);
    }

    #[test]
    fn port_ranges_fall_into_classes() {
        let class = |low, high| PortRange::new(low, high).unwrap().class().name();
        assert_eq!(class(0, 65535), "wc");
        assert_eq!(class(1024, 65535), "hi");
        assert_eq!(class(0, 1023), "lo");
        assert_eq!(class(0, 1024), "ar");
        assert_eq!(class(80, 80), "em");
        assert_eq!(PortRange::new(4, 3), None);
    }

    #[test]
    fn filters_overlap_when_a_packet_is_in_both() {
        let dns = Filter { destination_ports: PortRange::exact(53), protocol: Some(17), ..Filter::ANY };
        let low = Filter { destination_ports: PortRange::LOW, ..Filter::ANY };
        let tcp = Filter { protocol: Some(6), ..low };
        assert!(dns.overlaps(&low) && low.overlaps(&dns) && low.overlaps(&tcp));
        assert!(!dns.overlaps(&tcp));
        assert!(low.holds(&dns) && !dns.holds(&low) && low.holds(&low) && !tcp.holds(&low));
        assert_eq!(dns.to_string(), "0.0.0.0/0 0.0.0.0/0 * 53 17");
    }
}
