//! Targets of an upstream: choice, health, retries, and the connections to them.
//!
//! Owns which target an attempt goes to and on which connection. Never reads a message.
//!
//! **Invariant.** Health and addresses are shared and immutable or atomic; balancers, budgets and pools belong to one
//! shard.
//!
//! Read next: `balance`, `health`, `retry` (pure), then `pool` and `probe`.

pub mod balance;
pub mod breaker;
pub mod health;
pub mod latency;
mod pool;
mod preamble;
pub mod probe;
pub mod retry;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::sync::Arc;

use portcullis_config::HashKey;

use balance::{Algorithm, Balancer, TargetIndex, TargetView, Tried, WhenAllDown};

pub use pool::{
    AcquireError, Connected, Connector, HttpVersion, Pool, PoolKey, PoolLimits, UpstreamConnection,
};
pub use preamble::{Preamble, proxy_header};

/// An upstream as all shards see it.
pub struct UpstreamSpec {
    pub name: Arc<str>,
    pub targets: Vec<TargetSpec>,
    pub algorithm: Algorithm,
    pub hash_on: HashKey,
    pub hash_fallback: HashKey,
    /// `Host` for all targets, when the upstream names one.
    pub host_header: Option<Box<[u8]>>,
    pub when_all_down: WhenAllDown,
    /// Least share of available weight, in percent.
    pub threshold_percent: u8,
    /// Conditions of the targets; survives reloads that keep the list.
    pub health: Arc<health::Group>,
    pub health_policy: health::Policy,
    /// Retries as a share of requests, in percent.
    pub retry_budget_percent: u32,
    /// `None` where nothing probes.
    pub probe: Option<probe::ProbeSpec>,
    /// Time in which a target that is new or back grows into its share, in ns; 0: at once.
    pub slow_start_ns: u64,
    /// The breaker, which survives reloads by name, with its policy; `None` where there is none.
    pub breaker: Option<(Arc<breaker::Breaker>, breaker::Policy)>,
}

/// One target.
#[derive(Clone, Debug)]
pub struct TargetSpec {
    /// Host and port as configured.
    pub name: Arc<str>,
    /// Where it is; `None` when its name did not resolve.
    pub address: Option<SocketAddr>,
    pub weight: u16,
    /// Takes traffic only while every other target is out.
    pub backup: bool,
    /// What `Host` is set to unless the upstream or the route says otherwise: without the port where it is the
    /// scheme's own.
    pub host: Box<[u8]>,
    /// Name for TLS: the host part alone.
    pub tls_name: Box<str>,
}

/// An upstream on one shard.
pub struct LocalUpstream {
    pub spec: Arc<UpstreamSpec>,
    balancer: RefCell<Balancer>,
    /// Exchanges under way on this shard, by target.
    load: Vec<Cell<u32>>,
    /// How long answers to this shard took lately, by target.
    latency: Vec<latency::Latency>,
    pub budget: RefCell<retry::Budget>,
}

impl UpstreamSpec {
    /// Whether nothing about it changed, so that balancers can go on.
    pub fn is_same(&self, other: &Self) -> bool {
        let facts = |spec: &Self| {
            format!(
                "{:?} {:?} {:?} {:?} {:?} {:?} {} {} {:?} {} {:?}",
                spec.targets,
                spec.algorithm,
                spec.hash_on,
                spec.hash_fallback,
                spec.host_header,
                spec.health_policy,
                spec.threshold_percent,
                spec.retry_budget_percent,
                spec.probe.as_ref().map(|probe| &probe.fingerprint),
                spec.slow_start_ns,
                spec.breaker.as_ref().map(|(_, policy)| policy)
            )
        };
        facts(self) == facts(other)
    }
}

/// Retries a quiet upstream may make each second whatever the share.
const RETRIES_MIN_PER_SECOND: u32 = 3;

impl LocalUpstream {
    /// The upstream as shard number `shard` uses it.
    pub fn new(spec: Arc<UpstreamSpec>, shard: u32, seed: u64) -> Self {
        let balancer = Balancer::new(spec.algorithm.clone(), shard, seed)
            .when_all_down(spec.when_all_down)
            .threshold_percent(spec.threshold_percent);
        Self {
            balancer: RefCell::new(balancer),
            load: spec.targets.iter().map(|_| Cell::new(0)).collect(),
            latency: spec.targets.iter().map(|_| latency::Latency::default()).collect(),
            budget: RefCell::new(retry::Budget::new(spec.retry_budget_percent, RETRIES_MIN_PER_SECOND)),
            spec,
        }
    }

    /// The target of the next attempt.
    pub fn pick(&self, tried: &Tried, hash: Option<u64>, now_ns: u64) -> Option<TargetIndex> {
        self.balancer.borrow_mut().pick(&View { upstream: self, now_ns }, tried, hash)
    }

    /// Takes note of how long a target took from the request to the head of its response.
    pub fn observe(&self, target: TargetIndex, took_ns: u64, now_ns: u64) {
        if matches!(self.spec.algorithm, Algorithm::Latency) {
            self.latency[target.index()].observe(took_ns, now_ns);
        }
    }

    /// Counts an exchange with a target until the guard is dropped.
    pub fn begin(&self, target: TargetIndex) -> Load<'_> {
        let load = &self.load[target.index()];
        load.set(load.get() + 1);
        Load(load)
    }
}

/// An exchange under way.
pub struct Load<'a>(&'a Cell<u32>);

impl Drop for Load<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

struct View<'a> {
    upstream: &'a LocalUpstream,
    now_ns: u64,
}

impl TargetView for View<'_> {
    fn len(&self) -> usize {
        self.upstream.spec.targets.len()
    }

    fn weight(&self, target: TargetIndex) -> u32 {
        let spec = &self.upstream.spec;
        let known = &spec.targets[target.index()];
        let weight = if known.address.is_some() { u32::from(known.weight) } else { 0 };
        if spec.slow_start_ns == 0 || weight == 0 {
            return weight;
        }
        grown(weight, spec.health.healthy_for_ns(target, self.now_ns), spec.slow_start_ns)
    }

    fn available(&self, target: TargetIndex) -> bool {
        self.upstream.spec.health.available(target, self.now_ns)
    }

    fn load(&self, target: TargetIndex) -> u32 {
        self.upstream.load[target.index()].get()
    }

    fn latency_ns(&self, target: TargetIndex) -> u64 {
        self.upstream.latency[target.index()].get()
    }

    fn is_backup(&self, target: TargetIndex) -> bool {
        self.upstream.spec.targets[target.index()].backup
    }
}

/// The weight of a target that is healthy for so long: a tenth at first, then in proportion. In hundredths, so that
/// small weights can grow too. `None`: healthy from the start.
fn grown(weight: u32, healthy_for_ns: Option<u64>, slow_start_ns: u64) -> u32 {
    let full = weight * SLOW_START_SCALE;
    match healthy_for_ns {
        Some(time) if time < slow_start_ns => {
            let share = u128::from(full) * u128::from(time) / u128::from(slow_start_ns);
            (share as u32).max(full / 10)
        }
        _ => full,
    }
}

/// A weight of 1 grows in steps of a hundredth.
const SLOW_START_SCALE: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_is_back_grows_into_its_share() {
        assert_eq!(grown(5, None, 30), 500);
        assert_eq!(grown(5, Some(0), 30), 50, "a tenth at first");
        assert_eq!(grown(5, Some(15), 30), 250);
        assert_eq!(grown(5, Some(30), 30), 500);
        assert_eq!(grown(65_535, Some(u64::MAX), 30), 6_553_500);
    }
}
