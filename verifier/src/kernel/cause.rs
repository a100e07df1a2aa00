//! Why a packet got no further, where no rule is to blame.

use hipac_classifier::{CtState, L4, Packet};
use hipac_rules::Hook;

/// A reason of the stack's own to drop a packet, or to keep it from a chain. Each is read from the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Cause {
    /// Before all chains: the Ethernet frame is for another host.
    OtherHost,
    /// Before all chains: no packet that the stack takes (length, version, extension headers).
    Header,
    /// Before all chains: an IPv6 address that no packet from outside may have.
    ForbiddenAddress,
    /// Connection tracking, and this host as receiver, keep fragments until they have them all.
    FragmentKept,
    /// Connection tracking refused the packet.
    Untrackable,
    /// The source is no address of a host: multicast, broadcast, unspecified, loopback.
    MartianSource,
    /// The destination is none that a packet can be sent to.
    MartianDestination,
    /// Multicast that this host neither joined nor forwards.
    Multicast,
    /// Broadcast, for this host or for nobody.
    Broadcast,
    /// TTL or hop limit used up.
    HopLimit,
    /// Came in an Ethernet frame that was not for this host alone: never forwarded.
    LinkBroadcast,
    /// Link-local addresses are not forwarded.
    LinkLocal,
    /// Longer than the way out takes, and not to be fragmented.
    TooLong,
    /// An address translation could not be done.
    Translation,
    /// What looks into TCP options (`--tcp-option`, `tcpmss`, TCPMSS, TCPOPTSTRIP) drops a packet whose options do
    /// not lie within it: where they begin and end is no field of ours.
    TcpOffset,
    /// `connlimit` drops a packet that belongs to no connection and whose header is too short to say which one it
    /// would be.
    Connlimit,
    /// `connlimit` drops a packet of a connection when it counts none: newer kernels count connections as they begin,
    /// and one that was there before, or was made by hand, is not among them.
    ConnlimitUnseen,
    /// The stack did not like an option or an extension header that rules do not look at.
    ExtensionHeader,
}

impl Cause {
    /// A few words.
    pub fn name(self) -> &'static str {
        match self {
            Cause::OtherHost => "Ethernet frame for another host",
            Cause::Header => "no sound IP header",
            Cause::ForbiddenAddress => "address that never arrives",
            Cause::FragmentKept => "fragment kept for reassembly",
            Cause::Untrackable => "refused by connection tracking",
            Cause::MartianSource => "martian source",
            Cause::MartianDestination => "martian destination",
            Cause::Multicast => "multicast without a receiver",
            Cause::Broadcast => "broadcast",
            Cause::HopLimit => "hop limit used up",
            Cause::LinkBroadcast => "Ethernet broadcast, not forwarded",
            Cause::LinkLocal => "link-local address, not forwarded",
            Cause::TooLong => "longer than the way out takes",
            Cause::Translation => "address translation failed",
            Cause::TcpOffset => "TCP options out of bounds, dropped by what reads them",
            Cause::Connlimit => "header cut short, dropped by connlimit",
            Cause::ConnlimitUnseen => "connection that connlimit has not seen begin, dropped by it",
            Cause::ExtensionHeader => "extension header refused",
        }
    }
}

const MULTICAST_V6: u128 = 0xff;
/// Ethernet packet type of a frame for another host.
pub(super) const OTHER_HOST: u8 = 3;

/// Why a packet that was sent reached no chain at all.
pub(super) fn before_all(sent: &Packet, bytes: &[u8]) -> Option<Cause> {
    if sent.packet_type == OTHER_HOST {
        return Some(Cause::OtherHost);
    }
    let Ok(packet) = Packet::from_ip_bytes(bytes) else { return Some(Cause::Header) };
    // Reassembly for connection tracking comes before raw.
    if is_fragment(&packet, bytes) {
        return Some(Cause::FragmentKept);
    }
    if packet.is_v6 {
        let is_mapped = packet.source >> 32 == 0xffff || packet.destination >> 32 == 0xffff;
        let top = packet.destination >> 112;
        let is_node_local = top >> 8 == MULTICAST_V6 && top & 0xf <= 1;
        if packet.source >> 120 == MULTICAST_V6
            || packet.source == 1
            || packet.destination == 1
            || is_mapped
            || is_node_local
        {
            return Some(Cause::ForbiddenAddress);
        }
        // The hop-by-hop header is read before all else.
        return (bytes.get(6) == Some(&0)).then_some(Cause::ExtensionHeader);
    }
    (bytes.first() != Some(&0x45)).then_some(Cause::Header)
}

/// Why a packet that raw let pass did not reach mangle: connection tracking stands between.
pub(super) fn at_tracking(packet: &Packet) -> Option<Cause> {
    (packet.l4 != L4::Whole || packet.ct_state == CtState::Invalid).then_some(Cause::Untrackable)
}

/// A part of a packet: the first or a later one.
fn is_fragment(packet: &Packet, bytes: &[u8]) -> bool {
    match (packet.l4, packet.is_v6) {
        (L4::Fragment | L4::FragmentAt8, _) => true,
        (_, false) => bytes.get(6).is_some_and(|b| b & 0x20 != 0),
        // Even one that says that it is all of it: an empty one is dropped.
        (_, true) => has_fragment_header(bytes) == Some(true),
    }
}

/// Whether there is a fragment header among the extension headers.
fn has_fragment_header(bytes: &[u8]) -> Option<bool> {
    Some(walk(bytes)?.1)
}

fn transport_offset(bytes: &[u8]) -> Option<usize> {
    Some(walk(bytes)?.0)
}

/// Where the IPv6 extension headers end, and whether one of them is a fragment header; `None` where they
/// break off.
fn walk(bytes: &[u8]) -> Option<(usize, bool)> {
    let (mut next, mut at, mut is_fragment) = (*bytes.get(6)?, 40, false);
    while matches!(next, 0 | 43 | 44 | 51 | 60) {
        let length = usize::from(*bytes.get(at + 1)?);
        is_fragment |= next == 44;
        let header_bytes = match next {
            44 => 8,
            51 => 4 * (length + 2),
            _ => 8 * (length + 1),
        };
        (next, at) = (*bytes.get(at)?, at + header_bytes);
    }
    Some((at, is_fragment))
}

/// Why a packet that PREROUTING let pass reached neither INPUT nor FORWARD.
fn at_routing(packet: &Packet, bytes: &[u8], is_translated: bool, to_host: bool) -> Option<Cause> {
    if to_host && !packet.is_v6 && is_fragment(packet, bytes) {
        return Some(Cause::FragmentKept);
    }
    let cause = match packet.is_v6 {
        false => routing_v4(packet),
        true => routing_v6(packet),
    };
    cause.or_else(|| {
        if is_translated {
            return Some(Cause::Translation);
        }
        let never_fragment = packet.is_v6 || bytes.get(6).is_some_and(|b| b & 0x40 != 0);
        (packet.length > 65_521 && never_fragment).then_some(Cause::TooLong)
    })
}

fn routing_v4(packet: &Packet) -> Option<Cause> {
    let (source, destination) = (packet.source as u32, packet.destination as u32);
    if source == 0 || source == u32::MAX || source >> 28 == 0xe {
        Some(Cause::MartianSource)
    } else if destination == u32::MAX || destination == 0x7fff_ffff {
        Some(Cause::Broadcast)
    } else if destination >> 28 == 0xe {
        Some(Cause::Multicast)
    } else if destination == 0 {
        Some(Cause::MartianDestination)
    } else if packet.ttl <= 1 {
        Some(Cause::HopLimit)
    } else {
        (packet.packet_type != 0).then_some(Cause::LinkBroadcast)
    }
}

fn routing_v6(packet: &Packet) -> Option<Cause> {
    let is_link_local = |address: u128| address >> 118 == 0x3fa;
    if packet.destination >> 120 == MULTICAST_V6 {
        Some(Cause::Multicast)
    } else if packet.source == 0 || packet.source == 1 || packet.source >> 120 == MULTICAST_V6 {
        Some(Cause::MartianSource)
    } else if packet.destination == 0 {
        Some(Cause::MartianDestination)
    } else if packet.ttl <= 1 {
        Some(Cause::HopLimit)
    } else if is_link_local(packet.source) || is_link_local(packet.destination) {
        Some(Cause::LinkLocal)
    } else {
        (packet.packet_type != 0).then_some(Cause::LinkBroadcast)
    }
}

/// Why a packet got no further in a table of which some rule looks into TCP options.
pub(super) fn at_options(packet: &Packet, bytes: &[u8]) -> Option<Cause> {
    if packet.protocol != 6 {
        return None;
    }
    let at = match packet.is_v6 {
        false => usize::from(bytes.first()? & 15) * 4,
        true => transport_offset(bytes)?,
    };
    let header = bytes.get(at..)?;
    let offset = usize::from(header.get(12)? >> 4) * 4;
    (offset < 20 || offset > header.len()).then_some(Cause::TcpOffset)
}

/// Why a packet got no further in a table of which some rule counts connections.
pub(super) fn at_connlimit(packet: &Packet) -> Option<Cause> {
    match packet.ct_state {
        CtState::Established => Some(Cause::ConnlimitUnseen),
        CtState::Invalid | CtState::Untracked if packet.l4 != L4::Whole => Some(Cause::Connlimit),
        _ => None,
    }
}

/// Why a packet that a hook's last chain let pass did not reach the next hook.
pub(super) fn behind(
    hook: Hook,
    packet: &Packet,
    bytes: &[u8],
    is_translated: bool,
    to_host: bool,
) -> Option<Cause> {
    match hook {
        Hook::Prerouting => at_routing(packet, bytes, is_translated, to_host),
        Hook::Forward => (packet.length > 65_521).then_some(Cause::TooLong),
        Hook::Input | Hook::Output | Hook::Postrouting => None,
    }
}
