//! What HTTP/2 connections are allowed, and which HTTP targets are spoken to in.

use portcullis_config::{self as config, Config};

use crate::http::h2::{Settings, Thresholds};
use crate::tls::Alpn;
use crate::upstream::HttpVersion;

/// Of connections from clients.
pub fn settings(config: &Config) -> Settings {
    let http2 = &config.http2;
    // Twice the limit on heads: what is over the limit and not over this gets an answer that says why.
    let header_list = config.limits.head.saturating_mul(2);
    let frames = http2.max_per_second;
    Settings {
        concurrent_streams: http2.concurrent_streams,
        stream_window: http2.stream_window,
        connection_window: http2.connection_window,
        send_buffer: http2.send_buffer as usize,
        header_list,
        streams_max: config.limits.requests_per_connection,
        thresholds: Thresholds {
            resets: frames.resets,
            pings: frames.pings,
            settings: frames.settings,
            empty_data: frames.empty_data,
            window_updates: frames.window_updates,
            continuations: frames.continuations,
            priorities: frames.priorities,
            glitches: frames.glitches,
            header_block: header_list,
        },
        ..Settings::default()
    }
}

/// Of a service's targets.
pub fn version(version: config::HttpVersion) -> HttpVersion {
    match version {
        config::HttpVersion::One => HttpVersion::One,
        config::HttpVersion::Two => HttpVersion::Two,
        config::HttpVersion::Auto => HttpVersion::Auto,
    }
}

/// What a target is offered in a TLS handshake.
pub fn alpn(version: config::HttpVersion) -> Vec<Alpn> {
    match version {
        config::HttpVersion::One => vec![Alpn::Http11],
        config::HttpVersion::Two => vec![Alpn::H2],
        config::HttpVersion::Auto => vec![Alpn::H2, Alpn::Http11],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_config::{EmptyCatalog, load_str};

    #[test]
    fn defaults_of_the_configuration_are_those_of_the_code() {
        let loaded = load_str("least.yaml", "{}", &EmptyCatalog).expect("a configuration");
        assert_eq!(settings(&loaded.config), Settings::default());
    }
}
