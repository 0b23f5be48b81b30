//! Precedence, rule by rule, and what else the router promises.

use super::*;

#[derive(Clone, Default)]
struct Draft(RouteSpec);

impl Draft {
    fn hosts(mut self, hosts: &[&str]) -> Draft {
        self.0.hosts = hosts.iter().map(|host| HostPattern::parse(host).unwrap()).collect();
        self
    }

    fn paths(self, paths: &[&str]) -> Draft {
        self.paths_with(paths, 0)
    }

    fn paths_with(mut self, paths: &[&str], regex_priority: i32) -> Draft {
        self.0.paths = paths.iter().map(|path| PathPattern::parse(path, regex_priority)).collect();
        self
    }

    fn methods(mut self, methods: &[&str]) -> Draft {
        self.0.methods = methods.iter().map(|&method| method.to_owned()).collect();
        self
    }

    fn header(mut self, name: &str, values: &[&str]) -> Draft {
        self.0.headers.push(HeaderMatch::parse(name, values.iter().copied()));
        self
    }

    fn snis(mut self, snis: &[&str]) -> Draft {
        self.0.snis = snis.iter().map(|sni| HostPattern::parse(sni).unwrap()).collect();
        self
    }

    fn order(mut self, order: u64) -> Draft {
        self.0.order = order;
        self
    }
}

fn route() -> Draft {
    Draft::default()
}

fn specs(drafts: &[Draft]) -> Vec<RouteSpec> {
    let numbered = (0..).zip(drafts);
    numbered
        .map(|(id, draft)| RouteSpec { id: RouteId(id), name: format!("r{id}"), ..draft.0.clone() })
        .collect()
}

fn router(drafts: &[Draft]) -> Router {
    Router::compile(specs(drafts)).unwrap()
}

fn query<'q>(method: &'q str, host: &'q str, path: &'q str) -> Query<'q, NoHeaders> {
    Query {
        host: host.as_bytes(),
        port: 80,
        path: path.as_bytes(),
        method: method.as_bytes(),
        scheme: Scheme::Http,
        sni: None,
        headers: &NoHeaders,
        query: None,
        client: None,
    }
}

fn taken(router: &Router, method: &str, host: &str, path: &str) -> Option<u32> {
    router.route(&query(method, host, path)).map(|found| found.route.0)
}

/// Both orders of the list, so that position can not decide for the rule under test.
fn check_first_wins(winner: Draft, loser: Draft, method: &str, host: &str, path: &str) {
    let (winner, loser) = (winner.order(1), loser.order(0));
    assert_eq!(taken(&router(&[winner.clone(), loser.clone()]), method, host, path), Some(0));
    assert_eq!(taken(&router(&[loser, winner]), method, host, path), Some(1));
}

#[test]
fn rule_1_more_kinds_of_criteria() {
    check_first_wins(
        route().hosts(&["a.com"]).methods(&["POST"]),
        route().hosts(&["a.com"]),
        "POST",
        "a.com",
        "/",
    );
    check_first_wins(
        route().hosts(&["*.com"]).paths(&["/"]),
        route().hosts(&["a.com"]),
        "GET",
        "a.com",
        "/long/path",
    );
    check_first_wins(
        route().paths(&["/"]).methods(&["GET"]),
        route().paths(&["~/a/b"]),
        "GET",
        "a.com",
        "/a/b",
    );
}

#[test]
fn rule_2_plain_hosts() {
    let wild = route().hosts(&["*.a.com"]).paths(&["/long"]);
    check_first_wins(route().hosts(&["b.a.com"]).paths(&["/"]), wild.clone(), "GET", "b.a.com", "/long");
    // One wildcard makes the whole list wild, even for the plain member; then the longer path decides.
    check_first_wins(wild, route().hosts(&["b.a.com", "*.org"]).paths(&["/"]), "GET", "b.a.com", "/long");
    // A route without hosts is no better than one with a wildcard.
    check_first_wins(
        route().hosts(&["*.com"]).paths(&["/a"]),
        route().methods(&["GET"]).paths(&["/"]),
        "GET",
        "a.com",
        "/a",
    );
}

#[test]
fn rule_3_more_headers() {
    let one = route().header("X_A", &["1"]).paths(&["~/a"]);
    let two = route().header("x-a", &["1"]).header("x-b", &["~*^2"]).paths(&["/"]);
    let router = router(&[one, two]);
    let with = |headers: &[(&str, &str)]| {
        let headers: Vec<_> = headers.iter().map(|&(n, v)| (n.to_owned(), v.to_owned())).collect();
        let plain = query("GET", "a.com", "/a");
        let query = Query {
            headers: headers.as_slice(),
            host: plain.host,
            port: plain.port,
            path: plain.path,
            method: plain.method,
            scheme: plain.scheme,
            sni: plain.sni,
            query: None,
            client: None,
        };
        router.route(&query).map(|found| found.route.0)
    };
    assert_eq!(with(&[("X-A", "1"), ("x-b", "22")]), Some(1));
    assert_eq!(with(&[("x-a", "1"), ("x-b", "3")]), Some(0));
    assert_eq!(with(&[("x-a", "0"), ("x-a", "1")]), Some(0));
    assert_eq!(with(&[("x-b", "2")]), None);
}

#[test]
fn rules_4_and_5_expressions_by_priority_before_prefixes() {
    // Kong's own example of evaluation order.
    let router = router(&[
        route().paths_with(&[r"~/status/\d+"], 0),
        route().paths_with(&[r"~/version/\d+/status/\d+"], 6),
        route().paths(&["/version"]),
        route().paths_with(&["~/version/any/"], 0),
    ]);
    assert_eq!(taken(&router, "GET", "", "/version/1/status/2"), Some(1));
    assert_eq!(taken(&router, "GET", "", "/status/2"), Some(0));
    assert_eq!(taken(&router, "GET", "", "/version/any/x"), Some(3));
    assert_eq!(taken(&router, "GET", "", "/version/x"), Some(2));
    check_first_wins(
        route().paths_with(&["~/a"], 2),
        route().paths_with(&["~/a/longer"], 1),
        "GET",
        "",
        "/a/longer",
    );
    // Only expressions have a priority (Kong/kong#7687).
    check_first_wins(route().paths_with(&["/v1"], 0), route().paths_with(&["/"], 1), "GET", "", "/v1");
}

#[test]
fn rule_6_longer_prefix_per_path() {
    check_first_wins(
        route().paths(&["/service/resource"]),
        route().paths(&["/service"]),
        "GET",
        "",
        "/service/resource/1",
    );
    // A route with several paths is ranked by the one that fits.
    let router = router(&[route().paths(&["/a", "/very/long/path"]), route().paths(&["/ab"])]);
    assert_eq!(taken(&router, "GET", "", "/abc"), Some(1));
    assert_eq!(taken(&router, "GET", "", "/aa"), Some(0));
}

#[test]
fn rules_7_and_8_break_the_ties() {
    let get = |winner, loser, host| check_first_wins(winner, loser, "GET", host, "/");
    get(route().hosts(&["a.com:80"]), route().hosts(&["a.com"]), "a.com");
    get(route().hosts(&["*.b.com"]), route().hosts(&["*.com"]), "a.b.com");
    get(route().hosts(&["a.b.com", "*.org"]), route().hosts(&["*.b.com"]), "a.b.com");
    let router = router(&[
        route().paths(&["/"]).order(7),
        route().paths(&["/"]).order(3),
        route().paths(&["/"]).order(3),
    ]);
    assert_eq!(taken(&router, "GET", "", "/"), Some(1));
}

#[test]
fn hosts_are_found_whatever_their_form() {
    let router = router(&[
        route().hosts(&["[::1]:8080", "example.com", "*.example.com:8443"]),
        route().hosts(&["10.0.0.1"]).methods(&["M-SEARCH"]),
    ]);
    let at = |host: &str, port: u16| {
        let query = Query { port, ..query("M-SEARCH", host, "/") };
        router.route(&query).map(|found| found.route.0)
    };
    assert_eq!(at("[::1]", 8080), Some(0));
    assert_eq!(at("::1", 80), None);
    assert_eq!(at("example.com.", 80), Some(0));
    assert_eq!(at("a.example.com", 8443), Some(0));
    assert_eq!(at("a.example.com", 443), None);
    assert_eq!(at("10.0.0.1", 80), Some(1));
    assert_eq!(at("", 80), None);
}

#[test]
fn a_prefix_is_of_bytes() {
    let router = router(&[route().paths(&["/api"])]);
    assert_eq!(taken(&router, "GET", "", "/apix"), Some(0));
    assert_eq!(router.route(&query("GET", "", "/api/users")).unwrap().matched_len, 4);
    assert_eq!(taken(&router, "GET", "", "/ap"), None);
    assert_eq!(taken(&router, "GET", "", ""), None);
}

#[test]
fn snis_are_asked_of_tls_only() {
    let router = router(&[route().snis(&["a.com", "*.b.com"])]);
    let with = |scheme, sni: Option<&'static [u8]>| {
        router.route(&Query { scheme, sni, ..query("GET", "", "/") }).is_some()
    };
    assert!(with(Scheme::Http, None));
    assert!(with(Scheme::Https, Some(b"a.com")));
    assert!(with(Scheme::Https, Some(b"x.b.com")));
    assert!(!with(Scheme::Https, Some(b"c.com")));
    assert!(!with(Scheme::Https, None));
}

#[test]
fn the_scheme_never_changes_the_winner() {
    let mut https_only = route().paths(&["/admin"]);
    https_only.0.protocols = Protocols { http: false, https: true };
    let router = router(&[route().paths(&["/"]), https_only]);
    let found = router.route(&query("GET", "", "/admin")).unwrap();
    assert_eq!((found.route, found.scheme), (RouteId(1), SchemeFit::NeedsHttps));
    let found = router.route(&Query { scheme: Scheme::Https, ..query("GET", "", "/admin") }).unwrap();
    assert_eq!(found.scheme, SchemeFit::Served);
    let http_only = Protocols { http: true, https: false };
    assert_eq!(http_only.fit(Scheme::Https), SchemeFit::NeedsHttp);
}

#[test]
fn captures_come_from_the_expression_that_won() {
    let mut draft = route().paths(&[r"~/v(?<version>\d+)/(\w+)", "/v"]);
    draft.0.wants_captures = true;
    let router = router(&[draft]);
    let found = router.route(&query("GET", "", "/v2/users/1")).unwrap();
    assert_eq!(found.matched_len, 9);
    let captures = router.captures(&found, b"/v2/users/1").unwrap();
    assert_eq!(captures.name("version"), Some(2..3));
    assert_eq!(captures.get(2), Some(4..9));
    assert_eq!(captures.get(3), None);
    assert_eq!(captures.iter().count(), 3);
    let prefix = router.route(&query("GET", "", "/vx")).unwrap();
    assert_eq!(router.captures(&prefix, b"/vx"), None);
}

#[test]
fn every_fault_is_reported() {
    let bad = [
        route().paths(&["api", "~/a("]),
        route().methods(&["GET ", ""]),
        route().header("Host", &["a"]).header("x y", &["a"]).header("ok", &["~*("]).header("none", &[]),
        route().snis(&["a.com:443"]),
        route().paths(&["/good"]),
    ];
    let errors = Router::compile(specs(&bad)).unwrap_err();
    let faults: Vec<_> = errors.iter().map(|error| (error.route.0, error.fault.to_string())).collect();
    let check = |at: usize, route: u32, text: &str| {
        assert_eq!(faults[at].0, route, "{faults:?}");
        assert!(faults[at].1.contains(text), "{faults:?} {text}");
    };
    check(0, 0, "path \"api\" does not start");
    check(1, 0, "expression \"/a(\"");
    check(2, 1, "\"GET \" is not a method");
    check(3, 2, "\"host\" is not a header");
    check(4, 2, "\"x y\" is not a header");
    check(5, 2, "expression \"(\"");
    check(6, 2, "header \"none\" lists no value");
    check(7, 3, "SNI \"a.com\" has a port");
    assert_eq!(faults.len(), 8);
}

#[test]
fn there_is_a_limit_to_methods() {
    let named = |range: std::ops::Range<usize>| -> Vec<Draft> {
        range.map(|n| route().methods(&[format!("M{n}").as_str()])).collect()
    };
    let full = router(&named(0..MAX_METHODS));
    assert_eq!(taken(&full, "M62", "", "/"), Some(62));
    assert_eq!(taken(&full, "M63", "", "/"), None);
    let errors = Router::compile(specs(&named(0..MAX_METHODS + 1))).unwrap_err();
    assert_eq!(errors[0].fault, Fault::TooManyMethods);
}

#[test]
fn heavy_expressions_are_named() {
    let heavy = router(&[route().hosts(&["a", "b"]).paths(&["~/[ab]*a[ab]{24}$", "~/light"])]);
    assert_eq!(heavy.heavy_patterns(), [(RouteId(0), "/[ab]*a[ab]{24}$")]);
}

fn dead(drafts: &[Draft]) -> Vec<(u32, Vec<u32>)> {
    let conflicts = router(drafts).conflicts();
    conflicts.into_iter().map(|c| (c.route.0, c.shadowed_by.into_iter().map(|by| by.0).collect())).collect()
}

#[test]
fn shadowed_routes_are_found() {
    let same = || route().hosts(&["a.com"]).paths(&["/x"]);
    assert_eq!(dead(&[same(), same()]), [(1, vec![0])]);
    // The expression that swallows its neighbours (Kong/kong#4121).
    assert_eq!(dead(&[route().paths(&["~/api/.*"]), route().paths(&["/api/account"])]), [(1, vec![0])]);
    assert_eq!(dead(&[route().paths(&["~/"]), route().paths_with(&["~/x$"], -1)]), [(1, vec![0])]);
    // A list is dead when every pair is, whoever covers it.
    assert_eq!(
        dead(&[
            route().hosts(&["*.a.com"]).paths(&["~/"]),
            route().hosts(&["*.b.com"]).paths(&["~/"]),
            route().hosts(&["*.x.a.com", "*.b.com"]).paths(&["/q"]),
        ]),
        [(2, vec![0, 1])]
    );
    assert_eq!(
        dead(&[
            route().methods(&["GET", "PUT"]).header("x", &["1", "2"]),
            route().methods(&["PUT"]).header("x", &["2"]),
        ]),
        [(1, vec![0])]
    );
}

#[test]
fn what_can_match_is_no_conflict() {
    for alive in [
        [route().hosts(&["a.com"]).paths(&["/x"]), route().hosts(&["b.com"]).paths(&["/x"])],
        [route().paths(&["/x/y"]), route().paths(&["/x"])],
        [route().paths(&["~/x$"]), route().paths(&["/x"])],
        [route().hosts(&["a.com"]).methods(&["GET"]), route().hosts(&["a.com"]).paths(&["/"])],
        [route().hosts(&["a.com:81"]), route().hosts(&["a.com"])],
        [route().header("x", &["1"]), route().header("x", &["1", "2"])],
        [route().paths(&["~/x"]), route().paths(&["/x", "/y"])],
    ] {
        assert_eq!(dead(&alive), []);
    }
}

#[test]
fn explain_says_what_each_route_missed() {
    let router = router(&[
        route().hosts(&["a.com", "b.com:81"]).methods(&["GET"]),
        route().paths(&["/x", "/y"]),
        route().paths(&["/"]),
        route().header("x-a", &["1"]).snis(&["s.com"]).paths(&["/"]),
    ]);
    let candidates = router.explain(&Query { scheme: Scheme::Https, ..query("POST", "b.com", "/y/1") });
    let fates: Vec<_> = candidates.iter().map(|c| (c.route.0, &c.fate)).collect();
    assert_eq!(candidates[0].path, Some(1));
    assert!(matches!(fates[0], (1, Fate::Taken(found)) if found.matched_len == 2));
    assert_eq!(fates[1], (2, &Fate::Outranked));
    assert_eq!(fates[2], (3, &Fate::Missed(vec![Miss::Sni, Miss::Header("x-a".into())])));
    assert_eq!(fates[3], (0, &Fate::Missed(vec![Miss::Port, Miss::Method])));
    assert_eq!(candidates[3].host, Some(1));
}
