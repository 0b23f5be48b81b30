//! Who is told what, and that nothing else is.

use super::*;
use crate::plugin::fixture::{Fixture, request_with as request};

const SITE: &str = "Origin: https://shop.example.com";

/// The fields that the client gets, and whether the gateway answers.
fn send(config: &str, method: &str, lines: &[&str]) -> (String, Option<u16>) {
    let bed = Fixture::default();
    let plugin = bed.accepted("cors", config);
    let (mut cx, mut request) = (bed.cx_from("192.0.2.7"), request("/", lines));
    request.set_method(method);
    let status = match plugin.on_request(&mut cx, &mut request) {
        Flow::Continue => None,
        Flow::Respond(answer) => {
            assert!(answer.content.is_some_and(|content| content.bytes.is_empty()));
            Some(answer.status)
        }
        Flow::Wait(_) => panic!("waits"),
    };
    (shown(&cx.response_fields), status)
}

fn shown(head: &Head) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace("Access-Control-", "");
    head.iter().map(|(_, name, value)| format!("{}: {}\n", text(name), text(value))).collect()
}

#[test]
fn origins() {
    let own = "Vary: Origin\nAllow-Origin: https://shop.example.com\n";
    let nobody = "Vary: Origin\n";
    let table = [
        ("{}", SITE, "Allow-Origin: *\n"),
        ("{origins: ['*']}", SITE, "Allow-Origin: *\n"),
        ("{origins: ['https://shop.example.com']}", SITE, own),
        // The only one is said to everybody, as in Kong.
        ("{origins: ['https://shop.example.com']}", "Origin: https://evil.net", own),
        ("{origins: ['https://a.net', 'https://shop.example.com:443']}", SITE, own),
        (
            "{origins: ['https://a.net', 'https://shop.example.com']}",
            "Origin: http://shop.example.com",
            nobody,
        ),
        ("{origins: ['https://a.net', 'https://shop.example.com']}", "X-No: origin", nobody),
        ("{origins: ['https://.*\\.example\\.com']}", SITE, own),
        ("{origins: ['^https://.*\\.example\\.com$']}", SITE, own),
        ("{origins: ['https://.*\\.example\\.com']}", "Origin: https://a.example.com.evil.net", nobody),
        ("{origins: ['.*\\.example\\.com']}", SITE, own),
        ("{origins: ['.*\\.example\\.com']}", "Origin: https://evil.net/.example.com", nobody),
        ("{origins: ['(?:shop|www)\\.example\\.com']}", SITE, own),
        ("{allow_origin_absent: false}", "X-No: origin", ""),
        ("{}", "X-No: origin", "Allow-Origin: *\n"),
    ];
    for (config, line, expected) in table {
        assert_eq!(send(config, "GET", &[line]), (expected.to_owned(), None), "{config} {line}");
    }
}

#[test]
fn credentials_never_go_with_everybody() {
    let own = "Vary: Origin\nAllow-Origin: https://shop.example.com\nAllow-Credentials: true\n";
    let table = [
        ("{credentials: true}", SITE, own),
        ("{credentials: true}", "X-No: origin", "Allow-Origin: *\n"),
        ("{credentials: true, origins: ['https://shop.example.com']}", SITE, own),
        ("{credentials: true, origins: ['https://a.net', 'https://b.net']}", SITE, "Vary: Origin\n"),
    ];
    for (config, line, expected) in table {
        assert_eq!(send(config, "GET", &[line]).0, expected, "{config} {line}");
    }
    let said = Fixture::default().compile("cors", 1, "{credentials: true}").map(|(_, said)| said);
    assert!(said.is_ok_and(|said| said.contains("warning: credentials")));
}

#[test]
fn a_preflight_request_is_answered() {
    let asks = [SITE, "Access-Control-Request-Method: PUT", "Access-Control-Request-Headers: x-a, x-b"];
    let all = "GET,HEAD,PUT,PATCH,POST,DELETE,OPTIONS,TRACE,CONNECT";
    let told = format!("Allow-Origin: *\nAllow-Headers: x-a, x-b\nAllow-Methods: {all}\n");
    assert_eq!(send("{exposed_headers: [X-E]}", "OPTIONS", &asks), (told, Some(200)));
    let told = "Allow-Origin: *\nAllow-Headers: X-C,X-D\nAllow-Methods: GET,PUT\nMax-Age: 60\n".to_owned();
    let config = "{headers: [X-C, X-D], methods: [GET, PUT], max_age: 60}";
    assert_eq!(send(config, "OPTIONS", &asks), (told, Some(200)));
    assert_eq!(send("{preflight_continue: true}", "OPTIONS", &asks), (String::new(), None));
    // Neither of these is a preflight request.
    assert_eq!(send("{}", "OPTIONS", &asks[..1]).1, None);
    assert_eq!(send("{}", "OPTIONS", &asks[1..]).1, None);
    assert_eq!(send("{}", "GET", &asks).1, None);
}

#[test]
fn private_networks_are_opened_on_demand() {
    let asks = [SITE, "Access-Control-Request-Method: PUT", "Access-Control-Request-Private-Network: true"];
    let told =
        |config: &str, lines: &[&str]| send(config, "OPTIONS", lines).0.contains("Private-Network: true");
    assert!(told("{private_network: true}", &asks));
    assert!(!told("{private_network: true}", &asks[..2]));
    assert!(!told("{}", &asks));
}

#[test]
fn exposed_headers() {
    let told = send("{exposed_headers: [X-A, X-B]}", "GET", &[SITE]).0;
    assert_eq!(told, "Allow-Origin: *\nExpose-Headers: X-A,X-B\n");
}

#[test]
fn an_upstream_cannot_let_in_who_is_not() {
    let bed = Fixture::default();
    let after = |config: &str| {
        let plugin = bed.accepted("cors", config);
        let (mut cx, mut response) = (bed.cx_from("192.0.2.7"), ResponseHead::new());
        assert!(matches!(plugin.on_request(&mut cx, &mut request("/", &[SITE])), Flow::Continue));
        response.head.append_known(Known::AccessControlAllowOrigin, "https://evil.net");
        plugin.on_response(&mut cx, &mut response);
        shown(&response.head)
    };
    assert_eq!(after("{origins: ['https://a.net', 'https://b.net']}"), "");
    assert_eq!(after("{}"), "Allow-Origin: https://evil.net\n", "replaced where the fields are merged");
}

#[test]
fn a_bad_expression_is_reported() {
    let said = Fixture::default().refused("cors", "{origins: ['https://(']}");
    assert!(said.contains("error: origins") && said.contains("regular expression"), "{said}");
}
