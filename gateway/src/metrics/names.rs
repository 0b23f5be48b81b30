//! Every metric: its name, type and meaning. Nothing is exposed that is not in this file.
//!
//! Units are base units (seconds, bytes), counters end in `_total`, and label values are closed sets
//! but for names out of the configuration (route, upstream, target), whose number is bounded.

/// The type of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, but for a restart.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Buckets, sum and count.
    Histogram,
}

/// One family.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// The name as exposed.
    pub name: &'static str,
    /// The type of the family.
    pub kind: Kind,
    /// One sentence for the `# HELP` line.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($id:ident: $kind:ident $name:literal $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $id: Metric =
                Metric { name: concat!("portcullis_", $name), kind: Kind::$kind, help: $help };
        )*

        /// All of them, in the order of this file.
        pub static ALL: &[&Metric] = &[$(&$id),*];
    };
}

metrics! {
    BUILD_INFO: Gauge "build_info" "Always 1; the label is the version.";
    START_TIME: Gauge "start_time_seconds" "When the process started, in seconds since the Unix epoch.";

    REQUESTS: Counter "requests_total" "Answers given, by class of status.";
    REQUESTS_ACTIVE: Gauge "requests_active" "Exchanges in progress.";
    GATEWAY_LATENCY: Histogram "gateway_latency_seconds" "Time of exchanges not spent waiting for an upstream, over all routes.";
    REFUSALS: Counter "refusals_total" "Refusals and failures of the proxy, by reason.";

    ROUTE_REQUESTS: Counter "route_requests_total" "Answers given, by route and status code; codes beyond a bound by class.";
    ROUTE_LATENCY: Histogram "route_latency_seconds" "Time from the first byte of a request to the last of its response, by route.";
    ROUTE_UPSTREAM_LATENCY: Histogram "route_upstream_latency_seconds" "Time spent waiting for the upstream, by route.";
    ROUTE_GATEWAY_LATENCY: Histogram "route_gateway_latency_seconds" "Time not spent waiting for the upstream, by route.";
    ROUTE_SERIES: Gauge "route_series" "Route names that have series of their own.";
    ROUTE_SERIES_MAX: Gauge "route_series_max" "Bound on route names with series of their own.";
    ROUTE_SERIES_OVERFLOWED: Gauge "route_series_overflowed" "Route names beyond the bound, counted together as the route _overflow.";

    CONNECTIONS: Counter "downstream_connections_total" "Client connections accepted, by shard.";
    CONNECTIONS_ACTIVE: Gauge "downstream_connections_active" "Client connections open, by shard.";
    CONNECTIONS_REFUSED: Counter "downstream_connections_refused_total" "Client connections closed at once, by shard.";
    HTTP2_CONNECTIONS: Counter "downstream_http2_connections_total" "Client connections that speak HTTP/2.";
    HTTP2_STREAMS: Counter "downstream_http2_streams_total" "Requests on client connections of HTTP/2.";
    HTTP2_STREAMS_ACTIVE: Gauge "downstream_http2_streams_active" "Those in progress.";
    UNDERSCORED_FIELDS: Counter "request_fields_underscored_total" "Fields of requests left out for an underscore in their name.";
    TUNNELS: Counter "tunnels_total" "Connections that became tunnels (WebSocket).";
    TUNNELS_ACTIVE: Gauge "tunnels_active" "Tunnels open.";
    DOWNSTREAM_BYTES: Counter "downstream_bytes_total" "Bytes from (in) and to (out) clients.";
    TLS_HANDSHAKES: Counter "tls_handshakes_total" "TLS handshakes with clients, by result: full, resumed or failed.";
    TLS_HANDSHAKE_FAILURES: Counter "tls_handshake_failures_total" "TLS handshakes with clients that came to nothing, by cause.";
    CERTIFICATE_EXPIRY: Gauge "certificate_not_after_seconds" "When a certificate that is served ends to be valid, in seconds since the Unix epoch.";
    CERTIFICATE_RELOADS: Counter "certificate_reloads_total" "Times that certificate, key or ticket files had changed, by result.";
    CERTIFICATE_RELOAD_OK: Gauge "certificate_last_reload_success" "1 unless the last change of certificate, key or ticket files could not be used.";

    UPSTREAM_CONNECTS: Counter "upstream_connects_total" "Connections opened to targets.";
    UPSTREAM_REUSES: Counter "upstream_reuses_total" "Attempts that took an idle connection from the pool.";
    UPSTREAM_RETRIES: Counter "upstream_retries_total" "Attempts after the first of an exchange.";
    UPSTREAM_ERRORS: Counter "upstream_errors_total" "Attempts that failed.";
    UPSTREAM_CONNECTIONS: Gauge "upstream_connections" "Upstream connections by state: idle in a pool or active.";
    TARGET_HEALTHY: Gauge "upstream_target_healthy" "1 if the target is in use, 0 if it is ejected, by upstream and target.";
    BREAKER_OPEN: Gauge "upstream_breaker_open" "1 if the circuit breaker is open or tries, by upstream, and by target where that has one.";

    LIMITER_DECISIONS: Counter "limiter_decisions_total" "Decisions of the limiters: conforming, limited or dry_run.";
    MIRRORED: Counter "mirrored_requests_total" "Copies of requests, by outcome: sent, failed, dropped (too many under way) or unfit (a body too long or of unknown length).";
    LIMITED_ALONE: Counter "limiter_alone_total" "Limits decided by this gateway alone because the shared store did not answer.";
    LOG_RECORDS_DROPPED: Counter "log_records_dropped_total" "Access log records given up because the writer was behind.";

    STEERING: Gauge "listener_steering_info" "Always 1; the labels are the listener and how its new connections find their shard: core or hash.";
    SHARD_DRIVER: Gauge "shard_driver_info" "Always 1; the label is the driver that the shard got.";
    SHARD_GENERATION: Gauge "shard_generation" "The generation that new exchanges use, by shard.";
    SHARD_CPU: Counter "shard_cpu_seconds_total" "CPU time of the shard's thread.";

    GENERATION: Gauge "config_generation" "The generation last published.";
    RELOADS: Counter "config_reloads_total" "Configurations published (ok) and refused (failed), the first one included.";
    LAST_RELOAD_OK: Gauge "config_last_reload_success" "1 if the last configuration was published, 0 if it was refused.";
    LAST_RELOAD_TIME: Gauge "config_last_reload_timestamp_seconds" "When the last configuration was published or refused.";

    BANS: Gauge "bans" "Bans in force, by who gave them: operator or behaviour.";
    OPERATOR_BANS: Counter "operator_bans_total" "Bans that operators gave.";
    DROP_SAMPLES: Counter "xdp_drop_samples_total" "Samples of dropped packets that were taken out of the program's ring.";
    XDP_PACKETS: Counter "xdp_packets_total" "Packets seen by the XDP program, by reason of the verdict.";
    XDP_RESETS: Counter "xdp_resets_total" "TCP resets that the XDP program has sent in answer to refused packets.";
    XDP_TRIPPED: Gauge "xdp_tripped" "1 for a reason to drop that was switched to shadow to spare known-good sources.";
    XDP_KNOWN_GOOD: Gauge "xdp_known_good_sources" "Sources that authenticated in the last hour and were dropped, or in shadow mode would have been, by reason.";
    XDP_MODE: Gauge "xdp_mode_info" "Always 1; the labels are the interface and the mode that it got: native, generic or off.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_distinct_and_well_formed() {
        let names: BTreeSet<_> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len());
        for metric in ALL {
            let name = metric.name;
            let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
            assert!(name.bytes().all(fits), "{name}");
            assert_eq!(metric.kind == Kind::Counter, name.ends_with("_total"), "{name}");
            assert!(
                !name.ends_with("_sum") && !name.ends_with("_count") && !name.ends_with("_bucket"),
                "{name}"
            );
            assert!(metric.help.ends_with('.') && !metric.help.contains('\n'), "{name}");
        }
    }
}
