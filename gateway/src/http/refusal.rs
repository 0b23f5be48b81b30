//! Why a message is refused, and what its sender is told.
//!
//! Owns [`Refusal`] and the table from reason to default status. Never counts, logs or writes.
//! Invariant: every refusal of the gateway carries one [`Reason`], the same enum that the kernel
//! counts its verdicts by.

/// Stand-in until the shared enum of `portcullis_abi` is here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[expect(missing_docs, reason = "replaced by the shared enum")]
pub enum Reason {
    BadRequestLine,
    BadMethod,
    BadTarget,
    BadVersion,
    BadHeader,
    ObsFold,
    BareLf,
    MissingHost,
    DuplicateHost,
    AmbiguousLength,
    BadContentLength,
    BadTransferEncoding,
    BadChunk,
    UnsupportedTransferCoding,
    UriTooLong,
    HeaderTooLarge,
    TooManyHeaders,
    BodyTooLarge,
    UnsupportedExpectation,
    UnsupportedVersion,
    ConnectRefused,
    TraceRefused,
    BadPathEncoding,
    UpstreamBadResponse,
    UpstreamTruncated,
    ClientAborted,
}

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
}

/// The status that a reason is answered with where nothing else is configured.
pub const fn default_status(reason: Reason) -> u16 {
    match reason {
        Reason::UriTooLong => 414,
        Reason::HeaderTooLarge | Reason::TooManyHeaders => 431,
        Reason::BodyTooLarge => 413,
        Reason::UnsupportedExpectation => 417,
        Reason::UnsupportedVersion => 505,
        Reason::UnsupportedTransferCoding => 501,
        Reason::ConnectRefused | Reason::TraceRefused => 405,
        Reason::UpstreamBadResponse | Reason::UpstreamTruncated => 502,
        _ => 400,
    }
}
