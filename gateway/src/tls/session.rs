//! One TLS connection as bytes in, bytes out.
//!
//! Owns: the rustls connection of either side. Never: a socket or a clock. The driver's turn is always the
//! same: received bytes go to [`Session::feed`], plaintext comes out of [`Session::read_plain`] until it
//! gives 0, whatever [`Session::take_output`] gives is sent, also after a fault (it holds the alert).
//!
//! Invariant: a session holds at most one fed block and two records of plaintext on the way in, and
//! [`OUTPUT_LIMIT`] bytes on the way out, whatever the other side does.

use std::fmt;
use std::io::{BufRead, Write};
use std::sync::Arc;

use rustls::server::{Accepted, Acceptor};
use rustls::{Connection, HandshakeKind, ProtocolVersion};
use rustls_pki_types::ServerName;

use super::config::{Alpn, ClientConfig, Server, ServerConfig};
use super::fault::{TlsError, TlsFault};
use super::hello::{ALERT_DECODE_ERROR, ALERT_UNRECOGNIZED_NAME, alert_bytes};
use super::peer::Peer;
use super::policy::Version;

/// A TLS connection, of either side, without its socket.
pub struct Session {
    link: Link,
    /// What was served, on the server's side.
    server: Option<Arc<Server>>,
    /// Which demand was made on the client.
    group: usize,
    /// Plaintext that had to leave rustls before all of a fed block could enter it. Empty unless one block
    /// holds more than a record's worth of plaintext.
    spill: Vec<u8>,
    /// How much of `spill` is read.
    spill_read: usize,
    closed_by_remote: bool,
}

/// The rustls connection in its three ages.
#[expect(clippy::large_enum_variant, reason = "it is open for nearly all of its life")]
enum Link {
    /// A ClientHello is awaited, whose name chooses the configuration.
    Accepting(Box<Acceptor>),
    Open(Connection),
    /// The ClientHello was refused; an alert may wait to be sent.
    Refused(Vec<u8>),
}

/// How the incoming half of a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// After a close_notify: all that was sent has arrived.
    Clean,
    /// Without one: an attacker may have cut the stream (RFC 8446 section 6.1). A body whose end is the
    /// end of the connection is then incomplete.
    Truncated,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("handshaking", &self.is_handshaking()).finish_non_exhaustive()
    }
}

impl Session {
    /// The server's side of a connection from a client.
    pub fn server(config: &ServerConfig) -> Result<Self, TlsError> {
        let session = Self::new(Link::Accepting(Box::default()));
        Ok(Self { server: Some(config.0.clone()), ..session })
    }

    /// The client's side of a connection to a target; `name` is its DNS name or IP address, sent as SNI
    /// (names only) and looked for in its certificate. The ClientHello is in the output at once.
    pub fn client(config: &ClientConfig, name: &str) -> Result<Self, TlsError> {
        let server_name =
            ServerName::try_from(name).map_err(|_| TlsError::Name { name: name.into() })?.to_owned();
        let mut connection =
            rustls::ClientConnection::new(config.0.clone(), server_name).map_err(TlsError::Config)?;
        connection.set_buffer_limit(Some(OUTPUT_LIMIT));
        Ok(Self::new(Link::Open(connection.into())))
    }

    fn new(link: Link) -> Self {
        Self { link, server: None, group: 0, spill: Vec::new(), spill_read: 0, closed_by_remote: false }
    }

    fn open(&self) -> Option<&Connection> {
        match &self.link {
            Link::Open(connection) => Some(connection),
            Link::Accepting(_) | Link::Refused(_) => None,
        }
    }

    fn open_mut(&mut self) -> Option<&mut Connection> {
        match &mut self.link {
            Link::Open(connection) => Some(connection),
            Link::Accepting(_) | Link::Refused(_) => None,
        }
    }

    /// Takes all of `ciphertext`, decrypts it and answers handshake messages (into the output).
    ///
    /// Read all plaintext before the next block is fed: that bounds what is held to one block. Bytes after
    /// a close_notify are ignored. After an error the session only gives its remaining output.
    pub fn feed(&mut self, mut ciphertext: &[u8]) -> Result<(), TlsFault> {
        while !ciphertext.is_empty() && !self.closed_by_remote {
            let connection = match &mut self.link {
                Link::Accepting(acceptor) => {
                    if !matches!(acceptor.read_tls(&mut ciphertext), Ok(1..)) {
                        // More than a handshake message may have.
                        self.link = Link::Refused(ALERT_DECODE_ERROR.to_vec());
                        return Err(TlsFault::new(rustls::Error::PeerSentOversizedRecord, true));
                    }
                    self.accept()?;
                    continue;
                }
                Link::Open(connection) => connection,
                Link::Refused(_) => break,
            };
            match connection.read_tls(&mut ciphertext) {
                Ok(0) => break,
                Ok(_) => self.process()?,
                // The one error left, as reading from a slice has none: more plaintext waits than rustls
                // will hold.
                Err(_) => {
                    if self.spill_plaintext() == 0 {
                        let cause = rustls::Error::General("a full buffer without plaintext".into());
                        return Err(TlsFault::new(cause, self.is_handshaking()));
                    }
                }
            }
        }
        Ok(())
    }

    /// Goes on with a ClientHello once it is whole: its name chooses the configuration.
    fn accept(&mut self) -> Result<(), TlsFault> {
        let Link::Accepting(acceptor) = &mut self.link else { return Ok(()) };
        let accepted = match acceptor.accept() {
            Ok(None) => return Ok(()),
            Ok(Some(accepted)) => accepted,
            Err((cause, alert)) => {
                self.link = Link::Refused(alert_bytes(&cause, alert));
                return Err(TlsFault::new(cause, true));
            }
        };
        self.choose(accepted)
    }

    fn choose(&mut self, accepted: Accepted) -> Result<(), TlsFault> {
        let server = self.server.as_ref();
        let served = server.and_then(|server| {
            let served = server.names.find(accepted.client_hello().server_name())?;
            Some((served.group, Arc::clone(&server.groups[served.group])))
        });
        let Some((group, config)) = served else {
            self.link = Link::Refused(ALERT_UNRECOGNIZED_NAME.to_vec());
            return Err(TlsFault::unknown_name());
        };
        match accepted.into_connection(config) {
            Ok(mut connection) => {
                connection.set_buffer_limit(Some(OUTPUT_LIMIT));
                (self.link, self.group) = (Link::Open(connection.into()), group);
                self.process()
            }
            Err((cause, alert)) => {
                self.link = Link::Refused(alert_bytes(&cause, alert));
                Err(TlsFault::new(cause, true))
            }
        }
    }

    fn process(&mut self) -> Result<(), TlsFault> {
        let Some(connection) = self.open_mut() else { return Ok(()) };
        let handshaking = connection.is_handshaking();
        let state = connection.process_new_packets().map_err(|cause| TlsFault::new(cause, handshaking))?;
        self.closed_by_remote = state.peer_has_closed();
        Ok(())
    }

    fn spill_plaintext(&mut self) -> usize {
        if self.spill_read == self.spill.len() {
            self.spill.clear();
            self.spill_read = 0;
        }
        let mut spill = std::mem::take(&mut self.spill);
        let moved = self.read_records(&mut spill, usize::MAX);
        self.spill = spill;
        moved
    }

    /// Appends at most `max` bytes of plaintext to `out`; gives how many, 0 when there is none yet.
    pub fn read_plain(&mut self, out: &mut Vec<u8>, max: usize) -> usize {
        let spilled = (self.spill.len() - self.spill_read).min(max);
        if spilled > 0 {
            out.extend_from_slice(&self.spill[self.spill_read..self.spill_read + spilled]);
            self.spill_read += spilled;
        }
        if self.spill_read == self.spill.len() && self.spill.capacity() > 0 {
            // Given back, not kept: an idle connection should hold nothing.
            self.spill = Vec::new();
            self.spill_read = 0;
        }
        spilled + self.read_records(out, max - spilled)
    }

    fn read_records(&mut self, out: &mut Vec<u8>, max: usize) -> usize {
        let mut read = 0;
        let Some(connection) = self.open_mut() else { return 0 };
        let mut reader = connection.reader();
        while read < max {
            // An error is "none yet" or "the end without close_notify"; the latter is asked by `end`.
            let Ok(record) = reader.fill_buf() else { break };
            let part = record.len().min(max - read);
            if part == 0 {
                break;
            }
            out.extend_from_slice(&record[..part]);
            reader.consume(part);
            read += part;
        }
        read
    }

    /// Encrypts plaintext into the output and gives how many bytes were taken: fewer than given once
    /// [`OUTPUT_LIMIT`] bytes wait. Send the output, then offer the rest again.
    ///
    /// Before the end of the handshake plaintext is kept and encrypted when it can be.
    #[must_use = "bytes that were not taken must be offered again"]
    pub fn write_plain(&mut self, plaintext: &[u8]) -> usize {
        self.open_mut().map_or(0, |connection| connection.writer().write(plaintext).unwrap_or(0))
    }

    /// As [`Session::write_plain`] for a head and a body that should share a record.
    #[must_use = "bytes that were not taken must be offered again"]
    pub fn write_plain_vectored(&mut self, parts: &[std::io::IoSlice<'_>]) -> usize {
        self.open_mut().map_or(0, |connection| connection.writer().write_vectored(parts).unwrap_or(0))
    }

    /// Appends everything that waits to be sent to `out`.
    pub fn take_output(&mut self, out: &mut Vec<u8>) {
        let connection = match &mut self.link {
            Link::Open(connection) => connection,
            Link::Refused(alert) => return out.append(alert),
            Link::Accepting(_) => return,
        };
        while connection.wants_write() {
            // Writing to a Vec cannot fail; stopping is right if it ever did.
            if !matches!(connection.write_tls(out), Ok(1..)) {
                break;
            }
        }
    }

    /// Whether [`Session::take_output`] would give anything.
    pub fn wants_output(&self) -> bool {
        match &self.link {
            Link::Open(connection) => connection.wants_write(),
            Link::Refused(alert) => !alert.is_empty(),
            Link::Accepting(_) => false,
        }
    }

    /// Whether the handshake is still under way.
    pub fn is_handshaking(&self) -> bool {
        self.open().is_none_or(|connection| connection.is_handshaking())
    }

    /// The protocol agreed on, once the handshake has come that far.
    pub fn alpn(&self) -> Option<Alpn> {
        self.open()?.alpn_protocol().and_then(Alpn::from_bytes)
    }

    /// The name the client asked for, lower or upper case as sent. None on the client's side.
    pub fn sni(&self) -> Option<&str> {
        match self.open()? {
            Connection::Server(server) => server.server_name(),
            Connection::Client(_) => None,
        }
    }

    /// The version agreed on.
    pub fn version(&self) -> Option<Version> {
        match self.open()?.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => Some(Version::V12),
            Some(ProtocolVersion::TLSv1_3) => Some(Version::V13),
            _ => None,
        }
    }

    /// Whether the handshake resumed an earlier session, and so cost no signature.
    pub fn resumed(&self) -> bool {
        self.open().is_some_and(|connection| connection.handshake_kind() == Some(HandshakeKind::Resumed))
    }

    /// The client whose certificate was verified, on the server's side; also where the session was resumed.
    pub fn peer(&self) -> Option<Arc<Peer>> {
        self.server.as_ref()?;
        Peer::new(self.open()?.peer_certificates()?)
    }

    /// The names that this connection may be used for, where the listener makes different demands on clients for
    /// different names.
    pub fn covered(&self) -> Option<Covered> {
        let server = self.server.as_ref().filter(|server| server.groups.len() > 1)?;
        Some(Covered { server: Arc::clone(server), group: self.group })
    }

    /// The group of the key exchange, as rustls names it.
    #[cfg(test)]
    pub(super) fn group(&self) -> Option<rustls::NamedGroup> {
        Some(self.open()?.negotiated_key_exchange_group()?.name())
    }

    /// Puts a close_notify into the output: the last bytes of this side.
    pub fn send_close_notify(&mut self) {
        if let Some(connection) = self.open_mut() {
            connection.send_close_notify();
        }
    }

    /// Whether the other side has said that it sends no more.
    pub fn received_close_notify(&self) -> bool {
        self.closed_by_remote
    }

    /// What it means if the socket reports its end now.
    pub fn end(&self) -> End {
        if self.closed_by_remote { End::Clean } else { End::Truncated }
    }
}

/// The names that a connection may be used for: those under the same demands on clients. A client that showed no
/// certificate, because the name it asked for wants none, must not speak to a name that does.
#[derive(Clone, Debug)]
pub struct Covered {
    server: Arc<Server>,
    group: usize,
}

impl Covered {
    /// Whether `host` is under the demands of the connection. True where no certificate is for it at all.
    pub fn includes(&self, host: &[u8]) -> bool {
        let Ok(host) = std::str::from_utf8(host) else { return false };
        self.server.names.find(Some(host)).is_none_or(|served| served.group == self.group)
    }
}

/// Bytes of output that may wait in a session: four full records, so that a body of 64 KiB is encrypted in
/// one go.
pub const OUTPUT_LIMIT: usize = 64 * 1024;
