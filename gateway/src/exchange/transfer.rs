//! Moves a body from one side to the other, whichever HTTP each of them speaks.
//!
//! Owns the pairs of which one side at least is a stream of HTTP/2; the pair of two connections of HTTP/1 is `relay`'s.
//! Back-pressure is the loop itself: a stream's window is given back when its octets were passed on, and nothing is
//! received before that.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;

use super::client::StreamBody;
use super::cut::{Cut, unless, watched};
use super::relay::{Coding, Leg, RelayError, frame, lost, relay};
use crate::http::coding::Encoder;
use crate::http::grpc::Messages;
use crate::http::grpc_web::{Decoder, encode, trailer_frame};
use crate::http::h1::{BodyDecoder, write_chunk_end};
use crate::http::h2::{BodyError, SendBody};
use crate::http::{Head, Reason, Refusal};
use crate::limit::Pace;
use crate::net::clock;
use crate::tls::{BODY_ROOM, Intake, Tx};

/// Where a body comes from.
pub enum Source<'a> {
    Http1 {
        intake: &'a mut Intake,
        decoder: &'a mut BodyDecoder,
    },
    Http2(Stream<'a>),
    /// It is all there.
    Whole(Bytes),
}

/// A body that comes on a stream.
pub struct Stream<'a> {
    pub body: &'a mut StreamBody,
    /// How many of the kept pieces were passed on.
    pub passed: usize,
    /// Octets that may come; more is refused.
    limit: u64,
    counted: Counted,
    /// Octets that were received and not passed on yet.
    pub owed: usize,
    /// Ends the waiting.
    pub halt: &'a Cell<bool>,
}

/// What a limit is held against.
enum Counted {
    Body(u64),
    Messages(Messages),
}

/// Where a body goes to.
pub enum Sink<'a> {
    /// `out` may hold bytes to be sent first.
    Http1 {
        tx: &'a mut Tx,
        out: &'a mut Vec<u8>,
    },
    Http2 {
        body: &'a mut SendBody,
        halt: &'a Cell<bool>,
    },
    /// It is gathered, up to `room` bytes in all; one that is `over` is refused for that reason.
    Memory {
        out: &'a mut Vec<u8>,
        room: u64,
        over: Reason,
    },
}

/// A part of a body.
enum Piece {
    /// Octets, and whether nothing at all comes after them.
    Data(Bytes, bool),
    /// No more octets; there may be trailers.
    End,
}

/// Moves the rest of a body. On success everything was sent; `payload` counts the bytes of the body, also when it fails.
///
/// # Errors
/// See [`RelayError`]. Neither side can be used for another message then.
pub async fn transfer(
    source: Source<'_>,
    sink: Sink<'_>,
    leg: Leg,
    recode: Recode<'_>,
    payload: &Cell<u64>,
) -> Result<(), RelayError> {
    match (source, sink, recode) {
        (Source::Http1 { intake, decoder }, Sink::Http1 { tx, out }, Recode::None) => {
            relay(intake, decoder, tx, out, leg, payload).await
        }
        (mut source, mut sink, recode) => {
            if matches!(recode, Recode::None) && at_once(&mut source, &mut sink, payload)? {
                return Ok(());
            }
            // Boxed: connections of HTTP/1 alone need no room for it.
            Box::pin(mixed(source, sink, leg, recode, payload)).await
        }
    }
}

/// Passes on a body that came with its head, to a stream that takes all of it: the usual small response. False: nothing was
/// done.
fn at_once(source: &mut Source<'_>, sink: &mut Sink<'_>, payload: &Cell<u64>) -> Result<bool, RelayError> {
    let (Source::Http1 { intake, decoder }, Sink::Http2 { body, .. }) = (source, sink) else {
        return Ok(false);
    };
    let Some(left) = decoder.remaining().filter(|left| *left <= intake.unread().len() as u64) else {
        return Ok(false);
    };
    let data = &intake.unread()[..left as usize];
    if !body.whole_now(data).map_err(|_| RelayError::Sink)? {
        return Ok(false);
    }
    payload.set(payload.get() + left);
    decoder.decode(data).map_err(RelayError::Refused)?;
    intake.consume(left as usize);
    Ok(true)
}

/// How the body is coded anew: between gRPC and gRPC-Web, or into a content coding.
pub enum Recode<'a> {
    None,
    /// To gRPC, from base64.
    FromText(Decoder),
    /// From gRPC: trailers become the last frame. `messages` follows what was passed on.
    ToWeb {
        text: bool,
        messages: &'a Cell<Messages>,
    },
    /// Into a content coding. What has come in goes out when there is a pause.
    Encode(Box<Encoder>),
}

/// The trailers as the last frame of the body of a call of gRPC-Web.
pub fn web_trailers(trailers: &Head, text: bool) -> Bytes {
    let frame = trailer_frame(trailers);
    if text { encode(&frame).into() } else { frame.into() }
}

impl Recode<'_> {
    fn data(&mut self, data: Bytes, last: bool) -> Result<Bytes, RelayError> {
        const BAD: RelayError = RelayError::Refused(Refusal::new(Reason::BadGrpcMessage));
        match self {
            Self::None => Ok(data),
            Self::ToWeb { text, messages } => {
                let mut followed = messages.get();
                // Responses have no limit.
                let _ = followed.advance(&data, u64::MAX);
                messages.set(followed);
                Ok(if *text { encode(&data).into() } else { data })
            }
            Self::FromText(decoder) => {
                let decoded = decoder.decode(&data).ok_or(BAD)?;
                if last && !decoder.is_whole() { Err(BAD) } else { Ok(decoded.into()) }
            }
            Self::Encode(encoder) => {
                let coded = encoder.put(&data).and_then(|mut coded| {
                    if last {
                        coded.extend(encoder.finish()?);
                    }
                    Ok(coded)
                });
                Ok(coded.map_err(|_| RelayError::SourceClosed)?.into())
            }
        }
    }

    /// What goes out before a pause, lest the receiver wait for what we have.
    fn pause(&mut self) -> Result<Option<Bytes>, RelayError> {
        let Self::Encode(encoder) = self else { return Ok(None) };
        let coded = encoder.flush().map_err(|_| RelayError::SourceClosed)?;
        Ok((!coded.is_empty()).then(|| coded.into()))
    }

    /// What the trailers are in the body.
    fn trailers(&self, trailers: &Head) -> Option<Bytes> {
        let Self::ToWeb { text, .. } = self else { return None };
        Some(web_trailers(trailers, *text))
    }
}

async fn mixed(
    mut source: Source<'_>,
    mut sink: Sink<'_>,
    leg: Leg,
    mut recode: Recode<'_>,
    payload: &Cell<u64>,
) -> Result<(), RelayError> {
    let mut pace = Pace::new(leg.least, leg.receive_idle);
    loop {
        let piece = match source.at_hand().await? {
            Some(piece) => piece,
            None => {
                if let Some(coded) = recode.pause()? {
                    source.beside(sink.put(coded, false, leg)).await?;
                }
                source.beside(sink.flush(leg)).await?;
                match clocked(&mut pace, &mut source, &mut sink, leg).await? {
                    Some(piece) => piece,
                    None => continue,
                }
            }
        };
        match piece {
            Piece::Data(data, last) => {
                payload.set(payload.get() + data.len() as u64);
                let data = recode.data(data, last)?;
                match (data.is_empty(), last) {
                    // An empty chunk would be the end.
                    (true, true) => return sink.end(None, leg).await,
                    (true, false) => {}
                    (false, _) => source.beside(sink.put(data, last, leg)).await?,
                }
                source.release();
                if last {
                    return Ok(());
                }
            }
            Piece::End => {
                let trailers = source.trailers(leg).await?;
                let told = trailers.filter(|fields| !fields.is_empty());
                if let Some(frame) = told.and_then(|fields| recode.trailers(fields)) {
                    return sink.put(frame, true, leg).await;
                }
                let rest = recode.data(Bytes::new(), true)?;
                if !rest.is_empty() {
                    sink.put(rest, false, leg).await?;
                }
                return sink.end(trailers.filter(|fields| leg.trailers && !fields.is_empty()), leg).await;
            }
        }
    }
}

/// Waits for more, as long as the sender is fast enough. Only what is waited for here counts: while a slow receiver holds
/// us up, nobody is slow at sending.
async fn clocked(
    pace: &mut Pace,
    source: &mut Source<'_>,
    sink: &mut Sink<'_>,
    leg: Leg,
) -> Result<Option<Piece>, RelayError> {
    let patience = pace.patience().filter(|patience| *patience < leg.receive_idle);
    let paced = leg.least.bytes_per_second > 0;
    let since_ns = if paced { clock::now_ns() } else { 0 };
    let mut received = 0;
    let waited = source.wait(sink, leg, patience.unwrap_or(leg.receive_idle), &mut received).await;
    match waited {
        Err(RelayError::SourceTimedOut) if patience.is_some() => Err(RelayError::SourceTooSlow),
        Ok(piece) if paced => {
            pace.received(clock::now_ns().saturating_sub(since_ns), received);
            if pace.is_spent() { Err(RelayError::SourceTooSlow) } else { Ok(piece) }
        }
        waited => waited,
    }
}

impl From<BodyError> for RelayError {
    /// What it means of a source.
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TimedOut => Self::SourceTimedOut,
            BodyError::TooSlow => Self::SourceTooSlow,
            BodyError::Reset(_) | BodyError::Closed => Self::SourceClosed,
            BodyError::Malformed(reason) => Self::Refused(Refusal::new(reason)),
        }
    }
}

impl Source<'_> {
    /// What need not be waited for.
    async fn at_hand(&mut self) -> Result<Option<Piece>, RelayError> {
        match self {
            Self::Whole(bytes) => Ok(Some(match std::mem::take(bytes) {
                rest if rest.is_empty() => Piece::End,
                bytes => Piece::Data(bytes, true),
            })),
            Self::Http2(stream) => {
                if let Some(piece) = stream.body.kept(stream.passed).cloned() {
                    stream.passed += 1;
                    let last = stream.body.whole().is_some() && stream.body.kept(stream.passed).is_none();
                    return stream.count(piece, last).map(Some);
                }
                match stream.body.body.data_now().await {
                    None => Ok(None),
                    Some(data) => stream.received(data?).map(Some),
                }
            }
            Self::Http1 { intake, decoder } => {
                while !decoder.is_done() && !intake.is_empty() {
                    let step = decoder.decode(intake.unread()).map_err(RelayError::Refused)?;
                    let data = Bytes::copy_from_slice(&intake.unread()[step.payload]);
                    intake.consume(step.consumed);
                    if !data.is_empty() {
                        let last = decoder.is_done() && decoder.trailers().is_empty();
                        return Ok(Some(Piece::Data(data, last)));
                    }
                    if step.consumed == 0 {
                        break;
                    }
                }
                Ok(decoder.is_done().then_some(Piece::End))
            }
        }
    }

    /// Waits for more, for at most `idle`; says how many bytes came. `None`: they are at hand now.
    async fn wait(
        &mut self,
        sink: &mut Sink<'_>,
        leg: Leg,
        idle: Duration,
        received: &mut usize,
    ) -> Result<Option<Piece>, RelayError> {
        match self {
            Self::Whole(_) => Ok(None),
            Self::Http2(stream) => {
                let Stream { body, halt, .. } = stream;
                let data = {
                    let data = pin!(body.body.data(idle));
                    let data = pin!(unless(halt, data));
                    sink.unless_gone(leg, halt, data).await?
                };
                let data = data.ok_or(RelayError::SourceClosed)??;
                *received = data.as_ref().map_or(0, Bytes::len);
                stream.received(data).map(Some)
            }
            Self::Http1 { intake, decoder } => {
                intake.rx.deadline().arm(idle);
                let cutter = Cut::Socket(intake.rx.deadline().cutter());
                let got = sink.unless_gone_by(leg, &cutter, pin!(intake.receive(BODY_ROOM))).await?;
                match got {
                    Ok(n @ 1..) => {
                        *received = n;
                        intake.rx.deadline().disarm();
                    }
                    _ if intake.rx.deadline().expired() => return Err(RelayError::SourceTimedOut),
                    Ok(0) if !intake.rx.ended_cleanly() => return Err(RelayError::SourceClosed),
                    Ok(0) => decoder.close().map_err(|_| RelayError::SourceClosed)?,
                    Err(_) => return Err(RelayError::SourceClosed),
                }
                Ok(None)
            }
        }
    }

    /// Awaits `passing`, which passes on what came last.
    async fn beside<T>(&mut self, passing: impl Future<Output = T>) -> T {
        match self {
            Self::Http2(stream) => stream.body.body.beside(passing).await,
            _ => passing.await,
        }
    }

    /// Gives a stream leave to send as much as was passed on.
    fn release(&mut self) {
        if let Self::Http2(stream) = self {
            stream.body.body.release(std::mem::take(&mut stream.owed));
        }
    }

    /// The trailers, after [`Piece::End`].
    async fn trailers(&mut self, leg: Leg) -> Result<Option<&Head>, RelayError> {
        match self {
            Self::Whole(_) => Ok(None),
            Self::Http1 { decoder, .. } => Ok(Some(decoder.trailers())),
            Self::Http2(stream) => {
                let Stream { body, halt, .. } = stream;
                let received = unless(halt, body.body.receive_trailers(leg.receive_idle)).await;
                received.ok_or(RelayError::SourceClosed)??;
                Ok(Some(stream.body.body.trailers()))
            }
        }
    }
}

impl<'a> Stream<'a> {
    /// A body from its beginning, of at most `allowed` octets.
    pub fn new(body: &'a mut StreamBody, limit: u64, halt: &'a Cell<bool>) -> Self {
        Self { body, passed: 0, limit, counted: Counted::Body(0), owed: 0, halt }
    }

    /// Has the limit hold for each message of a call instead.
    pub fn of_messages(self) -> Self {
        Self { counted: Counted::Messages(Messages::default()), ..self }
    }

    /// Takes note of what came.
    fn received(&mut self, data: Option<Bytes>) -> Result<Piece, RelayError> {
        let Some(data) = data else { return Ok(Piece::End) };
        self.body.take(&data);
        self.passed += 1;
        self.owed = data.len();
        let last = self.body.body.is_end();
        self.count(data, last)
    }

    fn count(&mut self, data: Bytes, last: bool) -> Result<Piece, RelayError> {
        let within = match &mut self.counted {
            Counted::Body(octets) => {
                *octets += data.len() as u64;
                *octets <= self.limit
            }
            Counted::Messages(messages) => messages.advance(&data, self.limit).is_ok(),
        };
        if within {
            Ok(Piece::Data(data, last))
        } else {
            Err(RelayError::Refused(Refusal::new(Reason::BodyTooLarge)))
        }
    }
}

impl Sink<'_> {
    /// Sends octets, and the end of the body behind them if they are the last.
    async fn put(&mut self, data: Bytes, last: bool, leg: Leg) -> Result<(), RelayError> {
        match self {
            Self::Http2 { body, halt } => match unless(halt, body.data(data, last, leg.send)).await {
                Some(Ok(())) => Ok(()),
                Some(Err(BodyError::TimedOut)) => Err(RelayError::Stalled),
                Some(Err(BodyError::TooSlow)) => Err(RelayError::SinkTimedOut),
                _ => Err(RelayError::Sink),
            },
            Self::Memory { out, room, over } => {
                if out.len() as u64 + data.len() as u64 > *room {
                    return Err(RelayError::Refused(Refusal::new(*over)));
                }
                out.extend_from_slice(&data);
                Ok(())
            }
            Self::Http1 { tx, out } => {
                if tx.deadline().expired() {
                    return Err(RelayError::Sink);
                }
                frame(&data, leg.coding, out);
                if last && leg.coding == Coding::Chunked {
                    write_chunk_end(None, out);
                }
                if last || out.len() >= BODY_ROOM { self.flush(leg).await } else { Ok(()) }
            }
        }
    }

    /// Ends the body.
    async fn end(&mut self, trailers: Option<&Head>, leg: Leg) -> Result<(), RelayError> {
        match (self, trailers) {
            (Self::Http2 { body, .. }, Some(fields)) => body.trailers(fields).map_err(|_| RelayError::Sink),
            (Self::Http2 { body, .. }, None) => body.finish().map_err(|_| RelayError::Sink),
            (Self::Memory { .. }, _) => Ok(()),
            (sink @ Self::Http1 { .. }, trailers) => {
                if let Self::Http1 { out, .. } = sink
                    && leg.coding == Coding::Chunked
                {
                    write_chunk_end(trailers, out);
                }
                sink.flush(leg).await
            }
        }
    }

    /// Sends what waits to be sent.
    async fn flush(&mut self, leg: Leg) -> Result<(), RelayError> {
        match self {
            Self::Http1 { tx, out } if !out.is_empty() => {
                if tx.deadline().expired() {
                    return Err(RelayError::Sink);
                }
                tx.deadline().arm_send(leg.send);
                tx.send(out).await.map_err(|_| lost(tx))
            }
            _ => Ok(()),
        }
    }

    /// Awaits `other`, which comes from the target, unless the client gives up on it meanwhile.
    async fn unless_gone<T>(
        &mut self,
        leg: Leg,
        halt: &Cell<bool>,
        other: impl Future<Output = T>,
    ) -> Result<T, RelayError> {
        self.unless_gone_by(leg, &Cut::Stream(halt), other).await
    }

    /// The same; `cut` makes `other` end.
    async fn unless_gone_by<T>(
        &mut self,
        leg: Leg,
        cut: &Cut<'_>,
        other: impl Future<Output = T>,
    ) -> Result<T, RelayError> {
        match self {
            Self::Http2 { body, .. } if leg.watch => {
                let (done, gone) = watched(|cx| body.poll_closed(cx).map(drop), cut, other).await;
                if gone { Err(RelayError::Sink) } else { Ok(done) }
            }
            _ => Ok(other.await),
        }
    }
}
