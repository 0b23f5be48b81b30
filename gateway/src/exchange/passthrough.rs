//! TLS streams that are passed on unopened: routed by the server name of their first message, then bytes both ways.
//!
//! ```text
//! client ──► ClientHello, kept ──► route by SNI ──► target: PROXY header?, what was kept, ──► the rest
//! ```
//!
//! Owns one stream from its first byte to its end: by itself, by silence ([`Reason::TunnelIdle`]), or in a drain once it
//! falls silent. Never changes a byte on its way, and sees nothing of it but the server name.
//!
//! **Invariant.** Before a target is chosen at most [`HELLO_MAX`] bytes are held, for the time of a handshake at most;
//! after it, one buffer a direction.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, pending, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use portcullis_abi::Reason;
use portcullis_config::HashKey;

use super::connection::{cause_of, failed_handshake};
use super::downstream::Ends;
use super::shard::Shard;
use super::tunnel::{Notice, both};
use super::{finish, refuse};
use crate::id::RouteId;
use crate::limit::Admission as Charge;
use crate::log;
use crate::metrics::{Counter, HandshakeFailure, LimiterDecision};
use crate::net::deadline::Cutter;
use crate::net::{self, ConnectError, clock};
use crate::snapshot::{Local, Service, Times};
use crate::tls::{
    ALERT_UNRECOGNIZED_NAME, BODY_ROOM, HEAD_ROOM, HelloRead, HelloReader, looks_like_plain_http,
};
use crate::upstream::balance::{TargetIndex, Tried};
use crate::upstream::health::{Admission, Outcome};
use crate::upstream::{LocalUpstream, proxy_header};

/// Bytes in which a ClientHello must be whole. Post-quantum key shares and tickets make them some KiB.
const HELLO_MAX: usize = 32 * 1024;
/// How long the other side has once one has broken.
const LINGER: Duration = Duration::from_secs(2);
/// A stream that has been silent for so long is not waited for in a drain.
const DRAIN_SILENCE: Duration = Duration::from_secs(1);

/// Takes the streams that a route passes on, to their end. Gives back those that are to end here, with what was received
/// of them; `ends_here` says whether any are.
pub async fn take(
    shard: &Rc<Shard>,
    local: &Rc<Local>,
    mut stream: net::Stream,
    mut received: Vec<u8>,
    ends: &Ends,
    ends_here: bool,
) -> Option<(net::Stream, Vec<u8>)> {
    stream.rx.deadline.arm(local.snapshot.config.timeouts.tls_handshake);
    let (cause, reason) = match server_name(&mut stream, &mut received).await {
        Peeked::Name(name) => {
            if let Some(route) = name.as_deref().and_then(|name| local.snapshot.streams.find(name)) {
                stream.rx.deadline.disarm();
                let passed = Passed { shard, local, ends, route, sni: &name.unwrap_or_default() };
                // Boxed: connections that end here need no room for one.
                Box::pin(passed.run(stream, received)).await;
                return None;
            }
            if ends_here {
                return Some((stream, received));
            }
            say(&mut stream, ALERT_UNRECOGNIZED_NAME.to_vec()).await;
            (HandshakeFailure::UnknownName, Reason::NoPassthroughRoute)
        }
        // The handshake says what is wrong.
        Peeked::Failed(..) | Peeked::PlainHttp if ends_here => return Some((stream, received)),
        Peeked::PlainHttp => {
            refuse::plain_http_on_tls(&mut stream).await;
            (HandshakeFailure::PlainHttp, Reason::PlainHttpOnTls)
        }
        Peeked::Failed(cause, alert) => {
            say(&mut stream, alert).await;
            (cause, Reason::TlsHandshakeFailed)
        }
        Peeked::Silent => return None,
        Peeked::TimedOut => (HandshakeFailure::TimedOut, Reason::TlsHandshakeTimeout),
    };
    failed_handshake(shard, local, ends.source, cause, reason);
    None
}

/// What the first bytes of a connection are.
enum Peeked {
    /// A whole ClientHello, with its server name if it has one.
    Name(Option<Box<str>>),
    PlainHttp,
    /// No ClientHello; the alert that says so.
    Failed(HandshakeFailure, Vec<u8>),
    /// Nothing, and the other side is gone: a port scan or a health check.
    Silent,
    TimedOut,
}

/// Receives until the server name is known.
async fn server_name(stream: &mut net::Stream, received: &mut Vec<u8>) -> Peeked {
    let mut reader = HelloReader::default();
    let mut read = 0;
    loop {
        if looks_like_plain_http(received) {
            return Peeked::PlainHttp;
        }
        if read < received.len() {
            match reader.feed(&received[read..]) {
                HelloRead::Partial if received.len() < HELLO_MAX => read = received.len(),
                HelloRead::Partial => return Peeked::Failed(HandshakeFailure::NotTls, Vec::new()),
                HelloRead::Complete(hello) => return Peeked::Name(hello.sni),
                HelloRead::Broken(kind, alert) => return Peeked::Failed(cause_of(kind), alert),
            }
        }
        let room = HEAD_ROOM.min(HELLO_MAX - received.len());
        received.reserve(room);
        match stream.rx.recv(received, room).await {
            Ok(1..) => {}
            _ if stream.rx.deadline.expired() => return Peeked::TimedOut,
            _ if received.is_empty() => return Peeked::Silent,
            _ => return Peeked::Failed(HandshakeFailure::Abandoned, Vec::new()),
        }
    }
}

/// Sends an alert as the last of a connection. Nobody to tell when it fails.
async fn say(stream: &mut net::Stream, mut alert: Vec<u8>) {
    if !alert.is_empty() {
        stream.tx.deadline.arm(LINGER);
        let _ = stream.tx.send(&mut alert).await;
    }
    stream.tx.finish();
}

/// A stream whose route is known.
struct Passed<'a> {
    shard: &'a Rc<Shard>,
    local: &'a Rc<Local>,
    ends: &'a Ends,
    route: RouteId,
    sni: &'a str,
}

/// What became of one.
#[derive(Default)]
struct Told {
    reason: Option<Reason>,
    target: Option<SocketAddr>,
    attempts: u32,
    bytes: [u64; 2],
    connect_us: Option<u64>,
}

impl Passed<'_> {
    async fn run(&self, stream: net::Stream, received: Vec<u8>) {
        let started_ns = clock::now_ns();
        let mut told = Told::default();
        if self.is_admitted(started_ns) {
            match self.connect(&mut told).await {
                Ok(target) => {
                    told.connect_us = Some((clock::now_ns() - started_ns) / 1000);
                    let limiter = &self.local.snapshot.source_limiter;
                    limiter.mark_established(&self.shard.table, self.ends.source.ip(), started_ns);
                    self.relay(stream, received, target, &mut told).await;
                }
                // The client sees the connection end; there is no TLS here to say more in.
                Err(reason) => told.reason = Some(reason),
            }
        } else {
            told.reason = Some(Reason::SourceLimited);
        }
        if let Some(reason) = told.reason {
            self.shard.refused_source(reason, self.ends.source.ip());
        }
        if self.shard.logs_access() {
            self.log(started_ns, &told);
        }
    }

    /// A stream costs its source what a request does.
    fn is_admitted(&self, now_ns: u64) -> bool {
        let (snapshot, shard) = (&self.local.snapshot, self.shard);
        let cost = snapshot.routes[self.route.index()].cost;
        match snapshot.source_limiter.admit_request(&shard.table, self.ends.source.ip(), cost, now_ns) {
            Charge::Trusted | Charge::Conforming { .. } => true,
            Charge::Watched { .. } => {
                shard.metrics.count_limiter(LimiterDecision::DryRun);
                true
            }
            Charge::Limited { .. } | Charge::Banned { .. } => {
                shard.metrics.count_limiter(LimiterDecision::Limited);
                false
            }
        }
    }

    /// The time limits of the route.
    fn times(&self) -> &Times {
        &self.local.snapshot.routes[self.route.index()].times
    }

    fn service(&self) -> Option<(&Service, &LocalUpstream)> {
        let service = self.local.snapshot.routes[self.route.index()].service?;
        let upstream = &self.local.service(service).upstream;
        Some((&self.local.snapshot.services[service.index()], upstream))
    }

    /// A connection to a target, with the PROXY header sent. Nothing of the stream was sent, so any target may be tried.
    async fn connect(&self, told: &mut Told) -> Result<net::Stream, Reason> {
        let (service, upstream) = self.service().ok_or(Reason::NoPassthroughRoute)?;
        let spec = &upstream.spec;
        let hash = self.hash(&spec.hash_on).or_else(|| self.hash(&spec.hash_fallback));
        let mut tried = Tried::default();
        let mut reason = Reason::NoHealthyTarget;
        while told.attempts <= service.retry.retries {
            let now_ns = clock::now_ns();
            let Some(index) = upstream.pick(&tried, hash, now_ns) else { break };
            tried.insert(index);
            let trial = match spec.health.admit(index, now_ns, &spec.health_policy) {
                Admission::Normal => None,
                Admission::Trial(trial) => Some(trial),
                Admission::Refused => continue,
            };
            told.attempts += 1;
            let (outcome, connected) = self.try_target(service, upstream, index, told).await;
            let change = spec.health.report(index, clock::now_ns(), &spec.health_policy, trial, outcome);
            finish::health_changed(spec, &spec.targets[index.index()], change);
            match connected {
                Ok(stream) => return Ok(stream),
                Err(cause) => reason = cause,
            }
            self.shard.metrics.upstream_errors.inc();
        }
        Err(reason)
    }

    async fn try_target(
        &self,
        service: &Service,
        upstream: &LocalUpstream,
        index: TargetIndex,
        told: &mut Told,
    ) -> (Outcome, Result<net::Stream, Reason>) {
        // A target that did not resolve is never picked.
        let Some(address) = upstream.spec.targets[index.index()].address else {
            return (Outcome::Unknown, Err(Reason::NoHealthyTarget));
        };
        told.target = Some(address);
        self.shard.metrics.upstream_connects.inc();
        let mut stream = match net::connect(address, self.times().connect).await {
            Ok(stream) => stream,
            Err(ConnectError::TimedOut) => return (Outcome::Timeout, Err(Reason::ConnectTimeout)),
            Err(ConnectError::Failed(_)) => return (Outcome::TcpFailure, Err(Reason::ConnectFailed)),
        };
        let ends = self.ends;
        let mut said = ends.proxied.as_deref().cloned().unwrap_or_default();
        said.authority = Some(self.sni.into());
        let mut header = proxy_header(service.proxy_protocol, ends.speaker, ends.destination, &said);
        if !header.is_empty() {
            stream.tx.deadline.arm(self.times().upstream_write);
            if stream.tx.send(&mut header).await.is_err() {
                return (Outcome::TcpFailure, Err(Reason::ConnectFailed));
            }
        }
        // A target that takes connections is well: what it says is not for us to read.
        (Outcome::Status(200), Ok(stream))
    }

    fn hash(&self, key: &HashKey) -> Option<u64> {
        matches!(key, HashKey::Ip).then(|| {
            let address: IpAddr = self.ends.speaker.ip();
            crate::snapshot::stable_hash(&address)
        })
    }

    async fn relay(&self, client: net::Stream, received: Vec<u8>, target: net::Stream, told: &mut Told) {
        let open = self.shard.open_tunnel();
        let (mut client, mut target) = (client, target);
        let splice = Splice {
            notice: open.notice(),
            idle: self.times().tunnel_idle,
            last_ns: Cell::new(clock::now_ns()),
            failing: Cell::new(false),
            reason: Cell::new(None),
            all: [
                client.rx.deadline.cutter(),
                client.tx.deadline.cutter(),
                target.rx.deadline.cutter(),
                target.tx.deadline.cutter(),
            ],
        };
        for deadline in [&client.rx.deadline, &client.tx.deadline, &target.rx.deadline, &target.tx.deadline] {
            deadline.disarm();
        }
        let metrics = &self.shard.metrics;
        let (sent, returned) = (Cell::new(0), Cell::new(0));
        both(
            splice.way(&mut client.rx, &mut target.tx, received, &sent, &metrics.bytes_in, BLAME_UPWARD),
            splice.way(
                &mut target.rx,
                &mut client.tx,
                Vec::new(),
                &returned,
                &metrics.bytes_out,
                BLAME_DOWNWARD,
            ),
            splice.watch(),
        )
        .await;
        told.bytes = [sent.get(), returned.get()];
        told.reason = splice.reason.get();
    }

    fn log(&self, started_ns: u64, told: &Told) {
        let snapshot = &self.local.snapshot;
        let total_us = (clock::now_ns() - started_ns) / 1000;
        self.shard.write_log(&log::Record {
            unix_ms: clock::wall().as_millis() as u64,
            request_id: None,
            source: self.ends.source,
            client: self.ends.speaker.ip(),
            method: None,
            host: Some(self.sni.as_bytes()),
            path: None,
            query: None,
            status: 0,
            reason: told.reason.map(Reason::as_str),
            route: Some(&snapshot.routes[self.route.index()].name),
            service: self.service().map(|(service, _)| &*service.name),
            consumer: None,
            upstream: told.target,
            attempts: told.attempts,
            request_bytes: told.bytes[0],
            response_bytes: told.bytes[1],
            durations: log::Durations {
                total_us,
                gateway_us: told.connect_us.unwrap_or(total_us),
                connect_us: told.connect_us,
                first_byte_us: None,
            },
            user_agent: None,
            headers: &[],
            tls: Some("passthrough"),
            hop: log::Hop::default(),
            http: "",
            generation: snapshot.generation.0,
            shard: self.shard.id.0,
        });
    }
}

/// Who broke a stream, when the sender does and when the receiver does.
type Blame = (Reason, Reason);
const BLAME_UPWARD: Blame = (Reason::ClientAborted, Reason::UpstreamReset);
const BLAME_DOWNWARD: Blame = (Reason::UpstreamReset, Reason::ClientAborted);

/// What the two ways and their watch share.
struct Splice<'a> {
    notice: &'a Notice,
    idle: Duration,
    /// When bytes last moved, either way.
    last_ns: Cell<u64>,
    /// One side is broken.
    failing: Cell<bool>,
    reason: Cell<Option<Reason>>,
    all: [Cutter; 4],
}

impl Splice<'_> {
    /// Moves bytes one way until its sender ends, beginning with `buffer`.
    async fn way(
        &self,
        source: &mut net::Rx,
        sink: &mut net::Tx,
        mut buffer: Vec<u8>,
        moved: &Cell<u64>,
        counter: &Counter,
        blame: Blame,
    ) {
        let mut room = HEAD_ROOM;
        loop {
            if !buffer.is_empty() {
                let len = buffer.len() as u64;
                if sink.send(&mut buffer).await.is_err() {
                    self.broken(blame.1);
                    break;
                }
                moved.set(moved.get() + len);
                counter.add(len);
                self.last_ns.set(clock::now_ns());
            }
            if buffer.capacity() > room && room == HEAD_ROOM {
                buffer = Vec::new(); // a quiet stream holds little
            }
            buffer.reserve(room);
            match source.recv(&mut buffer, room).await {
                Ok(0) => break,
                Ok(n) => room = if n >= HEAD_ROOM { BODY_ROOM } else { HEAD_ROOM },
                Err(_) => {
                    self.broken(blame.0);
                    break;
                }
            }
            self.last_ns.set(clock::now_ns());
        }
        // An end is passed on as an end; the other way goes on.
        sink.finish();
    }

    fn broken(&self, reason: Reason) {
        if !self.failing.replace(true) && self.reason.get().is_none() {
            self.reason.set(Some(reason));
        }
    }

    /// Ends the stream when it has been silent for too long. Owns no buffer, so it may be dropped at any point.
    async fn watch(&self) -> Infallible {
        loop {
            let silence = match (self.failing.get(), self.notice.is_given()) {
                (true, _) => LINGER.min(self.idle),
                (false, true) => DRAIN_SILENCE.min(self.idle),
                (false, false) => self.idle,
            };
            let due_ns = self.last_ns.get() + silence.as_nanos() as u64;
            let now_ns = clock::now_ns();
            if now_ns >= due_ns {
                if self.reason.get().is_none() {
                    let drained = self.notice.is_given();
                    self.reason.set(Some(if drained { Reason::Draining } else { Reason::TunnelIdle }));
                }
                self.all.iter().for_each(Cutter::cut);
                return pending().await;
            }
            self.wait(Duration::from_nanos(due_ns - now_ns)).await;
        }
    }

    /// Waits, until something is said or breaks at the latest.
    async fn wait(&self, time: Duration) {
        let (told, failing) = (self.notice.is_given(), self.failing.get());
        let mut sleep = pin!(net::sleep(time));
        poll_fn(|cx| {
            let changed = self.notice.is_given() != told || self.failing.get() != failing;
            if changed || sleep.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            self.notice.wake(cx.waker());
            Poll::Pending
        })
        .await;
    }
}
