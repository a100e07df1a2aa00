//! Transport headers: as much of them as rules look at, and as there is.

use super::protocol;
use crate::packet::{Fact, L4, Packet};

/// Fills in the fields of the transport header, of which `payload` holds the first bytes.
pub(super) fn read_transport(packet: &mut Packet, payload: &[u8]) {
    packet.l4 = state_of_header(packet.protocol, payload.len());
    if let &[a, b, c, d, ..] = payload {
        match packet.protocol {
            protocol::TCP | protocol::UDP | protocol::UDPLITE | protocol::SCTP | protocol::DCCP => {
                packet.source_port = u16::from_be_bytes([a, b]);
                packet.destination_port = u16::from_be_bytes([c, d]);
            }
            // Type and code.
            protocol::ICMP | protocol::ICMPV6 => packet.destination_port = u16::from_be_bytes([a, b]),
            _ => {}
        }
    }
    let word = |at: usize| payload.get(at..)?.first_chunk::<4>().map(|b| u32::from_be_bytes(*b));
    let fact = match packet.protocol {
        protocol::TCP => {
            packet.tcp_flags = payload.get(13).copied().unwrap_or(0);
            segment_size(payload).map(|size| (Fact::Mss, size))
        }
        protocol::ESP => word(0).map(|spi| (Fact::Spi, spi)),
        protocol::AH => word(4).map(|spi| (Fact::Spi, spi)),
        protocol::IPCOMP => word(0).map(|w| (Fact::Spi, w & 0xffff)),
        protocol::DCCP => payload.get(8).map(|b| (Fact::DccpType, u32::from(b >> 1 & 15))),
        _ => None,
    };
    if let Some((fact, value)) = fact {
        packet.facts.set(fact, value);
    }
}

/// The maximum segment size among the options of a TCP header, found as the kernel finds it: the end of the
/// list is one more byte of nothing, and an option without a length is a byte long.
fn segment_size(header: &[u8]) -> Option<u32> {
    let end = usize::from(header.get(12)? >> 4) * 4;
    let mut options = header.get(20..end)?;
    loop {
        let step = match options {
            [] => return None,
            [2, 4, a, b, ..] => return Some(u16::from_be_bytes([*a, *b]).into()),
            [0 | 1, ..] | [_] => 1,
            [_, length, ..] => usize::from(*length).max(1),
        };
        options = options.get(step..)?;
    }
}

/// How much of its transport header a packet with `available` bytes of payload has.
fn state_of_header(protocol: u8, available: usize) -> L4 {
    match available {
        available if available >= transport_header_bytes(protocol) => L4::Whole,
        0..4 => L4::Under4,
        4..8 => L4::Under8,
        8..12 => L4::Under12,
        _ => L4::Under20,
    }
}

/// Bytes that make a header complete: what the kernel's match for the protocol reads. Of a
/// protocol without such a match, 20 are enough for every other match that could ask.
fn transport_header_bytes(protocol: u8) -> usize {
    match protocol {
        protocol::TCP => 20,
        protocol::UDP | protocol::UDPLITE | protocol::ICMP | protocol::ICMPV6 => 8,
        protocol::SCTP | protocol::DCCP => 12,
        _ => 20,
    }
}
