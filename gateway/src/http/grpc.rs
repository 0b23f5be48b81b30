//! gRPC over HTTP, as far as a gateway has a part in it.
//!
//! Owns what a request says of itself (is it gRPC, how long does its client wait), the statuses that stand for ours, and
//! the walk over the messages of a stream. Never looks into a message. Sources: "gRPC over HTTP2" and "PROTOCOL-WEB" of
//! the gRPC documentation, and its table of HTTP statuses (http-grpc-status-mapping).
//!
//! | what we would answer in HTTP | `grpc-status` |
//! |---|---|
//! | the deadline has passed | 4 DEADLINE_EXCEEDED |
//! | 400 | 13 INTERNAL |
//! | 401 | 16 UNAUTHENTICATED |
//! | 403 | 7 PERMISSION_DENIED |
//! | 404 | 12 UNIMPLEMENTED |
//! | 413, 429 | 8 RESOURCE_EXHAUSTED |
//! | 499 | 1 CANCELLED |
//! | 502, 503, 504 | 14 UNAVAILABLE |
//! | any other | 2 UNKNOWN |
//!
//! The table of gRPC has 429 as UNAVAILABLE, which clients try again at once; a limit is RESOURCE_EXHAUSTED to all that
//! implement one.

use std::time::Duration;

use super::{Head, Known, Method, Reason, RequestHead, Version};

/// `grpc-status` of a stream that broke off behind us.
pub const UNAVAILABLE: u8 = 14;
/// `grpc-status` of a stream whose time was over.
pub const DEADLINE_EXCEEDED: u8 = 4;

const TIMEOUT: &str = "grpc-timeout";
const MEDIA_TYPE: &[u8] = b"application/grpc";

/// How messages are put on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// With trailers of HTTP/2.
    Grpc,
    /// gRPC-Web: trailers are the last frame of the body.
    Web,
    /// gRPC-Web in base64.
    WebText,
}

/// What a request says of itself as a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    pub wire: Wire,
    /// How long the client waits, if it says so.
    pub timeout: Option<Duration>,
    /// It says so in a way that cannot be read.
    pub bad_timeout: bool,
}

impl Call {
    /// The call that a request makes, if it makes one. gRPC itself is HTTP/2; gRPC-Web is any.
    pub fn of(request: &RequestHead) -> Option<Call> {
        if request.method() != Method::Post {
            return None;
        }
        let wire = wire_of(request.head.get_known(Known::ContentType)?)?;
        if wire == Wire::Grpc && request.version() != Version::Http2 {
            return None;
        }
        let text = request.head.get(TIMEOUT);
        let timeout = text.and_then(parse_timeout);
        Some(Call { wire, timeout, bad_timeout: text.is_some() && timeout.is_none() })
    }

    /// The media type of its answers.
    pub fn media_type(&self) -> &'static str {
        match self.wire {
            Wire::Grpc => "application/grpc",
            Wire::Web => "application/grpc-web",
            Wire::WebText => "application/grpc-web-text",
        }
    }
}

/// Whether a request, as it goes to a target, makes a call.
pub fn is_call(request: &RequestHead) -> bool {
    let media_type = request.head.get_known(Known::ContentType);
    request.upstream_method() == Method::Post && media_type.is_some_and(|text| wire_of(text).is_some())
}

/// How a body of this media type is put on the wire, if it is gRPC.
pub fn wire_of(media_type: &[u8]) -> Option<Wire> {
    let rest = after(media_type, MEDIA_TYPE)?;
    if is_end(rest) {
        return Some(Wire::Grpc);
    }
    let rest = after(rest, b"-web")?;
    if is_end(rest) {
        return Some(Wire::Web);
    }
    is_end(after(rest, b"-text")?).then_some(Wire::WebText)
}

/// The same media type on another wire: what follows the name of the wire, such as `+proto`, is kept.
pub fn media_type_on(media_type: &[u8], wire: Wire) -> Option<Vec<u8>> {
    let from = wire_of(media_type)?;
    let name = |wire| match wire {
        Wire::Grpc => &b""[..],
        Wire::Web => b"-web",
        Wire::WebText => b"-web-text",
    };
    let rest = media_type.get(MEDIA_TYPE.len() + name(from).len()..)?;
    Some([MEDIA_TYPE, name(wire), rest].concat())
}

fn after<'t>(text: &'t [u8], start: &[u8]) -> Option<&'t [u8]> {
    let (head, rest) = text.split_at_checked(start.len())?;
    head.eq_ignore_ascii_case(start).then_some(rest)
}

fn is_end(rest: &[u8]) -> bool {
    matches!(rest.first(), None | Some(b'+' | b';' | b' '))
}

/// `Timeout → "grpc-timeout" TimeoutValue TimeoutUnit`: one to eight digits, and a unit.
pub fn parse_timeout(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits.iter().fold(0, |value: u64, digit| value * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(value * 3600),
        b'M' => Duration::from_secs(value * 60),
        b'S' => Duration::from_secs(value),
        b'm' => Duration::from_millis(value),
        b'u' => Duration::from_micros(value),
        b'n' => Duration::from_nanos(value),
        _ => return None,
    })
}

/// Tells a target how long its client still waits, in the finest unit that eight digits allow.
pub fn set_timeout(request: &mut RequestHead, left: Duration) {
    const UNITS: [(u128, char); 6] = [
        (1, 'n'),
        (1000, 'u'),
        (1_000_000, 'm'),
        (1_000_000_000, 'S'),
        (60_000_000_000, 'M'),
        (3_600_000_000_000, 'H'),
    ];
    let nanos = left.as_nanos();
    let fitting = UNITS.into_iter().find(|(unit, _)| nanos / unit < 100_000_000);
    let (unit, letter) = fitting.unwrap_or(UNITS[5]);
    request.head.set(TIMEOUT, format!("{}{letter}", (nanos / unit).min(99_999_999)));
}

/// The status that stands for an answer of ours, by the table above.
pub fn status_of(status: u16, reason: Option<Reason>) -> u8 {
    match (reason, status) {
        (Some(Reason::GrpcDeadline | Reason::TotalTimeout), _) => DEADLINE_EXCEEDED,
        (_, 400) => 13,
        (_, 401) => 16,
        (_, 403) => 7,
        (_, 404) => 12,
        (_, 413 | 429) => 8,
        (_, 499) => 1,
        (_, 502..=504) => UNAVAILABLE,
        _ => 2,
    }
}

/// Trailers that end a call whose response has begun, for `reason`.
pub fn trailers(reason: Reason, text: &str) -> Head {
    let status = match reason {
        Reason::GrpcDeadline | Reason::TotalTimeout => DEADLINE_EXCEEDED,
        _ => UNAVAILABLE,
    };
    let mut trailers = Head::new();
    trailers.append_number("grpc-status", status.into());
    trailers.append("grpc-message", message(text));
    trailers
}

/// `grpc-message`: what is not printable ASCII, and `%` itself, as `%XX`.
pub fn message(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'$' | b'&'..=b'~' => out.push(char::from(byte)),
            _ => {
                out.push('%');
                for nibble in [byte >> 4, byte & 15] {
                    out.push(char::from(b"0123456789ABCDEF"[usize::from(nibble)]));
                }
            }
        }
    }
    out
}

/// The messages of one direction: each has a flag and its length in front. A bound on bodies holds for each of them, as a
/// stream of messages may be of any length.
#[derive(Clone, Copy, Debug, Default)]
pub struct Messages {
    prefix: [u8; 5],
    have: usize,
    left: u64,
}

impl Messages {
    /// Whether the last message is whole and the next has not begun.
    pub fn is_between(&self) -> bool {
        self.have == 0 && self.left == 0
    }

    /// Walks over the next bytes. `Err`: a message is longer than `limit`.
    #[expect(clippy::result_unit_err, reason = "there is one thing to say")]
    pub fn advance(&mut self, mut bytes: &[u8], limit: u64) -> Result<(), ()> {
        while !bytes.is_empty() {
            if self.left > 0 {
                let step = self.left.min(bytes.len() as u64);
                self.left -= step;
                bytes = &bytes[step as usize..];
                continue;
            }
            self.prefix[self.have] = bytes[0];
            self.have += 1;
            bytes = &bytes[1..];
            if self.have == self.prefix.len() {
                self.have = 0;
                let [_, length @ ..] = self.prefix;
                self.left = u64::from(u32::from_be_bytes(length));
                if self.left > limit {
                    return Err(());
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_tell_the_wire() {
        let check =
            |text: &str, expected: Option<Wire>| assert_eq!(wire_of(text.as_bytes()), expected, "{text}");
        check("application/grpc", Some(Wire::Grpc));
        check("application/grpc+proto", Some(Wire::Grpc));
        check("Application/gRPC; x=y", Some(Wire::Grpc));
        check("application/grpc-web", Some(Wire::Web));
        check("application/grpc-web+proto", Some(Wire::Web));
        check("application/grpc-web-text", Some(Wire::WebText));
        check("application/grpc-web-text+proto", Some(Wire::WebText));
        check("application/grpcx", None);
        check("application/grpc-webx", None);
        check("application/json", None);
        check("", None);
        let on = |text: &str, wire| String::from_utf8(media_type_on(text.as_bytes(), wire).unwrap()).unwrap();
        assert_eq!(on("application/grpc-web-text+proto", Wire::Grpc), "application/grpc+proto");
        assert_eq!(on("application/grpc+json", Wire::WebText), "application/grpc-web-text+json");
    }

    #[test]
    fn timeouts_are_one_to_eight_digits_and_a_unit() {
        let check = |text: &str, expected: Option<Duration>| {
            assert_eq!(parse_timeout(text.as_bytes()), expected, "{text}");
        };
        check("1H", Some(Duration::from_secs(3600)));
        check("2M", Some(Duration::from_secs(120)));
        check("3S", Some(Duration::from_secs(3)));
        check("100m", Some(Duration::from_millis(100)));
        check("99999999u", Some(Duration::from_micros(99_999_999)));
        check("0n", Some(Duration::ZERO));
        check("99999999H", Some(Duration::from_secs(99_999_999 * 3600)));
        for bad in ["", "S", "1", "123456789S", "-1S", "1s", "1 S", "1.5S", "+1S"] {
            check(bad, None);
        }
    }

    #[test]
    fn a_timeout_that_is_forwarded_never_grows() {
        let check = |left: Duration, expected: &str| {
            let mut head = RequestHead::new();
            set_timeout(&mut head, left);
            let said = head.head.get(TIMEOUT).unwrap();
            assert_eq!(said, expected.as_bytes());
            assert!(parse_timeout(said).unwrap() <= left);
        };
        check(Duration::ZERO, "0n");
        check(Duration::from_millis(50), "50000000n");
        check(Duration::from_millis(1500), "1500000u");
        check(Duration::from_secs(100), "100000m");
        check(Duration::from_secs(86_400 * 365), "31536000S");
        check(Duration::from_secs(u64::MAX / 4), "99999999H");
    }

    #[test]
    fn statuses_stand_for_ours() {
        let check = |status, reason, expected| assert_eq!(status_of(status, reason), expected, "{status}");
        for (status, expected) in [
            (400, 13),
            (401, 16),
            (403, 7),
            (404, 12),
            (413, 8),
            (429, 8),
            (499, 1),
            (502, 14),
            (503, 14),
            (504, 14),
            (418, 2),
            (500, 2),
        ] {
            check(status, None, expected);
        }
        check(504, Some(Reason::GrpcDeadline), 4);
        check(504, Some(Reason::UpstreamTimeout), 14);
    }

    #[test]
    fn a_status_message_is_printable() {
        assert_eq!(message("API rate limit exceeded"), "API rate limit exceeded");
        assert_eq!(message("100% schön\n"), "100%25 sch%C3%B6n%0A");
    }

    #[test]
    fn a_limit_holds_for_each_message_however_it_is_cut() {
        let one = [&[0, 0, 0, 0, 10][..], &[7; 10]].concat();
        let many = one.repeat(50);
        for piece in [1, 3, 4, 5, 6, 64, many.len()] {
            let mut messages = Messages::default();
            assert!(many.chunks(piece).all(|part| messages.advance(part, 10).is_ok()), "pieces of {piece}");
            let mut messages = Messages::default();
            assert!(many.chunks(piece).any(|part| messages.advance(part, 9).is_err()), "pieces of {piece}");
        }
    }
}
