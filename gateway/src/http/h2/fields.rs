//! Fields between the codec's map and a [`Head`].
//!
//! Owns what a field section of HTTP/2 may hold besides what the codec refuses: it knows token characters, lower case,
//! connection-specific fields and `TE`; here are the spaces around values (RFC 9113 section 8.2.1), underscores and
//! cookies in crumbs (section 8.2.3).

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use portcullis_abi::Reason;

use crate::http::forwarded::is_forwarded_class;
use crate::http::h1::connection::CONNECTION_SPECIFIC;
use crate::http::{Head, Known, KnownSet};

/// Trailer fields of one message, and their octets; as in HTTP/1.
const TRAILER_FIELDS: usize = 32;
const TRAILER_OCTETS: usize = 8 * 1024;

/// What reading a field section came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Read {
    /// Fields, the crumbs of a cookie as one.
    pub count: usize,
    /// Octets that they take in HTTP/1.
    pub octets: usize,
    /// Left out for an underscore in their name.
    pub underscored: u32,
}

/// Adds the fields of `map` to `head`. `None` where one is malformed.
pub(super) fn read(map: &HeaderMap, allow_underscores: bool, head: &mut Head) -> Option<Read> {
    let mut read = Read::default();
    let mut cookie: Option<Cow<'_, [u8]>> = None;
    for (name, value) in map {
        let (text, value) = (name.as_str().as_bytes(), value.as_bytes());
        let known = Known::of(text);
        if known == Known::Other && !allow_underscores && text.contains(&b'_') {
            read.underscored += 1;
            continue;
        }
        if !is_trimmed(value) {
            return None;
        }
        if known == Known::Cookie {
            match &mut cookie {
                None => cookie = Some(Cow::Borrowed(value)),
                Some(crumbs) => {
                    crumbs.to_mut().extend_from_slice(b"; ");
                    crumbs.to_mut().extend_from_slice(value);
                }
            }
            continue;
        }
        read.add(text, value);
        head.append_checked(known, text, &[value]);
    }
    if let Some(cookie) = cookie {
        read.add(b"cookie", &cookie);
        head.append_checked(Known::Cookie, b"cookie", &[&cookie]);
    }
    Some(read)
}

impl Read {
    fn add(&mut self, name: &[u8], value: &[u8]) {
        self.count += 1;
        self.octets += name.len() + value.len() + 4;
    }
}

/// RFC 9113 section 8.2.1: no space or tab at either end.
fn is_trimmed(value: &[u8]) -> bool {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    !blank(value.first()) && !blank(value.last())
}

/// Reads a trailer section: what may be forwarded of it, as in HTTP/1 only names that decide nothing.
pub(super) fn read_trailers(map: &HeaderMap, head: &mut Head) -> Result<(), Reason> {
    head.clear();
    let read = read(map, false, head).ok_or(Reason::H2ProtocolError)?;
    if read.count > TRAILER_FIELDS || read.octets > TRAILER_OCTETS {
        return Err(Reason::HeaderTooLarge);
    }
    head.remove_set(KnownSet::of(&[Known::Etag]).complement());
    head.retain_other(|name| !is_forwarded_class(name));
    Ok(())
}

/// The fields of `head` as they go out: without those that concern an HTTP/1 connection, and without `except`.
pub(super) fn write(head: &Head, except: KnownSet) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(head.len());
    // One copy for all values: each is a part of it.
    let text = Bytes::copy_from_slice(head.text());
    for (known, name, value) in head.iter() {
        if CONNECTION_SPECIFIC.contains(known) || except.contains(known) {
            continue;
        }
        // A head holds tokens and no line ends; what a value may not hold besides (controls) is left out with its field.
        let value = HeaderValue::from_maybe_shared(text.slice(head.place_of(value.trim_ascii())));
        let (Ok(name), Ok(mut value)) = (HeaderName::from_bytes(name), value) else { continue };
        // Never the same twice: in the table of the other side's decoder it would only take the place of others (RFC 7541
        // section 6.2.3).
        value.set_sensitive(known == Known::XRequestId);
        // Fails beyond 24,576 fields, of which no head has that many.
        let _ = map.try_append(name, value);
    }
    map
}

/// [`write`] for a trailer section.
pub(super) fn write_trailers(head: &Head) -> HeaderMap {
    write(head, KnownSet::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        map
    }

    fn text(head: &Head) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        head.iter().map(|(_, name, value)| (text(name), text(value))).collect()
    }

    #[test]
    fn cookie_crumbs_are_joined_rfc9113_8_2_3() {
        let mut head = Head::new();
        let read = read(&map(&[("cookie", "a=b"), ("x", "1"), ("cookie", "c=d")]), false, &mut head).unwrap();
        assert_eq!(read.count, 2);
        assert_eq!(head.get_known(Known::Cookie), Some(&b"a=b; c=d"[..]));
        assert_eq!(head.count_known(Known::Cookie), 1);
    }

    #[test]
    fn a_value_with_a_space_at_its_end_is_malformed_rfc9113_8_2_1() {
        for bad in [" a", "a ", "\ta", "a\t", " "] {
            assert_eq!(read(&map(&[("x", bad)]), false, &mut Head::new()), None, "{bad:?}");
            assert_eq!(read(&map(&[("cookie", "a=b"), ("cookie", bad)]), false, &mut Head::new()), None);
        }
        assert!(read(&map(&[("x", ""), ("y", "a b")]), false, &mut Head::new()).is_some());
    }

    #[test]
    fn underscores_are_dropped_and_counted_unless_allowed() {
        let fields = map(&[("x_real_ip", "1"), ("x_real_ip", "2"), ("a", "b")]);
        let mut head = Head::new();
        assert_eq!(read(&fields, false, &mut head).unwrap().underscored, 2);
        assert_eq!(text(&head), [("a".into(), "b".into())]);
        head.clear();
        assert_eq!(read(&fields, true, &mut head).unwrap().count, 3);
    }

    #[test]
    fn trailers_keep_only_what_decides_nothing() {
        let mut head = Head::new();
        let fields = map(&[
            ("grpc-status", "0"),
            ("etag", "x"),
            ("authorization", "y"),
            ("a_b", "z"),
            ("x-forwarded-user", "root"),
        ]);
        read_trailers(&fields, &mut head).unwrap();
        assert_eq!(text(&head), [("grpc-status".into(), "0".into()), ("etag".into(), "x".into())]);
        let many: Vec<_> = (0..=TRAILER_FIELDS).map(|_| ("a", "b")).collect();
        assert_eq!(read_trailers(&map(&many), &mut head), Err(Reason::HeaderTooLarge));
        let long = "v".repeat(TRAILER_OCTETS);
        assert_eq!(read_trailers(&map(&[("a", &long)]), &mut head), Err(Reason::HeaderTooLarge));
    }

    #[test]
    fn what_concerns_an_http1_connection_does_not_go_out_rfc9113_8_2_2() {
        let mut head = Head::new();
        for (name, value) in [
            ("Connection", "x"),
            ("Keep-Alive", "x"),
            ("Proxy-Connection", "x"),
            ("Transfer-Encoding", "chunked"),
            ("Upgrade", "h2c"),
            ("TE", "trailers"),
            ("Host", "a"),
            ("X-Upper", " spaced "),
        ] {
            head.append(name, value);
        }
        let map = write(&head, KnownSet::of(&[Known::Host]));
        assert_eq!(map.len(), 1);
        assert_eq!(map["x-upper"], "spaced");
    }
}
