//! What the service is told, and what becomes of its answers.

use super::*;
use crate::plugin::fixture::{Fixture, request};

fn spec(settings: &str) -> Arc<ForwardAuth> {
    use portcullis_config::{self as config, Diagnostics};
    let text = format!(
        "plugins:\n- name: forward-auth\n  config: {{address: 'http://127.0.0.1:9/v?x=1'{settings}}}\n"
    );
    let fixture = Fixture::new(&text);
    let found = Diagnostics::new(fixture.config.sources.clone());
    let cx = crate::plugin::CompileCx { consumers: &fixture.consumers, config: &fixture.config, instance: 1 };
    let plugin: &config::Plugin = &fixture.config.plugins[0];
    let spec = settings::read(plugin, &cx, &found);
    assert!(!found.has_errors(), "{:?}", found.into_sorted());
    Arc::new(spec.expect("settings"))
}

fn reply(status: u16, fields: &[(&str, &str)], body: &str) -> Reply {
    let mut head = crate::http::ResponseHead::new();
    head.set_status(status);
    fields.iter().for_each(|(name, value)| head.head.append(name, value));
    Reply { head, body: body.as_bytes().to_vec() }
}

fn asked(settings: &str, lines: &str) -> String {
    let fixture = Fixture::default();
    let mut cx = fixture.cx_from("192.0.2.7");
    cx.https = true;
    let request = request(&format!("POST /a/b?c=d HTTP/1.1\nHost: shop.example:8443\n{lines}"));
    String::from_utf8(spec(settings).question(&cx, &request, None).0).expect("text")
}

#[test]
fn the_service_is_told_what_we_see() {
    let message =
        asked("", "Authorization: x\nContent-Length: 3\nX-Forwarded-Uri: /lie\nX-Forwarded-For: 10.0.0.1");
    let expected = "GET /v?x=1 HTTP/1.1\r\nHost: 127.0.0.1:9\r\nAuthorization: x\r\n\
                    X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.example:8443\r\n\
                    X-Forwarded-Method: POST\r\nX-Forwarded-Uri: /a/b?c=d\r\n\r\n";
    assert_eq!(message, expected);
}

#[test]
fn trust_forward_header_hands_on_what_a_trusted_proxy_says() {
    let lines = "X-Forwarded-For: 10.0.0.1\nX-Forwarded-Proto: http\nX-Forwarded-Host: other";
    let message = asked(", trust_forward_header: true", lines);
    for expected in ["X-Forwarded-For: 10.0.0.1, 192.0.2.7\r\n", "-Proto: http\r\n", "-Host: other\r\n"] {
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn auth_request_headers_and_the_method() {
    let message = asked(", auth_request_headers: [x-a], preserve_request_method: true", "X-A: 1\nX-B: 2");
    assert!(message.starts_with("POST /v?x=1 ") && message.contains("X-A: 1\r\n"), "{message}");
    assert!(!message.contains("X-B") && message.ends_with("Content-Length: 0\r\n\r\n"), "{message}");
    assert!(
        asked(", convention: nginx", "").contains("X-Original-Method: POST\r\nX-Original-URI: /a/b?c=d\r\n")
    );
}

#[test]
fn only_the_service_says_who_it_is() {
    let spec = spec(", auth_response_headers: [X-User], auth_response_headers_regex: '^x-group-'");
    let mut request = request("GET / HTTP/1.1\nHost: a\nX-User: eve\nX-Group-A: eve\nX-Other: 1");
    let said = reply(200, &[("X-Group-B", "staff"), ("X-Else", "no"), ("Content-Length", "0")], "");
    spec.let_pass(&mut request.head, &spec.pass(&said));
    let names: Vec<_> = request.head.iter().map(|(_, n, v)| (n.to_ascii_lowercase(), v.to_vec())).collect();
    let expected = [("host", "a"), ("x-other", "1"), ("x-group-b", "staff")];
    assert_eq!(names, expected.map(|(n, v)| (n.as_bytes().to_vec(), v.as_bytes().to_vec())));
}

#[test]
fn other_answers_go_to_the_client() {
    let said =
        [("Location", "/login"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("Content-Type", "text/html")];
    let mut fields = Head::new();
    let response = spec("").denied(&reply(302, &said, "go"), &mut fields);
    assert_eq!((response.status, response.reason), (302, Some(Reason::ExternalDenied)));
    assert_eq!(fields.get_known(Known::Location), Some(&b"http://127.0.0.1:9/login"[..]));
    assert_eq!(fields.count_known(Known::SetCookie), 2);
    let content = response.content.expect("a body");
    assert_eq!((&*content.media_type, &*content.bytes), ("text/html", &b"go"[..]));

    let mut fields = Head::new();
    spec(", preserve_location_header: true").denied(&reply(302, &said, ""), &mut fields);
    assert_eq!(fields.get_known(Known::Location), Some(&b"/login"[..]));
}

#[test]
fn nginx_knows_no_redirects() {
    let spec = spec(", convention: nginx, status_on_error: 500");
    let status = |status| spec.denied(&reply(status, &[], ""), &mut Head::new()).status;
    assert_eq!([401, 403, 302, 500, 404].map(status), [401, 403, 500, 500, 500]);
}

#[test]
fn cookies_for_the_client_are_those_that_are_listed() {
    let said = reply(200, &[("Set-Cookie", "s=1; Path=/"), ("Set-Cookie", "t=2")], "");
    let mut fields = Head::new();
    spec(", add_auth_cookies_to_response: [s]").add_cookies(&said.head.head, &mut fields);
    assert_eq!(fields.all_known(Known::SetCookie).collect::<Vec<_>>(), [b"s=1; Path=/"]);
}

#[test]
fn requests_that_differ_in_what_counts_are_not_the_same() {
    let spec = spec(", cache_ttl: 5, cache_headers: [Authorization]");
    let key = |target: &str, lines: &str| {
        spec.cache_key(&request(&format!("GET {target} HTTP/1.1\nHost: a\n{lines}")))
    };
    let one = key("/a", "Authorization: x");
    assert_eq!(one, key("/a", "Authorization: x\nX-Else: 1"));
    for other in [
        key("/b", "Authorization: x"),
        key("/a?", "Authorization: x"),
        key("/a", "Authorization: y"),
        key("/a", "Authorization: x\nAuthorization: y"),
        key("/a", ""),
    ] {
        assert_ne!(one, other);
    }
}

#[test]
fn settings_that_make_no_sense() {
    let fixture = Fixture::default();
    for (settings, expected) in [
        ("{}", "address"),
        ("{address: 'ftp://a/'}", "no URL of HTTP"),
        ("{address: 'http://127.0.0.1/', auth_response_headers: [Content-Length]}", "belongs to the message"),
        ("{address: 'http://127.0.0.1/', auth_response_headers_regex: '('}", "auth_response_headers_regex"),
    ] {
        let said = fixture.refused("forward-auth", settings);
        assert!(said.contains(expected), "{settings}: {said}");
    }
}
