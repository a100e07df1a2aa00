//! Dimensions: the axes of the space that rules are boxes in.
//!
//! A dimension is an unsigned number of at most 32 bits; a packet's [`Header`] is its point.
//! What is longer than 32 bits takes several dimensions (an IPv6 address four, a MAC two), what
//! is a name is ranked first (see [`Ranks`]), so that every test of a rule becomes an interval
//! or a small set of them on each axis.

use crate::packet::{Fact, InterfaceName, Packet};

/// An axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Dim {
    /// Source address, bits 0–31: all of an IPv4 address.
    Source0,
    /// Source address, bits 32–63.
    Source1,
    /// Source address, bits 64–95.
    Source2,
    /// Source address, bits 96–127.
    Source3,
    /// Destination address, bits 0–31: all of an IPv4 address.
    Destination0,
    /// Destination address, bits 32–63.
    Destination1,
    /// Destination address, bits 64–95.
    Destination2,
    /// Destination address, bits 96–127.
    Destination3,
    /// Source port.
    SourcePort,
    /// Destination port, or ICMP `type << 8 | code`: a rule on either pins the protocol.
    DestinationPort,
    /// Transport protocol.
    Protocol,
    /// State of the transport header, [`L4`](crate::L4).
    L4,
    /// Rank of the input interface.
    InInterface,
    /// Rank of the output interface.
    OutInterface,
    /// TCP flags.
    TcpFlags,
    /// Connection state, 8 for source NAT, 16 for destination NAT.
    CtState,
    /// Packet mark.
    Mark,
    /// Connection mark.
    ConnMark,
    /// TTL or hop limit.
    Ttl,
    /// Packet length.
    Length,
    /// Type of service or traffic class.
    Tos,
    /// Upper 24 bits of the MAC, 2^24 set when there is one.
    MacHigh,
    /// Lower 24 bits of the MAC.
    MacLow,
    /// Link-layer packet type.
    PacketType,
    /// Route type of the source.
    SourceType,
    /// Route type of the destination.
    DestinationType,
    /// Rank of the bridge's input port.
    PhysIn,
    /// Rank of the bridge's output port.
    PhysOut,
    /// Bridged or routed.
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
    /// Which of up to eight uses of IP sets the packet is in, a bit each: see [`crate::sets`].
    Set0,
    /// The same for others.
    Set1,
    /// The same for others.
    Set2,
    /// The same for others.
    Set3,
    /// The same for others.
    Set4,
    /// The same for others.
    Set5,
    /// The same for others.
    Set6,
    /// The same for others.
    Set7,
    /// The same for others.
    Set8,
    /// The same for others.
    Set9,
    /// The same for others.
    Set10,
    /// The same for others.
    Set11,
    /// The same for others.
    Set12,
    /// The same for others.
    Set13,
    /// The same for others.
    Set14,
    /// The same for others.
    Set15,
    /// Security parameter index of the first AH header among the extension headers of IPv6; 0 when there is none.
    AhSpi,
    /// Identification of the first fragment header of IPv6; 0 when there is none.
    FragId,
    /// Bytes of the first AH header among the extension headers of IPv6; 0 when there is none.
    AhLength,
    /// 1 when its reserved field is not zero.
    AhReserved,
    /// What the first fragment header of IPv6 says, see [`Fact::FragFlags`].
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
    /// Which extension headers an IPv6 packet has, see [`Fact::ExtHeaders`].
    ExtHeaders,
    /// Rank of the name of the connection's helper.
    Helper,
}

impl Dim {
    /// How many there are.
    pub const COUNT: usize = 67;

    /// How many hold bits of IP sets.
    pub const SETS: usize = 16;

    /// All, by rising number.
    pub const ALL: [Dim; Dim::COUNT] = {
        use Dim::*;
        [
            Source0,
            Source1,
            Source2,
            Source3,
            Destination0,
            Destination1,
            Destination2,
            Destination3,
            SourcePort,
            DestinationPort,
            Protocol,
            L4,
            InInterface,
            OutInterface,
            TcpFlags,
            CtState,
            Mark,
            ConnMark,
            Ttl,
            Length,
            Tos,
            MacHigh,
            MacLow,
            PacketType,
            SourceType,
            DestinationType,
            PhysIn,
            PhysOut,
            Bridged,
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
            Set0,
            Set1,
            Set2,
            Set3,
            Set4,
            Set5,
            Set6,
            Set7,
            Set8,
            Set9,
            Set10,
            Set11,
            Set12,
            Set13,
            Set14,
            Set15,
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
            Helper,
        ]
    };

    /// The dimension of that number.
    pub fn from_number(number: u8) -> Option<Dim> {
        Dim::ALL.get(usize::from(number)).copied()
    }

    /// Its number.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// Its index into a [`Header`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// The largest value on this axis.
    pub fn max(self) -> u32 {
        use Dim::*;
        match self {
            Source0 | Source1 | Source2 | Source3 | Destination0 | Destination1 | Destination2
            | Destination3 | Mark | ConnMark | Length => u32::MAX,
            SourcePort | DestinationPort | InInterface | OutInterface | PhysIn | PhysOut | Helper => 0xffff,
            Protocol | TcpFlags | Ttl | Tos | PacketType | SourceType | DestinationType => 0xff,
            MacHigh => (1 << 25) - 1,
            MacLow => (1 << 24) - 1,
            L4 => 6,
            CtState => 31,
            Bridged | Socket => 1,
            DccpType => 15,
            Mss => 0x1_ffff,
            Cpu | Realm | InGroup | OutGroup | Uid | Gid | Spi | AhSpi | FragId => u32::MAX,
            AhReserved => 1,
            FragFlags => 15,
            AhLength => 0x7ff,
            RtType | RtSegments => 0x1ff,
            RtLength | DstLength | HbhLength => 0xfff,
            ExtHeaders => 0xff,
            _ => 0xff,
        }
    }

    /// The fact that it holds.
    #[inline]
    pub fn fact(self) -> Option<Fact> {
        // Two runs of them, with the dimensions of IP sets between.
        let at = self.index();
        let of = |first: Dim| at.checked_sub(first.index());
        match of(Dim::AhSpi) {
            Some(_) if self == Dim::Helper => None,
            Some(i) => Fact::ALL.get(Dim::Set0.index() - Dim::Cpu.index() + i).copied(),
            None if self.is_set() => None,
            None => Fact::ALL.get(of(Dim::Cpu)?).copied(),
        }
    }

    /// It holds bits of IP sets.
    pub fn is_set(self) -> bool {
        self.index().checked_sub(Dim::Set0.index()).is_some_and(|i| i < Dim::SETS)
    }

    /// The dimension of that number of those that hold bits of IP sets.
    pub fn of_sets(index: usize) -> Option<Dim> {
        Dim::ALL[Dim::Set0.index()..][..Dim::SETS].get(index).copied()
    }

    /// Bytes it takes in a [`Key`](crate::key::Key): 2 or 4.
    pub fn key_bytes(self) -> usize {
        if self.max() > 0xffff { 4 } else { 2 }
    }

    /// At most 256 values, so that an image may give each a class of its own choosing.
    pub fn is_small(self) -> bool {
        self.max() <= 0xff
    }

    /// A short name for people.
    pub fn name(self) -> &'static str {
        use Dim::*;
        match self {
            Source0 => "source",
            Source1 => "source[1]",
            Source2 => "source[2]",
            Source3 => "source[3]",
            Destination0 => "destination",
            Destination1 => "destination[1]",
            Destination2 => "destination[2]",
            Destination3 => "destination[3]",
            SourcePort => "source port",
            DestinationPort => "destination port",
            Protocol => "protocol",
            L4 => "fragment",
            InInterface => "in-interface",
            OutInterface => "out-interface",
            TcpFlags => "tcp flags",
            CtState => "conntrack state",
            Mark => "mark",
            ConnMark => "connmark",
            Ttl => "ttl",
            Length => "length",
            Tos => "tos",
            MacHigh => "mac",
            MacLow => "mac[1]",
            PacketType => "packet type",
            SourceType => "source type",
            DestinationType => "destination type",
            PhysIn => "physdev-in",
            PhysOut => "physdev-out",
            Bridged => "bridged",
            Cpu => "cpu",
            Realm => "realm",
            InGroup => "in-group",
            OutGroup => "out-group",
            Uid => "uid",
            Gid => "gid",
            Socket => "socket",
            Spi => "spi",
            DccpType => "dccp-type",
            Mss => "mss",
            Set0 => "set",
            Set1 => "set[1]",
            Set2 => "set[2]",
            Set3 => "set[3]",
            Set4 => "set[4]",
            Set5 => "set[5]",
            Set6 => "set[6]",
            Set7 => "set[7]",
            Set8 => "set[8]",
            Set9 => "set[9]",
            Set10 => "set[10]",
            Set11 => "set[11]",
            Set12 => "set[12]",
            Set13 => "set[13]",
            Set14 => "set[14]",
            Set15 => "set[15]",
            AhSpi => "ah-spi",
            FragId => "frag-id",
            AhLength => "ah-length",
            AhReserved => "ah-reserved",
            FragFlags => "frag-flags",
            RtType => "rt-type",
            RtSegments => "rt-segments",
            RtLength => "rt-length",
            DstLength => "dst-length",
            HbhLength => "hbh-length",
            ExtHeaders => "extension headers",
            Helper => "helper",
        }
    }
}

/// A packet's point: one value per dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header(pub [u32; Dim::COUNT]);

impl Header {
    /// The value on one axis.
    #[inline]
    pub fn get(&self, dim: Dim) -> u32 {
        self.0[dim.index()]
    }
}

/// Ranks of interface names: where a name stands among the bounds that rules set.
///
/// A name is a 16-byte number (zero-padded, big-endian), so `eth0` is the interval
/// `[n, n]` and `eth+` is `[n, n | low bytes all ones]`. The bounds of all such intervals are
/// kept in rising order; the rank of a name is how many of them are at or below it. Names that
/// no rule knows fall in between, exactly.
#[derive(Debug, Clone, Copy)]
pub struct Ranks<'a> {
    /// Bounds, 16 bytes each, big-endian, rising.
    bytes: &'a [u8],
}

impl<'a> Ranks<'a> {
    /// Views `bytes` (a multiple of 16) as bounds.
    pub fn new(bytes: &'a [u8]) -> Ranks<'a> {
        Ranks { bytes }
    }

    /// How many bounds there are.
    pub fn count(&self) -> usize {
        self.bytes.len() / 16
    }

    /// The bound at `index`.
    pub fn bound(&self, index: usize) -> u128 {
        let mut array = [0; 16];
        array.copy_from_slice(&self.bytes[index * 16..index * 16 + 16]);
        u128::from_be_bytes(array)
    }

    /// The rank of a name. Costs a binary search.
    pub fn rank(&self, name: InterfaceName) -> u32 {
        let wanted = name.as_number();
        let (mut low, mut high) = (0, self.count());
        while low < high {
            let middle = (low + high) / 2;
            if self.bound(middle) <= wanted { low = middle + 1 } else { high = middle }
        }
        low as u32
    }
}

/// The value of `packet` on `dim`. Interface names are ranked by `ranks`.
pub fn value_of(packet: &Packet, dim: Dim, ranks: Ranks<'_>) -> u32 {
    use Dim::*;
    match dim {
        Source0 => packet.source as u32,
        Source1 => (packet.source >> 32) as u32,
        Source2 => (packet.source >> 64) as u32,
        Source3 => (packet.source >> 96) as u32,
        Destination0 => packet.destination as u32,
        Destination1 => (packet.destination >> 32) as u32,
        Destination2 => (packet.destination >> 64) as u32,
        Destination3 => (packet.destination >> 96) as u32,
        SourcePort => packet.source_port.into(),
        DestinationPort => packet.destination_port.into(),
        Protocol => packet.protocol.into(),
        L4 => packet.l4 as u32,
        InInterface => ranks.rank(packet.in_interface),
        OutInterface => ranks.rank(packet.out_interface),
        TcpFlags => packet.tcp_flags.into(),
        CtState => {
            packet.ct_state as u32 | if packet.ct_snat { 8 } else { 0 } | if packet.ct_dnat { 16 } else { 0 }
        }
        Mark => packet.mark,
        ConnMark => packet.connmark,
        Ttl => packet.ttl.into(),
        Length => packet.length,
        Tos => packet.tos.into(),
        MacHigh => {
            packet.mac.map_or(0, |m| 1 << 24 | u32::from(m[0]) << 16 | u32::from(m[1]) << 8 | u32::from(m[2]))
        }
        MacLow => packet.mac.map_or(0, |m| u32::from(m[3]) << 16 | u32::from(m[4]) << 8 | u32::from(m[5])),
        PacketType => packet.packet_type.into(),
        SourceType => packet.source_type.into(),
        DestinationType => packet.destination_type.into(),
        PhysIn => ranks.rank(packet.phys_in),
        PhysOut => ranks.rank(packet.phys_out),
        Bridged => packet.bridged.into(),
        Helper => ranks.rank(packet.helper),
        // Only an image knows its sets: see `KeyMaker::raw`.
        _ => dim.fact().map_or(0, |fact| packet.facts.get(fact)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_dimensions_agree() {
        for (i, dim) in Dim::ALL.into_iter().enumerate() {
            assert_eq!(dim.index(), i);
            assert_eq!(Dim::from_number(dim.number()), Some(dim));
        }
        assert_eq!(Dim::from_number(Dim::COUNT as u8), None);
        for fact in Fact::ALL {
            let dims: Vec<Dim> = Dim::ALL.into_iter().filter(|d| d.fact() == Some(fact)).collect();
            if matches!(fact, Fact::WayBack | Fact::Receiver | Fact::Ipsec | Fact::OwnInterfaces) {
                assert_eq!(dims, []);
                continue;
            }
            assert_eq!(dims.len(), 1, "{fact:?}");
            assert_eq!(format!("{:?}", dims[0]), format!("{fact:?}"));
            assert!(fact.max() <= dims[0].max() && fact.usual() <= fact.max());
        }
    }

    #[test]
    fn unknown_names_rank_between_known_ones() {
        // `eth0` alone and `eth+`: bounds eth, eth0, eth0+1, eth+ end.
        let n = |s: &str| InterfaceName::new(s).unwrap().as_number();
        let last = n("eth") | (u128::MAX >> 24);
        let bounds = [n("eth"), n("eth0"), n("eth0") + 1, last + 1];
        let bytes: Vec<u8> = bounds.iter().flat_map(|b| b.to_be_bytes()).collect();
        let ranks = Ranks::new(&bytes);
        let rank = |s: &str| ranks.rank(InterfaceName::new(s).unwrap());
        assert_eq!(
            ["", "dummy", "et", "eth", "eth/", "eth0", "eth00", "eth1", "eti", "lo"].map(rank),
            [0, 0, 0, 1, 1, 2, 3, 3, 4, 4]
        );
    }
}
