//! A connection from a client.
//!
//! Owns the connection from its preface to its last byte: requests are handed to an [`Application`], which serves each in
//! a task of its own. Decides when the connection ends: the client's word, a flood, silence, a drain.
//!
//! ```text
//! preface ──► open ──► draining (GOAWAY, streams finish) ──► over
//!     │         └──────► closing (GOAWAY, streams die) ─────► over
//!     └────────────────────────────────────────────────────► over
//! ```

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use portcullis_abi::Reason;

use super::body::{BodyError, Code, Growth, RecvBody, SendBody};
use super::guard::{COMPRESSION_ERROR, Fault, Guard, Violation};
use super::request::{self, Protocol};
use super::transport::{Codec, Keep, Transport, drive};
use super::{Settings, Times, fields, response};
use crate::http::h1::{BodyFraming, HeadLimits};
use crate::http::{Head, KnownSet, Refusal, RequestHead, ResponseHead, TrailerLimits};
use crate::net::clock;
use crate::net::deadline::{Cutter, SendLimit};
use crate::tls;

/// What serves the requests of a connection.
pub trait Application {
    /// Limits of the generation of now.
    fn head_limits(&self) -> HeadLimits;

    /// A head to be filled.
    fn take_head(&mut self) -> RequestHead;

    /// Serves a request, in a task of its own.
    fn request(&mut self, request: Incoming);

    /// A request came with the reset of its stream: there is nobody to serve.
    fn taken_back(&mut self);

    /// A stream was reset, or answered by the codec, for a fault of the client.
    fn malformed(&mut self, reason: Reason);
}

/// A request, and the two directions of its stream.
pub struct Incoming {
    pub head: RequestHead,
    /// It is to be answered with this, not served; what could be read of it is in the head.
    pub refusal: Option<Refusal>,
    /// How long the body is; `Chunked` where that is not known.
    pub framing: BodyFraming,
    /// The stream is to become a tunnel.
    pub protocol: Option<Protocol>,
    pub body: RecvBody,
    pub responder: Responder,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ending {
    /// What the client is to blame for.
    pub reason: Option<Reason>,
    /// The source is to be charged for it.
    pub abuse: bool,
}

/// Ends a connection from elsewhere on its shard.
#[derive(Clone, Default)]
pub struct Control(Rc<Orders>);

#[derive(Default)]
struct Orders {
    drain: Cell<bool>,
    close: Cell<bool>,
    idle: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Control {
    /// Lets the streams that are open be the last.
    pub fn drain(&self) {
        self.0.drain.set(true);
        self.wake();
    }

    /// Ends the connection, streams and all.
    pub fn close(&self) {
        self.0.close.set(true);
        self.wake();
    }

    /// Whether no stream is open.
    pub fn is_idle(&self) -> bool {
        self.0.idle.get()
    }

    fn wake(&self) {
        let waker = self.0.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn listen(&self, cx: &Context<'_>) {
        let mut waker = self.0.waker.borrow_mut();
        match &*waker {
            Some(known) if known.will_wake(cx.waker()) => {}
            _ => *waker = Some(cx.waker().clone()),
        }
    }
}

/// A connection that was accepted and speaks HTTP/2.
pub struct Server {
    stream: tls::Stream,
    received: Vec<u8>,
    settings: Settings,
    times: Times,
    control: Control,
}

impl Server {
    /// `received`: what was read of the connection already.
    pub fn new(
        stream: tls::Stream,
        received: Vec<u8>,
        settings: Settings,
        times: Times,
    ) -> (Server, Control) {
        let control = Control::default();
        (Server { stream, received, settings, times, control: control.clone() }, control)
    }

    /// Serves the connection until it is over. The future is to be awaited to its end.
    pub async fn run<A: Application>(self, application: &mut A) -> Ending {
        let Server { stream, received, settings, times, control } = self;
        let mut connection = Connection {
            application,
            guard: Guard::new(settings.thresholds),
            streams_left: settings.streams_max,
            growth: Rc::new(Growth::new(settings.stream_window, settings.connection_window / 2)),
            socket_full: Rc::default(),
            times,
            control,
            cutter: stream.rx.deadline().cutter(),
            watch: Watch::Nothing,
            begun: false,
            draining: false,
            violation: None,
            said: None,
            cut: false,
            ending: Ending::default(),
            state: State::Over,
        };
        let kept = received.is_empty() || connection.received(&received) == Keep::Yes;
        let transport = Transport::with_received(if kept { received } else { Vec::new() });
        connection.socket_full = transport.socket_full();
        connection.state = State::Preface(Box::new(builder(&settings).handshake(transport.clone())));
        let connection = RefCell::new(connection);
        drive(stream, transport, &connection).await;
        let Connection { mut ending, said, .. } = connection.into_inner();
        if ending.reason == Some(Reason::H2ProtocolError) {
            ending.reason = said.or(ending.reason);
        }
        ending
    }
}

fn builder(settings: &Settings) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .data_frame_budget(settings.frames_room)
        .max_concurrent_streams(settings.concurrent_streams)
        .max_header_list_size(settings.header_list)
        .max_send_buffer_size(settings.send_buffer)
        .enable_connect_protocol()
        // The guard sees every frame before the codec and counts by the second; limits of the codec over the life of a
        // connection, or below the guard's, would end honest ones.
        .max_local_error_reset_streams(None)
        .max_pending_accept_reset_streams(settings.thresholds.resets as usize + 1)
        .max_concurrent_reset_streams(settings.concurrent_streams as usize);
    builder
}

type H2Handshake = h2::server::Handshake<Transport, Bytes>;
type H2Connection = h2::server::Connection<Transport, Bytes>;

enum State {
    /// The client's preface is not there yet.
    Preface(Box<H2Handshake>),
    /// Taken out while it is polled.
    Open(Option<Box<H2Connection>>),
    Over,
}

/// What the time limit of receiving is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watch {
    Nothing,
    /// The connection's first request, or the rest of a header block.
    Head,
    /// The next request.
    Idle,
}

struct Connection<'a, A> {
    application: &'a mut A,
    guard: Guard,
    streams_left: u32,
    /// Of the windows of its streams.
    growth: Rc<Growth>,
    /// See [`Transport::socket_full`].
    socket_full: Rc<Cell<bool>>,
    times: Times,
    control: Control,
    cutter: Cutter,
    watch: Watch,
    /// A request was received.
    begun: bool,
    draining: bool,
    /// What the guard found.
    violation: Option<Violation>,
    /// What the codec said in its GOAWAY.
    said: Option<Reason>,
    /// A time limit has passed.
    cut: bool,
    ending: Ending,
    state: State,
}

impl<A: Application> Codec for Connection<'_, A> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.control.listen(cx);
        if let State::Preface(handshake) = &mut self.state {
            match Pin::new(handshake).poll(cx) {
                Poll::Ready(Ok(connection)) => self.state = State::Open(Some(Box::new(connection))),
                Poll::Ready(Err(error)) => {
                    self.over(Some(&error));
                    return Poll::Ready(());
                }
                Poll::Pending if self.is_to_end() => {
                    self.over(None);
                    return Poll::Ready(());
                }
                Poll::Pending => {}
            }
        }
        if let State::Open(connection) = &mut self.state
            && let Some(mut connection) = connection.take()
        {
            if self.poll_open(&mut connection, cx).is_ready() {
                return Poll::Ready(());
            }
            self.control.0.idle.set(!connection.has_streams());
            self.state = State::Open(Some(connection));
        }
        self.watch();
        Poll::Pending
    }

    fn received(&mut self, bytes: &[u8]) -> Keep {
        if self.violation.is_some() {
            return Keep::No;
        }
        match self.guard.received(bytes, clock::coarse_ns()) {
            Ok(()) => Keep::Yes,
            Err(violation) => {
                self.violation = Some(violation);
                // The end of the preface may be among them. Of frames the codec sees no more: see `poll_open`.
                Keep::Yes
            }
        }
    }

    fn sending(&mut self, bytes: &mut [u8]) -> Keep {
        let (application, said) = (&mut *self.application, &mut self.said);
        let seen = self.guard.sending(bytes, clock::coarse_ns(), |fault| match fault {
            Fault::Stream(reason) => application.malformed(reason),
            Fault::Connection(reason) => *said = Some(reason),
        });
        if let Some(code) = self.guard.take_miscoded().and_then(|at| bytes.get_mut(at..at + 4))
            && self.violation.is_none()
        {
            code.copy_from_slice(&COMPRESSION_ERROR.to_be_bytes());
        }
        match seen {
            Err(violation) if self.violation.is_none() => {
                self.violation = Some(violation);
                Keep::No
            }
            _ => Keep::Yes,
        }
    }

    fn send_limit(&self) -> SendLimit {
        self.times.send
    }

    fn stalled(&mut self) {
        if self.ending.reason.is_none() {
            self.ending = Ending { reason: Some(Reason::SlowReader), abuse: true };
        }
    }

    fn ended(&mut self, cut: bool) -> Keep {
        self.cut = cut;
        if cut { Keep::No } else { Keep::Yes }
    }
}

impl<A: Application> Connection<'_, A> {
    fn poll_open(&mut self, connection: &mut H2Connection, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(code) = self.verdict() {
            connection.abrupt_shutdown(code);
        } else if (self.control.0.drain.get() || self.streams_left == 0)
            && !std::mem::replace(&mut self.draining, true)
        {
            connection.graceful_shutdown();
        }
        self.growth.apply(|size| connection.set_initial_window_size(size));
        loop {
            match connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, mut respond)))) => {
                    self.begun = true;
                    self.streams_left = self.streams_left.saturating_sub(1);
                    if self.guard.has_seen_resets() && respond.poll_reset(cx).is_ready() {
                        self.application.taken_back();
                    } else {
                        self.accept(request, respond);
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    self.over(Some(&error));
                    return Poll::Ready(());
                }
                Poll::Ready(None) => {
                    self.over(None);
                    return Poll::Ready(());
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// The error code to end the connection with, if it is to end; notes why.
    fn verdict(&mut self) -> Option<h2::Reason> {
        if self.ending.reason.is_some() {
            return None; // said already
        }
        if let Some(violation) = self.violation {
            let (reason, code) = match violation {
                Violation::TooMuch(reason) => (reason, h2::Reason::ENHANCE_YOUR_CALM),
                Violation::Forbidden(code) => (Reason::H2ProtocolError, code.into()),
            };
            self.ending = Ending { reason: Some(reason), abuse: true };
            return Some(code);
        }
        if std::mem::take(&mut self.cut) {
            if self.watch == Watch::Head && self.guard.in_header_block() {
                self.ending = Ending { reason: Some(Reason::RequestTimeout), abuse: true };
                return Some(h2::Reason::ENHANCE_YOUR_CALM);
            }
            return Some(h2::Reason::NO_ERROR);
        }
        self.control.0.close.take().then_some(h2::Reason::NO_ERROR)
    }

    fn is_to_end(&self) -> bool {
        self.violation.is_some() || self.cut || self.control.0.close.get() || self.control.0.drain.get()
    }

    /// Notes why the connection is over, where it was not us who ended it.
    fn over(&mut self, error: Option<&h2::Error>) {
        self.state = State::Over;
        if self.ending.reason.is_some() {
            return;
        }
        if let Some(violation) = self.violation {
            let reason = match violation {
                Violation::TooMuch(reason) => reason,
                Violation::Forbidden(_) => Reason::H2ProtocolError,
            };
            self.ending = Ending { reason: Some(reason), abuse: true };
        } else if error.is_some_and(|error| error.is_library() && error.is_go_away()) {
            // The frame that may say more is not sent yet: see `Server::run`.
            self.ending = Ending { reason: Some(Reason::H2ProtocolError), abuse: true };
        }
    }

    fn accept(&mut self, request: http::Request<h2::RecvStream>, respond: h2::server::SendResponse<Bytes>) {
        let (parts, body) = request.into_parts();
        let mut head = self.application.take_head();
        let limits = self.application.head_limits();
        let read = request::read(&parts, body.is_end_stream(), &limits, &mut head);
        let responder = Responder { respond: Some(respond), socket_full: self.socket_full.clone() };
        let trailers = TrailerLimits::of(&limits, fields::is_call(head.method(), &parts.headers));
        let (facts, refusal) = match read {
            Ok(facts) => (facts, None),
            Err(request::Fault::Refused(refusal)) => {
                (request::Facts { framing: BodyFraming::None, protocol: None }, Some(refusal))
            }
            // Counted when the frame goes out.
            Err(request::Fault::Malformed) => return responder.reset(Code::ProtocolError),
        };
        self.application.request(Incoming {
            head,
            refusal,
            framing: facts.framing,
            protocol: facts.protocol,
            body: RecvBody::new(body, self.growth.clone()).with_trailers(trailers),
            responder,
        });
    }

    /// Sets the time limit of receiving by what the connection waits for.
    fn watch(&mut self) {
        let idle = match &self.state {
            State::Open(Some(connection)) => !connection.has_streams(),
            _ => true,
        };
        let watch = match (self.guard.in_header_block(), idle) {
            (true, _) => Watch::Head,
            (false, false) => Watch::Nothing,
            (false, true) if self.begun => Watch::Idle,
            (false, true) => Watch::Head,
        };
        if watch == self.watch {
            return;
        }
        self.watch = watch;
        match watch {
            Watch::Nothing => self.cutter.disarm(),
            Watch::Head => self.cutter.cut_after(self.times.head),
            Watch::Idle => self.cutter.cut_after(self.times.idle),
        }
    }
}

/// The answer to a request, which is still to be given. Dropped without one, it resets the stream.
pub struct Responder {
    respond: Option<h2::server::SendResponse<Bytes>>,
    socket_full: Rc<Cell<bool>>,
}

impl Responder {
    /// Sends an interim response (1xx but 101).
    ///
    /// # Errors
    /// The stream is over.
    pub fn interim(&mut self, status: u16, head: &Head) -> Result<(), BodyError> {
        let Some(respond) = &mut self.respond else { return Err(BodyError::Closed) };
        let mut message = http::Response::new(());
        *message.status_mut() = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::CONTINUE);
        *message.headers_mut() = fields::write(head, KnownSet::default());
        Ok(respond.send_informational(message)?)
    }

    /// Sends the response, and with it the end of the stream if `end`.
    ///
    /// # Errors
    /// The stream is over.
    pub fn respond(mut self, head: &ResponseHead, end: bool) -> Result<SendBody, BodyError> {
        let Some(mut respond) = self.respond.take() else { return Err(BodyError::Closed) };
        let stream = respond.send_response(response::write(head), end)?;
        Ok(SendBody::new(stream, end, Some(self.socket_full.clone())))
    }

    /// Gives no answer.
    pub fn reset(mut self, code: Code) {
        if let Some(mut respond) = self.respond.take() {
            respond.send_reset(code.reason());
        }
    }

    /// Waits for the client to give up, or for the connection to end.
    pub async fn closed(&mut self) -> BodyError {
        std::future::poll_fn(|cx| self.poll_closed(cx)).await
    }

    /// [`Responder::closed`], once.
    pub fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        match &mut self.respond {
            None => Poll::Ready(BodyError::Closed),
            Some(respond) => respond.poll_reset(cx).map(|reset| match reset {
                Ok(code) => BodyError::Reset(code.into()),
                Err(error) => error.into(),
            }),
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if let Some(respond) = &mut self.respond {
            respond.send_reset(h2::Reason::CANCEL);
        }
    }
}
