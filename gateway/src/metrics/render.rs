//! From cells to families.
//!
//! Owns the order and the labels of what a scrape shows. Sums over shards; a shard label only where
//! the difference between shards is the point (connections, CPU, driver, generation). Reads with
//! relaxed loads while shards go on counting, so families may be some nanoseconds apart.

use std::collections::BTreeMap;
use std::sync::Arc;

use portcullis_abi::Reason;

use super::cell::{Counter, Gauge};
use super::exposition::{Exposition, Value};
use super::histogram::Totals;
use super::names::{self, Metric};
use super::registry::Registry;
use super::route::{CLASSES, RouteMetrics, RouteSeries};
use super::shard::{CopyOutcome, HandshakeFailure, LimiterDecision, ShardMetrics};

impl Registry {
    /// Writes all that the registry holds. Kernel counters and target health are the caller's to add.
    pub fn render(&self, out: &mut Exposition) {
        out.family(&names::BUILD_INFO).sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
        self.render_control(out);
        self.render_requests(out);
        self.render_routes(out);
        self.render_connections(out);
        self.render_upstream(out);
        self.render_shards(out);
    }

    fn render_control(&self, out: &mut Exposition) {
        let control = self.control();
        out.family(&names::START_TIME).sample(&[], control.started_seconds.get());
        out.family(&names::GENERATION).sample(&[], control.generation.get());
        out.family(&names::RELOADS)
            .sample(&[("result", "ok")], control.reloads_ok.get())
            .sample(&[("result", "failed")], control.reloads_failed.get());
        out.family(&names::LAST_RELOAD_OK).sample(&[], control.last_reload_ok.get());
        out.family(&names::LAST_RELOAD_TIME).sample(&[], control.last_reload_seconds.get());
        out.family(&names::CERTIFICATE_RELOADS)
            .sample(&[("result", "ok")], control.certificates_ok.get())
            .sample(&[("result", "failed")], control.certificates_failed.get());
        let bad = control.certificates_bad.get();
        out.family(&names::CERTIFICATE_RELOAD_OK).sample(&[], u64::from(bad == 0));
    }

    fn render_requests(&self, out: &mut Exposition) {
        let mut family = out.family(&names::REQUESTS);
        for (i, class) in CLASSES.into_iter().enumerate() {
            family.sample(&[("class", class)], self.sum(|shard| shard.requests()[i]));
        }
        out.family(&names::REQUESTS_ACTIVE).sample(&[], self.sum(|shard| shard.requests_active.get()));
        let mut totals = Totals::default();
        self.shards().iter().for_each(|shard| shard.gateway_latency.add_to(&mut totals));
        out.family(&names::GATEWAY_LATENCY).histogram(&[], &totals);
        let mut family = out.family(&names::REFUSALS);
        // A reason that only the kernel gives never counts here; a zero for it would mislead.
        for &reason in &Reason::ALL[Reason::KERNEL_COUNT..] {
            family.sample(&[("reason", reason.as_str())], self.sum(|shard| shard.reason(reason)));
        }
        let mut family = out.family(&names::MIRRORED);
        for outcome in CopyOutcome::ALL {
            family.sample(&[("outcome", outcome.as_str())], self.sum(|shard| shard.copies(outcome)));
        }
        let mut family = out.family(&names::LIMITER_DECISIONS);
        for decision in LimiterDecision::ALL {
            family.sample(&[("decision", decision.as_str())], self.sum(|shard| shard.limiter(decision)));
        }
        out.family(&names::LIMITED_ALONE).sample(&[], self.count(|shard| &shard.limited_alone));
    }

    fn render_routes(&self, out: &mut Exposition) {
        let (series, own, overflowed) = {
            // Held only to copy the list of `Arc`s: a snapshot may be compiled meanwhile.
            let routes = self.routes();
            let all: Vec<Arc<RouteSeries>> =
                routes.series.values().chain(&routes.overflow).cloned().collect();
            (all, routes.series.len(), routes.overflowed.len())
        };
        out.family(&names::ROUTE_SERIES).sample(&[], own as u64);
        out.family(&names::ROUTE_SERIES_MAX).sample(&[], self.max_route_series() as u64);
        out.family(&names::ROUTE_SERIES_OVERFLOWED).sample(&[], overflowed as u64);

        let mut family = out.family(&names::ROUTE_REQUESTS);
        for route in &series {
            for (code, count) in codes(route) {
                family.sample(&[("route", route.name()), ("code", &code)], count);
            }
        }
        let total = |metrics: &RouteMetrics, totals: &mut Totals| metrics.total().add_to(totals);
        let upstream = |metrics: &RouteMetrics, totals: &mut Totals| metrics.upstream().add_to(totals);
        let gateway = |metrics: &RouteMetrics, totals: &mut Totals| metrics.gateway().add_to(totals);
        route_histograms(out, &names::ROUTE_LATENCY, &series, total);
        route_histograms(out, &names::ROUTE_UPSTREAM_LATENCY, &series, upstream);
        route_histograms(out, &names::ROUTE_GATEWAY_LATENCY, &series, gateway);
    }

    fn render_connections(&self, out: &mut Exposition) {
        self.by_shard(out, &names::CONNECTIONS, |shard| shard.connections_accepted.get().into());
        self.by_shard(out, &names::CONNECTIONS_ACTIVE, |shard| shard.connections_active.get().into());
        self.by_shard(out, &names::CONNECTIONS_REFUSED, |shard| shard.connections_refused.get().into());
        out.family(&names::HTTP2_CONNECTIONS).sample(&[], self.count(|shard| &shard.http2_connections));
        out.family(&names::HTTP2_STREAMS).sample(&[], self.count(|shard| &shard.http2_streams));
        out.family(&names::HTTP2_STREAMS_ACTIVE).sample(&[], self.level(|shard| &shard.http2_streams_active));
        out.family(&names::UNDERSCORED_FIELDS).sample(&[], self.count(|shard| &shard.underscored_fields));
        out.family(&names::TUNNELS).sample(&[], self.count(|shard| &shard.tunnels));
        out.family(&names::TUNNELS_ACTIVE).sample(&[], self.level(|shard| &shard.tunnels_active));
        out.family(&names::DOWNSTREAM_BYTES)
            .sample(&[("direction", "in")], self.count(|shard| &shard.bytes_in))
            .sample(&[("direction", "out")], self.count(|shard| &shard.bytes_out));
        let failed = |cause| self.sum(|shard| shard.tls_failed(cause));
        let all_failed: u64 = HandshakeFailure::ALL.into_iter().map(failed).sum();
        out.family(&names::TLS_HANDSHAKES)
            .sample(&[("result", "full")], self.count(|shard| &shard.tls_full))
            .sample(&[("result", "resumed")], self.count(|shard| &shard.tls_resumed))
            .sample(&[("result", "failed")], all_failed);
        let mut family = out.family(&names::TLS_HANDSHAKE_FAILURES);
        for cause in HandshakeFailure::ALL {
            family.sample(&[("cause", cause.as_str())], failed(cause));
        }
    }

    fn render_upstream(&self, out: &mut Exposition) {
        out.family(&names::UPSTREAM_CONNECTS).sample(&[], self.count(|shard| &shard.upstream_connects));
        out.family(&names::UPSTREAM_REUSES).sample(&[], self.count(|shard| &shard.upstream_reuses));
        out.family(&names::UPSTREAM_RETRIES).sample(&[], self.count(|shard| &shard.upstream_retries));
        out.family(&names::UPSTREAM_ERRORS).sample(&[], self.count(|shard| &shard.upstream_errors));
        out.family(&names::UPSTREAM_CONNECTIONS)
            .sample(&[("state", "idle")], self.level(|shard| &shard.pool_idle))
            .sample(&[("state", "active")], self.level(|shard| &shard.pool_active));
    }

    fn render_shards(&self, out: &mut Exposition) {
        let dropped = self.count(|shard| &shard.log_records_dropped);
        out.family(&names::LOG_RECORDS_DROPPED).sample(&[], dropped);
        let mut family = out.family(&names::SHARD_DRIVER);
        for (i, shard) in self.shards().iter().enumerate() {
            if let Some(driver) = shard.driver() {
                family.sample(&[("shard", &i.to_string()), ("driver", driver.as_str())], 1);
            }
        }
        self.by_shard(out, &names::SHARD_GENERATION, |shard| shard.generation.get().into());
        self.by_shard(out, &names::SHARD_CPU, |shard| Value::Nanos(shard.cpu_ns.get()));
    }

    fn by_shard(
        &self,
        out: &mut Exposition,
        metric: &'static Metric,
        value: impl Fn(&ShardMetrics) -> Value,
    ) {
        let mut family = out.family(metric);
        for (i, shard) in self.shards().iter().enumerate() {
            family.sample(&[("shard", &i.to_string())], value(shard));
        }
    }

    fn sum(&self, value: impl Fn(&ShardMetrics) -> u64) -> u64 {
        self.shards().iter().map(|shard| value(shard)).sum()
    }

    fn count(&self, cell: impl Fn(&ShardMetrics) -> &Counter) -> u64 {
        self.sum(|shard| cell(shard).get())
    }

    fn level(&self, cell: impl Fn(&ShardMetrics) -> &Gauge) -> u64 {
        self.sum(|shard| cell(shard).get())
    }
}

/// Writes what the XDP program counted: `packets` by the number of the reason, summed over CPUs. Numbers
/// past the kernel's own reasons are ignored.
pub fn write_kernel_packets(out: &mut Exposition, packets: &[u64]) {
    let mut family = out.family(&names::XDP_PACKETS);
    for (reason, &count) in Reason::ALL[..Reason::KERNEL_COUNT].iter().zip(packets) {
        family.sample(&[("reason", reason.as_str())], count);
    }
}

/// Writes resets, the reasons that were switched to shadow ([`Reason::drop_bit`]s), and by reason how many known-good
/// sources were dropped and how many would have been.
pub fn write_kernel_facts(out: &mut Exposition, resets: u64, tripped: u64, hits: &[(Reason, u64, u64)]) {
    out.family(&names::XDP_RESETS).sample(&[], resets);
    let mut family = out.family(&names::XDP_TRIPPED);
    for reason in Reason::ALL.iter().filter(|reason| reason.drops_packet()) {
        family.sample(&[("reason", reason.as_str())], u64::from(tripped & reason.drop_bit() != 0));
    }
    let mut family = out.family(&names::XDP_KNOWN_GOOD);
    for (reason, dropped, shadow) in hits {
        family.sample(&[("reason", reason.as_str()), ("outcome", "dropped")], *dropped);
        family.sample(&[("reason", reason.as_str()), ("outcome", "shadow")], *shadow);
    }
}

/// Writes when each certificate that is served ends to be valid, in seconds since 1970.
pub fn write_certificates<'a>(out: &mut Exposition, expiries: impl Iterator<Item = (&'a str, u64)>) {
    let mut family = out.family(&names::CERTIFICATE_EXPIRY);
    for (certificate, not_after) in expiries {
        family.sample(&[("certificate", certificate)], not_after);
    }
}

/// Writes whether each target is in use, by upstream.
pub fn write_targets<'a>(out: &mut Exposition, targets: impl Iterator<Item = (&'a str, &'a str, bool)>) {
    write_by_target(out, &names::TARGET_HEALTHY, targets);
}

/// Writes whether each breaker is open, by upstream and target; that of an upstream as a whole has an empty target.
pub fn write_breakers<'a>(out: &mut Exposition, breakers: impl Iterator<Item = (&'a str, &'a str, bool)>) {
    write_by_target(out, &names::BREAKER_OPEN, breakers);
}

/// Services with the same `url` have an upstream each, by the same name: they are shown as one.
fn write_by_target<'a>(
    out: &mut Exposition,
    metric: &'static Metric,
    samples: impl Iterator<Item = (&'a str, &'a str, bool)>,
) {
    let samples: BTreeMap<_, _> =
        samples.map(|(upstream, target, value)| ((upstream, target), value)).collect();
    let mut family = out.family(metric);
    for ((upstream, target), value) in samples {
        family.sample(&[("upstream", upstream), ("target", target)], u64::from(value));
    }
}

/// Writes the mode that each interface got.
pub fn write_kernel_mode<'a>(out: &mut Exposition, modes: impl IntoIterator<Item = (&'a str, &'a str)>) {
    let mut family = out.family(&names::XDP_MODE);
    for (interface, mode) in modes {
        family.sample(&[("interface", interface), ("mode", mode)], 1);
    }
}

/// Writes how each listener's new connections find their shard.
pub fn write_steering<'a>(out: &mut Exposition, listeners: impl IntoIterator<Item = (&'a str, &'a str)>) {
    let mut family = out.family(&names::STEERING);
    for (listener, steering) in listeners {
        family.sample(&[("listener", listener), ("steering", steering)], 1);
    }
}

/// What the ledger counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LedgerCounts {
    /// Bans in force that operators gave.
    pub banned_by_operator: u64,
    /// Bans in force for behaviour.
    pub banned_by_behaviour: u64,
    /// Bans that operators gave, ever.
    pub operator_bans: u64,
    /// Samples of dropped packets that came.
    pub samples_taken: u64,
}

/// Writes what the ledger counts.
pub fn write_ledger(out: &mut Exposition, counts: &LedgerCounts) {
    out.family(&names::BANS)
        .sample(&[("by", "operator")], counts.banned_by_operator)
        .sample(&[("by", "behaviour")], counts.banned_by_behaviour);
    out.family(&names::OPERATOR_BANS).sample(&[], counts.operator_bans);
    out.family(&names::DROP_SAMPLES).sample(&[], counts.samples_taken);
}

/// A route's answers over all shards by the value of the `code` label, in its order.
fn codes(route: &RouteSeries) -> BTreeMap<String, u64> {
    let mut codes = BTreeMap::new();
    for statuses in route.shards().iter().map(RouteMetrics::statuses) {
        for (code, count) in statuses.exact() {
            *codes.entry(code.to_string()).or_default() += count;
        }
        for (class, count) in statuses.rest() {
            *codes.entry(class.to_owned()).or_default() += count;
        }
    }
    codes
}

/// Routes without a single observation are left out: 1,000 idle routes must not cost 60,000 lines.
fn route_histograms(
    out: &mut Exposition,
    metric: &'static Metric,
    series: &[Arc<RouteSeries>],
    add: impl Fn(&RouteMetrics, &mut Totals),
) {
    let mut family = out.family(metric);
    for route in series {
        let mut totals = Totals::default();
        route.shards().iter().for_each(|metrics| add(metrics, &mut totals));
        if totals.count() > 0 {
            family.histogram(&[("route", route.name())], &totals);
        }
    }
}

#[cfg(test)]
#[path = "render_tests.rs"]
mod tests;
