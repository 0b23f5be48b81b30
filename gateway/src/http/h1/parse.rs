//! Parsing of message heads (RFC 9112 sections 2 to 5).
//!
//! Owns the way from received bytes to a [`RequestHead`] or [`ResponseHead`]: limits, strictness,
//! copying into the arena. Never decides framing or persistence. Invariant: the bytes of an
//! accepted head have one reading only; in particular each line ends in CR LF and no field is
//! folded.
//!
//! The lines are tokenised by httparse, which is lenient about line ends; the rest of the
//! strictness is here. Read `target` next, then `diagnose`.

use std::mem::MaybeUninit;

use httparse::{Header, Status};

use super::diagnose::diagnose;
use super::progress::Progress;
use super::target;
use crate::http::underscores::{FRAMING, poses_as};
use crate::http::{
    Head, Known, Method, PathPolicy, Reason, Refusal, RequestHead, ResponseHead, Span, Underscores, Version,
    grpc,
};

/// Limits on a message head, and what is done with doubtful parts of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeadLimits {
    /// Bytes of the request line without its CR LF; above it 414.
    pub request_line: usize,
    /// Bytes of the whole head, from the request line to the empty line; above it 431. A receive
    /// buffer must be able to hold one byte more.
    pub head: usize,
    /// Number of fields, at most [`MAX_FIELDS`]; above it 431.
    pub fields: usize,
    /// What is done with fields that have an underscore in their name; of requests only.
    pub underscores: Underscores,
    /// Path normalisation.
    pub path: PathPolicy,
}

/// Upper bound of [`HeadLimits::fields`].
pub const MAX_FIELDS: usize = 256;

impl Default for HeadLimits {
    fn default() -> HeadLimits {
        HeadLimits {
            request_line: 8 * 1024,
            head: 32 * 1024,
            fields: 100,
            underscores: Underscores::Drop,
            path: PathPolicy::default(),
        }
    }
}

/// How far a head has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parsed {
    /// More bytes are needed. Call again with the same head and a buffer that begins with the same
    /// bytes; [`RequestHead::clear`] starts over.
    Partial,
    /// The head is whole and takes the first `head_len` bytes of the buffer.
    Complete {
        /// Length of the head in bytes, empty lines before and after it included.
        head_len: usize,
    },
}

/// Parses the head of a request at the start of `buf`, which may hold more than the head.
///
/// Refuses with 400, 405 (CONNECT, TRACE), 414, 431 or 505; after a refusal the connection can only
/// be closed. What was in `out` is replaced, also by a refused head: as much of that as could be read
/// is there for the log.
pub fn parse_request(buf: &[u8], limits: &HeadLimits, out: &mut RequestHead) -> Result<Parsed, Refusal> {
    if !out.progress.begun() {
        out.clear();
    }
    let Some(lead) = empty_lines(buf)? else { return Ok(Parsed::Partial) };
    let text = &buf[lead..];
    if out.progress.begun()
        && !out.progress.advance(text, limits.request_line, limits.head).map_err(refuse)?
    {
        return Ok(Parsed::Partial);
    }
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut []);
    let fields = &mut fields[..limits.fields.min(MAX_FIELDS)];
    let len = match request.parse_with_uninit_headers(text, fields) {
        Ok(Status::Complete(len)) => len,
        Ok(Status::Partial) => {
            out.progress.advance(text, limits.request_line, limits.head).map_err(refuse)?;
            return Ok(Parsed::Partial);
        }
        Err(error) => return Err(refuse(diagnose(text, error))),
    };
    if len > limits.head {
        return Err(refuse(Reason::HeaderTooLarge));
    }
    out.progress = Progress::default();
    let head_text = &text[..len];
    out.head.store(head_text);
    let line_end = check_lines(head_text, request.headers).ok_or(refuse(Reason::BareLf))?;
    if line_end > limits.request_line {
        return Err(refuse(Reason::UriTooLong));
    }
    let method = request.method.unwrap_or_default().as_bytes();
    out.method = Method::of(method);
    out.method_text = span(head_text, method);
    out.target = span(head_text, request.path.unwrap_or_default().as_bytes());
    out.version = if request.version == Some(1) { Version::Http11 } else { Version::Http10 };
    match out.method {
        Method::Connect => return Err(refuse(Reason::ConnectRefused)),
        Method::Trace => return Err(refuse(Reason::TraceRefused)),
        _ => {}
    }
    for field in request.headers.iter() {
        let name = field.name.as_bytes();
        let known = Known::of(name);
        let call = || is_call(out.method, request.headers);
        if known == Known::Other && name.contains(&b'_') && !limits.underscores.keep(name, call) {
            out.underscored += 1;
            continue;
        }
        out.head.adopt(known, span(head_text, name), span(head_text, field.value));
    }
    if out.underscored > 0 && limits.underscores == Underscores::Reject {
        return Err(refuse(Reason::BadHeader));
    }
    target::take_apart(out, &limits.path)?;
    Ok(Parsed::Complete { head_len: lead + len })
}

/// Parses the head of a response at the start of `buf`, which may hold more than the head. Of the
/// limits, `request_line` and `underscores` do not apply.
///
/// Every refusal is 502 `upstream_bad_response`; the connection can only be closed.
pub fn parse_response(buf: &[u8], limits: &HeadLimits, out: &mut ResponseHead) -> Result<Parsed, Refusal> {
    const BAD: Refusal = Refusal::new(Reason::UpstreamBadResponse);
    if !out.progress.begun() {
        out.clear();
    }
    // httparse would skip empty lines, which no response begins with.
    match buf.first() {
        None => return Ok(Parsed::Partial),
        Some(b'H') => {}
        Some(_) => return Err(BAD),
    }
    let bad = |_| BAD;
    if out.progress.begun() && !out.progress.advance(buf, limits.head, limits.head).map_err(bad)? {
        return Ok(Parsed::Partial);
    }
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let fields = &mut fields[..limits.fields.min(MAX_FIELDS)];
    let config = httparse::ParserConfig::default();
    let len = match config.parse_response_with_uninit_headers(&mut response, buf, fields) {
        Ok(Status::Complete(len)) => len,
        Ok(Status::Partial) => {
            out.progress.advance(buf, limits.head, limits.head).map_err(bad)?;
            return Ok(Parsed::Partial);
        }
        Err(_) => return Err(BAD),
    };
    let status = response.code.unwrap_or_default();
    if len > limits.head || !(100..=599).contains(&status) {
        return Err(BAD);
    }
    out.progress = Progress::default();
    let head_text = &buf[..len];
    out.head.store(head_text);
    check_lines(head_text, response.headers).ok_or(BAD)?;
    out.status = status;
    out.reason = span(head_text, response.reason.unwrap_or_default().as_bytes());
    out.version = if response.version == Some(1) { Version::Http11 } else { Version::Http10 };
    adopt_all(&mut out.head, head_text, response.headers);
    Ok(Parsed::Complete { head_len: len })
}

/// Parses a trailer section, the empty line at its end included, as the fields of `out`. `None`
/// where it is malformed or has more than `fields` fields.
pub(super) fn parse_fields(text: &[u8], fields: usize, out: &mut Head) -> Option<()> {
    let mut storage = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let storage = &mut storage[..fields.min(MAX_FIELDS)];
    let Ok(Status::Complete((len, found))) = httparse::parse_headers(text, storage) else { return None };
    let ends = found.iter().all(|field| {
        let start = span(text, field.name.as_bytes()).start();
        start == 0 || text.get(..start).is_some_and(|before| before.ends_with(b"\r\n"))
    });
    if len != text.len() || !ends || !(text == b"\r\n" || text.ends_with(b"\r\n\r\n")) {
        return None;
    }
    out.clear();
    out.store(text);
    adopt_all(out, text, found);
    Some(())
}

const fn refuse(reason: Reason) -> Refusal {
    Refusal::new(reason)
}

fn adopt_all(head: &mut Head, text: &[u8], fields: &[Header<'_>]) {
    for field in fields {
        let name = field.name.as_bytes();
        let known = Known::of(name);
        if known == Known::Other && name.contains(&b'_') && poses_as(name, FRAMING) {
            continue;
        }
        head.adopt(known, span(text, name), span(text, field.value));
    }
}

/// Whether a request makes a gRPC call: over HTTP/1 one of gRPC-Web.
fn is_call(method: Method, fields: &[Header<'_>]) -> bool {
    let mut types = fields.iter().filter(|field| Known::of(field.name.as_bytes()) == Known::ContentType);
    method == Method::Post && types.next().is_some_and(|field| grpc::wire_of(field.value).is_some())
}

/// Length of the empty lines before a request, at most two of which are skipped: some clients send
/// one after a body (RFC 9112 section 2.2). `None` where nothing else is there yet.
fn empty_lines(buf: &[u8]) -> Result<Option<usize>, Refusal> {
    let mut lead = 0;
    loop {
        match &buf[lead..] {
            [b'\r', b'\n', ..] if lead < 4 => lead += 2,
            [] => return Ok(None),
            [b'\r'] if lead < 4 => return Ok(None),
            [b'\r' | b'\n', ..] => return Err(refuse(Reason::BadRequestLine)),
            _ => return Ok(Some(lead)),
        }
    }
}

/// Checks that each line of a head ends in CR LF, of which httparse has only seen the LF. Gives the
/// length of the first line.
#[inline]
fn check_lines(head: &[u8], fields: &[Header<'_>]) -> Option<usize> {
    // A field name begins right after the LF of the line before.
    let mut first = None;
    for field in fields {
        let start = span(head, field.name.as_bytes()).start();
        let line_end = start.checked_sub(2)?;
        if head.get(line_end) != Some(&b'\r') {
            return None;
        }
        first = first.or(Some(line_end));
    }
    if !head.ends_with(b"\r\n\r\n") {
        return None;
    }
    Some(first.unwrap_or(head.len() - 4))
}

/// Where `part`, a slice of `whole`, lies in it.
#[inline]
pub(super) fn span(whole: &[u8], part: &[u8]) -> Span {
    Span::new((part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize), part.len())
}

#[cfg(test)]
mod tests;
