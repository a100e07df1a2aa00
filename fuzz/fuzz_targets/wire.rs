//! Any bytes are read as an IP packet without a panic, and a packet survives its text.
#![no_main]

use hipac_classifier::Packet;
use hipac_rules::Family;
use hipac_verifier::packet_text;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(packet) = Packet::from_ip_bytes(bytes) else { return };
    let family = if packet.is_v6 { Family::V6 } else { Family::V4 };
    let shown = packet_text::show(&packet).to_string();
    assert_eq!(packet_text::parse(&shown, family).as_ref(), Ok(&packet), "{shown}");
});
