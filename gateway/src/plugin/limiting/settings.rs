//! The keys that the plugins that limit requests have in common.
//!
//! Owns their tables and their reading. Never a default of Kong's own keys.

use std::sync::Arc;
use std::time::Duration;

use portcullis_config::schema::text;
use portcullis_config::{Config, Fault, Fields, Key, Kind, Section};

use super::store::StoreSpec;
use super::{Cost, Exempt, Members, script};
use crate::limit::{Algorithm, CidrSet, Limiter, Quota};
use crate::plugin::CompileCx;
use crate::plugin::redis::{self, Script};

/// Whether the limit only watches.
pub const DRY_RUN: Key = Key::new(
    "dry_run",
    Kind::Bool,
    "Whether a request over the limit passes, and is only counted as `dry_run` in the metrics.",
)
.default("false");

/// What a request counts for.
pub const COST: Key =
    Key::new("cost", Kind::integer(1, 1 << 20), "What one request counts for.").default("1");

/// The same, by route.
pub const ROUTE_COSTS: Key = Key::new(
    "route_costs",
    Kind::Map { keys: &text::NAME, of: &Kind::Integer { min: 0, max: 1 << 20 } },
    "What one request of a route counts for, by the route's name, where that differs; 0 for nothing.",
);

/// Whom the limit does not concern.
pub const EXEMPT: Key =
    Key::new("exempt", Kind::Section(&EXEMPT_SECTION), "Whom the limit does not concern.");

static EXEMPT_SECTION: Section = Section::new(
    "limit.exempt",
    "Whom a limit does not concern.",
    &[
        Key::new("ips", Kind::CIDRS, "Client addresses and prefixes.").default("[]"),
        Key::new("consumers", Kind::STRINGS, "Consumers, by username or id.").default("[]"),
        Key::new("groups", Kind::STRINGS, "Groups of consumers, of `acls` or `consumer_groups`.")
            .default("[]"),
    ],
);

/// Whether requests pass while a store is away.
pub const FAULT_TOLERANT: Key = Key::new(
    "fault_tolerant",
    Kind::Bool,
    "What happens when Redis does not answer: the gateway keeps to its part of the limits by itself (true), or refuses \
     with 500 (false).",
)
.default("true");

/// How a plugin's keys call what concerns the store.
pub struct StoreKeys {
    /// `policy` or `strategy`.
    pub policy: &'static str,
    /// Seconds between two exchanges that mean "at each request".
    pub strict: f64,
    /// Whether the older keys `redis_host`, ... may be used.
    pub shorthands: bool,
}

/// Reads where counts are kept; `None` for memory. `namespace` is the same in all gateways that share them.
pub fn store(
    fields: &Fields<'_>,
    keys: &StoreKeys,
    namespace: String,
    algorithm: Algorithm,
    config: &Config,
) -> Option<Arc<StoreSpec>> {
    let policy = fields.word(keys.policy);
    if policy == "cluster" {
        let fault = Fault::new("there is no database that gateways share: each counts by itself");
        let hint = format!("`{}: redis` shares counts", keys.policy);
        fields.warning(keys.policy, fault.hint(hint));
    }
    let rate = fields.optional_number("sync_rate").unwrap_or(keys.strict);
    if policy != "redis" {
        if fields.is_set("sync_rate") && rate != -1.0 && policy == "local" && keys.shorthands {
            fields.error("sync_rate", "sync_rate can only be used with redis policy");
        }
        return None;
    }
    if rate != keys.strict && rate < 0.0 {
        return None; // Kong: memory alone
    }
    if rate != keys.strict && rate < 0.02 {
        fields.error("sync_rate", format!("sync_rate must be at least 0.02, or {}", keys.strict));
    }
    if rate != keys.strict && algorithm == Algorithm::SlidingLog {
        let fault = Fault::new("a log of what all gateways admit cannot be put together afterwards");
        fields.error("sync_rate", fault.hint(format!("`sync_rate: {}` checks at each request", keys.strict)));
    }
    let Some((server, gateways)) = redis::read(fields, keys.shorthands, config) else {
        if !fields.section("redis").has_unknown_keys() {
            fields.error(keys.policy, Fault::new(format!("`{}: redis` needs `redis.host`", keys.policy)));
        }
        return None;
    };
    Some(Arc::new(StoreSpec {
        server,
        script: Script::new(script::TEXT),
        namespace,
        sync: (rate != keys.strict).then(|| Duration::from_secs_f64(rate.max(0.02))),
        fault_tolerant: fields.bool("fault_tolerant"),
        gateways,
    }))
}

/// A limiter's part for one of so many gateways, rounded up.
pub fn part(limiter: &Limiter, gateways: u64) -> Limiter {
    let part = |quota: &Quota| Quota {
        limit: quota.limit.div_ceil(gateways),
        burst: quota.burst.div_ceil(gateways),
        ..*quota
    };
    let quotas = limiter.quotas().iter().map(part).collect();
    Limiter::new(limiter.algorithm(), quotas, limiter.penalty()).unwrap_or_else(|_| limiter.clone())
}

/// Reads [`COST`] and [`ROUTE_COSTS`].
pub fn cost(fields: &Fields<'_>, cx: &CompileCx<'_>) -> Cost {
    let mut routes = Vec::new();
    for (name, cost) in fields.map("route_costs") {
        if !cx.config.routes.iter().any(|route| route.name == name) {
            fields.warning("route_costs", Fault::new(format!("there is no route {name:?}")));
        }
        routes.extend(cost.parse().ok().map(|cost| (name, cost)));
    }
    Cost { base: fields.integer("cost"), routes }
}

/// Reads [`EXEMPT`].
pub fn exempt(fields: &Fields<'_>, cx: &CompileCx<'_>) -> Exempt {
    let fields = fields.section("exempt");
    Exempt { members: members(&fields, cx), addresses: CidrSet::new(fields.cidrs("ips")) }
}

/// Reads `consumers` and `groups`.
pub fn members(fields: &Fields<'_>, cx: &CompileCx<'_>) -> Members {
    let known = |name: String| {
        let known = cx.consumers.by_name(&name);
        if known.is_none() {
            fields.error("consumers", Fault::new(format!("there is no consumer {name:?}")));
        }
        known
    };
    let consumers = fields.strings("consumers").into_iter().filter_map(known).collect();
    Members { consumers, groups: fields.strings("groups") }
}
