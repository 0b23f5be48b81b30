//! The kernel part: what the XDP program limits and drops.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::source::Origin;

/// Settings of the XDP program (`xdp`).
#[derive(Clone, Debug, PartialEq)]
pub struct Xdp {
    /// How to attach; [`XdpMode::Off`] without an `xdp` section.
    pub mode: XdpMode,
    /// Interfaces to attach to. Empty: those that carry the addresses of the listeners.
    pub interfaces: Vec<String>,
    /// Whether verdicts are carried out.
    pub enforcement: Enforcement,
    /// Whether the gateway refuses to start without the kernel part.
    pub required: bool,
    /// Sources that are never dropped and never charged.
    pub allow: Vec<IpNet>,
    /// Sources whose packets to our listeners are dropped.
    pub deny: Vec<IpNet>,
    /// Sources that are never dropped, besides `trusted_proxies`, loopback and upstream targets.
    pub trusted: Vec<IpNet>,
    /// Sources that the bucket table can hold; a power of two, 1024 to 16777216. One takes 32 bytes.
    pub table_entries: u32,
    /// New connections per source; `None` sets no limit.
    pub connections: Option<RateLimit>,
    /// Packets per source to our listeners; `None` sets no limit.
    pub packets: Option<RateLimit>,
    /// What behaviour seen by the proxy costs the source.
    pub costs: Costs,
    /// Most debt that penalties can pile up: a source that stops is clean again after this.
    pub penalty_cap: Duration,
    /// The program passes everything when the gateway has given no sign of life for this long.
    pub dead_after: Duration,
    /// Folder in a BPF file system where maps and link are pinned.
    pub pin_path: PathBuf,
    /// Where the section is.
    pub origin: Origin,
}

/// How the program is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum XdpMode {
    /// Not at all.
    #[default]
    Off,
    /// In the driver, else in the stack.
    Auto,
    /// In the driver.
    Native,
    /// In the stack, slower and everywhere.
    Generic,
}

/// Whether a drop verdict drops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Enforcement {
    /// Counted only.
    #[default]
    Shadow,
    /// Carried out.
    Enforce,
}

/// A rate with the burst allowed above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RateLimit {
    /// Sustained rate.
    pub rate: Rate,
    /// Tokens that may be taken at once after a rest; at least 1.
    pub burst: u32,
}

/// Tokens in a time, as in `100/s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// How many; at least 1.
    pub tokens: u64,
    /// In how long; never zero.
    pub per: Duration,
}

impl Rate {
    /// Nanoseconds in which one token comes back (the `T` of GCRA), at least 1.
    pub fn interval_ns(&self) -> u64 {
        let per = u64::try_from(self.per.as_nanos()).unwrap_or(u64::MAX);
        (per / self.tokens.max(1)).max(1)
    }
}

impl RateLimit {
    /// Nanoseconds of debt that a source may run up (the burst tolerance of GCRA): `burst` tokens.
    pub fn burst_ns(&self) -> u64 {
        self.rate.interval_ns().saturating_mul(u64::from(self.burst))
    }
}

/// Tokens taken from the connection bucket of a source for what the proxy sees. 0 takes none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Costs {
    /// For each request.
    pub request: u32,
    /// For an answer 401.
    pub unauthorized: u32,
    /// For an answer 403.
    pub forbidden: u32,
    /// For an answer 429.
    pub too_many_requests: u32,
    /// For a request that is not well-formed HTTP.
    pub malformed: u32,
    /// For a TLS handshake that failed or was abandoned.
    pub tls_handshake_failed: u32,
}
