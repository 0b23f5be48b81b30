//! The sources under test, built with coverage and sanitizers.
//!
//! Owns the list of modules that are fuzzed, and the loops that targets share. The modules are
//! included by path instead of depended on: the gateway would bring its TLS, BPF and runtime
//! dependencies along, which take minutes to build under sanitizers and are not under test.
//! Invariant: only modules that do no I/O are here.

#[path = "../../../gateway/src/http/mod.rs"]
pub mod http;
#[path = "../../../ebpf/src/parse.rs"]
pub mod packet;

use http::RequestHead;
use http::h1::{BodyDecoder, BodyFraming, BodyLimits, HeadLimits, Parsed, parse_request};

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
