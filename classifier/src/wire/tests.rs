//! Packets built byte by byte.

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::extensions::is_extension;
use super::*;
use crate::packet::Fact;

/// An IPv4 packet from 10.0.0.1 to 10.0.0.2, TTL 64, TOS 0x2e.
fn v4(protocol: u8, fragment_offset: u16, payload: &[u8]) -> Vec<u8> {
    let total = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let [high, low] = fragment_offset.to_be_bytes();
    let mut bytes = vec![0x45, 0x2e, total[0], total[1], 0, 0, high, low, 64, protocol, 0, 0];
    bytes.extend([10, 0, 0, 1, 10, 0, 0, 2]);
    bytes.extend(payload);
    bytes
}

/// An IPv6 packet from ::a to ::b, hop limit 9, traffic class 0x2e.
fn v6(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![0x62, 0xe0, 0, 0, length[0], length[1], next_header, 9];
    bytes.extend(Ipv6Addr::from(0xa).octets());
    bytes.extend(Ipv6Addr::from(0xb).octets());
    bytes.extend(payload);
    bytes
}

/// The fields that differ from packet to packet, in a line.
fn line(packet: &Packet) -> String {
    format!(
        "{} {:?} {}>{} flags {} length {}",
        packet.protocol,
        packet.l4,
        packet.source_port,
        packet.destination_port,
        packet.tcp_flags,
        packet.length
    )
}

#[track_caller]
fn check(bytes: &[u8], expected: &str) {
    let found = match Packet::from_ip_bytes(bytes) {
        Ok(packet) => line(&packet),
        Err(error) => error.to_string(),
    };
    assert_eq!(found, expected);
}

/// Ports 1000 and 80; as ICMP, type 3 code 232.
const START: [u8; 4] = [3, 232, 0, 80];

/// `START` and further bytes, SYN|ACK at byte 13.
fn transport(len: usize) -> Vec<u8> {
    let mut bytes = START.to_vec();
    bytes.resize(20.max(len), 0);
    bytes[13] = 0x12;
    bytes.truncate(len);
    bytes
}

#[test]
fn base_header_fields_are_read() {
    let packet = Packet::from_ip_bytes(&v4(6, 0, &transport(20))).unwrap();
    assert_eq!(packet.source_addr(), Ipv4Addr::new(10, 0, 0, 1));
    assert_eq!(packet.destination_addr(), Ipv4Addr::new(10, 0, 0, 2));
    assert_eq!((packet.is_v6, packet.ttl, packet.tos, packet.length), (false, 64, 0x2e, 40));

    let packet = Packet::from_ip_bytes(&v6(17, &transport(8))).unwrap();
    assert_eq!((packet.source, packet.destination), (0xa, 0xb));
    assert_eq!((packet.is_v6, packet.ttl, packet.tos, packet.length), (true, 9, 0x2e, 48));
}

#[test]
fn a_complete_header_is_whole_for_its_protocol() {
    check(&v4(6, 0, &transport(20)), "6 Whole 1000>80 flags 18 length 40");
    check(&v4(17, 0, &transport(8)), "17 Whole 1000>80 flags 0 length 28");
    check(&v4(136, 0, &transport(8)), "136 Whole 1000>80 flags 0 length 28");
    check(&v4(132, 0, &transport(12)), "132 Whole 1000>80 flags 0 length 32");
    check(&v4(33, 0, &transport(12)), "33 Whole 1000>80 flags 0 length 32");
    check(&v4(1, 0, &transport(8)), "1 Whole 0>1000 flags 0 length 28");
    check(&v6(58, &transport(8)), "58 Whole 0>1000 flags 0 length 48");
    check(&v4(47, 0, &transport(20)), "47 Whole 0>0 flags 0 length 40");
}

#[test]
fn a_header_cut_short_says_where() {
    check(&v4(6, 0, &transport(19)), "6 Under20 1000>80 flags 18 length 39");
    check(&v4(6, 0, &transport(14)), "6 Under20 1000>80 flags 18 length 34");
    check(&v4(6, 0, &transport(13)), "6 Under20 1000>80 flags 0 length 33");
    check(&v4(6, 0, &transport(12)), "6 Under20 1000>80 flags 0 length 32");
    check(&v4(6, 0, &transport(11)), "6 Under12 1000>80 flags 0 length 31");
    check(&v4(6, 0, &transport(8)), "6 Under12 1000>80 flags 0 length 28");
    check(&v4(17, 0, &transport(7)), "17 Under8 1000>80 flags 0 length 27");
    check(&v4(17, 0, &transport(4)), "17 Under8 1000>80 flags 0 length 24");
    check(&v4(17, 0, &transport(3)), "17 Under4 0>0 flags 0 length 23");
    check(&v4(132, 0, &transport(11)), "132 Under12 1000>80 flags 0 length 31");
    check(&v4(1, 0, &[]), "1 Under4 0>0 flags 0 length 20");
    check(&v6(59, &[]), "59 Under4 0>0 flags 0 length 40");
    check(&v4(47, 0, &transport(4)), "47 Under8 0>0 flags 0 length 24");
    check(&v4(47, 0, &transport(19)), "47 Under20 0>0 flags 0 length 39");
}

#[test]
fn a_segment_size_is_found_as_the_kernel_finds_it() {
    #[track_caller]
    fn check(options: &[u8], expected: u32) {
        let mut header = transport(20);
        header[12] = ((20 + options.len()) as u8 / 4) << 4;
        header.extend(options);
        let packet = Packet::from_ip_bytes(&v4(6, 0, &header)).unwrap();
        assert_eq!(packet.facts.get(Fact::Mss), expected, "{options:?}");
    }
    let none = Fact::Mss.max();
    check(&[], none);
    check(&[2, 4, 5, 180], 1460);
    check(&[1, 1, 1, 1, 2, 4, 5, 180], 1460);
    check(&[3, 3, 7, 1, 2, 4, 5, 180], 1460);
    // Behind the end of the list, behind an option of no length, or of one.
    check(&[0, 0, 0, 0, 2, 4, 5, 180], 1460);
    check(&[9, 0, 1, 1, 2, 4, 5, 180], 1460);
    check(&[9, 1, 1, 1, 2, 4, 5, 180], 1460);
    // Of another length, or inside of an option, or cut off.
    check(&[2, 3, 5, 180, 1, 1, 1, 1], none);
    check(&[9, 8, 1, 1, 2, 4, 5, 180], none);
    check(&[9, 9, 1, 1, 2, 4, 5, 180], none);
    check(&[1, 2, 4, 5], none);
    check(&[1, 1, 1, 2], none);
}

#[test]
fn a_later_fragment_has_no_ports_and_a_first_one_has() {
    let more_fragments = 0x2000;
    check(&v4(6, more_fragments, &transport(20)), "6 Whole 1000>80 flags 18 length 40");
    check(&v4(6, 1, &transport(20)), "6 FragmentAt8 0>0 flags 0 length 40");
    check(&v4(6, more_fragments | 2, &transport(20)), "6 Fragment 0>0 flags 0 length 40");
    check(&v4(17, 0x1fff, &transport(1)), "17 Fragment 0>0 flags 0 length 21");
}

#[test]
fn ipv4_options_are_stepped_over_and_padding_left_out() {
    let mut bytes = v4(17, 0, &transport(12));
    bytes[0] = 0x46;
    check(&bytes, "17 Whole 0>0 flags 0 length 32");

    let mut padded = v4(6, 0, &transport(10));
    padded.resize(64, 0xff);
    check(&padded, "6 Under12 1000>80 flags 0 length 30");
}

#[test]
fn ipv4_does_not_look_behind_ah() {
    check(&v4(51, 0, &transport(32)), "51 Whole 0>0 flags 0 length 52");
}

#[test]
fn ipv6_extension_headers_are_walked_in_any_order() {
    let mut walked = Vec::new();
    walked.extend([60, 0, 0, 0, 0, 0, 0, 0]); // hop-by-hop, then destination
    walked.extend([43, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // 16 bytes, then routing
    walked.extend([51, 0, 0, 0, 0, 0, 0, 0]); // then AH
    walked.extend([44, 4, 0, 0]); // of 24 bytes, then fragment
    walked.extend([0; 20]);
    walked.extend([0, 0, 0, 1, 0, 0, 0, 7]); // offset 0, more to come; hop-by-hop once more
    walked.extend([6, 0, 0, 0, 0, 0, 0, 0]);
    walked.extend(transport(20));
    check(&v6(0, &walked), "6 Whole 1000>80 flags 18 length 132");
}

#[test]
fn ipv6_headers_that_the_kernel_does_not_walk_are_protocols() {
    for header in [50, 59, 135, 139, 140] {
        check(&v6(header, &[6, 0, 0, 0, 0, 0, 0, 0]), &format!("{header} Under12 0>0 flags 0 length 48"));
    }
}

#[test]
fn an_ipv6_fragment_header_names_the_protocol() {
    let fragment = |protocol, offset: u16| {
        let [high, low] = (offset << 3 | 1).to_be_bytes();
        let mut payload = vec![protocol, 0, high, low, 0, 0, 0, 7];
        payload.extend(transport(20));
        v6(44, &payload)
    };
    check(&fragment(6, 0), "6 Whole 1000>80 flags 18 length 68");
    check(&fragment(6, 1), "6 FragmentAt8 0>0 flags 0 length 68");
    check(&fragment(17, 2), "17 Fragment 0>0 flags 0 length 68");
    check(&fragment(59, 2), "59 Fragment 0>0 flags 0 length 68");
    check(
        &fragment(60, 2),
        "a later fragment goes on inside extension header 60: the kernel drops such a packet at the \
         first rule that tests a protocol",
    );
}

#[test]
fn broken_ipv6_extension_headers_are_told_from_long_ones() {
    check(
        &v6(60, &[6]),
        "extension header 60 should begin at byte 40, where the packet has ended: the kernel drops \
         such a packet at the first rule that tests a protocol",
    );
    check(
        &v6(44, &[6, 0, 0]),
        "extension header 44 should begin at byte 40, where the packet has ended: the kernel drops \
         such a packet at the first rule that tests a protocol",
    );
    check(
        &v6(43, &[6, 0, 4]),
        "extension header 43 should begin at byte 40, where the packet has ended: the kernel drops \
         such a packet at the first rule that tests a protocol",
    );
    // The second header claims 2,048 bytes: the protocol is known, its header out of reach.
    let second = [60, 0, 0, 0, 0, 0, 0, 0, 6, 255, 0, 0, 0, 0, 0, 0];
    check(&v6(60, &second), "6 Under4 0>0 flags 0 length 56");
}

/// The facts that extension headers give, that differ from those of a packet without.
#[track_caller]
fn check_facts(next_header: u8, payload: &[u8], expected: &str) {
    let found = Packet::from_ip_bytes(&v6(next_header, payload));
    let facts = found.map(|packet| {
        let differ = Fact::ALL.into_iter().filter(|f| *f != Fact::Spi && packet.facts.get(*f) != f.usual());
        let shown: Vec<String> = differ.map(|f| format!("{f:?} {}", packet.facts.get(f))).collect();
        shown.join(", ")
    });
    assert_eq!(facts.unwrap_or_else(|error| error.to_string()), expected);
}

const AH: [u8; 16] = [59, 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 9, 0, 0, 0, 0];

#[test]
fn what_rules_test_of_extension_headers_is_read() {
    check_facts(6, &transport(20), "");
    check_facts(59, &[], "ExtHeaders 2");
    check_facts(50, &[0; 8], "ExtHeaders 4");
    check_facts(50, &[0], "ExtHeaders 0");
    check_facts(51, &AH, "AhSpi 258, AhLength 16, ExtHeaders 10");
    check_facts(
        51,
        &[&[6, 2, 0, 1], &AH[4..]].concat(),
        "AhSpi 258, AhLength 16, AhReserved 1, ExtHeaders 9",
    );
    check_facts(0, &[59, 0, 1, 4, 0, 0, 0, 0], "HbhLength 8, ExtHeaders 130");
    check_facts(60, &[&[59, 1, 1][..], &[0; 13]].concat(), "DstLength 16, ExtHeaders 66");
    check_facts(43, &[59, 0, 4, 3, 0, 0, 0, 0], "RtType 4, RtSegments 3, RtLength 8, ExtHeaders 34");
    check_facts(44, &[59, 0, 0, 0, 0, 0, 0, 7], "FragId 7, FragFlags 8, ExtHeaders 18");
    check_facts(44, &[17, 0, 0, 9, 0, 0, 1, 0, 0], "FragId 256, FragFlags 14, ExtHeaders 17");
    check_facts(44, &[50, 0, 0, 8, 0, 0, 1, 0, 0], "FragId 256, FragFlags 12, ExtHeaders 0");
    for reserved in [[59, 1, 0, 0], [59, 0, 0, 2], [59, 0, 0, 4]] {
        check_facts(44, &[&reserved[..], &[0, 0, 0, 7]].concat(), "FragId 7, FragFlags 9, ExtHeaders 18");
    }
}

#[test]
fn of_several_headers_of_a_kind_the_first_counts() {
    let second = [6, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    check_facts(60, &[&[60, 0, 0, 0, 0, 0, 0, 0][..], &second].concat(), "DstLength 8, ExtHeaders 65");
    let second = [43, 0, 9, 9, 0, 0, 0, 0, 59, 0, 1, 1, 0, 0, 0, 0];
    check_facts(43, &second, "RtType 9, RtSegments 9, RtLength 8, ExtHeaders 34");
}

#[test]
fn a_first_header_that_claims_more_than_there_is_is_refused() {
    check_facts(60, &[60, 0, 0, 0, 0, 0, 0, 0, 59, 255], "DstLength 8, ExtHeaders 64");
    check_facts(60, &[60, 0, 0, 0, 0, 0, 0, 0, 50, 255], "DstLength 8, ExtHeaders 64");
    check_facts(60, &[60, 0, 0, 0, 0, 0, 0, 0, 6, 255], "DstLength 8, ExtHeaders 65");
    let within = |header| {
        format!(
            "the packet ends within extension header {header}, which begins at byte 40: the kernel drops \
             such a packet at the first rule that tests a field of it"
        )
    };
    check_facts(60, &[6, 255, 0, 0, 0, 0, 0, 0], &within(60));
    check_facts(0, &[6, 1, 0, 0, 0, 0, 0, 0], &within(0));
    check_facts(43, &[59, 1, 4, 0, 0, 0, 0, 0], &within(43));
    check_facts(51, &AH[..15], &within(51));
    check_facts(51, &[59, 0, 0, 0, 0, 0, 1, 2], &within(51));
    check_facts(51, &[&[59, 1][..], &AH[2..12]].concat(), "AhSpi 258, AhLength 12, ExtHeaders 10");
    check_facts(44, &[59, 0, 0, 0, 0, 0, 0], &within(44));
}

#[test]
fn a_jumbogram_is_as_long_as_its_bytes() {
    let mut bytes = v6(0, &[17, 0, 0xc2, 4, 0, 1, 0, 0, 3, 232, 0, 80, 0, 8, 0, 0]);
    bytes[4..6].copy_from_slice(&[0, 0]);
    check(&bytes, "17 Whole 1000>80 flags 0 length 56");
}

#[test]
fn bytes_that_are_no_packet_are_refused() {
    let whole = v4(6, 0, &transport(20));
    check(&[], "no bytes: an IP packet begins with its version");
    check(&[0x50; 40], "IP version 5: wanted 4 or 6 (is there a link-layer header before the packet?)");
    check(&whole[..19], "the IP header has 20 bytes, but 19 are given");
    check(&[&[0x4f], &whole[1..]].concat(), "the IP header has 60 bytes, but 40 are given");
    check(&[&[0x44], &whole[1..]].concat(), "the IPv4 header length is 4 words: it is 5 at least");
    check(&v6(6, &[])[..39], "the IP header has 40 bytes, but 39 are given");
    check(&whole[..39], "the packet's length is 40 bytes, but 39 are given: was its capture cut?");
    check(
        &v6(6, &transport(20))[..59],
        "the packet's length is 60 bytes, but 59 are given: was its capture cut?",
    );
    let mut short = whole;
    short[3] = 19;
    check(&short, "the packet's length is 19 bytes, but its header alone has 20");
}

/// Ports and lengths, mostly from the edges.
fn edge_u16() -> impl Strategy<Value = u16> {
    prop_oneof![Just(0), Just(1), Just(1023), Just(1024), Just(65535), any::<u16>()]
}

proptest! {
    #[test]
    fn a_built_packet_reads_back(
        source: u32, destination: u32, ttl: u8,
        sport in edge_u16(), dport in edge_u16(), syn: bool, ack: bool, len in 0..64_usize,
    ) {
        let payload = vec![0; len];
        let mut tcp = PacketBuilder::ipv4(source.to_be_bytes(), destination.to_be_bytes(), ttl)
            .tcp(sport, dport, 1, 1024);
        if syn { tcp = tcp.syn(); }
        if ack { tcp = tcp.ack(2); }
        let mut bytes = Vec::new();
        tcp.write(&mut bytes, &payload).unwrap();
        let expected = Packet {
            source: source.into(), destination: destination.into(), protocol: 6, ttl,
            source_port: sport, destination_port: dport,
            tcp_flags: u8::from(syn) * 2 + u8::from(ack) * 16,
            length: bytes.len() as u32, ..Packet::default()
        };
        prop_assert_eq!(Packet::from_ip_bytes(&bytes), Ok(expected));

        let mut bytes = Vec::new();
        PacketBuilder::ipv6(u128::from(source).to_be_bytes(), [0xff; 16], ttl)
            .udp(sport, dport).write(&mut bytes, &payload).unwrap();
        let expected = Packet {
            is_v6: true, source: source.into(), destination: u128::MAX, protocol: 17, ttl,
            source_port: sport, destination_port: dport,
            length: bytes.len() as u32, ..Packet::default()
        };
        prop_assert_eq!(Packet::from_ip_bytes(&bytes), Ok(expected));
    }

    #[test]
    fn no_bytes_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..120), version in 0..4_u8) {
        if let (Some(first), 1..) = (bytes.first_mut(), version) {
            *first = [0x45, 0x46, 0x60][usize::from(version) - 1];
        }
        let _ = Packet::from_ip_bytes(&bytes);
    }

    /// Chains of extension headers with a length that fits, cut anywhere.
    #[test]
    fn no_chain_of_extensions_panics(
        chain in prop::collection::vec(
            (prop_oneof![Just(0_u8), Just(43), Just(44), Just(51), Just(60), Just(6)],
             prop_oneof![Just(0_u8), Just(1), Just(255)], 0..3_u8), 0..12),
        cut in 0..100_usize,
    ) {
        let first = chain.first().map_or(59, |c| c.0);
        let mut payload = Vec::new();
        for (next, length, offset) in chain.into_iter().skip(1) {
            payload.extend([next, length, 0, offset << 3, 0, 0, 0, 0]);
        }
        payload.truncate(cut);
        if let Ok(packet) = Packet::from_ip_bytes(&v6(first, &payload)) {
            prop_assert!(!is_extension(packet.protocol));
        }
    }
}
