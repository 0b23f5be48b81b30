//! Time limits towards clients and towards idle targets: who is slow is cut, and nobody else.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use portcullis_tests::certs::Authority;
use portcullis_tests::client::{Connection, Request};
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::{Gateway, Setup};
use portcullis_tests::origin::{Bulk, Echo, Gate, Held, Origin, Script, Slow, Wire};

fn limited(origin: SocketAddr, timeouts: &str) -> Gateway {
    Gateway::start(&Setup::proxy(origin, "").timeouts(&format!("drain_delay: 0s, {timeouts}")))
}

#[test]
fn a_head_that_does_not_end_is_answered_408() {
    let origin = Origin::start(Echo::default());
    let gateway = limited(origin.addr(), "request_head: 400ms");
    let mut connection = Connection::open(gateway.addr());
    connection.send("GET / HTTP/1.1\r\nHost: te");
    let response = connection.response().expect(408);
    assert!(response.head.has_token("connection", "close"), "{:?}", response.head.fields);
    connection.expect_closed();
    gateway.logged(|line| line["reason"] == "request_timeout");
}

#[test]
fn a_head_that_drips_gets_no_more_time() {
    let origin = Origin::start(Echo::default());
    let gateway = limited(origin.addr(), "request_head: 500ms");
    let mut connection = Connection::open(gateway.addr());
    let start = Instant::now();
    connection.send("GET / HTTP/1.1\r\nA: ");
    // One byte at a time, each well within the limit; together far beyond it.
    let refused = eventually("the end of patience", || {
        drop(connection.try_send(b"x"));
        let readable = connection.readable_within(Duration::from_millis(40));
        holds(readable, "still waiting").map(|()| start.elapsed())
    });
    assert!(refused < Duration::from_secs(5), "{refused:?}");
    assert!(connection.try_response(false).is_ok_and(|response| response.status == 408));
}

#[test]
fn a_silent_connection_is_closed_without_a_word() {
    let origin = Origin::start(Echo::default());
    let gateway = limited(origin.addr(), "request_head: 300ms, keep_alive: 300ms");
    Connection::open(gateway.addr()).expect_closed();
    let mut connection = Connection::open(gateway.addr());
    Request::get("/").keep().send_on(&mut connection).expect(200);
    connection.expect_closed();
}

#[test]
fn a_kept_connection_has_its_own_limit() {
    let origin = Origin::start(Echo::default());
    let gateway = limited(origin.addr(), "request_head: 200ms, keep_alive: 20s");
    let mut connection = Connection::open(gateway.addr());
    Request::get("/").keep().send_on(&mut connection).expect(200);
    assert!(
        !connection.readable_within(Duration::from_millis(600)),
        "the head's limit cut an idle connection"
    );
    Request::get("/").keep().send_on(&mut connection).expect(200);
}

#[test]
fn a_body_that_stops_is_cut() {
    let origin = Origin::start(Echo::default());
    let gateway = limited(origin.addr(), "request_body_idle: 400ms");
    let mut connection = Connection::open(gateway.addr());
    connection.send("POST /stopped HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\nhalf");
    if let Ok(response) = connection.try_response(false) {
        response.expect(408);
    }
    connection.expect_closed();
    let line = gateway.logged(|line| line["path"] == "/stopped");
    assert_eq!(line["reason"], "body_timeout", "{line}");
    assert_eq!(origin.requests(), 0, "half a request is none");
}

#[test]
fn a_body_that_only_calls_itself_a_call_gets_no_more_time_than_others() {
    let origin = Origin::start(Echo::default());
    let gateway = limited(origin.addr(), "request_body_idle: 400ms");
    for media_type in ["application/grpc", "application/grpc-web", "application/grpc-web-text+proto"] {
        let mut connection = Connection::open(gateway.addr());
        connection.send(format!(
            "POST / HTTP/1.1\r\nHost: test\r\nContent-Type: {media_type}\r\nGrpc-Timeout: 9999H\r\nContent-Length: \
             100\r\n\r\nhalf"
        ));
        let answer = connection.response();
        // Who speaks gRPC-Web is told in its words.
        let status = if media_type == "application/grpc" { 408 } else { 200 };
        assert_eq!((answer.status, answer.has("grpc-status")), (status, status == 200), "{media_type}");
    }
    eventually("their reason", || {
        let counted = gateway.metrics().sum("portcullis_refusals_total", &[("reason", "body_timeout")]);
        holds(counted == 3.0, format!("{counted}"))
    });
}

#[test]
fn a_slow_body_that_goes_on_is_not_cut() {
    let origin = Origin::start(Echo::default());
    let gateway = limited(origin.addr(), "request_body_idle: 400ms, request_head: 400ms");
    let mut connection = Connection::open(gateway.addr());
    connection.send("POST /slow HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n");
    for _ in 0..10 {
        assert!(!connection.readable_within(Duration::from_millis(100)), "cut while sending");
        connection.send("x");
    }
    assert_eq!(connection.response().expect(200).json()["body"], "xxxxxxxxxx");
}

#[test]
fn a_slow_target_does_not_use_up_the_clients_limits() {
    let gate = Gate::shut();
    let origin = Origin::start(Held { gate: gate.clone(), midway: false });
    let gateway = limited(origin.addr(), "request_body_idle: 300ms, request_head: 300ms, keep_alive: 300ms");
    let mut connection = Connection::open(gateway.addr());
    connection.send(Request::post("/", "whole").keep().bytes());
    assert!(!connection.readable_within(Duration::from_millis(900)), "cut while the target was thinking");
    gate.open();
    connection.response().expect(200);
    connection.send(Request::post("/", "again").keep().bytes());
    connection.response().expect(200);
}

#[test]
fn a_limit_on_sending_holds_while_sending_only() {
    let gate = Gate::shut();
    let origin = Origin::start(Held { gate: gate.clone(), midway: true });
    let body = format!(
        "services:\n  - name: web\n    url: http://{}\n    write_timeout: 300\n    routes:\n      \
         - {{name: all, paths: [/], strip_path: false}}\n",
        origin.addr()
    );
    let gateway = Gateway::start(&Setup::new(body).timeouts("drain_delay: 0s, response_write: 300ms"));
    let mut connection = Connection::open(gateway.addr());
    connection.send(Request::get("/").keep().bytes());
    // Head sent downstream, the rest of the body is yet to come.
    assert!(connection.readable_within(Duration::from_secs(5)));
    std::thread::sleep(Duration::from_millis(900));
    gate.open();
    connection.response().expect(200);
    assert!(!connection.readable_within(Duration::from_millis(900)), "the limit cut an idle connection");
    Request::get("/").keep().send_on(&mut connection).expect(200);
}

#[test]
fn a_target_may_think_longer_than_it_may_take_to_read() {
    let gate = Gate::shut();
    let origin = Origin::start(Held { gate: gate.clone(), midway: false });
    let body = format!(
        "services:\n  - name: web\n    url: http://{}\n    retries: 0\n    write_timeout: 300\n    routes:\n      \
         - {{name: all, paths: [/], strip_path: false}}\n",
        origin.addr()
    );
    let gateway = Gateway::start(&Setup::new(body));
    let mut connection = Connection::open(gateway.addr());
    connection.send(Request::get("/").keep().bytes());
    assert!(
        !connection.readable_within(Duration::from_millis(900)),
        "the write limit cut a waiting exchange"
    );
    gate.open();
    connection.response().expect(200);
}

#[test]
fn a_target_that_reads_slowly_is_not_the_clients_fault() {
    let origin = Origin::start(Lazy);
    let setup = Setup::proxy(origin.addr(), "        body_limit: 64MiB\n");
    let gateway = Gateway::start(&setup.timeouts("drain_delay: 0s, request_body_idle: 300ms"));
    let mut connection = Connection::open(gateway.addr());
    connection.send(Request::post("/", vec![b'x'; 24 << 20]).bytes());
    connection.response().expect(200);
}

#[test]
fn the_time_to_answer_begins_with_the_end_of_the_request() {
    let gate = Gate::shut();
    gate.open();
    let origin = Origin::start(Held { gate, midway: false });
    let held = Origin::start(Held { gate: Gate::shut(), midway: false });
    let service = |name: &str, addr: SocketAddr| {
        format!(
            "  - name: {name}\n    url: http://{addr}\n    retries: 0\n    read_timeout: 400\n    routes:\n      \
             - {{name: {name}, paths: [/{name}], strip_path: false}}\n"
        )
    };
    let body = format!("services:\n{}{}", service("open", origin.addr()), service("held", held.addr()));
    let gateway = Gateway::start(&Setup::new(body));
    for (path, status) in [("open", 200), ("held", 504)] {
        let mut connection = Connection::open(gateway.addr());
        connection.send(format!("POST /{path} HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n"));
        for _ in 0..10 {
            assert!(!connection.readable_within(Duration::from_millis(100)), "{path}: cut while sending");
            connection.send("x");
        }
        connection.response().expect(status);
    }
}

/// Reads nothing for a while, then everything.
struct Lazy;

impl Script for Lazy {
    fn serve(&self, wire: &mut Wire) -> io::Result<()> {
        std::thread::sleep(Duration::from_millis(1200));
        wire.request()?;
        wire.answer("200 OK", "", b"at last")
    }
}

#[test]
fn a_client_that_does_not_read_is_cut() {
    let origin = Origin::start(Bulk { len: 50 << 20, chunked: false });
    let gateway = limited(origin.addr(), "response_write: 400ms");
    let mut connection = Connection::open(gateway.addr());
    connection.send(Request::get("/unread").bytes());
    connection.try_head().expect("the head");
    gateway.logged(|line| line["path"] == "/unread" && line["reason"].is_string());
    eventually("no open connection", || {
        let open = gateway.metrics().sum("portcullis_downstream_connections_active", &[]);
        holds(open == 0.0, format!("{open}"))
    });
}

#[test]
fn a_handshake_that_does_not_end_is_cut() {
    let dir = tempfile::TempDir::new().expect("a folder");
    let leaf = Authority::new(dir.path()).leaf(&["one.test"]);
    let origin = Origin::start(Echo::default());
    let certificate = format!(
        "certificates:\n  - {{name: one, cert_file: '{}', key_file: '{}'}}",
        leaf.cert.display(),
        leaf.key.display()
    );
    let setup = Setup::proxy(origin.addr(), "").with(&certificate).tls("{certificates: [one]}");
    let gateway = Gateway::start(&setup.timeouts("drain_delay: 0s, tls_handshake: 300ms"));
    let mut connection = Connection::open(gateway.tls_addr());
    connection.send(b"\x16\x03\x01\x01\x00\x01");
    connection.expect_closed();
    eventually("the reason in the metrics", || {
        let count =
            gateway.metrics().get("portcullis_refusals_total", &[("reason", "tls_handshake_timeout")]);
        holds(count == 1.0, format!("{count}"))
    });
}

#[test]
fn idle_connections_to_targets_are_let_go() {
    let origin = Origin::start(Echo::default());
    let gateway = limited(origin.addr(), "upstream_keep_alive: 300ms");
    Request::get("/").send(gateway.addr()).expect(200);
    let idle = || gateway.metrics().get("portcullis_upstream_connections", &[("state", "idle")]);
    eventually("an empty pool", || {
        holds(origin.open() == 0 && idle() == 0.0, format!("{} {}", origin.open(), idle()))
    });
    Request::get("/").send(gateway.addr()).expect(200);
    assert_eq!(origin.connections(), 2);
}

#[test]
fn a_client_that_leaves_is_noticed_by_the_next_write() {
    let pause = Duration::from_millis(50);
    let origin = Origin::start(Slow { before_head: Duration::ZERO, before_byte: pause });
    let gateway = limited(origin.addr(), "drain: 1s");
    let mut connection = Connection::open(gateway.addr());
    connection.send(Request::get("/left").keep().bytes());
    connection.try_head().expect("the head");
    connection.reset();
    let line = gateway.logged(|line| line["path"] == "/left");
    assert_eq!(line["reason"], "client_aborted", "{line}");
}
