//! Clients that speak HTTP/2 to targets that speak HTTP/1: what passes, and how streams begin, end and break off.
//!
//! Frames are sent on purpose by `h2_frames.py`; honest clients are httpx, Node and curl.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use portcullis_tests::certs::Authority;
use portcullis_tests::client::Connection;
use portcullis_tests::client::background::Background;
use portcullis_tests::client::programs::{curl, node, python_with, run, run_json};
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::{Gateway, Setup};
use portcullis_tests::h2::{H2, PREFACE, block, flag, frame, kind, post, pseudo, settings, status_of};
use portcullis_tests::origin::{
    Bulk, Canned, Chunked, EarlyResponse, Echo, Gate, Held, Interim, Origin, Script, Truncating, UntilClose,
    Wire,
};
use serde_json::{Value, json};

/// RFC 9113 section 7.
const NO_ERROR: u64 = 0;
const INTERNAL_ERROR: u64 = 2;

fn gateway(origin: &Origin) -> Gateway {
    Gateway::start(&Setup::proxy(origin.addr(), "").h2c())
}

/// A scenario of `h2_frames.py`.
fn command(gateway: &Gateway, scenario: &str, arguments: &[&str]) -> Option<Command> {
    let mut command = python_with("h2", "h2_frames.py")?;
    let addr = gateway.addr();
    command.args([&addr.ip().to_string(), &addr.port().to_string(), scenario]).args(arguments);
    Some(command)
}

#[track_caller]
fn frames(gateway: &Gateway, scenario: &str, arguments: &[&str]) -> Option<Value> {
    Some(run_json(&mut command(gateway, scenario, arguments)?))
}

/// First value of a field of a response.
fn field<'a>(told: &'a Value, name: &str) -> Option<&'a str> {
    let fields = told["fields"].as_array()?;
    fields.iter().find(|pair| pair[0] == name).and_then(|pair| pair[1].as_str())
}

#[test]
fn heads_pass_both_ways_as_each_side_has_them() {
    let origin = Origin::start(Echo { name: "origin" });
    let gateway = gateway(&origin);
    let Some(told) =
        frames(&gateway, "get", &["/a/./b?x=1", "te: trailers", "x-own: v", "x-forwarded-user: root"])
    else {
        return;
    };
    assert_eq!(told["status"], 200, "{told}");
    assert_eq!(field(&told, "via"), Some("1.1 portcullis"));
    assert!(field(&told, "connection").is_none() && field(&told, "transfer-encoding").is_none(), "{told}");
    assert_eq!((&told["ended"], &told["reset"]), (&json!(true), &Value::Null));
    let asked = origin.last().head;
    assert_eq!((asked.word(0), asked.word(1), asked.word(2)), ("GET", "/a/b?x=1", "HTTP/1.1"));
    assert_eq!(asked.all("host"), [origin.addr().to_string()]);
    assert_eq!(asked.all("via"), ["2.0 portcullis"]);
    assert_eq!(asked.all("x-own"), ["v"]);
    assert_eq!(asked.all("x-forwarded-host"), [gateway.addr().to_string()]);
    // Of this hop, not of the client's.
    assert_eq!((asked.all("te"), asked.all("connection")), (vec!["trailers"], vec!["TE"]));
    for absent in ["transfer-encoding", "content-length", "x-forwarded-user"] {
        assert!(asked.get(absent).is_none(), "{absent}: {:?}", asked.fields);
    }
    let line = gateway.logged(|line| line["path"] == "/a/./b?x=1");
    assert_eq!((&line["http"], &line["status"]), (&json!("2"), &json!(200)), "{line}");
    let metrics = gateway.metrics();
    assert_eq!(metrics.get("portcullis_downstream_http2_streams_total", &[]), 1.0);
    assert_eq!(metrics.get("portcullis_downstream_http2_connections_total", &[]), 1.0);
    assert_eq!(metrics.get("portcullis_downstream_http2_streams_active", &[]), 0.0);
}

#[test]
fn cookie_crumbs_are_one_field_in_http1() {
    let origin = Origin::start(Echo { name: "origin" });
    let gateway = gateway(&origin);
    let Some(told) = frames(&gateway, "crumbs", &["/"]) else { return };
    assert_eq!(told["status"], 200, "{told}");
    assert_eq!(origin.last().head.all("cookie"), ["a=1; b=2; c=3"]);
}

#[test]
fn bodies_of_any_size_arrive_whole() {
    let origin = Origin::start(Echo { name: "origin" });
    let gateway = gateway(&origin);
    // In one piece with its head, in pieces, larger than every window and than what is kept for a retry.
    for (size, pieces, length) in
        [(5, 1, "no"), (5, 1, "length"), (3000, 30, "no"), (70_000, 7, "length"), (3_000_000, 1, "no")]
    {
        let arguments = ["/echo".to_owned(), size.to_string(), pieces.to_string(), length.to_owned()];
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let Some(told) = frames(&gateway, "post", &arguments) else { return };
        assert_eq!(told["status"], 200, "{size}: {told}");
        let received = origin.last();
        // The origin keeps the first bytes only.
        let same = received.body.bytes.iter().zip(0_u32..).all(|(byte, i)| u32::from(*byte) == i % 251);
        assert!(same && received.body.len == size, "{size} in {pieces} pieces: {} bytes", received.body.len);
        let announced = received.head.get("content-length").map(str::to_owned);
        let chunked = received.head.has_token("transfer-encoding", "chunked");
        assert!(announced.is_some() != chunked, "{size}: {:?}", received.head.fields);
        if length == "length" {
            assert_eq!(announced, Some(size.to_string()));
        }
    }
}

#[test]
fn large_responses_come_whole_with_a_length_and_without() {
    for chunked in [false, true] {
        let origin = Origin::start(Bulk { len: 5_000_000, chunked });
        let gateway = gateway(&origin);
        let Some(told) = frames(&gateway, "get", &["/"]) else { return };
        assert_eq!((&told["status"], &told["length"]), (&json!(200), &json!(5_000_000)));
        assert_eq!(field(&told, "content-length"), (!chunked).then_some("5000000"));
        assert_eq!((&told["ended"], &told["reset"]), (&json!(true), &Value::Null));
    }
}

#[test]
fn a_body_that_ends_with_its_connection_ends_its_stream() {
    let origin = Origin::start(UntilClose { version: "HTTP/1.0", body: "to the end" });
    let gateway = gateway(&origin);
    let Some(told) = frames(&gateway, "get", &["/"]) else { return };
    assert_eq!((&told["body"], &told["ended"]), (&json!("to the end"), &json!(true)), "{told}");
}

#[test]
fn statuses_and_methods_without_a_body_have_none() {
    for (status, fields) in [("204 No Content", ""), ("304 Not Modified", "ETag: \"x\"\r\n")] {
        let origin = Origin::start(Canned { status, fields, body: "" });
        let gateway = gateway(&origin);
        let Some(told) = frames(&gateway, "get", &["/"]) else { return };
        assert_eq!(
            (&told["status"], &told["length"]),
            (&json!(status[..3].parse::<u16>().unwrap()), &json!(0))
        );
        assert_eq!(told["ended"], true, "{told}");
    }
    let origin = Origin::start(Echo { name: "origin" });
    let gateway = gateway(&origin);
    let Some(told) = frames(&gateway, "method", &["HEAD", "/"]) else { return };
    assert_eq!((&told["status"], &told["length"], &told["ended"]), (&json!(200), &json!(0), &json!(true)));
    assert!(field(&told, "content-length").is_some_and(|length| length != "0"), "{told}");
}

#[test]
fn trailers_of_the_target_reach_the_client_and_its_own_are_harmless() {
    let origin = Origin::start(Chunked {
        fields: "",
        chunks: &["one ", "two"],
        extension: "",
        trailers: "X-Sum: 1\r\nContent-Length: 9\r\n",
    });
    let gateway = gateway(&origin);
    let Some(told) = frames(&gateway, "trailers", &["/"]) else { return };
    assert_eq!((&told["status"], &told["body"]), (&json!(200), &json!("one two")), "{told}");
    assert_eq!(told["trailers"], json!({"x-sum": "1"}));
    assert_eq!(origin.last().body.bytes, b"payload");
}

#[test]
fn interim_responses_are_relayed() {
    let origin = Origin::start(Interim {
        interim: "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n",
    });
    let gateway = gateway(&origin);
    let Some(told) = frames(&gateway, "get", &["/"]) else { return };
    assert_eq!(told["status"], 200, "{told}");
    assert_eq!(told["interim"], json!([{":status": "103", "link": "</a>"}]));
}

#[test]
fn many_streams_share_a_connection() {
    let origin = Origin::start(Echo { name: "origin" });
    let gateway = gateway(&origin);
    let Some(told) = frames(&gateway, "many", &["/x", "80"]) else { return };
    assert_eq!(told["statuses"], json!(vec![200; 80]));
    assert_eq!(gateway.metrics().get("portcullis_downstream_http2_streams_total", &[]), 80.0);
}

#[test]
fn a_call_whose_head_is_refused_is_told_as_a_call() {
    let origin = Origin::start(Echo::default());
    let gateway = gateway(&origin);
    let mut h2 = H2::open(gateway.addr());
    let long = format!("/{}", "x".repeat(20_000));
    for (stream, path) in [(1, "/test.Echo/%00"), (3, &long)] {
        let fields =
            [pseudo("POST", path), vec![("content-type", "application/grpc"), ("te", "trailers")]].concat();
        let block = block(&fields);
        let (first, rest) = block.split_at(block.len().min(16_000));
        h2.send(&frame(kind::HEADERS, 0, stream, first));
        h2.send(&frame(kind::CONTINUATION, flag::END_HEADERS, stream, rest));
        let answer = h2.until(|frame| frame.stream == stream && frame.kind == kind::HEADERS);
        let answer = answer.expect("an answer");
        assert_eq!(status_of(&answer.payload), 200, "{path}");
        assert!(answer.has(flag::END_STREAM), "trailers alone: {answer:?}");
    }
}

#[test]
fn a_target_of_http1_is_told_how_long_the_client_still_waits() {
    let origin = Origin::start(Echo::default());
    let gateway = gateway(&origin);
    let mut h2 = H2::open(gateway.addr());
    let call = [("content-type", "application/grpc"), ("grpc-timeout", "20S")];
    let fields = [pseudo("POST", "/test.Echo/Unary"), call.to_vec()].concat();
    h2.send(&frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, &block(&fields)));
    assert_eq!(h2.status(1), 200);
    let told = origin.last().head.get("grpc-timeout").map(str::to_owned).expect("a time");
    let micros: u64 = told.strip_suffix('u').and_then(|digits| digits.parse().ok()).expect("microseconds");
    assert!((1..20_000_000).contains(&micros), "{told}");
}

#[test]
fn the_window_of_an_upload_grows_while_the_target_takes_it() {
    const INITIAL: i64 = 64 * 1024;
    let origin = Origin::start(Echo::default());
    let gateway = Gateway::start(&Setup::proxy(origin.addr(), "        body_limit: 64MiB\n").h2c());
    let mut h2 = H2::connect(gateway.addr());
    h2.acknowledges = false;
    h2.send(&[PREFACE, &settings(&[]), &post(1, "/upload")].concat());
    // As every connection begins (RFC 9113 section 6.9.2).
    let (mut window, mut initial, mut connection, mut sent) = (65_535, 65_535, 65_535, 0);
    // Beyond what was in flight at any time before the window grew.
    while initial < 4 * INITIAL || window.min(connection) < 3 * INITIAL {
        let room = window.min(connection).min(16_384);
        if room > 0 && initial < 4 * INITIAL {
            h2.send(&frame(kind::DATA, 0, 1, &vec![b'x'; room as usize]));
            (window, connection, sent) = (window - room, connection - room, sent + room);
        }
        assert!(sent < 60 << 20, "the window of a stream is still {initial}");
        let wait = if room > 0 && initial < 4 * INITIAL {
            Duration::from_micros(100)
        } else {
            Duration::from_secs(20)
        };
        let Ok(told) = h2.frame_within(wait) else {
            assert!(room > 0, "no leave to send more");
            continue;
        };
        let told = told.expect("the connection goes on");
        match (told.kind, told.stream) {
            (kind::WINDOW_UPDATE, 0) => connection += i64::from(told.word()),
            (kind::WINDOW_UPDATE, _) => window += i64::from(told.word()),
            (kind::SETTINGS, _) if !told.has(flag::ACK) => {
                for parameter in told.payload.chunks(6).filter(|parameter| parameter[..2] == [0, 4]) {
                    let size = i64::from(u32::from_be_bytes(parameter[2..].try_into().expect("four octets")));
                    (window, initial) = (window + size - initial, size);
                }
                h2.send(&frame(kind::SETTINGS, flag::ACK, 0, &[]));
            }
            (kind::SETTINGS | kind::PING, _) => {}
            _ => panic!("{told:?}"),
        }
    }
    // More than three of the first windows at once, without asking.
    while window.min(connection) > 0 {
        let piece = window.min(connection).min(16_384);
        h2.send(&frame(kind::DATA, 0, 1, &vec![b'x'; piece as usize]));
        (window, connection, sent) = (window - piece, connection - piece, sent + piece);
    }
    h2.send(&frame(kind::DATA, flag::END_STREAM, 1, &[]));
    assert_eq!(h2.status(1), 200);
    assert_eq!(origin.last().body.len as i64, sent);
}

#[test]
fn refusals_are_answers_and_not_resets() {
    let origin = Origin::start(Echo { name: "origin" });
    let only = format!(
        "services:\n  - name: web\n    url: http://{}\n    routes:\n      - {{name: one, paths: [/one]}}\n",
        origin.addr()
    );
    let gateway = Gateway::start(&Setup::new(only).h2c());
    for (path, status, reason) in [("/other", 404, "no_route"), ("/one/%00", 400, "bad_path_encoding")] {
        let Some(told) = frames(&gateway, "get", &[path]) else { return };
        assert_eq!((&told["status"], &told["reset"]), (&json!(status), &Value::Null), "{told}");
        assert_eq!(field(&told, "content-type"), Some("application/json; charset=utf-8"));
        let body: Value = serde_json::from_str(told["body"].as_str().unwrap()).expect("JSON");
        assert!(body["message"].is_string(), "{told}");
        assert!(field(&told, "date").is_some() && field(&told, "connection").is_none(), "{told}");
        let line = gateway.logged(|line| line["reason"] == reason);
        assert_eq!(line["status"], status, "{line}");
    }
    assert_eq!(origin.requests(), 0);
}

/// Tells by a file that a request came, and whether its connection then ended, which it waits for.
struct Waiting(std::path::PathBuf);

impl Script for Waiting {
    fn serve(&self, wire: &mut Wire) -> io::Result<()> {
        while let Some(received) = wire.request()? {
            if received.head.word(1) == "/after" {
                wire.answer("200 OK", "", b"after")?;
                continue;
            }
            std::fs::write(self.0.join("came"), "")?;
            wire.drain()?;
            std::fs::write(self.0.join("left"), "")?;
        }
        Ok(())
    }
}

#[test]
fn a_client_that_leaves_takes_its_request_from_the_target() {
    let dir = tempfile::tempdir().expect("a folder");
    let origin = Origin::start(Waiting(dir.path().to_owned()));
    let gateway = gateway(&origin);
    let came = dir.path().join("came");
    let Some(after) = frames(&gateway, "cancel", &["/slow", came.to_str().unwrap()]) else { return };
    assert_eq!(after["body"], "after", "{after}");
    eventually("the target's connection to end", || holds(dir.path().join("left").exists(), "still open"));
    let line = gateway.logged(|line| line["path"] == "/slow");
    assert_eq!((&line["status"], &line["reason"]), (&json!(499), &json!("client_aborted")), "{line}");
}

#[test]
fn an_answer_before_the_end_of_the_request_ends_it_without_an_error() {
    let origin = Origin::start(EarlyResponse { status: "403 Forbidden", close: false });
    let gateway = gateway(&origin);
    let Some(told) = frames(&gateway, "early", &["/"]) else { return };
    assert_eq!((&told["reset"], &told["ended"]), (&json!(NO_ERROR), &json!(true)), "{told}");
}

#[test]
fn a_response_that_is_cut_short_is_broken_off() {
    let origin = Origin::start(Truncating { announced: 100, sent: "too little" });
    let gateway = gateway(&origin);
    let Some(told) = frames(&gateway, "get", &["/"]) else { return };
    assert_eq!((&told["reset"], &told["ended"]), (&json!(INTERNAL_ERROR), &json!(false)), "{told}");
    let line = gateway.logged(|line| line["path"] == "/");
    assert_eq!(line["reason"], "upstream_truncated", "{line}");
}

#[test]
fn a_client_that_does_not_read_stops_the_target_and_nobody_else() {
    let origin = Origin::start(Flood);
    let gateway = gateway(&origin);
    let Some(told) = frames(&gateway, "slow", &["/flood", "1"]) else { return };
    // The stream's window, and not more.
    assert_eq!((&told["before"], &told["other"]), (&json!(65_535), &json!(200)), "{told}");
    let resident = gateway.resident();
    assert!(resident < 200 << 20, "{resident} bytes resident");
}

/// Sends a body without end to who asks for it.
struct Flood;

impl Script for Flood {
    fn serve(&self, wire: &mut Wire) -> io::Result<()> {
        while let Some(received) = wire.request()? {
            if received.head.word(1) != "/flood" {
                wire.answer("200 OK", "", b"small")?;
                continue;
            }
            wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4000000000\r\n\r\n")?;
            let piece = vec![b'x'; 64 * 1024];
            for _ in 0..60_000 {
                wire.send(&piece)?;
            }
        }
        Ok(())
    }
}

#[test]
fn a_drain_says_goodbye_and_lets_streams_finish() {
    let gate = Gate::shut();
    let origin = Origin::start(Held { gate: gate.clone(), midway: true });
    let mut gateway = gateway(&origin);
    let Some(mut held) = command(&gateway, "drain", &["/held"]) else { return };
    let client =
        held.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("python");
    origin.wait_for(1);
    gateway.signal("TERM");
    let client = Waiter(Some(client));
    eventually("a drain that has begun", || {
        holds(TcpStream::connect(gateway.addr()).is_err(), "still listening")
    });
    gate.open();
    let told = client.json();
    assert_eq!(
        (&told["body"], &told["ended"], &told["closed"]),
        (&json!("held-on\n"), &json!(true), &json!(true))
    );
    assert_eq!(told["goaway"]["code"], NO_ERROR, "{told}");
    assert!(gateway.wait_end().success());
}

/// A child process whose output is awaited, and that does not outlive the test.
struct Waiter(Option<Child>);

impl Waiter {
    fn json(mut self) -> Value {
        let output = self.0.take().expect("a child").wait_with_output().expect("its output");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

#[test]
fn a_connection_that_has_served_enough_is_told_to_leave() {
    let origin = Origin::start(Echo { name: "origin" });
    let limits = "limits: {requests_per_connection: 5}\n";
    let gateway = Gateway::start(&Setup::proxy(origin.addr(), "").with(limits).h2c());
    let Some(told) = frames(&gateway, "until_goaway", &["/"]) else { return };
    assert_eq!((&told["answered"], &told["goaway"]["code"]), (&json!(5), &json!(NO_ERROR)), "{told}");
}

#[test]
fn http1_is_spoken_beside_it_and_a_preface_elsewhere_is_refused() {
    let origin = Origin::start(Echo { name: "origin" });
    let both = gateway(&origin);
    // A byte at a time: what could still be the preface must not be taken for it.
    let mut connection = Connection::open(both.addr());
    for byte in b"P" {
        connection.send([*byte]);
    }
    connection.send("OST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").response().expect(200);
    let without = Gateway::start(&Setup::proxy(origin.addr(), ""));
    let mut connection = Connection::open(without.addr());
    connection.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").response().expect(505);
    connection.expect_closed();
    without.logged(|line| line["reason"] == "h2_preface");
}

#[test]
fn real_clients_speak_it_over_tls() {
    let origin = Origin::start(Echo { name: "origin" });
    let dir = tempfile::tempdir().expect("a folder");
    let authority = Authority::new(dir.path());
    let leaf = authority.leaf(&["localhost"]);
    let certificate = format!(
        "certificates:\n  - {{name: one, cert_file: {}, key_file: {}}}\n",
        leaf.cert.display(),
        leaf.key.display()
    );
    let setup = Setup::proxy(origin.addr(), "").with(&certificate).tls("{certificates: [one]}");
    let gateway = Gateway::start(&setup);
    let url = format!("https://localhost:{}/real", gateway.tls_addr().port());
    let ca = authority.ca_file();
    if let Some(mut curl) = curl() {
        let version = "%{http_version}";
        let output = run(curl
            .args(["--http2", "--output", "/dev/null", "--write-out", version, "--cacert"])
            .arg(&ca)
            .arg(&url));
        assert_eq!(output.stdout, b"2");
    }
    if let Some(mut python) = python_with("h2", "http2_client.py") {
        let told = run_json(python.arg(&url).arg(&ca));
        assert_eq!(told, json!({"versions": ["HTTP/2"], "ok": 60, "posted": 300_000}), "{told}");
    }
    if let Some(mut node) = node("http2_client.mjs") {
        let told = run_json(node.arg(&url).arg(&ca));
        assert_eq!(told, json!({"ok": 50, "posted": 300_000}), "{told}");
    }
    assert!(origin.requests() > 0);
}

#[test]
fn a_load_of_streams_is_answered_without_an_error() {
    let origin = Origin::start(Canned { status: "200 OK", fields: "", body: "ok" });
    let gateway = gateway(&origin);
    if !Path::new("/usr/bin/h2load").exists() {
        return portcullis_tests::client::programs::skip("h2load (nghttp2-client) is not installed");
    }
    let mut load = Command::new("h2load");
    let output = run(load.args(["-n", "4000", "-c", "8", "-m", "16"]).arg(gateway.url()));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("4000 succeeded, 0 failed, 0 errored, 0 timeout"), "{text}");
    assert!(text.contains("4000 2xx, 0 3xx, 0 4xx, 0 5xx"), "{text}");
    eventually("no open stream", || {
        holds(gateway.metrics().get("portcullis_downstream_http2_streams_active", &[]) == 0.0, "still open")
    });
}

#[test]
fn a_websocket_is_a_stream_rfc8441() {
    let Some(mut command) = python_with("h2", "upgrade_origin.py") else { return };
    let mut origin = Background::start(&mut command);
    let addr = SocketAddr::from(([127, 0, 0, 1], origin.port()));
    let gateway = Gateway::start(&Setup::proxy(addr, "").h2c());
    let Some(told) = frames(&gateway, "extended", &["/chat"]) else { return };
    assert_eq!(
        (&told["status"], &told["reset"], &told["ended"]),
        (&json!(200), &Value::Null, &json!(true)),
        "{told}"
    );
    assert_eq!(told["echoed"], json!([true, true, true]), "{told}");
    assert_eq!(field(&told, "sec-websocket-protocol"), Some("chat"));
    for absent in ["sec-websocket-accept", "upgrade", "connection"] {
        assert!(field(&told, absent).is_none(), "{told}");
    }
    assert_eq!((origin.line(), origin.line()), ("GET /chat HTTP/1.1".to_owned(), "closed".to_owned()));
    let line = gateway.logged(|line| line["path"] == "/chat");
    assert_eq!((&line["status"], &line["reason"]), (&json!(200), &Value::Null), "{line}");
    assert_eq!(line["response_bytes"], json!(70_010), "{line}");
    let refused = frames(&gateway, "extended", &["/refused"]).expect("Python, as before");
    assert_eq!(refused["status"], 403, "{refused}");
}
