//! The keys of a Redis server, which are Kong's, and their reading.

use std::sync::Arc;
use std::time::Duration;

use portcullis_config::schema::text;
use portcullis_config::sections::REDIS;
use portcullis_config::{Config, Fault, Fields, Key, Kind, Secret, Section};

use super::Server;
use super::sentinel::Sentinels;
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
const SENTINEL_MASTER: Key =
    Key::new("sentinel_master", Kind::NAME, "Name of the group that sentinels watch.");
const SENTINEL_ROLE: Key = Key::new(
    "sentinel_role",
    Kind::Word(&["master", "slave", "any"]),
    "Which of its members to use. Limits are written, so it is the master whatever this says.",
)
.default("master");
const SENTINELS: &Kind = &Kind::Section(&SENTINEL);
const SENTINEL_NODES: Key = Key::new(
    "sentinel_nodes",
    Kind::List { of: SENTINELS, max: 64 },
    "Sentinels, of which the first that answers says where the master is; takes the place of `host`.",
);
const SENTINEL_USERNAME: Key = Key::new("sentinel_username", Kind::STRING, "Who we are to the sentinels.");
const SENTINEL_PASSWORD: Key = Key::new("sentinel_password", Kind::STRING, "Their password.").secret();
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

static SENTINEL: Section = Section::new(
    "redis.sentinel_node",
    "A sentinel.",
    &[
        Key::new("host", Kind::Text(&text::HOST), "Where it is.").default("127.0.0.1"),
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
        SENTINEL_MASTER,
        SENTINEL_ROLE,
        SENTINEL_NODES,
        SENTINEL_USERNAME,
        SENTINEL_PASSWORD,
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
        SENTINEL_MASTER,
        SENTINEL_ROLE,
        SENTINEL_NODES,
        SENTINEL_USERNAME,
        SENTINEL_PASSWORD,
        GATEWAYS,
        Key::new(
            "connect_timeout",
            Kind::TIMEOUT,
            "Kong's limit of connecting. The longest of these three is `timeout` where that is left out.",
        ),
        Key::new("send_timeout", Kind::TIMEOUT, "Kong's limit of sending."),
        Key::new("read_timeout", Kind::TIMEOUT, "Kong's limit of receiving."),
        Key::new("keepalive_pool_size", Kind::COUNT, "Kong's pool; each shard has one connection.").ignored(),
        Key::new("keepalive_backlog", Kind::COUNT, "Kong's pool; each shard has one connection.").ignored(),
        Key::new("connection_is_proxied", Kind::Bool, "Whether a proxy stands before it.").ignored(),
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

/// The section of a server, with what it lacks from the older keys of the plugin where those count.
struct Reader<'a> {
    plugin: &'a Fields<'a>,
    section: Fields<'a>,
    shorthands: bool,
}

impl Reader<'_> {
    fn old(&self, key: &str) -> Option<String> {
        let old = format!("redis_{key}");
        (self.shorthands && !self.section.is_set(key) && self.plugin.is_set(&old)).then_some(old)
    }

    fn text(&self, key: &str) -> Option<String> {
        let text = match self.old(key) {
            Some(old) => self.plugin.optional_string(&old),
            None => self.section.optional_string(key),
        };
        text.filter(|text| !text.is_empty())
    }

    fn secret(&self, key: &str) -> Option<Secret> {
        self.text(key).map(Secret::new)
    }

    fn number(&self, key: &str) -> Option<u32> {
        match self.old(key) {
            Some(old) => self.plugin.optional_integer(&old),
            None => self.section.optional_integer(key),
        }
    }

    fn truth(&self, key: &str) -> bool {
        match self.old(key) {
            Some(old) => self.plugin.bool(&old),
            None => self.section.bool(key),
        }
    }

    /// Of the limits that Kong has for each step, the longest.
    fn timeout(&self, steps: &[&str]) -> Duration {
        if let Some(old) = self.old("timeout") {
            return self.plugin.duration(&old);
        }
        let steps = steps.iter().filter_map(|key| self.section.optional_duration(key)).max();
        let own = self.section.duration("timeout");
        steps.filter(|_| !self.section.is_set("timeout")).unwrap_or(own)
    }

    fn nodes(&self, key: &str, host: &str) -> Vec<(String, u16)> {
        let node = |node: &Fields<'_>| (node.string(host), node.integer("port"));
        self.section.sections(key).iter().map(node).collect()
    }

    fn sentinels(&self) -> Option<Sentinels> {
        let nodes = self.nodes("sentinel_nodes", "host");
        if nodes.is_empty() {
            return None;
        }
        let Some(master) = self.text("sentinel_master") else {
            let fault = Fault::new("sentinels are asked for a group by its name");
            self.section.error("sentinel_nodes", fault.hint("give `sentinel_master`"));
            return None;
        };
        if self.section.is_set("cluster_nodes") {
            self.section.error("sentinel_nodes", "a cluster has no sentinels");
        }
        if self.section.word("sentinel_role") != "master" {
            let fault = Fault::new("limits are written, so the master is used");
            self.section.warning("sentinel_role", fault);
        }
        let (username, password) = (self.text("sentinel_username"), self.secret("sentinel_password"));
        Some(Sentinels { master, nodes, username, password })
    }
}

/// Reads the section `redis` of a plugin; where `shorthands`, what it lacks from the older keys. Without a server there,
/// that of the whole configuration. Returns how many gateways share it as well. Blocks on the machine's trust store.
pub fn read(plugin: &Fields<'_>, shorthands: bool, config: &Config) -> Option<(Arc<Server>, u64)> {
    let own = plugin.section("redis");
    let named = ["host", "cluster_nodes", "sentinel_nodes"].iter().any(|key| own.is_set(key))
        || (shorthands && plugin.is_set("redis_host"));
    let section = match config.redis.as_ref().filter(|_| !named) {
        Some(node) => Fields::new(node, &REDIS, "redis", config.defaults, plugin.diagnostics()),
        None => own,
    };
    let reader = Reader { plugin, section, shorthands: shorthands && named };
    let (mut nodes, mut sentinels, mut redirections) = (Vec::new(), None, 0);
    if named {
        nodes = reader.nodes("cluster_nodes", "ip");
        sentinels = reader.sentinels();
        redirections = reader.section.integer("cluster_max_redirections");
    }
    if let Some(sentinels) = &sentinels {
        nodes = vec![(sentinels.master.clone(), 0)];
    } else if nodes.is_empty() {
        let port = reader.number("port").and_then(|port| u16::try_from(port).ok());
        nodes.extend(reader.text("host").zip(port));
    }
    if nodes.is_empty() {
        return None;
    }
    let verify = reader.truth("ssl_verify");
    let tls = match reader.truth("ssl").then(|| client_config(verify)).transpose() {
        Ok(tls) => tls,
        Err(error) => {
            plugin.error("redis", Fault::new(error.to_string()));
            return None;
        }
    };
    // Only `rate-limiting-advanced` has the limits of steps.
    let steps: &[&str] =
        if named && !shorthands { &["connect_timeout", "send_timeout", "read_timeout"] } else { &[] };
    let mut server = Server {
        nodes,
        sentinels,
        timeout: reader.timeout(steps).max(Duration::from_millis(1)),
        username: reader.text("username"),
        password: reader.secret("password"),
        database: reader.number("database").unwrap_or_default(),
        tls,
        server_name: reader.text("server_name"),
        redirections,
        fingerprint: String::new(),
    };
    server.fingerprint = fingerprint(&server, verify);
    Some((Arc::new(server), reader.section.integer("gateways")))
}

/// It holds passwords, so it is kept hashed.
fn fingerprint(server: &Server, verify: bool) -> String {
    let shown = |secret: &Option<Secret>| secret.as_ref().map(|secret| secret.expose().to_owned());
    let sentinels = server.sentinels.as_ref().map(|sentinels| {
        (&sentinels.master, &sentinels.nodes, &sentinels.username, shown(&sentinels.password))
    });
    let Server { nodes, timeout, username, password, database, tls, server_name, redirections, .. } = server;
    let (password, tls) = (shown(password), tls.is_some());
    let all = format!(
        "{nodes:?} {sentinels:?} {timeout:?} {username:?} {password:?} {database} {verify} {tls} {server_name:?} \
         {redirections}"
    );
    hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, all.as_bytes()).as_ref())
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
