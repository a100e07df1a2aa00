//! What a test of a rule says about a region of keys: that it holds for all of it, or for none.
//!
//! A region is one interval on each axis. The numbers that a field has in it lie between a lowest and a
//! highest, and some of their bits are known; small fields are looked at value by value. Both answers
//! can be "no": then the region must be split.

use std::rc::Rc;

use hipac_classifier::image::Section;
use hipac_classifier::key::KEY_BYTES;
use hipac_classifier::program::{DimTest, Wanted};
use hipac_classifier::{Dim, Image, InterfaceName};
use hipac_rules::{Clause, Family, Field, FragmentTest, IpPart, L4Need, Test, ValueSet};

use crate::fields::{INTERFACES, NUMBERS};

/// One interval on each axis.
pub(super) type Region = Vec<(u32, u32)>;

/// One dimension, in the key or not.
pub(super) struct Axis {
    pub(super) dim: Dim,
    /// The values that keys have.
    pub(super) range: (u32, u32),
    /// The key's value for each raw one, where it is another.
    classes: Option<Vec<u32>>,
}

impl Axis {
    /// Keys have classes of its values.
    pub(super) fn is_recoded(&self) -> bool {
        self.classes.is_some()
    }
}

/// The axes of an image's keys.
pub(super) struct Space {
    pub(super) family: Family,
    pub(super) axes: Vec<Axis>,
    of: [Option<usize>; Dim::COUNT],
    /// Axis of each byte of the key, and which byte of its value.
    bytes: [Option<(usize, u32)>; KEY_BYTES],
    /// Where ranks of interface names begin.
    names: Vec<u128>,
}

impl Space {
    pub(super) fn new<B: AsRef<[u8]>>(image: &Image<B>, family: Family) -> Option<Space> {
        let keys = image.key_maker();
        let names: Vec<u128> = (0..keys.ranks().count()).map(|i| keys.ranks().bound(i)).collect();
        let (of, bytes) = ([None; Dim::COUNT], [None; KEY_BYTES]);
        let mut space = Space { family, axes: vec![], of, bytes, names };
        let is_whole = image.section(Section::Slots).len() == 4 * keys.slots().count();
        if !is_whole || !space.names.is_sorted_by(|a, b| a < b) {
            return None;
        }
        for slot in keys.slots() {
            let classes = match slot.recode {
                Some(_) if slot.dim.max() > 0xff => return None,
                Some(table) => Some((0..=slot.dim.max()).map(|x| keys.class(table, x)).collect::<Vec<_>>()),
                None => None,
            };
            let max = match &classes {
                Some(classes) => *classes.iter().max()?,
                None if is_name(slot.dim) => space.names.len() as u32,
                None => slot.dim.max(),
            };
            for byte in 0..slot.dim.key_bytes() {
                let place = space.bytes.get_mut(usize::from(slot.offset) + byte)?;
                if place.replace((space.axes.len(), byte as u32)).is_some() {
                    return None;
                }
            }
            // Every name is at or above the least one that there can be.
            let min = u32::from(is_name(slot.dim) && space.names.first() == Some(&0));
            space.add(Axis { dim: slot.dim, range: (min, max), classes })?;
        }
        // What no key holds, rules may look at all the same.
        let fields = NUMBERS.iter().chain(&INTERFACES).flat_map(|&field| words(field, family));
        for &dim in fields {
            if space.of[dim.index()].is_none() {
                let max = if is_name(dim) { space.names.len() as u32 } else { dim.max() };
                space.add(Axis { dim, range: (0, max), classes: None })?;
            }
        }
        Some(space)
    }

    fn add(&mut self, axis: Axis) -> Option<()> {
        let is_new = self.of[axis.dim.index()].replace(self.axes.len()).is_none();
        self.axes.push(axis);
        is_new.then_some(())
    }

    pub(super) fn axis(&self, dim: Dim) -> Option<usize> {
        self.of[dim.index()]
    }

    /// The axis that bytes of a key lie in, and how many bits up: no axis behind the last, where keys are
    /// zero; `None` when they lie in several.
    pub(super) fn place(&self, at: usize, bytes: usize) -> Option<Option<(usize, u32)>> {
        let byte = |i: usize| self.bytes.get(at + i).copied().flatten();
        let first = byte(0);
        let follows = |i: usize| match (first, byte(i)) {
            (Some((axis, low)), Some(next)) => next == (axis, low + i as u32),
            (_, next) => next.is_none(),
        };
        (1..bytes).all(follows).then_some(first.map(|(axis, low)| (axis, 8 * low)))
    }

    /// Lowest and highest value of some bytes of the keys of a region, or more than that.
    pub(super) fn values(&self, region: &Region, at: usize, bytes: usize) -> (u32, u32) {
        let ones = if bytes == 2 { 0xffff } else { u32::MAX };
        match self.place(at, bytes) {
            Some(None) => (0, 0),
            Some(Some((axis, shift))) => {
                let (lo, hi) = (u64::from(region[axis].0 >> shift), u64::from(region[axis].1 >> shift));
                let high = |x: u64| x >> (8 * bytes);
                if high(lo) == high(hi) { (lo as u32 & ones, hi as u32 & ones) } else { (0, ones) }
            }
            None => {
                let byte = |i: usize| match self.bytes.get(at + i).copied().flatten() {
                    Some((axis, low)) if region[axis].0 == region[axis].1 => {
                        Some(region[axis].0 >> (8 * low) & 0xff)
                    }
                    Some(_) => None,
                    None => Some(0),
                };
                let all = (0..bytes).rev().try_fold(0, |x, i| Some(x << 8 | byte(i)?));
                all.map_or((0, ones), |x| (x, x))
            }
        }
    }

    /// Leaves of a region at least the keys that have some bytes in a range; false when it has none.
    pub(super) fn narrow(&self, region: &mut Region, at: usize, bytes: usize, (lo, hi): (u32, u32)) -> bool {
        let (first, last) = self.values(region, at, bytes);
        if lo > hi || first > hi || last < lo {
            return false;
        }
        if let Some(Some((axis, shift))) = self.place(at, bytes) {
            let high = |x: u32| u64::from(x) >> shift >> (8 * bytes);
            let interval = &mut region[axis];
            if high(interval.0) == high(interval.1) {
                let above = high(interval.0) << (8 * bytes);
                let lowest = (above | u64::from(lo)) << shift;
                let highest = (above | u64::from(hi)) << shift | ((1 << shift) - 1);
                *interval =
                    (interval.0.max(lowest as u32), interval.1.min(highest.min(u32::MAX.into()) as u32));
            }
        }
        true
    }

    /// Lowest and highest number of a field in a region, and the bits that all have alike.
    fn span(&self, field: Field, region: &Region) -> (u128, u128, u128) {
        let words = words(field, self.family);
        if words.is_empty() {
            return (0, u128::MAX, 0); // of what no axis says nothing is known
        }
        let (mut lo, mut hi, mut known) = (0, 0, u128::MAX);
        for &dim in words {
            let Some(axis) = self.of[dim.index()] else { return (0, u128::MAX, 0) };
            let (first, last) = region[axis];
            if is_name(dim) {
                let begin = |rank: u32| match rank.checked_sub(1) {
                    None => Some(0),
                    Some(at) => self.names.get(at as usize).copied(),
                };
                let end = begin(last.saturating_add(1)).map_or(u128::MAX, |next| next.saturating_sub(1));
                return (begin(first).unwrap_or(u128::MAX), end, 0);
            }
            let bits = 32 - dim.max().leading_zeros();
            let unknown = u64::MAX.checked_shr((first ^ last).leading_zeros() + 32).unwrap_or(0);
            lo = lo << bits | u128::from(first);
            hi = hi << bits | u128::from(last);
            known = known << bits | u128::from(!unknown & ((1 << bits) - 1));
        }
        (lo, hi, known)
    }

    /// A test holds for all packets of a region, and for none.
    fn test(&self, test: &Test, region: &Region) -> (bool, bool) {
        if let &[dim] = words(test.field, self.family)
            && let Some(axis) = self.of[dim.index()]
            && (self.axes[axis].classes.is_some() || dim == Dim::CtState)
        {
            let (lo, hi) = region[axis];
            let key = |raw: u32| self.axes[axis].classes.as_ref().map_or(raw, |c| c[raw as usize]);
            // A connection has one of five states.
            let is_real = |raw: &u32| dim != Dim::CtState || raw & 7 <= 4;
            let raw = (0..=dim.max()).filter(is_real).filter(|&raw| (lo..=hi).contains(&key(raw)));
            return raw.fold((true, true), |(all, none), raw| {
                let holds = number_holds(test, raw.into());
                (all && holds, none && !holds)
            });
        }
        let (lo, hi, known) = self.span(test.field, region);
        let (all, none) = match &test.set {
            ValueSet::Ranges(ranges) => {
                let meets = |r: &&(u128, u128)| r.0 <= hi && lo <= r.1;
                (ranges.iter().any(|r| r.0 <= lo && hi <= r.1), !ranges.iter().any(|r| meets(&r)))
            }
            ValueSet::Masked { value, mask } => {
                let differs = value & !mask != 0 || (lo ^ value) & mask & known != 0;
                let is_before = |first| first <= hi;
                (
                    mask & !known == 0 && lo & mask == *value,
                    differs || !first_masked(lo, *value, *mask).is_some_and(is_before),
                )
            }
            ValueSet::Interface { name, prefix } => match numbers(name, *prefix) {
                Some((first, last)) => (first <= lo && hi <= last, hi < first || last < lo),
                None => (false, true),
            },
            // Sets are not followed: what hangs on one has no certificate.
            ValueSet::Member(_) => (false, false),
        };
        if test.negated { (none, all) } else { (all, none) }
    }

    pub(super) fn is_inside(&self, clause: &Clause, region: &Region) -> bool {
        clause.iter().any(|test| self.test(test, region).0)
    }

    pub(super) fn is_outside(&self, clause: &Clause, region: &Region) -> bool {
        clause.iter().all(|test| self.test(test, region).1)
    }

    /// A clause fails for all of a region, by itself, or value by value together with the others that
    /// look at the same small field: an image may put values into one class that fail different ones.
    pub(super) fn fails(&self, clause: &Clause, all: &[Rc<Clause>], region: &Region) -> bool {
        if self.is_outside(clause, region) {
            return true;
        }
        let field = clause.first().map(|test| test.field);
        let Some(&[dim]) = field.map(|field| words(field, self.family)) else { return false };
        let Some(axis) = self.of[dim.index()] else { return false };
        let Some(classes) = &self.axes[axis].classes else { return false };
        let about = || all.iter().filter(|c| c.iter().all(|test| Some(test.field) == field));
        let fails = |raw: u32| about().any(|c| !c.iter().any(|test| number_holds(test, raw.into())));
        let (lo, hi) = region[axis];
        (0..=dim.max()).filter(|&raw| (lo..=hi).contains(&classes[raw as usize])).all(fails)
    }

    /// Clauses of rules and clauses of a program hold for the same packets. Decided on a grid of values
    /// between which no test changes; `None` where there is none.
    pub(super) fn are_same(&self, rules: &[&Clause], programs: &[Vec<Vec<DimTest>>]) -> Option<bool> {
        let mut grid: Vec<(Dim, Vec<u32>)> = Vec::new();
        if !rules.iter().copied().flatten().all(|test| self.can_tell(test)) {
            return None;
        }
        let tests = || programs.iter().flatten().flatten();
        for &dim in rules.iter().copied().flatten().flat_map(|t| words(t.field, self.family)) {
            grid.push((dim, vec![]));
        }
        grid.extend(tests().map(|test| (test.dim, vec![])));
        grid.sort_by_key(|(dim, _)| *dim);
        grid.dedup_by_key(|(dim, _)| *dim);
        for (dim, values) in &mut grid {
            *values = self.turns(*dim, rules, tests())?;
        }
        if grid.iter().fold(1usize, |n, (_, values)| n.saturating_mul(values.len())) > 1 << 20 {
            return None;
        }
        let mut at = vec![0; grid.len()];
        loop {
            let value = |dim: Dim| grid.iter().position(|(d, _)| *d == dim).map_or(0, |i| grid[i].1[at[i]]);
            let by_program =
                programs.iter().all(|c| c.iter().any(|all| all.iter().all(|t| t.holds(value(t.dim)))));
            let by_rules = rules.iter().all(|clause| clause.iter().any(|test| self.raw_holds(test, &value)));
            if by_program != by_rules {
                return Some(false);
            }
            let Some(next) = (0..grid.len()).find(|&i| at[i] + 1 < grid[i].1.len()) else {
                return Some(true);
            };
            at[..next].fill(0);
            at[next] += 1;
        }
    }

    /// Values of dimensions say whether a test holds: ranks, when it is about names. Of sets they do not.
    fn can_tell(&self, test: &Test) -> bool {
        let is_bound = |number| number == 0 || self.names.binary_search(&number).is_ok();
        match &test.set {
            ValueSet::Interface { name, prefix } => numbers(name, *prefix)
                .is_none_or(|(first, last)| is_bound(first) && last.checked_add(1).is_none_or(is_bound)),
            ValueSet::Ranges(_) | ValueSet::Masked { .. } => !words(test.field, self.family).is_empty(),
            ValueSet::Member(_) => false,
        }
    }

    /// Values of a dimension such that between two neighbours nothing changes.
    fn turns<'t>(
        &self,
        dim: Dim,
        rules: &[&Clause],
        programs: impl Iterator<Item = &'t DimTest>,
    ) -> Option<Vec<u32>> {
        if is_name(dim) {
            return Some((0..=self.names.len() as u32).collect());
        }
        let max = dim.max();
        if max <= 0xff {
            return Some((0..=max).collect());
        }
        let (mut ends, mut masks) = (vec![0, max], vec![]);
        let mut masked = |value: u32, mask: u32| match (!mask & max).wrapping_add(1).is_power_of_two() {
            true => ends.extend([value & mask, value | (!mask & max)]),
            false => masks.push((value, mask & max)),
        };
        let mut ranges = vec![];
        for test in programs.filter(|test| test.dim == dim) {
            match test.wanted {
                Wanted::Range(lo, hi) => ranges.extend([lo, hi.min(max)]),
                Wanted::Masked { value, mask } => masked(value, mask),
            }
        }
        for test in rules.iter().copied().flatten() {
            let mut shift = 0;
            for &word in words(test.field, self.family).iter().rev() {
                let low = shift;
                let cut = |x: u128| (x >> low) as u32 & word.max();
                shift += 32 - word.max().leading_zeros();
                match &test.set {
                    _ if word != dim => {}
                    ValueSet::Ranges(set) => ranges.extend(set.iter().flat_map(|r| [cut(r.0), cut(r.1)])),
                    ValueSet::Masked { value, mask } => masked(cut(*value), cut(*mask)),
                    ValueSet::Interface { .. } | ValueSet::Member(_) => return None,
                }
            }
        }
        ends.extend(ranges);
        masks.sort_unstable();
        masks.dedup();
        match masks[..] {
            [] => {
                let beside =
                    ends.iter().flat_map(|&x| [x.saturating_sub(1), x, x.saturating_add(1).min(max)]);
                let mut all: Vec<u32> = beside.collect();
                all.sort_unstable();
                all.dedup();
                Some(all)
            }
            // One mask with holes and nothing else: it holds, or not.
            [(value, mask)] if ends.len() == 2 => Some(vec![value, value ^ (mask & mask.wrapping_neg())]),
            _ => None,
        }
    }

    /// A test holds for raw values. Ranks stand for any name of theirs.
    fn raw_holds(&self, test: &Test, value: &dyn Fn(Dim) -> u32) -> bool {
        let words = words(test.field, self.family);
        if let (ValueSet::Interface { name, prefix }, [dim]) = (&test.set, words) {
            let begin = match value(*dim).checked_sub(1) {
                None => 0,
                Some(at) => self.names.get(at as usize).copied().unwrap_or(u128::MAX),
            };
            let holds = numbers(name, *prefix).is_some_and(|(first, last)| first <= begin && begin <= last);
            return holds != test.negated;
        }
        let bits = |dim: Dim| 32 - dim.max().leading_zeros();
        number_holds(test, words.iter().fold(0, |x, &dim| x << bits(dim) | u128::from(value(dim))))
    }
}

/// The first number at or above `lo` whose bits under a mask have a value.
fn first_masked(lo: u128, value: u128, mask: u128) -> Option<u128> {
    let x = lo & !mask | value;
    let Some(highest) = (x ^ lo).checked_ilog2() else { return Some(x) };
    let below = (1u128 << highest) - 1;
    if x > lo {
        return Some(x & (mask | !below));
    }
    // The lowest free bit above that can still be raised.
    let free = !mask & !lo & !below & !(1 << highest);
    let bit = free & free.wrapping_neg();
    (bit != 0).then(|| lo & !mask & !(bit | (bit - 1)) | bit | value)
}

fn number_holds(test: &Test, x: u128) -> bool {
    let holds = match &test.set {
        ValueSet::Ranges(ranges) => ranges.iter().any(|r| r.0 <= x && x <= r.1),
        ValueSet::Masked { value, mask } => x & mask == *value,
        // Neither is about a number.
        ValueSet::Interface { .. } | ValueSet::Member(_) => return false,
    };
    holds != test.negated
}

/// First and last number of the names of a test; none for what no interface is called.
fn numbers(name: &str, prefix: bool) -> Option<(u128, u128)> {
    let first = InterfaceName::new(name)?.as_number();
    let free = if prefix { u128::MAX.checked_shr(8 * name.len() as u32).unwrap_or(0) } else { 0 };
    Some((first, first | free))
}

pub(super) fn is_name(dim: Dim) -> bool {
    matches!(dim, Dim::InInterface | Dim::OutInterface | Dim::PhysIn | Dim::PhysOut | Dim::Helper)
}

/// The dimensions of a field, the most significant first.
pub(super) fn words(field: Field, family: Family) -> &'static [Dim] {
    use Dim::*;
    match (field, family) {
        (Field::Source, Family::V4) => &[Source0],
        (Field::Source, Family::V6) => &[Source3, Source2, Source1, Source0],
        (Field::Destination, Family::V4) => &[Destination0],
        (Field::Destination, Family::V6) => &[Destination3, Destination2, Destination1, Destination0],
        (Field::Mac, _) => &[MacHigh, MacLow],
        (Field::InInterface, _) => &[InInterface],
        (Field::OutInterface, _) => &[OutInterface],
        (Field::PhysIn, _) => &[PhysIn],
        (Field::PhysOut, _) => &[PhysOut],
        (Field::Protocol, _) => &[Protocol],
        (Field::L4, _) => &[L4],
        (Field::SourcePort, _) => &[SourcePort],
        (Field::DestinationPort, _) => &[DestinationPort],
        (Field::TcpFlags, _) => &[TcpFlags],
        (Field::CtState, _) => &[CtState],
        (Field::Mark, _) => &[Mark],
        (Field::ConnMark, _) => &[ConnMark],
        (Field::Ttl, _) => &[Ttl],
        (Field::Length, _) => &[Length],
        (Field::Tos, _) => &[Tos],
        (Field::PacketType, _) => &[PacketType],
        (Field::SourceType, _) => &[SourceType],
        (Field::DestinationType, _) => &[DestinationType],
        (Field::Bridged, _) => &[Bridged],
        (Field::Cpu, _) => &[Cpu],
        (Field::Realm, _) => &[Realm],
        (Field::InGroup, _) => &[InGroup],
        (Field::OutGroup, _) => &[OutGroup],
        (Field::Uid, _) => &[Uid],
        (Field::Gid, _) => &[Gid],
        (Field::Socket, _) => &[Socket],
        (Field::Spi, _) => &[Spi],
        (Field::DccpType, _) => &[DccpType],
        (Field::Mss, _) => &[Mss],
        (Field::AhSpi, _) => &[AhSpi],
        (Field::FragId, _) => &[FragId],
        (Field::AhLength, _) => &[AhLength],
        (Field::AhReserved, _) => &[AhReserved],
        (Field::FragFlags, _) => &[FragFlags],
        (Field::RtType, _) => &[RtType],
        (Field::RtSegments, _) => &[RtSegments],
        (Field::RtLength, _) => &[RtLength],
        (Field::DstLength, _) => &[DstLength],
        (Field::HbhLength, _) => &[HbhLength],
        (Field::ExtHeaders, _) => &[ExtHeaders],
        (Field::Helper, _) => &[Helper],
        _ => &[],
    }
}

/// The tests of a rule's own part.
pub(super) fn of_ip_part(ip: &IpPart) -> Vec<Test> {
    let mut out = Vec::new();
    for (field, test) in [(Field::Source, &ip.source), (Field::Destination, &ip.destination)] {
        let set = ValueSet::Masked { value: test.address, mask: test.mask };
        out.push(Test { field, negated: test.negated, set });
    }
    for (field, test) in [(Field::InInterface, &ip.in_interface), (Field::OutInterface, &ip.out_interface)] {
        if let Some(name) = &test.name {
            let set = ValueSet::Interface { name: name.clone(), prefix: test.prefix };
            out.push(Test { field, negated: test.negated, set });
        }
    }
    let number = u128::from(ip.protocol.number);
    let set = ValueSet::Ranges(vec![(number, number)]);
    out.push(Test { field: Field::Protocol, negated: ip.protocol.negated, set });
    let set = ValueSet::Ranges(vec![(1, 2)]);
    out.push(Test { field: Field::L4, negated: ip.fragment == FragmentTest::NotLater, set });
    let is_said = |test: &Test| match test.field {
        Field::Source => ip.source.mask != 0 || ip.source.negated,
        Field::Destination => ip.destination.mask != 0 || ip.destination.negated,
        Field::Protocol => ip.protocol.number != 0,
        Field::L4 => ip.fragment != FragmentTest::Any,
        _ => true,
    };
    out.retain(is_said);
    out
}

/// States of the transport header, a bit each: those in which a match drops a packet, and those in which
/// it looks on. None when it looks at no header.
pub(super) fn need(need: L4Need) -> Option<(u8, u8)> {
    let there = [255, 0, 0, 0, 4, 8, 12]; // bytes, by state; of later fragments none
    let cut = (3..7).filter(|&s| there[s] < need.bytes).map(|s| 1 << s).sum::<u8>();
    let drops = cut | if need.drops_fragment_at_8 { 1 << 2 } else { 0 };
    (need != L4Need::default()).then_some((drops, 0b111_1001 & !cut))
}

/// The transport header is in one of these states.
pub(super) fn in_states(states: u8) -> Clause {
    let set = (0..7u32).filter(|s| states >> s & 1 == 1).map(|s| (s.into(), s.into())).collect();
    vec![Test { field: Field::L4, negated: false, set: ValueSet::Ranges(set) }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_dimension_but_those_of_sets_is_a_fields() {
        for family in [Family::V4, Family::V6] {
            let fields = NUMBERS.iter().chain(&INTERFACES);
            let mut found: Vec<Dim> = fields.flat_map(|&field| words(field, family)).copied().collect();
            found.sort_unstable();
            let is_of = |dim: &Dim| match dim {
                Dim::Source1 | Dim::Source2 | Dim::Source3 => family == Family::V6,
                Dim::Destination1 | Dim::Destination2 | Dim::Destination3 => family == Family::V6,
                dim => !dim.is_set(),
            };
            assert_eq!(found, Dim::ALL.into_iter().filter(is_of).collect::<Vec<_>>());
        }
    }

    proptest! {
        #[test]
        fn the_first_number_under_a_mask_is_the_first(lo in 0u128..300, value in 0u128..300, mask in 0u128..300) {
            let value = value & mask;
            let slow = (lo..2048).find(|x| x & mask == value);
            prop_assert_eq!(first_masked(lo, value, mask), slow);
        }
    }
}
