//! Bounds of HTTP/1 and HTTP/2, and of what is logged.

use portcullis_tests::client::Request;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::h2::{
    H2, PREFACE, block, code, flag, frame, get, kind, post, pseudo, reset, settings, window_update,
};
use portcullis_tests::origin::Origin;

use super::{echo, gateway};

#[test]
fn limits_request_line_and_header_count() {
    let origin = echo();
    let gateway = gateway(&origin, "[]", "limits: {request_line: 1KiB, header_count: 10}\n");
    let path = |length: usize| format!("/{}", "x".repeat(length));
    Request::get(&path(900)).send(gateway.addr()).expect(200);
    Request::get(&path(1100)).send(gateway.addr()).expect(414);
    let with = |count: usize| {
        (0..count).fold(Request::get("/"), |request, n| request.header(&format!("X-{n}"), "1"))
    };
    with(7).send(gateway.addr()).expect(200);
    with(11).send(gateway.addr()).expect(431);
}

#[test]
fn telemetry_access_log_headers_redact_headers_and_redact_query() {
    let origin = echo();
    let gateway = gateway(&origin, "[]", "");
    let text = std::fs::read_to_string(gateway.config()).expect("the configuration");
    let keys = "  access_log:\n    headers: [x-shown, x-hidden]\n    redact_headers: [x-hidden]\n    redact_query: [pin]\n";
    std::fs::write(gateway.config(), text.replacen("  access_log:\n", keys, 1)).expect("a file of our own");
    let (said, done) = gateway.order(&["reload"]);
    assert!(done, "{said}");
    let request =
        Request::get("/logged?pin=1234&apikey=5678").header("X-Shown", "seen").header("X-Hidden", "unseen");
    request.send(gateway.addr()).expect(200);
    let line = gateway.logged(|line| line["path"].as_str().is_some_and(|path| path.starts_with("/logged")));
    let line = line.to_string();
    assert!(!line.contains("1234") && !line.contains("unseen"), "{line}");
    assert!(line.contains("5678") && line.contains("\"seen\""), "{line}");
}

/// A gateway of one shard that speaks HTTP/2 in the clear, with these settings of it.
fn speaking(http2: &str) -> (Gateway, Origin) {
    let origin = echo();
    let setup = super::setup(&origin, "[]", &format!("http2: {{{http2}}}\n"));
    (Gateway::start(&setup.h2c()), origin)
}

/// What the gateway announces: the settings, and how much the window of the connection grows.
fn announced(http2: &str) -> (Vec<(u16, u32)>, u32) {
    let (gateway, _origin) = speaking(http2);
    let mut h2 = H2::connect(gateway.addr());
    h2.send(&[PREFACE, &settings(&[]), &get(1, "/")].concat());
    let (mut told, mut grown) = (Vec::new(), 0);
    while let Some(frame) = h2.frame() {
        match (frame.kind, frame.stream) {
            (kind::SETTINGS, 0) => told.extend(frame.payload.chunks_exact(6).map(|six| {
                (u16::from_be_bytes([six[0], six[1]]), u32::from_be_bytes([six[2], six[3], six[4], six[5]]))
            })),
            (kind::WINDOW_UPDATE, 0) => grown += frame.word(),
            (kind::HEADERS, _) => break,
            _ => {}
        }
    }
    (told, grown)
}

#[test]
fn http2_concurrent_streams_and_windows() {
    let (told, grown) =
        announced("concurrent_streams: 7, stream_window: 100000B, connection_window: 300000B");
    assert!(told.contains(&(3, 7)), "{told:?}");
    assert!(told.contains(&(4, 100_000)), "{told:?}");
    // Every window begins with 65,535.
    assert_eq!(grown, 300_000 - 65_535);
}

/// A second may bring so many of `piece` as `key` says, whose default is `default`; other bounds are out of the way.
#[track_caller]
fn bounded(key: &str, default: u32, piece: impl Fn(u32) -> Vec<u8>) {
    for (most, count, ends) in [(default / 2, default * 3 / 4, true), (default * 4, default * 2, false)] {
        let (gateway, _origin) = speaking(&format!("{key}: {most}, max_glitches_per_second: 100000"));
        let mut h2 = H2::open(gateway.addr());
        // All at once, within one second wherever that begins.
        drop(h2.try_send(&(0..count).flat_map(&piece).collect::<Vec<_>>()));
        if ends {
            let said = h2.end();
            assert!(said.is_none_or(|said| said == code::ENHANCE_YOUR_CALM), "{key}: {said:?}");
        } else {
            h2.expect_alive();
        }
    }
}

#[test]
fn http2_bounds_on_frames() {
    bounded("max_resets_per_second", 100, |n| [get(2 * n + 1, "/"), reset(2 * n + 1, code::CANCEL)].concat());
    bounded("max_pings_per_second", 100, |_| frame(kind::PING, 0, 0, &[0; 8]));
    bounded("max_settings_per_second", 50, |_| settings(&[]));
    bounded("max_window_updates_per_second", 100, |_| window_update(0, 1));
    bounded("max_priorities_per_second", 100, |n| frame(kind::PRIORITY, 0, 2 * n + 1, &[0, 0, 0, 0, 1]));
    // The codec bears no more than a hundred whatever the configuration says.
    bounded("max_empty_data_per_second", 40, |n| {
        let first = if n == 0 { post(1, "/") } else { Vec::new() };
        [first, frame(kind::DATA, 0, 1, &[])].concat()
    });
    bounded("max_continuations_per_second", 20, |n| {
        // One piece more than a block may have.
        let (stream, fields) = (2 * n + 1, block(&pseudo("GET", "/")));
        let mut all = frame(kind::HEADERS, flag::END_STREAM, stream, &[]);
        all.extend([(); 2].iter().flat_map(|()| frame(kind::CONTINUATION, 0, stream, &[])));
        all.extend(frame(kind::CONTINUATION, flag::END_HEADERS, stream, &fields));
        all
    });
    // Two kinds, neither of which is too many by itself.
    let two = |_: u32| [frame(kind::PING, 0, 0, &[0; 8]), frame(0x77, 0, 0, &[])].concat();
    for (most, ends) in [(50, true), (1000, false)] {
        let (gateway, _origin) = speaking(&format!("max_glitches_per_second: {most}"));
        let mut h2 = H2::open(gateway.addr());
        drop(h2.try_send(&(0..60).flat_map(two).collect::<Vec<_>>()));
        if ends {
            assert!(h2.end().is_none_or(|said| said == code::ENHANCE_YOUR_CALM));
        } else {
            h2.expect_alive();
        }
    }
}
