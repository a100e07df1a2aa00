//! Lookups one at a time: each key known at once, and each chosen by the answer before.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use hipac_benches::{Ready, Source};
use hipac_classifier::{NoHost, Packet};

fn lookup(criterion: &mut Criterion) {
    for source in Source::all() {
        let set = source.load();
        let ready: Ready = set.ready();
        let mut group = criterion.benchmark_group("lookup");
        group.throughput(Throughput::Elements(ready.keys.len() as u64));
        group.bench_function(format!("single/{}", set.name), |b| b.iter(|| black_box(ready.walk_single())));
        group.bench_function(format!("dependent/{}", set.name), |b| {
            b.iter(|| black_box(ready.walk_dependent()));
        });
        // From a packet, as a data plane has it: the key is made each time.
        let packets: Vec<_> = set.packets.iter().take(1 << 12).map(|&p| Packet::from(p)).collect();
        let entry = ready.image.find_entry("filter/FORWARD").expect("filters become rules of FORWARD");
        group.throughput(Throughput::Elements(packets.len() as u64));
        group.bench_function(format!("evaluate/{}", set.name), |b| {
            b.iter_batched_ref(
                || packets.clone(),
                |packets| {
                    for packet in packets {
                        let decision = ready.image.evaluate(entry, packet, &mut NoHost);
                        black_box(decision).expect("the image is sound");
                    }
                },
                BatchSize::LargeInput,
            );
        });
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
    targets = lookup
}
criterion_main!(benches);
