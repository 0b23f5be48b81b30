//! `why ADDRESS`: everything that decides what becomes of a source, and what became of it lately.
//!
//! Owns the shape of that answer and where each part is read. Never a change.

use std::net::IpAddr;

use ipnet::IpNet;
use portcullis_abi::{self as abi, Block, Reason, is_v4};
use portcullis_config::{RateLimit, Refusal};
use serde::Serialize;

use super::bans::Ban;
use super::{Ledger, Sample, View};
use crate::control::facts;
use crate::kernel::Match;
use crate::limit::{KNOWN_GOOD_NS, Words, aggregate_key, source_key, source_text};
use crate::metrics;

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
    /// Where it authenticated in the last hour and met a refusal all the same.
    pub innocent: Vec<Innocent>,
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

/// A refusal that a known-good source met.
#[derive(Clone, Debug, Serialize)]
pub struct Innocent {
    pub reason: &'static str,
    /// The name of the list or limit, if it has one.
    pub of: Option<String>,
    pub packets: u64,
    /// Whether they were dropped, or only would have been.
    pub dropped: bool,
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
    let ban = ledger.book.of(address, view);
    let rules = rules(address, view);
    let denied = rules.iter().any(|rule| rule.decides && rule.list == "deny");
    let trusted = view.trusted_at(IpNet::from(address));
    let trusted = trusted.filter(|one| !(denied && one.because.may_be_denied()));
    let mut why = Why {
        address: address.to_string(),
        source: source_text(key),
        verdict: String::new(),
        trusted: trusted
            .map(|one| TrustedBecause { prefix: one.prefix.to_string(), because: one.because.to_string() }),
        buckets: [buckets(&source_text(key), words, view), shared_buckets(key, view)].concat(),
        marks: words.map(|words| marks(words.block, view)).unwrap_or_default(),
        innocent: innocent(key, view),
        ban,
        rules,
        limits: limits(address, view),
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

fn buckets(scope: &str, words: Option<Words>, view: &View<'_>) -> Vec<Bucket> {
    let xdp = &view.config.xdp;
    let (request, packet) = words.map_or((0, 0), |words| (words.request_tat, words.packet_tat));
    vec![
        bucket("connections", scope, &xdp.connections, request, view),
        bucket("packets", scope, &xdp.packets, packet, view),
    ]
}

fn bucket(bucket: &'static str, scope: &str, limit: &Option<RateLimit>, tat: u64, view: &View<'_>) -> Bucket {
    let none = Bucket {
        bucket,
        scope: scope.to_owned(),
        limit: "none".into(),
        tokens_left: None,
        tokens_max: None,
        debt_ms: 0,
    };
    let Some(limit) = limit else { return none };
    let ahead_ns = tat.saturating_sub(view.now_ns);
    let interval_ns = limit.rate.interval_ns();
    // A token is there while taking it keeps the debt within the burst.
    let left = limit.burst_ns().saturating_sub(ahead_ns) / interval_ns;
    let lacking = (ahead_ns + interval_ns).saturating_sub(limit.burst_ns());
    Bucket {
        limit: rate_text(limit),
        tokens_left: Some(left),
        tokens_max: Some(limit.burst.into()),
        debt_ms: if left > 0 { 0 } else { lacking.div_ceil(1_000_000) },
        ..none
    }
}

fn rate_text(limit: &RateLimit) -> String {
    format!("{} in {} s, burst {}", limit.rate.tokens, limit.rate.per.as_secs_f64(), limit.burst)
}

/// The buckets that it shares with others while it is unknown: of its network, and of all unknown sources.
fn shared_buckets(key: u64, view: &View<'_>) -> Vec<Bucket> {
    let aggregates = &view.config.xdp.aggregates;
    let network = aggregate_key(key);
    let limit = if is_v4(key) { &aggregates.v4_24 } else { &aggregates.v6_48 };
    let tat = view.table.words(network, view.now_ns).map_or(0, |words| words.request_tat);
    let mut shared = Vec::new();
    if limit.is_some() {
        shared.push(bucket("network", &source_text(network), limit, tat, view));
    }
    if let Some(program) = view.program.filter(|_| aggregates.unknown.is_some()) {
        let tat = view.now_ns + program.facts(view.now_ns).unknown_debt_ns;
        shared.push(bucket("unknown", "all unknown sources", &aggregates.unknown, tat, view));
    }
    shared
}

fn innocent(key: u64, view: &View<'_>) -> Vec<Innocent> {
    let Some(program) = view.program else { return Vec::new() };
    let hits = program.known_good_hits().unwrap_or_default();
    let own = hits.into_iter().filter(|hit| hit.key == key);
    let told = own.map(|hit| Innocent {
        reason: hit.reason.as_str(),
        of: match hit.reason {
            Reason::DropDenied => program.list_name(hit.number).map(ToOwned::to_owned),
            Reason::DropRuleRate => program.limit_name(hit.number).map(ToOwned::to_owned),
            _ => None,
        },
        packets: hit.packets,
        dropped: hit.dropped,
    });
    told.collect()
}

fn marks(block: Block, view: &View<'_>) -> Vec<Mark> {
    match block {
        Block::Established { until } => vec![Mark { mark: "established", until: view.unix(until) }],
        Block::Authenticated { until } => {
            // Promoted while more of the hour is left than the promotion leaves over.
            let lasts_ns = u64::try_from(view.config.xdp.promotion.lasts.as_nanos()).unwrap_or(u64::MAX);
            let promoted_ns = until.saturating_sub(KNOWN_GOOD_NS.saturating_sub(lasts_ns));
            let promoted = (promoted_ns > view.now_ns && view.config.xdp.promotion.factor > 1)
                .then(|| Mark { mark: "promoted", until: view.unix(promoted_ns) });
            let known = Mark { mark: "authenticated", until: view.unix(until) };
            std::iter::once(known).chain(promoted).collect()
        }
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
    for list in &xdp.lists {
        let kind = if list.allows { "allow" } else { "deny" };
        found.extend(of(kind, &list.sources, &format!("xdp.lists {}", list.name)));
    }
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
    let mut rules: Vec<_> = found.into_iter().enumerate().map(rule).collect();
    if let Some(answer) = view.program.and_then(|program| program.rule_of(address)) {
        decided_by_program(&mut rules, &answer, view);
    }
    rules
}

/// What the program's tables say goes before what the configuration lets expect: they hold the files of lists, too.
fn decided_by_program(rules: &mut Vec<Rule>, answer: &Match, view: &View<'_>) {
    let list = match answer.rule {
        abi::Rule::Trusted => "trusted",
        abi::Rule::Allow => "allow",
        abi::Rule::Deny => "deny",
        abi::Rule::Banned => "ban",
        _ => return,
    };
    let prefix = answer.net.to_string();
    rules.iter_mut().for_each(|rule| rule.decides = rule.list == list && rule.prefix == prefix);
    if rules.iter().any(|rule| rule.decides) {
        return;
    }
    let of_list = answer.list.as_ref().map(|name| {
        let file =
            view.config.xdp.lists.iter().find(|list| list.name == *name).and_then(|list| list.file.as_ref());
        match file {
            Some(file) => format!("xdp.lists {name}, {}", file.display()),
            None => format!("xdp.lists {name}"),
        }
    });
    let from = of_list.unwrap_or_else(|| "the kernel's tables".into());
    rules.push(Rule { list, prefix, from, decides: true });
}

fn limits(address: IpAddr, view: &View<'_>) -> Vec<Limit> {
    let config = view.config;
    let xdp = &config.xdp;
    let mut limits = Vec::new();
    let mut say = |name: &str, limit: &Option<RateLimit>, refusal: Refusal| {
        if let Some(limit) = limit {
            let limit = format!("{name}: {}", rate_text(limit));
            limits.push(Limit { limit, mode: facts::mode(xdp, refusal).into() });
        }
    };
    for rule in &xdp.rules {
        if rule.sources.is_empty() || rule.sources.iter().any(|prefix| prefix.contains(&address)) {
            let ports = rule.ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let ports = if ports.is_empty() { String::new() } else { format!(" (port {ports})") };
            say(&format!("xdp.rules {}{ports}, connections", rule.name), &rule.connections, rule.refusal);
            say(&format!("xdp.rules {}{ports}, packets", rule.name), &rule.packets, rule.refusal);
        }
    }
    say("xdp.limits.connections", &xdp.connections, xdp.refusals.connections);
    say("xdp.limits.packets", &xdp.packets, xdp.refusals.packets);
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
    let mut found: Vec<(usize, metrics::Refusal)> = Vec::new();
    for (shard, metrics) in view.registry.shards().iter().enumerate() {
        let of_source = metrics.refusals.latest().filter(|refusal| source_key(refusal.client) == key);
        found.extend(of_source.take(REFUSALS_MAX).map(|refusal| (shard, refusal)));
    }
    found.sort_by_key(|(_, refusal)| std::cmp::Reverse(refusal.at_ns));
    let refused = |(shard, refusal): (usize, metrics::Refusal)| {
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
