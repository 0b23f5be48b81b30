//! The order of precedence, as a key that sorts.
//!
//! Owns the table in the module documentation of [`super`], rule by rule in the order of the fields below. Never
//! matches anything. Invariant: the order is total, so that two compilations of one list route alike.

use std::cmp::Reverse;

use super::spec::{HostName, HostPattern, PathPattern, RouteSpec};

/// Compares as "better is smaller"; the fields decide from the top down.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    priority: Reverse<i64>,
    criteria: Reverse<u8>,
    plain_hosts: Reverse<bool>,
    headers: Reverse<usize>,
    expression: Reverse<bool>,
    regex_priority: Reverse<i32>,
    prefix_len: Reverse<usize>,
    host: Reverse<(bool, bool, usize)>,
    order: u64,
    /// Position of the route, then of the host and of the path in their lists.
    position: (usize, usize, usize),
}

/// Which pair of a route's hosts and paths is ranked; `None` where the route lists none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair<'s> {
    pub(super) host: Option<&'s HostPattern>,
    pub(super) path: Option<&'s PathPattern>,
    /// Indices of route, host and path.
    pub(super) position: (usize, usize, usize),
}

impl Rank {
    pub(super) fn of(spec: &RouteSpec, pair: Pair<'_>) -> Rank {
        let criteria = [
            !spec.methods.is_empty(),
            !spec.hosts.is_empty(),
            !spec.headers.is_empty(),
            !spec.snis.is_empty(),
            !spec.paths.is_empty(),
        ];
        let exact = |host: &HostPattern| matches!(host.name, HostName::Exact(_));
        let (expression, regex_priority, prefix_len) = match pair.path {
            Some(PathPattern::Regex { priority, .. }) => (true, *priority, 0),
            Some(PathPattern::Prefix(prefix)) => (false, 0, prefix.len()),
            None => (false, 0, 0),
        };
        Rank {
            priority: Reverse(spec.priority),
            criteria: Reverse(criteria.iter().map(|&asked| u8::from(asked)).sum()),
            plain_hosts: Reverse(!spec.hosts.is_empty() && spec.hosts.iter().all(exact)),
            headers: Reverse(spec.headers.len()),
            expression: Reverse(expression),
            regex_priority: Reverse(regex_priority),
            prefix_len: Reverse(prefix_len),
            host: Reverse(pair.host.map_or((false, false, 0), |host| {
                (exact(host), host.port.is_some(), if exact(host) { 0 } else { host.name.text().len() })
            })),
            order: spec.order,
            position: pair.position,
        }
    }
}

impl RouteSpec {
    /// Every pair of host and path under which the route is ranked, at least one.
    pub(super) fn pairs(&self, route: usize) -> impl Iterator<Item = Pair<'_>> {
        let hosts = listed(&self.hosts);
        hosts.flat_map(move |(h, host)| {
            listed(&self.paths).map(move |(p, path)| Pair { host, path, position: (route, h, p) })
        })
    }
}

/// The members with their indices, or one `None` for an empty list.
fn listed<T>(list: &[T]) -> impl Iterator<Item = (usize, Option<&T>)> {
    let nothing = list.is_empty().then_some((0, None));
    list.iter().map(Some).enumerate().chain(nothing)
}
