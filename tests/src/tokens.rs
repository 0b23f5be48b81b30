//! JSON web tokens and the keys that sign them, made at run time.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256};
use serde_json::{Value, json};

/// A signing key with its public half.
#[derive(Debug)]
pub struct Key {
    pub private_pem: String,
    pub public_pem: String,
}

impl Key {
    fn of(pair: Result<KeyPair, rcgen::Error>) -> Key {
        let pair = pair.expect("a key");
        Key { private_pem: pair.serialize_pem(), public_pem: pair.public_key_pem() }
    }
}

/// The keys of the tests, one of each kind, and a second RSA key that nobody trusts.
#[derive(Debug)]
pub struct Keys {
    pub rsa: Key,
    pub stranger: Key,
    pub p256: Key,
    pub p384: Key,
    pub ed25519: Key,
    /// Shared secret of the HS algorithms, long enough for all three.
    pub secret: String,
}

/// The keys, made once a process.
pub fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| Keys {
        rsa: Key::of(KeyPair::generate_for(&PKCS_RSA_SHA256)),
        stranger: Key::of(KeyPair::generate_for(&PKCS_RSA_SHA256)),
        p256: Key::of(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)),
        p384: Key::of(KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384)),
        ed25519: Key::of(KeyPair::generate_for(&PKCS_ED25519)),
        secret: "0123456789abcdef".repeat(4),
    })
}

impl Keys {
    /// The key for signing with an algorithm.
    ///
    /// # Panics
    /// When the key has no such form.
    pub fn signer(&self, algorithm: Algorithm) -> EncodingKey {
        let key = match algorithm {
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => {
                return EncodingKey::from_secret(self.secret.as_bytes());
            }
            Algorithm::ES256 => EncodingKey::from_ec_pem(self.p256.private_pem.as_bytes()),
            Algorithm::ES384 => EncodingKey::from_ec_pem(self.p384.private_pem.as_bytes()),
            Algorithm::EdDSA => EncodingKey::from_ed_pem(self.ed25519.private_pem.as_bytes()),
            _ => EncodingKey::from_rsa_pem(self.rsa.private_pem.as_bytes()),
        };
        key.expect("a signing key")
    }

    /// What a configuration holds to verify an algorithm: key of the map and its text.
    pub fn verifier(&self, algorithm: Algorithm) -> (&'static str, &str) {
        match algorithm {
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => ("secret", &self.secret),
            Algorithm::ES256 => ("rsa_public_key", &self.p256.public_pem),
            Algorithm::ES384 => ("rsa_public_key", &self.p384.public_pem),
            Algorithm::EdDSA => ("rsa_public_key", &self.ed25519.public_pem),
            _ => ("rsa_public_key", &self.rsa.public_pem),
        }
    }
}

/// Every algorithm that the gateway has to accept.
pub const ALGORITHMS: [Algorithm; 12] = [
    Algorithm::HS256,
    Algorithm::HS384,
    Algorithm::HS512,
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// Seconds since 1970, moved by `offset`.
pub fn now(offset: i64) -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    i64::try_from(elapsed.as_secs()).expect("a clock before the year 292 billion") + offset
}

/// Claims of an issuer that hold for five minutes.
pub fn claims(issuer: &str) -> Value {
    json!({ "iss": issuer, "exp": now(300) })
}

/// A token signed with the right key of [`keys`].
///
/// # Panics
/// When signing fails.
pub fn token(algorithm: Algorithm, claims: &Value) -> String {
    signed(algorithm, claims, &keys().signer(algorithm))
}

/// A token signed with a given key.
///
/// # Panics
/// When signing fails.
pub fn signed(algorithm: Algorithm, claims: &Value, key: &EncodingKey) -> String {
    jsonwebtoken::encode(&Header::new(algorithm), claims, key).expect("signing a token")
}

/// A token from raw parts, for the ones no library would make.
pub fn forged(header: &Value, claims: &Value, signature: &[u8]) -> String {
    let text = |value: &Value| base64url(value.to_string().as_bytes());
    format!("{}.{}.{}", text(header), text(claims), base64url(signature))
}

/// Base64 with the URL alphabet and no padding (RFC 7515 section 2).
pub fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let word =
            group.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for digit in 0..=group.len() {
            out.push(ALPHABET[(word >> (18 - 6 * digit)) as usize & 63] as char);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64url_of_rfc_4648() {
        for (plain, coded) in [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foob", "Zm9vYg")] {
            assert_eq!(base64url(plain.as_bytes()), coded);
        }
        assert_eq!(base64url(&[0xfb, 0xff]), "-_8");
    }

    #[test]
    fn every_algorithm_signs() {
        for algorithm in ALGORITHMS {
            assert_eq!(token(algorithm, &claims("me")).split('.').count(), 3, "{algorithm:?}");
        }
    }
}
