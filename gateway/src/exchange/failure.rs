//! Why an attempt has no response.

use portcullis_abi::Reason;

use super::relay::RelayError;
use crate::http::h2::client::ClientError;
use crate::upstream::AcquireError;
use crate::upstream::retry;

/// Why an attempt has no response, and what the client is told if it was the last.
#[derive(Clone, Copy, Debug)]
pub struct Failure {
    pub kind: retry::Failure,
    pub reason: Reason,
    pub status: u16,
    /// Bytes of the request may have reached the target.
    pub sent: bool,
    /// The connection had served a request before.
    pub reused: bool,
    /// Some of the request body was taken from the client and is gone.
    pub body_touched: bool,
}

impl Failure {
    /// A failure after something was sent, on a new connection.
    pub const fn new(kind: retry::Failure, reason: Reason, status: u16) -> Self {
        Self { kind, reason, status, sent: true, reused: false, body_touched: false }
    }

    /// There is no connection.
    pub fn connect(error: AcquireError) -> Self {
        let failure = match error {
            error if error.is_timeout() => {
                Self::new(retry::Failure::ConnectTimeout, Reason::ConnectTimeout, 504)
            }
            // Nothing is wrong with a target that has no WebSockets.
            AcquireError::NoConnect => {
                Self::new(retry::Failure::ClientGone, Reason::UpstreamProtocolError, 502)
            }
            AcquireError::Full => Self::new(retry::Failure::Busy, Reason::QueueTimeout, 503),
            AcquireError::QueueFull => Self::new(retry::Failure::Busy, Reason::QueueFull, 503),
            _ => Self::new(retry::Failure::Connect, Reason::ConnectFailed, 502),
        };
        Self { sent: false, ..failure }
    }

    /// Sending broke off.
    pub fn send(_error: std::io::Error) -> Self {
        Self::new(retry::Failure::Reset, Reason::UpstreamReset, 502)
    }

    /// The client's body is at fault.
    pub fn client(refusal: crate::http::Refusal) -> Self {
        Self::new(retry::Failure::ClientGone, refusal.reason, refusal.status)
    }

    /// Nobody waits for the response.
    pub fn client_gone() -> Self {
        Self::new(retry::Failure::ClientGone, Reason::ClientAborted, 499)
    }

    /// The target does not speak HTTP as it should.
    pub fn bad_response(reason: Reason) -> Self {
        Self::new(retry::Failure::BadResponse, reason, 502)
    }

    /// The response has a status that is tried again. It is not passed on; with nobody left to try, the client is told the
    /// same.
    pub const fn status(status: u16) -> Self {
        Self::new(retry::Failure::Status(status), Reason::NoHealthyTarget, status)
    }

    /// The exchange was ended from outside, which says nothing about the target.
    pub fn expired(reason: Reason) -> Self {
        match reason {
            Reason::ClientAborted => Self { body_touched: true, ..Self::client_gone() },
            reason => Self::new(retry::Failure::ClientGone, reason, 504),
        }
    }

    /// Adds whether some of the request body was taken from the client and is gone.
    pub fn touching(self, body: bool) -> Self {
        Self { body_touched: self.body_touched || body, ..self }
    }

    /// Adds what the body's own way says: a client that broke off explains an upstream that did.
    pub fn with_body(self, body: Option<&Result<(), RelayError>>) -> Self {
        match body {
            Some(Err(RelayError::SourceClosed)) => Self::client_gone(),
            Some(Err(RelayError::SourceTimedOut)) if self.kind != retry::Failure::ResponseTimeout => {
                Self::new(retry::Failure::ClientGone, Reason::BodyTimeout, 408)
            }
            Some(Err(RelayError::SourceTooSlow)) if self.kind != retry::Failure::ResponseTimeout => {
                Self::new(retry::Failure::ClientGone, Reason::SlowRequest, 408)
            }
            Some(Err(RelayError::Refused(refusal))) => Self::client(*refusal),
            _ => self,
        }
    }

    /// What a stream came to. `kept`: its connection was there before.
    pub fn stream(error: ClientError, kept: bool) -> Self {
        match error {
            ClientError::NotProcessed => {
                let failure = Self::new(retry::Failure::Refused, Reason::UpstreamReset, 502);
                Self { sent: false, reused: kept, ..failure }
            }
            ClientError::Closed => {
                let failure = Self::new(retry::Failure::Reset, Reason::UpstreamReset, 502);
                Self { reused: kept, ..failure }
            }
            ClientError::Reset(_) => Self::new(retry::Failure::Reset, Reason::UpstreamReset, 502),
            ClientError::Malformed => Self::bad_response(Reason::UpstreamBadResponse),
        }
    }
}
