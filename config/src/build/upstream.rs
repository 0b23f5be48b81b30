//! Upstreams, targets and health checks.

use std::collections::HashMap;

use super::Builder;
use crate::diagnostic::Fault;
use crate::fields::Fields;
use crate::model::{
    ActiveCheck, Address, Algorithm, CheckKind, CircuitBreaker, HashKey, Healthchecks, HealthyWhen,
    PassiveCheck, StickyCookie, Target, UnhealthyWhen, Upstream, UpstreamRef,
};
use crate::schema::Entity;
use crate::schema::text::{self, Host};

/// The port of a target that names none (Kong).
const DEFAULT_TARGET_PORT: u16 = 8000;

impl<'a> Builder<'a> {
    /// Builds the upstreams with their nested targets, then adds the targets at the top.
    pub(super) fn build_upstreams(&mut self) {
        for (_, fields) in self.all("upstreams") {
            let reference = UpstreamRef(self.upstreams.len() as u32);
            self.names.upstreams.add(Entity::Upstream, "name", &fields, reference);
            self.names.upstreams.add(Entity::Upstream, "id", &fields, reference);
            let upstream = self.upstream(&fields);
            self.upstreams.push(upstream);
            for target in fields.sections("targets") {
                let owner = self.target_owner(&target);
                if owner.is_some_and(|owner| owner != reference) {
                    target.error("upstream", "the target is nested in one upstream and refers to another");
                }
                self.upstreams[reference.index()].targets.extend(self::target(&target));
            }
        }
        for (_, fields) in self.all("targets") {
            if !fields.is_set("upstream") {
                fields.error(
                    "upstream",
                    Fault::new("the target belongs to no upstream").hint("set `upstream` to its name"),
                );
            }
            if let Some(owner) = self.target_owner(&fields) {
                self.upstreams[owner.index()].targets.extend(self::target(&fields));
            }
        }
        self.check_targets();
    }

    fn target_owner(&self, fields: &Fields<'_>) -> Option<UpstreamRef> {
        let reference = fields.reference("upstream")?;
        self.names.upstreams.resolve(Entity::Upstream, &reference, &fields.path_of("upstream"), self.found)
    }

    fn check_targets(&self) {
        for upstream in &self.upstreams {
            let mut seen: HashMap<&Address, &Target> = HashMap::new();
            for target in &upstream.targets {
                if let Some(first) = seen.insert(&target.address, target) {
                    let fault =
                        Fault::new(format!("{} is a target of `{}` already", target.address, upstream.name))
                            .hint(format!("it was first given at {}", self.found.place(first.origin.span)));
                    self.found.error(target.origin.span, &target.origin.path, fault);
                }
            }
            if !upstream.targets.is_empty() && upstream.targets.iter().all(|target| target.weight == 0) {
                let fault = "all targets have weight 0, so every request is answered 503";
                self.found.warning(upstream.origin.span, &upstream.origin.path, fault);
            }
        }
    }

    fn upstream(&self, fields: &Fields<'_>) -> Upstream {
        let algorithm = match fields.word("algorithm") {
            "least-connections" => Algorithm::LeastConnections,
            "consistent-hashing" => Algorithm::ConsistentHashing,
            "latency" => Algorithm::Latency,
            "maglev" => Algorithm::Maglev,
            "two-choices" => Algorithm::TwoChoices,
            "random" => Algorithm::Random,
            _ => Algorithm::RoundRobin,
        };
        let hash_on = hash_key(fields, "hash_on");
        let hash_fallback = hash_key(fields, "hash_fallback");
        if matches!(algorithm, Algorithm::ConsistentHashing | Algorithm::Maglev)
            && hash_on == HashKey::None
            && fields.word("hash_on") == "none"
        {
            let fault = Fault::new("consistent hashing over nothing is round robin");
            fields.warning("algorithm", fault.hint("set `hash_on`"));
        }
        let client_certificate = fields.reference("client_certificate").and_then(|one| {
            let path = fields.path_of("client_certificate");
            self.names.certificates.resolve(Entity::Certificate, &one, &path, self.found)
        });
        Upstream {
            name: fields.string("name"),
            id: fields.optional_string("id"),
            algorithm,
            slots: fields.integer("slots"),
            hash_on,
            hash_fallback,
            host_header: fields.optional_string("host_header"),
            client_certificate,
            targets: Vec::new(),
            healthchecks: healthchecks(&fields.section("healthchecks")),
            slow_start: fields.duration("slow_start"),
            circuit_breaker: fields
                .optional_section("circuit_breaker")
                .map(|fields| circuit_breaker(&fields)),
            sticky: fields
                .optional_section("sticky")
                .and_then(|sticky| sticky.optional_section("cookie"))
                .map(|cookie| sticky_cookie(&cookie)),
            tags: fields.strings("tags"),
            origin: fields.origin(),
        }
    }
}

fn circuit_breaker(fields: &Fields<'_>) -> CircuitBreaker {
    CircuitBreaker {
        window: fields.duration("window"),
        min_requests: fields.integer("min_requests"),
        of_upstream: fields.word("scope") != "target",
        of_targets: fields.word("scope") != "upstream",
        failure_percent: fields.integer("failure_percent"),
        http_statuses: fields.integers("http_statuses"),
        consecutive_failures: fields.integer("consecutive_failures"),
        slow_after: fields.duration("slow_after"),
        slow_percent: fields.integer("slow_percent"),
        open_for: fields.duration("open_for"),
        open_for_max: fields.duration("open_for_max"),
        trials: fields.integer("trials"),
        status_code: fields.integer("status_code"),
    }
}

fn sticky_cookie(fields: &Fields<'_>) -> StickyCookie {
    let mut attributes = format!("; Path={}", fields.string("path"));
    if let Some(domain) = fields.optional_string("domain") {
        attributes.push_str(&format!("; Domain={domain}"));
    }
    match fields.integer::<u32>("maxAge") {
        0 => {}
        seconds => attributes.push_str(&format!("; Max-Age={seconds}")),
    }
    if fields.bool("secure") {
        attributes.push_str("; Secure");
    }
    if fields.bool("httpOnly") {
        attributes.push_str("; HttpOnly");
    }
    match fields.optional_word("sameSite") {
        Some("strict") => attributes.push_str("; SameSite=Strict"),
        Some("lax") => attributes.push_str("; SameSite=Lax"),
        Some(_) => {
            attributes.push_str("; SameSite=None");
            if !fields.bool("secure") {
                let fault = Fault::new("browsers refuse a cookie with `SameSite=None` that is not `secure`");
                fields.warning("sameSite", fault.hint("set `secure: true`"));
            }
        }
        None => {}
    }
    StickyCookie { name: fields.string("name"), attributes, secret: fields.secret("secret") }
}

fn target(fields: &Fields<'_>) -> Option<Target> {
    let (host, port) = text::host_and_port(&fields.optional_string("target")?).ok()?;
    let port = port.unwrap_or(DEFAULT_TARGET_PORT);
    let address = match host {
        Host::Ip(ip) => Address::Socket((ip, port).into()),
        Host::Name(host) => Address::Name { host, port },
    };
    Some(Target {
        id: fields.optional_string("id"),
        address,
        weight: fields.integer("weight"),
        backup: fields.bool("backup"),
        tags: fields.strings("tags"),
        origin: fields.origin(),
    })
}

/// What `hash_on` or `hash_fallback` names, with the key that says which header, cookie and so on.
fn hash_key(fields: &Fields<'_>, key: &'static str) -> HashKey {
    let word = fields.word(key);
    let named = |detail: &'static str| {
        let name = fields.optional_string(detail);
        if name.is_none() && !fields.is_set(detail) {
            let fault = Fault::new(format!("`{key}: {word}` needs `{detail}`"));
            fields.error(key, fault.hint(format!("set `{detail}` to its name")));
        }
        name.unwrap_or_default()
    };
    let on = key == "hash_on";
    match word {
        "consumer" => HashKey::Consumer,
        "ip" => HashKey::Ip,
        "path" => HashKey::Path,
        "header" => {
            HashKey::Header(named(if on { "hash_on_header" } else { "hash_fallback_header" }).to_lowercase())
        }
        "cookie" => {
            HashKey::Cookie { name: named("hash_on_cookie"), path: fields.string("hash_on_cookie_path") }
        }
        "query_arg" => {
            HashKey::QueryArgument(named(if on { "hash_on_query_arg" } else { "hash_fallback_query_arg" }))
        }
        "uri_capture" => {
            HashKey::UriCapture(named(if on { "hash_on_uri_capture" } else { "hash_fallback_uri_capture" }))
        }
        _ => HashKey::None,
    }
}

fn healthchecks(fields: &Fields<'_>) -> Healthchecks {
    let active = fields.section("active");
    let (healthy, unhealthy) = (active.section("healthy"), active.section("unhealthy"));
    let active = ActiveCheck {
        kind: check_kind(&active),
        timeout: active.duration("timeout"),
        concurrency: active.integer("concurrency"),
        http_path: active.string("http_path"),
        grpc_service: active.string("grpc_service"),
        https_sni: active.optional_string("https_sni"),
        https_verify_certificate: active.bool("https_verify_certificate"),
        headers: active.map_of_lists("headers"),
        healthy_interval: healthy.duration("interval"),
        unhealthy_interval: unhealthy.duration("interval"),
        healthy: healthy_when(&healthy),
        unhealthy: unhealthy_when(&unhealthy),
    };
    let passive = fields.section("passive");
    let passive = PassiveCheck {
        kind: check_kind(&passive),
        healthy: healthy_when(&passive.section("healthy")),
        unhealthy: unhealthy_when(&passive.section("unhealthy")),
        eject_for: passive.duration("eject_for"),
        max_ejected_percent: passive.integer("max_ejected_percent"),
    };
    let (threshold, panic_threshold) = (fields.number("threshold"), fields.integer("panic_threshold"));
    if threshold > 0.0 && panic_threshold > 0 {
        fields.error(
            "panic_threshold",
            Fault::new("`threshold` refuses below a share of healthy weight, and `panic_threshold` lets everything through")
                .hint("keep one of them"),
        );
    }
    Healthchecks { threshold, panic_threshold, active, passive }
}

fn check_kind(fields: &Fields<'_>) -> CheckKind {
    match fields.word("type") {
        "tcp" => CheckKind::Tcp,
        "https" => CheckKind::Https,
        "grpc" => CheckKind::Grpc,
        "grpcs" => CheckKind::Grpcs,
        _ => CheckKind::Http,
    }
}

fn healthy_when(fields: &Fields<'_>) -> HealthyWhen {
    HealthyWhen { http_statuses: fields.integers("http_statuses"), successes: fields.integer("successes") }
}

fn unhealthy_when(fields: &Fields<'_>) -> UnhealthyWhen {
    UnhealthyWhen {
        http_statuses: fields.integers("http_statuses"),
        http_failures: fields.integer("http_failures"),
        tcp_failures: fields.integer("tcp_failures"),
        timeouts: fields.integer("timeouts"),
    }
}
