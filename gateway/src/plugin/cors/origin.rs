//! Which origins a service is open to.
//!
//! Owns the reading of `origins` and the comparison. An origin is compared as a whole, with the port of its scheme left
//! out; an expression must match all of it, so that `example\.com` is not `example.com.evil.net`.

use portcullis_config::{Fault, Fields};
use regex::bytes::{Regex, RegexBuilder};

/// What is said of an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told<'a> {
    Everybody,
    /// This one may.
    One(&'a [u8]),
    Nobody,
}

#[derive(Debug)]
enum Pattern {
    Origin(Vec<u8>),
    /// For the whole origin.
    Expression(Regex),
    /// For the host only.
    Host(Regex),
}

/// Compiled `origins`.
#[derive(Debug, Default)]
pub(super) struct Origins {
    everybody: bool,
    /// The only one; said to all, as in Kong, so that caches keep one answer.
    fixed: Option<Vec<u8>>,
    patterns: Vec<Pattern>,
}

impl Origins {
    /// Reads `origins`.
    pub(super) fn read(fields: &Fields<'_>) -> Self {
        let all = fields.strings("origins");
        if all.is_empty() || all.iter().any(|text| text == "*") {
            return Self { everybody: true, ..Self::default() };
        }
        if let [only] = &all[..]
            && is_plain(only)
        {
            return Self { fixed: Some(only.clone().into_bytes()), ..Self::default() };
        }
        let compile = |text: &String| {
            compile(text).map_err(|fault| fields.error("origins", fault)).ok() // reported
        };
        Self { patterns: all.iter().filter_map(compile).collect(), ..Self::default() }
    }

    /// Whether every site may.
    pub(super) fn is_everybody(&self) -> bool {
        self.everybody
    }

    /// What to say to a request with this `Origin`.
    pub(super) fn decide<'a>(&'a self, origin: Option<&'a [u8]>) -> Told<'a> {
        if self.everybody {
            return Told::Everybody;
        }
        if let Some(only) = &self.fixed {
            return Told::One(only);
        }
        match origin {
            Some(origin) if self.patterns.iter().any(|pattern| pattern.matches(origin)) => Told::One(origin),
            _ => Told::Nobody,
        }
    }
}

impl Pattern {
    fn matches(&self, origin: &[u8]) -> bool {
        let origin = without_default_port(origin);
        match self {
            Pattern::Origin(known) => known.eq_ignore_ascii_case(origin),
            Pattern::Expression(expression) => expression.is_match(origin),
            Pattern::Host(expression) => expression.is_match(host(origin)),
        }
    }
}

/// Whether the text can only be an origin, and no expression but itself.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".:/-".contains(&byte))
}

fn compile(text: &str) -> Result<Pattern, Fault> {
    if is_plain(text) {
        return Ok(Pattern::Origin(without_default_port(text.as_bytes()).to_vec()));
    }
    let inner = text.strip_prefix('^').unwrap_or(text);
    let expression = RegexBuilder::new(&format!("^(?:{inner})$"))
        .size_limit(portcullis_config::schema::text::REGEX_SIZE)
        .build()
        .map_err(|error| Fault::new(format!("'{text}' is not a regular expression: {error}")))?;
    Ok(if text.contains("://") {
        Pattern::Expression(expression)
    } else {
        Pattern::of_host(text, expression)
    })
}

impl Pattern {
    /// A colon, unless it belongs to the expression's own grammar, can only be of an origin.
    fn of_host(text: &str, expression: Regex) -> Self {
        match text.replace("(?:", "").contains(':') {
            true => Pattern::Expression(expression),
            false => Pattern::Host(expression),
        }
    }
}

fn without_default_port(origin: &[u8]) -> &[u8] {
    let cut = |scheme: &[u8], port: &[u8]| origin.starts_with(scheme).then(|| origin.strip_suffix(port))?;
    cut(b"http://", b":80").or_else(|| cut(b"https://", b":443")).unwrap_or(origin)
}

/// The host of an origin, without its port.
fn host(origin: &[u8]) -> &[u8] {
    let at = origin.windows(3).position(|bytes| bytes == b"://").map_or(0, |at| at + 3);
    let rest = &origin[at..];
    if rest.starts_with(b"[") {
        return rest.iter().position(|&byte| byte == b']').map_or(rest, |end| &rest[..=end]);
    }
    rest.split(|&byte| matches!(byte, b':' | b'/')).next().unwrap_or(rest)
}
