//! rate-limiting: the windows, what is counted, what the client is told, and exactness.

use std::collections::BTreeMap;
use std::sync::{Arc, Barrier};

use portcullis_tests::client::{Connection, Request, Response};
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::{Gateway, Setup};
use portcullis_tests::origin::{Echo, Origin};

/// Routes and the configuration of their limiter. A window of an hour does not end inside a test
/// more than once in a blue moon; [`calm`] waits out the moon.
const ROUTES: &[(&str, &str)] = &[
    ("ip", "{hour: 5, limit_by: ip}"),
    ("two", "{minute: 3, hour: 100, limit_by: ip}"),
    ("consumer", "{hour: 4, limit_by: consumer}"),
    ("credential", "{hour: 3, limit_by: credential}"),
    ("header", "{hour: 3, limit_by: header, header_name: X-Tenant}"),
    ("path", "{hour: 3, limit_by: path, path: /path/counted}"),
    ("hidden", "{hour: 1, limit_by: ip, hide_client_headers: true}"),
    ("worded", "{hour: 1, limit_by: ip, error_code: 503, error_message: slow down}"),
    ("exact", "{hour: 1000, limit_by: header, header_name: X-Run}"),
];

struct Suite {
    gateway: Gateway,
    origin: Origin,
}

fn start(trusted: bool) -> Suite {
    calm();
    let origin = Origin::start(Echo::default());
    let mut body = format!("services:\n  - name: web\n    url: http://{}\n    routes:\n", origin.addr());
    for (name, config) in ROUTES {
        let auth = if matches!(*name, "consumer" | "credential") {
            "          - {name: key-auth, config: {anonymous: guest}}\n"
        } else {
            ""
        };
        body.push_str(&format!(
            "      - name: {name}\n        paths: [/{name}]\n        strip_path: false\n        plugins:\n{auth}          \
             - name: rate-limiting\n            config: {config}\n"
        ));
    }
    let body = body
        + "consumers:\n  - username: guest\n  - username: ann\n    keyauth_credentials: [{key: ann-1}, {key: ann-2}]\n  \
           - username: ben\n    keyauth_credentials: [{key: ben-1}]\n";
    let sections = if trusted { "trusted_proxies: [127.0.0.1/32]" } else { "" };
    Suite { gateway: Gateway::start(&Setup::new(body).with(sections)), origin }
}

/// Waits while the current minute is about to end, so that no window ends inside a test.
fn calm() {
    eventually("a minute with time left", || {
        let second = portcullis_tests::tokens::now(0) % 60;
        holds(second < 52, "the minute is about to end")
    });
}

/// Statuses of `count` requests.
fn statuses(suite: &Suite, count: usize, request: &Request) -> Vec<u16> {
    (0..count).map(|_| request.send(suite.gateway.addr()).status).collect()
}

#[test]
fn headers_count_down_and_the_limit_is_429() {
    let suite = start(false);
    let mut last = None;
    for left in (0..5).rev() {
        let response = Request::get("/ip").send(suite.gateway.addr()).expect(200);
        assert_eq!(response.header("x-ratelimit-limit-hour"), "5");
        assert_eq!(response.header("x-ratelimit-remaining-hour"), left.to_string());
        assert_eq!(response.header("ratelimit-limit"), "5");
        assert_eq!(response.header("ratelimit-remaining"), left.to_string());
        last = Some(response);
    }
    let reset: u64 = last.expect("a response").header("ratelimit-reset").parse().expect("seconds");
    assert!((1..=3600).contains(&reset), "{reset}");
    let refused = Request::get("/ip").send(suite.gateway.addr()).expect(429);
    assert_eq!(refused.json()["message"], "API rate limit exceeded");
    let wait: u64 = refused.header("retry-after").parse().expect("seconds");
    assert!((1..=3600).contains(&wait), "{wait}");
    assert_eq!(refused.header("x-ratelimit-remaining-hour"), "0");
    assert_eq!(suite.origin.requests(), 5);
}

#[test]
fn the_tightest_window_decides() {
    let suite = start(false);
    assert_eq!(statuses(&suite, 4, &Request::get("/two")), [200, 200, 200, 429]);
    let refused = Request::get("/two").send(suite.gateway.addr()).expect(429);
    assert_eq!(refused.header("x-ratelimit-limit-minute"), "3");
    assert_eq!(refused.header("x-ratelimit-limit-hour"), "100");
    assert_eq!(refused.header("ratelimit-limit"), "3");
}

#[test]
fn limits_by_ip_follow_the_client_behind_a_trusted_proxy() {
    let suite = start(true);
    let from = |ip: &str| Request::get("/ip").header("X-Forwarded-For", ip);
    assert_eq!(statuses(&suite, 6, &from("203.0.113.1")), [200, 200, 200, 200, 200, 429]);
    assert_eq!(statuses(&suite, 1, &from("203.0.113.2")), [200]);
    assert_eq!(statuses(&suite, 5, &from("2001:db8:1:2::1")), [200; 5]);
    // One /64 is one client.
    assert_eq!(statuses(&suite, 1, &from("2001:db8:1:2:ffff::9")), [429]);
    assert_eq!(statuses(&suite, 1, &from("2001:db8:1:3::1")), [200]);
}

#[test]
fn a_forged_forwarded_for_does_not_help() {
    let suite = start(false);
    let codes: Vec<u16> = (0..6)
        .map(|n| Request::get("/ip").header("X-Forwarded-For", format!("198.51.100.{n}")))
        .map(|request| request.send(suite.gateway.addr()).status)
        .collect();
    assert_eq!(codes, [200, 200, 200, 200, 200, 429]);
}

#[test]
fn limits_by_consumer_span_credentials() {
    let suite = start(false);
    let with = |key: &str| Request::get("/consumer").header("apikey", key);
    assert_eq!(statuses(&suite, 2, &with("ann-1")), [200, 200]);
    assert_eq!(statuses(&suite, 3, &with("ann-2")), [200, 200, 429]);
    assert_eq!(statuses(&suite, 1, &with("ben-1")), [200]);
}

#[test]
fn limits_by_credential_do_not_span_them() {
    let suite = start(false);
    let with = |key: &str| Request::get("/credential").header("apikey", key);
    assert_eq!(statuses(&suite, 4, &with("ann-1")), [200, 200, 200, 429]);
    assert_eq!(statuses(&suite, 1, &with("ann-2")), [200]);
}

#[test]
fn limits_by_header_fall_back_to_the_address() {
    let suite = start(false);
    let tenant = |name: &str| Request::get("/header").header("X-Tenant", name);
    assert_eq!(statuses(&suite, 4, &tenant("a")), [200, 200, 200, 429]);
    assert_eq!(statuses(&suite, 1, &tenant("b")), [200]);
    assert_eq!(statuses(&suite, 4, &Request::get("/header")), [200, 200, 200, 429]);
}

#[test]
fn limits_by_path_count_that_path() {
    let suite = start(false);
    let counted = Request::get("/path/counted");
    assert_eq!(statuses(&suite, 4, &counted), [200, 200, 200, 429]);
}

#[test]
fn headers_can_be_hidden_and_words_changed() {
    let suite = start(false);
    let response = Request::get("/hidden").send(suite.gateway.addr()).expect(200);
    let named = |response: &Response| {
        response.head.fields.iter().filter(|(name, _)| name.to_lowercase().contains("ratelimit")).count()
    };
    assert_eq!(named(&response), 0, "{:?}", response.head.fields);
    assert_eq!(named(&Request::get("/hidden").send(suite.gateway.addr()).expect(429)), 0);
    Request::get("/worded").send(suite.gateway.addr()).expect(200);
    let refused = Request::get("/worded").send(suite.gateway.addr()).expect(503);
    assert_eq!(refused.json()["message"], "slow down");
}

#[test]
fn limits_by_service_span_its_routes() {
    calm();
    let origin = Origin::start(Echo::default());
    let body = format!(
        "services:\n  - name: web\n    url: http://{}\n    routes:\n      - {{name: a, paths: [/a]}}\n      \
         - {{name: b, paths: [/b]}}\n    plugins:\n      - name: rate-limiting\n        \
         config: {{hour: 3, limit_by: service}}\n",
        origin.addr()
    );
    let suite = Suite { gateway: Gateway::start(&Setup::new(body)), origin };
    assert_eq!(statuses(&suite, 2, &Request::get("/a")), [200, 200]);
    assert_eq!(statuses(&suite, 2, &Request::get("/b")), [200, 429]);
}

#[test]
fn the_count_is_exact_over_shards() {
    const LIMIT: u64 = 1000;
    const WORKERS: u64 = 8;
    let suite = start(false);
    let barrier = Arc::new(Barrier::new(WORKERS as usize));
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            let (addr, barrier) = (suite.gateway.addr(), barrier.clone());
            std::thread::spawn(move || {
                let mut seen = BTreeMap::<u16, u64>::new();
                // Several connections a worker, so that both shards serve every one of them.
                let mut connections: Vec<_> = (0..3).map(|_| Connection::open(addr)).collect();
                let request = Request::get("/exact").header("X-Run", "1").keep();
                barrier.wait();
                for turn in 0..(LIMIT / WORKERS + 75) as usize {
                    let response = request.send_on(&mut connections[turn % 3]);
                    *seen.entry(response.status).or_default() += 1;
                }
                seen
            })
        })
        .collect();
    let mut sum = BTreeMap::<u16, u64>::new();
    for worker in workers {
        for (status, count) in worker.join().expect("a worker") {
            *sum.entry(status).or_default() += count;
        }
    }
    assert_eq!(sum, BTreeMap::from([(200, LIMIT), (429, WORKERS * 75)]));
    assert_eq!(suite.origin.requests() as u64, LIMIT);
    let metrics = suite.gateway.metrics();
    let shards = metrics.series().filter(|(series, value)| {
        series.starts_with("portcullis_downstream_connections_total") && *value > 0.0
    });
    assert_eq!(shards.count(), 2, "both shards took part");
}

#[test]
fn counts_survive_a_reload() {
    let suite = start(false);
    assert_eq!(statuses(&suite, 3, &Request::get("/ip")), [200; 3]);
    let text = std::fs::read_to_string(suite.gateway.config()).expect("the configuration");
    std::fs::write(suite.gateway.config(), text + "# changed\n").expect("writing it");
    let before = suite.gateway.generation();
    suite.gateway.signal("HUP");
    eventually("a new generation", || holds(suite.gateway.generation() > before, "not yet"));
    assert_eq!(statuses(&suite, 3, &Request::get("/ip")), [200, 200, 429]);
}

#[test]
fn decisions_are_counted() {
    let suite = start(false);
    statuses(&suite, 7, &Request::get("/ip"));
    eventually("limited requests in the metrics", || {
        let metrics = suite.gateway.metrics();
        let limited = metrics.sum("portcullis_limiter_decisions_total", &[]);
        let refused = metrics.get("portcullis_refusals_total", &[("reason", "rate_limited")]);
        holds(limited >= 7.0 && refused >= 2.0, format!("{limited} decisions, {refused} refusals"))
    });
}
