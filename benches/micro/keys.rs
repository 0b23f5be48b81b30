//! The look-up of an API key among few and among a million.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use portcullis::plugin::consumer::{Consumer, Consumers};
use portcullis_config::KeyHash;

/// Keys that are asked for, one after the other: more than caches hold lines of the larger table.
const ASKED: usize = 1 << 16;

fn key(number: usize) -> [u8; 32] {
    let mut key = *b"key-0000000000000000000000000000";
    let digits = format!("{number:016}");
    key[16..].copy_from_slice(digits.as_bytes());
    key
}

fn look_up(c: &mut Criterion) {
    let mut group = c.benchmark_group("keys");
    for count in [10_000, 1_000_000] {
        let mut consumers = Consumers::default();
        let owner = consumers.push(Consumer::default());
        for number in 0..count {
            consumers.push_key(owner, "k", KeyHash::of(&key(number)), Duration::MAX);
        }
        // Far from each other, in no order.
        let asked: Vec<_> = (0..ASKED).map(|number| key(number.wrapping_mul(7_919_993) % count)).collect();
        let mut next = 0;
        group.bench_function(BenchmarkId::new("known", count), |b| {
            b.iter(|| {
                next = (next + 1) % ASKED;
                assert!(consumers.by_key(black_box(&asked[next]), Duration::ZERO).is_some());
            })
        });
        group.bench_function(BenchmarkId::new("unknown", count), |b| {
            b.iter(|| {
                next = (next + 1) % ASKED;
                assert!(consumers.by_key(black_box(&asked[next][..31]), Duration::ZERO).is_none());
            })
        });
    }
    group.finish();
}

criterion_group!(benches, look_up);
criterion_main!(benches);
