//! Compiles TLS on both sides: of listeners, and of services towards their targets.

use std::collections::HashMap;

use portcullis_config::{self as config, Config, Diagnostics, Pem};

use super::Listener;
use crate::tls::{self, Certificate, CertificateEntry, Roots, Ticketer, Verify, Version, VersionRange};

/// A listener with its certificates loaded.
pub fn listener(
    config: &Config,
    listener: &config::Listener,
    ticketer: &Ticketer,
    found: &Diagnostics,
) -> Option<Listener> {
    let compiled = |tls| Listener {
        name: listener.name.as_str().into(),
        address: listener.address,
        proxy_protocol: listener.proxy_protocol,
        tls,
    };
    let Some(tls) = &listener.tls else { return Some(compiled(None)) };
    // The default is the first of the list that TLS is given.
    let default = tls.default_certificate.into_iter();
    let rest = tls.certificates.iter().copied().filter(|c| Some(*c) != tls.default_certificate);
    let mut certificates = Vec::new();
    for reference in default.chain(rest) {
        let certificate = &config[reference];
        match load(&certificate.cert, &certificate.key, &certificate.id) {
            Ok(loaded) => certificates.push(CertificateEntry {
                certificate: loaded,
                names: certificate.snis.iter().map(name_of).collect(),
            }),
            Err(error) => found.error(certificate.origin.span, &certificate.origin.path, error.to_string()),
        }
    }
    if certificates.is_empty() {
        return None; // said above
    }
    let options = tls::ServerOptions {
        certificates,
        strict_sni: tls.default_certificate.is_none(),
        versions: VersionRange {
            min: match tls.min_version {
                config::TlsVersion::V1_2 => Version::V12,
                config::TlsVersion::V1_3 => Version::V13,
            },
            max: Version::V13,
        },
        // h2 is not spoken yet, so it is not offered.
        alpn: vec![tls::Alpn::Http11],
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

fn name_of(pattern: &config::HostPattern) -> String {
    match &pattern.name {
        config::HostName::Exact(name) => name.clone(),
        config::HostName::Suffix(suffix) => format!("*.{}", suffix.trim_start_matches('.')),
        config::HostName::Prefix(prefix) => format!("{}.*", prefix.trim_end_matches('.')),
    }
}

fn load(cert: &Pem, key: &Pem, id: &str) -> Result<Certificate, tls::TlsError> {
    match (cert, key) {
        (Pem::File(cert), Pem::File(key)) => Certificate::from_files(cert, key),
        (cert, key) => Certificate::from_pem(&text(cert)?, &text(key)?, id),
    }
}

fn text(pem: &Pem) -> Result<Vec<u8>, tls::TlsError> {
    match pem {
        Pem::Inline(text) => Ok(text.expose().as_bytes().to_vec()),
        Pem::File(path) => tls::read_file(path),
    }
}

/// TLS towards the targets of a service, and a text that is the same for the same settings.
pub fn client(
    config: &Config,
    service: &config::Service,
    known: &mut HashMap<String, tls::ClientConfig>,
    found: &Diagnostics,
) -> Option<(tls::ClientConfig, String)> {
    let mut settings = service.tls.clone();
    if let config::Destination::Upstream(upstream) = service.destination {
        // The service's own wins.
        settings.client_certificate = settings.client_certificate.or(config[upstream].client_certificate);
    }
    let key = match material(config, &settings) {
        Ok(material) => format!("{settings:?} {:016x}", super::upstreams::stable_hash(&material)),
        Err(error) => {
            found.error(service.origin.span, &service.origin.path, error.to_string());
            return None;
        }
    };
    if let Some(client) = known.get(&key) {
        return Some((client.clone(), key));
    }
    match build_client(config, &settings) {
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

/// TLS towards targets by these settings.
pub fn build_client(
    config: &Config,
    settings: &config::UpstreamTls,
) -> Result<tls::ClientConfig, tls::TlsError> {
    let verify = if !settings.verify {
        Verify::Off
    } else if settings.ca_certificates.is_empty() {
        Verify::Against(Roots::system()?)
    } else {
        let mut pem = Vec::new();
        for reference in &settings.ca_certificates {
            pem.extend(text(&config[*reference].cert)?);
            pem.push(b'\n');
        }
        Verify::Against(Roots::from_pem(&pem, "ca_certificates")?)
    };
    let identity = match settings.client_certificate {
        None => None,
        Some(reference) => {
            let certificate = &config[reference];
            Some(load(&certificate.cert, &certificate.key, &certificate.id)?)
        }
    };
    tls::client_config(&tls::ClientOptions {
        verify,
        identity,
        versions: VersionRange { min: Version::V12, max: Version::V13 },
        alpn: vec![tls::Alpn::Http11],
    })
}
