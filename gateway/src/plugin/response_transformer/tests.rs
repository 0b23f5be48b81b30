//! The plugin on responses without a connection: Kong's examples, and what must not get through.

use super::super::fixture::Fixture;

/// The header lines that the client gets, as `name: value`.
#[track_caller]
fn transformed(config: &str, lines: &[(&str, &str)]) -> Vec<String> {
    let fixture = Fixture::default();
    let plugin = fixture.accepted("response-transformer", config);
    assert!(plugin.sees_response());
    let mut head = super::ResponseHead::new();
    for (name, value) in lines {
        head.head.append(name, value);
    }
    plugin.on_response(&mut fixture.cx_from("203.0.113.1"), &mut head);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("ASCII");
    head.head.iter().map(|(_, name, value)| format!("{}: {}", text(name), text(value))).collect()
}

/// The examples of Kong's documentation of the plugin.
#[test]
fn kongs_examples() {
    let json = ("Content-Type", "application/json");
    for (config, lines, expected) in [
        ("{add: {headers: [\"h1:v2\", \"h2:v1\"]}}", &[("h1", "v1")][..], &["h1: v1", "h2: v1"][..]),
        ("{append: {headers: [\"h1:v2\", \"h2:v1\"]}}", &[("h1", "v1")], &["h1: v1", "h1: v2", "h2: v1"]),
        ("{remove: {headers: [h1, h2]}}", &[("h1", "v1"), ("h2", "v2"), ("h3", "v3")], &["h3: v3"]),
        ("{replace: {headers: [\"h1:v2\", \"h2:v2\"]}}", &[("h1", "v1")], &["h1: v2"]),
        ("{rename: {headers: [\"h1:h2\", \"h3:h4\"]}}", &[("h1", "v1")], &["h2: v1"]),
        ("{remove: {json: [p1]}}", &[json], &["Content-Type: application/json"]),
    ] {
        assert_eq!(transformed(config, lines), expected, "{config}");
    }
}

#[test]
fn cookies_are_kept_apart() {
    let config = "{append: {headers: [\"Set-Cookie:c=3\"]}, remove: {headers: [X-Powered-By, server]}}";
    let lines = [("Server", "x"), ("Set-Cookie", "a=1"), ("X-Powered-By", "y"), ("Set-Cookie", "b=2")];
    assert_eq!(transformed(config, &lines), ["Set-Cookie: a=1", "Set-Cookie: b=2", "Set-Cookie: c=3"]);
}

#[test]
fn values_may_hold_colons_and_what_looks_like_a_template() {
    let config = "{add: {headers: [\"Link:<https://a.example/:1>\", \"X-T:$(headers.x)\"]}}";
    assert_eq!(transformed(config, &[]), ["Link: <https://a.example/:1>", "X-T: $(headers.x)"]);
}

#[test]
fn what_would_break_framing_is_refused_with_its_place() {
    let fixture = Fixture::default();
    let config = "{remove: {headers: [Content-Length]}, rename: {headers: [\"X-A:Transfer-Encoding\"]}, \
                  add: {headers: [\"X-B:1\", \"Connection:close\"]}, append: {headers: [\"a b:c\"]}, replace: {headers: [X-C]}}";
    let found = fixture.refused("response-transformer", config);
    let lines: Vec<_> = found.lines().collect();
    assert_eq!(
        lines,
        [
            "error: remove.headers[0]: 'Content-Length' cannot be edited: it says where the body ends",
            "error: rename.headers[0]: 'Transfer-Encoding' cannot be edited: it says where the body ends",
            "error: add.headers[1]: 'Connection' cannot be edited: it is about one connection, not the message",
            "error: append.headers[0]: 'a b' is not a valid header",
            "error: replace.headers[0]: key 'X-C' has no value",
        ]
    );
}

#[test]
fn types_of_values_are_held_to() {
    let fixture = Fixture::default();
    let said = |config| fixture.compile("response-transformer", 1, config).map(|(_, said)| said);
    let right =
        said("{add: {json: [\"p1:1\", \"p2:true\"], json_types: [number, boolean]}}").expect("accepted");
    assert!(right.starts_with("warning: add: JSON responses are held in memory whole"), "{right}");
    let error = "error: add.json_types: the value of `p1`, \"v1\", is of another type";
    let wrong = said("{add: {json: [\"p1:v1\"], json_types: [number]}}").expect_err("refused");
    assert!(wrong.ends_with(error), "{wrong}");
    let note = "warning: add.headers[0]: spaces around the value are not part of it";
    assert_eq!(said("{add: {headers: [\"a: b\"]}}"), Ok(note.to_owned()));
}

/// The body and the head that the client gets of a JSON response, or the status of the refusal.
fn body(config: &str, lines: &[(&str, &str)], body: &str) -> Result<(String, Vec<String>), u16> {
    let fixture = Fixture::new(config);
    let (plugin, _) = fixture.plugin(0, None).expect("a good config");
    let mut cx = fixture.cx_from("203.0.113.1");
    let mut request =
        crate::plugin::fixture::request_with("/", &["Range: bytes=0-1", "Accept-Encoding: gzip"]);
    assert!(matches!(plugin.on_request(&mut cx, &mut request), super::Flow::Continue));
    assert_eq!(
        (request.head.get("Range"), request.head.get("Accept-Encoding")),
        (None, Some(&b"identity"[..]))
    );
    let mut head = super::ResponseHead::new();
    lines.iter().for_each(|(name, value)| head.head.append(name, value));
    plugin.on_response(&mut cx, &mut head);
    let mut body = body.as_bytes().to_vec();
    if plugin.wants_response_body(&cx, &head) {
        plugin.on_response_body(&mut cx, &mut head, &mut body).map_err(|answer| answer.status)?;
    }
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    let lines = head.head.iter().map(|(_, name, value)| format!("{}: {}", text(name), text(value)));
    Ok((text(&body), lines.collect()))
}

#[test]
fn json_is_edited_and_what_described_it_goes() {
    let config = "plugins: [{name: response-transformer, config: {remove: {json: [internal_id, debug.info]}, add: {json: \
                  [\"n:1\"], json_types: [number]}}}]";
    let json = ("Content-Type", "application/json; charset=utf-8");
    let sent = r#"{"internal_id":7,"a":"x","debug":{"info":1,"k":2}}"#;
    let (edited, lines) = body(config, &[json, ("ETag", "\"1\""), ("Digest", "x")], sent).expect("edited");
    assert_eq!(edited, r#"{"a":"x","debug":{"k":2},"n":1}"#);
    assert_eq!(lines, ["Content-Type: application/json; charset=utf-8"]);
    let text = ("Content-Type", "text/plain");
    assert_eq!(body(config, &[text, ("ETag", "e")], sent).expect("passes").0, sent);
    assert_eq!(body(config, &[json], "").expect("nothing").0, "");
    let gzip = ("Content-Encoding", "gzip");
    assert_eq!(body(config, &[json], "{").err(), Some(502));
    assert_eq!(body(config, &[json, gzip], sent).err(), Some(502));
    let kong = format!("defaults: kong\n{config}");
    assert_eq!(body(&kong, &[json], "{").expect("passes").0, "{");
    assert_eq!(body(&kong, &[json, gzip], sent).expect("passes").0, sent);
}
