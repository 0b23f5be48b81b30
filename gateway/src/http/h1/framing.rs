//! How long a message body is: the decision table of RFC 9112 section 6.3, made strict.
//!
//! Owns the choice of [`BodyFraming`]. Never reads a body. Invariant: a message that any other
//! implementation could give another length is refused; nothing is repaired.
//!
//! Requests. `n` is a decimal number that fits 63 bits; TE stands for Transfer-Encoding, CL for
//! Content-Length, and all lines of a field count together.
//!
//! | version | TE | CL | decision |
//! |---|---|---|---|
//! | any | none | none | no body |
//! | any | none | `n` | `n` bytes |
//! | any | none | two lines, or a list, even of equal numbers | 400 `ambiguous_length` |
//! | any | none | anything else (empty, sign, space, hex, too large) | 400 `bad_content_length` |
//! | any | any | any | 400 `ambiguous_length` |
//! | 1.0 | any | none | 400 `bad_transfer_encoding` |
//! | 1.1 | `chunked` | none | chunked |
//! | 1.1 | other codings, then `chunked` | none | 501 `unsupported_transfer_coding` |
//! | 1.1 | `chunked` not last, twice, or with parameters; no `chunked`; empty or no token | none | 400 `bad_transfer_encoding` |
//!
//! Responses. Every refusal is 502 `upstream_bad_response`. Both fields are judged whatever the request and the status:
//! what a HEAD is told of a body goes on to the client, who may believe it.
//!
//! | request | status | TE | CL | decision |
//! |---|---|---|---|---|
//! | any | any | any | any | refused |
//! | any | any | none | two lines, a list, or no number | refused |
//! | any | any | anything but `chunked`, or any on 1.0 | none | refused |
//! | any | 1xx, 204 | `chunked` | none | refused (RFC 9112 section 6.1) |
//! | any | 1xx, 204 | none | `n` > 0 | refused (RFC 9110 section 8.6: not even 0 is allowed, but many send it) |
//! | any | 1xx, 204 | none | none or 0 | no body |
//! | any | 304 | any of the good | any of the good | no body |
//! | HEAD | other | any of the good | any of the good | no body |
//! | other | other | none | none | until the connection closes |
//! | other | other | none | `n` | `n` bytes |
//! | other | other | `chunked` | none | chunked |
//!
//! What is relayed, by what came in and who receives it ([`relay_framing`]):
//!
//! | received | to 1.0 | to 1.1 |
//! |---|---|---|
//! | no body | no body | no body |
//! | `n` bytes | `n` bytes | `n` bytes |
//! | chunked | until close | chunked |
//! | until close | until close | chunked |

use crate::http::{Head, Known, Method, Reason, Refusal, RequestHead, ResponseHead, Version};

/// How the end of a body is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyFraming {
    /// There is no body.
    None,
    /// Exactly so many bytes.
    Length(u64),
    /// The chunked transfer coding (RFC 9112 section 7.1).
    Chunked,
    /// All until the sender closes; responses only.
    UntilClose,
}

/// Decides the framing of a request.
pub fn request_framing(request: &RequestHead) -> Result<BodyFraming, Refusal> {
    let head = &request.head;
    let coded = head.get_known(Known::TransferEncoding).is_some();
    let sized = head.get_known(Known::ContentLength).is_some();
    match (coded, sized) {
        (false, false) => Ok(BodyFraming::None),
        (false, true) => content_length(head).map(BodyFraming::Length).map_err(Refusal::new),
        (true, true) => Err(Refusal::new(Reason::AmbiguousLength)),
        (true, false) if request.version() == Version::Http10 => {
            Err(Refusal::new(Reason::BadTransferEncoding))
        }
        (true, false) => transfer_coding(head).map(|()| BodyFraming::Chunked).map_err(Refusal::new),
    }
}

/// Decides the framing of a response to a request with the method `request`.
pub fn response_framing(response: &ResponseHead, request: Method) -> Result<BodyFraming, Refusal> {
    const BAD: Refusal = Refusal::new(Reason::UpstreamBadResponse);
    let head = &response.head;
    let coded = head.get_known(Known::TransferEncoding).is_some();
    let sized = head.get_known(Known::ContentLength).is_some();
    let told = match (coded, sized) {
        (false, false) => BodyFraming::UntilClose,
        (false, true) => BodyFraming::Length(content_length(head).map_err(|_| BAD)?),
        (true, true) => return Err(BAD),
        (true, false) if response.version() == Version::Http10 => return Err(BAD),
        (true, false) => transfer_coding(head).map(|()| BodyFraming::Chunked).map_err(|_| BAD)?,
    };
    match (response.status(), told) {
        (100..=199 | 204, BodyFraming::UntilClose | BodyFraming::Length(0)) => Ok(BodyFraming::None),
        (100..=199 | 204, _) => Err(BAD),
        (304, _) => Ok(BodyFraming::None),
        _ if request == Method::Head => Ok(BodyFraming::None),
        (_, told) => Ok(told),
    }
}

/// The framing that a received body is passed on with to a receiver of that version.
pub fn relay_framing(received: BodyFraming, to: Version) -> BodyFraming {
    match (received, to) {
        (BodyFraming::Chunked | BodyFraming::UntilClose, Version::Http10) => BodyFraming::UntilClose,
        (BodyFraming::Chunked | BodyFraming::UntilClose, _) => BodyFraming::Chunked,
        (received, _) => received,
    }
}

/// Makes the fields of a head say `framing`, and nothing else. Not for answers to HEAD nor for
/// 304, whose Content-Length tells of a body that is not sent.
pub fn set_framing(head: &mut Head, framing: BodyFraming) {
    match framing {
        BodyFraming::Length(length) => {
            head.remove_known(Known::TransferEncoding);
            // The common case: a length that came in goes out untouched.
            if content_length(head) != Ok(length) {
                head.set_number(Known::ContentLength.as_str(), length);
            }
        }
        BodyFraming::Chunked => {
            head.remove_known(Known::ContentLength);
            head.set_known(Known::TransferEncoding, "chunked");
        }
        BodyFraming::None | BodyFraming::UntilClose => {
            head.remove_known(Known::ContentLength);
            head.remove_known(Known::TransferEncoding);
        }
    }
}

pub(in crate::http) fn content_length(head: &Head) -> Result<u64, Reason> {
    let mut values = head.all_known(Known::ContentLength);
    let Some(value) = values.next() else { return Err(Reason::BadContentLength) };
    if values.next().is_some() || value.contains(&b',') {
        return Err(Reason::AmbiguousLength);
    }
    if value.is_empty() {
        return Err(Reason::BadContentLength);
    }
    let mut length: u64 = 0;
    for byte in value {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return Err(Reason::BadContentLength);
        }
        // The bound is 63 bits, as targets that count in signed numbers would wrap above it.
        length = length
            .checked_mul(10)
            .and_then(|tens| tens.checked_add(u64::from(digit)))
            .filter(|&length| length <= i64::MAX as u64)
            .ok_or(Reason::BadContentLength)?;
    }
    Ok(length)
}

/// Whether the transfer coding is `chunked` and nothing else.
fn transfer_coding(head: &Head) -> Result<(), Reason> {
    let (mut others, mut chunked) = (false, false);
    for value in head.all_known(Known::TransferEncoding) {
        for coding in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            // Nothing may follow `chunked`, itself included (RFC 9112 section 6.1). An empty list
            // element is allowed by RFC 9110 section 5.6.1, but it is only ever sent to confuse.
            if chunked || !crate::http::head::is_token(coding) {
                return Err(Reason::BadTransferEncoding);
            }
            if coding.eq_ignore_ascii_case(b"chunked") {
                chunked = true;
            } else {
                others = true;
            }
        }
    }
    match (chunked, others) {
        (true, false) => Ok(()),
        (true, true) => Err(Reason::UnsupportedTransferCoding),
        (false, _) => Err(Reason::BadTransferEncoding),
    }
}

#[cfg(test)]
mod tests;
