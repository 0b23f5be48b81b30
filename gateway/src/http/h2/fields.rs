//! Fields between the codec's map and a [`Head`].
//!
//! Owns what a field section of HTTP/2 may hold besides what the codec refuses: it knows token characters, lower case,
//! connection-specific fields and `TE`; here are the spaces around values (RFC 9113 section 8.2.1), underscores and
//! cookies in crumbs (section 8.2.3).

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use portcullis_abi::Reason;

use crate::http::h1::connection::CONNECTION_SPECIFIC;
use crate::http::{Head, Known, KnownSet, Method, TrailerLimits, Underscores, grpc};

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

/// Whether a message with these fields makes a gRPC call, if its method is `method`.
pub(super) fn is_call(method: Method, map: &HeaderMap) -> bool {
    let media_type = map.get(http::header::CONTENT_TYPE);
    method == Method::Post && media_type.is_some_and(|text| grpc::wire_of(text.as_bytes()).is_some())
}

/// Adds the fields of `map` to `head`; `call`: they are those of a gRPC call. `None` where one is malformed.
pub(super) fn read(
    map: &HeaderMap,
    underscores: Underscores,
    call: impl Fn() -> bool,
    head: &mut Head,
) -> Option<Read> {
    let mut read = Read::default();
    let mut cookie: Option<Cow<'_, [u8]>> = None;
    for (name, value) in map {
        let (text, value) = (name.as_str().as_bytes(), value.as_bytes());
        let known = Known::of(text);
        if known == Known::Other && text.contains(&b'_') && !underscores.keep(text, &call) {
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

/// Reads a trailer section: what may be forwarded of it.
pub(super) fn read_trailers(map: &HeaderMap, limits: &TrailerLimits, head: &mut Head) -> Result<(), Reason> {
    head.clear();
    let read = read(map, Underscores::Keep, || false, head).ok_or(Reason::H2ProtocolError)?;
    if read.count > limits.fields || read.octets > limits.octets {
        return Err(Reason::HeaderTooLarge);
    }
    limits.strip(head);
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
    use crate::http::h1::HeadLimits;

    fn map(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        map
    }

    fn read(map: &HeaderMap, head: &mut Head) -> Option<Read> {
        super::read(map, Underscores::Drop, || false, head)
    }

    fn text(head: &Head) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        head.iter().map(|(_, name, value)| (text(name), text(value))).collect()
    }

    #[test]
    fn cookie_crumbs_are_joined_rfc9113_8_2_3() {
        let mut head = Head::new();
        let read = read(&map(&[("cookie", "a=b"), ("x", "1"), ("cookie", "c=d")]), &mut head).unwrap();
        assert_eq!(read.count, 2);
        assert_eq!(head.get_known(Known::Cookie), Some(&b"a=b; c=d"[..]));
        assert_eq!(head.count_known(Known::Cookie), 1);
    }

    #[test]
    fn a_value_with_a_space_at_its_end_is_malformed_rfc9113_8_2_1() {
        for bad in [" a", "a ", "\ta", "a\t", " "] {
            assert_eq!(read(&map(&[("x", bad)]), &mut Head::new()), None, "{bad:?}");
            assert_eq!(read(&map(&[("cookie", "a=b"), ("cookie", bad)]), &mut Head::new()), None);
        }
        assert!(read(&map(&[("x", ""), ("y", "a b")]), &mut Head::new()).is_some());
    }

    #[test]
    fn underscores_are_dropped_and_counted_unless_allowed() {
        let fields = map(&[("x_real_ip", "1"), ("content_length", "2"), ("a", "b")]);
        let check = |underscores, call, left: &str, dropped| {
            let mut head = Head::new();
            let read = super::read(&fields, underscores, || call, &mut head).unwrap();
            let names: Vec<_> = text(&head).into_iter().map(|(name, _)| name).collect();
            assert_eq!(
                (names.join(" ").as_str(), read.underscored),
                (left, dropped),
                "{underscores:?} {call}"
            );
        };
        check(Underscores::Drop, false, "a", 2);
        check(Underscores::Drop, true, "x_real_ip a", 1);
        check(Underscores::Keep, false, "x_real_ip a", 1);
        check(Underscores::Reject, true, "a", 2);
    }

    #[test]
    fn trailers_keep_only_what_decides_nothing() {
        let mut head = Head::new();
        let limits = TrailerLimits::default();
        let fields = [("grpc-status", "0"), ("etag", "x"), ("authorization", "y"), ("a_b", "z")];
        read_trailers(&map(&fields), &limits, &mut head).unwrap();
        assert_eq!(text(&head), [("grpc-status".into(), "0".into()), ("etag".into(), "x".into())]);
        let many: Vec<_> = (0..=limits.fields).map(|_| ("a", "b")).collect();
        assert_eq!(read_trailers(&map(&many), &limits, &mut head), Err(Reason::HeaderTooLarge));
        let long = "v".repeat(limits.octets);
        assert_eq!(read_trailers(&map(&[("a", &long)]), &limits, &mut head), Err(Reason::HeaderTooLarge));
        // What a status has to say of an error may be long.
        let call = TrailerLimits::of(&HeadLimits::default(), true);
        read_trailers(&map(&[("grpc-status-details-bin", &long), ("a_b", "z")]), &call, &mut head).unwrap();
        assert_eq!(head.len(), 2);
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
