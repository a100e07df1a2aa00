//! Loads: from text, or from an image on disk, to the first verdict.
//!
//! | bench | what happens |
//! |---|---|
//! | `text/…` | parse, compile, open, evaluate one packet |
//! | `mapped/…` | map the image's file, open, evaluate one packet |
//! | `audit/…` | read every byte of the image once, as is due to images from outside |
//!
//! The first text is the case of 2003: 10,000 rules in 1,000 chains, one call to each.
#![allow(unsafe_code)] // one mapping, argued at it

use std::fmt::Write as _;
use std::fs::File;
use std::hint::black_box;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hipac_bench_data::iptables_gen;
use hipac_benches::{Source, corpus, is_measurement};
use hipac_classifier::{Decision, Image, NoHost, Packet};
use hipac_compiler::Options;
use hipac_rules::{Family, ParseOptions, Ruleset, parse};

/// So many chains, each called for a network of its own, of `rules` rules each.
fn chains(chains: u32, rules: u32) -> String {
    let mut text = String::from("*filter\n:FORWARD DROP [0:0]\n");
    (0..chains).for_each(|c| writeln!(text, ":net{c} - [0:0]").expect("memory"));
    for c in 0..chains {
        let (high, low) = (c >> 8, c & 255);
        writeln!(text, "-A FORWARD -s 10.{high}.{low}.0/24 -j net{c}").expect("memory");
        for r in 1..rules {
            let port = 1000 + 7 * r;
            writeln!(text, "-A net{c} -d 192.168.{r}.0/24 -p tcp -m tcp --dport {port} -j ACCEPT")
                .expect("memory");
        }
    }
    text + "COMMIT\n"
}

fn texts() -> Vec<(String, String)> {
    let mut texts = vec![("10k rules in 1k chains".to_owned(), chains(1000, 10))];
    if !is_measurement() {
        texts[0] = ("100 rules in 10 chains".to_owned(), chains(10, 10));
        return texts;
    }
    let options = iptables_gen::Options::new(Family::V4, 100_000, 1);
    let text = iptables_gen::generate(&options).expect("the size is below the limit");
    texts.push(("100k rules".to_owned(), text));
    match corpus().and_then(|folder| largest(&folder.join("rulesets"))) {
        Some(text) => texts.push(("largest dump of the corpus".to_owned(), text)),
        None => eprintln!("the corpus' largest dump is skipped: HIPAC_CORPUS names no folder"),
    }
    texts
}

/// The largest file of a folder that is text.
fn largest(folder: &Path) -> Option<String> {
    let files = std::fs::read_dir(folder).ok()?.filter_map(|entry| entry.ok());
    let path = files.max_by_key(|entry| entry.metadata().map_or(0, |data| data.len()))?.path();
    std::fs::read_to_string(path).ok()
}

fn compiled(text: &str) -> Vec<u8> {
    compile(&parse(text.as_bytes(), &ParseOptions::default()).ruleset)
}

fn compile(ruleset: &Ruleset) -> Vec<u8> {
    let options = Options { memory_bytes_max: 1 << 30, ..Options::default() };
    hipac_compiler::compile(ruleset, &options).expect("it compiles").image
}

fn first_verdict<B: AsRef<[u8]>>(bytes: B) -> Decision {
    let image = Image::open(bytes).expect("the compiler writes images");
    // Of a dump without a filter table the first built-in chain there is.
    let built_in = image.entries().find(|(_, entry, _)| !entry.called).map(|(id, ..)| id);
    let entry = image.find_entry("filter/FORWARD").or(built_in).expect("a table has a chain");
    let mut packet = Packet { is_v6: image.is_v6(), source: 0x0a00_0101, ..Packet::default() };
    image.evaluate(entry, &mut packet, &mut NoHost).expect("the image is sound")
}

fn load(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("load");
    for (name, text) in texts() {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(format!("text/{name}"), |b| {
            b.iter(|| black_box(first_verdict(compiled(&text))));
        });
        from_disk(&mut group, &name, &compiled(&text));
    }
    let source =
        Source::Family(hipac_bench_data::FilterFamily::Access, if is_measurement() { 100_000 } else { 1000 });
    let set = source.load();
    from_disk(&mut group, &set.name, &compile(&set.ruleset()));
    group.finish();
}

type Group<'c> = criterion::BenchmarkGroup<'c, criterion::measurement::WallTime>;

fn from_disk(group: &mut Group<'_>, name: &str, image: &[u8]) {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(image).expect("room for an image");
    group.throughput(Throughput::Bytes(image.len() as u64));
    group.bench_function(format!("mapped/{name}"), |b| {
        b.iter(|| {
            let file = File::open(file.path()).expect("it was just written");
            // SAFETY: the file is a temporary one of this process, which nobody else knows, and
            // it is not written to again.
            let map = unsafe { memmap2::Mmap::map(&file) }.expect("files can be mapped");
            black_box(first_verdict(map))
        });
    });
    group.bench_function(format!("audit/{name}"), |b| {
        let image = Image::open(image).expect("the compiler writes images");
        b.iter(|| black_box(image.audit()).expect("the image is sound"));
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(2));
    targets = load
}
criterion_main!(benches);
