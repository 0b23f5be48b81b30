//! The tables of every section that is not a plugin's.
//!
//! Owns the words of the configuration. Each key says what it means, in what unit, within what range, what the
//! default is and what Kong's is; the reference file and the JSON schema follow from here. No code reads a key
//! that is not in a table. Next: `root` below, then `service`.

mod consumer;
mod edge;
mod http;
mod http2;
mod kernel;
mod runtime;
mod service;
mod upstream;

pub use self::consumer::{ACL, BASIC_AUTH, CONSUMER, HMAC_AUTH, JWT_SECRET, KEY_AUTH};
pub use self::edge::{
    CA_CERTIFICATE, CERTIFICATE, CLIENT_AUTH, HSTS, LISTENER, LISTENER_TLS, REDIRECT_HTTPS, SNI, TICKETS,
};
pub use self::http::HTTP;
pub use self::http2::HTTP2;
pub use self::kernel::{
    XDP, XDP_AGGREGATES, XDP_BANS, XDP_BLAST_RADIUS, XDP_COSTS, XDP_LIMIT, XDP_LIMITS, XDP_LIST,
    XDP_PROMOTION, XDP_REFUSALS, XDP_RULE, XDP_TRIGGERS,
};
pub use self::runtime::{
    ACCESS_LOG, ADMIN, DNS, LIMITS, LOG, OWN_TIMEOUTS, REDIS, SHARDS, TELEMETRY, TIMEOUTS,
};
pub use self::service::{PLUGIN, RETRY_BACK_OFF, RETRY_POLICY, ROUTE, SERVICE, TLS_SANS};
pub use self::upstream::{
    ACTIVE, ACTIVE_HEALTHY, ACTIVE_UNHEALTHY, HEALTHCHECKS, PASSIVE, PASSIVE_HEALTHY, PASSIVE_UNHEALTHY,
    STICKY, STICKY_COOKIE, TARGET, UPSTREAM,
};
use crate::schema::{Key, Kind, MAX_ENTITIES, Section, text};

/// A list of entities.
const fn entities(of: &'static Kind) -> Kind {
    Kind::List { of, max: MAX_ENTITIES }
}

/// What every Kong record has.
pub(crate) const RECORD: &[Key] = &[
    Key::new("id", Kind::NAME, "Kong's id of the record; references may use it."),
    Key::new("created_at", Kind::Any, "When the record was made; written by exports.").ignored(),
    Key::new("updated_at", Kind::Any, "When the record was changed; written by exports.").ignored(),
    Key::new("ws_id", Kind::Any, "Kong's workspace of the record; written by exports.").ignored(),
    Key::new("tags", Kind::STRINGS, "Free labels for people and tools; they change nothing."),
];

/// The format versions of Kong's declarative format that are read.
pub const FORMAT_VERSIONS: &[&str] = &["3.0", "2.1", "1.1"];

/// The whole configuration.
pub static ROOT: Section = Section::new(
    "configuration",
    "A configuration of Portcullis: a superset of Kong's declarative format 3.0. Top-level keys that begin with `x-` \
     are free, for anchors.",
    ROOT_KEYS,
)
.with(KONG_KEYS);

const ROOT_KEYS: &[Key] = &[
    Key::new(
        "_format_version",
        Kind::Word(FORMAT_VERSIONS),
        "Version of Kong's format that the file is written in. In 3.0 a path is a regular expression when it begins \
         with `~`; before, when it holds other characters than a plain path. With this key and without `defaults`, \
         `check` notes where our defaults differ from Kong's.",
    ),
    Key::new("_transform", Kind::Bool, "Whether credentials are still to be hashed by Kong.").ignored(),
    Key::new("_info", Kind::Any, "Notes of the tool that wrote the file.").ignored(),
    Key::new("_workspace", Kind::Any, "Kong's workspace.").ignored(),
    Key::new("_konnect", Kind::Any, "Settings of Kong's hosted control plane.").ignored(),
    Key::new(
        "defaults",
        Kind::Word(&["portcullis", "kong"]),
        "Whose defaults fill what the file leaves out: our safe ones, or Kong's.",
    )
    .default("portcullis"),
    Key::new(
        "listeners",
        entities(&const { Kind::Section(&LISTENER) }),
        "Where downstream connections are accepted. Without \
         any: 0.0.0.0:8000, and 0.0.0.0:8443 with TLS when there are certificates, as in Kong.",
    )
    .kong("kong.conf proxy_listen"),
    Key::new("shards", Kind::Section(&SHARDS), "The threads that carry traffic."),
    Key::new("xdp", Kind::Section(&XDP), "The part that runs in the kernel. Without this section it is off."),
    Key::new("http", Kind::Section(&HTTP), "How requests are read."),
    Key::new("http2", Kind::Section(&HTTP2), "What an HTTP/2 connection may do."),
    Key::new("limits", Kind::Section(&LIMITS), "Bounds on sizes and numbers."),
    Key::new("timeouts", Kind::Section(&TIMEOUTS), "Bounds on time."),
    Key::new(
        "trusted_proxies",
        Kind::CIDRS,
        "Peers whose `X-Forwarded-*` headers are believed, and which the kernel part never drops.",
    )
    .default("[]")
    .kong("kong.conf trusted_ips"),
    Key::new(
        "real_ip_header",
        Kind::Text(&text::HEADER_NAME),
        "Where trusted proxies name the client: `X-Forwarded-For`, `Forwarded` (RFC 7239), `X-Real-IP` or any other field \
         with addresses, or `proxy_protocol` to believe no field. Without an `X-Forwarded-For`, `X-Real-IP` is looked at.",
    )
    .default("X-Forwarded-For")
    .kong_default("X-Real-IP")
    .kong("kong.conf real_ip_header"),
    Key::new(
        "real_ip_recursive",
        Kind::Bool,
        "Whether the client is the last address that is not a trusted proxy's, from the right; else it is the last one.",
    )
    .default("true")
    .kong_default("false")
    .kong("kong.conf real_ip_recursive"),
    Key::new(
        "forwarded_header",
        Kind::Bool,
        "Whether upstreams are told of the client in `Forwarded` (RFC 7239) besides `X-Forwarded-*`.",
    )
    .default("false"),
    Key::new("tickets", Kind::Section(&TICKETS), "Keys of TLS session tickets."),
    Key::new("admin", Kind::Section(&ADMIN), "The operator's interface: metrics, status, reload."),
    Key::new("dns", Kind::Section(&DNS), "How names of targets are resolved."),
    Key::new("telemetry", Kind::Section(&TELEMETRY), "Logs."),
    Key::new("redis", Kind::Section(&REDIS), "The Redis of shared limits that name none of their own."),
    Key::new("services", entities(&const { Kind::Section(&SERVICE) }), "Upstream APIs."),
    Key::new(
        "routes",
        entities(&const { Kind::Section(&ROUTE) }),
        "Routes that are not nested in a service.",
    ),
    Key::new("upstreams", entities(&const { Kind::Section(&UPSTREAM) }), "Named groups of targets."),
    Key::new(
        "targets",
        entities(&const { Kind::Section(&TARGET) }),
        "Targets that are not nested in an upstream.",
    ),
    Key::new("consumers", entities(&const { Kind::Section(&CONSUMER) }), "Known clients."),
    Key::new(
        "plugins",
        entities(&const { Kind::Section(&PLUGIN) }),
        "Plugins; without a scope they apply to every request.",
    ),
    Key::new(
        "keyauth_credentials",
        entities(&const { Kind::Section(&KEY_AUTH) }),
        "API keys not nested in a consumer.",
    ),
    Key::new(
        "jwt_secrets",
        entities(&const { Kind::Section(&JWT_SECRET) }),
        "JWT keys not nested in a consumer.",
    ),
    Key::new("acls", entities(&const { Kind::Section(&ACL) }), "Group memberships not nested in a consumer."),
    Key::new(
        "basicauth_credentials",
        entities(&const { Kind::Section(&BASIC_AUTH) }),
        "Passwords not nested in a consumer.",
    ),
    Key::new(
        "hmacauth_credentials",
        entities(&const { Kind::Section(&HMAC_AUTH) }),
        "Signing secrets not nested in a consumer.",
    ),
    Key::new(
        "certificates",
        entities(&const { Kind::Section(&CERTIFICATE) }),
        "Certificates with their keys.",
    ),
    Key::new("snis", entities(&const { Kind::Section(&SNI) }), "Server names not nested in a certificate."),
    Key::new(
        "ca_certificates",
        entities(&const { Kind::Section(&CA_CERTIFICATE) }),
        "Authorities for certificates of targets and clients.",
    ),
];

/// Parts of Kong's format that nothing here acts on yet; kept out of the way of real errors.
const KONG_KEYS: &[Key] = &[
    Key::new("_plugin_configs", Kind::Any, "decK's shared plugin settings.").reserved(),
    Key::new("consumer_groups", Kind::Any, "Groups with plugins of their own.").reserved(),
    Key::new("consumer_group_consumers", Kind::Any, "Members of consumer groups.").reserved(),
    Key::new("consumer_group_plugins", Kind::Any, "Plugins of consumer groups.").reserved(),
    Key::new("oauth2_credentials", Kind::Any, "OAuth 2 clients.").reserved(),
    Key::new("mtls_auth_credentials", Kind::Any, "Client certificates of consumers.").reserved(),
    Key::new("vaults", Kind::Any, "Where secrets are kept; use `${env:..}` and `${file:..}`.").reserved(),
    Key::new("keys", Kind::Any, "Keys of key sets.").reserved(),
    Key::new("key_sets", Kind::Any, "Sets of keys.").reserved(),
    Key::new("filter_chains", Kind::Any, "WebAssembly filters.").reserved(),
    Key::new("partials", Kind::Any, "Shared parts of plugin settings.").reserved(),
    Key::new("licenses", Kind::Any, "Kong licences; none is needed.").ignored(),
];
