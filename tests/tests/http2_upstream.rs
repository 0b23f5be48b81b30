//! Targets that speak HTTP/2, asked by clients of both versions: what passes, what is shared, what is asked again.

use std::net::SocketAddr;

use portcullis_tests::client::background::Background;
use portcullis_tests::client::load::{Load, Reuse};
use portcullis_tests::client::programs::{python_with, run_json};
use portcullis_tests::client::{Connection, Request};
use portcullis_tests::gateway::{Gateway, Setup};
use portcullis_tests::h2::{self, H2};
use serde_json::{Value, json};

/// An origin of HTTP/2, and a gateway of one shard before it.
fn pair() -> Option<(Background, Gateway)> {
    pair_with(&[])
}

fn pair_with(arguments: &[&str]) -> Option<(Background, Gateway)> {
    let mut origin = Background::start(python_with("h2", "h2_origin.py")?.args(arguments));
    let addr = SocketAddr::from(([127, 0, 0, 1], origin.port()));
    let setup = Setup::new(format!(
        "services:\n  - name: web\n    url: http://{addr}\n    http_version: \"2\"\n    routes:\n      - name: all\n        \
         paths: [/]\n        strip_path: false"
    ));
    Some((origin, Gateway::start(&setup.h2c().shards(1))))
}

#[track_caller]
fn frames(gateway: &Gateway, scenario: &str, arguments: &[&str]) -> Value {
    let mut command = python_with("h2", "h2_frames.py").expect("found for the origin");
    let addr = gateway.addr();
    command.args([&addr.ip().to_string(), &addr.port().to_string(), scenario]).args(arguments);
    run_json(&mut command)
}

#[track_caller]
fn get(gateway: &Gateway, head: &str) -> portcullis_tests::client::Response {
    let mut connection = Connection::open(gateway.addr());
    connection.send(format!("{head}\r\nHost: test\r\n\r\n")).response()
}

#[test]
fn heads_of_http1_become_those_of_http2_and_back() {
    let Some((mut origin, gateway)) = pair() else { return };
    let response =
        get(&gateway, "GET /a?b=1 HTTP/1.1\r\nConnection: keep-alive\r\nCookie: a=1\r\nX-Own: v").expect(200);
    assert_eq!((response.header("x-origin"), response.header("via")), ("h2", "2.0 portcullis"));
    let told = response.json();
    let fields = told["fields"].as_array().expect("fields");
    for (name, value) in
        [(":method", "GET"), (":path", "/a?b=1"), (":scheme", "http"), ("cookie", "a=1"), ("x-own", "v")]
    {
        assert!(fields.contains(&json!([name, value])), "{name}: {told}");
    }
    assert!(fields.iter().any(|field| field[0] == ":authority"), "{told}");
    for absent in ["host", "connection", "transfer-encoding", "te", "keep-alive"] {
        assert!(!fields.iter().any(|field| field[0] == absent), "{absent}: {told}");
    }
    assert_eq!(origin.line(), "0 GET /a?b=1");
}

#[test]
fn bodies_pass_from_http1_and_from_http2() {
    let Some((_origin, gateway)) = pair() else { return };
    for size in [1, 5000, 70_000, 2_000_000] {
        let mut connection = Connection::open(gateway.addr());
        let body = vec![b'x'; size];
        connection.send(format!("POST /sized HTTP/1.1\r\nHost: test\r\nContent-Length: {size}\r\n\r\n"));
        connection.send(&body);
        assert_eq!(connection.response().expect(200).json()["body"], json!(size));
        connection.send("POST /chunks HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
        connection.send(format!("{size:x}\r\n")).send(&body).send("\r\n0\r\n\r\n");
        assert_eq!(connection.response().expect(200).json()["body"], json!(size));
        let told = frames(&gateway, "post", &["/posted", &size.to_string(), "3", "no"]);
        let body: Value = serde_json::from_str(told["body"].as_str().expect("a body")).expect("JSON");
        assert_eq!(body["body"], json!(size), "{told}");
    }
    let large = get(&gateway, "GET /large HTTP/1.1").expect(200);
    assert_eq!(large.body.len, 2_000_000);
    let large = frames(&gateway, "get", &["/large"]);
    assert_eq!((&large["length"], &large["ended"]), (&json!(2_000_000), &json!(true)));
}

#[test]
fn trailers_interim_responses_and_empty_answers_pass() {
    let Some((_origin, gateway)) = pair() else { return };
    let told = frames(&gateway, "get", &["/trailers"]);
    assert_eq!(
        (&told["body"], &told["trailers"]),
        (&json!("with trailers"), &json!({"x-sum": "1"})),
        "{told}"
    );
    let response = get(&gateway, "GET /trailers HTTP/1.1\r\nTE: trailers\r\nConnection: TE").expect(200);
    assert_eq!(
        (response.text(), &response.body.trailers),
        ("with trailers".to_owned(), &vec![("x-sum".into(), "1".into())])
    );
    let response = get(&gateway, "GET /trailers HTTP/1.1").expect(200);
    assert!(response.body.trailers.is_empty());
    assert_eq!(
        frames(&gateway, "get", &["/interim"])["interim"],
        json!([{":status": "103", "link": "</a>"}])
    );
    assert_eq!(get(&gateway, "GET /interim HTTP/1.1").expect(200).interim.len(), 1);
    let mut connection = Connection::open(gateway.addr());
    let empty = connection.send("GET /empty HTTP/1.1\r\nHost: test\r\n\r\n").response().expect(200);
    assert_eq!((empty.header("content-length"), empty.body.len), ("0", 0), "the client learns where it ends");
    connection.send("GET /after HTTP/1.1\r\nHost: test\r\n\r\n").response().expect(200);
    let told = frames(&gateway, "get", &["/empty"]);
    assert_eq!(
        (&told["status"], &told["length"], &told["ended"]),
        (&json!(200), &json!(0), &json!(true)),
        "{told}"
    );
    assert_eq!(frames(&gateway, "method", &["HEAD", "/"])["ended"], true);
}

#[test]
fn requests_share_a_connection() {
    let Some((mut origin, gateway)) = pair() else { return };
    let told = frames(&gateway, "many", &["/shared", "60"]);
    assert_eq!(told["statuses"], json!(vec![200; 60]));
    let lines: Vec<String> = (0..60).map(|_| origin.line()).collect();
    assert!(lines.iter().all(|line| line == "0 GET /shared"), "{lines:?}");
}

#[test]
fn more_requests_than_places_wait_in_line_and_all_are_served() {
    let Some(mut python) = python_with("h2", "h2_origin.py") else { return };
    let mut origin = Background::start(&mut python);
    let addr = SocketAddr::from(([127, 0, 0, 1], origin.port()));
    let setup = Setup::new(format!(
        "http2: {{concurrent_streams: 3, upstream_connections: 1}}\nservices:\n  - name: web\n    url: http://{addr}\n    \
         http_version: \"2\"\n    retries: 0\n    routes:\n      - {{name: all, paths: [/], strip_path: false}}"
    ));
    let gateway = Gateway::start(&setup.shards(1));
    let load =
        Load::start(gateway.addr(), 30, Reuse::KeepAlive, &Request::get("/crowd").keep().bytes(), "via");
    load.wait_for(600);
    load.stop().expect_no_failure();
    assert_eq!(origin.line(), "0 GET /crowd", "one connection");
}

#[test]
fn a_reader_that_stops_before_many_small_frames_ends_no_connection_of_others() {
    let Some((mut origin, gateway)) = pair() else { return };
    // Settings of a window of 0: nothing of the body is taken.
    let mut stopped = H2::open_with(gateway.addr(), &[(4, 0)]);
    for stream in [1, 3, 5] {
        stopped.send(&h2::get(stream, "/crumbs"));
        assert_eq!(stopped.status(stream), 200);
        assert_eq!(origin.line(), "0 GET /crumbs");
    }
    for _ in 0..20 {
        get(&gateway, "GET /beside HTTP/1.1").expect(200);
        assert_eq!(origin.line(), "0 GET /beside");
    }
    // All of it is there, in order, once there is room for it.
    stopped.send(&h2::window_update(0, 1 << 20));
    let whole: String = (0..10_000).map(|number| format!("{number:9}\n")).collect();
    for stream in [5, 1, 3] {
        stopped.send(&h2::window_update(stream, 1 << 20));
        let (_, body) = stopped.response(stream);
        assert!(body == whole.as_bytes(), "{} octets on {stream}", body.len());
    }
}

#[test]
fn what_the_target_has_not_processed_is_asked_again_whatever_the_method() {
    let Some((mut origin, gateway)) = pair() else { return };
    for path in ["/refuse", "/goaway"] {
        // The connection is there before, so that it is no new one that fails.
        get(&gateway, "GET /warm HTTP/1.1").expect(200);
        origin.line();
        let body = "a body that is sent again";
        let mut connection = Connection::open(gateway.addr());
        let told = connection.send(Request::post(path, body).bytes()).response().expect(200).json();
        assert_eq!(told["body"], json!(body.len()), "{path}: {told}");
        let (first, second) = (origin.line(), origin.line());
        assert!(first.ends_with(path) && second.ends_with(path), "{first}, {second}");
        let line = gateway.logged(|line| line["path"] == path);
        assert_eq!((&line["attempts"], &line["status"]), (&json!(2), &json!(200)), "{line}");
    }
}

#[test]
fn streams_below_a_goaway_are_served_and_new_ones_go_elsewhere() {
    let Some((mut origin, gateway)) = pair() else { return };
    let mut waiting = Connection::open(gateway.addr());
    waiting.send("GET /later HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(origin.line(), "0 GET /later");
    get(&gateway, "GET /goodbye HTTP/1.1").expect(200);
    assert_eq!(origin.line(), "0 GET /goodbye");
    assert_eq!(waiting.response().expect(200).json()["path"], "/was-later");
    for _ in 0..3 {
        get(&gateway, "POST /next HTTP/1.1\r\nContent-Length: 0").expect(200);
        assert_eq!(origin.line(), "1 POST /next", "once, and on a connection of its own");
    }
    let line = gateway.logged(|line| line["path"] == "/next");
    assert_eq!(line["attempts"], 1, "{line}");
}

#[test]
fn a_silent_target_times_out_alone() {
    let Some(mut python) = python_with("h2", "h2_origin.py") else { return };
    let mut origin = Background::start(&mut python);
    let addr = SocketAddr::from(([127, 0, 0, 1], origin.port()));
    let setup = Setup::new(format!(
        "services:\n  - name: web\n    url: http://{addr}\n    http_version: \"2\"\n    retries: 0\n    read_timeout: 3000\n    \
         routes:\n      - {{name: all, paths: [/], strip_path: false}}"
    ));
    let gateway = Gateway::start(&setup.h2c().shards(1));
    for _ in 0..2 {
        get(&gateway, "GET /silent HTTP/1.1").expect(504);
        get(&gateway, "GET /beside HTTP/1.1").expect(200);
    }
    let line = gateway.logged(|line| line["path"] == "/silent");
    assert_eq!(line["reason"], "upstream_timeout", "{line}");
    assert!(origin.line().ends_with("GET /silent"));
}

#[test]
fn a_stream_that_the_target_breaks_off_is_an_error() {
    let Some((_origin, gateway)) = pair() else { return };
    get(&gateway, "POST /reset HTTP/1.1\r\nContent-Length: 0").expect(502);
    let told = frames(&gateway, "get", &["/cut"]);
    // What was queued before the reset may be lost with it.
    assert_eq!((&told["reset"], &told["ended"]), (&json!(2), &json!(false)), "{told}");
    let line = gateway.logged(|line| line["path"] == "/cut");
    assert_eq!(line["reason"], "upstream_truncated", "{line}");
    get(&gateway, "GET /after HTTP/1.1").expect(200);
}

const ASK: &str = "GET /chat?room=1 HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

#[test]
fn a_websocket_of_http1_becomes_a_stream_rfc8441() {
    let Some((mut origin, gateway)) = pair() else { return };
    let mut connection = Connection::open(gateway.addr());
    let response = connection.send(ASK).response().expect(101);
    assert_eq!(response.header("sec-websocket-accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!(response.header("sec-websocket-protocol"), "chat");
    let told: Value = serde_json::from_str(response.header("x-told")).expect("fields");
    for (name, value) in [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":path", "/chat?room=1"),
        ("sec-websocket-version", "13"),
    ] {
        assert_eq!(told[name], value, "{told}");
    }
    for absent in ["sec-websocket-key", "upgrade", "connection", "host"] {
        assert!(told.get(absent).is_none(), "{absent}: {told}");
    }
    assert_eq!(origin.line(), "0 CONNECT /chat?room=1");
    for size in [1, 5000, 200_000] {
        connection.send(vec![b'x'; size]);
        assert_eq!(connection.take(size), vec![b'x'; size]);
    }
    // Requests share the connection with it.
    get(&gateway, "GET /beside HTTP/1.1").expect(200);
    assert_eq!(origin.line(), "0 GET /beside");
    connection.finish_sending();
    assert_eq!(origin.line(), "closed");
    connection.expect_closed();
    let line = gateway.logged(|line| line["path"] == "/chat?room=1");
    assert_eq!((&line["status"], &line["reason"]), (&json!(101), &Value::Null), "{line}");
    assert_eq!(line["response_bytes"], json!(205_001), "{line}");
}

#[test]
fn a_websocket_passes_from_stream_to_stream_rfc8441() {
    let Some((mut origin, gateway)) = pair() else { return };
    let told = frames(&gateway, "extended", &["/chat"]);
    assert_eq!(
        (&told["status"], &told["reset"], &told["ended"]),
        (&json!(200), &Value::Null, &json!(true)),
        "{told}"
    );
    assert_eq!(told["echoed"], json!([true, true, true]), "{told}");
    assert_eq!((origin.line(), origin.line()), ("0 CONNECT /chat".to_owned(), "closed".to_owned()));
    let refused = frames(&gateway, "extended", &["/refused"]);
    assert_eq!(refused["status"], 403, "{refused}");
}

#[test]
fn a_target_without_extended_connect_is_not_asked_for_a_websocket() {
    let Some((mut origin, gateway)) = pair_with(&["no-connect"]) else { return };
    for _ in 0..2 {
        let mut connection = Connection::open(gateway.addr());
        connection.send(ASK).response().expect(502);
    }
    let line = gateway.logged(|line| line["path"] == "/chat?room=1");
    assert_eq!(
        (&line["reason"], &line["attempts"]),
        (&json!("upstream_protocol_error"), &json!(1)),
        "{line}"
    );
    get(&gateway, "GET /still HTTP/1.1").expect(200);
    assert_eq!(origin.line(), "0 GET /still");
}
