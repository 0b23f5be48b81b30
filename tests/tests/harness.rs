//! The harness against itself: clients straight at the origins, no gateway between.
//!
//! A wrong origin would make a right gateway look wrong; this suite is the first to run.

use std::time::Duration;

use portcullis_tests::client::load::{Load, Reuse};
use portcullis_tests::client::{Connection, Request, exchange};
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::origin::{
    Bulk, Canned, Chunked, Counting, EarlyResponse, Echo, Garbage, Gate, Held, Interim, KeepAliveCloser,
    Moment, Origin, Resetting, Slow, Truncating, UntilClose,
};
use portcullis_tests::pattern;

#[test]
fn echo_tells_what_came() {
    let origin = Origin::start(Echo { name: "e" });
    let response = Request::post("/a?b", "text").header("X-One", "1").send(origin.addr()).expect(200);
    let echoed = response.echoed();
    assert_eq!((echoed.target(), echoed.get("x-one"), echoed.origin()), ("/a?b", Some("1"), "e"));
    assert_eq!(response.json()["body"], "text");
    assert_eq!(origin.last().body.text(), "text");
    assert!(origin.raw(0).starts_with(b"POST /a?b HTTP/1.1\r\n"));
}

#[test]
fn echo_keeps_connections_and_answers_head() {
    let origin = Origin::start(Echo::default());
    let mut connection = Connection::open(origin.addr());
    Request::new("HEAD", "/").keep().send_on(&mut connection).expect(200);
    connection.expect_kept();
    assert_eq!((origin.connections(), origin.requests()), (1, 2));
}

#[test]
fn bulk_follows_the_pattern() {
    for chunked in [false, true] {
        let origin = Origin::start(Bulk { len: 3_000_000, chunked });
        let body = Request::get("/").send(origin.addr()).expect(200).body;
        assert_eq!((body.len, body.off_pattern), (3_000_000, false));
    }
}

#[test]
fn uploads_are_compared_with_the_pattern() {
    let origin = Origin::start(Echo::default());
    let response = Request::post("/", pattern::whole(300_000)).send(origin.addr());
    assert_eq!((&response.json()["body_len"], &response.json()["body_ok"]), (&300_000.into(), &true.into()));
}

#[test]
fn framings_of_well_behaved_origins() {
    let chunked = Origin::start(Chunked {
        fields: "A: b\r\n",
        chunks: &["one", "two"],
        extension: ";x",
        trailers: "T: 1\r\n",
    });
    let response = Request::get("/").send(chunked.addr()).expect(200);
    assert_eq!((response.text().as_str(), response.body.trailers.len()), ("onetwo", 1));
    let closing = Origin::start(UntilClose { version: "HTTP/1.0", body: "all" });
    assert_eq!(Request::get("/").send(closing.addr()).expect(200).text(), "all");
    let canned = Origin::start(Canned { status: "418 Teapot", fields: "A: b\r\n", body: "short" });
    assert_eq!(Request::get("/").send(canned.addr()).expect(418).header("a"), "b");
    let interim = Origin::start(Interim { interim: "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" });
    let response = Request::get("/").send(interim.addr()).expect(200);
    assert_eq!(response.interim[0].get("link"), Some("</a>"));
    let counting = Origin::start(Counting::named("c"));
    Request::get("/").send(counting.addr()).expect(200);
    assert_eq!(Request::get("/").send(counting.addr()).text(), "c 2");
}

#[test]
fn bad_origins_are_bad() {
    let fails = |addr| {
        let mut connection = Connection::open(addr);
        drop(connection.try_send(&Request::get("/").bytes()));
        connection.try_response(false).expect_err("a broken exchange").kind()
    };
    let cut = Origin::start(Truncating { announced: 10, sent: "abc" });
    assert_eq!(fails(cut.addr()), std::io::ErrorKind::UnexpectedEof);
    let cut = Origin::start(Truncating { announced: 0, sent: "abc" });
    assert_eq!(fails(cut.addr()), std::io::ErrorKind::UnexpectedEof);
    for moment in [Moment::Accepted, Moment::Asked, Moment::Answering] {
        let reset = Origin::start(Resetting { moment });
        // A reset that came before the request is reported to the write; the read then sees an end.
        let kind = fails(reset.addr());
        let early = moment == Moment::Accepted && kind == std::io::ErrorKind::UnexpectedEof;
        assert!(early || kind == std::io::ErrorKind::ConnectionReset, "{moment:?}: {kind}");
    }
    let garbage = Origin::start(Garbage { bytes: b"\x00\x01\xff" });
    assert_eq!(fails(garbage.addr()), std::io::ErrorKind::UnexpectedEof);
}

#[test]
fn early_answers_come_before_the_body() {
    let origin = Origin::start(EarlyResponse { status: "413 Too Large", close: true });
    let head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n";
    assert_eq!(exchange(origin.addr(), head).status, 413);
}

#[test]
fn kept_connections_are_closed() {
    let origin = Origin::start(KeepAliveCloser { after: 1 });
    let mut connection = Connection::open(origin.addr());
    Request::get("/").keep().send_on(&mut connection).expect(200);
    connection.expect_closed();
}

#[test]
fn a_gate_holds_an_answer() {
    let gate = Gate::shut();
    let origin = Origin::start(Held { gate: gate.clone(), midway: true });
    let mut connection = Connection::open(origin.addr());
    connection.send(Request::get("/").bytes());
    assert_eq!(connection.try_head().expect("a head").word(1), "200");
    gate.open();
    eventually("the rest", || holds(origin.requests() == 1, "not yet"));
}

#[test]
fn slow_is_slow_and_whole() {
    let millisecond = Duration::from_millis(1);
    let origin = Origin::start(Slow { before_head: millisecond, before_byte: millisecond });
    assert_eq!(Request::get("/").send(origin.addr()).text(), "slow\n");
}

#[test]
fn load_counts_answers_and_failures() {
    let origin = Origin::start(Counting::named("x"));
    let load = Load::start(origin.addr(), 2, Reuse::KeepAlive, &Request::get("/").keep().bytes(), "");
    load.wait_for(50);
    let tally = load.stop();
    tally.expect_no_failure();
    assert_eq!((tally.answered(), tally.connections), (origin.requests() as u64, 2));

    let broken = Origin::start(Resetting { moment: Moment::Asked });
    let load = Load::start(broken.addr(), 1, Reuse::Never, &Request::get("/").bytes(), "");
    eventually("failures", || holds(broken.requests() > 3, "none yet"));
    assert!(load.stop().failures.len() > 3);
}

#[test]
fn a_dropped_origin_is_gone() {
    let origin = Origin::start(Echo::default());
    let addr = origin.addr();
    let mut kept = Connection::open(addr);
    Request::get("/").keep().send_on(&mut kept).expect(200);
    drop(origin);
    kept.expect_closed();
    Connection::try_open(addr).expect_err("nobody listens");
    let again = Origin::start_at(addr, Echo::default());
    Request::get("/").send(again.addr()).expect(200);
}
