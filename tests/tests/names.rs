//! Targets by name: several addresses, names that change, names that stop resolving, service records.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use portcullis_tests::client::Request;
use portcullis_tests::dns::{NameServer, Records};
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::{Gateway, Setup};
use portcullis_tests::origin::{Canned, Origin};

/// An origin at its own loopback address, so that several share a port.
fn origin(ip: &str, port: u16, body: &'static str) -> Origin {
    let listener = TcpListener::bind((ip, port)).expect("a loopback address");
    let addr = listener.local_addr().expect("bound");
    drop(listener);
    Origin::start_at(addr, Canned { status: "200 OK", fields: "", body })
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").port()
}

fn setup(server: SocketAddr, targets: &str) -> Setup {
    Setup::new(format!(
        "dns: {{nameservers: ['{server}'], timeout: 1s}}\nupstreams:\n  - name: many\n    targets:\n{targets}services:\n  \
         - {{name: web, host: many, routes: [{{name: all, paths: [/], strip_path: false}}]}}\n"
    ))
}

fn served_by(gateway: &Gateway) -> BTreeSet<String> {
    (0..8)
        .map(|_| Request::get("/").send(gateway.addr()))
        .map(|r| format!("{} {}", r.status, r.text()))
        .collect()
}

fn expect(gateway: &Gateway, wanted: &[&str]) -> Result<(), String> {
    let seen = served_by(gateway);
    holds(seen.iter().map(String::as_str).eq(wanted.iter().copied()), format!("{seen:?}"))
}

const A: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
const B: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 12);

#[test]
fn a_name_is_followed_when_it_moves() {
    let server = NameServer::start();
    let port = free_port();
    let (_a, _b) = (origin("127.0.0.11", port, "a"), origin("127.0.0.12", port, "b"));
    server.set("app.test", Records::A(vec![A]));
    let gateway = Gateway::start(&setup(server.addr(), &format!("      - target: app.test:{port}\n")));
    expect(&gateway, &["200 a"]).expect("only a");
    server.set("app.test", Records::A(vec![A, B]));
    eventually("both addresses serve", || expect(&gateway, &["200 a", "200 b"]));
    server.set("app.test", Records::A(vec![B]));
    eventually("only the new address serves", || expect(&gateway, &["200 b"]));
    // It does not exist any more, then nobody answers: what it stood for stays.
    server.forget("app.test");
    std::thread::sleep(std::time::Duration::from_secs(2));
    expect(&gateway, &["200 b"]).expect("the last address");
    server.be_silent(true);
    expect(&gateway, &["200 b"]).expect("the last address");
    let log = gateway.stop();
    assert_eq!(log.matches("does not resolve").count(), 1, "once an outage:\n{log}");
}

#[test]
fn a_name_that_did_not_resolve_at_the_start_serves_when_it_does() {
    let server = NameServer::start();
    let port = free_port();
    let _a = origin("127.0.0.11", port, "a");
    let gateway = Gateway::start(&setup(server.addr(), &format!("      - target: late.test:{port}\n")));
    assert_eq!(Request::get("/").send(gateway.addr()).status, 503);
    server.set("late.test", Records::A(vec![A]));
    eventually("it serves", || expect(&gateway, &["200 a"]));
    gateway.stop();
}

#[test]
fn one_dead_address_of_a_name_fails_no_request() {
    let server = NameServer::start();
    let port = free_port();
    let _a = origin("127.0.0.11", port, "a");
    server.set("half.test", Records::A(vec![A, B]));
    let gateway = Gateway::start(&setup(server.addr(), &format!("      - target: half.test:{port}\n")));
    for _ in 0..3 {
        expect(&gateway, &["200 a"]).expect("the next address is tried");
    }
    gateway.stop();
}

#[test]
fn service_records_bring_ports_weights_and_priorities() {
    let server = NameServer::start();
    let (one, two) = (free_port(), free_port());
    let first = origin("127.0.0.11", one, "a");
    let _second = origin("127.0.0.12", two, "b");
    server.set("a.test", Records::A(vec![A]));
    server.set("b.test", Records::A(vec![B]));
    server.set("_http._tcp.app.test", Records::Srv(vec![(10, 5, one, "a.test"), (20, 5, two, "b.test")]));
    let gateway = Gateway::start(&setup(server.addr(), "      - target: _http._tcp.app.test\n"));
    expect(&gateway, &["200 a"]).expect("the best priority");
    drop(first);
    eventually("the next priority, once the best is out", || expect(&gateway, &["200 b"]));
    server.set("_http._tcp.app.test", Records::Srv(vec![(10, 5, two, "b.test")]));
    eventually("one is left", || expect(&gateway, &["200 b"]));
    gateway.stop();
}

#[test]
fn the_next_address_costs_no_retry() {
    let server = NameServer::start();
    let port = free_port();
    let last = Ipv4Addr::new(127, 0, 0, 13);
    let _c = origin("127.0.0.13", port, "c");
    server.set("three.test", Records::A(vec![A, B, last]));
    let targets = format!("      - target: three.test:{port}\n");
    let body = format!(
        "dns: {{nameservers: ['{}'], timeout: 1s}}\nupstreams:\n  - name: many\n    targets:\n{targets}    healthchecks: \
         {{passive: {{unhealthy: {{tcp_failures: 0}}}}}}\nservices:\n  \
         - {{name: web, host: many, retries: 0, routes: [{{name: all, paths: [/], strip_path: false}}]}}\n",
        server.addr()
    );
    let gateway = Gateway::start(&Setup::new(body).shards(1));
    expect(&gateway, &["200 c"]).expect("two addresses are dead, and none is out for it");
    // A method that is not idempotent as well: nothing was sent.
    assert_eq!(Request::post("/", "x").send(gateway.addr()).status, 200);
    gateway.stop();
}
