//! Lookups in batches, by every machine that this processor has.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hipac_benches::{Ready, Source};
use hipac_classifier::forest::lookup::Machine;

fn batch(criterion: &mut Criterion) {
    for source in Source::all() {
        let set = source.load();
        let mut ready: Ready = set.ready();
        let mut group = criterion.benchmark_group("batch");
        group.throughput(Throughput::Elements(ready.keys.len() as u64));
        for machine in Machine::available() {
            ready.image = ready.image.with_machine(machine);
            group.bench_function(format!("{}/{}", machine.name(), set.name), |b| {
                b.iter(|| black_box(ready.walk_batch()));
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    // Short: there are many sets.
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(700));
    targets = batch
}
criterion_main!(benches);
