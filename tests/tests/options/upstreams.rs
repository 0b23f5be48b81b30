//! Options of upstreams and of the pools to them.

use std::collections::BTreeSet;

use portcullis_tests::certs::Authority;
use portcullis_tests::client::{Connection, Request};
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::{Gateway, Setup};
use portcullis_tests::origin::secure::SecureOrigin;
use portcullis_tests::origin::{Echo, Origin};

use super::echo;

const NAMES: [&str; 3] = ["a", "b", "c"];

fn three() -> [Origin; 3] {
    NAMES.map(|name| Origin::start(Echo { name }))
}

/// A gateway of one shard with these targets, flow maps, and `keys` of their upstream.
fn balanced(targets: &[String], keys: &str) -> Gateway {
    let text = format!(
        "upstreams: [{{name: many, targets: [{}], {keys}}}]\nservices: [{{name: web, host: many, retries: 0, routes: \
         [{{name: all, paths: ['~/users/(?<user>[a-z0-9]+)', /], strip_path: false}}]}}]\n",
        targets.join(", ")
    );
    Gateway::start(&Setup::new(text).shards(1))
}

fn targets(origins: &[Origin]) -> Vec<String> {
    origins.iter().map(|origin| format!("{{target: '{}'}}", origin.addr())).collect()
}

fn answered_by(gateway: &Gateway, request: &Request) -> String {
    request.send(gateway.addr()).expect(200).echoed().origin().to_owned()
}

/// The same request goes to the same target, and others go to others.
#[track_caller]
fn hashed(keys: &str, request: impl Fn(usize) -> Request) {
    let origins = three();
    let gateway = balanced(&targets(&origins), &format!("algorithm: consistent-hashing, {keys}"));
    let mut all = BTreeSet::new();
    for number in 0..12 {
        let one = answered_by(&gateway, &request(number));
        for _ in 0..3 {
            assert_eq!(answered_by(&gateway, &request(number)), one, "{keys}");
        }
        all.insert(one);
    }
    assert!(all.len() > 1, "{keys}: all went to {all:?}");
}

#[test]
fn upstream_hash_on_header() {
    hashed("hash_on: header, hash_on_header: X-User", |n| Request::get("/").header("X-User", n.to_string()));
}

#[test]
fn upstream_hash_on_query_arg() {
    hashed("hash_on: query_arg, hash_on_query_arg: user", |n| {
        Request::get(&format!("/?other={}&user=u{n}", 99 - n))
    });
}

#[test]
fn upstream_hash_on_path() {
    hashed("hash_on: path", |n| Request::get(&format!("/path/{n}")));
}

#[test]
fn upstream_hash_fallback() {
    let on = "hash_on: header, hash_on_header: X-Not-There";
    hashed(&format!("{on}, hash_fallback: header, hash_fallback_header: X-User"), |n| {
        Request::get("/").header("X-User", n.to_string())
    });
    hashed(&format!("{on}, hash_fallback: query_arg, hash_fallback_query_arg: user"), |n| {
        Request::get(&format!("/?user=u{n}"))
    });
    hashed(&format!("{on}, hash_fallback: uri_capture, hash_fallback_uri_capture: user"), |n| {
        Request::get(&format!("/users/u{n}"))
    });
    hashed(&format!("{on}, hash_fallback: path"), |n| Request::get(&format!("/path/{n}")));
    hashed(&format!("{on}, hash_fallback: cookie, hash_on_cookie: session"), |n| {
        Request::get("/").header("Cookie", format!("session=s{n}"))
    });
    // Where the first is there, it decides.
    let origins = three();
    let keys = "algorithm: consistent-hashing, hash_on: header, hash_on_header: X-User, hash_fallback: path";
    let gateway = balanced(&targets(&origins), keys);
    let of = |n: usize| answered_by(&gateway, &Request::get(&format!("/path/{n}")).header("X-User", "ann"));
    assert!((1..12).all(|n| of(n) == of(0)));
}

#[test]
fn upstream_host_header() {
    let origin = echo();
    let gateway = balanced(&targets(std::slice::from_ref(&origin)), "host_header: orders.example.com");
    assert_eq!(
        Request::get("/").send(gateway.addr()).expect(200).echoed().all("host"),
        ["orders.example.com"]
    );
}

#[test]
fn target_backup() {
    let [first, second, stand_in] = three();
    let list = [
        format!("{{target: '{}'}}", first.addr()),
        format!("{{target: '{}'}}", second.addr()),
        format!("{{target: '{}', backup: true}}", stand_in.addr()),
    ];
    let gateway =
        balanced(&list, "healthchecks: {passive: {unhealthy: {tcp_failures: 1}, max_ejected_percent: 100}}");
    let get = Request::get("/");
    let by: BTreeSet<String> = (0..9).map(|_| answered_by(&gateway, &get)).collect();
    assert_eq!(by.into_iter().collect::<Vec<_>>(), ["a", "b"]);
    drop((first, second));
    eventually("the stand-in serves", || {
        let response = get.send(gateway.addr());
        holds(response.status == 200 && response.echoed().origin() == "c", response.status.to_string())
    });
}

#[test]
fn sticky_cookie_domain() {
    let origin = echo();
    for (domain, ending) in [("domain: example.com, ", "; Domain=example.com"), ("", "")] {
        let keys = format!("sticky: {{cookie: {{{domain}name: side}}}}");
        let gateway = balanced(&targets(std::slice::from_ref(&origin)), &keys);
        let response = Request::get("/").send(gateway.addr()).expect(200);
        let cookie = response.header("set-cookie");
        assert!(cookie.starts_with("side="), "{cookie}");
        assert_eq!(cookie.contains("Domain"), !ending.is_empty(), "{cookie}");
        assert!(cookie.contains(ending), "{cookie}");
    }
}

#[test]
fn healthchecks_active_https_sni_and_verify_certificate() {
    let dir = tempfile::TempDir::new().expect("a folder");
    let authority = Authority::new(dir.path());
    let other = tempfile::TempDir::new().expect("a folder");
    let stranger = Authority::new(other.path());
    for (trusted, name, verify, good) in [
        (&authority, "probe.test", true, true),
        (&authority, "other.test", true, false),
        (&stranger, "probe.test", true, false),
        (&stranger, "other.test", false, true),
    ] {
        let target = SecureOrigin::start(&authority.leaf(&["probe.test"]), None);
        let text = format!(
            "upstreams: [{{name: many, targets: [{{target: '127.0.0.1:{}'}}], healthchecks: {{active: {{type: https, \
             https_sni: {name}, https_verify_certificate: {verify}, timeout: 5s, healthy: {{interval: 0.1, successes: 1}}, \
             unhealthy: {{interval: 0.1, tcp_failures: 1, http_failures: 1}}}}, passive: {{eject_for: 0}}}}}}]\n\
             services: [{{name: web, host: many, protocol: https, tls_verify: false, retries: 0, routes: [{{paths: [/]}}]}}]\n",
            target.port()
        );
        let gateway = Gateway::start(&Setup::new(text).shards(1).trusting(&trusted.ca_file()));
        let by_probe = || target.handshakes().iter().any(|one| one["sni"] == name);
        if good {
            eventually("a probe", || holds(by_probe(), "none"));
            Request::get("/").send(gateway.addr()).expect(200);
        } else {
            eventually("the target is out", || {
                let status = Request::get("/").send(gateway.addr()).status;
                holds(status == 503, format!("{name} {verify}: {status}"))
            });
        }
    }
}

#[test]
fn limits_upstream_idle_connections() {
    for (kept, connections) in [(0, 6), (8, 1)] {
        let origin = echo();
        let gateway =
            super::gateway(&origin, "[]", &format!("limits: {{upstream_idle_connections: {kept}}}\n"));
        let mut connection = Connection::open(gateway.addr());
        for _ in 0..6 {
            Request::get("/").keep().send_on(&mut connection).expect(200);
        }
        assert_eq!(origin.connections(), connections, "{kept} kept");
    }
}
