//! Certificates and listeners.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};

use super::{Builder, Document};
use crate::diagnostic::Fault;
use crate::fields::Fields;
use crate::model::{
    Alpn, CaCertificate, CaCertificateRef, Certificate, CertificateRef, Cipher, ClientAuth, ClientAuthMode,
    Curve, ForwardedClientCert, HostPattern, Hsts, Listener, ListenerTls, Passthrough, Pem, RealIpHeader,
    RedirectHttps, Tickets, TlsVersion,
};
use crate::node::Node;
use crate::schema::{Entity, text};
use crate::secret::Secret;
use crate::source::{Origin, Span};

/// Where a configuration without listeners listens: Kong's `proxy_listen`.
const DEFAULT_PORTS: (u16, u16) = (8000, 8443);
const DEFAULT_BACKLOG: u32 = 4096;

impl<'a> Builder<'a> {
    /// Builds certificates, server names and authorities.
    pub(super) fn build_certificates(&mut self) {
        self.build_authorities();
        let mut seen: HashMap<HostPattern, Span> = HashMap::new();
        for (document, fields) in self.all("certificates") {
            let reference = CertificateRef(self.certificates.len() as u32);
            self.names.certificates.add(Entity::Certificate, "name", &fields, reference);
            self.names.certificates.add(Entity::Certificate, "id", &fields, reference);
            let mut certificate = certificate(document, &fields);
            if let Some(auth) = fields.optional_section("client_auth") {
                certificate.client_auth = Some(self.client_auth(document, &auth));
            }
            let items = fields.get("snis").map(Node::items).unwrap_or_default().iter().enumerate();
            for (index, node) in items {
                let path = format!("{}[{index}]", fields.path_of("snis"));
                certificate.snis.extend(self.sni(node, node.get("name").unwrap_or(node), &path, &mut seen));
            }
            self.certificates.push(certificate);
        }
        for (_, fields) in self.all("snis") {
            let owner = fields.reference("certificate").and_then(|one| {
                let path = fields.path_of("certificate");
                self.names.certificates.resolve(Entity::Certificate, &one, &path, self.found)
            });
            if !fields.is_set("certificate") {
                fields.error(
                    "certificate",
                    Fault::new("the server name belongs to no certificate").hint("set `certificate`"),
                );
            }
            let (Some(owner), Some(node)) = (owner, fields.get("name")) else { continue };
            let sni = self.sni(node, node, fields.path(), &mut seen);
            self.certificates[owner.index()].snis.extend(sni);
        }
    }

    fn build_authorities(&mut self) {
        for (document, fields) in self.all("ca_certificates") {
            let reference = CaCertificateRef(self.ca_certificates.len() as u32);
            self.names.ca_certificates.add(Entity::CaCertificate, "name", &fields, reference);
            self.names.ca_certificates.add(Entity::CaCertificate, "id", &fields, reference);
            self.ca_certificates.push(CaCertificate {
                id: identity(&fields),
                uuid: fields.optional_string("id"),
                cert: pem(document, &fields, "cert", "cert_file"),
                tags: fields.strings("tags"),
                origin: fields.origin(),
            });
        }
    }

    fn sni(
        &self,
        node: &Node,
        name: &Node,
        path: &str,
        seen: &mut HashMap<HostPattern, Span>,
    ) -> Option<HostPattern> {
        let (name, port) = text::host_pattern(name.text()?).ok()?;
        if port.is_some() {
            self.found.error(node.span, path, "a TLS server name has no port");
        }
        let pattern = HostPattern { name, port: None };
        if let Some(first) = seen.insert(pattern.clone(), node.span) {
            let hint = format!("it was first given at {}", self.found.place(first));
            self.found.error(
                node.span,
                path,
                Fault::new("the server name belongs to a certificate already").hint(hint),
            );
        }
        Some(pattern)
    }

    /// Builds the listeners, or those that Kong would have when there are none.
    pub(super) fn build_listeners(&self) -> Vec<Listener> {
        let written = self.all("listeners");
        if written.is_empty() {
            return self.default_listeners();
        }
        let mut listeners: Vec<Listener> = Vec::new();
        for (document, fields) in written {
            let Some(listener) = self.listener(document, &fields) else { continue };
            for other in &listeners {
                let place = || format!("it was first given at {}", self.found.place(other.origin.span));
                if other.address == listener.address {
                    let fault = Fault::new(format!("another listener has the address {}", other.address));
                    fields.error("address", fault.hint(place()));
                }
                if other.name == listener.name && other.address != listener.address {
                    let fault = Fault::new(format!("another listener has the name `{}`", other.name));
                    fields.error("name", fault.hint(place()));
                }
            }
            listeners.push(listener);
        }
        listeners
    }

    fn default_listeners(&self) -> Vec<Listener> {
        let listener = |port, tls| {
            let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
            let (name, origin) = (address.to_string(), Origin::default());
            Listener {
                name,
                address,
                h2c: false,
                proxy_protocol: false,
                backlog: DEFAULT_BACKLOG,
                tls,
                redirect_https: None,
                hsts: None,
                forwarded_client_cert: ForwardedClientCert::default(),
                origin,
            }
        };
        let mut listeners = vec![listener(DEFAULT_PORTS.0, None)];
        if !self.certificates.is_empty() {
            listeners.push(listener(DEFAULT_PORTS.1, Some(self.tls_of_all())));
        }
        listeners
    }

    fn listener(&self, document: &Document<'_>, fields: &Fields<'_>) -> Option<Listener> {
        let address = fields.socket_address("address")?;
        let tls = match fields.optional_section("tls") {
            Some(tls) => Some(self.listener_tls(document, &tls)),
            None if fields.optional_bool("tls") == Some(true) => Some(self.tls_of_all()),
            None => None,
        };
        let named = fields.section("tls").is_set("certificates");
        let needs = |tls: &ListenerTls| tls.certificates.is_empty() && tls.passthrough != Passthrough::Only;
        if tls.as_ref().is_some_and(needs) && !named {
            fields.error(
                "tls",
                Fault::new("there is no certificate to offer").hint("add one under `certificates`"),
            );
        }
        Some(Listener {
            name: fields.optional_string("name").unwrap_or_else(|| address.to_string()),
            address,
            h2c: fields.bool("h2c"),
            proxy_protocol: fields.bool("proxy_protocol"),
            backlog: fields.integer("backlog"),
            redirect_https: redirect_https(fields, tls.is_some()),
            hsts: hsts(fields, tls.is_some()),
            forwarded_client_cert: forwarded_client_cert(fields),
            tls,
            origin: fields.origin(),
        })
    }

    fn tls_of_all(&self) -> ListenerTls {
        let certificates: Vec<_> = (0..self.certificates.len() as u32).map(CertificateRef).collect();
        ListenerTls {
            default_certificate: self.nameless(&certificates),
            certificates,
            min_version: TlsVersion::V1_2,
            ciphers: Vec::new(),
            curves: Curve::DEFAULT.to_vec(),
            client_auth: ClientAuth::default(),
            passthrough: Passthrough::Off,
            alpn: vec![Alpn::H2, Alpn::Http11],
            session_tickets: true,
        }
    }

    /// The first certificate that is not bound to server names.
    fn nameless(&self, certificates: &[CertificateRef]) -> Option<CertificateRef> {
        certificates.iter().copied().find(|one| self.certificates[one.index()].snis.is_empty())
    }

    /// Whether, and how, clients are asked for certificates.
    fn client_auth(&self, document: &Document<'_>, fields: &Fields<'_>) -> ClientAuth {
        let mode = match fields.word("mode") {
            "none" => ClientAuthMode::None,
            "optional" => ClientAuthMode::Optional,
            _ => ClientAuthMode::Require,
        };
        let path = fields.path_of("ca_certificates");
        let authorities = fields.references("ca_certificates").into_iter();
        let ca_certificates: Vec<_> = authorities
            .filter_map(|one| {
                self.names.ca_certificates.resolve(Entity::CaCertificate, &one, &path, self.found)
            })
            .collect();
        let written = fields.get("ca_certificates").is_some_and(|node| !node.items().is_empty());
        if mode != ClientAuthMode::None && !written && !fields.has_unknown_keys() {
            let fault = Fault::new("no authority is given that certificates of clients must be signed by");
            fields.error("ca_certificates", fault.hint("name one of `ca_certificates`"));
        }
        let files = fields.strings("crl_files").into_iter();
        ClientAuth {
            mode,
            ca_certificates,
            verify_depth: fields.optional_integer("verify_depth"),
            crl_files: files.map(|path| document.folder.join(path)).collect(),
        }
    }

    /// Keys of session tickets.
    pub(super) fn tickets(&self) -> Tickets {
        let document = self.documents.iter().find(|one| one.root.is_set("tickets"));
        self.single("tickets"); // two are an error
        let Some(document) = document.or(self.documents.first()) else {
            return Tickets { key_file: None, rotation: std::time::Duration::ZERO };
        };
        let fields = document.root.section("tickets");
        Tickets {
            key_file: fields.optional_string("key_file").map(|path| document.folder.join(path)),
            rotation: fields.duration("rotation"),
        }
    }

    fn listener_tls(&self, document: &Document<'_>, fields: &Fields<'_>) -> ListenerTls {
        let resolve = |one, key: &str| {
            self.names.certificates.resolve(Entity::Certificate, &one, &fields.path_of(key), self.found)
        };
        let mut certificates: Vec<_> = fields
            .references("certificates")
            .into_iter()
            .filter_map(|one| resolve(one, "certificates"))
            .collect();
        let default =
            fields.reference("default_certificate").and_then(|one| resolve(one, "default_certificate"));
        if !fields.is_set("certificates") {
            certificates = (0..self.certificates.len() as u32).map(CertificateRef).collect();
        } else if certificates.is_empty()
            && !self.certificates.is_empty()
            && fields.word("passthrough") != "only"
        {
            fields.error(
                "certificates",
                Fault::new("the list is empty").hint("leave it out to offer every certificate"),
            );
        }
        certificates.extend(default.filter(|one| !certificates.contains(one)));
        let alpn: Vec<_> = fields.words("alpn");
        let client_auth = fields.optional_section("client_auth");
        let min_version = min_version(fields);
        ListenerTls {
            default_certificate: default
                .or_else(|| self.nameless(&certificates))
                .filter(|_| !fields.bool("strict_sni")),
            certificates,
            min_version,
            ciphers: ciphers(fields, min_version),
            curves: curves(fields),
            client_auth: client_auth.map(|auth| self.client_auth(document, &auth)).unwrap_or_default(),
            passthrough: match fields.word("passthrough") {
                "mixed" => Passthrough::Mixed,
                "only" => Passthrough::Only,
                _ => Passthrough::Off,
            },
            alpn: alpn.into_iter().map(|word| if word == "h2" { Alpn::H2 } else { Alpn::Http11 }).collect(),
            session_tickets: fields.bool("session_tickets"),
        }
    }
}

/// The oldest version: what is written, else what the policy says.
fn min_version(fields: &Fields<'_>) -> TlsVersion {
    let modern = fields.word("policy") == "modern";
    match fields.optional_word("min_version") {
        Some("1.2") if modern => {
            let fault = Fault::new("the policy `modern` is TLS 1.3 only");
            fields.error("min_version", fault.hint("write `policy: intermediate` for TLS 1.2"));
            TlsVersion::V1_2
        }
        Some("1.2") => TlsVersion::V1_2,
        None if !modern => TlsVersion::V1_2,
        _ => TlsVersion::V1_3,
    }
}

fn ciphers(fields: &Fields<'_>, min_version: TlsVersion) -> Vec<Cipher> {
    let ciphers: Vec<_> = fields.words("ciphers").into_iter().filter_map(Cipher::from_word).collect();
    let of = |version| ciphers.iter().filter(|cipher| cipher.version() == version).count();
    if min_version == TlsVersion::V1_3 && of(TlsVersion::V1_2) > 0 {
        fields.warning("ciphers", "suites of TLS 1.2 are listed, which this listener does not speak");
    }
    if !ciphers.is_empty() && of(TlsVersion::V1_3) == 0 {
        if min_version == TlsVersion::V1_3 {
            fields.error("ciphers", "no suite of TLS 1.3 is listed, the only version that is spoken");
        } else {
            let fault = Fault::new("no suite of TLS 1.3 is listed, so it is not spoken");
            fields.warning("ciphers", fault.hint("add `TLS_AES_128_GCM_SHA256`"));
        }
    }
    ciphers
}

fn curves(fields: &Fields<'_>) -> Vec<Curve> {
    let curves: Vec<_> = fields.words("curves").into_iter().filter_map(Curve::from_word).collect();
    if curves.is_empty() && fields.is_set("curves") {
        fields.error("curves", Fault::new("the list is empty").hint("leave it out for the usual groups"));
    }
    if curves.is_empty() { Curve::DEFAULT.to_vec() } else { curves }
}

fn redirect_https(fields: &Fields<'_>, tls: bool) -> Option<RedirectHttps> {
    let section = match fields.optional_section("redirect_https") {
        Some(section) => section,
        None if fields.bool("redirect_https") => fields.section("redirect_https"),
        None => return None,
    };
    if tls {
        fields.error("redirect_https", "a listener with TLS would redirect to itself");
    }
    let status = section.word("status").parse().unwrap_or(308);
    Some(RedirectHttps { status, port: section.integer("port") })
}

fn hsts(fields: &Fields<'_>, tls: bool) -> Option<Hsts> {
    let section = match fields.optional_section("hsts") {
        Some(section) => section,
        None if fields.bool("hsts") => fields.section("hsts"),
        None => return None,
    };
    let hsts = Hsts {
        max_age: section.duration("max_age"),
        include_subdomains: section.bool("include_subdomains"),
        preload: section.bool("preload"),
    };
    if !tls {
        // RFC 6797 section 7.2.
        fields.error(
            "hsts",
            Fault::new("it may not be sent over plain HTTP").hint("set it on the TLS listener"),
        );
    }
    let year = std::time::Duration::from_secs(31_536_000);
    if hsts.preload && (!hsts.include_subdomains || hsts.max_age < year) {
        let fault = Fault::new(
            "browsers take a name on their lists only with all names below it, for a year or more",
        );
        section.warning("preload", fault.hint("set `include_subdomains: true` and `max_age: 365d`"));
    }
    Some(hsts)
}

fn forwarded_client_cert(fields: &Fields<'_>) -> ForwardedClientCert {
    match fields.word("forwarded_client_cert") {
        "sanitize" => ForwardedClientCert::Sanitize,
        "append_forward" => ForwardedClientCert::AppendForward,
        "forward_only" => ForwardedClientCert::ForwardOnly,
        "always_forward_only" => ForwardedClientCert::AlwaysForwardOnly,
        _ => ForwardedClientCert::SanitizeSet,
    }
}

/// Where trusted proxies name the client.
pub(super) fn real_ip_header(fields: &Fields<'_>) -> RealIpHeader {
    match fields.string("real_ip_header").to_ascii_lowercase().as_str() {
        "x-forwarded-for" | "" => RealIpHeader::XForwardedFor,
        "forwarded" => RealIpHeader::Forwarded,
        "proxy_protocol" => RealIpHeader::ProxyProtocol,
        other => RealIpHeader::Other(other.to_owned()),
    }
}

fn certificate(document: &Document<'_>, fields: &Fields<'_>) -> Certificate {
    Certificate {
        id: identity(fields),
        cert: pem(document, fields, "cert", "cert_file"),
        key: pem(document, fields, "key", "key_file"),
        snis: Vec::new(),
        ocsp_file: fields.optional_string("ocsp_file").map(|path| document.folder.join(path)),
        client_auth: None,
        tags: fields.strings("tags"),
        origin: fields.origin(),
    }
}

/// What references call it: its name, else its id, else the way to it.
fn identity(fields: &Fields<'_>) -> String {
    let given = fields.optional_string("name").or_else(|| fields.optional_string("id"));
    given.unwrap_or_else(|| fields.path().to_owned())
}

fn pem(document: &Document<'_>, fields: &Fields<'_>, inline: &str, file: &str) -> Pem {
    if fields.is_set(inline) && fields.is_set(file) {
        fields.error(file, format!("`{file}` is given beside `{inline}`"));
    }
    if let Some(path) = fields.optional_string(file) {
        return Pem::File(document.folder.join(path));
    }
    if !fields.is_set(inline) {
        fields.error(inline, format!("neither `{inline}` nor `{file}` is given"));
    }
    Pem::Inline(Secret::new(fields.string(inline)))
}
