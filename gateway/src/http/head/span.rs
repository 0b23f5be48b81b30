//! Where in a head's text a piece of it is.

/// A range of the arena of the [`Head`] it came from. Valid until that head is cleared; a stale
/// one reads as other text or as nothing, never out of bounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Span {
    off: u32,
    len: u32,
}

impl Span {
    /// The span of nothing.
    pub const EMPTY: Span = Span { off: 0, len: 0 };

    pub(in crate::http) fn new(off: usize, len: usize) -> Span {
        Span { off: off as u32, len: len as u32 }
    }

    pub(super) const fn at(off: u32, len: u32) -> Span {
        Span { off, len }
    }

    /// Length in bytes.
    pub fn len(self) -> usize {
        self.len as usize
    }

    /// Whether it covers no byte.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    pub(in crate::http) fn start(self) -> usize {
        self.off as usize
    }

    pub(in crate::http) fn end(self) -> usize {
        self.off as usize + self.len as usize
    }
}
