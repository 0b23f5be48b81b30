//! Middlewares of a router, translated into plugins of a route.
//!
//! Owns what each kind becomes. Ours run in an order of their own, so several of one kind are put together here; where
//! that is impossible, or a kind has no counterpart, the finding names it. A middleware that guards a router and cannot
//! be translated is an error: a route must not be open because its guard is unknown.

use super::super::tree::{self, Map, list, plain, text};
use super::{Name, Traefik};
use crate::diagnostic::Fault;
use crate::fields::Fields;
use crate::node::{Node, Value};
use crate::source::Span;

/// What the middlewares of one router come to.
#[derive(Default)]
pub(super) struct Way {
    /// Name and `config:` of each plugin.
    pub(super) plugins: Vec<(&'static str, Map)>,
    /// Steps of `path-rewrite`, in order.
    steps: Vec<Node>,
    set_on_requests: Vec<(String, Node)>,
    set_on_responses: Vec<(String, Node)>,
    security: Option<Map>,
    /// `circuit_breaker` of the upstream.
    pub(super) breaker: Option<Map>,
    /// `retries` and `retry_policy` of the service.
    pub(super) retry: Option<Map>,
    /// Something is missing or cannot be translated: the router serves nothing.
    pub(super) broken: Option<(String, Span)>,
}

/// Deepest nesting of chains.
const MAX_CHAIN: usize = 8;

impl<'a> Traefik<'a> {
    /// The plugins for these middlewares, in the order listed.
    pub(super) fn way(&self, names: &[(Name, Span)]) -> Way {
        let mut way = Way::default();
        for (name, span) in names {
            self.add_middleware(&mut way, name, *span, 0);
        }
        way.finish();
        way
    }

    fn add_middleware(&self, way: &mut Way, name: &Name, span: Span, depth: usize) {
        let Some(fields) = self.middlewares.get(name) else {
            let known = self.middlewares.keys().map(|known| known.name.as_str());
            let hint = crate::schema::suggest::did_you_mean(&name.name, known);
            let fault = Fault::new(format!(
                "there is no middleware `{}`, so the router answers 503, as it would not exist in Traefik",
                name.name
            ));
            self.found.warning(span, "", fault.maybe_hint(hint).maybe_hint(None));
            way.broken = Some((format!("middleware {} is not defined", name.name), span));
            return;
        };
        for kind in super::middleware_tables::MIDDLEWARE.keys() {
            if !fields.is_set(kind.name) {
                continue;
            }
            if kind.name == "chain" {
                if depth >= MAX_CHAIN {
                    fields.error("chain", "chains are nested too deep");
                    return;
                }
                for (inner, span) in self.references(&fields.section("chain"), "middlewares", &name.scope) {
                    self.add_middleware(way, &inner, span, depth + 1);
                }
                continue;
            }
            self.add_kind(way, kind.name, fields, name);
        }
    }

    fn add_kind(&self, way: &mut Way, kind: &'static str, fields: &Fields<'a>, name: &Name) {
        let inner = fields.section(kind);
        match kind {
            "addPrefix" => way.step("add_prefix", inner.get("prefix").cloned()),
            "replacePath" => way.step("replace", inner.get("path").cloned()),
            "stripPrefix" => way.step("strip_prefix", inner.get("prefixes").cloned()),
            "stripPrefixRegex" => way.step("strip_prefix_regex", inner.get("regex").cloned()),
            "replacePathRegex" => {
                let mut step = Map::new(inner.origin().span);
                step.maybe("regex", inner.get("regex").cloned());
                step.maybe("replacement", inner.get("replacement").cloned());
                way.steps.push(step.node());
            }
            "headers" => self.headers(way, &inner),
            "rateLimit" => rate_limit(way, &inner),
            "inFlightReq" => in_flight(way, &inner),
            "ipAllowList" | "ipWhiteList" => {
                let mut config = Map::new(inner.origin().span);
                config.maybe("allow", inner.get("sourceRange").cloned());
                config.maybe("status", inner.get("rejectStatusCode").cloned());
                way.plugin("ip-restriction", config, &inner);
            }
            "redirectScheme" => {
                let mut config = copied(&inner, &["scheme", "permanent"]);
                let port = inner.optional_string("port").filter(|port| !port.is_empty());
                config.maybe("port", port.map(|port| plain(inner.span_of("port"), port)));
                if !inner.is_set("permanent") {
                    config.put("permanent", plain(inner.origin().span, false));
                }
                way.plugin("redirect", config, &inner);
            }
            "redirectRegex" => {
                let mut config = copied(&inner, &["regex", "replacement", "permanent"]);
                if !inner.is_set("permanent") {
                    config.put("permanent", plain(inner.origin().span, false));
                }
                way.plugin("redirect", config, &inner);
            }
            "retry" => way.retry = Some(super::retry::translated(&inner)),
            "buffering" => {
                buffering(way, &inner);
                way.retry = super::retry::of_expression(&inner).or(way.retry.take());
            }
            "compress" => compress(way, &inner),
            "errors" => self.error_pages(way, &inner, name),
            "circuitBreaker" => way.breaker = super::breaker::translated(&inner).or(way.breaker.take()),
            "forwardAuth" => self.forward_auth(way, &inner),
            "basicAuth" => self.basic_auth(way, &inner, name),
            "digestAuth" | "plugin" => {
                let fault = Fault::new(format!(
                    "`{kind}` has no counterpart here, and a router that it guards must not be open"
                ));
                fields.error(kind, fault.hint("take it off the router, or use forwardAuth"));
            }
            _ => {
                let fault = Fault::new(format!(
                    "`{kind}` is not acted on yet: requests pass as if it were not there"
                ));
                fields.warning(kind, fault);
            }
        }
    }

    fn headers(&self, way: &mut Way, inner: &Fields<'_>) {
        let entries = |key| inner.get(key).map(Node::entries).unwrap_or_default();
        for (key, list) in [
            ("customRequestHeaders", &mut way.set_on_requests),
            ("customResponseHeaders", &mut way.set_on_responses),
        ] {
            for entry in entries(key) {
                // A later middleware has the last word.
                list.retain(|(name, _)| !name.eq_ignore_ascii_case(&entry.name));
                list.push((entry.name.clone(), entry.value.clone()));
            }
        }
        let mut set = |name: &str, node: Node| {
            way.set_on_responses.retain(|(own, _)| !own.eq_ignore_ascii_case(name));
            way.set_on_responses.push((name.to_owned(), node));
        };
        for (key, name, value) in [
            ("frameDeny", "X-Frame-Options", "DENY"),
            ("contentTypeNosniff", "X-Content-Type-Options", "nosniff"),
            ("browserXssFilter", "X-XSS-Protection", "1; mode=block"),
        ] {
            if inner.bool(key) {
                set(name, text(inner.span_of(key), value));
            }
        }
        for (key, name) in [
            ("customFrameOptionsValue", "X-Frame-Options"),
            ("customBrowserXSSValue", "X-XSS-Protection"),
            ("contentSecurityPolicy", "Content-Security-Policy"),
            ("contentSecurityPolicyReportOnly", "Content-Security-Policy-Report-Only"),
            ("publicKey", "Public-Key-Pins"),
            ("referrerPolicy", "Referrer-Policy"),
            ("permissionsPolicy", "Permissions-Policy"),
            ("featurePolicy", "Feature-Policy"),
        ] {
            if let Some(node) = inner.get(key) {
                set(name, node.clone());
            }
        }
        if inner.integer::<i64>("stsSeconds") > 0 {
            let mut hsts = Map::new(inner.origin().span);
            for (from, to) in [
                ("stsSeconds", "max_age"),
                ("stsIncludeSubdomains", "include_subdomains"),
                ("stsPreload", "preload"),
                ("forceSTSHeader", "force"),
            ] {
                hsts.maybe(to, inner.get(from).cloned());
            }
            way.security = Some(hsts);
        }
        cors(way, inner);
    }

    fn forward_auth(&self, way: &mut Way, inner: &Fields<'_>) {
        let mut config = Map::new(inner.origin().span);
        for (from, to) in [
            ("address", "address"),
            ("trustForwardHeader", "trust_forward_header"),
            ("authResponseHeaders", "auth_response_headers"),
            ("authResponseHeadersRegex", "auth_response_headers_regex"),
            ("authRequestHeaders", "auth_request_headers"),
            ("addAuthCookiesToResponse", "add_auth_cookies_to_response"),
            ("headerField", "header_field"),
            ("forwardBody", "forward_body"),
            ("preserveLocationHeader", "preserve_location_header"),
            ("preserveRequestMethod", "preserve_request_method"),
        ] {
            config.maybe(to, inner.get(from).cloned());
        }
        for (from, to) in
            [("maxBodySize", "max_body_size"), ("maxResponseBodySize", "max_response_body_size")]
        {
            // Negative is Traefik's word for no limit, which nothing here is without.
            if inner.optional_integer::<u64>(from).is_some() {
                config.maybe(to, inner.get(from).cloned());
            }
        }
        if let Some(tls) = inner.optional_section("tls")
            && let Some(skip) = tls.get("insecureSkipVerify")
        {
            let verify = !tls.bool("insecureSkipVerify");
            config.put("tls_verify", plain(skip.span, verify));
        }
        if !inner.is_set("trustForwardHeader") {
            // Said by Traefik itself since it was a hole.
            config.put("trust_forward_header", plain(inner.origin().span, false));
        }
        way.plugin("forward-auth", config, inner);
    }

    fn error_pages(&self, way: &mut Way, inner: &Fields<'a>, name: &Name) {
        let Some(service) = inner.get("service") else {
            inner.error("service", "the service that has the pages is missing");
            return;
        };
        let Some(url) = self.url_of(service, &inner.path_of("service"), &name.scope) else { return };
        let mut config = Map::new(inner.origin().span);
        config.put("url", text(service.span, url));
        config.maybe("status", inner.get("status").cloned());
        config.maybe("query", inner.get("query").cloned());
        config.maybe("status_rewrites", inner.get("statusRewrites").cloned());
        way.plugin("error-pages", config, inner);
    }

    fn basic_auth(&self, way: &mut Way, inner: &Fields<'_>, name: &Name) {
        let mut config = Map::new(inner.origin().span);
        if let Some(secret) = inner.optional_string("secret") {
            let owner = Name { scope: name.scope.clone(), name: secret.clone() };
            let Some(users) = self.secret_text(&owner, "users") else {
                let fault = Fault::new(format!("there is no Secret `{secret}` with `users` in these files"));
                inner.error("secret", fault.hint("put the Secret beside, or write `users`"));
                return;
            };
            let span = inner.span_of("secret");
            let lines = users.lines().map(str::trim).filter(|line| !line.is_empty());
            config.put("users", list(span, lines.map(|line| secret_text(span, line)).collect()));
        }
        for (from, to) in [
            ("users", "users"),
            ("usersFile", "users_file"),
            ("realm", "realm"),
            ("headerField", "header_field"),
            ("removeHeader", "hide_credentials"),
        ] {
            config.maybe(to, inner.get(from).cloned());
        }
        if !inner.is_set("realm") {
            config.put("realm", plain(inner.origin().span, "traefik"));
        }
        way.plugin("basic-auth", config, inner);
    }
}

impl Way {
    fn plugin(&mut self, name: &'static str, config: Map, from: &Fields<'_>) {
        if self.plugins.iter().any(|(known, _)| *known == name) {
            let origin = from.origin();
            let fault = Fault::new(format!(
                "this is the second middleware of one router that becomes a `{name}` plugin"
            ));
            from.diagnostics().error(
                origin.span,
                &origin.path,
                fault.hint("a route has one of each; put the two together"),
            );
            return;
        }
        self.plugins.push((name, config));
    }

    fn step(&mut self, key: &str, value: Option<Node>) {
        if let Some(value) = value {
            self.steps.push(Map::new(value.span).with(key, value).node());
        }
    }

    /// Makes plugins of what was gathered.
    fn finish(&mut self) {
        if let Some(first) = self.steps.first().map(|step| step.span) {
            let steps = list(first, std::mem::take(&mut self.steps));
            self.plugins.push(("path-rewrite", Map::new(first).with("steps", steps)));
        }
        if let Some((_, node)) = self.set_on_requests.first() {
            let config = request_headers(node.span, &std::mem::take(&mut self.set_on_requests));
            self.plugins.push(("request-transformer", config));
        }
        let security = self.security.take().map(Map::node);
        if security.is_none() && self.set_on_responses.is_empty() {
            return;
        }
        let span = security
            .as_ref()
            .or(self.set_on_responses.first().map(|(_, node)| node))
            .map_or_else(Span::default, |node| node.span);
        let mut config = Map::new(span);
        config.maybe("hsts", security);
        let (removed, set): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.set_on_responses).into_iter().partition(|(_, node)| is_empty(node));
        if !set.is_empty() {
            let mut fields = Map::new(span);
            set.into_iter().for_each(|(name, node)| fields.put(&name, node));
            config.put("set", fields.node());
        }
        if !removed.is_empty() {
            let names = removed.into_iter().map(|(name, node)| text(node.span, name));
            config.put("remove", list(span, names.collect()));
        }
        self.plugins.push(("security-headers", config));
    }
}

/// Set is removed and added, for `request-transformer` knows no other way; Host is replaced.
fn request_headers(span: Span, fields: &[(String, Node)]) -> Map {
    let (mut remove, mut add, mut replace) = (Vec::new(), Vec::new(), Vec::new());
    for (name, node) in fields {
        let pair = || text(node.span, format!("{name}:{}", node.text().unwrap_or_default()));
        if name.eq_ignore_ascii_case("host") {
            replace.push(pair());
            continue;
        }
        remove.push(text(node.span, name.clone()));
        if !is_empty(node) {
            add.push(pair());
        }
    }
    let mut config = Map::new(span);
    for (step, items) in [("remove", remove), ("replace", replace), ("add", add)] {
        if !items.is_empty() {
            config.put(step, Map::new(span).with("headers", list(span, items)).node());
        }
    }
    config
}

fn is_empty(node: &Node) -> bool {
    node.text().is_none_or(str::is_empty)
}

fn secret_text(span: Span, line: &str) -> Node {
    let mut node = tree::text(span, line);
    if let Value::Scalar(scalar) = &mut node.value {
        scalar.secret = true;
    }
    node
}

fn copied(inner: &Fields<'_>, keys: &[&str]) -> Map {
    let mut config = Map::new(inner.origin().span);
    keys.iter().for_each(|key| config.maybe(key, inner.get(key).cloned()));
    config
}

fn cors(way: &mut Way, inner: &Fields<'_>) {
    let mut config = Map::new(inner.origin().span);
    let mut origins = Vec::new();
    for key in ["accessControlAllowOriginList", "accessControlAllowOriginListRegex"] {
        origins.extend(inner.get(key).map(Node::items).unwrap_or_default().iter().cloned());
    }
    if let Some(first) = origins.first() {
        config.put("origins", list(first.span, origins));
    }
    for (from, to) in [
        ("accessControlAllowMethods", "methods"),
        ("accessControlAllowHeaders", "headers"),
        ("accessControlExposeHeaders", "exposed_headers"),
        ("accessControlAllowCredentials", "credentials"),
        ("accessControlMaxAge", "max_age"),
    ] {
        config.maybe(to, inner.get(from).cloned());
    }
    if config.is_empty() {
        return;
    }
    if !inner.is_set("accessControlAllowOriginList") && !inner.is_set("accessControlAllowOriginListRegex") {
        let fault = Fault::new("no origin is allowed, so browsers let no other site read answers");
        let origin = inner.origin();
        inner.diagnostics().warning(
            origin.span,
            &origin.path,
            fault.hint("set `accessControlAllowOriginList`"),
        );
        return;
    }
    way.plugin("cors", config, inner);
}

/// The limit of requests holds for what is streamed too; responses must be held to be refused whole.
fn buffering(way: &mut Way, inner: &Fields<'_>) {
    let span = inner.origin().span;
    let given =
        |key: &str| inner.get(key).filter(|_| inner.optional_integer::<u64>(key).unwrap_or(0) > 0).cloned();
    if let Some(size) = given("maxRequestBodyBytes") {
        let config =
            Map::new(span).with("allowed_payload_size", size).with("size_unit", plain(span, "bytes"));
        way.plugin("request-size-limiting", config, inner);
    }
    if let Some(size) = given("maxResponseBodyBytes") {
        let config = Map::new(span).with("request", plain(span, false)).with("max_response_body_bytes", size);
        way.plugin("buffering", config, inner);
    }
}

/// What is left out means what it means there.
fn compress(way: &mut Way, inner: &Fields<'_>) {
    let span = inner.origin().span;
    let mut config = Map::new(span);
    for (from, to) in [
        ("excludedContentTypes", "excluded_content_types"),
        ("includedContentTypes", "included_content_types"),
        ("minResponseBodyBytes", "min_response_body_bytes"),
        ("encodings", "encodings"),
    ] {
        config.maybe(to, inner.get(from).cloned());
    }
    if !inner.is_set("encodings") {
        config.put("encodings", list(span, ["gzip", "br", "zstd"].map(|word| plain(span, word)).to_vec()));
    }
    if inner.optional_word("defaultEncoding").is_some_and(|word| !word.is_empty()) {
        config.maybe("default_encoding", inner.get("defaultEncoding").cloned());
    }
    way.plugin("compression", config, inner);
}

fn rate_limit(way: &mut Way, inner: &Fields<'_>) {
    let average: u64 = inner.integer("average");
    if average == 0 {
        inner.warning("average", "without `average` nothing is limited, as in Traefik");
        return;
    }
    let mut config = copied(inner, &["average", "period", "burst"]);
    if inner.optional_integer::<u64>("burst") == Some(0) {
        inner.warning("burst", "a burst of 0 lets no request through, in Traefik too");
    }
    let period = inner.optional_duration("period").unwrap_or(std::time::Duration::from_secs(1));
    if period.as_secs() != 1 {
        let message = format!("the limit is {average} per {period:?}, not per second");
        inner.diagnostics().note(inner.span_of("average"), inner.path_of("average"), message);
    }
    if !inner.is_set("burst") {
        let fault = Fault::new("without `burst` two requests at once are one too many");
        inner.diagnostics().note(
            inner.span_of("average"),
            inner.path_of("average"),
            fault.hint("set `burst`"),
        );
    }
    criterion(&mut config, inner, "ip");
    way.plugin("token-bucket", config, inner);
}

fn in_flight(way: &mut Way, inner: &Fields<'_>) {
    if inner.integer::<u64>("amount") == 0 {
        inner.warning("amount", "without `amount` nothing is limited, as in Traefik");
        return;
    }
    let mut config = copied(inner, &["amount"]);
    criterion(&mut config, inner, "host");
    way.plugin("in-flight-limit", config, inner);
}

/// Whose requests are counted together.
fn criterion(config: &mut Map, inner: &Fields<'_>, default: &str) {
    let criterion = inner.section("sourceCriterion");
    let span = criterion.origin().span;
    if let Some(name) = criterion.get("requestHeaderName") {
        config.put("limit_by", plain(name.span, "header"));
        config.put("header_name", name.clone());
    } else if criterion.bool("requestHost") {
        config.put("limit_by", plain(span, "host"));
    } else if criterion.is_set("ipStrategy") {
        config.put("limit_by", plain(span, "ip"));
    } else {
        config.put("limit_by", plain(span, default));
    }
}
