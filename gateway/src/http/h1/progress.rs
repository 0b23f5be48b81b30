//! How far an unfinished head has been looked at.
//!
//! Owns the search for the end of a head that arrives in pieces. Never parses. Invariant: each byte
//! of an unfinished head is looked at a bounded number of times, however it is cut: a sender of
//! single bytes costs time that is linear in what it sends.

use crate::http::Reason;

/// What is known of the bytes received so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(in crate::http) struct Progress {
    /// Bytes that hold no end of the head; 0 before the first attempt.
    scanned: usize,
    /// The first line is whole.
    line: bool,
}

impl Progress {
    /// Whether an attempt to parse has been made on a part of this head.
    #[inline]
    pub fn begun(self) -> bool {
        self.scanned != 0
    }

    /// Looks at the new bytes of `text`; says whether they complete the head. Refuses a bare LF
    /// (RFC 9112 section 2.2 allows it; it is how heads get two readings) and what is over a limit.
    #[cold]
    pub fn advance(&mut self, text: &[u8], line_limit: usize, head_limit: usize) -> Result<bool, Reason> {
        let mut at = self.scanned;
        while let Some(offset) = text.get(at..).and_then(|new| new.iter().position(|&byte| byte == b'\n')) {
            let feed = at + offset;
            if feed == 0 || text[feed - 1] != b'\r' {
                return Err(Reason::BareLf);
            }
            if !self.line && feed - 1 > line_limit {
                return Err(Reason::UriTooLong);
            }
            self.line = true;
            at = feed + 1;
            if text[..at].ends_with(b"\r\n\r\n") {
                return Ok(true);
            }
        }
        self.scanned = text.len();
        // The CR of the line end may be the last byte that is here.
        if !self.line && text.len() > line_limit.saturating_add(1) {
            return Err(Reason::UriTooLong);
        }
        if text.len() > head_limit {
            return Err(Reason::HeaderTooLarge);
        }
        Ok(false)
    }
}
