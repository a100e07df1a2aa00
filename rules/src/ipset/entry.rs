//! One element of a set as text: `192.0.2.0/24,tcp:80`.
//!
//! What stands for many (a range of addresses in a set of networks, a range of ports) becomes as many
//! entries, as the kernel's tool does it, within a limit; a range in a set of one column stays one.

use super::{ColumnKind, IpSet, Part, SetType};
use crate::model::Family;
use crate::names::{ICMP_TYPES, ICMPV6_TYPES, protocol_number};
use crate::registry::{ValueKind, parse_address, parse_network, parse_number, parse_port, prefix_mask};
use crate::value::Value;

/// What `create` said of a set's values.
#[derive(Debug, Clone, Default)]
pub(super) struct Options {
    /// `range`: first and last address or port.
    range: Option<(u128, u128)>,
    /// `netmask` or `bitmask`: what is left of an address.
    mask: Option<u128>,
    /// `markmask`: what is left of a mark.
    mark_mask: Option<u32>,
}

/// Reads an option of `create` that says something of values.
pub(super) fn option(
    out: &mut Options,
    name: &str,
    text: &str,
    kind: &SetType,
    family: Family,
) -> Result<(), String> {
    match name {
        "range" if kind.columns == [ColumnKind::BarePort] => {
            let (lo, hi) = port_range(text)?;
            out.range = Some((lo.into(), hi.into()));
        }
        "range" => out.range = Some(range_of(text, family)?),
        "netmask" => {
            let length = parse_number(text).and_then(|n| u32::try_from(n).ok());
            let length = length.filter(|&n| n >= 1 && n <= family.address_bits());
            let length = length.ok_or_else(|| format!("`{text}` is no length of a netmask"))?;
            out.mask = Some(prefix_mask(length, family));
        }
        "bitmask" => out.mask = Some(parse_address(text, family).map_err(|f| f.message)?),
        _ => {
            let mask = parse_number(text).and_then(|n| u32::try_from(n).ok());
            out.mark_mask = Some(mask.ok_or_else(|| format!("`{text}` is no mask of a mark"))?);
        }
    }
    Ok(())
}

/// `first-last`, in either order as the tool has it, or a network.
fn range_of(text: &str, family: Family) -> Result<(u128, u128), String> {
    if let Some((lo, hi)) = text.split_once('-') {
        let (a, b) = (address(lo, family)?, address(hi, family)?);
        return Ok((a.min(b), a.max(b)));
    }
    let (value, mask) = parse_network(text, family).map_err(|f| f.message)?;
    Ok((value, value | (!mask & family.full_mask())))
}

/// An address; of IPv4 also as the number that it is, `1` for 0.0.0.1.
fn address(text: &str, family: Family) -> Result<u128, String> {
    let number = parse_number(text).filter(|_| family == Family::V4).and_then(|n| u32::try_from(n).ok());
    match number {
        Some(number) => Ok(number.into()),
        None => parse_address(text, family).map_err(|f| f.message),
    }
}

/// Adds what an element says to a set: at most `room` entries. Gives how many.
pub(super) fn add(
    set: &mut IpSet,
    options: &Options,
    text: &str,
    (is_nomatch, is_wildcard): (bool, bool),
    room: usize,
) -> Result<usize, String> {
    let columns = set.kind.columns;
    let family = set.family.unwrap_or(Family::V4);
    // An Ethernet address may be left out of a bitmap, and nothing else.
    let texts: Vec<&str> = text.split(',').collect();
    let may_be_short = set.kind.name == "bitmap:ip,mac" && texts.len() == 1;
    if texts.len() != columns.len() && !may_be_short {
        return Err(format!("`{text}` has {} parts, a {} has {}", texts.len(), set.kind.name, columns.len()));
    }
    let mut choices: Vec<Vec<Part>> = Vec::with_capacity(columns.len());
    let mut count = 1usize;
    for (i, &column) in columns.iter().enumerate() {
        let Some(text) = texts.get(i) else {
            choices.push(vec![Part::Mac(None)]);
            continue;
        };
        // So many more for each entry that there is so far.
        let room = room / count.max(1);
        let parts = match column {
            ColumnKind::Ip | ColumnKind::Net => addresses(set, column, options, text, family, room)?,
            ColumnKind::BarePort => bare_ports(options, text)?,
            ColumnKind::Port => ports(text, room)?,
            ColumnKind::Mac => vec![Part::Mac(Some(mac(text)?))],
            ColumnKind::Mark => {
                let number = parse_number(text).and_then(|n| u32::try_from(n).ok());
                let value = number.ok_or_else(|| format!("`{text}` is no mark"))?;
                let mask = options.mark_mask.unwrap_or(u32::MAX);
                vec![Part::Masked { value: (value & mask).into(), mask: mask.into() }]
            }
            ColumnKind::Interface => {
                if text.is_empty() || text.len() > 15 {
                    // `physdev:` makes it longer.
                    if !text.starts_with("physdev:") {
                        return Err(format!("`{text}` is no name of an interface"));
                    }
                }
                set.is_opaque |= text.starts_with("physdev:");
                vec![Part::Interface { name: (*text).into(), is_prefix: is_wildcard }]
            }
        };
        count = count.saturating_mul(parts.len());
        choices.push(parts);
    }
    if count > room {
        return Err(too_many(text));
    }
    for mut number in 0..count {
        let entry = set.parts.len();
        for parts in &choices {
            set.parts.push(parts[number % parts.len()].clone());
            number /= parts.len();
        }
        debug_assert_eq!(set.parts.len() - entry, columns.len());
        set.is_nomatch.push(is_nomatch);
    }
    Ok(count)
}

fn too_many(text: &str) -> String {
    format!("`{text}` becomes more entries than all sets together may have")
}

/// What an address, a network or a range means in a column.
fn addresses(
    set: &IpSet,
    column: ColumnKind,
    options: &Options,
    text: &str,
    family: Family,
    room: usize,
) -> Result<Vec<Part>, String> {
    let full = family.full_mask();
    let is_alone = set.kind.columns.len() == 1;
    let (lo, hi, length) = match text.split_once('-') {
        Some(_) if family == Family::V6 => {
            return Err(format!("`{text}` is a range: IPv6 sets take addresses and networks"));
        }
        Some(_) => {
            let (lo, hi) = range_of(text, family)?;
            (lo, hi, None)
        }
        None => {
            let (value, mask) = parse_network(text, family).map_err(|f| f.message)?;
            (value, value | (!mask & full), Some(mask))
        }
    };
    if let Some((first, last)) = options.range
        && (lo < first || last < hi)
    {
        return Err(format!("`{text}` is out of the range of set {}", set.name));
    }
    if column == ColumnKind::Net {
        if let Some(mask) = length {
            let mask = mask & options.mask.unwrap_or(full);
            return Ok(vec![Part::Masked { value: lo & mask, mask }]);
        }
        let networks = prefixes(lo, hi, family).map(|(value, mask)| Part::Masked { value, mask });
        return Ok(networks.take(room.saturating_add(1)).collect());
    }
    // Single addresses: a range of them where that is possible.
    let mask = options.mask.unwrap_or(full);
    let free = full & !mask;
    let is_prefix = free & free.wrapping_add(1) == 0;
    if is_alone && is_prefix {
        let (mut first, last) = (lo & mask, (hi & mask) | free);
        if set.kind.refuses_zero() && first & mask == 0 {
            match free.checked_add(1) {
                Some(next) if next <= last => first = next,
                _ => return Ok(Vec::new()),
            }
        }
        return Ok(vec![Part::Range(first, last)]);
    }
    if hi - lo >= room as u128 {
        return Err(format!("`{text}` holds more addresses than all sets together may have"));
    }
    let mut values: Vec<u128> = (lo..=hi).map(|x| x & mask).collect();
    values.dedup();
    values.retain(|&x| x != 0 || !set.kind.refuses_zero());
    Ok(values.into_iter().map(|value| Part::Masked { value, mask }).collect())
}

/// The networks that a range is made of, as large as they can be.
fn prefixes(lo: u128, hi: u128, family: Family) -> impl Iterator<Item = (u128, u128)> {
    let bits = family.address_bits();
    let mut next = Some(lo);
    std::iter::from_fn(move || {
        let at = next.filter(|&at| at <= hi)?;
        let aligned = if at == 0 { bits } else { at.trailing_zeros().min(bits) };
        let room = hi - at;
        let size = (0..=aligned).rev().find(|&s| s == 0 || s < 128 && (1u128 << s) - 1 <= room)?;
        let last = at + ((1u128 << size) - 1);
        next = last.checked_add(1);
        Some((at, prefix_mask(bits - size, family)))
    })
}

/// `80`, `tcp:80-90`: of a set that knows no protocols.
fn bare_ports(options: &Options, text: &str) -> Result<Vec<Part>, String> {
    let text = text.split_once(':').map_or(text, |(_, port)| port);
    let (lo, hi) = port_range(text)?;
    if let Some((first, last)) = options.range
        && (u128::from(lo) < first || last < u128::from(hi))
    {
        return Err(format!("port {text} is out of the range of its set"));
    }
    Ok(vec![Part::Range(lo.into(), hi.into())])
}

fn port_range(text: &str) -> Result<(u16, u16), String> {
    let one = |text: &str| {
        let port = parse_port(text).map_err(|f| f.message)?;
        u16::try_from(port).map_err(|_| format!("port {port} is above 65535"))
    };
    // Names of services have dashes, too.
    if let Ok(port) = one(text) {
        return Ok((port, port));
    }
    let (lo, hi) = text.split_once('-').map_or((text, text), |range| range);
    // In either order, as the tool has it.
    let (a, b) = (one(lo)?, one(hi)?);
    Ok((a.min(b), a.max(b)))
}

/// `80`, `udp:53-60`, `icmp:8/0`, `icmp:echo-request`, `47:0`.
fn ports(text: &str, room: usize) -> Result<Vec<Part>, String> {
    let (protocol, rest) = match text.split_once(':') {
        Some((name, rest)) => {
            (protocol_number(name).ok_or_else(|| format!("`{name}` is no protocol"))?, rest)
        }
        None => (6, text),
    };
    let names = match protocol {
        1 => Some(ICMP_TYPES),
        58 => Some(ICMPV6_TYPES),
        _ => None,
    };
    let Some(names) = names else {
        let (lo, hi) = port_range(rest)?;
        let has_ports = matches!(protocol, 6 | 17 | 132 | 136);
        if !has_ports && (lo, hi) != (0, 0) {
            return Err(format!("protocol {protocol} has no ports: write {protocol}:0"));
        }
        if usize::from(hi - lo) >= room {
            return Err(too_many(text));
        }
        return Ok((lo..=hi).map(|port| Part::Port { protocol, port }).collect());
    };
    if let Some(number) = parse_number(rest) {
        // A type with code 0, or both in one number.
        let port = if number <= 255 { number << 8 } else { number };
        let port = u16::try_from(port).map_err(|_| format!("`{rest}` is no ICMP type"))?;
        return Ok(vec![Part::Port { protocol, port }]);
    }
    match ValueKind::Icmp(names).parse(&[rest], Family::V4) {
        Ok(Value::IcmpType { kind, codes }) => {
            let code = if codes.0 == codes.1 { codes.0 } else { 0 };
            Ok(vec![Part::Port { protocol, port: u16::from(kind) << 8 | u16::from(code) }])
        }
        Ok(_) => Err(format!("`{rest}` is no ICMP type")),
        Err(fault) => Err(fault.message),
    }
}

fn mac(text: &str) -> Result<[u8; 6], String> {
    match ValueKind::Mac.parse(&[text], Family::V4) {
        Ok(Value::Mac(bytes)) => Ok(bytes),
        Ok(_) => Err(format!("`{text}` is no Ethernet address")),
        Err(fault) => Err(fault.message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What ipset 7.17 makes of ranges and numbers: how many entries, and which is the first.
    #[test]
    fn ranges_run_either_way_and_numbers_are_addresses() {
        use super::super::Sets;
        for (text, first) in [
            ("create s bitmap:port range 100-50\nadd s 60\n", Some(Part::Range(60, 60))),
            ("create s bitmap:port range 100-50\nadd s 40\n", None),
            ("create s bitmap:port range 0-70000\nadd s 40\n", None),
            ("create s bitmap:port range 0-65535\nadd s 90-80\n", Some(Part::Range(80, 90))),
            (
                "create s bitmap:ip range 10.0.0.9-10.0.0.1\nadd s 10.0.0.5\n",
                Some(Part::Range(0x0a00_0005, 0x0a00_0005)),
            ),
            ("create s bitmap:ip range 1-5\nadd s 0.0.0.9\n", None),
            ("create s hash:ip\nadd s 5-1\n", Some(Part::Range(1, 5))),
            ("create s hash:ip\nadd s 1-4294967296\n", None),
            (
                "create s hash:net\nadd s 0.0.0.7-0.0.0.6\n",
                Some(Part::Masked { value: 6, mask: 0xffff_fffe }),
            ),
            ("create s hash:ip family inet6\nadd s 1-5\n", None),
            ("create s hash:ip family inet6\nadd s ::1-::5\n", None),
            ("create s hash:ip,port\nadd s 0.0.0.0/2,0-65535\n", None),
        ] {
            let (sets, faults) = Sets::read(text);
            let found = sets.get("s").and_then(|set| set.parts.first().cloned());
            assert_eq!(found, first, "{text}{faults:?}");
            assert_eq!(faults.is_empty(), first.is_some(), "{text}{faults:?}");
        }
    }

    #[test]
    fn ranges_are_made_of_the_largest_networks() {
        let all = |lo, hi| prefixes(lo, hi, Family::V4).map(|(v, m)| (v, m.count_ones())).collect::<Vec<_>>();
        assert_eq!(all(0, u32::MAX.into()), [(0, 0)]);
        assert_eq!(all(5, 8), [(5, 32), (6, 31), (8, 32)]);
        assert_eq!(all(0xffff_ffff, 0xffff_ffff), [(0xffff_ffff, 32)]);
        assert_eq!(all(0xffff_fff0, 0xffff_ffff), [(0xffff_fff0, 28)]);
    }
}
