//! The forms of the request target and the host it is for (RFC 9112 section 3).
//!
//! Owns the decision which of the authorities of a request counts. Never routes. Invariant: the
//! Host field, the authority of the target and [`RequestHead::host`] never disagree.
//!
//! | target | method | decision |
//! |---|---|---|
//! | `/path?query` | any | origin form; authority from Host |
//! | `http://authority/path?query` | any | absolute form; authority from the target, and Host must name the same host and port, else 400 `duplicate_host` |
//! | `*` | OPTIONS | asterisk form; path `*` |
//! | `http://authority` | OPTIONS | absolute form of the same; path `*` |
//! | `https://...` | any | the same; which scheme fits the connection is not decided here |
//! | anything else (`*` with another method, `host:port`, another scheme, a fragment, a control character) | | 400 `bad_target` |
//!
//! | Host | version | decision |
//! |---|---|---|
//! | one, valid | any | accepted |
//! | none, or empty | 1.1 | 400 `missing_host` |
//! | none | 1.0 | accepted; a field is made from the authority of an absolute target |
//! | more than one | any | 400 `duplicate_host` |
//! | invalid | any | 400 `bad_header` |

use crate::http::{Known, Method, PathPolicy, Reason, Refusal, RequestHead, Scheme, Span, Version};

/// Fills authority, path and query of a head whose fields and target are there.
pub(super) fn take_apart(out: &mut RequestHead, policy: &PathPolicy) -> Result<(), Refusal> {
    let target = out.target;
    match out.head.slice(target).first() {
        Some(b'/') => {
            take_host(out)?;
            out.take_target(target, policy)
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
    let (scheme_len, scheme) = match text {
        [scheme @ .., _] if begins_with(scheme, b"http://") => (7, Scheme::Http),
        [scheme @ .., _] if begins_with(scheme, b"https://") => (8, Scheme::Https),
        _ => return Err(BAD),
    };
    out.scheme = Some(scheme);
    let default_port = scheme.default_port();
    let after = &text[scheme_len..];
    let len = after.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(after.len());
    let authority = Span::new(target.start() + scheme_len, len);
    let rest = Span::new(authority.end(), target.end() - authority.end());
    take_host(out)?;
    let (named, named_port) = (out.host, out.port);
    out.take_authority(authority).ok_or(BAD)?;
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
        Some(b'/') => out.take_target(rest, policy),
        // RFC 9112 section 3.2.4: the server as a whole is asked.
        None if out.method == Method::Options => {
            out.path = out.head.store(b"*");
            Ok(())
        }
        // The path of `http://a` and `http://a?b` is empty, which is the root (RFC 9110 section 4.2.3).
        _ => {
            let start = out.head.text_len();
            let arena = out.head.arena();
            arena.push(b'/');
            arena.extend_from_within(rest.start()..rest.end());
            out.take_target(Span::new(start, rest.len() + 1), policy)
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
    out.take_authority(value).ok_or(Refusal::new(Reason::BadHeader))
}
