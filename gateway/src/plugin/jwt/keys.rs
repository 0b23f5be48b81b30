//! The keys that tokens are signed with, each with the one algorithm it is for.
//!
//! Owns the conversion of a credential's key material and the check of signatures; the only place that names the
//! library for them. Never sees a claim.
//!
//! **Invariant.** A key is used with the algorithm of its credential and with no other: not even its material is of a
//! shape that another family would take.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::LazyLock;

use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use portcullis_config::{Diagnostics, Fault, JwtAlgorithm, JwtMaterial};

use super::roca;
use super::token::{Alphabet, base64};
use crate::plugin::consumer::{CredentialRef, JwtSecret};

/// Sizes of RSA keys that signatures are checked with, in bits: those of `aws-lc`'s parameters.
pub(super) const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Two hashes with keys of this process make a digest that nobody can collide.
static DIGEST: LazyLock<[RandomState; 2]> = LazyLock::new(|| [RandomState::new(), RandomState::new()]);

/// A credential's key.
pub struct SigningKey {
    algorithm: JwtAlgorithm,
    verifies_with: Algorithm,
    material: DecodingKey,
    credential: CredentialRef,
}

/// All keys of a generation by the name that tokens give.
pub struct KeySet {
    keys: HashMap<Box<str>, SigningKey>,
    digest: [u64; 2],
}

impl KeySet {
    /// Converts the keys of all credentials; those that cannot be used are errors at their places.
    pub fn compile(secrets: &[JwtSecret], secret_is_base64: bool, found: &Diagnostics) -> Self {
        let mut digests = DIGEST.each_ref().map(BuildHasher::build_hasher);
        let mut keys = HashMap::with_capacity(secrets.len());
        for JwtSecret { settings, credential } in secrets {
            for digest in &mut digests {
                let material = match &settings.material {
                    JwtMaterial::Secret(secret) => (0, secret.expose()),
                    JwtMaterial::PublicKey(pem) => (1, &**pem),
                };
                (&settings.key, settings.algorithm, material, credential, secret_is_base64).hash(digest);
            }
            match SigningKey::new(settings.algorithm, &settings.material, secret_is_base64, *credential) {
                Ok(key) => _ = keys.insert(settings.key.as_str().into(), key),
                Err((member, fault)) => {
                    found.error(settings.origin.span, format!("{}.{member}", settings.origin.path), fault);
                }
            }
        }
        Self { keys, digest: digests.map(|digest| digest.finish()) }
    }

    /// The key of that name.
    pub fn get(&self, name: &str) -> Option<&SigningKey> {
        self.keys.get(name)
    }

    /// Whether both take the same tokens for the same credentials.
    pub fn is_same(&self, other: &KeySet) -> bool {
        self.digest == other.digest
    }
}

impl SigningKey {
    /// The credential it belongs to.
    pub fn credential(&self) -> CredentialRef {
        self.credential
    }

    /// The one algorithm it is for.
    pub fn algorithm(&self) -> JwtAlgorithm {
        self.algorithm
    }

    /// Whether `signature`, in base64url, is this key's for `signed`.
    pub fn verify(&self, signed: &[u8], signature: &str) -> bool {
        crypto::verify(signature, signed, &self.material, self.verifies_with).unwrap_or(false)
    }

    fn new(
        algorithm: JwtAlgorithm,
        material: &JwtMaterial,
        secret_is_base64: bool,
        credential: CredentialRef,
    ) -> Result<Self, (&'static str, Fault)> {
        let verifies_with = library_name(algorithm).ok_or_else(|| {
            let fault = Fault::new(format!("{} is not supported", algorithm.as_str()));
            ("algorithm", fault.hint("use ES256, ES384 or EdDSA"))
        })?;
        let material = match material {
            JwtMaterial::Secret(secret) => shared(secret.expose(), secret_is_base64),
            JwtMaterial::PublicKey(pem) => public(pem, algorithm),
        }?;
        Ok(Self { algorithm, verifies_with, material, credential })
    }
}

fn shared(secret: &str, is_base64: bool) -> Result<DecodingKey, (&'static str, Fault)> {
    if !is_base64 {
        return Ok(DecodingKey::from_secret(secret.as_bytes()));
    }
    let wrong =
        |text: &str| ("secret", Fault::new(text).hint("the `jwt` plugin has `secret_is_base64`").hide_line());
    match base64(secret.as_bytes(), Alphabet::Any) {
        Some(bytes) if !bytes.is_empty() => Ok(DecodingKey::from_secret(&bytes)),
        _ => Err(wrong("the secret is not base64")),
    }
}

fn public(pem: &str, algorithm: JwtAlgorithm) -> Result<DecodingKey, (&'static str, Fault)> {
    let wrong = |text: String| ("rsa_public_key", Fault::new(text).hide_line());
    let word = algorithm.as_str();
    if pem.contains("PRIVATE KEY") {
        let (member, fault) = wrong("this is a private key".to_owned());
        return Err((
            member,
            fault.hint("only the public half belongs here; whoever holds this one can make tokens"),
        ));
    }
    let pem = pem.as_bytes();
    let (kind, key) = match algorithm {
        JwtAlgorithm::Es256 => ("P-256", DecodingKey::from_ec_pem(pem)),
        JwtAlgorithm::Es384 => ("P-384", DecodingKey::from_ec_pem(pem)),
        JwtAlgorithm::EdDsa => ("Ed25519", DecodingKey::from_ed_pem(pem)),
        _ => ("RSA", DecodingKey::from_rsa_pem(pem)),
    };
    let key =
        key.map_err(|_| wrong(format!("{word} needs a public key of kind {kind}, and this is none")))?;
    let bytes = key.try_get_as_bytes().unwrap_or_default();
    let fits = match algorithm {
        // An uncompressed point: 4, then both coordinates.
        JwtAlgorithm::Es256 => bytes.len() == 65 && bytes[0] == 4,
        JwtAlgorithm::Es384 => bytes.len() == 97 && bytes[0] == 4,
        JwtAlgorithm::EdDsa => bytes.len() == 32,
        _ => match rsa_modulus(bytes).map(|modulus| (modulus, bits(modulus))) {
            Some((modulus, bits)) if RSA_BITS.contains(&bits) => {
                if roca::is_weak(modulus) {
                    return Err(wrong(
                        "the RSA key is of a chip that made weak ones (CVE-2017-15361)".into(),
                    ));
                }
                true
            }
            Some((_, bits)) => {
                let (min, max) = (RSA_BITS.start(), RSA_BITS.end());
                return Err(wrong(format!("the RSA key has {bits} bits; {min} to {max} are accepted")));
            }
            None => false,
        },
    };
    if fits {
        Ok(key)
    } else {
        Err(wrong(format!("{word} needs a public key of kind {kind}, and this is none")))
    }
}

/// The modulus of an `RSAPublicKey` (RFC 8017 appendix A.1.1), without zeros before it.
fn rsa_modulus(der: &[u8]) -> Option<&[u8]> {
    let (sequence, rest) = der_element(der, 0x30)?;
    if !rest.is_empty() {
        return None;
    }
    let (modulus, exponent) = der_element(sequence, 0x02)?;
    der_element(exponent, 0x02)?;
    Some(&modulus[modulus.iter().position(|&byte| byte != 0)?..])
}

fn bits(modulus: &[u8]) -> usize {
    modulus.len() * 8 - modulus.first().map_or(0, |first| first.leading_zeros() as usize)
}

/// The content of a DER element with this tag, and what follows it.
fn der_element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let [found, first, rest @ ..] = der else { return None };
    let (len, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            (digits.iter().fold(0, |len, &digit| len << 8 | usize::from(digit)), rest)
        }
        _ => return None,
    };
    if *found == tag { rest.split_at_checked(len) } else { None }
}

/// The library's name for an algorithm; `None` where it has none.
pub(super) fn library_name(algorithm: JwtAlgorithm) -> Option<Algorithm> {
    Some(match algorithm {
        JwtAlgorithm::Hs256 => Algorithm::HS256,
        JwtAlgorithm::Hs384 => Algorithm::HS384,
        JwtAlgorithm::Hs512 => Algorithm::HS512,
        JwtAlgorithm::Rs256 => Algorithm::RS256,
        JwtAlgorithm::Rs384 => Algorithm::RS384,
        JwtAlgorithm::Rs512 => Algorithm::RS512,
        JwtAlgorithm::Ps256 => Algorithm::PS256,
        JwtAlgorithm::Ps384 => Algorithm::PS384,
        JwtAlgorithm::Ps512 => Algorithm::PS512,
        JwtAlgorithm::Es256 => Algorithm::ES256,
        JwtAlgorithm::Es384 => Algorithm::ES384,
        JwtAlgorithm::EdDsa => Algorithm::EdDSA,
        JwtAlgorithm::Es512 => return None,
    })
}
