//! The plugin on requests without a connection: Kong's examples, its order of steps, and what must not get through.

use super::super::fixture::{Fixture, request_with};
use super::*;
use crate::http::Method;
use crate::http::h1::{Persistence, write_request};
use crate::plugin::Rewritten;

const NAME: &str = "request-transformer";

/// A request on its way through the plugin.
struct Sent {
    head: RequestHead,
    rewritten: Rewritten,
    status: u16,
}

impl Sent {
    /// The lines of the head as they go upstream.
    fn lines(&self) -> Vec<String> {
        let mut out = Vec::new();
        write_request(&self.head, Persistence::Implied, &mut out);
        String::from_utf8(out).expect("ASCII").trim_end().split("\r\n").map(str::to_owned).collect()
    }

    fn query(&self) -> &str {
        std::str::from_utf8(self.head.query().unwrap_or(b"none")).expect("ASCII")
    }

    fn path(&self) -> &str {
        std::str::from_utf8(self.head.path()).expect("ASCII")
    }
}

#[track_caller]
fn send(config: &str, target: &str, lines: &[&str]) -> Sent {
    let fixture = Fixture::default();
    let plugin = fixture.accepted(NAME, config);
    let mut head = request_with(target, lines);
    let mut cx = fixture.cx_from("203.0.113.1");
    let status = match plugin.on_request(&mut cx, &mut head) {
        Flow::Continue => 200,
        Flow::Respond(response) => response.status,
        Flow::Wait(_) => panic!("waits"),
    };
    Sent { head, rewritten: cx.rewritten, status }
}

/// The examples of Kong's documentation of the plugin.
#[test]
fn kongs_examples() {
    for (config, target, lines, expected) in [
        (
            "{add: {headers: [\"h1:v2\", \"h2:v1\"]}}",
            "/",
            &["h1: v1"][..],
            &["GET / HTTP/1.1", "Host: example.com", "h1: v1", "h2: v1"][..],
        ),
        (
            "{add: {querystring: [\"q1:v2\", \"q2:v1\"]}}",
            "/?q1=v1",
            &[],
            &["GET /?q1=v1&q2=v1 HTTP/1.1", "Host: example.com"],
        ),
        (
            "{append: {headers: [\"h1:v2\", \"h2:v1\"]}}",
            "/",
            &["h1: v1"],
            &["GET / HTTP/1.1", "Host: example.com", "h1: v1", "h1: v2", "h2: v1"],
        ),
        (
            "{append: {querystring: [\"q1:v2\"]}}",
            "/?q1=v1",
            &[],
            &["GET /?q1=v1&q1=v2 HTTP/1.1", "Host: example.com"],
        ),
        (
            "{remove: {headers: [h1, h2]}, add: {headers: [\"h1:v3\"]}}",
            "/",
            &["h1: v1", "h2: v2", "h3: v3"],
            &["GET / HTTP/1.1", "Host: example.com", "h3: v3", "h1: v3"],
        ),
        (
            "{rename: {headers: [\"h1:h2\"]}}",
            "/",
            &["h1: v1"],
            &["GET / HTTP/1.1", "Host: example.com", "h2: v1"],
        ),
        (
            "{replace: {headers: [\"h1:v2\", \"h2:v2\"], querystring: [\"q1:v2\", \"q2:v2\"]}}",
            "/?q1=v1",
            &["h1: v1"],
            &["GET /?q1=v2 HTTP/1.1", "Host: example.com", "h1: v2"],
        ),
        (
            "{replace: {body: [\"p1:v1\"]}, add: {body: [\"p2:v2\"]}}",
            "/",
            &[],
            &["GET / HTTP/1.1", "Host: example.com"],
        ),
    ] {
        assert_eq!(send(config, target, lines).lines(), expected, "{config}");
    }
}

#[test]
fn the_steps_on_the_query_come_in_kongs_order() {
    let config = "{remove: {querystring: [a]}, rename: {querystring: [\"b:a\"]}, replace: {querystring: [\"a:3\"]}, \
                  add: {querystring: [\"a:4\", \"b:5\"]}, append: {querystring: [\"a:6\"]}}";
    for (target, expected) in [
        ("/?a=1&b=2&c=%2F", "a=3&c=%2F&b=5&a=6"),
        ("/?a=1", "a=4&b=5&a=6"),
        ("/", "a=4&b=5&a=6"),
        ("/?%61=1&b", "a=3&b=5&a=6"),
    ] {
        assert_eq!(send(config, target, &[]).query(), expected, "{target}");
    }
    assert_eq!(send("{remove: {querystring: [a]}}", "/?a=1&a=2", &[]).query(), "none");
    assert_eq!(send("{add: {querystring: [\"q:a b&c=d/é\"]}}", "/", &[]).query(), "q=a%20b%26c%3Dd%2F%C3%A9");
}

#[test]
fn templates_see_the_request_as_it_came() {
    let config = "{remove: {headers: [X-User], querystring: [user]}, replace: {headers: [\"X-Old:$(query_params.user)\"]}, \
                  add: {headers: [\"X-Who:$(headers.x_user)/$(query_params.user)\"], querystring: [\"h:$(headers['X-Old'])\"]}}";
    let sent = send(config, "/?user=a%26b&k=1", &["X-User: ann", "X-Old: o&p"]);
    assert_eq!(
        sent.lines(),
        ["GET /?k=1&h=o%26p HTTP/1.1", "Host: example.com", "X-Old: a&b", "X-Who: ann/a&b"]
    );
    let nothing = send(config, "/", &[]);
    assert_eq!(nothing.lines(), ["GET /?h= HTTP/1.1", "Host: example.com", "X-Who: /"]);
}

#[test]
fn a_parameter_cannot_split_the_head() {
    let sent = send("{add: {headers: [\"X-A:$(query_params.a)\"]}}", "/?a=1%0d%0aX-Evil:%201", &[]);
    assert_eq!(sent.lines().len(), 3, "{:?}", sent.lines());
    assert_eq!(sent.lines()[2], "X-A: 1  X-Evil: 1");
}

#[test]
fn one_instance_serves_request_after_request() {
    let fixture = Fixture::default();
    let plugin = fixture.accepted(NAME, "{add: {headers: [\"X-A:$(headers.a)\", \"X-B:$(headers.b)\"]}}");
    for (line, expected) in [("A: long value", ["long value", ""]), ("B: 2", ["", "2"])] {
        let mut head = request_with("/", &[line]);
        assert!(matches!(plugin.on_request(&mut fixture.cx_from("203.0.113.1"), &mut head), Flow::Continue));
        let found =
            ["X-A", "X-B"].map(|name| String::from_utf8_lossy(head.head.get(name).unwrap()).into_owned());
        assert_eq!(found, expected);
    }
}

#[test]
fn the_host_is_replaced_for_the_upstream() {
    let sent = send("{replace: {headers: [\"host:internal.example\"]}}", "/", &[]);
    assert_eq!(sent.head.head.get_known(Known::Host), Some(&b"internal.example"[..]));
    assert_eq!(sent.head.host(), b"example.com", "routing and logs keep the client's");
    assert!(sent.rewritten.host);
    let nothing = send("{replace: {headers: [\"Host:$(headers.x_host)\"]}}", "/", &[]);
    assert!(!nothing.rewritten.host);
    assert_eq!(nothing.head.head.get_known(Known::Host), Some(&b"example.com"[..]));
    let fixture = Fixture::default();
    let (_, said) = fixture.compile(NAME, 1, "{add: {headers: [\"Host:a\"]}}").expect("accepted");
    assert_eq!(said, "warning: add.headers: 'Host' is in every request, so adding it does nothing");
    assert!(!send("{add: {headers: [\"Host:a\"]}}", "/", &[]).rewritten.host);
}

#[test]
fn the_method_is_replaced_for_the_upstream_only() {
    let sent = send("{http_method: PUT}", "/", &[]);
    assert_eq!(sent.lines()[0], "PUT / HTTP/1.1");
    assert_eq!((sent.head.method(), sent.head.upstream_method()), (Method::Get, Method::Put));
    assert_eq!(send("{http_method: PURGE}", "/", &[]).lines()[0], "PURGE / HTTP/1.1");
}

#[test]
fn the_path_is_replaced_and_final() {
    let sent = send("{replace: {uri: /new/%7ea}}", "/old?q=1", &[]);
    assert_eq!((sent.path(), sent.query(), sent.rewritten.path), ("/new/~a", "q=1", true));
    assert!(!send("{add: {headers: [\"a:b\"]}}", "/old", &[]).rewritten.path);
}

#[test]
fn a_path_made_from_the_request_stays_in_its_place() {
    for (uri, parameter, expected) in [
        ("/u/$(query_params.p)/x", "ann", Some("/u/ann/x")),
        ("/u/$(query_params.p)/x", "a/b", Some("/u/a/b/x")),
        ("/u/$(query_params.p)", "a%20%3f%23%25%c3%a9;", Some("/u/a%20%3F%23%25%C3%A9%3B")),
        ("/u/$(query_params.p)", "", Some("/u/")),
        ("$(query_params.p)", "/whole/path", Some("/whole/path")),
        ("$(query_params.p)", "no/path", None),
        ("$(query_params.p)", "", None),
        ("/u/$(query_params.p)/x", "../admin", None),
        ("/u/$(query_params.p)", "a/%2e%2e/b", None),
        ("/u/$(query_params.p)$(query_params.p)", ".", None),
        ("/u/$(query_params.p)", "a%5c..%5cb", None),
        ("/u/$(query_params.p)", "%00", None),
    ] {
        let sent = send(&format!("{{replace: {{uri: \"{uri}\"}}}}"), &format!("/old?p={parameter}"), &[]);
        assert_eq!((sent.status == 200).then(|| sent.path()), expected, "{uri} {parameter}");
        assert!(expected.is_some() || sent.status == 400, "{uri} {parameter}: {}", sent.status);
    }
}

#[test]
fn wrong_settings_are_refused_with_their_place() {
    let fixture = Fixture::default();
    for (config, said) in [
        (
            "{add: {headers: [\"X-Id:$(uri_captures)\"]}}",
            "error: add.headers[0]: the template '$(uri_captures)' is none that is understood",
        ),
        (
            "{add: {querystring: [\"a:1\", \"q:$(headers.a or 1)\"]}}",
            "error: add.querystring[1]: the template '$(headers.a or 1)' is none that is understood",
        ),
        ("{add: {headers: [X-A]}}", "error: add.headers[0]: key 'X-A' has no value"),
        ("{replace: {querystring: [\":v\"]}}", "error: replace.querystring[0]: a parameter has a name"),
        (
            "{rename: {querystring: [\"a:$(headers.b)\"]}}",
            "error: rename.querystring[0]: '$(headers.b)' is a template, which a name cannot be",
        ),
        (
            "{rename: {headers: [\"X-A:$(headers.b)\"]}}",
            "error: rename.headers[0]: '$(headers.b)' is not a valid header",
        ),
        (
            "{rename: {headers: [\"X-A:Host\"]}}",
            "error: rename.headers[0]: 'Host' can only be replaced: every request has one",
        ),
        (
            "{remove: {headers: [host]}}",
            "error: remove.headers[0]: 'Host' can only be replaced: every request has one",
        ),
        (
            "{replace: {headers: [\"Content-Length:0\"]}}",
            "error: replace.headers[0]: 'Content-Length' cannot be edited: it says where the body ends",
        ),
        ("{http_method: CONNECT}", "error: http_method: CONNECT is not supported"),
        ("{http_method: put}", "error: http_method: the method \"put\" is not in upper case"),
        ("{replace: {uri: new}}", "error: replace.uri: \"new\" is not a path"),
        ("{replace: {uri: \"/a?b=1\"}}", "error: replace.uri: \"/a?b=1\" is not a path"),
        (
            "{replace: {uri: \"/a/../$(headers.x)\"}}",
            "error: replace.uri: \"/a/../$(headers.x)\" makes no path",
        ),
        ("{replace: {uri: \"/u/.$(headers.x)\"}}", "error: replace.uri: \"/u/.$(headers.x)\" makes no path"),
        ("{replace: {uri: \"a$(headers.x)\"}}", "error: replace.uri: \"a$(headers.x)\" makes no path"),
        (
            "{replace: {uri: \"/$(uri_captures[x])\"}}",
            "error: replace.uri: the template '$(uri_captures[x])' is none that is understood",
        ),
        ("{add: {uri: /a}}", "error: add.uri: unknown key `uri` in request-transformer.parts"),
    ] {
        assert_eq!(fixture.refused(NAME, config), said, "{config}");
    }
}

/// The example of many a tutorial, with its blanks.
#[test]
fn blanks_after_the_colon_are_dropped_with_a_warning() {
    let config = "{add: {headers: [\"X-Custom-Auth: Authorization\"], querystring: [\"version: v2\"]}}";
    let (_, said) = Fixture::default().compile(NAME, 1, config).expect("accepted");
    let note = |place| format!("warning: add.{place}[0]: spaces around the value are not part of it");
    assert_eq!(said, [note("headers"), note("querystring")].join("\n"));
    assert_eq!(
        send(config, "/", &[]).lines(),
        ["GET /?version=v2 HTTP/1.1", "Host: example.com", "X-Custom-Auth: Authorization"]
    );
}

/// The body that goes upstream, or the status of the refusal.
fn send_body(settings: &str, lines: &[&str], body: &str) -> Result<String, u16> {
    let fixture = Fixture::new(&format!("{settings}\nconsumers: []"));
    let (plugin, _) = fixture.plugin(0, None).expect("a good config");
    let mut head = request_with("/?user=ann", lines);
    let mut cx = fixture.cx_from("203.0.113.1");
    cx.body = if body.is_empty() { BodyFraming::None } else { BodyFraming::Length(body.len() as u64) };
    let status = |flow: Flow| match flow {
        Flow::Continue => Ok(()),
        Flow::Respond(response) => Err(response.status),
        Flow::Wait(_) => panic!("waits"),
    };
    status(plugin.on_request(&mut cx, &mut head))?;
    let mut body = body.as_bytes().to_vec();
    if plugin.wants_request_body(&cx, &head) {
        status(plugin.on_request_body(&mut cx, &mut head, &mut body))?;
    }
    Ok(String::from_utf8(body).expect("text"))
}

#[test]
fn bodies_are_edited_by_their_format() {
    let settings = "plugins: [{name: request-transformer, config: {remove: {body: [a]}, rename: {body: [\"b:c\"]}, replace: \
                    {body: [\"user_name: username\"]}, add: {body: [\"who:$(query_params.user)\"]}, append: {body: [\"t:1\"]}}}]";
    let (json, form) = ("Content-Type: application/json", "Content-Type: application/x-www-form-urlencoded");
    let check = |lines: &[&str], body: &str, expected: Result<&str, u16>| {
        assert_eq!(send_body(settings, lines, body), expected.map(str::to_owned), "{lines:?} {body}");
    };
    check(
        &[json],
        r#"{"a":1,"b":2,"user_name":"old"}"#,
        Ok(r#"{"c":2,"user_name":"username","who":"ann","t":["1"]}"#),
    );
    check(&[form], "a=1&b=2&user_name=old", Ok("c=2&user_name=username&who=ann&t=1"));
    check(&["Content-Type: text/plain"], "a=1", Ok("a=1"));
    check(&[], "a=1", Ok("a=1"));
    check(&[json], "", Ok(r#"{"who":"ann","t":["1"]}"#));
    check(&[json], "{", Err(400));
    check(&[json, "Content-Encoding: gzip"], "x", Err(415));
    let kong = format!("defaults: kong\n{settings}");
    assert_eq!(send_body(&kong, &[json], "{"), Ok("{".to_owned()));
    assert_eq!(send_body(&kong, &[json, "Content-Encoding: gzip"], "x"), Ok("x".to_owned()));
}

#[test]
fn texts_for_a_body_survive_requests_in_between() {
    let fixture = Fixture::default();
    let plugin = fixture.accepted(NAME, "{add: {body: [\"who:$(query_params.user)\"]}}");
    let lines = ["Content-Type: application/json"];
    let (mut first, mut second) = (request_with("/?user=ann", &lines), request_with("/?user=ben", &lines));
    let (mut cx, mut other) = (fixture.cx_from("203.0.113.1"), fixture.cx_from("203.0.113.2"));
    (cx.body, other.body) = (BodyFraming::Chunked, BodyFraming::Chunked);
    assert!(matches!(plugin.on_request(&mut cx, &mut first), Flow::Continue));
    assert!(matches!(plugin.on_request(&mut other, &mut second), Flow::Continue));
    let mut body = b"{}".to_vec();
    assert!(matches!(plugin.on_request_body(&mut cx, &mut first, &mut body), Flow::Continue));
    assert_eq!(body, br#"{"who":"ann"}"#);
}
