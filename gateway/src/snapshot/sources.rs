//! What the configuration says about sources: compiled for the proxy's side and for the kernel's, from one set of
//! trusted addresses.
//!
//! Reads the files of lists. Invariant: who is trusted by one side is trusted by the other.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use portcullis_abi::Rate;
use portcullis_config::{self as config, Config, Diagnostics, RateLimit};

use crate::kernel::{self, LimitSpec, Lists, NamedList};
use crate::limit::{BanSettings, Costs, Enforcement, SourceLimiter, SourceSettings, read_prefixes};
use crate::upstream::UpstreamSpec;

/// Both sides.
pub(super) struct Sides {
    pub(super) limiter: SourceLimiter,
    pub(super) lists: Lists,
    /// Routers of this host, which are among the trusted.
    pub(super) gateways: Vec<IpAddr>,
}

/// Both sides, from one set of trusted addresses.
pub(super) fn compile(config: &Config, upstreams: &[Arc<UpstreamSpec>], found: &Diagnostics) -> Sides {
    let gateways = kernel::gateways();
    let trusted = trusted(config, upstreams, &gateways);
    let lists = lists(config, &trusted, found);
    let allowed = lists.named.iter().filter(|list| list.allows).flat_map(|list| list.prefixes.iter());
    let exempt = trusted.iter().chain(&config.xdp.allow).chain(allowed).copied().collect();
    Sides { limiter: limiter(config, exempt), lists, gateways }
}

/// Never charged, banned or dropped, besides loopback: proxies in front, upstream targets, the gateways of this host, and
/// whom the operator names.
fn trusted(config: &Config, upstreams: &[Arc<UpstreamSpec>], gateways: &[IpAddr]) -> Vec<IpNet> {
    let targets = upstreams.iter().flat_map(|upstream| &upstream.targets).filter_map(|target| target.address);
    let hosts = targets.map(|target| target.ip()).chain(gateways.iter().copied());
    let hosts = hosts.map(|address| IpNet::from(address.to_canonical()));
    config.trusted_proxies.iter().chain(&config.xdp.trusted).copied().chain(hosts).collect()
}

/// The bucket of a source as the proxy uses it; `exempt` are neither charged nor refused.
fn limiter(config: &Config, exempt: Vec<IpNet>) -> SourceLimiter {
    let xdp = &config.xdp;
    let costs = xdp.costs;
    let shadow = xdp.enforcement == config::Enforcement::Shadow;
    let enforcement = |refusal| match refusal {
        _ if shadow => Enforcement::Shadow,
        config::Refusal::Shadow => Enforcement::Shadow,
        _ => Enforcement::Enforce,
    };
    SourceLimiter::new(&SourceSettings {
        rate: rate(xdp.connections),
        costs: Costs {
            request: costs.request,
            unauthorized: costs.unauthorized,
            forbidden: costs.forbidden,
            too_many_requests: costs.too_many_requests,
            malformed: costs.malformed,
            malformed_http2: costs.malformed_http2,
            http2_flood: costs.http2_flood,
            tls_handshake_failed: costs.tls_handshake_failed,
            tls_handshake_abandoned: costs.tls_handshake_abandoned,
            slow_client: costs.slow_client,
            plugin: costs.plugin,
        },
        penalty_cap_ns: nanos(xdp.penalty_cap),
        penalties_per_second: xdp.costs_per_second,
        bans: bans(&xdp.bans),
        promotion_factor: xdp.promotion.factor,
        promotion_ns: nanos(xdp.promotion.lasts),
        promoted_addresses: xdp.promotion.addresses,
        enforcement: enforcement(xdp.refusals.connections),
        ban_enforcement: enforcement(xdp.refusals.banned),
        debt_refuses: xdp.refusals.connections == config::Refusal::Pass,
        trusted: exempt,
        trust_loopback: true,
        established_ns: nanos(xdp.aggregates.known_for),
    })
}

fn bans(bans: &config::Bans) -> BanSettings {
    let triggers = bans.triggers;
    let last = bans.steps.last().copied().unwrap_or_default();
    BanSettings {
        triggers: [
            triggers.unauthorized,
            triggers.forbidden,
            triggers.too_many_requests,
            triggers.malformed,
            triggers.malformed_http2,
            triggers.tls_handshake_failed,
            triggers.tls_handshake_abandoned,
            triggers.slow_client,
            triggers.plugin,
            triggers.http2_flood,
        ]
        .map(|trigger| {
            trigger.map_or(Rate::UNLIMITED, |rate| Rate::new(rate.tokens, nanos(rate.per), rate.tokens))
        }),
        steps_ns: std::array::from_fn(|step| nanos(bans.steps.get(step).copied().unwrap_or(last))),
        decay_ns: nanos(bans.decay),
    }
}

/// The lists and limits of the kernel's side. Findings are reported at the list with the file.
fn lists(config: &Config, trusted: &[IpNet], found: &Diagnostics) -> Lists {
    let xdp = &config.xdp;
    let loopback = LOOPBACK.iter().filter_map(|text| text.parse::<IpNet>().ok());
    let mut lists = Lists {
        trusted: trusted.iter().copied().chain(loopback).collect(),
        allow: xdp.allow.clone(),
        limits: xdp.rules.iter().map(limit).collect(),
        ..Lists::default()
    };
    // One way to be refused for a prefix: where that of `deny` is not the plain one, it is a list of its own.
    match xdp.refusals.denied {
        config::Refusal::Drop => lists.deny = xdp.deny.clone(),
        refusal => lists.named.push(NamedList {
            name: "deny".into(),
            prefixes: xdp.deny.as_slice().into(),
            allows: false,
            shadow: counts_only(refusal),
            reset: refusal == config::Refusal::Reset,
        }),
    }
    // Without the kernel part nobody asks for them, and their files need not be there.
    if xdp.mode != config::XdpMode::Off {
        lists.named.extend(xdp.lists.iter().map(|list| named(list, found)));
    }
    lists
}

fn limit(rule: &config::XdpRule) -> LimitSpec {
    LimitSpec {
        name: rule.name.clone(),
        ports: rule.ports.iter().map(|port| *port..=*port).collect(),
        prefixes: rule.sources.clone(),
        connections: rate(rule.connections),
        packets: rate(rule.packets),
        shadow: counts_only(rule.refusal),
        reset: rule.refusal == config::Refusal::Reset,
    }
}

fn named(list: &config::XdpList, found: &Diagnostics) -> NamedList {
    let mut prefixes = list.sources.clone();
    if let Some(file) = &list.file {
        match read_prefixes(file) {
            Ok(more) => prefixes.extend(more),
            Err(fault) => found.error(list.origin.span, format!("{}.file", list.origin.path), fault),
        }
    }
    NamedList {
        name: list.name.clone(),
        prefixes: prefixes.into(),
        allows: list.allows,
        shadow: counts_only(list.refusal),
        reset: list.refusal == config::Refusal::Reset,
    }
}

const fn counts_only(refusal: config::Refusal) -> bool {
    matches!(refusal, config::Refusal::Shadow | config::Refusal::Pass)
}

/// As the bucket algorithm has it.
pub fn rate(limit: Option<RateLimit>) -> Rate {
    limit.map_or(Rate::UNLIMITED, |limit| Rate {
        interval_ns: limit.rate.interval_ns(),
        burst_ns: limit.burst_ns(),
    })
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

const LOOPBACK: [&str; 2] = ["127.0.0.0/8", "::1/128"];
