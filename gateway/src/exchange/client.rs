//! The client's side of an exchange, whichever HTTP it speaks.
//!
//! Owns where a request body comes from and where the answer goes to: a connection of HTTP/1, or a stream of HTTP/2. Never
//! decides what is answered.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;

use super::cut::{Cut, watched};
use super::lookout::Lookout;
use super::refuse;
use crate::http::h1::{BodyFraming, Persistence, write_continue, write_response};
use crate::http::h2::{BodyError, Code, Protocol, RecvBody, Responder, SendBody};
use crate::http::{Head, Reason, ResponseHead, grpc};
use crate::net::deadline::SendLimit;
use crate::tls::{self, Intake};

/// Time limit of a `100 Continue`.
const CONTINUE: Duration = Duration::from_secs(10);

/// A connection of HTTP/1.
pub struct Http1 {
    pub intake: Intake,
    pub tx: tls::Tx,
    /// How the connection is seen from outside.
    pub lookout: Rc<Lookout>,
}

/// A stream of HTTP/2.
pub struct Http2 {
    pub body: StreamBody,
    pub reply: StreamReply,
    /// How long the request body is, as the head has it.
    pub framing: BodyFraming,
    /// The stream is to become a tunnel.
    pub protocol: Option<Protocol>,
}

impl Http2 {
    /// How long the request body is: as the head has it, or as it came.
    pub fn known_framing(&self) -> BodyFraming {
        match (self.framing, self.body.whole()) {
            (BodyFraming::Chunked, Some(len)) => BodyFraming::Length(len as u64),
            (framing, _) => framing,
        }
    }
}

/// Whom an exchange answers.
pub enum Client<'a> {
    Http1(&'a mut Http1),
    Http2(&'a mut Http2),
}

/// Where the answer goes to.
pub enum Reply<'a> {
    Http1(&'a mut tls::Tx),
    Http2(&'a mut StreamReply),
}

impl Client<'_> {
    /// Bytes of the request body that need not be waited for, if they are all of it.
    pub fn in_hand(&self, framing: BodyFraming) -> Option<usize> {
        match (self, framing) {
            (_, BodyFraming::None) => Some(0),
            (Client::Http1(client), BodyFraming::Length(n)) if n <= client.intake.unread().len() as u64 => {
                Some(n as usize)
            }
            (Client::Http1(_), _) => None,
            (Client::Http2(client), _) => client.body.whole(),
        }
    }

    /// Appends those bytes to `out`.
    pub fn copy_in_hand(&self, len: usize, out: &mut Vec<u8>) {
        match self {
            Client::Http1(client) => out.extend_from_slice(&client.intake.unread()[..len]),
            Client::Http2(client) => client.body.kept.iter().for_each(|piece| out.extend_from_slice(piece)),
        }
    }

    /// Marks them as used.
    pub fn consume(&mut self, len: usize) {
        if let Client::Http1(client) = self {
            client.intake.consume(len);
        }
    }

    /// What the stream is to become.
    pub fn protocol(&self) -> Option<Protocol> {
        match self {
            Client::Http1(_) => None,
            Client::Http2(client) => client.protocol,
        }
    }

    /// How its connection is seen from outside, if that says something about it.
    pub fn lookout(&self) -> Option<Rc<Lookout>> {
        match self {
            Client::Http1(client) => Some(client.lookout.clone()),
            Client::Http2(_) => None,
        }
    }

    /// Puts a body in hand that takes the place of the one received.
    pub fn put_back(&mut self, body: Vec<u8>) {
        match self {
            Client::Http1(client) => client.intake.put_back(&body),
            Client::Http2(client) => client.body.replace(body.into()),
        }
    }

    /// Gives a client that waits for it leave to send its body. False: it is gone.
    pub async fn send_continue(&mut self, out: &mut Vec<u8>) -> bool {
        match self {
            Client::Http1(client) => {
                write_continue(out);
                client.tx.deadline().arm(CONTINUE);
                client.tx.send(out).await.is_ok()
            }
            Client::Http2(client) => client.reply.interim(100, &Head::new()).is_ok(),
        }
    }

    /// Ends sending to the client. `halt` does so on a stream.
    pub fn cut_reply<'h>(&self, halt: &'h Cell<bool>) -> Cut<'h> {
        match self {
            Client::Http1(client) => Cut::Socket(client.tx.deadline().cutter()),
            Client::Http2(_) => Cut::Stream(halt),
        }
    }

    /// Ends receiving from the client. `halt` does so on a stream.
    pub fn cut<'h>(&self, halt: &'h Cell<bool>) -> Cut<'h> {
        match self {
            Client::Http1(client) => Cut::Socket(client.intake.rx.deadline().cutter()),
            Client::Http2(_) => Cut::Stream(halt),
        }
    }
}

impl Reply<'_> {
    /// Awaits `other`, which `cut` ends if the client gives up on the answer meanwhile.
    pub async fn unless_gone<T>(&mut self, cut: &Cut<'_>, other: impl Future<Output = T>) -> T {
        match self {
            Self::Http1(_) => other.await,
            Self::Http2(reply) => watched(|cx| reply.poll_gone(cx), cut, other).await.0,
        }
    }

    /// Whether the client has given up.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Http2(reply) if reply.gone)
    }

    /// Sends an interim response, already without its hop-by-hop fields. False: the client is gone.
    pub async fn interim(&mut self, response: &ResponseHead, out: &mut Vec<u8>, limit: SendLimit) -> bool {
        match self {
            Self::Http1(tx) => {
                write_response(response, Persistence::Implied, out);
                tx.deadline().arm_send(limit);
                tx.send(out).await.is_ok()
            }
            Self::Http2(reply) => reply.interim(response.status(), &response.head).is_ok(),
        }
    }
}

/// The answer on a stream: an interim one or none so far, or its body.
pub struct StreamReply {
    responder: Option<Responder>,
    /// Once the head is sent.
    pub body: Option<SendBody>,
    /// The client wants no answer any more.
    pub gone: bool,
}

impl StreamReply {
    /// No answer yet.
    pub fn new(responder: Responder) -> Self {
        Self { responder: Some(responder), body: None, gone: false }
    }

    /// Sends an interim response.
    ///
    /// # Errors
    /// The stream is over.
    pub fn interim(&mut self, status: u16, head: &Head) -> Result<(), BodyError> {
        let sent = self.responder.as_mut().ok_or(BodyError::Closed).and_then(|to| to.interim(status, head));
        self.gone |= sent.is_err();
        sent
    }

    /// Sends the head, and the end of the stream if `end`.
    ///
    /// # Errors
    /// The stream is over.
    pub fn respond(&mut self, head: &ResponseHead, end: bool) -> Result<&mut SendBody, BodyError> {
        let sent = self.responder.take().ok_or(BodyError::Closed).and_then(|to| to.respond(head, end));
        match sent {
            Ok(body) => Ok(self.body.insert(body)),
            Err(error) => {
                self.gone = true;
                Err(error)
            }
        }
    }

    /// Breaks the stream off.
    pub fn reset(&mut self, code: Code) {
        if let Some(responder) = self.responder.take() {
            responder.reset(code);
        }
        if let Some(body) = &mut self.body {
            body.reset(code);
        }
    }

    /// Ends a call whose response has begun, and says why. False: it cannot be said any more.
    pub fn end_call(&mut self, reason: Reason) -> bool {
        let Some(body) = &mut self.body else { return false };
        body.trailers(&grpc::trailers(reason, refuse::message(reason))).is_ok()
    }

    /// Ready when the client has given up.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let over = match (&mut self.responder, &mut self.body) {
            (Some(responder), _) => responder.poll_closed(cx),
            (None, Some(body)) => body.poll_closed(cx),
            (None, None) => return Poll::Ready(()),
        };
        over.map(|_| self.gone = true)
    }
}

/// The body of a message on a stream.
pub struct StreamBody {
    pub body: RecvBody,
    /// Its first octets, for as long as they may be wanted again.
    kept: Vec<Bytes>,
    kept_len: usize,
    /// How many octets are kept at most, and as many beside them for pieces.
    keep: usize,
    /// What is kept is the whole of it.
    whole: bool,
    /// Something was received that is not kept.
    lost: bool,
}

/// What is kept of a request body until it has an answer. The client's window was given back for it, so that this much is
/// held beside the window.
pub const KEEP: usize = 64 * 1024;
/// What a piece that is kept costs beside its octets.
const PIECE: usize = 64;
/// Pieces of fewer octets are copied: one that is not holds all that was received with it.
const LEAST_PIECE: usize = 1024;

impl StreamBody {
    /// A body of which up to `keep` octets are kept.
    pub fn new(body: RecvBody, keep: usize) -> Self {
        Self { body, kept: Vec::new(), kept_len: 0, keep, whole: false, lost: false }
    }

    /// Receives what is there already, without waiting.
    pub async fn gather(&mut self) {
        while !self.body.is_end() && self.kept_len < self.keep && !self.lost {
            let Some(Ok(Some(piece))) = self.body.data_now().await else { return };
            self.body.release(piece.len());
            self.take(&piece);
        }
        // Trailers, if there are any, are still to come; then this is not the end.
        self.whole = self.body.is_end() && !self.lost;
    }

    /// Takes these octets for the whole body: it was received to its end.
    pub fn replace(&mut self, body: Bytes) {
        self.kept_len = body.len();
        self.kept = if body.is_empty() { Vec::new() } else { vec![body] };
        (self.whole, self.lost) = (true, false);
    }

    /// Its length, if all of it is kept.
    pub fn whole(&self) -> Option<usize> {
        self.whole.then_some(self.kept_len)
    }

    /// Whether it can no longer be sent from its beginning.
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    /// The kept piece of that number.
    pub fn kept(&self, number: usize) -> Option<&Bytes> {
        self.kept.get(number)
    }

    /// Notes a piece that was received.
    pub fn take(&mut self, piece: &Bytes) {
        self.kept_len += piece.len();
        if self.lost || self.kept_len > self.keep || self.kept.len() >= self.keep / PIECE {
            self.lost = true;
            self.kept = Vec::new();
        } else if piece.len() < LEAST_PIECE {
            self.kept.push(Bytes::copy_from_slice(piece));
        } else {
            self.kept.push(piece.clone());
        }
    }
}
