//! What is counted by route.
//!
//! Owns the answer counts by exact status code and the three latency histograms of a route, one set a
//! shard. A [`RouteSeries`] belongs to a route's *name*: snapshots come and go, the series stays, so a
//! reload resets nothing. Never grows on the data path: about 0.8 KiB a route and shard, all of it
//! allocated when the snapshot is compiled.
//!
//! Invariant: each `RouteMetrics` is written by the one shard whose place it has in its series.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::cell::Counter;
use super::histogram::{GatewayHistogram, LatencyHistogram};
use crate::id::ShardId;

/// The counts of one route on one shard.
// Aligned to two cache lines, which the prefetcher fetches as a pair: the next shard's counts
// must not share them.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct RouteMetrics {
    statuses: StatusCounts,
    total: LatencyHistogram,
    upstream: LatencyHistogram,
    gateway: GatewayHistogram,
}

impl RouteMetrics {
    /// Counts one finished exchange.
    ///
    /// `total_ns` runs from the first byte of the request to the last of the response, `upstream_ns`
    /// is the part of it spent waiting for the upstream (`None` when no target was asked), and the
    /// gateway's own share is the difference.
    #[inline]
    pub fn record(&self, status: u16, total_ns: u64, upstream_ns: Option<u64>) {
        self.statuses.count(status);
        self.total.record(total_ns);
        if let Some(upstream_ns) = upstream_ns {
            self.upstream.record(upstream_ns);
        }
        self.gateway.record(total_ns.saturating_sub(upstream_ns.unwrap_or(0)));
    }

    /// Answers by status.
    pub fn statuses(&self) -> &StatusCounts {
        &self.statuses
    }

    /// From the first byte of the request to the last of the response.
    pub fn total(&self) -> &LatencyHistogram {
        &self.total
    }

    pub(super) fn upstream(&self) -> &LatencyHistogram {
        &self.upstream
    }

    pub(super) fn gateway(&self) -> &GatewayHistogram {
        &self.gateway
    }
}

/// The counts of one route on all shards. A snapshot's route holds it in an `Arc`.
#[derive(Debug)]
pub struct RouteSeries {
    name: Box<str>,
    number: u32,
    shards: Box<[RouteMetrics]>,
}

impl RouteSeries {
    pub(super) fn new(name: &str, number: u32, shards: usize) -> RouteSeries {
        let shards = (0..shards).map(|_| RouteMetrics::default()).collect();
        RouteSeries { name: name.into(), number, shards }
    }

    /// Tells the series apart for the life of the process, where a name would not fit.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The value of the `route` label.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The counts that `shard` writes.
    ///
    /// # Panics
    /// When the registry was made for fewer shards.
    #[inline]
    pub fn shard(&self, shard: ShardId) -> &RouteMetrics {
        &self.shards[shard.index()]
    }

    /// The counts of each shard.
    pub fn shards(&self) -> &[RouteMetrics] {
        &self.shards
    }
}

/// Distinct status codes counted one by one for a route and shard. An API answers with a dozen; the
/// bound is there for an upstream that makes codes up.
const EXACT_CODES: usize = 20;
const CODE_SHIFT: u32 = 48;

/// Answers by exact status code, in a table of fixed size.
///
/// A slot is one word, the code in its top 16 bits and the count in the 48 below, so a reader can
/// never pair the count of one code with another. Slots fill in order of first use, so the usual 200
/// is the first probe. Codes that come when the table is full are counted by class.
#[derive(Debug, Default)]
pub struct StatusCounts {
    slots: [AtomicU64; EXACT_CODES],
    rest: [Counter; 6],
}

impl StatusCounts {
    /// Counts one answer.
    #[inline]
    pub fn count(&self, status: u16) {
        let code = u64::from(status);
        // Code 0 would look like a free slot; the checks on responses let none through below 100.
        if status != 0 {
            for slot in &self.slots {
                let word = slot.load(Relaxed);
                if word >> CODE_SHIFT == code {
                    return slot.store(word + 1, Relaxed);
                }
                if word == 0 {
                    return slot.store((code << CODE_SHIFT) | 1, Relaxed);
                }
            }
        }
        self.rest[class_index(status)].inc();
    }

    /// The codes counted one by one, each with its count.
    pub fn exact(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        self.slots
            .iter()
            .map(|slot| slot.load(Relaxed))
            .take_while(|&word| word != 0)
            .map(|word| ((word >> CODE_SHIFT) as u16, word & ((1 << CODE_SHIFT) - 1)))
    }

    /// The answers beyond the table, each class with its count; classes without any are left out.
    pub fn rest(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        CLASSES.into_iter().zip(self.rest.iter().map(Counter::get)).filter(|&(_, count)| count > 0)
    }
}

/// The classes of status codes as the `class` label names them; [`class_index`] gives the place.
pub(super) const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "other"];

/// The place of a status code's class in [`CLASSES`].
#[inline]
pub(super) fn class_index(status: u16) -> usize {
    match status / 100 {
        class @ 1..=5 => class as usize - 1,
        _ => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn codes_are_counted_one_by_one_until_the_table_is_full() {
        let counts = StatusCounts::default();
        for status in (200..200 + EXACT_CODES as u16).rev() {
            counts.count(status);
            counts.count(status);
        }
        for status in [404, 404, 503, 777, 0] {
            counts.count(status);
        }
        counts.count(200);
        let exact: BTreeMap<u16, u64> = counts.exact().collect();
        assert_eq!(exact.len(), EXACT_CODES);
        assert_eq!((exact[&200], exact[&219]), (3, 2));
        let rest: Vec<_> = counts.rest().collect();
        assert_eq!(rest, [("4xx", 2), ("5xx", 1), ("other", 2)]);
    }

    #[test]
    fn the_gateway_share_is_what_the_upstream_did_not_take() {
        let metrics = RouteMetrics::default();
        metrics.record(200, 5_000_000, Some(4_999_000));
        metrics.record(429, 900, None);
        let sum = |add: &dyn Fn(&mut super::super::Totals)| {
            let mut totals = Default::default();
            add(&mut totals);
            (totals.count(), totals.sum_ns)
        };
        assert_eq!(sum(&|t| metrics.total().add_to(t)), (2, 5_000_900));
        assert_eq!(sum(&|t| metrics.upstream().add_to(t)), (1, 4_999_000));
        assert_eq!(sum(&|t| metrics.gateway().add_to(t)), (2, 1_900));
    }
}
