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
}

const FIRST_DROP: usize = Reason::DropDenied as usize;
const FIRST_SHADOW: usize = Reason::ShadowDenied as usize;

impl Reason {
    /// How many of them, from the first, the kernel counts.
    pub const KERNEL_COUNT: usize = Reason::ShadowMalformedUdp as usize + 1;

    /// The reason with this index.
    pub const fn from_index(index: usize) -> Option<Reason> {
        if index < Self::COUNT { Some(Self::ALL[index]) } else { None }
    }

    /// Whether the XDP program drops a packet for this reason.
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
