//! Phases 2 and 3: what a request must fulfil before anybody looks at what it wants, and where it goes.

use std::net::IpAddr;

use portcullis_abi::Reason;

use super::connection::Downstream;
use super::finish::Record;
use super::shard::Shard;
use super::{forward, hops, refuse, tunnel};
use crate::http::h1::{self, BodyFraming, Expectation, HopByHop};
use crate::http::websocket::Proof;
use crate::http::{Refusal, RequestHead};
use crate::id::RouteId;
use crate::limit::Admission;
use crate::metrics::LimiterDecision;
use crate::plugin::Response;
use crate::route::{HeaderLookup, Query, Scheme, SchemeFit};
use crate::snapshot::{Local, Route};

/// What was found out about a request's own framing.
#[derive(Clone, Copy, Debug)]
pub struct Admitted {
    pub framing: BodyFraming,
    pub expects_continue: bool,
    pub hop: HopByHop,
    /// The client asks for a WebSocket; what proves that it is given one.
    pub upgrade: Option<Proof>,
}

/// Phase 2. Removes what concerns only this connection and what the client must not claim.
pub fn admit(
    shard: &Shard,
    local: &Local,
    down: &mut Downstream,
    record: &mut Record,
) -> Result<Admitted, Box<Response>> {
    let refused = |refusal: Refusal| refuse::response(refusal.status, refusal.reason);
    let framing = h1::request_framing(&down.request).map_err(|refusal| {
        record.malformed = true;
        refused(refusal)
    })?;
    let expects_continue = h1::expectation(&down.request).map_err(refused)? == Expectation::Continue;
    let version = down.request.version();
    let hop = h1::strip_hop_by_hop(&mut down.request.head);
    down.request.head.remove_known(crate::http::Known::Expect);
    let source = down.origin.speaker.ip();
    let trusted = &local.snapshot.trusted_proxies;
    forward::strip_claims(&mut down.request.head, !trusted.is_empty() && trusted.contains(source));

    let config = &local.snapshot.config;
    record.response_write = config.timeouts.response_write;
    record.in_hand = match framing {
        BodyFraming::None => Some(0),
        BodyFraming::Length(n) if n <= down.intake.unread().len() as u64 => Some(n as usize),
        _ => None,
    };
    record.request_bytes = record.in_hand.unwrap_or(0) as u64;
    record.keep_alive = h1::keep_alive(version, hop.options)
        && !shard.retiring()
        && down.exchanges < config.limits.requests_per_connection;
    if let Some(response) = hops::take_hop(&mut down.request, config.http.via_limit) {
        return Err(response);
    }
    let asked = tunnel::is_asked(&down.request, &hop, framing == BodyFraming::None);
    let upgrade = if asked { Some(tunnel::proof_for(&down.request.head)?) } else { None };
    Ok(Admitted { framing, expects_continue, hop, upgrade })
}

/// Phase 3: the route, and how many bytes of the path its prefix took.
pub fn route(local: &Local, down: &Downstream, client: IpAddr) -> Result<(RouteId, usize), Box<Response>> {
    let request = &down.request;
    let https = down.origin.https;
    let query = Query {
        host: request.host(),
        port: request.port().unwrap_or(if https { 443 } else { 80 }),
        path: request.path(),
        method: request.method_text(),
        scheme: if https { Scheme::Https } else { Scheme::Http },
        sni: down.origin.sni.as_deref().map(str::as_bytes),
        headers: request,
        query: request.query(),
        client: Some(client),
    };
    let found = local.snapshot.router.route(&query).ok_or_else(|| refuse::response(404, Reason::NoRoute))?;
    match found.scheme {
        SchemeFit::Served => Ok((found.route, found.matched_len)),
        SchemeFit::NeedsHttps => Err(redirect_to_https(&local.snapshot.routes[found.route.index()], request)),
        SchemeFit::NeedsHttp => Err(refuse::response(404, Reason::NoRoute)),
    }
}

/// Kong's `https_redirect_status_code`: 426 tells the client to upgrade, the others where to go.
fn redirect_to_https(route: &Route, request: &RequestHead) -> Box<Response> {
    let response = Response::new(route.https_redirect_status, Reason::NoRoute, "Please use HTTPS protocol");
    if route.https_redirect_status == 426 {
        return response.with_field("Connection", "Upgrade").with_field("Upgrade", "TLS/1.2, HTTP/1.1");
    }
    let host = String::from_utf8_lossy(request.host());
    let path = String::from_utf8_lossy(request.path());
    let query = request.query().map(|q| format!("?{}", String::from_utf8_lossy(q))).unwrap_or_default();
    response.with_field("Location", format!("https://{host}{path}{query}"))
}

/// What can be decided once the route is known: the size of the body, and the charge to the bucket of the source.
pub fn charge(
    shard: &Shard,
    local: &Local,
    down: &Downstream,
    route: &Route,
    admitted: &Admitted,
    now_ns: u64,
) -> Result<(), Box<Response>> {
    if matches!(admitted.framing, BodyFraming::Length(n) if n > route.body_limit) {
        return Err(refuse::response(413, Reason::BodyTooLarge));
    }
    let limiter = &local.snapshot.source_limiter;
    match limiter.admit_request(&shard.table, down.origin.source.ip(), route.cost, now_ns) {
        Admission::Trusted | Admission::Conforming { .. } => Ok(()),
        Admission::Watched { .. } => {
            shard.metrics.count_limiter(LimiterDecision::DryRun);
            Ok(())
        }
        Admission::Limited { retry_after_ns } | Admission::Banned { retry_after_ns, .. } => {
            shard.metrics.count_limiter(LimiterDecision::Limited);
            let seconds = retry_after_ns.div_ceil(1_000_000_000).max(1);
            let response = refuse::response(429, Reason::SourceLimited);
            Err(response.with_field("Retry-After", seconds.to_string()))
        }
    }
}

/// Whether the connection can go on after an answer of ours: the request's body must be out of the way.
pub fn may_keep(shard: &Shard, down: &mut Downstream, record: &Record) -> bool {
    let Some(in_hand) = record.in_hand.filter(|_| record.keep_alive && !shard.retiring()) else {
        return false;
    };
    if record.malformed || record.body_touched {
        return false;
    }
    down.intake.consume(in_hand);
    true
}

impl HeaderLookup for RequestHead {
    fn any(&self, name: &str, accept: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.head.get_all(name).any(accept)
    }
}
