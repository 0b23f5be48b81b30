//! Tables of services, routes and plugins.

use super::{OWN_TIMEOUTS, RECORD};
use crate::model::Protocol;
use crate::schema::{Entity, Key, Kind, Section, text};

const PROTOCOL: Kind = Kind::Word(&Protocol::WORDS);

/// A service (Kong `services`).
pub static SERVICE: Section =
    Section::new("service", "An upstream API and how to talk to it.", SERVICE_KEYS).with(RECORD);

const SERVICE_KEYS: &[Key] = &[
    Key::new("name", Kind::NAME, "Unique name."),
    Key::new(
        "url",
        Kind::Text(&text::URL),
        "Shorthand for `protocol`, `host`, `port` and `path`, as in `http://10.0.0.1:9000/base`.",
    ),
    Key::new(
        "protocol",
        PROTOCOL,
        "How to speak to the targets. Others than http, https, grpc, grpcs and tls_passthrough are kept for later.",
    )
    .default("http"),
    Key::new(
        "http_version",
        Kind::Word(&["1.1", "2", "auto"]),
        "The HTTP spoken to the targets: `2` by ALPN over TLS and without negotiation otherwise; `auto` leaves it to ALPN. \
         Left out: `2` for grpc and grpcs, else `1.1`.",
    ),
    Key::new("host", Kind::Text(&text::HOST), "The name of an upstream, else a DNS name or address."),
    Key::new(
        "port",
        Kind::PORT,
        "Port, unless `host` is an upstream. Left out: 443 for protocols with TLS, else 80; Kong takes 80 always.",
    ),
    Key::new("path", Kind::Text(&text::PATH), "Put before the path of each request."),
    Key::new(
        "connect_timeout",
        Kind::TIMEOUT,
        "Longest wait for a connection; a bare number is milliseconds. Left out: `timeouts.connect`.",
    ),
    Key::new(
        "write_timeout",
        Kind::TIMEOUT,
        "Longest pause while sending the request; a bare number is milliseconds. Left out: `timeouts.upstream_write`.",
    ),
    Key::new(
        "read_timeout",
        Kind::TIMEOUT,
        "Longest wait for the response to begin or go on; a bare number is milliseconds. Left out: \
         `timeouts.first_byte` for its beginning and `timeouts.upstream_body_idle` after.",
    ),
    Key::new(
        "retries",
        Kind::integer(0, 32767),
        "Further attempts after a failed one, when the request may be repeated.",
    )
    .default("1")
    .kong_default("5"),
    Key::new("retry_policy", Kind::Section(&RETRY_POLICY), "When there is another attempt. Not Kong's."),
    Key::new(
        "timeouts",
        Kind::Section(&OWN_TIMEOUTS),
        "Further bounds on time for this service. Not Kong's.",
    ),
    Key::new(
        "request_trailers",
        Kind::Bool,
        "Whether the targets are sent the trailer fields of chunked requests. Some servers take them for headers, so they are \
         sent only where that is known to be right. Fields that say anything about framing, routing or credentials are never \
         sent. Not Kong's.",
    )
    .default("false"),
    Key::new("enabled", Kind::Bool, "A disabled service takes its routes out of service too.")
        .default("true"),
    Key::new("tls_verify", Kind::Bool, "Whether the certificates of targets are verified.")
        .default("true")
        .kong_default("false"),
    Key::new(
        "tls_verify_depth",
        Kind::integer(0, 64),
        "Most certificates between a target's and the authority's; a chain with more is refused.",
    ),
    Key::new(
        "tls_sni",
        Kind::Text(&text::HOST),
        "Server name that targets are asked for and whose certificate they must have. Left out: the name or address of \
         the target. Not Kong's.",
    ),
    Key::new(
        "tls_sans",
        Kind::Section(&TLS_SANS),
        "Names of which a target's certificate must have one, in place of the server name.",
    ),
    Key::new(
        "proxy_protocol",
        Kind::Word(&["off", "v1", "v2"]),
        "Whether each connection to a target begins with a PROXY header that names the client. Such a connection serves \
         one client only. Not Kong's.",
    )
    .default("off"),
    Key::new(
        "ca_certificates",
        Kind::list(&const { Kind::Reference(Entity::CaCertificate) }),
        "Authorities to verify against; left out: those of the system.",
    ),
    Key::new(
        "client_certificate",
        Kind::Reference(Entity::Certificate),
        "Certificate presented to targets that ask for one.",
    ),
    Key::new("routes", super::entities(&const { Kind::Section(&ROUTE) }), "Routes to this service."),
    Key::new(
        "plugins",
        super::entities(&const { Kind::Section(&PLUGIN) }),
        "Plugins for all requests to this service.",
    ),
];

/// When there is another attempt; names of keys as in Envoy.
pub static RETRY_POLICY: Section = Section::new(
    "retry_policy",
    "When a failed attempt is followed by another, up to `retries`. Never where the target may have acted on a request \
     whose method is not idempotent, where part of the body is gone, or past `limits.retry_budget_percent`.",
    &[
        Key::new(
            "retry_on",
            Kind::list(
                &const {
                    Kind::Word(&[
                        "connect-failure",
                        "refused-stream",
                        "reset",
                        "timeout",
                        "bad-response",
                        "gateway-error",
                        "5xx",
                    ])
                },
            ),
            "What is tried again: no connection; a stream that the target refused unseen; a connection that ended before the \
             response; no response in time; one that is malformed; 502, 503 and 504; or all of these and every 5xx.",
        )
        .default("[connect-failure, refused-stream, reset]"),
        Key::new(
            "retriable_status_codes",
            Kind::list(&const { Kind::integer(400, 599) }),
            "Statuses that are tried again, beside those of `retry_on`.",
        )
        .default("[]"),
        Key::new(
            "per_try_timeout",
            Kind::duration(0, 3600),
            "Longest that one attempt may take to the head of its response. Left out: only the timeouts of the service hold.",
        ),
        Key::new("retry_back_off", Kind::Section(&RETRY_BACK_OFF), "The pause before another attempt."),
        Key::new(
            "retry_non_idempotent",
            Kind::Bool,
            "Whether requests of every method are repeated. Only for targets that know duplicates.",
        )
        .default("false"),
    ],
);

/// The pause before another attempt.
pub static RETRY_BACK_OFF: Section = Section::new(
    "retry_policy.retry_back_off",
    "The pause before another attempt is random, from nothing up to `base_interval`, which doubles with each attempt.",
    &[
        Key::new("base_interval", Kind::duration(0, 60), "Bound of the first pause; 0: none is made.")
            .default("25ms"),
        Key::new("max_interval", Kind::duration(0, 60), "Bound of any pause.").default("250ms"),
    ],
);

/// Names in certificates of targets (Kong `tls_sans`).
pub static TLS_SANS: Section = Section::new(
    "service.tls_sans",
    "Subject alternative names of which a target's certificate must have one.",
    &[
        Key::new("dnsnames", Kind::list(&const { Kind::Text(&text::HOST) }), "DNS names.").default("[]"),
        Key::new("uris", Kind::STRINGS, "URIs, such as SPIFFE identities.").default("[]"),
    ],
);

/// A route (Kong `routes`).
pub static ROUTE: Section = Section::new(
    "route",
    "Which requests go to a service. A request must meet every kind of condition that is given.",
    ROUTE_KEYS,
)
.with(RECORD);

const ROUTE_KEYS: &[Key] = &[
    Key::new("name", Kind::NAME, "Unique name."),
    Key::new("service", Kind::Reference(Entity::Service), "Where requests go; not for a nested route."),
    Key::new("protocols", Kind::list(&PROTOCOL), "Protocols that the client may use.").default("[http, https]"),
    Key::new(
        "hosts",
        Kind::list(&const { Kind::Text(&text::HOST_PATTERN) }),
        "Host names, with an optional port; `*` may stand for the first or the last label.",
    ),
    Key::new(
        "paths",
        Kind::list(&const { Kind::Text(&text::PATH_PATTERN) }),
        "Path prefixes such as `/api`, or regular expressions such as `~/v\\d+/users$`.",
    ),
    Key::new("methods", Kind::list(&const { Kind::Text(&text::METHOD) }), "Methods, in upper case."),
    Key::new(
        "headers",
        Kind::Map { keys: &text::HEADER_NAME, of: &Kind::list(&Kind::STRING) },
        "Headers and the values they may have; a single value that begins with `~*` is a regular expression.",
    ),
    Key::new(
        "snis",
        Kind::list(&const { Kind::Text(&text::HOST_PATTERN) }),
        "Server names of the TLS handshake; only TLS connections are held to them.",
    ),
    Key::new("strip_path", Kind::Bool, "Whether the matched prefix is cut off before the request is sent on.")
        .default("true"),
    Key::new("preserve_host", Kind::Bool, "Whether the client's `Host` is sent on instead of the target's.")
        .default("false"),
    Key::new("regex_priority", Kind::integer(-1 << 31, (1 << 31) - 1), "Order among regular expressions, higher first.")
        .default("0"),
    Key::new("path_handling", Kind::Word(&["v0", "v1"]), "How service path and request path are joined.").default("v0"),
    Key::new(
        "https_redirect_status_code",
        Kind::Word(&["426", "301", "302", "307", "308"]),
        "Answer to plain HTTP on a route that allows only TLS.",
    )
    .default("426"),
    Key::new(
        "request_buffering",
        Kind::Bool,
        "Whether a request body is held whole before it is sent on, up to `limits.buffered_body`. Streamed with `defaults: kong` all the same.",
    )
    .default("false")
    .kong_default("true"),
    Key::new(
        "response_buffering",
        Kind::Bool,
        "Whether a response body is held whole before it is sent on, up to `limits.buffered_body`. Streamed with `defaults: kong` all the same.",
    )
    .default("false")
    .kong_default("true"),
    Key::new("body_limit", Kind::Size { min: 0, max: 1 << 50 }, "Largest request body; 0 sets no limit. Left out: \
         `limits.body`. Not Kong's; there it takes the request-size-limiting plugin."),
    Key::new("buffered_body", super::runtime::BUFFER, "Body held in memory for a plugin that needs the whole, or for \
         `request_buffering` and `response_buffering`; more is 413 or 502. Left out: `limits.buffered_body`. Not Kong's."),
    Key::new("min_rate", super::runtime::MIN_RATE, "Least bytes a second that a client must send of a request body, or take \
         of a response; 0 sets none. Left out: `limits.min_rate`. Not Kong's."),
    Key::new("min_rate_after", super::runtime::MIN_RATE_AFTER, "Time that a request body has before `min_rate` is asked of \
         it. Left out: `limits.min_rate_after`. Not Kong's."),
    Key::new("timeouts", Kind::Section(&OWN_TIMEOUTS), "Bounds on time for this route. Not Kong's."),
    Key::new("cost", Kind::COUNT, "Tokens that a request takes from the bucket of its source. Left out: \
         `xdp.costs.request`. Not Kong's."),
    Key::new("plugins", super::entities(&const { Kind::Section(&PLUGIN) }), "Plugins for requests of this route."),
    Key::new("expression", Kind::STRING, "Kong's expression router. The route is left out of service.").reserved(),
    Key::new(
        "rule",
        Kind::Text(&crate::rule::RULE),
        "A condition in the words of Traefik's rules, beside the others: Host, HostRegexp, Path, PathPrefix, PathRegexp, \
         Method, Header, HeaderRegexp, Query, QueryRegexp and ClientIP with `&&`, `||`, `!` and parentheses. Such a route takes only \
         requests of its `protocols`, and strips nothing unless it has `paths`. Not Kong's.",
    ),
    Key::new(
        "priority",
        Kind::Integer { min: i64::MIN, max: i64::MAX },
        "Which route comes first, before every other rule of precedence: higher first. Left out or 0: the length of \
         `rule`, and 0 without one.",
    ),
    Key::new("sources", Kind::Any, "Source addresses, for TCP and UDP streams.").reserved(),
    Key::new("destinations", Kind::Any, "Destination addresses, for TCP and UDP streams.").reserved(),
];

/// A plugin on a scope (Kong `plugins`).
pub static PLUGIN: Section = Section::new(
    "plugin",
    "A plugin and what it applies to: nothing given, every request; several given, requests that meet all.",
    PLUGIN_KEYS,
)
.with(RECORD);

const PLUGIN_KEYS: &[Key] = &[
    Key::new("name", Kind::NAME, "Which plugin.").required(),
    Key::new("instance_name", Kind::NAME, "A name for this use of it, unique."),
    Key::new("service", Kind::Reference(Entity::Service), "Only requests to this service."),
    Key::new("route", Kind::Reference(Entity::Route), "Only requests of this route."),
    Key::new("consumer", Kind::Reference(Entity::Consumer), "Only requests of this consumer."),
    Key::new(
        "consumer_group",
        Kind::Reference(Entity::ConsumerGroup),
        "Only requests of this consumer group. Such a plugin is switched off, lest it apply to everybody.",
    )
    .reserved(),
    Key::new("enabled", Kind::Bool, "Whether it runs.").default("true"),
    Key::new("protocols", Kind::list(&PROTOCOL), "Only requests over these protocols; left out: all."),
    Key::new("config", Kind::Any, "Settings of the plugin; see its own section."),
    Key::new("ordering", Kind::Any, "Kong's dynamic ordering.").reserved(),
    Key::new("_config", Kind::Any, "decK's reference to `_plugin_configs`.").reserved(),
];
