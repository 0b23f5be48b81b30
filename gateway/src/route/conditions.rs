//! The criteria of a route that no table indexes: methods, SNIs, headers and rules.
//!
//! Owns how one request is held against them, one function a criterion, so that `explain` can ask each alone. Never
//! looks at hosts or paths. Invariant: a method that no route names gets a bit that only unrestricted routes have.

use portcullis_config::Rule;

use super::expression::{Expression, Place};
use super::rule::Compiled;
use super::spec::{HeaderMatch, HeaderValue, HostName, Protocols, RouteSpec};
use super::words;
use super::{Fault, HeaderLookup, MAX_METHODS, Query, Scheme};

/// The set of methods of a route, one bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MethodSet(u64);

/// Which bit is which method.
#[derive(Debug, Default)]
pub(super) struct MethodTable {
    names: Vec<String>,
}

/// SNIs, headers and the rule of a route, and its methods once more for `explain`.
#[derive(Debug)]
pub(super) struct Conditions {
    pub(super) methods: MethodSet,
    pub(super) snis: Vec<HostName>,
    pub(super) headers: Vec<HeaderCondition>,
    pub(super) rule: Option<(Rule, Compiled)>,
    /// The schemes of a route with a rule, which asks for them as Traefik's routers do.
    schemes: Option<Protocols>,
}

/// A compiled [`HeaderMatch`].
#[derive(Debug)]
pub(super) struct HeaderCondition {
    pub(super) source: HeaderMatch,
    exact: Vec<String>,
    expressions: Vec<Expression>,
}

impl MethodSet {
    pub(super) const ALL: MethodSet = MethodSet(u64::MAX);
    pub(super) const NONE: MethodSet = MethodSet(0);
    const UNNAMED: MethodSet = MethodSet(1 << MAX_METHODS);

    #[inline]
    pub(super) fn meets(self, other: MethodSet) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether every method of `other` is in `self`.
    pub(super) fn covers(self, other: MethodSet) -> bool {
        other.0 & !self.0 == 0
    }
}

impl MethodTable {
    /// The set of these methods, which get bits where they have none yet.
    pub(super) fn set(&mut self, methods: &[String]) -> Result<MethodSet, Fault> {
        if methods.is_empty() {
            return Ok(MethodSet::ALL);
        }
        let mut set = MethodSet(0);
        for method in methods {
            if !is_token(method) {
                return Err(Fault::Method(method.clone()));
            }
            let bit = match self.names.iter().position(|name| name == method) {
                Some(bit) => bit,
                None if self.names.len() < MAX_METHODS => {
                    self.names.push(method.clone());
                    self.names.len() - 1
                }
                None => return Err(Fault::TooManyMethods),
            };
            set.0 |= 1 << bit;
        }
        Ok(set)
    }

    /// The bit of a request's method.
    #[inline]
    pub(super) fn of(&self, method: &[u8]) -> MethodSet {
        match self.names.iter().position(|name| words::same(name.as_bytes(), method)) {
            Some(bit) => MethodSet(1 << bit),
            None => MethodSet::UNNAMED,
        }
    }
}

impl Conditions {
    pub(super) fn compile(
        spec: &RouteSpec,
        methods: &mut MethodTable,
        faults: &mut Vec<Fault>,
    ) -> Conditions {
        let methods = methods.set(&spec.methods).unwrap_or_else(|fault| {
            faults.push(fault);
            MethodSet::ALL
        });
        for sni in &spec.snis {
            if sni.port.is_some() {
                faults.push(Fault::SniPort(sni.name.text().to_owned()));
            }
        }
        let snis = spec.snis.iter().map(|sni| sni.name.clone()).collect();
        let mut headers = Vec::with_capacity(spec.headers.len());
        for header in &spec.headers {
            match HeaderCondition::compile(header) {
                Ok(condition) => headers.push(condition),
                Err(fault) => faults.push(fault),
            }
        }
        let rule = spec.rule.as_ref().and_then(|rule| match Compiled::compile(rule) {
            Ok(compiled) => Some((rule.clone(), compiled)),
            Err(fault) => {
                faults.push(fault);
                None
            }
        });
        let schemes = rule.is_some().then_some(spec.protocols);
        Conditions { methods, snis, headers, rule, schemes }
    }

    /// Whether anything is asked beyond method, host and path.
    pub(super) fn asks_more(&self) -> bool {
        !self.snis.is_empty() || !self.headers.is_empty() || self.rule.is_some()
    }

    /// SNIs, headers and the rule.
    pub(super) fn fit_more<H: HeaderLookup + ?Sized>(&self, query: &Query<'_, H>) -> bool {
        self.sni_fits(query)
            && self.headers.iter().all(|header| header.fits(query.headers))
            && self.rule_fits(query)
    }

    pub(super) fn rule_fits<H: HeaderLookup + ?Sized>(&self, query: &Query<'_, H>) -> bool {
        self.scheme_fits(query.scheme) && self.rule.as_ref().is_none_or(|(_, rule)| rule.fits(query))
    }

    fn scheme_fits(&self, scheme: Scheme) -> bool {
        self.schemes.is_none_or(|own| match scheme {
            Scheme::Http => own.http,
            Scheme::Https => own.https,
        })
    }

    /// A plain request has no SNI and passes, as in Kong.
    pub(super) fn sni_fits<H: ?Sized>(&self, query: &Query<'_, H>) -> bool {
        if self.snis.is_empty() || query.scheme == Scheme::Http {
            return true;
        }
        query.sni.is_some_and(|sni| self.snis.iter().any(|own| own.matches(super::spec::bare_host(sni))))
    }

    /// Whether everything beyond host and path that satisfies `other` satisfies `self`. May say no wrongly.
    pub(super) fn cover(&self, other: &Conditions) -> bool {
        let snis = self.snis.is_empty()
            || (!other.snis.is_empty()
                && other.snis.iter().all(|narrow| self.snis.iter().any(|wide| wide.covers(narrow))));
        let headers =
            self.headers.iter().all(|wide| other.headers.iter().any(|narrow| wide.covers(&narrow.source)));
        // Whether one rule implies another is not decided beyond their being the same.
        let same = |(own, _): &(Rule, Compiled)| other.rule.as_ref().is_some_and(|(its, _)| own == its);
        let rule = self.rule.as_ref().is_none_or(same);
        let schemes = self.schemes.is_none_or(|own| {
            other.schemes.is_some_and(|its| (own.http || !its.http) && (own.https || !its.https))
        });
        self.methods.covers(other.methods) && snis && headers && rule && schemes
    }
}

impl HeaderCondition {
    fn compile(source: &HeaderMatch) -> Result<HeaderCondition, Fault> {
        // Kong's names may have `_` for `-`; fields whose name has one are not let in.
        let source = HeaderMatch {
            name: source.name.to_ascii_lowercase().replace('_', "-"),
            values: source.values.clone(),
        };
        if !is_token(&source.name) || source.name == "host" {
            return Err(Fault::HeaderName(source.name));
        }
        if source.values.is_empty() {
            return Err(Fault::NoHeaderValue(source.name));
        }
        let (mut exact, mut expressions) = (Vec::new(), Vec::new());
        for value in &source.values {
            match value {
                HeaderValue::Exact(text) => exact.push(text.clone()),
                HeaderValue::Regex(pattern) => {
                    let compiled = Expression::compile(pattern, Place::Anywhere)
                        .map_err(|why| Fault::Expression { pattern: pattern.clone(), why })?;
                    expressions.push(compiled);
                }
            }
        }
        Ok(HeaderCondition { source, exact, expressions })
    }

    /// Whether a field of this name has one of the values.
    pub(super) fn fits<H: HeaderLookup + ?Sized>(&self, headers: &H) -> bool {
        headers.any(&self.source.name, &mut |value| {
            self.exact.iter().any(|own| own.as_bytes().eq_ignore_ascii_case(value))
                || self.expressions.iter().any(|own| own.is_match(value))
        })
    }

    /// Expressions are compared by their text only: a value given in `narrow` stands for all its spellings in upper and
    /// lower case, which an expression with `(?-i)` need not take.
    fn covers(&self, narrow: &HeaderMatch) -> bool {
        let takes = |value: &HeaderValue| match value {
            HeaderValue::Exact(text) => self.exact.iter().any(|own| own.eq_ignore_ascii_case(text)),
            HeaderValue::Regex(_) => self.source.values.contains(value),
        };
        self.source.name == narrow.name && narrow.values.iter().all(takes)
    }

    pub(super) fn heavy(&self) -> impl Iterator<Item = &str> {
        let regexes = self.source.values.iter().filter_map(|value| match value {
            HeaderValue::Regex(source) => Some(source.as_str()),
            HeaderValue::Exact(_) => None,
        });
        regexes.zip(&self.expressions).filter(|(_, compiled)| compiled.is_heavy()).map(|(source, _)| source)
    }
}

/// RFC 9110 section 5.6.2.
fn is_token(text: &str) -> bool {
    let tchar = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(tchar)
}
