//! `tcp --tcp-option` and `dccp --dccp-option`: whether a header has an option of a number.
//!
//! The kernel steps over options by their length, and over one byte at the end of the list or where there is no
//! length. A header that says it is shorter than one without options, or longer than the packet, drops the packet.
//! How long a DCCP header is without options, its type says; one that says it is just so long is never looked
//! at behind its first bytes, and drops nothing however early the packet ends.

use hipac_classifier::{Answer, Packet};

use crate::settings::Settings;
use crate::{Arrival, wire};

/// Bytes of a TCP header without options.
const HEADER_BYTES: usize = 20;

/// An option wanted, or not wanted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TcpOption {
    number: u8,
    negated: bool,
}

impl TcpOption {
    /// `None`: the match asks for none.
    pub(crate) fn new(settings: Settings<'_>) -> Option<TcpOption> {
        let number = u8::try_from(settings.number("tcp-option")?).ok()?;
        Some(TcpOption { number, negated: settings.is_negated("tcp-option") })
    }

    /// `None`: the packet's bytes are not known.
    pub(crate) fn ask(&self, packet: &Packet, arrival: &Arrival<'_>) -> Option<Answer> {
        let bytes = wire::bytes(packet, arrival)?;
        let header = bytes.get(wire::transport(packet, &bytes)?..).unwrap_or_default();
        let length = header.get(12).map_or(0, |words| usize::from(words >> 4) * 4);
        Some(match header.get(HEADER_BYTES..length) {
            Some(options) => Answer::from(has(options, self.number) != self.negated),
            None => Answer::Drops,
        })
    }
}

/// A DCCP option wanted, or not wanted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct DccpOption {
    number: u8,
    negated: bool,
}

impl DccpOption {
    /// `None`: the match asks for none.
    pub(crate) fn new(settings: Settings<'_>) -> Option<DccpOption> {
        let number = u8::try_from(settings.number("dccp-option")?).ok()?;
        Some(DccpOption { number, negated: settings.is_negated("dccp-option") })
    }

    /// `None`: the packet's bytes are not known.
    pub(crate) fn ask(&self, packet: &Packet, arrival: &Arrival<'_>) -> Option<Answer> {
        let bytes = wire::bytes(packet, arrival)?;
        let header = bytes.get(wire::transport(packet, &bytes)?..).unwrap_or_default();
        Some(match dccp_options(header) {
            Some(options) => Answer::from(has(options, self.number) != self.negated),
            None => Answer::Drops,
        })
    }
}

/// The options of a DCCP header; `None`: the kernel drops the packet.
///
/// ```text
///   0      4 offset to data   8 type, x   12         16 (x: more of the sequence number)
///   ┌──────┬──────────────────┬───────────┬──────────┬──────────────┬─────────
///   │ ports│ in words of 4    │ …         │ if x     │ of the type  │ options
///   └──────┴──────────────────┴───────────┴──────────┴──────────────┴─────────
/// ```
fn dccp_options(header: &[u8]) -> Option<&[u8]> {
    let (&words, &kind) = header.get(4).zip(header.get(8))?;
    let extended = usize::from(kind & 1) * 4;
    let of_type = match kind >> 1 & 15 {
        // Data; a request and its service code; what acknowledges.
        2 => 0,
        0 => 4,
        3..=6 | 8 | 9 => 8,
        // Responses, resets, and types that do not exist.
        _ => 12,
    };
    let (begin, end) = (12 + extended + of_type, usize::from(words) * 4);
    if begin == end {
        return Some(&[]);
    }
    header.get(begin..end)
}

fn has(mut options: &[u8], number: u8) -> bool {
    while let Some(&kind) = options.first() {
        if kind == number {
            return true;
        }
        let step = match options.get(1) {
            Some(&length) if kind >= 2 => usize::from(length).max(1),
            _ => 1,
        };
        options = options.get(step..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{arrival, ipv4, rule_of};

    #[test]
    fn options_are_stepped_over_by_their_length() {
        let options = [2, 4, 5, 180, 0, 4, 2, 9, 0, 3, 3, 7];
        let found: Vec<u8> = (0..=255).filter(|&number| has(&options, number)).collect();
        assert_eq!(found, [0, 2, 3, 4, 9]);
        assert!(!has(&[8, 10, 3], 3) && !has(&[8, 2, 8], 3) && has(&[8], 8) && !has(&[], 0));
    }

    /// What `--dccp-option 5` says of a header with these words of offset, type, x, and of `behind` bytes behind its
    /// first twelve.
    #[track_caller]
    fn check_dccp((words, kind, x): (u8, u8, u8), behind: &[u8], expected: &str) {
        let mut header = [0; 12];
        (header[4], header[8]) = (words, 0xe0 | kind << 1 | x);
        let wire = ipv4(33, 0, &[&header, behind].concat());
        let packet = Packet::from_ip_bytes(&wire).unwrap();
        let said = ["", "! "].map(|not| {
            let rule = rule_of(&format!("-p dccp -m dccp {not}--dccp-option 5"));
            DccpOption::new(Settings(&rule.matches[0])).expect("an option").ask(&packet, &arrival(&wire))
        });
        let word = |answer: Option<Answer>| match answer.expect("known") {
            Answer::Holds => '+',
            Answer::Fails => '-',
            Answer::Drops => '!',
        };
        assert_eq!(said.map(word).iter().collect::<String>(), expected, "{words} {kind} {x} {behind:?}");
    }

    #[test]
    fn dccp_options_begin_where_the_type_says() {
        let bytes = |at: usize| (0..36).map(|i| if i == at { 5 } else { 0 }).collect::<Vec<u8>>();
        for (kind, length) in [
            (2, 0),
            (0, 4),
            (1, 12),
            (3, 8),
            (4, 8),
            (5, 8),
            (6, 8),
            (7, 12),
            (8, 8),
            (9, 8),
            (10, 12),
            (15, 12),
        ] {
            for x in [0, 1] {
                let begin: u8 = 12 + length + 4 * x;
                let at = usize::from(begin) - 12;
                check_dccp((begin / 4 + 1, kind, x), &bytes(at), "+-");
                check_dccp((begin / 4 + 1, kind, x), &bytes(at + 3), "+-");
                check_dccp((begin / 4 + 1, kind, x), &bytes(at + 4), "-+");
                check_dccp((begin / 4 + 1, kind, x), &bytes(at.wrapping_sub(1)), "-+");
                check_dccp((begin / 4, kind, x), &bytes(at), "-+");
                check_dccp((begin / 4 - 1, kind, x), &bytes(at), "!!");
            }
        }
    }

    #[test]
    fn dccp_headers_that_are_cut_off_drop_the_packet_when_they_have_options() {
        check_dccp((4, 2, 0), &[5, 0, 0, 0], "+-");
        check_dccp((4, 2, 0), &[5, 0, 0], "!!");
        check_dccp((255, 2, 0), &[5; 30], "!!");
        check_dccp((0, 2, 0), &[5; 30], "!!");
        // No options are wanted, so no byte is.
        check_dccp((6, 1, 0), &[], "-+");
        // A length that is not there, or is nothing, or leads beyond the options.
        check_dccp((4, 2, 0), &[0, 0, 0, 9], "-+");
        check_dccp((4, 2, 0), &[9, 0, 5, 0], "+-");
        check_dccp((4, 2, 0), &[9, 3, 5, 0], "-+");
        check_dccp((4, 2, 0), &[9, 200, 5, 0], "-+");
    }
}
