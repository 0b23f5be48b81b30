//! The look-up of an API key among few and among a million.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use portcullis::http::{Head, Known};
use portcullis::plugin::consumer::{Consumer, Consumers, CredentialRef};
use portcullis::plugin::credentials::KeyTable;
use portcullis_config::KeyHash;

/// Keys that are asked for, one after the other: more than caches hold lines of the larger table.
const ASKED: usize = 1 << 16;

fn key(number: usize) -> [u8; 32] {
    let mut key = *b"key-0000000000000000000000000000";
    let digits = format!("{number:016}");
    key[16..].copy_from_slice(digits.as_bytes());
    key
}

/// A table of each size: the look-up in the table alone, the same with the hash of the key, which is what a request
/// waits for, and all of it with what is then read of the credential and its owner.
fn look_up(c: &mut Criterion) {
    let mut group = c.benchmark_group("keys");
    for count in [10_000, 1_000_000] {
        let mut consumers = Consumers::default();
        let mut table = KeyTable::with_room(count);
        // Each with a few keys of its own.
        let owners: Vec<_> = (0..count.div_ceil(KEYS_EACH)).map(|_| consumers.push(owner())).collect();
        for number in 0..count {
            let hash = KeyHash::of(&key(number));
            consumers.push_key(owners[number / KEYS_EACH], "k", hash, Duration::MAX);
            table.insert(hash, CredentialRef(number as u32), Duration::MAX);
        }
        // Far from each other, in no order.
        let asked: Vec<_> = (0..ASKED).map(|number| key(number.wrapping_mul(7_919_993) % count)).collect();
        let hashes: Vec<_> = asked.iter().map(|key| KeyHash::of(key)).collect();
        let mut next = 0;
        let mut bench = |name: &str, mut look_up: Box<dyn FnMut(usize) -> bool + '_>| {
            group.bench_function(BenchmarkId::new(name, count), |b| {
                b.iter(|| {
                    next = (next + 1) % ASKED;
                    assert!(look_up(black_box(next)));
                })
            });
        };
        bench("table", Box::new(|at| table.find(hashes[at], Duration::ZERO).is_some()));
        bench("known", Box::new(|at| consumers.by_key(&asked[at], Duration::ZERO).is_some()));
        bench("unknown", Box::new(|at| consumers.by_key(&asked[at][..31], Duration::ZERO).is_none()));
        let mut head = Head::new();
        bench(
            "known, and its owner told",
            Box::new(|at| {
                let found = consumers.by_key(&asked[at], Duration::ZERO);
                found.is_some_and(|found| {
                    let credential = consumers.credential(found);
                    head.clear();
                    consumers.tell(credential.consumer, &mut head);
                    head.append_known(Known::XCredentialIdentifier, credential.identifier);
                    true
                })
            }),
        );
    }
    group.finish();
}

/// Keys of one consumer.
const KEYS_EACH: usize = 4;

fn owner() -> Consumer {
    Consumer { username: Some("owner".to_owned()), ..Consumer::default() }
}

criterion_group!(benches, look_up);
criterion_main!(benches);
