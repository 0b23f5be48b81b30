//! A connection to a target.
//!
//! Owns one connection: its preface, the streams we open, and its end. Which target it leads to, and how many there are, is
//! the pool's. An error tells whether the target can have processed the request (RFC 9113 section 8.7): what it has not,
//! may be sent again.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;

use super::Settings;
use super::body::{Growth, RecvBody, SendBody};
use super::frames::{Scanner, flag, kind};
use super::request;
use super::response;
use super::transport::{Codec, Keep, Transport, drive};
use super::waiters::Waiters;
use crate::http::h1::{BodyFraming, HeadLimits};
use crate::http::{Method, RequestHead, ResponseHead, TrailerLimits, grpc};
use crate::net::deadline::SendLimit;
use crate::net::{self, clock};
use crate::tls;

pub use super::request::Outgoing;

/// Why a request has no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The target said that it has not looked at the request (GOAWAY, REFUSED_STREAM), or it was never sent.
    #[error("the target has not processed the request")]
    NotProcessed,
    #[error("the target reset the stream with error {0}")]
    Reset(u32),
    #[error("the connection to the target is gone")]
    Closed,
    /// The target broke the protocol, or sent what HTTP does not allow.
    #[error("the target's response is malformed")]
    Malformed,
}

impl From<h2::Error> for ClientError {
    fn from(error: h2::Error) -> ClientError {
        match error.reason() {
            Some(h2::Reason::REFUSED_STREAM) if error.is_remote() => ClientError::NotProcessed,
            // Streams up to the last that the target names go on, so one that learns of a GOAWAY is beyond it.
            Some(_) if error.is_go_away() && error.is_remote() => ClientError::NotProcessed,
            Some(code) if error.is_reset() && error.is_remote() => ClientError::Reset(code.into()),
            Some(_) if error.is_library() => ClientError::Malformed,
            _ => ClientError::Closed,
        }
    }
}

/// Streams that may fill their windows, whose readers are slow, before they stop the others of their connection.
const SLOW_READERS: u32 = 16;
/// RFC 9113 section 6.9.1.
const WINDOW_MAX: u32 = (1 << 31) - 1;

/// What the streams of a connection, its driver and the pool share.
struct Shared {
    /// Streams open at present.
    streams: Cell<u32>,
    /// Streams that may still be opened.
    streams_left: Cell<u32>,
    /// The connection takes no more streams.
    leaving: Cell<bool>,
    /// The target's settings are there.
    settled: Cell<bool>,
    /// When the last stream ended.
    idle_since_ns: Cell<u64>,
    /// When bytes were received last.
    heard_ns: Cell<u64>,
    /// The first stream was not opened yet.
    fresh: Cell<bool>,
    /// Who waits for a place on any connection to the target.
    waiters: Rc<Waiters>,
    /// Who waits for the settings.
    settling: RefCell<Vec<Waker>>,
    /// Of the windows of the streams.
    growth: Rc<Growth>,
}

/// Opens streams on a connection.
#[derive(Clone)]
pub struct Client {
    requests: h2::client::SendRequest<Bytes>,
    shared: Rc<Shared>,
    own_max: u32,
}

/// Begins HTTP/2 on a connection. The future runs it, and is to be awaited to its end, in a task of its own.
pub fn connect(
    stream: tls::Stream,
    settings: &Settings,
    send_limit: Duration,
    waiters: Rc<Waiters>,
) -> Option<(Client, impl Future<Output = ()> + use<>)> {
    let transport = Transport::default();
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .data_frame_budget(settings.frames_room)
        .max_header_list_size(settings.header_list)
        .max_send_buffer_size(settings.send_buffer)
        .initial_max_send_streams(settings.concurrent_streams as usize)
        .max_concurrent_reset_streams(settings.concurrent_streams as usize)
        .enable_push(false);
    // The handshake only writes the preface and the settings, which the transport takes at once.
    let mut handshake = Box::pin(builder.handshake(transport.clone()));
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Ok((requests, connection))) = handshake.as_mut().poll(&mut cx) else { return None };
    let shared = Rc::new(Shared {
        streams: Cell::new(0),
        streams_left: Cell::new(settings.streams_max),
        leaving: Cell::new(false),
        settled: Cell::new(false),
        idle_since_ns: Cell::new(clock::now_ns()),
        heard_ns: Cell::new(0),
        fresh: Cell::new(true),
        waiters,
        settling: RefCell::default(),
        growth: Rc::new(Growth::new(settings.stream_window, settings.connection_window / 4)),
    });
    let client = Client { requests, shared: shared.clone(), own_max: settings.concurrent_streams };
    let window = settings.connection_window;
    let frames = Scanner::default();
    let codec = RefCell::new(Driver { connection, shared, window, send_limit, frames, seen: false });
    let run = async move {
        drive(stream, transport, &codec).await;
        codec.borrow().shared.leave();
    };
    Some((client, run))
}

struct Driver {
    connection: h2::client::Connection<Transport, Bytes>,
    shared: Rc<Shared>,
    /// Of the connection, at first.
    window: u32,
    send_limit: Duration,
    frames: Scanner,
    /// A frame after the target's settings has begun, so the codec has read those by its next turn.
    seen: bool,
}

impl Codec for Driver {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (connection, own_window) = (&mut self.connection, self.window);
        self.shared.growth.apply(|size| {
            connection.set_initial_window_size(size)?;
            // As many slow readers as before have to come together to stop the streams of others.
            let all = size.saturating_mul(SLOW_READERS).clamp(own_window, WINDOW_MAX);
            connection.set_target_window_size(all);
            Ok(())
        });
        // How it ended, each stream learns for itself.
        let over = Pin::new(&mut self.connection).poll(cx).map(|_| ());
        if over.is_ready() {
            self.shared.leave();
        } else if self.seen && !self.shared.settled.replace(true) {
            self.shared.settle();
            // There may be more places than were thought.
            self.shared.waiters.wake_all();
        }
        over
    }

    fn received(&mut self, mut bytes: &[u8]) -> Keep {
        self.shared.heard_ns.set(clock::now_ns());
        // The target's first frame is its settings (RFC 9113 section 3.4), and its acknowledgement of ours follows.
        while !self.seen
            && let Some(frame) = self.frames.next(&mut bytes)
        {
            self.seen = frame.kind != kind::SETTINGS || frame.has(flag::ACK);
        }
        Keep::Yes
    }

    fn sending(&mut self, _: &mut [u8]) -> Keep {
        Keep::Yes
    }

    fn send_limit(&self) -> SendLimit {
        SendLimit::whole(self.send_limit)
    }

    fn stalled(&mut self) {}

    fn ended(&mut self, _: bool) -> Keep {
        Keep::Yes
    }
}

impl Client {
    /// A place for one more stream, if there is one.
    pub fn reserve(&self) -> Option<Lease> {
        let shared = &self.shared;
        let max = self.requests.current_max_send_streams().min(self.own_max as usize);
        if shared.leaving.get() || shared.streams_left.get() == 0 || shared.streams.get() as usize >= max {
            return None;
        }
        shared.streams.set(shared.streams.get() + 1);
        shared.streams_left.set(shared.streams_left.get() - 1);
        let first = shared.fresh.replace(false);
        Some(Lease { requests: self.requests.clone(), place: Place(shared.clone()), first })
    }

    /// Whether no further stream can ever be opened.
    pub fn is_leaving(&self) -> bool {
        self.shared.leaving.get() || self.shared.streams_left.get() == 0
    }

    /// Streams open at present.
    pub fn streams(&self) -> u32 {
        self.shared.streams.get()
    }

    /// When the last stream ended, or the connection was made.
    pub fn idle_since_ns(&self) -> u64 {
        self.shared.idle_since_ns.get()
    }
}

impl Shared {
    fn leave(&self) {
        self.leaving.set(true);
        self.settle();
        self.waiters.wake_all();
    }

    fn settle(&self) {
        self.settling.take().into_iter().for_each(Waker::wake);
    }
}

/// A place for one stream on a connection; given back by dropping it.
pub struct Place(Rc<Shared>);

impl Drop for Place {
    fn drop(&mut self) {
        let streams = self.0.streams.get().saturating_sub(1);
        self.0.streams.set(streams);
        if streams == 0 {
            self.0.idle_since_ns.set(clock::now_ns());
        }
        self.0.waiters.wake_one();
    }
}

/// A place for one stream on a connection; given back by dropping it.
pub struct Lease {
    requests: h2::client::SendRequest<Bytes>,
    place: Place,
    /// The connection was made for it.
    pub first: bool,
}

impl Lease {
    /// Sends the head of a request.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn request(
        mut self,
        request: &RequestHead,
        outgoing: Outgoing,
    ) -> Result<(SendBody, Response), ClientError> {
        let message = request::write(request, outgoing).ok_or(ClientError::Malformed)?;
        let sent = self.requests.send_request(message, outgoing.end).map_err(|error| {
            self.place.0.leave();
            match ClientError::from(error) {
                // Nothing of it was sent.
                ClientError::Closed | ClientError::NotProcessed => ClientError::NotProcessed,
                other => other,
            }
        })?;
        let (response, stream) = sent;
        let method = request.upstream_method();
        Ok((
            SendBody::new(stream, outgoing.end, None),
            Response {
                response,
                method,
                call: grpc::is_call(request),
                trailers: TrailerLimits::default(),
                body: None,
                place: self.place,
                sent_ns: clock::now_ns(),
            },
        ))
    }

    /// Whether the target takes an extended CONNECT (RFC 8441 section 3). Waits for its settings to say so, at most `limit`.
    pub async fn takes_connect(&self, limit: Duration) -> bool {
        let shared = &self.place.0;
        let mut limit = pin!(net::sleep(limit));
        poll_fn(|cx| {
            if shared.settled.get() || shared.leaving.get() || limit.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            shared.settling.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
        self.requests.is_extended_connect_protocol_enabled()
    }
}

/// A connection that says nothing for so long while a request waits may be dead.
const SUSPICIOUS_NS: u64 = 1_000_000_000;

/// What was received of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// Another head follows.
    Interim,
    Final(BodyFraming),
}

/// The response to a request, which is still to come.
pub struct Response {
    response: h2::client::ResponseFuture,
    method: Method,
    /// It answers a gRPC call.
    call: bool,
    trailers: TrailerLimits,
    body: Option<h2::RecvStream>,
    place: Place,
    sent_ns: u64,
}

impl Response {
    /// Waits for the next head. The time limit is the caller's: the future may be dropped at any point.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn head(
        &mut self,
        limits: &HeadLimits,
        out: &mut ResponseHead,
    ) -> Result<Received, ClientError> {
        let interim = poll_fn(|cx| match self.response.poll_informational(cx) {
            Poll::Ready(Some(interim)) => Poll::Ready(interim.map(Some)),
            Poll::Ready(None) => Poll::Ready(Ok(None)),
            Poll::Pending => Poll::Pending,
        })
        .await?;
        if let Some(interim) = interim {
            let (parts, ()) = interim.into_parts();
            response::read(&parts, limits, out).ok_or(ClientError::Malformed)?;
            return Ok(Received::Interim);
        }
        let response = poll_fn(|cx| {
            let response = ready!(Pin::new(&mut self.response).poll(cx));
            Poll::Ready(response)
        })
        .await?;
        let (parts, body) = response.into_parts();
        response::read(&parts, limits, out).ok_or(ClientError::Malformed)?;
        let framing =
            response::framing(out, self.method, body.is_end_stream()).ok_or(ClientError::Malformed)?;
        self.body = Some(body);
        self.trailers = TrailerLimits::of(limits, self.call);
        Ok(Received::Final(framing))
    }

    /// Nobody waits for it any longer. Where the connection has been silent for long since the request was sent, it may be
    /// dead, and gets no further ones.
    pub fn give_up(&self) {
        let shared = &self.place.0;
        let waited = clock::now_ns().saturating_sub(self.sent_ns);
        if shared.heard_ns.get() <= self.sent_ns && waited >= SUSPICIOUS_NS {
            shared.leave();
        }
    }

    /// The body, after the final head. The place on the connection is kept for as long as it is received.
    pub fn into_body(self) -> Option<(RecvBody, Place)> {
        let Response { body, trailers, place, .. } = self;
        let growth = place.0.growth.clone();
        body.map(|body| (RecvBody::new(body, growth).with_trailers(trailers), place))
    }
}
