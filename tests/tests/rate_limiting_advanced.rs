//! rate-limiting-advanced, with counts in memory: each option by what it does.

use std::time::{Duration, Instant};

use jsonwebtoken::Algorithm;
use portcullis_tests::client::{Request, Response};
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::{Gateway, Setup};
use portcullis_tests::origin::{Echo, Origin};
use portcullis_tests::tokens::{claims, keys, token};
use serde_json::json;

/// A window that does not end inside a test: it does once in eleven days.
const LONG: &str = "window_size: [999983]";

struct Suite {
    gateway: Gateway,
    origin: Origin,
}

/// A gateway with a route `/NAME` for each pair of a name and the settings of its limiter. Routes whose names begin with
/// `who` ask for a key first, those with `token` for a token.
fn start(routes: &[(&str, &str)]) -> Suite {
    let origin = Origin::start(Echo::default());
    let mut body = format!("services:\n  - name: web\n    url: http://{}\n    routes:\n", origin.addr());
    for (name, config) in routes {
        let auth = match *name {
            name if name.starts_with("who") => "          - {name: key-auth, config: {anonymous: guest}}\n",
            name if name.starts_with("token") => "          - {name: jwt}\n",
            _ => "",
        };
        body.push_str(&format!(
            "      - name: {name}\n        paths: [/{name}]\n        strip_path: false\n        plugins:\n{auth}          \
             - name: rate-limiting-advanced\n            config: {config}\n"
        ));
    }
    let (material, key) = keys().verifier(Algorithm::HS256);
    let body = body
        + &format!(
            "consumers:\n  - username: guest\n  - username: ann\n    acls: [{{group: gold}}]\n    \
             keyauth_credentials: [{{key: ann-1}}, {{key: ann-2}}]\n    \
             jwt_secrets: [{{key: issuer, algorithm: HS256, {material}: {key}}}]\n  - username: ben\n    \
             acls: [{{group: gold}}]\n    keyauth_credentials: [{{key: ben-1}}]\n"
        );
    Suite { gateway: Gateway::start(&Setup::new(body)), origin }
}

impl Suite {
    fn send(&self, request: &Request) -> Response {
        request.send(self.gateway.addr())
    }

    /// How many of `count` requests pass; the others are refused with 429.
    fn passed(&self, count: usize, request: &Request) -> usize {
        let statuses: Vec<_> = (0..count).map(|_| self.send(request).status).collect();
        assert!(statuses.iter().all(|status| matches!(status, 200 | 429)), "{statuses:?}");
        statuses.iter().filter(|status| **status == 200).count()
    }
}

fn get(target: &str) -> Request {
    Request::get(target)
}

fn by(target: &str, key: &str) -> Request {
    get(target).header("apikey", key)
}

#[test]
fn limit_and_window_size_hold_together() {
    let config = "{limit: [4, 2], window_size: [1999993, 999983], window_type: fixed, identifier: ip}";
    let suite = start(&[("two", config)]);
    assert_eq!(suite.passed(5, &get("/two")), 2);
    let refused = suite.send(&get("/two")).expect(429);
    assert_eq!(refused.header("x-ratelimit-limit-999983"), "2");
    assert_eq!(refused.header("x-ratelimit-remaining-999983"), "0");
    assert_eq!(refused.header("x-ratelimit-remaining-1999993"), "2");
    assert_eq!(refused.json()["message"], "API rate limit exceeded");
    assert_eq!(suite.origin.requests(), 2);
}

#[test]
fn algorithm_and_window_type_limit_in_five_ways() {
    let suite = start(&[
        ("fixed", &format!("{{limit: [3], {LONG}, identifier: ip, window_type: fixed}}")),
        ("sliding", &format!("{{limit: [3], {LONG}, identifier: ip, window_type: sliding}}")),
        ("log", &format!("{{limit: [3], {LONG}, identifier: ip, algorithm: sliding_log}}")),
        ("bucket", &format!("{{limit: [3], {LONG}, identifier: ip, algorithm: token_bucket, burst: [5]}}")),
        (
            "crowded",
            &format!("{{limit: [3], {LONG}, identifier: ip, algorithm: sliding_log, log_entries: 1}}"),
        ),
    ]);
    for (route, admitted) in [("/fixed", 3), ("/sliding", 3), ("/log", 3), ("/bucket", 5), ("/crowded", 3)] {
        assert_eq!(suite.passed(8, &get(route)), admitted, "{route}");
        let wait: u64 = suite.send(&get(route)).expect(429).header("retry-after").parse().expect("seconds");
        assert!((1..=2 * 999_983).contains(&wait), "{route}: {wait}");
    }
}

#[test]
fn algorithm_leaky_bucket_delays_and_then_refuses() {
    let suite = start(&[(
        "queue",
        "{limit: [2], window_size: [1], identifier: ip, algorithm: leaky_bucket, burst: [2]}",
    )]);
    let begin = Instant::now();
    assert_eq!(suite.passed(4, &get("/queue")), 4);
    // The first one at once, the others half a second after each other at the soonest.
    assert!(begin.elapsed() >= Duration::from_millis(1_450), "{:?}", begin.elapsed());
    // More at once than may wait: some are refused, whatever the machine's pace.
    let requests: Vec<_> = (0..12)
        .map(|_| {
            let addr = suite.gateway.addr();
            std::thread::spawn(move || get("/queue").send(addr).status)
        })
        .collect();
    let statuses: Vec<_> = requests.into_iter().map(|one| one.join().expect("an answer")).collect();
    assert!(statuses.contains(&429) && statuses.contains(&200), "{statuses:?}");
}

#[test]
fn disable_penalty_spares_who_was_refused() {
    let config = |penalty| format!("{{limit: [2], {LONG}, identifier: ip, disable_penalty: {penalty}}}");
    let suite = start(&[("spared", &config("true")), ("counted", &config("false"))]);
    let waits = ["/spared", "/counted"].map(|route| {
        assert_eq!(suite.passed(20, &get(route)), 2);
        suite.send(&get(route)).expect(429).header("retry-after").parse::<u64>().expect("seconds")
    });
    assert!(waits[1] > waits[0], "{waits:?}");
}

#[test]
fn identifier_says_whose_requests_are_counted_together() {
    let config = |more: &str| format!("{{limit: [2], {LONG}, {more}}}");
    let suite = start(&[
        ("who-consumer", &config("identifier: consumer")),
        ("who-credential", &config("identifier: credential")),
        ("who-group", &config("identifier: consumer-group")),
        ("route", &config("identifier: route")),
        ("service", &config("identifier: service")),
        ("host", &config("identifier: host")),
        ("header", &config("identifier: header, header_name: X-Tenant")),
        ("path", &config("identifier: path")),
        ("cookie", &config("identifier: cookie, cookie_name: sid")),
        ("token-claim", &config("identifier: claim, claim_name: org.id")),
    ]);
    let pass = |count, request: Request| suite.passed(count, &request);
    assert_eq!(pass(1, by("/who-consumer", "ann-1")) + pass(3, by("/who-consumer", "ann-2")), 2);
    assert_eq!(pass(3, by("/who-consumer", "ben-1")), 2);
    assert_eq!([pass(3, by("/who-credential", "ann-1")), pass(3, by("/who-credential", "ann-2"))], [2, 2]);
    assert_eq!(pass(1, by("/who-group", "ann-1")) + pass(3, by("/who-group", "ben-1")), 2);
    assert_eq!(pass(3, get("/who-group")), 2, "without a group by address");
    assert_eq!([pass(3, get("/route")), pass(3, get("/service"))], [2, 2]);
    assert_eq!(
        [pass(3, get("/host").header("Host", "a")), pass(3, get("/host").header("Host", "b"))],
        [2, 2]
    );
    let tenant = |name| get("/header").header("X-Tenant", name);
    assert_eq!([pass(3, tenant("a")), pass(3, tenant("b")), pass(3, get("/header"))], [2, 2, 2]);
    assert_eq!([pass(3, get("/path/a")), pass(3, get("/path/b"))], [2, 2]);
    let cookie = |value: &str| get("/cookie").header("Cookie", format!("x=1; sid={value}"));
    assert_eq!([pass(3, cookie("a")), pass(3, cookie("b")), pass(3, get("/cookie"))], [2, 2, 2]);
    let org = |id: u32| {
        let mut claims = claims("issuer");
        claims["org"] = json!({ "id": id });
        get("/token-claim").header("Authorization", format!("Bearer {}", token(Algorithm::HS256, &claims)))
    };
    assert_eq!([pass(3, org(1)), pass(3, org(2))], [2, 2]);
}

#[test]
fn compound_identifier_counts_by_several_together() {
    let config = format!("{{limit: [1], {LONG}, compound_identifier: [consumer, path]}}");
    let suite = start(&[("who", &config)]);
    for (key, path) in [("ann-1", "/who/a"), ("ann-1", "/who/b"), ("ben-1", "/who/a")] {
        assert_eq!(suite.passed(2, &by(path, key)), 1, "{key} {path}");
    }
    assert_eq!(suite.passed(2, &by("/who/b", "ann-2")), 0, "another key of the same consumer");
}

#[test]
fn tiers_have_limits_of_their_own() {
    let config = format!(
        "{{limit: [1], {LONG}, tiers: [{{consumers: [ben], limit: [4]}}, {{groups: [gold], limit: [3]}}]}}"
    );
    let suite = start(&[("who", &config)]);
    for (key, admitted) in [("ann-1", 3), ("ben-1", 4), ("none", 1)] {
        assert_eq!(suite.passed(6, &by("/who", key)), admitted, "{key}");
    }
    assert_eq!(suite.send(&by("/who", "ann-1")).header("x-ratelimit-limit-999983"), "3");
}

#[test]
fn cost_and_route_costs_say_what_a_request_counts_for() {
    let config = format!(
        "{{limit: [10], {LONG}, identifier: ip, disable_penalty: true, namespace: shared, cost: 2, route_costs: {{dear: 5, free: 0}}}}"
    );
    let suite = start(&[("cheap", &config), ("dear", &config), ("free", &config)]);
    assert_eq!(suite.send(&get("/dear")).expect(200).header("ratelimit-remaining"), "5");
    assert_eq!(suite.send(&get("/cheap")).expect(200).header("ratelimit-remaining"), "3");
    suite.send(&get("/dear")).expect(429);
    assert_eq!(suite.passed(5, &get("/free")), 5);
    assert_eq!(suite.passed(3, &get("/cheap")), 1);
}

#[test]
fn exempt_are_not_counted() {
    let config = format!("{{limit: [1], {LONG}, exempt: {{consumers: [ben], groups: [silver]}}}}");
    let addresses = format!("{{limit: [1], {LONG}, exempt: {{ips: [127.0.0.0/8]}}}}");
    let suite = start(&[("who", &config), ("near", &addresses)]);
    assert_eq!(suite.passed(4, &by("/who", "ben-1")), 4);
    assert_eq!(suite.passed(4, &by("/who", "ann-1")), 1);
    assert_eq!(suite.passed(4, &get("/near")), 4);
}

#[test]
fn dry_run_counts_and_refuses_nobody() {
    let suite = start(&[("dry", &format!("{{limit: [2], {LONG}, identifier: ip, dry_run: true}}"))]);
    assert_eq!(suite.passed(6, &get("/dry")), 6);
    eventually("dry runs in the metrics", || {
        let count = |decision| {
            suite.gateway.metrics().get("portcullis_limiter_decisions_total", &[("decision", decision)])
        };
        holds(count("dry_run") >= 4.0 && count("limited") == 0.0, "not yet")
    });
}

#[test]
fn hide_client_headers_and_client_headers_say_what_is_told() {
    let config = |more: &str| format!("{{limit: [1], {LONG}, window_type: fixed, identifier: ip, {more}}}");
    let suite = start(&[
        ("hidden", &config("hide_client_headers: true")),
        ("kong", &config("client_headers: [x-ratelimit]")),
        ("draft", &config("client_headers: [draft]")),
    ]);
    let named = |route: &str| {
        let responses = [suite.send(&get(route)).expect(200), suite.send(&get(route)).expect(429)];
        responses.map(|response| {
            let fields = response.head.fields.iter().map(|(name, _)| name.to_lowercase());
            let mut told: Vec<_> =
                fields.filter(|name| name.contains("ratelimit") || name == "retry-after").collect();
            told.sort();
            told.join(" ")
        })
    };
    assert_eq!(named("/hidden"), ["", ""]);
    let both = "x-ratelimit-limit-999983 x-ratelimit-remaining-999983";
    assert_eq!(named("/kong"), [both.to_owned(), format!("retry-after {both}")]);
    assert_eq!(named("/draft"), ["ratelimit ratelimit-policy", "ratelimit ratelimit-policy retry-after"]);
    let refused = suite.send(&get("/draft"));
    assert_eq!(refused.header("ratelimit-policy"), "\"999983\";q=1;w=999983");
    assert!(refused.header("ratelimit").starts_with("\"999983\";r=0;t="), "{refused:?}");
}

#[test]
fn error_code_error_message_and_jitter_are_told() {
    let config = format!(
        "{{limit: [1], {LONG}, window_type: fixed, identifier: ip, error_code: 503, error_message: slow down, \
         retry_after_jitter_max: 1000}}"
    );
    let suite = start(&[("worded", &config)]);
    suite.send(&get("/worded")).expect(200);
    let waits: Vec<i64> = (0..8)
        .map(|_| {
            let refused = suite.send(&get("/worded")).expect(503);
            assert_eq!(refused.json()["message"], "slow down");
            let number = |name: &str| refused.header(name).parse::<i64>().expect("seconds");
            number("retry-after") - number("ratelimit-reset")
        })
        .collect();
    assert!(waits.iter().all(|wait| (0..=1000).contains(wait)), "{waits:?}");
    assert!(waits.iter().any(|wait| *wait != waits[0]), "{waits:?}");
}

#[test]
fn namespace_shares_counts_between_instances() {
    let config = |namespace: &str| format!("{{limit: [3], {LONG}, identifier: ip, namespace: {namespace}}}");
    let suite = start(&[("a", &config("one")), ("b", &config("one")), ("c", &config("two"))]);
    assert_eq!(
        [suite.passed(2, &get("/a")), suite.passed(4, &get("/b")), suite.passed(4, &get("/c"))],
        [2, 1, 3]
    );
}

#[test]
fn counts_of_a_log_survive_a_reload() {
    let suite = start(&[("log", &format!("{{limit: [5], {LONG}, identifier: ip, algorithm: sliding_log}}"))]);
    assert_eq!(suite.passed(3, &get("/log")), 3);
    let text = std::fs::read_to_string(suite.gateway.config()).expect("the configuration");
    std::fs::write(suite.gateway.config(), text + "# changed\n").expect("writing it");
    let before = suite.gateway.generation();
    suite.gateway.signal("HUP");
    eventually("a new generation", || holds(suite.gateway.generation() > before, "not yet"));
    assert_eq!(suite.passed(5, &get("/log")), 2);
}
