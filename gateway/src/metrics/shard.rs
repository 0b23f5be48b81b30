//! What a shard counts, whatever the route.
//!
//! Owns one struct of cells. The shard's thread writes it, through the `Arc` it got at its start; the
//! control thread reads the same `Arc` during a scrape. Nothing here knows names or labels.
//!
//! Invariant: no other thread than the shard's calls a writing method.

use portcullis_abi::Reason;

use super::cell::{Counter, Gauge};
use super::histogram::FineHistogram;
use super::refusals::Refusals;
use super::route::class_index;
use super::sources::BusySources;

/// The counts of one shard. Fields are public: `metrics.bytes_in.add(n)` is the whole interface.
// Two cache lines apart from its neighbours, see `RouteMetrics`.
#[derive(Debug)]
#[repr(align(128))]
pub struct ShardMetrics {
    /// Exchanges in progress.
    pub requests_active: Gauge,
    /// Downstream connections accepted.
    pub connections_accepted: Counter,
    /// Downstream connections open.
    pub connections_active: Gauge,
    /// Downstream connections closed at once: over a limit, or draining.
    pub connections_refused: Counter,
    /// Tunnels begun (WebSockets).
    pub tunnels: Counter,
    /// Tunnels open.
    pub tunnels_active: Gauge,
    /// Downstream connections that speak HTTP/2.
    pub http2_connections: Counter,
    /// Requests on them.
    pub http2_streams: Counter,
    /// Those in progress.
    pub http2_streams_active: Gauge,
    /// Fields of requests left out for an underscore in their name.
    pub underscored_fields: Counter,
    /// Bytes received from clients, as they came off the socket.
    pub bytes_in: Counter,
    /// Bytes sent to clients.
    pub bytes_out: Counter,
    /// Connections opened to targets.
    pub upstream_connects: Counter,
    /// Attempts that took an idle connection from the pool.
    pub upstream_reuses: Counter,
    /// Attempts after the first of an exchange.
    pub upstream_retries: Counter,
    /// Attempts that failed: connect, reset, timeout or an unusable response.
    pub upstream_errors: Counter,
    /// Idle connections in the pools.
    pub pool_idle: Gauge,
    /// Upstream connections in use.
    pub pool_active: Gauge,
    /// Log records given up because the writer was behind.
    pub log_records_dropped: Counter,
    /// The generation that new exchanges use.
    pub generation: Gauge,
    /// CPU time of the shard's thread (`CLOCK_THREAD_CPUTIME_ID`), set once in a while.
    pub cpu_ns: Gauge,
    /// The gateway's own share of each exchange.
    pub gateway_latency: FineHistogram,
    /// The last refusals one by one.
    pub refusals: Refusals,
    /// The busiest clients.
    pub sources: BusySources,
    driver: Gauge,
    pub(super) tls_full: Counter,
    pub(super) tls_resumed: Counter,
    tls_failed: [Counter; HandshakeFailure::ALL.len()],
    classes: [Counter; 6],
    limiter: [Counter; LimiterDecision::ALL.len()],
    copies: [Counter; CopyOutcome::ALL.len()],
    /// Limits decided by this gateway alone, because the store that it shares with others did not answer.
    pub limited_alone: Counter,
    reasons: [Counter; Reason::COUNT],
}

impl Default for ShardMetrics {
    fn default() -> ShardMetrics {
        ShardMetrics {
            requests_active: Gauge::default(),
            connections_accepted: Counter::default(),
            connections_active: Gauge::default(),
            connections_refused: Counter::default(),
            tls_full: Counter::default(),
            tls_resumed: Counter::default(),
            tls_failed: Default::default(),
            tunnels: Counter::default(),
            tunnels_active: Gauge::default(),
            http2_connections: Counter::default(),
            http2_streams: Counter::default(),
            http2_streams_active: Gauge::default(),
            underscored_fields: Counter::default(),
            bytes_in: Counter::default(),
            bytes_out: Counter::default(),
            upstream_connects: Counter::default(),
            upstream_reuses: Counter::default(),
            upstream_retries: Counter::default(),
            upstream_errors: Counter::default(),
            pool_idle: Gauge::default(),
            pool_active: Gauge::default(),
            log_records_dropped: Counter::default(),
            generation: Gauge::default(),
            cpu_ns: Gauge::default(),
            gateway_latency: FineHistogram::default(),
            refusals: Refusals::default(),
            sources: BusySources::default(),
            driver: Gauge::default(),
            classes: Default::default(),
            limiter: Default::default(),
            copies: Default::default(),
            limited_alone: Counter::default(),
            // `Default` stops at 32 elements.
            reasons: std::array::from_fn(|_| Counter::default()),
        }
    }
}

impl ShardMetrics {
    /// Counts one answer by the class of its status.
    #[inline]
    pub fn count_request(&self, status: u16) {
        self.classes[class_index(status)].inc();
    }

    /// Counts one refusal or failure.
    #[inline]
    pub fn count_reason(&self, reason: Reason) {
        self.reasons[reason as usize].inc();
    }

    /// Counts one completed TLS handshake.
    #[inline]
    pub fn tls_handshake_done(&self, resumed: bool) {
        if resumed { self.tls_resumed.inc() } else { self.tls_full.inc() }
    }

    /// Counts one TLS handshake that failed or was given up.
    #[inline]
    pub fn tls_handshake_failed(&self, cause: HandshakeFailure) {
        self.tls_failed[cause as usize].inc();
    }

    /// TLS handshakes that came to nothing so far, for one cause.
    pub(super) fn tls_failed(&self, cause: HandshakeFailure) -> u64 {
        self.tls_failed[cause as usize].get()
    }

    /// Counts one decision of a limiter.
    #[inline]
    pub fn count_limiter(&self, decision: LimiterDecision) {
        self.limiter[decision as usize].inc();
    }

    /// Counts one copy of a request.
    #[inline]
    pub fn count_copy(&self, outcome: CopyOutcome) {
        self.copies[outcome as usize].inc();
    }

    /// Copies of requests so far that came to this.
    pub fn copies(&self, outcome: CopyOutcome) -> u64 {
        self.copies[outcome as usize].get()
    }

    /// Says which driver this shard got.
    pub fn set_driver(&self, driver: Driver) {
        // Zero stays "not started yet".
        self.driver.set(driver as u64 + 1);
    }

    /// The driver, once the shard has started.
    pub fn driver(&self) -> Option<Driver> {
        Driver::ALL.get((self.driver.get() as usize).checked_sub(1)?).copied()
    }

    /// Answers so far by class, in the order of `CLASSES`.
    pub fn requests(&self) -> [u64; 6] {
        std::array::from_fn(|class| self.classes[class].get())
    }

    /// Refusals so far for `reason`.
    pub fn reason(&self, reason: Reason) -> u64 {
        self.reasons[reason as usize].get()
    }

    /// Limiter decisions of one kind so far.
    pub fn limiter(&self, decision: LimiterDecision) -> u64 {
        self.limiter[decision as usize].get()
    }
}

/// What became of a copy of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyOutcome {
    /// It was answered.
    Sent,
    /// There was no answer.
    Failed,
    /// Too many were under way.
    Dropped,
    /// The request cannot be copied.
    Unfit,
}

impl CopyOutcome {
    /// All of them, in the order of their numbers.
    pub const ALL: [CopyOutcome; 4] =
        [CopyOutcome::Sent, CopyOutcome::Failed, CopyOutcome::Dropped, CopyOutcome::Unfit];

    /// The value of the `outcome` label.
    pub const fn as_str(self) -> &'static str {
        match self {
            CopyOutcome::Sent => "sent",
            CopyOutcome::Failed => "failed",
            CopyOutcome::Dropped => "dropped",
            CopyOutcome::Unfit => "unfit",
        }
    }
}

/// How a limiter decided about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimiterDecision {
    /// Within the limit.
    Conforming,
    /// Refused.
    Limited,
    /// Over the limit, let pass because the limiter only watches.
    DryRun,
}

impl LimiterDecision {
    /// All of them, in the order of their numbers.
    pub const ALL: [LimiterDecision; 3] =
        [LimiterDecision::Conforming, LimiterDecision::Limited, LimiterDecision::DryRun];

    /// The value of the `decision` label.
    pub const fn as_str(self) -> &'static str {
        match self {
            LimiterDecision::Conforming => "conforming",
            LimiterDecision::Limited => "limited",
            LimiterDecision::DryRun => "dry_run",
        }
    }
}

macro_rules! handshake_failures {
    ($($(#[$doc:meta])+ $variant:ident = $name:literal,)+) => {
        /// Why a TLS handshake with a client came to nothing.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum HandshakeFailure { $($(#[$doc])+ $variant,)+ }

        impl HandshakeFailure {
            /// All of them, in the order of their numbers.
            pub const ALL: [HandshakeFailure; [$($name,)+].len()] = [$(HandshakeFailure::$variant,)+];

            /// The value of the `cause` label.
            pub const fn as_str(self) -> &'static str {
                match self { $(HandshakeFailure::$variant => $name,)+ }
            }
        }
    };
}

handshake_failures! {
    /// The client closed the connection in the middle.
    Abandoned = "abandoned",
    /// The client sent a fatal alert, as it does when it does not trust our certificate.
    AlertReceived = "alert_received",
    /// A record does not authenticate.
    BadRecord = "bad_record",
    /// No certificate of the client, where one is required.
    CertificateMissing = "certificate_missing",
    /// The client's certificate does not verify.
    CertificateRefused = "certificate_refused",
    /// A fault of ours.
    Internal = "internal",
    /// No TLS, or no message that it claims to be.
    NotTls = "not_tls",
    /// No version, suite, group or protocol in common.
    NothingInCommon = "nothing_in_common",
    /// HTTP in the clear.
    PlainHttp = "plain_http",
    /// The client breaks the protocol.
    Protocol = "protocol",
    /// The connection broke.
    Reset = "reset",
    /// It took too long.
    TimedOut = "timed_out",
    /// No certificate for the server name, or no route where it would be passed on.
    UnknownName = "unknown_name",
}

/// What drives a shard's sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// A ring of its own.
    IoUring,
    /// Readiness, where io_uring is refused.
    Epoll,
}

impl Driver {
    /// All of them, in the order of their numbers.
    pub const ALL: [Driver; 2] = [Driver::IoUring, Driver::Epoll];

    /// The value of the `driver` label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Driver::IoUring => "io_uring",
            Driver::Epoll => "epoll",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_the_enums_are_their_places() {
        for (i, decision) in LimiterDecision::ALL.into_iter().enumerate() {
            assert_eq!(decision as usize, i);
        }
        for (i, cause) in HandshakeFailure::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, i);
        }
        for driver in Driver::ALL {
            let metrics = ShardMetrics::default();
            assert_eq!(metrics.driver(), None);
            metrics.set_driver(driver);
            assert_eq!(metrics.driver(), Some(driver));
        }
    }

    #[test]
    fn shards_do_not_share_a_cache_line() {
        assert_eq!(align_of::<ShardMetrics>(), 128);
        assert_eq!(size_of::<ShardMetrics>() % 128, 0);
    }
}
