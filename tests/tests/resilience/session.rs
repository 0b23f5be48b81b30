//! Sessions: signed sticky cookies, and cookies to hash by.

use portcullis_tests::client::{Request, Response};
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::{Mood, Moody, Origin};

use super::setup;

const STICKY: &str = "sticky: {cookie: {name: at, path: /app, sameSite: lax, maxAge: 60, secure: true}}";

fn origins() -> [Origin; 3] {
    ["a", "b", "c"].map(|name| Origin::start(Moody::new(name, Mood::Well).0))
}

fn start(origins: &[Origin], keys: &str) -> Gateway {
    let targets: Vec<_> = origins.iter().map(Origin::addr).collect();
    Gateway::start(&setup(&targets, keys, "retries: 1"))
}

fn with_cookie(gateway: &Gateway, cookie: &str) -> Response {
    Request::get("/").header("Cookie", cookie).send(gateway.addr()).expect(200)
}

/// `name=value` of the cookie that a response sets.
fn pair(response: &Response) -> String {
    let field = response.header("set-cookie");
    field.split(';').next().unwrap_or_default().to_owned()
}

#[test]
fn a_sticky_cookie_brings_the_client_back() {
    let origins = origins();
    let gateway = start(&origins, STICKY);
    for _ in 0..3 {
        let first = super::get(&gateway).expect(200);
        let field = first.header("set-cookie").to_owned();
        assert!(field.starts_with("at="), "{field}");
        for attribute in ["; Path=/app", "; Max-Age=60", "; Secure", "; HttpOnly", "; SameSite=Lax"] {
            assert!(field.contains(attribute), "{attribute} in {field}");
        }
        for _ in 0..6 {
            let again = with_cookie(&gateway, &format!("other=x; {}; more=y", pair(&first)));
            assert_eq!(again.header("x-origin"), first.header("x-origin"));
            assert!(!again.has("set-cookie"), "{:?}", again.head.fields);
        }
    }
    // Three sessions began at three targets.
    assert!(origins.iter().all(|origin| origin.requests() == 7));
}

#[test]
fn a_cookie_that_somebody_changed_or_made_is_as_good_as_none() {
    let origins = origins();
    let gateway = start(&origins, STICKY);
    let good = pair(&super::get(&gateway));
    let last = if good.ends_with('0') { "1" } else { "0" };
    let changed = format!("{}{last}", &good[..good.len() - 1]);
    for cookie in [&*changed, "at=", "at=1", "at=127.0.0.1:80", &format!("at={}", "0".repeat(48))] {
        let seen: std::collections::BTreeSet<_> = (0..6)
            .map(|_| with_cookie(&gateway, cookie))
            .inspect(|answer| assert!(pair(answer).starts_with("at="), "a new cookie for {cookie}"))
            .map(|answer| answer.header("x-origin").to_owned())
            .collect();
        assert_eq!(seen.len(), 3, "{cookie} led to {seen:?}");
    }
}

#[test]
fn a_session_moves_when_its_target_is_gone() {
    let [a, b, c] = origins();
    let addresses = [a.addr(), b.addr(), c.addr()];
    let gateway = Gateway::start(&setup(&addresses, STICKY, "retries: 2"));
    let first = super::get(&gateway).expect(200);
    let mut living = vec![a, b, c];
    let name = first.header("x-origin").to_owned();
    living.remove(["a", "b", "c"].iter().position(|one| *one == name).expect("one of them"));
    let moved = with_cookie(&gateway, &pair(&first));
    assert_ne!(moved.header("x-origin"), name);
    let new = pair(&moved);
    assert!(new.starts_with("at=") && new != pair(&first), "{new}");
    let again = with_cookie(&gateway, &new);
    assert_eq!(again.header("x-origin"), moved.header("x-origin"));
}

#[test]
fn gateways_with_the_same_secret_share_sessions() {
    let origins = origins();
    let keys = "sticky: {cookie: {secret: something-long-and-random}}";
    let (one, two) = (start(&origins, keys), start(&origins, keys));
    let stranger = start(&origins, "sticky: {cookie: {secret: something-else}}");
    let first = super::get(&one).expect(200);
    let cookie = pair(&first);
    assert!(cookie.starts_with("portcullis_target="), "{cookie}");
    for _ in 0..4 {
        assert_eq!(with_cookie(&two, &cookie).header("x-origin"), first.header("x-origin"));
        assert!(with_cookie(&stranger, &cookie).has("set-cookie"));
    }
}

#[test]
fn hash_on_cookie_sets_the_cookie_that_it_hashes() {
    let origins = origins();
    let keys =
        "algorithm: consistent-hashing\nhash_on: cookie\nhash_on_cookie: session\nhash_on_cookie_path: /x";
    let gateway = start(&origins, keys);
    for _ in 0..5 {
        let first = super::get(&gateway).expect(200);
        let field = first.header("set-cookie").to_owned();
        assert!(field.starts_with("session=") && field.ends_with("; Path=/x"), "{field}");
        let cookie = pair(&first);
        assert!(cookie.len() > 20, "{cookie}");
        for _ in 0..4 {
            let again = with_cookie(&gateway, &cookie);
            assert_eq!(again.header("x-origin"), first.header("x-origin"));
            assert!(!again.has("set-cookie"));
        }
    }
    eventually("more than one target", || {
        super::get(&gateway).expect(200);
        holds(origins.iter().filter(|origin| origin.requests() > 0).count() > 1, "one only")
    });
}

#[test]
fn hash_on_uri_capture() {
    let origins = origins();
    let targets: Vec<_> = origins.iter().map(Origin::addr).collect();
    let keys = "algorithm: consistent-hashing\nhash_on: uri_capture\nhash_on_uri_capture: user";
    let list: String = targets.iter().map(|target| format!("{{target: '{target}'}}, ")).collect();
    let gateway = Gateway::start(&portcullis_tests::gateway::Setup::new(format!(
        "upstreams:\n  - name: many\n    targets: [{list}]\n    {}\nservices:\n  - name: web\n    host: many\n    routes:\n      \
         - {{name: users, paths: ['~/users/(?<user>[a-z0-9]+)/.*'], strip_path: false}}\n",
        keys.replace('\n', "\n    ")
    )));
    let of = |path: &str| Request::get(path).send(gateway.addr()).expect(200).header("x-origin").to_owned();
    let mut all = std::collections::BTreeSet::new();
    for user in 0..12 {
        let one = of(&format!("/users/u{user}/a"));
        assert_eq!(of(&format!("/users/u{user}/b/c")), one);
        all.insert(one);
    }
    assert!(all.len() > 1, "{all:?}");
}
