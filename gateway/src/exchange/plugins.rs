//! Phases 4 and 6: runs the chain of the route.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

use portcullis_abi::Reason;

use super::downstream::Downstream;
use super::expiry::Limit;
use super::refuse;
use super::shard::Shard;
use super::whole::Taking;
use crate::http::coding::Encoder;
use crate::http::h1::BodyFraming;
use crate::http::{Known, RequestHead, ResponseHead};
use crate::limit::Behaviour;
use crate::net::{self, clock};
use crate::plugin::chain::Chain;
use crate::plugin::{Cx, Flow, Response, Resume};
use crate::snapshot::Local;

/// Turns that one plugin may wait before it must answer: a bound, not a feature.
const WAITS_MAX: usize = 4;

/// Phase 4: request plugins in order, until one answers. A plugin that wants the body sees it before the next one sees
/// the request.
pub async fn on_request(
    shard: &Shard,
    local: &Local,
    chain: &Chain,
    cx: &mut Cx<'_>,
    down: &mut Downstream,
    taking: &mut Taking<'_, '_>,
) -> Result<(), Box<Response>> {
    for step in 0..chain.len() {
        // The consumer may have become known in the step before.
        let Some(index) = chain.at(step, cx.identity.consumer) else { continue };
        let plugin = &local.plugins[index.0 as usize];
        let flow = plugin.on_request(cx, &mut down.request);
        settle(shard, local, flow, cx, &mut down.request, taking.record.limit).await?;
        if plugin.wants_request_body(cx, &down.request) {
            // Boxed: exchanges whose bodies pass by need no room for it.
            Box::pin(taking.take(cx, down)).await?;
            let body = taking.body.get_or_insert_default();
            let flow = plugin.on_request_body(cx, &mut down.request, body);
            settle(shard, local, flow, cx, &mut down.request, taking.record.limit).await?;
        }
    }
    Ok(())
}

/// Awaits what a plugin waits for, until it has decided or the time of the exchange is over.
async fn settle(
    shard: &Shard,
    local: &Local,
    mut flow: Flow,
    cx: &mut Cx<'_>,
    request: &mut RequestHead,
    limit: Option<Limit>,
) -> Result<(), Box<Response>> {
    let mut waits = 0;
    loop {
        if let Some(decision) = cx.limiter.take() {
            shard.metrics.count_limiter(decision);
        }
        let points = std::mem::take(&mut cx.points);
        if points > 0 {
            let limiter = &local.snapshot.source_limiter;
            // A ban that comes of it is in the table; whoever closes the source's connections finds it there.
            let _ = limiter.penalize_by(&shard.table, cx.source, Behaviour::Plugin, points, cx.now_ns);
        }
        if std::mem::take(&mut cx.limited_alone) {
            shard.metrics.limited_alone.inc();
        }
        match flow {
            Flow::Continue => return Ok(()),
            Flow::Respond(response) => return Err(response),
            Flow::Wait(_) if waits == WAITS_MAX => {
                shard.refused(Reason::InternalError);
                return Err(refuse::response(500, Reason::InternalError));
            }
            Flow::Wait(answer) => {
                waits += 1;
                let resume = match limit {
                    None => answer.await,
                    Some(limit) => in_time(answer, limit).await?,
                };
                flow = resume(cx, request);
            }
        }
    }
}

/// Awaits `answer` until `limit`. What is not there by then goes on by itself, within the plugin's own limits: others may
/// wait for it, and operations on sockets are awaited to their end.
async fn in_time(
    mut answer: Pin<Box<dyn Future<Output = Resume>>>,
    limit: Limit,
) -> Result<Resume, Box<Response>> {
    let mut late = pin!(net::sleep(limit.left(clock::now_ns())));
    let resume = poll_fn(|cx| match answer.as_mut().poll(cx) {
        Poll::Ready(resume) => Poll::Ready(Some(resume)),
        Poll::Pending => late.as_mut().poll(cx).map(|()| None),
    })
    .await;
    resume.ok_or_else(|| {
        net::spawn(async move { drop(answer.await) });
        refuse::response(504, limit.reason)
    })
}

/// Phase 6: response plugins in reverse.
pub fn on_response(local: &Local, chain: &Chain, cx: &mut Cx<'_>, response: &mut ResponseHead) {
    for step in (0..chain.len()).rev() {
        if let Some(index) = chain.at(step, cx.identity.consumer) {
            local.plugins[index.0 as usize].on_response(cx, response);
        }
    }
}

/// Adds what request plugins have to say to the client, in place of what the upstream says under the same names. What
/// a response varies by adds up.
pub fn merge_fields(response: &mut ResponseHead, cx: &Cx<'_>) {
    for (known, name, _) in cx.response_fields.iter() {
        match known {
            Known::Vary => 0,
            Known::Other => response.head.remove(name),
            known => response.head.remove_known(known),
        };
    }
    response.head.append_head(&cx.response_fields);
}

/// Names the exchange to the client, unless the upstream did.
pub fn add_request_id(response: &mut ResponseHead, request_id: &[u8]) {
    if response.head.get_known(Known::XRequestId).is_none() {
        response.head.append_known(Known::XRequestId, request_id);
    }
}

/// The encoder that the response goes through, if a plugin has one for it.
pub fn encoder(
    local: &Local,
    chain: &Chain,
    cx: &Cx<'_>,
    response: &mut ResponseHead,
    framing: BodyFraming,
) -> Option<Box<Encoder>> {
    let mut plugins = (0..chain.len()).filter_map(|step| chain.at(step, cx.identity.consumer));
    plugins.find_map(|index| local.plugins[index.0 as usize].encoder(cx, response, framing))
}

/// Whether some plugin is to see the body of this response.
pub fn wants_response_body(local: &Local, chain: &Chain, cx: &Cx<'_>, response: &ResponseHead) -> bool {
    let plugins = (0..chain.len()).filter_map(|step| chain.at(step, cx.identity.consumer));
    plugins.into_iter().any(|index| local.plugins[index.0 as usize].wants_response_body(cx, response))
}

/// Response bodies, in the same order as responses. An error is why there is no response.
pub fn on_response_body(
    local: &Local,
    chain: &Chain,
    cx: &mut Cx<'_>,
    response: &mut ResponseHead,
    body: &mut Vec<u8>,
) -> Result<(), Reason> {
    for step in (0..chain.len()).rev() {
        let Some(index) = chain.at(step, cx.identity.consumer) else { continue };
        let plugin = &local.plugins[index.0 as usize];
        if plugin.wants_response_body(cx, response) {
            let done = plugin.on_response_body(cx, response, body);
            done.map_err(|answer| answer.reason.unwrap_or(Reason::InvalidBody))?;
        }
    }
    Ok(())
}
