//! The kernel part.

use std::path::PathBuf;

use crate::diagnostic::Fault;
use crate::fields::Fields;
use crate::model::{Costs, Enforcement, Rate, RateLimit, Xdp, XdpMode};

/// Builds the `xdp` section; `present` says whether it was written at all.
pub(super) fn xdp(fields: &Fields<'_>, present: bool) -> Xdp {
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
        costs: costs(&fields.section("costs")),
        penalty_cap: fields.duration("penalty_cap"),
        dead_after: fields.duration("dead_after"),
        pin_path: PathBuf::from(fields.string("pin_path")),
        origin: fields.origin(),
    };
    check(fields, &xdp);
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
        tls_handshake_failed: fields.integer("tls_handshake_failed"),
    }
}
