//! Why a request head was refused.
//!
//! Owns the choice of the [`Reason`] that is counted, once httparse has given up on a head. It runs
//! for refused heads only and looks at the lines naively. Invariant: it names a reason, and never
//! turns a refusal into something else.

use httparse::Error;

use crate::http::Reason;
use crate::http::head::is_token;

/// The reason for `error`, met in the head at the start of `text`.
#[cold]
pub(super) fn diagnose(text: &[u8], error: Error) -> Reason {
    let end = text.iter().position(|&byte| byte == b'\n');
    let line = &text[..end.unwrap_or(text.len())];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match error {
        Error::TooManyHeaders => Reason::TooManyHeaders,
        Error::HeaderName if folded(text) => Reason::ObsFold,
        Error::HeaderName | Error::HeaderValue | Error::Status => Reason::BadHeader,
        // After the version, or where an empty line should end the head.
        Error::NewLine if end.is_none_or(|end| end + 1 >= text.len()) => Reason::BadRequestLine,
        Error::NewLine if line.splitn(4, |&byte| byte == b' ').count() != 3 => Reason::BadRequestLine,
        Error::NewLine => Reason::BadHeader,
        Error::Version => version(line),
        Error::Token => request_line(line),
    }
}

fn request_line(line: &[u8]) -> Reason {
    let mut words = line.splitn(3, |&byte| byte == b' ');
    let method = words.next().unwrap_or_default();
    match (words.next(), words.next()) {
        _ if !is_token(method) => Reason::BadMethod,
        // One word, or two as in HTTP/0.9.
        (None, _) | (_, None) => Reason::BadRequestLine,
        (Some(_), Some(_)) => Reason::BadTarget,
    }
}

fn version(line: &[u8]) -> Reason {
    match line.splitn(3, |&byte| byte == b' ').nth(2) {
        // RFC 9113 section 3.4. Where HTTP/2 is spoken, the connection looks for it before anybody parses.
        Some(b"HTTP/2.0") if line.starts_with(b"PRI * ") => Reason::H2Preface,
        // Versions yet to come (RFC 9112 section 2.3).
        Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor])
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Reason::UnsupportedVersion
        }
        Some(rest) if rest.contains(&b' ') => Reason::BadRequestLine,
        Some(_) => Reason::BadVersion,
        None => Reason::BadRequestLine,
    }
}

/// Whether a line begins with white space (RFC 9112 section 5.2).
fn folded(text: &[u8]) -> bool {
    text.windows(2).any(|pair| matches!(pair, [b'\n', b' ' | b'\t']))
}
