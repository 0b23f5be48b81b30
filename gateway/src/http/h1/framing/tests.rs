//! The tables of the module, row by row.

use super::*;
use crate::http::h1::{HeadLimits, Parsed, parse_request, parse_response};

fn request(version: &str, fields: &str) -> Result<BodyFraming, Refusal> {
    let text = format!("POST / HTTP/{version}\r\nHost: a\r\n{fields}\r\n");
    let mut head = RequestHead::new();
    let parsed = parse_request(text.as_bytes(), &HeadLimits::default(), &mut head)?;
    assert_eq!(parsed, Parsed::Complete { head_len: text.len() }, "{text:?}");
    request_framing(&head)
}

fn response(method: Method, status: u16, version: &str, fields: &str) -> Result<BodyFraming, Refusal> {
    let text = format!("HTTP/{version} {status} x\r\n{fields}\r\n");
    let mut head = ResponseHead::new();
    let parsed = parse_response(text.as_bytes(), &HeadLimits::default(), &mut head)?;
    assert_eq!(parsed, Parsed::Complete { head_len: text.len() }, "{text:?}");
    response_framing(&head, method)
}

#[test]
fn requests_rfc9112_6_3() {
    use BodyFraming::*;
    let bad = |reason| Err(Refusal::new(reason));
    for (version, fields, want) in [
        ("1.1", "", Ok(None)),
        ("1.0", "", Ok(None)),
        ("1.1", "Content-Length: 0\r\n", Ok(Length(0))),
        ("1.1", "content-length: 42\r\n", Ok(Length(42))),
        ("1.0", "Content-Length: 42\r\n", Ok(Length(42))),
        ("1.1", "Content-Length: 007\r\n", Ok(Length(7))),
        ("1.1", "Content-Length: \t42 \r\n", Ok(Length(42))),
        ("1.1", "Content-Length: 9223372036854775807\r\n", Ok(Length(i64::MAX as u64))),
        ("1.1", "Content-Length: 9223372036854775808\r\n", bad(Reason::BadContentLength)),
        ("1.1", "Content-Length: 18446744073709551616\r\n", bad(Reason::BadContentLength)),
        ("1.1", "Content-Length: 99999999999999999999999999\r\n", bad(Reason::BadContentLength)),
        ("1.1", "Content-Length:\r\n", bad(Reason::BadContentLength)),
        ("1.1", "Content-Length: +5\r\n", bad(Reason::BadContentLength)),
        ("1.1", "Content-Length: -5\r\n", bad(Reason::BadContentLength)),
        ("1.1", "Content-Length: 0x5\r\n", bad(Reason::BadContentLength)),
        ("1.1", "Content-Length: 5 5\r\n", bad(Reason::BadContentLength)),
        ("1.1", "Content-Length: 5;\r\n", bad(Reason::BadContentLength)),
        ("1.1", "Content-Length: 5.0\r\n", bad(Reason::BadContentLength)),
        ("1.1", "Content-Length: 5, 5\r\n", bad(Reason::AmbiguousLength)),
        ("1.1", "Content-Length: 5,\r\n", bad(Reason::AmbiguousLength)),
        ("1.1", "Content-Length: 5\r\nContent-Length: 5\r\n", bad(Reason::AmbiguousLength)),
        ("1.1", "Content-Length: 5\r\nContent-Length: 6\r\n", bad(Reason::AmbiguousLength)),
        ("1.1", "Content-Length:\r\nContent-Length: 6\r\n", bad(Reason::AmbiguousLength)),
        ("1.1", "Transfer-Encoding: chunked\r\n", Ok(Chunked)),
        ("1.1", "transfer-encoding: CHUNKED\r\n", Ok(Chunked)),
        ("1.1", "Transfer-Encoding:\tchunked\t\r\n", Ok(Chunked)),
        ("1.0", "Transfer-Encoding: chunked\r\n", bad(Reason::BadTransferEncoding)),
        ("1.1", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", bad(Reason::AmbiguousLength)),
        ("1.0", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", bad(Reason::AmbiguousLength)),
        ("1.1", "Transfer-Encoding: identity\r\nContent-Length: 5\r\n", bad(Reason::AmbiguousLength)),
        ("1.1", "Transfer-Encoding: gzip, chunked\r\n", bad(Reason::UnsupportedTransferCoding)),
        ("1.1", "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", {
            bad(Reason::UnsupportedTransferCoding)
        }),
        ("1.1", "Transfer-Encoding: identity, chunked\r\n", bad(Reason::UnsupportedTransferCoding)),
        ("1.1", "Transfer-Encoding: gzip\r\n", bad(Reason::BadTransferEncoding)),
        ("1.1", "Transfer-Encoding: identity\r\n", bad(Reason::BadTransferEncoding)),
        ("1.1", "Transfer-Encoding: xchunked\r\n", bad(Reason::BadTransferEncoding)),
        ("1.1", "Transfer-Encoding: chunked, gzip\r\n", bad(Reason::BadTransferEncoding)),
        ("1.1", "Transfer-Encoding: chunked, chunked\r\n", bad(Reason::BadTransferEncoding)),
        ("1.1", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", {
            bad(Reason::BadTransferEncoding)
        }),
        ("1.1", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", {
            bad(Reason::BadTransferEncoding)
        }),
        ("1.1", "Transfer-Encoding: chunked;q=1\r\n", bad(Reason::BadTransferEncoding)),
        ("1.1", "Transfer-Encoding: \"chunked\"\r\n", bad(Reason::BadTransferEncoding)),
        ("1.1", "Transfer-Encoding: chunked,\r\n", bad(Reason::BadTransferEncoding)),
        ("1.1", "Transfer-Encoding: , chunked\r\n", bad(Reason::BadTransferEncoding)),
        ("1.1", "Transfer-Encoding:\r\n", bad(Reason::BadTransferEncoding)),
        ("1.1", "Transfer-Encoding: chunked foo\r\n", bad(Reason::BadTransferEncoding)),
        // Names that some other program might take for the real one.
        ("1.1", "Transfer_Encoding: chunked\r\n", Ok(None)),
        ("1.1", "Content_Length: 5\r\n", Ok(None)),
        ("1.1", "X-Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", Ok(Length(3))),
    ] {
        assert_eq!(request(version, fields), want, "{version} {fields:?}");
    }
    assert_eq!(Refusal::new(Reason::UnsupportedTransferCoding).status, 501);
    assert_eq!(Refusal::new(Reason::AmbiguousLength).status, 400);
}

#[test]
fn responses_rfc9112_6_3() {
    use BodyFraming::*;
    const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";
    const LENGTH: &str = "Content-Length: 5\r\n";
    let bad = || Err(Refusal { reason: Reason::UpstreamBadResponse, status: 502 });
    for (method, status, version, fields, want) in [
        (Method::Get, 200, "1.1", "", Ok(UntilClose)),
        (Method::Get, 200, "1.0", "", Ok(UntilClose)),
        (Method::Get, 200, "1.1", LENGTH, Ok(Length(5))),
        (Method::Get, 200, "1.0", LENGTH, Ok(Length(5))),
        (Method::Get, 200, "1.1", CHUNKED, Ok(Chunked)),
        (Method::Get, 200, "1.0", CHUNKED, bad()),
        (Method::Get, 404, "1.1", CHUNKED, Ok(Chunked)),
        (Method::Head, 200, "1.1", LENGTH, Ok(None)),
        (Method::Head, 200, "1.1", CHUNKED, Ok(None)),
        (Method::Head, 200, "1.1", "", Ok(None)),
        (Method::Get, 100, "1.1", "", Ok(None)),
        (Method::Get, 101, "1.1", "", Ok(None)),
        // RFC 9112 section 6.1 and RFC 9110 section 8.6: these say nothing of a body.
        (Method::Get, 101, "1.1", LENGTH, bad()),
        (Method::Get, 103, "1.1", LENGTH, bad()),
        (Method::Get, 103, "1.1", CHUNKED, bad()),
        (Method::Get, 204, "1.1", "", Ok(None)),
        (Method::Get, 204, "1.1", "Content-Length: 0\r\n", Ok(None)),
        (Method::Get, 204, "1.1", LENGTH, bad()),
        (Method::Get, 204, "1.1", CHUNKED, bad()),
        (Method::Head, 204, "1.1", LENGTH, bad()),
        (Method::Get, 304, "1.1", LENGTH, Ok(None)),
        (Method::Get, 304, "1.1", CHUNKED, Ok(None)),
        // What is told of a body that is not sent must have one reading too.
        (Method::Get, 304, "1.1", "Content-Length: 5, 5\r\n", bad()),
        (Method::Get, 304, "1.1", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", bad()),
        (Method::Head, 200, "1.1", "Content-Length: 5\r\nContent-Length: 6\r\n", bad()),
        (Method::Head, 200, "1.1", "Content-Length: -5\r\n", bad()),
        (Method::Head, 200, "1.1", "Transfer-Encoding: gzip\r\n", bad()),
        (Method::Head, 200, "1.0", CHUNKED, bad()),
        (Method::Post, 205, "1.1", LENGTH, Ok(Length(5))),
        (Method::Get, 200, "1.1", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", bad()),
        (Method::Get, 200, "1.1", "Content-Length: 5\r\nContent-Length: 5\r\n", bad()),
        (Method::Get, 200, "1.1", "Content-Length: 5, 5\r\n", bad()),
        (Method::Get, 200, "1.1", "Content-Length: five\r\n", bad()),
        (Method::Get, 200, "1.1", "Transfer-Encoding: gzip\r\n", bad()),
        (Method::Get, 200, "1.1", "Transfer-Encoding: gzip, chunked\r\n", bad()),
        (Method::Get, 200, "1.1", "Transfer-Encoding: chunked, chunked\r\n", bad()),
    ] {
        assert_eq!(
            response(method, status, version, fields),
            want,
            "{method:?} {status} {version} {fields:?}"
        );
    }
}

#[test]
fn relayed_framing() {
    use BodyFraming::*;
    for (received, to_10, to_11) in [
        (None, None, None),
        (Length(5), Length(5), Length(5)),
        (Chunked, UntilClose, Chunked),
        (UntilClose, UntilClose, Chunked),
    ] {
        assert_eq!(relay_framing(received, Version::Http10), to_10);
        assert_eq!(relay_framing(received, Version::Http11), to_11);
    }
}

#[test]
fn fields_say_the_framing_and_nothing_else() {
    use BodyFraming::*;
    for (framing, want) in [
        (None, "a: 1|"),
        (UntilClose, "a: 1|"),
        (Length(5), "Content-Length: 5|a: 1|"),
        (Length(6), "Content-Length: 6|a: 1|"),
        (Chunked, "a: 1|Transfer-Encoding: chunked|"),
    ] {
        let mut head = Head::new();
        head.append("Content-Length", "5");
        head.append("a", "1");
        let untouched = head.text_len();
        set_framing(&mut head, framing);
        assert_eq!(head.text_len() == untouched, matches!(framing, None | UntilClose | Length(5)));
        let mut text = Vec::new();
        head.write_lines(|lines| text.extend_from_slice(lines));
        assert_eq!(String::from_utf8_lossy(&text).replace("\r\n", "|"), want, "{framing:?}");
    }
    let mut head = Head::new();
    head.append("Transfer-Encoding", "gzip");
    head.append("Transfer-Encoding", "chunked");
    set_framing(&mut head, Length(0));
    assert_eq!((head.len(), head.get("content-length")), (1, Some(&b"0"[..])));
}
