//! What Traefik's documents may hold: version 3 of its resources and of its file provider.
//!
//! Owns the words. A key marked as reserved is Traefik's and is not acted on; the check says so by itself, where it
//! stands.

use crate::rule::RULE;
use crate::schema::{Key, Kind, Section, text};
use crate::units::Bare;
use std::time::Duration;

const ANY_INTEGER: Kind = Kind::Integer { min: i64::MIN, max: i64::MAX };
/// Traefik takes a bare number for seconds.
pub(super) const DURATION: Kind =
    Kind::Duration { bare: Bare::Seconds, min: Duration::ZERO, max: Duration::from_secs(86_400 * 366) };
const PORT: Kind = Kind::Either(&[Kind::PORT, Kind::NAME]);
const HEADERS: Kind = Kind::Map { keys: &text::HEADER_NAME, of: &Kind::STRING };

/// `spec` of an IngressRoute.
pub(super) static INGRESS_ROUTE: Section = Section::new(
    "IngressRoute",
    "Routers of one resource.",
    &[
        Key::new("entryPoints", Kind::STRINGS, "Listeners of Traefik."),
        Key::new("routes", Kind::list(&const { Kind::Section(&ROUTE) }), "The routers.").required(),
        Key::new("tls", Kind::Section(&TLS), "TLS of all of them."),
        Key::new("ingressClassName", Kind::Any, "Which Traefik.").ignored(),
        Key::new("parentRefs", Kind::Any, "Routers above.").reserved(),
    ],
);

static ROUTE: Section = Section::new(
    "IngressRoute.routes",
    "A router.",
    &[
        Key::new("kind", Kind::Word(&["Rule"]), "Always Rule."),
        Key::new("match", Kind::Text(&RULE), "The rule.").required(),
        Key::new("priority", ANY_INTEGER, "Order, higher first; 0: the length of the rule."),
        Key::new("syntax", Kind::STRING, "Version of the rule's syntax.").reserved(),
        Key::new("services", Kind::list(&const { Kind::Section(&SERVICE_REF) }), "Where requests go."),
        Key::new("middlewares", Kind::list(&const { Kind::Section(&REF) }), "What happens on the way."),
        Key::new("observability", Kind::Any, "Logs and traces.").reserved(),
    ],
);

/// A reference to a resource.
pub(super) static REF: Section = Section::new(
    "reference",
    "A resource.",
    &[
        Key::new("name", Kind::NAME, "Its name.").required(),
        Key::new("namespace", Kind::NAME, "Its namespace."),
    ],
);

pub(super) static SERVICE_REF: Section =
    Section::new("service reference", "A service and how to speak to it.", SERVICE_REF_KEYS);

const SERVICE_REF_KEYS: &[Key] = &[
    Key::new("name", Kind::NAME, "Its name.").required(),
    Key::new("namespace", Kind::NAME, "Its namespace."),
    Key::new("kind", Kind::Word(&["Service", "TraefikService"]), "What the name is of."),
    Key::new("port", PORT, "Its port."),
    Key::new("scheme", Kind::Word(&["http", "https", "h2c"]), "How to speak to it."),
    Key::new("weight", Kind::COUNT, "Share of the requests."),
    Key::new("percent", Kind::integer(0, 100), "Share of the requests that are mirrored."),
    Key::new("passHostHeader", Kind::Bool, "Whether the client's Host is sent on."),
    Key::new("strategy", Kind::Word(STRATEGIES), "How a server is chosen."),
    Key::new("sticky", Kind::Section(&STICKY), "Sessions that stay where they are."),
    Key::new("healthCheck", Kind::Section(&HEALTH), "Probes."),
    Key::new("passiveHealthCheck", Kind::Section(&PASSIVE), "Watching the traffic."),
    Key::new("serversTransport", Kind::NAME, "How connections are made."),
    Key::new("responseForwarding", Kind::Any, "When parts of a response are sent; they are at once.")
        .ignored(),
    Key::new("nativeLB", Kind::Any, "Whether the cluster balances.").ignored(),
    Key::new("nodePortLB", Kind::Any, "Whether ports of nodes are used.").ignored(),
];

const STRATEGIES: &[&str] = &["wrr", "p2c", "hrw", "leasttime", "RoundRobin"];

pub(super) static STICKY: Section = Section::new(
    "sticky",
    "Sessions that stay where they are.",
    &[Key::new("cookie", Kind::Section(&COOKIE), "The cookie that says where.")],
);

static COOKIE: Section = Section::new(
    "sticky.cookie",
    "The cookie of a session.",
    &[
        Key::new("name", Kind::NAME, "Its name."),
        Key::new("path", Kind::Text(&text::PATH), "Its path."),
        Key::new("secure", Kind::Bool, "Its attribute Secure."),
        Key::new("httpOnly", Kind::Bool, "Its attribute HttpOnly."),
        Key::new("sameSite", Kind::Word(&["none", "lax", "strict"]), "Its attribute SameSite."),
        Key::new("maxAge", ANY_INTEGER, "Its attribute Max-Age."),
        Key::new("domain", Kind::STRING, "Its attribute Domain."),
    ],
);

pub(super) static HEALTH: Section = Section::new(
    "healthCheck",
    "Probes.",
    &[
        Key::new("path", Kind::Text(&text::PATH), "The path of a probe."),
        Key::new("scheme", Kind::Word(&["http", "https"]), "How to speak in a probe."),
        Key::new("mode", Kind::Word(&["http", "grpc"]), "What a probe is."),
        Key::new("status", Kind::integer(0, 599), "The status of a healthy server."),
        Key::new("interval", DURATION, "Between two probes."),
        Key::new("unhealthyInterval", DURATION, "Between two probes of an unhealthy server."),
        Key::new("timeout", DURATION, "Longest wait for an answer."),
        Key::new("hostname", Kind::STRING, "Host of a probe."),
        Key::new("headers", HEADERS, "Headers of a probe."),
        Key::new("method", Kind::STRING, "Method of a probe.").reserved(),
        Key::new("port", Kind::PORT, "Another port for probes.").reserved(),
        Key::new("followRedirects", Kind::Bool, "Whether a probe goes where it is sent.").reserved(),
    ],
);

pub(super) static PASSIVE: Section = Section::new(
    "passiveHealthCheck",
    "Watching the traffic.",
    &[
        Key::new("failureWindow", DURATION, "How long a server stays out."),
        Key::new("maxFailedAttempts", Kind::integer(0, 255), "Failures until it is out."),
    ],
);

pub(super) static TLS: Section = Section::new(
    "tls",
    "TLS of routers.",
    &[
        Key::new("secretName", Kind::NAME, "The Secret with the certificate."),
        Key::new("options", Kind::Any, "A TLSOption; listeners have these settings."),
        Key::new("store", Kind::Any, "A TLSStore.").reserved(),
        Key::new("certResolver", Kind::NAME, "Who gets certificates.").reserved(),
        Key::new("domains", Kind::Any, "For which names certificates are got.").reserved(),
        Key::new("passthrough", Kind::Bool, "Whether TLS is passed on unopened.").reserved(),
    ],
);

/// `spec` of a TraefikService; a service of the file provider has the same and `loadBalancer`.
pub(super) static TRAEFIK_SERVICE: Section = Section::new(
    "TraefikService",
    "A service made of others.",
    &[
        Key::new("loadBalancer", Kind::Section(&LOAD_BALANCER), "Servers; in files only."),
        Key::new("weighted", Kind::Section(&WEIGHTED), "Services with shares."),
        Key::new("mirroring", Kind::Section(&MIRRORING), "A service whose requests others get too."),
        Key::new("failover", Kind::Section(&FAILOVER), "A service with a stand-in."),
        Key::new("highestRandomWeight", Kind::Section(&WEIGHTED), "Services chosen by the client."),
    ],
);

pub(super) static LOAD_BALANCER: Section = Section::new(
    "loadBalancer",
    "Servers.",
    &[
        Key::new("servers", Kind::list(&const { Kind::Section(&SERVER) }), "The servers.").required(),
        Key::new("passHostHeader", Kind::Bool, "Whether the client's Host is sent on."),
        Key::new("strategy", Kind::Word(STRATEGIES), "How a server is chosen."),
        Key::new("sticky", Kind::Section(&STICKY), "Sessions that stay where they are."),
        Key::new("healthCheck", Kind::Section(&HEALTH), "Probes."),
        Key::new("passiveHealthCheck", Kind::Section(&PASSIVE), "Watching the traffic."),
        Key::new("serversTransport", Kind::NAME, "How connections are made."),
        Key::new("responseForwarding", Kind::Any, "When parts of a response are sent.").ignored(),
    ],
);

static SERVER: Section = Section::new(
    "servers",
    "A server.",
    &[
        Key::new("url", Kind::Text(&text::URL), "Where it is.").required(),
        Key::new("weight", Kind::COUNT, "Its share."),
        Key::new("preservePath", Kind::Bool, "Whether the path of the URL is put before.").reserved(),
    ],
);

pub(super) static WEIGHTED: Section = Section::new(
    "weighted",
    "Services with shares.",
    &[
        Key::new("services", Kind::list(&const { Kind::Section(&SERVICE_REF) }), "The services.").required(),
        Key::new("sticky", Kind::Section(&STICKY), "Sessions that stay where they are."),
        Key::new("healthCheck", Kind::Any, "Whether the health of the parts counts.").ignored(),
    ],
);

pub(super) static MIRRORING: Section =
    Section::new("mirroring", "A service whose requests others get too.", SERVICE_REF_KEYS_OF_MIRRORING)
        .with(SERVICE_REF_KEYS_BUT_NAME);

const SERVICE_REF_KEYS_OF_MIRRORING: &[Key] = &[
    Key::new("name", Kind::NAME, "The service; in resources."),
    Key::new("service", Kind::NAME, "The service; in files."),
    Key::new("mirrors", Kind::list(&const { Kind::Section(&SERVICE_REF) }), "Who gets copies."),
    Key::new("mirrorBody", Kind::Bool, "Whether copies have bodies."),
    Key::new("maxBodySize", ANY_INTEGER, "Largest body of a copy."),
    Key::new("healthCheck", Kind::Any, "Whether the health of the parts counts.").ignored(),
];

const SERVICE_REF_KEYS_BUT_NAME: &[Key] = &[
    Key::new("namespace", Kind::NAME, "Its namespace."),
    Key::new("kind", Kind::Word(&["Service", "TraefikService"]), "What the name is of."),
    Key::new("port", PORT, "Its port."),
    Key::new("scheme", Kind::Word(&["http", "https", "h2c"]), "How to speak to it."),
    Key::new("weight", Kind::COUNT, "Share of the requests."),
    Key::new("passHostHeader", Kind::Bool, "Whether the client's Host is sent on."),
    Key::new("strategy", Kind::Word(STRATEGIES), "How a server is chosen."),
    Key::new("sticky", Kind::Section(&STICKY), "Sessions that stay where they are."),
    Key::new("serversTransport", Kind::NAME, "How connections are made."),
];

pub(super) static FAILOVER: Section = Section::new(
    "failover",
    "A service with a stand-in.",
    &[
        Key::new("service", Kind::NAME, "The service.").required(),
        Key::new("fallback", Kind::NAME, "Its stand-in."),
        Key::new("healthCheck", Kind::Any, "Whether the health of the parts counts.").ignored(),
    ],
);

/// `spec` of a ServersTransport, or one of the file provider.
pub(super) static TRANSPORT: Section = Section::new(
    "ServersTransport",
    "How connections to servers are made.",
    &[
        Key::new("insecureSkipVerify", Kind::Bool, "Whether certificates are taken unverified."),
        Key::new("rootCAs", Kind::Any, "Authorities; in resources by Secret or ConfigMap, in files by file."),
        Key::new("rootCAsSecrets", Kind::STRINGS, "Secrets with authorities."),
        Key::new("certificates", Kind::Any, "What is shown to servers that ask.").reserved(),
        Key::new("certificatesSecrets", Kind::Any, "What is shown to servers that ask.").reserved(),
        Key::new("serverName", Kind::Text(&text::HOST), "Name in the handshake."),
        Key::new("forwardingTimeouts", Kind::Section(&FORWARDING_TIMEOUTS), "Bounds on time."),
        Key::new("maxIdleConnsPerHost", Kind::COUNT, "Kept connections.").reserved(),
        Key::new("disableHTTP2", Kind::Bool, "Whether HTTP/2 is not spoken; it is not.").ignored(),
        Key::new("peerCertURI", Kind::STRING, "Name in the certificate.").reserved(),
        Key::new("spiffe", Kind::Any, "Identities of workloads.").reserved(),
    ],
);

static FORWARDING_TIMEOUTS: Section = Section::new(
    "forwardingTimeouts",
    "Bounds on time.",
    &[
        Key::new("dialTimeout", DURATION, "Longest wait for a connection."),
        Key::new("responseHeaderTimeout", DURATION, "Longest wait for a response; 0 sets none."),
        Key::new("idleConnTimeout", DURATION, "How long connections are kept.").reserved(),
        Key::new("readIdleTimeout", DURATION, "Silence until a ping.").reserved(),
        Key::new("pingTimeout", DURATION, "Longest wait for its answer.").reserved(),
    ],
);

/// `spec` of a TLSOption.
pub(super) static TLS_OPTION: Section = Section::new(
    "TLSOption",
    "Settings of TLS.",
    &[
        Key::new(
            "minVersion",
            Kind::Word(&["VersionTLS10", "VersionTLS11", "VersionTLS12", "VersionTLS13"]),
            "Oldest version.",
        ),
        Key::new("maxVersion", Kind::STRING, "Newest version.").reserved(),
        Key::new("cipherSuites", Kind::Any, "Cipher suites.").reserved(),
        Key::new("curvePreferences", Kind::Any, "Key exchanges.").reserved(),
        Key::new("sniStrict", Kind::Bool, "Whether unknown names are refused.").reserved(),
        Key::new("clientAuth", Kind::Any, "Certificates of clients.").reserved(),
        Key::new("alpnProtocols", Kind::Any, "Protocols offered.").reserved(),
        Key::new("disableSessionTickets", Kind::Bool, "Whether sessions are not resumed.").reserved(),
        Key::new("preferServerCipherSuites", Kind::Bool, "Does nothing in Traefik.").ignored(),
    ],
);

/// The file provider's document.
pub(super) static FILE: Section = Section::new(
    "Traefik configuration",
    "Traefik's dynamic configuration.",
    &[
        Key::new("http", Kind::Section(&HTTP), "Routers, services and middlewares."),
        Key::new("tcp", Kind::Any, "TCP routers.").reserved(),
        Key::new("udp", Kind::Any, "UDP routers.").reserved(),
        Key::new("tls", Kind::Section(&FILE_TLS), "Certificates."),
    ],
);

static HTTP: Section = Section::new(
    "http",
    "Routers, services and middlewares.",
    &[
        Key::new("routers", Kind::Map { keys: &text::NAME, of: &Kind::Section(&ROUTER) }, "Routers by name."),
        Key::new(
            "services",
            Kind::Map { keys: &text::NAME, of: &Kind::Section(&TRAEFIK_SERVICE) },
            "Services by name.",
        ),
        Key::new(
            "middlewares",
            Kind::Map { keys: &text::NAME, of: &Kind::Section(&super::middleware_tables::MIDDLEWARE) },
            "Middlewares by name.",
        ),
        Key::new(
            "serversTransports",
            Kind::Map { keys: &text::NAME, of: &Kind::Section(&TRANSPORT) },
            "Transports by name.",
        ),
    ],
);

pub(super) static ROUTER: Section = Section::new(
    "router",
    "A router.",
    &[
        Key::new("entryPoints", Kind::STRINGS, "Listeners of Traefik."),
        Key::new("rule", Kind::Text(&RULE), "The rule.").required(),
        Key::new("ruleSyntax", Kind::STRING, "Version of the rule's syntax.").reserved(),
        Key::new("priority", ANY_INTEGER, "Order, higher first; 0: the length of the rule."),
        Key::new("service", Kind::NAME, "Where requests go.").required(),
        Key::new("middlewares", Kind::STRINGS, "What happens on the way."),
        Key::new("tls", Kind::Either(&[Kind::Bool, Kind::Section(&TLS)]), "TLS."),
        Key::new("observability", Kind::Any, "Logs and traces.").reserved(),
    ],
);

static FILE_TLS: Section = Section::new(
    "tls",
    "Certificates.",
    &[
        Key::new(
            "certificates",
            Kind::list(&const { Kind::Section(&CERTIFICATE) }),
            "Certificates in files.",
        ),
        Key::new("options", Kind::Any, "Settings of TLS; listeners have them.").reserved(),
        Key::new("stores", Kind::Any, "Stores.").reserved(),
    ],
);

static CERTIFICATE: Section = Section::new(
    "tls.certificates",
    "A certificate in files.",
    &[
        Key::new("certFile", Kind::NAME, "The chain.").required(),
        Key::new("keyFile", Kind::NAME, "The key.").required(),
        Key::new("stores", Kind::Any, "For which stores.").ignored(),
    ],
);
