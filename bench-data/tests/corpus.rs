//! The literature's own files, when they are at hand: `HIPAC_CORPUS` names their folder.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::time::Instant;

use hipac_bench_data::classbench::{read_filters, read_packets, write_filters, write_packets};
use hipac_bench_data::classbench_gen::{Options, generate};
use hipac_bench_data::statistics::Statistics;
use hipac_bench_data::{FilterFamily, read_seed_file};

/// The folder of ClassBench files; `None`, with a word about it, when there is none.
fn classbench_folder() -> Option<PathBuf> {
    let Some(corpus) = std::env::var_os("HIPAC_CORPUS") else {
        eprintln!("skipped: HIPAC_CORPUS is not set");
        return None;
    };
    Some(PathBuf::from(corpus).join("classbench"))
}

fn files(folder: &PathBuf, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == extension));
    paths.sort();
    assert!(!paths.is_empty(), "{} has no .{extension}", folder.display());
    paths
}

#[test]
fn filter_files_are_written_as_they_were_read() {
    let Some(folder) = classbench_folder() else { return };
    for path in files(&folder, "rules") {
        let text = std::fs::read(&path).unwrap();
        let start = Instant::now();
        let filters = read_filters(&text[..]).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let read = start.elapsed();
        let mut written = Vec::new();
        write_filters(&mut written, &filters).unwrap();
        assert!(written == text, "{} changes when it is written", path.display());
        println!("{}: {} filters read in {read:?}", path.display(), filters.len());
    }
}

#[test]
fn trace_files_are_written_as_they_were_read_and_fit_their_filters() {
    let Some(folder) = classbench_folder() else { return };
    for path in files(&folder, "trace") {
        let text = std::fs::read(&path).unwrap();
        let packets = read_packets(&text[..]).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut written = Vec::new();
        write_packets(&mut written, &packets).unwrap();
        assert!(written == text, "{} changes when it is written", path.display());

        let rules = File::open(path.with_extension("rules")).unwrap();
        let filters = read_filters(BufReader::new(rules)).unwrap();
        for packet in packets {
            let number = packet.filter.unwrap() as usize;
            assert!(filters[number].contains(&packet), "{}: {packet:?}", path.display());
        }
    }
}

/// Which of our families stands beside which set.
const COMPARED: [(&str, FilterFamily); 3] =
    [("acl1", FilterFamily::Access), ("fw1", FilterFamily::Firewall), ("ipc1", FilterFamily::Chain)];

/// Prints set, set drawn from its parameter file, and set of our family; run with `--nocapture`.
#[test]
fn our_families_resemble_the_literatures_sets() {
    let Some(folder) = classbench_folder() else { return };
    for (name, family) in COMPARED {
        let seed_file = File::open(folder.join(format!("seeds/{name}_seed"))).unwrap();
        let drawn_from = read_seed_file(BufReader::new(seed_file)).unwrap();
        for size in ["1k", "10k", "100k"] {
            let rules = File::open(folder.join(format!("{name}_{size}.rules"))).unwrap();
            let real = Statistics::of(&read_filters(BufReader::new(rules)).unwrap());
            let options = Options::new(real.different as u32, 1);
            let start = Instant::now();
            let drawn = Statistics::of(&generate(&drawn_from, &options).unwrap());
            let ours = Statistics::of(&generate(&family.parameters(), &options).unwrap());
            println!("{name}_{size}           {real}");
            println!("from its parameters, spread {:?}  {drawn}", options.spread);
            println!("  apart {:?}", real.distance(&drawn));
            println!("{}  {ours}", family.name());
            println!("  apart {:?} ({:?})\n", real.distance(&ours), start.elapsed());
            let distance = real.distance(&ours);
            for percent in [
                distance.source_lengths,
                distance.destination_lengths,
                distance.protocols,
                distance.port_classes,
            ] {
                assert!(percent <= 25, "{} is {distance:?} from {name}_{size}", family.name());
            }
        }
    }
}
