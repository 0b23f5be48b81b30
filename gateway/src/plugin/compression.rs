//! `compression`: puts responses into a content coding that the client takes (Traefik's `compress`).
//!
//! Owns which responses are coded and what their head says then. The codings themselves are `http::coding`'s, and the
//! coding of the body is the relay's: it is streamed, and flushed whenever the upstream pauses.
//!
//! | response | |
//! |---|---|
//! | coded already, or with `Cache-Control: no-transform` | left alone |
//! | a part (206), or one without body | left alone |
//! | of an excluded type, or shorter than the least | left alone |
//! | one that could be coded | `Vary: Accept-Encoding`, whoever asks |
//! | coded here | `Content-Encoding`, a weak `ETag`, no `Content-Length`, no `Accept-Ranges` |
//!
//! **Invariant.** No response is coded twice.

use std::any::Any;
use std::rc::Rc;
use std::sync::Arc;

use portcullis_config::{self as config, Diagnostics, Key, Kind, Section};

use super::{CompileCx, Cx, Flow, Plugin, PluginSpec, Registration};
use crate::http::coding::{ContentCoding, Encoder, preferred};
use crate::http::h1::BodyFraming;
use crate::http::{Head, Known, RequestHead, ResponseHead};

/// The plugin's line of the registry: it reads `Accept-Encoding` before others replace it.
pub static REGISTRATION: Registration =
    Registration { name: "compression", priority: 2_600, section: &SECTION, compile };

static SECTION: Section = Section::new(
    "compression",
    "Compresses responses for clients that accept it.",
    &[
        Key::new(
            "encodings",
            Kind::list(&const { Kind::Word(&["gzip", "br", "zstd"]) }),
            "What is offered, best first: of what a client likes equally the first is taken.",
        )
        .default("[zstd, br, gzip]"),
        Key::new(
            "min_response_body_bytes",
            Kind::Size { min: 0, max: 1 << 40 },
            "Shorter responses are left alone. One of unknown length is not short.",
        )
        .default("1024"),
        Key::new(
            "excluded_content_types",
            Kind::STRINGS,
            "Media types that are left alone, beside those that are compressed already (images, video, archives, fonts).",
        )
        .default("[text/event-stream, application/grpc]"),
        Key::new("included_content_types", Kind::STRINGS, "The only media types that are compressed, where given.")
            .default("[]"),
        Key::new(
            "default_encoding",
            Kind::Word(&["gzip", "br", "zstd"]),
            "What a client gets that says nothing of codings. Left out: nothing is compressed for it.",
        ),
    ],
);

fn compile(plugin: &config::Plugin, _: &CompileCx<'_>, found: &Diagnostics) -> Option<Arc<dyn PluginSpec>> {
    let fields = plugin.fields(&SECTION, found);
    let coding = |word: &&str| ContentCoding::of(word.as_bytes());
    let (excluded, included) =
        (fields.strings("excluded_content_types"), fields.strings("included_content_types"));
    if !included.is_empty() && fields.is_set("excluded_content_types") {
        fields.error("included_content_types", "types are either included or excluded");
    }
    let lower = |types: Vec<String>| types.into_iter().map(|one| one.to_ascii_lowercase()).collect();
    Some(Arc::new(Compression {
        offered: fields.words("encodings").iter().filter_map(coding).collect(),
        least: fields.size("min_response_body_bytes"),
        excluded: lower(excluded),
        included: lower(included),
        default: fields.optional_word("default_encoding").as_ref().and_then(coding),
    }))
}

struct Compression {
    offered: Vec<ContentCoding>,
    least: u64,
    excluded: Vec<String>,
    included: Vec<String>,
    default: Option<ContentCoding>,
}

/// Compressed by their own making.
const COMPRESSED: &[&str] = &[
    "application/gzip",
    "application/zip",
    "application/zstd",
    "application/x-7z-compressed",
    "application/x-bzip2",
    "application/x-gzip",
    "application/x-rar-compressed",
    "application/x-xz",
    "application/vnd.rar",
    "font/woff",
    "font/woff2",
];

impl Compression {
    fn takes_type(&self, content_type: &[u8]) -> bool {
        let media = content_type.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
        let media = String::from_utf8_lossy(media).to_ascii_lowercase();
        if !self.included.is_empty() {
            return self.included.contains(&media);
        }
        let kind = media.split('/').next().unwrap_or_default();
        let picture =
            matches!(kind, "image" | "video" | "audio") && !media.ends_with("+xml") && media != "image/bmp";
        // `application/grpc+proto` is one of `application/grpc`.
        let excluded = |one: &String| {
            media == *one || media.strip_prefix(one.as_str()).is_some_and(|rest| rest.starts_with('+'))
        };
        !media.is_empty()
            && !picture
            && !COMPRESSED.contains(&media.as_str())
            && !self.excluded.iter().any(excluded)
    }

    /// Whether the response could be coded for some client.
    fn takes(&self, head: &ResponseHead, framing: BodyFraming) -> bool {
        let fields = &head.head;
        let long = match framing {
            BodyFraming::Length(length) => length >= self.least.max(1),
            BodyFraming::None => length_of(fields).is_none_or(|length| length >= self.least.max(1)),
            BodyFraming::Chunked | BodyFraming::UntilClose => true,
        };
        long && !matches!(head.status(), 101..=199 | 204 | 205 | 206 | 304)
            && fields.get_known(Known::ContentRange).is_none()
            && !super::body::is_coded(fields)
            && !is_untouchable(fields)
            && fields.get_known(Known::ContentType).is_some_and(|one| self.takes_type(one))
    }
}

/// What the response to a HEAD request tells of the body that it has not.
fn length_of(head: &Head) -> Option<u64> {
    std::str::from_utf8(head.get_known(Known::ContentLength)?).ok()?.parse().ok()
}

/// RFC 9110 section 7.7: whoever says so wants the content as it is.
fn is_untouchable(head: &Head) -> bool {
    let mut directives =
        head.all_known(Known::CacheControl).flat_map(|field| field.split(|&byte| byte == b','));
    directives.any(|one| one.trim_ascii().eq_ignore_ascii_case(b"no-transform"))
}

/// A validator of the same content in other octets (RFC 9110 section 8.8.1).
fn weaken(head: &mut Head) {
    if let Some(tag) = head.get_known(Known::Etag)
        && !tag.starts_with(b"W/")
    {
        let weak = [b"W/", tag].concat();
        head.set_known(Known::Etag, weak);
    }
}

/// Adds to what the response varies by.
fn vary(head: &mut Head) {
    let mut names = head.all_known(Known::Vary).flat_map(|field| field.split(|&byte| byte == b','));
    let known = names.any(|name| {
        let name = name.trim_ascii();
        name == b"*" || name.eq_ignore_ascii_case(b"Accept-Encoding")
    });
    drop(names);
    if !known {
        head.append_item(Known::Vary, "Accept-Encoding");
    }
}

impl PluginSpec for Compression {
    fn instantiate(self: Arc<Self>, _: Option<Rc<dyn Any>>) -> Rc<dyn Plugin> {
        Rc::new(OnShard(self))
    }
}

struct OnShard(Arc<Compression>);

impl Plugin for OnShard {
    fn on_request(&self, cx: &mut Cx<'_>, request: &mut RequestHead) -> Flow {
        let fields = &request.head;
        cx.coding = match fields.get_known(Known::AcceptEncoding) {
            _ if is_untouchable(fields) => None,
            None => self.0.default,
            Some(_) => preferred(fields.all_known(Known::AcceptEncoding), &self.0.offered),
        };
        Flow::Continue
    }

    fn encoder(&self, cx: &Cx<'_>, head: &mut ResponseHead, framing: BodyFraming) -> Option<Box<Encoder>> {
        if !self.0.takes(head, framing) {
            return None;
        }
        vary(&mut head.head);
        let coding = cx.coding?;
        let encoder = Encoder::new(coding).ok()?;
        let fields = &mut head.head;
        fields.set_known(Known::ContentEncoding, coding.as_str());
        fields.remove_known(Known::ContentLength);
        for name in ["Accept-Ranges", "Content-MD5", "Digest", "Content-Digest"] {
            fields.remove(name);
        }
        weaken(fields);
        Some(Box::new(encoder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::fixture::{Fixture, answer, request_with};

    /// What the head of a response says in the end: its coding, `Vary` and `ETag`.
    fn coded(
        settings: &str,
        accepts: &str,
        status: u16,
        lines: &[(&str, &str)],
        framing: BodyFraming,
    ) -> [String; 3] {
        let fixture = Fixture::default();
        let plugin = fixture.accepted("compression", settings);
        let mut cx = fixture.cx();
        let mut request = request_with("/", &[&format!("Accept-Encoding: {accepts}")]);
        assert!(answer(plugin.on_request(&mut cx, &mut request)).is_none());
        let mut head = ResponseHead::new();
        head.set_status(status);
        lines.iter().for_each(|(name, value)| head.head.append(name, value));
        let encoder = plugin.encoder(&cx, &mut head, framing);
        let value =
            |name: &str| String::from_utf8_lossy(head.head.get(name).unwrap_or_default()).into_owned();
        assert_eq!(
            encoder.is_some(),
            !value("content-encoding").is_empty()
                && !lines.iter().any(|(name, _)| *name == "Content-Encoding")
        );
        ["content-encoding", "vary", "etag"].map(value)
    }

    const LONG: BodyFraming = BodyFraming::Length(5000);

    #[track_caller]
    fn check(
        settings: &str,
        accepts: &str,
        lines: &[(&str, &str)],
        framing: BodyFraming,
        expected: [&str; 3],
    ) {
        assert_eq!(coded(settings, accepts, 200, lines, framing), expected, "{settings} {accepts} {lines:?}");
    }

    const TEXT: (&str, &str) = ("Content-Type", "text/plain; charset=utf-8");

    #[test]
    fn what_can_be_coded_is() {
        check("{}", "gzip", &[TEXT, ("ETag", "\"1\"")], LONG, ["gzip", "Accept-Encoding", "W/\"1\""]);
        check("{}", "gzip, br, zstd", &[TEXT], BodyFraming::Chunked, ["zstd", "Accept-Encoding", ""]);
        check("{encodings: [gzip, br]}", "gzip, br, zstd", &[TEXT], LONG, ["gzip", "Accept-Encoding", ""]);
        check("{}", "gzip", &[TEXT, ("Vary", "Origin")], LONG, ["gzip", "Origin, Accept-Encoding", ""]);
        check("{}", "gzip", &[("Content-Type", "image/svg+xml")], LONG, ["gzip", "Accept-Encoding", ""]);
    }

    #[test]
    fn who_takes_no_coding_is_told_of_it_to_caches_only() {
        check("{}", "identity", &[TEXT, ("ETag", "\"1\"")], LONG, ["", "Accept-Encoding", "\"1\""]);
        check("{}", "gzip;q=0", &[TEXT], LONG, ["", "Accept-Encoding", ""]);
    }

    #[test]
    fn what_must_not_be_coded_is_left_alone() {
        check("{}", "gzip", &[TEXT, ("Content-Encoding", "br")], LONG, ["br", "", ""]);
        check("{}", "gzip", &[TEXT, ("Cache-Control", "max-age=1, No-Transform")], LONG, ["", "", ""]);
        check("{}", "gzip", &[TEXT], BodyFraming::Length(1023), ["", "", ""]);
        check("{}", "gzip", &[TEXT], BodyFraming::Length(0), ["", "", ""]);
        check("{}", "gzip", &[], LONG, ["", "", ""]);
        for media in ["text/event-stream", "image/png", "application/grpc+proto", "font/woff2", "video/mp4"] {
            check("{}", "gzip", &[("Content-Type", media)], LONG, ["", "", ""]);
        }
        for status in [204, 206, 304] {
            assert_eq!(coded("{}", "gzip", status, &[TEXT], LONG), ["", "", ""], "{status}");
        }
    }

    #[test]
    fn types_are_included_or_excluded() {
        let json = [("Content-Type", "application/json")];
        check(
            "{included_content_types: [application/json]}",
            "gzip",
            &json,
            LONG,
            ["gzip", "Accept-Encoding", ""],
        );
        check("{included_content_types: [application/json]}", "gzip", &[TEXT], LONG, ["", "", ""]);
        check("{excluded_content_types: [Application/JSON]}", "gzip", &json, LONG, ["", "", ""]);
        let both = "{included_content_types: [a/b], excluded_content_types: [c/d]}";
        assert!(Fixture::default().refused("compression", both).contains("either included or excluded"));
    }
}
