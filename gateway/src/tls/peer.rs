//! Who is on the other side: what a client's certificate says once it has verified.
//!
//! Owns: reading names out of it, and the text of `X-Forwarded-Client-Cert` (Envoy's format). Never: trust; a [`Peer`] is
//! made of a certificate that a handshake accepted. Invariant: names are read by webpki, the parser that verifies; the
//! subject, which webpki does not read, serves for show and for the common name only.

use std::fmt::Write as _;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;

use super::der::{self, Reader, SEQUENCE, SET};

/// The verified certificate of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// SHA-256 of the certificate.
    pub fingerprint: [u8; 32],
    /// RFC 4514, as in `CN=ann,O=Shop`; empty where there is none.
    pub subject: String,
    /// The common name: the last one of the subject.
    pub common_name: Option<String>,
    /// Subject alternative names that are DNS names.
    pub dns: Vec<String>,
    /// Subject alternative names that are URIs, such as SPIFFE identities.
    pub uris: Vec<String>,
    /// Subject alternative names that are mail addresses.
    pub emails: Vec<String>,
    /// Serial number, as hex.
    pub serial: String,
    /// As sent: leaf first. Kept for those who judge it by authorities of their own.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// What upstreams are told.
    xfcc: String,
}

impl Peer {
    /// Reads a chain, leaf first; `None` where webpki would not read it either.
    pub(super) fn new(chain: &[CertificateDer<'_>]) -> Option<Arc<Self>> {
        let leaf = chain.first()?;
        let parsed = webpki::EndEntityCert::try_from(leaf).ok()?;
        let fingerprint = digest(&SHA256, leaf).as_ref().try_into().ok()?;
        let names = subject(parsed.subject());
        let mut peer = Self {
            fingerprint,
            common_name: names.iter().rev().find(|(kind, _)| *kind == "CN").map(|(_, text)| text.clone()),
            subject: rfc4514(&names),
            dns: parsed.valid_dns_names().map(str::to_ascii_lowercase).collect(),
            uris: parsed.valid_uri_names().map(str::to_owned).collect(),
            emails: emails(leaf).unwrap_or_default(),
            serial: hex(parsed.serial()),
            chain: chain.iter().map(|one| one.clone().into_owned()).collect(),
            xfcc: String::new(),
        };
        peer.xfcc = peer.render();
        Some(Arc::new(peer))
    }

    /// The element of `X-Forwarded-Client-Cert` for this certificate.
    pub fn xfcc(&self) -> &str {
        &self.xfcc
    }

    fn render(&self) -> String {
        let mut text = format!("Hash={}", hex(&self.fingerprint));
        // Envoy quotes the subject always, others where they need it.
        let _ = write!(text, ";Subject=\"{}\"", escape(&self.subject));
        let named = [("URI", &self.uris), ("DNS", &self.dns)];
        for (name, value) in
            named.into_iter().flat_map(|(name, values)| values.iter().map(move |v| (name, v)))
        {
            let special = value.contains([',', ';', '=', '"', '\\']);
            let _ = match special {
                true => write!(text, ";{name}=\"{}\"", escape(value)),
                false => write!(text, ";{name}={value}"),
            };
        }
        text
    }
}

/// What may stand between quotes in a field: quotes and backslashes escaped, what no field may hold left out.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            _ if character.is_control() => out.push('?'),
            _ => out.push(character),
        }
    }
    out
}

/// Lower-case hex digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The attributes of a name (RFC 5280 section 4.1.2.4), in its order; those that cannot be read are left out. `content`
/// is that of the SEQUENCE.
fn subject(content: &[u8]) -> Vec<(&'static str, String)> {
    let mut names = Vec::new();
    let mut sets = Reader::new(content);
    while let Some(mut set) = sets.inside(SET) {
        while let Some(mut pair) = set.inside(SEQUENCE) {
            let (Some(oid), Some((_, value))) = (pair.optional(der::OID), pair.any()) else { continue };
            // Printable, UTF-8, IA5 and T61 strings that matter are UTF-8; others are shown as they can be.
            if let Some(kind) = attribute(oid) {
                names.push((kind, String::from_utf8_lossy(value).into_owned()));
            }
        }
    }
    names
}

/// Names of RFC 4514 section 3, and the usual ones beside them.
fn attribute(oid: &[u8]) -> Option<&'static str> {
    Some(match oid {
        [0x55, 4, 3] => "CN",
        [0x55, 4, 4] => "SN",
        [0x55, 4, 5] => "serialNumber",
        [0x55, 4, 6] => "C",
        [0x55, 4, 7] => "L",
        [0x55, 4, 8] => "ST",
        [0x55, 4, 9] => "street",
        [0x55, 4, 10] => "O",
        [0x55, 4, 11] => "OU",
        [0x55, 4, 12] => "title",
        [0x55, 4, 42] => "GN",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1] => "UID",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25] => "DC",
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1] => "emailAddress",
        _ => return None,
    })
}

/// RFC 4514 section 2: the last attribute first, special characters escaped.
fn rfc4514(names: &[(&'static str, String)]) -> String {
    let mut text = String::new();
    for (kind, value) in names.iter().rev() {
        if !text.is_empty() {
            text.push(',');
        }
        let _ = write!(text, "{kind}=");
        for (at, character) in value.char_indices() {
            let edge = at == 0 && matches!(character, ' ' | '#')
                || at + character.len_utf8() == value.len() && character == ' ';
            if edge || matches!(character, '"' | '+' | ',' | ';' | '<' | '>' | '\\') {
                text.push('\\');
            }
            text.push(if character.is_control() { '?' } else { character });
        }
    }
    text
}

/// The mail addresses among the subject alternative names, which webpki does not list.
fn emails(certificate: &[u8]) -> Option<Vec<String>> {
    const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
    let mut body = Reader::new(certificate).inside(SEQUENCE)?.inside(SEQUENCE)?;
    // Extensions stand last, under [3].
    let mut extensions = loop {
        match body.any()? {
            (tag, content) if tag == der::context(3) => break Reader::new(content).inside(SEQUENCE)?,
            _ => {}
        }
    };
    let mut found = Vec::new();
    while let Some(mut extension) = extensions.inside(SEQUENCE) {
        if extension.optional(der::OID) != Some(SUBJECT_ALT_NAME) {
            continue;
        }
        extension.optional(0x01); // critical
        let mut names = Reader::new(extension.optional(der::OCTET_STRING)?).inside(SEQUENCE)?;
        while let Some((tag, value)) = names.any() {
            // rfc822Name [1] IA5String
            if tag == 0x81 && value.is_ascii() {
                found.push(String::from_utf8_lossy(value).into_owned());
            }
        }
    }
    Some(found)
}

/// A client with a certificate made on the spot, for unit tests.
#[cfg(test)]
pub fn fixture(params: &rcgen::CertificateParams) -> Arc<Peer> {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    Peer::new(std::slice::from_ref(certificate.der())).unwrap()
}

/// As [`fixture`], signed by an authority.
#[cfg(test)]
pub fn signed_fixture(
    params: &rcgen::CertificateParams,
    authority: &rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
) -> Arc<Peer> {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    Peer::new(std::slice::from_ref(certificate.der())).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, SanType};

    fn peer(make: impl FnOnce(&mut CertificateParams)) -> Arc<Peer> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        make(&mut params);
        fixture(&params)
    }

    #[test]
    fn names_of_a_certificate() {
        let peer = peer(|params| {
            params.distinguished_name.push(DnType::OrganizationName, "Shop, \"Inc\"");
            params.distinguished_name.push(DnType::CommonName, "ann");
            params.subject_alt_names = vec![
                SanType::DnsName("Ann.Example".try_into().unwrap()),
                SanType::URI("spiffe://shop/ann;x".try_into().unwrap()),
                SanType::Rfc822Name("ann@shop.example".try_into().unwrap()),
            ];
        });
        assert_eq!(peer.subject, r#"CN=ann,O=Shop\, \"Inc\""#);
        assert_eq!(peer.common_name.as_deref(), Some("ann"));
        assert_eq!(peer.dns, ["ann.example"]);
        assert_eq!(peer.uris, ["spiffe://shop/ann;x"]);
        assert_eq!(peer.emails, ["ann@shop.example"]);
        let expected = format!(
            r#"Hash={};Subject="CN=ann,O=Shop\\, \\\"Inc\\\"";URI="spiffe://shop/ann;x";DNS=ann.example"#,
            hex(&peer.fingerprint)
        );
        assert_eq!(peer.xfcc(), expected);
    }

    #[test]
    fn a_certificate_without_names() {
        let peer = peer(|_| {});
        assert_eq!((peer.subject.as_str(), &peer.common_name, peer.dns.len()), ("", &None, 0));
        assert!(peer.xfcc().ends_with(r#";Subject="""#), "{}", peer.xfcc());
    }

    #[test]
    fn nothing_gets_out_of_its_field() {
        let peer = peer(|params| params.distinguished_name.push(DnType::CommonName, "a\r\nX-Evil: 1\0"));
        assert!(!peer.xfcc().contains(['\r', '\n', '\0']), "{}", peer.xfcc());
    }
}
