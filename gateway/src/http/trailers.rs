//! What may come behind a body: the limits on a trailer section, and which of its fields go on.
//!
//! Owns both for all versions. Never parses. Invariant: nothing goes on that framing, routing, authentication or the
//! client's address depend on, whoever merges trailers into heads (RFC 9110 section 6.5.1).
//!
//! | | trailers of a call (gRPC) | others |
//! |---|---|---|
//! | fields and octets | as of a head in that direction | 32, and 8 KiB |
//! | names of framing, connection, credentials and identity, and what poses as one | removed | removed |
//! | other names that the gateway knows (but ETag) | kept | removed |
//! | other names with an underscore | kept | removed |
//! | any other | kept | kept |
//!
//! A call's trailers are its status and the metadata of the application, which knows no other place for them: a trace, an
//! id of the request, details of an error in some ten KiB (`grpc-status-details-bin`).

use super::forwarded::is_forwarded_class;
use super::h1::HeadLimits;
use super::h1::connection::CONNECTION_SPECIFIC;
use super::underscores::poses_as;
use super::{Head, Known, KnownSet};

/// The limits on a trailer section.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TrailerLimits {
    /// Fields.
    pub fields: usize,
    /// Octets, with CR LF and colons as in HTTP/1.
    pub octets: usize,
    /// They are those of a call.
    call: bool,
}

impl Default for TrailerLimits {
    /// Those of any message but a call.
    fn default() -> TrailerLimits {
        TrailerLimits { fields: 32, octets: 8 * 1024, call: false }
    }
}

impl TrailerLimits {
    /// Those behind a head with these limits; `call`: of a gRPC call.
    pub fn of(head: &HeadLimits, call: bool) -> TrailerLimits {
        match call {
            true => TrailerLimits { fields: head.fields, octets: head.head, call },
            false => TrailerLimits::default(),
        }
    }

    /// Removes what must not go on, by the table above.
    pub(super) fn strip(&self, trailers: &mut Head) {
        if self.call {
            trailers.remove_set(NEVER);
            trailers.retain_other(|name| {
                !(is_forwarded_class(name) || name.contains(&b'_') && poses_as(name, NEVER))
            });
        } else {
            trailers.remove_set(KnownSet::of(&[Known::Etag]).complement());
            // Underscores pass for dashes elsewhere, so `content_length` is no better.
            trailers.retain_other(|name| !name.contains(&b'_') && !is_forwarded_class(name));
        }
    }
}

/// Names that decide something when a receiver takes them for those of a head.
const NEVER: KnownSet = KnownSet::of(&[
    Known::Host,
    Known::ContentLength,
    Known::Trailer,
    Known::Expect,
    Known::MaxForwards,
    Known::Authorization,
    Known::WwwAuthenticate,
    Known::AuthenticationInfo,
    Known::Cookie,
    Known::SetCookie,
    Known::Apikey,
])
.and(KnownSet::IDENTITY)
.and(KnownSet::FORWARDED)
.and(CONNECTION_SPECIFIC);

#[cfg(test)]
mod tests {
    use super::*;

    fn left(limits: TrailerLimits, names: &[&str]) -> Vec<String> {
        let mut head = Head::new();
        names.iter().for_each(|name| head.append(name, "x"));
        limits.strip(&mut head);
        head.iter().map(|(_, name, _)| String::from_utf8_lossy(name).into_owned()).collect()
    }

    #[test]
    fn names_that_go_on_rfc9110_6_5_1() {
        let never =
            ["Content-Length", "transfer_encoding", "authorization", "set-cookie", "x-forwarded-user"];
        let never = [&never[..], &["connection", "TE", "X_Consumer_ID", "x_forwarded_for", "host"]].concat();
        let of_calls = ["x-request-id", "traceparent", "retry_info", "content-type"];
        let always = ["grpc-status", "ETag", "x-own"];
        let all = [&never[..], &of_calls, &always].concat();
        let call = TrailerLimits::of(&HeadLimits::default(), true);
        assert_eq!(left(call, &all), [&of_calls[..], &always].concat());
        assert_eq!(left(TrailerLimits::of(&HeadLimits::default(), false), &all), always);
    }

    #[test]
    fn a_calls_trailers_have_the_room_of_a_head() {
        let head = HeadLimits { fields: 7, head: 77_777, ..HeadLimits::default() };
        let call = TrailerLimits::of(&head, true);
        assert_eq!((call.fields, call.octets), (7, 77_777));
        assert_eq!(TrailerLimits::of(&head, false), TrailerLimits::default());
    }
}
