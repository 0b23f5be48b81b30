//! One attempt on an open channel: phases 5 to 7 from the request's head to the last byte of the response.
//!
//! Owns the order in which the two bodies and the response's head move beside each other, and who is cut when one of them
//! breaks off. Never decides about another attempt: an error means that nothing was sent to the client.

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use portcullis_abi::Reason;
use portcullis_config::ServerHeader;

use super::answer::{Answer, Answering};
use super::attempt::{Attempts, SETTLE, Target};
use super::channel::{Channel, Inlet};
use super::client::{Client, Reply};
use super::cut::Cut;
use super::downstream::Downstream;
use super::expiry::Expiry;
use super::failure::Failure;
use super::finish::Record;
use super::plan::Plan;
use super::pump::{Body, Pump};
use super::receive::{self, Halts};
use super::relay::RelayError;
use super::shard::Shard;
use super::transfer::{Sink, Source, Stream, transfer};
use super::{Next, forward, pages, plugins, refuse, tunnel, whole};
use crate::http::Known;
use crate::http::ResponseHead;
use crate::http::grpc::Wire;
use crate::http::h1::{BodyDecoder, BodyFraming, HopByHop};
use crate::http::h2::Code;
use crate::net::clock;
use crate::plugin::{Cx, Response};
use crate::snapshot::Local;

/// What an exchange is carried by, the same for each attempt.
#[derive(Clone, Copy)]
pub struct Stage<'a> {
    pub shard: &'a Rc<Shard>,
    pub local: &'a Rc<Local>,
    pub plan: &'a Plan<'a>,
    pub expiry: &'a Expiry,
    pub attempts: &'a Attempts<'a>,
    pub target: &'a Target<'a>,
}

impl Stage<'_> {
    /// How long the target may think from now on.
    fn first_byte(&self) -> Duration {
        self.plan.first_byte().min(self.attempts.left_of(self.target))
    }

    /// Takes out of a response what concerns the connection to the target, if it is passed on by its status; else it is a
    /// failure to be tried again.
    fn take(&self, response: &mut ResponseHead) -> Result<HopByHop, Failure> {
        match self.attempts.drops(response.status(), clock::now_ns()) {
            true => Err(Failure::status(response.status())),
            false => receive::take_hop_by_hop(response),
        }
    }
}

/// What a carried exchange leaves behind.
pub struct Carried {
    pub next: Next,
    /// Whether the upstream connection may serve another request.
    pub reusable: bool,
    /// The head of a 101 waits to be sent: what follows is a tunnel.
    pub upgraded: bool,
    /// Nothing was sent: this is the answer in place of the response.
    pub replaced: Option<Box<Response>>,
}

impl Carried {
    /// An exchange that is over, with an upstream connection that is not used again.
    const fn ended(next: Next) -> Self {
        Self { next, reusable: false, upgraded: false, replaced: None }
    }

    fn replaced(answer: Box<Response>) -> Self {
        Self { replaced: Some(answer), ..Self::ended(Next::Close) }
    }
}

/// Sends the request, receives the response head, runs the response plugins and relays the response.
pub async fn carry(
    stage: Stage<'_>,
    client: &mut Client<'_>,
    down: &mut Downstream,
    cx: &mut Cx<'_>,
    record: &mut Record,
    channel: &mut Channel,
) -> Result<Carried, Failure> {
    let plan = stage.plan;
    if plan.wants_continue() && !client.send_continue(&mut down.out).await {
        return Err(Failure { sent: false, ..Failure::client_gone() });
    }
    let halts = Halts::with(stage.first_byte());
    let request_bytes = Cell::new(0);
    let cuts = Cuts::of(client, channel, &halts);
    let limit = channel.limit(&halts.begun);
    let mut decoder = plan.request_decoder(client)?;
    let Downstream { out, upstream_out, request, response, .. } = down;
    let (source, mut reply) = split(client, decoder.as_mut(), plan, &halts);
    let (sink, mut inlet) = channel.split(upstream_out, &halts.upstream);

    // 5 send, with the body beside what follows unless it goes with the head
    let body = begin_request(plan, source, sink, &request_bytes).await?;
    let mut pump = Pump::new(body, stage.expiry);
    let version = request.version();
    // The target has its time from when it has the request; what comes before has limits of its own.
    let over = || limit.cut_after(stage.first_byte());
    pump.is_complete().then(over);
    let head = receive::receive_response(&mut inlet, &mut reply, response, out, plan, &halts, version);
    let head = pump.beside(pin!(head), || cuts.upstream.cut(), over).await;
    record.first_byte_ns = Some(clock::now_ns());
    let (framing, hop) = match head.and_then(|framing| Ok((framing, stage.take(response)?))) {
        Ok(found) => found,
        Err(failure) => {
            let failure = give_up(failure, &cuts, pump).await;
            return Err(failure.touching(is_touched(client, decoder.as_ref(), request_bytes.get())));
        }
    };
    (record.upstream_status, record.status) = (response.status(), response.status());

    if let Some(page) = pages::in_place_of(stage, cx, request, record, response.status())
        && let Some(page) = pump.beside(Box::pin(page), || cuts.upstream.cut(), || {}).await
    {
        // What is left of both bodies is of no use to anybody.
        give_up(Failure::client_gone(), &cuts, pump).await;
        record.body_touched |= is_touched(client, decoder.as_ref(), request_bytes.get());
        return Ok(Carried::replaced(Response::with_content(page.status, page.content)));
    }

    // 6 response plugins
    edit_response(stage, cx, response, &record.request_id);
    if response.status() == 101 {
        // The client is told in its own HTTP.
        (record.head_bytes, record.status) = (tunnel::write_head(response, version, out), response.status());
        return Ok(Carried { upgraded: true, ..Carried::ended(Next::Close) });
    }

    // 7 relay
    let mut answer = Answer::new(plan, response, framing);
    let mut by = Answering { reply: &mut reply, response, out, pump: &mut pump, cuts: &cuts, halts: &halts };
    if let Err(failure) = prepare(stage, cx, &mut answer, &mut by, &mut inlet).await {
        let failure = give_up(failure, &cuts, pump).await;
        return Err(failure.touching(is_touched(client, decoder.as_ref(), request_bytes.get())));
    }
    let (next, whole) = relay(stage, &mut answer, by, inlet, record).await;
    drop(pump);
    record.request_bytes = request_bytes.get();
    let reusable = next != Next::Reset && whole && receive::persists(response, &hop);
    Ok(Carried { reusable, ..Carried::ended(next) })
}

/// Lets plugins have the body before it goes on: whole where they want it so, and in a content coding.
async fn prepare(
    stage: Stage<'_>,
    cx: &mut Cx<'_>,
    answer: &mut Answer,
    by: &mut Answering<'_, '_>,
    inlet: &mut Inlet<'_>,
) -> Result<(), Failure> {
    let (plan, chain) = (stage.plan, stage.plan.chain);
    if answer.has_body()
        && (plan.buffers_response || plugins::wants_response_body(stage.local, chain, cx, by.response))
    {
        // Boxed: exchanges whose bodies pass by need no room for it.
        let holding = Box::pin(whole::hold(stage, cx, by.response, inlet.reborrow(), answer, by.halts));
        let body = by.pump.beside(holding, || by.cuts.upstream.cut(), || {}).await?;
        answer.replace_body(body);
    }
    if let Some(encoder) = plugins::encoder(stage.local, chain, cx, by.response, answer.framings.relayed) {
        answer.code(plan, encoder);
    }
    Ok(())
}

/// Phase 7: passes the response on, and ends what is left of the request. Says whether both came whole.
async fn relay(
    stage: Stage<'_>,
    answer: &mut Answer,
    mut by: Answering<'_, '_>,
    inlet: Inlet<'_>,
    record: &mut Record,
) -> (Next, bool) {
    let may_keep = stage.plan.keep_alive && by.pump.is_complete() && !stage.shard.retiring();
    let keep = may_keep && answer.framings.relayed != BodyFraming::UntilClose;
    let sent = answer.relay(stage.plan, &mut by, inlet, keep, record).await;
    let Answering { reply, out, pump, cuts, .. } = by;
    let told = match &sent {
        Err(error) if !is_gone(stage, error) => answer.end_web(reply, out, why(stage, error)).await,
        _ => false,
    };
    let body_whole = pump.is_complete();
    if !body_whole {
        cuts.upstream.cut();
        leave(reply, &cuts.client, sent.is_ok() || told).await;
        pump.settle().await;
    }
    let next = ended(stage, reply, record, sent, Left { keep: keep && body_whole, told });
    let whole = body_whole && !answer.framings.unread && answer.framings.read != BodyFraming::UntilClose;
    (next, whole)
}

/// Ends one direction each from within the task.
pub struct Cuts<'a> {
    /// What the client sends.
    client: Cut<'a>,
    /// What the client is sent.
    pub reply: Cut<'a>,
    pub upstream: Cut<'a>,
}

impl<'a> Cuts<'a> {
    fn of(client: &Client<'_>, channel: &Channel, halts: &'a Halts) -> Self {
        Self {
            client: client.cut(&halts.client),
            reply: client.cut_reply(&halts.reply),
            upstream: channel.cut(&halts.upstream),
        }
    }
}

/// The two directions of the client: where the body comes from, unless there is none to wait for, and where the answer goes.
fn split<'a>(
    client: &'a mut Client<'_>,
    decoder: Option<&'a mut BodyDecoder>,
    plan: &Plan<'_>,
    halts: &'a Halts,
) -> (Option<Source<'a>>, Reply<'a>) {
    match client {
        Client::Http1(client) => {
            let source = match (decoder, plan.in_hand) {
                (Some(decoder), _) => Some(Source::Http1 { intake: &mut client.intake, decoder }),
                (None, Some(1..)) => Some(Source::Whole(plan.whole(client.intake.unread()))),
                _ => None,
            };
            (source, Reply::Http1(&mut client.tx))
        }
        Client::Http2(client) => {
            let mut stream = Stream::new(&mut client.body, plan.body_limit, &halts.client);
            if plan.wire == Some(Wire::Grpc) {
                stream = stream.of_messages();
            }
            ((plan.in_hand != Some(0)).then_some(Source::Http2(stream)), Reply::Http2(&mut client.reply))
        }
    }
}

/// Begins to send the request. What goes with its head is sent at once.
async fn begin_request<'a>(
    plan: &Plan<'_>,
    source: Option<Source<'a>>,
    sink: Sink<'a>,
    payload: &'a Cell<u64>,
) -> Result<Body<'a>, Failure> {
    match (source, sink) {
        (_, Sink::Http1 { tx, out }) if plan.in_hand.is_some() => {
            payload.set(plan.in_hand.unwrap_or(0) as u64);
            tx.deadline().arm(plan.times.upstream_write);
            tx.send(out).await.map_err(Failure::send)?;
            Ok(Body::Done(Ok(())))
        }
        (None, _) => Ok(Body::Done(Ok(()))),
        (Some(source), sink) => {
            let leg = plan.request_leg(&sink);
            Ok(Body::Running(Box::pin(transfer(source, sink, leg, plan.request_recode(), payload))))
        }
    }
}

/// Ends an attempt that has no response.
async fn give_up(failure: Failure, cuts: &Cuts<'_>, mut pump: Pump<'_>) -> Failure {
    cuts.upstream.cut();
    // A pump that only ends now says nothing about the client.
    let failure = failure.with_body(pump.result());
    if pump.result().is_none() {
        cuts.client.cut_after(SETTLE);
        pump.settle().await;
    }
    pump.expiry().passed().map_or(failure, Failure::expired)
}

/// Whether some of the request body was taken from the client and is gone.
fn is_touched(client: &Client<'_>, decoder: Option<&BodyDecoder>, payload: u64) -> bool {
    match client {
        Client::Http1(client) => {
            let deadline = client.intake.rx.deadline();
            deadline.disarm();
            decoder.is_some_and(|decoder| payload > 0 || decoder.has_begun()) || deadline.expired()
        }
        Client::Http2(client) => client.body.is_lost(),
    }
}

/// Phase 6: lets everybody add his own, now that what concerned the connection to the upstream is gone.
fn edit_response(stage: Stage<'_>, cx: &mut Cx<'_>, response: &mut ResponseHead, request_id: &[u8]) {
    let Stage { shard, local, plan, .. } = stage;
    if local.snapshot.config.http.server_header == ServerHeader::Remove {
        response.head.remove_known(Known::Server);
    }
    // RFC 9110 section 6.6.1: whoever forwards a response without a date adds when it was received.
    if response.head.get_known(Known::Date).is_none() {
        response.head.append_known(Known::Date, shard.date());
    }
    plugins::merge_fields(response, cx);
    plugins::on_response(local, plan.chain, cx, response);
    for cookie in stage.attempts.cookies(stage.target) {
        response.head.append_known(Known::SetCookie, cookie.as_bytes());
    }
    response.head.append_item(Known::Via, forward::via(response.version()));
    plugins::add_request_id(response, request_id);
}

/// Bounds what is still received of a request whose response is over. A client that is sending still would be reset,
/// answer and all, if its bytes met a socket that no longer receives.
async fn leave(reply: &mut Reply<'_>, client: &Cut<'_>, answered: bool) {
    match reply {
        Reply::Http1(tx) if answered => {
            refuse::finish_sending(tx).await;
            client.cut_after(refuse::LINGER);
        }
        _ => client.cut(),
    }
}

/// Why a response was not passed on whole.
fn why(stage: Stage<'_>, error: &RelayError) -> Reason {
    stage.expiry.passed().unwrap_or(error.of_response())
}

/// Whether there is nobody left to be told.
fn is_gone(stage: Stage<'_>, error: &RelayError) -> bool {
    why(stage, error) == Reason::ClientAborted || stage.expiry.passed().is_none() && error.is_of_receiver()
}

/// How the client's side is left after a response.
struct Left {
    /// It may go on, if the response went whole.
    keep: bool,
    /// If not, the client was told why within the body.
    told: bool,
}

/// What becomes of the downstream connection or stream. Without a length the client could take what it has for the whole,
/// so what is not whole is broken off; a call can be told why.
fn ended(
    stage: Stage<'_>,
    reply: &mut Reply<'_>,
    record: &mut Record,
    sent: Result<(), RelayError>,
    left: Left,
) -> Next {
    let Err(error) = sent else {
        return if left.keep { Next::KeepAlive } else { Next::Close };
    };
    record.reason = Some(why(stage, &error));
    if left.told {
        return Next::Close;
    }
    let (reason, gone) = (why(stage, &error), is_gone(stage, &error));
    if let Reply::Http2(reply) = reply {
        let told = !gone && stage.plan.wire == Some(Wire::Grpc) && reply.end_call(reason);
        match (told, gone) {
            (true, _) => return Next::Close,
            (false, true) => reply.reset(Code::Cancel),
            (false, false) => reply.reset(Code::InternalError),
        }
    }
    Next::Reset
}
