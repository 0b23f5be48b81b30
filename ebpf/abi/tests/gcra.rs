//! Properties of the arithmetic on one word.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use portcullis_abi::{Charge, KERNEL_TRIES, Rate, charge, charge_within, penalize, refund};
use proptest::prelude::*;

const START: u64 = 1_000_000_000_000;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Over any window [a, b], accepted tokens are at most (b - a) / T + burst.
    #[test]
    fn never_more_than_rate_times_window_plus_burst(
        interval in 1u64..5_000_000,
        burst in 1u64..200,
        steps in prop::collection::vec((0u64..20_000_000, 1u64..5), 1..300),
    ) {
        let rate = Rate { interval_ns: interval, burst_ns: interval * burst };
        let word = AtomicU64::new(0);
        let mut now = START;
        let mut accepted = Vec::new();
        for (pause, tokens) in steps {
            now += pause;
            if charge(&word, now, rate, tokens).conforms() {
                accepted.push((now, tokens));
            }
        }
        for first in 0..accepted.len() {
            let mut sum = 0;
            for &(at, tokens) in &accepted[first..] {
                sum += tokens;
                let window = at - accepted[first].0;
                prop_assert!(sum * interval <= window + rate.burst_ns);
            }
        }
    }

    /// And not less: a source that always asks gets its rate to within one token, if its burst bears the
    /// pauses between its attempts (with a burst of one token, each pause past the due time is lost).
    #[test]
    fn a_greedy_source_gets_its_whole_rate(interval in 1_000u64..1_000_000, burst in 2u64..50, pause in 1u64..900) {
        let rate = Rate { interval_ns: interval, burst_ns: interval * burst };
        let word = AtomicU64::new(0);
        let mut accepted = 0u64;
        let mut now = START;
        let end = START + interval * 100;
        while now <= end {
            accepted += u64::from(charge(&word, now, rate, 1).conforms());
            now += pause;
        }
        prop_assert!(accepted >= 100 + burst - 2, "{accepted} of {}", 100 + burst);
        prop_assert!(accepted <= 100 + burst + 1);
    }

    /// The promised retry time is exact: one ns earlier is refused, at that time it is accepted.
    #[test]
    fn retry_after_is_the_first_time_that_conforms(interval in 1u64..1_000_000, burst in 1u64..50, tokens in 1u64..50) {
        prop_assume!(tokens <= burst);
        let rate = Rate { interval_ns: interval, burst_ns: interval * burst };
        let word = AtomicU64::new(0);
        while charge(&word, START, rate, 1).conforms() {}
        let Charge::Limited { retry_after_ns } = charge(&word, START, rate, tokens) else { unreachable!() };
        prop_assert_eq!(retry_after_ns, tokens * interval);
        prop_assert!(!charge(&word, START + retry_after_ns - 1, rate, tokens).conforms());
        prop_assert!(charge(&word, START + retry_after_ns, rate, tokens).conforms());
    }

    /// A refund right after a charge restores the bucket's debt.
    #[test]
    fn refund_undoes_a_charge(interval in 1u64..1_000_000, debt in 0u64..40, tokens in 1u64..10) {
        let rate = Rate { interval_ns: interval, burst_ns: interval * 50 };
        let word = AtomicU64::new(START + debt * interval);
        prop_assert!(charge(&word, START, rate, tokens).conforms());
        refund(&word, tokens * interval);
        prop_assert_eq!(word.load(Relaxed), START + debt * interval);
    }

    /// A penalty adds, never lowers, and stops at the cap.
    #[test]
    fn penalties_add_up_to_their_cap(tat in 0u64..4_000, cost in 0u64..4_000, cap in 0u64..4_000) {
        let (tat, now) = (START + tat, START + 1_000);
        let word = AtomicU64::new(tat);
        penalize(&word, now, cost, cap);
        let after = word.load(Relaxed);
        prop_assert!(after >= tat);
        prop_assert!(after <= (now + cap).max(tat));
        prop_assert_eq!(after, tat.max((tat.max(now) + cost).min(now + cap)));
    }

    /// No arithmetic overflows, whatever the words hold.
    #[test]
    fn extremes_neither_panic_nor_wrap(word: u64, now: u64, interval_ns: u64, burst_ns: u64, tokens: u64) {
        let rate = Rate { interval_ns, burst_ns };
        let shared = AtomicU64::new(word);
        if charge(&shared, now, rate, tokens).conforms() && !rate.is_unlimited() {
            prop_assert!(shared.load(Relaxed) >= now);
        } else {
            prop_assert_eq!(shared.load(Relaxed), word);
        }
        penalize(&shared, now, tokens, burst_ns);
        refund(&shared, tokens);
    }
}

#[test]
fn unlimited_writes_nothing() {
    let word = AtomicU64::new(7);
    assert_eq!(charge(&word, START, Rate::UNLIMITED, u64::MAX), Charge::Conforming { debt_ns: 0 });
    assert_eq!(word.load(Relaxed), 7);
}

#[test]
fn rates_round_to_the_nearest_nanosecond() {
    assert_eq!(Rate::per_second(1_000, 100), Rate { interval_ns: 1_000_000, burst_ns: 100_000_000 });
    assert_eq!(Rate::per_second(3, 1).interval_ns, 333_333_333);
    assert_eq!(Rate::per_second(600_000_000, 1).interval_ns, 2);
    assert_eq!(
        Rate::new(10, 60_000_000_000, 0),
        Rate { interval_ns: 6_000_000_000, burst_ns: 6_000_000_000 }
    );
    assert!(Rate::per_second(0, 5).is_unlimited());
}

#[test]
fn penalty_then_time_pays_back() {
    let rate = Rate::per_second(10, 5);
    let word = AtomicU64::new(0);
    penalize(&word, START, 2_000_000_000, 60_000_000_000);
    let Charge::Limited { retry_after_ns } = charge(&word, START, rate, 1) else {
        panic!("conforms in debt")
    };
    assert_eq!(retry_after_ns, 2_000_000_000 + 100_000_000 - 500_000_000);
    assert!(charge(&word, START + retry_after_ns, rate, 1).conforms());
}

#[test]
fn threads_admit_exactly_the_burst() {
    let word = AtomicU64::new(0);
    let rate = Rate { interval_ns: 10, burst_ns: 10 * 100_000 };
    let accepted: u64 = std::thread::scope(|scope| {
        let takers: Vec<_> = (0..4)
            .map(|_| {
                scope
                    .spawn(|| (0..50_000).filter(|_| charge(&word, START, rate, 1).conforms()).count() as u64)
            })
            .collect();
        takers.into_iter().map(|taker| taker.join().expect("a taker")).sum()
    });
    assert_eq!(accepted, 100_000);
    assert_eq!(word.load(Relaxed), START + rate.burst_ns);
}

#[test]
fn bounded_tries_agree_when_nobody_contends() {
    let (a, b) = (AtomicU64::new(0), AtomicU64::new(0));
    let rate = Rate { interval_ns: 7, burst_ns: 70 };
    for now in START..START + 100 {
        assert_eq!(
            charge_within::<_, KERNEL_TRIES>(&a, now, rate, rate.interval_ns),
            Some(charge(&b, now, rate, 1))
        );
    }
}
