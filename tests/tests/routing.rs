//! Which route takes a request, and what the path and the host become on the way.
//!
//! Every service has a path of its own on one echo origin, so the target that the origin saw says
//! which route was chosen.

use std::sync::Arc;

use portcullis_tests::client::{Request, Response};
use portcullis_tests::gateway::{Gateway, Setup, Shared};
use portcullis_tests::origin::{Echo, Origin};

struct Suite {
    gateway: Gateway,
    _origin: Origin,
}

/// Name of the service, and the conditions of its one route.
const ROUTES: &[(&str, &str)] = &[
    ("host", "hosts: [exact.test]"),
    ("host-path", "hosts: [exact.test]\npaths: [/inner]"),
    ("suffix", "hosts: ['*.wild.test']"),
    ("in-suffix", "hosts: [named.wild.test]"),
    ("prefix-host", "hosts: ['left.*']"),
    ("host-port", "hosts: ['ported.test:8080']"),
    ("short", "paths: [/p]\nstrip_path: false"),
    ("long", "paths: [/p/longer]\nstrip_path: false"),
    ("two", "paths: [/two/a, /two/b]\nstrip_path: false"),
    ("regex", "paths: ['~/r/(?<id>\\d+)$']\nstrip_path: false"),
    ("regex-low", "paths: ['~/q/.*']\nregex_priority: 1\nstrip_path: false"),
    ("regex-high", "paths: ['~/q/[a-z]+']\nregex_priority: 5\nstrip_path: false"),
    ("under-regex", "paths: [/q/prefix]\nstrip_path: false"),
    ("get", "paths: [/m]\nmethods: [GET]\nstrip_path: false"),
    ("post", "paths: [/m]\nmethods: [POST, PUT]\nstrip_path: false"),
    ("header", "paths: [/h]\nheaders: {x-version: [two, three]}\nstrip_path: false"),
    ("header-regex", "paths: [/h]\nheaders: {x-version: ['~*^beta-\\d+$']}\nstrip_path: false"),
    ("no-header", "paths: [/h]\nstrip_path: false"),
    ("two-headers", "paths: [/both]\nheaders: {x-one: ['1'], x-two: ['2']}\nstrip_path: false"),
    ("strip", "paths: [/strip/me]\nstrip_path: true"),
    ("strip-default", "paths: [/strip-by-default]"),
    ("strip-regex", "paths: ['~/sr/\\d+']\nstrip_path: true"),
    ("preserved", "paths: [/preserved]\npreserve_host: true"),
    ("tls-only", "paths: [/tls-only]\nprotocols: [https]"),
    ("tls-redirect", "paths: [/tls-redirect]\nprotocols: [https]\nhttps_redirect_status_code: 301"),
];

/// The suite's gateway. A test holds it to its end, lest it be stopped between two requests.
fn suite() -> Arc<Suite> {
    static SUITE: Shared<Suite> = Shared::new();
    SUITE.get(|| {
        let origin = Origin::start(Echo::default());
        let mut body = "services:\n".to_owned();
        for (name, route) in ROUTES {
            let route = route.replace('\n', "\n        ");
            body.push_str(&format!(
                "  - name: {name}\n    url: http://{}/to-{name}\n    routes:\n      - name: {name}\n        {route}\n",
                origin.addr()
            ));
        }
        Suite { gateway: Gateway::start(&Setup::new(body)), _origin: origin }
    })
}

fn send(request: Request) -> Response {
    request.send(suite().gateway.addr())
}

/// Expects that a request is routed to service `name`, and gives the rest of the target.
#[track_caller]
fn routed(request: Request, name: &str) -> String {
    let echoed = send(request).expect(200).echoed();
    let target = echoed.target().to_owned();
    let rest = target.strip_prefix(&format!("/to-{name}"));
    rest.unwrap_or_else(|| panic!("went to {target}, not to {name}")).to_owned()
}

fn at(host: &str, target: &str) -> Request {
    Request::get(target).header("Host", host)
}

#[test]
fn hosts_exact_and_wild() {
    let _held = suite();
    routed(at("exact.test", "/x"), "host");
    routed(at("EXACT.Test", "/x"), "host");
    routed(at("exact.test:1234", "/x"), "host");
    routed(at("a.wild.test", "/x"), "suffix");
    routed(at("a.b.wild.test", "/x"), "suffix");
    routed(at("left.anything.org", "/x"), "prefix-host");
    routed(at("ported.test:8080", "/x"), "host-port");
    for host in ["wild.test", "xexact.test", "right.left.test", "ported.test:81"] {
        send(at(host, "/x")).expect(404);
    }
}

#[test]
fn an_exact_host_beats_a_wildcard() {
    let _held = suite();
    routed(at("named.wild.test", "/x"), "in-suffix");
}

#[test]
fn more_conditions_beat_fewer() {
    let _held = suite();
    routed(at("exact.test", "/inner/x"), "host-path");
    // A host and no path beats a path and no host when both match: Kong weighs the host first.
    routed(at("exact.test", "/p/x"), "host");
}

#[test]
fn the_longest_prefix_wins() {
    let _held = suite();
    assert_eq!(routed(Request::get("/p/long"), "short"), "/p/long");
    assert_eq!(routed(Request::get("/p/longer/x"), "long"), "/p/longer/x");
    // A prefix is one of text, not of segments, as in Kong.
    assert_eq!(routed(Request::get("/pie"), "short"), "/pie");
    assert_eq!(routed(Request::get("/two/b/c"), "two"), "/two/b/c");
    send(Request::get("/two/c")).expect(404);
}

#[test]
fn regular_expressions_come_before_prefixes_by_their_priority() {
    let _held = suite();
    assert_eq!(routed(Request::get("/r/42"), "regex"), "/r/42");
    send(Request::get("/r/42x")).expect(404);
    send(Request::get("/x/r/42")).expect(404);
    assert_eq!(routed(Request::get("/q/abc"), "regex-high"), "/q/abc");
    assert_eq!(routed(Request::get("/q/123"), "regex-low"), "/q/123");
    assert_eq!(routed(Request::get("/q/prefix"), "regex-high"), "/q/prefix");
}

#[test]
fn methods() {
    let _held = suite();
    routed(Request::get("/m"), "get");
    routed(Request::post("/m", ""), "post");
    routed(Request::new("PUT", "/m"), "post");
    send(Request::new("DELETE", "/m")).expect(404);
}

#[test]
fn headers() {
    let _held = suite();
    routed(Request::get("/h").header("X-Version", "two"), "header");
    routed(Request::get("/h").header("x-version", "THREE"), "header");
    routed(Request::get("/h").header("X-Version", "beta-12"), "header-regex");
    routed(Request::get("/h").header("X-Version", "four"), "no-header");
    routed(Request::get("/h"), "no-header");
    routed(Request::get("/both").header("X-One", "1").header("X-Two", "2"), "two-headers");
    send(Request::get("/both").header("X-One", "1")).expect(404);
    // Any value of a repeated header may match.
    routed(Request::get("/h").header("X-Version", "zero").header("X-Version", "two"), "header");
}

#[test]
fn strip_path_takes_the_matched_part_off() {
    let _held = suite();
    assert_eq!(routed(Request::get("/strip/me/now?a=b"), "strip"), "/now?a=b");
    assert_eq!(routed(Request::get("/strip/me"), "strip"), "");
    assert_eq!(routed(Request::get("/strip/me/"), "strip"), "/");
    assert_eq!(routed(Request::get("/strip-by-default/x"), "strip-default"), "/x");
    assert_eq!(routed(Request::get("/sr/12/x"), "strip-regex"), "/x");
}

#[test]
fn a_stripped_prefix_is_told_to_the_origin() {
    let _held = suite();
    let echoed = send(Request::get("/strip/me/now")).expect(200).echoed();
    assert_eq!(echoed.get("x-forwarded-prefix"), Some("/strip/me"));
}

#[test]
fn the_query_is_never_touched() {
    let _held = suite();
    let query = "?a=1&a=2&b=%2F%2e%2e&c&=&%zz";
    assert_eq!(routed(Request::get(&format!("/p{query}")), "short"), format!("/p{query}"));
}

#[test]
fn normalisation_happens_before_routing() {
    let _held = suite();
    assert_eq!(routed(Request::get("/elsewhere/../p/longer"), "long"), "/p/longer");
    assert_eq!(routed(Request::get("/%70/longer"), "long"), "/p/longer");
}

#[test]
fn preserve_host_sends_the_name_of_the_client() {
    let _held = suite();
    let echoed = send(at("kept.test", "/preserved")).expect(200).echoed();
    assert_eq!(echoed.all("host"), ["kept.test"]);
}

#[test]
fn no_route_is_404_with_kongs_body() {
    let _held = suite();
    let response = send(Request::get("/nowhere")).expect(404);
    assert_eq!(response.text(), "{\"message\":\"no Route matched with those values\"}");
    assert!(response.header("content-type").starts_with("application/json"));
}

#[test]
fn no_route_keeps_the_connection() {
    let _held = suite();
    let mut connection = portcullis_tests::client::Connection::open(suite().gateway.addr());
    for _ in 0..3 {
        Request::post("/nowhere", "with a body").keep().send_on(&mut connection).expect(404);
    }
}

#[test]
fn a_tls_route_in_plain_text_is_refused_or_redirected() {
    let _held = suite();
    let response = send(Request::get("/tls-only")).expect(426);
    assert!(response.has("upgrade"), "{:?}", response.head.fields);
    let response = send(at("site.test", "/tls-redirect/x?y=z")).expect(301);
    assert_eq!(response.header("location"), "https://site.test/tls-redirect/x?y=z");
}
