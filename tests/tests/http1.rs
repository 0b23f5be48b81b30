//! HTTP/1.1 between client and gateway: connections, order, HEAD, interim responses, real clients.

use std::sync::Arc;

use portcullis_tests::client::programs::{curl, node, python_with, run, run_json};
use portcullis_tests::client::{Connection, Request, exchange};
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::{Gateway, Setup, Shared};
use portcullis_tests::origin::{
    Canned, Chunked, EarlyResponse, Echo, Gate, Held, Interim, Origin, UntilClose,
};

struct Suite {
    gateway: Gateway,
    origin: Origin,
    gate: Gate,
    held: Origin,
    _others: Vec<Origin>,
}

/// A gateway whose origin gets requests of one test alone, which can count them.
fn alone() -> (Origin, Gateway) {
    let origin = Origin::start(Echo::default());
    let gateway = Gateway::start(&Setup::proxy(origin.addr(), ""));
    (origin, gateway)
}

fn suite() -> Arc<Suite> {
    static SUITE: Shared<Suite> = Shared::new();
    SUITE.get(|| {
        let origin = Origin::start(Echo::default());
        let gate = Gate::shut();
        let held = Origin::start(Held { gate: gate.clone(), midway: false });
        let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
        let others = [
            ("hints", Origin::start(Interim { interim: hints })),
            ("early", Origin::start(EarlyResponse { status: "403 Forbidden", close: true })),
            ("closing", Origin::start(UntilClose { version: "HTTP/1.0", body: "to the end" })),
            ("empty", Origin::start(Canned { status: "204 No Content", fields: "", body: "" })),
            (
                "unchanged",
                Origin::start(Canned { status: "304 Not Modified", fields: "ETag: \"x\"\r\n", body: "" }),
            ),
            (
                "chunks",
                Origin::start(Chunked {
                    fields: "Trailer: X-Sum\r\n",
                    chunks: &["one ", "two ", "three"],
                    extension: ";part=yes",
                    trailers: "X-Sum: 3\r\n",
                }),
            ),
        ];
        let mut body = format!(
            "services:\n{}{}",
            service("echo", "/", origin.addr()),
            service("held", "/held", held.addr())
        );
        for (name, other) in &others {
            body.push_str(&service(name, &format!("/{name}"), other.addr()));
        }
        let gateway = Gateway::start(&Setup::new(body));
        Suite { gateway, origin, gate, held, _others: others.into_iter().map(|(_, origin)| origin).collect() }
    })
}

fn service(name: &str, path: &str, addr: std::net::SocketAddr) -> String {
    format!(
        "  - name: {name}\n    url: http://{addr}\n    routes:\n      - name: {name}\n        paths: [{path}]\n        \
         strip_path: false\n"
    )
}

#[test]
fn connections_are_kept() {
    let suite = suite();
    let mut connection = Connection::open(suite.gateway.addr());
    for number in 0..20 {
        let target = format!("/kept/{number}");
        let response = Request::get(&target).keep().send_on(&mut connection).expect(200);
        assert_eq!(response.echoed().target(), target);
        assert!(!response.head.has_token("connection", "close"));
    }
}

#[test]
fn connection_close_is_honoured() {
    let suite = suite();
    let mut connection = Connection::open(suite.gateway.addr());
    let response = Request::get("/").send_on(&mut connection).expect(200);
    assert!(response.head.has_token("connection", "close"), "{:?}", response.head.fields);
    connection.expect_closed();
}

#[test]
fn the_last_request_that_a_connection_may_carry_says_so() {
    let origin = Origin::start(Echo::default());
    let gateway =
        Gateway::start(&Setup::proxy(origin.addr(), "").with("limits: {requests_per_connection: 3}"));
    let mut connection = Connection::open(gateway.addr());
    let closes: Vec<bool> = (0..3)
        .map(|_| Request::get("/").keep().send_on(&mut connection).expect(200))
        .map(|response| response.head.has_token("connection", "close"))
        .collect();
    assert_eq!(closes, [false, false, true]);
    connection.expect_closed();
}

#[test]
fn http_1_0_closes_unless_asked_to_keep() {
    let suite = suite();
    let mut connection = Connection::open(suite.gateway.addr());
    connection.send("GET / HTTP/1.0\r\nHost: test\r\n\r\n").response().expect(200);
    connection.expect_closed();

    let mut connection = Connection::open(suite.gateway.addr());
    let response = connection
        .send("GET / HTTP/1.0\r\nHost: test\r\nConnection: keep-alive\r\n\r\n")
        .response()
        .expect(200);
    if response.head.has_token("connection", "keep-alive") {
        connection.send("GET / HTTP/1.0\r\nHost: test\r\n\r\n").response().expect(200);
    }
    connection.expect_closed();
}

#[test]
fn http_1_0_gets_no_chunks() {
    let suite = suite();
    let mut connection = Connection::open(suite.gateway.addr());
    let response = connection.send("GET /chunks HTTP/1.0\r\nHost: test\r\n\r\n").response().expect(200);
    assert!(!response.has("transfer-encoding"), "{:?}", response.head.fields);
    assert_eq!(response.text(), "one two three");
    connection.expect_closed();
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let suite = suite();
    let mut connection = Connection::open(suite.gateway.addr());
    let mut requests = Vec::new();
    for number in 0..30 {
        let target = format!("/pipelined/{number}");
        let request =
            if number % 3 == 0 { Request::post(&target, target.as_bytes()) } else { Request::get(&target) };
        requests.extend(request.keep().bytes());
    }
    connection.send(&requests);
    for number in 0..30 {
        let response = connection.response().expect(200);
        assert_eq!(response.echoed().target(), format!("/pipelined/{number}"));
    }
    connection.expect_kept();
}

#[test]
fn a_fast_answer_waits_for_the_slow_one_before_it() {
    let suite = suite();
    let mut connection = Connection::open(suite.gateway.addr());
    let mut both = Request::get("/held").keep().bytes();
    both.extend(Request::get("/fast").keep().bytes());
    connection.send(&both);
    suite.held.wait_for(1);
    suite.gate.open();
    assert_eq!(connection.response().expect(200).text(), "held-on\n");
    assert_eq!(connection.response().expect(200).echoed().target(), "/fast");
}

#[test]
fn a_head_may_come_byte_by_byte() {
    let suite = suite();
    let mut connection = Connection::open(suite.gateway.addr());
    for byte in Request::post("/slowly", "body").bytes() {
        connection.send([byte]);
    }
    assert_eq!(connection.response().expect(200).json()["body"], "body");
}

#[test]
fn empty_lines_before_a_request_are_ignored() {
    // RFC 9112 section 2.2: at least one empty line before the request line should be ignored.
    let suite = suite();
    exchange(suite.gateway.addr(), "\r\nGET /late HTTP/1.1\r\nHost: test\r\n\r\n").expect(200);
}

#[test]
fn head_has_the_length_and_no_body() {
    let suite = suite();
    let mut connection = Connection::open(suite.gateway.addr());
    let response = Request::new("HEAD", "/").keep().send_on(&mut connection).expect(200);
    let length: u64 = response.header("content-length").parse().expect("a length");
    assert!(length > 0);
    connection.expect_kept();
}

#[test]
fn statuses_without_a_body_keep_the_connection() {
    let suite = suite();
    for (target, status) in [("/empty", 204), ("/unchanged", 304)] {
        let mut connection = Connection::open(suite.gateway.addr());
        Request::get(target).keep().send_on(&mut connection).expect(status);
        connection.expect_kept();
    }
}

#[test]
fn a_body_until_close_is_framed_for_the_client() {
    let suite = suite();
    let mut connection = Connection::open(suite.gateway.addr());
    let response = Request::get("/closing").keep().send_on(&mut connection).expect(200);
    assert_eq!(response.text(), "to the end");
    if response.head.has_token("transfer-encoding", "chunked") {
        connection.expect_kept();
    } else {
        connection.expect_closed();
    }
}

#[test]
fn chunk_extensions_are_dropped() {
    let suite = suite();
    let mut connection = Connection::open(suite.gateway.addr());
    let response = Request::get("/chunks").keep().send_on(&mut connection).expect(200);
    assert_eq!(response.text(), "one two three");
    connection.expect_kept();
}

#[test]
fn interim_responses_reach_a_client_of_http_1_1_only() {
    let suite = suite();
    let response = Request::get("/hints").send(suite.gateway.addr()).expect(200);
    assert_eq!(response.text(), "final");
    let links: Vec<_> = response.interim.iter().filter_map(|head| head.get("link")).collect();
    assert_eq!(links, ["</a.css>; rel=preload"]);

    let response = exchange(suite.gateway.addr(), "GET /hints HTTP/1.0\r\nHost: test\r\n\r\n").expect(200);
    assert_eq!((response.text().as_str(), response.interim.len()), ("final", 0));
}

#[test]
fn expect_continue_is_answered_before_the_body() {
    let suite = suite();
    let mut connection = Connection::open(suite.gateway.addr());
    connection.send("POST /e HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    assert_eq!(connection.try_head().expect("an interim head").word(1), "100");
    let response = connection.send("body").response().expect(200);
    assert_eq!(response.json()["body"], "body");
    connection.expect_kept();
}

#[test]
fn a_body_sent_without_waiting_for_100_is_fine() {
    let suite = suite();
    let mut connection = Connection::open(suite.gateway.addr());
    connection
        .send("POST /e HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nbody");
    assert_eq!(connection.response().expect(200).json()["body"], "body");
    connection.expect_kept();
}

#[test]
fn an_unknown_expectation_fails() {
    let suite = suite();
    let response = exchange(
        suite.gateway.addr(),
        "POST / HTTP/1.1\r\nHost: test\r\nExpect: rain\r\nContent-Length: 0\r\n\r\n",
    );
    response.expect(417);
}

#[test]
fn an_early_answer_is_passed_on_and_the_body_is_no_request() {
    let suite = suite();
    let mut connection = Connection::open(suite.gateway.addr());
    connection.send("POST /early HTTP/1.1\r\nHost: test\r\nContent-Length: 100000\r\n\r\n");
    let response = connection.response().expect(403);
    assert_eq!(response.text(), "early");
    // The body was announced and not sent. What comes next is that body or nothing, never a request.
    if response.head.has_token("connection", "close") {
        connection.expect_closed();
    } else {
        connection.send(vec![b'x'; 100_000]);
        connection.expect_kept();
    }
}

#[test]
fn a_client_that_leaves_inside_its_body_leaves_no_request() {
    let suite = suite();
    let before = suite.origin.requests();
    let mut connection = Connection::open(suite.gateway.addr());
    connection.send("POST /left HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhalf");
    drop(connection);
    let line = suite.gateway.logged(|line| line["path"] == "/left");
    assert_eq!(line["reason"], "client_aborted", "{line}");
    assert!(suite.origin.seen().iter().all(|received| received.head.word(1) != "/left"), "{before}");
}

#[test]
fn a_half_closed_client_still_gets_its_answer() {
    let suite = suite();
    let mut connection = Connection::open(suite.gateway.addr());
    connection.send(Request::get("/half").keep().bytes());
    connection.finish_sending();
    connection.response().expect(200);
    connection.expect_closed();
}

#[test]
fn methods_pass_as_they_are() {
    let suite = suite();
    for method in ["PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "QUERY"] {
        let response = Request::new(method, "/m").send(suite.gateway.addr()).expect(200);
        assert_eq!(response.json()["method"], method);
    }
}

#[test]
fn absolute_form_is_routed_by_its_authority() {
    let suite = suite();
    let response =
        exchange(suite.gateway.addr(), "GET http://named.test/abs?x=1 HTTP/1.1\r\nHost: named.test\r\n\r\n");
    assert_eq!(response.expect(200).echoed().target(), "/abs?x=1");
}

#[test]
fn a_scheme_that_is_not_that_of_the_connection_is_misdirected_rfc9110_7_4() {
    let (origin, gateway) = alone();
    let asked = "GET https://named.test/ HTTP/1.1\r\nHost: named.test\r\nConnection: close\r\n\r\n";
    let before = origin.requests();
    exchange(gateway.addr(), asked).expect(421);
    assert_eq!(origin.requests(), before);
    // A trusted proxy may have ended TLS.
    let setup = Setup::proxy(origin.addr(), "").with("trusted_proxies: [127.0.0.1]");
    exchange(Gateway::start(&setup).addr(), asked).expect(200);
}

#[test]
fn options_of_the_server_as_a_whole_rfc9112_3_2_4() {
    let (origin, gateway) = alone();
    let before = origin.requests();
    let asked = "OPTIONS http://test HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
    let response = exchange(gateway.addr(), asked).expect(200);
    assert!(response.header("allow").contains("OPTIONS"), "{:?}", response.head.fields);
    assert_eq!(origin.requests(), before, "it went on as a request for the root");
}

#[test]
fn max_forwards_is_counted_down_and_ends_here_rfc9110_7_6_2() {
    let (origin, gateway) = alone();
    let echoed = Request::new("OPTIONS", "/far").header("Max-Forwards", "2").send(gateway.addr());
    assert_eq!(echoed.expect(200).echoed().all("max-forwards"), ["1"]);
    // Of other methods it means nothing.
    let echoed = Request::get("/far").header("Max-Forwards", "0").send(gateway.addr());
    assert_eq!(echoed.expect(200).echoed().target(), "/far");
    let before = origin.requests();
    let response = Request::new("OPTIONS", "/far").header("Max-Forwards", "0").send(gateway.addr());
    assert!(response.expect(200).header("allow").contains("GET"));
    assert_eq!(origin.requests(), before);
}

#[test]
fn idle_connections_do_not_hold_up_others() {
    let suite = suite();
    let idle: Vec<_> = (0..200).map(|_| Connection::open(suite.gateway.addr())).collect();
    Request::get("/among-idle").send(suite.gateway.addr()).expect(200);
    eventually("200 open connections in the metrics", || {
        let open = suite.gateway.metrics().sum("portcullis_downstream_connections_active", &[]);
        holds(open >= 200.0, format!("{open}"))
    });
    drop(idle);
}

#[test]
fn curl_talks_to_it() {
    let suite = suite();
    let Some(mut curl) = curl() else { return };
    let url = suite.gateway.url();
    // Two transfers and one connection: `num_connects` of the second is 0.
    let output = run(curl.args(["-w", " %{num_connects}\n", "-o", "/dev/null", &format!("{url}/a")]).args([
        "--next",
        "-s",
        "-w",
        " %{num_connects} %{http_code}\n",
        "-d",
        "field=1",
        &format!("{url}/b"),
    ]));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("\"body\":\"field=1\"") && text.ends_with(" 0 200\n"), "{text}");
}

#[test]
fn python_requests_talks_to_it() {
    let suite = suite();
    let Some(mut python) = python_with("requests", "requests_client.py") else { return };
    let told = run_json(python.arg(suite.gateway.url()));
    assert_eq!(told["ok"], true, "{told}");
}

#[test]
fn python_httpx_talks_to_it() {
    let suite = suite();
    let Some(mut python) = python_with("httpx", "httpx_client.py") else { return };
    let told = run_json(python.arg(suite.gateway.url()));
    assert_eq!(told["ok"], true, "{told}");
}

#[test]
fn node_fetch_talks_to_it() {
    let suite = suite();
    let Some(mut node) = node("fetch_client.mjs") else { return };
    let told = run_json(node.arg(suite.gateway.url()));
    assert_eq!(told["ok"], true, "{told}");
}
