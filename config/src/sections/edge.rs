//! Tables of listeners and certificates.

use super::RECORD;
use crate::schema::{Entity, Key, Kind, Section, text};

/// A listener.
pub static LISTENER: Section = Section::new(
    "listener",
    "A socket that clients connect to.",
    &[
        Key::new("name", Kind::NAME, "Unique name for metrics and logs; left out: the address."),
        Key::new("address", Kind::SocketAddress, "Where to listen, as in `0.0.0.0:8080` or `[::]:8080`.")
            .required(),
        Key::new(
            "tls",
            Kind::Either(&[Kind::Bool, Kind::Section(&LISTENER_TLS)]),
            "TLS. `true` offers every certificate of the configuration; left out, the listener speaks plain HTTP.",
        ),
        Key::new("h2c", Kind::Bool, "Whether HTTP/2 without TLS is accepted.").default("false").reserved(),
        Key::new(
            "proxy_protocol",
            Kind::Bool,
            "Whether sources in `trusted_proxies` begin each connection with a PROXY header (version 1 or 2). They must \
             then; others are served as they are, and a header of theirs is refused.",
        )
        .default("false"),
        Key::new(
            "backlog",
            Kind::integer(1, 65535),
            "Connections the kernel holds until they are accepted, for each shard.",
        )
        .default("4096"),
    ],
);

/// TLS of a listener.
pub static LISTENER_TLS: Section = Section::new(
    "listener.tls",
    "TLS of a listener.",
    &[
        Key::new(
            "certificates",
            Kind::list(&const { Kind::Reference(Entity::Certificate) }),
            "Certificates to choose from by server name; left out: all.",
        ),
        Key::new(
            "default_certificate",
            Kind::Reference(Entity::Certificate),
            "For clients whose server name fits no certificate. Left out: the first that has no `snis`, else such \
             clients are refused.",
        ),
        Key::new("min_version", Kind::Word(&["1.2", "1.3"]), "Oldest TLS version accepted.")
            .default("1.2")
            .kong("kong.conf ssl_protocols"),
        Key::new(
            "alpn",
            Kind::list(&const { Kind::Word(&["h2", "http/1.1"]) }),
            "Protocols offered, best first. `h2` is kept for later.",
        )
        .default("[http/1.1]"),
        Key::new("session_tickets", Kind::Bool, "Whether sessions are resumed with tickets.")
            .default("true")
            .kong("kong.conf ssl_session_tickets"),
    ],
);

/// A certificate (Kong `certificates`).
pub static CERTIFICATE: Section = Section::new(
    "certificate",
    "A certificate chain with its private key: text in `cert` and `key`, or files in `cert_file` and `key_file`.",
    &[
        Key::new("name", Kind::NAME, "Unique name for references; `id` serves too. Not Kong's."),
        Key::new("cert", Kind::Text(&text::PEM), "The chain in PEM, leaf first."),
        Key::new("key", Kind::Text(&text::PEM), "The private key in PEM.").secret(),
        Key::new("cert_file", Kind::Text(&text::FILE), "File with the chain; a relative path is against this file. Not Kong's."),
        Key::new("key_file", Kind::Text(&text::FILE), "File with the key; a relative path is against this file. Not Kong's."),
        Key::new("cert_alt", Kind::STRING, "A second chain, for another key type.").reserved(),
        Key::new("key_alt", Kind::STRING, "The key of the second chain.").secret().reserved(),
        Key::new("passphrase", Kind::STRING, "Passphrase of the key.").secret().reserved(),
        Key::new(
            "snis",
            Kind::list(&const { Kind::Either(&[Kind::Text(&text::HOST_PATTERN), Kind::Section(&SNI)]) }),
            "Server names it is offered for; left out: the names in the certificate.",
        ),
    ],
)
.with(RECORD);

/// A server name (Kong `snis`).
pub static SNI: Section = Section::new(
    "sni",
    "A server name of a certificate.",
    &[
        Key::new(
            "name",
            Kind::Text(&text::HOST_PATTERN),
            "The name; `*` may stand for the first or the last label.",
        )
        .required(),
        Key::new(
            "certificate",
            Kind::Reference(Entity::Certificate),
            "Whose name it is; not for a nested one.",
        ),
    ],
)
.with(RECORD);

/// An authority (Kong `ca_certificates`).
pub static CA_CERTIFICATE: Section = Section::new(
    "CA certificate",
    "An authority that upstream certificates are verified against.",
    &[
        Key::new("name", Kind::NAME, "Unique name for references; `id` serves too. Not Kong's."),
        Key::new("cert", Kind::Text(&text::PEM), "The certificate in PEM."),
        Key::new(
            "cert_file",
            Kind::Text(&text::FILE),
            "File with the certificate; a relative path is against this file. Not Kong's.",
        ),
        Key::new("cert_digest", Kind::STRING, "Kong's digest of the certificate; written by exports.")
            .ignored(),
    ],
)
.with(RECORD);
