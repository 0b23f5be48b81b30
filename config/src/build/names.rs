//! Names and ids of entities, and the references to them.
//!
//! Invariant: within one kind of entity no name and no id belongs to two.

use std::collections::HashMap;

use crate::diagnostic::{Diagnostics, Fault};
use crate::fields::{Fields, Reference};
use crate::model::{CaCertificateRef, CertificateRef, ConsumerRef, RouteRef, ServiceRef, UpstreamRef};
use crate::schema::Entity;
use crate::schema::suggest::did_you_mean;
use crate::source::Span;

/// The names of every kind of entity.
#[derive(Default)]
pub(super) struct AllNames {
    pub(super) services: Names<ServiceRef>,
    pub(super) routes: Names<RouteRef>,
    pub(super) upstreams: Names<UpstreamRef>,
    pub(super) consumers: Names<ConsumerRef>,
    pub(super) certificates: Names<CertificateRef>,
    pub(super) ca_certificates: Names<CaCertificateRef>,
}

/// The names of one kind of entity. A key is what the name is (`id`, `name`, `username`) and the name.
pub(super) struct Names<R> {
    known: HashMap<(&'static str, String), (R, Span)>,
}

impl<R> Default for Names<R> {
    fn default() -> Self {
        Self { known: HashMap::new() }
    }
}

impl<R: Copy + PartialEq> Names<R> {
    /// Registers what `key` of `fields` holds, if anything. A second owner is an error.
    pub(super) fn add(&mut self, entity: Entity, key: &'static str, fields: &Fields<'_>, reference: R) {
        let Some(text) = fields.optional_string(key) else { return };
        let span = fields.span_of(key);
        if let Some((_, first)) = self.known.get(&(key, text.clone())) {
            let place = fields.diagnostics().place(*first);
            let fault = Fault::new(format!("another {} has the {key} `{text}`", entity.as_str()));
            fields.error(key, fault.hint(format!("it was first given at {place}")));
            return;
        }
        self.known.insert((key, text), (reference, span));
    }

    /// What is registered under a name of one sort.
    pub(super) fn find(&self, key: &'static str, text: &str) -> Option<R> {
        self.known.get(&(key, text.to_owned())).map(|(reference, _)| *reference)
    }

    /// What a reference points to; nothing is an error, reported at `path`.
    pub(super) fn resolve(
        &self,
        entity: Entity,
        reference: &Reference<'_>,
        path: &str,
        found: &Diagnostics,
    ) -> Option<R> {
        let sorts = sorts(entity);
        let target = match reference.by {
            // decK writes `name` for consumers too.
            Some("name") if entity == Entity::Consumer => self.find("username", reference.text),
            Some(by) => {
                sorts.iter().find(|sort| **sort == by).and_then(|sort| self.find(sort, reference.text))
            }
            None => sorts.iter().find_map(|sort| self.find(sort, reference.text)),
        };
        if target.is_none() {
            let names = self.known.keys().map(|(_, name)| name.as_str());
            let fault = Fault::new(format!("there is no {} `{}`", entity.as_str(), reference.text));
            let hint = did_you_mean(reference.text, names).or_else(|| self.listing(entity));
            found.error(reference.span, path, fault.maybe_hint(hint));
        }
        target
    }

    /// All names, when they are few enough to be of use in a hint.
    fn listing(&self, entity: Entity) -> Option<String> {
        if self.known.is_empty() {
            return Some(format!("the configuration has no named {}", entity.as_str()));
        }
        if self.known.len() > LISTED {
            return None;
        }
        let mut names: Vec<_> = self.known.keys().map(|(_, name)| format!("`{name}`")).collect();
        names.sort_unstable();
        Some(format!("there are {}", names.join(", ")))
    }
}

/// How many names a hint lists.
const LISTED: usize = 8;

/// The sorts of names an entity has, in the order that a bare reference tries them.
fn sorts(entity: Entity) -> &'static [&'static str] {
    match entity {
        Entity::Consumer => &["username", "id", "custom_id"],
        _ => &["name", "id"],
    }
}
