//! Keys and signatures as the RFCs print them, and what is no key.

use super::*;

/// RFC 7515 appendix A.1.
const HS_KEY: &str = r#"{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}"#;
const HS_TOKEN: &str = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
/// RFC 7515 appendix A.3.
const EC_KEY: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
const EC_TOKEN: &str = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
/// RFC 7515 appendix A.4: P-521, over a payload that is no JSON.
const P521_KEY: &str = r#"{"kty":"EC","crv":"P-521","x":"AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk","y":"ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2"}"#;
const P521_TOKEN: &str = "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA.AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn";
/// RFC 8037 appendix A.4.
const ED_KEY: &str = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
const ED_TOKEN: &str = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";

fn said(key: &str, token: &str) -> Verdict {
    judge(key.as_bytes(), token.as_bytes())
}

/// A token with this header and the rest of another.
fn with_header(header: &str, token: &str) -> String {
    let encoded = crate::plugin::jwt::tests::encode(header.as_bytes());
    format!("{encoded}{}", &token[token.find('.').expect("a token")..])
}

#[test]
fn what_the_rfcs_print() {
    for (key, token) in [(HS_KEY, HS_TOKEN), (EC_KEY, EC_TOKEN), (P521_KEY, P521_TOKEN), (ED_KEY, ED_TOKEN)] {
        assert_eq!(said(key, token), Verdict::Good, "{key}");
        let set = format!("{{\"keys\":[{{\"kty\":\"RSA\"}},{key}]}}");
        assert_eq!(said(&set, token), Verdict::Good, "{set}");
        // One bit in the middle of the signature.
        let mut broken = token.as_bytes().to_vec();
        let at = broken.len() - 20;
        broken[at] = if broken[at] == b'A' { b'B' } else { b'A' };
        assert_eq!(judge(key.as_bytes(), &broken), Verdict::Bad, "{key}");
        for (other, _) in [(HS_KEY, 0), (EC_KEY, 0), (P521_KEY, 0), (ED_KEY, 0)] {
            let expected = if other == key { Verdict::Good } else { Verdict::Bad };
            assert_eq!(said(other, token), expected, "{other} {token}");
        }
    }
}

#[test]
fn headers_that_are_refused() {
    for (header, expected) in [
        (r#"{"alg":"none"}"#, Verdict::Bad),
        (r#"{"alg":"None"}"#, Verdict::Bad),
        (r#"{"alg":"HS384"}"#, Verdict::Bad),
        (r#"{"alg":1}"#, Verdict::Bad),
        ("{}", Verdict::Bad),
        (r#"{"alg":"ES256K"}"#, Verdict::Unsupported),
        (r#"{"alg":"HS256","crit":["x"],"x":1}"#, Verdict::Bad),
        (r#"{"alg":"HS256","b64":false}"#, Verdict::Bad),
        (r#"{"alg":"HS256","b64":false,"crit":["b64"]}"#, Verdict::Unsupported),
        (r#"{"alg":"HS256","alg":"HS256"}"#, Verdict::Bad),
        (r#"{"alg":"HS256","kid":1}"#, Verdict::Bad),
        (r#"{"alg":"HS256","kid":"../../dev/null"}"#, Verdict::Bad),
        (r#"{"alg":"HS256","jwk":{"kty":"oct","k":""}}"#, Verdict::Bad),
    ] {
        assert_eq!(said(HS_KEY, &with_header(header, HS_TOKEN)), expected, "{header}");
    }
    assert_eq!(said(HS_KEY, "a.b.c.d.e"), Verdict::Unsupported);
    for token in ["", ".", "..", "a.b", &HS_TOKEN[..HS_TOKEN.len() - 1], &format!("{HS_TOKEN}=")] {
        assert_eq!(said(HS_KEY, token), Verdict::Bad, "{token}");
    }
}

#[test]
fn keys_that_are_not_for_this() {
    let with = |members: &str| HS_KEY.replace("{\"kty\"", &format!("{{{members},\"kty\""));
    for (members, expected) in [
        (r#""alg":"HS256""#, Verdict::Good),
        (r#""use":"sig""#, Verdict::Good),
        (r#""key_ops":["verify","sign"]"#, Verdict::Good),
        (r#""kid":"other""#, Verdict::Good),
        (r#""alg":"HS512""#, Verdict::Bad),
        (r#""alg":"RS256""#, Verdict::Bad),
        (r#""alg":"A128KW""#, Verdict::Unsupported),
        (r#""use":"enc""#, Verdict::Bad),
        (r#""key_ops":["sign"]"#, Verdict::Bad),
        (r#""key_ops":"verify""#, Verdict::Bad),
        (r#""kty":"oct""#, Verdict::Bad),
    ] {
        assert_eq!(said(&with(members), HS_TOKEN), expected, "{members}");
    }
    for (key, expected) in [
        ("", Verdict::Bad),
        ("[]", Verdict::Bad),
        ("{}", Verdict::Bad),
        (r#"{"keys":[]}"#, Verdict::Bad),
        (r#"{"kty":"oct","k":"c2hvcnQ"}"#, Verdict::Bad),
        (r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#, Verdict::Bad),
        (r#"{"kty":"EC","crv":"secp256k1","x":"","y":""}"#, Verdict::Unsupported),
        (r#"{"kty":"AKP"}"#, Verdict::Unsupported),
    ] {
        assert_eq!(said(key, HS_TOKEN), expected, "{key}");
    }
}

#[test]
fn a_set_is_asked_for_the_key_that_is_named() {
    let set = |kid: &str| {
        let named = HS_KEY.replace("{\"kty\"", &format!("{{\"kid\":\"{kid}\",\"kty\""));
        let other = r#"{"kty":"oct","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#;
        format!("{{\"keys\":[{other},{named}]}}")
    };
    assert_eq!(said(&set("a"), HS_TOKEN), Verdict::Good, "a token without a name");
    let keys = parse_set(set("a").as_bytes()).expect("a set");
    let kids: Vec<_> = keys.iter().flatten().map(|key| key.kid.as_deref()).collect();
    assert_eq!(kids, [None, Some("a")]);
}

#[test]
fn sets_that_leave_open_what_is_meant() {
    let named = |kid: &str| HS_KEY.replace("{\"kty\"", &format!("{{\"kid\":\"{kid}\",\"kty\""));
    let set = |keys: &[&str]| format!("{{\"keys\":[{}]}}", keys.join(","));
    let (one, other) = (named("a"), named("b"));
    assert_eq!(said(&set(&[&one, &other]), HS_TOKEN), Verdict::Good);
    assert_eq!(said(&set(&[&one, &one]), HS_TOKEN), Verdict::Bad, "two keys of one name");
    assert_eq!(said(&set(&[EC_KEY, &one]), HS_TOKEN), Verdict::Bad, "a secret that is published");
    let ec = EC_KEY.replace("{\"kty\"", "{\"kid\":\"a\",\"kty\"");
    let keys = parse_set(set(&[&ec, &one]).as_bytes()).expect("a set");
    assert_eq!(keys.iter().flatten().count(), 1, "the public one stays");
}
