//! Exchanges that end in an odd way: who gets which answer, and what of a connection can be used again.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use portcullis_tests::certs::Authority;
use portcullis_tests::client::{Connection, Request};
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::{Gateway, Setup};
use portcullis_tests::origin::{
    Canned, EarlyResponse, Echo, Gate, Held, KeepAliveCloser, Moment, Origin, Resetting, Script, Wire,
};

const PAUSE: Duration = Duration::from_millis(30);

fn before(addr: SocketAddr, service: &str) -> Gateway {
    Gateway::start(
        &Setup::new(format!(
            "services:\n  - name: web\n    url: http://{addr}\n{service}    routes:\n      \
             - {{name: all, paths: [/], strip_path: false}}\n"
        ))
        .shards(1),
    )
}

/// Says more than it was asked for, a little later.
struct Chatty;

impl Script for Chatty {
    fn serve(&self, wire: &mut Wire) -> io::Result<()> {
        while wire.request()?.is_some() {
            wire.answer("200 OK", "", b"asked")?;
            std::thread::sleep(PAUSE);
            wire.answer("200 OK", "", b"unasked")?;
        }
        Ok(())
    }
}

#[test]
fn an_answer_that_nobody_asked_for_reaches_nobody() {
    let origin = Origin::start(Chatty);
    let gateway = before(origin.addr(), "");
    for _ in 0..3 {
        assert_eq!(Request::get("/").send(gateway.addr()).expect(200).text(), "asked");
        std::thread::sleep(PAUSE * 3);
    }
}

#[test]
fn a_client_that_sends_on_after_an_early_answer_is_not_reset() {
    let origin = Origin::start(EarlyResponse { status: "413 Content Too Large", close: true });
    let gateway = before(origin.addr(), "");
    let mut connection = Connection::open(gateway.addr());
    connection.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\nbegin");
    assert!(connection.readable_within(Duration::from_secs(5)), "no early answer");
    for _ in 0..10 {
        std::thread::sleep(PAUSE);
        connection.send(vec![b'x'; 1000]);
    }
    connection.response().expect(413);
}

#[test]
fn a_client_that_sends_on_after_a_failure_is_not_reset() {
    let origin = Origin::start(Resetting { moment: Moment::Asked });
    let gateway = before(origin.addr(), "    retries: 0\n");
    let mut connection = Connection::open(gateway.addr());
    connection.send("POST /failing HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\nbegin");
    for _ in 0..20 {
        std::thread::sleep(PAUSE);
        connection.send(vec![b'x'; 1000]);
    }
    connection.response().expect(502);
}

#[test]
fn a_target_that_resets_is_not_the_clients_fault() {
    let origin = Origin::start(Resetting { moment: Moment::Asked });
    let gateway = before(origin.addr(), "    retries: 0\n");
    let mut connection = Connection::open(gateway.addr());
    connection.send("POST /failing HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n");
    connection.response().expect(502);
    let line = gateway.logged(|line| line["path"] == "/failing");
    assert_eq!(line["reason"], "upstream_reset", "{line}");
}

#[test]
fn a_body_that_is_still_to_come_survives_a_stale_connection() {
    let origin = Origin::start(KeepAliveCloser { after: 1 });
    let gateway = before(origin.addr(), "");
    let mut connection = Connection::open(gateway.addr());
    for body in ["one", "two", "three"] {
        let head = format!(
            "PUT / HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
            body.len()
        );
        connection.send(head);
        assert_eq!(connection.try_head().expect("leave to send").word(1), "100");
        connection.send(body);
        connection.response().expect(200);
        // A connection that ends after the body has gone into it cannot be survived; this one is over before.
        eventually("the end of the kept connection", || holds(origin.open() == 0, "open"));
    }
}

/// Fails the first attempt once the head is there, in the middle of a chunk's framing; then echoes.
struct FailsOnce(Gate, std::sync::atomic::AtomicBool);

impl Script for FailsOnce {
    fn serve(&self, wire: &mut Wire) -> io::Result<()> {
        if self.1.swap(true, std::sync::atomic::Ordering::SeqCst) {
            return Echo::default().serve(wire);
        }
        wire.head()?;
        self.0.pass();
        wire.reset()
    }
}

#[test]
fn half_a_chunk_size_is_not_lost_to_a_retry() {
    let gate = Gate::shut();
    let origin = Origin::start(FailsOnce(gate.clone(), std::sync::atomic::AtomicBool::new(false)));
    let gateway = before(origin.addr(), "    retries: 3\n");
    let mut connection = Connection::open(gateway.addr());
    // Seen from the middle, the data of the chunk is the end of a body and another request.
    let hidden = "0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: test\r\n\r\n";
    connection.send("PUT / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
    std::thread::sleep(PAUSE);
    connection.send(format!("{:x}\r\n", hidden.len()));
    std::thread::sleep(PAUSE);
    gate.open();
    std::thread::sleep(PAUSE);
    connection.send(format!("{hidden}\r\n0\r\n\r\n"));
    let response = connection.response();
    assert!(response.status == 502 || response.json()["body"] == hidden, "{}", response.text());
    connection.expect_closed();
    for number in 0..origin.connections() {
        let raw = String::from_utf8_lossy(&origin.raw(number)).into_owned();
        assert!(!raw.contains("\r\n0\r\n\r\nGET /hidden") || raw.contains(hidden), "{raw}");
        assert!(!raw.starts_with("GET /hidden"), "{raw}");
    }
}

#[test]
fn fewest_under_way_is_what_least_connections_goes_by() {
    let gate = Gate::shut();
    let slow = Origin::start(Held { gate: gate.clone(), midway: false });
    let quick = Origin::start(Canned { status: "200 OK", fields: "", body: "quick" });
    let gateway = Gateway::start(
        &Setup::new(format!(
            "upstreams:\n  - name: two\n    algorithm: least-connections\n    targets:\n      \
             - {{target: '{}'}}\n      - {{target: '{}'}}\n\
             services:\n  - {{name: web, host: two, routes: [{{name: all, paths: [/]}}]}}\n",
            slow.addr(),
            quick.addr()
        ))
        .shards(1),
    );
    let mut waiting = Vec::new();
    for _ in 0..8 {
        let mut connection = Connection::open(gateway.addr());
        connection.send(Request::get("/").keep().bytes());
        if !connection.readable_within(Duration::from_millis(300)) {
            waiting.push(connection);
        }
    }
    assert_eq!(waiting.len(), 1, "a busy target got more");
    gate.open();
}

#[test]
fn a_head_may_be_larger_than_the_room_for_bodies() {
    let origin = Origin::start(Echo::default());
    let setup = Setup::proxy(origin.addr(), "").with("limits: {head: 512KiB, response_head: 512KiB}");
    let gateway = Gateway::start(&setup);
    let request = Request::get("/").header("X-Large", "x".repeat(100 << 10)).keep();
    let mut connection = Connection::open(gateway.addr());
    for _ in 0..2 {
        let echoed = request.send_on(&mut connection).expect(200).echoed();
        assert_eq!(echoed.get("x-large").map(str::len), Some(100 << 10));
    }
}

#[test]
fn a_reset_before_the_handshake_costs_its_source_nothing() {
    let dir = tempfile::TempDir::new().expect("a folder");
    let leaf = Authority::new(dir.path()).leaf(&["one.test"]);
    let origin = Origin::start(Echo::default());
    let certificate = format!(
        "certificates:\n  - {{name: one, cert_file: '{}', key_file: '{}'}}",
        leaf.cert.display(),
        leaf.key.display()
    );
    let gateway =
        Gateway::start(&Setup::proxy(origin.addr(), "").with(&certificate).tls("{certificates: [one]}"));
    let connection = Connection::open(gateway.tls_addr());
    std::thread::sleep(PAUSE);
    connection.reset();
    eventually("no open connection", || {
        let open = gateway.metrics().sum("portcullis_downstream_connections_active", &[]);
        holds(open == 0.0, format!("{open}"))
    });
    let count = gateway.metrics().get("portcullis_refusals_total", &[("reason", "tls_handshake_timeout")]);
    assert_eq!(count, 0.0);
}
