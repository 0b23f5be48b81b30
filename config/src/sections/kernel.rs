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
        "Sources that are never dropped, besides loopback, `trusted_proxies` and upstream targets: health checkers, say.",
    )
    .default("[]"),
    Key::new(
        "table_entries",
        Kind::integer(1024, 1 << 24),
        "Sources remembered at once, a power of two. Each takes 32 bytes of kernel memory.",
    )
    .default("1048576"),
    Key::new("limits", Kind::Section(&XDP_LIMITS), "Rates for each source."),
    Key::new("costs", Kind::Section(&XDP_COSTS), "What behaviour seen by the proxy costs a source."),
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
        Key::new("tls_handshake_failed", COST, "For a TLS handshake that failed or was abandoned.")
            .default("2"),
    ],
);

const COST: Kind = Kind::integer(0, 1_000_000);
