//! Slow clients: those who drip are cut, those who are slow and honest are not, and nobody else notices.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use portcullis_tests::client::load::{Load, Reuse};
use portcullis_tests::client::{Connection, Request};
use portcullis_tests::eventually::{eventually, holds, within};
use portcullis_tests::gateway::{Gateway, Setup};
use portcullis_tests::h2::{H2, PREFACE, flag, frame, get, kind, post, settings, window_update};

use portcullis_tests::origin::{Bulk, Echo, Origin};

/// The same over HTTP/2.
fn limited_h2(origin: SocketAddr, limits: &str, timeouts: &str) -> Gateway {
    let setup = Setup::proxy(origin, "").with(&format!("limits: {{{limits}}}")).h2c();
    Gateway::start(&setup.timeouts(&format!("drain_delay: 0s, {timeouts}")))
}

fn limited(origin: SocketAddr, limits: &str, timeouts: &str) -> Gateway {
    let setup = Setup::proxy(origin, "").with(&format!("limits: {{{limits}}}"));
    Gateway::start(&setup.timeouts(&format!("drain_delay: 0s, {timeouts}")))
}

#[test]
fn a_body_that_drips_is_answered_408() {
    let origin = Origin::start(Echo::default());
    let gateway = limited(origin.addr(), "min_rate: 1KiB, min_rate_after: 1s", "request_body_idle: 2s");
    let mut connection = Connection::open(gateway.addr());
    connection.send("POST /drips HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\n");
    // A byte well within every pause that is allowed.
    let start = Instant::now();
    within(Duration::from_secs(20), "the end of patience", || {
        drop(connection.try_send(b"x"));
        holds(connection.readable_within(Duration::from_millis(100)), "still waiting")
    });
    assert!(start.elapsed() >= Duration::from_millis(900), "cut within the grace");
    connection.response().expect(408);
    connection.expect_closed();
    let line = gateway.logged(|line| line["path"] == "/drips");
    assert_eq!(line["reason"], "slow_request", "{line}");
    assert_eq!(origin.requests(), 0);
}

#[test]
fn an_upload_at_a_slow_and_honest_rate_passes() {
    let origin = Origin::start(Echo::default());
    let gateway = limited(origin.addr(), "min_rate: 1KiB, min_rate_after: 1s", "request_body_idle: 2s");
    let mut connection = Connection::open(gateway.addr());
    connection.send("POST /honest HTTP/1.1\r\nHost: test\r\nContent-Length: 12288\r\n\r\n");
    // Three times the least rate, in pieces with pauses: for longer than the grace.
    for _ in 0..8 {
        connection.send([b'x'; 1536]);
        assert!(
            !connection.readable_within(Duration::from_millis(500)) || connection.try_response(false).is_ok()
        );
    }
    let line = gateway.logged(|line| line["path"] == "/honest");
    assert_eq!(
        (line["status"].as_u64(), line["request_bytes"].as_u64()),
        (Some(200), Some(12_288)),
        "{line}"
    );
}

#[test]
fn a_slow_target_is_not_the_clients_slowness() {
    let origin = Origin::start(Lazy);
    let gateway =
        limited(origin.addr(), "min_rate: 1MiB, min_rate_after: 1s, body: 1GiB", "request_body_idle: 2s");
    let length = 24 << 20;
    let mut connection = Connection::open(gateway.addr());
    connection.send(format!("POST /up HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n"));
    connection.send(vec![b'x'; length]);
    connection.response().expect(200);
}

/// Takes a request body in, but for three seconds takes nothing.
struct Lazy;

impl portcullis_tests::origin::Script for Lazy {
    fn serve(&self, wire: &mut portcullis_tests::origin::Wire) -> std::io::Result<()> {
        if let Some(head) = wire.head()? {
            std::thread::sleep(Duration::from_secs(3));
            wire.finish(head)?;
            wire.answer("200 OK", "", b"at last")?;
        }
        Ok(())
    }
}

/// Reads with a small receive buffer, so that the other side notices how slowly.
fn small(addr: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a buffer size");
    socket.connect(&addr.into()).expect("a connection");
    socket.into()
}

#[test]
fn a_reader_that_drips_is_cut() {
    let origin = Origin::start(Bulk { len: 50 << 20, chunked: false });
    let gateway = limited(origin.addr(), "min_rate: 1KiB", "response_write: 2s");
    let mut stream = small(gateway.addr());
    stream.write_all(&Request::get("/unread").bytes()).expect("a request");
    let line = eventually("the end of patience", || {
        let mut byte = [0; 64];
        drop(stream.read(&mut byte));
        std::thread::sleep(Duration::from_millis(100));
        let lines = gateway.access_log();
        lines.into_iter().find(|line| line["path"] == "/unread").ok_or("still open".to_owned())
    });
    assert_eq!(line["reason"], "slow_reader", "{line}");
}

#[test]
fn a_slow_and_honest_reader_is_not_cut() {
    // The kernel asks for more only when a third of its buffer of megabytes is free, which takes longer than a pause may.
    let origin = Origin::start(Bulk { len: 16 << 20, chunked: false });
    let gateway = limited(origin.addr(), "min_rate: 1KiB", "response_write: 1s");
    let mut stream = small(gateway.addr());
    stream.write_all(&Request::get("/slowly").bytes()).expect("a request");
    let mut piece = vec![0; 32 * 1024];
    for _ in 0..50 {
        assert!(stream.read(&mut piece).expect("a slow reader is served") > 0, "cut");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(gateway.access_log().is_empty(), "over already");
    drop(stream);
    let line = gateway.logged(|line| line["path"] == "/slowly");
    assert_eq!(line["reason"], "client_aborted", "{line}");
}

/// Asks for a body on a stream whose windows never shut, so that only TCP holds it up.
fn ask_on_stream(addr: SocketAddr, path: &str) -> (H2, TcpStream) {
    let stream = small(addr);
    let mut h2 = H2::over(stream.try_clone().expect("a handle"));
    h2.send(&[PREFACE, &settings(&[(4, 1 << 30)]), &window_update(0, 1 << 30), &get(1, path)].concat());
    (h2, stream)
}

#[test]
fn a_slow_and_honest_reader_of_a_connection_of_streams_is_not_cut() {
    let origin = Origin::start(Bulk { len: 16 << 20, chunked: false });
    let gateway = limited_h2(origin.addr(), "min_rate: 1KiB", "response_write: 1s");
    let (mut h2, _stream) = ask_on_stream(gateway.addr(), "/slowly");
    for _ in 0..40 {
        let frame = h2.frame().expect("a slow reader is served");
        assert!(!matches!(frame.kind, kind::RST_STREAM | kind::GOAWAY), "{frame:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(gateway.access_log().is_empty(), "over already: {:?}", gateway.access_log());
    h2.expect_alive();
}

#[test]
fn a_reader_of_a_connection_of_streams_that_drips_is_cut_and_counted() {
    let origin = Origin::start(Bulk { len: 50 << 20, chunked: false });
    let gateway = limited_h2(origin.addr(), "min_rate: 1KiB", "response_write: 2s");
    let (_h2, mut stream) = ask_on_stream(gateway.addr(), "/unread");
    eventually("the end of patience", || {
        let mut byte = [0; 64];
        drop(stream.read(&mut byte));
        std::thread::sleep(Duration::from_millis(100));
        let counted = gateway.metrics().sum("portcullis_refusals_total", &[("reason", "slow_reader")]);
        holds(counted >= 1.0, "still open")
    });
    gateway.logged(|line| line["path"] == "/unread");
}

#[test]
fn a_reader_of_a_stream_that_drips_is_cut_and_an_honest_one_beside_it_is_not() {
    let origin = Origin::start(Bulk { len: 16 << 20, chunked: false });
    let gateway = limited_h2(origin.addr(), "min_rate: 1KiB", "response_write: 1s");
    let mut honest = H2::open_with(gateway.addr(), &[(4, 4096)]);
    let mut drips = H2::open_with(gateway.addr(), &[(4, 1024)]);
    honest.send(&get(1, "/slowly"));
    drips.send(&get(1, "/drips"));
    let (mut cut, mut octets) = (false, 0);
    // Each piece of the body takes an honest reader longer than a pause, at twenty times the rate that is asked.
    for round in 0.. {
        if cut && round >= 25 {
            break;
        }
        assert!(round < 400, "a reader that drips is not cut");
        std::thread::sleep(Duration::from_millis(100));
        honest.send(&[window_update(0, 2048), window_update(1, 2048)].concat());
        while let Ok(frame) = honest.frame_within(Duration::from_millis(1)) {
            let frame = frame.expect("the connection of the honest reader ended");
            assert_ne!(frame.kind, kind::RST_STREAM, "an honest reader was cut in round {round}");
            octets += if frame.kind == kind::DATA { frame.payload.len() } else { 0 };
        }
        drips.send(&[window_update(0, 1), window_update(1, 1)].concat());
        while let Ok(Some(frame)) = drips.frame_within(Duration::from_millis(1)) {
            cut |= frame.kind == kind::RST_STREAM;
        }
    }
    assert!(octets >= 4096 + 20 * 2048, "{octets}");
    let line = gateway.logged(|line| line["path"] == "/drips");
    assert_eq!(line["reason"], "slow_reader", "{line}");
    honest.expect_alive();
}

#[test]
fn a_body_on_a_stream_that_drips_is_cut_and_an_honest_one_beside_it_is_not() {
    let origin = Origin::start(Echo::default());
    let limits = "min_rate: 1KiB, min_rate_after: 1s";
    let gateway = limited_h2(origin.addr(), limits, "request_body_idle: 2s");
    let mut h2 = H2::open(gateway.addr());
    h2.send(&[post(1, "/drips"), post(3, "/honest")].concat());
    let (mut status, mut sent) = (None, 0);
    for round in 0..400 {
        if status.is_some() && round >= 30 {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
        // The connection is one, the streams are two.
        if status.is_none() {
            h2.send(&frame(kind::DATA, 0, 1, b"x"));
        }
        if sent < 200_000 {
            h2.send(&frame(kind::DATA, 0, 3, &[b'y'; 2000]));
            sent += 2000;
        }
        while let Ok(frame) = h2.frame_within(Duration::from_millis(1)) {
            let frame = frame.expect("the connection goes on");
            match (frame.stream, frame.kind) {
                (1, kind::HEADERS) => status = Some(portcullis_tests::h2::status_of(&frame.payload)),
                (3, kind::HEADERS | kind::RST_STREAM) => panic!("the honest body was cut: {frame:?}"),
                _ => {}
            }
        }
    }
    assert_eq!(status, Some(408));
    h2.send(&frame(kind::DATA, flag::END_STREAM, 3, b"!"));
    assert_eq!(h2.status(3), 200);
    assert_eq!(origin.last().body.len, sent + 1);
    let line = gateway.logged(|line| line["path"] == "/drips");
    assert_eq!(line["reason"], "slow_request", "{line}");
}

/// Exchanges that ended otherwise than a slow or an honest client's should: path, status and reason.
fn others(gateway: &Gateway) -> Vec<String> {
    let expected = |line: &serde_json::Value| match line["path"].as_str() {
        Some("/honest") => line["status"] == 200,
        Some("/body") => line["reason"] == "slow_request",
        Some("/bulk") => line["reason"] == "slow_reader",
        _ => line["reason"] == "request_timeout",
    };
    let lines = gateway.access_log();
    lines.iter().filter(|line| !expected(line)).map(ToString::to_string).take(5).collect()
}

#[test]
fn a_thousand_slow_clients_beside_honest_ones() {
    const EACH: usize = 334;
    const REASONS: [&str; 3] = ["request_timeout", "slow_request", "slow_reader"];
    let origin = Origin::start(Echo::default());
    let bulk = Origin::start(Bulk { len: 50 << 20, chunked: false });
    let body = format!(
        "services:\n  - name: echo\n    url: http://{}\n    routes:\n      - {{name: echo, paths: [/], strip_path: false}}\n  \
         - name: bulk\n    url: http://{}\n    routes:\n      - {{name: bulk, paths: [/bulk], strip_path: false}}\n",
        origin.addr(),
        bulk.addr()
    );
    let setup = Setup::new(body).with("limits: {min_rate: 1KiB, min_rate_after: 2s}");
    let gateway = Gateway::start(&setup.timeouts(
        "drain_delay: 0s, request_head: 3s, request_body_idle: 3s, response_write: 3s, keep_alive: 60s",
    ));
    let request = Request::get("/honest").keep().bytes();
    let load = Load::start(gateway.addr(), 4, Reuse::KeepAlive, &request, "");
    let open = |text: &str| {
        let mut stream = small(gateway.addr());
        stream.write_all(text.as_bytes()).expect("sending");
        stream.set_nonblocking(true).expect("a socket");
        stream
    };
    let mut heads: Vec<_> = (0..EACH).map(|_| open("GET /head HTTP/1.1\r\nHost: ")).collect();
    let mut bodies: Vec<_> =
        (0..EACH).map(|_| open("POST /body HTTP/1.1\r\nHost: t\r\nContent-Length: 100000\r\n\r\n")).collect();
    let mut readers: Vec<_> = (0..EACH).map(|_| open("GET /bulk HTTP/1.1\r\nHost: t\r\n\r\n")).collect();
    let start = Instant::now();
    // Each sends or takes a little, again and again, until the gateway has let go of all of them.
    let attack = within(Duration::from_secs(60), "the end of a thousand slow clients", || {
        for stream in heads.iter_mut().chain(&mut bodies) {
            drop(stream.write(b"x"));
        }
        for stream in &mut readers {
            drop(stream.read(&mut [0; 16]));
        }
        std::thread::sleep(Duration::from_millis(200));
        let metrics = gateway.metrics();
        let cut = REASONS.map(|reason| metrics.get("portcullis_refusals_total", &[("reason", reason)]));
        let done = cut.iter().sum::<f64>() >= 3.0 * EACH as f64;
        if done { Ok(start.elapsed()) } else { Err(format!("{cut:?}, others: {:?}", others(&gateway))) }
    });
    let tally = load.stop();
    tally.expect_no_failure();
    assert!(tally.answered() > 100, "{tally:?}");
    for reason in REASONS {
        let count = gateway.metrics().get("portcullis_refusals_total", &[("reason", reason)]);
        assert_eq!(count, EACH as f64, "{reason} after {attack:?}");
    }
}
