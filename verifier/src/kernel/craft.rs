//! Packets on the wire: from the fields that rules look at to bytes that a stack takes.
//!
//! A case of a [`Drawer`](crate::Drawer) says what rules will see, as far as a packet can be so. Here it becomes
//! bytes with right lengths and checksums, and with what rules do not look at drawn at random: IPv4 options,
//! IPv6 extension headers, TCP options, payload. A few checksums of transport headers are wrong, which is what
//! INVALID connections come from. Whether the bytes say what was meant does not matter for a comparison: both
//! sides see these bytes.

use hipac_classifier::{Fact, L4, Packet};

use crate::draw::Random;

/// Identifier in ICMP headers: a connection's packets share it.
pub(super) const ICMP_ID: u16 = 7;

/// Longest packet made, unless it must be longer.
const LENGTH_MAX: usize = 9000;

/// The bytes of an IP packet with these fields; `id` is its IPv4 identification or IPv6 flow label.
pub(super) fn craft(packet: &Packet, id: u16, random: &mut Random) -> Vec<u8> {
    let fragment_offset = match packet.l4 {
        L4::Fragment => 2 + random.below(1000) as u16,
        L4::FragmentAt8 => 1,
        _ => 0,
    };
    let mut walked = Extensions::default();
    if packet.is_v6 {
        walked.draw(packet, fragment_offset, random);
    }
    let header_bytes =
        if packet.is_v6 { 40 } else { 20 + if random.percent(8) { 4 * random.below(11) } else { 0 } };
    let fixed_bytes = header_bytes + walked.bytes.len();
    let payload_bytes = payload_bytes(packet, fixed_bytes, random);
    let mut payload = payload(packet, payload_bytes, random);
    if fragment_offset == 0 && !random.percent(3) {
        fill_in_checksum(packet, &mut payload);
    }
    let mut bytes = if packet.is_v6 {
        ipv6_header(packet, id, walked.first.unwrap_or(packet.protocol), walked.bytes.len() + payload.len())
    } else {
        ipv4_header(packet, id, fragment_offset, header_bytes, payload.len(), random)
    };
    bytes.extend(walked.bytes);
    bytes.extend(payload);
    bytes
}

/// The bytes of an IP packet with these fields and this payload, as they are and nothing drawn.
#[cfg(test)]
pub(super) fn with_payload(packet: &Packet, id: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = match packet.is_v6 {
        true => ipv6_header(packet, id, packet.protocol, payload.len()),
        // No flags are drawn for a part that is no multiple of 8 bytes long; a fixed seed draws none.
        false => ipv4_header(packet, id, 0, 20, payload.len(), &mut Random::new(1, 1)),
    };
    bytes.extend(payload);
    bytes
}

/// A transport header with these fields, and a payload of zeros up to the packet's length.
#[cfg(test)]
pub(super) fn plain_payload(packet: &Packet) -> Vec<u8> {
    let fixed = if packet.is_v6 { 40 } else { 20 };
    let length = (packet.length as usize).saturating_sub(fixed).max(header_bytes(packet.protocol));
    let mut bytes = vec![0; length.max(20)];
    bytes[..2].copy_from_slice(&packet.source_port.to_be_bytes());
    bytes[2..4].copy_from_slice(&packet.destination_port.to_be_bytes());
    match packet.protocol {
        6 => (bytes[12], bytes[13]) = (0x50, packet.tcp_flags),
        17 | 136 => bytes[4..6].copy_from_slice(&(length as u16).to_be_bytes()),
        1 | 58 => bytes[..2].copy_from_slice(&packet.destination_port.to_be_bytes()),
        132 => bytes[15] = length.saturating_sub(12) as u8,
        33 => (bytes[4], bytes[8]) = (4, 1),
        _ => {}
    }
    bytes.truncate(length);
    fill_in_checksum(packet, &mut bytes);
    bytes
}

/// How many bytes follow the IP header, so that the transport header is as whole as it shall be.
fn payload_bytes(packet: &Packet, fixed_bytes: usize, random: &mut Random) -> usize {
    let wanted = (packet.length as usize).min(if packet.is_v6 { 65_535 + 40 } else { 65_535 });
    let wanted = if wanted > LENGTH_MAX && random.percent(90) { LENGTH_MAX } else { wanted };
    let wanted = wanted.saturating_sub(fixed_bytes);
    match packet.l4 {
        L4::Whole => wanted.max(header_bytes(packet.protocol)),
        L4::Under4 => random.below(4),
        L4::Under8 => 4 + random.below(4),
        L4::Under12 => 8 + random.below(4),
        L4::Under20 => 12 + random.below(8),
        // All but the last fragment are made of units of 8.
        L4::Fragment | L4::FragmentAt8 => wanted.clamp(8, 1000) & !7,
    }
}

/// Bytes of a whole transport header.
fn header_bytes(protocol: u8) -> usize {
    match protocol {
        6 | 50 | 51 => 20,
        1 | 17 | 58 | 136 => 8,
        33 => 16,
        132 => 16,
        _ => 0,
    }
}

fn payload(packet: &Packet, length: usize, random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length.max(64));
    let fill = random.word().to_le_bytes();
    bytes.resize(length.max(64), fill[0]);
    if random.percent(30) {
        bytes.iter_mut().for_each(|b| *b = random.word() as u8);
    }
    if matches!(packet.l4, L4::Fragment | L4::FragmentAt8) {
        bytes.truncate(length);
        return bytes;
    }
    let [s0, s1] = packet.source_port.to_be_bytes();
    let [d0, d1] = packet.destination_port.to_be_bytes();
    match packet.protocol {
        6 => {
            bytes[..4].copy_from_slice(&[s0, s1, d0, d1]);
            let options = if random.percent(25) && length >= 24 {
                random.below((length - 20) / 4 + 1).min(10)
            } else {
                0
            };
            let words = if random.percent(3) { random.below(16) } else { 5 + options };
            bytes[12] = (words as u8) << 4;
            bytes[13] = packet.tcp_flags;
            tcp_options(&mut bytes[20..20 + 4 * options], random);
        }
        17 | 136 => {
            bytes[..4].copy_from_slice(&[s0, s1, d0, d1]);
            bytes[4..6].copy_from_slice(&(length as u16).to_be_bytes());
        }
        33 => {
            bytes[..4].copy_from_slice(&[s0, s1, d0, d1]);
            bytes[4] = 4; // data begins behind 16 bytes
            bytes[5] = 0;
            bytes[8] = (random.below(16) as u8) << 1 | 1; // a type, long sequence numbers
        }
        132 => {
            bytes[..4].copy_from_slice(&[s0, s1, d0, d1]);
            bytes[12] = random.below(15) as u8; // the first chunk, as long as there is room
            bytes[14..16].copy_from_slice(&(length.saturating_sub(12) as u16).to_be_bytes());
        }
        1 | 58 => {
            bytes[..2].copy_from_slice(&[d0, d1]);
            bytes[4..6].copy_from_slice(&ICMP_ID.to_be_bytes());
        }
        _ => {}
    }
    bytes.truncate(length);
    bytes
}

/// Maximum segment size, nothing, the end, or anything.
fn tcp_options(bytes: &mut [u8], random: &mut Random) {
    bytes.fill(1);
    match random.below(4) {
        0 => {}
        1 => {
            let mss = [536, 1200, 1400, 1460][random.below(4)] as u16;
            if let Some(place) = bytes.get_mut(..4) {
                place[..2].copy_from_slice(&[2, 4]);
                place[2..].copy_from_slice(&mss.to_be_bytes());
            }
        }
        2 => {
            if let Some(place) = bytes.get_mut(..4) {
                place.copy_from_slice(&[1, 4, 2, 0]); // no-op, selective acknowledgement permitted, end
            }
        }
        _ => bytes.iter_mut().for_each(|b| *b = random.below(9) as u8),
    }
}

/// Sums up 16-bit words, one's complement.
fn sum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(c.get(1).copied().unwrap_or(0)));
    words.fold(0, |sum, word| (sum + word) % 0xffff)
}

fn fill_in_checksum(packet: &Packet, payload: &mut [u8]) {
    let at = match packet.protocol {
        6 => 16,
        17 | 136 | 33 => 6,
        1 | 58 => 2,
        _ => return,
    };
    if payload.len() < at + 2 {
        return;
    }
    payload[at..at + 2].fill(0);
    let address = |x: u128| match packet.is_v6 {
        false => sum(&(x as u32).to_be_bytes()),
        true => sum(&x.to_be_bytes()),
    };
    let pseudo = match packet.protocol {
        1 => 0,
        _ => {
            address(packet.source)
                + address(packet.destination)
                + u32::from(packet.protocol)
                + payload.len() as u32
        }
    };
    let checksum = match !((pseudo + sum(payload)) % 0xffff) as u16 {
        // Zero says that there is none.
        0 => 0xffff,
        checksum => checksum,
    };
    payload[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

fn ipv4_header(
    packet: &Packet,
    id: u16,
    fragment_offset: u16,
    header_bytes: usize,
    payload_bytes: usize,
    random: &mut Random,
) -> Vec<u8> {
    const MORE_FRAGMENTS: u16 = 0x2000;
    const NEVER_FRAGMENT: u16 = 0x4000;
    let flags = match (fragment_offset, random.below(10)) {
        (0, 0) if payload_bytes.is_multiple_of(8) => MORE_FRAGMENTS,
        (0, 1..5) => NEVER_FRAGMENT,
        (1.., 0..5) => MORE_FRAGMENTS,
        _ => 0,
    };
    let total = (header_bytes + payload_bytes).min(65_535) as u16;
    let mut bytes = vec![1; header_bytes]; // options: no-ops
    bytes[0] = 0x40 | (header_bytes / 4) as u8;
    bytes[1] = packet.tos;
    bytes[2..4].copy_from_slice(&total.to_be_bytes());
    bytes[4..6].copy_from_slice(&id.to_be_bytes());
    bytes[6..8].copy_from_slice(&(flags | fragment_offset).to_be_bytes());
    bytes[8] = packet.ttl;
    bytes[9] = packet.protocol;
    bytes[10..12].fill(0);
    bytes[12..16].copy_from_slice(&(packet.source as u32).to_be_bytes());
    bytes[16..20].copy_from_slice(&(packet.destination as u32).to_be_bytes());
    let checksum = !(sum(&bytes) as u16);
    bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

fn ipv6_header(packet: &Packet, label: u16, next_header: u8, payload_bytes: usize) -> Vec<u8> {
    let mut bytes = vec![0x60 | packet.tos >> 4, packet.tos << 4];
    bytes.extend(label.to_be_bytes());
    bytes.extend((payload_bytes.min(65_535) as u16).to_be_bytes());
    bytes.extend([next_header, packet.ttl]);
    bytes.extend(packet.source.to_be_bytes());
    bytes.extend(packet.destination.to_be_bytes());
    bytes
}

/// IPv6 extension headers.
#[derive(Default)]
struct Extensions {
    /// The number of the first.
    first: Option<u8>,
    bytes: Vec<u8>,
    /// Where the last one names what follows.
    last: Option<usize>,
}

impl Extensions {
    fn draw(&mut self, packet: &Packet, fragment_offset: u16, random: &mut Random) {
        let is_asked = self.push_asked(packet, random);
        // Protocols that are extension headers are made by their own number: nothing is put before them.
        if !is_asked && random.percent(30) {
            let count = 1 + random.below(3);
            for place in 0..count {
                match random.below(4) {
                    0 if place == 0 => self.push(0, &[1, 4, 0, 0, 0, 0]),
                    0 | 1 => self.push(60, &[1, 4, 0, 0, 0, 0]),
                    // Type 4, no segments left.
                    2 => self.push(43, &[4, 0, 0, 0, 0, 0]),
                    _ => self.push_ah(random),
                }
            }
        }
        let flags = packet.facts.get(Fact::FragFlags);
        if fragment_offset != 0 || flags != 0 || random.percent(3) {
            let more = if flags == 0 { u16::from(random.percent(50)) } else { (flags >> 1 & 1) as u16 };
            let reserved = if flags & 1 == 1 { 2 + 2 * random.below(3) as u16 } else { 0 };
            let [a, b] = (fragment_offset << 3 | more | reserved).to_be_bytes();
            let id = if flags == 0 { 9 } else { packet.facts.get(Fact::FragId) };
            let [c, d, e, f] = id.to_be_bytes();
            self.push(44, &[a, b, c, d, e, f]);
        }
        if let Some(last) = self.last {
            self.bytes[last] = packet.protocol;
        }
    }

    /// Headers that say what the packet's facts say, as far as they can; whether there were any.
    fn push_asked(&mut self, packet: &Packet, random: &mut Random) -> bool {
        let get = |fact| packet.facts.get(fact);
        let headers = get(Fact::ExtHeaders);
        let mut options = |number: u8, bit: u32, length: u32| {
            if length != 0 || headers & bit != 0 {
                let bytes = (length.clamp(8, 256) as usize).next_multiple_of(8);
                self.announce(number);
                // Options that are padding, of 255 bytes at most each.
                self.bytes.extend([59, (bytes / 8 - 1) as u8, 1, (bytes - 4) as u8]);
                self.bytes.extend(vec![0; bytes - 4]);
            }
        };
        options(0, 128, get(Fact::HbhLength));
        options(60, 64, get(Fact::DstLength));
        if get(Fact::RtType) <= 0xff || headers & 32 != 0 {
            let bytes = (get(Fact::RtLength).clamp(8, 2048) as usize).next_multiple_of(8);
            let (kind, left) = (get(Fact::RtType) as u8, get(Fact::RtSegments) as u8);
            self.announce(43);
            self.bytes.extend([59, (bytes / 8 - 1) as u8, kind, left]);
            self.bytes.extend(vec![0; bytes - 4]);
        }
        if get(Fact::AhLength) != 0 || get(Fact::AhSpi) != 0 || headers & 8 != 0 {
            let bytes = (get(Fact::AhLength).clamp(12, 1028) as usize).next_multiple_of(4);
            let reserved = if get(Fact::AhReserved) == 1 { 1 + random.below(200) as u8 } else { 0 };
            self.announce(51);
            self.bytes.extend([59, (bytes / 4 - 2) as u8, reserved, 0]);
            self.bytes.extend(get(Fact::AhSpi).to_be_bytes());
            self.bytes.extend(vec![0; bytes - 8]);
        }
        self.first.is_some()
    }

    /// A header of 8 bytes.
    fn push(&mut self, number: u8, rest: &[u8; 6]) {
        self.announce(number);
        self.bytes.extend([59, 0]);
        self.bytes.extend(rest);
    }

    fn push_ah(&mut self, random: &mut Random) {
        self.announce(51);
        // 16 bytes: units of 4, less 2.
        self.bytes.extend([59, 2, 0, 0]);
        self.bytes.extend((random.below(4) as u32 * 0x100).to_be_bytes());
        self.bytes.extend([0; 8]);
    }

    fn announce(&mut self, number: u8) {
        match self.last {
            Some(last) => self.bytes[last] = number,
            None => self.first = Some(number),
        }
        self.last = Some(self.bytes.len());
    }
}
