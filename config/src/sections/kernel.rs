//! Tables of the kernel part.

use crate::schema::{Key, Kind, Section, text};

/// The kernel part.
pub static XDP: Section = Section::new(
    "xdp",
    "The XDP program: limits new connections and packets by source, before the network stack sees them. It acts only \
     on packets to our own listeners.",
    XDP_KEYS,
);

const XDP_KEYS: &[Key] = &[
    Key::new("enabled", Kind::Bool, "Whether the program is attached at all.").default("true"),
    Key::new(
        "mode",
        Kind::Word(&["native", "generic", "auto", "off"]),
        "Where it runs: `native` in the driver, `generic` in the stack (slower, everywhere), `auto` the first of the two \
         that works. The mode obtained is a metric.",
    )
    .default("native"),
    Key::new(
        "interfaces",
        Kind::list(&const { Kind::Text(&text::INTERFACE) }),
        "Interfaces to attach to. Left out: those that carry the addresses of the listeners.",
    )
    .default("[]"),
    Key::new(
        "enforcement",
        Kind::Word(&["shadow", "enforce"]),
        "`shadow` counts what would be dropped and passes it; `enforce` drops.",
    )
    .default("shadow"),
    Key::new("required", Kind::Bool, "Whether the gateway refuses to start when the program cannot be attached.")
        .default("false"),
    Key::new("allow", Kind::CIDRS, "Sources that are passed before anything else is looked at.").default("[]"),
    Key::new("deny", Kind::CIDRS, "Sources whose packets to our listeners are dropped.").default("[]"),
    Key::new(
        "trusted",
        Kind::CIDRS,
        "Sources that are never dropped, besides loopback, `trusted_proxies`, upstream targets and the routers of this host: \
         health checkers, say.",
    )
    .default("[]"),
    Key::new(
        "table_entries",
        Kind::integer(1024, 1 << 24),
        "Sources remembered at once, a power of two. Each takes 32 bytes of kernel memory.",
    )
    .default("1048576"),
    Key::new("limits", Kind::Section(&XDP_LIMITS), "Rates for each source."),
    Key::new(
        "rules",
        Kind::list(&const { Kind::Section(&XDP_RULE) }),
        "Limits for some ports or some sources. The first rule that fits a packet takes the place of the general limits \
         that it sets; debts from requests and costs count all the same. At most 63.",
    ),
    Key::new("lists", Kind::list(&const { Kind::Section(&XDP_LIST) }), "Further lists of sources, long ones from files."),
    Key::new(
        "aggregates",
        Kind::Section(&XDP_AGGREGATES),
        "Limits that sources share which have completed no request lately: against floods of made-up sources.",
    ),
    Key::new("costs", Kind::Section(&XDP_COSTS), "What behaviour seen by the proxy costs a source."),
    Key::new(
        "costs_per_second",
        Kind::integer(1, 1_000_000),
        "Most tokens that costs can take from a source in a second, requests aside: one burst of mistakes is no attack.",
    )
    .default("100"),
    Key::new("bans", Kind::Section(&XDP_BANS), "When sources are banned for what they do, and for how long."),
    Key::new(
        "promotion",
        Kind::Section(&XDP_PROMOTION),
        "What a valid credential is worth: higher limits for the address it came from.",
    ),
    Key::new("refusals", Kind::Section(&XDP_REFUSALS), "What becomes of a packet that is refused, by reason."),
    Key::new(
        "resets",
        Kind::Rate,
        "Most TCP resets sent for `reset` refusals, all sources together; what is over it is dropped.",
    )
    .default("100/s"),
    Key::new(
        "samples",
        Kind::Either(&[Kind::Word(&["off"]), Kind::Rate]),
        "Dropped packets that are kept for a look at them, for each reason and CPU.",
    )
    .default("10/s"),
    Key::new(
        "blast_radius",
        Kind::Section(&XDP_BLAST_RADIUS),
        "When a limit is switched to shadow because it hits sources that are known to be good.",
    ),
    Key::new(
        "penalty_cap",
        Kind::duration(1, 3600),
        "Most debt that costs can pile up: a source that stops is clean again after this.",
    )
    .default("1m"),
    Key::new(
        "dead_after",
        Kind::duration(1, 3600),
        "The program passes everything when the gateway gave no sign of life for this long.",
    )
    .default("5s"),
    Key::new(
        "when_dead",
        Kind::Word(&["pass", "hold"]),
        "What `dead_after` brings: `pass` lets everything through, `hold` goes on enforcing.",
    )
    .default("pass"),
    Key::new(
        "pin_path",
        Kind::Text(&text::FILE),
        "Folder in a BPF file system where state is pinned, so that a restart keeps it.",
    )
    .default("/sys/fs/bpf/portcullis"),
];

/// Rates for each source.
pub static XDP_LIMITS: Section = Section::new(
    "xdp.limits",
    "Rates for each source: an IPv4 address or an IPv6 /64. Left out: no limit.",
    &[
        Key::new("connections", LIMIT, "New connections (TCP SYN): a rate, or a map with its burst."),
        Key::new("packets", LIMIT, "Packets of any kind to our listeners: a rate, or a map with its burst."),
    ],
);

const LIMIT: Kind = Kind::Either(&[Kind::Rate, Kind::Section(&XDP_LIMIT)]);

/// A rate with its burst.
pub static XDP_LIMIT: Section = Section::new(
    "xdp.limit",
    "A rate and the burst allowed above it.",
    &[
        Key::new("rate", Kind::Rate, "Sustained rate, as in `100/s`.").required(),
        Key::new(
            "burst",
            Kind::integer(1, u32::MAX as i64),
            "Tokens that may be taken at once after a rest. Left out: what the rate gives in a second, at least 1.",
        ),
    ],
);

/// A limit of some ports or sources.
pub static XDP_RULE: Section = Section::new(
    "xdp.rule",
    "A limit for some ports, some sources, or both. Each source has a bucket of its own under it.",
    &[
        Key::new("name", Kind::NAME, "Unique name, for metrics and explanations.").required(),
        Key::new(
            "ports",
            Kind::list(&const { Kind::integer(1, 65535) }),
            "Ports of listeners; left out: all.",
        )
        .default("[]"),
        Key::new("sources", Kind::CIDRS, "Addresses and prefixes; left out: all.").default("[]"),
        Key::new("connections", LIMIT, "New connections (TCP SYN); left out: the general limit."),
        Key::new("packets", LIMIT, "Packets; left out: the general limit."),
        Key::new("refusal", RULE_REFUSAL, REFUSAL_DOC).default("drop"),
    ],
);

const RULE_REFUSAL: Kind = Kind::Word(&["drop", "reset", "shadow"]);
const SOURCE_REFUSAL: Kind = Kind::Word(&["drop", "reset", "pass", "shadow"]);
const REFUSAL_DOC: &str = "`drop` says nothing, `reset` answers TCP with a reset, `shadow` only counts.";

/// A list of sources.
pub static XDP_LIST: Section = Section::new(
    "xdp.list",
    "A list of sources, written here or in a file.",
    &[
        Key::new("name", Kind::NAME, "Unique name, for explanations.").required(),
        Key::new("action", Kind::Word(&["deny", "allow"]), "What the list is for.").default("deny"),
        Key::new("sources", Kind::CIDRS, "Addresses and prefixes.").default("[]"),
        Key::new(
            "file",
            Kind::Text(&text::FILE),
            "File with an address or prefix in each line; `#` begins a comment. Read at start and at each reload.",
        ),
        Key::new("refusal", RULE_REFUSAL, REFUSAL_DOC).default("drop"),
    ],
);

/// Limits of what unknown sources share.
pub static XDP_AGGREGATES: Section = Section::new(
    "xdp.aggregates",
    "New connections that unknown sources may open together. A source is known once it has completed a request or a TLS \
     handshake.",
    &[
        Key::new("v4_24", LIMIT, "From one IPv4 /24."),
        Key::new("v6_48", LIMIT, "From one IPv6 /48."),
        Key::new(
            "unknown",
            LIMIT,
            "From all together. Over it, an unknown source gets in with the second try of its SYN, which no made-up one \
             sends.",
        ),
        Key::new("known_for", Kind::duration(1, 86_400), "How long a source stays known after a request.")
            .default("10m"),
    ],
);

/// Costs of behaviour.
pub static XDP_COSTS: Section = Section::new(
    "xdp.costs",
    "Tokens taken from the connection bucket of a source for what the proxy sees. Only with `limits.connections`. \
     Addresses shared by many people (NAT) are why 401 and 403 cost nothing at first.",
    &[
        Key::new("request", COST, "For each request.").default("0"),
        Key::new("unauthorized", COST, "For an answer 401.").default("0"),
        Key::new("forbidden", COST, "For an answer 403.").default("0"),
        Key::new("too_many_requests", COST, "For an answer 429.").default("1"),
        Key::new("malformed", COST, "For a request that is not well-formed HTTP.").default("5"),
        Key::new(
            "malformed_http2",
            COST,
            "For a connection that ends because it breaks the rules of HTTP/2.",
        )
        .default("5"),
        Key::new("tls_handshake_failed", COST, "For a TLS handshake that failed.").default("2"),
        Key::new("tls_handshake_abandoned", COST, "For a TLS handshake that was begun and not gone on with.")
            .default("2"),
        Key::new("slow_client", COST, "For a connection that was ended because its client was too slow.")
            .default("5"),
        Key::new("plugin", COST, "For each point that a plugin takes.").default("1"),
        Key::new(
            "http2_flood",
            COST,
            "For a connection that ends because its client floods it: resets, PING, SETTINGS and the like.",
        )
        .default("25"),
    ],
);

const COST: Kind = Kind::integer(0, 1_000_000);

/// Bans.
pub static XDP_BANS: Section = Section::new(
    "xdp.bans",
    "Bans of sources, in kernel time: they end by themselves. Without a trigger nobody is banned but by an operator.",
    &[
        Key::new("triggers", Kind::Section(&XDP_TRIGGERS), "More of this than the rate, and the source is banned."),
        Key::new(
            "steps",
            Kind::list(&const { Kind::duration(1, 86_400) }),
            "How long the first ban lasts, the second, and so on; the last goes for all further ones. One to four.",
        )
        .default("[10s, 1m, 10m, 1h]"),
        Key::new("max", Kind::duration(1, 86_400), "No ban for behaviour lasts longer.").default("1h"),
        Key::new(
            "decay",
            Kind::duration(1, 10_800),
            "For each of these since the end of the last ban, the next one is a step shorter.",
        )
        .default("30m"),
    ],
);

/// What bans.
pub static XDP_TRIGGERS: Section = Section::new(
    "xdp.triggers",
    "Offences a source may commit, as in `20/m`; one more bans it. Left out: no ban for that.",
    &[
        Key::new("unauthorized", Kind::Rate, "Answers 401."),
        Key::new("forbidden", Kind::Rate, "Answers 403."),
        Key::new("too_many_requests", Kind::Rate, "Answers 429."),
        Key::new("malformed", Kind::Rate, "Requests that are not well-formed HTTP."),
        Key::new("malformed_http2", Kind::Rate, "Connections that broke the rules of HTTP/2."),
        Key::new("tls_handshake_failed", Kind::Rate, "TLS handshakes that failed."),
        Key::new("tls_handshake_abandoned", Kind::Rate, "TLS handshakes not gone on with."),
        Key::new("slow_client", Kind::Rate, "Connections ended because their client was too slow."),
        Key::new("plugin", Kind::Rate, "Points taken by plugins."),
        Key::new("http2_flood", Kind::Rate, "Connections of HTTP/2 that were flooded."),
    ],
);

/// Promotion.
pub static XDP_PROMOTION: Section = Section::new(
    "xdp.promotion",
    "Higher limits for addresses that valid credentials come from. Costs and bans stay what they are.",
    &[
        Key::new("factor", Kind::integer(1, 100), "Times the limits of others; 1 promotes nobody.")
            .default("1"),
        Key::new(
            "for",
            Kind::duration(1, 3600),
            "How long after the last valid credential, at most an hour.",
        )
        .default("10m"),
        Key::new(
            "addresses",
            Kind::integer(1, 4096),
            "Addresses that one credential makes known to be good, and promotes, in the long run; twice as many for an \
             hour. Further ones are merely known: a stolen credential is used from many. Keep twice this below \
             `blast_radius.sources`.",
        )
        .default("4"),
    ],
);

/// What becomes of refused packets.
pub static XDP_REFUSALS: Section = Section::new(
    "xdp.refusals",
    "What becomes of a refused packet, where `enforcement` is `enforce`: `drop` says nothing, `reset` answers TCP with a \
     reset (the driver must be able to send), `pass` leaves it to the proxy, which answers 429, `shadow` only counts.",
    &[
        Key::new("denied", RULE_REFUSAL, "Of a source in `deny`.").default("drop"),
        Key::new("banned", SOURCE_REFUSAL, "Of a banned source.").default("drop"),
        Key::new("packets", RULE_REFUSAL, "Over `limits.packets`.").default("drop"),
        Key::new("connections", SOURCE_REFUSAL, "Over `limits.connections`.").default("drop"),
        Key::new("networks", RULE_REFUSAL, "Over `aggregates.v4_24` or `v6_48`.").default("drop"),
        Key::new("unknown", RULE_REFUSAL, "Over `aggregates.unknown`.").default("drop"),
    ],
);

/// The cap on harm to the innocent.
pub static XDP_BLAST_RADIUS: Section = Section::new(
    "xdp.blast_radius",
    "A reason to drop is switched to shadow, aloud, when it hits too many of the sources that authenticated in the last \
     hour. It stays so until a reload.",
    &[
        Key::new("percent", Kind::integer(0, 100), "Share of those sources; 0 never switches.").default("5"),
        Key::new("sources", Kind::integer(1, 4096), "And at least this many.").default("10"),
    ],
);
