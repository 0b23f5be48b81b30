//! The process: shards, limits, timeouts, admin interface, logs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The threads that carry traffic (`shards`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shards {
    /// How many.
    pub count: ShardCount,
    /// Cores to pin them to, in order. Empty: the cores the process may run on.
    pub cores: Vec<usize>,
    /// What they do I/O with.
    pub driver: Driver,
    /// Which of them gets a new connection.
    pub steering: Steering,
}

/// Which shard gets a new connection (`shards.steering`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Steering {
    /// `Core` where the interfaces have a receive queue for each shard, else `Hash`.
    #[default]
    Auto,
    /// The one pinned to the core that received the first packet.
    Core,
    /// The one that the kernel's hash of the addresses says.
    Hash,
}

/// How many shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ShardCount {
    /// One for each of `cores`, or for each core that the process may run on.
    #[default]
    Auto,
    /// This many, 1 to 1024.
    Fixed(u16),
}

/// What a shard does I/O with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Driver {
    /// `io_uring` where the kernel allows it, else epoll, and the choice is logged.
    #[default]
    Auto,
    /// `io_uring`, or no start.
    IoUring,
    /// epoll.
    Epoll,
}

/// Bounds on sizes and numbers (`limits`). Sizes are bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Request line and header section together; more is 431.
    pub head: u32,
    /// Request line; more is 414.
    pub request_line: u32,
    /// Header fields in one head; more is 431.
    pub header_count: u32,
    /// Request body; more is 413. Routes can override it.
    pub body: u64,
    /// Body held in memory for a plugin that needs the whole of it; more is 413 or 502.
    pub buffered_body: u64,
    /// Response head from a target; more is 502.
    pub response_head: u32,
    /// Least bytes a second of a client that is waited for; 0 asks for none.
    pub min_rate: u32,
    /// Time that a request body has before the rate is asked of it.
    pub min_rate_after: Duration,
    /// Open downstream connections of the whole process; more are closed at once.
    pub connections: u32,
    /// Open downstream connections of one source; 0 sets no limit.
    pub connections_per_source: u32,
    /// Requests on one downstream connection, after which it is closed.
    pub requests_per_connection: u32,
    /// Idle upstream connections kept for one target by one shard.
    pub upstream_idle_connections: u32,
    /// Connections of HTTP/1 in use to one target by one shard; 0 sets no limit.
    pub upstream_connections: u32,
    /// Requests that wait for a connection to one target on one shard.
    pub upstream_queue: u32,
    /// Requests on one connection to a target.
    pub upstream_requests_per_connection: u32,
    /// Retries as a share of the requests of a service, in percent, above a small constant.
    pub retry_budget_percent: u8,
}

/// Bounds on time (`timeouts`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From the first byte of a request to the end of its head; 408.
    pub request_head: Duration,
    /// Between two reads of a request body; 408.
    pub request_body_idle: Duration,
    /// Between requests on a downstream connection.
    pub keep_alive: Duration,
    /// From accept to the end of the TLS handshake.
    pub tls_handshake: Duration,
    /// Default `connect_timeout` of services.
    pub connect: Duration,
    /// Wait for the first byte of a response, for services without a `read_timeout`.
    pub first_byte: Duration,
    /// Between two reads of a response body, for services without a `read_timeout`.
    pub upstream_body_idle: Duration,
    /// Between two writes of a request to a target; default of `write_timeout` of services.
    pub upstream_write: Duration,
    /// Waiting for a connection to a target while all are in use.
    pub upstream_queue: Duration,
    /// How long an idle upstream connection is kept.
    pub upstream_keep_alive: Duration,
    /// Between two writes of a response to a client that does not read.
    pub response_write: Duration,
    /// From the head of a request to the end of its response; `None` sets no limit.
    pub total: Option<Duration>,
    /// Silence in both directions of a WebSocket, pings included, before it is closed.
    pub tunnel_idle: Duration,
    /// From the order to stop until what is still in flight is cut.
    pub drain: Duration,
    /// How long readiness says no before the listeners close.
    pub drain_delay: Duration,
}

/// Bounds on time of one service or route; `None` leaves a bound to whoever comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnTimeouts {
    /// In place of [`Timeouts::request_body_idle`].
    pub request_body_idle: Option<Duration>,
    /// In place of [`Timeouts::connect`].
    pub connect: Option<Duration>,
    /// In place of [`Timeouts::first_byte`].
    pub first_byte: Option<Duration>,
    /// In place of [`Timeouts::upstream_body_idle`].
    pub upstream_body_idle: Option<Duration>,
    /// In place of [`Timeouts::upstream_write`].
    pub upstream_write: Option<Duration>,
    /// In place of [`Timeouts::response_write`].
    pub response_write: Option<Duration>,
    /// In place of [`Timeouts::total`]; zero sets no limit.
    pub total: Option<Duration>,
    /// In place of [`Timeouts::tunnel_idle`].
    pub tunnel_idle: Option<Duration>,
}

/// How names of targets are resolved (`dns`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// Servers to ask; empty for those of the system.
    pub nameservers: Vec<SocketAddr>,
    /// Longest wait for an answer.
    pub timeout: Duration,
    /// An answer is good for at least this.
    pub min_ttl: Duration,
    /// An answer is good for at most this.
    pub max_ttl: Duration,
}

/// The operator's interface (`admin`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Unix socket, mode 0600; relative paths are against the working directory. `None` for no socket.
    pub socket: Option<PathBuf>,
    /// TCP address, always loopback.
    pub address: Option<SocketAddr>,
}

/// Logs (`telemetry`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telemetry {
    /// One line for each exchange.
    pub access_log: AccessLog,
    /// Least severe level of the gateway's own log.
    pub log_level: LogLevel,
    /// Shape of the gateway's own log.
    pub log_format: LogFormat,
}

/// The access log (`telemetry.access_log`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// Where lines go.
    pub destination: AccessLogDestination,
    /// Request headers added to each line, lower case.
    pub headers: Vec<String>,
    /// Headers whose value is masked, lower case.
    pub redact_headers: Vec<String>,
    /// Query arguments whose value is masked.
    pub redact_query: Vec<String>,
}

/// Where access log lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLogDestination {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// A file, appended to and opened again on SIGHUP.
    File(PathBuf),
}

/// Levels of the gateway's own log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogLevel {
    /// Failures.
    Error,
    /// And what should be looked at.
    Warn,
    /// And the course of events.
    #[default]
    Info,
    /// And decisions.
    Debug,
    /// And everything.
    Trace,
}

impl LogLevel {
    /// The word, as `tracing` also spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Shape of the gateway's own log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}
