//! Signatures that count and those that do not, one behaviour for each option.

use super::*;
use crate::http::date::imf_fixdate;
use crate::plugin::fixture::{Fixture, NOW, answer, request};

/// Of `openssl base64`; written here so that the signer is not the verifier's own code.
fn base64_of(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let word = (0..3).fold(0, |word, at| word << 8 | u32::from(three.get(at).copied().unwrap_or(0)));
        for at in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * at)) as usize & 63];
            text.push(if at <= three.len() { digit as char } else { '=' });
        }
    }
    text
}

fn fixture(settings: &str) -> Fixture {
    Fixture::new(&format!(
        "consumers:\n\
         - {{username: ann, hmacauth_credentials: [{{username: ann, secret: ann-secret, id: h1}}]}}\n\
         - {{username: nobody}}\n\
         plugins:\n- name: hmac-auth\n  config: {{{settings}}}\n"
    ))
}

fn date(offset: i64) -> String {
    String::from_utf8(imf_fixdate(NOW.wrapping_add_signed(offset)).to_vec()).expect("a date")
}

/// A GET request, signed with `secret` over its date and request line.
fn signed(user: &str, secret: &str, algorithm: Algorithm, offset: i64, more: &str) -> String {
    let date = date(offset);
    let text = format!("date: {date}\nGET /x?a=b HTTP/1.1");
    let signature = base64_of(algorithm.sign(secret.as_bytes(), text.as_bytes()).as_ref());
    let name = Algorithm::WORDS[algorithm as usize];
    format!(
        "GET /x?a=b HTTP/1.1\nHost: a\nDate: {date}\nAuthorization: hmac username=\"{user}\", algorithm=\"{name}\", \
         headers=\"date request-line\", signature=\"{signature}\"\n{more}"
    )
}

/// What becomes of a request: the consumer that the upstream is told of, or reason and message.
fn send(fixture: &Fixture, head: &str) -> Result<(RequestHead, String), (Reason, String)> {
    let (plugin, _) = fixture.plugin(0, None).expect("a good config");
    let mut request = request(head);
    match answer(plugin.on_request(&mut fixture.cx(), &mut request)) {
        Some(answer) => {
            assert_eq!(answer.status, 401);
            assert!(
                answer
                    .fields
                    .iter()
                    .any(|(name, value)| *name == "WWW-Authenticate" && value.starts_with("hmac"))
            );
            Err((answer.reason.expect("a reason"), answer.message.into_owned()))
        }
        None => {
            let user = request.head.get_known(Known::XConsumerUsername).unwrap_or(b"-");
            let user = String::from_utf8_lossy(user).into_owned();
            Ok((request, user))
        }
    }
}

fn user(fixture: &Fixture, head: &str) -> Result<String, Reason> {
    send(fixture, head).map(|(_, user)| user).map_err(|(reason, _)| reason)
}

#[test]
fn a_text_signed_by_another_program() {
    // printf 'date: Thu, 29 Feb 2024 12:00:00 GMT\nGET /x?a=b HTTP/1.1' | openssl dgst -sha256 -hmac ann-secret -binary | base64
    let head = "GET /x?a=b HTTP/1.1\nHost: a\nDate: Thu, 29 Feb 2024 12:00:00 GMT\nAuthorization: hmac username=\"ann\", \
                algorithm=\"hmac-sha256\", headers=\"date request-line\", \
                signature=\"vfqU4zma5KGOR9RK6VxzFGGv6CIYUer7lxN1TlAoeUg=\"";
    assert_eq!(user(&fixture(""), head), Ok("ann".to_owned()));
}

#[test]
fn algorithms() {
    let all = fixture("algorithms: [hmac-sha1, hmac-sha224, hmac-sha256, hmac-sha384, hmac-sha512]");
    for algorithm in
        [Algorithm::Sha1, Algorithm::Sha224, Algorithm::Sha256, Algorithm::Sha384, Algorithm::Sha512]
    {
        let head = signed("ann", "ann-secret", algorithm, 0, "");
        assert_eq!(user(&all, &head), Ok("ann".to_owned()), "{algorithm:?}");
        let by_default = user(&fixture(""), &head).is_ok();
        assert_eq!(by_default, algorithm != Algorithm::Sha224, "{algorithm:?}");
        let other = head.replace(Algorithm::WORDS[algorithm as usize], "hmac-md5");
        assert_eq!(user(&all, &other), Err(Reason::UnauthorizedInvalid));
    }
    let only = fixture("algorithms: [hmac-sha512]");
    assert!(user(&only, &signed("ann", "ann-secret", Algorithm::Sha512, 0, "")).is_ok());
    assert!(user(&only, &signed("ann", "ann-secret", Algorithm::Sha256, 0, "")).is_err());
    let error = fixture("algorithms: []").plugin(0, None).err().expect("an error");
    assert!(error.iter().any(|one| one.message.contains("every request is refused")));
}

#[test]
fn what_is_wrong_is_refused() {
    let fixture = fixture("");
    let good = signed("ann", "ann-secret", Algorithm::Sha256, 0, "");
    let (missing, invalid) = (Reason::UnauthorizedMissing, Reason::UnauthorizedInvalid);
    let message = |head: &str| send(&fixture, head).map(|_| ()).expect_err("refused");
    for (head, reason, said) in [
        ("GET / HTTP/1.1\nHost: a".to_owned(), missing, "Unauthorized"),
        (signed("ann", "another", Algorithm::Sha256, 0, ""), invalid, "HMAC signature does not match"),
        (signed("eve", "ann-secret", Algorithm::Sha256, 0, ""), invalid, "HMAC signature does not match"),
        (good.replace("/x?a=b", "/x?a=c"), invalid, "HMAC signature does not match"),
        (good.replacen("GET", "POST", 1), invalid, "HMAC signature does not match"),
        (good.replace("signature=", "sig="), invalid, "HMAC signature cannot be verified"),
        (
            good.replace("Authorization: hmac", "Authorization: Bearer"),
            invalid,
            "HMAC signature cannot be verified",
        ),
        (format!("{good}Date: {}", date(0)), invalid, "HMAC signature cannot be verified"),
        (format!("{good}Authorization: hmac x"), invalid, "HMAC signature cannot be verified"),
    ] {
        assert_eq!(message(&head), (reason, said.to_owned()), "{head}");
    }
}

#[test]
fn clock_skew() {
    for (settings, offset, passes) in [
        ("", 300, true),
        ("", -300, true),
        ("", 301, false),
        ("", -301, false),
        ("clock_skew: 10", -10, true),
        ("clock_skew: 10", -11, false),
    ] {
        let sent = user(&fixture(settings), &signed("ann", "ann-secret", Algorithm::Sha256, offset, ""));
        assert_eq!(
            sent,
            if passes { Ok("ann".into()) } else { Err(Reason::UnauthorizedExpired) },
            "{settings} {offset}"
        );
    }
    // X-Date stands in for a Date that a proxy has changed.
    let late = signed("ann", "ann-secret", Algorithm::Sha256, -1000, &format!("X-Date: {}", date(0)));
    assert_eq!(user(&fixture(""), &late), Ok("ann".to_owned()));
    let none = signed("ann", "ann-secret", Algorithm::Sha256, 0, "").replace("Date: ", "Dates: ");
    assert_eq!(user(&fixture(""), &none), Err(Reason::UnauthorizedExpired));
}

#[test]
fn enforce_headers() {
    let head = signed("ann", "ann-secret", Algorithm::Sha256, 0, "");
    for (names, passes) in [
        ("[date]", true),
        ("[Date, request-line]", true),
        ("[date, host]", false),
        ("['@request-target']", false),
    ] {
        let sent = user(&fixture(&format!("enforce_headers: {names}")), &head);
        assert_eq!(sent.is_ok(), passes, "{names}");
    }
}

#[test]
fn hide_credentials_and_the_proxy_field() {
    let head = signed("ann", "ann-secret", Algorithm::Sha256, 0, "");
    let proxied = head.replace("Authorization:", "Proxy-Authorization:") + "Authorization: Bearer kept";
    for (settings, hidden) in [("", false), ("hide_credentials: true", true)] {
        let (request, _) = send(&fixture(settings), &head).expect("signed");
        assert_eq!(request.head.get_known(Known::Authorization).is_none(), hidden);
        let (request, _) = send(&fixture(settings), &proxied).expect("signed");
        assert_eq!(request.head.get_known(Known::ProxyAuthorization).is_none(), hidden);
        assert_eq!(request.head.get_known(Known::Authorization), Some(&b"Bearer kept"[..]));
    }
}

#[test]
fn replay_window() {
    let mut fixture = fixture("replay_window: 600, anonymous: nobody");
    let head = signed("ann", "ann-secret", Algorithm::Sha256, 100, "");
    assert_eq!(user(&fixture, &head), Ok("ann".to_owned()));
    assert_eq!(user(&fixture, &head), Err(Reason::ReplayedRequest), "not even as nobody");
    let other = signed("ann", "ann-secret", Algorithm::Sha256, 101, "");
    assert_eq!(user(&fixture, &other), Ok("ann".to_owned()));
    // A signature that is not good uses up nothing.
    let forged = head.replace("signature=\"", "signature=\"AAAA");
    assert_eq!(user(&fixture, &forged), Ok("nobody".to_owned()));
    fixture.elapsed = Duration::from_secs(399);
    assert_eq!(user(&fixture, &head), Err(Reason::ReplayedRequest), "its date is good still");
    assert_eq!(user(&super::tests::fixture(""), &head), Ok("ann".to_owned()));
    assert_eq!(
        user(&super::tests::fixture(""), &head),
        Ok("ann".to_owned()),
        "without the option it counts again"
    );
    let (_, found) = super::tests::fixture("replay_window: 60").plugin(0, None).expect("a good config");
    assert!(found.iter().any(|one| one.message.contains("its date is still good")));
}

#[test]
fn realm_and_anonymous() {
    let bare = request("GET / HTTP/1.1\nHost: a");
    let fixed = fixture("realm: shop");
    let (plugin, _) = fixed.plugin(0, None).expect("a good config");
    let refused = answer(plugin.on_request(&mut fixed.cx(), &mut bare.clone())).expect("refused");
    assert_eq!(refused.fields, [("WWW-Authenticate", "hmac realm=\"shop\"".into())]);
    assert_eq!(user(&fixture("anonymous: nobody"), "GET / HTTP/1.1\nHost: a"), Ok("nobody".to_owned()));
}

#[test]
fn validate_request_body() {
    let send = |settings: &str, digest: Option<&str>, names: &str, body: &str| {
        let fixture = fixture(settings);
        let (plugin, _) = fixture.plugin(0, None).expect("a good config");
        let mut text = format!("date: {}\nPOST /x HTTP/1.1", date(0));
        let line = digest.map(|digest| format!("Digest: {digest}")).unwrap_or_default();
        if names.ends_with("digest") {
            text.push_str(&format!("\ndigest: {}", digest.unwrap_or_default()));
        }
        let signature = base64_of(Algorithm::Sha256.sign(b"ann-secret", text.as_bytes()).as_ref());
        let mut request = request(&format!(
            "POST /x HTTP/1.1\nHost: a\nDate: {}\nAuthorization: hmac username=\"ann\", algorithm=\"hmac-sha256\", \
             headers=\"{names}\", signature=\"{signature}\"\n{line}",
            date(0)
        ));
        let mut cx = fixture.cx();
        if let Some(refused) = answer(plugin.on_request(&mut cx, &mut request)) {
            return Err(refused.message.into_owned());
        }
        if !plugin.wants_request_body(&cx, &request) {
            return Ok("unseen".to_owned());
        }
        match answer(plugin.on_request_body(&mut cx, &mut request, &mut body.as_bytes().to_vec())) {
            Some(refused) => Err(refused.message.into_owned()),
            None => {
                let user = request.head.get_known(Known::XConsumerUsername).unwrap_or(b"-");
                Ok(String::from_utf8_lossy(user).into_owned())
            }
        }
    };
    // printf hello | openssl dgst -sha256 -binary | base64
    let hello = Some("SHA-256=LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=");
    let (on, signed) = ("validate_request_body: true", "date request-line digest");
    let no_match = || Err("HMAC signature does not match".to_owned());
    assert_eq!(send(on, hello, signed, "hello"), Ok("ann".into()));
    assert_eq!(send(on, hello, signed, "hellO"), no_match());
    assert_eq!(send(on, Some("SHA-512=x"), signed, "hello"), no_match());
    assert_eq!(send(on, Some("SHA-256="), signed, "hello"), no_match());
    assert_eq!(send(on, None, "date request-line", "hello"), no_match());
    assert_eq!(send(on, None, "date request-line", ""), Ok("ann".into()));
    // Whoever changes the body could change an unsigned digest as well.
    let cannot = || Err("HMAC signature cannot be verified".to_owned());
    assert_eq!(send(on, hello, "date request-line", "hello"), cannot());
    assert_eq!(send("", hello, "date request-line", "hellO"), Ok("unseen".into()));
    assert_eq!(
        send("validate_request_body: true, anonymous: nobody", hello, signed, "hellO"),
        Ok("nobody".into())
    );
}
