//! Consumers and their credentials.

use std::time::Duration;

use crate::secret::Secret;
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

/// An API key (Kong `keyauth_credentials`).
#[derive(Clone, Debug)]
pub struct KeyCredential {
    /// Kong's id, sent on as `X-Credential-Identifier`.
    pub id: Option<String>,
    /// The key.
    pub key: Secret,
    /// Life of the key from the load of the configuration; `None` for ever.
    pub ttl: Option<Duration>,
    /// Free labels.
    pub tags: Vec<String>,
    /// Where it was written.
    pub origin: Origin,
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
