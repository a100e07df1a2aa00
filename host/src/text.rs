//! `string`: a text within the packet, from its IP header on.
//!
//! ```text
//!   │ IP header │ transport │ payload …                │
//!          ▲from                        ▲to              the text lies between, to the byte
//! ```
//!
//! The kernel's two ways to search, `bm` and `kmp`, find the same in a packet that lies in one piece. That is what
//! is assumed here; in a packet in several pieces `bm` does not see a text across two of them.
//! Upper case is the kernel's: of Latin-1, whatever the bytes mean.

use memchr::memmem::Finder;

use crate::settings::Settings;

/// A text that is searched.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    finder: Finder<'static>,
    length: usize,
    from: usize,
    to: usize,
    ignores_case: bool,
    is_inverted: bool,
}

impl PartialEq for Text {
    fn eq(&self, other: &Text) -> bool {
        let parts = |t: &Text| (t.from, t.to, t.ignores_case, t.is_inverted);
        parts(self) == parts(other) && self.finder.needle() == other.finder.needle()
    }
}

impl Text {
    pub(crate) fn new(settings: Settings<'_>) -> Result<Text, String> {
        let (name, mut bytes) = match (settings.text("string"), settings.text("hex-string")) {
            (Some(text), _) => ("string", text.as_bytes().to_vec()),
            (_, Some(text)) => ("hex-string", hex_bytes(text)?),
            _ => return Err("it has no text".into()),
        };
        if bytes.is_empty() {
            return Err("an empty text is refused by the kernel".into());
        }
        let place = |name| settings.number(name).and_then(|n| usize::try_from(n).ok());
        let (from, to) = (place("from").unwrap_or(0), place("to").unwrap_or(65535));
        if from > to {
            return Err(format!("--from {from} lies behind --to {to}"));
        }
        let ignores_case = settings.has("icase");
        if ignores_case {
            bytes.iter_mut().for_each(|b| *b = upper(*b));
        }
        let is_inverted = settings.is_negated(name);
        let finder = Finder::new(&bytes).into_owned();
        Ok(Text { finder, length: bytes.len(), from, to, ignores_case, is_inverted })
    }

    pub(crate) fn holds(&self, packet: &[u8]) -> bool {
        // What begins before `to` but ends behind it is not found.
        let end = packet.len().min(self.to);
        let window = packet.get(self.from..end).unwrap_or_default();
        let found = if window.len() < self.length {
            false
        } else if self.ignores_case {
            let window: Vec<u8> = window.iter().map(|&b| upper(b)).collect();
            self.finder.find(&window).is_some()
        } else {
            self.finder.find(window).is_some()
        };
        found != self.is_inverted
    }
}

/// Upper case as the kernel has it.
fn upper(byte: u8) -> u8 {
    match byte {
        b'a'..=b'z' => byte - 32,
        0xf7 => byte,
        0xdf..=0xff => byte - 32,
        _ => byte,
    }
}

/// The bytes of `text|0a0b|text`.
fn hex_bytes(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    for (i, part) in text.split('|').enumerate() {
        if i % 2 == 0 {
            bytes.extend_from_slice(part.as_bytes());
            continue;
        }
        let digits: Vec<u8> = part.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        for pair in digits.chunks(2) {
            let byte = std::str::from_utf8(pair).ok().and_then(|p| u8::from_str_radix(p, 16).ok());
            bytes.push(byte.ok_or_else(|| format!("`{part}` is no sequence of hexadecimal bytes"))?);
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::rule_of;

    /// In a packet whose bytes are given as text.
    #[track_caller]
    fn check(options: &str, packet: &[u8], expected: bool) {
        for algorithm in ["bm", "kmp"] {
            let rule = rule_of(&format!("-m string --algo {algorithm} {options}"));
            let text = Text::new(Settings(&rule.matches[0])).unwrap();
            assert_eq!(text.holds(packet), expected, "{options}");
        }
    }

    #[test]
    fn a_text_is_found_anywhere() {
        for at in [&b"needle...."[..], b"...needle.", b"....needle", b"needle"] {
            check("--string needle", at, true);
        }
        check("--string needle", b"needl", false);
        check("! --string needle", b"needl", true);
        check("--string needle", b"", false);
    }

    #[test]
    fn from_and_to_hold_to_the_byte() {
        let packet = b"....needle....";
        check("--string needle --from 4", packet, true);
        check("--string needle --from 5", packet, false);
        check("--string needle --to 10", packet, true);
        check("--string needle --to 9", packet, false);
        check("--string needle --from 4 --to 10", packet, true);
        check("--string needle --from 100 --to 200", packet, false);
        check("--string needle --from 4 --to 4", packet, false);
    }

    #[test]
    fn upper_and_lower_case_are_those_of_latin_1() {
        check("--string NeedLE --icase", b"..nEEdle", true);
        check("--string NeedLE", b"..nEEdle", false);
        check("--hex-string |e4| --icase", &[0xc4], true);
        check("--hex-string |f7| --icase", &[0xd7], false);
        check("--hex-string |ff| --icase", &[0xdf], false);
        check("--hex-string |5b| --icase", b"{", false);
    }

    #[test]
    fn hexadecimal_parts_are_bytes() {
        check("--hex-string \"a|0d 0A|b\"", b"..a\r\nb", true);
        check("--hex-string |00|", &[1, 0], true);
    }
}
