//! What an HTTP/2 connection may do.

/// Bounds on one HTTP/2 connection (`http2`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http2 {
    /// Streams that a client may have open at once.
    pub concurrent_streams: u32,
    /// Bytes of one stream that may come before they are passed on.
    pub stream_window: u32,
    /// The same for a connection.
    pub connection_window: u32,
    /// Bytes of one stream that wait to be sent.
    pub send_buffer: u32,
    /// Connections of one shard to one target.
    pub upstream_connections: u32,
    /// Frames of a kind in one second.
    pub max_per_second: Http2Frames,
}

/// Frames of an HTTP/2 connection in one second, by kind; one more ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2Frames {
    /// RST_STREAM, received and provoked.
    pub resets: u32,
    /// PING.
    pub pings: u32,
    /// SETTINGS.
    pub settings: u32,
    /// DATA that carries nothing and ends nothing.
    pub empty_data: u32,
    /// WINDOW_UPDATE beyond those that have a reason.
    pub window_updates: u32,
    /// CONTINUATION beyond the first two of a header block.
    pub continuations: u32,
    /// PRIORITY beyond one a stream.
    pub priorities: u32,
    /// All together.
    pub glitches: u32,
}

/// The HTTP that a service's targets are spoken to in (`http_version`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HttpVersion {
    /// HTTP/1.1.
    #[default]
    One,
    /// HTTP/2: by ALPN over TLS, by prior knowledge without.
    Two,
    /// What the target chooses by ALPN; HTTP/1.1 without TLS.
    Auto,
}
