//! From the bytes of an IP packet to a [`Packet`].
//!
//! ```text
//!   ┌──────────────┬───────────────────────────┬──────────────────────┐
//!   │ base header  │ IPv6: hop-by-hop, routing,│ transport header,    │
//!   │ 20–60 or 40  │ destination, AH, fragment │ as much as there is  │
//!   └──────────────┴───────────────────────────┴──────────────────────┘
//!     etherparse     walked here, as the kernel  four to fourteen bytes
//!                    walks them                  are looked at
//! ```
//!
//! The meaning is that of the kernel's rules, not that of the protocols' standards:
//!
//! - An IPv4 packet's protocol is what its header says; AH is a protocol like any other. An
//!   IPv6 packet's is what stands behind the extension headers, in whatever order they come,
//!   and those are the five drawn above and no others.
//! - A later fragment has no ports. Its protocol is known all the same: the IPv4 header or the
//!   fragment header names it.
//! - A transport header may be cut short; [`L4`] says where. This is no fault of the packet's
//!   IP part, and rules that do not look that far hold as ever.
//! - Bytes behind the packet's own length (padding of a short frame) do not belong to it.
//!
//! What never reaches a rule in the kernel is an error here. So are three IPv6 packets that do
//! reach one: when the extension headers break off, or go on in a later fragment, the kernel
//! drops the packet at the first rule that tests a protocol; when it ends within one of
//! them, at the first that tests this one (older kernels take that for no match; how long
//! further headers of its kind say they are matters to no rule). No field of a [`Packet`] could say this, so
//! it is refused and not guessed at. Header checksums are not looked at:
//! captures of outgoing packets are full of ones not yet filled in.
//!
//! Cost: one pass over the headers, nothing allocated.

mod error;
mod extensions;
mod transport;

use etherparse::{Ipv4HeaderSlice, Ipv6HeaderSlice};

use crate::packet::{L4, Packet};
pub use error::WireError;
use error::{ipv4_fault, ipv6_fault};
use extensions::walk_extensions;
use transport::read_transport;

/// Protocol numbers that this file tells apart.
mod protocol {
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const ICMP: u8 = 1;
    pub(super) const TCP: u8 = 6;
    pub(super) const UDP: u8 = 17;
    pub(super) const DCCP: u8 = 33;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const ESP: u8 = 50;
    pub(super) const AH: u8 = 51;
    pub(super) const ICMPV6: u8 = 58;
    pub(super) const NO_NEXT: u8 = 59;
    pub(super) const DESTINATION: u8 = 60;
    pub(super) const IPCOMP: u8 = 108;
    pub(super) const SCTP: u8 = 132;
    pub(super) const UDPLITE: u8 = 136;
}

/// Bytes of an IPv6 base header.
const IPV6_HEADER_BYTES: usize = 40;

impl Packet {
    /// The packet that `bytes` hold from their first byte: the IP header, IPv4 or IPv6.
    ///
    /// Fields that are not on the wire (interfaces, marks, connection state, …) have their
    /// default, for the caller to fill in.
    ///
    /// # Errors
    ///
    /// When the bytes are no packet that a rule could see: see [`WireError`].
    pub fn from_ip_bytes(bytes: &[u8]) -> Result<Packet, WireError> {
        match bytes.first().map(|first| first >> 4) {
            None => Err(WireError::Empty),
            Some(4) => from_ipv4(bytes),
            Some(6) => from_ipv6(bytes),
            Some(version) => Err(WireError::Version(version)),
        }
    }
}

fn from_ipv4(bytes: &[u8]) -> Result<Packet, WireError> {
    let header = Ipv4HeaderSlice::from_slice(bytes).map_err(ipv4_fault)?;
    let header_bytes = header.slice().len();
    let total = usize::from(header.total_len());
    let whole = own_bytes(bytes, total, header_bytes)?;

    let mut packet = Packet {
        is_v6: false,
        source: u32::from(header.source_addr()).into(),
        destination: u32::from(header.destination_addr()).into(),
        protocol: header.protocol().0,
        ttl: header.ttl(),
        tos: header.dcp().value() << 2 | header.ecn().value(),
        length: u32::from(header.total_len()),
        ..Packet::default()
    };
    // In units of 8 bytes.
    match header.fragments_offset().value() {
        0 => read_transport(&mut packet, &whole[header_bytes..]),
        1 => packet.l4 = L4::FragmentAt8,
        _ => packet.l4 = L4::Fragment,
    }
    Ok(packet)
}

fn from_ipv6(bytes: &[u8]) -> Result<Packet, WireError> {
    let header = Ipv6HeaderSlice::from_slice(bytes).map_err(ipv6_fault)?;
    let next_header = header.next_header().0;
    // A jumbogram has payload length 0 and states its true length in a hop-by-hop option. The
    // kernel takes all the bytes it was handed, and so does this.
    let total = match usize::from(header.payload_length()) {
        0 if next_header == protocol::HOP_BY_HOP => bytes.len(),
        payload => IPV6_HEADER_BYTES + payload,
    };
    let whole = own_bytes(bytes, total, IPV6_HEADER_BYTES)?;

    let mut packet = Packet {
        is_v6: true,
        source: header.source_addr().into(),
        destination: header.destination_addr().into(),
        ttl: header.hop_limit(),
        tos: header.traffic_class(),
        length: u32::try_from(total).map_err(|_| WireError::TooLong { given: bytes.len() })?,
        ..Packet::default()
    };
    let upper = walk_extensions(whole, next_header, &mut packet.facts)?;
    packet.protocol = upper.protocol;
    match upper.fragment_offset_bytes {
        // The last extension header may claim more bytes than there are; then none are left.
        0 => read_transport(&mut packet, whole.get(upper.offset..).unwrap_or_default()),
        8 => packet.l4 = L4::FragmentAt8,
        _ => packet.l4 = L4::Fragment,
    }
    Ok(packet)
}

/// The part of `bytes` that is the packet, by its own length.
fn own_bytes(bytes: &[u8], total: usize, header: usize) -> Result<&[u8], WireError> {
    if total < header {
        return Err(WireError::LengthInsideHeader { total, header });
    }
    bytes.get(..total).ok_or(WireError::LengthBeyondBytes { total, given: bytes.len() })
}

#[cfg(test)]
mod tests;
