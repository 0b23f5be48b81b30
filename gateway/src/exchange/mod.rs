//! One request from its head to its log line.
//!
//! Owns the order of things: eight phases, readable from top to bottom in [`exchange`] and [`carry`]. Early answers
//! jump to phase 8, never out. Never does the work of a phase itself: that is the module's of the same name.
//!
//! | phase | what | where |
//! |---|---|---|
//! | 1 | receive the head | `connection` |
//! | 2 | admit: framing, expectations, drain, the source's bucket | `admit` |
//! | 3 | route | `crate::route` |
//! | 4 | request plugins, in order | `crate::plugin` |
//! | 5 | attempts: pick, acquire, send, receive a response head; retry | here, `attempt` |
//! | 6 | response plugins, in reverse | `crate::plugin` |
//! | 7 | relay the bodies, or what follows a 101 | `relay`, `pump`, `tunnel` |
//! | 8 | finish: health, counters, access log, keep-alive | `finish` |
//!
//! **Invariant.** One generation decides an exchange from start to end, and every exchange is finished exactly once.

mod admit;
mod attempt;
mod connection;
mod finish;
mod forward;
mod passthrough;
mod plugins;
mod pump;
mod refuse;
mod relay;
mod shard;
mod tunnel;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use portcullis_abi::Reason;

use crate::http::h1::{self, BodyDecoder, BodyFraming, HopByHop, Persistence, write_response};
use crate::http::{Known, ResponseHead};
use crate::net::clock;
use crate::net::deadline::Cutter;
use crate::plugin::{Cx, Response};
use crate::snapshot::Local;
use crate::tls::Tx;
use crate::upstream::UpstreamConnection;
use attempt::{Failure, Plan};
use connection::Downstream;
use finish::{Record, finish};
use pump::Pump;
use relay::{Coding, Leg, relay};

pub use connection::serve;
pub use shard::{OpenConnection, Parts, Shard};

/// How long a failed attempt waits for the client's next bytes, to leave its receiving open: for the next attempt, or
/// so that the answer is not lost to a reset.
const SETTLE: Duration = Duration::from_millis(100);

/// What becomes of the downstream connection after an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    KeepAlive,
    Close,
    /// The response is cut short, and the client must notice.
    Reset,
}

/// Serves the request whose head is in `down.request`.
async fn exchange(shard: &Rc<Shard>, local: &Rc<Local>, down: &mut Downstream) -> Next {
    let snapshot = &*local.snapshot;
    // 1 receive head: done by the connection loop, which found it whole.
    let now_ns = clock::now_ns();
    let mut record = Record::new(shard, now_ns, connection::client_address(local, down));
    let mut cx = Cx::new(
        now_ns,
        shard.wall(now_ns),
        down.origin.source.ip(),
        record.client,
        &snapshot.consumers,
        &shard.table,
        &shard.limit_table,
    );
    cx.https = down.origin.https;
    cx.connection = down.facts();
    cx.response_fields = std::mem::take(&mut down.plugin_fields);
    (cx.peer, cx.proxied) = (down.origin.peer.clone(), down.origin.proxied.clone());
    let listener = snapshot.listener(down.origin.listener);
    if let Some(hsts) = listener.and_then(|listener| listener.hsts.as_deref()) {
        cx.response_fields.append_known(Known::StrictTransportSecurity, hsts);
    }
    shard.metrics.requests_active.inc();

    let outcome: Result<Next, Box<Response>> = 'answered: {
        // 2 admit
        let admitted = match admit::admit(shard, local, down, &mut record) {
            Ok(admitted) => admitted,
            Err(response) => break 'answered Err(response),
        };
        (cx.body, cx.expects_continue) = (admitted.framing, admitted.expects_continue);
        if let Some(response) = listener.and_then(|listener| admit::at_listener(local, listener, down)) {
            break 'answered Err(response);
        }
        // 3 route
        let (route, matched_len) = match admit::route(local, down) {
            Ok(found) => found,
            Err(response) => break 'answered Err(response),
        };
        record.route = Some(route);
        let chosen = &snapshot.routes[route.index()];
        (cx.route, cx.route_name) = (route, &chosen.name);
        cx.service = chosen.service;
        cx.service_name = chosen.service.map(|service| &*snapshot.services[service.index()].name);
        if let Err(response) = admit::charge(shard, local, down, chosen, &admitted, now_ns) {
            break 'answered Err(response);
        }
        // 4 request plugins
        if let Err(response) =
            plugins::on_request(shard, local, &chosen.chain, &mut cx, &mut down.request).await
        {
            break 'answered Err(response);
        }
        // 5 to 7
        if chosen.strip_path && !cx.rewritten.path {
            forward::add_prefix(&mut down.request, matched_len);
        }
        let Some(plan) = Plan::new(local, down, chosen, &cx, matched_len, admitted, &record) else {
            break 'answered Err(refuse::response(503, Reason::NoHealthyTarget));
        };
        forward::add_provenance(
            &mut down.request,
            &down.origin,
            cx.client,
            &record.request_id,
            &snapshot.config,
        );
        forward(shard, local, down, &mut cx, &mut record, &plan).await
    };
    record.identity = cx.identity;

    let next = match outcome {
        Ok(next) => next,
        Err(response) => respond(shard, down, &mut cx, &mut record, &response).await,
    };
    // 8 finish
    down.plugin_fields = std::mem::take(&mut cx.response_fields);
    down.plugin_fields.clear();
    shard.metrics.requests_active.dec();
    finish(shard, local, down, &record);
    connection::relax(down);
    next
}

/// Phase 5: attempts until one has a response, and then phases 6 and 7 with it.
async fn forward(
    shard: &Rc<Shard>,
    local: &Rc<Local>,
    down: &mut Downstream,
    cx: &mut Cx<'_>,
    record: &mut Record,
    plan: &Plan<'_>,
) -> Result<Next, Box<Response>> {
    let mut attempts = attempt::Attempts::new(plan, cx, &down.request);
    // One reading of the clock serves until something was waited for.
    let mut now_ns = cx.now_ns;
    loop {
        let Some(target) = attempts.pick(now_ns) else {
            return Err(attempts.give_up());
        };
        record.attempts += 1;
        record.target = target.address();
        let failure = match attempts.acquire(shard, &target, record, now_ns).await {
            Err(failure) => failure,
            Ok(mut connection) => {
                plan.write_request(down, &target);
                match carry(shard, local, down, cx, record, plan, &mut connection).await {
                    Ok(carried) => {
                        down.intake.consume(plan.in_hand.unwrap_or(0));
                        let answered_ns = record.first_byte_ns.unwrap_or(now_ns);
                        let status = record.upstream_status;
                        if carried.upgraded {
                            attempts.answered(&target, status, answered_ns);
                            // Boxed: connections that never become tunnels need no room for one.
                            let run = tunnel::run(shard, down, record, &mut connection, plan.tunnel_idle);
                            let next = Box::pin(run).await;
                            target.pool().discard(connection);
                            return Ok(next);
                        }
                        attempts.succeeded(&target, status, connection, carried.reusable, answered_ns);
                        return Ok(carried.next);
                    }
                    Err(failure) => {
                        let failure = failure.on(&connection);
                        record.body_touched |= failure.body_touched;
                        target.pool().discard(connection);
                        failure
                    }
                }
            }
        };
        shard.metrics.upstream_errors.inc();
        now_ns = clock::now_ns();
        if !attempts.again(&target, failure, now_ns) {
            return Err(attempts.give_up());
        }
        shard.metrics.upstream_retries.inc();
    }
}

/// What a carried exchange leaves behind.
struct Carried {
    next: Next,
    /// Whether the upstream connection may serve another request.
    reusable: bool,
    /// The head of a 101 waits to be sent: what follows is a tunnel.
    upgraded: bool,
}

/// One attempt on an open connection: sends the request in `down.upstream_out` and its body, receives the response
/// head, runs the response plugins and relays the response. An error means that nothing was sent downstream.
async fn carry(
    shard: &Rc<Shard>,
    local: &Rc<Local>,
    down: &mut Downstream,
    cx: &mut Cx<'_>,
    record: &mut Record,
    plan: &Plan<'_>,
    connection: &mut UpstreamConnection,
) -> Result<Carried, Failure> {
    if plan.wants_continue() {
        attempt::send_continue(down).await?;
    }
    let Downstream { intake, tx: down_tx, out, upstream_out, request, response, .. } = down;
    let UpstreamConnection { intake: up_intake, tx: up_tx, .. } = connection;
    let cut_upstream = up_tx.deadline().cutter();
    let cut_downstream = intake.rx.deadline().cutter();

    // 5 send, with the body beside what follows unless it is in hand
    let request_bytes = Cell::new(0);
    let mut decoder = plan.request_decoder()?;
    let mut pump = match &mut decoder {
        Some(decoder) => Pump::Running(Box::pin(relay(
            intake,
            decoder,
            up_tx,
            upstream_out,
            plan.request_leg(),
            &request_bytes,
        ))),
        None => {
            up_tx.deadline().arm(plan.service.write_timeout);
            up_tx.send(upstream_out).await.map_err(Failure::send)?;
            Pump::Done(Ok(()))
        }
    };
    let version = request.version();
    // The target has its time to answer from when it has the request; what comes before has limits of its own.
    let limit = up_intake.rx.deadline().cutter();
    let over = || limit.cut_after(plan.service.first_byte_timeout);
    if pump.is_complete() {
        over();
    }
    let head = attempt::receive_response(up_intake, response, plan, version, down_tx, out);
    let head = pump.beside(head, || cut_upstream.cut(), over).await;
    record.first_byte_ns = Some(clock::now_ns());
    let framing = match head {
        Ok(framing) => framing,
        Err(failure) => {
            cut_upstream.cut();
            // A pump that only ends now says nothing about the client.
            let failure = failure.with_pump(&pump);
            cut_downstream.cut_after(SETTLE);
            pump.settle().await;
            drop(pump);
            intake.rx.deadline().disarm();
            let body_touched = request_bytes.get() > 0
                || decoder.as_ref().is_some_and(BodyDecoder::has_begun)
                || intake.rx.deadline().expired();
            return Err(Failure { body_touched, ..failure });
        }
    };
    record.upstream_status = response.status();
    record.status = response.status();

    // 6 response plugins
    let hop = edit_response(local, plan, cx, response, &record.request_id);
    let status = response.status();
    if status == 101 {
        record.head_bytes = tunnel::write_head(response, out);
        return Ok(Carried { next: Next::Close, reusable: false, upgraded: true });
    }
    let attempt::Framings { read: framing, relayed, unread } =
        attempt::response_framings(plan, status, framing, version);
    if !plan.head_only && status != 304 {
        h1::set_framing(&mut response.head, relayed);
    }
    let keep =
        plan.keep_alive && relayed != BodyFraming::UntilClose && pump.is_complete() && !shard.draining();
    write_response(response, Persistence::to(version, keep), out);
    let head_bytes = out.len() as u64;

    // 7 relay
    let response_bytes = Cell::new(0);
    let mut decoder = BodyDecoder::response(framing);
    let leg = Leg {
        coding: if relayed == BodyFraming::Chunked { Coding::Chunked } else { Coding::Identity },
        trailers: plan.takes_trailers,
        receive_idle: plan.service.body_idle_timeout,
        send: plan.response_write,
    };
    let sent = pump
        .beside(
            relay(up_intake, &mut decoder, down_tx, out, leg, &response_bytes),
            || cut_upstream.cut(),
            || {},
        )
        .await;
    let body_whole = pump.is_complete();
    if !body_whole {
        cut_upstream.cut();
        leave(down_tx, &cut_downstream, sent.is_ok()).await;
        pump.settle().await;
    }
    record.request_bytes = request_bytes.get() + plan.in_hand.unwrap_or(0) as u64;
    (record.head_bytes, record.response_bytes) = (head_bytes, response_bytes.get());
    drop(pump);
    let next = match sent {
        Ok(()) if keep && body_whole => Next::KeepAlive,
        Ok(()) => Next::Close,
        Err(error) => {
            record.reason = Some(error.of_response());
            // Without a length the client could take what it has for the whole.
            Next::Reset
        }
    };
    let ended = body_whole && !unread && framing != BodyFraming::UntilClose;
    let reusable = next != Next::Reset && ended && attempt::persists(response, &hop);
    Ok(Carried { next, reusable, upgraded: false })
}

/// Bounds what is still received of a request whose response is over. A client that is sending still would be reset,
/// answer and all, if its bytes met a socket that no longer receives.
async fn leave(down_tx: &mut Tx, cut_downstream: &Cutter, answered: bool) {
    if answered {
        refuse::finish_sending(down_tx).await;
        cut_downstream.cut_after(refuse::LINGER);
    } else {
        cut_downstream.cut();
    }
}

/// Phase 6: takes away what concerned the connection to the upstream, and lets everybody add his own.
fn edit_response(
    local: &Rc<Local>,
    plan: &Plan<'_>,
    cx: &mut Cx<'_>,
    response: &mut ResponseHead,
    request_id: &[u8],
) -> HopByHop {
    let hop = h1::strip_hop_by_hop(&mut response.head);
    attempt::merge_fields(response, cx);
    plugins::on_response(local, plan.chain, cx, response);
    response.head.append_item(Known::Via, forward::VIA);
    attempt::add_request_id(response, request_id);
    hop
}

/// Sends an answer of ours.
async fn respond(
    shard: &Rc<Shard>,
    down: &mut Downstream,
    cx: &mut Cx<'_>,
    record: &mut Record,
    response: &Response,
) -> Next {
    record.status = response.status;
    record.reason = response.reason;
    let keep = admit::may_keep(shard, down, record);
    cx.response_fields.set_known(Known::XRequestId, record.request_id);
    refuse::write(down, &shard.date(), response, Some(&cx.response_fields), keep);
    record.count_answer(&down.out);
    down.tx.deadline().arm(record.response_write);
    match down.tx.send(&mut down.out).await {
        Ok(()) if keep => Next::KeepAlive,
        Ok(()) => Next::Close,
        Err(_) => Next::Reset,
    }
}
