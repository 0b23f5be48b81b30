//! From the validated configuration to a snapshot: all that can fail, before anything is published.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use portcullis_config::{self as config, Config, Diagnostic, Diagnostics};

use super::{
    Listener, Names, Route, Service, Snapshot, StreamRoutes, Times, edges, http2, plugins, sources, upstreams,
};
use crate::http::h1::HeadLimits;
use crate::http::{Doubtful, PathPolicy, Underscores};
use crate::id::{Generation, RouteId, ServiceId};
use crate::limit::LeastRate;
use crate::metrics::Registry;
use crate::net::clock;
use crate::plugin::chain::Chain;
use crate::plugin::consumer::Consumers;
use crate::plugin::{Wants, canary};
use crate::route::{self, Router};
use crate::tls::Ticketer;
use crate::upstream::retry;

/// What a compilation needs beside the configuration.
pub struct CompileContext<'a> {
    pub generation: Generation,
    /// The generation before, whose health and counters go on.
    pub previous: Option<&'a Snapshot>,
    /// Addresses of targets' names.
    pub names: &'a Names,
    pub registry: &'a Registry,
    /// One for the process, so that sessions resume on any shard and across reloads.
    pub ticketer: &'a Ticketer,
}

/// Compiles a configuration. Warnings are returned beside the snapshot.
///
/// Blocks for the resolution of target names and the reading of certificate files: not to be called on a shard.
///
/// # Errors
/// All problems at once, with their places.
pub fn compile(
    config: Arc<Config>,
    cx: &CompileContext<'_>,
) -> Result<(Snapshot, Vec<Diagnostic>), Vec<Diagnostic>> {
    let config = with_derived(config);
    let found = Diagnostics::new(config.sources.clone());
    let consumers = Arc::new(Consumers::compile(&config, clock::wall(), &found));
    let (plugins, chains) = plugins::compile(&config, &consumers, &found);
    let mut upstream_list = upstreams::compile(&config, cx, &found);
    let services = compile_services(&config, &mut upstream_list, cx, &found);
    let router = compile_router(&config, &chains, &found);
    let mut loaded = edges::Loaded::default();
    let listen = |l| edges::listener(&config, l, cx.ticketer, &mut loaded, &found);
    let listeners: Vec<Listener> = config.listeners.iter().filter_map(listen).collect();
    let ticket_keys = edges::ticket_keys(&config, &found);
    let streams = StreamRoutes::compile(&config, &found);
    let routes = compile_routes(&config, chains, cx);
    let sources = sources::compile(&config, &upstream_list, &found);
    let Some(router) = router.filter(|_| !found.has_errors()) else { return Err(found.into_sorted()) };
    let limits = &config.limits;
    let head_limits_of = |head: u32| HeadLimits {
        request_line: limits.request_line as usize,
        head: head as usize,
        fields: limits.header_count as usize,
        underscores: underscores(config.http.underscores),
        path: path_policy(&config.http),
    };
    let snapshot = Snapshot {
        generation: cx.generation,
        router,
        routes,
        services,
        upstreams: upstream_list,
        consumers,
        plugins,
        listeners,
        head_limits: head_limits_of(limits.head),
        // A target may use names with an underscore: what it says is not a claim about the client.
        response_head_limits: HeadLimits {
            underscores: Underscores::Keep,
            ..head_limits_of(limits.response_head)
        },
        h2: http2::settings(&config),
        trusted_proxies: config.trusted_proxies.iter().copied().collect(),
        source_limiter: sources.limiter,
        kernel_lists: sources.lists,
        gateways: sources.gateways,
        tells_destination: config.services.iter().any(|s| s.proxy_protocol != config::ProxyHeader::Off),
        streams,
        ticket_keys,
        expiries: loaded.expiries,
        config,
    };
    Ok((snapshot, found.into_sorted()))
}

fn compile_routes(config: &Config, chains: Vec<(Chain, Wants)>, cx: &CompileContext<'_>) -> Vec<Route> {
    config
        .routes
        .iter()
        .zip(chains)
        .map(|(route, (chain, wants))| Route {
            name: route.name.as_str().into(),
            service: route.service.map(|service| ServiceId(service.0)),
            chain,
            wants,
            // A rule has no prefix that could be cut off.
            strip_path: route.strip_path && (route.rule.is_none() || !route.paths.is_empty()),
            preserve_host: route.preserve_host,
            // Kong's default is no wish: whoever takes its defaults has his bodies streamed.
            buffers_request: route.request_buffering && config.defaults != config::Defaults::Kong,
            buffers_response: route.response_buffering && config.defaults != config::Defaults::Kong,
            path_handling: route.path_handling,
            https_redirect_status: route.https_redirect_status_code,
            body_limit: route.body_limit.unwrap_or(config.limits.body),
            buffered_body: route.buffered_body.unwrap_or(config.limits.buffered_body),
            least: LeastRate {
                bytes_per_second: route.min_rate.unwrap_or(config.limits.min_rate),
                grace: route.min_rate_after.unwrap_or(config.limits.min_rate_after),
            },
            times: Times::of(route, config),
            cost: route.cost,
            series: cx.registry.route(&route.name),
        })
        .collect()
}

/// The configuration with the services that plugins make of others.
fn with_derived(config: Arc<Config>) -> Arc<Config> {
    let derived = canary::derived(&config);
    let fresh = |one: &config::Service| !config.services.iter().any(|known| known.name == one.name);
    let derived: Vec<_> = derived.into_iter().filter(fresh).collect();
    if derived.is_empty() {
        return config;
    }
    let mut whole = Config::clone(&config);
    whole.services.extend(derived);
    Arc::new(whole)
}

fn underscores(of: config::Underscores) -> Underscores {
    match of {
        config::Underscores::Drop => Underscores::Drop,
        config::Underscores::Keep => Underscores::Keep,
        config::Underscores::Reject => Underscores::Reject,
    }
}

fn path_policy(http: &config::Http) -> PathPolicy {
    let doubtful = |one| match one {
        config::Doubtful::Reject => Doubtful::Reject,
        config::Doubtful::Keep => Doubtful::Keep,
        config::Doubtful::Decode => Doubtful::Decode,
    };
    PathPolicy {
        encoded_slash: doubtful(http.encoded_slash),
        backslash: doubtful(http.backslash),
        merge_slashes: http.merge_slashes,
    }
}

fn compile_services(
    config: &Config,
    upstream_list: &mut Vec<Arc<crate::upstream::UpstreamSpec>>,
    cx: &CompileContext<'_>,
    found: &Diagnostics,
) -> Vec<Service> {
    let mut clients = HashMap::new();
    config
        .services
        .iter()
        .map(|service| {
            let upstream = upstreams::of_service(config, service, upstream_list, cx, found);
            let tls = service.protocol.is_tls().then(|| edges::client(config, service, &mut clients, found));
            let (tls, tls_key) = tls.flatten().unzip();
            Service {
                name: service.name.as_str().into(),
                upstream,
                path: service.path.as_deref().filter(|path| *path != "/").map(|path| path.as_bytes().into()),
                request_trailers: service.request_trailers,
                retry: retry_policy(service),
                http_version: http2::version(service.http_version),
                grpc: matches!(service.protocol, config::Protocol::Grpc | config::Protocol::Grpcs),
                tls,
                tls_key,
                tls_sni: service.tls.sni.as_deref().map(Into::into),
                proxy_protocol: service.proxy_protocol,
            }
        })
        .collect()
}

fn retry_policy(service: &config::Service) -> retry::Policy {
    let policy = &service.retry_policy;
    retry::Policy {
        retries: service.retries,
        on_connect: policy.on_connect,
        on_refused: policy.on_refused,
        on_reset: policy.on_reset,
        on_timeout: policy.on_timeout,
        on_bad_response: policy.on_bad_response,
        on_statuses: policy.on_statuses.clone(),
        repeat_any_method: policy.any_method,
        per_try: policy.per_try_timeout,
        pause: policy.base_interval,
        pause_max: policy.max_interval,
    }
}

fn compile_router(config: &Config, chains: &[(Chain, Wants)], found: &Diagnostics) -> Option<Router> {
    let live = |route: &config::Route| {
        route.enabled
            && !route.is_passthrough()
            && route.service.is_none_or(|service| config[service].enabled)
    };
    let specs = config.routes.iter().enumerate().filter(|(_, route)| live(route)).map(|(index, route)| {
        let (hosts, paths) = hosts_and_paths(route);
        route::RouteSpec {
            id: RouteId(index as u32),
            name: route.name.clone(),
            hosts,
            paths,
            rule: route.rule.clone(),
            priority: route.priority,
            methods: route.methods.clone(),
            headers: route.headers.iter().map(header).collect(),
            snis: route.snis.iter().map(host).collect(),
            protocols: route::Protocols {
                http: route.protocols.iter().any(|p| p.is_http() && !p.is_tls()),
                https: route.protocols.iter().any(|p| p.is_http() && p.is_tls()),
            },
            order: index as u64,
            wants_captures: chains[index].1.captures,
        }
    });
    match Router::compile(specs.collect()) {
        Ok(router) => Some(router),
        Err(errors) => {
            for error in errors {
                let origin = &config.routes[error.route.index()].origin;
                found.error(origin.span, &origin.path, error.fault.to_string());
            }
            None
        }
    }
}

/// What the tables are made from: the route's own conditions, and where it has none, what its rule says of them.
fn hosts_and_paths(route: &config::Route) -> (Vec<route::HostPattern>, Vec<route::PathPattern>) {
    let mut hosts: Vec<_> = route.hosts.iter().map(host).collect();
    let mut paths: Vec<_> = route.paths.iter().map(|path| path_pattern(path, route.regex_priority)).collect();
    if let Some(rule) = &route.rule {
        let anchors = route::anchors(rule);
        if hosts.is_empty() {
            let exact = |name: &Cow<'_, str>| route::HostName::Exact(name.clone().into_owned());
            let names = anchors.hosts.iter().map(exact);
            hosts.extend(names.map(|name| route::HostPattern { name, port: None }));
        }
        if paths.is_empty() {
            let prefixes = anchors.prefixes.into_iter();
            paths.extend(prefixes.map(|prefix| route::PathPattern::Prefix(prefix.into_owned())));
        }
    }
    (hosts, paths)
}

fn host(pattern: &config::HostPattern) -> route::HostPattern {
    let name = match &pattern.name {
        config::HostName::Exact(name) => route::HostName::Exact(name.clone()),
        config::HostName::Suffix(text) => route::HostName::Leading(text.trim_start_matches('.').into()),
        config::HostName::Prefix(text) => route::HostName::Trailing(text.trim_end_matches('.').into()),
    };
    route::HostPattern { name, port: pattern.port }
}

fn path_pattern(pattern: &config::PathPattern, regex_priority: i64) -> route::PathPattern {
    match pattern {
        config::PathPattern::Prefix(prefix) => route::PathPattern::Prefix(prefix.clone()),
        config::PathPattern::Regex(regex) => route::PathPattern::Regex {
            source: regex.as_str().into(),
            priority: regex_priority.clamp(i32::MIN.into(), i32::MAX.into()) as i32,
        },
    }
}

fn header(condition: &config::HeaderMatch) -> route::HeaderMatch {
    let values = match &condition.value {
        config::HeaderValue::AnyOf(values) => values.iter().cloned().map(route::HeaderValue::Exact).collect(),
        config::HeaderValue::Regex(regex) => vec![route::HeaderValue::Regex(regex.as_str().into())],
    };
    route::HeaderMatch { name: condition.name.clone(), values }
}
