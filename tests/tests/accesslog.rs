//! The access log: one JSON object for every exchange, with what an operator looks for.

use std::sync::Arc;

use portcullis_tests::client::{Connection, Request};
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::{Gateway, Setup, Shared};
use portcullis_tests::origin::{Echo, Origin};
use portcullis_tests::ports::Reserved;

struct Suite {
    gateway: Gateway,
    origin: Origin,
    _down: Reserved,
}

fn suite() -> Arc<Suite> {
    static SUITE: Shared<Suite> = Shared::new();
    SUITE.get(|| {
        let (origin, down) = (Origin::start(Echo::default()), Reserved::new());
        let body = format!(
            "services:\n  - name: web\n    url: http://{}\n    routes:\n      - {{name: all, paths: [/], strip_path: false}}\n      \
             - name: private\n        paths: [/private]\n        plugins: [{{name: key-auth}}]\n  - name: down\n    \
             url: http://{}\n    routes:\n      - {{name: down, paths: [/down]}}\n\
             consumers:\n  - username: ann\n    keyauth_credentials: [{{key: ann-key}}]\n",
            origin.addr(),
            down.addr()
        );
        Suite { gateway: Gateway::start(&Setup::new(body)), origin, _down: down }
    })
}

#[test]
fn a_proxied_request() {
    let suite = suite();
    let mut connection = Connection::open(suite.gateway.addr());
    let request =
        Request::post("/logged", "12345").header("Host", "api.test").header("User-Agent", "tester/1");
    let response = request.keep().send_on(&mut connection).expect(200);
    let line = suite.gateway.logged(|line| line["path"] == "/logged");
    for (field, value) in [
        ("method", "POST".into()),
        ("host", "api.test".into()),
        ("status", 200.into()),
        ("route", "all".into()),
        ("service", "web".into()),
        ("upstream", suite.origin.addr().to_string().into()),
        ("attempts", 1.into()),
        ("request_bytes", 5.into()),
        ("response_bytes", response.body.len.into()),
        ("user_agent", "tester/1".into()),
        ("source", connection.local_addr().to_string().into()),
        ("client", "127.0.0.1".into()),
        ("request_id", response.header("x-request-id").into()),
    ] {
        let expected: serde_json::Value = value;
        assert_eq!(line[field], expected, "{field} in {line}");
    }
    assert!(line.get("reason").is_none() && line.get("consumer").is_none(), "{line}");
    let (total, gateway) =
        (line["total_us"].as_u64().expect("total"), line["gateway_us"].as_u64().expect("gateway"));
    assert!(gateway <= total && total < 20_000_000, "{line}");
    let time = line["time"].as_str().expect("a time");
    assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
}

#[test]
fn a_consumer_is_named_and_a_refusal_explained() {
    let suite = suite();
    Request::get("/private?in").header("apikey", "ann-key").send(suite.gateway.addr()).expect(200);
    let line = suite.gateway.logged(|line| line["path"] == "/private?in");
    assert_eq!((&line["consumer"], &line["route"]), (&"ann".into(), &"private".into()), "{line}");
    let refused = Request::post("/private?out", "1234567").send(suite.gateway.addr()).expect(401);
    let line = suite.gateway.logged(|line| line["path"] == "/private?out");
    assert_eq!((&line["reason"], &line["status"]), (&"unauthorized_missing".into(), &401.into()), "{line}");
    assert!(line.get("upstream").is_none(), "{line}");
    assert_eq!(
        (&line["request_bytes"], &line["response_bytes"]),
        (&7.into(), &refused.body.len.into()),
        "{line}"
    );
}

#[test]
fn failures_of_the_target() {
    let suite = suite();
    Request::get("/down").send(suite.gateway.addr()).expect(502);
    let line = suite.gateway.logged(|line| line["path"] == "/down");
    assert_eq!((&line["reason"], &line["status"]), (&"connect_failed".into(), &502.into()), "{line}");
    assert!(line["attempts"].as_u64() >= Some(1), "{line}");
}

#[test]
fn requests_that_are_none() {
    let suite = suite();
    let reason = |line: &serde_json::Value| line["reason"].as_str().unwrap_or_default().to_owned();
    Connection::open(suite.gateway.addr()).send("NONSENSE\r\n\r\n").response().expect(400);
    let line =
        suite.gateway.logged(|line| reason(line) == "bad_request_line" || reason(line) == "bad_target");
    assert_eq!(line["status"], 400, "{line}");
    Request::get("/x").header("A\u{1}", "b").send(suite.gateway.addr()).expect(400);
    suite.gateway.logged(|line| reason(line) == "bad_header");
}

#[test]
fn no_input_can_forge_a_line() {
    let suite = suite();
    let target = "/forged?%0a{\"status\":200}\"\\";
    let agent = "\"}\\u000a{\"\t\u{e9}";
    let request =
        format!("GET {target} HTTP/1.1\r\nHost: test\r\nUser-Agent: {agent}\r\nConnection: close\r\n\r\n");
    drop(Connection::open(suite.gateway.addr()).send(request).response());
    // `access_log` panics on a line that is no JSON object.
    suite.gateway.logged(|line| line["path"].as_str().is_some_and(|path| path.starts_with("/forged")));
}

#[test]
fn secrets_in_the_query_are_masked() {
    let suite = suite();
    let secret = "s3cr3t-value";
    Request::get(&format!("/masked?a=1&apikey={secret}&access_token={secret}")).send(suite.gateway.addr());
    let line =
        suite.gateway.logged(|line| line["path"].as_str().is_some_and(|path| path.starts_with("/masked")));
    assert!(!line.to_string().contains(secret), "{line}");
    assert!(line["path"].as_str().is_some_and(|path| path.contains("a=1")), "{line}");
}

#[test]
fn every_exchange_has_exactly_one_line() {
    let origin = Origin::start(Echo::default());
    let gateway = Gateway::start(&Setup::proxy(origin.addr(), ""));
    let mut connection = Connection::open(gateway.addr());
    let requests: Vec<u8> = (0..200).flat_map(|n| Request::get(&format!("/{n}")).keep().bytes()).collect();
    connection.send(&requests);
    (0..200).for_each(|_| drop(connection.response().expect(200)));
    eventually("200 lines", || {
        holds(gateway.access_log().len() >= 200, gateway.access_log().len().to_string())
    });
    let mut ids: Vec<_> = gateway.access_log().iter().map(|line| line["request_id"].to_string()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 200);
    gateway.signal("TERM");
}

#[test]
fn a_rotated_file_is_opened_again_on_hup() {
    let origin = Origin::start(Echo::default());
    let gateway = Gateway::start(&Setup::proxy(origin.addr(), ""));
    Request::get("/before").send(gateway.addr()).expect(200);
    gateway.logged(|line| line["path"] == "/before");
    std::fs::rename(gateway.dir().join("access.log"), gateway.dir().join("access.log.1")).expect("renaming");
    gateway.signal("HUP");
    eventually("a new file", || holds(gateway.dir().join("access.log").exists(), "not yet"));
    Request::get("/after").send(gateway.addr()).expect(200);
    gateway.logged(|line| line["path"] == "/after");
}

#[test]
fn the_end_loses_no_line() {
    let origin = Origin::start(Echo::default());
    let gateway = Gateway::start(&Setup::proxy(origin.addr(), ""));
    let log = gateway.dir().join("access.log");
    for _ in 0..50 {
        Request::get("/last").send(gateway.addr()).expect(200);
    }
    let kept = tempfile::NamedTempFile::new().expect("a file");
    // The folder goes with the guard, so the log is linked to a place that stays.
    let link = kept.path().with_extension("log");
    std::fs::hard_link(&log, &link).expect("linking");
    gateway.stop();
    let text = std::fs::read_to_string(&link).expect("the log");
    drop(std::fs::remove_file(&link));
    assert_eq!(text.lines().count(), 50);
}
