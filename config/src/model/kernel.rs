//! The kernel part: what the XDP program limits and drops.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::Origin;

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
    /// Limits for some ports or sources; the first that fits holds.
    pub rules: Vec<XdpRule>,
    /// Further lists of sources.
    pub lists: Vec<XdpList>,
    /// Limits that unknown sources share.
    pub aggregates: Aggregates,
    /// What behaviour seen by the proxy costs the source.
    pub costs: Costs,
    /// Most tokens that costs can take from a source in a second.
    pub costs_per_second: u32,
    /// When sources are banned for what they do.
    pub bans: Bans,
    /// What a valid credential is worth.
    pub promotion: Promotion,
    /// What becomes of refused packets.
    pub refusals: Refusals,
    /// Most TCP resets that are sent; `None` sets no limit.
    pub resets: Option<Rate>,
    /// Dropped packets that are kept, by reason and CPU; `None` keeps none.
    pub samples: Option<Rate>,
    /// When a reason is switched to shadow to spare known-good sources.
    pub blast_radius: BlastRadius,
    /// Most debt that penalties can pile up: a source that stops is clean again after this.
    pub penalty_cap: Duration,
    /// The program passes everything when the gateway has given no sign of life for this long.
    pub dead_after: Duration,
    /// Whether the program goes on enforcing then.
    pub hold_when_dead: bool,
    /// Folder in a BPF file system where maps and link are pinned.
    pub pin_path: PathBuf,
    /// Where the section is.
    pub origin: Origin,
}

impl Xdp {
    /// Whether bans for behaviour are only counted, by kernel and proxy alike.
    pub fn watches_bans(&self) -> bool {
        self.enforcement == Enforcement::Shadow || self.refusals.banned == Refusal::Shadow
    }
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
    /// For a connection that breaks the rules of HTTP/2.
    pub malformed_http2: u32,
    /// For a TLS handshake that failed.
    pub tls_handshake_failed: u32,
    /// For a TLS handshake that was not gone on with.
    pub tls_handshake_abandoned: u32,
    /// For a connection that was ended because its client was too slow.
    pub slow_client: u32,
    /// For each point that a plugin takes.
    pub plugin: u32,
    /// For a connection of HTTP/2 that ends for a flood.
    pub http2_flood: u32,
}

/// What becomes of a refused packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Dropped.
    #[default]
    Drop,
    /// Dropped, and TCP is answered with a reset.
    Reset,
    /// Passed; the proxy refuses.
    Pass,
    /// Only counted.
    Shadow,
}

/// A limit for some ports, some sources, or both (`xdp.rules`).
#[derive(Clone, Debug, PartialEq)]
pub struct XdpRule {
    /// Its name.
    pub name: String,
    /// Ports; empty: all.
    pub ports: Vec<u16>,
    /// Sources; empty: all.
    pub sources: Vec<IpNet>,
    /// New connections of each source; `None` leaves the general limit.
    pub connections: Option<RateLimit>,
    /// Packets of each source; likewise.
    pub packets: Option<RateLimit>,
    /// What becomes of what is over it.
    pub refusal: Refusal,
    /// Where it is written.
    pub origin: Origin,
}

/// A list of sources (`xdp.lists`).
#[derive(Clone, Debug, PartialEq)]
pub struct XdpList {
    /// Its name.
    pub name: String,
    /// Whether it allows; else it denies.
    pub allows: bool,
    /// Those written inline.
    pub sources: Vec<IpNet>,
    /// A file with more, one in a line.
    pub file: Option<PathBuf>,
    /// What becomes of packets from denied ones.
    pub refusal: Refusal,
    /// Where it is written.
    pub origin: Origin,
}

/// Limits that unknown sources share (`xdp.aggregates`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aggregates {
    /// New connections from one IPv4 /24.
    pub v4_24: Option<RateLimit>,
    /// From one IPv6 /48.
    pub v6_48: Option<RateLimit>,
    /// From all together.
    pub unknown: Option<RateLimit>,
    /// How long a source is known after a request.
    pub known_for: Duration,
}

/// Bans for behaviour (`xdp.bans`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bans {
    /// Offences a source may commit; one more bans it.
    pub triggers: Triggers,
    /// How long the first ban lasts, the second, and so on; one to four.
    pub steps: Vec<Duration>,
    /// After which the next ban is a step shorter.
    pub decay: Duration,
}

/// Offences by kind (`xdp.bans.triggers`). `None` never bans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Triggers {
    /// Answers 401.
    pub unauthorized: Option<Rate>,
    /// Answers 403.
    pub forbidden: Option<Rate>,
    /// Answers 429.
    pub too_many_requests: Option<Rate>,
    /// Requests that are not HTTP.
    pub malformed: Option<Rate>,
    /// Connections that broke the rules of HTTP/2.
    pub malformed_http2: Option<Rate>,
    /// TLS handshakes that failed.
    pub tls_handshake_failed: Option<Rate>,
    /// TLS handshakes not gone on with.
    pub tls_handshake_abandoned: Option<Rate>,
    /// Connections ended because their client was too slow.
    pub slow_client: Option<Rate>,
    /// Points taken by plugins.
    pub plugin: Option<Rate>,
    /// Connections of HTTP/2 that were flooded.
    pub http2_flood: Option<Rate>,
}

/// What a valid credential is worth (`xdp.promotion`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promotion {
    /// Times the limits of others, 1 to 100.
    pub factor: u32,
    /// How long, at most an hour.
    pub lasts: Duration,
    /// Addresses that one credential promotes in the long run.
    pub addresses: u32,
}

/// What becomes of refused packets (`xdp.refusals`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// Of a source in `deny`.
    pub denied: Refusal,
    /// Of a banned source.
    pub banned: Refusal,
    /// Over the limit of packets.
    pub packets: Refusal,
    /// Over the limit of connections.
    pub connections: Refusal,
    /// Over the limit of a network.
    pub networks: Refusal,
    /// Over the limit of the unknown.
    pub unknown: Refusal,
}

/// The cap on harm to known-good sources (`xdp.blast_radius`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlastRadius {
    /// Share of the sources that authenticated in the last hour, in percent; 0 never switches.
    pub percent: u32,
    /// And at least this many.
    pub sources: u32,
}
