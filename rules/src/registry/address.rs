//! Addresses and networks as text.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::model::Family;

use super::kind::{ValueFault, parse_number, split_at};

/// An address of the family: IPv4 in the low 32 bits.
pub fn parse_address(text: &str, family: Family) -> Result<u128, ValueFault> {
    let found = match family {
        Family::V4 => parse_dotted(text).map(u128::from),
        Family::V6 => text.parse::<Ipv6Addr>().ok().map(u128::from),
    };
    found.ok_or_else(|| no_address(text, family))
}

/// Like [`parse_address`], but an IPv4 address may leave out trailing bytes, which are zero
/// (`10.1` is 10.1.0.0).
pub fn parse_short_address(text: &str, family: Family) -> Result<u128, ValueFault> {
    match family {
        Family::V4 => parse_v4(text).map(u128::from).ok_or_else(|| no_address(text, family)),
        Family::V6 => parse_address(text, family),
    }
}

fn no_address(text: &str, family: Family) -> ValueFault {
    let other_family = match family {
        Family::V4 => text.parse::<Ipv6Addr>().is_ok(),
        Family::V6 => text.parse::<Ipv4Addr>().is_ok(),
    };
    let (this, other) = match family {
        Family::V4 => ("IPv4", "IPv6"),
        Family::V6 => ("IPv6", "IPv4"),
    };
    let host_like = text.bytes().any(|b| b.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    if other_family {
        ValueFault::new(
            format!("`{text}` is an {other} address in an {this} ruleset"),
            format!("put {other} rules in a file of their own"),
        )
    } else if host_like {
        ValueFault::new(
            format!("`{text}` is a host name, which hipac does not resolve"),
            "write its address, or say by --hosts FILE what it is",
        )
    } else {
        ValueFault::from(format!("`{text}` is no {this} address"))
    }
}

/// Four decimal numbers without leading zeros, as the standard library reads them; three times
/// as fast, and rulesets hold more addresses than anything else.
fn parse_dotted(text: &str) -> Option<u32> {
    let (mut address, mut byte, mut digits, mut dots) = (0u32, 0u32, 0, 0);
    for b in text.bytes() {
        match b {
            b'0'..=b'9' if digits < 3 && (digits == 0 || byte != 0) => {
                byte = 10 * byte + u32::from(b - b'0');
                digits += 1;
            }
            b'.' if digits > 0 && byte <= 255 && dots < 3 => {
                address = address << 8 | byte;
                (byte, digits) = (0, 0);
                dots += 1;
            }
            _ => return None,
        }
    }
    (dots == 3 && digits > 0 && byte <= 255).then_some(address << 8 | byte)
}

fn parse_v4(text: &str) -> Option<u32> {
    if let Some(address) = parse_dotted(text) {
        return Some(address);
    }
    let mut address = 0u32;
    let mut bytes = 0;
    for part in text.split('.') {
        let byte = parse_number(part).filter(|&n| n <= 255)?;
        address |= (byte as u32) << (24 - 8 * bytes);
        bytes += 1;
        if bytes == 4 {
            break;
        }
    }
    (text.split('.').count() <= 4).then_some(address)
}

/// An address with `/length` or `/mask`: the address masked, and the mask.
pub fn parse_network(text: &str, family: Family) -> Result<(u128, u128), ValueFault> {
    let (address, mask) = match split_at(text, b'/') {
        Some((address, mask)) => match parse_mask(mask, family)? {
            // Whatever stands before it, no bit of it is looked at.
            0 if family == Family::V4 && address.contains(':') => return Err(no_address(address, family)),
            0 => (0, 0),
            mask => (parse_short_address(address, family)?, mask),
        },
        None => (parse_short_address(text, family)?, family.full_mask()),
    };
    Ok((address & mask, mask))
}

fn parse_mask(text: &str, family: Family) -> Result<u128, ValueFault> {
    let bits = family.address_bits();
    if let Some(length) = parse_number(text) {
        return match u32::try_from(length) {
            Ok(length) if length <= bits => Ok(prefix_mask(length, family)),
            _ => Err(format!("a prefix of {length} bits is longer than an address of {bits}").into()),
        };
    }
    parse_short_address(text, family).map_err(|_| {
        ValueFault::new(format!("`{text}` is no mask"), format!("write a prefix length of 0 to {bits}"))
    })
}

/// The mask of a prefix of `length` bits.
pub fn prefix_mask(length: u32, family: Family) -> u128 {
    let full = family.full_mask();
    let host_bits = family.address_bits().saturating_sub(length);
    if host_bits >= 128 { 0 } else { (full >> host_bits) << host_bits & full }
}

/// The prefix length of a mask; `None` when its ones are not contiguous.
pub fn prefix_length(mask: u128, family: Family) -> Option<u32> {
    let length = mask.count_ones();
    (prefix_mask(length, family) == mask).then_some(length)
}

/// Writes an address.
pub fn write_address(address: u128, family: Family, out: &mut String) {
    let _ = match family {
        Family::V4 => write!(out, "{}", Ipv4Addr::from(address as u32)),
        Family::V6 => write!(out, "{}", Ipv6Addr::from(address)),
    };
}

/// Writes `address/length`, or `address/mask` when the mask is not contiguous.
pub fn write_network(address: u128, mask: u128, family: Family, out: &mut String) {
    write_address(address, family, out);
    out.push('/');
    match prefix_length(mask, family) {
        Some(length) => {
            let _ = write!(out, "{length}");
        }
        None => write_address(mask, family, out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dotted_addresses_are_those_of_the_standard_library() {
        let parts =
            ["", "0", "00", "1", "01", "10", "99", "255", "256", "999", "1000", "x", "+1", "-1", " 1"];
        let mut texts: Vec<String> =
            ["1", "1.2.3", "1.2.3.4.5", "1.2.3.4.", ".1.2.3.4", "..."].map(String::from).into();
        for a in parts {
            for b in parts {
                texts.extend([format!("{a}.{b}.3.4"), format!("1.2.{a}.{b}"), format!("{a}.2.3.{b}")]);
            }
        }
        for text in texts {
            assert_eq!(parse_dotted(&text), text.parse::<Ipv4Addr>().ok().map(u32::from), "{text}");
        }
    }

    #[track_caller]
    fn check(family: Family, text: &str, printed: &str) {
        let (address, mask) = parse_network(text, family).expect("a network");
        let mut out = String::new();
        write_network(address, mask, family, &mut out);
        assert_eq!(out, printed);
    }

    #[test]
    fn networks_are_masked_and_printed_by_length() {
        check(Family::V4, "10.11.12.13/9", "10.0.0.0/9");
        check(Family::V4, "10.1", "10.1.0.0/32");
        check(Family::V4, "10/8", "10.0.0.0/8");
        check(Family::V4, "1.2.3.4/255.0.255.0", "1.0.3.0/255.0.255.0");
        check(Family::V4, "1.2.3.4/0", "0.0.0.0/0");
        check(Family::V6, "0/0", "::/0");
        check(Family::V6, "::1", "::1/128");
        check(Family::V6, "fe80::1/10", "fe80::/10");
        check(Family::V6, "ffff::1/ffff::1", "ffff::1/ffff::1");
        check(Family::V6, "::/0", "::/0");
    }

    #[test]
    fn what_is_no_network_says_why() {
        let why = |text, family| parse_network(text, family).expect_err("a fault").message;
        assert!(why("ntp.example.net", Family::V4).contains("host name"));
        assert!(why("::1", Family::V4).contains("IPv6 address in an IPv4 ruleset"));
        assert!(why("1.2.3.4/33", Family::V4).contains("33 bits"));
        assert!(why("1.2.3.4.5", Family::V4).contains("no IPv4 address"));
        assert!(why("1.2.3.256", Family::V4).contains("no IPv4 address"));
    }
}
