//! Decoding of message bodies in place (RFC 9112 sections 6 and 7.1).
//!
//! Owns the state of one body: how much is left, where in the chunk framing it stands, the trailer
//! section. Never copies payload: it says which ranges of the input are payload. Invariant: any
//! cutting of the same bytes into inputs gives the same payload, the same end and the same refusal.
//!
//! Chunked bodies, as a state machine:
//!
//! ```text
//!            ┌────────────────────────────────────────────────────────────┐
//!            ▼                                                            │
//!   Size ─► (Blank ─►) Extension ─► SizeLf ─► Data ─► DataCr ─► DataLf ───┘
//!                                     │ size 0
//!                                     ▼
//!                                 TrailerStart ─► TrailerLf ─► Done
//!                                     └─► Trailer ────────────► Done
//! ```
//!
//! Strict where senders and proxies have disagreed: CR LF only, at least one and at most 16 hex
//! digits, a value of at most 63 bits, nothing but an extension after them. What is not payload is
//! bounded: each chunk may carry as many framing bytes as it has payload and 16 more; what is above
//! that adds up over the body and may not pass [`EXCESS_BYTES`], so single-byte chunks with long
//! extensions end early.

use std::ops::Range;

use super::BodyFraming;
use super::parse::parse_fields;
use crate::http::{Head, Reason, Refusal, TrailerLimits};

/// Bytes of the extensions of one chunk, CR included.
pub const EXTENSION_BYTES: u32 = 1024;
/// Framing bytes of a body above the free allowance of its chunks.
pub const EXCESS_BYTES: u64 = 16 * 1024;

/// Framing bytes that each chunk has free beside its payload: ample for a size line and two CR LF.
const FREE_BYTES: u64 = 16;
const SIZE_DIGITS: u8 = 16;

/// What one call of [`BodyDecoder::decode`] found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// Payload, as a range of the input; it lies within the consumed bytes and may be empty.
    pub payload: Range<usize>,
    /// Bytes of the input that are dealt with once the payload is used.
    pub consumed: usize,
    /// The body is complete; what follows in the input is not part of it.
    pub done: bool,
}

/// Bounds on a body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BodyLimits {
    /// Payload bytes; above it 413.
    pub payload: u64,
}

impl BodyLimits {
    /// No bound on the payload.
    pub const NONE: BodyLimits = BodyLimits { payload: u64::MAX };
}

/// Decoder of one body. Owns no memory unless there is a trailer section.
#[derive(Debug)]
pub struct BodyDecoder {
    state: State,
    side: Side,
    /// Bytes left of the body or chunk; while a size is read, its value so far.
    left: u64,
    digits: u8,
    /// Bytes of the size line of this chunk after its digits.
    line: u32,
    excess: u64,
    /// Payload bytes that the limit still allows.
    allowed: u64,
    trailer_limits: TrailerLimits,
    trailer_text: Vec<u8>,
    trailers: Head,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Length,
    UntilClose,
    Size,
    Blank,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerLf,
    Trailer,
    Done,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    Request,
    Response,
}

impl BodyDecoder {
    /// A decoder for the body of a request. Refuses with 413 a length above the limit.
    pub fn request(framing: BodyFraming, limits: BodyLimits) -> Result<BodyDecoder, Refusal> {
        match framing {
            BodyFraming::Length(length) if length > limits.payload => Err(Refusal::new(Reason::BodyTooLarge)),
            framing => Ok(BodyDecoder::new(framing, Side::Request, limits.payload)),
        }
    }

    /// A decoder for the body of a response.
    pub fn response(framing: BodyFraming) -> BodyDecoder {
        BodyDecoder::new(framing, Side::Response, BodyLimits::NONE.payload)
    }

    /// The decoder with other limits on the trailer section than those of any message.
    pub fn with_trailers(mut self, limits: TrailerLimits) -> BodyDecoder {
        self.trailer_limits = limits;
        self
    }

    fn new(framing: BodyFraming, side: Side, allowed: u64) -> BodyDecoder {
        let (state, left) = match framing {
            BodyFraming::None | BodyFraming::Length(0) => (State::Done, 0),
            BodyFraming::Length(length) => (State::Length, length),
            BodyFraming::Chunked => (State::Size, 0),
            BodyFraming::UntilClose => (State::UntilClose, 0),
        };
        BodyDecoder {
            state,
            side,
            left,
            digits: 0,
            line: 0,
            excess: 0,
            allowed,
            trailer_limits: TrailerLimits::default(),
            trailer_text: Vec::new(),
            trailers: Head::new(),
        }
    }

    /// Decodes from the start of `input`, the bytes that follow those consumed before. A step has at
    /// most one range of payload; call again with the rest of the input while there is a rest and
    /// the body is not done. A step that is not done and consumed all needs more input.
    ///
    /// Refuses requests with 400 `bad_chunk`, 413 or 431, responses with 502. The body can't be
    /// decoded further then.
    pub fn decode(&mut self, input: &[u8]) -> Result<Step, Refusal> {
        match self.state {
            State::Length => {
                let len = usize::try_from(self.left).map_or(input.len(), |left| left.min(input.len()));
                self.left -= len as u64;
                if self.left == 0 {
                    self.state = State::Done;
                }
                Ok(Step { payload: 0..len, consumed: len, done: self.is_done() })
            }
            State::UntilClose => Ok(Step { payload: 0..input.len(), consumed: input.len(), done: false }),
            State::Done => Ok(Step { payload: 0..0, consumed: 0, done: true }),
            _ => self.decode_chunked(input).map_err(|reason| match self.side {
                Side::Request => Refusal::new(reason),
                Side::Response => Refusal::new(Reason::UpstreamBadResponse),
            }),
        }
    }

    /// The sender has closed. Completes a body that lasts until then, and refuses any other that is
    /// not complete: `client_aborted`, or 502 `upstream_truncated`.
    pub fn close(&mut self) -> Result<(), Refusal> {
        match (self.state, self.side) {
            (State::Done, _) => Ok(()),
            (State::UntilClose, _) => {
                self.state = State::Done;
                Ok(())
            }
            (_, Side::Request) => Err(Refusal::new(Reason::ClientAborted)),
            (_, Side::Response) => Err(Refusal::new(Reason::UpstreamTruncated)),
        }
    }

    /// Whether the body is complete. True from the start where there is none.
    #[inline]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether any byte was consumed without payload so far: part of the framing before the first payload.
    pub fn has_begun(&self) -> bool {
        !matches!(self.state, State::Length | State::UntilClose | State::Size) || self.digits > 0
    }

    /// Payload bytes that are known to follow, where the framing is a length.
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Length => Some(self.left),
            State::Done => Some(0),
            _ => None,
        }
    }

    /// The trailer fields that may be forwarded; empty until the body is complete.
    pub fn trailers(&self) -> &Head {
        &self.trailers
    }

    fn decode_chunked(&mut self, input: &[u8]) -> Result<Step, Reason> {
        let mut payload = 0..0;
        let mut at = 0;
        while let Some(&byte) = input.get(at) {
            match (self.state, byte) {
                (State::Done, _) => break,
                (State::Data, _) => {
                    // One range a step: the next chunk's payload waits for the next call.
                    if !payload.is_empty() {
                        break;
                    }
                    let rest = input.len() - at;
                    let len = usize::try_from(self.left).map_or(rest, |left| left.min(rest));
                    payload = at..at + len;
                    at += len;
                    self.left -= len as u64;
                    if self.left == 0 {
                        self.state = State::DataCr;
                    }
                    continue;
                }
                (State::DataCr, b'\r') => self.state = State::DataLf,
                (State::DataLf, b'\n') => self.state = State::Size,
                (State::Size, _) if byte.is_ascii_hexdigit() => self.size_digit(byte)?,
                (State::Size, _) if self.digits == 0 => return Err(Reason::BadChunk),
                (State::Size | State::Extension, b'\r') => self.state = State::SizeLf,
                (State::Size | State::Blank, b';') => self.extension_byte(State::Extension)?,
                // White space is taken only before an extension (RFC 9112 section 7.1.1).
                (State::Size | State::Blank, b' ' | b'\t') => self.extension_byte(State::Blank)?,
                (State::Extension, b'\t' | b' '..=0x7e | 0x80..) => self.extension_byte(State::Extension)?,
                (State::SizeLf, b'\n') => self.size_line_ends()?,
                (State::TrailerStart, b'\r') => self.state = State::TrailerLf,
                (State::TrailerLf, b'\n') => self.state = State::Done,
                (State::TrailerStart | State::Trailer, _) => {
                    self.state = State::Trailer;
                    at += self.trailer_line(&input[at..])?;
                    continue;
                }
                _ => return Err(Reason::BadChunk),
            }
            at += 1;
        }
        Ok(Step { payload, consumed: at, done: self.is_done() })
    }

    #[inline]
    fn size_digit(&mut self, digit: u8) -> Result<(), Reason> {
        let value = char::from(digit).to_digit(16).ok_or(Reason::BadChunk)?;
        self.digits += 1;
        if self.digits > SIZE_DIGITS || self.left > (i64::MAX as u64) >> 4 {
            return Err(Reason::BadChunk);
        }
        self.left = self.left << 4 | u64::from(value);
        Ok(())
    }

    fn extension_byte(&mut self, next: State) -> Result<(), Reason> {
        self.state = next;
        self.line += 1;
        if self.line >= EXTENSION_BYTES { Err(Reason::BadChunk) } else { Ok(()) }
    }

    /// The size line is whole: accounts for the framing and goes on to the data or the trailers.
    fn size_line_ends(&mut self) -> Result<(), Reason> {
        let framing = u64::from(self.digits) + u64::from(self.line) + 4;
        self.excess += framing.saturating_sub(FREE_BYTES.saturating_add(self.left));
        if self.excess > EXCESS_BYTES {
            return Err(Reason::BadChunk);
        }
        self.allowed = self.allowed.checked_sub(self.left).ok_or(Reason::BodyTooLarge)?;
        self.digits = 0;
        self.line = 0;
        self.state = if self.left == 0 { State::TrailerStart } else { State::Data };
        Ok(())
    }

    /// Takes a line or part of one into the trailer section; says how many bytes.
    #[cold]
    fn trailer_line(&mut self, rest: &[u8]) -> Result<usize, Reason> {
        let feed = rest.iter().position(|&byte| byte == b'\n');
        let len = feed.map_or(rest.len(), |feed| feed + 1);
        if self.trailer_text.len() + len > self.trailer_limits.octets {
            return Err(Reason::HeaderTooLarge);
        }
        self.trailer_text.extend_from_slice(&rest[..len]);
        if feed.is_some() && !self.trailer_text.ends_with(b"\r\n") {
            return Err(Reason::BareLf);
        }
        if self.trailer_text.ends_with(b"\r\n\r\n") {
            self.finish_trailers()?;
            self.state = State::Done;
        }
        Ok(len)
    }

    /// Parses the trailer section and drops what must not come in one.
    fn finish_trailers(&mut self) -> Result<(), Reason> {
        let text = std::mem::take(&mut self.trailer_text);
        parse_fields(&text, self.trailer_limits.fields, &mut self.trailers).ok_or(Reason::BadChunk)?;
        self.trailer_limits.strip(&mut self.trailers);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
