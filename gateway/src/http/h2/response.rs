//! The head of a response, from ours to the codec's and back.

use http::{Response, StatusCode, response};

use super::fields;
use crate::http::h1::{BodyFraming, HeadLimits};
use crate::http::{Known, KnownSet, Method, ResponseHead, Underscores, Version};

/// A response as the codec takes it.
pub(super) fn write(response: &ResponseHead) -> Response<()> {
    let mut message = Response::new(());
    // A head's status is within 100..=599.
    *message.status_mut() = StatusCode::from_u16(response.status()).unwrap_or(StatusCode::BAD_GATEWAY);
    *message.headers_mut() = fields::write(&response.head, KnownSet::default());
    message
}

/// Fills `out` from a response; `None` where HTTP/1 would not have let it in.
pub(super) fn read(parts: &response::Parts, limits: &HeadLimits, out: &mut ResponseHead) -> Option<()> {
    out.clear();
    out.version = Version::Http2;
    out.status = parts.status.as_u16();
    // 101 is of HTTP/1 alone (RFC 9113 section 8.6).
    if out.status > 599 || out.status == 101 {
        return None;
    }
    let read = fields::read(&parts.headers, Underscores::Keep, || false, &mut out.head)?;
    (read.count <= limits.fields && read.octets <= limits.head).then_some(())
}

/// How long the body of a response is to the method `request`, by the table of HTTP/1: a length is judged whatever the
/// request and the status, as it goes on to clients of HTTP/1. `None` where the head contradicts itself.
pub(super) fn framing(response: &ResponseHead, request: Method, ended: bool) -> Option<BodyFraming> {
    let length = match response.head.get_known(Known::ContentLength) {
        None => None,
        Some(_) => Some(crate::http::h1::framing::content_length(&response.head).ok()?),
    };
    match (response.status(), length) {
        (204, Some(1..)) => None,
        (204 | 304, _) => Some(BodyFraming::None),
        _ if ended || request == Method::Head => Some(BodyFraming::None),
        (_, None) => Some(BodyFraming::Chunked),
        (_, Some(length)) => Some(BodyFraming::Length(length)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_goes_out_and_comes_in_again() {
        let mut head = ResponseHead::new();
        head.set_status(404);
        head.head.append("Content-Type", "text/plain");
        head.head.append("Connection", "close");
        head.head.append("Set-Cookie", "a");
        head.head.append("Set-Cookie", "b");
        let (parts, ()) = write(&head).into_parts();
        let mut back = ResponseHead::new();
        read(&parts, &HeadLimits::default(), &mut back).unwrap();
        assert_eq!((back.status(), back.version()), (404, Version::Http2));
        let fields: Vec<_> = back.head.iter().map(|(_, name, value)| (name, value)).collect();
        assert_eq!(
            fields,
            [(&b"content-type"[..], &b"text/plain"[..]), (b"set-cookie", b"a"), (b"set-cookie", b"b")]
        );
    }

    #[test]
    fn a_response_beyond_http_or_the_limits_is_refused() {
        let limits = HeadLimits { fields: 2, head: 64, ..HeadLimits::default() };
        let check = |status: u16, fields: &[(&'static str, &'static str)], expected: bool| {
            let mut message = Response::builder().status(status);
            for (name, value) in fields {
                message = message.header(*name, *value);
            }
            let (parts, ()) = message.body(()).unwrap().into_parts();
            assert_eq!(
                read(&parts, &limits, &mut ResponseHead::new()).is_some(),
                expected,
                "{status} {fields:?}"
            );
        };
        check(200, &[("a", "b")], true);
        check(101, &[], false);
        check(600, &[], false);
        check(200, &[("a", " b")], false);
        check(200, &[("a", "1"), ("b", "2"), ("c", "3")], false);
        check(200, &[("a", "0123456789012345678901234567890123456789012345678901234567890123")], false);
    }

    #[test]
    fn framing_of_a_response() {
        let framed = |status: u16, lengths: &[&str], method, ended| {
            let mut head = ResponseHead::new();
            head.set_status(status);
            lengths.iter().for_each(|length| head.head.append_known(Known::ContentLength, length));
            framing(&head, method, ended)
        };
        let check = |status: u16, length: Option<&str>, method, ended, expected| {
            assert_eq!(framed(status, length.as_slice(), method, ended), expected, "{status} {length:?}");
        };
        check(200, None, Method::Get, false, Some(BodyFraming::Chunked));
        check(200, Some("3"), Method::Get, false, Some(BodyFraming::Length(3)));
        check(200, Some("3"), Method::Head, true, Some(BodyFraming::None));
        check(204, None, Method::Get, true, Some(BodyFraming::None));
        check(304, Some("3"), Method::Get, true, Some(BodyFraming::None));
        check(200, Some("x"), Method::Get, false, None);
        check(204, Some("0"), Method::Get, true, Some(BodyFraming::None));
        check(204, Some("3"), Method::Get, true, None);
        // As strict where there is no body: the client may believe it.
        for (status, method) in [(200, Method::Head), (304, Method::Get), (204, Method::Get)] {
            for lengths in [&["3", "3"][..], &["3, 3"], &["+3"], &[""], &["9223372036854775808"]] {
                assert_eq!(framed(status, lengths, method, true), None, "{status} {lengths:?}");
            }
        }
    }
}
