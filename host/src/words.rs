//! `u32`: arithmetic on words of the packet.
//!
//! ```text
//!   0>>22&0x3C @ 12>>26&0x3C @ 0=0x47455420
//!   │           │               └ read the word at 0 of what is left: "GET "?
//!   │           └ the number so far is added to where reading begins; read the word at 12 from there
//!   └ read the word at 0 of the IP header, shift, mask
//! ```
//!
//! A read beyond the packet makes the whole match false (and a negated one true).

use crate::settings::Settings;

/// All tests of a rule; each must hold.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Words {
    tests: Vec<Test>,
    is_inverted: bool,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Test {
    first: u32,
    steps: Vec<(Operator, u32)>,
    ranges: Vec<(u32, u32)>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Operator {
    And,
    Left,
    Right,
    At,
}

/// Tests, steps of one, and ranges of one: as many as the kernel has room for.
const PARTS_MAX: usize = 11;

impl Words {
    pub(crate) fn new(settings: Settings<'_>) -> Result<Words, String> {
        let text = settings.text("u32").unwrap_or("");
        let tests = text.split("&&").map(test).collect::<Option<Vec<_>>>();
        let tests = tests.ok_or_else(|| format!("`{text}` is no list of tests"))?;
        let is_too_long = |t: &Test| t.steps.len() >= PARTS_MAX || t.ranges.len() > PARTS_MAX;
        if tests.len() > PARTS_MAX || tests.iter().any(is_too_long) {
            return Err(format!("more than {PARTS_MAX} tests, numbers or ranges"));
        }
        let shifts_too_far =
            |(operator, n): &(Operator, u32)| matches!(operator, Operator::Left | Operator::Right) && *n > 31;
        if tests.iter().any(|t| t.steps.iter().any(shifts_too_far)) {
            return Err("a shift is by 31 bits at most".into());
        }
        Ok(Words { tests, is_inverted: settings.is_negated("u32") })
    }

    pub(crate) fn holds(&self, packet: &[u8]) -> bool {
        self.tests.iter().all(|test| test.holds(packet)) != self.is_inverted
    }
}

impl Test {
    fn holds(&self, packet: &[u8]) -> bool {
        let Some(value) = self.value(packet) else { return false };
        self.ranges.iter().any(|&(lo, hi)| lo <= value && value <= hi)
    }

    /// `None`: it lies beyond the packet.
    fn value(&self, packet: &[u8]) -> Option<u32> {
        let read = |at: u32| {
            let four = packet.get(usize::try_from(at).ok()?..)?.first_chunk()?;
            Some(u32::from_be_bytes(*four))
        };
        let mut begin = 0u32;
        let mut value = read(self.first)?;
        for &(operator, number) in &self.steps {
            value = match operator {
                Operator::And => value & number,
                Operator::Left => value.wrapping_shl(number),
                Operator::Right => value.wrapping_shr(number),
                Operator::At => {
                    begin = begin.checked_add(value)?;
                    read(begin.checked_add(number)?)?
                }
            };
        }
        Some(value)
    }
}

/// One test of the canonical text: `0x6&0xff=0x1,0x6:0x7`.
fn test(text: &str) -> Option<Test> {
    let (location, ranges) = text.split_once('=')?;
    let mut test = Test::default();
    let mut rest = location;
    let mut operator = None;
    loop {
        let end = rest.find(['&', '<', '>', '@']).unwrap_or(rest.len());
        let n = number(&rest[..end])?;
        match operator {
            None => test.first = n,
            Some(operator) => test.steps.push((operator, n)),
        }
        rest = &rest[end..];
        let named =
            [("&", Operator::And), ("<<", Operator::Left), (">>", Operator::Right), ("@", Operator::At)];
        let Some((name, found)) = named.into_iter().find(|(name, _)| rest.starts_with(name)) else { break };
        (operator, rest) = (Some(found), &rest[name.len()..]);
    }
    if !rest.is_empty() {
        return None;
    }
    for range in ranges.split(',') {
        let (lo, hi) = range.split_once(':').unwrap_or((range, range));
        test.ranges.push((number(lo)?, number(hi)?));
    }
    Some(test)
}

fn number(text: &str) -> Option<u32> {
    let text = text.trim();
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::rule_of;

    #[track_caller]
    fn check(options: &str, packet: &[u8], expected: bool) {
        let rule = rule_of(&format!("-m u32 {options}"));
        let words = Words::new(Settings(&rule.matches[0])).unwrap();
        assert_eq!(words.holds(packet), expected, "{options}");
    }

    const PACKET: [u8; 12] = [0x45, 0, 0, 12, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xfe];

    #[test]
    fn words_are_read_shifted_and_masked() {
        check("--u32 0=0x4500000c", &PACKET, true);
        check("--u32 1=0x00000c00", &PACKET, true);
        check("--u32 0>>24&0xf=5", &PACKET, true);
        check("--u32 0&0xff<<4=0xc0", &PACKET, true);
        check("--u32 0=1:2,0x4500000c:0x4500000d", &PACKET, true);
        check("--u32 0=0x4500000d:0xffffffff", &PACKET, false);
        check("--u32 \"0=0x4500000c && 4=5\"", &PACKET, false);
    }

    #[test]
    fn at_moves_where_reading_begins() {
        check("--u32 4@4=0xfffffffe", &PACKET, true);
        check("--u32 4@0@0=0", &PACKET, false);
        check("--u32 8@0=0", &PACKET, false);
    }

    #[test]
    fn a_read_beyond_the_packet_makes_the_match_false_and_its_negation_true() {
        check("--u32 8=0xfffffffe", &PACKET, true);
        check("--u32 9=0:0xffffffff", &PACKET, false);
        check("! --u32 9=0:0xffffffff", &PACKET, true);
        check("--u32 0xffffffff=0:0xffffffff", &PACKET, false);
        check("--u32 8@4=0:0xffffffff", &PACKET, false);
        check("--u32 0=0:0xffffffff", &PACKET[..3], false);
    }

    #[test]
    fn what_the_kernel_refuses_is_refused() {
        for text in ["0>>32=0", "0<<33=0"] {
            let rule = rule_of(&format!("-m u32 --u32 {text}"));
            assert!(Words::new(Settings(&rule.matches[0])).is_err(), "{text}");
        }
        check("--u32 0>>31=0", &PACKET, true);
    }
}
