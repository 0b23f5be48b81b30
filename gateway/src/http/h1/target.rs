//! The request target and the host it is for (RFC 9112 section 3).
//!
//! Owns the decision which authority, path and query a request has. Never routes. Invariant: the
//! Host field, the authority of the target and [`RequestHead::host`] never disagree.
//!
//! | target | method | decision |
//! |---|---|---|
//! | `/path?query` | any | origin form; authority from Host |
//! | `http://authority/path?query` | any | absolute form; authority from the target, and Host must name the same host and port, else 400 `duplicate_host` |
//! | `*` | OPTIONS | asterisk form; path `*` |
//! | anything else (`*` with another method, `host:port`, a fragment, a control character) | | 400 `bad_target` |
//!
//! | Host | version | decision |
//! |---|---|---|
//! | one, valid | any | accepted |
//! | none, or empty | 1.1 | 400 `missing_host` |
//! | none | 1.0 | accepted; a field is made from the authority of an absolute target |
//! | more than one | any | 400 `duplicate_host` |
//! | invalid | any | 400 `bad_header` |

use crate::http::authority::Authority;
use crate::http::{Known, Method, PathPolicy, Reason, Refusal, RequestHead, Span, Version, path};

/// Fills authority, path and query of a head whose fields and target are there.
pub(super) fn take_apart(out: &mut RequestHead, policy: &PathPolicy) -> Result<(), Refusal> {
    let target = out.target;
    match out.head.slice(target).first() {
        Some(b'/') => {
            take_host(out)?;
            take_path(out, target, policy)
        }
        Some(b'*') if target.len() == 1 && out.method == Method::Options => {
            take_host(out)?;
            out.path = target;
            Ok(())
        }
        _ => absolute_form(out, policy),
    }
}

fn absolute_form(out: &mut RequestHead, policy: &PathPolicy) -> Result<(), Refusal> {
    const BAD: Refusal = Refusal::new(Reason::BadTarget);
    let target = out.target;
    let text = out.head.slice(target);
    let (scheme_len, default_port) = match text {
        [scheme @ .., _] if begins_with(scheme, b"http://") => (7, 80),
        [scheme @ .., _] if begins_with(scheme, b"https://") => (8, 443),
        _ => return Err(BAD),
    };
    let after = &text[scheme_len..];
    let len = after.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(after.len());
    let authority = Span::new(target.start() + scheme_len, len);
    let rest = Span::new(authority.end(), target.end() - authority.end());
    take_host(out)?;
    let (named, named_port) = (out.host, out.port);
    set_authority(out, authority).ok_or(BAD)?;
    if !named.is_empty() {
        let same_host = out.head.slice(named) == out.head.slice(out.host);
        if !same_host || named_port.unwrap_or(default_port) != out.port.unwrap_or(default_port) {
            return Err(Refusal::new(Reason::DuplicateHost));
        }
    } else {
        let text = out.head.slice(authority).to_vec();
        out.head.set_known(Known::Host, text);
    }
    match out.head.slice(rest).first() {
        Some(b'/') => take_path(out, rest, policy),
        // The path of `http://a` and `http://a?b` is empty, which is the root (RFC 9110 section 4.2.3).
        _ => {
            let start = out.head.text_len();
            let arena = out.head.arena();
            arena.push(b'/');
            arena.extend_from_within(rest.start()..rest.end());
            take_path(out, Span::new(start, rest.len() + 1), policy)
        }
    }
}

fn begins_with(text: &[u8], scheme: &[u8]) -> bool {
    text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
}

/// Sets the authority from the Host field.
#[inline]
fn take_host(out: &mut RequestHead) -> Result<(), Refusal> {
    let Some(value) = out.head.value_span(Known::Host, 0) else {
        return match out.version {
            Version::Http10 => Ok(()),
            _ => Err(Refusal::new(Reason::MissingHost)),
        };
    };
    if out.head.value_span(Known::Host, 1).is_some() {
        return Err(Refusal::new(Reason::DuplicateHost));
    }
    if value.is_empty() {
        return Err(Refusal::new(Reason::MissingHost));
    }
    set_authority(out, value).ok_or(Refusal::new(Reason::BadHeader))
}

#[inline]
fn set_authority(out: &mut RequestHead, span: Span) -> Option<()> {
    let authority = Authority::parse(out.head.slice(span))?;
    out.authority = span;
    out.port = authority.port;
    out.host = Span::new(span.start(), authority.host_len);
    if authority.upper {
        let start = out.head.text_len();
        let arena = out.head.arena();
        arena.extend_from_within(span.start()..span.start() + authority.host_len);
        arena[start..].make_ascii_lowercase();
        out.host = Span::new(start, authority.host_len);
    }
    Some(())
}

/// Sets path and query from the text at `span`, which begins with the path.
#[inline]
fn take_path(out: &mut RequestHead, span: Span, policy: &PathPolicy) -> Result<(), Refusal> {
    const BAD: Refusal = Refusal::new(Reason::BadTarget);
    let text = out.head.slice(span);
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
                if byte == b'#' {
                    return Err(BAD);
                }
                odd |= !(0x21..0x7f).contains(&byte);
            }
            out.query = Some(if odd { encode_query(out, query) } else { query });
        }
        Some(_) => return Err(BAD),
    }
    out.path = path::normalise_span(&mut out.head, raw, scan, policy)?;
    Ok(())
}

/// Percent-encodes the bytes of a query that no URI may hold.
fn encode_query(out: &mut RequestHead, query: Span) -> Span {
    let arena = out.head.arena();
    let start = arena.len();
    for at in query.start()..query.end() {
        match arena[at] {
            byte @ 0x21..0x7f => arena.push(byte),
            byte => path::push_encoded(arena, byte),
        }
    }
    Span::new(start, arena.len() - start)
}
