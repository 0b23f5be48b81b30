//! The parser against a naive one that splits lines: what either accepts, the other reads alike.

use proptest::prelude::*;

use super::*;
use crate::http::head::is_token;

/// A request head as RFC 9112 sections 3 and 5 have it, without a thought for speed.
#[derive(Debug, PartialEq)]
struct Reference {
    method: Vec<u8>,
    target: Vec<u8>,
    version: u8,
    fields: Vec<(Vec<u8>, Vec<u8>)>,
    len: usize,
}

fn reference(mut text: &[u8]) -> Option<Reference> {
    let mut len = 0;
    while text.starts_with(b"\r\n") && len < 4 {
        text = &text[2..];
        len += 2;
    }
    let end = text.windows(4).position(|four| four == b"\r\n\r\n")?;
    len += end + 4;
    let mut lines = Vec::new();
    let mut rest = &text[..end + 2];
    while !rest.is_empty() {
        let at = rest.windows(2).position(|pair| pair == b"\r\n")?;
        lines.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    let words: Vec<&[u8]> = lines[0].split(|&byte| byte == b' ').collect();
    let [method, target, version] = words[..] else { return None };
    let version = match version {
        b"HTTP/1.0" => 0,
        b"HTTP/1.1" => 1,
        _ => return None,
    };
    let visible = |byte: &u8| *byte > b' ' && *byte != 0x7f;
    if !is_token(method) || target.is_empty() || !target.iter().all(visible) {
        return None;
    }
    std::str::from_utf8(target).ok()?;
    let mut fields = Vec::new();
    for line in &lines[1..] {
        let colon = line.iter().position(|&byte| byte == b':')?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        let allowed = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
        if !is_token(name) || !value.iter().all(allowed) {
            return None;
        }
        let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
        let start = value.iter().position(|byte| !blank(byte)).unwrap_or(value.len());
        let stop = value.iter().rposition(|byte| !blank(byte)).map_or(start, |last| last + 1);
        fields.push((name.to_vec(), value[start..stop].to_vec()));
    }
    Some(Reference { method: method.to_vec(), target: target.to_vec(), version, fields, len })
}

fn ours(text: &[u8]) -> Result<Option<Reference>, Reason> {
    let limits = HeadLimits { underscores: Underscores::Keep, ..HeadLimits::default() };
    let mut head = RequestHead::new();
    match parse_request(text, &limits, &mut head).map_err(|refusal| refusal.reason)? {
        Parsed::Partial => Ok(None),
        Parsed::Complete { head_len } => Ok(Some(Reference {
            method: head.method_text().to_vec(),
            target: head.raw_target().to_vec(),
            version: u8::from(head.version() == Version::Http11),
            fields: head.head.iter().map(|(_, name, value)| (name.to_vec(), value.to_vec())).collect(),
            len: head_len,
        })),
    }
}

/// Refusals that are not about syntax, which is all that the reference knows.
fn is_about_meaning(reason: Reason, host: Option<&[u8]>) -> bool {
    match reason {
        Reason::BadTarget
        | Reason::BadPathEncoding
        | Reason::MissingHost
        | Reason::DuplicateHost
        | Reason::ConnectRefused
        | Reason::TraceRefused => true,
        // An invalid Host.
        Reason::BadHeader => host.is_some_and(|host| !host.iter().all(u8::is_ascii_alphanumeric)),
        _ => false,
    }
}

const PIECES: &[&str] = &[
    "GET",
    "POST",
    " ",
    " ",
    "/",
    "/a",
    "?b",
    "HTTP/1.1",
    "HTTP/1.0",
    "\r\n",
    "\r\n",
    "\n",
    "\r",
    "Host",
    ":",
    ": ",
    "a",
    "\t",
    "\0",
    "\x7f",
    "\u{e9}",
    "Content-Length",
    "5",
    ",",
    "_",
    "%41",
    "..",
    "*",
    "http://a",
];

fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let seeds = prop_oneof![
        Just("GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        Just("POST /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nX-A:b\t\r\n\r\nabcde"),
        Just("\r\nOPTIONS * HTTP/1.0\r\nx: \r\ny:\r\n\r\nGET / HTTP/1.1\r\n"),
    ];
    let edit = (any::<prop::sample::Index>(), 0..3u8, 0..PIECES.len());
    (seeds, prop::collection::vec(edit, 0..4)).prop_map(|(seed, edits)| {
        let mut text = seed.as_bytes().to_vec();
        for (at, kind, piece) in edits {
            let at = at.index(text.len());
            let piece = PIECES[piece].bytes();
            match kind {
                0 => drop(text.splice(at..at, piece)),
                1 => drop(text.splice(at..at + 1, piece)),
                _ => drop(text.drain(at..at + 1)),
            }
        }
        text
    })
}

fn check(text: &[u8]) {
    let shown = text.escape_ascii();
    match (ours(text), reference(text)) {
        (Ok(Some(ours)), wanted) => {
            let mut ours = ours;
            // An absolute target in HTTP/1.0 gets a Host field that did not come.
            if wanted.as_ref().is_some_and(|wanted| wanted.fields.len() + 1 == ours.fields.len()) {
                ours.fields.pop_if(|field| field.0 == b"Host" && ours.version == 0);
            }
            assert_eq!(Some(ours), wanted, "{shown}");
        }
        (Ok(None), Some(_)) => panic!("not seen to be whole: {shown}"),
        (Ok(None), None) => {}
        (Err(reason), Some(wanted)) => {
            let host = wanted.fields.iter().find(|field| field.0.eq_ignore_ascii_case(b"host"));
            let host = host.map(|field| field.1.as_slice());
            assert!(is_about_meaning(reason, host), "{} for {shown}", reason.as_str());
        }
        (Err(_), None) => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn a_mutated_head_is_read_as_the_reference_reads_it(text in mutated()) {
        check(&text);
    }

    #[test]
    fn any_pieces_are_read_as_the_reference_reads_them(
        pieces in prop::collection::vec(0..PIECES.len(), 0..24),
    ) {
        let text: String = pieces.iter().map(|&piece| PIECES[piece]).collect();
        check(text.as_bytes());
    }
}
