//! The plugin contract: what a plugin is given, what it may do, and in which order plugins run.
//!
//! A plugin is one file or folder here plus one line in `registry.rs`. It has two lives: a [`PluginSpec`], compiled
//! once from its `config:` and shared by all shards through the snapshot, and a [`Plugin`], made from it on each
//! shard, which may keep state of its own without any lock.
//!
//! Never does: I/O on the spot. What must wait (another service's answer) returns [`Flow::Wait`].
//!
//! **Invariant.** The common case is synchronous and allocates nothing.
//!
//! Read next: `chain.rs` (precedence and order), `registry.rs`, then any plugin.

mod acl;
mod bandwidth_limit;
mod basic_auth;
mod body;
mod bot_detection;
mod buffering;
mod call;
pub mod canary;
pub mod chain;
mod compression;
pub mod consumer;
mod correlation_id;
mod cors;
pub mod credentials;
mod error_pages;
mod fault_injection;
#[cfg(test)]
pub mod fixture;
mod forward_auth;
mod grpc_web;
mod hmac_auth;
pub mod identity;
mod in_flight_limit;
mod introspection;
mod ip_restriction;
pub mod jwt;
pub mod key_auth;
mod limiting;
mod mirror;
mod mtls_auth;
mod multi_auth;
mod password;
mod path_rewrite;
mod prometheus;
mod rate_limiting;
mod rate_limiting_advanced;
mod redirect;
mod redis;
pub mod registry;
mod request_size_limiting;
mod request_termination;
mod request_transformer;
mod request_validator;
mod response_transformer;
mod security_headers;
pub mod service_tls;
mod share;
mod status;
mod token_bucket;
mod traffic_split;
mod transform;
mod wants;

use std::any::Any;
use std::borrow::Cow;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use portcullis_abi::Reason;
use portcullis_config::{self as config, Diagnostics};

use crate::http::coding::{ContentCoding, Encoder};
use crate::http::h1::BodyFraming;
use crate::http::proxy_protocol::Tlvs;
use crate::http::{Head, RequestHead, ResponseHead};
use crate::id::{ConsumerId, RouteId, ServiceId};
use crate::limit::{Table, Throttle};
use crate::metrics::LimiterDecision;
use crate::tls::Peer;
use consumer::{Consumers, CredentialRef};

pub use mirror::Copy;
pub use wants::{Captures, Wants};

/// What becomes of the request after a plugin has seen it.
pub enum Flow {
    /// On to the next plugin.
    Continue,
    /// The gateway answers; no later request plugin and no upstream sees the request.
    Respond(Box<Response>),
    /// The plugin needs something from elsewhere first. The future has a time limit of its own; what it yields is run
    /// with the request at hand again.
    Wait(Pin<Box<dyn Future<Output = Resume>>>),
}

/// The second half of a plugin that waited.
pub type Resume = Box<dyn FnOnce(&mut Cx<'_>, &mut RequestHead) -> Flow>;

/// An answer that the gateway makes by itself.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// Why, for counters, logs and `explain`; `None` where nothing was refused.
    pub reason: Option<Reason>,
    /// Shown as `{"message": "..."}`.
    pub message: Cow<'static, str>,
    /// What stands in place of `message` there.
    pub member: &'static str,
    /// Stands in place of the JSON body.
    pub content: Option<Content>,
    /// Additional header fields, e.g. `WWW-Authenticate`.
    pub fields: Vec<(&'static str, Cow<'static, str>)>,
    /// What a gRPC call is told in place of what `status` comes to.
    pub grpc_status: Option<u8>,
}

/// A body that is sent as it is.
#[derive(Clone, Debug)]
pub struct Content {
    /// `Content-Type`; none is sent if empty.
    pub media_type: Cow<'static, str>,
    pub bytes: Arc<[u8]>,
}

impl Content {
    /// No bytes, of no type.
    pub fn empty() -> Self {
        Self { media_type: Cow::Borrowed(""), bytes: Arc::default() }
    }
}

impl Response {
    /// An answer with a JSON message and no additional fields.
    pub fn new(status: u16, reason: Reason, message: impl Into<Cow<'static, str>>) -> Box<Self> {
        let (reason, message) = (Some(reason), message.into());
        let fields = Vec::new();
        Box::new(Self {
            status,
            reason,
            message,
            member: "message",
            content: None,
            fields,
            grpc_status: None,
        })
    }

    /// An answer that refuses nothing.
    pub fn with_content(status: u16, content: Content) -> Box<Self> {
        let (message, content, fields) = (Cow::Borrowed(""), Some(content), Vec::new());
        Box::new(Self {
            status,
            reason: None,
            message,
            member: "message",
            content,
            fields,
            grpc_status: None,
        })
    }

    /// Shows the message under another name, as Kong does with errors in claims.
    pub fn with_member(mut self: Box<Self>, name: &'static str) -> Box<Self> {
        self.member = name;
        self
    }

    /// Ends gRPC calls with another status than the one that stands for `status`.
    pub fn with_grpc_status(mut self: Box<Self>, status: u8) -> Box<Self> {
        self.grpc_status = Some(status);
        self
    }

    /// Adds a header field.
    pub fn with_field(
        mut self: Box<Self>,
        name: &'static str,
        value: impl Into<Cow<'static, str>>,
    ) -> Box<Self> {
        self.fields.push((name, value.into()));
        self
    }
}

/// Where a request goes in place of its route's service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    pub service: ServiceId,
    /// The route's own service serves while none of its targets may be tried.
    pub falls_back: bool,
}

/// What stands in place of an error.
#[derive(Clone, Debug)]
pub struct Page {
    pub status: u16,
    pub content: Content,
}

/// A page that may have to be waited for; `None` when there turns out to be none.
pub type PageFuture = Pin<Box<dyn Future<Output = Option<Page>>>>;

/// Who the request turned out to be from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity {
    pub consumer: Option<ConsumerId>,
    pub credential: Option<CredentialRef>,
    /// Somebody proved who he is, be it a consumer or not.
    pub authenticated: bool,
    /// The consumer is the stand-in of `config.anonymous`.
    pub anonymous: bool,
}

/// The exchange as plugins see it.
pub struct Cx<'a> {
    /// CLOCK_MONOTONIC in ns at the receipt of the request head.
    pub now_ns: u64,
    /// Wall clock (since the Unix epoch) at the same moment.
    pub wall: Duration,
    /// The address that packets come from: what the kernel sees, and the only one it may be charged for.
    pub source: IpAddr,
    /// The client's address: the source, or what a trusted proxy says.
    pub client: IpAddr,
    pub https: bool,
    pub connection: Connection,
    /// The client's certificate, which verified.
    pub peer: Option<Arc<Peer>>,
    /// What a trusted balancer's PROXY header says beside addresses.
    pub proxied: Option<Rc<Tlvs>>,
    /// How the request's body is framed.
    pub body: BodyFraming,
    /// The client waits for leave to send the body. The field that said so is gone from the request.
    pub expects_continue: bool,
    /// Bytes that the body may have; the route's limit holds too. It is kept while the body passes by.
    pub body_limit: Option<u64>,
    pub route: RouteId,
    pub route_name: &'a str,
    pub service: Option<ServiceId>,
    pub service_name: Option<&'a str>,
    pub consumers: &'a Consumers,
    /// Buckets of sources, and counters kept by client address: the mapping shared with the kernel, or ordinary
    /// memory. A word gets in here only for an address that completed a request, so no spoofed flood can crowd it.
    pub table: &'a Table,
    /// Counters of all other limit keys, in ordinary memory.
    pub limit_table: &'a Table,
    pub identity: Identity,
    /// Groups that an authentication plugin found, of nobody or of the consumer.
    pub authenticated_groups: Vec<String>,
    /// What plugins of the route look at beside the request.
    pub wants: Wants,
    /// Of the route's path expression, where they are wanted.
    pub captures: Captures,
    /// Of the client's token once it is accepted, where they are wanted.
    pub claims: Option<Box<serde_json::Map<String, serde_json::Value>>>,
    /// Fields of the response, whoever makes it. They are added before response plugins see it, which edit the
    /// response itself.
    pub response_fields: Head,
    /// What the plugin at hand decided about a limit, for the counters.
    pub limiter: Option<LimiterDecision>,
    /// Points that the plugin at hand takes from the source for what it did: `xdp.costs.plugin` says what one costs, and
    /// `xdp.bans.triggers.plugin` how many are one too many.
    pub points: u32,
    /// The plugin at hand decided about a limit without the store that it shares with other gateways.
    pub limited_alone: bool,
    /// How fast the body of the response may pass.
    pub throttle: Option<Rc<Throttle>>,
    pub rewritten: Rewritten,
    /// Calls of gRPC-Web are made gRPC for the target, and their answers gRPC-Web again.
    pub grpc_web: bool,
    /// Where the request goes in place of the route's service.
    pub destination: Option<Destination>,
    /// The coding that the response may be put into.
    pub coding: Option<ContentCoding>,
    /// Copies of the request that are to be made.
    pub copies: Vec<Copy>,
    /// What plugins hold until the exchange ends.
    pub held: Vec<Box<dyn Any>>,
}

/// The downstream connection as plugins see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    pub source_port: u16,
    pub listener_port: u16,
    /// Requests before this one.
    pub exchanges: u32,
}

/// Parts of the request that a plugin has set for the upstream, so that the route and the service leave them alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rewritten {
    /// The path: nothing is stripped from it, and the service's path is not put before it.
    pub path: bool,
    /// The Host field.
    pub host: bool,
}

impl<'a> Cx<'a> {
    /// An exchange whose route is not known yet.
    pub fn new(
        now_ns: u64,
        wall: Duration,
        source: IpAddr,
        client: IpAddr,
        consumers: &'a Consumers,
        table: &'a Table,
        limit_table: &'a Table,
    ) -> Self {
        Self {
            now_ns,
            wall,
            source,
            client,
            https: false,
            connection: Connection::default(),
            peer: None,
            proxied: None,
            body: BodyFraming::None,
            expects_continue: false,
            body_limit: None,
            route: RouteId(0),
            route_name: "",
            service: None,
            service_name: None,
            consumers,
            table,
            limit_table,
            identity: Identity::default(),
            authenticated_groups: Vec::new(),
            wants: Wants::default(),
            captures: Captures::default(),
            claims: None,
            response_fields: Head::new(),
            limiter: None,
            points: 0,
            limited_alone: false,
            throttle: None,
            rewritten: Rewritten::default(),
            grpc_web: false,
            destination: None,
            coding: None,
            copies: Vec::new(),
            held: Vec::new(),
        }
    }
}

/// A plugin on one shard.
pub trait Plugin {
    /// Sees the request before it goes upstream.
    fn on_request(&self, _cx: &mut Cx<'_>, _head: &mut RequestHead) -> Flow {
        Flow::Continue
    }

    /// Sees the response before it goes downstream; in reverse order of the chain. Not run on answers that the
    /// gateway made.
    fn on_response(&self, _cx: &mut Cx<'_>, _head: &mut ResponseHead) {}

    /// Whether the plugin is to see this request's body whole. Asked at its turn, after [`on_request`](Self::on_request).
    /// The body is held in memory then, up to `limits.buffered_body`; a larger one is refused with 413.
    fn wants_request_body(&self, _cx: &Cx<'_>, _head: &RequestHead) -> bool {
        false
    }

    /// Sees the request's body, if it wants to, before any later plugin sees the request. What it leaves is sent on,
    /// with its length put right.
    fn on_request_body(&self, _cx: &mut Cx<'_>, _head: &mut RequestHead, _body: &mut Vec<u8>) -> Flow {
        Flow::Continue
    }

    /// Whether the plugin is to see this response's body whole. Asked after `on_response`, never of a response without
    /// a body. The body is held in memory then, up to `limits.buffered_body`; a larger one becomes a 502.
    fn wants_response_body(&self, _cx: &Cx<'_>, _head: &ResponseHead) -> bool {
        false
    }

    /// Sees the response's body, if it wants to; an error is answered in place of the response.
    fn on_response_body(
        &self,
        _cx: &mut Cx<'_>,
        _head: &mut ResponseHead,
        _body: &mut Vec<u8>,
    ) -> Result<(), Box<Response>> {
        Ok(())
    }

    /// A page in place of an answer with this status, be it the upstream's or the gateway's own.
    fn error_page(&self, _cx: &Cx<'_>, _request: &RequestHead, _status: u16) -> Option<PageFuture> {
        None
    }

    /// Puts the response into a coding. Asked when its body is what it will be; `framing` is what is known of its length.
    /// The head is made to say so.
    fn encoder(&self, _cx: &Cx<'_>, _head: &mut ResponseHead, _framing: BodyFraming) -> Option<Box<Encoder>> {
        None
    }

    /// Whether `on_response` does anything, so that the relay can skip the rest.
    fn sees_response(&self) -> bool {
        false
    }

    /// What the next generation's instance of the same plugin may take over (caches).
    fn state(&self) -> Option<Rc<dyn Any>> {
        None
    }
}

/// The compiled part of a plugin, shared by all shards.
pub trait PluginSpec: Send + Sync {
    /// Makes the instance of one shard. `previous` is [`Plugin::state`] of the instance with the same key in the
    /// generation before.
    fn instantiate(self: Arc<Self>, previous: Option<Rc<dyn Any>>) -> Rc<dyn Plugin>;

    /// Whether a request may pass [`Plugin::on_request`] undecided, until its body is seen.
    fn decides_by_body(&self) -> bool {
        false
    }

    /// What the plugin looks at that is not made for every request.
    fn wants(&self) -> Wants {
        Wants::default()
    }

    /// Where in a request the plugin takes credentials from. The access log masks them, whatever its own settings.
    fn credential_places(&self) -> CredentialPlaces {
        CredentialPlaces::default()
    }
}

/// Names of what holds credentials in a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CredentialPlaces {
    /// Of parameters of the query.
    pub parameters: Vec<String>,
    /// Of header fields.
    pub fields: Vec<String>,
}

/// What a plugin may look at when it is compiled.
pub struct CompileCx<'a> {
    pub consumers: &'a Arc<Consumers>,
    /// The configuration that the plugin is part of, for what it refers to.
    pub config: &'a config::Config,
    /// A number that stays the same for the same plugin instance across reloads: names its limit counters.
    pub instance: u64,
}

/// One line of the registry.
pub struct Registration {
    /// The plugin's name in the configuration; Kong's.
    pub name: &'static str,
    /// Kong's priority: higher runs earlier on requests and later on responses.
    pub priority: u32,
    /// The keys of `config:`.
    pub section: &'static config::Section,
    /// Compiles the validated `config:`. Problems go into the diagnostics.
    pub compile: fn(&config::Plugin, &CompileCx<'_>, &Diagnostics) -> Option<Arc<dyn PluginSpec>>,
}
