//! The PROXY protocol: a trusted balancer says who the client is, and nobody else can.

use std::net::SocketAddr;

use portcullis_tests::client::{Connection, Request};
use portcullis_tests::gateway::{Gateway, Setup};
use portcullis_tests::origin::{Echo, Origin};
use portcullis_tests::ports::Reserved;

const V2_OF_192_0_2_7: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x07\x0a\x00\x00\x01\xc7\x38\x01\xbb";

/// A gateway whose second listener expects PROXY headers from `trusted`.
fn gateway(origin: &Origin, trusted: &str) -> (Gateway, SocketAddr) {
    let behind = Reserved::new();
    let addr = behind.addr();
    let setup = Setup::proxy(origin.addr(), "")
        .proxied_listener("behind", addr)
        .with(&format!("trusted_proxies: [{trusted}]"));
    drop(behind);
    (Gateway::start(&setup), addr)
}

fn told(addr: SocketAddr, header: &[u8]) -> Vec<String> {
    let mut connection = Connection::open(addr);
    // In one piece with the request, as balancers send it.
    let request = Request::get("/").header("X-Forwarded-For", "198.51.100.1").keep();
    connection.send([header, &request.bytes()].concat());
    let mut seen = Vec::new();
    for _ in 0..2 {
        let echoed = connection.response().expect(200).echoed();
        seen.push(format!(
            "{} {}",
            echoed.all("x-forwarded-for").join(", "),
            echoed.get("x-real-ip").unwrap_or("-")
        ));
        connection.send(request.bytes());
    }
    seen
}

#[test]
fn the_client_that_a_trusted_balancer_names_is_the_client() {
    let origin = Origin::start(Echo::default());
    let (gateway, addr) = gateway(&origin, "127.0.0.1/32");
    // The fields are the client's own claim: the balancer passes on bytes, not requests.
    let one = ["192.0.2.7 192.0.2.7"; 2];
    assert_eq!(told(addr, b"PROXY TCP4 192.0.2.7 10.0.0.1 51000 443\r\n"), one);
    assert_eq!(told(addr, V2_OF_192_0_2_7), one);
    assert_eq!(
        told(addr, b"PROXY TCP6 2001:db8::7 2001:db8::1 51000 443\r\n"),
        ["2001:db8::7 2001:db8::7"; 2]
    );
    // Without an address the balancer is the client, and it may forward.
    assert_eq!(told(addr, b"PROXY UNKNOWN\r\n"), ["198.51.100.1, 127.0.0.1 198.51.100.1"; 2]);
    let line = gateway.logged(|line| line["client"] == "192.0.2.7");
    assert!(line["source"].as_str().is_some_and(|source| source.starts_with("127.0.0.1:")), "{line}");
}

#[test]
fn a_header_in_pieces_is_awaited() {
    let origin = Origin::start(Echo::default());
    let (_gateway, addr) = gateway(&origin, "127.0.0.1/32");
    let mut connection = Connection::open(addr);
    let bytes = [V2_OF_192_0_2_7, &Request::get("/").bytes()].concat();
    for byte in bytes {
        connection.send([byte]);
    }
    assert_eq!(connection.response().expect(200).echoed().get("x-real-ip"), Some("192.0.2.7"));
}

#[test]
fn no_header_or_a_broken_one_ends_the_connection_of_a_balancer() {
    let origin = Origin::start(Echo::default());
    let (gateway, addr) = gateway(&origin, "127.0.0.1/32");
    for bytes in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], b"PROXY TCP4 nonsense\r\n", &[b'P'; 200]] {
        let mut connection = Connection::open(addr);
        connection.send(bytes);
        connection.expect_closed();
    }
    assert_eq!(gateway.metrics().get("portcullis_refusals_total", &[("reason", "bad_proxy_header")]), 3.0);
    assert_eq!(origin.requests(), 0);
    // The other listener expects none.
    Request::get("/").send(gateway.addr()).expect(200);
}

#[test]
fn who_is_not_trusted_is_served_as_himself_and_cannot_claim() {
    let origin = Origin::start(Echo::default());
    let (_gateway, addr) = gateway(&origin, "10.0.0.0/8");
    let echoed = Request::get("/").send(addr).expect(200).echoed();
    assert_eq!(echoed.get("x-real-ip"), Some("127.0.0.1"));
    let mut liar = Connection::open(addr);
    liar.send([&b"PROXY TCP4 192.0.2.7 10.0.0.1 51000 443\r\n"[..], &Request::get("/").bytes()].concat());
    liar.response().expect(400);
}
