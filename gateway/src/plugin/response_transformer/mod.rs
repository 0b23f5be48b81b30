//! `response-transformer`: header fields and JSON members of a response removed, renamed, replaced, added, appended.
//!
//! Owns the plugin's keys, which are those of Kong's advanced plugin too: `if_status`, `replace.body`, `allow.json`. The edits themselves are `transform`'s and `body`'s. It sees what upstreams answer, with the
//! fields that other plugins add to it; answers that the gateway makes pass by.
//!
//! An instance that edits JSON asks upstreams for whole bodies without coding (no `Accept-Encoding`, no `Range`), as it
//! could not look into others. JSON that is coded all the same, or is none, becomes a 502: what was to be removed must
//! not get out. With Kong's defaults it passes unchanged, as in Kong.
//!
//! **Invariant.** A response that is not JSON, or whose instance edits no JSON, is streamed.

use std::any::Any;
use std::rc::Rc;
use std::sync::Arc;

use portcullis_abi::Reason;
use portcullis_config::{self as config, Diagnostics, Fault, Fields, Key, Kind, Section};

use super::body::{self, Format, Place, Places, ValueKind};
use super::status::Statuses;
use super::transform::{self, Edits, Reader, Rendered, Side, Step, Text};
use super::{CompileCx, Cx, Flow, Plugin, PluginSpec, Registration, Response};
use crate::http::{FieldName, Known, Method, RequestHead, ResponseHead};

/// Kong's plugin of this name.
pub static REGISTRATION: Registration =
    Registration { name: "response-transformer", priority: 800, section: &RESPONSE_TRANSFORMER, compile };

static RESPONSE_TRANSFORMER: Section = Section::new(
    "response-transformer",
    "Changes response headers and JSON bodies: remove, rename, replace, add, append, in this order.",
    &[
        Key::new("remove", Kind::Section(&NAMES), "Names to remove."),
        Key::new("rename", Kind::Section(&NAMES), "`old:new` pairs of names."),
        Key::new("replace", Kind::Section(&REPLACE), "`name:value` pairs, set where the name is present."),
        Key::new("add", Kind::Section(&VALUES), "`name:value` pairs, set where the name is absent."),
        Key::new("append", Kind::Section(&VALUES), "`name:value` pairs, added in any case."),
        Key::new(
            "allow",
            Kind::Section(&ALLOW),
            "What of a JSON body goes on, after the edits; everything if left out.",
        ),
        Key::new(
            "dots_in_keys",
            Kind::Bool,
            "Whether dots are part of the names in `json`, and nothing goes down. Left out: false, and true with \
             `defaults: kong`.",
        ),
    ],
);

const IF_STATUS: Key = Key::new(
    "if_status",
    Kind::STRINGS,
    "Statuses (`404`) and ranges of them (`500-599`) that this is for. Empty: all.",
)
.default("[]");

const HEADERS: Key = Key::new("headers", Kind::STRINGS, "For headers.").default("[]");
const JSON: Key = Key::new(
    "json",
    Kind::STRINGS,
    "For members of a JSON body; `a.b`, `a[0]` and `a[*].b` go down. A body is held in memory for it, up to \
     `limits.buffered_body`.",
)
.default("[]");
const JSON_TYPES: Key = Key::new(
    "json_types",
    Kind::list(&const { Kind::Word(&["boolean", "number", "string"]) }),
    "Types of the values in `json`, one each; left out: string.",
)
.default("[]");

static NAMES: Section =
    Section::new("response-transformer.names", "Parts of a response, by name.", &[HEADERS, JSON, IF_STATUS]);
static VALUES: Section = Section::new(
    "response-transformer.values",
    "Parts of a response, with values.",
    &[HEADERS, JSON, JSON_TYPES, IF_STATUS],
);
static REPLACE: Section = Section::new(
    "response-transformer.replace",
    "Parts of a response, with values, and the body.",
    &[
        HEADERS,
        JSON,
        JSON_TYPES,
        IF_STATUS,
        Key::new("body", Kind::STRING, "Stands in place of the body, whatever its type."),
    ],
);
static ALLOW: Section = Section::new("response-transformer.allow", "What of a body goes on.", &[JSON]);

fn compile(plugin: &config::Plugin, _: &CompileCx<'_>, found: &Diagnostics) -> Option<Arc<dyn PluginSpec>> {
    let fields = plugin.fields(&RESPONSE_TRANSFORMER, found);
    let lenient = plugin.defaults == config::Defaults::Kong;
    let literal = |text: &str| Ok(Text::Literal(text.as_bytes().into()));
    let dots_in_keys = fields.optional_bool("dots_in_keys").unwrap_or(lenient);
    let mut places = Places { value: literal, dots_in_keys };
    let mut json = transform::read(&fields, "json", &mut places);
    for (step, pairs) in
        [("replace", &mut json.replace), ("add", &mut json.add), ("append", &mut json.append)]
    {
        type_values(&fields.section(step), pairs);
    }
    let headers = transform::read(&fields, "headers", &mut Literals);
    let replace = fields.section("replace");
    let body = replace
        .optional_string("body")
        .map(|text| (Statuses::read(&replace, "if_status"), text.into_bytes().into()));
    Some(Arc::new(ResponseTransformer {
        stages: stages(&fields, headers, json),
        body,
        allow: transform::read_names(&fields.section("allow"), "json", &mut places),
        lenient,
    }))
}

/// The edits in one piece, or each step by itself where they are for different statuses.
fn stages(fields: &Fields<'_>, headers: Edits<FieldName>, json: Edits<Place>) -> Vec<Stage> {
    let statuses = Step::ALL.map(|step| Statuses::read(&fields.section(step.as_str()), "if_status"));
    if statuses.iter().all(Statuses::is_every) {
        return vec![Stage { statuses: Statuses::default(), headers, json }];
    }
    let stage = |(step, statuses): (Step, Statuses)| Stage {
        statuses,
        headers: headers.only(step),
        json: json.only(step),
    };
    Step::ALL.into_iter().zip(statuses).map(stage).collect()
}

/// Gives each value the type that stands at its place in `json_types`.
fn type_values(fields: &Fields<'_>, pairs: &mut [(Place, Text)]) {
    let types = fields.words("json_types");
    for ((place, value), kind) in pairs.iter_mut().zip(types) {
        let kind = match kind {
            "number" => ValueKind::Number,
            "boolean" => ValueKind::Boolean,
            _ => ValueKind::String,
        };
        let Text::Literal(text) = &*value else { continue };
        if !kind.fits(text) {
            let text = String::from_utf8_lossy(text);
            fields.error(
                "json_types",
                format!("the value of `{}`, {text:?}, is of another type", place.text()),
            );
        }
        *place = place.clone().with_values(kind);
    }
}

/// Values that are what they say: Kong has no templates here either.
struct Literals;

impl Reader for Literals {
    type Name = FieldName;

    fn name(&mut self, step: Step, text: &str) -> Result<FieldName, Fault> {
        transform::field_name(Side::Response, step, text)
    }

    fn value(&mut self, text: &str) -> Result<Text, Fault> {
        Ok(Text::Literal(text.as_bytes().into()))
    }
}

/// Edits that are made on the same responses.
struct Stage {
    statuses: Statuses,
    headers: Edits<FieldName>,
    json: Edits<Place>,
}

struct ResponseTransformer {
    /// In the order in which they are made.
    stages: Vec<Stage>,
    /// What stands in place of the body, and of which responses.
    body: Option<(Statuses, Box<[u8]>)>,
    /// All that a JSON body may hold after the edits, unless empty.
    allow: Vec<Place>,
    /// What cannot be edited passes as it is.
    lenient: bool,
}

impl ResponseTransformer {
    /// Whether some response's JSON is edited.
    fn asks_for_json(&self) -> bool {
        !self.allow.is_empty() || self.stages.iter().any(|stage| !stage.json.is_empty())
    }

    fn stages_for(&self, status: u16) -> impl Iterator<Item = &Stage> {
        self.stages.iter().filter(move |stage| stage.statuses.include(status))
    }

    /// Whether the edits of JSON are about this response.
    fn edits_json(&self, head: &ResponseHead) -> bool {
        let is_json = || head.head.get_known(Known::ContentType).and_then(Format::of) == Some(Format::Json);
        let edited = || self.stages_for(head.status()).any(|stage| !stage.json.is_empty());
        (!self.allow.is_empty() || edited()) && is_json()
    }

    /// What stands in place of this response's body.
    fn other_body(&self, status: u16) -> Option<&[u8]> {
        let (statuses, body) = self.body.as_ref()?;
        statuses.include(status).then_some(body)
    }

    fn edit_json(&self, status: u16, body: &mut Vec<u8>) -> Result<(), body::Malformed> {
        for stage in self.stages_for(status).filter(|stage| !stage.json.is_empty()) {
            stage.json.apply_to_body(&Format::Json, body, &Rendered::new())?;
        }
        if self.allow.is_empty() { Ok(()) } else { body::allow_json(&self.allow, body) }
    }
}

/// Lies in the exchange of a HEAD request, whose response tells the length of a body that is not edited.
struct HeadOnly;

impl PluginSpec for ResponseTransformer {
    fn instantiate(self: Arc<Self>, _: Option<Rc<dyn Any>>) -> Rc<dyn Plugin> {
        Rc::new(Instance(self))
    }
}

struct Instance(Arc<ResponseTransformer>);

impl Plugin for Instance {
    fn on_request(&self, cx: &mut Cx<'_>, head: &mut RequestHead) -> Flow {
        let json = self.0.asks_for_json();
        if json {
            for name in ["Range", "If-Range"] {
                head.head.remove(name);
            }
            head.head.set("Accept-Encoding", "identity");
        }
        if (json || self.0.body.is_some()) && head.method() == Method::Head {
            cx.held.push(Box::new(HeadOnly));
        }
        Flow::Continue
    }

    fn on_response(&self, cx: &mut Cx<'_>, head: &mut ResponseHead) {
        const NOTHING: &Rendered = &Rendered::new();
        for stage in self.0.stages_for(head.status()) {
            stage.headers.apply(&mut head.head, NOTHING);
        }
        let replaced = self.0.other_body(head.status()).is_some();
        if replaced || self.0.edits_json(head) {
            body::drop_validators(&mut head.head);
            if cx.held.iter().any(|held| held.is::<HeadOnly>()) {
                head.head.remove_known(Known::ContentLength);
            }
        }
    }

    fn wants_response_body(&self, _: &Cx<'_>, head: &ResponseHead) -> bool {
        self.0.other_body(head.status()).is_some()
            || self.0.edits_json(head) && !(self.0.lenient && body::is_coded(&head.head))
    }

    fn on_response_body(
        &self,
        _: &mut Cx<'_>,
        head: &mut ResponseHead,
        body: &mut Vec<u8>,
    ) -> Result<(), Box<Response>> {
        if let Some(other) = self.0.other_body(head.status()) {
            head.head.remove("Content-Encoding");
            body.clear();
            body.extend_from_slice(other);
            return Ok(());
        }
        if body.is_empty() {
            return Ok(());
        }
        let refusal = || {
            Response::new(
                502,
                Reason::InvalidBody,
                "An invalid response was received from the upstream server",
            )
        };
        if body::is_coded(&head.head) {
            return Err(refusal());
        }
        match self.0.edit_json(head.status(), body) {
            Err(body::Malformed) if !self.0.lenient => Err(refusal()),
            _ => Ok(()),
        }
    }

    fn sees_response(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
