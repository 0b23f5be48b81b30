//! Retries: the table line by line, and the budget under attack.

use proptest::prelude::*;

use super::*;

fn attempt(failure: Failure) -> Attempt {
    Attempt {
        failure,
        bytes_sent: 100,
        reused_connection: false,
        response_started: false,
        idempotent: true,
        body_replayable: true,
        other_address: false,
        retries_made: 0,
    }
}

fn spent() -> Budget {
    Budget::new(0, 0)
}

const AGAIN: RetryDecision = RetryDecision::Retry(Where::AnotherTarget);
const ELSEWHERE: RetryDecision = RetryDecision::Retry(Where::OtherAddress);
const STALE: RetryDecision = RetryDecision::Retry(Where::Anywhere);

fn stop(why: Why) -> RetryDecision {
    RetryDecision::Stop(why)
}

#[test]
fn the_table_line_by_line() {
    let listing = Policy { on_statuses: vec![503], on_timeout: true, ..Policy::default() };
    let check = |line: u8, policy: &Policy, attempt: Attempt, expected: RetryDecision| {
        let decision = decide(&attempt, policy, &mut Budget::default(), 0);
        assert_eq!(decision, expected, "line {line}: {attempt:?}");
    };
    let ours = Policy::default();
    let reset = attempt(Failure::Reset);
    let connect = Attempt { bytes_sent: 0, ..attempt(Failure::Connect) };
    let stale = Attempt { reused_connection: true, ..reset };
    let post = |attempt| Attempt { idempotent: false, ..attempt };

    check(1, &ours, Attempt { response_started: true, ..reset }, stop(Why::ResponseStarted));
    check(1, &ours, Attempt { response_started: true, ..stale }, stop(Why::ResponseStarted));
    check(2, &ours, attempt(Failure::ClientGone), stop(Why::ClientGone));
    check(3, &ours, Attempt { body_replayable: false, ..connect }, stop(Why::BodyGone));
    check(4, &ours, post(reset), stop(Why::NotIdempotent));
    check(4, &ours, post(stale), stop(Why::NotIdempotent));
    check(
        4,
        &listing,
        post(Attempt { bytes_sent: 0, ..attempt(Failure::Status(503)) }),
        stop(Why::NotIdempotent),
    );
    check(5, &ours, stale, STALE);
    check(5, &ours, post(Attempt { bytes_sent: 0, ..stale }), STALE);
    check(5, &Policy { retries: 0, ..Policy::default() }, stale, STALE);
    let other = Attempt { other_address: true, ..connect };
    check(6, &ours, other, ELSEWHERE);
    check(6, &ours, post(Attempt { retries_made: 1, ..other }), ELSEWHERE);
    check(6, &Policy { retries: 0, ..Policy::default() }, other, ELSEWHERE);
    check(
        8,
        &ours,
        Attempt { other_address: true, ..attempt(Failure::BadResponse) },
        stop(Why::NotRetryable),
    );
    check(7, &ours, Attempt { retries_made: 1, ..connect }, stop(Why::AttemptsSpent));
    check(7, &Policy { retries: 0, ..Policy::default() }, connect, stop(Why::AttemptsSpent));
    check(8, &ours, attempt(Failure::ResponseTimeout), stop(Why::NotRetryable));
    check(8, &ours, attempt(Failure::BadResponse), stop(Why::NotRetryable));
    check(8, &ours, attempt(Failure::Status(503)), stop(Why::NotRetryable));
    check(8, &listing, attempt(Failure::Status(502)), stop(Why::NotRetryable));
    check(10, &ours, connect, AGAIN);
    check(10, &ours, post(connect), AGAIN);
    check(10, &ours, post(Attempt { bytes_sent: 0, ..attempt(Failure::ConnectTimeout) }), AGAIN);
    check(10, &ours, reset, AGAIN);
    check(10, &listing, attempt(Failure::Status(503)), AGAIN);
    check(10, &listing, attempt(Failure::ResponseTimeout), AGAIN);
    check(10, &Policy { repeat_any_method: true, ..Policy::default() }, post(reset), AGAIN);
    check(10, &Policy { retries: 5, ..Policy::default() }, Attempt { retries_made: 4, ..connect }, AGAIN);
}

#[test]
fn line_9_the_budget_is_asked_last_and_not_for_stale_connections() {
    let reset = attempt(Failure::Reset);
    let policy = Policy::default();
    assert_eq!(decide(&reset, &policy, &mut spent(), 0), stop(Why::BudgetSpent));
    assert_eq!(decide(&Attempt { reused_connection: true, ..reset }, &policy, &mut spent(), 0), STALE);
    let mut budget = Budget::new(0, 1);
    let refused = decide(&attempt(Failure::BadResponse), &policy, &mut budget, 0);
    assert_eq!(refused, stop(Why::NotRetryable));
    assert_eq!(decide(&reset, &policy, &mut budget, 0), AGAIN);
    assert_eq!(decide(&reset, &policy, &mut budget, 0), stop(Why::BudgetSpent));
}

#[test]
fn a_quiet_upstream_gets_three_retries_a_second() {
    let mut budget = Budget::default();
    for second in 1..100 {
        let taken = (0..1000).filter(|ms| budget.take(second * SECOND + ms * SECOND / 1000)).count();
        let expected = if second == 1 { 3..=6 } else { 2..=3 };
        assert!(expected.contains(&taken), "second {second}: {taken}");
    }
    // Hours of quiet earn no more than that.
    assert_eq!((0..10).filter(|_| budget.take(100_000 * SECOND)).count(), 3);
}

#[test]
fn pauses_double_up_to_the_most() {
    let policy = Policy::default();
    let millis: Vec<_> = [0, 1, 2, 3, 4, 40].map(|n| policy.longest_pause(n).as_millis()).into();
    assert_eq!(millis, [25, 50, 100, 200, 250, 250]);
    assert!(Policy { pause: Duration::ZERO, ..policy }.longest_pause(3).is_zero());
}

proptest! {
    /// In a total outage every request asks for a retry; at 1,000 requests a second a fifth of them get it.
    #[test]
    fn retries_stay_below_a_fifth_of_the_requests(
        requests in 1usize..20_000,
        gap_us in 1u64..5_000,
        quiet in 0usize..3_000,
    ) {
        let mut budget = Budget::default();
        (0..quiet).for_each(|_| budget.earn());
        let mut retries = 0;
        for n in 0..requests as u64 {
            budget.earn();
            retries += u64::from(budget.take(SECOND + n * gap_us * 1000));
        }
        let seconds = requests as u64 * gap_us / 1_000_000 + 1;
        prop_assert!(retries <= 100 + requests as u64 / 5 + 3 * (seconds + 1), "{}", retries);
        prop_assert!(retries >= (requests as u64 / 5).min(3));
    }

    /// The two promises at the top of the module, whatever the policy.
    #[test]
    fn nothing_unsafe_is_ever_repeated(
        failure in prop::sample::select(vec![
            Failure::Connect, Failure::ConnectTimeout, Failure::Reset, Failure::ResponseTimeout,
            Failure::BadResponse, Failure::Status(503), Failure::ClientGone, Failure::Refused, Failure::Busy,
        ]),
        bytes_sent in 0u64..2,
        flags: [bool; 5],
        retries_made in 0u32..3,
        retries in 0u32..4,
    ) {
        let [reused_connection, response_started, idempotent, body_replayable, other_address] = flags;
        let attempt = Attempt {
            failure,
            bytes_sent,
            reused_connection,
            response_started,
            idempotent,
            body_replayable,
            other_address,
            retries_made,
        };
        let policy = Policy {
            retries, on_timeout: true, on_bad_response: true, on_statuses: vec![503], ..Policy::default()
        };
        let decision = decide(&attempt, &policy, &mut Budget::default(), 0);
        if let RetryDecision::Retry(place) = decision {
            prop_assert!(!response_started && body_replayable);
            prop_assert!(idempotent || bytes_sent == 0);
            prop_assert!(failure != Failure::ClientGone);
            let uncounted = place == Where::Anywhere && reused_connection
                || place == Where::OtherAddress && other_address;
            prop_assert!(retries_made < retries || uncounted);
        }
    }
}
