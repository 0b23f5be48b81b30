//! The `config:` of `forward-auth`.

use std::sync::Arc;
use std::time::Duration;

use portcullis_config::schema::text;
use portcullis_config::{self as config, Diagnostics, Fault, Key, Kind, Section};
use regex::Regex;

use crate::http::{Known, KnownSet};
use crate::plugin::call::Service;
use crate::plugin::{CompileCx, PluginSpec, Registration};

/// The plugin's line of the registry: after the plugins that authenticate by themselves, before those that limit.
pub static REGISTRATION: Registration =
    Registration { name: "forward-auth", priority: 1020, section: &SECTION, compile };

const NAME: &Kind = &Kind::Text(&text::HEADER_NAME);
const NAMES: Kind = Kind::list(NAME);

static SECTION: Section = Section::new(
    "forward-auth",
    "Asks another service whether a request may pass (Traefik's `forwardAuth`, nginx's `auth_request`).",
    &[
        Key::new("address", Kind::NAME, "URL of the service: `http` or `https`, with its path.").required(),
        Key::new(
            "convention",
            Kind::Word(&["traefik", "nginx"]),
            "What answers other than 2xx mean. `traefik`: the client gets them as they are. `nginx`: it gets 401 and 403, \
             and any other is an error; the service is told `X-Original-URI` and `X-Original-Method` too.",
        )
        .default("traefik"),
        Key::new("timeout", Kind::TIMEOUT, "From the connect to the end of the answer.").default("3s"),
        Key::new(
            "status_on_error",
            Kind::integer(400, 599),
            "Status when the service gives no valid answer in time. No request passes then.",
        )
        .default("503"),
        Key::new("tls_verify", Kind::Bool, "Whether the service's certificate must verify.").default("true"),
        Key::new(
            "trust_forward_header",
            Kind::Bool,
            "Whether the service is told what `X-Forwarded-*` fields of a trusted proxy say, instead of what we see.",
        )
        .default("false"),
        Key::new("auth_request_headers", NAMES, "Fields of the request that the service gets; empty: all.")
            .default("[]"),
        Key::new(
            "auth_response_headers",
            NAMES,
            "Fields of the service's answer that the upstream gets. A client's own are removed in any case.",
        )
        .default("[]"),
        Key::new("auth_response_headers_regex", Kind::NAME, "The same, for all names that match."),
        Key::new("add_auth_cookies_to_response", Kind::STRINGS, "Cookies of a good answer that the client gets.")
            .default("[]"),
        Key::new("preserve_request_method", Kind::Bool, "Whether the service is asked with the request's method.")
            .default("false"),
        Key::new(
            "preserve_location_header",
            Kind::Bool,
            "Whether a `Location` without a host stays as it is, instead of being completed with the service's.",
        )
        .default("false"),
        Key::new(
            "max_response_body_size",
            Kind::Size { min: 0, max: 1 << 24 },
            "Largest body of the service's answer; a larger one is an error.",
        )
        .default("1MiB"),
        Key::new(
            "cache_ttl",
            Kind::seconds(0, 86_400),
            "How long a 2xx counts for equal requests, bare seconds; 0 asks each time.",
        )
        .default("0"),
        Key::new("cache_headers", NAMES, "Fields in which requests must be equal for that.")
            .default("[Authorization, Cookie]"),
        Key::new(
            "cache_uri",
            Kind::Bool,
            "Whether they must be equal in path and query too. Method and host always count.",
        )
        .default("true"),
        Key::new(
            "forward_body",
            Kind::Bool,
            "Whether the service gets the request's body. It is held in memory then, up to `limits.buffered_body`; nothing \
             is remembered of the answer.",
        )
        .default("false"),
        Key::new(
            "max_body_size",
            Kind::Size { min: 0, max: 1 << 30 },
            "Largest body that is sent to it; a request with a larger one is refused with 401, as in Traefik. Left out: \
             `limits.buffered_body` alone.",
        ),
        Key::new("header_field", Kind::NAME, "Where Traefik's log takes the user's name from.").ignored(),
    ],
);

/// Whose rules hold for answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Convention {
    Traefik,
    Nginx,
}

/// Compiled settings.
pub struct ForwardAuth {
    pub service: Arc<Service>,
    pub convention: Convention,
    pub timeout: Duration,
    pub status_on_error: u16,
    pub trusts_forwarded: bool,
    /// Empty for all.
    pub request_fields: Vec<String>,
    pub response_fields: Vec<String>,
    pub response_pattern: Option<Regex>,
    pub cookies: Vec<String>,
    pub keep_method: bool,
    pub keep_location: bool,
    pub response_max: usize,
    /// `None` where nothing is remembered.
    pub cache_ttl: Option<Duration>,
    pub cache_fields: Vec<String>,
    pub cache_uri: bool,
    pub forward_body: bool,
    pub body_max: usize,
    /// Tells instances apart.
    pub instance: u64,
    /// The same for the same settings.
    pub fingerprint: String,
}

/// What no service may say about the request that we send on.
const OURS: KnownSet = KnownSet::of(&[
    Known::Host,
    Known::ContentLength,
    Known::TransferEncoding,
    Known::Connection,
    Known::KeepAlive,
    Known::Te,
    Known::Trailer,
    Known::Upgrade,
    Known::Expect,
]);

fn compile(plugin: &config::Plugin, cx: &CompileCx<'_>, found: &Diagnostics) -> Option<Arc<dyn PluginSpec>> {
    Some(Arc::new(read(plugin, cx, found)?))
}

/// Reads the settings.
pub(super) fn read(plugin: &config::Plugin, cx: &CompileCx<'_>, found: &Diagnostics) -> Option<ForwardAuth> {
    let fields = plugin.fields(&SECTION, found);
    let response_fields = fields.strings("auth_response_headers");
    for name in &response_fields {
        if OURS.contains(Known::of(name.as_bytes())) {
            let fault = Fault::new(format!("{name:?} belongs to the message that the gateway makes"));
            fields.error("auth_response_headers", fault);
        }
    }
    let response_pattern = match fields.optional_string("auth_response_headers_regex") {
        None => None,
        // Names of fields do not depend on case.
        Some(text) => match Regex::new(&format!("(?i){text}")) {
            Ok(pattern) => Some(pattern),
            Err(error) => {
                fields.error("auth_response_headers_regex", Fault::new(error.to_string()));
                None
            }
        },
    };
    let verify = fields.bool("tls_verify");
    let service = Service::read(&fields, "address", verify)?;
    let ttl = fields.duration("cache_ttl");
    if !ttl.is_zero() && fields.bool("forward_body") {
        fields.error(
            "cache_ttl",
            "with `forward_body` the service is asked each time: no two bodies are known to be equal",
        );
    }
    let mut auth = ForwardAuth {
        convention: if fields.word("convention") == "nginx" {
            Convention::Nginx
        } else {
            Convention::Traefik
        },
        timeout: fields.duration("timeout"),
        status_on_error: fields.integer("status_on_error"),
        trusts_forwarded: fields.bool("trust_forward_header"),
        request_fields: fields.strings("auth_request_headers"),
        response_fields,
        response_pattern,
        cookies: fields.strings("add_auth_cookies_to_response"),
        keep_method: fields.bool("preserve_request_method"),
        keep_location: fields.bool("preserve_location_header"),
        response_max: usize::try_from(fields.size("max_response_body_size")).unwrap_or(usize::MAX),
        cache_ttl: (!ttl.is_zero()).then_some(ttl),
        cache_fields: fields.strings("cache_headers"),
        cache_uri: fields.bool("cache_uri"),
        forward_body: fields.bool("forward_body"),
        body_max: fields.optional_size("max_body_size").map_or(usize::MAX, |size| size as usize),
        instance: cx.instance,
        fingerprint: String::new(),
        service,
    };
    auth.fingerprint = format!(
        "{:?} {verify} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        auth.service.url,
        auth.convention,
        auth.trusts_forwarded,
        auth.request_fields,
        auth.response_fields,
        auth.response_pattern,
        (auth.keep_method, auth.cache_ttl, auth.cache_uri),
        auth.cache_fields,
    );
    Some(auth)
}
