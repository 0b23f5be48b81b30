//! Sliding windows by two counts: the window in progress, and the share of the one before that still lies in the
//! last span of time, as if its requests had come evenly.
//!
//! Owns the estimate and the words of the two counts. A count is a time, as in `window`, so that it needs no reset and
//! obeys the table's order of eviction:
//!
//! ```text
//!   window k                     word of k = end + L + count * L/(16 N), for at most 16 N
//!   ──┬─────────────────┬────────────────────┬────┬────┬── ... ──▶ monotonic time
//!   start              end                 end+L  1    2
//! ```
//!
//! L is the span and N the limit. Windows of even and of odd number have a word each. When window k begins, the word of
//! its parity is that of k-2, at most the `end` of k, and reads 0; the other one is that of k-1 until k ends, which its
//! distance of L from the end of its own window keeps from eviction. Refused requests may count too (Kong's
//! `disable_penalty: false`), hence the room beyond N.
//!
//! Invariant: whenever something is admitted, the estimate after it is at most N; so no window as the clock divides
//! time admits more than N, and no span of length L more than 2 N.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use portcullis_abi::Word as _;

use super::limiter::{Moment, Quota};
use super::table::Table;
use super::window::window_key;

/// Multiples of the limit that a count reaches, penalties included.
pub(super) const COUNT_MAX: u64 = 16;
/// The weight of a window that lies wholly in the span. A power of two, so that a share of a count is exact also in
/// the arithmetic of Redis.
pub(super) const WEIGHT_ONE: u64 = 4096;

/// The two counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Of the window before.
    pub previous: u64,
    /// Of the window in progress.
    pub current: u64,
}

impl Counts {
    /// How many requests of the last span these are, at a weight of the window before.
    pub(super) fn estimate(self, weight: u64) -> u64 {
        let share = u128::from(self.previous) * u128::from(weight);
        let share = share.div_ceil(u128::from(WEIGHT_ONE));
        self.current.saturating_add(u64::try_from(share).unwrap_or(u64::MAX))
    }
}

/// How much of the window before lies in the last span, in parts of [`WEIGHT_ONE`], rounded up.
pub(super) fn weight(quota: &Quota, wall: u64) -> u64 {
    let (left, span) = (u128::from(quota.span.window(wall).end - wall), u128::from(quota.span.shortest_ns()));
    (left * u128::from(WEIGHT_ONE)).div_ceil(span) as u64
}

/// How long until `cost` more fit, if nothing else comes; 0 if they do now, `u64::MAX` for never.
pub(super) fn wait_ns(quota: &Quota, counts: Counts, wall: u64, cost: u64) -> u64 {
    if counts.estimate(weight(quota, wall)).saturating_add(cost) <= quota.limit {
        return 0;
    }
    let Some(room) = quota.limit.checked_sub(cost) else { return u64::MAX };
    let (left, span) = (quota.span.window(wall).end - wall, quota.span.shortest_ns());
    // The time before the end of a window at which `count` of the one before it weigh no more than `most`.
    let light = |count: u64, most: u64| {
        let weight = (u128::from(most) * u128::from(WEIGHT_ONE) / u128::from(count.max(1)))
            .min(u128::from(WEIGHT_ONE));
        (weight * u128::from(span) / u128::from(WEIGHT_ONE)) as u64
    };
    match room.checked_sub(counts.current) {
        Some(most) => left.saturating_sub(light(counts.previous, most)),
        None => left.saturating_add(span - light(counts.current, room)),
    }
}

/// Where the two counts are.
pub(super) struct Spots<'a> {
    table: &'a Table,
    quota: &'a Quota,
    current: Spot,
    previous: Spot,
    weight: u64,
    now: u64,
}

#[derive(Clone, Copy)]
struct Spot {
    key: u64,
    /// The word of no count.
    base: u64,
}

impl<'a> Spots<'a> {
    pub(super) fn new(table: &'a Table, quota: &'a Quota, base_key: u64, moment: Moment) -> Self {
        let (span, window) = (quota.span.shortest_ns(), quota.span.window(moment.wall));
        let end = moment.now.saturating_add(window.end - moment.wall);
        let even = window_key(base_key, quota.span) ^ 0x51;
        let keys =
            if (window.start / span).is_multiple_of(2) { [even, even ^ 0xa2] } else { [even ^ 0xa2, even] };
        Self {
            table,
            quota,
            current: Spot { key: keys[0], base: end.saturating_add(span) },
            previous: Spot { key: keys[1], base: end },
            weight: weight(quota, moment.wall),
            now: moment.now,
        }
    }

    /// Nanoseconds of a word that stand for one request.
    fn unit(&self) -> u64 {
        (self.quota.span.shortest_ns() / self.quota.limit.saturating_mul(COUNT_MAX)).max(1)
    }

    fn count(&self, spot: Spot, word: u64) -> u64 {
        let ahead = word.saturating_sub(spot.base);
        // Left by a request of the window after this one, which another shard was sooner to see.
        if ahead > self.quota.span.shortest_ns() {
            return 0;
        }
        ahead.saturating_add(self.unit() / 2) / self.unit()
    }

    fn at(&self, spot: Spot) -> u64 {
        self.table.find(spot.key).map_or(0, |way| self.count(spot, way.request_tat.load(Relaxed)))
    }

    /// The counts as they stand.
    pub(super) fn counts(&self) -> Counts {
        Counts { previous: self.at(self.previous), current: self.at(self.current) }
    }

    /// Counts `cost` if it fits, or in any case up to the room there is: the counts after it, `Err` with those that
    /// left no room.
    pub(super) fn charge(&self, cost: u64, force: bool) -> Result<Counts, Counts> {
        let previous = self.at(self.previous);
        let word: &AtomicU64 = &self.table.way(self.current.key, self.now).request_tat;
        let mut seen = word.load(Relaxed);
        loop {
            let before = Counts { previous, current: self.count(self.current, seen) };
            if !force && before.estimate(self.weight).saturating_add(cost) > self.quota.limit {
                return Err(before);
            }
            let most = self.quota.limit.saturating_mul(COUNT_MAX);
            let after = Counts { previous, current: before.current.saturating_add(cost).min(most) };
            match word.swap_if(seen, self.current.base.saturating_add(after.current * self.unit())) {
                Ok(()) => return Ok(after),
                Err(now) => seen = now,
            }
        }
    }

    /// Takes back a charge to the same window.
    pub(super) fn refund(&self, cost: u64) {
        let Some(way) = self.table.find(self.current.key) else { return };
        let mut seen = way.request_tat.load(Relaxed);
        loop {
            let Some(left) = self.count(self.current, seen).checked_sub(cost) else { return };
            match way.request_tat.swap_if(seen, self.current.base.saturating_add(left * self.unit())) {
                Ok(()) => return,
                Err(now) => seen = now,
            }
        }
    }

    /// Raises both counts to what is known of them.
    pub(super) fn adopt(&self, known: Counts) {
        let most = self.quota.limit.saturating_mul(COUNT_MAX);
        for (spot, count) in [(self.current, known.current), (self.previous, known.previous)] {
            if count > 0 {
                let word = spot.base.saturating_add(count.min(most) * self.unit());
                self.table.way(spot.key, self.now).request_tat.fetch_max(word, Relaxed);
            }
        }
    }
}
