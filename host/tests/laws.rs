//! Laws of matches that look into a packet: nothing from outside makes them panic, and texts are found where a slow
//! search finds them.

use hipac_classifier::{Answer, Packet};
use hipac_host::{Arrival, Options, State, Time, bpf};
use hipac_rules::{Family, ParseOptions, TableKind, parse};
use proptest::prelude::*;

/// The state of one rule, when it is one that the kernel would load.
fn state(rule: &str) -> Option<State> {
    let text = format!("*filter\n-A FORWARD {rule}\nCOMMIT\n");
    let parsed = parse(&text, &ParseOptions { family: Some(Family::V4), ..ParseOptions::default() });
    if parsed.has_errors() {
        return None;
    }
    State::new(&parsed.ruleset, Options::default(), Time::default()).ok()
}

fn ask(state: &mut State, payload: &[u8]) -> Option<Answer> {
    let packet = Packet { length: 20 + payload.len() as u32, ttl: 64, ..Packet::default() };
    let mut wire = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    wire.extend(payload);
    let arrival = Arrival { wire: Some(&wire), ..Arrival::at(Time::default()) };
    // FORWARD is the second built-in chain.
    state.ask((TableKind::Filter, 1, 0), 0, &packet, &arrival)
}

/// Few different bytes, of each case.
fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(
        prop_oneof![Just(b'a'), Just(b'A'), Just(b'b'), Just(0xe4), Just(0xc4)],
        1..most,
    )
}

fn slow_upper(byte: u8) -> u8 {
    match byte {
        b'a' | b'b' => byte - 32,
        0xe4 => 0xc4,
        other => other,
    }
}

/// One instruction in 24 bytes or fewer.
fn instruction() -> impl Strategy<Value = (u16, u8, u8, u32)> {
    let code = prop_oneof![4 => 0u16..0xc0, 1 => any::<u16>()];
    let k = prop_oneof![0u32..64, any::<u32>(), 0xffef_ff00u32..0xfff0_0100, 0xffff_f000u32..0xffff_f044];
    (code, 0u8..6, 0u8..6, k)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_text_is_found_where_a_slow_search_finds_it(
        text in bytes(5), payload in bytes(24), from in 18usize..40, length in 0usize..24, icase in any::<bool>(),
    ) {
        let digits: String = text.iter().map(|b| format!("{b:02x}")).collect();
        let to = from + length;
        let case = if icase { "--icase" } else { "" };
        let rule = format!("-m string --algo kmp --hex-string |{digits}| --from {from} --to {to} {case}");
        let mut state = state(&rule).expect("a good rule");
        let same = |a: u8, b: u8| a == b || (icase && slow_upper(a) == slow_upper(b));
        let is_at = |at: usize| text.iter().zip(&payload[at..]).all(|(&a, &b)| same(a, b));
        let starts = 0..(payload.len() + 1).saturating_sub(text.len());
        // The IP header is 20 bytes, none of them a letter of the text.
        let mut found = starts.filter(|&at| 20 + at >= from && 20 + at + text.len() <= to).filter(|&at| is_at(at));
        prop_assert_eq!(ask(&mut state, &payload), Some(Answer::from(found.next().is_some())), "{}", rule);
    }

    #[test]
    fn a_program_that_is_taken_ends_without_a_panic(
        instructions in proptest::collection::vec(instruction(), 1..20), payload in bytes(40), ret in any::<u32>(),
    ) {
        let mut text = format!("{}", instructions.len() + 1);
        for (code, jt, jf, k) in &instructions {
            text.push_str(&format!(",{code} {jt} {jf} {k}"));
        }
        text.push_str(&format!(",6 0 0 {ret}"));
        if let Ok(program) = bpf::Program::parse(&text) {
            program.run(&payload, &Packet::default());
            program.run(&[], &Packet::default());
        }
    }

    #[test]
    fn no_text_makes_a_rule_panic(
        which in prop_oneof![Just("u32 --u32"), Just("bpf --bytecode"), Just("string --algo bm --hex-string")],
        text in "[0-9a-fx&<>@=:, |]{0,40}",
        payload in bytes(40),
    ) {
        if let Some(mut state) = state(&format!("-m {which} \"{text}\"")) {
            ask(&mut state, &payload);
            ask(&mut state, &[]);
        }
    }
}
