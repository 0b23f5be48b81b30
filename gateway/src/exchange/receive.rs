//! Receives the head of a response, and decides how its body goes on.

use std::cell::Cell;
use std::pin::pin;
use std::time::Duration;

use portcullis_abi::Reason;

use super::channel::{Inlet, Receive};
use super::client::{Reply, StreamBody};
use super::cut::{Cut, unless, within};
use super::failure::Failure;
use super::plan::Plan;
use super::tunnel;
use crate::http::h1::{self, BodyFraming, HopByHop, Parsed, parse_response};
use crate::http::h2::client::Received;
use crate::http::websocket::Proof;
use crate::http::{Known, Method, ResponseHead, Version};
use crate::tls::{BODY_ROOM, Intake};
use crate::upstream::retry;

/// Interim responses that are relayed before one exchange's final response; more is a fault of the target.
const INTERIM_MAX: u32 = 16;

/// Flags by which streams are ended, and what they wait for begun; each set by the task that waits.
pub struct Halts {
    /// Nothing more is received from the client.
    pub client: Cell<bool>,
    /// Nothing more is sent to the client.
    pub reply: Cell<bool>,
    /// Nothing more is sent to or received from the target.
    pub upstream: Cell<bool>,
    /// The target has the request: its time to answer begins.
    pub begun: Cell<bool>,
    /// How long that is.
    pub first_byte: Duration,
}

impl Halts {
    /// Nothing halts. The target has `first_byte` to answer.
    pub fn with(first_byte: Duration) -> Self {
        Self {
            client: Cell::default(),
            reply: Cell::default(),
            upstream: Cell::default(),
            begun: Cell::default(),
            first_byte,
        }
    }
}

/// Receives the head of the final response, relaying interim ones, and decides its framing.
pub async fn receive_response(
    from: &mut Inlet<'_>,
    reply: &mut Reply<'_>,
    response: &mut ResponseHead,
    out: &mut Vec<u8>,
    plan: &Plan<'_>,
    halts: &Halts,
    version: Version,
) -> Result<BodyFraming, Failure> {
    response.clear();
    let mut relayed = Interim { plan, version, seen: 0 };
    match from {
        Inlet::Http1(intake) => from_connection(intake, reply, response, out, &mut relayed).await,
        Inlet::Http2 { stream, kept } => {
            Box::pin(from_stream(stream, *kept, reply, response, out, &mut relayed, halts)).await
        }
    }
}

/// The caller arms the time limit.
async fn from_connection(
    intake: &mut Intake,
    reply: &mut Reply<'_>,
    response: &mut ResponseHead,
    out: &mut Vec<u8>,
    interim: &mut Interim<'_>,
) -> Result<BodyFraming, Failure> {
    let plan = interim.plan;
    let limits = &plan.snapshot.response_head_limits;
    loop {
        if !intake.is_empty() {
            match parse_response(intake.unread(), limits, response) {
                Ok(Parsed::Partial) => {}
                Err(_) => return Err(Failure::bad_response(Reason::UpstreamBadResponse)),
                Ok(Parsed::Complete { head_len }) => {
                    intake.consume(head_len);
                    let granted = |proof: &Proof| tunnel::is_granted(response, proof);
                    let switches = response.status() == 101 && plan.upgrade.as_ref().is_some_and(granted);
                    if !response.is_interim() || switches {
                        intake.rx.deadline().disarm();
                        let framing = h1::response_framing(response, plan.method);
                        return framing.map_err(|_| Failure::bad_response(Reason::UpstreamBadResponse));
                    }
                    h1::response_framing(response, plan.method)
                        .map_err(|_| Failure::bad_response(Reason::UpstreamBadResponse))?;
                    interim.relay(reply, response, out).await?;
                    continue;
                }
            }
        }
        // Room for a whole small body behind the head, so that both leave in one send.
        let cut = Cut::Socket(intake.rx.deadline().cutter());
        let room = BODY_ROOM.max(limits.head + 1);
        let received = reply.unless_gone(&cut, pin!(intake.receive(room))).await;
        match received {
            _ if reply.is_gone() => return Err(Failure::client_gone()),
            Ok(1..) => {}
            _ if intake.rx.deadline().expired() => {
                return Err(Failure::new(retry::Failure::ResponseTimeout, Reason::UpstreamTimeout, 504));
            }
            _ => return Err(Failure::new(retry::Failure::Reset, Reason::UpstreamReset, 502)),
        }
    }
}

async fn from_stream(
    stream: &mut Receive,
    kept: bool,
    reply: &mut Reply<'_>,
    response: &mut ResponseHead,
    out: &mut Vec<u8>,
    interim: &mut Interim<'_>,
    halts: &Halts,
) -> Result<BodyFraming, Failure> {
    let plan = interim.plan;
    let limits = &plan.snapshot.response_head_limits;
    let reset = Failure::new(retry::Failure::Reset, Reason::UpstreamReset, 502);
    loop {
        let Receive::Head(coming) = stream else { return Err(reset) };
        let head = {
            let head = pin!(coming.head(limits, response));
            let head = pin!(unless(&halts.upstream, head));
            let head = pin!(within(&halts.begun, halts.first_byte, head));
            reply.unless_gone(&Cut::Stream(&halts.upstream), head).await
        };
        if reply.is_gone() {
            return Err(Failure::client_gone());
        }
        let timed_out = Failure::new(retry::Failure::ResponseTimeout, Reason::UpstreamTimeout, 504);
        if !matches!(head, Some(Some(_))) {
            coming.give_up();
        }
        let received = head.ok_or(timed_out)?.ok_or(reset)?;
        match received.map_err(|error| Failure::stream(error, kept))? {
            Received::Interim => interim.relay(reply, response, out).await?,
            Received::Final(framing) => {
                if let Receive::Head(coming) = std::mem::replace(stream, Receive::Over)
                    && let Some((body, _place)) = coming.into_body()
                {
                    *stream = Receive::Body { body: StreamBody::new(body, 0), _place };
                }
                if let Some(proof) = plan.upgrade.as_ref().filter(|_| matches!(response.status(), 200..=299))
                {
                    tunnel::grant(response, proof);
                    return Ok(BodyFraming::None);
                }
                // The end came with the head. In HTTP/1 that is to be said.
                let empty = framing == BodyFraming::None
                    && plan.method != Method::Head
                    && !matches!(response.status(), 204 | 304);
                return Ok(if empty { BodyFraming::Length(0) } else { framing });
            }
        }
    }
}

/// The interim responses of an exchange.
struct Interim<'a> {
    plan: &'a Plan<'a>,
    /// The client's.
    version: Version,
    seen: u32,
}

impl Interim<'_> {
    /// 100 is between us and the target (we gave our own leave); the others are for the client, if it knows of them.
    async fn relay(
        &mut self,
        reply: &mut Reply<'_>,
        response: &mut ResponseHead,
        out: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        self.seen += 1;
        if self.seen > INTERIM_MAX || response.status() == 101 {
            return Err(Failure::bad_response(Reason::UpstreamProtocolError));
        }
        if response.status() != 100 && self.version != Version::Http10 {
            take_hop_by_hop(response)?;
            // RFC 9110 section 8.6: none in a 1xx, which has no body.
            response.head.remove_known(Known::ContentLength);
            if !reply.interim(response, out, self.plan.response_send()).await {
                return Err(Failure::client_gone());
            }
        }
        response.clear();
        Ok(())
    }
}

/// How the response that came with `received` goes to the client, and whether its body is left unread: a client and
/// an upstream may be at odds about HEAD, where a plugin replaced the method.
pub fn response_framings(plan: &Plan<'_>, status: u16, received: BodyFraming, version: Version) -> Framings {
    let (read, unread) = match received {
        BodyFraming::None => (BodyFraming::None, false),
        _ if plan.head_only => (BodyFraming::None, true),
        received => (received, false),
    };
    let relayed = match h1::relay_framing(read, version) {
        // Who asked with GET would wait for the body that HEAD tells of. A 204 has no length (RFC 9110 section 8.6).
        BodyFraming::None if plan.method == Method::Head && !plan.head_only && status != 204 => {
            BodyFraming::Length(0)
        }
        relayed => relayed,
    };
    Framings { read, relayed, unread }
}

/// See [`response_framings`].
pub struct Framings {
    /// Of what is read from the upstream.
    pub read: BodyFraming,
    /// Of what is written to the client.
    pub relayed: BodyFraming,
    /// There is a body that nobody reads.
    pub unread: bool,
}

/// Whether the target keeps the connection after this response.
pub fn persists(response: &ResponseHead, hop: &HopByHop) -> bool {
    h1::keep_alive(response.version(), hop.options)
}

/// Takes out of a response what concerns the connection to the target only.
pub fn take_hop_by_hop(response: &mut ResponseHead) -> Result<HopByHop, Failure> {
    let taken = h1::strip_hop_by_hop(&mut response.head);
    taken.map_err(|_| Failure::bad_response(Reason::UpstreamBadResponse))
}
