//! The shared bucket in ordinary memory: one source, a million sources, a source in debt.
//!
//! The kernel charges the same words with the same code; its cost per packet is measured by `xdp`.

use criterion::{Criterion, criterion_group, criterion_main};
use portcullis_abi::{Rate, Secret, Set, charge, find_or_take, key_v4, set_index};
use std::hint::black_box;

/// Sets of the default table; four sources each.
const SETS: usize = 1 << 18;
const SECRET: Secret = Secret { a: 0x243f_6a88_85a3_08d3, b: 0x1319_8a2e_0370_7345 };

fn bucket(c: &mut Criterion) {
    let table: Vec<Set> = (0..SETS).map(|_| Set::default()).collect();
    let mut group = c.benchmark_group("bucket");
    let free = Rate::per_second(1_000_000_000, 1_000_000);
    let mut now = 1_000_000_000u64;
    group.bench_function("one source, conforming", |b| {
        b.iter(|| {
            now += 1000;
            one(&table, black_box(0x7f00_0001), now, free)
        });
    });
    let tight = Rate::per_second(1, 1);
    group.bench_function("one source, limited", |b| {
        b.iter(|| {
            now += 1;
            one(&table, black_box(0x7f00_0002), now, tight)
        });
    });
    let mut source = 1u32;
    group.bench_function("a million sources", |b| {
        b.iter(|| {
            now += 1000;
            // A full-period generator over 2^20 addresses, in an order that no cache can guess.
            source = source.wrapping_mul(1_664_525).wrapping_add(1_013_904_223) & 0xf_ffff;
            one(&table, 0x0a00_0000 | source, now, free)
        });
    });
    group.finish();
}

fn one(table: &[Set], address: u32, now: u64, rate: Rate) -> bool {
    let key = key_v4(address);
    let set = &table[set_index(key, &SECRET, table.len())];
    charge(&find_or_take(set, key, now).request_tat, now, rate, 1).conforms()
}

criterion_group!(benches, bucket);
criterion_main!(benches);
