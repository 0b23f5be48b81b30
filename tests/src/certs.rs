//! Certificates made at run time: one authority, leaves for any names.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa,
    KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256, RevokedCertParams, SerialNumber,
};

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

    /// A leaf made to order. `stem` is that of its files.
    ///
    /// # Panics
    /// When it cannot be made or written.
    pub fn leaf_with(&self, stem: &str, edit: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        edit(&mut params);
        self.sign(stem, &params, KeyPair::generate().expect("a key"))
    }

    /// As [`Authority::leaf_with`], with a key that openssl made: RSA of 2048 bits. `None` without openssl.
    pub fn rsa_leaf(&self, stem: &str, edit: impl FnOnce(&mut CertificateParams)) -> Option<Leaf> {
        let mut openssl = crate::client::programs::openssl()?;
        let made =
            openssl.args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]).output();
        let pem = String::from_utf8(made.ok()?.stdout).ok()?;
        let key = KeyPair::from_pem_and_sign_algo(&pem, &PKCS_RSA_SHA256).expect("an RSA key");
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        edit(&mut params);
        Some(self.sign(stem, &params, key))
    }

    fn sign(&self, stem: &str, params: &CertificateParams, key: KeyPair) -> Leaf {
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        let leaf =
            Leaf { cert: self.dir.join(format!("{stem}.pem")), key: self.dir.join(format!("{stem}.key")) };
        std::fs::write(&leaf.cert, cert.pem()).expect("writing a certificate");
        std::fs::write(&leaf.key, key.serialize_pem()).expect("writing a key");
        leaf
    }

    /// A list in PEM that revokes the certificates with these serial numbers.
    ///
    /// # Panics
    /// When it cannot be signed.
    pub fn revoking(&self, serials: &[u64]) -> String {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: rcgen::date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2024, 1, 1),
            next_update: rcgen::date_time_ymd(2124, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).and_then(|list| list.pem()).expect("a list")
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
        self.sign(&stem, &params, KeyPair::generate().expect("a key"))
    }
}
