//! `cors`: which scripts of other sites may read answers (Kong's plugin of the same name).
//!
//! Owns the answer to preflight requests and the fields that tell browsers who may read a response (Fetch standard,
//! section 3.3). It refuses nobody: a browser does, by what it is told. `origin` decides who is told what.
//!
//! **Invariant.** `*` and `Access-Control-Allow-Credentials` never stand in one answer; whatever depends on the origin
//! says so in `Vary`.

mod origin;

use std::any::Any;
use std::rc::Rc;
use std::sync::Arc;

use portcullis_config::schema::text;
use portcullis_config::{self as config, Diagnostics, Fields, Key, Kind, Section};

use super::{CompileCx, Content, Cx, Flow, Plugin, PluginSpec, Registration, Response};
use crate::http::{Head, Known, Method, RequestHead, ResponseHead};
use origin::{Origins, Told};

/// The plugin's line of the registry.
pub static REGISTRATION: Registration =
    Registration { name: "cors", priority: 2000, section: &SECTION, compile };

const METHODS: &[&str] = &["GET", "HEAD", "PUT", "PATCH", "POST", "DELETE", "OPTIONS", "TRACE", "CONNECT"];

/// The plugin's `config:`.
static SECTION: Section = Section::new(
    "cors",
    "Tells browsers which sites may use a service (cross-origin resource sharing). A route must match OPTIONS to have \
     its preflight requests answered.",
    &[
        Key::new(
            "origins",
            Kind::STRINGS,
            "Sites that may: `*`, an origin, or a regular expression for a whole origin (for a whole host name if it \
             has no colon). Left out: every site.",
        )
        .default("[]"),
        Key::new("methods", Kind::list(&const { Kind::Word(METHODS) }), "Methods that a site may use.")
            .default("[GET, HEAD, PUT, PATCH, POST, DELETE, OPTIONS, TRACE, CONNECT]"),
        Key::new(
            "headers",
            Kind::list(&HEADER_OR_ALL),
            "Request headers that a site may send. Left out: those that it asks for.",
        )
        .default("[]"),
        Key::new("exposed_headers", Kind::list(&HEADER_OR_ALL), "Response headers that a site may read.")
            .default("[]"),
        Key::new(
            "credentials",
            Kind::Bool,
            "Whether a site may send cookies and credentials. `*` in an answer becomes the site then.",
        )
        .default("false"),
        Key::new(
            "max_age",
            Kind::Integer { min: 0, max: i32::MAX as i64 },
            "Seconds that a browser may keep the answer to a preflight request.",
        ),
        Key::new("preflight_continue", Kind::Bool, "Whether the upstream answers preflight requests.")
            .default("false"),
        Key::new(
            "private_network",
            Kind::Bool,
            "Whether sites of the public network may use a service in a private one.",
        )
        .default("false"),
        Key::new(
            "allow_origin_absent",
            Kind::Bool,
            "Whether answers to requests without an `Origin` have the fields too.",
        )
        .default("true"),
    ],
);

/// A name, or `*`.
static HEADER_OR_ALL: Kind = Kind::Text(&text::HEADER_NAME);

fn compile(plugin: &config::Plugin, _: &CompileCx<'_>, found: &Diagnostics) -> Option<Arc<dyn PluginSpec>> {
    Some(Arc::new(Cors::read(&plugin.fields(&SECTION, found))))
}

/// Compiled settings, and the plugin itself: it keeps no state.
struct Cors {
    origins: Origins,
    methods: String,
    /// Empty: what the request asks for.
    headers: String,
    exposed: String,
    credentials: bool,
    max_age: Option<u64>,
    preflight_continue: bool,
    private_network: bool,
    origin_absent: bool,
}

impl Cors {
    fn read(fields: &Fields<'_>) -> Self {
        let origins = Origins::read(fields);
        if fields.bool("credentials") && origins.is_everybody() {
            fields
                .warning("credentials", "every site may send its visitors' credentials: list the `origins`");
        }
        Self {
            origins,
            methods: fields.words("methods").join(","),
            headers: fields.strings("headers").join(","),
            exposed: fields.strings("exposed_headers").join(","),
            credentials: fields.bool("credentials"),
            max_age: fields.optional_integer("max_age"),
            preflight_continue: fields.bool("preflight_continue"),
            private_network: fields.bool("private_network"),
            origin_absent: fields.bool("allow_origin_absent"),
        }
    }

    /// Who may read the answer. False where nobody is told of.
    fn tell_origin(&self, origin: Option<&[u8]>, out: &mut Head) {
        let told = self.origins.decide(origin);
        let (allowed, varies) = match (told, origin) {
            (Told::Everybody, Some(origin)) if self.credentials => (Some(origin), true),
            (Told::Everybody, _) => (Some(&b"*"[..]), false),
            (Told::One(origin), _) => (Some(origin), true),
            (Told::Nobody, _) => (None, true),
        };
        if varies {
            out.append_known(Known::Vary, "Origin");
        }
        let Some(allowed) = allowed else { return };
        out.append_known(Known::AccessControlAllowOrigin, allowed);
        if self.credentials && allowed != b"*" {
            out.append_known(Known::AccessControlAllowCredentials, "true");
        }
    }

    /// What a site may do, for a preflight request.
    fn tell_preflight(&self, request: &Head, out: &mut Head) {
        let asked = request.get_known(Known::AccessControlRequestHeaders);
        if !self.headers.is_empty() {
            out.append_known(Known::AccessControlAllowHeaders, &self.headers);
        } else if let Some(asked) = asked {
            out.append_known(Known::AccessControlAllowHeaders, asked);
        }
        out.append_known(Known::AccessControlAllowMethods, &self.methods);
        if let Some(seconds) = self.max_age {
            out.append_number(Known::AccessControlMaxAge.as_str(), seconds);
        }
        let asks = || request.get("Access-Control-Request-Private-Network") == Some(b"true");
        if self.private_network && asks() {
            out.append("Access-Control-Allow-Private-Network", "true");
        }
    }
}

impl PluginSpec for Cors {
    fn instantiate(self: Arc<Self>, _: Option<Rc<dyn Any>>) -> Rc<dyn Plugin> {
        Rc::new(OnShard(self))
    }
}

struct OnShard(Arc<Cors>);

impl Plugin for OnShard {
    fn on_request(&self, cx: &mut Cx<'_>, request: &mut RequestHead) -> Flow {
        let plugin = &*self.0;
        let head = &request.head;
        let origin = head.get_known(Known::Origin);
        let is_preflight = request.method() == Method::Options
            && origin.is_some()
            && head.get_known(Known::AccessControlRequestMethod).is_some();
        let out = &mut cx.response_fields;
        if is_preflight && plugin.preflight_continue || origin.is_none() && !plugin.origin_absent {
            return Flow::Continue;
        }
        plugin.tell_origin(origin, out);
        if is_preflight {
            plugin.tell_preflight(head, out);
            return Flow::Respond(Response::with_content(200, Content::empty()));
        }
        if !plugin.exposed.is_empty() {
            out.append_known(Known::AccessControlExposeHeaders, &plugin.exposed);
        }
        Flow::Continue
    }

    /// Where the site is not let in, what the upstream says of it does not count either.
    fn on_response(&self, cx: &mut Cx<'_>, head: &mut ResponseHead) {
        let told = &cx.response_fields;
        let decided = told.all_known(Known::Vary).any(|value| value == b"Origin");
        if decided && told.get_known(Known::AccessControlAllowOrigin).is_none() {
            head.head.remove_known(Known::AccessControlAllowOrigin);
            head.head.remove_known(Known::AccessControlAllowCredentials);
        }
    }

    fn sees_response(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
