//! What the kernel part is told and how it fares, in words: for `/status` and `portcullis why`.
//!
//! Owns the translation. Never: a change.

use portcullis_abi::Reason;
use portcullis_config::{Enforcement, Refusal, Xdp};

use super::status::{KnownGood, RuleStatus};

/// What becomes of each kind of refusal, as configured.
pub fn rules(xdp: &Xdp) -> Vec<RuleStatus> {
    let refusals = xdp.refusals;
    let aggregates = xdp.aggregates;
    let general = [
        ("denied", refusals.denied, !xdp.deny.is_empty()),
        ("banned", refusals.banned, true),
        ("packets", refusals.packets, xdp.packets.is_some()),
        ("connections", refusals.connections, xdp.connections.is_some()),
        ("networks", refusals.networks, aggregates.v4_24.is_some() || aggregates.v6_48.is_some()),
        ("unknown", refusals.unknown, aggregates.unknown.is_some()),
    ];
    let general =
        general.into_iter().filter(|(.., used)| *used).map(|(rule, refusal, _)| (rule.to_owned(), refusal));
    let limits = xdp.rules.iter().map(|rule| (format!("rule {}", rule.name), rule.refusal));
    let lists = xdp.lists.iter().filter(|list| !list.allows);
    let lists = lists.map(|list| (format!("list {}", list.name), list.refusal));
    let all = general.chain(limits).chain(lists);
    all.map(|(rule, refusal)| RuleStatus { rule, mode: mode(xdp, refusal).into() }).collect()
}

/// What becomes of a refused packet.
pub fn mode(xdp: &Xdp, refusal: Refusal) -> &'static str {
    match refusal {
        _ if xdp.enforcement == Enforcement::Shadow => "shadow",
        Refusal::Drop => "drop",
        Refusal::Reset => "reset",
        Refusal::Pass => "pass",
        Refusal::Shadow => "shadow",
    }
}

/// Known-good sources by reason.
pub fn known_good(counts: &[(Reason, u64, u64)]) -> Vec<KnownGood> {
    let known = |(reason, dropped, shadow): &(Reason, u64, u64)| KnownGood {
        reason: reason.as_str().to_owned(),
        dropped: *dropped,
        would_have_been: *shadow,
    };
    counts.iter().map(known).collect()
}
