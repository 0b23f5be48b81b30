//! Traefik's services and middlewares of traffic, in its own documents: each runs as it is, and does what it says.

use std::io::Read;

use portcullis_tests::client::{Connection, Request};
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::{Gateway, Setup};
use portcullis_tests::origin::{Canned, Counting, Echo, Origin};

/// A router for everything with these middlewares; `services` holds `s`.
fn start(middlewares: &[&str], services: &str) -> Gateway {
    let names: Vec<String> = (0..middlewares.len()).map(|number| format!("m{number}")).collect();
    let defined: String =
        names.iter().zip(middlewares).map(|(name, text)| format!("    {name}: {{{text}}}\n")).collect();
    let section = if defined.is_empty() { String::new() } else { format!("  middlewares:\n{defined}") };
    let list =
        if names.is_empty() { String::new() } else { format!(", middlewares: [{}]", names.join(", ")) };
    let text = format!(
        "---\nhttp:\n  routers:\n    r: {{rule: 'PathPrefix(`/`)', service: s{list}}}\n{section}  services:\n{services}"
    );
    Gateway::start(&Setup::new(text).shards(1))
}

/// A service with one server.
fn service(name: &str, origin: &Origin) -> String {
    format!("    {name}: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}\n", origin.url())
}

#[test]
fn compress() {
    let body: &'static str = Box::leak("the same words again and again\n".repeat(100).into_boxed_str());
    let origin = Origin::start(Canned { status: "200 OK", fields: "Content-Type: text/plain\r\n", body });
    let gateway = start(&["compress: {}"], &service("s", &origin));
    let response = Request::get("/").header("Accept-Encoding", "gzip, br").send(gateway.addr()).expect(200);
    assert_eq!((response.header("content-encoding"), response.header("vary")), ("gzip", "Accept-Encoding"));
    let mut text = String::new();
    flate2::read::GzDecoder::new(&*response.body.bytes).read_to_string(&mut text).expect("gzip");
    assert_eq!(text, *body);
    let excluded = start(&["compress: {excludedContentTypes: [text/plain]}"], &service("s", &origin));
    let response = Request::get("/").header("Accept-Encoding", "gzip").send(excluded.addr()).expect(200);
    assert!(!response.has("content-encoding"));
}

#[test]
fn errors() {
    let origin = Origin::start(Canned { status: "503 Service Unavailable", fields: "", body: "own" });
    let pages = Origin::start(Echo { name: "pages" });
    let services = service("s", &origin) + &service("pages", &pages);
    let gateway =
        start(&["errors: {status: ['500-599'], service: pages, query: '/{status}.html'}"], &services);
    let page = Request::get("/").send(gateway.addr()).expect(503).echoed();
    assert_eq!((page.origin(), page.target()), ("pages", "/503.html"));
}

#[test]
fn mirroring() {
    let (main, shadow) = (Origin::start(Echo { name: "main" }), Origin::start(Echo { name: "shadow" }));
    let services = service("main", &main)
        + &service("shadow", &shadow)
        + "    s: {mirroring: {service: main, mirrors: [{name: shadow, percent: 50}]}}\n";
    let gateway = start(&[], &services);
    let mut connection = Connection::open(gateway.addr());
    for _ in 0..20 {
        let echoed = Request::get("/x").keep().send_on(&mut connection).expect(200).echoed();
        assert_eq!(echoed.origin(), "main");
    }
    eventually("half of them are mirrored", || {
        holds((9..=11).contains(&shadow.requests()), format!("{} of 20", shadow.requests()))
    });
}

#[test]
fn weighted() {
    let (a, b) = (Origin::start(Counting::named("a")), Origin::start(Counting::named("b")));
    let services = service("a", &a)
        + &service("b", &b)
        + "    s: {weighted: {services: [{name: a, weight: 3}, {name: b, weight: 1}]}}\n";
    let gateway = start(&[], &services);
    for _ in 0..40 {
        Request::get("/").send(gateway.addr()).expect(200);
    }
    assert_eq!((a.requests(), b.requests()), (30, 10));
}

#[test]
fn failover() {
    let (main, stand_in) = (Origin::start(Echo { name: "main" }), Origin::start(Echo { name: "stand-in" }));
    let services = service("main", &main)
        + &service("other", &stand_in)
        + "    s: {failover: {service: main, fallback: other}}\n";
    let gateway = start(&[], &services);
    for _ in 0..4 {
        assert_eq!(Request::get("/").send(gateway.addr()).expect(200).echoed().origin(), "main");
    }
    drop(main);
    eventually("the stand-in serves", || {
        let response = Request::get("/").send(gateway.addr());
        let origin =
            if response.status == 200 { response.echoed().origin().to_owned() } else { String::new() };
        holds(origin == "stand-in", format!("{} from {origin:?}", response.status))
    });
}

#[test]
fn buffering() {
    let body: &'static str = Box::leak("x".repeat(600).into_boxed_str());
    let origin = Origin::start(Canned { status: "200 OK", fields: "", body });
    let gateway = start(&["buffering: {maxRequestBodyBytes: 100}"], &service("s", &origin));
    Request::post("/", "x".repeat(101)).send(gateway.addr()).expect(413);
    Request::post("/", "x".repeat(100)).send(gateway.addr()).expect(200);
    let gateway = start(&["buffering: {maxResponseBodyBytes: 500}"], &service("s", &origin));
    Request::get("/").send(gateway.addr()).expect(502);
}

#[test]
fn retry() {
    let origin = Origin::start(Echo::default());
    let services = format!(
        "    s: {{loadBalancer: {{servers: [{{url: 'http://127.0.0.1:1'}}, {{url: '{}'}}]}}}}\n",
        origin.url()
    );
    let gateway = start(&["retry: {attempts: 2}"], &services);
    for _ in 0..4 {
        Request::get("/").send(gateway.addr()).expect(200);
    }
}

/// One server refuses, the other answers.
fn half(middleware: &str) -> (Gateway, [Origin; 2]) {
    let refusing = Origin::start(Canned { status: "503 Service Unavailable", fields: "", body: "" });
    let answering = Origin::start(Echo::default());
    let services = format!(
        "    s: {{loadBalancer: {{servers: [{{url: '{}'}}, {{url: '{}'}}]}}}}\n",
        refusing.url(),
        answering.url()
    );
    (start(&[middleware], &services), [refusing, answering])
}

fn statuses(gateway: &Gateway, method: &str) -> Vec<u16> {
    let mut all: Vec<_> = (0..4).map(|_| Request::new(method, "/").send(gateway.addr()).status).collect();
    all.sort_unstable();
    all
}

#[test]
fn retry_status_and_retry_non_idempotent_method() {
    let (plain, _origins) = half("retry: {attempts: 2}");
    assert_eq!(statuses(&plain, "GET"), [200, 200, 503, 503]);
    let (by_status, _origins) = half("retry: {attempts: 2, status: ['500-503'], initialInterval: 1ms}");
    assert_eq!(statuses(&by_status, "GET"), [200; 4]);
    assert_eq!(statuses(&by_status, "POST"), [200, 200, 503, 503]);
    let (every, _origins) = half("retry: {attempts: 2, status: ['503'], retryNonIdempotentMethod: true}");
    assert_eq!(statuses(&every, "POST"), [200; 4]);
}

#[test]
fn retry_disable_retry_on_network_error() {
    let origin = Origin::start(Echo::default());
    for (disable, expected) in [(false, [200; 4]), (true, [200, 200, 502, 502])] {
        let services = format!(
            "    s: {{loadBalancer: {{servers: [{{url: 'http://127.0.0.1:1'}}, {{url: '{}'}}]}}}}\n",
            origin.url()
        );
        let middleware = format!("retry: {{attempts: 2, disableRetryOnNetworkError: {disable}}}");
        assert_eq!(statuses(&start(&[&middleware], &services), "GET"), expected);
    }
}

#[test]
fn buffering_retry_expression() {
    let (gateway, _origins) =
        half("buffering: {retryExpression: 'ResponseCode() == 503 && Attempts() <= 2'}");
    assert_eq!(statuses(&gateway, "POST"), [200; 4]);
    let (other, _origins) = half("buffering: {retryExpression: 'IsNetworkError() && Attempts() < 2'}");
    assert_eq!(statuses(&other, "GET"), [200, 200, 503, 503]);
}

#[test]
fn circuit_breaker_response_code() {
    let origin = Origin::start(Canned { status: "502 Bad Gateway", fields: "", body: "" });
    let gateway = start(
        &["circuitBreaker: {expression: 'NetworkErrorRatio() > 0.30', responseCode: 418}"],
        &service("s", &origin),
    );
    let asked = || Request::get("/").send(gateway.addr()).status;
    assert_eq!([asked(), asked()], [502, 418]);
    assert_eq!(origin.requests(), 1);
    // A 503 is no error of the network.
    let busy = Origin::start(Canned { status: "503 Service Unavailable", fields: "", body: "" });
    let gateway =
        start(&["circuitBreaker: {expression: 'NetworkErrorRatio() > 0.30'}"], &service("s", &busy));
    assert_eq!(statuses(&gateway, "GET"), [503; 4]);
    assert_eq!(busy.requests(), 4);
}

#[test]
fn sticky_cookie() {
    let (a, b) = (Origin::start(Echo { name: "a" }), Origin::start(Echo { name: "b" }));
    let servers = format!("servers: [{{url: '{}'}}, {{url: '{}'}}]", a.url(), b.url());
    let cases = [
        ("name: side", &["side=", "; Path=/"][..], &["HttpOnly", "Secure", "SameSite", "Max-Age"][..]),
        (
            "name: side, secure: true, httpOnly: true, sameSite: none, maxAge: 42, path: /p, domain: .example.com",
            &[
                "side=",
                "; Path=/p",
                "; HttpOnly",
                "; Secure",
                "; SameSite=None",
                "; Max-Age=42",
                "; Domain=example.com",
            ],
            &[],
        ),
    ];
    for (cookie, has, lacks) in cases {
        let text = format!("    s: {{loadBalancer: {{sticky: {{cookie: {{{cookie}}}}}, {servers}}}}}\n");
        let gateway = start(&[], &text);
        let first = Request::get("/").send(gateway.addr()).expect(200);
        let set = first.header("set-cookie").to_owned();
        assert!(
            has.iter().all(|part| set.contains(part)) && !lacks.iter().any(|part| set.contains(part)),
            "{set}"
        );
        let kept = set.split(';').next().expect("name and value").to_owned();
        for _ in 0..6 {
            let again = Request::get("/").header("Cookie", &kept).send(gateway.addr()).expect(200);
            assert_eq!(again.echoed().origin(), first.echoed().origin());
        }
    }
}

#[test]
fn redirect_scheme_port_is_a_text() {
    let origin = Origin::start(Echo::default());
    let gateway =
        start(&["redirectScheme: {scheme: https, permanent: true, port: '8443'}"], &service("s", &origin));
    let response = Request::get("/x").header("Host", "a.test").send(gateway.addr()).expect(301);
    assert_eq!(response.header("location"), "https://a.test:8443/x");
}

#[test]
fn chain() {
    let origin = Origin::start(Echo::default());
    let gateway = start(
        &[
            "chain: {middlewares: [m1, m2]}",
            "addPrefix: {prefix: /a}",
            "headers: {customRequestHeaders: {X-Edge: '1'}}",
        ],
        &service("s", &origin),
    );
    let echoed = Request::get("/x").send(gateway.addr()).expect(200).echoed();
    assert_eq!(echoed.all("x-edge"), ["1"]);
    assert!(echoed.target().starts_with("/a"), "{}", echoed.target());
}

#[test]
fn a_circuit_breaker_becomes_the_upstreams() {
    let origin = Origin::start(Echo::default());
    let gateway = start(
        &["circuitBreaker: {expression: 'NetworkErrorRatio() > 0.30 || LatencyAtQuantileMS(50.0) > 5000'}"],
        &service("s", &origin),
    );
    Request::get("/").send(gateway.addr()).expect(200);
    let file = gateway.dir().join("traefik.yaml");
    let text = "http:\n  routers:\n    r: {rule: 'PathPrefix(`/`)', service: s, middlewares: [b]}\n  middlewares:\n    b: \
                {circuitBreaker: {expression: 'NetworkErrorRatio() > 0.30', fallbackDuration: 15s}}\n  services:\n    s: \
                {loadBalancer: {servers: [{url: 'http://127.0.0.1:1'}]}}\n";
    std::fs::write(&file, text).expect("a file");
    let printed = gateway.cli(&["import", &file.display().to_string()]);
    let text = String::from_utf8_lossy(&printed.stdout).into_owned();
    assert!(text.contains("circuit_breaker:") && text.contains("failure_percent: 30"), "{text}");
}

#[test]
fn resources_of_kubernetes_name_pages_and_mirrors() {
    let (main, shadow, pages) = (
        Origin::start(Echo { name: "main" }),
        Origin::start(Echo { name: "shadow" }),
        Origin::start(Echo { name: "pages" }),
    );
    let place = |origin: &Origin| format!("name: {}, port: {}", origin.addr().ip(), origin.addr().port());
    let text = format!(
        "---\napiVersion: traefik.io/v1alpha1\nkind: TraefikService\nmetadata: {{name: both}}\nspec:\n  mirroring: {{{}, mirrors: \
         [{{{}, percent: 100}}]}}\n---\napiVersion: traefik.io/v1alpha1\nkind: Middleware\nmetadata: {{name: pages}}\nspec:\n  \
         errors: {{status: ['404'], query: '/{{status}}', service: {{{}}}}}\n---\napiVersion: traefik.io/v1alpha1\nkind: \
         IngressRoute\nmetadata: {{name: r}}\nspec:\n  entryPoints: [web]\n  routes:\n  - match: PathPrefix(`/`)\n    kind: Rule\n    \
         middlewares: [{{name: pages}}]\n    services: [{{name: both, kind: TraefikService}}]\n",
        place(&main),
        place(&shadow),
        place(&pages)
    );
    let gateway = Gateway::start(&Setup::new(text));
    assert_eq!(Request::get("/x").send(gateway.addr()).expect(200).echoed().origin(), "main");
    eventually("the copy arrives", || holds(shadow.requests() == 1, "no copy"));
    assert_eq!(pages.requests(), 0);
}
