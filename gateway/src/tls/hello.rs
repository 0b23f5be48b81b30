//! The first message of a TLS connection, read without answering it.
//!
//! Owns: finding the server name in a ClientHello that may be cut over many records and reads, for connections that are
//! passed on unopened. Never: a decision, or any byte of the stream: the caller keeps what it received. Invariant: what
//! is held is what was fed, which the caller bounds.

use rustls::Error;
use rustls::server::{AcceptedAlert, Acceptor};

use super::fault::{FaultKind, TlsFault};

/// What a ClientHello says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The server name, lower case.
    pub sni: Option<Box<str>>,
}

/// How far a ClientHello has come.
#[derive(Debug)]
pub enum HelloRead {
    /// More bytes are needed.
    Partial,
    Complete(Hello),
    /// It is none; the bytes tell the other side so.
    Broken(FaultKind, Vec<u8>),
}

/// Reads a ClientHello.
#[derive(Default)]
pub struct HelloReader(Acceptor);

impl HelloReader {
    /// Takes the bytes that follow those before.
    pub fn feed(&mut self, mut bytes: &[u8]) -> HelloRead {
        while !bytes.is_empty() {
            if !matches!(self.0.read_tls(&mut bytes), Ok(1..)) {
                // More than a handshake message may have.
                return HelloRead::Broken(FaultKind::NotTls, ALERT_DECODE_ERROR.to_vec());
            }
            match self.0.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    let sni =
                        accepted.client_hello().server_name().map(|name| name.to_ascii_lowercase().into());
                    return HelloRead::Complete(Hello { sni });
                }
                Err((cause, alert)) => {
                    let alert = alert_bytes(&cause, alert);
                    return HelloRead::Broken(TlsFault::new(cause, true).kind, alert);
                }
            }
        }
        HelloRead::Partial
    }
}

/// The alert that rustls has for a ClientHello that it refuses. It has none for some that do not parse.
pub(super) fn alert_bytes(cause: &Error, mut alert: AcceptedAlert) -> Vec<u8> {
    let mut out = Vec::new();
    // Writing to a Vec cannot fail.
    let _ = alert.write_all(&mut out);
    if out.is_empty() {
        let [head @ .., _] = ALERT_DECODE_ERROR;
        out.extend(head);
        out.push(match cause {
            Error::PeerSentOversizedRecord => 22, // record_overflow
            Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => 10, // unexpected_message
            _ => 50, // decode_error
        });
    }
    out
}

/// A fatal alert in a record: unrecognized_name (RFC 6066 section 3).
pub const ALERT_UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
pub(super) const ALERT_DECODE_ERROR: [u8; 7] = [21, 3, 3, 0, 2, 2, 50];
