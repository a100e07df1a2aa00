//! From text to a packet.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use hipac_classifier::{InterfaceName, Packet};
use hipac_rules::{Family, Field, names};

use super::{
    CT_STATES, IPSEC, L4_STATES, Names, PACKET_TYPES, RECEIVERS, ROUTE_TYPES, TCP_FLAGS, WAYS_BACK, is_icmp,
    words,
};
use crate::fields;

/// What is wrong with the text of a packet. Displays as the words in question and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PacketTextError {
    words: String,
    problem: String,
}

impl std::error::Error for PacketTextError {}

impl fmt::Display for PacketTextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.words, self.problem)
    }
}

/// How the value of a flag is read.
#[derive(Clone, Copy)]
enum Kind {
    Interface,
    Address,
    Protocol,
    /// A number, or one of these names.
    Number(&'static Names),
    IcmpType,
    TcpFlags,
    CtState,
    Mac,
    /// No value: the field gets this number.
    Set(u8),
}

struct Flag {
    names: &'static [&'static str],
    field: Field,
    kind: Kind,
}

const fn flag(names: &'static [&'static str], field: Field, kind: Kind) -> Flag {
    Flag { names, field, kind }
}

const FLAGS: [Flag; 50] = [
    flag(&["-i", "--in-interface"], Field::InInterface, Kind::Interface),
    flag(&["-o", "--out-interface"], Field::OutInterface, Kind::Interface),
    flag(&["-s", "--source", "--src"], Field::Source, Kind::Address),
    flag(&["-d", "--destination", "--dst"], Field::Destination, Kind::Address),
    flag(&["-p", "--protocol", "--proto"], Field::Protocol, Kind::Protocol),
    flag(&["--sport", "--source-port"], Field::SourcePort, Kind::Number(&[])),
    flag(&["--dport", "--destination-port"], Field::DestinationPort, Kind::Number(&[])),
    flag(&["--icmp-type", "--icmpv6-type"], Field::DestinationPort, Kind::IcmpType),
    flag(&["--tcp-flags"], Field::TcpFlags, Kind::TcpFlags),
    flag(&["--l4"], Field::L4, Kind::Number(L4_STATES)),
    flag(&["-f", "--fragment"], Field::L4, Kind::Set(1)),
    flag(&["--ctstate"], Field::CtState, Kind::CtState),
    flag(&["--mark"], Field::Mark, Kind::Number(&[])),
    flag(&["--connmark"], Field::ConnMark, Kind::Number(&[])),
    flag(&["--ttl", "--hl"], Field::Ttl, Kind::Number(&[])),
    flag(&["--tos"], Field::Tos, Kind::Number(&[])),
    flag(&["--length"], Field::Length, Kind::Number(&[])),
    flag(&["--mac", "--mac-source"], Field::Mac, Kind::Mac),
    flag(&["--pkt-type"], Field::PacketType, Kind::Number(PACKET_TYPES)),
    flag(&["--src-type"], Field::SourceType, Kind::Number(ROUTE_TYPES)),
    flag(&["--dst-type"], Field::DestinationType, Kind::Number(ROUTE_TYPES)),
    flag(&["--physdev-in"], Field::PhysIn, Kind::Interface),
    flag(&["--physdev-out"], Field::PhysOut, Kind::Interface),
    flag(&["--bridged"], Field::Bridged, Kind::Set(1)),
    flag(&["--cpu"], Field::Cpu, Kind::Number(&[])),
    flag(&["--realm"], Field::Realm, Kind::Number(&[])),
    flag(&["--src-group"], Field::InGroup, Kind::Number(&[])),
    flag(&["--dst-group"], Field::OutGroup, Kind::Number(&[])),
    flag(&["--uid-owner"], Field::Uid, Kind::Number(&[])),
    flag(&["--gid-owner"], Field::Gid, Kind::Number(&[])),
    flag(&["--socket"], Field::Socket, Kind::Set(1)),
    flag(&["--spi"], Field::Spi, Kind::Number(&[])),
    flag(&["--dccp-type"], Field::DccpType, Kind::Number(&[])),
    flag(&["--mss"], Field::Mss, Kind::Number(&[])),
    flag(&["--helper"], Field::Helper, Kind::Interface),
    flag(&["--ahspi"], Field::AhSpi, Kind::Number(&[])),
    flag(&["--fragid"], Field::FragId, Kind::Number(&[])),
    flag(&["--ahlen"], Field::AhLength, Kind::Number(&[])),
    flag(&["--ah-reserved"], Field::AhReserved, Kind::Set(1)),
    flag(&["--frag-flags"], Field::FragFlags, Kind::Number(&[])),
    flag(&["--rt-type"], Field::RtType, Kind::Number(&[])),
    flag(&["--rt-segsleft"], Field::RtSegments, Kind::Number(&[])),
    flag(&["--rt-len"], Field::RtLength, Kind::Number(&[])),
    flag(&["--dst-len"], Field::DstLength, Kind::Number(&[])),
    flag(&["--hbh-len"], Field::HbhLength, Kind::Number(&[])),
    flag(&["--way-back"], Field::WayBack, Kind::Number(WAYS_BACK)),
    flag(&["--receiver"], Field::Receiver, Kind::Number(RECEIVERS)),
    flag(&["--ipsec"], Field::Ipsec, Kind::Number(IPSEC)),
    flag(&["--own-interfaces"], Field::OwnInterfaces, Kind::Number(&[])),
    flag(&["--ext-headers"], Field::ExtHeaders, Kind::Number(&[])),
];

/// The packet that a text describes: see [the module](super) for its flags.
///
/// # Errors
///
/// The first word that is no flag, has no value or a wrong one, or says again what another has said.
pub fn parse(text: &str, family: Family) -> Result<Packet, PacketTextError> {
    let words = words::split(text).ok_or_else(|| error(text, "a quote `\"` is not closed"))?;
    let mut packet = fields::default_packet(family);
    let mut seen: Vec<(Field, &str)> = Vec::new();
    // `--dport` and `--icmp-type` write the same field; which one is right depends on the protocol,
    // which may come later.
    let mut port_flag: Option<&str> = None;
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        let flag = find_flag(word)?;
        if let Some((_, before)) = seen.iter().find(|s| s.0 == flag.field) {
            return Err(error(word, format!("`{before}` has said this already")));
        }
        seen.push((flag.field, word));
        if flag.field == Field::DestinationPort {
            port_flag = Some(word);
        }
        if let Kind::Set(number) = flag.kind {
            fields::write_number(&mut packet, flag.field, number.into());
            continue;
        }
        let value = rest.next().ok_or_else(|| error(word, "a value must follow"))?;
        write_value(&mut packet, family, flag, value)
            .map_err(|problem| error(format!("{word} {value}"), problem))?;
    }
    if let Some(word) = port_flag {
        check_port_flag(word, &packet)?;
    }
    Ok(packet)
}

fn error(words: impl Into<String>, problem: impl Into<String>) -> PacketTextError {
    PacketTextError { words: words.into(), problem: problem.into() }
}

fn find_flag(word: &str) -> Result<&'static Flag, PacketTextError> {
    if word == "!" {
        return Err(error(word, "a packet has values, it tests nothing: say the value itself"));
    }
    FLAGS.iter().find(|f| f.names.contains(&word)).ok_or_else(|| {
        let known: Vec<&str> = FLAGS.iter().map(|f| f.names[0]).collect();
        error(word, format!("no flag of a packet; there are {}", known.join(" ")))
    })
}

fn write_value(packet: &mut Packet, family: Family, flag: &Flag, text: &str) -> Result<(), String> {
    let number = match flag.kind {
        Kind::Interface => {
            let name = InterfaceName::new(text).ok_or("an interface name has at most 15 bytes and no NUL")?;
            fields::write_interface(packet, flag.field, name);
            return Ok(());
        }
        Kind::Address => address(text, family)?,
        Kind::Protocol => {
            names::protocol_number(text).ok_or("neither a protocol's name nor its number")?.into()
        }
        Kind::Number(names) => number(text, names, fields::number_max(family, flag.field))?,
        Kind::IcmpType => icmp_type(text)?,
        Kind::TcpFlags => tcp_flags(text)?,
        Kind::CtState => ct_state(text)?,
        Kind::Mac => mac(text)?,
        Kind::Set(number) => number.into(),
    };
    if fields::write_number(packet, flag.field, number) {
        Ok(())
    } else {
        Err(format!("{number} is out of range"))
    }
}

fn address(text: &str, family: Family) -> Result<u128, String> {
    if text.contains('/') {
        return Err("a packet has one address, not a network: leave out the mask".into());
    }
    let (v4, v6) = (text.parse::<Ipv4Addr>(), text.parse::<Ipv6Addr>());
    match (family, v4, v6) {
        (Family::V4, Ok(a), _) => Ok(u32::from(a).into()),
        (Family::V6, _, Ok(a)) => Ok(a.into()),
        (Family::V4, _, Ok(_)) => Err("an IPv6 address, but the packet is IPv4".into()),
        (Family::V6, Ok(_), _) => Err("an IPv4 address, but the packet is IPv6".into()),
        (Family::V4, ..) => Err("not an address, like 192.0.2.7".into()),
        (Family::V6, ..) => Err("not an address, like 2001:db8::7".into()),
    }
}

fn number(text: &str, names: &Names, max: u128) -> Result<u128, String> {
    if let Some((_, number)) = names.iter().find(|n| n.0.eq_ignore_ascii_case(text)) {
        return Ok((*number).into());
    }
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        // The parser of the library would take a sign too.
        Some(hex) if !hex.starts_with('+') => u128::from_str_radix(hex, 16).ok(),
        None if !text.starts_with('+') => text.parse().ok(),
        _ => None,
    };
    parsed.filter(|&n| n <= max).ok_or_else(|| {
        let names: Vec<&str> = names.iter().map(|n| n.0).collect();
        let or = if names.is_empty() { String::new() } else { format!(", or one of {}", names.join(" ")) };
        format!("expected a number from 0 to {max}{or}")
    })
}

fn icmp_type(text: &str) -> Result<u128, String> {
    let (kind, code) = text.split_once('/').unwrap_or((text, "0"));
    let byte = |t| {
        number(t, &[], 255).map_err(|_| "expected TYPE or TYPE/CODE, each a number from 0 to 255".to_owned())
    };
    Ok(byte(kind)? << 8 | byte(code)?)
}

fn tcp_flags(text: &str) -> Result<u128, String> {
    text.split(',').try_fold(0, |set, name| {
        let flag = TCP_FLAGS.iter().find(|f| f.0.eq_ignore_ascii_case(name));
        let known = "FIN, SYN, RST, PSH, ACK, URG, ECE, CWR, ALL, NONE";
        Ok(set | u128::from(flag.ok_or_else(|| format!("`{name}` is not among {known}"))?.1))
    })
}

/// The number of a connection state as [`Field::CtState`] has it.
fn ct_state(text: &str) -> Result<u128, String> {
    const NAT: &Names = &[("SNAT", 8), ("DNAT", 16)];
    let find = |names: &Names, word: &str| {
        names.iter().find(|n| n.0.eq_ignore_ascii_case(word)).map(|n| u128::from(n.1))
    };
    let (mut state, mut nat) = (None, 0);
    for word in text.split(',') {
        if let Some(bit) = find(NAT, word) {
            nat |= bit;
        } else if let Some(number) = find(CT_STATES, word) {
            if state.replace(number).is_some() {
                return Err("a packet has one connection state".into());
            }
        } else {
            return Err(format!(
                "`{word}` is not among INVALID, NEW, RELATED, ESTABLISHED, UNTRACKED, SNAT, DNAT"
            ));
        }
    }
    let new = find(CT_STATES, "NEW").unwrap_or(0);
    Ok(state.unwrap_or(new) | nat)
}

/// The number of an Ethernet address as [`Field::Mac`] has it.
fn mac(text: &str) -> Result<u128, String> {
    let bytes: Vec<&str> = text.split(':').collect();
    let is_byte = |b: &&str| b.len() == 2 && b.bytes().all(|c| c.is_ascii_hexdigit());
    if bytes.len() != 6 || !bytes.iter().all(is_byte) {
        return Err("expected an Ethernet address, like 00:11:22:33:44:55".into());
    }
    let number = u128::from_str_radix(&bytes.concat(), 16).map_err(|e| e.to_string())?;
    Ok(1 << 48 | number)
}

fn check_port_flag(word: &str, packet: &Packet) -> Result<(), PacketTextError> {
    let icmp = if packet.is_v6 { "icmpv6" } else { "icmp" };
    match (word.starts_with("--icmp"), is_icmp(packet)) {
        (true, false) => Err(error(word, format!("the packet is not ICMP: say `-p {icmp}`"))),
        (false, true) => Err(error(word, "an ICMP packet has no ports: say `--icmp-type`")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::show;
    use super::*;
    use crate::fields::{INTERFACES, NUMBERS, number_max};
    use proptest::prelude::*;

    #[track_caller]
    fn check(family: Family, text: &str, expected: &str) {
        let shown = match parse(text, family) {
            Ok(packet) => show(&packet).to_string(),
            Err(error) => format!("error: {error}"),
        };
        assert_eq!(shown, expected);
    }

    #[test]
    fn text_is_read_and_printed_in_its_canonical_form() {
        use Family::{V4, V6};
        check(V4, "", "");
        check(
            V4,
            "-p TCP --dport 22 --source-port 0x9c40 --src 10.1.2.3 -d 192.0.2.7 -i eth0 --tcp-flags ack,SYN --ctstate NEW",
            "-i eth0 -s 10.1.2.3 -d 192.0.2.7 -p tcp --sport 40000 --dport 22 --tcp-flags SYN,ACK",
        );
        check(V4, "--icmp-type 3/4 -p icmp", "-p icmp --icmp-type 3/4");
        check(V6, "-p icmpv6 --icmp-type 128 -s ::1", "-s ::1 -p ipv6-icmp --icmp-type 128");
        check(V4, "--ctstate DNAT", "--ctstate NEW,DNAT");
        check(V4, "--ctstate SNAT,ESTABLISHED,DNAT", "--ctstate ESTABLISHED,SNAT,DNAT");
        check(V4, "-f --mark 255 --tos 16", "--l4 fragment --mark 0xff --tos 0x10");
        check(V4, "--mac 00:AA:bb:00:00:01 --pkt-type host", "--mac 00:aa:bb:00:00:01");
        check(
            V4,
            "--src-type local --dst-type 77",
            "error: `--dst-type 77`: expected a number from 0 to 11, or one of UNSPEC UNICAST LOCAL BROADCAST ANYCAST MULTICAST BLACKHOLE UNREACHABLE PROHIBIT THROW NAT XRESOLVE",
        );
        check(V4, "-i \"a b\" -o a\\b --bridged", "-i \"a b\" -o a\\b --bridged");
        check(V4, "--tcp-flags ALL", "--tcp-flags FIN,SYN,RST,PSH,ACK,URG");
        check(V4, "-p ESP", "-p esp");
        check(V4, "-p 253 --ttl 1 --length 65535", "-p 253 --ttl 1 --length 65535");
    }

    #[test]
    fn errors_name_the_words_and_the_repair() {
        use Family::{V4, V6};
        let wrong = |family, text, expected: &str| check(family, text, &format!("error: {expected}"));
        wrong(V4, "--dport 65536", "`--dport 65536`: expected a number from 0 to 65535");
        wrong(V4, "--dport +1", "`--dport +1`: expected a number from 0 to 65535");
        wrong(V4, "--dport", "`--dport`: a value must follow");
        wrong(V4, "--dport 1 --destination-port 2", "`--destination-port`: `--dport` has said this already");
        wrong(V4, "-f --l4 whole", "`--l4`: `-f` has said this already");
        wrong(V4, "! -s 10.0.0.1", "`!`: a packet has values, it tests nothing: say the value itself");
        wrong(
            V4,
            "-s 10.0.0.0/8",
            "`-s 10.0.0.0/8`: a packet has one address, not a network: leave out the mask",
        );
        wrong(V4, "-s ::1", "`-s ::1`: an IPv6 address, but the packet is IPv4");
        wrong(V6, "-s 10.0.0.1", "`-s 10.0.0.1`: an IPv4 address, but the packet is IPv6");
        wrong(V4, "-s host", "`-s host`: not an address, like 192.0.2.7");
        wrong(
            V4,
            "-i 1234567890123456",
            "`-i 1234567890123456`: an interface name has at most 15 bytes and no NUL",
        );
        wrong(V4, "--icmp-type 8", "`--icmp-type`: the packet is not ICMP: say `-p icmp`");
        wrong(V4, "-p nonsense", "`-p nonsense`: neither a protocol's name nor its number");
        wrong(V4, "-p icmp --dport 8", "`--dport`: an ICMP packet has no ports: say `--icmp-type`");
        wrong(
            V4,
            "-p icmp --icmp-type 8/256",
            "`--icmp-type 8/256`: expected TYPE or TYPE/CODE, each a number from 0 to 255",
        );
        wrong(V4, "--ctstate NEW,INVALID", "`--ctstate NEW,INVALID`: a packet has one connection state");
        wrong(
            V4,
            "--mac 1:2:3:4:5:6",
            "`--mac 1:2:3:4:5:6`: expected an Ethernet address, like 00:11:22:33:44:55",
        );
        wrong(V4, "-i \"eth0", "`-i \"eth0`: a quote `\"` is not closed");
        wrong(
            V4,
            "--tcp-flags SYN,XXX",
            "`--tcp-flags SYN,XXX`: `XXX` is not among FIN, SYN, RST, PSH, ACK, URG, ECE, CWR, ALL, NONE",
        );
    }

    /// Any packet: each field a number of any size, or a name of up to 15 characters that like to be quoted.
    fn packets() -> impl Strategy<Value = Packet> {
        let numbers = prop::collection::vec((any::<u128>(), 0..128u32), NUMBERS.len());
        let names = prop::collection::vec("[a-z0-9.:@ \"\\\\é]{0,7}", INTERFACES.len());
        (any::<bool>(), numbers, names).prop_map(|(v6, numbers, names)| {
            let family = if v6 { Family::V6 } else { Family::V4 };
            let mut packet = fields::default_packet(family);
            for (field, (x, shift)) in NUMBERS.into_iter().zip(numbers) {
                let max = number_max(family, field);
                fields::write_number(&mut packet, field, (x >> shift) & max);
            }
            for (field, name) in INTERFACES.into_iter().zip(names) {
                if let Some(name) = InterfaceName::new(&name) {
                    fields::write_interface(&mut packet, field, name);
                }
            }
            packet
        })
    }

    proptest! {
        #[test]
        fn what_is_shown_parses_to_the_packet(packet in packets()) {
            let family = if packet.is_v6 { Family::V6 } else { Family::V4 };
            let text = show(&packet).to_string();
            prop_assert_eq!(parse(&text, family), Ok(packet), "{}", text);
        }

        #[test]
        fn any_text_is_a_packet_or_an_error(text in "(-[isdp]|--[a-z0-9-]{2,9}|[0-9a-f:./x,+\"\\\\ ]{0,8}| )*") {
            let _ = parse(&text, Family::V4);
        }
    }
}
