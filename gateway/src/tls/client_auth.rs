//! Whether clients are asked for certificates, and which are taken.
//!
//! Owns: the verifier of client certificates and the scope that binds tickets to it. Never: who a client is to the
//! gateway ([`super::peer`], and the `mtls-auth` plugin). Invariant: a certificate that does not verify ends the
//! handshake, also where none is required.

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};

use super::certificate::Roots;
use super::fault::TlsError;
use super::peer::Peer;
use super::policy::provider;

/// What a listener asks of clients, for some of its names or all.
#[derive(Clone, Debug)]
pub struct ClientAuth {
    /// Whether a client without a certificate is refused.
    pub required: bool,
    /// Who must have signed it.
    pub roots: Roots,
    /// Most certificates between the client's and the authority's.
    pub verify_depth: Option<u8>,
    /// Lists of revoked certificates; empty: none is consulted.
    pub revoked: Vec<Revoked>,
}

/// A list of revoked certificates.
#[derive(Clone, Debug)]
pub struct Revoked(CertificateRevocationListDer<'static>);

impl Revoked {
    /// The lists in a file: PEM, or one in DER.
    ///
    /// # Errors
    /// There is none.
    pub fn read(path: &Path) -> Result<Vec<Self>, TlsError> {
        let content = super::read_file(path)?;
        let origin = || path.display().to_string();
        let lists: Vec<_> = if content.starts_with(&[super::der::SEQUENCE]) {
            vec![CertificateRevocationListDer::from(content)]
        } else {
            CertificateRevocationListDer::pem_slice_iter(&content)
                .collect::<Result<_, _>>()
                .map_err(|cause| TlsError::Pem { origin: origin(), cause })?
        };
        if lists.is_empty() {
            return Err(TlsError::NoRevocationList { origin: origin() });
        }
        Ok(lists.into_iter().map(Self).collect())
    }
}

impl ClientAuth {
    /// The verifier.
    ///
    /// # Errors
    /// A list of revoked certificates that does not parse.
    pub(super) fn verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let mut builder = WebPkiClientVerifier::builder_with_provider(self.roots.store(), provider());
        if !self.revoked.is_empty() {
            let lists = self.revoked.iter().map(|list| list.0.clone());
            // Of the client's certificate alone: intermediates are the authorities' business, who rarely list them.
            builder = builder.with_crls(lists).only_check_end_entity_revocation();
        }
        if !self.required {
            builder = builder.allow_unauthenticated();
        }
        let inner = builder.build().map_err(|cause| TlsError::Config(Error::General(cause.to_string())))?;
        Ok(match self.verify_depth {
            None => inner,
            Some(most) => Arc::new(Shallow { inner, most: most.into() }),
        })
    }

    /// The same for the same demands, and for no others: what a session was verified by.
    pub(super) fn scope(&self) -> [u8; 32] {
        let mut hash = Context::new(&SHA256);
        hash.update(&[u8::from(self.required), self.verify_depth.unwrap_or(u8::MAX)]);
        let mut part = |bytes: &[u8]| {
            hash.update(&(bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        for anchor in &self.roots.store().roots {
            part(&anchor.subject);
            part(&anchor.subject_public_key_info);
        }
        self.revoked.iter().for_each(|list| part(&list.0));
        let mut scope = [0; 32];
        scope.copy_from_slice(hash.finish().as_ref());
        scope
    }
}

/// A verifier that bounds the length of chains.
#[derive(Debug)]
struct Shallow {
    inner: Arc<dyn ClientCertVerifier>,
    most: usize,
}

impl ClientCertVerifier for Shallow {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        within_depth(intermediates, self.most)?;
        self.inner.verify_client_cert(leaf, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Refuses a chain with more intermediates than allowed. Those that were sent are counted, as rustls does not say which
/// of them led to the authority.
pub(super) fn within_depth(intermediates: &[CertificateDer<'_>], most: usize) -> Result<(), Error> {
    if intermediates.len() > most {
        return Err(Error::InvalidCertificate(CertificateError::UnknownIssuer));
    }
    Ok(())
}

/// Authorities that a client's certificate is judged by after the handshake, for one route or another.
#[derive(Clone, Debug)]
pub struct ClientJudge(Arc<dyn ClientCertVerifier>);

impl ClientJudge {
    /// A judge that takes what `roots` have signed.
    ///
    /// # Errors
    /// None of the authorities can be used.
    pub fn new(roots: Roots) -> Result<Self, TlsError> {
        let auth = ClientAuth { required: true, roots, verify_depth: None, revoked: Vec::new() };
        auth.verifier().map(Self)
    }

    /// Whether they have signed this client's certificate and it is valid now. Costs a signature or two: callers
    /// remember the answer.
    pub fn accepts(&self, peer: &Peer) -> bool {
        let Some((leaf, intermediates)) = peer.chain.split_first() else { return false };
        self.0.verify_client_cert(leaf, intermediates, UnixTime::now()).is_ok()
    }
}
