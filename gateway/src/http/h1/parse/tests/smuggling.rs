//! A corpus of request smuggling: each text is one that two programs are known to read differently,
//! or a variation of one. None may pass as what its author hopes for.

use super::*;
use crate::http::h1::{BodyDecoder, BodyFraming, BodyLimits, request_framing};

/// What the gateway makes of a byte stream that begins with a request.
#[derive(Debug, PartialEq)]
enum Outcome {
    /// Refused, at the head or in the body.
    Refused(u16),
    /// One request with so many bytes of payload; so many bytes are left for the next one.
    One(usize, usize),
    /// The request is not complete.
    Unfinished,
}

fn outcome(text: &str) -> Outcome {
    let mut head = RequestHead::new();
    let head_len = match parse_request(text.as_bytes(), &HeadLimits::default(), &mut head) {
        Ok(Parsed::Complete { head_len }) => head_len,
        Ok(Parsed::Partial) => return Outcome::Unfinished,
        Err(refusal) => return Outcome::Refused(refusal.status),
    };
    let framing = match request_framing(&head) {
        Ok(framing) => framing,
        Err(refusal) => return Outcome::Refused(refusal.status),
    };
    assert!(framing != BodyFraming::UntilClose, "no request lasts until close");
    let mut decoder = BodyDecoder::request(framing, BodyLimits::NONE).unwrap();
    let mut rest = &text.as_bytes()[head_len..];
    let mut payload = 0;
    while !decoder.is_done() {
        match decoder.decode(rest) {
            Err(refusal) => return Outcome::Refused(refusal.status),
            Ok(step) => {
                payload += step.payload.len();
                rest = &rest[step.consumed..];
                if !step.done && rest.is_empty() {
                    return Outcome::Unfinished;
                }
            }
        }
    }
    Outcome::One(payload, rest.len())
}

/// A POST with these fields and this body.
fn post(fields: &[&str], body: &str) -> Outcome {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    outcome(&format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}"))
}

#[test]
fn cl_te_and_te_cl() {
    let body = "0\r\n\r\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n";
    for fields in [
        ["Content-Length: 6", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked", "Content-Length: 6"],
        ["Content-Length: 6", "transfer-encoding: identity"],
        ["Content-Length: 0", "Transfer-Encoding: x"],
        ["Content-Length:", "Transfer-Encoding: chunked"],
        ["Content-Length: abc", "Transfer-Encoding: chunked"],
    ] {
        assert_eq!(post(&fields, body), Outcome::Refused(400), "{fields:?}");
    }
}

#[test]
fn cl_cl() {
    for fields in [
        ["Content-Length: 6", "Content-Length: 5"],
        ["Content-Length: 6", "Content-Length: 6"],
        ["Content-Length: 6", "content-length: 6"],
    ] {
        assert_eq!(post(&fields, "123456"), Outcome::Refused(400), "{fields:?}");
    }
    for value in
        ["6,6", "6, 5", "+6", "-6", "06h", "6 ", "6\t", "6.0", "1e1", "0x6", "6\u{a0}", "\u{b}6", "6 6"]
    {
        let want = if value.trim_ascii_end() == "6" { Outcome::One(6, 0) } else { Outcome::Refused(400) };
        assert_eq!(post(&[&format!("Content-Length: {value}")], "123456"), want, "{value:?}");
    }
}

#[test]
fn te_te_obfuscations() {
    for field in [
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        " Transfer-Encoding: chunked",
        "Transfer-Encoding:\u{b}chunked",
        "Transfer-Encoding:\u{c}chunked",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked\u{0}",
        "Transfer-Encoding: \u{1}chunked",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: 'chunked'",
        "Transfer-Encoding: chunked;",
        "Transfer-Encoding: chunked; x=y",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: chunked,chunked",
        "Transfer-Encoding: cow",
        "Transfer-Encoding:\r\n chunked",
        "Transfer-Encoding:\n chunked",
        "Transfer-Encoding: chunked\rX: y",
        "X: y\nTransfer-Encoding: chunked",
        "X: y\rTransfer-Encoding: chunked",
        "Transfer-Encoding\0: chunked",
        "Transfer\u{a0}Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunk\u{17f}d",
        "Transfer-Encoding: chun\u{212a}ed",
    ] {
        assert_eq!(post(&[field], "0\r\n\r\n"), Outcome::Refused(400), "{field:?}");
        let both = post(&["Content-Length: 5", field], "0\r\n\r\n");
        assert_eq!(both, Outcome::Refused(400), "{field:?}");
    }
    assert_eq!(post(&["Transfer-Encoding: identity, chunked"], "0\r\n\r\n"), Outcome::Refused(501));
    assert_eq!(
        outcome("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        Outcome::Refused(400)
    );
}

#[test]
fn look_alikes_are_dropped_not_believed() {
    // Neither frames the body, and neither is forwarded to a server that reads `_` as `-`.
    for field in ["Transfer_Encoding: chunked", "Content_Length: 5"] {
        assert_eq!(post(&[field], "0\r\n\r\n"), Outcome::One(0, 5), "{field:?}");
    }
}

#[test]
fn chunk_size_tricks() {
    let chunked = |body: &str| post(&["Transfer-Encoding: chunked"], body);
    for body in [
        "0x5\r\nabcde\r\n0\r\n\r\n",
        "+5\r\nabcde\r\n0\r\n\r\n",
        "-5\r\nabcde\r\n0\r\n\r\n",
        " 5\r\nabcde\r\n0\r\n\r\n",
        "5 \r\nabcde\r\n0\r\n\r\n",
        "5\t\r\nabcde\r\n0\r\n\r\n",
        "5_0\r\nabcde\r\n0\r\n\r\n",
        "5\nabcde\r\n0\r\n\r\n",
        "5\rabcde\r\n0\r\n\r\n",
        "5\r\nabcde\n0\r\n\r\n",
        "5\r\nabcde0\r\n\r\n",
        "5\r\nabcdef\r\n0\r\n\r\n",
        "\r\nabcde\r\n0\r\n\r\n",
        ";a\r\n0\r\n\r\n",
        "5;a\nabcde\r\n0\r\n\r\n",
        "5;a\rb\r\nabcde\r\n0\r\n\r\n",
        "5;\0\r\nabcde\r\n0\r\n\r\n",
        "5\0\r\nabcde\r\n0\r\n\r\n",
        "10000000000000005\r\nabcde\r\n0\r\n\r\n",
        "00000000000000005\r\nabcde\r\n0\r\n\r\n",
        "ffffffffffffffff\r\nabcde\r\n0\r\n\r\n",
        "8000000000000000\r\nabcde\r\n0\r\n\r\n",
        "0\n\r\n",
        "0\r\n\n",
        "0\r\n\rX",
        "0\r\nx : y\r\n\r\n",
        "0\r\nx: y\n\r\n",
        "0\r\n x\r\n\r\n",
        "0\r\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        assert_eq!(chunked(body), Outcome::Refused(400), "{body:?}");
    }
    assert_eq!(chunked("0000000000000005\r\nabcde\r\n0\r\n\r\nGET"), Outcome::One(5, 3));
    assert_eq!(chunked("5 ;a=\"b;\"\r\nabcde\r\n00\r\n\r\nGET"), Outcome::One(5, 3));
    assert_eq!(chunked("0\r\nHost: b\r\n\r\nGET"), Outcome::One(0, 3));
    assert_eq!(chunked("7fffffffffffffff\r\n"), Outcome::Unfinished);
}

#[test]
fn hosts_and_lines_with_two_readings() {
    for text in [
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\tb\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a,b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a#b\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n",
        "GET http://b@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\rHost: a\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET /\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "GET / HTTP/1.1 X\r\nHost: a\r\n\r\n",
        "GET / x HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        assert_eq!(outcome(text), Outcome::Refused(400), "{text:?}");
    }
    assert_eq!(outcome("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nGG"), Outcome::One(1, 1));
}
