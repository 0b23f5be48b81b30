//! Phase 7: the response on its way to the client.
//!
//! Owns how its body is framed and coded there, and the sending of its head. Never looks at the request.

use std::cell::Cell;
use std::pin::pin;

use bytes::Bytes;
use portcullis_abi::Reason;

use super::attempt::SETTLE;
use super::carry::Cuts;
use super::channel::Inlet;
use super::client::Reply;
use super::finish::Record;
use super::plan::Plan;
use super::pump::Pump;
use super::receive::{Framings, Halts, response_framings};
use super::refuse::{LINGER, message, octets};
use super::relay::{Coding, Leg, RelayError, frame};
use super::throttle::throttled;
use super::transfer::{Recode, Sink, Source, transfer, web_trailers};
use crate::http::coding::Encoder;
use crate::http::grpc::{self, Messages, Wire};
use crate::http::h1::{self, BodyDecoder, BodyFraming, Persistence, write_response};
use crate::http::{Known, ResponseHead, TrailerLimits, Version};
use crate::limit::LeastRate;
use crate::net::deadline::SendLimit;

/// How a response is passed on.
pub struct Answer {
    pub framings: Framings,
    /// The wire that its body is put on for a client of gRPC-Web.
    web: Option<Wire>,
    /// The messages of its body that were passed on.
    messages: Cell<Messages>,
    /// The body, where plugins have seen it whole.
    whole: Option<Bytes>,
    /// What puts the body into a content coding.
    encoder: Option<Box<Encoder>>,
}

/// What takes part in passing a response on.
pub struct Answering<'a, 'p> {
    pub reply: &'a mut Reply<'p>,
    pub response: &'a mut ResponseHead,
    pub out: &'a mut Vec<u8>,
    pub pump: &'a mut Pump<'p>,
    pub cuts: &'a Cuts<'a>,
    pub halts: &'a Halts,
}

impl Answer {
    /// Decides how the response is passed on that came with `received`; its head is made to say so.
    pub fn new(plan: &Plan<'_>, response: &mut ResponseHead, received: BodyFraming) -> Self {
        let web = plan.web.and_then(|wire| put_on(response, wire));
        let mut framings = response_framings(plan, response.status(), received, plan.version);
        if web.is_some() && !matches!(framings.relayed, BodyFraming::None | BodyFraming::Length(0)) {
            // Trailers come behind whatever length was announced.
            framings.relayed = h1::relay_framing(BodyFraming::Chunked, plan.version);
        }
        Self { framings, web, messages: Cell::default(), whole: None, encoder: None }
    }

    /// Whether there is a body that plugins may see.
    pub fn has_body(&self) -> bool {
        !matches!(self.framings.read, BodyFraming::None) && self.web.is_none()
    }

    /// Passes these bytes on as the body; what was received is read already.
    pub fn replace_body(&mut self, body: Vec<u8>) {
        self.framings.relayed = BodyFraming::Length(body.len() as u64);
        self.whole = Some(body.into());
    }

    /// Puts the body into a content coding on its way; its length is not known any more. Of no body there is nothing to code.
    pub fn code(&mut self, plan: &Plan<'_>, encoder: Box<Encoder>) {
        if !matches!(self.framings.relayed, BodyFraming::None | BodyFraming::Length(0)) {
            self.framings.relayed = h1::relay_framing(BodyFraming::Chunked, plan.version);
            self.encoder = Some(encoder);
        }
    }

    /// Sends the head and relays the body.
    pub async fn relay(
        &mut self,
        plan: &Plan<'_>,
        by: &mut Answering<'_, '_>,
        inlet: Inlet<'_>,
        keep: bool,
        record: &mut Record,
    ) -> Result<(), RelayError> {
        let Answering { reply, response, out, pump, cuts, halts } = by;
        let cuts = *cuts;
        let payload = Cell::new(0);
        let (sink, head_bytes) = self.begin(plan, reply, response, out, keep, halts)?;
        record.head_bytes = head_bytes;
        let trailers = TrailerLimits::of(&plan.snapshot.response_head_limits, plan.wire.is_some());
        let mut decoder = BodyDecoder::response(self.framings.read).with_trailers(trailers);
        let source = match inlet {
            _ if self.whole.is_some() => Source::Whole(self.whole.take().unwrap_or_default()),
            Inlet::Http2 { .. } if self.framings.read == BodyFraming::None => Source::Whole(Bytes::new()),
            inlet => inlet.body(&mut decoder, &halts.upstream),
        };
        let encoder = self.encoder.take();
        let (leg, recode) = (self.leg(plan), self.recode(encoder));
        // Pinned here: a future that is handed over by value has its place in each that it goes through.
        let relaying = pin!(transfer(source, sink, leg, recode, &payload));
        let relaying = pin!(throttled(plan.throttle.as_deref(), &payload, relaying));
        let expired = pump.expiry();
        let told_at_the_end = self.web.is_some();
        let give_up = || {
            cuts.upstream.cut();
            // Who breaks off his request may still want the answer; who has no time left does not, but for a last word.
            match expired.passed() {
                Some(_) if told_at_the_end => cuts.reply.cut_after(SETTLE),
                Some(_) => cuts.reply.cut(),
                None => {}
            }
        };
        let sent = pump.beside(relaying, give_up, || {}).await;
        record.response_bytes = payload.get();
        sent
    }

    /// Begins the answer to the client. Gives where its body goes and the length of its head.
    fn begin<'a>(
        &self,
        plan: &Plan<'_>,
        reply: &'a mut Reply<'_>,
        response: &mut ResponseHead,
        out: &'a mut Vec<u8>,
        keep: bool,
        halts: &'a Halts,
    ) -> Result<(Sink<'a>, u64), RelayError> {
        let relayed = self.framings.relayed;
        // Of an answer to HEAD, and of a 304, the length is that of a body which is not sent.
        let tells = !plan.head_only && response.status() != 304;
        match reply {
            Reply::Http1(tx) => {
                if tells {
                    h1::set_framing(&mut response.head, relayed);
                }
                write_response(response, Persistence::to(plan.version, keep), out);
                let head_bytes = out.len() as u64;
                Ok((Sink::Http1 { tx, out }, head_bytes))
            }
            Reply::Http2(reply) => {
                if tells {
                    // The end of the stream is the end of the body.
                    let sized = response.head.get_known(Known::ContentLength).is_some();
                    let told = match relayed {
                        BodyFraming::Chunked => BodyFraming::UntilClose,
                        BodyFraming::Length(0) if !sized => BodyFraming::None,
                        relayed => relayed,
                    };
                    h1::set_framing(&mut response.head, told);
                }
                let end = matches!(relayed, BodyFraming::None | BodyFraming::Length(0));
                let body = reply.respond(response, end).map_err(|_| RelayError::Sink)?;
                Ok((Sink::Http2 { body, halt: &halts.reply }, octets(&response.head)))
            }
        }
    }

    /// How the body travels.
    pub fn leg(&self, plan: &Plan<'_>) -> Leg {
        let chunked = self.framings.relayed == BodyFraming::Chunked && plan.version != Version::Http2;
        Leg {
            coding: if chunked { Coding::Chunked } else { Coding::Identity },
            trailers: plan.takes_trailers || plan.version == Version::Http2,
            receive_idle: plan.response_idle(),
            least: LeastRate::NONE,
            send: plan.response_send(),
            watch: true,
        }
    }

    fn recode(&self, encoder: Option<Box<Encoder>>) -> Recode<'_> {
        match self.web {
            None | Some(Wire::Grpc) => encoder.map_or(Recode::None, Recode::Encode),
            Some(wire) => Recode::ToWeb { text: wire == Wire::WebText, messages: &self.messages },
        }
    }

    /// Ends a call of gRPC-Web whose response broke off, and says why. False: that cannot be said, as the client is gone,
    /// or in the middle of a message.
    pub async fn end_web(&self, reply: &mut Reply<'_>, out: &mut Vec<u8>, reason: Reason) -> bool {
        let Some(wire) = self.web.filter(|_| self.messages.get().is_between()) else { return false };
        let last = web_trailers(&grpc::trailers(reason, message(reason)), wire == Wire::WebText);
        match reply {
            Reply::Http1(tx) if !tx.deadline().expired() => {
                match self.framings.relayed {
                    BodyFraming::Chunked => {
                        frame(&last, Coding::Chunked, out);
                        h1::write_chunk_end(None, out);
                    }
                    BodyFraming::UntilClose => frame(&last, Coding::Identity, out),
                    BodyFraming::None | BodyFraming::Length(_) => return false,
                }
                tx.deadline().arm(LINGER);
                tx.send(out).await.is_ok()
            }
            Reply::Http1(_) => false,
            Reply::Http2(reply) => match &mut reply.body {
                Some(body) => body.data(last, true, SendLimit::whole(LINGER)).await.is_ok(),
                None => false,
            },
        }
    }
}

/// Makes a response of gRPC one of gRPC-Web, as far as its head is concerned. `None`: it is none.
fn put_on(response: &mut ResponseHead, wire: Wire) -> Option<Wire> {
    let media_type = response.head.get_known(Known::ContentType)?;
    let media_type = grpc::media_type_on(media_type, wire)?;
    response.head.set_known(Known::ContentType, media_type);
    Some(wire)
}
