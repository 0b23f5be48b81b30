//! WebSocket over HTTP/1.1: who gets a tunnel, and that it carries every byte and ends as it should.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use portcullis_tests::certs::{Authority, Leaf};
use portcullis_tests::client::programs::{python_with, run_json};
use portcullis_tests::client::{Connection, Request};
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::{Gateway, Setup};
use portcullis_tests::origin::{Gate, Origin, Script, Wire};
use serde_json::{Value, json};

const ASK: &str = "GET /chat HTTP/1.1\r\nHost: test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Protocol: chat, superchat\r\n\
                   Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";
const SWITCH: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\
                        Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
/// A close frame with status 1001, unmasked.
const GOING_AWAY: [u8; 4] = [0x88, 2, 0x03, 0xE9];

/// Answers plain requests plainly; switches for others and does as it is told then.
struct Switched<F>(F);

impl<F: Fn(&mut Wire) -> io::Result<()> + Send + Sync + 'static> Script for Switched<F> {
    fn serve(&self, wire: &mut Wire) -> io::Result<()> {
        while let Some(request) = wire.request()? {
            if request.head.has_token("connection", "upgrade") {
                return (self.0)(wire);
            }
            wire.answer("200 OK", "", b"plain")?;
        }
        Ok(())
    }
}

fn echo(wire: &mut Wire) -> io::Result<()> {
    wire.send(SWITCH)?;
    loop {
        let bytes = wire.some()?;
        if bytes.is_empty() {
            return Ok(());
        }
        wire.send(&bytes)?;
    }
}

/// Switches and sends `bytes` at once, then waits for the end.
fn says(bytes: &'static [u8]) -> impl Fn(&mut Wire) -> io::Result<()> {
    move |wire| {
        wire.send(&[SWITCH, bytes].concat())?;
        wire.drain()
    }
}

fn gateway(origin: &Origin, timeouts: &str) -> Gateway {
    Gateway::start(&Setup::proxy(origin.addr(), "").timeouts(&format!("drain_delay: 0s{timeouts}")))
}

#[track_caller]
fn upgraded(addr: SocketAddr) -> Connection {
    let mut connection = Connection::open(addr);
    connection.send(ASK).response().expect(101);
    connection
}

#[test]
fn heads_pass_both_ways_and_bytes_are_exact() {
    let origin = Origin::start(Switched(echo));
    let gateway = gateway(&origin, "");
    let mut connection = Connection::open(gateway.addr());
    let response = connection.send(ASK).response().expect(101);
    for (name, value) in [
        ("upgrade", "websocket"),
        ("connection", "upgrade"),
        ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        ("sec-websocket-protocol", "chat"),
        ("sec-websocket-extensions", "permessage-deflate"),
    ] {
        assert_eq!(response.header(name), value, "{:?}", response.head.fields);
    }
    assert!(!response.has("content-length") && !response.has("transfer-encoding"));
    let asked = origin.last().head;
    for (name, value) in [
        ("upgrade", "websocket"),
        ("connection", "upgrade"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "chat, superchat"),
        ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits"),
        ("x-forwarded-for", "127.0.0.1"),
    ] {
        assert_eq!(asked.all(name), [value], "{:?}", asked.fields);
    }
    let every: Vec<u8> = (0..=255).cycle().take(10_000).collect();
    for len in [1, 2, 100, 4095, 4096, 4097, 10_000] {
        connection.send(&every[..len]);
        assert_eq!(connection.take(len), &every[..len]);
    }
    let open = || gateway.metrics().get("portcullis_tunnels_active", &[]);
    assert_eq!(open(), 1.0);
    connection.finish_sending();
    connection.expect_closed();
    let line = gateway.logged(|line| line["path"] == "/chat");
    let sent: usize = 1 + 2 + 100 + 4095 + 4096 + 4097 + 10_000;
    assert_eq!((&line["status"], &line["reason"]), (&json!(101), &Value::Null), "{line}");
    assert_eq!((&line["request_bytes"], &line["response_bytes"]), (&json!(sent), &json!(sent)), "{line}");
    eventually("no open tunnel", || holds(open() == 0.0, "still open"));
    assert_eq!(gateway.metrics().get("portcullis_tunnels_total", &[]), 1.0);
}

#[test]
fn bytes_that_come_with_a_head_are_not_lost() {
    let origin = Origin::start(Switched(|wire: &mut Wire| {
        wire.send(&[SWITCH, b"early from the origin"].concat())?;
        let mut got = Vec::new();
        while !got.ends_with(b"client") {
            got.extend(wire.some()?);
        }
        wire.send(&got)
    }));
    let gateway = gateway(&origin, "");
    let mut connection = Connection::open(gateway.addr());
    connection.send(format!("{ASK}early from the client")).response().expect(101);
    assert_eq!(connection.take(42), b"early from the originearly from the client");
    connection.finish_sending();
    connection.expect_closed();
}

#[test]
fn much_goes_both_ways_at_once() {
    let origin = Origin::start(Switched(echo));
    let gateway = gateway(&origin, "");
    let mut connection = upgraded(gateway.addr());
    let mut writer = connection.stream().try_clone().expect("a second handle");
    let block: Vec<u8> = (0..1_000_003_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let sent = block.clone();
    let sender = std::thread::spawn(move || (0..32).for_each(|_| writer.write_all(&sent).expect("sending")));
    for round in 0..32 {
        assert!(connection.take(block.len()) == block, "block {round} differs");
    }
    sender.join().expect("the sender");
    connection.finish_sending();
    connection.expect_closed();
}

#[test]
fn a_slow_reader_holds_the_sender_back() {
    const LEN: usize = 96 << 20;
    let origin = Origin::start(Switched(|wire: &mut Wire| {
        wire.send(SWITCH)?;
        (0..LEN >> 16).try_for_each(|_| wire.send(&[7; 1 << 16]))
    }));
    let gateway = gateway(&origin, "");
    let before = gateway.resident();
    let mut connection = upgraded(gateway.addr());
    std::thread::sleep(Duration::from_millis(700));
    let grown = gateway.resident().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes more");
    let mut left = LEN;
    while left > 0 {
        let part = left.min(1 << 20);
        assert!(connection.take(part).iter().all(|&byte| byte == 7));
        left -= part;
    }
    connection.expect_closed();
}

#[test]
fn an_end_is_passed_on_and_the_other_direction_goes_on() {
    let origin = Origin::start(Switched(|wire: &mut Wire| {
        wire.send(SWITCH)?;
        wire.drain()?;
        wire.send(b"after your end")
    }));
    let first = gateway(&origin, "");
    let mut connection = upgraded(first.addr());
    connection.send("bytes").finish_sending();
    assert_eq!(connection.take(14), b"after your end");
    connection.expect_closed();

    let origin = Origin::start(Switched(|wire: &mut Wire| {
        wire.send(SWITCH)?;
        wire.finish_sending()?;
        wire.drain()
    }));
    let second = gateway(&origin, "");
    let mut connection = upgraded(second.addr());
    connection.expect_closed();
    connection.send("after your end").finish_sending();
    eventually("the client's last bytes", || {
        holds(origin.raw(0).ends_with(b"after your end"), "not yet at the origin")
    });
}

#[test]
fn a_client_that_breaks_off_ends_the_upstream_connection() {
    let origin = Origin::start(Switched(echo));
    let gateway = gateway(&origin, "");
    let connection = upgraded(gateway.addr());
    connection.reset();
    eventually("no connection to the origin", || holds(origin.open() == 0, "still open"));
    let line = gateway.logged(|line| line["path"] == "/chat");
    assert_eq!(line["reason"], "client_aborted", "{line}");
}

#[test]
fn an_upstream_that_breaks_off_ends_the_clients_connection() {
    let origin = Origin::start(Switched(|wire: &mut Wire| {
        wire.send(SWITCH)?;
        wire.some()?;
        wire.reset()
    }));
    let gateway = gateway(&origin, "");
    let mut connection = upgraded(gateway.addr());
    connection.send("now");
    connection.expect_closed();
    let line = gateway.logged(|line| line["path"] == "/chat");
    assert_eq!(line["reason"], "upstream_reset", "{line}");
}

#[test]
fn silence_ends_a_tunnel_with_a_close_frame_and_any_traffic_keeps_it() {
    // Pings in one direction only, none answered.
    let pinging = Origin::start(Switched(|wire: &mut Wire| {
        wire.send(SWITCH)?;
        for _ in 0..8 {
            std::thread::sleep(Duration::from_millis(150));
            wire.send(&[0x89, 0])?;
        }
        wire.drain()
    }));
    let first = gateway(&pinging, ", tunnel_idle: 500ms");
    let mut connection = upgraded(first.addr());
    assert_eq!(connection.take(16), [0x89, 0].repeat(8));
    assert_eq!(connection.take(4), GOING_AWAY);
    connection.expect_closed();

    let silent = Origin::start(Switched(says(b"")));
    let second = gateway(&silent, ", tunnel_idle: 500ms");
    let mut connection = upgraded(second.addr());
    for _ in 0..8 {
        assert!(!connection.readable_within(Duration::from_millis(150)), "cut while pinging");
        connection.send([0x89, 0x80, 1, 2, 3, 4]);
    }
    let pinged = Instant::now();
    assert_eq!(connection.take(4), GOING_AWAY);
    assert!(pinged.elapsed() >= Duration::from_millis(450), "{:?}", pinged.elapsed());
    connection.send([0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE9]);
    connection.expect_closed();
    let line = second.logged(|line| line["path"] == "/chat");
    assert_eq!(line["reason"], "tunnel_idle", "{line}");
    eventually("the client's answer", || {
        holds(silent.raw(0).ends_with(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE9]), "not at the origin")
    });
    eventually("no connection to the origin", || holds(silent.open() == 0, "still open"));
}

#[test]
fn no_close_frame_is_put_into_a_frame_or_behind_a_close() {
    for bytes in [&b"\x82\x05ab"[..], b"\x82", b"\x82\x7e\x01", b"\x88\x02\x03\xe8"] {
        let origin = Origin::start(Switched(says(bytes)));
        let gateway = gateway(&origin, ", tunnel_idle: 200ms");
        let mut connection = upgraded(gateway.addr());
        assert_eq!(connection.take(bytes.len()), bytes);
        connection.expect_closed();
    }
}

#[test]
fn a_drain_ends_tunnels_with_a_close_frame() {
    let origin = Origin::start(Switched(echo));
    let gateway = gateway(&origin, ", drain: 20s");
    let mut answering = upgraded(gateway.addr());
    let mut ignoring = upgraded(gateway.addr());
    answering.send([0x81, 0x80, 0, 0, 0, 0]);
    answering.take(6);
    gateway.signal("TERM");
    assert_eq!(answering.take(4), GOING_AWAY);
    answering.send([0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE9]).finish_sending();
    answering.expect_closed();
    assert_eq!(ignoring.take(4), GOING_AWAY);
    ignoring.expect_closed();
    let start = Instant::now();
    let mut gateway = gateway;
    assert!(gateway.wait_end().success(), "{}", gateway.stderr());
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    let line = gateway.logged(|line| line["path"] == "/chat");
    assert_eq!(line["reason"], "draining", "{line}");
}

#[test]
fn a_client_that_does_not_read_does_not_delay_the_end() {
    let origin = Origin::start(Switched(|wire: &mut Wire| {
        wire.send(SWITCH)?;
        while wire.send(&[0; 1 << 16]).is_ok() {}
        Ok(())
    }));
    let gateway = gateway(&origin, ", drain: 20s");
    let _stuck = upgraded(gateway.addr());
    std::thread::sleep(Duration::from_millis(300));
    let start = Instant::now();
    gateway.stop();
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    eventually("no connection to the origin", || holds(origin.open() == 0, "still open"));
}

#[test]
fn a_drain_waits_for_the_end_of_a_frame() {
    let gate = Gate::shut();
    let opened = gate.clone();
    let origin = Origin::start(Switched(move |wire: &mut Wire| {
        wire.send(&[SWITCH, b"\x82\x06abc"].concat())?;
        opened.pass();
        wire.send(b"def\x82\x03ghi\x82\x05par")?;
        wire.drain()
    }));
    let gateway = gateway(&origin, ", drain: 20s");
    let mut connection = upgraded(gateway.addr());
    assert_eq!(connection.take(5), b"\x82\x06abc");
    gateway.signal("TERM");
    // After the grace of a second, and within the two that the tunnel has then.
    std::thread::sleep(Duration::from_millis(1900));
    gate.open();
    // Whole frames that were received are sent.
    assert_eq!(connection.take(8), b"def\x82\x03ghi");
    assert_eq!(connection.take(4), GOING_AWAY);
    connection.expect_closed();
    let mut gateway = gateway;
    assert!(gateway.wait_end().success());
}

#[test]
fn a_tunnels_connections_serve_nothing_else() {
    let origin = Origin::start(Switched(echo));
    let gateway = Gateway::start(&Setup::proxy(origin.addr(), "").shards(1));
    assert_eq!(Request::get("/").send(gateway.addr()).expect(200).text(), "plain");
    let mut connection = upgraded(gateway.addr());
    assert_eq!(origin.connections(), 1, "an idle connection can become a tunnel");
    let request = Request::get("/inside").keep().bytes();
    connection.send(&request);
    assert_eq!(connection.take(request.len()), request, "what looks like a request is none");
    Request::get("/").send(gateway.addr()).expect(200);
    assert_eq!(origin.connections(), 2);
    connection.finish_sending();
    connection.expect_closed();
    for _ in 0..3 {
        Request::get("/").send(gateway.addr()).expect(200);
    }
    assert_eq!((origin.connections(), origin.open()), (2, 1));
}

#[test]
fn another_answer_is_an_ordinary_response() {
    let origin = Origin::start(Switched(|wire: &mut Wire| {
        wire.answer("426 Upgrade Required", "Sec-WebSocket-Version: 13\r\n", b"not like this")?;
        while wire.request()?.is_some() {
            wire.answer("200 OK", "", b"plain again")?;
        }
        Ok(())
    }));
    let gateway = Gateway::start(&Setup::proxy(origin.addr(), "").shards(1));
    let mut connection = Connection::open(gateway.addr());
    let response = connection.send(ASK).response().expect(426);
    assert_eq!((response.text().as_str(), response.header("sec-websocket-version")), ("not like this", "13"));
    connection.send(Request::get("/").keep().bytes());
    assert_eq!(connection.response().expect(200).text(), "plain again");
    assert_eq!(origin.connections(), 1);
}

#[test]
fn only_a_websocket_is_asked_for() {
    let origin = Origin::start(Switched(echo));
    let gateway = gateway(&origin, "");
    let field = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    for request in [
        "GET /h2c HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
         HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
        "GET /not-listed HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
        &format!("POST /post HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n{field}\r\n"),
        &format!("GET /body HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n{field}\r\nabc"),
        &format!("GET /old HTTP/1.0\r\nHost: a\r\n{field}\r\n"),
    ] {
        let mut connection = Connection::open(gateway.addr());
        assert_eq!(connection.send(request).response().expect(200).text(), "plain", "{request}");
        let asked = origin.last().head;
        assert!(asked.get("upgrade").is_none() && asked.get("connection").is_none(), "{:?}", asked.fields);
    }
}

#[test]
fn a_websocket_may_be_asked_for_among_other_protocols_rfc9110_7_8() {
    let origin = Origin::start(Switched(echo));
    let gateway = gateway(&origin, "");
    for protocols in ["Upgrade: h2c, WebSocket", "Upgrade: h2c\r\nUpgrade: websocket"] {
        let mut connection = Connection::open(gateway.addr());
        let response = connection.send(ASK.replace("Upgrade: WebSocket", protocols)).response().expect(101);
        assert_eq!(response.header("upgrade"), "websocket", "{protocols}");
        assert_eq!(origin.last().head.all("upgrade"), ["websocket"], "{protocols}");
        connection.send("x");
        assert_eq!(connection.take(1), b"x");
    }
}

#[test]
fn another_version_is_told_which_is_spoken_rfc6455_4_4() {
    let origin = Origin::start(Switched(echo));
    let gateway = gateway(&origin, "");
    let mut connection = Connection::open(gateway.addr());
    let response = connection.send(ASK.replace("Version: 13", "Version: 8")).response().expect(426);
    assert_eq!((response.header("upgrade"), response.header("sec-websocket-version")), ("websocket", "13"));
    assert!(response.head.has_token("connection", "upgrade"), "{:?}", response.head.fields);
}

#[test]
fn a_101_that_switches_to_something_else_is_refused() {
    for fields in [
        "Upgrade: h2c\r\nConnection: Upgrade\r\n",
        "Upgrade: websocket\r\n",
        "Connection: Upgrade\r\n",
        "Upgrade: websocket\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n",
    ] {
        let origin = Origin::start(Switched(move |wire: &mut Wire| {
            wire.send(format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n").as_bytes())?;
            wire.drain()
        }));
        let gateway = gateway(&origin, "");
        let mut connection = Connection::open(gateway.addr());
        connection.send(ASK).response().expect(502);
        let line = gateway.logged(|line| line["path"] == "/chat");
        assert_eq!(line["reason"], "upstream_protocol_error", "{fields:?}: {line}");
    }
}

#[test]
fn phases_run_before_the_upgrade() {
    let origin = Origin::start(Switched(echo));
    let body = format!(
        "services:\n  - name: web\n    url: http://{}\n    routes:\n      - name: all\n        paths: [/]\n        \
         strip_path: false\n        plugins:\n          - {{name: key-auth, config: {{key_names: [k]}}}}\n          \
         - name: response-transformer\n            config: {{add: {{headers: ['X-Added: yes']}}}}\n\
         consumers:\n  - {{username: ann, keyauth_credentials: [{{key: ann-key}}]}}\n",
        origin.addr()
    );
    let gateway = Gateway::start(&Setup::new(body));
    let mut connection = Connection::open(gateway.addr());
    connection.send(ASK).response().expect(401);
    assert_eq!(origin.requests(), 0);
    let response = connection.send(ASK.replace("/chat", "/chat?k=ann-key")).response().expect(101);
    assert_eq!(response.header("x-added"), "yes");
    connection.send("through");
    assert_eq!(connection.take(7), b"through");
    connection.finish_sending();
    connection.expect_closed();
    let line = gateway.logged(|line| line["status"] == 101);
    assert_eq!(line["consumer"], "ann", "{line}");
}

/// The Python origin, which ends with its guard.
struct Library {
    child: Child,
    lines: BufReader<ChildStdout>,
    port: u16,
}

impl Library {
    fn start(leaf: Option<&Leaf>) -> Option<Library> {
        let mut command = python_with("websockets", "websocket_origin.py")?;
        if let Some(leaf) = leaf {
            command.arg(&leaf.cert).arg(&leaf.key);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("Python starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut library = Library { child, lines, port: 0 };
        let line = library.line();
        library.port = line.strip_prefix("port ").and_then(|port| port.parse().ok()).expect("a port");
        Some(library)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line");
        line.trim().to_owned()
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[track_caller]
fn converse(library: &mut Library, order: &Value) {
    let Some(mut client) = python_with("websockets", "websocket_client.py") else { return };
    let told = run_json(client.arg(order.to_string()));
    let expected = json!({
        "subprotocol": "chat", "extensions": ["permessage-deflate"], "text": "text: \u{fc}\u{20ac}",
        "fragmented": "in three pieces", "pong": true, "ponged": "ponged", "own": 4000, "theirs": [4001, true],
    });
    assert_eq!(told, expected);
    assert_eq!(library.line(), "closed 4000");
    assert_eq!(library.line(), "closed 4001");
}

#[test]
fn a_library_on_both_sides() {
    let Some(mut library) = Library::start(None) else { return };
    let origin = SocketAddr::from(([127, 0, 0, 1], library.port));
    let gateway = Gateway::start(&Setup::proxy(origin, ""));
    converse(&mut library, &json!({ "address": gateway.addr().to_string() }));
}

#[test]
fn a_library_on_both_sides_over_tls_on_both() {
    let dir = tempfile::TempDir::new().expect("a folder");
    let authority = Authority::new(dir.path());
    let leaf = authority.leaf(&["localhost"]);
    let Some(mut library) = Library::start(Some(&leaf)) else { return };
    let (cert, key, ca) = (leaf.cert.display(), leaf.key.display(), authority.ca_file());
    let body = format!(
        "certificates:\n  - {{name: one, cert_file: '{cert}', key_file: '{key}'}}\n\
         ca_certificates:\n  - name: ours\n    cert: ${{file:{}}}\n\
         services:\n  - name: web\n    url: https://localhost:{}\n    ca_certificates: [ours]\n    routes:\n      \
         - {{name: all, paths: [/]}}\n",
        ca.display(),
        library.port
    );
    let gateway = Gateway::start(&Setup::new(body).tls("{certificates: [one]}"));
    let address = gateway.tls_addr().to_string();
    converse(&mut library, &json!({ "address": address, "ca": ca.display().to_string() }));
    drained_by_library(gateway, &mut library, &json!({ "address": address, "ca": ca, "wait": true }));
}

/// The library takes the close frame of a drain for one, and its answer reaches the origin.
fn drained_by_library(gateway: Gateway, library: &mut Library, order: &Value) {
    let Some(mut client) = python_with("websockets", "websocket_client.py") else { return };
    let mut client = client.arg(order.to_string()).stdout(Stdio::piped()).spawn().expect("Python starts");
    let mut lines = BufReader::new(client.stdout.take().expect("a pipe"));
    let mut line = String::new();
    lines.read_line(&mut line).expect("a line");
    assert_eq!(line, "open\n");
    gateway.stop();
    let mut told = String::new();
    lines.read_to_string(&mut told).expect("what it saw");
    assert!(client.wait().expect("its end").success());
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(told["end"], json!([1001, true]));
    assert_eq!(library.line(), "closed 1001");
}
