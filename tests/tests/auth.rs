//! jwt and key-auth: who gets in, who does not and what he is told, and what the origin learns.

use std::sync::Arc;

use jsonwebtoken::{Algorithm, EncodingKey};
use portcullis_tests::client::{Request, Response};
use portcullis_tests::eventually::{eventually, holds};
use portcullis_tests::gateway::{Gateway, Setup, Shared};
use portcullis_tests::origin::{Echo, Origin};
use portcullis_tests::tokens::{ALGORITHMS, claims, forged, keys, now, signed, token};
use serde_json::json;

struct Suite {
    gateway: Gateway,
    _origin: Origin,
}

const ROUTES: &str = r#"
    routes:
      - name: jwt
        paths: [/jwt]
        plugins: [{name: jwt}]
      - name: jwt-places
        paths: [/jwt-places]
        plugins:
          - name: jwt
            config: {header_names: [X-Token], uri_param_names: [t], cookie_names: [session], key_claim_name: kid}
      - name: key
        paths: [/key]
        plugins: [{name: key-auth}]
      - name: key-hidden
        paths: [/hidden-key]
        plugins:
          - name: key-auth
            config: {key_names: [X-Api-Key, k], hide_credentials: true}
      - name: key-header-only
        paths: [/header-key]
        plugins:
          - name: key-auth
            config: {key_in_query: false}
      - name: anonymous
        paths: [/anonymous]
        plugins:
          - name: key-auth
            config: {anonymous: nobody}
      - name: open
        paths: [/open]
"#;

fn issuer(algorithm: Algorithm) -> String {
    format!("iss-{algorithm:?}")
}

fn consumers() -> String {
    let mut text = "consumers:\n  - username: nobody\n  - username: ann\n    custom_id: ann-7\n    \
                    keyauth_credentials: [{key: ann-key}]\n    \
                    jwt_secrets:\n"
        .to_owned();
    for algorithm in ALGORITHMS {
        let (name, material) = keys().verifier(algorithm);
        // A JSON string is a YAML double-quoted scalar, so PEM text keeps its line ends.
        let material = serde_json::Value::from(material);
        let key = issuer(algorithm);
        text.push_str(&format!(
            "      - key: {key}\n        algorithm: {algorithm:?}\n        {name}: {material}\n"
        ));
    }
    text.push_str("  - username: ben\n    keyauth_credentials: [{key: ben-key}]\n");
    text
}

fn suite() -> Arc<Suite> {
    static SUITE: Shared<Suite> = Shared::new();
    SUITE.get(|| {
        let origin = Origin::start(Echo::default());
        let services = format!("services:\n  - name: web\n    url: http://{}{ROUTES}", origin.addr());
        Suite { gateway: Gateway::start(&Setup::new(services + &consumers())), _origin: origin }
    })
}

fn send(request: Request) -> Response {
    request.send(suite().gateway.addr())
}

fn bearer(token: &str) -> Response {
    send(Request::get("/jwt/x").header("Authorization", format!("Bearer {token}")))
}

/// Expects 401 with a challenge for bearer tokens and a JSON message.
#[track_caller]
fn turned_away(response: Response) -> Response {
    let response = response.expect(401);
    assert!(response.header("www-authenticate").starts_with("Bearer"), "{:?}", response.head.fields);
    assert!(response.json().is_object(), "{}", response.text());
    response
}

#[test]
fn every_algorithm_is_accepted() {
    for algorithm in ALGORITHMS {
        let token = token(algorithm, &claims(&issuer(algorithm)));
        let response = bearer(&token);
        assert_eq!(response.status, 200, "{algorithm:?}: {}", response.text());
        // Again, now from the cache of verified tokens.
        bearer(&token).expect(200);
    }
}

#[test]
fn a_changed_signature_is_refused() {
    for algorithm in ALGORITHMS {
        let token = token(algorithm, &claims(&issuer(algorithm)));
        let (body, signature) = token.rsplit_once('.').expect("three parts");
        let swapped = if signature.starts_with('A') { "B" } else { "A" };
        turned_away(bearer(&format!("{body}.{swapped}{}", &signature[1..])));
        turned_away(bearer(&format!("{body}.")));
        turned_away(bearer(body));
    }
}

#[test]
fn changed_claims_are_refused() {
    let good = token(Algorithm::HS256, &claims("iss-HS256"));
    let other = token(Algorithm::HS256, &json!({"iss": "iss-HS256", "exp": now(300), "role": "admin"}));
    let part = |token: &str, index: usize| token.split('.').nth(index).expect("three parts").to_owned();
    bearer(&good).expect(200);
    turned_away(bearer(&format!("{}.{}.{}", part(&good, 0), part(&other, 1), part(&good, 2))));
}

#[test]
fn a_strangers_key_is_refused() {
    let stranger = EncodingKey::from_rsa_pem(keys().stranger.private_pem.as_bytes()).expect("a key");
    turned_away(bearer(&signed(Algorithm::RS256, &claims("iss-RS256"), &stranger)));
    let wrong = EncodingKey::from_secret(b"another secret of sufficient length!");
    turned_away(bearer(&signed(Algorithm::HS256, &claims("iss-HS256"), &wrong)));
}

#[test]
fn the_algorithm_is_the_keys_and_not_the_tokens() {
    // The public key is public: a token signed with it as an HMAC secret must not pass.
    let public = EncodingKey::from_secret(keys().rsa.public_pem.as_bytes());
    turned_away(bearer(&signed(Algorithm::HS256, &claims("iss-RS256"), &public)));
    // Right key, other algorithm of its family.
    turned_away(bearer(&token(Algorithm::RS512, &claims("iss-RS256"))));
    turned_away(bearer(&token(Algorithm::PS256, &claims("iss-RS256"))));
    turned_away(bearer(&token(Algorithm::HS512, &claims("iss-HS256"))));
}

#[test]
fn unsigned_tokens_are_refused() {
    for name in ["none", "None", "NONE", "nOnE", ""] {
        for signature in [&b""[..], b"x"] {
            turned_away(bearer(&forged(
                &json!({"alg": name, "typ": "JWT"}),
                &claims("iss-HS256"),
                signature,
            )));
        }
    }
}

#[test]
fn expiry_and_start_are_checked_without_being_asked_for() {
    let with = |extra: serde_json::Value| {
        let mut all = claims("iss-ES256");
        all.as_object_mut().expect("claims").extend(extra.as_object().expect("claims").clone());
        bearer(&token(Algorithm::ES256, &all))
    };
    with(json!({})).expect(200);
    let expired = turned_away(with(json!({"exp": now(-120)})));
    assert!(expired.text().contains("expired"), "{}", expired.text());
    turned_away(with(json!({"nbf": now(120)})));
    with(json!({"nbf": now(-10)})).expect(200);
    turned_away(with(json!({"exp": "tomorrow"})));
    turned_away(with(json!({"exp": -1})));
}

#[test]
fn a_token_stops_working_when_it_expires_although_it_is_cached() {
    let token = token(Algorithm::HS256, &json!({"iss": "iss-HS256", "exp": now(2)}));
    bearer(&token).expect(200);
    eventually("the end of a token", || holds(bearer(&token).status == 401, "still accepted"));
}

#[test]
fn strange_tokens_are_refused() {
    for token in ["", "x", "x.y", "x.y.z", "a.b.c.d", "....", "e30.e30.", "\u{e9}.\u{e9}.\u{e9}"] {
        let response = bearer(token);
        assert_eq!(response.status, 401, "{token:?}: {}", response.text());
    }
    turned_away(bearer(&token(Algorithm::HS256, &json!({"exp": now(300)}))));
    turned_away(bearer(&token(Algorithm::HS256, &claims("nobody-knows"))));
    turned_away(bearer(&token(Algorithm::HS256, &json!({"iss": 7, "exp": now(300)}))));
}

#[test]
fn without_a_token_the_body_and_the_challenge_are_kongs() {
    let response = turned_away(send(Request::get("/jwt")));
    assert_eq!(response.json(), json!({"message": "Unauthorized"}));
    assert!(!response.header("www-authenticate").contains("error="));
    let response = turned_away(bearer("x.y.z"));
    assert!(
        response.header("www-authenticate").contains("error=\"invalid_token\""),
        "{:?}",
        response.head.fields
    );
    turned_away(send(Request::get("/jwt").header("Authorization", "Basic YTpi")));
}

#[test]
fn tokens_are_found_where_they_are_looked_for() {
    let token = token(Algorithm::HS256, &claims("iss-HS256"));
    send(Request::get(&format!("/jwt?jwt={token}"))).expect(200);
    let by_kid = token_with_kid();
    send(Request::get(&format!("/jwt-places?t={by_kid}"))).expect(200);
    send(Request::get("/jwt-places").header("X-Token", format!("Bearer {by_kid}"))).expect(200);
    send(Request::get("/jwt-places").header("Cookie", format!("a=b; session={by_kid}; c=d"))).expect(200);
    turned_away(send(Request::get("/jwt-places").header("Authorization", format!("Bearer {by_kid}"))));
}

/// A token whose key is named by the header's `kid`, which Kong looks at after the claims.
fn token_with_kid() -> String {
    let mut header = jsonwebtoken::Header::new(Algorithm::HS256);
    header.kid = Some("iss-HS256".to_owned());
    let key = keys().signer(Algorithm::HS256);
    jsonwebtoken::encode(&header, &json!({"exp": now(300)}), &key).expect("a token")
}

#[test]
fn the_origin_learns_who_it_is_and_cannot_be_lied_to() {
    let token = token(Algorithm::EdDSA, &claims("iss-EdDSA"));
    let request = Request::get("/jwt")
        .header("Authorization", format!("Bearer {token}"))
        .header("X-Consumer-Username", "root")
        .header("X-Consumer-Custom-ID", "root")
        .header("X-Anonymous-Consumer", "true");
    let echoed = send(request).expect(200).echoed();
    assert_eq!(echoed.all("x-consumer-username"), ["ann"]);
    assert_eq!(echoed.all("x-consumer-custom-id"), ["ann-7"]);
    assert!(echoed.all("x-anonymous-consumer").is_empty());
    assert_eq!(echoed.all("x-credential-identifier").len(), 1);
    assert_eq!(echoed.all("authorization").len(), 1, "the token is passed on, as in Kong");
}

#[test]
fn keys_in_header_and_query() {
    let echoed = send(Request::get("/key/x?a=b").header("apikey", "ann-key")).expect(200).echoed();
    assert_eq!((echoed.get("x-consumer-username"), echoed.get("apikey")), (Some("ann"), Some("ann-key")));
    let echoed = send(Request::get("/key?apikey=ben-key")).expect(200).echoed();
    assert_eq!(echoed.get("x-consumer-username"), Some("ben"));
    assert!(echoed.all("x-consumer-custom-id").is_empty());
    send(Request::get("/header-key?apikey=ben-key")).expect(401);
    send(Request::get("/header-key").header("ApiKey", "ben-key")).expect(200);
}

#[test]
fn hidden_keys_do_not_reach_the_origin() {
    let echoed = send(Request::get("/hidden-key?a=1&k=ann-key&b=2")).expect(200).echoed();
    assert!(!echoed.target().contains("ann-key"), "{}", echoed.target());
    assert!(echoed.target().contains("a=1") && echoed.target().contains("b=2"), "{}", echoed.target());
    let echoed = send(Request::get("/hidden-key").header("X-Api-Key", "ann-key")).expect(200).echoed();
    assert!(echoed.all("x-api-key").is_empty());
}

#[test]
fn missing_and_wrong_keys() {
    let response = send(Request::get("/key")).expect(401);
    assert_eq!(response.json(), json!({"message": "No API key found in request"}));
    assert!(response.header("www-authenticate").starts_with("Key"), "{:?}", response.head.fields);
    for key in ["ann-kez", "ann-ke", "ann-key ann-key", "x"] {
        let response = send(Request::get("/key").header("apikey", key)).expect(401);
        assert!(response.json()["message"].is_string(), "{}", response.text());
    }
    send(Request::get("/key").header("apikey", "ann-key").header("apikey", "ben-key")).expect(401);
}

#[test]
fn anonymous_lets_through_and_says_so() {
    let echoed = send(Request::get("/anonymous")).expect(200).echoed();
    assert_eq!(echoed.get("x-anonymous-consumer"), Some("true"));
    assert_eq!(echoed.get("x-consumer-username"), Some("nobody"));
    let echoed = send(Request::get("/anonymous").header("apikey", "ann-key")).expect(200).echoed();
    assert_eq!(echoed.get("x-consumer-username"), Some("ann"));
    assert!(echoed.all("x-anonymous-consumer").is_empty());
}

#[test]
fn refusals_keep_the_connection_and_read_past_the_body() {
    // The gateway lives as long as somebody holds the suite.
    let suite = suite();
    let mut connection = portcullis_tests::client::Connection::open(suite.gateway.addr());
    for _ in 0..3 {
        Request::post("/key", "a body that nobody reads").keep().send_on(&mut connection).expect(401);
    }
    Request::get("/open").keep().send_on(&mut connection).expect(200);
}

#[test]
fn refusals_are_counted_by_reason() {
    let gateway = &suite().gateway;
    let count = |reason: &str| gateway.metrics().get("portcullis_refusals_total", &[("reason", reason)]);
    for (request, reason) in [
        (Request::get("/key"), "unauthorized_missing"),
        (Request::get("/key").header("apikey", "wrong"), "unauthorized_invalid"),
    ] {
        let before = count(reason);
        send(request).expect(401);
        eventually(reason, || holds(count(reason) > before, "not counted"));
    }
}
