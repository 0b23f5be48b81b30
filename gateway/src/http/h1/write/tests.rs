//! Tests of what is written, byte by byte, and that it is read back as it was meant.

use super::*;
use crate::http::h1::{
    BodyFraming, HeadLimits, Parsed, parse_request, parse_response, set_framing, strip_hop_by_hop,
};
use proptest::prelude::*;

fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    write(&mut out);
    String::from_utf8(out).unwrap()
}

fn request(text: &str) -> RequestHead {
    let mut head = RequestHead::new();
    let parsed = parse_request(text.as_bytes(), &HeadLimits::default(), &mut head);
    assert_eq!(parsed, Ok(Parsed::Complete { head_len: text.len() }));
    head
}

#[test]
fn a_request_is_written_in_origin_form_rfc9112_3_2_1() {
    for (came, goes) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("GET http://a/%7e?b HTTP/1.1\r\nHost: a\r\n\r\n", "GET /~?b HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("GET http://a?b HTTP/1.0\r\n\r\n", "GET /?b HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("PURGE /? HTTP/1.1\r\nHost: a\r\n\r\n", "PURGE /? HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("GET / HTTP/1.1\r\nHost: a \r\nx:\ty\r\nz:\r\n\r\n", {
            "GET / HTTP/1.1\r\nHost: a\r\nx: y\r\nz: \r\n\r\n"
        }),
        ("GET / HTTP/1.1\r\nHost:a\r\nx:\t y \r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nx: y\r\n\r\n"),
    ] {
        assert_eq!(text(|out| write_request(&request(came), Persistence::Implied, out)), goes, "{came:?}");
    }
}

#[test]
fn an_edited_request() {
    let mut head = request(
        "POST /api/v1/a?k=1 HTTP/1.1\r\nHost: a\r\nConnection: x-hop, close\r\nx-hop: 1\r\nAccept: */*\r\n\
         Transfer-Encoding: chunked\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n",
    );
    strip_hop_by_hop(&mut head.head).unwrap();
    set_framing(&mut head.head, BodyFraming::Chunked);
    head.strip_path_prefix("/api".len());
    head.append_parameter("l", "2");
    head.set_method("PUT");
    head.head.set_known(Known::Host, "target:80");
    head.head.append_item(Known::XForwardedFor, "192.0.2.1");
    assert_eq!(
        text(|out| write_request(&head, Persistence::Close, out)),
        "PUT /v1/a?k=1&l=2 HTTP/1.1\r\nHost: target:80\r\nAccept: */*\r\n\
         X-Forwarded-For: 10.0.0.1, 192.0.2.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    );
}

#[test]
fn paths_are_stripped_and_set() {
    for (path, strip, want) in
        [("/api/x", 4, "/x"), ("/api", 4, "/"), ("/apix", 4, "/x"), ("/api", 9, "/"), ("/api", 0, "/api")]
    {
        let mut head = request(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        head.strip_path_prefix(strip);
        assert_eq!(head.path(), want.as_bytes(), "{path} {strip}");
    }
    let mut head = request("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    head.set_path_parts(&[b"/base", b"/x"]);
    head.set_query(Some(b"q"));
    assert!(
        text(|out| write_request(&head, Persistence::Implied, out)).starts_with("GET /base/x?q HTTP/1.1\r\n")
    );
}

#[test]
fn a_head_from_scratch() {
    let mut head = RequestHead::new();
    head.set_method("GET");
    head.set_path("/status");
    head.head.append_known(Known::Host, "a");
    assert_eq!(
        text(|out| write_request(&head, Persistence::Implied, out)),
        "GET /status HTTP/1.1\r\nHost: a\r\n\r\n"
    );
}

#[test]
fn responses() {
    let parse = |text: &str| {
        let mut head = ResponseHead::new();
        parse_response(text.as_bytes(), &HeadLimits::default(), &mut head).unwrap();
        head
    };
    let head = parse("HTTP/1.0 200 Fine\r\nx: y\r\n\r\n");
    assert_eq!(
        text(|out| write_response(&head, Persistence::KeepAlive, out)),
        "HTTP/1.1 200 Fine\r\nx: y\r\nConnection: keep-alive\r\n\r\n"
    );
    let mut head = parse("HTTP/1.1 299\r\nUpgrade: x\r\n\r\n");
    assert_eq!(
        text(|out| write_response(&head, Persistence::Implied, out)),
        "HTTP/1.1 299 \r\nUpgrade: x\r\n\r\n"
    );
    head.set_status(101);
    assert_eq!(
        text(|out| write_response(&head, Persistence::Upgrade, out)),
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
    );
    assert_eq!(text(write_continue), "HTTP/1.1 100 Continue\r\n\r\n");
}

#[test]
fn chunk_framing_rfc9112_7_1() {
    for (len, want) in [(1, "1\r\n"), (10, "a\r\n"), (255, "ff\r\n"), (4096, "1000\r\n")] {
        assert_eq!(text(|out| write_chunk_header(len, out)), want);
    }
    assert_eq!(text(|out| write_chunk_header(usize::MAX, out)), "ffffffffffffffff\r\n");
    assert_eq!(text(|out| write_chunk_end(None, out)), "0\r\n\r\n");
    let mut trailers = Head::new();
    trailers.append("grpc-status", "0");
    assert_eq!(text(|out| write_chunk_end(Some(&trailers), out)), "0\r\ngrpc-status: 0\r\n\r\n");
}

const ANSWER: Answer<'static> = Answer {
    status: 429,
    message: "API rate limit exceeded",
    member: "message",
    content: None,
    fields: &[("Retry-After", b"7")],
    date: b"Tue, 15 Nov 1994 08:12:31 GMT",
    head_only: false,
    persistence: Persistence::Close,
};

#[test]
fn an_answer_has_kongs_body() {
    let head = "HTTP/1.1 429 Too Many Requests\r\nDate: Tue, 15 Nov 1994 08:12:31 GMT\r\n\
                Content-Type: application/json; charset=utf-8\r\nContent-Length: 37\r\nRetry-After: 7\r\n\
                Connection: close\r\n\r\n";
    let body = "{\"message\":\"API rate limit exceeded\"}";
    assert_eq!(text(|out| write_answer(&ANSWER, out)), format!("{head}{body}"));
    // The answer to HEAD tells of the body of the answer to GET (RFC 9110 section 9.3.2).
    let head_only = Answer { head_only: true, ..ANSWER };
    assert_eq!(text(|out| write_answer(&head_only, out)), head);
}

#[test]
fn a_refusal_is_answered_with_its_status_and_fields() {
    let refusal = Refusal::new(crate::http::Reason::TraceRefused);
    let text = text(|out| write_answer(&Answer::to(refusal, b"", false, Persistence::Close), out));
    assert!(text.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"), "{text}");
    assert!(text.contains("\r\nAllow: GET, HEAD, "), "{text}");
    assert!(text.ends_with("{\"message\":\"Method not allowed\"}"), "{text}");
}

#[test]
fn an_answer_in_parts_is_the_same_answer() {
    for head_only in [false, true] {
        let answer = Answer { head_only, ..ANSWER };
        let (mut head, mut body) = (ResponseHead::new(), b"old".to_vec());
        fill_answer(&answer, &mut head, &mut body);
        let parts = text(|out| {
            write_response(&head, answer.persistence, out);
            out.extend_from_slice(&body);
        });
        assert_eq!(parts, text(|out| write_answer(&answer, out)));
    }
}

#[test]
fn content_stands_in_place_of_the_message() {
    let content = |media_type| Some(Content { media_type, bytes: b"<p>" });
    let answer = Answer { status: 200, content: content(b"text/html"), fields: &[], date: b"", ..ANSWER };
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 3\r\nConnection: close\r\n\r\n";
    assert_eq!(text(|out| write_answer(&answer, out)), format!("{head}<p>"));
    assert_eq!(text(|out| write_answer(&Answer { head_only: true, ..answer }, out)), head);
    let untyped = text(|out| write_answer(&Answer { content: content(b""), ..answer }, out));
    assert!(!untyped.contains("Content-Type"), "{untyped}");
}

/// What follows would be taken for the next response.
#[test]
fn an_answer_that_ends_with_its_head_has_no_body() {
    for status in [204, 304] {
        let text = text(|out| write_answer(&Answer { status, ..ANSWER }, out));
        assert!(text.ends_with("Retry-After: 7\r\nConnection: close\r\n\r\n"), "{text}");
        assert!(!text.contains("Content-"), "{text}");
    }
}

#[test]
fn an_answer_cannot_be_split() {
    let answer = Answer { fields: &[("x", b"a\r\nb: c")], date: b"", message: "a\"b\\c\nd\u{1}é", ..ANSWER };
    let text = text(|out| write_answer(&answer, out));
    assert!(text.contains("\r\nx: a  b: c\r\n") && !text.contains("Date"), "{text}");
    assert!(text.ends_with("{\"message\":\"a\\\"b\\\\c\\u000ad\\u0001é\"}"), "{text}");
    let body: serde_json::Value = serde_json::from_str(&text[text.find('{').unwrap()..]).unwrap();
    assert_eq!(body["message"], answer.message);
}

proptest! {
    /// A written head is parsed to the same head, whatever text the fields were given.
    #[test]
    fn what_is_written_is_read_back(
        path in "/[a-z/]{0,8}",
        query in prop::option::of("[!-~&&[^#]]{0,8}"),
        fields in prop::collection::vec(("[a-z-]{1,8}", prop::collection::vec(any::<u8>(), 0..12)), 0..6),
    ) {
        let mut head = RequestHead::new();
        head.set_method("GET");
        head.set_path(&path);
        head.set_query(query.as_ref().map(|query| query.as_bytes()));
        head.head.append_known(Known::Host, "a");
        for (name, value) in &fields {
            head.head.append(name, value);
        }
        let mut out = Vec::new();
        write_request(&head, Persistence::Implied, &mut out);
        let mut back = RequestHead::new();
        let control = |byte: &u8| (*byte < b' ' && !b"\t\r\n\0".contains(byte)) || *byte == 0x7f;
        let parsed = parse_request(&out, &HeadLimits::default(), &mut back);
        if fields.iter().any(|(name, value)| name == "host" || value.iter().any(control)) {
            prop_assert!(parsed.is_err());
            return Ok(());
        }
        prop_assert_eq!(parsed, Ok(Parsed::Complete { head_len: out.len() }));
        prop_assert_eq!((back.path(), back.query()), (head.path(), head.query()));
        let trimmed = |head: &Head| -> Vec<(Vec<u8>, Vec<u8>)> {
            let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
            head.iter().map(|(_, name, value)| {
                let start = value.iter().position(|byte| !blank(byte)).unwrap_or(value.len());
                let end = value.iter().rposition(|byte| !blank(byte)).map_or(start, |last| last + 1);
                (name.to_vec(), value[start..end].to_vec())
            }).collect()
        };
        prop_assert_eq!(trimmed(&back.head), trimmed(&head.head));
    }
}
