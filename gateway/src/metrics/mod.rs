//! Counters, gauges and histograms, and their Prometheus text form.
//!
//! Owns every metric name (`names`), the cells that shards count in (`shard`, `route`), the list of
//! all of them (`registry`) and the exposition (`exposition`, `render`). It never decides anything,
//! reads no clock and does no I/O: durations arrive as nanoseconds, the text leaves as a `String`.
//!
//! A shard counts in memory that it alone writes, with a relaxed load and a relaxed store; a scrape
//! reads the same words from the control thread and adds them up. So counting costs no locked
//! instruction, and a scrape can neither wait for a shard nor make one wait.
//!
//! Invariant: each cell has one writing thread. Two writers would lose counts, silently.
//!
//! Next to read: `shard`, then `registry`.

mod cell;
mod control;
pub mod exposition;
mod histogram;
pub mod names;
mod refusals;
mod registry;
mod render;
mod route;
mod shard;
mod sources;
#[cfg(test)]
mod strict;

pub use cell::{Counter, Gauge};
pub use control::ControlMetrics;
pub use exposition::{Exposition, Value};
pub use histogram::{FineHistogram, GatewayHistogram, Histogram, LatencyHistogram, Totals};
pub use refusals::{Refusal, Refusals};
pub use registry::{DEFAULT_MAX_ROUTE_SERIES, OVERFLOW_ROUTE, Registry};
pub use render::{
    LedgerCounts, write_breakers, write_certificates, write_kernel_facts, write_kernel_mode,
    write_kernel_packets, write_ledger, write_steering, write_targets,
};
pub use route::{RouteMetrics, RouteSeries};
pub use shard::{CopyOutcome, Driver, HandshakeFailure, LimiterDecision, ShardMetrics};
pub use sources::{Busy, BusySources, steady_rate};
