//! Server and client configurations, built once for a generation and shared by all shards.
//!
//! Owns: which versions, protocols, certificates and ticket keys a connection may use. Never: reading the
//! configuration file. Invariant: 0-RTT is off on both sides; a replayed request would be charged, logged
//! and forwarded twice (RFC 8446 section 8).

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::server::{NoServerSessionStorage, ProducesTickets};
use rustls::sign::SingleCertAndKey;
use rustls::{DigitallySignedStruct, SignatureScheme, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::certificate::{Certificate, Roots};
use super::fault::TlsError;
use super::resolve::{CertificateEntry, NameTable};

/// A protocol that can be negotiated inside TLS (RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpn {
    H2,
    Http11,
}

impl Alpn {
    /// The identifier on the wire.
    pub fn as_bytes(self) -> &'static [u8] {
        match self {
            Self::H2 => b"h2",
            Self::Http11 => b"http/1.1",
        }
    }

    pub(super) fn from_bytes(id: &[u8]) -> Option<Self> {
        [Self::H2, Self::Http11].into_iter().find(|known| known.as_bytes() == id)
    }
}

/// A version of TLS. Older ones are not spoken (RFC 8996).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    V12,
    V13,
}

impl Version {
    /// As written in logs and configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V12 => "TLSv1.2",
            Self::V13 => "TLSv1.3",
        }
    }
}

/// The versions that may be negotiated, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionRange {
    pub min: Version,
    pub max: Version,
}

impl Default for VersionRange {
    fn default() -> Self {
        Self { min: Version::V12, max: Version::V13 }
    }
}

impl VersionRange {
    // An upside-down range gives an empty list, which rustls refuses with a typed error.
    fn versions(self) -> Vec<&'static SupportedProtocolVersion> {
        let known = [(Version::V13, &rustls::version::TLS13), (Version::V12, &rustls::version::TLS12)];
        known.into_iter().filter(|(v, _)| (self.min..=self.max).contains(v)).map(|(_, v)| v).collect()
    }
}

/// The keys that session tickets are sealed with. One for the whole process and kept across reloads:
/// a ticket sealed on one shard, or under the last generation, must open on every other.
///
/// Keys are replaced every 6 hours and a ticket opens for at most 12.
#[derive(Clone)]
pub struct Ticketer(Option<Arc<dyn ProducesTickets>>);

impl Ticketer {
    /// Fresh random keys.
    pub fn new() -> Result<Self, TlsError> {
        rustls::crypto::aws_lc_rs::Ticketer::new().map(|keys| Self(Some(keys))).map_err(TlsError::Config)
    }

    /// Makes no tickets: every handshake is a full one.
    pub fn off() -> Self {
        Self(None)
    }
}

impl fmt::Debug for Ticketer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticketer")
    }
}

/// What a TLS listener serves.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// The first is also the default. At least one.
    pub certificates: Vec<CertificateEntry>,
    /// Refuse names without a certificate instead of serving the default.
    pub strict_sni: bool,
    pub versions: VersionRange,
    /// In order of preference. Empty: ALPN is neither read nor answered.
    pub alpn: Vec<Alpn>,
    pub ticketer: Ticketer,
}

/// A compiled [`ServerOptions`], shared by all shards. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ServerConfig(pub(super) Arc<rustls::ServerConfig>);

/// Compiles the options of a listener.
pub fn server_config(options: &ServerOptions) -> Result<ServerConfig, TlsError> {
    let names = NameTable::new(&options.certificates, options.strict_sni)?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&options.versions.versions())
        .map_err(TlsError::Config)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(names));
    if let Some(ticketer) = &options.ticketer.0 {
        config.ticketer = Arc::clone(ticketer);
    }
    // Resumption is by ticket alone: rustls' stateful store is a mutex shared by all shards.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.alpn_protocols = wire_ids(&options.alpn);
    Ok(ServerConfig(Arc::new(config)))
}

/// How a target's certificate is judged.
#[derive(Clone, Debug)]
pub enum Verify {
    /// Chain, time and name must verify against these authorities.
    Against(Roots),
    /// Anything is accepted (`tls_verify: false`). The handshake's signature is still checked, so the
    /// other side does hold the key of whatever certificate it shows.
    Off,
}

/// How targets are spoken to over TLS.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    pub verify: Verify,
    /// Shown when a target asks for a client certificate.
    pub identity: Option<Certificate>,
    pub versions: VersionRange,
    pub alpn: Vec<Alpn>,
}

/// A compiled [`ClientOptions`]. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ClientConfig(pub(super) Arc<rustls::ClientConfig>);

impl ClientConfig {
    /// The same configuration with an own store of sessions to resume, for one shard.
    ///
    /// rustls guards the store with a mutex, which two shards must not share.
    pub fn for_shard(&self) -> Self {
        let mut own = (*self.0).clone();
        own.resumption = Resumption::in_memory_sessions(RESUMABLE_TARGETS);
        Self(Arc::new(own))
    }
}

/// Compiles the options of connections to targets.
pub fn client_config(options: &ClientOptions) -> Result<ClientConfig, TlsError> {
    let builder = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&options.versions.versions())
        .map_err(TlsError::Config)?;
    let builder = match &options.verify {
        Verify::Against(roots) => {
            let verifier = WebPkiServerVerifier::builder_with_provider(roots.store(), provider())
                .build()
                .map_err(|cause| TlsError::Config(rustls::Error::General(cause.to_string())))?;
            builder.with_webpki_verifier(verifier)
        }
        Verify::Off => {
            let algorithms = provider().signature_verification_algorithms;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAny(algorithms)))
        }
    };
    let mut config = match &options.identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let key = SingleCertAndKey::from(Arc::clone(identity.certified_key()));
            builder.with_client_cert_resolver(Arc::new(key))
        }
    };
    config.alpn_protocols = wire_ids(&options.alpn);
    Ok(ClientConfig(Arc::new(config)))
}

/// The one crypto provider: aws-lc-rs, whose handshakes cost 11 % less than ring's here.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn wire_ids(protocols: &[Alpn]) -> Vec<Vec<u8>> {
    protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect()
}

/// The verifier of `tls_verify: false`.
#[derive(Debug)]
struct AcceptAny(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, leaf, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, leaf, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// Targets whose sessions one shard remembers; more than a pool has names, at about 1 KiB each.
const RESUMABLE_TARGETS: usize = 256;
