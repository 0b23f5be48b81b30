//! What counting costs a request, and a scrape the control thread.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use portcullis::id::ShardId;
use portcullis::metrics::{Exposition, Registry};

fn count(c: &mut Criterion) {
    let registry = Registry::new(1, 2_000);
    let shard = registry.shard(ShardId(0)).expect("the only shard");
    let route = registry.route("users");
    let mut group = c.benchmark_group("metrics");
    group.bench_function("counter", |b| b.iter(|| shard.bytes_in.add(black_box(200))));
    let mut duration = 1_000u64;
    group.bench_function("histogram", |b| {
        b.iter(|| {
            // Other buckets each time, so that the branch on the first one is not learnt.
            duration = duration.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            shard.gateway_latency.record(duration >> 40)
        })
    });
    group.bench_function("request", |b| {
        b.iter(|| {
            shard.count_request(black_box(200));
            shard.gateway_latency.record(black_box(12_000));
            route.shard(ShardId(0)).record(black_box(200), 1_012_000, Some(1_000_000));
        })
    });
    for i in 0..1_000 {
        registry.route(&format!("route-{i}")).shard(ShardId(0)).record(200, 1_000_000, Some(900_000));
    }
    group.sample_size(20);
    group.bench_function("scrape_of_1000_routes", |b| {
        b.iter(|| {
            let mut out = Exposition::new();
            registry.render(&mut out);
            out.finish().len()
        })
    });
    group.finish();
}

criterion_group!(benches, count);
criterion_main!(benches);
