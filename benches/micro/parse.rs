//! Request and response heads: parsing into a warm head, framing, and writing them out again.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use portcullis::http::h1::{
    HeadLimits, Parsed, Persistence, parse_request, parse_response, request_framing, write_request,
};
use portcullis::http::{RequestHead, ResponseHead};
use std::hint::black_box;

/// What wrk and health probes send.
const SHORT: &[u8] = b"GET /api/v1/users HTTP/1.1\r\nHost: example.com\r\n\r\n";

/// What a browser sends.
const BROWSER: &[u8] = b"GET /shop/items/1234?colour=red&size=m HTTP/1.1\r\n\
    Host: shop.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-GB,en;q=0.7,de;q=0.3\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Referer: https://shop.example.com/shop/items\r\n\
    Connection: keep-alive\r\n\
    Cookie: session=0b1c2d3e4f5a6b7c8d9e0f1a2b3c4d5e; consent=all; theme=dark\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    Sec-Fetch-Dest: document\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-Site: same-origin\r\n\
    Priority: u=0, i\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Date: Tue, 24 Nov 2026 08:00:00 GMT\r\n\
    Content-Type: application/json\r\n\
    Content-Length: 200\r\n\
    Cache-Control: no-store\r\n\
    X-Request-Id: 5f0c9d3e\r\n\r\n";

fn parse(c: &mut Criterion) {
    let limits = HeadLimits::default();
    let mut group = c.benchmark_group("parse");
    for (name, text) in [("request, short", SHORT), ("request, browser", BROWSER)] {
        let mut head = RequestHead::new();
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                head.clear();
                let parsed = parse_request(black_box(text), &limits, &mut head);
                assert!(matches!(parsed, Ok(Parsed::Complete { .. })));
            });
        });
        let mut out = Vec::with_capacity(4096);
        group.bench_function(format!("{name}, with framing and writing"), |b| {
            b.iter(|| {
                head.clear();
                out.clear();
                let parsed = parse_request(black_box(text), &limits, &mut head);
                assert!(matches!(parsed, Ok(Parsed::Complete { .. })));
                black_box(request_framing(&head).is_ok());
                write_request(&head, Persistence::Implied, &mut out);
                out.len()
            });
        });
    }
    let mut head = ResponseHead::new();
    group.throughput(Throughput::Bytes(RESPONSE.len() as u64));
    group.bench_function("response", |b| {
        b.iter(|| {
            head.clear();
            let parsed = parse_response(black_box(RESPONSE), &limits, &mut head);
            assert!(matches!(parsed, Ok(Parsed::Complete { .. })));
        });
    });
    group.finish();
}

criterion_group!(benches, parse);
criterion_main!(benches);
