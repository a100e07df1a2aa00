//! Fields of a packet by name: reading, writing, and which values each can have.
//!
//! Meanings of matches name a [`Field`]; a [`Packet`] has struct members. This is the only place of the
//! crate that knows which is which, and how a member is encoded as a number.

use hipac_classifier::{CtState, Dim, Fact, InterfaceName, L4, Packet};
use hipac_rules::{Effect, Family, Field};

/// What a packet has in a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// A number, encoded as [`Field`] says.
    Number(u128),
    /// The name of an interface, empty when there is none.
    Interface(InterfaceName),
}

/// The fields that hold numbers.
pub const NUMBERS: [Field; 43] = [
    Field::Source,
    Field::Destination,
    Field::Protocol,
    Field::L4,
    Field::SourcePort,
    Field::DestinationPort,
    Field::TcpFlags,
    Field::CtState,
    Field::Mark,
    Field::ConnMark,
    Field::Ttl,
    Field::Length,
    Field::Tos,
    Field::Mac,
    Field::PacketType,
    Field::SourceType,
    Field::DestinationType,
    Field::Bridged,
    Field::Cpu,
    Field::Realm,
    Field::InGroup,
    Field::OutGroup,
    Field::Uid,
    Field::Gid,
    Field::Socket,
    Field::Spi,
    Field::DccpType,
    Field::Mss,
    Field::AhSpi,
    Field::FragId,
    Field::AhLength,
    Field::AhReserved,
    Field::FragFlags,
    Field::RtType,
    Field::RtSegments,
    Field::RtLength,
    Field::DstLength,
    Field::HbhLength,
    Field::ExtHeaders,
    Field::WayBack,
    Field::Receiver,
    Field::Ipsec,
    Field::OwnInterfaces,
];

/// Those of them that no rule tests: residual matches ask for them.
pub const ASKED: [Field; 4] = [Field::WayBack, Field::Receiver, Field::Ipsec, Field::OwnInterfaces];

/// The dimensions of a field, the most significant first: those that have its name.
pub fn dims(field: Field, family: Family) -> Vec<Dim> {
    let is_of = |dim: &Dim| dim.name().split('[').next() == Some(field.name());
    let mut dims: Vec<Dim> = Dim::ALL.into_iter().filter(|dim| !dim.is_set()).filter(is_of).collect();
    if matches!(field, Field::Source | Field::Destination) {
        dims.truncate(if family == Family::V6 { 4 } else { 1 });
        dims.reverse();
    }
    dims
}

/// How many of them, from the first on, most rulesets look at. What is behind these is drawn and changed for
/// rulesets that test it, and left alone for others.
pub const COMMON: usize = 18;

/// The fields that hold names: of interfaces, and of a helper.
pub const INTERFACES: [Field; 5] =
    [Field::InInterface, Field::OutInterface, Field::PhysIn, Field::PhysOut, Field::Helper];

/// How many of these most rulesets look at.
pub const COMMON_NAMES: usize = 4;

/// Set in the number of [`Field::Mac`] when there is an Ethernet header.
const MAC_PRESENT: u128 = 1 << 48;
const CT_STATE_BITS: u128 = 7;
const CT_SNAT: u128 = 8;
const CT_DNAT: u128 = 16;
/// `RTN_XRESOLVE`, the last route type.
const ROUTE_TYPE_MAX: u128 = 11;
/// `PACKET_KERNEL`, the last packet type.
const PACKET_TYPE_MAX: u128 = 7;
/// Bytes of the fixed IPv6 header, which its length field does not count.
const IPV6_HEADER_BYTES: u128 = 40;

/// The value of a field; `None` for a field that this crate does not know.
pub fn read(packet: &Packet, field: Field) -> Option<Value> {
    let p = packet;
    Some(Value::Number(match field {
        Field::Source => p.source,
        Field::Destination => p.destination,
        Field::Protocol => p.protocol.into(),
        Field::L4 => p.l4 as u128,
        Field::SourcePort => p.source_port.into(),
        Field::DestinationPort => p.destination_port.into(),
        Field::TcpFlags => p.tcp_flags.into(),
        Field::CtState => {
            p.ct_state as u128 | if p.ct_snat { CT_SNAT } else { 0 } | if p.ct_dnat { CT_DNAT } else { 0 }
        }
        Field::Mark => p.mark.into(),
        Field::ConnMark => p.connmark.into(),
        Field::Ttl => p.ttl.into(),
        Field::Length => p.length.into(),
        Field::Tos => p.tos.into(),
        Field::Mac => p.mac.map_or(0, |mac| MAC_PRESENT | be_number(&mac)),
        Field::PacketType => p.packet_type.into(),
        Field::SourceType => p.source_type.into(),
        Field::DestinationType => p.destination_type.into(),
        Field::Bridged => p.bridged.into(),
        Field::InInterface => return Some(Value::Interface(p.in_interface)),
        Field::OutInterface => return Some(Value::Interface(p.out_interface)),
        Field::PhysIn => return Some(Value::Interface(p.phys_in)),
        Field::PhysOut => return Some(Value::Interface(p.phys_out)),
        Field::Helper => return Some(Value::Interface(p.helper)),
        _ => p.facts.get(fact(field)?).into(),
    }))
}

/// The fact that a field is.
fn fact(field: Field) -> Option<Fact> {
    Some(match field {
        Field::Cpu => Fact::Cpu,
        Field::Realm => Fact::Realm,
        Field::InGroup => Fact::InGroup,
        Field::OutGroup => Fact::OutGroup,
        Field::Uid => Fact::Uid,
        Field::Gid => Fact::Gid,
        Field::Socket => Fact::Socket,
        Field::Spi => Fact::Spi,
        Field::DccpType => Fact::DccpType,
        Field::Mss => Fact::Mss,
        Field::AhSpi => Fact::AhSpi,
        Field::FragId => Fact::FragId,
        Field::AhLength => Fact::AhLength,
        Field::AhReserved => Fact::AhReserved,
        Field::FragFlags => Fact::FragFlags,
        Field::RtType => Fact::RtType,
        Field::RtSegments => Fact::RtSegments,
        Field::RtLength => Fact::RtLength,
        Field::DstLength => Fact::DstLength,
        Field::HbhLength => Fact::HbhLength,
        Field::ExtHeaders => Fact::ExtHeaders,
        Field::WayBack => Fact::WayBack,
        Field::Receiver => Fact::Receiver,
        Field::Ipsec => Fact::Ipsec,
        Field::OwnInterfaces => Fact::OwnInterfaces,
        _ => return None,
    })
}

/// The number in a field; 0 for a field that holds none.
pub fn number(packet: &Packet, field: Field) -> u128 {
    match read(packet, field) {
        Some(Value::Number(x)) => x,
        _ => 0,
    }
}

/// The interface name in a field; none for a field that holds a number.
pub fn interface(packet: &Packet, field: Field) -> InterfaceName {
    match read(packet, field) {
        Some(Value::Interface(name)) => name,
        _ => InterfaceName::NONE,
    }
}

/// The largest number that a field of a packet of `family` can hold.
pub fn number_max(family: Family, field: Field) -> u128 {
    match field {
        Field::Source | Field::Destination => family.full_mask(),
        Field::Protocol | Field::TcpFlags | Field::Ttl | Field::Tos => u8::MAX.into(),
        Field::L4 => L4::Under20 as u128,
        Field::SourcePort | Field::DestinationPort => u16::MAX.into(),
        Field::CtState => CtState::Untracked as u128 | CT_SNAT | CT_DNAT,
        Field::Mark | Field::ConnMark => u32::MAX.into(),
        Field::Length => match family {
            Family::V4 => u16::MAX.into(),
            Family::V6 => u128::from(u16::MAX) + IPV6_HEADER_BYTES,
        },
        Field::Mac => MAC_PRESENT | (MAC_PRESENT - 1),
        Field::PacketType => PACKET_TYPE_MAX,
        Field::SourceType | Field::DestinationType => ROUTE_TYPE_MAX,
        Field::Bridged => 1,
        _ => fact(field).map_or(0, |f| f.max().into()),
    }
}

/// Whether a packet of `family` can hold this number in the field.
pub fn is_possible(family: Family, field: Field, number: u128) -> bool {
    number <= number_max(family, field)
        && match field {
            Field::CtState => number & CT_STATE_BITS <= CtState::Untracked as u128,
            Field::Mac => number == 0 || number & MAC_PRESENT != 0,
            _ => true,
        }
}

/// Writes a number into a field. Returns false, and changes nothing, when the field holds no numbers or not
/// this one.
pub fn write_number(packet: &mut Packet, field: Field, number: u128) -> bool {
    let family = if packet.is_v6 { Family::V6 } else { Family::V4 };
    if !NUMBERS.contains(&field) || !is_possible(family, field, number) {
        return false;
    }
    let p = packet;
    // `is_possible` has seen that the number fits: the casts below cut nothing off.
    match field {
        Field::Source => p.source = number,
        Field::Destination => p.destination = number,
        Field::Protocol => p.protocol = number as u8,
        Field::L4 => p.l4 = L4::ALL[number as usize],
        Field::SourcePort => p.source_port = number as u16,
        Field::DestinationPort => p.destination_port = number as u16,
        Field::TcpFlags => p.tcp_flags = number as u8,
        Field::CtState => {
            p.ct_state = CtState::ALL[(number & CT_STATE_BITS) as usize];
            p.ct_snat = number & CT_SNAT != 0;
            p.ct_dnat = number & CT_DNAT != 0;
        }
        Field::Mark => p.mark = number as u32,
        Field::ConnMark => p.connmark = number as u32,
        Field::Ttl => p.ttl = number as u8,
        Field::Length => p.length = number as u32,
        Field::Tos => p.tos = number as u8,
        Field::Mac => p.mac = (number != 0).then(|| mac_bytes(number)),
        Field::PacketType => p.packet_type = number as u8,
        Field::SourceType => p.source_type = number as u8,
        Field::DestinationType => p.destination_type = number as u8,
        Field::Bridged => p.bridged = number != 0,
        _ => match fact(field) {
            Some(fact) => p.facts.set(fact, number as u32),
            None => return false,
        },
    }
    true
}

/// Writes an interface name into a field. Returns false when the field holds numbers.
pub fn write_interface(packet: &mut Packet, field: Field, name: InterfaceName) -> bool {
    match field {
        Field::InInterface => packet.in_interface = name,
        Field::OutInterface => packet.out_interface = name,
        Field::PhysIn => packet.phys_in = name,
        Field::PhysOut => packet.phys_out = name,
        Field::Helper => packet.helper = name,
        _ => return false,
    }
    true
}

/// The default packet of a family.
pub fn default_packet(family: Family) -> Packet {
    Packet { is_v6: family == Family::V6, ..Packet::default() }
}

/// Makes the change of a target that later rules can see.
pub fn apply(effect: Effect, packet: &mut Packet) {
    let p = packet;
    let is_tracked = matches!(p.ct_state, CtState::New | CtState::Related | CtState::Established);
    match effect {
        Effect::None => {}
        // CONNMARK leaves a packet alone that belongs to no connection.
        Effect::ConnMark { .. } | Effect::SaveMark { .. } | Effect::RestoreMark { .. } if !is_tracked => {}
        Effect::Mark { clear, flip } => p.mark = (p.mark & !clear) ^ flip,
        Effect::ConnMark { clear, flip } => p.connmark = (p.connmark & !clear) ^ flip,
        Effect::SaveMark { ctmask, nfmask } => p.connmark = (p.connmark & !ctmask) ^ (p.mark & nfmask),
        Effect::RestoreMark { ctmask, nfmask } => p.mark = (p.mark & !nfmask) ^ (p.connmark & ctmask),
        Effect::Tos { clear, flip } => p.tos = (p.tos & !clear) ^ flip,
        Effect::TtlSet(ttl) => p.ttl = ttl,
        Effect::TtlAdd(by) => p.ttl = p.ttl.saturating_add(by),
        Effect::TtlSub(by) => p.ttl = p.ttl.saturating_sub(by),
        Effect::Untrack => p.ct_state = CtState::Untracked,
    }
}

fn be_number(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0, |x, &b| x << 8 | u128::from(b))
}

fn mac_bytes(number: u128) -> [u8; 6] {
    std::array::from_fn(|i| (number >> (8 * (5 - i))) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet_text;
    use proptest::prelude::*;

    #[test]
    fn every_dimension_but_those_of_sets_is_a_fields() {
        for family in [Family::V4, Family::V6] {
            let fields = NUMBERS.iter().chain(&INTERFACES);
            let mut found: Vec<Dim> = fields.flat_map(|&field| dims(field, family)).collect();
            found.sort_unstable();
            let is_of = |dim: &Dim| match dim {
                Dim::Source1 | Dim::Source2 | Dim::Source3 => family == Family::V6,
                Dim::Destination1 | Dim::Destination2 | Dim::Destination3 => family == Family::V6,
                dim => !dim.is_set(),
            };
            assert_eq!(found, Dim::ALL.into_iter().filter(is_of).collect::<Vec<_>>());
        }
        let source = [Dim::Source3, Dim::Source2, Dim::Source1, Dim::Source0];
        assert_eq!(dims(Field::Source, Family::V6), source);
        assert_eq!(dims(Field::Mac, Family::V4), [Dim::MacHigh, Dim::MacLow]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(field in 0..NUMBERS.len(), x: u128, bits in 0..128u32, v6: bool) {
            let (field, x) = (NUMBERS[field], x >> bits);
            let family = if v6 { Family::V6 } else { Family::V4 };
            let mut packet = default_packet(family);
            if write_number(&mut packet, field, x) {
                prop_assert_eq!(number(&packet, field), x);
            } else {
                prop_assert!(!is_possible(family, field, x));
                prop_assert_eq!(packet, default_packet(family));
            }
        }
    }

    #[test]
    fn every_field_can_hold_its_largest_number_and_no_more() {
        for family in [Family::V4, Family::V6] {
            for field in NUMBERS {
                let max = number_max(family, field);
                let mut packet = default_packet(family);
                assert!(write_number(&mut packet, field, max), "{field:?} {max}");
                assert_eq!(number(&packet, field), max, "{field:?}");
                if let Some(more) = max.checked_add(1) {
                    assert!(!write_number(&mut packet, field, more), "{field:?} {more}");
                }
            }
        }
    }

    #[test]
    fn effects_change_the_bits_they_name() {
        #[track_caller]
        fn check(effect: Effect, before: &str, after: &str) {
            let mut packet = packet_text::parse(before, Family::V4).unwrap();
            apply(effect, &mut packet);
            assert_eq!(packet_text::show(&packet).to_string(), after);
        }
        check(Effect::None, "--mark 0x12", "--mark 0x12");
        check(Effect::Mark { clear: 0xf0, flip: 0x21 }, "--mark 0x1ff", "--mark 0x12e");
        check(Effect::ConnMark { clear: 0xf0, flip: 0x21 }, "--connmark 0x1ff", "--connmark 0x12e");
        let (ctmask, nfmask) = (0xf0, 0x3c);
        check(
            Effect::SaveMark { ctmask, nfmask },
            "--mark 0xff --connmark 0xff",
            "--mark 0xff --connmark 0x33",
        );
        check(
            Effect::RestoreMark { ctmask, nfmask },
            "--mark 0xff --connmark 0xff",
            "--mark 0x33 --connmark 0xff",
        );
        check(Effect::Tos { clear: 0xfc, flip: 0x08 }, "--tos 0x33", "--tos 0x0b");
        check(Effect::TtlSet(7), "", "--ttl 7");
        check(Effect::TtlAdd(7), "--ttl 248", "--ttl 255");
        check(Effect::TtlAdd(7), "--ttl 249", "--ttl 255");
        check(Effect::TtlSub(7), "--ttl 6", "--ttl 0");
        check(Effect::TtlSub(7), "--ttl 8", "--ttl 1");
        check(Effect::Untrack, "--ctstate RELATED", "--ctstate UNTRACKED");
    }
}
