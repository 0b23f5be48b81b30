//! Field names with an underscore, which many a target reads as a dash: CGI and its heirs (WSGI, Rack, PHP) make
//! `HTTP_X_REAL_IP` of both `X-Real-IP` and `X_Real_IP`.
//!
//! Owns what is done with them in heads of requests, and the question which name one poses as. Never looks at values.
//! Invariant: with no setting does a name pass that poses as the framing of a message.
//!
//! | | `drop` | `keep` | `reject` |
//! |---|---|---|---|
//! | a name with an underscore | left out, counted | kept | 400 |
//! | the same, of a gRPC call (`retry_info`) | kept | kept | 400 |
//! | one that poses as Content-Length or Transfer-Encoding | left out, counted | left out, counted | 400 |
//!
//! Names of calls are kept as gRPC allows them ("gRPC over HTTP2": `Header-Name → 1*( %x30-39 / %x61-7A / "_" / "-" / ".")`)
//! and its servers read them as they are. Whether what calls itself one is a call is known once it has a route: where none are
//! taken, such names are left out after all. What poses as a claim is removed with the claims themselves.

use super::{Known, KnownSet};

/// What is done with fields whose name has an underscore.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Underscores {
    /// They are left out, as nginx does (`underscores_in_headers off`).
    #[default]
    Drop,
    /// They are fields like any other.
    Keep,
    /// The message is refused.
    Reject,
}

impl Underscores {
    /// Whether a field of that name stays, by the table above; `call` is only asked where it matters.
    #[cold]
    pub(super) fn keep(self, name: &[u8], call: impl FnOnce() -> bool) -> bool {
        let passes = match self {
            Underscores::Drop => call(),
            Underscores::Keep => true,
            Underscores::Reject => false,
        };
        passes && !poses_as(name, FRAMING)
    }
}

/// The names that say where a body ends.
pub const FRAMING: KnownSet = KnownSet::of(&[Known::ContentLength, Known::TransferEncoding]);

/// Whether a name is one of `set` to a program that reads `_` as `-`.
pub fn poses_as(name: &[u8], set: KnownSet) -> bool {
    // Room for the longest of the listed names, and to spare.
    let mut text = [0; 64];
    let Some(dashed) = text.get_mut(..name.len()) else { return false };
    for (to, from) in dashed.iter_mut().zip(name) {
        *to = if *from == b'_' { b'-' } else { *from };
    }
    set.contains(Known::of(dashed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_underscores_poses_as_one_with_dashes() {
        for name in ["content_length", "Content_Length", "TRANSFER_encoding", "content-length"] {
            assert!(poses_as(name.as_bytes(), FRAMING), "{name}");
        }
        for name in ["content_length_", "_", "host", "contentlength", &"_".repeat(300)] {
            assert!(!poses_as(name.as_bytes(), FRAMING), "{name}");
        }
    }

    #[test]
    fn what_stays_by_setting_and_kind() {
        use Underscores::{Drop, Keep, Reject};
        for (setting, name, call, stays) in [
            (Drop, "a_b", false, false),
            (Drop, "a_b", true, true),
            (Drop, "content_length", true, false),
            (Keep, "a_b", false, true),
            (Keep, "content_length", false, false),
            (Reject, "a_b", false, false),
            (Reject, "a_b", true, false),
        ] {
            assert_eq!(setting.keep(name.as_bytes(), || call), stays, "{setting:?} {name} {call}");
        }
    }
}
