//! The sources under test, built with coverage and sanitizers.
//!
//! Owns the list of modules that are fuzzed, and the loops that targets share. The modules are
//! included by path instead of depended on: the gateway would bring its TLS, BPF and runtime
//! dependencies along, which take minutes to build under sanitizers and are not under test.
//! Invariant: only modules that do no I/O are here.

#[path = "../../../gateway/src/http/mod.rs"]
pub mod http;
pub mod h2;
#[path = "../../../ebpf/src/parse.rs"]
pub mod packet;

pub mod independent;

use http::h1::{
    self, BodyDecoder, BodyFraming, BodyLimits, HeadLimits, Parsed, Persistence, parse_request, parse_response,
};
pub use http::Version;
use http::{Known, Method, RequestHead, ResponseHead};

/// The request at the start of a receive buffer that grows from one of `stages` to the next, and the
/// length of its head; `None` where it is refused or not complete. Longer lines than a gateway takes are
/// allowed, as encoding may lengthen what is written.
pub fn read_request(stages: &[&[u8]]) -> Option<(RequestHead, usize)> {
    let limits = HeadLimits { request_line: usize::MAX, head: usize::MAX, ..HeadLimits::default() };
    let mut head = RequestHead::new();
    for buffer in stages {
        if let Parsed::Complete { head_len } = parse_request(buffer, &limits, &mut head).ok()? {
            return Some((head, head_len));
        }
    }
    None
}

/// Payload and number of bytes consumed of a chunked body that comes in `pieces`; `None` where it is
/// refused or not complete.
pub fn decode_chunked<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Option<(Vec<u8>, usize)> {
    let mut decoder = BodyDecoder::request(BodyFraming::Chunked, BodyLimits { payload: 1 << 20 }).ok()?;
    let (mut payload, mut consumed) = (Vec::new(), 0);
    for mut piece in pieces {
        while !piece.is_empty() && !decoder.is_done() {
            let step = decoder.decode(piece).ok()?;
            payload.extend_from_slice(&piece[step.payload]);
            consumed += step.consumed;
            piece = &piece[step.consumed..];
        }
    }
    decoder.is_done().then_some((payload, consumed))
}

/// A request that Portcullis takes, as it stands before it is forwarded.
pub struct Request {
    pub head: RequestHead,
    pub framing: BodyFraming,
    pub body: Vec<u8>,
}

/// The requests at the start of `data` that are whole and not refused, and how many bytes they take.
pub fn read_requests(data: &[u8]) -> (Vec<Request>, usize) {
    let (mut found, mut taken) = (Vec::new(), 0);
    while let Some((request, len)) = read_whole_request(&data[taken..]) {
        taken += len;
        found.push(request);
    }
    (found, taken)
}

fn read_whole_request(data: &[u8]) -> Option<(Request, usize)> {
    let mut head = RequestHead::new();
    let Parsed::Complete { head_len } = parse_request(data, &HeadLimits::default(), &mut head).ok()? else {
        return None;
    };
    let framing = h1::request_framing(&head).ok()?;
    h1::expectation(&head).ok()?;
    h1::strip_hop_by_hop(&mut head.head.clone()).ok()?;
    let decoder = BodyDecoder::request(framing, BodyLimits { payload: 1 << 20 }).ok()?;
    let (body, len) = decode(decoder, &data[head_len..])?;
    Some((Request { head, framing, body }, head_len + len))
}

/// Payload of a whole body at the start of `data`, and the bytes it takes.
fn decode(mut decoder: BodyDecoder, data: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut body, mut at) = (Vec::new(), 0);
    while !decoder.is_done() {
        if at == data.len() {
            decoder.close().ok()?;
            break;
        }
        let step = decoder.decode(&data[at..]).ok()?;
        body.extend_from_slice(&data[at..][step.payload]);
        at += step.consumed;
    }
    Some((body, at))
}

/// Appends the bytes that the upstream gets, by the steps that the exchange takes.
pub fn forward(request: Request, out: &mut Vec<u8>) {
    let Request { mut head, framing, body } = request;
    h1::strip_hop_by_hop(&mut head.head).expect("it was read");
    head.head.remove_known(Known::Expect);
    if framing == BodyFraming::Chunked {
        h1::set_framing(&mut head.head, framing);
    }
    h1::write_request(&head, Persistence::Implied, out);
    write_body(framing, &body, out);
}

/// A response that Portcullis takes from an upstream.
pub struct Response {
    head: ResponseHead,
    framing: BodyFraming,
    pub body: Vec<u8>,
}

/// The final response at the start of `data`, and how many bytes it takes; `None` where it is refused or not whole.
pub fn read_response(data: &[u8], method: Method) -> Option<(Response, usize)> {
    let mut head = ResponseHead::new();
    let Parsed::Complete { head_len } = parse_response(data, &HeadLimits::default(), &mut head).ok()? else {
        return None;
    };
    let framing = h1::response_framing(&head, method).ok()?;
    if head.is_interim() || h1::strip_hop_by_hop(&mut head.head.clone()).is_err() {
        return None;
    }
    let (body, len) = decode(BodyDecoder::response(framing), &data[head_len..])?;
    Some((Response { head, framing, body }, head_len + len))
}

/// Appends the bytes that a client of `version` gets, by the steps that the exchange takes.
pub fn relay(response: Response, version: Version, out: &mut Vec<u8>) {
    let Response { mut head, framing, body } = response;
    h1::strip_hop_by_hop(&mut head.head).expect("it was read");
    let relayed = h1::relay_framing(framing, version);
    if framing != BodyFraming::None || head.status() == 204 {
        h1::set_framing(&mut head.head, relayed);
    }
    h1::write_response(&head, Persistence::to(version, relayed != BodyFraming::UntilClose), out);
    write_body(relayed, &body, out);
}

fn write_body(framing: BodyFraming, body: &[u8], out: &mut Vec<u8>) {
    if framing != BodyFraming::Chunked {
        return out.extend_from_slice(body);
    }
    for chunk in body.chunks(11) {
        h1::write_chunk_header(chunk.len(), out);
        out.extend_from_slice(&[chunk, b"\r\n"].concat());
    }
    h1::write_chunk_end(None, out);
}
