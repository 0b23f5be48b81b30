//! Writing of message heads and of chunk framing.

use super::Persistence;
use crate::http::{Head, RequestHead, ResponseHead};

/// An answer that the gateway makes itself.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// Status code.
    pub status: u16,
    /// Text of the `message` of the JSON body.
    pub message: &'a str,
    /// More fields, such as Retry-After.
    pub fields: &'a [(&'a str, &'a [u8])],
    /// Value of the Date field (IMF-fixdate), cached by the caller.
    pub date: &'a [u8],
    /// The request was a HEAD: send no body.
    pub head_only: bool,
    /// What to say of the connection.
    pub persistence: Persistence,
}

/// Appends the head of a request.
pub fn write_request(request: &RequestHead, persistence: Persistence, out: &mut Vec<u8>) {
    let _ = (request, persistence, out);
}

/// Appends the head of a response.
pub fn write_response(response: &ResponseHead, persistence: Persistence, out: &mut Vec<u8>) {
    let _ = (response, persistence, out);
}

/// Appends `100 Continue`.
pub fn write_continue(out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
}

/// Appends an answer of the gateway.
pub fn write_answer(answer: &Answer<'_>, out: &mut Vec<u8>) {
    let _ = (answer, out);
}

/// Appends what comes before a chunk of `len` bytes; CR LF follows the chunk. `len` is not 0.
pub fn write_chunk_header(len: usize, out: &mut Vec<u8>) {
    let _ = (len, out);
}

/// Appends the last chunk and the trailer section.
pub fn write_chunk_end(trailers: Option<&Head>, out: &mut Vec<u8>) {
    let _ = (trailers, out);
}
