//! Options of `jwt`.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use portcullis_tests::certs::Authority;
use portcullis_tests::client::{Request, Response};
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::Gateway;
use portcullis_tests::origin::secure::SecureOrigin;
use portcullis_tests::origin::{Canned, Origin};
use portcullis_tests::tokens::{base64url, keys, now, token};
use serde_json::{Value, json};

use super::{echo, gateway};

const SECRET: &str = "c2VjcmV0IHRoYXQgaXMgbG9uZyBlbm91Z2ggZm9yIEhTMjU2";

/// A gateway with one consumer that signs with [`SECRET`], and its origin.
fn guarded(settings: &str) -> (Gateway, Origin) {
    let origin = echo();
    let consumers = format!(
        "consumers: [{{username: ann, jwt_secrets: [{{key: ann, algorithm: HS256, secret: {SECRET}}}]}}]\n"
    );
    let plugins = format!("[{{name: jwt, config: {{{settings}}}}}]");
    (gateway(&origin, &plugins, &consumers), origin)
}

fn signed(secret: &EncodingKey, typ: Option<&str>, claims: &Value) -> String {
    let header = Header { typ: typ.map(str::to_owned), ..Header::new(Algorithm::HS256) };
    jsonwebtoken::encode(&header, claims, secret).expect("a token")
}

fn of_ann(claims: &Value) -> String {
    signed(&EncodingKey::from_secret(SECRET.as_bytes()), Some("JWT"), claims)
}

fn ask(gateway: &Gateway, token: &str) -> Response {
    Request::get("/").header("Authorization", format!("Bearer {token}")).send(gateway.addr())
}

#[test]
fn jwt_secret_is_base64() {
    let claims = json!({ "iss": "ann", "exp": now(60) });
    let decoded = EncodingKey::from_base64_secret(SECRET).expect("base64");
    for (is_base64, expected) in [(false, [200, 401]), (true, [401, 200])] {
        let (gateway, _origin) = guarded(&format!("secret_is_base64: {is_base64}"));
        let statuses = [of_ann(&claims), signed(&decoded, Some("JWT"), &claims)];
        assert_eq!(statuses.map(|token| ask(&gateway, &token).status), expected);
    }
}

#[test]
fn jwt_maximum_expiration() {
    let (gateway, _origin) = guarded("maximum_expiration: 300");
    ask(&gateway, &of_ann(&json!({ "iss": "ann", "exp": now(200) }))).expect(200);
    ask(&gateway, &of_ann(&json!({ "iss": "ann", "exp": now(400) }))).expect(401);
}

#[test]
fn jwt_clock_skew() {
    let (strict, _origin) = guarded("");
    let (lenient, _other) = guarded("clock_skew: 60");
    for claims in
        [json!({ "iss": "ann", "exp": now(-30) }), json!({ "iss": "ann", "exp": now(300), "nbf": now(30) })]
    {
        ask(&strict, &of_ann(&claims)).expect(401);
        ask(&lenient, &of_ann(&claims)).expect(200);
    }
    ask(&lenient, &of_ann(&json!({ "iss": "ann", "exp": now(-90) }))).expect(401);
}

#[test]
fn jwt_typ_allowed() {
    let (gateway, _origin) = guarded("typ_allowed: [at+jwt]");
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let claims = json!({ "iss": "ann", "exp": now(60) });
    for (typ, status) in [(Some("at+jwt"), 200), (Some("JWT"), 401), (None, 401)] {
        ask(&gateway, &signed(&key, typ, &claims)).expect(status);
    }
}

/// Who serves the set.
fn published() -> Origin {
    Origin::start(Canned { status: "200 OK", fields: "Content-Type: application/json\r\n", body: set() })
}

/// The P-256 key of the tests: the last 64 octets of its SubjectPublicKeyInfo are its point.
fn set() -> &'static str {
    let pem: String = keys().p256.public_pem.lines().filter(|line| !line.starts_with('-')).collect();
    let spki = decoded(&pem);
    let (x, y) = spki[spki.len() - 64..].split_at(32);
    let set = json!({ "keys": [
        { "kty": "EC", "crv": "P-256", "kid": "k", "x": base64url(x), "y": base64url(y) },
    ] });
    set.to_string().leak()
}

fn decoded(base64: &str) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits: Vec<u32> = base64
        .bytes()
        .filter_map(|byte| ALPHABET.iter().position(|&own| own == byte))
        .map(|digit| digit as u32)
        .collect();
    let group = |group: &[u32]| {
        let word = group.iter().fold(0, |word, six| word << 6 | six) << (6 * (4 - group.len()));
        word.to_be_bytes()[1..group.len()].to_vec()
    };
    digits.chunks(4).flat_map(group).collect()
}

#[test]
fn jwt_algorithms_of_published_keys() {
    let place = published();
    let claims = json!({ "iss": "me", "exp": now(300) });
    for (algorithms, status) in [("[ES256, RS256]", 200), ("[RS256]", 401)] {
        let settings = format!("jwks_uris: ['{}/keys'], algorithms: {algorithms}", place.url());
        let (gateway, _origin) = guarded(&settings);
        eventually("the keys are there", || {
            let found = ask(&gateway, &token(Algorithm::ES256, &claims)).status;
            holds(found == status, format!("{found} with {algorithms}"))
        });
    }
}

#[test]
fn jwt_jwks_stale_ttl() {
    let place = published();
    let settings =
        format!("jwks_uris: ['{}/keys'], jwks_ttl: 1, jwks_stale_ttl: 1, jwks_refetch_pause: 1", place.url());
    let (gateway, _origin) = guarded(&settings);
    let good = || ask(&gateway, &token(Algorithm::ES256, &json!({ "iss": "me", "exp": now(300) }))).status;
    eventually("the keys are there", || holds(good() == 200, "not yet"));
    drop(place);
    eventually("the keys are too old", || holds(matches!(good(), 401 | 503), "they still count"));
}

#[test]
fn jwt_jwks_timeout() {
    // Accepts and never answers: a fetch without a limit would be under way for ever, and nobody told so.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("an address");
    let (gateway, _origin) =
        guarded(&format!("jwks_uris: ['http://{address}/keys'], jwks_timeout: 100ms, jwks_refetch_pause: 1"));
    let asked = || silent.accept().expect("a connection");
    let first = asked();
    // Asked again once the first has failed.
    eventually("it is given up and tried again", || {
        ask(&gateway, &token(Algorithm::ES256, &json!({ "iss": "me", "exp": now(300) }))).expect(503);
        silent.set_nonblocking(true).expect("a socket");
        holds(silent.accept().is_ok(), "still waiting")
    });
    drop(first);
}

#[test]
fn jwt_jwks_tls_verify() {
    let dir = tempfile::TempDir::new().expect("a folder");
    let place = SecureOrigin::with_text(&Authority::new(dir.path()).leaf(&["localhost"]), set());
    let claims = json!({ "iss": "me", "exp": now(300) });
    for (verify, status) in [(false, 200), (true, 503)] {
        // Nobody has told this machine of the authority.
        let settings = format!(
            "jwks_uris: ['https://localhost:{}/keys'], jwks_tls_verify: {verify}, jwks_refetch_pause: 1",
            place.port()
        );
        let (gateway, _origin) = guarded(&settings);
        eventually("the keys are there, or not to be had", || {
            let found = ask(&gateway, &token(Algorithm::ES256, &claims)).status;
            holds(found == status, format!("{found}, verified: {verify}"))
        });
    }
}
