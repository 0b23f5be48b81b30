//! Tests of head parsing: what is accepted, what is refused and why, and that cutting the input
//! changes nothing. `reference` compares with a naive parser.

mod reference;
mod smuggling;

use super::*;
use crate::http::Scheme;

fn parse(text: &str) -> Result<RequestHead, Reason> {
    parse_with(text.as_bytes(), &HeadLimits::default())
}

fn parse_with(text: &[u8], limits: &HeadLimits) -> Result<RequestHead, Reason> {
    let mut head = RequestHead::new();
    match parse_request(text, limits, &mut head).map_err(|refusal| refusal.reason)? {
        Parsed::Complete { head_len } => assert_eq!(head_len, text.len(), "{:?}", text.escape_ascii()),
        Parsed::Partial => panic!("unfinished: {}", text.escape_ascii()),
    }
    Ok(head)
}

/// A whole request with this line and these fields after Host.
fn parse_parts(line: &str, fields: &str) -> Result<RequestHead, Reason> {
    parse(&format!("{line}\r\nHost: a\r\n{fields}\r\n"))
}

fn utf8(text: &[u8]) -> &str {
    std::str::from_utf8(text).unwrap()
}

#[test]
fn a_request_is_taken_apart_rfc9112_3() {
    let text = "POST /a/%7Eb?x=1&y HTTP/1.1\r\nHost: Example.COM:8080\r\nContent-Length: 3\r\nx-a:1\r\n\r\n";
    let body = format!("{text}abcGET / HTTP/1.1\r\n");
    let mut head = RequestHead::new();
    let parsed = parse_request(body.as_bytes(), &HeadLimits::default(), &mut head);
    assert_eq!(parsed, Ok(Parsed::Complete { head_len: text.len() }));
    assert_eq!((head.method(), head.method_text()), (Method::Post, &b"POST"[..]));
    assert_eq!(utf8(head.raw_target()), "/a/%7Eb?x=1&y");
    assert_eq!(utf8(head.path()), "/a/~b");
    assert_eq!(head.query(), Some(&b"x=1&y"[..]));
    assert_eq!(utf8(head.host()), "example.com");
    assert_eq!(utf8(head.authority()), "Example.COM:8080");
    assert_eq!((head.port(), head.version()), (Some(8080), Version::Http11));
    let fields: Vec<_> =
        head.head.iter().map(|(known, name, value)| (known, utf8(name), utf8(value))).collect();
    assert_eq!(
        fields,
        [
            (Known::Host, "Host", "Example.COM:8080"),
            (Known::ContentLength, "Content-Length", "3"),
            (Known::Other, "x-a", "1"),
        ]
    );
}

#[test]
fn a_head_is_reused_without_a_trace_of_the_last_message() {
    let mut head = RequestHead::new();
    let limits = HeadLimits::default();
    for text in ["GET /long/path?q=1 HTTP/1.1\r\nHost: a:1\r\nx: 1\r\na_b: 1\r\n\r\n", "X / HTTP/1.0\r\n\r\n"]
    {
        parse_request(text.as_bytes(), &limits, &mut head).unwrap();
    }
    assert_eq!((head.head.len(), head.query(), head.host(), head.port()), (0, None, &b""[..], None));
    assert_eq!((head.method(), head.method_text(), head.underscored()), (Method::Other, &b"X"[..], 0));
}

#[test]
fn a_refused_head_leaves_nothing_of_the_last_one() {
    let mut head = RequestHead::new();
    let limits = HeadLimits::default();
    parse_request(b"GET /secret HTTP/1.1\r\nHost: a\r\n\r\n", &limits, &mut head).unwrap();
    parse_request(b"GET /\x01 HTTP/1.1\r\n\r\n", &limits, &mut head).unwrap_err();
    assert_eq!((head.raw_target(), head.path(), head.head.len()), (&b""[..], &b""[..], 0));
    parse_request(b"GET /a/%2F HTTP/1.1\r\nHost: a\r\n\r\n", &limits, &mut head).unwrap_err();
    assert_eq!((head.raw_target(), head.path()), (&b"/a/%2F"[..], &b""[..]));
}

#[test]
fn a_warm_head_takes_no_memory() {
    let mut head = RequestHead::new();
    let text = b"GET /%7E?a HTTP/1.1\r\nHost: A\r\nx:y\r\n\r\n";
    let mut capacity = None;
    for _ in 0..3 {
        parse_request(text, &HeadLimits::default(), &mut head).unwrap();
        let now = head.head.arena().capacity();
        assert_eq!(*capacity.get_or_insert(now), now);
    }
}

#[test]
fn request_lines_rfc9112_3() {
    for (line, want) in [
        ("GET / HTTP/1.1", Ok("/")),
        ("GET / HTTP/1.0", Ok("/")),
        ("M-SEARCH / HTTP/1.1", Ok("/")),
        ("get / HTTP/1.1", Ok("/")),
        ("OPTIONS * HTTP/1.1", Ok("*")),
        ("GET * HTTP/1.1", Err(Reason::BadTarget)),
        // RFC 9112 section 3.2.4; any other method asks for the root.
        ("OPTIONS http://a HTTP/1.1", Ok("*")),
        ("OPTIONS http://a?b HTTP/1.1", Ok("/")),
        ("OPTIONS http://a/ HTTP/1.1", Ok("/")),
        ("GET http://a HTTP/1.1", Ok("/")),
        ("OPTIONS ** HTTP/1.1", Err(Reason::BadTarget)),
        ("GET a HTTP/1.1", Err(Reason::BadTarget)),
        ("GET a:80 HTTP/1.1", Err(Reason::BadTarget)),
        ("GET ?a HTTP/1.1", Err(Reason::BadTarget)),
        ("GET /#a HTTP/1.1", Err(Reason::BadTarget)),
        ("GET /?a#b HTTP/1.1", Err(Reason::BadTarget)),
        ("GET /a\u{7f} HTTP/1.1", Err(Reason::BadTarget)),
        ("GET /a\tb HTTP/1.1", Err(Reason::BadTarget)),
        ("GET /a b HTTP/1.1", Err(Reason::BadRequestLine)),
        ("GET  / HTTP/1.1", Err(Reason::BadTarget)),
        ("GET /  HTTP/1.1", Err(Reason::BadRequestLine)),
        (" GET / HTTP/1.1", Err(Reason::BadMethod)),
        ("GET\t/ HTTP/1.1", Err(Reason::BadMethod)),
        ("G(T / HTTP/1.1", Err(Reason::BadMethod)),
        ("GET / HTTP/1.1 ", Err(Reason::BadRequestLine)),
        ("GET /", Err(Reason::BadRequestLine)),
        ("GET", Err(Reason::BadRequestLine)),
        ("GET / HTTP/1.2", Err(Reason::UnsupportedVersion)),
        ("GET / HTTP/2.0", Err(Reason::UnsupportedVersion)),
        ("GET / HTTP/0.9", Err(Reason::UnsupportedVersion)),
        ("GET / http/1.1", Err(Reason::BadVersion)),
        ("GET / HTTP/1", Err(Reason::BadVersion)),
        ("GET / HTTP/11.1", Err(Reason::BadVersion)),
        ("GET / HTTPS/1.1", Err(Reason::BadVersion)),
        ("CONNECT a:443 HTTP/1.1", Err(Reason::ConnectRefused)),
        ("TRACE / HTTP/1.1", Err(Reason::TraceRefused)),
        ("GET /a/../b HTTP/1.1", Ok("/b")),
        ("GET /a%2fb HTTP/1.1", Err(Reason::BadPathEncoding)),
        ("GET /? HTTP/1.1", Ok("/")),
    ] {
        let head = parse_parts(line, "");
        assert_eq!(head.as_ref().map(|head| utf8(head.path())).map_err(|reason| *reason), want, "{line}");
    }
}

#[test]
fn methods_that_are_refused_get_405() {
    for reason in [Reason::ConnectRefused, Reason::TraceRefused] {
        assert_eq!(Refusal::new(reason).status, 405);
    }
}

#[test]
fn other_protocols_are_refused_at_their_first_bytes_rfc9113_3_4() {
    for (text, want) in [
        (&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], Reason::H2Preface),
        (b"\x16\x03\x01\x02\x00\x01\x00", Reason::BadMethod),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Reason::BadRequestLine),
        (b"\0\0\0\0", Reason::BadMethod),
    ] {
        let mut head = RequestHead::new();
        let parsed = parse_request(text, &HeadLimits::default(), &mut head);
        assert_eq!(parsed.map_err(|refusal| refusal.reason), Err(want), "{}", text.escape_ascii());
    }
}

#[test]
fn targets_in_absolute_form_rfc9112_3_2_2() {
    let field = |host: &str| if host.is_empty() { String::new() } else { format!("Host: {host}\r\n") };
    for (target, version, host, want) in [
        ("http://a/b?c", "1.1", "a", Ok(("a", "/b", Some("c")))),
        ("HTTP://A/b", "1.1", "a", Ok(("a", "/b", None))),
        ("http://a", "1.1", "a", Ok(("a", "/", None))),
        ("http://a?c", "1.1", "a", Ok(("a", "/", Some("c")))),
        ("http://a:80/", "1.1", "a", Ok(("a", "/", None))),
        ("https://a/", "1.1", "a:443", Ok(("a", "/", None))),
        ("http://a/%2e%2e/x", "1.1", "a", Ok(("a", "/x", None))),
        ("http://a/x", "1.0", "", Ok(("a", "/x", None))),
        ("http://a/", "1.1", "", Err(Reason::MissingHost)),
        ("http://a/", "1.1", "b", Err(Reason::DuplicateHost)),
        ("http://a:81/", "1.1", "a", Err(Reason::DuplicateHost)),
        ("http://u@a/", "1.1", "a", Err(Reason::BadTarget)),
        ("http:///", "1.1", "a", Err(Reason::BadTarget)),
        ("http://", "1.1", "a", Err(Reason::BadTarget)),
        ("http:/a", "1.1", "a", Err(Reason::BadTarget)),
        ("ftp://a/", "1.1", "a", Err(Reason::BadTarget)),
        ("http://a/#b", "1.1", "a", Err(Reason::BadTarget)),
        ("http://a#b", "1.1", "a", Err(Reason::BadTarget)),
        ("http://a\\b/", "1.1", "a", Err(Reason::BadTarget)),
    ] {
        let head = parse(&format!("GET {target} HTTP/{version}\r\n{}\r\n", field(host)));
        let got = head.as_ref().map(|head| (utf8(head.host()), utf8(head.path()), head.query().map(utf8)));
        assert_eq!(got.map_err(|reason| *reason), want, "{target} {host}");
        if let Ok(head) = head {
            assert_eq!(head.head.count_known(Known::Host), 1, "a Host field is made where none came");
            let https = target.starts_with("https");
            assert_eq!(head.scheme(), Some(if https { Scheme::Https } else { Scheme::Http }), "{target}");
        }
    }
}

#[test]
fn hosts_rfc9110_7_2() {
    for (version, fields, want) in [
        ("1.1", "Host: a\r\n", Ok("a")),
        ("1.1", "HOST: A.b:1\r\n", Ok("a.b")),
        ("1.1", "Host: [::1]:80\r\n", Ok("[::1]")),
        ("1.1", "Host: a.\r\n", Ok("a")),
        ("1.1", "", Err(Reason::MissingHost)),
        ("1.1", "Host:\r\n", Err(Reason::MissingHost)),
        ("1.0", "", Ok("")),
        ("1.0", "Host: a\r\n", Ok("a")),
        ("1.1", "Host: a\r\nHost: a\r\n", Err(Reason::DuplicateHost)),
        ("1.1", "Host: a\r\nhost: b\r\n", Err(Reason::DuplicateHost)),
        ("1.0", "Host: a\r\nhost: b\r\n", Err(Reason::DuplicateHost)),
        ("1.1", "Host: a, b\r\n", Err(Reason::BadHeader)),
        ("1.1", "Host: a b\r\n", Err(Reason::BadHeader)),
        ("1.1", "Host: http://a\r\n", Err(Reason::BadHeader)),
        ("1.1", "Host: a/b\r\n", Err(Reason::BadHeader)),
        ("1.1", "Host: u@a\r\n", Err(Reason::BadHeader)),
        ("1.1", "Host: a:x\r\n", Err(Reason::BadHeader)),
        ("1.1", "Host: a:99999\r\n", Err(Reason::BadHeader)),
        ("1.1", "Host: \u{e9}\r\n", Err(Reason::BadHeader)),
    ] {
        let head = parse(&format!("GET / HTTP/{version}\r\n{fields}\r\n"));
        assert_eq!(head.as_ref().map(|head| utf8(head.host())).map_err(|reason| *reason), want, "{fields:?}");
    }
}

#[test]
fn field_lines_rfc9112_5() {
    for (fields, want) in [
        ("x: y\r\n", Ok("y")),
        ("x:y\r\n", Ok("y")),
        ("x: \t y \t \r\n", Ok("y")),
        ("x:\r\n", Ok("")),
        ("x: \r\n", Ok("")),
        ("x: a\tb \u{e9}\r\n", Ok("a\tb \u{e9}")),
        ("x : y\r\n", Err(Reason::BadHeader)),
        ("x\t: y\r\n", Err(Reason::BadHeader)),
        (": y\r\n", Err(Reason::BadHeader)),
        ("x\r\n", Err(Reason::BadHeader)),
        ("x y: z\r\n", Err(Reason::BadHeader)),
        ("x@: z\r\n", Err(Reason::BadHeader)),
        ("\u{e9}: z\r\n", Err(Reason::BadHeader)),
        ("x\0: z\r\n", Err(Reason::BadHeader)),
        ("x: y\0\r\n", Err(Reason::BadHeader)),
        ("x: y\u{1}\r\n", Err(Reason::BadHeader)),
        ("x: y\u{7f}\r\n", Err(Reason::BadHeader)),
        ("x: y\rz\r\n", Err(Reason::BadHeader)),
        ("x: y\r\r\n", Err(Reason::BadHeader)),
        ("x: y\r\n z\r\n", Err(Reason::ObsFold)),
        ("x: y\r\n\tz: 1\r\n", Err(Reason::ObsFold)),
        ("x:\r\n y\r\n", Err(Reason::ObsFold)),
        ("x: y\n", Err(Reason::BareLf)),
        ("x: y\nz: 1\r\n", Err(Reason::BareLf)),
        ("x:\nz: 1\r\n", Err(Reason::BareLf)),
        ("x: y\n\r\n", Err(Reason::BareLf)),
    ] {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let mut head = RequestHead::new();
        let parsed = parse_request(text.as_bytes(), &HeadLimits::default(), &mut head);
        let got = parsed.map(|_| utf8(head.head.get("x").unwrap_or(b"absent")));
        assert_eq!(got.map_err(|refusal| refusal.reason), want, "{fields:?}");
    }
}

#[test]
fn every_line_end_is_strict_rfc9112_2_2() {
    let lines = ["GET / HTTP/1.1", "Host: a", "x: y", ""];
    for bare in 0..lines.len() {
        for end in ["\n", "\r"] {
            let text: String = (0..lines.len())
                .map(|index| format!("{}{}", lines[index], if index == bare { end } else { "\r\n" }))
                .collect();
            let mut head = RequestHead::new();
            let parsed = parse_request(format!("{text}\r\n").as_bytes(), &HeadLimits::default(), &mut head);
            assert!(parsed.is_err(), "{text:?}: {parsed:?}");
        }
    }
}

#[test]
fn empty_lines_before_a_request_rfc9112_2_2() {
    let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert!(parse(&format!("\r\n{request}")).is_ok());
    assert!(parse(&format!("\r\n\r\n{request}")).is_ok());
    for lead in ["\r\n\r\n\r\n", "\n", "\r", "\r\n\n"] {
        assert_eq!(parse(&format!("{lead}{request}")).err(), Some(Reason::BadRequestLine), "{lead:?}");
    }
}

#[test]
fn limits() {
    let limits = HeadLimits { request_line: 32, head: 128, fields: 3, ..HeadLimits::default() };
    let line = |path: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(path));
    assert!(parse_with(line(18).as_bytes(), &limits).is_ok());
    assert_eq!(parse_with(line(19).as_bytes(), &limits).err(), Some(Reason::UriTooLong));
    let size = |total: usize| {
        let text = "GET / HTTP/1.1\r\nHost: a\r\nx: \r\n\r\n";
        text.replace("x: ", &format!("x: {}", "y".repeat(total - text.len())))
    };
    assert!(parse_with(size(128).as_bytes(), &limits).is_ok());
    assert_eq!(parse_with(size(129).as_bytes(), &limits).err(), Some(Reason::HeaderTooLarge));
    let count = |fields: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "x: y\r\n".repeat(fields - 1));
    assert!(parse_with(count(3).as_bytes(), &limits).is_ok());
    assert_eq!(parse_with(count(4).as_bytes(), &limits).err(), Some(Reason::TooManyHeaders));
    for (reason, status) in
        [(Reason::UriTooLong, 414), (Reason::HeaderTooLarge, 431), (Reason::TooManyHeaders, 431)]
    {
        assert_eq!(Refusal::new(reason).status, status);
    }
}

#[test]
fn limits_hold_before_the_head_is_whole() {
    let limits = HeadLimits { request_line: 32, head: 128, ..HeadLimits::default() };
    let feed = |text: &[u8], step: usize| {
        let mut head = RequestHead::new();
        for end in (0..=text.len()).step_by(step) {
            if let Err(refusal) = parse_request(&text[..end], &limits, &mut head) {
                return Some((refusal.reason, end));
            }
        }
        None
    };
    for step in [1, 2, 7] {
        let endless_line = [b"GET /".as_slice(), &[b'a'; 200]].concat();
        let (reason, at) = feed(&endless_line, step).unwrap();
        assert!(reason == Reason::UriTooLong && at < 34 + step, "{at}");
        let endless_field = [b"GET / HTTP/1.1\r\nx: ".as_slice(), &[b'a'; 200]].concat();
        let (reason, at) = feed(&endless_field, step).unwrap();
        assert!(reason == Reason::HeaderTooLarge && at < 129 + step, "{at}");
        let (reason, _) = feed(b"GET / HTTP/1.1\r\nHost: a\nx: y\r\n", step).unwrap();
        assert_eq!(reason, Reason::BareLf);
    }
}

#[test]
fn underscores_are_dropped_and_counted() {
    let text = "GET / HTTP/1.1\r\nHost: a\r\nX_Real_IP: 1\r\nx-a: 2\r\na_: 3\r\n\r\n";
    let head = parse(text).unwrap();
    assert_eq!((head.underscored(), head.head.len()), (2, 2));
    assert!(!head.head.contains("X_Real_IP"));
    let limits = HeadLimits { underscores: Underscores::Keep, ..HeadLimits::default() };
    let head = parse_with(text.as_bytes(), &limits).unwrap();
    assert_eq!((head.underscored(), head.head.get("x_real_ip")), (0, Some(&b"1"[..])));
    let posing = b"GET / HTTP/1.1\r\nHost: a\r\nContent_Length: 1\r\n\r\n";
    assert_eq!(parse_with(posing, &limits).unwrap().underscored(), 1, "another length");
    let limits = HeadLimits { underscores: Underscores::Reject, ..HeadLimits::default() };
    assert_eq!(parse_with(text.as_bytes(), &limits).err(), Some(Reason::BadHeader));
}

#[test]
fn metadata_of_calls_may_have_underscores() {
    let call = |method: &str, media_type: &str| {
        let text =
            format!("{method} / HTTP/1.1\r\nHost: a\r\nretry_info: 1\r\nContent-Type: {media_type}\r\n\r\n");
        parse(&text).unwrap().head.contains("retry_info")
    };
    assert!(call("POST", "application/grpc-web+proto"));
    assert!(!call("POST", "application/json"));
    assert!(!call("GET", "application/grpc-web"));
}

#[test]
fn queries_keep_their_bytes_but_for_what_no_uri_may_hold() {
    let head = parse_parts("GET /?a=%zz&b=\u{e9}{}|../%2f HTTP/1.1", "").unwrap();
    assert_eq!(head.query(), Some(&b"a=%zz&b=%C3%A9{}|../%2f"[..]));
}

#[test]
fn cutting_the_input_changes_nothing() {
    for text in [
        "GET /a?b HTTP/1.1\r\nHost: a\r\nx: y\r\n\r\n",
        "\r\nPOST / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nx: y\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nx : y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/3.0\r\n\r\n",
    ] {
        let whole = parse(text).map(|head| format!("{head:?}"));
        for first in 0..=text.len() {
            for second in first..=text.len() {
                let mut head = RequestHead::new();
                let mut last = Ok(Parsed::Partial);
                for end in [first, second, text.len()] {
                    last = parse_request(&text.as_bytes()[..end], &HeadLimits::default(), &mut head);
                    if last != Ok(Parsed::Partial) {
                        break;
                    }
                }
                match (&whole, last) {
                    (Ok(whole), Ok(Parsed::Complete { head_len })) => {
                        assert_eq!(head_len, text.len());
                        assert_eq!(&format!("{head:?}"), whole);
                    }
                    (Err(_), Err(_)) => {}
                    (_, last) => panic!("{text:?} cut at {first} and {second}: {last:?}, not {whole:?}"),
                }
            }
        }
    }
}

#[test]
fn responses_rfc9112_4() {
    let limits = HeadLimits::default();
    for (text, want) in [
        ("HTTP/1.1 200 OK\r\nx: y\r\n\r\n", Some((200, "OK", Version::Http11))),
        ("HTTP/1.0 404 \r\n\r\n", Some((404, "", Version::Http10))),
        ("HTTP/1.1 599\r\n\r\n", Some((599, "", Version::Http11))),
        ("HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n", Some((103, "Early Hints", Version::Http11))),
        ("HTTP/1.1 600 x\r\n\r\n", None),
        ("HTTP/1.1 099 x\r\n\r\n", None),
        ("HTTP/1.1 20 x\r\n\r\n", None),
        ("HTTP/1.1 2000 x\r\n\r\n", None),
        ("HTTP/2.0 200 x\r\n\r\n", None),
        ("HTTP/1.1  200 x\r\n\r\n", None),
        ("\r\nHTTP/1.1 200 x\r\n\r\n", None),
        ("ICY 200 OK\r\n\r\n", None),
        ("HTTP/1.1 200 OK\nx: y\r\n\r\n", None),
        ("HTTP/1.1 200 OK\r\nx: y\n\r\n", None),
        ("HTTP/1.1 200 OK\r\nx : y\r\n\r\n", None),
        ("HTTP/1.1 200 OK\r\nx: y\r\n z\r\n\r\n", None),
        ("HTTP/1.1 200 O\0K\r\n\r\n", None),
        ("<html>", None),
    ] {
        let mut head = ResponseHead::new();
        let got = parse_response(text.as_bytes(), &limits, &mut head).map(|parsed| {
            assert_eq!(parsed, Parsed::Complete { head_len: text.len() }, "{text:?}");
            (head.status(), utf8(head.reason()), head.version())
        });
        let bad = Refusal { reason: Reason::UpstreamBadResponse, status: 502 };
        assert_eq!(got, want.ok_or(bad), "{text:?}");
    }
}

#[test]
fn responses_in_pieces() {
    let text = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let mut head = ResponseHead::new();
    for end in 0..text.len() - 2 {
        let parsed = parse_response(&text[..end], &HeadLimits::default(), &mut head);
        assert_eq!(parsed, Ok(Parsed::Partial));
    }
    let parsed = parse_response(text, &HeadLimits::default(), &mut head);
    assert_eq!(parsed, Ok(Parsed::Complete { head_len: text.len() - 2 }));
    assert_eq!(head.head.get_known(Known::ContentLength), Some(&b"2"[..]));
}

#[test]
fn a_response_keeps_underscores_unless_they_pose_as_framing() {
    let text = b"HTTP/1.1 200 OK\r\nX_A: 1\r\ncontent_LENGTH: 3\r\nTransfer_Encoding: chunked\r\nContent-Length: 0\r\n\r\n";
    let limits = HeadLimits { underscores: Underscores::Keep, ..HeadLimits::default() };
    let mut head = ResponseHead::new();
    parse_response(text, &limits, &mut head).unwrap();
    let names: Vec<_> = head.head.iter().map(|(_, name, _)| utf8(name)).collect();
    assert_eq!(names, ["X_A", "Content-Length"]);
}
