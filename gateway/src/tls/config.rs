//! Server and client configurations, built once for a generation and shared by all shards.
//!
//! Owns: which versions, protocols, certificates and ticket keys a connection may use. Never: reading the
//! configuration file. Invariant: 0-RTT is off on both sides; a replayed request would be charged, logged
//! and forwarded twice (RFC 8446 section 8).

use std::sync::Arc;

use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::server::NoServerSessionStorage;
use rustls::sign::SingleCertAndKey;
use rustls_pki_types::ServerName;

use super::certificate::{Certificate, Roots};
use super::client_auth::ClientAuth;
use super::fault::TlsError;
use super::policy::{Policy, VersionRange, provider};
use super::resolve::{CertificateEntry, NameTable};
use super::tickets::Ticketer;
use super::verify::{AcceptAny, ByNames};

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

/// What a TLS listener serves.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// The first is also the default. At least one.
    pub certificates: Vec<CertificateEntry>,
    /// Refuse names without a certificate instead of serving the default.
    pub strict_sni: bool,
    pub policy: Policy,
    /// In order of preference. Empty: ALPN is neither read nor answered.
    pub alpn: Vec<Alpn>,
    pub ticketer: Ticketer,
}

/// A compiled [`ServerOptions`], shared by all shards. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ServerConfig(pub(super) Arc<Server>);

/// A configuration of rustls for each kind of client authentication, and the names that choose one.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) names: Arc<NameTable>,
    /// By [`Served::group`].
    pub(super) groups: Vec<Arc<rustls::ServerConfig>>,
}

/// Compiles the options of a listener.
pub fn server_config(options: &ServerOptions) -> Result<ServerConfig, TlsError> {
    let names = Arc::new(NameTable::new(&options.certificates, options.strict_sni)?);
    let groups = names.demands.iter().map(|demand| group(options, &names, demand.as_deref()));
    let groups = groups.collect::<Result<_, _>>()?;
    Ok(ServerConfig(Arc::new(Server { names, groups })))
}

fn group(
    options: &ServerOptions,
    names: &Arc<NameTable>,
    demand: Option<&ClientAuth>,
) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let builder = rustls::ServerConfig::builder_with_provider(options.policy.provider())
        .with_protocol_versions(&options.policy.spoken())
        .map_err(TlsError::Config)?;
    let builder = match demand {
        None => builder.with_no_client_auth(),
        Some(demand) => builder.with_client_cert_verifier(demand.verifier()?),
    };
    let mut config = builder.with_cert_resolver(Arc::clone(names) as Arc<_>);
    if let Some(ticketer) = options.ticketer.scoped(demand.map_or([0; 32], ClientAuth::scope)) {
        config.ticketer = ticketer;
    }
    // Resumption is by ticket alone: rustls' stateful store is a mutex shared by all shards.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.alpn_protocols = wire_ids(&options.alpn);
    // Said although it is the default: a replayed request would count twice (see the module).
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// How a target's certificate is judged.
#[derive(Clone, Debug)]
pub enum Verify {
    /// Chain, time and name must verify against these authorities.
    Against(Roots),
    /// As before, and the chain has at most `depth` certificates between the target's and the authority's; the name is one
    /// of `names`, if there are any.
    Names { roots: Roots, names: Names, depth: Option<u8> },
    /// Anything is accepted (`tls_verify: false`). The handshake's signature is still checked, so the
    /// other side does hold the key of whatever certificate it shows.
    Off,
}

/// Names of which a target's certificate must have one; both empty for the server name.
#[derive(Clone, Debug, Default)]
pub struct Names {
    pub(super) dns: Vec<ServerName<'static>>,
    pub(super) uris: Vec<String>,
}

impl Names {
    /// DNS names (or addresses) and URIs.
    ///
    /// # Errors
    /// One of the names is none.
    pub fn new(dns: &[String], uris: &[String]) -> Result<Self, TlsError> {
        let name = |name: &String| {
            let parsed =
                ServerName::try_from(name.as_str()).map_err(|_| TlsError::Name { name: name.clone() });
            parsed.map(|name| name.to_owned())
        };
        Ok(Self { dns: dns.iter().map(name).collect::<Result<_, _>>()?, uris: uris.to_vec() })
    }
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

    /// The same configuration, which offers other protocols.
    pub fn offering(&self, protocols: &[Alpn]) -> Self {
        let mut own = (*self.0).clone();
        own.alpn_protocols = wire_ids(protocols);
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
        Verify::Names { roots, names, depth } => {
            let verifier = ByNames {
                roots: roots.store(),
                names: names.clone(),
                depth: *depth,
                algorithms: provider().signature_verification_algorithms,
            };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
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

fn wire_ids(protocols: &[Alpn]) -> Vec<Vec<u8>> {
    protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect()
}

/// Targets whose sessions one shard remembers; more than a pool has names, at about 1 KiB each.
const RESUMABLE_TARGETS: usize = 256;
