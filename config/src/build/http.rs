//! The section about HTTP.

use crate::fields::Fields;
use crate::model::{Doubtful, HalfClosed, Http, ServerHeader, Underscores};

pub(super) fn http(fields: &Fields<'_>) -> Http {
    let doubtful = |key| match fields.word(key) {
        "keep" => Doubtful::Keep,
        "decode" => Doubtful::Decode,
        _ => Doubtful::Reject,
    };
    Http {
        encoded_slash: doubtful("encoded_slash"),
        backslash: doubtful("backslash"),
        underscores: match fields.word("underscores") {
            "keep" => Underscores::Keep,
            "reject" => Underscores::Reject,
            _ => Underscores::Drop,
        },
        merge_slashes: fields.bool("merge_slashes"),
        server_header: match fields.word("server_header") {
            "remove" => ServerHeader::Remove,
            "replace" => ServerHeader::Replace,
            _ => ServerHeader::Pass,
        },
        half_closed: if fields.word("half_closed") == "serve" {
            HalfClosed::Serve
        } else {
            HalfClosed::Cancel
        },
        via_limit: fields.integer("via_limit"),
    }
}
