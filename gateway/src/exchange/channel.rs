//! The target's side of an attempt, whichever HTTP it speaks.
//!
//! Owns what a request is sent on and its response received from: a connection of HTTP/1 that belongs to the attempt, or a
//! stream on a shared connection of HTTP/2, whose head is sent when it is opened. Never decides about another attempt.

use std::cell::Cell;

use super::client::{Client, StreamBody};
use super::cut::Cut;
use super::downstream::Downstream;
use super::failure::Failure;
use super::plan::Plan;
use super::transfer::{Sink, Source, Stream};
use crate::http::h1::BodyDecoder;
use crate::http::h2::SendBody;
use crate::http::h2::client::{Place, Response};
use crate::tls::Intake;
use crate::upstream::{Connected, Pool, UpstreamConnection};

/// What an attempt is made on.
pub enum Channel {
    Http1(UpstreamConnection),
    Http2(Box<UpstreamStream>),
}

/// A stream to a target, on which the head of a request was sent.
pub struct UpstreamStream {
    pub send: SendBody,
    pub receive: Receive,
    /// The connection was there before.
    pub kept: bool,
}

/// How far a response on a stream has come.
pub enum Receive {
    Head(Response),
    /// The place is given back once the body is done with.
    Body {
        body: StreamBody,
        _place: Place,
    },
    Over,
}

/// Where the head of a response comes from.
pub enum Inlet<'a> {
    Http1(&'a mut Intake),
    Http2 { stream: &'a mut Receive, kept: bool },
}

impl Channel {
    /// Sends the head of a request on a stream; on a connection, that goes with the body.
    pub fn open(
        connected: Connected,
        plan: &Plan<'_>,
        client: &Client<'_>,
        down: &mut Downstream,
    ) -> Result<Self, Failure> {
        match connected {
            Connected::Http1(connection) => {
                plan.write_request(down, client);
                Ok(Self::Http1(connection))
            }
            Connected::Http2(lease) => {
                let kept = !lease.first;
                plan.tell_time(&mut down.request);
                let asked = lease.request(&down.request, plan.outgoing());
                let (send, response) = asked.map_err(|error| Failure::stream(error, kept))?;
                Ok(Self::Http2(Box::new(UpstreamStream { send, receive: Receive::Head(response), kept })))
            }
        }
    }

    /// Makes whatever waits for the target end. `halt` does so on a stream.
    pub fn cut<'h>(&self, halt: &'h Cell<bool>) -> Cut<'h> {
        match self {
            Self::Http1(connection) => Cut::Socket(connection.tx.deadline().cutter()),
            Self::Http2(_) => Cut::Stream(halt),
        }
    }

    /// Begins the time that the target has to answer in. `begun` does so on a stream.
    pub fn limit<'h>(&self, begun: &'h Cell<bool>) -> Cut<'h> {
        match self {
            Self::Http1(connection) => Cut::Socket(connection.intake.rx.deadline().cutter()),
            Self::Http2(_) => Cut::Stream(begun),
        }
    }

    /// The two directions. What waits to be sent first is in `out`.
    pub fn split<'a>(&'a mut self, out: &'a mut Vec<u8>, halt: &'a Cell<bool>) -> (Sink<'a>, Inlet<'a>) {
        match self {
            Self::Http1(UpstreamConnection { intake, tx, .. }) => {
                (Sink::Http1 { tx, out }, Inlet::Http1(intake))
            }
            Self::Http2(stream) => {
                let UpstreamStream { send, receive, kept } = &mut **stream;
                (Sink::Http2 { body: send, halt }, Inlet::Http2 { stream: receive, kept: *kept })
            }
        }
    }

    /// Adds to a failure whether it happened on a connection that was kept from before.
    pub fn blame(&self, failure: Failure) -> Failure {
        match self {
            Self::Http1(connection) => Failure { reused: connection.requests > 1, ..failure },
            Self::Http2(_) => failure,
        }
    }

    /// Ends it. A connection that is `reusable` goes back to its pool.
    pub fn close(self, pool: &Pool, reusable: bool, now_ns: u64) {
        match self {
            Self::Http1(connection) if reusable => pool.keep(connection, now_ns),
            Self::Http1(connection) => pool.discard(connection),
            // A stream that is not over is reset.
            Self::Http2(_) => {}
        }
    }
}

impl<'a> Inlet<'a> {
    /// The same for a while.
    pub fn reborrow(&mut self) -> Inlet<'_> {
        match self {
            Self::Http1(intake) => Inlet::Http1(intake),
            Self::Http2 { stream, kept } => Inlet::Http2 { stream, kept: *kept },
        }
    }

    /// The body, once the head was received.
    pub fn body(self, decoder: &'a mut BodyDecoder, halt: &'a Cell<bool>) -> Source<'a> {
        match self {
            Self::Http1(intake) => Source::Http1 { intake, decoder },
            Self::Http2 { stream: Receive::Body { body, .. }, .. } => {
                Source::Http2(Stream::new(body, u64::MAX, halt))
            }
            Self::Http2 { .. } => Source::Whole(bytes::Bytes::new()),
        }
    }
}
