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
pub mod sticky;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use portcullis_config::HashKey;

use balance::{Algorithm, Balancer, Random, TargetIndex, TargetView, Tried, WhenAllDown};

pub use pool::{
    AcquireError, Connected, Connector, HttpVersion, Patience, Pool, PoolKey, PoolLimits, UpstreamConnection,
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
    /// Below this share of available weight, in percent, health is not asked.
    pub panic_percent: u8,
    /// Conditions of the targets; survives reloads that keep the list.
    pub health: Arc<health::Group>,
    pub health_policy: health::Policy,
    /// Retries as a share of requests, in percent.
    pub retry_budget_percent: u32,
    /// `None` where nothing probes.
    pub probe: Option<probe::ProbeSpec>,
    /// Time in which a target that is new or back grows into its share, in ns; 0: at once.
    pub slow_start_ns: u64,
    /// `None` where there is none.
    pub breakers: Option<Breakers>,
    /// The cookie that keeps sessions at their targets; `None` where there is none.
    pub sticky: Option<sticky::Sticky>,
}

/// The breakers of an upstream; they survive reloads by name.
pub struct Breakers {
    pub policy: breaker::Policy,
    /// Of the whole; `None` where only targets have one.
    pub of_upstream: Option<Arc<breaker::Breaker>>,
    /// By `TargetIndex`; empty where targets have none.
    pub of_targets: Vec<Arc<breaker::Breaker>>,
    /// Statuses that are failures.
    pub statuses: health::Statuses,
    /// What is answered while the breaker is open.
    pub status: u16,
}

/// One target.
#[derive(Clone, Debug)]
pub struct TargetSpec {
    /// Host and port as configured.
    pub name: Arc<str>,
    /// Stands for the name in cookies and on rings.
    pub mark: u64,
    /// Number of the configured target that it is an address of.
    pub entry: u32,
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
    load: Vec<Rc<Cell<u32>>>,
    /// How long answers to this shard took lately, by target.
    latency: Vec<latency::Latency>,
    pub budget: RefCell<retry::Budget>,
    random: RefCell<Random>,
}

impl UpstreamSpec {
    /// Whether nothing about it changed, so that balancers can go on.
    pub fn is_same(&self, other: &Self) -> bool {
        let facts = |spec: &Self| {
            format!(
                "{:?} {:?} {:?} {:?} {:?} {:?} {} {} {} {:?} {} {:?} {:?}",
                spec.targets,
                spec.algorithm,
                spec.hash_on,
                spec.hash_fallback,
                spec.host_header,
                spec.health_policy,
                spec.threshold_percent,
                spec.panic_percent,
                spec.retry_budget_percent,
                spec.probe.as_ref().map(|probe| &probe.fingerprint),
                spec.slow_start_ns,
                spec.breakers.as_ref().map(Breakers::facts),
                spec.sticky.as_ref().map(sticky::Sticky::facts)
            )
        };
        facts(self) == facts(other)
    }

    /// Whether each target is in use; for metrics.
    pub fn conditions(&self) -> impl Iterator<Item = (&str, &str, bool)> {
        (0..).zip(&self.targets).map(|(index, target)| {
            let condition = self.health.condition(TargetIndex(index));
            let healthy = condition.is_none_or(|c| c.probed_up && c.phase == health::Phase::Healthy);
            (&*self.name, &*target.name, healthy && target.address.is_some())
        })
    }

    /// Whether each breaker is open, with the target's name where it is of one; for metrics.
    pub fn broken(&self) -> impl Iterator<Item = (&str, &str, bool)> {
        let breakers = self.breakers.as_ref();
        let own = breakers.and_then(|breakers| breakers.of_upstream.as_ref()).map(|breaker| ("", breaker));
        let of_targets = breakers.map_or(&[][..], |breakers| &breakers.of_targets);
        let of_targets = self.targets.iter().map(|target| &*target.name).zip(of_targets);
        own.into_iter().chain(of_targets).map(|(target, breaker)| (&*self.name, target, breaker.is_open()))
    }

    /// The target that a session names, if it is one of these.
    pub fn target_of(&self, mark: u64) -> Option<TargetIndex> {
        (0..).zip(&self.targets).find(|(_, target)| target.mark == mark).map(|(index, _)| TargetIndex(index))
    }
}

impl Breakers {
    /// Both judges of a target that there are.
    fn of(&self, target: TargetIndex) -> [Option<&breaker::Breaker>; 2] {
        [self.of_upstream.as_deref(), self.of_targets.get(target.index()).map(|one| &**one)]
    }

    fn facts(&self) -> impl std::fmt::Debug {
        (
            self.policy.clone(),
            self.of_upstream.is_some(),
            self.of_targets.len(),
            self.statuses.clone(),
            self.status,
        )
    }
}

/// Leave of the breakers to send a request; to be [`reported`](LocalUpstream::report) or given back.
#[derive(Clone, Copy, Debug, Default)]
pub struct Leave {
    /// It is a trial of the upstream's breaker, of the target's.
    trials: [bool; 2],
}

/// The breakers let nobody through, for so long, in ns.
#[derive(Clone, Copy, Debug)]
pub struct Broken(pub u64);

/// What a breaker did when it was told of an answer: the target's where it has the index, else the upstream's.
pub type BreakerChange = (Option<TargetIndex>, breaker::Change);

/// Retries a quiet upstream may make each second whatever the share.
const RETRIES_MIN_PER_SECOND: u32 = 3;

impl LocalUpstream {
    /// The upstream as shard number `shard` uses it.
    pub fn new(spec: Arc<UpstreamSpec>, shard: u32, seed: u64) -> Self {
        let balancer = Balancer::new(spec.algorithm.clone(), shard, seed)
            .when_all_down(spec.when_all_down)
            .threshold_percent(spec.threshold_percent)
            .panic_percent(spec.panic_percent);
        Self {
            balancer: RefCell::new(balancer),
            load: spec.targets.iter().map(|_| Rc::default()).collect(),
            latency: spec.targets.iter().map(|_| latency::Latency::default()).collect(),
            budget: RefCell::new(retry::Budget::new(spec.retry_budget_percent, RETRIES_MIN_PER_SECOND)),
            random: RefCell::new(Random::new(shard, seed ^ 0x5eed)),
            spec,
        }
    }

    /// Goes on from what one of before by the same name knows: what retries may cost, how long targets took, and how many
    /// exchanges it has under way with them.
    pub fn adopt(&mut self, old: &LocalUpstream) {
        if self.spec.retry_budget_percent == old.spec.retry_budget_percent {
            *self.budget.borrow_mut() = old.budget.borrow().clone();
        }
        for (index, target) in self.spec.targets.iter().enumerate() {
            let same = |known: &TargetSpec| known.name == target.name && known.address == target.address;
            if let Some(known) = old.spec.targets.iter().position(same) {
                self.latency[index] = old.latency[known].clone();
                self.load[index] = old.load[known].clone();
            }
        }
    }

    /// The target of the next attempt.
    pub fn pick(&self, tried: &Tried, hash: Option<u64>, now_ns: u64) -> Option<TargetIndex> {
        self.balancer.borrow_mut().pick(&View { upstream: self, now_ns }, tried, hash)
    }

    /// Whether a target may be sent a request, for those that come back to it.
    pub fn takes(&self, target: TargetIndex, now_ns: u64) -> bool {
        let view = View { upstream: self, now_ns };
        view.weight(target) > 0 && view.available(target)
    }

    /// Whether some target may be sent a request.
    pub fn is_available(&self, now_ns: u64) -> bool {
        let broken = |breakers: &Breakers| {
            breakers.of_upstream.as_ref().is_some_and(|breaker| !breaker.available(now_ns))
        };
        !self.spec.breakers.as_ref().is_some_and(broken)
            && (0..self.spec.targets.len() as u32).any(|index| self.takes(TargetIndex(index), now_ns))
    }

    /// Whether so few targets are healthy that health is not asked.
    pub fn panics(&self, now_ns: u64) -> bool {
        self.spec.panic_percent > 0 && self.balancer.borrow().panics(&View { upstream: self, now_ns })
    }

    /// How long the breakers of targets keep every one of them out, in ns; `None` where it is not they.
    pub fn broken_for_ns(&self, now_ns: u64) -> Option<u64> {
        let breakers = &self.spec.breakers.as_ref()?.of_targets;
        breakers.iter().map(|breaker| breaker.refuses_for_ns(now_ns)).filter(|&time| time > 0).min()
    }

    /// A time between nothing and `longest`.
    pub fn random_part(&self, longest: Duration) -> Duration {
        match longest.as_nanos() as u64 {
            0 => Duration::ZERO,
            longest => Duration::from_nanos(self.random.borrow_mut().below(longest)),
        }
    }

    /// Whether it matters to the nanosecond when an attempt began.
    pub fn is_timed(&self) -> bool {
        matches!(self.spec.algorithm, Algorithm::Latency) || self.spec.breakers.is_some()
    }

    /// Asks the breakers of the upstream for leave to send a request.
    ///
    /// # Errors
    /// For how long there is none.
    pub fn enter(&self, now_ns: u64) -> Result<Leave, Broken> {
        let Some(Breakers { of_upstream: Some(breaker), policy, .. }) = &self.spec.breakers else {
            return Ok(Leave::default());
        };
        match breaker.admit(now_ns, policy) {
            breaker::Admission::Closed => Ok(Leave::default()),
            breaker::Admission::Trial => Ok(Leave { trials: [true, false] }),
            breaker::Admission::Open { retry_after_ns } => Err(Broken(retry_after_ns)),
        }
    }

    /// The same of a target; false: there is none.
    pub fn enter_target(&self, leave: &mut Leave, target: TargetIndex, now_ns: u64) -> bool {
        let Some(breakers) = &self.spec.breakers else { return true };
        let Some(breaker) = breakers.of_targets.get(target.index()) else { return true };
        match breaker.admit(now_ns, &breakers.policy) {
            breaker::Admission::Closed => true,
            breaker::Admission::Trial => {
                leave.trials[1] = true;
                true
            }
            breaker::Admission::Open { .. } => false,
        }
    }

    /// A request says nothing of the upstream; and nothing of a `target` that it was to go to.
    pub fn give_back(&self, leave: Leave, target: Option<TargetIndex>) {
        let Some(breakers) = &self.spec.breakers else { return };
        let judges = match target {
            Some(target) => breakers.of(target),
            None => [breakers.of_upstream.as_deref(), None],
        };
        for (judge, trial) in judges.into_iter().zip(leave.trials) {
            judge.inspect(|breaker| breaker.give_back(trial));
        }
    }

    /// Tells the breakers what became of a request; gives what they made of it.
    pub fn report(
        &self,
        leave: Leave,
        target: TargetIndex,
        outcome: health::Outcome,
        took_ns: u64,
        now_ns: u64,
    ) -> [BreakerChange; 2] {
        let none = [(None, breaker::Change::None); 2];
        let Some(breakers) = &self.spec.breakers else { return none };
        let failed = match outcome {
            health::Outcome::Status(status) => breakers.statuses.verdict(status) == Some(false),
            health::Outcome::TcpFailure | health::Outcome::Timeout => true,
            health::Outcome::Unknown => {
                self.give_back(leave, Some(target));
                return none;
            }
        };
        let answer = breaker::Answer { failed, took_ns };
        let [upstream, own] = breakers.of(target);
        let tell = |judge: Option<&breaker::Breaker>, trial| {
            judge.map_or(breaker::Change::None, |breaker| {
                breaker.report(now_ns, &breakers.policy, trial, answer)
            })
        };
        [(None, tell(upstream, leave.trials[0])), (Some(target), tell(own, leave.trials[1]))]
    }

    /// Takes note of how long a target took from the request to the head of its response.
    pub fn observe(&self, target: TargetIndex, took_ns: u64, now_ns: u64) {
        if matches!(self.spec.algorithm, Algorithm::Latency) {
            self.latency[target.index()].observe(took_ns, now_ns);
        }
    }

    /// Counts an exchange with a target until the guard is dropped.
    pub fn begin(&self, target: TargetIndex) -> Load<'_> {
        let load = &*self.load[target.index()];
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
        let spec = &self.upstream.spec;
        let broken = |breakers: &Breakers| {
            breakers.of_targets.get(target.index()).is_some_and(|breaker| !breaker.available(self.now_ns))
        };
        spec.health.available(target, self.now_ns) && !spec.breakers.as_ref().is_some_and(broken)
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
