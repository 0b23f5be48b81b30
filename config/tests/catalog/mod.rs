//! A few plugins to test with. They are named as the gateway's are, since the rules between sections know these
//! names, and have as many keys as the samples use; what the gateway's really take is tested there.

use portcullis_config::{Key, Kind, Section, StaticCatalog};

pub static CATALOG: StaticCatalog =
    StaticCatalog(&[&JWT, &KEY_AUTH, &RATE_LIMITING, &REQUEST_TRANSFORMER, &RESPONSE_TRANSFORMER]);

static JWT: Section = Section::new(
    "jwt",
    "Tokens.",
    &[
        Key::new("header_names", Kind::STRINGS, "Headers.").default("[authorization]"),
        Key::new("claims_to_verify", Kind::list(&const { Kind::Word(&["exp", "nbf"]) }), "Claims.")
            .default("[exp, nbf]")
            .kong_default("[]"),
    ],
);

static KEY_AUTH: Section = Section::new(
    "key-auth",
    "Keys.",
    &[
        Key::new("key_names", Kind::STRINGS, "Names.").default("[apikey]"),
        Key::new("key_in_header", Kind::Bool, "In headers.").default("true"),
        Key::new("key_in_query", Kind::Bool, "In the query.").default("true"),
        Key::new("key_in_body", Kind::Bool, "In a form.").default("false"),
        Key::new("hide_credentials", Kind::Bool, "Hidden.").default("false"),
        Key::new("anonymous", Kind::STRING, "A stand-in."),
        Key::new("run_on_preflight", Kind::Bool, "On OPTIONS.").default("true"),
        Key::new("realm", Kind::STRING, "Realm."),
    ],
);

const WINDOW: Kind = Kind::Integer { min: 1, max: i64::MAX };

static RATE_LIMITING: Section = Section::new(
    "rate-limiting",
    "Limits.",
    &[
        Key::new("second", WINDOW, "Each second."),
        Key::new("minute", WINDOW, "Each minute."),
        Key::new("hour", WINDOW, "Each hour."),
        Key::new("limit_by", Kind::Word(&["consumer", "credential", "ip"]), "Whose.").default("consumer"),
        Key::new("policy", Kind::Word(&["local", "redis"]), "Where.").default("local"),
        Key::new("fault_tolerant", Kind::Bool, "Whether.").default("true"),
        Key::new("hide_client_headers", Kind::Bool, "Whether.").default("false"),
        Key::new("sync_rate", Kind::Number { min: -1.0, max: 86400.0 }, "Seconds.").default("-1"),
        Key::new("redis_host", Kind::NAME, "The Redis.").deprecated("write `redis: {host: ..}`"),
        Key::new("redis_port", Kind::PORT, "Its port.").deprecated("write `redis: {port: ..}`"),
        Key::new("redis_password", Kind::STRING, "Its password.")
            .secret()
            .deprecated("write `redis: {password: ..}`"),
    ],
);

static REQUEST_TRANSFORMER: Section = Section::new(
    "request-transformer",
    "Changes requests.",
    &[Key::new("remove", Kind::Section(&PARTS), "Names."), Key::new("add", Kind::Section(&PARTS), "Pairs.")],
);

static PARTS: Section = Section::new(
    "request-transformer.parts",
    "Parts of a request.",
    &[Key::new("headers", Kind::STRINGS, "Headers.").default("[]")],
);

static RESPONSE_TRANSFORMER: Section = Section::new(
    "response-transformer",
    "Changes responses.",
    &[Key::new("remove", Kind::Section(&PARTS), "Names.")],
);
