//! `sctp --chunk-types`: which chunks an SCTP packet carries.
//!
//! ```text
//!   ┌────────┬──────────────┬─────────┬──────────────────┬───
//!   │ ports… │ DATA  len 16 │ padding │ COOKIE_ACK len 4 │      each begins at a multiple of 4
//!   └────────┴──────────────┴─────────┴──────────────────┴───
//!     12 bytes
//! ```
//!
//! The kernel walks the chunks in order and stops at the first that settles the question. A chunk that is cut
//! off, or has no length, drops the packet when the walk comes to it; so what the packet's chunks *are* does not
//! say what happens, and no field could. A chunk counts when its flags are as wanted, too: `DATA:Be` wants
//! B set and E not.

use hipac_classifier::{Answer, Packet};
use hipac_rules::Value;

use crate::settings::Settings;
use crate::{Arrival, wire};

/// Bytes of the common header of SCTP.
const HEADER_BYTES: usize = 12;

/// Chunk types by name, with the letters of their flags from bit 7 down.
const TYPES: [(&str, u8, &str); 21] = [
    ("DATA", 0, "----IUBE"),
    ("INIT", 1, "--------"),
    ("INIT_ACK", 2, "--------"),
    ("SACK", 3, "--------"),
    ("HEARTBEAT", 4, "--------"),
    ("HEARTBEAT_ACK", 5, "--------"),
    ("ABORT", 6, "-------T"),
    ("SHUTDOWN", 7, "--------"),
    ("SHUTDOWN_ACK", 8, "--------"),
    ("ERROR", 9, "--------"),
    ("COOKIE_ECHO", 10, "--------"),
    ("COOKIE_ACK", 11, "--------"),
    ("ECN_ECNE", 12, "--------"),
    ("ECN_CWR", 13, "--------"),
    ("SHUTDOWN_COMPLETE", 14, "-------T"),
    ("I_DATA", 64, "----IUBE"),
    ("RE_CONFIG", 130, "--------"),
    ("PAD", 132, "--------"),
    ("ASCONF", 193, "--------"),
    ("ASCONF_ACK", 128, "--------"),
    ("FORWARD_TSN", 192, "--------"),
];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Which {
    All,
    Any,
    Only,
}

/// Wanted chunks.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Chunks {
    which: Which,
    negated: bool,
    wanted: [bool; 256],
    /// Of a type: the flags looked at, and those that are set.
    flags: Vec<(u8, u8, u8)>,
}

impl Chunks {
    /// `Ok(None)`: what it means is not known.
    pub(crate) fn new(settings: Settings<'_>) -> Result<Option<Chunks>, String> {
        let Some(setting) = settings.get("chunk-types") else { return Ok(None) };
        let Value::Pair(pair) = &setting.value else { return Err("its chunks are no list".into()) };
        let which = match &*pair.0 {
            "all" => Which::All,
            "any" => Which::Any,
            _ => Which::Only,
        };
        let mut chunks = Chunks { which, negated: setting.negated, wanted: [false; 256], flags: Vec::new() };
        match &*pair.1 {
            "ALL" => chunks.wanted = [true; 256],
            "NONE" => {}
            list => {
                for word in list.split(',') {
                    let (name, flags) = word.split_once(':').unwrap_or((word, ""));
                    let known = TYPES.iter().find(|t| t.0.eq_ignore_ascii_case(name));
                    let &(_, kind, letters) = known.ok_or_else(|| format!("`{name}` is no chunk"))?;
                    // The tools file such flags under a number that is not the type's: who knows which.
                    if !flags.is_empty() && kind > 14 {
                        return Ok(None);
                    }
                    chunks.wanted[usize::from(kind)] = true;
                    for letter in flags.chars() {
                        let place = letters.find(letter.to_ascii_uppercase()).filter(|_| letter != '-');
                        let bit = 0x80 >> place.ok_or_else(|| format!("`{letter}` is no flag of {name}"))?;
                        chunks.want(kind, bit, letter.is_ascii_uppercase());
                    }
                }
            }
        }
        Ok(Some(chunks))
    }

    fn want(&mut self, kind: u8, bit: u8, is_set: bool) {
        let value = if is_set { bit } else { 0 };
        match self.flags.iter_mut().find(|f| f.0 == kind) {
            Some((_, mask, flags)) => (*mask, *flags) = (*mask | bit, *flags | value),
            None => self.flags.push((kind, bit, value)),
        }
    }

    /// `None`: the packet's bytes are not known.
    pub(crate) fn ask(&self, packet: &Packet, arrival: &Arrival<'_>) -> Option<Answer> {
        let bytes = wire::bytes(packet, arrival)?;
        let chunks = bytes.get(wire::transport(packet, &bytes)? + HEADER_BYTES..).unwrap_or_default();
        Some(match self.walk(chunks) {
            Some(held) => Answer::from(held != self.negated),
            None => Answer::Drops,
        })
    }

    /// Whether the chunks are as wanted, before negation; `None` when they break off before that is settled.
    fn walk(&self, chunks: &[u8]) -> Option<bool> {
        let mut missing = self.wanted;
        let mut rest = chunks;
        loop {
            let &[kind, flags, a, b, ..] = rest else { return None };
            let length = usize::from(u16::from_be_bytes([a, b]));
            if length == 0 {
                return None;
            }
            let suits = self.flags.iter().find(|f| f.0 == kind).is_none_or(|f| flags & f.1 == f.2);
            match (self.which, self.wanted[usize::from(kind)] && suits) {
                (Which::Any, true) => return Some(true),
                (Which::Only, false) => return Some(false),
                (Which::All, true) => missing[usize::from(kind)] = false,
                _ => {}
            }
            rest = match rest.get(length.next_multiple_of(4)..) {
                Some(more) if !more.is_empty() => more,
                _ => break,
            };
        }
        Some(match self.which {
            Which::All => !missing.contains(&true),
            Which::Any => false,
            Which::Only => true,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::rule_of;

    /// Chunks of a type with flags and a length, with as many bytes as that.
    fn chunks(of: &[(u8, u8, u16)]) -> Vec<u8> {
        let chunk = |&(kind, flags, length): &(u8, u8, u16)| {
            let [a, b] = length.to_be_bytes();
            let mut bytes = vec![kind, flags, a, b];
            bytes.resize(usize::from(length).next_multiple_of(4).max(4), 0);
            bytes
        };
        of.iter().flat_map(chunk).collect()
    }

    #[track_caller]
    fn check(types: &str, of: &[(u8, u8, u16)], expected: Option<bool>) {
        let rule = rule_of(&format!("-p sctp -m sctp --chunk-types {types}"));
        let kept = Chunks::new(Settings(&rule.matches[0])).unwrap().expect("known");
        assert_eq!(kept.walk(&chunks(of)), expected, "{types} of {of:?}");
    }

    #[test]
    fn chunks_are_walked_until_the_question_is_settled() {
        let data_and_sack = [(0, 3, 17), (3, 0, 16)];
        check("any SACK,INIT", &data_and_sack, Some(true));
        check("any INIT", &data_and_sack, Some(false));
        check("all DATA,SACK", &data_and_sack, Some(true));
        check("all DATA,SACK,INIT", &data_and_sack, Some(false));
        check("only DATA,SACK,INIT", &data_and_sack, Some(true));
        check("only DATA", &data_and_sack, Some(false));
        check("only ALL", &data_and_sack, Some(true));
        check("any NONE", &data_and_sack, Some(false));
        check("all NONE", &data_and_sack, Some(true));
        check("all ALL", &data_and_sack, Some(false));
        check("any DATA:Be", &[(0, 2, 16)], Some(true));
        check("any DATA:Be", &[(0, 3, 16)], Some(false));
        check("any DATA:Be,SACK", &[(0, 3, 16), (3, 0, 4)], Some(true));
    }

    #[test]
    fn broken_chunks_matter_where_the_walk_comes_to_them() {
        let broken = [(0, 3, 16), (3, 0, 0)];
        check("any DATA", &broken, Some(true));
        check("any SACK", &broken, None);
        check("only SACK", &broken, Some(false));
        check("all DATA", &broken, None);
        check("any DATA", &[], None);
    }
}
