//! TLS on both sides of the gateway: certificates, server and client configurations, the choice of a
//! certificate by name, tickets that resume on any shard, and a connection that speaks bytes only.
//!
//! Owns: every use of rustls, and the one crypto provider (aws-lc-rs). Never: a socket, a timer, or the
//! configuration file; callers hand in bytes, options and names.
//!
//! Invariant: nothing here is shared between shards but immutable configurations and the [`Ticketer`],
//! whose keys are read-locked once for each ticket made or opened and replaced every few hours.
//!
//! Next to read: [`session`], then [`config`].

pub mod certificate;
pub mod client_auth;
pub mod config;
mod der;
pub mod fault;
pub mod hello;
mod intake;
mod ocsp;
pub mod peer;
pub mod policy;
pub mod resolve;
pub mod session;
mod stream;
pub mod tickets;
mod verify;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_demands;

pub(crate) use certificate::read_file;
pub use certificate::{Certificate, Roots};
pub use client_auth::{ClientAuth, ClientJudge, Revoked};
pub use config::{
    Alpn, ClientConfig, ClientOptions, Names, ServerConfig, ServerOptions, Verify, client_config,
    server_config,
};
pub use fault::{Blame, FaultKind, TlsError, TlsFault, looks_like_plain_http};
pub use hello::{ALERT_UNRECOGNIZED_NAME, Hello, HelloRead, HelloReader};
pub use intake::{BODY_ROOM, HEAD_ROOM, Intake, RESPONSE_HEADROOM};
pub use peer::Peer;
pub use policy::{Cipher, Curve, Policy, Version, VersionRange};
pub use resolve::CertificateEntry;
pub use session::{Covered, End, Session};
pub use stream::{HandshakeError, Rx, Stream, Tx};
pub use tickets::{HandedKeys, KeyFile, Ticketer};
