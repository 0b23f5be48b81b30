//! What is counted is what a scrape shows.

use super::super::strict::{self, Family};
use super::super::{Driver, OVERFLOW_ROUTE};
use super::*;
use crate::id::{Generation, ShardId};

fn shard(registry: &Registry, shard: u32) -> Arc<ShardMetrics> {
    registry.shard(ShardId(shard)).expect("a shard of the registry")
}

fn scrape(registry: &Registry) -> BTreeMap<String, Family> {
    let mut out = Exposition::new();
    registry.render(&mut out);
    strict::parse(&out.finish()).expect("valid text")
}

fn value(families: &BTreeMap<String, Family>, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let family = families.values().find(|family| family.samples.iter().any(|sample| sample.name == name))?;
    let matches = |sample: &&strict::Sample| {
        sample.name == name && labels.iter().all(|(name, value)| sample.label(name) == Some(value))
    };
    let mut found = family.samples.iter().filter(matches);
    let sample = found.next()?;
    assert_eq!(found.next(), None, "{name} {labels:?} is not one series");
    Some(sample.value)
}

#[test]
fn shards_are_added_up_or_told_apart() {
    let registry = Registry::new(2, 10);
    let (a, b) = (shard(&registry, 0), shard(&registry, 1));
    for metrics in [&a, &b] {
        metrics.count_request(200);
        metrics.connections_accepted.add(3);
        metrics.bytes_in.add(100);
        metrics.tls_handshake_done(true);
        metrics.count_reason(Reason::NoRoute);
        metrics.gateway_latency.record(1_200);
        metrics.pool_idle.set(4);
    }
    a.count_request(404);
    a.count_limiter(LimiterDecision::DryRun);
    a.set_driver(Driver::IoUring);
    b.set_driver(Driver::Epoll);
    b.connections_active.inc();
    b.cpu_ns.set(1_500_000_000);
    b.tls_handshake_failed(HandshakeFailure::NotTls);
    registry.control().reload_published(Generation(3), 1_700_000_000);
    registry.control().reload_refused(1_700_000_001);

    let families = scrape(&registry);
    for (name, labels, expected) in [
        ("portcullis_requests_total", &[("class", "2xx")][..], 2.0),
        ("portcullis_requests_total", &[("class", "4xx")], 1.0),
        ("portcullis_requests_total", &[("class", "5xx")], 0.0),
        ("portcullis_downstream_connections_total", &[("shard", "1")], 3.0),
        ("portcullis_downstream_connections_active", &[("shard", "0")], 0.0),
        ("portcullis_downstream_connections_active", &[("shard", "1")], 1.0),
        ("portcullis_downstream_bytes_total", &[("direction", "in")], 200.0),
        ("portcullis_tls_handshakes_total", &[("result", "resumed")], 2.0),
        ("portcullis_tls_handshakes_total", &[("result", "failed")], 1.0),
        ("portcullis_tls_handshake_failures_total", &[("cause", "not_tls")], 1.0),
        ("portcullis_tls_handshake_failures_total", &[("cause", "timed_out")], 0.0),
        ("portcullis_refusals_total", &[("reason", "no_route")], 2.0),
        ("portcullis_refusals_total", &[("reason", "rate_limited")], 0.0),
        ("portcullis_limiter_decisions_total", &[("decision", "dry_run")], 1.0),
        ("portcullis_upstream_connections", &[("state", "idle")], 8.0),
        ("portcullis_gateway_latency_seconds_count", &[], 2.0),
        ("portcullis_gateway_latency_seconds_bucket", &[("le", "0.00000125")], 2.0),
        ("portcullis_shard_driver_info", &[("shard", "0"), ("driver", "io_uring")], 1.0),
        ("portcullis_shard_driver_info", &[("shard", "1"), ("driver", "epoll")], 1.0),
        ("portcullis_shard_cpu_seconds_total", &[("shard", "1")], 1.5),
        ("portcullis_config_generation", &[], 3.0),
        ("portcullis_config_reloads_total", &[("result", "failed")], 1.0),
        ("portcullis_config_last_reload_success", &[], 0.0),
        ("portcullis_config_last_reload_timestamp_seconds", &[], 1_700_000_001.0),
    ] {
        assert_eq!(value(&families, name, labels), Some(expected), "{name} {labels:?}");
    }
    assert_eq!(value(&families, "portcullis_refusals_total", &[("reason", "drop_banned")]), None);
}

#[test]
fn routes_show_codes_and_latencies_until_the_bound() {
    let registry = Registry::new(2, 2);
    let users = registry.route("users");
    users.shard(ShardId(0)).record(200, 2_000_000, Some(1_900_000));
    users.shard(ShardId(1)).record(200, 2_000_000, Some(1_900_000));
    users.shard(ShardId(1)).record(429, 5_000, None);
    registry.route("idle");
    for name in ["c", "d"] {
        registry.route(name).shard(ShardId(0)).record(500, 1_000, None);
    }

    let families = scrape(&registry);
    let code = |route, code| {
        value(&families, "portcullis_route_requests_total", &[("route", route), ("code", code)])
    };
    assert_eq!(code("users", "200"), Some(2.0));
    assert_eq!(code("users", "429"), Some(1.0));
    assert_eq!(code(OVERFLOW_ROUTE, "500"), Some(2.0));
    let count = |family: &str, route| value(&families, &format!("{family}_count"), &[("route", route)]);
    assert_eq!(count("portcullis_route_latency_seconds", "users"), Some(3.0));
    assert_eq!(count("portcullis_route_upstream_latency_seconds", "users"), Some(2.0));
    assert_eq!(count("portcullis_route_gateway_latency_seconds", "users"), Some(3.0));
    assert_eq!(count("portcullis_route_latency_seconds", "idle"), None);
    let sum = value(&families, "portcullis_route_gateway_latency_seconds_sum", &[("route", "users")]);
    assert_eq!(sum, Some(0.000205));
    assert_eq!(value(&families, "portcullis_route_series", &[]), Some(2.0));
    assert_eq!(value(&families, "portcullis_route_series_max", &[]), Some(2.0));
    assert_eq!(value(&families, "portcullis_route_series_overflowed", &[]), Some(2.0));
}

#[test]
fn every_name_is_written_and_nothing_else_is() {
    let registry = Registry::new(1, 10);
    let mut out = Exposition::new();
    registry.render(&mut out);
    write_kernel_packets(&mut out, &[1; Reason::COUNT]);
    write_kernel_mode(&mut out, [("eth0", "native")]);
    write_kernel_facts(&mut out, 7, Reason::DropBanned.drop_bit(), &[(Reason::DropBanned, 2, 1)]);
    write_certificates(&mut out, [("shop", 1)].into_iter());
    // The health of targets is the control thread's to add.
    write_ledger(&mut out, &LedgerCounts::default());
    write_steering(&mut out, [("plain", "hash")]);
    // Two services with one address.
    write_targets(&mut out, [("u", "127.0.0.1:80", true); 2].into_iter());
    write_breakers(&mut out, [("u", "", false), ("u", "127.0.0.1:80", true)].into_iter());
    let families = strict::parse(&out.finish()).expect("valid text");
    let mut expected: Vec<_> = names::ALL.iter().map(|metric| metric.name).collect();
    expected.sort_unstable();
    assert_eq!(families.keys().collect::<Vec<_>>(), expected);
    for metric in names::ALL {
        let family = &families[metric.name];
        assert_eq!(family.help, metric.help);
        assert_eq!(family.kind, format!("{:?}", metric.kind).to_lowercase());
    }
    let kernel: Vec<_> = families["portcullis_xdp_packets_total"]
        .samples
        .iter()
        .filter_map(|sample| sample.label("reason"))
        .collect();
    assert_eq!(kernel.len(), Reason::KERNEL_COUNT);
    assert!(kernel.contains(&"drop_banned") && !kernel.contains(&"no_route"));
}

#[test]
fn a_scrape_runs_beside_counting_shards_and_ends_exact() {
    const COUNTS: u64 = 200_000;
    let registry = Registry::new(2, 10);
    let route = registry.route("busy");
    std::thread::scope(|scope| {
        for i in 0..2 {
            let (metrics, route) = (shard(&registry, i), route.clone());
            scope.spawn(move || {
                for n in 0..COUNTS {
                    metrics.count_request(200);
                    route.shard(ShardId(i)).record(200, n, Some(n / 2));
                }
            });
        }
        // Every scrape in between is valid: the strict parser checks that histograms agree with themselves.
        for _ in 0..20 {
            scrape(&registry);
        }
    });
    let families = scrape(&registry);
    let total = 2.0 * COUNTS as f64;
    assert_eq!(value(&families, "portcullis_requests_total", &[("class", "2xx")]), Some(total));
    assert_eq!(value(&families, "portcullis_route_requests_total", &[("code", "200")]), Some(total));
    assert_eq!(value(&families, "portcullis_route_latency_seconds_count", &[]), Some(total));
}
