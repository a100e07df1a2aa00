//! Traces: packets that ask a filter set something.
//!
//! A packet is made from a filter, as a point **inside** it, one of its **corners** (each field at
//! its lowest or highest value), or a point **beside** it (one field just past a bound); or it is
//! **random** and most likely meets nothing but wide filters. Faults of a search sit at bounds,
//! so corners and neighbours find them; points inside measure speed.
//!
//! No packet occurs twice unless asked for: a trace that repeats itself measures the cache.

use std::collections::HashSet;
use std::fmt;

use crate::filter::{Filter, TracePacket};
use crate::random::{Draw, Weighted, zipf};
use crate::text::LINES_MAX;

/// How often each filter is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Popularity {
    /// All alike.
    #[default]
    Uniform,
    /// By Zipf's law, over the filters in random order: a few are met all the time.
    Zipf,
}

/// How packets are made, as relative weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mixture {
    /// Points inside of a filter.
    pub inside: u32,
    /// Corners of a filter.
    pub corners: u32,
    /// Points just outside of a filter.
    pub beside: u32,
    /// Anything.
    pub random: u32,
}

impl Mixture {
    /// Only points inside: to measure.
    pub const INSIDE: Mixture = Mixture { inside: 1, corners: 0, beside: 0, random: 0 };
    /// Mostly bounds: to find faults.
    pub const EDGES: Mixture = Mixture { inside: 2, corners: 4, beside: 4, random: 1 };
}

/// What to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Packets, as many as this exactly.
    pub packets: u32,
    /// Decides all that is left to chance.
    pub seed: u64,
    /// How often each filter is drawn.
    pub popularity: Popularity,
    /// How packets are made.
    pub mixture: Mixture,
    /// Packets may occur more than once.
    pub repeats: bool,
}

impl Options {
    /// So many packets, none twice, inside of filters drawn alike.
    pub fn new(packets: u32, seed: u64) -> Options {
        let (popularity, mixture) = (Popularity::Uniform, Mixture::INSIDE);
        Options { packets, seed, popularity, mixture, repeats: false }
    }
}

/// Why no trace was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TraceError {
    /// More packets than a file may have lines.
    TooMany(u32),
    /// More filters than a file may have lines.
    TooManyFilters(usize),
    /// No kind of packet has a weight.
    NoMixture,
    /// The filters hold too few packets.
    Exhausted {
        /// Packets asked for.
        wanted: u32,
        /// Different ones found.
        found: u32,
    },
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TraceError::TooMany(packets) => {
                write!(f, "{packets} packets asked for: {LINES_MAX} at most are made")
            }
            TraceError::TooManyFilters(filters) => {
                write!(f, "a trace for {filters} filters: {LINES_MAX} at most are numbered")
            }
            TraceError::NoMixture => write!(f, "no kind of packet has a weight: give one to `inside`"),
            TraceError::Exhausted { wanted, found } => write!(
                f,
                "{wanted} different packets asked for, but only {found} were found: ask for fewer, mix \
                 random ones in, or allow repeats"
            ),
        }
    }
}

impl std::error::Error for TraceError {}

/// Draws in a row that find only packets already there, before the trace is given up.
const VAIN_DRAWS_MAX: u32 = 10_000;

#[derive(Clone, Copy)]
enum Kind {
    Inside,
    Corner,
    Beside,
    Random,
}

/// A trace for `filters`. From an empty set all packets are random.
///
/// # Errors
///
/// When the sizes are over their limits, or the filters do not hold as many packets as are asked
/// for.
///
/// # Cost
///
/// Under a microsecond a packet.
pub fn generate(filters: &[Filter], options: &Options) -> Result<Vec<TracePacket>, TraceError> {
    if options.packets > LINES_MAX {
        return Err(TraceError::TooMany(options.packets));
    }
    if filters.len() > LINES_MAX as usize {
        return Err(TraceError::TooManyFilters(filters.len()));
    }
    let Mixture { inside, corners, beside, random } = options.mixture;
    let kinds = Weighted::new([
        (Kind::Inside, inside),
        (Kind::Corner, corners),
        (Kind::Beside, beside),
        (Kind::Random, random),
    ]);
    let mut draw = Draw::new(options.seed, "trace");
    let picker = Picker::new(filters.len() as u32, options.popularity, &mut draw);
    let mut seen = HashSet::new();
    let mut packets = Vec::with_capacity(options.packets as usize);
    let mut vain = 0;
    while packets.len() < options.packets as usize {
        let kind = *kinds.draw(&mut draw).ok_or(TraceError::NoMixture)?;
        let packet = match picker.draw(&mut draw) {
            Some(number) => packet(filters, number, kind, &mut draw),
            None => random_packet(&mut draw),
        };
        if options.repeats || seen.insert(TracePacket { filter: None, ..packet }) {
            packets.push(packet);
            vain = 0;
            continue;
        }
        vain += 1;
        if vain == VAIN_DRAWS_MAX {
            return Err(TraceError::Exhausted { wanted: options.packets, found: packets.len() as u32 });
        }
    }
    Ok(packets)
}

/// Draws numbers of filters.
enum Picker {
    Uniform { filters: u32 },
    Zipf { by_rank: Vec<u32>, ranks: Weighted<u32> },
}

impl Picker {
    fn new(filters: u32, popularity: Popularity, draw: &mut Draw) -> Picker {
        match popularity {
            Popularity::Uniform => Picker::Uniform { filters },
            Popularity::Zipf => {
                let mut by_rank: Vec<u32> = (0..filters).collect();
                draw.shuffle(&mut by_rank);
                Picker::Zipf { by_rank, ranks: zipf(filters) }
            }
        }
    }

    fn draw(&self, draw: &mut Draw) -> Option<u32> {
        match self {
            Picker::Uniform { filters: 0 } => None,
            Picker::Uniform { filters } => Some(draw.below((*filters).into()) as u32),
            Picker::Zipf { by_rank, ranks } => ranks.draw(draw).map(|&rank| by_rank[rank as usize]),
        }
    }
}

/// A packet of that kind made from filter `number`. It names the filter only when it is in it.
fn packet(filters: &[Filter], number: u32, kind: Kind, draw: &mut Draw) -> TracePacket {
    let filter = &filters[number as usize];
    let made = match kind {
        Kind::Inside => point(filter, draw, |draw, low, high| draw.between(low, high)),
        Kind::Corner => point(filter, draw, corner),
        Kind::Beside => {
            let mut packet = point(filter, draw, corner);
            step_out(filter, &mut packet, draw);
            packet
        }
        Kind::Random => random_packet(draw),
    };
    TracePacket { filter: filter.contains(&made).then_some(number), ..made }
}

/// A packet whose fields `choose` takes from the bounds of the filter's.
fn point(filter: &Filter, draw: &mut Draw, choose: impl Fn(&mut Draw, u32, u32) -> u32) -> TracePacket {
    let (source, destination) = (filter.source, filter.destination);
    let (sport, dport) = (filter.source_ports, filter.destination_ports);
    TracePacket {
        source: choose(draw, source.low(), source.high()),
        destination: choose(draw, destination.low(), destination.high()),
        source_port: choose(draw, sport.low().into(), sport.high().into()) as u16,
        destination_port: choose(draw, dport.low().into(), dport.high().into()) as u16,
        protocol: filter.protocol.unwrap_or_else(|| usual_protocol(draw)),
        filter: None,
    }
}

fn corner(draw: &mut Draw, low: u32, high: u32) -> u32 {
    if draw.percent(50) { low } else { high }
}

/// Moves one field just past a bound, around the end of its numbers when it has none beyond.
fn step_out(filter: &Filter, packet: &mut TracePacket, draw: &mut Draw) {
    let up = draw.percent(50);
    let address = |low: u32, high: u32| if up { high.wrapping_add(1) } else { low.wrapping_sub(1) };
    let port = |low: u16, high: u16| if up { high.wrapping_add(1) } else { low.wrapping_sub(1) };
    match draw.below(5) {
        0 => packet.source = address(filter.source.low(), filter.source.high()),
        1 => packet.destination = address(filter.destination.low(), filter.destination.high()),
        2 => packet.source_port = port(filter.source_ports.low(), filter.source_ports.high()),
        3 => packet.destination_port = port(filter.destination_ports.low(), filter.destination_ports.high()),
        _ => {
            packet.protocol =
                if up { packet.protocol.wrapping_add(1) } else { packet.protocol.wrapping_sub(1) }
        }
    }
}

fn usual_protocol(draw: &mut Draw) -> u8 {
    *draw.pick(&[6, 6, 6, 17, 17, 1, 47, 50])
}

fn random_packet(draw: &mut Draw) -> TracePacket {
    TracePacket {
        source: draw.bits() as u32,
        destination: draw.bits() as u32,
        source_port: draw.port(0, u16::MAX),
        destination_port: draw.port(0, u16::MAX),
        protocol: draw.between(0, 255) as u8,
        filter: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classbench::write_packets;
    use crate::classbench_gen;
    use crate::families::FilterFamily;
    use crate::filter::{PortRange, Prefix};
    use crate::random::digest;

    fn filters() -> Vec<Filter> {
        let options = classbench_gen::Options::new(500, 1);
        classbench_gen::generate(&FilterFamily::Chain.parameters(), &options).unwrap()
    }

    #[test]
    fn the_same_seed_makes_the_same_bytes_for_ever() {
        let digest_of = |popularity, mixture| {
            let options = Options { popularity, mixture, ..Options::new(1000, 1) };
            let mut text = Vec::new();
            write_packets(&mut text, &generate(&filters(), &options).unwrap()).unwrap();
            digest(&text)
        };
        assert_eq!(digest_of(Popularity::Uniform, Mixture::INSIDE), 9808855421309828515);
        assert_eq!(digest_of(Popularity::Zipf, Mixture::EDGES), 16192864489000409373);
    }

    #[test]
    fn packets_are_in_the_filters_they_name_and_none_occurs_twice() {
        let filters = filters();
        for mixture in [Mixture::INSIDE, Mixture::EDGES] {
            let packets = generate(&filters, &Options { mixture, ..Options::new(20_000, 1) }).unwrap();
            let different: HashSet<TracePacket> =
                packets.iter().map(|p| TracePacket { filter: None, ..*p }).collect();
            assert_eq!((packets.len(), different.len()), (20_000, 20_000));
            for packet in &packets {
                if let Some(number) = packet.filter {
                    assert!(filters[number as usize].contains(packet), "{packet:?}");
                }
            }
            let named = packets.iter().filter(|p| p.filter.is_some()).count();
            assert_eq!(named == 20_000, mixture == Mixture::INSIDE);
        }
    }

    #[test]
    fn corners_and_neighbours_stand_at_the_bounds() {
        let filter = Filter {
            source: Prefix::new(0x0a00_0000, 8).unwrap(),
            source_ports: PortRange::LOW,
            protocol: Some(6),
            ..Filter::ANY
        };
        let mixture = Mixture { inside: 0, corners: 1, beside: 1, random: 0 };
        let options = Options { mixture, repeats: true, ..Options::new(2000, 1) };
        let packets = generate(&[filter], &options).unwrap();
        let sources: HashSet<u32> = packets.iter().map(|p| p.source).collect();
        assert_eq!(sources, [0x09ff_ffff, 0x0a00_0000, 0x0aff_ffff, 0x0b00_0000].into());
        let ports: HashSet<u16> = packets.iter().map(|p| p.source_port).collect();
        assert_eq!(ports, [0, 1023, 1024, 65535].into());
        let protocols: HashSet<u8> = packets.iter().map(|p| p.protocol).collect();
        assert_eq!(protocols, [5, 6, 7].into());
    }

    #[test]
    fn zipf_meets_a_few_filters_most_of_the_time() {
        let options = Options { popularity: Popularity::Zipf, ..Options::new(10_000, 1) };
        let mut hits = vec![0; 500];
        for packet in generate(&filters(), &options).unwrap() {
            hits[packet.filter.unwrap() as usize] += 1;
        }
        hits.sort_unstable_by(|a, b| b.cmp(a));
        let top: u32 = hits[..10].iter().sum();
        // The first ten of 500 ranks have 43 % of the weight.
        assert!((3900..4700).contains(&top), "{top}");
    }

    #[test]
    fn what_cannot_be_made_is_refused() {
        let host = Filter {
            source: Prefix::host(1),
            destination: Prefix::host(2),
            source_ports: PortRange::exact(3),
            destination_ports: PortRange::exact(4),
            protocol: Some(5),
            ..Filter::ANY
        };
        let error = |options| generate(&[host], &options).unwrap_err();
        assert_eq!(error(Options::new(2, 1)), TraceError::Exhausted { wanted: 2, found: 1 });
        assert_eq!(error(Options::new(u32::MAX, 1)), TraceError::TooMany(u32::MAX));
        let mixture = Mixture { inside: 0, corners: 0, beside: 0, random: 0 };
        assert_eq!(error(Options { mixture, ..Options::new(1, 1) }), TraceError::NoMixture);
        let again = generate(&[host], &Options { repeats: true, ..Options::new(2, 1) }).unwrap();
        assert_eq!(again[0], again[1]);
        assert_eq!(generate(&[], &Options::new(9, 1)).unwrap().len(), 9);
    }
}
