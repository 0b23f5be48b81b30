//! Texts with a form: names, hosts, paths, headers, methods.
//!
//! Owns the checks of single texts that `build` then reads without failing. Where Kong has a rule, it is
//! Kong's (named at each check); where the gateway cannot carry a value safely, it is stricter.

use std::net::{IpAddr, SocketAddr};

use regex::RegexBuilder;

use super::suggest::did_you_mean;
use crate::diagnostic::Fault;

/// A form of text.
#[derive(Debug)]
pub struct Text {
    /// What it is, in words for an error: `a host name`.
    pub what: &'static str,
    /// Says what is wrong with a text.
    pub check: fn(&str) -> Result<(), Fault>,
    /// A regular expression for the JSON schema, which need not be as strict.
    pub pattern: Option<&'static str>,
}

impl Text {
    /// A form with its check.
    pub const fn new(what: &'static str, check: fn(&str) -> Result<(), Fault>) -> Self {
        Self { what, check, pattern: None }
    }

    /// Adds a pattern for the JSON schema.
    pub const fn pattern(mut self, pattern: &'static str) -> Self {
        self.pattern = Some(pattern);
        self
    }
}

/// Any text.
pub static ANY: Text = Text::new("a text", |_| Ok(()));

/// A text that is not empty and has no control characters.
pub static NAME: Text = Text::new("a text", name).pattern("^[^\\x00-\\x1f]+$");

/// A header name (RFC 9110 section 5.1).
pub static HEADER_NAME: Text =
    Text::new("a header name", header_name).pattern("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$");

/// A method (RFC 9110 section 9.1); Kong wants upper case.
pub static METHOD: Text = Text::new("a method", method).pattern("^[A-Z][A-Z0-9_-]*$");

/// A host condition of a route or a server name: an exact name, or a `*` as first or last label.
pub static HOST_PATTERN: Text = Text::new("a host name", |text| host_pattern(text).map(|_| ()));

/// A path condition: `/prefix` or `~regular expression`.
pub static PATH_PATTERN: Text = Text::new("a path", path_pattern).pattern("^[/~]");

/// A plain path.
pub static PATH: Text = Text::new("a path", path).pattern("^/");

/// The host of a service or target: a name or a literal address.
pub static HOST: Text = Text::new("a host", |text| host(text).map(|_| ()));

/// The address of a target: `host` or `host:port`.
pub static TARGET: Text = Text::new("a target", |text| host_and_port(text).map(|_| ()));

/// The shorthand of a service.
pub static URL: Text = Text::new("a URL", |text| url(text).map(|_| ())).pattern("^[a-z_]+://");

/// A path in the file system.
pub static FILE: Text = Text::new("a file path", file);

/// A certificate or key in PEM.
pub static PEM: Text = Text::new("PEM text", pem);

/// A network interface (at most 15 bytes, `IFNAMSIZ` less the terminator in linux/if.h).
pub static INTERFACE: Text = Text::new("an interface name", interface).pattern("^[^/\\s]{1,15}$");

fn name(text: &str) -> Result<(), Fault> {
    match text {
        "" => Err("may not be empty".into()),
        _ if text.chars().any(char::is_control) => Err("may not hold control characters".into()),
        _ => Ok(()),
    }
}

/// Whether `byte` may stand in a token (RFC 9110 section 5.6.2).
pub fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn header_name(text: &str) -> Result<(), Fault> {
    if !text.is_empty() && text.bytes().all(is_token_byte) {
        return Ok(());
    }
    let fault = Fault::new(format!("{text:?} is not a header name"));
    Err(if text.ends_with(':') { fault.hint("leave out the colon") } else { fault })
}

fn method(text: &str) -> Result<(), Fault> {
    if text.bytes().all(|byte| byte.is_ascii_lowercase()) && !text.is_empty() {
        let hint = format!("did you mean `{}`?", text.to_ascii_uppercase());
        return Err(Fault::new(format!("the method {text:?} is not in upper case")).hint(hint));
    }
    // RFC 9110 section 9.1: any token; Kong takes upper-case words only.
    let fits =
        text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"-_".contains(&byte));
    if fits && text.starts_with(|c: char| c.is_ascii_uppercase()) {
        return Ok(());
    }
    Err(Fault::new(format!("{text:?} is not a method")))
}

fn path(text: &str) -> Result<(), Fault> {
    if !text.starts_with('/') {
        return Err(Fault::new(format!("the path {text:?} does not start with `/`")));
    }
    if let Some(bad) = text.chars().find(|c| c.is_control() || matches!(c, '?' | '#' | ' ' | '\\')) {
        return Err(Fault::new(format!("the path {text:?} holds {bad:?}, which no request path does")));
    }
    Ok(())
}

fn path_pattern(text: &str) -> Result<(), Fault> {
    if let Some(expression) = text.strip_prefix('~') {
        return regex(expression, expression);
    }
    if !text.starts_with('/') {
        return Err(Fault::new(format!("the path {text:?} starts with neither `/` nor `~`"))
            .hint(format!("write `/{text}` for a prefix or `~/{text}` for a regular expression")));
    }
    // Formats before 3.0 have expressions without `~`; `build` tells them apart and checks the rest.
    if text.contains(|c: char| c.is_control() || c == ' ') {
        return Err(Fault::new(format!("the path {text:?} holds a space or control character")));
    }
    Ok(())
}

/// Most memory of one compiled expression, in bytes. What the router compiles is bounded by the same number.
pub const REGEX_SIZE: usize = 1 << 20;

/// Compiles an expression and throws the result away; `shown` is the text for the error.
pub fn regex(expression: &str, shown: &str) -> Result<(), Fault> {
    if expression.is_empty() {
        return Err("the regular expression is empty".into());
    }
    let Err(error) = RegexBuilder::new(expression).size_limit(REGEX_SIZE).build() else { return Ok(()) };
    let text = error.to_string();
    // The crate prints the expression and a caret over several lines; the last line says what is wrong.
    let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
    let fault = Fault::new(format!("the regular expression {shown:?} does not compile: {reason}"));
    let look_around = ["(?=", "(?!", "(?<=", "(?<!"].iter().any(|look| expression.contains(look));
    Err(if look_around {
        fault.hint("look-around and back-references of PCRE are not supported; use several paths or routes")
    } else {
        fault
    })
}

/// Splits a host condition into its name and port.
pub(crate) fn host_pattern(text: &str) -> Result<(crate::model::HostName, Option<u16>), Fault> {
    use crate::model::HostName;
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => {
            let port = port.parse().ok().filter(|port| *port > 0);
            (name, Some(port.ok_or_else(|| Fault::new(format!("{text:?} has no valid port after `:`")))?))
        }
        _ => (text, None),
    };
    let lower = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let wrong = |why: &str| Fault::new(format!("the host {text:?} {why}"));
    let rule = "a `*` must be the whole first or the whole last label, as in `*.example.com` or `example.*`";
    match lower.matches('*').count() {
        0 => plain_host(&lower).map_err(|why| wrong(&why)).map(|()| (HostName::Exact(lower), port)),
        1 => {
            if let Some(rest) = lower.strip_prefix("*.") {
                dns_name(rest).map_err(|why| wrong(&why))?;
                return Ok((HostName::Suffix(format!(".{rest}")), port));
            }
            if let Some(rest) = lower.strip_suffix(".*") {
                dns_name(rest).map_err(|why| wrong(&why))?;
                return Ok((HostName::Prefix(format!("{rest}.")), port));
            }
            Err(wrong("has a wildcard in the wrong place").hint(rule))
        }
        _ => Err(wrong("has more than one wildcard").hint(rule)),
    }
}

fn plain_host(lower: &str) -> Result<(), String> {
    if lower.parse::<IpAddr>().is_ok() || bracketed(lower).is_some() {
        return Ok(());
    }
    dns_name(lower)
}

/// RFC 1123 section 2.1 with underscores, which are in wide use inside clusters.
fn dns_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("is empty".into());
    }
    if name.len() > 253 {
        return Err("is longer than 253 characters".into());
    }
    for label in name.split('.') {
        if label.is_empty() {
            return Err("has an empty label".into());
        }
        if label.len() > 63 {
            return Err("has a label longer than 63 characters".into());
        }
        if let Some(bad) = label.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_')) {
            return Err(format!("holds {bad:?}"));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err("has a label that begins or ends with `-`".into());
        }
    }
    Ok(())
}

fn bracketed(text: &str) -> Option<IpAddr> {
    text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6)
}

/// A host of a service or target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    Ip(IpAddr),
    Name(String),
}

/// Reads a host without a port.
pub(crate) fn host(text: &str) -> Result<Host, Fault> {
    if let Some(ip) = bracketed(text).or_else(|| text.parse().ok()) {
        return Ok(Host::Ip(ip));
    }
    let lower = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if let Some((_, rest)) = text.split_once("://") {
        return Err(Fault::new(format!("the host {text:?} is a URL")).hint(format!(
            "write it under `url`, or only the host here: `{}`",
            rest.split('/').next().unwrap_or(rest)
        )));
    }
    match dns_name(&lower) {
        Ok(()) => Ok(Host::Name(lower)),
        Err(why) if text.contains(':') => {
            Err(Fault::new(format!("the host {text:?} {why}")).hint("the port has a key of its own, `port`"))
        }
        Err(why) => Err(Fault::new(format!("the host {text:?} {why}"))),
    }
}

/// Reads `host`, `host:port`, `[v6]` or `[v6]:port`.
pub(crate) fn host_and_port(text: &str) -> Result<(Host, Option<u16>), Fault> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        if address.port() == 0 {
            return Err(Fault::new(format!("{text:?} has port 0")));
        }
        return Ok((Host::Ip(address.ip()), Some(address.port())));
    }
    match text.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') && !text.contains("://") => {
            let number = port.parse().ok().filter(|port| *port > 0);
            let number = number
                .ok_or_else(|| Fault::new(format!("the port {port:?} is not a number from 1 to 65535")))?;
            Ok((host(name)?, Some(number)))
        }
        _ => Ok((host(text)?, None)),
    }
}

/// The parts of a service's `url`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url<'a> {
    pub(crate) protocol: crate::model::Protocol,
    pub(crate) host: &'a str,
    pub(crate) port: Option<u16>,
    pub(crate) path: Option<&'a str>,
}

/// Reads the `url` of a service.
pub(crate) fn url(text: &str) -> Result<Url<'_>, Fault> {
    use crate::model::Protocol;
    let (scheme, rest) = text.split_once("://").ok_or_else(|| {
        Fault::new(format!("the URL {text:?} has no protocol")).hint(format!("write `http://{text}`"))
    })?;
    let protocol = Protocol::from_word(&scheme.to_ascii_lowercase()).ok_or_else(|| {
        Fault::new(format!("the URL {text:?} has the unknown protocol {scheme:?}"))
            .maybe_hint(did_you_mean(scheme, Protocol::WORDS))
    })?;
    let (authority, path) = match rest.find('/') {
        Some(at) => (&rest[..at], Some(&rest[at..])),
        None => (rest, None),
    };
    if authority.contains('@') {
        return Err(Fault::new("the URL holds a user name")
            .hint("set the `authorization` header with a plugin")
            .hide_line());
    }
    if let Some(bad) = ['?', '#'].into_iter().find(|bad| text.contains(*bad)) {
        return Err(
            Fault::new(format!("the URL {text:?} holds {bad:?}")).hint("a service has no query string")
        );
    }
    host_and_port(authority)?;
    if let Some(text) = path {
        self::path(text)?;
    }
    let (name, port) = match authority.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port.parse().ok()),
        _ => (authority, None),
    };
    Ok(Url { protocol, host: name, port, path })
}

fn file(text: &str) -> Result<(), Fault> {
    match text {
        "" => Err("the path is empty".into()),
        _ if text.contains('\0') => Err("the path holds a NUL".into()),
        _ => Ok(()),
    }
}

fn pem(text: &str) -> Result<(), Fault> {
    if text.contains("-----BEGIN ") && text.contains("-----END ") {
        return Ok(());
    }
    let fault = Fault::new("not in PEM: it lacks the `-----BEGIN ...-----` and `-----END ...-----` lines");
    Err(if text.lines().count() <= 1 {
        fault.hint("for a file write `cert_file`, `key_file` or `${file:/path}`")
    } else {
        fault
    })
}

fn interface(text: &str) -> Result<(), Fault> {
    if text.is_empty() || text.len() > 15 || text.contains('/') || text.contains(char::is_whitespace) {
        return Err(
            Fault::new(format!("{text:?} is not an interface name")).hint("as in `eth0`; at most 15 bytes")
        );
    }
    Ok(())
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
