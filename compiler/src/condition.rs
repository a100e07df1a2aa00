//! Conditions: what a rule's native tests say, as intervals on dimensions.
//!
//! A [`Condition`] is a conjunction of
//!
//! - one [`IntervalSet`] a dimension,
//! - unions of boxes, for what spans several dimensions (a negated IPv6 address, `multiport
//!   --ports`),
//! - checks, for what would be too many intervals (a mask with holes): left to the flat rule's
//!   program.
//!
//! Jumps intersect conditions along the path; a condition that became empty can be dropped.

use std::ops::Range;

use hipac_classifier::Dim;
use hipac_classifier::InterfaceName;
use hipac_classifier::program::{DimTest, Wanted};
use hipac_rules::{Family, Field, FragmentTest, IpPart, Test, ValueSet};
use smallvec::SmallVec;

use crate::interval::IntervalSet;
use crate::sets::SetPlan;

/// Intervals that a mask with holes may become before it is left to a check.
const MASK_INTERVALS_MAX: u32 = 16;

/// An interval on a dimension.
pub type DimInterval = (Dim, u32, u32);

/// A conjunction of intervals, one a dimension.
pub type DimBox = SmallVec<[DimInterval; 4]>;

/// See the module. Rulesets become hundreds of thousands of these: what is rare lies apart.
#[derive(Debug, PartialEq, Eq, Hash, Default)]
pub struct Condition {
    /// By rising dimension, the intervals of each by rising value; dimensions that are not there
    /// are free.
    intervals: SmallVec<[DimInterval; 7]>,
    /// Nothing satisfies the sets.
    is_void: bool,
    rest: Option<Box<Rest>>,
}

/// What few conditions have.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Rest {
    unions: Vec<Vec<DimBox>>,
    checks: Vec<Vec<Vec<DimTest>>>,
}

impl Clone for Condition {
    fn clone(&self) -> Condition {
        // A copy of bytes, where a clone would go interval by interval.
        let intervals = SmallVec::from_slice(&self.intervals);
        Condition { intervals, is_void: self.is_void, rest: self.rest.clone() }
    }
}

impl Condition {
    /// Nothing satisfies it.
    pub fn is_empty(&self) -> bool {
        self.is_void || self.unions().iter().any(Vec::is_empty)
    }

    /// The sets, by rising dimension: one or more intervals each.
    pub fn sets(&self) -> impl Iterator<Item = (Dim, &[DimInterval])> {
        self.intervals.chunk_by(|a, b| a.0 == b.0).map(|set| (set[0].0, set))
    }

    /// The unions of boxes.
    pub fn unions(&self) -> &[Vec<DimBox>] {
        self.rest.as_ref().map_or(&[], |rest| &rest.unions)
    }

    /// What is left to the program: each holds when all tests of one alternative do.
    pub fn checks(&self) -> &[Vec<Vec<DimTest>>] {
        self.rest.as_ref().map_or(&[], |rest| &rest.checks)
    }

    fn rest_mut(&mut self) -> &mut Rest {
        self.rest.get_or_insert_default()
    }

    /// Boxes that this condition would become.
    pub fn box_count(&self) -> usize {
        self.box_count_by(&|_, set| set.len())
    }

    /// The same, where `width` says how many intervals a set becomes.
    fn box_count_by(&self, width: &dyn Fn(Dim, &[DimInterval]) -> usize) -> usize {
        let sets = self.sets().map(|(dim, set)| width(dim, set));
        sets.chain(self.unions().iter().map(Vec::len)).fold(1, usize::saturating_mul)
    }

    /// The intervals on one dimension, when it is constrained there.
    pub fn set(&self, dim: Dim) -> Option<&[DimInterval]> {
        let (from, to) = self.place(dim);
        (from < to).then(|| &self.intervals[from..to])
    }

    /// Where the intervals of a dimension begin and end, or would stand.
    fn place(&self, dim: Dim) -> (usize, usize) {
        let from = self.intervals.iter().position(|i| i.0 >= dim).unwrap_or(self.intervals.len());
        let count = self.intervals[from..].iter().take_while(|i| i.0 == dim).count();
        (from, from + count)
    }

    /// And `dim` in `set`.
    pub fn and_set(&mut self, dim: Dim, set: &IntervalSet) {
        let (from, to) = self.place(dim);
        if from == to {
            if !set.is_full(dim.max()) {
                self.is_void |= set.is_empty();
                self.replace(dim, from..to, set);
            }
            return;
        }
        let both = set_of(&self.intervals[from..to]).intersection(set);
        self.is_void |= both.is_empty();
        self.replace(dim, from..to, &both);
    }

    fn replace(&mut self, dim: Dim, place: Range<usize>, set: &IntervalSet) {
        match (set.intervals(), place.len()) {
            (&[(lo, hi)], 0) => self.intervals.insert(place.start, (dim, lo, hi)),
            (&[(lo, hi)], 1) => self.intervals[place.start] = (dim, lo, hi),
            (several, _) => {
                self.intervals.drain(place.clone());
                self.intervals.insert_many(place.start, several.iter().map(|&(lo, hi)| (dim, lo, hi)));
            }
        }
    }

    /// And a clause of a match.
    pub fn and_clause(&mut self, clause: &[Test], space: &Space<'_>) {
        self.and_lowered(space.lower_clause(clause));
    }

    fn and_lowered(&mut self, lowered: Lowered) {
        match lowered {
            Lowered::Set(dim, set) => self.and_set(dim, &set),
            Lowered::Union(boxes) if boxes.len() == 1 => {
                for &(dim, lo, hi) in &boxes[0] {
                    self.and_set(dim, &IntervalSet::range(lo, hi));
                }
            }
            Lowered::Union(boxes) => self.rest_mut().unions.push(boxes),
            Lowered::Check(alternatives) => self.rest_mut().checks.push(alternatives),
        }
    }

    /// And the IP part of a rule, test by test in the order in which the kernel looks at them.
    pub fn and_ip_part(&mut self, ip: &IpPart, space: &Space<'_>) {
        let mut and = |field, negated, set| self.and_lowered(space.lower_test(&Test { field, negated, set }));
        for (field, a) in [(Field::Source, &ip.source), (Field::Destination, &ip.destination)] {
            if a.mask != 0 || a.negated {
                and(field, a.negated, ValueSet::Masked { value: a.address, mask: a.mask });
            }
        }
        for (field, i) in [(Field::InInterface, &ip.in_interface), (Field::OutInterface, &ip.out_interface)] {
            if let Some(name) = &i.name {
                and(field, i.negated, ValueSet::Interface { name: name.clone(), prefix: i.prefix });
            }
        }
        if ip.protocol.number != 0 {
            let set = ValueSet::Masked { value: ip.protocol.number.into(), mask: 0xff };
            and(Field::Protocol, ip.protocol.negated, set);
        }
        if ip.fragment != FragmentTest::Any {
            let set = ValueSet::Ranges(vec![(1, 2)]);
            and(Field::L4, ip.fragment == FragmentTest::NotLater, set);
        }
    }

    /// Replaces the widest parts by checks until at most `limit` boxes are left (at least 1).
    /// `width` says how many intervals a set becomes in the index; a set that is one there is
    /// never touched.
    pub fn limit_boxes(&mut self, limit: usize, width: &dyn Fn(Dim, &[DimInterval]) -> usize) {
        while self.box_count_by(width) > limit.max(1) {
            let widest_set =
                self.sets().map(|(dim, set)| (width(dim, set), dim)).max_by_key(|(width, _)| *width);
            let unions = self.unions();
            let widest_union = (0..unions.len()).max_by_key(|&i| unions[i].len());
            let set_width = widest_set.map_or(0, |(width, _)| width);
            match (widest_union, widest_set) {
                (Some(u), _) if unions[u].len() >= set_width => {
                    let rest = self.rest_mut();
                    let boxes = rest.unions.remove(u);
                    rest.checks.push(union_check(&boxes));
                }
                (_, Some((_, dim))) => self.check_set(dim, width),
                _ => return,
            }
        }
    }

    /// Makes the set of a dimension a check.
    fn check_set(&mut self, dim: Dim, width: &dyn Fn(Dim, &[DimInterval]) -> usize) {
        let (from, to) = self.place(dim);
        let set: SmallVec<[DimInterval; 7]> = self.intervals.drain(from..to).collect();
        self.rest_mut().checks.push(set_check(&set));
        // The hull still narrows the search, where it means something.
        let (lo, hi) = (set[0].1, set[set.len() - 1].2);
        if width(dim, &[(dim, lo, hi)]) == 1 {
            self.and_set(dim, &IntervalSet::range(lo, hi));
        }
    }

    /// All of it as checks.
    pub fn into_checks(self) -> Vec<Vec<Vec<DimTest>>> {
        // What nothing satisfies has no alternative.
        let void = self.is_void.then(Vec::new);
        let sets = self.sets().map(|(_, set)| set_check(set));
        let unions = self.unions().iter().map(|u| union_check(u));
        sets.chain(void).chain(unions).chain(self.checks().iter().cloned()).collect()
    }
}

/// Intervals of one dimension as a set.
pub fn set_of(intervals: &[DimInterval]) -> IntervalSet {
    IntervalSet::from_ranges(intervals.iter().map(|&(_, lo, hi)| (lo, hi)))
}

fn set_check(set: &[DimInterval]) -> Vec<Vec<DimTest>> {
    set.iter().map(|&(dim, lo, hi)| vec![range_test(dim, lo, hi)]).collect()
}

fn union_check(boxes: &[DimBox]) -> Vec<Vec<DimTest>> {
    boxes.iter().map(|b| b.iter().map(|&(d, lo, hi)| range_test(d, lo, hi)).collect()).collect()
}

fn range_test(dim: Dim, lo: u32, hi: u32) -> DimTest {
    DimTest { dim, negated: false, wanted: Wanted::Range(lo, hi) }
}

/// The space that tests are lowered into: the family and the bounds of interface names.
#[derive(Debug, Clone, Copy)]
pub struct Space<'a> {
    /// Decides how many dimensions an address takes.
    pub family: Family,
    /// All bounds of interface names in the ruleset, rising: see
    /// [`Ranks`](hipac_classifier::dim::Ranks).
    pub ranks: &'a [u128],
    /// The IP sets that rules name.
    pub sets: &'a SetPlan,
}

/// One clause in terms of dimensions.
enum Lowered {
    Set(Dim, IntervalSet),
    Union(Vec<DimBox>),
    Check(Vec<Vec<DimTest>>),
}

/// The dimensions of a field, most significant first, with their bits.
type Words = [(Dim, u32)];

/// Values of a field: disjoint ranges in rising order.
type Ranges = SmallVec<[(u128, u128); 2]>;

impl Space<'_> {
    fn words(&self, field: Field) -> &'static Words {
        use Dim::*;
        match (field, self.family) {
            (Field::Source, Family::V4) => &[(Source0, 32)],
            (Field::Source, Family::V6) => &[(Source3, 32), (Source2, 32), (Source1, 32), (Source0, 32)],
            (Field::Destination, Family::V4) => &[(Destination0, 32)],
            (Field::Destination, Family::V6) => {
                &[(Destination3, 32), (Destination2, 32), (Destination1, 32), (Destination0, 32)]
            }
            (Field::Mac, _) => &[(MacHigh, 25), (MacLow, 24)],
            (Field::InInterface, _) => &[(InInterface, 16)],
            (Field::OutInterface, _) => &[(OutInterface, 16)],
            (Field::PhysIn, _) => &[(PhysIn, 16)],
            (Field::PhysOut, _) => &[(PhysOut, 16)],
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
            (Field::Helper, _) => &[(Helper, 16)],
            // A field that this build does not index cannot come from a registry of this build.
            _ => &[],
        }
    }

    fn lower_clause(&self, clause: &[Test]) -> Lowered {
        if let [test] = clause {
            return self.lower_test(test);
        }
        let parts: Vec<Lowered> = clause.iter().map(|t| self.lower_test(t)).collect();
        let first_dim = match parts.first() {
            Some(Lowered::Set(dim, _)) => Some(*dim),
            _ => None,
        };
        if let Some(dim) = first_dim
            && parts.iter().all(|p| matches!(p, Lowered::Set(d, _) if *d == dim))
        {
            let all = parts.iter().flat_map(|p| match p {
                Lowered::Set(_, set) => set.intervals().to_vec(),
                _ => vec![],
            });
            return Lowered::Set(dim, IntervalSet::from_ranges(all));
        }
        if parts.iter().any(|p| matches!(p, Lowered::Check(_))) {
            let alternatives = parts.into_iter().flat_map(|p| match p {
                Lowered::Check(alternatives) => alternatives,
                Lowered::Set(dim, set) => {
                    set.intervals().iter().map(|&(lo, hi)| vec![range_test(dim, lo, hi)]).collect()
                }
                Lowered::Union(boxes) => boxes
                    .iter()
                    .map(|b| b.iter().map(|&(d, lo, hi)| range_test(d, lo, hi)).collect())
                    .collect(),
            });
            return Lowered::Check(alternatives.collect());
        }
        let boxes = parts.into_iter().flat_map(|p| match p {
            Lowered::Set(dim, set) => {
                set.intervals().iter().map(|&(lo, hi)| DimBox::from_slice(&[(dim, lo, hi)])).collect()
            }
            Lowered::Union(boxes) => boxes,
            Lowered::Check(_) => vec![],
        });
        Lowered::Union(boxes.collect())
    }

    fn lower_test(&self, test: &Test) -> Lowered {
        if let ValueSet::Member(membership) = &test.set {
            // The plan was made of the same rules.
            let Some((dim, values)) = self.sets.values(membership) else { return Lowered::Union(Vec::new()) };
            return Lowered::Set(dim, if test.negated { values.complement(dim.max()) } else { values });
        }
        let words = self.words(test.field);
        if let [(dim, bits)] = words {
            let max = u32::MAX >> (32 - bits);
            if let Some((lo, hi)) = one_range(&test.set, max) {
                let set = IntervalSet::range(lo, hi);
                return Lowered::Set(*dim, if test.negated { set.complement(max) } else { set });
            }
        }
        let bits: u32 = words.iter().map(|w| w.1).sum();
        let max = if bits == 128 { u128::MAX } else { (1 << bits) - 1 };
        let ranges: Ranges = match &test.set {
            ValueSet::Ranges(ranges) => {
                ranges.iter().filter(|r| r.0 <= max).map(|r| (r.0, r.1.min(max))).collect()
            }
            ValueSet::Interface { name, prefix } => self.interface_ranks(name, *prefix),
            ValueSet::Member(_) => Ranges::new(), // lowered above
            ValueSet::Masked { value, mask } => {
                let (value, mask) = (*value, *mask & max);
                if value & !mask != 0 {
                    Ranges::new()
                } else if let Some(ranges) = masked_ranges(value, mask, max) {
                    ranges
                } else if words.len() == 1 && words[0].0.is_small() {
                    let dim = words[0].0;
                    let set = IntervalSet::of_small(dim.max(), |x| u128::from(x) & mask == value);
                    set.intervals().iter().map(|r| (r.0.into(), r.1.into())).collect()
                } else {
                    return Lowered::Check(masked_check(words, value, mask, test.negated));
                }
            }
        };
        let ranges = if test.negated { complement(&ranges, max) } else { ranges };
        match words {
            [(dim, _)] => {
                Lowered::Set(*dim, IntervalSet::from_ranges(ranges.iter().map(|r| (r.0 as u32, r.1 as u32))))
            }
            _ => Lowered::Union(ranges.iter().flat_map(|r| decompose(r.0, r.1, words)).collect()),
        }
    }

    /// Ranks of the names equal to, or beginning with, `name`.
    fn interface_ranks(&self, name: &str, prefix: bool) -> Ranges {
        let rank = |bound: u128| self.ranks.partition_point(|&b| b <= bound) as u128;
        match interface_bounds(name, prefix) {
            None => Ranges::new(),
            Some((first, None)) => Ranges::from_slice(&[(rank(first), 0xffff)]),
            Some((first, Some(end))) => Ranges::from_slice(&[(rank(first), rank(end) - 1)]),
        }
    }
}

/// The numbers of the names equal to, or beginning with, `name`: the first, and the one after
/// the last (`None`: no end). `None` when there can be no such name.
pub fn interface_bounds(name: &str, prefix: bool) -> Option<(u128, Option<u128>)> {
    let first = InterfaceName::new(name)?.as_number();
    let free_bits = if prefix { 128 - 8 * name.len() as u32 } else { 0 };
    let last = first | u128::MAX.checked_shr(128 - free_bits).unwrap_or(0);
    Some((first, last.checked_add(1)))
}

/// The values of a set that is plainly one range within `0..=max`, as nearly all are.
fn one_range(set: &ValueSet, max: u32) -> Option<(u32, u32)> {
    let (lo, hi) = match set {
        ValueSet::Ranges(ranges) => match ranges[..] {
            [range] => range,
            _ => return None,
        },
        ValueSet::Masked { value, mask } => {
            let mask = *mask as u32 & max;
            let free = max & !mask;
            // A prefix: the free bits are the lowest ones.
            if free & free.wrapping_add(1) != 0 || value & !u128::from(mask) != 0 {
                return None;
            }
            (*value, *value | u128::from(free))
        }
        ValueSet::Interface { .. } | ValueSet::Member(_) => return None,
    };
    Some((u32::try_from(lo).ok()?, u32::try_from(hi).ok()?)).filter(|_| lo <= hi && hi <= u128::from(max))
}

/// The ranges of `x & mask == value`, when they are few.
fn masked_ranges(value: u128, mask: u128, max: u128) -> Option<Ranges> {
    // Free bits below the lowest fixed one make a range; each free bit above doubles their number.
    let tail = mask.trailing_zeros().min(128);
    let tail_ones = u128::MAX.checked_shr(128 - tail).unwrap_or(0) & max;
    let holes = max & !mask & !tail_ones;
    if 1u32.checked_shl(holes.count_ones())? > MASK_INTERVALS_MAX || holes.count_ones() > 8 {
        return None;
    }
    let mut ranges = Ranges::new();
    let mut hole = 0u128;
    loop {
        ranges.push((value | hole, value | hole | tail_ones));
        // The next subset of `holes`, in rising order.
        hole = hole.wrapping_sub(holes) & holes;
        if hole == 0 {
            return Some(ranges);
        }
    }
}

/// A masked test with holes, word by word.
fn masked_check(words: &Words, value: u128, mask: u128, negated: bool) -> Vec<Vec<DimTest>> {
    let mut shift: u32 = words.iter().map(|w| w.1).sum();
    let mut tests = Vec::new();
    for &(dim, bits) in words {
        shift -= bits;
        let cut = |x: u128| (x >> shift) as u32 & (u32::MAX >> (32 - bits));
        if cut(mask) != 0 {
            tests.push(DimTest {
                dim,
                negated,
                wanted: Wanted::Masked { value: cut(value), mask: cut(mask) },
            });
        }
    }
    // Not all of them: one of them not.
    if negated { tests.into_iter().map(|t| vec![t]).collect() } else { vec![tests] }
}

fn complement(ranges: &[(u128, u128)], max: u128) -> Ranges {
    let mut out = Ranges::new();
    let mut next = 0;
    for &(lo, hi) in ranges {
        if next < lo {
            out.push((next, lo - 1));
        }
        if hi >= max {
            return out;
        }
        next = hi + 1;
    }
    out.push((next, max));
    out
}

/// The numbers `lo..=hi`, written in `words`, as disjoint boxes: one for a prefix, at most
/// `2 · words − 1`.
fn decompose(lo: u128, hi: u128, words: &[(Dim, u32)]) -> Vec<DimBox> {
    let Some((&(dim, bits), rest)) = words.split_first() else { return vec![DimBox::new()] };
    let low_bits: u32 = rest.iter().map(|w| w.1).sum();
    let low_max = (1u128 << low_bits) - 1;
    let (top_lo, top_hi) = ((lo >> low_bits) as u32, (hi >> low_bits) as u32);
    let (rest_lo, rest_hi) = (lo & low_max, hi & low_max);
    let under = |top: (u32, u32), from: u128, to: u128| -> Vec<DimBox> {
        let inner = if (from, to) == (0, low_max) { vec![DimBox::new()] } else { decompose(from, to, rest) };
        let constrained = top != (0, u32::MAX >> (32 - bits));
        inner
            .into_iter()
            .map(|mut b| {
                if constrained {
                    b.push((dim, top.0, top.1));
                }
                b
            })
            .collect()
    };
    if top_lo == top_hi {
        return under((top_lo, top_hi), rest_lo, rest_hi);
    }
    let mut out = Vec::new();
    let (mut first, mut last) = (top_lo, top_hi);
    if rest_lo != 0 {
        out.extend(under((top_lo, top_lo), rest_lo, low_max));
        first += 1;
    }
    if rest_hi != low_max {
        out.extend(under((top_hi, top_hi), 0, rest_hi));
        last -= 1;
    }
    if first <= last {
        out.extend(under((first, last), 0, low_max));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The condition holds for a point given as `value(dim)`.
    fn holds(c: &Condition, value: impl Fn(Dim) -> u32 + Copy) -> bool {
        let inside = |b: &DimBox| b.iter().all(|&(d, lo, hi)| lo <= value(d) && value(d) <= hi);
        c.sets().all(|(d, set)| set.iter().any(|&(_, lo, hi)| lo <= value(d) && value(d) <= hi))
            && c.unions().iter().all(|u| u.iter().any(inside))
            && c.checks()
                .iter()
                .all(|check| check.iter().any(|all| all.iter().all(|t| t.holds(value(t.dim)))))
    }

    fn edge128() -> impl Strategy<Value = u128> {
        let word = prop_oneof![Just(0u32), Just(1), Just(u32::MAX), Just(u32::MAX - 1), 0u32..4];
        prop::array::uniform4(word).prop_map(|w| w.into_iter().fold(0, |x, w| x << 32 | u128::from(w)))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]
        #[test]
        fn ipv6_tests_hold_word_by_word_for_the_same_addresses(
            a in edge128(), b in edge128(), x in edge128(), mask in edge128(), kind in 0..3, negated: bool,
            near in -1i128..=1
        ) {
            let (lo, hi) = (a.min(b), a.max(b));
            let (set, wanted): (ValueSet, Box<dyn Fn(u128) -> bool>) = match kind {
                0 => (ValueSet::Ranges(vec![(lo, hi)]), Box::new(move |x| lo <= x && x <= hi)),
                1 => (ValueSet::Masked { value: a & mask, mask }, Box::new(move |x| x & mask == a & mask)),
                _ => (ValueSet::Masked { value: a, mask }, Box::new(move |x| x & mask == a)),
            };
            let space = Space { family: Family::V6, ranks: &[], sets: &SetPlan::default() };
            let mut c = Condition::default();
            c.and_clause(&[Test { field: Field::Source, negated, set }], &space);
            for x in [x, a.wrapping_add_signed(near), b.wrapping_add_signed(near)] {
                let value = |d: Dim| (x >> (32 * d.index())) as u32;
                prop_assert_eq!(!c.is_empty() && holds(&c, value), wanted(x) != negated);
                let mut limited = c.clone();
                limited.limit_boxes(2, &|_, set| set.len());
                prop_assert!(limited.box_count() <= 2);
                prop_assert_eq!(!c.is_empty() && holds(&limited, value), wanted(x) != negated);
            }
        }

        #[test]
        fn masks_with_holes_keep_their_meaning(value: u32, mask: u32, x: u32, keep: bool, negated: bool) {
            let x = if keep { (x & !mask) | (value & mask) } else { x };
            let space = Space { family: Family::V4, ranks: &[], sets: &SetPlan::default() };
            for (field, dim) in [(Field::Mark, Dim::Mark), (Field::TcpFlags, Dim::TcpFlags)] {
                let (value, mask, x) = (value & mask & dim.max(), mask & dim.max(), x & dim.max());
                let set = ValueSet::Masked { value: value.into(), mask: mask.into() };
                let mut c = Condition::default();
                c.and_clause(&[Test { field, negated, set }], &space);
                prop_assert_eq!(!c.is_empty() && holds(&c, |_| x), (x & mask == value) != negated);
            }
        }
    }

    #[test]
    fn a_prefix_is_one_box() {
        let space = Space { family: Family::V6, ranks: &[], sets: &SetPlan::default() };
        let count = |address: u128, length: u32, negated| {
            let mask = u128::MAX << (128 - length);
            let mut c = Condition::default();
            let set = ValueSet::Masked { value: address & mask, mask };
            c.and_clause(&[Test { field: Field::Destination, negated, set }], &space);
            c.box_count()
        };
        assert_eq!(count(0x2001_0db8 << 96, 48, false), 1);
        assert_eq!(count(0x2001_0db8 << 96 | 1, 128, false), 1);
        assert!(count(0x2001_0db8 << 96 | 1, 128, true) <= 8);
    }

    #[test]
    fn sources_or_destinations_become_two_boxes() {
        let port = |field| Test { field, negated: false, set: ValueSet::Ranges(vec![(53, 53)]) };
        let mut c = Condition::default();
        let space = Space { family: Family::V4, ranks: &[], sets: &SetPlan::default() };
        c.and_clause(&[port(Field::SourcePort), port(Field::DestinationPort)], &space);
        assert_eq!(c.box_count(), 2);
        let value = |s, d| move |dim: Dim| if dim == Dim::SourcePort { s } else { d };
        assert!(holds(&c, value(53, 1)) && holds(&c, value(1, 53)) && !holds(&c, value(1, 2)));
    }
}
