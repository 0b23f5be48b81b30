//! What can go wrong: when a configuration is built ([`TlsError`]) and on a connection ([`TlsFault`]).
//!
//! Owns: the classification of rustls errors by whose fault they are. Never: an answer to the client;
//! the alert to send is already in the session's output when a fault is returned.
//! Invariant: each fault has one [`FaultKind`], each kind one [`Blame`].

use std::io;
use std::path::PathBuf;

use portcullis_abi::Reason;
use rustls::Error;

/// A certificate, authority or configuration that cannot be used. Raised on the control thread only.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{origin}: not usable as an authority: {cause}")]
    Authority { origin: String, cause: Error },
    #[error("the TLS configuration is impossible: {0}")]
    Config(Error),
    #[error("cannot read {}: {cause}", path.display())]
    File { path: PathBuf, cause: io::Error },
    #[error("{origin}: the private key is unusable or belongs to another certificate: {cause}")]
    KeyPair { origin: String, cause: Error },
    #[error("{name:?} is neither a DNS name nor an IP address")]
    Name { name: String },
    #[error("{name:?} is no name to serve: write a DNS name, or one with `*` as its whole first label")]
    NamePattern { name: String },
    #[error("{origin}: no certificate in PEM form found")]
    NoCertificate { origin: String },
    #[error("no certificate given")]
    NoCertificates,
    #[error("{origin}: no private key in PEM form found")]
    NoKey { origin: String },
    #[error("this machine's store of certificate authorities gives nothing: {cause}")]
    NoSystemRoots { cause: String },
    #[error("{origin}: malformed PEM: {cause}")]
    Pem { origin: String, cause: rustls_pki_types::pem::Error },
    #[error("{origin}: no list of revoked certificates found, neither in PEM nor in DER")]
    NoRevocationList { origin: String },
    #[error("{origin}: not usable as session ticket keys: {what}")]
    TicketKeys { origin: String, what: String },
    #[error("{origin}: malformed certificate: {cause}")]
    Unparsable { origin: String, cause: webpki::Error },
}

/// Why a connection cannot go on. The session is dead; its output may still hold an alert to send.
#[derive(Debug, thiserror::Error)]
#[error("{kind:?}: {cause}")]
pub struct TlsFault {
    /// The class of the fault.
    pub kind: FaultKind,
    /// Whether the handshake had not been completed.
    pub handshaking: bool,
    cause: Error,
}

/// Classes of [`TlsFault`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The other side sent a fatal alert, as a client does that does not trust our certificate.
    AlertReceived,
    /// A record does not authenticate: tampering, or a middlebox that rewrites bytes.
    BadRecord,
    /// The other side's certificate does not verify (authority, name, time, revocation).
    CertificateRefused,
    /// The client has no certificate, and must have one.
    CertificateMissing,
    /// Our own fault: randomness, a broken key, a misuse of the API.
    Internal,
    /// Bytes that are no TLS at all, or do not parse as the message they claim to be.
    NotTls,
    /// No version, cipher suite, group or protocol in common.
    NothingInCommon,
    /// The other side breaks the protocol.
    Protocol,
    /// The name asked for has no certificate and there is no default one.
    UnknownName,
}

/// Whose fault a [`TlsFault`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The other side of this connection.
    Remote,
    /// This gateway or its configuration.
    Us,
    /// Neither is wrong alone: the two do not fit.
    Disagreement,
}

impl FaultKind {
    /// Whose fault faults of this kind are; decides whether the source pays for it.
    pub fn blame(self) -> Blame {
        match self {
            Self::AlertReceived | Self::CertificateRefused | Self::NothingInCommon => Blame::Disagreement,
            Self::CertificateMissing => Blame::Disagreement,
            Self::BadRecord | Self::NotTls | Self::Protocol | Self::UnknownName => Blame::Remote,
            Self::Internal => Blame::Us,
        }
    }

    /// A short name for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AlertReceived => "alert_received",
            Self::BadRecord => "bad_record",
            Self::CertificateMissing => "certificate_missing",
            Self::CertificateRefused => "certificate_refused",
            Self::Internal => "internal",
            Self::NotTls => "not_tls",
            Self::NothingInCommon => "nothing_in_common",
            Self::Protocol => "protocol",
            Self::UnknownName => "unknown_name",
        }
    }
}

impl TlsFault {
    pub(super) fn new(cause: Error, handshaking: bool) -> Self {
        Self { kind: classify(&cause), handshaking, cause }
    }

    /// The name that was asked for has no certificate.
    pub(super) fn unknown_name() -> Self {
        let cause = Error::General("no certificate for this server name".into());
        Self { kind: FaultKind::UnknownName, handshaking: true, cause }
    }

    /// The reason to count and log when this happens on a connection from a client.
    pub fn downstream_reason(&self) -> Reason {
        match self.kind {
            FaultKind::Internal => Reason::InternalError,
            FaultKind::UnknownName => Reason::UnknownSni,
            FaultKind::CertificateMissing => Reason::ClientCertificateMissing,
            FaultKind::CertificateRefused => Reason::ClientCertificateInvalid,
            _ if self.handshaking => Reason::TlsHandshakeFailed,
            _ => Reason::ClientAborted,
        }
    }

    /// The reason to count and log when this happens on a connection to a target.
    pub fn upstream_reason(&self) -> Reason {
        match (self.kind, self.handshaking) {
            (FaultKind::Internal, _) => Reason::InternalError,
            (_, true) => Reason::ConnectFailed,
            (_, false) => Reason::UpstreamProtocolError,
        }
    }
}

fn classify(cause: &Error) -> FaultKind {
    match cause {
        Error::AlertReceived(_) => FaultKind::AlertReceived,
        Error::DecryptError => FaultKind::BadRecord,
        Error::InvalidCertificate(_) | Error::InvalidCertRevocationList(_) => FaultKind::CertificateRefused,
        Error::NoCertificatesPresented => FaultKind::CertificateMissing,
        Error::InvalidMessage(_) | Error::PeerSentOversizedRecord => FaultKind::NotTls,
        Error::PeerIncompatible(_) | Error::NoApplicationProtocol => FaultKind::NothingInCommon,
        Error::PeerMisbehaved(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. } => FaultKind::Protocol,
        _ => FaultKind::Internal,
    }
}

/// Whether the first bytes of a connection to a TLS port are an HTTP request in the clear.
///
/// A TLS record begins with its content type, a byte below 32 (RFC 8446 section 5.1), so a first byte
/// that is a capital letter settles it, however little has arrived; of a longer start the whole method
/// must be letters. Ask before the first [`super::Session::feed`].
pub fn looks_like_plain_http(first: &[u8]) -> bool {
    let method = first.iter().take(LONGEST_METHOD).take_while(|byte| byte.is_ascii_uppercase()).count();
    match first.get(method) {
        _ if method == 0 => false,
        None => true,
        Some(after) => *after == b' ',
    }
}

/// Bytes of the longest method looked for: `CONNECT` and `OPTIONS` have 7, WebDAV's go to 16.
const LONGEST_METHOD: usize = 16;
