//! `connbytes` and `connlimit`: what connection tracking knows.
//!
//! Tracking itself is not modelled here: whoever asks says, through [`Tracking`], what it knows about a packet's
//! connection. Without it the answers are not known, but for packets that belong to no connection at all.

use std::collections::HashMap;

use hipac_classifier::{CtState, Packet};
use hipac_rules::{Family, Value};

use crate::settings::Settings;

/// What a caller knows of connections.
pub trait Tracking {
    /// The connection's counters, this packet among them; `None`: not known.
    fn counters(&self, packet: &Packet) -> Option<Counters>;

    /// The connection's first direction.
    fn original(&self, packet: &Packet) -> Tuple {
        Tuple::of(packet)
    }

    /// A connection that was seen is still tracked, and not closed.
    fn is_open(&self, tuple: &Tuple) -> bool;
}

/// One direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tuple {
    /// Source address.
    pub source: u128,
    /// Destination address.
    pub destination: u128,
    /// Protocol.
    pub protocol: u8,
    /// Source and destination port; of ICMP, 0 and type and code.
    pub ports: (u16, u16),
}

impl Tuple {
    /// As a packet shows it.
    pub fn of(packet: &Packet) -> Tuple {
        let Packet { source, destination, protocol, source_port, destination_port, .. } = *packet;
        Tuple { source, destination, protocol, ports: (source_port, destination_port) }
    }
}

/// What a connection has carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Packets and bytes of the first direction.
    pub original: (u64, u64),
    /// Packets and bytes of the reply.
    pub reply: (u64, u64),
}

/// `connbytes`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ConnBytes {
    from: u64,
    to: u64,
    mode: Mode,
    direction: Direction,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Mode {
    Packets,
    Bytes,
    Average,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Direction {
    Original,
    Reply,
    Both,
}

impl ConnBytes {
    pub(crate) fn new(settings: Settings<'_>) -> Result<ConnBytes, String> {
        let (from, to) = match settings.get("connbytes").map(|s| &s.value) {
            Some(&Value::Range(lo, hi)) if settings.is_negated("connbytes") => (hi, lo),
            Some(&Value::Range(lo, hi)) => (lo, hi),
            _ => return Err("it has no range".into()),
        };
        let mode = match settings.number("connbytes-mode") {
            Some(0) => Mode::Packets,
            Some(1) => Mode::Bytes,
            _ => Mode::Average,
        };
        let direction = match settings.number("connbytes-dir") {
            Some(0) => Direction::Original,
            Some(1) => Direction::Reply,
            _ => Direction::Both,
        };
        Ok(ConnBytes { from, to, mode, direction })
    }

    pub(crate) fn holds(&self, packet: &Packet, tracking: Option<&dyn Tracking>) -> Option<bool> {
        if matches!(packet.ct_state, CtState::Invalid | CtState::Untracked) {
            // Negated or not.
            return Some(false);
        }
        let Counters { original, reply } = tracking?.counters(packet)?;
        let (packets, bytes) = match self.direction {
            Direction::Original => original,
            Direction::Reply => reply,
            Direction::Both => (original.0.wrapping_add(reply.0), original.1.wrapping_add(reply.1)),
        };
        let what = match self.mode {
            Mode::Packets => packets,
            Mode::Bytes => bytes,
            Mode::Average => bytes.checked_div(packets).unwrap_or(0),
        };
        // A negated range is kept with its ends exchanged, so one of a single number is not negated at all.
        Some(if self.from <= self.to {
            self.from <= what && what <= self.to
        } else {
            what < self.to || self.from < what
        })
    }
}

/// `connlimit`: the open connections that this rule has seen, by host or network.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ConnLimit {
    limit: u64,
    is_upto: bool,
    is_destination: bool,
    mask: u128,
    seen: HashMap<u128, Vec<Tuple>>,
    seen_count: usize,
}

/// Connections that one rule remembers: beyond, its answers are not known.
const CONNECTIONS_MAX: usize = 1 << 20;

impl ConnLimit {
    pub(crate) fn new(settings: Settings<'_>, family: Family) -> Result<ConnLimit, String> {
        let (limit, is_upto) = match (settings.get("connlimit-upto"), settings.get("connlimit-above")) {
            (Some(s), _) => (s, !s.negated),
            (_, Some(s)) => (s, s.negated),
            _ => return Err("it has no limit".into()),
        };
        let Value::Number(limit) = limit.value else { return Err("its limit is no number".into()) };
        let bits = settings.word("connlimit-mask").unwrap_or(u32::MAX).min(family.address_bits());
        let host_bits = family.address_bits() - bits;
        Ok(ConnLimit {
            limit,
            is_upto,
            is_destination: settings.has("connlimit-daddr"),
            mask: family.full_mask().checked_shr(host_bits).map_or(0, |m| m << host_bits),
            seen: HashMap::new(),
            seen_count: 0,
        })
    }

    pub(crate) fn holds(&mut self, packet: &Packet, tracking: Option<&dyn Tracking>) -> Option<bool> {
        let tracking = tracking?;
        if self.seen_count >= CONNECTIONS_MAX {
            return None;
        }
        let key = self.mask & if self.is_destination { packet.destination } else { packet.source };
        let tuple = tracking.original(packet);
        let seen = self.seen.entry(key).or_default();
        let before = seen.len();
        seen.retain(|other| *other != tuple && tracking.is_open(other));
        seen.push(tuple);
        self.seen_count = self.seen_count + seen.len() - before;
        Some((seen.len() as u64 > self.limit) != self.is_upto)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::HashSet;

    use super::*;
    use crate::testing::{outcomes, rule_of};

    /// Knows the counters of every connection, and which were closed.
    #[derive(Default)]
    struct Known {
        counters: Counters,
        closed: RefCell<HashSet<Tuple>>,
    }

    impl Tracking for Known {
        fn counters(&self, _: &Packet) -> Option<Counters> {
            Some(self.counters)
        }

        fn is_open(&self, tuple: &Tuple) -> bool {
            !self.closed.borrow().contains(tuple)
        }
    }

    #[track_caller]
    fn check_bytes(options: &str, expected: bool) {
        let rule = rule_of(&format!("-m connbytes {options}"));
        let counters = Counters { original: (10, 1000), reply: (5, 2000) };
        let known = Known { counters, ..Known::default() };
        let bytes = ConnBytes::new(Settings(&rule.matches[0])).unwrap();
        assert_eq!(bytes.holds(&Packet::default(), Some(&known)), Some(expected), "{options}");
        assert_eq!(bytes.holds(&Packet::default(), None), None);
        let untracked = Packet { ct_state: CtState::Untracked, ..Packet::default() };
        assert_eq!(bytes.holds(&untracked, None), Some(false));
    }

    #[test]
    fn a_connection_is_measured_by_direction() {
        check_bytes("--connbytes 10:10 --connbytes-mode packets --connbytes-dir original", true);
        check_bytes("--connbytes 6 --connbytes-mode packets --connbytes-dir reply", false);
        check_bytes("--connbytes 3000:3000 --connbytes-mode bytes --connbytes-dir both", true);
        check_bytes("--connbytes 200:200 --connbytes-mode avgpkt --connbytes-dir both", true);
        check_bytes("! --connbytes 11:20 --connbytes-mode packets --connbytes-dir original", true);
        check_bytes("! --connbytes 10:20 --connbytes-mode packets --connbytes-dir original", false);
        check_bytes("! --connbytes 10:10 --connbytes-mode packets --connbytes-dir original", true);
    }

    #[track_caller]
    fn check_limit(options: &str, packets: &[(u128, u16)], closed: &[(u128, u16)], expected: &str) {
        let rule = rule_of(&format!("-m connlimit {options}"));
        let mut limit = ConnLimit::new(Settings(&rule.matches[0]), Family::V4).unwrap();
        let known = Known::default();
        let packet =
            |&(source, source_port): &(u128, u16)| Packet { source, source_port, ..Packet::default() };
        let answers: Vec<bool> = packets
            .iter()
            .enumerate()
            .map(|(i, p)| {
                // Half way, some have been closed.
                if i == packets.len() / 2 {
                    known.closed.borrow_mut().extend(closed.iter().map(|p| Tuple::of(&packet(p))));
                }
                limit.holds(&packet(p), Some(&known)).unwrap()
            })
            .collect();
        assert_eq!(outcomes(answers.into_iter()), expected);
        assert_eq!(limit.holds(&Packet::default(), None), None);
    }

    #[test]
    fn open_connections_are_counted_by_network() {
        let three = [(0x100, 1), (0x100, 2), (0x101, 3), (0x100, 4), (0x100, 1)];
        check_limit("--connlimit-above 2", &three, &[], "---++");
        check_limit("--connlimit-upto 2", &three, &[], "+++--");
        check_limit("--connlimit-above 2 --connlimit-mask 24", &three, &[], "--+++");
        check_limit("--connlimit-above 2", &three, &[(0x100, 2)], "-----");
        check_limit("--connlimit-above 0 --connlimit-daddr", &three, &[], "+++++");
    }
}
