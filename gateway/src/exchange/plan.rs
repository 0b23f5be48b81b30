//! What an exchange sends upstream, whichever target gets it.
//!
//! Owns the upstream's view of a request: method, path, framing, host. Decided once, before the first attempt.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use portcullis_config::{PathHandling, Underscores};

use super::admit::Admitted;
use super::attempt::Target;
use super::client::Client;
use super::downstream::Downstream;
use super::expiry::Limit;
use super::failure::Failure;
use super::finish::Record;
use super::relay::{Coding, Leg};
use super::transfer::{Recode, Sink};
use super::{forward, tunnel};
use crate::http::grpc::{self, Wire};
use crate::http::grpc_web::Decoder;
use crate::http::h1::{self, BodyDecoder, BodyFraming, BodyLimits, Persistence, write_request};
use crate::http::h2::Protocol;
use crate::http::h2::client::Outgoing;
use crate::http::websocket::Proof;
use crate::http::{Known, Method, Reason, RequestHead, Version};
use crate::id::ServiceId;
use crate::limit::{LeastRate, Throttle};
use crate::net::clock;
use crate::net::deadline::SendLimit;
use crate::plugin::Cx;
use crate::plugin::chain::Chain;
use crate::snapshot::{Local, LocalService, Route, Service, Snapshot, Times};
use crate::upstream::Preamble;

/// Longest time that is waited for anything: what a client asks for may be years.
const LONGEST: Duration = Duration::from_secs(30 * 86_400);

/// What is to be sent, whichever target gets it.
pub struct Plan<'a> {
    pub service: &'a Service,
    pub chain: &'a Chain,
    /// What the upstream is asked with.
    pub method: Method,
    /// The client asked with HEAD: it awaits no body, whatever the upstream is asked.
    pub head_only: bool,
    /// The version that the client speaks.
    pub version: Version,
    /// The client allows another exchange.
    pub keep_alive: bool,
    /// The client reads trailer fields.
    pub takes_trailers: bool,
    /// The wire of a gRPC call, as the client has it, where there are calls to be had: what a client says of itself is no
    /// reason for longer times and other bounds on a service that takes none.
    pub wire: Option<Wire>,
    /// The client calls it gRPC: its target is told how long it is waited for.
    called: bool,
    /// The wire of a call, where the target is spoken to in another.
    pub web: Option<Wire>,
    /// When the exchange is to be over.
    pub limit: Option<Limit>,
    /// The route's time limits.
    pub times: &'a Times,
    /// What is asked of the client.
    least: LeastRate,
    /// Octets of a body that are held in memory.
    pub held: u64,
    pub snapshot: &'a Snapshot,
    pub local_service: &'a LocalService,
    /// How the body comes from the client.
    received: BodyFraming,
    /// How it goes to a connection.
    framing: BodyFraming,
    /// Bytes of the body when all of it is in the receive buffer: it can be sent with the head, and again.
    pub in_hand: Option<usize>,
    expects_continue: Cell<bool>,
    /// Octets that the request body may have.
    pub body_limit: u64,
    /// The client's host, or a plugin's, goes on to the target. A request without one (HTTP/1.0) has none to go on.
    preserve_host: bool,
    /// The response is held whole before it goes on.
    pub buffers_response: bool,
    /// The connection is to become a tunnel, for this proof.
    pub upgrade: Option<Proof>,
    /// What connections to targets begin with.
    pub preamble: Preamble,
    /// How fast the body of the response may pass.
    pub throttle: Option<Rc<Throttle>>,
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
        let service = destination(local, route, cx)?;
        let mut plan = Self {
            service: &snapshot.services[service.index()],
            chain: &route.chain,
            method: down.request.upstream_method(),
            head_only: down.request.method() == Method::Head,
            version: down.request.version(),
            keep_alive: record.keep_alive,
            takes_trailers: admitted.hop.te_trailers,
            wire: record
                .call
                .map(|call| call.wire)
                .filter(|_| cx.grpc_web || snapshot.services[service.index()].takes_calls()),
            called: record.call.is_some(),
            web: None,
            limit: record.limit,
            times: &route.times,
            least: route.least,
            held: route.buffered_body,
            snapshot,
            local_service: local.service(service),
            received: admitted.framing,
            framing: admitted.framing,
            in_hand: record.in_hand.filter(|_| !matches!(admitted.framing, BodyFraming::Chunked)),
            expects_continue: Cell::new(admitted.expects_continue),
            body_limit: cx.body_limit.map_or(route.body_limit, |limit| limit.min(route.body_limit)),
            preserve_host: (route.preserve_host || cx.rewritten.host) && names_host(&down.request),
            buffers_response: route.buffers_response,
            upgrade: admitted.upgrade.filter(|_| down.request.upstream_method() == Method::Get),
            preamble: forward::preamble(
                snapshot.services[service.index()].proxy_protocol,
                &down.origin,
                cx.client,
            ),
            throttle: cx.throttle.clone(),
        };
        if plan.upgrade.is_some() {
            tunnel::ask(&mut down.request.head);
        }
        if !cx.rewritten.path {
            let strip = if route.strip_path { matched_len } else { 0 };
            set_path(&mut down.request, plan.service.path.as_deref(), strip, route.path_handling);
        }
        if plan.service.grpc || cx.grpc_web {
            plan.make_grpc(&mut down.request);
        }
        if plan.called && plan.wire.is_none() && snapshot.config.http.underscores == Underscores::Drop {
            // What a media type alone lets in is for calls only: see `http::underscores`.
            down.request.head.retain_other(|name| !name.contains(&b'_'));
        }
        if plan.framing != BodyFraming::None {
            h1::set_framing(&mut down.request.head, plan.framing);
        }
        Some(plan)
    }

    /// Makes a call of gRPC-Web one of gRPC.
    fn make_grpc(&mut self, request: &mut RequestHead) {
        let Some(wire @ (Wire::Web | Wire::WebText)) = self.wire else { return };
        let media_type = request.head.get_known(Known::ContentType).unwrap_or_default();
        let Some(media_type) = grpc::media_type_on(media_type, Wire::Grpc) else { return };
        request.head.set_known(Known::ContentType, media_type);
        request.head.remove("x-grpc-web");
        if wire == Wire::WebText && self.framing != BodyFraming::None {
            // Its length in base64 says nothing.
            self.framing = BodyFraming::Chunked;
            self.in_hand = None;
        }
        self.web = Some(wire);
    }

    /// Names the target in the request, unless the route keeps the client's host.
    pub fn address(&self, request: &mut RequestHead, target: &Target<'_>) {
        if !self.preserve_host {
            let host = self.local_service.upstream.spec.host_header.as_deref().unwrap_or(target.host());
            request.head.set_known(Known::Host, host);
        }
    }

    /// Puts the request into `down.upstream_out`, with the body where it is in hand.
    pub fn write_request(&self, down: &mut Downstream, client: &Client<'_>) {
        self.tell_time(&mut down.request);
        down.upstream_out.clear();
        let persistence = match self.upgrade {
            Some(_) => Persistence::Upgrade,
            None if self.takes_trailers => Persistence::TakesTrailers,
            None => Persistence::Implied,
        };
        write_request(&down.request, persistence, &mut down.upstream_out);
        if let Some(in_hand) = self.in_hand {
            client.copy_in_hand(in_hand, &mut down.upstream_out);
        }
    }

    /// Tells the target of what its client calls a call how long that still waits.
    pub fn tell_time(&self, request: &mut RequestHead) {
        if let Some(limit) = self.limit.filter(|_| self.called) {
            grpc::set_timeout(request, limit.left(clock::now_ns()));
        }
    }

    /// How the request goes out on a stream.
    pub fn outgoing(&self) -> Outgoing {
        Outgoing {
            https: self.service.tls.is_some(),
            end: self.in_hand == Some(0) && self.upgrade.is_none(),
            te_trailers: self.takes_trailers || self.wire.is_some(),
            protocol: self.upgrade.map(|_| Protocol::WebSocket),
        }
    }

    /// Whether the client waits for leave to send its body. True once.
    pub fn wants_continue(&self) -> bool {
        self.expects_continue.replace(false) && self.in_hand.is_none()
    }

    /// The decoder of a body that must be received from a connection; `None` when there is none or it is in hand.
    pub fn request_decoder(&self, client: &Client<'_>) -> Result<Option<BodyDecoder>, Failure> {
        if self.in_hand.is_some() || matches!(client, Client::Http2(_)) {
            return Ok(None);
        }
        let limits = BodyLimits { payload: self.body_limit };
        BodyDecoder::request(self.received, limits).map(Some).map_err(Failure::client)
    }

    /// The body that is in hand, out of what was received.
    pub fn whole(&self, unread: &[u8]) -> Bytes {
        Bytes::copy_from_slice(unread.get(..self.in_hand.unwrap_or(0)).unwrap_or_default())
    }

    /// How the request body is coded anew.
    pub fn request_recode(&self) -> Recode<'static> {
        match self.web {
            Some(Wire::WebText) => Recode::FromText(Decoder::default()),
            _ => Recode::None,
        }
    }

    /// How long the target may think. The client of a call that says how long it waits knows better than we do, up to what
    /// a conversation may pause.
    pub fn first_byte(&self) -> Duration {
        match self.limit {
            Some(Limit { reason: Reason::GrpcDeadline, .. }) => self.idle(self.times.first_byte),
            _ => self.times.first_byte,
        }
    }

    /// How long a side may be silent in the middle of a body. A call may be a conversation with pauses.
    pub fn request_idle(&self) -> Duration {
        self.idle(self.times.request_body_idle)
    }

    /// See [`Plan::request_idle`].
    pub fn response_idle(&self) -> Duration {
        self.idle(self.times.upstream_body_idle)
    }

    fn idle(&self, of_body: Duration) -> Duration {
        if self.wire.is_some() { of_body.max(self.times.tunnel_idle) } else { of_body }
    }

    /// How the request body travels. To a connection its trailers are dropped unless the service says that it wants them.
    pub fn request_leg(&self, sink: &Sink<'_>) -> Leg {
        let stream = matches!(sink, Sink::Http2 { .. });
        let chunked = self.framing == BodyFraming::Chunked && !stream;
        Leg {
            coding: if chunked { Coding::Chunked } else { Coding::Identity },
            trailers: stream || self.service.request_trailers,
            watch: false,
            receive_idle: self.request_idle(),
            least: if self.wire.is_some() { LeastRate::NONE } else { self.least },
            send: SendLimit::whole(self.times.upstream_write),
        }
    }

    /// How long the client may take to receive.
    pub fn response_send(&self) -> SendLimit {
        SendLimit { pause: self.times.response_write, rate: self.least.bytes_per_second }
    }
}

fn names_host(request: &RequestHead) -> bool {
    request.head.get_known(Known::Host).is_some_and(|host| !host.is_empty())
}

/// The service that a plugin chose, or the route's.
fn destination(local: &Local, route: &Route, cx: &Cx<'_>) -> Option<ServiceId> {
    let Some(chosen) = cx.destination else { return route.service };
    let own = route.service.filter(|_| chosen.falls_back);
    match own {
        Some(own) if !local.service(chosen.service).upstream.is_available(cx.now_ns) => Some(own),
        _ => Some(chosen.service),
    }
}

/// When the exchange is to be over: by the client's word, or the route's.
pub fn limit(record: &Record, route: &Route) -> Option<Limit> {
    let at = |after: Duration, reason| Limit {
        at_ns: record.started_ns.saturating_add(after.min(LONGEST).as_nanos() as u64),
        reason,
    };
    let deadline = record.call.and_then(|call| call.timeout).map(|after| at(after, Reason::GrpcDeadline));
    let total = route.times.total.map(|after| at(after, Reason::TotalTimeout));
    deadline.into_iter().chain(total).min_by_key(|limit| limit.at_ns)
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
