//! The section about HTTP/2.

use crate::diagnostic::Fault;
use crate::fields::Fields;
use crate::model::{Http2, Http2Frames};

pub(super) fn http2(fields: &Fields<'_>) -> Http2 {
    let size = |key| u32::try_from(fields.size(key)).unwrap_or(u32::MAX);
    let built = Http2 {
        concurrent_streams: fields.integer("concurrent_streams"),
        stream_window: size("stream_window"),
        connection_window: size("connection_window"),
        send_buffer: size("send_buffer"),
        upstream_connections: fields.integer("upstream_connections"),
        max_per_second: Http2Frames {
            resets: fields.integer("max_resets_per_second"),
            pings: fields.integer("max_pings_per_second"),
            settings: fields.integer("max_settings_per_second"),
            empty_data: fields.integer("max_empty_data_per_second"),
            window_updates: fields.integer("max_window_updates_per_second"),
            continuations: fields.integer("max_continuations_per_second"),
            priorities: fields.integer("max_priorities_per_second"),
            glitches: fields.integer("max_glitches_per_second"),
        },
    };
    if built.stream_window > built.connection_window {
        let fault = Fault::new("the window of one stream is larger than that of its connection");
        fields.error("stream_window", fault.hint("raise `connection_window`, or lower this"));
    }
    built
}
