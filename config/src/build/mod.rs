//! Checked trees to the validated model.
//!
//! Owns the rules that span several keys or several files: references, duplicates, what must go together. The
//! shape of every value was checked before (`schema::check`); a value refused there reads as absent here, so
//! one mistake is reported once. It stops at nothing: all findings come out together, and the caller throws the
//! half-built model away when there was an error. Next: `names` (references), then `service`.
//!
//! The order is that of need: certificates, upstreams, services, routes, consumers, plugins, the rest.

mod consumer;
mod edge;
mod http;
mod http2;
mod kernel;
mod names;
mod plugin;
mod route;
mod runtime;
mod service;
mod traps;
mod upstream;

use std::path::{Path, PathBuf};

use self::names::AllNames;
pub(crate) use self::route::is_plain_path;
use crate::diagnostic::{Diagnostics, Fault};
use crate::fields::Fields;
use crate::model::{
    CaCertificate, Certificate, Config, Consumer, Defaults, Plugin, Route, Scope, Service, Upstream,
};
use crate::schema::PluginCatalog;
use crate::schema::check::Checker;

/// One file.
pub(crate) struct Document<'a> {
    /// Its top level.
    pub(crate) root: Fields<'a>,
    /// The folder that relative paths are against.
    pub(crate) folder: PathBuf,
}

impl Document<'_> {
    /// Whether paths follow the rules before format 3.0, where expressions have no `~`.
    fn has_old_paths(&self) -> bool {
        self.root.optional_word("_format_version").is_some_and(|version| version != "3.0")
    }
}

/// A plugin that was met while building something else.
struct PendingPlugin<'a> {
    fields: Fields<'a>,
    scope: Scope,
}

/// The model while it grows.
pub(crate) struct Builder<'a> {
    documents: &'a [Document<'a>],
    catalog: &'a dyn PluginCatalog,
    checker: Checker<'a>,
    found: &'a Diagnostics,
    defaults: Defaults,
    names: AllNames,
    certificates: Vec<Certificate>,
    ca_certificates: Vec<CaCertificate>,
    upstreams: Vec<Upstream>,
    services: Vec<Service>,
    routes: Vec<Route>,
    consumers: Vec<Consumer>,
    plugins: Vec<Plugin>,
    pending: Vec<PendingPlugin<'a>>,
    /// Routes that leave `strip_path` out.
    silent_about_strip_path: Vec<usize>,
}

impl<'a> Builder<'a> {
    pub(crate) fn new(
        documents: &'a [Document<'a>],
        catalog: &'a dyn PluginCatalog,
        checker: Checker<'a>,
        defaults: Defaults,
    ) -> Self {
        Self {
            documents,
            catalog,
            found: checker.found,
            checker,
            defaults,
            names: AllNames::default(),
            certificates: Vec::new(),
            ca_certificates: Vec::new(),
            upstreams: Vec::new(),
            services: Vec::new(),
            routes: Vec::new(),
            consumers: Vec::new(),
            plugins: Vec::new(),
            pending: Vec::new(),
            silent_about_strip_path: Vec::new(),
        }
    }

    /// Builds everything. `None` when there is no file to build from.
    pub(crate) fn build(mut self) -> Option<Config> {
        self.build_certificates();
        self.build_upstreams();
        let nested = self.build_services();
        self.build_routes(nested);
        self.build_consumers();
        self.build_plugins();
        let first = &self.documents.first()?.root;
        let timeouts = runtime::timeouts(&self.single("timeouts").unwrap_or(first).section("timeouts"));
        self.fill_service_timeouts(&timeouts);
        let single = |key| self.single(key).unwrap_or(first);
        let xdp = single("xdp");
        single("defaults");
        let limits = runtime::limits(&single("limits").section("limits"));
        self.warn_of_traps(&limits);
        Some(Config {
            defaults: self.defaults,
            listeners: self.build_listeners(),
            shards: runtime::shards(&single("shards").section("shards")),
            xdp: kernel::xdp(&xdp.section("xdp"), xdp.is_set("xdp"), self.folder_of("xdp")),
            http: http::http(&single("http").section("http")),
            http2: http2::http2(&single("http2").section("http2")),
            limits,
            timeouts,
            trusted_proxies: single("trusted_proxies").cidrs("trusted_proxies"),
            real_ip_header: edge::real_ip_header(single("real_ip_header")),
            real_ip_recursive: single("real_ip_recursive").bool("real_ip_recursive"),
            forwarded_header: single("forwarded_header").bool("forwarded_header"),
            tickets: self.tickets(),
            dns: runtime::dns(&single("dns").section("dns")),
            admin: runtime::admin(&single("admin").section("admin")),
            telemetry: runtime::telemetry(&single("telemetry").section("telemetry")),
            redis: single("redis").get("redis").cloned(),
            services: self.services,
            routes: self.routes,
            upstreams: self.upstreams,
            consumers: self.consumers,
            plugins: self.plugins,
            certificates: self.certificates,
            ca_certificates: self.ca_certificates,
            sources: self.found.sources().clone(),
        })
    }

    /// What relative paths in a section that only one file may have are against.
    fn folder_of(&self, key: &str) -> &'a Path {
        let written = self.documents.iter().find(|document| document.root.is_set(key));
        written.or(self.documents.first()).map_or(Path::new(""), |document| &document.folder)
    }

    /// The sections of one list over all files.
    fn all(&self, key: &str) -> Vec<(&'a Document<'a>, Fields<'a>)> {
        let documents = self.documents.iter();
        documents
            .flat_map(|document| document.root.sections(key).into_iter().map(move |one| (document, one)))
            .collect()
    }

    /// The one file that has a section of which there may be one.
    fn single(&self, key: &str) -> Option<&'a Fields<'a>> {
        let mut having = self.documents.iter().map(|document| &document.root).filter(|root| root.is_set(key));
        let first = having.next()?;
        for other in having {
            let place = self.found.place(first.span_of(key));
            let fault = Fault::new(format!("`{key}` is given in two files"))
                .hint(format!("it was first given at {place}"));
            other.error(key, fault);
        }
        Some(first)
    }
}

/// Whose defaults the files ask for, and whether they ask at all.
pub(crate) fn defaults_of(documents: &[Document<'_>]) -> (Defaults, bool) {
    let word = documents
        .iter()
        .filter(|one| one.root.is_set("defaults"))
        .map(|one| one.root.word("defaults"))
        .next();
    match word {
        Some("kong") => (Defaults::Kong, true),
        word => (Defaults::Portcullis, word.is_some()),
    }
}
