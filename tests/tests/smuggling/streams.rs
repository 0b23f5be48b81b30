//! Requests of HTTP/2 that would be two requests, or half of one, if they were written down as HTTP/1 as they are.

use std::time::Duration;

use portcullis_tests::gateway::Gateway;
use portcullis_tests::h2::{H2, block, code, flag, frame, kind, status_of};

use super::Program;

/// What the attacker wants the origin to take for a request: `@` is the path prefix of the origin, `~` the number of the case.
const INNER: &str = "GET @/~/smuggled HTTP/1.1\r\nHost: test\r\n\r\n";
/// Longest wait for an answer: longer than the gateway's for the rest of a body.
const PATIENCE: Duration = Duration::from_secs(5);

/// A request: its class, its fields, and its body. `None`: the head ends the stream.
struct Payload {
    class: &'static str,
    fields: Vec<(String, String)>,
    body: Option<String>,
    /// Fields behind the body.
    trailers: Vec<(String, String)>,
}

fn request(
    class: &'static str,
    method: &str,
    path: &str,
    extra: &[(&str, &str)],
    body: Option<&str>,
) -> Payload {
    let pseudo = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "test")];
    let fields =
        pseudo.iter().chain(extra).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Payload { class, fields, body: body.map(str::to_owned), trailers: Vec::new() }
}

fn post(class: &'static str, extra: &[(&str, &str)], body: &str) -> Payload {
    request(class, "POST", "@/~/outer", extra, Some(body))
}

fn payloads() -> Vec<Payload> {
    let chunk = format!("0\r\n\r\n{INNER}");
    let mut list = vec![
        post("H2.CL", &[("content-length", "0")], INNER),
        post("H2.CL short", &[("content-length", "4")], INNER),
        post("H2.CL long", &[("content-length", "4000")], INNER),
        post("H2.CL twice", &[("content-length", "0"), ("content-length", "60")], INNER),
        post("H2.CL list", &[("content-length", "0, 60")], INNER),
        post("H2.CL sign", &[("content-length", "+3")], "abc"),
        post("H2.CL too large", &[("content-length", "18446744073709551617")], "a"),
        post("H2.TE", &[("transfer-encoding", "chunked")], &chunk),
        post("H2.TE other", &[("transfer-encoding", "x")], &chunk),
        post("H2.TE and length", &[("transfer-encoding", "chunked"), ("content-length", "4")], &chunk),
        post("no length", &[], &chunk),
        post("upper case", &[("Transfer-Encoding", "chunked")], &chunk),
        post("a space in a name", &[("transfer-encoding ", "chunked")], &chunk),
        post("a colon in a name", &[("transfer-encoding:chunked\r\nx", "y")], &chunk),
        post("an underscore", &[("transfer_encoding", "chunked")], &chunk),
        post("connection", &[("connection", "content-length")], INNER),
        post("expect", &[("expect", "100-continue")], INNER),
        request("GET with a body", "GET", "@/~/outer", &[], Some(INNER)),
        request("HEAD with a body", "HEAD", "@/~/outer", &[], Some(INNER)),
        request("length without a body", "GET", "@/~/outer", &[("content-length", "60")], None),
        request(
            "line end in a method",
            "GET @/~/smuggled HTTP/1.1\r\nx: y\r\n\r\nGET",
            "@/~/outer",
            &[],
            None,
        ),
        request("space in a method", "GET @/~/smuggled", "@/~/outer", &[], None),
        request(
            "line end in a path",
            "GET",
            "@/~/outer HTTP/1.1\r\nHost: test\r\n\r\nGET @/~/smuggled",
            &[],
            None,
        ),
        request("space in a path", "GET", "@/~/outer HTTP/1.1", &[], None),
        request("tab in a path", "GET", "@/~/outer\tHTTP/1.1", &[], None),
        request("no slash", "GET", "x@/~/outer", &[], None),
        request("an absolute path", "GET", "http://evil@/~/outer", &[], None),
        request("a fragment", "GET", "@/~/outer#x", &[], None),
        request("a host beside", "GET", "@/~/outer", &[("host", "evil")], None),
    ];
    for injected in [
        "b\r\ntransfer-encoding: chunked",
        "b\r\n\r\nGET @/~/smuggled HTTP/1.1\r\nhost: test",
        "b\ntransfer-encoding: chunked",
        "b\rtransfer-encoding: chunked",
        "b\0",
    ] {
        list.push(post("line end in a value", &[("a", injected)], &chunk));
        list.push(post("line end in a cookie", &[("cookie", "a=b"), ("cookie", injected)], &chunk));
        list.push(post("line end in a name", &[(injected, "a")], &chunk));
        let mut authority = request("line end in an authority", "GET", "@/~/outer", &[], None);
        authority.fields[3].1 = injected.to_owned();
        list.push(authority);
        let mut scheme = request("line end in a scheme", "GET", "@/~/outer", &[], None);
        scheme.fields[1].1 = format!("http://test@/~/smuggled {injected}");
        list.push(scheme);
    }
    for (name, value) in [
        ("content-length", "60"),
        ("transfer-encoding", "chunked"),
        ("x\r\ny", "1"),
        (":path", "/x"),
        ("x", "a\r\n\r\nb"),
    ] {
        let mut with = post("trailers", &[], "abc");
        with.trailers = vec![(name.to_owned(), value.to_owned())];
        list.push(with);
    }
    list
}

/// Sends each, and asserts after it that nothing of it was taken for another request.
#[track_caller]
pub(super) fn check(origin: &Program, gateway: &Gateway) {
    let prefix = format!("/{}", origin.name);
    for (number, payload) in payloads().iter().enumerate() {
        let number = format!("h2-{number}");
        let shown = format!("{} {} {number}", origin.name, payload.class);
        let fill = |text: &str| text.replace('@', &prefix).replace('~', &number);
        let bytes = |fields: &[(String, String)]| {
            let filled: Vec<_> = fields.iter().map(|(name, value)| (fill(name), fill(value))).collect();
            block(&filled.iter().map(|(name, value)| (&**name, &**value)).collect::<Vec<_>>())
        };
        let mut h2 = H2::open(gateway.addr());
        let end = |last: bool| if last { flag::END_STREAM } else { 0 };
        h2.send(&frame(
            kind::HEADERS,
            flag::END_HEADERS | end(payload.body.is_none()),
            1,
            &bytes(&payload.fields),
        ));
        if let Some(body) = &payload.body {
            h2.send(&frame(kind::DATA, end(payload.trailers.is_empty()), 1, fill(body).as_bytes()));
        }
        if !payload.trailers.is_empty() {
            let trailers = bytes(&payload.trailers);
            h2.send(&frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, &trailers));
        }
        assert!(is_answered(&mut h2), "{shown}: neither a response nor a reset");
        drop(h2);
        super::unmixed(origin, gateway, &number, &shown);
    }
}

/// Whether the stream ends one way or the other.
fn is_answered(h2: &mut H2) -> bool {
    loop {
        match h2.frame_within(PATIENCE) {
            Err(_) => return false,
            Ok(None) => return true,
            Ok(Some(end)) if end.kind == kind::GOAWAY => return end.code() != code::NO_ERROR,
            Ok(Some(frame)) if frame.stream == 1 && frame.kind == kind::HEADERS => {
                // An interim response is none yet.
                if status_of(&frame.payload) >= 200 {
                    return true;
                }
            }
            Ok(Some(frame)) if frame.stream == 1 && frame.kind == kind::RST_STREAM => return true,
            Ok(Some(_)) => {}
        }
    }
}
