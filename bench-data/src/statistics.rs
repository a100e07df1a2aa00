//! What a filter set looks like, so that two can be compared.
//!
//! Three things decide how hard a set is: how many different values each field has, how long the
//! prefixes are and how they lie within each other, and how many filters overlap. The first
//! two are counted; overlaps are estimated from pairs drawn at random.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::filter::{Filter, Flags, PortRange, Prefix};
use crate::random::Draw;

/// Pairs looked at to estimate overlaps: enough for two digits of a share of one percent.
const PAIRS: u32 = 200_000;

/// Counts of a filter set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statistics {
    /// Filters.
    pub filters: usize,
    /// Different ones, by the five fields.
    pub different: usize,
    /// Different source prefixes.
    pub sources: usize,
    /// Different destination prefixes.
    pub destinations: usize,
    /// Different pairs of both.
    pub address_pairs: usize,
    /// Different source port ranges.
    pub source_ports: usize,
    /// Different destination port ranges.
    pub destination_ports: usize,
    /// Filters by length of the source prefix.
    pub source_lengths: [usize; 33],
    /// Filters by length of the destination prefix.
    pub destination_lengths: [usize; 33],
    /// Source prefixes in use by how many, with themselves, hold them; not counting /0.
    pub source_nesting: BTreeMap<usize, usize>,
    /// The same for destinations.
    pub destination_nesting: BTreeMap<usize, usize>,
    /// Filters by protocol; `None`: all.
    pub protocols: BTreeMap<Option<u8>, usize>,
    /// Filters by classes of both port ranges, as `wc_em`.
    pub port_classes: BTreeMap<String, usize>,
    /// Of a million pairs of filters, those that overlap (estimated).
    pub overlaps_per_million: usize,
}

impl Statistics {
    /// Counts a set.
    pub fn of(filters: &[Filter]) -> Statistics {
        let tested: BTreeSet<Filter> =
            filters.iter().map(|f| Filter { flags: Flags::default(), ..*f }).collect();
        let sources: BTreeSet<Prefix> = filters.iter().map(|f| f.source).collect();
        let destinations: BTreeSet<Prefix> = filters.iter().map(|f| f.destination).collect();
        let classes =
            |f: &Filter| format!("{}_{}", f.source_ports.class().name(), f.destination_ports.class().name());
        Statistics {
            filters: filters.len(),
            different: tested.len(),
            sources: sources.len(),
            destinations: destinations.len(),
            address_pairs: filters.iter().map(|f| (f.source, f.destination)).collect::<BTreeSet<_>>().len(),
            source_ports: filters.iter().map(|f| f.source_ports).collect::<BTreeSet<PortRange>>().len(),
            destination_ports: filters
                .iter()
                .map(|f| f.destination_ports)
                .collect::<BTreeSet<PortRange>>()
                .len(),
            source_lengths: lengths(filters, |f| f.source),
            destination_lengths: lengths(filters, |f| f.destination),
            source_nesting: nesting(&sources),
            destination_nesting: nesting(&destinations),
            protocols: count(filters.iter().map(|f| f.protocol)),
            port_classes: count(filters.iter().map(classes)),
            overlaps_per_million: overlaps_per_million(filters),
        }
    }

    /// How far apart two sets are, in percent for each thing compared: 0 is alike, 100 is
    /// nothing in common.
    pub fn distance(&self, other: &Statistics) -> Distance {
        Distance {
            source_lengths: apart(&enumerate(&self.source_lengths), &enumerate(&other.source_lengths)),
            destination_lengths: apart(
                &enumerate(&self.destination_lengths),
                &enumerate(&other.destination_lengths),
            ),
            protocols: apart(&self.protocols, &other.protocols),
            port_classes: apart(&self.port_classes, &other.port_classes),
        }
    }
}

/// How far apart two sets are, in percent: the share of filters that would have to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Distance {
    /// In lengths of source prefixes.
    pub source_lengths: u32,
    /// In lengths of destination prefixes.
    pub destination_lengths: u32,
    /// In protocols.
    pub protocols: u32,
    /// In classes of ports.
    pub port_classes: u32,
}

fn lengths(filters: &[Filter], side: impl Fn(&Filter) -> Prefix) -> [usize; 33] {
    let mut counts = [0; 33];
    for filter in filters {
        counts[usize::from(side(filter).len())] += 1;
    }
    counts
}

fn count<K: Ord>(keys: impl Iterator<Item = K>) -> BTreeMap<K, usize> {
    let mut counts = BTreeMap::new();
    for key in keys {
        *counts.entry(key).or_insert(0) += 1;
    }
    counts
}

/// Prefixes by how many of `prefixes` hold them.
fn nesting(prefixes: &BTreeSet<Prefix>) -> BTreeMap<usize, usize> {
    let depth = |prefix: &Prefix| {
        let parents = (1..=prefix.len()).filter_map(|len| prefix.parent(len));
        parents.filter(|parent| prefixes.contains(parent)).count()
    };
    count(prefixes.iter().filter(|prefix| prefix.len() > 0).map(depth))
}

fn overlaps_per_million(filters: &[Filter]) -> usize {
    if filters.len() < 2 {
        return 0;
    }
    let mut draw = Draw::new(0, "pairs of filters");
    let overlapping = (0..PAIRS).filter(|_| {
        let first = draw.index(filters.len());
        let other = (first + 1 + draw.index(filters.len() - 1)) % filters.len();
        filters[first].overlaps(&filters[other])
    });
    overlapping.count() * 1_000_000 / PAIRS as usize
}

fn enumerate(counts: &[usize; 33]) -> BTreeMap<usize, usize> {
    counts.iter().copied().enumerate().collect()
}

/// Half the sum of the differences of shares, in percent.
fn apart<K: Ord>(one: &BTreeMap<K, usize>, two: &BTreeMap<K, usize>) -> u32 {
    let total = |counts: &BTreeMap<K, usize>| counts.values().sum::<usize>().max(1) as u64;
    let share = |counts: &BTreeMap<K, usize>, key: &K| {
        counts.get(key).copied().unwrap_or(0) as u64 * 1_000_000 / total(counts)
    };
    let keys: BTreeSet<&K> = one.keys().chain(two.keys()).collect();
    let differences: u64 = keys.iter().map(|key| share(one, key).abs_diff(share(two, key))).sum();
    (differences / 20_000) as u32
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} filters, {} different; different sources {}, destinations {}, pairs {}, source ports {}, \
             destination ports {}; overlapping pairs {} in a million",
            self.filters,
            self.different,
            self.sources,
            self.destinations,
            self.address_pairs,
            self.source_ports,
            self.destination_ports,
            self.overlaps_per_million,
        )?;
        writeln!(f, "  source lengths      {}", histogram(enumerate(&self.source_lengths)))?;
        writeln!(f, "  destination lengths {}", histogram(enumerate(&self.destination_lengths)))?;
        writeln!(f, "  source nesting      {}", histogram(self.source_nesting.clone()))?;
        writeln!(f, "  destination nesting {}", histogram(self.destination_nesting.clone()))?;
        let protocols = self.protocols.iter().map(|(p, &n)| (p.map_or("*".into(), |p| p.to_string()), n));
        writeln!(f, "  protocols           {}", histogram(protocols))?;
        write!(f, "  port classes        {}", histogram(self.port_classes.clone()))
    }
}

/// Shares in percent, of what has half a percent or more.
fn histogram<K: fmt::Display>(counts: impl IntoIterator<Item = (K, usize)>) -> String {
    let counts: Vec<(K, usize)> = counts.into_iter().collect();
    let total = counts.iter().map(|(_, n)| n).sum::<usize>().max(1);
    let shares = counts.iter().map(|(key, n)| (key, (n * 100 + total / 2) / total));
    let text: Vec<String> =
        shares.filter(|(_, share)| *share > 0).map(|(key, share)| format!("{key}:{share}%")).collect();
    text.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classbench::read_filters;

    fn set(lines: &str) -> Statistics {
        Statistics::of(&read_filters(lines.as_bytes()).unwrap())
    }

    #[test]
    fn a_set_is_counted() {
        let statistics = set("@10.0.0.0/8\t1.2.3.4/32\t0 : 65535\t80 : 80\t0x06/0xFF\t0x0/0x0\n\
                              @10.1.0.0/16\t1.2.3.4/32\t0 : 65535\t80 : 80\t0x06/0xFF\t0x0/0x0\n\
                              @10.1.0.0/16\t1.2.3.4/32\t0 : 65535\t80 : 80\t0x06/0xFF\t0x1/0x1\n\
                              @0.0.0.0/0\t1.2.3.5/32\t0 : 65535\t80 : 80\t0x06/0xFF\t0x0/0x0\n");
        assert_eq!(
            statistics.to_string(),
            "4 filters, 3 different; different sources 3, destinations 2, pairs 3, source ports 1, \
             destination ports 1; overlapping pairs 499700 in a million\n  \
             source lengths      0:25% 8:25% 16:50%\n  \
             destination lengths 32:100%\n  \
             source nesting      1:50% 2:50%\n  \
             destination nesting 1:100%\n  \
             protocols           6:100%\n  \
             port classes        wc_em:100%"
        );
    }

    #[test]
    fn distance_is_the_share_that_would_have_to_change() {
        let line = "@10.0.0.0/8 1.2.3.4/32 0 : 65535 80 : 80 0x06/0xFF\n";
        let one = set(&line.repeat(2));
        let other = set(&format!("{line}{}", line.replace("0x06", "0x11").replace("/8", "/9")));
        assert_eq!(one.distance(&one).protocols, 0);
        let distance = one.distance(&other);
        assert_eq!((distance.protocols, distance.source_lengths, distance.port_classes), (50, 50, 0));
    }

    #[test]
    fn an_empty_set_has_statistics() {
        assert_eq!(set("").overlaps_per_million, 0);
    }
}
