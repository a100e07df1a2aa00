//! Makes filter sets from [`Parameters`].
//!
//! Addresses come from a binary tree that is never stored: whether the node of a prefix has one
//! child or two, and which one is the heavier, is a function of the seed and the prefix. A
//! filter walks down from the root to the length it drew, at each fork by chance, so filters
//! share prefixes as much as the tree's shape makes them.
//!
//! ```text
//!          ●              a node of one child: the same bit for all
//!          │
//!          ●              two children: most filters to the heavier one
//!         ╱ ╲
//!        ●   ●            destinations go with their source's bits as long as
//!        │  ╱ ╲           correlation holds, then by themselves
//! ```
//!
//! - A small tree holds few prefixes, and no number of draws finds more. [`Options::spread`]
//!   opens it; when draws keep finding filters that are there already, the generator opens it
//!   further by itself. So the size asked for is the size made.
//! - No two filters are equal in their five fields.
//! - A filter never stands behind one that holds all of its packets: the more bits it looks at,
//!   the earlier it stands.
//!
//! Cost: some microseconds a filter; about 100 bytes of memory a filter while it runs.

use std::collections::HashSet;
use std::fmt;

use crate::filter::{Filter, Flags, PortClass, PortRange, Prefix, narrow_first};
use crate::parameters::{Incomplete, Lengths, Level, Parameters, PortTable, ProtocolShape, TreeShape};
use crate::random::{Draw, Share, mix};
use crate::text::LINES_MAX;

/// Draws that find nothing new before the tree is opened by a further 1/64.
const VAIN_DRAWS_MAX: u32 = 64;

/// Walks down a tree in search of an end that keeps to its nesting.
const WALKS_MAX: u32 = 12;

/// What to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Filters, as many as this exactly.
    pub filters: u32,
    /// Decides all that is left to chance.
    pub seed: u64,
    /// How far the trees are opened beyond their shape: nothing repeats the prefixes of the set
    /// that the shape was read off; all makes every address alike. Real sets of the literature
    /// are opened the further the larger they are: see [`default_spread`].
    pub spread: Share,
}

impl Options {
    /// As many filters as that, opened by [`default_spread`].
    pub fn new(filters: u32, seed: u64) -> Options {
        Options { filters, seed, spread: default_spread(filters) }
    }
}

/// The spread that makes a set of so many filters repeat prefixes about as much as the
/// literature's sets of that size. Of 1,000 filters they repeat what their shape was read off; of 10,000 they
/// have a tenth to nine tenths of the addresses that were possible, of 100,000 nearly all: of acl1's 99,618
/// filters 99,572 have a source of their own.
pub fn default_spread(filters: u32) -> Share {
    const BY_DOUBLINGS: [u32; 8] = [0, 10, 20, 30, 50, 75, 93, 97];
    let doublings = (filters / 1000).checked_ilog2().unwrap_or(0) as usize;
    Share::percent(BY_DOUBLINGS[doublings.min(BY_DOUBLINGS.len() - 1)])
}

/// Why no set was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum GenerateError {
    /// The parameters have a gap.
    Incomplete(Incomplete),
    /// More filters than a file may have lines.
    TooMany(u32),
    /// The parameters do not hold that many different filters.
    Exhausted {
        /// Filters asked for.
        wanted: u32,
        /// Different ones found.
        found: u32,
    },
}

impl fmt::Display for GenerateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GenerateError::Incomplete(gap) => gap.fmt(f),
            GenerateError::TooMany(filters) => {
                write!(f, "{filters} filters asked for: {LINES_MAX} at most are made")
            }
            GenerateError::Exhausted { wanted, found } => write!(
                f,
                "{wanted} filters asked for, but these parameters gave only {found} different ones: ask for \
                 fewer, or give them longer prefixes"
            ),
        }
    }
}

impl std::error::Error for GenerateError {}

/// A set of filters drawn from `parameters`, the first the most important.
///
/// # Errors
///
/// When the parameters have a gap, or do not hold as many different filters as are asked for.
pub fn generate(parameters: &Parameters, options: &Options) -> Result<Vec<Filter>, GenerateError> {
    parameters.validate().map_err(GenerateError::Incomplete)?;
    if options.filters > LINES_MAX {
        return Err(GenerateError::TooMany(options.filters));
    }
    let mut generator = Generator::new(parameters, options);
    let mut seen = HashSet::with_capacity(options.filters as usize);
    let mut filters = Vec::with_capacity(options.filters as usize);
    let mut vain = 0;
    while filters.len() < options.filters as usize {
        let filter = generator.filter();
        // Equal in what is tested; flags are not.
        if seen.insert(Filter { flags: Flags::default(), ..filter }) {
            filters.push(filter);
            vain = 0;
            continue;
        }
        vain += 1;
        if vain > VAIN_DRAWS_MAX {
            vain = 0;
            if !generator.open_trees() {
                let found = filters.len() as u32;
                return Err(GenerateError::Exhausted { wanted: options.filters, found });
            }
        }
    }
    narrow_first(&mut filters);
    Ok(filters)
}

struct Generator<'a> {
    parameters: &'a Parameters,
    draw: Draw,
    source: Tree,
    destination: Tree,
    /// Sixty-fourths that [`Generator::open_trees`] has added.
    opened: u32,
    spread: Share,
}

impl<'a> Generator<'a> {
    fn new(parameters: &'a Parameters, options: &Options) -> Self {
        let mut draw = Draw::new(options.seed, "classbench filters");
        let source_lengths = used_lengths(parameters, |l| l.source);
        let destination_lengths = used_lengths(parameters, |l| l.destination);
        Generator {
            parameters,
            source: Tree::new(&parameters.source, draw.bits(), source_lengths, options.spread),
            destination: Tree::new(&parameters.destination, draw.bits(), destination_lengths, options.spread),
            draw,
            opened: 0,
            spread: options.spread,
        }
    }

    /// Lets the trees hold more prefixes; `false` when they hold all already.
    fn open_trees(&mut self) -> bool {
        if self.opened == 64 {
            return false;
        }
        self.opened += 1;
        let further = Share::from_billionths(self.opened * (1_000_000_000 / 64)).unwrap_or(Share::ALL);
        let spread = self.spread.or_else(further);
        self.source.open(&self.parameters.source, spread);
        self.destination.open(&self.parameters.destination, spread);
        true
    }

    fn filter(&mut self) -> Filter {
        // Validated: every table that is drawn from has something.
        self.try_filter().unwrap_or(Filter::ANY)
    }

    fn try_filter(&mut self) -> Option<Filter> {
        let parameters = self.parameters;
        let shape: &ProtocolShape = parameters.protocols.draw(&mut self.draw)?;
        let pair = *shape.ports.draw(&mut self.draw)?;
        let source_ports = ports(&parameters.source_ports, pair.source, &mut self.draw)?;
        let destination_ports = ports(&parameters.destination_ports, pair.destination, &mut self.draw)?;
        let lengths = *parameters.lengths[pair.index()].draw(&mut self.draw)?;
        let (source, destination) = self.prefixes(lengths);
        let flags = shape.flags.draw(&mut self.draw).copied().unwrap_or_default();
        Some(Filter { source, destination, source_ports, destination_ports, protocol: shape.protocol, flags })
    }

    fn prefixes(&mut self, lengths: Lengths) -> (Prefix, Prefix) {
        let draw = &mut self.draw;
        let source = self.source.prefix(lengths.source, draw, |_, _, _| None);
        let correlation = &self.parameters.correlation.0;
        let destination = self.destination.prefix(lengths.destination, draw, |at, level, draw| {
            // As long as all bits so far are the source's, and the source has a bit more.
            let agrees = level < source.len() && source.parent(level) == Prefix::new(at, level);
            let next = source.low() >> (31 - level) & 1;
            agrees.then(|| next ^ u32::from(!draw.chance(correlation[usize::from(level) + 1])))
        });
        (source, destination)
    }
}

fn used_lengths(parameters: &Parameters, side: impl Fn(&Lengths) -> u8) -> u64 {
    let all = parameters.lengths.iter().flat_map(|table| table.values());
    all.fold(0, |set, lengths| set | 1 << side(lengths))
}

fn ports(table: &PortTable, class: PortClass, draw: &mut Draw) -> Option<PortRange> {
    Some(match class {
        PortClass::Any => PortRange::ANY,
        PortClass::High => PortRange::HIGH,
        PortClass::Low => PortRange::LOW,
        PortClass::Range => *table.ranges.draw(draw)?,
        PortClass::Exact => *table.exact.draw(draw)?,
    })
}

/// A tree of addresses. Its nodes are computed, not kept.
struct Tree {
    key: u64,
    levels: [Fork; 33],
    /// Prefix lengths in use, a bit each.
    used_lengths: u64,
    nesting: u32,
}

/// How the nodes of one level fork.
#[derive(Debug, Clone, Copy, Default)]
struct Fork {
    two_children: Share,
    /// Of the filters at a node of two children, those that go to the lighter one.
    light: Share,
}

impl Tree {
    fn new(shape: &TreeShape, key: u64, used_lengths: u64, spread: Share) -> Tree {
        let mut tree = Tree {
            key,
            levels: [Fork::default(); 33],
            used_lengths,
            nesting: u32::from(shape.nesting).max(1),
        };
        tree.open(shape, spread);
        tree
    }

    /// Takes the forks from `shape`, of which `spread` is made even.
    fn open(&mut self, shape: &TreeShape, spread: Share) {
        for (fork, level) in self.levels.iter_mut().zip(&shape.levels) {
            let Level { two_children, skew } = *level;
            fork.two_children = two_children.or_else(spread);
            fork.light = light_share(spread.rest().of(skew));
        }
    }

    /// A prefix of `len` bits. `lead` may say the next bit below a node of so many bits.
    fn prefix(&self, len: u8, draw: &mut Draw, lead: impl Fn(u32, u8, &mut Draw) -> Option<u32>) -> Prefix {
        let mut walks = 0;
        loop {
            let mut address = 0;
            for level in 0..len {
                let bit = match lead(address, level, draw) {
                    Some(bit) => bit,
                    None => self.bit(address, level, draw),
                };
                address |= bit << (31 - level);
            }
            walks += 1;
            let prefix = Prefix::new(address, len).unwrap_or(Prefix::ANY);
            if walks == WALKS_MAX || self.may_end(prefix) {
                return prefix;
            }
        }
    }

    fn node(&self, address: u32, level: u8) -> u64 {
        mix(self.key ^ mix(u64::from(address) << 8 | u64::from(level)))
    }

    /// The bit by which a filter goes on from a node.
    fn bit(&self, address: u32, level: u8, draw: &mut Draw) -> u32 {
        let node = self.node(address, level);
        let heavy = (node >> 63) as u32;
        let fork = self.levels[usize::from(level)];
        let coin = ((node & 0xffff_ffff) * 1_000_000_000) >> 32;
        let has_two = coin < u64::from(fork.two_children.billionths());
        if has_two && draw.chance(fork.light) { heavy ^ 1 } else { heavy }
    }

    /// Whether prefixes may end at the node of `prefix`. On each way down at most `nesting` of the
    /// lengths in use have such a node: the first ones by a coin that falls as often as would
    /// use the allowance up, the longest always.
    fn may_end(&self, prefix: Prefix) -> bool {
        let lengths = self.used_lengths & !1; // all prefixes lie in /0: it is no nesting
        let longest = lengths.checked_ilog2().unwrap_or(0);
        let others = lengths.count_ones().saturating_sub(1);
        let allowed = self.nesting - 1;
        if u32::from(prefix.len()) == longest || prefix.len() == 0 || others <= allowed {
            return true;
        }
        let mut left = allowed;
        for len in (1..=prefix.len()).filter(|len| lengths & 1 << len != 0) {
            let node = self.node(prefix.low() & Prefix::new(u32::MAX, len).map_or(0, Prefix::low), len);
            let ends_here = left > 0 && (node >> 32 & 0xffff) * u64::from(others) < u64::from(allowed) << 16;
            if len == prefix.len() {
                return ends_here;
            }
            left -= u32::from(ends_here);
        }
        false
    }
}

/// From skew, 1 − lighter / heavier, to lighter / (lighter + heavier).
fn light_share(skew: Share) -> Share {
    let ratio = u64::from(skew.rest().billionths());
    let light = ratio * 1_000_000_000 / (ratio + 1_000_000_000);
    Share::from_billionths(light as u32).unwrap_or(Share::NONE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classbench::write_filters;
    use crate::families::FilterFamily;
    use crate::random::digest;

    /// If this fails, every seed makes other sets than before and no measurement compares.
    #[test]
    fn the_same_seed_makes_the_same_bytes_for_ever() {
        let digests = FilterFamily::ALL.map(|family| {
            let filters = generate(&family.parameters(), &Options::new(3000, 1)).unwrap();
            let mut text = Vec::new();
            write_filters(&mut text, &filters).unwrap();
            digest(&text)
        });
        let expected = [
            2660547333108019422,
            6772732245852976203,
            9418638279226765284,
            12741804567904826194,
            15755533367616896018,
            2433625679806970980,
        ];
        assert_eq!(digests, expected);
    }

    #[test]
    fn larger_sets_are_opened_further() {
        let percents = [0, 1000, 2000, 10_000, 100_000, 10_000_000].map(default_spread);
        assert_eq!(percents, [0, 0, 10, 30, 93, 97].map(Share::percent));
    }

    #[test]
    fn another_seed_makes_another_set() {
        let parameters = FilterFamily::Access.parameters();
        let one = generate(&parameters, &Options::new(100, 1)).unwrap();
        let two = generate(&parameters, &Options::new(100, 2)).unwrap();
        assert_ne!(one, two);
    }

    #[test]
    fn sizes_are_exact_and_no_filter_stands_twice() {
        for family in FilterFamily::ALL {
            for filters in [0, 1, 17, 1000, 20_000] {
                let set = generate(&family.parameters(), &Options::new(filters, 3)).unwrap();
                let tested = set.iter().map(|f| Filter { flags: Flags::default(), ..*f });
                let different: HashSet<Filter> = tested.collect();
                assert_eq!((set.len(), different.len()), (filters as usize, filters as usize));
            }
        }
    }

    #[test]
    fn no_filter_stands_behind_one_that_holds_it() {
        for family in FilterFamily::ALL {
            let set = generate(&family.parameters(), &Options::new(400, 3)).unwrap();
            for (i, later) in set.iter().enumerate() {
                assert!(!set[..i].iter().any(|earlier| earlier.holds(later)), "{later} in {}", family.name());
            }
        }
    }

    #[test]
    fn parameters_too_small_for_the_size_are_refused() {
        let mut parameters = FilterFamily::Access.parameters();
        let one = Lengths { source: 1, destination: 1 };
        parameters.lengths = std::array::from_fn(|_| crate::random::Weighted::new([(one, 1)]));
        let error = generate(&parameters, &Options::new(100_000, 1)).unwrap_err();
        assert!(matches!(error, GenerateError::Exhausted { wanted: 100_000, found: 1..100_000 }), "{error}");
        let error = generate(&Parameters::default(), &Options::new(1, 1)).unwrap_err();
        assert_eq!(error, GenerateError::Incomplete(Incomplete::Protocols));
        let error = generate(&parameters, &Options::new(u32::MAX, 1)).unwrap_err();
        assert_eq!(error, GenerateError::TooMany(u32::MAX));
    }

    #[test]
    fn skew_becomes_the_lighter_childs_share() {
        assert_eq!(light_share(Share::NONE), Share::percent(50));
        assert_eq!(light_share(Share::ALL), Share::NONE);
        assert_eq!(light_share(Share::percent(75)), Share::percent(20));
    }
}
