//! The validated configuration: plain typed structs, read by the gateway and changed by nobody.
//!
//! Owns the types. It never parses, and it never computes what depends on more than the text (route
//! priorities belong to the router, addresses of names to the control thread). Invariant: a [`Config`] made
//! by [`crate::load`] holds no dangling reference, no service on an empty upstream, no regular expression that
//! does not compile, and no two entities of one kind with one name. Next: `build`, which makes it.

mod consumer;
mod edge;
mod http;
mod http2;
mod kernel;
mod route;
mod runtime;
mod service;
mod upstream;

use std::ops::Index;
use std::sync::Arc;

use ipnet::IpNet;

pub use self::consumer::*;
pub use self::edge::*;
pub use self::http::*;
pub use self::http2::*;
pub use self::kernel::*;
pub use self::route::*;
pub use self::runtime::*;
pub use self::service::*;
pub use self::upstream::*;
use crate::node::Node;
use crate::source::{Origin, Sources};

/// Whose defaults fill what the file leaves out (`defaults:`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Defaults {
    /// The safe ones of this gateway.
    #[default]
    Portcullis,
    /// Kong's: 60 s timeouts, five retries, unverified upstream TLS and so on.
    Kong,
}

/// A whole validated configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whose defaults filled the gaps.
    pub defaults: Defaults,
    /// Where downstream connections are accepted; never empty.
    pub listeners: Vec<Listener>,
    /// Threads that carry traffic.
    pub shards: Shards,
    /// The kernel part.
    pub xdp: Xdp,
    /// What requests are held to.
    pub http: Http,
    /// What an HTTP/2 connection may do.
    pub http2: Http2,
    /// Bounds on what one connection, request or process may use.
    pub limits: Limits,
    /// Bounds on time.
    pub timeouts: Timeouts,
    /// Addresses whose `X-Forwarded-*` headers are believed and which the kernel never drops.
    pub trusted_proxies: Vec<IpNet>,
    /// Where those name the client.
    pub real_ip_header: RealIpHeader,
    /// Whether trusted addresses in there are passed over.
    pub real_ip_recursive: bool,
    /// Whether upstreams are told of the client in `Forwarded` too.
    pub forwarded_header: bool,
    /// Keys of session tickets.
    pub tickets: Tickets,
    /// How names of targets are resolved.
    pub dns: Dns,
    /// The operator's interface.
    pub admin: Admin,
    /// Logs.
    pub telemetry: Telemetry,
    /// The `redis` section as written: the Redis of shared limits that name none of their own.
    pub redis: Option<Node>,
    /// Services, in the order of the files.
    pub services: Vec<Service>,
    /// Routes, nested and flat ones in one list, in the order of the files.
    pub routes: Vec<Route>,
    /// Groups of targets.
    pub upstreams: Vec<Upstream>,
    /// Known clients and their credentials.
    pub consumers: Vec<Consumer>,
    /// Every plugin instance of every scope, in the order of the files.
    pub plugins: Vec<Plugin>,
    /// Certificates for TLS towards clients, and client certificates towards upstreams.
    pub certificates: Vec<Certificate>,
    /// Authorities that upstream certificates are verified against.
    pub ca_certificates: Vec<CaCertificate>,
    /// The texts all spans point into; needed to print later errors (a plugin's, for one).
    pub sources: Arc<Sources>,
}

/// A plugin put on a scope.
#[derive(Clone, Debug)]
pub struct Plugin {
    /// The kind of plugin; always one of the catalog's.
    pub name: String,
    /// Kong's id, kept for references.
    pub id: Option<String>,
    /// The operator's name for this instance.
    pub instance_name: Option<String>,
    /// A disabled plugin is kept in the model and must not run.
    pub enabled: bool,
    /// What it applies to.
    pub scope: Scope,
    /// The protocols it runs for; empty for all.
    pub protocols: Vec<Protocol>,
    /// Free labels.
    pub tags: Vec<String>,
    /// The `config:` map, already checked against the plugin's section. Read it with [`Plugin::fields`].
    pub config: Node,
    /// Whose defaults fill `config`.
    pub defaults: Defaults,
    /// Where the plugin was written.
    pub origin: Origin,
}

/// What a plugin applies to: every part that is given must match. All `None` is every request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scope {
    /// Only requests routed to this service.
    pub service: Option<ServiceRef>,
    /// Only requests of this route.
    pub route: Option<RouteRef>,
    /// Only requests of this consumer.
    pub consumer: Option<ConsumerRef>,
}

impl Scope {
    /// Whether the plugin applies to every request.
    pub fn is_global(&self) -> bool {
        *self == Self::default()
    }
}

macro_rules! references {
    ($($(#[$doc:meta])* $name:ident => $list:ident: $entity:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u32);

        impl $name {
            /// The position in the list of [`Config`].
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl Index<$name> for Config {
            type Output = $entity;

            fn index(&self, reference: $name) -> &$entity {
                &self.$list[reference.index()]
            }
        }
    )*};
}

impl Config {
    /// The least and the most of a body that is held in memory on any route.
    pub fn buffered_body_range(&self) -> (u64, u64) {
        let general = self.limits.buffered_body;
        let of_routes = self.routes.iter().filter_map(|route| route.buffered_body);
        of_routes.fold((general, general), |(least, most), own| (least.min(own), most.max(own)))
    }
}

references! {
    /// A service, by its place in [`Config::services`].
    ServiceRef => services: Service;
    /// A route, by its place in [`Config::routes`].
    RouteRef => routes: Route;
    /// An upstream, by its place in [`Config::upstreams`].
    UpstreamRef => upstreams: Upstream;
    /// A consumer, by its place in [`Config::consumers`].
    ConsumerRef => consumers: Consumer;
    /// A certificate, by its place in [`Config::certificates`].
    CertificateRef => certificates: Certificate;
    /// An authority, by its place in [`Config::ca_certificates`].
    CaCertificateRef => ca_certificates: CaCertificate;
}
