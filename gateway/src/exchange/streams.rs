//! A downstream connection of HTTP/2: each request in a task that has it for itself.
//!
//! Owns the tasks, which go on to a stream of another connection when theirs is over, and what the exchanges of a connection share. The connection itself, its frames and its defence, is
//! `http::h2`'s.
//!
//! **Invariant.** A connection has no more tasks than streams, so their number is bounded by `http2.concurrent_streams`;
//! a task that panics ends its stream alone.

use std::cell::RefCell;
use std::rc::Rc;

use portcullis_abi::Reason;

use super::client::{Client, Http2, KEEP, StreamBody, StreamReply};
use super::downstream::{Downstream, Ends, Origin};
use super::shard::{OpenConnection, Shard};
use super::{exchange, refuse};
use crate::http::h1::HeadLimits;
use crate::http::h2::{Application, Incoming, Server, Times};
use crate::http::{Refusal, RequestHead, Version};
use crate::metrics::Gauge;
use crate::net::deadline::SendLimit;
use crate::net::{self, clock};
use crate::tls;

/// Sets of messages that a connection keeps for its next requests.
const SPARE: usize = 8;

/// Serves a connection until it ends. `received`: what was read of it already.
pub(super) async fn serve(
    shard: Rc<Shard>,
    stream: tls::Stream,
    received: Vec<u8>,
    ends: Ends,
    open: OpenConnection,
) {
    let local = shard.local();
    let config = &local.snapshot.config;
    let times = Times {
        head: config.timeouts.request_head,
        idle: config.timeouts.keep_alive,
        send: SendLimit { pause: config.timeouts.response_write, rate: config.limits.min_rate },
    };
    let origin = Rc::new(Origin::new(&stream, ends, Version::Http2));
    let (server, control) = Server::new(stream, received, local.snapshot.h2.clone(), times);
    drop(local);
    shard.metrics.http2_connections.inc();
    open.is_shared(control);
    let mut connection = Connection {
        shard: shard.clone(),
        origin: origin.clone(),
        open: Rc::new(open),
        spare: Rc::default(),
        next: None,
        exchanges: 0,
    };
    let ending = server.run(&mut connection).await;
    if let Some(reason) = ending.reason {
        shard.refused_source(reason, connection.origin.source.ip());
    }
    if ending.abuse {
        connection.penalize(ending.reason.unwrap_or(Reason::H2ProtocolError));
    }
}

/// Sets of messages for the next requests. Boxed: a set is moved from task to task, and each task's future holds its place
/// twice.
type Spare = Rc<RefCell<Vec<Box<Downstream>>>>;

/// What the streams of a connection share.
struct Connection {
    shard: Rc<Shard>,
    origin: Rc<Origin>,
    /// Open for as long as a stream is.
    open: Rc<OpenConnection>,
    spare: Spare,
    /// Its head is being filled.
    next: Option<Box<Downstream>>,
    exchanges: u32,
}

impl Connection {
    fn fresh(&self) -> Box<Downstream> {
        Box::new(Downstream::new(self.origin.clone()))
    }

    fn penalize(&self, reason: Reason) {
        let local = self.shard.local();
        let source = self.origin.source.ip();
        let limiter = &local.snapshot.source_limiter;
        let _ = limiter.penalize_http2(&self.shard.table, source, reason, clock::now_ns());
    }
}

impl Application for Connection {
    fn head_limits(&self) -> HeadLimits {
        self.shard.local().snapshot.head_limits
    }

    fn take_head(&mut self) -> RequestHead {
        let spare = self.spare.borrow_mut().pop();
        let mut down = spare.unwrap_or_else(|| self.fresh());
        let head = std::mem::take(&mut down.request);
        self.next = Some(down);
        head
    }

    fn request(&mut self, request: Incoming) {
        let Incoming { head, refusal, framing, protocol, body, responder } = request;
        let mut down = self.next.take().unwrap_or_else(|| self.fresh());
        self.exchanges = self.exchanges.saturating_add(1);
        (down.request, down.exchanges) = (head, self.exchanges);
        let client = Http2 {
            body: StreamBody::new(body, KEEP),
            reply: StreamReply::new(responder),
            framing,
            protocol,
        };
        let job = Job { open: self.open.clone(), spare: self.spare.clone(), client, down, refusal };
        let Some(job) = self.shard.stream_workers.give(job) else { return };
        let shard = self.shard.clone();
        net::spawn_isolated(Box::pin(work(self.shard.clone(), job)), move || {
            shard.refused(Reason::InternalError);
            tracing::error!(shard = shard.id.0, "a stream ended in a panic, which is a bug");
        });
    }

    fn taken_back(&mut self) {
        self.shard.metrics.http2_streams.inc();
        let source = self.origin.source.ip();
        self.shard.refused_source(Reason::ClientAborted, source);
        // A request all the same. Who is out of tokens is told so at one that is there to be answered.
        let local = self.shard.local();
        let _ = local.snapshot.source_limiter.admit_request(&self.shard.table, source, None, clock::now_ns());
    }

    fn malformed(&mut self, reason: Reason) {
        self.shard.refused_source(reason, self.origin.source.ip());
        self.penalize(reason);
    }
}

/// A stream to be served.
pub(super) struct Job {
    open: Rc<OpenConnection>,
    spare: Spare,
    client: Http2,
    down: Box<Downstream>,
    refusal: Option<Refusal>,
}

/// Serves one stream after the other.
async fn work(shard: Rc<Shard>, first: Job) {
    let place = Rc::default();
    let mut job = first;
    loop {
        serve_stream(&shard, job).await;
        match shard.stream_workers.next(&place).await {
            Some(next) => job = next,
            None => return,
        }
    }
}

async fn serve_stream(shard: &Rc<Shard>, job: Job) {
    let Job { open, spare, mut client, mut down, refusal } = job;
    shard.metrics.http2_streams.inc();
    let active = Active::new(&shard.metrics.http2_streams_active);
    let local = shard.local();
    if let Some(refusal) = refusal {
        refuse::malformed(shard, &local, &mut Client::Http2(&mut client), &mut down, refusal).await;
    } else {
        if client.protocol.is_none() {
            client.body.gather().await;
        }
        exchange(shard, &local, &mut Client::Http2(&mut client), &mut down).await;
    }
    // The stream is over for the client before its place is free.
    drop(client);
    drop(active);
    let mut spare = spare.borrow_mut();
    if spare.len() < SPARE {
        spare.push(down);
    }
    drop(open);
}

/// Counts a stream for as long as it is open, whatever ends it.
struct Active<'a>(&'a Gauge);

impl<'a> Active<'a> {
    fn new(gauge: &'a Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}
