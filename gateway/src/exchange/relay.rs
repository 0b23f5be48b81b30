//! Moves a body from one side to the other: decode, frame anew, send; one function for both directions.
//!
//! Back-pressure is the loop itself: nothing more is received before what was received is sent. So a body of any size
//! takes [`BODY_ROOM`] of memory at most, and a slow receiver slows the sender down.

use std::cell::Cell;
use std::time::Duration;

use portcullis_abi::Reason;

use crate::http::h1::{BodyDecoder, write_chunk_end, write_chunk_header};
use crate::http::{Head, Refusal};
use crate::limit::{LeastRate, Pace};
use crate::net::clock;
use crate::net::deadline::SendLimit;
use crate::tls::{BODY_ROOM, Intake, Tx};

/// How a body is framed on the side that it is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// As it is: the length was announced, or the end of the connection is the end.
    Identity,
    Chunked,
}

/// How a body travels.
#[derive(Clone, Copy, Debug)]
pub struct Leg {
    pub coding: Coding,
    /// Whether trailer fields are passed on.
    pub trailers: bool,
    /// Time limit between two receives.
    pub receive_idle: Duration,
    /// The least rate that is asked of the sender.
    pub least: LeastRate,
    /// Time limit of one send.
    pub send: SendLimit,
    /// Whether a receiver that gives up ends the sender's part at once.
    pub watch: bool,
}

/// Why a body did not get across whole.
#[derive(Debug)]
pub enum RelayError {
    /// The sender closed or broke the connection too early.
    SourceClosed,
    /// The sender was silent for too long.
    SourceTimedOut,
    /// The sender was too slow for too long, without being silent.
    SourceTooSlow,
    /// The sender broke the framing, or sent too much.
    Refused(Refusal),
    /// The receiver is gone.
    Sink,
    /// The receiver did not read in time.
    SinkTimedOut,
    /// The receiver kept the window of its stream shut for too long.
    Stalled,
}

impl RelayError {
    /// Whether it is the receiver's doing.
    pub fn is_of_receiver(&self) -> bool {
        matches!(self, Self::Sink | Self::SinkTimedOut | Self::Stalled)
    }

    /// What it means for a response.
    pub fn of_response(&self) -> Reason {
        match self {
            Self::Sink => Reason::ClientAborted,
            Self::SinkTimedOut => Reason::SlowReader,
            Self::Stalled => Reason::H2StalledWindow,
            Self::SourceTimedOut | Self::SourceTooSlow => Reason::UpstreamTimeout,
            Self::SourceClosed => Reason::UpstreamTruncated,
            Self::Refused(refusal) => refusal.reason,
        }
    }
}

/// Payload below this is copied behind what waits to be sent; more is sent from where it was received.
const COPY_MAX: usize = 4 * 1024;

/// Relays the rest of a body. `out` may hold bytes to be sent first (a head). On success everything was sent; `payload`
/// counts the bytes of the body, also when it fails.
///
/// # Errors
/// See [`RelayError`]. Neither connection can be used for another message then.
pub async fn relay(
    source: &mut Intake,
    decoder: &mut BodyDecoder,
    sink: &mut Tx,
    out: &mut Vec<u8>,
    leg: Leg,
    payload: &Cell<u64>,
) -> Result<(), RelayError> {
    let mut pace = Pace::new(leg.least, leg.receive_idle);
    let paced = leg.least.bytes_per_second > 0;
    loop {
        // A sink that was given up on gets nothing more: what is at hand stays there, whole.
        if sink.deadline().expired() {
            return Err(lost(sink));
        }
        // All that is at hand.
        while !decoder.is_done() && !source.is_empty() {
            let step = decoder.decode(source.unread()).map_err(RelayError::Refused)?;
            let bytes = step.payload.len();
            payload.set(payload.get() + bytes as u64);
            if bytes > COPY_MAX && step.consumed == source.unread().len() {
                send_in_place(source, step.payload, sink, out, leg).await?;
            } else if bytes > 0 {
                frame(&source.unread()[step.payload], leg.coding, out);
            }
            source.consume(step.consumed);
            if step.consumed == 0 {
                break;
            }
            if out.len() >= BODY_ROOM {
                send(sink, out, leg).await?;
            }
        }
        if decoder.is_done() {
            if leg.coding == Coding::Chunked {
                let fields: Option<&Head> = leg.trailers.then(|| decoder.trailers());
                write_chunk_end(fields, out);
            }
            return if out.is_empty() { Ok(()) } else { send(sink, out, leg).await };
        }
        if !out.is_empty() {
            send(sink, out, leg).await?;
        }
        let patience = pace.patience().filter(|patience| *patience < leg.receive_idle);
        source.rx.deadline().arm(patience.unwrap_or(leg.receive_idle));
        // Only what is waited for here counts: while a slow receiver holds us up, nobody is slow at sending.
        let since_ns = if paced { clock::now_ns() } else { 0 };
        match source.receive(BODY_ROOM).await {
            Ok(n @ 1..) => {
                // A slow receiver must not be taken for a silent sender.
                source.rx.deadline().disarm();
                if paced {
                    pace.received(clock::now_ns().saturating_sub(since_ns), n);
                    if pace.is_spent() {
                        return Err(RelayError::SourceTooSlow);
                    }
                }
            }
            _ if source.rx.deadline().expired() && patience.is_some() => {
                return Err(RelayError::SourceTooSlow);
            }
            _ if source.rx.deadline().expired() => return Err(RelayError::SourceTimedOut),
            // RFC 9112 section 9.8: where the end of the connection is the end of the body, TLS must say that it is one.
            Ok(0) if !source.rx.ended_cleanly() => return Err(RelayError::SourceClosed),
            Ok(0) => decoder.close().map_err(|_| RelayError::SourceClosed)?,
            Err(_) => return Err(RelayError::SourceClosed),
        }
    }
}

/// Appends payload in its framing.
pub fn frame(payload: &[u8], coding: Coding, out: &mut Vec<u8>) {
    if coding == Coding::Chunked {
        write_chunk_header(payload.len(), out);
    }
    out.extend_from_slice(payload);
    if coding == Coding::Chunked {
        out.extend_from_slice(b"\r\n");
    }
}

/// Sends a payload that ends the receive buffer from where it lies.
async fn send_in_place(
    source: &mut Intake,
    payload: std::ops::Range<usize>,
    sink: &mut Tx,
    out: &mut Vec<u8>,
    leg: Leg,
) -> Result<(), RelayError> {
    if leg.coding == Coding::Chunked {
        write_chunk_header(payload.len(), out);
    }
    let (_, start) = source.buffer_mut();
    if out.len() > start + payload.start {
        send(sink, out, leg).await?;
    }
    let (buffer, start) = source.buffer_mut();
    let whole = buffer.len();
    buffer.truncate(start + payload.end);
    // What waits to be sent goes in front of the payload, over what was consumed: one send for both.
    let from = start + payload.start - out.len();
    buffer[from..start + payload.start].copy_from_slice(out);
    out.clear();
    sink.deadline().arm_send(leg.send);
    let sent = sink.send_from(buffer, from).await;
    // What was cut off is framing (a chunk's CR LF): its content no longer matters, its length does.
    buffer.resize(whole, 0);
    sent.map_err(|_| lost(sink))?;
    if leg.coding == Coding::Chunked {
        out.extend_from_slice(b"\r\n");
    }
    Ok(())
}

async fn send(sink: &mut Tx, out: &mut Vec<u8>, leg: Leg) -> Result<(), RelayError> {
    sink.deadline().arm_send(leg.send);
    sink.send(out).await.map_err(|_| lost(sink))
}

/// How a receiver was lost.
pub fn lost(sink: &Tx) -> RelayError {
    if sink.deadline().passed() { RelayError::SinkTimedOut } else { RelayError::Sink }
}
