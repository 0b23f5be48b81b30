//! What the gateway changes in a head on the way: hop-by-hop fields, Via, X-Forwarded-*, Host.

use std::sync::Arc;

use portcullis_tests::client::{Echoed, Request, exchange};
use portcullis_tests::gateway::{Gateway, Setup, Shared};
use portcullis_tests::origin::{Canned, Echo, Origin};

struct Suite {
    open: Gateway,
    trusting: Gateway,
    origin: Origin,
    answering: Gateway,
    _canned: Origin,
}

fn suite() -> Arc<Suite> {
    static SUITE: Shared<Suite> = Shared::new();
    SUITE.get(|| {
        let origin = Origin::start(Echo::default());
        let canned = Origin::start(Canned {
            status: "200 OK",
            fields: "Connection: X-Secret, keep-alive\r\nX-Secret: 1\r\nKeep-Alive: timeout=5\r\n\
                     Proxy-Authenticate: Basic\r\nServer: origin\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\
                     Upgrade: h2c\r\n",
            body: "x",
        });
        Suite {
            open: Gateway::start(&Setup::proxy(origin.addr(), "")),
            trusting: Gateway::start(&Setup::proxy(origin.addr(), "").with("trusted_proxies: [127.0.0.0/8]")),
            answering: Gateway::start(&Setup::proxy(canned.addr(), "")),
            _canned: canned,
            origin,
        }
    })
}

fn through(gateway: &Gateway, request: Request) -> Echoed {
    request.send(gateway.addr()).expect(200).echoed()
}

#[test]
fn hop_by_hop_request_fields_end_here() {
    let suite = suite();
    let request = Request::get("/")
        .header("Connection", "X-Private, close")
        .header("X-Private", "1")
        .header("Keep-Alive", "timeout=5")
        .header("Proxy-Connection", "keep-alive")
        .header("Proxy-Authorization", "Basic eDp5")
        .header("TE", "gzip")
        .header("Upgrade", "h2c")
        .header("X-Public", "2");
    let echoed = through(&suite.open, request);
    for gone in ["x-private", "keep-alive", "proxy-connection", "te", "upgrade"] {
        assert!(echoed.all(gone).is_empty(), "{gone}: {:?}", echoed.all(gone));
    }
    assert_eq!(echoed.get("x-public"), Some("2"));
}

#[test]
fn connection_cannot_remove_what_routing_and_framing_need() {
    let suite = suite();
    let request = Request::post("/", "body")
        .header("Connection", "Host, Content-Length, X-Forwarded-For, Authorization")
        .header("Authorization", "Bearer t");
    let response = request.send(suite.open.addr());
    // Both are safe: to refuse such a request, or to keep the fields that are not the client's to drop.
    if response.status == 200 {
        let echoed = response.echoed();
        assert_eq!(echoed.all("host").len(), 1);
        assert_eq!(echoed.all("x-forwarded-for").len(), 1, "{:?}", echoed.0);
        assert_eq!(echoed.0["body"], "body");
    } else {
        response.expect(400);
    }
}

#[test]
fn connection_removes_what_it_lists_rfc9110_7_6_1() {
    let suite = suite();
    let request = Request::get("/").header("Connection", "Cookie, If-None-Match, X-Forwarded-User");
    let request = request.header("Cookie", "a=b").header("If-None-Match", "\"x\"");
    let request = request.header("X-Forwarded-User", "ann");
    let echoed = through(&suite.trusting, request);
    assert_eq!((echoed.get("cookie"), echoed.get("if-none-match")), (None, None), "{:?}", echoed.0);
    assert_eq!(echoed.get("x-forwarded-user"), Some("ann"), "what a hop before has added");
    let many: Vec<String> = (0..33).map(|number| format!("x{number}")).collect();
    Request::get("/").header("Connection", many.join(",")).send(suite.open.addr()).expect(400);
}

#[test]
fn hop_by_hop_response_fields_end_here() {
    let suite = suite();
    let response = Request::get("/").keep().send(suite.answering.addr()).expect(200);
    for gone in ["x-secret", "keep-alive", "upgrade"] {
        assert!(!response.has(gone), "{gone}: {:?}", response.head.fields);
    }
    assert!(!response.head.has_token("connection", "X-Secret"));
    assert_eq!(response.head.all("set-cookie"), ["a=1", "b=2"]);
}

#[test]
fn via_is_added_both_ways() {
    let suite = suite();
    let echoed = through(&suite.open, Request::get("/").header("Via", "1.0 before"));
    let via = echoed.all("via").join(", ");
    assert!(via.starts_with("1.0 before, 1.1 "), "{via:?}");
    let response = Request::get("/").send(suite.answering.addr());
    assert!(response.header("via").starts_with("1.1 "), "{:?}", response.head.fields);
}

#[test]
fn a_request_without_a_host_gets_the_targets_rfc9112_3_2() {
    let origin = Origin::start(Echo::default());
    let gateway = Gateway::start(&Setup::proxy(origin.addr(), "        preserve_host: true\n"));
    let echoed = exchange(gateway.addr(), "GET /old HTTP/1.0\r\n\r\n").expect(200).echoed();
    assert_eq!(echoed.all("host"), [origin.addr().to_string()]);
    assert!(echoed.all("x-forwarded-host").is_empty(), "{:?}", echoed.0);
    let named = Request::get("/").header("Host", "shop.test").send(gateway.addr());
    assert_eq!(named.expect(200).echoed().all("host"), ["shop.test"]);
}

#[test]
fn forwarded_fields_of_a_stranger_are_replaced() {
    let suite = suite();
    let request = Request::get("/where")
        .header("Host", "api.test:8080")
        .header("X-Forwarded-For", "1.2.3.4")
        .header("X-Forwarded-Proto", "https")
        .header("X-Forwarded-Host", "evil.test")
        .header("X-Forwarded-Port", "1")
        .header("X-Forwarded-Prefix", "/evil")
        .header("X-Forwarded-User", "root")
        .header("x-forwarded-ssl", "on")
        .header("X-Real-IP", "1.2.3.4")
        .header("Forwarded", "for=1.2.3.4");
    let echoed = through(&suite.open, request);
    assert_eq!(echoed.get("x-forwarded-user"), None, "the whole class is a claim");
    assert_eq!(echoed.get("x-forwarded-ssl"), None);
    assert_eq!(echoed.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(echoed.all("x-forwarded-proto"), ["http"]);
    assert_eq!(echoed.all("x-real-ip"), ["127.0.0.1"]);
    let host = echoed.all("x-forwarded-host");
    assert!(host.len() == 1 && host[0].starts_with("api.test"), "{host:?}");
    assert_eq!(echoed.all("x-forwarded-port").len(), 1);
    assert_ne!(echoed.get("x-forwarded-port"), Some("1"));
    assert!(!echoed.all("x-forwarded-prefix").contains(&"/evil"));
    assert!(!echoed.all("forwarded").join("").contains("1.2.3.4"));
}

#[test]
fn forwarded_fields_of_a_trusted_peer_are_continued() {
    let suite = suite();
    let request = Request::get("/where")
        .header("X-Forwarded-For", "203.0.113.9, 127.0.0.7")
        .header("X-Forwarded-Proto", "https")
        .header("X-Forwarded-Host", "public.test")
        .header("X-Forwarded-Port", "443");
    let echoed = through(&suite.trusting, request);
    assert_eq!(echoed.all("x-forwarded-for").join(", "), "203.0.113.9, 127.0.0.7, 127.0.0.1");
    assert_eq!(echoed.get("x-forwarded-proto"), Some("https"));
    assert_eq!(echoed.get("x-forwarded-host"), Some("public.test"));
    assert_eq!(echoed.get("x-forwarded-port"), Some("443"));
    // From the right, past trusted hops: 127.0.0.7 is ours, 203.0.113.9 is the client.
    assert_eq!(echoed.get("x-real-ip"), Some("203.0.113.9"));
}

#[test]
fn a_forged_entry_left_of_the_real_one_is_not_believed() {
    let suite = suite();
    let request = Request::get("/").header("X-Forwarded-For", "10.9.9.9, 203.0.113.9");
    assert_eq!(through(&suite.trusting, request).get("x-real-ip"), Some("203.0.113.9"));
}

#[test]
fn broken_forwarded_for_falls_back_to_the_peer() {
    let suite = suite();
    let request = Request::get("/").header("X-Forwarded-For", "not an address");
    assert_eq!(through(&suite.trusting, request).get("x-real-ip"), Some("127.0.0.1"));
}

#[test]
fn the_host_sent_on_is_the_target_unless_preserved() {
    let suite = suite();
    let echoed = through(&suite.open, Request::get("/").header("Host", "client.test"));
    assert_eq!(echoed.all("host"), [suite.origin.addr().to_string()]);
    let kept = Gateway::start(&Setup::proxy(suite.origin.addr(), "        preserve_host: true\n"));
    let echoed = through(&kept, Request::get("/").header("Host", "client.test"));
    assert_eq!(echoed.all("host"), ["client.test"]);
}

#[test]
fn end_to_end_fields_keep_their_order_and_spelling() {
    let suite = suite();
    let request =
        Request::get("/").header("X-b", "2").header("X-A", "1").header("x-B", "3").header("Empty", "");
    let echoed = through(&suite.open, request);
    assert_eq!(echoed.all("x-b"), ["2", "3"]);
    assert_eq!(echoed.all("empty"), [""]);
    let head = echoed.0["raw_head"].as_str().expect("a head").to_owned();
    let place = |name: &str| head.find(name).unwrap_or_else(|| panic!("{name} in {head:?}"));
    assert!(place("X-b:") < place("X-A:") && place("X-A:") < place("x-B:"), "{head:?}");
}

#[test]
fn names_with_underscores_are_dropped() {
    // Many programs read `X_Real_IP` as `X-Real-IP`, so letting it pass would forge the latter.
    let suite = suite();
    let counted = || suite.open.metrics().get("portcullis_request_fields_underscored_total", &[]);
    let before = counted();
    let echoed = through(&suite.open, Request::get("/").header("X_Real_IP", "1.2.3.4").header("Plain", "1"));
    assert_eq!(counted(), before + 1.0);
    assert!(echoed.all("x_real_ip").is_empty());
    assert_eq!(echoed.get("plain"), Some("1"));
}

#[test]
fn identity_headers_of_a_client_are_stripped() {
    let suite = suite();
    let request = Request::get("/")
        .header("X-Consumer-Username", "root")
        .header("X-Consumer-ID", "1")
        .header("X-Credential-Identifier", "1")
        .header("X-Consumer-Groups", "admins");
    let echoed = through(&suite.open, request);
    for name in ["x-consumer-username", "x-consumer-id", "x-credential-identifier", "x-consumer-groups"] {
        assert!(echoed.all(name).is_empty(), "{name} reached the origin without any authentication");
    }
}

#[test]
fn a_request_id_is_made_and_given_to_both_sides() {
    let suite = suite();
    let response = Request::get("/id").send(suite.open.addr()).expect(200);
    let id = response.header("x-request-id").to_owned();
    assert!(id.len() >= 16, "{:?}", response.head.fields);
    assert_eq!(response.echoed().get("x-request-id"), Some(id.as_str()));
    let other = Request::get("/id").send(suite.open.addr());
    assert_ne!(other.header("x-request-id"), id);
}

#[test]
fn underscores_by_the_setting() {
    let suite = suite();
    let request = || {
        Request::get("/").header("own_name", "1").header("content_length", "5").header("x_real_ip", "1.1.1.1")
    };
    assert_eq!(through(&suite.open, request()).get("own_name"), None);
    // Who calls it gRPC has no right to more where no calls are taken.
    let called =
        Request::post("/", "x").header("Content-Type", "application/grpc-web").header("own_name", "1");
    assert_eq!(through(&suite.open, called).get("own_name"), None);
    let gateway = |underscores: &str| {
        let setup =
            Setup::proxy(suite.origin.addr(), "").with(&format!("http: {{underscores: {underscores}}}"));
        Gateway::start(&setup)
    };
    let keeping = gateway("keep");
    let echoed = through(&keeping, request());
    assert_eq!(echoed.get("own_name"), Some("1"));
    assert_eq!((echoed.get("content_length"), echoed.get("x_real_ip")), (None, None), "{:?}", echoed.0);
    request().send(gateway("reject").addr()).expect(400);
}
