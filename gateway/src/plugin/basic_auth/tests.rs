//! Where passwords are found, and what is said to those who have none.

use super::*;
use crate::plugin::fixture::{Fixture, answer, request};

fn fixture(settings: &str) -> Fixture {
    Fixture::new(&format!(
        "consumers:\n\
         - {{username: ann, basicauth_credentials: [{{username: ann, password: 'a:b', id: c1}}]}}\n\
         - {{username: ben, basicauth_credentials: [{{username: ben, password: ''}}]}}\n\
         - {{username: nobody}}\n\
         plugins:\n- name: basic-auth\n  config: {{{settings}}}\n"
    ))
}

/// The upstream's view of a request, or the reason and challenge of the refusal.
fn send(settings: &str, lines: &str) -> Result<RequestHead, (Option<Reason>, String)> {
    let fixture = fixture(settings);
    let (plugin, _) = fixture.plugin(0, None).expect("a good config");
    let mut request = request(&format!("GET / HTTP/1.1\nHost: a\n{lines}"));
    match answer(plugin.on_request(&mut fixture.cx(), &mut request)) {
        None => Ok(request),
        Some(answer) => {
            assert_eq!((answer.status, &*answer.message), (401, "Unauthorized"));
            let fields = answer.fields.iter().map(|(name, value)| format!("{name}: {value}"));
            Err((answer.reason, fields.collect()))
        }
    }
}

#[test]
fn passwords() {
    let (missing, invalid) = (Err(Reason::UnauthorizedMissing), Err(Reason::UnauthorizedInvalid));
    let table = [
        ("Authorization: Basic YW5uOmE6Yg==", Ok("ann")), // ann:a:b
        ("Authorization: basic  YW5uOmE6Yg", Ok("ann")),
        ("Proxy-Authorization: Basic YW5uOmE6Yg==", Ok("ann")),
        ("Authorization: Basic YmVuOg==", Ok("ben")), // ben:
        ("X-No: password", missing),
        ("Authorization: Bearer YW5uOmE6Yg==", missing),
        ("Authorization: Basic", missing),
        ("Authorization: Basic YW5uOmE6Yw==", invalid), // ann:a:c
        ("Authorization: Basic YW5uOmE=", invalid),     // ann:a
        ("Authorization: Basic YW5uOg==", invalid),     // ann:
        ("Authorization: Basic QU5OOmE6Yg==", invalid), // ANN:a:b
        ("Authorization: Basic ZXZlOmE6Yg==", invalid), // eve:a:b
        ("Authorization: Basic YW5u", invalid),         // ann
        ("Authorization: Basic !", invalid),
        ("Authorization: Basic YW5uOmE6Yg==\nAuthorization: Basic YmVuOg==", invalid),
    ];
    for (lines, expected) in table {
        let sent = send("", lines);
        let told = sent.as_ref().map(|request| request.head.get_known(Known::XConsumerUsername));
        match (told, expected) {
            (Ok(told), Ok(name)) => assert_eq!(told, Some(name.as_bytes()), "{lines}"),
            (Err((reason, challenge)), Err(expected)) => {
                assert_eq!(*reason, Some(expected), "{lines}");
                assert_eq!(challenge, "WWW-Authenticate: Basic realm=\"service\"");
            }
            (told, expected) => panic!("{lines}: {told:?}, not {expected:?}"),
        }
    }
}

#[test]
fn the_password_is_hidden_when_it_is_to_be() {
    let password = |settings| {
        let request = send(settings, "Authorization: Basic YW5uOmE6Yg==").expect("a good password");
        request.head.get_known(Known::Authorization).is_some()
    };
    assert!(password("") && !password("hide_credentials: true"));
}

#[test]
fn realm_and_anonymous() {
    let Err(refused) = send("realm: shop", "") else { panic!("let in") };
    assert_eq!(refused.1, "WWW-Authenticate: Basic realm=\"shop\"");
    let request = send("anonymous: nobody", "Authorization: Basic YW5uOmE6Yw==").expect("a stand-in");
    assert_eq!(request.head.get_known(Known::XConsumerUsername), Some(&b"nobody"[..]));
}
