//! Consumers and their credentials.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::secret::{MASK, Secret};
use crate::source::Origin;

/// A known client (Kong `consumers`). One of `username` and `custom_id` is always present.
#[derive(Clone, Debug)]
pub struct Consumer {
    /// The name; unique among those given.
    pub username: Option<String>,
    /// The name in the operator's own system; unique among those given.
    pub custom_id: Option<String>,
    /// Kong's id.
    pub id: Option<String>,
    /// Groups for `acl`, from `acls`, without repetition.
    pub groups: Vec<String>,
    /// Kong's consumer groups, from `groups`. Kept; they are no groups in the sense of `acl`.
    pub consumer_groups: Vec<String>,
    /// Keys for `key-auth`, no key twice in the whole configuration.
    pub keys: Vec<KeyCredential>,
    /// Keys for `jwt`, no `key` twice in the whole configuration.
    pub jwt_secrets: Vec<JwtCredential>,
    /// Passwords for `basic-auth`.
    pub basic: Vec<BasicCredential>,
    /// Secrets for `hmac-auth`.
    pub hmac: Vec<HmacCredential>,
    /// Free labels.
    pub tags: Vec<String>,
    /// Where it was written.
    pub origin: Origin,
}

impl Consumer {
    /// The name to show: `username`, else `custom_id`.
    pub fn name(&self) -> &str {
        self.username.as_deref().or(self.custom_id.as_deref()).unwrap_or_default()
    }
}

/// An API key (Kong `keyauth_credentials`). There may be a million of them, so it is small and owns next to nothing.
#[derive(Clone, Debug)]
pub struct KeyCredential {
    /// What is kept of the key.
    pub hash: KeyHash,
    /// Life of the key from the load of the configuration, in seconds; 0 for ever.
    pub ttl: u32,
    /// Kong's id, sent on as `X-Credential-Identifier`.
    pub id: Option<Box<str>>,
}

/// The first half of the SHA-256 of an API key: keys are long and random, and 128 bits are as hard to hit as they are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyHash([u8; 16]);

impl KeyHash {
    /// Of a key.
    pub fn of(key: &[u8]) -> Self {
        let mut half = [0; 16];
        half.copy_from_slice(&Sha256::digest(key)[..16]);
        Self(half)
    }

    /// Of a key as the configuration writes it: itself, or `sha256:` and 64 hexadecimal digits. `None` where the digits
    /// are none.
    pub fn read(text: &str) -> Option<Self> {
        let Some(digits) = text.strip_prefix("sha256:") else { return Some(Self::of(text.as_bytes())) };
        if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        let mut half = [0; 16];
        for (at, byte) in half.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).ok()?;
        }
        Some(Self(half))
    }

    /// A number that differs between keys: the first bytes.
    pub fn number(self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// A key that JSON web tokens are verified with (Kong `jwt_secrets`).
#[derive(Clone, Debug)]
pub struct JwtCredential {
    /// Kong's id.
    pub id: Option<String>,
    /// The value of the token's key claim (`iss` unless the plugin says otherwise).
    pub key: String,
    /// The only algorithm accepted with this key.
    pub algorithm: JwtAlgorithm,
    /// What signatures are verified with, of the shape that `algorithm` needs.
    pub material: JwtMaterial,
    /// Free labels.
    pub tags: Vec<String>,
    /// Where it was written.
    pub origin: Origin,
}

/// Verification material of a [`JwtCredential`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwtMaterial {
    /// A shared secret, for HS algorithms.
    Secret(Secret),
    /// A public key or certificate in PEM, for the others (Kong calls it `rsa_public_key` whatever its kind).
    PublicKey(String),
}

/// Signature algorithms of RFC 7518 section 3.1 and RFC 8037.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
    /// RSA PKCS #1 v1.5 with SHA-256.
    Rs256,
    /// RSA PKCS #1 v1.5 with SHA-384.
    Rs384,
    /// RSA PKCS #1 v1.5 with SHA-512.
    Rs512,
    /// RSA PSS with SHA-256.
    Ps256,
    /// RSA PSS with SHA-384.
    Ps384,
    /// RSA PSS with SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// ECDSA on P-521 with SHA-512.
    Es512,
    /// Edwards curves.
    EdDsa,
}

impl JwtAlgorithm {
    /// Every algorithm, in the order of [`JwtAlgorithm::WORDS`].
    pub const ALL: [Self; 13] = [
        Self::Hs256,
        Self::Hs384,
        Self::Hs512,
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::Es512,
        Self::EdDsa,
    ];

    /// The words of the configuration and of a token's `alg`, in the order of [`JwtAlgorithm::ALL`].
    pub const WORDS: [&'static str; 13] = [
        "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384",
        "ES512", "EdDSA",
    ];

    /// The algorithm for a word of the configuration.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::WORDS.iter().position(|known| *known == word).map(|at| Self::ALL[at])
    }

    /// The word of the configuration.
    pub fn as_str(self) -> &'static str {
        Self::WORDS[self as usize]
    }

    /// Whether it works with a shared secret.
    pub fn is_symmetric(self) -> bool {
        matches!(self, Self::Hs256 | Self::Hs384 | Self::Hs512)
    }
}

/// A user name and password (Kong `basicauth_credentials`).
#[derive(Clone, Debug)]
pub struct BasicCredential {
    /// Kong's id.
    pub id: Option<String>,
    /// The user name.
    pub username: String,
    /// The password, as written.
    pub password: Secret,
    /// Free labels.
    pub tags: Vec<String>,
    /// Where it was written.
    pub origin: Origin,
}

/// A user name and signing secret (Kong `hmacauth_credentials`).
#[derive(Clone, Debug)]
pub struct HmacCredential {
    /// Kong's id.
    pub id: Option<String>,
    /// The user name.
    pub username: String,
    /// The secret.
    pub secret: Secret,
    /// Free labels.
    pub tags: Vec<String>,
    /// Where it was written.
    pub origin: Origin,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hashed_key_is_the_same_as_the_key_itself() {
        // printf %s secret-key | sha256sum
        let digest = "85dbe15d75ef9308c7ae0f33c7a324cc6f4bf519a2ed2f3027bd33c140a4f9aa";
        for digits in [digest.to_owned(), digest.to_uppercase()] {
            assert_eq!(KeyHash::read(&format!("sha256:{digits}")), Some(KeyHash::of(b"secret-key")));
        }
        assert_eq!(KeyHash::read("sha256"), Some(KeyHash::of(b"sha256")));
        assert_ne!(KeyHash::of(b"secret-key"), KeyHash::of(digest.as_bytes()));
        for wrong in ["sha256:", "sha256:xyz", &format!("sha256:{}", "g".repeat(64))] {
            assert_eq!(KeyHash::read(wrong), None, "{wrong}");
        }
        assert!(!format!("{:?}", KeyHash::of(b"x")).contains(|c: char| c.is_ascii_hexdigit()));
    }
}
