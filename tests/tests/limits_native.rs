//! token-bucket, in-flight-limit and bandwidth-limit: each option by what it does.

use std::time::{Duration, Instant};

use portcullis_tests::client::{Connection, Request};
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::{Gateway, Setup};
use portcullis_tests::origin::{Bulk, Echo, Gate, Held, Origin};

/// A gateway with a route `/NAME` for each pair of a name and its plugin; routes whose names begin with `who` ask for a
/// key first.
fn start(origin: &Origin, routes: &[(&str, &str)]) -> Gateway {
    let mut body = format!("services:\n  - name: web\n    url: http://{}\n    routes:\n", origin.addr());
    for (name, plugin) in routes {
        let auth =
            if name.starts_with("who") { "{name: key-auth, config: {anonymous: guest}}, " } else { "" };
        body.push_str(&format!("      - {{name: {name}, paths: [/{name}], plugins: [{auth}{plugin}]}}\n"));
    }
    body.push_str(
        "consumers:\n  - username: guest\n  - username: ann\n    keyauth_credentials: [{key: ann-1}]\n  - username: ben\n    \
         acls: [{group: staff}]\n    keyauth_credentials: [{key: ben-1}]\n",
    );
    Gateway::start(&Setup::new(body))
}

fn passed(gateway: &Gateway, count: usize, request: &Request) -> usize {
    let statuses: Vec<_> = (0..count).map(|_| request.send(gateway.addr()).status).collect();
    assert!(statuses.iter().all(|status| matches!(status, 200 | 429)), "{statuses:?}");
    statuses.iter().filter(|status| **status == 200).count()
}

fn by(target: &str, key: &str) -> Request {
    Request::get(target).header("apikey", key)
}

#[test]
fn token_bucket_options() {
    let origin = Origin::start(Echo::default());
    let bucket = |more: &str| format!("{{name: token-bucket, config: {{average: 1, period: 10h, {more}}}}}");
    let gateway = start(
        &origin,
        &[
            ("burst", &bucket("burst: 4")),
            ("closed", &bucket("burst: 0")),
            ("worded", &bucket("status: 503, message: later")),
            ("dear", &bucket("burst: 9, cost: 2, route_costs: {dear: 4}")),
            ("who-exempt", &bucket("exempt: {groups: [staff]}")),
            ("dry", &bucket("dry_run: true")),
            ("who-both", &bucket("compound_identifier: [consumer, header], header_name: X-A")),
        ],
    );
    assert_eq!(passed(&gateway, 6, &Request::get("/burst")), 4);
    let refused = Request::get("/burst").send(gateway.addr()).expect(429);
    let wait: u64 = refused.header("retry-after").parse().expect("seconds");
    assert!((30_000..=36_000).contains(&wait), "{wait}");
    assert!(refused.has("x-retry-in"));
    assert_eq!(passed(&gateway, 2, &Request::get("/closed")), 0);
    Request::get("/worded").send(gateway.addr()).expect(200);
    assert_eq!(Request::get("/worded").send(gateway.addr()).expect(503).json()["message"], "later");
    assert_eq!(passed(&gateway, 4, &Request::get("/dear")), 2);
    assert_eq!(passed(&gateway, 3, &by("/who-exempt", "ben-1")), 3);
    assert_eq!(passed(&gateway, 3, &by("/who-exempt", "ann-1")), 1);
    assert_eq!(passed(&gateway, 3, &Request::get("/dry")), 3);
    for (key, value) in [("ann-1", "1"), ("ann-1", "2"), ("ben-1", "1")] {
        assert_eq!(passed(&gateway, 2, &by("/who-both", key).header("X-A", value)), 1, "{key} {value}");
    }
}

#[test]
fn in_flight_limit_options() {
    let gate = Gate::shut();
    let origin = Origin::start(Held { gate: gate.clone(), midway: false });
    let limit = |more: &str| format!("{{name: in-flight-limit, config: {{amount: 1, {more}}}}}");
    let gateway = start(
        &origin,
        &[
            ("plain", &limit("status: 503, message: busy")),
            ("who", &limit("limit_by: consumer, exempt: {groups: [staff]}")),
            ("both", &limit("compound_identifier: [header, path], header_name: X-A")),
            ("dry", &limit("dry_run: true")),
        ],
    );
    let mut held = Vec::new();
    let mut hold = |request: &Request| {
        let before = origin.requests();
        let mut connection = Connection::open(gateway.addr());
        connection.send(request.bytes());
        eventually("the request at the origin", || holds(origin.requests() > before, "not yet"));
        held.push(connection);
    };
    hold(&Request::get("/plain"));
    let refused = Request::get("/plain").send(gateway.addr()).expect(503);
    assert_eq!(refused.json()["message"], "busy");
    hold(&by("/who", "ann-1"));
    by("/who", "ann-1").send(gateway.addr()).expect(429);
    hold(&by("/who", "ben-1"));
    hold(&by("/who", "ben-1"));
    hold(&Request::get("/both").header("X-A", "1"));
    hold(&Request::get("/both").header("X-A", "2"));
    hold(&Request::get("/both/other").header("X-A", "1"));
    Request::get("/both").header("X-A", "1").send(gateway.addr()).expect(429);
    hold(&Request::get("/dry"));
    hold(&Request::get("/dry"));
    gate.open();
    for connection in &mut held {
        connection.response().expect(200);
    }
    // Places come back with the end of an exchange.
    eventually("a free place", || {
        holds(Request::get("/plain").send(gateway.addr()).status == 200, "still held")
    });
}

#[test]
fn bandwidth_limit_options() {
    const LEN: u64 = 384 << 10;
    for chunked in [false, true] {
        let origin = Origin::start(Bulk { len: LEN, chunked });
        let limit = |more: &str| format!("{{name: bandwidth-limit, config: {{rate: 256KiB, {more}}}}}");
        let gateway = start(
            &origin,
            &[
                ("slow", &limit("burst: 128KiB, limit_by: header, header_name: X-A")),
                ("exempt", &limit("exempt: {ips: [127.0.0.0/8]}")),
                ("ample", &limit("burst: 8MiB")),
            ],
        );
        let time = |request: &Request| {
            let begin = Instant::now();
            for _ in 0..3 {
                let body = request.send(gateway.addr()).expect(200).body;
                assert!(body.len == LEN && !body.off_pattern, "{} bytes", body.len);
            }
            begin.elapsed()
        };
        let slow = |name: &str| Request::get("/slow").header("X-A", name);
        // Three times 384 KiB, less a burst of 128 and what is sent at once at the end, take 2.5 seconds at 256 a second.
        let both = std::thread::scope(|scope| {
            let other = scope.spawn(|| time(&slow("a")));
            [time(&slow("b")), other.join().expect("a body")]
        });
        assert!(both.iter().all(|time| *time >= Duration::from_millis(2_400)), "{both:?}");
        // Who has no account, or much on it, gets the same bodies; that he does not wait is a test of units.
        for route in ["/exempt", "/ample"] {
            time(&Request::get(route));
        }
    }
}
