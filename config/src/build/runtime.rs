//! The sections about the process: shards, limits, timeouts, admin interface, logs.

use std::path::PathBuf;

use crate::diagnostic::Fault;
use crate::fields::Fields;
use crate::model::{
    AccessLog, AccessLogDestination, Admin, Dns, Driver, Limits, LogFormat, LogLevel, OwnTimeouts,
    ShardCount, Shards, Steering, Telemetry, Timeouts,
};

pub(super) fn shards(fields: &Fields<'_>) -> Shards {
    let cores: Vec<usize> = fields.integers("cores");
    if cores.iter().enumerate().any(|(at, core)| cores[..at].contains(core)) {
        fields.error("cores", "a core is given twice");
    }
    let count = match fields.optional_integer::<u16>("count") {
        Some(count) => ShardCount::Fixed(count),
        None => ShardCount::Auto,
    };
    if let ShardCount::Fixed(count) = count
        && !cores.is_empty()
        && usize::from(count) > cores.len()
    {
        let fault = Fault::new(format!("{count} shards cannot each have one of {} cores", cores.len()));
        fields.error("count", fault.hint("leave `count` out, or add cores"));
    }
    let driver = match fields.word("driver") {
        "io_uring" => Driver::IoUring,
        "epoll" => Driver::Epoll,
        _ => Driver::Auto,
    };
    let steering = match fields.word("steering") {
        "core" => Steering::Core,
        "hash" => Steering::Hash,
        _ => Steering::Auto,
    };
    Shards { count, cores, driver, steering }
}

pub(super) fn dns(fields: &Fields<'_>) -> Dns {
    let (min_ttl, max_ttl) = (fields.duration("min_ttl"), fields.duration("max_ttl"));
    if min_ttl > max_ttl {
        fields.error("min_ttl", Fault::new("`min_ttl` is longer than `max_ttl`"));
    }
    Dns {
        nameservers: fields.socket_addresses("nameservers"),
        timeout: fields.duration("timeout"),
        min_ttl: min_ttl.min(max_ttl),
        max_ttl,
    }
}

pub(super) fn limits(fields: &Fields<'_>) -> Limits {
    let size = |key| u32::try_from(fields.size(key)).unwrap_or(u32::MAX);
    let limits = Limits {
        head: size("head"),
        request_line: size("request_line"),
        header_count: fields.integer("header_count"),
        body: match fields.size("body") {
            0 => u64::MAX,
            body => body,
        },
        buffered_body: fields.size("buffered_body"),
        response_head: size("response_head"),
        min_rate: size("min_rate"),
        min_rate_after: fields.duration("min_rate_after"),
        connections: fields.integer("connections"),
        connections_per_source: fields.integer("connections_per_source"),
        requests_per_connection: fields.integer("requests_per_connection"),
        upstream_idle_connections: fields.integer("upstream_idle_connections"),
        upstream_connections: fields.integer("upstream_connections"),
        upstream_queue: fields.integer("upstream_queue"),
        upstream_requests_per_connection: fields.integer("upstream_requests_per_connection"),
        retry_budget_percent: fields.integer("retry_budget_percent"),
    };
    if limits.request_line > limits.head {
        let fault = Fault::new("the request line may be longer than the whole head");
        fields.error("request_line", fault.hint("`head` bounds request line and headers together"));
    }
    limits
}

pub(super) fn timeouts(fields: &Fields<'_>) -> Timeouts {
    Timeouts {
        request_head: fields.duration("request_head"),
        request_body_idle: fields.duration("request_body_idle"),
        keep_alive: fields.duration("keep_alive"),
        tls_handshake: fields.duration("tls_handshake"),
        connect: fields.duration("connect"),
        first_byte: fields.duration("first_byte"),
        upstream_body_idle: fields.duration("upstream_body_idle"),
        upstream_write: fields.duration("upstream_write"),
        upstream_queue: fields.duration("upstream_queue"),
        upstream_keep_alive: fields.duration("upstream_keep_alive"),
        response_write: fields.duration("response_write"),
        total: Some(fields.duration("total")).filter(|total| !total.is_zero()),
        tunnel_idle: fields.duration("tunnel_idle"),
        drain: fields.duration("drain"),
        drain_delay: fields.duration("drain_delay"),
    }
}

/// The bounds that one service or route sets for itself.
pub(super) fn own_timeouts(fields: &Fields<'_>) -> OwnTimeouts {
    OwnTimeouts {
        request_body_idle: fields.optional_duration("request_body_idle"),
        connect: fields.optional_duration("connect"),
        first_byte: fields.optional_duration("first_byte"),
        upstream_body_idle: fields.optional_duration("upstream_body_idle"),
        upstream_write: fields.optional_duration("upstream_write"),
        response_write: fields.optional_duration("response_write"),
        total: fields.optional_duration("total"),
        tunnel_idle: fields.optional_duration("tunnel_idle"),
    }
}

/// Longest path of a unix socket: `sun_path` of unix(7) less its terminator.
const MAX_SOCKET_PATH: usize = 107;

pub(super) fn admin(fields: &Fields<'_>) -> Admin {
    let socket = fields.optional_string("socket");
    if socket.as_ref().is_some_and(|path| path.len() > MAX_SOCKET_PATH) {
        fields.error("socket", format!("a socket path has at most {MAX_SOCKET_PATH} bytes"));
    }
    let address = fields.socket_address("address");
    if let Some(address) = address
        && !address.ip().is_loopback()
    {
        let fault =
            Fault::new(format!("{address} is not a loopback address, and nothing asks for a password there"));
        fields.error("address", fault.hint("listen on 127.0.0.1 or [::1], or use `socket`"));
    }
    Admin { socket: socket.map(PathBuf::from), address }
}

pub(super) fn telemetry(fields: &Fields<'_>) -> Telemetry {
    let log = fields.section("log");
    Telemetry {
        access_log: access_log(fields),
        log_level: match log.word("level") {
            "error" => LogLevel::Error,
            "warn" => LogLevel::Warn,
            "debug" => LogLevel::Debug,
            "trace" => LogLevel::Trace,
            _ => LogLevel::Info,
        },
        log_format: if log.word("format") == "json" { LogFormat::Json } else { LogFormat::Text },
    }
}

fn access_log(fields: &Fields<'_>) -> AccessLog {
    let section = fields.section("access_log");
    let destination = fields.optional_string("access_log").unwrap_or_else(|| section.string("destination"));
    let lower = |key| section.strings(key).into_iter().map(|name| name.to_ascii_lowercase()).collect();
    AccessLog {
        destination: match destination.as_str() {
            "off" => AccessLogDestination::Off,
            "stdout" | "/dev/stdout" => AccessLogDestination::Stdout,
            path => AccessLogDestination::File(PathBuf::from(path)),
        },
        headers: lower("headers"),
        redact_headers: lower("redact_headers"),
        redact_query: section.strings("redact_query"),
    }
}
