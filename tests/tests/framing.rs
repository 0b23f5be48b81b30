//! Strict framing: what could be read in two ways is refused, and the connection with it.
//!
//! Each case is sent with a second request right behind it. That one must never reach the origin:
//! bytes after a refused request are not a request (RFC 9112 section 11.2).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use portcullis_tests::client::Connection;
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::{Gateway, Setup, Shared};
use portcullis_tests::origin::{Echo, Origin};

struct Suite {
    gateway: Gateway,
    origin: Origin,
}

/// The suite's gateway. A test holds it to its end, lest it be stopped between two requests.
fn suite() -> Arc<Suite> {
    static SUITE: Shared<Suite> = Shared::new();
    SUITE.get(|| {
        let origin = Origin::start(Echo::default());
        let gateway = Gateway::start(&Setup::proxy(origin.addr(), ""));
        Suite { gateway, origin }
    })
}

/// Sends `request` with another behind it and expects `status`, a close, and nothing at the origin.
#[track_caller]
fn refused(request: impl AsRef<[u8]>, status: u16) {
    let suite = suite();
    let request = request.as_ref();
    let shown = String::from_utf8_lossy(&request[..request.len().min(120)]).into_owned();
    let mut connection = Connection::open(suite.gateway.addr());
    let mut bytes = request.to_vec();
    static CASES: AtomicUsize = AtomicUsize::new(0);
    let behind = format!("/smuggled/{}", CASES.fetch_add(1, Ordering::Relaxed));
    bytes.extend_from_slice(format!("GET {behind} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes());
    // A long head may be refused before all of it is sent.
    drop(connection.try_send(&bytes));
    let response = connection.try_response(false).unwrap_or_else(|error| panic!("{shown:?}: {error}"));
    assert_eq!(response.status, status, "{shown:?} got {} {:?}", response.head.start, response.text());
    assert!(response.head.has_token("connection", "close"), "{shown:?}: {:?}", response.head.fields);
    connection.expect_closed();
    let smuggled = suite.origin.seen().iter().any(|received| received.head.word(1) == behind);
    assert!(!smuggled, "{shown:?} let the next request through");
}

fn post(fields: &str, body: &str) -> String {
    format!("POST /f HTTP/1.1\r\nHost: test\r\n{fields}\r\n{body}")
}

#[test]
fn ambiguous_lengths() {
    let _held = suite();
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5, 6\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: 5 6\r\n",
    ] {
        refused(post(fields, "0\r\n\r\n"), 400);
    }
}

#[test]
fn bad_content_lengths() {
    let _held = suite();
    for value in [
        "",
        "+5",
        "-5",
        "5x",
        "0x5",
        "5.0",
        "5_0",
        "\"5\"",
        "18446744073709551616",
        "99999999999999999999999",
    ] {
        refused(post(&format!("Content-Length: {value}\r\n"), "hello"), 400);
    }
}

#[test]
fn bad_transfer_encodings() {
    let _held = suite();
    for (value, status) in [
        // Known where it ends, but not what it is (RFC 9112 section 6.1).
        ("gzip, chunked", 501),
        // Not even known where it ends (section 6.3).
        ("gzip", 400),
        ("identity", 400),
        ("xchunked", 400),
        ("chunked, gzip", 400),
        ("chunked, chunked", 400),
        ("chunked;q=1", 400),
        ("", 400),
    ] {
        refused(post(&format!("Transfer-Encoding: {value}\r\n"), "0\r\n\r\n"), status);
    }
    refused(post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400);
    refused("POST /f HTTP/1.0\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400);
}

#[test]
fn bad_chunks() {
    let _held = suite();
    for body in [
        "x\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "10000000000000000\r\nhello\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "0\r\nbad trailer\r\n\r\n",
        "0\r\n folded: x\r\n\r\n",
    ] {
        refused(post("Transfer-Encoding: chunked\r\n", body), 400);
    }
}

#[test]
fn bad_header_lines() {
    let _held = suite();
    for line in [
        "A: b\r\n folded",
        "A: b\r\n\tfolded",
        " A: b",
        "A : b",
        "A\t: b",
        ": b",
        "no colon",
        "A(b: c",
        "A\u{e9}: b",
        "A: b\0c",
        "A: b\rc",
        "A: b\u{1}c",
        "A: b\u{7f}c",
    ] {
        refused(format!("GET / HTTP/1.1\r\nHost: test\r\n{line}\r\n\r\n"), 400);
    }
}

#[test]
fn bare_line_feeds() {
    let _held = suite();
    refused("GET / HTTP/1.1\nHost: test\n\n", 400);
    refused("GET / HTTP/1.1\r\nHost: test\n\r\n", 400);
    refused("GET / HTTP/1.1\nHost: test\r\n\r\n", 400);
    refused("GET / HTTP/1.1\r\nHost: test\r\nA: b\nC: d\r\n\r\n", 400);
}

#[test]
fn hosts() {
    let _held = suite();
    for fields in [
        "",
        "Host: a.test\r\nHost: a.test\r\n",
        "Host: a.test\r\nHost: b.test\r\n",
        "Host: a b\r\n",
        "Host: a/b\r\n",
        "Host: user@a.test\r\n",
        "Host: a.test, b.test\r\n",
        "Host: a.test:x\r\n",
        "Host: a.test:99999\r\n",
        "Host: [::1\r\n",
    ] {
        refused(format!("GET / HTTP/1.1\r\n{fields}\r\n"), 400);
    }
    refused("GET http://a.test/ HTTP/1.1\r\nHost: b.test\r\n\r\n", 400);
}

#[test]
fn request_lines() {
    let _held = suite();
    for (line, status) in [
        ("GET  / HTTP/1.1", 400),
        ("GET /  HTTP/1.1", 400),
        ("GET /a b HTTP/1.1", 400),
        (" GET / HTTP/1.1", 400),
        ("GET / HTTP/1.1 ", 400),
        ("GET /", 400),
        ("GET / http/1.1", 400),
        ("GET / HTTP/1.x", 400),
        ("GET / HTTP/01.1", 400),
        ("GET / HTTP/2.0", 505),
        ("GET / HTTP/3.0", 505),
        ("G@T / HTTP/1.1", 400),
        ("GET path HTTP/1.1", 400),
        ("GET /a\u{1}b HTTP/1.1", 400),
        ("GET /a#frag HTTP/1.1", 400),
    ] {
        refused(format!("{line}\r\nHost: test\r\n\r\n"), status);
    }
}

#[test]
fn paths_that_two_programs_read_differently() {
    let _held = suite();
    for path in ["/a%2Fb", "/a%2fb", "/a%5Cb", "/a\\b", "/a%00b", "/a%zz", "/a%2", "/a/..;x/b"] {
        refused(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"), 400);
    }
}

#[test]
fn dot_segments_are_resolved_once_for_everybody_and_never_lead_above_the_root() {
    let suite = suite();
    for (sent, seen) in [
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a/%2e%2E/b", "/b"),
        ("/%61b", "/ab"),
        ("/../a", "/a"),
        ("/a/../../../b", "/b"),
        ("/%2e%2e/%2e/a", "/a"),
    ] {
        let request = format!("GET {sent} HTTP/1.1\r\nHost: test\r\n\r\n");
        let response = Connection::open(suite.gateway.addr()).send(request).response().expect(200);
        assert_eq!(response.echoed().target(), seen, "{sent}");
    }
}

#[test]
fn oversize_heads() {
    let _held = suite();
    let long = "x".repeat(9 * 1024);
    refused(format!("GET /{long} HTTP/1.1\r\nHost: test\r\n\r\n"), 414);
    let big = format!("A: {}\r\n", "y".repeat(33 * 1024));
    refused(format!("GET / HTTP/1.1\r\nHost: test\r\n{big}\r\n"), 431);
    let many: String = (0..120).map(|number| format!("A{number}: b\r\n")).collect();
    refused(format!("GET / HTTP/1.1\r\nHost: test\r\n{many}\r\n"), 431);
}

#[test]
fn a_head_near_the_limits_passes() {
    let suite = suite();
    let value = "y".repeat(20 * 1024);
    let fields: String = (0..90).map(|number| format!("A{number}: b\r\n")).collect();
    let request =
        format!("GET /{} HTTP/1.1\r\nHost: test\r\nBig: {value}\r\n{fields}\r\n", "x".repeat(7 * 1024));
    let response = Connection::open(suite.gateway.addr()).send(request).response().expect(200);
    assert_eq!(response.echoed().get("big").map(str::len), Some(20 * 1024));
}

#[test]
fn refused_methods() {
    let _held = suite();
    refused("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n", 405);
    refused("TRACE / HTTP/1.1\r\nHost: test\r\n\r\n", 405);
}

#[test]
fn a_tls_hello_on_a_plain_port_is_refused() {
    let _held = suite();
    refused(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 and so on\r\n\r\n", 400);
}

#[test]
fn every_refusal_has_a_reason_in_the_metrics() {
    let suite = suite();
    let count =
        |reason: &str| suite.gateway.metrics().get("portcullis_refusals_total", &[("reason", reason)]);
    for (request, status, reason) in [
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400, "missing_host"),
        (post("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", ""), 400, "ambiguous_length"),
        (post("Transfer-Encoding: chunked\r\n", "x\r\n"), 400, "bad_chunk"),
        ("GET / HTTP/1.1\r\nHost: test\r\nA: b\r\n c\r\n\r\n".to_owned(), 400, "obs_fold"),
    ] {
        let before = count(reason);
        refused(request, status);
        eventually(reason, || holds(count(reason) > before, "not counted"));
    }
}
