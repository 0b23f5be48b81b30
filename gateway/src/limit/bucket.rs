//! Token and leaky buckets as strategies of a limit.
//!
//! Owns how a bucket's word (its theoretical arrival time, see `portcullis_abi`) is told as what is left and how long to
//! wait. A leaky bucket is the same word read otherwise: what a token bucket lets pass at once, a leaky one lets pass
//! one by one, an interval apart. So what is ahead of somebody is his delay, and what a token bucket calls the burst is
//! the room of the queue.
//!
//! Invariant: in any time t a token bucket admits at most `burst + t * limit / span`; what a leaky bucket admits leaves
//! it at least an interval apart, and waits for at most `burst` intervals.

use portcullis_abi::{Charge, Rate};

use super::limiter::{Algorithm, Moment, Quota};
use super::table::{Table, Word};
use super::window::window_key;

/// The rate of a quota's bucket.
pub(super) fn rate(algorithm: Algorithm, quota: &Quota) -> Rate {
    // One in the act of leaving, beside those that wait.
    let room = if algorithm == Algorithm::LeakyBucket { quota.burst.saturating_add(1) } else { quota.burst };
    Rate::new(quota.limit, quota.span.shortest_ns(), room)
}

/// How long until `cost` more fit into a bucket that is `debt` ahead; 0 if they do now, `u64::MAX` for never.
pub(super) fn wait_ns(rate: Rate, debt: u64, cost: u64) -> u64 {
    let cost = cost.saturating_mul(rate.interval_ns);
    if cost > rate.burst_ns {
        return u64::MAX;
    }
    debt.saturating_add(cost).saturating_sub(rate.burst_ns)
}

/// What is left in a bucket that is `debt` ahead.
pub(super) fn remaining(rate: Rate, debt: u64) -> u64 {
    rate.burst_ns.saturating_sub(debt) / rate.interval_ns.max(1)
}

/// One bucket.
pub(super) struct Bucket<'a> {
    pub table: &'a Table,
    pub key: u64,
    pub rate: Rate,
    pub now: u64,
}

impl<'a> Bucket<'a> {
    pub(super) fn new(
        algorithm: Algorithm,
        table: &'a Table,
        quota: &Quota,
        base_key: u64,
        moment: Moment,
    ) -> Self {
        let key = window_key(base_key, quota.span) ^ 0xb0;
        Self { table, key, rate: rate(algorithm, quota), now: moment.now }
    }

    /// How far the bucket is ahead of now.
    pub(super) fn debt(&self) -> u64 {
        self.table.debt(self.key, Word::Request, self.now)
    }

    /// Charges `cost` if it fits: the debt after it, `Err` with the debt that left no room.
    pub(super) fn charge(&self, cost: u64) -> Result<u64, u64> {
        match self.table.charge(self.key, Word::Request, self.now, self.rate, cost) {
            Charge::Conforming { debt_ns } => Ok(debt_ns),
            Charge::Limited { .. } => Err(self.debt()),
        }
    }

    pub(super) fn refund(&self, cost: u64) {
        self.table.refund(self.key, Word::Request, cost.saturating_mul(self.rate.interval_ns));
    }

    /// Raises the debt to what is known of it.
    pub(super) fn adopt(&self, debt: u64) {
        let own = self.debt();
        if debt > own {
            let most = self.rate.burst_ns;
            self.table.penalize(self.key, Word::Request, self.now, debt - own, most.max(own));
        }
    }
}
