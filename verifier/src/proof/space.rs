//! The space of an image's keys, and what conditions become in it.
//!
//! An image makes a key of a packet: some dimensions, each as it is, or as the class of its raw
//! value, or as the rank of a name. What the rules say is a set of *raw* values. In terms of keys
//! that is two sets:
//!
//! - what a rule **must** hold: every key that some packet of the condition has;
//! - what it **may** hold: every key that no other packet has.
//!
//! They are the same unless the image throws packets together that the condition tells apart, which
//! no right image does; or unless its program tells them apart again, which is as good. Keys that no
//! packet has (a class without a value) are in *may* alone.

use hipac_classifier::key::{KEY_BYTES, KeyMaker};
use hipac_classifier::{Dim, Image};
use hipac_rules::Family;

use smallvec::SmallVec;

use super::boxes::{self, Bounds, Boxes};
use super::condition::{self, All, Condition, Raw, Wants};
use super::members::Members;
use super::names::Names;
use super::ranges::Ranges;

/// Boxes that one condition may become.
const BOXES_MAX: usize = 1 << 14;

/// One dimension of the key.
#[derive(Debug, Clone)]
pub(super) struct Axis {
    pub(super) dim: Dim,
    /// Byte offset in the key.
    pub(super) offset: usize,
    /// Bytes, 2 or 4.
    pub(super) bytes: usize,
    /// The largest value of a key.
    pub(super) max: u32,
    kind: Kind,
    /// The values that packets have.
    possible: Ranges,
}

#[derive(Debug, Clone)]
enum Kind {
    Same,
    /// The class of each raw value.
    Classes(Box<[u32]>),
    /// The rank of each cell of names.
    Ranks,
}

#[derive(Debug, Clone)]
pub(super) struct Space {
    pub(super) family: Family,
    pub(super) names: Names,
    pub(super) members: Members,
    pub(super) axes: Vec<Axis>,
    axis_of: [Option<u8>; Dim::COUNT],
    /// What each byte of a key holds: an axis, and which byte of its value.
    key_bytes: [Option<(u8, u8)>; KEY_BYTES],
}

/// Boxes that a condition becomes before what a program checks is taken at its hull.
const FEW_BOXES: usize = 256;

/// What a condition becomes.
#[derive(Debug, Default)]
pub(super) struct Expanded {
    pub(super) must: std::ops::Range<usize>,
    pub(super) may: std::ops::Range<usize>,
    /// The image cannot tell for which packets the rule holds: `may` is empty.
    pub(super) is_blind: bool,
    /// States of the transport header that it holds for, a bit each, where the key does not say.
    pub(super) states: u8,
}

/// All states of the transport header.
pub(super) const ALL_STATES: u8 = 0x7f;

/// A condition becomes more boxes than can be looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct TooManyBoxes;

/// A part of a condition on several axes: one of these boxes.
type Part = Vec<Vec<(usize, (u32, u32))>>;

impl Axis {
    /// Keys are the raw values.
    pub(super) fn is_same(&self) -> bool {
        matches!(self.kind, Kind::Same)
    }
}

impl Space {
    /// The space of an image; `None` when its keys make no sense.
    pub(super) fn new<B: AsRef<[u8]>>(
        image: &Image<B>,
        names: Names,
        members: Members,
        family: Family,
    ) -> Option<Space> {
        let keys = image.key_maker();
        let mut space = Space {
            family,
            names,
            members,
            axes: vec![],
            axis_of: [None; Dim::COUNT],
            key_bytes: [None; KEY_BYTES],
        };
        for slot in keys.slots() {
            let axis = space.axis(slot.dim, slot.offset.into(), slot.recode, &keys)?;
            let number = u8::try_from(space.axes.len()).ok()?;
            for byte in 0..axis.bytes {
                let place = space.key_bytes.get_mut(axis.offset + byte)?;
                if place.replace((number, byte as u8)).is_some() {
                    return None;
                }
            }
            if space.axis_of[slot.dim.index()].replace(number).is_some() {
                return None;
            }
            space.axes.push(axis);
        }
        Some(space)
    }

    fn axis(&self, dim: Dim, offset: usize, recode: Option<u8>, keys: &KeyMaker<'_>) -> Option<Axis> {
        let raw_max = self.raw().max(dim);
        let is_name =
            matches!(dim, Dim::InInterface | Dim::OutInterface | Dim::PhysIn | Dim::PhysOut | Dim::Helper);
        let (kind, max) = match recode {
            // Tables are for dimensions of few values whose order means nothing; and states of the
            // header say which root is asked.
            Some(_) if is_name || raw_max > 0xff || dim == Dim::L4 => return None,
            Some(table) => {
                let classes: Box<[u32]> = (0..=raw_max).map(|x| keys.class(table, x)).collect();
                let max = classes.iter().copied().max().unwrap_or(0);
                (Kind::Classes(classes), max)
            }
            _ if is_name => (Kind::Ranks, (0..=raw_max).map(|c| self.names.rank(c)).max().unwrap_or(0)),
            _ => (Kind::Same, raw_max),
        };
        let mut axis = Axis { dim, offset, bytes: dim.key_bytes(), max, kind, possible: Ranges::all(max) };
        if let Dim::MacHigh = dim {
            axis.possible = Ranges::of([(0, 0), (1 << 24, max)]);
        } else if max <= 0xffff && !matches!(axis.kind, Kind::Same) || dim == Dim::CtState || dim.is_set() {
            let key = |x| self.key_value(&axis, x);
            let keys = (0..=raw_max).filter(|&x| self.is_possible(dim, x)).map(key).map(|k| (k, k));
            axis.possible = Ranges::of(keys);
        }
        Some(axis)
    }

    fn key_value(&self, axis: &Axis, raw: u32) -> u32 {
        match &axis.kind {
            Kind::Same => raw,
            Kind::Classes(classes) => classes.get(raw as usize).copied().unwrap_or(0),
            Kind::Ranks => self.names.rank(raw),
        }
    }

    /// Raises the lower ends of a piece to values that packets have; false when there are none.
    pub(super) fn trim(&self, piece: &mut Bounds) -> bool {
        for (axis, interval) in self.axes.iter().zip(piece.iter_mut()) {
            let Some(next) = axis.possible.first_from(interval.0) else { return false };
            interval.0 = next;
            if interval.0 > interval.1 {
                return false;
            }
        }
        // Without an Ethernet header there is no address.
        if let (Some(high), Some(low)) = (self.axis_of(Dim::MacHigh), self.axis_of(Dim::MacLow))
            && piece[high].0 == 0
            && piece[low].0 > 0
        {
            piece[high].0 = 1 << 24;
            return piece[high].0 <= piece[high].1;
        }
        true
    }

    pub(super) fn raw(&self) -> Raw<'_> {
        Raw { family: self.family, names: &self.names, members: &self.members }
    }

    pub(super) fn axis_of(&self, dim: Dim) -> Option<usize> {
        self.axis_of[dim.index()].map(usize::from)
    }

    /// The axis of a byte of the key, and which byte of its value it is.
    pub(super) fn key_byte(&self, offset: usize) -> Option<(usize, usize)> {
        self.key_bytes.get(offset).copied().flatten().map(|(axis, byte)| (axis.into(), byte.into()))
    }

    /// All keys.
    pub(super) fn everything(&self) -> Vec<(u32, u32)> {
        self.axes.iter().map(|a| (0, a.max)).collect()
    }

    /// The raw values that have a value of the key, a few where there are many.
    pub(super) fn raw_values(&self, axis: &Axis, value: u32) -> Vec<u32> {
        let possible = |x: &u32| self.is_possible(axis.dim, *x);
        match &axis.kind {
            Kind::Same => Some(value).filter(possible).into_iter().collect(),
            Kind::Classes(classes) => {
                (0..classes.len() as u32).filter(|&x| classes[x as usize] == value).filter(possible).collect()
            }
            Kind::Ranks => {
                let cells = (0..=self.names.max()).filter(|&c| self.names.rank(c) == value).filter(possible);
                cells.take(256).collect()
            }
        }
    }

    /// A packet can have this raw value.
    pub(super) fn is_possible(&self, dim: Dim, raw: u32) -> bool {
        match dim {
            Dim::InInterface | Dim::OutInterface | Dim::PhysIn | Dim::PhysOut | Dim::Helper => {
                self.names.sample(raw).is_some()
            }
            Dim::CtState => raw & 7 <= 4 && raw <= 31,
            Dim::MacHigh => raw == 0 || raw >> 24 == 1,
            _ if dim.is_set() => self.members.is_possible(dim, raw),
            _ => raw <= dim.max(),
        }
    }

    /// Bits of the packets' fields that the key or a set looks at; `bits_of` says how many a dimension has.
    pub(super) fn header_bits(&self, bits_of: impl Fn(Dim) -> u32) -> u32 {
        let mut dims: Vec<Dim> = self.axes.iter().map(|a| a.dim).filter(|d| !d.is_set()).collect();
        for column in self.members.columns() {
            dims.extend(condition::dims_of(column, self.family));
        }
        dims.sort_unstable();
        dims.dedup();
        dims.into_iter().map(bits_of).sum()
    }

    /// Keys with one of these raw values, and keys with none but these.
    pub(super) fn keys_of(&self, axis: &Axis, set: &Ranges) -> (Ranges, Ranges) {
        if set.is_all(self.raw().max(axis.dim)) {
            let all = Ranges::all(axis.max);
            return (all.clone(), all);
        }
        let (count, key): (u32, &dyn Fn(u32) -> u32) = match &axis.kind {
            Kind::Same => return (set.clone(), set.clone()),
            Kind::Classes(classes) => (classes.len() as u32, &|x| classes[x as usize]),
            Kind::Ranks => (self.names.max() + 1, &|cell| self.names.rank(cell)),
        };
        let of = |values: &mut dyn Iterator<Item = u32>| Ranges::of(values.map(key).map(|k| (k, k)));
        let (mut inside, mut outside): (Vec<u32>, Vec<u32>) = (0..count).partition(|&x| set.contains(x));
        // Of values that no packet has, only those count that stand alone in their key.
        let all = of(&mut (0..count).filter(|&x| self.is_possible(axis.dim, x)));
        let is_real = |x: &u32| self.is_possible(axis.dim, *x) || !all.contains(key(*x));
        inside.retain(is_real);
        outside.retain(|x| self.is_possible(axis.dim, *x));
        (of(&mut inside.into_iter()), of(&mut outside.into_iter()).not(axis.max))
    }

    /// The same for the most of rules: those of which each dimension is in the key and holds one range of it.
    fn one_box(&self, condition: &Condition, program: &Condition, into: &mut Boxes) -> Option<Expanded> {
        if !program.is_all() || !condition.clauses().is_empty() {
            return None;
        }
        let mut bounds: SmallVec<[(u32, u32); 24]> = self.axes.iter().map(|a| (0, a.max)).collect();
        let mut states = ALL_STATES;
        for (dim, set) in condition.sets() {
            let Some(axis) = self.axis_of(*dim) else {
                if *dim != Dim::L4 {
                    return None;
                }
                states = (0..7).filter(|&s| set.contains(s)).map(|s| 1 << s).sum();
                continue;
            };
            bounds[axis] = match (&self.axes[axis].kind, set.as_slice()) {
                (Kind::Same, &[range]) => range,
                (Kind::Same, _) => return None,
                _ => {
                    let (holds, only) = self.keys_of(&self.axes[axis], set);
                    let &[range] = holds.as_slice() else { return None };
                    (holds == only).then_some(range)?
                }
            };
        }
        let first = into.len();
        into.push(&bounds);
        let only = first..into.len();
        Some(Expanded { must: only.clone(), may: only, is_blind: false, states })
    }

    /// What must and may be stored for a rule of this condition whose program begins with the
    /// clauses of `program`, which the condition implies.
    pub(super) fn expand(
        &self,
        condition: &Condition,
        program: &Condition,
        into: &mut Boxes,
    ) -> Result<Expanded, TooManyBoxes> {
        if let Some(expanded) = self.one_box(condition, program, into) {
            return Ok(expanded);
        }
        let mut expanded = Expanded { states: ALL_STATES, ..Expanded::default() };
        let (mut must, mut may): (Vec<Part>, Vec<Part>) = (vec![], vec![]);
        let mut hulls: Vec<(usize, Part)> = vec![];
        let mut is_same = true;
        for (dim, set) in condition.sets() {
            let checked = program.set(*dim);
            let allowed = match checked {
                Some(checked) => set.or(&checked.not(self.raw().max(*dim))),
                None => set.clone(),
            };
            let Some(axis) = self.axis_of(*dim) else {
                if *dim == Dim::L4 && checked.is_none() {
                    expanded.states = (0..7).filter(|&s| set.contains(s)).map(|s| 1 << s).sum();
                } else if !allowed.is_all(self.raw().max(*dim)) {
                    expanded.is_blind = true;
                }
                continue;
            };
            let (holds, _) = self.keys_of(&self.axes[axis], set);
            let (_, only) = self.keys_of(&self.axes[axis], &allowed);
            is_same &= holds == only;
            if checked.is_some() {
                hulls.push((must.len(), on_axis(axis, &holds.hull())));
            }
            must.push(on_axis(axis, &holds));
            may.push(on_axis(axis, &only));
        }
        for clause in condition.clauses() {
            if program.clauses().iter().any(|c| are_same(c, clause)) {
                // Stored, or left to the program: both are right.
                is_same = false;
                let hull = self.hull(clause);
                match self.part_of(clause) {
                    Some((holds, _)) => {
                        hulls.push((must.len(), hull));
                        must.push(holds);
                    }
                    None => must.push(hull),
                }
                continue;
            }
            match self.part_of(clause) {
                Some((holds, only)) => {
                    is_same &= holds == only;
                    must.push(holds);
                    may.push(only);
                }
                None => expanded.is_blind = true,
            }
        }
        // What the program checks may stand for more than it holds for, where that is fewer boxes.
        let count = |parts: &[Part]| parts.iter().fold(1usize, |n, part| n.saturating_mul(part.len()));
        for (at, hull) in hulls {
            if count(&must) > FEW_BOXES {
                is_same = false;
                must[at] = hull;
            }
        }
        expanded.must = self.product(&must, into)?;
        expanded.may = match (expanded.is_blind, is_same) {
            (true, _) => 0..0,
            (_, true) => expanded.must.clone(),
            _ => self.product(&may, into)?,
        };
        Ok(expanded)
    }

    /// A clause on axes; `None` when the key does not have all of it.
    fn part_of(&self, clause: &[All]) -> Option<(Part, Part)> {
        let (mut must, mut may) = (vec![], vec![]);
        for part in clause {
            let (mut holds, mut only) = (vec![vec![]], vec![vec![]]);
            for (dim, wants) in part {
                let Wants::In(set) = wants else { return None };
                let axis = self.axis_of(*dim)?;
                let (h, o) = self.keys_of(&self.axes[axis], set);
                holds = with(&holds, axis, &h);
                only = with(&only, axis, &o);
            }
            must.extend(holds);
            may.extend(only);
        }
        Some((must, may))
    }

    /// A box around a clause: from the smallest value to the largest on each axis.
    fn hull(&self, clause: &[All]) -> Part {
        let mut out = Vec::new();
        for (axis, a) in self.axes.iter().enumerate() {
            let of_part = |part: &All| {
                part.iter().find(|(dim, _)| *dim == a.dim).map(|(_, wants)| match wants {
                    Wants::In(set) => self.keys_of(a, set).0.hull(),
                    Wants::Masked { value, mask, negated: false } => {
                        Ranges::one(*value, value | (!mask & a.max))
                    }
                    Wants::Masked { .. } => Ranges::all(a.max),
                })
            };
            let all: Option<Vec<Ranges>> = clause.iter().map(of_part).collect();
            if let Some(all) = all
                && let Some(&range) =
                    all.iter().fold(Ranges::none(), |u, r| u.or(r)).hull().as_slice().first()
            {
                out.push((axis, range));
            }
        }
        vec![out]
    }

    /// All boxes of a product of parts.
    fn product(&self, parts: &[Part], into: &mut Boxes) -> Result<std::ops::Range<usize>, TooManyBoxes> {
        let count = parts.iter().fold(1usize, |n, part| n.saturating_mul(part.len()));
        if count > BOXES_MAX {
            return Err(TooManyBoxes);
        }
        let first = into.len();
        let everything = self.everything();
        let mut bounds = everything.clone();
        for number in 0..count {
            bounds.copy_from_slice(&everything);
            let mut rest = number;
            let mut is_empty = false;
            for part in parts {
                for &(axis, interval) in &part[rest % part.len()] {
                    is_empty |= !boxes::narrow(&mut bounds[axis..=axis], &[interval]);
                }
                rest /= part.len();
            }
            if !is_empty {
                into.push(&bounds);
            }
        }
        Ok(first..into.len())
    }

    /// Every packet of `condition` satisfies `program`: on each dimension, and by clauses that are
    /// its own.
    pub(super) fn implies(&self, condition: &Condition, program: &Condition) -> bool {
        let sets = program.sets().iter().all(|(dim, set)| {
            condition.set(*dim).is_some_and(|own| own.is_within(set)) || set.is_all(self.raw().max(*dim))
        });
        sets && program.clauses().iter().all(|c| condition.clauses().iter().any(|own| are_same(own, c)))
    }

    /// The two hold for the same packets, as far as can be seen dimension by dimension.
    pub(super) fn are_equal(&self, a: &Condition, b: &Condition) -> bool {
        a.is_none() && b.is_none() || self.implies(a, b) && self.implies(b, a)
    }
}

fn on_axis(axis: usize, set: &Ranges) -> Part {
    set.as_slice().iter().map(|&range| vec![(axis, range)]).collect()
}

fn with(part: &Part, axis: usize, set: &Ranges) -> Part {
    let each = part.iter().flat_map(|one| {
        set.as_slice().iter().map(move |&range| one.iter().copied().chain([(axis, range)]).collect())
    });
    each.collect()
}

/// Two clauses hold for the same values.
fn are_same(a: &[All], b: &[All]) -> bool {
    a == b || is_within(a, b) && is_within(b, a)
}

/// Every part of `a` lies in the union of the parts of `b`. Masks are taken word by word.
fn is_within(a: &[All], b: &[All]) -> bool {
    let mut dims: Vec<Dim> = a.iter().chain(b).flatten().map(|(dim, _)| *dim).collect();
    dims.sort_unstable();
    dims.dedup();
    let (Some(a), Some(b)) = (raw_boxes(a, &dims), raw_boxes(b, &dims)) else { return false };
    a.range(0..a.len()).all(|piece| boxes::outside(piece, b.range(0..b.len())).is_none())
}

/// The parts of a clause as boxes over some dimensions; `None` where a part is a mask.
fn raw_boxes(clause: &[All], dims: &[Dim]) -> Option<Boxes> {
    let mut out = Boxes::new(dims.len());
    for part in clause {
        let mut parts: Part = vec![vec![]];
        for (dim, wants) in part {
            let Wants::In(set) = wants else { return None };
            parts = with(&parts, dims.binary_search(dim).ok()?, set);
        }
        for one in parts {
            let mut bounds = vec![(0, u32::MAX); dims.len()];
            one.into_iter().for_each(|(axis, range)| bounds[axis] = range);
            out.push(&bounds);
        }
    }
    Some(out)
}
