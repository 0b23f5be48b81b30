//! Options of the Redis of shared limits, each with real servers.

use std::collections::BTreeSet;
use std::time::Duration;

use portcullis_tests::certs::Authority;
use portcullis_tests::client::Request;
use portcullis_tests::eventually::{eventually, holds, within};
use portcullis_tests::gateway::Gateway;
use portcullis_tests::ports::Reserved;
use portcullis_tests::redis::Redis;

use super::{echo, gateway, setup};

/// `rate-limiting-advanced` that counts two requests of each value of `X-Key` in this server.
fn advanced(server: &str) -> String {
    format!(
        "[{{name: rate-limiting-advanced, config: {{strategy: redis, limit: [2], window_size: [999983], \
         window_type: fixed, identifier: header, header_name: X-Key, redis: {{{server}}}}}}}]"
    )
}

/// `rate-limiting` with Kong's older keys, in the same way.
fn older(server: &str) -> String {
    format!(
        "[{{name: rate-limiting, config: {{policy: redis, year: 2, limit_by: header, header_name: X-Key, \
         redis_timeout: 10000, {server}}}}}]"
    )
}

fn status(gateway: &Gateway, key: &str) -> u16 {
    Request::get("/").header("X-Key", key).send(gateway.addr()).status
}

/// Requests that a gateway has decided by itself, as its Redis did not answer it.
fn alone(gateway: &Gateway) -> f64 {
    gateway.metrics().get("portcullis_limiter_alone_total", &[])
}

/// Whether this gateway and Redis understand each other.
#[track_caller]
fn counts(plugins: &str, shared: bool) {
    let origin = echo();
    let gateway = gateway(&origin, plugins, "");
    assert_eq!([(); 3].map(|()| status(&gateway, "k")), [200, 200, 429]);
    assert_eq!(alone(&gateway) == 0.0, shared, "{plugins}");
}

/// What a user may do whose password is `secret`: everything.
const ALL: &[&str] = &["on", ">secret", "~*", "&*", "+@all"];

#[test]
fn rate_limiting_redis_username() {
    let redis = Redis::start_with(&[&["--user", "bob"], ALL, &["--user", "default", "off"]].concat());
    for (user, shared) in [("bob", true), ("eve", false)] {
        let server = format!(
            "redis_host: 127.0.0.1, redis_port: {}, redis_username: {user}, redis_password: secret",
            redis.port()
        );
        counts(&older(&server), shared);
        let server = format!(
            "host: 127.0.0.1, port: {}, timeout: 10000, username: {user}, password: secret",
            redis.port()
        );
        counts(&advanced(&server), shared);
    }
}

/// A server that speaks TLS only, with the certificate of `redis.test`, and its authority.
fn secure() -> (Redis, std::path::PathBuf) {
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
    (Redis::start_in(dir, options.as_flattened()), ca)
}

#[test]
fn rate_limiting_redis_ssl_and_its_verification() {
    let (redis, ca) = secure();
    let server = format!("redis_host: 127.0.0.1, redis_port: {}", redis.port());
    counts(&older(&server), false);
    counts(&older(&format!("{server}, redis_ssl: true")), true);
    // Nobody has told this machine of the authority.
    counts(
        &older(&format!("{server}, redis_ssl: true, redis_ssl_verify: true, redis_server_name: redis.test")),
        false,
    );
    for (name, shared) in [("redis.test", true), ("other.test", false)] {
        let tls = format!("{server}, redis_ssl: true, redis_ssl_verify: true, redis_server_name: {name}");
        let origin = echo();
        let gateway = Gateway::start(&setup(&origin, &older(&tls), "").trusting(&ca));
        assert_eq!([(); 3].map(|()| status(&gateway, name)), [200, 200, 429]);
        assert_eq!(alone(&gateway) == 0.0, shared, "{name}");
    }
}

#[test]
fn redis_cluster_max_redirections() {
    let nodes = [(); 2].map(|()| {
        let bus = Reserved::new().addr().port().to_string();
        let options =
            ["--cluster-enabled", "yes", "--cluster-config-file", "DIR/nodes.conf", "--cluster-port", &bus];
        (Redis::start_with(&options), bus)
    });
    for ((node, _), (from, to)) in nodes.iter().zip([("0", "8191"), ("8192", "16383")]) {
        assert_eq!(node.ask(&["CLUSTER", "ADDSLOTSRANGE", from, to]), "OK");
    }
    let (second, bus) = &nodes[1];
    assert_eq!(nodes[0].0.ask(&["CLUSTER", "MEET", "127.0.0.1", &second.port().to_string(), bus]), "OK");
    eventually("a cluster", || {
        let states = nodes.each_ref().map(|(node, _)| node.ask(&["CLUSTER", "INFO"]));
        holds(states.iter().all(|state| state.contains("cluster_state:ok")), states.join("\n"))
    });
    for (most, follows) in [(0, false), (1, true)] {
        let server = format!(
            "timeout: 10000, cluster_nodes: [{{ip: 127.0.0.1, port: {}}}], cluster_max_redirections: {most}",
            nodes[0].0.port()
        );
        let origin = echo();
        let gateway = gateway(&origin, &advanced(&server), "");
        for key in 0..20 {
            assert_eq!(status(&gateway, &key.to_string()), 200);
        }
        assert_eq!(alone(&gateway) == 0.0, follows, "at most {most}");
    }
}

#[test]
fn redis_timeouts_of_steps() {
    let redis = Redis::start();
    for (limits, waits) in
        [("connect_timeout: 20, send_timeout: 20, read_timeout: 20", false), ("send_timeout: 60000", true)]
    {
        let server = format!("host: 127.0.0.1, port: {}, {limits}", redis.port());
        let origin = echo();
        let gateway = gateway(&origin, &advanced(&server), "");
        eventually("Redis is reached", || {
            let before = alone(&gateway);
            status(&gateway, "warm");
            holds(alone(&gateway) == before, "not yet")
        });
        let before = alone(&gateway);
        // Until then it answers nobody.
        assert_eq!(redis.ask(&["CLIENT", "PAUSE", "3000", "ALL"]), "OK");
        status(&gateway, "k");
        assert_eq!(alone(&gateway) == before, waits, "{limits}");
    }
}

/// A master, its replica, and a sentinel that watches both.
struct Group {
    servers: [Redis; 2],
    sentinel: Redis,
}

impl Group {
    /// `lines` are of the sentinel's configuration.
    fn start(lines: &str) -> Self {
        let first = Redis::start_with(&["--repl-diskless-sync-delay", "0"]);
        let port = first.port().to_string();
        let options = ["--replicaof", "127.0.0.1", &port, "--repl-diskless-sync-delay", "0"];
        let second = Redis::start_with(&options);
        eventually("a replica", || {
            let told = first.ask(&["INFO", "replication"]);
            holds(told.contains("state=online"), told)
        });
        let sentinel = Redis::sentinel("limits", first.port(), lines);
        Group { servers: [first, second], sentinel }
    }
}

#[test]
fn redis_sentinel_nodes_and_master() {
    let group = Group::start("");
    let server = |master: &str| {
        // Nobody listens at the first place.
        format!(
            "timeout: 10000, sentinel_master: {master}, sentinel_role: master, \
             sentinel_nodes: [{{host: 127.0.0.1, port: 1}}, {{host: 127.0.0.1, port: {}}}]",
            group.sentinel.port()
        )
    };
    counts(&advanced(&server("others")), false);
    let origin = echo();
    let gateway = gateway(&origin, &advanced(&server("limits")), "");
    assert_eq!([(); 3].map(|()| status(&gateway, "before")), [200, 200, 429]);
    assert_eq!(alone(&gateway), 0.0);
    let keys = |server: usize| -> BTreeSet<String> {
        group.servers[server].ask(&["KEYS", "*"]).lines().map(str::to_owned).collect()
    };
    let before = keys(0);
    assert_eq!(before.len(), 1);

    // The replica becomes the master, and the old one its replica, to which nothing can be written.
    let watch = Duration::from_secs(60);
    within(watch, "the sentinel knows the replica", || {
        let said = group.sentinel.ask(&["SENTINEL", "FAILOVER", "limits"]);
        holds(said == "OK", said)
    });
    within(watch, "the other is the master", || {
        let roles = group.servers.each_ref().map(|server| server.ask(&["ROLE"]));
        let told = group.sentinel.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "limits"]);
        let named = told.ends_with(&group.servers[1].port().to_string());
        holds(roles[0].starts_with("slave") && roles[1].starts_with("master") && named, roles.join("\n"))
    });
    eventually("limits are shared again", || {
        status(&gateway, "any");
        // What the old master had may be lost; the new one has what was not there.
        let found = keys(1);
        holds(!found.is_subset(&before), format!("{} alone, {found:?}", alone(&gateway)))
    });
    let (decided_alone, known) = (alone(&gateway), keys(1).len());
    assert_eq!([(); 3].map(|()| status(&gateway, "after")), [200, 200, 429]);
    assert_eq!((alone(&gateway), keys(1).len()), (decided_alone, known + 1));
}

#[test]
fn redis_sentinel_username_and_password() {
    let group = Group::start("user watcher on >word ~* &* +@all\nuser default off");
    for (word, shared) in [("word", true), ("another", false)] {
        let server = format!(
            "timeout: 10000, sentinel_master: limits, sentinel_username: watcher, sentinel_password: {word}, \
             sentinel_nodes: [{{host: 127.0.0.1, port: {}}}]",
            group.sentinel.port()
        );
        counts(&advanced(&server), shared);
    }
}
