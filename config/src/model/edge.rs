//! The downstream edge: listeners and certificates.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{CertificateRef, HostPattern};
use crate::secret::Secret;
use crate::source::Origin;

/// A socket that clients connect to. Every shard opens its own with `SO_REUSEPORT`.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Name for metrics and logs; the address when the file gives none. Unique.
    pub name: String,
    /// Where it listens; unique.
    pub address: SocketAddr,
    /// Whether HTTP/2 without TLS is accepted (prior knowledge). Kept; not acted on yet.
    pub h2c: bool,
    /// Whether a trusted balancer begins each connection with a PROXY protocol header (versions 1 and 2).
    pub proxy_protocol: bool,
    /// Length of the kernel's queue of connections waiting to be accepted.
    pub backlog: u32,
    /// TLS, when the listener speaks it.
    pub tls: Option<ListenerTls>,
    /// Where it was written; default when no listener was.
    pub origin: Origin,
}

/// TLS of a listener.
#[derive(Clone, Debug)]
pub struct ListenerTls {
    /// Certificates offered, chosen by server name; never empty.
    pub certificates: Vec<CertificateRef>,
    /// What a client gets whose server name matches none or who sends none; `None` refuses it.
    pub default_certificate: Option<CertificateRef>,
    /// Oldest version accepted.
    pub min_version: TlsVersion,
    /// Application protocols offered, best first. `h2` is kept but not acted on yet.
    pub alpn: Vec<Alpn>,
    /// Whether sessions can be resumed with tickets.
    pub session_tickets: bool,
}

/// A TLS version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsVersion {
    /// RFC 5246.
    V1_2,
    /// RFC 8446.
    V1_3,
}

/// An application protocol of a TLS handshake (RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Alpn {
    /// HTTP/2.
    H2,
    /// HTTP/1.1.
    Http11,
}

impl Alpn {
    /// The identifier in the handshake.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::H2 => "h2",
            Self::Http11 => "http/1.1",
        }
    }
}

/// A certificate with its private key (Kong `certificates`).
#[derive(Clone, Debug)]
pub struct Certificate {
    /// Kong's id, or the name that references use. Unique.
    pub id: String,
    /// The chain, leaf first, in PEM.
    pub cert: Pem,
    /// The private key in PEM.
    pub key: Pem,
    /// Server names it is offered for; empty for the names in the certificate itself.
    pub snis: Vec<HostPattern>,
    /// Free labels.
    pub tags: Vec<String>,
    /// Where it was written.
    pub origin: Origin,
}

/// A certificate authority (Kong `ca_certificates`).
#[derive(Clone, Debug)]
pub struct CaCertificate {
    /// Kong's id, or the name that references use. Unique.
    pub id: String,
    /// The certificate in PEM.
    pub cert: Pem,
    /// Free labels.
    pub tags: Vec<String>,
    /// Where it was written.
    pub origin: Origin,
}

/// PEM text, or the file that holds it. The file is read when the snapshot is compiled, not here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pem {
    /// Written in the configuration.
    Inline(Secret),
    /// In a file; relative paths are already joined to the folder of the configuration file.
    File(PathBuf),
}
