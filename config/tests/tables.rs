//! The tables are right in themselves: defaults fit their kinds, names are unique, docs are there, and the JSON
//! schema has all of it.

mod catalog;

use catalog::CATALOG;
use portcullis_config::schema::{Status, reference};
use portcullis_config::sections::ROOT;
use portcullis_config::{Defaults, Kind, PluginCatalog, Section, Severity, json_schema, read_section};
use serde_json::Value;

fn sections() -> Vec<&'static Section> {
    reference::sections(&CATALOG)
}

#[test]
fn names_are_unique_and_docs_are_sentences() {
    let mut names: Vec<_> = sections().into_iter().map(|section| section.name).collect();
    names.sort_unstable();
    let all = names.clone();
    names.dedup();
    assert_eq!(names, all, "two sections have one name");
    for section in sections() {
        let mut names: Vec<_> = section.keys().map(|key| key.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "{} has a key twice", section.name);
        for key in section.keys() {
            let place = format!("{}.{}", section.name, key.name);
            assert!(key.doc.ends_with('.'), "{place}: {:?}", key.doc);
            assert!(!(key.required && key.default.is_some()), "{place} is required and has a default");
            assert!(key.kong_default.is_none() || key.kong_default != key.default, "{place}");
            if let Status::Deprecated(hint) = key.status {
                assert!(!hint.is_empty(), "{place}");
            }
        }
    }
}

/// A default that the gateway would refuse if it were written is a mistake in the table.
#[test]
fn defaults_fit_their_kinds() {
    for section in sections() {
        for key in section.keys() {
            for text in [key.default, key.kong_default].into_iter().flatten().filter(|text| !text.is_empty())
            {
                let quoted = matches!(key.kind, Kind::Text(_)).then(|| format!("{text:?}"));
                let yaml = format!("{}: {}", key.name, quoted.as_deref().unwrap_or(text));
                let checked = read_section(&yaml, section, Defaults::Portcullis, |_| ());
                let found = checked.err().unwrap_or_default();
                let errors = found.iter().filter(|one| one.severity == Severity::Error);
                let about: Vec<_> = errors.filter(|one| one.path.ends_with(key.name)).collect();
                assert!(about.is_empty(), "{}.{}: {about:?}", section.name, key.name);
            }
        }
    }
}

#[test]
fn the_json_schema_has_every_key_and_no_loose_reference() {
    let schema = json_schema(&CATALOG);
    let definitions = schema["$defs"].as_object().expect("definitions");
    for section in sections() {
        let own = if section.name == ROOT.name {
            Some(&schema)
        } else {
            definitions.get(&section.name.replace(' ', "-"))
        };
        let own = own.or_else(|| definitions.get(&format!("plugin.{}", section.name)));
        let properties =
            own.unwrap_or_else(|| panic!("{} is missing", section.name))["properties"].as_object();
        let properties = properties.expect("properties");
        section
            .keys()
            .for_each(|key| assert!(properties.contains_key(key.name), "{}.{}", section.name, key.name));
    }
    fn check(value: &Value, definitions: &serde_json::Map<String, Value>) {
        match value {
            Value::Object(all) => {
                if let Some(target) = all.get("$ref").and_then(Value::as_str) {
                    let name = target.strip_prefix("#/$defs/").expect("a local reference");
                    assert!(
                        !target.contains(' ') && definitions.get(name).is_some_and(Value::is_object),
                        "{target}"
                    );
                }
                all.values().for_each(|one| check(one, definitions));
            }
            Value::Array(all) => all.iter().for_each(|one| check(one, definitions)),
            _ => {}
        }
    }
    check(&schema, definitions);
    assert_eq!(schema["$defs"]["plugin"]["allOf"].as_array().map(Vec::len), Some(CATALOG.names().len()));
    insta::assert_snapshot!(
        "schema_of_a_target",
        serde_json::to_string_pretty(&definitions["target"]).expect("JSON")
    );
}

#[test]
fn fields_read_what_is_written_and_else_the_default() {
    let section = CATALOG.section("rate-limiting").expect("the section");
    let read = |text: &str, defaults| {
        read_section(text, section, defaults, |fields| {
            (
                fields.optional_integer::<u32>("minute"),
                fields.word("limit_by"),
                fields.bool("fault_tolerant"),
                fields.number("sync_rate"),
            )
        })
    };
    assert_eq!(read("", Defaults::Portcullis), Ok((None, "consumer", true, -1.0)));
    assert_eq!(
        read("{minute: 5, limit_by: ip, fault_tolerant: off, sync_rate: 0.5}", Defaults::Portcullis),
        Ok((Some(5), "ip", false, 0.5))
    );
    assert!(read("{minute: 0}", Defaults::Portcullis).is_err());
    let jwt = CATALOG.section("jwt").expect("the section");
    let claims =
        |text: &str, defaults| read_section(text, jwt, defaults, |fields| fields.words("claims_to_verify"));
    assert_eq!(claims("", Defaults::Portcullis), Ok(vec!["exp", "nbf"]));
    assert_eq!(claims("", Defaults::Kong), Ok(vec![]));
    assert_eq!(claims("claims_to_verify: [nbf]", Defaults::Kong), Ok(vec!["nbf"]));
}

#[test]
fn fields_read_sections_inside_and_report_at_their_place() {
    let section = CATALOG.section("request-transformer").expect("the section");
    let text = "remove: {headers: [x-a, x-b]}\n";
    let removed = read_section(text, section, Defaults::Portcullis, |fields| {
        (fields.section("remove").strings("headers"), fields.section("add").strings("headers"))
    });
    assert_eq!(removed, Ok((vec!["x-a".to_owned(), "x-b".to_owned()], vec![])));
    let found = read_section(text, section, Defaults::Portcullis, |fields| {
        fields.section("remove").error("headers", "no");
    });
    let found = found.expect_err("an error was reported");
    assert_eq!((found[0].line, found[0].column, found[0].path.as_str()), (1, 19, "config.remove.headers"));
}
