//! The two directions of a stream.
//!
//! Owns waiting for octets and for leave to send them, both with a time limit. Futures of this module own no kernel
//! buffer: they may be dropped at any point.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use portcullis_abi::Reason;

use super::fields;
use super::held::{Held, SMALL};
use crate::http::{Head, TrailerLimits};
use crate::limit::{LeastRate, Pace};
use crate::net::deadline::SendLimit;
use crate::net::{self, clock};

/// Why a stream is not what was hoped for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error("the other side reset the stream with error {0}")]
    Reset(u32),
    #[error("the connection is gone")]
    Closed,
    #[error("nothing moved within the time limit")]
    TimedOut,
    #[error("less moved than is asked")]
    TooSlow,
    #[error("the message is malformed: {}", .0.as_str())]
    Malformed(Reason),
}

/// Error codes to reset a stream with (RFC 9113 section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// All is well: the rest is not needed.
    NoError,
    ProtocolError,
    InternalError,
    /// Not processed: may be sent again.
    RefusedStream,
    Cancel,
    EnhanceYourCalm,
}

impl Code {
    pub(super) fn reason(self) -> h2::Reason {
        match self {
            Code::NoError => h2::Reason::NO_ERROR,
            Code::ProtocolError => h2::Reason::PROTOCOL_ERROR,
            Code::InternalError => h2::Reason::INTERNAL_ERROR,
            Code::RefusedStream => h2::Reason::REFUSED_STREAM,
            Code::Cancel => h2::Reason::CANCEL,
            Code::EnhanceYourCalm => h2::Reason::ENHANCE_YOUR_CALM,
        }
    }
}

impl From<h2::Error> for BodyError {
    fn from(error: h2::Error) -> BodyError {
        match error.reason() {
            Some(code) if error.is_reset() && error.is_remote() => BodyError::Reset(code.into()),
            Some(_) if error.is_reset() && error.is_library() => {
                BodyError::Malformed(Reason::H2ProtocolError)
            }
            _ => BodyError::Closed,
        }
    }
}

/// Runs `poll` until it is ready or `limit` has passed. The clock is only asked when there is something to wait for.
async fn within<T>(
    limit: Duration,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<Result<T, BodyError>>,
) -> Result<T, BodyError> {
    if let Poll::Ready(done) = poll_fn(|cx| Poll::Ready(poll(cx))).await {
        return done;
    }
    let mut sleep = pin!(net::sleep(limit));
    poll_fn(|cx| match poll(cx) {
        Poll::Ready(done) => Poll::Ready(done),
        Poll::Pending => {
            ready!(sleep.as_mut().poll(cx));
            Poll::Ready(Err(BodyError::TimedOut))
        }
    })
    .await
}

/// The window of a connection's streams, which is doubled while a stream drains it as fast as it is filled: over a long way
/// the sender would wait for leave most of the time. Memory stays bounded by the window of the connection.
#[derive(Debug)]
pub(super) struct Growth {
    size: Cell<u32>,
    max: u32,
    wanted: Cell<bool>,
}

impl Growth {
    /// From `size` up to `max` octets.
    pub fn new(size: u32, max: u32) -> Growth {
        Growth { size: Cell::new(size), max, wanted: Cell::new(false) }
    }

    fn size(&self) -> u32 {
        self.size.get()
    }

    fn is_over(&self) -> bool {
        self.size.get() >= self.max
    }

    /// Has it grow when the connection is polled next, which giving leave to send sees to.
    fn want(&self) {
        self.wanted.set(true);
    }

    /// Lets `set` tell the other side of a larger window, if one is wanted. It fails while the other side has not agreed
    /// to the last one yet; then it is tried again.
    pub fn apply(&self, set: impl FnOnce(u32) -> Result<(), h2::Error>) {
        if self.wanted.get() && !self.is_over() {
            let size = self.size.get().saturating_mul(2).min(self.max);
            if set(size).is_ok() {
                self.size.set(size);
                self.wanted.set(false);
            }
        }
    }
}

/// What the other side sends on a stream after its head.
pub struct RecvBody {
    stream: h2::RecvStream,
    held: Held,
    trailers: Head,
    trailer_limits: TrailerLimits,
    growth: Rc<Growth>,
    /// Octets passed on in a row as fast as they came.
    drained: u32,
}

impl RecvBody {
    pub(super) fn new(stream: h2::RecvStream, growth: Rc<Growth>) -> RecvBody {
        RecvBody {
            stream,
            held: Held::default(),
            trailers: Head::new(),
            trailer_limits: TrailerLimits::default(),
            growth,
            drained: 0,
        }
    }

    /// The body with other limits on its trailers than those of any message.
    pub(super) fn with_trailers(self, trailer_limits: TrailerLimits) -> RecvBody {
        RecvBody { trailer_limits, ..self }
    }

    /// The next octets, never none; `None` at the end. They count against the window until [`RecvBody::release`].
    ///
    /// # Errors
    /// See [`BodyError`]; `TimedOut` when nothing came for `idle`.
    pub async fn data(&mut self, idle: Duration) -> Result<Option<Bytes>, BodyError> {
        within(idle, |cx| self.poll_data(cx)).await
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BodyError>> {
        if let Some(data) = self.held.pop() {
            return Poll::Ready(Ok(Some(data)));
        }
        loop {
            match ready!(self.stream.poll_data(cx)) {
                None => return Poll::Ready(Ok(None)),
                Some(Err(error)) => return Poll::Ready(Err(error.into())),
                // Padding alone, or nothing at all: the guard counts these.
                Some(Ok(data)) if data.is_empty() => {}
                Some(Ok(data)) if data.len() >= SMALL || self.stream.is_end_stream() => {
                    return Poll::Ready(Ok(Some(data)));
                }
                Some(Ok(data)) => return Poll::Ready(Ok(Some(self.with_more(data, cx)))),
            }
        }
    }

    /// A small piece, with what has come behind it: to pass each on by itself would cost more than it is worth.
    fn with_more(&mut self, first: Bytes, cx: &mut Context<'_>) -> Bytes {
        match self.stream.poll_data(cx) {
            Poll::Ready(Some(Ok(mut next))) => {
                self.held.push(first.clone());
                loop {
                    let small = next.len() < SMALL;
                    self.held.push(next);
                    // The end, and a fault, are told again to whoever asks next.
                    match self.stream.poll_data(cx) {
                        Poll::Ready(Some(Ok(more))) if small => next = more,
                        Poll::Ready(Some(Ok(more))) => break self.held.push(more),
                        _ => break,
                    }
                }
                self.held.pop().unwrap_or(first)
            }
            _ => first,
        }
    }

    /// Runs `passing`, which passes on what was received last, to its end. What comes meanwhile is taken from the codec and
    /// held, up to the window: it counts frames that it has to keep, and ends a connection with too many.
    pub async fn beside<T>(&mut self, passing: impl Future<Output = T>) -> T {
        let mut passing = pin!(passing);
        let mut open = true;
        poll_fn(|cx| {
            if let Poll::Ready(done) = passing.as_mut().poll(cx) {
                return Poll::Ready(done);
            }
            // The end, and a fault, are told again to whoever asks next.
            while open && let Poll::Ready(next) = self.stream.poll_data(cx) {
                match next {
                    Some(Ok(data)) => self.held.push(data),
                    _ => open = false,
                }
            }
            Poll::Pending
        })
        .await
    }

    /// [`RecvBody::data`] of what is there already; `None` where that is nothing.
    pub async fn data_now(&mut self) -> Option<Result<Option<Bytes>, BodyError>> {
        poll_fn(|cx| {
            Poll::Ready(match self.poll_data(cx) {
                Poll::Ready(data) => Some(data),
                Poll::Pending => None,
            })
        })
        .await
    }

    /// Gives the other side leave to send `octets` more: those that were received and passed on.
    pub fn release(&mut self, octets: usize) {
        let flow = self.stream.flow_control();
        // Fails where more is given back than was received, and where the stream is over: nothing to do in either case.
        let _ = flow.release_capacity(octets);
        if self.growth.is_over() {
            return;
        }
        // While little waits to be passed on, it is the window that the sender waits for.
        let keeps_up = flow.used_capacity() <= self.growth.size() as usize / 2;
        self.drained = if keeps_up { self.drained.saturating_add(octets as u32) } else { 0 };
        if self.drained > 2 * self.growth.size() {
            self.drained = 0;
            self.growth.want();
        }
    }

    /// Receives the trailer section, after the end of the data. The fields that may be forwarded are then in
    /// [`RecvBody::trailers`]; says whether there are any.
    ///
    /// # Errors
    /// See [`BodyError`].
    pub async fn receive_trailers(&mut self, idle: Duration) -> Result<bool, BodyError> {
        let received = within(idle, |cx| self.stream.poll_trailers(cx).map_err(BodyError::from)).await?;
        match received {
            None => Ok(false),
            Some(received) => {
                fields::read_trailers(&received, &self.trailer_limits, &mut self.trailers)
                    .map_err(BodyError::Malformed)?;
                Ok(!self.trailers.is_empty())
            }
        }
    }

    /// See [`RecvBody::receive_trailers`].
    pub fn trailers(&self) -> &Head {
        &self.trailers
    }

    /// Whether the other side has ended the stream and everything was read.
    pub fn is_end(&self) -> bool {
        self.held.is_empty() && self.stream.is_end_stream()
    }
}

/// Octets of a stream below which a window is as good as shut, unless they are all that is left to send.
const MORSEL: usize = 1024;
/// How long a window that is nearly shut may open further before what it allows is sent.
const MORSEL_WAIT: Duration = Duration::from_millis(100);

/// What we send on a stream after its head. Dropped before the end, it resets the stream.
pub struct SendBody {
    stream: h2::SendStream<Bytes>,
    ended: bool,
    /// The account of the other side's reading, since it was first waited for.
    pace: Option<Pace>,
    /// The socket holds up everything on the connection, if that is known.
    socket_full: Option<Rc<Cell<bool>>>,
}

impl SendBody {
    pub(super) fn new(
        stream: h2::SendStream<Bytes>,
        ended: bool,
        socket_full: Option<Rc<Cell<bool>>>,
    ) -> SendBody {
        SendBody { stream, ended, pace: None, socket_full }
    }

    /// Sends `data`, and the end of the stream behind it if `end`. Waits until the windows have taken all of it; what they
    /// took may still be on its way to the socket. Without a rate, all of it has one time limit. With one, each octet that
    /// the windows take buys time for the next, over the whole body: who reads at that rate is never cut, who does not
    /// is within a few pauses.
    ///
    /// A window that is opened by an octet at a time is waited for, so that it costs its owner time and us nothing. While the
    /// socket takes nothing, it is not the stream's windows that are waited for: that has a limit of its own.
    ///
    /// # Errors
    /// See [`BodyError`].
    pub async fn data(&mut self, mut data: Bytes, end: bool, limit: SendLimit) -> Result<(), BodyError> {
        if data.is_empty() {
            return if end { self.finish() } else { Ok(()) };
        }
        let mut slow = None;
        loop {
            self.stream.reserve_capacity(data.len());
            let wanted = data.len().min(MORSEL);
            let mut open = self.stream.capacity();
            if open < wanted {
                open = if limit.rate > 0 {
                    self.paced(wanted, limit).await?
                } else {
                    let slow = slow.get_or_insert_with(|| Box::pin(net::sleep(limit.pause)));
                    self.window(wanted, slow.as_mut()).await?
                };
            }
            let n = open.min(data.len());
            let last = n == data.len();
            self.stream.send_data(data.split_to(n), last && end)?;
            if let Some(pace) = &mut self.pace {
                pace.received(0, n);
            }
            if last {
                self.ended |= end;
                return Ok(());
            }
        }
    }

    /// [`SendBody::data`] of all octets of a body, if the window is open that far; else nothing was done.
    ///
    /// # Errors
    /// As there.
    pub fn whole_now(&mut self, data: &[u8]) -> Result<bool, BodyError> {
        self.stream.reserve_capacity(data.len());
        if data.is_empty() || self.stream.capacity() < data.len() {
            return Ok(false);
        }
        self.stream.send_data(Bytes::copy_from_slice(data), true)?;
        self.ended = true;
        Ok(true)
    }

    /// [`SendBody::window`], for as long as the other side's account allows.
    async fn paced(&mut self, wanted: usize, limit: SendLimit) -> Result<usize, BodyError> {
        let least = LeastRate { bytes_per_second: limit.rate, grace: limit.pause };
        let mut pace = self.pace.unwrap_or_else(|| Pace::new(least, limit.pause));
        let patience = pace.patience().unwrap_or(limit.pause);
        let since_ns = clock::now_ns();
        let mut open = self.window(wanted, pin!(net::sleep(patience))).await;
        while open == Err(BodyError::TimedOut) && self.socket_full.as_ref().is_some_and(|full| full.get()) {
            open = self.window(wanted, pin!(net::sleep(limit.pause))).await;
        }
        pace.received(clock::now_ns().saturating_sub(since_ns), 0);
        self.pace = Some(pace);
        match open {
            // What was left of the account was spent drip by drip.
            Err(BodyError::TimedOut) if patience < limit.pause / 2 => Err(BodyError::TooSlow),
            open => open,
        }
    }

    /// Waits for a window of `wanted` octets; for less, if that is all there is for a while.
    async fn window(
        &mut self,
        wanted: usize,
        mut slow: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<usize, BodyError> {
        let mut patience = pin!(net::sleep(MORSEL_WAIT));
        let mut patient = true;
        poll_fn(|cx| {
            loop {
                match self.stream.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(open))) if open >= wanted => return Poll::Ready(Ok(open)),
                    Poll::Ready(Some(Ok(_))) => {}
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error.into())),
                    Poll::Ready(None) => return Poll::Ready(Err(self.over(cx))),
                    Poll::Pending => break,
                }
            }
            if slow.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(BodyError::TimedOut));
            }
            if patient && patience.as_mut().poll(cx).is_ready() {
                patient = false;
            }
            match self.stream.capacity() {
                open @ 1.. if !patient => Poll::Ready(Ok(open)),
                _ => Poll::Pending,
            }
        })
        .await
    }

    /// Why nothing more can be sent.
    fn over(&mut self, cx: &mut Context<'_>) -> BodyError {
        match self.stream.poll_reset(cx) {
            Poll::Ready(Ok(code)) => BodyError::Reset(code.into()),
            Poll::Ready(Err(error)) => error.into(),
            Poll::Pending => BodyError::Closed,
        }
    }

    /// Ends the stream with a trailer section.
    ///
    /// # Errors
    /// The stream is over.
    pub fn trailers(&mut self, trailers: &Head) -> Result<(), BodyError> {
        self.stream.send_trailers(fields::write_trailers(trailers))?;
        self.ended = true;
        Ok(())
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// The stream is over.
    pub fn finish(&mut self) -> Result<(), BodyError> {
        if self.ended {
            return Ok(());
        }
        self.stream.send_data(Bytes::new(), true)?;
        self.ended = true;
        Ok(())
    }

    /// Breaks the stream off.
    pub fn reset(&mut self, code: Code) {
        self.stream.send_reset(code.reason());
        self.ended = true;
    }

    /// Ready when the other side has broken the stream off, or the connection has ended.
    pub fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        Poll::Ready(match ready!(self.stream.poll_reset(cx)) {
            Ok(code) => BodyError::Reset(code.into()),
            Err(error) => error.into(),
        })
    }
}

impl Drop for SendBody {
    fn drop(&mut self) {
        if !self.ended {
            self.stream.send_reset(h2::Reason::CANCEL);
        }
    }
}
