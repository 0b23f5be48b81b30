//! compression, option by option, and what must not be compressed.

use portcullis_tests::client::{Connection, Request, Response};
use portcullis_tests::gateway::{Gateway, Setup};
use portcullis_tests::origin::{Canned, Chunked, Echo, Gate, Origin};

/// A gateway with its origin.
struct Site {
    gateway: Gateway,
    _origin: Origin,
}

impl std::ops::Deref for Site {
    type Target = Gateway;

    fn deref(&self) -> &Gateway {
        &self.gateway
    }
}

fn start(origin: Origin, settings: &str) -> Site {
    let text = format!(
        "services: [{{name: s, url: '{}', routes: [{{paths: [/]}}], plugins: [{{name: compression, config: {settings}}}]}}]\n",
        origin.url()
    );
    Site { gateway: Gateway::start(&Setup::new(text)), _origin: origin }
}

fn text() -> &'static str {
    Box::leak("all work and no play makes a long text\n".repeat(100).into_boxed_str())
}

fn canned(fields: &'static str) -> Origin {
    Origin::start(Canned { status: "200 OK", fields, body: text() })
}

const PLAIN: &str = "Content-Type: text/plain\r\nETag: \"v1\"\r\nAccept-Ranges: bytes\r\n";

fn ask(gateway: &Gateway, accepts: &str) -> Response {
    Request::get("/").header("Accept-Encoding", accepts).send(gateway.addr()).expect(200)
}

fn decoded(response: &Response) -> String {
    use std::io::Read;
    let bytes = &*response.body.bytes;
    let mut out = String::new();
    match response.header("content-encoding") {
        "gzip" => flate2::read::GzDecoder::new(bytes).read_to_string(&mut out),
        "br" => brotli::Decompressor::new(bytes, 4096).read_to_string(&mut out),
        "zstd" => zstd::stream::read::Decoder::new(bytes).expect("zstd").read_to_string(&mut out),
        other => panic!("coded as {other:?}"),
    }
    .expect("a whole body");
    out
}

#[test]
fn compression_encodings() {
    let gateway = start(canned(PLAIN), "{}");
    for coding in ["gzip", "br", "zstd"] {
        let response = ask(&gateway, coding);
        assert_eq!(response.header("content-encoding"), coding);
        assert_eq!(decoded(&response), text());
        assert!(response.body.bytes.len() < text().len() / 4);
        assert_eq!((response.header("vary"), response.header("etag")), ("Accept-Encoding", "W/\"v1\""));
        assert!(!response.has("accept-ranges") && !response.has("content-length"));
    }
    assert_eq!(ask(&gateway, "gzip, zstd;q=0.5").header("content-encoding"), "gzip");
    let first = start(canned(PLAIN), "{encodings: [gzip, br]}");
    assert_eq!(ask(&first, "br, zstd, gzip").header("content-encoding"), "gzip");
    assert!(!ask(&first, "zstd").has("content-encoding"));
}

#[test]
fn compression_leaves_who_does_not_want_it() {
    let gateway = start(canned(PLAIN), "{}");
    let plain = ask(&gateway, "identity");
    assert_eq!(
        (plain.text().as_str(), plain.header("vary"), plain.header("etag")),
        (text(), "Accept-Encoding", "\"v1\"")
    );
    let silent = Request::get("/").send(gateway.addr()).expect(200);
    assert!(!silent.has("content-encoding"));
    let default = start(canned(PLAIN), "{default_encoding: br}");
    assert_eq!(decoded(&Request::get("/").send(default.addr()).expect(200)), text());
}

#[test]
fn compression_min_response_body_bytes() {
    assert!(!ask(&start(canned(PLAIN), "{min_response_body_bytes: 10000}"), "gzip").has("content-encoding"));
    assert!(ask(&start(canned(PLAIN), "{min_response_body_bytes: 1}"), "gzip").has("content-encoding"));
}

#[test]
fn compression_content_types() {
    assert!(
        !ask(&start(canned(PLAIN), "{excluded_content_types: [text/plain]}"), "gzip").has("content-encoding")
    );
    assert!(
        !ask(&start(canned(PLAIN), "{included_content_types: [text/css]}"), "gzip").has("content-encoding")
    );
    assert!(
        ask(&start(canned(PLAIN), "{included_content_types: [text/plain]}"), "gzip").has("content-encoding")
    );
    assert!(!ask(&start(canned("Content-Type: image/png\r\n"), "{}"), "gzip").has("content-encoding"));
}

#[test]
fn compression_never_against_no_transform_and_never_twice() {
    let untouchable = start(canned("Content-Type: text/plain\r\nCache-Control: no-transform\r\n"), "{}");
    assert_eq!(ask(&untouchable, "gzip").text(), text());
    let coded = start(canned("Content-Type: text/plain\r\nContent-Encoding: br\r\n"), "{}");
    let response = ask(&coded, "gzip");
    assert_eq!((response.head.all("content-encoding"), response.text().as_str()), (vec!["br"], text()));
}

#[test]
fn compression_of_answers_to_head_is_told() {
    let gateway = start(Origin::start(Echo::default()), "{min_response_body_bytes: 1}");
    let mut connection = Connection::open(gateway.addr());
    for _ in 0..2 {
        let head = Request::new("HEAD", "/")
            .header("Accept-Encoding", "gzip")
            .keep()
            .send_on(&mut connection)
            .expect(200);
        assert_eq!((head.header("content-encoding"), head.has("content-length")), ("gzip", false));
        let get =
            Request::get("/").header("Accept-Encoding", "gzip").keep().send_on(&mut connection).expect(200);
        assert!(decoded(&get).contains("\"method\""));
    }
}

#[test]
fn compression_keeps_trailers_and_chunks() {
    let origin = Origin::start(Chunked {
        fields: "Content-Type: text/plain\r\nTrailer: X-Sum\r\n",
        chunks: &["one ", "two ", "three"],
        extension: "",
        trailers: "X-Sum: 3\r\n",
    });
    let gateway = start(origin, "{}");
    let asked = Request::get("/")
        .header("Accept-Encoding", "gzip")
        .header("TE", "trailers")
        .header("Connection", "TE")
        .keep();
    let response = asked.send(gateway.addr()).expect(200);
    assert_eq!(decoded(&response), "one two three");
    assert_eq!(response.body.trailers, [("X-Sum".to_owned(), "3".to_owned())]);
}

#[test]
fn compression_after_json_edits() {
    let echo = Origin::start(Echo::default());
    let text = format!(
        "services: [{{name: s, url: '{}', routes: [{{paths: [/]}}], plugins: [{{name: compression, config: \
         {{min_response_body_bytes: 1}}}}, {{name: response-transformer, config: {{add: {{json: ['by:gateway']}}}}}}]}}]\n",
        echo.url()
    );
    let gateway = Gateway::start(&Setup::new(text));
    let response = ask(&gateway, "gzip");
    let json: serde_json::Value = serde_json::from_str(&decoded(&response)).expect("JSON");
    assert_eq!(json["by"], "gateway");
    let seen = json["headers"]
        .as_array()
        .expect("headers")
        .iter()
        .find(|pair| pair[0] == "Accept-Encoding")
        .cloned();
    assert_eq!(seen.expect("asked")[1], "identity", "what is to be edited must not come coded");
}

/// What the origin has sent reaches the client though more is to come.
#[test]
fn compression_flushes_when_the_origin_pauses() {
    use std::io::Read;
    let gate = Gate::shut();
    let origin = Origin::start(Pausing { gate: gate.clone() });
    let gateway = start(origin, "{}");
    let mut connection = Connection::open(gateway.addr());
    connection.send("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
    assert_eq!(connection.try_head().expect("a head").get("content-encoding"), Some("gzip"));
    // Chunks until the first line is in them; the gate is still shut.
    let (mut coded, mut first) = (Vec::new(), [0; 11]);
    while flate2::read::GzDecoder::new(&*coded).read_exact(&mut first).is_err() {
        let mut size = Vec::new();
        while !size.ends_with(b"\r\n") {
            size.extend(connection.take(1));
        }
        let size = usize::from_str_radix(String::from_utf8_lossy(&size).trim(), 16).expect("a size");
        coded.extend(connection.take(size));
        connection.take(2);
    }
    assert_eq!(&first, b"first line\n");
    gate.open();
}

/// Sends a line, and another once its gate opens.
struct Pausing {
    gate: Gate,
}

impl portcullis_tests::origin::Script for Pausing {
    fn serve(&self, wire: &mut portcullis_tests::origin::Wire) -> std::io::Result<()> {
        while wire.request()?.is_some() {
            wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nfirst line\n\r\n")?;
            self.gate.pass();
            wire.send(b"4\r\nlast\r\n0\r\n\r\n")?;
        }
        Ok(())
    }
}

/// Events are streamed as they are.
#[test]
fn compression_leaves_event_streams() {
    let gateway = start(canned("Content-Type: text/event-stream\r\n"), "{}");
    assert!(!ask(&gateway, "gzip").has("content-encoding"));
}
