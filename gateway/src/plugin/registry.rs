//! Every plugin of the gateway, one line each.

use portcullis_config::{PluginCatalog, Section};

use super::{
    Registration, acl, bandwidth_limit, basic_auth, bot_detection, correlation_id, cors, forward_auth,
    grpc_web, in_flight_limit, introspection, ip_restriction, jwt, key_auth, mtls_auth, path_rewrite,
    prometheus, rate_limiting, rate_limiting_advanced, redirect, request_size_limiting, request_termination,
    request_transformer, request_validator, response_transformer, security_headers, token_bucket,
};

/// All plugins, in no order: a chain is sorted by priority.
pub static REGISTRY: &[&Registration] = &[
    &acl::REGISTRATION,
    &bandwidth_limit::REGISTRATION,
    &basic_auth::REGISTRATION,
    &bot_detection::REGISTRATION,
    &correlation_id::REGISTRATION,
    &cors::REGISTRATION,
    &forward_auth::REGISTRATION,
    &grpc_web::REGISTRATION,
    &in_flight_limit::REGISTRATION,
    &introspection::REGISTRATION,
    &ip_restriction::REGISTRATION,
    &jwt::REGISTRATION,
    &key_auth::REGISTRATION,
    &mtls_auth::REGISTRATION,
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
];

/// The plugin with this name.
pub fn find(name: &str) -> Option<&'static Registration> {
    REGISTRY.iter().copied().find(|plugin| plugin.name == name)
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
