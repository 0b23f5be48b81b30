//! What users of Kong and Traefik paste in first: the gateway runs with it, and it means what it says. The files are
//! those that the importer is tested with; only the addresses of services are put in, and the head that the harness
//! writes by itself is left out.

use std::net::SocketAddr;

use jsonwebtoken::Algorithm;
use portcullis_tests::client::{Connection, Request, Response};
use portcullis_tests::gateway::{Gateway, Setup};
use portcullis_tests::origin::{Canned, Echo, Origin};
use portcullis_tests::tokens::{claims, keys, token};

fn kong(name: &str) -> String {
    let path = format!("{}/../gateway/tests/import/kong/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The gateway with one of the files, in front of `origin`.
fn start(name: &str, origin: SocketAddr, more: &str) -> Gateway {
    let text = kong(name);
    let lines =
        text.lines().filter(|line| !line.starts_with("_format_version") && !line.starts_with("_transform"));
    let text = lines.collect::<Vec<_>>().join("\n");
    let text = text
        .replace("http://orders-service:8080", &format!("http://{origin}"))
        .replace("http://upload-service:8080", &format!("http://{origin}"))
        .replace("orders-1:8080", &origin.to_string());
    Gateway::start(&Setup::new(format!("{text}\n{more}")))
}

fn consumers() -> String {
    let (name, secret) = keys().verifier(Algorithm::HS256);
    format!(
        "consumers:\n- username: reader\n  jwt_secrets: [{{key: iss-reader, algorithm: HS256, {name}: {secret}}}]\n  \
         acls: [{{group: orders-read}}]\n- username: stranger\n  jwt_secrets: [{{key: iss-stranger, algorithm: HS256, \
         {name}: {secret}}}]\n"
    )
}

fn bearer(issuer: &str) -> String {
    format!("Bearer {}", token(Algorithm::HS256, &claims(issuer)))
}

const ORDERS: &str = "/api/v1/orders";

#[test]
fn jwt_and_acl() {
    let origin = Origin::start(Echo::default());
    let gateway = start("jwt_acl", origin.addr(), &consumers());
    let send = |authorization: Option<&str>| {
        let mut request = Request::get(ORDERS);
        if let Some(value) = authorization {
            request = request.header("Authorization", value);
        }
        request.send(gateway.addr())
    };
    let echoed = send(Some(&bearer("iss-reader"))).expect(200).echoed();
    assert_eq!(echoed.all("x-consumer-username"), ["reader"]);
    assert_eq!(echoed.all("x-consumer-groups"), ["orders-read"]);
    send(Some(&bearer("iss-stranger"))).expect(403);
    send(None).expect(401);
    let mut without = claims("iss-reader");
    without.as_object_mut().expect("claims").remove("exp");
    send(Some(&format!("Bearer {}", token(Algorithm::HS256, &without)))).expect(401);
}

#[test]
fn rate_limiting_by_credential_with_the_keys_of_redis() {
    let origin = Origin::start(Echo::default());
    let gateway = start("rate_limiting", origin.addr(), "");
    for left in [2, 1, 0] {
        let response = Request::get(ORDERS).send(gateway.addr()).expect(200);
        assert_eq!(response.header("x-ratelimit-limit-minute"), "3");
        assert_eq!(response.header("x-ratelimit-remaining-minute"), left.to_string());
        assert_eq!(response.header("x-ratelimit-limit-hour"), "1000");
    }
    let refused = Request::get(ORDERS).send(gateway.addr()).expect(429);
    assert!(refused.has("retry-after") && refused.has("ratelimit-reset"));
}

#[test]
fn a_service_with_timeouts_and_four_plugins() {
    let origin = Origin::start(Echo::default());
    let gateway = start("gateway", origin.addr(), &consumers());
    let with = |request: Request| request.header("Authorization", bearer("iss-reader")).send(gateway.addr());
    let echoed = with(Request::get("/api/v1/orders/7")).expect(200).echoed();
    assert_eq!(echoed.target(), "/api/v1/orders/7", "strip_path is false");
    with(Request::new("PUT", ORDERS)).expect(200);
    with(Request::new("DELETE", ORDERS)).expect(404);
    Request::get(ORDERS).send(gateway.addr()).expect(401);
    let told = with(Request::get(ORDERS).header("Origin", "https://app.example.com")).expect(200);
    assert_eq!(told.header("access-control-allow-origin"), "https://app.example.com");
    assert_eq!(told.header("x-ratelimit-limit-minute"), "100");
}

#[test]
fn uploads_must_tell_their_length() {
    let origin = Origin::start(Echo::default());
    let gateway = start("request_size_limiting", origin.addr(), "");
    Request::post("/upload", "some bytes").send(gateway.addr()).expect(200);
    let mut connection = Connection::open(gateway.addr());
    connection.send("POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    assert_eq!(
        connection.response().expect(411).json()["message"],
        "A valid Content-Length header is required"
    );
    let mut connection = Connection::open(gateway.addr());
    connection
        .send(format!("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", (10 << 20) + 1));
    assert_eq!(connection.response().expect(413).json()["message"], "Request size limit exceeded");
}

#[test]
fn weighted_targets_with_health_checks() {
    let (first, second) = (Origin::start(Echo::default()), Origin::start(Echo::default()));
    let text = kong("upstream").replace("orders-2:8080", &second.addr().to_string());
    let text: String = text.lines().skip(1).map(|line| format!("{line}\n")).collect();
    let gateway = Gateway::start(&Setup::new(text.replace("orders-1:8080", &first.addr().to_string())));
    for _ in 0..30 {
        Request::get(ORDERS).send(gateway.addr()).expect(200);
    }
    let served = |origin: &Origin| {
        origin
            .seen()
            .iter()
            .filter(|seen| String::from_utf8_lossy(&seen.head.raw).starts_with("GET / "))
            .count()
    };
    let (a, b) = (served(&first), served(&second));
    // Each shard has its own turns, and not every shard as many requests.
    assert!(a + b == 30 && (19..=21).contains(&a), "shares of 2 to 1: {a} and {b}");
}

#[test]
fn the_transformers_edit_bodies() {
    let origin = Origin::start(Echo::default());
    let gateway = start("request_transformer", origin.addr(), "");
    let request = Request::post(ORDERS, r#"{"user_name":"old","n":1.50}"#)
        .header("Content-Type", "application/json")
        .header("X-Internal-Token", "t")
        .header("X-Old-Header", "kept");
    let echoed = request.send(gateway.addr()).expect(200).echoed();
    assert_eq!(echoed.0["body"], r#"{"user_name":"username","n":1.50}"#);
    assert_eq!(echoed.all("content-length"), ["33"]);
    assert_eq!(echoed.all("x-request-source"), ["gateway"]);
    assert_eq!(echoed.all("x-custom-auth"), ["Authorization"]);
    assert_eq!((echoed.all("x-internal-token").len(), echoed.all("x-new-header")), (0, vec!["kept"]));
    assert_eq!(echoed.target(), "/?version=v2");

    let origin = Origin::start(Canned {
        status: "200 OK",
        fields: "Content-Type: application/json\r\nServer: nginx\r\nX-Powered-By: php\r\nETag: \"1\"\r\n",
        body: r#"{"id":1,"internal_id":2,"debug_info":{"a":[]}}"#,
    });
    let gateway = start("response_transformer", origin.addr(), "");
    let response = Request::get(ORDERS).send(gateway.addr()).expect(200);
    assert_eq!(response.text(), r#"{"id":1}"#);
    assert_eq!(response.header("content-length"), "8");
    assert!(!response.has("etag") && !response.has("x-powered-by"));
}

/// Traefik's pair of resources, and what else its users have.
fn traefik(orders: SocketAddr, shop: SocketAddr) -> String {
    let path = format!("{}/../gateway/tests/import/traefik.yaml", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let place = |addr: SocketAddr| format!("name: {}\n          port: {}", addr.ip(), addr.port());
    text.replace("name: orders-service\n          port: 8080", &place(orders))
        .replace("name: shop-a\n          port: 80", &place(shop))
        .replace("name: shop-b\n          port: 80", &place(orders))
}

fn to(host: &str, target: &str) -> Request {
    Request::get(target).header("Host", host)
}

#[test]
fn traefiks_resources_route_and_limit() {
    let (orders, shop) = (Origin::start(Echo::default()), Origin::start(Echo::default()));
    let gateway = Gateway::start(&Setup::new(format!("---\n{}", traefik(orders.addr(), shop.addr()))));
    let at = |target: &str| to("api.example.com", target).send(gateway.addr());
    // The missing middleware keeps its router shut, and is named.
    assert_eq!(at("/v1/orders/1").expect(503).json()["message"], "middleware strip-prefix is not defined");
    let answer = at("/v1/shop/7").expect(200);
    assert_eq!((answer.header("x-frame-options"), answer.header("x-served-by")), ("DENY", "portcullis"));
    let echoed = answer.echoed();
    assert_eq!(echoed.target(), "/internal/shop/7");
    assert_eq!(echoed.all("x-forwarded-prefix"), ["/v1"]);
    assert_eq!(echoed.all("host"), ["api.example.com"]);
    assert_eq!(echoed.all("x-from"), ["edge"]);
    at("/elsewhere?shop=1").expect(200);
    at("/elsewhere?shop=2").expect(404);
    to("other.example.com", "/v1/shop").send(gateway.addr()).expect(404);
    Request::post("/v1/shop", "x".repeat(1001).as_str())
        .header("Host", "api.example.com")
        .send(gateway.addr())
        .expect(413);
    let stderr = gateway.stderr();
    assert!(stderr.contains("there is no middleware `strip-prefix`"), "{stderr}");
}

#[test]
fn traefiks_rate_limit_is_per_period_with_a_burst() {
    let origin = Origin::start(Echo::default());
    let documents = format!(
        "---\nhttp:\n  routers:\n    r: {{rule: 'PathPrefix(`/`)', service: s, middlewares: [limit]}}\n  middlewares:\n    \
         limit: {{rateLimit: {{average: 1, period: 1h, burst: 3}}}}\n  services:\n    s: {{loadBalancer: {{servers: \
         [{{url: 'http://{}'}}]}}}}\n",
        origin.addr()
    );
    let gateway = Gateway::start(&Setup::new(documents));
    let answers: Vec<Response> = (0..4).map(|_| Request::get("/").send(gateway.addr())).collect();
    let last = &answers[3];
    assert!(last.has("retry-after") && last.has("x-retry-in"), "{last:?}");
    let statuses = answers.into_iter().map(|answer| answer.status).collect::<Vec<_>>();
    assert_eq!(statuses, [200, 200, 200, 429]);
}

#[test]
fn import_prints_what_runs() {
    let origin = Origin::start(Echo::default());
    let gateway = start("gateway", origin.addr(), &consumers());
    let file = format!("{}/../gateway/tests/import/traefik.yaml", env!("CARGO_MANIFEST_DIR"));
    let printed = gateway.cli(&["import", &file]);
    let text = String::from_utf8_lossy(&printed.stdout).into_owned();
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    assert!(text.contains("# warning") && text.contains("rule: "), "{text}");
    let again = gateway.dir().join("imported.yaml");
    std::fs::write(&again, &text).expect("a file");
    let checked = gateway.cli(&["check", &again.display().to_string()]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    let wrong = gateway.cli(&["import", &file, "--from", "kong"]);
    assert!(!wrong.status.success() && String::from_utf8_lossy(&wrong.stderr).contains("--from traefik"));
}
