//! The admin interface: metrics, status, readiness, and who may reach it.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use portcullis_tests::admin::Metrics;
use portcullis_tests::client::Request;
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::{Gateway, Setup, Shared};
use portcullis_tests::origin::{Echo, Origin};
use portcullis_tests::ports::Reserved;

struct Suite {
    gateway: Gateway,
    _origin: Origin,
}

fn suite() -> Arc<Suite> {
    static SUITE: Shared<Suite> = Shared::new();
    SUITE.get(|| {
        let origin = Origin::start(Echo::default());
        Suite { gateway: Gateway::start(&Setup::proxy(origin.addr(), "")), _origin: origin }
    })
}

#[test]
fn requests_are_counted_by_route_and_status() {
    let suite = suite();
    let count = || {
        suite.gateway.metrics().sum("portcullis_route_requests_total", &[("route", "all"), ("code", "200")])
    };
    let before = count();
    for _ in 0..7 {
        Request::get("/counted").send(suite.gateway.addr()).expect(200);
    }
    eventually("seven more requests", || holds(count() >= before + 7.0, format!("{}", count() - before)));
}

#[test]
fn latencies_of_gateway_and_upstream_are_apart() {
    let suite = suite();
    Request::get("/timed").send(suite.gateway.addr()).expect(200);
    eventually("histograms", || {
        let metrics = suite.gateway.metrics();
        for name in [
            "portcullis_route_latency_seconds",
            "portcullis_route_upstream_latency_seconds",
            "portcullis_route_gateway_latency_seconds",
        ] {
            holds(metrics.kind(name) == Some("histogram"), format!("{name} is {:?}", metrics.kind(name)))?;
            let count = metrics.sum(&format!("{name}_count"), &[("route", "all")]);
            let all = metrics.sum(&format!("{name}_bucket"), &[("route", "all"), ("le", "+Inf")]);
            holds(count >= 1.0 && count == all, format!("{name}: {count} and {all}"))?;
        }
        Ok(())
    });
}

#[test]
fn every_reason_of_the_proxy_has_a_series_from_the_start() {
    // A series that appears with its first count looks like no increase at all to `rate()`.
    let suite = suite();
    let metrics = suite.gateway.metrics();
    for reason in
        ["missing_host", "ambiguous_length", "no_route", "connect_failed", "rate_limited", "draining"]
    {
        let wanted = format!("portcullis_refusals_total{{reason={reason:?}}}");
        assert!(metrics.series().any(|(series, _)| series == wanted), "{wanted}");
    }
}

#[test]
fn the_driver_and_the_generation_of_each_shard_are_shown() {
    let suite = suite();
    eventually("both shards in the metrics", || {
        let metrics = suite.gateway.metrics();
        let drivers = metrics.sum("portcullis_shard_driver_info", &[]);
        let generations = metrics.sum("portcullis_shard_generation", &[]);
        let wanted = 2.0 * metrics.get("portcullis_config_generation", &[]);
        holds(
            drivers == 2.0 && generations == wanted,
            format!("{drivers} drivers, {generations} of {wanted}"),
        )
    });
    assert_eq!(suite.gateway.metrics().sum("portcullis_build_info", &[]), 1.0);
}

#[test]
fn status_tells_what_runs() {
    let suite = suite();
    let status = suite.gateway.status();
    assert!(status["generation"].as_u64().is_some_and(|generation| generation >= 1), "{status}");
    let text = status.to_string();
    assert_eq!(status["kernel"]["mode"], "off", "{status}");
    for word in ["version", "shards", "driver", "kernel", "uptime"] {
        assert!(text.contains(word), "{word} in {status}");
    }
}

#[test]
fn unknown_paths_and_methods() {
    let suite = suite();
    assert_eq!(suite.gateway.admin("GET", "/nothing").status, 404);
    let refused = suite.gateway.admin("POST", "/metrics").status;
    assert!(matches!(refused, 404 | 405), "{refused}");
}

#[test]
fn only_the_owner_may_use_the_socket() {
    let suite = suite();
    let mode = std::fs::metadata(suite.gateway.socket()).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn the_loopback_address_only_reads() {
    let origin = Origin::start(Echo::default());
    // Not held: the admin port is nobody's to share, so a held reservation would be in its way.
    let admin = Reserved::new().addr();
    let setup = Setup::proxy(origin.addr(), "").admin_address(admin);
    let gateway = Gateway::start(&setup);
    let text = Request::get("/metrics").header("Host", "localhost").send(admin).expect(200).text();
    Metrics::parse(&text).expect("well formed");
    Request::get("/status/ready").header("Host", "127.0.0.1").send(admin).expect(200);
    // What changes something or shows more is for the owner of the socket.
    for request in [Request::post("/reload", ""), Request::get("/config")] {
        request.header("Host", "localhost").send(admin).expect(403);
    }
    // A web page that resolves its own name to 127.0.0.1 is turned away by that name.
    Request::get("/metrics").header("Host", "attacker.test").send(admin).expect(403);
    assert_eq!(gateway.generation(), 1);
}

#[test]
fn the_configuration_in_force_is_shown_without_secrets() {
    let origin = Origin::start(Echo::default());
    let consumers = "consumers:\n  - username: ann\n    keyauth_credentials: [{key: very-secret-key}]\n    \
                     jwt_secrets: [{key: issuer, algorithm: HS256, secret: very-secret-secret-of-32-bytes-or-so}]";
    let gateway = Gateway::start(&Setup::proxy(origin.addr(), "").with(consumers));
    let text = gateway.admin("GET", "/config").expect(200).text();
    assert!(text.contains("ann") && text.contains("issuer"), "{text}");
    assert!(!text.contains("very-secret"), "{text}");
}

#[test]
fn the_socket_is_gone_after_the_end() {
    let origin = Origin::start(Echo::default());
    let gateway = Gateway::start(&Setup::proxy(origin.addr(), ""));
    let socket = gateway.socket();
    gateway.stop();
    assert!(!socket.exists());
}

#[test]
fn readiness_waits_out_the_drain_delay() {
    let origin = Origin::start(Echo::default());
    let gateway = Gateway::start(&Setup::proxy(origin.addr(), "").timeouts("drain_delay: 1s"));
    assert_eq!(gateway.admin("GET", "/status/ready").status, 200);
    gateway.signal("TERM");
    eventually("readiness turning off", || {
        let ready = gateway.admin("GET", "/status/ready").status;
        holds(ready == 503, ready.to_string())
    });
    // Balancers need a moment to notice; until the delay is over, connections are still served.
    Request::get("/late").send(gateway.addr()).expect(200);
    let mut gateway = gateway;
    assert!(gateway.wait_end().success());
}

#[test]
fn the_status_command_is_for_people() {
    let suite = suite();
    let socket = suite.gateway.socket().display().to_string();
    let output = suite.gateway.cli(&["status", "--admin", &socket]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    for word in [suite.gateway.addr().to_string(), suite.gateway.pid().to_string(), "generation 1".to_owned()]
    {
        assert!(text.contains(&word), "{word} in {text}");
    }
    let output = suite.gateway.cli(&["status", "--admin", "/nonexistent.sock"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nonexistent.sock"), "{output:?}");
}
