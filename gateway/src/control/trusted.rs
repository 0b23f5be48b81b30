//! Who is never dropped nor banned, and why.
//!
//! Owns the one list of trusted prefixes with the reason of each, which the kernel's lists, a ban and the warnings of
//! `portcullis check` all go by. Never: a lookup on the path of a request.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use portcullis_config::Config;

use super::interfaces::Network;

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
    /// A target of this upstream or service.
    Target,
    /// The router that a default route goes by.
    Gateway,
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "loopback is never dropped",
            Self::Configured => "it is on xdp.trusted",
            Self::Proxy => "it is on trusted_proxies",
            Self::Allowed => "it is on xdp.allow",
            Self::Target => "it is an upstream's target",
            Self::Gateway => "it is the machine's default gateway",
        })
    }
}

/// Every trusted prefix of a configuration: `targets` are the addresses of all upstreams.
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
    trusted.iter().find(|one| one.prefix.contains(&prefix) || prefix.contains(&one.prefix))
}

const LOOPBACK: [&str; 2] = ["127.0.0.0/8", "::1/128"];
