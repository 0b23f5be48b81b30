//! The keys of `rate-limiting`, which are Kong's, and what is wrong with their values.

use std::sync::Arc;

use portcullis_config::{self as config, Diagnostics, Fault, Fields, Key, Kind, Section, schema::text};

use super::{LimitBy, LimitFields, RateLimiting};
use crate::http::{FieldName, Head};
use crate::limit::{LimiterId, Period, WindowError, WindowLimiter};
use crate::plugin::{CompileCx, PluginSpec};

const WINDOW: Kind = Kind::Integer { min: 1, max: i64::MAX };

pub(super) static RATE_LIMITING: Section = Section::new(
    "rate-limiting",
    "Limits the number of requests in fixed windows of time. Several windows hold together.",
    KEYS,
)
.with(REDIS_SHORTHANDS);

const KEYS: &[Key] = &[
    Key::new("second", WINDOW, "Requests in each second."),
    Key::new("minute", WINDOW, "Requests in each minute."),
    Key::new("hour", WINDOW, "Requests in each hour."),
    Key::new("day", WINDOW, "Requests in each day, UTC."),
    Key::new("month", WINDOW, "Requests in each calendar month, UTC."),
    Key::new("year", WINDOW, "Requests in each calendar year, UTC."),
    Key::new(
        "limit_by",
        Kind::Word(&["consumer", "credential", "ip", "service", "header", "path"]),
        "Whose requests are counted together. A request that lacks it is counted by its client address; an IPv6 \
         address by its /64.",
    )
    .default("consumer"),
    Key::new("header_name", Kind::Text(&text::HEADER_NAME), "The header for `limit_by: header`."),
    Key::new(
        "path",
        Kind::Text(&text::PATH),
        "The path for `limit_by: path`; requests for another are counted by address.",
    ),
    Key::new(
        "policy",
        Kind::Word(&["local", "cluster", "redis"]),
        "Where counts are kept. All shards of a gateway share theirs; `cluster` and `redis` count in each gateway by \
         itself for now.",
    )
    .default("local"),
    Key::new(
        "fault_tolerant",
        Kind::Bool,
        "Whether requests pass when the place of the counts does not answer. The local one always does.",
    )
    .default("true"),
    Key::new("hide_client_headers", Kind::Bool, "Whether the response headers about limits are left out.")
        .default("false"),
    Key::new("error_code", Kind::integer(200, 599), "Status of a refusal.").default("429"),
    Key::new("error_message", Kind::STRING, "Message of a refusal.").default("API rate limit exceeded"),
    Key::new(
        "sync_rate",
        Kind::Number { min: -1.0, max: 86_400.0 },
        "Seconds between two exchanges with Redis; -1 for one at each request.",
    )
    .default("-1"),
    Key::new("redis", Kind::Section(&REDIS), "The Redis of `policy: redis`.").reserved(),
];

static REDIS: Section = Section::new(
    "rate-limiting.redis",
    "A Redis server.",
    &[
        Key::new("host", Kind::Text(&text::HOST), "Where it is."),
        Key::new("port", Kind::PORT, "Its port.").default("6379"),
        Key::new("timeout", Kind::TIMEOUT, "Longest wait for it; a bare number is milliseconds.")
            .default("2s"),
        Key::new("username", Kind::STRING, "Who we are to it."),
        Key::new("password", Kind::STRING, "Its password.").secret(),
        Key::new("database", Kind::integer(0, i32::MAX as i64), "Number of the database.").default("0"),
        Key::new("ssl", Kind::Bool, "Whether to speak TLS.").default("false"),
        Key::new("ssl_verify", Kind::Bool, "Whether to verify its certificate.").default("false"),
        Key::new("server_name", Kind::Text(&text::HOST), "The name to verify."),
    ],
);

/// Kong's keys from before there was a `redis` section.
const REDIS_SHORTHANDS: &[Key] = &[
    Key::new("redis_host", Kind::Text(&text::HOST), "See `redis.host`.")
        .deprecated("write `redis: {host: ..}`"),
    Key::new("redis_port", Kind::PORT, "See `redis.port`.").deprecated("write `redis: {port: ..}`"),
    Key::new("redis_timeout", Kind::TIMEOUT, "See `redis.timeout`.")
        .deprecated("write `redis: {timeout: ..}`"),
    Key::new("redis_username", Kind::STRING, "See `redis.username`.")
        .deprecated("write `redis: {username: ..}`"),
    Key::new("redis_password", Kind::STRING, "See `redis.password`.")
        .secret()
        .deprecated("write `redis: {password: ..}`"),
    Key::new("redis_database", Kind::integer(0, i32::MAX as i64), "See `redis.database`.")
        .deprecated("write `redis: {database: ..}`"),
    Key::new("redis_ssl", Kind::Bool, "See `redis.ssl`.").deprecated("write `redis: {ssl: ..}`"),
    Key::new("redis_ssl_verify", Kind::Bool, "See `redis.ssl_verify`.")
        .deprecated("write `redis: {ssl_verify: ..}`"),
    Key::new("redis_server_name", Kind::Text(&text::HOST), "See `redis.server_name`.")
        .deprecated("write `redis: {server_name: ..}`"),
];

/// Compiles an instance. Every mistake is reported, not the first only.
pub(super) fn compile(
    plugin: &config::Plugin,
    cx: &CompileCx<'_>,
    found: &Diagnostics,
) -> Option<Arc<dyn PluginSpec>> {
    let fields = plugin.fields(&RATE_LIMITING, found);
    check_store(&fields);
    let limit_by = limit_by(&fields);
    let limiter = limiter(&fields)?;
    Some(Arc::new(RateLimiting {
        id: LimiterId::from_number(cx.instance),
        fields: (!fields.bool("hide_client_headers")).then(|| LimitFields::new(&limiter)),
        limiter,
        limit_by: limit_by?,
        status: fields.integer("error_code"),
        message: fields.string("error_message").into(),
    }))
}

fn limiter(fields: &Fields<'_>) -> Option<WindowLimiter> {
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
    let limit = |period: Period| limits.iter().find(|(p, _)| *p == period).map_or(0, |(_, limit)| *limit);
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
            longer.as_str(),
            Fault::new(format!(
                "The limit for {longer}({}) cannot be lower than the limit for {shorter}({})",
                limit(longer),
                limit(shorter)
            ))
            .hint(format!("no {longer} would see more than {} requests anyway", limit(longer))),
        ),
        WindowError::Duplicate(period) | WindowError::Zero(period) | WindowError::TooHigh(period, _) => {
            fields.error(period.as_str(), error.to_string());
        }
    }
}

fn limit_by(fields: &Fields<'_>) -> Option<LimitBy> {
    let missing = |key: &str, word: &str| {
        if !fields.is_set(key) && !fields.has_unknown_keys() {
            fields.error("limit_by", Fault::new(format!("`limit_by: {word}` needs `{key}`")));
        }
    };
    Some(match fields.word("limit_by") {
        "credential" => LimitBy::Credential,
        "ip" => LimitBy::Ip,
        "service" => LimitBy::Service,
        "header" => {
            let name = fields.optional_string("header_name").and_then(FieldName::new);
            if name.is_none() {
                missing("header_name", "header");
            }
            LimitBy::Header(name?)
        }
        "path" => {
            let path = fields.optional_string("path");
            if path.is_none() {
                missing("path", "path");
            }
            LimitBy::Path(path?.into_bytes().into())
        }
        _ => LimitBy::Consumer,
    })
}

/// What concerns counts that several gateways share, of which there are none yet.
fn check_store(fields: &Fields<'_>) {
    let policy = fields.word("policy");
    if policy != "local" {
        let fault =
            Fault::new(format!("`policy: {policy}` is accepted, but each gateway counts by itself for now"));
        fields.warning("policy", fault.hint("with n gateways a client gets up to n times the limit"));
    }
    let rate = fields.number("sync_rate");
    if rate != -1.0 && policy != "redis" {
        fields.error("sync_rate", "sync_rate can only be used with redis policy");
    } else if rate != -1.0 && rate < 0.02 {
        fields.error("sync_rate", "sync_rate must be at least 0.02, or -1");
    }
    let host = fields.section("redis").is_set("host") || fields.is_set("redis_host");
    if policy == "redis" && !host {
        fields.error("policy", Fault::new("`policy: redis` needs `redis.host`"));
    }
}

impl LimitFields {
    fn new(limiter: &WindowLimiter) -> Self {
        let mut constant = Head::new();
        let mut remaining = Vec::new();
        for (period, limit) in limiter.limits() {
            let window = match period {
                Period::Second => "Second",
                Period::Minute => "Minute",
                Period::Hour => "Hour",
                Period::Day => "Day",
                Period::Month => "Month",
                Period::Year => "Year",
            };
            constant.append_number(format!("X-RateLimit-Limit-{window}"), *limit);
            remaining.push(name(&format!("X-RateLimit-Remaining-{window}")));
        }
        Self {
            constant,
            remaining: remaining.into(),
            tightest_limit: name("RateLimit-Limit"),
            tightest_remaining: name("RateLimit-Remaining"),
            tightest_reset: name("RateLimit-Reset"),
            retry_after: name("Retry-After"),
        }
    }
}

fn name(text: &str) -> FieldName {
    FieldName::new(text).expect("letters and dashes are a token")
}
