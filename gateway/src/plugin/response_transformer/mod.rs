//! `response-transformer`: header fields of a response removed, renamed, replaced, added, appended.
//!
//! Owns the plugin's keys. The edits themselves are `transform`'s. It sees what upstreams answer, with the fields that
//! other plugins add to it; answers that the gateway makes pass by.
//!
//! **Invariant.** The body and its framing are left alone.

use std::any::Any;
use std::rc::Rc;
use std::sync::Arc;

use portcullis_config::{self as config, Diagnostics, Fault, Key, Kind, Section};

use super::transform::{self, Edits, Reader, Rendered, Side, Step, Text};
use super::{CompileCx, Cx, Plugin, PluginSpec, Registration};
use crate::http::{FieldName, ResponseHead};

/// Kong's plugin of this name.
pub static REGISTRATION: Registration =
    Registration { name: "response-transformer", priority: 800, section: &RESPONSE_TRANSFORMER, compile };

static RESPONSE_TRANSFORMER: Section = Section::new(
    "response-transformer",
    "Changes response headers: remove, rename, replace, add, append, in this order.",
    &[
        Key::new("remove", Kind::Section(&NAMES), "Names to remove."),
        Key::new("rename", Kind::Section(&NAMES), "`old:new` pairs of names."),
        Key::new("replace", Kind::Section(&VALUES), "`name:value` pairs, set where the name is present."),
        Key::new("add", Kind::Section(&VALUES), "`name:value` pairs, set where the name is absent."),
        Key::new("append", Kind::Section(&VALUES), "`name:value` pairs, added in any case."),
    ],
);

const HEADERS: Key = Key::new("headers", Kind::STRINGS, "For headers.").default("[]");
const JSON: Key = Key::new("json", Kind::STRINGS, "For fields of a JSON body; not made yet.").default("[]");
const JSON_TYPES: Key = Key::new(
    "json_types",
    Kind::list(&const { Kind::Word(&["boolean", "number", "string"]) }),
    "Types of the values in `json`.",
)
.default("[]");

static NAMES: Section =
    Section::new("response-transformer.names", "Parts of a response, by name.", &[HEADERS, JSON]);
static VALUES: Section = Section::new(
    "response-transformer.values",
    "Parts of a response, with values.",
    &[HEADERS, JSON, JSON_TYPES],
);

fn compile(plugin: &config::Plugin, _: &CompileCx<'_>, found: &Diagnostics) -> Option<Arc<dyn PluginSpec>> {
    let fields = plugin.fields(&RESPONSE_TRANSFORMER, found);
    transform::warn_of_bodies(&fields, "json");
    Some(Arc::new(ResponseTransformer { edits: transform::read(&fields, "headers", &mut Literals) }))
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

struct ResponseTransformer {
    edits: Edits<FieldName>,
}

impl PluginSpec for ResponseTransformer {
    fn instantiate(self: Arc<Self>, _: Option<Rc<dyn Any>>) -> Rc<dyn Plugin> {
        Rc::new(Instance(self))
    }
}

struct Instance(Arc<ResponseTransformer>);

impl Plugin for Instance {
    fn on_response(&self, _: &mut Cx<'_>, head: &mut ResponseHead) {
        const NOTHING: &Rendered = &Rendered::new();
        self.0.edits.apply(&mut head.head, NOTHING);
    }

    fn sees_response(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
