//! Rules: conditions of any form, compiled.
//!
//! Owns how one request is held against a rule, and what a rule says about hosts and paths beforehand
//! ([`Anchors`]), so that the tables need not offer its route every request. Allocates nothing while it matches, but
//! for a query whose parameters are encoded. Invariant: every request that satisfies a rule satisfies its anchors.

use std::borrow::Cow;

use ipnet::IpNet;
use portcullis_config::{Matcher, Rule};

use super::expression::{Expression, Place};
use super::{Fault, HeaderLookup, Query, spec};
use crate::http::query::parameters;

/// A compiled [`Rule`].
#[derive(Debug)]
pub(super) enum Compiled {
    All(Box<[Compiled]>),
    Any(Box<[Compiled]>),
    Not(Box<Compiled>),
    Host(Box<[u8]>),
    HostRegexp(Expression),
    Path(Box<[u8]>),
    PathPrefix(Box<[u8]>),
    PathRegexp(Expression),
    Method(Box<[u8]>),
    Header(Box<str>, Wanted),
    Query(Box<[u8]>, Wanted),
    ClientIp(IpNet),
}

/// A value, or what it is to look like.
#[derive(Debug)]
pub(super) enum Wanted {
    Exact(Box<[u8]>),
    Pattern(Expression),
}

impl Wanted {
    fn takes(&self, value: &[u8]) -> bool {
        match self {
            Wanted::Exact(own) => **own == *value,
            Wanted::Pattern(pattern) => pattern.is_match(value),
        }
    }
}

impl Compiled {
    pub(super) fn compile(rule: &Rule) -> Result<Compiled, Fault> {
        let all = |parts: &[Rule]| parts.iter().map(Compiled::compile).collect::<Result<_, _>>();
        Ok(match rule {
            Rule::All(parts) => Compiled::All(all(parts)?),
            Rule::Any(parts) => Compiled::Any(all(parts)?),
            Rule::Not(inner) => Compiled::Not(Box::new(Compiled::compile(inner)?)),
            Rule::Is(matcher) => Compiled::matcher(matcher)?,
        })
    }

    fn matcher(matcher: &Matcher) -> Result<Compiled, Fault> {
        let bytes = |text: &str| -> Box<[u8]> { text.as_bytes().into() };
        let pattern = |pattern: &portcullis_config::Pattern| {
            Expression::compile(pattern.as_str(), Place::Within)
                .map_err(|why| Fault::Expression { pattern: pattern.as_str().to_owned(), why })
        };
        Ok(match matcher {
            Matcher::Host(host) => Compiled::Host(spec::bare_host(host.as_bytes()).into()),
            Matcher::HostRegexp(source) => Compiled::HostRegexp(pattern(source)?),
            Matcher::Path(path) => Compiled::Path(bytes(path)),
            Matcher::PathPrefix(prefix) => Compiled::PathPrefix(bytes(prefix)),
            Matcher::PathRegexp(source) => Compiled::PathRegexp(pattern(source)?),
            Matcher::Method(method) => Compiled::Method(bytes(method)),
            Matcher::Header(name, value) => {
                Compiled::Header(name.as_str().into(), Wanted::Exact(bytes(value)))
            }
            Matcher::HeaderRegexp(name, source) => {
                Compiled::Header(name.as_str().into(), Wanted::Pattern(pattern(source)?))
            }
            Matcher::Query(name, value) => Compiled::Query(bytes(name), Wanted::Exact(bytes(value))),
            Matcher::QueryRegexp(name, source) => {
                Compiled::Query(bytes(name), Wanted::Pattern(pattern(source)?))
            }
            Matcher::ClientIp(range) => Compiled::ClientIp(*range),
        })
    }

    /// Whether the request satisfies the rule.
    pub(super) fn fits<H: HeaderLookup + ?Sized>(&self, query: &Query<'_, H>) -> bool {
        match self {
            Compiled::All(parts) => parts.iter().all(|part| part.fits(query)),
            Compiled::Any(parts) => parts.iter().any(|part| part.fits(query)),
            Compiled::Not(inner) => !inner.fits(query),
            Compiled::Host(host) => **host == *spec::bare_host(query.host),
            Compiled::HostRegexp(pattern) => pattern.is_match(spec::bare_host(query.host)),
            Compiled::Path(path) => **path == *query.path,
            Compiled::PathPrefix(prefix) => query.path.starts_with(prefix),
            Compiled::PathRegexp(pattern) => pattern.is_match(query.path),
            Compiled::Method(method) => **method == *query.method,
            Compiled::Header(name, wanted) => query.headers.any(name, &mut |value| wanted.takes(value)),
            Compiled::Query(name, wanted) => parameters(query.query.unwrap_or_default())
                .any(|parameter| parameter.is(name) && wanted.takes(&parameter.value())),
            Compiled::ClientIp(range) => query.client.is_some_and(|client| range.contains(&client)),
        }
    }

    /// Whether some expression runs on the general engine.
    pub(super) fn heavy(&self) -> bool {
        match self {
            Compiled::All(parts) | Compiled::Any(parts) => parts.iter().any(Compiled::heavy),
            Compiled::Not(inner) => inner.heavy(),
            Compiled::HostRegexp(pattern)
            | Compiled::PathRegexp(pattern)
            | Compiled::Header(_, Wanted::Pattern(pattern))
            | Compiled::Query(_, Wanted::Pattern(pattern)) => pattern.is_heavy(),
            _ => false,
        }
    }
}

/// What a request must at least have to satisfy a rule: one of these hosts and one of these prefixes. Empty lists ask
/// nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Anchors<'r> {
    /// Host names, in lower case.
    pub hosts: Vec<Cow<'r, str>>,
    /// Beginnings of the path.
    pub prefixes: Vec<Cow<'r, str>>,
}

/// More hosts or prefixes than this are not worth their entries.
const MAX_ANCHORS: usize = 64;

/// What `rule` says of hosts and paths.
pub fn anchors(rule: &Rule) -> Anchors<'_> {
    match rule {
        Rule::Is(Matcher::Host(host)) => Anchors { hosts: vec![host.into()], prefixes: Vec::new() },
        Rule::Is(Matcher::Path(path) | Matcher::PathPrefix(path)) => {
            Anchors { hosts: Vec::new(), prefixes: vec![path.into()] }
        }
        Rule::Is(_) | Rule::Not(_) => Anchors::default(),
        // Of several that must all hold, the one with the fewest alternatives is the narrowest we know.
        Rule::All(parts) => parts.iter().map(anchors).fold(Anchors::default(), |so_far, part| Anchors {
            hosts: narrower(so_far.hosts, part.hosts),
            prefixes: narrower(so_far.prefixes, part.prefixes),
        }),
        Rule::Any(parts) => {
            let all: Vec<_> = parts.iter().map(anchors).collect();
            let (hosts, prefixes) = (all.iter().map(|one| &one.hosts), all.iter().map(|one| &one.prefixes));
            Anchors { hosts: union(hosts), prefixes: union(prefixes) }
        }
    }
}

fn narrower<'r>(a: Vec<Cow<'r, str>>, b: Vec<Cow<'r, str>>) -> Vec<Cow<'r, str>> {
    let longest = |list: &[Cow<'_, str>]| list.iter().map(|text| text.len()).min().unwrap_or(0);
    match (a.len(), b.len()) {
        (0, _) => b,
        (_, 0) => a,
        (of_a, of_b) if of_b < of_a || (of_a == of_b && longest(&b) > longest(&a)) => b,
        _ => a,
    }
}

/// All alternatives; nothing as soon as one branch says nothing.
fn union<'a, 'r: 'a>(branches: impl Iterator<Item = &'a Vec<Cow<'r, str>>>) -> Vec<Cow<'r, str>> {
    let mut all: Vec<Cow<'r, str>> = Vec::new();
    for branch in branches {
        if branch.is_empty() {
            return Vec::new();
        }
        all.extend(branch.iter().cloned());
    }
    all.sort_unstable();
    all.dedup();
    if all.len() > MAX_ANCHORS { Vec::new() } else { all }
}

#[cfg(test)]
#[path = "rule_tests.rs"]
mod tests;
