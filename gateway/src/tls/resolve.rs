//! Which certificate a client gets: by the name it asks for.
//!
//! | asked for | found | strict_sni | served |
//! |---|---|---|---|
//! | `a.example.com` | exact name | any | that one |
//! | `a.example.com` | `*.example.com` | any | that one |
//! | `a.b.example.com` | `*.example.com` | off | the default: a wildcard is one label (RFC 9525 section 6.3) |
//! | unknown, or none sent | – | off | the default, which is the first certificate |
//! | unknown, or none sent | – | on | none: the handshake is refused |
//!
//! Owns: the table of names. Never: loading. Invariant: names in the table are lower case, and a lookup
//! allocates nothing for names of up to 255 bytes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certificate::Certificate;
use super::client_auth::ClientAuth;
use super::fault::TlsError;

/// A certificate and the names it is served for.
#[derive(Clone, Debug)]
pub struct CertificateEntry {
    /// What to serve.
    pub certificate: Certificate,
    /// DNS names, `*.` allowed as the whole first label. Empty: the names in the certificate.
    pub names: Vec<String>,
    /// What clients that ask for these names must show.
    pub client_auth: Option<Arc<ClientAuth>>,
}

/// The compiled table of names.
#[derive(Debug)]
pub(super) struct NameTable {
    exact: HashMap<Box<str>, Served>,
    /// Keyed by what follows `*.`.
    wildcard: HashMap<Box<str>, Served>,
    default: Option<Served>,
    /// What is demanded of clients, by [`Served::group`]; each demand once.
    pub(super) demands: Vec<Option<Arc<ClientAuth>>>,
}

/// What is served for a name.
#[derive(Clone, Debug)]
pub(super) struct Served {
    pub(super) key: Arc<CertifiedKey>,
    /// Which demand is made on clients.
    pub(super) group: usize,
}

impl NameTable {
    /// The first entry that claims a name keeps it, so that order in the file decides, as for the default.
    pub(super) fn new(entries: &[CertificateEntry], strict: bool) -> Result<Self, TlsError> {
        let first = entries.first().ok_or(TlsError::NoCertificates)?;
        let mut table =
            Self { exact: HashMap::new(), wildcard: HashMap::new(), default: None, demands: Vec::new() };
        let served = table.serve(first);
        table.default = (!strict).then_some(served);
        for entry in entries {
            let served = table.serve(entry);
            if entry.names.is_empty() {
                // Names that an authority put into the certificate but that we cannot serve are no error.
                for name in entry.certificate.names() {
                    let _ = table.insert(name, &served);
                }
            }
            for name in &entry.names {
                table.insert(name, &served)?;
            }
        }
        Ok(table)
    }

    fn serve(&mut self, entry: &CertificateEntry) -> Served {
        let scope = |demand: &Option<Arc<ClientAuth>>| demand.as_ref().map(|demand| demand.scope());
        let same = self.demands.iter().position(|known| scope(known) == scope(&entry.client_auth));
        let group = same.unwrap_or_else(|| {
            self.demands.push(entry.client_auth.clone());
            self.demands.len() - 1
        });
        Served { key: Arc::clone(entry.certificate.certified_key()), group }
    }

    fn insert(&mut self, name: &str, served: &Served) -> Result<(), TlsError> {
        let lower = name.to_ascii_lowercase();
        let (table, rest) = match lower.strip_prefix("*.") {
            Some(rest) => (&mut self.wildcard, rest),
            None => (&mut self.exact, lower.as_str()),
        };
        if rustls_pki_types::DnsName::try_from(rest).is_err() {
            return Err(TlsError::NamePattern { name: name.into() });
        }
        if let Entry::Vacant(place) = table.entry(rest.into()) {
            place.insert(served.clone());
        }
        Ok(())
    }

    /// The certificate for the name of a ClientHello, or none if the handshake is to be refused.
    pub(super) fn find(&self, asked: Option<&str>) -> Option<&Served> {
        asked.and_then(|name| self.find_name(name)).or(self.default.as_ref())
    }

    fn find_name(&self, name: &str) -> Option<&Served> {
        // rustls hands names over as sent, and clients may send capitals (RFC 4343).
        let mut lower = [0_u8; LONGEST_NAME];
        let lower = lower.get_mut(..name.len())?;
        lower.copy_from_slice(name.as_bytes());
        lower.make_ascii_lowercase();
        let name = std::str::from_utf8(lower).ok()?;
        if let Some(served) = self.exact.get(name) {
            return Some(served);
        }
        let (_, rest) = name.split_once('.')?;
        self.wildcard.get(rest)
    }
}

impl ResolvesServerCert for NameTable {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name()).map(|served| Arc::clone(&served.key))
    }
}

/// Bytes of the longest DNS name (RFC 1035 section 2.3.4).
const LONGEST_NAME: usize = 255;
