//! Further attempts: after what, how often, and after what never.

use portcullis_tests::client::{Connection, Request};
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::{Mood, Moody, Origin};

use super::{NO_HEALTH, counted, get, setup, statuses};

fn pair(bad: Mood) -> [Origin; 2] {
    [Origin::start(Moody::new("bad", bad).0), Origin::start(Moody::new("good", Mood::Well).0)]
}

/// Before a bad and a good target, with `policy` and a budget that is not what a test is about.
fn start(origins: &[Origin], policy: &str) -> Gateway {
    let targets: Vec<_> = origins.iter().map(Origin::addr).collect();
    let service = format!("retries: 1\nretry_policy: {{{policy}}}");
    Gateway::start(&setup(&targets, NO_HEALTH, &service).with("limits: {retry_budget_percent: 100}"))
}

#[test]
fn retriable_status_codes() {
    let origins = pair(Mood::Ill);
    let gateway = start(&origins, "retriable_status_codes: [503]");
    assert_eq!(statuses(&gateway, 10), [200; 10]);
    assert!(origins[0].requests() >= 2);
    // The target knows of a POST that it answered, whatever it answered.
    let seen: Vec<u16> = (0..10).map(|_| Request::post("/", "x").send(gateway.addr()).status).collect();
    let refused = seen.iter().filter(|status| **status == 503).count();
    assert!((3..=7).contains(&refused), "{seen:?}");
}

#[test]
fn retry_on_gateway_error() {
    let origins = pair(Mood::Ill);
    let gateway = start(&origins, "retry_on: [gateway-error]");
    assert_eq!(statuses(&gateway, 10), [200; 10]);
}

#[test]
fn statuses_are_passed_on_unless_asked_otherwise() {
    let origins = pair(Mood::Ill);
    let gateway = start(&origins, "");
    let seen = statuses(&gateway, 10);
    assert_eq!(seen.iter().filter(|status| **status == 503).count(), 5, "{seen:?}");
}

#[test]
fn the_last_answer_is_passed_on_whole() {
    let origins = [Mood::Ill, Mood::Ill].map(|mood| Origin::start(Moody::new("bad", mood).0));
    let gateway = start(&origins, "retriable_status_codes: [503]");
    let response = get(&gateway).expect(503);
    assert_eq!((response.text(), response.header("x-origin")), ("ill".to_owned(), "bad"));
    assert_eq!(origins[0].requests() + origins[1].requests(), 2);
}

#[test]
fn per_try_timeout() {
    let origins = pair(Mood::Silent);
    let gateway = start(&origins, "retry_on: [timeout], per_try_timeout: 2s");
    assert_eq!(statuses(&gateway, 4), [200; 4]);
    assert!(origins[0].requests() >= 1);
}

#[test]
fn a_try_that_takes_too_long_is_504() {
    let origins = [Origin::start(Moody::new("bad", Mood::Silent).0)];
    let gateway = start(&origins, "per_try_timeout: 200ms");
    get(&gateway).expect(504);
    assert_eq!(origins[0].requests(), 1, "time-outs are not tried again unless asked for");
    gateway.logged(|line| line["reason"] == "upstream_timeout");
}

#[test]
fn retry_non_idempotent() {
    let origins = pair(Mood::Resets);
    let gateway = start(&origins, "retry_non_idempotent: true");
    for _ in 0..6 {
        Request::post("/", "body").send(gateway.addr()).expect(200);
    }
    assert!(origins[0].requests() >= 2);
    assert_eq!(origins[1].last().body.text(), "body");
}

#[test]
fn retry_on_nothing() {
    let origins = pair(Mood::Resets);
    let gateway = start(&origins, "retry_on: []");
    let seen = statuses(&gateway, 10);
    assert_eq!(seen.iter().filter(|status| **status == 502).count(), 5, "{seen:?}");
}

#[test]
fn the_budget_bounds_what_an_outage_costs() {
    let origins = [Mood::Resets, Mood::Resets].map(|mood| Origin::start(Moody::new("bad", mood).0));
    let targets = origins.each_ref().map(Origin::addr);
    let service = "retries: 5\nretry_policy: {retry_back_off: {base_interval: 1ms}}";
    let gateway = Gateway::start(&setup(&targets, NO_HEALTH, service));
    let sent = 200;
    let started = std::time::Instant::now();
    assert_eq!(statuses(&gateway, sent), vec![502; sent]);
    let reached = origins[0].requests() + origins[1].requests();
    // A fifth, and three a second, and what had been saved up.
    let allowed = sent / 5 + 3 * (started.elapsed().as_secs() as usize + 2) + 3;
    assert!(
        (sent + 3..=sent + allowed).contains(&reached),
        "{reached} attempts for {sent} requests, {allowed} allowed"
    );
    eventually("counters", || {
        let retries = gateway.metrics().sum("portcullis_upstream_retries_total", &[]);
        holds(retries as usize == reached - sent, format!("{retries} retries, {reached} reached"))
    });
    assert_eq!(counted(&gateway, "upstream_reset") as usize, sent);
}

#[test]
fn a_small_body_is_kept_for_another_attempt() {
    let origins = pair(Mood::Resets);
    let gateway = start(&origins, "");
    for number in 0..6 {
        let mut connection = Connection::open(gateway.addr());
        let body = "x".repeat(10_000 * (number + 1));
        connection
            .send(format!("PUT /{number} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", body.len()));
        // Behind its head, in pieces.
        for piece in body.as_bytes().chunks(4000) {
            connection.send(piece);
        }
        connection.response().expect(200);
    }
    assert!(origins[0].requests() >= 1, "the bad target was asked");
    assert_eq!(origins[1].last().body.len, 60_000);
}
