//! What an `xdp` section probably does not mean, as `portcullis check`, a start and a reload say it.
//!
//! Owns the warnings that need more than the section itself: rules that hide each other, rules against sources that are
//! trusted, limits that an honest browser runs into, and what the machine should be set to. Never an error: each of
//! these may be meant. Pure but for [`of_machine`].

use std::net::IpAddr;

use ipnet::IpNet;
use portcullis_config::{Config, Diagnostic, Enforcement, Severity, XdpMode, XdpRule};

use super::interfaces::Network;
use super::trusted::{Because, Trusted, overlapping, trusted};

/// Connections that a browser opens at once: six to a host (the limit of Chrome, Firefox and Safari for HTTP/1.1), and
/// as many again when the page is loaded anew before the first have closed.
const BROWSER_CONNECTIONS: u32 = 12;
/// Packets that these take until the first answer: ten each (handshake, TLS, request, acknowledgements).
const BROWSER_PACKETS: u32 = BROWSER_CONNECTIONS * 10;
/// Requests that come with one page.
const BROWSER_REQUESTS: u32 = 100;
/// Heartbeats come once a second; fewer than three of them missing is a busy machine, not a dead gateway.
const DEAD_AFTER_LEAST_S: u64 = 3;
/// Warnings about one list.
const LISTED_MAX: usize = 10;

/// All that is worth saying about a configuration on this machine's network.
pub fn of_config(config: &Config, targets: &[IpAddr], network: &Network) -> Vec<Diagnostic> {
    let mut said = Advice { config, found: Vec::new() };
    let per_source = config.limits.connections_per_source;
    if (1..BROWSER_CONNECTIONS).contains(&per_source) {
        said.warn(
            "limits.connections_per_source",
            format!("{per_source} connections are fewer than one browser opens at once"),
            format!("a browser opens 6 to a host, and twice that on a reload: {BROWSER_CONNECTIONS} or more"),
        );
    }
    if config.xdp.mode != XdpMode::Off {
        let trusted = trusted(config, targets, network);
        said.limits();
        said.aggregates();
        said.rules(&trusted);
        said.lists(&trusted);
        said.switches();
    }
    said.found
}

/// What the machine should be set to.
pub fn of_machine(config: &Config) -> Vec<Diagnostic> {
    let mut said = Advice { config, found: Vec::new() };
    let sysctl = |name: &str| std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).ok();
    if config.xdp.mode != XdpMode::Off && sysctl("tcp_syncookies").is_some_and(|value| value.trim() == "0") {
        said.warn(
            "xdp",
            "the sysctl net.ipv4.tcp_syncookies is 0: a flood of SYNs within the limits fills the queue"
                .into(),
            "set it to 1, the kernel's default: `sysctl -w net.ipv4.tcp_syncookies=1`".into(),
        );
    }
    said.found
}

struct Advice<'a> {
    config: &'a Config,
    found: Vec<Diagnostic>,
}

impl Advice<'_> {
    fn warn(&mut self, path: &str, message: String, hint: String) {
        let section = &self.config.xdp.origin;
        let is_xdp = path.starts_with("xdp");
        self.found.push(Diagnostic {
            severity: Severity::Warning,
            file: if is_xdp { self.config.sources.name(section.span.file).to_owned() } else { String::new() },
            line: if is_xdp { section.span.line } else { 0 },
            column: if is_xdp { section.span.column } else { 0 },
            path: path.into(),
            message,
            hint: Some(hint),
            source_line: None,
            caret: (0, 1),
        });
    }

    fn limits(&mut self) {
        let xdp = &self.config.xdp;
        let (costs, connections, packets) = (xdp.costs, xdp.connections, xdp.packets);
        if let Some(limit) = connections.filter(|limit| limit.burst < BROWSER_CONNECTIONS) {
            self.warn(
                "xdp.limits.connections",
                format!("a burst of {} is less than one browser opens at once", limit.burst),
                format!(
                    "a browser opens 6 to a host, and twice that on a reload: {BROWSER_CONNECTIONS} or more"
                ),
            );
        }
        if let Some(limit) =
            connections.filter(|limit| costs.request > 0 && limit.burst / costs.request < BROWSER_REQUESTS)
        {
            self.warn(
                "xdp.costs.request",
                format!(
                    "requests cost {} of a burst of {}: one page may ask for more",
                    costs.request, limit.burst
                ),
                format!(
                    "a burst of {} bears a page of {BROWSER_REQUESTS} requests",
                    BROWSER_REQUESTS * costs.request
                ),
            );
        }
        if let Some(limit) = packets.filter(|limit| limit.burst < BROWSER_PACKETS) {
            self.warn(
                "xdp.limits.packets",
                format!("a burst of {} is less than one browser sends to open its connections", limit.burst),
                format!("{BROWSER_CONNECTIONS} connections take some {BROWSER_PACKETS} packets until the first answer"),
            );
        }
    }

    /// Limits that sources share: too low for one browser.
    fn aggregates(&mut self) {
        let common = self.config.xdp.aggregates;
        for (path, limit) in [
            ("xdp.aggregates.v4_24", common.v4_24),
            ("xdp.aggregates.v6_48", common.v6_48),
            ("xdp.aggregates.unknown", common.unknown),
        ] {
            if let Some(limit) = limit.filter(|limit| limit.burst < BROWSER_CONNECTIONS) {
                self.warn(
                    path,
                    format!("a burst of {} for many sources is less than one browser opens at once", limit.burst),
                    format!(
                        "a browser opens 6 to a host, and twice that on a reload: some times {BROWSER_CONNECTIONS}"
                    ),
                );
            }
        }
    }

    /// Limits for ports and sources: too low for a browser, or never reached, as the first that fits holds.
    fn rules(&mut self, trusted: &[Trusted]) {
        let rules = &self.config.xdp.rules;
        for (at, rule) in rules.iter().enumerate() {
            if let Some(limit) = rule.connections.filter(|limit| limit.burst < BROWSER_CONNECTIONS) {
                self.warn(
                    &format!("xdp.rules {}", rule.name),
                    format!("a burst of {} connections is less than one browser opens at once", limit.burst),
                    format!("a browser opens 6 to a host, and twice that on a reload: {BROWSER_CONNECTIONS} or more"),
                );
            }
            if let Some(limit) = rule.packets.filter(|limit| limit.burst < BROWSER_PACKETS) {
                self.warn(
                    &format!("xdp.rules {}", rule.name),
                    format!("a burst of {} packets is less than one browser sends to open its connections", limit.burst),
                    format!("{BROWSER_CONNECTIONS} connections take some {BROWSER_PACKETS} packets until the first answer"),
                );
            }
            let exempt = |net: &IpNet| trusted.iter().find(|one| one.prefix.contains(net));
            if let Some(one) = rule.sources.first().and_then(exempt)
                && rule.sources.iter().all(|net| exempt(net).is_some())
            {
                self.warn(
                    &format!("xdp.rules {}", rule.name),
                    format!(
                        "it limits nobody: {} ({}), and so are its other sources",
                        one.because, one.prefix
                    ),
                    "no limit holds for trusted and allowed sources".into(),
                );
            }
            let hides = |earlier: &&XdpRule| {
                let ports = earlier.ports.is_empty()
                    || (!rule.ports.is_empty() && rule.ports.iter().all(|port| earlier.ports.contains(port)));
                let holds = |net: &IpNet| earlier.sources.iter().any(|outer| outer.contains(net));
                let sources = earlier.sources.is_empty()
                    || (!rule.sources.is_empty() && rule.sources.iter().all(holds));
                ports && sources
            };
            if let Some(earlier) = rules[..at].iter().find(hides) {
                self.warn(
                    &format!("xdp.rules {}", rule.name),
                    format!("it is never reached: `{}` before it fits everything that it fits", earlier.name),
                    "put the narrower rule first".into(),
                );
            }
        }
    }

    fn lists(&mut self, trusted: &[Trusted]) {
        let xdp = &self.config.xdp;
        for (list, prefixes) in [("xdp.deny", &xdp.deny), ("xdp.allow", &xdp.allow)] {
            for (inner, outer) in covered(prefixes).into_iter().take(LISTED_MAX) {
                self.warn(
                    list,
                    format!("{inner} changes nothing: {outer} holds it already"),
                    format!("leave {inner} out"),
                );
            }
        }
        let hard: Vec<_> = trusted.iter().filter(|one| one.because != Because::Allowed).cloned().collect();
        let denied = xdp.deny.iter().map(|deny| (*deny, "xdp.deny".to_owned()));
        let listed = xdp.lists.iter().filter(|list| !list.allows);
        let listed = listed.flat_map(|list| {
            list.sources.iter().map(move |deny| (*deny, format!("xdp.lists {}", list.name)))
        });
        let all = denied.chain(listed);
        let hits: Vec<_> =
            all.filter_map(|(deny, list)| Some((deny, list, overlapping(&hard, deny)?))).collect();
        for (deny, list, one) in hits.into_iter().take(LISTED_MAX) {
            let message = if one.prefix.contains(&deny) {
                format!("{deny} is denied in vain: {} ({})", one.because, one.prefix)
            } else {
                format!("{deny} would hit {}: {}", one.prefix, one.because)
            };
            let hint = "trusted sources are never dropped; every other source of the prefix is";
            self.warn(&list, message, hint.into());
        }
        for allow in xdp.allow.iter().filter(|allow| allow.prefix_len() == 0) {
            let message = format!("{allow} allows every source: limits and bans apply to none");
            self.warn("xdp.allow", message, "list the sources that are to be exempt".into());
        }
        // A prefix that exactly one longer prefix of the other list takes back whole.
        for deny in
            xdp.deny.iter().filter(|deny| xdp.allow.iter().any(|allow| is_halved(deny, allow, &xdp.allow)))
        {
            let message = format!("{deny} denies nobody: the longer prefixes on xdp.allow cover it whole");
            self.warn("xdp.deny", message, format!("leave {deny} out, or shorten xdp.allow"));
        }
    }

    fn switches(&mut self) {
        let xdp = &self.config.xdp;
        let dead_after_s = xdp.dead_after.as_secs();
        let (required, shadow) = (xdp.required, xdp.enforcement == Enforcement::Shadow);
        if dead_after_s < DEAD_AFTER_LEAST_S {
            self.warn(
                "xdp.dead_after",
                format!(
                    "{dead_after_s} s without a sign of life is a busy machine rather than a dead gateway"
                ),
                format!("signs of life come once a second: {DEAD_AFTER_LEAST_S} s or more"),
            );
        }
        let (addresses, radius) = (xdp.promotion.addresses, xdp.blast_radius);
        if radius.percent > 0 && addresses.saturating_mul(2) >= radius.sources {
            self.warn(
                "xdp.promotion.addresses",
                format!(
                    "one stolen credential makes {} addresses known to be good: enough to have a limit switched off",
                    addresses.saturating_mul(2)
                ),
                format!("keep twice its value below `blast_radius.sources`, which is {}", radius.sources),
            );
        }
        if required && shadow {
            self.warn(
                "xdp.required",
                "the kernel part is required, but in shadow mode it drops nothing".into(),
                "set `enforcement: enforce` once the shadow counters look right".into(),
            );
        }
    }
}

/// Prefixes that another of the same list holds, each with the longest that does.
fn covered(prefixes: &[IpNet]) -> Vec<(IpNet, IpNet)> {
    let mut sorted: Vec<_> = prefixes.iter().map(IpNet::trunc).collect();
    // An outer prefix comes right before its parts.
    sorted.sort_by_key(|net| (net.network(), net.prefix_len()));
    let mut outer: Vec<IpNet> = Vec::new();
    let mut found = Vec::new();
    for net in sorted {
        while outer.last().is_some_and(|last| !last.contains(&net)) {
            outer.pop();
        }
        if let Some(last) = outer.last() {
            found.push((net, *last));
        }
        outer.push(net);
    }
    found
}

/// Whether both halves of `net` are on `list`, one of them being `half`.
fn is_halved(net: &IpNet, half: &IpNet, list: &[IpNet]) -> bool {
    let Ok(mut halves) = net.subnets(net.prefix_len() + 1) else { return false };
    half.prefix_len() == net.prefix_len() + 1 && net.contains(half) && halves.all(|one| list.contains(&one))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use portcullis_config::EmptyCatalog;

    use super::*;

    fn said(xdp: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.yaml");
        let text = format!(
            "_format_version: \"3.0\"\nlisteners: [{{name: a, address: '0.0.0.0:80'}}]\n\
             trusted_proxies: [10.9.0.0/16]\nlimits: {{connections_per_source: 0}}\nxdp: {{mode: auto, {xdp}}}\n"
        );
        std::fs::write(&path, text).unwrap();
        let config = Arc::new(portcullis_config::load(&path, &EmptyCatalog).unwrap().config);
        let found = of_config(&config, &["192.0.2.80".parse().unwrap()], &Network::default());
        for finding in &found {
            assert_eq!((finding.severity, finding.line), (Severity::Warning, 5), "{finding}");
        }
        found.into_iter().map(|finding| format!("{}: {}", finding.path, finding.message)).collect()
    }

    #[test]
    fn a_sound_section_is_not_remarked_on() {
        let sound = "limits: {connections: {rate: 10/s, burst: 200}, packets: 5000/s}, deny: [203.0.113.0/24], \
                     enforcement: enforce";
        assert_eq!(said(sound), [""; 0]);
    }

    #[test]
    fn limits_that_a_browser_meets() {
        let said = said(
            "limits: {connections: {rate: 5/s, burst: 5}, packets: {rate: 9/s, burst: 9}}, costs: {request: 1}",
        );
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(said[0].starts_with("xdp.limits.connections: a burst of 5"), "{said:?}");
        assert!(said[1].starts_with("xdp.costs.request: requests cost 1 of a burst of 5"), "{said:?}");
        assert!(said[2].starts_with("xdp.limits.packets: a burst of 9"), "{said:?}");
    }

    #[test]
    fn rules_that_hide_each_other_or_hit_the_trusted() {
        let check = |xdp: &str, expected: &[&str]| assert_eq!(said(xdp), expected, "{xdp}");
        check(
            "deny: [203.0.113.0/24, 203.0.113.7, 203.0.0.0/16]",
            &[
                "xdp.deny: 203.0.113.0/24 changes nothing: 203.0.0.0/16 holds it already",
                "xdp.deny: 203.0.113.7/32 changes nothing: 203.0.113.0/24 holds it already",
            ],
        );
        check(
            "deny: [10.9.1.1]",
            &["xdp.deny: 10.9.1.1/32 is denied in vain: it is on trusted_proxies (10.9.0.0/16)"],
        );
        check(
            "deny: [192.0.2.0/24]",
            &["xdp.deny: 192.0.2.0/24 would hit 192.0.2.80/32: it is an upstream's target"],
        );
        check(
            "deny: [203.0.113.0/24], allow: [203.0.113.0/25, 203.0.113.128/25]",
            &["xdp.deny: 203.0.113.0/24 denies nobody: the longer prefixes on xdp.allow cover it whole"],
        );
        check("deny: [203.0.113.0/24], allow: [203.0.113.7]", &[]);
        check(
            "allow: ['0.0.0.0/0']",
            &["xdp.allow: 0.0.0.0/0 allows every source: limits and bans apply to none"],
        );
    }

    #[test]
    fn rules_that_are_never_reached() {
        let found = said(
            "rules: [{name: a, ports: [80, 443], connections: 100/s}, {name: b, ports: [80], sources: [203.0.113.0/24], \
             connections: {rate: 9/s, burst: 3}}, {name: c, ports: [8080], connections: 100/s}], \
             lists: [{name: bad, action: deny, sources: [10.9.0.7]}]",
        );
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].starts_with("xdp.rules b: a burst of 3 connections"), "{found:?}");
        assert!(found[1].starts_with("xdp.rules b: it is never reached: `a`"), "{found:?}");
        assert!(found[2].starts_with("xdp.lists bad: 10.9.0.7/32 is denied in vain"), "{found:?}");
    }

    #[test]
    fn limits_that_many_share_and_rules_for_the_exempt() {
        let found = said(
            "aggregates: {v4_24: {rate: 5/s, burst: 5}, unknown: 100/s}, rules: [{name: quiet, sources: [10.9.0.7], \
             packets: {rate: 10/s, burst: 10}}, {name: wide, sources: [10.9.0.8, 203.0.113.0/24], connections: 100/s}]",
        );
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].starts_with("xdp.aggregates.v4_24: a burst of 5 for many"), "{found:?}");
        assert!(found[1].starts_with("xdp.rules quiet: a burst of 10 packets"), "{found:?}");
        assert!(
            found[2].starts_with("xdp.rules quiet: it limits nobody: it is on trusted_proxies"),
            "{found:?}"
        );
    }

    #[test]
    fn switches_against_each_other() {
        let found = said("promotion: {addresses: 5}");
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("xdp.promotion.addresses: one stolen credential makes 10"), "{found:?}");
        let found = said("dead_after: 2s, required: true");
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("xdp.dead_after: 2 s"), "{found:?}");
        assert!(found[1].starts_with("xdp.required: "), "{found:?}");
    }
}
