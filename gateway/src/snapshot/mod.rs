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
mod local;
mod plugins;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portcullis_config as config;

use crate::http::{PathPolicy, h1::HeadLimits};
use crate::id::{Generation, ServiceId, UpstreamId};
use crate::limit::{CidrSet, SourceLimiter};
use crate::plugin::PluginSpec;
use crate::plugin::chain::Chain;
use crate::plugin::consumer::Consumers;
use crate::route::Router;
use crate::tls;
use crate::upstream::UpstreamSpec;

pub use compile::{CompileError, compile};
pub use local::{Local, LocalService};
pub use plugins::GatewayCatalog;

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
    pub head_limits: HeadLimits,
    pub path_policy: PathPolicy,
    pub trusted_proxies: CidrSet,
    pub source_limiter: SourceLimiter,
}

/// A route as an exchange needs it once it is chosen.
pub struct Route {
    pub name: Arc<str>,
    pub service: Option<ServiceId>,
    pub chain: Chain,
    pub strip_path: bool,
    pub preserve_host: bool,
    pub path_handling: config::PathHandling,
    /// Answer to plain HTTP on a route for HTTPS only.
    pub https_redirect_status: u16,
    /// Bytes of request body; more is 413.
    pub body_limit: u64,
    /// Tokens that a request takes from the bucket of its source; `None` for the general cost.
    pub cost: Option<u32>,
}

/// A service as an attempt needs it.
pub struct Service {
    pub name: Arc<str>,
    pub upstream: UpstreamId,
    /// Put before the request path; no trailing slash unless alone.
    pub path: Option<Box<[u8]>>,
    pub connect_timeout: Duration,
    pub write_timeout: Duration,
    pub first_byte_timeout: Duration,
    pub body_idle_timeout: Duration,
    /// Attempts after the first.
    pub retries: u32,
    /// TLS towards the targets, with the server name per target.
    pub tls: Option<tls::ClientConfig>,
    /// Tells pools of different TLS settings apart; stable across reloads.
    pub tls_key: Option<String>,
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
    pub tls: Option<tls::ServerConfig>,
}

impl Snapshot {
    /// The listener of that address.
    pub fn listener(&self, address: SocketAddr) -> Option<&Listener> {
        self.listeners.iter().find(|l| l.address == address)
    }
}
