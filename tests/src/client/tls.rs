//! A TLS client whose every choice the test makes: certificate, versions, groups, protocols, session.
//!
//! Owns [`Tls`], which keeps sessions between its connections, and [`Secure`], one connection. Built on rustls, as the
//! programs of [`super::programs`] offer neither hybrid groups nor a look at what was negotiated.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, RootCertStore, StreamOwned};

use super::{PATIENCE, Request, Response};
use crate::certs::Leaf;
use crate::wire::Inbox;

/// Settings and sessions of a client.
#[derive(Debug, Clone)]
pub struct Tls(Arc<ClientConfig>);

impl Tls {
    /// Trusts the authority in that file, offers everything and `http/1.1`.
    ///
    /// # Panics
    /// When the file is none.
    pub fn trusting(ca: &Path) -> Tls {
        Self::make(ca, None, default_provider(), rustls::ALL_VERSIONS)
    }

    /// As [`Tls::trusting`], with a certificate to show.
    ///
    /// # Panics
    /// When a file is none.
    pub fn showing(ca: &Path, leaf: &Leaf) -> Tls {
        Self::make(ca, Some(leaf), default_provider(), rustls::ALL_VERSIONS)
    }

    /// As [`Tls::trusting`], with one version, 1.2 or 1.3, and a certificate to show.
    ///
    /// # Panics
    /// When a file is none.
    pub fn speaking(ca: &Path, leaf: Option<&Leaf>, version: &str) -> Tls {
        let versions = match version {
            "1.2" => &[&rustls::version::TLS12],
            _ => &[&rustls::version::TLS13],
        };
        Self::make(ca, leaf, default_provider(), versions)
    }

    /// As [`Tls::trusting`], with the hybrid group first, as browsers have it.
    ///
    /// # Panics
    /// When the file is none.
    pub fn hybrid(ca: &Path) -> Tls {
        let groups: Vec<&'static dyn SupportedKxGroup> = vec![kx_group::X25519MLKEM768, kx_group::X25519];
        Self::make(ca, None, CryptoProvider { kx_groups: groups, ..default_provider() }, rustls::ALL_VERSIONS)
    }

    fn make(
        ca: &Path,
        leaf: Option<&Leaf>,
        provider: CryptoProvider,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Tls {
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_file_iter(ca).expect("a file of authorities") {
            roots.add(authority.expect("a certificate")).expect("an authority");
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)
            .expect("versions that go with the suites")
            .with_root_certificates(roots);
        let mut config = match leaf {
            None => builder.with_no_client_auth(),
            Some(leaf) => {
                let chain = CertificateDer::pem_file_iter(&leaf.cert).expect("a chain");
                let key = PrivateKeyDer::from_pem_file(&leaf.key).expect("a key");
                builder
                    .with_client_auth_cert(chain.collect::<Result<_, _>>().expect("certificates"), key)
                    .expect("a key that belongs to the certificate")
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Tls(Arc::new(config))
    }

    /// Offers early data and other protocols.
    pub fn with(self, edit: impl FnOnce(&mut ClientConfig)) -> Tls {
        let mut config = (*self.0).clone();
        edit(&mut config);
        Tls(Arc::new(config))
    }

    /// Forgets all sessions.
    pub fn forgetful(self) -> Tls {
        self.with(|config| config.resumption = Resumption::disabled())
    }

    /// Connects and completes the handshake. In TLS 1.3 the gateway may still refuse the client's certificate after it.
    ///
    /// # Errors
    /// Of the socket; `InvalidData` for what TLS has against it.
    pub fn connect(&self, addr: SocketAddr, name: &str) -> io::Result<Secure> {
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let connection = ClientConnection::new(Arc::clone(&self.0), name).map_err(io::Error::other)?;
        let socket = TcpStream::connect(addr)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let mut stream = StreamOwned::new(connection, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        stream.flush()?;
        Ok(Secure { inbox: Inbox::new(stream) })
    }

    /// Connects, and sends one request on the connection.
    ///
    /// # Errors
    /// As [`Tls::connect`] and [`Secure::exchange`].
    pub fn exchange(&self, addr: SocketAddr, name: &str, request: &Request) -> io::Result<Response> {
        self.connect(addr, name)?.exchange(request)
    }
}

/// A TLS connection.
#[derive(Debug)]
pub struct Secure {
    inbox: Inbox<StreamOwned<ClientConnection, TcpStream>>,
}

impl Secure {
    /// Sends a request and reads the response.
    ///
    /// # Errors
    /// Of the connection; `InvalidData` for what TLS has against it.
    pub fn exchange(&mut self, request: &Request) -> io::Result<Response> {
        let stream = self.inbox.stream();
        stream.write_all(&request.bytes())?;
        stream.flush()?;
        let head = self.inbox.head()?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let status = head.word(1).parse().unwrap_or(0);
        let body = self.inbox.body(head.response_framing(false))?;
        Ok(Response { status, head, body, interim: Vec::new() })
    }

    /// What was negotiated.
    pub fn session(&mut self) -> &ClientConnection {
        &self.inbox.stream().conn
    }

    /// Whether the session of an earlier connection was resumed.
    pub fn resumed(&mut self) -> bool {
        self.session().handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// 1.2 or 1.3.
    pub fn version(&mut self) -> &'static str {
        match self.session().protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "1.2",
            Some(ProtocolVersion::TLSv1_3) => "1.3",
            _ => "another",
        }
    }

    /// The gateway's certificate (DER).
    pub fn certificate(&mut self) -> Vec<u8> {
        let chain = self.session().peer_certificates().unwrap_or_default();
        chain.first().map(|leaf| leaf.to_vec()).unwrap_or_default()
    }
}
