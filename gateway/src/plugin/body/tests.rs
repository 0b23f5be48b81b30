//! Steps on each format, and what an edit must leave alone.

use proptest::prelude::*;

use super::super::transform::Text;
use super::*;

fn place(text: &str) -> Place {
    Place::parse(text).expect(text)
}

fn literal(text: &str) -> Text {
    Text::Literal(text.as_bytes().into())
}

/// `remove a`, `rename a b`, `replace a v`, `add a v`, `append a v`, separated by semicolons; `#` before a value makes
/// it a number.
fn edits(text: &str) -> Edits<Place> {
    let mut edits = Edits::default();
    for entry in text.split(';').map(str::trim).filter(|entry| !entry.is_empty()) {
        let words: Vec<&str> = entry.splitn(3, ' ').collect();
        let pair = || {
            let (name, kind) = (place(words[1]), words[2].strip_prefix('#'));
            match kind {
                Some(number) => (name.with_values(ValueKind::Number), literal(number)),
                None => (name, literal(words[2])),
            }
        };
        match words[0] {
            "remove" => edits.remove.push(place(words[1])),
            "rename" => edits.rename.push((place(words[1]), place(words[2]))),
            "replace" => edits.replace.push(pair()),
            "add" => edits.add.push(pair()),
            "append" => edits.append.push(pair()),
            other => panic!("{other}"),
        }
    }
    edits
}

fn run(format: &Format, script: &str, body: &str) -> Result<String, Malformed> {
    let mut body = body.as_bytes().to_vec();
    edits(script).apply_to_body(format, &mut body, &Rendered::new())?;
    Ok(String::from_utf8(body).expect("text"))
}

#[track_caller]
fn json(script: &str, body: &str, expected: &str) {
    assert_eq!(run(&Format::Json, script, body).as_deref(), Ok(expected), "{script} on {body}");
}

#[test]
fn json_members_step_by_step() {
    json("remove a", r#"{"a":1,"b":2}"#, r#"{"b":2}"#);
    json("remove a; rename b a", r#"{"a":1,"b":[1, 2]}"#, r#"{"a":[1, 2]}"#);
    json("rename b a", r#"{"a":1,"b":2}"#, r#"{"a":2}"#);
    json("rename x a", r#"{"a":1}"#, r#"{"a":1}"#);
    json("replace a x y", r#"{"a":{"k":1},"b":2}"#, r#"{"a":"x y","b":2}"#);
    json("replace c x", r#"{"a":1}"#, r#"{"a":1}"#);
    json("add a x; add b y", r#"{"a":null}"#, r#"{"a":"x","b":"y"}"#);
    json(
        "append a x; append b y; append c z",
        r#"{"a":"1","b":["2"]}"#,
        r#"{"a":["1","x"],"b":["2","y"],"c":["z"]}"#,
    );
    json("add a #1.50", "{}", r#"{"a":1.50}"#);
    json("add a #no", "{}", r#"{"a":"no"}"#);
    json("add a x", "", r#"{"a":"x"}"#);
    json("replace a \"q\"", r#"{"a":1}"#, r#"{"a":"\"q\""}"#);
}

#[test]
fn json_places_go_down() {
    json("remove user.password", r#"{"user":{"name":"a","password":"p"}}"#, r#"{"user":{"name":"a"}}"#);
    json("remove items[*].id", r#"{"items":[{"id":1,"n":2},{"id":3},4]}"#, r#"{"items":[{"n":2},{},4]}"#);
    json("remove [*].id", r#"[{"id":1},{"n":2}]"#, r#"[{},{"n":2}]"#);
    json("remove items[1]", r#"{"items":[1,2,3]}"#, r#"{"items":[1,3]}"#);
    json("replace items[0] x; replace items[9] y", r#"{"items":[1,2]}"#, r#"{"items":["x",2]}"#);
    json("add a.b.c x", "{}", r#"{"a":{"b":{"c":"x"}}}"#);
    json("add a.b x", r#"{"a":1}"#, r#"{"a":1}"#);
    json("rename a.b c", r#"{"a":{"b":1}}"#, r#"{"a":{"c":1}}"#);
    json("rename a.b c.d", r#"{"a":{"b":1,"z":2}}"#, r#"{"a":{"z":2},"c":{"d":1}}"#);
    json("remove a.b", r#"{"a.b":1,"a":{"b":2}}"#, r#"{"a":{"b":2}}"#);
    json("remove a.b", r#"[1]"#, "[1]");
    json("remove a", "3", "3");
}

#[test]
fn json_that_no_edit_names_keeps_its_text() {
    json(
        "remove x",
        r#"{"x":0,"big":12345678901234567890123,"f":1.0,"e":"\u00e9é","n":{ "k" : 1 }}"#,
        r#"{"big":12345678901234567890123,"f":1.0,"e":"\u00e9é","n":{ "k" : 1 }}"#,
    );
    json("remove a", r#"{"a":1,"b":2,"a":3}"#, r#"{"b":2}"#);
}

#[test]
fn what_is_no_json_is_refused() {
    for body in ["{", "{\"a\":1}x", "\u{feff}{}", "nul", "{'a':1}", "[1,]"] {
        assert_eq!(run(&Format::Json, "remove a", body), Err(Malformed), "{body}");
    }
    let deep = "[".repeat(100_000);
    assert_eq!(run(&Format::Json, "remove a", &deep), Err(Malformed));
}

#[test]
fn forms() {
    let form = |script, body| run(&Format::Form, script, body).expect("a form");
    assert_eq!(form("remove a", "a=1&b=%2F&a=2"), "b=%2F");
    assert_eq!(form("rename a b", "a=1+2&b=3&c"), "b=1+2&c");
    assert_eq!(form("replace a x&y; replace z n", "a=1&a=2"), "a=x%26y");
    assert_eq!(form("add a 1; add b 2", "b=x"), "b=x&a=1");
    assert_eq!(form("append b 2", "b=x"), "b=x&b=2");
    assert_eq!(form("add a.b 1", ""), "a.b=1");
    assert_eq!(form("replace %61 x", "a=1"), "a=1");
    assert_eq!(form("remove a", "%61=1"), "");
}

const MULTIPART: &str = "--XX\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--XX\r\nContent-Disposition: \
                         form-data; filename=\"name.txt\"; name=\"f\"\r\nContent-Type: text/plain\r\n\r\nline\r\n--X\r\n--XX--\r\n";

#[test]
fn parts() {
    let format = Format::of(b"multipart/form-data; boundary=\"XX\"").expect("multipart");
    let run = |script: &str| run(&format, script, MULTIPART);
    assert_eq!(run("remove none").as_deref(), Ok(MULTIPART));
    assert_eq!(
        run("remove f").as_deref(),
        Ok("--XX\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--XX--\r\n")
    );
    let renamed = run("rename f g; rename a b").expect("parts");
    assert!(
        renamed.contains("filename=\"name.txt\"; name=\"g\"") && renamed.contains("; name=\"b\"\r\n\r\n1"),
        "{renamed}"
    );
    let replaced = run("replace f new; add a no; add z 9; append a 2").expect("parts");
    assert!(replaced.contains("text/plain\r\n\r\nnew\r\n--XX\r\n"), "{replaced}");
    assert!(replaced.ends_with(
        "name=\"z\"\r\n\r\n9\r\n--XX\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n2\r\n--XX--\r\n"
    ));
    assert_eq!(run("add q a\r\n--XX\r\nb"), Err(Malformed), "a value cannot make a part");
    for body in ["--XX", "x", "--XX\r\n", "--XXjunk\r\na\r\n--XX--"] {
        assert_eq!(
            super::multipart::edited(&edits("remove a"), b"XX", body.as_bytes(), &Rendered::new()),
            Err(Malformed),
            "{body}"
        );
    }
}

#[test]
fn formats_by_media_type() {
    assert_eq!(Format::of(b"application/json; charset=utf-8"), Some(Format::Json));
    assert_eq!(Format::of(b"Application/Problem+JSON"), Some(Format::Json));
    assert_eq!(Format::of(b"application/x-www-form-urlencoded"), Some(Format::Form));
    assert_eq!(
        Format::of(b"multipart/form-data; boundary=a"),
        Some(Format::Multipart { boundary: b"a".to_vec() })
    );
    for other in
        [&b"text/plain"[..], b"", b"application/jsonx", b"multipart/form-data", b"application/xml; a=+json"]
    {
        assert_eq!(Format::of(other), None);
    }
}

proptest! {
    /// Against `serde_json`'s own tree, for members at the top and one below.
    #[test]
    fn edits_agree_with_a_tree(
        members in prop::collection::btree_map("[a-d]", prop_oneof![
            any::<i64>().prop_map(serde_json::Value::from),
            "[ -~]{0,5}".prop_map(serde_json::Value::from),
            Just(serde_json::json!({"x": 1, "y": [true, null]})),
        ], 0..4),
        removed in "[a-d]",
        added in "[a-d]",
        below in "[a-d]",
    ) {
        let mut tree = serde_json::Value::Object(members.into_iter().collect());
        let mut body = tree.to_string().into_bytes();
        let script = format!("remove {removed}; remove {below}.x; add {added} new");
        edits(&script).apply_to_body(&Format::Json, &mut body, &Rendered::new()).unwrap();
        let object = tree.as_object_mut().unwrap();
        object.remove(&removed);
        if let Some(inner) = object.get_mut(&below).and_then(|inner| inner.as_object_mut()) {
            inner.remove("x");
        }
        object.entry(added).or_insert_with(|| "new".into());
        prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(&body).unwrap(), tree);
    }

    #[test]
    fn no_body_makes_it_panic(body in prop::collection::vec(any::<u8>(), 0..200), script in prop::sample::select(vec![
        "remove a.b[*].c; rename a b; add x.y z; append b c", "remove [0]; replace [*] x",
    ])) {
        for format in [Format::Json, Format::Form, Format::Multipart { boundary: b"x".to_vec() }] {
            let _ = edits(script).apply_to_body(&format, &mut body.clone(), &Rendered::new());
        }
    }
}
