//! Why a packet or a request was let through or refused: one enum for the XDP program's counters and for
//! the proxy's metrics, logs and explanations.
//!
//! Order is part of the map layout: kernel reasons first, each `shadow_*` at a fixed distance from its
//! `drop_*`. Proxy reasons may be added at the end without touching the pinned maps.

macro_rules! reasons {
    ($($(#[$doc:meta])+ $variant:ident = $name:literal,)+) => {
        /// See the module. `repr(u8)`: the value is the index into the kernel's counters.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Reason { $($(#[$doc])+ $variant,)+ }

        impl Reason {
            /// Every reason, by index.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)+];

            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The name in metrics, logs and configuration.
            pub const fn as_str(self) -> &'static str {
                match self { $(Reason::$variant => $name,)+ }
            }
        }
    };
}

reasons! {
    // ---- kernel: passed -------------------------------------------------------------------------------
    /// No listener of ours: another protocol, address or port. Untouched.
    PassNotOurs = "pass_not_ours",
    /// A new connection or a datagram to us, within its limits.
    Pass = "pass",
    /// A segment of a connection that is already open (no initial SYN), within the packet limit.
    PassEstablished = "pass_established",
    /// The source is trusted.
    PassTrusted = "pass_trusted",
    /// The source is on the allow list.
    PassAllowed = "pass_allowed",
    /// Passed uncharged: its bucket lost every try to other CPUs.
    PassContended = "pass_contended",
    /// The gateway's heartbeat is too old, so everything passes.
    DeadGateway = "dead_gateway",
    /// A later fragment to one of our addresses: no ports, charged as a packet.
    Fragment = "fragment",
    /// No whole Ethernet header.
    MalformedEthernet = "malformed_ethernet",
    /// A VLAN tag is cut off.
    MalformedVlan = "malformed_vlan",
    /// IPv4 header cut off, of another version, or shorter than 20 bytes.
    MalformedIpv4 = "malformed_ipv4",
    /// IPv6 header or an extension header cut off, or another version.
    MalformedIpv6 = "malformed_ipv6",
    /// More IPv6 extension headers than looked through, to an address that is not known to be ours.
    ExtensionChainTooLong = "extension_chain_too_long",
    /// TCP cut off before its ports.
    MalformedTcp = "malformed_tcp",
    /// UDP cut off before its ports.
    MalformedUdp = "malformed_udp",
    /// A new connection of an unknown source while unknown sources are over their common limit: its SYN came again, as
    /// those of real hosts do.
    PassRetried = "pass_retried",

    // ---- kernel: dropped ------------------------------------------------------------------------------
    /// The source is on the deny list.
    DropDenied = "drop_denied",
    /// The source is banned.
    DropBanned = "drop_banned",
    /// More packets than the source's limit.
    DropPacketRate = "drop_packet_rate",
    /// More new connections than the source's limit, or too deep in debt for its requests.
    DropConnectionRate = "drop_connection_rate",
    /// More IPv6 extension headers than looked through, to one of our addresses.
    DropExtensionChain = "drop_extension_chain",
    /// To a listener, with a TCP header that the stack would discard.
    DropMalformedTcp = "drop_malformed_tcp",
    /// To a listener, with a UDP header that the stack would discard.
    DropMalformedUdp = "drop_malformed_udp",
    /// More new connections from unknown sources of one /24 or /48 than its limit.
    DropAggregateRate = "drop_aggregate_rate",
    /// More new connections from all unknown sources than their common limit.
    DropUnknownRate = "drop_unknown_rate",
    /// Over the limit of a rule for its port or prefix.
    DropRuleRate = "drop_rule_rate",

    // ---- kernel: passed in shadow mode, would have been dropped (same order) ---------------------------
    /// Shadow of `drop_denied`.
    ShadowDenied = "shadow_denied",
    /// Shadow of `drop_banned`.
    ShadowBanned = "shadow_banned",
    /// Shadow of `drop_packet_rate`.
    ShadowPacketRate = "shadow_packet_rate",
    /// Shadow of `drop_connection_rate`.
    ShadowConnectionRate = "shadow_connection_rate",
    /// Shadow of `drop_extension_chain`.
    ShadowExtensionChain = "shadow_extension_chain",
    /// Shadow of `drop_malformed_tcp`.
    ShadowMalformedTcp = "shadow_malformed_tcp",
    /// Shadow of `drop_malformed_udp`.
    ShadowMalformedUdp = "shadow_malformed_udp",
    /// Shadow of `drop_aggregate_rate`.
    ShadowAggregateRate = "shadow_aggregate_rate",
    /// Shadow of `drop_unknown_rate`.
    ShadowUnknownRate = "shadow_unknown_rate",
    /// Shadow of `drop_rule_rate`.
    ShadowRuleRate = "shadow_rule_rate",

    // ---- proxy: the client's message ------------------------------------------------------------------
    /// Request line is not `method SP target SP version`.
    BadRequestLine = "bad_request_line",
    /// Method is not a token.
    BadMethod = "bad_method",
    /// Request target is in no form of RFC 9112 section 3.2.
    BadTarget = "bad_target",
    /// Not `HTTP/` digit dot digit.
    BadVersion = "bad_version",
    /// A header line that RFC 9110 section 5 does not allow.
    BadHeader = "bad_header",
    /// Header folded over lines (RFC 9112 section 5.2).
    ObsFold = "obs_fold",
    /// A line that ends in LF without CR.
    BareLf = "bare_lf",
    /// HTTP/1.1 without Host.
    MissingHost = "missing_host",
    /// More than one Host, or Host against the target's authority.
    DuplicateHost = "duplicate_host",
    /// Content-Length and Transfer-Encoding together, or differing lengths.
    AmbiguousLength = "ambiguous_length",
    /// Content-Length is not a number in range.
    BadContentLength = "bad_content_length",
    /// Transfer-Encoding whose last coding is not chunked, or repeated.
    BadTransferEncoding = "bad_transfer_encoding",
    /// Chunk size, extension or terminator malformed.
    BadChunk = "bad_chunk",
    /// A transfer coding other than chunked (501).
    UnsupportedTransferCoding = "unsupported_transfer_coding",
    /// Request target over its limit (414).
    UriTooLong = "uri_too_long",
    /// Head over its limit (431).
    HeaderTooLarge = "header_too_large",
    /// More header fields than allowed (431).
    TooManyHeaders = "too_many_headers",
    /// Body over its limit (413).
    BodyTooLarge = "body_too_large",
    /// Expect other than 100-continue (417).
    UnsupportedExpectation = "unsupported_expectation",
    /// HTTP version we do not speak (505).
    UnsupportedVersion = "unsupported_version",
    /// CONNECT is not served.
    ConnectRefused = "connect_refused",
    /// TRACE is not served.
    TraceRefused = "trace_refused",
    /// Path with a bad or forbidden percent-encoding.
    BadPathEncoding = "bad_path_encoding",
    /// The request head did not arrive in time.
    RequestTimeout = "request_timeout",
    /// The request body did not arrive in time.
    BodyTimeout = "body_timeout",

    // ---- proxy: routing and upstream ------------------------------------------------------------------
    /// No route matches (404).
    NoRoute = "no_route",
    /// No target may be tried (503).
    NoHealthyTarget = "no_healthy_target",
    /// Connecting to the target failed (502).
    ConnectFailed = "connect_failed",
    /// Connecting to the target took too long (504).
    ConnectTimeout = "connect_timeout",
    /// The target closed or reset before its response (502).
    UpstreamReset = "upstream_reset",
    /// The target did not answer in time (504).
    UpstreamTimeout = "upstream_timeout",
    /// The target's response does not parse (502).
    UpstreamBadResponse = "upstream_bad_response",
    /// The target's body ended early.
    UpstreamTruncated = "upstream_truncated",
    /// The target broke its protocol after the head.
    UpstreamProtocolError = "upstream_protocol_error",
    /// The client went away first.
    ClientAborted = "client_aborted",

    // ---- proxy: policy --------------------------------------------------------------------------------
    /// Over a configured rate limit (429).
    RateLimited = "rate_limited",
    /// The source is in debt in the bucket that the kernel shares (429).
    SourceLimited = "source_limited",
    /// No credential (401).
    UnauthorizedMissing = "unauthorized_missing",
    /// A credential that does not verify (401).
    UnauthorizedInvalid = "unauthorized_invalid",
    /// A credential past its time (401).
    UnauthorizedExpired = "unauthorized_expired",
    /// Known, not allowed (403).
    Forbidden = "forbidden",

    // ---- proxy: connection ----------------------------------------------------------------------------
    /// TLS handshake failed.
    TlsHandshakeFailed = "tls_handshake_failed",
    /// TLS handshake did not finish in time.
    TlsHandshakeTimeout = "tls_handshake_timeout",
    /// Plain HTTP on a TLS listener.
    PlainHttpOnTls = "plain_http_on_tls",
    /// No certificate for the requested name.
    UnknownSni = "unknown_sni",
    /// Too many connections, in all or from this source.
    ConnectionLimit = "connection_limit",
    /// Shutting down.
    Draining = "draining",
    /// A fault of ours (500).
    InternalError = "internal_error",
    /// A trusted balancer's connection without a valid PROXY header.
    BadProxyHeader = "bad_proxy_header",
    /// A tunnel was silent for too long.
    TunnelIdle = "tunnel_idle",

    // ---- proxy: HTTP/2 (RFC 9113) -----------------------------------------------------------------------
    /// Frames that RFC 9113 does not allow.
    H2ProtocolError = "h2_protocol_error",
    /// The HTTP/2 preface where only HTTP/1.1 is spoken.
    H2Preface = "h2_preface",
    /// Streams opened and reset faster than the limit (CVE-2023-44487).
    H2RapidReset = "h2_rapid_reset",
    /// Streams that the client made us reset faster than the limit (CVE-2025-8671).
    H2MadeYouReset = "h2_made_you_reset",
    /// More CONTINUATION frames than the limit.
    H2ContinuationFlood = "h2_continuation_flood",
    /// More SETTINGS frames than the limit.
    H2SettingsFlood = "h2_settings_flood",
    /// More PING frames than the limit.
    H2PingFlood = "h2_ping_flood",
    /// More PRIORITY frames than the limit.
    H2PriorityFlood = "h2_priority_flood",
    /// More empty DATA frames than the limit.
    H2EmptyDataFlood = "h2_empty_data_flood",
    /// More WINDOW_UPDATE frames than the limit.
    H2WindowUpdateFlood = "h2_window_update_flood",
    /// A header list over its limit, once decoded.
    H2HeaderList = "h2_header_list",
    /// Streams whose window the client keeps shut.
    H2StalledWindow = "h2_stalled_window",
    /// A stream that the client reset.
    H2StreamReset = "h2_stream_reset",

    // ---- proxy: time, size and identity -------------------------------------------------------------------
    /// A request body slower than the least rate (408).
    SlowRequest = "slow_request",
    /// A client that reads its response slower than the least rate.
    SlowReader = "slow_reader",
    /// The exchange took longer than it may in all (504).
    TotalTimeout = "total_timeout",
    /// The deadline of a gRPC call passed.
    GrpcDeadline = "grpc_deadline",
    /// A message that is not gRPC or gRPC-Web as its content type says.
    BadGrpcMessage = "bad_grpc_message",
    /// A TLS client without the certificate that is asked for.
    ClientCertificateMissing = "client_certificate_missing",
    /// A client certificate that does not verify.
    ClientCertificateInvalid = "client_certificate_invalid",
    /// A request for a name that its TLS connection was not made for (421).
    MisdirectedRequest = "misdirected_request",
    /// A TLS stream to be passed on, with a name that no route takes.
    NoPassthroughRoute = "no_passthrough_route",
    /// The request has been through this gateway too often (508).
    LoopDetected = "loop_detected",

    // ---- proxy: policy, continued -------------------------------------------------------------------------
    /// More exchanges at once than allowed (429 or 503).
    ConcurrencyLimited = "concurrency_limited",
    /// The store of a limit does not answer, and the limit is to hold (500).
    LimiterUnavailable = "limiter_unavailable",
    /// The breaker of the upstream or of its targets is open (503).
    BreakerOpen = "breaker_open",
    /// The queue for connections to the upstream is full (503).
    QueueFull = "queue_full",
    /// Waited too long in the queue for a connection to the upstream (503).
    QueueTimeout = "queue_timeout",
    /// The external authority said no.
    ExternalDenied = "external_denied",
    /// The external authority could not be asked.
    ExternalUnavailable = "external_unavailable",
    /// Keys to verify a token with could not be had.
    KeysUnavailable = "keys_unavailable",
    /// A signed request that was seen before (401).
    ReplayedRequest = "replayed_request",
    /// A body that its schema or transformation does not take (400).
    InvalidBody = "invalid_body",
    /// A response too large for what is to be done with it (502).
    ResponseTooLarge = "response_too_large",
    /// A fault that was asked for.
    FaultInjected = "fault_injected",
    /// The client's agent is not served (403).
    BotDetected = "bot_detected",
    /// The source is banned by an operator or for its behaviour.
    SourceBanned = "source_banned",
}

const FIRST_DROP: usize = Reason::DropDenied as usize;
const FIRST_SHADOW: usize = Reason::ShadowDenied as usize;

impl Reason {
    /// How many of them, from the first, the kernel counts.
    pub const KERNEL_COUNT: usize = Reason::ShadowRuleRate as usize + 1;

    /// Index of the first reason that drops a packet; the bit of a drop in [`crate::Config::shadow`] counts from it.
    pub const FIRST_DROP: usize = FIRST_DROP;

    /// Index of the first shadow.
    pub const FIRST_SHADOW: usize = FIRST_SHADOW;

    /// The reason with this index.
    pub const fn from_index(index: usize) -> Option<Reason> {
        if index < Self::COUNT { Some(Self::ALL[index]) } else { None }
    }

    /// For a kernel drop, its bit in [`crate::Config::shadow`] and [`crate::Config::reset`]; 0 for the rest.
    #[inline(always)]
    pub const fn drop_bit(self) -> u64 {
        if self.drops_packet() { 1 << (self as usize - FIRST_DROP) } else { 0 }
    }

    /// Whether the XDP program drops a packet for this reason.
    #[inline(always)]
    pub const fn drops_packet(self) -> bool {
        let index = self as usize;
        index >= FIRST_DROP && index < FIRST_SHADOW
    }

    /// For a kernel drop, the reason it is counted under in shadow mode.
    pub const fn shadow(self) -> Option<Reason> {
        if self.drops_packet() { Self::from_index(self as usize + SHADOW_OFFSET) } else { None }
    }

    /// Distance from a kernel drop to its shadow, in indexes.
    pub const SHADOW_OFFSET: usize = SHADOW_OFFSET;
}

const SHADOW_OFFSET: usize = FIRST_SHADOW - FIRST_DROP;

const _: () = assert!(Reason::COUNT <= 256, "a reason is a byte in counters, bans and logs");
const _: () = assert!(FIRST_SHADOW + SHADOW_OFFSET == Reason::KERNEL_COUNT, "every drop has its shadow");
