//! `request-validator`: lets through only requests whose body and parameters are as a JSON Schema says (Kong's plugin of
//! the same name; JSON Schema alone, not Kong's own language for schemas).
//!
//! Owns the choice of what is validated and the answer. The schemas are the `jsonschema` crate's, which is built without
//! its features that fetch anything: a reference to another place is a mistake of the configuration.
//!
//! **Invariant.** A body that cannot be looked into (coded, too large, of another type) is refused, never let through.

use std::any::Any;
use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use jsonschema::{Draft, Validator};
use portcullis_abi::Reason;
use portcullis_config::{self as config, Diagnostics, Fault, Fields, Key, Kind, Section};
use serde_json::Value;

use super::body::is_coded;
use super::{CompileCx, Cx, Flow, Plugin, PluginSpec, Registration, Response};
use crate::http::h1::BodyFraming;
use crate::http::{FieldName, Known, Method, RequestHead};

/// The plugin's line of the registry.
pub static REGISTRATION: Registration =
    Registration { name: "request-validator", priority: 999, section: &SECTION, compile };

static SECTION: Section = Section::new(
    "request-validator",
    "Lets requests through whose body and parameters are as schemas say.",
    &[
        Key::new("body_schema", Kind::NAME, "JSON Schema of the body, as a text in JSON."),
        Key::new(
            "version",
            Kind::Word(&["draft4", "draft6", "draft7", "draft201909", "draft202012"]),
            "Version of JSON Schema. Kong's own language is not read.",
        )
        .default("draft202012")
        .kong_default("draft4"),
        Key::new(
            "allowed_content_types",
            Kind::STRINGS,
            "Types of bodies; parameters of a type do not matter. Bodies of JSON types are validated, others are only let \
             through by their type.",
        )
        .default("[application/json]"),
        Key::new("content_type_parameter_validation", Kind::Any, "Whether parameters of types matter.").ignored(),
        Key::new("parameter_schema", Kind::list(&const { Kind::Section(&PARAMETER) }), "Schemas of parameters."),
        Key::new("verbose_response", Kind::Bool, "Whether the answer says what is wrong.").default("false"),
    ],
);

static PARAMETER: Section = Section::new(
    "request-validator.parameter_schema",
    "The schema of one parameter.",
    &[
        Key::new("in", Kind::Word(&["query", "header", "path"]), "Where it is; `path` is kept for later.")
            .required(),
        Key::new("name", Kind::NAME, "Its name.").required(),
        Key::new("required", Kind::Bool, "Whether it must be there.").default("false"),
        Key::new("schema", Kind::NAME, "JSON Schema of its value, as a text in JSON."),
        Key::new("style", Kind::STRING, "How lists and objects are written.").reserved(),
        Key::new("explode", Kind::Bool, "Whether lists are several parameters.").reserved(),
    ],
);

fn compile(plugin: &config::Plugin, _: &CompileCx<'_>, found: &Diagnostics) -> Option<Arc<dyn PluginSpec>> {
    let fields = plugin.fields(&SECTION, found);
    let draft = match fields.word("version") {
        "draft4" => Draft::Draft4,
        "draft6" => Draft::Draft6,
        "draft7" => Draft::Draft7,
        "draft201909" => Draft::Draft201909,
        _ => Draft::Draft202012,
    };
    let body = match fields.optional_string("body_schema") {
        Some(text) => Some(schema(&fields, "body_schema", &text, draft)?.0),
        None => None,
    };
    let parameters: Option<Vec<_>> =
        fields.sections("parameter_schema").iter().map(|section| parameter(section, draft)).collect();
    let parameters = parameters?;
    if body.is_none() && parameters.is_empty() && !fields.has_unknown_keys() {
        let origin = fields.origin();
        let fault = Fault::new("at least one of `body_schema` and `parameter_schema` is given");
        found.error(origin.span, &origin.path, fault);
    }
    let types = fields.strings("allowed_content_types");
    Some(Arc::new(RequestValidator {
        body,
        parameters,
        types: types.into_iter().map(|one| media_type(one.as_bytes())).collect(),
        verbose: fields.bool("verbose_response"),
    }))
}

/// The compiled schema and its text as a value.
fn schema(fields: &Fields<'_>, key: &str, text: &str, draft: Draft) -> Option<(Validator, Value)> {
    let value: Value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(error) => {
            fields.error(key, format!("the schema is no JSON: {error}"));
            return None;
        }
    };
    if value.is_array() {
        let fault = Fault::new("this is Kong's own language for schemas, which is not read");
        fields.error(key, fault.hint("write JSON Schema, as in `{\"type\": \"object\"}`"));
        return None;
    }
    match jsonschema::options().with_draft(draft).build(&value) {
        Ok(validator) => Some((validator, value)),
        Err(error) => {
            fields.error(key, format!("the schema is not valid: {error}"));
            None
        }
    }
}

fn parameter(fields: &Fields<'_>, draft: Draft) -> Option<Parameter> {
    let name = fields.string("name");
    let place = match fields.optional_word("in")? {
        "query" => Place::Query(name.clone().into_bytes()),
        "header" => match FieldName::new(&name) {
            Some(field) => Place::Header(field),
            None => {
                fields.error("name", format!("{name:?} is not a header name"));
                return None;
            }
        },
        _ => {
            fields.error("in", "parameters of paths are not validated yet");
            return None;
        }
    };
    let schema = match fields.optional_string("schema") {
        Some(text) => Some(schema(fields, "schema", &text, draft)?),
        None => None,
    };
    Some(Parameter { place, name, required: fields.bool("required"), schema })
}

struct RequestValidator {
    body: Option<Validator>,
    parameters: Vec<Parameter>,
    /// In lower case, without parameters.
    types: Vec<Vec<u8>>,
    verbose: bool,
}

struct Parameter {
    place: Place,
    name: String,
    required: bool,
    schema: Option<(Validator, Value)>,
}

enum Place {
    Query(Vec<u8>),
    Header(FieldName),
}

impl Parameter {
    /// What is wrong with it.
    fn fault(&self, request: &RequestHead) -> Option<String> {
        let text = match &self.place {
            Place::Query(name) => request.parameter(name),
            Place::Header(name) => request.head.get_field(name).map(Cow::Borrowed),
        };
        let Some(text) = text else {
            return self.required.then(|| format!("{}: is missing", self.name));
        };
        let (validator, schema) = self.schema.as_ref()?;
        let Ok(text) = std::str::from_utf8(&text) else { return Some(format!("{}: is no text", self.name)) };
        let value = typed(text, schema);
        let error = validator.validate(&value).err()?;
        Some(format!("{}: {}", self.name, error.masked()))
    }
}

/// A parameter is a text; where the schema asks for something else, what the text says.
fn typed(text: &str, schema: &Value) -> Value {
    let asks = |kind: &str| match &schema["type"] {
        Value::String(one) => one == kind,
        Value::Array(all) => all.iter().any(|one| one == kind),
        _ => false,
    };
    let other = ["integer", "number", "boolean", "null", "array", "object"].into_iter().any(asks);
    match serde_json::from_str(text) {
        Ok(value) if other && !matches!(value, Value::String(_)) => value,
        _ => Value::String(text.to_owned()),
    }
}

fn media_type(content_type: &[u8]) -> Vec<u8> {
    let end = content_type.iter().position(|&byte| byte == b';').unwrap_or(content_type.len());
    content_type[..end].trim_ascii().to_ascii_lowercase()
}

impl RequestValidator {
    fn refuse(&self, status: u16, message: &'static str, detail: Option<String>) -> Flow {
        let message: Cow<'static, str> = match detail {
            Some(detail) if self.verbose => detail.into(),
            _ => message.into(),
        };
        Flow::Respond(Response::new(status, Reason::InvalidBody, message))
    }

    /// Whether the body is JSON that is to be validated.
    fn validates(&self, cx: &Cx<'_>, request: &RequestHead) -> bool {
        let content_type = request.head.get_known(Known::ContentType).map(media_type);
        let json = content_type.is_none_or(|one| one == b"application/json" || one.ends_with(b"+json"));
        // A body that is left out is as wrong as one that does not fit.
        self.body.is_some()
            && json
            && (cx.body != BodyFraming::None
                || matches!(request.method(), Method::Post | Method::Put | Method::Patch))
    }
}

impl PluginSpec for RequestValidator {
    fn instantiate(self: Arc<Self>, _: Option<Rc<dyn Any>>) -> Rc<dyn Plugin> {
        Rc::new(OnShard(self))
    }
}

struct OnShard(Arc<RequestValidator>);

impl Plugin for OnShard {
    fn on_request(&self, cx: &mut Cx<'_>, request: &mut RequestHead) -> Flow {
        let plugin = &*self.0;
        if let Some(fault) = plugin.parameters.iter().find_map(|parameter| parameter.fault(request)) {
            return plugin.refuse(400, "request param doesn't conform to schema", Some(fault));
        }
        if plugin.body.is_none() || cx.body == BodyFraming::None {
            return Flow::Continue;
        }
        let content_type = request.head.get_known(Known::ContentType).map(media_type).unwrap_or_default();
        if !plugin.types.contains(&content_type) {
            return plugin.refuse(400, "specified Content-Type is not allowed", None);
        }
        if is_coded(&request.head) {
            return plugin.refuse(415, "Unsupported content coding", None);
        }
        Flow::Continue
    }

    fn wants_request_body(&self, cx: &Cx<'_>, request: &RequestHead) -> bool {
        self.0.validates(cx, request)
    }

    fn on_request_body(&self, _: &mut Cx<'_>, _: &mut RequestHead, body: &mut Vec<u8>) -> Flow {
        let plugin = &*self.0;
        let Some(validator) = &plugin.body else { return Flow::Continue };
        const MESSAGE: &str = "request body doesn't conform to schema";
        match serde_json::from_slice::<Value>(body) {
            Err(error) => plugin.refuse(400, MESSAGE, Some(format!("no JSON: {error}"))),
            Ok(value) => match validator.validate(&value) {
                Ok(()) => Flow::Continue,
                Err(error) => {
                    let at = error.instance_path().to_string();
                    plugin.refuse(400, MESSAGE, Some(format!("{at}: {}", error.masked())))
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::fixture::{Fixture, request};

    /// The status and message of the refusal.
    fn send(settings: &str, head: &str, body: &str) -> Option<(u16, String)> {
        let fixture = Fixture::default();
        let plugin = fixture.accepted("request-validator", settings);
        let mut head = request(head);
        let mut cx = fixture.cx();
        cx.body = if body.is_empty() { BodyFraming::None } else { BodyFraming::Length(body.len() as u64) };
        let refused = |flow: Flow| match flow {
            Flow::Respond(answer) => Some((answer.status, answer.message.into_owned())),
            _ => None,
        };
        refused(plugin.on_request(&mut cx, &mut head)).or_else(|| {
            let wants = plugin.wants_request_body(&cx, &head);
            wants
                .then(|| refused(plugin.on_request_body(&mut cx, &mut head, &mut body.as_bytes().to_vec())))?
        })
    }

    const POST: &str = "POST /a?page=3 HTTP/1.1\nHost: a\nContent-Type: application/json; charset=utf-8";
    const SCHEMA: &str = r#"{body_schema: '{"type":"object","required":["name"],"properties":{"name":{"type":"string","maxLength":3}}}'}"#;

    #[test]
    fn bodies_are_held_to_their_schema() {
        let wrong = Some((400, "request body doesn't conform to schema".to_owned()));
        assert_eq!(send(SCHEMA, POST, r#"{"name":"ann"}"#), None);
        for body in [r#"{"name":"anne"}"#, r#"{}"#, "[]", "{", r#"{"name":1}"#, ""] {
            assert_eq!(send(SCHEMA, POST, body), wrong, "{body}");
        }
        assert_eq!(send(SCHEMA, "GET / HTTP/1.1\nHost: a", ""), None);
    }

    #[test]
    fn what_cannot_be_looked_into_is_refused() {
        let text = "POST / HTTP/1.1\nHost: a\nContent-Type: text/plain";
        assert_eq!(send(SCHEMA, text, "x"), Some((400, "specified Content-Type is not allowed".to_owned())));
        assert_eq!(send(SCHEMA, "POST / HTTP/1.1\nHost: a", "{}").map(|one| one.0), Some(400));
        let gzip = format!("{POST}\nContent-Encoding: gzip");
        assert_eq!(send(SCHEMA, &gzip, "{}").map(|one| one.0), Some(415));
    }

    #[test]
    fn parameters_are_read_as_their_schema_asks() {
        let settings = r#"{verbose_response: true, parameter_schema: [{in: query, name: page, required: true, schema: '{"type":"integer","maximum":5}'}, {in: header, name: X-Kind, schema: '{"enum":["a","b"]}'}]}"#;
        let get = |query: &str, kind: &str| {
            send(settings, &format!("GET /{query} HTTP/1.1\nHost: a\nX-Kind: {kind}"), "").map(|one| one.1)
        };
        assert_eq!(get("?page=3", "a"), None);
        assert_eq!(get("", "a").as_deref(), Some("page: is missing"));
        assert!(get("?page=9", "a").expect("too large").starts_with("page: "));
        assert!(get("?page=x", "a").is_some() && get("?page=3", "c").is_some());
    }

    #[test]
    fn wrong_schemas_are_refused_with_their_place() {
        let fixture = Fixture::default();
        for (settings, said) in [
            ("{}", "at least one of `body_schema`"),
            ("{body_schema: '{'}", "the schema is no JSON"),
            (r#"{body_schema: '[{"name":{"type":"string"}}]'}"#, "Kong's own language"),
            (r#"{body_schema: '{"type":"strin"}'}"#, "the schema is not valid"),
            (r#"{body_schema: '{"$ref":"https://example.com/schema.json"}'}"#, "the schema is not valid"),
            ("{parameter_schema: [{in: path, name: id}]}", "not validated yet"),
        ] {
            let error = fixture.refused("request-validator", settings);
            assert!(error.contains(said), "{settings}: {error}");
        }
    }
}
