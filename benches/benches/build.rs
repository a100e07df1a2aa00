//! Builds: a ruleset becomes an image.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hipac_benches::Source;
use hipac_compiler::Options;

fn build(criterion: &mut Criterion) {
    let options = Options { memory_bytes_max: 1 << 30, ..Options::default() };
    for source in Source::all() {
        let set = source.load();
        let ruleset = set.ruleset();
        let mut group = criterion.benchmark_group("build");
        group.throughput(Throughput::Elements(set.filters.len() as u64));
        group.bench_function(&set.name, |b| {
            b.iter(|| black_box(hipac_compiler::compile(&ruleset, &options).expect("it compiles")));
        });
        group.finish();
    }
}

criterion_group! {
    name = benches;
    // Short: there are many sets.
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(700));
    targets = build
}
criterion_main!(benches);
