//! base64url and the two objects of a token.

use proptest::prelude::*;

use super::*;

#[test]
fn base64_of_rfc4648() {
    for (plain, coded) in [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
        assert_eq!(base64(coded.as_bytes(), Alphabet::Url).as_deref(), Some(plain.as_bytes()));
        let padded = format!("{coded}{}", &"==="[..(4 - coded.len() % 4) % 4]);
        assert_eq!(base64(padded.as_bytes(), Alphabet::Any).as_deref(), Some(plain.as_bytes()));
    }
    assert_eq!(base64(b"-_-_", Alphabet::Url), base64(b"+/+/", Alphabet::Any));
    // Padding, the other alphabet, white space, half a byte, bits of no byte.
    for text in ["Zg==", "Zm8=", "+/+/", "Zm9v\n", " Zm9v", "Z", "Zm9vZ", "Zh", "Zm9", "\u{e9}\u{e9}"] {
        assert_eq!(base64(text.as_bytes(), Alphabet::Url), None, "{text:?}");
    }
    assert_eq!(base64(b"Zg===", Alphabet::Any), None);
}

#[test]
fn members_are_read_by_type() {
    let text = br#"{"a":"x\n","b":1,"c":-2.5,"d":true,"e":null,"f":[1,{"g":2}],"h":{"i":{}},"\u006a":"y"}"#;
    let members = Members::parse(text).expect("an object");
    let texts = |name| match members.get(name) {
        Some(Value::Text(text)) => text.to_string(),
        other => format!("{other:?}"),
    };
    assert_eq!((&*texts("a"), &*texts("j")), ("x\n", "y"));
    assert_eq!(members.get("b"), Some(&Value::Number(1.0)));
    assert_eq!(members.get("c"), Some(&Value::Number(-2.5)));
    assert_eq!(members.get("d"), Some(&Value::Bool(true)));
    assert!(["e", "f", "h"].iter().all(|name| members.get(name) == Some(&Value::Other)));
    // Not one of the object itself.
    assert_eq!((members.get("g"), members.get("i"), members.get("")), (None, None, None));
}

#[test]
fn only_one_object_with_distinct_names_is_read() {
    for text in [
        "",
        "1",
        "[]",
        "\"\"",
        "{}{}",
        "{} x",
        "{\"a\":1,}",
        "{'a':1}",
        "{\"a\":1,\"a\":1}",
        "{1:2}",
        "\u{feff}{}",
    ] {
        assert_eq!(Members::parse(text.as_bytes()), None, "{text}");
    }
    assert!(Members::parse(b" {\"a\": 1, \"A\": 2} \r\n").is_some());
}

proptest! {
    #[test]
    fn any_bytes_are_cut_or_refused(token in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(token) = Compact::split(&token) {
            let _ = (token.header(), token.claims());
        }
    }

    #[test]
    fn any_three_parts_are_read_or_refused(
        header in proptest::collection::vec(any::<u8>(), 0..60),
        claims in "\\{(\"[a-c]\":(1|\"x\"|null|\\[\\]|true),?){0,4}\\}",
    ) {
        let coded = |bytes: &[u8]| bytes.iter().map(|byte| char::from(b'A' + byte % 26)).collect::<String>();
        let text = format!("{}.{}.", coded(&header), coded(claims.as_bytes()));
        if let Ok(token) = Compact::split(text.as_bytes()) {
            let _ = (token.header().map(|header| algorithm(&header)), token.claims());
        }
        // What is read has no name twice, and every value of the text.
        if let Some(members) = Members::parse(claims.as_bytes()) {
            let once = |name| claims.matches(name).count() <= 1;
            prop_assert!(["\"a\":", "\"b\":", "\"c\":"].into_iter().all(once));
            prop_assert_eq!(members.get("a").is_some(), claims.contains("\"a\":"));
        }
    }
}
