//! Circuit breakers of upstreams and of targets.

use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::{Mood, Moody, Origin};

use super::{NO_HEALTH, counted, get, setup, statuses};

fn upstream(breaker: &str) -> String {
    format!("{NO_HEALTH}\ncircuit_breaker: {{window: 60s, open_for: 1s, trials: 1, {breaker}}}")
}

#[test]
fn a_share_of_failures_opens_it_and_a_good_trial_closes_it() {
    let (script, mood) = Moody::new("only", Mood::Ill);
    let origin = Origin::start(script);
    let keys = upstream("min_requests: 6, failure_percent: 50");
    let gateway = Gateway::start(&setup(&[origin.addr()], &keys, "retries: 0"));
    for _ in 0..6 {
        assert_eq!(get(&gateway).expect(503).text(), "ill");
    }
    let refused = get(&gateway).expect(503);
    assert!(refused.json()["message"].is_string(), "{}", refused.text());
    let after: u64 = refused.header("retry-after").parse().expect("seconds");
    assert!((1..=2).contains(&after), "{after}");
    let line = gateway.logged(|line| line["reason"] == "breaker_open");
    assert!(line["status"] == 503 && line["upstream"].is_null(), "{line}");
    assert_eq!(origin.requests(), 6);
    let open = || gateway.metrics().sum("portcullis_upstream_breaker_open", &[("upstream", "many")]);
    assert_eq!(open(), 1.0);
    // One bad trial opens it again: of what is asked meanwhile nothing more gets through.
    eventually("a trial", || {
        get(&gateway).expect(503);
        holds(origin.requests() == 7, "no trial yet")
    });
    assert_eq!(get(&gateway).expect(503).header("x-origin"), "");
    mood.set(Mood::Well);
    eventually("a good trial", || holds(get(&gateway).status == 200, "still open"));
    assert_eq!(statuses(&gateway, 10), [200; 10]);
    assert!(counted(&gateway, "breaker_open") >= 2.0);
    assert_eq!(open(), 0.0);
    let log = gateway.stop();
    assert!(log.contains("circuit breaker opened") && log.contains("circuit breaker closed"), "{log}");
}

#[test]
fn slow_answers_open_it() {
    let (script, _mood) = Moody::new("only", Mood::Slow);
    let origin = Origin::start(script);
    let keys = upstream("min_requests: 3, failure_percent: 0, slow_after: 50ms, slow_percent: 60");
    let gateway = Gateway::start(&setup(&[origin.addr()], &keys, "retries: 0"));
    assert_eq!(statuses(&gateway, 4), [200, 200, 200, 503]);
    assert_eq!(origin.requests(), 3);
}

#[test]
fn failures_in_a_row_open_it_and_broken_connections_are_failures() {
    let (script, mood) = Moody::new("only", Mood::Resets);
    let origin = Origin::start(script);
    let keys = upstream("min_requests: 1000, consecutive_failures: 3, status_code: 429");
    let gateway = Gateway::start(&setup(&[origin.addr()], &keys, "retries: 0"));
    assert_eq!(statuses(&gateway, 2), [502, 502]);
    mood.set(Mood::Well);
    assert_eq!(statuses(&gateway, 1), [200]);
    mood.set(Mood::Resets);
    assert_eq!(statuses(&gateway, 4), [502, 502, 502, 429]);
}

#[test]
fn statuses_that_are_no_failures_do_not_open_it() {
    let (script, _mood) = Moody::new("only", Mood::Ill);
    let origin = Origin::start(script);
    let keys = upstream("min_requests: 1, consecutive_failures: 1, http_statuses: [500]");
    let gateway = Gateway::start(&setup(&[origin.addr()], &keys, "retries: 0"));
    statuses(&gateway, 10);
    assert_eq!(origin.requests(), 10);
}

#[test]
fn that_of_a_target_leaves_the_others_alone() {
    let (ill, mood) = Moody::new("ill", Mood::Ill);
    let (well, other) = Moody::new("well", Mood::Well);
    let (ill, well) = (Origin::start(ill), Origin::start(well));
    let keys = upstream("min_requests: 1000, consecutive_failures: 2, scope: target, open_for: 60s")
        .replace("open_for: 1s, ", "");
    let gateway = Gateway::start(&setup(&[ill.addr(), well.addr()], &keys, "retries: 0"));
    let seen = statuses(&gateway, 40);
    assert_eq!(seen.iter().filter(|status| **status == 503).count(), 2, "{seen:?}");
    assert_eq!((ill.requests(), well.requests()), (2, 38));
    other.set(Mood::Ill);
    statuses(&gateway, 4);
    let line = gateway.logged(|line| line["reason"] == "breaker_open");
    assert_eq!(line["status"], 503, "{line}");
    assert!(!get(&gateway).expect(503).header("retry-after").is_empty());
    assert_eq!((ill.requests(), well.requests()), (2, 40));
    drop(mood);
}
