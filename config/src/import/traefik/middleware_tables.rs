//! What Traefik's middlewares may hold.

use super::tables::{DURATION, REF};
use crate::schema::{Key, Kind, Section, text};

const ANY_INTEGER: Kind = Kind::Integer { min: i64::MIN, max: i64::MAX };
const COUNT: Kind = Kind::Integer { min: 0, max: i64::MAX };

/// `spec` of a Middleware, or one of the file provider: one of these keys.
pub(super) static MIDDLEWARE: Section = Section::new(
    "Middleware",
    "What happens to a request on its way; one kind.",
    &[
        Key::new("addPrefix", Kind::Section(&ADD_PREFIX), "Puts a prefix before the path."),
        Key::new("basicAuth", Kind::Section(&BASIC_AUTH), "User names and passwords."),
        Key::new("buffering", Kind::Section(&BUFFERING), "Bodies read whole."),
        Key::new("chain", Kind::Section(&CHAIN), "Several middlewares."),
        Key::new("circuitBreaker", Kind::Section(&CIRCUIT_BREAKER), "Rests of broken services."),
        Key::new("compress", Kind::Section(&COMPRESS), "Compression."),
        Key::new("contentType", Kind::Any, "Guessed content types."),
        Key::new("digestAuth", Kind::Any, "Digest authentication."),
        Key::new("errors", Kind::Section(&ERRORS), "Error pages."),
        Key::new("forwardAuth", Kind::Section(&FORWARD_AUTH), "Another service's leave."),
        Key::new("grpcWeb", Kind::Any, "gRPC-Web."),
        Key::new("headers", Kind::Section(&super::header_tables::HEADERS), "Header fields."),
        Key::new("ipAllowList", Kind::Section(&IP_ALLOW_LIST), "Addresses that may pass."),
        Key::new("ipWhiteList", Kind::Section(&IP_ALLOW_LIST), "The same, as version 2 called it.")
            .deprecated("write `ipAllowList`"),
        Key::new("inFlightReq", Kind::Section(&IN_FLIGHT), "Requests at once."),
        Key::new("passTLSClientCert", Kind::Any, "Certificates of clients in header fields."),
        Key::new("plugin", Kind::Any, "Plugins."),
        Key::new("rateLimit", Kind::Section(&RATE_LIMIT), "Requests in a time."),
        Key::new("redirectRegex", Kind::Section(&REDIRECT_REGEX), "Redirects by expression."),
        Key::new("redirectScheme", Kind::Section(&REDIRECT_SCHEME), "Redirects to another scheme."),
        Key::new("replacePath", Kind::Section(&REPLACE_PATH), "Another path."),
        Key::new("replacePathRegex", Kind::Section(&REPLACE_PATH_REGEX), "Another path by expression."),
        Key::new("retry", Kind::Section(&RETRY), "Further attempts."),
        Key::new("stripPrefix", Kind::Section(&STRIP_PREFIX), "Takes a prefix off the path."),
        Key::new(
            "stripPrefixRegex",
            Kind::Section(&STRIP_PREFIX_REGEX),
            "Takes a prefix off the path by expression.",
        ),
    ],
);

static ADD_PREFIX: Section = Section::new(
    "addPrefix",
    "A prefix.",
    &[Key::new("prefix", Kind::Text(&text::PATH), "The prefix.").required()],
);

static BASIC_AUTH: Section = Section::new(
    "basicAuth",
    "User names and passwords.",
    &[
        Key::new("users", Kind::STRINGS, "`name:hash` each; in files.").secret(),
        Key::new("usersFile", Kind::NAME, "A file of them."),
        Key::new("secret", Kind::NAME, "The Secret with `users`."),
        Key::new("realm", Kind::STRING, "The realm."),
        Key::new("headerField", Kind::Text(&text::HEADER_NAME), "The field for the user's name."),
        Key::new("removeHeader", Kind::Bool, "Whether the password is kept from the service."),
    ],
);

static BUFFERING: Section = Section::new(
    "buffering",
    "Bodies read whole.",
    &[
        Key::new("maxRequestBodyBytes", COUNT, "Largest request body; 0 sets no limit."),
        Key::new("memRequestBodyBytes", COUNT, "How much of it is in memory; bodies are streamed.").ignored(),
        Key::new("maxResponseBodyBytes", COUNT, "Largest response body; 0 sets no limit."),
        Key::new("memResponseBodyBytes", COUNT, "How much of it is in memory; bodies are streamed.")
            .ignored(),
        Key::new("retryExpression", Kind::STRING, "When to try again."),
    ],
);

static CHAIN: Section = Section::new(
    "chain",
    "Several middlewares.",
    &[Key::new(
        "middlewares",
        Kind::list(&const { Kind::Either(&[Kind::NAME, Kind::Section(&REF)]) }),
        "In order.",
    )
    .required()],
);

static CIRCUIT_BREAKER: Section = Section::new(
    "circuitBreaker",
    "Rests of broken services.",
    &[
        Key::new("expression", Kind::STRING, "When it opens.").required(),
        Key::new("checkPeriod", DURATION, "How often it looks."),
        Key::new("fallbackDuration", DURATION, "How long it stays open."),
        Key::new("recoveryDuration", DURATION, "How long it takes to close."),
        Key::new("responseCode", Kind::integer(400, 599), "Status of its answers."),
    ],
);

static COMPRESS: Section = Section::new(
    "compress",
    "Compression.",
    &[
        Key::new("excludedContentTypes", Kind::STRINGS, "Media types that are left alone."),
        Key::new("includedContentTypes", Kind::STRINGS, "The only media types that are compressed."),
        Key::new("minResponseBodyBytes", COUNT, "Shorter responses are left alone."),
        Key::new(
            "encodings",
            Kind::list(&const { Kind::Word(&["gzip", "br", "zstd"]) }),
            "What is offered, best first.",
        ),
        Key::new(
            "defaultEncoding",
            Kind::Word(&["gzip", "br", "zstd", ""]),
            "For clients that say nothing of codings.",
        ),
    ],
);

static ERRORS: Section = Section::new(
    "errors",
    "Error pages.",
    &[
        Key::new("status", Kind::STRINGS, "Statuses and ranges."),
        Key::new("service", Kind::Any, "Who has the pages."),
        Key::new("query", Kind::STRING, "Path of a page."),
        Key::new("statusRewrites", Kind::Any, "Other statuses instead."),
    ],
);

static FORWARD_AUTH: Section = Section::new(
    "forwardAuth",
    "Another service's leave.",
    &[
        Key::new("address", Kind::Text(&text::URL), "The service.").required(),
        Key::new("trustForwardHeader", Kind::Bool, "Whether X-Forwarded-* of the client are believed."),
        Key::new("authResponseHeaders", Kind::STRINGS, "Fields of its answer for the request."),
        Key::new("authResponseHeadersRegex", Kind::STRING, "The same by expression."),
        Key::new("authRequestHeaders", Kind::STRINGS, "Fields that it is shown."),
        Key::new("addAuthCookiesToResponse", Kind::STRINGS, "Cookies for the client."),
        Key::new("headerField", Kind::Text(&text::HEADER_NAME), "The field with the user's name."),
        Key::new("forwardBody", Kind::Bool, "Whether it is shown the body."),
        Key::new("maxBodySize", ANY_INTEGER, "Largest body that it is shown."),
        Key::new("maxResponseBodySize", ANY_INTEGER, "Largest answer."),
        Key::new("preserveLocationHeader", Kind::Bool, "Whether its Location stays relative."),
        Key::new("preserveRequestMethod", Kind::Bool, "Whether it is asked with the client's method."),
        Key::new("tls", Kind::Section(&FORWARD_AUTH_TLS), "TLS towards it."),
    ],
);

static FORWARD_AUTH_TLS: Section = Section::new(
    "forwardAuth.tls",
    "TLS towards the service.",
    &[
        Key::new("insecureSkipVerify", Kind::Bool, "Whether its certificate is taken unverified."),
        Key::new("ca", Kind::NAME, "Its authority.").reserved(),
        Key::new("caSecret", Kind::NAME, "Its authority.").reserved(),
        Key::new("caOptional", Kind::Bool, "Not for clients.").reserved(),
        Key::new("cert", Kind::NAME, "Our certificate.").reserved(),
        Key::new("certSecret", Kind::NAME, "Our certificate.").reserved(),
        Key::new("key", Kind::NAME, "Our key.").reserved(),
    ],
);

static IP_ALLOW_LIST: Section = Section::new(
    "ipAllowList",
    "Addresses that may pass.",
    &[
        Key::new("sourceRange", Kind::CIDRS, "The addresses and ranges.").required(),
        Key::new("ipStrategy", Kind::Section(&IP_STRATEGY), "Which address is looked at."),
        Key::new("rejectStatusCode", Kind::integer(400, 599), "Status of a refusal."),
    ],
);

pub(super) static IP_STRATEGY: Section = Section::new(
    "ipStrategy",
    "Which address is the client's. Here it is the one that `trusted_proxies` of the gateway vouch for.",
    &[
        Key::new("depth", COUNT, "Place in X-Forwarded-For from the right.").reserved(),
        Key::new("excludedIPs", Kind::STRINGS, "Addresses passed over in it.").reserved(),
        Key::new("ipv6Subnet", Kind::integer(0, 128), "How much of an IPv6 address counts; 64 here.")
            .reserved(),
    ],
);

static CRITERION: Section = Section::new(
    "sourceCriterion",
    "Whose requests are counted together.",
    &[
        Key::new("ipStrategy", Kind::Section(&IP_STRATEGY), "By address."),
        Key::new("requestHeaderName", Kind::Text(&text::HEADER_NAME), "By a header field."),
        Key::new("requestHost", Kind::Bool, "By the host."),
    ],
);

static IN_FLIGHT: Section = Section::new(
    "inFlightReq",
    "Requests at once.",
    &[
        Key::new("amount", Kind::integer(0, u32::MAX as i64), "How many; 0 sets no limit."),
        Key::new("sourceCriterion", Kind::Section(&CRITERION), "Whose together; by host, if left out."),
    ],
);

static RATE_LIMIT: Section = Section::new(
    "rateLimit",
    "Requests in a time.",
    &[
        Key::new("average", Kind::integer(0, u32::MAX as i64), "Requests in a period; 0 sets no limit."),
        Key::new("period", DURATION, "The period; 1 s if left out."),
        Key::new("burst", Kind::integer(0, u32::MAX as i64), "Requests at once; 1 if left out."),
        Key::new("sourceCriterion", Kind::Section(&CRITERION), "Whose together; by address, if left out."),
        Key::new("redis", Kind::Any, "Where counts are shared.").reserved(),
    ],
);

static REDIRECT_REGEX: Section = Section::new(
    "redirectRegex",
    "Redirects by expression.",
    &[
        Key::new("regex", Kind::NAME, "The expression, for the whole URL.").required(),
        Key::new("replacement", Kind::STRING, "What becomes of it.").required(),
        Key::new("permanent", Kind::Bool, "Whether for ever."),
    ],
);

static REDIRECT_SCHEME: Section = Section::new(
    "redirectScheme",
    "Redirects to another scheme.",
    &[
        Key::new("scheme", Kind::Word(&["http", "https"]), "The scheme.").required(),
        Key::new("port", Kind::STRING, "The port; a text, as in `\"443\"`."),
        Key::new("permanent", Kind::Bool, "Whether for ever."),
        Key::new("forcePermanentRedirect", Kind::Bool, "Whether for ever, also behind another proxy.")
            .reserved(),
    ],
);

static REPLACE_PATH: Section = Section::new(
    "replacePath",
    "Another path.",
    &[Key::new("path", Kind::Text(&text::PATH), "The path.").required()],
);

static REPLACE_PATH_REGEX: Section = Section::new(
    "replacePathRegex",
    "Another path by expression.",
    &[
        Key::new("regex", Kind::NAME, "The expression.").required(),
        Key::new("replacement", Kind::STRING, "What becomes of it.").required(),
    ],
);

static RETRY: Section = Section::new(
    "retry",
    "Further attempts.",
    &[
        Key::new("attempts", Kind::integer(1, 32767), "Attempts in all.").required(),
        Key::new("initialInterval", DURATION, "Wait before the second."),
        Key::new("timeout", DURATION, "Longest time in all.").reserved(),
        Key::new("status", Kind::STRINGS, "Statuses that are tried again."),
        Key::new("maxRequestBodyBytes", ANY_INTEGER, "Largest body that is sent again.").reserved(),
        Key::new("disableRetryOnNetworkError", Kind::Bool, "Whether broken connections are not tried again."),
        Key::new("retryNonIdempotentMethod", Kind::Bool, "Whether every method is tried again."),
    ],
);

static STRIP_PREFIX: Section = Section::new(
    "stripPrefix",
    "Takes a prefix off the path.",
    &[
        Key::new("prefixes", Kind::STRINGS, "The prefixes; the first that fits.").required(),
        Key::new("forceSlash", Kind::Bool, "Whether the path keeps a slash; it does.").ignored(),
    ],
);

static STRIP_PREFIX_REGEX: Section = Section::new(
    "stripPrefixRegex",
    "Takes a prefix off the path by expression.",
    &[Key::new("regex", Kind::STRINGS, "The expressions; the first that fits.").required()],
);
