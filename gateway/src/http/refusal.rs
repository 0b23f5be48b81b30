//! Why a message is refused, and what its sender is told.
//!
//! Owns [`Refusal`], and the default status and message of each reason. Never counts, logs or
//! writes. Invariant: every refusal of the gateway carries one [`Reason`], the same enum that the
//! kernel counts its verdicts by.

pub use portcullis_abi::Reason;

/// A refusal: why, and with which status the client is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// What is counted, logged and explained.
    pub reason: Reason,
    /// The status code of the answer.
    pub status: u16,
}

impl Refusal {
    /// A refusal with the default status of its reason.
    pub const fn new(reason: Reason) -> Refusal {
        Refusal { reason, status: default_status(reason) }
    }

    /// Fields that an answer with this status must have: Allow with 405 (RFC 9110 section 15.5.6).
    pub const fn fields(&self) -> &'static [(&'static str, &'static [u8])] {
        match self.status {
            405 => &[("Allow", b"GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS")],
            _ => &[],
        }
    }

    /// What the client is told, in Kong's words where Kong has words for it.
    pub const fn message(&self) -> &'static str {
        default_message(self.reason)
    }
}

/// The status that a reason is answered with where nothing else is configured. 499 is for the log
/// only: there is nobody left to answer.
pub const fn default_status(reason: Reason) -> u16 {
    match reason {
        Reason::BadRequestLine
        | Reason::BadMethod
        | Reason::BadTarget
        | Reason::BadVersion
        | Reason::BadHeader
        | Reason::ObsFold
        | Reason::BareLf
        | Reason::MissingHost
        | Reason::DuplicateHost
        | Reason::AmbiguousLength
        | Reason::BadContentLength
        | Reason::BadTransferEncoding
        | Reason::BadChunk
        | Reason::BadPathEncoding
        | Reason::BadGrpcMessage
        | Reason::ClientCertificateMissing
        | Reason::ClientCertificateInvalid
        | Reason::InvalidBody
        | Reason::PlainHttpOnTls => 400,
        Reason::UnauthorizedMissing
        | Reason::UnauthorizedInvalid
        | Reason::UnauthorizedExpired
        | Reason::ReplayedRequest => 401,
        Reason::Forbidden | Reason::ExternalDenied | Reason::BotDetected => 403,
        Reason::NoRoute => 404,
        Reason::ConnectRefused | Reason::TraceRefused => 405,
        Reason::RequestTimeout | Reason::BodyTimeout | Reason::SlowRequest => 408,
        Reason::BodyTooLarge => 413,
        Reason::UriTooLong => 414,
        Reason::UnsupportedExpectation => 417,
        Reason::UnknownSni | Reason::MisdirectedRequest => 421,
        Reason::RateLimited | Reason::SourceLimited | Reason::SourceBanned | Reason::ConcurrencyLimited => {
            429
        }
        Reason::HeaderTooLarge | Reason::TooManyHeaders | Reason::H2HeaderList => 431,
        Reason::ClientAborted | Reason::SlowReader | Reason::H2StalledWindow | Reason::H2StreamReset => 499,
        Reason::UnsupportedTransferCoding => 501,
        Reason::ConnectFailed
        | Reason::UpstreamReset
        | Reason::UpstreamBadResponse
        | Reason::UpstreamTruncated
        | Reason::UpstreamProtocolError
        | Reason::ResponseTooLarge => 502,
        Reason::NoHealthyTarget
        | Reason::ConnectionLimit
        | Reason::Draining
        | Reason::BreakerOpen
        | Reason::QueueFull
        | Reason::QueueTimeout => 503,
        Reason::ConnectTimeout | Reason::UpstreamTimeout | Reason::TotalTimeout | Reason::GrpcDeadline => 504,
        Reason::UnsupportedVersion | Reason::H2Preface => 505,
        Reason::LoopDetected => 508,
        // Verdicts of the kernel and failed handshakes are never answered in HTTP.
        _ => 500,
    }
}

/// The `message` of the JSON body that a reason is answered with.
pub const fn default_message(reason: Reason) -> &'static str {
    match reason {
        Reason::ObsFold => "Folded header field",
        Reason::BareLf => "Line ends without CR",
        Reason::MissingHost => "Missing Host header",
        Reason::DuplicateHost => "More than one host",
        Reason::AmbiguousLength => "Ambiguous message length",
        Reason::BadContentLength => "Invalid Content-Length",
        Reason::BadTransferEncoding => "Invalid Transfer-Encoding",
        Reason::BadChunk => "Invalid chunk",
        Reason::BadPathEncoding => "Forbidden encoding in path",
        Reason::PlainHttpOnTls => "The plain HTTP request was sent to HTTPS port",
        Reason::UnsupportedExpectation => "Expectation failed",
        Reason::UnsupportedTransferCoding => "Transfer coding not supported",
        Reason::UnsupportedVersion => "HTTP version not supported",
        Reason::H2Preface => "HTTP/2 is not spoken here",
        Reason::LoopDetected => "The request has been here before",
        Reason::SlowRequest => "Request is sent too slowly",
        Reason::ConnectRefused | Reason::TraceRefused => "Method not allowed",
        Reason::UnauthorizedMissing | Reason::UnauthorizedInvalid | Reason::UnauthorizedExpired => {
            "Unauthorized"
        }
        Reason::Forbidden => "You cannot consume this service",
        Reason::NoRoute => "no Route matched with those values",
        Reason::NoHealthyTarget => "failure to get a peer from the ring-balancer",
        Reason::RateLimited | Reason::SourceLimited => "API rate limit exceeded",
        Reason::ConnectionLimit => "Too many connections",
        Reason::Draining => "The gateway is shutting down",
        reason => match default_status(reason) {
            400 => "Bad request",
            408 => "Request timeout",
            413 => "Payload too large",
            414 => "URI too long",
            421 => "Misdirected request",
            431 => "Request header or cookie too large",
            502 => "An invalid response was received from the upstream server",
            503 => "The upstream server is currently unavailable",
            504 => "The upstream server is timing out",
            _ => "An unexpected error occurred",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_an_error_status_and_a_message() {
        for &reason in Reason::ALL {
            let refusal = Refusal::new(reason);
            assert!((400..=599).contains(&refusal.status), "{}", reason.as_str());
            assert!(!refusal.message().is_empty(), "{}", reason.as_str());
        }
    }
}
