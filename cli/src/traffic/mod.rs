//! Packets to measure with: drawn from rules, or read from a trace.
//!
//! | traffic | a packet is | like |
//! |---|---|---|
//! | corners | a rule, all alike; each field at its lowest or highest value, by a coin | the trace generator of ClassBench |
//! | inside | a rule, by Zipf's law; each field uniform within its values | a network in which a few rules do the work |
//! | random | uniform in every field | a scan: most likely no narrow rule holds |
//!
//! In all of them, a key equal to the one before is left out.

mod areas;

use hipac_bench_data::random::zipf;
use hipac_bench_data::{Draw, Weighted};
use hipac_classifier::key::KeyMaker;
use hipac_classifier::{Keys, L4, Packet};
use hipac_rules::{Family, Field, Ruleset, TableKind};
use hipac_verifier::fields;

use crate::args::Traffic;
use areas::{Area, areas};

/// Packets kept as such, to be evaluated and compared; of the others only their keys are.
const SAMPLE: usize = 1 << 16;

/// Draws in a row that give the same key as before: then there is only one, and a random packet
/// goes between.
const VAIN_DRAWS_MAX: u32 = 32;

/// Keys to look up, and some of the packets they were made of.
pub(crate) struct Trace {
    pub(crate) keys: Keys,
    /// Packets spread evenly over the trace.
    pub(crate) sample: Vec<Packet>,
    /// Keys left out because they were equal to the one before.
    pub(crate) repeats: usize,
    /// Packets left out because their transport header is cut off: they have a tree of their
    /// own.
    pub(crate) broken: usize,
}

impl Trace {
    /// The keys of given packets.
    pub(crate) fn of_packets(packets: &[Packet], maker: &KeyMaker<'_>) -> Trace {
        let mut trace = Collector::new(packets.len(), maker);
        packets.iter().for_each(|packet| {
            trace.add(packet);
        });
        trace.trace
    }

    /// So many packets drawn for a ruleset.
    pub(crate) fn draw(
        ruleset: &Ruleset,
        (table, chain): (TableKind, &str),
        maker: &KeyMaker<'_>,
        packets: usize,
        (traffic, seed): (Traffic, u64),
    ) -> Trace {
        let areas = match traffic {
            Traffic::Random => Vec::new(),
            Traffic::Corners | Traffic::Inside => areas(ruleset, table, chain),
        };
        let mut author = Author::new(ruleset.family, areas, traffic, seed);
        let mut trace = Collector::new(packets, maker);
        let mut vain = 0;
        while trace.trace.keys.len() < packets {
            let packet = if vain < VAIN_DRAWS_MAX { author.packet() } else { author.random() };
            vain = if trace.add(&packet) { 0 } else { vain + 1 };
            // Rules that test nothing have one key, whatever the packet.
            if vain > 2 * VAIN_DRAWS_MAX {
                break;
            }
        }
        // Those were draws, not packets that somebody gave.
        trace.trace.repeats = 0;
        trace.trace
    }
}

struct Collector<'m, 'a> {
    maker: &'m KeyMaker<'a>,
    /// Every so many packets one is kept.
    stride: usize,
    trace: Trace,
}

impl<'m, 'a> Collector<'m, 'a> {
    fn new(packets: usize, maker: &'m KeyMaker<'a>) -> Collector<'m, 'a> {
        let keys = Keys::new(maker.key_bytes());
        let trace = Trace { keys, sample: Vec::new(), repeats: 0, broken: 0 };
        Collector { maker, stride: packets.div_ceil(SAMPLE).max(1), trace }
    }

    /// Takes a packet unless its key is the one before.
    fn add(&mut self, packet: &Packet) -> bool {
        let trace = &mut self.trace;
        if !packet.l4.is_sound() {
            trace.broken += 1;
            return false;
        }
        let key = self.maker.key(packet);
        let (count, bytes) = (trace.keys.len(), trace.keys.stride());
        if count > 0 && trace.keys.get(count - 1).0[..bytes] == key.0[..bytes] {
            trace.repeats += 1;
            return false;
        }
        trace.keys.push(&key);
        if count.is_multiple_of(self.stride) {
            trace.sample.push(*packet);
        }
        true
    }
}

/// Fields that packets have whatever the rules test.
const USUAL: [Field; 5] =
    [Field::Source, Field::Destination, Field::SourcePort, Field::DestinationPort, Field::Protocol];

/// Draws packets.
struct Author {
    family: Family,
    areas: Vec<Area>,
    /// Fields that some rule tests, and the usual ones.
    tested: Vec<Field>,
    by_rank: Option<Weighted<u32>>,
    traffic: Traffic,
    draw: Draw,
}

impl Author {
    fn new(family: Family, mut areas: Vec<Area>, traffic: Traffic, seed: u64) -> Author {
        let mut draw = Draw::new(seed, "bench traffic");
        let mut tested = USUAL.to_vec();
        tested.extend(areas.iter().flat_map(|a| &a.numbers).map(|(field, _)| *field));
        tested.sort_unstable();
        tested.dedup();
        // By rank in random order: otherwise the first rules would be the popular ones.
        draw.shuffle(&mut areas);
        let by_rank = (traffic == Traffic::Inside).then(|| zipf(areas.len() as u32));
        Author { family, areas, tested, by_rank, traffic, draw }
    }

    fn packet(&mut self) -> Packet {
        let number = match &self.by_rank {
            Some(ranks) => ranks.draw(&mut self.draw).map_or(0, |&rank| rank as usize),
            None => self.draw.index(self.areas.len()),
        };
        let Some(area) = self.areas.get(number) else { return self.random() };
        let mut packet = fields::default_packet(self.family);
        for &field in &self.tested {
            let all = (0, fields::number_max(self.family, field));
            let number = match area.ranges(field) {
                Some(ranges) => value(*self.draw.pick(ranges), self.traffic, &mut self.draw),
                // Which one hardly matters, but 150 kinds of nothing would.
                None if field == Field::Protocol => usual_protocol(&mut self.draw),
                None if USUAL.contains(&field) => value(all, self.traffic, &mut self.draw),
                None => continue,
            };
            // A number that no packet can have there leaves the default.
            fields::write_number(&mut packet, field, number);
        }
        for &(field, name) in &area.names {
            fields::write_interface(&mut packet, field, name);
        }
        packet
    }

    fn random(&mut self) -> Packet {
        let mut packet = fields::default_packet(self.family);
        for &field in &self.tested {
            let number = uniform((0, fields::number_max(self.family, field)), &mut self.draw);
            fields::write_number(&mut packet, field, number);
        }
        packet.l4 = L4::Whole;
        packet
    }
}

fn value((low, high): (u128, u128), traffic: Traffic, draw: &mut Draw) -> u128 {
    match traffic {
        Traffic::Corners if draw.percent(50) => low,
        Traffic::Corners => high,
        Traffic::Inside | Traffic::Random => uniform((low, high), draw),
    }
}

fn uniform((low, high): (u128, u128), draw: &mut Draw) -> u128 {
    match u64::try_from(high - low) {
        Ok(width) if width < u64::MAX => low + u128::from(draw.below(width + 1)),
        _ => {
            let bits = u128::from(draw.bits()) << 64 | u128::from(draw.bits());
            // All of 128 bits, or a power of two of them: no number is favoured.
            (high - low).checked_add(1).map_or(bits, |count| low + bits % count)
        }
    }
}

fn usual_protocol(draw: &mut Draw) -> u128 {
    *draw.pick(&[6, 6, 6, 17, 17, 1, 47, 50])
}

#[cfg(test)]
mod tests {
    use super::*;
    use hipac_classifier::Image;
    use hipac_rules::{ParseOptions, parse};

    fn draw(rules: &str, traffic: Traffic) -> Trace {
        let text = format!("*filter\n:FORWARD ACCEPT\n{rules}\nCOMMIT\n");
        let ruleset = parse(text.as_bytes(), &ParseOptions::default()).ruleset;
        let image = hipac_compiler::compile(&ruleset, &hipac_compiler::Options::default()).unwrap().image;
        let image = Image::open(image).unwrap();
        let place = (TableKind::Filter, "FORWARD");
        Trace::draw(&ruleset, place, &image.key_maker(), 500, (traffic, 1))
    }

    #[test]
    fn no_key_follows_its_equal() {
        let rules = "-A FORWARD -s 10.0.0.1 -d 10.0.0.2 -p icmp -j DROP";
        for traffic in [Traffic::Corners, Traffic::Inside, Traffic::Random] {
            let trace = draw(rules, traffic);
            assert_eq!(trace.keys.len(), 500);
            let key = |i: usize| &trace.keys.get(i).0[..trace.keys.stride()];
            assert!((1..500).all(|i| key(i - 1) != key(i)), "{traffic:?}");
        }
    }

    #[test]
    fn corners_are_bounds_and_points_are_inside() {
        let rules = "-A FORWARD -s 10.0.0.0/8 -p tcp -m tcp --dport 80:90 -j DROP";
        let trace = draw(rules, Traffic::Corners);
        assert!(trace.sample.iter().all(|p| [0x0a00_0000, 0x0aff_ffff].contains(&p.source)));
        assert!(trace.sample.iter().all(|p| [80, 90].contains(&p.destination_port) && p.protocol == 6));
        let trace = draw(rules, Traffic::Inside);
        assert!(trace.sample.iter().all(|p| p.source >> 24 == 10));
        assert!(trace.sample.iter().any(|p| p.destination_port == 85));
    }

    #[test]
    fn rules_that_test_nothing_have_one_packet() {
        assert_eq!(draw("-A FORWARD -j DROP", Traffic::Inside).keys.len(), 1);
    }

    #[test]
    fn a_trace_loses_its_repeats() {
        let ruleset =
            parse(b"*filter\n-A FORWARD -s 10.0.0.1 -j DROP\nCOMMIT\n", &ParseOptions::default()).ruleset;
        let image = hipac_compiler::compile(&ruleset, &hipac_compiler::Options::default()).unwrap().image;
        let image = Image::open(image).unwrap();
        let packet = |source| Packet { source, ..Packet::default() };
        let broken = Packet { l4: L4::Under4, ..packet(3) };
        let trace = Trace::of_packets(
            &[packet(1), packet(1), packet(2), broken, packet(2), packet(1)],
            &image.key_maker(),
        );
        assert_eq!((trace.keys.len(), trace.repeats, trace.broken), (3, 2, 1));
    }
}
