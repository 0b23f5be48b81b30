//! The head of a request: method, target, authority, version, fields.
//!
//! Owns where these parts lie in the arena of the head, and their replacement. Never parses
//! (`h1::parse` and later HTTP/2 fill it) and never decides. Invariant: [`RequestHead::path`] is
//! normalised (`super::path`) whenever a parser filled it, and it is the one path that every
//! decision uses and that is forwarded.

use super::h1::Progress;
use super::head::{Head, Span};
use super::method::Method;
use super::{Scheme, Version};

/// A request head. Reused from request to request: [`RequestHead::clear`] keeps its memory.
#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    /// The fields.
    pub head: Head,
    pub(super) method: Method,
    pub(super) method_text: Span,
    /// The method for the upstream, where it is another.
    upstream_method: Option<(Method, Span)>,
    /// The request target as received.
    pub(super) target: Span,
    pub(super) scheme: Option<Scheme>,
    pub(super) path: Span,
    pub(super) query: Option<Span>,
    pub(super) authority: Span,
    pub(super) host: Span,
    pub(super) port: Option<u16>,
    pub(super) version: Version,
    /// Fields dropped because of an underscore in their name.
    pub(super) underscored: u32,
    /// Where the next attempt to parse goes on.
    pub(super) progress: Progress,
}

impl RequestHead {
    /// An empty head that owns no memory yet.
    pub fn new() -> RequestHead {
        RequestHead::default()
    }

    /// Forgets the message, and keeps the memory for the next one.
    pub fn clear(&mut self) {
        let mut head = std::mem::take(&mut self.head);
        head.clear();
        *self = RequestHead { head, ..RequestHead::default() };
    }

    /// The method; [`RequestHead::method_text`] has its text where it is [`Method::Other`].
    #[inline]
    pub fn method(&self) -> Method {
        self.method
    }

    /// The method as text.
    pub fn method_text(&self) -> &[u8] {
        match self.method {
            Method::Other => self.head.slice(self.method_text),
            method => method.as_str().as_bytes(),
        }
    }

    /// The method that the upstream is asked with: the client's, unless it was replaced.
    #[inline]
    pub fn upstream_method(&self) -> Method {
        self.upstream_method.map_or(self.method, |(method, _)| method)
    }

    /// [`upstream_method`](Self::upstream_method) as text.
    pub fn upstream_method_text(&self) -> &[u8] {
        match self.upstream_method {
            None => self.method_text(),
            Some((Method::Other, text)) => self.head.slice(text),
            Some((method, _)) => method.as_str().as_bytes(),
        }
    }

    /// Replaces the method for the upstream by `text`, a token. What the client asked with stays known: it decides
    /// whether the client awaits a body.
    pub fn set_upstream_method(&mut self, text: impl AsRef<[u8]>) {
        let text = text.as_ref();
        let method = Method::of(text);
        let span = if method == Method::Other { self.head.store(text) } else { Span::EMPTY };
        self.upstream_method = Some((method, span));
    }

    /// The protocol version of the message.
    #[inline]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The scheme that the target names: one in absolute form, or any of HTTP/2.
    #[inline]
    pub fn scheme(&self) -> Option<Scheme> {
        self.scheme
    }

    /// The request target as it was received, for logs only: decisions use
    /// [`path`](Self::path) and [`query`](Self::query).
    pub fn raw_target(&self) -> &[u8] {
        self.head.slice(self.target)
    }

    /// The normalised path. It starts with `/`, or is `*` (only with OPTIONS).
    #[inline]
    pub fn path(&self) -> &[u8] {
        self.head.slice(self.path)
    }

    /// The query without its `?`; `None` where the target has no `?`.
    #[inline]
    pub fn query(&self) -> Option<&[u8]> {
        self.query.map(|span| self.head.slice(span))
    }

    /// Host and port that the request is for, as received: of an absolute target, else of the Host
    /// field. Empty where an HTTP/1.0 request has neither.
    pub fn authority(&self) -> &[u8] {
        self.head.slice(self.authority)
    }

    /// The authority without its port, in lower case and without a trailing dot; an IPv6 address
    /// keeps its brackets. Editing the Host field does not change it.
    #[inline]
    pub fn host(&self) -> &[u8] {
        self.head.slice(self.host)
    }

    /// Adds a field with the authority as its value.
    pub fn append_authority(&mut self, known: super::Known) {
        let authority = self.authority;
        self.head.append_span(known, authority);
    }

    /// Adds a field with the first `len` bytes of the path as its value, without a slash at its end. Nothing is
    /// added when nothing is left of it.
    pub fn append_path_prefix(&mut self, known: super::Known, len: usize) {
        let Some(prefix) = self.path().get(..len) else { return };
        let len = prefix.len() - usize::from(prefix.ends_with(b"/"));
        if len > 0 {
            let span = Span::new(self.path.start(), len);
            self.head.append_span(known, span);
        }
    }

    /// The port of the authority, if it has one.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// How many fields were dropped because of an underscore in their name.
    pub fn underscored(&self) -> u32 {
        self.underscored
    }

    /// Replaces the method, a token.
    pub fn set_method(&mut self, text: impl AsRef<[u8]>) {
        let text = text.as_ref();
        self.method = Method::of(text);
        self.method_text = self.head.store(text);
    }

    /// Sets the version, for a head that is built rather than parsed.
    pub fn set_version(&mut self, version: Version) {
        self.version = version;
    }

    /// Replaces the path. It must be normalised already and hold no space or control character.
    pub fn set_path(&mut self, path: impl AsRef<[u8]>) {
        debug_assert!(!path.as_ref().iter().any(|&byte| byte <= b' ' || matches!(byte, b'?' | b'#' | 0x7f)));
        self.path = self.head.store(path.as_ref());
    }

    /// [`set_path`](Self::set_path) with the path put together from `parts`.
    pub fn set_path_parts(&mut self, parts: &[&[u8]]) {
        let start = self.head.text_len();
        for part in parts {
            self.head.store(part);
        }
        self.path = Span::new(start, self.head.text_len() - start);
    }

    /// Shortens the path to what follows its first `bytes` bytes, with a `/` put before it where
    /// none is: Kong's `strip_path`. Copies nothing where a `/` is there.
    pub fn strip_path_prefix(&mut self, bytes: usize) {
        let path = self.path;
        let bytes = bytes.min(path.len());
        let rest = Span::new(path.start() + bytes, path.len() - bytes);
        if self.head.slice(rest).first() == Some(&b'/') {
            self.path = rest;
            return;
        }
        let start = self.head.text_len();
        let arena = self.head.arena();
        arena.push(b'/');
        arena.extend_from_within(rest.start()..rest.end());
        self.path = Span::new(start, rest.len() + 1);
    }

    /// Replaces the query, given without its `?`; `None` removes it.
    pub fn set_query(&mut self, query: Option<&[u8]>) {
        self.query = query.map(|text| self.head.store(text));
    }
}
