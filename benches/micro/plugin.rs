//! Plugins on a warm exchange: what each adds to a request.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use portcullis::http::h1::{HeadLimits, parse_request, parse_response};
use portcullis::http::{RequestHead, ResponseHead};
use portcullis::limit::{Table, random_secret};
use portcullis::plugin::consumer::Consumers;
use portcullis::plugin::{CompileCx, Cx, Plugin, registry};
use portcullis::snapshot::GatewayCatalog;
use portcullis_config::{Diagnostics, load_str};

const REQUEST: &[u8] =
    b"GET /orders/17?page=2 HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: curl/8.5.0\r\n\
    Accept: */*\r\nAccept-Encoding: gzip\r\nAuthorization: Bearer abc\r\nX-Tenant: blue\r\nX-Debug: 1\r\n\
    Content-Type: application/json\r\nCookie: a=b\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Thu, 29 Feb 2024 12:00:00 GMT\r\n\
    Content-Type: application/json\r\nContent-Length: 200\r\nX-Powered-By: php\r\nCache-Control: no-store\r\n\r\n";

fn plugin(consumers: &Arc<Consumers>, name: &str, config: &str) -> Rc<dyn Plugin> {
    let text = format!("plugins: [{{name: {name}, config: {config}}}]\n");
    let loaded = load_str("bench.yaml", &text, &GatewayCatalog).expect("a good configuration");
    let found = Diagnostics::new(loaded.config.sources.clone());
    let cx = CompileCx { consumers, config: &loaded.config, instance: 1 };
    let registration = registry::find(name).expect("a registered plugin");
    let spec = (registration.compile)(&loaded.config.plugins[0], &cx, &found);
    spec.expect("a good plugin").instantiate(None)
}

fn plugins(c: &mut Criterion) {
    let consumers = Arc::new(Consumers::default());
    let table = Table::new(1 << 16, random_secret()).expect("a table");
    let client = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));
    let wall = Duration::from_secs(1_709_208_000);
    let mut cx = Cx::new(5_000_000_000_000, wall, client, client, &consumers, &table, &table);
    let mut group = c.benchmark_group("plugin");

    let mut request = RequestHead::new();
    parse_request(REQUEST, &HeadLimits::default(), &mut request).expect("a good request");
    for (name, config) in [
        ("rate-limiting, one window", "{hour: 1000000000, limit_by: ip}"),
        (
            "rate-limiting, two windows by header",
            "{minute: 100000000, hour: 1000000000, limit_by: header, header_name: X-Tenant}",
        ),
        ("rate-limiting, no headers", "{hour: 1000000000, limit_by: ip, hide_client_headers: true}"),
    ] {
        let plugin = plugin(&consumers, "rate-limiting", config);
        group.bench_function(name, |b| {
            b.iter(|| {
                cx.response_fields.clear();
                black_box(matches!(
                    plugin.on_request(&mut cx, &mut request),
                    portcullis::plugin::Flow::Continue
                ))
            })
        });
    }

    // A head can be edited once only, so each round has a copy whose arena is warm.
    let warm = || {
        let mut copy = request.clone();
        copy.head.append("X-Warm", [b'w'; 1024]);
        copy.head.remove("X-Warm");
        copy
    };
    for (name, config) in [
        (
            "request-transformer, two headers added, one removed",
            "{remove: {headers: [X-Debug]}, add: {headers: [\"X-One:1\", \"X-Two:2\"]}}",
        ),
        ("request-transformer, a template", "{add: {headers: [\"X-One:$(headers.x_tenant)\"]}}"),
        ("request-transformer, a parameter added", "{add: {querystring: [\"v:2\"]}}"),
        ("request-transformer, nothing to do", "{remove: {headers: [X-None]}}"),
    ] {
        let plugin = plugin(&consumers, "request-transformer", config);
        group.bench_function(name, |b| {
            b.iter_batched_ref(
                warm,
                |request| {
                    black_box(matches!(
                        plugin.on_request(&mut cx, request),
                        portcullis::plugin::Flow::Continue
                    ))
                },
                BatchSize::SmallInput,
            )
        });
    }

    let mut response = ResponseHead::new();
    parse_response(RESPONSE, &HeadLimits::default(), &mut response).expect("a good response");
    let warm = || {
        let mut copy = response.clone();
        copy.head.append("X-Warm", [b'w'; 1024]);
        copy.head.remove("X-Warm");
        copy
    };
    let config = "{remove: {headers: [X-Powered-By]}, add: {headers: [\"X-One:1\", \"X-Two:2\"]}}";
    let plugin = plugin(&consumers, "response-transformer", config);
    group.bench_function("response-transformer, two headers added, one removed", |b| {
        b.iter_batched_ref(warm, |response| plugin.on_response(&mut cx, response), BatchSize::SmallInput)
    });
    group.finish();
}

criterion_group!(benches, plugins);
criterion_main!(benches);
