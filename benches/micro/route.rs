//! Routing over small and large tables: prefixes, hosts with wildcards, expressions, and a miss; the same request again
//! and again, and requests spread over the table.

use criterion::{Criterion, criterion_group, criterion_main};
use portcullis::id::RouteId;
use portcullis::route::{HostPattern, NoHeaders, PathPattern, Protocols, Query, RouteSpec, Router, Scheme};
use std::hint::black_box;

/// A table as a gateway with many services has it: each route with a host of its own or a wildcard, two
/// prefixes, and every tenth with an expression.
fn table(routes: u32) -> Router {
    let specs = (0..routes).map(|n| {
        let host = if n % 4 == 0 { format!("*.team{n}.example.com") } else { format!("api{n}.example.com") };
        let mut paths: Vec<PathPattern> =
            [format!("/v1/things{n}"), "/shared".to_owned()].map(PathPattern::Prefix).into();
        if n % 10 == 0 {
            paths.push(PathPattern::Regex { source: format!("/users/(?<id>[0-9]+)/orders{n}"), priority: 0 });
        }
        RouteSpec {
            id: RouteId(n),
            name: format!("route{n}"),
            hosts: HostPattern::parse(&host).into_iter().collect(),
            paths,
            methods: vec!["GET".to_owned(), "POST".to_owned()],
            protocols: Protocols { http: true, https: true },
            ..RouteSpec::default()
        }
    });
    match Router::compile(specs.collect()) {
        Ok(router) => router,
        Err(errors) => panic!("the table of the bench does not compile: {errors:?}"),
    }
}

/// A table of one host: each route with a path of its own.
fn paths_only(routes: u32) -> Router {
    let specs = (0..routes).map(|n| RouteSpec {
        id: RouteId(n),
        name: format!("route{n}"),
        paths: vec![PathPattern::Prefix(format!("/tenants/t{}/service{}", n / 10, n % 10))],
        ..RouteSpec::default()
    });
    match Router::compile(specs.collect()) {
        Ok(router) => router,
        Err(errors) => panic!("the table of the bench does not compile: {errors:?}"),
    }
}

fn query<'q>(host: &'q str, path: &'q str) -> Query<'q, NoHeaders> {
    Query {
        host: host.as_bytes(),
        port: 80,
        path: path.as_bytes(),
        method: b"GET",
        scheme: Scheme::Http,
        sni: None,
        headers: &NoHeaders,
        query: None,
        client: None,
    }
}

/// What a case asks of the route with a number: host and path, if the route has what the case is about.
type Ask = fn(u32) -> Option<(String, String)>;

const CASES: [(&str, Ask); 4] = [
    ("host and prefix", |n| {
        (n % 4 != 0).then(|| (format!("api{n}.example.com"), format!("/v1/things{n}/17")))
    }),
    ("wildcard and prefix", |n| {
        (n % 4 == 0).then(|| (format!("www.team{n}.example.com"), format!("/v1/things{n}/17")))
    }),
    ("wildcard and expression", |n| {
        (n % 20 == 0).then(|| (format!("www.team{n}.example.com"), format!("/users/123/orders{n}")))
    }),
    ("miss", |n| Some((format!("nothing{n}.example.org"), "/v1/things1".to_owned()))),
];

const PATHS_CASE: (&str, Ask) = ("path alone", |n| {
    Some(("api.example.com".to_owned(), format!("/tenants/t{}/service{}/17", n / 10, n % 10)))
});

/// Requests in a row before the first comes again: more than the routes of the large table have lines in the nearest
/// cache, and the same number for the small one.
const SPREAD: usize = 4096;

/// Each case twice: the same request again and again, all of whose tables are at hand, and requests spread over the
/// whole table in no order, as traffic is.
fn measure(c: &mut Criterion, routes: u32, router: &Router, cases: &[(&str, Ask)]) {
    let mut group = c.benchmark_group(format!("route, {routes} routes"));
    for (name, ask) in cases {
        let all: Vec<(String, String)> = (0..routes).filter_map(ask).collect();
        let mut seed = 1_u64;
        let mut any = || {
            // A step of a linear congruential generator; its high bits are its best.
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as usize % all.len()
        };
        let spread: Vec<_> = (0..SPREAD).map(|_| all[any()].clone()).collect();
        for (host, path) in &spread {
            assert_eq!(router.route(&query(host, path)).is_some(), *name != "miss", "{name}: {host}{path}");
        }
        let (host, path) = &all[all.len() - 1];
        group.bench_function(format!("{name}, the same"), |b| {
            b.iter(|| router.route(black_box(&query(host, path))))
        });
        let mut next = 0;
        group.bench_function(format!("{name}, spread"), |b| {
            b.iter(|| {
                next = (next + 1) % SPREAD;
                let (host, path) = &spread[next];
                router.route(black_box(&query(host, path)))
            })
        });
    }
    group.finish();
}

fn route(c: &mut Criterion) {
    for routes in [10, 1000, 10_000] {
        measure(c, routes, &table(routes), &CASES);
        measure(c, routes, &paths_only(routes), &[PATHS_CASE]);
    }
}

criterion_group!(benches, route);
criterion_main!(benches);
