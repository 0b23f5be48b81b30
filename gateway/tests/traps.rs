//! What `check` says of configurations that are right and probably not meant: one line a trap.

use std::sync::Arc;

use portcullis::id::Generation;
use portcullis::metrics::Registry;
use portcullis::snapshot::{CompileContext, GatewayCatalog, Names, compile};
use portcullis::tls::Ticketer;
use portcullis_config::{Diagnostic, Severity, load_str};

/// Everything that `check` says.
fn said(text: &str) -> Vec<Diagnostic> {
    let loaded = load_str("t.yaml", text, &GatewayCatalog).unwrap_or_else(|found| {
        panic!("{text}\n{}", found.iter().map(|one| format!("{one}\n")).collect::<String>())
    });
    let names = Names::default();
    let cx = CompileContext {
        names: &names,
        generation: Generation(1),
        previous: None,
        registry: &Registry::new(1, 100),
        ticketer: &Ticketer::off(),
    };
    let mut all = loaded.warnings;
    all.extend(match compile(Arc::new(loaded.config), &cx) {
        Ok((_, warnings)) => warnings,
        Err(errors) => errors,
    });
    all
}

const SERVICE: &str =
    "services: [{name: s, url: 'http://127.0.0.1:1', routes: [{name: r, paths: [/a], strip_path: false}]}]";

#[track_caller]
fn check(text: &str, path: &str, message: &str, has_hint: bool) {
    let all = said(text);
    let shown: String = all.iter().map(|one| format!("{one}\n")).collect();
    let found =
        all.iter().find(|one| one.message.contains(message)).unwrap_or_else(|| panic!("{text}\n{shown}"));
    assert_eq!(found.severity, Severity::Warning, "{found}");
    assert_eq!(found.path, path, "{found}");
    assert!(found.line > 0 && found.column > 0, "{found}");
    assert_eq!(found.hint.is_some(), has_hint, "{found}");
}

fn plugin(name: &str, config: &str) -> String {
    format!("{SERVICE}\nplugins: [{{name: {name}, config: {config}}}]")
}

#[test]
fn of_services_and_routes() {
    let kong = "_format_version: '3.0'\nservices: [{name: s, url: 'http://127.0.0.1:1', connect_timeout: 5, routes: [{name: r, paths: [/a]}]}]";
    check(kong, "services[0].connect_timeout", "a bare number is milliseconds: this is 5 ms", true);
    check(
        kong,
        "services[0].routes[0]",
        "`strip_path` is left out, so the upstream sees paths without `/a`",
        true,
    );
    let regex = "services: [{name: s, url: 'http://127.0.0.1:1', routes: [{name: r, paths: ['/a/(.*)']}]}]";
    check(
        regex,
        "services[0].routes[0].paths[0]",
        "looks like a regular expression and is taken literally",
        true,
    );
    let wide =
        "services: [{name: s, url: 'http://127.0.0.1:1', routes: [{name: r, paths: [/a], body_limit: 0}]}]";
    check(wide, "services[0].routes[0]", "takes bodies of any size", true);
    let tls = "services: [{name: s, url: 'https://127.0.0.1:1', tls_verify: false}]";
    check(tls, "services[0].tls_verify", "the certificates of the targets are not verified", true);
}

#[test]
fn of_authentication() {
    check(
        &plugin("jwt", "{claims_to_verify: []}"),
        "plugins[0].config.claims_to_verify",
        "without `exp` a token is accepted for ever",
        false,
    );
    check(
        &plugin("jwt", "{}"),
        "plugins[0]",
        "no consumer has jwt_secrets, so `jwt` lets nobody through",
        false,
    );
    check(
        &plugin("acl", "{allow: [a]}"),
        "plugins[0]",
        "no consumer has acls, so `acl` lets nobody through",
        false,
    );
    check(&plugin("acl", "{allow: [a]}"), "plugins[0]", "no authentication runs before `acl`", true);
}

#[test]
fn of_limits() {
    check(
        &plugin("rate-limiting", "{minute: 5, policy: local}"),
        "plugins[0]",
        "no authentication tells a consumer, so every request is counted by its client address",
        true,
    );
    check(
        &plugin("rate-limiting", "{minute: 5, limit_by: credential}"),
        "plugins[0].config.limit_by",
        "no authentication tells a credential",
        true,
    );
    check(
        &plugin("rate-limiting", "{minute: 5, limit_by: header, header_name: X-A}"),
        "plugins[0].config.limit_by",
        "a request without the header is counted by its client address",
        false,
    );
    let redis = plugin(
        "rate-limiting",
        "{minute: 5, limit_by: ip, policy: redis, redis_host: 127.0.0.1, redis_port: 6379}",
    );
    check(&redis, "plugins[0].config.redis_host", "deprecated", true);
    check(
        &plugin("request-size-limiting", "{}"),
        "plugins[0]",
        "`allowed_payload_size` is left out: 128 megabytes",
        true,
    );
    check(
        &plugin("request-size-limiting", "{allowed_payload_size: 50}"),
        "plugins[0].config.allowed_payload_size",
        "`limits.body` is lower",
        true,
    );
}

#[test]
fn an_authenticated_route_needs_no_fallback() {
    let text = "services:\n- name: s\n  url: http://127.0.0.1:1\n  routes: [{name: r, paths: [/a], strip_path: false}]\n  plugins: [{name: key-auth}, {name: rate-limiting, config: {minute: 5}}]\nconsumers: [{username: a, keyauth_credentials: [{key: abc}]}]";
    assert!(said(text).iter().all(|one| !one.message.contains("counted by its client address")));
}

#[test]
fn of_transformers() {
    let custom = plugin(
        "request-transformer",
        "{add: {headers: ['X-Custom-Auth: Authorization'], querystring: ['version: v2']}}",
    );
    check(&custom, "plugins[0].config.add.headers[0]", "spaces around the value are not part of it", true);
    check(&custom, "plugins[0].config.add.headers[0]", "spaces around", true);
    let replaced = plugin("request-transformer", "{replace: {body: ['user_name: username']}}");
    check(
        &replaced,
        "plugins[0].config.replace.body[0]",
        "gives the field `user_name` the value \"username\"; it renames nothing",
        true,
    );
    let removed = plugin("response-transformer", "{remove: {json: [internal_id]}}");
    check(&removed, "plugins[0].config.remove", "JSON responses are held in memory whole for this", true);
}

#[test]
fn of_cors() {
    let text = "services: [{name: s, url: 'http://127.0.0.1:1', routes: [{name: r, paths: [/a], methods: [GET, PUT], strip_path: false}], plugins: [{name: cors, config: {methods: [GET, POST]}}]}]";
    check(text, "services[0].plugins[0]", "without `origins` scripts of every site may read answers", true);
    check(
        text,
        "services[0].plugins[0].config.methods",
        "the route `r` takes PUT, which browsers of other sites may not use",
        true,
    );
    check(
        text,
        "services[0].routes[0]",
        "does not take OPTIONS, so preflight requests are answered 404",
        true,
    );
    check(
        &plugin("cors", "{origins: ['*'], credentials: true}"),
        "plugins[0].config.credentials",
        "every site may send its visitors' credentials",
        false,
    );
}

#[test]
fn of_health_checks() {
    let upstream = |checks: &str| {
        format!(
            "upstreams: [{{name: u, targets: [{{target: '127.0.0.1:1'}}], healthchecks: {checks}}}]\nservices: [{{name: s, host: u}}]"
        )
    };
    check(
        &upstream("{active: {http_path: /health}}"),
        "upstreams[0].healthchecks.active",
        "no probe is ever sent",
        true,
    );
    check(
        &upstream("{active: {healthy: {interval: 5}, unhealthy: {http_failures: 1}}}"),
        "upstreams[0].healthchecks.active",
        "probes never make a target healthy again",
        true,
    );
    check(
        &upstream("{active: {healthy: {interval: 5, successes: 1}}}"),
        "upstreams[0].healthchecks.active",
        "probes never make a target unhealthy",
        true,
    );
    check(
        &format!("_format_version: '3.0'\n{}", upstream("{passive: {unhealthy: {timeouts: 3}}}")),
        "upstreams[0].healthchecks.passive",
        "without probes a target comes back by a trial request",
        true,
    );
    check(
        &upstream("{passive: {eject_for: 0s, unhealthy: {timeouts: 3}}}"),
        "upstreams[0].healthchecks.passive",
        "nothing lets a target back in",
        true,
    );
    check(
        &upstream("{passive: {unhealthy: {http_statuses: [429, 500, 503]}}}"),
        "upstreams[0].healthchecks.passive",
        "502 and 504 do not count",
        true,
    );
}

#[test]
fn kongs_defaults_are_named_where_they_are_chosen() {
    let found = said("_format_version: '3.0'\ndefaults: kong\n");
    let note = found.iter().find(|one| one.path == "defaults").expect("a note");
    assert!(note.message.contains("timeouts of 60 s, five retries"), "{note}");
}
