//! Asks for the addresses of targets' names, and again when an answer runs out.
//!
//! Owns the questions: which servers, how long to wait, how soon to ask again. What was learnt is in
//! [`snapshot::Names`], from where a compilation takes it; a changed answer makes the plane ask for one. Never on the
//! path of a request.
//!
//! Invariant: at most [`AT_ONCE`] questions are under way, a name is asked for again no sooner than `dns.min_ttl`, and a
//! name that does not resolve is said once an outage.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use portcullis_config::{Config, Dns};

use crate::net::clock;
use crate::snapshot::{Endpoint, Names, is_service};

/// Questions under way at once.
const AT_ONCE: usize = 32;
/// How soon a name that does not resolve is asked for again.
const RETRY: Duration = Duration::from_secs(5);
/// How often it is looked whether an answer has run out.
const LOOK: Duration = Duration::from_millis(500);

/// The names of the plane, and whether their addresses have changed since the last compilation.
#[derive(Clone, Default)]
pub struct Book {
    names: Arc<Names>,
    changed: Arc<AtomicBool>,
}

impl Book {
    /// What is known.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Asks for the names of `config` that nobody has asked for yet, and waits for the answers. Blocks; for a thread
    /// that compiles.
    pub fn prepare(&self, config: &Config) {
        let new = self.names.enlist(config);
        if !new.is_empty() {
            self.ask_apart(new, config);
        }
        // What is learnt from here on is news to whom this compilation serves.
        self.changed.store(false, Ordering::Relaxed);
    }

    fn ask_apart(&self, new: Vec<String>, config: &Config) {
        let (book, dns) = (self.clone(), config.dns.clone());
        // A thread of its own: the caller may be inside a runtime, which must not be blocked by another.
        let asking = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => runtime.block_on(book.ask_all(new, &dns)),
                Err(cause) => tracing::error!(%cause, "no runtime to resolve names with"),
            }
        });
        let _ = asking.join();
    }

    /// Asks again whenever an answer runs out, for as long as the process lives. Inside the control thread's runtime.
    pub fn refresh(&self, config: &Config) -> Refresher {
        self.names.keep(config);
        let (book, dns) = (self.clone(), config.dns.clone());
        let task = tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(LOOK).await;
                let due = book.names.due(clock::now_ns());
                if !due.is_empty() {
                    book.ask_all(due, &dns).await;
                }
            }
        });
        Refresher { task }
    }

    /// Whether addresses have changed since the last compilation.
    pub fn has_changed(&self) -> bool {
        self.changed.load(Ordering::Relaxed)
    }

    async fn ask_all(&self, names: Vec<String>, dns: &Dns) {
        let resolver = match resolver(dns) {
            Ok(resolver) => resolver,
            Err(cause) => {
                let due_ns = clock::now_ns().saturating_add(RETRY.as_nanos() as u64);
                for name in names {
                    self.names.fail(&name, cause.clone(), due_ns);
                }
                return tracing::error!(cause, "names of targets cannot be resolved");
            }
        };
        for some in names.chunks(AT_ONCE) {
            let mut asking = tokio::task::JoinSet::new();
            for name in some.iter().cloned() {
                let resolver = resolver.clone();
                asking.spawn(async move {
                    let answer = ask(&resolver, &name).await;
                    (name, answer)
                });
            }
            while let Some(done) = asking.join_next().await {
                if let Ok((name, answer)) = done {
                    self.take(&name, answer, dns);
                }
            }
        }
    }

    fn take(&self, name: &str, answer: Result<(Vec<Endpoint>, Instant), String>, dns: &Dns) {
        match answer {
            Ok((endpoints, valid_until)) => {
                let ttl = valid_until.saturating_duration_since(Instant::now());
                let due = clock::now_ns() + ttl.clamp(dns.min_ttl, dns.max_ttl).as_nanos() as u64;
                let count = endpoints.len();
                if self.names.learn(name, endpoints, due) {
                    self.changed.store(true, Ordering::Relaxed);
                    tracing::debug!(name, count, "addresses of a target's name have changed");
                }
            }
            Err(cause) => {
                let due = clock::now_ns() + RETRY.max(dns.min_ttl).as_nanos() as u64;
                if self.names.fail(name, cause.clone(), due) {
                    tracing::warn!(
                        name,
                        cause,
                        "a target's name does not resolve; its last addresses stay in use"
                    );
                }
            }
        }
    }
}

/// Asks again until it is dropped.
pub struct Refresher {
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Refresher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The servers of the configuration, else those of the system; with its hosts file either way.
fn resolver(dns: &Dns) -> Result<TokioResolver, String> {
    let mut builder = if dns.nameservers.is_empty() {
        TokioResolver::builder_tokio().map_err(|cause| format!("/etc/resolv.conf: {cause}"))?
    } else {
        let servers = dns.nameservers.iter().map(server).collect();
        let config = ResolverConfig::from_parts(None, Vec::new(), servers);
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    let options = builder.options_mut();
    // Answers are kept by us, until they run out.
    options.cache_size = 0;
    options.timeout = dns.timeout;
    options.attempts = 2;
    options.ip_strategy = LookupIpStrategy::Ipv4thenIpv6;
    options.use_hosts_file = ResolveHosts::Always;
    builder.build().map_err(|cause| cause.to_string())
}

fn server(address: &SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.into())
}

/// The places a name stands for, and until when.
async fn ask(resolver: &TokioResolver, name: &str) -> Result<(Vec<Endpoint>, Instant), String> {
    if !is_service(name) {
        let (addresses, until) = addresses(resolver, name).await?;
        return Ok((addresses.into_iter().map(Endpoint::plain).collect(), until));
    }
    let found = resolver.srv_lookup(name).await.map_err(|cause| cause.to_string())?;
    let mut until = found.valid_until();
    let records: Vec<_> = found
        .answers()
        .iter()
        .filter_map(|record| match &record.data {
            RData::SRV(srv) => Some(srv),
            _ => None,
        })
        .collect();
    let best = records.iter().map(|srv| srv.priority).min().unwrap_or(0);
    let mut endpoints = Vec::new();
    for srv in records {
        let (addresses, valid) = addresses(resolver, &srv.target.to_utf8()).await?;
        until = until.min(valid);
        endpoints.extend(addresses.into_iter().map(|ip| Endpoint {
            ip,
            port: Some(srv.port),
            // RFC 2782: 0 is for when there is nothing to choose from; next to others it is a very small share.
            weight: Some(srv.weight.max(1)),
            backup: srv.priority > best,
        }));
    }
    if endpoints.is_empty() { Err("the name has no service record".into()) } else { Ok((endpoints, until)) }
}

async fn addresses(resolver: &TokioResolver, name: &str) -> Result<(Vec<IpAddr>, Instant), String> {
    let found = resolver.lookup_ip(name).await.map_err(|cause| cause.to_string())?;
    let addresses: Vec<IpAddr> = found.iter().collect();
    if addresses.is_empty() {
        Err("the name has no address".into())
    } else {
        Ok((addresses, found.valid_until()))
    }
}
