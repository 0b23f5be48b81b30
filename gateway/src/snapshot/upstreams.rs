//! Compiles upstreams, and takes the condition of their targets over from the generation before.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use portcullis_config::{self as config, Config, Diagnostics};

use super::{CompileContext, Endpoint, Names, Snapshot, probes};
use crate::id::UpstreamId;
use crate::net::clock;
use crate::upstream::balance::{Algorithm, Maglev, Ring, TargetIndex, WhenAllDown};
use crate::upstream::health::{Group, Policy, Statuses};
use crate::upstream::sticky::{self, Sticky};
use crate::upstream::{Breakers, TargetSpec, UpstreamSpec, breaker};

/// Longest ejection, whatever the number of times in a row.
const EJECTION_MAX_NS: u64 = 600_000_000_000;
/// A trial that has not reported after so long no longer blocks the next.
const TRIAL_NS: u64 = 30_000_000_000;

/// The upstreams of the configuration, in its order.
pub fn compile(config: &Config, cx: &CompileContext<'_>, found: &Diagnostics) -> Vec<Arc<UpstreamSpec>> {
    config
        .upstreams
        .iter()
        .map(|upstream| {
            let targets = (0..).zip(&upstream.targets).flat_map(|(entry, t)| {
                let places = targets(cx.names, &t.address, t.weight, None, &t.origin, found);
                let backup = t.backup;
                places.into_iter().map(move |place| TargetSpec {
                    backup: backup || place.backup,
                    entry,
                    ..place
                })
            });
            let targets = targets.collect();
            let mut spec = build(config, &upstream.name, targets, Some(upstream), cx.previous);
            spec.probe = probes::compile(config, upstream, found);
            keep_if_same(spec, cx.previous)
        })
        .collect()
}

/// The upstream of a service: the one it names, or one with a single target made for it.
pub fn of_service(
    config: &Config,
    service: &config::Service,
    upstreams: &mut Vec<Arc<UpstreamSpec>>,
    cx: &CompileContext<'_>,
    found: &Diagnostics,
) -> UpstreamId {
    match &service.destination {
        config::Destination::Upstream(upstream) => UpstreamId(upstream.0),
        config::Destination::Target(address) => {
            let default_port = service.protocol.default_port();
            let targets = targets(cx.names, address, 100, Some(default_port), &service.origin, found);
            let spec = build(config, &address.to_string(), targets, None, cx.previous);
            upstreams.push(keep_if_same(spec, cx.previous));
            UpstreamId(upstreams.len() as u32 - 1)
        }
    }
}

/// The targets that one address of the configuration stands for: as many as its name has places. A name that does not
/// resolve makes one that nobody picks.
fn targets(
    names: &Names,
    address: &config::Address,
    weight: u16,
    default_port: Option<u16>,
    origin: &config::Origin,
    found: &Diagnostics,
) -> Vec<TargetSpec> {
    let (name, port) = match address {
        config::Address::Socket(address) => {
            return vec![target(
                address.to_string(),
                Some(*address),
                &literal(address),
                weight,
                default_port,
            )];
        }
        config::Address::Name { host, port } => (host, *port),
    };
    let endpoints = names.endpoints(name).unwrap_or_else(|cause| {
        let fault = config::Fault::new(format!("{address} does not resolve: {cause}"));
        found.warning(origin.span, &origin.path, fault.hint("it gets no traffic until it does"));
        Vec::new()
    });
    let of = |endpoint: &Endpoint| {
        let place = SocketAddr::new(endpoint.ip, endpoint.port.unwrap_or(port));
        // One alone keeps its name when its address changes; several are told apart by their addresses.
        let known_as = if endpoints.len() == 1 { address.to_string() } else { format!("{name}@{place}") };
        let weight = endpoint.weight.unwrap_or(weight);
        let spec = target(known_as, Some(place), &(name.clone(), place.port()), weight, default_port);
        TargetSpec { backup: endpoint.backup, ..spec }
    };
    match endpoints.len() {
        0 => vec![target(address.to_string(), None, &(name.clone(), port), weight, default_port)],
        _ => endpoints.iter().map(of).collect(),
    }
}

/// Host and port of a literal address as they stand in `Host`.
fn literal(address: &SocketAddr) -> (String, u16) {
    match address.ip() {
        IpAddr::V6(ip) => (format!("[{ip}]"), address.port()),
        IpAddr::V4(ip) => (ip.to_string(), address.port()),
    }
}

fn target(
    known_as: String,
    address: Option<SocketAddr>,
    (host, port): &(String, u16),
    weight: u16,
    default_port: Option<u16>,
) -> TargetSpec {
    let tls_name = host.trim_start_matches('[').trim_end_matches(']').into();
    let host = if Some(*port) == default_port { host.clone() } else { format!("{host}:{port}") };
    TargetSpec {
        mark: stable_hash(&known_as),
        entry: 0,
        name: known_as.into(),
        address,
        weight,
        backup: false,
        host: host.into_bytes().into(),
        tls_name,
    }
}

fn build(
    config: &Config,
    name: &str,
    targets: Vec<TargetSpec>,
    upstream: Option<&config::Upstream>,
    previous: Option<&Snapshot>,
) -> UpstreamSpec {
    let old = previous.and_then(|snapshot| snapshot.upstreams.iter().find(|old| *old.name == *name));
    let health = match old {
        Some(old) if old.targets.iter().map(place).eq(targets.iter().map(place)) => old.health.clone(),
        Some(old) => {
            let known = |index: usize| old.targets.iter().position(|t| place(t) == place(&targets[index]));
            let group = Group::adopting(targets.len(), |index| {
                Some((&*old.health, TargetIndex(known(index)? as u32)))
            });
            // A target that joins others starts slowly, where that is asked for.
            let now_ns = clock::now_ns();
            let new = (0..targets.len()).filter(|&index| known(index).is_none());
            new.for_each(|index| group.begin(TargetIndex(index as u32), now_ns));
            Arc::new(group)
        }
        None => Arc::new(Group::new(targets.len())),
    };
    let algorithm = match upstream.map(|u| u.algorithm) {
        None | Some(config::Algorithm::RoundRobin) => Algorithm::RoundRobin,
        Some(config::Algorithm::LeastConnections) => Algorithm::LeastConnections,
        Some(config::Algorithm::Latency) => Algorithm::Latency,
        Some(config::Algorithm::TwoChoices) => Algorithm::TwoChoices,
        Some(config::Algorithm::Random) => Algorithm::Random,
        Some(config::Algorithm::ConsistentHashing) => {
            Algorithm::ConsistentHashing(Arc::new(Ring::new(&points(&targets))))
        }
        Some(config::Algorithm::Maglev) => Algorithm::Maglev(Arc::new(Maglev::new(&points(&targets)))),
    };
    let breakers = upstream
        .and_then(|u| u.circuit_breaker.as_ref())
        .map(|s| breakers(s, &targets, old.map(|old| &**old)));
    UpstreamSpec {
        name: name.into(),
        targets,
        algorithm,
        hash_on: upstream.map(|u| u.hash_on.clone()).unwrap_or_default(),
        hash_fallback: upstream.map(|u| u.hash_fallback.clone()).unwrap_or_default(),
        host_header: upstream.and_then(|u| u.host_header.as_ref()).map(|host| host.as_bytes().into()),
        when_all_down: WhenAllDown::Refuse,
        panic_percent: upstream.map_or(0, |u| u.healthchecks.panic_threshold),
        threshold_percent: upstream.map_or(0, |u| u.healthchecks.threshold.clamp(0.0, 100.0) as u8),
        health,
        health_policy: upstream.map_or_else(Policy::default, |u| policy(&u.healthchecks.passive)),
        retry_budget_percent: config.limits.retry_budget_percent.into(),
        probe: None,
        slow_start_ns: upstream.map_or(0, |u| nanoseconds(u.slow_start)),
        breakers,
        sticky: upstream.and_then(|u| sticky(u, old.and_then(|old| old.sticky.as_ref()))),
    }
}

fn breakers(
    settings: &config::CircuitBreaker,
    targets: &[TargetSpec],
    old: Option<&UpstreamSpec>,
) -> Breakers {
    let before = old.and_then(|old| Some((old, old.breakers.as_ref()?)));
    let of_target = |target: &TargetSpec| {
        let (old, breakers) = before?;
        let index = old.targets.iter().position(|known| place(known) == place(target))?;
        breakers.of_targets.get(index).cloned()
    };
    let of_upstream = || before.and_then(|(_, breakers)| breakers.of_upstream.clone()).unwrap_or_default();
    let of_targets = targets.iter().map(|target| of_target(target).unwrap_or_default());
    Breakers {
        policy: breaker_policy(settings),
        of_upstream: settings.of_upstream.then(of_upstream),
        of_targets: if settings.of_targets { of_targets.collect() } else { Vec::new() },
        statuses: Statuses::new(&[], &settings.http_statuses),
        status: settings.status_code,
    }
}

fn sticky(upstream: &config::Upstream, old: Option<&Sticky>) -> Option<Sticky> {
    let cookie = upstream.sticky.as_ref()?;
    let key = match &cookie.secret {
        Some(secret) => sticky::Key::of_secret(secret.expose().as_bytes()),
        None => old.and_then(Sticky::random_key).or_else(sticky::Key::random)?,
    };
    Some(Sticky::new(upstream.name.as_str().into(), &cookie.name, &cookie.attributes, key))
}

/// What makes a target the same as one of before.
fn place(target: &TargetSpec) -> (&str, Option<SocketAddr>) {
    (&target.name, target.address)
}

fn points(targets: &[TargetSpec]) -> Vec<(u64, u32)> {
    targets.iter().map(|t| (t.mark, t.weight.into())).collect()
}

fn breaker_policy(settings: &config::CircuitBreaker) -> breaker::Policy {
    breaker::Policy {
        window_ns: nanoseconds(settings.window),
        requests_min: settings.min_requests,
        failures_percent: settings.failure_percent,
        failures_in_a_row: settings.consecutive_failures.into(),
        slow_ns: nanoseconds(settings.slow_after),
        slow_percent: settings.slow_percent,
        open_ns: nanoseconds(settings.open_for),
        open_max_ns: nanoseconds(settings.open_for_max),
        trials: settings.trials,
    }
}

fn policy(passive: &config::PassiveCheck) -> Policy {
    let small = |count: u32| u8::try_from(count).unwrap_or(u8::MAX);
    // Kong's: only a probe lets the target in again. A day's end does too, lest a mistake last for ever.
    let until_probed = passive.eject_for.is_zero();
    Policy {
        failures: 0,
        tcp_failures: small(passive.unhealthy.tcp_failures),
        timeouts: small(passive.unhealthy.timeouts),
        http_failures: small(passive.unhealthy.http_failures),
        successes: small(passive.healthy.successes),
        statuses: Statuses::new(&passive.healthy.http_statuses, &passive.unhealthy.http_statuses),
        ejection_ns: if until_probed { u64::MAX } else { nanoseconds(passive.eject_for) },
        ejection_max_ns: if until_probed { u64::MAX } else { EJECTION_MAX_NS },
        ejected_max_percent: passive.max_ejected_percent,
        trial_ns: TRIAL_NS,
    }
}

fn nanoseconds(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The same on every node, so that equal rings choose equal targets.
pub fn stable_hash(name: &(impl std::hash::Hash + ?Sized)) -> u64 {
    use std::hash::{DefaultHasher, Hasher};
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

/// The upstream of the generation before when nothing about it changed: balancers go on where they are.
fn keep_if_same(spec: UpstreamSpec, previous: Option<&Snapshot>) -> Arc<UpstreamSpec> {
    let old = previous.and_then(|snapshot| snapshot.upstreams.iter().find(|old| old.name == spec.name));
    match old {
        Some(old) if old.is_same(&spec) => old.clone(),
        _ => Arc::new(spec),
    }
}
