//! What a limit costs the request that it lets pass, with its words in the cache and without.
//!
//! The clock stands still and the rates are high, so every charge conforms and writes.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use criterion::{Criterion, criterion_group, criterion_main};
use portcullis::limit::{
    LimiterId, Period, SourceLimiter, SourceSettings, Table, WindowLimiter, Word, limit_key, random_secret,
};
use portcullis_abi::Rate;

const NOW: u64 = 3_600_000_000_000;
const WALL: u64 = 1_709_251_190_000_000_000;
/// 32 MiB of words, more than the caches hold.
const ENTRIES: usize = 1 << 20;
/// Three quarters full.
const SOURCES: u32 = 3 << 18;

fn table(entries: usize) -> Table {
    Table::new(entries, random_secret()).expect("within the bound")
}

/// Walks over all sources in an order that no prefetcher follows.
fn sources() -> impl FnMut() -> u32 {
    let mut i = 0u32;
    move || {
        i = i.wrapping_add(0x9e37_79b1);
        ((u64::from(i) * u64::from(SOURCES)) >> 32) as u32
    }
}

fn charge(c: &mut Criterion) {
    let rate = Rate { interval_ns: 1, burst_ns: u64::MAX >> 2 };
    let mut group = c.benchmark_group("charge");
    let small = table(1024);
    group.bench_function("hot", |b| {
        b.iter(|| small.charge(black_box(1 << 48 | 7), Word::Request, NOW, rate, 1))
    });
    let large = table(ENTRIES);
    let mut next = sources();
    (0..SOURCES).for_each(|source| {
        large.charge(1 << 48 | u64::from(source), Word::Request, NOW, rate, 1);
    });
    group.bench_function("cold", |b| {
        b.iter(|| large.charge(1 << 48 | u64::from(next()), Word::Request, NOW, rate, 1))
    });
    group.finish();
}

fn source(c: &mut Criterion) {
    let trusted = (0..100u8).map(|i| format!("198.51.{i}.0/24").parse().expect("a prefix")).collect();
    let settings = SourceSettings {
        rate: Rate::per_second(1_000_000_000, 1 << 40),
        trusted,
        ..SourceSettings::default()
    };
    let limiter = SourceLimiter::new(&settings);
    let table = table(1024);
    let mut group = c.benchmark_group("source");
    let client = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    group.bench_function("admit", |b| b.iter(|| limiter.admit_request(&table, black_box(client), None, NOW)));
    let proxy = IpAddr::V4(Ipv4Addr::new(198, 51, 50, 1));
    group
        .bench_function("trusted", |b| b.iter(|| limiter.admit_request(&table, black_box(proxy), None, NOW)));
    group.finish();
}

fn window(c: &mut Criterion) {
    let table = table(1024);
    let id = LimiterId::of("bench");
    let mut group = c.benchmark_group("window");
    group.bench_function("key", |b| b.iter(|| limit_key(id, &[black_box(b"c7a2ba1e-consumer")])));
    let key = limit_key(id, &[b"c7a2ba1e-consumer"]);
    for (name, periods) in [
        ("minute", &[Period::Minute][..]),
        ("second_minute_hour_day", &[Period::Second, Period::Minute, Period::Hour, Period::Day]),
        ("month", &[Period::Month]),
    ] {
        let limiter =
            WindowLimiter::new(periods.iter().map(|&period| (period, 1_000_000_000))).expect("limits");
        // The window moves on by a nanosecond's worth of limit for each charge, so it never fills.
        let mut passed = 0;
        group.bench_function(name, |b| {
            b.iter(|| {
                passed += 100;
                limiter.check(&table, black_box(key), NOW + passed, WALL + passed, 1)
            })
        });
    }
    let spent = WindowLimiter::new([(Period::Minute, 1), (Period::Hour, 1)]).expect("limits");
    let key = limit_key(id, &[b"spent"]);
    spent.check(&table, key, NOW, WALL, 1);
    group.bench_function("refused", |b| b.iter(|| spent.check(&table, black_box(key), NOW, WALL, 1)));
    group.finish();
}

criterion_group!(benches, charge, source, window);
criterion_main!(benches);
