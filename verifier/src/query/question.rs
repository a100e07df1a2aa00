//! Sets of packets in the words of a question: `from 10.0.0.0/8`, `dport 22,8000:8080`, `state NEW`.

use std::net::IpAddr;

use hipac_rules::{Family, Field, Test, ValueSet, names};

/// Protocols that have ports: TCP, UDP, DCCP, SCTP, UDP-Lite.
const WITH_PORTS: [(u128, u128); 5] = [(6, 6), (17, 17), (33, 33), (132, 132), (136, 136)];

/// What may be said of packets.
pub const KEYS: [&str; 8] = ["from", "to", "proto", "sport", "dport", "in", "out", "state"];

/// The packets of which all of these hold. A port is one of a protocol that has ports.
///
/// # Errors
///
/// The first value that cannot be read, with what would be right.
pub fn tests(family: Family, said: &[(&str, &str)]) -> Result<Vec<Test>, String> {
    let mut tests = Vec::new();
    for &(key, value) in said {
        let test = test(family, key, value).map_err(|problem| format!("{key} `{value}`: {problem}"))?;
        tests.push(test);
    }
    let says = |field: Field| tests.iter().any(|t: &Test| t.field == field);
    if (says(Field::SourcePort) || says(Field::DestinationPort)) && !says(Field::Protocol) {
        tests.push(Test { field: Field::Protocol, negated: false, set: ValueSet::Ranges(WITH_PORTS.into()) });
    }
    Ok(tests)
}

/// A word of a list as a range.
type Read = Result<(u128, u128), String>;

fn test(family: Family, key: &str, text: &str) -> Result<Test, String> {
    let (negated, text) = match text.trim().strip_prefix('!') {
        Some(rest) => (true, rest.trim()),
        None => (false, text.trim()),
    };
    let list = |read: &dyn Fn(&str) -> Read| {
        let ranges = text.split(',').map(|word| read(word.trim())).collect::<Result<Vec<_>, _>>()?;
        Ok::<ValueSet, String>(ValueSet::Ranges(joined(ranges)))
    };
    let (field, set) = match key {
        "from" => (Field::Source, list(&|word| network(family, word))?),
        "to" => (Field::Destination, list(&|word| network(family, word))?),
        "sport" => (Field::SourcePort, list(&port)?),
        "dport" => (Field::DestinationPort, list(&port)?),
        "proto" => (Field::Protocol, list(&protocol)?),
        "in" | "out" => {
            let field = if key == "in" { Field::InInterface } else { Field::OutInterface };
            let prefix = text.ends_with('+');
            (field, ValueSet::Interface { name: text.trim_end_matches('+').into(), prefix })
        }
        "state" => {
            let states = text.split(',').map(|word| state(word.trim())).collect::<Result<Vec<_>, _>>()?;
            let values = states.into_iter().flat_map(|s| [s, s | 8, s | 16, s | 24]);
            (Field::CtState, ValueSet::Ranges(joined(values.map(|x| (x, x)).collect())))
        }
        _ => return Err(format!("no such word; there are {}", KEYS.join(", "))),
    };
    Ok(Test { field, negated, set })
}

fn joined(mut ranges: Vec<(u128, u128)>) -> Vec<(u128, u128)> {
    ranges.sort_unstable();
    let mut out: Vec<(u128, u128)> = Vec::new();
    for (lo, hi) in ranges {
        match out.last_mut() {
            Some(last) if lo <= last.1.saturating_add(1) => last.1 = last.1.max(hi),
            _ => out.push((lo, hi)),
        }
    }
    out
}

fn network(family: Family, word: &str) -> Read {
    let wrong = || format!("`{word}` is no {} address or network", family.name());
    let (address, bits) = word.split_once('/').unwrap_or((word, ""));
    let number = match (family, address.parse::<IpAddr>()) {
        (Family::V4, Ok(IpAddr::V4(a))) => u128::from(u32::from(a)),
        (Family::V6, Ok(IpAddr::V6(a))) => u128::from(a),
        _ => return Err(wrong()),
    };
    let all = family.address_bits();
    let bits = if bits.is_empty() { Ok(all) } else { bits.parse::<u32>() };
    let bits = bits.ok().filter(|&b| b <= all).ok_or_else(wrong)?;
    let host = if bits == 0 { family.full_mask() } else { (1u128 << (all - bits)) - 1 };
    Ok((number & !host, number | host))
}

fn port(word: &str) -> Read {
    let one = |text: &str| {
        text.parse::<u16>().map(u128::from).map_err(|_| format!("`{text}` is no port: 0 to 65535"))
    };
    match word.split_once([':', '-']) {
        Some((lo, hi)) => {
            let (lo, hi) = (one(lo)?, one(hi)?);
            if lo <= hi { Ok((lo, hi)) } else { Err(format!("`{word}` ends before it begins")) }
        }
        None => one(word).map(|x| (x, x)),
    }
}

fn protocol(word: &str) -> Read {
    let number = names::protocol_number(word).ok_or_else(|| format!("`{word}` is no protocol"))?;
    Ok((number.into(), number.into()))
}

fn state(word: &str) -> Result<u128, String> {
    let found = crate::packet_text::CT_STATES.iter().find(|s| s.0.eq_ignore_ascii_case(word));
    found.map(|s| s.1.into()).ok_or_else(|| format!("`{word}` is no connection state"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_sets() {
        let set = |key, value| test(Family::V4, key, value).map(|t| (t.field, t.negated, t.set));
        let ranges = |r: &[(u128, u128)]| ValueSet::Ranges(r.to_vec());
        assert_eq!(
            set("from", "10.0.0.7/8"),
            Ok((Field::Source, false, ranges(&[(0x0a00_0000, 0x0aff_ffff)])))
        );
        assert_eq!(set("to", "! 0.0.0.0/0"), Ok((Field::Destination, true, ranges(&[(0, 0xffff_ffff)]))));
        assert_eq!(
            set("dport", "80,22,81:90"),
            Ok((Field::DestinationPort, false, ranges(&[(22, 22), (80, 90)])))
        );
        for (key, value) in
            [("from", "::1"), ("from", "10.0.0.0/33"), ("dport", "9:1"), ("proto", "x"), ("dst", "")]
        {
            assert!(set(key, value).is_err(), "{key} {value}");
        }
    }
}
