//! IP parts, laid out to be passed quickly.
//!
//! A rule that does not match is nearly always turned away by its IP part, so a walk over a long chain is a
//! scan of this array and little else. A head holds what the kernel's `struct ipt_ip` holds, in the width of
//! the family's addresses, with interface names kept once each:
//!
//! ```text
//!   V4: 28 bytes   source mask destination mask │ in out │ protocol flags     (6 × u32, 2 × u8, 2 unused)
//!   V6: 80 bytes   the same with u128 addresses
//! ```
//!
//! Addresses are compared first: they turn most packets away. All comparisons are `(x & mask == wanted) !=
//! negated`, which needs no branch for "not tested" (mask 0) and gives a negated test of nothing the meaning
//! it has in the kernel: it holds for no packet.

use std::collections::HashMap;
use std::ops::BitAnd;

use hipac_classifier::{InterfaceName, L4, Packet};
use hipac_rules::{AddressTest, Family, FragmentTest, InterfaceTest, IpPart, Rule};

/// The IP parts of a chain's rules, in order.
#[derive(Debug)]
pub(super) enum Heads {
    V4(HeadArray<u32>),
    V6(HeadArray<u128>),
}

/// What heads look at in a packet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    source: u128,
    destination: u128,
    in_interface: u128,
    out_interface: u128,
    protocol: u8,
    is_later_fragment: bool,
}

#[derive(Debug)]
pub(super) struct HeadArray<A> {
    heads: Vec<Head<A>>,
    /// Tests of interface names, each once.
    names: Vec<MaskedName>,
}

#[derive(Debug, Clone, Copy)]
struct Head<A> {
    source: A,
    source_mask: A,
    destination: A,
    destination_mask: A,
    /// Position in `names`.
    in_interface: u32,
    out_interface: u32,
    /// 0 tests nothing.
    protocol: u8,
    flags: u8,
}

const _: () = assert!(size_of::<Head<u32>>() == 28);
const _: () = assert!(size_of::<Head<u128>>() == 80);

const NOT_SOURCE: u8 = 1;
const NOT_DESTINATION: u8 = 2;
const NOT_IN: u8 = 4;
const NOT_OUT: u8 = 8;
const NOT_PROTOCOL: u8 = 16;
const FRAGMENT: u8 = 32;
const NOT_FRAGMENT: u8 = 64;

/// An interface name with a mask, both as the bytes of a 16-byte field: an exact name is compared with its
/// terminating zeros, a prefix without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct MaskedName {
    bytes: u128,
    mask: u128,
}

impl MaskedName {
    /// `None` for a name that no interface can have.
    fn new(test: &InterfaceTest) -> Option<MaskedName> {
        let Some(name) = &test.name else { return Some(MaskedName { bytes: 0, mask: 0 }) };
        let bytes = name_bytes(InterfaceName::new(name)?);
        let tested_bytes = if test.prefix { name.len() as u32 } else { 16 };
        let mask = u128::MAX.checked_shl(8 * (16 - tested_bytes)).unwrap_or(0);
        Some(MaskedName { bytes, mask })
    }

    /// Holds for no name: a bit that is wanted, but not looked at.
    const NEVER: MaskedName = MaskedName { bytes: 1, mask: 0 };
}

/// The name as a big-endian number: its first byte is the topmost.
fn name_bytes(name: InterfaceName) -> u128 {
    let mut bytes = [0; 16];
    let name = name.as_bytes();
    bytes[..name.len()].copy_from_slice(name);
    u128::from_be_bytes(bytes)
}

impl Key {
    pub(super) fn new(packet: &Packet) -> Key {
        Key {
            source: packet.source,
            destination: packet.destination,
            in_interface: name_bytes(packet.in_interface),
            out_interface: name_bytes(packet.out_interface),
            protocol: packet.protocol,
            is_later_fragment: matches!(packet.l4, L4::Fragment | L4::FragmentAt8),
        }
    }
}

impl Heads {
    pub(super) fn new(family: Family, rules: &[Rule]) -> Heads {
        match family {
            // IPv4 addresses and masks are in the low 32 bits: see `AddressTest`.
            Family::V4 => Heads::V4(HeadArray::new(rules, |x| x as u32)),
            Family::V6 => Heads::V6(HeadArray::new(rules, |x| x)),
        }
    }

    /// The first rule at or after `from` whose IP part holds.
    pub(super) fn next_that_holds(&self, from: usize, key: &Key) -> Option<usize> {
        match self {
            Heads::V4(array) => array.next_that_holds(from, key, key.source as u32, key.destination as u32),
            Heads::V6(array) => array.next_that_holds(from, key, key.source, key.destination),
        }
    }
}

impl<A: Copy + Eq + BitAnd<Output = A>> HeadArray<A> {
    fn new(rules: &[Rule], narrow: impl Fn(u128) -> A) -> HeadArray<A> {
        let mut names = Vec::new();
        let mut positions = HashMap::new();
        let mut position = |test: &InterfaceTest| {
            let name = MaskedName::new(test).unwrap_or(MaskedName::NEVER);
            *positions.entry(name).or_insert_with(|| {
                names.push(name);
                // At most two names a rule, and building has seen that rules are numbered in 32 bits.
                names.len() as u32 - 1
            })
        };
        let heads = rules
            .iter()
            .map(|rule| {
                let ip = &rule.ip;
                Head {
                    source: narrow(ip.source.address),
                    source_mask: narrow(ip.source.mask),
                    destination: narrow(ip.destination.address),
                    destination_mask: narrow(ip.destination.mask),
                    in_interface: position(&ip.in_interface),
                    out_interface: position(&ip.out_interface),
                    protocol: ip.protocol.number,
                    flags: flags(ip),
                }
            })
            .collect();
        HeadArray { heads, names }
    }

    fn next_that_holds(&self, from: usize, key: &Key, source: A, destination: A) -> Option<usize> {
        let rest = self.heads.get(from..)?;
        let found = rest.iter().position(|head| head.holds(source, destination, key, &self.names))?;
        Some(from + found)
    }
}

impl<A: Copy + Eq + BitAnd<Output = A>> Head<A> {
    #[inline]
    fn holds(&self, source: A, destination: A, key: &Key, names: &[MaskedName]) -> bool {
        self.differs(source & self.source_mask == self.source, NOT_SOURCE)
            && self.differs(destination & self.destination_mask == self.destination, NOT_DESTINATION)
            && self.protocol_holds(key.protocol)
            && self.fragment_holds(key.is_later_fragment)
            && self.differs(names[self.in_interface as usize].holds(key.in_interface), NOT_IN)
            && self.differs(names[self.out_interface as usize].holds(key.out_interface), NOT_OUT)
    }

    /// `holds`, or its contrary when the flag says that the test is negated.
    #[inline]
    fn differs(&self, holds: bool, not: u8) -> bool {
        holds != (self.flags & not != 0)
    }

    #[inline]
    fn protocol_holds(&self, protocol: u8) -> bool {
        self.protocol == 0 || self.differs(protocol == self.protocol, NOT_PROTOCOL)
    }

    #[inline]
    fn fragment_holds(&self, is_later_fragment: bool) -> bool {
        let refused = if is_later_fragment { NOT_FRAGMENT } else { FRAGMENT };
        self.flags & refused == 0
    }
}

impl MaskedName {
    #[inline]
    fn holds(&self, name: u128) -> bool {
        name & self.mask == self.bytes
    }
}

fn flags(ip: &IpPart) -> u8 {
    let negated = |test: &AddressTest, flag| if test.negated { flag } else { 0 };
    let not_via = |test: &InterfaceTest, flag| if test.negated { flag } else { 0 };
    negated(&ip.source, NOT_SOURCE)
        | negated(&ip.destination, NOT_DESTINATION)
        | not_via(&ip.in_interface, NOT_IN)
        | not_via(&ip.out_interface, NOT_OUT)
        | if ip.protocol.negated { NOT_PROTOCOL } else { 0 }
        | match ip.fragment {
            FragmentTest::Any => 0,
            FragmentTest::Later => FRAGMENT,
            FragmentTest::NotLater => NOT_FRAGMENT,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields;
    use crate::oracle::test_holds;
    use hipac_classifier::L4;
    use hipac_rules::{Counters, ProtocolTest, Target};
    use proptest::prelude::*;
    use proptest::sample::select;

    /// Few different values, so that tests hold about as often as not.
    fn addresses() -> impl Strategy<Value = u128> {
        select(vec![0, 1, 0x80, 0x0a00_0001, 0xffff_ffff, 1 << 127 | 1, u128::MAX])
    }

    fn names() -> impl Strategy<Value = &'static str> {
        select(vec!["", "e", "eth", "eth0", "eth00", "abcdefghijklmno", "abcdefghijklmnop"])
    }

    fn address_tests() -> impl Strategy<Value = AddressTest> {
        (addresses(), addresses(), any::<bool>()).prop_map(|(address, mask, negated)| AddressTest {
            address: address & mask,
            mask,
            negated,
        })
    }

    fn interface_tests() -> impl Strategy<Value = InterfaceTest> {
        (prop::option::of(names()), any::<bool>(), any::<bool>()).prop_map(|(name, prefix, negated)| {
            InterfaceTest { negated: negated && name.is_some(), name: name.map(Into::into), prefix }
        })
    }

    fn ip_parts() -> impl Strategy<Value = IpPart> {
        let protocol = (select(vec![0, 6, 17]), any::<bool>());
        let fragment = select(vec![FragmentTest::Any, FragmentTest::Later, FragmentTest::NotLater]);
        let addresses = (address_tests(), address_tests());
        (addresses, interface_tests(), interface_tests(), protocol, fragment).prop_map(
            |((source, destination), in_interface, out_interface, (number, negated), fragment)| IpPart {
                source,
                destination,
                in_interface,
                out_interface,
                protocol: ProtocolTest { number, negated },
                fragment,
            },
        )
    }

    fn packets() -> impl Strategy<Value = Packet> {
        let interface = || names().prop_map(|n| InterfaceName::new(n).unwrap_or(InterfaceName::NONE));
        let l4 = select(L4::ALL.to_vec());
        (addresses(), addresses(), interface(), interface(), select(vec![0, 6, 17, 255]), l4).prop_map(
            |(source, destination, in_interface, out_interface, protocol, l4)| Packet {
                source,
                destination,
                in_interface,
                out_interface,
                protocol,
                l4,
                ..Packet::default()
            },
        )
    }

    proptest! {
        /// The compact form means what the tests of its parts mean one by one.
        #[test]
        fn heads_hold_when_each_of_their_tests_does(
            mut ips in prop::collection::vec(ip_parts(), 1..8),
            packet in packets(),
            family in select(vec![Family::V4, Family::V6]),
        ) {
            let full = family.full_mask();
            let mut packet = Packet { is_v6: family == Family::V6, ..packet };
            for field in [hipac_rules::Field::Source, hipac_rules::Field::Destination] {
                let number = fields::number(&packet, field) & full;
                fields::write_number(&mut packet, field, number);
            }
            for test in ips.iter_mut().flat_map(|ip| [&mut ip.source, &mut ip.destination]) {
                (test.address, test.mask) = (test.address & full, test.mask & full);
            }
            let rules: Vec<Rule> = ips.into_iter().map(|ip| Rule {
                counters: Counters::default(), ip, matches: Vec::new(), target: Target::None, line: 0,
            }).collect();
            let (heads, key) = (Heads::new(family, &rules), Key::new(&packet));
            for from in 0..=rules.len() {
                let holds = |rule: &Rule| rule.ip.tests(family).iter().all(|t| test_holds(t, &packet));
                let expected = (from..rules.len()).find(|&i| holds(&rules[i]));
                prop_assert_eq!(heads.next_that_holds(from, &key), expected);
            }
        }
    }
}
