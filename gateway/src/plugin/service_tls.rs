//! TLS towards the targets of a service, as the configuration of the service wants it.
//!
//! Owns how settings become a client. For the exchange, which sends requests there, and for plugins that call a service
//! by its name.

use portcullis_config::{self as config, Config, Pem};

use crate::tls::{self, Certificate, Roots, Verify, Version, VersionRange};

/// The settings of a service, with what it takes from its upstream.
pub fn settings(config: &Config, service: &config::Service) -> config::UpstreamTls {
    let mut settings = service.tls.clone();
    if let config::Destination::Upstream(upstream) = service.destination {
        // The service's own wins.
        settings.client_certificate = settings.client_certificate.or(config[upstream].client_certificate);
    }
    settings
}

/// TLS towards targets by these settings.
///
/// # Errors
/// A file cannot be read, or an authority, a name or the client's certificate is of no use.
pub fn client(
    config: &Config,
    settings: &config::UpstreamTls,
    alpn: Vec<tls::Alpn>,
) -> Result<tls::ClientConfig, tls::TlsError> {
    let verify = if !settings.verify {
        Verify::Off
    } else {
        let roots = match settings.ca_certificates.as_slice() {
            [] => Roots::system()?,
            authorities => roots(config, authorities)?,
        };
        let names = tls::Names::new(&settings.sans.dns, &settings.sans.uris)?;
        let plain = settings.sans == config::SubjectNames::default() && settings.verify_depth.is_none();
        match plain {
            true => Verify::Against(roots),
            false => Verify::Names { roots, names, depth: settings.verify_depth },
        }
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
        alpn,
    })
}

/// These authorities together.
///
/// # Errors
/// As [`client`].
pub fn roots(config: &Config, authorities: &[config::CaCertificateRef]) -> Result<Roots, tls::TlsError> {
    let mut pem = Vec::new();
    for reference in authorities {
        pem.extend(text(&config[*reference].cert)?);
        pem.push(b'\n');
    }
    Roots::from_pem(&pem, "ca_certificates")
}

/// A certificate with its key; `id` names it in errors.
///
/// # Errors
/// As [`client`].
pub fn load(cert: &Pem, key: &Pem, id: &str) -> Result<Certificate, tls::TlsError> {
    match (cert, key) {
        (Pem::File(cert), Pem::File(key)) => Certificate::from_files(cert, key),
        (cert, key) => Certificate::from_pem(&text(cert)?, &text(key)?, id),
    }
}

/// PEM, wherever it is.
///
/// # Errors
/// The file cannot be read.
pub fn text(pem: &Pem) -> Result<Vec<u8>, tls::TlsError> {
    match pem {
        Pem::Inline(text) => Ok(text.expose().as_bytes().to_vec()),
        Pem::File(path) => tls::read_file(path),
    }
}
