//! What the section `http`, and time limits of a route's own, change; and the handshake of a WebSocket.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use portcullis_tests::client::{Connection, Request, Response};
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::{Gateway, Setup};
use portcullis_tests::origin::{Canned, Echo, Gate, Held, Origin, Script, Slow, Wire};

fn with(origin: SocketAddr, section: &str) -> Gateway {
    Gateway::start(&Setup::proxy(origin, "").with(&format!("http: {{{section}}}")))
}

fn get(addr: SocketAddr, path: &str, fields: &str) -> Response {
    Connection::open(addr).send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n{fields}\r\n")).response()
}

#[test]
fn one_path_for_the_route_a_plugin_and_the_upstream() {
    let origin = Origin::start(Echo::default());
    let body = format!(
        "services:\n  - name: web\n    url: http://{}\n    routes:\n      - name: open\n        paths: [/]\n        \
         strip_path: false\n      - name: closed\n        paths: [/admin]\n        strip_path: false\n        plugins:\n          \
         - {{name: key-auth}}\n",
        origin.addr()
    );
    let setup = |section: &str| Setup::new(body.clone()).with(&format!("http: {{{section}}}"));
    let gateway = Gateway::start(&setup("encoded_slash: keep, backslash: keep"));
    // What is asked for, and what the origin sees; or the refusal.
    let check = |section: &str, path: &str, want: Result<&str, u16>| {
        let response = get(gateway.addr(), path, "");
        let got = if response.status == 200 {
            Ok(response.header("x-target").to_owned())
        } else {
            Err(response.status)
        };
        assert_eq!(got.as_deref().map_err(|status| *status), want, "{section} {path}");
    };
    for (path, want) in [
        ("/a%2fb", Ok("/a%2Fb")),
        ("/a%5cb", Ok("/a%5Cb")),
        ("/a\\b", Ok("/a%5Cb")),
        // Kept, it separates nothing: no way around the closed route leads to it.
        ("/x%2f..%2fadmin", Ok("/x%2F..%2Fadmin")),
        ("/admin%2fx", Err(401)),
        ("/a%00", Err(400)),
        ("/a//b", Ok("/a//b")),
        ("/./admin", Err(401)),
        ("/%61dmin", Err(401)),
    ] {
        check("keep", path, want);
    }
    gateway.reload(&setup("encoded_slash: decode, backslash: decode, merge_slashes: on"));
    for (path, want) in [
        ("/a%2fb", Ok("/a/b")),
        ("/a\\b", Ok("/a/b")),
        ("/a///b", Ok("/a/b")),
        ("/x%2f..%2fadmin", Err(401)),
        ("/x\\..\\admin", Err(401)),
        ("/x/%5c..%5C..%2fadmin/y", Err(401)),
        ("//admin", Err(401)),
        ("/%2fadmin", Err(401)),
        ("/a%00", Err(400)),
        ("/x%252f..%252fadmin", Ok("/x%252f..%252fadmin")),
    ] {
        check("decode", path, want);
    }
}

#[test]
fn the_server_field_is_passed_removed_or_replaced() {
    let origin = Origin::start(Canned { status: "200 OK", fields: "Server: theirs\r\n", body: "x" });
    let setup =
        |policy: &str| Setup::proxy(origin.addr(), "").with(&format!("http: {{server_header: {policy}}}"));
    let gateway = Gateway::start(&setup("pass"));
    let servers = |path: &str| get(gateway.addr(), path, "").head.all("server").join("|");
    assert_eq!((servers("/"), servers("/a%2fb")), ("theirs".into(), String::new()));
    gateway.reload(&setup("remove"));
    assert_eq!((servers("/"), servers("/a%2fb")), (String::new(), String::new()));
    gateway.reload(&setup("replace"));
    assert_eq!(servers("/"), "portcullis");
    let own = Connection::open(gateway.addr())
        .send("POST / HTTP/1.1\r\nHost: test\r\nExpect: rain\r\nContent-Length: 0\r\n\r\n")
        .response()
        .expect(417);
    assert_eq!(own.header("server"), "portcullis");
}

#[test]
fn a_date_is_added_where_there_is_none() {
    let origin = Origin::start(Canned { status: "200 OK", fields: "", body: "x" });
    let dated = Origin::start(Canned {
        status: "200 OK",
        fields: "Date: Tue, 15 Nov 1994 08:12:31 GMT\r\n",
        body: "x",
    });
    let (one, other) = (with(origin.addr(), ""), with(dated.addr(), ""));
    let date = get(one.addr(), "/", "").header("date").to_owned();
    assert!(date.ends_with(" GMT") && date.len() == 29, "{date:?}");
    assert_eq!(get(other.addr(), "/", "").head.all("date"), ["Tue, 15 Nov 1994 08:12:31 GMT"]);
}

#[test]
fn a_loop_ends() {
    let origin = Origin::start(Echo::default());
    let gateway = with(origin.addr(), "via_limit: 2");
    get(gateway.addr(), "/", "Via: 1.1 portcullis, 1.1 portcullis\r\n").expect(200);
    let response =
        get(gateway.addr(), "/loop", "Via: 1.1 portcullis, 1.0 x\r\nVia: 1.1 portcullis,1.1 portcullis\r\n");
    response.expect(508);
    assert_eq!(gateway.logged(|line| line["path"] == "/loop")["reason"], "loop_detected");
}

#[test]
fn a_route_has_time_limits_of_its_own() {
    let origin = Origin::start(Slow { before_head: Duration::from_millis(700), before_byte: Duration::ZERO });
    let body = format!(
        "services:\n  - name: web\n    url: http://{}\n    timeouts: {{first_byte: 5s}}\n    routes:\n      \
         - {{name: long, paths: [/long]}}\n      - {{name: short, paths: [/short], timeouts: {{first_byte: 200ms}}}}\n",
        origin.addr()
    );
    let gateway = Gateway::start(&Setup::new(body).timeouts("drain_delay: 0s, first_byte: 100ms"));
    get(gateway.addr(), "/long", "").expect(200);
    get(gateway.addr(), "/short", "").expect(504);
    assert_eq!(gateway.logged(|line| line["path"] == "/short")["reason"], "upstream_timeout");
}

#[test]
fn a_client_that_leaves_while_its_target_thinks_is_noticed() {
    let gate = Gate::shut();
    let origin = Origin::start(Held { gate: gate.clone(), midway: false });
    let gateway = with(origin.addr(), "");
    for (path, reset) in [("/closed", false), ("/reset", true)] {
        let mut connection = Connection::open(gateway.addr());
        connection.send(Request::get(path).keep().bytes());
        eventually("the request", || holds(origin.open() == 1, format!("{}", origin.open())));
        if reset {
            connection.reset()
        } else {
            drop(connection)
        }
        let line = gateway.logged(|line| line["path"] == path);
        assert_eq!(
            (line["reason"].as_str(), line["status"].as_u64()),
            (Some("client_aborted"), Some(499)),
            "{line}"
        );
        assert!(line["total_us"].as_u64().is_some_and(|us| us < 5_000_000), "{line}");
    }
    gate.open();
    eventually("no connection to the origin", || holds(origin.open() == 0, format!("{}", origin.open())));
    let metrics = gateway.metrics();
    assert_eq!(metrics.sum("portcullis_requests_active", &[]), 0.0);
}

#[test]
fn a_client_that_has_finished_sending_is_served_where_that_is_wished() {
    let origin =
        Origin::start(Slow { before_head: Duration::from_millis(3000), before_byte: Duration::ZERO });
    let gateway = with(origin.addr(), "half_closed: serve");
    let mut connection = Connection::open(gateway.addr());
    connection.send(Request::get("/").keep().bytes());
    connection.finish_sending();
    assert_eq!(connection.response().expect(200).text(), "slow\n");
}

#[test]
fn an_exchange_ends_when_its_time_is_over() {
    let thinking = Origin::start(Slow { before_head: Duration::from_secs(3), before_byte: Duration::ZERO });
    let dripping =
        Origin::start(Slow { before_head: Duration::ZERO, before_byte: Duration::from_millis(400) });
    let body = format!(
        "services:\n  - name: thinking\n    url: http://{}\n    retries: 5\n    routes:\n      \
         - {{name: thinking, paths: [/thinking], timeouts: {{total: 500ms}}}}\n  - name: dripping\n    url: http://{}\n    \
         timeouts: {{total: 700ms}}\n    routes:\n      - {{name: dripping, paths: [/dripping]}}\n      \
         - {{name: endless, paths: [/endless], timeouts: {{total: 0s}}}}\n",
        thinking.addr(),
        dripping.addr()
    );
    let gateway = Gateway::start(&Setup::new(body).timeouts("drain_delay: 0s, total: 100ms"));
    // Before the head there is an answer; after it, only a cut.
    get(gateway.addr(), "/thinking", "").expect(504);
    let line = gateway.logged(|line| line["path"] == "/thinking");
    assert_eq!(
        (line["reason"].as_str(), line["attempts"].as_u64()),
        (Some("total_timeout"), Some(1)),
        "{line}"
    );
    let mut connection = Connection::open(gateway.addr());
    connection.send(Request::get("/dripping").bytes());
    assert!(connection.try_response(false).is_err(), "cut within the body");
    let line = gateway.logged(|line| line["path"] == "/dripping");
    assert_eq!(
        (line["reason"].as_str(), line["status"].as_u64()),
        (Some("total_timeout"), Some(200)),
        "{line}"
    );
    assert_eq!(get(gateway.addr(), "/endless", "").expect(200).text(), "slow\n");
}

#[test]
fn the_time_of_an_exchange_holds_for_plugins_and_bodies_that_are_held() {
    let origin = Origin::start(Echo::default());
    let delay = "plugins: [{name: fault-injection, config: {delay: {fixed_delay: 30s, percentage: 100}}}]";
    let body = format!(
        "services:\n  - name: web\n    url: http://{}\n    timeouts: {{total: 600ms}}\n    routes:\n      \
         - {{name: delayed, paths: [/delayed], {delay}}}\n      \
         - {{name: held, paths: [/held], request_buffering: true}}\n",
        origin.addr()
    );
    let gateway = Gateway::start(&Setup::new(body).timeouts("drain_delay: 0s"));
    get(gateway.addr(), "/delayed", "").expect(504);
    let mut connection = Connection::open(gateway.addr());
    connection.send("POST /held HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\n");
    // Each piece comes well within the limits on bodies.
    eventually("the end of its time", || {
        drop(connection.try_send(&[b'x'; 100]));
        holds(connection.readable_within(Duration::from_millis(50)), "still taken")
    });
    connection.response().expect(504);
    for path in ["/delayed", "/held"] {
        let line = gateway.logged(|line| line["path"] == path);
        assert_eq!(line["reason"], "total_timeout", "{line}");
    }
    assert_eq!(origin.requests(), 0);
}

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n";

/// Switches with that proof, and keeps quiet.
struct Accepting(&'static str);

impl Script for Accepting {
    fn serve(&self, wire: &mut Wire) -> io::Result<()> {
        if wire.request()?.is_some() {
            let fields = format!("{UPGRADE}Sec-WebSocket-Accept: {}\r\n", self.0);
            wire.send(format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n").as_bytes())?;
            wire.drain()?;
        }
        Ok(())
    }
}

#[test]
fn a_websocket_is_asked_for_rightly_rfc6455_4() {
    let origin = Origin::start(Accepting("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    let gateway = with(origin.addr(), "");
    for (fields, status) in [
        (format!("{KEY}Sec-WebSocket-Version: 13\r\n"), 101),
        (format!("{KEY}Sec-WebSocket-Version: 8\r\n"), 426),
        (KEY.to_owned(), 426),
        ("Sec-WebSocket-Version: 13\r\n".to_owned(), 400),
        (format!("{KEY}{KEY}Sec-WebSocket-Version: 13\r\n"), 400),
        ("Sec-WebSocket-Key: short\r\nSec-WebSocket-Version: 13\r\n".to_owned(), 400),
    ] {
        let response = get(gateway.addr(), "/", &format!("{UPGRADE}{fields}")).expect(status);
        if status == 426 {
            assert_eq!(response.header("sec-websocket-version"), "13", "{:?}", response.head.fields);
        }
    }
    assert_eq!(origin.requests(), 1);
}

#[test]
fn a_websocket_is_given_by_whom_was_asked_rfc6455_4_1() {
    for proof in ["s3pPLMBiTxaQ9kYGzzhZRbK+xOo", "AAAAAAAAAAAAAAAAAAAAAAAAAAA=", ""] {
        let origin = Origin::start(Accepting(proof));
        let gateway = with(origin.addr(), "");
        get(gateway.addr(), "/", &format!("{UPGRADE}{KEY}Sec-WebSocket-Version: 13\r\n")).expect(502);
        assert_eq!(gateway.logged(|line| line["path"] == "/")["reason"], "upstream_protocol_error");
    }
}

#[test]
fn an_upstream_is_told_when_its_client_does_not_answer_a_close() {
    let origin = Origin::start(Accepting("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    let gateway =
        Gateway::start(&Setup::proxy(origin.addr(), "").timeouts("drain_delay: 0s, tunnel_idle: 300ms"));
    let mut connection = Connection::open(gateway.addr());
    connection.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{UPGRADE}{KEY}Sec-WebSocket-Version: 13\r\n\r\n"));
    connection.response().expect(101);
    assert_eq!(connection.take(4), [0x88, 2, 0x03, 0xE9]);
    eventually("a masked close frame at the origin", || {
        let raw = origin.raw(0);
        let frame = raw.last_chunk::<8>().filter(|frame| frame[..2] == [0x88, 0x82]);
        let code = frame.map(|frame| [frame[6] ^ frame[2], frame[7] ^ frame[3]]);
        holds(code == Some([0x03, 0xE9]), format!("{:?}", raw.last_chunk::<8>()))
    });
    connection.expect_closed();
}
