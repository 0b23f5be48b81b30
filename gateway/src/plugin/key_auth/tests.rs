//! Where keys are found, and what is said to those who have none.

use super::*;
use crate::http::Known;
use crate::plugin::fixture::{Fixture, answer, request};

fn fixture(settings: &str) -> Fixture {
    Fixture::new(&format!(
        "consumers:\n\
         - {{username: ann, custom_id: c-a, keyauth_credentials: [{{key: ann-key, id: a1}}]}}\n\
         - {{username: ben, keyauth_credentials: [{{key: ben-key}}, {{key: short, ttl: 60}}]}}\n\
         - {{username: nobody}}\n\
         plugins:\n- name: key-auth\n  config: {{{settings}}}\n"
    ))
}

/// Sends a request to a plugin: the upstream's view of it, or status, message and challenge.
fn send(fixture: &Fixture, head: &str) -> Result<RequestHead, (u16, String, String)> {
    let (plugin, _) = fixture.plugin(0, None).expect("a good config");
    let mut request = request(head);
    match answer(plugin.on_request(&mut fixture.cx(), &mut request)) {
        None => Ok(request),
        Some(answer) => {
            let challenge = answer.fields.iter().map(|(name, value)| format!("{name}: {value}")).collect();
            Err((answer.status, answer.message.into_owned(), challenge))
        }
    }
}

fn user(request: &RequestHead) -> &[u8] {
    request.head.get_known(Known::XConsumerUsername).unwrap_or(b"-")
}

#[test]
fn keys_are_found_where_they_may_be() {
    let table = [
        ("", "GET / HTTP/1.1\nHost: a\napikey: ann-key", Ok("ann")),
        ("", "GET / HTTP/1.1\nHost: a\nApiKey: ben-key", Ok("ben")),
        ("", "GET /?a=1&apikey=ann-key HTTP/1.1\nHost: a", Ok("ann")),
        ("", "GET /?%61pikey=ann%2Dkey HTTP/1.1\nHost: a", Ok("ann")),
        // The header goes before the query, and the first name before the second.
        ("", "GET /?apikey=ben-key HTTP/1.1\nHost: a\napikey: ann-key", Ok("ann")),
        ("key_names: [x-k, k]", "GET /?k=ben-key HTTP/1.1\nHost: a\nX-K: ann-key", Ok("ann")),
        ("key_names: [x-k, k]", "GET /?k=ben-key HTTP/1.1\nHost: a", Ok("ben")),
        ("key_in_header: false", "GET /?apikey=ben-key HTTP/1.1\nHost: a\napikey: ann-key", Ok("ben")),
        ("key_in_query: false", "GET /?apikey=ben-key HTTP/1.1\nHost: a", Err("No API key found in request")),
        ("", "GET / HTTP/1.1\nHost: a", Err("No API key found in request")),
        ("", "GET /?apikey= HTTP/1.1\nHost: a\napikey:", Err("No API key found in request")),
        ("", "GET /?apikey HTTP/1.1\nHost: a", Err("No API key found in request")),
        ("", "GET / HTTP/1.1\nHost: a\napikey: ann-ke", Err("Unauthorized")),
        ("", "GET / HTTP/1.1\nHost: a\napikey: ANN-KEY", Err("Unauthorized")),
        ("", "GET / HTTP/1.1\nHost: a\napikey: ann-key, ann-key", Err("Unauthorized")),
        ("", "GET / HTTP/1.1\nHost: a\napikey: ann-key\napikey: ann-key", Err("Duplicate API key found")),
        ("", "GET /?apikey=ann-key&apikey=x HTTP/1.1\nHost: a", Err("Duplicate API key found")),
    ];
    for (settings, head, expected) in table {
        let sent = send(&fixture(settings), head);
        match (&sent, expected) {
            (Ok(request), Ok(name)) => assert_eq!(user(request), name.as_bytes(), "{settings} {head}"),
            (Err((401, message, challenge)), Err(expected)) => {
                assert_eq!(
                    (&**message, &**challenge),
                    (expected, "WWW-Authenticate: Key"),
                    "{settings} {head}"
                );
            }
            _ => panic!("{settings} {head}: {:?}", sent.map(|request| user(&request).to_vec())),
        }
    }
}

#[test]
fn the_upstream_sees_the_key_unless_it_is_hidden() {
    let head = "GET /?a=1&apikey=x&b HTTP/1.1\nHost: a\napikey: ann-key";
    let open = send(&fixture(""), head).expect("a known key");
    assert_eq!(
        (open.head.get("apikey"), open.query()),
        (Some(&b"ann-key"[..]), Some(&b"a=1&apikey=x&b"[..]))
    );
    let hidden = send(&fixture("hide_credentials: true"), head).expect("a known key");
    assert_eq!((hidden.head.get("apikey"), hidden.query()), (None, Some(&b"a=1&b"[..])));
    let nobody = "hide_credentials: true, anonymous: nobody";
    let hidden = send(&fixture(nobody), "GET / HTTP/1.1\nHost: a\napikey: wrong").expect("let in as nobody");
    assert_eq!((hidden.head.get("apikey"), user(&hidden)), (None, &b"nobody"[..]));
}

/// Sends a request with a body: user and body as the upstream sees them, or status and message.
fn send_body(settings: &str, head: &str, body: &str) -> Result<(String, String), (u16, String)> {
    let fixture = fixture(settings);
    let (plugin, _) = fixture.plugin(0, None).expect("a good config");
    let mut request = request(head);
    let mut cx = fixture.cx();
    cx.body = BodyFraming::Length(body.len() as u64);
    let mut body = body.as_bytes().to_vec();
    let mut answered = answer(plugin.on_request(&mut cx, &mut request));
    if answered.is_none() && plugin.wants_request_body(&cx, &request) {
        answered = answer(plugin.on_request_body(&mut cx, &mut request, &mut body));
    }
    match answered {
        Some(answer) => Err((answer.status, answer.message.into_owned())),
        None => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            Ok((text(user(&request)), text(&body)))
        }
    }
}

#[test]
fn key_in_body() {
    let post = |media: &str| format!("POST /x HTTP/1.1\nHost: a\nContent-Type: {media}");
    let (json, form) = (post("application/json"), post("application/x-www-form-urlencoded"));
    let coded = format!("{json}\nContent-Encoding: gzip");
    let on = "key_in_body: true";
    let hidden = "key_in_body: true, hide_credentials: true";
    let refused = |message: &str| Err((401, message.to_owned()));
    let passed = |user: &str, body: &str| Ok((user.to_owned(), body.to_owned()));
    let none = || refused("No API key found in request");
    for (settings, head, body, expected) in [
        (on, &json, r#"{"apikey":"ann-key","a":1}"#, passed("ann", r#"{"apikey":"ann-key","a":1}"#)),
        (hidden, &json, r#"{"apikey":"ann-key","a":1}"#, passed("ann", r#"{"a":1}"#)),
        (on, &form, "a=1&apikey=ben-key", passed("ben", "a=1&apikey=ben-key")),
        (hidden, &form, "a=1&apikey=ben-key", passed("ben", "a=1")),
        (on, &form, "apikey=ben-key&apikey=ann-key", refused("Duplicate API key found")),
        (on, &json, r#"{"apikey":"x","apikey":"ann-key"}"#, refused("Duplicate API key found")),
        (on, &json, r#"{"apikey":"x"}"#, refused("Unauthorized")),
        (on, &json, r#"{"a":{"apikey":"ann-key"}}"#, none()),
        (on, &json, r#"{"apikey":"#, refused("Cannot process request body")),
        (on, &post("text/plain"), "apikey=ann-key", none()),
        (on, &coded, r#"{"apikey":"ann-key"}"#, none()),
        ("", &json, r#"{"apikey":"ann-key"}"#, none()),
        (
            "key_in_body: true, anonymous: nobody",
            &json,
            r#"{"apikey":"x"}"#,
            passed("nobody", r#"{"apikey":"x"}"#),
        ),
        // What is in the head decides, and the body is left alone.
        (
            hidden,
            &format!("{json}\napikey: ann-key"),
            r#"{"apikey":"ben-key"}"#,
            passed("ann", r#"{"apikey":"ben-key"}"#),
        ),
        (on, &format!("{json}\napikey: wrong"), r#"{"apikey":"ben-key"}"#, refused("Unauthorized")),
    ] {
        assert_eq!(send_body(settings, head, body), expected, "{settings} {head} {body}");
    }
}

#[test]
fn a_key_expires() {
    let head = "GET / HTTP/1.1\nHost: a\napikey: short";
    let now = crate::plugin::fixture::NOW;
    assert!(send(&fixture("").at(now + 59), head).is_ok());
    assert_eq!(send(&fixture("").at(now + 60), head).expect_err("a dead key").1, "Unauthorized");
}

#[test]
fn realm_and_reason() {
    let fixture = fixture("realm: here");
    let bare = "GET / HTTP/1.1\nHost: a";
    assert_eq!(send(&fixture, bare).expect_err("no key").2, "WWW-Authenticate: Key realm=\"here\"");
    let (plugin, _) = fixture.plugin(0, None).expect("a good config");
    let reason =
        |head| answer(plugin.on_request(&mut fixture.cx(), &mut request(head))).and_then(|it| it.reason);
    assert_eq!(reason(bare), Some(Reason::UnauthorizedMissing));
    assert_eq!(reason("GET /?apikey=x HTTP/1.1\nHost: a"), Some(Reason::UnauthorizedInvalid));
}

#[test]
fn preflight_and_anonymous() {
    let options = "OPTIONS / HTTP/1.1\nHost: a";
    assert!(send(&fixture(""), options).is_err());
    assert_eq!(user(&send(&fixture("run_on_preflight: false"), options).expect("let through")), b"-");
    let request = send(&fixture("anonymous: nobody"), options).expect("let in as nobody");
    assert_eq!(user(&request), b"nobody");
    assert_eq!(request.head.get_known(Known::XAnonymousConsumer), Some(&b"true"[..]));
    let request =
        send(&fixture("anonymous: nobody"), "GET /?apikey=ben-key HTTP/1.1\nHost: a").expect("a key");
    assert_eq!((user(&request), request.head.get_known(Known::XAnonymousConsumer)), (&b"ben"[..], None));
}

#[test]
fn who_is_known_already_is_asked_again_only_without_anonymous() {
    let bare = "GET / HTTP/1.1\nHost: a";
    for (settings, passes) in [("", false), ("anonymous: nobody", true)] {
        let fixture = fixture(settings);
        let (plugin, _) = fixture.plugin(0, None).expect("a good config");
        let mut cx = fixture.cx();
        let ann = fixture.consumers.by_key(b"ann-key", cx.wall).expect("a known key");
        let mut request = request(bare);
        identity::identify(&mut cx, &mut request.head, ann);
        assert_eq!(answer(plugin.on_request(&mut cx, &mut request)).is_none(), passes, "{settings}");
        assert_eq!(user(&request), b"ann");
    }
}

#[test]
fn settings_that_cannot_work_are_reported() {
    let errors = |settings: &str| match fixture(settings).plugin(0, None) {
        Ok((_, found)) | Err(found) => found.iter().map(ToString::to_string).collect::<String>(),
    };
    assert!(
        errors("anonymous: somebody").contains("error: plugins[0].config.anonymous: there is no consumer")
    );
    assert!(errors("key_names: []").contains("error: plugins[0].config.key_names"));
    assert!(errors("key_in_body: true, key_names: [a.b]").contains("error: plugins[0].config.key_names"));
    assert!(errors("key_in_header: false, key_in_query: false").contains("every request is refused"));
    assert_eq!(errors("key_in_body: false"), "");
}
