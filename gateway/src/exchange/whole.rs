//! Bodies that plugins see whole.
//!
//! Owns the taking of a body into memory, up to the `buffered_body` of the route, and its way back: afterwards the exchange goes on
//! as if the changed body had come with its head. Never decides what a plugin makes of it. Bodies that no plugin wants
//! pass by untouched.

use std::cell::Cell;
use std::future::{Future as _, poll_fn};
use std::pin::pin;

use portcullis_abi::Reason;

use super::admit::Admitted;
use super::answer::Answer;
use super::carry::Stage;
use super::channel::Inlet;
use super::client::Client;
use super::downstream::Downstream;
use super::expiry::Expiry;
use super::failure::Failure;
use super::finish::Record;
use super::receive::Halts;
use super::relay::{Coding, Leg, RelayError};
use super::transfer::{Recode, Sink, Source, Stream, transfer};
use super::{plugins, refuse};
use crate::http::h1::{self, BodyDecoder, BodyFraming, BodyLimits};
use crate::http::{RequestHead, ResponseHead};
use crate::limit::LeastRate;
use crate::net::clock;
use crate::net::deadline::SendLimit;
use crate::plugin::{Cx, Response};
use crate::snapshot::Route;

/// The request body of an exchange while plugins see the request.
pub struct Taking<'t, 'c> {
    pub client: &'t mut Client<'c>,
    pub admitted: &'t mut Admitted,
    pub record: &'t mut Record,
    pub route: &'t Route,
    /// Bytes that are held at most.
    pub room: u64,
    /// The least rate that is asked of the client.
    pub least: LeastRate,
    /// The body, once a plugin wanted it.
    pub body: Option<Vec<u8>>,
}

/// Octets of a request body that are held for another attempt.
const KEPT: u64 = 64 * 1024;

impl Taking<'_, '_> {
    /// Receives the body, unless it was before.
    ///
    /// # Errors
    /// The answer to a body that is too large, or does not come.
    pub async fn take(&mut self, cx: &Cx<'_>, down: &mut Downstream) -> Result<(), Box<Response>> {
        if self.body.is_some() {
            return Ok(());
        }
        // What was in hand is taken from there now.
        self.record.in_hand = None;
        let mut body = Vec::new();
        match self.receive(cx, down, &mut body).await {
            Ok(()) => {
                self.record.in_hand = Some(0);
                self.admitted.expects_continue = false;
                self.body = Some(body);
                Ok(())
            }
            Err(failure) => {
                self.record.body_touched = true;
                Err(refuse::response(failure.status, failure.reason))
            }
        }
    }

    /// Whether the body is held so that the request can be sent again: where its method allows that at all, and it is small.
    pub fn is_worth_keeping(&self, request: &RequestHead) -> bool {
        matches!(self.admitted.framing, BodyFraming::Length(1..=KEPT))
            && self.body.is_none()
            && self.record.in_hand.is_none()
            && self.record.call.is_none()
            && request.upstream_method().is_idempotent()
    }

    async fn receive(
        &mut self,
        cx: &Cx<'_>,
        down: &mut Downstream,
        body: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let framing = self.admitted.framing;
        let limit = cx.body_limit.unwrap_or(u64::MAX).min(self.route.body_limit).min(self.room);
        let limits = BodyLimits { payload: limit };
        let mut decoder = BodyDecoder::request(framing, limits).map_err(Failure::client)?;
        if self.admitted.expects_continue && !self.client.send_continue(&mut down.out).await {
            return Err(Failure::client_gone());
        }
        let (halt, payload) = (Cell::new(false), Cell::new(0));
        let expiry = Expiry::new(self.record.limit, None, clock::now_ns());
        let cut = self.client.cut(&halt);
        let source = match self.client {
            Client::Http1(client) => Source::Http1 { intake: &mut client.intake, decoder: &mut decoder },
            Client::Http2(client) => Source::Http2(Stream::new(&mut client.body, limit, &halt)),
        };
        let sink = Sink::Memory { out: body, room: limit, over: Reason::BodyTooLarge };
        let idle = self.route.times.request_body_idle;
        let leg = Leg {
            coding: Coding::Identity,
            trailers: false,
            receive_idle: idle,
            least: self.least,
            send: SendLimit::whole(idle),
            watch: false,
        };
        let received = {
            let mut moving = pin!(transfer(source, sink, leg, Recode::None, &payload));
            poll_fn(|cx| {
                if expiry.poll(cx).is_ready() {
                    cut.cut();
                }
                moving.as_mut().poll(cx)
            })
            .await
        };
        self.record.request_bytes = payload.get();
        received.map_err(|error| {
            let failure = Failure::client_gone().with_body(Some(&Err(error)));
            expiry.passed().map_or(failure, Failure::expired)
        })
    }

    /// Gives back what plugins made of the body: it is in hand now, whatever it was.
    pub fn finish(self, cx: &mut Cx<'_>, down: &mut Downstream) {
        let Some(body) = self.body else { return };
        let length = body.len();
        let framing = match self.admitted.framing {
            BodyFraming::None if length == 0 => BodyFraming::None,
            _ => BodyFraming::Length(length as u64),
        };
        self.client.put_back(body);
        h1::set_framing(&mut down.request.head, framing);
        self.admitted.framing = framing;
        self.record.in_hand = Some(length);
        cx.body = framing;
    }
}

/// Receives the body of a response and lets the plugins of the route see it.
///
/// # Errors
/// It is too large, breaks off, or is one that a plugin does not let out.
pub async fn hold(
    stage: Stage<'_>,
    cx: &mut Cx<'_>,
    response: &mut ResponseHead,
    inlet: Inlet<'_>,
    answer: &Answer,
    halts: &Halts,
) -> Result<Vec<u8>, Failure> {
    let plan = stage.plan;
    let mut body = Vec::new();
    let mut decoder = BodyDecoder::response(answer.framings.read);
    let source = inlet.body(&mut decoder, &halts.upstream);
    let room = plan.held;
    let sink = Sink::Memory { out: &mut body, room, over: Reason::ResponseTooLarge };
    let payload = Cell::new(0);
    match transfer(source, sink, answer.leg(plan), Recode::None, &payload).await {
        Ok(()) => {}
        Err(RelayError::Refused(refusal)) => return Err(Failure::bad_response(refusal.reason)),
        Err(error) => return Err(Failure::bad_response(error.of_response())),
    }
    let seen = plugins::on_response_body(stage.local, plan.chain, cx, response, &mut body);
    seen.map_err(Failure::bad_response)?;
    Ok(body)
}
