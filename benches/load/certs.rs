//! A certificate authority, a server certificate and an RSA key for tokens, made when they are needed and
//! kept nowhere but in the folder asked for.

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256,
};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Where the files are.
#[derive(Clone, Debug)]
pub struct Files {
    pub authority: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Certificate and key in one file, as HAProxy reads them.
    pub both: PathBuf,
    /// The key pair that signs tokens.
    pub token_key: PathBuf,
    pub token_public_key: PathBuf,
}

/// Makes all files anew. Keys are readable by their owner alone.
pub fn make(folder: &Path, names: &[String]) -> Result<Files> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, "Portcullis demo authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)?;

    let mut server = CertificateParams::new(names)?;
    server.distinguished_name.push(DnType::CommonName, names[0].as_str());
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = server.signed_by(&key, &issuer)?;
    let tokens = KeyPair::generate_for(&PKCS_RSA_SHA256)?;

    let files = Files {
        authority: folder.join("ca.pem"),
        certificate: folder.join("server.pem"),
        key: folder.join("server.key"),
        both: folder.join("server-both.pem"),
        token_key: folder.join("tokens.key"),
        token_public_key: folder.join("tokens.pub.pem"),
    };
    fs::write(&files.authority, issuer.pem())?;
    fs::write(&files.certificate, certificate.pem())?;
    write_secret(&files.key, &key.serialize_pem())?;
    write_secret(&files.both, &format!("{}{}", certificate.pem(), key.serialize_pem()))?;
    write_secret(&files.token_key, &tokens.serialize_pem())?;
    fs::write(&files.token_public_key, tokens.public_key_pem())?;
    println!("certificates for {} are in {}", names.join(", "), folder.display());
    Ok(files)
}

fn write_secret(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(())
}
