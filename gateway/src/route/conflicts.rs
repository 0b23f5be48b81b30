//! Routes that no request can ever take.
//!
//! Owns the search for them, for `portcullis check`. Invariant: sound, not complete. A route that is reported is
//! certainly dead; a dead route may go unreported, since whether one expression covers another is not decided beyond
//! equal sources and expressions that are a mere prefix (`~/api`, `~/api.*`), nor whether several routes cover one
//! together, other than pair by pair.
//!
//! A pair of host and path is dead if some entry of another route comes before it and takes every request that it
//! takes. The tables narrow the search to the hosts and the paths that could: a wildcard, looked up as if it were a
//! host, finds exactly the groups that cover it, and the walk along a pair's literal path meets exactly the shorter
//! paths.

use super::paths::{EntryId, Stop};
use super::{HostName, Router};
use crate::id::RouteId;

/// A route that is never taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The dead route.
    pub route: RouteId,
    /// Its name.
    pub name: String,
    /// The routes that take its requests, in the order of their numbers.
    pub shadowed_by: Vec<RouteId>,
}

impl Router {
    /// All routes that are known never to match.
    pub fn conflicts(&self) -> Vec<Conflict> {
        // Per route: those that shadow its entries, or `None` once one entry is alive.
        let mut shadows: Vec<Option<Vec<RouteId>>> = vec![Some(Vec::new()); self.routes.len()];
        for id in 0..self.entries.len() as EntryId {
            let own = &mut shadows[self.entries[id as usize].route as usize];
            *own = own.take().and_then(|mut shadows| {
                shadows.push(self.route_of(self.shadow(id)?));
                Some(shadows)
            });
        }
        let dead = self.routes.iter().zip(shadows).filter_map(|(route, shadows)| Some((route, shadows?)));
        dead.map(|(route, mut shadowed_by)| {
            shadowed_by.sort_unstable();
            shadowed_by.dedup();
            Conflict { route: route.spec.id, name: route.spec.name.clone(), shadowed_by }
        })
        .collect()
    }

    /// The best entry of another route that takes all requests of this one.
    fn shadow(&self, id: EntryId) -> Option<EntryId> {
        let entry = &self.entries[id as usize];
        let spec = &self.routes[entry.route as usize].spec;
        let mut groups = vec![self.any_host];
        if let Some(host) = spec.hosts.get(entry.host as usize) {
            let text = match &host.name {
                HostName::Exact(name) => name.clone(),
                HostName::Leading(suffix) => format!("*.{suffix}"),
                HostName::Trailing(prefix) => format!("{prefix}.*"),
            };
            self.hosts.visit(text.as_bytes(), |group, _| {
                groups.push(group);
                EntryId::MAX
            });
        }
        let key = self.key_of(id);
        let mut found = None;
        for group in groups {
            self.walk(group, key, id, |stop| {
                let shadow = self.shadow_at(id, stop);
                found = [found, shadow].into_iter().flatten().min();
                id
            });
        }
        found
    }

    /// Among the entries of a node on the way to the pair's own.
    fn shadow_at(&self, id: EntryId, stop: Stop<'_>) -> Option<EntryId> {
        let own = &self.entries[id as usize];
        let takes_paths = |other: EntryId| {
            self.entries[other as usize].taken.expression().is_none_or(|expression| {
                let compiled = &self.expressions[expression as usize];
                own.taken.expression == expression
                    || (compiled.literal_decides() && compiled.literal().len() == stop.depth)
            })
        };
        let covers = |&other: &EntryId| {
            let entry = &self.entries[other as usize];
            entry.route != own.route
                && entry.taken.takes_port(own.taken.port)
                && takes_paths(other)
                && self.routes[entry.route as usize]
                    .conditions
                    .cover(&self.routes[own.route as usize].conditions)
        };
        let first =
            |list: &[EntryId]| list.iter().copied().take_while(|&other| other < id).find(|o| covers(o));
        [first(stop.plain), first(stop.expressions)].into_iter().flatten().min()
    }

    fn route_of(&self, id: EntryId) -> RouteId {
        self.routes[self.entries[id as usize].route as usize].spec.id
    }
}
