//! Decoding of message bodies in place.

use std::ops::Range;

use super::BodyFraming;
use crate::http::{Head, Refusal};

/// What one call of [`BodyDecoder::decode`] found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// Payload, as a range of the input; within the consumed bytes, may be empty.
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

/// Decoder of one body.
#[derive(Debug)]
pub struct BodyDecoder {
    framing: BodyFraming,
    trailers: Head,
}

impl BodyDecoder {
    /// A decoder for the body of a request.
    pub fn request(framing: BodyFraming, limits: BodyLimits) -> Result<BodyDecoder, Refusal> {
        let _ = limits;
        Ok(BodyDecoder { framing, trailers: Head::new() })
    }

    /// A decoder for the body of a response.
    pub fn response(framing: BodyFraming) -> BodyDecoder {
        BodyDecoder { framing, trailers: Head::new() }
    }

    /// Decodes from the start of `input`, the bytes that follow those consumed before. Yields at
    /// most one range of payload; call again with the rest until everything is consumed. A step
    /// that is not done, consumed nothing and has no payload needs more input.
    pub fn decode(&mut self, input: &[u8]) -> Result<Step, Refusal> {
        let _ = self.framing;
        Ok(Step { payload: 0..0, consumed: input.len(), done: false })
    }

    /// The sender has closed: completes a body that lasts until then, and refuses any other that is
    /// not complete.
    pub fn close(&mut self) -> Result<(), Refusal> {
        Ok(())
    }

    /// Whether the body is complete.
    pub fn is_done(&self) -> bool {
        false
    }

    /// The trailer fields, once the body is complete.
    pub fn trailers(&self) -> &Head {
        &self.trailers
    }
}
