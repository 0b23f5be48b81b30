//! Tests of the way between heads of the codec and ours.

use http::header::{HeaderName, HeaderValue};

use super::*;

/// A request as the codec gives it.
fn parts(method: &str, uri: &str, fields: &[(&'static str, &str)]) -> request::Parts {
    let mut message = Request::new(());
    *message.method_mut() = http::Method::from_bytes(method.as_bytes()).unwrap();
    *message.uri_mut() = uri.parse().unwrap();
    for (name, value) in fields {
        let value = HeaderValue::from_str(value).unwrap();
        message.headers_mut().append(HeaderName::from_static(name), value);
    }
    message.into_parts().0
}

fn take(parts: &request::Parts, ended: bool) -> (RequestHead, Result<Facts, Fault>) {
    let mut head = RequestHead::new();
    let read = read(parts, ended, &HeadLimits::default(), &mut head);
    (head, read)
}

fn refused(reason: Reason) -> Result<Facts, Fault> {
    Err(Fault::Refused(Refusal::new(reason)))
}

#[test]
fn a_request_comes_in_as_in_http1() {
    let fields = [("content-length", "3"), ("accept", "a"), ("accept", "b")];
    let (head, read) = take(&parts("POST", "https://Example.com:8443/a/./%7Eb?x=1", &fields), false);
    assert_eq!(read, Ok(Facts { framing: BodyFraming::Length(3), protocol: None }));
    assert_eq!((head.method(), head.version()), (Method::Post, Version::Http2));
    assert_eq!((head.path(), head.query()), (&b"/a/~b"[..], Some(&b"x=1"[..])));
    assert_eq!(head.raw_target(), b"/a/./%7Eb?x=1");
    assert_eq!((head.host(), head.port()), (&b"example.com"[..], Some(8443)));
    assert_eq!(head.scheme(), Some(Scheme::Https));
    assert_eq!(head.head.get_known(Known::Host), Some(&b"Example.com:8443"[..]));
    assert_eq!(head.head.all_known(Known::Accept).collect::<Vec<_>>(), [b"a", b"b"]);
}

#[test]
fn pseudo_fields_rfc9113_8_3_1() {
    let check = |method: &str, uri: &str, fields: &[(&'static str, &str)], expected: Result<(), Reason>| {
        let (_, read) = take(&parts(method, uri, fields), true);
        let expected = expected.map_err(|reason| Fault::Refused(Refusal::new(reason)));
        assert_eq!(read.map(|_| ()), expected, "{method} {uri} {fields:?}");
    };
    check("GET", "http://a/", &[], Ok(()));
    check("GET", "http://a/", &[("host", "a")], Ok(()));
    check("GET", "http://a/", &[("host", "A")], Ok(()));
    check("GET", "http://a/", &[("host", "a:80")], Ok(()));
    check("GET", "https://a/", &[("host", "a:443")], Ok(()));
    check("GET", "https://a/", &[("host", "a:80")], Err(Reason::DuplicateHost));
    check("GET", "http://a/", &[("host", "b")], Err(Reason::DuplicateHost));
    check("GET", "http://a/", &[("host", "a"), ("host", "a")], Err(Reason::DuplicateHost));
    check("GET", "http://a/", &[("host", "")], Err(Reason::MissingHost));
    check("GET", "/", &[("host", "a")], Ok(()));
    check("GET", "/", &[], Err(Reason::MissingHost));
    check("GET", "/", &[("host", "")], Err(Reason::MissingHost));
    check("GET", "/", &[("host", "a"), ("host", "b")], Err(Reason::DuplicateHost));
    check("GET", "/", &[("host", "a b")], Err(Reason::BadHeader));
    check("GET", "http://u@a/", &[], Err(Reason::BadHeader));
    check("GET", "http://a+b/", &[], Err(Reason::BadHeader));
    check("GET", "ftp://a/", &[], Err(Reason::BadTarget));
    check("GET", "wss://a/", &[], Err(Reason::BadTarget));
    check("OPTIONS", "*", &[("host", "a")], Ok(()));
    check("GET", "*", &[("host", "a")], Err(Reason::BadTarget));
    check("GET", "http://a/%2f", &[], Err(Reason::BadPathEncoding));
    check("TRACE", "http://a/", &[], Err(Reason::TraceRefused));
    check("CONNECT", "a:443", &[], Err(Reason::ConnectRefused));
}

#[test]
fn limits_are_those_of_http1() {
    let check = |path: usize, count: usize, value: usize, expected: Result<(), Reason>| {
        let uri = format!("http://a/{}", "p".repeat(path));
        let value = "v".repeat(value);
        let fields: Vec<_> = (0..count).map(|_| ("x", value.as_str())).collect();
        let (_, read) = take(&parts("GET", &uri, &fields), true);
        let expected = expected.map_err(|reason| Fault::Refused(Refusal::new(reason)));
        assert_eq!(read.map(|_| ()), expected, "{path} {count}");
    };
    check(8000, 1, 1, Ok(()));
    check(8 * 1024, 1, 1, Err(Reason::UriTooLong));
    check(1, 100, 1, Ok(()));
    check(1, 101, 1, Err(Reason::TooManyHeaders));
    check(1, 1, 30_000, Ok(()));
    check(1, 2, 20_000, Err(Reason::HeaderTooLarge));
}

#[test]
fn underscores_by_setting_and_kind() {
    let check = |underscores, media_type: &str, expected: Result<bool, Fault>| {
        let fields = [("retry_info", "1"), ("content-type", media_type)];
        let limits = HeadLimits { underscores, ..HeadLimits::default() };
        let mut head = RequestHead::new();
        let read = read(&parts("POST", "http://a/", &fields), false, &limits, &mut head);
        assert_eq!(read.map(|_| head.head.contains("retry_info")), expected, "{underscores:?} {media_type}");
    };
    let refused = Err(Fault::Refused(Refusal::new(Reason::BadHeader)));
    check(Underscores::Drop, "text/plain", Ok(false));
    check(Underscores::Drop, "application/grpc", Ok(true));
    check(Underscores::Keep, "text/plain", Ok(true));
    check(Underscores::Reject, "application/grpc", refused);
}

#[test]
fn cookie_crumbs_count_as_one_field() {
    let crumbs: Vec<_> = (0..150).map(|_| ("cookie", "a=b")).collect();
    let (head, read) = take(&parts("GET", "http://a/", &crumbs), true);
    assert!(read.is_ok());
    assert_eq!(head.head.count_known(Known::Cookie), 1);
}

#[test]
fn extended_connect_rfc8441() {
    let mut asked = parts("CONNECT", "https://a/chat", &[("sec-websocket-version", "13")]);
    asked.extensions.insert(h2::ext::Protocol::from_static("websocket"));
    let (head, read) = take(&asked, false);
    assert_eq!(read.unwrap().protocol, Some(Protocol::WebSocket));
    assert_eq!((head.method(), head.path()), (Method::Get, &b"/chat"[..]));
    asked.extensions.insert(h2::ext::Protocol::from_static("connect-udp"));
    let (_, read) = take(&asked, false);
    assert_eq!(read, Err(Fault::Refused(Refusal { reason: Reason::ConnectRefused, status: 501 })));
}

#[test]
fn the_length_of_a_body() {
    let check = |fields: &[(&'static str, &str)], ended: bool, expected: Result<BodyFraming, Reason>| {
        let (_, read) = take(&parts("POST", "http://a/", fields), ended);
        let expected = expected.map_err(|reason| Fault::Refused(Refusal::new(reason)));
        assert_eq!(read.map(|facts| facts.framing), expected, "{fields:?} {ended}");
    };
    check(&[], true, Ok(BodyFraming::None));
    check(&[], false, Ok(BodyFraming::Chunked));
    check(&[("content-length", "0")], true, Ok(BodyFraming::None));
    check(&[("content-length", "7")], false, Ok(BodyFraming::Length(7)));
    check(&[("content-length", "7"), ("content-length", "7")], false, Err(Reason::AmbiguousLength));
    check(&[("content-length", "+7")], false, Err(Reason::BadContentLength));
    let (_, read) = take(&parts("POST", "http://a/", &[("x", " a")]), true);
    assert_eq!(read, Err(Fault::Malformed));
    assert_eq!(take(&parts("GET", "/", &[]), true).1, refused(Reason::MissingHost));
}

#[test]
fn a_request_goes_out() {
    let mut head = RequestHead::new();
    head.set_method("PUT");
    head.set_target("/a?b=c", &crate::http::PathPolicy::default()).unwrap();
    head.head.append("Host", "target:8080");
    head.head.append("X-A", "1");
    head.head.append("Connection", "x-a");
    head.head.append("TE", "gzip");
    let message = write(&head, Outgoing { https: true, te_trailers: true, ..Outgoing::default() }).unwrap();
    assert_eq!(message.uri(), "https://target:8080/a?b=c");
    assert_eq!(message.method(), "PUT");
    let mut fields: Vec<_> = message.headers().iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
    fields.sort();
    assert_eq!(fields, [("te", &b"trailers"[..]), ("x-a", b"1")]);

    let outgoing = Outgoing { protocol: Some(Protocol::WebSocket), ..Outgoing::default() };
    let message = write(&head, outgoing).unwrap();
    assert_eq!(message.method(), "CONNECT");
    assert_eq!(message.extensions().get::<h2::ext::Protocol>().unwrap().as_str(), "websocket");
    head.head.set("Host", "no host");
    assert!(write(&head, Outgoing::default()).is_none());
}
