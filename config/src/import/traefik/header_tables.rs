//! What Traefik's middleware `headers` may hold.

use crate::schema::{Key, Kind, Section, text};

const FIELDS: Kind = Kind::Map { keys: &text::HEADER_NAME, of: &Kind::STRING };

pub(super) static HEADERS: Section = Section::new(
    "headers",
    "Header fields of requests and responses.",
    &[
        Key::new("customRequestHeaders", FIELDS, "Fields set on requests; an empty value removes."),
        Key::new("customResponseHeaders", FIELDS, "Fields set on responses; an empty value removes."),
        Key::new("accessControlAllowCredentials", Kind::Bool, "CORS: whether credentials may be sent."),
        Key::new("accessControlAllowHeaders", Kind::STRINGS, "CORS: request fields."),
        Key::new("accessControlAllowMethods", Kind::STRINGS, "CORS: methods."),
        Key::new("accessControlAllowOriginList", Kind::STRINGS, "CORS: origins."),
        Key::new("accessControlAllowOriginListRegex", Kind::STRINGS, "CORS: origins by expression."),
        Key::new("accessControlExposeHeaders", Kind::STRINGS, "CORS: response fields."),
        Key::new("accessControlMaxAge", Kind::Integer { min: 0, max: i32::MAX as i64 }, "CORS: seconds."),
        Key::new("addVaryHeader", Kind::Bool, "CORS: Vary; it is always added.").ignored(),
        Key::new("allowedHosts", Kind::STRINGS, "Hosts that are served.").reserved(),
        Key::new("hostsProxyHeaders", Kind::STRINGS, "Fields with the host.").reserved(),
        Key::new("sslProxyHeaders", FIELDS, "Fields that tell of TLS.").reserved(),
        Key::new("sslRedirect", Kind::Bool, "See redirectScheme.").reserved(),
        Key::new("sslTemporaryRedirect", Kind::Bool, "See redirectScheme.").reserved(),
        Key::new("sslHost", Kind::STRING, "See redirectRegex.").reserved(),
        Key::new("sslForceHost", Kind::Bool, "See redirectRegex.").reserved(),
        Key::new(
            "stsSeconds",
            Kind::Integer { min: 0, max: i64::MAX },
            "Strict-Transport-Security: max-age.",
        ),
        Key::new("stsIncludeSubdomains", Kind::Bool, "Strict-Transport-Security: includeSubDomains."),
        Key::new("stsPreload", Kind::Bool, "Strict-Transport-Security: preload."),
        Key::new("forceSTSHeader", Kind::Bool, "Whether it is sent without TLS too."),
        Key::new("frameDeny", Kind::Bool, "X-Frame-Options: DENY."),
        Key::new("customFrameOptionsValue", Kind::STRING, "X-Frame-Options."),
        Key::new("contentTypeNosniff", Kind::Bool, "X-Content-Type-Options: nosniff."),
        Key::new("browserXssFilter", Kind::Bool, "X-XSS-Protection: 1; mode=block."),
        Key::new("customBrowserXSSValue", Kind::STRING, "X-XSS-Protection."),
        Key::new("contentSecurityPolicy", Kind::STRING, "Content-Security-Policy."),
        Key::new("contentSecurityPolicyReportOnly", Kind::STRING, "Content-Security-Policy-Report-Only."),
        Key::new("publicKey", Kind::STRING, "Public-Key-Pins."),
        Key::new("referrerPolicy", Kind::STRING, "Referrer-Policy."),
        Key::new("permissionsPolicy", Kind::STRING, "Permissions-Policy."),
        Key::new("featurePolicy", Kind::STRING, "Feature-Policy.").deprecated("write `permissionsPolicy`"),
        Key::new("isDevelopment", Kind::Bool, "Whether all of this is off.").reserved(),
    ],
);
