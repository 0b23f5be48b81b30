//! Services.

use super::{Builder, Document, PendingPlugin};
use crate::diagnostic::Fault;
use crate::fields::Fields;
use crate::model::{
    Address, Defaults, Destination, HttpVersion, Protocol, ProxyHeader, RetryPolicy, Scope, Service,
    ServiceRef, SubjectNames, Timeouts, UpstreamTls,
};
use crate::schema::Entity;
use crate::schema::text::{self, Host};

/// A route that is written inside a service.
pub(super) struct NestedRoute<'a> {
    pub(super) document: &'a Document<'a>,
    pub(super) fields: Fields<'a>,
    pub(super) service: ServiceRef,
}

/// Where a service is, before its host is looked up.
struct Location {
    protocol: Protocol,
    host: String,
    port: u16,
    path: Option<String>,
    /// The key that errors about the host belong to.
    key: &'static str,
    /// Whether the port was left out and is not Kong's 80.
    takes_tls_port: bool,
}

impl<'a> Builder<'a> {
    /// Builds the services; gives back the routes nested in them.
    pub(super) fn build_services(&mut self) -> Vec<NestedRoute<'a>> {
        let mut nested = Vec::new();
        for (document, fields) in self.all("services") {
            let reference = ServiceRef(self.services.len() as u32);
            self.names.services.add(Entity::Service, "name", &fields, reference);
            self.names.services.add(Entity::Service, "id", &fields, reference);
            let routes = fields.sections("routes").into_iter();
            nested.extend(routes.map(|fields| NestedRoute { document, fields, service: reference }));
            let scope = Scope { service: Some(reference), ..Scope::default() };
            let plugins = fields.sections("plugins").into_iter();
            self.pending.extend(plugins.map(|fields| PendingPlugin { fields, scope }));
            let service = self.service(&fields);
            self.services.push(service);
        }
        nested
    }

    fn service(&self, fields: &Fields<'a>) -> Service {
        let location = location(fields);
        let destination = self.destination(&location, fields);
        if matches!(location.protocol, Protocol::Ws | Protocol::Wss | Protocol::Tls | Protocol::Udp) {
            let key = if fields.is_set("url") { "url" } else { "protocol" };
            fields.warning(
                key,
                format!("the protocol {} is accepted, not acted on yet", location.protocol.as_str()),
            );
        }
        if self.checker.differences.is_some() && location.takes_tls_port {
            let fault =
                Fault::new("`port` is left out of a service with TLS: that means 443, and in Kong 80");
            self.found.note(fields.origin().span, fields.path(), fault.hide_line());
        }
        let reference = |entity, one| {
            self.names.ca_certificates.resolve(entity, &one, &fields.path_of("ca_certificates"), self.found)
        };
        let authorities = fields.references("ca_certificates").into_iter();
        let client_certificate = fields.reference("client_certificate").and_then(|one| {
            let path = fields.path_of("client_certificate");
            self.names.certificates.resolve(Entity::Certificate, &one, &path, self.found)
        });
        let tls = UpstreamTls {
            verify: fields.bool("tls_verify"),
            verify_depth: fields.optional_integer("tls_verify_depth"),
            ca_certificates: authorities.filter_map(|one| reference(Entity::CaCertificate, one)).collect(),
            client_certificate,
            sni: fields.optional_string("tls_sni").map(|name| name.to_ascii_lowercase()),
            sans: SubjectNames {
                dns: fields.section("tls_sans").strings("dnsnames"),
                uris: fields.section("tls_sans").strings("uris"),
            },
        };
        if location.protocol.is_tls() && fields.is_set("tls_verify") && !tls.verify {
            let fault = Fault::new(
                "the certificates of the targets are not verified: anybody on the way can pose as them",
            );
            fields
                .warning("tls_verify", fault.hint("set `ca_certificates` to the authority that signed them"));
        }
        Service {
            name: fields.optional_string("name").unwrap_or_else(|| fields.path().to_owned()),
            id: fields.optional_string("id"),
            protocol: location.protocol,
            http_version: http_version(fields, location.protocol),
            destination,
            path: location.path.filter(|path| path != "/"),
            connect_timeout: fields.duration("connect_timeout"),
            write_timeout: fields.duration("write_timeout"),
            first_byte_timeout: fields.duration("read_timeout"),
            body_idle_timeout: fields.duration("read_timeout"),
            timeouts: super::runtime::own_timeouts(&fields.section("timeouts")),
            request_trailers: fields.bool("request_trailers"),
            retries: fields.integer("retries"),
            retry_policy: retry_policy(&fields.section("retry_policy")),
            enabled: fields.bool("enabled"),
            tls,
            proxy_protocol: match fields.word("proxy_protocol") {
                "v1" => ProxyHeader::V1,
                "v2" => ProxyHeader::V2,
                _ => ProxyHeader::Off,
            },
            tags: fields.strings("tags"),
            origin: fields.origin(),
        }
    }

    fn destination(&self, location: &Location, fields: &Fields<'_>) -> Destination {
        let upstream = self.names.upstreams.find("name", &location.host);
        if let Some(upstream) = upstream {
            if self.upstreams[upstream.index()].targets.is_empty() {
                let fault = Fault::new(format!("the upstream `{}` has no targets", location.host));
                fields.error(location.key, fault.hint("give it at least one target"));
            }
            return Destination::Upstream(upstream);
        }
        let port = location.port;
        Destination::Target(match text::host(&location.host) {
            Ok(Host::Ip(ip)) => Address::Socket((ip, port).into()),
            Ok(Host::Name(host)) => Address::Name { host, port },
            // Refused by the check already; the model is thrown away.
            Err(_) => Address::Name { host: String::new(), port },
        })
    }

    /// Fills in the timeouts that services leave out. They are zero until then: no written one can be.
    pub(super) fn fill_service_timeouts(&mut self, timeouts: &Timeouts) {
        for service in &mut self.services {
            for (timeout, default) in [
                (&mut service.connect_timeout, timeouts.connect),
                (&mut service.write_timeout, timeouts.upstream_write),
                (&mut service.first_byte_timeout, timeouts.first_byte),
                (&mut service.body_idle_timeout, timeouts.upstream_body_idle),
            ] {
                if timeout.is_zero() {
                    *timeout = default;
                }
            }
        }
    }
}

fn retry_policy(fields: &Fields<'_>) -> RetryPolicy {
    let words = fields.words("retry_on");
    let all = words.contains(&"5xx");
    let has = |word| all || words.contains(&word);
    let mut on_statuses: Vec<u16> = fields.integers("retriable_status_codes");
    if all {
        on_statuses.extend(500..=599);
    } else if has("gateway-error") {
        on_statuses.extend([502, 503, 504]);
    }
    let pause = fields.section("retry_back_off");
    RetryPolicy {
        on_connect: has("connect-failure"),
        on_refused: has("refused-stream"),
        on_reset: has("reset"),
        on_timeout: has("timeout"),
        on_bad_response: has("bad-response"),
        on_statuses,
        per_try_timeout: fields.optional_duration("per_try_timeout").filter(|time| !time.is_zero()),
        base_interval: pause.duration("base_interval"),
        max_interval: pause.duration("max_interval"),
        any_method: fields.bool("retry_non_idempotent"),
    }
}

fn http_version(fields: &Fields<'_>, protocol: Protocol) -> HttpVersion {
    let grpc = matches!(protocol, Protocol::Grpc | Protocol::Grpcs);
    match fields.optional_word("http_version") {
        None if grpc => HttpVersion::Two,
        None => HttpVersion::One,
        Some("2") => HttpVersion::Two,
        Some(word) if grpc => {
            let fault = Fault::new(format!("gRPC is spoken in HTTP/2, not in {word}"));
            fields.error("http_version", fault.hint("leave it out"));
            HttpVersion::Two
        }
        Some("auto") => HttpVersion::Auto,
        Some(_) => HttpVersion::One,
    }
}

fn location(fields: &Fields<'_>) -> Location {
    let given: Vec<_> =
        ["protocol", "host", "port", "path"].into_iter().filter(|key| fields.is_set(key)).collect();
    if let Some(url) = fields.optional_string("url") {
        if let Some(key) = given.first() {
            let fault = Fault::new(format!("`{key}` is given beside `url`"));
            fields.error(
                key,
                fault.hint("`url` already says protocol, host, port and path; leave one of the two out"),
            );
        }
        if let Ok(url) = text::url(&url) {
            return Location {
                protocol: url.protocol,
                host: url.host.to_owned(),
                port: url.port.unwrap_or(url.protocol.default_port()),
                path: url.path.map(str::to_owned),
                key: "url",
                takes_tls_port: false,
            };
        }
    } else if !fields.is_set("host") && !fields.is_set("url") {
        let fault = Fault::new("the service says neither `url` nor `host`");
        fields.error("host", fault.hint("as in `url: http://10.0.0.1:9000` or `host: some-upstream`"));
    }
    let protocol = Protocol::from_word(fields.word("protocol")).unwrap_or(Protocol::Http);
    let default = match fields.defaults() {
        Defaults::Portcullis => protocol.default_port(),
        Defaults::Kong => 80,
    };
    Location {
        protocol,
        host: fields.string("host"),
        port: fields.optional_integer("port").unwrap_or(default),
        path: fields.optional_string("path"),
        key: "host",
        takes_tls_port: !fields.is_set("port") && default != 80,
    }
}
