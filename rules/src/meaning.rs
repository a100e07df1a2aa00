//! What a match or a target means, in terms of packet fields: the interface between the
//! language and everything that evaluates it.
//!
//! A rule holds for a packet when its IP part holds and then each of its matches, in order.
//! A match is a [`MatchMeaning`]: first its need of a transport header, then all of its
//! clauses (each a disjunction of [`Test`]s on one [`Field`]), then its residual part, which
//! no field decides (`limit`, `recent`, `string`, …).
//!
//! The registry *declares* meanings; the compiler turns them into interval sets and the
//! verifier's oracle evaluates them on a packet, each with code of its own.

use std::sync::Arc;

use crate::ipset::Membership;
use crate::model::{Family, FragmentTest, IpPart, Name};

/// A field of a packet, or of what the kernel knows about it, that a test can look at.
///
/// Every field's value fits a `u128`; the comment gives its encoding. A packet that lacks the
/// field has the value stated there, so that a test on it is always decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Field {
    /// Source address: IPv4 in the low 32 bits, IPv6 all 128.
    Source,
    /// Destination address, encoded like [`Field::Source`].
    Destination,
    /// Input interface; tested by [`ValueSet::Interface`], empty name when there is none.
    InInterface,
    /// Output interface; tested by [`ValueSet::Interface`], empty name when there is none.
    OutInterface,
    /// Transport protocol number (for IPv6: after the extension headers).
    Protocol,
    /// State of the transport header: see [`L4Need`] for the values.
    L4,
    /// Source port, 0 when the protocol has none.
    SourcePort,
    /// Destination port; for ICMP and ICMPv6 `type << 8 | code`.
    DestinationPort,
    /// Byte 13 of the TCP header: FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32, ECE 64, CWR 128.
    TcpFlags,
    /// Connection state: INVALID 0, NEW 1, RELATED 2, ESTABLISHED 3, UNTRACKED 4 in the low
    /// three bits; 8 is set when source NAT applies to the connection, 16 for destination NAT.
    CtState,
    /// Packet mark (`skb->mark`).
    Mark,
    /// Connection mark, 0 without a connection.
    ConnMark,
    /// IPv4 time to live, IPv6 hop limit.
    Ttl,
    /// Length of the whole IP packet in bytes.
    Length,
    /// IPv4 type of service or IPv6 traffic class: DSCP << 2 | ECN.
    Tos,
    /// Ethernet source address with bit 48 set; 0 when the packet has no Ethernet header.
    Mac,
    /// Link-layer packet type: unicast (host) 0, broadcast 1, multicast 2, otherhost 3 ….
    PacketType,
    /// Route type of the source address (`RTN_*`: UNSPEC 0, UNICAST 1, LOCAL 2, …).
    SourceType,
    /// Route type of the destination address.
    DestinationType,
    /// Physical input port of a bridged packet, empty name when there is none.
    PhysIn,
    /// Physical output port of a bridged packet, empty name when there is none.
    PhysOut,
    /// 1 when the packet is being bridged and not routed.
    Bridged,
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
    /// Which extension headers an IPv6 packet has: hop-by-hop 128, destination 64, routing 32, fragment 16, AH 8, then
    /// ESP 4 or none 2 or another protocol 1; 0 when they break off.
    ExtHeaders,
    /// Where a route leads back to the source: 1 nowhere, 2 out by another interface, 3 out by the input interface,
    /// 4 to this host by another interface, 5 to this host by the input interface; 0 when nobody says. Nothing
    /// tests it: `rpfilter` asks for it, so that what is not known stays so.
    WayBack,
    /// The socket of this host that would take the packet: 1 none, 2 one bound to an address, 3 to any, 4 and 5 the
    /// same and transparent; 0 when nobody says. Nothing tests it: `socket` asks for it.
    Receiver,
    /// IPsec: 1 none, 2 the packet came out of some, 3 goes into some, 4 both; 0 when nobody says. Nothing tests it:
    /// `policy` asks for it.
    Ipsec,
    /// Whether this host has the addresses by the packet's own interfaces: 1, and 1 more for the source by the input
    /// interface, 2 by the output interface, 4 and 8 for the destination likewise; 0 when nobody says. Nothing tests
    /// it: `addrtype --limit-iface-…` asks for it.
    OwnInterfaces,
    /// Name of the conntrack helper of the connection that this one belongs to, empty when there is none; tested by
    /// [`ValueSet::Interface`], whose names are of the same form.
    Helper,
    /// All of the packet that IP sets look at; tested by [`ValueSet::Member`] alone.
    Membership,
}

impl Field {
    /// A short name for people.
    pub fn name(self) -> &'static str {
        match self {
            Field::Source => "source",
            Field::Destination => "destination",
            Field::InInterface => "in-interface",
            Field::OutInterface => "out-interface",
            Field::Protocol => "protocol",
            Field::L4 => "fragment",
            Field::SourcePort => "source port",
            Field::DestinationPort => "destination port",
            Field::TcpFlags => "tcp flags",
            Field::CtState => "conntrack state",
            Field::Mark => "mark",
            Field::ConnMark => "connmark",
            Field::Ttl => "ttl",
            Field::Length => "length",
            Field::Tos => "tos",
            Field::Mac => "mac",
            Field::PacketType => "packet type",
            Field::SourceType => "source type",
            Field::DestinationType => "destination type",
            Field::PhysIn => "physdev-in",
            Field::PhysOut => "physdev-out",
            Field::Bridged => "bridged",
            Field::Cpu => "cpu",
            Field::Realm => "realm",
            Field::InGroup => "in-group",
            Field::OutGroup => "out-group",
            Field::Uid => "uid",
            Field::Gid => "gid",
            Field::Socket => "socket",
            Field::Spi => "spi",
            Field::DccpType => "dccp-type",
            Field::Mss => "mss",
            Field::AhSpi => "ah-spi",
            Field::FragId => "frag-id",
            Field::AhLength => "ah-length",
            Field::AhReserved => "ah-reserved",
            Field::FragFlags => "frag-flags",
            Field::RtType => "rt-type",
            Field::RtSegments => "rt-segments",
            Field::RtLength => "rt-length",
            Field::DstLength => "dst-length",
            Field::HbhLength => "hbh-length",
            Field::ExtHeaders => "extension headers",
            Field::WayBack => "way back",
            Field::Receiver => "receiver",
            Field::Ipsec => "ipsec",
            Field::OwnInterfaces => "own interfaces",
            Field::Helper => "helper",
            Field::Membership => "set",
        }
    }
}

/// The set of values of a field for which a test holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ValueSet {
    /// Inclusive ranges in rising order, disjoint; empty: no value.
    Ranges(Vec<(u128, u128)>),
    /// Values `x` with `x & mask == value`.
    Masked {
        /// Wanted bits; a bit outside of `mask` makes the set empty.
        value: u128,
        /// Bits looked at.
        mask: u128,
    },
    /// Interface names: equal to, or beginning with, `name`.
    Interface {
        /// The name without its `+`.
        name: Name,
        /// A trailing `+` was given: every name that begins with `name`.
        prefix: bool,
    },
    /// Packets that are in an IP set.
    Member(Arc<Membership>),
}

/// One test of one field.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Test {
    /// The field looked at.
    pub field: Field,
    /// The test holds for the complement of `set`.
    pub negated: bool,
    /// The values.
    pub set: ValueSet,
}

/// Alternatives: a clause holds when one of its tests does. Nearly always one test; `multiport
/// --ports` (source or destination) has two.
pub type Clause = Vec<Test>;

/// What a match wants of the transport header before it looks at a field.
///
/// [`Field::L4`] holds, for each packet, one of
///
/// | value | the packet |
/// |---|---|
/// | 0 | is whole or a first fragment, with a complete header |
/// | 1 | is a later fragment, at an offset of 16 bytes or more |
/// | 2 | is a later fragment at an offset of 8 bytes |
/// | 3 | has under 4 bytes of its transport header |
/// | 4 | has 4–7 bytes |
/// | 5 | has 8–11 bytes |
/// | 6 | has 12–19 bytes |
///
/// (A packet has value 0 when its header is complete for its protocol, or has 20 bytes or more.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct L4Need {
    /// Bytes of transport header that the match reads; 0 when it reads none. A later fragment
    /// does not match; a first one with fewer bytes is dropped at once ("hotdrop"): no further
    /// rule is looked at and no counter moves.
    pub bytes: u8,
    /// A later fragment at offset 8 is dropped at once as well (the `tcp` match, in IPv4).
    pub drops_fragment_at_8: bool,
}

/// What a residual match depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Residual {
    /// A function of the packet and of what the host knows; evaluating it changes nothing.
    Pure,
    /// Evaluating it counts, records or draws: it must happen exactly when the kernel would.
    Stateful,
    /// An extension that the registry does not know: treated as [`Residual::Stateful`], and
    /// answers that hang on it say so.
    Unknown,
}

/// What one match of a rule means. The parts are looked at in the order of the fields.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct MatchMeaning {
    /// Transport header wanted.
    pub l4: L4Need,
    /// All of these hold; in the order written.
    pub clauses: Vec<Clause>,
    /// Then this, which no field decides.
    pub residual: Option<Residual>,
}

/// A change that a target makes to what later rules look at. Those of the connection mark do
/// nothing when the packet has no connection (INVALID, UNTRACKED).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Nothing that a rule can see (LOG, NFLOG, no target at all, an unknown target …).
    None,
    /// `mark = (mark & !clear) ^ flip`.
    Mark {
        /// Bits set to zero first.
        clear: u32,
        /// Bits then inverted.
        flip: u32,
    },
    /// `connmark = (connmark & !clear) ^ flip`.
    ConnMark {
        /// Bits set to zero first.
        clear: u32,
        /// Bits then inverted.
        flip: u32,
    },
    /// `connmark = (connmark & !ctmask) ^ (mark & nfmask)`.
    SaveMark {
        /// Bits of the connection mark replaced.
        ctmask: u32,
        /// Bits of the packet mark taken.
        nfmask: u32,
    },
    /// `mark = (mark & !nfmask) ^ (connmark & ctmask)`.
    RestoreMark {
        /// Bits of the connection mark taken.
        ctmask: u32,
        /// Bits of the packet mark replaced.
        nfmask: u32,
    },
    /// `tos = (tos & !clear) ^ flip`, on the type of service or traffic class.
    Tos {
        /// Bits set to zero first.
        clear: u8,
        /// Bits then inverted.
        flip: u8,
    },
    /// Set the TTL or hop limit.
    TtlSet(u8),
    /// Raise it, to 255 at most.
    TtlAdd(u8),
    /// Lower it, to 0 at least.
    TtlSub(u8),
    /// The packet becomes UNTRACKED.
    Untrack,
}

/// What a target does to the evaluation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TargetMeaning {
    /// Ends it. The verdict's name is the target's (`ACCEPT`, `DROP`, `REJECT`, `DNAT`, …).
    Verdict(&'static str),
    /// Goes on with the next rule.
    Continue(Effect),
    /// Goes back to the caller, or to the policy of a built-in chain.
    Return,
}

impl L4Need {
    /// States of the transport header, a bit each: those in which the match drops the packet, and those in
    /// which it looks on. In the others it does not match.
    pub fn states(self) -> (u8, u8) {
        let there = [u8::MAX, 0, 0, 0, 4, 8, 12]; // bytes, by state; later fragments have none
        let cut: u8 = (3..7).filter(|&state| there[state] < self.bytes).map(|state| 1 << state).sum();
        let later = if self.bytes == 0 { 0b110 } else { 0 };
        let drops = cut | if self.drops_fragment_at_8 { 0b100 } else { 0 };
        (drops, (0b111_1001 | later) & !drops)
    }
}

impl IpPart {
    /// What it means: all of these hold.
    pub fn tests(&self, family: Family) -> Vec<Test> {
        let mut tests = Vec::new();
        for (field, test) in [(Field::Source, &self.source), (Field::Destination, &self.destination)] {
            if test.mask != 0 || test.negated {
                let mask = test.mask & family.full_mask();
                let set = ValueSet::Masked { value: test.address & mask, mask };
                tests.push(Test { field, negated: test.negated, set });
            }
        }
        let interfaces =
            [(Field::InInterface, &self.in_interface), (Field::OutInterface, &self.out_interface)];
        for (field, test) in interfaces {
            if let Some(name) = &test.name {
                let set = ValueSet::Interface { name: name.clone(), prefix: test.prefix };
                tests.push(Test { field, negated: test.negated, set });
            }
        }
        if self.protocol.number != 0 {
            let number = self.protocol.number.into();
            let set = ValueSet::Ranges(vec![(number, number)]);
            tests.push(Test { field: Field::Protocol, negated: self.protocol.negated, set });
        }
        if self.fragment != FragmentTest::Any {
            let negated = self.fragment == FragmentTest::NotLater;
            tests.push(Test { field: Field::L4, negated, set: ValueSet::Ranges(vec![(1, 2)]) });
        }
        tests
    }
}
