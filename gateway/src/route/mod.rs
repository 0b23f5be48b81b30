//! The router: which route a request takes.
//!
//! Owns matching and precedence. Reads no clock, does no I/O, locks nothing and allocates nothing while it routes (a
//! path expression too large for an automaton is the one exception, see [`Router::heavy_patterns`]). Invariant:
//! [`Router::route`] returns the first route of the total order below that fits, whatever the shape of its tables;
//! the property tests hold it against a plain sort and scan. Read `spec` next, then `compile`.
//!
//! # Precedence
//!
//! The rules of Kong's `traditional_compatible` router (its documentation, "Traditional router", section "Route
//! priority"). A route is ranked once for each pair of its hosts and paths, since Kong also splits a route whose
//! paths differ in kind or length. The first rule that tells two candidates apart decides:
//!
//! | # | rule | compares |
//! |---|------|----------|
//! | 0 | `priority` | higher first; ours, for rules in Traefik's words |
//! | 1 | more kinds of criteria | how many of methods, hosts, headers, SNIs, paths the route lists |
//! | 2 | plain hosts | routes that list hosts, none of them with a wildcard, first |
//! | 3 | more headers | number of header names |
//! | 4 | expression before prefix | the path of this pair |
//! | 5 | `regex_priority` | higher first; expressions only |
//! | 6 | longer path | bytes of the prefix; prefixes only |
//! | 7 | host exact, then with port, then longer | the host of this pair; ours, where Kong's order is arbitrary |
//! | 8 | older | `order`, then the position in the list |
//!
//! Kong sees no difference in rules 7 and 8 and takes whatever its tree yields, so no file can depend on it.
//!
//! Two Kong surprises are kept on purpose: a prefix is a prefix of bytes (`/api` takes `/apix`), and an expression
//! beats a longer prefix. One is not: Kong anchors `~/a|/b` as `^/a|/b`, which matches `/b` anywhere; here the whole
//! alternation is anchored.
//!
//! # Scheme
//!
//! In a route without a rule `protocols` chooses nothing: as in Kong the best route is found first, and if it does not serve the scheme, the
//! request is answered with 426 or a redirect. Going on to a broader route instead would downgrade an https-only
//! path to whatever lies below it. A route with a rule is Traefik's: it takes requests of its schemes only, so that two
//! routers of one rule may redirect http and serve https.

mod automaton;
mod compile;
mod conditions;
mod conflicts;
mod explain;
mod expression;
mod forward;
mod hosts;
mod leaves;
mod lengths;
mod paths;
mod rank;
#[cfg(test)]
mod reference;
mod rule;
mod sets;
mod spec;
mod table;
#[cfg(test)]
mod tests;
mod words;

use std::net::IpAddr;
use std::ops::Range;

use thiserror::Error;

use crate::id::RouteId;

use conditions::{Conditions, MethodSet, MethodTable};
use expression::Expression;
use hosts::HostTable;
use leaves::Leaf;
use lengths::Lengths;
use paths::{EntryId, Group, NodeId, PathTable, Stop};
use sets::Sets;

pub use conflicts::Conflict;
pub use explain::{Candidate, Fate, Miss};
pub use forward::{upstream_path, upstream_path_v1};
pub use rule::{Anchors, anchors};
pub use spec::{
    HeaderMatch, HeaderValue, HostError, HostName, HostPattern, PathPattern, Protocols, RouteSpec,
};

/// What of a request the router looks at.
#[derive(Clone, Copy, Debug)]
pub struct Query<'q, H: ?Sized> {
    /// Host in lower case, without port. Brackets of an IPv6 address and a closing dot do not matter. May be empty.
    pub host: &'q [u8],
    /// The port that the Host header names, or the scheme's default.
    pub port: u16,
    /// The normalised path, without the query string.
    pub path: &'q [u8],
    /// The method token.
    pub method: &'q [u8],
    /// By which the request came (or, from a trusted proxy, was said to have come).
    pub scheme: Scheme,
    /// The TLS server name in lower case.
    pub sni: Option<&'q [u8]>,
    /// The request's header fields.
    pub headers: &'q H,
    /// The query string, if there is one.
    pub query: Option<&'q [u8]>,
    /// The client's address; a rule that asks for one fails without.
    pub client: Option<IpAddr>,
}

/// Transport of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Plain text.
    Http,
    /// TLS.
    Https,
}

/// Access to the header fields of a request.
pub trait HeaderLookup {
    /// Whether any field with this name (lower case) has a value that `accept` takes.
    fn any(&self, name: &str, accept: &mut dyn FnMut(&[u8]) -> bool) -> bool;
}

/// A request without headers.
#[derive(Clone, Copy, Debug)]
pub struct NoHeaders;

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    /// The winner.
    pub route: RouteId,
    /// Bytes of the path that the path criterion consumed; 0 when the route asks nothing of the path.
    pub matched_len: usize,
    /// Whether the route serves the scheme of the request.
    pub scheme: SchemeFit,
    /// The path expression that matched, for [`Router::captures`].
    pub expression: Option<ExpressionId>,
}

/// Whether the winner serves the request's scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchemeFit {
    /// Go on.
    Served,
    /// The route is for https only: answer 426 or redirect (Kong's `https_redirect_status_code`).
    NeedsHttps,
    /// The route is for http only, the request came over TLS.
    NeedsHttp,
}

/// A path expression of a compiled router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpressionId(u32);

/// What the groups of a path expression matched, as ranges of the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captures {
    groups: Vec<(Option<String>, Option<Range<usize>>)>,
}

/// Why a route could not be compiled.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("route {name:?}: {fault}")]
pub struct RouteError {
    /// The route at fault.
    pub route: RouteId,
    /// Its name.
    pub name: String,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong with a route.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Fault {
    /// A prefix must begin with a slash, or no path could have it.
    #[error("path {0:?} does not start with \"/\"")]
    PathNotAbsolute(String),
    /// Longer than any path that the parser lets through.
    #[error("a path of {0} bytes is longer than the {MAX_PATH} that a request may have")]
    PathTooLong(usize),
    /// Not a regular expression.
    #[error("expression {pattern:?}: {why}")]
    Expression {
        /// As given.
        pattern: String,
        /// From the parser, several lines.
        why: String,
    },
    /// Not a token (RFC 9110 section 5.6.2).
    #[error("{0:?} is not a method")]
    Method(String),
    /// More distinct method names over all routes than fit the table.
    #[error("more than {MAX_METHODS} different methods in all routes")]
    TooManyMethods,
    /// Not a token, or `host`, which `hosts` is for.
    #[error("{0:?} is not a header that a route can ask for")]
    HeaderName(String),
    /// Without a value the route could never match.
    #[error("header {0:?} lists no value")]
    NoHeaderValue(String),
    /// A server name has no port.
    #[error("SNI {0:?} has a port")]
    SniPort(String),
}

/// Longest prefix, in bytes.
pub const MAX_PATH: usize = 32 * 1024;

/// Distinct methods over all routes: one bit each, one bit being kept for every method that no route names.
pub const MAX_METHODS: usize = 63;

/// Routes, compiled. Immutable and shared by all shards.
#[derive(Debug)]
pub struct Router {
    routes: Vec<Route>,
    /// In order of precedence: the number of an entry is its rank.
    entries: Vec<Entry>,
    methods: MethodTable,
    hosts: HostTable,
    /// The routes without hosts.
    any_host: Group,
    /// Of the small groups; the others are in `lengths` or in `paths`.
    leaves: Vec<Leaf>,
    lengths: Vec<Lengths>,
    paths: PathTable,
    expressions: Vec<Expression>,
    /// Of the nodes that have many expressions, sorted by node.
    sets: Vec<(NodeId, Sets)>,
}

#[derive(Debug)]
struct Route {
    spec: RouteSpec,
    conditions: Conditions,
}

/// One pair of a route's hosts and paths, with all that a match needs: two to a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
struct Entry {
    methods: MethodSet,
    taken: Taken,
    /// Indices into the routes and into that route's hosts and paths.
    route: u32,
    host: u32,
    path: u32,
}

/// What a match says of its entry, and what takes no room beside it.
#[derive(Clone, Copy, Debug)]
struct Taken {
    id: RouteId,
    /// Index into the expressions, or [`NO_EXPRESSION`].
    expression: u32,
    /// The port that the entry asks for; 0: any.
    port: u16,
    flags: u8,
}

/// Flags of an entry: SNIs or headers have to be looked at; the schemes that the route serves.
const ASKS_MORE: u8 = 1;
const SERVES_HTTP: u8 = 2;
const SERVES_HTTPS: u8 = 4;
const NO_EXPRESSION: u32 = u32::MAX;
const _: () = assert!(size_of::<Entry>() == 32);

/// The best entry so far and what it consumed of the path.
#[derive(Clone, Copy, Debug)]
struct Best {
    entry: EntryId,
    matched_len: usize,
    /// Of the entry, if there is one.
    taken: Taken,
}

/// Worse than every entry.
const NOTHING: Best = Best {
    entry: EntryId::MAX,
    matched_len: 0,
    taken: Taken { id: RouteId(0), expression: NO_EXPRESSION, port: 0, flags: 0 },
};

impl Router {
    /// The route that the request takes.
    pub fn route<H: HeaderLookup + ?Sized>(&self, query: &Query<'_, H>) -> Option<Match> {
        let method = self.methods.of(query.method);
        let mut best = NOTHING;
        self.hosts.visit(spec::bare_host(query.host), |group, first| {
            // The leaf beside the name is fetched with it, the others have to be waited for.
            if !self.try_leaf(first, &mut best, method, query) {
                self.search(group.behind_first(), &mut best, method, query);
            }
            best.entry
        });
        if self.any_host.best < best.entry {
            self.search(self.any_host, &mut best, method, query);
        }
        (best.entry != NOTHING.entry).then(|| Match {
            route: best.taken.id,
            matched_len: best.matched_len,
            scheme: best.taken.protocols().fit(query.scheme),
            expression: best.taken.expression().map(ExpressionId),
        })
    }

    /// Takes the best of a group's entries that fits, if it beats the best so far.
    #[inline]
    fn search<H: HeaderLookup + ?Sized>(
        &self,
        group: Group,
        best: &mut Best,
        method: MethodSet,
        query: &Query<'_, H>,
    ) {
        match group.leaves {
            Group::TRIE => self.paths.walk(group.start, query.path, best.entry, |stop| {
                self.improve(best, stop, method, query);
                best.entry
            }),
            Group::LENGTHS => self.lengths[group.start as usize].walk(query.path, best.entry, |leaf| {
                self.try_leaf(leaf, best, method, query);
                best.entry
            }),
            _ => {
                for leaf in self.leaves_of(group) {
                    if leaf.entry >= best.entry || self.try_leaf(leaf, best, method, query) {
                        return;
                    }
                }
            }
        }
    }

    /// Takes the leaf if it fits; says whether it did. It must beat the best so far.
    #[inline]
    fn try_leaf<H: HeaderLookup + ?Sized>(
        &self,
        leaf: &Leaf,
        best: &mut Best,
        method: MethodSet,
        query: &Query<'_, H>,
    ) -> bool {
        let found = self.leaf_fits(leaf, method, query);
        if let Some(matched_len) = found {
            *best = Best { entry: leaf.entry, matched_len, taken: leaf.taken };
        }
        found.is_some()
    }

    fn leaves_of(&self, group: Group) -> &[Leaf] {
        &self.leaves[group.start as usize..][..usize::from(group.leaves)]
    }

    /// How much of the path the leaf's own takes, if the request fits.
    #[inline]
    fn leaf_fits<H: HeaderLookup + ?Sized>(
        &self,
        leaf: &Leaf,
        method: MethodSet,
        query: &Query<'_, H>,
    ) -> Option<usize> {
        let meets = leaf.methods.meets(method) && leaf.taken.takes_port(query.port);
        if !meets || !leaf.takes(query.path, || self.key_of(leaf.entry)) {
            return None;
        }
        let matched_len = match leaf.taken.expression() {
            Some(expression) => {
                self.expressions[expression as usize].end_of_match_behind_literal(query.path)?
            }
            None => usize::from(leaf.key_len),
        };
        let asks_more = leaf.taken.flags & ASKS_MORE != 0;
        (!asks_more || self.conditions_of(leaf.entry).fit_more(query)).then_some(matched_len)
    }

    /// Calls `visit` with the entries of a group that could take `path`, as [`PathTable::walk`] does.
    fn walk<'t>(
        &'t self,
        group: Group,
        path: &[u8],
        mut bound: EntryId,
        mut visit: impl FnMut(Stop<'t>) -> EntryId,
    ) {
        let stop = |leaf: &'t Leaf| {
            let (own, none) = (std::slice::from_ref(&leaf.entry), &[][..]);
            let (plain, expressions) =
                if leaf.taken.expression().is_some() { (none, own) } else { (own, none) };
            Stop { node: NodeId::MAX, depth: usize::from(leaf.key_len), plain, expressions }
        };
        match group.leaves {
            Group::TRIE => self.paths.walk(group.start, path, bound, visit),
            Group::LENGTHS => {
                self.lengths[group.start as usize].walk(path, bound, |leaf| visit(stop(leaf)));
            }
            _ => {
                for leaf in self.leaves_of(group) {
                    if leaf.entry < bound && leaf.takes(path, || self.key_of(leaf.entry)) {
                        bound = visit(stop(leaf));
                    }
                }
            }
        }
    }

    /// Takes the best of a node's entries that fits, if it beats the best so far.
    #[inline]
    fn improve<H: HeaderLookup + ?Sized>(
        &self,
        best: &mut Best,
        stop: Stop<'_>,
        method: MethodSet,
        query: &Query<'_, H>,
    ) {
        for &id in stop.plain.iter().take_while(|&&id| id < best.entry) {
            if self.fits(id, method, query) {
                *best = Best { entry: id, matched_len: stop.depth, taken: self.entries[id as usize].taken };
                break;
            }
        }
        match stop.expressions.first() {
            Some(&first) if first < best.entry => self.improve_by_expressions(best, stop, method, query),
            _ => {}
        }
    }

    fn improve_by_expressions<H: HeaderLookup + ?Sized>(
        &self,
        best: &mut Best,
        stop: Stop<'_>,
        method: MethodSet,
        query: &Query<'_, H>,
    ) {
        let before = best.entry;
        let fits = |id| self.fits(id, method, query);
        let matches = |id| self.end_of_match(id, query.path).is_some();
        if stop.expressions.len() < sets::WORTHWHILE {
            let found =
                stop.expressions.iter().take_while(|&&id| id < before).find(|&&id| fits(id) && matches(id));
            best.entry = found.map_or(before, |&id| id);
        } else if let Ok(at) = self.sets.binary_search_by_key(&stop.node, |(node, _)| *node) {
            self.sets[at].1.matches(query.path, before, matches, |id| {
                if fits(id) {
                    best.entry = best.entry.min(id);
                }
                best.entry
            });
        }
        if best.entry < before {
            best.matched_len = self.end_of_match(best.entry, query.path).unwrap_or(0);
            best.taken = self.entries[best.entry as usize].taken;
        }
    }

    /// Whether everything but the host's name and the path is as the entry asks.
    #[inline]
    fn fits<H: HeaderLookup + ?Sized>(&self, id: EntryId, method: MethodSet, query: &Query<'_, H>) -> bool {
        let entry = &self.entries[id as usize];
        entry.methods.meets(method)
            && entry.taken.takes_port(query.port)
            && (entry.taken.flags & ASKS_MORE == 0 || self.conditions_of(id).fit_more(query))
    }

    fn conditions_of(&self, id: EntryId) -> &Conditions {
        &self.routes[self.entries[id as usize].route as usize].conditions
    }

    /// For entries on the way along `path`: the walk has compared the literal.
    fn end_of_match(&self, id: EntryId, path: &[u8]) -> Option<usize> {
        let expression = self.entries[id as usize].taken.expression()?;
        self.expressions[expression as usize].end_of_match_behind_literal(path)
    }

    /// What a path must begin with for the entry to be looked at.
    fn key_of(&self, id: EntryId) -> &[u8] {
        let entry = &self.entries[id as usize];
        match entry.taken.expression() {
            Some(expression) => self.expressions[expression as usize].literal(),
            None => match self.routes[entry.route as usize].spec.paths.get(entry.path as usize) {
                Some(PathPattern::Prefix(prefix)) => prefix.as_bytes(),
                _ => b"",
            },
        }
    }

    /// The groups of the path expression by which `found` matched, if the route [`RouteSpec::wants_captures`]; the whole
    /// match alone if not. Allocates. `None` when no expression was involved.
    pub fn captures(&self, found: &Match, path: &[u8]) -> Option<Captures> {
        let expression = self.expressions.get(found.expression?.0 as usize)?;
        Some(Captures { groups: expression.captures(path) })
    }

    /// Number of routes.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether there is no route at all.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// Expressions whose automaton would be too large; they run on a slower engine that may allocate. For `check`.
    pub fn heavy_patterns(&self) -> Vec<(RouteId, &str)> {
        let mut heavy = Vec::new();
        for route in &self.routes {
            if route.conditions.rule.as_ref().is_some_and(|(_, rule)| rule.heavy()) {
                heavy.push((route.spec.id, "a regular expression in its rule"));
            }
            heavy.extend(route.conditions.headers.iter().flat_map(|h| h.heavy()).map(|p| (route.spec.id, p)));
        }
        for entry in self.entries.iter().filter(|entry| entry.host == 0) {
            let spec = &self.routes[entry.route as usize].spec;
            if let (Some(id), Some(PathPattern::Regex { source, .. })) =
                (entry.taken.expression(), spec.paths.get(entry.path as usize))
                && self.expressions[id as usize].is_heavy()
            {
                heavy.push((spec.id, source));
            }
        }
        heavy
    }
}

impl Taken {
    #[inline]
    fn takes_port(self, port: u16) -> bool {
        self.port == 0 || self.port == port
    }

    #[inline]
    fn expression(self) -> Option<u32> {
        (self.expression != NO_EXPRESSION).then_some(self.expression)
    }

    #[inline]
    fn protocols(self) -> Protocols {
        Protocols { http: self.flags & SERVES_HTTP != 0, https: self.flags & SERVES_HTTPS != 0 }
    }
}

impl Captures {
    /// The range of group `index`; 0 is the whole match.
    pub fn get(&self, index: usize) -> Option<Range<usize>> {
        self.groups.get(index)?.1.clone()
    }

    /// The range of a named group.
    pub fn name(&self, name: &str) -> Option<Range<usize>> {
        self.groups.iter().find(|(own, _)| own.as_deref() == Some(name))?.1.clone()
    }

    /// All groups with their names, the whole match first.
    pub fn iter(&self) -> impl Iterator<Item = (Option<&str>, Option<Range<usize>>)> {
        self.groups.iter().map(|(name, range)| (name.as_deref(), range.clone()))
    }
}

impl Protocols {
    /// What a route with these protocols says to a request that came by `scheme`.
    pub fn fit(self, scheme: Scheme) -> SchemeFit {
        match scheme {
            Scheme::Http if !self.http && self.https => SchemeFit::NeedsHttps,
            Scheme::Https if !self.https && self.http => SchemeFit::NeedsHttp,
            _ => SchemeFit::Served,
        }
    }
}

impl HeaderLookup for NoHeaders {
    fn any(&self, _name: &str, _accept: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        false
    }
}

/// Names and values, as `explain` has them from its command line.
impl HeaderLookup for [(String, String)] {
    fn any(&self, name: &str, accept: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.iter().any(|(own, value)| own.eq_ignore_ascii_case(name) && accept(value.as_bytes()))
    }
}
