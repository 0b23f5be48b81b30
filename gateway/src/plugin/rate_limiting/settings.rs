//! The keys of `rate-limiting`, which are Kong's, and what is wrong with their values.

use std::sync::Arc;

use portcullis_config::{self as config, Diagnostics, Fault, Fields, Key, Kind, Section};

use crate::limit::{Algorithm, Limiter, LimiterId, Period, Quota, Span, WindowError, WindowLimiter};
use crate::plugin::limiting::settings::StoreKeys;
use crate::plugin::limiting::{LimitFields, LimitKey, Limits, Members, Tier, key, settings, told};
use crate::plugin::{CompileCx, PluginSpec, redis};

const WINDOW: Kind = Kind::Integer { min: 1, max: i64::MAX };

pub(super) static RATE_LIMITING: Section = Section::new(
    "rate-limiting",
    "Limits the number of requests in fixed windows of time. Several windows hold together.",
    KEYS,
)
.with(redis::SHORTHANDS);

const KEYS: &[Key] = &[
    Key::new("second", WINDOW, "Requests in each second."),
    Key::new("minute", WINDOW, "Requests in each minute."),
    Key::new("hour", WINDOW, "Requests in each hour."),
    Key::new("day", WINDOW, "Requests in each day, UTC."),
    Key::new("month", WINDOW, "Requests in each calendar month, UTC."),
    Key::new("year", WINDOW, "Requests in each calendar year, UTC."),
    Key::new(
        "limit_by",
        Kind::Word(key::WORDS),
        "Whose requests are counted together. A request that lacks it is counted by its client address; an IPv6 \
         address by its /64.",
    )
    .default("consumer"),
    key::KEYS[0],
    key::KEYS[1],
    key::KEYS[2],
    key::KEYS[3],
    Key::new(
        "policy",
        Kind::Word(&["local", "cluster", "redis"]),
        "Where counts are kept. All shards of a gateway share theirs; all gateways share those in `redis`; with \
         `cluster` each gateway counts by itself.",
    )
    .default("local"),
    settings::FAULT_TOLERANT,
    Key::new("hide_client_headers", Kind::Bool, "Whether the response headers about limits are left out.")
        .default("false"),
    told::CLIENT_HEADERS,
    settings::DRY_RUN,
    settings::COST,
    settings::ROUTE_COSTS,
    settings::EXEMPT,
    Key::new("error_code", Kind::integer(200, 599), "Status of a refusal.").default("429"),
    Key::new("error_message", Kind::STRING, "Message of a refusal.").default("API rate limit exceeded"),
    Key::new(
        "sync_rate",
        Kind::Number { min: -1.0, max: 86_400.0 },
        "Seconds between two exchanges with Redis, at least 0.02; -1 for one at each request. Between two exchanges \
         several gateways may together admit more than the limit.",
    )
    .default("-1"),
    Key::new("redis", Kind::Section(&redis::KONG), "The Redis of `policy: redis`."),
];

/// Compiles an instance. Every mistake is reported, not the first only.
pub(super) fn compile(
    plugin: &config::Plugin,
    cx: &CompileCx<'_>,
    found: &Diagnostics,
) -> Option<Arc<dyn PluginSpec>> {
    let fields = plugin.fields(&RATE_LIMITING, found);
    let limit_by = LimitKey::read(&fields, "limit_by", &[fields.word("limit_by")], true);
    let windows = limits(&fields)?;
    let quotas = windows.limits().iter().map(|&(span, limit)| Quota { span, limit, burst: limit });
    let limiter = Limiter::new(Algorithm::FixedWindow, quotas.collect(), false).ok()?;
    let namespace = format!("{:016x}", cx.instance);
    let keys = StoreKeys { policy: "policy", strict: -1.0, shorthands: true };
    let store = settings::store(&fields, &keys, namespace, Algorithm::FixedWindow, cx.config);
    let tier = Tier {
        members: Members::default(),
        alone: settings::part(&limiter, store.as_ref().map_or(1, |store| store.gateways)),
        fields: LimitFields::read(&fields, windows.limits()),
        limiter,
    };
    Some(Arc::new(Limits {
        id: LimiterId::from_number(cx.instance),
        tiers: vec![tier],
        key: limit_by?,
        exempt: settings::exempt(&fields, cx),
        cost: settings::cost(&fields, cx),
        dry_run: fields.bool("dry_run"),
        status: fields.integer("error_code"),
        message: fields.string("error_message").into(),
        jitter: 0,
        logs: Arc::new(vec![Vec::new()]),
        store,
    }))
}

fn limits(fields: &Fields<'_>) -> Option<WindowLimiter> {
    let limit = |period: Period| Some((period, fields.optional_integer::<u64>(period.as_str())?));
    let limits: Vec<_> = Period::ALL.into_iter().filter_map(limit).collect();
    match WindowLimiter::new(limits.iter().copied()) {
        Ok(limiter) => Some(limiter),
        Err(error) => {
            refuse_limits(fields, &limits, &error);
            None
        }
    }
}

fn refuse_limits(fields: &Fields<'_>, limits: &[(Period, u64)], error: &WindowError) {
    let limit =
        |span: Span| limits.iter().find(|(p, _)| Span::from(*p) == span).map_or(0, |(_, limit)| *limit);
    match *error {
        // A misspelt or malformed one is reported already.
        WindowError::Empty
            if fields.has_unknown_keys() || Period::ALL.iter().any(|p| fields.is_set(p.as_str())) => {}
        WindowError::Empty => {
            let names = Period::ALL.map(|period| format!("'{period}'")).join(", ");
            let fault = Fault::new(format!("at least one of these fields must be non-empty: {names}"));
            let origin = fields.origin();
            fields.diagnostics().error(origin.span, &origin.path, fault);
        }
        WindowError::Shrinking { longer, shorter } => fields.error(
            &longer.to_string(),
            Fault::new(format!(
                "The limit for {longer}({}) cannot be lower than the limit for {shorter}({})",
                limit(longer),
                limit(shorter)
            ))
            .hint(format!("no {longer} would see more than {} requests anyway", limit(longer))),
        ),
        WindowError::TooMany => fields.error("second", error.to_string()),
        WindowError::Duplicate(period) | WindowError::Zero(period) | WindowError::TooHigh(period, _) => {
            fields.error(&period.to_string(), error.to_string());
        }
    }
}
