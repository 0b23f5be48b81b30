//! Routes.

use super::service::NestedRoute;
use super::{Builder, Document, PendingPlugin};
use crate::diagnostic::Fault;
use crate::fields::Fields;
use crate::model::{
    HeaderMatch, HeaderValue, HostPattern, PathHandling, PathPattern, Pattern, Protocol, Route, RouteRef,
    Scope, ServiceRef,
};
use crate::node::Value;
use crate::rule::Rule;
use crate::schema::{Entity, text};

impl<'a> Builder<'a> {
    /// Builds the nested routes, then those at the top.
    pub(super) fn build_routes(&mut self, nested: Vec<NestedRoute<'a>>) {
        for route in nested {
            self.build_route(route.document, &route.fields, Some(route.service));
        }
        for (document, fields) in self.all("routes") {
            self.build_route(document, &fields, None);
        }
    }

    fn build_route(&mut self, document: &Document<'a>, fields: &Fields<'a>, parent: Option<ServiceRef>) {
        let reference = RouteRef(self.routes.len() as u32);
        self.names.routes.add(Entity::Route, "name", fields, reference);
        self.names.routes.add(Entity::Route, "id", fields, reference);
        let scope = Scope { route: Some(reference), ..Scope::default() };
        let plugins = fields.sections("plugins").into_iter();
        self.pending.extend(plugins.map(|fields| PendingPlugin { fields, scope }));
        let named = fields.reference("service").and_then(|one| {
            self.names.services.resolve(Entity::Service, &one, &fields.path_of("service"), self.found)
        });
        if let (Some(parent), Some(named)) = (parent, named)
            && parent != named
        {
            let fault = Fault::new("the route is nested in one service and refers to another");
            fields.error("service", fault.hint("leave `service` out of a nested route"));
        }
        let route = route(document, fields, parent.or(named));
        self.check_streams(&route, fields);
        if route.enabled && route.service.is_none() && !fields.is_set("service") {
            let fault = Fault::new("the route has no service, so only plugins can answer its requests");
            self.found.warning(route.origin.span, &route.origin.path, fault.hint("set `service`"));
        }
        if !fields.is_set("strip_path") {
            self.silent_about_strip_path.push(self.routes.len());
        }
        self.routes.push(route);
    }
}

impl Builder<'_> {
    /// What a route and its service speak must fit, as in Kong.
    fn check_streams(&self, route: &Route, fields: &Fields<'_>) {
        let Some(service) = route.service.filter(|_| route.enabled) else { return };
        let protocol = self.services[service.index()].protocol;
        let stream = matches!(protocol, Protocol::Tcp | Protocol::TlsPassthrough);
        if route.is_passthrough() != stream && (stream || route.is_passthrough()) {
            let hint = "a route with `tls_passthrough` goes to a service with `tcp` or `tls_passthrough`, and no other does";
            let fault = Fault::new(format!("the route's service speaks {}", protocol.as_str()));
            fields.error("protocols", fault.hint(hint));
        }
    }
}

fn route(document: &Document<'_>, fields: &Fields<'_>, service: Option<ServiceRef>) -> Route {
    let protocols: Vec<_> = fields.words("protocols").into_iter().filter_map(Protocol::from_word).collect();
    let route = Route {
        name: fields.optional_string("name").unwrap_or_else(|| fields.path().to_owned()),
        id: fields.optional_string("id"),
        service,
        hosts: host_patterns(fields, "hosts"),
        paths: paths(document, fields),
        methods: fields.strings("methods"),
        headers: headers(fields),
        snis: snis(fields),
        priority: priority(fields),
        rule: fields.optional_string("rule").and_then(|text| Rule::parse(&text).ok()),
        strip_path: fields.bool("strip_path"),
        preserve_host: fields.bool("preserve_host"),
        regex_priority: fields.integer("regex_priority"),
        path_handling: if fields.word("path_handling") == "v1" { PathHandling::V1 } else { PathHandling::V0 },
        https_redirect_status_code: fields.integer("https_redirect_status_code"),
        request_buffering: fields.bool("request_buffering"),
        response_buffering: fields.bool("response_buffering"),
        body_limit: fields.optional_size("body_limit").map(|size| if size == 0 { u64::MAX } else { size }),
        buffered_body: fields.optional_size("buffered_body"),
        min_rate: fields.optional_size("min_rate").map(|size| u32::try_from(size).unwrap_or(u32::MAX)),
        min_rate_after: fields.optional_duration("min_rate_after"),
        timeouts: super::runtime::own_timeouts(&fields.section("timeouts")),
        cost: fields.optional_integer("cost"),
        enabled: is_evaluable(fields, &protocols),
        protocols,
        tags: fields.strings("tags"),
        origin: fields.origin(),
    };
    check_conditions(fields, &route);
    route
}

/// What decides before everything else: as in Traefik, a rule without a priority has that of its length.
fn priority(fields: &Fields<'_>) -> i64 {
    let length = || fields.optional_string("rule").map(|rule| rule.len() as i64);
    fields.optional_integer("priority").filter(|&priority| priority != 0).or_else(length).unwrap_or(0)
}

/// Whether this version can decide what the route matches. One that it cannot must not match everything.
fn is_evaluable(fields: &Fields<'_>, protocols: &[Protocol]) -> bool {
    if fields.is_set("expression") {
        return false;
    }
    let streams = protocols.iter().filter(|one| !one.is_http()).count();
    if protocols.contains(&Protocol::TlsPassthrough) {
        return is_passthrough(fields, protocols);
    }
    let now = [Protocol::Http, Protocol::Https, Protocol::Grpc, Protocol::Grpcs];
    let later = protocols.iter().filter(|one| !now.contains(one));
    let later: Vec<_> = later.map(|one| one.as_str()).collect();
    if !later.is_empty() {
        fields.warning("protocols", format!("{} is accepted, not acted on yet", later.join(", ")));
    }
    protocols.is_empty() || streams < protocols.len()
}

/// Checks a route for streams that are passed on unopened: nothing but the server name is seen of them.
fn is_passthrough(fields: &Fields<'_>, protocols: &[Protocol]) -> bool {
    if protocols.len() > 1 {
        let fault = Fault::new("`tls_passthrough` stands beside another protocol");
        fields.error("protocols", fault.hint("make a route of its own for the other one"));
    }
    if fields.strings("snis").is_empty() {
        let fault = Fault::new("a route that passes TLS on is chosen by server names, and has none");
        fields.error("snis", fault.hint("as in `snis: [shop.example.com]`"));
    }
    for key in ["hosts", "paths", "methods", "headers"] {
        if fields.is_set(key) {
            fields.error(key, "what is inside a TLS stream that is passed on cannot be seen");
        }
    }
    true
}

/// Kong demands a condition too; a route that matches everything says so with `paths: [/]`.
fn check_conditions(fields: &Fields<'_>, route: &Route) {
    if !route.enabled {
        return;
    }
    let conditions = ["hosts", "paths", "methods", "headers", "snis"];
    let stated = fields.is_set("rule")
        || conditions.iter().any(|key| {
            fields.get(key).is_some_and(|node| !node.items().is_empty() || !node.entries().is_empty())
        });
    if !stated && !fields.has_unknown_keys() {
        let fault =
            Fault::new("the route has no condition: none of hosts, paths, methods, headers, snis and rule");
        fields.diagnostics().error(
            route.origin.span,
            fields.path(),
            fault.hint("write `paths: [/]` to match everything"),
        );
    }
    if route.https_redirect_status_code != 426 && route.protocols.contains(&Protocol::Http) {
        let fault = Fault::new("nothing is redirected, because the route allows plain http itself");
        fields.warning("https_redirect_status_code", fault.hint("set `protocols: [https]`"));
    }
}

/// Host patterns of a list of texts.
pub(super) fn host_patterns(fields: &Fields<'_>, key: &str) -> Vec<HostPattern> {
    let texts = fields.strings(key).into_iter();
    texts
        .filter_map(|one| text::host_pattern(&one).ok())
        .map(|(name, port)| HostPattern { name, port })
        .collect()
}

fn snis(fields: &Fields<'_>) -> Vec<HostPattern> {
    let patterns = host_patterns(fields, "snis");
    if patterns.iter().any(|pattern| pattern.port.is_some()) {
        fields.error("snis", "a TLS server name has no port");
    }
    patterns
}

fn paths(document: &Document<'_>, fields: &Fields<'_>) -> Vec<PathPattern> {
    let items = fields.get("paths").map(|node| node.items()).unwrap_or_default().iter().enumerate();
    let mut patterns = Vec::with_capacity(items.len());
    for (index, node) in items {
        let Some(written) = node.text().filter(|one| (text::PATH_PATTERN.check)(one).is_ok()) else {
            continue;
        };
        let path = format!("{}[{index}]", fields.path_of("paths"));
        if let Some(expression) = written.strip_prefix('~') {
            patterns.push(PathPattern::Regex(Pattern(expression.to_owned())));
            continue;
        }
        if document.has_old_paths() && !is_plain_path(written) {
            match text::regex(written, written) {
                Ok(()) => patterns.push(PathPattern::Regex(Pattern(written.to_owned()))),
                Err(fault) => fields.diagnostics().error(node.span, path, fault),
            }
            continue;
        }
        if let Some(fault) = doubt(written) {
            fields.diagnostics().warning(node.span, path, fault);
        }
        patterns.push(PathPattern::Prefix(written.to_owned()));
    }
    patterns
}

/// What Kong before 3.0 took for a plain path; all else was an expression.
pub(crate) fn is_plain_path(path: &str) -> bool {
    path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-~%".contains(&byte))
}

/// Prefixes that match something else than they seem to.
fn doubt(path: &str) -> Option<Fault> {
    if let Some(prefix) = path.strip_suffix('*') {
        return Some(
            Fault::new(format!("the path {path:?} matches a literal `*`"))
                .hint(format!("a plain path is a prefix already: `{prefix}`")),
        );
    }
    if path.contains(['(', '[', '^', '$']) {
        return Some(
            Fault::new(format!("the path {path:?} looks like a regular expression and is taken literally"))
                .hint(format!("put `~` before an expression: `~{path}`")),
        );
    }
    if path.split('/').any(|segment| matches!(segment, "." | "..")) || path.contains(['?', '#']) {
        return Some(Fault::new(format!(
            "the path {path:?} never matches: request paths are normalised first"
        )));
    }
    None
}

fn headers(fields: &Fields<'_>) -> Vec<HeaderMatch> {
    let mut matches: Vec<HeaderMatch> = Vec::new();
    for (written, values) in fields.map_of_lists("headers") {
        let entry = fields.get("headers").and_then(|node| node.entry(&written));
        if entry.is_none_or(|entry| !matches!(entry.value.value, Value::List(_))) {
            continue;
        }
        let name = written.to_ascii_lowercase();
        let fail = |fault: Fault| {
            let span = entry.map_or_else(|| fields.span_of("headers"), |entry| entry.name_span);
            fields.diagnostics().error(span, format!("{}.{written}", fields.path_of("headers")), fault);
        };
        if name == "host" {
            fail(Fault::new("the Host header is no header condition").hint("use `hosts`"));
        }
        if matches.iter().any(|other| other.name == name) {
            fail(Fault::new(format!("the header `{name}` is given twice; header names have no case")));
        }
        if values.is_empty() {
            fail(Fault::new("the header may have no value at all, so nothing can match"));
        }
        let value = match values.first().and_then(|one| one.strip_prefix("~*")) {
            Some(expression) if values.len() == 1 => {
                if let Err(fault) = text::regex(expression, expression) {
                    fail(fault);
                }
                HeaderValue::Regex(Pattern(expression.to_owned()))
            }
            _ => HeaderValue::AnyOf(values.iter().map(|one| one.to_lowercase()).collect()),
        };
        matches.push(HeaderMatch { name, value });
    }
    matches
}
