//! Each strategy keeps its own promise, against a naive reference and across threads.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use proptest::prelude::*;

use super::super::{LimiterId, limit_key, random_secret};
use super::*;

const SECOND: u64 = 1_000_000_000;
/// 2024-02-29T12:00:00Z.
const WALL: u64 = 1_709_208_000 * SECOND;
const NOW: u64 = 5_000 * SECOND;

struct Bed {
    table: Table,
    logs: Vec<Logs>,
    limiter: Limiter,
}

fn quota(span: u64, limit: u64, burst: u64) -> Quota {
    Quota { span: Span::Every(span), limit, burst }
}

impl Bed {
    fn new(algorithm: Algorithm, quotas: &[Quota]) -> Self {
        let limiter = Limiter::new(algorithm, quotas.to_vec(), false).expect("a good limit");
        let table = Table::new(1 << 14, random_secret()).expect("a small table");
        Self { table, logs: limiter.logs(1 << 14), limiter }
    }

    fn check(&self, key: u8, after: u64, cost: u64) -> Decision {
        let key = limit_key(LimiterId::from_number(1), &[&[key]]);
        let place = Place { table: &self.table, logs: &self.logs, key };
        self.limiter.check(place, Moment { now: NOW + after, wall: WALL + after }, cost)
    }
}

/// A step: time since the last one, in milliseconds, whose it is, and what it costs.
fn steps() -> impl Strategy<Value = Vec<(u64, u8, u64)>> {
    prop::collection::vec((prop_oneof![0..300u64, Just(0), 900..2_500u64], 0..3u8, 1..3u64), 1..200)
}

proptest! {
    #[test]
    fn a_sliding_log_admits_no_more_in_any_span(steps in steps(), limit in 1..9u64, span in 1..3_000u64) {
        let span = span * 1_000_000;
        let bed = Bed::new(Algorithm::SlidingLog, &[quota(span, limit, 0)]);
        let (mut now, mut admitted): (u64, HashMap<u8, Vec<u64>>) = (0, HashMap::new());
        for (pause, key, cost) in steps {
            now += pause * 1_000_000;
            let times = admitted.entry(key).or_default();
            let live = times.iter().filter(|time| **time + span > now).count() as u64;
            let decision = bed.check(key, now, cost);
            prop_assert_eq!(decision.allowed(), live + cost <= limit);
            if decision.allowed() {
                times.extend((0..cost).map(|_| now));
                prop_assert_eq!(decision.windows()[0].remaining, limit - live - cost);
            } else if cost <= limit {
                let wait = decision.windows()[0].reset_ns;
                let free = |at: u64| times.iter().filter(|time| **time + span > at).count() as u64 + cost <= limit;
                prop_assert!(free(now + wait) && !free(now + wait - 1));
            }
        }
    }

    #[test]
    fn a_sliding_counter_is_its_estimate(steps in steps(), limit in 1..40u64, span in 1..3_000u64) {
        let span = span * 1_000_000;
        let bed = Bed::new(Algorithm::SlidingCounter, &[quota(span, limit, 0)]);
        let mut now = 0;
        let mut counts: HashMap<(u8, u64), u64> = HashMap::new();
        let mut times: HashMap<u8, Vec<u64>> = HashMap::new();
        for (pause, key, cost) in steps {
            now += pause * 1_000_000;
            let (window, into) = ((WALL + now) / span, (WALL + now) % span);
            let of = |window| counts.get(&(key, window)).copied().unwrap_or(0);
            let weight = (u128::from(span - into) * 4096).div_ceil(u128::from(span)) as u64;
            let used = of(window) + (of(window - 1) * weight).div_ceil(4096);
            let decision = bed.check(key, now, cost);
            prop_assert_eq!(decision.allowed(), used + cost <= limit, "{} of {} used", used, limit);
            if decision.allowed() {
                *counts.entry((key, window)).or_default() += cost;
                prop_assert!(counts[&(key, window)] <= limit);
                let times = times.entry(key).or_default();
                times.extend((0..cost).map(|_| now));
                let last = times.iter().filter(|time| **time + span > now).count() as u64;
                prop_assert!(last <= 2 * limit);
            }
        }
    }

    #[test]
    fn a_token_bucket_admits_its_burst_and_its_rate(steps in steps(), limit in 1..50u64, burst in 1..20u64) {
        let bed = Bed::new(Algorithm::TokenBucket, &[quota(SECOND, limit, burst)]);
        let interval = (SECOND + limit / 2) / limit;
        let (mut now, mut admitted) = (0, Vec::new());
        for (pause, _, cost) in steps {
            now += pause * 1_000_000;
            let decision = bed.check(0, now, cost);
            if decision.allowed() {
                admitted.extend((0..cost).map(|_| now));
            } else if cost <= burst {
                let wait = decision.windows()[0].reset_ns;
                let copy = Bed::new(Algorithm::TokenBucket, bed.limiter.quotas());
                let own = limit_key(LimiterId::from_number(1), &[&[0]]);
                let place = Place { table: &copy.table, logs: &[], key: own };
                let debt = Bucket::new(Algorithm::TokenBucket, &bed.table, &bed.limiter.quotas()[0], own, Moment { now: NOW + now, wall: 0 }).debt();
                copy.limiter.adopt(place, Moment { now: NOW + now, wall: 0 }, &[Raw::Debt(debt)]);
                prop_assert!(!copy.check(0, now + wait - 1, cost).allowed());
                prop_assert!(copy.check(0, now + wait, cost).allowed(), "after the wait it is admitted");
            }
        }
        for (at, first) in admitted.iter().enumerate() {
            for (to, last) in admitted.iter().enumerate().skip(at) {
                prop_assert!((to - at + 1) as u64 <= burst + (last - first) / interval);
            }
        }
    }

    #[test]
    fn a_leaky_bucket_lets_out_one_by_one(steps in steps(), limit in 1..50u64, burst in 0..20u64) {
        let bed = Bed::new(Algorithm::LeakyBucket, &[quota(SECOND, limit, burst)]);
        let interval = (SECOND + limit / 2) / limit;
        let (mut now, mut next) = (0, 0);
        for (pause, _, _) in steps {
            now += pause * 1_000_000;
            let decision = bed.check(0, now, 1);
            let turn = next.max(now);
            prop_assert_eq!(decision.allowed(), turn - now <= burst * interval);
            if decision.allowed() {
                prop_assert_eq!(decision.delay_ns, turn - now);
                next = turn + interval;
            }
        }
    }

    #[test]
    fn several_windows_are_charged_together_or_not_at_all(steps in steps(), which in 0..4usize) {
        use Algorithm::{LeakyBucket, SlidingCounter, SlidingLog, TokenBucket};
        let algorithm = [SlidingLog, SlidingCounter, TokenBucket, LeakyBucket][which];
        let (short, long) = (quota(SECOND, 3, 3), quota(20 * SECOND, 9, 9));
        let both = Bed::new(algorithm, &[long, short]);
        let alone = [short, long].map(|quota| Bed::new(algorithm, &[quota]));
        let mut now = 0;
        for (pause, key, cost) in steps {
            now += pause * 1_000_000;
            let fits = alone.iter().all(|bed| bed.check(key, now, 0).windows()[0].remaining >= cost);
            // Nothing but what both admit is charged to the two that stand alone.
            let decision = both.check(key, now, cost);
            prop_assert_eq!(decision.allowed(), fits);
            if decision.allowed() {
                alone.iter().for_each(|bed| assert!(bed.check(key, now, cost).allowed()));
            }
            for (window, bed) in decision.windows().iter().zip(&alone) {
                prop_assert_eq!(window.remaining, bed.check(key, now, 0).windows()[0].remaining);
            }
        }
    }
}

#[test]
fn threads_share_what_there_is() {
    for algorithm in [Algorithm::SlidingLog, Algorithm::SlidingCounter, Algorithm::TokenBucket] {
        let bed = Bed::new(algorithm, &[quota(3_600 * SECOND, 500, 500)]);
        let admitted = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..400 {
                        admitted.fetch_add(bed.check(7, 0, 1).allowed().into(), SeqCst);
                    }
                });
            }
        });
        assert_eq!(admitted.load(SeqCst), 500, "{algorithm:?}");
    }
}

#[test]
fn what_is_refused_counts_with_a_penalty() {
    let limiter = Limiter::new(Algorithm::SlidingCounter, vec![quota(SECOND, 4, 0)], true).expect("good");
    let bed = Bed { limiter, ..Bed::new(Algorithm::SlidingCounter, &[quota(SECOND, 4, 0)]) };
    let admitted = |times: &[u64]| times.iter().filter(|after| bed.check(0, **after, 1).allowed()).count();
    assert_eq!(admitted(&[0; 12]), 4);
    // Twelve of the second before: three at three quarters of it, and none sooner.
    assert_eq!(admitted(&[SECOND + SECOND / 2]), 0);
    assert_eq!(admitted(&[SECOND + SECOND * 9 / 10]), 1);
}

#[test]
fn more_keys_than_logs_are_still_limited() {
    let limiter = Limiter::new(Algorithm::SlidingLog, vec![quota(SECOND, 3, 0)], false).expect("good");
    let bed = Bed { logs: limiter.logs(1), ..Bed::new(Algorithm::SlidingLog, &[quota(SECOND, 3, 0)]) };
    for key in 0..50 {
        let admitted = (0..10).filter(|_| bed.check(key, 0, 1).allowed()).count();
        assert_eq!(admitted, 3, "key {key}");
    }
}

#[test]
fn limits_that_cannot_be_kept_are_refused() {
    let error = |algorithm, quotas: &[Quota]| Limiter::new(algorithm, quotas.to_vec(), false).err();
    assert_eq!(error(Algorithm::TokenBucket, &[]), Some(WindowError::Empty));
    assert!(matches!(
        error(Algorithm::SlidingLog, &[quota(SECOND, LOG_MAX + 1, 0)]),
        Some(WindowError::TooHigh(_, LOG_MAX))
    ));
    let many: Vec<_> = (1..=9).map(|n| quota(n * SECOND, 1, 1)).collect();
    assert_eq!(error(Algorithm::FixedWindow, &many), Some(WindowError::TooMany));
    // A longer window with a lower limit is the tighter one, no mistake.
    assert_eq!(error(Algorithm::FixedWindow, &[quota(SECOND, 9, 0), quota(60 * SECOND, 5, 0)]), None);
}
