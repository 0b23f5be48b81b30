//! The plugin on exchanges without a connection.

use std::time::Duration;

use super::super::fixture::{Fixture, request, request_with};
use crate::http::RequestHead;
use crate::metrics::LimiterDecision;
use crate::plugin::{Flow, Identity, Plugin};

/// Status, and whether the request must wait.
fn send(fixture: &Fixture, plugin: &dyn Plugin, identity: Identity, head: &mut RequestHead) -> (u16, bool) {
    let mut cx = fixture.cx_from("203.0.113.1");
    cx.identity = identity;
    match plugin.on_request(&mut cx, head) {
        Flow::Continue => (200, false),
        Flow::Wait(_) => (200, true),
        Flow::Respond(response) => (response.status, false),
    }
}

fn get(fixture: &Fixture, plugin: &dyn Plugin) -> (u16, bool) {
    send(fixture, plugin, Identity::default(), &mut request_with("/", &[]))
}

fn passed(count: usize, mut send: impl FnMut() -> (u16, bool)) -> usize {
    (0..count).filter(|_| send().0 == 200).count()
}

fn identity(fixture: &Fixture, key: &str) -> Identity {
    let credential = fixture.consumers.by_key(key.as_bytes(), Duration::ZERO).expect("a key of the fixture");
    let consumer = fixture.consumers.credential(credential).consumer;
    Identity { consumer: Some(consumer), credential: Some(credential), authenticated: true, anonymous: false }
}

#[test]
fn each_algorithm_limits_in_its_own_way() {
    // Second since the start, and how many of ten pass then. The start is at a whole minute.
    for (config, expected) in [
        ("window_type: fixed", [(0, 4), (59, 0), (60, 4), (61, 0)]),
        ("algorithm: fixed_window", [(0, 4), (59, 0), (60, 4), (61, 0)]),
        // 4 of the minute before weigh 4, then 2.
        ("disable_penalty: true", [(0, 4), (59, 0), (60, 0), (90, 2)]),
        ("algorithm: sliding_log", [(0, 4), (59, 0), (60, 4), (119, 0)]),
        ("algorithm: token_bucket", [(0, 4), (14, 0), (15, 1), (60, 3)]),
        ("algorithm: leaky_bucket, burst: [2]", [(0, 3), (14, 0), (15, 1), (60, 3)]),
    ] {
        let mut fixture = Fixture::default();
        let config = format!("{{limit: [4], window_size: [60], identifier: ip, {config}}}");
        let plugin = fixture.accepted("rate-limiting-advanced", &config);
        for (second, admitted) in expected {
            fixture.elapsed = Duration::from_secs(second);
            assert_eq!(passed(10, || get(&fixture, &*plugin)), admitted, "{config} at {second} s");
        }
    }
}

#[test]
fn a_leaky_bucket_delays() {
    let fixture = Fixture::default();
    let plugin = fixture.accepted(
        "rate-limiting-advanced",
        "{limit: [1], window_size: [1], algorithm: leaky_bucket, burst: [2]}",
    );
    let answers: Vec<_> = (0..4).map(|_| get(&fixture, &*plugin)).collect();
    assert_eq!(answers, [(200, false), (200, true), (200, true), (429, false)]);
}

#[test]
fn keys_can_be_combined() {
    let fixture = Fixture::default();
    let settings = "{limit: [1], window_size: [60], compound_identifier: [header, cookie, path], \
                    header_name: X-Tenant, cookie_name: sid}";
    let plugin = fixture.accepted("rate-limiting-advanced", settings);
    let pass = |target: &str, tenant: &str, cookie: &str| {
        let lines = [format!("X-Tenant: {tenant}"), format!("Cookie: a=b; sid={cookie}")];
        let head = &mut request_with(target, &[&lines[0], &lines[1]]);
        send(&fixture, &*plugin, Identity::default(), head).0 == 200
    };
    assert!(pass("/", "a", "1") && !pass("/", "a", "1"));
    assert!(pass("/", "a", "2") && pass("/", "b", "1") && pass("/x", "a", "1"));
    assert!(!pass("/x", "a", "1") && !pass("/", "b", "1"));
}

#[test]
fn requests_are_counted_by_claims_that_were_verified() {
    let fixture = Fixture::default();
    let settings = "{limit: [1], window_size: [60], identifier: claim, claim_name: org.id}";
    let plugin = fixture.accepted("rate-limiting-advanced", settings);
    let pass = |claims: &str| {
        let mut cx = fixture.cx();
        cx.claims = serde_json::from_str(claims).ok().map(Box::new);
        matches!(plugin.on_request(&mut cx, &mut request_with("/", &[])), Flow::Continue)
    };
    assert!(pass(r#"{"org": {"id": 7}}"#) && !pass(r#"{"org": {"id": 7}}"#));
    assert!(!pass(r#"{"org": {"id": "7"}, "x": 1}"#) && pass(r#"{"org": {"id": 8}}"#));
    // Without the claim, by address.
    assert!(pass("{}") && !pass(r#"{"org": 7}"#));
}

#[test]
fn tiers_costs_and_exemptions() {
    let fixture = Fixture::new(
        "consumers:\n\
         - {username: ann, acls: [{group: gold}], keyauth_credentials: [{key: ann/1}]}\n\
         - {username: ben, keyauth_credentials: [{key: ben/1}]}\n\
         - {username: cat, keyauth_credentials: [{key: cat/1}]}\n\
         services: [{name: web, url: 'http://a.example', routes: [{name: dear, paths: [/]}]}]\n",
    );
    let settings = "{limit: [6], window_size: [60], window_type: fixed, cost: 2, route_costs: {dear: 5}, \
                    tiers: [{groups: [gold], limit: [10]}], exempt: {consumers: [cat], ips: [198.51.100.0/24]}}";
    let plugin = fixture.accepted("rate-limiting-advanced", settings);
    let pass = |key: &str, route: &'static str, client: &str| {
        let mut cx = fixture.cx_from(client);
        cx.route_name = route;
        if !key.is_empty() {
            cx.identity = identity(&fixture, key);
        }
        matches!(plugin.on_request(&mut cx, &mut request_with("/", &[])), Flow::Continue)
    };
    let count = |key, route, client| (0..9).filter(|_| pass(key, route, client)).count();
    assert_eq!(count("ann/1", "cheap", "203.0.113.1"), 5);
    assert_eq!(count("ben/1", "dear", "203.0.113.1"), 1);
    assert_eq!(count("", "cheap", "203.0.113.1"), 3);
    assert_eq!(count("cat/1", "dear", "203.0.113.1"), 9);
    assert_eq!(count("", "dear", "198.51.100.7"), 9);
}

#[test]
fn a_dry_run_refuses_nobody_and_says_so_in_the_metrics() {
    let fixture = Fixture::default();
    let plugin = fixture.accepted("rate-limiting-advanced", "{limit: [1], window_size: [60], dry_run: true}");
    let decide = || {
        let mut cx = fixture.cx();
        assert!(matches!(plugin.on_request(&mut cx, &mut request_with("/", &[])), Flow::Continue));
        (cx.limiter, cx.response_fields.len())
    };
    assert!(matches!(decide(), (Some(LimiterDecision::Conforming), 1..)));
    assert_eq!(decide(), (Some(LimiterDecision::DryRun), 0));
}

#[test]
fn the_draft_has_fields_of_its_own() {
    let fixture = Fixture::default();
    let settings = "{limit: [5, 9], window_size: [60, 90], window_type: fixed, client_headers: [draft]}";
    let plugin = fixture.accepted("rate-limiting-advanced", settings);
    let mut cx = fixture.cx();
    let _ = plugin.on_request(&mut cx, &mut request("GET / HTTP/1.1\nHost: a"));
    let text =
        |name: &str| String::from_utf8_lossy(cx.response_fields.get(name).unwrap_or_default()).into_owned();
    assert_eq!(text("RateLimit-Policy"), r#""minute";q=5;w=60, "90";q=9;w=90"#);
    assert_eq!(text("RateLimit"), r#""minute";r=4;t=60, "90";r=8;t=90"#);
    assert_eq!(text("X-RateLimit-Limit-Minute"), "");
}

#[test]
fn instances_of_one_namespace_share_their_counts() {
    let fixture = Fixture::default();
    let make = |instance, namespace: &str| {
        let settings =
            format!("{{limit: [3], window_size: [60], window_type: fixed, namespace: {namespace}}}");
        fixture.compile("rate-limiting-advanced", instance, &settings).expect("good").0
    };
    let (a, b, c) = (make(1, "n"), make(2, "n"), make(3, "m"));
    assert_eq!((passed(2, || get(&fixture, &*a)), passed(5, || get(&fixture, &*b))), (2, 1));
    assert_eq!(passed(5, || get(&fixture, &*c)), 3);
}

#[test]
fn mistakes_are_told() {
    let fixture = Fixture::default();
    for (settings, said) in [
        ("{limit: [1, 2], window_size: [60]}", "same number of windows and limits"),
        ("{limit: [1], window_size: [60], burst: [1, 2]}", "as many bursts"),
        ("{limit: [1, 2], window_size: [60, 60]}", "two limits"),
        ("{limit: [10001], window_size: [60], algorithm: sliding_log}", "at most 10000"),
        ("{limit: [1], window_size: [60], identifier: cookie}", "needs `cookie_name`"),
        ("{limit: [1], window_size: [60], identifier: claim}", "needs `claim_name`"),
        ("{limit: [1], window_size: [60], identifier: header}", "needs `header_name`"),
        ("{limit: [1], window_size: [60], tiers: [{limit: [2]}]}", "nobody's"),
        ("{limit: [1], window_size: [60], tiers: [{limit: [2], consumers: [zoe]}]}", "no consumer"),
        ("{window_size: [60]}", "limit"),
    ] {
        let found = fixture.refused("rate-limiting-advanced", settings);
        assert!(found.contains(said), "{settings}: {found}");
    }
}
