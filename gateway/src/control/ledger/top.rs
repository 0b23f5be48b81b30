//! `top`: the counters of everything at one moment. Whoever shows them makes rates of two of these.
//!
//! Owns the shape of that answer. Counters are those of the metrics; sources come from the shards' sketches, added up,
//! and are never a label of a metric.

use std::collections::{BTreeMap, HashMap};

use portcullis_abi::Reason;
use serde::{Deserialize, Serialize};

use super::View;
use crate::limit::source_text;
use crate::metrics::{Totals, steady_rate};
use crate::net::clock;
use crate::upstream::balance::TargetIndex;
use crate::upstream::health::Phase;

/// Everything at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Top {
    /// Milliseconds of `CLOCK_MONOTONIC`: rates go by the difference of two.
    pub at_ms: u64,
    pub kernel_mode: String,
    pub enforcement: String,
    pub interfaces: Vec<String>,
    pub generation: u64,
    /// Answers by class, from 1xx to 5xx and other.
    pub answers: [u64; 6],
    pub active: u64,
    /// Time in the gateway, not waiting for upstreams.
    pub gateway: Spread,
    /// Packets and requests by reason; those that never happened are left out.
    pub reasons: BTreeMap<String, u64>,
    pub sources: Vec<SourceTop>,
    pub shards: Vec<ShardTop>,
    pub routes: Vec<RouteTop>,
    pub targets: Vec<TargetTop>,
}

/// A histogram: counts by bucket, one more than there are bounds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spread {
    pub bounds_us: Vec<u64>,
    pub counts: Vec<u64>,
}

/// A busy source. Rates are of the last ten to twenty seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceTop {
    pub source: String,
    pub requests_per_second: f64,
    pub refused_per_second: f64,
    /// By how much the first may be too high.
    pub error_per_second: f64,
}

/// A shard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardTop {
    pub shard: usize,
    pub core: usize,
    pub cpu_ns: u64,
    pub connections: u64,
    pub requests: u64,
}

/// A route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTop {
    pub route: String,
    pub requests: u64,
    /// Answers from 500 on.
    pub errors: u64,
    pub latency: Spread,
}

/// A target of an upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetTop {
    pub upstream: String,
    pub target: String,
    /// `healthy`, `ejected`, `trial`, `down` (by probes) or `unresolved`.
    pub condition: String,
}

/// Sources told at most.
const SOURCES_MAX: usize = 50;

/// Collects the counters.
pub fn top(view: &View<'_>) -> Top {
    let shards = view.registry.shards();
    let mut gateway = Totals::default();
    shards.iter().for_each(|shard| shard.gateway_latency.add_to(&mut gateway));
    let classes = shards.iter().map(|shard| shard.requests());
    Top {
        at_ms: clock::now_ns() / 1_000_000,
        kernel_mode: view.kernel.mode.clone(),
        enforcement: view.kernel.enforcement.clone(),
        interfaces: view.kernel.interfaces.clone(),
        generation: view.snapshot.generation.0,
        answers: classes.fold([0; 6], |sum, one| std::array::from_fn(|class| sum[class] + one[class])),
        active: shards.iter().map(|shard| shard.requests_active.get()).sum(),
        gateway: gateway.into(),
        reasons: reasons(view),
        sources: sources(view),
        shards: (shards.iter().zip(view.cores).enumerate())
            .map(|(number, (shard, &core))| ShardTop {
                shard: number,
                core,
                cpu_ns: shard.cpu_ns.get(),
                connections: shard.connections_active.get(),
                requests: shard.requests().iter().sum(),
            })
            .collect(),
        routes: routes(view),
        targets: targets(view),
    }
}

impl From<Totals> for Spread {
    fn from(totals: Totals) -> Self {
        Self { bounds_us: totals.bounds_ns.iter().map(|ns| ns / 1000).collect(), counts: totals.buckets }
    }
}

fn reasons(view: &View<'_>) -> BTreeMap<String, u64> {
    let kernel =
        Reason::ALL[..Reason::KERNEL_COUNT].iter().zip(&view.packets).map(|(reason, count)| (reason, *count));
    let shards = view.registry.shards();
    let proxy = Reason::ALL[Reason::KERNEL_COUNT..]
        .iter()
        .map(|reason| (reason, shards.iter().map(|shard| shard.reason(*reason)).sum::<u64>()));
    let seen = kernel.chain(proxy).filter(|(_, count)| *count > 0);
    seen.map(|(reason, count)| (reason.as_str().to_owned(), count)).collect()
}

fn sources(view: &View<'_>) -> Vec<SourceTop> {
    let mut merged: HashMap<u64, [f64; 3]> = HashMap::new();
    for shard in view.registry.shards() {
        let age_ns = view.now_ns.saturating_sub(shard.sources.halved_ns());
        for busy in shard.sources.read() {
            let sum = merged.entry(busy.key).or_default();
            for (sum, count) in sum.iter_mut().zip([busy.requests, busy.refused, busy.over]) {
                *sum += steady_rate(count, age_ns);
            }
        }
    }
    let mut sources: Vec<_> = merged
        .into_iter()
        .map(|(key, [requests, refused, over])| SourceTop {
            source: source_text(key),
            requests_per_second: requests,
            refused_per_second: refused,
            error_per_second: over,
        })
        .collect();
    sources.sort_by(|a, b| {
        b.requests_per_second.total_cmp(&a.requests_per_second).then_with(|| a.source.cmp(&b.source))
    });
    sources.truncate(SOURCES_MAX);
    sources
}

fn routes(view: &View<'_>) -> Vec<RouteTop> {
    let series = view.registry.route_series();
    let routes = series.iter().map(|series| {
        let mut latency = Totals::default();
        let (mut requests, mut errors) = (0, 0);
        for metrics in series.shards() {
            metrics.total().add_to(&mut latency);
            for (status, count) in metrics.statuses().exact() {
                requests += count;
                errors += if status >= 500 { count } else { 0 };
            }
            for (class, count) in metrics.statuses().rest() {
                requests += count;
                errors += if class == "5xx" { count } else { 0 };
            }
        }
        RouteTop { route: series.name().to_owned(), requests, errors, latency: latency.into() }
    });
    routes.filter(|route| route.requests > 0).collect()
}

fn targets(view: &View<'_>) -> Vec<TargetTop> {
    let targets = view.snapshot.upstreams.iter().flat_map(|upstream| {
        upstream.targets.iter().enumerate().map(move |(at, target)| {
            let condition = match upstream.health.condition(TargetIndex(at as u32)) {
                _ if target.address.is_none() => "unresolved",
                Some(condition) if !condition.probed_up => "down",
                Some(condition) => match condition.phase {
                    Phase::Healthy => "healthy",
                    Phase::Ejected => "ejected",
                    Phase::Trial => "trial",
                },
                None => "healthy",
            };
            TargetTop {
                upstream: upstream.name.to_string(),
                target: target.name.to_string(),
                condition: condition.into(),
            }
        })
    });
    targets.collect()
}
