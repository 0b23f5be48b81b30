//! Services: what requests are sent on to.

use std::net::SocketAddr;
use std::time::Duration;

use super::{CaCertificateRef, CertificateRef, HttpVersion, OwnTimeouts, UpstreamRef};
use crate::source::Origin;

/// A service: one upstream API and how to talk to it (Kong `services`).
#[derive(Clone, Debug)]
pub struct Service {
    /// The name; the key path of the service when the file gives none. Unique.
    pub name: String,
    /// Kong's id, kept for references.
    pub id: Option<String>,
    /// How to speak to it.
    pub protocol: Protocol,
    /// The HTTP spoken to the targets.
    pub http_version: HttpVersion,
    /// Where it is.
    pub destination: Destination,
    /// Put before the rest of the request path, as written: it starts with `/`. `/` alone is `None`.
    pub path: Option<String>,
    /// Longest wait for a connection to a target.
    pub connect_timeout: Duration,
    /// Longest pause between two successful writes of the request.
    pub write_timeout: Duration,
    /// Longest wait for the first byte of the response: `read_timeout`, else `timeouts.first_byte`.
    pub first_byte_timeout: Duration,
    /// Longest pause between two successful reads of the response: `read_timeout`, else
    /// `timeouts.upstream_body_idle`. Kong has one number for both.
    pub body_idle_timeout: Duration,
    /// Bounds on time of its own, which count before the ones above.
    pub timeouts: OwnTimeouts,
    /// Whether the targets are sent the trailer fields of requests.
    pub request_trailers: bool,
    /// Further attempts after a failed one, 0 to 32767.
    pub retries: u32,
    /// When there is another attempt.
    pub retry_policy: RetryPolicy,
    /// A disabled service answers nothing; its routes are left out of the router.
    pub enabled: bool,
    /// TLS towards the targets; meaningful for [`Protocol::is_tls`] protocols.
    pub tls: UpstreamTls,
    /// The PROXY header that connections to targets begin with.
    pub proxy_protocol: ProxyHeader,
    /// Free labels.
    pub tags: Vec<String>,
    /// Where it was written.
    pub origin: Origin,
}

/// When a failed attempt is followed by another (Envoy's `retry_policy`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetryPolicy {
    /// After no connection was had.
    pub on_connect: bool,
    /// After the target refused the stream unseen.
    pub on_refused: bool,
    /// After the connection ended before the response.
    pub on_reset: bool,
    /// After no response came in time.
    pub on_timeout: bool,
    /// After a malformed response.
    pub on_bad_response: bool,
    /// After these statuses, 400 to 599.
    pub on_statuses: Vec<u16>,
    /// Longest that one attempt takes to the head of its response.
    pub per_try_timeout: Option<Duration>,
    /// Bound of the first pause before another attempt; zero for none.
    pub base_interval: Duration,
    /// Bound of any such pause.
    pub max_interval: Duration,
    /// Requests of every method are repeated.
    pub any_method: bool,
}

/// What a service's `host` turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The name of an upstream of this configuration. The `port` of the service is then unused, as in Kong.
    Upstream(UpstreamRef),
    /// One fixed place.
    Target(Address),
}

/// An address to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A literal address.
    Socket(SocketAddr),
    /// A DNS name with a port.
    Name {
        /// The name, lower case, without a trailing dot.
        host: String,
        /// The port, 1 to 65535.
        port: u16,
    },
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// TLS towards an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Whether the certificate of the target is verified.
    pub verify: bool,
    /// Longest chain accepted; `None` leaves it to the TLS library.
    pub verify_depth: Option<u8>,
    /// Authorities to verify against; empty for those of the system.
    pub ca_certificates: Vec<CaCertificateRef>,
    /// What to present when the target asks for a client certificate.
    pub client_certificate: Option<CertificateRef>,
    /// Server name to ask for and to verify; `None` for the target's own.
    pub sni: Option<String>,
    /// Names of which the certificate must have one, in place of the server name; empty for that.
    pub sans: SubjectNames,
}

/// Names that a certificate may have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubjectNames {
    /// DNS names.
    pub dns: Vec<String>,
    /// URIs.
    pub uris: Vec<String>,
}

/// The PROXY header of connections to targets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ProxyHeader {
    /// None.
    #[default]
    Off,
    /// Version 1: a line of text.
    V1,
    /// Version 2: binary.
    V2,
}

/// A protocol of a service, route or plugin (Kong's words).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
    /// gRPC over plain HTTP/2.
    Grpc,
    /// gRPC over TLS.
    Grpcs,
    /// WebSocket.
    Ws,
    /// WebSocket over TLS.
    Wss,
    /// A TCP stream.
    Tcp,
    /// A TLS stream ended here.
    Tls,
    /// A TLS stream passed on unopened.
    TlsPassthrough,
    /// Datagrams.
    Udp,
}

impl Protocol {
    /// Every protocol, in the order of [`Protocol::WORDS`].
    pub const ALL: [Self; 10] = [
        Self::Http,
        Self::Https,
        Self::Grpc,
        Self::Grpcs,
        Self::Ws,
        Self::Wss,
        Self::Tcp,
        Self::Tls,
        Self::TlsPassthrough,
        Self::Udp,
    ];

    /// The words of the configuration, in the order of [`Protocol::ALL`].
    pub const WORDS: [&'static str; 10] =
        ["http", "https", "grpc", "grpcs", "ws", "wss", "tcp", "tls", "tls_passthrough", "udp"];

    /// The protocol for a word of the configuration.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::WORDS.iter().position(|known| *known == word).map(|at| Self::ALL[at])
    }

    /// The word of the configuration.
    pub fn as_str(self) -> &'static str {
        Self::WORDS[self as usize]
    }

    /// Whether TLS is spoken.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Grpcs | Self::Wss | Self::Tls)
    }

    /// Whether it is carried in HTTP, so that routes by path and header make sense.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Https | Self::Grpc | Self::Grpcs | Self::Ws | Self::Wss)
    }

    /// The port used when none is written. Kong gives 80 whatever the protocol of a separate `port` key,
    /// and 443 only in a `url` with https, grpcs, wss or tls.
    pub fn default_port(self) -> u16 {
        if self.is_tls() { 443 } else { 80 }
    }
}
