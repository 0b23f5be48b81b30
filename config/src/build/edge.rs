//! Certificates and listeners.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};

use super::{Builder, Document};
use crate::diagnostic::Fault;
use crate::fields::Fields;
use crate::model::{
    Alpn, CaCertificate, CaCertificateRef, Certificate, CertificateRef, HostPattern, Listener, ListenerTls,
    Pem, TlsVersion,
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
        let mut seen: HashMap<HostPattern, Span> = HashMap::new();
        for (document, fields) in self.all("certificates") {
            let reference = CertificateRef(self.certificates.len() as u32);
            self.names.certificates.add(Entity::Certificate, "name", &fields, reference);
            self.names.certificates.add(Entity::Certificate, "id", &fields, reference);
            let mut certificate = certificate(document, &fields);
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
        for (document, fields) in self.all("ca_certificates") {
            let reference = CaCertificateRef(self.ca_certificates.len() as u32);
            self.names.ca_certificates.add(Entity::CaCertificate, "name", &fields, reference);
            self.names.ca_certificates.add(Entity::CaCertificate, "id", &fields, reference);
            self.ca_certificates.push(CaCertificate {
                id: identity(&fields),
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
        for (_, fields) in written {
            let Some(listener) = self.listener(&fields) else { continue };
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
                origin,
            }
        };
        let mut listeners = vec![listener(DEFAULT_PORTS.0, None)];
        if !self.certificates.is_empty() {
            listeners.push(listener(DEFAULT_PORTS.1, Some(self.tls_of_all())));
        }
        listeners
    }

    fn listener(&self, fields: &Fields<'_>) -> Option<Listener> {
        let address = fields.socket_address("address")?;
        let tls = match fields.optional_section("tls") {
            Some(tls) => Some(self.listener_tls(&tls)),
            None if fields.optional_bool("tls") == Some(true) => Some(self.tls_of_all()),
            None => None,
        };
        let named = fields.section("tls").is_set("certificates");
        if tls.as_ref().is_some_and(|tls| tls.certificates.is_empty()) && !named {
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
            alpn: vec![Alpn::Http11],
            session_tickets: true,
        }
    }

    /// The first certificate that is not bound to server names.
    fn nameless(&self, certificates: &[CertificateRef]) -> Option<CertificateRef> {
        certificates.iter().copied().find(|one| self.certificates[one.index()].snis.is_empty())
    }

    fn listener_tls(&self, fields: &Fields<'_>) -> ListenerTls {
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
        } else if certificates.is_empty() && !self.certificates.is_empty() {
            fields.error(
                "certificates",
                Fault::new("the list is empty").hint("leave it out to offer every certificate"),
            );
        }
        certificates.extend(default.filter(|one| !certificates.contains(one)));
        let alpn: Vec<_> = fields.words("alpn");
        if alpn.contains(&"h2") {
            fields.warning("alpn", "`h2` is accepted, not acted on yet");
        }
        ListenerTls {
            default_certificate: default.or_else(|| self.nameless(&certificates)),
            certificates,
            min_version: if fields.word("min_version") == "1.3" {
                TlsVersion::V1_3
            } else {
                TlsVersion::V1_2
            },
            alpn: alpn.into_iter().map(|word| if word == "h2" { Alpn::H2 } else { Alpn::Http11 }).collect(),
            session_tickets: fields.bool("session_tickets"),
        }
    }
}

fn certificate(document: &Document<'_>, fields: &Fields<'_>) -> Certificate {
    Certificate {
        id: identity(fields),
        cert: pem(document, fields, "cert", "cert_file"),
        key: pem(document, fields, "key", "key_file"),
        snis: Vec::new(),
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
