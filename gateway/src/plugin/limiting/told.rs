//! What a client is told about a limit.
//!
//! Owns the header fields of three families:
//!
//! | word | fields |
//! |---|---|
//! | `x-ratelimit` | Kong's, a pair for each window: `X-RateLimit-Limit-Minute`, `X-RateLimit-Remaining-Minute` |
//! | `ratelimit` | the older IETF draft's, for the window with least left: `RateLimit-Limit`, `-Remaining`, `-Reset` |
//! | `draft` | the present draft's (draft-ietf-httpapi-ratelimit-headers-10): `RateLimit-Policy`, `RateLimit` |
//!
//! `Retry-After` goes with a refusal whenever any family is told.
//!
//! **Invariant.** Telling the first two families allocates nothing but room in the warm arena of the response's fields.

use std::fmt::Write;

use portcullis_config::{Fields, Key, Kind};

use crate::http::head::decimal;
use crate::http::{FieldName, Head};
use crate::limit::{Decision, Span};

/// The families, as words.
pub const CLIENT_HEADERS: Key = Key::new(
    "client_headers",
    Kind::list(&Kind::Word(&["x-ratelimit", "ratelimit", "draft"])),
    "Which header fields tell a client how it stands: Kong's pair for each window, the older IETF draft's three for the \
     tightest window, the present draft's `RateLimit-Policy` and `RateLimit`.",
)
.default("[x-ratelimit, ratelimit]");

/// The fields of one limit.
#[derive(Clone, Debug)]
pub struct LimitFields {
    /// Those that say the same to everybody: `X-RateLimit-Limit-Minute: 60`, ...
    constant: Head,
    /// `X-RateLimit-Remaining-Minute`, ... in the order of the limiter's windows.
    remaining: Box<[FieldName]>,
    /// Limit, remaining, reset.
    tightest: Option<[FieldName; 3]>,
    /// The names of the windows in the draft's field, and the field.
    draft: Option<(Box<[String]>, FieldName)>,
    retry_after: FieldName,
}

impl LimitFields {
    /// For the windows of a limiter; `None` where the client is not to be told.
    pub fn read(fields: &Fields<'_>, windows: &[(Span, u64)]) -> Option<Self> {
        let families = fields.words("client_headers");
        if fields.bool("hide_client_headers") || families.is_empty() {
            return None;
        }
        let told = |family| families.contains(&family);
        let mut constant = Head::new();
        let mut remaining = Vec::new();
        if told("x-ratelimit") {
            for (span, limit) in windows {
                let window = span.label();
                constant.append_number(format!("X-RateLimit-Limit-{window}"), *limit);
                remaining.push(name(&format!("X-RateLimit-Remaining-{window}")));
            }
        }
        let draft = told("draft").then(|| {
            let names: Box<[String]> = windows.iter().map(|(span, _)| span.label().to_lowercase()).collect();
            let policy = |(name, (span, limit)): (&String, &(Span, u64))| {
                format!("\"{name}\";q={limit};w={}", span.shortest_ns().div_ceil(1_000_000_000))
            };
            let policies: Vec<_> = names.iter().zip(windows).map(policy).collect();
            constant.append("RateLimit-Policy", policies.join(", "));
            (names, name("RateLimit"))
        });
        let tightest = ["RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"];
        Some(Self {
            constant,
            remaining: remaining.into(),
            tightest: told("ratelimit").then(|| tightest.map(name)),
            draft,
            retry_after: name("Retry-After"),
        })
    }

    /// Adds the fields to a response's. `jitter` is seconds to add to `Retry-After`.
    pub fn tell(&self, decision: &Decision, jitter: u64, out: &mut Head) {
        let mut digits = [0; 20];
        let mut number = |name: &FieldName, value: u64, out: &mut Head| {
            out.append_field(name, decimal(value, &mut digits));
        };
        out.append_head(&self.constant);
        for (name, window) in self.remaining.iter().zip(decision.windows()) {
            number(name, window.remaining, out);
        }
        if let Some([limit, remaining, reset]) = &self.tightest {
            let tightest = decision.tightest();
            number(limit, tightest.limit, out);
            number(remaining, tightest.remaining, out);
            number(reset, tightest.reset_seconds(), out);
        }
        if let Some((names, field)) = &self.draft {
            let mut text = String::new();
            for (at, (name, window)) in names.iter().zip(decision.windows()).enumerate() {
                let comma = if at > 0 { ", " } else { "" };
                let (left, reset) = (window.remaining, window.reset_seconds());
                write!(text, "{comma}\"{name}\";r={left};t={reset}").expect("a string takes all");
            }
            out.append_field(field, text.as_bytes());
        }
        if let Some(stopped) = decision.stopped_by() {
            number(&self.retry_after, stopped.reset_seconds().saturating_add(jitter), out);
        }
    }
}

fn name(text: &str) -> FieldName {
    FieldName::new(text).expect("letters, digits, dots and dashes are a token")
}
