//! Certificates made at run time: one authority, leaves for any names.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};

/// A certificate authority whose certificate lies in a folder as `ca.pem`.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: PathBuf,
}

/// Files of one leaf certificate.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// The chain, leaf first.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

impl Authority {
    /// Makes an authority that keeps its files in `dir`.
    ///
    /// # Panics
    /// When a key cannot be made or a file not be written.
    pub fn new(dir: &Path) -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "Portcullis test authority");
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority");
        std::fs::write(dir.join("ca.pem"), issuer.pem()).expect("writing ca.pem");
        Authority { issuer, dir: dir.to_owned() }
    }

    /// The authority's certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// A leaf for `names`, the first of which is also its common name and the stem of its files.
    ///
    /// # Panics
    /// When it cannot be made or written.
    pub fn leaf(&self, names: &[&str]) -> Leaf {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let stem = names[0].replace('*', "wildcard");
        let mut params = CertificateParams::new(names.clone()).expect("valid names");
        params.distinguished_name.push(DnType::CommonName, names[0].clone());
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        let leaf = Leaf { cert: self.dir.join(stem.clone() + ".pem"), key: self.dir.join(stem + ".key") };
        std::fs::write(&leaf.cert, cert.pem()).expect("writing a certificate");
        std::fs::write(&leaf.key, key.serialize_pem()).expect("writing a key");
        leaf
    }
}
