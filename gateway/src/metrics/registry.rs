//! The list of all counters.
//!
//! Owns the metrics of every shard, of the control thread and of every route name. The control thread
//! asks it for cells when it starts shards and compiles snapshots, and renders it for a scrape. Shards
//! never call it: they hold `Arc`s of their cells.
//!
//! Invariant: the number of route names with series of their own never exceeds the bound, whatever
//! configurations are loaded over the life of the process.

#![allow(clippy::disallowed_types, reason = "no shard takes the lock: control alone compiles and scrapes")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::control::ControlMetrics;
use super::route::RouteSeries;
use super::shard::ShardMetrics;
use crate::id::ShardId;

/// How many route names get series of their own unless configured otherwise. A route costs about 65
/// lines of exposition and 0.8 KiB a shard.
pub const DEFAULT_MAX_ROUTE_SERIES: usize = 1_000;

/// The route under which names beyond the bound are counted together.
pub const OVERFLOW_ROUTE: &str = "_overflow";

/// All counters of the process.
#[derive(Debug)]
pub struct Registry {
    shards: Box<[Arc<ShardMetrics>]>,
    control: ControlMetrics,
    max_route_series: usize,
    // Taken by whoever compiles a snapshot and by a scrape, never by a shard.
    routes: Mutex<Routes>,
}

#[derive(Debug, Default)]
pub(super) struct Routes {
    pub(super) series: BTreeMap<Box<str>, Arc<RouteSeries>>,
    pub(super) overflow: Option<Arc<RouteSeries>>,
    pub(super) overflowed: BTreeSet<Box<str>>,
}

impl Registry {
    /// A registry for `shards` shards that gives at most `max_route_series` route names series.
    pub fn new(shards: usize, max_route_series: usize) -> Registry {
        Registry {
            shards: (0..shards).map(|_| Arc::default()).collect(),
            control: ControlMetrics::default(),
            max_route_series,
            routes: Mutex::default(),
        }
    }

    /// The cells that `shard` writes; `None` if there is no such shard.
    pub fn shard(&self, shard: ShardId) -> Option<Arc<ShardMetrics>> {
        self.shards.get(shard.index()).cloned()
    }

    /// The cells of the control thread.
    pub fn control(&self) -> &ControlMetrics {
        &self.control
    }

    /// The series of the route called `name`: the same one for the same name for the life of the
    /// process. Names beyond the bound share the series of [`OVERFLOW_ROUTE`].
    pub fn route(&self, name: &str) -> Arc<RouteSeries> {
        let mut routes = self.routes();
        if let Some(series) = routes.series.get(name) {
            return series.clone();
        }
        let shards = self.shards.len();
        if routes.series.len() >= self.max_route_series || name == OVERFLOW_ROUTE {
            // Bounded as the series are: names that come and go must not fill the memory.
            if routes.overflowed.len() < MAX_OVERFLOWED {
                routes.overflowed.insert(name.into());
            }
            let overflow = &mut routes.overflow;
            return overflow
                .get_or_insert_with(|| Arc::new(RouteSeries::new(OVERFLOW_ROUTE, OVERFLOW_NUMBER, shards)))
                .clone();
        }
        // Series are never taken out, so their number is free.
        let number = routes.series.len() as u32;
        let series = Arc::new(RouteSeries::new(name, number, shards));
        routes.series.insert(name.into(), series.clone());
        series
    }

    /// Every series, the overflow last.
    pub fn route_series(&self) -> Vec<Arc<RouteSeries>> {
        let routes = self.routes();
        routes.series.values().chain(&routes.overflow).cloned().collect()
    }

    /// The cells of every shard.
    pub fn shards(&self) -> &[Arc<ShardMetrics>] {
        &self.shards
    }

    pub(super) fn max_route_series(&self) -> usize {
        self.max_route_series
    }

    pub(super) fn routes(&self) -> MutexGuard<'_, Routes> {
        // The maps are whole between any two statements, so a panic elsewhere leaves them usable.
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Above the number of any other series.
const OVERFLOW_NUMBER: u32 = u32::MAX - 1;

/// How many distinct overflowed names are told apart; the gauge stops there.
const MAX_OVERFLOWED: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_series_over_reloads() {
        let registry = Registry::new(2, 10);
        let first = registry.route("users");
        first.shard(ShardId(1)).record(200, 5, None);
        let again = registry.route("users");
        assert!(Arc::ptr_eq(&first, &again));
        assert_eq!(again.shard(ShardId(1)).statuses().exact().collect::<Vec<_>>(), [(200, 1)]);
        assert!(registry.shard(ShardId(1)).is_some() && registry.shard(ShardId(2)).is_none());
    }

    #[test]
    fn names_beyond_the_bound_share_one_series() {
        let registry = Registry::new(1, 2);
        let known = registry.route("a");
        registry.route("b");
        let (c, d) = (registry.route("c"), registry.route("d"));
        registry.route("c");
        assert!(Arc::ptr_eq(&c, &d));
        assert_eq!(c.name(), OVERFLOW_ROUTE);
        assert!(Arc::ptr_eq(&known, &registry.route("a")), "a known name keeps its own");
        let routes = registry.routes();
        assert_eq!((routes.series.len(), routes.overflowed.len()), (2, 2));
    }
}
