//! HTTP/2 on the wire (RFC 9113), by the `h2` crate, with the checks of HTTP/1 on top.
//!
//! Owns connections of both sides ([`Server`], [`client`]), the streams on them ([`RecvBody`], [`SendBody`],
//! [`Responder`]), the way between its heads and ours, and the [`guard`] against floods. Never decides what is done with a
//! request, and never opens or accepts a connection.
//!
//! Invariants:
//! 1. A request or response that HTTP/1 would not let in does not come in here either: the same limits, the same path, one
//!    host, no field that concerns a connection.
//! 2. Nobody makes the gateway hold much more than its windows: a stream's window is given back when its bytes were passed
//!    on, but for what is kept of a request body in case it has to be sent again; small frames are put together; and what
//!    waits to be sent of a stream is bounded.
//!
//! Read next: `server`, `request`, `guard`; `transport` for how the codec meets the socket.

mod body;
pub mod client;
mod fields;
mod frames;
mod guard;
mod held;
mod request;
mod response;
mod server;
mod table;
mod transport;
pub mod waiters;

use std::time::Duration;

use crate::net::deadline::SendLimit;

pub use body::{BodyError, Code, RecvBody, SendBody};
pub use guard::{Fault, Guard, Thresholds, Violation};
pub use request::Protocol;
pub use server::{Application, Control, Ending, Incoming, Responder, Server};

/// What a connection is allowed, on either side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Streams that the other side may have open at once.
    pub concurrent_streams: u32,
    /// Octets of one stream that the other side may send before it is given leave for more, at first. Grows while a
    /// stream drains it as fast as it is filled: of a client up to half of the connection's, so that one stream never
    /// stops the others.
    pub stream_window: u32,
    /// The same of all streams together. Of a target, whose connection many clients share, it grows with the streams': up
    /// to four times.
    pub connection_window: u32,
    /// Octets that the codec may need beside the windows to keep frames of few octets apart: some 256 for each that was not
    /// taken from it yet. A connection that needs more is ended.
    pub frames_room: usize,
    /// Octets of one stream that wait to be sent at most.
    pub send_buffer: usize,
    /// Octets of a header list as RFC 9113 section 6.5.2 counts them: told to the other side, and enforced. A list that
    /// is not larger, yet over the limits of HTTP/1, gets an answer with a reason.
    pub header_list: u32,
    /// Streams on one connection before it is closed.
    pub streams_max: u32,
    pub thresholds: Thresholds,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            concurrent_streams: 100,
            stream_window: 64 * 1024,
            connection_window: 1024 * 1024,
            frames_room: 8 * 1024 * 1024,
            send_buffer: 64 * 1024,
            header_list: 64 * 1024,
            streams_max: 10_000,
            thresholds: Thresholds::default(),
        }
    }
}

/// Time limits of a connection from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// For the preface and the first request, and for each header block from its first octet to its last.
    pub head: Duration,
    /// Without an open stream.
    pub idle: Duration,
    /// For one send on the socket.
    pub send: SendLimit,
}

/// What a client with prior knowledge of HTTP/2 sends first (RFC 9113 section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Whether bytes begin an HTTP/2 connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preface {
    Yes,
    No,
    /// It could still become one.
    Partial,
}

/// Looks for [`PREFACE`] at the start of a connection.
pub fn looks_like_preface(received: &[u8]) -> Preface {
    if received.starts_with(PREFACE) {
        Preface::Yes
    } else if PREFACE.starts_with(received) {
        Preface::Partial
    } else {
        Preface::No
    }
}

#[cfg(test)]
mod tests;
