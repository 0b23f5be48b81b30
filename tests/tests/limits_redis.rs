//! Limits whose counts are in a real Redis: shared exactly, and kept when it is away.

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use portcullis_tests::certs::Authority;
use portcullis_tests::client::load::{Load, Reuse};
use portcullis_tests::client::{Connection, Request};
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::{Gateway, Setup};
use portcullis_tests::origin::{Echo, Origin};
use portcullis_tests::redis::Redis;

/// A window that does not end inside a test: it does once in eleven days.
const LONG: &str = "window_size: [999983], window_type: fixed, identifier: ip";

fn origin() -> Origin {
    Origin::start(Echo::default())
}

/// A gateway that counts in Redis; `config` is that of `plugin`, `REDIS` in it the settings of the server.
fn gateway(origin: &Origin, redis: SocketAddr, plugin: &str, config: &str) -> Gateway {
    let server = format!("host: 127.0.0.1, port: {}, timeout: 10000", redis.port());
    let config = config.replace("REDIS", &server).replace("PORT", &redis.port().to_string());
    let below = format!("        plugins:\n          - name: {plugin}\n            config: {config}\n");
    Gateway::start(&Setup::proxy(origin.addr(), &below))
}

fn advanced(origin: &Origin, redis: SocketAddr, config: &str) -> Gateway {
    gateway(origin, redis, "rate-limiting-advanced", &format!("{{strategy: redis, {config}}}"))
}

fn get(gateway: &Gateway) -> u16 {
    Request::get("/").send(gateway.addr()).status
}

/// How many of `count` requests pass; the others must be refused with 429.
fn passed(gateway: &Gateway, count: usize) -> usize {
    let statuses: Vec<_> = (0..count).map(|_| get(gateway)).collect();
    assert!(statuses.iter().all(|status| matches!(status, 200 | 429)), "{statuses:?}");
    statuses.iter().filter(|status| **status == 200).count()
}

fn alone(gateway: &Gateway) -> f64 {
    gateway.metrics().get("portcullis_limiter_alone_total", &[])
}

#[test]
fn strict_counts_are_exact_over_gateways_and_shards() {
    const LIMIT: usize = 200;
    let (origin, redis) = (origin(), Redis::start());
    let config = format!("limit: [{LIMIT}], {LONG}, redis: {{REDIS}}");
    let gateways = [(); 2].map(|()| advanced(&origin, redis.addr(), &config));
    let passed: usize = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..6)
            .map(|worker| {
                let addr = gateways[worker % 2].addr();
                scope.spawn(move || {
                    let mut connection = Connection::open(addr);
                    let request = Request::get("/").keep();
                    let statuses: Vec<_> = (0..60).map(|_| request.send_on(&mut connection).status).collect();
                    assert!(statuses.iter().all(|status| matches!(status, 200 | 429)), "{statuses:?}");
                    statuses.iter().filter(|status| **status == 200).count()
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker")).sum()
    });
    assert_eq!((passed, origin.requests()), (LIMIT, LIMIT));
    assert_eq!(gateways.each_ref().map(alone), [0.0, 0.0]);
}

#[test]
fn kongs_older_keys_run_unchanged() {
    let (origin, redis) = (origin(), Redis::start_with(&["--requirepass", "secret"]));
    let config = "{hour: 3, day: 100000, policy: redis, redis_host: 127.0.0.1, redis_port: PORT, redis_password: secret, \
                  redis_timeout: 10000, redis_database: 3, limit_by: credential, hide_client_headers: true}";
    let gateways = [(); 2].map(|()| gateway(&origin, redis.addr(), "rate-limiting", config));
    let start = Request::get("/").send(gateways[0].addr()).expect(200);
    assert!(!start.has("ratelimit-limit"));
    // The hour may end once, and gives as much again.
    let more = passed(&gateways[0], 4) + passed(&gateways[1], 5);
    assert!(matches!(more, 2 | 5), "{more}");
    let mut session = redis.session();
    assert_eq!(session.ask(&["AUTH", "secret"]), "OK");
    assert_eq!(session.ask(&["DBSIZE"]), "0");
    session.ask(&["SELECT", "3"]);
    let keys = session.ask(&["KEYS", "*"]);
    assert!(keys.contains(":f:Hour:") && keys.contains(":f:Day:"), "{keys}");
    assert!(!keys.contains("127.0.0.1"), "{keys}");
    for key in keys.lines() {
        let life: u64 = session.ask(&["TTL", key]).parse().expect("seconds");
        assert!((1..=86_500).contains(&life), "{key}: {life}");
    }
}

#[test]
fn redis_username_and_password_are_those_of_the_acl() {
    let (origin, redis) = (origin(), Redis::start());
    assert_eq!(redis.ask(&["ACL", "SETUSER", "gate", "on", ">pw", "~portcullis:*", "+@all"]), "OK");
    assert_eq!(redis.ask(&["ACL", "SETUSER", "default", "off"]), "OK");
    let config =
        |password| format!("limit: [2], {LONG}, redis: {{REDIS, username: gate, password: {password}}}");
    let good = advanced(&origin, redis.addr(), &config("pw"));
    assert_eq!((passed(&good, 4), alone(&good)), (2, 0.0));
    let wrong = advanced(&origin, redis.addr(), &config("other"));
    assert_eq!(passed(&wrong, 4), 2, "by itself");
    assert!(alone(&wrong) >= 4.0);
    let said = wrong.stderr();
    assert!(said.contains("Redis refuses us") && !said.contains("other"), "{said}");
}

#[test]
fn every_algorithm_counts_in_redis() {
    let (origin, redis) = (origin(), Redis::start());
    for (algorithm, admitted) in
        [("fixed_window", 3), ("sliding_counter", 3), ("sliding_log", 3), ("token_bucket, burst: [5]", 5)]
    {
        redis.ask(&["FLUSHALL"]);
        let config = format!(
            "limit: [3], window_size: [999983], identifier: ip, algorithm: {algorithm}, redis: {{REDIS}}"
        );
        let gateways = [(); 2].map(|()| advanced(&origin, redis.addr(), &config));
        let all = passed(&gateways[0], 2) + passed(&gateways[1], 7);
        assert_eq!(all, admitted, "{algorithm}");
        let refused = Request::get("/").send(gateways[0].addr()).expect(429);
        let wait: u64 = refused.header("retry-after").parse().expect("seconds");
        assert!((1..=2 * 999_983).contains(&wait), "{algorithm}: {wait}");
        assert_eq!(refused.header("ratelimit-remaining"), "0", "{algorithm}");
    }
}

#[test]
fn a_leaky_bucket_in_redis_delays() {
    let (origin, redis) = (origin(), Redis::start());
    let config =
        "limit: [2], window_size: [1], identifier: ip, algorithm: leaky_bucket, burst: [3], redis: {REDIS}";
    let gateway = advanced(&origin, redis.addr(), config);
    let begin = Instant::now();
    assert_eq!(passed(&gateway, 4), 4);
    assert!(begin.elapsed() >= Duration::from_millis(1_450), "{:?}", begin.elapsed());
}

#[test]
fn a_script_that_the_server_has_forgotten_is_sent_again() {
    let (origin, redis) = (origin(), Redis::start());
    let gateway = advanced(&origin, redis.addr(), &format!("limit: [6], {LONG}, redis: {{REDIS}}"));
    assert_eq!(passed(&gateway, 2), 2);
    redis.ask(&["SCRIPT", "FLUSH"]);
    assert_eq!((passed(&gateway, 6), alone(&gateway)), (4, 0.0));
}

#[test]
fn without_redis_each_gateway_keeps_to_its_part() {
    let (origin, redis) = (origin(), Redis::start());
    let config = format!("limit: [10], {LONG}, redis: {{REDIS, gateways: 2}}");
    let gateways = [(); 2].map(|()| advanced(&origin, redis.addr(), &config));
    let mut redis = redis;
    assert_eq!(passed(&gateways[0], 4), 4);
    redis.kill();
    // Four of ten are used, as far as the first one knows: two of its five.
    assert_eq!(passed(&gateways[0], 12), 3);
    assert_eq!(passed(&gateways[1], 12), 5);
    assert!(gateways.iter().all(|gateway| alone(gateway) >= 12.0));
    let said = gateways[0].stderr();
    assert_eq!(said.matches("Redis does not answer").count(), 1, "{said}");
    redis.restart();
    // It knows nothing any more, so that all of the limit is there again.
    eventually("counts in Redis, and a line that says so", || {
        gateways.iter().for_each(|gateway| assert!(matches!(get(gateway), 200 | 429)));
        let keys = redis.ask(&["DBSIZE"]);
        let said = gateways.each_ref().map(Gateway::stderr);
        holds(keys != "0" && said.iter().all(|said| said.contains("Redis answers again")), keys)
    });
    // Each shard finds it by itself.
    eventually("nothing that is decided alone", || {
        let before = gateways.each_ref().map(alone);
        for _ in 0..8 {
            gateways.iter().for_each(|gateway| assert!(matches!(get(gateway), 200 | 429)));
        }
        let after = gateways.each_ref().map(alone);
        holds(before == after, format!("{before:?} {after:?}"))
    });
}

#[test]
fn redis_killed_and_started_again_under_load_fails_no_request() {
    let (origin, mut redis) = (origin(), Redis::start());
    let config = "limit: [1000000000], window_size: [999983], identifier: ip, redis: {REDIS}";
    let gateway = advanced(&origin, redis.addr(), config);
    let request = Request::get("/").keep().bytes();
    let load = Load::start(gateway.addr(), 4, Reuse::KeepAlive, &request, "server");
    for _ in 0..2 {
        load.wait_for(100);
        redis.kill();
        load.wait_for(200);
        assert!(alone(&gateway) > 0.0);
        redis.restart();
        eventually("counts in Redis", || {
            let keys = redis.ask(&["DBSIZE"]);
            holds(keys != "0", keys.clone())
        });
    }
    load.wait_for(100);
    load.stop().expect_no_failure();
}

#[test]
fn fault_tolerant_false_refuses_while_redis_is_away() {
    let (origin, mut redis) = (origin(), Redis::start());
    let config = "{hour: 100000, policy: redis, limit_by: ip, fault_tolerant: false, redis: {REDIS}}";
    let gateway = gateway(&origin, redis.addr(), "rate-limiting", config);
    assert_eq!(get(&gateway), 200);
    redis.kill();
    let refused = Request::get("/").send(gateway.addr()).expect(500);
    assert_eq!(refused.json()["message"], "An unexpected error occurred");
    eventually("the refusal in the metrics", || {
        let count = gateway.metrics().get("portcullis_refusals_total", &[("reason", "limiter_unavailable")]);
        holds(count >= 1.0, count.to_string())
    });
    redis.restart();
    eventually("requests that pass again", || holds(get(&gateway) == 200, "still refused"));
}

#[test]
fn timeout_bounds_the_wait_for_a_server_that_hangs() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = silent.local_addr().expect("its address").port();
    let origin = origin();
    let config = format!(
        "{{limit: [3], {LONG}, strategy: redis, redis: {{host: 127.0.0.1, port: {port}, timeout: 200}}}}"
    );
    let below =
        format!("        plugins:\n          - name: rate-limiting-advanced\n            config: {config}\n");
    let gateway = Gateway::start(&Setup::proxy(origin.addr(), &below));
    let begin = Instant::now();
    assert_eq!(passed(&gateway, 30), 3);
    // Not one time limit for each request: who is known to be away is not waited for.
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert!(alone(&gateway) >= 30.0);
}

#[test]
fn sync_rate_shares_counts_after_a_while() {
    let (origin, mut redis) = (origin(), Redis::start());
    let config = format!("limit: [20], {LONG}, sync_rate: 0.05, redis: {{REDIS}}");
    let gateways = [(); 2].map(|()| advanced(&origin, redis.addr(), &config));
    assert_eq!(passed(&gateways[0], 12), 12);
    eventually("the counts of the first gateway in Redis", || {
        let keys = redis.ask(&["KEYS", "*"]);
        let used = if keys.is_empty() { String::new() } else { redis.ask(&["GET", keys.trim()]) };
        holds(used == "12", format!("{keys} {used}"))
    });
    // The other one learns of them with its own first ones.
    assert_eq!(get(&gateways[1]), 200);
    let mut sent = 1;
    eventually("a refusal by the other gateway", || {
        sent += 1;
        holds(get(&gateways[1]) == 429, format!("{sent} sent"))
    });
    assert!(origin.requests() <= 12 + sent, "{}", origin.requests());
    assert_eq!(passed(&gateways[1], 5), 0);
    redis.kill();
    assert_eq!(passed(&gateways[1], 5), 0, "what is known goes on to hold");
}

#[test]
fn ssl_speaks_tls_and_ssl_verify_wants_a_known_authority() {
    let dir = tempfile::Builder::new().prefix("redis-").tempdir().expect("a temporary folder");
    let authority = Authority::new(dir.path());
    let leaf = authority.leaf(&["redis.test"]);
    let (cert, key) = (leaf.cert.display().to_string(), leaf.key.display().to_string());
    let ca = authority.ca_file().display().to_string();
    let options = [
        "--port",
        "0",
        "--tls-port",
        "PORT",
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
        "--tls-auth-clients",
        "no",
    ];
    let redis = Redis::start_in(dir, &options);
    let origin = origin();
    let config = |verify| {
        format!(
            "limit: [3], {LONG}, redis: {{REDIS, ssl: true, ssl_verify: {verify}, server_name: redis.test}}"
        )
    };
    let gateways = [(); 2].map(|()| advanced(&origin, redis.addr(), &config(false)));
    assert_eq!(
        (passed(&gateways[0], 2) + passed(&gateways[1], 4), gateways.each_ref().map(alone)),
        (3, [0.0, 0.0])
    );
    let strict = advanced(&origin, redis.addr(), &config(true));
    assert_eq!(passed(&strict, 4), 3, "by itself");
    assert!(alone(&strict) >= 4.0, "nobody knows the authority of this test");
}

#[test]
fn cluster_nodes_are_found_by_redirections() {
    let origin = origin();
    let start = |_| {
        let bus = portcullis_tests::ports::Reserved::new().addr().port().to_string();
        let options =
            ["--cluster-enabled", "yes", "--cluster-config-file", "DIR/nodes.conf", "--cluster-port", &bus];
        (Redis::start_with(&options), bus)
    };
    let nodes: [(Redis, String); 2] = [0, 1].map(start);
    for ((node, _), (from, to)) in nodes.iter().zip([("0", "8191"), ("8192", "16383")]) {
        assert_eq!(node.ask(&["CLUSTER", "ADDSLOTSRANGE", from, to]), "OK");
    }
    let (other, bus) = &nodes[1];
    assert_eq!(nodes[0].0.ask(&["CLUSTER", "MEET", "127.0.0.1", &other.port().to_string(), bus]), "OK");
    eventually("a cluster", || {
        let states = nodes.each_ref().map(|(node, _)| node.ask(&["CLUSTER", "INFO"]));
        holds(states.iter().all(|state| state.contains("cluster_state:ok")), states.join("\n"))
    });
    let node = |at: usize| format!("{{ip: 127.0.0.1, port: {}}}", nodes[at].0.port());
    let config = |at| {
        format!(
            "limit: [3, 1000], window_size: [999983, 1999993], window_type: fixed, identifier: header, header_name: X-Key, \
             redis: {{timeout: 10000, cluster_nodes: [{}]}}",
            node(at)
        )
    };
    let gateways = [0, 1].map(|at| advanced(&origin, nodes[0].0.addr(), &config(at)));
    let send = |gateway: &Gateway, key: u32| {
        Request::get("/").header("X-Key", key.to_string()).send(gateway.addr()).status
    };
    for key in 0..20 {
        let statuses: Vec<_> = (0..4).map(|turn| send(&gateways[turn % 2], key)).collect();
        assert_eq!(statuses, [200, 200, 200, 429], "key {key}");
    }
    assert_eq!(gateways.each_ref().map(alone), [0.0, 0.0]);
    let sizes = nodes.each_ref().map(|(node, _)| node.ask(&["DBSIZE"]).parse::<u32>().expect("a number"));
    assert!(sizes[0] + sizes[1] == 40 && sizes.iter().all(|size| *size > 0), "{sizes:?}");

    // A slot on its way from one node to the other: keys that are not there yet are asked for elsewhere.
    let ids = nodes.each_ref().map(|(node, _)| node.ask(&["CLUSTER", "MYID"]));
    let keys = nodes[0].0.ask(&["KEYS", "*"]);
    let key = keys.lines().next().expect("a key");
    let slot = nodes[0].0.ask(&["CLUSTER", "KEYSLOT", key]);
    assert_eq!(nodes[1].0.ask(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &ids[0]]), "OK");
    assert_eq!(nodes[0].0.ask(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &ids[1]]), "OK");
    for key in nodes[0].0.ask(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]).lines() {
        nodes[0].0.ask(&["DEL", key]);
    }
    // Several windows are several keys, and Redis refuses those while they may be in two places; one window is one key.
    let short = config(0).replace("[3, 1000]", "[3]").replace("[999983, 1999993]", "[999983]");
    let single = advanced(&origin, nodes[0].0.addr(), &short);
    for key in 0..20 {
        assert!(matches!(send(&single, key), 200 | 429));
    }
    assert_eq!(nodes[0].0.ask(&["CLUSTER", "COUNTKEYSINSLOT", &slot]), "0");
    assert_eq!(nodes[1].0.ask(&["CLUSTER", "COUNTKEYSINSLOT", &slot]), "1");
    assert_eq!(alone(&single), 0.0);
    // Those of several windows are decided, too.
    for key in 0..20 {
        assert!(matches!(send(&gateways[0], key), 200 | 429));
    }
}

#[test]
fn the_redis_of_the_configuration_is_that_of_plugins_that_name_none() {
    let (origin, redis) = (origin(), Redis::start());
    let config = format!("{{limit: [3], {LONG}, strategy: redis}}");
    let below =
        format!("        plugins:\n          - name: rate-limiting-advanced\n            config: {config}\n");
    let section = format!("redis: {{host: 127.0.0.1, port: {}, timeout: 10s}}", redis.port());
    let gateways = [(); 2].map(|()| Gateway::start(&Setup::proxy(origin.addr(), &below).with(&section)));
    assert_eq!(
        (passed(&gateways[0], 2) + passed(&gateways[1], 4), gateways.each_ref().map(alone)),
        (3, [0.0, 0.0])
    );
}
