//! The end of a WebSocket on a stream of HTTP/2 (RFC 8441): silence, pings, a drain.

use std::net::SocketAddr;
use std::time::Duration;

use portcullis_tests::client::background::Background;
use portcullis_tests::client::programs::python_with;
use portcullis_tests::gateway::{Gateway, Setup};
use portcullis_tests::h2::{H2, block, flag, frame, kind};
use serde_json::json;

/// A close frame with status 1001, unmasked.
const GOING_AWAY: [u8; 4] = [0x88, 2, 0x03, 0xE9];
/// An empty ping of a client.
const PING: [u8; 6] = [0x89, 0x80, 1, 2, 3, 4];

/// An origin of HTTP/1 that echoes every byte, and a gateway before it.
fn pair(timeouts: &str) -> Option<(Background, Gateway)> {
    let mut origin = Background::start(&mut python_with("h2", "upgrade_origin.py")?);
    let addr = SocketAddr::from(([127, 0, 0, 1], origin.port()));
    let setup = Setup::proxy(addr, "").h2c().timeouts(&format!("drain_delay: 0s, {timeouts}"));
    Some((origin, Gateway::start(&setup)))
}

/// A tunnel on stream 1.
#[track_caller]
fn tunnel(gateway: &Gateway) -> H2 {
    let mut h2 = H2::open(gateway.addr());
    let head = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":path", "/chat"),
        (":authority", "test"),
        ("sec-websocket-version", "13"),
    ];
    h2.send(&frame(kind::HEADERS, flag::END_HEADERS, 1, &block(&head)));
    assert_eq!(h2.status(1), 200);
    h2
}

/// What comes on stream 1 until it ends, and whether that was in good order.
#[track_caller]
fn rest(h2: &mut H2) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    loop {
        let frame = h2.until(|frame| frame.stream == 1).expect("the connection ended before the stream");
        match frame.kind {
            kind::DATA => bytes.extend_from_slice(&frame.payload),
            kind::RST_STREAM => return (bytes, frame.code() == 0),
            _ => continue,
        }
        if frame.has(flag::END_STREAM) {
            return (bytes, true);
        }
    }
}

#[test]
fn silence_ends_a_tunnel_on_a_stream_with_a_close_frame() {
    let Some((mut origin, gateway)) = pair("tunnel_idle: 500ms") else { return };
    let mut h2 = tunnel(&gateway);
    assert_eq!(rest(&mut h2), (GOING_AWAY.to_vec(), true));
    let line = gateway.logged(|line| line["path"] == "/chat");
    assert_eq!((&line["reason"], &line["http"]), (&json!("tunnel_idle"), &json!("2")), "{line}");
    assert_eq!((origin.line(), origin.line()), ("GET /chat HTTP/1.1".to_owned(), "closed".to_owned()));
    // It was a stream's end, not the connection's.
    h2.expect_alive();
}

#[test]
fn pings_keep_a_tunnel_on_a_stream() {
    let Some((_origin, gateway)) = pair("tunnel_idle: 2s") else { return };
    let mut h2 = tunnel(&gateway);
    for _ in 0..8 {
        std::thread::sleep(Duration::from_millis(500));
        h2.send(&frame(kind::DATA, 0, 1, &PING));
        // Echoed, as the origin does with whatever comes.
        let echoed =
            h2.until(|frame| frame.stream == 1 && frame.kind != kind::WINDOW_UPDATE).expect("an echo");
        assert_eq!((echoed.kind, echoed.payload), (kind::DATA, PING.to_vec()));
    }
    assert_eq!(rest(&mut h2), (GOING_AWAY.to_vec(), true));
}

#[test]
fn a_drain_ends_a_tunnel_on_a_stream_with_a_close_frame() {
    let Some((_origin, mut gateway)) = pair("drain: 20s") else { return };
    let mut h2 = tunnel(&gateway);
    gateway.signal("TERM");
    assert_eq!(rest(&mut h2), (GOING_AWAY.to_vec(), true));
    drop(h2);
    assert!(gateway.wait_end().success(), "{}", gateway.stderr());
    let line = gateway.logged(|line| line["path"] == "/chat");
    assert_eq!(line["reason"], "draining", "{line}");
}
