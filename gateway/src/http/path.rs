//! The one path that every decision uses and that is forwarded.
//!
//! Owns normalisation of the path of a target (RFC 3986 section 6.2.2). Never sees the query.
//! Invariant: normalising twice changes nothing more, and the result never leads above its root.
//!
//! | in the path | becomes |
//! |---|---|
//! | `/.` and `/..` segments, raw or encoded | removed; `..` at the root is dropped (RFC 3986 section 5.2.4) |
//! | an encoded unreserved character (`%41`) | the character |
//! | any other encoded byte (`%c3`) | the same in upper case |
//! | a raw byte that no URI may hold (`"`, `<`, `{`, a byte above 127) | its encoding, so that both spellings are one path |
//! | `%2F` | by the policy: refused, kept, or read as a slash |
//! | `%5C`, a raw backslash | by the policy: refused, kept as `%5C`, or read as a slash, as browsers and some servers do |
//! | `%00` | refused |
//! | a segment that starts with `.;` or `..;` | refused: some servers take it for `.` or `..` |
//! | `%` without two hex digits | refused |
//! | `//` | kept, or one `/` where the policy merges |

use super::head::{Head, Span};
use super::refusal::{Reason, Refusal};

/// What is done with the spellings that let two programs disagree about a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PathPolicy {
    /// `%2F`.
    pub encoded_slash: Doubtful,
    /// `%5C` and a raw backslash.
    pub backslash: Doubtful,
    /// Make one slash of several. Default: they stay.
    pub merge_slashes: bool,
}

/// What is done with a spelling that some programs read as a slash and others do not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Doubtful {
    /// The request is refused.
    #[default]
    Reject,
    /// It stays, percent-encoded; it separates nothing.
    Keep,
    /// It is a slash, for every decision and for the upstream.
    Decode,
}

impl PathPolicy {
    /// What is done with the encoding of `byte`; `None` where no two programs disagree about it.
    fn reading(&self, byte: u8) -> Option<Doubtful> {
        match byte {
            b'/' => Some(self.encoded_slash),
            b'\\' => Some(self.backslash),
            _ => None,
        }
    }
}

/// Appends the normal form of `path` to `out`. `path` is a path alone, without query or fragment.
///
/// Refuses with 400: `bad_target` where it does not start with `/` or holds a space or control
/// character, `?` or `#`; `bad_path_encoding` by the table of this module.
pub fn normalise(path: &[u8], policy: &PathPolicy, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let start = out.len();
    let scan = scan(path, policy);
    if scan.len != path.len() || path.first() != Some(&b'/') || scan.invalid {
        return Err(Refusal::new(Reason::BadTarget));
    }
    out.extend_from_slice(path);
    if scan.dirty {
        let end = out.len();
        let rewritten = rewrite(out, Span::new(start, end - start), policy);
        if let Err(refusal) = rewritten {
            out.truncate(start);
            return Err(refusal);
        }
        out.drain(start..end);
    }
    Ok(())
}

/// The normal form of the path that lies at `path` in the arena of `head`: the span itself where
/// nothing is to change, which costs one look at each byte and no copy.
pub(super) fn normalise_span(
    head: &mut Head,
    path: Span,
    scan: Scan,
    policy: &PathPolicy,
) -> Result<Span, Refusal> {
    if scan.dirty { rewrite(head.arena(), path, policy) } else { Ok(path) }
}

/// What [`scan`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Scan {
    /// Length of the path: up to `?`, `#` or the end.
    pub len: usize,
    /// It may not be in normal form.
    pub dirty: bool,
    /// It holds a space or a control character.
    pub invalid: bool,
}

/// Finds the end of the path at the start of `target`, and whether it needs work.
#[inline]
pub(super) fn scan(target: &[u8], policy: &PathPolicy) -> Scan {
    let mut found = 0;
    let mut before = 0;
    let mut len = target.len();
    for (at, &byte) in target.iter().enumerate() {
        let class = CLASS[usize::from(byte)];
        if class != 0 {
            if class & END != 0 {
                len = at;
                break;
            }
            // A dot or slash matters only after a slash.
            let matters = match byte {
                b'.' => before == b'/',
                b'/' => before == b'/' && policy.merge_slashes,
                _ => true,
            };
            if matters {
                found |= class;
            }
        }
        before = byte;
    }
    Scan { len, dirty: found != 0, invalid: found & INVALID != 0 }
}

const WORK: u8 = 1;
const END: u8 = 2;
const INVALID: u8 = 4;

/// Classes of bytes, for [`scan`].
static CLASS: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b'?' | b'#' => END,
            0..=b' ' | 0x7f => INVALID,
            b'.' | b'/' | b'%' => WORK,
            raw if !is_path_byte(raw) => WORK,
            _ => 0,
        };
        byte += 1;
    }
    table
};

/// `pchar` of RFC 3986 section 3.3, without `%`.
const fn is_path_byte(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(
            byte,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@'
        )
}

/// RFC 3986 section 2.3.
pub(super) const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Appends the normal form of `buf[path]` to `buf`. The path starts with a slash.
fn rewrite(buf: &mut Vec<u8>, path: Span, policy: &PathPolicy) -> Result<Span, Refusal> {
    const BAD: Refusal = Refusal::new(Reason::BadPathEncoding);
    let start = buf.len();
    let mut segment = start;
    let mut at = path.start();
    while at < path.end() {
        let byte = buf[at];
        at += 1;
        match byte {
            // The first slash closes an empty segment before the root.
            b'/' if buf.len() == start => {
                buf.push(b'/');
                segment = buf.len();
            }
            b'/' => segment = close_segment(buf, start, segment, false, policy)?,
            b'%' => {
                let decoded = match (buf.get(at).copied(), buf.get(at + 1).copied()) {
                    (Some(high), Some(low)) if at + 2 <= path.end() => byte_of(high, low).ok_or(BAD)?,
                    _ => return Err(BAD),
                };
                at += 2;
                match policy.reading(decoded) {
                    None if decoded == 0 => return Err(BAD),
                    None if is_unreserved(decoded) => buf.push(decoded),
                    None | Some(Doubtful::Keep) => push_encoded(buf, decoded),
                    Some(Doubtful::Decode) => segment = close_segment(buf, start, segment, false, policy)?,
                    Some(Doubtful::Reject) => return Err(BAD),
                }
            }
            b'\\' => match policy.backslash {
                Doubtful::Reject => return Err(BAD),
                Doubtful::Keep => push_encoded(buf, byte),
                Doubtful::Decode => segment = close_segment(buf, start, segment, false, policy)?,
            },
            byte if is_path_byte(byte) => buf.push(byte),
            byte => push_encoded(buf, byte),
        }
    }
    close_segment(buf, start, segment, true, policy)?;
    Ok(Span::new(start, buf.len() - start))
}

/// Ends the segment `buf[segment..]`: drops it where it is `.`, with its parent where it is `..`,
/// and adds the slash that follows unless it is the `last`. Gives the start of the next one.
fn close_segment(
    buf: &mut Vec<u8>,
    start: usize,
    segment: usize,
    last: bool,
    policy: &PathPolicy,
) -> Result<usize, Refusal> {
    match &buf[segment..] {
        b"." => buf.truncate(segment),
        b".." => {
            // Below the root: cut at the slash before the parent. At the root: cut after it.
            let parent = &buf[start..segment - 1];
            let cut = parent.iter().rposition(|&byte| byte == b'/').map_or(start, |slash| start + slash);
            buf.truncate(cut + 1);
        }
        [b'.', b';', ..] | [b'.', b'.', b';', ..] => {
            return Err(Refusal::new(Reason::BadPathEncoding));
        }
        [] if policy.merge_slashes => {}
        _ if last => {}
        _ => buf.push(b'/'),
    }
    Ok(buf.len())
}

/// Appends `byte` percent-encoded, in upper case.
pub(super) fn push_encoded(buf: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    buf.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
}

/// The byte that two hex digits name.
pub(super) fn byte_of(high: u8, low: u8) -> Option<u8> {
    let high = char::from(high).to_digit(16)?;
    let low = char::from(low).to_digit(16)?;
    Some((high << 4 | low) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STRICT: PathPolicy =
        PathPolicy { encoded_slash: Doubtful::Reject, backslash: Doubtful::Reject, merge_slashes: false };
    const MERGING: PathPolicy = PathPolicy { merge_slashes: true, ..STRICT };
    const KEEPING: PathPolicy =
        PathPolicy { encoded_slash: Doubtful::Keep, backslash: Doubtful::Keep, merge_slashes: false };
    const DECODING: PathPolicy =
        PathPolicy { encoded_slash: Doubtful::Decode, backslash: Doubtful::Decode, merge_slashes: false };

    fn normal(path: &str, policy: &PathPolicy) -> Result<String, Reason> {
        let mut out = b"kept".to_vec();
        let result = normalise(path.as_bytes(), policy, &mut out);
        assert!(out.starts_with(b"kept"));
        result.map_err(|refusal| refusal.reason)?;
        Ok(String::from_utf8(out.split_off(4)).unwrap())
    }

    #[test]
    fn dot_segments_rfc3986_5_2_4() {
        for (path, want) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/.", "/"),
            ("/..", "/"),
            ("/./a", "/a"),
            ("/../../a", "/a"),
            ("/a/.", "/a/"),
            ("/a/..", "/"),
            ("/a/../", "/"),
            ("/a/b/c/./../../g", "/a/g"),
            ("/mid/content=5/../6", "/mid/6"),
            ("/a//../b", "/a/b"),
            ("/a/..//b", "//b"),
            ("//", "//"),
            ("//..", "/"),
            ("/...", "/..."),
            ("/.a/..b/c.", "/.a/..b/c."),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
        ] {
            assert_eq!(normal(path, &STRICT).as_deref(), Ok(want), "{path}");
        }
    }

    #[test]
    fn percent_encoding_rfc3986_6_2_2() {
        for (path, want) in [
            ("/%41%7a%30%2d%5f%7E", "/Az0-_~"),
            ("/%c3%a9", "/%C3%A9"),
            ("/\u{e9}", "/%C3%A9"),
            ("/a%20b", "/a%20b"),
            ("/%252e%252e", "/%252e%252e"),
            ("/%25%32%65", "/%252e"),
            ("/a\"<>^`{|}[]", "/a%22%3C%3E%5E%60%7B%7C%7D%5B%5D"),
            ("/;v=1/@me:x,y", "/;v=1/@me:x,y"),
            ("/%3b%3D", "/%3B%3D"),
        ] {
            assert_eq!(normal(path, &STRICT).as_deref(), Ok(want), "{path}");
        }
    }

    #[test]
    fn doubtful_spellings_are_refused_kept_or_decoded() {
        for (path, kept, decoded) in [
            ("/a%2fb", Some("/a%2Fb"), Some("/a/b")),
            ("/a%5cb", Some("/a%5Cb"), Some("/a/b")),
            ("/a\\b", Some("/a%5Cb"), Some("/a/b")),
            // What is a slash ends a segment, so dots beside it are dot segments.
            ("/a/..%2fb", Some("/a/..%2Fb"), Some("/b")),
            ("/a%2f..%2fb", Some("/a%2F..%2Fb"), Some("/b")),
            ("/a/..\\..\\b", Some("/a/..%5C..%5Cb"), Some("/b")),
            ("/a%2F%2e%2e", Some("/a%2F.."), Some("/")),
            ("/%2f", Some("/%2F"), Some("//")),
            ("/%2f..%5C..%2f", Some("/%2F..%5C..%2F"), Some("/")),
            // Once only: what an encoded percent sign hides stays hidden.
            ("/%2f%252f", Some("/%2F%252f"), Some("//%252f")),
            ("/a%00", None, None),
            ("/a%2f%00", None, None),
            ("/a/..;x/b", None, None),
            ("/a/.;/b", None, None),
            ("/a/%2e.;/b", None, None),
            ("/a%2f..;/b", Some("/a%2F..;/b"), None),
            ("/%", None, None),
            ("/%4", None, None),
            ("/%zz", None, None),
            ("/%%41", None, None),
        ] {
            assert_eq!(normal(path, &STRICT), Err(Reason::BadPathEncoding), "{path}");
            for (policy, want) in [(KEEPING, kept), (DECODING, decoded)] {
                let got = normal(path, &policy);
                assert_eq!(
                    got.as_deref().map_err(|reason| *reason),
                    want.ok_or(Reason::BadPathEncoding),
                    "{path}"
                );
            }
        }
        let mixed = PathPolicy { encoded_slash: Doubtful::Keep, ..STRICT };
        assert_eq!(normal("/a%2fb", &mixed).as_deref(), Ok("/a%2Fb"));
        assert_eq!(normal("/a%5cb", &mixed), Err(Reason::BadPathEncoding));
        let merging = PathPolicy { merge_slashes: true, ..DECODING };
        assert_eq!(normal("/a/%2f\\b", &merging).as_deref(), Ok("/a/b"));
        for path in ["", "a", "a/b", "/a b", "/a?b", "/a#b", "/a\u{7f}", "/\r\n"] {
            assert_eq!(normal(path, &STRICT), Err(Reason::BadTarget), "{path:?}");
        }
    }

    #[test]
    fn slashes_merge_only_when_asked() {
        for (path, want) in [
            ("//a///b//", "/a/b/"),
            ("//", "/"),
            ("/a//..//b", "/b"),
            ("/a/.//b", "/a/b"),
            ("/a/b", "/a/b"),
            ("//..//x", "/x"),
        ] {
            assert_eq!(normal(path, &MERGING).as_deref(), Ok(want), "{path}");
        }
        assert_eq!(normal("//a///b//", &STRICT).as_deref(), Ok("//a///b//"));
    }

    #[test]
    fn a_normal_path_is_not_copied() {
        let mut head = Head::new();
        let span = head.store(b"/api/v1/orders/42.json;v=2");
        let found = scan(head.slice(span), &STRICT);
        assert_eq!(normalise_span(&mut head, span, found, &STRICT), Ok(span));
        assert_eq!(head.text_len(), span.len());
    }

    fn policies() -> impl Strategy<Value = PathPolicy> {
        let doubtful = || prop::sample::select(vec![Doubtful::Reject, Doubtful::Keep, Doubtful::Decode]);
        (doubtful(), doubtful(), any::<bool>()).prop_map(|(encoded_slash, backslash, merge_slashes)| {
            PathPolicy { encoded_slash, backslash, merge_slashes }
        })
    }

    proptest! {
        #[test]
        fn normalising_is_idempotent_and_stays_below_the_root(
            path in "/([./%;\\\\a-c]|%2[efEF5]|%5[cC]|%41|[^\\x00-\\x20\\x7f?#]){0,24}",
            policy in policies(),
        ) {
            let mut once = Vec::new();
            if normalise(path.as_bytes(), &policy, &mut once).is_err() {
                return Ok(());
            }
            let mut twice = Vec::new();
            prop_assert_eq!(normalise(&once, &policy, &mut twice), Ok(()));
            prop_assert_eq!(&once, &twice);
            prop_assert_eq!(once[0], b'/');
            prop_assert!(once.is_ascii());
            prop_assert!(!once.split(|&byte| byte == b'/').any(|segment| matches!(segment, b"." | b"..")));
            if policy.merge_slashes {
                prop_assert!(!once.windows(2).any(|pair| pair == b"//"));
            }
        }

        /// Against the algorithm of RFC 3986 section 5.2.4, told in terms of a list of segments.
        #[test]
        fn dot_removal_equals_a_naive_reference(path in "/([./a]){0,16}") {
            let mut kept: Vec<&str> = Vec::new();
            let segments: Vec<&str> = path[1..].split('/').collect();
            for (index, segment) in segments.iter().enumerate() {
                let last = index + 1 == segments.len();
                match *segment {
                    "." | ".." => {
                        if *segment == ".." {
                            kept.pop();
                        }
                        if last {
                            kept.push("");
                        }
                    }
                    other => kept.push(other),
                }
            }
            prop_assert_eq!(normal(&path, &STRICT), Ok(format!("/{}", kept.join("/"))));
        }
    }
}
