//! Tests of the text forms.

use super::*;
use crate::model::{HostName, Protocol};

fn check(text: &Text, good: &[&str], bad: &[&str]) {
    for one in good {
        assert_eq!((text.check)(one), Ok(()), "{one:?} should be {}", text.what);
    }
    for one in bad {
        assert!((text.check)(one).is_err(), "{one:?} should not be {}", text.what);
    }
}

#[test]
fn forms() {
    check(&NAME, &["a", "é b"], &["", "a\nb"]);
    check(&HEADER_NAME, &["X-A", "a_b", "~!"], &["", "a b", "a:", "é", "a(b)"]);
    check(&METHOD, &["GET", "M-SEARCH", "X_1"], &["", "get", "Get", "G T", "1A"]);
    check(&PATH, &["/", "/a/b", "/é", "/a%20b"], &["", "a", "/a b", "/a?b", "/a#b", "/a\\b"]);
    check(&PATH_PATTERN, &["/", "/a(b)", "~/a(?<id>\\d+)$", "~^/x"], &["", "a", "~", "~(", "~(?=x)", "/a b"]);
    check(
        &HOST,
        &["a", "a.b-c.d_e", "10.0.0.1", "::1", "[::1]", "a."],
        &["", "a b", "a:80", "http://a", "-a", "a..b"],
    );
    check(
        &TARGET,
        &["a:1", "10.0.0.1:80", "[::1]:80", "::1", "a"],
        &["a:0", "a:70000", "a:x", "", ":80", "10.0.0.1:0"],
    );
    check(
        &URL,
        &["http://a", "https://a:8443/x", "http://[::1]:80/", "grpc://a"],
        &["a", "ftp://a", "http://", "http://u@a", "http://a/x?y", "http://a:0", "http://a b"],
    );
    check(&INTERFACE, &["eth0", "br-1.2"], &["", "a b", "a/b", "0123456789abcdef"]);
    check(&PEM, &["-----BEGIN X-----\nAA\n-----END X-----"], &["", "/etc/x.pem", "-----BEGIN X-----"]);
    check(&FILE, &["a", "/a b"], &["", "a\0"]);
}

#[test]
fn host_patterns() {
    let cases = [
        ("Example.COM", Some((HostName::Exact("example.com".into()), None))),
        ("example.com:8443", Some((HostName::Exact("example.com".into()), Some(8443)))),
        ("*.Example.com", Some((HostName::Suffix(".example.com".into()), None))),
        ("example.*", Some((HostName::Prefix("example.".into()), None))),
        ("*.example.com:80", Some((HostName::Suffix(".example.com".into()), Some(80)))),
        ("10.0.0.1", Some((HostName::Exact("10.0.0.1".into()), None))),
        ("[::1]", Some((HostName::Exact("[::1]".into()), None))),
        ("[::1]:8080", Some((HostName::Exact("[::1]".into()), Some(8080)))),
        ("*", None),
        ("*.*", None),
        ("a.*.b", None),
        ("*a.b", None),
        ("a*", None),
        ("*.", None),
        (".*", None),
        ("a:0", None),
        ("a:x", None),
        ("", None),
        ("a b", None),
    ];
    for (text, expected) in cases {
        assert_eq!(host_pattern(text).ok(), expected, "{text:?}");
    }
}

#[test]
fn urls_are_taken_apart() {
    let expected = Url { protocol: Protocol::Https, host: "a.b", port: Some(8443), path: Some("/x/y") };
    assert_eq!(url("https://a.b:8443/x/y"), Ok(expected));
    let expected = Url { protocol: Protocol::Http, host: "[::1]", port: None, path: None };
    assert_eq!(url("http://[::1]"), Ok(expected));
    assert_eq!(url("localhost:80").unwrap_err().hint.as_deref(), Some("write `http://localhost:80`"));
    assert_eq!(url("htps://a").unwrap_err().hint.as_deref(), Some("did you mean `https`?"));
}

#[test]
fn hints_lead_on() {
    let hint = |text: &Text, value: &str| (text.check)(value).unwrap_err().hint.unwrap_or_default();
    assert_eq!(hint(&METHOD, "get"), "did you mean `GET`?");
    assert_eq!(hint(&PATH_PATTERN, "api"), "write `/api` for a prefix or `~/api` for a regular expression");
    assert!(hint(&PATH_PATTERN, "~/a(?!b)").contains("look-around"));
    assert!(hint(&HOST, "http://a/b").contains("`a`"));
    assert!(hint(&PEM, "/etc/cert.pem").contains("cert_file"));
}
