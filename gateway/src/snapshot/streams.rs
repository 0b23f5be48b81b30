//! Routes for TLS streams that are passed on unopened: by server name, and by nothing else.
//!
//! | asked for | pattern | takes it |
//! |---|---|---|
//! | `a.example.com` | `a.example.com` | first |
//! | `a.example.com` | `*.example.com` | then, the longest first; one label or more, as in routes for requests |
//! | `a.example.com` | `a.example.*` | then, the longest first |
//!
//! Owns the table. Never: the bytes. Invariant: names are lower case.

use std::collections::HashMap;

use portcullis_config::{self as config, Config, Diagnostics};

use crate::id::RouteId;

/// The compiled table.
#[derive(Debug, Default)]
pub struct StreamRoutes {
    exact: HashMap<Box<str>, RouteId>,
    /// With the leading dot; longest first.
    suffixes: Vec<(Box<str>, RouteId)>,
    /// With the trailing dot; longest first.
    prefixes: Vec<(Box<str>, RouteId)>,
}

impl StreamRoutes {
    /// The routes with the protocol `tls_passthrough`. Where two claim one name, the first keeps it.
    pub(super) fn compile(config: &Config, found: &Diagnostics) -> Self {
        let mut table = Self::default();
        for (index, route) in config.routes.iter().enumerate() {
            let serves = |service: &config::ServiceRef| config[*service].enabled;
            if !route.enabled || !route.is_passthrough() || !route.service.as_ref().is_some_and(serves) {
                continue;
            }
            for pattern in &route.snis {
                if let Some(other) = table.insert(&pattern.name, RouteId(index as u32)) {
                    let taken = &config.routes[other.index()].name;
                    let message = format!("the route `{taken}` takes one of these server names already");
                    found.warning(route.origin.span, &route.origin.path, message);
                }
            }
        }
        table.suffixes.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        table.prefixes.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        table
    }

    fn insert(&mut self, name: &config::HostName, route: RouteId) -> Option<RouteId> {
        let list = match name {
            config::HostName::Exact(name) => {
                let taken = self.exact.get(name.as_str()).copied();
                self.exact.entry(name.as_str().into()).or_insert(route);
                return taken;
            }
            config::HostName::Suffix(_) => &mut self.suffixes,
            config::HostName::Prefix(_) => &mut self.prefixes,
        };
        let text = match name {
            config::HostName::Suffix(text) => format!(".{}", text.trim_start_matches('.')),
            config::HostName::Prefix(text) => format!("{}.", text.trim_end_matches('.')),
            config::HostName::Exact(_) => return None,
        };
        let taken = list.iter().find(|(known, _)| **known == *text).map(|(_, route)| *route);
        if taken.is_none() {
            list.push((text.into(), route));
        }
        taken
    }

    /// The route for a server name in lower case.
    pub fn find(&self, name: &str) -> Option<RouteId> {
        let fits = |(text, route): &(Box<str>, RouteId), whole: bool| {
            whole.then_some(*route).filter(|_| name.len() > text.len())
        };
        self.exact
            .get(name)
            .copied()
            .or_else(|| self.suffixes.iter().find_map(|one| fits(one, name.ends_with(&*one.0))))
            .or_else(|| self.prefixes.iter().find_map(|one| fits(one, name.starts_with(&*one.0))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_name_takes_it() {
        let mut table = StreamRoutes::default();
        let patterns = [
            config::HostName::Suffix("example.com".into()),
            config::HostName::Exact("a.example.com".into()),
            config::HostName::Prefix("a.example".into()),
            config::HostName::Suffix("b.example.com".into()),
        ];
        for (index, pattern) in patterns.iter().enumerate() {
            assert_eq!(table.insert(pattern, RouteId(index as u32)), None);
        }
        assert_eq!(table.insert(&patterns[0], RouteId(9)), Some(RouteId(0)));
        assert_eq!(table.insert(&patterns[1], RouteId(9)), Some(RouteId(1)));
        table.suffixes.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        for (name, route) in [
            ("a.example.com", Some(1)),
            ("x.example.com", Some(0)),
            ("x.b.example.com", Some(3)),
            ("b.example.com", Some(0)),
            ("example.com", None),
            ("a.example.org", Some(2)),
            ("a.example.", None),
            ("notexample.com", None),
            ("", None),
        ] {
            assert_eq!(table.find(name), route.map(RouteId), "{name}");
        }
    }
}
