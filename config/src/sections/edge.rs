//! Tables of listeners and certificates.

use super::RECORD;
use crate::model::{Cipher, Curve};
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
        Key::new(
            "h2c",
            Kind::Bool,
            "Whether clients without TLS may speak HTTP/2 by prior knowledge; HTTP/1 is spoken beside it.",
        )
        .default("false"),
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
        Key::new(
            "redirect_https",
            Kind::Either(&[Kind::Bool, Kind::Section(&REDIRECT_HTTPS)]),
            "Answers every request with a redirection to the same place over HTTPS. `true`: 308 to port 443.",
        )
        .default("false"),
        Key::new(
            "hsts",
            Kind::Either(&[Kind::Bool, Kind::Section(&HSTS)]),
            "Adds `Strict-Transport-Security` (RFC 6797) to what is answered over TLS, in place of the upstream's. \
             `true`: for a year.",
        )
        .default("false"),
        Key::new(
            "forwarded_client_cert",
            Kind::Word(&["sanitize", "sanitize_set", "append_forward", "forward_only", "always_forward_only"]),
            "What upstreams see in `X-Forwarded-Client-Cert`, in Envoy's words: nothing; the client's certificate; it, \
             added to what the client says; what the client says, if it showed a certificate; or in any case. What a \
             client says is kept only from sources in `trusted_proxies`.",
        )
        .default("sanitize_set"),
    ],
);

/// The redirection to HTTPS.
pub static REDIRECT_HTTPS: Section = Section::new(
    "listener.redirect_https",
    "A redirection to HTTPS.",
    &[
        Key::new(
            "status",
            Kind::Word(&["301", "302", "307", "308"]),
            "Status of the answer; 307 and 308 keep the method.",
        )
        .default("308"),
        Key::new("port", Kind::PORT, "Port of the HTTPS listener as clients see it.").default("443"),
    ],
);

/// Strict transport security.
pub static HSTS: Section = Section::new(
    "listener.hsts",
    "Strict transport security (RFC 6797).",
    &[
        Key::new(
            "max_age",
            Kind::seconds(0, 1 << 32),
            "How long browsers use HTTPS only; a bare number is seconds.",
        )
        .default("365d"),
        Key::new("include_subdomains", Kind::Bool, "Whether it goes for all names below.").default("false"),
        Key::new(
            "preload",
            Kind::Bool,
            "Whether the name may be put on the lists that browsers bring along.",
        )
        .default("false"),
    ],
);

/// Asking clients for certificates.
pub static CLIENT_AUTH: Section = Section::new(
    "client_auth",
    "Certificates of clients (mTLS). One that does not verify is refused in the handshake, in either mode.",
    &[
        Key::new(
            "mode",
            Kind::Word(&["none", "optional", "require"]),
            "Whether clients are asked for a certificate, and whether one without is refused.",
        )
        .default("require"),
        Key::new(
            "ca_certificates",
            Kind::list(&const { Kind::Reference(Entity::CaCertificate) }),
            "Authorities that a certificate must be signed by.",
        ),
        Key::new(
            "verify_depth",
            Kind::integer(0, 64),
            "Most certificates between a client's and the authority's; a chain with more is refused.",
        )
        .kong("kong.conf nginx_proxy_ssl_verify_depth"),
        Key::new(
            "crl_files",
            Kind::list(&const { Kind::Text(&text::FILE) }),
            "Files with lists of revoked certificates (PEM or DER), one of each authority that signs clients. They are \
             read again when they change.",
        ),
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
        Key::new(
            "strict_sni",
            Kind::Bool,
            "Whether clients whose server name fits no certificate, or who send none, are refused with \
             `unrecognized_name`, even if there is a default certificate.",
        )
        .default("false"),
        Key::new(
            "policy",
            Kind::Word(&["modern", "intermediate"]),
            "Mozilla's recommendation to follow: `modern` is TLS 1.3 only; `intermediate` adds TLS 1.2 with ECDHE and \
             AEAD suites.",
        )
        .default("intermediate")
        .kong("kong.conf ssl_cipher_suite"),
        Key::new(
            "min_version",
            Kind::Word(&["1.2", "1.3"]),
            "Oldest TLS version accepted. Left out: that of `policy`.",
        )
        .kong("kong.conf ssl_protocols"),
        Key::new(
            "ciphers",
            Kind::list(&const { Kind::Word(&Cipher::WORDS) }),
            "Cipher suites instead of those of `policy`, best first.",
        )
        .kong("kong.conf ssl_ciphers"),
        Key::new(
            "curves",
            Kind::list(&const { Kind::Word(&Curve::WORDS) }),
            "Groups for the key exchange, best first.",
        )
        .default("[X25519MLKEM768, X25519, P-256, P-384]"),
        Key::new(
            "client_auth",
            Kind::Section(&CLIENT_AUTH),
            "Certificates of clients; `client_auth` of a certificate goes before it for the names of that certificate.",
        ),
        Key::new(
            "passthrough",
            Kind::Word(&["off", "mixed", "only"]),
            "Whether routes with the protocol `tls_passthrough` take connections by their server name and pass them on \
             unopened: never; those that such a route takes; or every connection, and the others are refused.",
        )
        .default("off"),
        Key::new(
            "alpn",
            Kind::list(&const { Kind::Word(&["h2", "http/1.1"]) }),
            "Protocols offered, best first.",
        )
        .default("[h2, http/1.1]"),
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
        Key::new(
            "ocsp_file",
            Kind::Text(&text::FILE),
            "File with an OCSP response in DER, stapled to handshakes and read again when it changes. One that is not \
             for this certificate, or is too old, is left out with a warning. Not Kong's.",
        ),
        Key::new(
            "client_auth",
            Kind::Section(&CLIENT_AUTH),
            "Certificates of clients that ask for one of its server names; in place of the listener's. Not Kong's.",
        ),
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
    "An authority that certificates of targets or clients are verified against.",
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

/// Session tickets.
pub static TICKETS: Section = Section::new(
    "tickets",
    "Keys of session tickets. Without a file they are random, one set for all shards.",
    &[
        Key::new(
            "key_file",
            Kind::Text(&text::FILE),
            "File with the keys, for nodes that are to resume each other's sessions. One key of 80 bytes a line, as \
             `openssl rand -hex 80` or `openssl rand 80 | base64 -w 0` prints it, or 80-byte blocks as nginx has them. The \
             first seals; all open. Read again when it changes; a relative path is against this file.",
        )
        .kong("kong.conf nginx_proxy_ssl_session_ticket_key"),
        Key::new(
            "rotation",
            Kind::duration(60, 7 * 86_400),
            "How long a random key seals; it opens for as long again. Keys of a file are for the operator to rotate.",
        )
        .default("12h"),
    ],
);
