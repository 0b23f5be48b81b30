//! The tables of this gateway's plugins are right in themselves: names are unique, docs are there, defaults fit.

use portcullis::snapshot::GatewayCatalog;
use portcullis_config::schema::reference::{describe, sections};
use portcullis_config::{Defaults, EmptyCatalog, Kind, Section, Severity, read_section};

/// Those that only the plugins bring; the others are tested where they are.
fn of_plugins() -> Vec<&'static Section> {
    let own = sections(&EmptyCatalog);
    let all = sections(&GatewayCatalog);
    let of_plugins: Vec<_> =
        all.into_iter().filter(|one| !own.iter().any(|own| std::ptr::eq(*own, *one))).collect();
    let clash = of_plugins.iter().find(|one| own.iter().any(|own| own.name == one.name));
    assert!(clash.is_none(), "{clash:?} has the name of another section");
    of_plugins
}

/// Whether each of them is there once.
fn are_distinct(mut names: Vec<&str>) -> bool {
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    names.len() == count
}

#[test]
fn names_are_unique_and_docs_are_sentences() {
    let found = of_plugins();
    assert!(found.len() > 5, "plugins have sections");
    assert!(are_distinct(found.iter().map(|one| one.name).collect()), "two sections of one name");
    for section in found {
        assert!(section.doc.ends_with('.'), "{}: {:?}", section.name, section.doc);
        let names = section.keys().map(|key| key.name).collect();
        assert!(are_distinct(names), "{} has a key twice", section.name);
        for key in section.keys() {
            let place = format!("{}.{}", section.name, key.name);
            assert!(key.doc.ends_with('.'), "{place}: {:?}", key.doc);
            assert!(!(key.required && key.default.is_some()), "{place} is required and has a default");
            assert!(key.kong_default.is_none() || key.kong_default != key.default, "{place}");
            let says = describe(key);
            assert!(key.default.is_none() || says.contains("Default: "), "{place}: {says}");
        }
    }
}

/// A default that the gateway would refuse if it were written is a mistake in the table.
#[test]
fn defaults_fit_their_kinds() {
    for section in of_plugins() {
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
