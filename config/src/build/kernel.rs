//! The kernel part.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::diagnostic::Fault;
use crate::fields::Fields;
use crate::model::{
    Aggregates, Bans, BlastRadius, Costs, Enforcement, Promotion, Rate, RateLimit, Refusal, Refusals,
    Triggers, Xdp, XdpList, XdpMode, XdpRule,
};

/// Builds the `xdp` section; `present` says whether it was written at all.
/// `folder` is what relative paths are against.
pub(super) fn xdp(fields: &Fields<'_>, present: bool, folder: &Path) -> Xdp {
    let mode = match fields.word("mode") {
        _ if !present || !fields.bool("enabled") => XdpMode::Off,
        "native" => XdpMode::Native,
        "generic" => XdpMode::Generic,
        "auto" => XdpMode::Auto,
        _ => XdpMode::Off,
    };
    let limits = fields.section("limits");
    let xdp = Xdp {
        mode,
        interfaces: fields.strings("interfaces"),
        enforcement: match fields.word("enforcement") {
            "enforce" => Enforcement::Enforce,
            _ => Enforcement::Shadow,
        },
        required: fields.bool("required"),
        allow: fields.cidrs("allow"),
        deny: fields.cidrs("deny"),
        trusted: fields.cidrs("trusted"),
        table_entries: fields.integer("table_entries"),
        connections: limit(&limits, "connections"),
        packets: limit(&limits, "packets"),
        rules: fields.sections("rules").iter().map(rule).collect(),
        lists: fields.sections("lists").iter().map(|fields| list(fields, folder)).collect(),
        aggregates: aggregates(&fields.section("aggregates")),
        costs: costs(&fields.section("costs")),
        costs_per_second: fields.integer("costs_per_second"),
        bans: bans(&fields.section("bans")),
        promotion: promotion(&fields.section("promotion")),
        refusals: refusals(&fields.section("refusals")),
        resets: fields.rate("resets"),
        samples: fields.rate("samples"),
        blast_radius: blast_radius(&fields.section("blast_radius")),
        penalty_cap: fields.duration("penalty_cap"),
        dead_after: fields.duration("dead_after"),
        hold_when_dead: fields.word("when_dead") == "hold",
        pin_path: PathBuf::from(fields.string("pin_path")),
        origin: fields.origin(),
    };
    check(fields, &xdp);
    check_names(fields, &xdp);
    xdp
}

fn check(fields: &Fields<'_>, xdp: &Xdp) {
    if !xdp.table_entries.is_power_of_two() {
        let above = xdp.table_entries.next_power_of_two();
        let fault = Fault::new(format!("{} is not a power of two", xdp.table_entries));
        fields.error("table_entries", fault.hint(format!("write {} or {above}", above / 2)));
    }
    if xdp.mode == XdpMode::Off {
        return;
    }
    if let Some(both) = xdp.allow.iter().find(|net| xdp.deny.contains(net)) {
        fields.error("deny", format!("{both} is allowed and denied"));
    }
    if let Some(all) = xdp.deny.iter().find(|net| net.prefix_len() == 0) {
        let fault = Fault::new(format!("{all} denies every source"));
        fields.warning("deny", fault.hint("only `allow`, `trusted` and `trusted_proxies` still get through"));
    }
    if xdp.connections.is_none() && fields.is_set("costs") {
        let fault = Fault::new("costs are charged to the bucket of `limits.connections`, which is not set");
        fields.warning("costs", fault.hint("set `limits: {connections: 100/s}`, say"));
    }
    if xdp.enforcement == Enforcement::Enforce
        && xdp.connections.is_none()
        && xdp.packets.is_none()
        && xdp.deny.is_empty()
        && xdp.rules.is_empty()
        && xdp.lists.is_empty()
        && xdp.aggregates.unknown.is_none()
    {
        fields.warning("enforcement", "there is nothing to enforce: no limit and no denied source");
    }
}

fn limit(fields: &Fields<'_>, key: &str) -> Option<RateLimit> {
    if let Some(section) = fields.optional_section(key) {
        let rate = section.rate("rate")?;
        return Some(RateLimit {
            rate,
            burst: section.optional_integer("burst").unwrap_or_else(|| in_a_second(rate)),
        });
    }
    let rate = fields.rate(key)?;
    Some(RateLimit { rate, burst: in_a_second(rate) })
}

/// What a rate gives in a second, at least 1.
fn in_a_second(rate: Rate) -> u32 {
    u32::try_from(1_000_000_000 / rate.interval_ns()).unwrap_or(u32::MAX).max(1)
}

fn costs(fields: &Fields<'_>) -> Costs {
    Costs {
        request: fields.integer("request"),
        unauthorized: fields.integer("unauthorized"),
        forbidden: fields.integer("forbidden"),
        too_many_requests: fields.integer("too_many_requests"),
        malformed: fields.integer("malformed"),
        malformed_http2: fields.integer("malformed_http2"),
        tls_handshake_failed: fields.integer("tls_handshake_failed"),
        tls_handshake_abandoned: fields.integer("tls_handshake_abandoned"),
        slow_client: fields.integer("slow_client"),
        plugin: fields.integer("plugin"),
        http2_flood: fields.integer("http2_flood"),
    }
}

fn rule(fields: &Fields<'_>) -> XdpRule {
    let rule = XdpRule {
        name: fields.string("name"),
        ports: fields.integers("ports"),
        sources: fields.cidrs("sources"),
        connections: limit(fields, "connections"),
        packets: limit(fields, "packets"),
        refusal: refusal(fields, "refusal"),
        origin: fields.origin(),
    };
    if !fields.is_set("ports") && !fields.is_set("sources") && !fields.has_unknown_keys() {
        let fault = Fault::new("a rule without `ports` and `sources` goes for everything");
        fields.error("ports", fault.hint("write it in `xdp.limits`"));
    }
    if !fields.is_set("connections") && !fields.is_set("packets") && !fields.has_unknown_keys() {
        fields.error("connections", "a rule limits `connections`, `packets` or both");
    }
    rule
}

fn list(fields: &Fields<'_>, folder: &Path) -> XdpList {
    let list = XdpList {
        name: fields.string("name"),
        allows: fields.word("action") == "allow",
        sources: fields.cidrs("sources"),
        file: fields.optional_string("file").map(|file| folder.join(file)),
        refusal: refusal(fields, "refusal"),
        origin: fields.origin(),
    };
    if list.allows && fields.is_set("refusal") {
        fields.warning("refusal", "a list that allows refuses nothing");
    }
    if !fields.is_set("file") && !fields.is_set("sources") && !fields.has_unknown_keys() {
        fields.warning("sources", "the list is empty: neither `sources` nor `file` is given");
    }
    list
}

/// Names are how explanations and metrics tell rules and lists apart.
fn check_names(fields: &Fields<'_>, xdp: &Xdp) {
    let rules = xdp.rules.iter().map(|rule| (&rule.name, &rule.origin));
    let lists = xdp.lists.iter().map(|list| (&list.name, &list.origin));
    for named in [rules.collect::<Vec<_>>(), lists.collect()] {
        for (index, (name, origin)) in named.iter().enumerate() {
            if named[..index].iter().any(|(earlier, _)| earlier == name) {
                let fault = format!("the name {name} is taken");
                fields.diagnostics().error(origin.span, origin.path.clone(), fault);
            }
        }
    }
    /// The program's table of rules, less the place for none.
    const RULES_MAX: usize = 63;
    if xdp.rules.len() > RULES_MAX {
        fields.error("rules", format!("{} rules; the program knows {RULES_MAX} at most", xdp.rules.len()));
    }
}

fn refusal(fields: &Fields<'_>, key: &str) -> Refusal {
    match fields.word(key) {
        "reset" => Refusal::Reset,
        "pass" => Refusal::Pass,
        "shadow" => Refusal::Shadow,
        _ => Refusal::Drop,
    }
}

fn refusals(fields: &Fields<'_>) -> Refusals {
    Refusals {
        denied: refusal(fields, "denied"),
        banned: refusal(fields, "banned"),
        packets: refusal(fields, "packets"),
        connections: refusal(fields, "connections"),
        networks: refusal(fields, "networks"),
        unknown: refusal(fields, "unknown"),
    }
}

fn aggregates(fields: &Fields<'_>) -> Aggregates {
    Aggregates {
        v4_24: limit(fields, "v4_24"),
        v6_48: limit(fields, "v6_48"),
        unknown: limit(fields, "unknown"),
        known_for: fields.duration("known_for"),
    }
}

fn bans(fields: &Fields<'_>) -> Bans {
    let max = fields.duration("max");
    let steps: Vec<Duration> = fields.durations("steps").into_iter().map(|step| step.min(max)).collect();
    if steps.is_empty() || steps.len() > 4 {
        fields.error("steps", format!("{} steps; there are one to four", steps.len()));
    }
    if !steps.is_sorted() {
        fields.warning("steps", "a later ban is shorter than an earlier one");
    }
    Bans { triggers: triggers(&fields.section("triggers")), steps, decay: fields.duration("decay") }
}

fn triggers(fields: &Fields<'_>) -> Triggers {
    Triggers {
        unauthorized: fields.rate("unauthorized"),
        forbidden: fields.rate("forbidden"),
        too_many_requests: fields.rate("too_many_requests"),
        malformed: fields.rate("malformed"),
        malformed_http2: fields.rate("malformed_http2"),
        tls_handshake_failed: fields.rate("tls_handshake_failed"),
        tls_handshake_abandoned: fields.rate("tls_handshake_abandoned"),
        slow_client: fields.rate("slow_client"),
        plugin: fields.rate("plugin"),
        http2_flood: fields.rate("http2_flood"),
    }
}

fn promotion(fields: &Fields<'_>) -> Promotion {
    Promotion {
        factor: fields.integer("factor"),
        lasts: fields.duration("for"),
        addresses: fields.integer("addresses"),
    }
}

fn blast_radius(fields: &Fields<'_>) -> BlastRadius {
    BlastRadius { percent: fields.integer("percent"), sources: fields.integer("sources") }
}
