//! What a test says about a region: that it holds for all of it, or for none. When it is neither, the
//! region must be cut.

use std::collections::BTreeMap;

use hipac_classifier::program::{DimTest, Wanted};
use hipac_classifier::{Dim, Image, InterfaceName};
use hipac_rules::{Clause, Family, Field, Test, ValueSet};

use crate::fields::{INTERFACES, NUMBERS, dims};

/// What a region leaves of an axis: a range, and of that the values with some known bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) lo: u32,
    pub(crate) hi: u32,
    pub(crate) mask: u32,
    pub(crate) bits: u32,
}

impl Piece {
    /// The bits that all of it has alike, and what they are.
    pub(crate) fn known(self) -> (u32, u32) {
        (self.mask | self.alike(), self.bits | self.lo & self.alike())
    }

    /// The bits that the ends of its range begin with alike.
    fn alike(self) -> u32 {
        !u32::MAX.checked_shr((self.lo ^ self.hi).leading_zeros()).unwrap_or(0)
    }

    /// Its values would have to have a bit both ways.
    pub(crate) fn is_empty(self) -> bool {
        (self.lo ^ self.bits) & self.alike() & self.mask != 0
    }

    pub(crate) fn has(self, x: u32) -> bool {
        self.lo <= x && x <= self.hi && x & self.mask == self.bits
    }
}

/// A piece of each axis.
pub(crate) type Region = Vec<Piece>;

/// An axis: a dimension, by its number; behind them all, the classes that keys have of some.
pub(crate) struct Axis {
    pub(crate) dim: Dim,
    pub(crate) all: Piece,
    /// The axis of what keys hold of it: another when they hold classes.
    pub(crate) key: usize,
    /// Where it counts which values there are: each, and what keys hold.
    pub(crate) few: Vec<(u32, u32)>,
}

pub(crate) struct Space {
    pub(crate) axes: Vec<Axis>,
    /// The axes of a field, the most significant first.
    fields: BTreeMap<Field, Vec<usize>>,
    /// Axis of each byte of the key, and which byte of its value.
    pub(crate) bytes: BTreeMap<usize, (usize, u32)>,
    /// Where ranks of interface names begin.
    names: Vec<u128>,
}

impl Space {
    pub(crate) fn new<B: AsRef<[u8]>>(image: &Image<B>, family: Family) -> Space {
        let keys = image.key_maker();
        let names: Vec<u128> = (0..keys.ranks().count()).map(|i| keys.ranks().bound(i)).collect();
        // Every name is at or above the least one that there can be; a connection has one of five states.
        let (lowest, ranks) = (u32::from(names.first() == Some(&0)), names.len() as u32);
        let few = |dim: Dim| (0..=dim.max()).filter(move |x| dim != Dim::CtState || x & 7 < 5);
        let axis = |dim: Dim, key: usize| {
            let (lo, hi) = if is_name(dim) { (lowest, ranks) } else { (0, dim.max()) };
            let states = few(dim).take_while(|_| dim == Dim::CtState).map(|x| (x, x));
            Axis { dim, all: Piece { lo, hi, mask: 0, bits: 0 }, key, few: states.collect() }
        };
        let mut axes: Vec<Axis> = Dim::ALL.into_iter().map(|dim| axis(dim, dim.index())).collect();
        let mut bytes = BTreeMap::new();
        for slot in keys.slots() {
            if let Some(table) = slot.recode {
                let few: Vec<(u32, u32)> = few(slot.dim).map(|x| (x, keys.class(table, x))).collect();
                let all = Piece { lo: 0, hi: few.iter().map(|f| f.1).max().unwrap_or(0), mask: 0, bits: 0 };
                let key = axes.len();
                axes.push(Axis { dim: slot.dim, all, key, few: vec![] });
                (axes[slot.dim.index()].key, axes[slot.dim.index()].few) = (key, few);
            }
            let key = axes[slot.dim.index()].key;
            bytes.extend((0..slot.dim.key_bytes()).map(|i| (usize::from(slot.offset) + i, (key, i as u32))));
        }
        let of = |field| (field, dims(field, family).into_iter().map(Dim::index).collect());
        let fields = NUMBERS.into_iter().chain(INTERFACES).map(of).collect();
        Space { axes, fields, bytes, names }
    }

    pub(crate) fn axes_of(&self, field: Field) -> &[usize] {
        self.fields.get(&field).map_or(&[], |axes| axes)
    }

    /// All of the rules' clause holds for all of a region; none of it for any.
    pub(crate) fn is_inside(&self, clause: &Clause, region: &Region) -> bool {
        clause.iter().any(|test| self.of_rule(test, region).0)
    }

    pub(crate) fn is_outside(&self, clause: &Clause, region: &Region) -> bool {
        clause.iter().all(|test| self.of_rule(test, region).1)
    }

    fn of_rule(&self, test: &Test, region: &Region) -> (bool, bool) {
        self.test(self.axes_of(test.field), &test.set, test.negated, region)
    }

    /// The same of a program's test, which looks at one dimension, and of names at their ranks.
    pub(crate) fn of_program(&self, test: &DimTest, region: &Region) -> (bool, bool) {
        self.test(&[test.dim.index()], &set_of(test), test.negated, region)
    }

    /// The number on some axes is in a set, or is not: for all of a region, for none of it.
    pub(crate) fn test(
        &self,
        axes: &[usize],
        set: &ValueSet,
        negated: bool,
        region: &Region,
    ) -> (bool, bool) {
        let turn = |(all, none): (bool, bool)| if negated { (none, all) } else { (all, none) };
        let few = if let [axis] = *axes { &*self.axes[axis].few } else { &[] };
        if !few.is_empty() {
            let (values, keys) = (region[axes[0]], region[self.axes[axes[0]].key]);
            let there = few.iter().filter(|(x, key)| values.has(*x) && keys.has(*key));
            let one = |x: u32| decide(set, (x.into(), x.into()), (u128::MAX, x.into()), 0xff);
            let all = there.map(|&(x, _)| one(x));
            return turn(all.fold((true, true), |(all, none), (holds, fails)| (all && holds, none && fails)));
        }
        let (mut lo, mut hi, mut known, mut bits, mut full) = (0, 0, u128::MAX, 0, 0);
        for &axis in axes {
            let (piece, width) = (region[axis], 32 - self.axes[axis].dim.max().leading_zeros());
            let put = |to: u128, x: u32| to << width | u128::from(x) & ((1 << width) - 1);
            (lo, hi, full) = (put(lo, piece.lo), put(hi, piece.hi), put(full, u32::MAX));
            (known, bits) = (put(known, piece.known().0), put(bits, piece.known().1));
        }
        if let ValueSet::Interface { .. } = set {
            // The names of the ranks.
            let begin = |rank: u128| self.names.get(rank as usize).copied();
            lo = lo.checked_sub(1).map_or(0, |before| begin(before).unwrap_or(u128::MAX));
            hi = begin(hi).map_or(u128::MAX, |next| next.saturating_sub(1));
        }
        if axes.is_empty() { (false, false) } else { turn(decide(set, (lo, hi), (known, bits), full)) }
    }
}

/// The values that a program's test wants.
pub(crate) fn set_of(test: &DimTest) -> ValueSet {
    match test.wanted {
        Wanted::Range(lo, hi) => ValueSet::Ranges(vec![(lo.into(), hi.into())]),
        Wanted::Masked { value, mask } => ValueSet::Masked { value: value.into(), mask: mask.into() },
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
        ValueSet::Masked { value, mask: m } if !m & full & (!m & full).wrapping_add(1) == 0 => {
            within(&[(value, value | !m & full)])
        }
        ValueSet::Masked { value, mask } => {
            (mask & !known == 0 && bits & mask == value, (bits ^ value) & mask & known != 0)
        }
        ValueSet::Interface { ref name, prefix } => {
            let Some(first) = InterfaceName::new(name).map(|n| n.as_number()) else { return (false, true) };
            let free = u128::MAX.checked_shr(8 * name.len() as u32).filter(|_| prefix);
            within(&[(first, first | free.unwrap_or(0))])
        }
        // Sets are not followed: what hangs on one has no certificate.
        ValueSet::Member(_) => (false, false),
    }
}

pub(crate) fn is_name(dim: Dim) -> bool {
    matches!(dim, Dim::InInterface | Dim::OutInterface | Dim::PhysIn | Dim::PhysOut | Dim::Helper)
}
