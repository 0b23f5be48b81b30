//! Certificates with their keys, and sets of trusted roots, loaded from PEM.
//!
//! Owns: reading PEM text and files, and pairing a chain with its key. Never: choosing among
//! certificates ([`super::resolve`]). Invariant: a [`Certificate`] that exists has a key that belongs to
//! its first certificate, so no handshake can fail for that.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::der;
use super::fault::TlsError;
use super::ocsp::{self, StapleError};
use super::policy::provider;

/// A certificate chain, its private key, and the DNS names of its leaf. Cheap to clone.
#[derive(Clone)]
pub struct Certificate {
    key: Arc<CertifiedKey>,
    names: Arc<[String]>,
}

impl Certificate {
    /// Pairs a PEM chain (leaf first) with a PEM private key (PKCS#8, PKCS#1 or SEC1).
    ///
    /// `origin` names where the text came from; it appears in errors only.
    pub fn from_pem(chain: &[u8], key: &[u8], origin: &str) -> Result<Self, TlsError> {
        let chain = read_chain(chain, origin)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|cause| match cause {
            pem::Error::NoItemsFound => TlsError::NoKey { origin: origin.into() },
            cause => TlsError::Pem { origin: origin.into(), cause },
        })?;
        let names = dns_names(&chain[0], origin)?;
        let key = CertifiedKey::from_der(chain, key, &provider())
            .map_err(|cause| TlsError::KeyPair { origin: origin.into(), cause })?;
        Ok(Self { key: Arc::new(key), names })
    }

    /// As [`Certificate::from_pem`], from two files. They may be one and the same file.
    ///
    /// Blocks on the disk: for the control thread only.
    pub fn from_files(chain: &Path, key: &Path) -> Result<Self, TlsError> {
        let chain_text = read_file(chain)?;
        let key_text = read_file(key)?;
        let origin = if chain == key {
            chain.display().to_string()
        } else {
            format!("{} with key {}", chain.display(), key.display())
        };
        Self::from_pem(&chain_text, &key_text, &origin)
    }

    /// DNS names among the subject alternative names of the leaf, lower case, wildcards included.
    ///
    /// The common name is not a source of names (RFC 9525 section 6.3).
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// When its leaf ends to be valid, since the Unix epoch; `None` where that cannot be read.
    pub fn not_after(&self) -> Option<Duration> {
        self.key.cert.first().and_then(|leaf| der::validity(leaf)).map(|(_, not_after)| not_after)
    }

    /// The same certificate with an OCSP response (DER) to staple. `now` is wall clock since the Unix epoch.
    ///
    /// # Errors
    /// The response is not worth it.
    pub fn with_staple(&self, response: Vec<u8>, now: Duration) -> Result<Self, StapleError> {
        let leaf = self.key.cert.first().ok_or(StapleError::OtherCertificate)?;
        let parsed = webpki::EndEntityCert::try_from(leaf).map_err(|_| StapleError::OtherCertificate)?;
        ocsp::check(&response, parsed.serial(), now)?;
        let mut key = CertifiedKey::clone(&self.key);
        key.ocsp = Some(response);
        Ok(Self { key: Arc::new(key), names: self.names.clone() })
    }

    pub(super) fn certified_key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }
}

impl fmt::Debug for Certificate {
    // The key must not reach a log by way of a derived Debug.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("names", &self.names).finish_non_exhaustive()
    }
}

/// Certificate authorities that targets or clients are verified against. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Roots(Arc<RootCertStore>);

impl Roots {
    /// The authorities that this machine trusts (`SSL_CERT_FILE` and `SSL_CERT_DIR` are respected).
    ///
    /// The machine's store is used, not a list compiled into the binary: operators install their private
    /// authorities there, and a distrusted root leaves with a system update, not with a new gateway.
    /// Blocks on the disk. Certificates that do not parse are skipped; an empty result is an error.
    pub fn system() -> Result<Self, TlsError> {
        let found = rustls_native_certs::load_native_certs();
        let mut store = RootCertStore::empty();
        let (usable, _) = store.add_parsable_certificates(found.certs);
        if usable == 0 {
            let cause = found.errors.first().map_or_else(|| "the store is empty".into(), ToString::to_string);
            return Err(TlsError::NoSystemRoots { cause });
        }
        Ok(Self(Arc::new(store)))
    }

    /// Authorities from PEM text; at least one, and each must parse.
    pub fn from_pem(text: &[u8], origin: &str) -> Result<Self, TlsError> {
        let mut store = RootCertStore::empty();
        for authority in read_chain(text, origin)? {
            store.add(authority).map_err(|cause| TlsError::Authority { origin: origin.into(), cause })?;
        }
        Ok(Self(Arc::new(store)))
    }

    /// As [`Roots::from_pem`], from a file. Blocks on the disk.
    pub fn from_file(path: &Path) -> Result<Self, TlsError> {
        Self::from_pem(&read_file(path)?, &path.display().to_string())
    }

    /// How many authorities are trusted.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub(super) fn store(&self) -> Arc<RootCertStore> {
        Arc::clone(&self.0)
    }
}

pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|cause| TlsError::File { path: path.into(), cause })
}

fn read_chain(text: &[u8], origin: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = CertificateDer::pem_slice_iter(text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|cause| TlsError::Pem { origin: origin.into(), cause })?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate { origin: origin.into() });
    }
    Ok(chain)
}

// webpki is the parser that verifies peers in rustls: no second X.509 parser gets to read the same bytes
// and see other names in them.
fn dns_names(leaf: &CertificateDer<'_>, origin: &str) -> Result<Arc<[String]>, TlsError> {
    let parsed = webpki::EndEntityCert::try_from(leaf)
        .map_err(|cause| TlsError::Unparsable { origin: origin.into(), cause })?;
    Ok(parsed.valid_dns_names().map(str::to_ascii_lowercase).collect())
}
