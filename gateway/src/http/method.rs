//! Request methods.
//!
//! Owns the mapping between the text of a method and [`Method`]. Never decides which methods are
//! served. Invariant: methods are case-sensitive (RFC 9110 section 9.1), so `get` is
//! [`Method::Other`].

/// A method that some rule of the gateway treats in a way of its own, or [`Method::Other`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
#[repr(u8)]
#[expect(missing_docs, reason = "each variant is the method of that name")]
pub enum Method {
    #[default]
    Get,
    Head,
    Post,
    Put,
    Delete,
    Patch,
    Options,
    Trace,
    Connect,
    /// Any other token; its text is kept by the request head.
    Other,
}

impl Method {
    /// The method that `text` names.
    #[inline]
    pub fn of(text: &[u8]) -> Method {
        match text {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            b"POST" => Method::Post,
            b"PUT" => Method::Put,
            b"DELETE" => Method::Delete,
            b"PATCH" => Method::Patch,
            b"OPTIONS" => Method::Options,
            b"TRACE" => Method::Trace,
            b"CONNECT" => Method::Connect,
            _ => Method::Other,
        }
    }

    /// Its text; empty for [`Method::Other`].
    pub const fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
            Method::Patch => "PATCH",
            Method::Options => "OPTIONS",
            Method::Trace => "TRACE",
            Method::Connect => "CONNECT",
            Method::Other => "",
        }
    }

    /// Whether sending it twice has the effect of sending it once (RFC 9110 section 9.2.2), which
    /// is what allows a retry.
    pub const fn is_idempotent(self) -> bool {
        matches!(
            self,
            Method::Get | Method::Head | Method::Put | Method::Delete | Method::Options | Method::Trace
        )
    }
}

#[cfg(test)]
mod tests {
    use super::Method;

    #[test]
    fn text_and_method_agree_rfc9110_9_1() {
        for text in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"] {
            assert_eq!(Method::of(text.as_bytes()).as_str(), text);
            assert_eq!(Method::of(text.to_ascii_lowercase().as_bytes()), Method::Other);
        }
        assert_eq!(Method::of(b"PROPFIND"), Method::Other);
        assert_eq!(Method::of(b""), Method::Other);
    }
}
