//! The keys of `rate-limiting-advanced`, and what is wrong with their values.

use std::sync::Arc;
use std::time::Duration;

use portcullis_config::units::Bare;
use portcullis_config::{self as config, Diagnostics, Fault, Fields, Key, Kind, Section};

use crate::limit::{Algorithm, Limiter, LimiterId, Quota, Span, WINDOWS_MAX};
use crate::plugin::limiting::settings::StoreKeys;
use crate::plugin::limiting::{LimitFields, LimitKey, Limits, Members, Tier, key, settings, told};
use crate::plugin::{CompileCx, PluginSpec, redis};

const LIMIT: &Kind = &Kind::Integer { min: 1, max: 1 << 53 };
const WINDOW: &Kind = &Kind::Duration {
    bare: Bare::Seconds,
    min: Duration::from_millis(1),
    max: Duration::from_secs(86_400 * 366),
};
const TIERS: &Kind = &Kind::Section(&TIER);
const LIMITS: Kind = Kind::List { of: LIMIT, max: WINDOWS_MAX };
const BURSTS: Kind = Kind::List { of: &Kind::Integer { min: 0, max: 1 << 32 }, max: WINDOWS_MAX };
const WINDOWS: Kind = Kind::List { of: WINDOW, max: WINDOWS_MAX };

pub(super) static SECTION: Section = Section::new(
    "rate-limiting-advanced",
    "Limits the number of requests in windows of any length, by one of five strategies. Several windows hold together.",
    KEYS,
);

const KEYS: &[Key] = &[
    Key::new("limit", LIMITS, "Requests in a window, one for each of `window_size`.").required(),
    Key::new("window_size", WINDOWS, "Lengths of the windows; a bare number is seconds.").required(),
    Key::new(
        "window_type",
        Kind::Word(&["fixed", "sliding"]),
        "`fixed`: windows begin at multiples of their length. `sliding`: the window before counts by its share of the \
         last span.",
    )
    .default("sliding"),
    Key::new(
        "algorithm",
        Kind::Word(&["fixed_window", "sliding_counter", "sliding_log", "token_bucket", "leaky_bucket"]),
        "How requests are counted, beyond Kong's `window_type`: `sliding_log` is exact in any span, for limits up to \
         10000; `token_bucket` lets `burst` pass at once; `leaky_bucket` lets requests wait for their turn.",
    ),
    Key::new(
        "burst",
        BURSTS,
        "Requests at once after a pause (`token_bucket`) or that may wait (`leaky_bucket`), one for each of \
         `window_size`; without it the `limit`.",
    ),
    Key::new(
        "disable_penalty",
        Kind::Bool,
        "Whether a refused request does not count. It does otherwise where windows slide by two counts.",
    )
    .default("false"),
    Key::new(
        "log_entries",
        Kind::integer(1, 1 << 26),
        "Room of a `sliding_log`, in requests of all keys together. Keys beyond it are counted by `sliding_counter`.",
    )
    .default("262144"),
    Key::new(
        "identifier",
        Kind::Word(key::WORDS),
        "Whose requests are counted together. A request that lacks it is counted by its client address; an IPv6 \
         address by its /64.",
    )
    .default("consumer"),
    key::COMPOUND,
    key::KEYS[0],
    key::KEYS[1],
    key::KEYS[2],
    key::KEYS[3],
    Key::new("tiers", Kind::list(TIERS), "Limits of their own for some; the first that fits holds."),
    settings::COST,
    settings::ROUTE_COSTS,
    settings::EXEMPT,
    settings::DRY_RUN,
    Key::new(
        "strategy",
        Kind::Word(&["local", "cluster", "redis"]),
        "Where counts are kept. All shards of a gateway share theirs; all gateways share those in `redis`; with \
         `cluster` each gateway counts by itself.",
    )
    .default("local"),
    Key::new("redis", Kind::Section(&redis::ADVANCED), "The Redis of `strategy: redis`."),
    Key::new(
        "sync_rate",
        Kind::Number { min: -1.0, max: 86_400.0 },
        "Seconds between two exchanges with Redis, at least 0.02; 0 for one at each request, -1 for none. Between two \
         exchanges several gateways may together admit more than the limit.",
    ),
    settings::FAULT_TOLERANT,
    Key::new("namespace", Kind::NAME, "Instances with the same namespace share their counts, also in Redis."),
    Key::new("hide_client_headers", Kind::Bool, "Whether the response headers about limits are left out.")
        .default("false"),
    told::CLIENT_HEADERS,
    Key::new(
        "retry_after_jitter_max",
        Kind::integer(0, 86_400),
        "Most seconds that are added to `Retry-After` at random, so that not all come back at once.",
    )
    .default("0"),
    Key::new("error_code", Kind::integer(200, 599), "Status of a refusal.").default("429"),
    Key::new("error_message", Kind::STRING, "Message of a refusal.").default("API rate limit exceeded"),
    Key::new("dictionary_name", Kind::NAME, "Kong's shared dictionary.").ignored(),
    Key::new("lock_dictionary_name", Kind::NAME, "Kong's shared dictionary for locks.").ignored(),
    Key::new("enforce_consumer_groups", Kind::Bool, "Kong's limits of consumer groups; see `tiers`.").reserved(),
    Key::new("consumer_groups", Kind::STRINGS, "The groups that they are of; see `tiers`.").reserved(),
];

static TIER: Section = Section::new(
    "limit.tier",
    "Limits of their own for consumers and groups.",
    &[
        Key::new("consumers", Kind::STRINGS, "Consumers, by username or id.").default("[]"),
        Key::new("groups", Kind::STRINGS, "Groups of consumers, of `acls` or `consumer_groups`.")
            .default("[]"),
        Key::new("limit", LIMITS, "Requests in a window.").required(),
        Key::new("window_size", WINDOWS, "Lengths of the windows; those of the plugin if left out."),
        Key::new("burst", BURSTS, "As the plugin's."),
    ],
);

/// Compiles an instance. Every mistake is reported, not the first only.
pub(super) fn compile(
    plugin: &config::Plugin,
    cx: &CompileCx<'_>,
    found: &Diagnostics,
) -> Option<Arc<dyn PluginSpec>> {
    let fields = plugin.fields(&SECTION, found);
    let words = match fields.words("compound_identifier") {
        words if words.is_empty() => vec![fields.word("identifier")],
        words => words,
    };
    let key_name = if fields.is_set("compound_identifier") { "compound_identifier" } else { "identifier" };
    let key = LimitKey::read(&fields, key_name, &words, false);
    let algorithm = algorithm(&fields);
    let namespace = fields.optional_string("namespace");
    let keys = StoreKeys { policy: "strategy", strict: 0.0, shorthands: false };
    let shared = namespace.clone().unwrap_or_else(|| format!("{:016x}", cx.instance));
    let store = settings::store(&fields, &keys, shared, algorithm, cx.config);
    let gateways = store.as_ref().map_or(1, |store| store.gateways);
    let mut tiers = vec![tier(&fields, &fields, algorithm, Members::default(), gateways)];
    for own in fields.sections("tiers") {
        let members = settings::members(&own, cx);
        if members.consumers.is_empty() && members.groups.is_empty() {
            own.error("limit", Fault::new("the tier is nobody's").hint("give it `consumers` or `groups`"));
        }
        tiers.push(tier(&fields, &own, algorithm, members, gateways));
    }
    let tiers: Vec<Tier> = tiers.into_iter().collect::<Option<_>>()?;
    let logs = tiers.iter().map(|tier| tier.limiter.logs(fields.integer("log_entries"))).collect();
    let id = namespace.map_or(LimiterId::from_number(cx.instance), |name| {
        LimiterId::of(&format!("rate-limiting-advanced/{name}"))
    });
    Some(Arc::new(Limits {
        id,
        tiers,
        key: key?,
        exempt: settings::exempt(&fields, cx),
        cost: settings::cost(&fields, cx),
        dry_run: fields.bool("dry_run"),
        status: fields.integer("error_code"),
        message: fields.string("error_message").into(),
        jitter: fields.integer("retry_after_jitter_max"),
        logs: Arc::new(logs),
        store,
    }))
}

fn algorithm(fields: &Fields<'_>) -> Algorithm {
    match (fields.optional_word("algorithm"), fields.word("window_type")) {
        (Some("fixed_window"), _) | (None, "fixed") => Algorithm::FixedWindow,
        (Some("sliding_log"), _) => Algorithm::SlidingLog,
        (Some("token_bucket"), _) => Algorithm::TokenBucket,
        (Some("leaky_bucket"), _) => Algorithm::LeakyBucket,
        _ => Algorithm::SlidingCounter,
    }
}

/// The limit of the plugin itself, or of one of its tiers.
fn tier(
    plugin: &Fields<'_>,
    own: &Fields<'_>,
    algorithm: Algorithm,
    members: Members,
    gateways: u64,
) -> Option<Tier> {
    let limits: Vec<u64> = own.integers("limit");
    let mut spans = own.durations("window_size");
    if spans.is_empty() {
        spans = plugin.durations("window_size");
    }
    let bursts: Vec<u64> = own.integers("burst");
    if limits.is_empty() || spans.is_empty() {
        return None; // said already
    }
    if limits.len() != spans.len() {
        own.error("limit", Fault::new("You must provide the same number of windows and limits"));
        return None;
    }
    if !bursts.is_empty() && bursts.len() != limits.len() {
        own.error("burst", Fault::new("there must be as many bursts as windows"));
        return None;
    }
    let quota = |(index, (limit, span)): (usize, (&u64, &Duration))| Quota {
        span: Span::Every(span.as_nanos() as u64),
        limit: *limit,
        burst: bursts.get(index).copied().unwrap_or(*limit),
    };
    let quotas = limits.iter().zip(&spans).enumerate().map(quota).collect();
    match Limiter::new(algorithm, quotas, !plugin.bool("disable_penalty")) {
        Ok(limiter) => {
            let windows: Vec<_> = limiter.quotas().iter().map(|quota| (quota.span, quota.limit)).collect();
            let alone = settings::part(&limiter, gateways);
            Some(Tier { members, fields: LimitFields::read(plugin, &windows), alone, limiter })
        }
        Err(error) => {
            own.error("limit", error.to_string());
            None
        }
    }
}
