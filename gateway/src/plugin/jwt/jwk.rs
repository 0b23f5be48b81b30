//! JSON web keys and sets of them (RFC 7517, RFC 7518 section 6, RFC 8037 section 2).
//!
//! Owns the reading of public keys and shared secrets that come as JSON, and the check of a signature with one. Never
//! looks at claims, and never uses a private member of a key.
//!
//! | `kty` | algorithms |
//! |---|---|
//! | `RSA` | its `alg`; else any RS or PS |
//! | `EC` | the one of its `crv` |
//! | `OKP` | EdDSA, for `Ed25519` |
//! | `oct` | its `alg`; else any HS, if the key is as long as the hash |
//!
//! **Invariant.** A key checks signatures of its own family only, of its own `alg` where it has one, and none at all
//! where its `use` or `key_ops` speak of something else.

use std::collections::HashMap;
use std::mem::discriminant;

use aws_lc_rs::signature::{ECDSA_P521_SHA512_FIXED, UnparsedPublicKey};
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use portcullis_config::JwtAlgorithm;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::keys::{RSA_BITS, library_name};
use super::roca;
use super::token::{self, Alphabet, Compact, Members, Value, base64};

/// Most keys of a set that are looked at.
pub const KEYS_MAX: usize = 256;

/// A key that signatures are checked with.
pub struct Jwk {
    pub kid: Option<Box<str>>,
    family: Family,
    algorithm: Option<JwtAlgorithm>,
    material: Material,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Rsa,
    P256,
    P384,
    P521,
    Ed25519,
    /// A shared secret of so many octets.
    Shared(usize),
}

enum Material {
    Library(DecodingKey),
    /// An uncompressed point, which the library cannot use.
    P521(Vec<u8>),
}

/// Why a key cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// It breaks the rules.
    Wrong(&'static str),
    /// Its kind is not done here.
    Unsupported(&'static str),
}

/// What `jwt verify` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The signature is the key's.
    Good,
    Bad,
    /// A key, an algorithm or a form that is not done here.
    Unsupported,
}

impl Jwk {
    /// Reads one key.
    ///
    /// # Errors
    /// See [`Unusable`].
    pub fn parse(json: &[u8]) -> Result<Self, Unusable> {
        use Unusable::{Unsupported, Wrong};
        let members = Members::parse(json).ok_or(Wrong("no JSON object, or a member twice"))?;
        let text = |name| match members.get(name) {
            Some(Value::Text(text)) => Ok(Some(&**text)),
            None => Ok(None),
            Some(_) => Err(Wrong("a member is no text")),
        };
        let needed = |name| text(name)?.ok_or(Wrong("a member is missing"));
        if text("use")?.is_some_and(|what| what != "sig") {
            return Err(Wrong("not a key for signatures"));
        }
        check_operations(json)?;
        let octets = |name| base64(needed(name)?.as_bytes(), Alphabet::Url).ok_or(Wrong("no base64url"));
        let library = |key: jsonwebtoken::errors::Result<DecodingKey>| {
            key.map(Material::Library).map_err(|_| Wrong("no such key"))
        };
        let (family, material) = match (needed("kty")?, text("crv")?) {
            ("RSA", _) => {
                check_modulus(&octets("n")?)?;
                octets("e")?;
                (Family::Rsa, library(DecodingKey::from_rsa_components(needed("n")?, needed("e")?))?)
            }
            ("EC", Some(curve @ ("P-256" | "P-384" | "P-521"))) => {
                let (family, len) = match curve {
                    "P-256" => (Family::P256, 32),
                    "P-384" => (Family::P384, 48),
                    _ => (Family::P521, 66),
                };
                let (x, y) = (octets("x")?, octets("y")?);
                if x.len() != len || y.len() != len {
                    return Err(Wrong("a coordinate has not the curve's length"));
                }
                let material = match family {
                    Family::P521 => Material::P521([&[4][..], &x, &y].concat()),
                    _ => library(DecodingKey::from_ec_components(needed("x")?, needed("y")?))?,
                };
                (family, material)
            }
            ("OKP", Some("Ed25519")) => {
                if octets("x")?.len() != 32 {
                    return Err(Wrong("a key of Ed25519 has 32 octets"));
                }
                (Family::Ed25519, library(DecodingKey::from_ed_components(needed("x")?))?)
            }
            ("oct", _) => {
                let secret = octets("k")?;
                let material = Material::Library(DecodingKey::from_secret(&secret));
                (Family::Shared(secret.len()), material)
            }
            ("EC" | "OKP", None) => return Err(Wrong("no curve")),
            ("EC" | "OKP", Some(_)) => return Err(Unsupported("this curve is not supported")),
            _ => return Err(Unsupported("this kind of key is not supported")),
        };
        let algorithm = match text("alg")? {
            None => None,
            Some(word) => Some(algorithm_of(word).ok_or(Unsupported("this algorithm is not supported"))?),
        };
        let key = Self { kid: text("kid")?.map(Into::into), family, algorithm, material };
        match algorithm {
            Some(algorithm) if !key.fits(algorithm) => Err(Wrong("the algorithm is not for this key")),
            _ => Ok(key),
        }
    }

    /// Whether the key checks signatures of this algorithm.
    pub fn fits(&self, algorithm: JwtAlgorithm) -> bool {
        use JwtAlgorithm as A;
        if self.algorithm.is_some_and(|own| own != algorithm) {
            return false;
        }
        match self.family {
            Family::Rsa => {
                matches!(algorithm, A::Rs256 | A::Rs384 | A::Rs512 | A::Ps256 | A::Ps384 | A::Ps512)
            }
            Family::P256 => algorithm == A::Es256,
            Family::P384 => algorithm == A::Es384,
            Family::P521 => algorithm == A::Es512,
            Family::Ed25519 => algorithm == A::EdDsa,
            // RFC 7518 section 3.2: a key of the same size as the hash or larger MUST be used.
            Family::Shared(len) => match algorithm {
                A::Hs256 => len >= 32,
                A::Hs384 => len >= 48,
                A::Hs512 => len >= 64,
                _ => false,
            },
        }
    }

    /// Whether it is a secret, which nobody publishes.
    pub fn is_shared(&self) -> bool {
        matches!(self.family, Family::Shared(_))
    }

    /// Whether `signature`, in base64url, is this key's for `signed` under `algorithm`.
    pub fn verify(&self, algorithm: JwtAlgorithm, signed: &[u8], signature: &str) -> bool {
        if !self.fits(algorithm) {
            return false;
        }
        match &self.material {
            Material::Library(key) => library_name(algorithm).is_some_and(|name: Algorithm| {
                base64(signature.as_bytes(), Alphabet::Url).is_some()
                    && crypto::verify(signature, signed, key, name).unwrap_or(false)
            }),
            Material::P521(point) => base64(signature.as_bytes(), Alphabet::Url).is_some_and(|octets| {
                UnparsedPublicKey::new(&ECDSA_P521_SHA512_FIXED, point).verify(signed, &octets).is_ok()
            }),
        }
    }
}

/// The algorithm for a word, those of RFC 9864 included.
fn algorithm_of(word: &str) -> Option<JwtAlgorithm> {
    if word == "Ed25519" { Some(JwtAlgorithm::EdDsa) } else { JwtAlgorithm::from_word(word) }
}

fn check_modulus(modulus: &[u8]) -> Result<(), Unusable> {
    use Unusable::Wrong;
    let first = *modulus.first().ok_or(Wrong("no modulus"))?;
    let bits = modulus.len() * 8 - first.leading_zeros() as usize;
    if first == 0 || !RSA_BITS.contains(&bits) {
        return Err(Wrong("an RSA key must have 2048 to 8192 bits"));
    }
    match roca::is_weak(modulus) {
        true => Err(Wrong("the RSA key is of a chip that made weak ones")),
        false => Ok(()),
    }
}

/// RFC 7517 section 4.3.
fn check_operations(json: &[u8]) -> Result<(), Unusable> {
    #[derive(Deserialize)]
    struct Operations {
        key_ops: Option<Vec<String>>,
    }
    let operations: Operations =
        serde_json::from_slice(json).map_err(|_| Unusable::Wrong("`key_ops` is no list of texts"))?;
    match operations.key_ops {
        Some(list) if !list.iter().any(|one| one == "verify") => {
            Err(Unusable::Wrong("not a key to verify with"))
        }
        _ => Ok(()),
    }
}

/// The keys of a set, in its order; those that cannot be used are passed over (RFC 7517 section 5). Among them are secrets
/// that stand beside public keys, as they are published, and keys of one kind under one name, of which nobody knows which
/// is meant.
pub fn parse_set(json: &[u8]) -> Option<Vec<Result<Jwk, Unusable>>> {
    #[derive(Deserialize)]
    struct Set<'a> {
        #[serde(borrow)]
        keys: Vec<&'a RawValue>,
    }
    let set: Set<'_> = serde_json::from_slice(json).ok()?;
    let mut keys: Vec<_> =
        set.keys.into_iter().take(KEYS_MAX).map(|key| Jwk::parse(key.get().as_bytes())).collect();
    let usable = || keys.iter().flatten();
    let mixed = usable().any(Jwk::is_shared) && usable().any(|key| !key.is_shared());
    let mut names = HashMap::new();
    for key in usable() {
        if let Some(kid) = &key.kid {
            *names.entry((kid.clone(), discriminant(&key.family))).or_insert(0) += 1;
        }
    }
    for key in &mut keys {
        let Ok(known) = key else { continue };
        if mixed && known.is_shared() {
            *key = Err(Unusable::Wrong("a secret among public keys"));
        } else if known.kid.clone().is_some_and(|kid| names[&(kid, discriminant(&known.family))] > 1) {
            *key = Err(Unusable::Wrong("another key has the same kid"));
        }
    }
    Some(keys)
}

/// Checks the signature of a token in compact form (RFC 7515 section 5.2), whatever its payload. `key` is a key or a set
/// of keys in JSON.
pub fn judge(key: &[u8], token: &[u8]) -> Verdict {
    let keys = match parse_set(key) {
        Some(keys) => keys,
        None => vec![Jwk::parse(key)],
    };
    // Five parts are an encrypted token (RFC 7516), which is another thing.
    if token.iter().filter(|&&byte| byte == b'.').count() == 4 {
        return Verdict::Unsupported;
    }
    let Ok(token) = Compact::split(token) else { return Verdict::Bad };
    let Ok(header) = token.header() else { return Verdict::Bad };
    let algorithm = match algorithm_in(&header) {
        Ok(algorithm) => algorithm,
        Err(verdict) => return verdict,
    };
    let named = match header.get("kid") {
        None => None,
        Some(Value::Text(kid)) => Some(&**kid),
        Some(_) => return Verdict::Bad,
    };
    let mut verdict = Verdict::Bad;
    let alone = keys.len() == 1;
    for key in &keys {
        match key {
            Ok(key) => {
                let meant = alone || named.is_none() || key.kid.as_deref() == named;
                if meant && key.verify(algorithm, token.signed, token.signature) {
                    return Verdict::Good;
                }
            }
            Err(Unusable::Unsupported(_)) => verdict = Verdict::Unsupported,
            Err(Unusable::Wrong(_)) => {}
        }
    }
    verdict
}

/// The algorithm that a header asks for, by the rules of the `jwt` plugin.
fn algorithm_in(header: &Members<'_>) -> Result<JwtAlgorithm, Verdict> {
    /// Registered, and not done here.
    const OTHERS: [&str; 3] = ["ES256K", "Ed448", "ML-DSA-44"];
    let word = match header.get("alg") {
        Some(Value::Text(word)) => &**word,
        _ => return Err(Verdict::Bad),
    };
    // RFC 7797: the payload is not encoded, and says so in `crit`.
    if matches!(header.get("b64"), Some(Value::Bool(false))) && header.get("crit").is_some() {
        return Err(Verdict::Unsupported);
    }
    token::check_extensions(header).map_err(|_| Verdict::Bad)?;
    let unknown = if OTHERS.contains(&word) { Verdict::Unsupported } else { Verdict::Bad };
    algorithm_of(word).ok_or(unknown)
}

#[cfg(test)]
#[path = "jwk_tests.rs"]
mod tests;
