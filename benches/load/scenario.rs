//! The jobs that every proxy gets.

use crate::proxies::Proxy;
use crate::tokens;

/// Where a request goes and what is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// HTTP/1.1, 200-byte bodies, 64 keep-alive connections
    Plain,
    /// The same over TLS 1.3
    Tls,
    /// HTTP/2 over TLS 1.3, 200-byte bodies, 16 connections with 8 streams each
    Http2,
    /// A full TLS 1.3 handshake for each request, no resumption
    Handshake,
    /// TLS, an RS256 token from 256 in turn, a limit per address, two headers added and one removed each way
    Tokens,
    /// HTTP/1.1, 16 KiB bodies
    Large,
    /// Resident memory of 3000 idle keep-alive connections
    Idle,
    /// Portcullis alone: four plugins beside none, on one listener
    Chain,
    /// Portcullis alone: a reload of a million API keys under load
    Reload,
}

/// The listener of a proxy that a job talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Plain,
    Tls,
    /// TLS, and HTTP/2 by ALPN.
    Http2,
    Tokens,
}

impl Scenario {
    pub const ALL: [Self; 9] = [
        Self::Plain,
        Self::Tls,
        Self::Http2,
        Self::Handshake,
        Self::Tokens,
        Self::Large,
        Self::Idle,
        Self::Chain,
        Self::Reload,
    ];

    /// Whether proxies are measured in turn; the others have a way of their own.
    pub fn is_side_by_side(self) -> bool {
        !matches!(self, Self::Idle | Self::Chain | Self::Reload)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Tls => "tls",
            Self::Http2 => "http2",
            Self::Handshake => "handshake",
            Self::Tokens => "tokens",
            Self::Large => "large",
            Self::Idle => "idle",
            Self::Chain => "chain",
            Self::Reload => "reload",
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            Self::Plain => "HTTP/1.1, 200 B, 64 keep-alive connections",
            Self::Tls => "the same over TLS 1.3",
            Self::Http2 => "HTTP/2 over TLS 1.3, 200 B, 16 connections with 8 streams, HTTP/1.1 origin",
            Self::Handshake => "full TLS 1.3 handshake for each request",
            Self::Tokens => "TLS 1.3, RS256 token, limit per address, headers rewritten",
            Self::Large => "HTTP/1.1, 16 KiB, 64 keep-alive connections",
            Self::Idle => "3000 idle keep-alive connections",
            Self::Chain => {
                "jwt, rate-limiting, request-transformer and response-transformer, beside a route without"
            }
            Self::Reload => "reload of 1,000,000 API keys under 4000 requests per second",
        }
    }

    pub fn door(self) -> Door {
        match self {
            Self::Plain | Self::Large | Self::Idle | Self::Chain | Self::Reload => Door::Plain,
            Self::Tls | Self::Handshake => Door::Tls,
            Self::Http2 => Door::Http2,
            Self::Tokens => Door::Tokens,
        }
    }

    pub fn path(self) -> &'static str {
        match self {
            Self::Large => "/16k",
            _ => "/small",
        }
    }

    /// Headers that wrk adds to each request.
    pub fn headers(self) -> &'static [&'static str] {
        match self {
            Self::Handshake => &["Connection: close"],
            _ => &[],
        }
    }

    /// The Lua that forms the requests, where one plain GET is not the job.
    pub fn requests(self, tokens: &[String]) -> String {
        match self {
            Self::Tokens | Self::Chain => tokens::script(tokens, self.path(), &[REMOVED_REQUEST_HEADER]),
            _ => String::new(),
        }
    }

    /// Open-source nginx checks no tokens.
    pub fn suits(self, proxy: Proxy) -> bool {
        !(self == Self::Tokens && proxy == Proxy::Nginx)
    }

    /// Whom the target is against: HAProxy alone where the job is about what nginx does another way or not at all.
    pub fn against(self) -> &'static [Proxy] {
        match self {
            Self::Http2 | Self::Handshake | Self::Tokens => &[Proxy::Haproxy],
            _ => &[Proxy::Nginx, Proxy::Haproxy],
        }
    }

    /// Largest allowed ratio of Portcullis's CPU per request to the better of [`Self::against`].
    pub fn target(self) -> Option<f64> {
        match self {
            Self::Plain | Self::Tls => Some(0.70),
            Self::Http2 => Some(1.00),
            Self::Handshake => Some(0.60),
            Self::Tokens => Some(0.40),
            Self::Large | Self::Idle | Self::Chain | Self::Reload => None,
        }
    }
}

/// What the token job rewrites. The origin sends `X-Origin`, wrk sends `X-Debug`.
pub const REMOVED_REQUEST_HEADER: (&str, &str) = ("X-Debug", "1");
pub const REMOVED_RESPONSE_HEADER: &str = "X-Origin";
pub const ADDED_REQUEST_HEADERS: [(&str, &str); 2] = [("X-Gateway", "load"), ("X-Plan", "gold")];
pub const ADDED_RESPONSE_HEADERS: [(&str, &str); 2] =
    [("X-Served-By", "gateway"), ("X-Content-Type-Options", "nosniff")];
/// Requests a minute that no run reaches, so that the limit is counted and never met.
pub const LIMIT_PER_MINUTE: u64 = 1_000_000_000;
