//! Phase 5: one try on one target, and whether there is another.

use std::cell::Cell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use portcullis_abi::Reason;
use portcullis_config::{HashKey, PathHandling, ProxyHeader};

use super::admit::Admitted;
use super::connection::Downstream;
use super::finish::Record;
use super::pump::Pump;
use super::refuse;
use super::relay::{Coding, Leg, RelayError};
use super::shard::Shard;
use super::tunnel;
use crate::http::h1::{
    self, BodyDecoder, BodyFraming, BodyLimits, HopByHop, Parsed, Persistence, parse_response,
    write_continue, write_request, write_response,
};
use crate::http::{Known, Method, RequestHead, ResponseHead, Version};
use crate::net::{ConnectError, clock};
use crate::plugin::chain::Chain;
use crate::plugin::{Cx, Response};
use crate::snapshot::{Local, LocalService, Route, Service, Snapshot};
use crate::tls::{BODY_ROOM, Intake, Tx};
use crate::upstream::balance::{TargetIndex, Tried};
use crate::upstream::health::{Admission, Outcome, Trial};
use crate::upstream::retry::{self, RetryDecision, Where};
use crate::upstream::{
    AcquireError, Load, LocalUpstream, Pool, Preamble, TargetSpec, UpstreamConnection, proxy_header,
};

/// Interim responses that are relayed before one exchange's final response; more is a fault of the target.
const INTERIM_MAX: u32 = 16;

/// What is to be sent, whichever target gets it.
pub struct Plan<'a> {
    pub service: &'a Service,
    pub chain: &'a Chain,
    /// What the upstream is asked with.
    pub method: Method,
    /// The client asked with HEAD: it awaits no body, whatever the upstream is asked.
    pub head_only: bool,
    /// The client allows another exchange.
    pub keep_alive: bool,
    /// The client reads trailer fields.
    pub takes_trailers: bool,
    pub response_write: Duration,
    snapshot: &'a Snapshot,
    local_service: &'a LocalService,
    framing: BodyFraming,
    /// Bytes of the body when all of it is in the receive buffer: it can be sent with the head, and again.
    pub in_hand: Option<usize>,
    expects_continue: Cell<bool>,
    body_limit: u64,
    preserve_host: bool,
    /// The connection is to become a tunnel.
    upgrade: bool,
    /// How long a tunnel may be silent.
    pub tunnel_idle: Duration,
    /// What connections to targets begin with.
    preamble: Preamble,
}

impl<'a> Plan<'a> {
    /// Decides the upstream's view of the request and puts the path into `down.request`. `None` where the route has
    /// no service.
    pub fn new(
        local: &'a Local,
        down: &mut Downstream,
        route: &'a Route,
        cx: &Cx<'_>,
        matched_len: usize,
        admitted: Admitted,
        record: &Record,
    ) -> Option<Self> {
        let snapshot = &*local.snapshot;
        let service = route.service?;
        let plan = Self {
            service: &snapshot.services[service.index()],
            chain: &route.chain,
            method: down.request.upstream_method(),
            head_only: down.request.method() == Method::Head,
            keep_alive: record.keep_alive,
            takes_trailers: admitted.hop.te_trailers,
            response_write: record.response_write,
            snapshot,
            local_service: local.service(service),
            framing: admitted.framing,
            in_hand: record.in_hand.filter(|_| !matches!(admitted.framing, BodyFraming::Chunked)),
            expects_continue: Cell::new(admitted.expects_continue),
            body_limit: cx.body_limit.map_or(route.body_limit, |limit| limit.min(route.body_limit)),
            preserve_host: route.preserve_host || cx.rewritten.host,
            upgrade: admitted.upgrade && down.request.upstream_method() == Method::Get,
            tunnel_idle: snapshot.config.timeouts.tunnel_idle,
            preamble: preamble(&snapshot.services[service.index()], down, cx),
        };
        if plan.upgrade {
            tunnel::ask(&mut down.request.head);
        }
        if !cx.rewritten.path {
            let strip = if route.strip_path { matched_len } else { 0 };
            set_path(&mut down.request, plan.service.path.as_deref(), strip, route.path_handling);
        }
        if plan.framing == BodyFraming::Chunked {
            h1::set_framing(&mut down.request.head, BodyFraming::Chunked);
        }
        Some(plan)
    }

    /// Puts the request for `target` into `down.upstream_out`, with the body where it is in hand.
    pub fn write_request(&self, down: &mut Downstream, target: &Target<'_>) {
        if !self.preserve_host {
            let host = self.local_service.upstream.spec.host_header.as_deref().unwrap_or(&target.spec.host);
            down.request.head.set_known(Known::Host, host);
        }
        down.upstream_out.clear();
        let persistence = if self.upgrade { Persistence::Upgrade } else { Persistence::Implied };
        write_request(&down.request, persistence, &mut down.upstream_out);
        if let Some(in_hand) = self.in_hand {
            down.upstream_out.extend_from_slice(&down.intake.unread()[..in_hand]);
        }
    }

    /// Whether the client waits for leave to send its body. True once.
    pub fn wants_continue(&self) -> bool {
        self.expects_continue.replace(false) && self.in_hand.is_none()
    }

    /// The decoder of a body that must be streamed; `None` when there is none or it is in hand.
    pub fn request_decoder(&self) -> Result<Option<BodyDecoder>, Failure> {
        if self.in_hand.is_some() {
            return Ok(None);
        }
        let limits = BodyLimits { payload: self.body_limit };
        BodyDecoder::request(self.framing, limits).map(Some).map_err(Failure::client)
    }

    /// How the request body travels. Its trailers are dropped: nothing says that the target wants them.
    pub fn request_leg(&self) -> Leg {
        Leg {
            coding: if self.framing == BodyFraming::Chunked { Coding::Chunked } else { Coding::Identity },
            trailers: false,
            receive_idle: self.snapshot.config.timeouts.request_body_idle,
            send: self.service.write_timeout,
        }
    }
}

/// The PROXY header of connections to the targets of `service`, and whose they are then.
fn preamble(service: &Service, down: &Downstream, cx: &Cx<'_>) -> Preamble {
    if service.proxy_protocol == ProxyHeader::Off {
        return Preamble::default();
    }
    let origin = &down.origin;
    // Of a client that a field names, no port is known.
    let port = if cx.client == origin.speaker.ip() { origin.speaker.port() } else { 0 };
    let client = SocketAddr::new(cx.client, port);
    let header = proxy_header(service.proxy_protocol, client, origin.destination, origin.sni.as_deref());
    Preamble { header, owner: Some(client) }
}

/// Joins service path and request path as Kong does, after taking `strip` bytes off the request path.
fn set_path(request: &mut RequestHead, service: Option<&[u8]>, strip: usize, handling: PathHandling) {
    if service.is_none() && handling == PathHandling::V0 {
        // The prefix "/" leaves everything, and what follows a prefix mostly begins with its slash.
        match strip {
            0 | 1 => return,
            _ if request.path().get(strip) == Some(&b'/') => return request.strip_path_prefix(strip),
            _ => {}
        }
    }
    let path = request.path().to_vec();
    let mut joined = Vec::with_capacity(path.len() + 16);
    match handling {
        PathHandling::V0 => {
            crate::route::upstream_path(service.unwrap_or(b"/"), &path, strip, strip > 0, &mut joined);
        }
        PathHandling::V1 => {
            crate::route::upstream_path_v1(service.unwrap_or(b"/"), &path, strip, strip > 0, &mut joined);
        }
    }
    request.set_path(&joined);
}

/// A target that an attempt goes to.
pub struct Target<'a> {
    index: TargetIndex,
    spec: &'a TargetSpec,
    pool: &'a Rc<Pool>,
    trial: Cell<Option<Trial>>,
    /// Counts the attempt for balancers that go by load.
    _load: Load<'a>,
}

impl Target<'_> {
    pub fn address(&self) -> Option<SocketAddr> {
        self.spec.address
    }

    pub fn pool(&self) -> &Pool {
        self.pool
    }
}

/// The attempts of one exchange.
pub struct Attempts<'a> {
    upstream: &'a LocalUpstream,
    service: &'a LocalService,
    policy: retry::Policy,
    connect_timeout: Duration,
    preamble: Preamble,
    idempotent: bool,
    replayable: bool,
    hash: Option<u64>,
    tried: Tried,
    retries_made: u32,
    /// The last connection was stale: the same target, on a new one.
    stale: Option<TargetIndex>,
    last: Option<Failure>,
}

impl<'a> Attempts<'a> {
    /// No attempt made yet.
    pub fn new(plan: &Plan<'a>, cx: &Cx<'_>, request: &RequestHead) -> Self {
        let service = plan.local_service;
        let upstream = &*service.upstream;
        upstream.budget.borrow_mut().earn();
        let hash = hash_of(&upstream.spec.hash_on, cx, request)
            .or_else(|| hash_of(&upstream.spec.hash_fallback, cx, request));
        Self {
            upstream,
            service,
            policy: retry::Policy { retries: plan.service.retries, ..retry::Policy::default() },
            connect_timeout: plan.service.connect_timeout,
            preamble: plan.preamble.clone(),
            idempotent: plan.method.is_idempotent(),
            replayable: plan.in_hand.is_some(),
            hash,
            tried: Tried::default(),
            retries_made: 0,
            stale: None,
            last: None,
        }
    }

    /// The target of the next attempt; `None` when there is none.
    pub fn pick(&mut self, now_ns: u64) -> Option<Target<'a>> {
        let spec = &self.upstream.spec;
        if let Some(index) = self.stale.take() {
            return Some(self.target(index, None));
        }
        loop {
            let mut picked = self.upstream.pick(&self.tried, self.hash, now_ns);
            if picked.is_none() && self.last.is_some() {
                // Everybody was tried, and there is leave to try again.
                picked = self.upstream.pick(&Tried::default(), self.hash, now_ns);
            }
            let index = picked?;
            match spec.health.admit(index, now_ns, &spec.health_policy) {
                Admission::Normal => return Some(self.target(index, None)),
                Admission::Trial(trial) => return Some(self.target(index, Some(trial))),
                Admission::Refused if self.tried.contains(index) => return None,
                Admission::Refused => self.tried.insert(index),
            }
        }
    }

    fn target(&self, index: TargetIndex, trial: Option<Trial>) -> Target<'a> {
        Target {
            index,
            spec: &self.upstream.spec.targets[index.index()],
            pool: &self.service.pools[index.index()],
            trial: Cell::new(trial),
            _load: self.upstream.begin(index),
        }
    }

    /// A connection to the target: a kept one, unless the last kept one was stale, or a new one.
    pub async fn acquire(
        &self,
        shard: &Shard,
        target: &Target<'_>,
        record: &mut Record,
        now_ns: u64,
    ) -> Result<UpstreamConnection, Failure> {
        record.sent_ns = Some(now_ns);
        let stale = matches!(self.last, Some(Failure { reused: true, kind: retry::Failure::Reset, .. }));
        if !stale && let Some(connection) = target.pool.reuse(now_ns, self.preamble.owner) {
            shard.metrics.upstream_reuses.inc();
            return Ok(connection);
        }
        shard.metrics.upstream_connects.inc();
        let connection = target.pool.connect(self.connect_timeout, self.preamble.clone());
        let connection = connection.await.map_err(Failure::connect)?;
        record.connected_ns = Some(clock::now_ns());
        Ok(connection)
    }

    /// Takes note of a response whose connection is in use for long.
    pub fn answered(&self, target: &Target<'_>, status: u16, now_ns: u64) {
        self.report(target, Outcome::Status(status), now_ns);
    }

    /// Takes note of a response, and keeps the connection if it can be used again.
    pub fn succeeded(
        &self,
        target: &Target<'_>,
        status: u16,
        connection: UpstreamConnection,
        reusable: bool,
        now_ns: u64,
    ) {
        self.report(target, Outcome::Status(status), now_ns);
        if reusable {
            target.pool.keep(connection, now_ns);
        } else {
            target.pool.discard(connection);
        }
    }

    /// Whether a failed attempt is followed by another.
    pub fn again(&mut self, target: &Target<'_>, failure: Failure, now_ns: u64) -> bool {
        let stale = failure.reused && failure.kind == retry::Failure::Reset;
        let outcome = match failure.kind {
            _ if stale => Outcome::Unknown,
            retry::Failure::Connect | retry::Failure::Reset | retry::Failure::BadResponse => {
                Outcome::TcpFailure
            }
            retry::Failure::ConnectTimeout | retry::Failure::ResponseTimeout => Outcome::Timeout,
            retry::Failure::Status(status) => Outcome::Status(status),
            retry::Failure::ClientGone => Outcome::Unknown,
        };
        self.report(target, outcome, now_ns);
        let attempt = retry::Attempt {
            failure: failure.kind,
            bytes_sent: u64::from(failure.sent),
            reused_connection: failure.reused,
            response_started: false,
            idempotent: self.idempotent,
            body_replayable: self.replayable || !failure.body_touched,
            retries_made: self.retries_made,
        };
        let decision = retry::decide(&attempt, &self.policy, &mut self.upstream.budget.borrow_mut(), now_ns);
        self.last = Some(failure);
        match decision {
            RetryDecision::Stop(_) => return false,
            RetryDecision::Retry(Where::Anywhere) => self.stale = Some(target.index),
            RetryDecision::Retry(Where::AnotherTarget) => {
                self.retries_made += 1;
                self.tried.insert(target.index);
            }
        }
        true
    }

    fn report(&self, target: &Target<'_>, outcome: Outcome, now_ns: u64) {
        let spec = &self.upstream.spec;
        let change =
            spec.health.report(target.index, now_ns, &spec.health_policy, target.trial.take(), outcome);
        super::finish::health_changed(spec, target.spec, change);
    }

    /// The answer when there is no further attempt: the last failure's, or that nobody could be asked.
    pub fn give_up(&self) -> Box<Response> {
        match &self.last {
            Some(failure) => refuse::response(failure.status, failure.reason),
            None => refuse::response(503, Reason::NoHealthyTarget),
        }
    }
}

/// What consistent hashing goes by; `None` when the request does not have it.
fn hash_of(key: &HashKey, cx: &Cx<'_>, request: &RequestHead) -> Option<u64> {
    let mut hasher = DefaultHasher::new(); // fixed keys: the same on every shard and node
    match key {
        HashKey::None | HashKey::UriCapture(_) => return None,
        HashKey::Consumer => cx.consumers.consumer(cx.identity.consumer?).id.hash(&mut hasher),
        HashKey::Ip => cx.client.hash(&mut hasher),
        HashKey::Header(name) => request.head.get(name)?.hash(&mut hasher),
        HashKey::Cookie { name, .. } => {
            cookie(request.head.get_known(Known::Cookie)?, name)?.hash(&mut hasher)
        }
        HashKey::Path => request.path().hash(&mut hasher),
        HashKey::QueryArgument(name) => query_argument(request.query()?, name)?.hash(&mut hasher),
    }
    Some(hasher.finish())
}

fn cookie<'h>(field: &'h [u8], name: &str) -> Option<&'h [u8]> {
    field
        .split(|&b| b == b';')
        .find_map(|pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

fn query_argument<'q>(query: &'q [u8], name: &str) -> Option<&'q [u8]> {
    query.split(|&b| b == b'&').find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

/// Why an attempt has no response, and what the client is told if it was the last.
#[derive(Clone, Copy, Debug)]
pub struct Failure {
    pub kind: retry::Failure,
    pub reason: Reason,
    pub status: u16,
    /// Bytes of the request may have reached the target.
    pub sent: bool,
    /// The connection had served a request before.
    pub reused: bool,
    /// Some of the request body was taken from the client and is gone.
    pub body_touched: bool,
}

impl Failure {
    const fn new(kind: retry::Failure, reason: Reason, status: u16) -> Self {
        Self { kind, reason, status, sent: true, reused: false, body_touched: false }
    }

    fn connect(error: AcquireError) -> Self {
        let failure = match error {
            AcquireError::Connect(ConnectError::TimedOut) => {
                Self::new(retry::Failure::ConnectTimeout, Reason::ConnectTimeout, 504)
            }
            _ => Self::new(retry::Failure::Connect, Reason::ConnectFailed, 502),
        };
        Self { sent: false, ..failure }
    }

    /// Sending broke off.
    pub fn send(_error: std::io::Error) -> Self {
        Self::new(retry::Failure::Reset, Reason::UpstreamReset, 502)
    }

    /// The client's body is at fault.
    pub fn client(refusal: crate::http::Refusal) -> Self {
        Self::new(retry::Failure::ClientGone, refusal.reason, refusal.status)
    }

    fn client_gone() -> Self {
        Self::new(retry::Failure::ClientGone, Reason::ClientAborted, 499)
    }

    fn bad_response(reason: Reason) -> Self {
        Self::new(retry::Failure::BadResponse, reason, 502)
    }

    /// Adds what the body's own way says: a client that broke off explains an upstream that did.
    pub fn with_pump(self, pump: &Pump<'_>) -> Self {
        match pump {
            Pump::Done(Err(RelayError::SourceClosed)) => Self::client_gone(),
            Pump::Done(Err(RelayError::SourceTimedOut)) if self.kind != retry::Failure::ResponseTimeout => {
                Self::new(retry::Failure::ClientGone, Reason::BodyTimeout, 408)
            }
            Pump::Done(Err(RelayError::Refused(refusal))) => Self::client(*refusal),
            _ => self,
        }
    }

    /// Adds whether the connection was a kept one.
    pub fn on(self, connection: &UpstreamConnection) -> Self {
        Self { reused: connection.requests > 1, ..self }
    }
}

/// Gives a client that waits for it leave to send its body.
pub async fn send_continue(down: &mut Downstream) -> Result<(), Failure> {
    write_continue(&mut down.out);
    down.tx.deadline().arm(Duration::from_secs(10));
    let sent = down.tx.send(&mut down.out).await;
    sent.map_err(|_| Failure { sent: false, ..Failure::client_gone() })
}

/// Receives the head of the final response, relaying interim ones, and decides its framing. The caller arms the limit.
pub async fn receive_response(
    intake: &mut Intake,
    response: &mut ResponseHead,
    plan: &Plan<'_>,
    version: Version,
    down_tx: &mut Tx,
    out: &mut Vec<u8>,
) -> Result<BodyFraming, Failure> {
    let limits = &plan.snapshot.response_head_limits;
    response.clear();
    let mut interim = 0;
    loop {
        if !intake.is_empty() {
            match parse_response(intake.unread(), limits, response) {
                Ok(Parsed::Partial) => {}
                Err(_) => return Err(Failure::bad_response(Reason::UpstreamBadResponse)),
                Ok(Parsed::Complete { head_len }) => {
                    intake.consume(head_len);
                    let switches = response.status() == 101 && plan.upgrade && tunnel::is_granted(response);
                    if !response.is_interim() || switches {
                        intake.rx.deadline().disarm();
                        let framing = h1::response_framing(response, plan.method);
                        return framing.map_err(|_| Failure::bad_response(Reason::UpstreamBadResponse));
                    }
                    interim += 1;
                    if interim > INTERIM_MAX || response.status() == 101 {
                        return Err(Failure::bad_response(Reason::UpstreamProtocolError));
                    }
                    relay_interim(response, plan, version, down_tx, out).await?;
                    response.clear();
                    continue;
                }
            }
        }
        // Room for a whole small body behind the head, so that both leave in one send.
        match intake.receive(BODY_ROOM.max(limits.head + 1)).await {
            Ok(1..) => {}
            _ if intake.rx.deadline().expired() => {
                return Err(Failure::new(retry::Failure::ResponseTimeout, Reason::UpstreamTimeout, 504));
            }
            _ => return Err(Failure::new(retry::Failure::Reset, Reason::UpstreamReset, 502)),
        }
    }
}

/// 100 is between us and the target (we gave our own leave); the others are for the client, if it knows of them.
async fn relay_interim(
    response: &mut ResponseHead,
    plan: &Plan<'_>,
    version: Version,
    down_tx: &mut Tx,
    out: &mut Vec<u8>,
) -> Result<(), Failure> {
    if response.status() == 100 || version == Version::Http10 {
        return Ok(());
    }
    h1::strip_hop_by_hop(&mut response.head);
    write_response(response, Persistence::Implied, out);
    down_tx.deadline().arm(plan.response_write);
    down_tx.send(out).await.map_err(|_| Failure::client_gone())
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
