//! Tables of consumers and credentials.

use super::RECORD;
use crate::model::JwtAlgorithm;
use crate::schema::{Entity, Key, Kind, Section};

const OWNER: Key =
    Key::new("consumer", Kind::Reference(Entity::Consumer), "Whose credential it is; not for a nested one.");

/// A consumer (Kong `consumers`).
pub static CONSUMER: Section = Section::new(
    "consumer",
    "A known client. At least one of `username` and `custom_id` is needed.",
    &[
        Key::new("username", Kind::NAME, "Unique name."),
        Key::new("custom_id", Kind::NAME, "Unique name in a system of yours."),
        Key::new(
            "keyauth_credentials",
            Kind::list(&const { Kind::Section(&KEY_AUTH) }),
            "API keys, for `key-auth`.",
        ),
        Key::new(
            "jwt_secrets",
            Kind::list(&const { Kind::Section(&JWT_SECRET) }),
            "Keys that tokens are signed with, for `jwt`.",
        ),
        Key::new("acls", Kind::list(&const { Kind::Section(&ACL) }), "Groups, for `acl`."),
        Key::new(
            "basicauth_credentials",
            Kind::list(&const { Kind::Section(&BASIC_AUTH) }),
            "Passwords, for `basic-auth`.",
        ),
        Key::new(
            "hmacauth_credentials",
            Kind::list(&const { Kind::Section(&HMAC_AUTH) }),
            "Signing secrets, for `hmac-auth`.",
        ),
        Key::new("oauth2_credentials", Kind::Any, "OAuth 2 clients.").reserved(),
        Key::new("mtls_auth_credentials", Kind::Any, "Client certificates.").reserved(),
        Key::new(
            "groups",
            Kind::list(&const { Kind::Either(&[Kind::NAME, Kind::Reference(Entity::ConsumerGroup)]) }),
            "Consumer groups, by name. They are no groups in the sense of `acls`.",
        ),
        Key::new(
            "plugins",
            super::entities(&const { Kind::Section(&super::PLUGIN) }),
            "Plugins for requests of this consumer.",
        ),
    ],
)
.with(RECORD);

/// An API key (Kong `keyauth_credentials`).
pub static KEY_AUTH: Section = Section::new(
    "key-auth credential",
    "An API key of a consumer.",
    &[
        Key::new(
            "key",
            Kind::NAME,
            "The key, unique; or `sha256:` and the 64 hexadecimal digits of its SHA-256, so that the file does not hold the \
             key itself.",
        )
        .required()
        .secret(),
        Key::new(
            "ttl",
            Kind::seconds(0, 100_000_000),
            "Life of the key from the load of the configuration, bare seconds; \
             0 or left out: for ever.",
        ),
        OWNER,
    ],
)
.with(RECORD);

/// A JWT key (Kong `jwt_secrets`).
pub static JWT_SECRET: Section = Section::new(
    "jwt credential",
    "A key that the tokens of a consumer are signed with.",
    &[
        Key::new(
            "key",
            Kind::NAME,
            "Value of the token's `iss` (or whatever `key_claim_name` says); unique.",
        )
        .required(),
        Key::new("secret", Kind::NAME, "Shared secret, for HS256, HS384 and HS512.").secret(),
        Key::new("algorithm", Kind::Word(&JwtAlgorithm::WORDS), "The only algorithm accepted with this key.")
            .default("HS256"),
        Key::new(
            "rsa_public_key",
            Kind::Text(&crate::schema::text::PEM),
            "Public key in PEM, for all other algorithms, elliptic ones too.",
        ),
        OWNER,
    ],
)
.with(RECORD);

/// A group membership (Kong `acls`).
pub static ACL: Section = Section::new(
    "acl membership",
    "Membership of a consumer in a group.",
    &[Key::new("group", Kind::NAME, "The group.").required(), OWNER],
)
.with(RECORD);

/// A password (Kong `basicauth_credentials`).
pub static BASIC_AUTH: Section = Section::new(
    "basic-auth credential",
    "User name and password of a consumer.",
    &[
        Key::new("username", Kind::NAME, "The user name, unique.").required(),
        Key::new(
            "password",
            Kind::STRING,
            "The password; or its hash by bcrypt, Argon2, apr1, SHA-crypt or `{SHA}`, as `htpasswd` makes it, so that the \
             file does not hold the password itself.",
        )
        .required()
        .secret(),
        OWNER,
    ],
)
.with(RECORD);

/// A signing secret (Kong `hmacauth_credentials`).
pub static HMAC_AUTH: Section = Section::new(
    "hmac-auth credential",
    "User name and signing secret of a consumer.",
    &[
        Key::new("username", Kind::NAME, "The user name, unique.").required(),
        Key::new("secret", Kind::NAME, "The secret.").required().secret(),
        OWNER,
    ],
)
.with(RECORD);
