//! Every plugin of the gateway, one line each.

use super::{Registration, acl, jwt, key_auth, rate_limiting, request_transformer, response_transformer};

/// All plugins, in no order: a chain is sorted by priority.
pub static REGISTRY: &[&Registration] = &[
    &acl::REGISTRATION,
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
