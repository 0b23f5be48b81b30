//! The head of a response: status, reason phrase, version, fields.
//!
//! Owns where these parts lie in the arena of the head. Never parses and never decides.
//! Invariant: the status is within 100..=599.

use super::Version;
use super::h1::Progress;
use super::head::{Head, Span};

/// A response head. Reused from response to response: [`ResponseHead::clear`] keeps its memory.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// The fields.
    pub head: Head,
    pub(super) status: u16,
    pub(super) reason: Span,
    pub(super) version: Version,
    /// Where the next attempt to parse goes on.
    pub(super) progress: Progress,
}

impl Default for ResponseHead {
    fn default() -> ResponseHead {
        ResponseHead {
            head: Head::new(),
            status: 200,
            reason: Span::EMPTY,
            version: Version::Http11,
            progress: Progress::default(),
        }
    }
}

impl ResponseHead {
    /// An empty head (status 200) that owns no memory yet.
    pub fn new() -> ResponseHead {
        ResponseHead::default()
    }

    /// Forgets the message, and keeps the memory for the next one.
    pub fn clear(&mut self) {
        let mut head = std::mem::take(&mut self.head);
        head.clear();
        *self = ResponseHead { head, ..ResponseHead::default() };
    }

    /// The status code, within 100..=599.
    #[inline]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Whether it is interim (1xx): another head of the same response follows, except after 101.
    pub fn is_interim(&self) -> bool {
        self.status < 200
    }

    /// The reason phrase as received; empty where there was none or the status was set here.
    pub fn reason(&self) -> &[u8] {
        self.head.slice(self.reason)
    }

    /// The protocol version of the message.
    #[inline]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Replaces the status (clamped to 100..=599) and forgets the reason phrase.
    pub fn set_status(&mut self, status: u16) {
        self.status = status.clamp(100, 599);
        self.reason = Span::EMPTY;
    }
}
