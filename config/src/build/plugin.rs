//! Plugins and their scopes.

use std::collections::HashMap;
use std::path::Path;

use super::{Builder, PendingPlugin};
use crate::diagnostic::Fault;
use crate::fields::Fields;
use crate::model::{Plugin, Protocol, Scope};
use crate::node::{Node, Value};
use crate::schema::check::Path as KeyPath;
use crate::schema::conceal::conceal;
use crate::schema::suggest::nearest;
use crate::schema::{Entity, Kind, PluginCatalog, Section, text};
use crate::source::Span;

impl<'a> Builder<'a> {
    /// Builds the plugins met so far, and those at the top.
    pub(super) fn build_plugins(&mut self) {
        let mut pending = std::mem::take(&mut self.pending);
        let top = self.all("plugins").into_iter();
        pending.extend(top.map(|(_, fields)| PendingPlugin { fields, scope: Scope::default() }));
        let mut scopes: HashMap<(String, Scope), Span> = HashMap::new();
        let mut instances: HashMap<String, Span> = HashMap::new();
        for plugin in pending {
            let Some(plugin) = self.plugin(&plugin) else { continue };
            if plugin.enabled {
                let key = (plugin.name.clone(), plugin.scope);
                let message = format!("the plugin `{}` is on this scope already", plugin.name);
                self.unique_plugin(&mut scopes, key, &plugin, message);
            }
            if let Some(name) = plugin.instance_name.clone() {
                let message = format!("another plugin has the instance_name `{name}`");
                self.unique_plugin(&mut instances, name, &plugin, message);
            }
            self.plugins.push(plugin);
        }
        self.warn_of_closed_doors();
    }

    /// An authentication plugin without a single credential of its kind refuses everybody.
    fn warn_of_closed_doors(&self) {
        for plugin in
            self.plugins.iter().filter(|plugin| plugin.enabled && plugin.config.get("anonymous").is_none())
        {
            let (list, any) = match plugin.name.as_str() {
                // Published keys need no credential.
                "jwt" if ["jwks_uris", "issuer"].iter().any(|key| plugin.config.get(key).is_some()) => {
                    continue;
                }
                // Users of its own need none either.
                "basic-auth"
                    if ["users", "users_file"].iter().any(|key| plugin.config.get(key).is_some()) =>
                {
                    continue;
                }
                "jwt" => ("jwt_secrets", self.consumers.iter().any(|one| !one.jwt_secrets.is_empty())),
                "key-auth" => ("keyauth_credentials", self.consumers.iter().any(|one| !one.keys.is_empty())),
                "basic-auth" => {
                    ("basicauth_credentials", self.consumers.iter().any(|one| !one.basic.is_empty()))
                }
                "hmac-auth" => {
                    ("hmacauth_credentials", self.consumers.iter().any(|one| !one.hmac.is_empty()))
                }
                "acl" => ("acls", self.consumers.iter().any(|one| !one.groups.is_empty())),
                _ => continue,
            };
            if !any {
                let fault =
                    Fault::new(format!("no consumer has {list}, so `{}` lets nobody through", plugin.name));
                self.found.warning(plugin.origin.span, &plugin.origin.path, fault);
            }
        }
    }

    fn unique_plugin<K: Eq + std::hash::Hash>(
        &self,
        seen: &mut HashMap<K, Span>,
        key: K,
        plugin: &Plugin,
        message: String,
    ) {
        if let Some(first) = seen.get(&key) {
            let fault =
                Fault::new(message).hint(format!("it was first given at {}", self.found.place(*first)));
            self.found.error(plugin.origin.span, &plugin.origin.path, fault);
            return;
        }
        seen.insert(key, plugin.origin.span);
    }

    fn plugin(&self, pending: &PendingPlugin<'a>) -> Option<Plugin> {
        let fields = &pending.fields;
        let name = fields.optional_string("name")?;
        let scope = self.scope(pending);
        let off = fields.is_set("consumer_group");
        let enabled = fields.bool("enabled") && !off;
        let Some(section) = self.catalog.section(&name) else {
            self.unknown_plugin(&name, fields);
            return None;
        };
        let mut config = match fields.get("config") {
            Some(node) => node.clone(),
            None => Node::empty_map(fields.origin().span),
        };
        let base = fields.path_of("config");
        conceal(&mut config, section, self.found);
        anchor(&mut config, section, self.folder_of_text(fields), self.catalog);
        self.checker.section(&config, section, &KeyPath::Base(&base));
        Some(Plugin {
            name,
            id: fields.optional_string("id"),
            instance_name: fields.optional_string("instance_name"),
            enabled,
            scope,
            protocols: fields.words("protocols").into_iter().filter_map(Protocol::from_word).collect(),
            tags: fields.strings("tags"),
            config,
            defaults: self.defaults,
            origin: fields.origin(),
        })
    }

    /// What relative paths in a plugin are against.
    fn folder_of_text(&self, fields: &Fields<'_>) -> &'a Path {
        let file = fields.origin().span.file;
        let written = self.documents.iter().find(|document| document.root.origin().span.file == file);
        written.or(self.documents.first()).map_or(Path::new(""), |document| &document.folder)
    }

    fn scope(&self, pending: &PendingPlugin<'_>) -> Scope {
        let fields = &pending.fields;
        let names = &self.names;
        let named = Scope {
            service: fields.reference("service").and_then(|one| {
                names.services.resolve(Entity::Service, &one, &fields.path_of("service"), self.found)
            }),
            route: fields.reference("route").and_then(|one| {
                names.routes.resolve(Entity::Route, &one, &fields.path_of("route"), self.found)
            }),
            consumer: fields.reference("consumer").and_then(|one| {
                names.consumers.resolve(Entity::Consumer, &one, &fields.path_of("consumer"), self.found)
            }),
        };
        let parent = pending.scope;
        if parent.service.is_some() && named.service.is_some_and(|one| Some(one) != parent.service) {
            fields.error("service", "the plugin is nested in one service and refers to another");
        }
        if parent.route.is_some() && named.route.is_some_and(|one| Some(one) != parent.route) {
            fields.error("route", "the plugin is nested in one route and refers to another");
        }
        if parent.consumer.is_some() && named.consumer.is_some_and(|one| Some(one) != parent.consumer) {
            fields.error("consumer", "the plugin is nested in one consumer and refers to another");
        }
        Scope {
            service: parent.service.or(named.service),
            route: parent.route.or(named.route),
            consumer: parent.consumer.or(named.consumer),
        }
    }

    fn unknown_plugin(&self, name: &str, fields: &Fields<'_>) {
        let mut known = self.catalog.names();
        known.sort_unstable();
        let hint = match nearest(name, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.is_empty() => "no plugin is known".to_owned(),
            None => format!("the plugins are {}", known.join(", ")),
        };
        let fault = Fault::new(format!("there is no plugin `{name}`")).hint(hint);
        // A plugin that is off does no harm by not existing; leaving out one that is on would.
        if fields.bool("enabled") {
            fields.error("name", fault);
        } else {
            fields.warning("name", fault);
        }
    }
}

/// Puts relative paths of files under `folder`, in a plugin's `config:` and in those of plugins inside it, which are maps
/// with `name` and `config`.
fn anchor(node: &mut Node, section: &'static Section, folder: &Path, catalog: &dyn PluginCatalog) {
    let Value::Map(entries) = &mut node.value else { return };
    let inner = entries.iter().find(|entry| entry.name == "name").and_then(|entry| entry.value.text());
    let inner = inner.and_then(|name| catalog.section(name));
    for entry in entries {
        let Some(key) = section.key(&entry.name) else { continue };
        match (&key.kind, &mut entry.value.value) {
            (Kind::Text(form), Value::Scalar(scalar)) if std::ptr::eq(*form, &text::FILE) => {
                scalar.text = folder.join(&scalar.text).display().to_string();
            }
            (Kind::Section(section), _) => anchor(&mut entry.value, section, folder, catalog),
            (Kind::List { of: Kind::Section(section), .. }, Value::List(items)) => {
                items.iter_mut().for_each(|item| anchor(item, section, folder, catalog));
            }
            (Kind::Any, Value::Map(_)) if entry.name == "config" => {
                if let Some(section) = inner {
                    anchor(&mut entry.value, section, folder, catalog);
                }
            }
            _ => {}
        }
    }
}
