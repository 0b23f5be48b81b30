//! Phases 2 and 3: what a request must fulfil before anybody looks at what it wants, and where it goes.

use std::net::IpAddr;

use portcullis_abi::Reason;
use portcullis_config::{RedirectHttps, ServerHeader};

use super::client::Client;
use super::downstream::Downstream;
use super::finish::Record;
use super::shard::Shard;
use super::{forward, hops, refuse, tunnel};
use crate::http::h1::{self, BodyFraming, Expectation, HopByHop};
use crate::http::websocket::Proof;
use crate::http::{Known, Refusal, RequestHead};
use crate::id::RouteId;
use crate::limit::Admission;
use crate::metrics::LimiterDecision;
use crate::plugin::{Captures, Content, Cx, Response};
use crate::route::{HeaderLookup, Query, Scheme, SchemeFit};
use crate::snapshot::{Listener, Local, Route};

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
    client: &Client<'_>,
    down: &mut Downstream,
    record: &mut Record,
) -> Result<Admitted, Box<Response>> {
    let refused = |refusal: Refusal| refuse::response(refusal.status, refusal.reason);
    let framing = match client {
        Client::Http1(_) => h1::request_framing(&down.request).map_err(|refusal| {
            record.malformed = true;
            refused(refusal)
        })?,
        Client::Http2(client) if client.protocol.is_some() => BodyFraming::None,
        // A call is a stream, whatever is known of its length.
        Client::Http2(client) if record.call.is_some() => client.framing,
        Client::Http2(client) => client.known_framing(),
    };
    if record.call.is_some_and(|call| call.bad_timeout) {
        return Err(refuse::response(400, Reason::BadGrpcMessage));
    }
    let expects_continue = h1::expectation(&down.request).map_err(refused)? == Expectation::Continue;
    let version = down.request.version();
    shard.metrics.underscored_fields.add(down.request.underscored().into());
    let hop = h1::strip_hop_by_hop(&mut down.request.head).map_err(|_| {
        record.malformed = true;
        refuse::response(400, Reason::BadHeader)
    })?;
    down.request.head.remove_known(Known::Expect);
    let source = down.origin.speaker.ip();
    let config = &local.snapshot.config;
    let trusted = &local.snapshot.trusted_proxies;
    let trusted = !trusted.is_empty() && trusted.contains(source);
    forward::strip_claims(&mut down.request.head, trusted, &config.real_ip_header);
    record.response_write = config.timeouts.response_write;
    record.in_hand = client.in_hand(framing);
    record.request_bytes = record.in_hand.unwrap_or(0) as u64;
    record.keep_alive = h1::keep_alive(version, hop.options)
        && !shard.retiring()
        && down.exchanges < config.limits.requests_per_connection;
    if !trusted && record.call.is_none() && is_misdirected(down.request.scheme(), down.origin.https) {
        return Err(refuse::response(421, Reason::MisdirectedRequest));
    }
    if let Some(response) = hops::take_hop(&mut down.request, config.http.via_limit) {
        return Err(response);
    }
    let on_stream = client.protocol().is_some();
    if on_stream {
        tunnel::add_key(&mut down.request.head);
    }
    let asked = on_stream || tunnel::is_asked(&down.request, &hop, framing == BodyFraming::None);
    let upgrade = if asked { Some(tunnel::proof_for(&down.request.head)?) } else { None };
    Ok(Admitted { framing, expects_continue, hop, upgrade })
}

/// Whether a target names another scheme than that of the connection: `https` without TLS, or `http` with it. It would be
/// answered for another origin than was asked (RFC 9110 sections 4.2 and 7.4).
///
/// Not asked of a trusted proxy, which may have ended or begun TLS (Envoy passes on the scheme that it was asked with,
/// unless its `scheme_header_transformation` says otherwise). Nor of gRPC calls: libraries for them take `:scheme` from
/// their own settings. grpc-go says `http` over TLS where a dialer of the application made it (grpcurl), grpc-node did so
/// always, and grpc-java on Android says `https` without TLS; Envoy lets all of these in.
fn is_misdirected(named: Option<crate::http::Scheme>, https: bool) -> bool {
    use crate::http::Scheme::{Http, Https};
    matches!((named, https), (Some(Https), false) | (Some(Http), true))
}

/// Tells plugins of the connection, and adds what this gateway and its listener have to say to every response. Gives the
/// listener, unless a reload has taken it away.
pub fn greet<'a>(local: &'a Local, down: &mut Downstream, cx: &mut Cx<'_>) -> Option<&'a Listener> {
    cx.https = down.origin.https;
    cx.connection = down.facts();
    (cx.peer, cx.proxied) = (down.origin.peer.clone(), down.origin.proxied.clone());
    cx.response_fields = std::mem::take(&mut down.plugin_fields);
    if local.snapshot.config.http.server_header == ServerHeader::Replace {
        cx.response_fields.set_known(Known::Server, forward::PSEUDONYM);
    }
    let listener = local.snapshot.listener(down.origin.listener)?;
    if let Some(hsts) = &listener.hsts {
        cx.response_fields.append_known(Known::StrictTransportSecurity, &**hsts);
    }
    Some(listener)
}

/// What the listener decides by itself: that a request came to the wrong connection, or is to come over HTTPS. Tells the
/// upstream of the client's certificate, if the request may go on.
fn at_listener(local: &Local, listener: &Listener, down: &mut Downstream) -> Option<Box<Response>> {
    let host = down.request.host();
    // A client that showed no certificate because the server name wanted none must not speak to a name that does (RFC
    // 9110 section 15.5.20, RFC 9113 section 9.1.2).
    if down.origin.covered.as_ref().is_some_and(|covered| !covered.includes(host)) {
        return Some(refuse::response(421, Reason::MisdirectedRequest));
    }
    if let Some(redirect) = listener.redirect_https
        && !came_over_https(local, down)
    {
        return Some(redirect_to_listener(redirect, &down.request));
    }
    let mode = listener.forwarded_client_cert;
    forward::add_client_certificate(&mut down.request.head, down.origin.peer.as_deref(), mode);
    None
}

/// Whether a trusted balancer says that the client spoke TLS to it.
fn came_over_https(local: &Local, down: &Downstream) -> bool {
    if down.origin.https {
        return true;
    }
    let trusted = &local.snapshot.trusted_proxies;
    let proto = down.request.head.get_known(Known::XForwardedProto);
    trusted.contains(down.origin.speaker.ip())
        && proto.is_some_and(|proto| proto.eq_ignore_ascii_case(b"https"))
}

fn redirect_to_listener(redirect: RedirectHttps, request: &RequestHead) -> Box<Response> {
    let host = String::from_utf8_lossy(request.host());
    if host.is_empty() {
        return refuse::response(400, Reason::MissingHost); // HTTP/1.0: to where?
    }
    let port = if redirect.port == 443 { String::new() } else { format!(":{}", redirect.port) };
    let path = String::from_utf8_lossy(request.path());
    let query = request.query().map(|q| format!("?{}", String::from_utf8_lossy(q))).unwrap_or_default();
    let response = Response::with_content(redirect.status, Content::empty());
    response.with_field("Location", format!("https://{host}{port}{path}{query}"))
}

/// Phase 3: the route, and how many bytes of the path its prefix took. Leaves in `cx` what plugins of the route want of the match.
pub fn route(
    local: &Local,
    listener: Option<&Listener>,
    down: &mut Downstream,
    client: IpAddr,
    cx: &mut Cx<'_>,
) -> Result<(RouteId, usize), Box<Response>> {
    if let Some(response) = listener.and_then(|listener| at_listener(local, listener, down)) {
        return Err(response);
    }
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
        SchemeFit::Served => {
            cx.wants = local.snapshot.routes[found.route.index()].wants;
            if cx.wants.captures
                && let Some(groups) = local.snapshot.router.captures(&found, request.path())
            {
                cx.captures = Captures::new(&groups, request.path());
            }
            Ok((found.route, found.matched_len))
        }
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
    let charged = charge_source(shard, local, down, route.cost, now_ns);
    if matches!(admitted.framing, BodyFraming::Length(n) if n > route.body_limit) {
        return charged.and(Err(refuse::response(413, Reason::BodyTooLarge)));
    }
    charged
}

/// Charges a request to the bucket of its source, whatever becomes of it: `cost`, or what requests cost in general.
pub fn charge_source(
    shard: &Shard,
    local: &Local,
    down: &Downstream,
    cost: Option<u32>,
    now_ns: u64,
) -> Result<(), Box<Response>> {
    let limiter = &local.snapshot.source_limiter;
    match limiter.admit_request(&shard.table, down.origin.source.ip(), cost, now_ns) {
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
pub fn may_keep(shard: &Shard, client: &mut Client<'_>, record: &Record) -> bool {
    let Some(in_hand) = record.in_hand.filter(|_| record.keep_alive && !shard.retiring()) else {
        return false;
    };
    if record.malformed || record.body_touched {
        return false;
    }
    client.consume(in_hand);
    true
}

impl HeaderLookup for RequestHead {
    fn any(&self, name: &str, accept: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.head.get_all(name).any(accept)
    }
}

#[cfg(test)]
mod tests {
    use super::is_misdirected;
    use crate::http::Scheme::{Http, Https};

    #[test]
    fn the_scheme_of_a_target_is_that_of_its_connection_rfc9110_7_4() {
        for (named, https, misdirected) in [
            (None, false, false),
            (None, true, false),
            (Some(Http), false, false),
            (Some(Http), true, true),
            (Some(Https), false, true),
            (Some(Https), true, false),
        ] {
            assert_eq!(is_misdirected(named, https), misdirected, "{named:?} {https}");
        }
    }
}
