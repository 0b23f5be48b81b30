//! Who is never dropped nor banned, and why.
//!
//! Owns the one list of trusted prefixes with the reason of each, which the kernel's lists, a ban and the warnings of
//! `portcullis check` all go by. Never: a lookup on the path of a request.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use portcullis_config::Config;

use super::interfaces::Network;
use crate::kernel::NamedList;

/// One trusted prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trusted {
    pub prefix: IpNet,
    pub because: Because,
}

/// Why a prefix is trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Because {
    Loopback,
    /// On `xdp.trusted`.
    Configured,
    /// On `trusted_proxies`.
    Proxy,
    /// On `xdp.allow`.
    Allowed,
    /// On a list of that name that allows.
    Listed(String),
    /// A target of this upstream or service.
    Target,
    /// A router of this machine's routes.
    Gateway,
}

impl Because {
    /// Whether a longer prefix that is denied goes before it.
    pub fn may_be_denied(&self) -> bool {
        matches!(self, Self::Allowed | Self::Listed(_))
    }
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Listed(list) => return write!(f, "it is on the list {list}, which allows"),
            Self::Loopback => "loopback is never dropped",
            Self::Configured => "it is on xdp.trusted",
            Self::Proxy => "it is on trusted_proxies",
            Self::Allowed => "it is on xdp.allow",
            Self::Target => "it is an upstream's target",
            Self::Gateway => "it is a gateway of this machine",
        })
    }
}

/// Every trusted prefix of a configuration but for those of its lists: `targets` are the addresses of all upstreams.
pub fn trusted(config: &Config, targets: &[IpAddr], network: &Network) -> Vec<Trusted> {
    let of = |because: Because| move |prefix: IpNet| Trusted { prefix, because: because.clone() };
    let host = |address: &IpAddr| IpNet::from(address.to_canonical());
    let loopback = LOOPBACK.iter().filter_map(|text| text.parse().ok());
    let xdp = &config.xdp;
    loopback
        .map(of(Because::Loopback))
        .chain(xdp.trusted.iter().copied().map(of(Because::Configured)))
        .chain(config.trusted_proxies.iter().copied().map(of(Because::Proxy)))
        .chain(targets.iter().map(host).map(of(Because::Target)))
        .chain(network.gateways().iter().map(host).map(of(Because::Gateway)))
        .chain(xdp.allow.iter().copied().map(of(Because::Allowed)))
        .collect()
}

/// The first trusted prefix that shares an address with `prefix`.
pub fn overlapping(trusted: &[Trusted], prefix: IpNet) -> Option<&Trusted> {
    trusted.iter().find(|one| overlap(one.prefix, prefix))
}

/// As [`overlapping`], for the lists that allow.
pub fn listed(lists: &[NamedList], prefix: IpNet) -> Option<Trusted> {
    lists.iter().filter(|list| list.allows).find_map(|list| {
        let found = list.prefixes.iter().find(|net| overlap(**net, prefix))?;
        Some(Trusted { prefix: *found, because: Because::Listed(list.name.clone()) })
    })
}

fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

const LOOPBACK: [&str; 2] = ["127.0.0.0/8", "::1/128"];
