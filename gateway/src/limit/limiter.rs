//! One limit over one or several windows, by one of five strategies.
//!
//! Owns the choice of the strategy and the rule that several windows are charged together, all or none. The strategies
//! are modules of their own: `window` (fixed), `sliding_counter`, `sliding_log`, `bucket` (token and leaky). Holds no
//! counts: those are in the [`Place`], or in a store that several gateways share, whose [`Raw`] answers are told here in
//! the same words.
//!
//! Invariant: a decision depends on the counts, the moment and the cost alone, wherever the counts are kept.

use portcullis_abi::Rate;

use super::bucket::{self, Bucket};
use super::decision::{Decision, WINDOWS_MAX, WindowState};
use super::sliding_counter::{self, Counts, Spots};
use super::sliding_log::{LogState, Logged, Logs};
use super::span::Span;
use super::table::Table;
use super::window::{WindowError, WindowLimiter};

/// How a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// A count in each window, as the clock divides time.
    FixedWindow,
    /// The count of the window, and a share of the one before.
    SlidingCounter,
    /// The times of all that was admitted in the last span.
    SlidingLog,
    /// Tokens that come back at a steady rate, up to a burst.
    TokenBucket,
    /// A queue that is left at a steady rate: requests are delayed.
    LeakyBucket,
}

/// What one window admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Its length.
    pub span: Span,
    /// Requests in it, at least 1.
    pub limit: u64,
    /// Buckets: requests at once after a pause, or that may wait. Other strategies have none.
    pub burst: u64,
}

/// The same moment on both clocks, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// CLOCK_MONOTONIC.
    pub now: u64,
    /// Since the Unix epoch.
    pub wall: u64,
}

/// Where the counts of one key are.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// Words of all strategies but the log.
    pub table: &'a Table,
    /// From [`Limiter::logs`].
    pub logs: &'a [Logs],
    /// From [`super::limit_key`].
    pub key: u64,
}

/// How one window's counts stand, whoever keeps them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Raw {
    /// Fixed window.
    Count(u64),
    /// Sliding counter.
    Counts(Counts),
    /// Sliding log.
    Log(LogState),
    /// Nanoseconds that a bucket is ahead of the moment.
    Debt(u64),
}

/// A compiled limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limiter {
    algorithm: Algorithm,
    quotas: Box<[Quota]>,
    fixed: WindowLimiter,
    penalty: bool,
}

/// Most entries of a log: each look goes through all.
pub const LOG_MAX: u64 = 10_000;

impl Limiter {
    /// Compiles a limit. With `penalty`, what a sliding counter refuses counts too.
    ///
    /// # Errors
    /// See [`WindowError`]; a limit of a sliding log is at most [`LOG_MAX`].
    pub fn new(algorithm: Algorithm, mut quotas: Vec<Quota>, penalty: bool) -> Result<Self, WindowError> {
        quotas.sort_unstable_by_key(|quota| quota.span.shortest_ns());
        let fixed = WindowLimiter::of_any(quotas.iter().map(|quota| (quota.span, quota.limit)))?;
        for quota in &quotas {
            let most = match algorithm {
                Algorithm::SlidingLog => LOG_MAX,
                Algorithm::SlidingCounter => quota.span.shortest_ns() / sliding_counter::COUNT_MAX,
                _ => continue,
            };
            if quota.limit > most {
                return Err(WindowError::TooHigh(quota.span, most));
            }
        }
        let penalty = penalty && algorithm == Algorithm::SlidingCounter;
        Ok(Self { algorithm, quotas: quotas.into(), fixed, penalty })
    }

    /// How it counts.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Its windows, shortest first.
    pub fn quotas(&self) -> &[Quota] {
        &self.quotas
    }

    /// Whether what is refused counts too.
    pub fn penalty(&self) -> bool {
        self.penalty
    }

    /// The logs that the limit needs beside a table, with room for `entries` admissions each.
    pub fn logs(&self, entries: usize) -> Vec<Logs> {
        if self.algorithm != Algorithm::SlidingLog {
            return Vec::new();
        }
        let logs = |quota: &Quota| Logs::new(quota.span.shortest_ns(), quota.limit as usize, entries);
        self.quotas.iter().map(logs).collect()
    }

    /// The rate of one of its windows, of a bucket.
    pub fn rate(&self, quota: &Quota) -> Rate {
        bucket::rate(self.algorithm, quota)
    }

    /// How much of the window before counts for a sliding counter, in 4096ths.
    pub fn weight(quota: &Quota, moment: Moment) -> u64 {
        sliding_counter::weight(quota, moment.wall)
    }

    /// Charges `cost` to every window, or to none if one of them cannot take it. A cost of 0 only looks.
    ///
    /// Never admits too much. While another thread's charge is being taken back, a check may be refused that would have
    /// been admitted a moment later.
    pub fn check(&self, place: Place<'_>, moment: Moment, cost: u64) -> Decision {
        if self.algorithm == Algorithm::FixedWindow {
            return self.fixed.check(place.table, place.key, moment.now, moment.wall, cost);
        }
        let mut raws = [Raw::Count(0); WINDOWS_MAX];
        let mut admitted = true;
        for (index, quota) in self.quotas.iter().enumerate() {
            raws[index] = self.look(place, index, moment, cost);
            admitted &= self.wait(quota, raws[index], moment, cost) == 0;
        }
        if admitted && cost > 0 {
            for (index, raw) in raws[..self.quotas.len()].iter_mut().enumerate() {
                let charged = self.charge(place, index, moment, cost);
                admitted = charged.is_ok();
                let (Ok(after) | Err(after)) = charged;
                *raw = after;
                if !admitted {
                    (0..index).for_each(|index| self.refund(place, index, moment, cost));
                    break;
                }
            }
        }
        if !admitted && self.penalty {
            for (quota, raw) in self.quotas.iter().zip(&mut raws) {
                let spots = Spots::new(place.table, quota, place.key, moment);
                let (Ok(counts) | Err(counts)) = spots.charge(cost, true);
                *raw = Raw::Counts(counts);
            }
        }
        self.tell(&raws[..self.quotas.len()], admitted, moment, cost)
    }

    /// What counts that are kept elsewhere mean: `raws` are those after the check, in the order of the windows.
    pub fn tell(&self, raws: &[Raw], admitted: bool, moment: Moment, cost: u64) -> Decision {
        let mut decision = Decision::empty();
        let mut longest = None;
        for (index, (quota, raw)) in self.quotas.iter().zip(raws).enumerate() {
            let wait = if admitted { 0 } else { self.wait(quota, *raw, moment, cost) };
            let mut state = self.state(quota, *raw, moment);
            if wait > 0 {
                state.reset_ns = if wait == u64::MAX { quota.span.shortest_ns() } else { wait };
            }
            if longest.is_none_or(|(_, most)| wait >= most) {
                longest = Some((index, wait));
            }
            if let (Raw::Debt(debt), Algorithm::LeakyBucket) = (*raw, self.algorithm) {
                let own = cost.saturating_mul(self.rate(quota).interval_ns);
                decision.delay_ns = decision.delay_ns.max(debt.saturating_sub(own));
            }
            decision.push(state);
        }
        if !admitted {
            decision.delay_ns = 0;
            decision.stop(longest.map_or(0, |(index, _)| index));
        }
        decision
    }

    /// Raises the counts of a key to what all gateways have together.
    pub fn adopt(&self, place: Place<'_>, moment: Moment, raws: &[Raw]) {
        let mut used = [0; WINDOWS_MAX];
        for (index, (quota, raw)) in self.quotas.iter().zip(raws).enumerate() {
            match *raw {
                Raw::Count(count) => used[index] = count,
                Raw::Counts(counts) => Spots::new(place.table, quota, place.key, moment).adopt(counts),
                Raw::Debt(debt) => {
                    Bucket::new(self.algorithm, place.table, quota, place.key, moment).adopt(debt);
                }
                Raw::Log(_) => {} // only ever checked in one place at a time
            }
        }
        if self.algorithm == Algorithm::FixedWindow {
            let used = &used[..self.quotas.len()];
            self.fixed.adopt(place.table, place.key, moment.now, moment.wall, used);
        }
    }

    fn look(&self, place: Place<'_>, index: usize, moment: Moment, cost: u64) -> Raw {
        let quota = &self.quotas[index];
        match self.algorithm {
            Algorithm::SlidingLog => Raw::Log(place.logs[index].look(place.key, moment.now, cost)),
            Algorithm::TokenBucket | Algorithm::LeakyBucket => {
                Raw::Debt(Bucket::new(self.algorithm, place.table, quota, place.key, moment).debt())
            }
            _ => Raw::Counts(Spots::new(place.table, quota, place.key, moment).counts()),
        }
    }

    fn charge(&self, place: Place<'_>, index: usize, moment: Moment, cost: u64) -> Result<Raw, Raw> {
        let quota = &self.quotas[index];
        match self.algorithm {
            Algorithm::SlidingLog => match place.logs[index].charge(place.key, moment.now, cost) {
                Logged::Admitted(state) => Ok(Raw::Log(state)),
                Logged::Refused(state) => Err(Raw::Log(state)),
                // More keys than logs: the best that needs none.
                Logged::Crowded => sliding(place, quota, moment, cost),
            },
            Algorithm::TokenBucket | Algorithm::LeakyBucket => {
                let bucket = Bucket::new(self.algorithm, place.table, quota, place.key, moment);
                bucket.charge(cost).map(Raw::Debt).map_err(Raw::Debt)
            }
            _ => sliding(place, quota, moment, cost),
        }
    }

    fn refund(&self, place: Place<'_>, index: usize, moment: Moment, cost: u64) {
        let quota = &self.quotas[index];
        match self.algorithm {
            Algorithm::SlidingLog => place.logs[index].refund(place.key, moment.now, cost),
            Algorithm::TokenBucket | Algorithm::LeakyBucket => {
                Bucket::new(self.algorithm, place.table, quota, place.key, moment).refund(cost);
            }
            _ => Spots::new(place.table, quota, place.key, moment).refund(cost),
        }
    }

    /// How long until `cost` more fit; 0 if they do now.
    fn wait(&self, quota: &Quota, raw: Raw, moment: Moment, cost: u64) -> u64 {
        match raw {
            Raw::Count(used) if used.saturating_add(cost) <= quota.limit => 0,
            Raw::Count(_) => quota.span.window(moment.wall).end - moment.wall,
            Raw::Counts(counts) => sliding_counter::wait_ns(quota, counts, moment.wall, cost),
            Raw::Log(state) if state.live.saturating_add(cost) <= quota.limit => 0,
            Raw::Log(_) if cost > quota.limit => u64::MAX,
            Raw::Log(state) => state.wait_ns.max(1),
            Raw::Debt(debt) => bucket::wait_ns(self.rate(quota), debt, cost),
        }
    }

    fn state(&self, quota: &Quota, raw: Raw, moment: Moment) -> WindowState {
        let end = || quota.span.window(moment.wall).end - moment.wall;
        let (remaining, reset_ns) = match raw {
            Raw::Count(used) => (quota.limit.saturating_sub(used), end()),
            Raw::Counts(counts) => {
                let used = counts.estimate(sliding_counter::weight(quota, moment.wall));
                (quota.limit.saturating_sub(used), end())
            }
            Raw::Log(state) => (quota.limit.saturating_sub(state.live), state.wait_ns),
            Raw::Debt(debt) => (bucket::remaining(self.rate(quota), debt), debt),
        };
        // A bucket holds its burst, not what it gets in a span.
        let limit = if matches!(raw, Raw::Debt(_)) { quota.limit.max(remaining) } else { quota.limit };
        WindowState { span: quota.span, limit, remaining, reset_ns }
    }
}

fn sliding(place: Place<'_>, quota: &Quota, moment: Moment, cost: u64) -> Result<Raw, Raw> {
    let spots = Spots::new(place.table, quota, place.key, moment);
    spots.charge(cost, false).map(Raw::Counts).map_err(Raw::Counts)
}

#[cfg(test)]
#[path = "limiter_tests.rs"]
mod tests;
