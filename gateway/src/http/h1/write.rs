//! Writing of message heads, of chunk framing, and of the gateway's own answers.
//!
//! Owns the bytes that go out in HTTP/1. Never sends. Invariant: a head is written as it is; what
//! must change for the next hop is edited before (`strip_hop_by_hop`, `set_framing`), and no writer
//! decides anything.
//!
//! Numbers are written by hand: formatting machinery costs more than the whole rest of a head.

use super::Persistence;
use crate::http::head::decimal;
use crate::http::{Head, Known, Refusal, RequestHead, ResponseHead};

/// Appends the head of a request as the upstream is to see it: `method SP path[?query] SP HTTP/1.1`, the fields, the
/// empty line.
pub fn write_request(request: &RequestHead, persistence: Persistence, out: &mut Vec<u8>) {
    // The arena holds all text of the head and more, so one reservation is enough.
    out.reserve(request.head.text_len() + 64);
    out.extend_from_slice(request.upstream_method_text());
    out.push(b' ');
    out.extend_from_slice(request.path());
    if let Some(query) = request.query() {
        out.push(b'?');
        out.extend_from_slice(query);
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    write_fields(&request.head, persistence, out);
}

/// Appends the head of a response: the status line of version 1.1 with the reason phrase that came
/// or the registered one, the fields, the empty line.
pub fn write_response(response: &ResponseHead, persistence: Persistence, out: &mut Vec<u8>) {
    out.reserve(response.head.text_len() + 96);
    let reason = response.reason();
    let reason = if reason.is_empty() { reason_phrase(response.status()).as_bytes() } else { reason };
    write_status_line(response.status(), reason, out);
    write_fields(&response.head, persistence, out);
}

/// Appends `100 Continue`.
pub fn write_continue(out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
}

/// Appends what comes before a chunk of `len` bytes; CR LF follows the chunk. `len` is not 0, which
/// would end the body.
pub fn write_chunk_header(len: usize, out: &mut Vec<u8>) {
    debug_assert!(len != 0, "an empty chunk ends the body");
    let mut line = [0; 18];
    let mut at = line.len() - 2;
    line[at..].copy_from_slice(b"\r\n");
    let mut rest = len;
    loop {
        at -= 1;
        line[at] = b"0123456789abcdef"[rest & 15];
        rest >>= 4;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&line[at..]);
}

/// Appends the last chunk, the trailer section and the empty line.
pub fn write_chunk_end(trailers: Option<&Head>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    if let Some(trailers) = trailers {
        trailers.write_lines(|lines| out.extend_from_slice(lines));
    }
    out.extend_from_slice(b"\r\n");
}

/// An answer that the gateway makes itself, with Kong's body: `{"message":"..."}`.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// Status code, within 200..=599.
    pub status: u16,
    /// The JSON body's one text.
    pub message: &'a str,
    /// Name of the member that holds it: `message`, as a rule. Needs no escapes.
    pub member: &'a str,
    /// Stands in place of the JSON body.
    pub content: Option<Content<'a>>,
    /// More fields, such as Retry-After.
    pub fields: &'a [(&'a str, &'a [u8])],
    /// Value of the Date field (IMF-fixdate), cached by the caller; none is written if empty.
    pub date: &'a [u8],
    /// The request was a HEAD: the head tells of a body that is not sent.
    pub head_only: bool,
    /// What to say of the connection.
    pub persistence: Persistence,
}

/// A body that is sent as it is.
#[derive(Clone, Copy, Debug)]
pub struct Content<'a> {
    /// Value of the Content-Type field; none is written if empty.
    pub media_type: &'a [u8],
    pub bytes: &'a [u8],
}

impl<'a> Answer<'a> {
    /// The answer to a refused request.
    pub fn to(refusal: Refusal, date: &'a [u8], head_only: bool, persistence: Persistence) -> Answer<'a> {
        let (status, message, fields) = (refusal.status, refusal.message(), refusal.fields());
        Answer { status, message, member: "message", content: None, fields, date, head_only, persistence }
    }
}

impl Answer<'_> {
    /// A 204 and a 304 end with their head (RFC 9112 section 6.3), so what they would carry is not told of either.
    fn has_body(&self) -> bool {
        !matches!(self.status, 204 | 304)
    }

    fn media_type(&self) -> &[u8] {
        self.content.map_or(JSON, |content| content.media_type)
    }

    fn length(&self) -> usize {
        if let Some(content) = &self.content {
            return content.bytes.len();
        }
        let mut length = Measure(0);
        write_message(self.member, self.message, &mut length);
        length.0
    }

    fn write_body(&self, out: &mut Vec<u8>) {
        match &self.content {
            _ if self.head_only || !self.has_body() => {}
            Some(content) => out.extend_from_slice(content.bytes),
            None => write_message(self.member, self.message, out),
        }
    }
}

/// Appends an answer of the gateway, head and body.
pub fn write_answer(answer: &Answer<'_>, out: &mut Vec<u8>) {
    let length = answer.length();
    out.reserve(length + 256);
    write_status_line(answer.status, reason_phrase(answer.status).as_bytes(), out);
    if !answer.date.is_empty() {
        write_field(Known::Date.as_str(), answer.date, out);
    }
    if answer.has_body() {
        if !answer.media_type().is_empty() {
            write_field(Known::ContentType.as_str(), answer.media_type(), out);
        }
        write_field(Known::ContentLength.as_str(), decimal(length as u64, &mut [0; 20]), out);
    }
    for (name, value) in answer.fields {
        write_field(name, value, out);
    }
    out.extend_from_slice(connection_line(answer.persistence));
    out.extend_from_slice(b"\r\n");
    answer.write_body(out);
}

/// The same answer as a head and a body apart, for response plugins and for HTTP/2. Connection
/// fields are left to the writer of the head.
pub fn fill_answer(answer: &Answer<'_>, head: &mut ResponseHead, body: &mut Vec<u8>) {
    head.clear();
    head.set_status(answer.status);
    body.clear();
    answer.write_body(body);
    if !answer.date.is_empty() {
        head.head.append_known(Known::Date, answer.date);
    }
    if answer.has_body() {
        if !answer.media_type().is_empty() {
            head.head.append_known(Known::ContentType, answer.media_type());
        }
        head.head.append_number(Known::ContentLength.as_str(), answer.length() as u64);
    }
    for (name, value) in answer.fields {
        head.head.append(name, value);
    }
}

const JSON: &[u8] = b"application/json; charset=utf-8";

fn write_fields(head: &Head, persistence: Persistence, out: &mut Vec<u8>) {
    head.write_lines(|lines| out.extend_from_slice(lines));
    out.extend_from_slice(connection_line(persistence));
    out.extend_from_slice(b"\r\n");
}

fn write_field(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    // No value may end its line, whoever made it (see `Head`).
    out.extend(value.iter().map(|&byte| if matches!(byte, b'\r' | b'\n' | 0) { b' ' } else { byte }));
    out.extend_from_slice(b"\r\n");
}

fn write_status_line(status: u16, reason: &[u8], out: &mut Vec<u8>) {
    let digit = |number: u16| b'0' + (number % 10) as u8;
    let mut start = *b"HTTP/1.1 ... ";
    start[9] = digit(status / 100);
    start[10] = digit(status / 10);
    start[11] = digit(status);
    out.extend_from_slice(&start);
    out.extend_from_slice(reason);
    out.extend_from_slice(b"\r\n");
}

const fn connection_line(persistence: Persistence) -> &'static [u8] {
    match persistence {
        Persistence::Implied => b"",
        Persistence::KeepAlive => b"Connection: keep-alive\r\n",
        Persistence::Close => b"Connection: close\r\n",
        Persistence::Upgrade => b"Connection: upgrade\r\n",
        Persistence::TakesTrailers => b"Connection: TE\r\nTE: trailers\r\n",
    }
}

/// Where bytes go: to a buffer, or only counted.
trait Sink {
    fn put(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

struct Measure(usize);

impl Sink for Measure {
    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

/// Writes `{"member":"..."}` with the text as a JSON string (RFC 8259 section 7).
fn write_message(member: &str, message: &str, out: &mut impl Sink) {
    out.put(b"{\"");
    out.put(member.as_bytes());
    out.put(b"\":\"");
    let text = message.as_bytes();
    let mut from = 0;
    for (at, &byte) in text.iter().enumerate() {
        if byte >= b' ' && !matches!(byte, b'"' | b'\\') {
            continue;
        }
        out.put(&text[from..at]);
        from = at + 1;
        match byte {
            b'"' | b'\\' => out.put(&[b'\\', byte]),
            _ => {
                let hex = |digit: u8| b"0123456789abcdef"[usize::from(digit)];
                out.put(&[b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(byte & 15)]);
            }
        }
    }
    out.put(&text[from..]);
    out.put(b"\"}");
}

/// The registered reason phrase of a status (RFC 9110 section 15); empty where there is none.
pub const fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        102 => "Processing",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        511 => "Network Authentication Required",
        _ => "",
    }
}

#[cfg(test)]
mod tests;
