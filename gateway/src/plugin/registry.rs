//! Every plugin of the gateway, one line each.

use portcullis_config::{PluginCatalog, Section};

use super::{Registration, jwt, key_auth, rate_limiting, request_transformer, response_transformer};

/// All plugins, in no order: a chain is sorted by priority.
pub static REGISTRY: &[&Registration] = &[
    &jwt::REGISTRATION,
    &key_auth::REGISTRATION,
    &rate_limiting::REGISTRATION,
    &request_transformer::REGISTRATION,
    &response_transformer::REGISTRATION,
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
