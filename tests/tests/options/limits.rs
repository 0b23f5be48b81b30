//! Options of the limiters, and of their Redis.

use portcullis_tests::certs::Authority;
use portcullis_tests::client::Request;
use portcullis_tests::gateway::Gateway;
use portcullis_tests::redis::Redis;

use super::{echo, gateway, setup};

fn statuses(gateway: &Gateway, count: usize) -> Vec<u16> {
    (0..count).map(|_| Request::get("/").send(gateway.addr()).status).collect()
}

#[test]
fn rate_limiting_month() {
    let origin = echo();
    let gateway =
        gateway(&origin, "[{name: rate-limiting, config: {month: 2, policy: local, limit_by: ip}}]", "");
    let first = Request::get("/").send(gateway.addr()).expect(200);
    assert_eq!(
        (first.header("x-ratelimit-limit-month"), first.header("x-ratelimit-remaining-month")),
        ("2", "1")
    );
    assert_eq!(statuses(&gateway, 2), [200, 429]);
}

#[test]
fn rate_limiting_fault_tolerant() {
    // Nobody listens there.
    for (tolerant, expected) in [(true, [200, 429]), (false, [500, 500])] {
        let origin = echo();
        let settings = format!(
            "minute: 1, policy: redis, redis: {{host: 127.0.0.1, port: 1}}, fault_tolerant: {tolerant}, limit_by: ip"
        );
        let gateway = gateway(&origin, &format!("[{{name: rate-limiting, config: {{{settings}}}}}]"), "");
        assert_eq!(statuses(&gateway, 2), expected, "{tolerant}");
    }
}

fn counted(server: &str) -> String {
    format!(
        "[{{name: rate-limiting-advanced, config: {{strategy: redis, limit: [2], window_size: [999983], \
         window_type: fixed, identifier: ip, redis: {{{server}}}}}}}]"
    )
}

#[test]
fn redis_database() {
    let (origin, redis) = (echo(), Redis::start());
    let server = format!("host: 127.0.0.1, port: {}, timeout: 10000, database: 3", redis.port());
    let gateway = gateway(&origin, &counted(&server), "");
    assert_eq!(statuses(&gateway, 3), [200, 200, 429]);
    assert_eq!(redis.ask(&["DBSIZE"]), "0");
    let mut session = redis.session();
    session.ask(&["SELECT", "3"]);
    assert_ne!(session.ask(&["DBSIZE"]), "0");
}

#[test]
fn redis_ssl_verify_and_server_name() {
    let dir = tempfile::Builder::new().prefix("redis-").tempdir().expect("a temporary folder");
    let authority = Authority::new(dir.path());
    let leaf = authority.leaf(&["redis.test"]);
    let ca = authority.ca_file();
    let (cert, key) = (leaf.cert.display().to_string(), leaf.key.display().to_string());
    let ca_text = ca.display().to_string();
    let options = [
        ["--port", "0"],
        ["--tls-port", "PORT"],
        ["--tls-cert-file", &cert],
        ["--tls-key-file", &key],
        ["--tls-ca-cert-file", &ca_text],
        ["--tls-auth-clients", "no"],
    ];
    let redis = Redis::start_in(dir, options.as_flattened());
    let start = |name: &str| {
        let server = format!(
            "host: 127.0.0.1, port: {}, timeout: 10000, ssl: true, ssl_verify: true, server_name: {name}",
            redis.port()
        );
        let origin = echo();
        (Gateway::start(&setup(&origin, &counted(&server), "").trusting(&ca)), origin)
    };
    let alone = |gateway: &Gateway| gateway.metrics().get("portcullis_limiter_alone_total", &[]);
    // Two that know the authority count together; who asks for another name counts by itself.
    let (one, _origin) = start("redis.test");
    let (two, _other) = start("redis.test");
    assert_eq!([statuses(&one, 1), statuses(&two, 2)].concat(), [200, 200, 429]);
    assert_eq!([alone(&one), alone(&two)], [0.0, 0.0]);
    let (wrong, _third) = start("other.test");
    assert_eq!(statuses(&wrong, 3), [200, 200, 429]);
    assert!(alone(&wrong) >= 3.0);
}
