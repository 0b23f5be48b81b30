//! gRPC-Web to gRPC: binary and text, from clients of both versions of HTTP, refusals included.

use std::io;
use std::net::SocketAddr;

use portcullis_tests::client::Connection;
use portcullis_tests::client::background::Background;
use portcullis_tests::client::programs::{python_with, run_json};
use portcullis_tests::gateway::{Gateway, Setup};
use portcullis_tests::h2::{H2, block, flag, frame, kind, pseudo};
use portcullis_tests::origin::{Origin, Script, Wire};
use serde_json::{Value, json};

/// A server, and a gateway before it; `below` is YAML at the indentation of the route's keys.
fn pair(below: &str) -> Option<(Background, Gateway)> {
    let mut origin = Background::start(&mut python_with("grpc_reflection", "grpc_origin.py")?);
    let addr = SocketAddr::from(([127, 0, 0, 1], origin.port()));
    let setup = Setup::new(format!(
        "services:\n  - name: calls\n    url: grpc://{addr}\n    routes:\n      - name: all\n        paths: [/]\n        \
         strip_path: false\n{below}"
    ));
    Some((origin, Gateway::start(&setup.h2c())))
}

#[track_caller]
fn calls(gateway: &Gateway, wire: &str, version: &str) -> Value {
    let mut client = python_with("httpx", "grpc_web_client.py").expect("found for the origin");
    run_json(client.args([&gateway.addr().to_string(), wire, version]))
}

#[test]
fn binary_and_text_over_both_versions() {
    let Some((_origin, gateway)) = pair("        plugins: [{name: grpc-web}]\n") else { return };
    // httpx speaks HTTP/2 over TLS only; raw frames are below.
    for wire in ["binary", "text"] {
        let told = calls(&gateway, wire, "1");
        assert_eq!(told["unary"]["messages"], json!(["hello"]), "{wire}: {told}");
        // As the server has it, which says `application/grpc` and no more.
        assert_eq!(told["unary"]["type"], short(wire));
        assert_eq!(told["unary"]["origin"], "*");
        let trailers = &told["unary"]["trailers"];
        assert_eq!((&trailers["grpc-status"], &trailers["x-trailing"]), (&json!("0"), &json!("t")), "{told}");
        assert_eq!(told["large"], json!([300_000, "0"]));
        assert_eq!(told["stream"]["messages"], json!(["0", "1", "2"]));
        assert_eq!(
            (&told["stream"]["status"], &told["stream"]["trailers"]["grpc-status"]),
            (&json!(200), &json!("0"))
        );
        let failed = &told["fail"]["trailers"];
        assert_eq!(
            (&failed["grpc-status"], &failed["grpc-message"]),
            (&json!("5"), &json!("not here")),
            "{told}"
        );
        assert_eq!(told["deadline"]["trailers"]["grpc-status"], "4", "{told}");
        assert_eq!(
            (&told["deadline"]["status"], &told["deadline"]["type"]),
            (&json!(200), &json!(short(wire))),
            "{told}"
        );
    }
}

/// The media type of answers.
fn short(wire: &str) -> &'static str {
    if wire == "text" { "application/grpc-web-text" } else { "application/grpc-web" }
}

#[test]
fn a_stream_of_http2_carries_it_too() {
    let Some((_origin, gateway)) = pair("") else { return };
    let Some(mut python) = python_with("h2", "h2_frames.py") else { return };
    let addr = gateway.addr();
    python.args([&addr.ip().to_string(), &addr.port().to_string(), "call", "/test.Echo/Unary"]);
    let told = run_json(python.arg("content-type: application/grpc-web+proto"));
    assert_eq!(
        (&told["status"], &told["ended"], &told["trailers"]),
        (&json!(200), &json!(true), &Value::Null),
        "{told}"
    );
    let body = told["body"].as_str().expect("a body");
    assert!(body.starts_with("\0\0\0\0\0\u{80}") && body.contains("grpc-status: 0\r\n"), "{told}");
}

/// One message of three bytes, then the first `more` bytes of another, and the end of the connection.
struct BreaksOff {
    more: usize,
}

impl Script for BreaksOff {
    fn serve(&self, wire: &mut Wire) -> io::Result<()> {
        if wire.request()?.is_some() {
            let body = [b"\0\0\0\0\x03one", &b"\0\0\0\0\x03two"[..self.more]].concat();
            let head =
                "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n";
            wire.send(format!("{head}{:x}\r\n", body.len()).as_bytes())?;
            wire.send(&[&body[..], b"\r\n"].concat())?;
        }
        Ok(())
    }
}

fn breaking(more: usize) -> (Origin, Gateway) {
    let origin = Origin::start(BreaksOff { more });
    let setup = Setup::proxy(origin.addr(), "        plugins: [{name: grpc-web}]\n");
    let gateway = Gateway::start(&setup.h2c());
    (origin, gateway)
}

/// The head of a call in HTTP/1, without a message.
const CALL: &str = "POST /test.Echo/Unary HTTP/1.1\r\nHost: test\r\nContent-Type: application/grpc-web\r\n\
                    Content-Length: 0\r\n\r\n";

#[test]
fn a_call_that_breaks_off_between_messages_is_told_so() {
    let (_origin, gateway) = breaking(0);
    let mut connection = Connection::open(gateway.addr());
    let response = connection.send(CALL).response().expect(200);
    let rest = response.body.bytes.strip_prefix(b"\0\0\0\0\x03one\x80").expect("the message, then trailers");
    assert!(String::from_utf8_lossy(rest).contains("grpc-status: 14\r\n"), "{rest:?}");
    let text = CALL.replace("grpc-web", "grpc-web-text");
    let response = Connection::open(gateway.addr()).send(text).response().expect(200);
    // In base64: the message, then `\x80\0\0`.
    assert!(response.text().starts_with("AAAAAANvbmU=gAAA"), "{}", response.text());

    let mut h2 = H2::open(gateway.addr());
    let fields =
        [pseudo("POST", "/test.Echo/Unary"), vec![("content-type", "application/grpc-web")]].concat();
    h2.send(&frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, &block(&fields)));
    let (status, body) = h2.response(1);
    assert_eq!(status, 200);
    let rest = body.strip_prefix(b"\0\0\0\0\x03one\x80").expect("the message, then trailers");
    assert!(String::from_utf8_lossy(rest).contains("grpc-status: 14\r\n"), "{rest:?}");
    let line = gateway.logged(|line| line["http"] == "2");
    assert_eq!(line["reason"], "upstream_truncated", "{line}");
}

#[test]
fn a_call_that_breaks_off_within_a_message_is_broken_off() {
    let (_origin, gateway) = breaking(6);
    let mut connection = Connection::open(gateway.addr());
    connection.send(CALL);
    connection.try_response(false).expect_err("trailers within a message would be read as its bytes");
}

#[test]
fn refusals_are_calls_that_failed() {
    let Some((_origin, gateway)) = pair("        plugins: [{name: key-auth}]\n") else { return };
    let told = calls(&gateway, "binary", "1");
    let unary = &told["unary"];
    assert_eq!((&unary["status"], &unary["trailers"]["grpc-status"]), (&json!(200), &json!("16")), "{told}");
    let line = gateway.logged(|line| line["reason"] == "unauthorized_missing");
    assert_eq!(line["status"], 200, "{line}");
}
