//! Sections of five plugins with Kong's keys, for tests; the gateway has its own.

use portcullis_config::{Key, Kind, Section, StaticCatalog};

pub static CATALOG: StaticCatalog =
    StaticCatalog(&[&JWT, &KEY_AUTH, &RATE_LIMITING, &REQUEST_TRANSFORMER, &RESPONSE_TRANSFORMER]);

static JWT: Section = Section::new(
    "jwt",
    "Authenticates by JSON web token.",
    &[
        Key::new("uri_param_names", Kind::STRINGS, "Query arguments that may hold the token.")
            .default("[jwt]"),
        Key::new("cookie_names", Kind::STRINGS, "Cookies that may hold the token.").default("[]"),
        Key::new("header_names", Kind::STRINGS, "Headers that may hold the token.")
            .default("[authorization]"),
        Key::new("key_claim_name", Kind::NAME, "Claim (or header field) that names the key.").default("iss"),
        Key::new("secret_is_base64", Kind::Bool, "Whether shared secrets are base64.").default("false"),
        Key::new(
            "claims_to_verify",
            Kind::list(&const { Kind::Word(&["exp", "nbf"]) }),
            "Claims whose time is checked, besides the signature.",
        )
        .default("[exp, nbf]")
        .kong_default("[]"),
        Key::new(
            "anonymous",
            Kind::STRING,
            "Consumer for requests without a valid token, by username or id.",
        ),
        Key::new("run_on_preflight", Kind::Bool, "Whether OPTIONS requests need a token.").default("true"),
        Key::new(
            "maximum_expiration",
            Kind::integer(0, 31_536_000),
            "Longest life of a token in seconds; 0: any.",
        )
        .default("0"),
        Key::new("realm", Kind::STRING, "Realm in `WWW-Authenticate`."),
    ],
);

static KEY_AUTH: Section = Section::new(
    "key-auth",
    "Authenticates by API key.",
    &[
        Key::new("key_names", Kind::STRINGS, "Headers and query arguments that may hold the key.")
            .default("[apikey]"),
        Key::new("key_in_header", Kind::Bool, "Whether headers are looked at.").default("true"),
        Key::new("key_in_query", Kind::Bool, "Whether the query is looked at.").default("true"),
        Key::new("key_in_body", Kind::Bool, "Whether a form body is looked at.").default("false"),
        Key::new("hide_credentials", Kind::Bool, "Whether the key is removed before the request is sent on.")
            .default("false"),
        Key::new("anonymous", Kind::STRING, "Consumer for requests without a valid key, by username or id."),
        Key::new("run_on_preflight", Kind::Bool, "Whether OPTIONS requests need a key.").default("true"),
        Key::new("realm", Kind::STRING, "Realm in `WWW-Authenticate`."),
    ],
);

const WINDOW: Kind = Kind::Integer { min: 1, max: i64::MAX };

static RATE_LIMITING: Section = Section::new(
    "rate-limiting",
    "Limits requests in fixed windows.",
    &[
        Key::new("second", WINDOW, "Requests in a second."),
        Key::new("minute", WINDOW, "Requests in a minute."),
        Key::new("hour", WINDOW, "Requests in an hour."),
        Key::new("day", WINDOW, "Requests in a day."),
        Key::new("month", WINDOW, "Requests in a month."),
        Key::new("year", WINDOW, "Requests in a year."),
        Key::new(
            "limit_by",
            Kind::Word(&["consumer", "credential", "ip", "service", "header", "path"]),
            "Whose requests are counted together.",
        )
        .default("consumer"),
        Key::new("header_name", Kind::NAME, "Header for `limit_by: header`."),
        Key::new("path", Kind::NAME, "Path for `limit_by: path`."),
        Key::new("policy", Kind::Word(&["local", "cluster", "redis"]), "Where counts are kept.")
            .default("local"),
        Key::new("fault_tolerant", Kind::Bool, "Whether requests pass when the store is down.")
            .default("true"),
        Key::new("hide_client_headers", Kind::Bool, "Whether the headers with limits are left out.")
            .default("false"),
        Key::new("error_code", Kind::integer(100, 599), "Status of a refusal.").default("429"),
        Key::new("error_message", Kind::STRING, "Message of a refusal.").default("API rate limit exceeded"),
        Key::new(
            "sync_rate",
            Kind::Number { min: -1.0, max: 86400.0 },
            "Seconds between two exchanges with Redis.",
        )
        .default("-1"),
        Key::new("redis", Kind::Section(&RATE_LIMITING_REDIS), "The Redis for `policy: redis`.").reserved(),
        Key::new("redis_host", Kind::NAME, "The Redis.").deprecated("write `redis: {host: ..}`"),
        Key::new("redis_port", Kind::PORT, "Its port.").deprecated("write `redis: {port: ..}`"),
        Key::new("redis_password", Kind::STRING, "Its password.")
            .secret()
            .deprecated("write `redis: {password: ..}`"),
    ],
);

static RATE_LIMITING_REDIS: Section = Section::new(
    "rate-limiting.redis",
    "A Redis.",
    &[
        Key::new("host", Kind::NAME, "Where it is."),
        Key::new("port", Kind::PORT, "Its port.").default("6379"),
        Key::new("password", Kind::STRING, "Its password.").secret(),
    ],
);

static REQUEST_TRANSFORMER: Section = Section::new(
    "request-transformer",
    "Changes requests: remove, rename, replace, add, append, in this order.",
    &[
        Key::new("http_method", Kind::NAME, "Method sent instead of the client's."),
        Key::new("remove", Kind::Section(&REQUEST_PARTS), "Names to remove."),
        Key::new("rename", Kind::Section(&REQUEST_PARTS), "`old:new` pairs of names."),
        Key::new(
            "replace",
            Kind::Section(&REQUEST_REPLACE),
            "`name:value` pairs set where the name is present.",
        ),
        Key::new("add", Kind::Section(&REQUEST_PARTS), "`name:value` pairs set where the name is absent."),
        Key::new("append", Kind::Section(&REQUEST_PARTS), "`name:value` pairs added in any case."),
    ],
);

static REQUEST_PARTS: Section = Section::new(
    "request-transformer.parts",
    "Parts of a request.",
    &[
        Key::new("headers", Kind::STRINGS, "For headers.").default("[]"),
        Key::new("querystring", Kind::STRINGS, "For query arguments.").default("[]"),
        Key::new("body", Kind::STRINGS, "For fields of a JSON or form body.").default("[]").reserved(),
    ],
);

static REQUEST_REPLACE: Section = Section::new(
    "request-transformer.replace",
    "Parts of a request, and its path.",
    &[
        Key::new("uri", Kind::STRING, "Path sent instead of the client's."),
        Key::new("headers", Kind::STRINGS, "For headers.").default("[]"),
        Key::new("querystring", Kind::STRINGS, "For query arguments.").default("[]"),
        Key::new("body", Kind::STRINGS, "For fields of a JSON or form body.").default("[]").reserved(),
    ],
);

static RESPONSE_TRANSFORMER: Section = Section::new(
    "response-transformer",
    "Changes responses: remove, rename, replace, add, append, in this order.",
    &[
        Key::new("remove", Kind::Section(&RESPONSE_PARTS), "Names to remove."),
        Key::new("rename", Kind::Section(&RESPONSE_PARTS), "`old:new` pairs of names."),
        Key::new(
            "replace",
            Kind::Section(&RESPONSE_PARTS),
            "`name:value` pairs set where the name is present.",
        ),
        Key::new("add", Kind::Section(&RESPONSE_PARTS), "`name:value` pairs set where the name is absent."),
        Key::new("append", Kind::Section(&RESPONSE_PARTS), "`name:value` pairs added in any case."),
    ],
);

static RESPONSE_PARTS: Section = Section::new(
    "response-transformer.parts",
    "Parts of a response.",
    &[
        Key::new("headers", Kind::STRINGS, "For headers.").default("[]"),
        Key::new("json", Kind::STRINGS, "For fields of a JSON body.").default("[]").reserved(),
        Key::new("json_types", Kind::STRINGS, "Types of the values in `json`.").default("[]").reserved(),
    ],
);
