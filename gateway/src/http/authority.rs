//! The authority of a request: host and port.
//!
//! Owns the syntax of the Host field and of the authority of an absolute target (RFC 9110 section
//! 7.2, RFC 3986 section 3.2.2). Never resolves a name. Invariant: what is accepted has one spelling
//! but for case and a trailing dot: no userinfo, no percent-encoding, no zone identifier.

/// A valid authority, described by positions in its text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Authority {
    /// Bytes of the host at the start of the text, brackets included, trailing dot not.
    pub host_len: usize,
    /// The port, if one is given.
    pub port: Option<u16>,
    /// The host has upper-case letters.
    pub upper: bool,
}

impl Authority {
    /// Parses `host [ ":" port ]`; `None` where it is no such thing.
    #[inline]
    pub fn parse(text: &[u8]) -> Option<Authority> {
        let literal = text.first() == Some(&b'[');
        let allowed = if literal { LITERAL } else { NAME };
        let mut seen = 0;
        let mut len = usize::from(literal);
        while let Some(&byte) = text.get(len) {
            let class = CLASS[usize::from(byte)];
            if class & allowed == 0 {
                break;
            }
            seen |= class;
            len += 1;
        }
        let (end, host_len) = if literal {
            // `[` address `]`: two colons make the shortest address.
            if text.get(len) != Some(&b']') || len < 3 {
                return None;
            }
            (len + 1, len + 1)
        } else {
            let dot = usize::from(len > 0 && text[len - 1] == b'.');
            (len, len - dot)
        };
        if host_len == 0 {
            return None;
        }
        let port = match text.get(end..) {
            None | Some([]) => None,
            Some([b':', digits @ ..]) => port(digits)?,
            Some(_) => return None,
        };
        Some(Authority { host_len, port, upper: seen & UPPER != 0 })
    }
}

/// An empty port is no port (RFC 3986 section 3.2.3); more than five digits are never needed.
fn port(digits: &[u8]) -> Option<Option<u16>> {
    if digits.is_empty() {
        return Some(None);
    }
    if digits.len() > 5 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0u32, |number, digit| number * 10 + u32::from(digit - b'0'));
    u16::try_from(number).ok().map(Some)
}

/// May stand in a host name. Sub-delimiters and percent-encoding, which RFC 3986 allows, are left
/// out: no name in use has them, and they are how hosts get two readings.
const NAME: u8 = 1;
/// May stand in an IPv6 literal.
const LITERAL: u8 = 2;
const UPPER: u8 = 4;

static CLASS: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let value = byte as u8;
        if super::path::is_unreserved(value) {
            table[byte] |= NAME;
        }
        if value.is_ascii_hexdigit() || value == b':' || value == b'.' {
            table[byte] |= LITERAL;
        }
        if value.is_ascii_uppercase() {
            table[byte] |= UPPER;
        }
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_rfc3986_3_2() {
        for (text, want) in [
            ("example.com", Some((11, None, false))),
            ("Example.com:8080", Some((11, Some(8080), true))),
            ("example.com.", Some((11, None, false))),
            ("example.com.:80", Some((11, Some(80), false))),
            ("a_b-c~1:", Some((7, None, false))),
            ("127.0.0.1:65535", Some((9, Some(65535), false))),
            ("[::1]", Some((5, None, false))),
            ("[2001:DB8::1.2.3.4]:443", Some((19, Some(443), true))),
            ("", None),
            (":80", None),
            (".", None),
            ("a:b", None),
            ("a:65536", None),
            ("a:000080", None),
            ("a:80:80", None),
            ("a b", None),
            ("a,b", None),
            ("a/b", None),
            ("user@a", None),
            ("a%41", None),
            ("[::1", None),
            ("[]", None),
            ("[::1]x", None),
            ("[fe80::1%25eth0]", None),
            ("::1", None),
            ("\u{e9}", None),
        ] {
            let found = Authority::parse(text.as_bytes());
            let found = found.map(|authority| (authority.host_len, authority.port, authority.upper));
            assert_eq!(found, want, "{text}");
        }
    }
}
