//! TLS on both sides of the gateway: certificates, server and client configurations, the choice of a
//! certificate by name, tickets that resume on any shard, and a connection that speaks bytes only.
//!
//! Owns: every use of rustls, and the one crypto provider (aws-lc-rs). Never: a socket, a timer, or the
//! configuration file; callers hand in bytes, options and names.
//!
//! Invariant: nothing here is shared between shards but immutable configurations and the [`Ticketer`],
//! whose key is read-locked once for each ticket made or opened and replaced every six hours.
//!
//! Next to read: [`session`], then [`config`].

pub mod certificate;
pub mod config;
pub mod fault;
mod intake;
pub mod resolve;
pub mod session;
mod stream;

#[cfg(test)]
mod tests;

pub(crate) use certificate::read_file;
pub use certificate::{Certificate, Roots};
pub use config::{
    Alpn, ClientConfig, ClientOptions, ServerConfig, ServerOptions, Ticketer, Verify, Version, VersionRange,
    client_config, server_config,
};
pub use fault::{Blame, FaultKind, TlsError, TlsFault, looks_like_plain_http};
pub use intake::{BODY_ROOM, HEAD_ROOM, Intake, RESPONSE_HEADROOM};
pub use resolve::CertificateEntry;
pub use session::{End, Session};
pub use stream::{HandshakeError, Rx, Stream, Tx};
