//! What IPv6 matches read of a packet's headers that no field holds.
//!
//! `mh` looks at the transport header, in a whole packet or a first fragment: one that is cut off, or that says anything
//! may follow it, drops the packet. `eui64` looks at the frame before the packet. `hbh --hbh-opts` and `dst --dst-opts` want
//! options in the order that the first header of its kind has them, from its first on:
//!
//! ```text
//!   ┌──────┬────────┬──────┬──────────────────┬─────────────
//!   │ next │ length │  0   │  5   2   a   b   │  1   0  …       wanted 0,5:2: holds, whatever follows
//!   └──────┴────────┴──────┴──────────────────┴─────────────
//!                    one byte  type, length, so many bytes
//! ```

use hipac_classifier::{Answer, L4, Packet};
use hipac_rules::Value;

use crate::settings::Settings;
use crate::{Arrival, wire};

/// `mh`: types of mobility headers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Mobility {
    first: u8,
    last: u8,
    negated: bool,
}

impl Mobility {
    pub(crate) fn new(settings: Settings<'_>) -> Mobility {
        let byte = |n: u64| u8::try_from(n).unwrap_or(u8::MAX);
        let (first, last) = match settings.get("mh-type").map(|s| &s.value) {
            Some(&Value::Range(first, last)) => (byte(first), byte(last)),
            _ => (0, u8::MAX),
        };
        Mobility { first, last, negated: settings.is_negated("mh-type") }
    }

    /// `None`: the packet's bytes are not known.
    pub(crate) fn ask(&self, packet: &Packet, arrival: &Arrival<'_>) -> Option<Answer> {
        /// No next header.
        const NONE: u8 = 59;
        if matches!(packet.l4, L4::Fragment | L4::FragmentAt8) {
            return Some(Answer::Fails);
        }
        let bytes = wire::bytes(packet, arrival)?;
        let header = bytes.get(wire::transport(packet, &bytes)?..).unwrap_or_default();
        // What follows, length, type, a reserved byte, a checksum of two.
        let &[NONE, _, kind, _, _, _, ..] = header else { return Some(Answer::Drops) };
        Some(Answer::from((self.first <= kind && kind <= self.last) != self.negated))
    }
}

/// `eui64`: the source's lower half is the frame's source address, a bit turned and two bytes put in. `None`: there is
/// no frame that one knows of.
pub(crate) fn is_eui64(packet: &Packet) -> Option<bool> {
    let [a, b, c, d, e, f] = packet.mac?;
    let lower = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    Some(packet.is_v6 && packet.source as u64 == lower)
}

/// `hbh --hbh-opts` and `dst --dst-opts`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OptionList {
    header: u8,
    /// Types, and lengths where they matter.
    wanted: Vec<(u8, Option<u8>)>,
}

impl OptionList {
    /// Of the extension header of that number; `None`: no options are asked for.
    pub(crate) fn new(settings: Settings<'_>, name: &str, header: u8) -> Option<OptionList> {
        let Value::Ranges(list) = &settings.get(name)?.value else { return None };
        // In the kernel a length of 255 stands for any.
        let length = |n: u64| u8::try_from(n).ok().filter(|n| *n != u8::MAX);
        let wanted = list.iter().map(|&(kind, n)| Some((u8::try_from(kind).ok()?, length(n))));
        Some(OptionList { header, wanted: wanted.collect::<Option<_>>()? })
    }

    /// `None`: the packet's bytes are not known.
    pub(crate) fn holds(&self, packet: &Packet, arrival: &Arrival<'_>) -> Option<bool> {
        let bytes = wire::bytes(packet, arrival)?;
        let header = wire::extension(&bytes, self.header);
        Some(header.and_then(|header| header.get(2..)).is_some_and(|options| self.begins(options)))
    }

    /// The options begin with those wanted. The last may claim to be longer than the header.
    fn begins(&self, options: &[u8]) -> bool {
        let mut rest = Some(options);
        self.wanted.iter().all(|&(wanted, wanted_length)| {
            let options = rest.unwrap_or_default();
            let length = match *options {
                [0, ..] if wanted == 0 => 1,
                [kind, length, ..] if kind == wanted && wanted_length.is_none_or(|n| n == length) => {
                    usize::from(length) + 2
                }
                _ => return false,
            };
            rest = options.get(length..);
            true
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{arrival, extension6_of, ipv6};

    /// What each of these options says of a mobility header: `+` holds, `-` fails, `!` drops.
    #[track_caller]
    fn check_mobility(next_header: u8, payload: &[u8], expected: &str) {
        let wire = ipv6(next_header, payload);
        let packet = Packet::from_ip_bytes(&wire).unwrap();
        let options = ["", "--mh-type 5", "! --mh-type 5", "--mh-type 5:", "--mh-type :4"];
        let said = options.map(|options| {
            let extension = extension6_of(&format!("-p mh -m mh {options}"));
            match Mobility::new(Settings(&extension)).ask(&packet, &arrival(&wire)).expect("known") {
                Answer::Holds => '+',
                Answer::Fails => '-',
                Answer::Drops => '!',
            }
        });
        assert_eq!(said.iter().collect::<String>(), expected, "{payload:?}");
    }

    #[test]
    fn types_of_mobility_headers_lie_in_a_range() {
        check_mobility(135, &[59, 0, 5, 0, 0, 0, 0, 0], "++-+-");
        check_mobility(135, &[59, 0, 6, 0, 0, 0], "+-++-");
        check_mobility(135, &[59, 0, 4, 0, 0, 0], "+-+-+");
        check_mobility(135, &[59, 0, 255, 0, 0, 0], "+-++-");
        check_mobility(60, &[135, 0, 1, 4, 0, 0, 0, 0, 59, 0, 5, 0, 0, 0], "++-+-");
    }

    #[test]
    fn a_mobility_header_that_is_cut_off_or_not_the_last_drops_the_packet() {
        check_mobility(135, &[59, 0, 5, 0, 0], "!!!!!");
        check_mobility(135, &[], "!!!!!");
        check_mobility(135, &[6, 0, 5, 0, 0, 0, 0, 0], "!!!!!");
        check_mobility(60, &[60, 0, 0, 0, 0, 0, 0, 0, 135, 9], "!!!!!");
        // A later fragment, at 8 and at 16 bytes.
        for at in [8, 16] {
            check_mobility(44, &[135, 0, 0, at, 0, 0, 0, 7, 59, 0, 5, 0, 0, 0], "-----");
        }
    }

    #[test]
    fn an_address_is_made_of_that_of_the_frame() {
        let of = |source: u128, mac| is_eui64(&Packet { is_v6: true, source, mac, ..Packet::default() });
        let made = 0x2001_0db8 << 96 | 0x0200_5eff_fe01_0203;
        assert_eq!(of(made, Some([0, 0, 0x5e, 1, 2, 3])), Some(true));
        assert_eq!(of(made ^ 1 << 64, Some([0, 0, 0x5e, 1, 2, 3])), Some(true));
        for bit in 0..64 {
            assert_eq!(of(made ^ 1 << bit, Some([0, 0, 0x5e, 1, 2, 3])), Some(false));
        }
        assert_eq!(of(made, Some([2, 0, 0x5e, 1, 2, 3])), Some(false));
        assert_eq!(of(made, None), None);
    }

    /// Whether a list of options holds for a header with these behind its first two bytes.
    #[track_caller]
    fn check_options(list: &str, options: &[u8], expected: bool) {
        assert_eq!((options.len() + 2) % 8, 0);
        for (name, number) in [("hbh", 0), ("dst", 60)] {
            let extension = extension6_of(&format!("-m {name} --{name}-opts {list}"));
            let kept =
                OptionList::new(Settings(&extension), &format!("{name}-opts"), number).expect("a list");
            let header = [&[59, (options.len() / 8) as u8][..], options].concat();
            let wire = ipv6(number, &header);
            let packet = Packet::from_ip_bytes(&wire).unwrap();
            assert_eq!(kept.holds(&packet, &arrival(&wire)), Some(expected), "{name} {list} of {options:?}");
            let other = ipv6(43, &header);
            let packet = Packet::from_ip_bytes(&other).unwrap();
            assert_eq!(kept.holds(&packet, &arrival(&other)), Some(false));
        }
    }

    #[test]
    fn options_are_wanted_from_the_first_on_in_order() {
        let options = [0, 5, 2, 9, 9, 30];
        check_options("0", &options, true);
        check_options("0,5", &options, true);
        check_options("0,5:2", &options, true);
        check_options("0,5:255", &options, true);
        check_options("0,5:3", &options, false);
        check_options("5:2", &options, false);
        check_options("0,0", &options, false);
        check_options("0,5,0", &options, false);
        // A type at the end, which has no length.
        check_options("0,5,30", &options, false);
        check_options("0,5,0", &[0, 5, 2, 9, 9, 0], true);
        check_options("0,5,0,0", &[0, 5, 2, 9, 9, 0], false);
    }

    #[test]
    fn only_the_last_wanted_option_may_lead_beyond_the_header() {
        check_options("5", &[5, 200, 0, 0, 0, 0], true);
        check_options("5,0", &[5, 200, 0, 0, 0, 0], false);
        check_options("5,0", &[5, 3, 0, 0, 0, 0], true);
        check_options("5,0", &[5, 4, 0, 0, 0, 0], false);
        check_options("5", &[5, 255, 0, 0, 0, 0], true);
        // No length is a length.
        check_options("5:0,6:0,7:0", &[5, 0, 6, 0, 7, 0], true);
        check_options("5:0,6:0,7:0,8", &[5, 0, 6, 0, 7, 0], false);
    }
}
