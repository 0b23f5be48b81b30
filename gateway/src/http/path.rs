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
//! | `%2F`, `%5C`, `%00`, a raw backslash | refused, or kept encoded where the policy allows |
//! | a segment that starts with `.;` or `..;` | refused, or kept where the policy allows |
//! | `%` without two hex digits | refused |
//! | `//` | kept, or one `/` where the policy merges |

use super::head::{Head, Span};
use super::refusal::{Reason, Refusal};

/// What is done with the spellings that let two programs disagree about a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PathPolicy {
    /// Let `%2F` through, as it is. Default: refused.
    pub allow_encoded_slash: bool,
    /// Let `%5C` through, as it is, and a raw backslash as `%5C`. Default: refused.
    pub allow_backslash: bool,
    /// Let `%00` through, as it is. Default: refused.
    pub allow_encoded_nul: bool,
    /// Let segments such as `..;a` through, which some servers read as `..`. Default: refused.
    pub allow_dot_parameters: bool,
    /// Make one slash of several. Default: they stay.
    pub merge_slashes: bool,
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
                let refused = match decoded {
                    b'/' => !policy.allow_encoded_slash,
                    b'\\' => !policy.allow_backslash,
                    0 => !policy.allow_encoded_nul,
                    _ => false,
                };
                if refused {
                    return Err(BAD);
                }
                if is_unreserved(decoded) { buf.push(decoded) } else { push_encoded(buf, decoded) }
            }
            b'\\' if !policy.allow_backslash => return Err(BAD),
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
        [b'.', b';', ..] | [b'.', b'.', b';', ..] if !policy.allow_dot_parameters => {
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

    const STRICT: PathPolicy = PathPolicy {
        allow_encoded_slash: false,
        allow_backslash: false,
        allow_encoded_nul: false,
        allow_dot_parameters: false,
        merge_slashes: false,
    };
    const MERGING: PathPolicy = PathPolicy { merge_slashes: true, ..STRICT };
    const LENIENT: PathPolicy = PathPolicy {
        allow_encoded_slash: true,
        allow_backslash: true,
        allow_encoded_nul: true,
        allow_dot_parameters: true,
        merge_slashes: false,
    };

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
    fn doubtful_spellings_are_refused_unless_allowed() {
        for (path, allowed) in [
            ("/a%2fb", Some("/a%2Fb")),
            ("/a%5cb", Some("/a%5Cb")),
            ("/a\\b", Some("/a%5Cb")),
            ("/a%00", Some("/a%00")),
            ("/a/..;x/b", Some("/a/..;x/b")),
            ("/a/.;/b", Some("/a/.;/b")),
            ("/a/%2e.;/b", Some("/a/..;/b")),
            ("/%", None),
            ("/%4", None),
            ("/%zz", None),
            ("/%%41", None),
        ] {
            assert_eq!(normal(path, &STRICT), Err(Reason::BadPathEncoding), "{path}");
            let lenient = normal(path, &LENIENT);
            assert_eq!(lenient.as_deref().ok(), allowed, "{path}");
        }
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
        any::<[bool; 5]>().prop_map(|[slash, backslash, nul, parameters, merge]| PathPolicy {
            allow_encoded_slash: slash,
            allow_backslash: backslash,
            allow_encoded_nul: nul,
            allow_dot_parameters: parameters,
            merge_slashes: merge,
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
