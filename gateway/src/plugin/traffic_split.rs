//! `traffic-split`: divides the requests of a route among services (Traefik's weighted services, Envoy's
//! `weighted_clusters`).
//!
//! Owns the choice. First the rules, of which the first that holds decides; then the cookie, by which a client stays
//! where it was; then the weights.
//!
//! **Invariant.** A service without weight gets nobody but by a rule.

use std::any::Any;
use std::rc::Rc;
use std::sync::Arc;

use portcullis_config::{self as config, Diagnostics, Fields, Key, Kind, Section, schema::text};

use super::canary::service_named;
use super::share::{By, Turns, WORDS, cookie, headers, weighted};
use super::{CompileCx, Cx, Destination, Flow, Plugin, PluginSpec, Registration};
use crate::http::{FieldName, Known, RequestHead};
use crate::id::ServiceId;

/// The plugin's line of the registry: after `canary`, whose choice it leaves.
pub static REGISTRATION: Registration =
    Registration { name: "traffic-split", priority: 12, section: &SECTION, compile };

static SECTION: Section = Section::new(
    "traffic-split",
    "Divides requests among services by weight.",
    &[
        Key::new("services", Kind::list(&const { Kind::Section(&PART) }), "The services and their weights.")
            .required(),
        Key::new(
            "rules",
            Kind::list(&const { Kind::Section(&RULE) }),
            "Who goes where whatever the weights; the first that holds decides.",
        )
        .default("[]"),
        Key::new(
            "hash",
            Kind::Word(WORDS),
            "What decides into whose part a request falls; `none`: turns do.",
        )
        .default("none"),
        super::share::HASH_NAME,
        Key::new("sticky", Kind::Section(&STICKY), "A cookie that keeps a client where it was."),
        Key::new(
            "fallback",
            Kind::Bool,
            "Whether the route's own service serves while no target of the chosen one may be tried.",
        )
        .default("false"),
    ],
);

static PART: Section = Section::new(
    "traffic-split.services",
    "One service.",
    &[
        Key::new("service", Kind::NAME, "Its name.").required(),
        Key::new("weight", Kind::integer(0, 65_535), "Its part of the sum of all weights.").default("1"),
    ],
);

static RULE: Section = Section::new(
    "traffic-split.rules",
    "A rule; everything in it has to hold.",
    &[
        Key::new("service", Kind::NAME, "Where such requests go.").required(),
        Key::new(
            "headers",
            Kind::Map { keys: &text::NAME, of: &Kind::STRING },
            "Headers with the values that they must have.",
        )
        .default("{}"),
        Key::new(
            "cookies",
            Kind::Map { keys: &text::NAME, of: &Kind::STRING },
            "Cookies with the values that they must have.",
        )
        .default("{}"),
    ],
);

static STICKY: Section = Section::new(
    "traffic-split.sticky",
    "The cookie.",
    &[
        Key::new("name", Kind::Text(&text::HEADER_NAME), "Its name.").required(),
        Key::new("secure", Kind::Bool, "Whether it is sent over HTTPS only.").default("false"),
        Key::new("http_only", Kind::Bool, "Whether scripts do not see it.").default("true"),
        Key::new("same_site", Kind::Word(&["none", "lax", "strict"]), "Its `SameSite`."),
        Key::new(
            "max_age",
            Kind::integer(0, 315_360_000),
            "Its life in seconds; left out: until the browser is closed.",
        ),
        Key::new("path", Kind::Text(&text::PATH), "Its path.").default("/"),
    ],
);

fn compile(plugin: &config::Plugin, cx: &CompileCx<'_>, found: &Diagnostics) -> Option<Arc<dyn PluginSpec>> {
    let fields = plugin.fields(&SECTION, found);
    let service = |fields: &Fields<'_>| {
        let name = fields.optional_string("service")?;
        Some((service_named(fields, "service", &name, cx.config)?, name))
    };
    let parts: Option<Vec<Part>> = fields
        .sections("services")
        .iter()
        .map(|fields| {
            let (service, name) = service(fields)?;
            Some(Part { service, weight: fields.integer("weight"), tag: tag(&name) })
        })
        .collect();
    let parts = parts?;
    if parts.iter().all(|part| part.weight == 0) {
        fields.error("services", "no service has a weight, so no request could be served");
        return None;
    }
    let rules: Option<Vec<Rule>> =
        fields.sections("rules").iter().map(|fields| rule(fields, service(fields)?.0)).collect();
    Some(Arc::new(TrafficSplit {
        parts,
        rules: rules?,
        by: By::read(&fields)?,
        sticky: fields.optional_section("sticky").and_then(|fields| sticky(&fields)),
        falls_back: fields.bool("fallback"),
    }))
}

fn rule(fields: &Fields<'_>, service: ServiceId) -> Option<Rule> {
    Some(Rule { service, headers: headers(fields)?, cookies: fields.map("cookies") })
}

fn sticky(fields: &Fields<'_>) -> Option<Sticky> {
    let mut attributes = format!("; Path={}", fields.string("path"));
    if let Some(age) = fields.optional_integer::<u32>("max_age") {
        attributes += &format!("; Max-Age={age}");
    }
    if fields.bool("secure") {
        attributes += "; Secure";
    }
    if fields.bool("http_only") {
        attributes += "; HttpOnly";
    }
    match fields.optional_word("same_site") {
        Some("none") => attributes += "; SameSite=None",
        Some("lax") => attributes += "; SameSite=Lax",
        Some("strict") => attributes += "; SameSite=Strict",
        _ => {}
    }
    Some(Sticky { name: fields.optional_string("name")?, attributes })
}

/// What a cookie says in place of a service's name, which is nobody's business.
fn tag(name: &str) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    ("split", name).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

struct Part {
    service: ServiceId,
    weight: u32,
    tag: String,
}

struct Rule {
    service: ServiceId,
    headers: Vec<(FieldName, String)>,
    cookies: Vec<(String, String)>,
}

impl Rule {
    fn holds(&self, request: &RequestHead) -> bool {
        let header = |(name, value): &(FieldName, String)| {
            request.head.get_field(name).is_some_and(|own| own == value.as_bytes())
        };
        let has = |(name, value): &(String, String)| {
            cookie(request, name).is_some_and(|own| own == value.as_bytes())
        };
        self.headers.iter().all(header) && self.cookies.iter().all(has)
    }
}

struct Sticky {
    name: String,
    /// From the first semicolon on.
    attributes: String,
}

struct TrafficSplit {
    parts: Vec<Part>,
    rules: Vec<Rule>,
    by: By,
    sticky: Option<Sticky>,
    falls_back: bool,
}

impl PluginSpec for TrafficSplit {
    fn instantiate(self: Arc<Self>, _: Option<Rc<dyn Any>>) -> Rc<dyn Plugin> {
        Rc::new(OnShard { spec: self, turns: Turns::default() })
    }
}

struct OnShard {
    spec: Arc<TrafficSplit>,
    turns: Turns,
}

impl OnShard {
    fn choose(&self, cx: &mut Cx<'_>, request: &RequestHead) -> Option<ServiceId> {
        let spec = &*self.spec;
        if let Some(rule) = spec.rules.iter().find(|rule| rule.holds(request)) {
            return Some(rule.service);
        }
        if let Some(sticky) = &spec.sticky
            && let Some(tag) = cookie(request, &sticky.name)
            && let Some(part) = spec.parts.iter().find(|part| part.tag.as_bytes() == tag && part.weight > 0)
        {
            return Some(part.service);
        }
        let point = spec.by.point(cx, request, &self.turns);
        let part = &spec.parts[weighted(spec.parts.iter().map(|part| part.weight), point)?];
        if let Some(sticky) = &spec.sticky {
            let value =
                [sticky.name.as_bytes(), b"=", part.tag.as_bytes(), sticky.attributes.as_bytes()].concat();
            cx.response_fields.append_known(Known::SetCookie, value);
        }
        Some(part.service)
    }
}

impl Plugin for OnShard {
    fn on_request(&self, cx: &mut Cx<'_>, request: &mut RequestHead) -> Flow {
        if cx.destination.is_none()
            && let Some(service) = self.choose(cx, request)
        {
            cx.destination = Some(Destination { service, falls_back: self.spec.falls_back });
        }
        Flow::Continue
    }
}
