//! Every plugin of the gateway, one line each.

use std::path::PathBuf;

use portcullis_config::{self as config, Node, PluginCatalog, Section};

use super::{
    Registration, acl, bandwidth_limit, basic_auth, bot_detection, buffering, canary, compression,
    correlation_id, cors, error_pages, fault_injection, forward_auth, grpc_web, hmac_auth, in_flight_limit,
    introspection, ip_restriction, jwt, key_auth, mirror, mtls_auth, multi_auth, path_rewrite, prometheus,
    rate_limiting, rate_limiting_advanced, redirect, request_size_limiting, request_termination,
    request_transformer, request_validator, response_transformer, security_headers, token_bucket,
    traffic_split,
};

/// All plugins, in no order: a chain is sorted by priority.
pub static REGISTRY: &[&Registration] = &[
    &acl::REGISTRATION,
    &bandwidth_limit::REGISTRATION,
    &basic_auth::REGISTRATION,
    &bot_detection::REGISTRATION,
    &buffering::REGISTRATION,
    &canary::REGISTRATION,
    &compression::REGISTRATION,
    &correlation_id::REGISTRATION,
    &cors::REGISTRATION,
    &error_pages::REGISTRATION,
    &fault_injection::REGISTRATION,
    &forward_auth::REGISTRATION,
    &grpc_web::REGISTRATION,
    &hmac_auth::REGISTRATION,
    &in_flight_limit::REGISTRATION,
    &introspection::REGISTRATION,
    &ip_restriction::REGISTRATION,
    &jwt::REGISTRATION,
    &key_auth::REGISTRATION,
    &mirror::REGISTRATION,
    &mtls_auth::REGISTRATION,
    &multi_auth::REGISTRATION,
    &path_rewrite::REGISTRATION,
    &prometheus::REGISTRATION,
    &rate_limiting::REGISTRATION,
    &rate_limiting_advanced::REGISTRATION,
    &redirect::REGISTRATION,
    &request_size_limiting::REGISTRATION,
    &request_termination::REGISTRATION,
    &request_transformer::REGISTRATION,
    &request_validator::REGISTRATION,
    &response_transformer::REGISTRATION,
    &security_headers::REGISTRATION,
    &token_bucket::REGISTRATION,
    &traffic_split::REGISTRATION,
];

/// The plugin with this name.
pub fn find(name: &str) -> Option<&'static Registration> {
    REGISTRY.iter().copied().find(|plugin| plugin.name == name)
}

/// Keys of plugins that name files, which are read where the plugin is compiled.
const FILE_KEYS: &[(&str, &[&str])] =
    &[("basic-auth", &["users_file"]), ("ip-restriction", &["allow_file", "deny_file"])];

/// The files that a plugin's `config:` names.
pub fn files(plugin: &config::Plugin) -> Vec<PathBuf> {
    let mut files = Vec::new();
    collect_files(&plugin.name, &plugin.config, &mut files);
    files
}

fn collect_files(name: &str, config: &Node, files: &mut Vec<PathBuf>) {
    for (_, keys) in FILE_KEYS.iter().filter(|(plugin, _)| *plugin == name) {
        let named = keys.iter().filter_map(|key| config.get(key)?.text());
        files.extend(named.map(PathBuf::from));
    }
    if name == multi_auth::REGISTRATION.name {
        for member in ["any", "all"].iter().filter_map(|key| config.get(key)).flat_map(Node::items) {
            if let (Some(name), Some(config)) =
                (member.get("name").and_then(Node::text), member.get("config"))
            {
                collect_files(name, config, files);
            }
        }
    }
}

/// The plugins of this gateway, as the configuration's checks see them.
#[derive(Clone, Copy, Debug, Default)]
pub struct GatewayCatalog;

impl PluginCatalog for GatewayCatalog {
    fn names(&self) -> Vec<&'static str> {
        REGISTRY.iter().map(|plugin| plugin.name).collect()
    }

    fn section(&self, name: &str) -> Option<&'static Section> {
        find(name).map(|plugin| plugin.section)
    }
}
