//! Kong's plugins that are neither authentication, limits nor transformers: what the client gets and what the origin
//! learns, option by option.

use std::net::SocketAddr;
use std::sync::Arc;

use portcullis_tests::client::{Connection, Request, Response};
use portcullis_tests::gateway::{Gateway, Setup, Shared};
use portcullis_tests::origin::{Echo, Origin};
use serde_json::json;

struct Suite {
    gateway: Gateway,
    _origin: Origin,
}

/// One route a line: its name, which is its path too, and its plugins.
const ROUTES: &[(&str, &str)] = &[
    ("acl", "{name: key-auth}, {name: acl, config: {allow: [readers]}}"),
    ("acl-deny", "{name: key-auth}, {name: acl, config: {deny: [readers], hide_groups_header: true}}"),
    ("acl-alone", "{name: acl, config: {allow: [readers]}}"),
    ("ip", "{name: ip-restriction, config: {allow: [127.0.0.0/8], deny: [127.6.6.0/24]}}"),
    ("ip-none", "{name: ip-restriction, config: {deny: [127.0.0.0/8], status: 404, message: Nothing here}}"),
    ("stop", "{name: request-termination}"),
    (
        "stop-body",
        "{name: request-termination, config: {status_code: 200, body: <p>, content_type: text/html}}",
    ),
    ("stop-empty", "{name: request-termination, config: {status_code: 204, trigger: X-Stop}}"),
    ("stop-echo", "{name: request-termination, config: {status_code: 200, echo: true, message: seen}}"),
    ("id", "{name: correlation-id, config: {header_name: X-Id, generator: tracker, echo_downstream: true}}"),
    ("id-hidden", "{name: correlation-id}"),
    (
        "id-stop",
        "{name: correlation-id, config: {generator: uuid, echo_downstream: true}}, {name: request-termination}",
    ),
    ("size", "{name: request-size-limiting, config: {allowed_payload_size: 1000, size_unit: bytes}}"),
    ("size-kb", "{name: request-size-limiting, config: {allowed_payload_size: 1, size_unit: kilobytes}}"),
    ("size-told", "{name: request-size-limiting, config: {require_content_length: true}}"),
    ("cors", "{name: cors}, {name: key-auth}"),
    (
        "cors-sites",
        "{name: cors, config: {origins: ['https://.*\\.example\\.com'], credentials: true, max_age: 60, \
      headers: [X-A], methods: [GET, PUT], exposed_headers: [X-B], private_network: true}}",
    ),
    ("cors-through", "{name: cors, config: {preflight_continue: true, allow_origin_absent: false}}"),
    ("bot", "{name: bot-detection, config: {allow: ['^good'], deny: [robot]}}"),
    ("basic", "{name: basic-auth}"),
    ("basic-hidden", "{name: basic-auth, config: {hide_credentials: true, realm: shop, anonymous: ben}}"),
];

const CONSUMERS: &str = "
consumers:
  - username: ann
    keyauth_credentials: [{key: ann-key}]
    basicauth_credentials: [{username: ann, password: open sesame}]
    acls: [{group: readers}, {group: staff}]
  - username: ben
    keyauth_credentials: [{key: ben-key}]
    acls: [{group: staff}]
";

fn suite() -> Arc<Suite> {
    static SUITE: Shared<Suite> = Shared::new();
    SUITE.get(|| {
        let origin = Origin::start(Echo::default());
        let routes: String = ROUTES
            .iter()
            .map(|(name, plugins)| {
                format!("      - {{name: {name}, paths: [/{name}/], plugins: [{plugins}]}}\n")
            })
            .collect();
        let services =
            format!("services:\n  - name: web\n    url: http://{}\n    routes:\n{routes}", origin.addr());
        Suite { gateway: Gateway::start(&Setup::new(services + CONSUMERS)), _origin: origin }
    })
}

fn send(request: Request) -> Response {
    request.send(suite().gateway.addr())
}

fn get(path: &str, key: &str) -> Response {
    send(Request::get(path).header("apikey", key))
}

#[test]
fn acl_allow() {
    let _held = suite();
    let echoed = get("/acl/", "ann-key").expect(200).echoed();
    assert_eq!(echoed.all("x-consumer-groups"), ["readers, staff"]);
    let refused = get("/acl/", "ben-key").expect(403);
    assert_eq!(refused.json(), json!({"message": "You cannot consume this service"}));
    get("/acl/", "nobodys").expect(401);
}

#[test]
fn acl_deny_and_hide_groups_header() {
    let _held = suite();
    get("/acl-deny/", "ann-key").expect(403);
    let request =
        Request::get("/acl-deny/").header("apikey", "ben-key").header("X-Consumer-Groups", "admins");
    assert!(send(request).expect(200).echoed().all("x-consumer-groups").is_empty());
}

#[test]
fn acl_without_a_consumer() {
    let _held = suite();
    assert_eq!(get("/acl-alone/", "ann-key").expect(401).json(), json!({"message": "Unauthorized"}));
}

/// Sends from another address of this machine.
fn from(source: &str, request: Request) -> Response {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    let source: SocketAddr = format!("{source}:0").parse().expect("an address");
    socket.bind(&source.into()).expect("binding");
    socket.connect(&suite().gateway.addr().into()).expect("connecting");
    let mut connection = Connection::over(socket.into()).expect("a connection");
    request.send_on(&mut connection)
}

#[test]
fn ip_restriction_allow_and_deny() {
    let _held = suite();
    from("127.0.0.9", Request::get("/ip/")).expect(200);
    let refused = from("127.6.6.6", Request::get("/ip/")).expect(403);
    assert_eq!(refused.json(), json!({"message": "IP address not allowed: 127.6.6.6"}));
    // Nobody here is a trusted proxy.
    from("127.6.6.6", Request::get("/ip/").header("X-Forwarded-For", "127.0.0.1")).expect(403);
}

#[test]
fn ip_restriction_status_and_message() {
    let _held = suite();
    let refused = send(Request::get("/ip-none/")).expect(404);
    assert_eq!(refused.json(), json!({"message": "Nothing here"}));
}

#[test]
fn request_termination_status_code_and_message() {
    let _held = suite();
    let response = send(Request::get("/stop/")).expect(503);
    assert_eq!(response.json(), json!({"message": "Service unavailable"}));
}

#[test]
fn request_termination_body_and_content_type() {
    let _held = suite();
    let response = send(Request::get("/stop-body/")).expect(200);
    assert_eq!((response.header("content-type"), &*response.text()), ("text/html", "<p>"));
}

#[test]
fn request_termination_trigger() {
    let suite = suite();
    let mut connection = Connection::open(suite.gateway.addr());
    for _ in 0..2 {
        Request::get("/stop-empty/").keep().send_on(&mut connection).expect(200);
        let stopped = Request::get("/stop-empty/?X-Stop=1").keep().send_on(&mut connection).expect(204);
        assert!(!stopped.has("content-length") && !stopped.has("content-type"), "{:?}", stopped.head.fields);
    }
}

#[test]
fn request_termination_echo() {
    let _held = suite();
    let told = send(Request::post("/stop-echo/x?a=b", "body").header("X-Mine", "1")).expect(200).json();
    assert_eq!((&told["message"], &told["matched_route"]), (&json!("seen"), &json!("stop-echo")));
    let request = &told["request"];
    assert_eq!((&request["method"], &request["path"]), (&json!("POST"), &json!("/stop-echo/x")));
    assert_eq!((&request["headers"]["x-mine"], &request["query"]["a"]), (&json!("1"), &json!("b")));
}

#[test]
fn correlation_id_header_name_and_echo_downstream() {
    let _held = suite();
    let response = send(Request::get("/id/")).expect(200);
    let id = response.header("x-id").to_owned();
    assert_eq!(response.echoed().all("x-id"), [&id]);
    let parts: Vec<_> = id.split('-').collect();
    let port = suite().gateway.addr().port().to_string();
    assert_eq!((parts[0], parts[1], parts[4], parts.len()), ("127.0.0.1", &*port, "1", 6), "{id}");
    let response = send(Request::get("/id/").header("X-Id", "mine")).expect(200);
    assert_eq!((response.header("x-id"), response.echoed().all("x-id")), ("mine", vec!["mine"]));
}

#[test]
fn correlation_id_counts() {
    let _held = suite();
    let response = send(Request::get("/id-hidden/")).expect(200);
    assert!(!response.has("kong-request-id"));
    let first = response.echoed().get("kong-request-id").expect("an id").to_owned();
    let second = send(Request::get("/id-hidden/")).expect(200).echoed();
    assert!(first.contains('#') && second.get("kong-request-id").expect("an id") != first, "{first}");
}

#[test]
fn correlation_id_of_an_answer_by_the_gateway() {
    let _held = suite();
    let id = |response: Response| response.expect(503).header("kong-request-id").to_owned();
    let (first, second) = (id(send(Request::get("/id-stop/"))), id(send(Request::get("/id-stop/"))));
    assert!(first.len() == 36 && first != second, "{first} {second}");
}

fn chunked(path: &str, bytes: usize) -> Response {
    let mut connection = Connection::open(suite().gateway.addr());
    let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    connection.send(format!("{head}{bytes:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(bytes)));
    connection.response()
}

#[test]
fn request_size_limiting_of_announced_bodies() {
    let _held = suite();
    send(Request::post("/size/", "x".repeat(1000))).expect(200);
    let refused = send(Request::post("/size/", "x".repeat(1001))).expect(413);
    assert_eq!(refused.json(), json!({"message": "Request size limit exceeded"}));
    send(Request::post("/size-kb/", "x".repeat(1024))).expect(200);
    send(Request::post("/size-kb/", "x".repeat(1025))).expect(413);
    let mut connection = Connection::open(suite().gateway.addr());
    connection
        .send("POST /size/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\nExpect: 100-continue\r\n\r\n");
    let refused = connection.response().expect(417);
    assert!(refused.interim.is_empty() && refused.text().contains("Request size limit exceeded"));
}

#[test]
fn request_size_limiting_of_chunked_bodies() {
    let _held = suite();
    assert_eq!(chunked("/size/", 1000).expect(200).json()["body"], "x".repeat(1000));
    let refused = chunked("/size/", 1001).expect(413);
    assert_eq!(refused.json(), json!({"message": "Request size limit exceeded"}));
}

#[test]
fn request_size_limiting_require_content_length() {
    let _held = suite();
    let refused = chunked("/size-told/", 7).expect(411);
    assert_eq!(refused.json(), json!({"message": "A valid Content-Length header is required"}));
    send(Request::post("/size-told/", "x")).expect(200);
    send(Request::get("/size-told/")).expect(200);
}

fn preflight(path: &str, origin: &str) -> Request {
    let request = Request::new("OPTIONS", path).header("Origin", origin);
    request.header("Access-Control-Request-Method", "PUT").header("Access-Control-Request-Headers", "x-asked")
}

#[test]
fn cors_preflight() {
    let suite = suite();
    // The answer needs no key, and the next request on the connection is found.
    let mut connection = Connection::open(suite.gateway.addr());
    for _ in 0..2 {
        let response = preflight("/cors/", "https://a.net").keep().send_on(&mut connection).expect(200);
        assert_eq!((response.header("content-length"), response.has("content-type")), ("0", false));
        assert_eq!(response.header("access-control-allow-origin"), "*");
        assert_eq!(response.header("access-control-allow-headers"), "x-asked");
        assert!(response.header("access-control-allow-methods").contains("PUT"));
    }
    let response = preflight("/cors-through/", "https://a.net").send(suite.gateway.addr()).expect(200);
    assert!(!response.has("access-control-allow-origin"));
    assert_eq!(response.echoed().0["method"], "OPTIONS");
}

#[test]
fn cors_of_some_sites() {
    let _held = suite();
    let asked = preflight("/cors-sites/", "https://shop.example.com");
    let response = send(asked.header("Access-Control-Request-Private-Network", "true")).expect(200);
    for (name, value) in [
        ("vary", "Origin"),
        ("access-control-allow-origin", "https://shop.example.com"),
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-headers", "X-A"),
        ("access-control-allow-methods", "GET,PUT"),
        ("access-control-max-age", "60"),
        ("access-control-allow-private-network", "true"),
    ] {
        assert_eq!(response.header(name), value, "{name}");
    }
    let response =
        send(Request::get("/cors-sites/").header("Origin", "https://shop.example.com")).expect(200);
    assert_eq!(response.header("access-control-allow-origin"), "https://shop.example.com");
    assert_eq!(response.header("access-control-expose-headers"), "X-B");
    let response =
        send(Request::get("/cors-sites/").header("Origin", "https://example.com.evil.net")).expect(200);
    assert!(!response.has("access-control-allow-origin") && response.header("vary") == "Origin");
}

/// A script must be able to read why it was refused.
#[test]
fn cors_of_an_answer_by_the_gateway() {
    let _held = suite();
    let response = send(Request::get("/cors/").header("Origin", "https://a.net")).expect(401);
    assert_eq!(response.header("access-control-allow-origin"), "*");
    let response = send(Request::get("/cors-through/")).expect(200);
    assert!(!response.has("access-control-allow-origin"), "no Origin, no fields");
}

#[test]
fn bot_detection_allow_and_deny() {
    let _held = suite();
    let agent = |agent: &str| send(Request::get("/bot/").header("User-Agent", agent));
    agent("a browser").expect(200);
    agent("good robot").expect(200);
    assert_eq!(agent("robot").expect(403).json(), json!({"message": "Forbidden"}));
    agent("Mozilla/5.0 (compatible; Googlebot/2.1)").expect(403);
    send(Request::get("/bot/")).expect(200);
    send(Request::get("/bot/").header("User-Agent", "a").header("User-Agent", "b")).expect(400);
}

#[test]
fn basic_auth() {
    let _held = suite();
    let refused = send(Request::get("/basic/")).expect(401);
    assert_eq!(refused.header("www-authenticate"), "Basic realm=\"service\"");
    assert_eq!(refused.json(), json!({"message": "Unauthorized"}));
    // ann:open sesame, ann:open
    let basic =
        |path: &str, text: &str| send(Request::get(path).header("Authorization", format!("Basic {text}")));
    let echoed = basic("/basic/", "YW5uOm9wZW4gc2VzYW1l").expect(200).echoed();
    assert_eq!((echoed.all("x-consumer-username"), echoed.all("authorization").len()), (vec!["ann"], 1));
    basic("/basic/", "YW5uOm9wZW4=").expect(401);
    let echoed = basic("/basic-hidden/", "YW5uOm9wZW4gc2VzYW1l").expect(200).echoed();
    assert_eq!((echoed.all("x-consumer-username"), echoed.all("authorization").len()), (vec!["ann"], 0));
    let echoed = basic("/basic-hidden/", "YW5uOm9wZW4=").expect(200).echoed();
    assert_eq!(
        (echoed.all("x-consumer-username"), echoed.all("x-anonymous-consumer")),
        (vec!["ben"], vec!["true"])
    );
}
