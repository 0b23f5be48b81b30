//! Every plugin of the gateway, one line each.

use super::{Registration, key_auth};

/// All plugins, in no order: a chain is sorted by priority.
pub static REGISTRY: &[&Registration] = &[&key_auth::REGISTRATION];

/// The plugin with this name.
pub fn find(name: &str) -> Option<&'static Registration> {
    REGISTRY.iter().copied().find(|plugin| plugin.name == name)
}
