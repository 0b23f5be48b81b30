//! Routing over small and large tables: prefixes, hosts with wildcards, expressions, and a miss.

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

fn route(c: &mut Criterion) {
    for routes in [9, 1000, 10_000] {
        let router = table(routes);
        let mut group = c.benchmark_group(format!("route, {routes} routes"));
        let last = if routes.is_multiple_of(4) { routes - 1 } else { routes - 2 };
        let exact = format!("api{last}.example.com");
        let prefix = format!("/v1/things{last}/17");
        let tenth = (routes - 1) / 20 * 20;
        let wildcard = format!("www.team{tenth}.example.com");
        let expression = format!("/users/123/orders{tenth}");
        let cases = [
            ("host and prefix", exact.as_str(), prefix.as_str(), true),
            ("wildcard and expression", wildcard.as_str(), expression.as_str(), true),
            ("miss", "nothing.example.org", "/v1/things1", false),
        ];
        for (name, host, path, hit) in cases {
            assert_eq!(router.route(&query(host, path)).is_some(), hit, "{name}: {host}{path}");
            group.bench_function(name, |b| b.iter(|| router.route(black_box(&query(host, path)))));
        }
        group.finish();
    }
}

criterion_group!(benches, route);
criterion_main!(benches);
