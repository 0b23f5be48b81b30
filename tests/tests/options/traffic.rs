//! Where requests go and what comes back: options of canary, traffic-split, mirror, fault-injection and error-pages.

use std::time::{Duration, Instant};

use portcullis_tests::certs::Authority;
use portcullis_tests::client::{Connection, Request};
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::secure::SecureOrigin;
use portcullis_tests::origin::{Bulk, Canned, Echo, Origin};
use portcullis_tests::tokens::now;

use super::{echo, gateway, setup};

/// How many of a hundred requests the service `new` answers.
fn new_of_a_hundred(settings: &str) -> usize {
    let (old, new) = (Origin::start(Echo { name: "old" }), Origin::start(Echo { name: "new" }));
    let more = format!(
        "plugins: [{{name: canary, service: web, config: {{{settings}, service: new, hash: none}}}}]\n"
    );
    let text = format!(
        "{more}services:\n- {{name: web, url: '{}', routes: [{{paths: [/]}}]}}\n- {{name: new, url: '{}'}}\n",
        old.url(),
        new.url()
    );
    let gateway = Gateway::start(&portcullis_tests::gateway::Setup::new(text).shards(1));
    let mut connection = Connection::open(gateway.addr());
    for _ in 0..100 {
        Request::get("/").keep().send_on(&mut connection).expect(200);
    }
    new.requests()
}

#[test]
fn canary_steps() {
    // Half of the time is over in a minute from now at the earliest.
    for (steps, expected) in [(1, 0), (4, 25), (8, 37)] {
        let settings = format!("start: {}, duration: 400, steps: {steps}", now(-160));
        let new = new_of_a_hundred(&settings);
        assert!((expected..=expected + 1).contains(&new), "{steps} steps: {new} of 100");
    }
}

#[test]
fn traffic_split_sticky_http_only_and_max_age() {
    for (settings, http_only, life) in [("", true, false), ("http_only: false, max_age: 60", false, true)] {
        let origin = echo();
        let plugins = format!(
            "[{{name: traffic-split, config: {{services: [{{service: web}}], sticky: {{name: side, {settings}}}}}}}]"
        );
        let gateway = gateway(&origin, &plugins, "");
        let response = Request::get("/").send(gateway.addr()).expect(200);
        let cookie = response.header("set-cookie");
        assert_eq!(cookie.contains("; HttpOnly"), http_only, "{cookie}");
        assert_eq!(cookie.contains("; Max-Age=60"), life, "{cookie}");
    }
}

fn copies(gateway: &Gateway, outcome: &str) -> f64 {
    gateway.metrics().sum("portcullis_mirrored_requests_total", &[("outcome", outcome)])
}

#[track_caller]
fn copied(gateway: &Gateway, outcome: &str) {
    eventually("a copy is counted", || {
        holds(copies(gateway, outcome) > 0.5, format!("{outcome}: {}", copies(gateway, outcome)))
    });
}

#[test]
fn mirror_targets_over_tls() {
    let dir = tempfile::TempDir::new().expect("a folder");
    let (authority, other) = (Authority::new(dir.path()), tempfile::TempDir::new().expect("a folder"));
    let stranger = Authority::new(other.path());
    let shadow = SecureOrigin::start(&authority.leaf(&["localhost"]), None);
    let plugins =
        format!("[{{name: mirror, config: {{targets: [{{url: 'https://localhost:{}'}}]}}}}]", shadow.port());
    for (trusted, outcome) in [(&authority, "sent"), (&stranger, "failed")] {
        let origin = echo();
        let gateway = Gateway::start(&setup(&origin, &plugins, "").trusting(&trusted.ca_file()));
        Request::get("/").send(gateway.addr()).expect(200);
        copied(&gateway, outcome);
    }
    assert_eq!(shadow.handshakes().iter().filter(|one| one["sni"] == "localhost").count(), 1);
}

#[test]
fn mirror_service_with_tls_of_its_own() {
    let dir = tempfile::TempDir::new().expect("a folder");
    let authority = Authority::new(dir.path());
    let shadow = SecureOrigin::start(&authority.leaf(&["shadow.test"]), Some(&authority.ca_file()));
    let client = authority.leaf(&["gateway.test"]);
    let origin = echo();
    let text = format!(
        "ca_certificates: [{{name: ours, cert_file: {}}}]\n\
         certificates: [{{name: own, cert_file: {}, key_file: {}}}]\n\
         services:\n- {{name: web, url: '{}', routes: [{{paths: [/], plugins: [{{name: mirror, config: {{targets: \
         [{{service: shadow}}]}}}}]}}]}}\n\
         - {{name: shadow, url: 'https://127.0.0.1:{}', ca_certificates: [ours], client_certificate: own, \
         tls_sni: shadow.test}}\n",
        authority.ca_file().display(),
        client.cert.display(),
        client.key.display(),
        origin.url(),
        shadow.port()
    );
    let gateway = Gateway::start(&portcullis_tests::gateway::Setup::new(text).shards(1));
    Request::get("/").send(gateway.addr()).expect(200);
    copied(&gateway, "sent");
    assert_eq!(shadow.handshakes()[0]["sni"], "shadow.test");
}

#[test]
fn mirror_to_a_service_of_http2_is_told() {
    let origin = echo();
    for (url, version, told) in [
        ("http://127.0.0.1:9", "'2'", true),
        ("https://127.0.0.1:9", "'2'", true),
        ("http://127.0.0.1:9", "'1.1'", false),
    ] {
        let text = format!(
            "services:\n- {{name: web, url: '{}', routes: [{{paths: [/], plugins: [{{name: mirror, config: {{targets: \
             [{{service: shadow}}]}}}}]}}]}}\n- {{name: shadow, url: '{url}', http_version: {version}}}\n",
            origin.url()
        );
        let gateway = Gateway::start(&portcullis_tests::gateway::Setup::new(text).shards(1));
        let printed = gateway.cli(&["check", &gateway.config().display().to_string()]);
        let said =
            String::from_utf8_lossy(&printed.stdout).into_owned() + &String::from_utf8_lossy(&printed.stderr);
        assert_eq!(said.contains("are said to speak HTTP/2 alone"), told, "{said}");
        assert!(printed.status.success(), "{said}");
    }
}

fn fault(origin: &Origin, settings: &str) -> Gateway {
    gateway(origin, &format!("[{{name: fault-injection, config: {{{settings}}}}}]"), "")
}

#[test]
fn fault_injection_max_active_faults() {
    let origin = echo();
    let gateway = fault(&origin, "delay: {fixed_delay: 60s}, max_active_faults: 1");
    // Who waits keeps the only place.
    let mut waiting = Connection::open(gateway.addr());
    waiting.send("GET /waits HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the place is taken", || {
        let begun = Instant::now();
        let mut other = Connection::open(gateway.addr());
        other.send("GET /passes HTTP/1.1\r\nHost: a\r\n\r\n");
        let passes = other.readable_within(Duration::from_secs(5));
        holds(passes, format!("nothing after {:?}", begun.elapsed()))
    });
    assert!(!waiting.readable_within(Duration::from_millis(50)));
    assert!(origin.seen().iter().all(|seen| seen.head.word(1) == "/passes"));
}

#[test]
fn fault_injection_abort_grpc_status() {
    let origin = echo();
    let gateway = gateway(
        &origin,
        "[{name: grpc-web}, {name: fault-injection, config: {abort: {grpc_status: 14}}}]",
        "",
    );
    let call =
        Request::post("/s/m", vec![0_u8, 0, 0, 0, 0]).header("Content-Type", "application/grpc-web+proto");
    let ended = call.send(gateway.addr()).expect(200);
    let told = format!("{:?} {}", ended.head.fields, ended.text()).to_ascii_lowercase();
    assert!(told.contains("\"grpc-status\", \"14\"") || told.contains("grpc-status:14"), "{told}");
    assert_eq!(origin.requests(), 0);
}

const FAILING: Canned =
    Canned { status: "503 Service Unavailable", fields: "Content-Type: text/plain\r\n", body: "own" };

/// A failing service, and the service `pages` that has pages for its errors.
fn pages(at: &Origin, settings: &str) -> (Gateway, Origin) {
    let origin = Origin::start(FAILING);
    let text = format!(
        "services:\n- {{name: web, url: '{}', retries: 0, routes: [{{paths: [/]}}], plugins: [{{name: error-pages, config: \
         {{status: [500-599], service: pages, {settings}}}}}]}}\n- {{name: pages, url: '{}/site'}}\n",
        origin.url(),
        at.url()
    );
    (Gateway::start(&portcullis_tests::gateway::Setup::new(text).shards(1)), origin)
}

#[test]
fn error_pages_service() {
    let at = echo();
    let (gateway, _origin) = pages(&at, "query: '/{status}.html'");
    let page = Request::get("/x").send(gateway.addr()).expect(503);
    assert_eq!(page.echoed().target(), "/site/503.html");
}

#[test]
fn error_pages_max_size() {
    let at = Origin::start(Bulk { len: 2000, chunked: false });
    let (fits, _origin) = pages(&at, "max_size: 2000");
    assert_eq!(Request::get("/").send(fits.addr()).expect(503).body.len, 2000);
    let (small, _other) = pages(&at, "max_size: 1999");
    assert_eq!(Request::get("/").send(small.addr()).expect(503).text(), "own");
}
