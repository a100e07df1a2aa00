//! Values of fields in the words of people who write rules.
//!
//! ```text
//!   source            10.0.0.0/8 · 10.0.0.1-10.0.0.7 · !192.0.2.1
//!   dport             22 · 80,443 · 1024-65535
//!   tcp-flags         SYN of FIN,SYN,RST,ACK         (the flags set, of those looked at)
//!   ctstate           RELATED,ESTABLISHED
//!   in                eth0 · eth+ · none
//! ```
//!
//! The same text serves traces, differences, findings and answers. Whether a destination port is a port or an
//! ICMP type depends on the protocol, which the caller knows: [`Ports`].

use hipac_classifier::packet::address;
use hipac_rules::{Family, Field, ValueSet, names};

use crate::fields;
use crate::packet_text::{CT_STATES, L4_STATES, Names, PACKET_TYPES, ROUTE_TYPES, TCP_FLAGS};

/// What the destination port of a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// A port.
    Ports,
    /// ICMP type and code.
    Icmp,
}

impl Ports {
    /// For packets of this protocol.
    pub fn of_protocol(family: Family, protocol: u8) -> Ports {
        let icmp = match family {
            Family::V4 => 1,
            Family::V6 => 58,
        };
        if protocol == icmp { Ports::Icmp } else { Ports::Ports }
    }
}

/// Values listed before the rest is only counted.
const LISTED_MAX: usize = 12;

/// The word for a field.
pub fn label(field: Field, ports: Ports) -> &'static str {
    match field {
        Field::InInterface => "in",
        Field::OutInterface => "out",
        Field::L4 => "transport header",
        Field::SourcePort => "sport",
        Field::DestinationPort if ports == Ports::Icmp => "icmp-type",
        Field::DestinationPort => "dport",
        Field::TcpFlags => "tcp-flags",
        Field::CtState => "ctstate",
        Field::PacketType => "pkt-type",
        Field::SourceType => "src-type",
        Field::DestinationType => "dst-type",
        other => other.name(),
    }
}

/// One number of a field.
pub fn number(family: Family, field: Field, ports: Ports, x: u128) -> String {
    let small = u8::try_from(x).unwrap_or(u8::MAX);
    match field {
        Field::Source | Field::Destination => address(family == Family::V6, x).to_string(),
        Field::Protocol => names::protocol_name(small).map_or_else(|| x.to_string(), str::to_owned),
        Field::DestinationPort if ports == Ports::Icmp => match x & 0xff {
            0 => (x >> 8).to_string(),
            code => format!("{}/{code}", x >> 8),
        },
        Field::TcpFlags => flags(small),
        Field::CtState => {
            let state = name_of(CT_STATES, small & 7);
            let nat = |bit, name| if small & bit != 0 { name } else { "" };
            format!("{state}{}{}", nat(8, "+SNAT"), nat(16, "+DNAT"))
        }
        Field::Mark | Field::ConnMark | Field::Tos => format!("{x:#x}"),
        Field::Mac if x == 0 => "none".to_owned(),
        Field::Mac => {
            let bytes: Vec<String> = (0..6).rev().map(|i| format!("{:02x}", x >> (8 * i) & 0xff)).collect();
            bytes.join(":")
        }
        Field::PacketType => name_of(PACKET_TYPES, small),
        Field::SourceType | Field::DestinationType => name_of(ROUTE_TYPES, small),
        Field::L4 => name_of(L4_STATES, small),
        Field::Bridged => if x == 0 { "no" } else { "yes" }.to_owned(),
        _ => x.to_string(),
    }
}

/// An inclusive range of a field: a network, where it is one.
pub fn range(family: Family, field: Field, ports: Ports, lo: u128, hi: u128) -> String {
    let one = |x| number(family, field, ports, x);
    if lo == hi {
        return one(lo);
    }
    if matches!(field, Field::Source | Field::Destination) {
        let host = lo ^ hi;
        if host & (host + 1) == 0 && lo & host == 0 {
            return format!("{}/{}", one(lo), family.address_bits() - host.count_ones());
        }
    }
    // All codes of an ICMP type, or all of several types.
    if field == Field::DestinationPort && ports == Ports::Icmp && lo & 0xff == 0 && hi & 0xff == 0xff {
        let (first, last) = (lo >> 8, hi >> 8);
        return if first == last { format!("{first}/any") } else { format!("{first}-{last}/any") };
    }
    format!("{}-{}", one(lo), one(hi))
}

/// Numbers given as rising, disjoint, inclusive ranges.
pub fn ranges(family: Family, field: Field, ports: Ports, ranges: &[(u128, u128)]) -> String {
    if ranges.is_empty() {
        return "nothing".to_owned();
    }
    let max = fields::number_max(family, field);
    if matches!(field, Field::TcpFlags | Field::Tos) {
        return bits(field, ranges);
    }
    if matches!(field, Field::CtState | Field::Protocol | Field::L4 | Field::PacketType) {
        let members = |is_wanted: bool| {
            let possible = (0..=max).filter(|&x| fields::is_possible(family, field, x));
            possible.filter(|&x| contains(ranges, x) == is_wanted).collect::<Vec<u128>>()
        };
        let (inside, outside) = (members(true), members(false));
        return if outside.len() < inside.len() && !outside.is_empty() {
            format!("!{}", listed(family, field, ports, &outside))
        } else {
            listed(family, field, ports, &inside)
        };
    }
    let gaps = complement(ranges, max);
    let (prefix, ranges) = if gaps.len() < ranges.len() && !gaps.is_empty() && gaps.len() <= LISTED_MAX {
        ("!", &gaps[..])
    } else {
        ("", ranges)
    };
    let mut words: Vec<String> =
        ranges.iter().take(LISTED_MAX).map(|&(lo, hi)| range(family, field, ports, lo, hi)).collect();
    if ranges.len() > LISTED_MAX {
        words.push(format!("… ({} more)", ranges.len() - LISTED_MAX));
    }
    format!("{prefix}{}", words.join(","))
}

/// The values that a test names.
pub fn set(family: Family, field: Field, ports: Ports, set: &ValueSet) -> String {
    match set {
        ValueSet::Ranges(r) => ranges(family, field, ports, r),
        ValueSet::Interface { name, prefix } => format!("{name}{}", if *prefix { "+" } else { "" }),
        ValueSet::Masked { value, mask } => masked(family, field, *value, *mask),
        ValueSet::Member(membership) => membership.to_string(),
    }
}

fn masked(family: Family, field: Field, value: u128, mask: u128) -> String {
    let max = fields::number_max(family, field);
    let host = !mask & max;
    match field {
        Field::TcpFlags => of_flags(value, mask),
        Field::Source | Field::Destination if host & host.wrapping_add(1) == 0 => {
            range(family, field, Ports::Ports, value, value | host)
        }
        Field::Source | Field::Destination => {
            let one = |x| number(family, field, Ports::Ports, x);
            format!("{}/{}", one(value), one(mask))
        }
        _ if mask & max == max => number(family, field, Ports::Ports, value),
        _ => format!("{value:#x}/{mask:#x}"),
    }
}

fn flags(set: u8) -> String {
    let names = TCP_FLAGS.iter().filter(|t| t.1.is_power_of_two() && set & t.1 != 0);
    let names: Vec<&str> = names.map(|t| t.0).collect();
    if names.is_empty() { "NONE".to_owned() } else { names.join(",") }
}

/// `SYN of FIN,SYN,RST,ACK`.
fn of_flags(value: u128, mask: u128) -> String {
    let byte = |x: u128| (x & 0xff) as u8; // masked: fits
    match byte(mask) {
        0xff => flags(byte(value)),
        mask => format!("{} of {}", flags(byte(value)), flags(mask)),
    }
}

/// A set of bytes by the bits that they share, where those decide.
fn bits(field: Field, ranges: &[(u128, u128)]) -> String {
    let shared = |wanted: bool| {
        let members: Vec<u128> = (0..=0xff).filter(|&x| contains(ranges, x) == wanted).collect();
        let all = members.iter().fold(0xff, |a, x| a & x);
        let any = members.iter().fold(0, |a, x| a | x);
        let mask = !(all ^ any) & 0xff;
        let exact = members.len() == 1 << (8 - mask.count_ones());
        (exact && !members.is_empty()).then_some((all, mask))
    };
    let show = |(value, mask): (u128, u128)| match field {
        Field::TcpFlags => of_flags(value, mask),
        _ if mask == 0xff => format!("{value:#x}"),
        _ => format!("{value:#x}/{mask:#x}"),
    };
    if let Some(found) = shared(true) {
        return show(found);
    }
    if let Some(found) = shared(false) {
        return format!("!{}", show(found));
    }
    let members: Vec<u128> = (0..=0xff).filter(|&x| contains(ranges, x)).collect();
    listed(Family::V4, field, Ports::Ports, &members)
}

fn listed(family: Family, field: Field, ports: Ports, members: &[u128]) -> String {
    // The NAT bits of a connection are worth a word only where they matter.
    if field == Field::CtState {
        let with_all = |s: u128| [0, 8, 16, 24].iter().all(|nat| members.contains(&(s | nat)));
        let states: Vec<u128> = (0..5).filter(|&s| with_all(s)).collect();
        if states.len() * 4 == members.len() {
            let names: Vec<String> = states.iter().map(|&s| number(family, field, ports, s)).collect();
            return names.join(",");
        }
        for (bit, name) in [(8, "SNAT"), (16, "DNAT")] {
            if members.len() == 10 && members.iter().all(|m| m & bit != 0) {
                return name.to_owned();
            }
        }
    }
    let separator = if field == Field::TcpFlags { " | " } else { "," };
    let shown = members.iter().take(LISTED_MAX).map(|&x| number(family, field, ports, x));
    let mut words: Vec<String> = shown.collect();
    if members.len() > LISTED_MAX {
        words.push(format!("… ({} more)", members.len() - LISTED_MAX));
    }
    words.join(separator)
}

fn contains(ranges: &[(u128, u128)], x: u128) -> bool {
    ranges.iter().any(|&(lo, hi)| lo <= x && x <= hi)
}

/// What of `0..=max` the ranges leave out.
fn complement(ranges: &[(u128, u128)], max: u128) -> Vec<(u128, u128)> {
    let mut gaps = Vec::new();
    let mut next = Some(0);
    for &(lo, hi) in ranges {
        if let Some(from) = next
            && from < lo
        {
            gaps.push((from, lo - 1));
        }
        next = hi.checked_add(1);
    }
    if let Some(from) = next
        && from <= max
    {
        gaps.push((from, max));
    }
    gaps
}

fn name_of(names: &Names, number: u8) -> String {
    names.iter().find(|n| n.1 == number).map_or_else(|| number.to_string(), |n| n.0.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(field: Field, given: &[(u128, u128)], expected: &str) {
        assert_eq!(ranges(Family::V4, field, Ports::Ports, given), expected);
    }

    #[test]
    fn ranges_are_shown_as_rules_write_them() {
        check(Field::Source, &[(0x0a00_0000, 0x0aff_ffff)], "10.0.0.0/8");
        check(Field::Source, &[(0x0a00_0001, 0x0a00_0007)], "10.0.0.1-10.0.0.7");
        check(Field::Source, &[(0, 0x0a00_0000), (0x0a00_0002, 0xffff_ffff)], "!10.0.0.1");
        check(Field::DestinationPort, &[(80, 80), (443, 443)], "80,443");
        check(Field::DestinationPort, &[(0, 21), (23, 65535)], "!22");
        check(Field::Protocol, &[(6, 6), (17, 17)], "tcp,udp");
        check(Field::CtState, &[(2, 3), (10, 11), (18, 19), (26, 27)], "RELATED,ESTABLISHED");
        check(
            Field::CtState,
            &[(0, 0), (2, 4), (8, 8), (10, 12), (16, 16), (18, 20), (24, 24), (26, 28)],
            "!NEW",
        );
        check(Field::TcpFlags, &[(2, 2)], "SYN");
        check(Field::Mark, &[(1, 1)], "0x1");
    }

    #[test]
    fn sets_of_flags_are_shown_by_the_bits_that_decide() {
        let syn: Vec<(u128, u128)> = (0..256).filter(|x| x & 0x17 == 2).map(|x| (x, x)).collect();
        check(Field::TcpFlags, &syn, "SYN of FIN,SYN,RST,ACK");
        let not: Vec<(u128, u128)> = (0..256).filter(|x| x & 0x17 != 2).map(|x| (x, x)).collect();
        check(Field::TcpFlags, &not, "!SYN of FIN,SYN,RST,ACK");
    }

    #[test]
    fn icmp_types_are_no_ports() {
        let show = |lo, hi| range(Family::V4, Field::DestinationPort, Ports::Icmp, lo, hi);
        assert_eq!(show(0x0800, 0x08ff), "8/any");
        assert_eq!(show(0x0301, 0x0301), "3/1");
        assert_eq!(show(0x0000, 0xffff), "0-255/any");
    }
}
