//! Tokens made to be let in by somebody who must not be (RFC 8725 section 2).

use rcgen::PublicKeyData;

use super::*;

/// A token with this header whose signature is good for the HS256 credential.
fn with_header(header: &str) -> String {
    sign(header, &claims("HS256"), &signer("HS256"), "HS256")
}

fn with_claims(claims: &str) -> String {
    token("HS256", claims)
}

#[test]
fn unsigned_tokens() {
    for alg in ["none", "None", "NONE", "nOnE", "", " none", "HS256 ", "hs256", "HS1", "ES256K", "dir"] {
        for signature in ["", "AAAA"] {
            let header = encode(format!(r#"{{"alg":"{alg}"}}"#).as_bytes());
            let token = format!("{header}.{}.{signature}", encode(claims("HS256").as_bytes()));
            assert_eq!(verdict("", &token), "Bad token; invalid alg", "{alg:?}");
        }
    }
    for header in [r#"{}"#, r#"{"alg":null}"#, r#"{"alg":["HS256"]}"#, r#"{"alg":7}"#] {
        assert_eq!(verdict("", &with_header(header)), "Bad token; invalid alg", "{header}");
    }
}

#[test]
fn a_public_key_as_shared_secret() {
    for word in ["RS256", "PS256", "ES256", "EdDSA"] {
        let pem = pair(word).public_key_pem();
        let secrets = [pem.as_bytes(), pem.trim_end().as_bytes(), &pair(word).subject_public_key_info()];
        for secret in secrets {
            let key = EncodingKey::from_secret(secret);
            let forged = sign(r#"{"alg":"HS256"}"#, &claims(word), &key, "HS256");
            assert_eq!(verdict("", &forged), "Invalid algorithm");
            // The credential's algorithm in the header, the HMAC behind it.
            let forged = sign(&format!(r#"{{"alg":"{word}"}}"#), &claims(word), &key, "HS256");
            assert_eq!(verdict("", &forged), "Invalid signature");
        }
    }
}

#[test]
fn another_algorithm_of_the_same_key() {
    for (credential, signed) in
        [("RS256", "RS512"), ("RS256", "PS256"), ("PS384", "RS384"), ("HS256", "HS512"), ("HS512", "HS256")]
    {
        assert_eq!(verdict("", &token(signed, &claims(credential))), "Invalid algorithm");
        let lying = format!(r#"{{"alg":"{credential}"}}"#);
        assert_eq!(
            verdict("", &sign(&lying, &claims(credential), &signer(signed), signed)),
            "Invalid signature"
        );
    }
}

#[test]
fn headers_that_ask_for_more_than_we_do() {
    let critical = "Bad token; unknown critical header parameter";
    for (extra, expected) in [
        (r#""crit":["exp"]"#, critical),
        (r#""crit":[]"#, critical),
        (r#""crit":null"#, critical),
        (r#""crit":["b64"],"b64":true"#, critical),
        (r#""crit":["b64"],"b64":false"#, critical),
        (r#""b64":false"#, "Bad token; unencoded payload"),
        (r#""b64":0"#, "Bad token; unencoded payload"),
        (r#""b64":true"#, "in"),
        (r#""typ":"at+jwt""#, "in"),
        (r#""typ":"application/JWT""#, "in"),
        (r#""typ":"dpop+jwt""#, "Bad token; invalid typ"),
        (r#""typ":1"#, "Bad token; invalid typ"),
        (r#""kid":"../../dev/null","x":{"y":[{}]}"#, "in"),
    ] {
        assert_eq!(verdict("", &with_header(&format!(r#"{{"alg":"HS256",{extra}}}"#))), expected, "{extra}");
    }
}

#[test]
fn keys_that_come_with_the_token() {
    let own = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key pair");
    let key = EncodingKey::from_ec_pem(own.serialize_pem().as_bytes()).expect("a signing key");
    let point = own.public_key_raw();
    let (x, y) = (encode(&point[1..33]), encode(&point[33..]));
    let jwk = format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}"}}"#);
    for extra in [
        format!(r#""jwk":{jwk}"#),
        r#""jku":"https://evil.example/keys""#.to_owned(),
        r#""x5u":"https://evil.example/cert""#.to_owned(),
        format!(r#""x5c":["{}"]"#, encode(&own.subject_public_key_info())),
    ] {
        let header = format!(r#"{{"alg":"ES256",{extra}}}"#);
        assert_eq!(verdict("", &sign(&header, &claims("ES256"), &key, "ES256")), "Invalid signature");
        // Beside the right key they change nothing.
        assert_eq!(verdict("", &sign(&header, &claims("ES256"), &signer("ES256"), "ES256")), "in");
    }
}

#[test]
fn bytes_that_are_no_token() {
    let good = token("HS256", &claims("HS256"));
    let [header, body, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!("three parts") };
    let json = "Bad token; invalid JSON";
    let table = [
        ("x".to_owned(), json),
        ("x.y".to_owned(), json),
        ("..".to_owned(), json),
        ("....".to_owned(), json),
        (format!("{good}.x"), json),
        (format!("{header}.{body}"), json),
        (format!("{header}=.{body}.{signature}"), json),
        (format!("{header}.{body}\u{e9}.{signature}"), json),
        (format!("{header}.{}.{signature}", body.replace('e', "+")), json),
        (format!("{header}.{}.{signature}", encode(b"[]")), json),
        (format!("{header}.{}.{signature}", encode(b"{} {}")), json),
        (format!("{header}.{}.{signature}", encode(b"{\"a\":\"\xff\"}")), json),
        (format!("{header}.{}.{signature}", encode(b"{\"a\":01}")), json),
        (format!("{}.{body}.{signature}", encode(b"\"HS256\"")), json),
        (format!("{header}.{body}."), "Invalid signature"),
        (format!("{header}.{body}.{signature}="), "Invalid signature"),
        (format!("{header}.{body}.{}", &signature[..signature.len() - 1]), "Invalid signature"),
        (format!("{header}.{body}.{}\u{e9}", &signature[1..]), "Invalid signature"),
        (
            format!("{header}.{}.{signature}", encode(claims("HS256").replace("exp", "exq").as_bytes())),
            "Invalid signature",
        ),
        (format!("{header}.{body}.{}", "A".repeat(8193)), "Bad token; too long"),
    ];
    for (token, expected) in table {
        assert_eq!(verdict("", &token), expected, "{token}");
    }
}

#[test]
fn one_signature_has_one_spelling() {
    // 32 bytes are 43 digits, whose last has two bits that belong to no byte: only zero is a spelling.
    let good = token("HS256", &claims("HS256"));
    let last = good.chars().last().expect("a digit");
    let digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let at = digits.find(last).expect("a digit");
    assert_eq!(at % 4, 0);
    for stray in 1..4 {
        let other = &digits[at + stray..=at + stray];
        assert_eq!(verdict("", &format!("{}{other}", &good[..good.len() - 1])), "Invalid signature");
    }
}

#[test]
fn members_that_are_there_twice() {
    let json = "Bad token; invalid JSON";
    let soon = NOW + 100;
    for claims in [
        format!(r#"{{"iss":"nobody","iss":"HS256","exp":{soon}}}"#),
        format!(r#"{{"iss":"HS256","exp":1,"exp":{soon}}}"#),
        format!(r#"{{"iss":"HS256","exp":1,"\u0065xp":{soon}}}"#),
        format!(r#"{{"iss":"HS256","role":"user","role":"admin","exp":{soon}}}"#),
    ] {
        assert_eq!(verdict("", &with_claims(&claims)), json, "{claims}");
    }
    assert_eq!(verdict("", &with_header(r#"{"alg":"none","alg":"HS256"}"#)), json);
    // Inside of a claim it is the upstream's business.
    assert_eq!(
        verdict("", &with_claims(&format!(r#"{{"iss":"HS256","exp":{soon},"x":{{"y":1,"y":2}}}}"#))),
        "in"
    );
}

#[test]
fn deep_and_wide_claims() {
    let soon = NOW + 100;
    let nested = |depth: usize| {
        let inner = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        with_claims(&format!(r#"{{"iss":"HS256","exp":{soon},"x":{inner}}}"#))
    };
    // No depth that fits a token can overflow a stack.
    assert_eq!(verdict("", &nested(10)), "in");
    assert_eq!(verdict("", &nested(2500)), "in");
    let wide: String = (0..500).map(|number| format!(r#","c{number}":1"#)).collect();
    let wide = with_claims(&format!(r#"{{"iss":"HS256"{wide},"exp":{soon}}}"#));
    assert_eq!(verdict("", &wide), "in");
    for number in ["1e999", "-1e999"] {
        let claims = format!(r#"{{"iss":"HS256","exp":{number}}}"#);
        assert_eq!(verdict("", &with_claims(&claims)), "Bad token; invalid JSON");
    }
}
