//! Compiles plugin instances.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use portcullis_config::{self as config, Config, Diagnostics};

use super::PluginInstance;
use crate::id::ConsumerId;
use crate::plugin::chain::{Candidate, Chain, PluginIndex, Scope};
use crate::plugin::consumer::Consumers;
use crate::plugin::registry::find;
use crate::plugin::{CompileCx, Wants};

type Candidates = Vec<Candidate<config::RouteRef, config::ServiceRef>>;

/// The chain of each route, in the order of the configuration, and what its plugins look at beside the request.
pub(super) type Chains = Vec<(Chain, Wants)>;

/// All enabled instances, and the chains that they make.
pub(super) fn compile(
    config: &Config,
    consumers: &Arc<Consumers>,
    found: &Diagnostics,
) -> (Vec<PluginInstance>, Chains) {
    let mut instances = Vec::new();
    let mut candidates = Vec::new();
    for plugin in config.plugins.iter().filter(|plugin| plugin.enabled) {
        let Some(registration) = find(&plugin.name) else { continue }; // the catalog is the registry
        let key = key_of(config, plugin);
        let cx = CompileCx { consumers, config, instance: key };
        let Some(spec) = (registration.compile)(plugin, &cx, found) else {
            continue; // said in the diagnostics
        };
        candidates.push(Candidate {
            name: registration.name,
            priority: registration.priority,
            scope: Scope {
                consumer: plugin.scope.consumer.map(|consumer| ConsumerId(consumer.0)),
                route: plugin.scope.route,
                service: plugin.scope.service,
            },
            index: PluginIndex(instances.len() as u32),
        });
        instances.push(PluginInstance { name: registration.name, spec, key });
    }
    let chains = chains(config, &candidates, &instances);
    (instances, chains)
}

fn chains(config: &Config, candidates: &Candidates, plugins: &[PluginInstance]) -> Chains {
    let is_capture = |key: &config::HashKey| matches!(key, config::HashKey::UriCapture(_));
    // Balancing may look at captures too; who knows which route leads there.
    let hashed =
        config.upstreams.iter().any(|one| is_capture(&one.hash_on) || is_capture(&one.hash_fallback));
    let always = Wants { captures: hashed, ..Wants::default() };
    let of = |(index, route): (usize, &config::Route)| {
        let chain = Chain::compile(candidates, &config::RouteRef(index as u32), route.service.as_ref());
        let each = chain.instances().map(|index| plugins[index.0 as usize].spec.wants());
        let wants = each.fold(always, Wants::or);
        (chain, wants)
    };
    config.routes.iter().enumerate().map(of).collect()
}

/// The same number for the same instance across reloads: by what it is put on, not by where it stands in the file. So a
/// changed limit goes on with the counts it has.
fn key_of(config: &Config, plugin: &config::Plugin) -> u64 {
    let mut hasher = DefaultHasher::new();
    plugin.name.hash(&mut hasher);
    plugin.instance_name.hash(&mut hasher);
    plugin.scope.service.map(|service| &config[service].name).hash(&mut hasher);
    plugin.scope.route.map(|route| &config[route].name).hash(&mut hasher);
    plugin.scope.consumer.map(|consumer| config[consumer].name()).hash(&mut hasher);
    hasher.finish()
}
