//! A circuit breaker, of an upstream or of one target: when too large a share of its answers fail or are slow, or too many
//! fail in a row, nobody asks it for a while, and then a few requests try whether it is back.
//!
//! Owns one word of state and three of counts, shared by all shards, and their transitions. Reads no clock, takes no
//! lock. Unlike `health` it knows shares and slowness, and no bound on how many may be out.
//!
//! ```text
//!            failures in a row; or a share of failures or slow answers over the window, with enough requests in it
//!  Closed ─────────────────────────────────────────────────────────────────► Open until T
//!     ▲                                                                        │      ▲
//!     │ `trials` good answers in a row          now ≥ T: trials are admitted   ▼      │ one bad answer: T = now + longer
//!     └───────────────────────────────────────────────────────────────────── HalfOpen ┘
//! ```
//!
//! | word | bits 0..2 | bits 2..8 | bits 8..16 | bits 16..64 |
//! |---|---|---|---|---|
//! | state | phase | times opened in a row | trials admitted, or good ones | until when, in units of 2^20 ns |
//!
//! The window is counted in two halves, so that a count is never older than a window and never empties at once.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// When the breaker opens and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Time over which answers are counted, in ns; at least 1 s.
    pub window_ns: u64,
    /// Answers that must be in the window before their share means anything.
    pub requests_min: u32,
    /// Share of failures that opens it, in percent; 0: never.
    pub failures_percent: u8,
    /// Failures in a row that open it; 0: never.
    pub failures_in_a_row: u32,
    /// An answer that takes longer, in ns, is slow; 0: none is.
    pub slow_ns: u64,
    /// Share of slow answers that opens it, in percent; 0: never.
    pub slow_percent: u8,
    /// First time open, in ns; twice as long each time in a row.
    pub open_ns: u64,
    /// Longest time open, in ns.
    pub open_max_ns: u64,
    /// Requests let through to try, and good answers that close it; 1 to 255.
    pub trials: u8,
}

/// May a request go?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// As usual.
    Closed,
    /// As one of those that try.
    Trial,
    /// No, and when to ask again, in ns from now.
    Open { retry_after_ns: u64 },
}

/// What a report changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    None,
    /// For so long, in ns.
    Opened(u64),
    Closed,
}

/// How a request ended, as far as the upstream is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub failed: bool,
    /// From the request to the response's head, in ns.
    pub took_ns: u64,
}

/// The breaker of one upstream.
#[derive(Debug, Default)]
pub struct Breaker {
    state: AtomicU64,
    halves: [AtomicU64; 2],
    /// Failures since the last good answer.
    in_a_row: AtomicU32,
}

const CLOSED: u64 = 0;
const OPEN: u64 = 1;
const HALF_OPEN: u64 = 2;
/// 1.05 ms: 48 bits then last for millennia.
const UNIT_SHIFT: u32 = 20;

#[derive(Clone, Copy)]
struct State(u64);

impl State {
    fn new(phase: u64, opened: u64, trials: u64, until: u64) -> Self {
        Self(phase | opened.min(0x3f) << 2 | trials.min(0xff) << 8 | (until >> UNIT_SHIFT) << 16)
    }

    fn phase(self) -> u64 {
        self.0 & 3
    }

    fn opened(self) -> u64 {
        self.0 >> 2 & 0x3f
    }

    fn trials(self) -> u64 {
        self.0 >> 8 & 0xff
    }

    fn until_ns(self) -> u64 {
        self.0 >> 16 << UNIT_SHIFT
    }
}

/// A half window's counts: 16 bits of its number, 16 bits each of requests, failures and slow answers.
#[derive(Clone, Copy)]
struct Half(u64);

impl Half {
    fn counts(self, number: u64) -> [u64; 3] {
        if self.0 >> 48 != number & 0xffff {
            return [0; 3];
        }
        [self.0 & 0xffff, self.0 >> 16 & 0xffff, self.0 >> 32 & 0xffff]
    }

    fn with(self, number: u64, answer: [bool; 2]) -> Self {
        let mut counts = self.counts(number);
        // At the brim all are halved: shares stay what they are.
        if counts[0] == 0xffff {
            counts = counts.map(|count| count / 2);
        }
        let [requests, failures, slow] = counts;
        let (failures, slow) = (failures + u64::from(answer[0]), slow + u64::from(answer[1]));
        Self((requests + 1) | failures << 16 | slow << 32 | (number & 0xffff) << 48)
    }
}

impl Breaker {
    /// Asks to send a request. A trial must be [`report`](Self::report)ed; one that never is, is forgotten when the
    /// open time has passed once more.
    pub fn admit(&self, now_ns: u64, policy: &Policy) -> Admission {
        let mut state = State(self.state.load(Ordering::Relaxed));
        loop {
            let next = match state.phase() {
                CLOSED => return Admission::Closed,
                OPEN if now_ns < state.until_ns() => {
                    return Admission::Open { retry_after_ns: state.until_ns() - now_ns };
                }
                HALF_OPEN if state.trials() > 0 => {
                    State::new(HALF_OPEN, state.opened(), state.trials() - 1, state.until_ns())
                }
                HALF_OPEN if now_ns < state.until_ns() => {
                    return Admission::Open { retry_after_ns: state.until_ns() - now_ns };
                }
                // Open long enough, or trials that nobody reported.
                _ => State::new(
                    HALF_OPEN,
                    state.opened(),
                    u64::from(policy.trials.max(1)) - 1,
                    now_ns + policy.open_ns,
                ),
            };
            match self.swap(state, next) {
                Ok(()) => return Admission::Trial,
                Err(current) => state = current,
            }
        }
    }

    /// Whether [`Breaker::admit`] would let a request through. One load; for the balancer.
    pub fn available(&self, now_ns: u64) -> bool {
        let state = State(self.state.load(Ordering::Relaxed));
        match state.phase() {
            CLOSED => true,
            HALF_OPEN if state.trials() > 0 => true,
            _ => now_ns >= state.until_ns(),
        }
    }

    /// How long it refuses still, in ns; 0 where it does not.
    pub fn refuses_for_ns(&self, now_ns: u64) -> u64 {
        match self.available(now_ns) {
            true => 0,
            false => State(self.state.load(Ordering::Relaxed)).until_ns().saturating_sub(now_ns),
        }
    }

    /// Gives the right to try back, of a request that says nothing: it was never sent, or its client left.
    pub fn give_back(&self, trial: bool) {
        let state = State(self.state.load(Ordering::Relaxed));
        if trial && state.phase() == HALF_OPEN {
            // Lost to a report: then it is decided, or the next time decides.
            let _ =
                self.swap(state, State::new(HALF_OPEN, state.opened(), state.trials() + 1, state.until_ns()));
        }
    }

    /// Takes the end of an admitted request into account. `trial`: it was one of those that try.
    pub fn report(&self, now_ns: u64, policy: &Policy, trial: bool, answer: Answer) -> Change {
        let slow = policy.slow_ns > 0 && answer.took_ns > policy.slow_ns;
        if trial {
            let bad = answer.failed || slow && policy.slow_percent > 0;
            return self.conclude(now_ns, policy, bad);
        }
        let state = State(self.state.load(Ordering::Relaxed));
        if state.phase() != CLOSED {
            return Change::None; // sent before it opened
        }
        let [requests, failures, slow] = self.count(now_ns, policy, [answer.failed, slow]);
        let over = |count: u64, percent: u8| percent > 0 && count * 100 >= requests * u64::from(percent);
        let by_share = requests >= u64::from(policy.requests_min.max(1))
            && (over(failures, policy.failures_percent) || over(slow, policy.slow_percent));
        if self.run(policy, answer.failed) || by_share {
            return self.open(state, now_ns, policy);
        }
        Change::None
    }

    /// Counts failures in a row; whether they are too many. Good answers, nearly all there are, only look.
    fn run(&self, policy: &Policy, failed: bool) -> bool {
        if policy.failures_in_a_row == 0 {
            return false;
        }
        if failed {
            return self.in_a_row.fetch_add(1, Ordering::Relaxed) + 1 >= policy.failures_in_a_row;
        }
        if self.in_a_row.load(Ordering::Relaxed) != 0 {
            self.in_a_row.store(0, Ordering::Relaxed);
        }
        false
    }

    /// Whether requests are refused now; for metrics and `/status`.
    pub fn is_open(&self) -> bool {
        State(self.state.load(Ordering::Relaxed)).phase() != CLOSED
    }

    /// Counts an answer; gives the sums over the window.
    fn count(&self, now_ns: u64, policy: &Policy, answer: [bool; 2]) -> [u64; 3] {
        let number = now_ns / (policy.window_ns / 2).max(1);
        let [even, odd] = &self.halves;
        let (own, other) = if number.is_multiple_of(2) { (even, odd) } else { (odd, even) };
        let counted = own.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            Some(Half(word).with(number, answer).0)
        });
        let word = counted.unwrap_or_else(|word| word);
        let now = Half(word).with(number, answer).counts(number);
        let before = Half(other.load(Ordering::Relaxed)).counts(number.wrapping_sub(1));
        [now[0] + before[0], now[1] + before[1], now[2] + before[2]]
    }

    /// The end of a trial.
    fn conclude(&self, now_ns: u64, policy: &Policy, bad: bool) -> Change {
        let state = State(self.state.load(Ordering::Relaxed));
        if state.phase() != HALF_OPEN {
            return Change::None; // decided by another trial
        }
        if bad {
            return self.open(state, now_ns, policy);
        }
        // Counted in the same bits as those still to be admitted would be two numbers; good ones are told by the
        // windows instead, which are empty since it opened.
        let [good, ..] = self.count(now_ns, policy, [false, false]);
        if good < u64::from(policy.trials.max(1)) {
            return Change::None;
        }
        match self.swap(state, State::new(CLOSED, 0, 0, now_ns)) {
            Ok(()) => Change::Closed,
            Err(_) => Change::None,
        }
    }

    fn open(&self, state: State, now_ns: u64, policy: &Policy) -> Change {
        let opened = state.opened() + 1;
        let longer = policy.open_ns.saturating_mul(1 << (opened - 1).min(20));
        let span = longer.min(policy.open_max_ns.max(policy.open_ns));
        match self.swap(state, State::new(OPEN, opened, 0, now_ns.saturating_add(span))) {
            Ok(()) => {
                // What is counted from now on are trials.
                self.halves.iter().for_each(|half| half.store(0, Ordering::Relaxed));
                self.in_a_row.store(0, Ordering::Relaxed);
                Change::Opened(span)
            }
            Err(_) => Change::None,
        }
    }

    fn swap(&self, from: State, to: State) -> Result<(), State> {
        let swapped = self.state.compare_exchange(from.0, to.0, Ordering::Relaxed, Ordering::Relaxed);
        swapped.map(|_| ()).map_err(State)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;
    const GOOD: Answer = Answer { failed: false, took_ns: 1 };
    const BAD: Answer = Answer { failed: true, took_ns: 1 };
    const SLOW: Answer = Answer { failed: false, took_ns: 3 * S };

    fn policy() -> Policy {
        Policy {
            window_ns: 10 * S,
            requests_min: 10,
            failures_percent: 50,
            failures_in_a_row: 0,
            slow_ns: 2 * S,
            slow_percent: 80,
            open_ns: 5 * S,
            open_max_ns: 12 * S,
            trials: 2,
        }
    }

    /// The last change after `count` answers of the kind at `now`.
    fn feed(breaker: &Breaker, now: u64, answer: Answer, count: usize) -> Change {
        (0..count).map(|_| breaker.report(now, &policy(), false, answer)).last().unwrap_or(Change::None)
    }

    fn opened() -> Breaker {
        let breaker = Breaker::default();
        assert_eq!(feed(&breaker, 100 * S, BAD, 10), Change::Opened(5 * S));
        breaker
    }

    #[test]
    fn it_opens_at_the_share_of_failures_and_not_before() {
        let breaker = Breaker::default();
        assert_eq!(feed(&breaker, 100 * S, GOOD, 10), Change::None);
        assert_eq!(feed(&breaker, 100 * S, BAD, 9), Change::None, "9 of 19");
        assert_eq!(breaker.admit(100 * S, &policy()), Admission::Closed);
        assert_eq!(feed(&breaker, 100 * S, BAD, 1), Change::Opened(5 * S), "10 of 20");
        assert_eq!(breaker.admit(101 * S, &policy()), open_for(4 * S));
    }

    /// Times are kept in units of about a millisecond.
    fn open_for(ns: u64) -> Admission {
        let until = (101 * S + ns) >> UNIT_SHIFT << UNIT_SHIFT;
        Admission::Open { retry_after_ns: until - 101 * S }
    }

    #[test]
    fn a_few_requests_say_nothing() {
        assert_eq!(feed(&Breaker::default(), 100 * S, BAD, 9), Change::None);
    }

    #[test]
    fn slow_answers_have_a_share_of_their_own() {
        let breaker = Breaker::default();
        feed(&breaker, 100 * S, GOOD, 2);
        assert_eq!(feed(&breaker, 100 * S, SLOW, 7), Change::None);
        assert_eq!(feed(&breaker, 100 * S, SLOW, 1), Change::Opened(5 * S), "8 of 10");
    }

    #[test]
    fn failures_in_a_row_need_no_share() {
        let breaker = Breaker::default();
        let strict = Policy { failures_in_a_row: 3, ..policy() };
        let mut report = |answer| breaker.report(100 * S, &strict, false, answer);
        assert_eq!([BAD, BAD, GOOD, BAD, BAD].map(&mut report), [Change::None; 5]);
        assert_eq!(report(BAD), Change::Opened(5 * S));
    }

    #[test]
    fn what_may_be_asked_is_known_beforehand() {
        let breaker = opened();
        assert!(!breaker.available(101 * S));
        assert!(breaker.refuses_for_ns(101 * S) > 3 * S);
        assert!(breaker.available(106 * S));
        assert_eq!(breaker.refuses_for_ns(106 * S), 0);
        assert_eq!(breaker.admit(106 * S, &policy()), Admission::Trial);
        assert_eq!(breaker.admit(106 * S, &policy()), Admission::Trial);
        assert!(!breaker.available(106 * S));
        breaker.give_back(true);
        assert!(breaker.available(106 * S), "one trial said nothing");
        assert_eq!(breaker.admit(106 * S, &policy()), Admission::Trial);
    }

    #[test]
    fn failures_older_than_the_window_do_not_count() {
        let breaker = Breaker::default();
        feed(&breaker, 100 * S, BAD, 9);
        assert_eq!(feed(&breaker, 111 * S, BAD, 9), Change::None);
        // In the next half window those of the half before still count.
        assert_eq!(feed(&breaker, 116 * S, BAD, 1), Change::Opened(5 * S));
    }

    #[test]
    fn trials_close_it() {
        let breaker = opened();
        assert_eq!(breaker.admit(106 * S, &policy()), Admission::Trial);
        assert_eq!(breaker.admit(106 * S, &policy()), Admission::Trial);
        assert!(matches!(breaker.admit(106 * S, &policy()), Admission::Open { .. }), "two are enough");
        assert_eq!(breaker.report(106 * S, &policy(), true, GOOD), Change::None);
        assert_eq!(breaker.report(106 * S, &policy(), true, GOOD), Change::Closed);
        assert_eq!(breaker.admit(106 * S, &policy()), Admission::Closed);
    }

    #[test]
    fn a_bad_trial_opens_it_for_longer_up_to_the_most() {
        let breaker = opened();
        let mut now = 106 * S;
        for expected in [10 * S, 12 * S, 12 * S] {
            assert_eq!(breaker.admit(now, &policy()), Admission::Trial);
            assert_eq!(breaker.report(now, &policy(), true, BAD), Change::Opened(expected));
            now += expected + S;
        }
        // Once closed, it starts anew.
        for _ in 0..2 {
            assert_eq!(breaker.admit(now, &policy()), Admission::Trial);
            breaker.report(now, &policy(), true, GOOD);
        }
        assert!(!breaker.is_open());
        assert_eq!(feed(&breaker, now + 20 * S, BAD, 10), Change::Opened(5 * S));
    }

    #[test]
    fn trials_that_are_never_reported_do_not_keep_it_open() {
        let breaker = opened();
        assert_eq!(breaker.admit(106 * S, &policy()), Admission::Trial);
        assert_eq!(breaker.admit(106 * S, &policy()), Admission::Trial);
        assert!(matches!(breaker.admit(110 * S, &policy()), Admission::Open { .. }));
        assert_eq!(breaker.admit(112 * S, &policy()), Admission::Trial);
    }

    #[test]
    fn answers_to_requests_of_before_are_old_news() {
        let breaker = opened();
        assert_eq!(feed(&breaker, 101 * S, GOOD, 50), Change::None);
        assert_eq!(feed(&breaker, 101 * S, BAD, 50), Change::None);
        assert!(breaker.is_open());
    }

    #[test]
    fn counts_at_the_brim_keep_their_share() {
        let breaker = Breaker::default();
        let mild = Policy { failures_percent: 60, ..policy() };
        for _ in 0..70_000 {
            assert_eq!(breaker.report(100 * S, &mild, false, GOOD), Change::None);
            assert_eq!(breaker.report(100 * S, &mild, false, BAD), Change::None);
        }
    }
}
