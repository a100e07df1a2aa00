//! A packet's bytes as rules see them now.
//!
//! The caller holds the bytes that arrived; rules may have changed the TTL or the type of service since. What a
//! later match reads must show that, and the IPv4 checksum with it. Packets that no rule has changed are read
//! where they lie.

use std::borrow::Cow;
use std::ops::Range;

use hipac_classifier::Packet;

use crate::Arrival;

const IPV4_HEADER_BYTES: usize = 20;
const IPV6_HEADER_BYTES: usize = 40;

/// The packet's bytes from its IP header on; `None` when they are not known.
pub(crate) fn bytes<'a>(packet: &Packet, arrival: &Arrival<'a>) -> Option<Cow<'a, [u8]>> {
    if arrival.is_rewritten {
        return None;
    }
    let wire = arrival.wire?;
    // What follows is the padding of a frame; what is missing nobody knows.
    let whole = wire.get(..packet.length as usize)?;
    let (header, version) = if packet.is_v6 { (IPV6_HEADER_BYTES, 6) } else { (IPV4_HEADER_BYTES, 4) };
    if whole.len() < header || whole[0] >> 4 != version {
        return None;
    }
    if packet.is_v6 {
        let class = whole[0] << 4 | whole[1] >> 4;
        if (whole[7], class) == (packet.ttl, packet.tos) {
            return Some(Cow::Borrowed(whole));
        }
        let mut changed = whole.to_vec();
        changed[0] = whole[0] & 0xf0 | packet.tos >> 4;
        changed[1] = packet.tos << 4 | whole[1] & 0x0f;
        changed[7] = packet.ttl;
        return Some(Cow::Owned(changed));
    }
    if (whole[8], whole[1]) == (packet.ttl, packet.tos) {
        return Some(Cow::Borrowed(whole));
    }
    let mut changed = whole.to_vec();
    let checksum = u16::from_be_bytes([whole[10], whole[11]]);
    let checksum = replaced(checksum, u16::from_be_bytes([0, whole[1]]), u16::from_be_bytes([0, packet.tos]));
    let checksum = replaced(checksum, u16::from_be_bytes([whole[8], 0]), u16::from_be_bytes([packet.ttl, 0]));
    (changed[1], changed[8]) = (packet.tos, packet.ttl);
    changed[10..12].copy_from_slice(&checksum.to_be_bytes());
    Some(Cow::Owned(changed))
}

/// A checksum after one of its words has changed (RFC 1624, equation 3).
fn replaced(checksum: u16, old: u16, new: u16) -> u16 {
    let mut sum = u32::from(!checksum) + u32::from(!old) + u32::from(new);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Where the transport header begins, in a later fragment what stands in its place.
pub(crate) fn transport(packet: &Packet, bytes: &[u8]) -> Option<usize> {
    if !packet.is_v6 {
        return Some(usize::from(bytes.first()? & 0x0f) * 4);
    }
    let (mut next, mut at) = (*bytes.get(6)?, IPV6_HEADER_BYTES);
    loop {
        let header = bytes.get(at..at + 2);
        let length = match next {
            44 => {
                let offset = bytes.get(at + 2..at + 4)?;
                if u16::from_be_bytes([offset[0], offset[1]]) & !7 != 0 {
                    return Some(at + 8);
                }
                8
            }
            51 if packet.protocol != 51 => (usize::from(header?[1]) + 2) * 4,
            0 | 43 | 60 => (usize::from(header?[1]) + 1) * 8,
            _ => return Some(at),
        };
        next = header?[0];
        at += length;
    }
}

/// The first IPv6 extension header of that number, as long as it says it is. `None`: there is none, or the packet ends
/// within it.
pub(crate) fn extension(bytes: &[u8], number: u8) -> Option<&[u8]> {
    bytes.get(extension_place(bytes, number)?)
}

/// Where that header stands; its end may lie beyond the packet.
pub(crate) fn extension_place(bytes: &[u8], number: u8) -> Option<Range<usize>> {
    let (mut next, mut at) = (*bytes.get(6)?, IPV6_HEADER_BYTES);
    loop {
        let header = bytes.get(at..)?;
        let length = match next {
            44 => 8,
            51 => (usize::from(*header.get(1)?) + 2) * 4,
            0 | 43 | 60 => (usize::from(*header.get(1)?) + 1) * 8,
            _ => return None,
        };
        if next == number {
            return Some(at..at + length);
        }
        // Behind the head of a later fragment there are no headers.
        if next == 44 && u16::from_be_bytes([*header.get(2)?, *header.get(3)?]) & !7 != 0 {
            return None;
        }
        next = *header.first()?;
        at += length;
    }
}

/// The two words of 16 bits at `offset` of the transport header. `None`: not known; `Some(None)`: the packet
/// ends before.
pub(crate) fn ports(packet: &Packet, arrival: &Arrival<'_>, offset: usize) -> Option<Option<(u16, u16)>> {
    let bytes = bytes(packet, arrival)?;
    let at = transport(packet, &bytes)? + offset;
    let Some(&[a, b, c, d]) = bytes.get(at..at + 4).and_then(|four| four.first_chunk()) else {
        return Some(None);
    };
    Some(Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{arrival, ipv6, udp};

    fn sum_of(header: &[u8]) -> u16 {
        let mut sum: u32 = header.chunks(2).map(|two| u32::from(u16::from_be_bytes([two[0], two[1]]))).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn changed_fields_show_in_the_bytes_with_the_checksum() {
        let wire = udp(b"text");
        let packet = Packet::from_ip_bytes(&wire).unwrap();
        assert_eq!(sum_of(&wire[..20]), 0xffff);
        assert!(matches!(bytes(&packet, &arrival(&wire)), Some(Cow::Borrowed(_))));
        for (ttl, tos) in [(1, 0), (64, 0xb8), (0, 0xff), (255, 3)] {
            let changed = Packet { ttl, tos, ..packet };
            let shown = bytes(&changed, &arrival(&wire)).unwrap();
            assert_eq!(sum_of(&shown[..20]), 0xffff, "{ttl} {tos}");
            assert_eq!(Packet::from_ip_bytes(&shown).unwrap(), changed);
        }
    }

    #[test]
    fn padding_is_no_part_of_a_packet_and_missing_bytes_are_not_known() {
        let mut wire = udp(b"text");
        let packet = Packet::from_ip_bytes(&wire).unwrap();
        wire.push(0);
        assert_eq!(bytes(&packet, &arrival(&wire)).unwrap().len(), 32);
        assert_eq!(bytes(&packet, &arrival(&wire[..31])), None);
        assert_eq!(bytes(&packet, &Arrival { is_rewritten: true, ..arrival(&wire) }), None);
    }

    #[test]
    fn the_first_extension_header_of_a_number_is_found() {
        let headers =
            [60, 0, 1, 1, 0, 0, 0, 0, 51, 0, 2, 2, 0, 0, 0, 0, 60, 0, 3, 3, 0, 0, 0, 0, 59, 1, 4, 4];
        let wire = ipv6(43, &headers);
        let third = |number| extension(&wire, number).map(|header| (header[2], header.len()));
        assert_eq!((third(43), third(60), third(51)), (Some((1, 8)), Some((2, 8)), Some((3, 8))));
        assert_eq!((third(0), third(44), third(6)), (None, None, None));
        for cut in 0..wire.len() {
            assert_eq!(extension(&wire[..cut], 43).is_some(), cut >= 48);
            assert_eq!(extension(&wire[..cut], 51).is_some(), cut >= 64);
        }
        // In a later fragment nothing is found behind the fragment header.
        let fragment = |low| ipv6(44, &[60, 0, 0, low, 0, 0, 0, 7, 59, 0, 1, 1, 0, 0, 0, 0]);
        assert!(extension(&fragment(1), 60).is_some() && extension(&fragment(8), 60).is_none());
        assert!(extension(&fragment(8), 44).is_some());
    }
}
