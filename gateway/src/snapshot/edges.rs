//! Compiles TLS on both sides: of listeners, and of services towards their targets.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use portcullis_config::{self as config, Config, Diagnostics, Pem};

use super::Listener;
use crate::net::clock;
use crate::plugin::registry;
use crate::plugin::service_tls::{self, load, roots, text};
use crate::tls::{self, Certificate, CertificateEntry, KeyFile, Revoked, Ticketer, Version, VersionRange};

/// What is compiled of listeners beside them.
#[derive(Default)]
pub struct Loaded {
    /// When certificates that are served end to be valid, by the id of the certificate; seconds since 1970.
    pub expiries: BTreeMap<String, u64>,
}

/// A listener with its certificates loaded.
pub fn listener(
    config: &Config,
    listener: &config::Listener,
    ticketer: &Ticketer,
    loaded: &mut Loaded,
    found: &Diagnostics,
) -> Option<Listener> {
    let passthrough = listener.tls.as_ref().map_or(config::Passthrough::Off, |tls| tls.passthrough);
    let compiled = |tls| Listener {
        name: listener.name.as_str().into(),
        address: listener.address,
        proxy_protocol: listener.proxy_protocol,
        h2c: listener.h2c,
        tls,
        passthrough: passthrough != config::Passthrough::Off,
        redirect_https: listener.redirect_https,
        hsts: listener.hsts.map(hsts),
        forwarded_client_cert: listener.forwarded_client_cert,
    };
    let Some(tls) = listener.tls.as_ref().filter(|tls| tls.passthrough != config::Passthrough::Only) else {
        return Some(compiled(None));
    };
    // The default is the first of the list that TLS is given.
    let default = tls.default_certificate.into_iter();
    let rest = tls.certificates.iter().copied().filter(|c| Some(*c) != tls.default_certificate);
    let mut certificates = Vec::new();
    for reference in default.chain(rest) {
        certificates.extend(entry(config, &config[reference], &tls.client_auth, loaded, found));
    }
    if certificates.is_empty() {
        return None; // said above
    }
    let options = tls::ServerOptions {
        certificates,
        strict_sni: tls.default_certificate.is_none(),
        policy: policy(tls),
        alpn: tls.alpn.iter().map(|protocol| alpn(*protocol)).collect(),
        ticketer: if tls.session_tickets { ticketer.clone() } else { Ticketer::off() },
    };
    match tls::server_config(&options) {
        Ok(config) => Some(compiled(Some(config))),
        Err(error) => {
            found.error(listener.origin.span, &listener.origin.path, error.to_string());
            None
        }
    }
}

/// A certificate with what goes with it: its names, its OCSP response, and what is asked of clients.
fn entry(
    config: &Config,
    certificate: &config::Certificate,
    of_listener: &config::ClientAuth,
    found_out: &mut Loaded,
    found: &Diagnostics,
) -> Option<CertificateEntry> {
    let origin = &certificate.origin;
    let failed = |error: tls::TlsError| found.error(origin.span, &origin.path, error.to_string());
    let loaded = load(&certificate.cert, &certificate.key, &certificate.id).map_err(failed).ok()?;
    let demand = certificate.client_auth.as_ref().unwrap_or(of_listener);
    let client_auth = client_auth(config, demand).map_err(failed).ok()?;
    if let Some(not_after) = loaded.not_after() {
        found_out.expiries.insert(certificate.id.clone(), not_after.as_secs());
        if not_after < clock::wall() {
            found.warning(origin.span, &origin.path, "the certificate has expired: clients will refuse it");
        }
    }
    Some(CertificateEntry {
        certificate: staple(loaded, certificate, found),
        names: certificate.snis.iter().map(name_of).collect(),
        client_auth: client_auth.map(Arc::new),
    })
}

/// Adds the OCSP response of the certificate's file, if it is worth it. A bad one is no reason not to serve.
fn staple(loaded: Certificate, certificate: &config::Certificate, found: &Diagnostics) -> Certificate {
    let Some(path) = &certificate.ocsp_file else { return loaded };
    let cause = match tls::read_file(path) {
        Err(error) => error.to_string(),
        Ok(response) => match loaded.with_staple(response, clock::wall()) {
            Ok(stapled) => return stapled,
            Err(error) => error.to_string(),
        },
    };
    let path = format!("{}.ocsp_file", certificate.origin.path);
    found.warning(certificate.origin.span, path, format!("no OCSP response is stapled: {cause}"));
    loaded
}

fn client_auth(
    config: &Config,
    demand: &config::ClientAuth,
) -> Result<Option<tls::ClientAuth>, tls::TlsError> {
    if demand.mode == config::ClientAuthMode::None {
        return Ok(None);
    }
    let mut revoked = Vec::new();
    for path in &demand.crl_files {
        revoked.extend(Revoked::read(path)?);
    }
    Ok(Some(tls::ClientAuth {
        required: demand.mode == config::ClientAuthMode::Require,
        roots: roots(config, &demand.ca_certificates)?,
        verify_depth: demand.verify_depth,
        revoked,
    }))
}

fn policy(tls: &config::ListenerTls) -> tls::Policy {
    let version = match tls.min_version {
        config::TlsVersion::V1_2 => Version::V12,
        config::TlsVersion::V1_3 => Version::V13,
    };
    tls::Policy {
        versions: VersionRange { min: version, max: Version::V13 },
        ciphers: tls.ciphers.iter().map(|cipher| cipher_of(*cipher)).collect(),
        curves: tls.curves.iter().map(|curve| curve_of(*curve)).collect(),
    }
}

fn alpn(protocol: config::Alpn) -> tls::Alpn {
    match protocol {
        config::Alpn::H2 => tls::Alpn::H2,
        config::Alpn::Http11 => tls::Alpn::Http11,
    }
}

fn cipher_of(cipher: config::Cipher) -> tls::Cipher {
    match cipher {
        config::Cipher::Aes128 => tls::Cipher::Aes128,
        config::Cipher::Aes256 => tls::Cipher::Aes256,
        config::Cipher::ChaCha20 => tls::Cipher::ChaCha20,
        config::Cipher::EcdsaAes128 => tls::Cipher::EcdsaAes128,
        config::Cipher::EcdsaAes256 => tls::Cipher::EcdsaAes256,
        config::Cipher::EcdsaChaCha20 => tls::Cipher::EcdsaChaCha20,
        config::Cipher::RsaAes128 => tls::Cipher::RsaAes128,
        config::Cipher::RsaAes256 => tls::Cipher::RsaAes256,
        config::Cipher::RsaChaCha20 => tls::Cipher::RsaChaCha20,
    }
}

fn curve_of(curve: config::Curve) -> tls::Curve {
    match curve {
        config::Curve::X25519MlKem768 => tls::Curve::X25519MlKem768,
        config::Curve::Secp256r1MlKem768 => tls::Curve::Secp256r1MlKem768,
        config::Curve::X25519 => tls::Curve::X25519,
        config::Curve::P256 => tls::Curve::P256,
        config::Curve::P384 => tls::Curve::P384,
    }
}

/// The value of the field (RFC 6797 section 6.1).
fn hsts(hsts: config::Hsts) -> Box<str> {
    let subdomains = if hsts.include_subdomains { "; includeSubDomains" } else { "" };
    let preload = if hsts.preload { "; preload" } else { "" };
    format!("max-age={}{subdomains}{preload}", hsts.max_age.as_secs()).into()
}

/// The keys of session tickets that the configuration names.
pub fn ticket_keys(config: &Config, found: &Diagnostics) -> Option<KeyFile> {
    let path = config.tickets.key_file.as_ref()?;
    let keys = tls::read_file(path).and_then(|text| KeyFile::parse(&text, &path.display().to_string()));
    keys.map_err(|error| found.error(config::Span::default(), "tickets.key_file", error.to_string())).ok()
}

/// Every file that the compilation reads besides the configuration.
pub fn files(config: &Config) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut pem = |pem: &Pem| {
        if let Pem::File(path) = pem {
            files.push(path.clone());
        }
    };
    for certificate in &config.certificates {
        pem(&certificate.cert);
        pem(&certificate.key);
    }
    config.ca_certificates.iter().for_each(|authority| pem(&authority.cert));
    let demands = config.listeners.iter().filter_map(|listener| Some(&listener.tls.as_ref()?.client_auth));
    let demands = demands.chain(config.certificates.iter().filter_map(|one| one.client_auth.as_ref()));
    files.extend(demands.flat_map(|demand| demand.crl_files.iter().cloned()));
    files.extend(config.certificates.iter().filter_map(|one| one.ocsp_file.clone()));
    files.extend(config.tickets.key_file.clone());
    files.extend(config.plugins.iter().filter(|plugin| plugin.enabled).flat_map(registry::files));
    files.sort_unstable();
    files.dedup();
    files
}

fn name_of(pattern: &config::HostPattern) -> String {
    match &pattern.name {
        config::HostName::Exact(name) => name.clone(),
        config::HostName::Suffix(suffix) => format!("*.{}", suffix.trim_start_matches('.')),
        config::HostName::Prefix(prefix) => format!("{}.*", prefix.trim_end_matches('.')),
    }
}

/// TLS towards the targets of a service, and a text that is the same for the same settings.
pub fn client(
    config: &Config,
    service: &config::Service,
    known: &mut HashMap<String, tls::ClientConfig>,
    found: &Diagnostics,
) -> Option<(tls::ClientConfig, String)> {
    let settings = service_tls::settings(config, service);
    let key = match material(config, &settings) {
        Ok(material) => format!(
            "{settings:?} {:?} {:016x}",
            service.http_version,
            super::upstreams::stable_hash(&material)
        ),
        Err(error) => {
            found.error(service.origin.span, &service.origin.path, error.to_string());
            return None;
        }
    };
    if let Some(client) = known.get(&key) {
        return Some((client.clone(), key));
    }
    match service_tls::client(config, &settings, super::http2::alpn(service.http_version)) {
        Ok(client) => {
            known.insert(key.clone(), client.clone());
            Some((client, key))
        }
        Err(error) => {
            found.error(service.origin.span, &service.origin.path, error.to_string());
            None
        }
    }
}

/// What the settings refer to. Part of the key: the settings only say where certificates are, and a pool whose key stays
/// the same goes on with those that it was made with.
fn material(config: &Config, settings: &config::UpstreamTls) -> Result<Vec<Vec<u8>>, tls::TlsError> {
    let authorities = settings.ca_certificates.iter().map(|reference| &config[*reference].cert);
    let identity = settings.client_certificate.map(|reference| &config[reference]);
    let identity = identity.into_iter().flat_map(|identity| [&identity.cert, &identity.key]);
    authorities.chain(identity).map(text).collect()
}
