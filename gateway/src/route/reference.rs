//! The router held against a reference that sorts all pairs by the table of precedence and scans them.
//!
//! Owns the reference, written from the table alone and sharing nothing with the router but the specification's
//! types. Alphabets are tiny, so that hosts, paths and ranks collide all the time.

use std::cmp::Reverse;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;

/// A request in owned form.
#[derive(Clone, Debug)]
struct Request {
    host: String,
    port: u16,
    path: String,
    method: &'static str,
    scheme: Scheme,
    sni: Option<&'static str>,
    headers: Vec<(String, String)>,
}

impl Request {
    fn query(&self) -> Query<'_, [(String, String)]> {
        Query {
            host: self.host.as_bytes(),
            port: self.port,
            path: self.path.as_bytes(),
            method: self.method.as_bytes(),
            scheme: self.scheme,
            sni: self.sni.map(str::as_bytes),
            headers: &self.headers,
            query: None,
            client: None,
        }
    }
}

fn host_fits(pattern: &HostPattern, request: &Request) -> bool {
    let labels: Vec<&str> = request.host.split('.').collect();
    let name = match &pattern.name {
        HostName::Exact(name) => *name == request.host,
        HostName::Leading(suffix) => {
            (1..labels.len()).any(|n| labels[n..].join(".") == *suffix && labels[..n] != [""])
        }
        HostName::Trailing(prefix) => {
            (1..labels.len()).any(|n| labels[..n].join(".") == *prefix && labels[n..] != [""])
        }
    };
    name && pattern.port.is_none_or(|port| port == request.port)
}

/// The consumed length, if the path fits.
fn path_fits(pattern: &PathPattern, request: &Request) -> Option<usize> {
    match pattern {
        PathPattern::Prefix(prefix) => request.path.starts_with(prefix.as_str()).then_some(prefix.len()),
        PathPattern::Regex { source, .. } => {
            let regex = regex::bytes::Regex::new(&format!("^(?:{source})")).unwrap();
            regex.find(request.path.as_bytes()).map(|found| found.end())
        }
    }
}

fn rest_fits(spec: &RouteSpec, request: &Request) -> bool {
    let method = spec.methods.is_empty() || spec.methods.iter().any(|m| m == request.method);
    let sni = spec.snis.is_empty()
        || request.scheme == Scheme::Http
        || request.sni.is_some_and(|sni| spec.snis.iter().any(|s| s.name.text() == sni));
    let value = |header: &HeaderMatch, value: &str| {
        header.values.iter().any(|own| match own {
            HeaderValue::Exact(text) => text.to_lowercase() == value.to_lowercase(),
            HeaderValue::Regex(source) => {
                regex::Regex::new(&format!("(?i){source}")).unwrap().is_match(value)
            }
        })
    };
    let headers =
        spec.headers.iter().all(|h| request.headers.iter().any(|(n, v)| *n == h.name && value(h, v)));
    method && sni && headers
}

type Key = (
    Reverse<usize>,
    Reverse<bool>,
    Reverse<usize>,
    Reverse<bool>,
    Reverse<i32>,
    Reverse<usize>,
    Reverse<(bool, bool, usize)>,
    u64,
    (usize, usize, usize),
);

/// The table, line by line.
fn key(
    spec: &RouteSpec,
    at: (usize, usize, usize),
    host: Option<&HostPattern>,
    path: Option<&PathPattern>,
) -> Key {
    let kinds = [spec.methods.len(), spec.hosts.len(), spec.headers.len(), spec.snis.len(), spec.paths.len()];
    let wild = |host: &HostPattern| !matches!(host.name, HostName::Exact(_));
    let (expression, priority, len) = match path {
        Some(PathPattern::Regex { priority, .. }) => (true, *priority, 0),
        Some(PathPattern::Prefix(prefix)) => (false, 0, prefix.len()),
        None => (false, 0, 0),
    };
    let host = match host {
        None => (false, false, 0),
        Some(host) if wild(host) => (false, host.port.is_some(), host.name.text().len()),
        Some(host) => (true, host.port.is_some(), 0),
    };
    (
        Reverse(kinds.iter().filter(|&&n| n > 0).count()),
        Reverse(!spec.hosts.is_empty() && !spec.hosts.iter().any(wild)),
        Reverse(spec.headers.len()),
        Reverse(expression),
        Reverse(priority),
        Reverse(len),
        Reverse(host),
        spec.order,
        at,
    )
}

/// All that fit, best first: the route and what it consumes.
fn reference(specs: &[RouteSpec], request: &Request) -> Vec<(RouteId, usize)> {
    let mut fits = Vec::new();
    for (r, spec) in specs.iter().enumerate().filter(|(_, spec)| rest_fits(spec, request)) {
        let hosts: Vec<_> = match spec.hosts.is_empty() {
            true => vec![(0, None)],
            false => spec.hosts.iter().map(Some).enumerate().collect(),
        };
        for (h, host) in
            hosts.into_iter().filter(|(_, host)| host.is_none_or(|host| host_fits(host, request)))
        {
            if spec.paths.is_empty() {
                fits.push((key(spec, (r, h, 0), host, None), spec.id, 0));
            }
            for (p, path) in spec.paths.iter().enumerate() {
                if let Some(len) = path_fits(path, request) {
                    fits.push((key(spec, (r, h, p), host, Some(path)), spec.id, len));
                }
            }
        }
    }
    fits.sort();
    fits.into_iter().map(|(_, id, len)| (id, len)).collect()
}

const HOSTS: &[&str] = &[
    "a.com",
    "b.a.com",
    "c.b.a.com",
    "b.com",
    "a.com:81",
    "b.a.com:80",
    "*.a.com",
    "*.com",
    "*.b.a.com",
    "*.a.com:81",
    "a.*",
    "b.a.*",
    "b.*",
    "a.*:81",
    "com",
];
const PATHS: &[&str] = &[
    "/",
    "/a",
    "/ab",
    "/a/",
    "/a/b",
    "/a/b/",
    "/b",
    "~/",
    "~/a",
    "~/a$",
    "~/a/.*",
    "~/[ab]/b",
    "~/a|/b",
    "~.*/b",
    "~/a(b|/b)$",
    "~(?i)/A",
    "~/a?",
    "~",
];
const METHODS: &[&str] = &["GET", "POST", "PURGE"];
const VALUES: &[&str] = &["x", "y", "Xy", "~*^x", "~*y$"];

fn headers() -> impl Strategy<Value = Vec<HeaderMatch>> {
    let values = || subsequence(VALUES, 1..3);
    let header = |name| values().prop_map(move |values| HeaderMatch::parse(name, values));
    (prop::option::weighted(0.2, header("x-a")), prop::option::weighted(0.1, header("x-b")))
        .prop_map(|(a, b)| a.into_iter().chain(b).collect())
}

fn routes() -> impl Strategy<Value = Vec<RouteSpec>> {
    let route = (
        prop_oneof![2 => Just(vec![]), 5 => subsequence(HOSTS, 1..3)],
        prop_oneof![1 => Just(vec![]), 5 => subsequence(PATHS, 1..3)],
        prop_oneof![4 => Just(vec![]), 1 => subsequence(METHODS, 1..3)],
        headers(),
        prop_oneof![6 => Just(vec![]), 1 => subsequence(vec!["s.a", "s.b"], 1..2)],
        (-1..2_i32, 0..3_u64),
    );
    prop::collection::vec(route, 0..12).prop_map(|routes| {
        let build = |(id, (hosts, paths, methods, headers, snis, (priority, order)))| {
            let (hosts, paths, methods): (Vec<&str>, Vec<&str>, Vec<&str>) = (hosts, paths, methods);
            let snis: Vec<&str> = snis;
            RouteSpec {
                id: RouteId(id),
                name: format!("r{id}"),
                hosts: hosts.iter().map(|host| HostPattern::parse(host).unwrap()).collect(),
                paths: paths.iter().map(|path| PathPattern::parse(path, priority)).collect(),
                methods: methods.into_iter().map(str::to_owned).collect(),
                headers,
                snis: snis.iter().map(|sni| HostPattern::parse(sni).unwrap()).collect(),
                protocols: Protocols::default(),
                order,
                ..RouteSpec::default()
            }
        };
        (0..).zip(routes).map(build).collect()
    })
}

fn request() -> impl Strategy<Value = Request> {
    let host = prop_oneof![
        4 => select(vec!["a.com", "b.a.com", "c.b.a.com", "b.com", "com", "x.com", "a.b", "b.a.b", ""]),
        1 => select(vec![".a.com", "a.", "a..com", "x", "c.a.com.x"]),
    ];
    let path = prop_oneof![
        3 => select(vec!["/", "/a", "/ab", "/a/", "/a/b", "/a/b/c", "/b", "/b/b", "/c", "/A"]).prop_map(str::to_owned),
        1 => "/[ab/]{0,5}",
    ];
    (
        host.prop_map(str::to_owned),
        select(vec![80_u16, 81]),
        path,
        select(vec!["GET", "POST", "PURGE", "HEAD"]),
        select(vec![Scheme::Http, Scheme::Https]),
        select(vec![None, Some("s.a"), Some("s.b"), Some("s.c")]),
        prop::collection::vec((select(vec!["x-a", "x-b"]), select(vec!["x", "y", "XY", "z"])), 0..3),
    )
        .prop_map(|(host, port, path, method, scheme, sni, headers)| Request {
            host,
            port,
            path,
            method,
            scheme,
            sni,
            headers: headers.into_iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect(),
        })
}

fn cases() -> ProptestConfig {
    ProptestConfig { cases: 600, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn the_router_agrees_with_sort_and_scan(
        specs in routes(),
        requests in prop::collection::vec(request(), 12),
    ) {
        let router = Router::compile(specs.clone()).unwrap();
        for request in &requests {
            let expected = reference(&specs, request);
            let found = router.route(&request.query()).map(|found| (found.route, found.matched_len));
            prop_assert_eq!(found, expected.first().copied(), "{:?}", request);
        }
    }

    #[test]
    fn explain_agrees_with_sort_and_scan(specs in routes(), request in request()) {
        let router = Router::compile(specs.clone()).unwrap();
        let candidates = router.explain(&request.query());
        prop_assert_eq!(candidates.len(), specs.len());
        let mut expected: Vec<RouteId> = Vec::new();
        for (id, _) in reference(&specs, &request) {
            if !expected.contains(&id) {
                expected.push(id);
            }
        }
        let fits = candidates.iter().filter(|candidate| !matches!(candidate.fate, Fate::Missed(_)));
        prop_assert_eq!(fits.map(|fit| fit.route).collect::<Vec<_>>(), expected);
        match (router.route(&request.query()), candidates.first().map(|first| &first.fate)) {
            (Some(found), Some(Fate::Taken(taken))) => prop_assert_eq!(found, *taken),
            (None, Some(Fate::Missed(misses))) => prop_assert!(!misses.is_empty()),
            (None, None) => {}
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn a_reported_conflict_is_never_taken(
        specs in routes(),
        requests in prop::collection::vec(request(), 40),
    ) {
        let router = Router::compile(specs).unwrap();
        let conflicts = router.conflicts();
        for request in &requests {
            if let Some(found) = router.route(&request.query()) {
                prop_assert!(conflicts.iter().all(|dead| dead.route != found.route), "{:?} {:?}", conflicts, request);
            }
        }
    }
}
