//! `portcullis jwt verify`: tokens that RFCs print, and tokens made to be let in by somebody who must not be (RFC 8725
//! section 2). The same classes through the `jwt` plugin are in its unit tests and in `auth`.

use std::io::Write;
use std::process::{Command, Stdio};

use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use portcullis_tests::gateway::binary;
use portcullis_tests::tokens::{base64url, keys};
use serde_json::{Value, json};

/// What the command says to each line.
fn verify(lines: &[String]) -> Vec<String> {
    let mut child = Command::new(binary())
        .args(["jwt", "verify"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut input = child.stdin.take().expect("a pipe");
    let text = lines.join("\n") + "\n";
    // Beside the reading, or both would wait for each other.
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("a thread").expect("it reads everything");
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().map(str::to_owned).collect()
}

#[test]
fn tokens_that_rfcs_print() {
    let text = include_str!("../data/jws.jsonl");
    let mut lines = Vec::new();
    let mut expected = Vec::new();
    for line in text.lines() {
        let vector: Value = serde_json::from_str(line).expect("a vector");
        let (from, token) = (vector["from"].to_string(), vector["token"].as_str().expect("a token"));
        let word = vector["expect"].as_str().expect("a word").to_owned();
        lines.push(line.to_owned());
        expected.push((from.clone(), word));
        // Every part counts.
        for part in 0..3 {
            let mut parts: Vec<_> = token.split('.').map(str::to_owned).collect();
            let middle = parts[part].len() / 2;
            let other = if parts[part].as_bytes().get(middle) == Some(&b'A') { "B" } else { "A" };
            if parts[part].is_empty() {
                continue;
            }
            parts[part].replace_range(middle..=middle, other);
            lines.push(json!({"key": vector["key"], "token": parts.join(".")}).to_string());
            expected.push((format!("{from}, part {part} changed"), "no".to_owned()));
        }
    }
    let said = verify(&lines);
    assert_eq!(said.len(), expected.len());
    for (said, (from, word)) in said.iter().zip(expected) {
        assert_eq!(*said, word, "{from}");
    }
}

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn secret_key() -> Value {
    json!({"kty": "oct", "k": base64url(SECRET)})
}

/// A token whose HMAC is good under `secret`, whatever its header says.
fn signed(header: &str, payload: &[u8], secret: &[u8]) -> String {
    let signed = format!("{}.{}", base64url(header.as_bytes()), base64url(payload));
    let key = EncodingKey::from_secret(secret);
    let signature = crypto::sign(signed.as_bytes(), &key, Algorithm::HS256).expect("a signature");
    format!("{signed}.{signature}")
}

/// Name, key, token, and what is to be said of it.
type Case = (String, Value, String, &'static str);

fn headers() -> Vec<Case> {
    let with = |header: &str| signed(header, b"{}", SECRET);
    let mut cases = Vec::new();
    for (header, word) in [
        (r#"{"alg":"HS256"}"#, "ok"),
        (r#"{"alg":"HS256","typ":"JWT"}"#, "ok"),
        (r#"{"alg":"none"}"#, "no"),
        (r#"{"alg":"None"}"#, "no"),
        (r#"{"alg":"hs256"}"#, "no"),
        (r#"{"alg":""}"#, "no"),
        (r#"{"alg":["HS256"]}"#, "no"),
        (r#"{}"#, "no"),
        (r#"[]"#, "no"),
        (r#"{"alg":"none","alg":"HS256"}"#, "no"),
        (r#"{"alg":"HS512"}"#, "no"),
        (r#"{"alg":"RS256"}"#, "no"),
        (r#"{"alg":"HS256","crit":["exp"],"exp":1}"#, "no"),
        (r#"{"alg":"HS256","crit":[]}"#, "no"),
        (r#"{"alg":"HS256","crit":["b64"],"b64":false}"#, "unsupported"),
        (r#"{"alg":"HS256","b64":false}"#, "no"),
        (r#"{"alg":"HS256","kid":7}"#, "no"),
        (r#"{"alg":"HS256""#, "no"),
    ] {
        cases.push((header.to_owned(), secret_key(), with(header), word));
    }
    // What the token brings along is no key.
    let own = b"a secret of the attacker, long enough to be one";
    for extra in [
        format!(r#""jwk":{{"kty":"oct","k":"{}"}}"#, base64url(own)),
        r#""jku":"https://evil.example/keys""#.to_owned(),
        r#""x5u":"https://evil.example/cert""#.to_owned(),
        r#""x5c":["MIIB"]"#.to_owned(),
        r#""kid":"../../../dev/null""#.to_owned(),
        r#""kid":"x' UNION SELECT 'y""#.to_owned(),
    ] {
        let header = format!(r#"{{"alg":"HS256",{extra}}}"#);
        cases.push((
            format!("{header}, the attacker's key"),
            secret_key(),
            signed(&header, b"{}", own),
            "no",
        ));
        cases.push((format!("{header}, an empty key"), secret_key(), signed(&header, b"{}", b""), "no"));
    }
    cases
}

fn confusions() -> Vec<Case> {
    let pem = keys().rsa.public_pem.as_bytes();
    let body: String = keys().rsa.public_pem.lines().filter(|line| !line.starts_with('-')).collect();
    let n = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-\
             pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2\
             CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW\
             9gb54h4FRWyuXpoQ";
    let rsa = json!({"kty": "RSA", "n": n, "e": "AQAB"});
    let mut cases = Vec::new();
    // A public key is public: it must not be a secret.
    for secret in [pem, body.as_bytes(), n.as_bytes(), rsa.to_string().as_bytes()] {
        for alg in ["HS256", "RS256"] {
            let header = format!(r#"{{"alg":"{alg}"}}"#);
            cases.push((
                format!("{alg} under a public key"),
                rsa.clone(),
                signed(&header, b"{}", secret),
                "no",
            ));
        }
    }
    let hs = signed(r#"{"alg":"HS256"}"#, b"{}", SECRET);
    for (name, key, word) in [
        ("of another algorithm", json!({"kty": "oct", "alg": "HS512", "k": base64url(SECRET)}), "no"),
        ("for encryption", json!({"kty": "oct", "use": "enc", "k": base64url(SECRET)}), "no"),
        ("too short", json!({"kty": "oct", "k": base64url(b"short")}), "no"),
        ("of an unknown kind", json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AA"}), "unsupported"),
        ("on another curve", json!({"kty": "EC", "crv": "secp256k1", "x": "", "y": ""}), "unsupported"),
        ("among public keys", json!({"keys": [{"kty": "oct", "k": base64url(SECRET)}, rsa]}), "no"),
    ] {
        cases.push((format!("a key {name}"), key, hs.clone(), word));
    }
    cases
}

fn bytes() -> Vec<Case> {
    let good = signed(r#"{"alg":"HS256"}"#, b"{}", SECRET);
    let [header, body, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!("three parts") };
    let deep = format!(r#"{{"alg":"HS256","x":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let huge = vec![b'x'; 1 << 20];
    let mut cases: Vec<Case> = [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        format!("{header}.{body}"),
        format!("{header}.{body}."),
        format!("{good}.x"),
        format!("{good}="),
        format!("{good}\n"),
        format!(" {good}"),
        format!("{header}=.{body}.{signature}"),
        format!("{header}.{body} .{signature}"),
        format!("{header}.{body}.{}", signature.replace(['-', '_'], "+")) + "+",
        format!("{header}.{body}.{}", &signature[1..]),
        format!("{body}.{header}.{signature}"),
    ]
    .into_iter()
    .map(|token| (format!("{token:?}"), secret_key(), token, "no"))
    .collect();
    cases.push(("an encrypted token".into(), secret_key(), "a.b.c.d.e".into(), "unsupported"));
    cases.push((
        "a huge token, well signed".into(),
        secret_key(),
        signed(r#"{"alg":"HS256"}"#, &huge, SECRET),
        "ok",
    ));
    cases.push((
        "a payload that is no claims".into(),
        secret_key(),
        signed(r#"{"alg":"HS256"}"#, b"{", SECRET),
        "ok",
    ));
    cases.push((
        "a huge token of another".into(),
        secret_key(),
        signed(r#"{"alg":"HS256"}"#, &huge, b"x"),
        "no",
    ));
    // However deep, it ends in an answer.
    cases.push(("a deep header of another".into(), secret_key(), signed(&deep, b"{}", b"x"), "no"));
    cases
}

#[test]
fn tokens_made_to_get_in() {
    let cases: Vec<_> = [headers(), confusions(), bytes()].concat();
    let line = |(_, key, token, _): &Case| json!({"key": key, "token": token}).to_string();
    let said = verify(&cases.iter().map(line).collect::<Vec<_>>());
    assert_eq!(said.len(), cases.len());
    let wrong: Vec<_> = said.iter().zip(&cases).filter(|(said, case)| *said != case.3).collect();
    let wrong: Vec<_> =
        wrong.iter().map(|(said, case)| format!("{}: {said}, not {}", case.0, case.3)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
