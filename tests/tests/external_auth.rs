//! What others say about a request: an authorisation service (`forward-auth`), and published keys (`jwt` with
//! `jwks_uris` and `issuer`).

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use portcullis_tests::client::{Request, Response};
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::{Gateway, Setup};
use portcullis_tests::origin::{Echo, Origin, Script, Wire};
use portcullis_tests::tokens::{base64url, claims, keys, now};
use serde_json::{Value, json};

/// Answers by the request's `X-Ask` field: a status, with fields that only such a service sets.
struct Authority;

impl Script for Authority {
    fn serve(&self, wire: &mut Wire) -> io::Result<()> {
        while let Some(received) = wire.request()? {
            let ask = received.head.fields.iter().find(|(name, _)| name.eq_ignore_ascii_case("x-ask"));
            match ask.map(|(_, value)| value.as_str()) {
                Some("yes") => wire.answer("200 OK", "X-User: ann\r\nX-Secret: s\r\n", b"")?,
                Some("login") => wire.answer(
                    "302 Found",
                    "Location: https://id.example/login\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Type: text/html\r\n",
                    b"<a>",
                )?,
                Some("break") => return wire.reset(),
                Some("hang") => wire.drain()?,
                Some("large") => wire.answer("403 Forbidden", "", &[b'x'; 5000])?,
                _ => wire.answer("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n", b"who?")?,
            }
        }
        Ok(())
    }
}

fn forward(address: &str, settings: &str) -> (Gateway, Origin) {
    let origin = Origin::start(Echo::default());
    let text = format!(
        "services:\n  - name: web\n    url: http://{}\n    routes:\n      - paths: [/]\n        plugins:\n          \
         - name: forward-auth\n            config: {{address: '{address}', {settings}}}\n",
        origin.addr()
    );
    (Gateway::start(&Setup::new(text).shards(1)), origin)
}

fn ask(gateway: &Gateway, word: &str) -> Response {
    Request::get("/a?b=c").header("X-Ask", word).header("X-User", "eve").send(gateway.addr())
}

fn header_of<'a>(seen: &'a Value, name: &str) -> Option<&'a str> {
    let fields = seen["headers"].as_array()?;
    fields.iter().find(|pair| pair[0].as_str().is_some_and(|known| known.eq_ignore_ascii_case(name)))?[1]
        .as_str()
}

#[test]
fn forward_auth_lets_pass_what_the_service_lets_pass() {
    let authority = Origin::start(Authority);
    let address = format!("http://{}/check?x=1", authority.addr());
    let (gateway, _origin) = forward(&address, "auth_response_headers: [X-User]");
    for _ in 0..3 {
        let seen = ask(&gateway, "yes").expect(200).json();
        assert_eq!(header_of(&seen, "X-User"), Some("ann"), "the service's word, not the client's");
        assert_eq!(header_of(&seen, "X-Secret"), None, "only listed fields");
    }
    let told = authority.last();
    assert_eq!((told.head.word(0), told.head.word(1)), ("GET", "/check?x=1"));
    let field = |name: &str| {
        let found = told.head.fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    assert_eq!(field("X-Forwarded-Uri"), "/a?b=c");
    assert_eq!(field("X-Forwarded-Method"), "GET");
    assert_eq!(field("X-Forwarded-For"), "127.0.0.1");
    assert_eq!(authority.connections(), 1, "connections to the service are kept");
}

#[test]
fn forward_auth_hands_other_answers_to_the_client() {
    let authority = Origin::start(Authority);
    let (gateway, origin) = forward(&format!("http://{}/", authority.addr()), "");
    let refused = ask(&gateway, "no").expect(401);
    assert_eq!((refused.header("www-authenticate"), &*refused.text()), ("Basic realm=\"x\"", "who?"));
    let login = ask(&gateway, "login").expect(302);
    assert_eq!(login.header("location"), "https://id.example/login");
    let cookies = login.head.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie"));
    assert_eq!(cookies.count(), 2);
    assert_eq!(origin.requests(), 0);
}

#[test]
fn forward_auth_lets_nobody_pass_without_an_answer() {
    let authority = Origin::start(Authority);
    let settings = "timeout: 300, status_on_error: 403, max_response_body_size: 4096";
    let (gateway, origin) = forward(&format!("http://{}/", authority.addr()), settings);
    for word in ["break", "hang", "large"] {
        ask(&gateway, word).expect(403);
    }
    ask(&gateway, "yes").expect(200);
    drop(authority);
    ask(&gateway, "yes").expect(403);
    assert_eq!(origin.requests(), 1);
}

#[test]
fn forward_auth_remembers_a_yes_for_its_time_and_its_fields() {
    let authority = Origin::start(Authority);
    let settings = "cache_ttl: 60, cache_headers: [X-Ask], auth_response_headers: [X-User]";
    let (gateway, _origin) = forward(&format!("http://{}/", authority.addr()), settings);
    for _ in 0..5 {
        let seen = ask(&gateway, "yes").expect(200).json();
        assert_eq!(header_of(&seen, "X-User"), Some("ann"));
    }
    let asked = authority.requests();
    assert_eq!(asked, 1);
    ask(&gateway, "no").expect(401);
    ask(&gateway, "no").expect(401);
    assert_eq!(authority.requests(), asked + 2, "a no is not remembered");
}

/// Publishes what it is told to: a path and its document.
#[derive(Clone, Default)]
struct Publisher(Arc<Mutex<Vec<(String, String)>>>);

impl Publisher {
    fn publish(&self, path: &str, document: &Value) {
        let mut documents = self.0.lock().expect("documents");
        documents.retain(|(known, _)| known != path);
        documents.push((path.to_owned(), document.to_string()));
    }
}

impl Script for Publisher {
    fn serve(&self, wire: &mut Wire) -> io::Result<()> {
        while let Some(received) = wire.request()? {
            let documents = self.0.lock().expect("documents").clone();
            match documents.iter().find(|(path, _)| path == received.head.word(1)) {
                Some((_, text)) => {
                    wire.answer("200 OK", "Content-Type: application/json\r\n", text.as_bytes())?
                }
                None => wire.answer("404 Not Found", "", b"")?,
            }
        }
        Ok(())
    }
}

/// The EdDSA key as it is published.
fn published(kid: &str) -> Value {
    let pem: String = keys().ed25519.public_pem.lines().filter(|line| !line.starts_with('-')).collect();
    // The last 32 octets of a SubjectPublicKeyInfo are the key: the last 43 digits less what belongs to others.
    let bits: Vec<u8> = pem.trim_end_matches('=').bytes().map(digit_value).collect();
    let octets: Vec<u8> = bits
        .chunks(4)
        .flat_map(|group| {
            let word =
                group.iter().fold(0_u32, |word, six| word << 6 | u32::from(*six)) << (6 * (4 - group.len()));
            word.to_be_bytes()[1..group.len()].to_vec()
        })
        .collect();
    json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": kid, "x": base64url(&octets[octets.len() - 32..])})
}

fn digit_value(digit: u8) -> u8 {
    match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        _ => 63,
    }
}

fn signed_as(kid: &str, claims: &Value, key: &EncodingKey) -> String {
    let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::EdDSA) };
    jsonwebtoken::encode(&header, claims, key).expect("a token")
}

fn with_keys(settings: &str) -> (Gateway, Origin) {
    let origin = Origin::start(Echo::default());
    let text = format!(
        "consumers: [{{username: ann}}]\nservices:\n  - name: web\n    url: http://{}\n    routes:\n      - paths: [/]\n        \
         plugins:\n          - name: jwt\n            config: {{{settings}}}\n",
        origin.addr()
    );
    (Gateway::start(&Setup::new(text).shards(1)), origin)
}

fn bearer(gateway: &Gateway, token: &str) -> Response {
    Request::get("/")
        .header("Authorization", format!("Bearer {token}"))
        .header("X-Sub", "eve")
        .send(gateway.addr())
}

#[test]
fn jwt_takes_published_keys() {
    let publisher = Publisher::default();
    publisher.publish("/keys", &json!({"keys": [{"kty": "new"}, published("one")]}));
    let place = Origin::start(publisher.clone());
    let settings = format!(
        "jwks_uris: ['http://{}/keys'], issuers: [me], audiences: [shop], claims_to_headers: {{sub: X-Sub}}, \
         jwks_refetch_pause: 1",
        place.addr()
    );
    let (gateway, _origin) = with_keys(&settings);
    let signer = keys().signer(Algorithm::EdDSA);
    let good = json!({"iss": "me", "aud": ["shop"], "sub": "ann", "exp": now(300)});
    for _ in 0..3 {
        let seen = bearer(&gateway, &signed_as("one", &good, &signer)).expect(200).json();
        assert_eq!(header_of(&seen, "X-Sub"), Some("ann"), "the token's word, not the client's");
        assert_eq!(header_of(&seen, "X-Credential-Identifier"), Some("ann"));
    }
    for wrong in [
        json!({"iss": "you", "aud": ["shop"], "exp": now(300)}),
        json!({"iss": "me", "aud": ["other"], "exp": now(300)}),
        json!({"iss": "me", "aud": ["shop"], "exp": now(-1)}),
        json!({"iss": "me", "aud": ["shop"]}),
    ] {
        bearer(&gateway, &signed_as("one", &wrong, &signer)).expect(401);
    }
    // Another key under a known name, and the public key as a shared secret.
    let stranger = EncodingKey::from_rsa_pem(keys().stranger.private_pem.as_bytes()).expect("a key");
    let token = jsonwebtoken::encode(&Header::new(Algorithm::RS256), &good, &stranger).expect("a token");
    bearer(&gateway, &token).expect(401);
    let confused = EncodingKey::from_secret(keys().ed25519.public_pem.as_bytes());
    let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &good, &confused).expect("a token");
    bearer(&gateway, &token).expect(401);

    // A new name is found once it is published; names that nobody has do not make a fetch each.
    publisher.publish("/keys", &json!({"keys": [published("two")]}));
    eventually("the new key is known", || {
        let status = bearer(&gateway, &signed_as("two", &good, &signer)).status;
        holds(status == 200, format!("{status}"))
    });
    bearer(&gateway, &signed_as("one", &good, &signer)).expect(401);
    let before = place.requests();
    for number in 0..50 {
        bearer(&gateway, &signed_as(&format!("../{number}"), &good, &signer)).expect(401);
    }
    let fetched = place.requests() - before;
    assert!(fetched <= 10, "{fetched} fetches for 50 unknown names");
}

#[test]
fn jwt_goes_on_while_keys_cannot_be_fetched() {
    let publisher = Publisher::default();
    publisher.publish("/keys", &json!({"keys": [published("one")]}));
    let place = Origin::start(publisher);
    let settings = format!("jwks_uris: ['http://{}/keys'], jwks_ttl: 1, jwks_refetch_pause: 1", place.addr());
    let (gateway, _origin) = with_keys(&settings);
    let signer = keys().signer(Algorithm::EdDSA);
    let token = || signed_as("one", &claims("me"), &signer);
    bearer(&gateway, &token()).expect(200);
    drop(place);
    std::thread::sleep(Duration::from_millis(2500));
    bearer(&gateway, &token()).expect(200);
}

#[test]
fn jwt_without_any_key_says_that_it_is_not_the_clients_fault() {
    let place = Origin::start(Publisher::default());
    let (gateway, origin) = with_keys(&format!("jwks_uris: ['http://{}/keys']", place.addr()));
    let token = signed_as("one", &claims("me"), &keys().signer(Algorithm::EdDSA));
    bearer(&gateway, &token).expect(503);
    Request::get("/").send(gateway.addr()).expect(401);
    assert_eq!(origin.requests(), 0);
}

#[test]
fn jwt_discovers_an_issuers_keys_and_knows_its_consumers() {
    let publisher = Publisher::default();
    let place = Origin::start(publisher.clone());
    let issuer = format!("http://{}", place.addr());
    let document = json!({"issuer": issuer, "jwks_uri": format!("{issuer}/elsewhere")});
    publisher.publish("/.well-known/openid-configuration", &document);
    publisher.publish("/elsewhere", &json!({"keys": [published("one")]}));
    let (gateway, _origin) =
        with_keys(&format!("issuer: '{issuer}', consumer_claim: name, scopes_required: [read]"));
    let signer = keys().signer(Algorithm::EdDSA);
    let of = |issuer: &str, name: &str, scope: &str| {
        signed_as("one", &json!({"iss": issuer, "name": name, "scope": scope, "exp": now(300)}), &signer)
    };
    eventually("the keys are discovered", || {
        let status = bearer(&gateway, &of(&issuer, "ann", "read")).status;
        holds(status == 200, format!("{status}"))
    });
    let seen = bearer(&gateway, &of(&issuer, "ann", "write read")).expect(200).json();
    assert_eq!(header_of(&seen, "X-Consumer-Username"), Some("ann"));
    bearer(&gateway, &of(&issuer, "nobody", "read")).expect(401);
    bearer(&gateway, &of("http://other.example", "ann", "read")).expect(401);
    let refused = bearer(&gateway, &of(&issuer, "ann", "write")).expect(403);
    assert!(refused.header("www-authenticate").contains("insufficient_scope"));
}

/// Knows one token, and says so to whoever knows its own secret.
struct Issuer;

impl Script for Issuer {
    fn serve(&self, wire: &mut Wire) -> io::Result<()> {
        while let Some(received) = wire.request()? {
            let body = received.body.text();
            if received.head.get("authorization") != Some("Basic Y2xpZW50OnNlY3JldA==") {
                wire.answer("401 Unauthorized", "", b"{\"active\":true}")?;
            } else if body.contains("token=good") {
                let said = json!({"active": true, "sub": "ann-1", "username": "ann", "scope": "read", "exp": now(300)});
                wire.answer("200 OK", "Content-Type: application/json\r\n", said.to_string().as_bytes())?;
            } else {
                wire.answer("200 OK", "Content-Type: application/json\r\n", b"{\"active\":false}")?;
            }
        }
        Ok(())
    }
}

fn introspected(issuer: &Origin, secret: &str, settings: &str) -> (Gateway, Origin) {
    let origin = Origin::start(Echo::default());
    let text = format!(
        "consumers: [{{username: ann}}]\nservices:\n  - name: web\n    url: http://{}\n    routes:\n      - paths: [/]\n        \
         plugins:\n          - name: oauth2-introspection\n            config: {{introspection_url: 'http://{}/i', \
         authorization_value: 'Basic {secret}', {settings}}}\n",
        origin.addr(),
        issuer.addr()
    );
    (Gateway::start(&Setup::new(text).shards(1)), origin)
}

#[test]
fn introspection_is_asked_once_and_believed_for_its_time() {
    let issuer = Origin::start(Issuer);
    let (gateway, _origin) = introspected(&issuer, "Y2xpZW50OnNlY3JldA==", "hide_credentials: true");
    for _ in 0..5 {
        let seen = bearer(&gateway, "good").expect(200).json();
        assert_eq!(header_of(&seen, "X-Consumer-Username"), Some("ann"));
        assert_eq!(header_of(&seen, "X-Credential-Identifier"), Some("ann-1"));
        assert_eq!(header_of(&seen, "Authorization"), None);
    }
    assert_eq!(issuer.requests(), 1);
    for _ in 0..3 {
        bearer(&gateway, "other").expect(401);
    }
    assert_eq!(issuer.requests(), 2);
    Request::get("/").send(gateway.addr()).expect(401);
    drop(issuer);
    bearer(&gateway, "third").expect(503);
    bearer(&gateway, "good").expect(200);
}

#[test]
fn introspection_without_leave_or_scope_lets_nobody_pass() {
    let issuer = Origin::start(Issuer);
    let (gateway, origin) = introspected(&issuer, "d3Jvbmc=", "");
    bearer(&gateway, "good").expect(503);
    assert_eq!(origin.requests(), 0);
    let (gateway, _origin) = introspected(&issuer, "Y2xpZW50OnNlY3JldA==", "scopes_required: [write]");
    bearer(&gateway, "good").expect(403);
}
