//! `rpfilter`, `socket`, `policy` and `addrtype` by interface: what routes, sockets and IPsec of the host say, where
//! the caller says it.
//!
//! None of it is in a packet, and nothing of it has a usual value: a [`Packet`] whose caller says nothing has no answer,
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

/// `policy`, of packets without IPsec, and of rules that ask for no more than that there is some.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Policy {
    is_out: bool,
    wants_none: bool,
    /// It asks which IPsec.
    asks_more: bool,
}

impl Policy {
    pub(crate) fn new(settings: Settings<'_>) -> Policy {
        let plain = ["dir", "pol"];
        Policy {
            is_out: settings.number("dir") == Some(1),
            wants_none: settings.number("pol") == Some(0),
            asks_more: settings.0.settings.iter().any(|s| !plain.contains(&s.option.name)),
        }
    }

    pub(crate) fn holds(&self, packet: &Packet) -> Option<bool> {
        let (came_out, goes_in) = match packet.facts.get(Fact::Ipsec) {
            1 => (false, false),
            2 => (true, false),
            3 => (false, true),
            4 => (true, true),
            _ => return None,
        };
        let is_there = if self.is_out { goes_in } else { came_out };
        match (is_there, self.wants_none) {
            (true, false) if self.asks_more => None,
            (is_there, wants_none) => Some(is_there != wants_none),
        }
    }
}

/// `addrtype --limit-iface-in` or `-out`: an address that this host has by another interface is an ordinary one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TypeByInterface {
    is_out: bool,
    /// Types as bits, and whether they are those that are not wanted.
    source: Option<(u64, bool)>,
    destination: Option<(u64, bool)>,
}

impl TypeByInterface {
    pub(crate) fn new(settings: Settings<'_>) -> TypeByInterface {
        let types = |name| Some((settings.set(name)?, settings.is_negated(name)));
        TypeByInterface {
            is_out: settings.has("limit-iface-out"),
            source: types("src-type"),
            destination: types("dst-type"),
        }
    }

    pub(crate) fn holds(&self, packet: &Packet) -> Option<bool> {
        let suits = |types: Option<(u64, bool)>, (address, kind, bit)| {
            let Some((types, negated)) = types else { return Some(true) };
            let kind = self.limited(packet, address, kind, bit)?;
            Some((types.checked_shr(kind.into()).unwrap_or(0) & 1 == 1) != negated)
        };
        let source = suits(self.source, (packet.source, packet.source_type, 1));
        let destination = suits(self.destination, (packet.destination, packet.destination_type, 4));
        match (source, destination) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (Some(true), Some(true)) => Some(true),
            _ => None,
        }
    }

    /// The type of an address, were there one interface only.
    fn limited(&self, packet: &Packet, address: u128, kind: u8, bit: u32) -> Option<u8> {
        const UNICAST: u8 = 1;
        let interface = if self.is_out { packet.out_interface } else { packet.in_interface };
        // Routes of IPv6 are asked in another way.
        if packet.is_v6 {
            return None;
        }
        let is_by_itself = address >> 24 == 0 || address == 0xffff_ffff || address >> 28 == 0xe;
        if kind == UNICAST || is_by_itself || interface.is_none() {
            return Some(kind);
        }
        let own = packet.facts.get(Fact::OwnInterfaces).checked_sub(1)?;
        let bit = if self.is_out { bit << 1 } else { bit };
        Some(if own & bit != 0 { kind } else { UNICAST })
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

    /// Not known; none; came out of some; goes into some; both.
    #[test]
    fn a_policy_is_there_or_not() {
        #[track_caller]
        fn check(options: &str, expected: &str) {
            let policy = extension_of("mangle", "FORWARD", &format!("-m policy {options}"));
            let kept = Policy::new(Settings(&policy));
            assert_eq!(outcomes(Fact::Ipsec, Packet::default(), |p| kept.holds(p)), expected, "{options}");
        }
        check("--dir in --pol none", "?+-+-");
        check("--dir in --pol ipsec", "?-+-+");
        check("--dir out --pol none", "?++--");
        check("--dir out --pol ipsec", "?--++");
        check("--dir in --pol ipsec --proto esp", "?-?-?");
        check("--dir out --pol ipsec --strict --proto esp", "?--??");
    }

    #[test]
    fn a_type_is_limited_to_an_interface() {
        #[track_caller]
        fn check(options: &str, packet: Packet, expected: &str) {
            let options = format!("-m addrtype {options}");
            let kept = TypeByInterface::new(Settings(&extension_of("mangle", "FORWARD", &options)));
            assert_eq!(outcomes(Fact::OwnInterfaces, packet, |p| kept.holds(p)), expected, "{options}");
        }
        const LOCAL: u8 = 2;
        let eth0 = InterfaceName::new("eth0").unwrap();
        let (source, destination) = (0x0a00_0001, 0x0a00_0002);
        let packet = Packet {
            source,
            destination,
            destination_type: LOCAL,
            in_interface: eth0,
            out_interface: eth0,
            ..Packet::default()
        };
        check("--dst-type LOCAL --limit-iface-in", packet, "?----++++----++++");
        check("--dst-type LOCAL --limit-iface-out", packet, "?--------++++++++");
        check("! --dst-type LOCAL --limit-iface-in", packet, "?++++----++++----");
        check("--dst-type UNICAST --limit-iface-in", packet, "?++++----++++----");
        check("--src-type UNICAST --limit-iface-in", packet, "+++++++++++++++++");
        check("--src-type LOCAL --dst-type LOCAL --limit-iface-in", packet, "-----------------");
        let source = Packet { source_type: LOCAL, ..packet };
        check("--src-type LOCAL --limit-iface-in", source, "?-+-+-+-+-+-+-+-+");
        check("--src-type LOCAL --limit-iface-out", source, "?--++--++--++--++");
        let broadcast = Packet { destination: 0xffff_ffff, destination_type: 3, ..packet };
        check("--dst-type BROADCAST --limit-iface-in", broadcast, "+++++++++++++++++");
        check("--dst-type LOCAL --limit-iface-in", Packet { is_v6: true, ..packet }, "?????????????????");
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
