//! What a route asks of a request, as plain values: the input of the compiler.
//!
//! Owns the textual forms of patterns (`*.example.com:8443`, `~/users/(\d+)`) and the rules for one pattern against
//! one value. Never looks at two routes at once; that is `rank` and `compile`. Invariant: names of hosts are
//! kept in lower case, so that nothing is folded while a request waits.

use portcullis_config::Rule;
use thiserror::Error;

use crate::id::RouteId;

/// One route. An empty list asks nothing; every list that is not empty must be satisfied by one of its members
/// (headers: by all of them).
#[derive(Clone, Debug, Default)]
pub struct RouteSpec {
    /// What the match reports.
    pub id: RouteId,
    /// For errors, `explain` and conflict reports.
    pub name: String,
    /// Of the Host header or `:authority`.
    pub hosts: Vec<HostPattern>,
    /// Of the normalised path, without the query string.
    pub paths: Vec<PathPattern>,
    /// Method tokens, case-sensitive (RFC 9110 section 9.1).
    pub methods: Vec<String>,
    /// All must hold.
    pub headers: Vec<HeaderMatch>,
    /// TLS server names. Asked only of `https` requests, as in Kong (a plain request passes this test).
    pub snis: Vec<HostPattern>,
    /// A condition of any form, beside the others.
    pub rule: Option<Rule>,
    /// Precedence before every other rule of it: higher first.
    pub priority: i64,
    /// Never decides which route wins; see [`super::SchemeFit`].
    pub protocols: Protocols,
    /// Whether the groups of its path expressions are used, see [`super::Router::captures`]. Costs memory.
    pub wants_captures: bool,
    /// Age: of routes that are equal by every other rule, the lowest wins; then the position in the list.
    pub order: u64,
}

/// A host name, perhaps with one wildcard label at one end, perhaps bound to a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPattern {
    /// Which names.
    pub name: HostName,
    /// Matches this port only (of the Host header, or the scheme's default when it names none).
    pub port: Option<u16>,
}

/// The name part of a [`HostPattern`], in lower case, without brackets or a closing dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostName {
    /// `example.com`
    Exact(String),
    /// `*.example.com`, kept as `example.com`: one or more labels in front.
    Leading(String),
    /// `example.*`, kept as `example`: one or more labels behind.
    Trailing(String),
}

/// A path criterion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathPattern {
    /// Every path that starts with these bytes: `/api` takes `/apix` too, as in Kong. Starts with `/`, normalised by
    /// the rules for requests.
    Prefix(String),
    /// A regular expression that must match from the first byte; what follows the match is free, as in Kong.
    Regex {
        /// Without Kong's `~`. RE2 syntax over bytes: `.` is any byte but line feed, classes are ASCII.
        source: String,
        /// Kong's `regex_priority`: higher is tried first.
        priority: i32,
    },
}

/// A header that must be present with one of the values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderMatch {
    /// In any case; Kong's `_` means `-` (`user_agent` is `User-Agent`).
    pub name: String,
    /// Any of them, in any field of that name.
    pub values: Vec<HeaderValue>,
}

/// One acceptable value of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderValue {
    /// Equal, without regard to ASCII case.
    Exact(String),
    /// Kong's `~*`: matches somewhere in the value, without regard to case.
    Regex(String),
}

/// The schemes that a route serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocols {
    /// Over plain text.
    pub http: bool,
    /// Over TLS.
    pub https: bool,
}

/// A host pattern that cannot be one.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("host {text:?}: {why}")]
pub struct HostError {
    /// As written.
    pub text: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl HostPattern {
    /// Reads `example.com`, `*.example.com`, `example.*`, an IPv4 or IPv6 address, each with an optional `:port`.
    /// A wildcard is a whole label at one end, as Kong demands.
    pub fn parse(text: &str) -> Result<HostPattern, HostError> {
        let refuse = |why| HostError { text: text.to_owned(), why };
        let (name, port) =
            split_port(text).ok_or_else(|| refuse("the port is not a number from 1 to 65535"))?;
        let name = String::from_utf8(bare_host(name.as_bytes()).to_ascii_lowercase())
            .map_err(|_| refuse("not a host name"))?;
        if let Some(suffix) = name.strip_prefix("*.") {
            return Ok(HostPattern { name: HostName::Leading(checked(suffix, refuse)?), port });
        }
        if let Some(prefix) = name.strip_suffix(".*") {
            return Ok(HostPattern { name: HostName::Trailing(checked(prefix, refuse)?), port });
        }
        Ok(HostPattern { name: HostName::Exact(checked(&name, refuse)?), port })
    }

    /// Whether the name (lower case, bare) and the port fit.
    pub fn matches(&self, host: &[u8], port: u16) -> bool {
        self.port.is_none_or(|own| own == port) && self.name.matches(host)
    }
}

impl HostName {
    /// Whether a bare lower-case host fits.
    pub fn matches(&self, host: &[u8]) -> bool {
        match self {
            HostName::Exact(name) => name.as_bytes() == host,
            HostName::Leading(suffix) => host
                .strip_suffix(suffix.as_bytes())
                .and_then(|front| front.strip_suffix(b"."))
                .is_some_and(|front| !front.is_empty()),
            HostName::Trailing(prefix) => host
                .strip_prefix(prefix.as_bytes())
                .and_then(|back| back.strip_prefix(b"."))
                .is_some_and(|back| !back.is_empty()),
        }
    }

    /// Whether every host that `other` takes is taken by `self`.
    pub fn covers(&self, other: &HostName) -> bool {
        match (self, other) {
            (_, HostName::Exact(name)) => self.matches(name.as_bytes()),
            (HostName::Leading(own), HostName::Leading(its)) => own == its || self.matches(its.as_bytes()),
            (HostName::Trailing(own), HostName::Trailing(its)) => own == its || self.matches(its.as_bytes()),
            _ => false,
        }
    }

    pub(super) fn text(&self) -> &str {
        match self {
            HostName::Exact(text) | HostName::Leading(text) | HostName::Trailing(text) => text,
        }
    }
}

impl PathPattern {
    /// Reads Kong's form: a leading `~` makes a regular expression, anything else is a prefix.
    pub fn parse(text: &str, regex_priority: i32) -> PathPattern {
        match text.strip_prefix('~') {
            Some(source) => PathPattern::Regex { source: source.to_owned(), priority: regex_priority },
            None => PathPattern::Prefix(text.to_owned()),
        }
    }
}

impl HeaderMatch {
    /// Reads Kong's form: a value that starts with `~*` is a regular expression.
    pub fn parse<'v>(name: &str, values: impl IntoIterator<Item = &'v str>) -> HeaderMatch {
        let read = |value: &str| match value.strip_prefix("~*") {
            Some(source) => HeaderValue::Regex(source.to_owned()),
            None => HeaderValue::Exact(value.to_owned()),
        };
        HeaderMatch { name: name.to_owned(), values: values.into_iter().map(read).collect() }
    }
}

impl Default for Protocols {
    fn default() -> Protocols {
        Protocols { http: true, https: true }
    }
}

/// The host as patterns know it: without the brackets of an IPv6 address and without the dot that closes an absolute
/// name, both of which name the same host.
pub(super) fn bare_host(host: &[u8]) -> &[u8] {
    let host = match host {
        [b'[', inner @ .., b']'] => inner,
        _ => host,
    };
    match host {
        [front @ .., b'.'] if !front.is_empty() => front,
        _ => host,
    }
}

/// Separates `:port`; `None` when what follows the colon is no port. More than one colon without brackets is an IPv6
/// address, which has none.
fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    let Some((name, port)) = text.rsplit_once(':') else { return Some((text, None)) };
    if (name.contains(':') && !name.ends_with(']')) || text.ends_with(']') {
        return Some((text, None));
    }
    match port.parse::<u16>() {
        Ok(port) if port > 0 && port.to_string().len() <= 5 => Some((name, Some(port))),
        _ => None,
    }
}

fn checked(name: &str, refuse: impl Fn(&'static str) -> HostError) -> Result<String, HostError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':');
    if name.contains('*') {
        return Err(refuse("a wildcard must be the whole first or the whole last label, and only one"));
    }
    if name.is_empty() || name.starts_with('.') || name.contains("..") {
        return Err(refuse("a label is empty"));
    }
    if !name.bytes().all(allowed) {
        return Err(refuse("not a host name"));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> HostPattern {
        HostPattern::parse(text).unwrap()
    }

    #[test]
    fn hosts_are_read_with_wildcards_and_ports() {
        let check = |text: &str, name: HostName, port: Option<u16>| {
            assert_eq!(host(text), HostPattern { name, port }, "{text}");
        };
        check("Example.COM", HostName::Exact("example.com".into()), None);
        check("example.com.", HostName::Exact("example.com".into()), None);
        check("example.com:8443", HostName::Exact("example.com".into()), Some(8443));
        check("*.example.com", HostName::Leading("example.com".into()), None);
        check("*.example.com:80", HostName::Leading("example.com".into()), Some(80));
        check("example.*", HostName::Trailing("example".into()), None);
        check("example.*:80", HostName::Trailing("example".into()), Some(80));
        check("10.0.0.1", HostName::Exact("10.0.0.1".into()), None);
        check("[::1]:80", HostName::Exact("::1".into()), Some(80));
        check("[::1]", HostName::Exact("::1".into()), None);
        check("::1", HostName::Exact("::1".into()), None);
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in [
            "", "*", "*.", ".*", "a.*.b", "*a.com", "*.a.*", "a..b", ".a", "a b", "a/b", "a:0", "a:x",
            "a:65536",
        ] {
            assert!(HostPattern::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_wildcard_stands_for_at_least_one_label() {
        let check = |pattern: &str, value: &str, expected: bool| {
            assert_eq!(host(pattern).matches(value.as_bytes(), 80), expected, "{pattern} {value}");
        };
        check("*.example.com", "a.example.com", true);
        check("*.example.com", "a.b.example.com", true);
        check("*.example.com", "example.com", false);
        check("*.example.com", ".example.com", false);
        check("*.example.com", "aexample.com", false);
        check("example.*", "example.com", true);
        check("example.*", "example.co.uk", true);
        check("example.*", "example.", false);
        check("example.*", "examples.com", false);
        check("example.com:81", "example.com", false);
        check("example.com:80", "example.com", true);
    }

    #[test]
    fn covering_is_inclusion_of_sets() {
        let check = |wide: &str, narrow: &str, expected: bool| {
            assert_eq!(host(wide).name.covers(&host(narrow).name), expected, "{wide} {narrow}");
        };
        check("*.a.com", "x.a.com", true);
        check("*.a.com", "*.a.com", true);
        check("*.a.com", "*.x.a.com", true);
        check("*.x.a.com", "*.a.com", false);
        check("a.*", "a.com", true);
        check("a.*", "a.b.*", true);
        check("a.b.*", "a.*", false);
        check("*.com", "a.*", false);
        check("a.com", "*.a.com", false);
    }
}
