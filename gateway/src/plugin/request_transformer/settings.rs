//! The keys of `request-transformer`, which are Kong's, and what is wrong with their values.

use std::sync::Arc;

use portcullis_config::{self as config, Diagnostics, Fault, Fields, Key, Kind, Section, schema::text};

use super::template::Template;
use super::{RequestTransformer, Uri};
use crate::http::path::{PathPolicy, normalise};
use crate::http::{FieldName, Known};
use crate::plugin::body::Places;
use crate::plugin::transform::{self, Reader, Side, Step, Text};
use crate::plugin::{CompileCx, PluginSpec};

pub(super) static REQUEST_TRANSFORMER: Section = Section::new(
    "request-transformer",
    "Changes requests before they go upstream: remove, rename, replace, add, append, in this order. A value may hold \
     `$(headers.name)`, `$(query_params.name)`, `$(uri_captures.name)`, `$(consumer.username)` and `$(claims.name)`, which \
     stand for what the client sent and who it is.",
    &[
        Key::new(
            "http_method",
            Kind::Text(&text::METHOD),
            "Method sent instead of the client's. For GET and HEAD the fields of a form go into the query too, as in Kong.",
        ),
        Key::new("remove", Kind::Section(&PARTS), "Names to remove."),
        Key::new("rename", Kind::Section(&PARTS), "`old:new` pairs of names."),
        Key::new("replace", Kind::Section(&REPLACE), "`name:value` pairs, set where the name is present."),
        Key::new("add", Kind::Section(&PARTS), "`name:value` pairs, set where the name is absent."),
        Key::new("append", Kind::Section(&PARTS), "`name:value` pairs, added in any case."),
        Key::new(
            "allow",
            Kind::Section(&ALLOW),
            "What of a body goes on, after the edits; everything if left out.",
        ),
        Key::new(
            "dots_in_keys",
            Kind::Bool,
            "Whether dots are part of the names in `body`, and nothing goes down in JSON. Left out: false, and true with \
             `defaults: kong`.",
        ),
    ],
);

const HEADERS: Key = Key::new("headers", Kind::STRINGS, "For headers.").default("[]");
const QUERY: Key = Key::new("querystring", Kind::STRINGS, "For parameters of the query.").default("[]");
const BODY: Key =
    Key::new(
        "body",
        Kind::STRINGS,
        "For fields of a JSON, form or multipart body. In JSON `a.b`, `a[0]` and `a[*].b` go down. A body is held in memory \
         for it, up to `limits.buffered_body`.",
    )
    .default("[]");

static PARTS: Section =
    Section::new("request-transformer.parts", "Parts of a request.", &[HEADERS, QUERY, BODY]);
static ALLOW: Section = Section::new(
    "request-transformer.allow",
    "What of a body goes on.",
    &[Key::new("body", Kind::STRINGS, "Fields of a JSON or form body; all others are removed.")
        .default("[]")],
);
static REPLACE: Section = Section::new(
    "request-transformer.replace",
    "Parts of a request, and its path.",
    &[
        HEADERS,
        QUERY,
        BODY,
        Key::new(
            "uri",
            Kind::NAME,
            "Path sent instead of the client's, without query: nothing is stripped from it or put before it.",
        ),
    ],
);

/// Compiles an instance. Every mistake is reported, not the first only.
pub(super) fn compile(
    plugin: &config::Plugin,
    _: &CompileCx<'_>,
    found: &Diagnostics,
) -> Option<Arc<dyn PluginSpec>> {
    let fields = plugin.fields(&REQUEST_TRANSFORMER, found);
    let mut headers = Headers::default();
    let mut edits = transform::read(&fields, "headers", &mut headers);
    let mut query = Query { templates: headers.templates };
    let query_edits = transform::read(&fields, "querystring", &mut query);
    let mut templates = query.templates;
    let lenient = plugin.defaults == config::Defaults::Kong;
    let dots_in_keys = fields.optional_bool("dots_in_keys").unwrap_or(lenient);
    let mut places = Places { value: |text: &str| value(text, &mut templates), dots_in_keys };
    let body = transform::read(&fields, "body", &mut places);
    let allow = transform::read_names(&fields.section("allow"), "body", &mut places);
    let is_host = |name: &FieldName| name.known() == Known::Host;
    let host = edits.replace.iter().rev().find(|(name, _)| is_host(name)).map(|(_, value)| value.clone());
    edits.replace.retain(|(name, _)| !is_host(name));
    if edits.add.iter().any(|(name, _)| is_host(name)) {
        let section = fields.section("add");
        let fault = Fault::new("'Host' is in every request, so adding it does nothing");
        section.warning("headers", fault.hint("write it under `replace`"));
        edits.add.retain(|(name, _)| !is_host(name));
    }
    Some(Arc::new(RequestTransformer {
        headers: edits,
        host,
        query: query_edits,
        uri: uri(&fields.section("replace")),
        method: method(&fields),
        body,
        allow,
        lenient,
        templates,
    }))
}

fn method(fields: &Fields<'_>) -> Option<Box<[u8]>> {
    let method = fields.optional_string("http_method")?;
    if matches!(&*method, "CONNECT" | "TRACE") {
        fields.error("http_method", format!("{method} is not supported"));
    }
    Some(method.into_bytes().into())
}

fn uri(fields: &Fields<'_>) -> Option<Uri> {
    let text = fields.optional_string("uri")?;
    let template = match Template::parse(&text) {
        Ok(template) => template,
        Err(fault) => {
            fields.error("uri", fault);
            return None;
        }
    };
    let Some(template) = template else {
        let path = normal_path(&text);
        if path.is_none() {
            fields.error(
                "uri",
                Fault::new(format!("{text:?} is not a path")).hint("it starts with `/` and has no query"),
            );
        }
        return path.map(Uri::Path);
    };
    // What stands between the look-ups must be the normal form already: what they yield is put in as data.
    let normal = |part: &[u8]| {
        normal_path(&format!("/{}", String::from_utf8_lossy(part))).is_some_and(|path| path[1..] == *part)
    };
    let start = template.literal_start();
    if !start.is_empty() && !start.starts_with(b"/") || !template.literals().all(normal) {
        fields.error(
            "uri",
            Fault::new(format!("{text:?} makes no path")).hint("write `/before/$(headers.x)/after`"),
        );
        return None;
    }
    Some(Uri::Template(template))
}

fn normal_path(text: &str) -> Option<Box<[u8]>> {
    let mut path = Vec::new();
    normalise(text.as_bytes(), &PathPolicy::default(), &mut path).ok()?;
    Some(path.into())
}

/// The value with its templates, which are kept under numbers.
fn value(text: &str, templates: &mut Vec<Template>) -> Result<Text, Fault> {
    Ok(match Template::parse(text)? {
        None => Text::Literal(text.as_bytes().into()),
        Some(template) => {
            templates.push(template);
            Text::Template(templates.len() - 1)
        }
    })
}

#[derive(Default)]
struct Headers {
    templates: Vec<Template>,
}

impl Reader for Headers {
    type Name = FieldName;

    fn name(&mut self, step: Step, text: &str) -> Result<FieldName, Fault> {
        transform::field_name(Side::Request, step, text)
    }

    fn value(&mut self, text: &str) -> Result<Text, Fault> {
        value(text, &mut self.templates)
    }
}

struct Query {
    templates: Vec<Template>,
}

impl Reader for Query {
    type Name = Box<[u8]>;

    fn name(&mut self, _: Step, text: &str) -> Result<Box<[u8]>, Fault> {
        match text {
            "" => Err(Fault::new("a parameter has a name")),
            _ if text.contains("$(") => {
                Err(Fault::new(format!("'{text}' is a template, which a name cannot be")))
            }
            _ => Ok(text.as_bytes().into()),
        }
    }

    fn value(&mut self, text: &str) -> Result<Text, Fault> {
        value(text, &mut self.templates)
    }
}
