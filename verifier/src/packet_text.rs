//! A packet as text, in the flags that `iptables` uses for what it tests.
//!
//! ```text
//!   -i eth0 -s 10.1.2.3 -d 192.0.2.7 -p tcp --sport 40000 --dport 22 --tcp-flags SYN --ctstate NEW
//! ```
//!
//! Each flag *sets* a field; what is not named has its default, and printing names only what differs from it.
//! So the text of a packet is as short as the packet is simple, and [`parse`]`(`[`show`]`(p))` is `p`. The
//! family is not in the text: a packet is always asked about in view of a ruleset, which has one.
//!
//! | flag | value |
//! |---|---|
//! | `-i` `-o` `--physdev-in` `--physdev-out` | interface name, quoted with `"` when it holds blanks |
//! | `-s` `-d` | address |
//! | `-p` | protocol, by name or number |
//! | `--sport` `--dport` | port |
//! | `--icmp-type` | `TYPE` or `TYPE/CODE`, numbers; after `-p icmp` or `-p icmpv6` |
//! | `--tcp-flags` | the flags set, like `SYN,ACK`; `NONE`, `ALL` |
//! | `--ctstate` | the state, and `SNAT`, `DNAT`: `ESTABLISHED,DNAT` |
//! | `--mark` `--connmark` `--tos` | number, `0x` for hexadecimal |
//! | `--ttl` (`--hl`) `--length` | number |
//! | `--mac` | Ethernet source, `00:11:22:33:44:55` |
//! | `--pkt-type` | `unicast`, `broadcast`, `multicast`, `otherhost`, or a number |
//! | `--src-type` `--dst-type` | route type, `LOCAL` or a number |
//! | `--l4` | `whole`, `fragment`, `fragment8`, `under4`, `under8`, `under12`, `under20` |
//! | `-f` `--bridged` `--socket` | none: a later fragment; bridged, not routed; a socket of this host sends it |
//! | `--cpu` `--realm` `--src-group` `--dst-group` `--uid-owner` `--gid-owner` | number |
//! | `--spi` `--dccp-type` `--mss` | number |
//! | `--helper` | name of the conntrack helper of the connection that this one belongs to |
//! | `--ahspi` `--ahlen`, `--fragid`, `--rt-type` `--rt-segsleft` `--rt-len`, `--dst-len`, `--hbh-len` | number: of the first such extension header of IPv6 |
//! | `--ah-reserved` | none: a reserved field of it is not zero |
//! | `--frag-flags` | of its fragment header: 8 that there is one, 4 later fragment, 2 more follow, 1 reserved bits |
//! | `--way-back` | where a route leads back to the source, for `rpfilter`: `none`, `other` or `same` interface, `local` (to this host), `local-same` |
//! | `--receiver` | the socket that would take it, for `socket`: `none`, `bound`, `any`, `transparent`, `transparent-any` |
//! | `--ipsec` | for `policy`: `none`, or the packet came out of some (`in`), goes into some (`out`), `both` |
//! | `--own-interfaces` | for `addrtype --limit-iface-…`: 1, and 1 more when this host has the source by the input interface, 2 by the output interface, 4 and 8 for the destination |
//! | `--ext-headers` | which there are: hop-by-hop 128, destination 64, routing 32, fragment 16, AH 8, ESP 4, none 2, other 1 |

mod read;
mod words;

use std::fmt;

use hipac_classifier::{CtState, L4, Packet};
use hipac_rules::{Family, Field, names};

pub use read::{PacketTextError, parse};

use crate::fields;

/// Names for the numbers of a field: the first name of a number is the one printed.
pub(crate) type Names = [(&'static str, u8)];

pub(crate) const TCP_FLAGS: &Names = &[
    ("FIN", 1),
    ("SYN", 2),
    ("RST", 4),
    ("PSH", 8),
    ("ACK", 16),
    ("URG", 32),
    ("ECE", 64),
    ("CWR", 128),
    ("NONE", 0),
    ("ALL", 63), // as in iptables: the six of RFC 793
];
pub(crate) const CT_STATES: &Names = &[
    ("INVALID", CtState::Invalid as u8),
    ("NEW", CtState::New as u8),
    ("RELATED", CtState::Related as u8),
    ("ESTABLISHED", CtState::Established as u8),
    ("UNTRACKED", CtState::Untracked as u8),
];
pub(crate) const PACKET_TYPES: &Names =
    &[("unicast", 0), ("host", 0), ("broadcast", 1), ("multicast", 2), ("otherhost", 3)];
pub(crate) const ROUTE_TYPES: &Names = &[
    ("UNSPEC", 0),
    ("UNICAST", 1),
    ("LOCAL", 2),
    ("BROADCAST", 3),
    ("ANYCAST", 4),
    ("MULTICAST", 5),
    ("BLACKHOLE", 6),
    ("UNREACHABLE", 7),
    ("PROHIBIT", 8),
    ("THROW", 9),
    ("NAT", 10),
    ("XRESOLVE", 11),
];
pub(crate) const L4_STATES: &Names = &[
    ("whole", L4::Whole as u8),
    ("fragment", L4::Fragment as u8),
    ("fragment8", L4::FragmentAt8 as u8),
    ("under4", L4::Under4 as u8),
    ("under8", L4::Under8 as u8),
    ("under12", L4::Under12 as u8),
    ("under20", L4::Under20 as u8),
];

pub(crate) const WAYS_BACK: &Names =
    &[("unknown", 0), ("none", 1), ("other", 2), ("same", 3), ("local", 4), ("local-same", 5)];
pub(crate) const IPSEC: &Names = &[("unknown", 0), ("none", 1), ("in", 2), ("out", 3), ("both", 4)];
pub(crate) const RECEIVERS: &Names =
    &[("unknown", 0), ("none", 1), ("bound", 2), ("any", 3), ("transparent", 4), ("transparent-any", 5)];

/// The fields in the order in which they are printed.
const ORDER: [Field; 48] = [
    Field::InInterface,
    Field::OutInterface,
    Field::Source,
    Field::Destination,
    Field::Protocol,
    Field::SourcePort,
    Field::DestinationPort,
    Field::TcpFlags,
    Field::L4,
    Field::CtState,
    Field::Mark,
    Field::ConnMark,
    Field::Ttl,
    Field::Tos,
    Field::Length,
    Field::Mac,
    Field::PacketType,
    Field::SourceType,
    Field::DestinationType,
    Field::PhysIn,
    Field::PhysOut,
    Field::Bridged,
    Field::Cpu,
    Field::Realm,
    Field::InGroup,
    Field::OutGroup,
    Field::Uid,
    Field::Gid,
    Field::Socket,
    Field::Spi,
    Field::DccpType,
    Field::Mss,
    Field::Helper,
    Field::AhSpi,
    Field::FragId,
    Field::AhLength,
    Field::AhReserved,
    Field::FragFlags,
    Field::RtType,
    Field::RtSegments,
    Field::RtLength,
    Field::DstLength,
    Field::HbhLength,
    Field::ExtHeaders,
    Field::WayBack,
    Field::Receiver,
    Field::Ipsec,
    Field::OwnInterfaces,
];
const _: () = assert!(ORDER.len() == fields::NUMBERS.len() + fields::INTERFACES.len());

/// Displays a packet as flags; an empty text for the default packet of its family.
pub fn show(packet: &Packet) -> impl fmt::Display + '_ {
    fmt::from_fn(move |f| {
        let family = if packet.is_v6 { Family::V6 } else { Family::V4 };
        let default = fields::default_packet(family);
        let mut space = "";
        for field in ORDER {
            if fields::read(packet, field) != fields::read(&default, field) {
                write!(f, "{space}")?;
                write_field(f, packet, field)?;
                space = " ";
            }
        }
        Ok(())
    })
}

fn write_field(f: &mut fmt::Formatter<'_>, packet: &Packet, field: Field) -> fmt::Result {
    let p = packet;
    match field {
        Field::InInterface => write!(f, "-i {}", words::quote(&p.in_interface.to_string())),
        Field::OutInterface => write!(f, "-o {}", words::quote(&p.out_interface.to_string())),
        Field::PhysIn => write!(f, "--physdev-in {}", words::quote(&p.phys_in.to_string())),
        Field::PhysOut => write!(f, "--physdev-out {}", words::quote(&p.phys_out.to_string())),
        Field::Source => write!(f, "-s {}", p.source_addr()),
        Field::Destination => write!(f, "-d {}", p.destination_addr()),
        Field::Protocol => match names::protocol_name(p.protocol) {
            Some(name) => write!(f, "-p {name}"),
            None => write!(f, "-p {}", p.protocol),
        },
        Field::SourcePort => write!(f, "--sport {}", p.source_port),
        Field::DestinationPort if is_icmp(p) => {
            let [kind, code] = p.destination_port.to_be_bytes();
            write!(f, "--icmp-type {kind}")?;
            if code > 0 { write!(f, "/{code}") } else { Ok(()) }
        }
        Field::DestinationPort => write!(f, "--dport {}", p.destination_port),
        Field::TcpFlags => {
            let set = TCP_FLAGS.iter().filter(|t| t.1.is_power_of_two() && p.tcp_flags & t.1 != 0);
            let names: Vec<&str> = set.map(|t| t.0).collect();
            write!(f, "--tcp-flags {}", names.join(","))
        }
        Field::CtState => {
            write!(f, "--ctstate {}", name(CT_STATES, p.ct_state as u8))?;
            f.write_str(if p.ct_snat { ",SNAT" } else { "" })?;
            f.write_str(if p.ct_dnat { ",DNAT" } else { "" })
        }
        Field::Mark => write!(f, "--mark {:#x}", p.mark),
        Field::ConnMark => write!(f, "--connmark {:#x}", p.connmark),
        Field::Ttl => write!(f, "--ttl {}", p.ttl),
        Field::Tos => write!(f, "--tos {:#04x}", p.tos),
        Field::Length => write!(f, "--length {}", p.length),
        Field::Mac => {
            let bytes: Vec<String> = p.mac.unwrap_or_default().iter().map(|b| format!("{b:02x}")).collect();
            write!(f, "--mac {}", bytes.join(":"))
        }
        Field::PacketType => write!(f, "--pkt-type {}", name(PACKET_TYPES, p.packet_type)),
        Field::SourceType => write!(f, "--src-type {}", name(ROUTE_TYPES, p.source_type)),
        Field::DestinationType => write!(f, "--dst-type {}", name(ROUTE_TYPES, p.destination_type)),
        Field::L4 => write!(f, "--l4 {}", name(L4_STATES, p.l4 as u8)),
        Field::Bridged => f.write_str("--bridged"),
        Field::Socket => f.write_str("--socket"),
        Field::Cpu => write!(f, "--cpu {}", fields::number(p, field)),
        Field::Realm => write!(f, "--realm {}", fields::number(p, field)),
        Field::InGroup => write!(f, "--src-group {}", fields::number(p, field)),
        Field::OutGroup => write!(f, "--dst-group {}", fields::number(p, field)),
        Field::Uid => write!(f, "--uid-owner {}", fields::number(p, field)),
        Field::Gid => write!(f, "--gid-owner {}", fields::number(p, field)),
        Field::Spi => write!(f, "--spi {}", fields::number(p, field)),
        Field::DccpType => write!(f, "--dccp-type {}", fields::number(p, field)),
        Field::Mss => write!(f, "--mss {}", fields::number(p, field)),
        Field::Helper => write!(f, "--helper {}", words::quote(&p.helper.to_string())),
        Field::AhSpi => write!(f, "--ahspi {}", fields::number(p, field)),
        Field::FragId => write!(f, "--fragid {}", fields::number(p, field)),
        Field::AhLength => write!(f, "--ahlen {}", fields::number(p, field)),
        Field::AhReserved => f.write_str("--ah-reserved"),
        Field::FragFlags => write!(f, "--frag-flags {}", fields::number(p, field)),
        Field::RtType => write!(f, "--rt-type {}", fields::number(p, field)),
        Field::RtSegments => write!(f, "--rt-segsleft {}", fields::number(p, field)),
        Field::RtLength => write!(f, "--rt-len {}", fields::number(p, field)),
        Field::DstLength => write!(f, "--dst-len {}", fields::number(p, field)),
        Field::HbhLength => write!(f, "--hbh-len {}", fields::number(p, field)),
        Field::Ipsec => write!(f, "--ipsec {}", name(IPSEC, fields::number(p, field) as u8)),
        Field::OwnInterfaces => write!(f, "--own-interfaces {}", fields::number(p, field)),
        Field::WayBack => write!(f, "--way-back {}", name(WAYS_BACK, fields::number(p, field) as u8)),
        Field::Receiver => write!(f, "--receiver {}", name(RECEIVERS, fields::number(p, field) as u8)),
        Field::ExtHeaders => write!(f, "--ext-headers {:#04x}", fields::number(p, field)),
        _ => Ok(()),
    }
}

/// The name of a number, or the number.
fn name(names: &'static Names, number: u8) -> impl fmt::Display {
    fmt::from_fn(move |f| match names.iter().find(|n| n.1 == number) {
        Some((name, _)) => f.write_str(name),
        None => write!(f, "{number}"),
    })
}

/// ICMP in an IPv4 packet, ICMPv6 in an IPv6 one: the destination port is type and code.
fn is_icmp(packet: &Packet) -> bool {
    packet.protocol == if packet.is_v6 { 58 } else { 1 }
}
