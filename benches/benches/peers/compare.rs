//! One set after the other, both sides in turns, and a table of ratios.

use hipac_bench_data::FilterFamily;
use hipac_benches::{Ready, Set, Source, corpus, cpu_s, is_measurement, take_turns};

use crate::rte_acl::{Acl, Eal, Header, METHODS};

/// Headers of one call of a batch.
const BATCH: usize = 256;

/// Memory that must be free for the largest builds: rte_acl asks for 10.5 GB on the way.
const ROOMY_BYTES: u64 = 14 << 30;

pub(crate) fn run() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let is_full = words.iter().any(|word| word == "--full");
    let part = words.iter().find(|word| !word.starts_with('-'));
    let eal = match Eal::start() {
        Ok(eal) => eal,
        Err(why) => return println!("skipped: {why}"),
    };
    let mut rows = Vec::new();
    for source in sources(is_full).into_iter().filter(|s| part.is_none_or(|part| s.name().contains(part))) {
        let set = source.load();
        if set.filters.len() > 50_000 && memory_available() < ROOMY_BYTES {
            println!("{}: skipped, rte_acl may want 10 GB to build it and they are not free", set.name);
            continue;
        }
        match compare(&eal, &set) {
            Ok(row) => rows.push(row),
            Err(why) => println!("{}: rte_acl gives up: {why}", set.name),
        }
    }
    print(&rows);
}

fn sources(is_full: bool) -> Vec<Source> {
    let sizes: &[(&str, u32)] = match (is_measurement(), is_full) {
        (false, _) => &[("_1k", 1000)],
        (true, false) => &[("_1k", 1000), ("_10k", 10_000)],
        (true, true) => &[("_1k", 1000), ("_10k", 10_000), ("_100k", 100_000)],
    };
    let of_size = |&(part, size): &(&str, u32)| {
        if corpus().is_some() {
            return Source::files(part);
        }
        let families = [FilterFamily::Access, FilterFamily::Firewall, FilterFamily::Chain];
        families.map(|family| Source::Family(family, size)).into()
    };
    sizes.iter().flat_map(of_size).collect()
}

/// Bytes that programs may still take; plenty where nobody says.
fn memory_available() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.map_or(u64::MAX, |kilobytes| kilobytes << 10)
}

/// What one side costs.
struct Side {
    single_ns: f64,
    batch_ns: f64,
    bytes: usize,
    build_s: f64,
}

struct Row {
    name: String,
    rules: usize,
    packets: usize,
    hipac: Side,
    peer: Side,
    /// The peer's best methods: one packet a call, and batched.
    methods: [&'static str; 2],
    differing: usize,
}

fn compare(eal: &Eal, set: &Set) -> Result<Row, String> {
    let begin = cpu_s();
    let ready: Ready = set.ready();
    let hipac_build_s = cpu_s() - begin;
    let (before, begin) = (eal.allocated(), cpu_s());
    let mut acl = Acl::build(eal, &set.name, &set.filters)?;
    let (peer_build_s, peer_bytes) = (cpu_s() - begin, eal.allocated() - before);

    let headers: Vec<Header> = set.packets.iter().map(Header::from).collect();
    let pointers: Vec<&Header> = headers.iter().collect();
    let mut found = vec![0; pointers.len()];
    acl.classify(&pointers, &mut found);
    let differing =
        found.iter().zip(ready.filters_found()).filter(|(theirs, ours)| **theirs != *ours).count();

    let count = pointers.len();
    let mut hipac = [f64::MAX; 2];
    let (mut peer, mut methods) = ([f64::MAX; 2], ["none"; 2]);
    for (name, method) in METHODS {
        if !acl.use_method(method) {
            continue;
        }
        let acl = &acl;
        let (mut out, mut one) = ([0; BATCH], [0; 1]);
        let times = take_turns(
            count,
            &mut [
                Box::new(|| ready.walk_single()),
                Box::new(|| {
                    pointers.chunks(1).fold(0, |sum, header| {
                        acl.classify(header, &mut one);
                        sum + u64::from(one[0])
                    })
                }),
                Box::new(|| ready.walk_batch()),
                Box::new(|| {
                    pointers.chunks(BATCH).fold(0, |sum, headers| {
                        let out = &mut out[..headers.len()];
                        acl.classify(headers, out);
                        sum + out.iter().copied().map(u64::from).sum::<u64>()
                    })
                }),
            ],
        );
        for kind in 0..2 {
            hipac[kind] = hipac[kind].min(times[2 * kind]);
            if times[2 * kind + 1] < peer[kind] {
                (peer[kind], methods[kind]) = (times[2 * kind + 1], name);
            }
        }
    }
    let side = |[single_ns, batch_ns]: [f64; 2], bytes, build_s| Side { single_ns, batch_ns, bytes, build_s };
    Ok(Row {
        name: set.name.clone(),
        rules: set.filters.len(),
        packets: count,
        hipac: side(hipac, ready.structure_bytes, hipac_build_s),
        peer: side(peer, peer_bytes, peer_build_s),
        methods,
        differing,
    })
}

fn print(rows: &[Row]) {
    println!("\nhipac : rte_acl; × says how many times as much rte_acl takes");
    println!(
        "{:<16}{:>8}{:>9}  {:<26}{:<26}{:<26}{:<26}",
        "set", "rules", "packets", "one packet a call, ns", "batches of 256, ns", "structure, MB", "build, s"
    );
    for row in rows {
        let pair = |ours: f64, theirs: f64, digits: usize| {
            format!("{ours:.digits$} : {theirs:.digits$} ({:.1}×)", theirs / ours.max(1e-9))
        };
        let (hipac, peer) = (&row.hipac, &row.peer);
        println!(
            "{:<16}{:>8}{:>9}  {:<26}{:<26}{:<26}{:<26}{}",
            row.name,
            row.rules,
            row.packets,
            pair(hipac.single_ns, peer.single_ns, 1),
            pair(hipac.batch_ns, peer.batch_ns, 1),
            pair(hipac.bytes as f64 / 1e6, peer.bytes as f64 / 1e6, 2),
            pair(hipac.build_s, peer.build_s, 3),
            row.methods.join("/"),
        );
        if row.differing > 0 {
            println!("{:<16}ANSWERS DIFFER for {} of {} packets", "", row.differing, row.packets);
        }
    }
    let differing: usize = rows.iter().map(|row| row.differing).sum();
    println!(
        "answers compared: {}, differing: {differing}",
        rows.iter().map(|row| row.packets).sum::<usize>()
    );
    assert_eq!(differing, 0, "one of the two is wrong: hipac verify knows which");
}
