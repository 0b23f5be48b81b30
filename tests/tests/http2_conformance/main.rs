//! RFC 9113 and RFC 7541, frame by frame: what the gateway must take, refuse, ignore and answer.
//!
//! Each test is one section, and each case one sentence of it. A connection error is a GOAWAY with the code and the end of
//! the connection; a stream error is a RST_STREAM with the code, after which the connection goes on. Where the RFC leaves
//! a choice of codes, all are listed.

mod messages;

use std::sync::Arc;
use std::time::Duration;

use portcullis_tests::gateway::{Gateway, Setup, Shared};
use portcullis_tests::h2::{
    Frame, H2, PREFACE, Silence, block, code, flag, frame, get, kind, post, pseudo, reset, settings,
    window_update,
};
use portcullis_tests::origin::{Echo, Origin, Script, Wire};

struct Suite {
    gateway: Gateway,
    _origin: Origin,
}

fn suite() -> Arc<Suite> {
    static SUITE: Shared<Suite> = Shared::new();
    SUITE.get(|| {
        let origin = Origin::start(Echo::default());
        let gateway = Gateway::start(&Setup::proxy(origin.addr(), "").h2c());
        Suite { gateway, _origin: origin }
    })
}

const END: u8 = flag::END_HEADERS | flag::END_STREAM;

/// What a case ends with.
enum Expect<'a> {
    /// The connection ends with one of these codes.
    Connection(&'a [u32]),
    /// The stream is reset with one of these codes (or the connection, which every stream error may become), and where
    /// it is only the stream, the connection goes on.
    Stream(u32, &'a [u32]),
    /// Nothing: the connection goes on.
    Alive,
    /// A response with this status.
    Status(u32, u16),
}

/// Sends `bytes` on a new connection and checks what comes of it.
#[track_caller]
fn case(what: &str, bytes: &[u8], expected: &Expect<'_>) {
    let suite = suite();
    let mut h2 = H2::open(suite.gateway.addr());
    h2.send(bytes);
    check(what, &mut h2, expected);
}

#[track_caller]
fn check(what: &str, h2: &mut H2, expected: &Expect<'_>) {
    match expected {
        Expect::Connection(codes) => {
            let said = h2.end();
            assert!(
                said.is_some_and(|said| codes.contains(&said)),
                "{what}: ended with {said:?}, not {codes:?}"
            );
        }
        Expect::Stream(stream, codes) => {
            let ended = |frame: &Frame| {
                frame.kind == kind::GOAWAY || (frame.kind == kind::RST_STREAM && frame.stream == *stream)
            };
            let end =
                h2.until(ended).unwrap_or_else(|| panic!("{what}: the connection ended without a word"));
            assert!(codes.contains(&end.code()), "{what}: {end:?}, not {codes:?}");
            if end.kind == kind::RST_STREAM {
                h2.expect_alive();
            }
        }
        Expect::Alive => h2.expect_alive(),
        Expect::Status(stream, status) => {
            assert_eq!(h2.status(*stream), *status, "{what}");
            h2.expect_alive();
        }
    }
}

fn headers(flags: u8, stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(kind::HEADERS, flags, stream, &block(fields))
}

/// A GET whose head has further fields.
fn get_with(stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    headers(END, stream, &[&pseudo("GET", "/"), fields].concat())
}

const PROTOCOL: Expect<'static> = Expect::Connection(&[code::PROTOCOL_ERROR]);
const FRAME_SIZE: Expect<'static> = Expect::Connection(&[code::FRAME_SIZE_ERROR]);
const MALFORMED: Expect<'static> = Expect::Stream(1, &[code::PROTOCOL_ERROR]);

#[test]
fn section_3_4_connection_preface() {
    let suite = suite();
    let mut h2 = H2::connect(suite.gateway.addr());
    h2.send(&[PREFACE, &settings(&[])].concat());
    assert_eq!(h2.frame().map(|frame| (frame.kind, frame.stream)), Some((kind::SETTINGS, 0)));

    // In pieces, as any bytes may come.
    let mut h2 = H2::connect(suite.gateway.addr());
    for byte in [PREFACE, &settings(&[]), &get(1, "/")].concat() {
        h2.send(&[byte]);
    }
    assert_eq!(h2.status(1), 200);

    // Another preface: GOAWAY may be left out, the end may not. (It may also be taken for HTTP/1 and refused as such.)
    let mut h2 = H2::connect(suite.gateway.addr());
    h2.send(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n");
    while let Ok(Some(_)) = h2.frame_within(Duration::from_secs(5)) {}

    let mut h2 = H2::connect(suite.gateway.addr());
    h2.send(&[PREFACE, &get(1, "/")].concat());
    check("a preface without SETTINGS", &mut h2, &PROTOCOL);
}

#[test]
fn section_4_1_frame_format() {
    case("a frame of unknown type", &frame(0xfa, 0, 0, b"anything"), &Expect::Alive);
    case(
        "a frame of unknown type on a stream",
        &[frame(0xfa, 0xff, 1, b"x"), get(1, "/")].concat(),
        &Expect::Status(1, 200),
    );
    case("undefined flags", &frame(kind::PING, 0xfe, 0, &[0; 8]), &Expect::Alive);
    case("a reserved bit", &frame(kind::PING, 0, 0x8000_0000, &[0; 8]), &Expect::Alive);
}

#[test]
fn section_4_2_frame_size() {
    let body = [post(1, "/"), frame(kind::DATA, flag::END_STREAM, 1, &[b'x'; 16_384])].concat();
    case("a DATA frame as large as allowed", &body, &Expect::Status(1, 200));
    let body = [post(1, "/"), frame(kind::DATA, flag::END_STREAM, 1, &[b'x'; 16_385])].concat();
    case("a DATA frame beyond", &body, &Expect::Stream(1, &[code::FRAME_SIZE_ERROR]));
    case("a HEADERS frame beyond", &frame(kind::HEADERS, END, 1, &[0; 16_385]), &FRAME_SIZE);
}

#[test]
fn section_4_3_header_compression() {
    let broken = frame(kind::HEADERS, END, 1, &[0x40, 0x0a, b'x']);
    case("a block that ends within a field", &broken, &Expect::Connection(COMPRESSION));
    let open = headers(flag::END_STREAM, 1, &pseudo("GET", "/"));
    case(
        "PRIORITY within a block",
        &[open.clone(), frame(kind::PRIORITY, 0, 1, &[0; 5])].concat(),
        &PROTOCOL,
    );
    case("another stream within a block", &[open.clone(), get(3, "/")].concat(), &PROTOCOL);
    case("a PING within a block", &[open.clone(), frame(kind::PING, 0, 0, &[0; 8])].concat(), &PROTOCOL);
    case("an unknown type within a block", &[open, frame(0xfa, 0, 0, &[])].concat(), &PROTOCOL);
}

const COMPRESSION: &[u32] = &[code::COMPRESSION_ERROR];

#[test]
fn section_5_1_stream_states() {
    case("DATA on an idle stream", &frame(kind::DATA, flag::END_STREAM, 1, b"x"), &PROTOCOL);
    case("RST_STREAM on an idle stream", &reset(1, code::CANCEL), &PROTOCOL);
    case("WINDOW_UPDATE on an idle stream", &window_update(1, 100), &PROTOCOL);
    case(
        "CONTINUATION on an idle stream",
        &frame(kind::CONTINUATION, 4, 1, &block(&pseudo("GET", "/"))),
        &PROTOCOL,
    );

    let closed = Expect::Stream(1, &[code::STREAM_CLOSED]);
    case("DATA on a half-closed stream", &[get(1, "/"), frame(kind::DATA, 1, 1, b"x")].concat(), &closed);
    // Headers on a stream that the client has ended are trailers out of place.
    let twice = Expect::Stream(1, &[code::STREAM_CLOSED, code::PROTOCOL_ERROR]);
    case("HEADERS on a half-closed stream", &[get(1, "/"), get(1, "/")].concat(), &twice);
    let more = frame(kind::CONTINUATION, flag::END_HEADERS, 1, &[]);
    case("CONTINUATION on a half-closed stream", &[get(1, "/"), more.clone()].concat(), &PROTOCOL);

    let gone = [post(1, "/"), reset(1, code::CANCEL)].concat();
    case("DATA after RST_STREAM", &[gone.clone(), frame(kind::DATA, 1, 1, b"x")].concat(), &closed);
    case(
        "HEADERS after RST_STREAM",
        &[gone.clone(), get(1, "/")].concat(),
        &Expect::Stream(1, &[code::STREAM_CLOSED, code::PROTOCOL_ERROR]),
    );
    case("CONTINUATION after RST_STREAM", &[gone, more].concat(), &PROTOCOL);

    let suite = suite();
    let mut h2 = H2::open(suite.gateway.addr());
    h2.send(&get(1, "/"));
    h2.response(1);
    h2.send(&frame(kind::DATA, flag::END_STREAM, 1, b"x"));
    check("DATA on a closed stream", &mut h2, &closed);
    let mut h2 = H2::open(suite.gateway.addr());
    h2.send(&get(1, "/"));
    h2.response(1);
    h2.send(&get(1, "/"));
    check(
        "HEADERS on a closed stream",
        &mut h2,
        &Expect::Stream(1, &[code::STREAM_CLOSED, code::PROTOCOL_ERROR]),
    );
    let mut h2 = H2::open(suite.gateway.addr());
    h2.send(&get(1, "/"));
    h2.response(1);
    h2.send(
        &[window_update(1, 10), reset(1, code::CANCEL), frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 0, 9])]
            .concat(),
    );
    check("what may come late on a closed stream", &mut h2, &Expect::Alive);
}

#[test]
fn section_5_1_1_stream_identifiers() {
    case("an even stream", &get(2, "/"), &PROTOCOL);
    case("a stream below the last", &[get(5, "/"), get(3, "/")].concat(), &PROTOCOL);
    case("streams may be left out", &get(1001, "/"), &Expect::Status(1001, 200));
}

#[test]
fn section_5_1_2_stream_concurrency() {
    let suite = suite();
    let mut h2 = H2::connect(suite.gateway.addr());
    h2.send(&[PREFACE, &settings(&[])].concat());
    let own = h2.frame().expect("SETTINGS");
    let parameters: Vec<(u16, u32)> = own
        .payload
        .chunks_exact(6)
        .map(|p| (u16::from_be_bytes([p[0], p[1]]), u32::from_be_bytes([p[2], p[3], p[4], p[5]])))
        .collect();
    assert!(parameters.contains(&(3, 100)), "MAX_CONCURRENT_STREAMS: {parameters:?}");
    assert!(parameters.contains(&(8, 1)), "ENABLE_CONNECT_PROTOCOL: {parameters:?}");
    h2.expect_alive();
    for stream in 0..101 {
        h2.send(&post(stream * 2 + 1, "/"));
    }
    check(
        "one stream too many",
        &mut h2,
        &Expect::Stream(201, &[code::REFUSED_STREAM, code::PROTOCOL_ERROR]),
    );
}

#[test]
fn section_5_3_priority_is_deprecated_but_checked() {
    let own = [&1u32.to_be_bytes()[..], &[255]].concat();
    let head = [own.clone(), block(&pseudo("GET", "/"))].concat();
    case(
        "HEADERS that depend on themselves",
        &frame(kind::HEADERS, END | flag::PRIORITY, 1, &head),
        &MALFORMED,
    );
    case(
        "PRIORITY that depends on itself",
        &[post(1, "/"), frame(kind::PRIORITY, 0, 1, &own)].concat(),
        &MALFORMED,
    );
    let other = [&[0x80, 0, 0, 9, 3][..], &block(&pseudo("GET", "/"))].concat();
    case(
        "HEADERS with a priority",
        &frame(kind::HEADERS, END | flag::PRIORITY, 1, &other),
        &Expect::Status(1, 200),
    );
    case(
        "PRIORITY on an idle stream",
        &[frame(kind::PRIORITY, 0, 7, &[0; 5]), get(9, "/")].concat(),
        &Expect::Status(9, 200),
    );
}

#[test]
fn section_5_4_errors_of_a_stream_leave_the_others_alone() {
    let suite = suite();
    let mut h2 = H2::open(suite.gateway.addr());
    h2.send(
        &[post(1, "/one"), get_with(3, &[("connection", "close")]), frame(kind::DATA, 1, 1, b"body")]
            .concat(),
    );
    let mut broken = None;
    let mut answered = None;
    while broken.is_none() || answered.is_none() {
        let frame = h2.frame().expect("the connection goes on");
        match (frame.kind, frame.stream) {
            (kind::RST_STREAM, 3) => broken = Some(frame.code()),
            (kind::HEADERS, 1) => answered = Some(portcullis_tests::h2::status_of(&frame.payload)),
            _ => {}
        }
    }
    assert_eq!((broken, answered), (Some(code::PROTOCOL_ERROR), Some(200)));
}

#[test]
fn section_5_5_extensions() {
    case("an extension frame", &frame(0xfe, 0x55, 3, &[1; 100]), &Expect::Alive);
    case("a setting of the future", &settings(&[(0x0a0a, 7), (0xff, 1)]), &Expect::Alive);
    case(
        "reserved types, one after the other",
        &(0..7).flat_map(|n| frame(0x0b + 0x1f * n, 0, 0, b"g")).collect::<Vec<_>>(),
        &Expect::Alive,
    );
}

#[test]
fn section_6_1_data() {
    case("DATA on stream 0", &[post(1, "/"), frame(kind::DATA, 1, 0, b"x")].concat(), &PROTOCOL);
    case(
        "padding longer than the frame",
        &[post(1, "/"), frame(kind::DATA, 1 | flag::PADDED, 1, &[5, b'x', 0])].concat(),
        &PROTOCOL,
    );
    case(
        "padding",
        &[post(1, "/"), frame(kind::DATA, 1 | flag::PADDED, 1, &[2, b'x', 0, 0])].concat(),
        &Expect::Status(1, 200),
    );
    case(
        "padding alone",
        &[post(1, "/"), frame(kind::DATA, flag::PADDED, 1, &[2, 0, 0]), frame(kind::DATA, 1, 1, &[])]
            .concat(),
        &Expect::Status(1, 200),
    );
}

#[test]
fn section_6_2_headers() {
    case("HEADERS on stream 0", &get(0, "/"), &PROTOCOL);
    let short =
        frame(kind::HEADERS, END | flag::PADDED, 1, &[&[200][..], &block(&[(":method", "GET")])].concat());
    case("padding longer than the frame", &short, &PROTOCOL);
    let padded = [&[3][..], &block(&pseudo("GET", "/")), &[0, 0, 0]].concat();
    case("padding", &frame(kind::HEADERS, END | flag::PADDED, 1, &padded), &Expect::Status(1, 200));
    case("an empty block", &frame(kind::HEADERS, END, 1, &[]), &MALFORMED);
}

#[test]
fn section_6_3_priority() {
    case("PRIORITY on stream 0", &frame(kind::PRIORITY, 0, 0, &[0; 5]), &PROTOCOL);
    let sizes = Expect::Stream(1, &[code::FRAME_SIZE_ERROR]);
    case("PRIORITY of four octets", &[post(1, "/"), frame(kind::PRIORITY, 0, 1, &[0; 4])].concat(), &sizes);
}

#[test]
fn section_6_4_rst_stream() {
    case("RST_STREAM on stream 0", &reset(0, code::CANCEL), &PROTOCOL);
    case(
        "RST_STREAM of three octets",
        &[post(1, "/"), frame(kind::RST_STREAM, 0, 1, &[0; 3])].concat(),
        &FRAME_SIZE,
    );
    case(
        "RST_STREAM",
        &[post(1, "/"), reset(1, code::CANCEL), get(3, "/")].concat(),
        &Expect::Status(3, 200),
    );
}

#[test]
fn section_6_5_settings() {
    case("an acknowledgement with a payload", &frame(kind::SETTINGS, flag::ACK, 0, &[0; 6]), &FRAME_SIZE);
    case("SETTINGS on a stream", &frame(kind::SETTINGS, 0, 1, &[]), &PROTOCOL);
    case("SETTINGS of five octets", &frame(kind::SETTINGS, 0, 0, &[0; 5]), &FRAME_SIZE);
    case("ENABLE_PUSH of 2", &settings(&[(2, 2)]), &PROTOCOL);
    let window = Expect::Connection(&[code::FLOW_CONTROL_ERROR, code::PROTOCOL_ERROR]);
    case("INITIAL_WINDOW_SIZE of 2^31", &settings(&[(4, 0x8000_0000)]), &window);
    case("MAX_FRAME_SIZE below 2^14", &settings(&[(5, 16_383)]), &PROTOCOL);
    case("MAX_FRAME_SIZE above 2^24 - 1", &settings(&[(5, 1 << 24)]), &PROTOCOL);
    case(
        "every setting at its bound",
        &settings(&[(1, 0), (2, 0), (3, 0), (4, 0x7fff_ffff), (5, (1 << 24) - 1), (6, 0xffff_ffff)]),
        &Expect::Alive,
    );
    case("an unknown setting", &settings(&[(0xff, 1)]), &Expect::Alive);

    let suite = suite();
    let mut h2 = H2::open(suite.gateway.addr());
    h2.send(&settings(&[(4, 100)]));
    assert!(h2.until(|frame| frame.kind == kind::SETTINGS && frame.has(flag::ACK)).is_some());
    // Values of one frame hold in their order: the last counts.
    h2.send(&[settings(&[(4, 100), (4, 1)]), get(1, "/")].concat());
    let data = h2.until(|frame| frame.kind == kind::DATA && frame.stream == 1).expect("DATA");
    assert_eq!(data.payload.len(), 1);
}

#[test]
fn section_6_6_and_8_4_push_promise() {
    let promise = [&2u32.to_be_bytes()[..], &block(&pseudo("GET", "/"))].concat();
    case(
        "PUSH_PROMISE of a client",
        &[post(1, "/"), frame(kind::PUSH_PROMISE, 4, 1, &promise)].concat(),
        &PROTOCOL,
    );
}

#[test]
fn section_6_7_ping() {
    case("PING", &[], &Expect::Alive);
    case("PING on a stream", &frame(kind::PING, 0, 1, &[0; 8]), &PROTOCOL);
    case("PING of seven octets", &frame(kind::PING, 0, 0, &[0; 7]), &FRAME_SIZE);
    let suite = suite();
    let mut h2 = H2::open(suite.gateway.addr());
    h2.send(&frame(kind::PING, flag::ACK, 0, b"nothing!"));
    h2.send(&frame(kind::PING, 0, 0, b"question"));
    let answer = h2.until(|frame| frame.kind == kind::PING).expect("an answer");
    assert_eq!(answer.payload, b"question", "an answer is not answered");
}

#[test]
fn section_6_8_goaway() {
    case("GOAWAY on a stream", &frame(kind::GOAWAY, 0, 1, &[0; 8]), &PROTOCOL);
    case("GOAWAY of four octets", &frame(kind::GOAWAY, 0, 0, &[0; 4]), &FRAME_SIZE);
    let suite = suite();
    let mut h2 = H2::open(suite.gateway.addr());
    h2.send(&[post(1, "/"), frame(kind::GOAWAY, 0, 0, &[0; 8]), frame(kind::DATA, 1, 1, b"x")].concat());
    assert_eq!(h2.response(1).0, 200, "a client that leaves gets its last response");
    assert!(h2.end().is_none_or(|said| said == code::NO_ERROR));
}

#[test]
fn section_6_9_window_update() {
    case("an increment of 0", &window_update(0, 0), &PROTOCOL);
    case("an increment of 0 on a stream", &[post(1, "/"), window_update(1, 0)].concat(), &MALFORMED);
    case("WINDOW_UPDATE of three octets", &frame(kind::WINDOW_UPDATE, 0, 0, &[0; 3]), &FRAME_SIZE);
    let most = 0x7fff_ffff;
    let beyond = Expect::Connection(&[code::FLOW_CONTROL_ERROR]);
    case(
        "a window of the connection above 2^31 - 1",
        &[window_update(0, most), window_update(0, most)].concat(),
        &beyond,
    );
    let beyond = Expect::Stream(1, &[code::FLOW_CONTROL_ERROR]);
    case(
        "a window of a stream above 2^31 - 1",
        &[post(1, "/"), window_update(1, most), window_update(1, most)].concat(),
        &beyond,
    );
}

#[test]
fn section_6_9_1_the_flow_control_window() {
    let suite = suite();
    let mut h2 = H2::open_with(suite.gateway.addr(), &[(4, 1)]);
    h2.send(&get(1, "/"));
    let data = h2.until(|frame| frame.kind == kind::DATA).expect("DATA");
    assert_eq!(data.payload.len(), 1, "a window of one octet takes one octet");
    assert!(!data.has(flag::END_STREAM));
    h2.send(&window_update(1, 100_000));
    assert!(h2.until(|frame| frame.kind == kind::DATA && frame.has(flag::END_STREAM)).is_some());
}

#[test]
fn section_6_9_2_the_initial_window() {
    let suite = suite();
    let mut h2 = H2::open_with(suite.gateway.addr(), &[(4, 0)]);
    h2.send(&get(1, "/"));
    h2.status(1);
    assert_eq!(
        h2.frame_within(Duration::from_millis(300)),
        Err(Silence),
        "a window of nothing takes nothing"
    );
    h2.send(&settings(&[(4, 1)]));
    let data = h2.until(|frame| frame.kind == kind::DATA).expect("DATA");
    assert_eq!(data.payload.len(), 1);

    // A window may become negative, and must be filled up to more than nothing.
    let mut h2 = H2::open_with(suite.gateway.addr(), &[(4, 3)]);
    h2.send(&get(1, "/"));
    let data = h2.until(|frame| frame.kind == kind::DATA).expect("DATA");
    assert_eq!(data.payload.len(), 3);
    h2.send(&[settings(&[(4, 2)]), window_update(1, 2)].concat());
    let data = h2.until(|frame| frame.kind == kind::DATA).expect("DATA");
    assert_eq!(data.payload.len(), 1);

    let most = 0x7fff_ffff;
    let beyond = Expect::Connection(&[code::FLOW_CONTROL_ERROR]);
    case(
        "a change that takes a window beyond 2^31 - 1",
        &[post(1, "/"), window_update(1, 0x7000_0000), settings(&[(4, most)])].concat(),
        &beyond,
    );
}

#[test]
fn section_6_9_we_are_held_to_our_window_too() {
    // The origin reads no body: once its socket and ours are full, the window is not opened again.
    let origin = Origin::start(Deaf);
    let gateway = Gateway::start(&Setup::proxy(origin.addr(), "        body_limit: 0\n").h2c());
    let mut h2 = H2::open(gateway.addr());
    h2.send(&post(1, "/"));
    let full = frame(kind::DATA, 0, 1, &[b'x'; 16_384]);
    for _ in 0..2000 {
        if h2.try_send(&full).is_err() {
            break;
        }
    }
    check("more than the window", &mut h2, &Expect::Stream(1, &[code::FLOW_CONTROL_ERROR]));
}

/// Reads the head of a request, and nothing of its body.
#[derive(Debug)]
struct Deaf;

impl Script for Deaf {
    fn serve(&self, wire: &mut Wire) -> std::io::Result<()> {
        wire.head()?;
        std::thread::park();
        Ok(())
    }
}
