//! The table of what HTTP is held to, and of what the gateway says in it.

use crate::schema::{Key, Kind, Section};

const DOUBTFUL: Kind = Kind::Word(&["reject", "keep", "decode"]);

/// HTTP.
pub static HTTP: Section = Section::new(
    "http",
    "How requests are read, whatever their route, and what the gateway says about itself.",
    &[
        Key::new(
            "encoded_slash",
            DOUBTFUL,
            "`%2F` in a path: 400, or kept as it is, or read as a slash. The path that results is the one that routes, \
             plugins and upstream see. `%00` is always 400.",
        )
        .default("reject")
        .kong_default("keep"),
        Key::new(
            "backslash",
            DOUBTFUL,
            "`%5C` or a backslash in a path: 400, or kept as `%5C`, or read as a slash, as some servers do.",
        )
        .default("reject")
        .kong_default("keep"),
        Key::new(
            "underscores",
            Kind::Word(&["drop", "keep", "reject"]),
            "Headers of requests with an underscore in their name, which many servers read as a dash: left out and counted, \
             or kept, or 400. Metadata of gRPC calls may have one, and is left out never. With `keep` too what would pass for \
             a length, an identity or, of clients that are not trusted, a forwarding header is left out.",
        )
        .default("drop")
        .kong_default("keep")
        .kong("kong.conf nginx_http_underscores_in_headers"),
        Key::new("merge_slashes", Kind::Bool, "Whether several slashes in a path count as one.").default("false"),
        Key::new(
            "server_header",
            Kind::Word(&["pass", "remove", "replace"]),
            "`Server` of responses: what the upstream says, or none, or `portcullis`. Answers of the gateway itself have \
             one with `replace` only.",
        )
        .default("pass")
        .kong("kong.conf headers"),
        Key::new(
            "half_closed",
            Kind::Word(&["cancel", "serve"]),
            "What becomes of the request of a client that has finished sending while it waits for the answer. Most such \
             clients have left, so `cancel` gives the request up after a second or two.",
        )
        .default("cancel"),
        Key::new(
            "via_limit",
            Kind::integer(0, 100),
            "How often a request may have passed a Portcullis before, by `Via`; more is 508. 0 sets no limit.",
        )
        .default("0"),
    ],
);
