//! The tables as a JSON schema (draft 2020-12), for editors.
//!
//! Owns the translation. It is looser than the gateway where JSON schema has no words (references, regular
//! expressions) and never stricter, so an editor does not mark what `check` accepts.

use serde_json::{Map, Value as Json, json};

use super::reference::describe;
use super::{Key, Kind, PluginCatalog, Section, Status};
use crate::sections::ROOT;

/// The schema of a configuration file with the plugins of `catalog`.
pub fn json_schema(catalog: &dyn PluginCatalog) -> Json {
    let mut definitions = Map::new();
    let mut root = section(&ROOT, &mut definitions);
    let mut names = catalog.names();
    names.sort_unstable();
    let mut branches = Vec::new();
    for name in &names {
        let Some(found) = catalog.section(name) else { continue };
        let definition = format!("plugin.{name}");
        let schema = section(found, &mut definitions);
        definitions.insert(definition.clone(), schema);
        branches.push(json!({
            "if": {"properties": {"name": {"const": name}}},
            "then": {"properties": {"config": {"$ref": format!("#/$defs/{definition}")}}},
        }));
    }
    if let Some(Json::Object(plugin)) = definitions.get_mut("plugin") {
        plugin.insert("allOf".into(), Json::Array(branches));
        if let Some(name) = plugin.get_mut("properties").and_then(|all| all.get_mut("name")) {
            name["enum"] = json!(names);
        }
    }
    root["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    root["title"] = json!("Portcullis configuration");
    root["$defs"] = Json::Object(definitions);
    root
}

/// The schema of one section; sections inside it go to `definitions`.
fn section(section: &'static Section, definitions: &mut Map<String, Json>) -> Json {
    let mut properties = Map::new();
    for key in section.keys() {
        properties.insert(key.name.into(), of_key(key, definitions));
    }
    let required: Vec<_> = section.keys().filter(|key| key.required).map(|key| key.name).collect();
    let mut schema = json!({
        "type": "object",
        "description": section.doc,
        "properties": properties,
        "patternProperties": {"^(_comment|_ignore)$": {}},
        "additionalProperties": false,
    });
    if section.name == ROOT.name {
        schema["patternProperties"]["^x-"] = json!({});
    }
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn of_key(key: &'static Key, definitions: &mut Map<String, Json>) -> Json {
    let mut schema = of_kind(&key.kind, definitions);
    if schema.get("$ref").is_none() {
        // Absence may be written as null.
        schema = json!({"anyOf": [schema, {"type": "null"}]});
    }
    if matches!(key.status, Status::Deprecated(_)) {
        schema["deprecated"] = json!(true);
    }
    schema["description"] = json!(describe(key));
    schema
}

fn of_kind(kind: &Kind, definitions: &mut Map<String, Json>) -> Json {
    /// `${env:..}` may stand where a number is expected.
    fn or_reference(schema: Json) -> Json {
        json!({"anyOf": [schema, {"type": "string", "pattern": "\\$\\{"}]})
    }
    match kind {
        Kind::Bool => or_reference(json!({"type": "boolean"})),
        Kind::Integer { min, max } => {
            or_reference(json!({"type": "integer", "minimum": min, "maximum": max}))
        }
        Kind::Number { min, max } => or_reference(json!({"type": "number", "minimum": min, "maximum": max})),
        Kind::Text(text) => match text.pattern {
            Some(pattern) => json!({"type": "string", "pattern": format!("{pattern}|\\$\\{{|^\\{{vault:")}),
            None => json!({"type": "string"}),
        },
        Kind::Duration { .. } | Kind::Size { .. } => {
            json!({"type": ["string", "number"], "pattern": "^[0-9.$]"})
        }
        Kind::Rate => json!({"type": "string", "pattern": "^[0-9]+ */|\\$\\{"}),
        Kind::Word(words) => {
            // `426` and `1.2` are words here and numbers in JSON.
            let numbers =
                words.iter().filter_map(|word| serde_json::from_str::<serde_json::Number>(word).ok());
            let all: Vec<Json> =
                words.iter().map(|word| json!(word)).chain(numbers.map(Json::Number)).collect();
            or_reference(json!({"enum": all}))
        }
        Kind::Cidr | Kind::SocketAddress => json!({"type": "string"}),
        Kind::List { of, max } => {
            json!({"type": "array", "maxItems": max, "items": of_kind(of, definitions)})
        }
        Kind::Map { of, .. } => json!({"type": "object", "additionalProperties": of_kind(of, definitions)}),
        Kind::Section(inner) => {
            // A reference is a URI, which has no spaces.
            let name = inner.name.replace(' ', "-");
            if !definitions.contains_key(&name) {
                // The entry must exist before its content is made: sections may nest through each other.
                definitions.insert(name.clone(), Json::Null);
                let schema = section(inner, definitions);
                definitions.insert(name.clone(), schema);
            }
            json!({"$ref": format!("#/$defs/{name}")})
        }
        Kind::Reference(entity) => {
            let keys: Map<String, Json> = entity
                .reference_keys()
                .iter()
                .map(|key| ((*key).into(), json!({"type": "string"})))
                .collect();
            json!({"anyOf": [{"type": "string"}, {"type": "object", "properties": keys, "additionalProperties": false}]})
        }
        Kind::Either(kinds) => {
            let all: Vec<_> = kinds.iter().map(|kind| of_kind(kind, definitions)).collect();
            json!({"anyOf": all})
        }
        Kind::Any => json!({}),
    }
}
