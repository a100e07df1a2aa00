//! `srh`: fields and segments of a segment routing header.
//!
//! ```text
//!   ┌──────┬─────┬───┬──────┬──────┬───────┬─────┬───────────┬───┬───────────┐
//!   │ next │ len │ 4 │ left │ last │ flags │ tag │ segment 0 │ … │ segment n │    the path, from its end
//!   └──────┴─────┴───┴──────┴──────┴───────┴─────┴───────────┴───┴───────────┘
//!      1      1    1    1      1       1      2       16
//! ```
//!
//! The packet is on its way to segment `left`: the one before on the path stands behind it, the next before it, and the
//! last of the path is segment 0. A first routing header that is of another type, or has more left than there are,
//! matches nothing, negated or not; nor does a test of a segment that there is not. How many segments the header has
//! room for is not asked: what the packet holds in their place is read.

use hipac_classifier::Packet;
use hipac_rules::{Setting, Value};

use crate::settings::Settings;
use crate::{Arrival, wire};

/// The number of the routing header, and its type for segment routing.
const ROUTING: u8 = 43;
const TYPE: u8 = 4;

/// What is tested of a header: all of it must hold.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Segments(Vec<Test>);

#[derive(Debug, Clone, Copy, PartialEq)]
struct Test {
    what: What,
    negated: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum What {
    /// The byte at an offset is within a range.
    Byte(usize, (u16, u16)),
    /// The tag, in the byte order of the kernel's machine.
    Tag(u16),
    Segment(Which, (u128, u128)),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Which {
    Previous,
    Next,
    Last,
}

impl Segments {
    /// `None`: what is asked is not known. The kernel has room for one number for all of equal, above and below:
    /// of two that differ the tools keep one.
    pub(crate) fn new(settings: Settings<'_>) -> Option<Segments> {
        for (name, value) in settings.0.settings.iter().map(|s| (s.option.name, &s.value)) {
            let stem = |name: &'static str| name.rsplit_once('-').map(|(stem, _)| stem);
            let shares = |other: &&str| *other != "srh" && stem(name) == Some(*other);
            let differs =
                |s: &&Setting| stem(s.option.name).filter(|o| shares(o)).is_some() && s.value != *value;
            if settings.0.settings.iter().any(|s| differs(&s)) {
                return None;
            }
        }
        let tests = settings.0.settings.iter().map(|setting| {
            let what = match (setting.option.name, &setting.value) {
                ("srh-tag", &Value::Number(tag)) => What::Tag(u16::try_from(tag).ok()?),
                (name, &Value::Number(n)) => {
                    let n = u16::from(u8::try_from(n).ok()?);
                    let (name, range) = match name.rsplit_once('-')? {
                        (name, "eq") => (name, (n, n)),
                        (name, "gt") => (name, (n + 1, 255)),
                        // Below 0 there is nothing.
                        (name, "lt") if n == 0 => (name, (1, 0)),
                        (name, "lt") => (name, (0, n - 1)),
                        _ => (name, (n, n)),
                    };
                    let at = match name {
                        "srh-next-hdr" => 0,
                        "srh-hdr-len" => 1,
                        "srh-segs-left" => 3,
                        "srh-last-entry" => 4,
                        _ => return None,
                    };
                    What::Byte(at, range)
                }
                (name, &Value::Network { address, mask }) => {
                    let which = match name {
                        "srh-psid" => Which::Previous,
                        "srh-nsid" => Which::Next,
                        "srh-lsid" => Which::Last,
                        _ => return None,
                    };
                    What::Segment(which, (address, mask))
                }
                _ => return None,
            };
            Some(Test { what, negated: setting.negated })
        });
        Some(Segments(tests.collect::<Option<_>>()?))
    }

    /// `None`: the packet's bytes are not known.
    pub(crate) fn holds(&self, packet: &Packet, arrival: &Arrival<'_>) -> Option<bool> {
        let bytes = wire::bytes(packet, arrival)?;
        let Some(place) = wire::extension_place(&bytes, ROUTING) else { return Some(false) };
        let begin = place.start;
        let header = bytes.get(place).unwrap_or_default();
        let &[_, _, kind, left, last, _, tag_high, tag_low, ..] = header else { return Some(false) };
        if kind != TYPE || left > last {
            return Some(false);
        }
        // Behind the header, too.
        let segment = |index: usize| {
            let at = begin + 8 + 16 * index;
            Some(u128::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
        };
        let left = usize::from(left);
        Some(self.0.iter().all(|test| {
            let held = match test.what {
                What::Byte(at, (lo, hi)) => {
                    let byte = u16::from(header[at]);
                    lo <= byte && byte <= hi
                }
                What::Tag(tag) => u16::from_le_bytes([tag_high, tag_low]) == tag,
                What::Segment(which, (address, mask)) => {
                    let found = match which {
                        Which::Previous if left == usize::from(last) => None,
                        Which::Previous => segment(left + 1),
                        Which::Next => left.checked_sub(1).and_then(segment),
                        Which::Last => segment(0),
                    };
                    let Some(found) = found else { return false };
                    (found ^ address) & mask == 0
                }
            };
            held != test.negated
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{arrival, extension6_of, ipv6};

    /// A header of segments `::n`, with so many left, a last entry, and a tag of 0x0102.
    fn header(left: u8, last: u8, of: &[u8]) -> Vec<u8> {
        let mut bytes = vec![59, 2 * of.len() as u8, 4, left, last, 0, 1, 2];
        of.iter().for_each(|&n| bytes.extend(u128::from(n).to_be_bytes()));
        bytes
    }

    /// What the options say of a packet, and what they say with `!`.
    #[track_caller]
    fn check(options: &str, header: &[u8], expected: (bool, bool)) {
        let wire = ipv6(ROUTING, header);
        let packet = Packet::from_ip_bytes(&wire).unwrap();
        let said = ["", "! "].map(|not| {
            let extension = extension6_of(&format!("-m srh {not}--srh-{options}"));
            let segments = Segments::new(Settings(&extension)).expect("known");
            segments.holds(&packet, &arrival(&wire)).expect("known")
        });
        assert_eq!((said[0], said[1]), expected, "{options} of {header:?}");
    }

    const YES: (bool, bool) = (true, false);
    const NO: (bool, bool) = (false, true);
    const NEVER: (bool, bool) = (false, false);

    #[test]
    fn fields_are_compared() {
        let header = header(1, 2, &[1, 2, 3]);
        check("next-hdr 59", &header, YES);
        check("next-hdr 6", &header, NO);
        for (name, value) in [("hdr-len", 6), ("segs-left", 1), ("last-entry", 2)] {
            for (other, eq, gt, lt) in
                [(value - 1, NO, YES, NO), (value, YES, NO, NO), (value + 1, NO, NO, YES)]
            {
                check(&format!("{name}-eq {other}"), &header, eq);
                check(&format!("{name}-gt {other}"), &header, gt);
                check(&format!("{name}-lt {other}"), &header, lt);
            }
            check(&format!("{name}-lt 0"), &header, NO);
            check(&format!("{name}-gt 255"), &header, NO);
        }
        // The tools hand the tag over as the machine has it.
        check(&format!("tag {}", 0x0201), &header, YES);
        check(&format!("tag {}", 0x0102), &header, NO);
    }

    #[test]
    fn segments_are_those_before_and_behind_the_one_that_is_next() {
        let middle = header(1, 2, &[1, 2, 3]);
        check("psid ::3", &middle, YES);
        check("nsid ::1", &middle, YES);
        check("lsid ::1", &middle, YES);
        check("psid ::1", &middle, NO);
        check("nsid ::2", &middle, NO);
        check("lsid ::5/126", &middle, NO);
        check("psid ::2/127", &middle, YES);
        // There is none before the first, and none behind the last.
        check("psid ::/0", &header(2, 2, &[1, 2, 3]), NEVER);
        check("nsid ::2", &header(2, 2, &[1, 2, 3]), YES);
        check("nsid ::/0", &header(0, 2, &[1, 2, 3]), NEVER);
    }

    #[test]
    fn two_numbers_where_the_kernel_holds_one_are_not_known() {
        let known =
            |options: &str| Segments::new(Settings(&extension6_of(&format!("-m srh {options}")))).is_some();
        assert!(!known("--srh-segs-left-eq 2 --srh-segs-left-gt 0"));
        assert!(known("--srh-segs-left-eq 2 --srh-segs-left-lt 2 --srh-hdr-len-eq 3 --srh-tag 1"));
        assert!(known("--srh-psid ::1 --srh-nsid ::2 --srh-lsid ::3"));
    }

    #[test]
    fn what_is_no_such_header_never_matches() {
        check("next-hdr 59", &header(3, 2, &[1, 2, 3]), NEVER);
        let mut other = header(1, 2, &[1, 2, 3]);
        other[2] = 3;
        check("next-hdr 59", &other, NEVER);
        let wire = ipv6(59, &[0; 8]);
        let packet = Packet::from_ip_bytes(&wire).unwrap();
        let segments = Segments::new(Settings(&extension6_of("-m srh"))).expect("known");
        assert_eq!(segments.holds(&packet, &arrival(&wire)), Some(false));
    }

    #[test]
    fn segments_are_read_behind_the_header_and_not_behind_the_packet() {
        let mut short = header(1, 200, &[1]);
        check("nsid ::1", &short, YES);
        check("psid ::/0", &short, NEVER);
        check("lsid ::/0", &header(0, 0, &[]), NEVER);
        short.extend([0; 31]);
        check("psid ::/0", &short, NEVER);
        short.push(9);
        check("psid ::9", &short, YES);
        check("psid ::/0", &header(254, 255, &[1]), NEVER);
    }
}
