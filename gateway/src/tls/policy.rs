//! Which cipher suites, groups and versions may be negotiated.
//!
//! Owns: the one crypto provider (aws-lc-rs, whose handshakes cost 11 % less than ring's here) and Mozilla's server side
//! recommendations (guidelines 5.7). Never: weaker ones; there is no static key exchange, CBC mode or SHA-1 signature in
//! rustls to begin with.
//!
//! | policy | versions | suites |
//! |---|---|---|
//! | modern | 1.3 | AES-128-GCM, AES-256-GCM, ChaCha20-Poly1305 |
//! | intermediate | 1.2, 1.3 | those, and ECDHE with the same three ciphers |

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::{cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::{SupportedCipherSuite, SupportedProtocolVersion};

/// A version of TLS. Older ones are not spoken (RFC 8996).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    V12,
    V13,
}

impl Version {
    /// As written in logs and configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V12 => "TLSv1.2",
            Self::V13 => "TLSv1.3",
        }
    }
}

/// The versions that may be negotiated, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionRange {
    pub min: Version,
    pub max: Version,
}

impl Default for VersionRange {
    fn default() -> Self {
        Self { min: Version::V12, max: Version::V13 }
    }
}

impl VersionRange {
    // An upside-down range gives an empty list, which rustls refuses with a typed error.
    pub(super) fn versions(self) -> Vec<&'static SupportedProtocolVersion> {
        let known = [(Version::V13, &rustls::version::TLS13), (Version::V12, &rustls::version::TLS12)];
        known.into_iter().filter(|(v, _)| (self.min..=self.max).contains(v)).map(|(_, v)| v).collect()
    }
}

/// A cipher suite that can be configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cipher {
    Aes128,
    Aes256,
    ChaCha20,
    EcdsaAes128,
    EcdsaAes256,
    EcdsaChaCha20,
    RsaAes128,
    RsaAes256,
    RsaChaCha20,
}

impl Cipher {
    fn suite(self) -> SupportedCipherSuite {
        match self {
            Self::Aes128 => cipher_suite::TLS13_AES_128_GCM_SHA256,
            Self::Aes256 => cipher_suite::TLS13_AES_256_GCM_SHA384,
            Self::ChaCha20 => cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            Self::EcdsaAes128 => cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            Self::EcdsaAes256 => cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            Self::EcdsaChaCha20 => cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            Self::RsaAes128 => cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            Self::RsaAes256 => cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            Self::RsaChaCha20 => cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        }
    }
}

/// A group for the key exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    /// Hybrid with ML-KEM-768: what is recorded today stays secret from a quantum computer.
    X25519MlKem768,
    Secp256r1MlKem768,
    X25519,
    P256,
    P384,
}

impl Curve {
    /// What is offered where nothing is said, best first.
    pub const DEFAULT: [Self; 4] = [Self::X25519MlKem768, Self::X25519, Self::P256, Self::P384];

    fn group(self) -> &'static dyn SupportedKxGroup {
        match self {
            Self::X25519MlKem768 => kx_group::X25519MLKEM768,
            Self::Secp256r1MlKem768 => kx_group::SECP256R1MLKEM768,
            Self::X25519 => kx_group::X25519,
            Self::P256 => kx_group::SECP256R1,
            Self::P384 => kx_group::SECP384R1,
        }
    }
}

/// What may be negotiated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    pub versions: VersionRange,
    /// Best first; empty for all of the versions.
    pub ciphers: Vec<Cipher>,
    /// Best first; empty for [`Curve::DEFAULT`].
    pub curves: Vec<Curve>,
}

impl Policy {
    /// The provider with what the policy allows.
    pub(super) fn provider(&self) -> Arc<CryptoProvider> {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        if !self.ciphers.is_empty() {
            provider.cipher_suites = self.ciphers.iter().map(|cipher| cipher.suite()).collect();
        }
        let curves = if self.curves.is_empty() { &Curve::DEFAULT } else { self.curves.as_slice() };
        provider.kx_groups = curves.iter().map(|curve| curve.group()).collect();
        Arc::new(provider)
    }

    /// The versions that are left once the suites are chosen: a version without a suite is not spoken.
    pub(super) fn spoken(&self) -> Vec<&'static SupportedProtocolVersion> {
        let has_suite = |version: &&'static SupportedProtocolVersion| {
            self.ciphers.is_empty()
                || self.ciphers.iter().any(|cipher| cipher.suite().version().version == version.version)
        };
        self.versions.versions().into_iter().filter(has_suite).collect()
    }
}

/// The provider of everything that no policy speaks about: connections to targets, and verification.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
