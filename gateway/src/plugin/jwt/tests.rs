//! The plugin as a whole: who gets in, what is said, and when a signature is checked.

mod attacks;
mod vectors;

use jsonwebtoken::{EncodingKey, crypto};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256};
use std::sync::LazyLock;

use super::*;
use crate::http::Known;
use crate::plugin::fixture::{Fixture, NOW, answer, request};

/// Key material of the tests, made once.
struct Keys {
    rsa: KeyPair,
    p256: KeyPair,
    p384: KeyPair,
    ed25519: KeyPair,
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let make = |algorithm| KeyPair::generate_for(algorithm).expect("a key pair");
    Keys {
        rsa: make(&PKCS_RSA_SHA256),
        p256: make(&PKCS_ECDSA_P256_SHA256),
        p384: make(&PKCS_ECDSA_P384_SHA384),
        ed25519: make(&PKCS_ED25519),
    }
});

/// 64 bytes: long enough for all three hashes.
const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const HS: [&str; 3] = ["HS256", "HS384", "HS512"];
const WORDS: [&str; 12] = [
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384",
    "EdDSA",
];

fn pair(word: &str) -> &'static KeyPair {
    match word {
        "ES256" => &KEYS.p256,
        "ES384" => &KEYS.p384,
        "EdDSA" => &KEYS.ed25519,
        _ => &KEYS.rsa,
    }
}

fn signer(word: &str) -> EncodingKey {
    let pem = |word| pair(word).serialize_pem();
    match word {
        _ if HS.contains(&word) => Ok(EncodingKey::from_secret(SECRET.as_bytes())),
        "ES256" | "ES384" => EncodingKey::from_ec_pem(pem(word).as_bytes()),
        "EdDSA" => EncodingKey::from_ed_pem(pem(word).as_bytes()),
        _ => EncodingKey::from_rsa_pem(pem(word).as_bytes()),
    }
    .expect("a signing key")
}

/// base64url without padding.
pub(super) fn encode(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let word =
            group.iter().fold(0_u32, |word, &byte| word << 8 | u32::from(byte)) << (8 * (3 - group.len()));
        text.extend((0..=group.len()).map(|at| char::from(DIGITS[(word >> (18 - 6 * at)) as usize & 63])));
    }
    text
}

/// Signs any header and claims with any key.
fn sign(header: &str, claims: &str, key: &EncodingKey, word: &str) -> String {
    let signed = format!("{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()));
    let signature = crypto::sign(signed.as_bytes(), key, word.parse().expect("an algorithm"));
    format!("{signed}.{}", signature.expect("a signature"))
}

/// A token of the credential that has the algorithm's name.
fn token(word: &str, claims: &str) -> String {
    sign(&format!(r#"{{"alg":"{word}","typ":"JWT"}}"#), claims, &signer(word), word)
}

/// A good set of claims for [`token`].
fn claims(word: &str) -> String {
    format!(r#"{{"iss":"{word}","exp":{}}}"#, NOW + 100)
}

/// A consumer with a credential for each algorithm, named like it, and plugins with these settings.
fn fixture(settings: &[&str]) -> Fixture {
    let mut text =
        "consumers:\n- username: nobody\n- username: ann\n  custom_id: c-a\n  jwt_secrets:\n".to_owned();
    for word in WORDS {
        let (member, material) = match HS.contains(&word) {
            true => ("secret", SECRET.to_owned()),
            // A JSON text is a YAML one.
            false => ("rsa_public_key", serde_json::Value::from(pair(word).public_key_pem()).to_string()),
        };
        text.push_str(&format!("  - {{key: {word}, algorithm: {word}, {member}: {material}}}\n"));
    }
    text.push_str("routes:\n");
    for (number, settings) in settings.iter().enumerate() {
        let plugins = format!("plugins: [{{name: jwt, config: {{{settings}}}}}]");
        text.push_str(&format!("- {{name: r{number}, paths: [/{number}], {plugins}}}\n"));
    }
    Fixture::new(&text)
}

/// What the plugin says to a token.
fn ask(fixture: &Fixture, plugin: &Rc<dyn Plugin>, token: &str) -> Option<Box<Response>> {
    let mut request = request(&format!("GET / HTTP/1.1\nHost: a\nAuthorization: Bearer {token}"));
    answer(plugin.on_request(&mut fixture.cx(), &mut request))
}

/// What a new instance says to a token, in one line: the body's member and text.
fn verdict(settings: &str, token: &str) -> String {
    let fixture = fixture(&[settings]);
    let (plugin, _) = fixture.plugin(0, None).expect("a good config");
    match ask(&fixture, &plugin, token) {
        None => "in".to_owned(),
        Some(answer) => {
            assert_eq!(answer.status, 401);
            assert_eq!(answer.fields, [("WWW-Authenticate", "Bearer error=\"invalid_token\"".into())]);
            match answer.member {
                "message" => answer.message.into_owned(),
                member => format!("{member}: {}", answer.message),
            }
        }
    }
}

fn checks(plugin: &Rc<dyn Plugin>) -> u64 {
    let state = plugin.state().expect("a memory");
    state.downcast_ref::<Memory>().expect("the plugin's own").checks.get()
}

#[test]
fn every_algorithm_lets_in_and_tells_the_upstream_who() {
    let fixture = fixture(&[""]);
    let (plugin, _) = fixture.plugin(0, None).expect("a good config");
    for word in WORDS {
        let token = token(word, &claims(word));
        let mut cx = fixture.cx();
        let mut request = request(&format!("GET / HTTP/1.1\nHost: a\nAuthorization: Bearer {token}"));
        assert!(answer(plugin.on_request(&mut cx, &mut request)).is_none(), "{word}");
        let field = |known| request.head.get_known(known).unwrap_or_default();
        assert_eq!(field(Known::XConsumerUsername), b"ann");
        assert_eq!(field(Known::XConsumerCustomId), b"c-a");
        assert_eq!(field(Known::XCredentialIdentifier), word.as_bytes());
        assert_eq!(cx.identity.consumer, fixture.consumers.by_name("ann"));
        assert!(cx.identity.credential.is_some() && !cx.identity.anonymous);
    }
}

#[test]
fn a_repeated_token_costs_no_signature_check() {
    let fixture = fixture(&[""]);
    let (plugin, _) = fixture.plugin(0, None).expect("a good config");
    let (first, second) = (token("RS256", &claims("RS256")), token("ES256", &claims("ES256")));
    for _ in 0..5 {
        assert!(ask(&fixture, &plugin, &first).is_none());
    }
    assert_eq!(checks(&plugin), 1);
    for _ in 0..5 {
        assert!(ask(&fixture, &plugin, &second).is_none());
        assert!(ask(&fixture, &plugin, &first).is_none());
    }
    assert_eq!(checks(&plugin), 2);
    // What was refused is not remembered, and does not cost the good ones their place.
    let (body, _) = first.rsplit_once('.').expect("three parts");
    for _ in 0..3 {
        assert!(ask(&fixture, &plugin, &format!("{body}.AAAA")).is_some());
    }
    assert_eq!(checks(&plugin), 5);
    assert!(ask(&fixture, &plugin, &first).is_none());
    assert_eq!(checks(&plugin), 5);
}

#[test]
fn times_are_looked_at_with_every_use() {
    let (from, to) = (NOW + 10, NOW + 20);
    let token = token("HS256", &format!(r#"{{"iss":"HS256","nbf":{from},"exp":{to}}}"#));
    let mut fixture = fixture(&[""]);
    let (plugin, _) = fixture.plugin(0, None).expect("a good config");
    for (second, expected) in [
        (from - 1, Some(("nbf", "token not valid yet"))),
        (from, None),
        (to - 1, None),
        (to, Some(("exp", "token expired"))),
        (to + 1000, Some(("exp", "token expired"))),
        (from - 1, Some(("nbf", "token not valid yet"))),
    ] {
        fixture = fixture.at(second);
        let said = ask(&fixture, &plugin, &token);
        assert_eq!(said.as_ref().map(|said| (said.member, &*said.message)), expected, "at {second}");
        let reason = match expected {
            Some(("exp", _)) => Some(Reason::UnauthorizedExpired),
            Some(_) => Some(Reason::UnauthorizedInvalid),
            None => None,
        };
        assert_eq!(said.and_then(|said| said.reason), reason);
    }
    assert_eq!(checks(&plugin), 1);
}

#[test]
fn the_next_generation_remembers_only_with_the_same_keys_and_rules() {
    let token = token("HS256", &claims("HS256"));
    let old = fixture(&["", "claims_to_verify: [exp]"]);
    let (first, _) = old.plugin(0, None).expect("a good config");
    assert!(ask(&old, &first, &token).is_none());
    // The same configuration again, as after a reload that changed something else.
    let new = fixture(&["realm: other", "claims_to_verify: [exp]"]);
    let (same, _) = new.plugin(0, first.state()).expect("a good config");
    assert!(ask(&new, &same, &token).is_none());
    assert_eq!(checks(&same), 1);
    let (other_rules, _) = new.plugin(1, first.state()).expect("a good config");
    assert_eq!(checks(&other_rules), 0);
    // Another secret under the same name: what the old one signed is worth nothing.
    let text = format!(
        "consumers:\n- username: ann\n  jwt_secrets: [{{key: HS256, secret: {}}}]\nplugins: [{{name: jwt}}]\n",
        SECRET.replace('0', "1")
    );
    let changed = Fixture::new(&text);
    let (plugin, _) = changed.plugin(0, first.state()).expect("a good config");
    assert_eq!(&*ask(&changed, &plugin, &token).expect("a refusal").message, "Invalid signature");
    // No credential of that name.
    let removed = Fixture::new("consumers: [{username: ann}]\nplugins: [{name: jwt}]\n");
    let (plugin, _) = removed.plugin(0, first.state()).expect("a good config");
    let said = ask(&removed, &plugin, &token).expect("a refusal");
    assert_eq!(&*said.message, "No credentials found for given 'iss'");
    // Somebody else's state is not taken for ours.
    let (plugin, _) = new.plugin(0, Some(Rc::new(7_u8))).expect("a good config");
    assert_eq!(checks(&plugin), 0);
}

#[test]
fn claims_are_checked_as_configured() {
    let with = |extra: &str| token("HS256", &format!(r#"{{"iss":"HS256"{extra}}}"#));
    let (soon, past) = (format!(r#","exp":{}"#, NOW + 100), format!(r#","exp":{}"#, NOW - 1));
    let number = "exp: must be a number";
    let table = [
        ("", soon.clone(), "in"),
        ("", past.clone(), "exp: token expired"),
        ("", format!(r#","exp":{NOW}"#), "exp: token expired"),
        ("", format!(r#","exp":{NOW}.5"#), "in"),
        ("", r#","exp":1e30"#.to_owned(), "in"),
        ("", r#","exp":-1"#.to_owned(), "exp: token expired"),
        ("", String::new(), number),
        ("", r#","exp":null"#.to_owned(), number),
        ("", format!(r#","exp":"{}""#, NOW + 100), number),
        ("", format!(r#"{soon},"nbf":true"#), "nbf: must be a number"),
        ("", format!(r#"{soon},"nbf":{NOW}"#), "in"),
        ("", format!(r#"{soon},"nbf":{}"#, NOW + 1), "nbf: token not valid yet"),
        // Kong's meaning of a list that is written: all of these must be there.
        ("claims_to_verify: [exp, nbf]", soon.clone(), "nbf: must be a number"),
        ("claims_to_verify: [nbf]", format!(r#"{past},"nbf":1"#), "in"),
        ("claims_to_verify: []", past.clone(), "in"),
        ("claims_to_verify: []", String::new(), "in"),
        ("maximum_expiration: 100", soon.clone(), "in"),
        ("maximum_expiration: 99", soon.clone(), "exp: exceeds maximum allowed expiration"),
        ("maximum_expiration: 99", r#","exp":1e300"#.to_owned(), "exp: exceeds maximum allowed expiration"),
    ];
    for (settings, extra, expected) in table {
        assert_eq!(verdict(settings, &with(&extra)), expected, "{settings} {extra}");
    }
}

#[test]
fn kongs_defaults_accept_expired_tokens() {
    let text = format!(
        "defaults: kong\nconsumers:\n- username: ann\n  jwt_secrets: [{{key: HS256, secret: {SECRET}}}]\n\
         plugins: [{{name: jwt}}]\n"
    );
    let fixture = Fixture::new(&text);
    let (plugin, _) = fixture.plugin(0, None).expect("a good config");
    assert!(ask(&fixture, &plugin, &token("HS256", r#"{"iss":"HS256","exp":1}"#)).is_none());
}

#[test]
fn the_key_is_named_by_claim_or_header() {
    let soon = NOW + 100;
    let by_kid = |kid: &str, claims: &str| {
        sign(&format!(r#"{{"alg":"HS256","kid":{kid}}}"#), claims, &signer("HS256"), "HS256")
    };
    let kid = "key_claim_name: kid";
    assert_eq!(verdict(kid, &by_kid(r#""HS256""#, &format!(r#"{{"exp":{soon}}}"#))), "in");
    // The claim goes first, and a bad one does not fall back to the header.
    let claims = |kid: &str| format!(r#"{{"kid":{kid},"exp":{soon}}}"#);
    assert_eq!(verdict(kid, &by_kid(r#""nobody""#, &claims(r#""HS256""#))), "in");
    assert_eq!(verdict(kid, &by_kid(r#""HS256""#, &claims("7"))), "Invalid 'kid' in claims");
    assert_eq!(verdict(kid, &by_kid(r#""HS256""#, &claims(r#""""#))), "Invalid 'kid' in claims");
    assert_eq!(
        verdict(kid, &token("HS256", &format!(r#"{{"exp":{soon}}}"#))),
        "No mandatory 'kid' in claims"
    );
    let stranger = token("HS256", &format!(r#"{{"iss":"nobody","exp":{soon}}}"#));
    assert_eq!(verdict("", &stranger), "No credentials found for given 'iss'");
}

#[test]
fn missing_several_anonymous_and_realm() {
    let fixture = fixture(&["realm: here", "anonymous: nobody", "run_on_preflight: false"]);
    let plugin = |number| fixture.plugin(number, None).expect("a good config").0;
    let send = |number: usize, head: &str| {
        let mut request = request(head);
        let said = answer(plugin(number).on_request(&mut fixture.cx(), &mut request));
        (said, request)
    };
    let bare = "GET / HTTP/1.1\nHost: a";
    let said = send(0, bare).0.expect("a refusal");
    assert_eq!((&*said.message, said.reason), ("Unauthorized", Some(Reason::UnauthorizedMissing)));
    assert_eq!(said.fields, [("WWW-Authenticate", "Bearer realm=\"here\"".into())]);
    let said =
        send(0, "GET /?jwt=a.b.c HTTP/1.1\nHost: a\nAuthorization: Bearer x.y.z").0.expect("a refusal");
    assert_eq!(&*said.message, "Multiple tokens provided");
    assert_eq!(said.fields, [("WWW-Authenticate", "Bearer realm=\"here\", error=\"invalid_token\"".into())]);

    let (said, request) = send(1, "GET / HTTP/1.1\nHost: a\nAuthorization: Bearer x.y.z");
    assert!(said.is_none());
    assert_eq!(request.head.get_known(Known::XAnonymousConsumer), Some(&b"true"[..]));
    assert_eq!(request.head.get_known(Known::XConsumerUsername), Some(&b"nobody"[..]));

    let options = "OPTIONS / HTTP/1.1\nHost: a";
    assert!(send(0, options).0.is_some());
    assert!(send(2, options).0.is_none());
    assert!(send(2, bare).0.is_some());
}

#[test]
fn a_fresh_token_is_found_in_the_query() {
    let fixture = fixture(&[""]);
    let (plugin, _) = fixture.plugin(0, None).expect("a good config");
    let token = token("EdDSA", &claims("EdDSA"));
    let mut request =
        request(&format!("GET /?a=1&jwt={token} HTTP/1.1\nHost: a\nAuthorization: Bearer {token}"));
    assert!(answer(plugin.on_request(&mut fixture.cx(), &mut request)).is_none());
}

/// Compiles the plugin with one credential and gives all findings as text.
fn findings(credential: &str, settings: &str) -> String {
    let text = format!(
        "consumers:\n- username: ann\n  jwt_secrets: [{{key: k, {credential}}}]\n\
         plugins: [{{name: jwt, config: {{{settings}}}}}]\n"
    );
    match Fixture::new(&text).plugin(0, None) {
        Ok((_, found)) | Err(found) => found.iter().map(|one| format!("{one}\n")).collect(),
    }
}

#[test]
fn bad_key_material_is_reported_at_its_place() {
    let pem = |text: String| format!("rsa_public_key: {}", serde_json::Value::from(text));
    let place = "test.yaml:3:";
    for (word, key, expected) in [
        ("RS256", KEYS.p256.public_key_pem(), "RS256 needs a public key of kind RSA"),
        ("ES256", KEYS.rsa.public_key_pem(), "ES256 needs a public key of kind P-256"),
        ("ES256", KEYS.p384.public_key_pem(), "ES256 needs a public key of kind P-256"),
        ("ES384", KEYS.p256.public_key_pem(), "ES384 needs a public key of kind P-384"),
        ("EdDSA", KEYS.p256.public_key_pem(), "EdDSA needs a public key of kind Ed25519"),
        ("ES512", KEYS.p256.public_key_pem(), "ES512 is not supported"),
        ("PS256", KEYS.rsa.serialize_pem(), "this is a private key"),
        ("RS256", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n".into(), "RS256 needs"),
    ] {
        let found = findings(&format!("algorithm: {word}, {}", pem(key)), "");
        assert!(found.contains(expected) && found.contains(place), "{word}: {found}");
        assert!(found.contains("error: consumers[0].jwt_secrets[0]."), "{found}");
        assert!(!found.contains("PRIVATE KEY"), "{found}");
    }
    let found = findings("secret: not_base64_at_all!", "secret_is_base64: true");
    assert!(found.contains("jwt_secrets[0].secret: the secret is not base64"), "{found}");
    assert!(!found.contains("not_base64_at_all"), "{found}");
}

#[test]
fn settings_that_cannot_work_are_reported() {
    let secret = format!("secret: {SECRET}");
    let found = |settings| findings(&secret, settings);
    assert_eq!(found(""), "");
    assert!(
        found("maximum_expiration: 60, claims_to_verify: [nbf]")
            .contains("config.maximum_expiration: `claims")
    );
    assert!(found("claims_to_verify: []").contains("warning: plugins[0].config.claims_to_verify"));
    assert!(found("uri_param_names: [], header_names: []").contains("every request is refused"));
    assert!(found("anonymous: somebody").contains("there is no consumer"));
}
