//! What is right and probably not meant: places where a gateway's users expect something else than what is written.
//!
//! Owns the warnings alone; it changes nothing and refuses nothing. Those about the settings of one plugin are the
//! plugin's; here are those that need a second place of the configuration, or Kong's habits. Invariant: what is said
//! here is said only of what is written, or of what its absence means.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::Builder;
use crate::diagnostic::Fault;
use crate::fields::Fields;
use crate::model::{Defaults, Limits, PathPattern, Plugin, Route, RouteRef, ServiceRef, Upstream};
use crate::node::{Node, Value};

/// Authentication plugins, after which a consumer is known.
const AUTHENTICATION: [&str; 8] = [
    "jwt",
    "key-auth",
    "basic-auth",
    "hmac-auth",
    "multi-auth",
    "oauth2",
    "oauth2-introspection",
    "mtls-auth",
];

/// A bare number of milliseconds below this was probably meant in seconds.
const SHORT: Duration = Duration::from_millis(100);

impl Builder<'_> {
    /// Says everything.
    pub(super) fn warn_of_traps(&self, limits: &Limits) {
        // What was refused reads as absent, and would be taken for a trap.
        if self.found.has_errors() {
            return;
        }
        let kong = self.documents.iter().any(|document| document.root.is_set("_format_version"));
        if kong && self.defaults == Defaults::Kong {
            self.warn_of_kongs_defaults();
        }
        for (_, fields) in self.all("services") {
            for key in ["connect_timeout", "write_timeout", "read_timeout"] {
                let bare =
                    fields.get(key).and_then(Node::text).is_some_and(|text| text.parse::<u64>().is_ok());
                if bare && fields.optional_duration(key).is_some_and(|time| time < SHORT) {
                    let number = fields.get(key).and_then(Node::text).unwrap_or_default();
                    let fault = Fault::new(format!("a bare number is milliseconds: this is {number} ms"));
                    fields.warning(key, fault.hint(format!("for seconds write `{number}s`")));
                }
            }
        }
        let chosen = self.documents.iter().any(|document| document.root.is_set("defaults"));
        if kong && !chosen {
            self.warn_of_strip_path();
        }
        for route in self.routes.iter().filter(|route| route.enabled && route.body_limit == Some(u64::MAX)) {
            self.warn(
                route,
                "the route takes bodies of any size",
                "leave `body_limit` out for `limits.body`",
            );
        }
        let context = Context::new(self, limits);
        for plugin in self.plugins.iter().filter(|plugin| plugin.enabled) {
            self.warn_of_plugin(plugin, &context);
        }
        for (_, fields) in self.all("upstreams") {
            let name = fields.optional_string("name");
            let found = name.and_then(|name| self.names.upstreams.find("name", &name));
            if let Some(upstream) = found {
                warn_of_checks(&fields, &self.upstreams[upstream.index()], kong);
            }
        }
    }

    fn warn(&self, route: &Route, message: &str, hint: &str) {
        self.found.warning(route.origin.span, &route.origin.path, Fault::new(message).hint(hint));
    }

    fn warn_of_kongs_defaults(&self) {
        let chosen = self.documents.iter().find(|document| document.root.is_set("defaults"));
        let Some(document) = chosen else { return };
        let fault = Fault::new(
            "Kong's defaults: timeouts of 60 s, five retries, unverified certificates of targets, no limit on bodies, \
             and tokens without an `exp` are accepted",
        );
        let span = document.root.span_of("defaults");
        self.found.note(span, "defaults", fault.hint("`defaults: portcullis` is stricter in each"));
    }

    /// Kong cuts the matched prefix off unless it is told not to. Said once, with the number of routes.
    fn warn_of_strip_path(&self) {
        let silent = |index: &usize| {
            let route = &self.routes[*index];
            let cuts = |path: &PathPattern| !matches!(path, PathPattern::Prefix(prefix) if prefix == "/");
            route.enabled && route.strip_path && route.service.is_some() && route.paths.iter().any(cuts)
        };
        let silent: Vec<usize> = self.silent_about_strip_path.iter().copied().filter(silent).collect();
        let Some(&first) = silent.first() else { return };
        let route = &self.routes[first];
        let prefix = match route.paths.first() {
            Some(PathPattern::Prefix(prefix)) => prefix.as_str(),
            Some(PathPattern::Regex(pattern)) => pattern.as_str(),
            None => "",
        };
        let more = silent.len() - 1;
        let places = if more > 0 { format!(" here and in {more} more routes") } else { String::new() };
        let message = format!(
            "`strip_path` is left out{places}, so the upstream sees paths without `{prefix}`, as in Kong"
        );
        self.warn(route, &message, "write `strip_path: false` to send paths on whole, or `true` to say so");
    }

    fn warn_of_plugin(&self, plugin: &Plugin, context: &Context<'_>) {
        let limits = context.limits;
        match plugin.name.as_str() {
            "rate-limiting" => self.warn_of_fallback(plugin, context),
            "cors" => self.warn_of_cors(plugin, context),
            "acl" => self.warn_of_unknown_consumers(plugin, context),
            "request-size-limiting" => self.warn_of_size(plugin, limits),
            "request-transformer" => self.warn_of_replaced_body(plugin),
            "response-transformer" => {
                let own = plugin.scope.route.and_then(|route| context.routes[route.index()].buffered_body);
                self.warn_of_buffering(plugin, own.unwrap_or(limits.buffered_body));
            }
            "forward-auth" if word(plugin, "trust_forward_header") == Some("true") => {
                let fault = Fault::new(
                    "`X-Forwarded-*` of clients go to the authority as they are: anybody can claim any address",
                );
                self.at(
                    plugin,
                    "trust_forward_header",
                    fault.hint("leave it out unless a trusted proxy stands before this gateway"),
                );
            }
            _ => {}
        }
    }

    fn at(&self, plugin: &Plugin, key: &str, fault: Fault) {
        let node = plugin.config.get(key);
        let span = node.map_or(plugin.origin.span, |node| node.span);
        let path = match node {
            Some(_) => format!("{}.config.{key}", plugin.origin.path),
            None => plugin.origin.path.clone(),
        };
        self.found.warning(span, path, fault);
    }

    fn warn_of_fallback(&self, plugin: &Plugin, context: &Context<'_>) {
        let by = word(plugin, "limit_by").unwrap_or("consumer");
        if matches!(by, "consumer" | "credential")
            && plugin.scope.consumer.is_none()
            && !context.is_authenticated(plugin)
        {
            let fault = Fault::new(format!(
                "no authentication tells a {by}, so every request is counted by its client address, as in Kong"
            ));
            self.at(
                plugin,
                "limit_by",
                fault.hint("write `limit_by: ip` to say so, or add an authentication plugin"),
            );
        }
        if by == "header" {
            let fault =
                Fault::new("a request without the header is counted by its client address, as in Kong");
            self.at(plugin, "limit_by", fault);
        }
    }

    fn warn_of_unknown_consumers(&self, plugin: &Plugin, context: &Context<'_>) {
        if !context.is_authenticated(plugin) {
            let fault = Fault::new(
                "no authentication runs before `acl`, so nobody is known and everybody is answered 401",
            );
            self.at(plugin, "acl", fault.hint("add an authentication plugin"));
        }
    }

    fn warn_of_cors(&self, plugin: &Plugin, context: &Context<'_>) {
        if plugin.config.get("origins").is_none() {
            let fault = Fault::new("without `origins` scripts of every site may read answers");
            self.at(plugin, "origins", fault.hint("list the sites"));
        }
        let allowed = plugin.config.get("methods").map(Node::items);
        let asking = |route: &&Route| route.enabled && !route.methods.is_empty();
        for route in context.routes_of(plugin).into_iter().filter(asking) {
            let said =
                |method: &String| allowed.is_none_or(|all| all.iter().any(|one| one.text() == Some(method)));
            let missing: Vec<_> = route
                .methods
                .iter()
                .filter(|method| *method != "OPTIONS" && !said(method))
                .cloned()
                .collect();
            if !missing.is_empty() {
                let fault = Fault::new(format!(
                    "the route `{}` takes {}, which browsers of other sites may not use by this list",
                    route.name,
                    missing.join(", ")
                ));
                self.at(plugin, "methods", fault.hint("add them to `methods`"));
            }
            if !route.methods.iter().any(|method| method == "OPTIONS") {
                let message = format!(
                    "the route `{}` does not take OPTIONS, so preflight requests are answered 404 before `cors` sees them",
                    route.name
                );
                self.warn(route, &message, "add OPTIONS to `methods` of the route");
            }
        }
    }

    fn warn_of_size(&self, plugin: &Plugin, limits: &Limits) {
        let unit: u64 = match word(plugin, "size_unit") {
            Some("bytes") => 1,
            Some("kilobytes") => 1 << 10,
            _ => 1 << 20,
        };
        let written = word(plugin, "allowed_payload_size");
        let size = written.map_or(Some(128), |text| text.parse::<u64>().ok());
        if written.is_none() {
            let fault = Fault::new("`allowed_payload_size` is left out: 128 megabytes, as in Kong");
            self.at(plugin, "allowed_payload_size", fault.hint("say how much is enough"));
        }
        let bytes = size.and_then(|size| size.checked_mul(unit));
        if limits.body > 0 && limits.body != u64::MAX && bytes.is_some_and(|bytes| bytes > limits.body) {
            let fault = Fault::new(format!(
                "`limits.body` is lower ({} bytes) and holds first, unlike in Kong",
                limits.body
            ));
            self.at(
                plugin,
                "allowed_payload_size",
                fault.hint("raise `limits.body`, or `body_limit` of the route"),
            );
        }
    }

    /// `replace` sets values; whoever wants to rename finds out late.
    fn warn_of_replaced_body(&self, plugin: &Plugin) {
        let items = plugin.config.get("replace").and_then(|section| section.get("body")).map(Node::items);
        let is_name = |text: &str| {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
            !text.is_empty() && text.bytes().all(fits) && text.starts_with(|c: char| c.is_ascii_alphabetic())
        };
        for (index, item) in items.unwrap_or_default().iter().enumerate() {
            let Some((name, value)) = item.text().and_then(|text| text.split_once(':')) else { continue };
            let value = value.trim();
            if is_name(name) && is_name(value) {
                let fault = Fault::new(format!(
                    "this gives the field `{name}` the value \"{value}\"; it renames nothing"
                ));
                let path = format!("{}.config.replace.body[{index}]", plugin.origin.path);
                self.found.warning(
                    item.span,
                    path,
                    fault.hint(format!("to rename, write `rename: {{body: [\"{name}:{value}\"]}}`")),
                );
            }
        }
    }

    fn warn_of_buffering(&self, plugin: &Plugin, room: u64) {
        let edits = |step: &&str| plugin.config.get(step).and_then(|section| section.get("json"));
        let found = ["remove", "rename", "replace", "add", "append"].into_iter().find(|step| {
            edits(step).is_some_and(|node| matches!(&node.value, Value::List(items) if !items.is_empty()))
        });
        if let Some(step) = found {
            let fault = Fault::new(format!(
                "JSON responses are held in memory whole for this, up to {room} bytes; a larger one becomes a 502"
            ));
            self.at(
                plugin,
                step,
                fault.hint("raise `limits.buffered_body`, or `buffered_body` of the route, if larger ones are to be expected"),
            );
        }
    }
}

fn warn_of_checks(fields: &Fields<'_>, upstream: &Upstream, kong: bool) {
    let checks = fields.section("healthchecks");
    let (active, passive) = (&upstream.healthchecks.active, &upstream.healthchecks.passive);
    if checks.is_set("active") && !active.is_on() {
        let fault = Fault::new("no probe is ever sent: `interval` is 0 under `healthy` and `unhealthy`");
        checks.warning("active", fault.hint("set `healthy.interval` and `unhealthy.interval`"));
    }
    if active.is_on() {
        let bad = &active.unhealthy;
        if active.healthy.successes == 0 {
            let fault = Fault::new("probes never make a target healthy again: `healthy.successes` is 0");
            checks.warning("active", fault.hint("set it to 1 or more"));
        }
        if bad.http_failures == 0 && bad.tcp_failures == 0 && bad.timeouts == 0 {
            let fault =
                Fault::new("probes never make a target unhealthy: every count under `unhealthy` is 0");
            checks.warning("active", fault.hint("set `http_failures`, `tcp_failures` or `timeouts`"));
        }
    }
    let stays = passive.eject_for.is_zero();
    let said = checks.section("passive").is_set("eject_for");
    if checks.is_set("passive") && !active.is_on() && (stays || (kong && !said)) {
        let message = match stays {
            true => "without probes nothing lets a target back in that the traffic has found unhealthy, as in Kong"
                .to_owned(),
            false => format!(
                "without probes a target comes back by a trial request after {:?}; in Kong never",
                passive.eject_for
            ),
        };
        checks
            .warning("passive", Fault::new(message).hint("add `active` checks, or set `passive.eject_for`"));
    }
    let statuses = &passive.unhealthy.http_statuses;
    if checks.is_set("passive")
        && passive.unhealthy.http_failures > 0
        && !statuses.contains(&502)
        && !statuses.contains(&504)
    {
        let fault = Fault::new("502 and 504 do not count as failures by this list");
        checks.warning("passive", fault.hint("add them to `unhealthy.http_statuses`"));
    }
}

/// What several warnings need to look up.
struct Context<'c> {
    routes: &'c [Route],
    limits: &'c Limits,
    by_service: HashMap<ServiceRef, Vec<usize>>,
    /// Where authentication plugins run: everywhere, or by service and route.
    everywhere: bool,
    somewhere: bool,
    services: HashSet<ServiceRef>,
    of_routes: HashSet<RouteRef>,
    services_of_routes: HashSet<ServiceRef>,
}

impl<'c> Context<'c> {
    fn new(builder: &'c Builder<'_>, limits: &'c Limits) -> Self {
        let mut context = Context {
            routes: &builder.routes,
            limits,
            by_service: HashMap::new(),
            everywhere: false,
            somewhere: false,
            services: HashSet::new(),
            of_routes: HashSet::new(),
            services_of_routes: HashSet::new(),
        };
        for (index, route) in builder.routes.iter().enumerate() {
            if let Some(service) = route.service {
                context.by_service.entry(service).or_default().push(index);
            }
        }
        let authentication =
            |plugin: &&Plugin| plugin.enabled && AUTHENTICATION.contains(&plugin.name.as_str());
        for plugin in builder.plugins.iter().filter(authentication) {
            context.somewhere = true;
            match (plugin.scope.route, plugin.scope.service) {
                (Some(route), _) => {
                    context.of_routes.insert(route);
                    context.services_of_routes.extend(builder.routes[route.index()].service);
                }
                (None, Some(service)) => {
                    context.services.insert(service);
                }
                (None, None) => context.everywhere = true,
            }
        }
        context
    }

    /// Whether an authentication plugin runs for some request that this plugin runs for.
    fn is_authenticated(&self, plugin: &Plugin) -> bool {
        if self.everywhere {
            return true;
        }
        match (plugin.scope.route, plugin.scope.service) {
            (Some(route), _) => {
                let service = self.routes[route.index()].service;
                self.of_routes.contains(&route) || service.is_some_and(|one| self.services.contains(&one))
            }
            (None, Some(service)) => {
                self.services.contains(&service) || self.services_of_routes.contains(&service)
            }
            (None, None) => self.somewhere,
        }
    }

    /// The routes that a plugin runs for.
    fn routes_of(&self, plugin: &Plugin) -> Vec<&'c Route> {
        match (plugin.scope.route, plugin.scope.service) {
            (Some(route), _) => vec![&self.routes[route.index()]],
            (None, Some(service)) => {
                let indices = self.by_service.get(&service).map(Vec::as_slice).unwrap_or_default();
                indices.iter().map(|&index| &self.routes[index]).collect()
            }
            (None, None) => self.routes.iter().collect(),
        }
    }
}

fn word<'p>(plugin: &'p Plugin, key: &str) -> Option<&'p str> {
    plugin.config.get(key).and_then(Node::text)
}
