//! Conditions: for which packets a rule holds, on raw values of dimensions.
//!
//! A condition is a conjunction: one set of values a dimension, and clauses that say "one of
//! these" over several dimensions (a negated IPv6 network, `--ports`) or that no few ranges say (a
//! mask with holes). Conditions come from the rules' tests, and from the clauses of an image's
//! programs: then the two are compared.

use std::sync::Arc;

use hipac_classifier::Dim;
use hipac_classifier::program::{DimTest, Wanted};
use hipac_rules::ipset::Column;
use hipac_rules::{Family, Field, Test, ValueSet};
use smallvec::SmallVec;

use super::members::Members;
use super::names::Names;
use super::ranges::Ranges;

/// Ranges that a mask with holes may become; with more it stays a mask.
const MASK_RANGES_MAX: usize = 64;

/// What a part of a clause wants of one dimension.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wants {
    /// One of these.
    In(Ranges),
    /// `x & mask == value`, or not.
    Masked { value: u32, mask: u32, negated: bool },
}

/// All of these hold.
pub(super) type All = SmallVec<[(Dim, Wants); 2]>;

/// See the module.
#[derive(Debug, Clone, Default)]
pub(super) struct Condition {
    /// By rising dimension; a dimension that is not there is free.
    sets: SmallVec<[(Dim, Ranges); 6]>,
    /// Of each, one part holds.
    clauses: SmallVec<[Arc<[All]>; 1]>,
}

/// What raw values a dimension has in a proof.
#[derive(Debug, Clone, Copy)]
pub(super) struct Raw<'a> {
    pub(super) family: Family,
    pub(super) names: &'a Names,
    pub(super) members: &'a Members,
}

impl Raw<'_> {
    /// The largest raw value of a dimension.
    pub(super) fn max(&self, dim: Dim) -> u32 {
        match dim {
            Dim::InInterface | Dim::OutInterface | Dim::PhysIn | Dim::PhysOut | Dim::Helper => {
                self.names.max()
            }
            _ => dim.max(),
        }
    }
}

impl Condition {
    /// No packet satisfies it. (That several clauses exclude each other is not seen.)
    pub(super) fn is_none(&self) -> bool {
        self.sets.iter().any(|(_, set)| set.is_none()) || self.clauses.iter().any(|c| c.is_empty())
    }

    pub(super) fn sets(&self) -> &[(Dim, Ranges)] {
        &self.sets
    }

    pub(super) fn set(&self, dim: Dim) -> Option<&Ranges> {
        self.sets.iter().find(|(d, _)| *d == dim).map(|(_, set)| set)
    }

    pub(super) fn clauses(&self) -> &[Arc<[All]>] {
        &self.clauses
    }

    /// Says nothing.
    pub(super) fn is_all(&self) -> bool {
        self.sets.is_empty() && self.clauses.is_empty()
    }

    pub(super) fn and_set(&mut self, dim: Dim, set: &Ranges, raw: Raw<'_>) {
        match self.sets.binary_search_by_key(&dim, |(d, _)| *d) {
            Ok(at) => self.sets[at].1 = self.sets[at].1.and(set),
            Err(_) if set.is_all(raw.max(dim)) => {}
            Err(at) => self.sets.insert(at, (dim, set.clone())),
        }
    }

    /// And one of the tests holds.
    pub(super) fn and_tests(&mut self, tests: &[Test], raw: Raw<'_>) {
        if let [test] = tests
            && let Some((dim, lo, hi)) = one_range(test, raw)
        {
            return self.and_set(dim, &Ranges::one(lo, hi), raw);
        }
        self.and_one_of(tests.iter().flat_map(|test| parts_of(test, raw)).collect(), raw);
    }

    /// And a clause of a program: all tests of one alternative hold.
    pub(super) fn and_program_clause(&mut self, alternatives: &[Vec<DimTest>], raw: Raw<'_>) {
        let part = |tests: &Vec<DimTest>| tests.iter().map(|t| (t.dim, wants_of(t, raw))).collect();
        self.and_one_of(alternatives.iter().map(part).collect(), raw);
    }

    /// And all parts of one of these hold.
    fn and_one_of(&mut self, parts: Vec<All>, raw: Raw<'_>) {
        let mut kept: Vec<All> = Vec::with_capacity(parts.len());
        for part in parts {
            let Some(part) = simplified(part, raw) else { continue };
            if part.is_empty() {
                return; // holds for all packets
            }
            match (kept.last_mut().map(SmallVec::as_mut_slice), part.as_slice()) {
                // Side by side on one dimension: one set.
                (Some([(d, Wants::In(set))]), [(dim, Wants::In(more))]) if d == dim => *set = set.or(more),
                _ => kept.push(part),
            }
        }
        match kept.as_mut_slice() {
            [part] if part.iter().all(|(_, wants)| matches!(wants, Wants::In(_))) => {
                for (dim, wants) in part {
                    if let Wants::In(set) = wants {
                        self.and_set(*dim, set, raw);
                    }
                }
            }
            [part] if part.len() > 1 => {
                let part = std::mem::take(part);
                part.into_iter().for_each(|one| self.and_one_of(vec![SmallVec::from_iter([one])], raw));
            }
            _ => {
                kept.sort_unstable();
                kept.dedup();
                if self.clauses.iter().all(|clause| **clause != *kept) {
                    self.clauses.push(kept.into());
                }
            }
        }
    }
}

/// One want a dimension, those that say nothing left out; `None` when nothing satisfies them.
fn simplified(part: All, raw: Raw<'_>) -> Option<All> {
    let mut out: All = SmallVec::new();
    for (dim, wants) in part {
        let Wants::In(set) = wants else {
            out.push((dim, wants));
            continue;
        };
        let at = out.iter().position(|(d, w)| *d == dim && matches!(w, Wants::In(_)));
        let set = match at.map(|at| out.remove(at)) {
            Some((_, Wants::In(other))) => set.and(&other),
            _ => set,
        };
        if set.is_none() {
            return None;
        }
        if !set.is_all(raw.max(dim)) {
            out.push((dim, Wants::In(set)));
        }
    }
    out.sort_unstable();
    Some(out)
}

/// The dimensions of a field, the most significant first, with their bits.
fn words(field: Field, family: Family) -> &'static [(Dim, u32)] {
    use Dim::*;
    match (field, family) {
        (Field::Source, Family::V4) => &[(Source0, 32)],
        (Field::Destination, Family::V4) => &[(Destination0, 32)],
        (Field::Source, Family::V6) => &[(Source3, 32), (Source2, 32), (Source1, 32), (Source0, 32)],
        (Field::Destination, Family::V6) => {
            &[(Destination3, 32), (Destination2, 32), (Destination1, 32), (Destination0, 32)]
        }
        (Field::Mac, _) => &[(MacHigh, 25), (MacLow, 24)],
        (Field::InInterface, _) => &[(InInterface, 32)],
        (Field::OutInterface, _) => &[(OutInterface, 32)],
        (Field::PhysIn, _) => &[(PhysIn, 32)],
        (Field::PhysOut, _) => &[(PhysOut, 32)],
        (Field::Protocol, _) => &[(Protocol, 8)],
        (Field::L4, _) => &[(L4, 3)],
        (Field::SourcePort, _) => &[(SourcePort, 16)],
        (Field::DestinationPort, _) => &[(DestinationPort, 16)],
        (Field::TcpFlags, _) => &[(TcpFlags, 8)],
        (Field::CtState, _) => &[(CtState, 5)],
        (Field::Mark, _) => &[(Mark, 32)],
        (Field::ConnMark, _) => &[(ConnMark, 32)],
        (Field::Ttl, _) => &[(Ttl, 8)],
        (Field::Length, _) => &[(Length, 32)],
        (Field::Tos, _) => &[(Tos, 8)],
        (Field::PacketType, _) => &[(PacketType, 8)],
        (Field::SourceType, _) => &[(SourceType, 8)],
        (Field::DestinationType, _) => &[(DestinationType, 8)],
        (Field::Bridged, _) => &[(Bridged, 1)],
        (Field::Cpu, _) => &[(Cpu, 32)],
        (Field::Realm, _) => &[(Realm, 32)],
        (Field::InGroup, _) => &[(InGroup, 32)],
        (Field::OutGroup, _) => &[(OutGroup, 32)],
        (Field::Uid, _) => &[(Uid, 32)],
        (Field::Gid, _) => &[(Gid, 32)],
        (Field::Socket, _) => &[(Socket, 1)],
        (Field::Spi, _) => &[(Spi, 32)],
        (Field::DccpType, _) => &[(DccpType, 4)],
        (Field::Mss, _) => &[(Mss, 17)],
        (Field::AhSpi, _) => &[(AhSpi, 32)],
        (Field::FragId, _) => &[(FragId, 32)],
        (Field::AhLength, _) => &[(AhLength, 11)],
        (Field::AhReserved, _) => &[(AhReserved, 1)],
        (Field::FragFlags, _) => &[(FragFlags, 4)],
        (Field::RtType, _) => &[(RtType, 9)],
        (Field::RtSegments, _) => &[(RtSegments, 9)],
        (Field::RtLength, _) => &[(RtLength, 12)],
        (Field::DstLength, _) => &[(DstLength, 12)],
        (Field::HbhLength, _) => &[(HbhLength, 12)],
        (Field::ExtHeaders, _) => &[(ExtHeaders, 8)],
        (Field::Helper, _) => &[(Helper, 32)],
        // The oracle refuses a test of any other.
        _ => &[],
    }
}

/// The dimensions that a column of an IP set looks at.
pub(super) fn dims_of(column: Column, family: Family) -> impl Iterator<Item = Dim> {
    let (field, with_protocol) = match column {
        Column::Address(field) | Column::Interface(field) => (field, false),
        Column::Port(field) | Column::BarePort(field) => (field, true),
        Column::Mac => (Field::Mac, false),
        Column::Mark => (Field::Mark, false),
    };
    words(field, family).iter().map(|w| w.0).chain(with_protocol.then_some(Dim::Protocol))
}

/// The dimension and range that a test is, if it is no more than that. Most are: [`parts_of`] would say the same.
fn one_range(test: &Test, raw: Raw<'_>) -> Option<(Dim, u32, u32)> {
    let &[(dim, bits)] = words(test.field, raw.family) else { return None };
    let max = u128::MAX >> (128 - bits);
    let (lo, hi) = match &test.set {
        ValueSet::Ranges(ranges) => *<&[_; 1]>::try_from(&**ranges).ok().map(|[range]| range)?,
        ValueSet::Masked { value, mask } => {
            let free = !mask & max;
            let is_prefix = free & (free + 1) == 0 && value & !mask == 0;
            is_prefix.then_some((*value, value | free))?
        }
        ValueSet::Interface { .. } | ValueSet::Member(_) => return None,
    };
    let is_plain = !test.negated && lo <= hi && hi <= max && max >= raw.max(dim).into();
    is_plain.then_some((dim, lo as u32, (hi as u32).min(raw.max(dim))))
}

/// A test as parts of which one holds.
fn parts_of(test: &Test, raw: Raw<'_>) -> Vec<All> {
    if let ValueSet::Member(membership) = &test.set {
        // A proof begins with a look at whether the image has them all.
        let Some((dim, bit)) = raw.members.place(membership) else { return Vec::new() };
        let values = Ranges::of((0..=raw.max(dim)).filter(|x| x >> bit & 1 == 1).map(|x| (x, x)));
        let values = if test.negated { values.not(raw.max(dim)) } else { values };
        return vec![SmallVec::from_iter([(dim, Wants::In(values))])];
    }
    let words = words(test.field, raw.family);
    let Some(&(first, _)) = words.first() else { return Vec::new() };
    let bits: u32 = words.iter().map(|(_, bits)| bits).sum();
    let max = u128::MAX >> (128 - bits);
    match &test.set {
        ValueSet::Interface { name, prefix } => {
            let cells = raw.names.cells(name, *prefix);
            let cells = if test.negated { cells.not(raw.max(first)) } else { cells };
            vec![SmallVec::from_iter([(first, Wants::In(cells))])]
        }
        ValueSet::Member(_) => Vec::new(), // see above
        ValueSet::Ranges(ranges) => {
            let ranges = ranges.iter().filter(|r| r.0 <= max).map(|r| (r.0, r.1.min(max)));
            let ranges = if test.negated { gaps(ranges, max) } else { ranges.collect() };
            ranges.into_iter().flat_map(|(lo, hi)| between(lo, hi, words)).collect()
        }
        // A wanted bit that is not looked at: no number has it.
        ValueSet::Masked { value, mask } if value & !mask != 0 => {
            if test.negated {
                vec![SmallVec::new()]
            } else {
                Vec::new()
            }
        }
        ValueSet::Masked { value, mask } if value & !max != 0 => {
            // Nor has any number a bit beyond its field's.
            let _ = mask;
            if test.negated { vec![SmallVec::new()] } else { Vec::new() }
        }
        ValueSet::Masked { value, mask } => {
            let mut shift = bits;
            let each = words.iter().filter_map(|&(dim, bits)| {
                shift -= bits;
                let word = |x: u128| (x >> shift) as u32 & (u32::MAX >> (32 - bits));
                let (value, mask) = (word(*value), word(*mask));
                let says_nothing = mask == 0;
                (!says_nothing).then(|| (dim, masked(value, mask, test.negated, raw.max(dim))))
            });
            // All words agree; negated, one of them does not.
            if test.negated {
                each.map(|one| SmallVec::from_iter([one])).collect()
            } else {
                vec![each.collect()]
            }
        }
    }
}

fn wants_of(test: &DimTest, raw: Raw<'_>) -> Wants {
    let max = raw.max(test.dim);
    match (test.wanted, test.dim) {
        (
            Wanted::Range(lo, hi),
            Dim::InInterface | Dim::OutInterface | Dim::PhysIn | Dim::PhysOut | Dim::Helper,
        ) => {
            // Programs see ranks.
            let holds = |cell: &u32| {
                let rank = raw.names.rank(*cell);
                (lo <= rank && rank <= hi) != test.negated
            };
            Wants::In(Ranges::of((0..=max).filter(holds).map(|cell| (cell, cell))))
        }
        (
            Wanted::Masked { value, mask },
            Dim::InInterface | Dim::OutInterface | Dim::PhysIn | Dim::PhysOut | Dim::Helper,
        ) => {
            let holds = |cell: &u32| (raw.names.rank(*cell) & mask == value) != test.negated;
            Wants::In(Ranges::of((0..=max).filter(holds).map(|cell| (cell, cell))))
        }
        (Wanted::Range(lo, hi), _) => {
            let set = Ranges::one(lo, hi.min(max));
            Wants::In(if test.negated { set.not(max) } else { set })
        }
        (Wanted::Masked { value, mask }, _) => masked(value, mask, test.negated, max),
    }
}

/// `x & mask == value` or not, as ranges where they are few.
fn masked(value: u32, mask: u32, negated: bool, max: u32) -> Wants {
    let said = |set: Ranges| Wants::In(if negated { set.not(max) } else { set });
    if value & !mask != 0 || value > max {
        return said(Ranges::none());
    }
    if max <= 0xff {
        return said(Ranges::of((0..=max).filter(|x| x & mask == value).map(|x| (x, x))));
    }
    // Larger dimensions end at a power of two.
    let mask = mask & max;
    // Free bits below the lowest fixed one make a range, each one above doubles their number.
    let tail = if mask == 0 { u32::MAX } else { (mask & mask.wrapping_neg()) - 1 };
    let holes = !mask & !tail & (u32::MAX >> max.leading_zeros());
    if holes.count_ones() >= MASK_RANGES_MAX.ilog2() {
        return Wants::Masked { value, mask, negated };
    }
    let mut ranges: Vec<u32> = vec![value];
    for bit in (0..32).map(|bit| 1u32 << bit).filter(|bit| holes & bit != 0) {
        let with: Vec<u32> = ranges.iter().map(|r| r | bit).collect();
        ranges.extend(with);
    }
    said(Ranges::of(ranges.into_iter().map(|r| (r, (r | tail).min(max)))))
}

/// What rising, disjoint ranges leave out.
fn gaps(ranges: impl Iterator<Item = (u128, u128)>, max: u128) -> Vec<(u128, u128)> {
    let mut out = Vec::new();
    let mut next = Some(0);
    for (lo, hi) in ranges {
        if let Some(from) = next.filter(|&from| from < lo) {
            out.push((from, lo - 1));
        }
        next = hi.checked_add(1);
    }
    out.extend(next.filter(|&from| from <= max).map(|from| (from, max)));
    out
}

/// The numbers from `lo` to `hi`, written in words: disjoint parts.
fn between(lo: u128, hi: u128, words: &[(Dim, u32)]) -> Vec<All> {
    let Some((&(dim, _), rest)) = words.split_first() else { return vec![SmallVec::new()] };
    let low_bits: u32 = rest.iter().map(|(_, bits)| bits).sum();
    let low_max = (1u128 << low_bits) - 1;
    let with = |x: u128, parts: Vec<All>| {
        let set = Ranges::one(x as u32, x as u32);
        parts.into_iter().map(move |mut part| {
            part.push((dim, Wants::In(set.clone())));
            part
        })
    };
    let (mut first, mut last) = (lo >> low_bits, hi >> low_bits);
    if first == last {
        return with(first, between(lo & low_max, hi & low_max, rest)).collect();
    }
    let mut out = Vec::new();
    if lo & low_max != 0 {
        out.extend(with(first, between(lo & low_max, low_max, rest)));
        first += 1;
    }
    if hi & low_max != low_max {
        out.extend(with(last, between(0, hi & low_max, rest)));
        last -= 1;
    }
    if first <= last {
        out.push(SmallVec::from_iter([(dim, Wants::In(Ranges::one(first as u32, last as u32)))]));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::{self, ASKED, NUMBERS};
    use crate::oracle::test_holds;
    use hipac_classifier::dim::{Ranks, value_of};
    use hipac_classifier::{InterfaceName, Packet};
    use proptest::prelude::*;
    use proptest::sample::select;

    /// A condition holds for a packet.
    pub(crate) fn holds(condition: &Condition, packet: &Packet, names: &Names) -> bool {
        let value = |dim: Dim| match dim {
            Dim::InInterface | Dim::OutInterface => {
                let name = if dim == Dim::InInterface { packet.in_interface } else { packet.out_interface };
                (0..=names.max()).rev().find(|&c| names.sample(c).is_some_and(|s| s <= name)).unwrap_or(0)
            }
            _ => value_of(packet, dim, Ranks::new(&[])),
        };
        let wants = |(dim, wants): &(Dim, Wants)| match wants {
            Wants::In(set) => set.contains(value(*dim)),
            Wants::Masked { value: v, mask, negated } => (value(*dim) & mask == *v) != *negated,
        };
        condition.sets.iter().all(|(dim, set)| set.contains(value(*dim)))
            && condition.clauses.iter().all(|c| c.iter().any(|part| part.iter().all(wants)))
    }

    fn edge() -> impl Strategy<Value = u128> {
        let word = prop_oneof![Just(0u32), Just(1), Just(u32::MAX), Just(u32::MAX - 1), 0u32..4];
        prop::array::uniform4(word).prop_map(|w| w.into_iter().fold(0, |x, w| x << 32 | u128::from(w)))
    }

    fn any_test(family: Family) -> impl Strategy<Value = Test> {
        let set = (edge(), edge(), edge(), 0..4).prop_map(|(a, b, mask, kind)| match kind {
            0 => ValueSet::Ranges(vec![(a.min(b), a.max(b))]),
            1 => ValueSet::Masked { value: a & mask, mask },
            2 => ValueSet::Masked { value: a, mask },
            _ => ValueSet::Ranges(vec![(0, 1), (a.clamp(3, u128::MAX - 1), u128::MAX)]),
        });
        let tested: Vec<Field> = NUMBERS.into_iter().filter(|field| !ASKED.contains(field)).collect();
        (select(tested), any::<bool>(), set).prop_map(move |(field, negated, set)| {
            let max = fields::number_max(family, field);
            let small = |x: u128| if x > 0xffff { (x >> 64) % (max.max(1)) } else { x };
            let set = match set {
                ValueSet::Ranges(r) if max <= 0xff => {
                    let (a, b) = (small(r[0].0), small(r[0].1));
                    ValueSet::Ranges(vec![(a.min(b), a.max(b))])
                }
                other => other,
            };
            Test { field, negated, set }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]
        #[test]
        fn conditions_hold_for_the_packets_that_tests_hold_for(
            (tests, x, field) in (any::<bool>()).prop_flat_map(|v6| {
                let family = if v6 { Family::V6 } else { Family::V4 };
                (prop::collection::vec(any_test(family), 1..3), edge(), Just(family))
            }),
            near in -1i128..=1,
        ) {
            let family = field;
            let names = Names::new(std::iter::empty(), Ranks::new(&[]));
            let raw = Raw { family, names: &names, members: &Members::default() };
            let mut condition = Condition::default();
            condition.and_tests(&tests, raw);
            let mut packet = fields::default_packet(family);
            let mut values = vec![x];
            for test in &tests {
                match &test.set {
                    ValueSet::Ranges(ranges) => values.extend(ranges.iter().flat_map(|r| [r.0, r.1])),
                    ValueSet::Masked { value, mask } => values.extend([*value, value | !mask, value ^ mask]),
                    ValueSet::Interface { .. } | ValueSet::Member(_) => {}
                }
            }
            for value in values {
                for test in &tests {
                    let max = fields::number_max(family, test.field);
                    fields::write_number(&mut packet, test.field, value.wrapping_add_signed(near) & max);
                }
                let expected = tests.iter().any(|t| test_holds(t, &packet));
                prop_assert_eq!(!condition.is_none() && holds(&condition, &packet, &names), expected);
            }
        }
    }

    #[test]
    fn names_are_cells() {
        let tests = [("eth", true, false), ("eth0", false, true), ("lo", false, false)];
        let names = Names::new(tests.iter().map(|t| (t.0, t.1)), Ranks::new(&[]));
        let raw = Raw { family: Family::V4, names: &names, members: &Members::default() };
        for (name, prefix, negated) in tests {
            let set = ValueSet::Interface { name: name.into(), prefix };
            let test = Test { field: Field::InInterface, negated, set };
            let mut condition = Condition::default();
            condition.and_tests(std::slice::from_ref(&test), raw);
            for name in ["", "et", "eth", "eth0", "eth00", "eth1", "lo", "lo0", "zz"] {
                let in_interface = InterfaceName::new(name).unwrap();
                let packet = Packet { in_interface, ..Packet::default() };
                assert_eq!(holds(&condition, &packet, &names), test_holds(&test, &packet), "{test:?} {name}");
            }
        }
    }
}
