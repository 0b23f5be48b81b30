//! One generation of the configuration, compiled: what every request of every shard is decided by.
//!
//! Three types, three moments: `portcullis_config::Config` is validated text; [`Snapshot`] is compiled from it by the
//! control thread, immutable and shared; [`Local`] is one shard's instance of a snapshot, with the pools, balancers
//! and plugin instances that only that shard uses.
//!
//! **Invariant.** Everything that can fail happens in [`compile`]. Installing a snapshot on a shard cannot fail, and
//! takes over pools, plugin caches, health and counters by name from the generation before.
//!
//! Read next: `compile.rs`, then `local.rs`.

mod compile;
mod edges;
mod http2;
mod local;
mod names;
mod plugins;
mod probes;
mod sources;
mod streams;
mod times;
mod upstreams;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use portcullis_config as config;

use crate::http::h1::HeadLimits;
use crate::http::h2::Settings;
use crate::id::{Generation, ServiceId, UpstreamId};
use crate::kernel::Lists;
use crate::limit::{CidrSet, LeastRate, SourceLimiter};
use crate::log;
use crate::metrics::RouteSeries;
use crate::plugin::chain::Chain;
use crate::plugin::consumer::Consumers;
use crate::plugin::{PluginSpec, Wants};
use crate::route::Router;
use crate::tls;
use crate::upstream::retry;
use crate::upstream::{HttpVersion, UpstreamSpec};

pub use crate::plugin::registry::GatewayCatalog;
pub use compile::{CompileContext, compile};
pub use edges::files;
pub use local::{Local, LocalService, PoolTable};
pub use names::{Endpoint, Names, is_service};
pub use sources::rate;
pub use streams::StreamRoutes;
pub use times::Times;
pub use upstreams::stable_hash;

/// A compiled configuration.
pub struct Snapshot {
    pub generation: Generation,
    /// What it was compiled from, for `dump` and for the next compilation.
    pub config: Arc<config::Config>,
    pub router: Router,
    /// By `RouteId`: the place in the configuration.
    pub routes: Vec<Route>,
    pub services: Vec<Service>,
    pub upstreams: Vec<Arc<UpstreamSpec>>,
    pub consumers: Arc<Consumers>,
    /// By `PluginIndex`.
    pub plugins: Vec<PluginInstance>,
    pub listeners: Vec<Listener>,
    /// Of requests.
    pub head_limits: HeadLimits,
    pub response_head_limits: HeadLimits,
    /// What an HTTP/2 connection from a client is allowed.
    pub h2: Settings,
    pub trusted_proxies: CidrSet,
    pub source_limiter: SourceLimiter,
    /// What the kernel part is to know of sources.
    pub kernel_lists: Lists,
    /// Routers of this host when it was compiled, sorted: trusted.
    pub gateways: Vec<IpAddr>,
    /// Some target is told where the client connected to.
    pub tells_destination: bool,
    /// Routes for TLS streams that are passed on.
    pub streams: StreamRoutes,
    /// Keys of session tickets, where the configuration names a file of them.
    pub ticket_keys: Option<tls::KeyFile>,
    /// When certificates that are served end to be valid, by id, seconds since 1970.
    pub expiries: BTreeMap<String, u64>,
}

/// A route as an exchange needs it once it is chosen.
pub struct Route {
    pub name: Arc<str>,
    pub service: Option<ServiceId>,
    pub chain: Chain,
    /// What its plugins look at beside the request.
    pub wants: Wants,
    pub strip_path: bool,
    pub preserve_host: bool,
    /// Bodies are held whole before they go on.
    pub buffers_request: bool,
    pub buffers_response: bool,
    pub path_handling: config::PathHandling,
    /// Answer to plain HTTP on a route for HTTPS only.
    pub https_redirect_status: u16,
    /// Bytes of request body; more is 413.
    pub body_limit: u64,
    /// Bytes of a body that are held in memory.
    pub buffered_body: u64,
    /// What is asked of clients that send and receive.
    pub least: LeastRate,
    pub times: Times,
    /// Tokens that a request takes from the bucket of its source; `None` for the general cost.
    pub cost: Option<u32>,
    /// Its counters on every shard; the same for the same name across reloads.
    pub series: Arc<RouteSeries>,
}

/// A service as an attempt needs it.
pub struct Service {
    pub name: Arc<str>,
    pub upstream: UpstreamId,
    /// Put before the request path; no trailing slash unless alone.
    pub path: Option<Box<[u8]>>,
    /// The targets take trailer fields of requests.
    pub request_trailers: bool,
    /// Attempts after the first, and when there are any.
    pub retry: retry::Policy,
    pub http_version: HttpVersion,
    /// Its targets speak gRPC.
    pub grpc: bool,
    /// TLS towards the targets, with the server name per target.
    pub tls: Option<tls::ClientConfig>,
    /// Tells pools of different TLS settings apart; stable across reloads.
    pub tls_key: Option<String>,
    /// Server name to ask targets for, in place of their own.
    pub tls_sni: Option<Box<str>>,
    /// The PROXY header that connections begin with.
    pub proxy_protocol: config::ProxyHeader,
}

impl Service {
    /// Whether what clients call gRPC is: its targets speak it, or HTTP/2 whatever comes.
    pub fn takes_calls(&self) -> bool {
        self.grpc || self.http_version == HttpVersion::Two
    }
}

/// A compiled plugin instance.
pub struct PluginInstance {
    pub name: &'static str,
    pub spec: Arc<dyn PluginSpec>,
    /// Same number for the same instance across reloads.
    pub key: u64,
}

/// Where clients come in.
pub struct Listener {
    pub name: Arc<str>,
    pub address: SocketAddr,
    /// Trusted balancers begin each connection with a PROXY header.
    pub proxy_protocol: bool,
    /// Without it and with `passthrough`, only streams that are passed on are taken.
    pub tls: Option<tls::ServerConfig>,
    /// HTTP/2 is spoken without TLS to who begins with it.
    pub h2c: bool,
    /// Streams are passed on unopened where a route says so.
    pub passthrough: bool,
    pub redirect_https: Option<config::RedirectHttps>,
    /// The value of `Strict-Transport-Security`.
    pub hsts: Option<Box<str>>,
    pub forwarded_client_cert: config::ForwardedClientCert,
}

/// Stands for a target that did not resolve, which no balancer picks.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);

impl Snapshot {
    /// Whether there is an access log.
    pub fn logs_access(&self) -> bool {
        self.config.telemetry.access_log.destination != config::AccessLogDestination::Off
    }

    /// How lines of the access log are made.
    pub fn log_format(&self) -> log::Format {
        log::Format::new(self.redaction())
    }

    /// What the access log masks. The places of credentials are among it even if nobody has thought of listing them:
    /// a renamed key parameter is no reason to have keys in logs.
    fn redaction(&self) -> log::Redaction {
        let settings = &self.config.telemetry.access_log;
        let (mut parameters, mut headers) = (settings.redact_query.clone(), settings.redact_headers.clone());
        for plugin in &self.plugins {
            let places = plugin.spec.credential_places();
            parameters.extend(places.parameters);
            headers.extend(places.fields);
        }
        log::Redaction::new(&parameters, &headers)
    }

    /// The listener of that address.
    pub fn listener(&self, address: SocketAddr) -> Option<&Listener> {
        self.listeners.iter().find(|l| l.address == address)
    }
}

#[cfg(test)]
mod tests;
