//! HTTP messages: heads, bodies, framing rules, path normalisation.
//!
//! Owns the types that the rest of the gateway sees a message through ([`RequestHead`],
//! [`ResponseHead`], [`Head`]), and the wire formats behind them ([`h1`]). Everything here is a
//! pure function over byte slices: no I/O, no clock, no global state, and no allocation once the
//! arenas of the heads are warm.
//!
//! Invariant: what leaves this module is unambiguous. A message whose end, target, path or host
//! could be read in two ways is refused with a [`Refusal`], never repaired.
//!
//! Read `head` next, then `h1`.

mod authority;
#[cfg(not(fuzzing))]
pub mod coding;
pub mod date;
pub mod forwarded;
pub mod grpc;
pub mod grpc_web;
pub mod h1;
// The fuzz targets take in this tree without its dependencies (so without `coding`), and of `h2` the pure part by itself.
#[cfg(not(fuzzing))]
pub mod h2;
pub mod head;
pub mod hops;
pub mod known;
pub mod method;
mod name;
pub mod path;
pub mod proxy_protocol;
pub mod query;
pub mod refusal;
pub mod request;
pub mod response;
mod target;
pub mod trailers;
pub mod underscores;
pub mod websocket;

pub use head::{Head, Span};
pub use known::{Known, KnownSet};
pub use method::Method;
pub use name::FieldName;
pub use path::{Doubtful, PathPolicy};
pub use query::Parameter;
pub use refusal::{Reason, Refusal};
pub use request::RequestHead;
pub use response::ResponseHead;
pub use trailers::TrailerLimits;
pub use underscores::Underscores;

/// The protocol version that a message was sent with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each variant is the version of that name")]
pub enum Version {
    Http10,
    #[default]
    Http11,
    Http2,
}

/// The scheme that a request names in its target (RFC 9112 section 3.2.2, RFC 9113 section 8.3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[expect(missing_docs, reason = "each variant is the scheme of that name")]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    /// The port of an authority that names none (RFC 9110 section 4.2).
    pub const fn default_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}
