//! `rpfilter` and `socket`: what routes and sockets of the host say, where the caller says it.
//!
//! Neither is in a packet, and neither has a usual value: a [`Packet`] whose caller says nothing has no answer,
//! and rules that ask count as an "if". That is why they are no dimensions, which decide always.

use hipac_classifier::{Fact, InterfaceName, Packet};

use crate::settings::Settings;

/// `rpfilter`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct RpFilter {
    is_loose: bool,
    is_marked: bool,
    takes_local: bool,
    is_inverted: bool,
}

impl RpFilter {
    pub(crate) fn new(settings: Settings<'_>) -> RpFilter {
        RpFilter {
            is_loose: settings.has("loose"),
            is_marked: settings.has("validmark"),
            takes_local: settings.has("accept-local"),
            is_inverted: settings.has("invert"),
        }
    }

    pub(crate) fn holds(&self, packet: &Packet) -> Option<bool> {
        Some(self.is_sound(packet)? != self.is_inverted)
    }

    fn is_sound(&self, packet: &Packet) -> Option<bool> {
        if Some(packet.in_interface) == InterfaceName::new("lo") || is_unroutable(packet) {
            return Some(true);
        }
        // The lookup that was made is one without a mark.
        if self.is_marked && packet.mark != 0 {
            return None;
        }
        Some(match packet.facts.get(Fact::WayBack) {
            1 => false,
            2 => self.is_loose,
            3 => true,
            // An IPv6 lookup does not ask by which interface.
            4 => self.takes_local && (self.is_loose || packet.is_v6),
            5 => self.takes_local,
            _ => return None,
        })
    }
}

/// Sources that no route leads to and that the kernel lets pass: `::`, and 0.0.0.0/8 to everybody nearby.
fn is_unroutable(packet: &Packet) -> bool {
    let (source, destination) = (packet.source, packet.destination);
    match packet.is_v6 {
        true => source == 0,
        false => source >> 24 == 0 && (destination == 0xffff_ffff || destination >> 8 == 0xe0_0000),
    }
}

/// `socket`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Receiver {
    wants_transparent: bool,
    takes_wildcard: bool,
}

impl Receiver {
    /// `None`: it changes the packet's mark to one that is not known.
    pub(crate) fn new(settings: Settings<'_>) -> Option<Receiver> {
        (!settings.has("restore-skmark")).then(|| Receiver {
            wants_transparent: settings.has("transparent"),
            takes_wildcard: settings.has("nowildcard"),
        })
    }

    pub(crate) fn holds(&self, packet: &Packet) -> Option<bool> {
        let (is_wildcard, is_transparent) = match packet.facts.get(Fact::Receiver) {
            1 => return Some(false),
            2 => (false, false),
            3 => (true, false),
            4 => (false, true),
            5 => (true, true),
            _ => return None,
        };
        Some((self.takes_wildcard || !is_wildcard) && (!self.wants_transparent || is_transparent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::extension_of;

    /// What holds for each value of a fact, `?` for what is not known.
    fn outcomes(fact: Fact, packet: Packet, holds: impl Fn(&Packet) -> Option<bool>) -> String {
        let of = |value| {
            let mut packet = packet;
            packet.facts.set(fact, value);
            holds(&packet).map_or('?', |held| if held { '+' } else { '-' })
        };
        (0..=fact.max()).map(of).collect()
    }

    #[track_caller]
    fn check(options: &str, packet: Packet, expected: &str) {
        let rpfilter = extension_of("raw", "PREROUTING", &format!("-m rpfilter {options}"));
        let kept = RpFilter::new(Settings(&rpfilter));
        assert_eq!(outcomes(Fact::WayBack, packet, |p| kept.holds(p)), expected, "{options}");
    }

    /// Not known; no route; by another interface; by this one; to this host, by another interface or this one.
    #[test]
    fn a_way_back_is_sound_as_the_options_say() {
        let packet = Packet { source: 0x0a00_0001, destination: 0x0a00_0002, ..Packet::default() };
        let v6 = Packet { is_v6: true, ..packet };
        check("", packet, "?--+--");
        check("--invert", packet, "?++-++");
        check("--loose", packet, "?-++--");
        check("--accept-local", packet, "?--+-+");
        check("--accept-local --loose", packet, "?-++++");
        check("--accept-local", v6, "?--+++");
        check("--validmark", packet, "?--+--");
        check("--validmark", Packet { mark: 1, ..packet }, "??????");
        check("", Packet { mark: 1, ..packet }, "?--+--");
        check("", Packet { in_interface: InterfaceName::new("lo").unwrap(), ..packet }, "++++++");
        check("", Packet { source: 0, destination: 0xffff_ffff, ..packet }, "++++++");
        check("", Packet { source: 0, destination: 0xe000_00fb, ..packet }, "++++++");
        check("", Packet { source: 0, ..packet }, "?--+--");
        check("--invert", Packet { source: 0, ..v6 }, "------");
    }

    #[test]
    fn a_receiver_is_what_the_options_take() {
        let holds = |options: &str| {
            let socket = extension_of("mangle", "PREROUTING", &format!("-m socket {options}"));
            let kept = Receiver::new(Settings(&socket))?;
            Some(outcomes(Fact::Receiver, Packet::default(), |p| kept.holds(p)))
        };
        assert_eq!(holds("").as_deref(), Some("?-+-+-"));
        assert_eq!(holds("--nowildcard").as_deref(), Some("?-++++"));
        assert_eq!(holds("--transparent").as_deref(), Some("?---+-"));
        assert_eq!(holds("--transparent --nowildcard").as_deref(), Some("?---++"));
        assert_eq!(holds("--restore-skmark"), None);
    }
}
