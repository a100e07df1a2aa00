//! Rules and packets for this crate's tests.

use hipac_rules::{Extension, ParseOptions, Rule, Target, parse};

use crate::{Arrival, Time};

/// The rule of a line without its `-A CHAIN`.
#[track_caller]
pub(crate) fn rule_of(text: &str) -> Rule {
    let text = format!("*filter\n-A FORWARD {text}\nCOMMIT\n");
    let parsed =
        parse(&text, &ParseOptions { family: Some(hipac_rules::Family::V4), ..ParseOptions::default() });
    assert!(!parsed.has_errors(), "{}", hipac_rules::render_all(&parsed.faults, "rule", text.as_bytes()));
    parsed.ruleset.tables[0].chain("FORWARD").unwrap().rules[0].clone()
}

/// The first match of a line, in a chain.
#[track_caller]
pub(crate) fn extension_of(table: &str, chain: &str, text: &str) -> Extension {
    let text = format!("*{table}\n-A {chain} {text}\nCOMMIT\n");
    let parsed =
        parse(&text, &ParseOptions { family: Some(hipac_rules::Family::V4), ..ParseOptions::default() });
    assert!(!parsed.has_errors(), "{}", hipac_rules::render_all(&parsed.faults, "rule", text.as_bytes()));
    parsed.ruleset.tables[0].chain(chain).unwrap().rules[0].matches[0].clone()
}

/// The first match of a line, in IPv6.
#[track_caller]
pub(crate) fn extension6_of(text: &str) -> Extension {
    let text = format!("*filter\n-A FORWARD {text}\nCOMMIT\n");
    let parsed =
        parse(&text, &ParseOptions { family: Some(hipac_rules::Family::V6), ..ParseOptions::default() });
    assert!(!parsed.has_errors(), "{}", hipac_rules::render_all(&parsed.faults, "rule", text.as_bytes()));
    parsed.ruleset.tables[0].chain("FORWARD").unwrap().rules[0].matches[0].clone()
}

/// The target of a line.
#[track_caller]
pub(crate) fn target_of(text: &str) -> Extension {
    match rule_of(text).target {
        Target::Extension(extension) => extension,
        other => panic!("{other:?}"),
    }
}

/// + and - for what held and what did not.
pub(crate) fn outcomes(held: impl Iterator<Item = bool>) -> String {
    held.map(|held| if held { '+' } else { '-' }).collect()
}

/// A UDP packet from 10.0.0.1:1024 to 10.0.0.2:53, TTL 64.
pub(crate) fn udp(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let to = etherparse::PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).udp(1024, 53);
    to.write(&mut bytes, payload).unwrap();
    bytes
}

/// An IPv4 packet of that protocol, which begins at so many times 8 bytes of a whole one.
pub(crate) fn ipv4(protocol: u8, offset: u8, payload: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![0x45, 0, high, low, 0, 7, 0, offset, 64, protocol, 0, 0];
    bytes.extend([10, 0, 0, 1, 10, 0, 0, 2]);
    bytes.extend(payload);
    bytes
}

/// An IPv6 packet with that next header.
pub(crate) fn ipv6(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![0x60, 0, 0, 0, high, low, next_header, 64];
    bytes.extend((0xfd00 << 112 | 1u128).to_be_bytes());
    bytes.extend((0xfd00 << 112 | 2u128).to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// These bytes, in 1970.
pub(crate) fn arrival(wire: &[u8]) -> Arrival<'_> {
    Arrival { wire: Some(wire), ..Arrival::at(Time::default()) }
}
