//! Phase 8: what an exchange leaves behind in counters, in the bucket of its source, and in the access log.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use portcullis_abi::Reason;

use super::downstream::{Downstream, Origin};
use super::expiry::Limit;
use super::shard::Shard;
use crate::http::grpc::Call;
use crate::http::{Known, Version};
use crate::id::RouteId;
use crate::limit::{Behaviour, source_key};
use crate::log;
use crate::metrics::Refusal;
use crate::net::clock;
use crate::plugin::Identity;
use crate::snapshot::Local;
use crate::upstream::balance::TargetIndex;
use crate::upstream::{TargetSpec, UpstreamSpec, breaker, health};

/// Facts about an exchange, collected on its way.
pub struct Record {
    pub started_ns: u64,
    /// The client's address, behind trusted proxies.
    pub client: IpAddr,
    pub request_id: [u8; 32],
    pub route: Option<RouteId>,
    pub identity: Identity,
    /// Sent downstream; 0 when nothing was.
    pub status: u16,
    /// Received from the upstream; 0 when nothing was.
    pub upstream_status: u16,
    pub reason: Option<Reason>,
    /// The request is a gRPC call.
    pub call: Option<Call>,
    /// The status that an answer of ours stands for, where it was given as another.
    pub verdict: Option<u16>,
    pub attempts: u32,
    pub target: Option<SocketAddr>,
    pub connected_ns: Option<u64>,
    pub sent_ns: Option<u64>,
    pub first_byte_ns: Option<u64>,
    /// Of the request body.
    pub request_bytes: u64,
    /// Of the response head.
    pub head_bytes: u64,
    /// Of the response body.
    pub response_bytes: u64,
    /// Bytes of the request body, when all of it arrived with the head.
    pub in_hand: Option<usize>,
    /// Some of the body was consumed.
    pub body_touched: bool,
    /// Version and Connection field allow another exchange.
    pub keep_alive: bool,
    /// The message could be read in two ways; nothing more is read from this connection.
    pub malformed: bool,
    pub response_write: Duration,
    /// When the exchange is to be over, once the route is known.
    pub limit: Option<Limit>,
    /// When the exchange became a tunnel. Its bytes are counted as they pass then.
    pub tunnel_ns: Option<u64>,
}

impl Record {
    /// The record of an exchange that begins.
    pub fn new(shard: &Shard, started_ns: u64, client: IpAddr) -> Self {
        Self {
            started_ns,
            client,
            request_id: shard.next_request_id(),
            route: None,
            identity: Identity::default(),
            status: 0,
            upstream_status: 0,
            reason: None,
            call: None,
            verdict: None,
            attempts: 0,
            target: None,
            connected_ns: None,
            sent_ns: None,
            first_byte_ns: None,
            request_bytes: 0,
            head_bytes: 0,
            response_bytes: 0,
            in_hand: None,
            body_touched: false,
            keep_alive: false,
            malformed: false,
            response_write: Duration::from_secs(30),
            limit: None,
            tunnel_ns: None,
        }
    }

    /// From the request to the last byte of its answer. How long a tunnel was open says nothing about latency.
    fn answered_after_ns(&self, now_ns: u64) -> u64 {
        self.tunnel_ns.unwrap_or(now_ns).saturating_sub(self.started_ns)
    }

    fn upstream_ns(&self) -> Option<u64> {
        Some(self.first_byte_ns?.saturating_sub(self.sent_ns?))
    }
}

/// Counts an exchange, charges its source for what it did, and logs it.
pub fn finish(shard: &Shard, local: &Local, down: &Downstream, record: &Record) {
    let now_ns = clock::now_ns();
    let total_ns = record.answered_after_ns(now_ns);
    let upstream_ns = record.upstream_ns();
    let metrics = &shard.metrics;
    metrics.count_request(record.status);
    metrics.bytes_out.add(record.head_bytes);
    if record.tunnel_ns.is_none() {
        metrics.bytes_in.add(record.request_bytes);
        metrics.bytes_out.add(record.response_bytes);
    }
    metrics.gateway_latency.record(total_ns.saturating_sub(upstream_ns.unwrap_or(0)));
    metrics.sources.count(source_key(record.client), record.reason.is_some());
    if let Some(reason) = record.reason {
        metrics.count_reason(reason);
        metrics.refusals.note(&Refusal {
            at_ns: now_ns,
            client: record.client,
            reason,
            status: record.status,
            route: record.route.map(|route| local.snapshot.routes[route.index()].series.number()),
        });
    }
    if let Some(route) = record.route {
        local.route_metrics(route).record(record.status, total_ns, upstream_ns);
    }
    judge(shard, local, down, record, now_ns);
    if shard.logs_access() {
        write_log(shard, local, down, record, now_ns, upstream_ns);
    }
}

/// What an exchange tells of its source. A request that the gateway refused with 401, 403 or 429, or could not read, and
/// a client that was too slow, cost it extra; a request that was served is to its credit, if a route has taken it. Answers
/// of the upstream cost nothing: what they mean is the upstream's business.
fn judge(shard: &Shard, local: &Local, down: &Downstream, record: &Record, now_ns: u64) {
    let (limiter, source) = (&local.snapshot.source_limiter, down.origin.source.ip());
    let behaviour = match record.reason {
        Some(Reason::SourceLimited | Reason::SourceBanned) => return,
        Some(reason) if Behaviour::of_reason(reason).is_some() => Behaviour::of_reason(reason),
        _ if record.upstream_status != 0 => None,
        _ if record.malformed => Some(Behaviour::Malformed),
        _ => Behaviour::of_status(record.verdict.unwrap_or(record.status)),
    };
    if let Some(behaviour) = behaviour {
        // A ban that comes of it is in the table; whoever closes the source's connections finds it there.
        let _ = limiter.penalize(&shard.table, source, behaviour, now_ns);
    } else if record.verdict.unwrap_or(record.status) < 400 && record.route.is_some() {
        if let Some(credential) = record.identity.credential {
            // The same number as long as the configuration names the same credentials; a reload that does not may have
            // one pay for another's addresses.
            limiter.mark_authenticated(&shard.table, source, credential.0.into(), now_ns);
        } else {
            limiter.mark_established(&shard.table, source, now_ns);
        }
    }
}

/// Says aloud what became of a target; rare, as ejections are bounded by their length.
pub fn health_changed(upstream: &UpstreamSpec, target: &TargetSpec, change: health::Change) {
    let (upstream, target) = (&*upstream.name, &*target.name);
    match change {
        health::Change::None => {}
        health::Change::Ejected(ns) => {
            tracing::warn!(upstream, target, seconds = ns / 1_000_000_000, "target ejected after failures");
        }
        health::Change::Kept => {
            tracing::warn!(upstream, target, "target fails, but too many are ejected already");
        }
        health::Change::Restored => tracing::info!(upstream, target, "target is healthy again"),
        health::Change::ProbedDown => tracing::warn!(upstream, target, "target is down, say its probes"),
    }
}

/// Says aloud what a breaker did: that of a target, else of the upstream. Rare for the same reason.
pub fn breaker_changed(upstream: &UpstreamSpec, target: Option<TargetIndex>, change: breaker::Change) {
    let target = target.map(|index| &*upstream.targets[index.index()].name);
    let upstream = &*upstream.name;
    match change {
        breaker::Change::None => {}
        breaker::Change::Opened(ns) => {
            tracing::warn!(upstream, target, seconds = ns / 1_000_000_000, "circuit breaker opened");
        }
        breaker::Change::Closed => tracing::info!(upstream, target, "circuit breaker closed"),
    }
}

fn write_log(
    shard: &Shard,
    local: &Local,
    down: &Downstream,
    record: &Record,
    now_ns: u64,
    upstream_ns: Option<u64>,
) {
    let snapshot = &local.snapshot;
    let request = &down.request;
    let route = record.route.map(|route| &snapshot.routes[route.index()]);
    let service =
        route.and_then(|route| route.service).map(|service| &*snapshot.services[service.index()].name);
    let consumer = record.identity.consumer.map(|consumer| snapshot.consumers.consumer(consumer));
    let headers: Vec<(&str, &[u8])> = shard.logged_headers(&request.head, local);
    let between = |from: Option<u64>, to: Option<u64>| Some(to?.saturating_sub(from?) / 1000);
    shard.write_log(&log::Record {
        unix_ms: clock::wall().as_millis() as u64,
        request_id: Some(request.head.get_known(Known::XRequestId).unwrap_or(&record.request_id)),
        source: down.origin.source,
        client: record.client,
        method: (!request.method_text().is_empty()).then(|| request.method_text()),
        host: (!request.host().is_empty()).then(|| request.host()),
        path: (!request.raw_target().is_empty()).then(|| path_of(request.raw_target())),
        query: request.query(),
        status: record.status,
        reason: record.reason.map(Reason::as_str),
        route: route.map(|route| &*route.name),
        service,
        consumer: consumer.and_then(|c| c.username.as_deref().or(c.custom_id.as_deref())),
        upstream: record.target,
        attempts: record.attempts,
        request_bytes: record.request_bytes,
        response_bytes: record.response_bytes,
        durations: log::Durations {
            total_us: now_ns.saturating_sub(record.started_ns) / 1000,
            gateway_us: record.answered_after_ns(now_ns).saturating_sub(upstream_ns.unwrap_or(0)) / 1000,
            connect_us: between(Some(record.started_ns), record.connected_ns),
            first_byte_us: upstream_ns.map(|ns| ns / 1000),
        },
        user_agent: request.head.get_known(Known::UserAgent),
        headers: &headers,
        tls: down.origin.tls_version,
        hop: hop(&down.origin),
        http: match request.version() {
            Version::Http10 => "1.0",
            Version::Http11 => "1.1",
            Version::Http2 => "2",
        },
        generation: snapshot.generation.0,
        shard: shard.id.0,
    });
}

/// What is known of the client's connection beside addresses.
pub fn hop(origin: &Origin) -> log::Hop<'_> {
    let said = origin.proxied.as_deref();
    log::Hop {
        sni: origin.sni.as_deref(),
        certificate: origin.peer.as_deref().map(|peer| peer.subject.as_str()),
        proxy_id: said.and_then(|tlvs| tlvs.unique_id.as_deref()),
        proxy_authority: said.and_then(|tlvs| tlvs.authority.as_deref()),
        proxy_alpn: said.and_then(|tlvs| tlvs.alpn.as_deref()),
    }
}

/// The path as the client sent it: plugins and `strip_path` change the other one.
fn path_of(target: &[u8]) -> &[u8] {
    match target.iter().position(|&byte| byte == b'?') {
        Some(end) => &target[..end],
        None => target,
    }
}
