//! An HTTPS origin that tells what it sees of the gateway's TLS.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{HandshakeKind, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::certs::Leaf;
use crate::wire::Inbox;

/// A TLS origin. Every answer, and every line of [`SecureOrigin::handshakes`], is an object with `sni`, `client` (the
/// certificate that was shown, in hex) and `resumed`.
#[derive(Debug)]
pub struct SecureOrigin {
    addr: SocketAddr,
    handshakes: Arc<Mutex<Vec<Value>>>,
}

impl SecureOrigin {
    /// Serves with the certificate of `leaf`; demands one that the authority in `clients` has signed, if it is given.
    ///
    /// # Panics
    /// When a file is none, or no port is free.
    pub fn start(leaf: &Leaf, clients: Option<&Path>) -> SecureOrigin {
        Self::run(leaf, clients, None)
    }

    /// One that answers everything with this text.
    ///
    /// # Panics
    /// As [`SecureOrigin::start`].
    pub fn with_text(leaf: &Leaf, text: &'static str) -> SecureOrigin {
        Self::run(leaf, None, Some(text))
    }

    fn run(leaf: &Leaf, clients: Option<&Path>, text: Option<&'static str>) -> SecureOrigin {
        let config = Arc::new(config(leaf, clients));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("a bound address");
        let handshakes = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&handshakes);
        thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let (config, seen) = (Arc::clone(&config), Arc::clone(&seen));
                // A client that breaks off is none of our business.
                thread::spawn(move || drop(serve(config, socket, &seen, text)));
            }
        });
        SecureOrigin { addr, handshakes }
    }

    /// Its port on the loopback address.
    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// What was seen of each completed handshake so far.
    ///
    /// # Panics
    /// When a connection's thread has failed.
    pub fn handshakes(&self) -> Vec<Value> {
        self.handshakes.lock().expect("record").clone()
    }
}

/// A certificate in a file, as [`SecureOrigin`] tells of it.
///
/// # Panics
/// When the file is none.
pub fn told(cert: &Path) -> String {
    hex(&CertificateDer::from_pem_file(cert).expect("a certificate"))
}

fn config(leaf: &Leaf, clients: Option<&Path>) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("versions that go with the suites");
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots
                .add(CertificateDer::from_pem_file(authority).expect("a certificate"))
                .expect("an authority");
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.expect("an authority"))
        }
    };
    let chain = CertificateDer::pem_file_iter(&leaf.cert).expect("a chain").collect::<Result<_, _>>();
    let key = PrivateKeyDer::from_pem_file(&leaf.key).expect("a key");
    let mut config = builder.with_single_cert(chain.expect("certificates"), key).expect("a pair");
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().expect("keys");
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

fn serve(
    config: Arc<ServerConfig>,
    socket: TcpStream,
    seen: &Mutex<Vec<Value>>,
    text: Option<&str>,
) -> io::Result<()> {
    let connection = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    let client = stream.conn.peer_certificates().and_then(|chain| chain.first()).map(|leaf| hex(leaf));
    let told = json!({
        "sni": stream.conn.server_name(),
        "client": client,
        "resumed": stream.conn.handshake_kind() == Some(HandshakeKind::Resumed),
    });
    seen.lock().expect("record").push(told.clone());
    let body = text.map_or_else(|| told.to_string(), str::to_owned);
    let mut inbox = Inbox::new(stream);
    while let Some(head) = inbox.head()? {
        let close = head.has_token("connection", "close");
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let stream = inbox.stream();
        stream.write_all(answer.as_bytes())?;
        stream.flush()?;
        if close {
            break;
        }
    }
    inbox.stream().conn.send_close_notify();
    inbox.stream().flush()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
