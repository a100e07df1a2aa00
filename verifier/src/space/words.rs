//! Boxes for people: many small regions become few large ones, in the words of rules.
//!
//! ```text
//!   in eth0 tcp 10.0.0.0/8 → 192.168.5.0/24:5000-5010 ctstate NEW
//! ```
//!
//! A [`Shape`] is a product of *sets*, so that `80,443` is one box. Shapes that differ on one axis only become
//! one, again and again, until none do.

use std::collections::HashMap;
use std::fmt::Write;

use hipac_rules::{Family, Field};

use super::axis::{Atoms, Axis, AxisKey};
use super::set::Set;
use super::{Region, Space};
use crate::field_text::{self, Ports};

/// A product of sets, one for each axis.
pub(crate) type Shape = Vec<Set>;

/// How many passes over all axes [`merge`] makes at most.
const PASSES_MAX: usize = 16;

/// The shape of a region.
pub(crate) fn shape(region: &Region) -> Shape {
    region.iter().map(|&interval| Set::new(vec![interval])).collect()
}

/// Joins disjoint shapes that differ on one axis only. Costs shapes × axes, a few times.
pub(crate) fn merge(mut shapes: Vec<Shape>) -> Vec<Shape> {
    let axes = shapes.first().map_or(0, Vec::len);
    for _ in 0..PASSES_MAX {
        let before = shapes.len();
        for axis in 0..axes {
            let mut by_rest: HashMap<Shape, usize> = HashMap::with_capacity(shapes.len());
            let mut joined: Vec<Shape> = Vec::with_capacity(shapes.len());
            for mut shape in shapes {
                let own = std::mem::replace(&mut shape[axis], Set::new(vec![]));
                let at = *by_rest.entry(shape).or_insert_with_key(|rest| {
                    joined.push(rest.clone());
                    joined.len() - 1
                });
                joined[at][axis] = joined[at][axis].union(&own);
            }
            shapes = joined;
        }
        if shapes.len() == before {
            break;
        }
    }
    shapes
}

/// Regions collected for one thing to be said of them.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    pub(crate) regions: Vec<Region>,
}

impl Pieces {
    /// The pieces as few shapes, largest first, each with a region of it.
    pub(crate) fn shapes(&self, space: &Space) -> Vec<(Shape, Region)> {
        let merged = merge(self.regions.iter().map(shape).collect());
        let mut shapes: Vec<(Shape, Region)> = merged
            .into_iter()
            .map(|shape| {
                let first = shape.iter().map(|set| set.intervals().first().copied().unwrap_or((0, 0)));
                let region = first.collect();
                (shape, region)
            })
            .collect();
        shapes.sort_by(|a, b| space.bits(&b.0).total_cmp(&space.bits(&a.0)));
        shapes
    }
}

impl Space {
    /// The size of a shape as a power of two of packets.
    pub(crate) fn bits(&self, shape: &Shape) -> f64 {
        let axes = self.axes.iter().zip(shape);
        axes.map(|(axis, set)| {
            let size: f64 = set.intervals().iter().map(|&i| axis.bits_of(i).exp2()).sum();
            size.log2()
        })
        .sum()
    }

    /// The shape in words; `everything` for the whole space.
    pub(crate) fn words(&self, shape: &Shape) -> String {
        let says = |field: Field| {
            let axis = self.field_axis(field)?;
            let set = &shape[usize::from(axis)];
            (set.len() < u64::from(self.axis(axis).len())).then(|| (self.axis(axis), set))
        };
        let ports = self.ports_of(shape);
        let show = |field: Field| says(field).map(|(axis, set)| set_words(self.family, axis, set, ports));
        let mut words: Vec<String> = Vec::new();
        for (field, label) in [(Field::InInterface, "in"), (Field::OutInterface, "out")] {
            words.extend(show(field).map(|w| format!("{label} {w}")));
        }
        words.extend(show(Field::Protocol));
        let port = |field| if ports == Ports::Ports { show(field) } else { None };
        let end = |address: Field, port: Option<String>| match (show(address), port) {
            (None, None) => None,
            (address, port) => {
                let address = address.unwrap_or_else(|| "any".to_owned());
                let address = if self.family == Family::V6 && port.is_some() && address != "any" {
                    format!("[{address}]")
                } else {
                    address
                };
                Some(address + &port.map_or_else(String::new, |p| format!(":{p}")))
            }
        };
        let source = end(Field::Source, port(Field::SourcePort));
        let destination = end(Field::Destination, port(Field::DestinationPort));
        if source.is_some() || destination.is_some() {
            let any = || "any".to_owned();
            words.push(format!("{} → {}", source.unwrap_or_else(any), destination.unwrap_or_else(any)));
        }
        for (id, axis) in self.axes.iter().enumerate() {
            let set = &shape[id];
            if set.len() == u64::from(axis.len()) {
                continue;
            }
            match axis.key {
                AxisKey::Field(
                    Field::InInterface
                    | Field::OutInterface
                    | Field::Protocol
                    | Field::Source
                    | Field::Destination,
                ) => {}
                AxisKey::Field(Field::SourcePort | Field::DestinationPort) if ports == Ports::Ports => {}
                AxisKey::Field(field) => {
                    let label = field_text::label(field, ports);
                    words.push(format!("{label} {}", set_words(self.family, axis, set, ports)));
                }
                AxisKey::Bits(field, mask) => {
                    words.push(format!("{} {}", field.name(), bit_words(axis, set, mask)));
                }
            }
        }
        if words.is_empty() { "everything".to_owned() } else { words.join(" ") }
    }

    /// ICMP, when the shape has no other protocol.
    fn ports_of(&self, shape: &Shape) -> Ports {
        let Some(id) = self.field_axis(Field::Protocol) else { return Ports::Ports };
        let Atoms::Ranges(atoms) = &self.axis(id).atoms else { return Ports::Ports };
        match shape[usize::from(id)].intervals() {
            [(lo, hi)] if lo == hi => match atoms.get(*lo as usize) {
                Some(&(a, b)) if a == b => Ports::of_protocol(self.family, a as u8), // a protocol is a byte
                _ => Ports::Ports,
            },
            _ => Ports::Ports,
        }
    }
}

fn set_words(family: Family, axis: &Axis, set: &Set, ports: Ports) -> String {
    let atoms = set.intervals().iter().flat_map(|&(lo, hi)| lo as usize..=hi as usize);
    match &axis.atoms {
        Atoms::Ranges(ranges) => {
            let mut joined: Vec<(u128, u128)> = Vec::new();
            for &(lo, hi) in set.intervals() {
                let (lo, hi) = (ranges[lo as usize].0, ranges[hi as usize].1);
                match joined.last_mut() {
                    Some(last) if last.1.checked_add(1) == Some(lo) => last.1 = hi,
                    _ => joined.push((lo, hi)),
                }
            }
            field_text::ranges(family, axis.field(), ports, &joined)
        }
        Atoms::Classes(classes) => {
            let mut values: Vec<u128> = atoms.flat_map(|a| classes[a].iter().copied()).collect();
            values.sort_unstable();
            let values: Vec<(u128, u128)> = values.into_iter().map(|x| (x, x)).collect();
            field_text::ranges(family, axis.field(), ports, &values)
        }
        Atoms::Names(names) => {
            let outside = set.complement(axis.len());
            let show = |set: &Set| {
                let words: Vec<String> = set.intervals().iter().map(|&i| name_words(names, i)).collect();
                words.join(",")
            };
            if outside.intervals().len() < set.intervals().len() && !outside.is_empty() {
                format!("!{}", show(&outside))
            } else {
                show(set)
            }
        }
        Atoms::Bits { .. } => String::new(),
    }
}

type Names = [((u128, u128), hipac_classifier::InterfaceName)];

/// `eth0`, `eth+`, `none`, or the names between two.
fn name_words(names: &Names, (lo, hi): (u32, u32)) -> String {
    let (first, last) = (&names[lo as usize], &names[hi as usize]);
    let (from, to) = (first.0.0, last.0.1);
    if to == 0 {
        return "none".to_owned();
    }
    let name = first.1.to_string();
    if from == to {
        return name;
    }
    // A prefix: the name, and then every byte.
    let end = from.to_be_bytes().iter().rposition(|&b| b != 0).map_or(0, |i| i + 1);
    let free = 8 * (16 - end) as u32; // 16 bytes
    let ones = if free >= 128 { u128::MAX } else { (1u128 << free) - 1 };
    if from & ones == 0 && from | ones == to {
        return format!("{name}+");
    }
    if from <= 1 && to == u128::MAX {
        return if from == 0 { "+".to_owned() } else { "!none".to_owned() };
    }
    match (from, to) {
        (0 | 1, _) => format!("…{}", last.1),
        (_, u128::MAX) => format!("{name}…"),
        _ if lo == hi => format!("like {name}"),
        _ => format!("{name}…{}", last.1),
    }
}

/// `0x1/0xff`, or what it is not.
fn bit_words(axis: &Axis, set: &Set, mask: u32) -> String {
    let Atoms::Bits { values, other } = &axis.atoms else { return String::new() };
    let has_other = other.is_some() && set.contains(axis.len() - 1);
    let shown = if has_other { set.complement(axis.len()) } else { set.clone() };
    let atoms = shown.intervals().iter().flat_map(|&(lo, hi)| lo as usize..=hi as usize);
    let mask = if mask == u32::MAX { String::new() } else { format!("/{mask:#x}") };
    let mut words = if has_other { "!".to_owned() } else { String::new() };
    for (i, value) in atoms.filter_map(|a| values.get(a)).enumerate() {
        let comma = if i > 0 { "," } else { "" };
        let _ = write!(words, "{comma}{value:#x}{mask}");
    }
    words
}
