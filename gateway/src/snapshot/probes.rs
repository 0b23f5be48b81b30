//! Compiles `healthchecks.active`: the request of a probe, its TLS, and the rule by which verdicts count.

use portcullis_config::{self as config, CheckKind, Config, Diagnostics};

use crate::http::Underscores;
use crate::http::h1::HeadLimits;
use crate::plugin::service_tls;
use crate::upstream::health::Statuses;
use crate::upstream::probe::{ProbeKind, ProbeSpec, Rule};

/// Who asks, for the logs of targets.
const AGENT: &str = "portcullis-probe";

/// How the targets of an upstream are probed; `None` where nothing is to be sent.
pub fn compile(config: &Config, upstream: &config::Upstream, found: &Diagnostics) -> Option<ProbeSpec> {
    let active = &upstream.healthchecks.active;
    if !active.is_on() {
        return None;
    }
    warn_of_no_rule(upstream, found);
    let kind = match active.kind {
        CheckKind::Tcp => ProbeKind::Connect,
        CheckKind::Http | CheckKind::Https => ProbeKind::Http,
        CheckKind::Grpc | CheckKind::Grpcs => ProbeKind::Grpc,
    };
    let secure = matches!(active.kind, CheckKind::Https | CheckKind::Grpcs);
    let tls = if secure { Some(tls(config, upstream, found)?) } else { None };
    let (host, request) = request(upstream, kind);
    let head = config.limits.response_head as usize;
    Some(ProbeSpec {
        kind,
        grpc_service: active.grpc_service.as_str().into(),
        request: request.into(),
        host,
        tls: tls.map(|client| (client, active.https_sni.as_deref().map(Into::into))),
        timeout: active.timeout,
        concurrency: active.concurrency.max(1),
        pause_up: active.healthy_interval,
        pause_down: active.unhealthy_interval,
        rule: Rule {
            statuses: Statuses::new(&active.healthy.http_statuses, &active.unhealthy.http_statuses),
            successes: active.healthy.successes,
            http_failures: active.unhealthy.http_failures,
            tcp_failures: active.unhealthy.tcp_failures,
            timeouts: active.unhealthy.timeouts,
        },
        limits: HeadLimits { head, underscores: Underscores::Keep, ..HeadLimits::default() },
        fingerprint: format!("{active:?} {:?}", upstream.host_header),
    })
}

/// Kong's counts are 0, off, unless set: probes then run and change nothing, which nobody wants who turned them on.
fn warn_of_no_rule(upstream: &config::Upstream, found: &Diagnostics) {
    let active = &upstream.healthchecks.active;
    let origin = &upstream.origin;
    let warn = |key: &str, fault: config::Fault| {
        found.warning(origin.span, format!("{}.healthchecks.active.{key}", origin.path), fault);
    };
    let down = &active.unhealthy;
    if down.http_failures == 0 && down.tcp_failures == 0 && down.timeouts == 0 {
        let fault = config::Fault::new("probes are sent, and no number of failures takes a target out");
        warn("unhealthy", fault.hint("set `http_failures`, `tcp_failures` and `timeouts`"));
    } else if active.healthy.successes == 0 {
        let fault = config::Fault::new("a target that probes have taken out never comes back by itself");
        warn("healthy.successes", fault.hint("set it to 1 or more"));
    } else if active.unhealthy_interval.is_zero() {
        let fault =
            config::Fault::new("a target that is out is not probed, so it never comes back by itself");
        warn("unhealthy.interval", fault.hint("set an interval"));
    }
}

/// The request without its `Host` line, and the host where one is configured.
fn request(upstream: &config::Upstream, kind: ProbeKind) -> (Option<Box<[u8]>>, Vec<u8>) {
    if kind == ProbeKind::Connect {
        return (None, Vec::new());
    }
    let active = &upstream.healthchecks.active;
    let mut host = upstream.host_header.as_ref().map(|host| host.as_bytes().into());
    let mut request =
        format!("GET {} HTTP/1.1\r\nUser-Agent: {AGENT}\r\nConnection: close\r\n", active.http_path);
    for (name, values) in &active.headers {
        for value in values {
            if name.eq_ignore_ascii_case("host") {
                host = Some(value.as_bytes().into());
            } else {
                request.push_str(&format!("{name}: {}\r\n", value.replace(['\r', '\n', '\0'], " ")));
            }
        }
    }
    (host, request.into_bytes())
}

/// What probes verify against: the authorities of the first service that uses the upstream, as its requests do.
fn tls(
    config: &Config,
    upstream: &config::Upstream,
    found: &Diagnostics,
) -> Option<crate::tls::ClientConfig> {
    let user = config.services.iter().find(|service| match service.destination {
        config::Destination::Upstream(reference) => config[reference].name == upstream.name,
        config::Destination::Target(_) => false,
    });
    let settings = config::UpstreamTls {
        verify: upstream.healthchecks.active.https_verify_certificate,
        verify_depth: user.and_then(|service| service.tls.verify_depth),
        sni: user.and_then(|service| service.tls.sni.clone()),
        sans: user.map(|service| service.tls.sans.clone()).unwrap_or_default(),
        ca_certificates: user.map(|service| service.tls.ca_certificates.clone()).unwrap_or_default(),
        client_certificate: upstream
            .client_certificate
            .or(user.and_then(|service| service.tls.client_certificate)),
    };
    let alpn = match upstream.healthchecks.active.kind {
        CheckKind::Grpcs => crate::tls::Alpn::H2,
        _ => crate::tls::Alpn::Http11,
    };
    match service_tls::client(config, &settings, vec![alpn]) {
        Ok(client) => Some(client.for_shard()),
        Err(error) => {
            found.error(upstream.origin.span, &upstream.origin.path, error.to_string());
            None
        }
    }
}
