//! The table of what an HTTP/2 connection may do.

use crate::schema::{Key, Kind, Section};

const WINDOW: Kind = Kind::Size { min: (1 << 16) - 1, max: (1 << 31) - 1 };
const FRAMES: Kind = Kind::integer(1, 1_000_000);

/// HTTP/2.
pub static HTTP2: Section = Section::new(
    "http2",
    "What one HTTP/2 connection may do. A client that passes one of the `max_*_per_second` is sent ENHANCE_YOUR_CALM, \
     closed, and charged as for a malformed request.",
    &[
        Key::new(
            "concurrent_streams",
            Kind::integer(1, 10_000),
            "Requests under way at once on one connection; further ones are refused. Towards targets, the target's own \
             bound holds too.",
        )
        .default("100")
        .kong("kong.conf http2_max_concurrent_streams"),
        Key::new(
            "stream_window",
            WINDOW,
            "Bytes of one request body that may come before what came is passed on, at first; the same for response bodies \
             of targets. Grows while a body is passed on as fast as it comes: of a client up to half of \
             `connection_window`, of a target up to a quarter of it.",
        )
        .default("64KiB"),
        Key::new("connection_window", WINDOW, "The same for all bodies of one connection together.")
            .default("1MiB"),
        Key::new(
            "send_buffer",
            Kind::Size { min: 1 << 14, max: 1 << 24 },
            "Bytes of one body that wait to be sent at most.",
        )
        .default("64KiB"),
        Key::new(
            "upstream_connections",
            Kind::integer(1, 1000),
            "Connections that one shard keeps to one target; when all their streams are taken, requests wait.",
        )
        .default("8"),
        Key::new(
            "max_resets_per_second",
            FRAMES,
            "RST_STREAM frames of a client, and those that a client makes the gateway send.",
        )
        .default("100"),
        Key::new("max_pings_per_second", FRAMES, "PING frames.").default("100"),
        Key::new("max_settings_per_second", FRAMES, "SETTINGS frames.").default("50"),
        Key::new("max_empty_data_per_second", FRAMES, "DATA frames that carry nothing and end nothing. In its \
             whole life a connection may send 100 of them.")
            .default("100"),
        Key::new(
            "max_window_updates_per_second",
            FRAMES,
            "WINDOW_UPDATE frames, besides two for each stream and each DATA frame sent.",
        )
        .default("100"),
        Key::new(
            "max_continuations_per_second",
            FRAMES,
            "CONTINUATION frames, besides two for each header block.",
        )
        .default("20"),
        Key::new("max_priorities_per_second", FRAMES, "PRIORITY frames, besides one for each stream.")
            .default("100"),
        Key::new("max_glitches_per_second", FRAMES, "All of these together, and frames of unknown type.")
            .default("100"),
    ],
);
