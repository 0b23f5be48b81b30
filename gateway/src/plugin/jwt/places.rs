//! Where in a request a token may be.
//!
//! Owns the look-up in query, cookies and fields. Never judges a token. Allocates nothing unless a parameter is
//! percent-encoded, which tokens have no need of.

use std::borrow::Cow;

use crate::http::{Known, RequestHead};
use crate::plugin::CredentialPlaces;

/// Names of the places, as configured.
pub struct Places {
    parameters: Vec<Box<[u8]>>,
    cookies: Vec<Box<[u8]>>,
    fields: Vec<Box<[u8]>>,
}

/// What was found in all places together.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'r> {
    None,
    /// One token, in however many places.
    One(Cow<'r, [u8]>),
    /// Different tokens: the upstream may read another one than we do.
    Several,
}

impl<'r> Found<'r> {
    fn add(self, token: Cow<'r, [u8]>) -> Self {
        match self {
            _ if token.is_empty() => self,
            Found::None => Found::One(token),
            Found::One(known) if known == token => Found::One(known),
            _ => Found::Several,
        }
    }
}

impl Places {
    pub fn new(parameters: Vec<String>, cookies: Vec<String>, fields: Vec<String>) -> Self {
        let bytes = |names: Vec<String>| names.into_iter().map(|name| name.into_bytes().into()).collect();
        Self { parameters: bytes(parameters), cookies: bytes(cookies), fields: bytes(fields) }
    }

    /// The same names for whoever must not show what stands there.
    pub fn to_credential_places(&self) -> CredentialPlaces {
        let text =
            |names: &[Box<[u8]>]| names.iter().map(|name| String::from_utf8_lossy(name).into()).collect();
        let mut fields: Vec<String> = text(&self.fields);
        if !self.cookies.is_empty() {
            fields.push("cookie".into());
        }
        CredentialPlaces { parameters: text(&self.parameters), fields }
    }

    pub fn is_empty(&self) -> bool {
        self.parameters.is_empty() && self.cookies.is_empty() && self.fields.is_empty()
    }

    /// Looks in all places. Empty values are none, and so are fields with another scheme than Bearer.
    pub fn find<'r>(&self, request: &'r RequestHead) -> Found<'r> {
        let mut found = Found::None;
        if request.query().is_some() {
            for name in &self.parameters {
                for parameter in request.parameters().filter(|parameter| parameter.is(name)) {
                    found = found.add(parameter.value());
                }
            }
        }
        if !self.cookies.is_empty() {
            for pair in
                request.head.all_known(Known::Cookie).flat_map(|line| line.split(|&byte| byte == b';'))
            {
                let pair = pair.trim_ascii();
                let value =
                    self.cookies.iter().find_map(|name| pair.strip_prefix(&**name)?.strip_prefix(b"="));
                found = found.add(Cow::Borrowed(value.unwrap_or_default()));
            }
        }
        for name in &self.fields {
            for token in request.head.get_all(name).filter_map(bearer) {
                found = found.add(Cow::Borrowed(token));
            }
        }
        found
    }
}

/// What follows the scheme `Bearer`, whose case does not matter (RFC 9110 section 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.trim_ascii().split_at_checked(6)?;
    let token = rest.trim_ascii_start();
    (scheme.eq_ignore_ascii_case(b"bearer") && token.len() < rest.len()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::fixture::request;

    #[test]
    fn a_token_is_found_in_its_places_only() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let places =
            Places::new(names(&["jwt", "t"]), names(&["session"]), names(&["Authorization", "X-Token"]));
        let one = |text: &'static str| Found::One(Cow::Borrowed(text.as_bytes()));
        let table = [
            ("GET / HTTP/1.1\nHost: a", Found::None),
            ("GET /?jwt=x HTTP/1.1\nHost: a", one("x")),
            ("GET /?jwt=x&t=x HTTP/1.1\nHost: a", one("x")),
            ("GET /?jwt=x&t=y HTTP/1.1\nHost: a", Found::Several),
            ("GET /?jwt=x&jwt=y HTTP/1.1\nHost: a", Found::Several),
            ("GET /?JWT=x&jwt=&t HTTP/1.1\nHost: a", Found::None),
            ("GET /?jwt=%78 HTTP/1.1\nHost: a", one("x")),
            ("GET / HTTP/1.1\nHost: a\nAuthorization: Bearer x", one("x")),
            ("GET / HTTP/1.1\nHost: a\nauthorization: bEARER \t x", one("x")),
            ("GET / HTTP/1.1\nHost: a\nAuthorization: Bearerx", Found::None),
            ("GET / HTTP/1.1\nHost: a\nAuthorization: Bearer", Found::None),
            ("GET / HTTP/1.1\nHost: a\nAuthorization: Basic x", Found::None),
            ("GET / HTTP/1.1\nHost: a\nAuthorization: x", Found::None),
            ("GET / HTTP/1.1\nHost: a\nX-Token: Bearer x\nAuthorization: Bearer x", one("x")),
            ("GET / HTTP/1.1\nHost: a\nX-Token: Bearer x\nAuthorization: Bearer y", Found::Several),
            ("GET / HTTP/1.1\nHost: a\nAuthorization: Bearer x\nAuthorization: Bearer y", Found::Several),
            ("GET /?t=x HTTP/1.1\nHost: a\nAuthorization: Bearer y", Found::Several),
            ("GET / HTTP/1.1\nHost: a\nCookie: a=b; session=x;c=d", one("x")),
            ("GET / HTTP/1.1\nHost: a\nCookie: session=x\nCookie: session=y", Found::Several),
            ("GET / HTTP/1.1\nHost: a\nCookie: sessions=x; xsession=y; Session=z; session", Found::None),
        ];
        for (head, expected) in table {
            assert_eq!(places.find(&request(head)), expected, "{head}");
        }
    }
}
