//! One request from its head to its log line.
//!
//! Owns the order of things: eight phases, readable from top to bottom in [`exchange`] and `carry`. Early answers
//! jump to phase 8, never out. Never does the work of a phase itself: that is the module's of the same name.
//!
//! | phase | what | where |
//! |---|---|---|
//! | 1 | receive the head | `connection`, then `http1` or `streams` |
//! | 2 | admit: framing, expectations, drain, the source's bucket | `admit` |
//! | 3 | route | `crate::route` |
//! | 4 | request plugins, in order | `crate::plugin` |
//! | 5 | attempts: pick, acquire, send, receive a response head; retry | here, `attempt`, `carry`, `receive` |
//! | 6 | response plugins, in reverse | `crate::plugin` |
//! | 7 | relay the bodies, or what follows a 101 | `transfer`, `relay`, `pump`, `tunnel` |
//! | 8 | finish: health, counters, access log, keep-alive | `finish` |
//!
//! The two sides are whatever HTTP they speak: `client` and `channel` are where that is decided, `plan` is what is asked.
//!
//! **Invariant.** One generation decides an exchange from start to end, and every exchange is finished exactly once.

mod admit;
mod answer;
mod attempt;
mod carry;
mod channel;
mod client;
mod connection;
mod cut;
mod downstream;
mod duplex;
mod expiry;
mod failure;
mod finish;
mod forward;
mod hops;
mod http1;
mod lookout;
mod mirror;
mod pages;
mod passthrough;
mod plan;
mod plugins;
mod pump;
mod receive;
mod refuse;
mod relay;
mod shard;
mod streams;
mod throttle;
mod transfer;
mod tunnel;
mod whole;
mod workers;

use std::rc::Rc;

use portcullis_abi::Reason;

use crate::http::Known;
use crate::http::grpc::Call;
use crate::net::clock;
use crate::plugin::{Cx, Response};
use crate::snapshot::Local;
use carry::{Stage, carry};
use channel::Channel;
use client::Client;
use downstream::Downstream;
use expiry::Expiry;
use finish::{Record, finish};
use plan::Plan;
use whole::Taking;

pub use connection::serve;
pub use shard::{Cutters, OpenConnection, Parts, Shard};

/// What becomes of the downstream connection after an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    KeepAlive,
    Close,
    /// The response is cut short, and the client must notice.
    Reset,
}

/// Counts an exchange under way, for as long as it is held: also when a panic ends it.
struct Active<'a>(&'a Shard);

impl<'a> Active<'a> {
    fn count(shard: &'a Shard) -> Self {
        shard.metrics.requests_active.inc();
        Self(shard)
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.metrics.requests_active.dec();
    }
}

/// Serves the request whose head is in `down.request`.
async fn exchange(
    shard: &Rc<Shard>,
    local: &Rc<Local>,
    client: &mut Client<'_>,
    down: &mut Downstream,
) -> Next {
    let snapshot = &*local.snapshot;
    // 1 receive head: done by the connection, which found it whole.
    let now_ns = clock::now_ns();
    let mut record = Record::new(shard, now_ns, downstream::client_address(local, down));
    let mut cx = Cx::new(
        now_ns,
        shard.wall(now_ns),
        down.origin.source.ip(),
        record.client,
        &snapshot.consumers,
        &shard.table,
        &shard.limit_table,
    );
    let active = Active::count(shard);
    record.call = Call::of(&down.request);

    let next = match decide(shard, local, client, down, &mut cx, &mut record).await {
        Ok(plan) => forward(shard, local, client, down, &mut cx, &mut record, &plan).await,
        Err(response) => Err(response),
    };
    record.identity = cx.identity;
    let next = match next {
        Ok(next) => next,
        Err(mut response) => {
            pages::put(local, &cx, &down.request, &record, &mut response).await;
            respond(shard, client, down, &mut cx, &mut record, &response).await
        }
    };
    // 8 finish
    down.plugin_fields = std::mem::take(&mut cx.response_fields);
    down.plugin_fields.clear();
    drop(active);
    finish(shard, local, down, &record);
    downstream::relax(down);
    next
}

/// Phases 2 to 4: whether the request is served, and what is asked for it.
async fn decide<'a>(
    shard: &Rc<Shard>,
    local: &'a Rc<Local>,
    client: &mut Client<'_>,
    down: &mut Downstream,
    cx: &mut Cx<'a>,
    record: &mut Record,
) -> Result<Plan<'a>, Box<Response>> {
    let snapshot = &*local.snapshot;
    let listener = admit::greet(local, down, cx);
    // 2 admit
    let admitted = admit::admit(shard, local, client, down, record);
    // 3 route
    let routed = admitted.and_then(|admitted| {
        (cx.body, cx.expects_continue) = (admitted.framing, admitted.expects_continue);
        Ok((admitted, admit::route(local, listener, down, record.client, cx)?))
    });
    let (mut admitted, (route, matched_len)) = match routed {
        Ok(routed) => routed,
        // A request that goes nowhere is not for nothing.
        Err(answer) => return admit::charge_source(shard, local, down, None, cx.now_ns).and(Err(answer)),
    };
    record.route = Some(route);
    let chosen = &snapshot.routes[route.index()];
    record.response_write = chosen.times.response_write;
    record.limit = plan::limit(record, chosen);
    (cx.route, cx.route_name) = (route, &chosen.name);
    cx.service = chosen.service;
    cx.service_name = chosen.service.map(|service| &*snapshot.services[service.index()].name);
    admit::charge(shard, local, down, chosen, &admitted, cx.now_ns)?;
    // 4 request plugins
    let mut taking = Taking {
        client,
        admitted: &mut admitted,
        record,
        route: chosen,
        room: chosen.buffered_body,
        least: chosen.least,
        body: None,
    };
    plugins::on_request(shard, local, &chosen.chain, cx, down, &mut taking).await?;
    if chosen.buffers_request || taking.is_worth_keeping(&down.request) {
        // Boxed: most requests have no body, or all of it came with the head.
        Box::pin(taking.take(cx, down)).await?;
    }
    taking.finish(cx, down);
    if chosen.strip_path && !cx.rewritten.path {
        forward::add_prefix(&mut down.request, matched_len);
    }
    let Some(plan) = Plan::new(local, down, chosen, cx, matched_len, admitted, record) else {
        return Err(refuse::response(503, Reason::NoHealthyTarget));
    };
    forward::add_provenance(down, cx.client, &record.request_id, &snapshot.config);
    if !cx.copies.is_empty() {
        mirror::launch(shard, cx, down, client, &plan);
    }
    Ok(plan)
}

/// Phase 5: attempts until one has a response, and then phases 6 and 7 with it.
async fn forward(
    shard: &Rc<Shard>,
    local: &Rc<Local>,
    client: &mut Client<'_>,
    down: &mut Downstream,
    cx: &mut Cx<'_>,
    record: &mut Record,
    plan: &Plan<'_>,
) -> Result<Next, Box<Response>> {
    let mut attempts = attempt::Attempts::new(plan, cx, &down.request, shard);
    let expiry = Expiry::new(plan.limit, client.lookout(), cx.now_ns);
    // One reading of the clock serves until something was waited for, unless targets are judged by their times.
    let mut now_ns = if plan.local_service.upstream.is_timed() { clock::now_ns() } else { cx.now_ns };
    loop {
        let Some(target) = attempts.pick(now_ns) else {
            return Err(attempts.give_up());
        };
        record.attempts += 1;
        record.target = target.address();
        plan.address(&mut down.request, &target);
        let connected = attempts.acquire(shard, &target, record, now_ns).await;
        let failure = match connected.and_then(|connected| Channel::open(connected, plan, client, down)) {
            Err(failure) => failure,
            Ok(mut channel) => {
                let stage =
                    Stage { shard, local, plan, expiry: &expiry, attempts: &attempts, target: &target };
                match carry(stage, client, down, cx, record, &mut channel).await {
                    Ok(carried) => {
                        let answered_ns = record.first_byte_ns.unwrap_or(now_ns);
                        attempts.answered(&target, record.upstream_status, answered_ns);
                        if let Some(answer) = carried.replaced {
                            channel.close(target.pool(), false, answered_ns);
                            return Err(answer);
                        }
                        client.consume(plan.in_hand.unwrap_or(0));
                        if carried.upgraded {
                            drop(expiry);
                            // Boxed: connections that never become tunnels need no room for one.
                            let idle = plan.times.tunnel_idle;
                            let run = tunnel::run(shard, client, down, record, &mut channel, idle);
                            let next = Box::pin(run).await;
                            channel.close(target.pool(), false, answered_ns);
                            return Ok(next);
                        }
                        channel.close(target.pool(), carried.reusable, answered_ns);
                        return Ok(carried.next);
                    }
                    Err(failure) => {
                        let failure = channel.blame(failure);
                        record.body_touched |= failure.body_touched;
                        channel.close(target.pool(), false, now_ns);
                        failure
                    }
                }
            }
        };
        shard.metrics.upstream_errors.inc();
        now_ns = clock::now_ns();
        if !attempts.again(&target, failure, now_ns) || !attempts.rest(&expiry).await {
            return Err(attempts.give_up());
        }
        now_ns = clock::now_ns();
        shard.metrics.upstream_retries.inc();
    }
}

/// Sends an answer of ours.
async fn respond(
    shard: &Rc<Shard>,
    client: &mut Client<'_>,
    down: &mut Downstream,
    cx: &mut Cx<'_>,
    record: &mut Record,
    response: &Response,
) -> Next {
    record.status = response.status;
    record.reason = response.reason;
    if record.call.is_some() {
        // What a call is told is its `grpc-status`.
        (record.status, record.verdict) = (200, Some(response.status));
    }
    let keep = admit::may_keep(shard, client, record);
    cx.response_fields.set_known(Known::XRequestId, record.request_id);
    let (fields, limit) = (Some(&cx.response_fields), record.response_write);
    let answer = refuse::OwnAnswer { response, date: &shard.date(), fields, keep };
    match refuse::send(client, down, &answer, limit, record).await {
        true if keep => Next::KeepAlive,
        true => Next::Close,
        false => Next::Reset,
    }
}
