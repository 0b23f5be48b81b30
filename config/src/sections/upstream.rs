//! Tables of upstreams, targets and health checks.

use std::time::Duration;

use super::RECORD;
use crate::schema::{Entity, Key, Kind, Section, text};
use crate::units::Bare;

const STATUSES: Kind = Kind::list(&const { Kind::integer(100, 999) });
/// Kong bounds the counters of its health checker to a byte.
const COUNTER: Kind = Kind::integer(0, 255);
const INTERVAL: Kind = Kind::seconds(0, 65535);
const HASH_INPUTS: Kind =
    Kind::Word(&["none", "consumer", "ip", "header", "cookie", "path", "query_arg", "uri_capture"]);

/// An upstream (Kong `upstreams`).
pub static UPSTREAM: Section =
    Section::new("upstream", "A named group of targets that serve the same thing.", UPSTREAM_KEYS)
        .with(RECORD);

const UPSTREAM_KEYS: &[Key] = &[
    Key::new("name", Kind::Text(&text::HOST), "Unique name; a service refers to it with its `host`.")
        .required(),
    Key::new(
        "algorithm",
        Kind::Word(&[
            "round-robin",
            "least-connections",
            "consistent-hashing",
            "latency",
            "maglev",
            "two-choices",
            "random",
        ]),
        "How a target is chosen; the last three are not Kong's.",
    )
    .default("round-robin"),
    Key::new("slots", Kind::integer(10, 65536), "Size of the ring for consistent hashing.").default("10000"),
    Key::new("hash_on", HASH_INPUTS, "What a request is hashed by.").default("none"),
    Key::new("hash_fallback", HASH_INPUTS, "What it is hashed by when `hash_on` finds nothing.")
        .default("none"),
    Key::new("hash_on_header", Kind::Text(&text::HEADER_NAME), "Header for `hash_on: header`."),
    Key::new("hash_fallback_header", Kind::Text(&text::HEADER_NAME), "Header for `hash_fallback: header`."),
    Key::new(
        "hash_on_cookie",
        Kind::Text(&text::HEADER_NAME),
        "Cookie for `hash_on` or `hash_fallback: cookie`.",
    ),
    Key::new("hash_on_cookie_path", Kind::Text(&text::PATH), "`Path` of that cookie when it is set.")
        .default("/"),
    Key::new("hash_on_query_arg", Kind::NAME, "Query argument for `hash_on: query_arg`."),
    Key::new("hash_fallback_query_arg", Kind::NAME, "Query argument for `hash_fallback: query_arg`."),
    Key::new("hash_on_uri_capture", Kind::NAME, "Named group for `hash_on: uri_capture`."),
    Key::new("hash_fallback_uri_capture", Kind::NAME, "Named group for `hash_fallback: uri_capture`."),
    Key::new("host_header", Kind::Text(&text::HOST), "`Host` sent to the targets instead of their own name."),
    Key::new(
        "client_certificate",
        Kind::Reference(Entity::Certificate),
        "Certificate presented to the targets.",
    ),
    Key::new("use_srv_name", Kind::Bool, "Whether the name in a SRV record becomes `Host`.").reserved(),
    Key::new("targets", super::entities(&const { Kind::Section(&TARGET) }), "The targets."),
    Key::new("healthchecks", Kind::Section(&HEALTHCHECKS), "How targets are watched."),
    Key::new(
        "slow_start",
        Kind::duration(0, 86_400),
        "A target that is new or back takes its full share only after this; 0 at once. Not Kong's.",
    )
    .default("0s"),
    Key::new(
        "circuit_breaker",
        Kind::Section(&CIRCUIT_BREAKER),
        "Refuses requests for a while when too many fail. Not Kong's.",
    ),
    Key::new("sticky", Kind::Section(&STICKY), "Sessions that stay at their target. Not Kong's."),
];

/// Sessions of an upstream.
pub static STICKY: Section = Section::new(
    "sticky",
    "Sessions that stay at the target that served them first, while it is there and healthy.",
    &[Key::new("cookie", Kind::Section(&STICKY_COOKIE), "The cookie that names the target.").required()],
);

/// The cookie of a session; names of keys as in Traefik.
pub static STICKY_COOKIE: Section = Section::new(
    "sticky.cookie",
    "A cookie that names the target of a session, signed: one that was made or changed by somebody else is as good as none.",
    &[
        Key::new("name", Kind::Text(&text::HEADER_NAME), "Its name.").default("portcullis_target"),
        Key::new("secure", Kind::Bool, "Whether browsers send it over TLS only.").default("false"),
        Key::new("httpOnly", Kind::Bool, "Whether scripts cannot read it. Traefik's default is false.").default("true"),
        Key::new("sameSite", Kind::Word(&["none", "lax", "strict"]), "Its `SameSite`; left out: the browser's choice."),
        Key::new("maxAge", Kind::integer(0, i32::MAX as i64), "Seconds that browsers keep it; 0: until they are closed.")
            .default("0"),
        Key::new("path", Kind::Text(&text::PATH), "Its `Path`.").default("/"),
        Key::new("domain", Kind::Text(&text::HOST), "Its `Domain`; left out: the host that was asked."),
        Key::new(
            "secret",
            Kind::NAME,
            "What it is signed with. Give the same to all gateways that share clients; left out: a random key, which \
             outlives reloads but not the process. Not Traefik's.",
        )
        .secret(),
    ],
);

/// The circuit breaker of an upstream.
pub static CIRCUIT_BREAKER: Section = Section::new(
    "circuit_breaker",
    "Refuses requests (503) for a while when too many fail; off without this section.",
    &[
        Key::new("window", Kind::duration(1, 3600), "Time over which answers are counted.").default("10s"),
        Key::new(
            "min_requests",
            Kind::integer(1, 10_000),
            "Answers that must be in the window before their share counts.",
        )
        .default("20"),
        Key::new(
            "scope",
            Kind::Word(&["upstream", "target", "both"]),
            "Whether it judges the upstream as a whole, each target for itself, or both.",
        )
        .default("upstream"),
        Key::new(
            "failure_percent",
            Kind::integer(0, 100),
            "Share of failures that opens the breaker: broken connections, time-outs, and `http_statuses`; 0 never.",
        )
        .default("50"),
        Key::new("http_statuses", STATUSES, "Statuses that count as failures.").default("[500, 502, 503, 504]"),
        Key::new(
            "consecutive_failures",
            Kind::integer(0, 65_535),
            "Failures in a row that open it, whatever `min_requests`; 0 never.",
        )
        .default("0"),
        Key::new("slow_after", Kind::duration(0, 3600), "A response head that takes longer is slow; 0: none is.")
            .default("0s"),
        Key::new("slow_percent", Kind::integer(0, 100), "Share of slow answers that opens it; 0 never.")
            .default("100"),
        Key::new("open_for", Kind::duration(1, 3600), "First time open; twice as long each time in a row.")
            .default("10s"),
        Key::new("open_for_max", Kind::duration(1, 86_400), "Longest time open.").default("5m"),
        Key::new(
            "trials",
            Kind::integer(1, 255),
            "Requests let through after that time; so many good answers close the breaker, one bad opens it again.",
        )
        .default("3"),
        Key::new("status_code", Kind::integer(400, 599), "What is answered while it is open (Traefik's `responseCode`).")
            .default("503"),
    ],
);

/// A target (Kong `targets`).
pub static TARGET: Section = Section::new("target", "One address of an upstream.", TARGET_KEYS).with(RECORD);

const TARGET_KEYS: &[Key] = &[
    Key::new("target", Kind::Text(&text::TARGET), "`host:port`; the port is 8000 when left out.").required(),
    Key::new(
        "weight",
        Kind::integer(0, 65535),
        "Share of the traffic against the other targets; 0 takes none.",
    )
    .default("100"),
    Key::new("upstream", Kind::Reference(Entity::Upstream), "Whose target it is; not for a nested one."),
    Key::new(
        "backup",
        Kind::Bool,
        "Takes traffic only while every target that is no backup is out. Not Kong's.",
    )
    .default("false"),
];

/// Health checks of an upstream.
pub static HEALTHCHECKS: Section =
    Section::new("healthchecks", "How the health of targets is found out.", HEALTHCHECKS_KEYS);

const HEALTHCHECKS_KEYS: &[Key] = &[
    Key::new(
        "threshold",
        Kind::Number { min: 0.0, max: 100.0 },
        "Least healthy weight, in percent, for the upstream as a whole to take traffic; 0 asks for none.",
    )
    .default("0"),
    Key::new(
        "panic_threshold",
        Kind::integer(0, 100),
        "Below this share of healthy weight, in percent, health is taken for wrong and all targets get traffic (Envoy's \
         `healthy_panic_threshold`). 0 never does that. Not together with `threshold`, which refuses instead. Not Kong's.",
    )
    .default("0"),
    Key::new("active", Kind::Section(&ACTIVE), "Probes."),
    Key::new("passive", Kind::Section(&PASSIVE), "Watching the traffic."),
];

/// Probes.
pub static ACTIVE: Section =
    Section::new("healthchecks.active", "Probes; off until an interval is set.", ACTIVE_KEYS);

const ACTIVE_KEYS: &[Key] = &[
    Key::new("type", Kind::Word(&["http", "https", "tcp", "grpc", "grpcs"]), "What a probe is.")
        .default("http"),
    Key::new(
        "timeout",
        Kind::Duration {
            bare: Bare::Seconds,
            min: Duration::from_millis(1),
            max: Duration::from_secs(65535),
        },
        "Longest wait for an answer; a bare number is seconds.",
    )
    .default("1s"),
    Key::new("concurrency", Kind::integer(1, (1 << 31) - 1), "Most probes under way at once.").default("10"),
    Key::new("http_path", Kind::Text(&text::PATH), "Path of an HTTP probe.").default("/"),
    Key::new(
        "grpc_service",
        Kind::STRING,
        "Service that a gRPC probe asks about (grpc.health.v1); empty: the server as a whole. Not Kong's.",
    )
    .default(""),
    Key::new("https_sni", Kind::Text(&text::HOST), "Server name for an HTTPS probe."),
    Key::new("https_verify_certificate", Kind::Bool, "Whether an HTTPS probe verifies the certificate.")
        .default("true"),
    Key::new(
        "headers",
        Kind::Map { keys: &text::HEADER_NAME, of: &Kind::list(&Kind::STRING) },
        "Headers added to a probe.",
    ),
    Key::new("healthy", Kind::Section(&ACTIVE_HEALTHY), "When a target becomes healthy."),
    Key::new("unhealthy", Kind::Section(&ACTIVE_UNHEALTHY), "When a target becomes unhealthy."),
];

/// When a probed target is healthy.
pub static ACTIVE_HEALTHY: Section = Section::new(
    "healthchecks.active.healthy",
    "When a probed target becomes healthy.",
    &[
        Key::new(
            "interval",
            INTERVAL,
            "Pause between probes of a healthy target, bare seconds; 0 sends none.",
        )
        .default("0"),
        Key::new("http_statuses", STATUSES, "Statuses that count as success.").default("[200, 302]"),
        Key::new("successes", COUNTER, "Successes in a row; 0 turns the rule off.").default("0"),
    ],
);

/// When a probed target is unhealthy.
pub static ACTIVE_UNHEALTHY: Section = Section::new(
    "healthchecks.active.unhealthy",
    "When a probed target becomes unhealthy.",
    &[
        Key::new(
            "interval",
            INTERVAL,
            "Pause between probes of an unhealthy target, bare seconds; 0 sends none.",
        )
        .default("0"),
        Key::new("http_statuses", STATUSES, "Statuses that count as failure.")
            .default("[429, 404, 500, 501, 502, 503, 504, 505]"),
        Key::new("http_failures", COUNTER, "Failures by status in a row; 0 turns the rule off.").default("0"),
        Key::new("tcp_failures", COUNTER, "Failed connections in a row; 0 turns the rule off.").default("0"),
        Key::new("timeouts", COUNTER, "Timeouts in a row; 0 turns the rule off.").default("0"),
    ],
);

/// Watching the traffic.
pub static PASSIVE: Section = Section::new(
    "healthchecks.passive",
    "Watching the outcomes of real requests. On by default, unlike in Kong.",
    &[
        Key::new("type", Kind::Word(&["http", "https", "tcp", "grpc", "grpcs"]), "What is counted.").default("http"),
        Key::new("healthy", Kind::Section(&PASSIVE_HEALTHY), "When a target becomes healthy."),
        Key::new("unhealthy", Kind::Section(&PASSIVE_UNHEALTHY), "When a target becomes unhealthy."),
        Key::new(
            "eject_for",
            Kind::duration(0, 86_400),
            "How long an unhealthy target stays out before a trial request; longer each time in a row. 0 keeps it out \
             until a probe lets it in, as Kong does. Not Kong's.",
        )
        .default("30s")
        .kong_default("0s"),
        Key::new(
            "max_ejected_percent",
            Kind::integer(0, 100),
            "Largest share of the targets that may be out at once, in percent. Not Kong's.",
        )
        .default("50")
        .kong_default("100"),
    ],
);

/// When a watched target is healthy.
pub static PASSIVE_HEALTHY: Section = Section::new(
    "healthchecks.passive.healthy",
    "When a watched target becomes healthy.",
    &[
        Key::new("http_statuses", STATUSES, "Statuses that count as success.").default(
            "[200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 306, 307, 308]",
        ),
        Key::new("successes", COUNTER, "Successes in a row; 0 turns the rule off.").default("0"),
    ],
);

/// When a watched target is unhealthy.
pub static PASSIVE_UNHEALTHY: Section = Section::new(
    "healthchecks.passive.unhealthy",
    "When a watched target becomes unhealthy.",
    &[
        Key::new("http_statuses", STATUSES, "Statuses that count as failure.")
            .default("[500, 502, 503, 504]")
            .kong_default("[429, 500, 503]"),
        Key::new("http_failures", COUNTER, "Failures by status in a row; 0 turns the rule off.")
            .default("5")
            .kong_default("0"),
        Key::new("tcp_failures", COUNTER, "Failed connections in a row; 0 turns the rule off.")
            .default("5")
            .kong_default("0"),
        Key::new("timeouts", COUNTER, "Timeouts in a row; 0 turns the rule off.")
            .default("5")
            .kong_default("0"),
    ],
);
