//! `why ADDRESS`: everything that decides what becomes of a source, and what became of it lately.
//!
//! Owns the shape of that answer and where each part is read. Never a change.

use std::net::IpAddr;

use ipnet::IpNet;
use portcullis_abi::Block;
use serde::Serialize;

use super::bans::Ban;
use super::{Ledger, Sample, View};
use crate::limit::{source_key, source_text};
use crate::metrics::Refusal;

/// The answer.
#[derive(Clone, Debug, Serialize)]
pub struct Why {
    pub address: String,
    /// What is limited as one: the address, or its IPv6 /64.
    pub source: String,
    /// In a sentence, what happens to it now.
    pub verdict: String,
    pub trusted: Option<TrustedBecause>,
    pub buckets: Vec<Bucket>,
    pub marks: Vec<Mark>,
    pub ban: Option<Ban>,
    pub rules: Vec<Rule>,
    pub limits: Vec<Limit>,
    /// Open on all shards; now and then another source is counted with it.
    pub connections: u32,
    pub refusals: Vec<Refused>,
    pub dropped: Vec<Sample>,
}

/// Why it is never dropped.
#[derive(Clone, Debug, Serialize)]
pub struct TrustedBecause {
    pub prefix: String,
    pub because: String,
}

/// A token bucket.
#[derive(Clone, Debug, Serialize)]
pub struct Bucket {
    /// `connections` (connections, requests, penalties) or `packets`.
    pub bucket: &'static str,
    pub scope: String,
    /// As configured, in words.
    pub limit: String,
    /// What may be taken now; `None` without a limit.
    pub tokens_left: Option<u64>,
    pub tokens_max: Option<u64>,
    /// Until there is a token again; 0 if there is one.
    pub debt_ms: u64,
}

/// Something good known of it.
#[derive(Clone, Debug, Serialize)]
pub struct Mark {
    pub mark: &'static str,
    /// Seconds since 1970.
    pub until: u64,
}

/// An entry of a list that it is on.
#[derive(Clone, Debug, Serialize)]
pub struct Rule {
    pub list: &'static str,
    pub prefix: String,
    /// The place in the configuration, or the file.
    pub from: String,
    /// Whether it is the one that decides.
    pub decides: bool,
}

/// A limit that it is under.
#[derive(Clone, Debug, Serialize)]
pub struct Limit {
    pub limit: String,
    pub mode: String,
}

/// A refusal by the proxy.
#[derive(Clone, Debug, Serialize)]
pub struct Refused {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    pub seconds_ago: u64,
    pub client: String,
    pub reason: &'static str,
    pub status: u16,
    pub route: Option<String>,
    pub shard: usize,
}

/// Refusals told at most.
const REFUSALS_MAX: usize = 20;

/// Collects the answer about `address`.
pub fn why(address: IpAddr, ledger: &Ledger, view: &View<'_>) -> Why {
    let address = address.to_canonical();
    let key = source_key(address);
    let words = view.table.words(key, view.now_ns);
    let trusted = view.trusted.iter().find(|one| one.prefix.contains(&address));
    let ban = ledger.book.of(address, view);
    let rules = rules(address, view);
    let mut why = Why {
        address: address.to_string(),
        source: source_text(key),
        verdict: String::new(),
        trusted: trusted
            .map(|one| TrustedBecause { prefix: one.prefix.to_string(), because: one.because.to_string() }),
        buckets: buckets(&source_text(key), words, view),
        marks: words.map(|words| marks(words.block, view)).unwrap_or_default(),
        ban,
        rules,
        limits: limits(view),
        connections: view.shards.connections_of(address),
        refusals: refusals(key, view),
        dropped: ledger.drops.of(key, REFUSALS_MAX, view),
    };
    why.verdict = verdict(&why, view);
    why
}

fn verdict(why: &Why, view: &View<'_>) -> String {
    if let Some(trusted) = &why.trusted {
        return format!("never dropped nor limited: {} ({})", trusted.because, trusted.prefix);
    }
    if let Some(ban) = &why.ban {
        return format!(
            "refused by {} for {} s more: banned by {}",
            ban.enforced_by, ban.seconds_left, ban.by
        );
    }
    if let Some(rule) = why.rules.iter().find(|rule| rule.decides && rule.list == "deny") {
        let act = if view.kernel_drops() { "dropped in the kernel" } else { "on the deny list, but passed" };
        return format!("{act}: {} is denied by {}", rule.prefix, rule.from);
    }
    match why.buckets.iter().find(|bucket| bucket.tokens_left == Some(0)) {
        Some(bucket) if view.config.xdp.enforcement == portcullis_config::Enforcement::Shadow => {
            format!("served: its bucket of {} is empty, but nothing is enforced (shadow mode)", bucket.bucket)
        }
        Some(bucket) => {
            format!("limited for {} ms more: its bucket of {} is empty", bucket.debt_ms, bucket.bucket)
        }
        None => "served".into(),
    }
}

fn buckets(scope: &str, words: Option<crate::limit::Words>, view: &View<'_>) -> Vec<Bucket> {
    let xdp = &view.config.xdp;
    let bucket = |bucket, limit: &Option<portcullis_config::RateLimit>, tat: u64| {
        let ahead_ns = tat.saturating_sub(view.now_ns);
        let Some(limit) = limit else {
            return Bucket {
                bucket,
                scope: scope.to_owned(),
                limit: "none".into(),
                tokens_left: None,
                tokens_max: None,
                debt_ms: 0,
            };
        };
        let interval_ns = limit.rate.interval_ns();
        // A token is there while taking it keeps the debt within the burst.
        let left = limit.burst_ns().saturating_sub(ahead_ns) / interval_ns;
        let lacking = (ahead_ns + interval_ns).saturating_sub(limit.burst_ns());
        let per = limit.rate.per.as_secs_f64();
        Bucket {
            bucket,
            scope: scope.to_owned(),
            limit: format!("{} in {per} s, burst {}", limit.rate.tokens, limit.burst),
            tokens_left: Some(left),
            tokens_max: Some(limit.burst.into()),
            debt_ms: if left > 0 { 0 } else { lacking.div_ceil(1_000_000) },
        }
    };
    let (request, packet) = words.map_or((0, 0), |words| (words.request_tat, words.packet_tat));
    vec![bucket("connections", &xdp.connections, request), bucket("packets", &xdp.packets, packet)]
}

fn marks(block: Block, view: &View<'_>) -> Vec<Mark> {
    match block {
        Block::Established { until } => vec![Mark { mark: "established", until: view.unix(until) }],
        _ => Vec::new(),
    }
}

/// Every list entry that holds the address; the longest prefix decides between allow and deny, and trust over both.
fn rules(address: IpAddr, view: &View<'_>) -> Vec<Rule> {
    let xdp = &view.config.xdp;
    let holds = |prefix: &&IpNet| prefix.contains(&address);
    let of = |list: &'static str, prefixes: &[IpNet], key: &str| {
        let found = prefixes.iter().enumerate().filter(|(_, prefix)| holds(prefix));
        let found = found.map(|(at, prefix)| (*prefix, list, format!("{key}[{at}]")));
        found.collect::<Vec<_>>()
    };
    let mut found = of("trusted", &xdp.trusted, "xdp.trusted");
    found.extend(of("trusted", &view.config.trusted_proxies, "trusted_proxies"));
    found.extend(of("allow", &xdp.allow, "xdp.allow"));
    found.extend(of("deny", &xdp.deny, "xdp.deny"));
    // Stable: of equal prefixes the more permissive, which stands first, decides.
    let deciding = found
        .iter()
        .enumerate()
        .max_by_key(|(at, (prefix, list, _))| {
            (*list == "trusted", prefix.prefix_len(), std::cmp::Reverse(*at))
        })
        .map(|(at, _)| at);
    let rule = |(at, (prefix, list, from)): (usize, (IpNet, &'static str, String))| Rule {
        list,
        prefix: prefix.to_string(),
        from,
        decides: Some(at) == deciding,
    };
    found.into_iter().enumerate().map(rule).collect()
}

fn limits(view: &View<'_>) -> Vec<Limit> {
    let config = view.config;
    let mode = match config.xdp.enforcement {
        portcullis_config::Enforcement::Shadow => "shadow",
        portcullis_config::Enforcement::Enforce => "enforce",
    };
    let mut limits = Vec::new();
    let xdp =
        [("xdp.limits.connections", &config.xdp.connections), ("xdp.limits.packets", &config.xdp.packets)];
    for (name, limit) in xdp {
        if let Some(limit) = limit {
            let (tokens, per, burst) = (limit.rate.tokens, limit.rate.per.as_secs_f64(), limit.burst);
            let limit = format!("{name}: {tokens} in {per} s, burst {burst}");
            limits.push(Limit { limit, mode: mode.into() });
        }
    }
    let per_source = config.limits.connections_per_source;
    if per_source > 0 {
        let limit = format!("limits.connections_per_source: {per_source}");
        limits.push(Limit { limit, mode: "enforce".into() });
    }
    limits
}

fn refusals(key: u64, view: &View<'_>) -> Vec<Refused> {
    let series = view.registry.route_series();
    let name = |number: u32| {
        series.iter().find(|series| series.number() == number).map(|series| series.name().to_owned())
    };
    let mut found: Vec<(usize, Refusal)> = Vec::new();
    for (shard, metrics) in view.registry.shards().iter().enumerate() {
        let of_source = metrics.refusals.latest().filter(|refusal| source_key(refusal.client) == key);
        found.extend(of_source.take(REFUSALS_MAX).map(|refusal| (shard, refusal)));
    }
    found.sort_by_key(|(_, refusal)| std::cmp::Reverse(refusal.at_ns));
    let refused = |(shard, refusal): (usize, Refusal)| {
        let ago_ns = view.now_ns.saturating_sub(refusal.at_ns);
        Refused {
            at_ms: (view.now_unix * 1000).saturating_sub(ago_ns / 1_000_000),
            seconds_ago: ago_ns / 1_000_000_000,
            client: refusal.client.to_string(),
            reason: refusal.reason.as_str(),
            status: refusal.status,
            route: refusal.route.and_then(name),
            shard,
        }
    };
    found.into_iter().take(REFUSALS_MAX).map(refused).collect()
}
