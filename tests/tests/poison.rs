//! Bytes of a target that belong to no request must never become the answer to one.
//!
//! Whoever gets to put a second response on a pooled connection answers a stranger's request, so
//! each case sends a request after the bad one and looks at what it gets.

use portcullis_tests::client::{Connection, Request};
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::{Gateway, Setup};
use portcullis_tests::origin::{Chatty, Chunked, EarlyResponse, Gate, Interim, Origin, Script};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";

fn before(script: impl Script) -> (Gateway, Origin) {
    let origin = Origin::start(script);
    // One shard, so that the next request finds the pool that the bad one left.
    (Gateway::start(&Setup::proxy(origin.addr(), "").shards(1)), origin)
}

#[test]
fn a_second_response_right_behind_the_first() {
    let (gateway, origin) = before(Chatty { answer: OK, extra: POISON, gates: None });
    let mut connection = Connection::open(gateway.addr());
    for _ in 0..5 {
        assert_eq!(Request::get("/").keep().send_on(&mut connection).expect(200).text(), "ok");
        assert_eq!(Request::get("/").send(gateway.addr()).expect(200).text(), "ok");
    }
    assert_eq!(origin.connections(), 10, "such a connection is not used again");
}

#[test]
fn a_second_response_while_the_connection_is_idle() {
    let gates = [Gate::shut(), Gate::shut()];
    let [held, sent] = gates.clone();
    let (gateway, origin) = before(Chatty { answer: OK, extra: POISON, gates: Some(gates) });
    assert_eq!(Request::get("/").send(gateway.addr()).expect(200).text(), "ok");
    held.open();
    sent.pass();
    assert_eq!(Request::post("/", "a body").send(gateway.addr()).expect(200).text(), "ok");
    assert_eq!(origin.connections(), 2);
}

#[test]
fn a_second_response_is_no_answer_to_a_request_that_could_be_repeated_either() {
    let gates = [Gate::shut(), Gate::shut()];
    let [held, sent] = gates.clone();
    let (gateway, origin) = before(Chatty { answer: OK, extra: POISON, gates: Some(gates) });
    assert_eq!(Request::get("/").send(gateway.addr()).expect(200).text(), "ok");
    held.open();
    sent.pass();
    assert_eq!(Request::get("/").send(gateway.addr()).expect(200).text(), "ok");
    assert_eq!(origin.connections(), 2);
}

#[test]
fn a_body_where_there_is_none() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 55\r\n\r\n";
    let (gateway, _origin) = before(Chatty { answer, extra: POISON, gates: None });
    for _ in 0..3 {
        // To HEAD, the length stands for what GET would give; bytes after the head are none of it.
        let mut connection = Connection::open(gateway.addr());
        Request::new("HEAD", "/").keep().send_on(&mut connection).expect(200);
    }
    for status in ["204 No Content", "304 Not Modified"] {
        let answer: &'static str = Box::leak(format!("HTTP/1.1 {status}\r\n\r\n").into_boxed_str());
        let (gateway, origin) = before(Chatty { answer, extra: POISON, gates: None });
        let mut connection = Connection::open(gateway.addr());
        for _ in 0..3 {
            let response = Request::get("/").keep().send_on(&mut connection);
            assert_ne!(response.text(), "poison");
            assert_eq!(response.status.to_string(), status[..3]);
        }
        assert_eq!(origin.connections(), 3, "{status}");
    }
}

#[test]
fn a_chunked_body_with_something_behind_it() {
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let (gateway, origin) = before(Chatty { answer, extra: POISON, gates: None });
    for _ in 0..4 {
        assert_eq!(Request::get("/").send(gateway.addr()).expect(200).text(), "ok");
    }
    assert_eq!(origin.connections(), 4);
}

#[test]
fn a_broken_chunk_cuts_the_answer_and_the_connection() {
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n";
    let (gateway, origin) = before(Chatty { answer, extra: POISON, gates: None });
    for _ in 0..3 {
        let mut connection = Connection::open(gateway.addr());
        connection.send(Request::get("/broken").keep().bytes());
        match connection.try_response(false) {
            Ok(response) => assert_eq!(response.status, 502, "{:?}", response.text()),
            Err(error) => assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
    }
    assert_eq!(origin.connections(), 3);
    gateway.logged(|line| line["path"] == "/broken" && line["reason"].is_string());
}

#[test]
fn an_early_answer_leaves_no_half_request_on_a_pooled_connection() {
    let (gateway, origin) = before(EarlyResponse { status: "200 OK", close: false });
    let mut connection = Connection::open(gateway.addr());
    connection.send("POST /half HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\nhalf");
    assert_eq!(connection.response().expect(200).text(), "early");
    // Whatever comes next on this upstream connection would be read as the other half.
    for number in 0..3 {
        let target = format!("/whole/{number}");
        Request::get(&target).send(gateway.addr()).expect(200);
        origin.wait_for(number + 1);
        assert_eq!(origin.last().head.word(1), target);
    }
}

#[test]
fn trailers_of_a_target_cannot_bring_framing() {
    let trailers = "Content-Length: 0\r\nTransfer-Encoding: chunked\r\nX-End: yes\r\n";
    let (gateway, _origin) = before(Chunked { fields: "", chunks: &["body"], extension: "", trailers });
    let mut connection = Connection::open(gateway.addr());
    for _ in 0..2 {
        let request = Request::get("/").keep().header("TE", "trailers").header("Connection", "TE");
        let response = request.send_on(&mut connection).expect(200);
        let names: Vec<_> = response.body.trailers.iter().map(|(name, _)| name.to_lowercase()).collect();
        assert!(
            !names.iter().any(|name| name == "content-length" || name == "transfer-encoding"),
            "{names:?}"
        );
    }
}

#[test]
fn a_flood_of_interim_responses_ends() {
    let interim: &'static str =
        Box::leak("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(20_000).into_boxed_str());
    let (gateway, _origin) = before(Interim { interim });
    let before = gateway.resident();
    let mut connection = Connection::open(gateway.addr());
    connection.send(Request::get("/hints").bytes());
    let response = connection.try_response(false).expect("an answer in the end");
    assert!(matches!(response.status, 200 | 502), "{}", response.head.start);
    eventually("little memory", || {
        let growth = gateway.resident().saturating_sub(before);
        holds(growth < 8 << 20, format!("grew by {growth}"))
    });
}
