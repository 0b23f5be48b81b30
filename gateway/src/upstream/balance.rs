//! Which target gets the next attempt.
//!
//! Owns the choice and nothing else: weights, health and load are read through [`TargetView`], which the pool
//! implements. Reads no clock and shares nothing: each shard has a [`Balancer`] of its own for each upstream, and only
//! the [`Ring`] is common. Invariant: a picked target has a weight above 0 and has not been tried.
//!
//! | algorithm | choice | cost for n targets |
//! |---|---|---|
//! | round-robin | smooth weighted: exact shares over a cycle, never a run of one target | n |
//! | least-connections | lowest (load + 1) / weight; ties in turn | n |
//! | random | by weight | n |
//! | two choices | two by weight, then the one with less load for its weight | n |
//! | latency | two by weight, then the one that would answer sooner: recent answer time x requests under way | n |
//! | consistent-hashing | the ring from the hash on; round-robin for requests that have none | log n, then the steps past targets that are out |
//! | maglev | the same with Maglev's table | 1, then the steps past targets that are out |
//!
//! **When targets fail.** A target that is not available is passed over and the others share its part. If none is
//! left, [`WhenAllDown::Refuse`] gives `None`, for which the caller answers 503; [`WhenAllDown::Ignore`] then picks as
//! if all were available, on the ground that health which condemns everybody is more likely wrong than right. Kong's
//! `threshold` works the other way round: below that percentage of available weight the whole upstream is refused,
//! lest the rest break under the load of all. Envoy's panic threshold is the opposite: below it health is taken for wrong,
//! and all targets are picked.

mod ring;

use std::cmp::Ordering;
use std::sync::Arc;

pub use ring::{Maglev, Ring};

/// Index of a target in its upstream's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetIndex(pub u32);

/// What a balancer knows of the targets of an upstream.
pub trait TargetView {
    /// Number of targets.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Share of the traffic, up to 65,535 as in Kong; 0: none.
    fn weight(&self, target: TargetIndex) -> u32;

    /// Whether health lets a request through now.
    fn available(&self, target: TargetIndex) -> bool;

    /// Requests under way, of this shard or of all.
    fn load(&self, target: TargetIndex) -> u32;

    /// How long answers took lately, in ns; 0: not known.
    fn latency_ns(&self, _target: TargetIndex) -> u64 {
        0
    }

    /// Whether it takes traffic only when all that are not backups are out.
    fn is_backup(&self, _target: TargetIndex) -> bool {
        false
    }
}

/// How to choose.
#[derive(Clone, Debug)]
pub enum Algorithm {
    /// Kong's `round-robin`.
    RoundRobin,
    /// Kong's `least-connections`.
    LeastConnections,
    /// By weight alone.
    Random,
    /// The better of two random ones.
    TwoChoices,
    /// Kong's `latency`: peak EWMA (Finagle's), by two choices.
    Latency,
    /// Kong's `consistent-hashing`.
    ConsistentHashing(Arc<Ring>),
    /// The same with another table.
    Maglev(Arc<Maglev>),
}

/// What to do when health leaves nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenAllDown {
    /// Pick none.
    #[default]
    Refuse,
    /// Pick as if all were available.
    Ignore,
}

/// Choices of one shard for one upstream.
#[derive(Debug)]
pub struct Balancer {
    algorithm: Algorithm,
    when_all_down: WhenAllDown,
    threshold_percent: u8,
    panic_percent: u8,
    shard: u32,
    /// Credit of each target, see [`Balancer::round_robin`]. Filled at the first pick.
    credits: Vec<i64>,
    random: Random,
    turn: usize,
}

/// Targets that this request has been sent to already. Holds as many as anybody should try.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tried {
    targets: [u32; Tried::CAPACITY],
    len: u8,
}

impl TargetIndex {
    /// As an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl Tried {
    /// More attempts than this are not told apart.
    pub const CAPACITY: usize = 15;

    /// Notes a target. Past the capacity it is forgotten, hence may be picked again.
    pub fn insert(&mut self, target: TargetIndex) {
        if let Some(place) = self.targets.get_mut(usize::from(self.len)) {
            *place = target.0;
            self.len += 1;
        }
    }

    /// Whether the target was noted.
    pub fn contains(&self, target: TargetIndex) -> bool {
        self.targets[..usize::from(self.len)].contains(&target.0)
    }

    /// How many were noted.
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Balancer {
    /// A balancer for `shard` (its number). Shards start their rounds one pick apart, so that they do not march in
    /// step. `seed` differs from process to process.
    pub fn new(algorithm: Algorithm, shard: u32, seed: u64) -> Balancer {
        Balancer {
            algorithm,
            when_all_down: WhenAllDown::Refuse,
            threshold_percent: 0,
            panic_percent: 0,
            shard,
            credits: Vec::new(),
            random: Random::new(shard, seed),
            turn: shard as usize,
        }
    }

    /// What to do when health leaves nobody.
    pub fn when_all_down(mut self, when_all_down: WhenAllDown) -> Balancer {
        self.when_all_down = when_all_down;
        self
    }

    /// Kong's `healthchecks.threshold`: refuse everything below this percentage of available weight. 0: never.
    pub fn threshold_percent(mut self, percent: u8) -> Balancer {
        self.threshold_percent = percent.min(100);
        self
    }

    /// Below this percentage of available weight, targets are picked as if all were available. 0: never.
    pub fn panic_percent(mut self, percent: u8) -> Balancer {
        self.panic_percent = percent.min(100);
        self
    }

    /// Whether so few are available that health is not asked.
    pub fn panics(&self, view: &impl TargetView) -> bool {
        self.panic_percent > 0 && !self.is_above(self.panic_percent, view)
    }

    /// The target of the next attempt. `hash` is that of the request for consistent hashing. `None`: nobody is left.
    ///
    /// A caller that has tried everybody and may try again passes an empty `tried`.
    pub fn pick(&mut self, view: &impl TargetView, tried: &Tried, hash: Option<u64>) -> Option<TargetIndex> {
        if self.threshold_percent > 0 && !self.is_above(self.threshold_percent, view) {
            return None;
        }
        let panics = self.panics(view);
        let fresh = |target| view.weight(target) > 0 && !tried.contains(target);
        let open = |target| fresh(target) && (panics || view.available(target));
        let first = self.pick_among(view, hash, |target| open(target) && !view.is_backup(target));
        let picked = first.or_else(|| self.pick_among(view, hash, open));
        if picked.is_none() && self.when_all_down == WhenAllDown::Ignore {
            return self.pick_among(view, hash, fresh);
        }
        picked
    }

    fn pick_among(
        &mut self,
        view: &impl TargetView,
        hash: Option<u64>,
        eligible: impl Fn(TargetIndex) -> bool,
    ) -> Option<TargetIndex> {
        match (&self.algorithm, hash) {
            (Algorithm::ConsistentHashing(ring), Some(hash)) => return ring.pick(hash, eligible),
            (Algorithm::Maglev(table), Some(hash)) => return table.pick(hash, eligible),
            _ => {}
        }
        match self.algorithm {
            Algorithm::RoundRobin | Algorithm::ConsistentHashing(_) | Algorithm::Maglev(_) => {
                self.round_robin(view, eligible)
            }
            Algorithm::LeastConnections => self.least_connections(view, eligible),
            Algorithm::Random => self.random.pick(view, eligible),
            Algorithm::TwoChoices => self.two_choices(view, eligible, compare_load),
            Algorithm::Latency => self.two_choices(view, eligible, compare_expected),
        }
    }

    fn two_choices<V: TargetView>(
        &mut self,
        view: &V,
        eligible: impl Fn(TargetIndex) -> bool,
        compare: impl Fn(&V, TargetIndex, TargetIndex) -> Ordering,
    ) -> Option<TargetIndex> {
        let one = self.random.pick(view, &eligible)?;
        let other = self.random.pick(view, |target| target != one && eligible(target));
        Some(match other {
            Some(other) if compare(view, other, one) == Ordering::Less => other,
            _ => one,
        })
    }

    /// Smooth weighted round robin (nginx's method): every eligible target earns its weight, the richest is picked
    /// and pays what all have earned. The credits sum to 0 throughout, and with constant weights and availability
    /// they all are 0 after each cycle, which is why the shares are exact. Before the payment the richest owns more
    /// than nothing, hence nobody is ever a whole pick ahead of its share.
    fn round_robin(
        &mut self,
        view: &impl TargetView,
        eligible: impl Fn(TargetIndex) -> bool,
    ) -> Option<TargetIndex> {
        if self.credits.len() != view.len() {
            self.credits.clear();
            self.credits.resize(view.len(), 0);
            for _ in 0..self.shard % MOST_SKIPPED {
                step(&mut self.credits, view, |target| view.weight(target) > 0);
            }
        }
        step(&mut self.credits, view, eligible)
    }

    fn least_connections(
        &mut self,
        view: &impl TargetView,
        eligible: impl Fn(TargetIndex) -> bool,
    ) -> Option<TargetIndex> {
        self.turn = self.turn.wrapping_add(1);
        let len = view.len();
        let start = self.turn.checked_rem(len)?;
        // The first of equals, hence a new one each turn.
        (start..len)
            .chain(0..start)
            .map(|index| TargetIndex(index as u32))
            .filter(|&target| eligible(target))
            .min_by(|&a, &b| compare_load(view, a, b))
    }

    fn is_above(&self, percent: u8, view: &impl TargetView) -> bool {
        let (mut all, mut available) = (0, 0);
        for target in targets(view) {
            let weight = u64::from(view.weight(target));
            all += weight;
            available += if view.available(target) { weight } else { 0 };
        }
        available * 100 >= all * u64::from(percent)
    }
}

/// One round of smooth weighted round robin.
fn step(
    credits: &mut [i64],
    view: &impl TargetView,
    eligible: impl Fn(TargetIndex) -> bool,
) -> Option<TargetIndex> {
    let mut earned = 0;
    let mut richest: Option<(TargetIndex, i64)> = None;
    for (index, credit) in (0..).zip(credits.iter_mut()) {
        let target = TargetIndex(index);
        if !eligible(target) {
            continue;
        }
        let weight = i64::from(view.weight(target));
        earned += weight;
        *credit += weight;
        if richest.is_none_or(|(_, most)| *credit > most) {
            richest = Some((target, *credit));
        }
    }
    let (target, _) = richest?;
    credits[target.index()] -= earned;
    Some(target)
}

/// Compares (load + 1) / weight without dividing. The one is the request that is about to go there: without it all
/// idle targets would be equal, whatever their weight.
fn compare_load(view: &impl TargetView, a: TargetIndex, b: TargetIndex) -> Ordering {
    let scaled = |of, by| (u64::from(view.load(of)) + 1) * u64::from(view.weight(by));
    scaled(a, b).cmp(&scaled(b, a))
}

/// Compares how long the next request would take: recent answer time x (load + 1). Weights have had their say in the
/// draw. A target nobody has measured goes first while it is idle, so that it is measured, and by its load after that.
fn compare_expected(view: &impl TargetView, a: TargetIndex, b: TargetIndex) -> Ordering {
    let expected = |target| u128::from(view.latency_ns(target)) * (u128::from(view.load(target)) + 1);
    let unknown = |target| view.latency_ns(target) == 0;
    match (unknown(a), unknown(b)) {
        (false, false) => expected(a).cmp(&expected(b)),
        (true, true) => compare_load(view, a, b),
        (true, false) if view.load(a) == 0 => Ordering::Less,
        (false, true) if view.load(b) == 0 => Ordering::Greater,
        _ => compare_load(view, a, b),
    }
}

fn targets(view: &impl TargetView) -> impl Iterator<Item = TargetIndex> {
    (0..view.len() as u32).map(TargetIndex)
}

/// SplitMix64: a counter through a mixing function. Balancing needs spread, not secrecy.
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    /// From a seed that differs from process to process, and from shard to shard.
    pub(super) fn new(shard: u32, seed: u64) -> Random {
        Random(mix(seed ^ mix(u64::from(shard) + 1)))
    }

    /// Below `limit`, which is above 0. The bias is under `limit` / 2^64.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        ((u128::from(mix(self.0)) * u128::from(limit)) >> 64) as u64
    }

    /// One of the eligible, by weight.
    fn pick(
        &mut self,
        view: &impl TargetView,
        eligible: impl Fn(TargetIndex) -> bool,
    ) -> Option<TargetIndex> {
        let weight = |target: TargetIndex| if eligible(target) { u64::from(view.weight(target)) } else { 0 };
        let all: u64 = targets(view).map(weight).sum();
        if all == 0 {
            return None;
        }
        let mut left = self.below(all);
        targets(view).find(|&target| {
            let own = weight(target);
            let found = left < own;
            left = left.saturating_sub(own);
            found
        })
    }
}

fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Bounds the work of the first pick; no machine has as many shards.
const MOST_SKIPPED: u32 = 1024;

#[cfg(test)]
mod tests;
