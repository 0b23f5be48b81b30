//! Routes: which requests go to which service.

use std::time::Duration;

use super::{OwnTimeouts, Protocol, ServiceRef};
use crate::rule::Rule;
use crate::source::Origin;

/// A route (Kong `routes`). A request must match every kind of condition that is not empty, and one value of
/// each.
#[derive(Clone, Debug)]
pub struct Route {
    /// The name; the key path of the route when the file gives none. Unique.
    pub name: String,
    /// Kong's id, kept for references.
    pub id: Option<String>,
    /// Where requests go; `None` is a route that only plugins answer (Kong allows it).
    pub service: Option<ServiceRef>,
    /// Host conditions.
    pub hosts: Vec<HostPattern>,
    /// Path conditions.
    pub paths: Vec<PathPattern>,
    /// Method conditions, upper case.
    pub methods: Vec<String>,
    /// Header conditions.
    pub headers: Vec<HeaderMatch>,
    /// Conditions on the TLS server name; they apply to TLS connections only, as in Kong.
    pub snis: Vec<HostPattern>,
    /// A condition of any form, beside the others.
    pub rule: Option<Rule>,
    /// Precedence before every other: higher first. Left out, it is the length of the rule, else 0.
    pub priority: i64,
    /// Protocols that the downstream connection may use.
    pub protocols: Vec<Protocol>,
    /// Whether the matched prefix is cut off before the request is sent on.
    pub strip_path: bool,
    /// Whether the client's `Host` is sent on instead of the target's.
    pub preserve_host: bool,
    /// Order among matching regular-expression paths: higher first.
    pub regex_priority: i64,
    /// How service path and request path are joined.
    pub path_handling: PathHandling,
    /// Status when a request arrives in plain HTTP on a route that allows only TLS: 426 refuses, 301, 302, 307
    /// and 308 redirect.
    pub https_redirect_status_code: u16,
    /// Whether the whole request body is read before the upstream sees any of it.
    pub request_buffering: bool,
    /// Whether the whole response body is read before the client sees any of it.
    pub response_buffering: bool,
    /// Largest request body in bytes; `None` for [`super::Limits::body`].
    pub body_limit: Option<u64>,
    /// Body held in memory; `None` for [`super::Limits::buffered_body`].
    pub buffered_body: Option<u64>,
    /// Least bytes a second of a client; 0 for none, `None` for [`super::Limits::min_rate`].
    pub min_rate: Option<u32>,
    /// Time before that is asked; `None` for [`super::Limits::min_rate_after`].
    pub min_rate_after: Option<Duration>,
    /// Bounds on time of its own.
    pub timeouts: OwnTimeouts,
    /// Tokens that one request takes from the bucket of its source; `None` for [`super::Costs::request`].
    pub cost: Option<u32>,
    /// `false` for a route whose conditions this version cannot evaluate (an `expression`, a TCP stream). It
    /// keeps its place so that references resolve; the router must leave it out.
    pub enabled: bool,
    /// Free labels.
    pub tags: Vec<String>,
    /// Where it was written.
    pub origin: Origin,
}

impl Route {
    /// Whether it takes TLS streams that are passed on unopened, and nothing else.
    pub fn is_passthrough(&self) -> bool {
        self.protocols.contains(&Protocol::TlsPassthrough)
    }
}

/// A condition on a host name. Names are lower case, without a trailing dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPattern {
    /// What the name must look like.
    pub name: HostName,
    /// The port that the request's authority must name, when the pattern has one (Kong 2.5 and later).
    pub port: Option<u16>,
}

/// The name part of a host condition. Kong allows one `*`, as the whole first or the whole last label.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostName {
    /// Exactly this name.
    Exact(String),
    /// `*.example.com`: holds `.example.com`. At least one label must stand before it.
    Suffix(String),
    /// `example.*`: holds `example.`. At least one label must stand after it.
    Prefix(String),
}

/// A condition on the normalised request path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathPattern {
    /// The path begins with this text; it starts with `/`.
    Prefix(String),
    /// The path matches, anchored at its beginning (Kong anchors there, and only there).
    Regex(Pattern),
}

/// A regular expression that the `regex` crate is known to compile within its size limit.
///
/// Kept as text because the router decides in what form (bytes, sets) it compiles it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern(pub(crate) String);

impl Pattern {
    /// The expression, without Kong's leading `~` or `~*`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A condition on one header: its name, lower case, and what it may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderMatch {
    /// The header name in lower case.
    pub name: String,
    /// What one of its values must be.
    pub value: HeaderValue,
}

/// What a header must hold. Kong compares header values without regard to case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderValue {
    /// One of these, compared without regard to case; kept in lower case.
    AnyOf(Vec<String>),
    /// The expression matches somewhere in the value, without regard to case (a single value that begins with
    /// `~*`).
    Regex(Pattern),
}

/// How the service path and what is left of the request path are joined (Kong `path_handling`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PathHandling {
    /// Joined with exactly one slash.
    #[default]
    V0,
    /// Appended as they are.
    V1,
}
