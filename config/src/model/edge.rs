//! The downstream edge: listeners and certificates.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{CaCertificateRef, CertificateRef, HostPattern};
use crate::secret::Secret;
use crate::source::Origin;

/// A socket that clients connect to. Every shard opens its own with `SO_REUSEPORT`.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Name for metrics and logs; the address when the file gives none. Unique.
    pub name: String,
    /// Where it listens; unique.
    pub address: SocketAddr,
    /// Whether HTTP/2 without TLS is accepted (prior knowledge).
    pub h2c: bool,
    /// Whether a trusted balancer begins each connection with a PROXY protocol header (versions 1 and 2).
    pub proxy_protocol: bool,
    /// Length of the kernel's queue of connections waiting to be accepted.
    pub backlog: u32,
    /// TLS, when the listener speaks it.
    pub tls: Option<ListenerTls>,
    /// Every request is told to come back over HTTPS.
    pub redirect_https: Option<RedirectHttps>,
    /// Strict transport security of what is answered over TLS.
    pub hsts: Option<Hsts>,
    /// What upstreams see in `X-Forwarded-Client-Cert`.
    pub forwarded_client_cert: ForwardedClientCert,
    /// Where it was written; default when no listener was.
    pub origin: Origin,
}

/// The redirection of a listener to HTTPS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedirectHttps {
    /// 301, 302, 307 or 308.
    pub status: u16,
    /// Port of the HTTPS listener as clients see it.
    pub port: u16,
}

/// Strict transport security (RFC 6797).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hsts {
    /// How long browsers use HTTPS only.
    pub max_age: Duration,
    /// Whether it goes for all names below.
    pub include_subdomains: bool,
    /// Whether the name may be put on browsers' lists.
    pub preload: bool,
}

/// What upstreams see in `X-Forwarded-Client-Cert` (Envoy's `forward_client_cert_details`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardedClientCert {
    /// Nothing.
    Sanitize,
    /// The certificate of this connection's client.
    #[default]
    SanitizeSet,
    /// It, added to what a trusted client says, if the client showed one.
    AppendForward,
    /// What a trusted client says, if it showed a certificate.
    ForwardOnly,
    /// What a trusted client says.
    AlwaysForwardOnly,
}

/// TLS of a listener.
#[derive(Clone, Debug)]
pub struct ListenerTls {
    /// Certificates offered, chosen by server name; empty only with [`Passthrough::Only`].
    pub certificates: Vec<CertificateRef>,
    /// What a client gets whose server name matches none or who sends none; `None` refuses it.
    pub default_certificate: Option<CertificateRef>,
    /// Oldest version accepted.
    pub min_version: TlsVersion,
    /// Cipher suites, best first; empty for those of the policy.
    pub ciphers: Vec<Cipher>,
    /// Groups for the key exchange, best first; never empty.
    pub curves: Vec<Curve>,
    /// Whether clients are asked for certificates, unless the certificate they get says otherwise.
    pub client_auth: ClientAuth,
    /// Whether connections are passed on unopened.
    pub passthrough: Passthrough,
    /// Application protocols offered, best first.
    pub alpn: Vec<Alpn>,
    /// Whether sessions can be resumed with tickets.
    pub session_tickets: bool,
}

/// Whether clients are asked for certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientAuth {
    /// Whether, and whether they must.
    pub mode: ClientAuthMode,
    /// Who must have signed them; empty only with [`ClientAuthMode::None`].
    pub ca_certificates: Vec<CaCertificateRef>,
    /// Most certificates between a client's and the authority's.
    pub verify_depth: Option<u8>,
    /// Files with lists of revoked certificates.
    pub crl_files: Vec<PathBuf>,
}

/// How clients are asked for certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuthMode {
    /// Not at all.
    #[default]
    None,
    /// They may show one.
    Optional,
    /// They must.
    Require,
}

/// Whether TLS connections are passed on unopened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Passthrough {
    /// None is.
    #[default]
    Off,
    /// Those that a route takes by their server name; the others end here.
    Mixed,
    /// Those that a route takes; the others are refused.
    Only,
}

/// A TLS version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsVersion {
    /// RFC 5246.
    V1_2,
    /// RFC 8446.
    V1_3,
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "the names say it")]
        pub enum $name { $($variant,)+ }

        impl $name {
            /// The words of the configuration.
            pub const WORDS: [&'static str; [$($name::$variant,)+].len()] = [$($word,)+];

            /// What a word means.
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

words! {
    /// A cipher suite, by its name in the IANA registry.
    Cipher {
        Aes128 = "TLS_AES_128_GCM_SHA256",
        Aes256 = "TLS_AES_256_GCM_SHA384",
        ChaCha20 = "TLS_CHACHA20_POLY1305_SHA256",
        EcdsaAes128 = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        EcdsaAes256 = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        EcdsaChaCha20 = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        RsaAes128 = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        RsaAes256 = "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        RsaChaCha20 = "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    }
}

impl Cipher {
    /// The version of TLS that has it.
    pub fn version(self) -> TlsVersion {
        match self {
            Self::Aes128 | Self::Aes256 | Self::ChaCha20 => TlsVersion::V1_3,
            _ => TlsVersion::V1_2,
        }
    }
}

words! {
    /// A group for the key exchange, by its name in the IANA registry or NIST's.
    Curve {
        X25519MlKem768 = "X25519MLKEM768",
        Secp256r1MlKem768 = "SecP256r1MLKEM768",
        X25519 = "X25519",
        P256 = "P-256",
        P384 = "P-384",
    }
}

impl Curve {
    /// What is offered where nothing is said.
    pub const DEFAULT: [Self; 4] = [Self::X25519MlKem768, Self::X25519, Self::P256, Self::P384];
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
    /// File with an OCSP response to staple.
    pub ocsp_file: Option<PathBuf>,
    /// What is asked of clients of these server names, in place of what the listener says.
    pub client_auth: Option<ClientAuth>,
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
    /// Kong's id beside a name; references may use it too.
    pub uuid: Option<String>,
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

/// Keys of session tickets (`tickets`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tickets {
    /// File with the keys; random ones without it.
    pub key_file: Option<PathBuf>,
    /// How long a random key seals.
    pub rotation: Duration,
}

/// Where trusted proxies name the client (`real_ip_header`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RealIpHeader {
    /// `X-Forwarded-For`, and `X-Real-IP` where there is none.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
    /// No field: only a PROXY header.
    ProxyProtocol,
    /// Another field with addresses, lower case.
    Other(String),
}
