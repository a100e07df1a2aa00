//! What a test says about a region: that it holds for all of it, or for none. When it is neither, the
//! region must be cut.

use std::collections::BTreeMap;

use hipac_classifier::program::{DimTest, Wanted};
use hipac_classifier::{Dim, Image, InterfaceName};
use hipac_rules::{Clause, Family, Field, Test, ValueSet};

use crate::fields::{INTERFACES, NUMBERS};

/// What a region leaves of an axis: a range, and of that the values with some known bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::certificate) struct Piece {
    pub(in crate::certificate) lo: u32,
    pub(in crate::certificate) hi: u32,
    pub(in crate::certificate) mask: u32,
    pub(in crate::certificate) bits: u32,
}

impl Piece {
    /// The bits that all of it has alike, and what they are.
    pub(in crate::certificate) fn known(self) -> (u32, u32) {
        (self.mask | self.alike(), self.bits | self.lo & self.alike())
    }

    /// The bits that the ends of its range begin with alike.
    fn alike(self) -> u32 {
        !u32::MAX.checked_shr((self.lo ^ self.hi).leading_zeros()).unwrap_or(0)
    }

    /// Its values would have to have a bit both ways.
    pub(in crate::certificate) fn is_empty(self) -> bool {
        (self.lo ^ self.bits) & self.alike() & self.mask != 0
    }

    pub(in crate::certificate) fn has(self, x: u32) -> bool {
        self.lo <= x && x <= self.hi && x & self.mask == self.bits
    }
}

/// A piece of each axis.
pub(in crate::certificate) type Region = Vec<Piece>;

/// An axis: a dimension, by its number; behind them all, the classes that keys have of some.
pub(in crate::certificate) struct Axis {
    pub(in crate::certificate) dim: Dim,
    pub(in crate::certificate) all: Piece,
    /// The axis of what keys hold of it: another when they hold classes.
    pub(in crate::certificate) key: usize,
    /// Where it counts which values there are: each, and what keys hold.
    pub(in crate::certificate) few: Vec<(u32, u32)>,
}

pub(in crate::certificate) struct Space {
    pub(in crate::certificate) axes: Vec<Axis>,
    /// The axes of a field, the most significant first.
    fields: BTreeMap<Field, Vec<usize>>,
    /// Axis of each byte of the key, and which byte of its value.
    pub(super) bytes: BTreeMap<usize, (usize, u32)>,
    /// Where ranks of interface names begin.
    names: Vec<u128>,
}

impl Space {
    pub(super) fn new<B: AsRef<[u8]>>(image: &Image<B>, family: Family) -> Space {
        let keys = image.key_maker();
        let names: Vec<u128> = (0..keys.ranks().count()).map(|i| keys.ranks().bound(i)).collect();
        let axis = |dim: Dim, key: usize| {
            let (lo, hi) = match is_name(dim) {
                // Every name is at or above the least one that there can be.
                true => (u32::from(names.first() == Some(&0)), names.len() as u32),
                false => (0, dim.max()),
            };
            // A connection has one of five states.
            let few = if dim == Dim::CtState {
                (0..32).filter(|x| x & 7 < 5).map(|x| (x, x)).collect()
            } else {
                vec![]
            };
            Axis { dim, all: Piece { lo, hi, mask: 0, bits: 0 }, key, few }
        };
        let mut axes: Vec<Axis> = Dim::ALL.into_iter().map(|dim| axis(dim, dim.index())).collect();
        let mut bytes = BTreeMap::new();
        for slot in keys.slots() {
            if let Some(table) = slot.recode {
                let values = (0..=slot.dim.max()).filter(|x| slot.dim != Dim::CtState || x & 7 < 5);
                let few: Vec<(u32, u32)> = values.map(|x| (x, keys.class(table, x))).collect();
                let classes =
                    Piece { lo: 0, hi: few.iter().map(|f| f.1).max().unwrap_or(0), mask: 0, bits: 0 };
                let key = axes.len();
                axes.push(Axis { all: classes, few: vec![], ..axis(slot.dim, key) });
                axes[slot.dim.index()] = Axis { few, ..axis(slot.dim, key) };
            }
            let key = axes[slot.dim.index()].key;
            bytes.extend((0..slot.dim.key_bytes()).map(|i| (usize::from(slot.offset) + i, (key, i as u32))));
        }
        // The dimensions of a field have its name.
        let of = |field: Field| {
            let is_of = |dim: &Dim| dim.name().split('[').next() == Some(field.name());
            let mut dims: Vec<usize> = Dim::ALL.into_iter().filter(is_of).map(Dim::index).collect();
            if matches!(field, Field::Source | Field::Destination) {
                dims.truncate(if family == Family::V6 { 4 } else { 1 });
                dims.reverse();
            }
            (field, dims)
        };
        let fields = NUMBERS.into_iter().chain(INTERFACES).map(of).collect();
        Space { axes, fields, bytes, names }
    }

    pub(in crate::certificate) fn axes_of(&self, field: Field) -> &[usize] {
        self.fields.get(&field).map_or(&[], |axes| axes)
    }

    /// All of the rules' clause holds for all of a region; none of it for any.
    pub(in crate::certificate) fn is_inside(&self, clause: &Clause, region: &Region) -> bool {
        clause.iter().any(|test| self.of_rule(test, region).0)
    }

    pub(in crate::certificate) fn is_outside(&self, clause: &Clause, region: &Region) -> bool {
        clause.iter().all(|test| self.of_rule(test, region).1)
    }

    fn of_rule(&self, test: &Test, region: &Region) -> (bool, bool) {
        let (all, none) = self.test(self.axes_of(test.field), &test.set, region);
        if test.negated { (none, all) } else { (all, none) }
    }

    /// The same of a program's test, which looks at one dimension, and of names at their ranks.
    pub(in crate::certificate) fn of_program(&self, test: &DimTest, region: &Region) -> (bool, bool) {
        let set = match test.wanted {
            Wanted::Range(lo, hi) => ValueSet::Ranges(vec![(lo.into(), hi.into())]),
            Wanted::Masked { value, mask } => ValueSet::Masked { value: value.into(), mask: mask.into() },
        };
        let (all, none) = self.test(&[test.dim.index()], &set, region);
        if test.negated { (none, all) } else { (all, none) }
    }

    /// The number on some axes is in a set: for all of a region, for none of it.
    pub(in crate::certificate) fn test(
        &self,
        axes: &[usize],
        set: &ValueSet,
        region: &Region,
    ) -> (bool, bool) {
        if let [axis] = *axes
            && let Axis { few, key, .. } = &self.axes[axis]
            && !few.is_empty()
        {
            let there = few.iter().filter(|(x, k)| region[axis].has(*x) && region[*key].has(*k));
            return there.fold((true, true), |(all, none), &(x, _)| {
                let (holds, fails) = decide(set, (x.into(), x.into()), (u128::MAX, x.into()), 0xff);
                (all && holds, none && fails)
            });
        }
        let (mut lo, mut hi, mut known, mut bits, mut full) = (0, 0, u128::MAX, 0, 0);
        for &axis in axes {
            let width = 32 - self.axes[axis].dim.max().leading_zeros();
            let (mask, value) = region[axis].known();
            let put = |to: &mut u128, x: u32| *to = *to << width | u128::from(x) & ((1 << width) - 1);
            put(&mut lo, region[axis].lo);
            put(&mut hi, region[axis].hi);
            put(&mut known, mask);
            put(&mut bits, value);
            put(&mut full, u32::MAX);
        }
        if let ValueSet::Interface { .. } = set {
            // The names of the ranks.
            let begin = |rank: u128| self.names.get(rank as usize).copied();
            lo = lo.checked_sub(1).map_or(0, |before| begin(before).unwrap_or(u128::MAX));
            hi = begin(hi).map_or(u128::MAX, |next| next.saturating_sub(1));
        }
        if axes.is_empty() { (false, false) } else { decide(set, (lo, hi), (known, bits), full) }
    }
}

/// A set holds all numbers of a range with some known bits, or none; `full` are the bits that they have.
fn decide(set: &ValueSet, (lo, hi): (u128, u128), (known, bits): (u128, u128), full: u128) -> (bool, bool) {
    let within = |ranges: &[(u128, u128)]| {
        (ranges.iter().any(|r| r.0 <= lo && hi <= r.1), ranges.iter().all(|r| r.1 < lo || hi < r.0))
    };
    match *set {
        ValueSet::Ranges(ref ranges) => within(ranges),
        ValueSet::Masked { value, mask } if value & !mask != 0 => (false, true),
        // A prefix.
        ValueSet::Masked { value, mask } if !mask & full & (!mask & full).wrapping_add(1) == 0 => {
            within(&[(value, value | !mask & full)])
        }
        ValueSet::Masked { value, mask } => {
            (mask & !known == 0 && bits & mask == value, (bits ^ value) & mask & known != 0)
        }
        ValueSet::Interface { ref name, prefix } => match InterfaceName::new(name).map(|n| n.as_number()) {
            Some(n) if prefix => {
                within(&[(n, n | u128::MAX.checked_shr(8 * name.len() as u32).unwrap_or(0))])
            }
            Some(n) => within(&[(n, n)]),
            None => (false, true), // no interface is called so
        },
        // Sets are not followed: what hangs on one has no certificate.
        ValueSet::Member(_) => (false, false),
    }
}

pub(in crate::certificate) fn is_name(dim: Dim) -> bool {
    matches!(dim, Dim::InInterface | Dim::OutInterface | Dim::PhysIn | Dim::PhysOut)
}
