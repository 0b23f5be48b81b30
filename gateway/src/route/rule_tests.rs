//! Rules as Traefik's documentation has them, and anchors that never hide a route.

use proptest::prelude::*;

use super::super::{HostName, HostPattern, PathPattern, RouteSpec, Router, Scheme};
use super::*;
use crate::id::RouteId;

struct Request<'q> {
    method: &'q str,
    host: &'q str,
    path: &'q str,
    query: Option<&'q str>,
    headers: Vec<(String, String)>,
    client: &'q str,
}

const PLAIN: Request<'static> = Request {
    method: "GET",
    host: "a.example",
    path: "/",
    query: None,
    headers: Vec::new(),
    client: "192.0.2.1",
};

fn query<'q>(request: &'q Request<'_>) -> Query<'q, [(String, String)]> {
    Query {
        host: request.host.as_bytes(),
        port: 80,
        path: request.path.as_bytes(),
        method: request.method.as_bytes(),
        scheme: Scheme::Http,
        sni: None,
        headers: &request.headers,
        query: request.query.map(str::as_bytes),
        client: request.client.parse().ok(),
    }
}

#[track_caller]
fn check(rule: &str, request: &Request<'_>, expected: bool) {
    let compiled = Compiled::compile(&Rule::parse(rule).expect(rule)).expect(rule);
    assert_eq!(compiled.fits(&query(request)), expected, "{rule}");
}

#[test]
fn matchers_ask_what_traefiks_ask() {
    let on = |path| Request { path, ..PLAIN };
    check("Host(`A.Example`)", &PLAIN, true);
    check("Host(`example`)", &PLAIN, false);
    check("HostRegexp(`^.+\\.example$`)", &PLAIN, true);
    check("HostRegexp(`A`)", &PLAIN, false);
    check("Path(`/a`)", &on("/a"), true);
    check("Path(`/a`)", &on("/a/"), false);
    check("PathPrefix(`/a`)", &on("/ab"), true);
    check("PathRegexp(`\\.(png|jpg)$`)", &on("/x/y.png"), true);
    check("PathRegexp(`\\.(png|jpg)$`)", &on("/x/y.PNG"), false);
    check("Method(`get`)", &PLAIN, true);
    check("Method(`POST`)", &PLAIN, false);
    check("ClientIP(`192.0.2.0/24`)", &PLAIN, true);
    check("ClientIP(`2001:db8::/32`)", &PLAIN, false);
    check("ClientIP(`2001:db8::/32`)", &Request { client: "2001:db8::5", ..PLAIN }, true);
    let headers = vec![("X-Kind".to_owned(), "Beta".to_owned()), ("x-kind".to_owned(), "b2".to_owned())];
    let with = Request { headers, ..PLAIN };
    check("Header(`x-kind`, `Beta`)", &with, true);
    check("Header(`X-Kind`, `b2`)", &with, true);
    check("Header(`X-Kind`, `beta`)", &with, false);
    check("HeaderRegexp(`X-Kind`, `^b[0-9]$`)", &with, true);
    check("HeaderRegexp(`X-None`, `.*`)", &with, false);
    let asked = |query| Request { query: Some(query), ..PLAIN };
    check("Query(`a`, `b c`)", &asked("x=1&a=b%20c"), true);
    check("Query(`a`, `b`)", &asked("a=B"), false);
    check("Query(`a`)", &asked("a"), true);
    check("Query(`a`)", &asked("a=1"), false);
    check("QueryRegexp(`a`, `^[0-9]+$`)", &asked("a=x&a=17"), true);
    check("QueryRegexp(`a`, `.*`)", &PLAIN, false);
}

#[test]
fn operators_bind_as_in_go() {
    let on = |path| Request { path, ..PLAIN };
    let rule = "Host(`x`) && Path(`/1`) || Path(`/2`)";
    check(rule, &on("/1"), false);
    check(rule, &on("/2"), true);
    check("Host(`x`) && (Path(`/1`) || Path(`/2`))", &on("/2"), false);
    check("!Path(`/1`) && Host(`a.example`)", &on("/2"), true);
    check("!(Path(`/1`) || Host(`a.example`))", &on("/2"), false);
}

#[test]
fn anchors_are_the_narrowest_that_hold() {
    for (text, hosts, prefixes) in [
        ("Host(`a`) && PathPrefix(`/x`)", &["a"][..], &["/x"][..]),
        ("Host(`a`) || Host(`b`)", &["a", "b"], &[]),
        ("Host(`a`) || Path(`/x`)", &[], &[]),
        ("Host(`a`) && (Path(`/x`) || Path(`/y`))", &["a"], &["/x", "/y"]),
        ("PathPrefix(`/x`) && !PathPrefix(`/x/y`)", &[], &["/x"]),
        ("PathPrefix(`/x`) && PathPrefix(`/x/y`)", &[], &["/x/y"]),
        ("(Host(`a`) && Path(`/x`)) || (Host(`b`) && Method(`GET`))", &["a", "b"], &[]),
        ("!Host(`a`)", &[], &[]),
        ("HostRegexp(`a`)", &[], &[]),
    ] {
        let rule = Rule::parse(text).expect(text);
        let found = anchors(&rule);
        assert_eq!(
            (found.hosts.as_slice(), found.prefixes.as_slice()),
            (&to_cows(hosts)[..], &to_cows(prefixes)[..]),
            "{text}"
        );
    }
}

#[test]
fn two_routers_of_one_rule_share_the_schemes() {
    use super::super::Protocols;
    let spec = |id, http, https| RouteSpec {
        id: RouteId(id),
        rule: Some(Rule::parse("Host(`a.example`)").expect("a rule")),
        protocols: Protocols { http, https },
        ..RouteSpec::default()
    };
    let router = Router::compile(vec![spec(0, false, true), spec(1, true, false)]).expect("compiles");
    let request = PLAIN;
    let plain = query(&request);
    let taken = |query: &Query<'_, [(String, String)]>| router.route(query).map(|found| found.route);
    assert_eq!(taken(&plain), Some(RouteId(1)));
    assert_eq!(taken(&Query { scheme: Scheme::Https, ..plain }), Some(RouteId(0)));
    assert_eq!(router.conflicts(), []);
}

fn to_cows<'t>(texts: &[&'t str]) -> Vec<Cow<'t, str>> {
    texts.iter().map(|text| Cow::Borrowed(*text)).collect()
}

fn rules() -> impl Strategy<Value = Rule> {
    let leaf = prop::sample::select(vec![
        "Host(`a`)",
        "Host(`b`)",
        "Path(`/x`)",
        "PathPrefix(`/x`)",
        "PathPrefix(`/x/y`)",
        "PathRegexp(`y$`)",
        "Method(`GET`)",
        "Query(`q`, `1`)",
        "ClientIP(`10.0.0.0/8`)",
    ]);
    let leaf = leaf.prop_map(|text| Rule::parse(text).expect(text));
    leaf.prop_recursive(4, 16, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4).prop_map(Rule::All),
            prop::collection::vec(inner.clone(), 1..4).prop_map(Rule::Any),
            inner.prop_map(|rule| Rule::Not(Box::new(rule))),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// The router, which looks only where the anchors say, against a scan of all rules in the order of priority.
    #[test]
    fn the_router_agrees_with_a_scan(
        rules in prop::collection::vec((rules(), 0..4_i64), 1..6),
        host in prop::sample::select(vec!["a", "b", "c"]),
        path in prop::sample::select(vec!["/", "/x", "/x/y", "/xz", "/y"]),
        asks in any::<bool>(),
        inside in any::<bool>(),
    ) {
        let specs = (0..).zip(&rules).map(|(id, (rule, priority))| {
            let found = anchors(rule);
            let host = |name: &Cow<'_, str>| HostPattern { name: HostName::Exact(name.to_string()), port: None };
            RouteSpec {
                id: RouteId(id),
                hosts: found.hosts.iter().map(host).collect(),
                paths: found.prefixes.iter().map(|path| PathPattern::Prefix(path.to_string())).collect(),
                rule: Some(rule.clone()),
                priority: *priority,
                ..RouteSpec::default()
            }
        });
        let router = Router::compile(specs.collect()).expect("rules compile");
        let client = if inside { "10.1.1.1" } else { "192.0.2.1" };
        let request = Request { host, path, query: asks.then_some("q=1"), client, ..PLAIN };
        let query = query(&request);
        let fits: Vec<_> = (0..).zip(&rules)
            .filter(|(_, (rule, _))| Compiled::compile(rule).expect("compiles").fits(&query))
            .map(|(id, (_, priority))| (*priority, RouteId(id)))
            .collect();
        let best = fits.iter().map(|(priority, _)| *priority).max();
        let found = router.route(&query).map(|found| found.route);
        match best {
            None => prop_assert_eq!(found, None),
            Some(best) => prop_assert!(fits.contains(&(best, found.expect("something fits")))),
        }
        for dead in router.conflicts() {
            prop_assert!(Some(dead.route) != found);
        }
    }
}
