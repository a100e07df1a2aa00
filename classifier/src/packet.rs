//! A packet as rules see it: header fields and what the host knows about it.
//!
//! Plain data, so that a data plane fills in what it has and leaves the rest at its default.
//! [`Packet::from_ip_bytes`](crate::wire) reads one from raw bytes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// All fields that matches look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Packet {
    /// IPv6, else IPv4.
    pub is_v6: bool,
    /// Source address; IPv4 in the low 32 bits.
    pub source: u128,
    /// Destination address; IPv4 in the low 32 bits.
    pub destination: u128,
    /// Transport protocol (for IPv6: after the extension headers).
    pub protocol: u8,
    /// How much of the transport header is there.
    pub l4: L4,
    /// Source port; 0 when the protocol has none.
    pub source_port: u16,
    /// Destination port; for ICMP and ICMPv6 `type << 8 | code`.
    pub destination_port: u16,
    /// Byte 13 of the TCP header: FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32, ECE 64, CWR 128.
    pub tcp_flags: u8,
    /// Interface the packet came in by; empty: none.
    pub in_interface: InterfaceName,
    /// Interface the packet leaves by; empty: none.
    pub out_interface: InterfaceName,
    /// Connection state.
    pub ct_state: CtState,
    /// Source NAT applies to the connection.
    pub ct_snat: bool,
    /// Destination NAT applies to the connection.
    pub ct_dnat: bool,
    /// Packet mark.
    pub mark: u32,
    /// Connection mark.
    pub connmark: u32,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// DSCP << 2 | ECN.
    pub tos: u8,
    /// Length of the whole IP packet in bytes.
    pub length: u32,
    /// Ethernet source address.
    pub mac: Option<[u8; 6]>,
    /// Link-layer packet type.
    pub packet_type: u8,
    /// Route type of the source address (`RTN_*`).
    pub source_type: u8,
    /// Route type of the destination address (`RTN_*`).
    pub destination_type: u8,
    /// Physical input port of a bridged packet; empty: none.
    pub phys_in: InterfaceName,
    /// Physical output port of a bridged packet; empty: none.
    pub phys_out: InterfaceName,
    /// The packet is being bridged, not routed.
    pub bridged: bool,
    /// Name of the conntrack helper of the connection that this one belongs to; empty: none.
    pub helper: InterfaceName,
    /// What few rules look at.
    pub facts: Facts,
}

impl Default for Packet {
    /// An IPv4 packet of protocol 0 between zero addresses, NEW, TTL 64, 40 bytes long, with
    /// both route types UNICAST.
    fn default() -> Self {
        Packet {
            is_v6: false,
            source: 0,
            destination: 0,
            protocol: 0,
            l4: L4::Whole,
            source_port: 0,
            destination_port: 0,
            tcp_flags: 0,
            in_interface: InterfaceName::NONE,
            out_interface: InterfaceName::NONE,
            ct_state: CtState::New,
            ct_snat: false,
            ct_dnat: false,
            mark: 0,
            connmark: 0,
            ttl: 64,
            tos: 0,
            length: 40,
            mac: None,
            packet_type: 0,
            source_type: 1,
            destination_type: 1,
            phys_in: InterfaceName::NONE,
            phys_out: InterfaceName::NONE,
            bridged: false,
            helper: InterfaceName::NONE,
            facts: Facts::default(),
        }
    }
}

impl Packet {
    /// The source address in its family's type.
    pub fn source_addr(&self) -> IpAddr {
        address(self.is_v6, self.source)
    }

    /// The destination address in its family's type.
    pub fn destination_addr(&self) -> IpAddr {
        address(self.is_v6, self.destination)
    }
}

/// A number that few rules look at. Each is a dimension of its own, for images whose rules do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Fact {
    /// Number of the processor that handles the packet.
    Cpu,
    /// Realm of the route that the packet takes.
    Realm,
    /// Group of the input interface.
    InGroup,
    /// Group of the output interface.
    OutGroup,
    /// User that owns the socket which sends the packet; 2³² − 1 when there is none.
    Uid,
    /// Group that owns it; 2³² − 1 when there is none.
    Gid,
    /// 1 when a socket of this host sends the packet.
    Socket,
    /// Security parameter index of ESP, or of AH in IPv4; compression parameter index of IPComp.
    Spi,
    /// Type of a DCCP packet.
    DccpType,
    /// Maximum segment size that a TCP header offers; 65536 when it offers none.
    Mss,
    /// Security parameter index of the first AH header among the extension headers of IPv6; 0 when there is none.
    AhSpi,
    /// Identification of the first fragment header of IPv6; 0 when there is none.
    FragId,
    /// Bytes of the first AH header among the extension headers of IPv6; 0 when there is none.
    AhLength,
    /// 1 when its reserved field is not zero.
    AhReserved,
    /// What the first fragment header of IPv6 says: 8 that there is one, 4 that this is a later fragment, 2 that more
    /// follow, 1 that a reserved field is not zero.
    FragFlags,
    /// Type of the first routing header of IPv6; 256 when there is none.
    RtType,
    /// Segments left in it; 256 likewise.
    RtSegments,
    /// Its bytes; 0 likewise.
    RtLength,
    /// Bytes of the first destination options header of IPv6; 0 when there is none.
    DstLength,
    /// Bytes of the first hop-by-hop options header of IPv6; 0 likewise.
    HbhLength,
    /// Which extension headers an IPv6 packet has, in bits as the kernel's `ipv6header` numbers them: hop-by-hop 128,
    /// destination 64, routing 32, fragment 16, AH 8, then ESP 4 or none 2 or another protocol 1; 0 when they break off.
    ExtHeaders,
    /// Where a route without a mark leads back to the source, as `rpfilter` asks: 1 nowhere, 2 out by another
    /// interface, 3 out by the input interface, 4 to this host by another interface, 5 to this host by the
    /// input interface; 0 when nobody says. No dimension.
    WayBack,
    /// The socket of this host that would take the packet, as `socket` asks: 1 none, 2 one bound to an address,
    /// 3 to any, 4 and 5 the same and transparent; 0 when nobody says. No dimension.
    Receiver,
    /// IPsec that `policy` sees: 1 none, 2 the packet came out of some, 3 goes into some, 4 both; 0 when nobody
    /// says. No dimension.
    Ipsec,
    /// Whether this host has the addresses by the packet's own interfaces, as `addrtype --limit-iface-…` asks:
    /// 1, and 1 more for the source by the input interface, 2 by the output interface, 4 and 8 for the
    /// destination likewise; 0 when nobody says. No dimension.
    OwnInterfaces,
}

impl Fact {
    /// How many there are.
    pub const COUNT: usize = 25;

    /// How many, the first ones, may need more than 16 bits.
    const WIDE: usize = 12;

    /// All, by rising number.
    pub const ALL: [Fact; Fact::COUNT] = {
        use Fact::*;
        [
            Cpu,
            Realm,
            InGroup,
            OutGroup,
            Uid,
            Gid,
            Socket,
            Spi,
            DccpType,
            Mss,
            AhSpi,
            FragId,
            AhLength,
            AhReserved,
            FragFlags,
            RtType,
            RtSegments,
            RtLength,
            DstLength,
            HbhLength,
            ExtHeaders,
            WayBack,
            Receiver,
            Ipsec,
            OwnInterfaces,
        ]
    };

    /// The largest number that a packet can have.
    pub fn max(self) -> u32 {
        match self {
            Fact::Socket => 1,
            Fact::DccpType => 15,
            Fact::Mss => 0x1_0000,
            Fact::AhReserved => 1,
            Fact::FragFlags => 15,
            // A byte counts words of 4 bytes, or of 8, besides the first ones.
            Fact::AhLength => (0xff + 2) * 4,
            Fact::RtLength | Fact::DstLength | Fact::HbhLength => (0xff + 1) * 8,
            Fact::RtType | Fact::RtSegments => 0x100,
            Fact::ExtHeaders => 0xff,
            Fact::WayBack | Fact::Receiver => 5,
            Fact::Ipsec => 4,
            Fact::OwnInterfaces => 16,
            _ => u32::MAX,
        }
    }

    /// The number of a packet of which nothing else is known.
    pub fn usual(self) -> u32 {
        match self {
            Fact::Uid | Fact::Gid => u32::MAX,
            Fact::Mss | Fact::RtType | Fact::RtSegments => self.max(),
            // A protocol, and nothing before it.
            Fact::ExtHeaders => 1,
            _ => 0,
        }
    }
}

/// A packet's facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Facts {
    wide: [u32; Fact::WIDE],
    narrow: [u16; Fact::COUNT - Fact::WIDE],
}

impl Default for Facts {
    fn default() -> Facts {
        let mut facts = Facts { wide: [0; Fact::WIDE], narrow: [0; Fact::COUNT - Fact::WIDE] };
        Fact::ALL.into_iter().for_each(|fact| facts.set(fact, fact.usual()));
        facts
    }
}

impl Facts {
    /// One of them.
    #[inline]
    pub fn get(&self, fact: Fact) -> u32 {
        match (fact as usize).checked_sub(Fact::WIDE) {
            None => self.wide[fact as usize],
            Some(at) => self.narrow[at].into(),
        }
    }

    /// Sets one of them, to [`Fact::max`] at most.
    pub fn set(&mut self, fact: Fact, value: u32) {
        let value = value.min(fact.max());
        match (fact as usize).checked_sub(Fact::WIDE) {
            None => self.wide[fact as usize] = value,
            // No such fact can be more.
            Some(at) => self.narrow[at] = value as u16,
        }
    }
}

/// `value` as an address of the family.
pub fn address(is_v6: bool, value: u128) -> IpAddr {
    if is_v6 { IpAddr::V6(Ipv6Addr::from(value)) } else { IpAddr::V4(Ipv4Addr::from(value as u32)) }
}

/// How much of the transport header a packet has: decides whether port matches apply, fail, or
/// drop the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum L4 {
    /// A whole packet or first fragment with a complete transport header.
    Whole = 0,
    /// A later fragment, 16 bytes or more into the payload.
    Fragment = 1,
    /// A later fragment, 8 bytes into the payload.
    FragmentAt8 = 2,
    /// Under 4 bytes of transport header.
    Under4 = 3,
    /// 4–7 bytes: ports, no more.
    Under8 = 4,
    /// 8–11 bytes.
    Under12 = 5,
    /// 12–19 bytes: all of an SCTP header, not of a TCP one.
    Under20 = 6,
}

impl L4 {
    /// All states, by rising number.
    pub const ALL: [L4; 7] =
        [L4::Whole, L4::Fragment, L4::FragmentAt8, L4::Under4, L4::Under8, L4::Under12, L4::Under20];

    /// The states in which no match can drop the packet for want of its header.
    pub fn is_sound(self) -> bool {
        self <= L4::Fragment
    }
}

/// Connection state of a packet. A packet has exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum CtState {
    /// Belongs to no connection and cannot begin one.
    Invalid = 0,
    /// Begins a connection.
    New = 1,
    /// Begins one that another expects.
    Related = 2,
    /// Belongs to a connection that has seen both directions.
    Established = 3,
    /// Exempt from tracking.
    Untracked = 4,
}

impl CtState {
    /// All states, by rising number.
    pub const ALL: [CtState; 5] =
        [CtState::Invalid, CtState::New, CtState::Related, CtState::Established, CtState::Untracked];
}

/// An interface name of at most 15 bytes, as the kernel keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InterfaceName([u8; 16]);

impl InterfaceName {
    /// No interface.
    pub const NONE: InterfaceName = InterfaceName([0; 16]);

    /// A name; `None` when it is longer than 15 bytes or holds a NUL.
    pub fn new(name: &str) -> Option<InterfaceName> {
        let bytes = name.as_bytes();
        if bytes.len() > 15 || bytes.contains(&0) {
            return None;
        }
        let mut array = [0; 16];
        array[..bytes.len()].copy_from_slice(bytes);
        Some(InterfaceName(array))
    }

    /// The name's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        let len = self.0.iter().position(|&b| b == 0).unwrap_or(16);
        &self.0[..len]
    }

    /// The name as a number that sorts as its bytes do.
    pub fn as_number(&self) -> u128 {
        u128::from_be_bytes(self.0)
    }

    /// No interface.
    pub fn is_none(&self) -> bool {
        self.0[0] == 0
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.as_bytes()))
    }
}

impl fmt::Debug for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self.as_bytes()))
    }
}
