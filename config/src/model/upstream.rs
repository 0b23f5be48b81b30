//! Upstreams: named groups of targets.

use std::time::Duration;

use super::{Address, CertificateRef};
use crate::secret::Secret;
use crate::source::Origin;

/// A group of targets that serve the same thing (Kong `upstreams`).
#[derive(Clone, Debug)]
pub struct Upstream {
    /// The name that a service's `host` refers to; unique.
    pub name: String,
    /// Kong's id, kept for references.
    pub id: Option<String>,
    /// How a target is chosen.
    pub algorithm: Algorithm,
    /// Size of the consistent-hashing ring, 10 to 65536.
    pub slots: u32,
    /// What is hashed, for consistent hashing.
    pub hash_on: HashKey,
    /// What is hashed when `hash_on` finds nothing.
    pub hash_fallback: HashKey,
    /// `Host` sent to the targets when the route does not preserve the client's.
    pub host_header: Option<String>,
    /// Certificate presented to the targets; the service's own wins.
    pub client_certificate: Option<CertificateRef>,
    /// Targets, nested and flat ones. Never empty when a service refers to this upstream.
    pub targets: Vec<Target>,
    /// How targets are watched.
    pub healthchecks: Healthchecks,
    /// Time in which a target that is new or back grows into its share; zero for at once.
    pub slow_start: Duration,
    /// When requests are refused because too many fail; `None` for never.
    pub circuit_breaker: Option<CircuitBreaker>,
    /// The cookie that keeps a session at its target; `None` for none.
    pub sticky: Option<StickyCookie>,
    /// Free labels.
    pub tags: Vec<String>,
    /// Where it was written.
    pub origin: Origin,
}

/// One address of an upstream (Kong `targets`).
#[derive(Clone, Debug)]
pub struct Target {
    /// Kong's id.
    pub id: Option<String>,
    /// Where it is. The port is 8000 when the text has none, as in Kong.
    pub address: Address,
    /// Share of the traffic, 0 to 65535; 0 takes none.
    pub weight: u16,
    /// Takes traffic only while every other target is out.
    pub backup: bool,
    /// Free labels.
    pub tags: Vec<String>,
    /// Where it was written.
    pub origin: Origin,
}

/// How a target is chosen (Kong `algorithm`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// In turn, by weight.
    #[default]
    RoundRobin,
    /// The one with the fewest open exchanges for its weight.
    LeastConnections,
    /// By hash of the key that `hash_on` names.
    ConsistentHashing,
    /// The one that answers soonest lately.
    Latency,
    /// By hash, with Maglev's table.
    Maglev,
    /// The one with fewer open exchanges of two drawn by weight.
    TwoChoices,
    /// Drawn by weight.
    Random,
}

/// When an upstream is not asked for a while (`circuit_breaker`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CircuitBreaker {
    /// Time over which answers are counted.
    pub window: Duration,
    /// Answers in the window before their share counts.
    pub min_requests: u32,
    /// It judges the upstream as a whole.
    pub of_upstream: bool,
    /// It judges each target for itself.
    pub of_targets: bool,
    /// Share of failures that opens it, in percent; 0 for never.
    pub failure_percent: u8,
    /// Statuses that count as failures.
    pub http_statuses: Vec<u16>,
    /// Failures in a row that open it; 0 for never.
    pub consecutive_failures: u16,
    /// A response head that takes longer is slow; zero for none is.
    pub slow_after: Duration,
    /// Share of slow answers that opens it, in percent; 0 for never.
    pub slow_percent: u8,
    /// First time open; twice as long each time in a row.
    pub open_for: Duration,
    /// Longest time open.
    pub open_for_max: Duration,
    /// Requests let through then, and good answers that close it.
    pub trials: u8,
    /// What is answered while it is open.
    pub status_code: u16,
}

/// A signed cookie that names the target of a session (Traefik `sticky.cookie`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StickyCookie {
    /// Its name.
    pub name: String,
    /// Its attributes as they follow its value, from the first `;`.
    pub attributes: String,
    /// What it is signed with; `None` for a key of the process.
    pub secret: Option<Secret>,
}

/// What a request is hashed by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HashKey {
    /// Nothing: consistent hashing then falls back to round robin.
    #[default]
    None,
    /// The consumer.
    Consumer,
    /// The client address.
    Ip,
    /// The value of this header.
    Header(String),
    /// The value of this cookie, which is set when absent.
    Cookie {
        /// Name of the cookie.
        name: String,
        /// Its `Path` attribute.
        path: String,
    },
    /// The request path.
    Path,
    /// The value of this query argument.
    QueryArgument(String),
    /// The value of this named group of the route's regular expression.
    UriCapture(String),
}

/// How the health of targets is found out (Kong `healthchecks`).
#[derive(Clone, Debug, PartialEq)]
pub struct Healthchecks {
    /// Least share of healthy weight, in percent, for the upstream as a whole to count as healthy.
    pub threshold: f64,
    /// Below this share of healthy weight, in percent, health is not asked; 0 for always.
    pub panic_threshold: u8,
    /// Probing.
    pub active: ActiveCheck,
    /// Watching the traffic.
    pub passive: PassiveCheck,
}

/// Probes sent to each target.
#[derive(Clone, Debug, PartialEq)]
pub struct ActiveCheck {
    /// What a probe is.
    pub kind: CheckKind,
    /// Longest wait for an answer.
    pub timeout: Duration,
    /// Most probes under way at once.
    pub concurrency: u32,
    /// Path of an HTTP probe.
    pub http_path: String,
    /// Service that a gRPC probe asks about; empty for the server as a whole.
    pub grpc_service: String,
    /// Server name for an HTTPS probe; `None` for the upstream's.
    pub https_sni: Option<String>,
    /// Whether an HTTPS probe verifies the certificate.
    pub https_verify_certificate: bool,
    /// Headers added to a probe.
    pub headers: Vec<(String, Vec<String>)>,
    /// Pause between probes of a healthy target; zero sends none.
    pub healthy_interval: Duration,
    /// Pause between probes of an unhealthy target; zero sends none.
    pub unhealthy_interval: Duration,
    /// What makes a target healthy.
    pub healthy: HealthyWhen,
    /// What makes a target unhealthy.
    pub unhealthy: UnhealthyWhen,
}

impl ActiveCheck {
    /// Whether any probe is ever sent.
    pub fn is_on(&self) -> bool {
        !self.healthy_interval.is_zero() || !self.unhealthy_interval.is_zero()
    }
}

/// Counting the outcomes of real requests.
#[derive(Clone, Debug, PartialEq)]
pub struct PassiveCheck {
    /// What is counted.
    pub kind: CheckKind,
    /// What makes a target healthy.
    pub healthy: HealthyWhen,
    /// What makes a target unhealthy.
    pub unhealthy: UnhealthyWhen,
    /// How long a target stays out after it was found unhealthy; each time in a row adds as much again. Kong
    /// has no such thing: there a passive check never lets a target back in, and zero restores that.
    pub eject_for: Duration,
    /// Largest share of the targets, in percent, that may be out at once.
    pub max_ejected_percent: u8,
}

/// When a target counts as healthy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthyWhen {
    /// Statuses that count as a success.
    pub http_statuses: Vec<u16>,
    /// Successes in a row; 0 turns this off.
    pub successes: u32,
}

/// When a target counts as unhealthy. A count of 0 turns its rule off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnhealthyWhen {
    /// Statuses that count as a failure.
    pub http_statuses: Vec<u16>,
    /// Failures by status in a row.
    pub http_failures: u32,
    /// Failed or broken connections in a row.
    pub tcp_failures: u32,
    /// Timeouts in a row.
    pub timeouts: u32,
}

/// What a health check speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CheckKind {
    /// A connection is enough.
    Tcp,
    /// An HTTP request.
    #[default]
    Http,
    /// An HTTP request over TLS.
    Https,
    /// A gRPC health call.
    Grpc,
    /// A gRPC health call over TLS.
    Grpcs,
}
