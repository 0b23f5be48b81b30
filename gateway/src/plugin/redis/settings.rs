//! The keys of a Redis server, which are Kong's, and their reading.

use std::sync::Arc;
use std::time::Duration;

use portcullis_config::schema::text;
use portcullis_config::sections::REDIS;
use portcullis_config::{Config, Fault, Fields, Key, Kind, Section};

use super::Server;
use crate::tls;

const HOST: Key = Key::new("host", Kind::Text(&text::HOST), "Where it is.");
const PORT: Key = Key::new("port", Kind::PORT, "Its port.").default("6379");
const TIMEOUT: Key = Key::new(
    "timeout",
    Kind::TIMEOUT,
    "Longest wait for it, from the request to its answer, a connection included; a bare number is milliseconds. \
     Then the gateway decides by itself.",
)
.default("100ms")
.kong_default("2s");
const USERNAME: Key = Key::new("username", Kind::STRING, "Who we are to it.");
const PASSWORD: Key = Key::new("password", Kind::STRING, "Its password.").secret();
const DATABASE: Key =
    Key::new("database", Kind::integer(0, i32::MAX as i64), "Number of the database.").default("0");
const SSL: Key = Key::new("ssl", Kind::Bool, "Whether to speak TLS.").default("false");
const SSL_VERIFY: Key = Key::new(
    "ssl_verify",
    Kind::Bool,
    "Whether to verify its certificate, against the authorities that this machine trusts.",
)
.default("false");
const SERVER_NAME: Key = Key::new("server_name", Kind::Text(&text::HOST), "The name to verify.");
const NODES: &Kind = &Kind::Section(&NODE);
const CLUSTER_NODES: Key = Key::new(
    "cluster_nodes",
    Kind::List { of: NODES, max: 64 },
    "Nodes of a cluster; takes the place of `host`. The others are learnt from them.",
);
const CLUSTER_MAX_REDIRECTIONS: Key = Key::new(
    "cluster_max_redirections",
    Kind::integer(0, 16),
    "Most times that one request is sent on to another node.",
)
.default("5");
const GATEWAYS: Key = Key::new(
    "gateways",
    Kind::integer(1, 10_000),
    "How many gateways share the limits. While Redis is away each of them keeps to this part of every limit.",
)
.default("1");

static NODE: Section = Section::new(
    "redis.cluster_node",
    "A node of a Redis Cluster.",
    &[
        Key::new("ip", Kind::Text(&text::HOST), "Where it is.").default("127.0.0.1"),
        Key::new("port", Kind::PORT, "Its port.").default("6379"),
    ],
);

/// The section of `rate-limiting`.
pub static KONG: Section = Section::new(
    "rate-limiting.redis",
    "A Redis server, or a cluster.",
    &[
        HOST,
        PORT,
        TIMEOUT,
        USERNAME,
        PASSWORD,
        DATABASE,
        SSL,
        SSL_VERIFY,
        SERVER_NAME,
        CLUSTER_NODES,
        CLUSTER_MAX_REDIRECTIONS,
        GATEWAYS,
    ],
);

/// The section of `rate-limiting-advanced`.
pub static ADVANCED: Section = Section::new(
    "rate-limiting-advanced.redis",
    "A Redis server, or a cluster.",
    &[
        HOST,
        PORT,
        TIMEOUT,
        USERNAME,
        PASSWORD,
        DATABASE,
        SSL,
        SSL_VERIFY,
        SERVER_NAME,
        CLUSTER_NODES,
        CLUSTER_MAX_REDIRECTIONS,
        GATEWAYS,
        Key::new("connect_timeout", Kind::TIMEOUT, "Kong's limit of connecting; `timeout` holds for all.")
            .ignored(),
        Key::new("send_timeout", Kind::TIMEOUT, "Kong's limit of sending; `timeout` holds for all.")
            .ignored(),
        Key::new("read_timeout", Kind::TIMEOUT, "Kong's limit of receiving; `timeout` holds for all.")
            .ignored(),
        Key::new("keepalive_pool_size", Kind::COUNT, "Kong's pool; each shard has one connection.").ignored(),
        Key::new("keepalive_backlog", Kind::COUNT, "Kong's pool; each shard has one connection.").ignored(),
        Key::new("connection_is_proxied", Kind::Bool, "Whether a proxy stands before it.").ignored(),
        Key::new("sentinel_master", Kind::NAME, "Name of the group that sentinels watch.").reserved(),
        Key::new("sentinel_role", Kind::NAME, "Which of its members to use.").reserved(),
        Key::new("sentinel_nodes", Kind::list(&Kind::Any), "Where the sentinels are.").reserved(),
        Key::new("sentinel_username", Kind::STRING, "Who we are to the sentinels.").reserved(),
        Key::new("sentinel_password", Kind::STRING, "Their password.").secret().reserved(),
    ],
);

/// Kong's keys from before there was a `redis` section.
pub const SHORTHANDS: &[Key] = &[
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

/// Reads the section `redis` of a plugin; where `shorthands`, what it lacks from the older keys. Without a server there,
/// that of the whole configuration. Returns how many gateways share it as well. Blocks on the machine's trust store.
pub fn read(plugin: &Fields<'_>, shorthands: bool, config: &Config) -> Option<(Arc<Server>, u64)> {
    let own = plugin.section("redis");
    let named =
        own.is_set("host") || own.is_set("cluster_nodes") || (shorthands && plugin.is_set("redis_host"));
    let section = match config.redis.as_ref().filter(|_| !named) {
        Some(node) => Fields::new(node, &REDIS, "redis", config.defaults, plugin.diagnostics()),
        None => own,
    };
    let shorthands = shorthands && named;
    let old = |key: &str| {
        Some(format!("redis_{key}")).filter(|old| shorthands && !section.is_set(key) && plugin.is_set(old))
    };
    let text = |key: &str| match old(key) {
        Some(old) => plugin.optional_string(&old),
        None => section.optional_string(key),
    };
    let number = |key: &str| match old(key) {
        Some(old) => plugin.optional_integer::<u32>(&old),
        None => section.optional_integer(key),
    };
    let truth = |key: &str| match old(key) {
        Some(old) => plugin.bool(&old),
        None => section.bool(key),
    };
    let timeout = match old("timeout") {
        Some(old) => plugin.duration(&old),
        None => section.duration("timeout"),
    };
    let node = |node: Fields<'_>| (node.string("ip"), node.integer("port"));
    let of_cluster = || section.sections("cluster_nodes").into_iter().map(node).collect();
    let mut nodes: Vec<(String, u16)> = if named { of_cluster() } else { Vec::new() };
    if nodes.is_empty() {
        nodes.extend(text("host").zip(number("port").and_then(|port| u16::try_from(port).ok())));
    }
    if nodes.is_empty() {
        return None;
    }
    let tls = match truth("ssl").then(|| client_config(truth("ssl_verify"))).transpose() {
        Ok(tls) => tls,
        Err(error) => {
            plugin.error("redis", Fault::new(error.to_string()));
            return None;
        }
    };
    let database = number("database").unwrap_or_default();
    let (username, password, server_name) = (text("username"), text("password"), text("server_name"));
    let (ssl, redirections) =
        (truth("ssl_verify"), if named { section.integer("cluster_max_redirections") } else { 0 });
    let all = format!(
        "{nodes:?} {timeout:?} {username:?} {password:?} {database} {ssl} {} {server_name:?} {redirections}",
        tls.is_some()
    );
    Some((
        Arc::new(Server {
            nodes,
            timeout: timeout.max(Duration::from_millis(1)),
            username: username.filter(|name| !name.is_empty()),
            password: password.filter(|word| !word.is_empty()).map(portcullis_config::Secret::new),
            database,
            tls,
            server_name,
            redirections,
            // It holds a password, so it is kept hashed.
            fingerprint: hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, all.as_bytes()).as_ref()),
        }),
        section.integer("gateways"),
    ))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn client_config(verify: bool) -> Result<tls::ClientConfig, tls::TlsError> {
    let verify = if verify { tls::Verify::Against(tls::Roots::system()?) } else { tls::Verify::Off };
    tls::client_config(&tls::ClientOptions {
        verify,
        identity: None,
        versions: tls::VersionRange { min: tls::Version::V12, max: tls::Version::V13 },
        alpn: Vec::new(),
    })
}
