//! Tests of `parse`: shapes, places, and texts meant to break it.

use std::sync::Arc;

use super::*;
use crate::environment::FixedEnvironment;
use crate::source::Sources;

fn run(text: &str) -> (Option<Node>, Vec<String>) {
    let mut sources = Sources::default();
    let file = sources.add("t.yaml", text);
    let found = Diagnostics::new(Arc::new(sources));
    let environment = FixedEnvironment {
        variables: [("PORT".into(), "8080".into())].into(),
        ..FixedEnvironment::default()
    };
    let node = parse(file, Path::new(""), &environment, &found);
    let found = found.into_sorted().into_iter().map(|one| {
        let hint = one.hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
        format!("{}:{}: {}{hint}", one.line, one.column, one.message)
    });
    (node.map(|mut nodes| nodes.swap_remove(0)), found.collect())
}

fn check(text: &str, expected: &str) {
    let (node, found) = run(text);
    assert_eq!(found, Vec::<String>::new(), "{text}");
    assert_eq!(format!("{:?}", node.unwrap()), expected, "{text}");
}

fn check_error(text: &str, expected: &str) {
    let (_, found) = run(text);
    assert_eq!(found.first().map(String::as_str), Some(expected), "{text}: {found:?}");
}

#[test]
fn shapes() {
    check("", "~");
    check("a: 1\nb: [x, 'y', {c: ~}]", r#"{"a": "1", "b": ["x", "y", {"c": ~}]}"#);
    check(r#"{"a": {"b": [1, 2.5, true, null, "s"]}}"#, r#"{"a": {"b": ["1", "2.5", "true", ~, "s"]}}"#);
    check("--- \na: |\n  x\n  y\n...\n", r#"{"a": "x\ny\n"}"#);
    check("a: !!str 1", r#"{"a": "1"}"#);
    check("\u{feff}a: 1", r#"{"a": "1"}"#);
}

#[test]
fn keys_are_told_apart_however_many() {
    for count in [1, 3, FEW_KEYS, FEW_KEYS + 1, 3 * FEW_KEYS] {
        // Maps and lists within, so that places of several are open at once.
        let text: String =
            (0..count).map(|n| format!("k{n}: {{k0: [{n}, {{k1: {n}}}], k1: {n}}}\n")).collect();
        let (node, found) = run(&text);
        assert_eq!(found, Vec::<String>::new());
        let node = node.unwrap();
        assert_eq!(node.entries().len(), count);
        for (n, entry) in node.entries().iter().enumerate() {
            let inner = format!("{{\"k0\": [\"{n}\", {{\"k1\": \"{n}\"}}], \"k1\": \"{n}\"}}");
            assert_eq!((&*entry.name, format!("{:?}", entry.value)), (&*format!("k{n}"), inner));
        }
        for again in [0, count - 1] {
            let (line, place) = (count + 1, again + 1);
            let expected = format!(
                "{line}:1: the key `k{again}` is given twice (it was first given at t.yaml:{place}:1)"
            );
            check_error(&format!("{text}k{again}: x\n"), &expected);
        }
        let merged = format!(
            "a: &a\n  x: 1\n  k0: own\nb:\n  <<: *a\n{}",
            text.replace("\nk", "\n  k").replacen('k', "  k", 1)
        );
        let (node, found) = run(&merged);
        assert_eq!(found, Vec::<String>::new(), "{merged}");
        let names: Vec<_> =
            node.unwrap().get("b").unwrap().entries().iter().map(|one| one.name.clone()).collect();
        assert_eq!((names.len(), names.last().map(String::as_str)), (count + 1, Some("x")));
    }
}

#[test]
fn anchors_and_merge_keys() {
    check("a: &x {k: 1}\nb: *x", r#"{"a": {"k": "1"}, "b": {"k": "1"}}"#);
    check(
        "a: &x {k: 1, m: 2}\nb: {<<: *x, m: 3}",
        r#"{"a": {"k": "1", "m": "2"}, "b": {"m": "3", "k": "1"}}"#,
    );
    check(
        "a: &x {k: 1}\nc: &y {k: 2, z: 3}\nb:\n  <<: [*x, *y]",
        r#"{"a": {"k": "1"}, "c": {"k": "2", "z": "3"}, "b": {"k": "1", "z": "3"}}"#,
    );
    check("\"<<\": 1", r#"{"<<": "1"}"#);
}

#[test]
fn substituted_values_are_masked() {
    check("a: ${env:PORT}\nb: x", r#"{"a": ******, "b": "x"}"#);
    let (node, _) = run("a: ${env:PORT}");
    assert_eq!(node.unwrap().get("a").unwrap().text(), Some("8080"));
}

#[test]
fn places_count_characters_and_bytes() {
    let (node, _) = run("é: ü\nlist:\n  - \"ß\"\n  - x: [y]\n");
    let node = node.unwrap();
    let value = node.get("é").unwrap().span;
    assert_eq!((value.line, value.column, value.start, value.end), (1, 4, 4, 6));
    let item = node.get("list").unwrap().items()[0].span;
    assert_eq!((item.line, item.column, item.start, item.end), (3, 5, 17, 21));
    let deep = node.get("list").unwrap().items()[1].get("x").unwrap().items()[0].span;
    assert_eq!((deep.line, deep.column), (4, 9));
}

#[test]
fn what_a_configuration_must_not_hold() {
    check_error("a: 1\nb: 2\na: 3", "3:1: the key `a` is given twice (it was first given at t.yaml:1:1)");
    check_error("? [a]\n: 1", "1:3: a key must be a plain text");
    check_error("a: !!binary aGk=", "1:4: the tag \"tag:yaml.org,2002:binary\" means nothing here");
    check_error("a: &x [*x]", "1:8: an alias may not stand inside its own anchor");
    check_error("a: {<<: 3}", "1:9: `<<` takes a map or a list of maps");
    check_error(&"[".repeat(100), &format!("1:{}: nested more than 48 levels deep", MAX_DEPTH + 2));
}

#[test]
fn a_missing_variable_is_reported_at_its_place() {
    let (_, found) = run("a: x\nb: ${env:GONE}");
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("2:4: the environment variable GONE is not set (set GONE"), "{found:?}");
}

#[test]
fn a_billion_laughs() {
    let mut text = String::from("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
    for n in 1..20 {
        let refs = vec![format!("*a{}", n - 1); 9].join(", ");
        text += &format!("a{n}: &a{n} [{refs}]\n");
    }
    let (node, found) = run(&text);
    assert!(node.is_none());
    assert!(found[0].contains("aliases expand to more"), "{found:?}");
}

#[test]
fn scanner_errors_have_a_place_and_sometimes_a_hint() {
    let (_, found) = run("a:\n\tb: 1\n");
    assert!(found[0].contains("not valid YAML") && found[0].contains("spaces"), "{found:?}");
    let (_, found) = run("hosts: *.example.com\n");
    assert!(found[0].contains("quote the value"), "{found:?}");
    for text in [
        "a: [1",
        "a: }",
        "a: 'x",
        "a: \"\\q\"",
        "- a\nb: 1",
        "a: 1\n b: 2",
        "%YAML 9",
        "@x",
        "\0",
        "a: \u{7}",
    ] {
        let (_, found) = run(text);
        assert!(found.len() <= 1, "{text:?}: {found:?}");
    }
}
