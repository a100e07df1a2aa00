//! One axis of the space: a field's values, cut into *atoms* that no test tells apart.
//!
//! ```text
//!   dport      0 ······· 21 │ 22 │ 23 ··· 1023 │ 1024 ····· 65535       ranges: atoms in the order of values
//!   tcp-flags  {SYN, SYN+PSH, …} {ACK, …} …                             classes: values with the same outcomes
//!   mark/0xff  0x1 │ 0x2 │ any other                                    bits that are always looked at together
//!   in         none │ … │ eth0 │ eth0… │ …                              names, in the order of their bytes
//! ```
//!
//! Atoms that no packet can have (a name between `eth0` and `eth0`'s successor, a connection state of 7) do
//! not exist, so that a region that is not empty holds a packet.

use std::collections::BTreeSet;

use hipac_classifier::InterfaceName;
use hipac_rules::{Family, Field, Test, ValueSet};

use super::set::{Atom, Interval, Set};
use crate::fields;

/// What an axis measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum AxisKey {
    /// A whole field.
    Field(Field),
    /// Bits of the mark or connmark that tests always look at together.
    Bits(Field, u32),
}

/// An axis with its atoms.
#[derive(Debug)]
pub(crate) struct Axis {
    pub(crate) key: AxisKey,
    pub(crate) atoms: Atoms,
}

#[derive(Debug)]
pub(crate) enum Atoms {
    /// Rising, disjoint ranges.
    Ranges(Vec<(u128, u128)>),
    /// The values of each class, rising.
    Classes(Vec<Vec<u128>>),
    /// One atom for each value, rising; the last is any other value, of which one is given.
    Bits { values: Vec<u32>, other: Option<u32> },
    /// Ranges of names as numbers, each with a name in it.
    Names(Vec<((u128, u128), InterfaceName)>),
}

/// Ranges that one masked value may become.
const MASKED_RANGES_MAX: u32 = 8;

impl Axis {
    /// The field it belongs to.
    pub(crate) fn field(&self) -> Field {
        match self.key {
            AxisKey::Field(field) | AxisKey::Bits(field, _) => field,
        }
    }

    pub(crate) fn len(&self) -> u32 {
        let len = match &self.atoms {
            Atoms::Ranges(atoms) => atoms.len(),
            Atoms::Classes(atoms) => atoms.len(),
            Atoms::Bits { values, other } => values.len() + usize::from(other.is_some()),
            Atoms::Names(atoms) => atoms.len(),
        };
        // Bounds come from rules, which are counted in 32 bits with room to spare.
        u32::try_from(len).unwrap_or(u32::MAX)
    }

    /// The atoms whose values are in the set of a test, negation included. The test is one that the axis was
    /// built for.
    pub(crate) fn of_test(&self, test: &Test) -> Set {
        let set = match (&self.atoms, &test.set) {
            (Atoms::Ranges(atoms), set) => {
                let ranges = ranges_of(set, fields_max(atoms)).unwrap_or_default();
                Set::new(ranges.iter().filter_map(|&r| span(atoms, |a| *a, r)).collect())
            }
            (Atoms::Classes(classes), set) => self.of_classes(classes, |x| set_contains(set, x)),
            (Atoms::Names(atoms), ValueSet::Interface { name, prefix }) => {
                let range = name_range(name, *prefix);
                Set::new(range.and_then(|r| span(atoms, |a| a.0, r)).into_iter().collect())
            }
            _ => Set::new(vec![]),
        };
        if test.negated { set.complement(self.len()) } else { set }
    }

    /// The classes whose values are wanted; the axis has classes.
    fn of_classes(&self, classes: &[Vec<u128>], wanted: impl Fn(u128) -> bool) -> Set {
        let atoms = classes.iter().zip(0..).filter(|(c, _)| c.first().is_some_and(|&x| wanted(x)));
        Set::new(atoms.map(|(_, i)| (i, i)).collect())
    }

    /// The atoms of a small field whose value is wanted.
    pub(crate) fn of_values(&self, wanted: impl Fn(u128) -> bool) -> Set {
        match &self.atoms {
            Atoms::Classes(classes) => self.of_classes(classes, wanted),
            Atoms::Ranges(atoms) => {
                Set::new(atoms.iter().zip(0..).filter(|(a, _)| wanted(a.0)).map(|(_, i)| (i, i)).collect())
            }
            _ => Set::new(vec![]),
        }
    }

    /// The atom of a group of bits with this value; `None` when no test was known to look for it.
    pub(crate) fn of_bits(&self, value: u32) -> Option<Atom> {
        match &self.atoms {
            Atoms::Bits { values, .. } => {
                values.binary_search(&value).ok().and_then(|i| u32::try_from(i).ok())
            }
            _ => None,
        }
    }

    /// The atom that a value of the field is in.
    pub(crate) fn atom_of(&self, packet: &hipac_classifier::Packet) -> Option<Atom> {
        let number = fields::number(packet, self.field());
        let found = match &self.atoms {
            Atoms::Ranges(atoms) => {
                let i = atoms.partition_point(|a| a.1 < number);
                atoms.get(i).filter(|a| a.0 <= number).map(|_| i)
            }
            Atoms::Classes(classes) => classes.iter().position(|c| c.contains(&number)),
            Atoms::Bits { values, other } => {
                let AxisKey::Bits(_, mask) = self.key else { return None };
                let bits = (number & u128::from(mask)) as u32; // a mask of 32 bits: fits
                values.binary_search(&bits).ok().or_else(|| other.map(|_| values.len()))
            }
            Atoms::Names(atoms) => {
                let number = fields::interface(packet, self.field()).as_number();
                let i = atoms.partition_point(|a| a.0.1 < number);
                atoms.get(i).filter(|a| a.0.0 <= number).map(|_| i)
            }
        };
        found.and_then(|i| u32::try_from(i).ok())
    }

    /// How much of the field's values an interval of atoms holds, as a power of two.
    pub(crate) fn bits_of(&self, (lo, hi): Interval) -> f64 {
        let atoms = lo as usize..=hi as usize;
        let count = match &self.atoms {
            Atoms::Ranges(a) => a[atoms].iter().map(|&(lo, hi)| (hi - lo) as f64 + 1.0).sum(),
            Atoms::Classes(a) => a[atoms].iter().map(|c| c.len() as f64).sum(),
            Atoms::Bits { .. } => f64::from(hi - lo + 1),
            Atoms::Names(a) => a[atoms].iter().map(|&((lo, hi), _)| (hi - lo) as f64 + 1.0).sum(),
        };
        f64::log2(count)
    }
}

/// The interval of atoms inside of a range whose ends are bounds of atoms.
fn span<T>(atoms: &[T], range: impl Fn(&T) -> (u128, u128), (lo, hi): (u128, u128)) -> Option<Interval> {
    let first = atoms.partition_point(|a| range(a).0 < lo);
    let behind = atoms.partition_point(|a| range(a).0 <= hi);
    let first = u32::try_from(first).ok()?;
    let last = u32::try_from(behind).ok()?.checked_sub(1)?;
    (first <= last).then_some((first, last))
}

fn fields_max(atoms: &[(u128, u128)]) -> u128 {
    atoms.last().map_or(0, |a| a.1)
}

/// Whether a number is in the set of a test, negation left aside.
pub(crate) fn set_contains(set: &ValueSet, x: u128) -> bool {
    match set {
        ValueSet::Ranges(ranges) => ranges.iter().any(|&(lo, hi)| lo <= x && x <= hi),
        ValueSet::Masked { value, mask } => x & mask == *value,
        ValueSet::Interface { .. } | ValueSet::Member(_) => false,
    }
}

/// The values of a set up to `max`, as ranges; `None` when a mask with many holes would give too many.
pub(crate) fn ranges_of(set: &ValueSet, max: u128) -> Option<Vec<(u128, u128)>> {
    match set {
        ValueSet::Ranges(ranges) => {
            Some(ranges.iter().filter(|r| r.0 <= max).map(|&(lo, hi)| (lo, hi.min(max))).collect())
        }
        ValueSet::Masked { value, mask } => {
            if value & !mask != 0 {
                return Some(Vec::new());
            }
            let bits = u128::BITS - max.leading_zeros();
            let all = if bits == 128 { u128::MAX } else { (1 << bits) - 1 };
            let free = !mask & all;
            let low = free.trailing_ones();
            let low_mask = if low == 128 { u128::MAX } else { (1u128 << low) - 1 };
            let holes = free & !low_mask;
            if holes.count_ones() > MASKED_RANGES_MAX {
                return None;
            }
            // Every way to fill the holes, smallest first: the next subset of a mask.
            let mut ranges = Vec::with_capacity(1 << holes.count_ones());
            let mut fill = 0u128;
            loop {
                let lo = value & all | fill;
                if lo <= max {
                    ranges.push((lo, (lo | low_mask).min(max)));
                }
                fill = (fill | !holes).wrapping_add(1) & holes;
                if fill == 0 {
                    return Some(ranges);
                }
            }
        }
        ValueSet::Interface { .. } => Some(Vec::new()),
        ValueSet::Member(_) => None,
    }
}

/// The names of a test as a range of numbers that sort as names do.
fn name_range(name: &str, prefix: bool) -> Option<(u128, u128)> {
    let exact = InterfaceName::new(name)?.as_number();
    let free = 8 * (16 - name.len()) as u32; // at most 15 bytes: see `InterfaceName`
    let ones = if free >= 128 { u128::MAX } else { (1u128 << free) - 1 };
    Some((exact, if prefix { exact | ones } else { exact }))
}

/// Bounds collected for a field that becomes ranges.
pub(crate) fn range_atoms(family: Family, field: Field, tests: &BTreeSet<(u128, u128)>) -> Atoms {
    let max = fields::number_max(family, field);
    let mut starts = vec![0];
    for &(lo, hi) in tests {
        starts.push(lo);
        starts.extend(hi.checked_add(1));
    }
    starts.retain(|&s| s <= max);
    // What no packet can hold stands alone, to be left out.
    if field == Field::Mac {
        starts.extend([1, 1 << 48]);
    }
    starts.sort_unstable();
    starts.dedup();
    let ends = starts[1..].iter().map(|s| s - 1).chain([max]);
    let atoms = starts.iter().copied().zip(ends).filter(|&(lo, _)| fields::is_possible(family, field, lo));
    Atoms::Ranges(atoms.collect())
}

/// The values of a small field by what tests say of them; each value alone when `is_changed`: rules that
/// change the field look at it from other places.
pub(crate) fn class_atoms(family: Family, field: Field, tests: &[&Test], is_changed: bool) -> Atoms {
    let values = (0..=fields::number_max(family, field)).filter(|&x| fields::is_possible(family, field, x));
    let mut classes: Vec<Vec<u128>> = vec![values.collect()];
    if is_changed {
        classes = classes.concat().into_iter().map(|x| vec![x]).collect();
    }
    for test in tests {
        let split = classes.into_iter().flat_map(|class| {
            let (inside, outside): (Vec<u128>, Vec<u128>) =
                class.into_iter().partition(|&x| set_contains(&test.set, x));
            [inside, outside].into_iter().filter(|c| !c.is_empty())
        });
        classes = split.collect();
    }
    classes.sort();
    Atoms::Classes(classes)
}

/// The names that tests tell apart.
pub(crate) fn name_atoms(tests: &BTreeSet<(hipac_rules::Name, bool)>) -> Atoms {
    // No name at all is a value of its own, and the first.
    let mut starts = vec![0, 1];
    for (name, prefix) in tests {
        let Some((lo, hi)) = name_range(name, *prefix) else { continue };
        starts.push(lo);
        starts.extend(hi.checked_add(1));
    }
    starts.sort_unstable();
    starts.dedup();
    let ends = starts[1..].iter().map(|s| s - 1).chain([u128::MAX]);
    let ranges = starts.iter().copied().zip(ends);
    Atoms::Names(ranges.filter_map(|range| Some((range, name_within(range)?))).collect())
}

/// A name whose number is in the range: one that a person might give, where there is one.
fn name_within((lo, hi): (u128, u128)) -> Option<InterfaceName> {
    if lo == 0 && hi == 0 {
        return Some(InterfaceName::NONE);
    }
    let bytes = lo.to_be_bytes();
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    let is_name = end <= 15 && bytes[end..].iter().all(|&b| b == 0);
    if is_name && let Some(name) = std::str::from_utf8(&bytes[..end]).ok().and_then(InterfaceName::new) {
        return Some(name);
    }
    // Behind the name that the number begins with: one more letter, or a later letter in some place.
    for keep in (0..=end.min(14)).rev() {
        for letter in *b"0123456789abcdefghijklmnopqrstuvwxyz-.:@_~!" {
            let mut text = bytes[..keep].to_vec();
            text.push(letter);
            let Some(name) = String::from_utf8(text).ok().and_then(|t| InterfaceName::new(&t)) else {
                continue;
            };
            if (lo..=hi).contains(&name.as_number()) {
                return Some(name);
            }
        }
    }
    None
}

/// The smallest value of `mask`'s bits that is not among `values`.
pub(crate) fn other_bits(mask: u32, values: &[u32]) -> Option<u32> {
    let mut value = 0u32;
    loop {
        if values.binary_search(&value).is_err() {
            return Some(value);
        }
        value = (value | !mask).wrapping_add(1) & mask;
        if value == 0 {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_become_ranges_while_they_are_few() {
        let masked = |value, mask| ValueSet::Masked { value, mask };
        assert_eq!(ranges_of(&masked(0x10, 0xf0), 0xff), Some(vec![(0x10, 0x1f)]));
        assert_eq!(ranges_of(&masked(1, 0xf9), 0xff), Some(vec![(1, 1), (3, 3), (5, 5), (7, 7)]));
        assert_eq!(ranges_of(&masked(2, 1), 0xff), Some(vec![]));
        assert_eq!(ranges_of(&masked(0, 0), 0xffff_ffff), Some(vec![(0, 0xffff_ffff)]));
        assert_eq!(ranges_of(&masked(1, 1), 0xffff_ffff), None);
        assert_eq!(ranges_of(&masked(0, 0), u128::MAX), Some(vec![(0, u128::MAX)]));
    }

    #[test]
    fn every_atom_of_names_holds_a_name() {
        let tests = [
            ("eth0", false),
            ("eth", true),
            ("eth00", false),
            ("", true),
            ("abcdefghijklmno", false),
            ("lo", true),
        ];
        let tests = tests.into_iter().map(|(name, prefix)| (name.into(), prefix)).collect();
        let Atoms::Names(atoms) = name_atoms(&tests) else { panic!() };
        for ((lo, hi), name) in &atoms {
            assert!((*lo..=*hi).contains(&name.as_number()), "{name}");
        }
        let names: Vec<String> = atoms.iter().map(|a| a.1.to_string()).collect();
        assert_eq!(
            names,
            [
                "",
                "0",
                "abcdefghijklmno",
                "abcdefghijklmnp",
                "eth",
                "eth0",
                "eth0-",
                "eth00",
                "eth000",
                "eti",
                "lo",
                "lp"
            ]
        );
    }

    #[test]
    fn other_bits_are_found_when_there_are_any() {
        assert_eq!(other_bits(0x0f0, &[0, 0x10]), Some(0x20));
        assert_eq!(other_bits(0x11, &[0, 1, 0x10, 0x11]), None);
    }
}
