//! What a signature says of itself, and the text that it is over.
//!
//! Owns the parsing of the field, and the text: one line for each thing that is signed, in the order named.
//!
//! | is named | line |
//! |---|---|
//! | a field that is there | `name: value`, the name as it is named |
//! | `request-line` | `GET /path?query HTTP/1.1` |
//! | `@request-target` | `@request-target: get /path?query` |
//! | a field that is not there | `name:` |
//!
//! The path is the client's own spelling of it, as the client signed that.

use aws_lc_rs::hmac;

use super::Refused;
use crate::http::{Head, Known, RequestHead, Version};

/// The fields that may hold a signature, in the order in which they are looked at.
pub const FIELDS: [Known; 2] = [Known::ProxyAuthorization, Known::Authorization];
/// Most things that are signed.
const NAMES_MAX: usize = 64;

/// Hash functions under the HMAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

impl Algorithm {
    const ALL: [Self; 5] = [Self::Sha1, Self::Sha224, Self::Sha256, Self::Sha384, Self::Sha512];
    /// Kong's words for them.
    pub const WORDS: [&'static str; 5] =
        ["hmac-sha1", "hmac-sha224", "hmac-sha256", "hmac-sha384", "hmac-sha512"];

    pub fn from_word(word: &str) -> Option<Self> {
        Self::WORDS.iter().position(|known| *known == word).map(|at| Self::ALL[at])
    }

    /// The signature of a text.
    pub fn sign(self, secret: &[u8], text: &[u8]) -> hmac::Tag {
        let algorithm = match self {
            Self::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha224 => hmac::HMAC_SHA224,
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha384 => hmac::HMAC_SHA384,
            Self::Sha512 => hmac::HMAC_SHA512,
        };
        hmac::sign(&hmac::Key::new(algorithm, secret), text)
    }
}

/// The four parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    pub username: String,
    pub algorithm: String,
    headers: String,
    pub signature: String,
}

impl Signature {
    /// The signature of a request, and the field that it is in. `None` for one that cannot be read.
    pub fn find(head: &Head) -> Result<(Known, Option<Self>), Refused> {
        let there = |field: &Known| head.get_known(*field).is_some();
        let first = FIELDS.into_iter().find(there).ok_or(Refused::Missing)?;
        for field in FIELDS {
            let Some(parameters) = head.get_known(field).and_then(after_scheme) else { continue };
            if head.count_known(field) > 1 {
                return Err(Refused::Invalid);
            }
            return Ok((field, Self::read(parameters)));
        }
        // There is another credential, but no signature.
        Ok((first, None))
    }

    /// Reads `name="value"` four times, with commas between.
    fn read(text: &[u8]) -> Option<Self> {
        let mut rest = std::str::from_utf8(text).ok()?.trim();
        let mut found: [Option<&str>; 4] = [None; 4];
        while !rest.is_empty() {
            let (name, after) = rest.split_once('=')?;
            let (value, after) = after.trim_start().strip_prefix('"')?.split_once('"')?;
            let place = match name.trim() {
                "username" => &mut found[0],
                "algorithm" => &mut found[1],
                "headers" => &mut found[2],
                "signature" => &mut found[3],
                _ => return None,
            };
            if place.replace(value).is_some() {
                return None;
            }
            rest = after.trim_start();
            rest = match rest.strip_prefix(',') {
                Some(more) => more.trim_start(),
                None if rest.is_empty() => rest,
                None => return None,
            };
        }
        let text = |at: usize| found[at].filter(|value| !value.is_empty()).map(str::to_owned);
        let signature =
            Self { username: text(0)?, algorithm: text(1)?, headers: text(2)?, signature: text(3)? };
        (signature.names().count() <= NAMES_MAX).then_some(signature)
    }

    /// What is signed, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.headers.split(' ').filter(|name| !name.is_empty())
    }
}

fn after_scheme(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.trim_ascii_start().split_at_checked(b"hmac ".len())?;
    scheme.eq_ignore_ascii_case(b"hmac ").then_some(rest)
}

/// The text that a signature of these things is over. `None` where one of them is there twice.
pub fn signed_text<'n>(request: &RequestHead, names: impl Iterator<Item = &'n str>) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(256);
    for (number, name) in names.enumerate() {
        if number > 0 {
            text.push(b'\n');
        }
        let mut values = request.head.get_all(name);
        let value = match values.next() {
            Some(_) if values.next().is_some() => return None,
            Some(value) => Some(value),
            // HTTP/2 has it elsewhere.
            None if name.eq_ignore_ascii_case("host") => {
                Some(request.authority()).filter(|host| !host.is_empty())
            }
            None => None,
        };
        let target = path_and_query(request.raw_target());
        match (value, name) {
            (Some(value), _) => {
                [name.as_bytes(), b": ", value].iter().for_each(|part| text.extend_from_slice(part))
            }
            (None, "request-line") => {
                let version: &[u8] = match request.version() {
                    Version::Http10 => b"1.0",
                    Version::Http11 => b"1.1",
                    Version::Http2 => b"2.0",
                };
                let parts = [request.method_text(), b" ", target, b" HTTP/", version];
                parts.iter().for_each(|part| text.extend_from_slice(part));
            }
            (None, "@request-target") => {
                let method = request.method_text().to_ascii_lowercase();
                let parts = [b"@request-target: ", &method[..], b" ", target];
                parts.iter().for_each(|part| text.extend_from_slice(part));
            }
            (None, _) => {
                text.extend_from_slice(name.as_bytes());
                text.push(b':');
            }
        }
    }
    Some(text)
}

/// A target without scheme and authority.
fn path_and_query(target: &[u8]) -> &[u8] {
    if target.starts_with(b"/") {
        return target;
    }
    let Some(at) = target.windows(3).position(|three| three == b"://") else { return target };
    let rest = &target[at + 3..];
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    if end == rest.len() { b"/" } else { &rest[end..] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::fixture::request;

    #[test]
    fn four_parameters_in_any_order_and_nothing_else() {
        let read = |text: &str| Signature::read(text.as_bytes());
        let all = r#"username="ann", algorithm="hmac-sha256", headers="date request-line", signature="c2ln""#;
        let one = read(all).expect("a signature");
        assert_eq!((&*one.username, &*one.algorithm, &*one.signature), ("ann", "hmac-sha256", "c2ln"));
        assert_eq!(one.names().collect::<Vec<_>>(), ["date", "request-line"]);
        let turned =
            r#"signature="c2ln",headers="date request-line" , algorithm="hmac-sha256",username="ann""#;
        assert_eq!(read(turned), Some(one));
        for wrong in [
            "",
            "username",
            r#"username="ann""#,
            r#"username="ann", username="ben", algorithm="a", headers="b", signature="c""#,
            r#"username="", algorithm="a", headers="b", signature="c""#,
            r#"username="ann", algorithm="a", headers="b", signature="c", more="d""#,
            r#"username="ann" algorithm="a", headers="b", signature="c""#,
            r#"username=ann, algorithm="a", headers="b", signature="c""#,
            r#"username="ann, algorithm="a", headers="b", signature="c"#,
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        let many = format!(r#"username="a", algorithm="b", headers="{}", signature="c""#, "x ".repeat(65));
        assert_eq!(read(&many), None);
    }

    #[test]
    fn the_text_has_a_line_for_each_thing() {
        let request =
            request("PUT /a%62/../c?d=e HTTP/1.1\nHost: example.com\nDate: now\nX-Two: 1\nX-Two: 2");
        let text = |names: &str| {
            let text = signed_text(&request, names.split(' '));
            text.map(|text| String::from_utf8(text).expect("a text"))
        };
        assert_eq!(
            text("Date request-line @request-target x-none host").as_deref(),
            Some(
                "Date: now\nPUT /a%62/../c?d=e HTTP/1.1\n@request-target: put /a%62/../c?d=e\nx-none:\nhost: example.com"
            )
        );
        assert_eq!(text("date x-two"), None, "which of them?");
    }

    #[test]
    fn an_absolute_target_is_signed_by_its_path() {
        for (target, path) in [
            ("/a?b", "/a?b"),
            ("http://x/a?b", "/a?b"),
            ("http://x", "/"),
            ("http://x?b", "?b"),
            ("*", "*"),
            ("/r?to=http://x/y", "/r?to=http://x/y"),
        ] {
            assert_eq!(path_and_query(target.as_bytes()), path.as_bytes(), "{target}");
        }
    }
}
