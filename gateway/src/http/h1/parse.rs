//! Parsing of message heads.

use crate::http::{PathPolicy, Refusal, RequestHead, ResponseHead};

/// Limits on a message head, and what is done with doubtful parts of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeadLimits {
    /// Bytes of the request line without its CR LF; above it 414.
    pub request_line: usize,
    /// Bytes of the whole head, from the request line to the empty line; above it 431.
    pub head: usize,
    /// Number of fields, at most [`MAX_FIELDS`]; above it 431.
    pub fields: usize,
    /// Keep fields with an underscore in their name. Many servers read `_` as `-`, so that
    /// `X_Real_IP` passes for a field that the gateway vouches for; hence they are dropped.
    pub allow_underscores: bool,
    /// Path normalisation.
    pub path: PathPolicy,
}

/// Upper bound of [`HeadLimits::fields`].
pub const MAX_FIELDS: usize = 256;

impl Default for HeadLimits {
    fn default() -> HeadLimits {
        HeadLimits {
            request_line: 8 * 1024,
            head: 32 * 1024,
            fields: 100,
            allow_underscores: false,
            path: PathPolicy::default(),
        }
    }
}

/// How far a head has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parsed {
    /// More bytes are needed. Call again with the same head and a buffer that begins with the same
    /// bytes.
    Partial,
    /// The head is whole and takes the first `head_len` bytes of the buffer.
    Complete {
        /// Length of the head in bytes, empty lines before and after it included.
        head_len: usize,
    },
}

/// Parses the head of a request at the start of `buf`.
pub fn parse_request(buf: &[u8], limits: &HeadLimits, out: &mut RequestHead) -> Result<Parsed, Refusal> {
    let _ = (buf, limits, out);
    Ok(Parsed::Partial)
}

/// Parses the head of a response at the start of `buf`.
pub fn parse_response(buf: &[u8], limits: &HeadLimits, out: &mut ResponseHead) -> Result<Parsed, Refusal> {
    let _ = (buf, limits, out);
    Ok(Parsed::Partial)
}
