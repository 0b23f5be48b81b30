//! request-transformer and response-transformer: headers and query, in Kong's order of steps.

use std::sync::Arc;

use portcullis_tests::client::{Request, Response};
use portcullis_tests::gateway::{Gateway, Setup, Shared};
use portcullis_tests::origin::{Canned, Echo, Origin};

struct Suite {
    gateway: Gateway,
    _origins: [Origin; 2],
}

const REQUEST: &str = r#"
          - name: request-transformer
            config:
              remove: {headers: [X-Remove], querystring: [secret]}
              rename: {headers: ["X-Old:X-New"], querystring: ["from:to"]}
              replace: {headers: ["X-Replace:new", "X-Absent:never"], querystring: ["page:9"]}
              add: {headers: ["X-Add:added", "X-Present:ignored"], querystring: ["v:2"]}
              append: {headers: ["X-Append:second"], querystring: ["tag:b"]}
"#;

const RESPONSE: &str = r#"
          - name: response-transformer
            config:
              remove: {headers: [X-Powered-By, Server]}
              rename: {headers: ["X-Old:X-New"]}
              replace: {headers: ["X-Replace:new", "X-Absent:never"]}
              add: {headers: ["X-Add:added", "X-Present:ignored"]}
              append: {headers: ["X-Append:second", "Set-Cookie:c=3"]}
"#;

const REWRITE: &str = r#"
          - name: request-transformer
            config: {replace: {uri: "/new/$(query_params.id)", headers: ["Host:internal.example"]}}
"#;

/// The suite's gateway. A test holds it to its end, lest it be stopped between two requests.
fn suite() -> Arc<Suite> {
    static SUITE: Shared<Suite> = Shared::new();
    SUITE.get(|| {
        let echo = Origin::start(Echo::default());
        let canned = Origin::start(Canned {
            status: "200 OK",
            fields: "X-Powered-By: php\r\nServer: origin\r\nX-Old: 1\r\nX-Replace: old\r\nX-Present: 1\r\n\
                     X-Append: first\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n",
            body: "text",
        });
        let route = |name: &str, origin: &Origin, plugins: &str| {
            format!(
                "  - name: {name}\n    url: http://{}\n    routes:\n      - name: {name}\n        paths: [/{name}]\n        \
                 plugins:{plugins}",
                origin.addr()
            )
        };
        let body = format!(
            "services:\n{}{}{}{}{}",
            route("request", &echo, REQUEST),
            route("response", &canned, RESPONSE),
            route("method", &echo, "\n          - name: request-transformer\n            config: {http_method: PUT}\n"),
            route("head", &echo, "\n          - name: request-transformer\n            config: {http_method: HEAD}\n"),
            route("rewrite", &echo, REWRITE).replace(&echo.addr().to_string(), &format!("{}/base", echo.addr())),
        );
        Suite { gateway: Gateway::start(&Setup::new(body)), _origins: [echo, canned] }
    })
}

fn send(request: Request) -> Response {
    request.send(suite().gateway.addr()).expect(200)
}

#[test]
fn request_headers_step_by_step() {
    let _held = suite();
    let request = Request::get("/request/x")
        .header("X-Remove", "1")
        .header("X-Old", "old")
        .header("X-Replace", "old")
        .header("X-Present", "mine")
        .header("X-Append", "first");
    let echoed = send(request).echoed();
    assert!(echoed.all("x-remove").is_empty());
    assert!(echoed.all("x-old").is_empty());
    assert_eq!(echoed.all("x-new"), ["old"]);
    assert_eq!(echoed.all("x-replace"), ["new"]);
    assert!(echoed.all("x-absent").is_empty(), "replace adds nothing");
    assert_eq!(echoed.all("x-add"), ["added"]);
    assert_eq!(echoed.all("x-present"), ["mine"], "add replaces nothing");
    assert_eq!(echoed.all("x-append").join(", "), "first, second");
}

#[test]
fn append_without_a_first_value_adds() {
    let _held = suite();
    assert_eq!(send(Request::get("/request")).echoed().all("x-append"), ["second"]);
}

#[test]
fn request_query_step_by_step() {
    let _held = suite();
    let echoed = send(Request::get("/request/x?secret=1&from=a&page=1&tag=a&keep=%2Fx")).echoed();
    let (path, query) = echoed.target().split_once('?').expect("a query");
    assert_eq!(path, "/x");
    let arguments: Vec<&str> = query.split('&').collect();
    for wanted in ["to=a", "page=9", "tag=a", "tag=b", "keep=%2Fx", "v=2"] {
        assert!(arguments.contains(&wanted), "{wanted} in {query}");
    }
    assert_eq!(arguments.len(), 6, "{query}");
}

#[test]
fn the_method_can_be_changed() {
    let _held = suite();
    let echoed = send(Request::post("/method", "body")).echoed();
    assert_eq!((&echoed.0["method"], &echoed.0["body"]), (&"PUT".into(), &"body".into()));
}

#[test]
fn response_headers_step_by_step() {
    let _held = suite();
    let response = send(Request::get("/response"));
    let all = |name: &str| response.head.all(name);
    assert!(all("x-powered-by").is_empty());
    assert!(!all("server").contains(&"origin"));
    assert!(all("x-old").is_empty());
    assert_eq!(all("x-new"), ["1"]);
    assert_eq!(all("x-replace"), ["new"]);
    assert!(all("x-absent").is_empty());
    assert_eq!(all("x-add"), ["added"]);
    assert_eq!(all("x-present"), ["1"]);
    assert_eq!(all("x-append").join(", "), "first, second");
    assert_eq!(all("set-cookie"), ["a=1", "b=2", "c=3"]);
    assert_eq!(response.text(), "text");
}

#[test]
fn a_transformer_cannot_break_framing() {
    let suite = suite();
    let mut connection = portcullis_tests::client::Connection::open(suite.gateway.addr());
    for _ in 0..2 {
        let response = Request::post("/request", "some body").keep().send_on(&mut connection).expect(200);
        assert_eq!(response.json()["body"], "some body");
    }
}

#[test]
fn a_replaced_path_is_final_and_stays_in_its_place() {
    let echoed = send(Request::get("/rewrite/x?id=a%20b")).echoed();
    assert_eq!(echoed.target(), "/new/a%20b?id=a%20b", "no service path, nothing stripped");
    assert_eq!(echoed.all("host"), ["internal.example"]);
    Request::get("/rewrite/x?id=..%2Fadmin").send(suite().gateway.addr()).expect(400);
}

/// Client and upstream at odds about HEAD must not be at odds about where a response ends.
#[test]
fn a_changed_method_leaves_the_clients_framing_alone() {
    let suite = suite();
    let mut connection = portcullis_tests::client::Connection::open(suite.gateway.addr());
    for _ in 0..2 {
        let response = Request::new("HEAD", "/method").keep().send_on(&mut connection).expect(200);
        assert_eq!(response.text(), "");
        let response = Request::get("/head").keep().send_on(&mut connection).expect(200);
        assert_eq!((response.header("content-length"), &*response.text()), ("0", ""));
        let response = Request::get("/method").keep().send_on(&mut connection).expect(200);
        assert_eq!(response.json()["method"], "PUT");
    }
}
