//! Any match that the parser takes is kept or refused, and evaluated over any bytes, without a panic: up to the first
//! zero byte a rule, then packets, each in a length of one byte and the bytes.
#![no_main]

use hipac_classifier::Packet;
use hipac_host::{Arrival, Options, State, Time};
use hipac_rules::{Hook, TableKind, parse};
use hipac_verifier::{Exact, Oracle, Script};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(2, |&b| b == 0);
    let (Some(rule), Some(mut rest)) = (parts.next(), parts.next()) else { return };
    let text = [b"*mangle\n-A PREROUTING ", rule, b"\nCOMMIT\n"].concat();
    let ruleset = parse(&text, &hipac_fuzz::small()).ruleset;
    let options = Options { seed: Some(1), ..Options::default() };
    let Ok(mut state) = State::new(&ruleset, options, Time::default()) else { return };
    let Ok(oracle) = Oracle::new(&ruleset) else { return };
    let mut millis = 0;
    while let Some((&length, following)) = rest.split_first() {
        let (wire, following) = following.split_at(following.len().min(length.into()));
        rest = following;
        millis += u64::from(length);
        let Ok(packet) = Packet::from_ip_bytes(wire) else { continue };
        if packet.is_v6 != (ruleset.family == hipac_rules::Family::V6) {
            continue;
        }
        let arrival = Arrival { wire: Some(wire), ..Arrival::at(Time::from_nanos(millis * 1_000_000)) };
        let mut exact = Exact::new(&mut state, arrival, Script::AllHold);
        oracle.evaluate(TableKind::Mangle, Hook::Prerouting, &packet, &mut exact);
    }
});
