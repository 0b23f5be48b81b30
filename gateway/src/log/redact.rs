//! Secrets in query strings and headers do not reach the log.
//!
//! Owns: which parameters and headers are secret, and writing a query without the values. Invariant: a name is
//! compared after percent-decoding and without regard to case, or `%74oken=` would be a way around.

use super::escape;

/// The names of query parameters and of headers whose values are replaced by `***`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redaction {
    parameters: Vec<String>,
    headers: Vec<String>,
}

impl Default for Redaction {
    /// Names that carry credentials in common APIs: Kong's key-auth and jwt, OAuth 2.0 (RFC 6750 section
    /// 2.3), OpenID Connect, signed URLs of object stores.
    fn default() -> Self {
        Self::new(&DEFAULT_PARAMETERS, &DEFAULT_HEADERS)
    }
}

impl Redaction {
    /// Replaces the values of these parameters and headers; an empty list replaces none.
    pub fn new(parameters: &[impl AsRef<str>], headers: &[impl AsRef<str>]) -> Self {
        Self { parameters: lower(parameters), headers: lower(headers) }
    }

    /// Whether the value of the header `name` is not to be written.
    pub(super) fn hides_header(&self, name: &str) -> bool {
        self.headers.iter().any(|secret| secret.eq_ignore_ascii_case(name))
    }

    /// Appends `query` as the content of a JSON string.
    pub(super) fn append(&self, query: &[u8], out: &mut Vec<u8>) {
        for (index, parameter) in query.split(|byte| *byte == b'&').enumerate() {
            if index > 0 {
                out.push(b'&');
            }
            match parameter.iter().position(|byte| *byte == b'=') {
                Some(equals) if self.is_secret(&parameter[..equals]) => {
                    escape::content(&parameter[..=equals], out);
                    out.extend_from_slice(MASK);
                }
                _ => escape::content(parameter, out),
            }
        }
    }

    fn is_secret(&self, name: &[u8]) -> bool {
        self.parameters.iter().any(|secret| decoded(name).map(|b| b.to_ascii_lowercase()).eq(secret.bytes()))
    }
}

/// Each name once: every line of the log is compared with all of them.
fn lower(names: &[impl AsRef<str>]) -> Vec<String> {
    let mut names: Vec<_> = names.iter().map(|name| name.as_ref().to_ascii_lowercase()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Decoding of form-encoded text on the fly; a `%` that begins no escape stands for itself.
fn decoded(text: &[u8]) -> impl Iterator<Item = u8> + '_ {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (&first, after) = rest.split_first()?;
        rest = after;
        if first == b'+' {
            return Some(b' ');
        }
        if first == b'%'
            && let [high, low, after @ ..] = after
            && let (Some(high), Some(low)) = (char::from(*high).to_digit(16), char::from(*low).to_digit(16))
        {
            rest = after;
            return Some((high * 16 + low) as u8);
        }
        Some(first)
    })
}

/// What stands in place of a hidden value.
pub(super) const MASK: &[u8] = b"***";

const DEFAULT_HEADERS: [&str; 6] =
    ["apikey", "authorization", "cookie", "proxy-authorization", "set-cookie", "x-api-key"];

const DEFAULT_PARAMETERS: [&str; 20] = [
    "access_token",
    "api-key",
    "api_key",
    "apikey",
    "assertion",
    "client_secret",
    "code",
    "id_token",
    "jwt",
    "key",
    "passwd",
    "password",
    "refresh_token",
    "secret",
    "sig",
    "signature",
    "token",
    "x-amz-credential",
    "x-amz-security-token",
    "x-amz-signature",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn check(query: &str, expected: &str) {
        let mut out = Vec::new();
        Redaction::default().append(query.as_bytes(), &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expected, "{query}");
    }

    #[test]
    fn values_of_secret_names_go() {
        check("", "");
        check("a=1&b=2", "a=1&b=2");
        check("token=abc", "token=***");
        check("a=1&TOKEN=abc&b=2", "a=1&TOKEN=***&b=2");
        check("%74ok%65n=abc", "%74ok%65n=***");
        check("tokens=abc&token", "tokens=abc&token");
        check("token=a=b&&=&%", "token=***&&=&%");
        check("key=\"quoted\"&q=\"x\"", "key=***&q=\\\"x\\\"");
        check("%7=1&%zz=2&jwt=", "%7=1&%zz=2&jwt=***");
    }

    #[test]
    fn an_empty_list_keeps_everything() {
        let mut out = Vec::new();
        Redaction::new(&[""; 0], &[""; 0]).append(b"token=abc", &mut out);
        assert_eq!(out, b"token=abc");
    }

    #[test]
    fn a_plus_is_a_space() {
        let mut out = Vec::new();
        Redaction::new(&["my Token"], &[""; 0]).append(b"my+token=abc&my%20token=abc", &mut out);
        assert_eq!(out, b"my+token=***&my%20token=***");
    }
}
