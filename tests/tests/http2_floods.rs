//! Attacks on HTTP/2, each as a script, with an honest client on a connection of its own beside them.
//!
//! For each: the attacker's connection ends with ENHANCE_YOUR_CALM and is counted under its reason, the honest client
//! loses no request, and the gateway holds no more memory than it may.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::{Gateway, Setup};
use portcullis_tests::h2::{
    H2, block, code, flag, frame, get, kind, post, pseudo, reset, settings, window_update,
};
use portcullis_tests::origin::{Bulk, Echo, Origin};

/// Connections that each attack is tried on, one after the other.
const TRIES: u64 = 5;
/// What the gateway may hold more after an attack than before.
const GROWTH_MAX: u64 = 64 << 20;
/// Pieces that an attack is sent in at most, far beyond what is borne.
const PIECES_MAX: u32 = 5000;

/// A client that sends one request after the other on one connection, and counts what is not a 200.
struct Honest {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    worker: JoinHandle<u64>,
}

impl Honest {
    fn start(addr: SocketAddr) -> Honest {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let worker = {
            let (stop, done) = (stop.clone(), done.clone());
            std::thread::spawn(move || {
                let (mut failed, mut stream) = (0, 1);
                // Windows that it never has to think of again.
                let mut h2 = H2::open_with(addr, &[(4, 1 << 30)]);
                h2.send(&window_update(0, 1 << 30));
                while !stop.load(Ordering::Relaxed) {
                    h2.send(&get(stream, "/honest"));
                    let (status, body) = h2.response(stream);
                    h2.send(&window_update(0, (body.len() as u32).max(1)));
                    failed += u64::from(status != 200);
                    done.fetch_add(1, Ordering::Relaxed);
                    stream += 2;
                    // Stays below the requests that one connection may carry.
                    std::thread::sleep(Duration::from_millis(1));
                }
                failed
            })
        };
        Honest { stop, done, worker }
    }

    /// Waits until the client has got `more` further answers.
    #[track_caller]
    fn wait_for(&self, more: u64) {
        let from = self.done.load(Ordering::Relaxed);
        eventually("answers to the honest client", || {
            let now = self.done.load(Ordering::Relaxed);
            holds(now >= from + more, format!("{} of {more}", now - from))
        });
    }

    #[track_caller]
    fn expect_no_failure(self) {
        self.stop.store(true, Ordering::Relaxed);
        assert_eq!(
            self.worker.join().expect("the honest client was cut off"),
            0,
            "requests of the honest client failed"
        );
    }
}

fn counted(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metrics().sum("portcullis_refusals_total", &[("reason", reason)])
}

/// Runs an attack: `first` once, then pieces made by `piece` until the gateway ends the connection.
#[track_caller]
fn attack(reason: &str, first: &[u8], piece: impl Fn(u32) -> Vec<u8>) {
    let origin = Origin::start(Echo::default());
    let gateway = Gateway::start(&Setup::proxy(origin.addr(), "").h2c());
    let honest = Honest::start(gateway.addr());
    honest.wait_for(5);
    let before = gateway.resident();
    for _ in 0..TRIES {
        let mut h2 = H2::open(gateway.addr());
        h2.send(first);
        for n in 0..PIECES_MAX {
            if h2.try_send(&piece(n)).is_err() {
                break;
            }
        }
        // Bytes on their way to a connection that is over may cost the attacker the word that it is.
        let said = h2.end();
        assert!(said.is_none_or(|said| said == code::ENHANCE_YOUR_CALM), "{reason}: ended with {said:?}");
    }
    let after = gateway.resident();
    assert!(after < before + GROWTH_MAX, "{reason}: from {before} to {after} bytes");
    eventually("the reason is counted", || {
        let count = counted(&gateway, reason);
        holds(count >= TRIES as f64, format!("{reason} {count}"))
    });
    honest.wait_for(5);
    honest.expect_no_failure();
    gateway.stop();
}

/// Connections of [`many_that_stay_below_every_threshold`].
const MANY: u32 = 100;

#[test]
fn many_that_stay_below_every_threshold() {
    let origin = Origin::start(Echo::default());
    let gateway = Gateway::start(&Setup::proxy(origin.addr(), "").h2c());
    let honest = Honest::start(gateway.addr());
    honest.wait_for(5);
    let before = gateway.resident();
    let mut all: Vec<H2> = (0..MANY).map(|_| H2::open(gateway.addr())).collect();
    // Of each kind as much as one second may have, all kinds together below what they may be together.
    let mut pieces = Vec::new();
    for n in 0..20 {
        pieces.extend([get(stream(n), "/"), reset(stream(n), code::CANCEL)].concat());
        pieces.extend(frame(kind::PING, 0, 0, &[0; 8]));
        pieces.extend(window_update(0, 1));
        pieces.extend(frame(kind::PRIORITY, 0, stream(n), &[0, 0, 0, 0, 15]));
    }
    pieces.extend(post(stream(20), "/"));
    (0..15).for_each(|_| pieces.extend(frame(kind::DATA, 0, stream(20), &[])));
    for h2 in &mut all {
        h2.send(&pieces);
    }
    honest.wait_for(50);
    for h2 in &mut all {
        h2.expect_alive();
    }
    let after = gateway.resident();
    assert!(after < before + GROWTH_MAX, "from {before} to {after} bytes");
    honest.wait_for(50);
    honest.expect_no_failure();
    assert_eq!(counted(&gateway, "h2_rapid_reset"), 0.0);
    gateway.stop();
}

/// The stream of the `n`-th piece of an attack.
fn stream(n: u32) -> u32 {
    n * 2 + 1
}

#[test]
fn an_attack_that_waits_is_told_to_calm_down() {
    let origin = Origin::start(Echo::default());
    let gateway = Gateway::start(&Setup::proxy(origin.addr(), "").h2c());
    let mut h2 = H2::open(gateway.addr());
    h2.send(&(0..101).flat_map(|_| frame(kind::PING, 0, 0, &[0; 8])).collect::<Vec<_>>());
    assert_eq!(h2.end(), Some(code::ENHANCE_YOUR_CALM));
    // One below the threshold is borne.
    let mut h2 = H2::open(gateway.addr());
    h2.send(&(0..100).flat_map(|_| frame(kind::PING, 0, 0, &[0; 8])).collect::<Vec<_>>());
    h2.send(&get(1, "/"));
    assert_eq!(h2.status(1), 200);
    gateway.stop();
}

#[test]
fn rapid_reset_cve_2023_44487() {
    attack("h2_rapid_reset", &[], |n| [get(stream(n), "/"), reset(stream(n), code::CANCEL)].concat());
}

/// What is taken back in the same breath costs the target nothing.
#[test]
fn a_request_that_comes_with_its_reset_is_not_passed_on() {
    let origin = Origin::start(Echo::default());
    let gateway = Gateway::start(&Setup::proxy(origin.addr(), "").h2c());
    let mut h2 = H2::open(gateway.addr());
    // One write is one segment on loopback, and is received in one piece.
    let taken_back = 40;
    let pairs = (0..taken_back).flat_map(|n| [get(stream(n), "/"), reset(stream(n), code::CANCEL)].concat());
    h2.send(&pairs.collect::<Vec<_>>());
    h2.send(&get(stream(taken_back), "/wanted"));
    assert_eq!(h2.status(stream(taken_back)), 200);
    eventually("all are counted", || {
        let count = counted(&gateway, "client_aborted");
        holds(count >= f64::from(taken_back), format!("{count}"))
    });
    assert_eq!(origin.requests(), 1);
    gateway.stop();
}

#[test]
fn made_you_reset_cve_2025_8671() {
    let overflow = |n| [post(stream(n), "/"), window_update(stream(n), 0x7fff_ffff)].concat();
    attack("h2_made_you_reset", &[], overflow);
    let own = |n: u32| [&stream(n).to_be_bytes()[..], &[0]].concat();
    attack("h2_made_you_reset", &[], |n| {
        [post(stream(n), "/"), frame(kind::PRIORITY, 0, stream(n), &own(n))].concat()
    });
}

#[test]
fn continuation() {
    let begin = frame(kind::HEADERS, flag::END_STREAM, 1, &block(&pseudo("GET", "/")));
    attack("h2_continuation_flood", &begin, |_| frame(kind::CONTINUATION, 0, 1, &block(&[("x", "y")])));
    attack("h2_continuation_flood", &begin, |_| frame(kind::CONTINUATION, 0, 1, &[]));
    // Many blocks, each with a few more frames than it needs.
    attack("h2_continuation_flood", &[], |n| {
        let mut bytes = frame(kind::HEADERS, flag::END_STREAM, stream(n), &block(&pseudo("GET", "/")));
        for _ in 0..4 {
            bytes.extend(frame(kind::CONTINUATION, 0, stream(n), &[]));
        }
        bytes.extend(frame(kind::CONTINUATION, flag::END_HEADERS, stream(n), &[]));
        bytes
    });
}

#[test]
fn settings_and_ping() {
    attack("h2_settings_flood", &[], |n| settings(&[(4, 65_535 + n % 2)]));
    attack("h2_settings_flood", &[], |_| settings(&[]));
    attack("h2_ping_flood", &[], |n| frame(kind::PING, 0, 0, &u64::from(n).to_be_bytes()));
}

#[test]
fn priority() {
    attack("h2_priority_flood", &[], |n| frame(kind::PRIORITY, 0, stream(n), &[0, 0, 0, 0, 9]));
    attack("h2_priority_flood", &[], |_| frame(16, 0, 0, b"\0\0\0\x01u=1"));
}

#[test]
fn empty_data() {
    attack("h2_empty_data_flood", &post(1, "/"), |_| frame(kind::DATA, 0, 1, &[]));
    attack("h2_empty_data_flood", &post(1, "/"), |_| frame(kind::DATA, flag::PADDED, 1, &[0]));
}

/// A gateway that looks at no body before a second has passed.
fn hesitant(origin: &Origin) -> Gateway {
    let delay = "plugins: [{name: fault-injection, config: {delay: {fixed_delay: 1s, percentage: 100}}}]";
    Gateway::start(&Setup::proxy(origin.addr(), delay).h2c())
}

#[test]
fn small_frames_that_wait_are_borne_within_the_windows() {
    let origin = Origin::start(Echo::default());
    let gateway = hesitant(&origin);
    let mut h2 = H2::open(gateway.addr());
    let crumbs: Vec<u8> = (0..3000).flat_map(|_| frame(kind::DATA, 0, 1, &[b'x'; 20])).collect();
    h2.send(&[post(1, "/"), crumbs, frame(kind::DATA, flag::END_STREAM, 1, b"x")].concat());
    assert_eq!(h2.status(1), 200);
    assert_eq!(counted(&gateway, "h2_empty_data_flood"), 0.0);
    gateway.stop();
}

#[test]
fn the_smallest_frames_on_many_streams_are_a_flood() {
    let origin = Origin::start(Echo::default());
    let gateway = hesitant(&origin);
    let before = gateway.resident();
    let mut h2 = H2::open(gateway.addr());
    for stream in (0..16).map(stream) {
        h2.send(&post(stream, "/"));
        h2.send(&(0..60_000).flat_map(|_| frame(kind::DATA, 0, stream, b"x")).collect::<Vec<_>>());
    }
    let said = h2.end();
    assert!(said.is_none_or(|said| said == code::ENHANCE_YOUR_CALM), "{said:?}");
    let after = gateway.resident();
    assert!(after < before + GROWTH_MAX, "from {before} to {after} bytes");
    eventually("the reason is counted", || {
        let count = counted(&gateway, "h2_empty_data_flood");
        holds(count >= 1.0, format!("{count}"))
    });
    gateway.stop();
}

#[test]
fn window_updates() {
    attack("h2_window_update_flood", &[], |_| window_update(0, 1));
    attack("h2_window_update_flood", &post(1, "/"), |_| window_update(1, 1));
}

#[test]
fn frames_of_no_use() {
    attack("h2_protocol_error", &[], |_| frame(0xbb, 0, 0, b"of no use"));
}

#[test]
fn hpack_bomb() {
    // A field of almost the whole table, and then a reference to it in every octet: 16 KiB that mean 60 MiB.
    let large = [&[0x40, 1, b'x', 0x7f, 0x81, 0x1e][..], &[b'v'; 4096 - 128]].concat();
    let first = [&block(&pseudo("GET", "/"))[..], &large].concat();
    let first = frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, &first);
    attack("h2_header_list", &first, |n| {
        let bomb = [&block(&pseudo("GET", "/"))[..], &[0xbe; 16_000]].concat();
        frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, stream(n + 1), &bomb)
    });
}

#[test]
fn a_header_block_without_an_end() {
    let begin = frame(kind::HEADERS, flag::END_STREAM, 1, &block(&pseudo("GET", "/")));
    // A value of a megabyte, in frames as large as they may be: ended long before it is whole.
    let value = [&[0, 1, b'x', 0x7f, 0x81, 0xff, 0x3f][..], &[b'v'; 16_000]].concat();
    attack("h2_header_list", &begin, |n| {
        frame(kind::CONTINUATION, 0, 1, if n == 0 { &value } else { &value[7..] })
    });
}

#[test]
fn a_header_block_that_does_not_go_on_is_timed_out() {
    let origin = Origin::start(Echo::default());
    let setup = Setup::proxy(origin.addr(), "").h2c().timeouts("request_head: 1s, drain_delay: 0s");
    let gateway = Gateway::start(&setup);
    let honest = Honest::start(gateway.addr());
    let mut slow: Vec<H2> = (0..50)
        .map(|_| {
            let mut h2 = H2::open(gateway.addr());
            h2.send(&frame(kind::HEADERS, flag::END_STREAM, 1, &block(&pseudo("GET", "/"))));
            h2
        })
        .collect();
    for h2 in &mut slow {
        assert_eq!(h2.end(), Some(code::ENHANCE_YOUR_CALM));
    }
    eventually("the reason is counted", || {
        let count = counted(&gateway, "request_timeout");
        holds(count >= 50.0, format!("{count}"))
    });
    // And who connects and says nothing is let go.
    let mut silent = H2::open(gateway.addr());
    assert!(silent.end().is_none_or(|said| said == code::NO_ERROR));
    honest.wait_for(5);
    honest.expect_no_failure();
    gateway.stop();
}

/// A gateway before an origin with much to say, and clients that are given one second to read.
fn impatient(origin: &Origin) -> Gateway {
    Gateway::start(&Setup::proxy(origin.addr(), "").h2c().timeouts("response_write: 1s, drain_delay: 0s"))
}

#[test]
fn windows_that_stay_shut() {
    let origin = Origin::start(Bulk { len: 1 << 20, chunked: false });
    let gateway = impatient(&origin);
    let honest = Honest::start(gateway.addr());
    let before = gateway.resident();
    let mut h2 = H2::open_with(gateway.addr(), &[(4, 0)]);
    for n in 0..100 {
        h2.send(&get(stream(n), "/"));
    }
    let mut ended = 0;
    while ended < 100 {
        let frame = h2.until(|frame| matches!(frame.kind, kind::RST_STREAM | kind::GOAWAY)).expect("resets");
        assert_eq!(frame.kind, kind::RST_STREAM, "{frame:?}");
        ended += 1;
    }
    let after = gateway.resident();
    assert!(after < before + GROWTH_MAX, "from {before} to {after} bytes");
    eventually("the reason is counted", || {
        let count = counted(&gateway, "h2_stalled_window");
        holds(count >= 100.0, format!("{count}"))
    });
    honest.expect_no_failure();
    gateway.stop();
}

#[test]
fn windows_of_one_octet() {
    let origin = Origin::start(Bulk { len: 1 << 20, chunked: false });
    let gateway = impatient(&origin);
    let honest = Honest::start(gateway.addr());
    let mut h2 = H2::open_with(gateway.addr(), &[(4, 1)]);
    for n in 0..20 {
        h2.send(&get(stream(n), "/"));
    }
    // Each octet is paid for with a window of one more. It is taken at a pace of ours, and the stream ends in time.
    let (mut ended, mut octets) = (0, 0);
    while ended < 20 {
        let frame = h2.frame().expect("frames until all are reset");
        match frame.kind {
            kind::DATA => {
                octets += frame.payload.len();
                h2.send(&[window_update(frame.stream, 1), window_update(0, 1)].concat());
            }
            kind::RST_STREAM => ended += 1,
            kind::GOAWAY => panic!("{frame:?}"),
            _ => {}
        }
    }
    assert!(octets < 20 * 100, "{octets} octets were sent one by one");
    honest.expect_no_failure();
    gateway.stop();
}

#[test]
fn more_streams_than_allowed() {
    let origin = Origin::start(Echo::default());
    let gateway = Gateway::start(&Setup::proxy(origin.addr(), "").h2c());
    let honest = Honest::start(gateway.addr());
    let before = gateway.resident();
    let mut h2 = H2::open(gateway.addr());
    for n in 0..5000 {
        if h2.try_send(&post(stream(n), "/")).is_err() {
            break;
        }
    }
    // Refusing them costs us a frame each, so it is made-you-reset all the same.
    let said = h2.end();
    assert!(said.is_none_or(|said| said == code::ENHANCE_YOUR_CALM), "{said:?}");
    let after = gateway.resident();
    assert!(after < before + GROWTH_MAX, "from {before} to {after} bytes");
    eventually("the reason is counted", || {
        let count = counted(&gateway, "h2_made_you_reset");
        holds(count >= 1.0, format!("{count}"))
    });
    honest.expect_no_failure();
    gateway.stop();
}
