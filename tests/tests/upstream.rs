//! Targets that fail in every way: what the client gets, what is tried again, what is reused.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use portcullis_tests::client::{Connection, Request};
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::{Gateway, Setup};
use portcullis_tests::origin::{
    Canned, Counting, EarlyResponse, Echo, Garbage, Gate, Held, KeepAliveCloser, Moment, Origin, Resetting,
    Script, Slow, Truncating,
};
use portcullis_tests::ports::Reserved;

/// A gateway before one target, without retries unless `service` says otherwise.
fn before(addr: SocketAddr, service: &str) -> Gateway {
    Gateway::start(&Setup::new(format!(
        "services:\n  - name: web\n    url: http://{addr}\n{service}    routes:\n      \
         - {{name: all, paths: [/], strip_path: false}}\n"
    )))
}

/// A gateway before an upstream of several targets with weights.
fn spread(targets: &[(SocketAddr, u32)]) -> Gateway {
    let mut body = "upstreams:\n  - name: many\n    targets:\n".to_owned();
    for (addr, weight) in targets {
        body.push_str(&format!("      - {{target: '{addr}', weight: {weight}}}\n"));
    }
    body.push_str(
        "services:\n  - {name: web, host: many, routes: [{name: all, paths: [/], strip_path: false}]}\n",
    );
    // Retries are what these tests are about; how many there may be is a test of its own.
    Gateway::start(&Setup::new(body).with("limits: {retry_budget_percent: 100}"))
}

/// Expects `status` with a JSON message and `reason` in the access log.
#[track_caller]
fn fails(script: impl Script, service: &str, status: u16, reason: &str) {
    fails_with(script, service, status, &[reason]);
}

/// As [`fails`], with one of several reasons.
#[track_caller]
fn fails_with(script: impl Script, service: &str, status: u16, reasons: &[&str]) {
    let origin = Origin::start(script);
    let gateway = before(origin.addr(), &format!("    retries: 0\n{service}"));
    let response = Request::get("/failing").send(gateway.addr()).expect(status);
    assert!(response.json()["message"].is_string(), "{}", response.text());
    let line = gateway.logged(|line| line["path"] == "/failing");
    assert!(line["status"] == status && reasons.iter().any(|reason| line["reason"] == *reason), "{line}");
}

#[test]
fn nobody_listens() {
    let reserved = Reserved::new();
    let gateway = before(reserved.addr(), "    retries: 0\n");
    let mut connection = Connection::open(gateway.addr());
    let response = Request::get("/refused").keep().send_on(&mut connection).expect(502);
    assert!(response.json()["message"].is_string(), "{}", response.text());
    // The fault is the target's: the client's connection is as good as before.
    Request::post("/refused", "x").keep().send_on(&mut connection).expect(502);
    let line = gateway.logged(|line| line["path"] == "/refused");
    assert_eq!(line["reason"], "connect_failed", "{line}");
}

#[test]
fn a_connect_that_hangs() {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().expect("an address").into()).expect("a port");
    socket.listen(0).expect("listening");
    let addr = socket.local_addr().ok().and_then(|addr| addr.as_socket()).expect("an address");
    // With its queue full the kernel drops further SYNs, so a connect hangs.
    let filling: Vec<_> =
        (0..4).map_while(|_| TcpStream::connect_timeout(&addr, Duration::from_millis(100)).ok()).collect();
    let gateway = before(addr, "    retries: 0\n    connect_timeout: 300\n");
    Request::get("/hanging").send(gateway.addr()).expect(504);
    let line = gateway.logged(|line| line["path"] == "/hanging");
    assert_eq!(line["reason"], "connect_timeout", "{line}");
    drop(filling);
}

#[test]
fn a_head_that_does_not_come_in_time() {
    let script = Held { gate: Gate::shut(), midway: false };
    fails(script, "    read_timeout: 300\n", 504, "upstream_timeout");
}

#[test]
fn slow_but_in_time_is_fine() {
    let pause = Duration::from_millis(30);
    let origin = Origin::start(Slow { before_head: pause, before_byte: pause });
    let gateway = before(origin.addr(), "    read_timeout: 2000\n");
    assert_eq!(Request::get("/").send(gateway.addr()).expect(200).text(), "slow\n");
}

#[test]
fn resets_and_early_ends() {
    // A reset right after the accept may come before we see that we are connected.
    fails_with(Resetting { moment: Moment::Accepted }, "", 502, &["upstream_reset", "connect_failed"]);
    fails(Resetting { moment: Moment::Asked }, "", 502, "upstream_reset");
    fails(Garbage { bytes: b"" }, "", 502, "upstream_reset");
    fails(Garbage { bytes: b"HTTP/1.1 200 OK\r\nContent-Le" }, "", 502, "upstream_reset");
}

#[test]
fn bytes_that_are_no_response() {
    for bytes in [
        &b"\x00\x01\x02\x03\r\n\r\n"[..],
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 99 Low\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/3.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA : b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\nA: b\0c\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    ] {
        let origin = Origin::start(Garbage { bytes });
        let gateway = before(origin.addr(), "    retries: 0\n");
        let response = Request::get("/").send(gateway.addr());
        assert_eq!(
            response.status,
            502,
            "{:?} gave {:?}",
            String::from_utf8_lossy(bytes),
            response.head.start
        );
    }
}

#[test]
fn a_response_head_without_end() {
    static ENDLESS: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    let bytes = ENDLESS.get_or_init(|| {
        let mut bytes = b"HTTP/1.1 200 OK\r\n".to_vec();
        (0..20_000).for_each(|n| bytes.extend_from_slice(format!("A{n}: b\r\n").as_bytes()));
        bytes
    });
    fails(Garbage { bytes }, "", 502, "upstream_bad_response");
}

#[test]
fn a_truncated_body_never_looks_whole() {
    for script in [Truncating { announced: 1000, sent: "part" }, Truncating { announced: 0, sent: "part" }] {
        let announced = script.announced;
        let origin = Origin::start(script);
        let gateway = before(origin.addr(), "");
        let mut connection = Connection::open(gateway.addr());
        connection.send(Request::get("/cut").keep().bytes());
        match connection.try_response(false) {
            Ok(response) => assert_eq!(response.status, 502, "announced {announced}: {:?}", response.text()),
            Err(error) => assert!(
                matches!(
                    error.kind(),
                    std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset
                ),
                "{error}"
            ),
        }
        let line = gateway.logged(|line| line["path"] == "/cut");
        assert_eq!(line["reason"], "upstream_truncated", "{line}");
    }
}

#[test]
fn a_reset_inside_the_body_cuts_the_client_too() {
    let origin = Origin::start(Resetting { moment: Moment::Answering });
    let gateway = before(origin.addr(), "");
    let mut connection = Connection::open(gateway.addr());
    connection.send(Request::get("/cut").keep().bytes());
    connection.try_response(false).expect_err("1000 bytes were announced and 5 sent");
    let line = gateway.logged(|line| line["path"] == "/cut");
    assert_eq!(line["reason"], "upstream_truncated", "{line}");
}

#[test]
fn a_body_that_stops_coming_is_cut_by_time() {
    let origin = Origin::start(Held { gate: Gate::shut(), midway: true });
    let gateway = before(origin.addr(), "    read_timeout: 300\n");
    let mut connection = Connection::open(gateway.addr());
    connection.send(Request::get("/stalled").keep().bytes());
    connection.try_response(false).expect_err("half of the body never comes");
    let line = gateway.logged(|line| line["path"] == "/stalled");
    assert_eq!(line["reason"], "upstream_timeout", "{line}");
}

#[test]
fn an_early_answer_stops_the_upload() {
    let origin = Origin::start(EarlyResponse { status: "413 Content Too Large", close: true });
    let gateway = before(origin.addr(), "");
    let mut connection = Connection::open(gateway.addr());
    let head = "POST /up HTTP/1.1\r\nHost: test\r\nContent-Length: 9000000\r\n\r\n";
    connection.send(head);
    // The answer is there although most of the body is not.
    assert_eq!(connection.response().expect(413).text(), "early");
}

#[test]
fn idempotent_requests_are_tried_on_another_target() {
    let bad = Origin::start(Resetting { moment: Moment::Asked });
    let good = Origin::start(Echo { name: "good" });
    let gateway = spread(&[(bad.addr(), 100), (good.addr(), 100)]);
    for number in 0..12 {
        let method = ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"][number % 5];
        let response = Request::new(method, "/again").send(gateway.addr());
        assert_eq!(response.status, 200, "{method}");
    }
    assert!(bad.requests() >= 1, "the bad target was tried");
}

#[test]
fn other_requests_are_not_tried_twice_once_sent() {
    let bad = Origin::start(Resetting { moment: Moment::Asked });
    let good = Origin::start(Echo::default());
    let gateway = spread(&[(bad.addr(), 100), (good.addr(), 100)]);
    let sent = 12;
    let codes: Vec<u16> =
        (0..sent).map(|_| Request::post("/once", "pay").send(gateway.addr()).status).collect();
    let failed = codes.iter().filter(|code| **code == 502).count();
    let passed = codes.iter().filter(|code| **code == 200).count();
    assert_eq!(failed + passed, sent, "{codes:?}");
    assert_eq!((bad.requests(), good.requests()), (failed, passed), "each was sent once: {codes:?}");
    assert!(failed >= 1, "the bad target was tried");
}

#[test]
fn a_request_that_was_never_sent_is_tried_elsewhere_whatever_its_method() {
    let reserved = Reserved::new();
    let good = Origin::start(Echo::default());
    let gateway = spread(&[(reserved.addr(), 100), (good.addr(), 100)]);
    for number in 0..12 {
        Request::post("/new", format!("body {number}")).send(gateway.addr()).expect(200);
    }
    assert_eq!(good.requests(), 12);
    let last = good.last();
    assert_eq!(last.body.text(), "body 11");
}

#[test]
fn all_targets_down_and_one_returns() {
    let (one, two) = (Reserved::new(), Reserved::new());
    let body = format!(
        "upstreams:\n  - name: many\n    targets: [{{target: '{}'}}, {{target: '{}'}}]\n    \
         healthchecks: {{passive: {{eject_for: 1s}}}}\nservices:\n  \
         - {{name: web, host: many, routes: [{{name: all, paths: [/]}}]}}\n",
        one.addr(),
        two.addr()
    );
    let gateway = Gateway::start(&Setup::new(body));
    for _ in 0..20 {
        let response = Request::get("/").send(gateway.addr());
        assert!(matches!(response.status, 502 | 503), "{}", response.head.start);
    }
    let origin = Origin::start_at(one.addr(), Echo::default());
    // A target that was ejected is tried again once its time is over.
    eventually("the return of a target", || {
        holds(Request::get("/").send(gateway.addr()).status == 200, "still failing")
    });
    eventually("all requests at the living target", || {
        let codes: Vec<u16> = (0..20).map(|_| Request::get("/").send(gateway.addr()).status).collect();
        holds(codes.iter().all(|code| *code == 200), format!("{codes:?}"))
    });
    drop(origin);
}

#[test]
fn an_upstream_of_weightless_targets_is_unavailable() {
    let origin = Origin::start(Echo::default());
    let gateway = spread(&[(origin.addr(), 0)]);
    Request::get("/").send(gateway.addr()).expect(503);
    assert_eq!(origin.requests(), 0);
}

#[test]
fn connections_to_targets_are_reused() {
    let origin = Origin::start(Echo::default());
    let gateway = before(origin.addr(), "");
    let mut connection = Connection::open(gateway.addr());
    for _ in 0..30 {
        Request::get("/").keep().send_on(&mut connection).expect(200);
        Request::post("/", "body").keep().send_on(&mut connection).expect(200);
    }
    assert_eq!(origin.connections(), 1);
    // Whatever client connection and shard: at most one idle connection each.
    for _ in 0..30 {
        Request::get("/").send(gateway.addr()).expect(200);
    }
    assert!(origin.connections() <= 2, "{}", origin.connections());
}

#[test]
fn a_connection_that_the_target_closed_is_not_the_clients_problem() {
    let origin = Origin::start(KeepAliveCloser { after: 1 });
    let gateway = before(origin.addr(), "");
    let mut connection = Connection::open(gateway.addr());
    for _ in 0..100 {
        Request::get("/").keep().send_on(&mut connection).expect(200);
    }
    assert_eq!(origin.requests(), 100);
}

#[test]
fn connection_close_of_a_target_is_its_own() {
    let canned = Canned { status: "200 OK", fields: "Connection: close\r\n", body: "x" };
    let origin = Origin::start(canned);
    let gateway = before(origin.addr(), "");
    let mut connection = Connection::open(gateway.addr());
    for _ in 0..5 {
        let response = Request::get("/").keep().send_on(&mut connection).expect(200);
        assert!(!response.head.has_token("connection", "close"), "{:?}", response.head.fields);
    }
    assert_eq!(origin.connections(), 5);
}

#[test]
fn weights_are_kept() {
    let heavy = Origin::start(Counting::named("heavy"));
    let light = Origin::start(Counting::named("light"));
    let none = Origin::start(Counting::named("none"));
    let gateway = spread(&[(heavy.addr(), 30), (light.addr(), 10), (none.addr(), 0)]);
    let mut connection = Connection::open(gateway.addr());
    for _ in 0..80 {
        Request::get("/").keep().send_on(&mut connection).expect(200);
    }
    assert_eq!(none.requests(), 0);
    assert_eq!(heavy.requests() + light.requests(), 80);
    assert!((58..=62).contains(&heavy.requests()), "{} of 80", heavy.requests());
}

#[test]
fn retries_and_reuses_are_counted() {
    let reserved = Reserved::new();
    let good = Origin::start(Echo::default());
    let gateway = spread(&[(reserved.addr(), 1), (good.addr(), 1)]);
    let mut connection = Connection::open(gateway.addr());
    for _ in 0..10 {
        Request::get("/").keep().send_on(&mut connection).expect(200);
    }
    eventually("counts of attempts", || {
        let metrics = gateway.metrics();
        let sum = |name: &str| metrics.sum(name, &[]);
        let (retries, reuses) =
            (sum("portcullis_upstream_retries_total"), sum("portcullis_upstream_reuses_total"));
        let errors = sum("portcullis_upstream_errors_total");
        holds(retries >= 1.0 && reuses >= 8.0 && errors >= 1.0, format!("{retries} {reuses} {errors}"))
    });
}
