//! Why a request takes the route that it takes: every route with what it missed.
//!
//! Owns the report for `portcullis explain`. Never used while serving. Invariant: the candidate reported as taken is
//! the one that [`Router::route`] returns, and a candidate has no miss if and only if its route fits the request. SNIs,
//! headers and methods are asked with the functions that serve requests; hosts and paths with the pattern's own, since
//! the tables only know what fits.

use std::collections::BTreeMap;

use super::{Entry, HeaderLookup, Match, PathPattern, Query, Router, spec};
use crate::id::RouteId;

/// What became of one route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The route.
    pub route: RouteId,
    /// Its name.
    pub name: String,
    /// Won, lost or out.
    pub fate: Fate,
    /// The host of the pair that came nearest, as an index into the route's list.
    pub host: Option<usize>,
    /// The path of that pair, likewise.
    pub path: Option<usize>,
}

/// What became of a candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is the match.
    Taken(Match),
    /// It fits, but one of higher precedence does too.
    Outranked,
    /// It does not fit.
    Missed(Vec<Miss>),
}

/// A criterion that the request does not meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Miss {
    /// None of the hosts.
    Host,
    /// The host, but on another port.
    Port,
    /// None of the paths.
    Path,
    /// None of the methods.
    Method,
    /// The header of this name is not there or has none of the values.
    Header(String),
    /// None of the server names.
    Sni,
    /// The rule.
    Rule,
}

impl Router {
    /// All routes: the taken one, then those that it outranked, best first, then the rest, nearest first.
    pub fn explain<H: HeaderLookup + ?Sized>(&self, query: &Query<'_, H>) -> Vec<Candidate> {
        let taken = self.route(query);
        // Per route the entry with the fewest misses; of equals the better one, hence the first.
        let mut nearest: BTreeMap<u32, (usize, &Entry, Vec<Miss>)> = BTreeMap::new();
        for (rank, entry) in self.entries.iter().enumerate() {
            let misses = self.misses(entry, query);
            match nearest.get(&entry.route) {
                Some((_, _, before)) if before.len() <= misses.len() => {}
                _ => drop(nearest.insert(entry.route, (rank, entry, misses))),
            }
        }
        let mut found: Vec<_> = nearest.into_values().collect();
        found.sort_by_key(|(rank, _, misses)| (misses.len(), *rank));
        let report = |(position, (_, entry, misses)): (usize, (usize, &Entry, Vec<Miss>))| {
            let spec = &self.routes[entry.route as usize].spec;
            let fate = match (taken, position) {
                (Some(taken), 0) if misses.is_empty() => Fate::Taken(taken),
                _ if misses.is_empty() => Fate::Outranked,
                _ => Fate::Missed(misses),
            };
            Candidate {
                route: spec.id,
                name: spec.name.clone(),
                fate,
                host: (!spec.hosts.is_empty()).then_some(entry.host as usize),
                path: (!spec.paths.is_empty()).then_some(entry.path as usize),
            }
        };
        found.into_iter().enumerate().map(report).collect()
    }

    fn misses<H: HeaderLookup + ?Sized>(&self, entry: &Entry, query: &Query<'_, H>) -> Vec<Miss> {
        let route = &self.routes[entry.route as usize];
        let mut misses = Vec::new();
        if let Some(host) = route.spec.hosts.get(entry.host as usize) {
            if !host.name.matches(spec::bare_host(query.host)) {
                misses.push(Miss::Host);
            } else if !host.matches(spec::bare_host(query.host), query.port) {
                misses.push(Miss::Port);
            }
        }
        let path_fits = match (route.spec.paths.get(entry.path as usize), entry.taken.expression()) {
            (Some(PathPattern::Prefix(prefix)), _) => query.path.starts_with(prefix.as_bytes()),
            (_, Some(expression)) => self.expressions[expression as usize].is_match(query.path),
            _ => true,
        };
        if !path_fits {
            misses.push(Miss::Path);
        }
        if !route.conditions.methods.meets(self.methods.of(query.method)) {
            misses.push(Miss::Method);
        }
        if !route.conditions.sni_fits(query) {
            misses.push(Miss::Sni);
        }
        if !route.conditions.rule_fits(query) {
            misses.push(Miss::Rule);
        }
        let headers = route.conditions.headers.iter().filter(|header| !header.fits(query.headers));
        misses.extend(headers.map(|header| Miss::Header(header.source.name.clone())));
        misses
    }
}
