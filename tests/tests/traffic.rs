//! Where requests go and what comes back of them: canary, traffic-split, mirror, fault-injection, error-pages and
//! buffering, a test for each option, named after plugin and option.

use std::time::{Duration, Instant};

use portcullis_tests::client::{Connection, Request};
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::{Gateway, Setup};
use portcullis_tests::origin::{Bulk, Canned, Echo, Gate, Held, Origin, Slow};

/// Two origins and a gateway with the plugins on the route to the first; the second is the service `new`.
struct Pair {
    old: Origin,
    new: Origin,
    gateway: Gateway,
}

fn echo(name: &'static str) -> Origin {
    Origin::start(Echo { name })
}

/// `plugins` is a YAML flow list in which `NEW` stands for the second origin's port.
fn pair(plugins: &str, more: &str) -> Pair {
    let (old, new) = (echo("old"), echo("new"));
    let plugins = plugins.replace("NEW", &new.addr().port().to_string());
    let text = format!(
        "services:\n- {{name: old, url: '{}', routes: [{{name: all, paths: [/], plugins: {plugins}}}]}}\n\
         - {{name: new, url: '{}/base'}}\n{more}",
        old.url(),
        new.url()
    );
    Pair { gateway: Gateway::start(&Setup::new(text).shards(1)), old, new }
}

impl Pair {
    /// How many of so many requests the second origin answers.
    #[track_caller]
    fn new_of(&self, count: usize, make: impl Fn(usize) -> Request) -> usize {
        let mut connection = Connection::open(self.gateway.addr());
        let answered =
            |number| make(number).keep().send_on(&mut connection).expect(200).echoed().origin().to_owned();
        let answers: Vec<String> = (0..count).map(answered).collect();
        answers.iter().filter(|origin| *origin == "new").count()
    }
}

fn get(_: usize) -> Request {
    Request::get("/x?q=1")
}

#[test]
fn canary_percentage_and_upstream_host() {
    let pair = pair(
        "[{name: canary, config: {percentage: 20, hash: none, upstream_host: 127.0.0.1, upstream_port: NEW}}]",
        "",
    );
    let new = pair.new_of(200, get);
    assert!((36..=44).contains(&new), "{new} of 200");
}

#[test]
fn canary_upstream_host_names_an_upstream() {
    let upstream = "upstreams: [{name: fresh, targets: [{target: '127.0.0.1:PORT'}]}]\n";
    let new = echo("new");
    let old = echo("old");
    let text = format!(
        "services: [{{name: old, url: '{}', routes: [{{paths: [/]}}], plugins: [{{name: canary, config: {{percentage: 100, \
         upstream_host: fresh}}}}]}}]\n{}",
        old.url(),
        upstream.replace("PORT", &new.addr().port().to_string())
    );
    let gateway = Gateway::start(&Setup::new(text));
    assert_eq!(Request::get("/").send(gateway.addr()).expect(200).echoed().origin(), "new");
}

#[test]
fn canary_hash_header() {
    let pair = pair(
        "[{name: canary, config: {percentage: 50, hash: header, hash_header: X-User, service: new}}]",
        "",
    );
    for user in ["ann", "ben", "eve"] {
        let new = pair.new_of(10, |_| Request::get("/").header("X-User", user));
        assert!(new == 0 || new == 10, "{user}: {new} of 10");
    }
    let many = pair.new_of(200, |number| Request::get("/").header("X-User", format!("u{number}")));
    assert!((60..=140).contains(&many), "{many} of 200");
}

#[test]
fn canary_by_header_name_and_cookie() {
    let pair = pair(
        "[{name: canary, config: {percentage: 0, service: new, canary_by_header_name: X-Canary, canary_by_cookie_name: canary}}]",
        "",
    );
    assert_eq!(pair.new_of(5, get), 0);
    assert_eq!(pair.new_of(5, |_| Request::get("/").header("X-Canary", "always")), 5);
    assert_eq!(pair.new_of(5, |_| Request::get("/").header("Cookie", "a=b; canary=always")), 5);
}

#[test]
fn canary_groups() {
    let consumers = "consumers:\n- {username: ann, acls: [{group: early}], keyauth_credentials: [{key: ann}]}\n\
                     - {username: ben, keyauth_credentials: [{key: ben}]}\n";
    let pair = pair(
        "[{name: key-auth}, {name: canary, config: {hash: allow, groups: [early], service: new}}]",
        consumers,
    );
    assert_eq!(pair.new_of(5, |_| Request::get("/").header("apikey", "ann")), 5);
    assert_eq!(pair.new_of(5, |_| Request::get("/").header("apikey", "ben")), 0);
}

#[test]
fn canary_start_and_duration() {
    let before =
        pair("[{name: canary, config: {start: 4000000000, duration: 60, service: new, hash: none}}]", "");
    assert_eq!(before.new_of(20, get), 0);
    let after =
        pair("[{name: canary, config: {start: 1000000000, duration: 60, service: new, hash: none}}]", "");
    assert_eq!(after.new_of(20, get), 20);
}

#[test]
fn canary_upstream_uri() {
    let pair = pair("[{name: canary, config: {percentage: 100, upstream_uri: /new/place}}]", "");
    let echoed = get(0).send(pair.gateway.addr()).expect(200).echoed();
    assert_eq!((echoed.origin(), echoed.target()), ("old", "/new/place?q=1"));
}

#[test]
fn canary_upstream_fallback() {
    let upstream = "upstreams:\n- name: dead\n  targets: [{target: '127.0.0.1:1'}]\n  \
                    healthchecks: {passive: {max_ejected_percent: 100, unhealthy: {tcp_failures: 1}}}\n";
    for (falls_back, expected) in [(true, 200), (false, 503)] {
        let settings = format!("percentage: 100, upstream_host: dead, upstream_fallback: {falls_back}");
        let pair = pair(&format!("[{{name: canary, config: {{{settings}}}}}]"), upstream);
        // The first is what shows that nobody is there.
        Request::get("/").send(pair.gateway.addr()).expect(502);
        eventually("the target is out of use", || {
            let response = Request::get("/").send(pair.gateway.addr());
            holds(response.status == expected, format!("{} with fallback {falls_back}", response.status))
        });
    }
}

#[test]
fn traffic_split_weights() {
    let pair = pair(
        "[{name: traffic-split, config: {services: [{service: old, weight: 3}, {service: new, weight: 1}]}}]",
        "",
    );
    let new = pair.new_of(200, get);
    assert!((46..=54).contains(&new), "{new} of 200");
    let seen = pair.new.seen();
    assert!(
        seen.iter().all(|seen| seen.head.word(1) == "/base/x?q=1"),
        "the service's own path is put before"
    );
}

#[test]
fn traffic_split_hash_cookie() {
    let pair = pair(
        "[{name: traffic-split, config: {hash: cookie, hash_name: user, services: [{service: old}, {service: new}]}}]",
        "",
    );
    for user in ["ann", "ben", "eve"] {
        let new = pair.new_of(10, |_| Request::get("/").header("Cookie", format!("user={user}")));
        assert!(new == 0 || new == 10, "{user}: {new} of 10");
    }
}

#[test]
fn traffic_split_rules() {
    let rules = "rules: [{service: new, headers: {X-Beta: '1'}}, {service: new, cookies: {beta: 'yes'}}]";
    let pair =
        pair(&format!("[{{name: traffic-split, config: {{services: [{{service: old}}], {rules}}}}}]"), "");
    assert_eq!(pair.new_of(5, get), 0);
    assert_eq!(pair.new_of(5, |_| Request::get("/").header("X-Beta", "1")), 5);
    assert_eq!(pair.new_of(5, |_| Request::get("/").header("Cookie", "beta=yes")), 5);
}

#[test]
fn traffic_split_sticky() {
    let pair = pair(
        "[{name: traffic-split, config: {services: [{service: old}, {service: new}], sticky: {name: side, secure: true, \
         same_site: lax}}}]",
        "",
    );
    for _ in 0..4 {
        let first = Request::get("/").send(pair.gateway.addr()).expect(200);
        let cookie = first.header("set-cookie").to_owned();
        assert!(
            cookie.starts_with("side=") && cookie.contains("; Secure") && cookie.contains("; SameSite=Lax"),
            "{cookie}"
        );
        let (value, _) = cookie.split_once(';').expect("attributes");
        for _ in 0..5 {
            let again = Request::get("/").header("Cookie", value).send(pair.gateway.addr()).expect(200);
            assert_eq!(again.echoed().origin(), first.echoed().origin());
            assert!(!again.has("set-cookie"));
        }
    }
}

fn mirror(settings: &str) -> Pair {
    pair(&format!("[{{name: mirror, config: {{{settings}}}}}]"), "")
}

/// Waits until so many copies came to this.
#[track_caller]
fn copied(pair: &Pair, outcome: &str, count: f64) {
    eventually("copies are counted", || {
        let seen = pair.gateway.metrics().sum("portcullis_mirrored_requests_total", &[("outcome", outcome)]);
        holds((seen - count).abs() < 0.5, format!("{seen} {outcome}, not {count}"))
    });
}

#[test]
fn mirror_targets_get_what_the_upstream_gets() {
    let pair = mirror("targets: [{url: 'http://127.0.0.1:NEW/shadow'}]");
    let answer =
        Request::post("/a?q=1", "some body").header("X-A", "1").send(pair.gateway.addr()).expect(200);
    assert_eq!((answer.echoed().origin(), answer.echoed().target()), ("old", "/a?q=1"));
    copied(&pair, "sent", 1.0);
    let copy = &pair.new.seen()[0];
    assert_eq!((copy.head.word(0), copy.head.word(1)), ("POST", "/shadow/a?q=1"));
    assert_eq!((copy.body.text(), copy.head.get("x-a")), ("some body".to_owned(), Some("1")));
    assert_eq!(copy.head.get("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(pair.old.requests(), 1);
}

#[test]
fn mirror_service() {
    let pair = mirror("targets: [{service: new}]");
    Request::get("/a").send(pair.gateway.addr()).expect(200);
    copied(&pair, "sent", 1.0);
    assert_eq!(pair.new.seen()[0].head.word(1), "/base/a");
}

#[test]
fn mirror_percentage() {
    let pair = mirror("targets: [{url: 'http://127.0.0.1:NEW', percentage: 25}]");
    assert_eq!(pair.new_of(40, get), 0);
    eventually("copies arrive", || {
        holds((9..=11).contains(&pair.new.requests()), format!("{}", pair.new.requests()))
    });
}

#[test]
fn mirror_preserve_host() {
    for (preserve, expected) in [(true, None), (false, Some(()))] {
        let pair = mirror(&format!("targets: [{{url: 'http://127.0.0.1:NEW'}}], preserve_host: {preserve}"));
        Request::get("/").send(pair.gateway.addr()).expect(200);
        copied(&pair, "sent", 1.0);
        let host = pair.new.seen()[0].head.get("host").unwrap_or_default().to_owned();
        assert_eq!(host == pair.new.addr().to_string(), expected.is_some(), "{host}");
    }
}

#[test]
fn mirror_body_and_its_cap() {
    let pair = mirror("targets: [{url: 'http://127.0.0.1:NEW'}], max_body_size: 8");
    for (body, answer) in [("short", 1), ("longer than that", 1)] {
        let echoed = Request::post("/", body).send(pair.gateway.addr()).expect(200).echoed();
        assert_eq!(echoed.0["body"], body, "{answer}");
    }
    copied(&pair, "unfit", 1.0);
    copied(&pair, "sent", 1.0);
    let mut connection = Connection::open(pair.gateway.addr());
    connection.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    assert_eq!(connection.response().expect(200).echoed().0["body"], "abc");
    copied(&pair, "unfit", 2.0);
    let without = mirror("targets: [{url: 'http://127.0.0.1:NEW'}], mirror_body: false");
    Request::post("/", "x").send(without.gateway.addr()).expect(200);
    copied(&without, "unfit", 1.0);
}

#[test]
fn mirror_never_touches_the_answer() {
    // Nobody listens at port 1; and one that never answers fills the places.
    let dead = mirror("targets: [{url: 'http://127.0.0.1:1'}]");
    Request::get("/").send(dead.gateway.addr()).expect(200);
    copied(&dead, "failed", 1.0);
    let gate = Gate::shut();
    let held = Origin::start(Held { gate: gate.clone(), midway: false });
    let busy = mirror(&format!("targets: [{{url: '{}'}}], max_pending: 2, timeout: 60s", held.url()));
    for _ in 0..5 {
        Request::get("/").send(busy.gateway.addr()).expect(200);
    }
    copied(&busy, "dropped", 3.0);
    gate.open();
    copied(&busy, "sent", 2.0);
}

fn fault(settings: &str) -> Pair {
    pair(&format!("[{{name: fault-injection, config: {{{settings}}}}}]"), "")
}

#[test]
fn fault_injection_abort() {
    let pair = fault("abort: {http_status: 503}");
    let refused = Request::get("/").send(pair.gateway.addr()).expect(503);
    assert_eq!(refused.json()["message"], "Fault injected");
    assert_eq!(pair.old.requests(), 0);
    let counted = pair.gateway.metrics().sum("portcullis_refusals_total", &[("reason", "fault_injected")]);
    assert!((counted - 1.0).abs() < 0.5, "{counted}");
    let with_body = fault("abort: {http_status: 418, body: teapot}");
    assert_eq!(Request::get("/").send(with_body.gateway.addr()).expect(418).text(), "teapot");
}

#[test]
fn fault_injection_percentage() {
    let pair = fault("abort: {http_status: 503, percentage: 50}");
    let refused = (0..40).filter(|_| Request::get("/").send(pair.gateway.addr()).status == 503).count();
    assert!((18..=22).contains(&refused), "{refused} of 40");
}

#[test]
fn fault_injection_delay() {
    let pair = fault("delay: {fixed_delay: 300ms}");
    let begun = Instant::now();
    Request::get("/").send(pair.gateway.addr()).expect(200);
    assert!(begun.elapsed() >= Duration::from_millis(300));
}

#[test]
fn fault_injection_headers() {
    let pair = fault("abort: {http_status: 503}, headers: {X-Fault: 'on'}");
    Request::get("/").send(pair.gateway.addr()).expect(200);
    Request::get("/").header("X-Fault", "on").send(pair.gateway.addr()).expect(503);
}

const JSON: &str = "Content-Type: application/json\r\n";

/// A gateway that has pages for the errors of an origin.
fn pages(origin: &Origin, settings: &str) -> Gateway {
    let text = format!(
        "services: [{{name: s, url: '{}', retries: 0, routes: [{{paths: [/]}}], plugins: [{{name: error-pages, config: {settings}}}]}}]\n",
        origin.url()
    );
    Gateway::start(&Setup::new(text))
}

#[test]
fn error_pages_body() {
    let origin = Origin::start(Canned { status: "503 Service Unavailable", fields: JSON, body: "{}" });
    let settings = "{status: [500-599], body: '<h1>{status} {message}</h1>', content_type: text/html}";
    let gateway = pages(&origin, settings);
    let mut connection = Connection::open(gateway.addr());
    for _ in 0..2 {
        let page = Request::get("/").keep().send_on(&mut connection).expect(503);
        assert_eq!(
            (page.text().as_str(), page.header("content-type")),
            ("<h1>503 Service Unavailable</h1>", "text/html")
        );
    }
    // With a body under way, too.
    let page = Request::post("/", "x".repeat(300_000)).send(gateway.addr()).expect(503);
    assert!(page.text().starts_with("<h1>503"));
}

#[test]
fn error_pages_status() {
    let origin = Origin::start(Canned { status: "404 Not Found", fields: JSON, body: "{}" });
    let other = pages(&origin, "{status: [500-599], body: page}");
    assert_eq!(Request::get("/").send(other.addr()).expect(404).text(), "{}");
    let listed = pages(&origin, "{status: ['401,404', 500-599], body: page}");
    assert_eq!(Request::get("/").send(listed.addr()).expect(404).text(), "page");
}

#[test]
fn error_pages_of_the_gateways_own_errors() {
    let origin = echo("gone");
    let gateway = pages(&origin, "{status: [500-599], body: 'sorry: {status}'}");
    Request::get("/").send(gateway.addr()).expect(200);
    drop(origin);
    assert_eq!(Request::get("/").send(gateway.addr()).expect(502).text(), "sorry: 502");
}

#[test]
fn error_pages_url_and_query() {
    let origin = Origin::start(Canned { status: "500 Internal Server Error", fields: JSON, body: "{}" });
    let pages_at = echo("pages");
    let settings =
        format!("{{status: [500-599], url: '{}', query: '/errors/{{status}}?at={{url}}'}}", pages_at.url());
    let gateway = pages(&origin, &settings);
    let page = Request::get("/a b?x=1".replace(' ', "%20").as_str())
        .header("Accept-Language", "de")
        .send(gateway.addr())
        .expect(500);
    assert_eq!(page.echoed().target(), "/errors/500?at=http%3A%2F%2Ftest%2Fa%2520b%3Fx%3D1");
    assert_eq!(page.echoed().all("accept-language"), ["de"]);
    assert_eq!(page.header("content-type"), "application/json");
}

#[test]
fn error_pages_that_cannot_be_had_leave_the_error() {
    let origin =
        Origin::start(Canned { status: "500 Internal Server Error", fields: JSON, body: "{\"own\":1}" });
    let gateway = pages(&origin, "{status: [500-599], url: 'http://127.0.0.1:1'}");
    assert_eq!(Request::get("/").send(gateway.addr()).expect(500).text(), "{\"own\":1}");
}

#[test]
fn error_pages_timeout() {
    let origin = Origin::start(Canned { status: "500 Internal Server Error", fields: JSON, body: "own" });
    let slow = Origin::start(Slow { before_head: Duration::from_secs(3), ..Slow::default() });
    let gateway = pages(&origin, &format!("{{status: [500-599], url: '{}', timeout: 100ms}}", slow.url()));
    assert_eq!(Request::get("/").send(gateway.addr()).expect(500).text(), "own");
}

#[test]
fn error_pages_status_rewrites() {
    let origin = Origin::start(Canned { status: "504 Gateway Timeout", fields: JSON, body: "own" });
    let settings =
        "{status: [500-599], body: '{status} was {originalStatus}', status_rewrites: {502-504: 500}}";
    let gateway = pages(&origin, settings);
    assert_eq!(Request::get("/").send(gateway.addr()).expect(500).text(), "500 was 504");
}

#[test]
fn buffering_holds_requests_and_responses() {
    let pair = pair(
        "[{name: buffering, config: {max_request_body_bytes: 1000, max_response_body_bytes: 5000}}]",
        "",
    );
    let mut connection = Connection::open(pair.gateway.addr());
    connection.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    let echoed = connection.response().expect(200).echoed();
    assert_eq!((echoed.all("content-length"), echoed.all("transfer-encoding").len()), (vec!["3"], 0));
    Request::post("/", "x".repeat(1001)).send(pair.gateway.addr()).expect(413);
}

#[test]
fn buffering_max_response_body_bytes() {
    for (len, status) in [(5000, 200), (5001, 502)] {
        let origin = Origin::start(Bulk { len, chunked: true });
        let text = format!(
            "services: [{{name: s, url: '{}', routes: [{{paths: [/]}}], plugins: [{{name: buffering, config: \
             {{max_response_body_bytes: 5000}}}}]}}]\n",
            origin.url()
        );
        let gateway = Gateway::start(&Setup::new(text));
        let response = Request::get("/").send(gateway.addr()).expect(status);
        assert!(response.has("content-length"));
    }
}

#[test]
fn routes_buffer_by_themselves_where_asked() {
    let origin = Origin::start(Bulk { len: 3000, chunked: true });
    let text = format!(
        "services: [{{name: s, url: '{}', routes: [{{paths: [/], request_buffering: true, response_buffering: true}}]}}]\n",
        origin.url()
    );
    let gateway = Gateway::start(&Setup::new(text));
    assert_eq!(Request::post("/", "abc").send(gateway.addr()).expect(200).header("content-length"), "3000");
}
