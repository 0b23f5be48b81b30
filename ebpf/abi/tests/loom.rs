//! Every interleaving of concurrent charges and insertions, by loom, over the same source that the kernel
//! and the gateway run. Loom also explores stale reads, which x86 would hide.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;
use portcullis_abi::{
    Block, Rate, Reason, Set, WAYS, Way, Word, ban, charge, charge_within, find, find_or_take, penalize,
    refund,
};

const NOW: u64 = 1_000_000;

struct Checked(AtomicU64);

impl Word for Checked {
    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn swap_if(&self, seen: u64, next: u64) -> Result<(), u64> {
        self.0.compare_exchange(seen, next, Ordering::SeqCst, Ordering::Relaxed).map(|_| ())
    }

    fn fence() {
        loom::sync::atomic::fence(Ordering::SeqCst);
    }
}

fn word(value: u64) -> Checked {
    Checked(AtomicU64::new(value))
}

/// A set with these (key, packet TAT), no other state.
fn set(ways: [(u64, u64); WAYS]) -> Arc<Set<Checked>> {
    Arc::new(Set {
        ways: ways.map(|(key, tat)| Way {
            key: word(key),
            packet_tat: word(tat),
            request_tat: word(0),
            block: word(0),
        }),
    })
}

fn owners(set: &Set<Checked>, key: u64) -> usize {
    set.ways.iter().filter(|way| way.key.read() == key).count()
}

const RATE: Rate = Rate { interval_ns: 10, burst_ns: 20 };

#[test]
fn concurrent_charges_never_exceed_the_burst() {
    loom::model(|| {
        let shared = Arc::new(word(0));
        let takers: Vec<_> = (0..2)
            .map(|_| {
                let shared = shared.clone();
                thread::spawn(move || (0..2).filter(|_| charge(&*shared, NOW, RATE, 1).conforms()).count())
            })
            .collect();
        let accepted: usize = takers.into_iter().map(|taker| taker.join().unwrap()).sum();
        assert_eq!(accepted, 2);
        assert_eq!(shared.read(), NOW + 20);
    });
}

#[test]
fn bounded_charges_are_written_or_say_that_they_were_not() {
    loom::model(|| {
        let shared = Arc::new(word(0));
        let other = shared.clone();
        let kernel = thread::spawn(move || charge_within::<_, 1>(&*other, NOW, RATE, 10).is_some());
        let accepted = charge(&*shared, NOW, RATE, 1).conforms();
        let written = usize::from(kernel.join().unwrap()) + usize::from(accepted);
        assert_eq!(shared.read(), NOW + 10 * written as u64);
    });
}

#[test]
fn charge_penalty_and_refund_all_land() {
    loom::model(|| {
        let shared = Arc::new(word(NOW + 5));
        let (a, b) = (shared.clone(), shared.clone());
        let one = thread::spawn(move || penalize(&*a, NOW, 100, 1_000));
        let two = thread::spawn(move || refund(&*b, 3));
        one.join().unwrap();
        two.join().unwrap();
        assert_eq!(shared.read(), NOW + 102);
    });
}

#[test]
fn two_insertions_of_one_key_leave_one_way() {
    loom::model(|| {
        let table = set([(0, 0), (7, NOW + 9), (8, NOW + 9), (9, NOW + 9)]);
        let inserters: Vec<_> = (0..2)
            .map(|_| {
                let table = table.clone();
                thread::spawn(move || {
                    charge(&find_or_take(&*table, 1, NOW).packet_tat, NOW, RATE, 1).conforms()
                })
            })
            .collect();
        for inserter in inserters {
            assert!(inserter.join().unwrap());
        }
        assert_eq!(owners(&table, 1), 1);
        assert_eq!(find(&*table, 1).unwrap().packet_tat.read(), NOW + 20, "both charges count");
    });
}

/// The charge of an earlier packet moves the lowest TAT between the two scans, so they pick different ways.
#[test]
fn insertions_that_pick_different_ways_still_leave_one() {
    loom::model(|| {
        let table = set([(6, 1), (7, 2), (8, NOW + 9), (9, NOW + 9)]);
        let (a, b) = (table.clone(), table.clone());
        let mover = thread::spawn(move || {
            charge(&a.ways[0].packet_tat, NOW, RATE, 1);
            find_or_take(&*a, 1, NOW);
        });
        let inserter = thread::spawn(move || {
            find_or_take(&*b, 1, NOW);
        });
        mover.join().unwrap();
        inserter.join().unwrap();
        assert_eq!(owners(&table, 1), 1);
    });
}

#[test]
fn two_newcomers_both_get_a_way() {
    loom::model(|| {
        let table = set([(0, 0), (0, 0), (8, NOW + 9), (9, NOW + 9)]);
        let other = table.clone();
        let one = thread::spawn(move || {
            find_or_take(&*other, 1, NOW);
        });
        find_or_take(&*table, 2, NOW);
        one.join().unwrap();
        // With no debt yet the later one may take the earlier one's way: it had nothing to lose.
        assert!(owners(&table, 1) + owners(&table, 2) >= 1);
        assert!(owners(&table, 8) == 1 && owners(&table, 9) == 1, "debtors stay");
    });
}

/// The evicted source is charged while its way changes hands: the newcomer never gets its old debt.
#[test]
fn a_newcomer_inherits_at_most_the_racing_charge() {
    loom::model(|| {
        const DEBT: u64 = 1_000;
        let table = set([(6, NOW + DEBT), (7, NOW + 2 * DEBT), (8, NOW + 2 * DEBT), (9, NOW + 2 * DEBT)]);
        let other = table.clone();
        let stale = thread::spawn(move || {
            let way = find(&*other, 6);
            if let Some(way) = way {
                penalize(&way.packet_tat, NOW, 10, 10 * DEBT);
            }
        });
        find_or_take(&*table, 1, NOW);
        stale.join().unwrap();
        let debt = find(&*table, 1).unwrap().packet_tat.read().saturating_sub(NOW);
        assert!(debt <= 10, "{debt}");
    });
}

/// A ban that races with the eviction of its source may be lost, but hits nobody else.
#[test]
fn a_ban_never_lands_on_a_stranger() {
    loom::model(|| {
        let table = set([(6, 1), (7, NOW + 9), (8, NOW + 9), (9, NOW + 9)]);
        let other = table.clone();
        let evictor = thread::spawn(move || {
            find_or_take(&*other, 1, NOW);
        });
        ban(&*table, 6, NOW, NOW + 100_000, 0, Reason::BadChunk);
        evictor.join().unwrap();
        for way in &table.ways {
            if way.key.read() != 6 {
                assert_eq!(way.block_at(NOW), Block::None, "on {}", way.key.read());
            }
        }
    });
}
