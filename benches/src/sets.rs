//! Sets of filters with traces.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use hipac_bench_data::hostile::Hostile;
use hipac_bench_data::trace::{self, Mixture, Popularity};
use hipac_bench_data::{Filter, FilterFamily, TracePacket, classbench, classbench_gen};

use crate::is_measurement;

/// Packets of a generated trace: more than branch predictors remember.
const PACKETS: u32 = 1 << 16;

/// Packets of a trace for a hostile set, where a lookup may cost microseconds.
const HOSTILE_PACKETS: u32 = 1 << 12;

/// Where a set comes from. Nothing is made or read before [`Source::load`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// One of our families.
    Family(FilterFamily, u32),
    /// One made to hurt.
    Hostile(Hostile, u32),
    /// A ClassBench file of the corpus, with its trace beside it.
    File(PathBuf),
}

/// Filters, and packets of which no two in a row are equal.
#[derive(Debug)]
pub struct Set {
    /// `firewall_10k`
    pub name: String,
    /// First match wins.
    pub filters: Vec<Filter>,
    /// What is looked up.
    pub packets: Vec<TracePacket>,
}

/// The corpus' folder, when there is one.
pub fn corpus() -> Option<PathBuf> {
    std::env::var_os("HIPAC_CORPUS").map(PathBuf::from)
}

impl Source {
    /// All sets that are measured; the smallest only when nothing is.
    pub fn all() -> Vec<Source> {
        let (sizes, hostile): (&[u32], &[u32]) =
            if is_measurement() { (&[1000, 10_000, 100_000], &[1000, 10_000]) } else { (&[1000], &[]) };
        let mut all = Vec::new();
        for &size in sizes {
            all.extend(FilterFamily::ALL.map(|family| Source::Family(family, size)));
        }
        for &size in hostile {
            all.extend(Hostile::ALL.map(|kind| Source::Hostile(kind, size)));
        }
        all.extend(Source::files(if is_measurement() { "" } else { "_1k" }));
        all
    }

    /// The filter sets of the corpus whose name contains `part`, by rising size.
    pub fn files(part: &str) -> Vec<Source> {
        let Some(folder) = corpus() else {
            eprintln!("sets of the corpus are skipped: HIPAC_CORPUS names no folder");
            return Vec::new();
        };
        let Ok(entries) = std::fs::read_dir(folder.join("classbench")) else {
            eprintln!("sets of the corpus are skipped: {} has no classbench/", folder.display());
            return Vec::new();
        };
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let mut files: Vec<(u64, PathBuf)> = paths
            .filter(|path| path.extension().is_some_and(|e| e == "rules") && stem(path).contains(part))
            .map(|path| (path.metadata().map_or(0, |data| data.len()), path))
            .collect();
        files.sort();
        files.into_iter().map(|(_, path)| Source::File(path)).collect()
    }

    /// Its name.
    pub fn name(&self) -> String {
        match self {
            Source::Family(family, size) => format!("{}_{}k", family.name(), size / 1000),
            Source::Hostile(kind, size) => format!("{}_{}k", kind.name(), size / 1000),
            Source::File(path) => stem(path),
        }
    }

    /// Makes or reads it.
    ///
    /// # Panics
    /// When a file of the corpus cannot be read: there is nothing to measure.
    pub fn load(&self) -> Set {
        let (filters, packets) = match self {
            Source::Family(family, size) => {
                let options = classbench_gen::Options::new(*size, 1);
                let filters = classbench_gen::generate(&family.parameters(), &options);
                let filters = filters.expect("families can be drawn from");
                let packets = draw(&filters, PACKETS);
                (filters, packets)
            }
            Source::Hostile(kind, size) => {
                let filters = kind.generate(*size, 1).expect("the size is below the limit");
                let packets = draw(&filters, HOSTILE_PACKETS);
                (filters, packets)
            }
            Source::File(path) => {
                let filters =
                    classbench::read_filters(open(path)).unwrap_or_else(|e| panic!("{path:?}: {e}"));
                let path = path.with_extension("trace");
                let packets =
                    classbench::read_packets(open(&path)).unwrap_or_else(|e| panic!("{path:?}: {e}"));
                (filters, packets)
            }
        };
        Set { name: self.name(), filters, packets: without_repeats(packets) }
    }
}

fn draw(filters: &[Filter], packets: u32) -> Vec<TracePacket> {
    let mixture = Mixture { inside: 8, corners: 1, beside: 1, random: 1 };
    let options = trace::Options {
        popularity: Popularity::Uniform,
        mixture,
        repeats: true,
        ..trace::Options::new(packets, 1)
    };
    trace::generate(filters, &options).expect("repeats are allowed")
}

fn without_repeats(mut packets: Vec<TracePacket>) -> Vec<TracePacket> {
    packets.dedup_by_key(|packet| TracePacket { filter: None, ..*packet });
    packets
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn open(path: &Path) -> BufReader<File> {
    BufReader::new(File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_have_names_filters_and_packets_without_repeats() {
        for source in [Source::Family(FilterFamily::Firewall, 1000), Source::Hostile(Hostile::Nested, 1000)] {
            let set = source.load();
            assert_eq!((set.name.as_str(), set.filters.len()), (source.name().as_str(), 1000));
            assert!(set.name.ends_with("_1k") && set.packets.len() > 4000, "{}", set.name);
            let bare = |p: &TracePacket| TracePacket { filter: None, ..*p };
            assert!(set.packets.windows(2).all(|pair| bare(&pair[0]) != bare(&pair[1])));
        }
    }
}
