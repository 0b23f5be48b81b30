//! What requests are counted by.
//!
//! Owns the parts that a key is made of, and where its counts are kept. Never counts.
//!
//! **Invariant.** Every request has a key. A part that a request lacks (no consumer, no such header) is its client
//! address in that place, as in Kong; an IPv6 address is its /64. The kind is part of the key, so that no header's value
//! can be somebody's name.

use portcullis_config::{Fault, Fields, Key, Kind, schema::text};
use serde_json::Value;

use crate::http::{FieldName, Known, RequestHead};
use crate::limit::{KeyHasher, LimiterId, Table, source_key};
use crate::plugin::Cx;

/// The words of a part, `ip` being the one that every request has.
pub const WORDS: &[&str] = &[
    "ip",
    "consumer",
    "credential",
    "consumer-group",
    "service",
    "route",
    "host",
    "header",
    "path",
    "cookie",
    "claim",
];

/// What the parts of some kinds need to be told.
pub const KEYS: &[Key] = &[
    Key::new("header_name", Kind::Text(&text::HEADER_NAME), "The header, where requests are counted by one."),
    Key::new(
        "path",
        Kind::Text(&text::PATH),
        "Where requests are counted by path: the only one that counts; requests for another are counted by address. \
         Without it each path counts by itself.",
    ),
    Key::new("cookie_name", Kind::NAME, "The cookie, where requests are counted by one."),
    Key::new(
        "claim_name",
        Kind::NAME,
        "The claim of a verified token, where requests are counted by one; a dot leads into an object.",
    ),
];

/// `limit_by` of our own plugins.
pub const LIMIT_BY: Key = Key::new(
    "limit_by",
    Kind::Word(WORDS),
    "Whose requests are counted together. A request that lacks it is counted by its client address; an IPv6 address by \
     its /64.",
)
.default("ip");

/// The same by several together.
pub const COMPOUND: Key = Key::new(
    "compound_identifier",
    Kind::List { of: &Kind::Word(WORDS), max: 8 },
    "The same, by several together; takes the place of the single one.",
);

/// One thing that requests are told apart by.
#[derive(Clone, Debug)]
enum Part {
    Ip,
    Consumer,
    Credential,
    Group,
    Service,
    Route,
    Host,
    Header(FieldName),
    Path(Option<Box<[u8]>>),
    Cookie(Box<[u8]>),
    Claim(Box<[String]>),
}

/// What requests are counted by: all parts together.
#[derive(Clone, Debug)]
pub struct LimitKey(Box<[Part]>);

impl LimitKey {
    /// From the words of `key`; `path_needed` where counting by path needs one.
    pub fn read(fields: &Fields<'_>, key: &str, words: &[&str], path_needed: bool) -> Option<Self> {
        let missing = |needed: &str, word: &str| {
            if !fields.is_set(needed) && !fields.has_unknown_keys() {
                fields.error(key, Fault::new(format!("`{key}: {word}` needs `{needed}`")));
            }
        };
        let part = |word: &&str| {
            Some(match *word {
                "consumer" => Part::Consumer,
                "credential" => Part::Credential,
                "consumer-group" => Part::Group,
                "service" => Part::Service,
                "route" => Part::Route,
                "host" => Part::Host,
                "header" => {
                    let name = fields.optional_string("header_name").and_then(FieldName::new);
                    if name.is_none() {
                        missing("header_name", "header");
                    }
                    Part::Header(name?)
                }
                "path" => {
                    let path = fields.optional_string("path");
                    if path.is_none() && path_needed {
                        missing("path", "path");
                        return None;
                    }
                    Part::Path(path.map(|path| path.into_bytes().into()))
                }
                "cookie" => {
                    missing("cookie_name", "cookie");
                    Part::Cookie(fields.optional_string("cookie_name")?.into_bytes().into())
                }
                "claim" => {
                    missing("claim_name", "claim");
                    Part::Claim(fields.optional_string("claim_name")?.split('.').map(str::to_owned).collect())
                }
                _ => Part::Ip,
            })
        };
        words.iter().map(part).collect::<Option<Box<[_]>>>().map(Self)
    }

    /// From [`LIMIT_BY`] or [`COMPOUND`].
    pub fn read_by(fields: &Fields<'_>) -> Option<Self> {
        match fields.words("compound_identifier") {
            words if words.is_empty() => Self::read(fields, "limit_by", &[fields.word("limit_by")], false),
            words => Self::read(fields, "compound_identifier", &words, false),
        }
    }

    /// Whether it needs what a token says.
    pub fn wants_claims(&self) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Claim(_)))
    }

    /// Where the request is counted: in the table of sources if it is by nothing but its address.
    pub fn place<'a>(&self, id: LimiterId, cx: &Cx<'a>, head: &RequestHead) -> (&'a Table, u64) {
        let mut key = KeyHasher::new(id);
        let by_address = self.visit(cx, head, |part| key.part(part));
        (if by_address { cx.table } else { cx.limit_table }, key.finish())
    }

    /// A name for the key that is the same in every gateway: its parts, hashed, so that a store learns nobody's secret.
    pub fn name(&self, cx: &Cx<'_>, head: &RequestHead) -> [u8; 32] {
        let mut hash = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        self.visit(cx, head, |part| {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        });
        let mut name = [0; 32];
        for (at, byte) in hash.finish().as_ref()[..16].iter().enumerate() {
            name[2 * at] = b"0123456789abcdef"[usize::from(byte >> 4)];
            name[2 * at + 1] = b"0123456789abcdef"[usize::from(byte & 15)];
        }
        name
    }

    /// Goes through kinds and values. True if there was nothing but the address.
    fn visit(&self, cx: &Cx<'_>, head: &RequestHead, mut sink: impl FnMut(&[u8])) -> bool {
        let mut by_address = true;
        for part in &self.0 {
            if part.visit(cx, head, &mut sink).is_some() {
                by_address = false;
            } else {
                sink(b"ip");
                sink(&source_key(cx.client).to_le_bytes());
            }
        }
        by_address
    }
}

impl Part {
    /// Gives kind and value; `None`, and nothing, where the request lacks it.
    fn visit(&self, cx: &Cx<'_>, head: &RequestHead, sink: &mut impl FnMut(&[u8])) -> Option<()> {
        let consumer = || Some(cx.consumers.consumer(cx.identity.consumer?));
        let mut pair = |kind: &[u8], value: &[u8]| {
            sink(kind);
            sink(value);
        };
        match self {
            Part::Ip => return None,
            Part::Consumer => match consumer() {
                Some(consumer) => pair(b"consumer", consumer.id.as_bytes()),
                None => return Part::Credential.visit(cx, head, sink),
            },
            Part::Credential => {
                let credential = cx.consumers.credential(cx.identity.credential?);
                pair(b"credential", cx.consumers.consumer(credential.consumer).id.as_bytes());
                sink(credential.identifier.as_bytes());
            }
            Part::Group => pair(b"consumer-group", consumer()?.groups.first()?.as_bytes()),
            Part::Service => pair(b"service", cx.service_name?.as_bytes()),
            Part::Route => pair(b"route", cx.route_name.as_bytes()),
            Part::Host => pair(b"host", head.host()),
            Part::Header(name) => pair(b"header", head.head.get_field(name)?),
            Part::Path(Some(path)) if head.path() != &**path => return None,
            Part::Path(_) => pair(b"path", head.path()),
            Part::Cookie(name) => pair(b"cookie", cookie(head, name)?),
            Part::Claim(path) => match claim(cx.claims.as_deref()?, path)? {
                Value::String(text) => pair(b"claim", text.as_bytes()),
                other => pair(b"claim", other.to_string().as_bytes()),
            },
        }
        Some(())
    }
}

/// The value of the first cookie of this name (RFC 6265 section 4.2.1).
fn cookie<'a>(head: &'a RequestHead, name: &[u8]) -> Option<&'a [u8]> {
    let mut pairs = head.head.all_known(Known::Cookie).flat_map(|line| line.split(|&byte| byte == b';'));
    pairs.find_map(|pair| pair.trim_ascii().strip_prefix(name)?.strip_prefix(b"="))
}

fn claim<'a>(claims: &'a serde_json::Map<String, Value>, path: &[String]) -> Option<&'a Value> {
    let (last, way) = path.split_last()?;
    let mut object = claims;
    for name in way {
        object = object.get(name)?.as_object()?;
    }
    object.get(last)
}
