//! `tcp --tcp-option`: whether a TCP header has an option of a number.
//!
//! The kernel steps over options by their length, and over one byte at the end of the list or where there is no
//! length. A header that says it is shorter than a TCP header, or longer than the packet, drops the packet.

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

    #[test]
    fn options_are_stepped_over_by_their_length() {
        let options = [2, 4, 5, 180, 0, 4, 2, 9, 0, 3, 3, 7];
        let found: Vec<u8> = (0..=255).filter(|&number| has(&options, number)).collect();
        assert_eq!(found, [0, 2, 3, 4, 9]);
        assert!(!has(&[8, 10, 3], 3) && !has(&[8, 2, 8], 3) && has(&[8], 8) && !has(&[], 0));
    }
}
