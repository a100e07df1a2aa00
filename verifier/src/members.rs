//! IP sets as the oracle sees them: entry by entry.
//!
//! Of the entries all of whose parts hold a packet's values, the one with the longest network decides, in the
//! first column of networks, then in the second, then whatever says more. Nothing here is fast: what is
//! fast is held against it.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use hipac_classifier::{InterfaceName, L4, Packet};
use hipac_rules::ipset::{Column, ColumnKind, Membership, Part};
use hipac_rules::{Family, Field, Test, ValueSet};

use crate::draw::Random;
use crate::fields;

/// A packet's value in a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    Number(u128),
    Port { protocol: u8, port: u16 },
    Mac([u8; 6]),
    Name(InterfaceName),
}

/// Whether a packet is in a set.
pub(crate) fn is_member(membership: &Membership, packet: &Packet) -> bool {
    let values: Option<Vec<Value>> = membership.columns.iter().map(|&c| value(c, packet)).collect();
    let Some(values) = values else { return false };
    let mut best: Option<(Vec<u32>, bool)> = None;
    for (parts, is_nomatch) in membership.set.entries() {
        if parts.iter().zip(&values).all(|(part, &value)| part_holds(part, value)) {
            let weight = weight(membership, parts);
            if best.as_ref().is_none_or(|(w, _)| *w < weight) {
                best = Some((weight, is_nomatch));
            }
        }
    }
    best.is_some_and(|(_, is_nomatch)| is_nomatch == membership.wants_nomatch)
}

/// How much an entry says: lengths of networks first.
fn weight(membership: &Membership, parts: &[Part]) -> Vec<u32> {
    let of = |part: &Part| match part {
        Part::Range(..) | Part::Mac(None) => 0,
        Part::Masked { mask, .. } => mask.count_ones(),
        Part::Port { .. } => 24,
        Part::Mac(Some(_)) => 48,
        Part::Interface { name, is_prefix } => {
            if *is_prefix {
                name.len() as u32
            } else {
                16
            }
        }
    };
    let kinds = membership.set.kind.columns;
    let networks = parts.iter().zip(kinds).filter(|(_, kind)| **kind == ColumnKind::Net).map(|(p, _)| of(p));
    networks.chain([parts.iter().map(of).sum()]).collect()
}

fn part_holds(part: &Part, value: Value) -> bool {
    match (part, value) {
        (Part::Range(lo, hi), Value::Number(x)) => *lo <= x && x <= *hi,
        (Part::Masked { value, mask }, Value::Number(x)) => x & mask == *value,
        (Part::Port { protocol, port }, Value::Port { protocol: p, port: q }) => (*protocol, *port) == (p, q),
        (Part::Mac(mac), Value::Mac(x)) => mac.is_none_or(|mac| mac == x),
        (Part::Interface { name, is_prefix }, Value::Name(x)) => {
            let (name, x) = (name.as_bytes(), x.as_bytes());
            if *is_prefix { x.starts_with(name) } else { x == name }
        }
        _ => false,
    }
}

/// What a packet has in a column; `None` when the kernel finds nothing there.
fn value(column: Column, packet: &Packet) -> Option<Value> {
    match column {
        Column::Address(field) => Some(Value::Number(fields::number(packet, field))),
        Column::Mark => Some(Value::Number(packet.mark.into())),
        Column::Mac => packet.mac.filter(|mac| mac.iter().any(|&b| b != 0)).map(Value::Mac),
        Column::Interface(field) => {
            let name = fields::interface(packet, field);
            (!name.as_bytes().is_empty()).then_some(Value::Name(name))
        }
        Column::Port(field) => {
            let (protocol, port) = protocol_and_port(packet, field)?;
            Some(Value::Port { protocol, port })
        }
        Column::BarePort(field) => match protocol_and_port(packet, field)? {
            (6 | 17, port) => Some(Value::Number(port.into())),
            _ => None,
        },
    }
}

/// Protocol and port of a packet as sets look at them.
fn protocol_and_port(packet: &Packet, field: Field) -> Option<(u8, u16)> {
    const NO_NEXT_HEADER: u8 = 59;
    let is_later = matches!(packet.l4, L4::Fragment | L4::FragmentAt8);
    let header_is_read = |bytes: u8| {
        let here = match packet.l4 {
            L4::Whole => u8::MAX,
            L4::Under20 => 12,
            L4::Under12 => 8,
            L4::Under8 => 4,
            L4::Under4 | L4::Fragment | L4::FragmentAt8 => 0,
        };
        here >= bytes
    };
    if packet.is_v6 && (is_later || packet.protocol == NO_NEXT_HEADER) {
        return None;
    }
    let port = fields::number(packet, field) as u16; // a field of ports: fits
    match packet.protocol {
        6 => header_is_read(20).then_some((6, port)),
        132 => header_is_read(12).then_some((132, port)),
        17 | 136 => header_is_read(8).then_some((packet.protocol, port)),
        1 | 58 => header_is_read(8).then_some((packet.protocol, packet.destination_port)),
        other => Some((other, 0)),
    }
}

/// A set of one column of addresses as a test of that field; `None` for other sets.
pub(crate) fn as_field_test(membership: &Membership, family: Family, negated: bool) -> Option<Test> {
    let [Column::Address(field)] = membership.columns[..] else { return None };
    let ranges = ranges(membership, family.full_mask())?;
    Some(Test { field, negated, set: ValueSet::Ranges(ranges) })
}

/// The values in a set of one column, as rising ranges that do not touch; `None` where that is not
/// what it is. Painted from the widest network to the narrowest.
pub(crate) fn ranges(membership: &Membership, max: u128) -> Option<Vec<(u128, u128)>> {
    if membership.columns.len() != 1 {
        return None;
    }
    let mut spans = Vec::with_capacity(membership.set.len());
    for (parts, is_nomatch) in membership.set.entries() {
        let (lo, hi, length) = match parts.first()? {
            Part::Range(lo, hi) => (*lo, *hi, 0),
            Part::Masked { value, mask } => {
                let host = !mask & max;
                if host.count_ones() != host.trailing_ones() {
                    return None;
                }
                (*value, value | host, mask.count_ones())
            }
            _ => return None,
        };
        spans.push((length, lo, hi, is_nomatch == membership.wants_nomatch));
    }
    // The first of two equal ones counts: it is painted last.
    spans.reverse();
    spans.sort_by_key(|s| s.0);
    // Where each color begins.
    let mut canvas: BTreeMap<u128, bool> = BTreeMap::from([(0, false)]);
    for (_, lo, hi, is_in) in spans {
        let behind = hi.checked_add(1).filter(|&b| b <= max);
        let color_at =
            |canvas: &BTreeMap<u128, bool>, x| canvas.range(..=x).next_back().is_some_and(|(_, c)| *c);
        if let Some(behind) = behind {
            let color = color_at(&canvas, behind);
            canvas.insert(behind, color);
        }
        let covered: Vec<u128> = canvas.range(lo..=hi).map(|(&x, _)| x).collect();
        covered.iter().for_each(|x| {
            canvas.remove(x);
        });
        canvas.insert(lo, is_in);
    }
    let mut out: Vec<(u128, u128)> = Vec::new();
    let ends = canvas.keys().skip(1).map(|x| x - 1).chain([max]);
    for ((&lo, &is_in), hi) in canvas.iter().zip(ends) {
        match out.last_mut() {
            _ if !is_in => {}
            Some(last) if last.1.checked_add(1) == Some(lo) => last.1 = hi,
            _ => out.push((lo, hi)),
        }
    }
    Some(out)
}

/// Numbers that a set's entries hold, and their neighbours, by field: of so many entries at most.
pub(crate) fn bounds(membership: &Membership, entries_max: usize) -> Vec<(Field, u128)> {
    let step = (membership.set.len() / entries_max.max(1)).max(1);
    let mut out = Vec::new();
    for (parts, _) in membership.set.entries().step_by(step) {
        for (part, column) in parts.iter().zip(&membership.columns) {
            let mut around = |field, lo: u128, hi: u128| {
                out.extend([lo.wrapping_sub(1), lo, hi, hi.wrapping_add(1)].map(|x| (field, x)));
            };
            match (part, *column) {
                (Part::Range(lo, hi), Column::Address(field) | Column::BarePort(field)) => {
                    around(field, *lo, *hi)
                }
                (Part::Masked { value, mask }, Column::Address(field)) => {
                    let low = (mask & mask.wrapping_neg()).wrapping_sub(1);
                    around(field, *value, value | low);
                }
                (Part::Masked { value, .. }, Column::Mark) => around(Field::Mark, *value, *value),
                (Part::Port { port, .. }, Column::Port(field)) => {
                    around(field, (*port).into(), (*port).into())
                }
                (Part::Mac(Some(mac)), Column::Mac) => {
                    let number = mac.iter().fold(1, |x, &b| x << 8 | u128::from(b));
                    around(Field::Mac, number, number);
                }
                _ => {}
            }
        }
    }
    out
}

/// Gives a packet the values of some entry.
pub(crate) fn enter(membership: &Membership, packet: &mut Packet, random: &mut Random) {
    let set = &membership.set;
    if set.is_empty() {
        return;
    }
    let Some((parts, _)) = set.entries().nth(random.below(set.len())) else { return };
    for (part, &column) in parts.iter().zip(&membership.columns) {
        match (part, column) {
            (Part::Range(lo, hi), Column::Address(field) | Column::BarePort(field)) => {
                let number = random.between(*lo, *hi);
                fields::write_number(packet, field, *random.pick(&[*lo, *hi, number]).unwrap_or(lo));
                if matches!(column, Column::BarePort(_)) && !matches!(packet.protocol, 6 | 17) {
                    packet.protocol = 6;
                }
            }
            (Part::Masked { value, mask }, Column::Address(field)) => {
                let family = if packet.is_v6 { Family::V6 } else { Family::V4 };
                let free = !mask & family.full_mask();
                let drawn = random.wide() & free;
                let fill = *random.pick(&[0, free, drawn]).unwrap_or(&0);
                fields::write_number(packet, field, value | fill);
            }
            (Part::Masked { value, .. }, _) => packet.mark = *value as u32,
            (Part::Port { protocol, port }, Column::Port(field)) => {
                packet.protocol = *protocol;
                let field = if matches!(protocol, 1 | 58) { Field::DestinationPort } else { field };
                fields::write_number(packet, field, (*port).into());
            }
            (Part::Mac(mac), _) => packet.mac = Some(mac.unwrap_or([2, 0, 0, 0, 0, 1])),
            (Part::Interface { name, .. }, Column::Interface(field)) => {
                fields::write_interface(
                    packet,
                    field,
                    InterfaceName::new(name).unwrap_or(InterfaceName::NONE),
                );
            }
            _ => {}
        }
    }
}

/// Rows of a set of several columns as a lookup table has them: masks in the order in which they are tried,
/// each with its rows.
pub(crate) type Table = Vec<(Vec<u8>, BTreeMap<Vec<u8>, bool>)>;

/// The table that a set's entries make.
pub(crate) fn table(membership: &Membership, family: Family) -> Table {
    /// What an entry says, the most first; then its mask.
    type Rank = (Reverse<Vec<u32>>, Vec<u8>);
    let mut tables: BTreeMap<Rank, BTreeMap<Vec<u8>, bool>> = BTreeMap::new();
    for (parts, is_nomatch) in membership.set.entries() {
        let (mut mask, mut row) = (Vec::new(), Vec::new());
        for (part, column) in parts.iter().zip(&membership.columns) {
            let address = if family == Family::V6 { 16 } else { 4 };
            let (m, r): (Vec<u8>, Vec<u8>) = match part {
                Part::Range(lo, _) => (vec![0xff; address], lo.to_be_bytes()[16 - address..].into()),
                Part::Masked { value, mask } => {
                    let bytes = if *column == Column::Mark { 4 } else { address };
                    (mask.to_be_bytes()[16 - bytes..].into(), value.to_be_bytes()[16 - bytes..].into())
                }
                Part::Port { protocol, port } => {
                    (vec![0xff; 3], std::iter::once(*protocol).chain(port.to_be_bytes()).collect())
                }
                Part::Mac(mac) => {
                    (vec![if mac.is_some() { 0xff } else { 0 }; 6], mac.unwrap_or_default().into())
                }
                Part::Interface { name, is_prefix } => {
                    let mut bytes = name.as_bytes().to_vec();
                    let mut looked_at = vec![0xff; if *is_prefix { bytes.len() } else { 16 }];
                    bytes.resize(16, 0);
                    looked_at.resize(16, 0);
                    (looked_at, bytes)
                }
            };
            mask.extend(m);
            row.extend(r);
        }
        let bits: u32 = mask.iter().map(|b| b.count_ones()).sum();
        let mut rank = weight(membership, parts);
        rank.pop();
        rank.push(bits);
        let rows = tables.entry((Reverse(rank), mask)).or_default();
        rows.entry(row).or_insert(is_nomatch == membership.wants_nomatch);
    }
    tables.into_iter().map(|((_, mask), rows)| (mask, rows)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hipac_rules::ipset::Sets;
    use hipac_rules::{ParseOptions, parse};
    use std::sync::Arc;

    fn membership(sets: &str, flags: &str) -> Arc<Membership> {
        let (sets, faults) = Sets::read(sets);
        assert!(faults.is_empty(), "{faults:?}");
        let text = format!("*filter\n-A INPUT -m set --match-set s {flags}\nCOMMIT\n");
        let mut rules = parse(text, &ParseOptions::default()).ruleset;
        assert_eq!(sets.bind(&mut rules).matches, 1);
        let meaning = rules.tables[0].chains[0].rules[0].matches[0].match_meaning(rules.family);
        match &meaning.clauses[0][0].set {
            ValueSet::Member(membership) => Arc::clone(membership),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn painted_ranges_hold_what_entries_hold() {
        let text = "create s hash:net\nadd s 10.0.0.0/8\nadd s 10.1.0.0/16 nomatch\nadd s 10.1.2.0/24\n\
                    add s 255.255.255.255\nadd s 0.0.0.0/5 nomatch\nadd s 1.0.0.0/8\n";
        let m = membership(text, "src");
        let painted = ranges(&m, u32::MAX.into()).unwrap();
        for x in bounds(&m, 100).into_iter().map(|b| b.1).filter(|&x| x <= u32::MAX.into()) {
            let packet = Packet { source: x, ..Packet::default() };
            let inside = painted.iter().any(|r| r.0 <= x && x <= r.1);
            assert_eq!(is_member(&m, &packet), inside, "{x:x}");
        }
        assert_eq!(painted.len(), 5);
    }
}
