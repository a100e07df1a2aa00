//! Both formats read back what they write; bad lines say where.

use proptest::prelude::*;

use super::*;

#[track_caller]
fn check_filter(line: &str, expected: &str) {
    let found = match read_filters(line.as_bytes()) {
        Ok(filters) => filters.iter().map(Filter::to_string).collect::<Vec<_>>().join("; "),
        Err(error) => error.to_string(),
    };
    assert_eq!(found, expected);
}

#[track_caller]
fn check_packet(line: &str, expected: &str) {
    let found = match read_packets(line.as_bytes()) {
        Ok(packets) => format!("{packets:?}"),
        Err(error) => error.to_string(),
    };
    assert_eq!(found, expected);
}

const LINE: &str = "@10.1.2.3/8\t0.0.0.0/0\t0 : 65535\t80 : 443\t0x06/0xFF\t0x1000/0x1000\t";

#[test]
fn a_filter_is_read_with_its_host_bits_masked() {
    check_filter(LINE, "10.0.0.0/8 0.0.0.0/0 * 80-443 6");
    check_filter(&LINE.replace('\t', " "), "10.0.0.0/8 0.0.0.0/0 * 80-443 6");
    check_filter(&LINE.replace("0x06/0xFF", "0x06/0x00"), "10.0.0.0/8 0.0.0.0/0 * 80-443 *");
    check_filter(&LINE.replace("\t0x1000/0x1000\t", ""), "10.0.0.0/8 0.0.0.0/0 * 80-443 6");
}

#[test]
fn line_ends_of_all_kinds_are_read() {
    let two = "10.0.0.0/8 0.0.0.0/0 * 80-443 6; 10.0.0.0/8 0.0.0.0/0 * 80-443 6";
    check_filter(&format!("{LINE}\n{LINE}"), two);
    check_filter(&format!("{LINE}\r\n{LINE}\r\n"), two);
    check_filter(&format!("{LINE}\n{LINE}\n\n\r\n"), two);
    check_filter("", "");
}

#[test]
fn a_bad_filter_says_where_and_what() {
    let check = |from: &str, to: &str, expected: &str| {
        check_filter(&format!("{LINE}\n{}", LINE.replacen(from, to, 1)), expected);
    };
    check("@", "", "line 2, column 1: wanted @ at the beginning of a filter");
    check("10.1", "256.1", "line 2, column 2: a byte of an address is over 255");
    check("10.1.2", "10.1", "line 2, column 8: wanted a dot");
    check("/8", "/33", "line 2, column 11: a prefix length is over 32");
    check("/8", "", "line 2, column 10: wanted a slash and a prefix length");
    check("65535", "65536", "line 2, column 27: a port is over 65535");
    check("80 : 443", "443 : 80", "line 2, column 33: the range 443 : 80 ends before it begins");
    check("80 : 443", "80", "line 2, column 36: wanted a colon and the last port");
    check("0x06", "6", "line 2, column 42: wanted a number that begins with 0x");
    check("0x06", "0x", "line 2, column 44: wanted a protocol");
    check("0xFF", "0x0F", "line 2, column 47: protocol mask 0x0f: wanted 0xff (this protocol) or 0x00 (all)");
    check("0x1000", "0x10000", "line 2, column 54: the value of flags is over 65535");
    check("0x1000\t", "0x1000\tx", "line 2, column 66: wanted the end of the line");
}

#[test]
fn an_empty_line_in_the_middle_is_refused_because_lines_number_filters() {
    check_filter(
        &format!("{LINE}\n\n\n{LINE}"),
        "line 2, column 1: empty line; they may stand only at the end",
    );
}

#[test]
fn an_endless_line_is_refused() {
    check_filter(
        &format!("{LINE}{}", " ".repeat(5000)),
        "line 1, column 1025: the line is longer than 1024 bytes",
    );
    check_filter(&format!("{LINE}{}", " ".repeat(1024 - LINE.len())), "10.0.0.0/8 0.0.0.0/0 * 80-443 6");
}

#[test]
fn packets_are_read() {
    check_packet(
        "1\t4294967295\t0\t65535\t6\t17\n",
        "[TracePacket { source: 1, destination: 4294967295, source_port: 0, destination_port: 65535, \
         protocol: 6, filter: Some(17) }]",
    );
    check_packet(
        "1 2 3 4 5 -1",
        "[TracePacket { source: 1, destination: 2, source_port: 3, destination_port: 4, protocol: 5, \
         filter: None }]",
    );
}

#[test]
fn a_bad_packet_says_where_and_what() {
    check_packet("x", "line 1, column 1: wanted a source address in decimal");
    check_packet("1\t4294967296", "line 1, column 3: a destination address in decimal is over 4294967295");
    check_packet("1\t2\t3\t4\t256\t0", "line 1, column 9: a protocol is over 255");
    check_packet("1\t2\t3\t4\t5", "line 1, column 10: wanted a tab and a further field");
    check_packet("1\t2\t3\t4\t5\t6\t7", "line 1, column 13: wanted the end of the line");
}

prop_compose! {
    fn any_prefix()(address: u32, len in 0..=32_u8) -> Prefix { Prefix::new(address, len).unwrap() }
}

prop_compose! {
    fn any_ports()(a: u16, b: u16) -> PortRange { PortRange::new(a.min(b), a.max(b)).unwrap() }
}

prop_compose! {
    fn any_filter()(
        source in any_prefix(), destination in any_prefix(),
        source_ports in any_ports(), destination_ports in any_ports(),
        protocol: Option<u8>, value: u16, mask: u16,
    ) -> Filter {
        Filter { source, destination, source_ports, destination_ports, protocol, flags: Flags { value, mask } }
    }
}

prop_compose! {
    fn any_packet()(
        source: u32, destination: u32, source_port: u16, destination_port: u16, protocol: u8,
        filter: Option<u32>,
    ) -> TracePacket {
        TracePacket { source, destination, source_port, destination_port, protocol, filter }
    }
}

proptest! {
    #[test]
    fn filters_read_back(filters in prop::collection::vec(any_filter(), 0..20)) {
        let mut text = Vec::new();
        write_filters(&mut text, &filters).unwrap();
        prop_assert_eq!(read_filters(&text[..]).unwrap(), filters);
    }

    #[test]
    fn packets_read_back(packets in prop::collection::vec(any_packet(), 0..20)) {
        let mut text = Vec::new();
        write_packets(&mut text, &packets).unwrap();
        prop_assert_eq!(read_packets(&text[..]).unwrap(), packets);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read_filters(&bytes[..]);
        let _ = read_packets(&bytes[..]);
    }

    /// A good line with one byte changed reads, or names a place that it has.
    #[test]
    fn a_damaged_line_is_read_or_placed(at in 0..LINE.len(), byte: u8) {
        let mut line = LINE.as_bytes().to_vec();
        line[at] = byte;
        if let Err(error) = read_filters(&line[..]) {
            let ReadError::Malformed { line, column, .. } = error else { panic!("{error}") };
            prop_assert!((1..=2).contains(&line) && (1..=LINE.len() + 1).contains(&column));
        }
    }
}
