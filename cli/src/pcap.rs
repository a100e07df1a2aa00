//! Captures in tcpdump's classic format.
//!
//! ```text
//!   magic  version  zone  accuracy  snap length  link type     24 bytes, in the writer's byte order
//!   seconds  fraction  bytes kept  bytes on the wire │ bytes   16 bytes and the packet, again and again
//! ```
//!
//! Fractions of seconds are micro- or nanoseconds, as the magic says.
//! Link types that are read: Ethernet (1, with VLAN tags), raw IP (101, 228, 229) and Linux cooked (113). What is
//! no IP packet of the wanted family is counted and left out.

use std::path::Path;

use hipac_classifier::Packet;
use hipac_host::Time;
use hipac_rules::Family;

use crate::exit::Failure;
use crate::file;
use crate::packets::Arrived;

/// The packets of a capture.
pub(crate) struct Capture {
    pub(crate) packets: Vec<Arrived>,
    /// Records that hold no packet that a rule of this family could see.
    pub(crate) left_out: usize,
}

const HEADER_BYTES: usize = 24;
const RECORD_BYTES: usize = 16;
/// Longer than any link's packet.
const PACKET_BYTES_MAX: usize = 1 << 18;

pub(crate) fn read(path: &Path, family: Family) -> Result<Capture, Failure> {
    let bytes = file::read(path)?;
    parse(&bytes, family).map_err(|problem| Failure::at(&file::name(path), problem))
}

fn parse(bytes: &[u8], family: Family) -> Result<Capture, String> {
    let magic: [u8; 4] = bytes.get(..4).and_then(|b| b.try_into().ok()).ok_or("too short for a capture")?;
    let (is_little, nanos_a_fraction) = match u32::from_le_bytes(magic) {
        0xa1b2_c3d4 => (true, 1000),
        0xa1b2_3c4d => (true, 1),
        0xd4c3_b2a1 => (false, 1000),
        0x4d3c_b2a1 => (false, 1),
        0x0a0d_0d0a => return Err("a pcapng capture: convert it with `tcpdump -r IN -w OUT`".into()),
        _ => return Err("no capture: a classic one begins with a1b2c3d4".into()),
    };
    let number = |at: usize| -> Option<usize> {
        let four: [u8; 4] = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
        let number = if is_little { u32::from_le_bytes(four) } else { u32::from_be_bytes(four) };
        usize::try_from(number).ok()
    };
    let link = number(20).ok_or("the header is cut off")? & 0x0fff_ffff;
    let mut capture = Capture { packets: Vec::new(), left_out: 0 };
    let mut at = HEADER_BYTES;
    while at < bytes.len() {
        let length = number(at + 8).ok_or_else(|| format!("the record at byte {at} is cut off"))?;
        if length > PACKET_BYTES_MAX {
            return Err(format!("the record at byte {at} claims {length} bytes: the capture is damaged"));
        }
        let from = at + RECORD_BYTES;
        let record = bytes.get(from..from + length);
        let record = record.ok_or_else(|| format!("the record at byte {at} is cut off"))?;
        match packet(link, record).filter(|(p, _)| p.is_v6 == (family == Family::V6)) {
            Some((packet, wire)) => {
                let part = |at| number(at).map_or(0, |n| n as u64);
                let nanos = part(at) * 1_000_000_000 + part(at + 4) * nanos_a_fraction;
                let at = Some(Time::from_nanos(nanos));
                capture.packets.push(Arrived { packet, at, wire: Some(wire.into()) });
            }
            None => capture.left_out += 1,
        }
        at = from + length;
    }
    match link {
        1 | 101 | 113 | 228 | 229 => Ok(capture),
        _ => Err(format!("link type {link} is not read: Ethernet, raw IP and Linux cooked captures are")),
    }
}

/// The packet of a record, and its bytes from the IP header on.
fn packet(link: usize, record: &[u8]) -> Option<(Packet, &[u8])> {
    let is_ip = |protocol: &[u8]| matches!(protocol, [0x08, 0x00] | [0x86, 0xdd]);
    match link {
        1 => {
            let mac: [u8; 6] = record.get(6..12)?.try_into().ok()?;
            let mut at = 12;
            // VLAN tags stand before the protocol.
            while matches!(record.get(at..at + 2)?, [0x81, 0x00] | [0x88, 0xa8]) {
                at += 4;
            }
            let payload = record.get(at + 2..)?;
            let packet = is_ip(record.get(at..at + 2)?).then(|| Packet::from_ip_bytes(payload).ok())??;
            Some((Packet { mac: Some(mac), ..packet }, payload))
        }
        113 if is_ip(record.get(14..16)?) => {
            let payload = record.get(16..)?;
            Some((Packet::from_ip_bytes(payload).ok()?, payload))
        }
        113 => None,
        _ => Some((Packet::from_ip_bytes(record).ok()?, record)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hipac_verifier::packet_text;

    /// A UDP packet from 10.0.0.1:1024 to 10.0.0.2:53.
    const UDP: [u8; 28] =
        [0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 4, 0, 0, 53, 0, 8, 0, 0];

    fn capture(link: u32, records: &[&[u8]]) -> Vec<u8> {
        let mut bytes = 0xa1b2_c3d4u32.to_le_bytes().to_vec();
        bytes.extend([0; 16]);
        bytes.extend(link.to_le_bytes());
        for record in records {
            bytes.extend([0; 8]);
            bytes.extend((record.len() as u32).to_le_bytes());
            bytes.extend((record.len() as u32).to_le_bytes());
            bytes.extend(*record);
        }
        bytes
    }

    #[test]
    fn packets_are_read_off_raw_and_ethernet_links() {
        let ethernet = [&[0u8; 6][..], &[2, 0, 0, 0, 0, 9], &[0x81, 0, 0, 7, 0x08, 0], &UDP].concat();
        for (link, record, mac) in [(101, &UDP[..], ""), (1, &ethernet, " --mac 02:00:00:00:00:09")] {
            let found = parse(&capture(link, &[record, b"\0\0"]), Family::V4).unwrap();
            assert_eq!(found.left_out, 1);
            let text = packet_text::show(&found.packets[0].packet).to_string();
            assert_eq!(found.packets[0].at, Some(Time::from_nanos(0)));
            assert_eq!(found.packets[0].wire.as_deref(), Some(&UDP[..]));
            assert_eq!(
                text,
                format!("-s 10.0.0.1 -d 10.0.0.2 -p udp --sport 1024 --dport 53 --length 28{mac}")
            );
        }
    }

    #[test]
    fn a_cut_capture_is_refused_wherever_it_is_cut() {
        let whole = capture(101, &[&UDP]);
        for length in 0..whole.len() {
            let found = parse(&whole[..length], Family::V4);
            assert_eq!(found.is_ok(), length == HEADER_BYTES, "{length}");
        }
    }
}
