//! Authority, path and query of a request, from any protocol version.
//!
//! Owns their checking and normalisation on the way into a [`RequestHead`]. Never decides where they
//! come from: that is `h1::target` for HTTP/1, and pseudo-fields for HTTP/2. Invariant: whatever is
//! taken in here has one spelling.

use super::authority::Authority;
use super::head::Span;
use super::path::{self, PathPolicy};
use super::refusal::{Reason, Refusal};
use super::request::RequestHead;

impl RequestHead {
    /// Sets path and query from a target in origin form, `path[?query]`, for a head that is built
    /// rather than parsed. Refuses with 400 as [`normalise`](path::normalise) does, and fragments.
    pub fn set_target(&mut self, target: impl AsRef<[u8]>, policy: &PathPolicy) -> Result<(), Refusal> {
        let target = target.as_ref();
        if target.first() != Some(&b'/') {
            return Err(Refusal::new(Reason::BadTarget));
        }
        self.target = self.head.store(target);
        self.query = None;
        self.take_target(self.target, policy)
    }

    /// Sets authority, host and port from `host[:port]`, for a head that is built rather than parsed.
    /// The Host field is left alone. Refuses with 400 `bad_header`.
    pub fn set_authority(&mut self, authority: impl AsRef<[u8]>) -> Result<(), Refusal> {
        let span = self.head.store(authority.as_ref());
        self.take_authority(span).ok_or(Refusal::new(Reason::BadHeader))
    }

    /// [`set_authority`](Self::set_authority) from text in the arena; `None` where it is invalid.
    #[inline]
    pub(super) fn take_authority(&mut self, span: Span) -> Option<()> {
        let authority = Authority::parse(self.head.slice(span))?;
        self.authority = span;
        self.port = authority.port;
        self.host = Span::new(span.start(), authority.host_len);
        if authority.upper {
            let start = self.head.text_len();
            let arena = self.head.arena();
            arena.extend_from_within(span.start()..span.start() + authority.host_len);
            arena[start..].make_ascii_lowercase();
            self.host = Span::new(start, authority.host_len);
        }
        Some(())
    }

    /// [`set_target`](Self::set_target) from text in the arena, which begins with a slash.
    #[inline]
    pub(super) fn take_target(&mut self, span: Span, policy: &PathPolicy) -> Result<(), Refusal> {
        const BAD: Refusal = Refusal::new(Reason::BadTarget);
        let text = self.head.slice(span);
        let scan = path::scan(text, policy);
        if scan.invalid {
            return Err(BAD);
        }
        let raw = Span::new(span.start(), scan.len);
        match text.get(scan.len) {
            None => {}
            Some(b'?') => {
                let query = Span::new(raw.end() + 1, span.len() - scan.len - 1);
                let mut odd = false;
                for &byte in &text[scan.len + 1..] {
                    // A fragment is never sent (RFC 9112 section 3.2.1).
                    if matches!(byte, 0..=b' ' | b'#' | 0x7f) {
                        return Err(BAD);
                    }
                    odd |= byte >= 0x80;
                }
                self.query = Some(if odd { encode_query(self, query) } else { query });
            }
            Some(_) => return Err(BAD),
        }
        self.path = path::normalise_span(&mut self.head, raw, scan, policy)?;
        Ok(())
    }
}

/// Percent-encodes the bytes of a query that no URI may hold.
#[cold]
fn encode_query(out: &mut RequestHead, query: Span) -> Span {
    let arena = out.head.arena();
    let start = arena.len();
    for at in query.start()..query.end() {
        match arena[at] {
            byte @ 0x80.. => path::push_encoded(arena, byte),
            byte => arena.push(byte),
        }
    }
    Span::new(start, arena.len() - start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_built_from_parts_is_normalised_too() {
        let mut head = RequestHead::new();
        head.set_target("/a/./%7Eb?x=\u{e9}", &PathPolicy::default()).unwrap();
        head.set_authority("Example.com:8443").unwrap();
        assert_eq!((head.path(), head.query()), (&b"/a/~b"[..], Some(&b"x=%C3%A9"[..])));
        assert_eq!((head.host(), head.port()), (&b"example.com"[..], Some(8443)));
        head.set_target("/", &PathPolicy::default()).unwrap();
        assert_eq!((head.path(), head.query()), (&b"/"[..], None));
        for target in ["", "a", "*", "/a b", "/?a b", "/#", "/?#", "/a\r\n", "/?\n", "/?\u{7f}"] {
            let refused = Err(Refusal::new(Reason::BadTarget));
            assert_eq!(head.set_target(target, &PathPolicy::default()), refused, "{target:?}");
        }
        assert_eq!(head.set_authority("a b"), Err(Refusal::new(Reason::BadHeader)));
    }
}
