//! Traefik's documents: resources of Kubernetes (`apiVersion: traefik.io/v1alpha1`) and the file provider's dynamic
//! configuration, version 3.
//!
//! Owns the gathering of documents, names, and routers. Every router becomes a service with one route, whose `rule` is
//! the router's own: rules need no translation. All documents of all files are one world, since a router in one refers
//! to middlewares in another. Next: `middlewares`, `services`.
//!
//! | Traefik | here |
//! |---|---|
//! | router | a service with one route: its rule, its priority, `strip_path: false` |
//! | entry points | nothing: every listener serves every route; a router with `tls` serves https only |
//! | service, TraefikService | host and port, or an upstream with targets |
//! | middleware | a plugin of the route |
//! | a middleware that is not defined | a route that answers 503: in Traefik the router would not exist |

mod breaker;
mod header_tables;
mod middleware_tables;
mod middlewares;
mod retry;
mod services;
mod tables;

use std::collections::BTreeMap;

use super::tree::{Map, list, plain, text};
use crate::diagnostic::{Diagnostics, Fault};
use crate::fields::Fields;
use crate::model::Defaults;
use crate::node::{Node, Value};
use crate::schema::Section;
use crate::schema::check::{Checker, Path};
use crate::source::Span;
use middlewares::Way;

/// The scope of everything in files, where names have no namespace.
const FILE_SCOPE: &str = "@file";
/// The namespace of resources that name none.
const NO_NAMESPACE: &str = "";

/// What a reference refers to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    /// The namespace, or [`FILE_SCOPE`].
    scope: String,
    name: String,
}

/// All documents, by kind, and what has been made of them.
struct Traefik<'a> {
    found: &'a Diagnostics,
    routers: Vec<(Name, Fields<'a>)>,
    ingress_routes: Vec<(Name, Fields<'a>)>,
    middlewares: BTreeMap<Name, Fields<'a>>,
    services: BTreeMap<Name, Fields<'a>>,
    transports: BTreeMap<Name, Fields<'a>>,
    tls_options: BTreeMap<Name, Fields<'a>>,
    kube_services: BTreeMap<Name, &'a Node>,
    secrets: BTreeMap<Name, &'a Node>,
    out: Out,
}

/// The lists of the configuration that comes out.
#[derive(Default)]
struct Out {
    services: Vec<Node>,
    routes: Vec<Node>,
    upstreams: Vec<Node>,
    certificates: Vec<Node>,
    authorities: Vec<Node>,
    made: Vec<String>,
}

/// Whether a document is one of Traefik's or belongs to a stream of its resources.
pub(crate) fn is_traefik(document: &Node) -> bool {
    if let Some(version) = document.get("apiVersion").and_then(Node::text) {
        return version.starts_with("traefik.") || document.get("kind").is_some();
    }
    let http = document.get("http");
    http.is_some_and(|http| {
        ["routers", "services", "middlewares", "serversTransports"].iter().any(|key| http.get(key).is_some())
    })
}

/// The configuration that these documents come to.
pub(crate) fn translate(documents: &[Node], found: &Diagnostics) -> Node {
    let span = documents.first().map(|one| one.span).unwrap_or_default();
    let mut traefik = Traefik {
        found,
        routers: Vec::new(),
        ingress_routes: Vec::new(),
        middlewares: BTreeMap::new(),
        services: BTreeMap::new(),
        transports: BTreeMap::new(),
        tls_options: BTreeMap::new(),
        kube_services: BTreeMap::new(),
        secrets: BTreeMap::new(),
        out: Out::default(),
    };
    documents.iter().for_each(|document| traefik.gather(document, 0));
    for (name, fields) in std::mem::take(&mut traefik.ingress_routes) {
        traefik.ingress_route(&name, &fields);
    }
    for (name, fields) in std::mem::take(&mut traefik.routers) {
        traefik.file_router(&name, &fields);
    }
    let out = traefik.out;
    let mut root = Map::new(span);
    for (key, nodes) in [
        ("services", out.services),
        ("routes", out.routes),
        ("upstreams", out.upstreams),
        ("certificates", out.certificates),
        ("ca_certificates", out.authorities),
    ] {
        if let Some(first) = nodes.first().map(|node| node.span) {
            root.put(key, list(first, nodes));
        }
    }
    root.node()
}

impl<'a> Traefik<'a> {
    fn gather(&mut self, document: &'a Node, depth: usize) {
        if document.get("apiVersion").is_none() {
            self.gather_file(document);
            return;
        }
        let kind = document.get("kind").and_then(Node::text).unwrap_or_default();
        if kind == "List" && depth < 4 {
            let items = document.get("items").map(Node::items).unwrap_or_default();
            items.iter().for_each(|item| self.gather(item, depth + 1));
            return;
        }
        let metadata = |key| document.get("metadata").and_then(|node| node.get(key)).and_then(Node::text);
        let Some(name) = metadata("name") else {
            self.found.error(document.span, "metadata", format!("a {kind} without `metadata.name`"));
            return;
        };
        let scope = metadata("namespace").filter(|&namespace| namespace != "default").unwrap_or(NO_NAMESPACE);
        let name = Name { scope: scope.to_owned(), name: name.to_owned() };
        let path = format!("{kind}/{}.spec", name.name);
        match kind {
            "IngressRoute" => {
                let fields = self.fields(document, &tables::INGRESS_ROUTE, &path);
                self.ingress_routes.extend(fields.map(|fields| (name, fields)));
            }
            "Middleware" => {
                self.keep(document, &middleware_tables::MIDDLEWARE, name, &path, |own| &mut own.middlewares)
            }
            "TraefikService" => {
                self.keep(document, &tables::TRAEFIK_SERVICE, name, &path, |own| &mut own.services)
            }
            "ServersTransport" => {
                self.keep(document, &tables::TRANSPORT, name, &path, |own| &mut own.transports)
            }
            "TLSOption" => {
                self.keep(document, &tables::TLS_OPTION, name.clone(), &path, |own| &mut own.tls_options);
                self.tls_option(&name);
            }
            "Service" => drop(self.kube_services.insert(name, document)),
            "Secret" => drop(self.secrets.insert(name, document)),
            _ => self.found.warning(
                document.span,
                "kind",
                format!("a {kind} is not read: `{}` is left out", name.name),
            ),
        }
    }

    fn fields(&self, document: &'a Node, section: &'static Section, path: &str) -> Option<Fields<'a>> {
        let Some(spec) = document.get("spec") else {
            self.found.error(document.span, path, "the resource has no `spec`");
            return None;
        };
        self.checked(spec, section, path)
    }

    fn checked(&self, node: &'a Node, section: &'static Section, path: &str) -> Option<Fields<'a>> {
        let checker = Checker { found: self.found, differences: None };
        checker.section(node, section, &Path::Base(path));
        let fields = Fields::new(node, section, path, Defaults::Portcullis, self.found);
        matches!(node.value, Value::Map(_)).then_some(fields)
    }

    fn keep(
        &mut self,
        document: &'a Node,
        section: &'static Section,
        name: Name,
        path: &str,
        list: impl Fn(&mut Self) -> &mut BTreeMap<Name, Fields<'a>>,
    ) {
        let Some(fields) = self.fields(document, section, path) else { return };
        let found = self.found;
        if let Some(first) = list(self).get(&name) {
            let place = found.place(first.origin().span);
            let fault = Fault::new(format!("`{}` is defined twice", name.name));
            found.error(document.span, path, fault.hint(format!("it was first given at {place}")));
            return;
        }
        list(self).insert(name, fields);
    }

    fn gather_file(&mut self, document: &'a Node) {
        let checker = Checker { found: self.found, differences: None };
        checker.section(document, &tables::FILE, &Path::Base(""));
        let http = document.get("http");
        let maps = |key: &str| http.and_then(|http| http.get(key)).map(Node::entries).unwrap_or_default();
        let of = |key: &str, section: &'static Section| {
            let path = format!("http.{key}");
            let fields = move |name: &str, node: &'a Node, found: &'a Diagnostics| {
                Fields::new(node, section, format!("{path}.{name}"), Defaults::Portcullis, found)
            };
            let entries = maps(key).iter().filter(|entry| matches!(entry.value.value, Value::Map(_)));
            entries
                .map(|entry| {
                    let name = Name { scope: FILE_SCOPE.to_owned(), name: entry.name.clone() };
                    (name, fields(&entry.name, &entry.value, self.found))
                })
                .collect::<Vec<_>>()
        };
        let (middlewares, services) =
            (of("middlewares", &middleware_tables::MIDDLEWARE), of("services", &tables::TRAEFIK_SERVICE));
        let (transports, routers) =
            (of("serversTransports", &tables::TRANSPORT), of("routers", &tables::ROUTER));
        self.middlewares.extend(middlewares);
        self.services.extend(services);
        self.transports.extend(transports);
        self.routers.extend(routers);
        let certificates = document.get("tls").and_then(|tls| tls.get("certificates")).map(Node::items);
        for (index, node) in certificates.unwrap_or_default().iter().enumerate() {
            let mut entry = Map::new(node.span).with("name", text(node.span, format!("file-{index}")));
            entry.maybe("cert_file", node.get("certFile").cloned());
            entry.maybe("key_file", node.get("keyFile").cloned());
            self.out.certificates.push(entry.node());
        }
    }

    fn tls_option(&self, name: &Name) {
        let Some(fields) = self.tls_options.get(name) else { return };
        if let Some(version) = fields.optional_word("minVersion") {
            let ours = if version == "VersionTLS13" { "1.3" } else { "1.2" };
            let fault = Fault::new("TLS is a matter of listeners here: this resource changes nothing");
            fields.warning(
                "minVersion",
                fault.hint(format!("write `tls: {{min_version: \"{ours}\"}}` at the listener")),
            );
        }
    }

    fn ingress_route(&mut self, name: &Name, fields: &Fields<'a>) {
        let routes = fields.sections("routes");
        let many = routes.len() > 1;
        let tls = fields.optional_section("tls");
        if let Some(tls) = &tls {
            self.certificate(tls, name);
        }
        for (index, route) in routes.iter().enumerate() {
            let mut own = match name.scope.as_str() {
                NO_NAMESPACE => name.name.clone(),
                namespace => format!("{namespace}-{}", name.name),
            };
            if many {
                own = format!("{own}-{index}");
            }
            let names = self.references(route, "middlewares", &name.scope);
            let way = self.way(&names);
            let services = route.sections("services");
            let pool = if services.is_empty() { None } else { self.pool(&services, &name.scope, 0) };
            if services.is_empty() && way.broken.is_none() {
                let origin = route.origin();
                self.found.warning(
                    origin.span,
                    &origin.path,
                    "the router has no service, so only plugins can answer",
                );
            }
            let protocols = self.protocols(fields, tls.is_some());
            let router =
                Router { name: own, rule: route.get("match"), priority: route.get("priority"), protocols };
            self.router(router, way, pool, route.origin().span);
        }
    }

    fn file_router(&mut self, name: &Name, fields: &Fields<'a>) {
        let names = self.references(fields, "middlewares", FILE_SCOPE);
        let way = self.way(&names);
        let service = fields.optional_string("service").map(|text| self.name(&text, None, FILE_SCOPE));
        let pool = service.and_then(|service| self.named_pool(&service, fields.span_of("service"), 0));
        let section = fields.optional_section("tls");
        let tls = section.is_some() || fields.optional_bool("tls") == Some(true);
        let protocols = self.protocols(fields, tls);
        let router = Router {
            name: name.name.clone(),
            rule: fields.get("rule"),
            priority: fields.get("priority"),
            protocols,
        };
        self.router(router, way, pool, fields.origin().span);
    }

    fn router(&mut self, router: Router<'_>, way: Way, pool: Option<services::Pool<'a>>, span: Span) {
        let mut route = Map::new(span).with("name", text(span, router.name.clone()));
        route.maybe("rule", router.rule.cloned());
        route.maybe("priority", router.priority.cloned());
        let protocols = router.protocols.iter().map(|protocol| plain(span, protocol));
        route.put("protocols", list(span, protocols.collect()));
        route.put("strip_path", plain(span, false));
        if let Some(pool) = &pool {
            route.put("preserve_host", plain(span, pool.pass_host));
        }
        let plugin = |name: &str, config: Map| {
            let config = config.node();
            Map::new(config.span).with("name", text(config.span, name)).with("config", config).node()
        };
        let plugins = match &way.broken {
            Some((message, span)) => {
                let config = Map::new(*span)
                    .with("status_code", plain(*span, 503))
                    .with("message", text(*span, message.clone()));
                vec![plugin("request-termination", config)]
            }
            None => {
                let mirror =
                    pool.as_ref().and_then(|pool| pool.mirror.clone()).map(|config| ("mirror", config));
                way.plugins.into_iter().chain(mirror).map(|(name, config)| plugin(name, config)).collect()
            }
        };
        if !plugins.is_empty() {
            route.put("plugins", list(span, plugins));
        }
        match pool {
            Some(pool) => {
                let mut service = self.service(&router.name, &pool, way.retry, way.breaker);
                service.put("routes", list(span, vec![route.node()]));
                self.out.services.push(service.node());
            }
            None => self.out.routes.push(route.node()),
        }
    }

    /// What entry points and TLS come to.
    fn protocols(&self, fields: &Fields<'_>, tls: bool) -> &'static [&'static str] {
        let points = fields.strings("entryPoints");
        let odd: Vec<_> = points
            .iter()
            .filter(|point| !matches!(point.as_str(), "web" | "websecure" | "http" | "https"))
            .collect();
        if let Some(odd) = odd.first() {
            let fault = Fault::new(format!(
                "the entry point `{odd}` selects nothing: every listener serves every route"
            ));
            fields.warning(
                "entryPoints",
                fault.hint("add a condition to the rule if this router must not be reached from everywhere"),
            );
        }
        if tls {
            return &["https"];
        }
        let secure = |point: &String| matches!(point.as_str(), "websecure" | "https");
        if points.iter().any(secure) {
            let fault = Fault::new(
                "`websecure` without `tls`: in Traefik the router serves https only if the entry point has TLS of its own",
            );
            fields.warning(
                "entryPoints",
                fault.hint("write `tls: {}`; until then the route serves http and https"),
            );
            return &["http", "https"];
        }
        if points.is_empty() { &["http", "https"] } else { &["http"] }
    }

    /// The certificate that a router brings along.
    fn certificate(&mut self, tls: &Fields<'_>, owner: &Name) {
        let Some(secret) = tls.optional_string("secretName") else { return };
        let name = Name { scope: owner.scope.clone(), name: secret.clone() };
        if self.out.made.contains(&secret) {
            return;
        }
        let (cert, key) = (self.secret_text(&name, "tls.crt"), self.secret_text(&name, "tls.key"));
        let (Some(cert), Some(key)) = (cert, key) else {
            let fault = Fault::new(format!(
                "there is no Secret `{secret}` with `tls.crt` and `tls.key` in these files"
            ));
            tls.warning("secretName", fault.hint("give its certificate under `certificates`"));
            return;
        };
        let span = tls.span_of("secretName");
        let entry = Map::new(span).with("name", text(span, secret.clone()));
        let entry = entry.with("cert", text(span, cert)).with("key", text(span, key));
        self.out.made.push(secret);
        self.out.certificates.push(entry.node());
    }

    /// The references of a list: texts in files, maps in resources.
    fn references(&self, fields: &Fields<'_>, key: &str, scope: &str) -> Vec<(Name, Span)> {
        let items = fields.get(key).map(Node::items).unwrap_or_default();
        let name = |node: &Node| match node.text() {
            Some(text) => Some((self.name(text, None, scope), node.span)),
            None => {
                let inner = node.get("name")?;
                let namespace = node.get("namespace").and_then(Node::text);
                Some((self.name(inner.text()?, namespace, scope), inner.span))
            }
        };
        items.iter().filter_map(name).collect()
    }

    fn name_in(&self, reference: &Fields<'_>, scope: &str) -> Name {
        let namespace = reference.optional_string("namespace");
        self.name(&reference.string("name"), namespace.as_deref(), scope)
    }

    /// What a reference means: `name`, `name@file`, or `namespace-name@kubernetescrd`.
    fn name(&self, text: &str, namespace: Option<&str>, scope: &str) -> Name {
        let in_scope = |scope: &str, name: &str| Name { scope: scope.to_owned(), name: name.to_owned() };
        if let Some(name) = text.strip_suffix("@file") {
            return in_scope(FILE_SCOPE, name);
        }
        if let Some(joined) = text.strip_suffix("@kubernetescrd") {
            let namespaces = |name: &&Name| {
                let namespace = if name.scope == NO_NAMESPACE { "default" } else { &name.scope };
                format!("{namespace}-{}", name.name) == joined
            };
            let known = self.middlewares.keys().chain(self.services.keys()).chain(self.transports.keys());
            if let Some(found) = known.into_iter().find(namespaces) {
                return found.clone();
            }
        }
        match namespace {
            Some("default") => in_scope(NO_NAMESPACE, text),
            Some(namespace) => in_scope(namespace, text),
            None => in_scope(scope, text),
        }
    }

    /// A value of a Secret: plain in `stringData`, in base64 in `data`.
    fn secret_text(&self, name: &Name, key: &str) -> Option<String> {
        let secret = self.secrets.get(name)?;
        let value = |part: &str| secret.get(part)?.get(key)?.text();
        match value("stringData") {
            Some(text) => Some(text.to_owned()),
            None => String::from_utf8(base64(value("data")?)?).ok(),
        }
    }
}

/// One router, of a resource or of a file.
struct Router<'n> {
    name: String,
    rule: Option<&'n Node>,
    priority: Option<&'n Node>,
    protocols: &'static [&'static str],
}

impl Out {
    fn add_authority(&mut self, id: &str, entry: Map) {
        let key = format!("ca:{id}");
        if !self.made.contains(&key) {
            self.made.push(key);
            self.authorities.push(entry.node());
        }
    }
}

/// RFC 4648 section 4, line breaks passed over.
fn base64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text.bytes().filter(|byte| !byte.is_ascii_whitespace()).take_while(|&byte| byte != b'=') {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    Some(out)
}
