//! Services of Traefik, translated into services and upstreams.
//!
//! Owns what a reference to a service comes to: targets with weights, and how to speak to them. A service made of
//! others is flattened: the share of a target is the product of the shares on the way to it.

use std::collections::BTreeMap;

use super::super::tree::{Map, list, plain, text};
use super::{Name, Traefik};
use crate::diagnostic::Fault;
use crate::fields::Fields;
use crate::node::Node;
use crate::schema::text as form;
use crate::source::Span;

/// What a reference to a service comes to.
#[derive(Clone, Debug)]
pub(super) struct Pool<'a> {
    /// `host:port` with its share.
    targets: Vec<(String, u64, Span)>,
    tls: bool,
    pub(super) pass_host: bool,
    strategy: Option<Node>,
    sticky: Option<Fields<'a>>,
    health: Option<Fields<'a>>,
    passive: Option<Fields<'a>>,
    /// Targets that serve while no other may be tried.
    backups: Vec<(String, u64, Span)>,
    /// `config:` of the plugin that sends copies elsewhere.
    pub(super) mirror: Option<Map>,
    transport: Option<Name>,
    span: Span,
}

/// Deepest nesting of services.
const MAX_NESTED: usize = 8;
/// Largest weight of a target.
const MAX_WEIGHT: u64 = 65535;

impl<'a> Traefik<'a> {
    /// The pool of several references with weights.
    pub(super) fn pool(&self, references: &[Fields<'a>], scope: &str, depth: usize) -> Option<Pool<'a>> {
        let mut parts = Vec::new();
        for reference in references {
            let weight = reference.optional_integer::<u64>("weight").unwrap_or(1);
            parts.push((self.pool_of(reference, scope, depth)?, weight));
        }
        joined(parts, self)
    }

    /// The pool of one reference.
    fn pool_of(&self, reference: &Fields<'a>, scope: &str, depth: usize) -> Option<Pool<'a>> {
        let name = self.name_in(reference, scope);
        if scope == super::FILE_SCOPE || reference.word("kind") == "TraefikService" {
            return self.named_pool(&name, reference.span_of("name"), depth);
        }
        let (host, port) = self.kubernetes_place(reference, &name)?;
        Some(Pool {
            targets: vec![(format!("{host}:{port}"), 1, reference.span_of("name"))],
            tls: match reference.word("scheme") {
                "" => port == 443,
                scheme => scheme == "https",
            },
            pass_host: reference.optional_bool("passHostHeader").unwrap_or(true),
            strategy: reference.get("strategy").cloned(),
            sticky: reference.optional_section("sticky"),
            health: reference.optional_section("healthCheck"),
            passive: reference.optional_section("passiveHealthCheck"),
            backups: Vec::new(),
            mirror: None,
            transport: reference
                .optional_string("serversTransport")
                .map(|text| self.name(&text, None, &name.scope)),
            span: reference.origin().span,
        })
    }

    /// The pool of a TraefikService or of a service in a file.
    pub(super) fn named_pool(&self, name: &Name, span: Span, depth: usize) -> Option<Pool<'a>> {
        if depth > MAX_NESTED {
            self.found.error(span, "", "services are nested too deep");
            return None;
        }
        if name.name.ends_with("@internal") {
            let fault = Fault::new(format!("`{}` is a service inside Traefik", name.name));
            self.found.error(span, "", fault.hint("the `admin` section has metrics and status"));
            return None;
        }
        let Some(fields) = self.services.get(name) else {
            let known = self.services.keys().map(|known| known.name.as_str());
            let hint = crate::schema::suggest::did_you_mean(&name.name, known);
            self.found.error(
                span,
                "",
                Fault::new(format!("there is no service `{}`", name.name)).maybe_hint(hint),
            );
            return None;
        };
        let scope = &name.scope;
        if let Some(balancer) = fields.optional_section("loadBalancer") {
            return self.servers(&balancer, scope);
        }
        if let Some(weighted) = fields.optional_section("weighted") {
            let mut pool = self.pool(&weighted.sections("services"), scope, depth + 1)?;
            pool.sticky = weighted.optional_section("sticky").or(pool.sticky);
            return Some(pool);
        }
        if let Some(random) = fields.optional_section("highestRandomWeight") {
            let mut pool = self.pool(&random.sections("services"), scope, depth + 1)?;
            pool.strategy = Some(plain(random.origin().span, "hrw"));
            return Some(pool);
        }
        if let Some(mirroring) = fields.optional_section("mirroring") {
            let mut pool = match mirroring.optional_string("service") {
                Some(service) => {
                    let name = self.name(&service, None, scope);
                    self.named_pool(&name, mirroring.span_of("service"), depth + 1)?
                }
                None => self.pool_of(&self.as_reference(&mirroring), scope, depth + 1)?,
            };
            pool.mirror = self.mirror(&mirroring, scope, depth);
            return Some(pool);
        }
        let failover = fields.optional_section("failover")?;
        let named = |key: &str| {
            let service = failover.optional_string(key)?;
            self.named_pool(&self.name(&service, None, scope), failover.span_of(key), depth + 1)
        };
        let mut pool = named("service")?;
        if let Some(stand_in) = named("fallback") {
            if stand_in.tls != pool.tls {
                failover.error("fallback", "a service and its stand-in both speak TLS, or none does");
            }
            pool.backups.extend(stand_in.targets);
        }
        Some(pool)
    }

    /// `config:` of `mirror`: each server of a mirror is a place of its own with its part of the copies.
    fn mirror(&self, mirroring: &Fields<'a>, scope: &str, depth: usize) -> Option<Map> {
        let mut targets = Vec::new();
        for mirror in mirroring.sections("mirrors") {
            let span = mirror.origin().span;
            let percent = mirror.optional_integer::<u64>("percent").unwrap_or(0);
            let Some(pool) = self.pool_of(&mirror, scope, depth + 1) else { continue };
            let sum: u64 = pool.targets.iter().map(|(_, weight, _)| weight).sum();
            for (target, weight, at) in &pool.targets {
                let part = percent as f64 * *weight as f64 / sum.max(1) as f64;
                let url = text(*at, format!("{}://{target}", pool.scheme()));
                targets.push(Map::new(span).with("url", url).with("percentage", plain(span, part)).node());
            }
        }
        let first = targets.first().map(|node| node.span)?;
        let mut config = Map::new(first).with("targets", list(first, targets));
        config.maybe("mirror_body", mirroring.get("mirrorBody").cloned());
        // Negative is Traefik's word for no limit, which nothing here is without.
        if mirroring.optional_integer::<u64>("maxBodySize").is_some() {
            config.maybe("max_body_size", mirroring.get("maxBodySize").cloned());
        } else {
            let fault = Fault::new("bodies that are longer than `limits.buffered_body` are not mirrored");
            mirroring.diagnostics().note(mirroring.span_of("mirrors"), mirroring.path_of("mirrors"), fault);
            config.put("max_body_size", plain(first, "1GiB"));
        }
        Some(config)
    }

    /// Where a service is: a name in files, a reference in resources. The first of several servers.
    pub(super) fn url_of(&self, service: &'a Node, path: &str, scope: &str) -> Option<String> {
        let pool = match service.text() {
            Some(name) => self.named_pool(&self.name(name, None, scope), service.span, 0)?,
            None => {
                let section = &super::tables::SERVICE_REF;
                self.pool_of(&self.checked(service, section, path)?, scope, 0)?
            }
        };
        let (target, _, _) = pool.targets.first()?;
        Some(format!("{}://{target}", pool.scheme()))
    }

    /// The main service of `mirroring` has the keys of a reference.
    fn as_reference(&self, mirroring: &Fields<'a>) -> Fields<'a> {
        let defaults = mirroring.defaults();
        Fields::new(mirroring.node(), &super::tables::SERVICE_REF, mirroring.path(), defaults, self.found)
    }

    /// Host and port of a Service of the cluster.
    fn kubernetes_place(&self, reference: &Fields<'_>, name: &Name) -> Option<(String, u16)> {
        let resource = self.kube_services.get(name);
        let spec = resource.and_then(|node| node.get("spec"));
        let port = match reference.optional_integer::<u16>("port") {
            Some(port) => Some(port),
            None => {
                let wanted = reference.optional_string("port");
                let ports = spec.and_then(|spec| spec.get("ports")).map(Node::items).unwrap_or_default();
                let named = ports.iter().find(|port| match &wanted {
                    Some(wanted) => port.get("name").and_then(Node::text) == Some(wanted),
                    None => ports.len() == 1,
                });
                named.and_then(|port| port.get("port")?.text()?.parse().ok())
            }
        };
        let Some(port) = port else {
            let fault = Fault::new(format!("the port of service `{}` is not known", name.name));
            reference.error("port", fault.hint("give its number"));
            return None;
        };
        if let Some(external) = spec.and_then(|spec| spec.get("externalName")).and_then(Node::text) {
            return Some((external.to_owned(), port));
        }
        let host = match name.scope.as_str() {
            super::NO_NAMESPACE => name.name.clone(),
            namespace => format!("{}.{namespace}.svc.cluster.local", name.name),
        };
        if let Err(fault) = (form::HOST.check)(&host) {
            reference.error("name", fault);
            return None;
        }
        Some((host, port))
    }

    fn servers(&self, balancer: &Fields<'a>, scope: &str) -> Option<Pool<'a>> {
        let mut targets = Vec::new();
        let mut tls = None;
        for server in balancer.sections("servers") {
            let written = server.optional_string("url")?;
            let url = form::url(&written).ok()?;
            if url.path.is_some_and(|path| path != "/") {
                server.warning("url", "the path of a server's URL is not used, as in Traefik; use addPrefix");
            }
            if *tls.get_or_insert(url.protocol.is_tls()) != url.protocol.is_tls() {
                server.error("url", "the servers of one service all speak TLS, or none does");
            }
            let port = url.port.unwrap_or(url.protocol.default_port());
            let host = if url.host.contains(':') {
                format!("[{}]", url.host.trim_matches(['[', ']']))
            } else {
                url.host.to_owned()
            };
            let weight = server.optional_integer::<u64>("weight").unwrap_or(1);
            targets.push((format!("{host}:{port}"), weight, server.span_of("url")));
        }
        if targets.is_empty() {
            balancer.error("servers", "the service has no server");
            return None;
        }
        Some(Pool {
            targets,
            tls: tls.unwrap_or(false),
            pass_host: balancer.optional_bool("passHostHeader").unwrap_or(true),
            strategy: balancer.get("strategy").cloned(),
            sticky: balancer.optional_section("sticky"),
            health: balancer.optional_section("healthCheck"),
            passive: balancer.optional_section("passiveHealthCheck"),
            backups: Vec::new(),
            mirror: None,
            transport: balancer.optional_string("serversTransport").map(|text| self.name(&text, None, scope)),
            span: balancer.origin().span,
        })
    }

    /// The service for a router, without its routes; an upstream is added where one is needed.
    pub(super) fn service(
        &mut self,
        name: &str,
        pool: &Pool<'a>,
        retry: Option<Map>,
        breaker: Option<Map>,
    ) -> Map {
        let span = pool.span;
        let mut service = Map::new(span).with("name", text(span, name));
        service.put("protocol", plain(span, if pool.tls { "https" } else { "http" }));
        let alone = pool.targets.len() == 1
            && pool.sticky.is_none()
            && pool.health.is_none()
            && pool.passive.is_none()
            && pool.backups.is_empty()
            && breaker.is_none();
        if let ([(target, _, span)], true) = (pool.targets.as_slice(), alone) {
            let (host, port) = target.rsplit_once(':').unwrap_or((target, "80"));
            service.put("host", text(*span, host.trim_matches(['[', ']'])));
            service.put("port", plain(*span, port));
        } else {
            let upstream = upstream_name(name);
            service.put("host", text(span, upstream.clone()));
            let node = upstream_of(&upstream, pool, breaker);
            self.out.upstreams.push(node);
        }
        for entry in retry.map(Map::node).as_ref().map(Node::entries).unwrap_or_default() {
            service.put(&entry.name, entry.value.clone());
        }
        if let Some(transport) = &pool.transport {
            self.transport(&mut service, transport, span);
        }
        service
    }

    fn transport(&mut self, service: &mut Map, name: &Name, span: Span) {
        let Some(fields) = self.transports.get(name).cloned() else {
            self.found.error(span, "", format!("there is no ServersTransport `{}`", name.name));
            return;
        };
        if fields.bool("insecureSkipVerify") {
            service.put("tls_verify", plain(fields.span_of("insecureSkipVerify"), false));
        }
        service.maybe("tls_sni", fields.get("serverName").cloned());
        let timeouts = fields.section("forwardingTimeouts");
        for (from, to) in [("dialTimeout", "connect_timeout"), ("responseHeaderTimeout", "read_timeout")] {
            // Traefik's 0 is no limit, which nothing here is without.
            if let Some(time) = timeouts.optional_duration(from).filter(|time| !time.is_zero()) {
                service.put(to, plain(timeouts.span_of(from), format!("{}ms", time.as_millis().max(1))));
            }
        }
        let mut authorities = Vec::new();
        for item in fields.get("rootCAs").map(Node::items).unwrap_or_default() {
            let secret = item.get("secret").and_then(Node::text);
            match (item.text(), secret) {
                (Some(file), _) if name.scope == super::FILE_SCOPE => {
                    let id = format!("{}-ca-{}", name.name, authorities.len());
                    let entry = Map::new(item.span)
                        .with("name", text(item.span, id.clone()))
                        .with("cert_file", text(item.span, file));
                    self.out.add_authority(&id, entry);
                    authorities.push(text(item.span, id));
                }
                (_, Some(secret)) => authorities.extend(self.authority_of_secret(secret, name, item.span)),
                _ => self.found.error(item.span, "", "a root certificate that is not in these files"),
            }
        }
        for item in fields.get("rootCAsSecrets").map(Node::items).unwrap_or_default() {
            authorities
                .extend(item.text().and_then(|secret| self.authority_of_secret(secret, name, item.span)));
        }
        if let Some(first) = authorities.first().map(|node| node.span) {
            service.put("ca_certificates", list(first, authorities));
        }
    }

    fn authority_of_secret(&mut self, secret: &str, transport: &Name, span: Span) -> Option<Node> {
        let owner = Name { scope: transport.scope.clone(), name: secret.to_owned() };
        let pem = ["ca.crt", "tls.ca"].into_iter().find_map(|key| self.secret_text(&owner, key));
        let Some(pem) = pem else {
            self.found.error(span, "", format!("there is no Secret `{secret}` with `ca.crt` in these files"));
            return None;
        };
        let entry = Map::new(span).with("name", text(span, secret)).with("cert", text(span, pem));
        self.out.add_authority(secret, entry);
        Some(text(span, secret))
    }
}

impl Pool<'_> {
    fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }
}

/// One pool of several, shares kept exactly as far as weights go.
fn joined<'a>(mut parts: Vec<(Pool<'a>, u64)>, traefik: &Traefik<'_>) -> Option<Pool<'a>> {
    if parts.len() == 1 {
        return parts.pop().map(|(pool, _)| pool);
    }
    let sums: Vec<u64> =
        parts.iter().map(|(pool, _)| pool.targets.iter().map(|(_, weight, _)| weight).sum()).collect();
    let common = sums.iter().filter(|sum| **sum > 0).fold(1, |all, &sum| lcm(all, sum));
    let mut shares: BTreeMap<String, (u64, Span)> = BTreeMap::new();
    let mut order = Vec::new();
    for ((pool, weight), sum) in parts.iter().zip(&sums) {
        for (target, own, span) in &pool.targets {
            let share = weight.saturating_mul(*own).saturating_mul(common / (*sum).max(1));
            let entry = shares.entry(target.clone()).or_insert_with(|| {
                order.push(target.clone());
                (0, *span)
            });
            entry.0 = entry.0.saturating_add(share);
        }
    }
    let (first, _) = parts.first()?;
    for (pool, _) in &parts[1..] {
        if pool.tls != first.tls {
            traefik.found.error(pool.span, "", "the services of one router all speak TLS, or none does");
        }
        if pool.pass_host != first.pass_host || pool.transport != first.transport {
            let fault = "the services of one router differ in passHostHeader or serversTransport: the first one's are taken";
            traefik.found.warning(pool.span, "", fault);
        }
    }
    let divisor = shares.values().fold(0, |all, (share, _)| gcd(all, *share)).max(1);
    let largest = shares.values().map(|(share, _)| share / divisor).max().unwrap_or(0);
    let scale = largest.div_ceil(MAX_WEIGHT).max(1);
    let share_of = |target: &String| shares.get(target).copied().unwrap_or_default();
    let targets = order.into_iter().map(|target| {
        let (share, span) = share_of(&target);
        let scaled = share / divisor / scale;
        (target, if share > 0 { scaled.max(1) } else { 0 }, span)
    });
    Some(Pool { targets: targets.collect(), ..first.clone() })
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn lcm(a: u64, b: u64) -> u64 {
    (a / gcd(a, b).max(1)).saturating_mul(b)
}

/// A name that is no service's host by chance.
fn upstream_name(service: &str) -> String {
    let safe = |c: char| {
        if c.is_ascii_alphanumeric() || c == '-' || c == '.' { c.to_ascii_lowercase() } else { '-' }
    };
    format!("{}.upstream", service.chars().map(safe).collect::<String>().trim_matches(['-', '.']))
}

fn upstream_of(name: &str, pool: &Pool<'_>, breaker: Option<Map>) -> Node {
    let span = pool.span;
    let mut upstream = Map::new(span).with("name", text(span, name));
    let targets = pool.targets.iter().map(|(target, weight, span)| {
        Map::new(*span)
            .with("target", text(*span, target.clone()))
            .with("weight", plain(*span, weight))
            .node()
    });
    let backups = pool.backups.iter().map(|(target, weight, span)| {
        Map::new(*span)
            .with("target", text(*span, target.clone()))
            .with("weight", plain(*span, weight))
            .with("backup", plain(*span, true))
            .node()
    });
    upstream.put("targets", list(span, targets.chain(backups).collect()));
    upstream.maybe("circuit_breaker", breaker.map(Map::node));
    if let Some(strategy) = &pool.strategy {
        let algorithm = match strategy.text().unwrap_or_default() {
            "p2c" => "two-choices",
            "hrw" => "consistent-hashing",
            "leasttime" => "latency",
            _ => "round-robin",
        };
        upstream.put("algorithm", plain(strategy.span, algorithm));
        if algorithm == "consistent-hashing" {
            upstream.put("hash_on", plain(strategy.span, "ip"));
        }
    }
    if let Some(cookie) = pool.sticky.as_ref().and_then(|sticky| sticky.optional_section("cookie")) {
        upstream.put("sticky", sticky(&cookie));
    }
    let mut checks = Map::new(span);
    checks.maybe("active", pool.health.as_ref().map(active));
    checks.maybe("passive", pool.passive.as_ref().map(passive));
    if !checks.is_empty() {
        upstream.put("healthchecks", checks.node());
    }
    upstream.node()
}

/// Ours is signed, and says as little about the servers.
fn sticky(cookie: &Fields<'_>) -> Node {
    let at = cookie.origin().span;
    let mut own = Map::new(at);
    for key in ["name", "secure", "httpOnly", "sameSite", "path", "maxAge"] {
        own.maybe(key, cookie.get(key).cloned());
    }
    if let Some(domain) = cookie.optional_string("domain") {
        // A first dot says nothing (RFC 6265 section 5.2.3).
        own.put("domain", text(cookie.span_of("domain"), domain.trim_start_matches('.')));
    }
    if !cookie.is_set("httpOnly") {
        own.put("httpOnly", plain(at, false));
    }
    Map::new(at).with("cookie", own.node()).node()
}

/// Traefik takes every answer below 400 for health, and one answer decides.
fn active(health: &Fields<'_>) -> Node {
    let span = health.origin().span;
    let time = |key: &str, default: u64| {
        let time = health.optional_duration(key).filter(|time| !time.is_zero());
        let seconds = time.map_or(default as f64, |time| time.as_secs_f64());
        plain(health.span_of(key), format!("{}ms", (seconds * 1000.0).round().max(1.0)))
    };
    let mut check = Map::new(span);
    let kind = match (health.word("mode"), health.word("scheme")) {
        ("grpc", _) => "grpc",
        (_, "https") => "https",
        _ => "http",
    };
    check.put("type", plain(span, kind));
    check.maybe("http_path", health.get("path").cloned());
    check.put("timeout", time("timeout", 5));
    let mut headers = Map::new(span);
    if let Some(host) = health.get("hostname") {
        headers.put("Host", list(host.span, vec![host.clone()]));
    }
    for entry in health.get("headers").map(Node::entries).unwrap_or_default() {
        headers.put(&entry.name, list(entry.value.span, vec![entry.value.clone()]));
    }
    if !headers.is_empty() {
        check.put("headers", headers.node());
    }
    let numbers = |all: Vec<u16>| list(span, all.into_iter().map(|status| plain(span, status)).collect());
    let wanted = health.optional_integer::<u16>("status").filter(|&status| status > 0);
    let good = |status: u16| wanted.map_or(status < 400, |wanted| wanted == status);
    let known: Vec<u16> =
        (200..=208).chain([226]).chain(300..=308).chain(400..=431).chain([451]).chain(500..=511).collect();
    let (healthy, unhealthy): (Vec<u16>, Vec<u16>) = known.into_iter().partition(|&status| good(status));
    let interval = time("interval", 30);
    let back =
        if health.is_set("unhealthyInterval") { time("unhealthyInterval", 30) } else { interval.clone() };
    check.put(
        "healthy",
        Map::new(span)
            .with("interval", interval)
            .with("successes", plain(span, 1))
            .with("http_statuses", numbers(healthy))
            .node(),
    );
    check.put(
        "unhealthy",
        Map::new(span)
            .with("interval", back)
            .with("http_failures", plain(span, 1))
            .with("tcp_failures", plain(span, 1))
            .with("timeouts", plain(span, 1))
            .with("http_statuses", numbers(unhealthy))
            .node(),
    );
    check.node()
}

fn passive(watch: &Fields<'_>) -> Node {
    let span = watch.origin().span;
    let mut check = Map::new(span);
    if let Some(window) = watch.optional_duration("failureWindow").filter(|time| !time.is_zero()) {
        check.put(
            "eject_for",
            plain(watch.span_of("failureWindow"), format!("{}ms", window.as_millis().max(1))),
        );
    }
    if let Some(attempts) = watch.get("maxFailedAttempts") {
        let mut unhealthy = Map::new(attempts.span);
        for key in ["http_failures", "tcp_failures", "timeouts"] {
            unhealthy.put(key, attempts.clone());
        }
        check.put("unhealthy", unhealthy.node());
    }
    check.node()
}
