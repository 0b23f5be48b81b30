//! The tokens that the RFCs print, with their keys.

use portcullis_config::JwtMaterial;

use super::*;
use crate::plugin::consumer::Consumers;

/// Claims of RFC 7519 section 3.1 and RFC 7515 appendix A: `joe`, until 1300819380.
const CLAIMS: &str =
    "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
const EXPIRES: u64 = 1_300_819_380;

/// A DER element.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        len @ 0..128 => out.push(len as u8),
        len => out.extend([0x82, (len >> 8) as u8, len as u8]),
    }
    out.extend(content);
    out
}

/// A SubjectPublicKeyInfo in PEM, from the algorithm's identifiers and the key.
fn pem(identifiers: &[u8], key: &[u8]) -> String {
    let bits = [&[0], key].concat();
    let spki = der(0x30, &[der(0x30, identifiers), der(0x03, &bits)].concat());
    let mut text = encode(&spki).replace('-', "+").replace('_', "/");
    while !text.len().is_multiple_of(4) {
        text.push('=');
    }
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
}

fn decode(text: &str) -> Vec<u8> {
    token::base64(text.as_bytes(), token::Alphabet::Url).expect("base64url")
}

const RSA: &[u8] = &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0];
const P256: &[u8] = &[6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const ED25519: &[u8] = &[6, 3, 0x2b, 0x65, 0x70];

/// What the plugin says to joe's token a second before and at its end, with this credential.
fn joe(credential: &str, settings: &str, token: &str) -> [Option<String>; 2] {
    let text = format!(
        "consumers:\n- username: joe\n  jwt_secrets: [{{key: joe, {credential}}}]\n\
         plugins: [{{name: jwt, config: {{{settings}}}}}]\n"
    );
    [EXPIRES - 1, EXPIRES].map(|second| {
        let fixture = Fixture::new(&text).at(second);
        let (plugin, _) = fixture.plugin(0, None).expect("a good config");
        ask(&fixture, &plugin, token).map(|said| said.message.into_owned())
    })
}

#[track_caller]
fn holds_until_it_expires(credential: &str, settings: &str, token: &str) {
    assert_eq!(joe(credential, settings, token), [None, Some("token expired".to_owned())]);
    // One bit of the signature's middle.
    let mut other = token.to_owned().into_bytes();
    let at = other.len() - 20;
    other[at] = if other[at] == b'A' { b'B' } else { b'A' };
    let other = String::from_utf8(other).expect("text");
    assert_eq!(joe(credential, settings, &other)[0].as_deref(), Some("Invalid signature"));
}

#[test]
fn rfc7515_appendix_a1_hmac() {
    let secret = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
    let token = format!(
        "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{CLAIMS}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    );
    holds_until_it_expires(&format!("secret: {secret}"), "secret_is_base64: true", &token);
    // The same bytes in the other alphabet and with padding.
    let secret = secret.replace('-', "+").replace('_', "/") + "==";
    holds_until_it_expires(&format!("secret: {secret}"), "secret_is_base64: true", &token);
    assert_eq!(joe(&format!("secret: {secret}"), "", &token)[0].as_deref(), Some("Invalid signature"));
}

#[test]
fn rfc7515_appendix_a2_rsa() {
    let modulus = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-y\
                   RT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KX\
                   BdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9i\
                   aGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
    let signature = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9\
                     uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB\
                     _eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rq\
                     Vt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    let key = |modulus: &[u8]| {
        let modulus = der(2, &[&[0], modulus].concat());
        let pem = pem(RSA, &der(0x30, &[modulus, der(2, &[1, 0, 1])].concat()));
        format!("algorithm: RS256, rsa_public_key: {}", serde_json::Value::from(pem))
    };
    let credential = key(&decode(modulus));
    holds_until_it_expires(&credential, "", &format!("eyJhbGciOiJSUzI1NiJ9.{CLAIMS}.{signature}"));
    // Too short a key is said when the configuration is read, not by refusing every token.
    let found = findings(&key(&decode(modulus)[..128]), "");
    assert!(found.contains("the RSA key has 1024 bits"), "{found}");
}

#[test]
fn rfc7515_appendix_a3_ecdsa() {
    let x = decode("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU");
    let y = decode("x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0");
    let pem = pem(P256, &[&[4], &x[..], &y[..]].concat());
    let credential = format!("algorithm: ES256, rsa_public_key: {}", serde_json::Value::from(pem));
    let signature = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    holds_until_it_expires(&credential, "", &format!("eyJhbGciOiJFUzI1NiJ9.{CLAIMS}.{signature}"));
}

#[test]
fn rfc7519_section_6_1_unsecured() {
    let token = format!("eyJhbGciOiJub25lIn0.{CLAIMS}.");
    let said = joe(&format!("secret: {SECRET}"), "claims_to_verify: []", &token);
    assert_eq!(said[0].as_deref(), Some("Bad token; invalid alg"));
}

#[test]
fn rfc7515_appendix_e_critical() {
    let header = "eyJhbGciOiJub25lIiwNCiAiY3JpdCI6WyJodHRwOi8vZXhhbXBsZS5jb20vVU5ERUZJTkVEIl0sDQogImh0dHA6Ly9leGFtcGxl\
                  LmNvbS9VTkRFRklORUQiOnRydWUNCn0";
    let said = joe(&format!("secret: {SECRET}"), "", &format!("{header}.RkFJTA."));
    assert_eq!(said[0].as_deref(), Some("Bad token; unknown critical header parameter"));
}

#[test]
fn rfc7797_section_4_unencoded() {
    let header = "eyJhbGciOiJIUzI1NiIsImI2NCI6ZmFsc2UsImNyaXQiOlsiYjY0Il19";
    let token = format!("{header}.{CLAIMS}.A5dxf2s96_n5FLueVuW1Z_vh161FwXZC4YLPff6dmDY");
    let said = joe(&format!("secret: {SECRET}"), "", &token);
    assert_eq!(said[0].as_deref(), Some("Bad token; unknown critical header parameter"));
}

#[test]
fn rfc8037_appendix_a4_ed25519() {
    // The payload is no JSON, so this one is for the key alone.
    let pem = pem(ED25519, &decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"));
    let pem = serde_json::Value::from(pem);
    let fixture = Fixture::new(&format!(
        "consumers:\n- username: joe\n  jwt_secrets: [{{key: joe, algorithm: EdDSA, rsa_public_key: {pem}}}]\n"
    ));
    let settings = &fixture.config.consumers[0].jwt_secrets[0];
    assert!(matches!(settings.material, JwtMaterial::PublicKey(_)));
    let consumers: &Consumers = &fixture.consumers;
    let keys = consumers.jwt_keys(false, &Diagnostics::new(fixture.config.sources.clone()));
    let key = keys.get("joe").expect("a usable key");
    let signed = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    let signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    assert!(key.verify(signed.as_bytes(), signature));
    assert!(!key.verify(&signed.as_bytes()[1..], signature));
    assert!(!key.verify(signed.as_bytes(), &signature.replace('g', "h")));
}
