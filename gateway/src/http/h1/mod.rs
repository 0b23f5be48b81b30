//! HTTP/1 on the wire (RFC 9112).
//!
//! Owns parsing, framing, connection rules and writing of HTTP/1 messages as pure functions over
//! byte slices. Never reads a socket and never guesses: a message that two implementations could
//! read differently is refused.

pub mod chunked;
pub mod connection;
mod diagnose;
pub mod framing;
pub mod parse;
mod progress;
mod target;
pub mod write;

pub use chunked::{BodyDecoder, BodyLimits, Step};
pub use connection::{
    ConnectionOptions, Expectation, HopByHop, Persistence, connection_options, expectation, keep_alive,
    strip_hop_by_hop,
};
pub use framing::{BodyFraming, relay_framing, request_framing, response_framing, set_framing};
pub use parse::{HeadLimits, Parsed, parse_request, parse_response};
pub(in crate::http) use progress::Progress;
pub use write::{
    Answer, Content, fill_answer, reason_phrase, write_answer, write_chunk_end, write_chunk_header,
    write_continue, write_request, write_response,
};
