//! Windows keep their promise: against a naive reference, at their edges, across threads, through steps of
//! the wall clock, changed limits and floods.

use std::collections::HashMap;

use proptest::prelude::*;

use super::super::calendar::Period;
use super::super::{LimiterId, WallClock, limit_key, random_secret};
use super::*;

const SECOND: u64 = 1_000_000_000;
const DAY: u64 = 86_400 * SECOND;
/// 2024-02-29T23:59:50Z: ten seconds before the end of a minute, an hour, a day and a leap February.
const WALL: u64 = 1_709_251_190 * SECOND;
/// A machine that started half an hour ago: the month began before its monotonic clock did.
const NOW: u64 = 1_800 * SECOND;

fn table() -> Table {
    Table::new(1 << 14, random_secret()).expect("a small table")
}

fn limiter(limits: &[(Period, u64)]) -> WindowLimiter {
    WindowLimiter::new(limits.iter().copied()).expect("good limits")
}

fn key(text: &str) -> u64 {
    limit_key(LimiterId::of("test"), &[text.as_bytes()])
}

#[test]
fn limits_are_checked() {
    use Period::*;
    let error = |limits: &[(Period, u64)]| WindowLimiter::new(limits.iter().copied()).err();
    assert_eq!(error(&[]), Some(WindowError::Empty));
    assert_eq!(error(&[(Hour, 0)]), Some(WindowError::Zero(Hour.into())));
    assert_eq!(error(&[(Hour, 5), (Hour, 6)]), Some(WindowError::Duplicate(Hour.into())));
    assert_eq!(
        error(&[(Hour, 5), (Second, 6)]),
        Some(WindowError::Shrinking { longer: Hour.into(), shorter: Second.into() })
    );
    assert_eq!(error(&[(Second, SECOND + 1)]), Some(WindowError::TooHigh(Second.into(), SECOND)));
    assert_eq!(error(&[(Second, SECOND)]), None);
    assert_eq!(limiter(&[(Year, 9), (Second, 9)]).limits(), [(Second.into(), 9), (Year.into(), 9)]);
}

#[test]
fn exactly_the_limit_is_admitted_in_each_window() {
    for period in Period::ALL {
        let (table, limiter) = (table(), limiter(&[(period, 7)]));
        let window = period.window(WALL);
        let mono = |wall: u64| NOW + (wall - WALL);
        for wall in [WALL, window.end - 1] {
            let admitted =
                (0..9).filter(|_| limiter.check(&table, key("a"), mono(wall), wall, 1).allowed()).count();
            assert_eq!(admitted, if wall == WALL { 7 } else { 0 }, "{period}");
        }
        let admitted = (0..9)
            .filter(|_| limiter.check(&table, key("a"), mono(window.end), window.end, 1).allowed())
            .count();
        assert_eq!(admitted, 7, "{period}: the next window");
    }
}

#[test]
fn numbers_are_those_of_the_windows() {
    let (table, limiter) =
        (table(), limiter(&[(Period::Minute, 2), (Period::Hour, 3), (Period::Month, 1_000)]));
    let remaining = |decision: &Decision| decision.windows().iter().map(|w| w.remaining).collect::<Vec<_>>();
    let check = |seconds: u64, cost| {
        limiter.check(&table, key("a"), NOW + seconds * SECOND, WALL + seconds * SECOND, cost)
    };

    let first = check(0, 1);
    assert!(first.allowed() && first.stopped_by().is_none());
    assert_eq!(remaining(&first), [1, 2, 999]);
    assert_eq!(first.tightest().span, Span::from(Period::Minute));
    assert_eq!(first.windows().iter().map(|w| w.reset_seconds()).collect::<Vec<_>>(), [10, 10, 10]);
    assert_eq!(remaining(&check(0, 0)), [1, 2, 999], "a cost of nothing takes nothing");
    assert_eq!(remaining(&check(0, 2)), [1, 2, 999], "what does not fit takes nothing");
    check(0, 1);
    let refused = check(1, 1);
    assert!(!refused.allowed());
    assert_eq!(
        refused.stopped_by().map(|w| (w.span, w.remaining, w.reset_seconds())),
        Some((Period::Minute.into(), 0, 9))
    );

    // A new minute, hour, day and month begin.
    let next = check(10, 2);
    assert_eq!(remaining(&next), [0, 1, 998]);
    assert_eq!(next.windows()[2].reset_seconds(), 31 * 86_400);
    // Both the minute and the hour refuse: the wait is the hour's.
    let refused = check(11, 2);
    assert_eq!(refused.stopped_by().map(|w| (w.span, w.reset_seconds())), Some((Period::Hour.into(), 3_599)));
    // Equals: the longer period is shown, as Kong does.
    let next = check(70, 1);
    assert_eq!(remaining(&next), [1, 0, 997]);
    let spent = check(130, 1);
    assert_eq!((remaining(&spent), spent.tightest().span), (vec![2, 0, 997], Period::Hour.into()));
}

#[test]
fn a_refusal_by_one_window_charges_none() {
    let (table, limiter) = (table(), limiter(&[(Period::Second, 1), (Period::Day, 10)]));
    for _ in 0..50 {
        limiter.check(&table, key("a"), NOW, WALL, 1);
    }
    let state = limiter.check(&table, key("a"), NOW, WALL, 0);
    assert_eq!(state.windows().iter().map(|w| w.remaining).collect::<Vec<_>>(), [0, 9]);
    assert_eq!(
        limiter.check(&table, key("a"), NOW, WALL, u64::MAX).stopped_by().map(|w| w.span),
        Some(Period::Day.into())
    );
}

#[test]
fn of_windows_that_refuse_the_one_that_ends_last_is_told() {
    let spans = |short: u64, long: u64| [short, long].map(|ms| (Span::Every(ms * 1_000_000), 1));
    // At WALL, ten seconds before a full minute: windows of 7 s end in 4 s, those of 60 s in 10 s.
    for (short, long, told) in [(7_000, 60_000, 60_000), (13_000, 19_000, 13_000), (10_000, 60_000, 60_000)] {
        let ends = spans(short, long).map(|(span, _)| span.window(WALL).end - WALL);
        let (table, limiter) = (table(), WindowLimiter::new(spans(short, long)).expect("good limits"));
        assert!(limiter.check(&table, key("a"), NOW, WALL, 1).allowed());
        let refused = limiter.check(&table, key("a"), NOW, WALL, 1);
        let stopped = refused.stopped_by().map(|window| (window.span, window.reset_ns));
        let longest = ends[0].max(ends[1]);
        assert_eq!(stopped, Some((Span::Every(told * 1_000_000), longest)), "{short} and {long}: {ends:?}");
    }
}

#[test]
fn of_equals_the_longer_period_is_shown() {
    let (table, limiter) = (table(), limiter(&[(Period::Second, 3), (Period::Hour, 3), (Period::Day, 4)]));
    assert_eq!(limiter.check(&table, key("a"), NOW, WALL, 1).tightest().span, Span::from(Period::Hour));
}

#[test]
fn a_window_that_fills_between_look_and_charge_gives_the_others_back() {
    let (table, limiter) = (table(), limiter(&[(Period::Minute, 5), (Period::Hour, 6), (Period::Day, 9)]));
    let (mono, wall) = (NOW - 60 * SECOND, WALL - 60 * SECOND);
    assert!(limiter.check(&table, key("a"), mono, wall, 4).allowed());
    let mut late = limiter.look(&table, key("a"), NOW, WALL, 2);
    assert!(late.decision.allowed());
    assert!(limiter.check(&table, key("a"), NOW, WALL, 1).allowed(), "somebody else is first");
    late.charge(&table, NOW, 2);
    assert_eq!(late.decision.stopped_by().map(|window| window.span), Some(Period::Hour.into()));
    let remaining = |decision: &Decision| decision.windows().iter().map(|w| w.remaining).collect::<Vec<_>>();
    assert_eq!(remaining(&late.decision), [4, 1, 5], "the day as it was looked at");
    assert_eq!(remaining(&limiter.check(&table, key("a"), NOW, WALL, 0)), [4, 1, 4]);
}

#[test]
fn a_refund_touches_its_own_window_only() {
    let place = |end| Place { key: 1, end, unit: 10, limit: 5 };
    let word = AtomicU64::new(0);
    assert_eq!(charge(&word, place(1_000), 5), Ok(5));
    assert_eq!(charge(&word, place(1_000), 1), Err(5));
    refund(&word, place(1_000), 2);
    assert_eq!(word.load(Relaxed), 1_030);
    refund(&word, place(1_000), 4);
    assert_eq!(word.load(Relaxed), 1_030, "more than was charged: the way has changed hands");
    assert_eq!(charge(&word, place(1_050), 1), Ok(1), "the next window");
    refund(&word, place(1_000), 1);
    assert_eq!(word.load(Relaxed), 1_060);
}

#[test]
fn threads_sharing_a_key_get_exactly_the_limit() {
    // (used up in the minute before, admitted in this one): once the minute is what refuses, once the hour,
    // so that charges to the minute are taken back under contention.
    for (before, expected) in [(0, 5_003), (4_000, 3_000)] {
        let (table, limiter) = (table(), limiter(&[(Period::Minute, 5_003), (Period::Hour, 7_000)]));
        let earlier = 60 * SECOND;
        assert!(limiter.check(&table, key("a"), NOW - earlier, WALL - earlier, before).allowed());
        let admitted: u64 = std::thread::scope(|scope| {
            let run = || {
                (0..6_000).filter(|_| limiter.check(&table, key("a"), NOW, WALL, 1).allowed()).count() as u64
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!(admitted, expected);
        let state = limiter.check(&table, key("a"), NOW, WALL, 0);
        let remaining: Vec<_> = state.windows().iter().map(|window| window.remaining).collect();
        assert_eq!(remaining, [5_003 - expected, 7_000 - before - expected]);
    }
}

#[test]
fn limiters_keys_and_periods_do_not_interfere() {
    let table = table();
    let limiter = limiter(&[(Period::Second, 3), (Period::Year, 3)]);
    for name in ["a", "b", "c"] {
        for part in [&b"x"[..], b"y", b""] {
            let key = limit_key(LimiterId::of(name), &[part]);
            let admitted = (0..5).filter(|_| limiter.check(&table, key, NOW, WALL, 1).allowed()).count();
            assert_eq!(admitted, 3);
        }
    }
}

#[test]
fn a_key_that_takes_over_a_way_starts_at_nothing() {
    // One set of four ways: every key soon takes the way of another, whatever its words held.
    let table = Table::new(4, random_secret()).expect("a small table");
    let limiter = limiter(&[(Period::Minute, 100)]);
    for i in 0..100 {
        let key = key(&i.to_string());
        let decision = limiter.check(&table, key, NOW + i, WALL + i, 10);
        assert_eq!(decision.windows()[0].remaining, 90, "key {i}");
    }
}

#[test]
fn a_changed_limit_keeps_the_fraction_used() {
    let table = table();
    limiter(&[(Period::Day, 10)]).check(&table, key("a"), NOW, WALL, 5);
    let remaining =
        |limit| limiter(&[(Period::Day, limit)]).check(&table, key("a"), NOW, WALL, 0).windows()[0].remaining;
    assert_eq!((remaining(10), remaining(100), remaining(4)), (5, 50, 2));
}

#[test]
fn a_flood_of_fresh_keys_does_not_refill_a_spent_quota() {
    // Sparse enough that four spent keys share a set, and the flood evicts one, once in 200,000 runs.
    let table = Table::new(1 << 12, random_secret()).expect("a small table");
    let (daily, brief) = (limiter(&[(Period::Day, 10)]), limiter(&[(Period::Second, 10)]));
    let spent: Vec<u64> = (0..20).map(|i| key(&format!("spent {i}"))).collect();
    for &key in &spent {
        assert!(daily.check(&table, key, NOW, WALL, 10).allowed());
    }
    for i in 0..40_000u64 {
        let (now, wall) = (NOW + i, WALL + i);
        daily.check(&table, key(&format!("fresh {i}")), now, wall, 1);
        brief.check(&table, key(&format!("brief {i}")), now, wall, 10);
    }
    let refilled = spent.iter().filter(|&&key| daily.check(&table, key, NOW, WALL, 1).allowed()).count();
    assert_eq!(refilled, 0);
}

#[test]
fn steps_of_the_wall_clock_do_what_the_clock_documents() {
    let limiter = limiter(&[(Period::Day, 1_000)]);
    let noon = WALL - WALL % DAY + DAY / 2;
    let used_after_step = |now: u64, wall: u64, step: i64| {
        let (table, clock) = (table(), WallClock::new(now, wall));
        limiter.check(&table, key("a"), now, clock.at(now), 100);
        assert_eq!(clock.observe(now, wall.saturating_add_signed(step)), Some(step));
        1_000 - limiter.check(&table, key("a"), now, clock.at(now), 0).windows()[0].remaining
    };
    // A tenth of a day, within the day: a tenth of the limit.
    let tenth = (DAY / 10) as i64;
    assert_eq!(used_after_step(NOW, noon, tenth), 200);
    assert_eq!(used_after_step(NOW, noon, -tenth), 0);
    // Over the end, to where the day ends as soon as before, and to where it ends later by four tenths.
    assert_eq!(used_after_step(NOW, noon, DAY as i64), 100);
    assert_eq!(used_after_step(NOW, noon, 6 * tenth), 0);
    // Back over the start: nothing is refilled.
    assert_eq!(used_after_step(NOW, WALL - WALL % DAY + SECOND, -2 * SECOND as i64), 1_000);
}

#[derive(Clone, Debug)]
struct Op {
    advance: u64,
    key: u8,
    limiter: bool,
    cost: u64,
}

fn op() -> impl Strategy<Value = Op> {
    // Steps from none to a season, so that every kind of boundary is crossed.
    let advance = prop_oneof![
        4 => Just(0),
        4 => 0..3 * SECOND,
        3 => 0..7_200 * SECOND,
        1 => 0..100 * DAY,
    ];
    (advance, 0u8..4, any::<bool>(), 0u64..5).prop_map(|(advance, key, limiter, cost)| Op {
        advance,
        key,
        limiter,
        cost,
    })
}

proptest! {
    #[test]
    fn windows_agree_with_a_map_of_counts(
        start in 0u64..60 * 365 * DAY,
        uptime in 0u64..400 * DAY,
        step in 1u64..20,
        ops in prop::collection::vec(op(), 1..200),
    ) {
        let table = table();
        let a = limiter(&Period::ALL.map(|period| (period, step * (1 + period as u64))));
        let b = limiter(&[(Period::Minute, 3), (Period::Month, 3 + step)]);
        let clock = WallClock::new(uptime, start);
        let mut now = uptime;
        let mut counts: HashMap<(bool, u8, Span, u64), u64> = HashMap::new();
        for op in ops {
            now += op.advance;
            let wall = clock.at(now);
            let limiter = if op.limiter { &a } else { &b };
            let key = limit_key(LimiterId::from_number(op.limiter.into()), &[&[op.key]]);

            let at = |period: Span| (op.limiter, op.key, period, period.window(wall).start);
            let fits = limiter.limits().iter().all(|&(period, limit)| {
                counts.get(&at(period)).copied().unwrap_or(0) + op.cost <= limit
            });
            if fits {
                for &(period, _) in limiter.limits() {
                    *counts.entry(at(period)).or_default() += op.cost;
                }
            }

            let decision = limiter.check(&table, key, now, wall, op.cost);
            prop_assert_eq!(decision.allowed(), fits);
            for (window, &(period, limit)) in decision.windows().iter().zip(limiter.limits()) {
                let used = counts.get(&at(period)).copied().unwrap_or(0);
                prop_assert_eq!(window.remaining, limit - used, "{}", period);
                let left = period.window(wall).end - wall;
                prop_assert!(window.reset_seconds() * SECOND >= left && (window.reset_seconds() - 1) * SECOND < left);
            }
            let least = decision.windows().iter().map(|window| window.remaining).min();
            prop_assert_eq!(Some(decision.tightest().remaining), least);
        }
    }
}
