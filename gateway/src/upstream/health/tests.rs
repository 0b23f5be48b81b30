//! Health: the transitions of the table, random histories, and threads that share a group.

use std::sync::atomic::AtomicU64;

use proptest::prelude::*;

use super::*;

const S: u64 = 1_000_000_000;
/// The coarseness of the clock.
const TICK: u64 = 1 << word::TICK_SHIFT;
const T0: TargetIndex = TargetIndex(0);
const T1: TargetIndex = TargetIndex(1);
const OK: Outcome = Outcome::Status(200);
const BAD: Outcome = Outcome::Status(503);

fn policy() -> Policy {
    Policy { failures: 3, ..Policy::default() }
}

/// Failures until the target is ejected.
fn eject(group: &Group, target: TargetIndex, now: u64, policy: &Policy) -> u64 {
    for _ in 0..255 {
        if let Change::Ejected(span) = group.report(target, now, policy, None, Outcome::TcpFailure) {
            return span;
        }
    }
    panic!("never ejected");
}

fn trial(group: &Group, target: TargetIndex, now: u64, policy: &Policy) -> Trial {
    match group.admit(target, now, policy) {
        Admission::Trial(trial) => trial,
        other => panic!("{other:?}"),
    }
}

fn phase(group: &Group, target: TargetIndex) -> Phase {
    group.condition(target).unwrap().phase
}

#[test]
fn every_status_has_a_meaning() {
    let ours = Statuses::default();
    for (status, expected) in [
        (100, None),
        (200, Some(true)),
        (304, Some(true)),
        (404, Some(true)),
        (408, None),
        (429, None),
        (499, Some(true)),
        (500, Some(false)),
        (501, None),
        (502, Some(false)),
        (503, Some(false)),
        (504, Some(false)),
        (505, None),
        (999, None),
        (u16::MAX, None),
    ] {
        assert_eq!(ours.verdict(status), expected, "{status}");
    }
    let own = Statuses::new(&[200, 500, 700], &[429, 500]);
    assert_eq!(
        [200, 429, 500, 503, 700].map(|status| own.verdict(status)),
        [Some(true), Some(false), Some(false), None, None]
    );
}

#[test]
fn consecutive_failures_eject_and_a_success_starts_the_count_anew() {
    let group = Group::new(2);
    let report = |outcome| group.report(T0, 0, &policy(), None, outcome);
    for outcome in
        [BAD, Outcome::Timeout, OK, BAD, Outcome::TcpFailure, Outcome::Unknown, Outcome::Status(429)]
    {
        assert_eq!(report(outcome), Change::None);
    }
    assert_eq!(group.condition(T0).unwrap().failures, [1, 0, 1]);
    assert_eq!(report(Outcome::Timeout), Change::Ejected(30 * S));
    assert!(!group.available(T0, 0) && group.available(T1, 0));
    assert_eq!(group.admit(T0, 0, &policy()), Admission::Refused);
    // Answers to requests sent before say nothing any more.
    assert_eq!(report(OK), Change::None);
    assert_eq!(report(BAD), Change::None);
    assert_eq!(phase(&group, T0), Phase::Ejected);
}

#[test]
fn each_kind_has_its_own_threshold() {
    let kong = Policy { failures: 0, tcp_failures: 2, timeouts: 3, http_failures: 4, ..Policy::default() };
    let check = |outcome: Outcome, expected: usize| {
        let group = Group::new(2);
        let until = (1..10).find(|_| group.report(T0, 0, &kong, None, outcome) != Change::None);
        assert_eq!(until, Some(expected), "{outcome:?}");
    };
    check(Outcome::TcpFailure, 2);
    check(Outcome::Timeout, 3);
    check(BAD, 4);
    let off = Policy { failures: 0, ..Policy::default() };
    let group = Group::new(2);
    for _ in 0..1000 {
        assert_eq!(group.report(T0, 0, &off, None, BAD), Change::None);
    }
    // One kind does not add to the other.
    let group = Group::new(2);
    for outcome in [Outcome::TcpFailure, Outcome::Timeout, Outcome::Timeout, BAD, BAD, BAD] {
        assert_eq!(group.report(T0, 0, &kong, None, outcome), Change::None);
    }
}

#[test]
fn one_trial_at_a_time_after_the_ejection() {
    let (group, policy) = (Group::new(2), policy());
    let span = eject(&group, T0, 5 * S, &policy);
    assert!(!group.available(T0, 5 * S + span - TICK));
    let now = 5 * S + span + TICK;
    assert!(group.available(T0, now));
    let first = trial(&group, T0, now, &policy);
    assert!(!group.available(T0, now));
    assert_eq!(group.admit(T0, now, &policy), Admission::Refused);
    // A failure of an older request does not end the trial.
    assert_eq!(group.report(T0, now, &policy, None, BAD), Change::None);
    assert_eq!(group.report(T0, now, &policy, Some(first), OK), Change::Restored);
    assert_eq!(group.admit(T0, now, &policy), Admission::Normal);
    assert_eq!(group.ejected(), 0);
}

#[test]
fn a_failed_trial_ejects_for_longer_up_to_the_cap() {
    let (group, policy) = (Group::new(2), policy());
    let mut now = 0;
    let mut spans = vec![eject(&group, T0, now, &policy)];
    for _ in 0..11 {
        now += spans.last().unwrap() + 2 * TICK;
        let trial = trial(&group, T0, now, &policy);
        match group.report(T0, now, &policy, Some(trial), Outcome::Timeout) {
            Change::Ejected(span) => spans.push(span),
            other => panic!("{other:?}"),
        }
    }
    let seconds: Vec<u64> = spans.iter().map(|span| span / S).collect();
    assert_eq!(seconds, [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300]);
    assert_eq!(group.condition(T0).unwrap().ejections, 12);
    assert_eq!(group.ejected(), 1);
}

#[test]
fn time_spent_in_health_forgives() {
    let (group, policy) = (Group::new(2), policy());
    let restore = |now: u64| {
        let trial = trial(&group, T0, now, &policy);
        assert_eq!(group.report(T0, now, &policy, Some(trial), OK), Change::Restored);
    };
    assert_eq!(eject(&group, T0, 0, &policy), 30 * S);
    restore(31 * S);
    assert_eq!(eject(&group, T0, 32 * S, &policy), 60 * S);
    restore(100 * S);
    // 35 s of health take one off the two.
    assert_eq!(eject(&group, T0, 135 * S, &policy), 60 * S);
    restore(200 * S);
    assert_eq!(eject(&group, T0, 20_000 * S, &policy), 30 * S);
}

#[test]
fn a_trial_without_verdict_opens_the_next_at_once() {
    let (group, policy) = (Group::new(2), policy());
    let span = eject(&group, T0, 0, &policy);
    let now = span + TICK;
    for outcome in [Outcome::Unknown, Outcome::Status(429)] {
        let trial = trial(&group, T0, now, &policy);
        assert_eq!(group.report(T0, now, &policy, Some(trial), outcome), Change::None);
        assert!(group.available(T0, now));
    }
    // And one that is never reported, when its time is over.
    let lost = trial(&group, T0, now, &policy);
    assert!(!group.available(T0, now + policy.trial_ns - TICK));
    let later = now + policy.trial_ns + TICK;
    let next = trial(&group, T0, later, &policy);
    assert_eq!(group.report(T0, later, &policy, Some(lost), OK), Change::None);
    assert_eq!(group.report(T0, later, &policy, Some(next), OK), Change::Restored);
}

#[test]
fn several_trials_where_the_policy_wants_them() {
    let (group, policy) = (Group::new(2), Policy { successes: 3, ..policy() });
    let span = eject(&group, T0, 0, &policy);
    let now = span + TICK;
    for expected in [Change::None, Change::None, Change::Restored] {
        let trial = trial(&group, T0, now, &policy);
        assert_eq!(group.report(T0, now, &policy, Some(trial), OK), expected);
    }
    assert_eq!(group.condition(T0).unwrap().failures, [0; 3]);
}

#[test]
fn no_more_than_half_is_ejected() {
    for (targets, most) in [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (5, 2)] {
        let (group, policy) = (Group::new(targets), policy());
        assert_eq!(group.most_ejected(&policy), most);
        let mut ejected = 0;
        for target in (0..targets as u32).map(TargetIndex) {
            let changes: Vec<_> = (0..3).map(|_| group.report(target, 0, &policy, None, BAD)).collect();
            match changes[2] {
                Change::Ejected(_) => ejected += 1,
                Change::Kept => assert!(group.available(target, 0)),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((ejected, group.ejected()), (most, most));
    }
    // The next failure of one that was kept takes the place that came free.
    let (group, policy) = (Group::new(2), policy());
    let span = eject(&group, T0, 0, &policy);
    for _ in 0..300 {
        group.report(T1, 0, &policy, None, BAD);
    }
    let trial = trial(&group, T0, span + TICK, &policy);
    assert_eq!(group.report(T0, span + TICK, &policy, Some(trial), OK), Change::Restored);
    assert!(matches!(group.report(T1, span + TICK, &policy, None, BAD), Change::Ejected(_)));
}

#[test]
fn probes_rule_over_traffic() {
    let (group, policy) = (Group::new(2), policy());
    assert_eq!(group.set_probed(T0, 0, false), Change::ProbedDown);
    assert_eq!(group.set_probed(T0, 0, false), Change::None);
    assert!(!group.available(T0, 0));
    assert_eq!(group.admit(T0, 0, &policy), Admission::Refused);
    assert_eq!(group.set_probed(T0, 0, true), Change::Restored);
    assert_eq!(group.set_probed(T0, 0, true), Change::None);
    assert!(group.available(T0, 0));
    // Up ends an ejection, whether probes had taken the target out or not.
    eject(&group, T0, 0, &policy);
    assert_eq!(group.set_probed(T0, 0, true), Change::Restored);
    eject(&group, T0, 0, &policy);
    group.set_probed(T0, 0, false);
    assert_eq!(group.set_probed(T0, 0, true), Change::Restored);
    assert_eq!((phase(&group, T0), group.ejected()), (Phase::Healthy, 0));
}

#[test]
fn a_reload_takes_what_is_known_along() {
    let (old, policy) = (Group::new(2), policy());
    let span = eject(&old, T1, 0, &policy);
    old.set_probed(T0, 0, false);
    let new = Group::adopting(3, |index| match index {
        0 => Some((&old, T1)),
        2 => Some((&old, T0)),
        _ => None,
    });
    assert_eq!([0, 1, 2].map(|index| new.available(TargetIndex(index), 0)), [false, true, false]);
    assert_eq!(new.ejected(), 1);
    let trial = trial(&new, T0, span + TICK, &policy);
    assert_eq!(new.report(T0, span + TICK, &policy, Some(trial), OK), Change::Restored);
}

#[test]
fn a_target_that_does_not_exist_is_refused() {
    let (group, policy) = (Group::new(1), policy());
    assert!(!group.available(T1, 0));
    assert_eq!(group.admit(T1, 0, &policy), Admission::Refused);
    assert_eq!(group.report(T1, 0, &policy, None, BAD), Change::None);
    assert_eq!(group.condition(T1), None);
}

#[test]
fn times_hold_across_the_turn_of_the_clock() {
    let (group, policy) = (Group::new(2), policy());
    let turn = (1_u64 << 32) << word::TICK_SHIFT;
    let span = eject(&group, T0, turn - 10 * S, &policy);
    assert!(!group.available(T0, turn - 1));
    assert!(!group.available(T0, turn + span - 10 * S - 2 * TICK));
    assert!(group.available(T0, turn + span - 10 * S + TICK));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Pass(u64),
    Admit(u32),
    Report(u32, Outcome),
    Conclude(usize, Outcome),
    Probe(u32, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let outcome =
        prop::sample::select(vec![OK, BAD, BAD, Outcome::TcpFailure, Outcome::Timeout, Outcome::Unknown]);
    prop_oneof![
        2 => (0..40 * S).prop_map(Step::Pass),
        4 => (0..4_u32).prop_map(Step::Admit),
        8 => (0..4_u32, outcome.clone()).prop_map(|(target, outcome)| Step::Report(target, outcome)),
        3 => (0..3_usize, outcome).prop_map(|(nth, outcome)| Step::Conclude(nth, outcome)),
        1 => (0..4_u32, any::<bool>()).prop_map(|(target, up)| Step::Probe(target, up)),
    ]
}

proptest! {
    /// Whatever happens: the limit holds, the count is right, admission is as announced, and everybody is let in
    /// again some time.
    #[test]
    fn invariants_hold_after_every_step(steps in prop::collection::vec(step(), 1..200), successes in 0u8..3) {
        let (group, policy) = (Group::new(4), Policy { successes, ..policy() });
        let mut now = S;
        let mut trials: Vec<(u32, u64, Trial)> = Vec::new();
        for step in steps {
            match step {
                Step::Pass(ns) => now += ns,
                Step::Admit(target) => {
                    let announced = group.available(TargetIndex(target), now);
                    let admission = group.admit(TargetIndex(target), now, &policy);
                    prop_assert_eq!(admission != Admission::Refused, announced);
                    if let Admission::Trial(trial) = admission {
                        // Nobody else's trial is within its time.
                        prop_assert!(trials.iter().all(|(other, deadline, _)| *other != target || *deadline <= now + TICK));
                        trials.push((target, now + policy.trial_ns, trial));
                    }
                }
                Step::Report(target, outcome) => {
                    let healthy = phase(&group, TargetIndex(target)) == Phase::Healthy;
                    let change = group.report(TargetIndex(target), now, &policy, None, outcome);
                    prop_assert!(healthy || change == Change::None);
                }
                Step::Conclude(nth, outcome) if nth < trials.len() => {
                    let (target, _, trial) = trials.remove(nth);
                    group.report(TargetIndex(target), now, &policy, Some(trial), outcome);
                }
                Step::Conclude(..) => {}
                Step::Probe(target, up) => {
                    group.set_probed(TargetIndex(target), now, up);
                }
            }
            let out = (0..4).filter(|&t| phase(&group, TargetIndex(t)) != Phase::Healthy).count();
            prop_assert_eq!(group.ejected() as usize, out);
            prop_assert!(out <= 2);
        }
        for target in (0..4).map(TargetIndex) {
            group.set_probed(target, now, true);
            prop_assert!(group.available(target, now + 301 * S));
        }
    }
}

/// Threads that report and admit as they like. At no time may two trials of a target be under way or more than half
/// of the targets be out, and in the end the books must balance.
#[test]
fn shards_agree_without_locks() {
    const TARGETS: usize = 8;
    // Longer than the clock of the test runs (240,000 tenths of a second): a thread that is set aside in the middle of
    // its trial must not lose it to time.
    let policy = Policy { failures: 2, trial_ns: 30_000 * S, ..Policy::default() };
    let group = Group::new(TARGETS);
    let clock = AtomicU64::new(S);
    let under_way: Vec<AtomicU32> = (0..TARGETS).map(|_| AtomicU32::new(0)).collect();
    let trials = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (group, policy, clock, under_way, trials) = (&group, &policy, &clock, &under_way, &trials);
            scope.spawn(move || {
                let mut random = thread + 1;
                for _ in 0..60_000 {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    let target = TargetIndex((random % TARGETS as u64) as u32);
                    let now = clock.fetch_add(S / 10, Ordering::Relaxed);
                    let outcome = if random >> 32 & 3 == 0 { OK } else { Outcome::TcpFailure };
                    let trial = match group.admit(target, now, policy) {
                        Admission::Refused => continue,
                        Admission::Normal => None,
                        Admission::Trial(trial) => {
                            assert_eq!(under_way[target.index()].fetch_add(1, Ordering::SeqCst), 0);
                            trials.fetch_add(1, Ordering::Relaxed);
                            std::thread::yield_now();
                            under_way[target.index()].fetch_sub(1, Ordering::SeqCst);
                            Some(trial)
                        }
                    };
                    group.report(target, now, policy, trial, outcome);
                    assert!(group.ejected() <= 4);
                }
            });
        }
    });
    let out = (0..TARGETS as u32).filter(|&t| phase(&group, TargetIndex(t)) != Phase::Healthy).count();
    assert_eq!(group.ejected() as usize, out);
    assert!(trials.load(Ordering::Relaxed) > 100, "the test must reach trials");
}

/// Two threads ask for the same trials in lockstep: each trial is given exactly once.
#[test]
fn a_trial_is_given_once() {
    const TARGETS: usize = 20_000;
    let policy = Policy { failures: 1, ejected_max_percent: 100, ..Policy::default() };
    let group = Group::new(TARGETS);
    let targets = || (0..TARGETS as u32).map(TargetIndex);
    targets().for_each(|target| assert!(eject(&group, target, 0, &policy) > 0));
    let reached = [AtomicU32::new(0), AtomicU32::new(0)];
    let sweep = |own: usize| {
        let admitted = targets().filter(|&target| {
            reached[own].store(target.0, Ordering::SeqCst);
            let mut turns = 0_u32;
            while reached[1 - own].load(Ordering::SeqCst) < target.0 {
                turns += 1;
                if turns.is_multiple_of(1000) { std::thread::yield_now() } else { std::hint::spin_loop() }
            }
            matches!(group.admit(target, 31 * S, &policy), Admission::Trial(_))
        });
        admitted.count()
    };
    let (one, other) = std::thread::scope(|scope| {
        let one = scope.spawn(|| sweep(0));
        (sweep(1), one.join().unwrap())
    });
    assert_eq!(one + other, TARGETS);
}
