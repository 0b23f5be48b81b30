//! Tables of the process: shards, limits, timeouts, admin interface, logs, Redis.

use crate::schema::{Key, Kind, Section, text};

/// Shards.
pub static SHARDS: Section = Section::new(
    "shards",
    "The threads that carry traffic, one on each core.",
    &[
        Key::new(
            "count",
            Kind::Either(&[Kind::Word(&["auto"]), Kind::integer(1, 1024)]),
            "How many; `auto` is one for each of `cores`, or for each core that the process may use.",
        )
        .default("auto")
        .kong("kong.conf nginx_worker_processes"),
        Key::new(
            "cores",
            Kind::list(&const { Kind::integer(0, 4095) }),
            "Cores to pin them to, in order; empty: those the process may use.",
        )
        .default("[]"),
        Key::new(
            "driver",
            Kind::Word(&["auto", "io_uring", "epoll"]),
            "What they do I/O with; `auto` takes io_uring where the kernel allows it.",
        )
        .default("auto"),
        Key::new(
            "steering",
            Kind::Word(&["auto", "core", "hash"]),
            "Which shard gets a new connection: `core` the one on the core that received its first packet, `hash` the one \
             that the kernel's hash of its addresses says. `auto` is `core` where every interface of a listener has a \
             receive queue for each shard, else one core would get all.",
        )
        .default("auto"),
    ],
);

const COUNT: Kind = Kind::integer(1, u32::MAX as i64);

/// Names of targets.
pub static DNS: Section = Section::new(
    "dns",
    "How names of targets are resolved. Answers are asked for again when they run out; while a name does not resolve, its \
     last addresses stay in use.",
    &[
        Key::new(
            "nameservers",
            Kind::list(&Kind::SocketAddress),
            "Servers to ask, as in `10.0.0.53:53`; empty for those of the system.",
        )
        .default("[]")
        .kong("kong.conf resolver_address"),
        Key::new("timeout", Kind::duration(1, 60), "Longest wait for an answer, each of two tries.")
            .default("2s")
            .kong("kong.conf resolver_timeout"),
        Key::new("min_ttl", Kind::duration(1, 3600), "An answer is good for at least this.").default("1s"),
        Key::new("max_ttl", Kind::duration(1, 86_400), "An answer is good for at most this.").default("1h"),
    ],
);

/// Limits.
pub static LIMITS: Section = Section::new(
    "limits",
    "Bounds on what one message, connection or the process may use.",
    &[
        Key::new("head", HEAD, "Request line and headers together; more is 431.")
            .default("32KiB")
            .kong("kong.conf nginx_http_large_client_header_buffers"),
        Key::new("request_line", HEAD, "Request line; more is 414.").default("8KiB"),
        Key::new("header_count", Kind::integer(1, 256), "Headers of one message; more is 431.")
            .default("100"),
        Key::new(
            "body",
            BODY,
            "Request body; more is 413; 0 sets no limit. Routes may override it with `body_limit`.",
        )
        .default("10MiB")
        .kong_default("0")
        .kong("kong.conf nginx_http_client_max_body_size"),
        Key::new(
            "buffered_body",
            BUFFER,
            "Body held in memory for a plugin that needs the whole; more is 413 or 502. Routes may override it.",
        )
        .default("1MiB")
        .kong("kong.conf nginx_http_client_body_buffer_size"),
        Key::new("response_head", HEAD, "Status line and headers of a target's response; more is 502.")
            .default("32KiB"),
        Key::new(
            "min_rate",
            MIN_RATE,
            "Least bytes a second that a client must send of a request body, or take of a response, while the gateway waits \
             for it; 0 sets none. A slower body is 408, a slower reader is cut off. Time that was saved up by being faster \
             may be spent, up to `timeouts.request_body_idle` and `timeouts.response_write`. Routes may override it, and the \
             two keys beside it, with keys of the same name.",
        )
        .default("1KiB")
        .kong_default("0"),
        Key::new(
            "min_rate_after",
            MIN_RATE_AFTER,
            "Time that a request body has before `min_rate` is asked of it.",
        )
        .default("10s"),
        Key::new(
            "connections",
            COUNT,
            "Open downstream connections of the process; more are closed at once.",
        )
        .default("65536")
        .kong("kong.conf nginx_events_worker_connections"),
        Key::new(
            "connections_per_source",
            Kind::COUNT,
            "Open downstream connections of one source, trusted proxies aside, so that none takes the places of all; 0 sets \
             no limit.",
        )
        .default("16384")
        .kong_default("0"),
        Key::new(
            "requests_per_connection",
            COUNT,
            "Requests on one downstream connection, after which it is closed.",
        )
        .default("10000")
        .kong("kong.conf nginx_http_keepalive_requests"),
        Key::new(
            "upstream_idle_connections",
            Kind::COUNT,
            "Idle connections kept for one target by one shard.",
        )
        .default("128")
        .kong("kong.conf upstream_keepalive_pool_size"),
        Key::new(
            "upstream_connections",
            Kind::COUNT,
            "Connections of HTTP/1 to one target by one shard, idle ones aside; further requests wait. 0 sets no limit.",
        )
        .default("1024")
        .kong_default("0"),
        Key::new(
            "upstream_queue",
            Kind::COUNT,
            "Requests that wait for a connection to one target on one shard, at most for `timeouts.upstream_queue`; more are \
             503.",
        )
        .default("1024"),
        Key::new(
            "upstream_requests_per_connection",
            COUNT,
            "Requests on one connection to a target, after which it is closed.",
        )
        .default("10000")
        .kong("kong.conf upstream_keepalive_max_requests"),
        Key::new(
            "retry_budget_percent",
            Kind::integer(0, 100),
            "Retries as a share of a service's requests, in percent.",
        )
        .default("20")
        .kong_default("100"),
    ],
);

const HEAD: Kind = Kind::Size { min: 1 << 10, max: 1 << 20 };
const BODY: Kind = Kind::Size { min: 0, max: 1 << 50 };
pub(super) const BUFFER: Kind = Kind::Size { min: 1 << 10, max: 1 << 30 };
pub(super) const MIN_RATE: Kind = Kind::Size { min: 0, max: 1 << 30 };
pub(super) const MIN_RATE_AFTER: Kind = Kind::duration(1, 3600);

/// Timeouts.
pub static TIMEOUTS: Section = Section::new(
    "timeouts",
    "Bounds on time. A bare number is milliseconds.",
    &[
        Key::new("request_head", Kind::TIMEOUT, "From the first byte of a request to the end of its headers; 408.")
            .default("10s")
            .kong_default("60s")
            .kong("kong.conf nginx_http_client_header_timeout"),
        Key::new("request_body_idle", Kind::TIMEOUT, "Between two reads of a request body; 408.")
            .default("30s")
            .kong_default("60s")
            .kong("kong.conf nginx_http_client_body_timeout"),
        Key::new("keep_alive", Kind::TIMEOUT, "Between two requests on a downstream connection.")
            .default("60s")
            .kong_default("75s")
            .kong("kong.conf nginx_http_keepalive_timeout"),
        Key::new("tls_handshake", Kind::TIMEOUT, "From accepting a connection to the end of its TLS handshake.")
            .default("10s")
            .kong_default("60s"),
        Key::new("connect", Kind::TIMEOUT, "Connecting to a target, for services without a `connect_timeout`.")
            .default("3s")
            .kong_default("60s")
            .kong("services.connect_timeout"),
        Key::new("first_byte", Kind::TIMEOUT, "Until a response begins, for services without a `read_timeout`.")
            .default("15s")
            .kong_default("60s")
            .kong("services.read_timeout"),
        Key::new(
            "upstream_body_idle",
            Kind::TIMEOUT,
            "Between two reads of a response body, for services without a `read_timeout`.",
        )
        .default("30s")
        .kong_default("60s")
        .kong("services.read_timeout"),
        Key::new(
            "upstream_write",
            Kind::TIMEOUT,
            "Between two writes of a request to a target, for services without a `write_timeout`.",
        )
        .default("30s")
        .kong_default("60s")
        .kong("services.write_timeout"),
        Key::new(
            "upstream_queue",
            Kind::TIMEOUT,
            "Waiting for a connection or stream to a target while all are in use; 503.",
        )
        .default("3s"),
        Key::new("upstream_keep_alive", Kind::TIMEOUT, "How long an idle connection to a target is kept.")
            .default("55s")
            .kong_default("60s")
            .kong("kong.conf upstream_keepalive_idle_timeout"),
        Key::new("response_write", Kind::TIMEOUT, "Between two writes of a response to a client that does not read.")
            .default("30s")
            .kong_default("60s")
            .kong("kong.conf nginx_http_send_timeout"),
        Key::new(
            "total",
            Kind::duration(0, 86_400),
            "From the head of a request to the end of its response: 504 before the response began, and a cut connection \
             after. 0 sets no limit, as streams may last. Tunnels are not held to it.",
        )
        .default("0s"),
        Key::new("tunnel_idle", Kind::TIMEOUT, "Silence in both directions of a WebSocket, pings included, before it is closed.").default("5m").kong_default("60s"),
        Key::new("drain", Kind::duration(0, 86_400), "From the order to stop until what is in flight is cut.").default("30s"),
        Key::new(
            "drain_delay",
            Kind::duration(0, 3600),
            "How long `/status/ready` says no before the listeners close, so that a load balancer can look away.",
        )
        .default("5s")
        .kong_default("0s"),
    ],
);

/// Timeouts of one service or route.
pub static OWN_TIMEOUTS: Section = Section::new(
    "own_timeouts",
    "Bounds on time for one service or route, in place of those of the section `timeouts`, and in place of Kong's \
     `connect_timeout`, `write_timeout` and `read_timeout` of the service. What a route sets counts before what its service \
     sets. Not Kong's.",
    &[
        Key::new("request_body_idle", Kind::TIMEOUT, "Between two reads of a request body; 408."),
        Key::new("connect", Kind::TIMEOUT, "Connecting to a target."),
        Key::new("first_byte", Kind::TIMEOUT, "Until a response begins."),
        Key::new("upstream_body_idle", Kind::TIMEOUT, "Between two reads of a response body."),
        Key::new("upstream_write", Kind::TIMEOUT, "Between two writes of a request to a target."),
        Key::new(
            "response_write",
            Kind::TIMEOUT,
            "Between two writes of a response to a client that does not read.",
        ),
        Key::new(
            "total",
            Kind::duration(0, 86_400),
            "From the head of a request to the end of its response; 0 sets no limit.",
        ),
        Key::new("tunnel_idle", Kind::TIMEOUT, "Silence in both directions of a WebSocket."),
    ],
);

/// The operator's interface.
pub static ADMIN: Section = Section::new(
    "admin",
    "The operator's interface. Without a socket and an address there is none.",
    &[
        Key::new(
            "socket",
            Kind::Text(&text::FILE),
            "Unix socket, mode 0600; a relative path is against the working directory.",
        ),
        Key::new(
            "address",
            Kind::SocketAddress,
            "TCP address, loopback only: nothing asks for a password there.",
        )
        .kong("kong.conf admin_listen"),
    ],
);

/// Logs.
pub static TELEMETRY: Section = Section::new(
    "telemetry",
    "Logs.",
    &[
        Key::new(
            "access_log",
            Kind::Either(&[Kind::Text(&text::FILE), Kind::Section(&ACCESS_LOG)]),
            "One line for each exchange. As a text: the `destination`.",
        )
        .kong("kong.conf proxy_access_log"),
        Key::new("log", Kind::Section(&LOG), "The gateway's own log, on standard error."),
    ],
);

/// The access log.
pub static ACCESS_LOG: Section = Section::new(
    "telemetry.access_log",
    "One line for each exchange.",
    &[
        Key::new("destination", Kind::Text(&text::FILE), "`stdout`, `off`, or the path of a file.")
            .default("stdout"),
        Key::new("format", Kind::Word(&["json"]), "Shape of a line.").default("json"),
        Key::new(
            "headers",
            Kind::list(&const { Kind::Text(&text::HEADER_NAME) }),
            "Request headers added to each line.",
        )
        .default("[]"),
        Key::new(
            "redact_headers",
            Kind::list(&const { Kind::Text(&text::HEADER_NAME) }),
            "Headers whose value is masked, besides those that authentication plugins read.",
        )
        .default("[authorization, proxy-authorization, cookie, set-cookie, apikey, x-api-key]"),
        Key::new(
            "redact_query",
            Kind::STRINGS,
            "Query arguments whose value is masked, besides those that authentication plugins read.",
        )
        .default(
            "[apikey, api_key, key, jwt, token, access_token, id_token, refresh_token, password, secret]",
        ),
    ],
);

/// The gateway's own log.
pub static LOG: Section = Section::new(
    "telemetry.log",
    "The gateway's own log.",
    &[
        Key::new(
            "level",
            Kind::Word(&["error", "warn", "info", "debug", "trace"]),
            "Least severe level written.",
        )
        .default("info")
        .kong("kong.conf log_level"),
        Key::new("format", Kind::Word(&["text", "json"]), "Shape of a line.").default("text"),
    ],
);

/// Redis.
pub static REDIS: Section = Section::new(
    "redis",
    "The Redis of limits that several gateways share and that name none of their own.",
    &[
        Key::new("host", Kind::Text(&text::HOST), "Where it is.").default("127.0.0.1"),
        Key::new("port", Kind::PORT, "Its port.").default("6379"),
        Key::new("timeout", Kind::TIMEOUT, "Longest wait for an answer; then the gateway decides by itself.")
            .default("100ms"),
        Key::new("username", Kind::NAME, "User name."),
        Key::new("password", Kind::STRING, "Password.").secret(),
        Key::new("database", Kind::integer(0, 65535), "Database number.").default("0"),
        Key::new("ssl", Kind::Bool, "Whether to speak TLS.").default("false"),
        Key::new("ssl_verify", Kind::Bool, "Whether its certificate is verified.").default("true"),
        Key::new("server_name", Kind::Text(&text::HOST), "Name in its certificate."),
        Key::new(
            "gateways",
            Kind::integer(1, 10_000),
            "How many gateways share the limits. While Redis is away each of them keeps to this part of every limit.",
        )
        .default("1"),
    ],
);
