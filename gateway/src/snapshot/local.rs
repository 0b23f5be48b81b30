//! A shard's instance of a snapshot.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::Snapshot;
use crate::http::h2::Settings;
use crate::id::{RouteId, ServiceId, ShardId};
use crate::metrics::RouteMetrics;
use crate::plugin::Plugin;
use crate::upstream::{Connector, LocalUpstream, Pool, PoolKey, PoolLimits};

/// The pools of a shard by what they connect to; outlives generations.
pub type PoolTable = HashMap<PoolKey, Rc<Pool>>;

/// One generation on one shard.
pub struct Local {
    pub snapshot: Arc<Snapshot>,
    /// By `PluginIndex`.
    pub plugins: Vec<Rc<dyn Plugin>>,
    services: Vec<LocalService>,
    shard: ShardId,
    /// Whether exchanges are logged at all.
    pub logs_access: bool,
}

/// A service on one shard.
pub struct LocalService {
    pub upstream: Rc<LocalUpstream>,
    /// By `TargetIndex`.
    pub pools: Vec<Rc<Pool>>,
}

impl Local {
    /// Makes the instance of `snapshot` on a shard, taking over from `previous` what bears the same name. Pools that no
    /// service uses any more are closed. Cannot fail.
    pub fn install(
        snapshot: Arc<Snapshot>,
        previous: Option<&Local>,
        shard: ShardId,
        pools: &mut PoolTable,
    ) -> Self {
        let upstreams: Vec<_> =
            snapshot.upstreams.iter().map(|spec| adopt_upstream(spec, previous, shard)).collect();
        let limits = &snapshot.config.limits;
        let pool_limits = PoolLimits {
            idle_max: limits.upstream_idle_connections as usize,
            idle_time: snapshot.config.timeouts.upstream_keep_alive,
            requests_max: limits.upstream_requests_per_connection,
            active_max: limits.upstream_connections,
            waiting_max: limits.upstream_queue,
            waiting_time: snapshot.config.timeouts.upstream_queue,
            multiplexed_max: snapshot.config.http2.upstream_connections as usize,
            h2: Settings {
                streams_max: limits.upstream_requests_per_connection,
                // As for clients: what is over the limit of HTTP/1 and not over this is told of by us.
                header_list: limits.response_head.saturating_mul(2),
                ..snapshot.h2.clone()
            },
        };
        let mut used = PoolTable::default();
        let services = snapshot
            .services
            .iter()
            .map(|service| {
                let upstream = upstreams[service.upstream.index()].clone();
                let pools = upstream
                    .spec
                    .targets
                    .iter()
                    .map(|target| {
                        let address = target.address.unwrap_or(super::NOWHERE);
                        let name = service.tls_sni.as_deref().unwrap_or(&target.tls_name);
                        let tls = service.tls.as_ref().map(|tls| (tls.for_shard(), name.to_owned()));
                        let key = PoolKey {
                            address,
                            tls: service.tls_key.as_ref().map(|key| format!("{name} {key}")),
                            version: service.http_version,
                        };
                        let connector = Connector { address, tls, version: service.http_version };
                        let make = || Rc::new(Pool::new(connector, pool_limits.clone()));
                        let pool = used.get(&key).or_else(|| pools.get(&key)).cloned().unwrap_or_else(make);
                        pool.set_limits(pool_limits.clone());
                        used.insert(key, pool.clone());
                        pool
                    })
                    .collect();
                LocalService { upstream, pools }
            })
            .collect();
        *pools = used;
        Self {
            plugins: instantiate(&snapshot, previous),
            services,
            shard,
            logs_access: snapshot.logs_access(),
            snapshot,
        }
    }

    /// A service of this generation.
    pub fn service(&self, service: ServiceId) -> &LocalService {
        &self.services[service.index()]
    }

    /// This shard's counts for a route.
    pub fn route_metrics(&self, route: RouteId) -> &RouteMetrics {
        self.snapshot.routes[route.index()].series.shard(self.shard)
    }
}

fn adopt_upstream(
    spec: &Arc<crate::upstream::UpstreamSpec>,
    previous: Option<&Local>,
    shard: ShardId,
) -> Rc<LocalUpstream> {
    let same = previous.and_then(|previous| {
        let known = previous.services.iter().map(|service| &service.upstream);
        known.into_iter().find(|upstream| Arc::ptr_eq(&upstream.spec, spec))
    });
    match same {
        Some(upstream) => upstream.clone(),
        None => {
            let old = previous.and_then(|previous| {
                let mut known = previous.services.iter().map(|service| &service.upstream);
                known.find(|upstream| upstream.spec.name == spec.name)
            });
            let mut new = LocalUpstream::new(spec.clone(), shard.0, u64::from(std::process::id()));
            if let Some(old) = old {
                new.adopt(old);
            }
            Rc::new(new)
        }
    }
}

fn instantiate(snapshot: &Snapshot, previous: Option<&Local>) -> Vec<Rc<dyn Plugin>> {
    let known: HashMap<u64, &Rc<dyn Plugin>> = previous
        .map(|local| local.snapshot.plugins.iter().map(|p| p.key).zip(&local.plugins).collect())
        .unwrap_or_default();
    snapshot
        .plugins
        .iter()
        .map(|plugin| plugin.spec.clone().instantiate(known.get(&plugin.key).and_then(|old| old.state())))
        .collect()
}
