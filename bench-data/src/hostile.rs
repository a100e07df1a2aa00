//! Filter sets made to hurt: each goes for one thing that a search structure may rely on.
//!
//! | kind | picture | what it denies |
//! |---|---|---|
//! | [`Boxes`](Hostile::Boxes) | wide in every field, all over each other | that filters can be kept apart |
//! | [`Cross`](Hostile::Cross) | half of them rows, half columns: n²/4 crossings | that regions are about as many as filters |
//! | [`Ports`](Hostile::Ports) | a port pair each, any address | that addresses tell filters apart |
//! | [`Nested`](Hostile::Nested) | prefix in prefix in prefix, on both sides | that few filters hold one packet |
//! | [`OneField`](Hostile::OneField) | all differ in one field and nowhere else | that there is a choice of fields |

use std::collections::HashSet;
use std::fmt;

use crate::filter::{Filter, PortRange, Prefix, narrow_first};
use crate::random::Draw;
use crate::text::LINES_MAX;

/// A field of a filter that can take many values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FilterField {
    /// Source prefix.
    Source,
    /// Destination prefix.
    Destination,
    /// Source ports.
    SourcePorts,
    /// Destination ports.
    DestinationPorts,
}

/// A kind of hostile set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hostile {
    /// Wide boxes overlapping at random in all fields.
    Boxes,
    /// Narrow in the source or in the destination, and any elsewhere.
    Cross,
    /// Each has ports of its own; no address is tested.
    Ports,
    /// Chains of prefixes, each within the next.
    Nested,
    /// Nothing differs but this field.
    OneField(FilterField),
}

impl Hostile {
    /// All kinds.
    pub const ALL: [Hostile; 8] = [
        Hostile::Boxes,
        Hostile::Cross,
        Hostile::Ports,
        Hostile::Nested,
        Hostile::OneField(FilterField::Source),
        Hostile::OneField(FilterField::Destination),
        Hostile::OneField(FilterField::SourcePorts),
        Hostile::OneField(FilterField::DestinationPorts),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Hostile::Boxes => "boxes",
            Hostile::Cross => "cross",
            Hostile::Ports => "ports",
            Hostile::Nested => "nested",
            Hostile::OneField(FilterField::Source) => "only-source",
            Hostile::OneField(FilterField::Destination) => "only-destination",
            Hostile::OneField(FilterField::SourcePorts) => "only-source-ports",
            Hostile::OneField(FilterField::DestinationPorts) => "only-destination-ports",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Hostile> {
        Hostile::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// So many different filters of this kind. None stands behind one that holds it: such a
    /// filter decides nothing and hurts nobody.
    ///
    /// # Errors
    ///
    /// When more are asked for than a file may have lines.
    pub fn generate(self, filters: u32, seed: u64) -> Result<Vec<Filter>, TooMany> {
        if filters > LINES_MAX {
            return Err(TooMany(filters));
        }
        let mut draw = Draw::new(seed, self.name());
        // Every kind has 2^31 different filters or more, 128 times what may be asked for: drawing
        // again when one is there already ends soon.
        let mut seen = HashSet::with_capacity(filters as usize);
        let mut set = Vec::with_capacity(filters as usize);
        let mut chain = Vec::new();
        while set.len() < filters as usize {
            let filter = match self {
                Hostile::Boxes => wide_box(&mut draw),
                Hostile::Cross => row_or_column(&mut draw),
                Hostile::Ports => port_pair(set.len() as u32),
                Hostile::Nested => next_of_chain(&mut chain, &mut draw),
                Hostile::OneField(field) => one_field(field, &mut draw),
            };
            if seen.insert(filter) {
                set.push(filter);
            }
        }
        draw.shuffle(&mut set);
        narrow_first(&mut set);
        Ok(set)
    }
}

/// More filters than a file may have lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany(pub u32);

impl fmt::Display for TooMany {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} filters asked for: {LINES_MAX} at most are made", self.0)
    }
}

impl std::error::Error for TooMany {}

fn prefix(draw: &mut Draw, shortest: u32, longest: u32) -> Prefix {
    let len = draw.between(shortest, longest) as u8;
    Prefix::new(draw.bits() as u32, len).unwrap_or(Prefix::ANY)
}

/// Two ports at random: a third of all ports wide, on average.
fn any_range(draw: &mut Draw) -> PortRange {
    let (a, b) = (draw.port(0, u16::MAX), draw.port(0, u16::MAX));
    PortRange::new(a.min(b), a.max(b)).unwrap_or(PortRange::ANY)
}

fn wide_box(draw: &mut Draw) -> Filter {
    Filter {
        source: prefix(draw, 0, 4),
        destination: prefix(draw, 0, 4),
        source_ports: any_range(draw),
        destination_ports: any_range(draw),
        protocol: *draw.pick(&[None, None, Some(6), Some(17)]),
        ..Filter::ANY
    }
}

fn row_or_column(draw: &mut Draw) -> Filter {
    let narrow = prefix(draw, 24, 32);
    if draw.percent(50) {
        Filter { source: narrow, ..Filter::ANY }
    } else {
        Filter { destination: narrow, ..Filter::ANY }
    }
}

/// Up to 65,536 filters no port occurs twice on a side; beyond that no pair does.
fn port_pair(number: u32) -> Filter {
    // An odd factor permutes the ports, so that neighbours on one side are none on the other.
    let round = (number >> 16) as u16;
    let source = number as u16;
    let destination = source.wrapping_mul(40_503).wrapping_add(round.wrapping_mul(7919));
    Filter {
        source_ports: PortRange::exact(source),
        destination_ports: PortRange::exact(destination),
        ..Filter::ANY
    }
}

/// The next filter of a chain from one pair of hosts up to all, or the first of a new chain.
fn next_of_chain(chain: &mut Vec<Filter>, draw: &mut Draw) -> Filter {
    if chain.is_empty() {
        let (source, destination) = (Prefix::host(draw.bits() as u32), Prefix::host(draw.bits() as u32));
        // Widest first, since they are taken from the end. Chains end at /4: shorter prefixes
        // are too few to differ.
        for step in (8..=64_u8).rev() {
            let (shorter, longer) = (step / 2, step - step / 2);
            if let (Some(source), Some(destination)) = (source.parent(longer), destination.parent(shorter)) {
                chain.insert(0, Filter { source, destination, ..Filter::ANY });
            }
        }
    }
    chain.pop().unwrap_or(Filter::ANY)
}

fn one_field(field: FilterField, draw: &mut Draw) -> Filter {
    match field {
        FilterField::Source => Filter { source: prefix(draw, 8, 32), ..Filter::ANY },
        FilterField::Destination => Filter { destination: prefix(draw, 8, 32), ..Filter::ANY },
        FilterField::SourcePorts => Filter { source_ports: any_range(draw), ..Filter::ANY },
        FilterField::DestinationPorts => Filter { destination_ports: any_range(draw), ..Filter::ANY },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classbench::write_filters;
    use crate::random::digest;
    use crate::statistics::Statistics;

    #[test]
    fn the_same_seed_makes_the_same_bytes_for_ever() {
        let digests = Hostile::ALL.map(|kind| {
            let mut text = Vec::new();
            write_filters(&mut text, &kind.generate(1000, 1).unwrap()).unwrap();
            digest(&text)
        });
        let expected = [
            8874325295886027674,
            12884798903459289208,
            15270317268850843119,
            17221560263341931815,
            16933788187920686616,
            2249145987273643577,
            8496727373521966268,
            1478295709307482116,
        ];
        assert_eq!(digests, expected);
    }

    #[test]
    fn sizes_are_exact_and_no_filter_stands_twice() {
        for kind in Hostile::ALL {
            assert_eq!(Hostile::from_name(kind.name()), Some(kind));
            for size in [0, 1, 100_000] {
                let set = kind.generate(size, 2).unwrap();
                let different: HashSet<&Filter> = set.iter().collect();
                assert_eq!((set.len(), different.len()), (size as usize, size as usize), "{}", kind.name());
            }
        }
        assert_eq!(Hostile::Boxes.generate(u32::MAX, 1), Err(TooMany(u32::MAX)));
    }

    #[test]
    fn each_kind_denies_what_it_says() {
        let statistics = |kind: Hostile| Statistics::of(&kind.generate(20_000, 3).unwrap());
        assert!(statistics(Hostile::Boxes).overlaps_per_million > 20_000);
        assert!(statistics(Hostile::Cross).overlaps_per_million > 490_000);
        let ports = statistics(Hostile::Ports);
        assert_eq!((ports.source_ports, ports.destination_ports, ports.sources), (20_000, 20_000, 1));
        let nested = statistics(Hostile::Nested);
        assert!(nested.source_nesting.contains_key(&29), "{nested}");
        let one = statistics(Hostile::OneField(FilterField::DestinationPorts));
        assert_eq!(
            (one.sources, one.destinations, one.source_ports, one.destination_ports),
            (1, 1, 1, 20_000)
        );
    }

    #[test]
    fn a_nested_filter_stands_before_those_that_hold_it() {
        let set = Hostile::Nested.generate(57, 3).unwrap();
        for pair in set.windows(2) {
            assert!(pair[1].source.contains(pair[0].source.low()), "{} {}", pair[0], pair[1]);
            assert!(pair[1].destination.contains(pair[0].destination.low()));
        }
    }
}
